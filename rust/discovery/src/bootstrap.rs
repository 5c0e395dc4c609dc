//! Bootstrap peers: the peers to dial first, in each form that a user may write.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use iroh::TransportAddr;

use crate::{
    error::Error,
    names::Name,
    proto::{EndpointId, NodeRecord, TopicId},
    ticket::{self, Ticket},
};

const FIELD: &str = "bootstrap";
/// Longest host name (RFC 1035 §2.3.4), in bytes.
const MAX_HOST: usize = 253;

/// A peer to dial first.
///
/// Its text is a ticket (`igd1…`), `id@host:port` with a name or an IP address (IPv6 in brackets),
/// an id alone (64 lower-case hex digits), or a [`Name`] without any id. `try_into()` parses text;
/// `into()` takes a [`Ticket`], an id, an [`iroh::EndpointAddr`] or a [`NodeRecord`].
///
/// ```
/// use iroh_gossip_discovery::Bootstrap;
///
/// let id = "07".repeat(32);
/// let peer: Bootstrap = format!("{id}@seed.example:4433").parse()?;
/// assert!(matches!(peer, Bootstrap::Host { port: 4433, .. }));
/// let error = "seed.example".parse::<Bootstrap>().unwrap_err();
/// assert!(error.to_string().starts_with("bootstrap "));
/// # Ok::<(), iroh_gossip_discovery::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bootstrap {
    /// A ticket of the same topic.
    Ticket(Ticket),
    /// An id and a host name that is resolved again at every dial.
    Host {
        /// The peer.
        id: EndpointId,
        /// A DNS name or an IP address.
        host: String,
        /// The UDP port, not 0.
        port: u16,
    },
    /// An id and the addresses where it can be dialed.
    Address {
        /// The peer.
        id: EndpointId,
        /// Its addresses, best first.
        addresses: Vec<TransportAddr>,
    },
    /// An id whose addresses a lookup can find: mDNS, DNS, or an address book.
    Id(EndpointId),
    /// A name of members whose ids are learned from their handshakes.
    Name(Name),
}

impl Bootstrap {
    /// Returns the peer's id, if it is known.
    #[must_use]
    pub fn id(&self) -> Option<EndpointId> {
        match self {
            Self::Ticket(ticket) => Some(ticket.id),
            Self::Host { id, .. } | Self::Address { id, .. } | Self::Id(id) => Some(*id),
            Self::Name(_) => None,
        }
    }

    /// Fails for a ticket of another topic than `topic`.
    pub(crate) fn check_all(peers: &[Self], topic: &TopicId) -> Result<(), Error> {
        let foreign = peers.iter().find_map(|peer| match peer {
            Self::Ticket(ticket) if ticket.topic != *topic => Some(ticket),
            _ => None,
        });
        match foreign {
            Some(ticket) => Err(Error::invalid(
                FIELD,
                format!(
                    "has a ticket for another topic ({}…, this one is {}…)",
                    ticket.topic.fmt_short(),
                    topic.fmt_short()
                ),
            )),
            None => Ok(()),
        }
    }
}

impl From<Ticket> for Bootstrap {
    fn from(ticket: Ticket) -> Self {
        Self::Ticket(ticket)
    }
}

impl From<EndpointId> for Bootstrap {
    fn from(id: EndpointId) -> Self {
        Self::Id(id)
    }
}

impl From<iroh::EndpointId> for Bootstrap {
    fn from(id: iroh::EndpointId) -> Self {
        Self::Id(id.into())
    }
}

impl From<iroh::EndpointAddr> for Bootstrap {
    fn from(address: iroh::EndpointAddr) -> Self {
        Self::Address { id: address.id.into(), addresses: address.addrs.into_iter().collect() }
    }
}

impl From<&NodeRecord> for Bootstrap {
    fn from(record: &NodeRecord) -> Self {
        Self::Address { id: record.id, addresses: record.addresses.clone() }
    }
}

impl TryFrom<&str> for Bootstrap {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Bootstrap {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticket(ticket) => ticket.fmt(f),
            Self::Host { id, host, port } if host.contains(':') => {
                write!(f, "{id}@[{host}]:{port}")
            }
            Self::Host { id, host, port } => write!(f, "{id}@{host}:{port}"),
            Self::Address { id, .. } | Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Bootstrap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.starts_with(ticket::PREFIX) && !text.contains(':') {
            return text.parse().map(Self::Ticket);
        }
        if let Some(service) = text.strip_prefix("srv:") {
            return parse_service(service).map(Self::Name);
        }
        if let Some((id, address)) = text.split_once('@') {
            let (host, port) = parse_host_port(address)?;
            return Ok(Self::Host { id: parse_id(id)?, host, port });
        }
        if text.len() == 64 {
            return parse_id(text).map(Self::Id);
        }
        let address = text.strip_prefix("dns:");
        if address.is_some() || text.contains(':') {
            let (host, port) = parse_host_port(address.unwrap_or(text))?;
            return Ok(Self::Name(Name::host(host, port)));
        }
        Err(Error::invalid(
            FIELD,
            format!(
                "{:?} is none of: a ticket (igd1…), <id>@<host>:<port>, an id of 64 hex digits, \
                 <host>:<port>, srv:<name>",
                shorten(text)
            ),
        ))
    }
}

fn parse_service(text: &str) -> Result<Name, Error> {
    Name::service(text).ok_or_else(|| {
        let why = if text.contains(':') {
            "the port stands in its records"
        } else {
            "write srv:_service._udp.domain"
        };
        Error::invalid(FIELD, format!("has the service {:?}: {why}", shorten(text)))
    })
}

fn parse_id(text: &str) -> Result<EndpointId, Error> {
    text.parse().map_err(|_| {
        Error::invalid(
            FIELD,
            format!("has the id {:?}: not 64 lower-case hex digits", shorten(text)),
        )
    })
}

fn parse_host_port(text: &str) -> Result<(String, u16), Error> {
    let invalid = |reason: &str| {
        Err(Error::invalid(FIELD, format!("has the address {:?}: {reason}", shorten(text))))
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return invalid("no port (write host:port)");
    };
    let Some(port) = port.parse::<u16>().ok().filter(|port| *port != 0) else {
        return invalid("the port is not a number from 1 to 65535");
    };
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let (bare, interface) = match inner.split_once('%') {
            Some((bare, interface)) => (bare, Some(interface)),
            None => (inner, None),
        };
        return match bare.parse::<Ipv6Addr>() {
            Ok(ip) if ip.is_unicast_link_local() => invalid(
                "an IPv6 link-local address can't be dialed, with or without its interface: use \
                 IPv4 or a unique local IPv6 address (fd00::/8)",
            ),
            Ok(_) if interface.is_some() => invalid("only a link-local address has an interface"),
            Ok(ip) => Ok((ip.to_string(), port)),
            Err(_) => invalid("no IPv6 address in the brackets"),
        };
    }
    if host.contains(':') {
        return invalid("an IPv6 address must stand in brackets");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > MAX_HOST || !name.split('.').all(label) {
        return invalid("not a host name or an IP address");
    }
    // A name of only digits and dots is meant as an address: "10.0.0.256" must not go to a
    // resolver.
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') && name.parse::<IpAddr>().is_err() {
        return invalid("not an IPv4 address");
    }
    Ok((host.to_owned(), port))
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::TopicId;

    const ID: &str = "0707070707070707070707070707070707070707070707070707070707070707";

    #[test]
    fn each_form_survives_its_text() {
        let ticket = Ticket {
            id: ID.parse().unwrap(),
            topic: TopicId::from_name("fleet").unwrap(),
            addresses: vec![],
        };
        for text in [
            ID.to_owned(),
            format!("{ID}@seed.example:4433"),
            format!("{ID}@127.0.0.1:1"),
            format!("{ID}@[::1]:65535"),
            "seed.example:4433".to_owned(),
            "igd1.example:4433".to_owned(),
            "10.0.0.1:4433".to_owned(),
            "[fd00::1]:4433".to_owned(),
            "srv:_igd._udp.example.com".to_owned(),
            ticket.to_string(),
        ] {
            assert_eq!(text.parse::<Bootstrap>().unwrap().to_string(), text);
        }
        let named = "dns:nodes.default.svc.cluster.local:4433".parse::<Bootstrap>().unwrap();
        assert_eq!(named.to_string(), "nodes.default.svc.cluster.local:4433");
        assert_eq!(named.id(), None);
    }

    #[test]
    fn errors_name_the_field_and_what_is_wrong() {
        for (text, part) in [
            (String::new(), "none of: a ticket"),
            ("seed.example:".to_owned(), "1 to 65535"),
            ("dns:seed.example".to_owned(), "no port"),
            ("http://seed.example:80".to_owned(), "brackets"),
            ("srv:seed.example".to_owned(), "_service._udp.domain"),
            ("srv:_igd._tcp.example".to_owned(), "_service._udp.domain"),
            ("srv:_igd._udp.example:4433".to_owned(), "in its records"),
            ("[fe80::1]:4433".to_owned(), "link-local"),
            ("[fe80::1%eth0]:4433".to_owned(), "link-local"),
            (format!("{ID}@[fe80::1%2]:4433"), "link-local"),
            ("[fd00::1%eth0]:4433".to_owned(), "only a link-local"),
            ("hello".to_owned(), "\"hello\" is none of"),
            (ID.to_uppercase().replace('0', "A"), "lower-case hex"),
            (format!("abc@{ID}:1"), "not a host name"),
            ("abc@host:1".to_owned(), "has the id \"abc\""),
            (format!("{ID}@host"), "no port"),
            (format!("{ID}@host:0"), "1 to 65535"),
            (format!("{ID}@host:70000"), "1 to 65535"),
            (format!("{ID}@::1:4433"), "brackets"),
            (format!("{ID}@[::g]:4433"), "IPv6"),
            (format!("{ID}@10.0.0.256:4433"), "IPv4"),
            (format!("{ID}@a b:4433"), "not a host name"),
            (format!("{ID}@:4433"), "not a host name"),
            ("x".repeat(10_000), "…"),
        ] {
            let message = text.parse::<Bootstrap>().unwrap_err().to_string();
            assert!(
                message.starts_with("bootstrap ") && message.contains(part),
                "{text}: {message}"
            );
            assert!(message.len() < 250, "{message}");
        }
        let message = format!("{}x", ticket::PREFIX).parse::<Bootstrap>().unwrap_err().to_string();
        assert!(message.starts_with("ticket "), "{message}");
    }
}
