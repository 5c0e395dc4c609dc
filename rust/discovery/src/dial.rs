//! One dial: names are resolved anew each time, then all addresses are tried together.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use iroh::{
    Endpoint, EndpointAddr, TransportAddr,
    endpoint::{ConnectOptions, Connection, QuicTransportConfig},
};
use tokio::time::timeout;
use tracing::debug;

use crate::ALPN;

/// A host name and a port.
pub(crate) type Host = (String, u16);

/// Dials a peer; the error says why it failed. Names that are not resolved within `patience` are left
/// out; the caller limits the time of it all.
pub(crate) async fn dial(
    endpoint: Endpoint,
    mut address: EndpointAddr,
    hosts: BTreeSet<Host>,
    patience: Duration,
    transport: QuicTransportConfig,
) -> Result<Connection, String> {
    let resolved = join_all(hosts.iter().map(|host| resolve(host, patience))).await;
    address.addrs.extend(resolved.into_iter().flatten().map(TransportAddr::Ip));
    let options = ConnectOptions::new().with_transport_config(transport);
    let connecting = endpoint
        .connect_with_opts(address, ALPN, options)
        .await
        .map_err(|error| format!("{error:#}"))?;
    connecting.await.map_err(|error| format!("{error:#}"))
}

async fn resolve((host, port): &Host, patience: Duration) -> Vec<SocketAddr> {
    let found = timeout(patience, tokio::net::lookup_host((host.as_str(), *port))).await;
    match found.map_err(std::io::Error::from).flatten() {
        Ok(found) => found.collect(),
        Err(reason) => {
            debug!(host, %reason, "bootstrap name not resolved");
            Vec::new()
        }
    }
}
