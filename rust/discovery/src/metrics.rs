//! What an endpoint counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::endpoint::{Connection, Path};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    bans::Bans,
    proto::{Counts, EndpointId, LinkId, TopicEvent, TopicId},
    status::LinkStatus,
};

/// What a healthy swarm drops too, day by day: counted, but nothing to warn of.
const ORDINARY: [&str; 6] = [
    "accusations by unknown members",
    "broadcasts of another life of their author",
    "broadcasts of unknown members",
    "broadcasts that were heard before",
    "broadcasts without anything new",
    "syncs passed on to other members",
];

/// What a topic and its endpoint count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Peers in the book of the topic.
    pub peers: usize,
    /// Open links, on the whole endpoint.
    pub links: usize,
    /// Open links whose packets go through a relay now, on the whole endpoint.
    pub links_relayed: usize,
    /// The median of the open links' round-trip times, as QUIC estimates them; `None` without a link.
    pub round_trip: Option<Duration>,
    /// Links that were ever opened, on the whole endpoint.
    pub links_opened: u64,
    /// Dials that were begun, on the whole endpoint.
    pub dials: u64,
    /// Dials that led to no link, on the whole endpoint.
    pub dials_failed: u64,
    /// Frames that were queued on links, on the whole endpoint.
    pub frames_sent: u64,
    /// Frames that were read from links, on the whole endpoint.
    pub frames_received: u64,
    /// Bytes of UDP payload that links sent, with all that QUIC adds, on the whole endpoint.
    pub bytes_sent: u64,
    /// Bytes of UDP payload that links received, on the whole endpoint.
    pub bytes_received: u64,
    /// Now: keys that are refused because they broke the protocol, on the whole endpoint.
    pub banned: usize,
    /// What limits refused or dropped, by kind, on the whole endpoint.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Events of each kind, on the whole endpoint; subscribers or not.
    pub events: EventCounts,
    /// Heartbeats of others: records that only say that their owner is there.
    pub heartbeats: u64,
    /// Now: peers that are suspected, on the whole endpoint.
    pub suspects: usize,
    /// The streams of the application, on the whole endpoint.
    pub streams: StreamCounts,
    /// What the protocol counts.
    pub protocol: Counts,
}

/// What is counted of the streams of an application's own protocols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCounts {
    /// Now: streams that are open in at least one direction.
    pub open: u64,
    /// Streams that this end opened.
    pub opened: u64,
    /// Streams that peers opened.
    pub accepted: u64,
    /// Streams that peers wanted to open, and could not: of protocols that are not served here, or
    /// beyond a limit.
    pub refused: u64,
    /// Streams that one end gave up, with a code and a reason.
    pub reset: u64,
    /// Bytes that were written to streams, without what QUIC adds.
    pub bytes_sent: u64,
    /// Bytes that were read from streams.
    pub bytes_received: u64,
}

/// How often each kind of event happened.
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
}

/// The counters of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    counted: Mutex<Counted>,
    pub(crate) bans: Bans,
    pub(crate) streams: StreamCounters,
}

/// What streams count with every piece that they move: without a lock.
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
    /// What was counted; the bytes are those of links that are closed.
    metrics: Metrics,
    /// The open links, which count their bytes themselves.
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
    /// Counts a drop. The log names the first of each kind, then each power of two.
    pub(crate) fn dropped(&self, what: &'static str, peer: Option<EndpointId>) {
        let count = {
            let mut counted = self.lock();
            let count = counted.metrics.dropped.entry(what).or_default();
            *count += 1;
            *count
        };
        if count.is_power_of_two() {
            let peer = peer.map(|peer| peer.fmt_short()).unwrap_or_default();
            if ORDINARY.contains(&what) {
                debug!(peer, reason = what, count, "dropped");
            } else {
                warn!(peer, reason = what, count, "dropped");
            }
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

    /// Counts what happened in a topic.
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

    /// Takes over what the protocol counted.
    pub(crate) fn protocol(&self, counts: Counts) {
        self.lock().metrics.protocol = counts;
    }

    pub(crate) fn frame_sent(&self) {
        self.lock().metrics.frames_sent += 1;
    }

    pub(crate) fn frame_received(&self) {
        self.lock().metrics.frames_received += 1;
    }

    /// Whether a peer is suspected in a topic, and its link, if there is one.
    pub(crate) fn peer(&self, topic: &TopicId, peer: &EndpointId) -> (bool, Option<LinkStatus>) {
        let counted = self.lock();
        let suspected = counted.suspects.contains(&(*topic, *peer));
        let mut links = counted.open.values();
        let link = links.rfind(|link| EndpointId::from(link.remote_id()) == *peer);
        (suspected, link.and_then(LinkStatus::of))
    }

    /// The counts, for a topic with a book of `peers`.
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
            if let Some(path) = connection.paths().iter().find(Path::is_selected) {
                metrics.links_relayed += usize::from(path.is_relay());
                round_trips.push(path.rtt());
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
