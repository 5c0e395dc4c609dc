//! A bounded queue of events between the actor and one subscriber, and the way to wait for it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::Stream;
use tokio::sync::Notify;

use crate::events::Event;

/// The events of one topic from one moment on, for one subscriber.
///
/// Bounded: a subscriber that lags behind by more than [`crate::Config::event_buffer`] loses the
/// oldest events and reads [`Event::EventsLost`] in their place. The stream ends when the topic is
/// left. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
}

impl Subscription {
    pub(crate) fn new(capacity: usize) -> (Self, Arc<Queue>) {
        let queue = Arc::new(Queue {
            inner: Mutex::new(Inner { capacity, ..Inner::default() }),
            notify: Notify::new(),
        });
        (Self { queue: queue.clone() }, queue)
    }

    /// Takes up to `max` events that are there. Never blocks and never awaits.
    pub fn drain(&mut self, max: usize) -> Vec<Event> {
        self.queue.lock().drain(max)
    }

    /// Whether the topic was left and every event has been taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.lock().is_ended()
    }

    /// Resolves once an event waits or the end is reached. It borrows nothing, takes nothing and may
    /// be dropped at any time.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static {
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

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
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

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        inner.abandoned = true;
        inner.events = VecDeque::new();
    }
}

/// The shared end of a subscription.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    notify: Notify,
}

impl Queue {
    /// Appends an event; the oldest makes room. False once the subscriber is gone.
    pub(crate) fn push(&self, event: Event) -> bool {
        let mut inner = self.lock();
        if inner.abandoned {
            return false;
        }
        if inner.events.len() >= inner.capacity {
            inner.events.pop_front();
            inner.lost += 1;
        }
        inner.events.push_back(event);
        self.wake(inner);
        true
    }

    /// Whether the subscriber is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// Ends the stream after what is queued.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.wake(inner);
    }

    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.notify.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held; a poisoned queue is still a queue.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    capacity: usize,
    /// Dropped since the last drain; they were older than all that is queued.
    lost: u64,
    closed: bool,
    abandoned: bool,
    waker: Option<Waker>,
}

impl Inner {
    fn drain(&mut self, max: usize) -> Vec<Event> {
        if max == 0 {
            return Vec::new();
        }
        let lost = std::mem::take(&mut self.lost);
        let marker = (lost > 0).then_some(Event::EventsLost(lost));
        let rest = self.events.len().min(max - usize::from(marker.is_some()));
        marker.into_iter().chain(self.events.drain(..rest)).collect()
    }

    fn is_ready(&self) -> bool {
        self.closed || self.lost > 0 || !self.events.is_empty()
    }

    fn is_ended(&self) -> bool {
        self.closed && self.lost == 0 && self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn the_oldest_make_room_and_are_counted_in_their_place() {
        let (mut subscription, queue) = Subscription::new(2);
        for _ in 0..4 {
            assert!(queue.push(Event::Isolated));
        }
        assert!(queue.push(Event::Reconnected));
        assert_eq!(subscription.drain(1), [Event::EventsLost(3)]);
        assert!(queue.push(Event::Isolated));
        assert_eq!(
            subscription.drain(9),
            [Event::EventsLost(1), Event::Reconnected, Event::Isolated]
        );
        assert!(subscription.drain(9).is_empty());
    }

    #[test]
    fn closing_ends_the_stream_after_what_is_queued() {
        let (mut subscription, queue) = Subscription::new(8);
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
        let (subscription, queue) = Subscription::new(8);
        drop(subscription);
        assert!(!queue.push(Event::Isolated));
    }

    #[tokio::test]
    async fn ready_wakes_every_waiter_and_takes_nothing() {
        let (mut subscription, queue) = Subscription::new(8);
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
        let (mut subscription, queue) = Subscription::new(COUNT);
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
