//! What a test changes at an endpoint: the peers that it is barred from, and its limits on links.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{admission::Limits, proto::EndpointId};

/// The peers that no link is opened with, from either side, and the limits on links.
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
        // No panic can leave a set and numbers half-changed, so a poisoned lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
