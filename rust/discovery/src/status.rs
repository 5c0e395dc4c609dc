//! The state of one peer, as this node sees it now.

use std::{net::SocketAddr, time::Duration};

use iroh::{TransportAddr, endpoint::Connection};
use tokio::time::Instant;

/// The state of a peer in the book, by this node's own observation and not by the peer's record.
///
/// ```no_run
/// # use iroh_gossip_discovery::{EndpointId, Swarm};
/// # fn example(swarm: &Swarm, peer: &EndpointId) {
/// match swarm.status(peer) {
///     None => println!("not in the book"),
///     Some(status) if status.suspected => println!("does not answer"),
///     Some(status) => match status.link {
///         Some(link) => println!("linked, round trip {:?}", link.round_trip),
///         None => println!("alive, not linked"),
///     },
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Whether the peer is suspected: it did not answer a probe, or a member accuses it.
    pub suspected: bool,
    /// When the peer's latest record arrived here, from itself or forwarded by others.
    pub last_heard: Instant,
    /// The link to the peer. `None` if there is none now, which is usual in swarms of more than
    /// six.
    pub link: Option<LinkStatus>,
}

/// The path that a link uses now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStatus {
    /// Whether packets go through a relay.
    pub relayed: bool,
    /// QUIC's estimate of the round trip.
    pub round_trip: Duration,
    /// Where packets are sent.
    pub address: TransportAddr,
}

impl LinkStatus {
    /// Reads the selected path of a connection, or else the fastest that is open: once its path
    /// broke, the end that accepted goes on by another one, and iroh selects none there. `None` if
    /// there is none now.
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let paths = connection.paths();
        let selected = paths.iter().find(iroh::endpoint::Path::is_selected);
        let path = selected.or_else(|| paths.iter().min_by_key(iroh::endpoint::Path::rtt))?;
        Some(Self {
            relayed: path.is_relay(),
            round_trip: path.rtt(),
            address: plain(path.remote_addr()),
        })
    }
}

/// Returns an IPv4 address as users write it. A socket for both families shows it as an IPv6 one.
fn plain(address: &TransportAddr) -> TransportAddr {
    match address {
        TransportAddr::Ip(address) => {
            TransportAddr::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
        }
        other => other.clone(),
    }
}
