//! What a simulation inspects: the book as the protocol holds it, and the size of all that could
//! grow.

use std::sync::Arc;

use iroh_base::TransportAddr;

use super::Topic;
use crate::{
    context::Context,
    digest::Digest,
    id::EndpointId,
    invitation::Revocation,
    record::{NodeRecord, SignedRecord},
};

/// One topic of one endpoint, from inside.
#[doc(hidden)]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspect {
    /// The members that the application sees, with their sequence numbers. Replaying the events
    /// gives the same.
    pub live: Vec<(EndpointId, u64)>,
    /// The most that [`Inspect::live`] may hold, and tombstones as well.
    pub capacity: usize,
    /// The active view of the overlay.
    pub neighbors: Vec<EndpointId>,
    /// Sizes of collections, by name.
    pub sizes: Vec<(&'static str, usize)>,
}

impl Topic {
    pub(crate) fn own(&self) -> Option<&SignedRecord> {
        self.announcer.own()
    }

    /// Returns the revocations that hold here.
    pub(crate) fn revocations(&self) -> impl Iterator<Item = &Revocation> {
        self.revocations.iter()
    }

    /// Returns the record of a member.
    pub(crate) fn record(&self, member: &EndpointId) -> Option<&SignedRecord> {
        self.book.get(member).map(|live| &live.signed)
    }

    /// Where the user said that a bootstrap peer is.
    pub(crate) fn bootstrap_addresses(&self, peer: &EndpointId) -> &[TransportAddr] {
        self.peers.named(peer)
    }

    /// See [`State::undecided`](crate::State::undecided).
    pub(crate) fn undecided(
        &self,
        after: Option<EndpointId>,
        limit: usize,
        wanted: &dyn Fn(&EndpointId) -> bool,
    ) -> Vec<Arc<NodeRecord>> {
        self.book.undecided(after, limit, wanted)
    }

    /// The newest record of a node, also if it is kept out.
    pub(crate) fn claimed(&self, node: &EndpointId) -> Option<&Arc<NodeRecord>> {
        self.book.claimed(node)
    }

    /// Returns the highest sequence number that is known of a node.
    pub(crate) fn sequence(&self, node: &EndpointId) -> Option<u64> {
        self.book.sequence(node)
    }

    /// Makes this node one of a swarm that has existed for a while: it knows all members, and they
    /// know it.
    pub(crate) fn preload(&mut self, records: &[SignedRecord], cx: &mut Context) {
        self.book.preload(records, cx.now);
        self.dissemination.preload();
        self.announcer.preload(scope!(self, cx));
        self.neighborhood.enter_soon(narrow_scope!(self, cx));
    }

    pub(crate) fn tombstones(&self) -> usize {
        self.book.tombstones()
    }

    pub(crate) fn neighbor_count(&self) -> usize {
        self.neighborhood.neighbors().len()
    }

    pub(crate) fn observer_count(&self) -> usize {
        self.syncs.observer_count()
    }

    pub(crate) fn book_digest(&self) -> Digest {
        self.book.others_digest()
    }

    pub(crate) fn inspect(&self, links: [(&'static str, usize); 4]) -> Inspect {
        let live = self.book.others().filter_map(|id| Some((id, self.book.sequence(&id)?)));
        let mut sizes = vec![("tombstones", self.book.tombstones())];
        sizes.extend(self.ingest.sizes());
        sizes.extend(self.dissemination.sizes());
        sizes.extend(self.neighborhood.sizes());
        sizes.extend(self.peers.sizes());
        sizes.extend(self.syncs.sizes());
        sizes.extend(self.detector.sizes());
        sizes.extend(self.healing.sizes());
        sizes.extend(self.broadcasts.sizes());
        sizes.extend(self.revocations.sizes());
        sizes.extend(links);
        let neighbors = self.neighborhood.neighbors().iter().copied().collect();
        Inspect { live: live.collect(), capacity: self.config.capacity, neighbors, sizes }
    }
}
