//! Healing (design D8): who was lost is dialed now and then, as a partition looks like many deaths.
//!
//! Two sides that meet again compare their books first: each learns whom it is held to be dead by,
//! and refutes. Then one of them joins the other's overlay, once for each gap that is found.

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, seq::IteratorRandom};
use tokio::time::Instant;

use super::{Timer, Topic};
use crate::{id::EndpointId, rule::Rule, state::Context, timers::jitter};

/// While more than a tenth of all were lost, and the last of them within this time, dials are as
/// frequent as in isolation.
const FRESH: Duration = Duration::from_mins(10);
/// After a sync that found a gap, the partner's refutation has this long to arrive, so many times.
const JOIN_DELAY: Duration = Duration::from_millis(200);
const JOIN_ATTEMPTS: u32 = 10;
/// One overlay join for a gap in this time.
const JOIN_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Healing {
    delay: Option<Duration>,
    /// Lost members that are dialed, or synced with, to heal.
    dialed: BTreeSet<EndpointId>,
    /// A partner behind a gap, to join the overlay through.
    join: Option<(EndpointId, u32)>,
    joined: Option<Instant>,
}

impl Topic {
    /// Somebody was lost: dial soon, with the shortest delay again.
    pub(super) fn heal_soon(&mut self, cx: &mut Context) {
        if self.leaving.is_none() && cx.is_on(Rule::Healing) {
            self.healing.delay = None;
            let delay =
                if self.is_torn(cx) { self.config.redial_min } else { self.config.heal_interval };
            let at = cx.now + jitter(&mut cx.rng, delay, 0.8..1.2);
            self.timers.set_by(Timer::Heal, at);
        }
    }

    /// Whether more than a tenth of all known were lost, of late.
    fn is_torn(&self, cx: &Context) -> bool {
        let fresh = |since: Instant| cx.now.saturating_duration_since(since) < FRESH;
        let (mut lost, mut any_fresh) = (0, false);
        for (_, since, _) in self.book.lost() {
            lost += 1;
            any_fresh |= fresh(since);
        }
        any_fresh && lost * 10 > lost + self.book.len() + 1
    }

    pub(super) fn on_heal(&mut self, cx: &mut Context) {
        let lost: Vec<_> = self.book.lost().map(|(id, _, next)| (id, next)).collect();
        if lost.is_empty() {
            return;
        }
        let torn = self.is_torn(cx);
        let alive = self.book.len() + 1;
        let (due, delay) = if torn {
            let delay = self.healing.delay.unwrap_or(self.config.redial_min);
            self.healing.delay = Some((delay * 3 / 2).min(self.config.redial_max));
            (true, delay)
        } else {
            // All together dial as many as were lost in each interval, two at the least.
            #[allow(clippy::cast_precision_loss, reason = "a probability")]
            let share = (lost.len().max(2) as f64 / alive as f64).min(1.0);
            (cx.rng.random_bool(share), self.config.heal_interval)
        };
        if due {
            let able = lost.iter().filter(|(_, next)| torn || *next <= cx.now);
            if let Some((peer, _)) = able.choose(&mut cx.rng).copied() {
                let (interval, max) = (self.config.heal_interval, self.config.heal_interval_max);
                self.book.dialed(&peer, interval, max, cx.now);
                self.healing.dialed.insert(peer);
                self.contact(peer, cx);
            }
        }
        let at = cx.now + jitter(&mut cx.rng, delay, 0.8..1.2);
        self.timers.set(Timer::Heal, at);
    }

    /// A dial to a lost member did not lead to a link.
    pub(super) fn heal_failed(&mut self, peer: &EndpointId) {
        self.healing.dialed.remove(peer);
    }

    /// A sync that this node began is complete. Behind a partner who was lost, or where either had
    /// more than one record that gossip did not bring the other, lies a gap.
    pub(super) fn look_for_gap(&mut self, peer: EndpointId, news: usize, cx: &mut Context) {
        let was_lost = self.healing.dialed.remove(&peer);
        let neighbor = self.overlay.neighbors().contains(&peer);
        if !(was_lost || news > 1) || neighbor || self.attached_since.is_none() {
            return;
        }
        let rested = |at: Instant| cx.now.saturating_duration_since(at) >= JOIN_INTERVAL;
        if self.healing.join.is_none() && self.healing.joined.is_none_or(rested) {
            self.healing.join = Some((peer, 0));
            self.timers.set(Timer::HealJoin, cx.now + JOIN_DELAY);
        }
        if was_lost {
            // More of them may be there again.
            self.healing.delay = None;
            self.timers.set_by(Timer::Heal, cx.now + JOIN_DELAY);
        }
    }

    pub(super) fn on_heal_join(&mut self, cx: &mut Context) {
        let Some((peer, attempts)) = self.healing.join.take() else { return };
        if self.overlay.neighbors().contains(&peer) {
            return;
        }
        if self.book.get(&peer).is_some() && !self.is_suspected(&peer) {
            tracing::info!(topic = %self.id.fmt_short(), peer = %peer.fmt_short(), "joining the overlay behind a gap");
            self.healing.joined = Some(cx.now);
            self.overlay.join(peer, cx.now);
            self.drive_overlay(cx);
        } else if attempts < JOIN_ATTEMPTS {
            self.healing.join = Some((peer, attempts + 1));
            self.timers.set(Timer::HealJoin, cx.now + JOIN_DELAY);
        }
    }
}
