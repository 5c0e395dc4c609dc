//! The failure detector: finds by probes, accusations and verdicts which members are dead.
//!
//! A failed probe becomes a suspicion, and a suspicion leads to probes, so both are one component.

mod probe;
mod suspect;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use super::{effect::Effects, scope::Scope};
use crate::{id::EndpointId, timers::Timers};

#[derive(Debug, Default)]
pub(super) struct Detector {
    probes: probe::Probes,
    suspicions: suspect::Suspicions,
    timers: Timers<Timer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Check the neighbors, and take the next step of a probe.
    Probe,
    /// Report suspicions to the application, and pass a verdict.
    Suspicion,
    /// Probe a random member, because many members died.
    Survey,
}

impl Detector {
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.probes.sizes().into_iter().chain(self.suspicions.sizes())
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Handles one thing that is due. What follows from it is done before the next one.
    pub(super) fn on_timeout(&mut self, scope: &mut Scope) -> Effects {
        match self.timers.take_due(scope.now()) {
            Some(Timer::Probe) => self.on_probe(scope),
            Some(Timer::Suspicion) => self.on_suspicion(scope),
            Some(Timer::Survey) => self.on_survey(scope),
            None => Effects::none(),
        }
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self, scope: &mut Scope) {
        self.probes.clear();
        self.suspicions.clear();
        scope.book.clear_accusations();
        self.timers.clear_all();
    }

    /// Returns true while a probe, or a suspicion, needs the link to a peer.
    pub(super) fn needs(&self, peer: &EndpointId) -> bool {
        self.probes.is_probing(peer) || self.suspicions.is_suspected(peer)
    }

    /// A member became a neighbor: it is probed from now on.
    pub(super) fn neighbor_up(&mut self, peer: EndpointId, scope: &mut Scope) {
        self.watch(peer, scope);
    }

    pub(super) fn neighbor_down(&mut self, peer: &EndpointId) {
        self.unwatch(peer);
    }

    /// The link to a peer broke: neither end closed it. A suspected peer is dialed again too, or it
    /// could not be heard before the verdict.
    pub(super) fn link_broken(&mut self, peer: EndpointId, scope: &mut Scope) {
        if scope.book.get(&peer).is_some() {
            self.probe(peer, true, None, scope);
        }
    }

    /// A peer no longer speaks of this topic.
    pub(super) fn forget_link(&mut self, peer: &EndpointId) {
        self.suspicions.forget_link(peer);
    }

    /// This node was paused: what it did not hear meanwhile says nothing about other nodes.
    pub(super) fn on_pause(&mut self, late: Duration, scope: &mut Scope) {
        tracing::debug!(topic = %scope.topic.fmt_short(), ?late, "this node was paused");
        scope.cx.counts.pauses += 1;
        self.restart_probes(scope);
        self.extend_suspicions(late, scope);
    }

    /// This node's network changed, or is away: what it did not hear meanwhile says nothing about
    /// other nodes.
    pub(super) fn on_network_change(&mut self, scope: &mut Scope) {
        self.restart_probes(scope);
        self.extend_suspicions(Duration::ZERO, scope);
    }
}
