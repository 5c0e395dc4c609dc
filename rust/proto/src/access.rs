//! Which peers this endpoint deals with: its user's allow list and deny list, and those that its
//! application admitted.

use std::collections::BTreeSet;

use crate::id::EndpointId;

/// The lists of an endpoint. They hold in all of its topics. Without lists, every peer is admitted.
///
/// A peer that is kept out gets no link. Its record is held and forwarded all the same, because
/// books of members that keep out different peers have to be comparable. But it is no member for
/// the application: no event names it, and this node never chooses it for anything.
///
/// ```
/// use iroh_gossip_discovery_proto::{Access, EndpointId};
///
/// let [alice, mallory] = [1, 2].map(|number| EndpointId::from_bytes([number; 32]));
/// let access = Access { deny: [mallory].into(), ..Access::default() };
/// assert!(access.admits(&alice));
/// assert!(!access.admits(&mallory));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The only peers that are admitted. `None` admits every peer that is not denied.
    pub allow: Option<BTreeSet<EndpointId>>,
    /// Peers that are kept out, even if they are on the allow list.
    pub deny: BTreeSet<EndpointId>,
    /// Ids whose invitations were revoked. They are kept out as those in `deny` are.
    pub revoked: BTreeSet<EndpointId>,
    /// The peers that the application admitted, which is asked about each that the lists let in;
    /// `None` if it is not asked.
    pub admitted: Option<BTreeSet<EndpointId>>,
}

impl Access {
    /// Returns true if this endpoint deals with a peer.
    #[must_use]
    pub fn admits(&self, peer: &EndpointId) -> bool {
        self.lists_admit(peer) && self.admitted.as_ref().is_none_or(|ids| ids.contains(peer))
    }

    /// Returns true if only the application keeps a peer out: it may admit it.
    #[must_use]
    pub fn is_undecided(&self, peer: &EndpointId) -> bool {
        self.lists_admit(peer) && self.admitted.as_ref().is_some_and(|ids| !ids.contains(peer))
    }

    fn lists_admit(&self, peer: &EndpointId) -> bool {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(peer));
        allowed && !self.deny.contains(peer) && !self.revoked.contains(peer)
    }
}
