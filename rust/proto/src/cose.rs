//! Signed objects: each is a `COSE_Sign1` (RFC 9052) in deterministic CBOR, bound to a topic and a
//! kind.
//!
//! The protected header is `{1: -8 (EdDSA), 4: kid}`. The kid is the endpoint id, which is the
//! Ed25519 public key. The external data are the kind, such as `"iroh-gossip-discovery/node/1"`,
//! followed by the topic id.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};

use crate::{
    cbor::Value,
    error::Error,
    id::{EndpointId, TopicId},
    signature::Claim,
};

const ALG: i64 = 1;
const KID: i64 = 4;
const EDDSA: i64 = -8;

/// Signs a payload of a kind, for a topic.
pub(crate) fn sign(key: &SigningKey, kind: &str, topic: &TopicId, payload: &[u8]) -> Bytes {
    let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
    sign_with(|message| key.sign(message).to_bytes(), id, kind, topic, payload)
}

/// As [`sign`], with a function that signs the bytes it is given.
pub(crate) fn sign_with(
    signature: impl FnOnce(&[u8]) -> [u8; 64],
    id: EndpointId,
    kind: &str,
    topic: &TopicId,
    payload: &[u8],
) -> Bytes {
    let protected = Value::map([
        (Value::int(ALG), Value::int(EDDSA)),
        (Value::int(KID), Value::bytes(id.as_bytes())),
    ])
    .encode();
    let signature = signature(&to_be_signed(&protected, kind, topic, payload));
    Value::array([
        Value::bytes(&protected),
        Value::map([]),
        Value::bytes(payload),
        Value::bytes(&signature),
    ])
    .encode()
    .into()
}

/// A signed object whose signature has not been verified: its signer is only claimed.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) bytes: Bytes,
    pub(crate) claimed: EndpointId,
    protected: Vec<u8>,
    payload: Vec<u8>,
    signature: [u8; 64],
}

impl Envelope {
    /// Parses a signed object of at most `limit` bytes. Errors call it `what`.
    pub(crate) fn open(what: &'static str, limit: usize, bytes: &Bytes) -> Result<Self, Error> {
        if bytes.len() > limit {
            let reason = format!("{} bytes, the limit is {limit}", bytes.len());
            return Err(Error::malformed(what, reason));
        }
        let mut fields = Value::decode(what, bytes)?.into_array(what)?;
        let protected = fields.take()?.into_bytes("protected header")?;
        if !fields.take()?.into_map("unprotected header")?.is_empty() {
            return Err(Error::malformed(what, "an unprotected header"));
        }
        let payload = fields.take()?.into_bytes("payload")?;
        let signature = fields.take()?.into_fixed("signature")?;
        if fields.list(0).is_err() {
            return Err(Error::malformed(what, "more than four items"));
        }
        let mut kid = None;
        let mut algorithm = None;
        for (key, value) in
            Value::decode("protected header", &protected)?.into_map("protected header")?
        {
            match key.as_int() {
                Some(k) if k == i128::from(ALG) => algorithm = value.as_int(),
                Some(k) if k == i128::from(KID) => {
                    kid = Some(EndpointId::from_bytes(value.into_fixed("kid")?));
                }
                // RFC 9052 §3.1: a verifier has to refuse a critical parameter that it does not
                // know. Here all unknown parameters are refused, "crit" among them.
                _ => return Err(Error::malformed("protected header", "an unknown parameter")),
            }
        }
        if algorithm != Some(i128::from(EDDSA)) {
            return Err(Error::malformed("protected header", "not EdDSA"));
        }
        let claimed = kid.ok_or_else(|| Error::malformed("protected header", "no kid"))?;
        Ok(Self { bytes: bytes.clone(), claimed, protected, payload, signature })
    }

    /// Verifies the signature, and returns the payload.
    pub(crate) fn verify(&self, kind: &str, topic: &TopicId) -> Result<&[u8], Error> {
        self.claim(kind, topic)?.verify()?;
        Ok(&self.payload)
    }

    /// Returns what the signature claims, to be verified alone or with others.
    pub(crate) fn claim(&self, kind: &str, topic: &TopicId) -> Result<Claim, Error> {
        let signed = to_be_signed(&self.protected, kind, topic, &self.payload);
        Claim::new(self.claimed.as_bytes(), &self.signature, &signed)
    }

    /// Returns the payload of an envelope whose [`Claim`] was verified.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// The `Sig_structure` of RFC 9052 §4.4.
fn to_be_signed(protected: &[u8], kind: &str, topic: &TopicId, payload: &[u8]) -> Vec<u8> {
    let mut external = kind.as_bytes().to_vec();
    external.extend_from_slice(topic.as_bytes());
    Value::array([
        Value::text("Signature1"),
        Value::bytes(protected),
        Value::bytes(&external),
        Value::bytes(payload),
    ])
    .encode()
}
