//! What the application and the driver want of a topic.

use std::sync::Arc;

use iroh_base::TransportAddr;

use super::{
    Topic,
    scope::{Scope, log},
};
use crate::{
    channel::Channel,
    context::Context,
    dials::Trust,
    error::Error,
    event::{LostReason, OutEvent, TopicEvent},
    id::EndpointId,
    invitation::Revocation,
    kept::Kept,
    record::Profile,
};

impl Topic {
    /// Announces this node's record as it should be now.
    pub(crate) fn announce(&mut self, cx: &mut Context) {
        let effects = self.announcer.announce(scope!(self, cx));
        self.carry_out(effects, cx);
    }

    pub(crate) fn announce_if_pending(&mut self, cx: &mut Context) {
        let effects = self.announcer.announce_if_pending(scope!(self, cx));
        self.carry_out(effects, cx);
    }

    pub(crate) fn set_profile(&mut self, profile: Profile, cx: &mut Context) -> Result<(), Error> {
        let effects = self.announcer.set_profile(profile, scope!(self, cx))?;
        self.carry_out(effects, cx);
        Ok(())
    }

    /// Starts to leave. [`Topic::is_done`] returns true once nothing is left to do.
    pub(crate) fn leave(&mut self, cx: &mut Context) {
        if self.leave.is_begun() {
            return;
        }
        let record = self.announcer.stop(scope!(self, cx));
        self.neighborhood.stop();
        self.syncs.stop();
        self.dissemination.stop();
        self.detector.stop(scope!(self, cx));
        self.healing.stop();
        self.contacts.stop();
        let effects = self.leave.begin(record, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.leave.is_done()
    }

    pub(crate) fn add_bootstrap(
        &mut self,
        peers: Vec<(EndpointId, Vec<TransportAddr>)>,
        cx: &mut Context,
    ) {
        self.contacts.add_bootstrap(peers, scope!(self, cx));
    }

    pub(crate) fn remove_bootstrap(&mut self, peers: &[EndpointId], cx: &mut Context) {
        self.contacts.remove_bootstrap(peers, scope!(self, cx));
    }

    /// A lookup on the local network found a peer.
    pub(crate) fn found(
        &mut self,
        peer: EndpointId,
        addresses: Vec<TransportAddr>,
        cx: &mut Context,
    ) {
        self.contacts.found(peer, addresses, scope!(self, cx));
    }

    /// A handshake at an address behind a bootstrap name proved a peer's id.
    pub(crate) fn learned(&mut self, peer: EndpointId, address: TransportAddr, cx: &mut Context) {
        let effects = self.contacts.learned(peer, address, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// Takes in records that an earlier life had in its book. Their owners are dialed at those
    /// addresses until they confirm that they are alive, or until the records age out.
    pub(crate) fn remember(&mut self, records: Vec<Kept>, cx: &mut Context) {
        let mut news = false;
        for Kept { signed, left, established } in records {
            news |= self.book.remember(signed, left, established, cx.now);
        }
        if !news || self.leave.is_begun() {
            return;
        }
        if self.peers.is_alone() {
            self.contacts.on_kept(scope!(self, cx));
        } else {
            self.on_loss(cx);
        }
    }

    /// Sends data of the application to all members.
    pub(crate) fn broadcast(
        &mut self,
        channel: Option<&Channel>,
        data: &[u8],
        cx: &mut Context,
    ) -> Result<(), Error> {
        let effects = self.broadcasts.send(channel, data, scope!(self, cx))?;
        self.carry_out(effects, cx);
        Ok(())
    }

    /// The application wants a link to a peer, which may be any.
    pub(crate) fn connect(&mut self, peer: EndpointId, cx: &mut Context) {
        let scope: &mut Scope = scope!(self, cx);
        let known = scope.addresses(&peer);
        let addresses = known.or_else(|| self.detector.unconfirmed_addresses(&peer));
        let addresses = addresses.unwrap_or_default();
        cx.links.ask(peer, &addresses, &[], Trust::Asked, cx.now);
    }

    /// The access lists of this endpoint changed.
    pub(crate) fn on_access(&mut self, cx: &mut Context) {
        let (hidden, shown) = self.book.set_access(cx.links.access());
        for record in hidden {
            log(self.id, &record, "peer lost: kept out");
            let lost = TopicEvent::PeerLost(record, LostReason::Denied);
            cx.links.out.push_back(OutEvent::Topic(self.id, lost));
        }
        let any_shown = !shown.is_empty();
        for record in shown {
            log(self.id, &record, "peer joined: admitted");
            cx.emit(self.id, TopicEvent::PeerJoined(Arc::clone(&record)));
            self.detector.on_shown(&record, scope!(self, cx));
        }
        if self.leave.is_begun() {
            return;
        }
        if any_shown {
            self.neighborhood.view_grows(narrow_scope!(self, cx));
            self.neighborhood.enter_soon(narrow_scope!(self, cx));
        }
        self.contacts.on_access(scope!(self, cx));
    }

    /// See [`Revocations::revoke`](super::revocations::Revocations::revoke).
    pub(crate) fn revoke(
        &mut self,
        revocations: Vec<Revocation>,
        cx: &mut Context,
    ) -> Result<(), Error> {
        self.revocations.revoke(revocations, scope!(self, cx))
    }

    /// The time of day is known again.
    pub(crate) fn on_clock(&mut self, cx: &mut Context) {
        self.revocations.expire(scope!(self, cx));
    }
}
