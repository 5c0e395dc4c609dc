//! Which peers this endpoint deals with: its user's allow list and deny list.

use std::collections::BTreeSet;

use crate::id::EndpointId;

/// The lists of an endpoint. They hold in all of its topics; without any, everybody is admitted.
///
/// A peer that is kept out gets no link. Its record is held and passed on all the same, because
/// books of members that keep out different peers have to be comparable. But it is no member for
/// the application: no event names it, and no choice of this node falls on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The only peers that are admitted; `None` admits everybody that is not denied.
    pub allow: Option<BTreeSet<EndpointId>>,
    /// Peers that are kept out, also if they are on the allow list.
    pub deny: BTreeSet<EndpointId>,
}

impl Access {
    /// Returns true if this endpoint deals with a peer.
    #[must_use]
    pub fn admits(&self, peer: &EndpointId) -> bool {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(peer));
        allowed && !self.deny.contains(peer)
    }
}
