//! Serves the streams that a peer opens on a link for its application's messages and streams.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use iroh::endpoint::{RecvStream, SendStream, VarInt};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tracing::debug;

use super::{
    handle::{LinkGuard, LinkHandle, MAX_STREAMS, read_frame},
    lane::STREAM_PRIORITY,
};
use crate::{
    frame,
    lookup::Lookup,
    message::{Message, MessageKind},
    metrics::Counters,
    proto::{Answer, CloseCode, MAX_MESSAGE, Request, TopicId},
    services::{Accepted, IncomingStream},
};

/// Most streams that peers have open with this endpoint.
const MAX_ACCEPTED: usize = 4 * MAX_STREAMS;
/// A request must come within this time, and a message within as much again: on a link that is busy,
/// others go first. How many wait is bounded by how many streams a peer may open.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What all links of an endpoint need to serve requests.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    lookup: Lookup,
    counters: Arc<Counters>,
    accepted: Arc<Semaphore>,
}

impl Services {
    pub(crate) fn new(lookup: Lookup, counters: Arc<Counters>) -> Self {
        Self { lookup, counters, accepted: Arc::new(Semaphore::new(MAX_ACCEPTED)) }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

/// Serves requests until the link ends.
pub(super) async fn serve_requests(handle: &Arc<LinkHandle>, services: &Services) {
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            opened = handle.connection.accept_bi() => {
                let Ok((send, recv)) = opened else { break };
                let request = Incoming { guard: handle.hold(), send, recv };
                requests.spawn(request.serve(services.clone()));
            }
            Some(_) = requests.join_next() => {}
        }
    }
    // What arrived whole still counts.
    while requests.join_next().await.is_some() {}
}

/// A stream that the peer opened.
struct Incoming {
    guard: LinkGuard,
    send: SendStream,
    recv: RecvStream,
}

impl Incoming {
    async fn serve(mut self, services: Services) {
        let reading = timeout(REQUEST_TIMEOUT, read_frame(&mut self.recv)).await;
        let request = match reading.unwrap_or_else(|_| Err("it did not come in time".into())) {
            Ok(frame) => Request::decode(&frame).map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match request {
            Ok(Some(request)) if self.guard.is_kept().await => match request {
                Request::Message(topic) => {
                    let answer = self.receive(&services, topic).await;
                    self.answer(answer).await;
                }
                Request::Stream(topic, protocol) => self.open(&services, topic, protocol).await,
                Request::Reason(stream, reason) => {
                    self.guard.keep_reason(stream, reason);
                    self.answer(Some(Answer::Accepted)).await;
                }
            },
            Ok(Some(_)) => self.answer(Some(Answer::Closing)).await,
            Ok(None) => self.refuse(&services, "requests of unknown kind"),
            Err(reason) => {
                debug!(peer = %self.guard.peer.fmt_short(), reason, "broken request");
                self.refuse(&services, "requests that do not decode");
            }
        }
    }

    /// Takes a message; `None` if it never came whole.
    async fn receive(&mut self, services: &Services, topic: TopicId) -> Option<Answer> {
        let data = timeout(REQUEST_TIMEOUT, self.recv.read_to_end(MAX_MESSAGE)).await;
        let Ok(Ok(data)) = data else {
            services.counters.dropped("messages that did not come whole", Some(self.guard.peer));
            return None;
        };
        let Some(published) = services.lookup.topic(&topic) else { return Some(Answer::NotJoined) };
        let message =
            Message { sender: self.guard.peer, data: data.into(), kind: MessageKind::Direct };
        Some(if published.deliver(&message) { Answer::Accepted } else { Answer::NoSubscriber })
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
        // No more than a refused message is unread here.
        let _ = self.recv.stop(code);
    }

    async fn send_answer(&mut self, answer: Answer) -> bool {
        let mut frame = BytesMut::new();
        frame::put(&answer.encode(), &mut frame);
        self.guard.gate.write_all(&mut self.send, frame.freeze()).await.is_ok()
    }

    fn refuse(mut self, services: &Services, what: &'static str) {
        services.counters.dropped(what, Some(self.guard.peer));
        let code = VarInt::from_u32(CloseCode::Refused.into());
        let _ = self.send.reset(code);
        let _ = self.recv.stop(code);
    }

    /// Gives the stream to whoever serves its protocol.
    async fn open(mut self, services: &Services, topic: TopicId, protocol: Vec<u8>) {
        let Some(published) = services.lookup.topic(&topic) else {
            return self.answer(Some(Answer::NotJoined)).await;
        };
        let Some(service) = published.services.get(&protocol) else {
            services.counters.streams.refused.add(1);
            return self.answer(Some(Answer::NotServed)).await;
        };
        let of_link = self.guard.accepted.clone().try_acquire_owned();
        let of_all = services.accepted.clone().try_acquire_owned();
        let (Ok(of_link), Ok(of_all)) = (of_link, of_all) else {
            services.counters.streams.refused.add(1);
            services.counters.dropped("streams over the limit", Some(self.guard.peer));
            return self.answer(Some(Answer::Busy)).await;
        };
        let _ = self.send.set_priority(STREAM_PRIORITY);
        if self.send_answer(Answer::Accepted).await {
            // Gone meanwhile: dropped, the stream ends in both directions.
            let permits = [of_link, of_all];
            let stream = IncomingStream::new(self.guard, self.send, self.recv, protocol, permits);
            services.counters.streams.accepted.add(1);
            service.push(Accepted(Some(stream)));
        }
    }
}
