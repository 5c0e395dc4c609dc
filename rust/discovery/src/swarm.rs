//! A joined topic: the handle that applications hold.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use iroh::TransportAddr;
use tokio::sync::oneshot;

use crate::{
    book::Book,
    bootstrap::Bootstrap,
    commands::{Command, Commands},
    contact::Joined,
    error::Error,
    metrics::Metrics,
    proto::{EndpointId, NodeRecord, Profile, Readiness},
    published::Published,
    status::PeerStatus,
    subscription::Subscription,
    ticket::Ticket,
    topic::Topic,
};

/// One joined topic of an endpoint. Clones are handles of the same topic; dropping them does not
/// leave it.
///
/// ```no_run
/// # use iroh_gossip_discovery::{Error, Swarm};
/// # async fn example(swarm: Swarm) -> Result<(), Error> {
/// use futures_util::StreamExt;
/// use iroh_gossip_discovery::Event;
///
/// let (book, mut events) = swarm.subscribe();
/// println!("{} peers are known", book.len());
/// while let Some(event) = events.next().await {
///     if let Event::PeerJoined(peer) = event {
///         println!("{} joined", peer.profile.name);
///     }
/// }
/// swarm.leave().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Swarm {
    pub(crate) published: Arc<Published>,
    commands: Commands,
}

impl Swarm {
    pub(crate) fn new(published: Arc<Published>, commands: Commands) -> Self {
        Self { published, commands }
    }

    /// Returns this endpoint's id.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.published.id
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.published.topic
    }

    /// Returns how to reach this node now, as one string for the bootstrap lists of other nodes.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        let addresses = self.published.me().map(|me| me.addresses.clone()).unwrap_or_default();
        Ticket { id: self.published.id, topic: self.published.topic.id(), addresses }
    }

    /// Returns true if this node only observes: see [`crate::NodeBuilder::observer`].
    #[must_use]
    pub fn is_observer(&self) -> bool {
        self.published.observer
    }

    /// Returns the record that this node last announced. That of an observer is known to nobody
    /// else, and its sequence number is 0.
    ///
    /// # Panics
    /// Never: a swarm exists from its first announcement on.
    #[must_use]
    pub fn me(&self) -> Arc<NodeRecord> {
        self.published.me().expect("a joined topic has announced a record")
    }

    /// Returns the addresses that this node announces.
    #[must_use]
    pub fn addresses(&self) -> Vec<TransportAddr> {
        self.me().addresses.clone()
    }

    /// Returns a snapshot of the address book. O(1).
    #[must_use]
    pub fn book(&self) -> Book {
        self.published.book()
    }

    /// Returns the neighbors in the overlay: the members, about five of them, that this node
    /// gossips with. The whole membership is [`Self::book`]. An observer has one: the member that
    /// keeps it up to date.
    #[must_use]
    pub fn neighbors(&self) -> BTreeSet<EndpointId> {
        self.published.neighbors()
    }

    /// Returns a snapshot of the address book, with a subscription to every event after it. If the
    /// topic has ended, the subscription is closed from the start.
    #[must_use]
    pub fn subscribe(&self) -> (Book, Subscription) {
        self.published.subscribe()
    }

    /// Replaces the profile of this node. Returns once it is announced.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field and its limit; [`Error::Observer`];
    /// [`Error::Closed`].
    pub async fn set_profile(&self, profile: Profile) -> Result<(), Error> {
        let _turn = self.published.updating.lock().await;
        let topic = self.published.topic.id();
        self.request(|reply| Command::SetProfile { topic, profile, reply }).await?
    }

    /// Changes what this node says about itself. Returns once that is announced. `change` is given
    /// what was set last, without the protocols that are announced only because they are served.
    /// Two changes at the same time are made one after the other, and none is lost.
    ///
    /// ```no_run
    /// # use iroh_gossip_discovery::{Error, Swarm};
    /// # async fn example(swarm: Swarm) -> Result<(), Error> {
    /// swarm.update_profile(|profile| profile.name = "alice the second".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field and its limit; [`Error::Closed`].
    pub async fn update_profile(&self, change: impl FnOnce(&mut Profile)) -> Result<(), Error> {
        let _turn = self.published.updating.lock().await;
        let topic = self.published.topic.id();
        let mut profile =
            self.request(|reply| Command::Profile { topic, reply }).await?.ok_or(Error::Closed)?;
        change(&mut profile);
        self.request(|reply| Command::SetProfile { topic, profile, reply }).await?
    }

    /// Says whether this node takes work. Returns once it is announced. See [`Readiness`].
    ///
    /// # Errors
    /// As [`Self::update_profile`].
    pub async fn set_readiness(&self, readiness: Readiness) -> Result<(), Error> {
        self.update_profile(|profile| profile.readiness = readiness).await
    }

    /// Merges changes into the metadata: values by key, and `None` removes a key. Returns once that
    /// is announced.
    ///
    /// # Errors
    /// As [`Self::update_profile`].
    pub async fn update_metadata<K: Into<String>, V: Into<String>>(
        &self,
        changes: impl IntoIterator<Item = (K, Option<V>)>,
    ) -> Result<(), Error> {
        self.update_profile(|profile| {
            for (key, value) in changes {
                match value {
                    Some(value) => profile.metadata.insert(key.into(), value.into()),
                    None => profile.metadata.remove(&key.into()),
                };
            }
        })
        .await
    }

    /// Waits until the book holds at least `count` other nodes, and returns it. To limit the time,
    /// drop the future.
    ///
    /// # Errors
    /// [`Error::Closed`] if the topic is left before that.
    pub async fn wait_for_peers(&self, count: usize) -> Result<Book, Error> {
        let (mut book, mut events) = self.subscribe();
        while book.len() < count {
            events.ready().await;
            events.drain(usize::MAX);
            if events.is_closed() {
                return Err(Error::Closed);
            }
            book = self.book();
        }
        Ok(book)
    }

    /// Adds bootstrap peers, at any time. They are dialed whenever they are not in the book.
    ///
    /// At most 1,024 are kept. A new one replaces the least recently linked one that is not in the
    /// book. If there is none, the new one is dropped and counted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a ticket of another topic, and then no peer is added;
    /// [`Error::Closed`].
    pub async fn add_bootstrap(&self, peers: Vec<Bootstrap>) -> Result<(), Error> {
        let topic = self.published.topic.id();
        self.request(|reply| Command::AddBootstrap { topic, peers, reply }).await?
    }

    /// Tells every peer that this node leaves, and ends the topic. Returns once the linked peers
    /// have acknowledged that, or after [`crate::proto::Config::leave_timeout`]. May be called
    /// again.
    pub async fn leave(&self) {
        let topic = self.published.topic.id();
        // An error means that the topic is gone already.
        let _ = self.request(|reply| Command::Leave { topic, reply }).await;
    }

    /// Waits until this node has met its topic, or until it is known that no peer answers: see
    /// [`Joined`].
    ///
    /// Until then the book is empty or incomplete, so draw no conclusions from it. If this node has
    /// met a member already, the call returns at once.
    ///
    /// # Errors
    /// [`Error::Closed`] if the topic is left before that.
    pub async fn joined(&self) -> Result<Joined, Error> {
        self.published.contact.joined().await
    }

    /// Waits until this node has met its topic, and its book agrees with those of its neighbors and
    /// has not changed for `quiet`. Returns the book. Heartbeats are no change. A node that knows
    /// nobody settles alone.
    ///
    /// Neighbors learn of each other's books with their keepalives, so it takes a probe interval or
    /// two. Limit the time: in a swarm that always changes, or one beyond its capacity, it never
    /// returns.
    ///
    /// # Errors
    /// [`Error::Closed`] if the topic is left before that.
    pub async fn settled(&self, quiet: Duration) -> Result<Book, Error> {
        self.published.settled(quiet).await
    }

    /// Returns the state of a peer as this node sees it; `None` if the peer is not in the book.
    /// O(links).
    #[must_use]
    pub fn status(&self, peer: &EndpointId) -> Option<PeerStatus> {
        self.published.status(peer)
    }

    /// Returns true if the topic was left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.published.is_closed()
    }

    /// Returns the counters of the topic and of its endpoint.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.published.metrics()
    }

    pub(crate) async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        self.commands.request(command).await
    }
}
