//! Observers: nodes that see the book and are in nobody's.
//!
//! An observer has a source: one member that pushes news and digests to it, as to a newcomer. It
//! compares its book with its source's every few seconds. That also tells the source that it is
//! still there, and shows that the source is. Now and then it takes another member as its source,
//! so that no single member decides for long what it sees.
//!
//! A member has [`Config::observers`](crate::Config::observers) at the most.

use std::{collections::BTreeSet, time::Duration};

use super::{NEWCOMER_HELP, Syncs, Timer};
use crate::{
    event::TopicEvent,
    id::EndpointId,
    timers::jitter,
    topic::{
        effect::{Effect, Effects},
        scope::{SETTLED, Scope},
    },
    wire::TopicFrame,
};

/// An observer compares its book with its source's this often. A member helps it for longer.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(4);
/// After news, books are compared again as soon as they should be settled.
const OBSERVE_SOON: Duration = SETTLED.saturating_mul(2);
/// An observer without a source looks for one after this, besides the redials.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// A member's side.
impl Syncs {
    pub(in super::super) fn observer_count(&self) -> usize {
        self.observers.len()
    }

    /// Keeps an observer up to date from now on, if there is room for it.
    pub(super) fn register(&mut self, peer: EndpointId, scope: &mut Scope) {
        let now = scope.now();
        self.newcomers.remove(&peer);
        self.observers.retain(|_, until| *until > now);
        if self.observers.len() < scope.config.observers || self.observers.contains_key(&peer) {
            self.observers.insert(peer, now + NEWCOMER_HELP);
        }
        debug_assert!(
            self.observers.len() <= scope.config.observers,
            "observers beyond the limit are passed on"
        );
    }
}

/// An observer's side.
impl Syncs {
    pub(super) fn is_source(&self, peer: &EndpointId) -> bool {
        self.source == Some(*peer)
    }

    /// A sync that this observer began is complete: its partner is the source from now on.
    pub(super) fn take_source(&mut self, peer: EndpointId, news: usize, scope: &mut Scope) {
        let interval = if news > 0 { OBSERVE_SOON } else { OBSERVE_INTERVAL };
        self.observe_within(interval, scope);
        let before = self.source.replace(peer);
        if before == Some(peer) {
            return;
        }
        if let Some(before) = before {
            self.release(before, scope);
            scope.send(&before, TopicFrame::Attached);
        }
        let (topic, peer_id) = (scope.topic.fmt_short(), peer.fmt_short());
        tracing::debug!(%topic, peer = %peer_id, "observing through another member");
        scope.emit(TopicEvent::NeighborUp(peer));
    }

    fn release(&mut self, source: EndpointId, scope: &mut Scope) {
        self.neighbor_down(&source);
        scope.cx.links.touch(&source, scope.config.link_idle, scope.cx.now);
        scope.emit(TopicEvent::NeighborDown(source));
    }

    /// A peer does not speak of this topic any more. If it was the source, another one is looked
    /// for.
    pub(in super::super) fn source_gone(&mut self, peer: &EndpointId, scope: &mut Scope) {
        if self.source.take_if(|source| source == peer).is_some() {
            self.release(*peer, scope);
            if !scope.view.leaving {
                self.observe_within(SEARCH_INTERVAL, scope);
            }
        }
    }

    /// A sync stalled too often. An observer whose source does not answer takes another one.
    pub(super) fn give_up(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let mut effects = Effects::one(Effect::SyncFailed);
        if self.is_source(&peer) {
            self.source_gone(&peer, scope);
            effects.push(Effect::Avoid(peer));
            let others = scope.random_members(1, &BTreeSet::from([peer]));
            effects.append(others.into_iter().map(Effect::Contact).collect());
        }
        effects
    }

    pub(super) fn on_observe(&mut self, scope: &mut Scope) -> Effects {
        if let Some(source) = self.source {
            self.observe_within(OBSERVE_INTERVAL, scope);
            return self.start(source, scope);
        }
        self.observe_within(SEARCH_INTERVAL, scope);
        let members = scope.random_members(1, &BTreeSet::new());
        members.into_iter().map(Effect::Contact).collect()
    }

    fn observe_within(&mut self, interval: Duration, scope: &mut Scope) {
        let at = scope.now() + jitter(&mut scope.cx.rng, interval, 0.8..1.0);
        self.timers.set(Timer::Observe, at);
    }
}
