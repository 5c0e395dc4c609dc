//! Digests of neighbors' books, sent with each keepalive. If two settled books differ, gossip will
//! not make them equal, so a sync has to. Both ends notice within seconds what the overlay missed.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::super::{
    effect::NewRecord,
    scope::{RESTLESS, SETTLED, Scope},
};
use crate::{
    book::Applied, event::TopicEvent, id::EndpointId, rule::Rule, sync::Session, timers::jitter,
    wire::TopicFrame,
};

/// The last comparisons of books with a neighbor.
#[derive(Debug, Default)]
struct Comparison {
    /// When the last complete session began: each end has what the other one had then.
    began: Option<Instant>,
    /// The digest when both books were last equal, and when that was.
    agreed: Option<([u8; 8], Instant)>,
    /// How many visible changes this node's book had had then.
    agreed_after: Option<u64>,
    /// The digests that led to the last session, ours and the neighbor's.
    differed: Option<([u8; 8], [u8; 8])>,
    /// True if a session was complete since they differed. Books at their capacity differ forever.
    complete: bool,
}

impl Comparison {
    fn completed(&mut self, began: Instant) {
        self.began = Some(began);
        self.complete = true;
    }

    fn is_wanted(&self) -> bool {
        self.differed.is_some() && !self.complete
    }
}

/// The comparisons with neighbors, and with an observer's source.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    by_peer: BTreeMap<EndpointId, Comparison>,
    /// When the digest of the book is sent.
    timer: Option<Instant>,
}

impl Comparisons {
    pub(super) fn len(&self) -> usize {
        self.by_peer.len()
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.timer = None;
    }

    /// A peer is no neighbor, or no source, any more.
    pub(super) fn forget(&mut self, peer: &EndpointId) {
        self.by_peer.remove(peer);
    }

    /// Returns when the last complete comparison with each neighbor began.
    pub(super) fn compared(&self) -> BTreeMap<EndpointId, Instant> {
        let all = self.by_peer.iter();
        all.filter_map(|(peer, comparison)| Some((*peer, comparison.began?))).collect()
    }

    fn began(&self, peer: &EndpointId) -> Option<Instant> {
        self.by_peer.get(peer).and_then(|comparison| comparison.began)
    }

    /// Returns true if a neighbor's book was found equal within this time.
    pub(super) fn agreed(&self, peer: &EndpointId, within: Duration, now: Instant) -> bool {
        let agreed = self.by_peer.get(peer).and_then(|comparison| comparison.agreed);
        agreed.is_some_and(|(_, at)| now.saturating_duration_since(at) < within)
    }

    /// A record that was new here is in the book. If an application sees the change, neighbors get
    /// the digest of the book as soon as it is settled, without waiting for the next keepalive.
    pub(super) fn on_applied(&mut self, new: &NewRecord, scope: &mut Scope) {
        if new.applied == Applied::Refreshed {
            return;
        }
        if self.timer.is_some() && scope.book.is_restless(RESTLESS, scope.cx.now) {
            // Otherwise each change would postpone it, without end.
            return;
        }
        let wait = SETTLED + jitter(&mut scope.cx.rng, SETTLED, 0.0..1.0) + scope.cx.lag();
        self.timer = Some(scope.now() + wait);
    }

    /// Sends the digest of the book to neighbors, and to these observers.
    pub(super) fn send_digest<'a>(
        &mut self,
        observers: impl Iterator<Item = &'a EndpointId>,
        scope: &mut Scope,
    ) {
        self.timer = None;
        if scope.is_early_to_compare() {
            self.timer = Some(scope.now() + SETTLED + scope.cx.lag());
            return;
        }
        let Some(digest) = scope.book.settled(Duration::ZERO, scope.cx.now) else { return };
        for peer in scope.view.neighbors {
            let agreed = self.by_peer.get(peer).and_then(|comparison| comparison.agreed);
            // If a neighbor sent this digest first, it needs no answer.
            if agreed.is_none_or(|(on, _)| on != digest) {
                scope.send(peer, TopicFrame::Digest(digest));
            }
        }
        for observer in observers {
            scope.send(observer, TopicFrame::Digest(digest));
        }
    }

    /// A session with a peer is complete.
    pub(super) fn completed(
        &mut self,
        peer: EndpointId,
        session: &Session,
        is_source: bool,
        scope: &mut Scope,
    ) {
        if !is_source && !scope.view.neighbors.contains(&peer) {
            return;
        }
        if is_source && session.news + session.given == 0 {
            // A source sends its digest when something changes. Until then, this says as much.
            if let Some(digest) = scope.book.settled(Duration::ZERO, scope.cx.now) {
                self.on_equal_digest(digest, peer, scope);
            }
        }
        let comparison = self.by_peer.entry(peer).or_default();
        if comparison.is_wanted() && session.news > 0 {
            // Gossip will not bring it any more, and other neighbors may have missed the same.
            self.timer = Some(scope.cx.now);
        }
        comparison.completed(session.began);
        debug_assert!(!comparison.is_wanted(), "a pair of digests leads to one complete session");
    }

    /// The book of a neighbor, or of the source, is settled and has this digest. Returns true if
    /// the books are to be synced.
    pub(super) fn on_digest(
        &mut self,
        theirs: [u8; 8],
        peer: EndpointId,
        is_source: bool,
        scope: &mut Scope,
    ) -> bool {
        let compares = is_source || scope.view.neighbors.contains(&peer);
        if !compares || !scope.cx.is_on(Rule::Reconciliation) || scope.is_early_to_compare() {
            return false;
        }
        let now = scope.now();
        if scope.book.settled(Duration::ZERO, now) == Some(theirs) {
            self.on_equal_digest(theirs, peer, scope);
            return false;
        }
        let Some(ours) = scope.settled_digest() else { return false };
        let recently = |began: Instant| now.saturating_duration_since(began) < RESTLESS;
        if scope.book.is_restless(RESTLESS, now) && self.began(&peer).is_some_and(recently) {
            return false;
        }
        let comparison = self.by_peer.entry(peer).or_default();
        let pair = Some((ours, theirs));
        if comparison.differed != pair {
            *comparison = Comparison { differed: pair, complete: false, ..*comparison };
        }
        comparison.is_wanted()
    }

    /// Only the end that receives a digest learns that the books are equal. It answers once after
    /// each change that applications see: the other end may wait for that, too, and its digests may
    /// always be the first.
    fn on_equal_digest(&mut self, digest: [u8; 8], peer: EndpointId, scope: &mut Scope) {
        let now = scope.now();
        let comparison = self.by_peer.entry(peer).or_default();
        comparison.completed(now);
        comparison.agreed = Some((digest, now));
        let changes = scope.book.visible_changes();
        if comparison.agreed_after.replace(changes) != Some(changes) {
            scope.emit(TopicEvent::Agreed(peer));
            if !scope.config.observer {
                scope.send(&peer, TopicFrame::Digest(digest));
            }
        }
    }

    /// Returns true if the books of this node and a peer were found to differ, and were not synced
    /// since.
    pub(super) fn was_found_to_differ(&self, peer: &EndpointId) -> bool {
        self.by_peer.get(peer).is_some_and(Comparison::is_wanted)
    }
}
