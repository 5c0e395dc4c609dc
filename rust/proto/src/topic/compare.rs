//! What neighbours' books come to, told with each hail: where two differ, and both stand still, gossip
//! is not about to make them equal. What the overlay missed is noticed by both ends within seconds.
//!
//! These comparisons, and a newcomer's first, are wanted soon: one that stands still is begun anew.

use std::time::Duration;

use tokio::time::Instant;

use super::Topic;
use crate::{
    id::EndpointId,
    rule::Rule,
    state::Context,
    sync::Session,
    timers::{Timer, jitter},
    wire::TopicFrame,
};

/// A book that did not change for this long stands still: gossip has passed.
const SETTLED: Duration = Duration::from_millis(250);
/// A session that is wanted soon stands still if nothing came for so many round trips, or for this long
/// where no round trip was measured; then for twice as long, and so on.
const STALLED_ROUND_TRIPS: u32 = 4;
const STALLED: Duration = Duration::from_millis(500);
const STALLED_MIN: Duration = Duration::from_millis(100);
/// How often it is begun, in all.
const TRIES: u32 = 5;

/// The last comparisons of books with a neighbour.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// When the last complete one began: either end has what the other one had then.
    began: Option<Instant>,
    /// When the digests were last equal.
    agreed: Option<Instant>,
    /// The digests that led to the last one, ours and theirs.
    differed: Option<([u8; 8], [u8; 8])>,
    /// Whether one was complete since. Books at their capacity differ for ever.
    complete: bool,
}

impl Comparison {
    pub(super) fn completed(&mut self, began: Instant) {
        self.began = Some(began);
        self.complete = true;
    }

    fn is_wanted(&self) -> bool {
        self.differed.is_some() && !self.complete
    }
}

impl Topic {
    /// When the last complete comparison with a neighbour began.
    pub(super) fn compared(&self, peer: &EndpointId) -> Option<Instant> {
        self.comparisons.get(peer).and_then(|comparison| comparison.began)
    }

    /// Whether a neighbour's book was equal within this time.
    pub(super) fn agreed(&self, peer: &EndpointId, within: Duration, now: Instant) -> bool {
        let agreed = self.comparisons.get(peer).and_then(|comparison| comparison.agreed);
        agreed.is_some_and(|at| now.saturating_duration_since(at) < within)
    }

    pub(super) fn digest_to_tell(&self, cx: &Context) -> Option<TopicFrame> {
        self.book.settled(SETTLED, cx.now).map(TopicFrame::Digest)
    }

    /// Who is there has changed: neighbours learn what the book comes to as soon as it stands still, not
    /// with the next hail.
    pub(super) fn tell_digest_soon(&mut self, cx: &mut Context) {
        let at = cx.now + SETTLED + jitter(&mut cx.rng, SETTLED, 0.0..1.0) + cx.lag();
        self.timers.set(Timer::Digest, at);
    }

    pub(super) fn tell_digest(&mut self, cx: &mut Context) {
        let Some(digest) = self.digest_to_tell(cx) else { return };
        for peer in self.overlay.neighbours() {
            // Of two that may tell each other, the first spares the second.
            if !self.agreed(peer, 2 * SETTLED, cx.now) {
                cx.links.send(peer, self.id, digest.clone(), cx.now);
            }
        }
    }

    /// A neighbour's book stands still, and comes to this.
    pub(super) fn on_digest(&mut self, theirs: [u8; 8], peer: EndpointId, cx: &mut Context) {
        if !self.overlay.neighbours().contains(&peer) || !cx.is_on(Rule::Reconciliation) {
            return;
        }
        let Some(ours) = self.book.settled(SETTLED, cx.now) else { return };
        let comparison = self.comparisons.entry(peer).or_default();
        if ours == theirs {
            comparison.agreed = Some(cx.now);
            return comparison.completed(cx.now);
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
    fn is_wanted_soon(&self, peer: &EndpointId) -> bool {
        !self.synced || self.comparisons.get(peer).is_some_and(Comparison::is_wanted)
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
            patience = patience.min(first.saturating_mul(1 << session.tries));
        }
        session.last_heard + patience
    }

    /// A session that this node began stood still: another one takes its place, if there are any tries
    /// left: whether there are.
    pub(super) fn start_anew(&mut self, peer: EndpointId, tries: u32, cx: &mut Context) -> bool {
        let again = tries < TRIES && self.is_wanted_soon(&peer);
        if again {
            self.try_sync(peer, tries, cx);
        }
        again
    }
}
