//! The two ends of a stream: bytes are taken and given without waiting, and waiting moves none.
//!
//! A read takes what has arrived, many packets in one crossing. A write is queued, and a task moves it
//! to the link, as fast as the peer reads; Python waits only for room.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use iroh_gossip_discovery::{self as core, EndpointId, StreamError, StreamReader, StreamWriter};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyBytes};
use tokio::sync::Notify;

use crate::{
    bridge::{Bridge, Waiter},
    error::{self, Raise},
    extract,
    fork::AtHome,
};

/// Most bytes of one read.
const TAKE: usize = 256 * 1024;
/// Most bytes for which a read holds the lock of the link at a time: what arrives has to wait for it.
const SLICE: usize = 16 * 1024;
/// Room for what comes while a read waits: a packet.
const FIRST: usize = 2048;
/// Writes smaller than this are put together.
const SMALL: usize = 16 * 1024;
/// Most bytes that wait in a writer.
const MAX_WAITING: usize = 64 * 1024 * 1024;

thread_local! {
    /// Where a read gathers packets, to become one `bytes`.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The numbers and words of a reset, within their limits.
fn reset_arguments(code: &Bound<'_, PyAny>, reason: &Bound<'_, PyAny>) -> PyResult<(u32, String)> {
    let py = code.py();
    let code = extract::number("code", code)?;
    let code = u32::try_from(code).map_err(|_| {
        error::invalid(py, "code", &format!("is {code}, must be 1 to {}", u32::MAX))
    })?;
    let reason = extract::text("reason", reason)?;
    core::check_reset(code, &reason).map_err(|error| error::raise(py, error))?;
    Ok((code, reason))
}

/// Both ends of a stream, as Python holds them. Within the runtime only.
pub(crate) fn halves(reader: StreamReader, writer: StreamWriter) -> (Reader, Writer) {
    (Reader::new(reader), Writer::new(writer))
}

/// The ends of a stream that a peer opened, if it is one.
pub(crate) fn convert(py: Python<'_>, stream: core::IncomingStream) -> PyResult<Option<Py<PyAny>>> {
    let _within = Bridge::get(py)?.enter();
    halves(stream.reader, stream.writer).into_py_any(py).map(Some)
}

/// What is read of a stream.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Reader(AtHome<ReaderInner>);

struct ReaderInner {
    peer: EndpointId,
    incoming: Arc<Mutex<Incoming>>,
    waiter: Waiter,
}

struct Incoming {
    /// Until its end, or what came instead: it has a place among the link's streams.
    reader: Option<StreamReader>,
    /// What came while a read waited.
    first: Vec<u8>,
    /// How it ended.
    end: Result<(), StreamError>,
    /// Of who waits.
    waker: Option<Waker>,
}

impl Reader {
    fn new(reader: StreamReader) -> Self {
        let peer = reader.peer();
        let incoming =
            Incoming { reader: Some(reader), first: Vec::new(), end: Ok(()), waker: None };
        let incoming = Arc::new(Mutex::new(incoming));
        Self(AtHome::new(ReaderInner { peer, incoming, waiter: Waiter::default() }))
    }
}

impl Incoming {
    /// Reads what is there, into all of a buffer that is not empty.
    fn take(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, StreamError> {
        let held = self.first.len().min(buffer.len());
        buffer[..held].copy_from_slice(&self.first[..held]);
        self.first.drain(..held);
        // QUIC keeps one waker for a stream: who waits for it must not be forgotten.
        let waker = self.waker.clone().unwrap_or_else(|| Waker::noop().clone());
        let mut filled = held;
        for slice in buffer[held..].chunks_mut(SLICE) {
            match self.poll_read(&mut Context::from_waker(&waker), slice) {
                Poll::Ready(Ok(read)) => {
                    filled += read;
                    if read < slice.len() {
                        break;
                    }
                }
                Poll::Pending if filled == 0 => return Ok(None),
                Poll::Ready(Err(error)) if filled == 0 => return Err(error),
                // It is said again at the next read.
                Poll::Pending | Poll::Ready(Err(_)) => break,
            }
        }
        Ok(Some(filled))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        let Some(reader) = &mut self.reader else {
            return Poll::Ready(self.end.clone().map(|()| 0));
        };
        let read = ready!(reader.poll_read_some(cx, buffer));
        if !matches!(read, Ok(1..)) {
            self.reader = None;
            self.end = read.clone().map(drop);
        }
        Poll::Ready(read)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.first.is_empty() {
            return Poll::Ready(());
        }
        let mut packet = [0; FIRST];
        let Poll::Ready(read) = self.poll_read(cx, &mut packet) else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.first.extend_from_slice(&packet[..read.unwrap_or(0)]);
        self.waker = None;
        Poll::Ready(())
    }

    /// Ends it here: nothing more is read.
    fn close(&mut self) -> Option<StreamReader> {
        self.first = Vec::new();
        self.end = Ok(());
        self.reader.take()
    }
}

#[pymethods]
impl Reader {
    /// The endpoint id of the peer.
    #[getter]
    fn peer(&self) -> PyResult<String> {
        Ok(self.0.get()?.peer.to_string())
    }

    /// Takes up to `limit` bytes that are there; `b""` at the end, `None` where there is nothing yet.
    fn take<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let inner = self.0.get()?;
        let limit = limit.clamp(1, TAKE);
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < limit {
                scratch.resize(limit, 0);
            }
            let buffer = &mut scratch[..limit];
            let taken = py.detach(|| lock(&inner.incoming).take(buffer));
            match taken {
                Ok(taken) => Ok(taken.map(|length| PyBytes::new(py, &buffer[..length]))),
                Err(error) => Err(error::OfStream(inner.peer, error).raise(py)),
            }
        })
    }

    /// Has `callback()` called once, on the loop, when there is something to take.
    fn arm(&self, py: Python<'_>, event_loop: Py<PyAny>, callback: Py<PyAny>) -> PyResult<()> {
        let inner = self.0.get()?;
        let incoming = inner.incoming.clone();
        let ready = poll_fn(move |cx| lock(&incoming).poll_ready(cx));
        inner.waiter.arm(Bridge::get(py)?, ready, event_loop, callback);
        Ok(())
    }

    /// Reads no more, and tells the peer why.
    fn stop(&self, code: &Bound<'_, PyAny>, reason: &Bound<'_, PyAny>) -> PyResult<()> {
        let (inner, py) = (self.0.get()?, code.py());
        let (code, reason) = reset_arguments(code, reason)?;
        // Who tells the reason does so within the runtime.
        let _within = Bridge::get(py)?.enter();
        let reader = lock(&inner.incoming).close();
        match reader {
            Some(mut reader) => reader.stop(code, &reason).map_err(|error| error::raise(py, error)),
            None => Ok(()),
        }
    }

    /// Reads no more; the peer hears only that.
    fn close(&self) -> PyResult<()> {
        lock(&self.0.get()?.incoming).close();
        Ok(())
    }
}

/// What is written to a stream.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Writer(AtHome<WriterInner>);

struct WriterInner {
    peer: EndpointId,
    outgoing: Arc<Outgoing>,
    waiter: Waiter,
}

/// What waits to be sent, between Python and the task that sends it.
#[derive(Default)]
struct Outgoing {
    queue: Mutex<Queue>,
    /// Wakes the task.
    changed: Notify,
    /// Wakes who waits for room, or for the end.
    moved: Notify,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    /// Small writes, after the chunks.
    tail: BytesMut,
    /// How many bytes the link has not taken yet.
    waiting: usize,
    finish: bool,
    reset: Option<(u32, String)>,
    /// How the stream ended, once it has.
    ended: Option<Result<(), StreamError>>,
}

/// What the task does next.
enum Step {
    Write(Bytes),
    Finish,
    Reset(u32, String),
}

impl Writer {
    fn new(writer: StreamWriter) -> Self {
        let (peer, outgoing) = (writer.peer(), Arc::<Outgoing>::default());
        tokio::spawn(send(writer, outgoing.clone()));
        Self(AtHome::new(WriterInner { peer, outgoing, waiter: Waiter::default() }))
    }
}

impl Drop for WriterInner {
    fn drop(&mut self) {
        // What was written still arrives.
        self.outgoing.queue().finish = true;
        self.outgoing.changed.notify_one();
    }
}

/// Moves what is written to the link, until its end.
async fn send(mut writer: StreamWriter, outgoing: Arc<Outgoing>) {
    let result = loop {
        let step = tokio::select! {
            biased;
            step = outgoing.next() => step,
            error = writer.stopped() => break Err(error),
        };
        match step {
            Step::Write(data) => {
                if let Err(error) = write(&mut writer, data, &outgoing).await {
                    break Err(error);
                }
            }
            Step::Finish => {
                writer.finish();
                let reset = outgoing.wait_for(&outgoing.changed, |queue| queue.reset.is_some());
                tokio::select! {
                    finished = writer.finished() => break finished,
                    () = reset => {}
                }
            }
            Step::Reset(code, reason) => {
                // It was checked when it was asked for.
                let _ = writer.reset(code, &reason);
                break Err(StreamError::Closed);
            }
        }
    };
    let mut queue = outgoing.queue();
    queue.chunks.clear();
    queue.tail = BytesMut::new();
    queue.waiting = 0;
    queue.ended = Some(result);
    drop(queue);
    outgoing.moved.notify_waiters();
}

/// Writes all of a chunk, unless the stream is reset meanwhile.
async fn write(
    writer: &mut StreamWriter,
    mut data: Bytes,
    outgoing: &Outgoing,
) -> Result<(), StreamError> {
    while !data.is_empty() {
        let reset = outgoing.wait_for(&outgoing.changed, |queue| queue.reset.is_some());
        let written = tokio::select! {
            written = writer.write_chunk(&mut data) => written?,
            () = reset => return Ok(()),
        };
        outgoing.queue().waiting -= written;
        outgoing.moved.notify_waiters();
    }
    Ok(())
}

impl Outgoing {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    async fn next(&self) -> Step {
        let mut next = None;
        self.wait_for(&self.changed, |queue| {
            next = queue.next();
            next.is_some()
        })
        .await;
        next.expect("that was waited for")
    }

    /// Waits until something holds of the queue, which `notify` says when to look at.
    async fn wait_for(&self, notify: &Notify, mut holds: impl FnMut(&mut Queue) -> bool) {
        let mut notified = pin!(notify.notified());
        loop {
            notified.as_mut().enable();
            if holds(&mut self.queue()) {
                return;
            }
            notified.as_mut().await;
            notified.set(notify.notified());
        }
    }
}

impl Queue {
    fn push(&mut self, data: &[u8]) {
        self.waiting += data.len();
        if data.len() < SMALL {
            self.tail.extend_from_slice(data);
            if self.tail.len() < SMALL {
                return;
            }
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        if data.len() >= SMALL {
            self.chunks.push_back(Bytes::copy_from_slice(data));
        }
    }

    fn next(&mut self) -> Option<Step> {
        if let Some((code, reason)) = self.reset.clone() {
            return Some(Step::Reset(code, reason));
        }
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(Step::Write(chunk));
        }
        if !self.tail.is_empty() {
            return Some(Step::Write(self.tail.split().freeze()));
        }
        self.finish.then_some(Step::Finish)
    }
}

#[pymethods]
impl Writer {
    /// The endpoint id of the peer.
    #[getter]
    fn peer(&self) -> PyResult<String> {
        Ok(self.0.get()?.peer.to_string())
    }

    /// Queues bytes; how many wait now.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let inner = self.0.get()?;
        let waiting = extract::with_bytes("data", data, |data| inner.push(py, data))??;
        inner.outgoing.changed.notify_one();
        Ok(waiting)
    }

    /// How many bytes wait; raises what ended the stream.
    fn waiting(&self, py: Python<'_>) -> PyResult<usize> {
        let inner = self.0.get()?;
        let queue = inner.outgoing.queue();
        match &queue.ended {
            Some(Err(error)) => Err(error::OfStream(inner.peer, error.clone()).raise(py)),
            _ => Ok(queue.waiting),
        }
    }

    /// Has `callback()` called once, on the loop, when at most `below` bytes wait, or the stream has ended.
    fn arm(
        &self,
        py: Python<'_>,
        event_loop: Py<PyAny>,
        callback: Py<PyAny>,
        below: usize,
    ) -> PyResult<()> {
        let inner = self.0.get()?;
        let outgoing = inner.outgoing.clone();
        let ready = async move {
            let roomy = |queue: &mut Queue| queue.waiting <= below || queue.ended.is_some();
            outgoing.wait_for(&outgoing.moved, roomy).await;
        };
        inner.waiter.arm(Bridge::get(py)?, ready, event_loop, callback);
        Ok(())
    }

    /// Ends the stream in this direction, after what is queued.
    fn finish(&self) -> PyResult<()> {
        let inner = self.0.get()?;
        inner.outgoing.queue().finish = true;
        inner.outgoing.changed.notify_one();
        Ok(())
    }

    /// Gives the stream up in this direction, with what is queued.
    fn reset(&self, code: &Bound<'_, PyAny>, reason: &Bound<'_, PyAny>) -> PyResult<()> {
        let inner = self.0.get()?;
        let reset = reset_arguments(code, reason)?;
        inner.outgoing.queue().reset.get_or_insert(reset);
        inner.outgoing.changed.notify_one();
        Ok(())
    }

    /// Resolves once the stream has ended in this direction; raises what ended it other than that.
    fn ended<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.0.get()?;
        let (peer, outgoing) = (inner.peer, inner.outgoing.clone());
        Bridge::get(py)?.abortable(py, async move {
            let mut ended = None;
            outgoing
                .wait_for(&outgoing.moved, |queue| {
                    ended.clone_from(&queue.ended);
                    ended.is_some()
                })
                .await;
            match ended {
                // Nobody reads there any more: that is an end, too.
                Some(Err(StreamError::Reset { code: 0, .. }) | Ok(())) | None => Ok(()),
                Some(Err(error)) => Err(error::OfStream(peer, error)),
            }
        })
    }
}

impl WriterInner {
    fn push(&self, py: Python<'_>, data: &[u8]) -> PyResult<usize> {
        let mut queue = self.outgoing.queue();
        if let Some(Err(error)) = &queue.ended {
            return Err(error::OfStream(self.peer, error.clone()).raise(py));
        }
        let waiting = queue.waiting + data.len();
        if waiting > MAX_WAITING {
            let reason = format!(
                "{} bytes to those {} that wait would be over the limit of {MAX_WAITING}: await drain()",
                data.len(),
                queue.waiting
            );
            return Err(error::invalid(py, "data", &reason));
        }
        queue.push(data);
        Ok(waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Bytes in a queue are sound after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
