//! What the actor publishes of a joined topic: the book, its subscribers and the served protocols.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::TransportAddr;
use tokio::sync::Notify;

use crate::{
    agreement::Agreement,
    book::Book,
    config::Config,
    contact::Contact,
    error::Error,
    events::Event,
    message::{Broadcasting, Message, MessageKind, Messages, Subscribers},
    metrics::{Counters, Metrics},
    proto::{Channel, EndpointId, NodeRecord, TopicEvent},
    services::ServiceTable,
    status::PeerStatus,
    subscription::{Queue, Subscription},
    topic::Topic,
};

/// What the actor publishes of one topic. The actor writes it, and handles read it without asking.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: Topic,
    pub(crate) id: EndpointId,
    /// Whether this node only observes.
    pub(crate) observer: bool,
    event_buffer: usize,
    message_buffer: usize,
    counters: Arc<Counters>,
    subscribers: Subscribers,
    pub(crate) broadcasting: Broadcasting,
    pub(crate) services: ServiceTable,
    pub(crate) contact: Contact,
    pub(crate) agreement: Agreement,
    /// Held while the application changes its profile, so that no change is lost.
    pub(crate) updating: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    me: Option<Arc<NodeRecord>>,
    book: Book,
    queues: Vec<Arc<Queue<Event>>>,
    /// The damages of the state directory that were found in this life.
    damages: Vec<Arc<str>>,
    closed: bool,
}

impl Published {
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
            observer: config.protocol.observer,
            event_buffer: config.event_buffer,
            message_buffer: config.message_buffer,
            counters,
            subscribers: Subscribers::default(),
            broadcasting: Broadcasting::default(),
            services: ServiceTable::new(services_changed),
            contact: Contact::new(config.connect_timeout),
            agreement: Agreement::default(),
            updating: tokio::sync::Mutex::default(),
            inner: Mutex::default(),
        }
    }

    /// Returns the record that was last announced.
    pub(crate) fn me(&self) -> Option<Arc<NodeRecord>> {
        self.lock().me.clone()
    }

    /// Returns a snapshot of the address book.
    pub(crate) fn book(&self) -> Book {
        self.lock().book.clone()
    }

    /// Returns true if a peer is in the book.
    pub(crate) fn is_member(&self, peer: &EndpointId) -> bool {
        self.lock().book.contains(peer)
    }

    /// Returns the neighbors in the overlay.
    pub(crate) fn neighbors(&self) -> BTreeSet<EndpointId> {
        self.agreement.neighbors()
    }

    /// Returns true if the topic was left.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Returns the counters of the endpoint, with the size of this topic's book.
    pub(crate) fn metrics(&self) -> Metrics {
        let peers = self.lock().book.len();
        self.counters.read(peers)
    }

    /// Returns the state of a peer in the book.
    pub(crate) fn status(&self, peer: &EndpointId) -> Option<PeerStatus> {
        let last_heard = self.lock().book.last_seen(peer)?;
        let (suspected, link) = self.counters.peer(&self.topic.id(), peer);
        Some(PeerStatus { suspected, last_heard, link })
    }

    /// Returns the book together with a subscription to every event after it.
    pub(crate) fn subscribe(&self) -> (Book, Subscription) {
        let (subscription, queue) = Subscription::new(self.event_buffer, 0);
        let mut inner = self.lock();
        if inner.closed {
            queue.close();
        } else {
            // Drops the queues of subscribers that are gone. In a quiet topic nothing else would.
            inner.queues.retain(|queue| !queue.is_abandoned());
            for reason in inner.damages.iter().cloned() {
                queue.push(Event::StateDamaged { reason });
            }
            inner.queues.push(queue);
        }
        (inner.book.clone(), subscription)
    }

    pub(crate) fn subscribe_messages(&self, channel: Option<Channel>) -> Messages {
        // The lock is held, so that the topic can't close between the check and the subscription.
        let inner = self.lock();
        let messages = self.subscribers.subscribe(channel, self.message_buffer);
        if inner.closed {
            self.subscribers.close();
        }
        messages
    }

    /// Hands a message to the subscribers to its channel. Returns true if there is one.
    pub(crate) async fn deliver(&self, message: &Message) -> bool {
        self.subscribers.deliver_patiently(message, &self.counters).await
    }

    /// Applies an event to the book and hands it to every subscriber, both under one lock, so that
    /// a snapshot and the events after it fit together.
    pub(crate) fn apply(&self, event: &TopicEvent) {
        let mut inner = self.lock();
        let event = match event {
            TopicEvent::Broadcast { author, channel, data } => {
                drop(inner);
                let (channel, data) = (channel.clone(), data.clone());
                let kind = MessageKind::Broadcast;
                let message = Message { sender: *author, channel, data, kind };
                self.subscribers.deliver(&message, &self.counters);
                return;
            }
            TopicEvent::Announced(record) => {
                let before = inner.me.replace(record.clone());
                if before.is_none_or(|before| !is_same(&before, record)) {
                    self.agreement.changed(inner.book.is_empty());
                }
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
            TopicEvent::Isolated => Event::Isolated,
            TopicEvent::Reconnected => Event::Reconnected,
            other => return self.apply_inner_event(other),
        };
        if event.changes_book() {
            self.agreement.changed(inner.book.is_empty());
        }
        inner.queues.retain(|queue| queue.push(event.clone()).is_some());
    }

    /// Handles an event that applications do not get.
    fn apply_inner_event(&self, event: &TopicEvent) {
        match event {
            TopicEvent::Opened(peer) => self.contact.opened(peer),
            TopicEvent::NotServed(peer) => {
                self.contact.unanswered(peer, "it has not joined the topic");
            }
            TopicEvent::Busy { peer, next } => {
                self.contact.asks(*next);
                self.contact.unanswered(peer, "it has as many observers as it may");
            }
            TopicEvent::Synced(peer) => self.contact.synced(*peer),
            TopicEvent::Agreed(peer) => self.agreement.agreed(*peer),
            TopicEvent::NeighborUp(peer) => self.agreement.neighbor_up(*peer),
            TopicEvent::NeighborDown(peer) => self.agreement.neighbor_down(peer),
            _ => {}
        }
    }

    /// Waits until the books agree and don't change, and returns this node's own book.
    pub(crate) async fn settled(&self, quiet: Duration) -> Result<Book, Error> {
        self.contact.joined().await?;
        self.agreement.settled(quiet).await?;
        Ok(self.book())
    }

    /// Reports damage of the state directory to all subscriptions, later ones included.
    pub(crate) fn damaged(&self, reason: String) {
        let reason = Arc::<str>::from(reason);
        let mut inner = self.lock();
        if inner.damages.contains(&reason) {
            return;
        }
        inner.damages.push(reason.clone());
        inner
            .queues
            .retain(|queue| queue.push(Event::StateDamaged { reason: reason.clone() }).is_some());
        self.counters.state_damaged();
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
        self.contact.close();
        self.agreement.close();
    }

    /// Returns the addresses of a peer in the book.
    pub(crate) fn addresses_of(&self, id: &EndpointId) -> Option<Vec<TransportAddr>> {
        self.lock().book.get(id).map(|record| record.addresses.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each update leaves a whole book behind, even if a later line panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true if a node says the same of itself in both records: a heartbeat changes nothing.
fn is_same(one: &NodeRecord, other: &NodeRecord) -> bool {
    (&one.profile, &one.addresses) == (&other.profile, &other.addresses)
}
