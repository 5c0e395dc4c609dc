//! The streams of an application's own protocols: a reader and a writer.

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
use iroh::endpoint::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    sync::{OnceCell, OwnedSemaphorePermit},
};

use crate::{
    ending,
    error::Error,
    link::handle::LinkGuard,
    metrics::StreamCounters,
    proto::{EndpointId, MAX_REASON},
};

/// Why a stream ended without being finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset the stream, or stopped reading it.
    #[error("the peer reset the stream: {} (code {code})", or_none(.reason))]
    Reset {
        /// The peer's number for the reason. 0 means that the peer dropped its reader.
        code: u32,
        /// The peer's text for the reason; empty if it gave none.
        reason: String,
    },
    /// The link is gone, with the reason.
    #[error("the link is gone: {0}")]
    Link(String),
    /// This end has finished, reset or closed it.
    #[error("the stream is closed")]
    Closed,
}

/// Returns the reason, or words that say that there is none.
fn or_none(reason: &str) -> &str {
    if reason.is_empty() { "no reason" } else { reason }
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
            ReadError::ConnectionLost(error) => Self::Link(ending::text_of(&error)),
            _ => Self::Closed,
        }
    }

    fn stopped(error: StoppedError) -> Self {
        match error {
            StoppedError::ConnectionLost(error) => Self::Link(ending::text_of(&error)),
            StoppedError::ZeroRttRejected => Self::Closed,
        }
    }

    fn write(lease: &Lease, stream: u64, error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::reset(lease, stream, code),
            WriteError::ConnectionLost(error) => Self::Link(ending::text_of(&error)),
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

/// What both halves of a stream share: the link, and their place among its streams.
#[derive(Debug)]
struct Lease {
    guard: LinkGuard,
    /// Is set when the peer was sent the reason why the stream ends: only one reason is sent.
    reason_sent: OnceCell<()>,
    /// True if it was counted as a reset stream.
    is_reset: AtomicBool,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Lease {
    fn counters(&self) -> &StreamCounters {
        &self.guard.counters.streams
    }

    /// Counts a reset of the stream: once, though both halves may report it.
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

/// Checks the code and the reason of a reset: the code is not 0, the reason at most 256 bytes.
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

/// Ends a half once the peer knows the reason; at once if there is no reason to send.
fn end_with(lease: &Arc<Lease>, stream: u64, reason: &str, end: impl FnOnce() + Send + 'static) {
    let Ok(runtime) = Handle::try_current() else { return end() };
    if reason.is_empty() {
        return end();
    }
    let (lease, reason) = (lease.clone(), reason.to_owned());
    runtime.spawn(async move {
        lease.reason_sent.get_or_init(|| lease.guard.send_reason(stream, reason)).await;
        end();
    });
}

/// The reading half of a stream.
///
/// Unread bytes wait within QUIC's window of 1.25 MB, and then the peer's writes wait. If the
/// reader is dropped before the end, the peer's writes fail with code 0.
#[derive(Debug)]
pub struct StreamReader {
    stream: Option<RecvStream>,
    /// The error that ended it. QUIC reports it only once, and after that would report a normal
    /// end.
    failed: Option<StreamError>,
    lease: Arc<Lease>,
}

impl StreamReader {
    /// The peer.
    #[must_use]
    pub fn peer(&self) -> EndpointId {
        self.lease.guard.peer
    }

    /// Counts the stream as opened by this end.
    pub(crate) fn count_opened(&self) {
        self.lease.counters().opened.add(1);
    }

    /// Reads the next bytes, as many as have arrived and fit, and returns their number; 0 at the
    /// end of the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`StreamError`], after all bytes that arrived before it.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        poll_fn(|cx| self.poll_read_some(cx, buffer)).await
    }

    /// Reads as [`Self::read`] does.
    ///
    /// # Errors
    /// As [`Self::read`].
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

    /// Ends reading. The peer's writes fail with code 0.
    pub fn close(&mut self) {
        self.stream = None;
        self.failed = None;
    }

    /// Ends reading, and tells the peer why: its writes fail with this code and reason. If the end
    /// of the stream has arrived already, nothing changes.
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

/// The writing half of a stream.
///
/// If it is dropped, it finishes the stream, and what was written still arrives.
///
/// ```no_run
/// # use iroh_gossip_discovery::{EndpointId, Swarm};
/// # async fn example(swarm: Swarm, peer: EndpointId) -> std::io::Result<()> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (mut reader, mut writer) =
///     swarm.open_stream(peer, "echo/1").await.map_err(std::io::Error::other)?;
/// writer.write_all(b"hello").await?;
/// writer.finish();
/// let mut answer = Vec::new();
/// reader.read_to_end(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
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

    /// Writes some of the bytes, removes them from `data`, and returns their number. Waits while
    /// the peer does not read, or while the link sends more urgent frames. If the future is
    /// dropped, nothing was written.
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

    /// Ends the stream in this direction. What was written still arrives.
    pub fn finish(&mut self) {
        if let Some(stream) = &mut self.stream {
            // It may have ended already.
            let _ = stream.finish();
        }
    }

    /// Resets the stream, with a reason for the peer. Bytes that have not arrived yet may be lost.
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

    /// Waits until the peer resets the stream or the link is gone, and returns the error of the
    /// next write.
    pub fn stopped(&self) -> impl Future<Output = StreamError> + Send + use<> {
        let stopped = self.stream.as_ref().map(|stream| (stream.stopped(), stream.id()));
        let lease = Arc::downgrade(&self.lease);
        async move {
            let Some((stopped, id)) = stopped else { return StreamError::Closed };
            match (stopped.await, lease.upgrade()) {
                (Ok(Some(code)), Some(lease)) => StreamError::reset(&lease, id.into(), code),
                (Err(error), _) => StreamError::stopped(error),
                _ => StreamError::Closed,
            }
        }
    }

    /// Waits until the peer's endpoint has all bytes up to [`Self::finish`], or until its
    /// application stops reading.
    ///
    /// # Errors
    /// [`StreamError`], if the peer reset the stream or the link was lost before that.
    pub async fn finished(&mut self) -> Result<(), StreamError> {
        let stream = self.stream.as_ref().ok_or(StreamError::Closed)?;
        match stream.stopped().await {
            Ok(Some(code)) if code != VarInt::from_u32(0) => {
                Err(StreamError::reset(&self.lease, stream.id().into(), code))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(StreamError::stopped(error)),
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let _ = stream.finish();
        // Outside of a runtime, no task is left that could close the link.
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

/// Makes the two halves of a stream.
pub(crate) fn halves(
    guard: LinkGuard,
    send: SendStream,
    recv: RecvStream,
    permits: impl IntoIterator<Item = OwnedSemaphorePermit>,
) -> (StreamReader, StreamWriter) {
    guard.counters.streams.open.add(1);
    guard.widen();
    let lease = Arc::new(Lease {
        guard,
        reason_sent: OnceCell::new(),
        is_reset: AtomicBool::new(false),
        _permits: permits.into_iter().collect(),
    });
    let reader = StreamReader { stream: Some(recv), failed: None, lease: lease.clone() };
    (reader, StreamWriter { stream: Some(send), lease })
}
