//! This node's place in the network: its interfaces, the addresses it announces, and their changes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use iroh::{Endpoint, EndpointAddr, RelayMap, RelayUrl, TransportAddr, endpoint::RelayStatus};
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use crate::{
    advertise::{Chooser, is_local},
    config::Config,
    inputs::Input,
    interfaces::{Footing, Interfaces, Kind, MIN_MTU, Watch},
    mdns::{self, Mdns},
    place::Place,
    problems::Problems,
    proto::TopicId,
    relay,
};

/// Host names in [`crate::Config::advertise`] are resolved again this often.
const RESOLVE: Duration = Duration::from_mins(1);
/// A host name that is not resolved within this time is tried again later.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);
/// Most changes that wait for the actor.
const CHANGES: usize = 16;

/// A change of the network.
#[derive(Debug)]
pub(crate) enum Change {
    /// The interfaces changed.
    Interfaces(Arc<Interfaces>),
    /// A host name to announce was resolved to these addresses.
    Resolved(String, u16, Vec<SocketAddr>),
}

/// Whether a route leads to other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routes {
    /// One does, perhaps another one than before.
    LeadOut,
    /// None does: the network is away.
    Away,
}

/// This node's place in the network.
#[derive(Debug)]
pub(crate) struct Network {
    endpoint: Endpoint,
    /// True if mDNS is used, which needs the interfaces even on loopback.
    mdns: bool,
    chooser: Chooser,
    problems: Problems,
    interfaces: Option<Arc<Interfaces>>,
    footing: Footing,
    announced: Vec<TransportAddr>,
    relays: RelayMap,
    /// The relay that this node is connected to.
    home: Option<RelayUrl>,
    place: watch::Sender<Place>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Network {
    pub(crate) fn new(endpoint: Endpoint, config: &Config, problems: Problems) -> Self {
        let chooser = Chooser::new(config.advertise.clone());
        Self {
            endpoint,
            mdns: config.mdns,
            chooser,
            problems,
            interfaces: None,
            footing: Footing::default(),
            announced: Vec::new(),
            relays: relay::mode(config.relay, &config.relay_urls).relay_map(),
            home: None,
            place: watch::Sender::default(),
            tasks: Vec::new(),
        }
    }

    /// Lists the interfaces, and begins to report changes. If only the loopback interface is bound,
    /// nothing ever changes.
    pub(crate) async fn start(&mut self) -> mpsc::Receiver<Change> {
        let (sender, changes) = mpsc::channel(CHANGES);
        let needless = !self.mdns && is_local(&self.endpoint.bound_sockets());
        let watch = if needless { None } else { Watch::new().await };
        let interfaces = watch.as_ref().map(Watch::subscribe);
        if let Some(mut interfaces) = interfaces.clone() {
            let now = interfaces.borrow_and_update().clone();
            self.set_interfaces(now);
            let sender = sender.clone();
            let follow = async move {
                let _watch = watch;
                while interfaces.changed().await.is_ok() {
                    let now = interfaces.borrow_and_update().clone();
                    if sender.send(Change::Interfaces(now)).await.is_err() {
                        return;
                    }
                }
            };
            self.tasks.push(AbortOnDropHandle::new(tokio::spawn(follow)));
        }
        let seek = relay::seek(self.endpoint.clone(), self.relays.clone(), self.problems.clone());
        self.tasks.push(AbortOnDropHandle::new(tokio::spawn(seek)));
        for (host, port) in self.chooser.hosts() {
            let (problems, interfaces) = (self.problems.clone(), interfaces.clone());
            let resolve = resolve(host, port, sender.clone(), problems, interfaces);
            self.tasks.push(AbortOnDropHandle::new(tokio::spawn(resolve)));
        }
        changes
    }

    /// Applies a change. Returns what it means for links, if they may not work after it.
    pub(crate) fn take(&mut self, change: Change) -> Option<Routes> {
        match change {
            Change::Interfaces(now) => {
                let footing = now.footing();
                let changed = self.interfaces.is_some() && footing != self.footing;
                self.set_interfaces(now);
                let routes = if footing.leads_out { Routes::LeadOut } else { Routes::Away };
                changed.then_some(routes)
            }
            Change::Resolved(host, port, addresses) => {
                self.chooser.resolved(&host, port, addresses);
                None
            }
        }
    }

    /// Takes the state of the relay that this node chose. Returns true if it is connected now and
    /// was not before: then dials may succeed that failed.
    pub(crate) fn has_relay_back(&mut self, status: &[RelayStatus]) -> bool {
        let home = status.iter().find(|one| one.is_connected()).map(|one| one.url().clone());
        if home.is_some() {
            self.problems.clear("relay");
        } else if let Some((one, error)) =
            status.iter().find_map(|one| one.last_error().map(|error| (one, error)))
        {
            let reason = format!("no connection to the relay {}: {error:#}", one.url());
            self.problems.raise("relay", reason);
        }
        let is_back = home.is_some() && home != self.home;
        self.home = home;
        is_back
    }

    /// Adds this node's relay to the addresses of a peer that is at another one of those in the
    /// settings. If that one is gone, the peer may be at this one too, and can't say so.
    pub(crate) fn add_relay(&self, addresses: &mut Vec<TransportAddr>) {
        let Some(home) = self.home.clone().map(TransportAddr::Relay) else { return };
        let shares = |at: &TransportAddr| match at {
            TransportAddr::Relay(url) => self.relays.contains(url),
            _ => false,
        };
        if addresses.iter().any(shares) && !addresses.contains(&home) {
            addresses.push(home);
        }
    }

    /// Returns true if this node announces only an address of this machine. Then those of its peers
    /// are too.
    pub(crate) fn is_on_loopback(&self) -> bool {
        let loops =
            |at: &TransportAddr| matches!(at, TransportAddr::Ip(at) if at.ip().is_loopback());
        self.announced.iter().any(loops)
    }

    /// Returns what to announce from now on, best first. If there is no address at all, the earlier
    /// ones stay, because a network that comes back mostly gives the same addresses.
    pub(crate) fn announce(&mut self, address: &EndpointAddr) -> Vec<TransportAddr> {
        let bound = self.endpoint.bound_sockets();
        let choice = self.chooser.choose(&address.addrs, &bound, self.interfaces.as_deref());
        if choice.leads_here() || is_local(&bound) {
            self.problems.clear("network");
        } else {
            self.problems.raise("network", self.why_no_address(choice.excluded));
        }
        if !choice.addresses.is_empty() && choice.addresses != self.announced {
            debug!(addresses = ?choice.addresses, left_out = choice.left_out, "announced");
            self.announced = choice.addresses;
        }
        let place =
            Place { interfaces: self.interfaces.clone(), announced: self.announced.clone(), bound };
        let replace = |old: &mut Place| {
            let is_new = *old != place;
            if is_new {
                *old = place;
            }
            is_new
        };
        self.place.send_if_modified(replace);
        self.announced.clone()
    }

    /// Returns a channel with this node's place in the network, now and after each change.
    pub(crate) fn place(&self) -> watch::Receiver<Place> {
        self.place.subscribe()
    }

    pub(crate) fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Begins to find members of a topic in the local network.
    pub(crate) fn find_members(
        &self,
        topic: TopicId,
        inputs: mpsc::Sender<Input>,
        announces: bool,
    ) -> Mdns {
        let place = self.place.subscribe();
        mdns::start(self.endpoint.id(), topic, inputs, place, self.problems.clone(), announces)
    }

    /// Returns why no other machine can reach this node. `excluded` says that the setting leaves
    /// out an address.
    fn why_no_address(&self, excluded: bool) -> String {
        let mut up = self.interfaces.iter().flat_map(|all| all.iter());
        let link_local = up.find(|one| one.kind != Kind::Loopback && !one.addresses.is_empty());
        let why = match link_local {
            _ if excluded => "`advertise` leaves out all that there are".into(),
            // Without the addresses, which change while the interface comes up.
            Some(interface) => format!(
                "of {} none can be dialed from another host, give it an IPv4 or a unique local \
                 IPv6 address (fd00::/8), or set `advertise`",
                interface.name
            ),
            None => {
                "no network interface is up, so only this machine's own nodes can be met".into()
            }
        };
        format!("no usable address to announce: {why}")
    }

    fn set_interfaces(&mut self, now: Arc<Interfaces>) {
        if let Some(narrow) = now.iter().find(|one| one.mtu != 0 && one.mtu < MIN_MTU) {
            let what = format!(
                "interface {} has an MTU of {}: QUIC needs {MIN_MTU}, so it reaches no peer",
                narrow.name, narrow.mtu
            );
            self.problems.raise("mtu", what);
        } else {
            self.problems.clear("mtu");
        }
        let names: Vec<_> =
            now.iter().filter(|one| !one.addresses.is_empty()).map(ToString::to_string).collect();
        info!(interfaces = names.join(", "), "network interfaces");
        self.footing = now.footing();
        self.interfaces = Some(now);
    }
}

/// Resolves a host name every `RESOLVE`, and after each change of the interfaces.
async fn resolve(
    host: String,
    port: u16,
    sender: mpsc::Sender<Change>,
    problems: Problems,
    mut interfaces: Option<watch::Receiver<Arc<Interfaces>>>,
) {
    let source = format!("advertise {host}:{port}");
    loop {
        match timeout(RESOLVE_LIMIT, lookup_host((host.as_str(), port))).await {
            Ok(Ok(found)) => {
                problems.clear(&source);
                let found = found.collect();
                if sender.send(Change::Resolved(host.clone(), port, found)).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => problems.raise(&source, format!("does not resolve: {error}")),
            Err(_) => problems.raise(&source, "does not resolve: no answer"),
        }
        let changed = async {
            let ended = match &mut interfaces {
                Some(interfaces) => interfaces.changed().await.is_err(),
                None => true,
            };
            if ended {
                std::future::pending::<()>().await;
            }
        };
        let _ = timeout(RESOLVE, changed).await;
    }
}
