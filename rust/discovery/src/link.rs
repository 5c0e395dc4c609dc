//! One link: a task that moves frames between a QUIC connection and the actor.
//!
//! Each end opens a unidirectional stream for control and, when it needs them, others for sync and
//! for broadcasts. The first byte of a stream names its lane, and frames follow. The actor only
//! puts frames into queues. If a queue is full, the link is closed or a broadcast is dropped, so a
//! slow peer delays only itself.

pub(crate) mod accept;
pub(crate) mod gate;
pub(crate) mod handle;
pub(crate) mod lane;
pub(crate) mod queue;
mod read;
mod write;

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use iroh::endpoint::{Connection, VarInt};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::{
    accept::Services,
    handle::LinkHandle,
    queue::{NotQueued, Queue, Queued},
    read::{Stop, read},
    write::write,
};
use crate::{
    bans::Origin,
    ending::end_of,
    inputs::Input,
    proto::{CloseCode, EndpointId, Lane, LinkEnd, LinkId},
};

/// Most frames in the queues of the control and the sync lane.
const QUEUE_FRAMES: usize = 256;
/// Most bytes in the queue of the control lane.
const CONTROL_BYTES: usize = 1024 * 1024;
/// Most bytes in the queue of the sync lane.
const SYNC_BYTES: usize = 8 * 1024 * 1024;
/// Most frames and bytes in the queue of the broadcast lane. That is more than one author may send
/// at once, and more than a node keeps for its first neighbor (320 messages or 1.25 MiB).
const BROADCAST_FRAMES: usize = 1024;
const BROADCAST_BYTES: usize = 2 * 1024 * 1024;
/// How long a closing link waits for the peer to acknowledge what was sent on it.
const DRAIN: Duration = Duration::from_secs(2);

/// The actor's end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: EndpointId,
    pub(crate) origin: Origin,
    pub(crate) opened: Instant,
    pub(crate) dialed: bool,
    /// When the invitation of the peer ends, in seconds since 1970, if it has one.
    pub(crate) until: Option<u64>,
    /// The queues by lane; `None` once the link closes.
    lanes: Option<[Queue; 3]>,
    pub(crate) handle: Arc<LinkHandle>,
    close: Option<oneshot::Sender<CloseCode>>,
}

impl Link {
    /// Creates a link and the future that serves it, which the caller spawns. The future's last act
    /// is to send [`Input::Closed`]. Once `cut` is cancelled, a closing link no longer waits for
    /// its peer.
    pub(crate) fn new(
        id: LinkId,
        connection: Connection,
        dialed: bool,
        inputs: mpsc::Sender<Input>,
        services: Services,
        cut: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (control, control_rx) = Queue::new(QUEUE_FRAMES, CONTROL_BYTES);
        let (sync, sync_rx) = Queue::new(QUEUE_FRAMES, SYNC_BYTES);
        let (broadcast, broadcast_rx) = Queue::new(BROADCAST_FRAMES, BROADCAST_BYTES);
        let (close, close_rx) = oneshot::channel();
        let handle = LinkHandle::new(connection, services.counters(), &services.unread);
        let peer = handle.peer;
        let origin = Origin::of(&handle.connection);
        let served = handle.clone();
        let task = async move {
            let lanes = [control_rx, sync_rx, broadcast_rx];
            let serving = serve(id, &served, &services, lanes, close_rx, &inputs, &cut);
            let end = serving.await;
            // The send fails only if the actor has ended, and then nobody needs the report.
            let _ = inputs.send(Input::Closed(id, end)).await;
        };
        let link = Self {
            peer,
            origin,
            opened: Instant::now(),
            dialed,
            until: None,
            lanes: Some([control, sync, broadcast]),
            handle,
            close: Some(close),
        };
        (link, task)
    }

    /// Queues a frame for the writer of its lane.
    pub(crate) fn send(&self, lane: Lane, frame: Bytes) -> Result<(), NotQueued> {
        match &self.lanes {
            Some(lanes) => lanes[usize::from(lane::byte(lane))].push(frame),
            None => Err(NotQueued::Closed),
        }
    }

    /// Reports [`Input::Acknowledged`] once the peer's QUIC acknowledges what was sent last.
    pub(crate) fn keepalive(&self) {
        self.handle.keepalive();
    }

    /// Returns true if the link was asked to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.close.is_none()
    }

    /// Closes the link. If the code says that the peer is in good standing, what is queued is sent
    /// first.
    pub(crate) fn close(&mut self, code: CloseCode) {
        if let Some(close) = self.close.take() {
            // The task may have ended by itself; then it has reported its end.
            let _ = close.send(code);
        }
        self.lanes = None;
    }
}

/// Serves a link until it is closed, and returns how it ended.
async fn serve(
    id: LinkId,
    handle: &Arc<LinkHandle>,
    services: &Services,
    lanes: [Queued; 3],
    mut close: oneshot::Receiver<CloseCode>,
    inputs: &mpsc::Sender<Input>,
    cut: &CancellationToken,
) -> LinkEnd {
    let connection = &handle.connection;
    let mut read = pin!(read(id, handle, services, inputs).fuse());
    let mut write = pin!(write(connection, &handle.gate, lanes).fuse());
    let mut keep = pin!(handle.keep(id, inputs).fuse());
    let mut listen = pin!(handle.listen(id, inputs).fuse());
    let code = loop {
        tokio::select! {
            error = connection.closed() => {
                // What the peer sent before it closed still counts.
                let _ = timeout(DRAIN, cut.run_until_cancelled(&mut read)).await;
                return end_of(&error);
            }
            () = &mut keep => {}
            () = &mut listen => {}
            stop = &mut read => match stop {
                Stop::Lost => return end_of(&connection.closed().await),
                Stop::Full(reason) => {
                    handle.counters.dropped(reason, Some(handle.peer));
                    break CloseCode::Overflow;
                }
                Stop::Fault(code, reason) => {
                    debug!(link = id.0, reason, "peer broke the framing");
                    handle.blame(reason);
                    break code;
                }
            },
            written = &mut write => if written.is_err() && connection.close_reason().is_none() {
                debug!(link = id.0, reason = "it stopped a stream", "peer broke the framing");
                handle.blame("it stopped a stream");
                break CloseCode::Protocol;
            },
            code = &mut close => {
                let code = code.unwrap_or(CloseCode::Shutdown);
                if in_good_standing(code) {
                    let drained = async {
                        loop {
                            tokio::select! {
                                _ = &mut write => return,
                                _ = connection.closed() => return,
                                _ = &mut read => {}
                                () = &mut keep => {}
                            }
                        }
                    };
                    let _ = timeout(DRAIN, cut.run_until_cancelled(drained)).await;
                }
                break code;
            }
        }
    };
    connection.close(VarInt::from_u32(code.into()), b"");
    LinkEnd::Local(code)
}

/// Returns true if frames that are queued for the peer, or still come from it, matter and arrive.
fn in_good_standing(code: CloseCode) -> bool {
    !matches!(code, CloseCode::Overflow | CloseCode::Protocol | CloseCode::Unresponsive)
}

#[cfg(test)]
mod tests {
    use iroh::{Endpoint, SecretKey, endpoint::ConnectionError};

    use super::*;
    use crate::{ALPN, config::Config, endpoint, lookup::Lookup};

    /// Two endpoints, and both ends of a connection between them.
    async fn connected() -> ([Endpoint; 2], [Connection; 2]) {
        let config = Config::local();
        let bind = || endpoint::bind(&config, SecretKey::generate());
        let (a, b) = (bind().await.unwrap(), bind().await.unwrap());
        b.set_alpns(vec![ALPN.to_vec()]);
        let (dialed, accepted) =
            tokio::join!(a.connect(b.addr(), ALPN), async { b.accept().await.unwrap().await });
        ([a, b], [dialed.unwrap(), accepted.unwrap()])
    }

    fn link(id: u64, connection: Connection) -> (Link, mpsc::Receiver<Input>) {
        let (inputs, rx) = mpsc::channel(4);
        let services = Services::new(Lookup::default(), Arc::default());
        let (link, task) =
            Link::new(LinkId(id), connection, true, inputs, services, CancellationToken::new());
        tokio::spawn(task);
        (link, rx)
    }

    async fn end(inputs: &mut mpsc::Receiver<Input>) -> LinkEnd {
        loop {
            if let Input::Closed(_, end) = inputs.recv().await.unwrap() {
                return end;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn frames_queued_before_a_close_arrive_before_it() {
        let (endpoints, [a, b]) = connected().await;
        let ((mut a, mut a_inputs), (_b, mut b_inputs)) = (link(0, a), link(1, b));
        let frames: Vec<_> = (0..100_u8).map(|n| Bytes::from(vec![n; 1000])).collect();
        for frame in &frames {
            a.send(Lane::Control, frame.clone()).unwrap();
            a.send(Lane::Sync, frame.clone()).unwrap();
        }
        a.close(CloseCode::Leave);
        let refused = a.send(Lane::Control, Bytes::from_static(b"too late"));
        assert_eq!(refused, Err(NotQueued::Closed));
        let mut seen = [Vec::new(), Vec::new()];
        let closed = loop {
            match b_inputs.recv().await.unwrap() {
                Input::Frame(LinkId(1), lane, frame) => {
                    assert!(
                        lane == Lane::Control || !seen[0].is_empty(),
                        "no frame before the hello"
                    );
                    seen[usize::from(lane::byte(lane))].push(frame);
                }
                Input::Closed(LinkId(1), end) => break end,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(seen.each_ref().map(Vec::len), [frames.len(); 2]);
        assert!(seen.iter().all(|lane| *lane == frames), "in order and unharmed");
        assert_eq!(closed, LinkEnd::Remote(CloseCode::Leave));
        assert_eq!(end(&mut a_inputs).await, LinkEnd::Local(CloseCode::Leave));
        for endpoint in endpoints {
            endpoint.close().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_peer_that_does_not_read_fills_its_own_queue_and_loses_its_link() {
        let (endpoints, [a, b]) = connected().await;
        let (mut link, mut inputs) = link(0, a);
        let frame = Bytes::from(vec![0; 1300]);
        let mut accepted = 0;
        while link.send(Lane::Control, frame.clone()).is_ok() {
            accepted += frame.len();
            if accepted % (64 * frame.len()) == 0 {
                // Lets the writer run until flow control stops it.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(accepted < 2 * 1024 * 1024, "nothing bounds what is held for the peer");
        }
        assert!(accepted > 1024 * 1024, "a short pause of the peer must not cost the link");
        println!("{accepted} bytes accepted");
        link.close(CloseCode::Overflow);
        assert_eq!(end(&mut inputs).await, LinkEnd::Local(CloseCode::Overflow));
        assert!(matches!(
            b.closed().await,
            ConnectionError::ApplicationClosed(close)
                if close.error_code == VarInt::from_u32(CloseCode::Overflow.into())
        ));
        for endpoint in endpoints {
            endpoint.close().await;
        }
    }
}
