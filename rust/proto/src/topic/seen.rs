//! Contents that passed through the overlay recently, so that each is judged once.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// Copies of a content may still arrive through the overlay for this time after the first one.
pub(super) const IN_FLIGHT: Duration = Duration::from_secs(30);

/// Contents of broadcasts that passed recently, by their hash.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The hash of each content, and its length.
    hashes: BTreeMap<[u8; 32], usize>,
    by_age: VecDeque<(Instant, [u8; 32])>,
}

impl Seen {
    const MOST: usize = 4096;

    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(super) fn contains(&mut self, content: &[u8], now: Instant) -> bool {
        self.forget(now);
        self.hashes.contains_key(blake3::hash(content).as_bytes())
    }

    pub(super) fn insert(&mut self, content: &[u8], now: Instant) {
        let hash = *blake3::hash(content).as_bytes();
        if self.hashes.insert(hash, content.len()).is_none() {
            self.by_age.push_back((now, hash));
        }
        self.forget(now);
        debug_assert_eq!(self.hashes.len(), self.by_age.len(), "each hash has one age");
    }

    /// Returns the length of a content, by its hash.
    pub(super) fn length(&self, hash: &[u8; 32]) -> Option<usize> {
        self.hashes.get(hash).copied()
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, hash)) = self.by_age.front()
            && (now.saturating_duration_since(*at) >= IN_FLIGHT || self.by_age.len() > Self::MOST)
        {
            self.hashes.remove(hash);
            self.by_age.pop_front();
        }
    }
}
