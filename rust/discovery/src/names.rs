//! Bootstrap by name alone: handshakes show the ids behind a name, which are then dialed as usual.

pub(crate) mod ask;
mod candidates;
pub(crate) mod resolve;
pub(crate) mod search;

use std::{fmt, net::Ipv6Addr};

/// A name of members whose ids are not known.
///
/// In text: `host:port`, with a name or an IP address (IPv6 in brackets), or the same after `dns:`;
/// or `srv:_igd._udp.example.com`, whose records (RFC 2782) have hosts and ports.
///
/// ```
/// use iroh_gossip_discovery::Bootstrap;
///
/// let seed: Bootstrap = "dns:nodes.default.svc.cluster.local:4433".parse()?;
/// assert!(matches!(seed, Bootstrap::Name(_)));
/// # Ok::<(), iroh_gossip_discovery::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Kind);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Host(String, u16),
    Service(String),
}

impl Name {
    /// All addresses of a host.
    pub(crate) fn host(host: String, port: u16) -> Self {
        Self(Kind::Host(host, port))
    }

    /// A service, if its name is `_service._udp.domain`.
    pub(crate) fn service(name: &str) -> Option<Self> {
        let mut labels = name.strip_suffix('.').unwrap_or(name).split('.');
        let is_label = |label: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(known)
        };
        let service = labels.next().is_some_and(|label| label.starts_with('_') && is_label(label));
        let protocol = labels.next().is_some_and(|label| label.eq_ignore_ascii_case("_udp"));
        let domain: Vec<_> = labels.collect();
        let good = service
            && protocol
            && !domain.is_empty()
            && domain.iter().all(|label| is_label(label))
            && name.len() <= 253;
        good.then(|| Self(Kind::Service(name.to_owned())))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Host(host, port) if host.parse::<Ipv6Addr>().is_ok() => {
                write!(f, "[{host}]:{port}")
            }
            Kind::Host(host, port) => write!(f, "{host}:{port}"),
            Kind::Service(name) => write!(f, "srv:{name}"),
        }
    }
}
