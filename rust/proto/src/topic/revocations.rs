//! Which ids the issuers of a topic's invitations keep out of it, and how members learn that.
//!
//! When two members open the topic on a link, each sends the fingerprint of all revocations that it
//! holds. An end with another fingerprint answers with all of its own. So a member that was away
//! learns them from its first link. What is new goes on to all other linked members at once.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::scope::Scope;
use crate::{
    context::Context,
    drops::DropReason,
    error::Error,
    event::TopicEvent,
    id::EndpointId,
    invitation::Revocation,
    wire::{MAX_RECORDS, MAX_SYNC_BYTES, TopicFrame},
};

/// Most revocations of a topic. Beyond that, the one that ends first is forgotten, so that all
/// members keep the same ones.
const MAX_REVOCATIONS: usize = 2000;

/// The revocations of trusted issuers, one for each id.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    held: BTreeMap<EndpointId, Revocation>,
    fingerprint: [u8; 16],
    /// The linked peers that were sent all of them, once for each link.
    answered: BTreeSet<EndpointId>,
}

impl Revocations {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.held.values()
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        [("revocations", self.held.len()), ("revocations answered", self.answered.len())]
    }

    /// A peer opened the topic: it is shown whether it holds the same.
    pub(super) fn greet(&self, peer: EndpointId, scope: &mut Scope) {
        if !scope.cx.issuers.is_empty() {
            let all = self.fingerprint;
            scope.send(&peer, TopicFrame::Revoked { all, revocations: Vec::new() });
        }
    }

    /// A peer no longer speaks of this topic.
    pub(super) fn unlinked(&mut self, peer: &EndpointId) {
        self.answered.remove(peer);
    }

    /// A peer sent revocations. One that does not verify closes the link, as honest peers verify
    /// what they forward.
    pub(super) fn on_revoked(
        &mut self,
        peer: EndpointId,
        all: [u8; 16],
        revocations: &[Bytes],
        scope: &mut Scope,
    ) {
        if scope.cx.issuers.is_empty() {
            return scope.dropped(DropReason::RevocationsOfOtherIssuers, Some(peer));
        }
        if revocations.is_empty() {
            return self.compare(peer, all, scope);
        }
        let mut news = Vec::new();
        for bytes in revocations {
            match self.judge(bytes, peer, scope) {
                Ok(new) => news.extend(new),
                Err(error) => {
                    scope.refuse(&error, peer);
                    break;
                }
            }
        }
        self.take(news, Some(peer), scope);
    }

    /// Takes in revocations that the application gives, or that an earlier life held.
    pub(super) fn revoke(
        &mut self,
        revocations: Vec<Revocation>,
        scope: &mut Scope,
    ) -> Result<(), Error> {
        let wrong = |revocation: &Revocation| {
            if !scope.cx.issuers.contains(&revocation.issuer) {
                Some("is signed by an issuer that this node does not trust")
            } else if revocation.topic != scope.topic {
                Some("is for another topic")
            } else if revocation.is_over(scope.cx.unix_time()) {
                Some("has ended")
            } else {
                None
            }
        };
        if let Some(reason) = revocations.iter().find_map(wrong) {
            return Err(Error::Invalid { field: "revocation", reason: reason.to_owned() });
        }
        let news = revocations.into_iter();
        let news = news.filter(|revocation| self.is_news(revocation, scope.cx)).collect();
        self.take(news, None, scope);
        Ok(())
    }

    /// Keeps what is new, and forwards it to all linked members but the one that sent it.
    fn take(&mut self, news: Vec<Revocation>, from: Option<EndpointId>, scope: &mut Scope) {
        if news.is_empty() {
            return;
        }
        for revocation in &news {
            let (topic, peer) = (scope.topic.fmt_short(), revocation.member.fmt_short());
            tracing::info!(%topic, %peer, issuer = %revocation.issuer.fmt_short(), "revoked");
        }
        let bytes: Vec<_> = news.iter().map(|revocation| revocation.bytes().clone()).collect();
        self.insert(news, scope);
        let others: Vec<_> = scope.peers.linked().iter().copied().collect();
        for peer in others.into_iter().filter(|peer| Some(*peer) != from) {
            self.send(&peer, &bytes, scope);
        }
    }

    /// A peer holds revocations with this fingerprint. It is sent all that are held here if they
    /// are others, once for each link: the frame that requests that is small.
    fn compare(&mut self, peer: EndpointId, all: [u8; 16], scope: &mut Scope) {
        debug_assert!(scope.peers.is_linked(&peer), "a frame comes from a linked peer");
        if all != self.fingerprint && self.answered.insert(peer) {
            let held: Vec<_> = self.iter().map(|revocation| revocation.bytes().clone()).collect();
            self.send(&peer, &held, scope);
        }
    }

    fn send(&self, peer: &EndpointId, revocations: &[Bytes], scope: &mut Scope) {
        let mut rest = revocations;
        while !rest.is_empty() {
            let mut size = 0;
            let fits = |bytes: &&Bytes| {
                size += bytes.len();
                size <= MAX_SYNC_BYTES
            };
            let count = rest.iter().take(MAX_RECORDS).take_while(fits).count();
            let (now, later) = rest.split_at(count);
            let frame = TopicFrame::Revoked { all: self.fingerprint, revocations: now.to_vec() };
            scope.send(peer, frame);
            rest = later;
        }
    }

    /// Verifies a revocation that a peer sent. `None` if it changes nothing here.
    fn judge(
        &self,
        bytes: &Bytes,
        from: EndpointId,
        scope: &mut Scope,
    ) -> Result<Option<Revocation>, Error> {
        let (issuer, member) = Revocation::claimed(bytes)?;
        if !scope.cx.issuers.contains(&issuer) {
            scope.dropped(DropReason::RevocationsOfOtherIssuers, Some(from));
            return Ok(None);
        }
        if self.held.get(&member).is_some_and(|held| held.bytes() == bytes) {
            return Ok(None);
        }
        let revocation = Revocation::verify(bytes)?;
        if revocation.topic != scope.topic {
            return Err(Error::malformed("revocation", "for another topic"));
        }
        Ok(self.is_news(&revocation, scope.cx).then_some(revocation))
    }

    /// Of two revocations of one id, the one that lasts longer counts, in all books.
    fn is_news(&self, new: &Revocation, cx: &Context) -> bool {
        let rank = |revocation: &Revocation| (revocation.ends, revocation.bytes().clone());
        let is_later = |held: &Revocation| rank(new) > rank(held);
        !new.is_over(cx.unix_time()) && self.held.get(&new.member).is_none_or(is_later)
    }

    fn insert(&mut self, new: Vec<Revocation>, scope: &mut Scope) {
        self.held.extend(new.into_iter().map(|revocation| (revocation.member, revocation)));
        while self.held.len() > MAX_REVOCATIONS {
            let first = self.held.values().min_by_key(|held| (held.ends, held.member));
            let Some(member) = first.map(|held| held.member) else { break };
            self.held.remove(&member);
            scope.dropped(DropReason::RevocationsOverTheLimit, None);
        }
        self.changed(scope);
    }

    /// The time of day is known again: forgets those whose invitations have ended by themselves.
    pub(super) fn expire(&mut self, scope: &mut Scope) {
        let (before, now) = (self.held.len(), scope.cx.unix_time());
        self.held.retain(|_, revocation| !revocation.is_over(now));
        if self.held.len() < before {
            self.changed(scope);
        }
    }

    fn changed(&mut self, scope: &mut Scope) {
        let mut hash = blake3::Hasher::new();
        for revocation in self.held.values() {
            hash.update(blake3::hash(revocation.bytes()).as_bytes());
        }
        debug_assert!(self.held.len() <= MAX_REVOCATIONS, "all members keep the same ones");
        self.fingerprint = [0; 16];
        if !self.held.is_empty() {
            self.fingerprint.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        }
        scope.emit(TopicEvent::Revoked);
    }
}
