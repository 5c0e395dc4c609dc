//! What an endpoint counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::endpoint::{Connection, Path};
use tracing::{debug, warn};

use crate::proto::{Counts, EndpointId, LinkId, TopicEvent, TopicId};

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
    /// What limits refused or dropped, by kind, on the whole endpoint.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Events of each kind, on the whole endpoint; subscribers or not.
    pub events: EventCounts,
    /// Heartbeats of others: records that only say that their owner is there.
    pub heartbeats: u64,
    /// Now: peers that are suspected, on the whole endpoint.
    pub suspects: usize,
    /// What the protocol counts.
    pub protocol: Counts,
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
pub(crate) struct Counters(Mutex<Counted>);

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

    /// The counts, for a topic with a book of `peers`.
    pub(crate) fn read(&self, peers: usize) -> Metrics {
        let counted = self.lock();
        let mut metrics = Metrics {
            peers,
            links: counted.open.len(),
            suspects: counted.suspects.len(),
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
