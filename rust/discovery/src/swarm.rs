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
    proto::{EndpointId, NodeRecord, Profile},
    published::Published,
    status::PeerStatus,
    subscription::Subscription,
    ticket::Ticket,
    topic::Topic,
};

/// One joined topic of an endpoint. Clones are handles of the same topic; dropping them does not
/// leave it.
#[derive(Debug, Clone)]
pub struct Swarm {
    pub(crate) published: Arc<Published>,
    commands: Commands,
}

impl Swarm {
    pub(crate) fn new(published: Arc<Published>, commands: Commands) -> Self {
        Self { published, commands }
    }

    /// This endpoint's id.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.published.id
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.published.topic
    }

    /// How to reach this node now, as one string for others' bootstrap lists.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        let addresses = self.published.me().map(|me| me.addresses.clone()).unwrap_or_default();
        Ticket { id: self.published.id, topic: self.published.topic.id(), addresses }
    }

    /// The record that this node last announced.
    ///
    /// # Panics
    /// Never: a swarm exists from its first announcement on.
    #[must_use]
    pub fn me(&self) -> Arc<NodeRecord> {
        self.published.me().expect("a joined topic has announced a record")
    }

    /// Where this node can be dialed, as announced.
    #[must_use]
    pub fn addresses(&self) -> Vec<TransportAddr> {
        self.me().addresses.clone()
    }

    /// A snapshot of the address book. O(1).
    #[must_use]
    pub fn book(&self) -> Book {
        self.published.book()
    }

    /// The members that this node is linked to in the overlay now, about five of them: who is asked
    /// and told first, not who is there.
    #[must_use]
    pub fn neighbors(&self) -> BTreeSet<EndpointId> {
        self.published.neighbors()
    }

    /// A snapshot of the address book together with every event after it. After the end of the
    /// topic, the subscription is closed from the start.
    #[must_use]
    pub fn subscribe(&self) -> (Book, Subscription) {
        self.published.subscribe()
    }

    /// Replaces what this node says of itself. Returns once that is announced.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field and its limit; [`Error::Closed`].
    pub async fn set_profile(&self, profile: Profile) -> Result<(), Error> {
        let topic = self.published.topic.id();
        self.request(|reply| Command::SetProfile { topic, profile, reply }).await?
    }

    /// Adds bootstrap peers, at any time. They are dialed whenever they are not in the book.
    ///
    /// 1,024 of them are kept. A new one takes the place of the least recently linked of those that
    /// are not in the book; what finds no room even so is dropped and counted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a ticket of another topic, and then none is added; [`Error::Closed`].
    pub async fn add_bootstrap(&self, peers: Vec<Bootstrap>) -> Result<(), Error> {
        let topic = self.published.topic.id();
        self.request(|reply| Command::AddBootstrap { topic, peers, reply }).await?
    }

    /// Tells every peer that this node leaves, and ends the topic. Returns when the linked peers
    /// have acknowledged or after [`crate::proto::Config::leave_timeout`]. May be called again.
    pub async fn leave(&self) {
        let topic = self.published.topic.id();
        // An error says that the topic is gone already.
        let _ = self.request(|reply| Command::Leave { topic, reply }).await;
    }

    /// Waits until this node has met its topic, or knows that nobody answers: see [`Joined`].
    ///
    /// Until then the book is empty or incomplete, and nothing should be concluded from it. If this
    /// node met a member before, it returns at once.
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

    /// The state of a peer as this node sees it; `None` if the peer is not in the book. O(links).
    #[must_use]
    pub fn status(&self, peer: &EndpointId) -> Option<PeerStatus> {
        self.published.status(peer)
    }

    /// Whether the topic was left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.published.is_closed()
    }

    /// What the topic counts.
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
