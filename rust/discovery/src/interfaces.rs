//! The network interfaces of this machine, and a watch over them.
//!
//! On Linux they come from netlink, which is right in every network namespace and knows the kind of
//! each interface. (`/sys` shows the namespace that mounted it.) Elsewhere they come from iroh's
//! own network monitor, and the kind of an interface is guessed from its name.

#[cfg(target_os = "linux")]
mod netlink;
#[cfg(not(target_os = "linux"))]
mod portable;

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

#[cfg(target_os = "linux")]
use netlink as platform;
#[cfg(not(target_os = "linux"))]
use portable as platform;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The smallest MTU on which QUIC works: 1,200 bytes (RFC 9000 §14), a UDP and an IPv4 header.
pub(crate) const MIN_MTU: u32 = 1228;

/// What an interface leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A network card, a tunnel, or a container's end of a virtual cable: its addresses are this
    /// machine's own.
    Regular,
    /// The gateway of a network inside this machine, as container engines and hypervisors create
    /// them. Its address often is the same on every host.
    Internal,
    /// This machine alone.
    Loopback,
}

/// An address of an interface that can be used now: it is neither tentative nor deprecated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    /// An IPv6 privacy address (RFC 8981), which changes every day.
    pub(crate) temporary: bool,
}

/// An interface that is up and has a carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) kind: Kind,
    /// True if it can send multicast packets. A port of a bridge or a bond leaves that to the
    /// bridge or bond.
    pub(crate) multicast: bool,
    /// The metric of its default route, if it has one: the lower one wins.
    pub(crate) default_route: Option<u32>,
    /// The largest packet, in bytes; 0 if it is not known.
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<Address>,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.name)?;
        for (i, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " " }, address.ip)?;
        }
        write!(f, ")")
    }
}

/// The interfaces that are up, the most useful one first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Interfaces {
    up: Vec<Interface>,
    /// The addresses that this machine has but can't use now.
    idle: Vec<IpAddr>,
}

impl Interfaces {
    /// Sorts the interfaces: that of the default route first, loopback last.
    pub(crate) fn new(mut all: Vec<Interface>, idle: Vec<IpAddr>) -> Self {
        all.sort_by_key(|one| {
            (one.default_route.is_none(), one.default_route, one.kind, one.index)
        });
        for one in &mut all {
            if one.default_route.is_some() && one.kind == Kind::Internal {
                one.kind = Kind::Regular;
            }
        }
        Self { up: all, idle }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.up.iter()
    }

    /// Returns what decides which links work: the addresses of this machine, and its default
    /// routes.
    pub(crate) fn footing(&self) -> Footing {
        let mut footing = Footing::default();
        for one in self.iter().filter(|one| one.kind != Kind::Loopback) {
            let usable = one.addresses.iter().map(|address| address.ip).filter(is_usable);
            let before = footing.addresses.len();
            footing.addresses.extend(usable);
            footing.leads_out |= one.kind == Kind::Regular && footing.addresses.len() > before;
            footing.ways.extend(one.default_route.map(|metric| (metric, one.index)));
        }
        footing
    }

    /// Returns true if an address can't be used now, for instance because its interface is down.
    pub(crate) fn is_idle(&self, ip: IpAddr) -> bool {
        self.idle.contains(&ip)
    }

    /// Returns the interface that has an address.
    pub(crate) fn of(&self, ip: IpAddr) -> Option<&Interface> {
        self.iter().find(|one| one.addresses.iter().any(|address| address.ip == ip))
    }
}

/// The addresses of this machine that others may dial, and its default routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Footing {
    addresses: BTreeSet<IpAddr>,
    ways: BTreeSet<(u32, u32)>,
    /// True if one of the addresses is of an interface that leads to other machines.
    pub(crate) leads_out: bool,
}

/// Returns true if another host can dial an address, without the name of an interface.
fn is_usable(ip: &IpAddr) -> bool {
    !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Returns true if an interface of this name is, by custom, the gateway of a network inside a
/// machine.
pub(crate) fn is_internal_name(name: &str) -> bool {
    const PREFIXES: [&str; 18] = [
        "docker",
        "br-",
        "virbr",
        "cni",
        "lxdbr",
        "lxcbr",
        "incusbr",
        "podman",
        "nerdctl",
        "mpqemubr",
        "hassio",
        "vmnet",
        "vboxnet",
        "kube-ipvs",
        "kube-bridge",
        "nodelocaldns",
        "vEthernet (",
        "bridge1",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A watch over the interfaces. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watch {
    current: watch::Receiver<Arc<Interfaces>>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Begins to watch. `None` if the system does not list its interfaces.
    pub(crate) async fn new() -> Option<Self> {
        platform::watch()
            .await
            .inspect_err(|reason| tracing::warn!(reason, "this machine's interfaces are not known"))
            .ok()
    }

    /// Returns a channel that holds the interfaces as they are now, and wakes at each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Interfaces>> {
        self.current.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, index: u32, kind: Kind, default_route: Option<u32>) -> Interface {
        Interface {
            name: name.into(),
            index,
            kind,
            multicast: true,
            default_route,
            mtu: 1500,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn the_default_route_comes_first_and_loopback_last() {
        let all = Interfaces::new(
            vec![
                interface("lo", 1, Kind::Loopback, None),
                interface("docker0", 2, Kind::Internal, None),
                interface("wlan0", 3, Kind::Regular, Some(600)),
                interface("eth1", 4, Kind::Regular, None),
                interface("eth0", 5, Kind::Regular, Some(100)),
            ],
            Vec::new(),
        );
        let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["eth0", "wlan0", "eth1", "docker0", "lo"]);
    }

    #[test]
    fn a_bridge_with_the_default_route_is_the_way_out() {
        let all =
            Interfaces::new(vec![interface("br-lan", 2, Kind::Internal, Some(0))], Vec::new());
        assert_eq!(all.iter().next().unwrap().kind, Kind::Regular);
    }

    #[tokio::test]
    async fn this_machine_has_a_loopback_interface() {
        let watch = Watch::new().await.unwrap();
        let interfaces = watch.subscribe().borrow().clone();
        let local = interfaces.of("127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(local.kind, Kind::Loopback);
    }
}
