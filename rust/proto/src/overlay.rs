//! The overlay of one topic: iroh-gossip's `HyParView` and Plumtree state machines, driven by us.
//!
//! Their message types are private. So a message is converted to and from [`Shape`], our mirror of
//! them, through postcard in memory. The wire has [`OverlayFrame`] instead. This module checks
//! nothing that comes in: its caller, the guard, has done so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use iroh_gossip::proto::{
    Command, HyparviewConfig, PeerData, PlumtreeConfig, Scope,
    topic::{self, InEvent, OutEvent},
};
use rand::{SeedableRng, rngs::ChaCha12Rng};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{
    id::EndpointId,
    timers::earlier,
    wire::{MAX_CONTENT, MAX_IHAVE, MAX_TTL, OverlayFrame, is_broadcast},
};

/// A request to become neighbors that is not answered within this time is forgotten. Otherwise it
/// would hold a place in the active view forever.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// A broadcast that was announced and did not arrive is requested after the first of these times,
/// and of the next announcer after the second (Plumtree).
const GRAFT_AFTER: Duration = Duration::from_millis(80);
const GRAFT_AGAIN: Duration = Duration::from_millis(40);
/// If a broadcast came on its own after it was requested, requests wait longer: at first by
/// [`GRAFT_AFTER`], then twice as long each time, up to this. Each sweep halves it.
const GRAFT_MOST: Duration = Duration::from_secs(2);
/// The most requests that are remembered.
const MAX_GRAFTS: usize = 256;

/// How often the ids of broadcasts that were announced and never arrived are forgotten.
const SWEEP: Duration = Duration::from_secs(5);

/// The first capacity of a buffer for a message. It is enough for one record; the buffer grows for
/// larger messages.
const MESSAGE_ROOM: usize = 512;

/// What the overlay requests of the topic, or reports to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Send(EndpointId, OverlayFrame),
    Up(EndpointId),
    Down(EndpointId),
}

#[derive(Debug)]
pub(crate) struct Overlay {
    me: EndpointId,
    inner: topic::State<EndpointId, ChaCha12Rng>,
    timers: BTreeMap<(Instant, u64), topic::Timer<EndpointId>>,
    timer_count: u64,
    neighbors: BTreeSet<EndpointId>,
    requests: BTreeMap<EndpointId, Instant>,
    /// The peers that this node requested of its own accord, not in answer to a request of theirs.
    asked: BTreeSet<EndpointId>,
    swept: Option<Instant>,
    outputs: Vec<Output>,
    /// True while a neighbor is evicted for a peer that asked: no other peer is asked to take the
    /// place.
    making_room: bool,
    /// The broadcasts that were requested, and how long requests wait on top.
    grafts: BTreeSet<[u8; 32]>,
    graft_wait: Duration,
    /// The walks of a newcomer that may still begin here.
    walks: usize,
    /// Added to each timer that is set, because answers take longer while this node is behind.
    pub(crate) lag: Duration,
}

impl Overlay {
    /// Makes an overlay without neighbors. It can send requests after [`Self::set_record`].
    pub(crate) fn new(me: EndpointId, neighbors: usize, seed: [u8; 32]) -> Self {
        let config = topic::Config {
            membership: HyparviewConfig {
                active_view_capacity: neighbors,
                active_random_walk_length: MAX_TTL.into(),
                // A dial on a busy machine takes longer than the default of 0.5 s.
                neighbor_request_timeout: Duration::from_secs(2),
                // Shuffles never go out, because the passive view is fed from the signed book.
                shuffle_interval: Duration::from_hours(24),
                ..HyparviewConfig::default()
            },
            broadcast: PlumtreeConfig {
                message_cache_retention: Duration::from_secs(10),
                graft_timeout_1: GRAFT_AFTER,
                graft_timeout_2: GRAFT_AGAIN,
                // Each eviction wakes the whole node.
                cache_evict_interval: Duration::from_secs(5),
                ..PlumtreeConfig::default()
            },
            // Bounds what Plumtree chunks: announcements (35 bytes each, MAX_IHAVE to a frame).
            max_message_size: MAX_CONTENT.min(MAX_IHAVE * 35),
        };
        Self {
            me,
            inner: topic::State::with_rng(me, None, config, ChaCha12Rng::from_seed(seed)),
            timers: BTreeMap::new(),
            timer_count: 0,
            neighbors: BTreeSet::new(),
            requests: BTreeMap::new(),
            asked: BTreeSet::new(),
            swept: None,
            outputs: Vec::new(),
            making_room: false,
            grafts: BTreeSet::new(),
            graft_wait: Duration::ZERO,
            walks: usize::MAX,
            lag: Duration::ZERO,
        }
    }

    pub(crate) fn neighbors(&self) -> &BTreeSet<EndpointId> {
        &self.neighbors
    }

    /// Returns true while an answer of a peer to our request to become neighbors is missing. The
    /// request may itself have been the answer to one of the peer.
    pub(crate) fn is_requested(&self, peer: &EndpointId) -> bool {
        self.requests.contains_key(peer)
    }

    /// Returns true while an answer is missing to a request that this node made of its own accord.
    pub(crate) fn is_asked(&self, peer: &EndpointId) -> bool {
        self.asked.contains(peer)
    }

    pub(crate) fn poll(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let inner = self.timers.first_key_value().map(|((at, _), _)| *at);
        earlier(inner, self.requests.values().min().copied())
    }

    pub(crate) fn on_timer(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            self.drive(InEvent::TimerExpired(timer), now);
        }
        if self.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
            // Plumtree forgets such ids only when a peer disconnects. This node's own id serves for
            // that: it is no neighbor, so HyParView does nothing.
            self.swept = Some(now);
            self.graft_wait /= 2;
            self.drive(InEvent::PeerDisconnected(self.me), now);
        }
        let late: Vec<_> =
            self.requests.iter().filter(|(_, at)| **at <= now).map(|(peer, _)| *peer).collect();
        for peer in late {
            self.requests.remove(&peer);
            self.asked.remove(&peer);
            if self.neighbors.contains(&peer) {
                // The peer asked, and HyParView takes our answer for a request of its own. This
                // message is the answer that it waits for.
                let priority = PriorityShape::Low;
                let answer = Shape::Swarm(SwarmShape::Neighbor { priority, data: None });
                self.drive(InEvent::RecvMessage(peer, answer.into_message()), now);
            } else {
                // HyParView forgets a request only at a disconnect. PeerDisconnected would also
                // remove the peer from the passive view and stop the timer that refills the active
                // one. A polite disconnect does neither.
                self.receive(peer, peer, OverlayFrame::Disconnect { alive: false }, now);
            }
        }
    }

    /// Takes in a frame that the guard let pass. `about` owns the record that the frame carries:
    /// the peer itself, except in a `ForwardJoin`.
    pub(crate) fn receive(
        &mut self,
        from: EndpointId,
        about: EndpointId,
        frame: OverlayFrame,
        now: Instant,
    ) {
        let message = Shape::incoming(about, frame).into_message();
        self.drive(InEvent::RecvMessage(from, message), now);
    }

    /// A second copy of a broadcast came. If this node requested it, the first copy was only late.
    pub(crate) fn came_twice(&mut self, id: &[u8; 32]) {
        if self.grafts.remove(id) {
            self.graft_wait = (self.graft_wait * 2).clamp(GRAFT_AFTER, GRAFT_MOST);
        }
    }

    /// As [`Self::receive`], for a newcomer that joins here. At most `walks` walks through the
    /// overlay begin for it.
    pub(crate) fn receive_join(
        &mut self,
        from: EndpointId,
        record: Bytes,
        walks: usize,
        now: Instant,
    ) {
        self.walks = walks;
        self.receive(from, from, OverlayFrame::Join(record), now);
        self.walks = usize::MAX;
    }

    /// Removes a neighbor politely, to make room for another one.
    pub(crate) fn evict(&mut self, peer: EndpointId, now: Instant) {
        self.outputs.push(Output::Send(peer, OverlayFrame::Disconnect { alive: true }));
        self.making_room = true;
        self.receive(peer, peer, OverlayFrame::Disconnect { alive: true }, now);
        self.making_room = false;
    }

    /// Asks a member to let this node into the overlay.
    pub(crate) fn join(&mut self, peer: EndpointId, now: Instant) {
        self.drive(InEvent::Command(Command::Join(vec![peer])), now);
    }

    /// Sends content to all members. It is lost if this node has no neighbor.
    ///
    /// A broadcast of an application goes to all neighbors in full, also to those that Plumtree
    /// sends announcements only: if others broadcast more, the tree follows theirs.
    pub(crate) fn broadcast(&mut self, content: Bytes, now: Instant) {
        let before = self.outputs.len();
        self.drive(InEvent::Command(Command::Broadcast(content.clone(), Scope::Swarm)), now);
        if !is_broadcast(&content) {
            return;
        }
        let sent: BTreeSet<_> = self.outputs[before..]
            .iter()
            .filter_map(|output| match output {
                Output::Send(peer, OverlayFrame::Gossip { .. }) => Some(*peer),
                _ => None,
            })
            .collect();
        for peer in self.neighbors.difference(&sent) {
            let frame = OverlayFrame::Gossip { round: Some(0), content: content.clone() };
            self.outputs.push(Output::Send(*peer, frame));
        }
    }

    /// Adds members of the book to the passive view, from which the active view is refilled.
    pub(crate) fn suggest(&mut self, members: Vec<EndpointId>, now: Instant) {
        let Some(first) = members.first().copied() else { return };
        let nodes = members.into_iter().map(|id| PeerShape { id, data: None }).collect();
        let message = Shape::Swarm(SwarmShape::ShuffleReply { nodes }).into_message();
        // The sender of a shuffle reply does not matter to HyParView.
        self.drive(InEvent::RecvMessage(first, message), now);
    }

    /// The link to a peer is gone. The state machines learn it only of a neighbor, or of a peer
    /// that owes an answer.
    pub(crate) fn link_lost(&mut self, peer: EndpointId, now: Instant) {
        self.asked.remove(&peer);
        if self.neighbors.contains(&peer) || self.requests.remove(&peer).is_some() {
            self.drive(InEvent::PeerDisconnected(peer), now);
        }
    }

    pub(crate) fn set_record(&mut self, record: &Bytes, now: Instant) {
        self.drive(InEvent::UpdatePeerData(PeerData::new(record.clone())), now);
    }

    /// Tells the neighbors that this node leaves.
    pub(crate) fn quit(&mut self, now: Instant) {
        self.drive(InEvent::Command(Command::Quit), now);
    }

    fn drive(&mut self, event: InEvent<EndpointId>, now: Instant) {
        let outputs: Vec<_> = self.inner.handle(event, now).collect();
        for output in outputs {
            match output {
                OutEvent::SendMessage(to, message) => self.on_send(to, &message, now),
                OutEvent::EmitEvent(topic::Event::NeighborUp(peer)) => {
                    self.requests.remove(&peer);
                    self.asked.remove(&peer);
                    self.neighbors.insert(peer);
                    self.outputs.push(Output::Up(peer));
                }
                OutEvent::EmitEvent(topic::Event::NeighborDown(peer)) => {
                    self.neighbors.remove(&peer);
                    self.outputs.push(Output::Down(peer));
                }
                OutEvent::ScheduleTimer(delay, timer) => {
                    self.timer_count += 1;
                    let is_graft = matches!(timer, topic::Timer::Gossip(_))
                        && [GRAFT_AFTER, GRAFT_AGAIN].contains(&delay);
                    let waits = is_graft && self.lag > Duration::ZERO;
                    let more = if waits { self.graft_wait } else { Duration::ZERO };
                    self.timers.insert((now + delay + self.lag + more, self.timer_count), timer);
                }
                // Received and PeerData: the guard checked the content and the record, and applied
                // them, before they reached the overlay. DisconnectPeer would close a link, but
                // links are not the overlay's.
                OutEvent::EmitEvent(topic::Event::Received(_))
                | OutEvent::DisconnectPeer(_)
                | OutEvent::PeerData(..) => {}
            }
        }
    }

    fn on_send(&mut self, to: EndpointId, message: &topic::Message<EndpointId>, now: Instant) {
        if to == self.me {
            return;
        }
        if let Some(frame) = Shape::of(message).outgoing() {
            if let OverlayFrame::Graft { id: Some(id), .. } = frame {
                if self.grafts.len() >= MAX_GRAFTS {
                    self.grafts.clear();
                }
                self.grafts.insert(id);
            }
            if matches!(frame, OverlayFrame::ForwardJoin { .. }) {
                if self.walks == 0 {
                    return;
                }
                self.walks -= 1;
            }
            if matches!(frame, OverlayFrame::Neighbor { .. }) {
                if self.making_room {
                    return;
                }
                self.requests.insert(to, now + REQUEST_TIMEOUT);
                if !self.neighbors.contains(&to) {
                    self.asked.insert(to);
                }
            }
            self.outputs.push(Output::Send(to, frame));
        }
    }
}

/// Our mirror of `topic::Message`: the same shape to serde, so the same bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Shape {
    Swarm(SwarmShape),
    Gossip(GossipShape),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SwarmShape {
    Join(Option<Bytes>),
    ForwardJoin { peer: PeerShape, ttl: u16 },
    Shuffle { origin: EndpointId, nodes: Vec<PeerShape>, ttl: u16 },
    ShuffleReply { nodes: Vec<PeerShape> },
    Neighbor { priority: PriorityShape, data: Option<Bytes> },
    Disconnect { alive: bool, respond: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PeerShape {
    id: EndpointId,
    data: Option<Bytes>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PriorityShape {
    High,
    Low,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GossipShape {
    Gossip { id: [u8; 32], content: Bytes, scope: ScopeShape },
    Prune,
    Graft { id: Option<[u8; 32]>, round: u16 },
    IHave(Vec<([u8; 32], u16)>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ScopeShape {
    Swarm(u16),
    Neighbors,
}

impl Shape {
    fn of(message: &topic::Message<EndpointId>) -> Self {
        passed_through_postcard(message)
    }

    pub(crate) fn into_message(self) -> topic::Message<EndpointId> {
        passed_through_postcard(&self)
    }

    /// Returns the frame to send. `None` for what does not go out: shuffles, and all that needs a
    /// record before there is one.
    fn outgoing(self) -> Option<OverlayFrame> {
        Some(match self {
            Self::Swarm(SwarmShape::Join(data)) => OverlayFrame::Join(data?),
            Self::Swarm(SwarmShape::ForwardJoin { peer, ttl }) => {
                OverlayFrame::ForwardJoin { ttl, record: peer.data? }
            }
            Self::Swarm(SwarmShape::Shuffle { .. } | SwarmShape::ShuffleReply { .. }) => {
                return None;
            }
            Self::Swarm(SwarmShape::Neighbor { priority, data }) => OverlayFrame::Neighbor {
                high: matches!(priority, PriorityShape::High),
                record: data?,
            },
            Self::Swarm(SwarmShape::Disconnect { alive, .. }) => OverlayFrame::Disconnect { alive },
            Self::Gossip(GossipShape::Gossip { content, scope, .. }) => OverlayFrame::Gossip {
                round: match scope {
                    ScopeShape::Swarm(round) => Some(round),
                    ScopeShape::Neighbors => None,
                },
                content,
            },
            Self::Gossip(GossipShape::Prune) => OverlayFrame::Prune,
            Self::Gossip(GossipShape::Graft { id, round }) => OverlayFrame::Graft { id, round },
            Self::Gossip(GossipShape::IHave(list)) => OverlayFrame::IHave(list),
        })
    }

    fn incoming(about: EndpointId, frame: OverlayFrame) -> Self {
        match frame {
            OverlayFrame::Join(record) => Self::Swarm(SwarmShape::Join(Some(record))),
            OverlayFrame::ForwardJoin { ttl, record } => {
                let peer = PeerShape { id: about, data: Some(record) };
                Self::Swarm(SwarmShape::ForwardJoin { peer, ttl })
            }
            OverlayFrame::Neighbor { high, record } => {
                let priority = if high { PriorityShape::High } else { PriorityShape::Low };
                Self::Swarm(SwarmShape::Neighbor { priority, data: Some(record) })
            }
            OverlayFrame::Disconnect { alive } => {
                Self::Swarm(SwarmShape::Disconnect { alive, respond: false })
            }
            OverlayFrame::Gossip { round, content } => Self::Gossip(GossipShape::Gossip {
                id: *blake3::hash(&content).as_bytes(),
                content,
                scope: round.map_or(ScopeShape::Neighbors, ScopeShape::Swarm),
            }),
            OverlayFrame::Prune => Self::Gossip(GossipShape::Prune),
            OverlayFrame::Graft { id, round } => Self::Gossip(GossipShape::Graft { id, round }),
            OverlayFrame::IHave(list) => Self::Gossip(GossipShape::IHave(list)),
        }
    }
}

fn passed_through_postcard<A: Serialize, B: DeserializeOwned>(message: &A) -> B {
    let room = Vec::with_capacity(MESSAGE_ROOM);
    let bytes = postcard::to_extend(message, room).expect("both shapes serialize");
    postcard::from_bytes(&bytes).expect("a test pins our mirror to the overlay's messages")
}
