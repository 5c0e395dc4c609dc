//! The key of an issuer, which signs who may be a member of a swarm without a shared secret.

use std::{
    fmt,
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use iroh::SecretKey;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    key_text::{self, Form},
    proto::{EndpointId, Invitation, Revocation, TopicId},
    topic::Topic,
};

const FORM: Form = Form { prefix: "igdk1", label: b"iroh-gossip-discovery/issuer-key/1" };
const FIELD: &str = "issuer key";

/// The key of an issuer. It is no key of a node, and no node needs it. It is wiped when dropped.
///
/// In text: `igdk1`, then, in lower-case base 32 without padding, the 32 bytes of the key and four
/// bytes of a checksum.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use iroh_gossip_discovery::{EndpointId, IssuerKey, Topic};
///
/// let issuer = IssuerKey::generate();
/// let member = EndpointId::from_bytes([7; 32]);
/// let now = SystemTime::now();
/// let month = now..now + Duration::from_secs(30 * 86_400);
/// let invitation = issuer.invite(&Topic::new("fleet")?, member, month)?;
/// assert!(invitation.to_string().starts_with("igdi1"));
/// # Ok::<(), iroh_gossip_discovery::Error>(())
/// ```
#[derive(Clone)]
pub struct IssuerKey(SecretKey);

impl IssuerKey {
    /// Makes a new random key.
    #[must_use]
    pub fn generate() -> Self {
        Self(SecretKey::generate())
    }

    /// Reads the text of a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field `issuer key`. It never contains the text.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let key = key_text::decode(&FORM, text.trim());
        let key = key.ok_or_else(|| {
            Error::invalid(FIELD, "is none: it begins with igdk1, and has 63 characters in all")
        })?;
        Ok(Self(SecretKey::from_bytes(&key)))
    }

    /// The text of the key. It is as secret as the key.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        key_text::encode(&FORM, &Zeroizing::new(self.0.to_bytes()))
    }

    /// Returns the public half, which members trust.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.0.public().into()
    }

    /// Invites the node of an id to a topic for a time of at most 366 days.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `ends`.
    pub fn invite(
        &self,
        topic: &Topic,
        member: EndpointId,
        time: Range<SystemTime>,
    ) -> Result<Invitation, Error> {
        self.invite_at(topic.id(), member, seconds(&time))
    }

    /// Keeps an id out of a topic for a time of at most 366 days. Its end is no earlier than that
    /// of the last invitation of the id.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `ends`.
    pub fn revoke(
        &self,
        topic: &Topic,
        member: EndpointId,
        time: Range<SystemTime>,
    ) -> Result<Revocation, Error> {
        self.revoke_at(topic.id(), member, seconds(&time))
    }

    pub(crate) fn invite_at(
        &self,
        topic: TopicId,
        member: EndpointId,
        times: (u64, u64),
    ) -> Result<Invitation, Error> {
        Ok(Invitation::sign(self.0.as_signing_key(), topic, member, times)?)
    }

    pub(crate) fn revoke_at(
        &self,
        topic: TopicId,
        member: EndpointId,
        times: (u64, u64),
    ) -> Result<Revocation, Error> {
        Ok(Revocation::sign(self.0.as_signing_key(), topic, member, times)?)
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerKey({})", self.id().fmt_short())
    }
}

fn seconds(time: &Range<SystemTime>) -> (u64, u64) {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (seconds(time.start), seconds(time.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_key_is_the_key_and_its_secret_half_shows_nowhere_else() {
        let key = IssuerKey::generate();
        let text = key.to_text();
        assert_eq!(text.len(), 63);
        assert_eq!(IssuerKey::from_text(&text).unwrap().id(), key.id());
        assert!(!format!("{key:?}").contains(&text[5..20]));
        for place in 0..text.len() {
            let mut typed = text.to_string();
            let other = if &text[place..=place] == "a" { "b" } else { "a" };
            typed.replace_range(place..=place, other);
            let error = IssuerKey::from_text(&typed).unwrap_err().to_string();
            assert!(error.starts_with("issuer key is none") && !error.contains(&typed), "{error}");
        }
    }
}
