//! What a test changes at an endpoint: the peers that it is barred from, and its limits of links.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{admission::Limits, proto::EndpointId};

/// Peers that no link is opened with, from either side, and the limits of links.
#[derive(Debug, Clone, Default)]
pub(crate) struct Barred(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) peers: BTreeSet<EndpointId>,
    pub(crate) limits: Limits,
}

impl Barred {
    pub(crate) fn contains(&self, peer: &EndpointId) -> bool {
        self.lock().peers.contains(peer)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.lock().limits
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A set and numbers are sound after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
