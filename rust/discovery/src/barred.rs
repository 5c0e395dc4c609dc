//! The peers that a test bars an endpoint from.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::proto::EndpointId;

/// Peers that no link is opened with, from either side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Barred(Arc<Mutex<BTreeSet<EndpointId>>>);

impl Barred {
    pub(crate) fn contains(&self, peer: &EndpointId) -> bool {
        self.lock().contains(peer)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeSet<EndpointId>> {
        // A set is sound after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
