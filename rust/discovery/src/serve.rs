//! Serves protocols and opens streams of them, over the links that discovery holds.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;

use crate::{
    error::Error,
    link::{handle::LinkGuard, lane::STREAM_PRIORITY},
    proto::{Answer, EndpointId, MAX_PROTOCOL, Request},
    published::Published,
    send::refused,
    services::{Accepted, IncomingStream},
    stream::{StreamReader, StreamWriter, halves},
    subscription::Subscription,
    swarm::Swarm,
};

/// The streams of one protocol that peers open. Dropping it ends the service.
///
/// ```no_run
/// # use iroh_gossip_discovery::{Error, Swarm};
/// # async fn example(swarm: Swarm) -> Result<(), Error> {
/// use futures_util::StreamExt;
///
/// let mut streams = swarm.serve("echo/1")?;
/// while let Some(stream) = streams.next().await {
///     println!("{} opened a stream", stream.peer());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Serving {
    protocol: Vec<u8>,
    streams: Subscription<Accepted>,
    published: Arc<Published>,
}

impl Serving {
    /// Returns the protocol.
    #[must_use]
    pub fn protocol(&self) -> &[u8] {
        &self.protocol
    }

    /// Takes up to `max` streams that have arrived. Never blocks and never awaits.
    pub fn drain(&mut self, max: usize) -> Vec<IncomingStream> {
        self.streams.drain(max).into_iter().filter_map(|stream| stream.0).collect()
    }

    /// Resolves once a stream waits or the topic is left; takes nothing.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        self.streams.ready()
    }

    /// Returns true if the topic was left and every stream has been taken.
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
        self.published.services.remove(&self.protocol);
    }
}

impl Swarm {
    /// Opens a stream of a protocol that a peer serves, over the existing link or a new one.
    ///
    /// # Errors
    /// [`Error::PeerUnreachable`]; [`Error::ProtocolNotServed`]; [`Error::TooManyStreams`] if 1,024
    /// streams to the peer are open, or if the peer has reached its own limit; [`Error::Invalid`]
    /// for the protocol, or for this node itself as the peer; [`Error::Closed`].
    pub async fn open_stream(
        &self,
        peer: EndpointId,
        protocol: impl AsRef<[u8]>,
    ) -> Result<(StreamReader, StreamWriter), Error> {
        let protocol = protocol.as_ref();
        check(protocol)?;
        let request = Request::Stream(self.topic().id(), protocol.to_vec());
        let opened = |guard: LinkGuard| {
            let request = request.clone();
            async move {
                let Ok(permit) = guard.opened.clone().try_acquire_owned() else {
                    return Ok((Answer::Busy, None));
                };
                let asked = guard.request(&request, None, STREAM_PRIORITY).await;
                let (answer, send, recv) = asked?;
                Ok((answer, Some(halves(guard, send, recv, [permit]))))
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

    /// Serves a protocol until the returned value is dropped, which gives the streams that peers
    /// open. Meanwhile the record names the protocol, so every member sees which nodes serve it.
    ///
    /// Up to 1,024 streams of one peer and 4,096 in all may be open at a time. Others are refused
    /// and counted.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the protocol is not 1 to 32 bytes or is served already, or if the
    /// record would name more than 8 protocols; [`Error::Observer`]; [`Error::Closed`].
    pub fn serve(&self, protocol: impl AsRef<[u8]>) -> Result<Serving, Error> {
        let protocol = protocol.as_ref();
        check(protocol)?;
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if self.is_observer() {
            return Err(Error::Observer { action: "serve a protocol" });
        }
        let published = self.published.clone();
        let streams = published.services.add(protocol, &self.me().profile.protocols)?;
        Ok(Serving { protocol: protocol.to_vec(), streams, published })
    }
}

fn check(protocol: &[u8]) -> Result<(), Error> {
    if (1..=MAX_PROTOCOL).contains(&protocol.len()) {
        return Ok(());
    }
    let length = protocol.len();
    Err(Error::invalid("protocol", format!("is {length} bytes, must be 1 to {MAX_PROTOCOL}")))
}
