//! Which connections become links: lists, bans, shares of the links, and which link makes room for
//! another.

use std::collections::BTreeSet;

use super::{Actor, MAX_DIALS, MAX_LINKS_PER_PEER};
use crate::{
    access::Change,
    admission::{self, Admission, Candidate, Use},
    bans::Origin,
    commands::Reply,
    link::Link,
    proto::{CloseCode, DropReason, EndpointId, InEvent, LinkEnd, LinkId},
};
use iroh::endpoint::{Connection, VarInt};
use tokio::time::Instant;

/// Why a connection becomes no link.
pub(super) struct Refusal {
    pub(super) code: CloseCode,
    /// The counter of the limit that refused it; `None` if no limit did.
    pub(super) what: Option<DropReason>,
}

impl Refusal {
    fn over(what: DropReason) -> Self {
        Self { code: CloseCode::Refused, what: Some(what) }
    }
}

impl Actor {
    /// Decides whether a connection becomes a link. Closes another link if that has to make room.
    pub(super) fn admit(
        &mut self,
        connection: &Connection,
        peer: &EndpointId,
        dialed: bool,
    ) -> Result<(), Refusal> {
        if self.is_ending() || self.barred.contains(peer) {
            return Err(Refusal { code: CloseCode::Shutdown, what: None });
        }
        if !self.lists.admits(peer) {
            self.door.keeps_out(*peer);
            return Err(Refusal { code: CloseCode::Denied, what: None });
        }
        if self.links.values().filter(|link| link.peer == *peer).count() >= MAX_LINKS_PER_PEER {
            return Err(Refusal::over(DropReason::LinksOverTheLimitOfAPeer));
        }
        let limits = self.barred.limits();
        if dialed {
            let full = self.links.len() >= limits.links + MAX_DIALS;
            return if full { Err(Refusal::over(DropReason::LinksOverTheLimit)) } else { Ok(()) };
        }
        let now = Instant::now();
        let is_member = self.is_member(peer);
        let network = Origin::of(connection).network;
        let bans = &self.counters.bans;
        if bans.is_banned(peer, now) {
            return Err(Refusal::over(DropReason::ConnectionsOfBannedPeers));
        }
        if !is_member && network.is_some_and(|network| bans.is_network_banned(network, now)) {
            return Err(Refusal::over(DropReason::ConnectionsFromBannedNetworks));
        }
        if limits.have_room(self.links.len()) {
            return Ok(());
        }
        match admission::admit(&limits, &self.candidates(), is_member, network) {
            Admission::Admit => Ok(()),
            Admission::Refuse => Err(Refusal::over(DropReason::LinksOverTheLimit)),
            Admission::Replace(id) => {
                self.replace_link(id);
                Ok(())
            }
        }
    }

    /// Changes the lists of the endpoint. The reply follows once they are in force and on disk.
    pub(super) fn change_access(&mut self, change: Change, peer: EndpointId, reply: Reply) {
        let me = self.endpoint.id().into();
        if let Err(error) = self.lists.change(change, peer, &me) {
            let _ = reply.send(Err(error));
            return;
        }
        self.handle_own(InEvent::SetAccess(self.lists.access()));
        self.reconsider(&peer);
        self.explain_bootstrap_kept_out();
        self.keep_marks(Some(reply));
    }

    /// Reports for each bootstrap peer that the lists keep out why it will not answer.
    pub(super) fn explain_bootstrap_kept_out(&self) {
        for joined in self.topics.values() {
            for peer in joined.bootstrap_ids() {
                if let Some(reason) = self.lists.reason(peer) {
                    self.unanswered(peer, reason);
                }
            }
        }
    }

    /// Refuses a peer for a while, because it broke the protocol.
    pub(super) fn ban(&self, link: &Link) {
        let length = self.counters.bans.offense(link.peer, link.origin, Instant::now());
        self.counters.dropped(DropReason::LinksOfPeersThatBrokeTheProtocol, Some(link.peer));
        self.counters.banned(link.handle.fault(), link.peer, length);
    }

    /// Returns true if a peer is in a book, or if the user named it as a bootstrap peer.
    fn is_member(&self, peer: &EndpointId) -> bool {
        self.topics.values().any(|topic| topic.is_bootstrap(peer)) || self.lookup.is_member(peer)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let neighbors: BTreeSet<_> =
            self.topics.values().flat_map(|topic| topic.published.neighbors()).collect();
        let usefulness = |link: &Link| {
            if link.dialed {
                Use::Needed
            } else if !self.is_member(&link.peer) {
                Use::Stranger
            } else if neighbors.contains(&link.peer) {
                Use::Needed
            } else if link.handle.is_used() {
                Use::Used
            } else {
                Use::Member
            }
        };
        self.links
            .iter()
            .map(|(id, link)| Candidate {
                id: *id,
                usefulness: usefulness(link),
                network: link.origin.network,
                opened: link.opened,
            })
            .collect()
    }

    /// Closes a link at once, so that another one can take its place.
    fn replace_link(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let peer = link.peer;
        link.handle.connection.close(VarInt::from_u32(CloseCode::Refused.into()), b"");
        self.counters.dropped(DropReason::LinksThatMadeRoomForOthers, Some(peer));
        self.link_closed(id, LinkEnd::Local(CloseCode::Refused));
    }
}
