//! The counters of an endpoint, and the copy of them that applications read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::endpoint::Connection;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    bans::Bans,
    proto::{Counts, DropReason, EndpointId, LinkId, TopicEvent, TopicId},
    status::LinkStatus,
};

/// The counters of a topic and of its endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Peers in the book of the topic.
    pub peers: usize,
    /// Open links, on the whole endpoint.
    pub links: usize,
    /// Open links that use a relay now, on the whole endpoint.
    pub links_relayed: usize,
    /// The median of the open links' round-trip times, as QUIC estimates them; `None` without a
    /// link.
    pub round_trip: Option<Duration>,
    /// Links that were ever opened, on the whole endpoint.
    pub links_opened: u64,
    /// Dials that were begun, on the whole endpoint.
    pub dials: u64,
    /// Dials that failed, on the whole endpoint.
    pub dials_failed: u64,
    /// Frames that were queued on links, on the whole endpoint.
    pub frames_sent: u64,
    /// Frames that were read from links, on the whole endpoint.
    pub frames_received: u64,
    /// Bytes of UDP payload that links sent, with QUIC's own bytes, on the whole endpoint.
    pub bytes_sent: u64,
    /// Bytes of UDP payload that links received, with QUIC's own bytes, on the whole endpoint.
    pub bytes_received: u64,
    /// Keys that are banned now because they broke the protocol, on the whole endpoint.
    pub banned: usize,
    /// How often each rule led to a ban, on the whole endpoint.
    pub bans: BTreeMap<&'static str, u64>,
    /// How often each limit refused or dropped something, by its name, on the whole endpoint.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Events of each kind, on the whole endpoint, with or without subscribers.
    pub events: EventCounts,
    /// Heartbeats of other nodes: records that change nothing but their sequence number.
    pub heartbeats: u64,
    /// Peers that are suspected now, on the whole endpoint.
    pub suspects: usize,
    /// The streams of the application, on the whole endpoint.
    pub streams: StreamCounts,
    /// The counters of the protocol.
    pub protocol: Counts,
}

/// The counters of the streams of an application's own protocols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCounts {
    /// Streams that are open now, in at least one direction.
    pub open: u64,
    /// Streams that this end opened.
    pub opened: u64,
    /// Streams that peers opened.
    pub accepted: u64,
    /// Streams that peers tried to open in vain: the protocol is not served here, or a limit is
    /// reached.
    pub refused: u64,
    /// Streams that one end reset, with a code and a reason.
    pub reset: u64,
    /// Bytes that were written to streams, without QUIC's own bytes.
    pub bytes_sent: u64,
    /// Bytes that were read from streams, without QUIC's own bytes.
    pub bytes_received: u64,
}

/// The number of events of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named after the variant of `Event` that it counts")]
pub struct EventCounts {
    pub peer_joined: u64,
    pub peer_updated: u64,
    pub peer_suspected: u64,
    pub peer_recovered: u64,
    pub peer_lost: u64,
    pub peer_left: u64,
    pub isolated: u64,
    pub reconnected: u64,
    pub identity_conflict: u64,
    pub state_damaged: u64,
}

/// The counters of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    counted: Mutex<Counted>,
    pub(crate) bans: Bans,
    pub(crate) streams: StreamCounters,
}

/// The counters of streams, which change with each piece that is moved: so they take no lock.
#[derive(Debug, Default)]
pub(crate) struct StreamCounters {
    pub(crate) open: Count,
    pub(crate) opened: Count,
    pub(crate) accepted: Count,
    pub(crate) refused: Count,
    pub(crate) reset: Count,
    pub(crate) bytes_sent: Count,
    pub(crate) bytes_received: Count,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn take_off(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl StreamCounters {
    fn read(&self) -> StreamCounts {
        StreamCounts {
            open: self.open.get(),
            opened: self.opened.get(),
            accepted: self.accepted.get(),
            refused: self.refused.get(),
            reset: self.reset.get(),
            bytes_sent: self.bytes_sent.get(),
            bytes_received: self.bytes_received.get(),
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    /// The counters. Their bytes are those of closed links only.
    metrics: Metrics,
    /// The open links, whose connections count their own bytes.
    open: BTreeMap<LinkId, Connection>,
    suspects: BTreeSet<(TopicId, EndpointId)>,
}

impl Metrics {
    fn add_bytes(&mut self, connection: &Connection) {
        let stats = connection.stats();
        self.bytes_sent += stats.udp_tx.bytes;
        self.bytes_received += stats.udp_rx.bytes;
    }
}

impl Counters {
    /// Counts a drop. Of each kind, the log shows the first one and then each power of two, so that
    /// a flood of drops is no flood of lines.
    pub(crate) fn dropped(&self, what: DropReason, peer: Option<EndpointId>) {
        let count = {
            let mut counted = self.lock();
            let count = counted.metrics.dropped.entry(what.label()).or_default();
            *count += 1;
            *count
        };
        if count.is_power_of_two() {
            let peer = peer.map(|peer| peer.fmt_short()).unwrap_or_default();
            if what.is_ordinary() {
                debug!(peer, reason = what.label(), count, "dropped");
            } else {
                warn!(peer, reason = what.label(), count, "dropped");
            }
        }
    }

    /// Counts a ban. The log names the first for each rule, then each power of two.
    pub(crate) fn banned(&self, rule: &'static str, peer: EndpointId, length: Duration) {
        let count = {
            let mut counted = self.lock();
            let count = counted.metrics.bans.entry(rule).or_default();
            *count += 1;
            *count
        };
        let (peer, seconds) = (peer.fmt_short(), length.as_secs());
        if count.is_power_of_two() {
            warn!(peer, reason = rule, seconds, count, "peer banned");
        } else {
            debug!(peer, reason = rule, seconds, count, "peer banned");
        }
    }

    pub(crate) fn link_opened(&self, id: LinkId, connection: Connection) {
        let mut counted = self.lock();
        counted.metrics.links_opened += 1;
        counted.open.insert(id, connection);
    }

    pub(crate) fn link_closed(&self, id: LinkId) {
        let mut counted = self.lock();
        if let Some(connection) = counted.open.remove(&id) {
            counted.metrics.add_bytes(&connection);
        }
    }

    pub(crate) fn dial_begun(&self) {
        self.lock().metrics.dials += 1;
    }

    pub(crate) fn dial_ended(&self, well: bool) {
        self.lock().metrics.dials_failed += u64::from(!well);
    }

    /// Counts an event of a topic.
    pub(crate) fn event(&self, topic: TopicId, event: &TopicEvent) {
        let counted = &mut *self.lock();
        let events = &mut counted.metrics.events;
        let count = match event {
            TopicEvent::PeerJoined(_) => &mut events.peer_joined,
            TopicEvent::PeerUpdated(_) => &mut events.peer_updated,
            TopicEvent::PeerRefreshed(_) => &mut counted.metrics.heartbeats,
            TopicEvent::PeerSuspected(record) => {
                counted.suspects.insert((topic, record.id));
                &mut events.peer_suspected
            }
            TopicEvent::PeerRecovered(record) => {
                counted.suspects.remove(&(topic, record.id));
                &mut events.peer_recovered
            }
            TopicEvent::IdentityConflict { .. } => &mut events.identity_conflict,
            TopicEvent::PeerLeft(record) => {
                counted.suspects.remove(&(topic, record.id));
                &mut events.peer_left
            }
            TopicEvent::PeerLost(record, _) => {
                counted.suspects.remove(&(topic, record.id));
                &mut events.peer_lost
            }
            TopicEvent::Isolated => &mut events.isolated,
            TopicEvent::Reconnected => &mut events.reconnected,
            TopicEvent::Closed => {
                counted.suspects.retain(|(of, _)| *of != topic);
                return;
            }
            _ => return,
        };
        *count += 1;
    }

    /// Counts a damaged file of the state directory.
    pub(crate) fn state_damaged(&self) {
        self.lock().metrics.events.state_damaged += 1;
    }

    /// Adds what the protocol counted.
    pub(crate) fn protocol(&self, counts: Counts) {
        self.lock().metrics.protocol = counts;
    }

    pub(crate) fn frame_sent(&self) {
        self.lock().metrics.frames_sent += 1;
    }

    pub(crate) fn frame_received(&self) {
        self.lock().metrics.frames_received += 1;
    }

    /// Returns whether a peer is suspected in a topic, and the connection to it, if there is one.
    pub(crate) fn peer(&self, topic: &TopicId, peer: &EndpointId) -> (bool, Option<LinkStatus>) {
        let counted = self.lock();
        let suspected = counted.suspects.contains(&(*topic, *peer));
        let mut links = counted.open.values();
        let link = links.rfind(|link| EndpointId::from(link.remote_id()) == *peer);
        (suspected, link.and_then(LinkStatus::of))
    }

    /// Returns a copy of the counters, for a topic with this number of peers.
    pub(crate) fn read(&self, peers: usize) -> Metrics {
        let counted = self.lock();
        let mut metrics = Metrics {
            peers,
            links: counted.open.len(),
            suspects: counted.suspects.len(),
            streams: self.streams.read(),
            banned: self.bans.banned(Instant::now()),
            ..counted.metrics.clone()
        };
        let mut round_trips = Vec::with_capacity(counted.open.len());
        for connection in counted.open.values() {
            metrics.add_bytes(connection);
            if let Some(link) = LinkStatus::of(connection) {
                metrics.links_relayed += usize::from(link.relayed);
                round_trips.push(link.round_trip);
            }
        }
        let middle = round_trips.len() / 2;
        metrics.round_trip =
            (!round_trips.is_empty()).then(|| *round_trips.select_nth_unstable(middle).1);
        metrics
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
