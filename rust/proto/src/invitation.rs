//! Invitations and their revocations: an issuer signs that an id may be a member of a topic up to a
//! date, or that an id is a member no longer.
//!
//! Both are bound to the topic and to one id, so an invitation is worth nothing to another node.
//! The holder proves the id by the TLS handshake of the link. Times are seconds since 1970, in UTC.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use ed25519_dalek::SigningKey;

use crate::{
    cbor::Value,
    cose::{self, Envelope},
    error::Error,
    id::{EndpointId, TopicId},
};

/// Longest invitation or revocation, in bytes. Ours are at most 211.
pub const MAX_INVITATION: usize = 512;
/// The clocks of issuers and members may differ by this much, in seconds.
pub const CLOCK_TOLERANCE: u64 = 300;
/// An invitation or a revocation ends at most this long after it begins, in seconds: 366 days.
pub const MAX_INVITED: u64 = 366 * 86_400;

const TOPIC: i64 = 0;
const MEMBER: i64 = 1;
const BEGINS: i64 = 2;
const ENDS: i64 = 3;

/// What tells an invitation from a revocation: its name in errors, what is signed with it, and how
/// its text begins.
struct Kind {
    name: &'static str,
    label: &'static str,
    prefix: &'static str,
}

const INVITATION: Kind =
    Kind { name: "invitation", label: "iroh-gossip-discovery/invitation/1", prefix: "igdi1" };
const REVOCATION: Kind =
    Kind { name: "revocation", label: "iroh-gossip-discovery/revocation/1", prefix: "igdr1" };

/// An issuer's word that an id may be a member of a topic, whose signature holds.
///
/// Its text is `igdi1`, then the signed bytes in lower-case base 32 without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    bytes: Bytes,
    /// The public key of the signer.
    pub issuer: EndpointId,
    /// The only topic that it is for.
    pub topic: TopicId,
    /// The only id that it is for.
    pub member: EndpointId,
    /// It holds from this time on.
    pub begins: u64,
    /// It holds no longer from this time on.
    pub ends: u64,
}

/// An issuer's word that an id is kept out of a topic, whose signature holds.
///
/// Its text is `igdr1`, then the signed bytes in lower-case base 32 without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    bytes: Bytes,
    /// The public key of the signer.
    pub issuer: EndpointId,
    /// The topic that the id is kept out of.
    pub topic: TopicId,
    /// The id that is kept out.
    pub member: EndpointId,
    /// When it was signed. It counts from its arrival on, whatever this says.
    pub begins: u64,
    /// From this time on it is forgotten, because all invitations of the id have ended.
    pub ends: u64,
}

impl Invitation {
    /// Invites an id to a topic, for the time from `begins` to `ends`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `ends` if that is not after `begins`, or more than [`MAX_INVITED`]
    /// after it.
    pub fn sign(
        issuer: &SigningKey,
        topic: TopicId,
        member: EndpointId,
        (begins, ends): (u64, u64),
    ) -> Result<Self, Error> {
        let (issuer, bytes) = sign(&INVITATION, issuer, topic, member, (begins, ends))?;
        Ok(Self { bytes, issuer, topic, member, begins, ends })
    }

    /// Verifies the signature, then decodes. [`Self::check`] says if the invitation holds now.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Forged`].
    pub fn verify(bytes: &Bytes) -> Result<Self, Error> {
        let (issuer, topic, member, (begins, ends)) = verify(&INVITATION, bytes)?;
        Ok(Self { bytes: bytes.clone(), issuer, topic, member, begins, ends })
    }

    /// Returns the bytes as signed.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns true if it has ended by a clock that may be late by [`CLOCK_TOLERANCE`].
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.ends.saturating_add(CLOCK_TOLERANCE)
    }

    /// Returns true if it has not begun by a clock that may be early by [`CLOCK_TOLERANCE`].
    #[must_use]
    pub fn is_early(&self, now: u64) -> bool {
        now.saturating_add(CLOCK_TOLERANCE) < self.begins
    }
}

impl Revocation {
    /// Keeps an id out of a topic until `ends`, when its invitations have ended.
    ///
    /// # Errors
    /// As [`Invitation::sign`].
    pub fn sign(
        issuer: &SigningKey,
        topic: TopicId,
        member: EndpointId,
        (begins, ends): (u64, u64),
    ) -> Result<Self, Error> {
        let (issuer, bytes) = sign(&REVOCATION, issuer, topic, member, (begins, ends))?;
        Ok(Self { bytes, issuer, topic, member, begins, ends })
    }

    /// Verifies the signature, then decodes.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Forged`].
    pub fn verify(bytes: &Bytes) -> Result<Self, Error> {
        let (issuer, topic, member, (begins, ends)) = verify(&REVOCATION, bytes)?;
        Ok(Self { bytes: bytes.clone(), issuer, topic, member, begins, ends })
    }

    /// Returns its issuer and its member, without verifying the signature.
    pub(crate) fn claimed(bytes: &Bytes) -> Result<(EndpointId, EndpointId), Error> {
        let what = REVOCATION.name;
        let envelope = Envelope::open(what, MAX_INVITATION, bytes)?;
        let mut fields = Value::decode(what, envelope.payload())?.into_keyed(what)?;
        let member = fields.required(MEMBER, "member")?.into_fixed("member")?;
        Ok((envelope.claimed, EndpointId::from_bytes(member)))
    }

    /// Returns the bytes as signed, to be forwarded unchanged.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns true if all invitations that it takes back have ended by themselves.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.ends.saturating_add(CLOCK_TOLERANCE)
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_text(&INVITATION, &self.bytes))
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_text(&REVOCATION, &self.bytes))
    }
}

impl FromStr for Invitation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = from_text(&INVITATION, text)?;
        Self::verify(&bytes).map_err(|error| unreadable(&INVITATION, &error))
    }
}

impl FromStr for Revocation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = from_text(&REVOCATION, text)?;
        Self::verify(&bytes).map_err(|error| unreadable(&REVOCATION, &error))
    }
}

fn sign(
    kind: &Kind,
    issuer: &SigningKey,
    topic: TopicId,
    member: EndpointId,
    (begins, ends): (u64, u64),
) -> Result<(EndpointId, Bytes), Error> {
    if let Some(reason) = wrong_time(begins, ends) {
        return Err(Error::Invalid { field: "ends", reason: reason.to_owned() });
    }
    let payload = Value::map([
        (Value::int(TOPIC), Value::bytes(topic.as_bytes())),
        (Value::int(MEMBER), Value::bytes(member.as_bytes())),
        (Value::int(BEGINS), Value::uint(begins)),
        (Value::int(ENDS), Value::uint(ends)),
    ]);
    let id = EndpointId::from_bytes(issuer.verifying_key().to_bytes());
    Ok((id, cose::sign(issuer, kind.label, &topic, &payload.encode())))
}

/// Issuer, topic, member, and the two times. Keys of a later version are ignored.
type Parts = (EndpointId, TopicId, EndpointId, (u64, u64));

fn verify(kind: &Kind, bytes: &Bytes) -> Result<Parts, Error> {
    decode(kind, bytes, |envelope, topic| envelope.verify(kind.label, topic).map(|_| ()))
}

/// Decodes only as much as says what the signature has to cover, then asks `is_signed`.
fn decode(
    kind: &Kind,
    bytes: &Bytes,
    is_signed: impl FnOnce(&Envelope, &TopicId) -> Result<(), Error>,
) -> Result<Parts, Error> {
    let what = kind.name;
    let envelope = Envelope::open(what, MAX_INVITATION, bytes)?;
    let mut fields = Value::decode(what, envelope.payload())?.into_keyed(what)?;
    let topic = TopicId::from_bytes(fields.required(TOPIC, "topic")?.into_fixed("topic")?);
    is_signed(&envelope, &topic)?;
    let member = EndpointId::from_bytes(fields.required(MEMBER, "member")?.into_fixed("member")?);
    let begins = fields.required(BEGINS, "begins")?.into_uint("begins")?;
    let ends = fields.required(ENDS, "ends")?.into_uint("ends")?;
    if let Some(reason) = wrong_time(begins, ends) {
        return Err(Error::malformed(what, format!("its end {reason}")));
    }
    Ok((envelope.claimed, topic, member, (begins, ends)))
}

fn wrong_time(begins: u64, ends: u64) -> Option<&'static str> {
    if ends <= begins {
        Some("must be after the beginning")
    } else if ends - begins > MAX_INVITED {
        Some("must be within 366 days of the beginning")
    } else {
        None
    }
}

fn to_text(kind: &Kind, bytes: &[u8]) -> String {
    format!("{}{}", kind.prefix, BASE32_NOPAD.encode(bytes).to_ascii_lowercase())
}

fn from_text(kind: &Kind, text: &str) -> Result<Bytes, Error> {
    let invalid = |reason: String| Err(Error::Invalid { field: kind.name, reason });
    let text = text.trim();
    let most = kind.prefix.len() + BASE32_NOPAD.encode_len(MAX_INVITATION);
    if text.len() > most {
        return invalid(format!("is {} characters, the limit is {most}", text.len()));
    }
    let Some(digits) = text.strip_prefix(kind.prefix) else {
        return invalid(format!("does not start with {:?}", kind.prefix));
    };
    let wrong = digits.char_indices().find(|(_, c)| !matches!(c, 'a'..='z' | '2'..='7'));
    if let Some((at, c)) = wrong {
        let at = at + kind.prefix.len() + 1;
        return invalid(format!("has {c:?} at character {at}, which is not one of a-z and 2-7"));
    }
    match BASE32_NOPAD.decode(digits.to_ascii_uppercase().as_bytes()) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => invalid("ends early: characters are missing".to_owned()),
    }
}

/// A text has no checksum: its signature shows that a character is wrong.
fn unreadable(kind: &Kind, error: &Error) -> Error {
    let reason = match error {
        Error::Forged => "has a signature that does not hold: a character is mistyped".to_owned(),
        error => format!("can't be read, as if characters were mistyped or missing: {error}"),
    };
    Error::Invalid { field: kind.name, reason }
}

/// Reads bytes and texts that a fuzzer chose. No signature is checked, so that it gets past that.
#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
pub(crate) fn fuzz(bytes: &Bytes) {
    for kind in [&INVITATION, &REVOCATION] {
        if let Ok((issuer, _, member, (begins, ends))) = decode(kind, bytes, |_, _| Ok(())) {
            assert!(begins < ends && ends - begins <= MAX_INVITED, "what decodes is within limits");
            let claimed = Revocation::claimed(bytes).unwrap();
            assert_eq!(claimed, (issuer, member), "both ways to read say the same");
            assert_eq!(from_text(kind, &to_text(kind, bytes)).unwrap(), bytes);
        }
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(bytes) = from_text(kind, text)
        {
            assert_eq!(to_text(kind, &bytes), text.trim(), "a text has one form");
            let _ = verify(kind, &bytes);
        }
    }
}
