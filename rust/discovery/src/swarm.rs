//! A joined topic: the handle that applications hold, and what the actor publishes to it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh::TransportAddr;
use tokio::sync::{Notify, oneshot};

use crate::{
    actor::Command,
    book::Book,
    bootstrap::Bootstrap,
    commands::Commands,
    config::Config,
    error::Error,
    events::Event,
    message::{Broadcasting, Message, MessageKind, Messages, Subscribers},
    metrics::{Counters, Metrics},
    proto::{EndpointId, NodeRecord, Profile, TopicEvent},
    serve::ServiceTable,
    subscription::{Queue, Subscription},
    ticket::Ticket,
    topic::Topic,
};

/// How a topic is joined.
#[derive(Debug, Clone, Default)]
pub struct JoinOptions {
    /// What this node says of itself.
    pub profile: Profile,
    /// Whom to dial first; without any, the node waits to be found.
    pub bootstrap: Vec<Bootstrap>,
}

/// One joined topic of an endpoint. Clones are handles of the same topic; dropping them does not
/// leave it.
#[derive(Debug, Clone)]
pub struct Swarm {
    pub(crate) shared: Arc<Shared>,
    commands: Commands,
}

impl Swarm {
    pub(crate) fn new(shared: Arc<Shared>, commands: Commands) -> Self {
        Self { shared, commands }
    }

    /// This endpoint's id.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.shared.id
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.shared.topic
    }

    /// How to reach this node now, as one string for others' bootstrap lists.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        let inner = self.shared.lock();
        let addresses = inner.me.as_ref().map(|me| me.addresses.clone()).unwrap_or_default();
        Ticket { id: self.shared.id, topic: self.shared.topic.id(), addresses }
    }

    /// The record that this node last announced.
    ///
    /// # Panics
    /// Never: a swarm exists from its first announcement on.
    #[must_use]
    pub fn me(&self) -> Arc<NodeRecord> {
        self.shared.lock().me.clone().expect("a joined topic has announced a record")
    }

    /// Where this node can be dialed, as announced.
    #[must_use]
    pub fn addresses(&self) -> Vec<TransportAddr> {
        self.me().addresses.clone()
    }

    /// A snapshot of the address book. O(1).
    #[must_use]
    pub fn book(&self) -> Book {
        self.shared.lock().book.clone()
    }

    /// The members that this node is linked to in the overlay now, about five of them: who is asked
    /// and told first, not who is there.
    #[must_use]
    pub fn neighbors(&self) -> BTreeSet<EndpointId> {
        self.shared.lock().neighbors.clone()
    }

    /// A snapshot of the address book together with every event after it. After the end of the
    /// topic, the subscription is closed from the start.
    #[must_use]
    pub fn subscribe(&self) -> (Book, Subscription) {
        let (subscription, queue) = Subscription::new(self.shared.event_buffer, 0);
        let mut inner = self.shared.lock();
        if inner.closed {
            queue.close();
        } else {
            // In a quiet topic nothing else would let go of those that nobody reads any more.
            inner.queues.retain(|queue| !queue.is_abandoned());
            inner.queues.push(queue);
        }
        (inner.book.clone(), subscription)
    }

    /// Replaces what this node says of itself. Returns once that is announced.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field and its limit; [`Error::Closed`].
    pub async fn set_profile(&self, profile: Profile) -> Result<(), Error> {
        let topic = self.shared.topic.id();
        self.request(|reply| Command::SetProfile { topic, profile, reply }).await?
    }

    /// Adds bootstrap peers, at any time. They are dialed whenever they are not in the book.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a ticket of another topic or more than 1,024 peers in all, and then
    /// none is added; [`Error::Closed`].
    pub async fn add_bootstrap(&self, peers: Vec<Bootstrap>) -> Result<(), Error> {
        let topic = self.shared.topic.id();
        self.request(|reply| Command::AddBootstrap { topic, peers, reply }).await?
    }

    /// Tells every peer that this node leaves, and ends the topic. Returns when the linked peers
    /// have acknowledged or after [`crate::proto::Config::leave_timeout`]. May be called again.
    pub async fn leave(&self) {
        let topic = self.shared.topic.id();
        // An error says that the topic is gone already.
        let _ = self.request(|reply| Command::Leave { topic, reply }).await;
    }

    /// Whether the topic was left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// What the topic counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.read(self.book().len())
    }

    pub(crate) async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        self.commands.request(command).await
    }
}

/// What the actor publishes of one topic.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) topic: Topic,
    pub(crate) id: EndpointId,
    event_buffer: usize,
    message_buffer: usize,
    counters: Arc<Counters>,
    subscribers: Subscribers,
    pub(crate) broadcasting: Broadcasting,
    pub(crate) services: ServiceTable,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    me: Option<Arc<NodeRecord>>,
    book: Book,
    neighbors: BTreeSet<EndpointId>,
    queues: Vec<Arc<Queue<Event>>>,
    closed: bool,
}

impl Shared {
    pub(crate) fn new(
        topic: Topic,
        id: EndpointId,
        config: &Config,
        counters: Arc<Counters>,
        services_changed: Arc<Notify>,
    ) -> Self {
        Self {
            topic,
            id,
            event_buffer: config.event_buffer,
            message_buffer: config.message_buffer,
            counters,
            subscribers: Subscribers::default(),
            broadcasting: Broadcasting::default(),
            services: ServiceTable::new(services_changed),
            inner: Mutex::default(),
        }
    }

    /// The record that was last announced.
    pub(crate) fn me(&self) -> Option<Arc<NodeRecord>> {
        self.lock().me.clone()
    }

    pub(crate) fn subscribe_messages(&self) -> Messages {
        // Under the lock, so that no close comes between the look and the subscription.
        let inner = self.lock();
        let messages = self.subscribers.subscribe(self.message_buffer);
        if inner.closed {
            self.subscribers.close();
        }
        messages
    }

    /// Hands a message to the subscribers; whether there is one.
    pub(crate) fn deliver(&self, message: &Message) -> bool {
        self.subscribers.deliver(message, &self.counters)
    }

    /// Applies an event to the book and hands it to every subscriber, both under one lock, so that a
    /// snapshot and the events after it fit together.
    pub(crate) fn apply(&self, event: &TopicEvent) {
        let mut inner = self.lock();
        let event = match event {
            TopicEvent::Broadcast { author, data } => {
                drop(inner);
                let (sender, data) = (*author, data.clone());
                self.deliver(&Message { sender, data, kind: MessageKind::Broadcast });
                return;
            }
            TopicEvent::Announced(record) => {
                inner.me = Some(record.clone());
                return;
            }
            TopicEvent::PeerRefreshed(record) => {
                inner.book.insert(record.clone());
                return;
            }
            TopicEvent::PeerJoined(record) => {
                inner.book.insert(record.clone());
                Event::PeerJoined(record.clone())
            }
            TopicEvent::PeerUpdated(record) => {
                inner.book.insert(record.clone());
                Event::PeerUpdated(record.clone())
            }
            TopicEvent::PeerLeft(record) => {
                inner.book.remove(&record.id);
                Event::PeerLeft(record.clone())
            }
            TopicEvent::PeerSuspected(record) => Event::PeerSuspected(record.clone()),
            TopicEvent::PeerRecovered(record) => Event::PeerRecovered(record.clone()),
            TopicEvent::IdentityConflict { boot_id } => {
                Event::IdentityConflict { boot_id: *boot_id }
            }
            TopicEvent::PeerLost(record, reason) => {
                inner.book.remove(&record.id);
                Event::PeerLost(record.clone(), *reason)
            }
            TopicEvent::NeighborUp(peer) => {
                inner.neighbors.insert(*peer);
                return;
            }
            TopicEvent::NeighborDown(peer) => {
                inner.neighbors.remove(peer);
                return;
            }
            TopicEvent::Isolated => Event::Isolated,
            TopicEvent::Reconnected => Event::Reconnected,
            _ => return,
        };
        inner.queues.retain(|queue| queue.push(event.clone()).is_some());
    }

    /// Ends every subscription. The last book stays readable.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for queue in inner.queues.drain(..) {
            queue.close();
        }
        self.subscribers.close();
        self.services.close();
    }

    /// The addresses of a peer in the book.
    pub(crate) fn addresses_of(&self, id: &EndpointId) -> Option<Vec<TransportAddr>> {
        self.lock().book.get(id).map(|record| record.addresses.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each update leaves a whole book behind even if a later line panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
