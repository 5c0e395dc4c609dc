//! Which addresses a node announces, and in which order: the setting `advertise` and the choice.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use iroh::TransportAddr;

use crate::{
    error::Error,
    interfaces::{Interfaces, Kind},
    proto::MAX_ADDRESSES,
};

const FIELD: &str = "advertise";
/// Most entries of the setting.
const MAX_ENTRIES: usize = 64;
/// Longest name of an interface, in bytes: Windows allows this many.
const MAX_INTERFACE: usize = 256;
/// Longest host name (RFC 1035 §3.1), in bytes.
const MAX_HOST: usize = 253;
/// Most announced addresses of networks inside this machine, which rarely reach it from outside.
const MAX_INTERNAL: usize = 2;
/// Most addresses of each family that the default route's interface has before those of others.
const MAX_FIRST: u8 = 2;
/// Most former addresses of this machine that are remembered.
const MAX_FORMER: usize = 256;

/// An entry of [`crate::Config::advertise`]: what to announce, to prefer, or to leave out.
///
/// | entry | effect |
/// |---|---|
/// | `203.0.113.7:4433`, `[2001:db8::7]:4433` | announced first, as it stands |
/// | `lb.example:4433` | the same for each address of the name |
/// | `203.0.113.7`, `2001:db8::7` | the same with the port that is bound for its family |
/// | `eth0`, `wg*` | addresses of these interfaces come before others |
/// | `10.0.0.0/8` | addresses of this network come before others |
/// | `!docker0`, `!172.16.0.0/12`, `!10.0.0.1` | these are not announced |
///
/// The first entry that matches an address decides. So `["10.0.0.0/8", "!0.0.0.0/0"]` announces, of
/// all IPv4 addresses, only those of the network 10.0.0.0/8.
///
/// ```
/// use iroh_gossip_discovery::Advertise;
///
/// for entry in ["203.0.113.7:4433", "lb.example:4433", "wg*", "10.0.0.0/8", "!docker0"] {
///     assert_eq!(entry.parse::<Advertise>()?.to_string(), entry);
/// }
/// # Ok::<(), iroh_gossip_discovery::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise(Entry);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Socket(SocketAddr),
    Host(String, u16),
    Ip(IpAddr),
    Match { leave_out: bool, what: Pattern },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Interface(String),
    Network(IpAddr, u8),
    Socket(SocketAddr),
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Entry::Socket(socket) => write!(f, "{socket}"),
            Entry::Host(host, port) => write!(f, "{host}:{port}"),
            Entry::Ip(ip) => write!(f, "{ip}"),
            Entry::Match { leave_out, what } => {
                f.write_str(if *leave_out { "!" } else { "" })?;
                match what {
                    Pattern::Interface(name) => f.write_str(name),
                    Pattern::Network(ip, length) if *length == bits(*ip) => write!(f, "{ip}"),
                    Pattern::Network(ip, length) => write!(f, "{ip}/{length}"),
                    Pattern::Socket(socket) => write!(f, "{socket}"),
                }
            }
        }
    }
}

impl FromStr for Advertise {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map(Self).map_err(|reason| Error::invalid(FIELD, format!("{text:?} {reason}")))
    }
}

fn parse(text: &str) -> Result<Entry, String> {
    let (leave_out, rest) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.contains('%') {
        return Err("names an interface within an address: such an address means nothing to \
                    another host"
            .into());
    }
    if let Ok(socket) = rest.parse::<SocketAddr>() {
        let socket = SocketAddr::new(socket.ip().to_canonical(), socket.port());
        if leave_out {
            return Ok(Entry::Match { leave_out, what: Pattern::Socket(socket) });
        }
        check_ip(socket.ip())?;
        check_port(socket.port())?;
        return Ok(Entry::Socket(socket));
    }
    let bare = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(rest);
    if let Ok(ip) = bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        if leave_out {
            return Ok(Entry::Match { leave_out, what: Pattern::Network(ip, bits(ip)) });
        }
        check_ip(ip)?;
        return Ok(Entry::Ip(ip));
    }
    if let Some((ip, length)) = rest.split_once('/') {
        let what = network(ip, length)?;
        return Ok(Entry::Match { leave_out, what });
    }
    if let Some((host, port)) = rest.rsplit_once(':') {
        check_host(host)?;
        let port = port.parse().map_err(|_| format!("has the port {port:?}, not 1 to 65535"))?;
        check_port(port)?;
        if leave_out {
            return Err("leaves out a name: name its address, network or interface".into());
        }
        return Ok(Entry::Host(host.to_owned(), port));
    }
    check_interface(rest)?;
    Ok(Entry::Match { leave_out, what: Pattern::Interface(rest.to_owned()) })
}

fn network(ip: &str, length: &str) -> Result<Pattern, String> {
    let ip: IpAddr = ip.parse().map_err(|_| format!("has {ip:?}, which is no IP address"))?;
    let most = bits(ip);
    let length = length
        .parse()
        .ok()
        .filter(|length| *length <= most)
        .ok_or_else(|| format!("has the prefix length {length:?}, not 0 to {most}"))?;
    if masked(ip, length) != ip {
        return Err(format!(
            "has bits set beyond its prefix: write {}/{length}",
            masked(ip, length)
        ));
    }
    Ok(Pattern::Network(ip, length))
}

fn check_port(port: u16) -> Result<(), String> {
    if port == 0 { Err("has port 0: nobody can dial it".into()) } else { Ok(()) }
}

fn check_ip(ip: IpAddr) -> Result<(), String> {
    let what = match ip {
        _ if ip.is_unspecified() => "is no address of one machine",
        _ if ip.is_multicast() => "is a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "is a broadcast address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "is an IPv6 link-local address: it means nothing on another host"
        }
        _ => return Ok(()),
    };
    Err(what.into())
}

fn check_host(host: &str) -> Result<(), String> {
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || host.len() > MAX_HOST || is_number || !host.bytes().all(known) {
        return Err(format!("has {host:?}, which is neither an IP address nor a host name"));
    }
    Ok(())
}

fn check_interface(name: &str) -> Result<(), String> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let strange = name.chars().any(|c| c.is_control() || c == '!') || name.trim() != name;
    if name.strip_suffix('*').unwrap_or(name).contains('*') {
        return Err("has a * that is not at its end".into());
    }
    if name.is_empty() || name.len() > MAX_INTERFACE || is_number || strange {
        return Err("is no address, host:port, network or name of an interface".into());
    }
    Ok(())
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl Pattern {
    fn matches(&self, socket: SocketAddr, interface: Option<&str>) -> bool {
        match self {
            Self::Interface(name) => interface.is_some_and(|own| match name.strip_suffix('*') {
                Some(prefix) => own.starts_with(prefix),
                None => own == name,
            }),
            Self::Network(ip, length) => {
                ip.is_ipv4() == socket.is_ipv4() && masked(socket.ip(), *length) == *ip
            }
            Self::Socket(other) => *other == socket,
        }
    }
}

/// Checks the whole setting, beside the addresses to bind.
pub(crate) fn check(entries: &[Advertise], bind: &[SocketAddr]) -> Result<(), Error> {
    if entries.len() > MAX_ENTRIES {
        let reason = format!("has {} entries, the limit is {MAX_ENTRIES}", entries.len());
        return Err(Error::invalid(FIELD, reason));
    }
    let is_fixed =
        |entry: &&Advertise| matches!(entry.0, Entry::Socket(_) | Entry::Ip(_) | Entry::Host(..));
    let fixed = entries.iter().filter(is_fixed).count();
    if fixed > MAX_ADDRESSES {
        let reason = format!("names {fixed} addresses, the limit is {MAX_ADDRESSES}");
        return Err(Error::invalid(FIELD, reason));
    }
    for entry in entries {
        let ip = match &entry.0 {
            Entry::Socket(socket) => socket.ip(),
            Entry::Ip(ip) => *ip,
            _ => continue,
        };
        if ip.is_loopback() && !is_local(bind) {
            let reason = format!("\"{entry}\" is this machine only, but more than that is bound");
            return Err(Error::invalid(FIELD, reason));
        }
        let lacks_port = matches!(entry.0, Entry::Ip(_)) && !bind.is_empty();
        if lacks_port && !bind.iter().any(|socket| socket.is_ipv4() == ip.is_ipv4()) {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let reason = format!("\"{entry}\" needs a port, and `bind` has no {family} address");
            return Err(Error::invalid(FIELD, reason));
        }
    }
    Ok(())
}

/// The addresses that a node announces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Announced {
    /// The addresses, best first. A record has room for the first [`MAX_ADDRESSES`].
    pub(crate) addresses: Vec<TransportAddr>,
    /// How many addresses of networks inside this machine are left out.
    pub(crate) left_out: usize,
    /// True if the setting leaves out an address that other machines may reach.
    pub(crate) excluded: bool,
}

impl Announced {
    /// Returns true if another machine may reach one of the addresses.
    pub(crate) fn leads_here(&self) -> bool {
        let loops =
            |at: &TransportAddr| matches!(at, TransportAddr::Ip(at) if at.ip().is_loopback());
        !self.addresses.iter().all(loops)
    }
}

/// Chooses what a node announces, and remembers what it needs for that.
#[derive(Debug)]
pub(crate) struct Chooser {
    entries: Vec<Advertise>,
    /// The addresses of the host names among the entries.
    resolved: Vec<(String, Vec<SocketAddr>)>,
    /// Addresses that interfaces had before. The endpoint may still report one for a moment.
    former: BTreeSet<IpAddr>,
    /// True once an address was announced that others can reach. From then on, loopback is not
    /// announced.
    went_out: bool,
}

/// The class of an address. The lower class comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Fixed,
    Relay,
    Preferred,
    Default,
    /// Not an interface's own: others see this machine at it, through a NAT.
    Outside,
    Regular,
    LinkLocal,
    Internal,
    Loopback,
}

/// The order of addresses. Within a class, interfaces take turns, so that an interface with many
/// addresses leaves room for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: Class,
    /// The position of the entry of the setting that names the address.
    entry: usize,
    /// How many addresses of its interface and family come before it.
    round: u8,
    /// The interface's position among all.
    place: usize,
    is_ipv6: bool,
}

impl Rank {
    fn of(class: Class) -> Self {
        Self { class, entry: 0, round: 0, place: 0, is_ipv6: false }
    }
}

impl Chooser {
    pub(crate) fn new(entries: Vec<Advertise>) -> Self {
        Self { entries, resolved: Vec::new(), former: BTreeSet::new(), went_out: false }
    }

    /// Returns the host names that have to be resolved, with their ports.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        let host = |entry: &Advertise| match &entry.0 {
            Entry::Host(host, port) => Some((host.clone(), *port)),
            _ => None,
        };
        self.entries.iter().filter_map(host).collect()
    }

    /// Takes the addresses of a host name. If it resolves to none, the earlier addresses are kept.
    pub(crate) fn resolved(&mut self, host: &str, port: u16, addresses: Vec<SocketAddr>) {
        let name = format!("{host}:{port}");
        self.resolved.retain(|(known, _)| *known != name);
        self.resolved.push((name, addresses));
    }

    /// Chooses the addresses. `seen` are those that the endpoint reports, `bound` are its sockets.
    pub(crate) fn choose<'a>(
        &mut self,
        seen: impl IntoIterator<Item = &'a TransportAddr>,
        bound: &[SocketAddr],
        interfaces: Option<&Interfaces>,
    ) -> Announced {
        let mut all: Vec<(Rank, TransportAddr)> = Vec::new();
        let mut sockets = Vec::new();
        for address in seen {
            match address {
                TransportAddr::Ip(socket) => sockets.push(*socket),
                other => all.push((Rank::of(Class::Relay), other.clone())),
            }
        }
        self.fixed(bound, &mut all);
        let mut excluded = false;
        for (socket, mut rank) in self.local(&sockets, bound, interfaces) {
            let name = interfaces.and_then(|all| all.of(socket.ip())).map(|one| one.name.as_str());
            match self.rule(socket, name) {
                Some((_, true)) => {
                    excluded |= rank.class != Class::Loopback;
                    continue;
                }
                Some((entry, false)) if rank.class != Class::Loopback => {
                    (rank.class, rank.entry) = (Class::Preferred, entry);
                }
                _ => {}
            }
            all.push((rank, TransportAddr::Ip(socket)));
        }
        all.sort();
        let mut kept = Vec::new();
        let (mut left_out, mut internal) = (0, 0);
        let nothing_else = all.first().is_none_or(|(rank, _)| rank.class == Class::Loopback);
        for (rank, address) in all {
            let only_here = rank.class == Class::Loopback;
            if only_here && !(nothing_else && self.may_loop_back(bound)) || kept.contains(&address)
            {
                continue;
            }
            internal += usize::from(rank.class == Class::Internal);
            if rank.class == Class::Internal && internal > MAX_INTERNAL {
                left_out += 1;
            } else {
                kept.push(address);
            }
        }
        self.went_out |= !nothing_else;
        Announced { addresses: kept, left_out, excluded }
    }

    /// Returns true if the loopback address may be announced for want of another one: no other
    /// machine can have heard of this node.
    fn may_loop_back(&self, bound: &[SocketAddr]) -> bool {
        !self.went_out || is_local(bound)
    }

    fn fixed(&self, bound: &[SocketAddr], all: &mut Vec<(Rank, TransportAddr)>) {
        for (number, entry) in self.entries.iter().enumerate() {
            let sockets = match &entry.0 {
                Entry::Socket(socket) => vec![*socket],
                Entry::Ip(ip) => bound
                    .iter()
                    .find(|socket| socket.is_ipv4() == ip.is_ipv4())
                    .map(|socket| SocketAddr::new(*ip, socket.port()))
                    .into_iter()
                    .collect(),
                Entry::Host(host, port) => {
                    let name = format!("{host}:{port}");
                    let found = self.resolved.iter().find(|(known, _)| *known == name);
                    found.map(|(_, sockets)| sockets.clone()).unwrap_or_default()
                }
                Entry::Match { .. } => continue,
            };
            let rank = Rank { entry: number, ..Rank::of(Class::Fixed) };
            all.extend(sockets.into_iter().map(|at| (rank, TransportAddr::Ip(at))));
        }
    }

    /// Returns the first entry that matches an address, and whether it leaves the address out.
    fn rule(&self, socket: SocketAddr, interface: Option<&str>) -> Option<(usize, bool)> {
        self.entries.iter().enumerate().find_map(|(number, entry)| match &entry.0 {
            Entry::Match { leave_out, what } if what.matches(socket, interface) => {
                Some((number, *leave_out))
            }
            _ => None,
        })
    }

    /// Returns the bound addresses of this machine's interfaces, and those that others see.
    fn local(
        &mut self,
        seen: &[SocketAddr],
        bound: &[SocketAddr],
        interfaces: Option<&Interfaces>,
    ) -> Vec<(SocketAddr, Rank)> {
        let mut found: Vec<(SocketAddr, Rank)> = Vec::new();
        for (place, interface) in interfaces.into_iter().flat_map(Interfaces::iter).enumerate() {
            let mut addresses = interface.addresses.clone();
            addresses.sort_by_key(|address| address.temporary);
            let mut rounds = [0_u8; 2];
            for address in addresses {
                if self.former.len() < MAX_FORMER && !address.ip.is_loopback() {
                    self.former.insert(address.ip);
                }
                let Some(socket) = reached_at(address.ip, bound) else { continue };
                let is_ipv6 = socket.is_ipv6();
                let round = &mut rounds[usize::from(is_ipv6)];
                let class = match address.ip {
                    ip if ip.is_loopback() => Class::Loopback,
                    // A link-local address means nothing on another machine, because it needs the
                    // interface's index.
                    IpAddr::V6(v6) if v6.is_unicast_link_local() => continue,
                    _ if interface.kind == Kind::Internal => Class::Internal,
                    IpAddr::V4(v4) if v4.is_link_local() => Class::LinkLocal,
                    // An interface with many addresses leaves room for the others.
                    _ if interface.default_route.is_some() && *round < MAX_FIRST => Class::Default,
                    // The loopback interface may have addresses that routers lead to this machine.
                    _ => Class::Regular,
                };
                found.push((socket, Rank { class, entry: 0, round: *round, place, is_ipv6 }));
                *round = round.saturating_add(1);
            }
        }
        for socket in seen {
            let ip = socket.ip();
            if found.iter().any(|(known, _)| known == socket)
                || interfaces.is_some_and(|all| all.is_idle(ip))
                || self.former.contains(&ip)
                || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
            {
                continue;
            }
            let class = match ip {
                _ if ip.is_loopback() => Class::Loopback,
                _ if interfaces.is_some() => Class::Outside,
                _ => Class::Regular,
            };
            found.push((*socket, Rank { is_ipv6: ip.is_ipv6(), ..Rank::of(class) }));
        }
        found
    }
}

/// Returns true if only the loopback interface is bound.
pub(crate) fn is_local(bound: &[SocketAddr]) -> bool {
    !bound.is_empty() && bound.iter().all(|socket| socket.ip().is_loopback())
}

/// Returns the socket address at which an address of this machine is bound.
pub(crate) fn reached_at(ip: IpAddr, bound: &[SocketAddr]) -> Option<SocketAddr> {
    let by = |socket: &&SocketAddr| {
        socket.is_ipv4() == ip.is_ipv4() && (socket.ip().is_unspecified() || socket.ip() == ip)
    };
    bound.iter().find(by).map(|socket| SocketAddr::new(ip, socket.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::{Address, Interface};

    fn interface(name: &str, kind: Kind, default_route: Option<u32>, ips: &[&str]) -> Interface {
        let address = |ip: &&str| Address { ip: ip.parse().unwrap(), temporary: false };
        Interface {
            name: name.into(),
            index: 1,
            kind,
            multicast: true,
            default_route,
            mtu: 1500,
            addresses: ips.iter().map(address).collect(),
        }
    }

    fn entries(texts: &[&str]) -> Vec<Advertise> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn bound() -> Vec<SocketAddr> {
        vec!["0.0.0.0:7".parse().unwrap(), "[::]:8".parse().unwrap()]
    }

    fn texts(announced: &Announced) -> Vec<String> {
        let text = |address: &TransportAddr| match address {
            TransportAddr::Ip(socket) => socket.to_string(),
            other => other.to_string(),
        };
        announced.addresses.iter().map(text).collect()
    }

    /// A machine with eight bridges of containers, a network card and a tunnel.
    fn docker_host() -> Interfaces {
        let mut all = vec![interface("lo", Kind::Loopback, None, &["127.0.0.1", "::1"])];
        for n in 17..25 {
            let ip = format!("172.{n}.0.1");
            all.push(interface(&format!("br-{n}"), Kind::Internal, None, &[&ip]));
        }
        all.push(interface("wg0", Kind::Regular, None, &["10.9.0.2"]));
        let lan = ["192.168.1.10", "fe80::1", "fd00::10", "2001:db8::10"];
        all.push(interface("eth0", Kind::Regular, Some(100), &lan));
        Interfaces::new(all, vec!["172.30.0.1".parse().unwrap()])
    }

    fn choose(entry: &[&str], seen: &[&str]) -> Vec<String> {
        let mut chooser = Chooser::new(entries(entry));
        let seen: Vec<_> = seen.iter().map(|at| TransportAddr::Ip(at.parse().unwrap())).collect();
        texts(&chooser.choose(&seen, &bound(), Some(&docker_host())))
    }

    #[test]
    fn bridges_take_no_room_from_what_others_can_reach() {
        let seen = ["203.0.113.9:4000", "172.17.0.1:7", "172.30.0.1:7", "127.0.0.1:7"];
        let wanted = [
            "192.168.1.10:7",
            "[fd00::10]:8",
            "[2001:db8::10]:8",
            "203.0.113.9:4000",
            "10.9.0.2:7",
            "172.17.0.1:7",
            "172.18.0.1:7",
        ];
        assert_eq!(choose(&[], &seen), wanted);
    }

    #[test]
    fn interfaces_take_turns() {
        let many: Vec<String> = (1..=20).map(|n| format!("10.0.0.{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let interfaces = Interfaces::new(
            vec![
                interface("eth0", Kind::Regular, None, &many),
                interface("eth1", Kind::Regular, None, &["10.1.0.1", "fd00:1::1"]),
            ],
            Vec::new(),
        );
        let announced = Chooser::new(Vec::new()).choose(&[], &bound(), Some(&interfaces));
        assert_eq!(texts(&announced)[..3], ["10.0.0.1:7", "10.1.0.1:7", "[fd00:1::1]:8"]);
    }

    #[test]
    fn many_addresses_at_the_default_route_leave_room_for_other_interfaces() {
        let many: Vec<String> = (1..=20).map(|n| format!("2001:db8::{n}")).collect();
        let mut many: Vec<_> = many.iter().map(String::as_str).collect();
        many.push("192.168.1.10");
        let interfaces = Interfaces::new(
            vec![
                interface("eth0", Kind::Regular, Some(100), &many),
                interface("eth1", Kind::Regular, None, &["10.1.0.1", "fd00:1::1"]),
            ],
            Vec::new(),
        );
        let announced = Chooser::new(Vec::new()).choose(&[], &bound(), Some(&interfaces));
        let wanted = [
            "192.168.1.10:7",
            "[2001:db8::1]:8",
            "[2001:db8::2]:8",
            "10.1.0.1:7",
            "[fd00:1::1]:8",
            "[2001:db8::3]:8",
        ];
        assert_eq!(texts(&announced)[..6], wanted);
    }

    #[test]
    fn a_setting_that_leaves_out_all_is_noticed() {
        let choose = |entry: &[&str]| {
            Chooser::new(entries(entry)).choose(&[], &bound(), Some(&docker_host()))
        };
        let none = choose(&["!0.0.0.0/0", "!::/0"]);
        assert!(none.excluded && !none.leads_here() && none.addresses.is_empty());
        assert!(choose(&["!docker*"]).leads_here());
    }

    #[test]
    fn entries_add_prefer_and_leave_out() {
        assert_eq!(choose(&["203.0.113.7:4433"], &[])[0], "203.0.113.7:4433");
        assert_eq!(choose(&["203.0.113.7", "2001:db8::7"], &[])[1], "[2001:db8::7]:8");
        assert_eq!(choose(&["wg*"], &[])[0], "10.9.0.2:7");
        assert_eq!(choose(&["172.20.0.0/14"], &[])[0], "172.20.0.1:7");
        let only = choose(&["10.0.0.0/8", "!0.0.0.0/0", "!::/0"], &["203.0.113.9:4000"]);
        assert_eq!(only, ["10.9.0.2:7"]);
        let without = choose(&["!eth0", "!br-*", "!203.0.113.9:4000"], &["203.0.113.9:4000"]);
        assert_eq!(without, ["10.9.0.2:7"]);
    }

    #[test]
    fn names_are_announced_once_they_resolve() {
        let mut chooser = Chooser::new(entries(&["lb.example:4433"]));
        assert_eq!(chooser.hosts(), [("lb.example".to_owned(), 4433)]);
        let before = chooser.choose(&[], &bound(), Some(&docker_host()));
        assert_eq!(texts(&before)[0], "192.168.1.10:7");
        chooser.resolved("lb.example", 4433, vec!["203.0.113.7:4433".parse().unwrap()]);
        let after = chooser.choose(&[], &bound(), Some(&docker_host()));
        assert_eq!(texts(&after)[0], "203.0.113.7:4433");
    }

    #[test]
    fn loopback_is_announced_only_until_there_was_anything_else() {
        let lo = interface("lo", Kind::Loopback, None, &["127.0.0.1"]);
        let offline = Interfaces::new(vec![lo], Vec::new());
        let mut chooser = Chooser::new(Vec::new());
        let seen = TransportAddr::Ip("127.0.0.1:7".parse().unwrap());
        let first = chooser.choose([&seen], &bound(), Some(&offline));
        assert_eq!(texts(&first), ["127.0.0.1:7"]);
        chooser.choose([&seen], &bound(), Some(&docker_host()));
        let last = chooser.choose([&seen], &bound(), Some(&offline));
        assert_eq!(texts(&last), [""; 0]);
        let stale = TransportAddr::Ip("192.168.1.10:7".parse().unwrap());
        assert_eq!(texts(&chooser.choose([&stale], &bound(), Some(&offline))), [""; 0]);
        let local: Vec<SocketAddr> = vec!["127.0.0.1:7".parse().unwrap()];
        assert_eq!(texts(&chooser.choose([&seen], &local, None)), ["127.0.0.1:7"]);
    }

    #[test]
    fn an_entry_is_read_and_written() {
        let good = ["203.0.113.7:4433", "[2001:db8::7]:4433", "lb.example:4433", "203.0.113.7"];
        let more = ["2001:db8::7", "eth0", "wg*", "10.0.0.0/8", "!docker0", "!172.16.0.0/12"];
        let last = ["!10.0.0.1", "!fd00::/8", "!203.0.113.7:1", "0.0.0.0/0", "Wi-Fi 2"];
        for text in good.iter().chain(&more).chain(&last) {
            assert_eq!(text.parse::<Advertise>().unwrap().to_string(), **text);
        }
    }

    #[test]
    fn a_bad_entry_is_named_with_the_reason() {
        let bad = [
            "",
            "!",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/",
            "10.0.0.0/x",
            "x/8",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "1.2.3.4:",
            ":4433",
            "0.0.0.0",
            "[::]:1",
            "224.0.0.1:1",
            "ff02::1",
            "255.255.255.255:1",
            "fe80::1",
            "[fe80::1%2]:1",
            "fe80::1%eth0",
            "203.0.113.300",
            "203.0.113.300:1",
            "a b:1",
            "!lb.example:1",
            "fd00::/129",
            "fd00::1/64",
            "!!eth0",
            " eth0",
            "eth0 ",
            "e*0",
        ];
        for text in bad {
            let error = text.parse::<Advertise>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("advertise {text:?} ")), "{error}");
        }
    }

    #[test]
    fn the_setting_as_a_whole_has_limits() {
        let many: Vec<_> = (0..65).map(|n| format!("eth{n}").parse().unwrap()).collect();
        assert!(check(&many, &bound()).unwrap_err().to_string().contains("the limit is 64"));
        let many: Vec<_> = (1..10).map(|n| format!("10.0.0.{n}:1").parse().unwrap()).collect();
        assert!(check(&many, &bound()).unwrap_err().to_string().contains("the limit is 8"));
        let loopback = entries(&["127.0.0.1:1"]);
        assert!(check(&loopback, &bound()).unwrap_err().to_string().contains("127.0.0.1:1"));
        check(&loopback, &["127.0.0.1:0".parse().unwrap()]).unwrap();
        let six = entries(&["2001:db8::7"]);
        let error = check(&six, &["0.0.0.0:7".parse().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("`bind` has no IPv6 address"), "{error}");
        check(&six, &bound()).unwrap();
        check(&entries(&["[2001:db8::7]:1"]), &["0.0.0.0:7".parse().unwrap()]).unwrap();
    }
}
