//! Messages, their subscribers, and the pace of broadcasts.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    metrics::Counters,
    proto::{Channel, DropReason, EndpointId, Pace},
    subscription::{Item, Queue, Subscription},
};

/// For this time after the start of a topic, a direct message waits for a subscriber: others may
/// find the node before its application has subscribed.
const FIRST_SUBSCRIBERS: Duration = Duration::from_secs(1);
/// Most bytes of messages that wait for one subscriber.
const MAX_QUEUED: usize = 16 * 1024 * 1024;

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The node that sent it, authenticated by the link, or by the signature of a broadcast.
    pub sender: EndpointId,
    /// The channel that it is for.
    pub channel: Option<Channel>,
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
#[non_exhaustive]
pub struct Receipt {
    /// The peer that has the message.
    pub peer: EndpointId,
    /// The time from the call to the peer's answer, dialing included.
    pub elapsed: Duration,
}

/// A subscriber, and the channel that it reads.
#[derive(Debug)]
struct Subscriber {
    channel: Option<Channel>,
    queue: Arc<Queue<MessageEvent>>,
}

/// The subscribers to the messages of one topic.
#[derive(Debug)]
pub(crate) struct Subscribers {
    all: Mutex<Vec<Subscriber>>,
    /// Notified of each new one.
    came: Notify,
    since: Instant,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self { all: Mutex::default(), came: Notify::new(), since: Instant::now() }
    }
}

impl Subscribers {
    pub(crate) fn subscribe(&self, channel: Option<Channel>, capacity: usize) -> Messages {
        let (messages, queue) = Subscription::new(capacity, MAX_QUEUED);
        let mut all = self.lock();
        all.retain(|subscriber| !subscriber.queue.is_abandoned());
        all.push(Subscriber { channel, queue });
        drop(all);
        self.came.notify_waiters();
        messages
    }

    /// Hands a message to all subscribers to its channel. Returns true if there was at least one.
    pub(crate) fn deliver(&self, message: &Message, counters: &Counters) -> bool {
        let mut delivered = false;
        self.lock().retain(|subscriber| {
            if subscriber.channel != message.channel {
                return true;
            }
            let pushed = subscriber.queue.push(MessageEvent::Message(message.clone()));
            for _ in 0..pushed.unwrap_or(0) {
                counters.dropped(DropReason::MessagesToSlowSubscribers, None);
            }
            delivered |= pushed.is_some();
            pushed.is_some()
        });
        delivered
    }

    /// As [`Self::deliver`], but waits for a subscriber until [`FIRST_SUBSCRIBERS`] are over.
    pub(crate) async fn deliver_patiently(&self, message: &Message, counters: &Counters) -> bool {
        let until = self.since + FIRST_SUBSCRIBERS;
        loop {
            let mut came = pin!(self.came.notified());
            came.as_mut().enable();
            if self.deliver(message, counters) {
                return true;
            }
            if timeout_at(until, came).await.is_err() {
                return false;
            }
        }
    }

    pub(crate) fn close(&self) {
        for subscriber in self.lock().drain(..) {
            subscriber.queue.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        // No panic can leave a list of queues half-changed, so a poisoned lock does no harm.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pace at which the application broadcasts in one topic. The caller that has the turn waits
/// for it.
#[derive(Debug)]
pub(crate) struct Broadcasting {
    turn: Semaphore,
    /// One broadcast of each channel waits for the turn, so that channels take turns. A channel
    /// without a waiting broadcast is forgotten.
    channels: Mutex<BTreeMap<Option<Channel>, Arc<Semaphore>>>,
    pace: Mutex<Option<Pace>>,
}

impl Default for Broadcasting {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), channels: Mutex::default(), pace: Mutex::default() }
    }
}

impl Broadcasting {
    /// Waits until a broadcast of `bytes` bytes has its turn, by its channel and by the pace.
    ///
    /// # Panics
    /// Never: the turns are never closed.
    pub(crate) async fn wait_for_turn(&self, channel: Option<&Channel>, bytes: usize) {
        let of_channel = {
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.retain(|_, turn| Arc::strong_count(turn) > 1);
            let turn = channels.entry(channel.cloned());
            turn.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        let _of_channel = of_channel.acquire().await.expect("never closed");
        let _turn = self.turn.acquire().await.expect("never closed");
        while let Err(wait) = self.take(bytes) {
            sleep(wait).await;
        }
    }

    /// Takes the budget for a broadcast. The error is the time to wait before the next attempt.
    fn take(&self, bytes: usize) -> Result<(), Duration> {
        let now = tokio::time::Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.get_or_insert_with(|| Pace::new(now)).take(bytes, now)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn message(channel: Option<&str>) -> Message {
        let channel = channel.map(|name| Channel::new(name).unwrap());
        let (sender, kind) = (EndpointId::from_bytes([7; 32]), MessageKind::Direct);
        Message { sender, channel, data: Bytes::from_static(b"data"), kind }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_for_its_first_subscriber_and_only_in_the_first_second() {
        let counters = Counters::default();
        let subscribers = Arc::new(Subscribers::default());
        let other = subscribers.subscribe(Channel::new("other").ok(), 8);
        let (waiting, counted) = (subscribers.clone(), Counters::default());
        let first = tokio::spawn(async move {
            waiting.deliver_patiently(&message(Some("cache")), &counted).await
        });
        tokio::time::sleep(FIRST_SUBSCRIBERS / 2).await;
        assert!(!first.is_finished());
        let mut cache = subscribers.subscribe(Channel::new("cache").ok(), 8);
        assert!(first.await.unwrap());
        let got = cache.next().now_or_never().unwrap();
        assert_eq!(got, Some(MessageEvent::Message(message(Some("cache")))));

        assert!(!subscribers.deliver_patiently(&message(None), &counters).await);
        let refused = subscribers.since.elapsed();
        assert!(refused >= FIRST_SUBSCRIBERS, "{refused:?}");
        assert!(!subscribers.deliver_patiently(&message(None), &counters).await);
        assert_eq!(subscribers.since.elapsed(), refused, "later, it is refused at once");
        drop(other);
        assert!(!subscribers.deliver(&message(Some("other")), &counters));
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_that_broadcasts_much_does_not_hold_up_another() {
        let broadcasting = Arc::new(Broadcasting::default());
        while broadcasting.take(1).is_ok() {}
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for channel in [vec![Some("busy"); 20], vec![Some("rare"), None]].concat() {
            let (broadcasting, order) = (broadcasting.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let name = channel.map(|name| Channel::new(name).unwrap());
                broadcasting.wait_for_turn(name.as_ref(), 1).await;
                order.lock().unwrap().push(channel);
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(order.lock().unwrap()[..4], [Some("busy"), Some("rare"), None, Some("busy")]);
        broadcasting.wait_for_turn(None, 1).await;
        assert!(broadcasting.channels.lock().unwrap().len() <= 1, "idle channels are forgotten");
    }
}
