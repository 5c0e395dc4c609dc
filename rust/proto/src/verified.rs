//! Results of verifications, shared by the states of one simulated network. Without it, each state
//! would verify, decode and hold every record for itself.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    accusation::Accusation,
    error::Error,
    id::{EndpointId, TopicId},
    record::{Envelope, SignedRecord},
};

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

/// Signed bytes, equal where all are. They end with the signature, which is as good as a hash.
#[derive(Debug, PartialEq, Eq)]
struct Signed(Bytes);

impl Hash for Signed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let tail = self.0.last_chunk().copied().unwrap_or_default();
        state.write_u64(u64::from_le_bytes(tail));
    }
}

/// A record that is opened, and may have been verified before.
#[derive(Debug)]
pub(crate) enum Opened {
    Verified(SignedRecord),
    Unverified(Envelope),
}

impl Opened {
    /// Whose record it is, or claims to be.
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

    /// Keeps a record that was verified, and gives what is to be held of it.
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

    /// Keeps an accusation that was verified, and gives what is to be held of it.
    pub(crate) fn keep_accusation(&self, topic: &TopicId, accusation: Accusation) -> Accusation {
        let shared = Accusation { bytes: copy(&accusation.bytes), ..accusation };
        let mut topics = self.lock();
        let accusations = &mut topics.entry(*topic).or_default().accusations;
        accusations.entry(Signed(shared.bytes.clone())).or_insert(shared).clone()
    }
}

/// The bytes may be a slice of a whole frame.
fn copy(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
