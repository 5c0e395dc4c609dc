//! The edge cases of Ed25519: published vectors, and each point of small order.

use curve25519_dalek::{constants::EIGHT_TORSION, edwards::CompressedEdwardsY, scalar::Scalar};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use rand::{SeedableRng, rngs::ChaCha12Rng};
use sha2::{Digest, Sha512};

use super::{Claim, SMALL_ORDER, are_valid, is_acceptable};

/// The published vectors that the rule accepts: mixed points, with and without the cofactor, and a
/// scalar that must not be reduced before the multiplication.
const ACCEPTED: [usize; 3] = [3, 4, 5];

type Signed = ([u8; 32], [u8; 64], Vec<u8>);

fn vectors() -> Vec<Signed> {
    let lines = include_str!("vectors.txt").lines().filter(|line| !line.starts_with('#'));
    let decode = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap();
    lines
        .map(|line| {
            let parts: Vec<_> = line.split(' ').map(decode).collect();
            let [message, key, signature] = parts.try_into().unwrap();
            (key.try_into().unwrap(), signature.try_into().unwrap(), message)
        })
        .collect()
}

fn good(seed: u8) -> Claim {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let signature = key.sign(b"good").to_bytes();
    Claim::new(key.verifying_key().as_bytes(), &signature, b"good").unwrap()
}

fn is_valid((key, signature, message): &Signed) -> bool {
    Claim::new(key, signature, message).is_ok_and(|claim| claim.verify().is_ok())
}

/// Verified with good signatures beside it, many times: a batch weighs each one by chance.
fn is_valid_among_others((key, signature, message): &Signed) -> bool {
    let Ok(claim) = Claim::new(key, signature, message) else { return false };
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let mut once = || are_valid([good(1), claim.clone(), good(2)], &mut rng);
    let first = once();
    for _ in 0..16 {
        assert_eq!(once(), first, "chance decides about a signature");
    }
    first
}

/// The same key and the same signature, moved by two points of small order.
fn moved(by_key: usize, by_r: usize) -> Signed {
    let message = vec![u8::try_from(8 * by_key + by_r).unwrap()];
    let key = SigningKey::from_bytes(&[9; 32]);
    let secret = key.to_scalar();
    let a = key.verifying_key().to_edwards() + EIGHT_TORSION[by_key];
    let nonce = Scalar::from_bytes_mod_order([5; 32]);
    let r = curve25519_dalek::EdwardsPoint::mul_base(&nonce) + EIGHT_TORSION[by_r];
    let (a, r) = (a.compress().to_bytes(), r.compress().to_bytes());
    let hash = Sha512::new().chain_update(r).chain_update(a).chain_update(&message).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let s = nonce + k * secret;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(s.as_bytes());
    (a, signature, message)
}

#[test]
fn the_published_edge_cases_are_judged_by_the_rule_alone_and_among_others() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 12);
    for (number, vector) in vectors.iter().enumerate() {
        let accepted = ACCEPTED.contains(&number);
        assert_eq!(is_valid(vector), accepted, "vector {number}");
        assert_eq!(is_valid_among_others(vector), accepted, "vector {number}");
    }
}

#[test]
fn a_component_of_small_order_changes_no_verdict() {
    for by_key in 0..8 {
        for by_r in 0..8 {
            let signed = moved(by_key, by_r);
            assert!(is_valid(&signed), "{by_key} {by_r}");
            assert!(is_valid_among_others(&signed), "{by_key} {by_r}");
            let (key, mut signature, message) = signed;
            signature[40] ^= 1;
            assert!(!is_valid(&(key, signature, message.clone())));
            assert!(!is_valid_among_others(&(key, signature, message)));
        }
    }
}

#[test]
fn points_of_small_order_are_refused_in_each_of_their_encodings() {
    for point in EIGHT_TORSION {
        let mut encoding = point.compress().to_bytes();
        for sign in [0, 0x80] {
            encoding[31] = encoding[31] & 0x7f | sign;
            assert!(!is_acceptable(&encoding), "{encoding:?}");
        }
    }
    for y in SMALL_ORDER {
        let point = CompressedEdwardsY(y).decompress().unwrap();
        assert!(point.is_small_order(), "{y:?} is of an acceptable point");
    }
}

#[test]
fn an_encoding_of_p_or_more_is_refused() {
    for lowest in 0xed..=0xff {
        for highest in [0x7f, 0xff] {
            let mut encoding = [0xff; 32];
            (encoding[0], encoding[31]) = (lowest, highest);
            assert!(!is_acceptable(&encoding), "{encoding:?}");
        }
    }
    for lowest in 0..=0xeb {
        let mut encoding = [0xff; 32];
        (encoding[0], encoding[31]) = (lowest, 0x7f);
        assert!(is_acceptable(&encoding), "{encoding:?} is below p");
    }
}

#[test]
fn a_batch_is_valid_if_each_of_its_signatures_is() {
    let mut rng = ChaCha12Rng::from_seed([4; 32]);
    assert!(are_valid((1..=64).map(good), &mut rng));
    let key = SigningKey::from_bytes(&[1; 32]);
    let of_another_message = key.sign(b"other").to_bytes();
    let bad = Claim::new(key.verifying_key().as_bytes(), &of_another_message, b"good").unwrap();
    assert!(!are_valid((1..=64).map(good).chain([bad]), &mut rng));
}
