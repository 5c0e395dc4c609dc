//! The protocols that a topic's handlers serve, and the streams that peers open for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh::endpoint::{RecvStream, SendStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::{
    error::Error,
    link::handle::LinkGuard,
    proto::{EndpointId, MAX_PROTOCOLS},
    stream::{StreamReader, StreamWriter, halves},
    subscription::{Item, Queue, Subscription},
};

/// A stream that a peer opened.
#[derive(Debug)]
pub struct IncomingStream {
    /// Reads what the peer writes.
    pub reader: StreamReader,
    /// Writes what the peer reads.
    pub writer: StreamWriter,
    /// The protocol.
    pub protocol: Vec<u8>,
}

impl IncomingStream {
    pub(crate) fn new(
        guard: LinkGuard,
        send: SendStream,
        recv: RecvStream,
        protocol: Vec<u8>,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Self {
        let (reader, writer) = halves(guard, send, recv, permits);
        Self { reader, writer, protocol }
    }

    /// Returns the peer that opened it.
    #[must_use]
    pub fn peer(&self) -> EndpointId {
        self.reader.peer()
    }
}

/// A stream in its queue. None is ever dropped from there, because the number of streams is bounded
/// before they are accepted.
#[derive(Debug)]
pub(crate) struct Accepted(pub(crate) Option<IncomingStream>);

impl Item for Accepted {
    fn lost(_: u64) -> Self {
        Self(None)
    }
}

/// The protocols that a topic's handlers serve.
#[derive(Debug)]
pub(crate) struct ServiceTable {
    services: Mutex<BTreeMap<Vec<u8>, Arc<Queue<Accepted>>>>,
    /// Wakes the actor, which announces the protocols.
    changed: Arc<Notify>,
}

impl ServiceTable {
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Self { services: Mutex::default(), changed }
    }

    pub(crate) fn get(&self, protocol: &[u8]) -> Option<Arc<Queue<Accepted>>> {
        self.lock().get(protocol).cloned()
    }

    /// Returns the protocols, in order.
    pub(crate) fn protocols(&self) -> Vec<Vec<u8>> {
        self.lock().keys().cloned().collect()
    }

    pub(crate) fn add(
        &self,
        protocol: &[u8],
        announced: &[Vec<u8>],
    ) -> Result<Subscription<Accepted>, Error> {
        let mut services = self.lock();
        if services.contains_key(protocol) {
            let name = protocol.escape_ascii();
            return Err(Error::invalid("protocol", format!("{name} is served already")));
        }
        let others =
            announced.iter().filter(|own| !services.contains_key(*own) && *own != protocol);
        let total = services.len() + 1 + others.count();
        if total > MAX_PROTOCOLS {
            let limit = MAX_PROTOCOLS;
            let reason = format!("would be number {total} of this node, the limit is {limit}");
            return Err(Error::invalid("protocol", reason));
        }
        let (streams, queue) = Subscription::new(usize::MAX, 0);
        services.insert(protocol.to_vec(), queue);
        drop(services);
        self.changed.notify_one();
        Ok(streams)
    }

    pub(crate) fn remove(&self, protocol: &[u8]) {
        self.lock().remove(protocol);
        self.changed.notify_one();
    }

    pub(crate) fn close(&self) {
        for service in self.lock().values() {
            service.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Arc<Queue<Accepted>>>> {
        // No panic can leave a map of queues half-changed, so a poisoned lock does no harm.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
