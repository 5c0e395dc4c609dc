//! Frames on a stream: a length (u32, big endian), then that many bytes.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::memory::{Filled, OverLimit};
pub(crate) use crate::proto::MAX_FRAME;

/// Once a frame has begun, the rest of it must arrive within this time.
pub(crate) const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER: usize = 4;
/// The room for each read. The length that a frame claims reserves nothing, because it costs the
/// peer nothing to claim much.
const READ: usize = 4 * 1024;

/// Appends a frame to a buffer.
pub(crate) fn put(frame: &[u8], out: &mut BytesMut) {
    debug_assert!((1..=MAX_FRAME).contains(&frame.len()));
    out.reserve(HEADER + frame.len());
    out.put_u32(u32::try_from(frame.len()).expect("a frame is at most 64 KiB"));
    out.put_slice(frame);
}

/// Why there is no next frame.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// A length of 0 or over [`MAX_FRAME`], or half a frame at the end of the stream.
    Broken(&'static str),
    /// Half a frame for longer than [`FRAME_TIMEOUT`].
    Late,
    /// A limit on half-received frames and messages is reached.
    OverLimit,
    /// The stream or the connection failed.
    Io(io::Error),
}

/// Returns the length in a header, if it is 1 to `limit`.
fn length(header: [u8; HEADER], limit: usize) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    (1..=limit).contains(&length).then_some(length)
}

/// The peer's words may be a part of the error, so it is shown as escapes.
fn why(error: &std::io::Error) -> String {
    error.to_string().escape_debug().to_string()
}

/// Reads one frame of at most `limit` bytes, and not a byte beyond it.
pub(crate) async fn read_one(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<Bytes, String> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.map_err(|error| why(&error))?;
    let length =
        length(header, limit).ok_or_else(|| format!("a frame of 0 or more than {limit} bytes"))?;
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await.map_err(|error| why(&error))?;
    Ok(frame.into())
}

/// Reads the frames of a stream.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// The bytes of a frame that is not complete yet.
    half: Filled,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R, half: Filled) -> Self {
        Self { stream, buffer: BytesMut::new(), half }
    }

    /// Returns the next frame; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(frame) = self.take()? {
            return Ok(Some(frame));
        }
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        timeout(FRAME_TIMEOUT, async {
            loop {
                if let Some(frame) = self.take()? {
                    let _ = self.half.set(0);
                    return Ok(Some(frame));
                }
                self.half.set(self.buffer.len()).map_err(|OverLimit| FrameError::OverLimit)?;
                if self.fill().await? == 0 {
                    return Err(FrameError::Broken("the stream ends in the middle of a frame"));
                }
            }
        })
        .await
        .unwrap_or(Err(FrameError::Late))
    }

    async fn fill(&mut self) -> Result<usize, FrameError> {
        self.buffer.reserve(READ);
        self.stream.read_buf(&mut self.buffer).await.map_err(FrameError::Io)
    }

    fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = length(*header, MAX_FRAME)
            .ok_or(FrameError::Broken("a frame of 0 or more than 65,536 bytes"))?;
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{
        memory::{INCOMPLETE, Memory},
        proto::EndpointId,
    };

    fn half() -> Filled {
        Memory::new(INCOMPLETE, |_| true).link(EndpointId::from_bytes([1; 32])).stream()
    }

    fn frames(lengths: &[usize]) -> (Vec<Bytes>, BytesMut) {
        let frames: Vec<_> = lengths.iter().map(|n| Bytes::from(vec![7_u8; *n])).collect();
        let mut out = BytesMut::new();
        for frame in &frames {
            put(frame, &mut out);
        }
        (frames, out)
    }

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (expected, bytes) = frames(&[1, 2, 300, MAX_FRAME, 5000, 1]);
        for piece in [1_usize, 3, 4, 7, 1000, 70_000] {
            let (mut tx, rx) = tokio::io::duplex(512);
            let bytes = bytes.clone();
            let writer = tokio::spawn(async move {
                for piece in bytes.chunks(piece) {
                    tx.write_all(piece).await.unwrap();
                }
            });
            let mut reader = FrameReader::new(rx, half());
            for frame in &expected {
                assert_eq!(reader.next().await.unwrap().as_ref(), Some(frame));
            }
            assert!(reader.next().await.unwrap().is_none());
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
        for length in [0, u32::try_from(MAX_FRAME).unwrap() + 1, u32::MAX] {
            let (mut tx, rx) = tokio::io::duplex(512);
            tx.write_all(&length.to_be_bytes()).await.unwrap();
            let mut reader = FrameReader::new(rx, half());
            assert!(matches!(reader.next().await, Err(FrameError::Broken(_))), "{length}");
            assert!(reader.buffer.capacity() <= 2 * READ);
        }
    }

    #[tokio::test]
    async fn half_a_frame_at_the_end_is_an_error() {
        let (mut tx, rx) = tokio::io::duplex(512);
        tx.write_all(&[0, 0, 0, 5, 1, 2]).await.unwrap();
        drop(tx);
        assert!(matches!(FrameReader::new(rx, half()).next().await, Err(FrameError::Broken(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_frame_is_not_waited_for_for_ever_but_silence_is() {
        let (mut tx, rx) = tokio::io::duplex(512);
        let mut reader = FrameReader::new(rx, half());
        assert!(timeout(FRAME_TIMEOUT * 100, reader.next()).await.is_err());
        tx.write_all(&[0, 0, 0, 5, 1]).await.unwrap();
        let start = tokio::time::Instant::now();
        assert!(matches!(reader.next().await, Err(FrameError::Late)));
        assert!(start.elapsed() >= FRAME_TIMEOUT && start.elapsed() < FRAME_TIMEOUT * 2);
    }
}
