//! The one rule by which an Ed25519 signature is valid. It is the same for one signature and for
//! many that are verified together.
//!
//! RFC 8032 leaves edge cases open, and implementations differ in them. If a batch accepted what a
//! single check refuses, honest nodes would disagree about a record, and close each other's links.
//! [ZIP 215](https://zips.z.cash/zip-0215) is the rule that batches can keep. This module adds to
//! it that no point has a second encoding, and that none is of small order:
//!
//! - `[8][s]B = [8]R + [8][k]A`, with the cofactor 8;
//! - `s` is below the order of the group;
//! - the encodings of `A`, the key, and of `R` are canonical (RFC 8032 §5.1.3), and neither point
//!   is one of the eight of small order.

use ed25519_zebra::{
    Signature, VerificationKeyBytes,
    batch::{Item, Verifier},
};
use rand::CryptoRng;

use crate::error::Error;

/// The `y` coordinates of the eight points of small order, little-endian. Two points share each of
/// them, except those of the points of orders 1 and 2.
const SMALL_ORDER: [[u8; 32]; 5] = [
    little_endian(1),
    // -1, which is p - 1
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
    little_endian(0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

const fn little_endian(number: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = number;
    bytes
}

/// Returns true if these bytes are the canonical encoding of a point that is not of small order.
/// They may also encode no point at all, which shows when the point is computed.
fn is_acceptable(encoding: &[u8; 32]) -> bool {
    let mut y = *encoding;
    // The highest bit is the sign of x.
    y[31] &= 0x7f;
    // p is 2^255 - 19. In a number from p on, all bits are set except some of the lowest.
    let is_reduced = y[0] < 0xed || y[31] != 0x7f || y[1..31].iter().any(|byte| *byte != 0xff);
    // The sign can be wrong only if x is 0, and then the point is of order 1 or 2.
    is_reduced && !SMALL_ORDER.contains(&y)
}

/// A signature of a message, by a key, that was not verified yet.
#[derive(Debug, Clone)]
pub(crate) struct Claim(Item);

impl Claim {
    /// Hashes the message, which is not needed after that.
    ///
    /// # Errors
    /// [`Error::Forged`] if the encoding of the key or of the signature already breaks the rule.
    pub(crate) fn new(key: &[u8; 32], signature: &[u8; 64], message: &[u8]) -> Result<Self, Error> {
        let signature = Signature::from_bytes(signature);
        if is_acceptable(key) && is_acceptable(signature.r_bytes()) {
            Ok(Self(Item::from((VerificationKeyBytes::from(*key), signature, message))))
        } else {
            Err(Error::Forged)
        }
    }

    /// # Errors
    /// [`Error::Forged`] if the signature is not valid.
    pub(crate) fn verify(self) -> Result<(), Error> {
        self.0.verify_single().map_err(|_| Error::Forged)
    }
}

/// Returns true if all claims are valid. This costs less than half of verifying one by one, if
/// there are sixteen or more. An author of claims must not know what `rng` gives.
pub(crate) fn are_valid(claims: impl IntoIterator<Item = Claim>, rng: &mut impl CryptoRng) -> bool {
    let mut batch = Verifier::new();
    for claim in claims {
        batch.queue(claim.0);
    }
    batch.verify(rng).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;
