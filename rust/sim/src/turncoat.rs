//! A member that ran the protocol, and turned hostile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{
    EndpointId, InEvent, Lane, LinkId, OutEvent, State, TopicEvent, TopicId,
    forge::{self, Meaning},
};
use tokio::time::Instant;

use crate::hostile::Hostile;

/// The tag of the frame that opens a topic on a lane.
const OPEN: u8 = 1;

/// Which broadcasts of others a [`Turncoat`] keeps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Silence {
    /// None: it forwards what the protocol forwards.
    #[default]
    None,
    /// Those of one author, and their announcements.
    Of(EndpointId),
    /// All, but it announces them, and answers no request for one.
    AnnouncedOnly,
    /// All, and the records of members too.
    OfAll,
}

/// What a [`Turncoat`] does from the moment when it turns hostile.
#[derive(Debug, Clone, Default)]
pub struct Malice {
    /// What it keeps back.
    pub silence: Silence,
    /// The members that it asks again and again to be their neighbor.
    pub besieged: Vec<(EndpointId, Vec<TransportAddr>)>,
    /// The time between two requests to one member.
    pub every: Duration,
    /// True if it takes no part in the overlay but for these requests.
    pub besieges_only: bool,
}

/// A member that still links, compares books and answers probes as the protocol says, so that it
/// stays a member that others have reached. Its overlay does harm.
#[derive(Debug)]
pub struct Turncoat {
    state: Box<State>,
    topic: TopicId,
    malice: Malice,
    /// The links that a topic is open on.
    open: BTreeMap<EndpointId, LinkId>,
    peers: BTreeMap<LinkId, EndpointId>,
    /// The besieged members that are neighbors.
    taken: BTreeSet<EndpointId>,
    /// The broadcasts that it keeps back.
    kept: BTreeSet<[u8; 32]>,
    next_request: Instant,
    /// The besieged member that is next.
    turn: usize,
}

impl Turncoat {
    /// Turns a member hostile at `now`. It has these links.
    pub(crate) fn new(
        state: Box<State>,
        topic: TopicId,
        malice: Malice,
        links: Vec<(EndpointId, LinkId)>,
        now: Instant,
    ) -> Self {
        let peers = links.iter().map(|(peer, link)| (*link, *peer)).collect();
        let open = links.into_iter().collect();
        let (taken, kept) = (BTreeSet::new(), BTreeSet::new());
        Self { state, topic, malice, open, peers, taken, kept, next_request: now, turn: 0 }
    }

    /// Returns what is left of an effect of the protocol.
    fn pass(&mut self, output: OutEvent) -> Option<OutEvent> {
        let (link, lane, frame) = match output {
            OutEvent::Send(link, lane, frame) => (link, lane, frame),
            OutEvent::Topic(_, event) => {
                // Nobody looks at the book of a hostile node.
                let announced = matches!(event, TopicEvent::Announced(_));
                return announced.then(|| OutEvent::Topic(self.topic, event));
            }
            OutEvent::Dropped { .. } => return None,
            other => return Some(other),
        };
        if frame.get(1) == Some(&OPEN)
            && lane == Lane::Control
            && let Some(peer) = self.peers.get(&link)
        {
            self.open.insert(*peer, link);
        }
        let frame = self.filter(frame)?;
        Some(OutEvent::Send(link, lane, frame))
    }

    /// Returns what it sends of a frame that the protocol sends.
    fn filter(&mut self, frame: Bytes) -> Option<Bytes> {
        let silence = self.malice.silence;
        match forge::meaning(&frame) {
            Meaning::Other => Some(frame),
            _ if self.malice.besieges_only => None,
            Meaning::Broadcast(author, id) => match silence {
                Silence::None => Some(frame),
                Silence::Of(other) if author != other => Some(frame),
                _ => {
                    self.kept.insert(id);
                    None
                }
            },
            Meaning::Records => (silence != Silence::OfAll).then_some(frame),
            Meaning::Announcement(ids) => match silence {
                Silence::None | Silence::AnnouncedOnly => Some(frame),
                Silence::OfAll => None,
                Silence::Of(_) => {
                    let rest: Vec<_> =
                        ids.into_iter().filter(|id| !self.kept.contains(id)).collect();
                    (!rest.is_empty()).then(|| forge::announce(&rest))
                }
            },
            Meaning::Neighbor | Meaning::Disconnect | Meaning::Overlay => Some(frame),
        }
    }

    /// Asks the next besieged members to be their neighbor. The requests are spread evenly.
    fn besiege(&mut self, now: Instant) -> Vec<OutEvent> {
        let mut outputs = Vec::new();
        let count = self.malice.besieged.len();
        if count == 0 || now < self.next_request {
            return outputs;
        }
        let apart = self.malice.every / u32::try_from(count).unwrap_or(u32::MAX);
        self.next_request = now + apart;
        let (target, addresses) = self.malice.besieged[self.turn % count].clone();
        self.turn += 1;
        if self.taken.contains(&target) {
            return outputs;
        }
        match (self.state.link(&target), self.open.get(&target)) {
            (None, _) if !self.state.is_connecting(&target) => {
                outputs.push(OutEvent::Dial(target, addresses));
            }
            (Some(link), Some(open)) if link == *open => outputs.extend(self.request(link)),
            _ => {}
        }
        outputs
    }

    fn request(&self, link: LinkId) -> Option<OutEvent> {
        let own = self.state.own_record(&self.topic)?;
        Some(OutEvent::Send(link, Lane::Control, forge::neighbor(own.bytes(), true)))
    }

    /// A member sent a frame of the overlay to a node that only besieges.
    fn answer(&mut self, link: LinkId, meaning: &Meaning) -> Option<OutEvent> {
        let peer = *self.peers.get(&link)?;
        match meaning {
            // Two such answers in a row would never end.
            Meaning::Neighbor if self.taken.insert(peer) => self.request(link),
            Meaning::Disconnect => {
                self.taken.remove(&peer);
                None
            }
            _ => None,
        }
    }
}

impl Hostile for Turncoat {
    fn handle(&mut self, event: InEvent, now: Instant) -> Vec<OutEvent> {
        let mut outputs = self.besiege(now);
        let mut hold = None;
        match &event {
            InEvent::LinkOpened { link, peer, .. } => {
                self.peers.insert(*link, *peer);
                hold = (!self.malice.besieged.is_empty()).then_some(*link);
            }
            InEvent::LinkClosed(link, _) => {
                if let Some(peer) = self.peers.remove(link)
                    && self.open.get(&peer) == Some(link)
                {
                    self.open.remove(&peer);
                    self.taken.remove(&peer);
                }
            }
            InEvent::Received(link, _, frame) if self.malice.besieges_only => {
                let meaning = forge::meaning(frame);
                if meaning != Meaning::Other {
                    outputs.extend(self.answer(*link, &meaning));
                    return outputs;
                }
            }
            _ => {}
        }
        // What the protocol refuses is of no interest here.
        let _ = self.state.handle(event, now);
        if let Some(link) = hold {
            let _ = self.state.handle(InEvent::Held(link, true), now);
        }
        while let Some(output) = self.state.poll() {
            outputs.extend(self.pass(output));
        }
        outputs
    }

    fn next_timer(&self) -> Option<Instant> {
        let request = (!self.malice.besieged.is_empty()).then_some(self.next_request);
        self.state.next_timer().into_iter().chain(request).min()
    }
}
