//! What an endpoint counts. (The seam of a later exporter.)

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::warn;

use crate::proto::EndpointId;

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
    /// What limits refused or dropped, by kind, on the whole endpoint.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// The counters of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Metrics>);

impl Counters {
    /// Counts a drop. The log names the first of each kind, then each power of two.
    pub(crate) fn dropped(&self, what: &'static str, peer: Option<EndpointId>) {
        let count = {
            let mut metrics = self.lock();
            let count = metrics.dropped.entry(what).or_default();
            *count += 1;
            *count
        };
        if count.is_power_of_two() {
            let peer = peer.map(|peer| peer.fmt_short()).unwrap_or_default();
            warn!(peer, reason = what, count, "dropped");
        }
    }

    pub(crate) fn link_opened(&self) {
        let mut metrics = self.lock();
        metrics.links += 1;
        metrics.links_opened += 1;
    }

    pub(crate) fn link_closed(&self) {
        self.lock().links -= 1;
    }

    /// The counts, for a topic with a book of `peers`.
    pub(crate) fn read(&self, peers: usize) -> Metrics {
        Metrics { peers, ..self.lock().clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Metrics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
