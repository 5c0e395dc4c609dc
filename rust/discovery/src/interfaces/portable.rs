//! Other systems: iroh's network monitor lists the interfaces, and reports changes.

use std::sync::Arc;

use iroh::Watcher;
use netwatch::{interfaces::IpNet, netmon};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Address, Interface, Interfaces, Kind, Watch, is_internal_name};

pub(super) async fn watch() -> Result<Watch, String> {
    let monitor = netmon::Monitor::new().await.map_err(|error| error.to_string())?;
    let mut states = monitor.interface_state();
    let (sender, current) = watch::channel(Arc::new(convert(&states.get())));
    let follow = async move {
        let _monitor = monitor;
        while let Ok(state) = states.updated().await {
            if sender.send(Arc::new(convert(&state))).is_err() {
                return;
            }
        }
    };
    Ok(Watch { current, _task: AbortOnDropHandle::new(tokio::spawn(follow)) })
}

fn convert(state: &netmon::State) -> Interfaces {
    let up = state.interfaces.values().filter(|interface| interface.is_up());
    let all = up.enumerate().map(|(number, interface)| {
        let addresses: Vec<_> = interface.addrs().filter_map(|net| address(&net)).collect();
        let name = interface.name();
        let kind = if addresses.iter().any(|address| address.ip.is_loopback()) {
            Kind::Loopback
        } else if is_internal_name(name) {
            Kind::Internal
        } else {
            Kind::Regular
        };
        let scope = interface.addrs().find_map(|net| match net {
            IpNet::V6 { scope_id, .. } if scope_id != 0 => Some(scope_id),
            _ => None,
        });
        Interface {
            name: name.to_owned(),
            index: scope.unwrap_or_else(|| u32::try_from(number).unwrap_or(0)),
            kind,
            multicast: true,
            default_route: (state.default_route_interface.as_deref() == Some(name)).then_some(0),
            mtu: 0,
            addresses,
        }
    });
    Interfaces::new(all.collect(), idle(state))
}

/// Returns the addresses of interfaces that are down.
fn idle(state: &netmon::State) -> Vec<std::net::IpAddr> {
    let down = state.interfaces.values().filter(|interface| !interface.is_up());
    down.flat_map(|interface| interface.addrs().map(|net| net.addr())).collect()
}

fn address(net: &IpNet) -> Option<Address> {
    match net {
        IpNet::V6 { flags, .. } if flags.deprecated || flags.tentative || flags.duplicated => None,
        IpNet::V6 { net, flags, .. } => {
            Some(Address { ip: net.addr().into(), temporary: flags.temporary })
        }
        IpNet::V4(net) => Some(Address { ip: net.addr().into(), temporary: false }),
    }
}
