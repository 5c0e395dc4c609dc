//! The address book: a snapshot of the live others, taken and kept at no cost.

use std::{fmt, sync::Arc};

use rpds::RedBlackTreeMapSync;

use crate::proto::{EndpointId, NodeRecord};

/// A snapshot of the address book, ordered by id, without this node itself.
///
/// Taking and cloning one is O(1) and never blocks the protocol; it never changes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Book(RedBlackTreeMapSync<EndpointId, Arc<NodeRecord>>);

impl Book {
    /// The record of a peer. O(log n).
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<NodeRecord>> {
        self.0.get(id)
    }

    /// Whether a peer is in the book. O(log n).
    #[must_use]
    pub fn contains(&self, id: &EndpointId) -> bool {
        self.0.contains_key(id)
    }

    /// How many peers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.size()
    }

    /// Whether there is no peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The records, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.0.values()
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &EndpointId> {
        self.0.keys()
    }

    pub(crate) fn insert(&mut self, record: Arc<NodeRecord>) {
        self.0.insert_mut(record.id, record);
    }

    pub(crate) fn remove(&mut self, id: &EndpointId) {
        self.0.remove_mut(id);
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|record| (record.id, &record.profile.name))).finish()
    }
}
