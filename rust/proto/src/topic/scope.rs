//! What a component of a topic sees and may use, besides its own state.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::IteratorRandom;
use tokio::time::Instant;

use super::suspect::Suspicions;
use crate::{
    book::Book,
    config::Config,
    error::Error,
    event::{CloseCode, TopicEvent},
    id::{EndpointId, TopicId},
    state::Context,
};

/// The world of a component for the time of one call: the book, the links, time and chance.
///
/// A component changes nothing of another one. What it wants others to do, it returns as
/// [`Effects`](super::effect::Effects).
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) topic: TopicId,
    pub(super) config: &'a Config,
    pub(super) book: &'a mut Book,
    pub(super) view: View<'a>,
    /// The links, time, chance and counts, which all topics of an endpoint share.
    pub(super) cx: &'a mut Context,
}

/// What is known of peers beyond the book, to be read only: each part has one component that owns
/// it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// The active view of the overlay.
    pub(super) neighbors: &'a BTreeSet<EndpointId>,
    /// Since when this node is in the overlay.
    pub(super) attached: Option<Instant>,
    pub(super) suspicions: &'a Suspicions,
    pub(super) avoided: &'a Avoided,
    /// This node leaves the topic.
    pub(super) leaving: bool,
}

/// Peers that recently could not be dialed, or do not serve this topic, and until when each of them
/// is not chosen.
pub(super) type Avoided = BTreeMap<EndpointId, Instant>;

impl Scope<'_> {
    pub(super) fn now(&self) -> Instant {
        self.cx.now
    }

    pub(super) fn me(&self) -> EndpointId {
        self.cx.me
    }

    pub(super) fn emit(&mut self, event: TopicEvent) {
        self.cx.emit(self.topic, event);
    }

    pub(super) fn dropped(&mut self, what: &'static str, peer: Option<EndpointId>) {
        self.cx.links.dropped(what, peer);
    }

    /// Closes the link on which something came that does not verify: honest peers verify what they
    /// forward.
    pub(super) fn refuse(&mut self, error: &Error, from: EndpointId) {
        tracing::info!(
            topic = %self.topic.fmt_short(),
            peer = %from.fmt_short(),
            reason = %error,
            "a record or an accusation was refused"
        );
        self.cx.links.dropped("records forged or malformed", Some(from));
        self.cx.links.close_peer(&from, CloseCode::Protocol);
    }

    /// Up to `count` random members. None of them is this node, suspected, or to be avoided.
    pub(super) fn random_members(
        &mut self,
        count: usize,
        without: &BTreeSet<EndpointId>,
    ) -> Vec<EndpointId> {
        let View { avoided, suspicions, .. } = self.view;
        let now = self.cx.now;
        let is_avoided = |id: &EndpointId| avoided.get(id).is_some_and(|until| *until > now);
        self.book
            .others()
            .filter(|id| !without.contains(id) && !is_avoided(id) && !suspicions.is_suspected(id))
            .sample(&mut self.cx.rng, count)
    }
}
