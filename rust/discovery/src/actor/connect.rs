//! Links for an application's messages and streams, and the protocols that it serves.

use tokio::{sync::oneshot, time::Instant};
use tracing::debug;

use super::{Actor, Connecting};
use crate::{
    commands::LinkReply,
    error::Error,
    proto::{EndpointId, InEvent, LinkEnd, LinkId, TopicId},
};

impl Actor {
    /// Finds or opens a link for a message or a stream.
    pub(super) fn connect(&mut self, topic: TopicId, peer: EndpointId, reply: LinkReply) {
        if self.deadline.is_some() || !self.topics.contains_key(&topic) {
            let _ = reply.send(Err(Error::Closed));
            return;
        }
        if let Some(reason) = self.lists.reason(&peer) {
            let _ = reply.send(Err(Error::PeerUnreachable { peer, reason: reason.into() }));
            return;
        }
        let waiting = Connecting { topic, replies: Vec::new(), reason: None };
        self.connecting.entry(peer).or_insert(waiting).replies.push(reply);
        self.handle_own(InEvent::Connect(topic, peer));
    }

    /// Reports to the state that a link is gone. Requests that waited for its end get another link.
    pub(super) fn report_closed(&mut self, id: LinkId, peer: EndpointId, end: LinkEnd) {
        let was_current = self.state.link(&peer) == Some(id);
        let waiting = was_current.then(|| self.connecting.remove(&peer)).flatten();
        self.handle_own(InEvent::LinkClosed(id, end));
        if let Some(waiting) = waiting {
            let topic = waiting.topic;
            self.connecting.insert(peer, waiting);
            self.handle_own(InEvent::Connect(topic, peer));
        }
    }

    /// Answers the requests whose link is open now, and those whose link will not come.
    pub(super) fn settle_connecting(&mut self, now: Instant) {
        if self.connecting.is_empty() {
            return;
        }
        for peer in self.connecting.keys().copied().collect::<Vec<_>>() {
            let current = self.state.link(&peer);
            let open = current.filter(|id| self.is_open(*id));
            // A link that the peer has closed is still the current one until all that came on it is
            // read.
            if open.is_none() && (current.is_some() || self.state.is_connecting(&peer)) {
                continue;
            }
            let Some(waiting) = self.connecting.remove(&peer) else { continue };
            let Some(id) = open else {
                let reason = waiting.reason.unwrap_or_else(|| never_dialed(&peer).into());
                for reply in waiting.replies {
                    let reason = reason.clone();
                    let _ = reply.send(Err(Error::PeerUnreachable { peer, reason }));
                }
                continue;
            };
            let handle = self.links[&id].handle.clone();
            for reply in waiting.replies {
                let _ = reply.send(Ok(handle.hold()));
            }
            self.report_held(id, true, now);
        }
    }

    fn is_open(&self, id: LinkId) -> bool {
        let link = self.links.get(&id);
        link.is_some_and(|link| !link.is_closing() && link.handle.is_connected())
    }

    /// Keeps a link open for a request that came in on it, unless the link is closing already.
    pub(super) fn hold(&mut self, id: LinkId, reply: oneshot::Sender<bool>) {
        let open = self.is_open(id);
        if open {
            self.report_held(id, true, Instant::now());
        }
        let _ = reply.send(open);
    }

    pub(super) fn release(&mut self, id: LinkId) {
        // Another user may have begun meanwhile. Then its own input to hold the link follows.
        if self.links.get(&id).is_some_and(|link| !link.handle.is_used()) {
            self.report_held(id, false, Instant::now());
        }
    }

    fn report_held(&mut self, id: LinkId, held: bool, now: Instant) {
        if let Err(reason) = self.state.handle(InEvent::Held(id, held), now) {
            debug!(%reason, "the state refused an event");
        }
    }

    /// Announces the served protocols of each topic in which they have changed.
    pub(super) fn announce_services(&mut self) {
        for topic in self.topics.keys().copied().collect::<Vec<_>>() {
            let Some(joined) = self.topics.get(&topic).filter(|joined| joined.leaving.is_empty())
            else {
                continue;
            };
            let profile = joined.with_services();
            if joined.published.me().is_none_or(|me| me.profile != profile) {
                self.handle_own(InEvent::SetProfile(topic, profile));
            }
        }
    }
}

/// Why this node did not even dial the peer.
fn never_dialed(peer: &EndpointId) -> &'static str {
    match iroh::EndpointId::from_bytes(peer.as_bytes()) {
        Ok(_) => "no link could be opened",
        Err(_) => "its id is no public key",
    }
}
