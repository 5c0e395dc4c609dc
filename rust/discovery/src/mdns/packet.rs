//! The packets of DNS service discovery (RFC 6762 and 6763) that a topic's service sends and reads.

use data_encoding::BASE32_NOPAD;
use iroh::{EndpointId, RelayUrl, TransportAddr};

const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;
const IN: u16 = 1;
/// The flag of a record that is the only one of its name and type (RFC 6762 §10.2).
const UNIQUE: u16 = 0x8000;
const RESPONSE: u16 = 0x8400;
/// Most records that are read from a packet, and most jumps within a name.
const MAX_RECORDS: usize = 64;
const MAX_JUMPS: usize = 16;
/// Most addresses in a packet.
pub(super) const MAX_ADDRESSES: usize = 12;

/// A packet of a topic's service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// A node asks for the members.
    Query,
    /// A member announces its addresses; none if it leaves.
    Member(EndpointId, Vec<TransportAddr>),
}

fn name_of(labels: &[&str]) -> Vec<u8> {
    let mut name = Vec::new();
    for label in labels {
        name.push(u8::try_from(label.len()).unwrap_or(0));
        name.extend(label.bytes());
    }
    name.push(0);
    name
}

fn header(flags: u16, questions: u16, answers: u16) -> Vec<u8> {
    [0, flags, questions, answers, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn record(out: &mut Vec<u8>, name: &[u8], what: u16, class: u16, ttl: u32, data: &[u8]) {
    out.extend(name);
    out.extend(what.to_be_bytes());
    out.extend(class.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    out.extend(data);
}

/// Writes a question for the members of a service.
pub(super) fn query(service: &str) -> Vec<u8> {
    let mut out = header(0, 1, 0);
    out.extend(name_of(&[service, "_udp", "local"]));
    out.extend(PTR.to_be_bytes());
    out.extend(IN.to_be_bytes());
    out
}

/// Writes an announcement of a member. It has a service record, for tools that browse services, and
/// all of its addresses as text, because they may have different ports. `ttl` 0 says that the
/// member leaves.
pub(super) fn member(service: &str, id: EndpointId, at: &[TransportAddr], ttl: u32) -> Vec<u8> {
    let label = BASE32_NOPAD.encode(id.as_bytes()).to_ascii_lowercase();
    let instance = name_of(&[&label, service, "_udp", "local"]);
    let mut out = header(RESPONSE, 0, 3);
    record(&mut out, &name_of(&[service, "_udp", "local"]), PTR, IN, ttl, &instance);
    let port = at.iter().find_map(|at| match at {
        TransportAddr::Ip(socket) => Some(socket.port()),
        _ => None,
    });
    let mut target = vec![0, 0, 0, 0];
    target.extend(port.unwrap_or(0).to_be_bytes());
    target.extend(name_of(&[&label, "local"]));
    record(&mut out, &instance, SRV, IN | UNIQUE, ttl, &target);
    let mut texts = Vec::new();
    for address in at.iter().take(MAX_ADDRESSES) {
        let text = match address {
            TransportAddr::Ip(socket) => format!("a={socket}"),
            TransportAddr::Relay(url) => format!("r={url}"),
            _ => continue,
        };
        if let Ok(length) = u8::try_from(text.len()) {
            texts.push(length);
            texts.extend(text.bytes());
        }
    }
    if texts.is_empty() {
        texts.push(0);
    }
    record(&mut out, &instance, TXT, IN | UNIQUE, ttl, &texts);
    out
}

/// Reads a packet; `None` if it is damaged or of another service.
pub(super) fn read(bytes: &[u8], service: &str) -> Option<Packet> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let ours = format!("{service}._udp.local");
    let (flags, questions, answers) = (word(2)?, word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..usize::from(questions).min(MAX_RECORDS) {
        let (name, end) = read_name(bytes, at)?;
        if flags & 0x8000 == 0 && name == ours && word(end)? == PTR {
            return Some(Packet::Query);
        }
        at = end + 4;
    }
    if flags & 0x8000 == 0 {
        return None;
    }
    for _ in 0..usize::from(answers).min(MAX_RECORDS) {
        let (name, end) = read_name(bytes, at)?;
        let (what, length) = (word(end)?, usize::from(word(end + 8)?));
        let gone = bytes.get(end + 4..end + 8)? == [0; 4];
        let data = bytes.get(end + 10..end + 10 + length)?;
        at = end + 10 + length;
        let Some((label, rest)) = name.split_once('.') else { continue };
        if what == TXT && rest == ours {
            let id = BASE32_NOPAD.decode(label.to_ascii_uppercase().as_bytes()).ok()?;
            let id = EndpointId::from_bytes(&id.try_into().ok()?).ok()?;
            let addresses = if gone { Vec::new() } else { read_texts(data) };
            return Some(Packet::Member(id, addresses));
        }
    }
    None
}

fn read_texts(mut data: &[u8]) -> Vec<TransportAddr> {
    let mut addresses = Vec::new();
    while let Some((length, rest)) = data.split_first() {
        let Some(text) = rest.get(..usize::from(*length)) else { break };
        data = &rest[text.len()..];
        let text = str::from_utf8(text).unwrap_or("");
        let address = match text.split_once('=') {
            Some(("a", socket)) => socket.parse().ok().map(TransportAddr::Ip),
            Some(("r", url)) => url.parse::<RelayUrl>().ok().map(TransportAddr::Relay),
            _ => None,
        };
        addresses.extend(address.filter(|_| addresses.len() < MAX_ADDRESSES));
    }
    addresses
}

/// Reads a name, and returns it in lower case with the position after it.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut end, mut jumps) = (String::new(), None, 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length & 0xc0 == 0xc0 {
            end = end.or(Some(at + 2));
            at = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            jumps += 1;
            if jumps > MAX_JUMPS {
                return None;
            }
            continue;
        }
        if length == 0 {
            return Some((name, end.unwrap_or(at + 1)));
        }
        if length > 63 || name.len() > 255 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        let label = str::from_utf8(bytes.get(at + 1..=at + length)?).ok()?;
        name.push_str(&label.to_ascii_lowercase());
        at += 1 + length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> EndpointId {
        iroh::SecretKey::from_bytes(&[7; 32]).public()
    }

    #[test]
    fn what_is_written_is_read_and_only_by_its_service() {
        let at = [
            TransportAddr::Ip("192.168.1.10:7".parse().unwrap()),
            TransportAddr::Ip("[fd00::1]:8".parse().unwrap()),
            TransportAddr::Relay("https://relay.example/".parse().unwrap()),
        ];
        assert_eq!(read(&query("_igd-a"), "_igd-a"), Some(Packet::Query));
        assert_eq!(read(&query("_igd-a"), "_igd-b"), None);
        let packet = member("_igd-a", id(), &at, 120);
        assert_eq!(read(&packet, "_igd-a"), Some(Packet::Member(id(), at.to_vec())));
        assert_eq!(read(&packet, "_igd-b"), None);
        let gone = member("_igd-a", id(), &at, 0);
        assert_eq!(read(&gone, "_igd-a"), Some(Packet::Member(id(), Vec::new())));
    }

    #[test]
    fn a_name_that_refers_to_itself_ends() {
        let mut packet = header(0, 1, 0);
        packet.extend([0xc0, 12, 0, 12, 0, 1]);
        assert_eq!(read(&packet, "_igd-a"), None);
    }

    proptest! {
        #[test]
        fn damaged_packets_are_read_or_refused(
            place in 0_usize..200, value: u8, cut in 0_usize..200,
        ) {
            let mut packet = member("_igd-a", id(), &[], 120);
            let place = place % packet.len();
            packet[place] = value;
            let _ = read(&packet, "_igd-a");
            packet.truncate(cut);
            let _ = read(&packet, "_igd-a");
        }
    }
}
