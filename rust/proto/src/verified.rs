//! Results of verifications. The records of one frame are verified together before each is used.
//! The states of a simulated network share results, because otherwise each state would verify,
//! decode and hold every record for itself.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rand::{SeedableRng, rngs::ChaCha12Rng};

use crate::{
    accusation::Accusation,
    error::Error,
    id::{EndpointId, TopicId},
    record::{Envelope, SignedRecord},
    signature,
};

/// The stream of random numbers by which batches weigh signatures. It is separate from the one that
/// the protocol draws from, so that batches do not change what follows from a seed.
const WEIGHTS: u64 = 1;

/// Records of one frame that were verified together, before they are used one by one.
#[derive(Debug)]
pub(crate) struct Ahead {
    topic: TopicId,
    records: HashMap<Bytes, SignedRecord>,
    weights: ChaCha12Rng,
}

impl Ahead {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut weights = ChaCha12Rng::from_seed(seed);
        weights.set_stream(WEIGHTS);
        Self { topic: TopicId::from_bytes([0; 32]), records: HashMap::new(), weights }
    }

    pub(crate) fn get(&self, topic: &TopicId, bytes: &Bytes) -> Option<SignedRecord> {
        if self.topic == *topic { self.records.get(bytes).cloned() } else { None }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &SignedRecord> {
        self.records.values()
    }

    pub(crate) fn clear(&mut self) {
        self.records.clear();
    }

    /// Verifies the records of a frame. If any is not valid, no result is kept: each is verified
    /// alone when it is used, which shows which one it is.
    pub(crate) fn verify(&mut self, topic: &TopicId, records: Vec<Envelope>) {
        self.topic = *topic;
        self.clear();
        if let Ok(records) = verify_all(topic, records, &mut self.weights) {
            debug_assert!(self.records.is_empty(), "results are those of one frame and one topic");
            self.records.extend(records.into_iter().map(|signed| (signed.bytes().clone(), signed)));
        }
    }
}

/// Verifies many records together, in less than half of the time.
///
/// # Errors
/// [`Error::Forged`] or [`Error::Malformed`], if one of them is.
pub(crate) fn verify_all(
    topic: &TopicId,
    records: Vec<Envelope>,
    weights: &mut ChaCha12Rng,
) -> Result<Vec<SignedRecord>, Error> {
    let claims: Vec<_> =
        records.iter().map(|record| record.claim(topic)).collect::<Result<_, _>>()?;
    if !signature::are_valid(claims, weights) {
        return Err(Error::Forged);
    }
    records.into_iter().map(Envelope::decode).collect()
}

/// Records and accusations that were verified before, by topic and by their whole bytes. It is not
/// for production, where every process verifies what it receives.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Verified(Mutex<BTreeMap<TopicId, Known>>);

#[derive(Debug, Default)]
struct Known {
    records: HashMap<Signed, SignedRecord>,
    accusations: HashMap<Signed, Accusation>,
}

/// Signed bytes, which are equal if all bytes are. They end with the signature, which serves as
/// their hash.
#[derive(Debug, PartialEq, Eq)]
struct Signed(Bytes);

impl Hash for Signed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let tail = self.0.last_chunk().copied().unwrap_or_default();
        state.write_u64(u64::from_le_bytes(tail));
    }
}

/// A parsed record, which may have been verified before.
#[derive(Debug)]
pub(crate) enum Opened {
    Verified(SignedRecord),
    Unverified(Envelope),
}

impl Opened {
    /// Returns the record, if it was not verified yet.
    pub(crate) fn unverified(self) -> Option<Envelope> {
        match self {
            Self::Verified(_) => None,
            Self::Unverified(envelope) => Some(envelope),
        }
    }

    /// Returns the owner of the record, which is only claimed if it was not verified.
    pub(crate) fn claimed(&self) -> EndpointId {
        match self {
            Self::Verified(signed) => signed.record().id,
            Self::Unverified(envelope) => envelope.claimed,
        }
    }
}

impl Verified {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, topic: &TopicId, bytes: &Bytes) -> Result<Opened, Error> {
        let signed = Signed(bytes.clone());
        let known = self.lock().get(topic).and_then(|known| known.records.get(&signed)).cloned();
        match known {
            Some(signed) => Ok(Opened::Verified(signed)),
            None => Envelope::open(bytes).map(Opened::Unverified),
        }
    }

    /// Keeps a verified record, and returns the copy that all states share.
    pub(crate) fn keep(&self, topic: &TopicId, signed: &SignedRecord) -> SignedRecord {
        let shared = signed.with_bytes(copy(signed.bytes()));
        let mut topics = self.lock();
        let records = &mut topics.entry(*topic).or_default().records;
        records.entry(Signed(shared.bytes().clone())).or_insert(shared).clone()
    }

    pub(crate) fn accusation(&self, topic: &TopicId, bytes: &Bytes) -> Option<Accusation> {
        let signed = Signed(bytes.clone());
        self.lock().get(topic)?.accusations.get(&signed).cloned()
    }

    /// Keeps a verified accusation, and returns the copy that all states share.
    pub(crate) fn keep_accusation(&self, topic: &TopicId, accusation: Accusation) -> Accusation {
        let shared = Accusation { bytes: copy(&accusation.bytes), ..accusation };
        let mut topics = self.lock();
        let accusations = &mut topics.entry(*topic).or_default().accusations;
        accusations.entry(Signed(shared.bytes.clone())).or_insert(shared).clone()
    }
}

/// Copies bytes that may be a slice of a whole frame, so that the frame is not held.
fn copy(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests {
    use super::*;
    use crate::tests::{signed, topic};

    fn envelopes(bytes: &[Bytes]) -> Vec<Envelope> {
        bytes.iter().map(|bytes| Envelope::open(bytes).unwrap()).collect()
    }

    #[test]
    fn what_was_verified_together_is_known_in_its_topic_only() {
        let records = [3, 4, 5].map(|number| signed(number, 1).bytes().clone());
        let mut ahead = Ahead::new([7; 32]);
        ahead.verify(&topic(), envelopes(&records));
        let known = records.iter().filter_map(|bytes| ahead.get(&topic(), bytes));
        assert_eq!(known.map(|signed| signed.bytes().clone()).collect::<Vec<_>>(), records);
        let other = TopicId::from_name("another").unwrap();
        assert_eq!(ahead.get(&other, &records[0]), None);
        // The same records are forged in another topic.
        ahead.verify(&other, envelopes(&records));
        assert_eq!(ahead.get(&other, &records[0]), None);
        assert_eq!(ahead.get(&topic(), &records[0]), None);
    }

    #[test]
    fn nothing_is_known_of_records_if_one_of_them_is_forged() {
        let mut records = [3, 4, 5].map(|number| signed(number, 1).bytes().clone());
        let mut forged = records[2].to_vec();
        *forged.last_mut().unwrap() ^= 1;
        records[2] = forged.into();
        let mut ahead = Ahead::new([7; 32]);
        ahead.verify(&topic(), envelopes(&records));
        assert!(records.iter().all(|bytes| ahead.get(&topic(), bytes).is_none()));
        ahead.verify(&topic(), envelopes(&records[..2]));
        assert!(ahead.get(&topic(), &records[0]).is_some());
        ahead.clear();
        assert!(ahead.get(&topic(), &records[0]).is_none());
    }
}
