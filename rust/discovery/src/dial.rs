//! One dial: names are resolved again each time, then all addresses are tried together.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use iroh::{
    Endpoint, EndpointAddr, TransportAddr,
    endpoint::{ConnectOptions, Connection, QuicTransportConfig},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::debug;

use crate::{ALPN, problems::Problems};

/// A host name and a port.
pub(crate) type Host = (String, u16);

/// Returns true if an address that others announced is worth a packet. Announced addresses are
/// hints, and must not make this node send to hosts that are no peers. `loopback` says that this
/// node's own addresses are of this machine only, so those of its peers may be too.
pub(crate) fn is_plausible(address: &TransportAddr, loopback: bool) -> bool {
    let TransportAddr::Ip(socket) = address else { return true };
    let ip = socket.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    socket.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !broadcast
        && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
        && (loopback || !ip.is_loopback())
}

/// Returns true if a dial failed because the other end serves no discovery. TLS has an alert for
/// that (RFC 7301 §3.2, number 120).
pub(crate) fn is_not_served(reason: &str) -> bool {
    reason.contains("error 120") || reason.contains("no application protocol")
}

/// Dials a peer. The error says why that failed. Names that are not resolved within `patience` are
/// left out. The caller limits the time of the whole dial, which begins again with each notice of
/// `again`, and each time that there are more addresses.
pub(crate) async fn dial(
    endpoint: Endpoint,
    (id, mut addresses): (iroh::EndpointId, watch::Receiver<BTreeSet<TransportAddr>>),
    hosts: BTreeSet<Host>,
    patience: Duration,
    transport: QuicTransportConfig,
    again: Arc<Notify>,
    problems: Problems,
) -> Result<Connection, String> {
    loop {
        let mut notice = pin!(again.notified());
        // The notice counts from now on, so that no change is missed.
        notice.as_mut().enable();
        let resolved = resolve_all(&hosts, patience, &problems);
        let address = EndpointAddr::from_parts(id, addresses.borrow_and_update().clone());
        let dial = dial_once(&endpoint, address, resolved, transport.clone());
        tokio::select! {
            dialed = dial => return dialed,
            () = notice => {}
            Ok(()) = addresses.changed() => {}
        }
        debug!(peer = %id.fmt_short(), "dialed again");
    }
}

async fn dial_once(
    endpoint: &Endpoint,
    mut address: EndpointAddr,
    resolved: impl Future<Output = Vec<SocketAddr>>,
    transport: QuicTransportConfig,
) -> Result<Connection, String> {
    address.addrs.extend(resolved.await.into_iter().map(TransportAddr::Ip));
    let options = ConnectOptions::new().with_transport_config(transport);
    let connecting = endpoint
        .connect_with_opts(address, ALPN, options)
        .await
        .map_err(|error| format!("{error:#}"))?;
    connecting.await.map_err(|error| format!("{error:#}"))
}

/// Waits for a dial up to a limit. Only time in which this process runs counts. If a busy machine
/// gave up what it had no time for and began again, that would keep it busy forever.
pub(crate) async fn patiently<T>(limit: Duration, dial: impl Future<Output = T>) -> Option<T> {
    const PARTS: u32 = 20;
    let mut dial = pin!(dial);
    for _ in 0..PARTS {
        if let Ok(dialed) = timeout(limit / PARTS, &mut dial).await {
            return Some(dialed);
        }
    }
    None
}

async fn resolve_all(
    hosts: &BTreeSet<Host>,
    patience: Duration,
    problems: &Problems,
) -> Vec<SocketAddr> {
    let resolved = hosts.iter().map(|host| resolve(host, patience, problems));
    join_all(resolved).await.into_iter().flatten().collect()
}

async fn resolve((host, port): &Host, patience: Duration, problems: &Problems) -> Vec<SocketAddr> {
    let source = format!("bootstrap {host}:{port}");
    let found = timeout(patience, tokio::net::lookup_host((host.as_str(), *port))).await;
    match found.map_err(std::io::Error::from).flatten() {
        Ok(found) => {
            problems.clear(&source);
            found.collect()
        }
        Err(reason) => {
            problems.raise(source, format!("does not resolve: {reason}"));
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;
    use tokio::{
        net::UdpSocket,
        time::{Instant, sleep},
    };

    use super::*;
    use crate::{
        config::Config,
        endpoint::{bind, transport},
    };

    const S: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_dial_is_given_the_time_that_this_process_did_not_run() {
        let limit = Duration::from_millis(100);
        let begin = Instant::now();
        assert_eq!(patiently(limit, std::future::pending::<()>()).await, None);
        assert!(begin.elapsed() >= limit);
        // This task blocks the runtime's only thread most of the time.
        let busy = tokio::spawn(async {
            loop {
                std::thread::sleep(Duration::from_millis(30));
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(patiently(limit, sleep(3 * limit)).await, Some(()));
        busy.abort();
    }

    #[tokio::test]
    async fn a_first_packet_that_is_lost_is_sent_again_well_before_a_second_is_over() {
        let config = Config::local();
        let endpoint = bind(&config, SecretKey::generate()).await.unwrap();
        // Several attempts, because a busy machine may delay some of them.
        let mut delays = Vec::new();
        while delays.len() < 10 && !delays.iter().any(|delay| *delay < Duration::from_millis(800)) {
            let lost = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = TransportAddr::Ip(lost.local_addr().unwrap());
            let (_sender, addresses) = watch::channel(BTreeSet::from([address]));
            let peer = (SecretKey::generate().public(), addresses);
            let transport = transport(&config).unwrap();
            let (again, problems) = (Arc::default(), Problems::default());
            let hosts = BTreeSet::new();
            let dialing = dial(endpoint.clone(), peer, hosts, S, transport, again, problems);
            let dialing = tokio::spawn(timeout(S * 5, dialing));
            let mut packet = [0; 2048];
            let mut arrives =
                async || timeout(S * 30, lost.recv(&mut packet)).await.unwrap().unwrap();
            arrives().await;
            let first = Instant::now();
            // The first flight of a handshake is more than one packet.
            while first.elapsed() < S / 10 {
                arrives().await;
            }
            delays.push(first.elapsed());
            dialing.abort();
        }
        let soonest = delays.iter().min().copied();
        assert!(soonest.is_some_and(|delay| delay < Duration::from_millis(800)), "{delays:?}");
        endpoint.close().await;
    }

    #[test]
    fn announced_addresses_that_can_be_no_peers_are_not_dialed() {
        let plausible = |text: &str, loopback| {
            is_plausible(&TransportAddr::Ip(text.parse().unwrap()), loopback)
        };
        for never in [
            "10.0.0.1:0",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.251:5353",
            "255.255.255.255:9",
            "[ff02::fb]:5353",
            "[::ffff:224.0.0.1]:1",
            "[fe80::1]:1",
        ] {
            assert!(!plausible(never, true), "{never}");
        }
        for own_machine in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(
                plausible(own_machine, true) && !plausible(own_machine, false),
                "{own_machine}"
            );
        }
        for address in ["10.0.0.1:1", "[fd00::1]:1", "8.8.8.8:1"] {
            assert!(plausible(address, false), "{address}");
        }
    }
}
