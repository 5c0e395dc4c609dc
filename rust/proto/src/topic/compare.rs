//! What neighbours' books come to, told with each hail: where two differ, and both stand still, gossip
//! is not about to make them equal. What the overlay missed is noticed by both ends within seconds.

use std::time::Duration;

use tokio::time::Instant;

use super::Topic;
use crate::{
    id::EndpointId, rule::Rule, state::Context, sync::Session, timers::Timer, wire::TopicFrame,
};

/// A book that did not change for this long stands still: gossip has passed.
const SETTLED: Duration = Duration::from_millis(250);
/// A comparison of books that stand still is short. One that did not move for this long is begun anew,
/// so many times in all.
const STALLED: Duration = Duration::from_millis(500);
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
    tries: u32,
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
        if comparison.is_wanted() && !self.sessions.contains_key(&(peer, true)) {
            comparison.tries = TRIES;
            self.compare(peer, cx);
        }
    }

    /// Compares books that stand still and differ, if there are any tries left.
    pub(super) fn compare(&mut self, peer: EndpointId, cx: &mut Context) {
        let wanted = |comparison: &&mut Comparison| comparison.is_wanted() && comparison.tries > 0;
        if let Some(comparison) = self.comparisons.get_mut(&peer).filter(wanted) {
            comparison.tries -= 1;
            self.start_sync(peer, cx);
            self.timers.set_by(Timer::Sessions, cx.now + STALLED);
        }
    }

    /// How long a session may stand still.
    pub(super) fn patience(&self, (peer, initiator): &(EndpointId, bool)) -> Duration {
        let comparison = self.comparisons.get(peer).filter(|_| *initiator);
        if comparison.is_some_and(Comparison::is_wanted) { STALLED } else { Session::TIMEOUT }
    }
}
