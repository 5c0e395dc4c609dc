//! The network that a peer comes from: the range that one host, or one customer of a provider, has.

use std::net::{IpAddr, Ipv6Addr};

use iroh::{
    TransportAddr,
    endpoint::{Connection, Path},
};

/// One IPv4 address, or the 64 bits that one IPv6 network shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subnet(IpAddr);

impl Subnet {
    /// Returns the network of an address. `None` for an address of this machine, because all its
    /// programs share one address.
    pub(crate) fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(v4) => Some(Self(v4.into())),
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                Some(Self(Ipv6Addr::from(network).into()))
            }
        }
    }
}

/// Returns the address at the other end of the path in use.
pub(crate) fn remote(connection: &Connection) -> Option<TransportAddr> {
    let paths = connection.paths();
    let selected = paths.iter().find(Path::is_selected).or_else(|| paths.iter().next());
    selected.map(|path| path.remote_addr().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_ipv4_address_or_the_first_half_of_an_ipv6_address() {
        let of = |text: &str| Subnet::of(text.parse().unwrap());
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!((of("127.0.0.1"), of("::1"), of("::ffff:127.1.2.3")), (None, None, None));
    }
}
