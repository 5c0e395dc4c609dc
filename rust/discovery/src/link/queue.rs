//! The bounded queue between the actor and the writer of one lane.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::frame::MAX_FRAME;

/// Why a queue takes no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// The limit of frames or bytes is reached, because the peer reads too slowly.
    Full,
    /// The writer has ended, because the link closes or the peer stopped the stream.
    Closed,
}

/// A bounded queue of frames: bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct Queue {
    frames: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

pub(super) struct Queued {
    pub(super) frames: mpsc::Receiver<Bytes>,
    pub(super) bytes: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn new(frames: usize, limit: usize) -> (Self, Queued) {
        let (tx, rx) = mpsc::channel(frames);
        let bytes = Arc::new(AtomicUsize::new(0));
        (Self { frames: tx, bytes: bytes.clone(), limit }, Queued { frames: rx, bytes })
    }

    pub(super) fn push(&self, frame: Bytes) -> Result<(), NotQueued> {
        let length = frame.len();
        debug_assert!((1..=MAX_FRAME).contains(&length), "a frame of {length} bytes");
        if self.frames.is_closed() {
            return Err(NotQueued::Closed);
        }
        if self.bytes.load(Ordering::Relaxed) + length > self.limit {
            return Err(NotQueued::Full);
        }
        // Counted before the push, because the writer may take the frame and subtract its bytes at
        // once.
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.frames.try_send(frame).map_err(|error| {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => NotQueued::Full,
                TrySendError::Closed(_) => NotQueued::Closed,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = 256;

    #[test]
    fn a_queue_is_bounded_in_frames_and_in_bytes() {
        let (queue, queued) = Queue::new(FRAMES, usize::MAX);
        for _ in 0..FRAMES {
            queue.push(Bytes::from_static(b"x")).unwrap();
        }
        assert_eq!(queue.push(Bytes::from_static(b"x")), Err(NotQueued::Full));
        drop(queued);
        assert_eq!(queue.push(Bytes::from_static(b"x")), Err(NotQueued::Closed));

        let (queue, queued) = Queue::new(FRAMES, 3 * MAX_FRAME);
        let frame = Bytes::from(vec![0; MAX_FRAME]);
        for _ in 0..3 {
            queue.push(frame.clone()).unwrap();
        }
        assert_eq!(queue.push(Bytes::from_static(b"x")), Err(NotQueued::Full));
        assert_eq!(queued.bytes.load(Ordering::Relaxed), 3 * MAX_FRAME);
    }
}
