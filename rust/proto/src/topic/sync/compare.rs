//! Digests of neighbors' books, sent with each keepalive. If two settled books differ, gossip will
//! not make them equal, so a sync has to. Both ends notice within seconds what the overlay missed.
//!
//! These syncs, and the first one of a newcomer, are wanted soon: if one stalls, it is started
//! again.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    super::{
        effect::{Effects, NewRecord},
        scope::{RESTLESS, SETTLED, Scope},
    },
    Syncs, Timer,
};
use crate::{
    book::Applied, event::TopicEvent, id::EndpointId, rule::Rule, sync::Session, timers::jitter,
    wire::TopicFrame,
};

/// A session that is wanted soon is stalled if nothing arrived for this many round trips, or for
/// [`STALLED`] if no round trip was measured. With each try, that time grows by the factor
/// [`STALLED_GROWTH`].
const STALLED_ROUND_TRIPS: u32 = 3;
const STALLED_GROWTH: f64 = 1.5;
const STALLED: Duration = Duration::from_millis(500);
const STALLED_MIN: Duration = Duration::from_millis(100);
/// How often such a session is started in all.
pub(super) const TRIES: i32 = 5;

/// The last comparisons of books with a neighbor.
#[derive(Debug, Default)]
pub(super) struct Comparison {
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

impl Syncs {
    /// Returns when the last complete comparison with each neighbor began.
    pub(in super::super) fn compared(&self) -> BTreeMap<EndpointId, Instant> {
        let all = self.comparisons.iter();
        all.filter_map(|(peer, comparison)| Some((*peer, comparison.began?))).collect()
    }

    fn began(&self, peer: &EndpointId) -> Option<Instant> {
        self.comparisons.get(peer).and_then(|comparison| comparison.began)
    }

    /// Returns true if a neighbor's book was found equal within this time.
    pub(super) fn agreed(&self, peer: &EndpointId, within: Duration, now: Instant) -> bool {
        let agreed = self.comparisons.get(peer).and_then(|comparison| comparison.agreed);
        agreed.is_some_and(|(_, at)| now.saturating_duration_since(at) < within)
    }

    /// A record that was new here is in the book. If an application sees the change, neighbors get
    /// the digest of the book as soon as it is settled, without waiting for the next keepalive.
    pub(in super::super) fn on_applied(&mut self, new: &NewRecord, scope: &mut Scope) {
        if new.applied == Applied::Refreshed {
            return;
        }
        if self.timers.is_set(Timer::Digest) && scope.book.is_restless(RESTLESS, scope.cx.now) {
            // Otherwise each change would postpone it, without end.
            return;
        }
        let wait = SETTLED + jitter(&mut scope.cx.rng, SETTLED, 0.0..1.0) + scope.cx.lag();
        self.timers.set(Timer::Digest, scope.now() + wait);
    }

    pub(super) fn send_digest(&mut self, scope: &mut Scope) {
        let Some(digest) = scope.book.settled(Duration::ZERO, scope.cx.now) else { return };
        for peer in scope.view.neighbors {
            let agreed = self.comparisons.get(peer).and_then(|comparison| comparison.agreed);
            // If a neighbor sent this digest first, it needs no answer.
            if agreed.is_none_or(|(on, _)| on != digest) {
                scope.send(peer, TopicFrame::Digest(digest));
            }
        }
        for observer in self.observers.keys() {
            scope.send(observer, TopicFrame::Digest(digest));
        }
    }

    /// A session with a peer is complete.
    pub(super) fn compared_with(&mut self, peer: EndpointId, session: &Session, scope: &mut Scope) {
        if !self.compares_with(&peer, scope) {
            return;
        }
        if self.source == Some(peer) && session.news + session.given == 0 {
            // A source sends its digest when something changes. Until then, this says as much.
            if let Some(digest) = scope.book.settled(Duration::ZERO, scope.cx.now) {
                self.on_equal_digest(digest, peer, scope);
            }
        }
        let comparison = self.comparisons.entry(peer).or_default();
        if comparison.is_wanted() && session.news > 0 {
            // Gossip will not bring it any more, and other neighbors may have missed the same.
            self.timers.set(Timer::Digest, scope.cx.now);
        }
        comparison.completed(session.began);
        debug_assert!(!comparison.is_wanted(), "a pair of digests leads to one complete session");
    }

    /// A neighbor's book is settled, and has this digest.
    pub(in super::super) fn on_digest(
        &mut self,
        theirs: [u8; 8],
        peer: EndpointId,
        scope: &mut Scope,
    ) -> Effects {
        if !self.compares_with(&peer, scope) || !scope.cx.is_on(Rule::Reconciliation) {
            return Effects::none();
        }
        let now = scope.now();
        if scope.book.settled(Duration::ZERO, now) == Some(theirs) {
            self.on_equal_digest(theirs, peer, scope);
            return Effects::none();
        }
        let Some(ours) = scope.settled_digest() else { return Effects::none() };
        let recently = |began: Instant| now.saturating_duration_since(began) < RESTLESS;
        if scope.book.is_restless(RESTLESS, now) && self.began(&peer).is_some_and(recently) {
            return Effects::none();
        }
        let comparison = self.comparisons.entry(peer).or_default();
        let pair = Some((ours, theirs));
        if comparison.differed != pair {
            *comparison = Comparison { differed: pair, complete: false, ..*comparison };
        }
        if comparison.is_wanted() { self.start(peer, scope) } else { Effects::none() }
    }

    /// Only the end that receives a digest learns that the books are equal. It answers once after
    /// each change that applications see: the other end may wait for that, too, and its digests may
    /// always be the first.
    fn on_equal_digest(&mut self, digest: [u8; 8], peer: EndpointId, scope: &mut Scope) {
        let now = scope.now();
        let comparison = self.comparisons.entry(peer).or_default();
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

    /// Returns true if this node and a peer send each other the digests of their books.
    fn compares_with(&self, peer: &EndpointId, scope: &Scope) -> bool {
        scope.view.neighbors.contains(peer) || self.source == Some(*peer)
    }

    /// Returns true if a session with a peer is started again if it stalls.
    pub(super) fn is_wanted_soon(&self, peer: &EndpointId, scope: &Scope) -> bool {
        !scope.view.synced || self.is_source(peer) || self.was_found_to_differ(peer)
    }

    fn was_found_to_differ(&self, peer: &EndpointId) -> bool {
        self.comparisons.get(peer).is_some_and(Comparison::is_wanted)
    }

    /// Returns true if a session begins with the parts of the book, as the whole would differ.
    pub(super) fn probably_differs(&self, peer: &EndpointId, scope: &Scope) -> bool {
        if self.is_source(peer) {
            return self.was_found_to_differ(peer);
        }
        scope.view.attached.is_none() || self.is_wanted_soon(peer, scope)
    }

    /// Returns when a session is given up if nothing arrives before.
    pub(super) fn stalls_at(&self, peer: EndpointId, session: &Session, scope: &Scope) -> Instant {
        let mut patience = Session::TIMEOUT;
        if session.initiator && self.is_wanted_soon(&peer, scope) {
            let round_trip = scope.cx.links.round_trip(&peer);
            let first = round_trip.map_or(STALLED, |time| time * STALLED_ROUND_TRIPS);
            let first = (first + scope.cx.lag()).max(STALLED_MIN);
            patience = patience.min(first.mul_f64(STALLED_GROWTH.powi(session.tries)));
        }
        session.last_heard + patience
    }
}
