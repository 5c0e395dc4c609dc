//! The limits of dials. A record may name the addresses of a victim, so dials of peers that no
//! handshake has proven are limited.
//!
//! A handshake proves a pair of an id and an address. Dials of such a pair have no limit, and
//! neither have those of addresses that the user named. All others have limits, by their targets:
//! one port of a host, the host, and its network, each in any minute.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use iroh_base::TransportAddr;
use tokio::time::Instant;

use crate::id::EndpointId;

/// Limits count the dials within this time. A budget that refills meanwhile would allow twice as
/// many in the first minute.
const WINDOW: Duration = Duration::from_mins(1);
/// Dials of strangers in [`WINDOW`], and the time between two of one stranger.
const STRANGERS: usize = 20;
const STRANGER_INTERVAL: Duration = Duration::from_secs(30);
/// Dials in [`WINDOW`] to one port of a host or one relay, to one host, and to one network. Many
/// honest nodes may share a host, but a port has one owner.
const OF_PORT: usize = 20;
const OF_HOST: usize = 60;
const OF_NETWORK: usize = 120;
/// Most ids and most targets that are remembered, and most addresses of one id.
const MAX_REMEMBERED: usize = 20_000;
const MAX_ADDRESSES: usize = 8;

/// A target of a dial.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Port(SocketAddr),
    /// An IPv4 address, or the first 64 bits of an IPv6 address.
    Host(IpAddr),
    /// The first 24 bits of an IPv4 address, or the first 48 of an IPv6 address.
    Network(IpAddr),
    Relay(String),
}

impl Target {
    /// Returns the targets of an address. An address on this machine has none, because its programs
    /// may dial each other.
    fn of(address: &TransportAddr) -> Vec<Self> {
        match address {
            TransportAddr::Ip(socket) if socket.ip().to_canonical().is_loopback() => Vec::new(),
            TransportAddr::Ip(socket) => {
                let ip = socket.ip().to_canonical();
                let host = match ip {
                    IpAddr::V4(_) => ip,
                    IpAddr::V6(v6) => first_bits(v6, 64),
                };
                let port = Self::Port(SocketAddr::new(ip, socket.port()));
                [port, Self::Host(host)].into_iter().chain(Self::network(address)).collect()
            }
            TransportAddr::Relay(_) => Self::network(address).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the network of an address, or its relay. An address on this machine has none.
    pub(crate) fn network(address: &TransportAddr) -> Option<Self> {
        match address {
            TransportAddr::Ip(socket) => match socket.ip().to_canonical() {
                ip if ip.is_loopback() => None,
                IpAddr::V4(v4) => {
                    let [a, b, c, _] = v4.octets();
                    Some(Self::Network([a, b, c, 0].into()))
                }
                IpAddr::V6(v6) => Some(Self::Network(first_bits(v6, 48))),
            },
            TransportAddr::Relay(url) => url.host_str().map(|host| Self::Relay(host.to_owned())),
            _ => None,
        }
    }

    fn most(&self) -> usize {
        match self {
            Self::Port(_) | Self::Relay(_) => OF_PORT,
            Self::Host(_) => OF_HOST,
            Self::Network(_) => OF_NETWORK,
        }
    }
}

fn first_bits(address: Ipv6Addr, bits: u32) -> IpAddr {
    Ipv6Addr::from(u128::from(address) & !(u128::MAX >> bits)).into()
}

/// The times of the dials in the last [`WINDOW`].
#[derive(Debug, Default)]
struct Window(VecDeque<Instant>);

impl Window {
    fn has_room(&mut self, most: usize, now: Instant) -> bool {
        let past = |at: &Instant| now.saturating_duration_since(*at) >= WINDOW;
        while self.0.front().is_some_and(past) {
            self.0.pop_front();
        }
        self.0.len() < most
    }
}

/// What speaks for a dial to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The user asked for it.
    Asked,
    /// The user named the peer, or it is established. Its addresses may be new.
    Established,
    Stranger,
}

/// The limits, and what handshakes proved.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    proven: BTreeMap<EndpointId, BTreeSet<TransportAddr>>,
    strangers: BTreeMap<EndpointId, Instant>,
    of_strangers: Window,
    targets: BTreeMap<Target, Window>,
}

impl Dials {
    /// Notes that a handshake with a peer at this address was completed.
    pub(crate) fn prove(&mut self, peer: EndpointId, address: Option<TransportAddr>) {
        if self.proven.len() >= MAX_REMEMBERED && !self.proven.contains_key(&peer) {
            self.proven.pop_first();
        }
        let addresses = self.proven.entry(peer).or_default();
        if addresses.len() >= MAX_ADDRESSES {
            addresses.pop_first();
        }
        addresses.extend(address.map(canonical));
        debug_assert!(addresses.len() <= MAX_ADDRESSES, "a peer that moves often costs no more");
        debug_assert!(self.proven.len() <= MAX_REMEMBERED, "ids without end cost no more");
    }

    /// Counts a dial to a peer, and returns the addresses that may be dialed now. `None` if nothing
    /// may be dialed. The addresses in `named` came from the user.
    pub(crate) fn take(
        &mut self,
        peer: EndpointId,
        addresses: &[TransportAddr],
        named: &[TransportAddr],
        trust: Trust,
        now: Instant,
    ) -> Option<Vec<TransportAddr>> {
        if trust == Trust::Asked {
            return Some(addresses.to_vec());
        }
        let proven = self.proven.get(&peer).cloned();
        let is_proven = |address: &TransportAddr| {
            proven.as_ref().is_some_and(|proven| proven.contains(&canonical(address.clone())))
        };
        // Behind a NAT, a peer has other ports than it knows of. If no addresses are given, a
        // lookup finds them, and the peer has to prove its id again.
        let is_known = proven.as_ref().is_some_and(|proven| {
            let at_home = |address| proven.iter().any(|proven| is_same_host(address, proven));
            addresses.is_empty() || addresses.iter().any(at_home)
        });
        let is_stranger = trust == Trust::Stranger && !is_known;
        if is_stranger && !self.may_dial_stranger(&peer, now) {
            return None;
        }
        let is_free = |address: &&TransportAddr| is_proven(address) || named.contains(address);
        let allowed =
            addresses.iter().filter(|address| is_free(address) || self.has_room(address, now));
        let allowed: Vec<_> = allowed.cloned().collect();
        if allowed.is_empty() && !addresses.is_empty() {
            return None;
        }
        if is_stranger {
            self.strangers.insert(peer, now);
            self.of_strangers.0.push_back(now);
            debug_assert!(
                self.of_strangers.0.len() <= STRANGERS,
                "no more strangers in any minute"
            );
        }
        debug_assert!(
            allowed.iter().all(|address| addresses.contains(address)),
            "a limit takes addresses away, and adds none"
        );
        self.count(allowed.iter().filter(|address| !is_free(address)), now);
        Some(allowed)
    }

    fn may_dial_stranger(&mut self, peer: &EndpointId, now: Instant) -> bool {
        let past = |at: &Instant| now.saturating_duration_since(*at) >= STRANGER_INTERVAL;
        if self.strangers.len() >= MAX_REMEMBERED {
            self.strangers.retain(|_, at| !past(at));
        }
        self.of_strangers.has_room(STRANGERS, now) && self.strangers.get(peer).is_none_or(past)
    }

    fn has_room(&mut self, address: &TransportAddr, now: Instant) -> bool {
        Target::of(address).into_iter().all(|target| {
            let most = target.most();
            self.targets.get_mut(&target).is_none_or(|window| window.has_room(most, now))
        })
    }

    /// Counts one dial for each target, however many addresses the peer has there.
    fn count<'a>(&mut self, addresses: impl Iterator<Item = &'a TransportAddr>, now: Instant) {
        if self.targets.len() >= MAX_REMEMBERED {
            self.targets.retain(|_, window| !window.has_room(1, now));
        }
        for target in addresses.flat_map(Target::of).collect::<BTreeSet<_>>() {
            self.targets.entry(target).or_default().0.push_back(now);
        }
    }

    /// Returns the sizes of what could grow, for a simulation to check.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 2] {
        [("authenticated", self.proven.len()), ("strangers", self.strangers.len())]
    }
}

/// Returns an address in one form, because an IPv4 address can also be written as an IPv6 address.
fn canonical(address: TransportAddr) -> TransportAddr {
    match address {
        TransportAddr::Ip(socket) => {
            TransportAddr::Ip(SocketAddr::new(socket.ip().to_canonical(), socket.port()))
        }
        other => other,
    }
}

fn is_same_host(one: &TransportAddr, other: &TransportAddr) -> bool {
    match (one, other) {
        (TransportAddr::Ip(one), TransportAddr::Ip(other)) => {
            one.ip().to_canonical() == other.ip().to_canonical()
        }
        _ => one == other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn id(number: usize) -> EndpointId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EndpointId::from_bytes(bytes)
    }

    fn at(text: &str) -> TransportAddr {
        TransportAddr::Ip(text.parse().unwrap())
    }

    /// 300 ids are dialed within any one minute, each ten times. Each has proven itself at an
    /// address of its own. Returns the number of dials that are made.
    fn made(trust: Trust, address: impl Fn(usize) -> String) -> usize {
        let (mut dials, start) = (Dials::default(), Instant::now());
        let made = (0..3000).filter(|number| {
            let peer = id(number % 300);
            dials.prove(peer, Some(at(&format!("10.1.{}.1:7", number % 300 / 2))));
            let now = start + S * u32::try_from(*number).unwrap() / 60;
            dials.take(peer, &[at(&address(*number))], &[], trust, now).is_some()
        });
        made.count()
    }

    #[test]
    fn what_was_proven_of_an_id_allows_no_dial_to_a_victim() {
        for trust in [Trust::Stranger, Trust::Established] {
            assert_eq!(made(trust, |_| "10.9.9.9:443".into()), OF_PORT, "{trust:?}");
        }
        let ports = |number| format!("10.9.9.9:{}", number + 1);
        assert_eq!(made(Trust::Stranger, ports), STRANGERS);
        assert_eq!(made(Trust::Established, ports), OF_HOST);
        let six = |number| format!("[2001:db8:1:1::{number:x}]:1");
        assert_eq!(made(Trust::Established, six), OF_HOST);
        let hosts = |number| format!("10.9.9.{}:{}", number % 250, number + 1);
        assert_eq!(made(Trust::Established, hosts), OF_NETWORK);
        let own = |number: usize| format!("[::ffff:10.1.{}.1]:7", number % 300 / 2);
        assert_eq!(made(Trust::Stranger, own), 3000, "what a handshake proved is free");
        assert_eq!(made(Trust::Established, |_| "127.0.0.1:9".into()), 3000, "one machine");
    }

    #[test]
    fn a_victims_address_beside_a_proven_one_is_left_out_beyond_its_limit() {
        let (mut dials, now) = (Dials::default(), Instant::now());
        let both = [at("10.1.0.1:1"), at("10.9.9.9:443")];
        let mut hits = 0;
        for number in 0..300 {
            dials.prove(id(number), Some(both[0].clone()));
            let dialed = dials.take(id(number), &both, &[], Trust::Stranger, now).unwrap();
            assert_eq!(dialed[0], both[0]);
            hits += dialed.len() - 1;
        }
        assert_eq!(hits, OF_PORT);
        let later = now + WINDOW;
        let dialed = dials.take(id(1), &both, &[], Trust::Stranger, later).unwrap();
        assert_eq!(dialed.len(), 2, "a minute later there is room again");
    }

    #[test]
    fn a_stranger_is_dialed_once_in_half_a_minute_and_what_the_user_named_always() {
        let (mut dials, now) = (Dials::default(), Instant::now());
        let address = [at("10.9.9.9:443")];
        assert!(dials.take(id(1), &address, &[], Trust::Stranger, now).is_some());
        assert!(dials.take(id(1), &address, &[], Trust::Stranger, now + S).is_none());
        for second in 0..100 {
            let now = now + S * second / 10;
            assert!(dials.take(id(2), &address, &address, Trust::Established, now).is_some());
            assert!(dials.take(id(3), &address, &[], Trust::Asked, now).is_some());
        }
        assert!(dials.take(id(1), &address, &[], Trust::Stranger, now + S * 30).is_some());
    }

    /// Fifty processes of one host start at once, and each dials all others.
    #[test]
    fn fifty_nodes_behind_one_address_may_all_be_dialed() {
        let (mut dials, now) = (Dials::default(), Instant::now());
        for number in 0..50 {
            let address = [at(&format!("192.168.1.5:{}", 7000 + number))];
            let dialed = dials.take(id(number), &address, &[], Trust::Established, now);
            assert_eq!(dialed.unwrap(), address);
        }
    }
}
