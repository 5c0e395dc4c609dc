//! How this node enters the overlay: through one member, and again once it has no neighbor.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant};

use super::choice::{linked_members, suggestions};
use crate::{
    id::EndpointId,
    overlay::Overlay,
    timers::{earlier, jitter},
    topic::{
        effect::{Effect, Effects},
        scope::NarrowScope,
    },
};

/// A node with members waits this long for one of them to ask it, before it asks one.
const JOIN_WAIT: Duration = Duration::from_millis(300);
/// First and largest delay between two attempts to enter the overlay.
const JOIN_MIN: Duration = Duration::from_secs(1);
const JOIN_MAX: Duration = Duration::from_secs(10);
/// A newcomer whose first request has no link after this time asks a member that it is linked with.
pub(super) const JOIN_FALLBACK: Duration = Duration::from_millis(250);

/// The way of this node into the overlay.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// When this node entered the overlay. A newcomer is in it once a request of its own made it a
    /// neighbor. A node that only other newcomers requested may be cut off together with them.
    attached: Option<Instant>,
    /// A member that was in the overlay before this node. If each join leads to an earlier member,
    /// all joins together form one tree.
    through: Option<EndpointId>,
    attempts: u32,
    /// The member without a link that this node, as a newcomer, asked to let it in.
    entrance: Option<EndpointId>,
    /// All members that this node asked to let it in, since it is outside.
    asked: BTreeSet<EndpointId>,
    /// When this node enters through a member.
    timer: Option<Instant>,
}

impl Entry {
    /// Returns when this node entered the overlay, if it is in it.
    pub(super) fn attached(&self) -> Option<Instant> {
        self.attached
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.timer = None;
    }

    /// Returns true if this node, which is outside, asked a peer to let it in.
    pub(super) fn is_entrance(&self, peer: EndpointId) -> bool {
        self.asked.contains(&peer)
    }

    /// This node has no neighbor any more: it enters the overlay again.
    pub(super) fn lost_neighbors(&mut self, overlay: &mut Overlay, scope: &mut NarrowScope) {
        self.attached = None;
        self.attempts = 0;
        self.asked.clear();
        if !scope.view.leaving {
            // A request to be neighbors pushes out one node at most, and a join several. So
            // requests come first.
            let members = suggestions(&BTreeSet::new(), scope);
            overlay.suggest(members, scope.now());
            let delay = JOIN_MIN + scope.spread() + scope.cx.lag();
            let at = scope.now() + jitter(&mut scope.cx.rng, delay, 0.1..0.5);
            self.timer = earlier(self.timer, Some(at));
        }
    }

    /// Returns true if this node has asked to enter the overlay: its next neighbor means that it is
    /// in it.
    pub(super) fn is_entering(&self) -> bool {
        self.attempts > 0
    }

    /// This node has a neighbor that it requested. Returns true if it was not in the overlay.
    pub(super) fn attach(&mut self, now: Instant) -> bool {
        let enters = self.attached.is_none();
        if enters {
            self.attached = Some(now);
            self.timer = None;
            self.asked.clear();
        }
        enters
    }

    /// A sync that this node began is complete: a newcomer enters the overlay.
    pub(super) fn after_sync(&mut self, scope: &mut NarrowScope) {
        if self.attached.is_some() || scope.config.observer {
            return;
        }
        if self.timer.is_none() {
            self.attempts = 0;
        }
        if self.attempts == 0 {
            self.asked.clear();
            self.through = scope.random_members(1, &BTreeSet::new()).first().copied();
            let spread = scope.spread();
            let at = scope.now() + jitter(&mut scope.cx.rng, spread, 0.0..1.0);
            self.timer = earlier(self.timer, Some(at));
        }
    }

    /// The book has members, and none made this node a neighbor yet. The first node of a swarm
    /// waits to be asked, but not forever.
    pub(super) fn soon(&mut self, scope: &mut NarrowScope) {
        let may = !scope.view.leaving && !scope.config.observer;
        if self.attached.is_none() && self.timer.is_none() && may {
            let at = scope.now() + jitter(&mut scope.cx.rng, JOIN_WAIT, 0.5..1.5);
            self.timer = Some(at);
        }
    }

    /// Enters the overlay through one member, if this node is not in it.
    pub(super) fn on_timeout(&mut self, overlay: &mut Overlay, scope: &mut NarrowScope) -> Effects {
        self.timer = None;
        if self.attached.is_some() {
            return Effects::none();
        }
        let (now, burst) = (scope.now(), scope.spread() + scope.cx.lag());
        if self.attempts == 0 && scope.view.syncing && scope.is_late_in_burst() {
            // The partner of the sync pushes all records meanwhile.
            let at = now + jitter(&mut scope.cx.rng, JOIN_WAIT, 0.5..1.5) + scope.cx.lag();
            self.timer = Some(at);
            return Effects::none();
        }
        let earlier = self.through.take().filter(|id| scope.book.get(id).is_some());
        let waits = self.entrance.take();
        if waits.is_some_and(|member| scope.cx.links.current(&member).is_some()) {
            // Its link came late, and its answer may be under way. A second request would push
            // others out of full views.
            let at = now + jitter(&mut scope.cx.rng, JOIN_FALLBACK / 2 + burst, 0.8..1.2);
            self.timer = Some(at);
            return Effects::none();
        }
        // The member that was asked may be gone, or it was never reachable, or it is hostile and
        // says nothing.
        let unreached = waits.is_some() || self.attempts > 0;
        let linked = if unreached { self.not_asked(scope) } else { None };
        let earlier = linked.or(earlier);
        let anyone = scope.random_members(1, &BTreeSet::new()).first().copied();
        let Some(member) = earlier.or(anyone) else {
            // With an empty book, the first node that comes will sync with this one, and be a
            // member. If all members are avoided now, this node tries again later.
            if scope.book.len() > 0 {
                let at = now + jitter(&mut scope.cx.rng, JOIN_MAX, 0.8..1.2);
                self.timer = Some(at);
            }
            return Effects::none();
        };
        if overlay.neighbors().contains(&member) {
            return Effects::one(Effect::Attached);
        }
        overlay.join(member, now);
        self.asked.insert(member);
        self.attempts += 1;
        let others = self.not_asked(scope).is_some();
        if scope.cx.links.current(&member).is_none() && others {
            self.entrance = Some(member);
            self.timer = Some(now + JOIN_FALLBACK + scope.cx.lag());
            return Effects::none();
        }
        let delay = if others { JOIN_FALLBACK } else { JOIN_MIN };
        let delay = delay * 2_u32.saturating_pow(self.attempts.min(9) - 1);
        let at = now + jitter(&mut scope.cx.rng, delay.min(JOIN_MAX) + burst, 0.8..1.2);
        self.timer = Some(at);
        Effects::none()
    }

    /// Returns a linked member that this node has not asked yet. Those that the user named come
    /// first: hostile members may hold most of the links of a newcomer.
    fn not_asked(&self, scope: &mut NarrowScope) -> Option<EndpointId> {
        let mut without = self.asked.clone();
        let peers = scope.peers.linked().iter();
        without.extend(peers.filter(|peer| !scope.peers.is_named(peer)));
        let named = linked_members(1, &without, scope).pop();
        named.or_else(|| linked_members(1, &self.asked, scope).pop())
    }
}
