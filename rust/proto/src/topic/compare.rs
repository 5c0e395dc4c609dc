//! What neighbors' books come to, told with each keepalive: where two differ, and both stand still, gossip
//! is not about to make them equal. What the overlay missed is noticed by both ends within seconds.
//!
//! These comparisons, and a newcomer's first, are wanted soon: one that stands still is begun anew.

use std::time::Duration;

use tokio::time::Instant;

use super::{Timer, Topic, scope::SETTLED};
use crate::{
    event::TopicEvent, id::EndpointId, rule::Rule, state::Context, sync::Session, timers::jitter,
    wire::TopicFrame,
};

/// A session that is wanted soon stands still if nothing came for so many round trips, or for this long
/// where no round trip was measured; then for half as long again, and so on.
const STALLED_ROUND_TRIPS: u32 = 3;
const STALLED_GROWTH: f64 = 1.5;
const STALLED: Duration = Duration::from_millis(500);
const STALLED_MIN: Duration = Duration::from_millis(100);
/// How often it is begun, in all.
const TRIES: i32 = 5;

/// The last comparisons of books with a neighbor.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// When the last complete one began: either end has what the other one had then.
    began: Option<Instant>,
    /// What the digests were when they were last equal, and when that was.
    agreed: Option<([u8; 8], Instant)>,
    /// The digests that led to the last one, ours and theirs.
    differed: Option<([u8; 8], [u8; 8])>,
    /// Whether one was complete since. Books at their capacity differ for ever.
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

impl Topic {
    /// When the last complete comparison with a neighbor began.
    pub(super) fn compared(&self, peer: &EndpointId) -> Option<Instant> {
        self.comparisons.get(peer).and_then(|comparison| comparison.began)
    }

    /// Whether a neighbor's book was equal within this time.
    pub(super) fn agreed(&self, peer: &EndpointId, within: Duration, now: Instant) -> bool {
        let agreed = self.comparisons.get(peer).and_then(|comparison| comparison.agreed);
        agreed.is_some_and(|(_, at)| now.saturating_duration_since(at) < within)
    }

    /// Who is there has changed: neighbors learn what the book comes to as soon as it stands still, not
    /// with the next keepalive.
    pub(super) fn tell_digest_soon(&mut self, cx: &mut Context) {
        let at = cx.now + SETTLED + jitter(&mut cx.rng, SETTLED, 0.0..1.0) + cx.lag();
        self.timers.set(Timer::Digest, at);
    }

    pub(super) fn tell_digest(&mut self, cx: &mut Context) {
        let Some(digest) = self.book.settled(Duration::ZERO, cx.now) else { return };
        for peer in self.overlay.neighbors() {
            let agreed = self.comparisons.get(peer).and_then(|comparison| comparison.agreed);
            // Of two that may tell each other, the first spares the second.
            if agreed.is_none_or(|(on, _)| on != digest) {
                cx.links.send(peer, self.id, TopicFrame::Digest(digest), cx.now);
            }
        }
    }

    /// A session with a neighbor is complete.
    pub(super) fn compared_with(&mut self, peer: EndpointId, session: &Session, cx: &Context) {
        if !self.overlay.neighbors().contains(&peer) {
            return;
        }
        let comparison = self.comparisons.entry(peer).or_default();
        if comparison.is_wanted() && session.news > 0 {
            // Gossip has passed, and who is next to this node may have missed the same.
            self.timers.set(Timer::Digest, cx.now);
        }
        comparison.completed(session.began);
    }

    /// A neighbor's book stands still, and comes to this.
    pub(super) fn on_digest(&mut self, theirs: [u8; 8], peer: EndpointId, cx: &mut Context) {
        if !self.overlay.neighbors().contains(&peer) || !cx.is_on(Rule::Reconciliation) {
            return;
        }
        let Some(ours) = self.book.settled(SETTLED, cx.now) else { return };
        let comparison = self.comparisons.entry(peer).or_default();
        if ours == theirs {
            let agreed = comparison.agreed.replace((ours, cx.now));
            comparison.completed(cx.now);
            // A book that changed and changed back is found equal again, too.
            if agreed.is_none_or(|(before, at)| before != ours || self.book.changed_since(at)) {
                cx.emit(self.id, TopicEvent::Agreed(peer));
            }
            return;
        }
        let pair = Some((ours, theirs));
        if comparison.differed != pair {
            *comparison = Comparison { differed: pair, complete: false, ..*comparison };
        }
        if comparison.is_wanted() {
            self.start_sync(peer, cx);
        }
    }

    /// Whether a session with a peer that stands still is begun anew.
    pub(super) fn is_wanted_soon(&self, peer: &EndpointId) -> bool {
        !self.contacts.is_synced() || self.comparisons.get(peer).is_some_and(Comparison::is_wanted)
    }

    /// When a session is given up, should nothing come until then.
    pub(super) fn stands_still_at(
        &self,
        peer: EndpointId,
        session: &Session,
        cx: &Context,
    ) -> Instant {
        let mut patience = Session::TIMEOUT;
        if session.initiator && self.is_wanted_soon(&peer) {
            let round_trip = cx.links.round_trip(&peer);
            let first = round_trip.map_or(STALLED, |time| time * STALLED_ROUND_TRIPS);
            let first = (first + cx.lag()).max(STALLED_MIN);
            patience = patience.min(first.mul_f64(STALLED_GROWTH.powi(session.tries)));
        }
        session.last_heard + patience
    }

    /// A session that this node began stood still: another one takes its place, if there are any tries
    /// left: whether there are.
    pub(super) fn start_anew(&mut self, peer: EndpointId, tries: i32, cx: &mut Context) -> bool {
        let again = tries < TRIES && self.is_wanted_soon(&peer);
        if again {
            self.try_sync(peer, tries, cx);
        }
        again
    }
}
