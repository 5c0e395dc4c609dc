//! The signed record: a node's description of itself, as a `COSE_Sign1` (RFC 9052) in deterministic
//! CBOR.
//!
//! Any COSE library can verify it. The protected header is `{1: -8 (EdDSA), 4: kid}`, and the kid
//! is the endpoint id, which is the Ed25519 public key. The external data are
//! `"iroh-gossip-discovery/node/1"` followed by the topic id. `docs/wire.cddl` describes the
//! payload. The bytes are kept and forwarded unchanged, so that keys of a later version survive.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use iroh_base::{EndpointAddr, RelayUrl, TransportAddr};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::{
    cbor::Value,
    cose,
    digest::Digest,
    error::Error,
    id::{EndpointId, TopicId},
    signature::Claim,
};

/// Longest record, in bytes on the wire.
pub const MAX_RECORD: usize = 2048;
/// Longest name, in bytes of UTF-8.
pub const MAX_NAME: usize = 64;
/// Largest metadata, in bytes of its CBOR encoding.
pub const MAX_METADATA: usize = 1024;
/// Most addresses in a record.
pub const MAX_ADDRESSES: usize = 8;
/// Longest relay URL, in bytes.
pub const MAX_RELAY_URL: usize = 128;
/// Most protocols (ALPNs) in a record.
pub const MAX_PROTOCOLS: usize = 8;
/// Longest protocol (ALPN), in bytes.
pub const MAX_PROTOCOL: usize = 32;
/// Sequence numbers stay below this, so that jumping above one never overflows.
pub const MAX_SEQUENCE: u64 = 1 << 62;
/// Shortest and longest expiration that a record may announce, in seconds.
pub const EXPIRATION_SECONDS: std::ops::RangeInclusive<u32> = 1..=30 * 86_400;

pub(crate) const KIND_NODE: &str = "iroh-gossip-discovery/node/1";

mod key {
    pub(super) const SEQUENCE: i64 = 0;
    pub(super) const BOOT_ID: i64 = 1;
    pub(super) const NAME: i64 = 2;
    pub(super) const ADDRESSES: i64 = 3;
    pub(super) const METADATA: i64 = 4;
    pub(super) const STATUS: i64 = 5;
    pub(super) const EXPIRATION: i64 = 6;
    pub(super) const PROTOCOLS: i64 = 7;
    pub(super) const READINESS: i64 = 8;
}

/// Whether a node takes work, by its own account.
///
/// ```
/// use iroh_gossip_discovery_proto::Readiness;
///
/// assert_eq!("draining".parse::<Readiness>()?, Readiness::Draining);
/// assert_eq!(Readiness::default().as_str(), "ready");
/// # Ok::<(), iroh_gossip_discovery_proto::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Readiness {
    /// It takes work. A record that says nothing of it means this.
    #[default]
    Ready,
    /// It finishes what it has, and takes nothing new.
    Draining,
    /// It is there, and can't do its work.
    Critical,
    /// It says something that this release does not know. No node can announce this.
    Unknown,
}

impl Readiness {
    /// Returns the name: "ready", "draining", "critical" or "unknown".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    fn validate(self) -> Result<(), Error> {
        if self == Self::Unknown {
            let reason = "must be ready, draining or critical".into();
            return Err(Error::Invalid { field: "readiness", reason });
        }
        Ok(())
    }

    /// The value in a record; `None` if it is left out.
    fn code(self) -> Option<u64> {
        match self {
            Self::Ready | Self::Unknown => None,
            Self::Draining => Some(1),
            Self::Critical => Some(2),
        }
    }

    fn decode(value: Value) -> Self {
        match value.into_uint::<u64>("readiness") {
            Ok(0) => Self::Ready,
            Ok(1) => Self::Draining,
            Ok(2) => Self::Critical,
            _ => Self::Unknown,
        }
    }
}

impl std::str::FromStr for Readiness {
    type Err = Error;

    /// Parses the name of what a node can announce.
    fn from_str(name: &str) -> Result<Self, Error> {
        let all = [Self::Ready, Self::Draining, Self::Critical];
        all.into_iter().find(|one| one.as_str() == name).ok_or_else(|| Error::Invalid {
            field: "readiness",
            reason: format!("is {name:?}, must be \"ready\", \"draining\" or \"critical\""),
        })
    }
}

/// The part of a node's record that its application sets, and may change at any time.
///
/// ```
/// use iroh_gossip_discovery_proto::Profile;
///
/// assert!(Profile::new("alice").validate().is_ok());
/// let error = Profile::default().validate().unwrap_err();
/// assert_eq!(error.to_string(), "name must not be empty");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Profile {
    /// A label, not an identity: several nodes may share it. 1 to 64 bytes, NFC, at least one
    /// visible character, no control or direction-changing characters.
    pub name: String,
    /// Free text by key, at most 1 KiB encoded.
    pub metadata: BTreeMap<String, String>,
    /// ALPNs that this endpoint serves, at most 8 of at most 32 bytes.
    pub protocols: Vec<Vec<u8>>,
    /// Whether this node takes work. What chooses a node for some work passes over others.
    pub readiness: Readiness,
}

impl Profile {
    /// Makes a profile with a name and nothing else.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// [`Error::Invalid`], which names the field and the limit.
    pub fn validate(&self) -> Result<(), Error> {
        self.readiness.validate()?;
        self.validate_fields()
    }

    /// As [`Self::validate`], for a record of another node, which may be of a later release.
    fn validate_fields(&self) -> Result<(), Error> {
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        if self.name.is_empty() {
            return invalid("name", "must not be empty".into());
        }
        if self.name.len() > MAX_NAME {
            return invalid(
                "name",
                format!("is {} bytes, the limit is {MAX_NAME}", self.name.len()),
            );
        }
        if let Some(c) = self.name.chars().find(|c| !is_label_char(*c)) {
            return invalid(
                "name",
                format!("has a control or direction-changing character (U+{:04X})", u32::from(c)),
            );
        }
        if self.name.chars().all(is_invisible) {
            return invalid("name", "must have a visible character: it is blank".into());
        }
        if !self.name.nfc().eq(self.name.chars()) {
            return invalid("name", "must be in Unicode normalization form C".into());
        }
        let size = encode_metadata(&self.metadata).encode().len();
        if size > MAX_METADATA {
            return invalid(
                "metadata",
                format!("is {size} bytes encoded, the limit is {MAX_METADATA}"),
            );
        }
        if self.protocols.len() > MAX_PROTOCOLS {
            return invalid(
                "protocols",
                format!("has {} entries, the limit is {MAX_PROTOCOLS}", self.protocols.len()),
            );
        }
        if let Some(long) = self.protocols.iter().find(|p| !(1..=MAX_PROTOCOL).contains(&p.len())) {
            return invalid(
                "protocols",
                format!("has an entry of {} bytes, each must be 1 to {MAX_PROTOCOL}", long.len()),
            );
        }
        Ok(())
    }
}

impl From<&str> for Profile {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

fn is_label_char(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// Returns true for a character that shows nothing by itself: white space, zero-width characters,
/// fillers, and marks that only change the character before them. A name of only these would look
/// empty, or like another node's.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
        || is_combining_mark(c)
}

/// Returns why an address can't be a peer's: no packet can be sent to it, or it holds a secret.
fn implausible(address: &TransportAddr) -> Option<&'static str> {
    match address {
        TransportAddr::Ip(socket) => match socket.ip().to_canonical() {
            _ if socket.port() == 0 => Some("has port 0"),
            ip if ip.is_unspecified() => Some("is no address of a host"),
            ip if ip.is_multicast() => Some("is a multicast address"),
            IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
            _ => None,
        },
        TransportAddr::Relay(url) if !matches!(url.scheme(), "http" | "https") => {
            Some("is a relay URL that is neither http nor https")
        }
        TransportAddr::Relay(url) if url.host_str().is_none_or(str::is_empty) => {
            Some("is a relay URL without a host")
        }
        TransportAddr::Relay(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("is a relay URL with a user name or a password")
        }
        _ => None,
    }
}

/// Whether a record says that its owner is present or has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The owner is present.
    Alive,
    /// The owner left.
    Left,
}

/// The content of a verified record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeRecord {
    /// The owner: the key that signed the record.
    pub id: EndpointId,
    /// The order of the owner's records: the highest one wins. Below 2⁶².
    pub sequence: u64,
    /// A random number for each process of the owner, so that it changes with a restart.
    pub boot_id: u64,
    /// Name, metadata and protocols.
    pub profile: Profile,
    /// Hints where the owner can be dialed: at most 8, best first.
    pub addresses: Vec<TransportAddr>,
    /// Alive or left.
    pub status: Status,
    /// How long others keep the record without a newer one.
    pub expiration: Duration,
}

impl NodeRecord {
    /// Makes the record of a node that is alive, with numbers of 0, no addresses and no expiration.
    #[must_use]
    pub fn new(id: EndpointId, profile: Profile) -> Self {
        Self {
            id,
            sequence: 0,
            boot_id: 0,
            profile,
            addresses: Vec::new(),
            status: Status::Alive,
            expiration: Duration::ZERO,
        }
    }

    /// Returns true if the owner takes work, by its own account.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.profile.readiness == Readiness::Ready
    }

    /// Returns where the owner can be dialed, for `iroh::Endpoint::connect`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the id is no public key. The id of a verified record always is one.
    pub fn endpoint_addr(&self) -> Result<EndpointAddr, Error> {
        Ok(EndpointAddr::from_parts(self.id.try_into()?, self.addresses.iter().cloned()))
    }
}

impl TryFrom<&NodeRecord> for EndpointAddr {
    type Error = Error;

    fn try_from(record: &NodeRecord) -> Result<Self, Error> {
        record.endpoint_addr()
    }
}

/// A record together with the bytes that its owner signed. It is cheap to clone, and small, because
/// a book holds one for each member.
///
/// ```
/// use std::time::Duration;
///
/// use ed25519_dalek::SigningKey;
/// use iroh_gossip_discovery_proto::{EndpointId, NodeRecord, Profile, SignedRecord, TopicId};
///
/// let (key, topic) = (SigningKey::from_bytes(&[7; 32]), TopicId::from_name("fleet")?);
/// let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
/// let mut record = NodeRecord::new(id, Profile::new("alice"));
/// record.sequence = 1;
/// record.expiration = Duration::from_secs(900);
/// let signed = SignedRecord::sign(&key, &topic, record)?;
/// assert_eq!(SignedRecord::verify(&topic, signed.bytes())?.record(), signed.record());
///
/// // The signature covers the topic, so the record is worthless in another one.
/// let other = TopicId::from_name("another")?;
/// assert!(SignedRecord::verify(&other, signed.bytes()).is_err());
/// # Ok::<(), iroh_gossip_discovery_proto::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SignedRecord(Arc<Signed>);

#[derive(Debug)]
struct Signed {
    bytes: Bytes,
    record: Arc<NodeRecord>,
    /// The digest of the id and the sequence number.
    digest: Digest,
}

impl PartialEq for SignedRecord {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for SignedRecord {}

impl SignedRecord {
    /// Signs a record for a topic.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a field is over its limit, or if all fields together are over
    /// [`MAX_RECORD`].
    pub fn sign(key: &SigningKey, topic: &TopicId, record: NodeRecord) -> Result<Self, Error> {
        debug_assert_eq!(record.id.as_bytes(), key.verifying_key().as_bytes());
        Self::sign_with(|message| key.sign(message).to_bytes(), topic, record)
    }

    /// As [`Self::sign`], with a function that makes the signature.
    pub(crate) fn sign_with(
        signature: impl FnOnce(&[u8]) -> [u8; 64],
        topic: &TopicId,
        record: NodeRecord,
    ) -> Result<Self, Error> {
        record.profile.readiness.validate()?;
        record.validate()?;
        let payload = encode_payload(&record);
        let bytes = cose::sign_with(signature, record.id, KIND_NODE, topic, &payload);
        if bytes.len() > MAX_RECORD {
            return Err(Error::Invalid {
                field: "record",
                reason: format!("is {} bytes, the limit is {MAX_RECORD}", bytes.len()),
            });
        }
        Ok(Self::new(bytes, record.into()))
    }

    fn new(bytes: Bytes, record: Arc<NodeRecord>) -> Self {
        let digest = Digest::of(&record.id, record.sequence);
        Self(Arc::new(Signed { bytes, record, digest }))
    }

    /// Verifies the signature, and then decodes the payload. The rule is that of
    /// [ZIP 215](https://zips.z.cash/zip-0215), but keys and points that are not canonical or of
    /// small order are refused. Many signatures that are verified together are judged by the same
    /// rule.
    ///
    /// # Errors
    /// [`Error::Forged`] or [`Error::Malformed`].
    pub fn verify(topic: &TopicId, bytes: &Bytes) -> Result<Self, Error> {
        Envelope::open(bytes)?.verify(topic)
    }

    /// Returns the bytes as signed, to be forwarded unchanged.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Returns the same record over another copy of the same bytes.
    pub(crate) fn with_bytes(&self, bytes: Bytes) -> Self {
        debug_assert_eq!(bytes, self.0.bytes);
        Self::new(bytes, self.0.record.clone())
    }

    /// Returns what the record adds to the digest of a book.
    pub(crate) fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Returns the decoded content.
    #[must_use]
    pub fn record(&self) -> &Arc<NodeRecord> {
        &self.0.record
    }
}

/// A parsed record whose signature was not verified: its owner is only claimed.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) signed: cose::Envelope,
    pub(crate) claimed: EndpointId,
}

impl Envelope {
    pub(crate) fn open(bytes: &Bytes) -> Result<Self, Error> {
        let signed = cose::Envelope::open("record", MAX_RECORD, bytes)?;
        Ok(Self { claimed: signed.claimed, signed })
    }

    pub(crate) fn verify(self, topic: &TopicId) -> Result<SignedRecord, Error> {
        self.claim(topic)?.verify()?;
        self.decode()
    }

    /// Returns what the signature claims, to be verified alone or with others.
    pub(crate) fn claim(&self, topic: &TopicId) -> Result<Claim, Error> {
        self.signed.claim(KIND_NODE, topic)
    }

    /// Decodes a record whose [`Claim`] was verified.
    pub(crate) fn decode(self) -> Result<SignedRecord, Error> {
        let record = decode_payload(self.claimed, self.signed.payload())?;
        Ok(SignedRecord::new(self.signed.bytes, record.into()))
    }
}

impl NodeRecord {
    fn validate(&self) -> Result<(), Error> {
        self.profile.validate_fields()?;
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        if self.sequence >= MAX_SEQUENCE {
            return invalid("sequence", format!("{} is not below 2^62", self.sequence));
        }
        if self.addresses.len() > MAX_ADDRESSES {
            return invalid(
                "addresses",
                format!("has {} entries, the limit is {MAX_ADDRESSES}", self.addresses.len()),
            );
        }
        for address in &self.addresses {
            if let Some(reason) = implausible(address) {
                // The error does not repeat a URL, because it may contain a password.
                let shown = match address {
                    TransportAddr::Ip(socket) => format!("{socket}, which"),
                    _ => "one that".to_owned(),
                };
                return invalid("addresses", format!("has {shown} {reason}"));
            }
            match address {
                TransportAddr::Ip(_) => {}
                TransportAddr::Relay(url) if url.as_str().len() <= MAX_RELAY_URL => {}
                TransportAddr::Relay(url) => {
                    return invalid(
                        "addresses",
                        format!(
                            "has a relay URL of {} bytes, the limit is {MAX_RELAY_URL}",
                            url.as_str().len()
                        ),
                    );
                }
                other => return invalid("addresses", format!("has {other}, of an unknown kind")),
            }
        }
        let seconds = self.expiration.as_secs();
        if self.expiration.subsec_nanos() != 0
            || !u32::try_from(seconds).is_ok_and(|s| EXPIRATION_SECONDS.contains(&s))
        {
            return invalid("expiration", "must be whole seconds, 1 s to 30 days".into());
        }
        Ok(())
    }

    /// Returns true if an application would see a difference: all but the sequence number and the
    /// expiration counts.
    #[must_use]
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id
            && self.profile == other.profile
            && self.addresses == other.addresses
    }
}

/// Chooses the addresses to announce from a list that has the best first: the first
/// [`MAX_ADDRESSES`] that can be dialed at all. Returns how many were left out.
#[must_use]
pub fn choose_addresses(addresses: &[TransportAddr]) -> (Vec<TransportAddr>, usize) {
    let mut chosen: Vec<TransportAddr> = Vec::new();
    for address in addresses {
        let usable = match address {
            _ if implausible(address).is_some() => false,
            TransportAddr::Relay(url) => url.as_str().len() <= MAX_RELAY_URL,
            TransportAddr::Ip(socket) => !is_link_local(socket),
            _ => false,
        };
        if usable && chosen.len() < MAX_ADDRESSES && !chosen.contains(address) {
            chosen.push(address.clone());
        }
    }
    let left_out = addresses.len() - chosen.len();
    (chosen, left_out)
}

/// Returns true if an address has a meaning on one host only. An IPv6 link-local address needs the
/// name of an interface, and each host has its own names.
fn is_link_local(socket: &SocketAddr) -> bool {
    matches!(socket, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}

fn encode_metadata(metadata: &BTreeMap<String, String>) -> Value {
    Value::map(metadata.iter().map(|(k, v)| (Value::text(k), Value::text(v))))
}

fn encode_address(address: &TransportAddr) -> Value {
    match address {
        TransportAddr::Ip(SocketAddr::V4(v4)) => {
            Value::array([Value::bytes(&v4.ip().octets()), Value::uint(v4.port())])
        }
        TransportAddr::Ip(SocketAddr::V6(v6)) => {
            Value::array([Value::bytes(&v6.ip().octets()), Value::uint(v6.port())])
        }
        other => match other {
            TransportAddr::Relay(url) => Value::text(url.as_str()),
            _ => Value::null(),
        },
    }
}

/// Decodes an address; `None` for a kind that this version does not know.
fn decode_address(value: Value) -> Result<Option<TransportAddr>, Error> {
    const WHAT: &str = "address";
    if let Ok(url) = value.clone().into_text(WHAT) {
        if url.len() > MAX_RELAY_URL {
            return Err(Error::malformed(WHAT, "a relay URL over its limit"));
        }
        return match url.parse::<RelayUrl>() {
            // Parsing may add a trailing slash. A URL that is too long to be announced again is not
            // kept.
            Ok(url) if url.as_str().len() <= MAX_RELAY_URL => Ok(Some(TransportAddr::Relay(url))),
            Ok(_) => Ok(None),
            Err(_) => Err(Error::malformed(WHAT, "not a URL")),
        };
    }
    let Ok(mut fields) = value.into_array(WHAT) else { return Ok(None) };
    let ip = fields.take()?.into_bytes(WHAT)?;
    let port: u16 = fields.take()?.into_uint(WHAT)?;
    let ip = if let Ok(v4) = <[u8; 4]>::try_from(ip.as_slice()) {
        v4.into()
    } else if let Ok(v6) = <[u8; 16]>::try_from(ip.as_slice()) {
        std::net::IpAddr::from(v6)
    } else {
        return Ok(None);
    };
    Ok(Some(TransportAddr::Ip(SocketAddr::new(ip, port))))
}

fn encode_payload(record: &NodeRecord) -> Vec<u8> {
    let mut entries = vec![
        (key::SEQUENCE, Value::uint(record.sequence)),
        (key::BOOT_ID, Value::uint(record.boot_id)),
        (key::NAME, Value::text(&record.profile.name)),
        (
            key::STATUS,
            Value::uint(match record.status {
                Status::Alive => 0_u64,
                Status::Left => 1,
            }),
        ),
        (key::EXPIRATION, Value::uint(record.expiration.as_secs())),
    ];
    if !record.addresses.is_empty() {
        entries.push((key::ADDRESSES, Value::array(record.addresses.iter().map(encode_address))));
    }
    if !record.profile.metadata.is_empty() {
        entries.push((key::METADATA, encode_metadata(&record.profile.metadata)));
    }
    if !record.profile.protocols.is_empty() {
        let protocols = record.profile.protocols.iter().map(|p| Value::bytes(p));
        entries.push((key::PROTOCOLS, Value::array(protocols)));
    }
    if let Some(code) = record.profile.readiness.code() {
        entries.push((key::READINESS, Value::uint(code)));
    }
    Value::map(entries.into_iter().map(|(k, v)| (Value::int(k), v))).encode()
}

pub(crate) fn decode_payload(id: EndpointId, bytes: &[u8]) -> Result<NodeRecord, Error> {
    const WHAT: &str = "record payload";
    // Other keys belong to a later version: they are covered by the signature and forwarded.
    let mut fields = Value::decode(WHAT, bytes)?.into_keyed(WHAT)?;
    let sequence: u64 = fields.required(key::SEQUENCE, "sequence")?.into_uint("sequence")?;
    let boot_id: u64 = fields.required(key::BOOT_ID, "boot id")?.into_uint("boot id")?;
    let name = fields.required(key::NAME, "name")?.into_text("name")?;
    let status = match fields.required(key::STATUS, "status")?.into_uint::<u64>("status")? {
        0 => Status::Alive,
        1 => Status::Left,
        other => return Err(Error::malformed("status", format!("{other} is not known"))),
    };
    let expiration: u32 =
        fields.required(key::EXPIRATION, "expiration")?.into_uint("expiration")?;
    let mut addresses = Vec::new();
    if let Some(list) = fields.take(key::ADDRESSES) {
        for item in list.into_array("addresses")?.list(MAX_ADDRESSES)? {
            addresses.extend(decode_address(item)?);
        }
    }
    let mut metadata = BTreeMap::new();
    if let Some(map) = fields.take(key::METADATA) {
        for (key, value) in map.into_map("metadata")? {
            metadata.insert(key.into_text("metadata key")?, value.into_text("metadata value")?);
        }
    }
    let mut protocols = Vec::new();
    if let Some(list) = fields.take(key::PROTOCOLS) {
        for item in list.into_array("protocols")?.list(MAX_PROTOCOLS)? {
            protocols.push(item.into_bytes("protocol")?);
        }
    }
    let readiness = fields.take(key::READINESS).map_or(Readiness::Ready, Readiness::decode);
    let record = NodeRecord {
        id,
        sequence,
        boot_id,
        profile: Profile { name, metadata, protocols, readiness },
        addresses,
        status,
        expiration: Duration::from_secs(expiration.into()),
    };
    record.validate().map_err(|error| Error::malformed(WHAT, error.to_string()))?;
    Ok(record)
}
