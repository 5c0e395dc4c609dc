//! The signed accusation: a member says that another one did not answer it.
//!
//! It names the sequence number by which the accuser knew the accused. So one record with a higher
//! number refutes all accusations, and an old accusation says nothing about a new life.

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use crate::{
    cbor::Value,
    cose::{self, Envelope},
    error::Error,
    id::{EndpointId, TopicId},
    wire::{MAX_ACCUSATION, sequence},
};

const KIND: &str = "iroh-gossip-discovery/accusation/1";
const ACCUSED: i64 = 0;
const SEQUENCE: i64 = 1;

/// An accusation whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accusation {
    /// The bytes as signed, to be forwarded unchanged.
    pub(crate) bytes: Bytes,
    pub(crate) accuser: EndpointId,
    pub(crate) accused: EndpointId,
    /// The accuser knew the accused by a record with this sequence number.
    pub(crate) sequence: u64,
}

impl Accusation {
    pub(crate) fn sign(
        key: &SigningKey,
        topic: &TopicId,
        accused: EndpointId,
        sequence: u64,
    ) -> Self {
        let payload = Value::map([
            (Value::int(ACCUSED), Value::bytes(accused.as_bytes())),
            (Value::int(SEQUENCE), Value::uint(sequence)),
        ]);
        let bytes = cose::sign(key, KIND, topic, &payload.encode());
        let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
        Self { bytes, accuser: id, accused, sequence }
    }

    /// Parses an accusation without verifying its signature.
    pub(crate) fn open(bytes: &Bytes) -> Result<Envelope, Error> {
        Envelope::open("accusation", MAX_ACCUSATION, bytes)
    }

    /// Verifies and then decodes an accusation. Keys of a later version are ignored.
    pub(crate) fn verify(envelope: Envelope, topic: &TopicId) -> Result<Self, Error> {
        envelope.verify(KIND, topic)?;
        Self::decode(envelope)
    }

    /// Decodes an accusation whose signature was verified before.
    pub(crate) fn decode(envelope: Envelope) -> Result<Self, Error> {
        const WHAT: &str = "accusation";
        let mut fields = Value::decode(WHAT, envelope.payload())?.into_keyed(WHAT)?;
        let accused = fields.required(ACCUSED, "accused")?.into_fixed("accused")?;
        let sequence = sequence(fields.required(SEQUENCE, "sequence")?)?;
        Ok(Self {
            accuser: envelope.claimed,
            accused: EndpointId::from_bytes(accused),
            sequence,
            bytes: envelope.bytes,
        })
    }
}
