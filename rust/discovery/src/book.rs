//! The address book: a snapshot of all live peers that costs nothing to take and to keep.

use std::{fmt, ops::Bound, sync::Arc};

use iroh::TransportAddr;
use rpds::RedBlackTreeMapSync;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::proto::{EndpointId, NodeRecord};

/// The label that [`Book::digest`] hashes first, so that no other use of SHA-256 gives the same
/// digests.
pub const DIGEST_LABEL: &[u8] = b"iroh-gossip-discovery/snapshot/1";

/// A snapshot of the address book, ordered by id, without this node itself.
///
/// Taking and cloning one is O(1) and never blocks the protocol. A snapshot never changes. Two are
/// equal if they hold the same records.
///
/// ```no_run
/// # use iroh_gossip_discovery::{EndpointId, Swarm};
/// # fn example(swarm: &Swarm, peer: EndpointId) {
/// let book = swarm.book();
/// for record in &book {
///     println!("{} at {:?}", record.profile.name, record.addresses);
/// }
/// let before = book.get(&peer).cloned();
/// assert_eq!(book.get(&peer).cloned(), before, "a snapshot never changes");
/// # }
/// ```
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
    /// Returns the record of a peer, or `None` if the peer is not in the book. O(log n).
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<NodeRecord>> {
        self.0.get(id).map(|entry| &entry.record)
    }

    /// Returns when the latest record of a peer arrived here, from itself or forwarded by others.
    /// O(log n).
    #[must_use]
    pub fn last_seen(&self, id: &EndpointId) -> Option<Instant> {
        self.0.get(id).map(|entry| entry.heard)
    }

    /// Returns true if a peer is in the book. O(log n).
    #[must_use]
    pub fn contains(&self, id: &EndpointId) -> bool {
        self.0.contains_key(id)
    }

    /// Returns the number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.size()
    }

    /// Returns true if there is no peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the records, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.0.values().map(|entry| &entry.record)
    }

    /// Iterates over the records after an id, ordered by id; over all of them for `None`. So a
    /// caller can read a large book in pieces. O(log n), then O(1) for each record.
    pub fn after(&self, id: Option<&EndpointId>) -> impl Iterator<Item = &Arc<NodeRecord>> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range::<EndpointId, _>((start, Bound::Unbounded)).map(|(_, entry)| &entry.record)
    }

    /// Iterates over the ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &EndpointId> {
        self.0.keys()
    }

    /// Returns a digest of 16 bytes of what the nodes of this snapshot say about themselves. Equal
    /// snapshots have equal digests on every node and in every language. Heartbeats don't change
    /// it. O(n).
    ///
    /// The digest is the first 16 bytes of a SHA-256 over [`DIGEST_LABEL`] and the nodes in the
    /// order of their ids. Of each node it hashes the id, the boot id as 8 bytes, the name, the
    /// metadata (keys and values, in the order of the keys), the protocols, the addresses and the
    /// readiness.
    /// Numbers are big-endian. Each text and each list follows its length as 4 bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new_with_prefix(DIGEST_LABEL);
        for record in self.iter() {
            hash_record(&mut hash, record);
        }
        let hash = hash.finalize();
        std::array::from_fn(|i| hash[i])
    }

    pub(crate) fn insert(&mut self, record: Arc<NodeRecord>) {
        self.0.insert_mut(record.id, Entry { record, heard: Instant::now() });
    }

    pub(crate) fn remove(&mut self, id: &EndpointId) {
        self.0.remove_mut(id);
    }
}

impl<'a> IntoIterator for &'a Book {
    type Item = &'a Arc<NodeRecord>;
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + Send + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// Adds records as heard now. A record replaces an earlier one of the same id. So an application
/// can replay events over its own copy of a book.
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

fn hash_record(hash: &mut Sha256, record: &NodeRecord) {
    hash.update(record.id.as_bytes());
    hash.update(record.boot_id.to_be_bytes());
    hash_text(hash, record.profile.name.as_bytes());
    hash_length(hash, record.profile.metadata.len());
    for (key, value) in &record.profile.metadata {
        hash_text(hash, key.as_bytes());
        hash_text(hash, value.as_bytes());
    }
    hash_length(hash, record.profile.protocols.len());
    for protocol in &record.profile.protocols {
        hash_text(hash, protocol);
    }
    hash_length(hash, record.addresses.len());
    for address in &record.addresses {
        let text = match address {
            TransportAddr::Ip(address) => address.to_string(),
            TransportAddr::Relay(url) => url.to_string(),
            other => other.to_string(),
        };
        hash_text(hash, text.as_bytes());
    }
    hash_text(hash, record.profile.readiness.as_str().as_bytes());
}

fn hash_text(hash: &mut Sha256, text: &[u8]) {
    hash_length(hash, text.len());
    hash.update(text);
}

/// A length fits into 4 bytes: a record is at most a few KiB.
fn hash_length(hash: &mut Sha256, length: usize) {
    hash.update(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}
