//! Sends messages: to one peer, directly over its link, or to all members, through the overlay.

use std::time::{Duration, Instant};

use bytes::Bytes;
use iroh::endpoint::{Connection, ConnectionError};
use tokio::time::timeout;

use crate::{
    commands::Command,
    ending,
    error::Error,
    link::{
        handle::{Failed, LinkGuard},
        lane::MESSAGE_PRIORITY,
    },
    message::{Messages, Receipt},
    proto::{Answer, Channel, CloseCode, EndpointId, MAX_BROADCAST, MAX_MESSAGE, Request},
    swarm::Swarm,
};

/// Most attempts of a request. If a link closes under it, the next attempt uses another link.
const ATTEMPTS: usize = 4;
/// Most time that a closing link takes to end.
const CLOSING: Duration = Duration::from_secs(3);

impl Swarm {
    /// Subscribes to the messages for this node from now on, direct ones and broadcasts, that were
    /// sent without a channel. Each call is a subscription of its own. If the topic has ended, the
    /// subscription is closed from the start.
    #[must_use]
    pub fn messages(&self) -> Messages {
        self.published.subscribe_messages(None)
    }

    /// Returns a channel of messages. They reach subscribers to that channel and no others. So two
    /// libraries in one process don't read each other's messages.
    ///
    /// ```no_run
    /// # use iroh_gossip_discovery::{Error, Swarm};
    /// # async fn example(swarm: Swarm) -> Result<(), Error> {
    /// let cache = swarm.channel("cache")?;
    /// let mut messages = cache.messages();
    /// cache.broadcast("the cache is stale").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field `channel`: a name has 1 to 64 bytes of UTF-8 without
    /// control characters.
    pub fn channel(&self, name: &str) -> Result<MessageChannel, Error> {
        Ok(self.in_channel(Some(Channel::new(name)?)))
    }

    /// As [`Self::channel`]; without a channel, the messages that have none. For the bindings.
    #[doc(hidden)]
    #[must_use]
    pub fn in_channel(&self, channel: Option<Channel>) -> MessageChannel {
        MessageChannel { swarm: self.clone(), channel }
    }

    /// Sends a message to one peer, over the existing link or a new one. Returns once the peer has
    /// put it into the queue of a subscriber. The message is delivered at most once. Messages that
    /// are sent one after another arrive in that order.
    ///
    /// Waits for its turn while 256 messages, or 1 MiB of them, are on their way to the peer. To
    /// limit the time, drop the future. The message may still arrive then, if it has left already.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`] before anything is sent; [`Error::PeerUnreachable`], after which
    /// the message was delivered only if the link broke while the answer was on its way;
    /// [`Error::NoSubscriber`]; [`Error::Invalid`] for this node itself; [`Error::Closed`].
    pub async fn send(&self, peer: EndpointId, data: impl Into<Bytes>) -> Result<Receipt, Error> {
        self.send_in(None, peer, data.into()).await
    }

    async fn send_in(
        &self,
        channel: Option<Channel>,
        peer: EndpointId,
        data: Bytes,
    ) -> Result<Receipt, Error> {
        let start = Instant::now();
        if data.len() > MAX_MESSAGE {
            return Err(Error::MessageTooLarge { size: data.len(), limit: MAX_MESSAGE });
        }
        let request = Request::Message(self.topic().id(), channel);
        let answer = |guard: LinkGuard| {
            let (request, data) = (request.clone(), data.clone());
            async move {
                let _turn = guard.turn(data.len()).await;
                let (answer, ..) = guard.request(&request, Some(data), MESSAGE_PRIORITY).await?;
                Ok((answer, ()))
            }
        };
        match self.ask(peer, answer).await? {
            (Answer::Accepted, ()) => Ok(Receipt { peer, elapsed: start.elapsed() }),
            (Answer::NoSubscriber, ()) => Err(Error::NoSubscriber { peer }),
            (answer, ()) => Err(refused(peer, answer)),
        }
    }

    /// Sends a message to all other members, through the overlay. This is best effort: the call
    /// returns once the message is on its way. It arrives at most once at each member that has this
    /// node in its book and is in the overlay meanwhile. If this node is not in the overlay yet,
    /// messages wait for that in the background: up to 10 s, and up to 320 of them or 1.25 MiB.
    ///
    /// Waits for its turn if more is broadcast than 128 messages or 384 KiB a second, after a burst
    /// of 256 messages or 1 MiB. Members drop what comes much faster.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`] for more than 8 KiB, before anything is sent;
    /// [`Error::Observer`]; [`Error::Closed`].
    pub async fn broadcast(&self, data: impl Into<Bytes>) -> Result<(), Error> {
        self.broadcast_in(None, data.into()).await
    }

    async fn broadcast_in(&self, channel: Option<Channel>, data: Bytes) -> Result<(), Error> {
        if data.len() > MAX_BROADCAST {
            return Err(Error::MessageTooLarge { size: data.len(), limit: MAX_BROADCAST });
        }
        self.published.broadcasting.wait_for_turn(channel.as_ref(), data.len()).await;
        let topic = self.topic().id();
        self.request(|reply| Command::Broadcast { topic, channel, data, reply }).await?
    }

    /// Sends a request to a peer over a link, and over another link if the first one closes
    /// meanwhile.
    pub(crate) async fn ask<T, F>(
        &self,
        peer: EndpointId,
        request: impl Fn(LinkGuard) -> F,
    ) -> Result<(Answer, T), Error>
    where
        F: Future<Output = Result<(Answer, T), Failed>>,
    {
        if peer == self.id() {
            return Err(Error::invalid("peer", "must not be this node itself"));
        }
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            let guard = self.link(peer).await?;
            let connection = guard.connection.clone();
            match request(guard).await {
                Ok((Answer::Closing, _)) => {
                    let _ = timeout(CLOSING, connection.closed()).await;
                    reason = "its link is closing".into();
                }
                Ok(answered) => return Ok(answered),
                Err(Failed::Link) if is_graceful(&connection) => {
                    reason = "its link was closed".into();
                }
                Err(Failed::Link) => {
                    reason = connection.close_reason().map_or_else(String::new, |e| e.to_string());
                    break;
                }
                Err(Failed::Broken(what)) => {
                    reason = what;
                    break;
                }
            }
        }
        if self.is_closed() {
            return Err(Error::Closed);
        }
        Err(Error::PeerUnreachable { peer, reason })
    }

    async fn link(&self, peer: EndpointId) -> Result<LinkGuard, Error> {
        let topic = self.topic().id();
        self.request(|reply| Command::Link { topic, peer, reply }).await?
    }
}

/// A channel of messages of a topic: see [`Swarm::channel`]. Clones are the same channel.
#[derive(Debug, Clone)]
pub struct MessageChannel {
    swarm: Swarm,
    channel: Option<Channel>,
}

impl MessageChannel {
    /// As [`Swarm::messages`], in this channel.
    #[must_use]
    pub fn messages(&self) -> Messages {
        self.swarm.published.subscribe_messages(self.channel.clone())
    }

    /// As [`Swarm::send`], in this channel.
    ///
    /// # Errors
    /// The errors of [`Swarm::send`].
    pub async fn send(&self, peer: EndpointId, data: impl Into<Bytes>) -> Result<Receipt, Error> {
        self.swarm.send_in(self.channel.clone(), peer, data.into()).await
    }

    /// As [`Swarm::broadcast`], in this channel. The pace is that of the topic, and channels take
    /// turns.
    ///
    /// # Errors
    /// The errors of [`Swarm::broadcast`].
    pub async fn broadcast(&self, data: impl Into<Bytes>) -> Result<(), Error> {
        self.swarm.broadcast_in(self.channel.clone(), data.into()).await
    }
}

/// Returns true if the peer closed the link as an unused one. Then it has answered every request
/// that it accepted on it.
fn is_graceful(connection: &Connection) -> bool {
    let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason() else {
        return false;
    };
    matches!(ending::code_of(&close), CloseCode::Idle | CloseCode::Replaced)
}

/// Returns the error for an answer that is no acceptance.
pub(crate) fn refused(peer: EndpointId, answer: Answer) -> Error {
    let reason = match answer {
        Answer::NotJoined => "it has not joined the topic",
        Answer::Busy => return Error::TooManyStreams { peer },
        _ => "its answer makes no sense",
    };
    Error::PeerUnreachable { peer, reason: reason.into() }
}
