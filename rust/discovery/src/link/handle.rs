//! A link as its users see it: guards keep it open, and the streams on it are bounded.

use std::{
    collections::VecDeque,
    ops::Deref,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt, WriteError};
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{gate::Gate, lane::MESSAGE_PRIORITY};
use crate::{
    frame,
    inputs::Input,
    memory::{Filled, Memory},
    metrics::Counters,
    proto::{Answer, EndpointId, KEEPALIVE_TIMEOUT, LinkId, MAX_REQUEST, Request},
};

/// Most streams with one peer that this end opened, and most that the peer opened.
pub(crate) const MAX_STREAMS: usize = 1024;
/// Most bytes of messages to one peer that wait for their answer. Further messages wait for their
/// turn. More bytes than the link may have on its way would only make each message take longer.
const MAX_MESSAGE_BYTES: u32 = 1024 * 1024;
/// The least that a message counts, so that at most 256 messages are on their way.
const MIN_MESSAGE_BYTES: u32 = 4096;
/// Most streams that a peer may open, at the level of QUIC. It is above [`MAX_STREAMS`], because a
/// refusal is an answer and needs a stream of its own.
pub(crate) const MAX_BIDI_STREAMS: u32 = 2048;
/// Most bytes that a peer has sent on a new link and this node has not read, over all streams. A
/// peer that has not said hello yet may fill it, so it is small. It is enough for 7 MB/s at a round
/// trip of 100 ms.
pub(crate) const FIRST_WINDOW: u32 = 768 * 1024;
/// Each open stream adds this to the window: what QUIC lets the peer send on one stream. Without
/// that, streams that the application does not read would block control frames.
const STREAM_WINDOW: usize = 1_250_000;
/// A link is kept for this time after its last use, so that a series of messages is one use.
const LINGER: Duration = Duration::from_secs(1);
/// How often a link checks if its peer has acknowledged a keepalive. A lone packet is acknowledged
/// 25 ms after it arrived (RFC 9000, `max_ack_delay`).
const LOOK: Duration = Duration::from_millis(30);
/// Most reasons of resets by the peer that are kept.
const MAX_REASONS: usize = 256;
/// A reset waits at most this long for its reason to arrive first.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// One link, as its users see it.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    pub(crate) connection: Connection,
    pub(crate) peer: EndpointId,
    pub(crate) gate: Gate,
    pub(crate) counters: Arc<Counters>,
    keepalive_sent: Notify,
    users: watch::Sender<Users>,
    held: watch::Sender<Held>,
    messages: Semaphore,
    /// What the window of the link has beyond [`FIRST_WINDOW`].
    window: Mutex<Filled>,
    /// Bounds the streams that this end opened; the next field bounds those of the peer.
    pub(crate) opened: Arc<Semaphore>,
    pub(crate) accepted: Arc<Semaphore>,
    /// Why the peer reset streams or stopped reading them, with the streams' numbers, oldest first.
    reasons: Mutex<VecDeque<(u64, String)>>,
    /// The rule that the peer broke.
    fault: OnceLock<&'static str>,
}

/// How many users a link has now, and how many it has ever had.
#[derive(Debug, Clone, Copy, Default)]
struct Users {
    now: usize,
    ever: u64,
}

/// What the actor said about keeping the link for its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    NotYet,
    Yes,
    /// The actor refused, because the link is closing.
    Refused,
}

/// One use of a link. While it lasts, the link is not closed for being idle or replaced.
#[derive(Debug)]
pub(crate) struct LinkGuard(Arc<LinkHandle>);

impl Deref for LinkGuard {
    type Target = LinkHandle;

    fn deref(&self) -> &LinkHandle {
        &self.0
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.0.users.send_modify(|users| users.now -= 1);
    }
}

impl LinkHandle {
    pub(crate) fn new(
        connection: Connection,
        counters: Arc<Counters>,
        unread: &Memory,
    ) -> Arc<Self> {
        let peer = EndpointId::from(connection.remote_id());
        Arc::new(Self {
            peer,
            window: Mutex::new(unread.link(peer).stream()),
            connection,
            gate: Gate::default(),
            counters,
            keepalive_sent: Notify::new(),
            users: watch::Sender::default(),
            held: watch::Sender::new(Held::NotYet),
            messages: Semaphore::new(MAX_MESSAGE_BYTES as usize),
            opened: Arc::new(Semaphore::new(MAX_STREAMS)),
            accepted: Arc::new(Semaphore::new(MAX_STREAMS)),
            reasons: Mutex::default(),
            fault: OnceLock::new(),
        })
    }

    /// Lets the peer send as much as its open streams may hold unread, if the memory for that has
    /// room. Else they share what the link has, and the peer's writes wait for this node's reads.
    /// QUIC takes no window back, so it stays as wide until the link ends.
    pub(crate) fn widen(&self) {
        let open = |streams: &Semaphore| MAX_STREAMS - streams.available_permits();
        let streams = (open(&self.opened) + open(&self.accepted)).max(1);
        // No panic can leave a sum half-changed, so a poisoned lock does no harm.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = streams * STREAM_WINDOW;
        if bytes > window.bytes() && window.set(bytes).is_ok() {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(FIRST_WINDOW);
            self.connection.set_receive_window(VarInt::from_u32(bytes));
        }
    }

    /// Notes the rule that the peer broke; the first one counts.
    pub(crate) fn blame(&self, rule: &'static str) {
        let _ = self.fault.set(rule);
    }

    /// The rule that the peer broke.
    pub(crate) fn fault(&self) -> &'static str {
        self.fault.get().copied().unwrap_or("a broken rule")
    }

    /// Waits until a message of this size has its turn.
    pub(crate) async fn turn(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permits = bytes.clamp(MIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
        // The semaphore is never closed.
        self.messages.acquire_many(permits).await.ok()
    }

    /// Keeps the reason for which the peer will end a stream.
    pub(super) fn keep_reason(&self, stream: u64, reason: String) {
        let mut reasons = self.reasons();
        if reasons.len() >= MAX_REASONS {
            reasons.pop_front();
        }
        reasons.push_back((stream, reason));
    }

    /// Returns the reason for which the peer ended a stream; empty if it gave none.
    pub(crate) fn reason(&self, stream: u64) -> String {
        let reasons = self.reasons();
        let found = reasons.iter().rev().find(|(of, _)| *of == stream);
        found.map(|(_, reason)| reason.clone()).unwrap_or_default()
    }

    fn reasons(&self) -> MutexGuard<'_, VecDeque<(u64, String)>> {
        // No panic can leave a list of texts half-changed, so a poisoned lock does no harm.
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the peer why a stream will end. A failure is ignored, because the end itself matters
    /// more.
    pub(crate) async fn send_reason(&self, stream: u64, reason: String) {
        let request = Request::Reason(stream, reason);
        let _ = timeout(REASON_TIMEOUT, self.request(&request, None, MESSAGE_PRIORITY)).await;
    }

    /// Begins a use.
    pub(crate) fn hold(self: &Arc<Self>) -> LinkGuard {
        self.users.send_modify(|users| {
            users.now += 1;
            users.ever += 1;
        });
        LinkGuard(self.clone())
    }

    /// Returns true if the connection is neither closed by one of its ends nor lost.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(crate) fn is_used(&self) -> bool {
        self.users.borrow().now > 0
    }

    /// Notes that a keepalive was queued, which only the peer's QUIC acknowledges.
    pub(crate) fn keepalive(&self) {
        self.keepalive_sent.notify_one();
    }

    /// Tells the actor when the peer's QUIC has acknowledged a packet since a keepalive.
    pub(super) async fn listen(&self, id: LinkId, inputs: &mpsc::Sender<Input>) {
        loop {
            self.keepalive_sent.notified().await;
            let before = self.acknowledgements();
            let heard = timeout(KEEPALIVE_TIMEOUT, async {
                while self.acknowledgements() == before {
                    sleep(LOOK).await;
                }
            });
            if heard.await.is_ok() && inputs.send(Input::Acknowledged(id)).await.is_err() {
                return;
            }
        }
    }

    /// Returns how many packets with acknowledgements arrived. QUIC authenticates them, so none is
    /// forged.
    fn acknowledgements(&self) -> u64 {
        let received = self.connection.stats().frame_rx;
        received.acks + received.path_acks
    }

    /// Asks the actor to keep the link while it is used.
    pub(super) async fn keep(&self, id: LinkId, inputs: &mpsc::Sender<Input>) {
        let mut users = self.users.subscribe();
        let mut seen = 0;
        loop {
            if users.wait_for(|users| users.ever > seen).await.is_err() {
                return;
            }
            let (reply, answer) = oneshot::channel();
            let asked = inputs.send(Input::Used(id, reply)).await;
            let kept = asked.is_ok() && answer.await.unwrap_or(false);
            self.held.send_replace(if kept { Held::Yes } else { Held::Refused });
            if !kept {
                return;
            }
            seen = unused(&mut users).await;
            self.held.send_replace(Held::NotYet);
            if inputs.send(Input::Unused(id)).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the actor's answer, and returns true if the link stays for its users.
    pub(super) async fn is_kept(&self) -> bool {
        let mut held = self.held.subscribe();
        let held = held.wait_for(|held| *held != Held::NotYet).await;
        held.is_ok_and(|held| *held == Held::Yes)
    }

    /// Opens a stream, sends a request and the message after it, and returns the answer with both
    /// ends.
    pub(crate) async fn request(
        &self,
        request: &Request,
        message: Option<Bytes>,
        priority: i32,
    ) -> Result<(Answer, SendStream, RecvStream), Failed> {
        let (send, mut recv) = self.connection.open_bi().await.map_err(|_| Failed::Link)?;
        let mut opening_stream = Opening(Some(send));
        let send = opening_stream.0.as_mut().expect("taken at the end");
        let _ = send.set_priority(priority);
        let mut opening = BytesMut::new();
        frame::put(&request.encode(), &mut opening);
        let frame = {
            // The peer may refuse a message and stop reading before all of it is written.
            let mut writing = pin!(async {
                self.gate.write_all(send, opening.freeze()).await?;
                if let Some(message) = message {
                    self.gate.write_all(send, message).await?;
                    let _ = send.finish();
                }
                Ok::<_, WriteError>(())
            });
            let mut reading = pin!(frame::read_one(&mut recv, MAX_REQUEST));
            let mut written = false;
            loop {
                tokio::select! {
                    _ = &mut writing, if !written => written = true,
                    frame = &mut reading => break frame,
                }
            }
        };
        let frame = frame.map_err(|reason| match self.connection.close_reason() {
            Some(_) => Failed::Link,
            None => Failed::Broken(reason),
        })?;
        let answer = Answer::decode(&frame).map_err(|error| Failed::Broken(error.to_string()))?;
        let send = opening_stream.0.take().expect("taken only here");
        Ok((answer, send, recv))
    }
}

/// A stream that waits for its answer. If the request is dropped before that, the stream is reset.
/// A plain drop would end it in order, and half a message would pass for a whole one.
struct Opening(Option<SendStream>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(mut stream) = self.0.take() {
            // It may have ended already.
            let _ = stream.reset(VarInt::from_u32(0));
        }
    }
}

/// Waits until the link was unused for `LINGER`, and returns how many users it had ever had then.
async fn unused(users: &mut watch::Receiver<Users>) -> u64 {
    loop {
        // The sender lives as long as the link's task, which is the one that waits here.
        let _ = users.wait_for(|users| users.now == 0).await;
        let _ = timeout(LINGER, users.wait_for(|users| users.now > 0)).await;
        let users = *users.borrow();
        if users.now == 0 {
            return users.ever;
        }
    }
}

/// Why there is no answer to a request.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The link is gone.
    Link,
    /// The peer broke a rule of requests.
    Broken(String),
}
