//! Linux: three dumps of rtnetlink(7) list the interfaces, and its multicast groups report changes.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{Address, Interface, Interfaces, Kind, Watch, is_internal_name};

const NETLINK_ROUTE: isize = 0;
/// Groups `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: u32 = 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10;
/// Changes come in bursts, so the list is made once no message came for this time.
const QUIET: Duration = Duration::from_millis(50);
/// After this many messages the list is made even if more keep coming.
const BURST: usize = 64;
/// The list is also made this often without any message, because messages can be lost.
const POLL: Duration = Duration::from_secs(30);
/// The buffer for one read of a dump. The kernel fills at most 32 KiB.
const READ: usize = 64 * 1024;

mod kind {
    pub(super) const DONE: u16 = 3;
    pub(super) const ERROR: u16 = 2;
    pub(super) const NEW_LINK: u16 = 16;
    pub(super) const GET_LINK: u16 = 18;
    pub(super) const NEW_ADDRESS: u16 = 20;
    pub(super) const GET_ADDRESS: u16 = 22;
    pub(super) const NEW_ROUTE: u16 = 24;
    pub(super) const GET_ROUTE: u16 = 26;
}

mod flag {
    pub(super) const UP: u32 = 1;
    pub(super) const LOOPBACK: u32 = 1 << 3;
    pub(super) const RUNNING: u32 = 1 << 6;
    pub(super) const MULTICAST: u32 = 1 << 12;
    /// Flags of an address: made by privacy extensions; failed, deprecated or tentative.
    pub(super) const TEMPORARY: u32 = 1;
    pub(super) const UNUSABLE: u32 = 0x08 | 0x20 | 0x40;
    /// Flags of a route: dead, or without a carrier.
    pub(super) const ROUTE_DOWN: u32 = 1 | 16;
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const MAIN_TABLE: u8 = 254;
const UNICAST: u8 = 1;

/// Begins to watch. It is ready at once; the watch of other systems has to be awaited.
pub(super) fn watch() -> Ready<Result<Watch, String>> {
    ready(start().map_err(|error| error.to_string()))
}

fn start() -> io::Result<Watch> {
    // Subscribed before the first list is made, so that no change between the two is missed.
    let changes = subscribe()?;
    let first = list()?;
    let (sender, current) = watch::channel(Arc::new(first));
    Ok(Watch { current, _task: AbortOnDropHandle::new(tokio::spawn(follow(changes, sender))) })
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
    Ok(socket)
}

async fn follow(changes: TokioSocket, sender: watch::Sender<Arc<Interfaces>>) {
    loop {
        let first = timeout(POLL, changes.recv_from_full()).await;
        if let Ok(Err(error)) = &first {
            // An overrun (ENOBUFS) means that messages were lost. The list is made anyway.
            debug!(reason = %error, "netlink");
            sleep(QUIET).await;
        }
        if first.is_ok() {
            for _ in 0..BURST {
                if timeout(QUIET, changes.recv_from_full()).await.is_err() {
                    break;
                }
            }
        }
        match list() {
            Ok(now) => {
                let replace = |old: &mut Arc<Interfaces>| {
                    let is_new = **old != now;
                    if is_new {
                        *old = Arc::new(now);
                    }
                    is_new
                };
                sender.send_if_modified(replace);
            }
            Err(error) => debug!(reason = %error, "interfaces can't be listed"),
        }
        if sender.is_closed() {
            return;
        }
    }
}

#[derive(Default)]
struct Link {
    name: String,
    flags: u32,
    mtu: u32,
    master: Option<u32>,
    /// The kind that `ip -d link` shows; a network card has none.
    kind: Option<String>,
}

impl Link {
    /// Returns true if the interface leads out of this machine, so that a bridge over it does too.
    fn leads_out(&self) -> bool {
        matches!(self.kind.as_deref(), None | Some("bond" | "team" | "vlan" | "macvlan"))
    }
}

/// Lists the interfaces that are up.
fn list() -> io::Result<Interfaces> {
    let mut links = BTreeMap::new();
    dump(kind::GET_LINK, kind::NEW_LINK, 16, |body| read_link(body, &mut links))?;
    let mut addresses = BTreeMap::<u32, Vec<Address>>::new();
    let mut idle = Vec::new();
    dump(kind::GET_ADDRESS, kind::NEW_ADDRESS, 8, |body| {
        let (index, address, usable) = read_address(body)?;
        if usable {
            addresses.entry(index).or_default().push(address);
        } else {
            idle.push(address.ip);
        }
        Some(())
    })?;
    let mut routes = BTreeMap::new();
    dump(kind::GET_ROUTE, kind::NEW_ROUTE, 12, |body| read_default_route(body, &mut routes))?;
    let up = |link: &Link| link.flags & flag::UP != 0 && link.flags & flag::RUNNING != 0;
    let interfaces = links.iter().filter(|(_, link)| up(link)).map(|(index, link)| {
        let master = link.master.and_then(|master| links.get(&master)?.kind.as_deref());
        Interface {
            name: link.name.clone(),
            index: *index,
            kind: kind_of(*index, link, &links),
            // An interface in a VRF has a master too, but multicasts by itself.
            multicast: link.flags & flag::MULTICAST != 0 && master.is_none_or(|kind| kind == "vrf"),
            default_route: routes.get(index).copied(),
            mtu: link.mtu,
            addresses: addresses.remove(index).unwrap_or_default(),
        }
    });
    let up: Vec<_> = interfaces.collect();
    idle.extend(addresses.into_values().flatten().map(|address| address.ip));
    Ok(Interfaces::new(up, idle))
}

fn kind_of(index: u32, link: &Link, links: &BTreeMap<u32, Link>) -> Kind {
    if link.flags & flag::LOOPBACK != 0 {
        return Kind::Loopback;
    }
    let mut ports = links.values().filter(|port| port.master == Some(index));
    let is_bridge = matches!(link.kind.as_deref(), Some("bridge" | "openvswitch"));
    if is_bridge && ports.any(Link::leads_out) {
        return Kind::Regular;
    }
    if is_bridge || link.kind.as_deref() == Some("dummy") || is_internal_name(&link.name) {
        return Kind::Internal;
    }
    Kind::Regular
}

/// Requests a dump, and gives the body of each answer to `read`.
fn dump(
    request: u16,
    answer: u16,
    header: usize,
    mut read: impl FnMut(&[u8]) -> Option<()>,
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let length = 16 + header;
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or(16).to_ne_bytes());
    message.extend(request.to_ne_bytes());
    message.extend(0x301_u16.to_ne_bytes()); // a request for a dump
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    message.resize(length, 0);
    socket.send(&message, 0)?;
    let mut buffer = Vec::with_capacity(READ);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((message, after)) = next(rest, 4) {
            rest = after;
            let Some(what) = number::<2>(message, 4).map(u16::from_ne_bytes) else { break };
            match what {
                kind::DONE => return Ok(()),
                kind::ERROR => return Err(io::Error::other("netlink refused a dump")),
                // An answer that can't be read is left out.
                _ if what == answer => drop(message.get(16..).and_then(&mut read)),
                _ => {}
            }
        }
    }
}

/// Splits off the first of several items. Each begins with its length, in `width` bytes, and is
/// aligned to four bytes.
fn next(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let length = if width == 4 {
        u32::from_ne_bytes(number(bytes, 0)?) as usize
    } else {
        usize::from(u16::from_ne_bytes(number(bytes, 0)?))
    };
    let item = bytes.get(..length).filter(|item| item.len() >= 4)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((item, after))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Returns the attributes of a message, by type.
fn attributes(mut bytes: &[u8]) -> BTreeMap<u16, &[u8]> {
    let mut all = BTreeMap::new();
    while let Some((item, after)) = next(bytes, 2) {
        bytes = after;
        if let Some(what) = number::<2>(item, 2) {
            all.insert(u16::from_ne_bytes(what) & 0x3fff, &item[4..]);
        }
    }
    all
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

fn unsigned(bytes: Option<&&[u8]>) -> Option<u32> {
    Some(u32::from_ne_bytes(number(bytes?, 0)?))
}

fn read_link(body: &[u8], links: &mut BTreeMap<u32, Link>) -> Option<()> {
    let index = u32::from_ne_bytes(number(body, 4)?);
    let flags = u32::from_ne_bytes(number(body, 8)?);
    let all = attributes(body.get(16..)?);
    let link = Link {
        name: text(all.get(&3)?),
        flags,
        mtu: unsigned(all.get(&4)).unwrap_or(0),
        master: unsigned(all.get(&10)),
        kind: all.get(&18).and_then(|info| attributes(info).get(&1).map(|kind| text(kind))),
    };
    links.insert(index, link);
    Some(())
}

/// Reads an address: the index of its interface, the address, and whether it can be used.
fn read_address(body: &[u8]) -> Option<(u32, Address, bool)> {
    let index = u32::from_ne_bytes(number(body, 4)?);
    let all = attributes(body.get(8..)?);
    let flags = unsigned(all.get(&8)).unwrap_or_else(|| u32::from(body[2]));
    // On a point-to-point link, attribute 1 is the other end and attribute 2 is this one.
    let bytes = all.get(&2).or_else(|| all.get(&1))?;
    let ip = match *body.first()? {
        AF_INET => IpAddr::from(Ipv4Addr::from(number::<4>(bytes, 0)?)),
        AF_INET6 => IpAddr::from(Ipv6Addr::from(number::<16>(bytes, 0)?)),
        _ => return None,
    };
    let temporary = ip.is_ipv6() && flags & flag::TEMPORARY != 0;
    Some((index, Address { ip, temporary }, flags & flag::UNUSABLE == 0))
}

fn read_default_route(body: &[u8], routes: &mut BTreeMap<u32, u32>) -> Option<()> {
    let (length, table, what) = (*body.get(1)?, *body.get(4)?, *body.get(7)?);
    let flags = u32::from_ne_bytes(number(body, 8)?);
    if length != 0 || table != MAIN_TABLE || what != UNICAST || flags & flag::ROUTE_DOWN != 0 {
        return Some(());
    }
    let all = attributes(body.get(12..)?);
    let metric = unsigned(all.get(&6)).unwrap_or(0);
    let mut leave_by = |interface: u32| {
        let best = routes.entry(interface).or_insert(metric);
        *best = metric.min(*best);
    };
    if let Some(interface) = unsigned(all.get(&4)) {
        leave_by(interface);
    }
    // With several gateways, each has a length, flags, a weight and its interface.
    let mut hops = all.get(&9).copied().unwrap_or_default();
    while let Some((hop, after)) = next(hops, 2) {
        hops = after;
        leave_by(u32::from_ne_bytes(number(hop, 4)?));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_messages_are_left_out() {
        assert!(next(&[9, 0, 1, 0, 1], 2).is_none());
        assert!(next(&[2, 0, 1, 0], 2).is_none());
        assert!(attributes(&[0, 0, 0, 0]).is_empty());
        assert!(read_link(&[0; 12], &mut BTreeMap::new()).is_none());
        assert!(read_address(&[AF_INET, 8, 0, 0]).is_none());
    }

    #[test]
    fn a_bridge_is_internal_unless_a_network_card_is_in_it() {
        let link = |name: &str, kind: Option<&str>, master| Link {
            name: name.into(),
            kind: kind.map(Into::into),
            master,
            ..Link::default()
        };
        let mut links = BTreeMap::from([
            (2, link("lan", Some("bridge"), None)),
            (3, link("veth3", Some("veth"), Some(2))),
        ]);
        assert_eq!(kind_of(2, &links[&2], &links), Kind::Internal);
        assert_eq!(kind_of(3, &links[&3], &links), Kind::Regular);
        links.insert(4, link("enp1s0", None, Some(2)));
        assert_eq!(kind_of(2, &links[&2], &links), Kind::Regular);
    }
}
