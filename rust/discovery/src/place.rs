//! Where a node is in the network: its interfaces, and the addresses that it is bound to and
//! announces.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use iroh::TransportAddr;

use crate::{advertise, interfaces::Interfaces};

/// The place of a node in the network, for readers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) interfaces: Option<Arc<Interfaces>>,
    pub(crate) announced: Vec<TransportAddr>,
    pub(crate) bound: Vec<SocketAddr>,
}

impl Place {
    /// Returns the socket address at which an address of this machine is bound.
    pub(crate) fn reached_at(&self, ip: IpAddr) -> Option<SocketAddr> {
        advertise::reached_at(ip, &self.bound)
    }

    /// Returns true if this node itself is at an address.
    pub(crate) fn is_own(&self, at: SocketAddr) -> bool {
        let of_interface = self.interfaces.iter().any(|all| all.of(at.ip()).is_some());
        self.announced.contains(&TransportAddr::Ip(at))
            || (of_interface || at.ip().is_loopback()) && self.reached_at(at.ip()) == Some(at)
    }
}
