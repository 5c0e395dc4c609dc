//! Ownership: which members own a key. The answer is the same on every node and in every language.
//!
//! This is rendezvous hashing (Thaler and Ravishankar, 1998): each member gets a score for the key,
//! and the member with the highest score owns it. So a member that joins takes over only the keys
//! that it owns from then on. The keys of a member that leaves spread over the others. No other key
//! moves. All members weigh the same.
//!
//! The score of member `id` for `key` is `SHA-256(SHA-256(LABEL ‖ key) ‖ id)`, compared as bytes,
//! first byte first; `LABEL` is [`LABEL`] in ASCII, `key` any bytes, `id` the 32 bytes of the
//! endpoint id. `docs/ownership.json` has test vectors.

use sha2::{Digest, Sha256};

use crate::proto::EndpointId;

/// The label that is hashed before a key, so that no other use of SHA-256 gives the same scores.
pub const LABEL: &[u8] = b"iroh-gossip-discovery/owner/1";

/// Returns the score of a member for a key. The member with the highest score owns the key.
#[must_use]
pub fn score(key: &[u8], member: &EndpointId) -> [u8; 32] {
    member_score(&key_digest(key), member)
}

/// Returns the owner of a key among the members; `None` if there is no member. O(members). In
/// Python, members that are not [ready](crate::NodeRecord::is_ready) own nothing: to agree with
/// that, leave them out here.
///
/// ```
/// use iroh_gossip_discovery::{EndpointId, ownership::owner};
///
/// let members: Vec<_> = (1..=3).map(|n| EndpointId::from_bytes([n; 32])).collect();
/// let before = owner(b"job 17", &members).unwrap();
/// // If another member leaves, the owner stays the same.
/// let other = members.iter().find(|member| *member != before).unwrap();
/// let left = members.iter().filter(|member| *member != other);
/// assert_eq!(owner(b"job 17", left), Some(before));
/// ```
pub fn owner<'a>(
    key: &[u8],
    members: impl IntoIterator<Item = &'a EndpointId>,
) -> Option<&'a EndpointId> {
    let key = key_digest(key);
    members.into_iter().max_by_key(|member| (member_score(&key, member), *member))
}

/// Returns the `n` members with the highest scores for a key, the owner first: the members that
/// keep copies. Fewer if there are fewer members.
pub fn owners<'a>(
    key: &[u8],
    members: impl IntoIterator<Item = &'a EndpointId>,
    n: usize,
) -> Vec<&'a EndpointId> {
    let key = key_digest(key);
    let mut scored: Vec<_> =
        members.into_iter().map(|member| (member_score(&key, member), member)).collect();
    let descending = |a: &(_, _), b: &(_, _)| b.cmp(a);
    if n < scored.len() {
        if n > 0 {
            scored.select_nth_unstable_by(n - 1, descending);
        }
        scored.truncate(n);
    }
    scored.sort_unstable_by(descending);
    scored.into_iter().map(|(_, member)| member).collect()
}

fn key_digest(key: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(LABEL).chain_update(key).finalize().into()
}

fn member_score(key_digest: &[u8; 32], member: &EndpointId) -> [u8; 32] {
    Sha256::new().chain_update(key_digest).chain_update(member.as_bytes()).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, str::FromStr};

    use proptest::prelude::*;

    use super::*;

    fn ids() -> impl Strategy<Value = BTreeSet<EndpointId>> {
        prop::collection::btree_set(any::<[u8; 32]>().prop_map(EndpointId::from_bytes), 1..20)
    }

    proptest! {
        #[test]
        fn owners_are_the_highest_scores_in_order(
            key: Vec<u8>, members in ids(), n in 0_usize..25,
        ) {
            let mut expected: Vec<_> = members.iter().collect();
            expected.sort_by_key(|member| std::cmp::Reverse(score(&key, member)));
            expected.truncate(n);
            prop_assert_eq!(owners(&key, &members, n), expected);
            prop_assert_eq!(owner(&key, &members), owners(&key, &members, 1).first().copied());
        }

        #[test]
        fn only_the_keys_of_a_member_that_goes_move(
            keys: [[u8; 4]; 32], members in ids(), gone: prop::sample::Index,
        ) {
            let gone = *gone.get(&members.iter().copied().collect::<Vec<_>>());
            let rest: BTreeSet<_> = members.iter().copied().filter(|id| *id != gone).collect();
            for key in keys {
                let (before, after) = (owner(&key, &members), owner(&key, &rest));
                prop_assert!(before == Some(&gone) || before == after);
            }
        }
    }

    #[test]
    fn keys_spread_evenly() {
        let members: Vec<_> = (0..10).map(|n| EndpointId::from_bytes([n; 32])).collect();
        let mut counts = [0_u32; 10];
        for key in 0..10_000_u32 {
            counts[usize::from(owner(&key.to_be_bytes(), &members).unwrap().as_bytes()[0])] += 1;
        }
        // Each member owns about 1,000 keys. The standard deviation is 30, and the range allows
        // seven of it.
        assert!(counts.iter().all(|count| (790..=1210).contains(count)), "{counts:?}");
    }

    #[test]
    fn nobody_owns_a_key_among_nobody() {
        assert_eq!(owner(b"key", []), None);
        assert!(owners(b"key", [], 3).is_empty());
    }

    /// Implementations in other languages are tested with these vectors. A change here would move
    /// every key of every fleet.
    #[test]
    fn the_vectors_in_the_docs_hold() {
        let text =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ownership.json"));
        let text = &text.expect("the vectors are in the repository");
        let ids: Vec<_> =
            strings(text, "members").iter().map(|id| EndpointId::from_str(id).unwrap()).collect();
        let keys = strings(text, "key_hex");
        let orders = strings(text, "owners");
        let scores = strings(text, "score_of_first_owner");
        assert_eq!((ids.len(), keys.len(), orders.len(), scores.len()), (3, 5, 15, 5));
        for (n, key) in keys.iter().enumerate() {
            let key = data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap();
            let expected: Vec<_> =
                orders[n * 3..][..3].iter().map(|id| EndpointId::from_str(id).unwrap()).collect();
            assert_eq!(owners(&key, &ids, 3).into_iter().copied().collect::<Vec<_>>(), expected);
            let score = score(&key, &expected[0]);
            assert_eq!(data_encoding::HEXLOWER.encode(&score), scores[n]);
        }
    }

    /// Returns every text under a field of the vectors, in order, without a JSON parser as a
    /// dependency.
    fn strings(text: &str, field: &str) -> Vec<String> {
        let mut found = Vec::new();
        for part in text.split(&format!("\"{field}\": ")).skip(1) {
            let list = part.starts_with('[');
            let end = part.find(if list { ']' } else { '\n' }).unwrap();
            found.extend(part[..end].split('"').skip(1).step_by(2).map(str::to_owned));
        }
        found
    }
}
