//! When this node compares books, and with which peers: with its neighbors in turn, at growing
//! intervals (RFC 6206), and now and then with a random member.

use std::ops::Bound;

use tokio::time::{Duration, Instant};

use super::compare::Comparisons;
use crate::{
    book::Applied,
    config::Config,
    id::EndpointId,
    rule::Rule,
    timers::{earlier, jitter},
    topic::{
        effect::{Effect, Effects},
        scope::{RESTLESS, SETTLED, Scope},
    },
};

/// A record that its holder had for longer than this should have come by gossip.
pub(super) const GAP_AGE: Duration = Duration::from_secs(5);
/// A node that entered the overlay syncs with a member that is no neighbor after this time. It does
/// so again after delays that grow by [`RANDOM_SYNC_GROWTH`], up to [`RANDOM_SYNC_SOON`]. Whatever
/// kept a part of the swarm away from it is over by then.
pub(super) const RANDOM_SYNC_FIRST: Duration = Duration::from_secs(1);
const RANDOM_SYNC_GROWTH: u32 = 5;
const RANDOM_SYNC_SOON: Duration = Duration::from_mins(3);

#[derive(Debug)]
pub(super) struct Schedule {
    trickle: Duration,
    trickle_last: Option<EndpointId>,
    trickle_timer: Option<Instant>,
    /// When books were last compared although this one kept changing.
    compared_restless: Option<Instant>,
    /// Before this time, no further gap of gossip leads to a random sync.
    gap_sync_after: Option<Instant>,
    random_delay: Duration,
    random_timer: Option<Instant>,
    /// The partner of the first sync before this node entered the overlay.
    came_from: Option<EndpointId>,
}

impl Schedule {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            trickle: config.sync_interval_min,
            trickle_last: None,
            trickle_timer: None,
            compared_restless: None,
            gap_sync_after: None,
            random_delay: config.random_sync_interval,
            random_timer: None,
            came_from: None,
        }
    }

    /// Makes both timers due at a time.
    #[cfg(test)]
    pub(super) fn set_timers(&mut self, at: Instant) {
        (self.trickle_timer, self.random_timer) = (Some(at), Some(at));
    }

    /// Returns when a neighbor's book is compared.
    pub(super) fn trickle_timeout(&self) -> Option<Instant> {
        self.trickle_timer
    }

    /// Returns when a random member's book is compared.
    pub(super) fn random_timeout(&self) -> Option<Instant> {
        self.random_timer
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        (self.trickle_timer, self.random_timer) = (None, None);
    }

    /// This node is in the overlay from now on.
    pub(super) fn on_attached(&mut self, scope: &mut Scope) {
        self.random_delay = RANDOM_SYNC_FIRST;
        self.schedule_random(scope);
    }

    /// A sync that this node began with a peer is complete.
    pub(super) fn completed(&mut self, peer: EndpointId, scope: &Scope) {
        if scope.view.attached.is_none() {
            self.came_from.get_or_insert(peer);
        }
    }

    /// Makes syncs soon and frequent, because books were found to differ, or the neighbors changed.
    pub(super) fn reset_trickle(&mut self, scope: &mut Scope) {
        if self.trickle > scope.config.sync_interval_min || self.trickle_timer.is_none() {
            self.trickle = scope.config.sync_interval_min;
            self.schedule_trickle(scope);
        }
    }

    fn schedule_trickle(&mut self, scope: &mut Scope) {
        let interval = self.trickle.max(scope.cx.lag());
        let at = scope.now() + jitter(&mut scope.cx.rng, interval, 0.5..1.0);
        self.trickle_timer = Some(at);
    }

    /// Returns the neighbor whose book is compared now. The neighbors take turns.
    pub(super) fn on_trickle(
        &mut self,
        comparisons: &Comparisons,
        scope: &mut Scope,
    ) -> Option<EndpointId> {
        self.trickle_timer = None;
        if !scope.cx.is_on(Rule::Reconciliation) {
            return None;
        }
        let recently = |at: Instant| scope.now().saturating_duration_since(at) < RESTLESS;
        let restless =
            scope.cx.lag() > Duration::ZERO && scope.book.is_restless(RESTLESS, scope.now());
        if waits_until_settled(scope) || (restless && self.compared_restless.is_some_and(recently))
        {
            self.trickle_timer = Some(once_settled(scope));
            return None;
        }
        let neighbors = scope.view.neighbors;
        let after = self.trickle_last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = neighbors.range((after, Bound::Unbounded)).next().or(neighbors.first()).copied();
        let next = next?;
        self.trickle_last = Some(next);
        self.compared_restless = Some(scope.now()).filter(|_| restless);
        let agreed = comparisons.agreed(&next, self.trickle, scope.now());
        self.trickle = (self.trickle * 2).min(scope.config.sync_interval_max);
        self.schedule_trickle(scope);
        (!agreed).then_some(next)
    }

    /// Schedules the next random sync: soon after this node entered the overlay, then after growing
    /// delays.
    pub(super) fn schedule_random(&mut self, scope: &mut Scope) {
        let most = scope.config.random_sync_interval;
        let delay = self.random_delay.min(most);
        let grown = self.random_delay.saturating_mul(RANDOM_SYNC_GROWTH);
        self.random_delay = if grown > RANDOM_SYNC_SOON { most } else { grown };
        let at = scope.now() + jitter(&mut scope.cx.rng, delay, 0.8..1.2) + scope.spread();
        self.random_timer = Some(at);
    }

    /// Syncs with a member that is no neighbor. A swarm that forms at once may form in parts, each
    /// of which looks complete from inside. The first partner is the peer of this node's first
    /// sync, if it is still linked, so that the two never stay in different parts.
    pub(super) fn on_random_sync(&mut self, scope: &mut Scope) -> Effects {
        self.random_timer = None;
        if waits_until_settled(scope) {
            self.random_timer = Some(once_settled(scope));
            return Effects::none();
        }
        let neighbors = scope.view.neighbors;
        let origin = self.came_from.take();
        let origin = origin.filter(|peer| !neighbors.contains(peer) && scope.peers.is_linked(peer));
        let partner = origin.or_else(|| scope.random_members(1, neighbors).first().copied());
        self.schedule_random(scope);
        match partner {
            Some(peer) if scope.cx.is_on(Rule::Reconciliation) => {
                Effects::one(Effect::Contact(peer))
            }
            _ => Effects::none(),
        }
    }

    /// A sync brought a record of this age that was new here.
    pub(super) fn on_synced_news(&mut self, applied: &Applied, age: Duration, scope: &mut Scope) {
        let now = scope.now();
        let settled = scope
            .view
            .attached
            .is_some_and(|since| now.saturating_duration_since(since) > 2 * GAP_AGE);
        let missed = settled && age > GAP_AGE && !matches!(applied, Applied::Refreshed);
        if missed && self.gap_sync_after.is_none_or(|after| after <= now) {
            // Gossip missed the record: syncs with a member that is no neighbor, at once.
            self.gap_sync_after = Some(now + 2 * GAP_AGE);
            self.random_timer = earlier(self.random_timer, Some(now));
        }
    }
}

/// Returns true if this node is behind, and gossip and syncs still bring records. A comparison
/// would find what is under way.
fn waits_until_settled(scope: &Scope) -> bool {
    let behind = scope.cx.lag() > Duration::ZERO;
    behind && scope.settled_digest().is_none() || scope.is_early_to_compare()
}

/// Returns when to look again whether the book is settled.
fn once_settled(scope: &mut Scope) -> Instant {
    scope.now() + jitter(&mut scope.cx.rng, SETTLED, 1.0..2.0) + scope.cx.lag()
}
