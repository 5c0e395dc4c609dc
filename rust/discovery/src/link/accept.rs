//! Serves what a peer opens on a link: its application's messages and streams.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{RecvStream, SendStream, VarInt};
use tokio::{
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use super::{
    handle::{LinkGuard, LinkHandle, MAX_STREAMS},
    lane::STREAM_PRIORITY,
};
use crate::{
    frame,
    lookup::Lookup,
    memory::{Filled, INCOMPLETE, LinkMemory, Memory, OverLimit, UNREAD},
    message::{Message, MessageKind},
    metrics::Counters,
    proto::{
        Answer, Channel, CloseCode, DropReason, EndpointId, MAX_MESSAGE, MAX_REQUEST, Request,
        TopicId,
    },
    services::{Accepted, IncomingStream},
};

/// Most streams that peers have open with this endpoint.
const MAX_ACCEPTED: usize = 4 * MAX_STREAMS;
/// The last of these are for links that have few of them, so that a few peers can't take all.
const FOR_FEW: usize = MAX_STREAMS;
const FEW: usize = 16;
/// A request must arrive within this time, and its message within the same time after that. It is
/// long because control frames go first on a busy link. [`Memory`] bounds how much waits.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A message is given up if nothing of it arrives for this time.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The least that a stream counts in memory: its task, and what QUIC keeps of it.
const STREAM_BYTES: usize = 1024;
/// The room for each read of a message.
const READ: usize = 4 * 1024;

/// What all links of an endpoint need to serve requests.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    lookup: Lookup,
    counters: Arc<Counters>,
    accepted: Arc<Semaphore>,
    /// The memory for what is not complete yet.
    pub(super) memory: Memory,
    /// The memory for what was sent and not read.
    pub(super) unread: Memory,
}

impl Services {
    pub(crate) fn new(lookup: Lookup, counters: Arc<Counters>) -> Self {
        let books = lookup.clone();
        let is_member = move |peer: &EndpointId| books.is_member(peer);
        let memory = Memory::new(INCOMPLETE, is_member.clone());
        let unread = Memory::new(UNREAD, is_member);
        Self { lookup, counters, accepted: Arc::new(Semaphore::new(MAX_ACCEPTED)), memory, unread }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

/// Serves requests until the link ends.
pub(super) async fn serve_requests(
    handle: &Arc<LinkHandle>,
    services: &Services,
    memory: &LinkMemory,
) {
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            opened = handle.connection.accept_bi() => {
                let Ok((send, recv)) = opened else { break };
                handle.widen();
                let (guard, half) = (handle.hold(), memory.stream());
                let mut request = Incoming { guard, send, recv, half };
                match request.half.set(STREAM_BYTES) {
                    Ok(()) => {
                        requests.spawn(request.serve(services.clone()));
                    }
                    Err(OverLimit) => request.refuse(services, DropReason::RequestsOverTheLimit),
                }
            }
            Some(_) = requests.join_next() => {}
        }
    }
    // Requests that arrived whole are still served.
    while requests.join_next().await.is_some() {}
}

/// A stream that the peer opened.
struct Incoming {
    guard: LinkGuard,
    send: SendStream,
    recv: RecvStream,
    /// Counts the bytes of a request or message that is not complete yet.
    half: Filled,
}

/// Why a message is not accepted.
enum NotWhole {
    /// Its stream broke or stalled, or the message is too long.
    Broken,
    /// A limit on half-received messages is reached.
    OverLimit,
}

impl Incoming {
    async fn serve(mut self, services: Services) {
        let reading = timeout(REQUEST_TIMEOUT, frame::read_one(&mut self.recv, MAX_REQUEST)).await;
        let request = match reading.unwrap_or_else(|_| Err("it did not come in time".into())) {
            Ok(frame) => Request::decode(&frame).map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match request {
            Ok(Some(request)) if self.guard.is_kept().await => match request {
                Request::Message(topic, channel) => {
                    let answer = self.receive(&services, topic, channel).await;
                    self.answer(answer).await;
                }
                Request::Stream(topic, protocol) => self.open(&services, topic, protocol).await,
                Request::Reason(stream, reason) => {
                    self.guard.keep_reason(stream, reason);
                    self.answer(Some(Answer::Accepted)).await;
                }
            },
            Ok(Some(_)) => self.answer(Some(Answer::Closing)).await,
            Ok(None) => self.refuse(&services, DropReason::RequestsOfUnknownKind),
            Err(reason) => {
                debug!(peer = %self.guard.peer.fmt_short(), reason, "broken request");
                self.refuse(&services, DropReason::RequestsThatDoNotDecode);
            }
        }
    }

    /// Receives a message, and returns the answer to it; `None` if it did not arrive whole.
    async fn receive(
        &mut self,
        services: &Services,
        topic: TopicId,
        channel: Option<Channel>,
    ) -> Option<Answer> {
        let reading = timeout(REQUEST_TIMEOUT, self.read_message()).await;
        let data = match reading.unwrap_or(Err(NotWhole::Broken)) {
            Ok(data) => data,
            Err(NotWhole::Broken) => {
                services
                    .counters
                    .dropped(DropReason::MessagesThatDidNotComeWhole, Some(self.guard.peer));
                return None;
            }
            Err(NotWhole::OverLimit) => {
                services
                    .counters
                    .dropped(DropReason::HalfMessagesOverTheLimit, Some(self.guard.peer));
                return Some(Answer::Busy);
            }
        };
        let Some(published) = services.lookup.topic(&topic) else { return Some(Answer::NotJoined) };
        let (sender, kind) = (self.guard.peer, MessageKind::Direct);
        let delivered = published.deliver(&Message { sender, channel, data, kind }).await;
        // The queues of the subscribers count the message from here on.
        let _ = self.half.set(STREAM_BYTES);
        Some(if delivered { Answer::Accepted } else { Answer::NoSubscriber })
    }

    /// Reads a message to its end, and counts the memory that it takes meanwhile.
    async fn read_message(&mut self) -> Result<Bytes, NotWhole> {
        let mut data = BytesMut::new();
        loop {
            data.reserve(READ);
            let counted = self.half.set(STREAM_BYTES + data.capacity());
            counted.map_err(|OverLimit| NotWhole::OverLimit)?;
            let read = timeout(STALL_TIMEOUT, self.recv.read_buf(&mut data)).await;
            match read {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) if data.len() <= MAX_MESSAGE => {}
                _ => return Err(NotWhole::Broken),
            }
        }
        Ok(data.freeze())
    }

    /// Sends an answer, and holds the link until the peer has it.
    async fn answer(mut self, answer: Option<Answer>) {
        let sent = match answer {
            Some(answer) => self.send_answer(answer).await,
            None => false,
        };
        let code = VarInt::from_u32(CloseCode::Refused.into());
        if sent {
            let _ = self.send.finish();
            let _ = self.send.stopped().await;
        } else {
            let _ = self.send.reset(code);
        }
        // At most the rest of a refused message is unread here.
        let _ = self.recv.stop(code);
    }

    async fn send_answer(&mut self, answer: Answer) -> bool {
        let mut frame = BytesMut::new();
        frame::put(&answer.encode(), &mut frame);
        self.guard.gate.write_all(&mut self.send, frame.freeze()).await.is_ok()
    }

    fn refuse(mut self, services: &Services, what: DropReason) {
        services.counters.dropped(what, Some(self.guard.peer));
        let code = VarInt::from_u32(CloseCode::Refused.into());
        let _ = self.send.reset(code);
        let _ = self.recv.stop(code);
    }

    /// Gives the stream to the handler that serves its protocol.
    async fn open(mut self, services: &Services, topic: TopicId, protocol: Vec<u8>) {
        let Some(published) = services.lookup.topic(&topic) else {
            return self.answer(Some(Answer::NotJoined)).await;
        };
        let Some(service) = published.services.get(&protocol) else {
            services.counters.streams.refused.add(1);
            return self.answer(Some(Answer::NotServed)).await;
        };
        let _ = self.half.set(0);
        let Some(permits) = permits(&self.guard.accepted, &services.accepted) else {
            services.counters.streams.refused.add(1);
            services.counters.dropped(DropReason::StreamsOverTheLimit, Some(self.guard.peer));
            return self.answer(Some(Answer::Busy)).await;
        };
        let _ = self.send.set_priority(STREAM_PRIORITY);
        if self.send_answer(Answer::Accepted).await {
            // If the handler is gone meanwhile, dropping the stream ends it in both directions.
            let stream = IncomingStream::new(self.guard, self.send, self.recv, protocol, permits);
            services.counters.streams.accepted.add(1);
            service.push(Accepted(Some(stream)));
        }
    }
}

/// Takes a place for one more stream, among those of its link and among all. `None` if there is
/// none.
fn permits(of_link: &Arc<Semaphore>, all: &Arc<Semaphore>) -> Option<[OwnedSemaphorePermit; 2]> {
    let few = MAX_STREAMS - of_link.available_permits() < FEW;
    if !few && all.available_permits() <= FOR_FEW {
        return None;
    }
    let [of_link, of_all] = [of_link, all].map(|places| places.clone().try_acquire_owned().ok());
    Some([of_link?, of_all?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_with_many_streams_leave_places_for_those_with_few() {
        let all = Arc::new(Semaphore::new(MAX_ACCEPTED));
        let link = || Arc::new(Semaphore::new(MAX_STREAMS));
        let fill = |link: &Arc<Semaphore>| -> Vec<_> {
            std::iter::from_fn(|| permits(link, &all)).collect()
        };
        let greedy: Vec<_> = (0..8).map(|_| link()).collect();
        let taken: Vec<_> = greedy.iter().map(fill).collect();
        let counts: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [1024, 1024, 1024, FEW, FEW, FEW, FEW, FEW]);
        assert_eq!(fill(&link()).len(), FEW);
        drop(taken);
        assert_eq!(fill(&link()).len(), MAX_STREAMS);
    }
}
