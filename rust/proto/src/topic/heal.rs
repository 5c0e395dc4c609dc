//! Healing: lost members are dialed now and then, because a partition looks like many deaths.
//!
//! If two sides meet again, two nodes compare their books first. So each side learns which of its
//! members the other one holds to be dead, and those refute. Then one of the two nodes joins the
//! overlay of the other, once for each gap.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, seq::IteratorRandom};
use tokio::time::Instant;

use super::{
    effect::{Effect, Effects},
    scope::Scope,
};
use crate::{
    id::EndpointId,
    rule::Rule,
    timers::{Timers, jitter},
};

/// A loss within this time is recent. If more than a tenth of all members are lost, and one of them
/// recently, lost members are dialed as often as bootstrap peers are in isolation.
const RECENT: Duration = Duration::from_mins(10);
/// After a sync that found a gap, the partner's refutation has this long to arrive,
/// [`JOIN_ATTEMPTS`] times.
const JOIN_DELAY: Duration = Duration::from_millis(200);
const JOIN_ATTEMPTS: u32 = 10;
/// The least time between two joins of the overlay because of gaps.
const JOIN_INTERVAL: Duration = Duration::from_secs(10);

/// A node has reached few of the members of a large swarm. If it loses fewer of them than this,
/// they are crashes rather than a partition.
const MANY: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Healing {
    /// The delay between dials while many members are lost, which grows.
    delay: Option<Duration>,
    /// Lost members that are being dialed, or that are in a sync, because of healing.
    dialed: BTreeSet<EndpointId>,
    /// The partner beyond a gap through which to join the overlay, and how often that was delayed.
    join: Option<(EndpointId, u32)>,
    joined: Option<Instant>,
    timers: Timers<Timer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Dial a lost member.
    Dial,
    /// Join the overlay behind a gap.
    Join,
}

impl Healing {
    pub(super) fn sizes(&self) -> [(&'static str, usize); 1] {
        [("lost members dialed", self.dialed.len())]
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn on_timeout(&mut self, scope: &mut Scope) -> Effects {
        match self.timers.take_due(scope.now()) {
            Some(Timer::Dial) => self.dial_lost(scope),
            Some(Timer::Join) => self.join_behind_gap(scope),
            None => Effects::none(),
        }
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.timers.clear_all();
    }

    /// A member was lost: dial soon, with the shortest delay again. An observer leaves that to
    /// members.
    pub(super) fn on_loss(&mut self, scope: &mut Scope) {
        if scope.view.leaving || scope.config.observer || !scope.cx.is_on(Rule::Healing) {
            return;
        }
        self.delay = None;
        let config = scope.config;
        let delay = if is_torn(scope) { config.redial_min } else { config.heal_interval };
        let at = scope.now() + jitter(&mut scope.cx.rng, delay, 0.8..1.2);
        self.timers.set_by(Timer::Dial, at);
    }

    fn dial_lost(&mut self, scope: &mut Scope) -> Effects {
        let (now, config) = (scope.now(), scope.config);
        let lost: Vec<_> = scope.book.lost().map(|(id, _, next)| (id, next)).collect();
        if lost.is_empty() {
            return Effects::none();
        }
        let torn = is_torn(scope);
        let (due, delay) = if torn {
            let delay = self.delay.unwrap_or(config.redial_min);
            self.delay = Some((delay * 3 / 2).min(config.redial_max));
            (true, delay)
        } else {
            // All nodes together dial as many as were lost in each interval, but at least two.
            let alive = scope.book.len() + 1;
            #[allow(clippy::cast_precision_loss, reason = "a probability")]
            let share = (lost.len().max(2) as f64 / alive as f64).min(1.0);
            (scope.cx.rng.random_bool(share), config.heal_interval)
        };
        let able = lost.iter().filter(|(_, next)| torn || *next <= now);
        let able: Vec<_> = able.map(|(peer, _)| *peer).collect();
        let chosen = if due { choose(able, scope) } else { None };
        let mut effects = Effects::none();
        if let Some(peer) = chosen {
            scope.book.dialed(&peer, config.heal_interval, config.heal_interval_max, now);
            debug_assert!(scope.book.get(&peer).is_none(), "a member in the book is not lost");
            self.dialed.insert(peer);
            effects.push(Effect::Contact(peer));
        }
        self.timers.set(Timer::Dial, now + jitter(&mut scope.cx.rng, delay, 0.8..1.2));
        effects
    }

    /// A dial failed.
    pub(super) fn dial_failed(&mut self, peer: &EndpointId) {
        self.dialed.remove(peer);
    }

    /// A sync that this node began is complete, and `differed` records were new to one of the two
    /// ends. There is a gap if the partner was lost, or if gossip missed more than one record.
    pub(super) fn on_synced(&mut self, peer: EndpointId, differed: usize, scope: &mut Scope) {
        let now = scope.now();
        let was_lost = self.dialed.remove(&peer);
        let is_neighbor = scope.view.neighbors.contains(&peer);
        if !(was_lost || differed > 1) || is_neighbor || scope.view.attached.is_none() {
            return;
        }
        let rested = |at: Instant| now.saturating_duration_since(at) >= JOIN_INTERVAL;
        if self.join.is_none() && self.joined.is_none_or(rested) {
            debug_assert!(self.timers.at(Timer::Join).is_none(), "one gap is closed at a time");
            self.join = Some((peer, 0));
            self.timers.set(Timer::Join, now + JOIN_DELAY);
        }
        if was_lost {
            // More lost members may be back.
            self.delay = None;
            self.timers.set_by(Timer::Dial, now + JOIN_DELAY);
        }
    }

    fn join_behind_gap(&mut self, scope: &mut Scope) -> Effects {
        let Some((peer, attempts)) = self.join.take() else { return Effects::none() };
        debug_assert!(attempts <= JOIN_ATTEMPTS, "a partner that never refutes is given up");
        if scope.view.neighbors.contains(&peer) {
            return Effects::none();
        }
        let now = scope.now();
        if scope.book.get(&peer).is_some() && !scope.book.is_suspected(&peer) {
            let (topic, peer_id) = (scope.topic.fmt_short(), peer.fmt_short());
            tracing::info!(%topic, peer = %peer_id, "joining the overlay beyond a gap");
            self.joined = Some(now);
            return Effects::one(Effect::JoinOverlay(peer));
        }
        if attempts < JOIN_ATTEMPTS {
            self.join = Some((peer, attempts + 1));
            self.timers.set(Timer::Join, now + JOIN_DELAY);
        }
        Effects::none()
    }
}

/// Chooses a lost member to dial. Half of the dials are to those that this node had reached, as far
/// as there are any: peers can make up as many others as they want.
fn choose(able: Vec<EndpointId>, scope: &mut Scope) -> Option<EndpointId> {
    let of_all = able.len();
    let reached = able.iter().filter(|peer| scope.book.is_reached(peer)).copied();
    let reached: Vec<_> = reached.collect();
    let is_mixed = !reached.is_empty() && reached.len() < of_all;
    let chosen = if is_mixed && scope.cx.rng.random_bool(0.5) { reached } else { able };
    chosen.into_iter().choose(&mut scope.cx.rng)
}

/// Returns true if more than a tenth of all known members are lost, and one of them recently. So it
/// is if that holds for the members that this node had reached, and [`MANY`] of those are lost:
/// peers can make up as many others as they want, beside which the lost ones are few.
fn is_torn(scope: &Scope) -> bool {
    let recent = |since: Instant| scope.now().saturating_duration_since(since) < RECENT;
    let (mut of_all, mut of_reached) = (Lost::default(), Lost::default());
    for (peer, since, _) in scope.book.lost() {
        of_all.add(recent(since));
        if scope.book.is_reached(&peer) {
            of_reached.add(recent(since));
        }
    }
    of_all.is_torn_from(scope.book.len())
        || of_reached.count >= MANY && of_reached.is_torn_from(scope.book.reached())
}

/// How many members were lost, and whether one of them was recently.
#[derive(Default)]
struct Lost {
    count: usize,
    any_recent: bool,
}

impl Lost {
    fn add(&mut self, recent: bool) {
        self.count += 1;
        self.any_recent |= recent;
    }

    /// Returns true if this node and `living` members are few beside those that were lost.
    fn is_torn_from(&self, living: usize) -> bool {
        self.any_recent && self.count * 10 > self.count + living + 1
    }
}
