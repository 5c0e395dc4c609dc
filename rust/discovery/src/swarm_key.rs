//! The secret of a private swarm: a key, or a passphrase from which a key is derived.

use std::{collections::BTreeSet, fmt, sync::Arc};

use argon2::{Algorithm, Argon2, Params, Version};
use tracing::warn;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    key_text::{self, CHECKSUM, Form, KEY},
    ticket,
    topic::Topic,
};

/// What the text of every key starts with: the format and its version.
const PREFIX: &str = "igds1";
const FORM: Form = Form { prefix: PREFIX, label: b"iroh-gossip-discovery/swarm-key/1" };
const FIELD: &str = "secret";
/// Characters of a key's text.
const TEXT: usize = PREFIX.len() + (8 * (KEY + CHECKSUM)).div_ceil(5);
/// A text of the key's alphabet that is at most this much shorter or longer is a mistyped key.
const NEARLY: usize = 4;
/// Longest passphrase, in bytes.
const MAX_SECRET: usize = 1024;
/// Most secrets of a node: the one in use, and those that a rotation brings or takes away.
pub(crate) const MAX_KEYS: usize = 4;
/// A passphrase below either number is called weak: characters, and different ones among them.
const MIN_CHARACTERS: usize = 16;
const MIN_DIFFERENT: usize = 8;

/// A key of a private swarm: only nodes that hold it become members. It is wiped when dropped.
///
/// In text: `igds1`, then, in lower-case base 32 without padding, the 32 bytes of the key and four
/// bytes of a checksum.
///
/// ```
/// use iroh_gossip_discovery::{SwarmKey, Topic};
///
/// let key = SwarmKey::generate()?;
/// let text = key.to_text();
/// let again = SwarmKey::from_secret(&text, &Topic::new("fleet")?)?;
/// assert_eq!(*again.to_text(), *text);
/// # Ok::<(), iroh_gossip_discovery::Error>(())
/// ```
#[derive(Clone)]
pub struct SwarmKey(Zeroizing<[u8; KEY]>);

impl SwarmKey {
    /// Most secrets of a node.
    pub const MAX: usize = MAX_KEYS;

    /// A new random key.
    ///
    /// # Errors
    /// [`Error::Endpoint`] if the system has no random bytes.
    pub fn generate() -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut *key).map_err(|error| Error::Endpoint(error.to_string()))?;
        Ok(Self(key))
    }

    /// Returns the key of a secret. The text of a key is parsed. Any other text is a passphrase,
    /// from which Argon2id (RFC 9106: 64 MiB, 3 passes, 4 lanes) derives the key, with the topic's
    /// id as salt. That blocks for about 0.2 s. A passphrase of fewer than 16 characters, or of
    /// fewer than 8 different ones, is called weak in the log.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field `secret`, as [`Self::check`].
    pub fn from_secret(secret: &str, topic: &Topic) -> Result<Self, Error> {
        Self::check(secret)?;
        if let Some(key) = decode(secret) {
            return Ok(Self(key));
        }
        let passphrase = Zeroizing::new(secret.nfc().collect::<String>());
        if is_weak(&passphrase) {
            warn!(
                topic = %topic.id().fmt_short(),
                "the passphrase of this swarm is weak: a stranger may guess it; take a key of \
                 `iroh-gossip-discovery keygen --swarm`, or 16 characters and more"
            );
        }
        let mut key = Zeroizing::new([0; KEY]);
        let failed = |error: argon2::Error| Error::Endpoint(format!("Argon2id: {error}"));
        let params = Params::new(64 * 1024, 3, 4, Some(KEY)).map_err(failed)?;
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), topic.id().as_bytes(), &mut *key)
            .map_err(failed)?;
        Ok(Self(key))
    }

    /// Checks a secret: 1 to 1,024 bytes without control characters, and without white space at
    /// either end; neither a ticket nor a mistyped key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field `secret`. It never contains the secret.
    pub fn check(secret: &str) -> Result<(), Error> {
        let invalid = |reason: &str| Err(Error::invalid(FIELD, reason));
        if secret.is_empty() {
            return invalid("must not be empty");
        }
        if secret.len() > MAX_SECRET {
            return invalid("has a limit of 1,024 bytes");
        }
        if secret.chars().any(char::is_control) {
            return invalid("must not contain control characters");
        }
        if secret.trim() != secret {
            return invalid("must not begin or end with white space");
        }
        if secret.starts_with(ticket::PREFIX) && secret.len() > TEXT + NEARLY {
            return invalid("is a ticket: a ticket is not secret");
        }
        if looks_like_key(secret) && decode(secret).is_none() {
            return invalid("has the form of a key, and a wrong checksum: it is mistyped");
        }
        Ok(())
    }

    /// The text of the key. It is as secret as the key.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        key_text::encode(&FORM, &self.0)
    }

    /// A message authentication code under the key.
    pub(crate) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0)
    }
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmKey(..)")
    }
}

/// The keys of a node; none for a public swarm. Clones are handles of the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyring(Arc<[SwarmKey]>);

impl Keyring {
    pub(crate) fn new(keys: Vec<SwarmKey>) -> Result<Self, Error> {
        if keys.len() > MAX_KEYS {
            let reason = format!("has {} secrets, the limit is {MAX_KEYS}", keys.len());
            return Err(Error::invalid(FIELD, reason));
        }
        Ok(Self(keys.into()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SwarmKey> {
        self.0.iter()
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; KEY]>> {
    key_text::decode(&FORM, text)
}

/// Returns true if a text is a key, or one with some wrong, missing or doubled characters.
fn looks_like_key(text: &str) -> bool {
    let start = text.get(..PREFIX.len()).unwrap_or_default().to_ascii_lowercase();
    if start == PREFIX {
        return true;
    }
    let near = text.len().abs_diff(TEXT) <= NEARLY;
    let in_place = start.chars().zip(PREFIX.chars()).filter(|(one, other)| one == other).count();
    let parts = [&PREFIX[..3], &PREFIX[1..4], &PREFIX[2..]];
    let begins_alike = in_place >= 2 || parts.iter().any(|part| start.contains(part));
    near && begins_alike && text.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_weak(passphrase: &str) -> bool {
    let different: BTreeSet<_> = passphrase.chars().collect();
    passphrase.chars().count() < MIN_CHARACTERS || different.len() < MIN_DIFFERENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(secret: &str) -> String {
        let error = SwarmKey::check(secret).unwrap_err().to_string();
        assert!(secret.is_empty() || !error.contains(secret), "the error shows the secret");
        error
    }

    fn same(one: &SwarmKey, other: &SwarmKey) -> bool {
        one.0 == other.0
    }

    #[test]
    fn the_text_of_a_key_is_the_key_in_every_topic_and_shows_nowhere_else() {
        let key = SwarmKey::generate().unwrap();
        let text = key.to_text();
        assert_eq!(text.len(), TEXT);
        for topic in ["one", "two"] {
            let again = SwarmKey::from_secret(&text, &Topic::new(topic).unwrap()).unwrap();
            assert!(same(&key, &again));
        }
        assert_eq!(format!("{key:?}"), "SwarmKey(..)");
    }

    #[test]
    fn a_mistyped_key_is_refused_and_not_taken_for_a_passphrase() {
        let text = SwarmKey::generate().unwrap().to_text();
        for place in 0..text.len() {
            let mut typed = text.to_string();
            let other = if &text[place..=place] == "a" { "b" } else { "a" };
            typed.replace_range(place..=place, other);
            assert!(reason(&typed).contains("mistyped"), "{place}");
            let mut short = text.to_string();
            short.remove(place);
            // Of two equal characters either may be the one that is missing.
            assert!(reason(&short).contains("mistyped"), "{place}");
        }
        assert!(reason(&text.to_uppercase()).contains("mistyped"));
        assert!(reason(&format!("{}x", *text)).contains("mistyped"));
        assert!(reason("igds1").contains("mistyped"));
    }

    #[test]
    fn what_can_be_no_secret_is_refused_with_the_limit() {
        let ticket = format!("igd1{}", "a".repeat(120));
        for (secret, why) in [
            ("", "must not be empty"),
            (&"x".repeat(1025), "1,024 bytes"),
            ("one\ntwo", "control characters"),
            (" leading", "white space"),
            ("trailing\u{a0}", "white space"),
            (&ticket, "ticket"),
        ] {
            let error = reason(secret);
            assert!(error.starts_with("secret ") && error.contains(why), "{error}");
        }
        SwarmKey::check(&"é".repeat(512)).unwrap();
        let keys = (0..=MAX_KEYS).map(|_| SwarmKey::generate().unwrap());
        assert!(Keyring::new(keys.collect()).unwrap_err().to_string().contains("limit is 4"));
    }

    #[test]
    fn a_passphrase_gives_a_key_of_its_topic_alone_however_its_accents_are_typed() {
        let derive =
            |secret, topic| SwarmKey::from_secret(secret, &Topic::new(topic).unwrap()).unwrap();
        let key = derive("pass\u{e9}, a long one", "fleet");
        assert!(same(&key, &derive("passe\u{301}, a long one", "fleet")));
        assert!(!same(&key, &derive("pass\u{e9}, a long one", "other")));
        assert!(!same(&key, &derive("pass\u{e9}, a long onE", "fleet")));
    }

    #[test]
    fn a_short_passphrase_and_one_of_few_characters_are_weak() {
        assert!(is_weak("hunter2") && is_weak("fifteen letters"[..15].trim()));
        assert!(is_weak(&"abcdefg".repeat(9)));
        assert!(!is_weak("correct horse battery staple"));
    }
}
