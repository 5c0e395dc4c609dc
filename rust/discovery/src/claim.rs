//! One endpoint has one discovery: a second one would announce against the first with the same key.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use iroh::Endpoint;

use crate::{
    commands::{Commands, WeakCommands},
    door::Door,
    error::Error,
    proto::EndpointId,
};

/// An endpoint, known by its id and its sockets.
pub(crate) type Key = (EndpointId, Vec<SocketAddr>);

/// The endpoints of this process that have a discovery, each with the way in, once there is one.
static CLAIMED: Mutex<BTreeMap<Key, Option<WayIn>>> = Mutex::new(BTreeMap::new());

/// The way of connections to a discovery: to its door, and then to its actor.
#[derive(Debug)]
struct WayIn {
    commands: WeakCommands,
    door: Door,
}

/// The claim of a discovery to its endpoint. Dropping it makes the endpoint free again.
#[derive(Debug)]
pub(crate) struct Claim(Key);

impl Claim {
    /// Claims an endpoint; fails if it has a discovery already.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        let key = (endpoint.id().into(), endpoint.bound_sockets());
        if let Entry::Vacant(free) = lock().entry(key.clone()) {
            free.insert(None);
            return Ok(Self(key));
        }
        let reason = "has a discovery already: clone that one, and shut it down before the next";
        Err(Error::invalid("endpoint", reason))
    }

    /// Returns the endpoint, for [`current`].
    pub(crate) fn key(&self) -> &Key {
        &self.0
    }

    /// Makes [`current`] return the way to this discovery while the claim lasts.
    pub(crate) fn open(&self, commands: &Commands, door: Door) {
        lock().insert(self.0.clone(), Some(WayIn { commands: commands.downgrade(), door }));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock().remove(&self.0);
    }
}

/// Returns the way to the discovery that runs on an endpoint now, if one does.
pub(crate) fn current(key: &Key) -> Option<(Commands, Door)> {
    let claimed = lock();
    let way = claimed.get(key)?.as_ref()?;
    Some((way.commands.upgrade()?, way.door.clone()))
}

fn lock() -> MutexGuard<'static, BTreeMap<Key, Option<WayIn>>> {
    // No panic can leave a map half-changed, so a poisoned lock does no harm.
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}
