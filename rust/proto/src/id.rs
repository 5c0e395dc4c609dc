//! Identities: the endpoint id, which is a public key, and the topic id, which is a hash.

use std::{cmp::Ordering, fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Longest topic name, in bytes of UTF-8.
pub const MAX_TOPIC_NAME: usize = 256;

/// The id of an endpoint: its Ed25519 public key, 64 lower-case hex digits in text.
///
/// It holds 32 raw bytes. Whether they are a valid key is checked only when a signature is
/// verified. So ids can be compared, sorted and forwarded without arithmetic on curves.
///
/// ```
/// use iroh_gossip_discovery_proto::EndpointId;
///
/// let id: EndpointId = "07".repeat(32).parse()?;
/// assert_eq!(id.as_bytes(), &[7; 32]);
/// assert_eq!(id.fmt_short(), "0707070707");
/// # Ok::<(), iroh_gossip_discovery_proto::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId([u8; 32]);

impl Ord for EndpointId {
    /// Compares the bytes. The first eight nearly always differ, because keys look random.
    fn cmp(&self, other: &Self) -> Ordering {
        let head = |id: &Self| id.0.first_chunk().map(|head| u64::from_be_bytes(*head));
        head(self).cmp(&head(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for EndpointId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl EndpointId {
    /// Wraps the 32 bytes of a public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first ten hex digits, for log lines, and to show beside a name.
    #[must_use]
    pub fn fmt_short(&self) -> String {
        HEXLOWER.encode(&self.0[..5])
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointId({})", self.fmt_short())
    }
}

impl FromStr for EndpointId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse_hex32(text).map(Self).ok_or_else(|| Error::Invalid {
            field: "endpoint id",
            reason: format!("{text:?} is not 64 lower-case hex digits"),
        })
    }
}

impl From<iroh_base::EndpointId> for EndpointId {
    fn from(key: iroh_base::EndpointId) -> Self {
        Self(*key.as_bytes())
    }
}

impl PartialEq<iroh_base::EndpointId> for EndpointId {
    fn eq(&self, other: &iroh_base::EndpointId) -> bool {
        self.0 == *other.as_bytes()
    }
}

impl PartialEq<EndpointId> for iroh_base::EndpointId {
    fn eq(&self, other: &EndpointId) -> bool {
        other == self
    }
}

impl TryFrom<EndpointId> for iroh_base::EndpointId {
    type Error = Error;

    fn try_from(id: EndpointId) -> Result<Self, Error> {
        Self::from_bytes(&id.0).map_err(|_| Error::Invalid {
            field: "endpoint id",
            reason: format!("{id} is not an Ed25519 public key"),
        })
    }
}

impl Serialize for EndpointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for EndpointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = EndpointId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<EndpointId, E> {
                <[u8; 32]>::try_from(bytes)
                    .map(EndpointId)
                    .map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// The id of a topic: the SHA-256 of a label and the topic's name.
///
/// No secret enters it, so that a secret of the application can change without a new topic.
///
/// ```
/// use iroh_gossip_discovery_proto::TopicId;
///
/// let topic = TopicId::from_name("fleet")?;
/// assert_eq!(topic, TopicId::from_name("fleet")?);
/// assert!(TopicId::from_name("").is_err());
/// # Ok::<(), iroh_gossip_discovery_proto::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId([u8; 32]);

impl TopicId {
    /// Returns the id of the topic called `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name is empty, is longer than [`MAX_TOPIC_NAME`] bytes, or
    /// contains a control character.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let reason = if name.is_empty() {
            "must not be empty".to_owned()
        } else if name.len() > MAX_TOPIC_NAME {
            format!("is {} bytes, the limit is {MAX_TOPIC_NAME}", name.len())
        } else if name.chars().any(char::is_control) {
            "has a control character".to_owned()
        } else {
            let mut hash = Sha256::new();
            hash.update(b"iroh-gossip-discovery/topic/1\0");
            hash.update(name.as_bytes());
            return Ok(Self(hash.finalize().into()));
        };
        Err(Error::Invalid { field: "topic", reason })
    }

    /// Wraps the 32 bytes of a topic id.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first ten hex digits, for log lines.
    #[must_use]
    pub fn fmt_short(&self) -> String {
        HEXLOWER.encode(&self.0[..5])
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({})", self.fmt_short())
    }
}

fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_their_bytes() {
        let with = |at: usize, byte: u8| std::array::from_fn(|i| if i == at { byte } else { 7 });
        let all: Vec<[u8; 32]> =
            (0..32).flat_map(|at| [0, 8, 0x80, 0xff].map(|byte| with(at, byte))).collect();
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
            let ids = [a, b].map(EndpointId::from_bytes);
            assert_eq!(ids[0].cmp(&ids[1]), a.cmp(&b), "{ids:?}");
        }
    }
}
