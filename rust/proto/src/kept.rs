//! What a node keeps of its book over a restart: the records of others, each with what the next
//! life has to know about it. [`Entry`] is the form on disk, and [`Kept`] is what the next life
//! takes in.

use bytes::Bytes;
use rand::{SeedableRng, rngs::ChaCha12Rng};

use crate::{
    cbor::Value,
    error::Error,
    id::{EndpointId, TopicId},
    record::{Envelope, SignedRecord},
    verified::verify_all,
};

/// A record that an earlier life of this node had in its book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The record, verified.
    pub signed: SignedRecord,
    /// The sequence number of its owner's leave, or 0. Only a newer record brings the owner back.
    pub left: u64,
    /// True if its owner is established: dials to it are not limited as dials to strangers are.
    pub established: bool,
}

/// A member of the book, in its form on disk: one CBOR array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The id of the member.
    pub id: EndpointId,
    /// The last record by which the member was alive, as signed. It is not verified.
    pub record: Bytes,
    /// When the member entered the book, in seconds since 1970 by this machine's clock.
    pub since: u64,
    /// When the member was last known to be alive, or left, in seconds since 1970 by this machine's
    /// clock.
    pub heard: u64,
    /// The sequence number of the member's leave, or 0 if it did not leave.
    pub left: u64,
}

impl Entry {
    /// Returns the bytes of this entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Value::array([
            Value::bytes(self.id.as_bytes()),
            Value::bytes(&self.record),
            Value::uint(self.since),
            Value::uint(self.heard),
            Value::uint(self.left),
        ])
        .encode()
    }

    /// Decodes an entry. Items after those that this version knows are ignored.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        const WHAT: &str = "kept entry";
        let mut fields = Value::decode(WHAT, bytes)?.into_array(WHAT)?;
        Ok(Self {
            id: EndpointId::from_bytes(fields.take()?.into_fixed("endpoint id")?),
            record: fields.take()?.into_bytes("record")?.into(),
            since: fields.take()?.into_uint("since")?,
            heard: fields.take()?.into_uint("heard")?,
            left: fields.take()?.into_uint("left")?,
        })
    }

    /// Verifies the record.
    ///
    /// # Errors
    /// [`Error::Forged`] or [`Error::Malformed`], also if it is the record of another node.
    pub fn verify(&self, topic: &TopicId, established: bool) -> Result<Kept, Error> {
        let signed = SignedRecord::verify(topic, &self.record)?;
        self.holding(signed, established)
    }

    /// Verifies the records of many entries together, in less than half of the time of one by one.
    /// Each entry comes with whether its member is established.
    ///
    /// Only this process may know the `seed`.
    ///
    /// # Errors
    /// As [`Self::verify`], if one of the entries is not valid. It does not say which one.
    pub fn verify_all(
        entries: &[(Self, bool)],
        topic: &TopicId,
        seed: [u8; 32],
    ) -> Result<Vec<Kept>, Error> {
        let opened = entries.iter().map(|(entry, _)| Envelope::open(&entry.record));
        let opened = opened.collect::<Result<_, _>>()?;
        let signed = verify_all(topic, opened, &mut ChaCha12Rng::from_seed(seed))?;
        let all = entries.iter().zip(signed);
        all.map(|((entry, established), signed)| entry.holding(signed, *established)).collect()
    }

    fn holding(&self, signed: SignedRecord, established: bool) -> Result<Kept, Error> {
        if signed.record().id != self.id {
            return Err(Error::malformed("kept entry", "holds the record of another node"));
        }
        Ok(Kept { signed, left: self.left, established })
    }
}
