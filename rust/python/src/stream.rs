//! The two halves of a stream: taking and giving bytes never waits, and waiting moves no bytes.
//!
//! A read takes what has arrived, many packets in one crossing. A write is queued, and a task moves
//! it to the link as fast as the peer reads. So Python waits only for room.

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
/// Most bytes that a read takes under the lock of the link at a time, because arriving packets wait
/// for that lock.
const SLICE: usize = 16 * 1024;
/// The room for what arrives while a read waits: one packet.
const FIRST: usize = 2048;
/// Writes smaller than this are combined.
const SMALL: usize = 16 * 1024;
/// Most bytes that wait in a writer.
const MAX_WAITING: usize = 64 * 1024 * 1024;

thread_local! {
    /// The buffer in which a read gathers packets, to make one `bytes` of them.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes the code and the reason of a reset, within their limits.
fn reset_arguments(code: &Bound<'_, PyAny>, reason: &Bound<'_, PyAny>) -> PyResult<(u32, String)> {
    let py = code.py();
    let code = extract::bounded("code", code)?;
    let code = u32::try_from(code).map_err(|_| {
        error::invalid(py, "code", &format!("is {code}, must be 1 to {}", u32::MAX))
    })?;
    let reason = extract::text("reason", reason)?;
    core::check_reset(code, &reason).map_err(|error| error::raise(py, error))?;
    Ok((code, reason))
}

/// Makes both halves of a stream for Python. To be called within the runtime only.
pub(crate) fn halves(reader: StreamReader, writer: StreamWriter) -> (Reader, Writer) {
    (Reader::new(reader), Writer::new(writer))
}

/// Converts a stream that a peer opened.
pub(crate) fn convert(py: Python<'_>, stream: core::IncomingStream) -> PyResult<Option<Py<PyAny>>> {
    let _within = Bridge::get(py)?.enter();
    halves(stream.reader, stream.writer).into_py_any(py).map(Some)
}

/// The reading half of a stream.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Reader(AtHome<ReaderInner>);

struct ReaderInner {
    peer: EndpointId,
    incoming: Arc<Mutex<Incoming>>,
    waiter: Waiter,
}

struct Incoming {
    /// The reader; `None` after the end or an error, because it takes a place among the link's
    /// streams.
    reader: Option<StreamReader>,
    /// The bytes that arrived while a read waited.
    first: Vec<u8>,
    /// How the stream ended.
    end: Result<(), StreamError>,
    /// The waker of the waiting read.
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
    /// Reads what has arrived, into a buffer that is not empty. Returns `None` if nothing has.
    fn take(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, StreamError> {
        let held = self.first.len().min(buffer.len());
        buffer[..held].copy_from_slice(&self.first[..held]);
        self.first.drain(..held);
        // QUIC keeps only one waker for a stream, so this must be the one of the read that waits.
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
                // An error is reported again at the next read.
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

    /// Ends reading, and returns the reader.
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

    /// Takes up to `limit` bytes that have arrived; `b""` at the end, `None` if there are none yet.
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

    /// Calls `callback()` once, on the loop, as soon as there is something to take.
    fn arm(&self, py: Python<'_>, event_loop: Py<PyAny>, callback: Py<PyAny>) -> PyResult<()> {
        let inner = self.0.get()?;
        let incoming = inner.incoming.clone();
        let ready = poll_fn(move |cx| lock(&incoming).poll_ready(cx));
        inner.waiter.arm(Bridge::get(py)?, ready, event_loop, callback);
        Ok(())
    }

    /// Ends reading, and tells the peer why.
    fn stop(&self, code: &Bound<'_, PyAny>, reason: &Bound<'_, PyAny>) -> PyResult<()> {
        let (inner, py) = (self.0.get()?, code.py());
        let (code, reason) = reset_arguments(code, reason)?;
        // The reason is sent by a task, so this must be within the runtime.
        let _within = Bridge::get(py)?.enter();
        let reader = lock(&inner.incoming).close();
        match reader {
            Some(mut reader) => reader.stop(code, &reason).map_err(|error| error::raise(py, error)),
            None => Ok(()),
        }
    }

    /// Ends reading, without a reason for the peer.
    fn close(&self) -> PyResult<()> {
        lock(&self.0.get()?.incoming).close();
        Ok(())
    }
}

/// The writing half of a stream.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Writer(AtHome<WriterInner>);

struct WriterInner {
    peer: EndpointId,
    outgoing: Arc<Outgoing>,
    waiter: Waiter,
}

/// The bytes that wait to be sent, shared by Python and the task that sends them.
#[derive(Default)]
struct Outgoing {
    queue: Mutex<Queue>,
    /// Wakes the task that sends.
    changed: Notify,
    /// Wakes callers that wait for room, or for the end.
    moved: Notify,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    /// Combined small writes, which come after the chunks.
    tail: BytesMut,
    /// The number of bytes that the link has not taken yet.
    waiting: usize,
    finish: bool,
    reset: Option<(u32, String)>,
    /// How the stream ended; `None` before.
    ended: Option<Result<(), StreamError>>,
}

/// The next step of the task that sends.
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
        // Dropping the writer finishes the stream, so that what was written still arrives.
        self.outgoing.queue().finish = true;
        self.outgoing.changed.notify_one();
    }
}

/// Moves queued bytes to the link, until the stream ends.
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
                // The code and the reason were checked when they were queued.
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

    /// Waits until a condition holds for the queue, and checks it at each call of `notify`.
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

    /// Queues bytes, and returns how many wait now.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let inner = self.0.get()?;
        let waiting = extract::with_bytes("data", data, |data| inner.push(py, data))??;
        inner.outgoing.changed.notify_one();
        Ok(waiting)
    }

    /// Returns how many bytes wait. Raises the error that ended the stream.
    fn waiting(&self, py: Python<'_>) -> PyResult<usize> {
        let inner = self.0.get()?;
        let queue = inner.outgoing.queue();
        match &queue.ended {
            Some(Err(error)) => Err(error::OfStream(inner.peer, error.clone()).raise(py)),
            _ => Ok(queue.waiting),
        }
    }

    /// Calls `callback()` once, on the loop, as soon as at most `below` bytes wait or the stream
    /// has ended.
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

    /// Resets the stream in this direction, and drops what is queued.
    fn reset(&self, code: &Bound<'_, PyAny>, reason: &Bound<'_, PyAny>) -> PyResult<()> {
        let inner = self.0.get()?;
        let reset = reset_arguments(code, reason)?;
        inner.outgoing.queue().reset.get_or_insert(reset);
        inner.outgoing.changed.notify_one();
        Ok(())
    }

    /// Resolves once the stream has ended in this direction. Raises the error if it did not end in
    /// order.
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
                // The peer dropped its reader, which is an end in order too.
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
                "is {} bytes, {} more wait, the limit is {MAX_WAITING} together: await drain()",
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
    // No panic can leave the queue half-changed, so a poisoned lock does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
