//! What happens to links and to the network, and how much the components need a link.

use std::{collections::BTreeSet, time::Duration};

use super::{Topic, scope::Scope};
use crate::{
    context::Context,
    event::{CloseCode, LinkEnd, LinkId},
    id::EndpointId,
    links::Need,
};

impl Topic {
    /// A peer has a usable link.
    pub(crate) fn link_up(&mut self, peer: EndpointId, cx: &mut Context) {
        self.book.reach(&peer);
        self.contacts.link_up(&peer, scope!(self, cx));
        self.heard(peer, cx);
        self.leave.link_up(peer, scope!(self, cx));
        let effects = self.syncs.link_up(peer, scope!(self, cx));
        self.carry_out(effects, cx);
        self.neighborhood.link_up(&peer, narrow_scope!(self, cx));
        if self.needs(&peer) != Need::Nothing {
            cx.links.touch(&peer, self.config.link_idle, cx.now);
        }
    }

    /// A peer opened this topic on a link.
    pub(crate) fn opened(&mut self, peer: EndpointId, cx: &mut Context) {
        let is_new = !self.peers.is_linked(&peer);
        self.contacts.opened(peer, scope!(self, cx));
        if is_new {
            self.revocations.greet(peer, scope!(self, cx));
        }
    }

    /// The link in use with a peer is gone.
    pub(crate) fn link_down(&mut self, peer: EndpointId, end: LinkEnd, cx: &mut Context) {
        if self.peers.is_linked(&peer) {
            let (topic, peer) = (self.id.fmt_short(), peer.fmt_short());
            tracing::debug!(%topic, %peer, ?end, "link down");
        }
        self.forget_partner(peer, cx);
        // A link that ended by a leave, a refusal or a better link says nothing against the peer.
        let broken =
            matches!(end, LinkEnd::TimedOut | LinkEnd::Lost | LinkEnd::Remote(CloseCode::Shutdown));
        if broken {
            self.detector.link_broken(peer, scope!(self, cx));
        }
        self.contacts.link_down(&peer, end, scope!(self, cx));
    }

    /// The link to a peer is closed, because it was silent since the network changed. The probe
    /// uses the link that is dialed in its place.
    pub(crate) fn link_given_up(&mut self, peer: EndpointId, cx: &mut Context) {
        self.detector.link_broken(peer, scope!(self, cx));
    }

    /// A link that was no longer in use is gone: the syncs on it end.
    pub(crate) fn link_gone(&mut self, peer: EndpointId, link: LinkId, cx: &mut Context) {
        let effects = self.syncs.link_gone(peer, link, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// A dial failed.
    pub(crate) fn dial_failed(&mut self, peer: EndpointId, cx: &mut Context) {
        self.syncs.dial_failed(&peer);
        self.neighborhood.dial_failed(&peer);
        self.contacts.avoid(peer, scope!(self, cx));
        self.healing.dial_failed(&peer);
        self.detector.dial_failed(peer, scope!(self, cx));
        self.leave_without(peer, cx);
    }

    /// A peer no longer speaks of this topic.
    pub(super) fn forget_partner(&mut self, peer: EndpointId, cx: &mut Context) {
        let was_syncing = self.syncs.unlinked(peer);
        self.dissemination.introduction_over(scope!(self, cx));
        self.syncs.source_gone(&peer, scope!(self, cx));
        self.detector.forget_link(&peer);
        self.neighborhood.unlinked(peer, narrow_scope!(self, cx));
        self.drive_overlay(cx);
        self.contacts.unlinked(&peer, was_syncing, scope!(self, cx));
        self.revocations.unlinked(&peer);
        self.leave_without(peer, cx);
        debug_assert!(!self.peers.is_linked(&peer), "all components know that it is gone");
        debug_assert!(!self.neighborhood.is_neighbor(&peer), "a neighbor has a link");
    }

    /// A peer gave a sign of life.
    pub(crate) fn heard(&mut self, peer: EndpointId, cx: &mut Context) {
        self.syncs.heard(peer, scope!(self, cx));
        let effects = self.detector.heard(peer, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// This node's network changed, or is away.
    pub(crate) fn on_network_change(&mut self, away: bool, cx: &mut Context) {
        self.detector.on_network_change(scope!(self, cx));
        if !away && !self.leave.is_begun() {
            self.contacts.on_network_change(scope!(self, cx));
            self.on_loss(cx);
        }
    }

    /// This node was paused.
    pub(crate) fn on_pause(&mut self, late: Duration, cx: &mut Context) {
        self.detector.on_pause(late, scope!(self, cx));
    }

    /// Returns how long a probe waits for an answer, by the setting.
    pub(crate) fn probe_time(&self) -> Duration {
        self.config.probe_timeout
    }

    pub(crate) fn link_idle(&self) -> Duration {
        self.config.link_idle
    }

    /// Returns how much this topic needs the link to a peer.
    pub(crate) fn needs(&self, peer: &EndpointId) -> Need {
        if self.neighborhood.is_neighbor(peer) {
            return Need::UntilTouched;
        }
        let for_now = self.neighborhood.needs(peer)
            || self.syncs.needs(peer)
            || self.detector.needs(peer)
            || self.leave.is_begun();
        if for_now { Need::ForNow } else { Need::Nothing }
    }

    pub(crate) fn speaks_with(&self, peer: &EndpointId) -> bool {
        self.peers.is_linked(peer) || self.needs(peer) != Need::Nothing
    }

    pub(crate) fn into_peers(self) -> BTreeSet<EndpointId> {
        self.peers.linked().iter().copied().chain(self.leave.into_notified()).collect()
    }

    /// Dials another link to a member whose link is silent.
    pub(crate) fn open_another(&mut self, peer: EndpointId, cx: &mut Context) {
        let scope: &mut Scope = scope!(self, cx);
        if let Some(addresses) = scope.addresses(&peer) {
            let named = scope.peers.named(&peer);
            scope.cx.links.open_another(peer, &addresses, named, scope.cx.now);
        }
    }

    /// A peer is gone, or can't be reached: the leave of this node does not wait for it.
    pub(super) fn leave_without(&mut self, peer: EndpointId, cx: &mut Context) {
        let effects = self.leave.gone(peer);
        self.carry_out(effects, cx);
    }
}
