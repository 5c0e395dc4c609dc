//! What an endpoint counts. (The seam of a later exporter.)

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use iroh::endpoint::Connection;
use tracing::warn;

use crate::proto::{EndpointId, LinkId};

/// What a topic and its endpoint count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Peers in the book of the topic.
    pub peers: usize,
    /// Open links, on the whole endpoint.
    pub links: usize,
    /// Links that were ever opened, on the whole endpoint.
    pub links_opened: u64,
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
            warn!(peer, reason = what, count, "dropped");
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

    pub(crate) fn frame_sent(&self) {
        self.lock().metrics.frames_sent += 1;
    }

    pub(crate) fn frame_received(&self) {
        self.lock().metrics.frames_received += 1;
    }

    /// The counts, for a topic with a book of `peers`.
    pub(crate) fn read(&self, peers: usize) -> Metrics {
        let counted = self.lock();
        let mut metrics = Metrics { peers, links: counted.open.len(), ..counted.metrics.clone() };
        for connection in counted.open.values() {
            metrics.add_bytes(connection);
        }
        metrics
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
