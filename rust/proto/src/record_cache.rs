//! Verified records, shared by the states of one simulated network: each of them would verify, decode
//! and hold them for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    error::Error,
    id::{EndpointId, TopicId},
    record::{Envelope, SignedRecord},
};

/// Records that were verified before, by topic and by their whole bytes. Not for production, where
/// every process verifies what it takes in.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct RecordCache(Mutex<HashMap<TopicId, HashMap<Bytes, SignedRecord>>>);

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

impl RecordCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicId, HashMap<Bytes, SignedRecord>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, topic: &TopicId, bytes: &Bytes) -> Result<Opened, Error> {
        let known = self.lock().get(topic).and_then(|records| records.get(bytes)).cloned();
        match known {
            Some(signed) => Ok(Opened::Verified(signed)),
            None => Envelope::open(bytes).map(Opened::Unverified),
        }
    }

    /// Keeps a record that was verified, and gives what is to be held of it.
    pub(crate) fn keep(&self, topic: &TopicId, signed: &SignedRecord) -> SignedRecord {
        // A copy: the bytes may be a slice of a whole frame.
        let shared = signed.with_bytes(Bytes::copy_from_slice(signed.bytes()));
        let mut topics = self.lock();
        let records = topics.entry(*topic).or_default();
        records.entry(shared.bytes().clone()).or_insert(shared).clone()
    }
}
