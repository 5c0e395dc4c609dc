//! The writing half of a link: one stream for each lane, opened when its first frame is queued.

use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use iroh::endpoint::{Connection, SendStream};

use super::{gate::Gate, lane, queue::Queued};
use crate::{frame, proto::Lane};

/// Most bytes that are combined into one write.
const WRITE: usize = 64 * 1024;

/// Writes all lanes until their queues end, and until the peer has acknowledged everything.
pub(super) async fn write(
    connection: &Connection,
    gate: &Gate,
    [control, sync, broadcast]: [Queued; 3],
) -> Result<(), Stopped> {
    let stream = connection.open_uni().await.map_err(|_| Stopped)?;
    // The control stream is opened first, so that its number is the lowest, whichever lane writes
    // first.
    let control = write_lane(stream, gate, Lane::Control, control);
    let later = |lane, queue: Queued| async move {
        let Some(queued) = queue.first().await else { return Ok(()) };
        let stream = connection.open_uni().await.map_err(|_| Stopped)?;
        write_lane(stream, gate, lane, queued).await
    };
    let (sync, broadcast) = (later(Lane::Sync, sync), later(Lane::Broadcast, broadcast));
    tokio::try_join!(control, sync, broadcast).map(|((), (), ())| ())
}

/// The peer stopped a stream, or the connection is gone.
#[derive(Debug)]
pub(super) struct Stopped;

impl Queued {
    /// Waits for a first frame without taking it. `None` if the queue ends before one is queued.
    async fn first(mut self) -> Option<PeekedQueue> {
        let first = self.frames.recv().await?;
        Some(PeekedQueue { first: Some(first), queued: self })
    }
}

/// A queue of which one frame was taken already, to wait for it.
struct PeekedQueue {
    first: Option<Bytes>,
    queued: Queued,
}

impl From<Queued> for PeekedQueue {
    fn from(queued: Queued) -> Self {
        Self { first: None, queued }
    }
}

async fn write_lane(
    mut stream: SendStream,
    gate: &Gate,
    lane: Lane,
    queue: impl Into<PeekedQueue>,
) -> Result<(), Stopped> {
    let PeekedQueue { mut first, mut queued } = queue.into();
    stream.set_priority(lane::priority(lane)).map_err(|_| Stopped)?;
    let mut buffer = BytesMut::new();
    buffer.put_u8(lane::byte(lane));
    loop {
        let next = match first.take() {
            Some(frame) => Some(frame),
            None => queued.frames.recv().await,
        };
        let Some(frame) = next else { break };
        let mut taken = frame.len();
        frame::put(&frame, &mut buffer);
        while buffer.len() < WRITE {
            let Ok(frame) = queued.frames.try_recv() else { break };
            taken += frame.len();
            frame::put(&frame, &mut buffer);
        }
        let write = buffer.split().freeze();
        if lane == Lane::Control {
            let _urgent = gate.shut();
            stream.write_chunk(write).await.map_err(|_| Stopped)?;
        } else {
            gate.write_all(&mut stream, write).await.map_err(|_| Stopped)?;
        }
        queued.bytes.fetch_sub(taken, Ordering::Relaxed);
    }
    stream.finish().map_err(|_| Stopped)?;
    stream.stopped().await.map(|_| ()).map_err(|_| Stopped)
}
