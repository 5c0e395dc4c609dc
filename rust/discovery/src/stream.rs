//! Streams of an application's own protocols: what is read, and what is written.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use iroh::endpoint::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    sync::{OnceCell, OwnedSemaphorePermit},
};

use crate::{
    error::Error,
    link::handle::LinkGuard,
    metrics::StreamCounters,
    proto::{EndpointId, MAX_REASON},
};

/// Why a stream ended other than by its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer gave it up.
    #[error("the peer reset the stream: {} (code {code})", if .reason.is_empty() { "no reason" } else { .reason })]
    Reset {
        /// The peer's number for the reason; 0: nobody reads there any more.
        code: u32,
        /// The peer's words for it, if it said any.
        reason: String,
    },
    /// The link is gone.
    #[error("the link is gone: {0}")]
    Link(String),
    /// This end has finished or reset it, or reads no more.
    #[error("the stream is closed")]
    Closed,
}

impl StreamError {
    fn reset(lease: &Lease, stream: u64, code: VarInt) -> Self {
        let code = u32::try_from(code.into_inner()).unwrap_or(u32::MAX);
        if code == 0 {
            return Self::Reset { code, reason: String::new() };
        }
        lease.count_reset();
        Self::Reset { code, reason: lease.guard.reason(stream) }
    }

    fn read(lease: &Lease, stream: u64, error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::reset(lease, stream, code),
            ReadError::ConnectionLost(error) => Self::Link(error.to_string()),
            _ => Self::Closed,
        }
    }

    fn write(lease: &Lease, stream: u64, error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::reset(lease, stream, code),
            WriteError::ConnectionLost(error) => Self::Link(error.to_string()),
            _ => Self::Closed,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset { .. } => io::ErrorKind::ConnectionReset,
            StreamError::Link(_) => io::ErrorKind::NotConnected,
            StreamError::Closed => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

/// What both halves of a stream hold: the link, and their place among its streams.
#[derive(Debug)]
struct Lease {
    guard: LinkGuard,
    /// Set once the peer was told why the stream ends.
    told: OnceCell<()>,
    /// Whether it was counted as one that was given up.
    is_reset: AtomicBool,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Lease {
    fn counters(&self) -> &StreamCounters {
        &self.guard.counters.streams
    }

    /// Counts that one of the ends gave the stream up: once, though both halves may say so.
    fn count_reset(&self) {
        if !self.is_reset.swap(true, Ordering::Relaxed) {
            self.counters().reset.add(1);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.counters().open.take_off(1);
    }
}

/// Whether a stream may be given up with this: the code is not 0, the reason at most 256 bytes.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_reset(code: u32, reason: &str) -> Result<(), Error> {
    if code == 0 {
        return Err(Error::invalid("code", "is 0, must be 1 to 4294967295"));
    }
    if reason.len() > MAX_REASON {
        let length = reason.len();
        return Err(Error::invalid(
            "reason",
            format!("is {length} bytes, the limit is {MAX_REASON}"),
        ));
    }
    Ok(())
}

/// Ends a half once the peer knows why: at once, where there is nothing to be told.
fn end_with(lease: &Arc<Lease>, stream: u64, reason: &str, end: impl FnOnce() + Send + 'static) {
    let Ok(runtime) = Handle::try_current() else { return end() };
    if reason.is_empty() {
        return end();
    }
    let (lease, reason) = (lease.clone(), reason.to_owned());
    runtime.spawn(async move {
        lease.told.get_or_init(|| lease.guard.tell_reason(stream, reason)).await;
        end();
    });
}

/// The end of a stream that is read.
///
/// What the peer writes waits within QUIC's window, 1.25 MB, until it is read. Dropped before the
/// end, it tells the peer that nobody reads any more.
#[derive(Debug)]
pub struct StreamReader {
    stream: Option<RecvStream>,
    /// What ended it: QUIC says so once, and would take it for the end after that.
    failed: Option<StreamError>,
    lease: Arc<Lease>,
}

impl StreamReader {
    /// The peer.
    #[must_use]
    pub fn peer(&self) -> EndpointId {
        self.lease.guard.peer
    }

    /// Counts that this end opened the stream.
    pub(crate) fn count_opened(&self) {
        self.lease.counters().opened.add(1);
    }

    /// The next bytes, as many as are there and fit; 0 at the end. Loses nothing if it is dropped.
    ///
    /// # Errors
    /// [`StreamError`], after all that came before it.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        poll_fn(|cx| self.poll_read_some(cx, buffer)).await
    }

    /// As [`Self::read`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_read_some(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(StreamError::Closed)) };
        let id = u64::from(stream.id());
        ready!(stream.poll_read(cx, buffer))
            .inspect(|read| self.lease.counters().bytes_received.add(*read as u64))
            .map_err(|error| {
                let error = StreamError::read(&self.lease, id, error);
                self.failed.insert(error).clone()
            })
            .into()
    }

    /// Reads no more; the peer hears that nobody does.
    pub fn close(&mut self) {
        self.stream = None;
        self.failed = None;
    }

    /// Reads no more, and tells the peer why: its writes fail with that. An end of the stream that
    /// has come already stays one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for code 0 or a reason of more than 256 bytes.
    pub fn stop(&mut self, code: u32, reason: &str) -> Result<(), Error> {
        check_reset(code, reason)?;
        self.failed = None;
        if let Some(mut stream) = self.stream.take() {
            self.lease.count_reset();
            end_with(&self.lease, stream.id().into(), reason, move || {
                // It may have ended already.
                let _ = stream.stop(VarInt::from_u32(code));
            });
        }
        Ok(())
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(self.poll_read_some(cx, buf.initialize_unfilled()))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

/// The end of a stream that is written.
///
/// Dropped, it finishes: what was written still arrives.
#[derive(Debug)]
pub struct StreamWriter {
    stream: Option<SendStream>,
    lease: Arc<Lease>,
}

impl StreamWriter {
    /// The peer.
    #[must_use]
    pub fn peer(&self) -> EndpointId {
        self.lease.guard.peer
    }

    /// Writes some of the bytes and takes them off; waits while the peer does not read, or the link
    /// has more important things to send. Nothing is written if it is dropped.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn write_chunk(&mut self, data: &mut Bytes) -> Result<usize, StreamError> {
        let lease = &self.lease;
        let stream = self.stream.as_mut().ok_or(StreamError::Closed)?;
        let id = u64::from(stream.id());
        let written = lease.guard.gate.write(stream, data).await;
        written
            .inspect(|written| lease.counters().bytes_sent.add(*written as u64))
            .map_err(|error| StreamError::write(lease, id, error))
    }

    /// Ends the stream in this direction; what was written still arrives.
    pub fn finish(&mut self) {
        if let Some(stream) = &mut self.stream {
            // It may have ended already.
            let _ = stream.finish();
        }
    }

    /// Gives the stream up, with a reason for the peer; what has not arrived yet never may.
    ///
    /// # Errors
    /// [`Error::Invalid`] for code 0 or a reason of more than 256 bytes.
    pub fn reset(&mut self, code: u32, reason: &str) -> Result<(), Error> {
        check_reset(code, reason)?;
        if let Some(mut stream) = self.stream.take() {
            self.lease.count_reset();
            end_with(&self.lease, stream.id().into(), reason, move || {
                // It may have ended already.
                let _ = stream.reset(VarInt::from_u32(code));
            });
        }
        Ok(())
    }

    /// Waits until the peer gave the stream up, or the link is gone: what a write would meet.
    pub fn stopped(&self) -> impl Future<Output = StreamError> + Send + use<> {
        let stopped = self.stream.as_ref().map(|stream| (stream.stopped(), stream.id()));
        let lease = Arc::downgrade(&self.lease);
        async move {
            let Some((stopped, id)) = stopped else { return StreamError::Closed };
            match (stopped.await, lease.upgrade()) {
                (Ok(Some(code)), Some(lease)) => StreamError::reset(&lease, id.into(), code),
                (Err(error), _) => StreamError::Link(error.to_string()),
                _ => StreamError::Closed,
            }
        }
    }

    /// Waits until the peer's endpoint has everything up to [`Self::finish`], or nobody reads there
    /// any more.
    ///
    /// # Errors
    /// [`StreamError`], where the peer gave the stream up or the link went first.
    pub async fn finished(&mut self) -> Result<(), StreamError> {
        let stream = self.stream.as_ref().ok_or(StreamError::Closed)?;
        match stream.stopped().await {
            Ok(Some(code)) if code != VarInt::from_u32(0) => {
                Err(StreamError::reset(&self.lease, stream.id().into(), code))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(StreamError::Link(error.to_string())),
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let _ = stream.finish();
        // Outside of a runtime nothing runs any more that could close the link.
        if let Ok(runtime) = Handle::try_current() {
            let lease = self.lease.clone();
            runtime.spawn(async move {
                let _ = stream.stopped().await;
                drop(lease);
            });
        }
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(StreamError::Closed.into()));
        };
        let id = u64::from(stream.id());
        let written = ready!(this.lease.guard.gate.poll_write(stream, cx, buf));
        written
            .inspect(|written| this.lease.counters().bytes_sent.add(*written as u64))
            .map_err(|error| StreamError::write(&this.lease, id, error).into())
            .into()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// Both halves of a stream.
pub(crate) fn halves(
    guard: LinkGuard,
    send: SendStream,
    recv: RecvStream,
    permits: impl IntoIterator<Item = OwnedSemaphorePermit>,
) -> (StreamReader, StreamWriter) {
    guard.counters.streams.open.add(1);
    let lease = Arc::new(Lease {
        guard,
        told: OnceCell::new(),
        is_reset: AtomicBool::new(false),
        _permits: permits.into_iter().collect(),
    });
    let reader = StreamReader { stream: Some(recv), failed: None, lease: lease.clone() };
    (reader, StreamWriter { stream: Some(send), lease })
}
