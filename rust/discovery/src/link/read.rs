//! The reading half of a link: first the hello, then all lanes, each to its end.

use std::sync::Arc;

use futures_util::FutureExt;
use iroh::endpoint::{Connection, RecvStream, VarInt};
use tokio::{io::AsyncReadExt, sync::mpsc, time::timeout};
use tracing::debug;

use super::{
    accept::{Services, serve_requests},
    handle::LinkHandle,
};
use crate::{
    frame::{FRAME_TIMEOUT, FrameError, FrameReader},
    inputs::Input,
    memory::LinkMemory,
    proto::{CloseCode, DropReason, Lane, LinkId},
};

/// Most streams of unknown lanes that a peer may open.
const MAX_UNKNOWN: usize = 8;

/// Why reading ended.
#[derive(Debug)]
pub(super) enum Stop {
    /// The connection is gone.
    Lost,
    /// The peer filled the memory for what is not complete yet.
    Full(DropReason),
    /// The peer broke a rule.
    Fault(CloseCode, &'static str),
}

const fn fault(reason: &'static str) -> Stop {
    Stop::Fault(CloseCode::Protocol, reason)
}

/// Returns a fault for which no peer is banned, because the network may have delayed its bytes.
const fn late(reason: &'static str) -> Stop {
    Stop::Fault(CloseCode::Unresponsive, reason)
}

/// Reads until the link ends or the peer breaks a rule.
pub(super) async fn read(
    id: LinkId,
    handle: &Arc<LinkHandle>,
    services: &Services,
    inputs: &mpsc::Sender<Input>,
) -> Stop {
    let connection = &handle.connection;
    let memory = services.memory.link(handle.peer);
    let result = async {
        let hello = async {
            let mut control = accept(connection).await?;
            match lane(&mut control, connection).await? {
                0 => {}
                _ => return Err(fault("the first stream is not the control stream")),
            }
            let mut control = Reader {
                id,
                lane: Lane::Control,
                connection,
                inputs,
                frames: FrameReader::new(control, memory.stream()),
            };
            if control.step().await? {
                Ok(control)
            } else {
                Err(fault("the control stream ends before the hello"))
            }
        };
        let mut control =
            timeout(FRAME_TIMEOUT, hello).await.map_err(|_| late("no hello in time"))??;
        // The other lanes are read only now, so that no frame precedes the hello.
        let control = async {
            while control.step().await? {}
            match timeout(FRAME_TIMEOUT, connection.closed()).await {
                Ok(_) => Err(Stop::Lost),
                Err(_) => Err(late("the control stream ended, the link did not")),
            }
        };
        // Each lane is read to its end, even if another one has met the end of the connection.
        let others = read_others(id, connection, inputs, &memory);
        let requests = serve_requests(handle, services, &memory).map(Ok);
        tokio::try_join!(control.map(until_lost), others, requests).map(|((), (), ())| ())
    };
    match result.await {
        Ok(()) => Stop::Lost,
        Err(stop) => stop,
    }
}

fn until_lost(result: Result<(), Stop>) -> Result<(), Stop> {
    match result {
        Err(Stop::Lost) => Ok(()),
        other => other,
    }
}

/// Serves the streams of the other lanes, one of each at a time.
async fn read_others(
    id: LinkId,
    connection: &Connection,
    inputs: &mpsc::Sender<Input>,
    memory: &LinkMemory,
) -> Result<(), Stop> {
    let lane = |lane| {
        let (opened, mut streams) = mpsc::channel(1);
        let reading = async move {
            while let Some(stream) = streams.recv().await {
                let frames = FrameReader::new(stream, memory.stream());
                let mut reader = Reader { id, lane, connection, inputs, frames };
                while reader.step().await? {}
            }
            Ok(())
        };
        (opened, reading.map(until_lost))
    };
    let (sync, read_sync) = lane(Lane::Sync);
    let (broadcast, read_broadcast) = lane(Lane::Broadcast);
    let accepting = accept_others(connection, [sync, broadcast]).map(until_lost);
    tokio::try_join!(accepting, read_sync, read_broadcast).map(|((), (), ())| ())
}

/// Gives each stream to the reader of its lane, and refuses those of unknown lanes.
async fn accept_others(
    connection: &Connection,
    [sync, broadcast]: [mpsc::Sender<RecvStream>; 2],
) -> Result<(), Stop> {
    let mut unknown = 0;
    loop {
        let mut stream = accept(connection).await?;
        let byte = timeout(FRAME_TIMEOUT, lane(&mut stream, connection))
            .await
            .map_err(|_| late("a stream without a lane"))??;
        match byte {
            0 => return Err(fault("a second control stream")),
            // The readers outlive this task, unless a fault ends them all.
            1 => sync.send(stream).await.map_err(|_| Stop::Lost)?,
            2 => broadcast.send(stream).await.map_err(|_| Stop::Lost)?,
            _ if unknown < MAX_UNKNOWN => {
                unknown += 1;
                // An error means that the connection is gone, and the next accept reports it.
                let _ = stream.stop(VarInt::from_u32(CloseCode::Refused.into()));
            }
            _ => return Err(fault("too many streams of unknown lanes")),
        }
    }
}

async fn accept(connection: &Connection) -> Result<RecvStream, Stop> {
    connection.accept_uni().await.map_err(|_| Stop::Lost)
}

async fn lane(stream: &mut RecvStream, connection: &Connection) -> Result<u8, Stop> {
    stream.read_u8().await.map_err(|_| lost_or(connection, "a stream ends before its lane"))
}

fn lost_or(connection: &Connection, reason: &'static str) -> Stop {
    if connection.close_reason().is_some() { Stop::Lost } else { fault(reason) }
}

/// Forwards the frames of one stream.
struct Reader<'a> {
    id: LinkId,
    lane: Lane,
    connection: &'a Connection,
    inputs: &'a mpsc::Sender<Input>,
    frames: FrameReader<RecvStream>,
}

impl Reader<'_> {
    /// Forwards one frame; returns false at the end of the stream. It waits for room among the
    /// actor's inputs. That holds back a peer that sends faster than the actor works.
    async fn step(&mut self) -> Result<bool, Stop> {
        match self.frames.next().await {
            Ok(Some(frame)) => {
                let input = Input::Frame(self.id, self.lane, frame);
                self.inputs.send(input).await.map_err(|_| Stop::Lost)?;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(FrameError::Broken(reason)) => Err(fault(reason)),
            Err(FrameError::Late) => Err(late("half a frame, and no more")),
            Err(FrameError::OverLimit) => Err(Stop::Full(DropReason::HalfFramesOverTheLimit)),
            Err(FrameError::Io(error)) => {
                debug!(link = self.id.0, %error, "stream failed");
                Err(lost_or(self.connection, "a stream was reset"))
            }
        }
    }
}
