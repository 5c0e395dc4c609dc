//! Messages, their subscribers, and the pace of broadcasts.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    metrics::Counters,
    proto::{EndpointId, Pace},
    subscription::{Item, Queue, Subscription},
};

/// Most bytes of messages that wait for one subscriber.
const MAX_QUEUED: usize = 16 * 1024 * 1024;

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The node that sent it, authenticated by the link, or by the signature of a broadcast.
    pub sender: EndpointId,
    /// The bytes that were sent.
    pub data: Bytes,
    /// How it arrived.
    pub kind: MessageKind,
}

/// How a message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageKind {
    /// It was sent to this node alone, by [`crate::Swarm::send`].
    Direct,
    /// It was sent to all members, by [`crate::Swarm::broadcast`].
    Broadcast,
}

/// What a subscriber to messages reads.
///
/// ```no_run
/// # use iroh_gossip_discovery::{Error, Swarm};
/// # async fn example(swarm: Swarm) -> Result<(), Error> {
/// use futures_util::StreamExt;
/// use iroh_gossip_discovery::MessageEvent;
///
/// let mut messages = swarm.messages();
/// swarm.broadcast("hello, everyone").await?;
/// while let Some(event) = messages.next().await {
///     match event {
///         MessageEvent::Message(message) => {
///             swarm.send(message.sender, message.data).await?;
///         }
///         MessageEvent::Lost(count) => println!("{count} messages were dropped"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageEvent {
    /// A message.
    Message(Message),
    /// This many messages were dropped here, because the subscriber lagged behind by more than
    /// [`crate::Config::message_buffer`] messages or 16 MiB.
    Lost(u64),
}

/// The messages of a topic from the call on, for one subscriber.
pub type Messages = Subscription<MessageEvent>;

impl Item for MessageEvent {
    fn lost(count: u64) -> Self {
        Self::Lost(count)
    }

    fn weight(&self) -> usize {
        match self {
            Self::Message(message) => message.data.len(),
            Self::Lost(_) => 0,
        }
    }
}

/// The confirmation that a subscriber of the peer has a message in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The peer that has the message.
    pub peer: EndpointId,
    /// The time from the call to the peer's answer, dialing included.
    pub elapsed: Duration,
}

/// The subscribers to the messages of one topic.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<Vec<Arc<Queue<MessageEvent>>>>);

impl Subscribers {
    pub(crate) fn subscribe(&self, capacity: usize) -> Messages {
        let (messages, queue) = Subscription::new(capacity, MAX_QUEUED);
        let mut queues = self.lock();
        queues.retain(|queue| !queue.is_abandoned());
        queues.push(queue);
        messages
    }

    /// Hands a message to all subscribers. Returns true if there was at least one.
    pub(crate) fn deliver(&self, message: &Message, counters: &Counters) -> bool {
        let mut queues = self.lock();
        queues.retain(|queue| {
            let pushed = queue.push(MessageEvent::Message(message.clone()));
            for _ in 0..pushed.unwrap_or(0) {
                counters.dropped("messages to slow subscribers", None);
            }
            pushed.is_some()
        });
        !queues.is_empty()
    }

    pub(crate) fn close(&self) {
        for queue in self.lock().drain(..) {
            queue.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Queue<MessageEvent>>>> {
        // No panic can leave a list of queues half-changed, so a poisoned lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pace at which the application broadcasts in one topic. The caller that has the turn waits
/// for it.
#[derive(Debug)]
pub(crate) struct Broadcasting {
    pub(crate) turn: Semaphore,
    pace: Mutex<Option<Pace>>,
}

impl Default for Broadcasting {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), pace: Mutex::default() }
    }
}

impl Broadcasting {
    /// Takes the budget for a broadcast. The error is the time to wait before the next attempt.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Duration> {
        let now = tokio::time::Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.get_or_insert_with(|| Pace::new(now)).take(bytes, now)
    }
}
