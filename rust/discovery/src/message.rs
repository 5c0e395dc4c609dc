//! What messages are, who subscribed to them, and the pace of broadcasts.

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
/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose it is: authenticated by the link, or by the signature of a broadcast.
    pub sender: EndpointId,
    /// What was sent.
    pub data: Bytes,
    /// How it came.
    pub kind: MessageKind,
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageKind {
    /// To this node alone: [`crate::Swarm::send`].
    Direct,
    /// To all members: [`crate::Swarm::broadcast`].
    Broadcast,
}

/// What a subscriber to messages reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageEvent {
    /// A message.
    Message(Message),
    /// This many messages were dropped here, because the subscriber lagged behind by more than
    /// [`crate::Config::message_buffer`] messages or 16 MiB.
    Lost(u64),
}

/// The messages of a topic from one moment on, for one subscriber.
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

/// That a message is with a subscriber of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Who has it.
    pub peer: EndpointId,
    /// From the call to the peer's answer, dialing included.
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

    /// Hands a message to everyone; whether there was anyone.
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
        // A list of queues is sound after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pace at which the application broadcasts in one topic; who has the turn may wait for it.
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
    /// How long to wait, if another broadcast is too much now.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Duration> {
        let now = tokio::time::Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.get_or_insert_with(|| Pace::new(now)).take(bytes, now)
    }
}
