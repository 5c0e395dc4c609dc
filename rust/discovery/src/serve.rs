//! Serving protocols, and opening streams of them: over the link that discovery holds.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::Stream;
use iroh::endpoint::{RecvStream, SendStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::{
    error::Error,
    link::traffic::{Hold, STREAM_PRIORITY},
    message::refused,
    proto::{Answer, EndpointId, MAX_PROTOCOL, MAX_PROTOCOLS, Request},
    stream::{StreamReader, StreamWriter, halves},
    subscription::{Item, Queue, Subscription},
    swarm::{Shared, Swarm},
};

/// A stream that a peer opened.
#[derive(Debug)]
pub struct IncomingStream {
    /// What the peer writes.
    pub reader: StreamReader,
    /// What the peer reads.
    pub writer: StreamWriter,
    /// The protocol.
    pub protocol: Vec<u8>,
}

impl IncomingStream {
    pub(crate) fn new(
        hold: Hold,
        send: SendStream,
        recv: RecvStream,
        protocol: Vec<u8>,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Self {
        let (reader, writer) = halves(hold, send, recv, permits);
        Self { reader, writer, protocol }
    }

    /// Who opened it.
    #[must_use]
    pub fn peer(&self) -> EndpointId {
        self.reader.peer()
    }
}

/// Streams are never dropped from their queue: how many there are is bounded before they come in.
#[derive(Debug)]
pub(crate) struct Accepted(pub(crate) Option<IncomingStream>);

impl Item for Accepted {
    fn lost(_: u64) -> Self {
        Self(None)
    }
}

/// The streams of one protocol that peers open, until it is dropped.
#[derive(Debug)]
pub struct Serving {
    protocol: Vec<u8>,
    streams: Subscription<Accepted>,
    shared: Arc<Shared>,
}

impl Serving {
    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> &[u8] {
        &self.protocol
    }

    /// Takes up to `max` streams that are there. Never blocks and never awaits.
    pub fn drain(&mut self, max: usize) -> Vec<IncomingStream> {
        self.streams.drain(max).into_iter().filter_map(|stream| stream.0).collect()
    }

    /// Resolves once a stream waits or the topic is left; takes nothing.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        self.streams.ready()
    }

    /// Whether the topic was left and every stream has been taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.streams.is_closed()
    }
}

impl Stream for Serving {
    type Item = IncomingStream;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<IncomingStream>> {
        Pin::new(&mut self.streams).poll_next(cx).map(|accepted| accepted.and_then(|a| a.0))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.services.remove(&self.protocol);
    }
}

/// The protocols that a topic's handlers serve.
#[derive(Debug)]
pub(crate) struct ServiceTable {
    services: Mutex<BTreeMap<Vec<u8>, Arc<Queue<Accepted>>>>,
    /// Wakes the actor, which announces them.
    changed: Arc<Notify>,
}

impl ServiceTable {
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Self { services: Mutex::default(), changed }
    }

    pub(crate) fn get(&self, protocol: &[u8]) -> Option<Arc<Queue<Accepted>>> {
        self.lock().get(protocol).cloned()
    }

    /// The protocols, in order.
    pub(crate) fn protocols(&self) -> Vec<Vec<u8>> {
        self.lock().keys().cloned().collect()
    }

    fn add(&self, protocol: &[u8], announced: &[Vec<u8>]) -> Result<Subscription<Accepted>, Error> {
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

    fn remove(&self, protocol: &[u8]) {
        self.lock().remove(protocol);
        self.changed.notify_one();
    }

    pub(crate) fn close(&self) {
        for service in self.lock().values() {
            service.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Arc<Queue<Accepted>>>> {
        // A map of queues is sound after any panic.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Swarm {
    /// Opens a stream of a protocol that a peer serves, over the link that there is, or else a new
    /// one.
    ///
    /// # Errors
    /// [`Error::PeerUnreachable`]; [`Error::ProtocolNotServed`]; [`Error::TooManyStreams`] with 1,024
    /// streams opened to the peer, or where the peer has its limit; [`Error::Invalid`] for the protocol
    /// or for this node itself; [`Error::Closed`].
    pub async fn open_stream(
        &self,
        peer: EndpointId,
        protocol: impl AsRef<[u8]>,
    ) -> Result<(StreamReader, StreamWriter), Error> {
        let protocol = protocol.as_ref();
        check(protocol)?;
        let request = Request::Stream(self.topic().id(), protocol.to_vec());
        let opened = |hold: Hold| {
            let request = request.clone();
            async move {
                let Ok(permit) = hold.0.opened.clone().try_acquire_owned() else {
                    return Ok((Answer::Busy, None));
                };
                let asked = hold.0.request(&request, None, STREAM_PRIORITY).await;
                let (answer, send, recv) = asked?;
                Ok((answer, Some(halves(hold, send, recv, [permit]))))
            }
        };
        match self.ask(peer, opened).await? {
            (Answer::Accepted, Some(halves)) => {
                halves.0.count_opened();
                Ok(halves)
            }
            (Answer::NotServed, _) => Err(Error::ProtocolNotServed {
                peer,
                protocol: protocol.escape_ascii().to_string(),
            }),
            (answer, _) => Err(refused(peer, answer)),
        }
    }

    /// Serves a protocol, until the result is dropped: it gives the streams that peers open. The
    /// record names the protocol meanwhile, so that every member sees who serves it.
    ///
    /// Up to 1,024 streams of one peer and 4,096 in all are open at a time; others are refused and
    /// counted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a protocol that is not 1 to 32 bytes or is served already, or with more
    /// than 8 protocols; [`Error::Closed`].
    pub fn serve(&self, protocol: impl AsRef<[u8]>) -> Result<Serving, Error> {
        let protocol = protocol.as_ref();
        check(protocol)?;
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let shared = self.shared.clone();
        let streams = shared.services.add(protocol, &self.me().profile.protocols)?;
        Ok(Serving { protocol: protocol.to_vec(), streams, shared })
    }
}

fn check(protocol: &[u8]) -> Result<(), Error> {
    if (1..=MAX_PROTOCOL).contains(&protocol.len()) {
        return Ok(());
    }
    let length = protocol.len();
    Err(Error::invalid("protocol", format!("is {length} bytes, must be 1 to {MAX_PROTOCOL}")))
}
