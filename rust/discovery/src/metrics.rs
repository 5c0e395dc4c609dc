//! What an endpoint counts. (The seam of a later exporter.)

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tracing::warn;

use crate::proto::EndpointId;

/// What a topic and its endpoint count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Peers in the book of the topic.
    pub peers: usize,
    /// What limits refused or dropped, by kind, on the whole endpoint.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// The counters of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<&'static str, u64>>);

impl Counters {
    /// Counts a drop. The log names the first of each kind, then each power of two.
    pub(crate) fn dropped(&self, what: &'static str, peer: Option<EndpointId>) {
        let count = {
            let mut dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = dropped.entry(what).or_default();
            *count += 1;
            *count
        };
        if count.is_power_of_two() {
            let peer = peer.map(|peer| peer.fmt_short()).unwrap_or_default();
            warn!(peer, reason = what, count, "dropped");
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
