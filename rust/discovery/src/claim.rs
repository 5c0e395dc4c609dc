//! One endpoint has one discovery: a second one would announce against the first with the same key.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use iroh::Endpoint;

use crate::{error::Error, proto::EndpointId};

type Key = (EndpointId, Vec<SocketAddr>);

/// The endpoints of this process that have a discovery, each known by its id and its sockets.
static CLAIMED: Mutex<BTreeSet<Key>> = Mutex::new(BTreeSet::new());

/// The claim of a discovery to its endpoint. Dropping it makes the endpoint free again.
#[derive(Debug)]
pub(crate) struct Claim(Key);

impl Claim {
    /// Claims an endpoint; fails if it has a discovery already.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        let key = (endpoint.id().into(), endpoint.bound_sockets());
        if lock().insert(key.clone()) {
            return Ok(Self(key));
        }
        let reason = "has a discovery already: clone that one, and shut it down before the next";
        Err(Error::invalid("endpoint", reason))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock().remove(&self.0);
    }
}

fn lock() -> MutexGuard<'static, BTreeSet<Key>> {
    // No panic can leave a set half-changed, so a poisoned lock does no harm.
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}
