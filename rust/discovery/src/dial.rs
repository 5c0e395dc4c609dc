//! One dial: names are resolved anew each time, then all addresses are tried together.

use std::collections::BTreeSet;

use iroh::{
    Endpoint, EndpointAddr, TransportAddr,
    endpoint::{ConnectOptions, Connection, QuicTransportConfig},
};
use tracing::debug;

use crate::ALPN;

/// A host name and a port.
pub(crate) type Host = (String, u16);

/// Dials a peer; the error says why it failed. The caller limits the time.
pub(crate) async fn dial(
    endpoint: Endpoint,
    mut address: EndpointAddr,
    hosts: BTreeSet<Host>,
    transport: QuicTransportConfig,
) -> Result<Connection, String> {
    for (host, port) in hosts {
        match tokio::net::lookup_host((host.as_str(), port)).await {
            Ok(found) => address.addrs.extend(found.map(TransportAddr::Ip)),
            Err(reason) => debug!(host, %reason, "bootstrap name not resolved"),
        }
    }
    let options = ConnectOptions::new().with_transport_config(transport);
    let connecting = endpoint
        .connect_with_opts(address, ALPN, options)
        .await
        .map_err(|error| format!("{error:#}"))?;
    connecting.await.map_err(|error| format!("{error:#}"))
}
