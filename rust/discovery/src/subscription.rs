//! A bounded queue between the actor and one subscriber.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::Stream;
use tokio::sync::Notify;

use crate::events::Event;

/// An item of a subscription.
pub trait Item: Send + Sized + 'static {
    /// Returns the item that takes the place of this many dropped ones.
    fn lost(count: u64) -> Self;

    /// Returns how many bytes the item holds. The sum over a queue is bounded too.
    fn weight(&self) -> usize {
        0
    }
}

impl Item for Event {
    fn lost(count: u64) -> Self {
        Self::EventsLost(count)
    }
}

/// What happens in one topic after the call, for one subscriber: events, or [`crate::Messages`].
///
/// It is bounded: a subscriber that lags behind by more than [`crate::Config::event_buffer`] loses
/// the oldest events and reads [`Event::EventsLost`] in their place. The stream ends when the topic
/// is left. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription<T: Item = Event> {
    queue: Arc<Queue<T>>,
}

impl<T: Item> Subscription<T> {
    /// Makes a queue of at most `capacity` items with at most `most_bytes` together. A single
    /// larger item is still taken.
    pub(crate) fn new(capacity: usize, most_bytes: usize) -> (Self, Arc<Queue<T>>) {
        let queue = Arc::new(Queue {
            inner: Mutex::new(Inner { capacity, most_bytes, ..Inner::default() }),
            notify: Notify::new(),
        });
        (Self { queue: queue.clone() }, queue)
    }

    /// Takes up to `max` items that have arrived. Never blocks and never awaits.
    pub fn drain(&mut self, max: usize) -> Vec<T> {
        self.queue.lock().drain(max)
    }

    /// Returns true if the topic was left and every item has been taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.lock().is_ended()
    }

    /// Resolves once an item waits or the end is reached. It borrows nothing, takes nothing and may
    /// be dropped at any time.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<T> {
        let queue = self.queue.clone();
        async move {
            let mut notified = std::pin::pin!(queue.notify.notified());
            loop {
                notified.as_mut().enable();
                if queue.lock().is_ready() {
                    return;
                }
                notified.as_mut().await;
                notified.set(queue.notify.notified());
            }
        }
    }
}

impl<T: Item> Stream for Subscription<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut inner = self.queue.lock();
        match inner.drain(1).pop() {
            Some(event) => Poll::Ready(Some(event)),
            None if inner.closed => Poll::Ready(None),
            None => {
                inner.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T: Item> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        inner.abandoned = true;
        inner.items = VecDeque::new();
        inner.bytes = 0;
    }
}

/// The shared end of a subscription.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    notify: Notify,
}

impl<T: Item> Queue<T> {
    /// Appends an item. The oldest items make room for it. Returns how many did, or `None` if the
    /// subscriber is gone.
    pub(crate) fn push(&self, item: T) -> Option<u64> {
        let mut inner = self.lock();
        if inner.abandoned || inner.closed {
            return None;
        }
        let before = inner.lost;
        inner.bytes += item.weight();
        while inner.items.len() >= inner.capacity || inner.bytes > inner.most_bytes {
            let Some(oldest) = inner.items.pop_front() else { break };
            inner.bytes -= oldest.weight();
            inner.lost += 1;
        }
        let dropped = inner.lost - before;
        inner.items.push_back(item);
        self.wake(inner);
        Some(dropped)
    }

    /// Returns true if the subscriber is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// Ends the stream after what is queued.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.wake(inner);
    }

    fn wake(&self, mut inner: MutexGuard<'_, Inner<T>>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.notify.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // No panic can leave the queue half-changed, so a poisoned lock does no harm.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    capacity: usize,
    /// The sum of the items' weights, and its bound.
    bytes: usize,
    most_bytes: usize,
    /// How many items were dropped since the last drain. They were older than all that are queued.
    lost: u64,
    closed: bool,
    abandoned: bool,
    waker: Option<Waker>,
}

impl<T> Default for Inner<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            capacity: 0,
            bytes: 0,
            most_bytes: 0,
            lost: 0,
            closed: false,
            abandoned: false,
            waker: None,
        }
    }
}

impl<T: Item> Inner<T> {
    fn drain(&mut self, max: usize) -> Vec<T> {
        if max == 0 {
            return Vec::new();
        }
        let lost = std::mem::take(&mut self.lost);
        let marker = (lost > 0).then(|| T::lost(lost));
        let rest = self.items.len().min(max - usize::from(marker.is_some()));
        let drained: Vec<_> = marker.into_iter().chain(self.items.drain(..rest)).collect();
        self.bytes -= drained.iter().map(T::weight).sum::<usize>();
        drained
    }

    fn is_ready(&self) -> bool {
        self.closed || self.lost > 0 || !self.items.is_empty()
    }

    fn is_ended(&self) -> bool {
        self.closed && self.lost == 0 && self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn the_oldest_make_room_and_are_counted_in_their_place() {
        let (mut subscription, queue) = Subscription::new(2, 0);
        for _ in 0..4 {
            assert!(queue.push(Event::Isolated).is_some());
        }
        assert!(queue.push(Event::Reconnected).is_some());
        assert_eq!(subscription.drain(1), [Event::EventsLost(3)]);
        assert!(queue.push(Event::Isolated).is_some());
        assert_eq!(
            subscription.drain(9),
            [Event::EventsLost(1), Event::Reconnected, Event::Isolated]
        );
        assert!(subscription.drain(9).is_empty());
    }

    #[test]
    fn closing_ends_the_stream_after_what_is_queued() {
        let (mut subscription, queue) = Subscription::new(8, 0);
        queue.push(Event::Isolated);
        queue.close();
        assert!(!subscription.is_closed());
        assert_eq!(subscription.next().now_or_never(), Some(Some(Event::Isolated)));
        assert!(subscription.is_closed());
        assert_eq!(subscription.next().now_or_never(), Some(None));
        assert_eq!(subscription.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_dropped_subscription_is_reported_to_the_source() {
        let (subscription, queue) = Subscription::new(8, 0);
        drop(subscription);
        assert!(queue.push(Event::Isolated).is_none());
    }

    #[tokio::test]
    async fn ready_wakes_every_waiter_and_takes_nothing() {
        let (mut subscription, queue) = Subscription::new(8, 0);
        let waiters = [tokio::spawn(subscription.ready()), tokio::spawn(subscription.ready())];
        assert!(subscription.ready().now_or_never().is_none());
        tokio::task::yield_now().await;
        queue.push(Event::Isolated);
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(subscription.drain(9), [Event::Isolated]);
        let waiter = tokio::spawn(subscription.ready());
        tokio::task::yield_now().await;
        queue.close();
        waiter.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_between_threads() {
        const COUNT: usize = 20_000;
        let (mut subscription, queue) = Subscription::new(COUNT, 0);
        let source = tokio::spawn(async move {
            for n in 0..COUNT {
                queue.push(Event::Isolated);
                if n % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            queue.close();
        });
        let mut seen = 0;
        while !subscription.is_closed() {
            subscription.ready().await;
            seen += subscription.drain(256).len();
        }
        source.await.unwrap();
        assert_eq!(seen, COUNT);
    }
}
