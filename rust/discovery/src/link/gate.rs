//! The gate that lets a link's control frames go first.
//!
//! All streams of a connection share the room for bytes that are not acknowledged yet. QUIC sends
//! what is in there by priority. But which stream gets room that comes free is chance. So while
//! control waits for room, no other stream may take it.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use iroh::endpoint::{SendStream, WriteError};

/// How many writers of control wait for room, and the streams that must wait for them.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    urgent: usize,
    /// The wakers of waiting streams, by the stream's number.
    waiting: BTreeMap<u64, Waker>,
}

impl Gate {
    /// Shuts the gate until the guard is dropped.
    pub(crate) fn shut(&self) -> Urgent<'_> {
        self.lock().urgent += 1;
        Urgent(self)
    }

    /// Writes to a stream once the gate is open, and returns how many bytes were written. If the
    /// future is dropped before it ends, nothing was written.
    pub(crate) async fn write(
        &self,
        stream: &mut SendStream,
        data: &mut Bytes,
    ) -> Result<usize, WriteError> {
        let id = u64::from(stream.id());
        let _leave = Leave(self, id);
        poll_fn(|cx| {
            if self.poll_open(id, cx).is_pending() {
                return Poll::Pending;
            }
            let mut one = std::slice::from_mut(data);
            let mut write = std::pin::pin!(stream.write_many_chunks(&mut one));
            write.as_mut().poll(cx)
        })
        .await
    }

    /// Writes to a stream once the gate is open.
    pub(crate) fn poll_write(
        &self,
        stream: &mut SendStream,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        if self.poll_open(u64::from(stream.id()), cx).is_pending() {
            return Poll::Pending;
        }
        Pin::new(stream).poll_write(cx, data)
    }

    /// Writes all bytes, in as many pieces as that takes.
    pub(crate) async fn write_all(
        &self,
        stream: &mut SendStream,
        mut data: Bytes,
    ) -> Result<(), WriteError> {
        while !data.is_empty() {
            self.write(stream, &mut data).await?;
        }
        Ok(())
    }

    fn poll_open(&self, id: u64, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.urgent == 0 {
            return Poll::Ready(());
        }
        inner.waiting.insert(id, cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No panic can leave a counter and wakers half-changed, so a poisoned lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the gate shut until it is dropped.
#[derive(Debug)]
pub(crate) struct Urgent<'a>(&'a Gate);

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.urgent -= 1;
        if inner.urgent == 0 {
            let waiting = std::mem::take(&mut inner.waiting);
            drop(inner);
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

/// Removes the waker of a stream when its write ends or is dropped.
struct Leave<'a>(&'a Gate, u64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        if !inner.waiting.is_empty() {
            inner.waiting.remove(&self.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn waiting_streams_are_woken_when_nothing_is_urgent_any_more() {
        let (gate, count) = (Gate::default(), Arc::new(Count(AtomicUsize::new(0))));
        let waker = count.clone().into();
        let cx = Context::from_waker(&waker);
        assert!(gate.poll_open(1, &cx).is_ready());
        let (first, second) = (gate.shut(), gate.shut());
        assert!(gate.poll_open(1, &cx).is_pending() && gate.poll_open(2, &cx).is_pending());
        drop(first);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        drop(Leave(&gate, 2));
        drop(second);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(gate.poll_open(1, &cx).is_ready());
    }
}
