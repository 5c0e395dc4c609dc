//! The digest of a book: 32 bytes over its ids and sequence numbers, updated as they change.

use sha2::{Digest as _, Sha256};

use crate::id::EndpointId;

/// A sum of hashes, modulo 2²⁵⁶. So the order does not matter, and terms can be removed again.
/// Negentropy does the same. A plain XOR of hashes would not do, because collisions of it can be
/// computed.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest([u64; 4]);

impl Digest {
    /// Returns the term of one node.
    #[must_use]
    pub fn of(id: &EndpointId, sequence: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(id.as_bytes());
        hash.update(sequence.to_be_bytes());
        let hash = hash.finalize();
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(hash.chunks_exact(8)) {
            *limb = bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        }
        Self(limbs)
    }

    /// Adds a term.
    pub fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, term) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = limb.overflowing_add(term);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first | second);
        }
    }

    /// Removes a term.
    pub fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (limb, term) in self.0.iter_mut().zip(other.0) {
            let (rest, first) = limb.overflowing_sub(term);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, first | second);
        }
    }

    /// Returns the fingerprint that a sync sends: a hash of the sum and the number of terms.
    pub(crate) fn fingerprint(&self, count: u64) -> [u8; 16] {
        let mut hash = Sha256::new();
        for limb in self.0 {
            hash.update(limb.to_le_bytes());
        }
        hash.update(count.to_be_bytes());
        let hash = hash.finalize();
        std::array::from_fn(|i| hash[i])
    }
}
