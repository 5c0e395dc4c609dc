//! The addresses of simulated nodes. Only the numbers of hosts and nodes have a meaning.

use std::net::{Ipv4Addr, SocketAddr};

use iroh_base::TransportAddr;

const FIRST_ADDRESS: u32 = 0x0a00_0001;
const FIRST_PORT: u16 = 7000;

/// Returns the address of a node on the host of a node.
pub(crate) fn address(host: usize, number: usize) -> TransportAddr {
    let port = u16::try_from(number - host).map_or(u16::MAX, |more| FIRST_PORT + more);
    let host = u32::try_from(host).unwrap_or(u32::MAX - FIRST_ADDRESS);
    TransportAddr::Ip(SocketAddr::from((Ipv4Addr::from(FIRST_ADDRESS + host), port)))
}

/// Returns the node at an address: the host gives a number, and higher ports than the first one
/// those after it.
pub(crate) fn node_at(address: &TransportAddr) -> Option<usize> {
    match address {
        TransportAddr::Ip(SocketAddr::V4(v4)) => {
            let host = u32::from(*v4.ip()).checked_sub(FIRST_ADDRESS)?;
            Some(usize::try_from(host).ok()? + usize::from(v4.port().saturating_sub(FIRST_PORT)))
        }
        _ => None,
    }
}
