//! The address book: a snapshot of the live others, taken and kept at no cost.

use std::{fmt, ops::Bound, sync::Arc};

use rpds::RedBlackTreeMapSync;
use tokio::time::Instant;

use crate::proto::{EndpointId, NodeRecord};

/// A snapshot of the address book, ordered by id, without this node itself.
///
/// Taking and cloning one is O(1) and never blocks the protocol; it never changes. Two are equal when
/// they hold the same records.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Book(RedBlackTreeMapSync<EndpointId, Entry>);

#[derive(Clone)]
struct Entry {
    record: Arc<NodeRecord>,
    heard: Instant,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl Eq for Entry {}

impl Book {
    /// The record of a peer. O(log n).
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<NodeRecord>> {
        self.0.get(id).map(|entry| &entry.record)
    }

    /// When the latest record of a peer arrived here, from itself or passed on by others. O(log n).
    #[must_use]
    pub fn last_seen(&self, id: &EndpointId) -> Option<Instant> {
        self.0.get(id).map(|entry| entry.heard)
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
        self.0.values().map(|entry| &entry.record)
    }

    /// The records after an id, or all, ordered by id: to go on from there. O(log n), and O(1) for each.
    pub fn after(&self, id: Option<&EndpointId>) -> impl Iterator<Item = &Arc<NodeRecord>> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range::<EndpointId, _>((start, Bound::Unbounded)).map(|(_, entry)| &entry.record)
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &EndpointId> {
        self.0.keys()
    }

    pub(crate) fn insert(&mut self, record: Arc<NodeRecord>) {
        self.0.insert_mut(record.id, Entry { record, heard: Instant::now() });
    }

    pub(crate) fn remove(&mut self, id: &EndpointId) {
        self.0.remove_mut(id);
    }
}

/// Records that were heard now, later ones in place of earlier ones of the same id: how an application
/// replays events over its own copy of a book.
impl Extend<Arc<NodeRecord>> for Book {
    fn extend<T: IntoIterator<Item = Arc<NodeRecord>>>(&mut self, records: T) {
        for record in records {
            self.insert(record);
        }
    }
}

impl FromIterator<Arc<NodeRecord>> for Book {
    fn from_iter<T: IntoIterator<Item = Arc<NodeRecord>>>(records: T) -> Self {
        let mut book = Self::default();
        book.extend(records);
        book
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|record| (record.id, &record.profile.name))).finish()
    }
}
