//! The endpoint's links: one per peer, opened by a hello, shared by all topics.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use iroh_base::TransportAddr;
use tokio::time::Instant;

use crate::{
    access::Access,
    dials::{Dials, Trust},
    drops::DropReason,
    event::{CloseCode, Lane, LinkEnd, LinkId, OutEvent},
    id::{EndpointId, TopicId},
    wire::{Frame, Hello, MAX_TOPICS, OverlayFrame, TopicFrame, VERSIONS, is_broadcast},
};

/// Two links to one peer count as dialed at the same time if their hellos arrived within this time
/// of each other.
const SIMULTANEOUS: Duration = Duration::from_secs(2);
/// A link that another one replaced is still read for this time, so that no frame in flight is
/// lost.
const DRAIN: Duration = Duration::from_secs(2);
/// A link on which no hello arrived within this time is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Links that peers dial are refused while this many are open.
pub const MAX_LINKS: usize = 2048;

/// How much a topic needs the link to a peer, from the least need to the greatest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// The link is not needed: it is closed once it is idle.
    #[default]
    Nothing,
    /// The link is needed now. Its need is checked again after the idle time.
    ForNow,
    /// The link is needed until the topic calls [`Links::touch`].
    UntilTouched,
}

/// An event of a link that the topics have to know.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A peer has a usable link, and had none before.
    Up(EndpointId),
    /// A peer acknowledged a ping or a keepalive.
    Heard(EndpointId),
    /// The link in use with a peer is gone, or a later link replaced it, perhaps that of another
    /// process. If it was replaced, [`LinkEvent::Up`] follows.
    Down(EndpointId, LinkEnd),
    /// A link that was no longer in use is gone.
    Gone(EndpointId, LinkId),
    DialFailed(EndpointId),
    /// The peer opened a topic on a lane of this link.
    Opened(EndpointId, LinkId, TopicId),
    Frame(EndpointId, LinkId, TopicId, TopicFrame),
}

#[derive(Debug)]
struct Link {
    peer: EndpointId,
    dialed: bool,
    /// The peer's address when the link was opened.
    address: Option<TransportAddr>,
    opened: Instant,
    /// The peer's boot id, and when its hello arrived.
    hello: Option<(u64, Instant)>,
    /// For each lane, the numbers that this end gave to topics, and those that the peer gave.
    sends: [BTreeMap<TopicId, u64>; 3],
    receives: [BTreeMap<u64, TopicId>; 3],
    last_used: Instant,
    /// When the last frame arrived, or the last acknowledgement of a keepalive.
    last_heard: Instant,
    /// When the last frame arrived.
    last_frame: Instant,
    idle_check: Option<Instant>,
    /// The round-trip time that was measured last.
    round_trip: Option<Duration>,
    /// When the first ping that is not answered yet was sent.
    pinged: Option<Instant>,
    /// When a ping was last answered. A keepalive of the peer counts as an answer.
    answered: Option<Instant>,
    /// True if the link was dialed to replace another one.
    replaces: bool,
    /// True while an application's messages or streams use the link.
    held: bool,
    closing: Option<Closing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// Another link took its place. Its frames are read until this time.
    Replaced(Instant),
    /// The driver was requested to close the link.
    Requested,
}

/// The answer of [`Links::ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkRequest {
    /// There is a link.
    Linked,
    /// A link is being opened: [`LinkEvent::Up`] or [`LinkEvent::DialFailed`] follows.
    Dialing,
    /// The budget for strangers is used up, or this endpoint keeps the peer out.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Links {
    me: EndpointId,
    boot_id: u64,
    open: BTreeMap<LinkId, Link>,
    current: BTreeMap<EndpointId, LinkId>,
    dialing: BTreeSet<EndpointId>,
    /// The peers that are dialed although they have a link, because that link is silent.
    reopening: BTreeSet<EndpointId>,
    dials: Dials,
    /// The peers that may have links.
    access: Arc<Access>,
    /// If both ends dial at once, both keep the same link. Only a control of the simulator switches
    /// this rule off.
    pub(crate) tie_break: bool,
    pub(crate) out: VecDeque<OutEvent>,
    events: VecDeque<LinkEvent>,
}

impl Links {
    pub(crate) fn new(me: EndpointId, boot_id: u64) -> Self {
        Self {
            me,
            boot_id,
            open: BTreeMap::new(),
            current: BTreeMap::new(),
            dialing: BTreeSet::new(),
            reopening: BTreeSet::new(),
            dials: Dials::default(),
            access: Arc::default(),
            tie_break: true,
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn next_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Returns the sizes of what could grow, for a simulation to check.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 4] {
        let [authenticated, strangers] = self.dials.sizes();
        [("links", self.open.len()), ("dials", self.dialing.len()), authenticated, strangers]
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the link in use with a peer.
    pub(crate) fn current(&self, peer: &EndpointId) -> Option<LinkId> {
        self.current.get(peer).copied()
    }

    /// Returns when the last sign of life arrived on the link in use with a peer.
    pub(crate) fn heard(&self, peer: &EndpointId) -> Option<Instant> {
        Some(self.open.get(self.current.get(peer)?)?.last_heard)
    }

    /// Returns true if a sign of life arrived after `since` on the link in use with a peer.
    pub(crate) fn was_heard(&self, peer: &EndpointId, since: Instant) -> bool {
        self.heard(peer).is_some_and(|at| at > since)
    }

    /// Returns the boot id of the process at the other end of the link in use with a peer.
    pub(crate) fn boot_id(&self, peer: &EndpointId) -> Option<u64> {
        self.open.get(self.current.get(peer)?)?.hello.map(|(boot_id, _)| boot_id)
    }

    /// Returns the round-trip time that was last measured on the link in use with a peer.
    pub(crate) fn round_trip(&self, peer: &EndpointId) -> Option<Duration> {
        self.open.get(self.current.get(peer)?)?.round_trip
    }

    /// Returns when a peer last answered a ping on the link in use.
    pub(crate) fn answered_ping(&self, peer: &EndpointId) -> Option<Instant> {
        self.open.get(self.current.get(peer)?)?.answered
    }

    /// Records a measured round-trip time.
    pub(crate) fn answered(&mut self, id: LinkId, took: Duration) {
        if let Some(link) = self.open.get_mut(&id) {
            link.round_trip = Some(took);
        }
    }

    /// Sends a keepalive to a peer that sent a frame within `within` on the link in use. It carries
    /// `frame` if this end has opened the topic there. Returns true if a keepalive was sent.
    pub(crate) fn keepalive(
        &mut self,
        peer: &EndpointId,
        (topic, frame): (TopicId, Option<TopicFrame>),
        within: Duration,
        now: Instant,
    ) -> bool {
        let Some(id) = self.current(peer) else { return false };
        let link = &self.open[&id];
        let spoke = now.saturating_duration_since(link.last_frame) < within;
        if spoke {
            let index = link.sends[Lane::Control as usize].get(&topic);
            let frame = index.zip(frame).map(|(index, frame)| Frame::Topic(*index, frame));
            self.out.push_back(OutEvent::Keepalive(id, frame.unwrap_or(Frame::Ack).encode()));
        }
        spoke
    }

    pub(crate) fn acknowledged(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.open.get_mut(&id).filter(|link| link.closing.is_none()) {
            link.last_heard = now;
            self.events.push_back(LinkEvent::Heard(link.peer));
        }
    }

    /// Pings a peer that has a link. Returns false if it has none.
    pub(crate) fn ping(&mut self, peer: &EndpointId, now: Instant) -> bool {
        let Some(id) = self.current(peer) else { return false };
        if let Some(link) = self.open.get_mut(&id) {
            link.pinged.get_or_insert(now);
        }
        self.out.push_back(OutEvent::Send(id, Lane::Control, Frame::Ping.encode()));
        true
    }

    /// Returns the peers to which this end opened a topic on the link in use.
    pub(crate) fn opened_to(&self, topic: TopicId) -> impl Iterator<Item = EndpointId> + '_ {
        let opened = move |id: &LinkId| {
            self.open[id].sends.iter().any(|indexes| indexes.contains_key(&topic))
        };
        self.current.iter().filter(move |(_, id)| opened(id)).map(|(peer, _)| *peer)
    }

    pub(crate) fn dropped(&mut self, what: DropReason, peer: Option<EndpointId>) {
        self.out.push_back(OutEvent::Dropped { what, peer });
    }

    /// Requests a link to a peer. The addresses in `named` came from the user.
    pub(crate) fn ask(
        &mut self,
        peer: EndpointId,
        addresses: &[TransportAddr],
        named: &[TransportAddr],
        trust: Trust,
        now: Instant,
    ) -> LinkRequest {
        debug_assert_ne!(peer, self.me, "a node has no link to itself");
        if !self.access.admits(&peer) {
            return LinkRequest::Refused;
        }
        if self.current.contains_key(&peer) {
            return LinkRequest::Linked;
        }
        if self.is_connecting(&peer) {
            return LinkRequest::Dialing;
        }
        let Some(addresses) = self.dials.take(peer, addresses, named, trust, now) else {
            self.dropped(DropReason::DialsToStrangers, Some(peer));
            return LinkRequest::Refused;
        };
        debug_assert!(!self.current.contains_key(&peer), "a linked peer is not dialed");
        self.dialing.insert(peer);
        self.out.push_back(OutEvent::Dial(peer, addresses));
        LinkRequest::Dialing
    }

    /// A handshake proved that a peer is at an address.
    pub(crate) fn prove(&mut self, peer: EndpointId, address: TransportAddr) {
        self.dials.prove(peer, Some(address));
    }

    /// Returns the lists of the peers that may have links.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Admits links with these peers alone from now on, and closes the links with others.
    pub(crate) fn set_access(&mut self, access: Arc<Access>) {
        let kept_out = self.open.iter().filter(|(_, link)| !access.admits(&link.peer));
        let kept_out: Vec<_> = kept_out.map(|(id, _)| *id).collect();
        self.access = access;
        for id in kept_out {
            self.close(id, CloseCode::Denied);
        }
    }

    /// Dials another link to a peer, which replaces the present one.
    pub(crate) fn open_another(
        &mut self,
        peer: EndpointId,
        addresses: &[TransportAddr],
        named: &[TransportAddr],
        now: Instant,
    ) {
        if self.is_connecting(&peer) {
            return;
        }
        let allowed = self.dials.take(peer, addresses, named, Trust::Established, now);
        if let Some(addresses) = allowed {
            self.dialing.insert(peer);
            self.reopening.insert(peer);
            self.out.push_back(OutEvent::Dial(peer, addresses));
        } else {
            self.dropped(DropReason::DialsToStrangers, Some(peer));
        }
    }

    /// A peer that is being dialed may be at these addresses too.
    pub(crate) fn dial_also(
        &mut self,
        peer: EndpointId,
        addresses: &[TransportAddr],
        trust: Trust,
        now: Instant,
    ) {
        if !self.dialing.contains(&peer) {
            return;
        }
        match self.dials.take(peer, addresses, &[], trust, now) {
            Some(addresses) => self.out.push_back(OutEvent::Dial(peer, addresses)),
            None => self.dropped(DropReason::DialsToStrangers, Some(peer)),
        }
    }

    /// Returns the peers that have a link in use.
    pub(crate) fn peers(&self) -> Vec<EndpointId> {
        self.current.keys().copied().collect()
    }

    /// Returns true while a link to a peer is being opened, by either end.
    pub(crate) fn is_connecting(&self, peer: &EndpointId) -> bool {
        self.dialing.contains(peer)
            || self.open.values().any(|link| link.peer == *peer && link.hello.is_none())
    }

    /// Records whether an application's messages or streams use a link.
    pub(crate) fn hold(&mut self, id: LinkId, held: bool, idle: Duration, now: Instant) {
        if let Some(link) = self.open.get_mut(&id) {
            link.held = held;
            link.last_used = now;
            if !held && link.hello.is_some() {
                link.idle_check = Some(now + idle);
            }
        }
    }

    /// Sends a frame on the link in use with a peer. Returns false if it was not sent.
    pub(crate) fn send(
        &mut self,
        peer: &EndpointId,
        topic: TopicId,
        frame: TopicFrame,
        now: Instant,
    ) -> bool {
        let Some(id) = self.current(peer) else { return false };
        self.send_on(id, topic, frame, now)
    }

    /// Sends a frame on a certain link. Returns false if it was not sent, because the link is gone,
    /// is being closed or has too many topics.
    pub(crate) fn send_on(
        &mut self,
        id: LinkId,
        topic: TopicId,
        frame: TopicFrame,
        now: Instant,
    ) -> bool {
        // A link that was replaced still serves the syncs that began on it.
        let usable = |link: &&mut Link| link.closing != Some(Closing::Requested);
        let Some(link) = self.open.get_mut(&id).filter(usable) else { return false };
        link.last_used = now;
        let lane = match &frame {
            TopicFrame::Sync(_) | TopicFrame::Busy(_) => Lane::Sync,
            TopicFrame::Overlay(OverlayFrame::Gossip { content, .. }) if is_broadcast(content) => {
                Lane::Broadcast
            }
            _ => Lane::Control,
        };
        let indexes = &mut link.sends[lane as usize];
        let next = indexes.len() as u64;
        if next >= MAX_TOPICS && !indexes.contains_key(&topic) {
            let peer = link.peer;
            self.dropped(DropReason::TopicsOverTheLimitOfALink, Some(peer));
            return false;
        }
        let index = *indexes.entry(topic).or_insert(next);
        debug_assert!(index <= next, "the numbers of topics have no gaps");
        if index == next {
            let open = Frame::Topic(index, TopicFrame::Open(topic));
            self.out.push_back(OutEvent::Send(id, lane, open.encode()));
        }
        self.out.push_back(OutEvent::Send(id, lane, Frame::Topic(index, frame).encode()));
        true
    }

    pub(crate) fn opened(
        &mut self,
        id: LinkId,
        (peer, address): (EndpointId, Option<TransportAddr>),
        dialed: bool,
        now: Instant,
    ) {
        debug_assert!(!self.open.contains_key(&id), "a driver uses the number of a link once");
        if dialed {
            self.dialing.remove(&peer);
        }
        let replaces = dialed && self.reopening.remove(&peer);
        debug_assert!(self.reopening.len() <= self.dialing.len(), "a link is reopened by a dial");
        let unwelcome = if peer == self.me {
            Some((DropReason::LinksToOneself, CloseCode::Refused))
        } else if !self.access.admits(&peer) {
            Some((DropReason::LinksOfPeersThatAreKeptOut, CloseCode::Denied))
        } else if !dialed && self.open.len() >= MAX_LINKS {
            Some((DropReason::LinksOverTheLimit, CloseCode::Refused))
        } else {
            None
        };
        let link = Link {
            peer,
            dialed,
            address,
            opened: now,
            hello: None,
            sends: Default::default(),
            receives: Default::default(),
            last_used: now,
            last_heard: now,
            last_frame: now,
            idle_check: None,
            round_trip: None,
            pinged: None,
            answered: None,
            replaces,
            held: false,
            closing: None,
        };
        self.open.insert(id, link);
        if let Some((what, code)) = unwelcome {
            self.dropped(what, Some(peer));
            self.close(id, code);
        } else {
            let hello = self.hello(replaces);
            self.out.push_back(OutEvent::Send(id, Lane::Control, hello));
        }
    }

    fn hello(&self, replaces: bool) -> Bytes {
        let hello = Hello {
            min_version: *VERSIONS.start(),
            max_version: *VERSIONS.end(),
            boot_id: self.boot_id,
            features: if replaces { Hello::REPLACES } else { 0 },
        };
        Frame::Hello(hello).encode()
    }

    pub(crate) fn dial_failed(&mut self, peer: EndpointId) {
        self.reopening.remove(&peer);
        if self.dialing.remove(&peer) && !self.current.contains_key(&peer) {
            self.events.push_back(LinkEvent::DialFailed(peer));
        }
    }

    pub(crate) fn closed(&mut self, id: LinkId, end: LinkEnd) {
        let Some(link) = self.open.remove(&id) else { return };
        if self.current.get(&link.peer) == Some(&id) {
            self.current.remove(&link.peer);
            self.events.push_back(LinkEvent::Down(link.peer, end));
        } else if link.hello.is_none()
            && !self.current.contains_key(&link.peer)
            && !self.dialing.contains(&link.peer)
        {
            // A link that the peer dialed counts too: `ask` answered `Dialing` while it had no
            // hello, and the caller waits for an outcome.
            self.events.push_back(LinkEvent::DialFailed(link.peer));
        } else {
            self.events.push_back(LinkEvent::Gone(link.peer, id));
        }
    }

    /// Requests that a link is closed. The driver confirms it, and [`Links::closed`] runs then.
    fn close(&mut self, id: LinkId, code: CloseCode) {
        let Some(link) = self.open.get_mut(&id) else { return };
        if link.closing == Some(Closing::Requested) {
            return;
        }
        link.closing = Some(Closing::Requested);
        self.out.push_back(OutEvent::Close(id, code));
        if self.current.get(&link.peer) == Some(&id) {
            self.current.remove(&link.peer);
            self.events.push_back(LinkEvent::Down(link.peer, LinkEnd::Local(code)));
        } else {
            self.events.push_back(LinkEvent::Gone(link.peer, id));
        }
        debug_assert!(self.current.len() <= self.open.len(), "a link in use is open");
    }

    /// Closes the link in use with a peer, if it has one.
    pub(crate) fn close_peer(&mut self, peer: &EndpointId, code: CloseCode) {
        if let Some(id) = self.current(peer) {
            self.close(id, code);
        }
    }

    /// Closes the silent link in use with a peer to which another one is dialed. A link that an
    /// application uses is closed only if `held` is true. Returns true if a link was closed.
    pub(crate) fn give_up(&mut self, peer: &EndpointId, held: bool) -> bool {
        let Some(id) = self.current(peer) else { return false };
        let gives_up = self.reopening.contains(peer) && (held || !self.open[&id].held);
        if gives_up {
            self.close(id, CloseCode::Unresponsive);
        }
        gives_up
    }

    /// A topic no longer needs the link to a peer: its need is checked again after `idle`.
    pub(crate) fn touch(&mut self, peer: &EndpointId, idle: Duration, now: Instant) {
        let id = self.current.get(peer);
        if let Some(link) = id.and_then(|id| self.open.get_mut(id)) {
            link.last_used = now;
            link.idle_check = Some(now + idle);
        }
    }

    pub(crate) fn received(&mut self, id: LinkId, lane: Lane, bytes: &[u8], now: Instant) {
        let Some(link) = self.open.get_mut(&id) else { return };
        let peer = link.peer;
        if link.closing == Some(Closing::Requested) {
            return;
        }
        link.last_heard = now;
        link.last_frame = now;
        match Frame::decode(bytes) {
            Err(error) => {
                tracing::debug!(peer = %peer.fmt_short(), %error, "undecodable frame");
                self.dropped(DropReason::UndecodableFrames, Some(peer));
                self.close(id, CloseCode::Protocol);
            }
            // A frame of a later version.
            Ok(None) => self.dropped(DropReason::FramesOfUnknownType, Some(peer)),
            Ok(Some(Frame::Ping | Frame::Ack)) if self.open[&id].hello.is_none() => {
                self.dropped(DropReason::FramesBeforeTheHello, Some(peer));
                self.close(id, CloseCode::Protocol);
            }
            Ok(Some(Frame::Ping)) => {
                self.out.push_back(OutEvent::Send(id, Lane::Control, Frame::Ack.encode()));
            }
            Ok(Some(Frame::Ack)) => self.on_ack(id, now),
            Ok(Some(Frame::Hello(hello))) => self.on_hello(id, &hello, now),
            Ok(Some(Frame::Topic(index, frame))) => {
                self.on_topic_frame(id, lane, index, frame, now);
            }
        }
    }

    /// A peer answered a ping, or sent a keepalive.
    fn on_ack(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.open.get_mut(&id) else { return };
        link.answered = Some(now);
        if let Some(pinged) = link.pinged.take() {
            link.round_trip = Some(now.saturating_duration_since(pinged));
        }
        self.events.push_back(LinkEvent::Heard(link.peer));
    }

    fn on_topic_frame(
        &mut self,
        id: LinkId,
        lane: Lane,
        index: u64,
        frame: TopicFrame,
        now: Instant,
    ) {
        let Some(link) = self.open.get_mut(&id) else { return };
        let peer = link.peer;
        if link.hello.is_none() {
            self.dropped(DropReason::FramesBeforeTheHello, Some(peer));
            self.close(id, CloseCode::Protocol);
            return;
        }
        link.last_used = now;
        match frame {
            TopicFrame::Open(topic) => {
                let fresh = link.receives[lane as usize].insert(index, topic).is_none();
                if fresh && link.receives[lane as usize].len() as u64 <= MAX_TOPICS {
                    self.events.push_back(LinkEvent::Opened(peer, id, topic));
                } else {
                    self.dropped(DropReason::TopicsOpenedTwiceOrOverTheLimit, Some(peer));
                    self.close(id, CloseCode::Protocol);
                }
            }
            // It names a number that this end gave to the topic, not one of the peer's.
            TopicFrame::Closed => {
                let mut sends = link.sends[lane as usize].iter();
                let topic = sends.find(|(_, at)| **at == index).map(|(topic, _)| *topic);
                if let Some(topic) = topic {
                    self.events.push_back(LinkEvent::Frame(peer, id, topic, TopicFrame::Closed));
                }
            }
            frame => {
                if let Some(topic) = link.receives[lane as usize].get(&index).copied() {
                    self.events.push_back(LinkEvent::Frame(peer, id, topic, frame));
                } else {
                    self.dropped(DropReason::FramesOfATopicThatWasNotOpened, Some(peer));
                    self.close(id, CloseCode::Protocol);
                }
            }
        }
    }

    /// Tells a peer that a topic which it opened is not served here.
    pub(crate) fn refuse_topic(&mut self, id: LinkId, topic: TopicId) {
        let Some(link) = self.open.get(&id).filter(|link| link.closing.is_none()) else { return };
        for lane in [Lane::Control, Lane::Sync, Lane::Broadcast] {
            let mut received = link.receives[lane as usize].iter();
            if let Some((index, _)) = received.find(|(_, of)| **of == topic) {
                let frame = Frame::Topic(*index, TopicFrame::Closed).encode();
                self.out.push_back(OutEvent::Send(id, lane, frame));
            }
        }
    }

    fn on_hello(&mut self, id: LinkId, hello: &Hello, now: Instant) {
        let Some(link) = self.open.get_mut(&id) else { return };
        let (peer, dialed) = (link.peer, link.dialed);
        if hello.common_version().is_none() {
            tracing::info!(
                peer = %peer.fmt_short(),
                min = hello.min_version,
                max = hello.max_version,
                "no protocol version in common"
            );
            self.dropped(DropReason::LinksWithoutACommonVersion, Some(peer));
            self.close(id, CloseCode::Refused);
            return;
        }
        if link.hello.replace((hello.boot_id, now)).is_some() {
            self.dropped(DropReason::SecondHellos, Some(peer));
            self.close(id, CloseCode::Protocol);
            return;
        }
        link.idle_check = Some(now + HELLO_TIMEOUT);
        link.replaces |= !dialed && hello.features & Hello::REPLACES != 0;
        let replaces = link.replaces;
        // Only the end that dialed can measure: the other end learns of the link half a round trip
        // later.
        link.round_trip = dialed.then(|| now.saturating_duration_since(link.opened));
        let address = link.address.clone();
        self.dials.prove(peer, address);
        let Some(old) = self.current.get(&peer).copied() else {
            self.current.insert(peer, id);
            self.events.push_back(LinkEvent::Up(peer));
            return;
        };
        let (boot_id, since) = self.open[&old].hello.expect("a current link has its hello");
        let old_dialed = self.open[&old].dialed;
        // A link that was dialed to replace another one wins, because its dialer found the old link
        // silent. If both ends dialed such a link at once, the tie is broken as for any two links.
        let another_life = !self.tie_break
            || replaces && (!self.open[&old].replaces || old_dialed == dialed)
            || boot_id != hello.boot_id
            || now.saturating_duration_since(since) > SIMULTANEOUS;
        // Both ends must choose the same link: the one that the lower id dialed.
        let lower_dialed = |dialed: bool| dialed == (self.me < peer);
        if another_life || old_dialed == dialed || lower_dialed(dialed) {
            self.current.insert(peer, id);
            if another_life {
                self.events.push_back(LinkEvent::Down(peer, LinkEnd::Remote(CloseCode::Replaced)));
                self.events.push_back(LinkEvent::Up(peer));
            }
            if another_life && replaces && !self.open[&old].held {
                // The old link is silent, and iroh would continue to prefer its path for both.
                self.close(old, CloseCode::Unresponsive);
            } else {
                self.replace(old, now);
            }
        } else {
            self.replace(id, now);
        }
    }

    fn replace(&mut self, loser: LinkId, now: Instant) {
        if let Some(link) = self.open.get_mut(&loser) {
            debug_assert_ne!(
                self.current.get(&link.peer),
                Some(&loser),
                "the link that won is in use by now"
            );
            link.closing = Some(Closing::Replaced(now + DRAIN));
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.open.values().filter_map(Link::next_timer).min()
    }

    /// Closes the links whose time has come. `need` returns how much the topics need the link to a
    /// peer.
    pub(crate) fn on_timer(
        &mut self,
        now: Instant,
        idle: Duration,
        need: impl Fn(&EndpointId) -> Need,
    ) {
        let due: Vec<_> = self
            .open
            .iter()
            .filter(|(_, link)| link.next_timer().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let link = self.open.get_mut(&id).expect("collected above");
            if link.closing.is_some() {
                self.close(id, CloseCode::Replaced);
            } else if link.hello.is_none() {
                let peer = link.peer;
                self.dropped(DropReason::LinksWithoutAHello, Some(peer));
                // The peer sent nothing wrong: its network may be the cause.
                self.close(id, CloseCode::Unresponsive);
            } else {
                link.idle_check = match need(&link.peer) {
                    _ if link.held => None,
                    Need::UntilTouched => None,
                    Need::ForNow => Some(now + idle),
                    Need::Nothing if link.last_used + idle > now => Some(link.last_used + idle),
                    Need::Nothing => {
                        self.close(id, CloseCode::Idle);
                        continue;
                    }
                };
            }
        }
    }
}

impl Link {
    fn next_timer(&self) -> Option<Instant> {
        match self.closing {
            Some(Closing::Replaced(_)) if self.held => None,
            Some(Closing::Replaced(at)) => Some(at),
            Some(Closing::Requested) => None,
            None if self.hello.is_none() => Some(self.opened + HELLO_TIMEOUT),
            None => self.idle_check,
        }
    }
}
