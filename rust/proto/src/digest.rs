//! What a book's ids and sequence numbers come to in 32 bytes, kept as they change.

use sha2::{Digest as _, Sha256};

use crate::id::EndpointId;

/// A sum, modulo 2²⁵⁶, of hashes: order does not matter and terms can be taken out again (as in
/// Negentropy; a plain XOR of hashes could be solved for collisions).
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest([u64; 4]);

impl Digest {
    /// The term of one node.
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

    /// Puts a term in.
    pub fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, term) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = limb.overflowing_add(term);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first | second);
        }
    }

    /// Takes a term out.
    pub fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (limb, term) in self.0.iter_mut().zip(other.0) {
            let (rest, first) = limb.overflowing_sub(term);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, first | second);
        }
    }

    /// What a sync shows of it, with the number of terms.
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
