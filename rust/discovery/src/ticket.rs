//! A ticket: how to reach one member of a topic, as one string.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use data_encoding::BASE32_NOPAD;
use iroh::{RelayUrl, TransportAddr};
use sha2::{Digest, Sha256};

use crate::{
    error::Error,
    proto::{EndpointId, MAX_ADDRESSES, MAX_RELAY_URL, TopicId, choose_addresses},
};

/// The start of every ticket: the format and its version.
pub(crate) const PREFIX: &str = "igd1";
/// Longest ticket, in characters.
const MAX_TEXT: usize = 4096;
const CHECKSUM: usize = 4;
const FIELD: &str = "ticket";

const KIND_V4: u8 = 4;
const KIND_V6: u8 = 6;
const KIND_RELAY: u8 = 1;

/// How to reach one member of a topic.
///
/// Its text is `igd1` and the following bytes in lower-case base 32 without padding: the endpoint
/// id (32 bytes), the topic id (32 bytes), the number of addresses (1 byte), each address, and four
/// bytes of SHA-256 over all that. An address is a byte for its kind, then an IP address and a
/// port, or a length byte and a relay URL. A ticket holds at most 8 addresses: the best of those
/// given.
///
/// ```
/// use iroh_gossip_discovery::{EndpointId, Ticket, Topic};
///
/// let id = EndpointId::from_bytes([7; 32]);
/// let ticket = Ticket::new(id, Topic::new("fleet")?.id(), []);
/// let text = ticket.to_string();
/// assert!(text.starts_with("igd1"));
/// assert_eq!(text.parse::<Ticket>()?, ticket);
/// # Ok::<(), iroh_gossip_discovery::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ticket {
    /// The member.
    pub id: EndpointId,
    /// The topic.
    pub topic: TopicId,
    /// Where the member can be dialed, best first.
    pub addresses: Vec<TransportAddr>,
}

impl Ticket {
    /// Makes the ticket of a member that need not run. Addresses are in the order in which they are
    /// dialed.
    pub fn new(
        id: EndpointId,
        topic: TopicId,
        addresses: impl IntoIterator<Item = TransportAddr>,
    ) -> Self {
        Self { id, topic, addresses: addresses.into_iter().collect() }
    }

    fn encode(&self) -> Vec<u8> {
        let (addresses, _) = choose_addresses(&self.addresses);
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        out.push(u8::try_from(addresses.len()).expect("at most 8 addresses"));
        for address in &addresses {
            encode_address(address, &mut out);
        }
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (content, sum) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or_else(|| Error::invalid(FIELD, "is too short: part of it is missing"))?;
        if checksum(content) != *sum {
            return Err(Error::invalid(
                FIELD,
                "has a wrong checksum: a character is missing or mistyped",
            ));
        }
        let mut rest = Bytes(content);
        let id = EndpointId::from_bytes(*rest.take()?);
        let topic = TopicId::from_bytes(*rest.take()?);
        let [count] = *rest.take()?;
        if usize::from(count) > MAX_ADDRESSES {
            let reason = format!("has {count} addresses, the limit is {MAX_ADDRESSES}");
            return Err(Error::invalid(FIELD, reason));
        }
        let addresses = (0..count).map(|_| decode_address(&mut rest)).collect::<Result<_, _>>()?;
        if !rest.0.is_empty() {
            return Err(Error::invalid(FIELD, "has bytes after its last address"));
        }
        Ok(Self { id, topic, addresses })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD.encode(&self.encode()).to_ascii_lowercase();
        write!(f, "{PREFIX}{text}")
    }
}

impl FromStr for Ticket {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            let reason = format!("is {} characters, the limit is {MAX_TEXT}", text.len());
            return Err(Error::invalid(FIELD, reason));
        }
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return Err(Error::invalid(FIELD, format!("does not start with {PREFIX:?}")));
        };
        if let Some((at, c)) =
            digits.char_indices().find(|(_, c)| !matches!(c, 'a'..='z' | '2'..='7'))
        {
            let at = at + PREFIX.len() + 1;
            let reason = format!("has {c:?} at character {at}, which is not one of a-z and 2-7");
            return Err(Error::invalid(FIELD, reason));
        }
        let bytes = BASE32_NOPAD
            .decode(digits.to_ascii_uppercase().as_bytes())
            .map_err(|_| Error::invalid(FIELD, "ends early: characters are missing"))?;
        Self::decode(&bytes)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(PREFIX.as_bytes()).chain_update(bytes).finalize();
    *digest.first_chunk().expect("SHA-256 has 32 bytes")
}

fn encode_address(address: &TransportAddr, out: &mut Vec<u8>) {
    match address {
        TransportAddr::Ip(socket) => {
            match socket.ip() {
                IpAddr::V4(ip) => {
                    out.push(KIND_V4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(KIND_V6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&socket.port().to_be_bytes());
        }
        TransportAddr::Relay(url) => {
            out.push(KIND_RELAY);
            out.push(u8::try_from(url.as_str().len()).expect("a chosen URL is at most 128 bytes"));
            out.extend_from_slice(url.as_str().as_bytes());
        }
        _ => unreachable!("only IP and relay addresses are chosen"),
    }
}

fn decode_address(rest: &mut Bytes<'_>) -> Result<TransportAddr, Error> {
    let ip: IpAddr = match *rest.take()? {
        [KIND_V4] => (*rest.take::<4>()?).into(),
        [KIND_V6] => (*rest.take::<16>()?).into(),
        [KIND_RELAY] => {
            let [length] = *rest.take()?;
            let url = rest.slice(usize::from(length).min(MAX_RELAY_URL))?;
            return std::str::from_utf8(url)
                .ok()
                .and_then(|url| url.parse::<RelayUrl>().ok())
                .map(TransportAddr::Relay)
                .ok_or_else(|| Error::invalid(FIELD, "has a relay address that is not a URL"));
        }
        [kind] => {
            let reason = format!("has an address of kind {kind}, which this version does not know");
            return Err(Error::invalid(FIELD, reason));
        }
    };
    let port = u16::from_be_bytes(*rest.take()?);
    Ok(TransportAddr::Ip(SocketAddr::new(ip, port)))
}

/// The bytes that are left to decode.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Error> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(head)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(head)
    }

    fn short() -> Error {
        Error::invalid(FIELD, "ends in the middle of a field")
    }
}

/// Reads a ticket whose bytes or text a fuzzer chose. The checksum is made right, so that it gets
/// past that.
#[cfg(test)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let whole = [bytes, &checksum(bytes)].concat();
    if let Ok(ticket) = Ticket::decode(&whole) {
        let text = ticket.to_string();
        let again: Ticket = text.parse().expect("what decodes can be encoded");
        assert!(again.addresses.len() <= MAX_ADDRESSES);
        assert_eq!((again.id, again.topic), (ticket.id, ticket.topic));
        assert_eq!(again.to_string(), text, "a ticket has one form");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Ticket>();
        let _ = format!("{PREFIX}{text}").parse::<Ticket>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket() -> Ticket {
        Ticket {
            id: EndpointId::from_bytes([7; 32]),
            topic: TopicId::from_name("fleet").unwrap(),
            addresses: vec![
                TransportAddr::Relay("https://relay.example/".parse().unwrap()),
                TransportAddr::Ip("192.168.1.2:4433".parse().unwrap()),
                TransportAddr::Ip("[::1]:4433".parse().unwrap()),
            ],
        }
    }

    #[test]
    fn a_ticket_survives_its_text() {
        let text = ticket().to_string();
        assert!(text.starts_with(PREFIX) && text.len() < 250, "{text}");
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket());
        assert_eq!(format!("  {text}\n").parse::<Ticket>().unwrap(), ticket());
    }

    #[test]
    fn a_ticket_holds_the_best_eight_addresses() {
        let mut many = ticket();
        many.addresses =
            (1..=20).map(|n| TransportAddr::Ip(([10, 0, 0, n], 4433).into())).collect();
        assert_eq!(many.to_string().parse::<Ticket>().unwrap().addresses.len(), MAX_ADDRESSES);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = ticket().to_string();
        let message = |text: &str| text.parse::<Ticket>().unwrap_err().to_string();
        assert!(message("hello").contains("does not start with"));
        assert!(message("igd1").contains("too short"));
        assert!(message("igd1ab!c").contains("'!' at character 7"));
        assert!(message(&text[..text.len() - 5]).starts_with("ticket "));
        assert!(message(&format!("igd1{}", "a".repeat(5000))).contains("the limit is 4096"));
    }

    proptest! {
        #[test]
        fn one_changed_character_is_noticed(at in 4_usize..100, by in 1_u8..31) {
            const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
            let mut text = ticket().to_string().into_bytes();
            let at = 4 + at % (text.len() - 4);
            let old = DIGITS.iter().position(|d| *d == text[at]).unwrap();
            text[at] = DIGITS[(old + usize::from(by)) % 32];
            prop_assert!(String::from_utf8(text).unwrap().parse::<Ticket>().is_err());
        }

        #[test]
        fn any_text_is_a_ticket_or_an_error(text in "igd1[a-z2-7]{0,300}") {
            let _ = text.parse::<Ticket>();
        }

        #[test]
        fn any_bytes_decode_or_fail(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let sum = checksum(&bytes);
            bytes.extend_from_slice(&sum);
            let _ = Ticket::decode(&bytes);
        }
    }
}
