//! Observers: nodes that see the book and are in nobody's.
//!
//! An observer has a source: one member that pushes news and digests to it, as to a newcomer. It
//! compares its book with its source's every few seconds. That also tells the source that it is
//! still there, and shows that the source is. Now and then it takes another member as its source,
//! so that no single member decides for long what it sees.
//!
//! A member has [`Config::observers`](crate::Config::observers) at the most.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant};

use crate::{
    event::TopicEvent,
    id::EndpointId,
    timers::jitter,
    topic::scope::{SETTLED, Scope},
    wire::TopicFrame,
};

/// An observer compares its book with its source's this often. A member helps it for longer.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(4);
/// After news, books are compared again as soon as they should be settled.
const OBSERVE_SOON: Duration = SETTLED.saturating_mul(2);
/// An observer without a source looks for one after this, besides the redials.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// The member that keeps this node up to date, if it only observes.
#[derive(Debug, Default)]
pub(super) struct Source {
    peer: Option<EndpointId>,
    /// When this observer compares its book with its source's, or looks for a source.
    timer: Option<Instant>,
}

impl Source {
    pub(super) fn is(&self, peer: &EndpointId) -> bool {
        self.peer == Some(*peer)
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.timer = None;
    }

    /// A sync that this observer began is complete: its partner is the source from now on. Returns
    /// the one before, if it was another one.
    pub(super) fn take(
        &mut self,
        peer: EndpointId,
        news: usize,
        scope: &mut Scope,
    ) -> Option<EndpointId> {
        let interval = if news > 0 { OBSERVE_SOON } else { OBSERVE_INTERVAL };
        self.observe_within(interval, scope);
        debug_assert!(scope.config.observer, "members have neighbors in place of a source");
        let before = self.peer.replace(peer);
        if before == Some(peer) {
            return None;
        }
        if let Some(before) = before {
            release(before, scope);
            scope.send(&before, TopicFrame::Attached);
        }
        let (topic, peer_id) = (scope.topic.fmt_short(), peer.fmt_short());
        tracing::debug!(%topic, peer = %peer_id, "observing through another member");
        scope.emit(TopicEvent::NeighborUp(peer));
        before
    }

    /// A peer does not speak of this topic any more. If it was the source, another one is looked
    /// for. Returns true then.
    pub(super) fn gone(&mut self, peer: &EndpointId, scope: &mut Scope) -> bool {
        let was_source = self.peer.take_if(|source| source == peer).is_some();
        if was_source {
            release(*peer, scope);
            if !scope.view.leaving {
                self.observe_within(SEARCH_INTERVAL, scope);
            }
        }
        was_source
    }

    /// Returns the source, with which books are compared now. `Err` with a member to choose as the
    /// source, if there is no source.
    pub(super) fn on_timeout(&mut self, scope: &mut Scope) -> Result<EndpointId, Vec<EndpointId>> {
        if let Some(source) = self.peer {
            self.observe_within(OBSERVE_INTERVAL, scope);
            return Ok(source);
        }
        self.observe_within(SEARCH_INTERVAL, scope);
        Err(scope.likely_members(1, &BTreeSet::new()))
    }

    fn observe_within(&mut self, interval: Duration, scope: &mut Scope) {
        let at = scope.now() + jitter(&mut scope.cx.rng, interval, 0.8..1.0);
        self.timer = Some(at);
    }
}

fn release(source: EndpointId, scope: &mut Scope) {
    scope.cx.links.touch(&source, scope.config.link_idle, scope.cx.now);
    scope.emit(TopicEvent::NeighborDown(source));
}
