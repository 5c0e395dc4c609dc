//! Binds an iroh endpoint by the settings, and sets how its links behave.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use iroh::{
    Endpoint, NetReportConfig, SecretKey,
    address_lookup::{DnsAddressLookup, PkarrPublisher, PkarrResolver},
    endpoint::{BindError, BindOpts, PortmapperConfig, QuicTransportConfig, VarInt, presets},
    tls::CaTlsConfig,
};

use socket2::{Domain, Socket, Type};
use tracing::warn;

use crate::{
    config::Config,
    error::Error,
    link::handle::{FIRST_WINDOW, MAX_BIDI_STREAMS},
    relay,
};

/// Fails if an address is taken, or is not of this machine.
///
/// The sockets are closed again at once: the check only gives an early error, before anything else
/// opens.
pub(crate) fn probe(addresses: &[SocketAddr]) -> Result<(), Error> {
    for address in addresses.iter().filter(|address| !is_optional(address)) {
        UdpSocket::bind(address).map_err(|source| Error::Bind { address: *address, source })?;
    }
    Ok(())
}

/// Returns true for `[::]`, which is bound only if the machine has IPv6. It is not probed: a plain
/// socket would be bound for IPv4 as well, and would collide where iroh's socket does not.
fn is_optional(address: &SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// Binds as [`bind`] does. If no port is given, the port of last time is bound, if it is free.
pub(crate) async fn bind_again(
    config: &Config,
    key: SecretKey,
    last: &[SocketAddr],
) -> Result<Endpoint, Error> {
    let bind_to: Vec<_> = config.bind.iter().map(|address| again(*address, last)).collect();
    if bind_to != config.bind {
        let config = Config { bind: bind_to, ..config.clone() };
        // Another process may have been quicker. iroh goes on without IPv6 then.
        if let Ok(endpoint) = bind(&config, key.clone()).await {
            let bound = endpoint.bound_sockets();
            if config.bind.iter().all(|wanted| wanted.port() == 0 || bound.contains(wanted)) {
                return Ok(endpoint);
            }
            endpoint.close().await;
        }
        warn!(ports = ?config.bind, "the ports of last time were taken just now: others are bound");
    }
    bind(config, key).await
}

/// The address with the port of last time, if none is given and that one is free.
fn again(address: SocketAddr, last: &[SocketAddr]) -> SocketAddr {
    let of_family = |other: &&SocketAddr| other.is_ipv4() == address.is_ipv4();
    let Some(last) = last.iter().find(of_family).filter(|_| address.port() == 0) else {
        return address;
    };
    let wanted = SocketAddr::new(address.ip(), last.port());
    match try_bind(&wanted) {
        Ok(()) => wanted,
        // No IPv6 here, as last time or not.
        Err(_) if is_optional(&address) && try_bind(&address).is_err() => address,
        Err(error) => {
            let port = wanted.port();
            warn!(port, reason = %error, "the port of last time is not free: another is bound");
            address
        }
    }
}

/// Binds an address as iroh does, and lets it go.
fn try_bind(address: &SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&(*address).into())
}

/// Binds an endpoint. It serves nothing yet.
pub(crate) async fn bind(config: &Config, key: SecretKey) -> Result<Endpoint, Error> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .relay_mode(relay::mode(config.relay, &config.relay_urls))
        .transport_config(transport_of_accepted(config)?)
        .clear_ip_transports();
    if let Some(pem) = &config.relay_ca {
        let roots = relay::authorities(pem)?;
        builder = builder.ca_tls_config(CaTlsConfig::embedded().with_extra_roots(roots));
    }
    if !config.relay {
        builder = builder
            .portmapper_config(PortmapperConfig::Disabled)
            .net_report_config(NetReportConfig::minimal());
    }
    if config.dns {
        builder = builder
            .address_lookup(PkarrPublisher::n0_dns())
            .address_lookup(PkarrResolver::n0_dns())
            .address_lookup(DnsAddressLookup::n0_dns());
    }
    for address in &config.bind {
        let options = BindOpts::default().set_is_required(!is_optional(address));
        builder = builder
            .bind_addr_with_opts(*address, options)
            .map_err(|error| Error::invalid("bind", format!("{address}: {error}")))?;
    }
    builder.bind().await.map_err(|error| bind_error(error, &config.bind))
}

/// Most bytes on their way to a peer that has not acknowledged them. QUIC's usual 10 MB would be
/// held for each peer that has stopped. This is enough for 20 MB/s at a round trip of 50 ms.
const SEND_WINDOW: u64 = 1024 * 1024;

/// The round trip that a link assumes until it has measured one. If the first packet is lost, it is
/// sent again after three of these, 0.3 s, as Chromium does. RFC 9002 §6.2.2 suggests 333 ms for
/// unknown networks, which makes a second. The simulator uses the same value (`FIRST_TIMEOUT`).
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// The settings of an accepted link. This end sends keep-alives only if the end that dialed does
/// not, which halves what an idle link costs.
fn transport_of_accepted(config: &Config) -> Result<QuicTransportConfig, Error> {
    transport(&Config { keep_alive: config.keep_alive * 5 / 3, ..config.clone() })
}

/// The settings of a dialed link: keep-alives, and the idle timeout that finds a dead link.
///
/// Path MTU discovery is off. It would double the bytes of opening a link (24 kB instead of 12 kB),
/// and that is most of what a link ever carries.
pub(crate) fn transport(config: &Config) -> Result<QuicTransportConfig, Error> {
    let idle = config
        .idle_timeout
        .try_into()
        .map_err(|_| Error::invalid("idle_timeout", "is more than QUIC allows"))?;
    Ok(QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(config.keep_alive)
        .default_path_max_idle_timeout(config.idle_timeout)
        .default_path_keep_alive_interval(config.keep_alive)
        .mtu_discovery_config(None)
        .initial_rtt(INITIAL_ROUND_TRIP)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_BIDI_STREAMS))
        .send_window(SEND_WINDOW)
        .receive_window(VarInt::from_u32(FIRST_WINDOW))
        .build())
}

fn bind_error(error: BindError, addresses: &[SocketAddr]) -> Error {
    // iroh does not say which address failed, so the system is asked again.
    match (error, probe(addresses)) {
        (BindError::Sockets { .. }, Err(taken)) => taken,
        (BindError::Sockets { source, .. }, Ok(())) => {
            let address = addresses.first().copied().unwrap_or(([0, 0, 0, 0], 0).into());
            Error::Bind { address, source }
        }
        (other, _) => Error::Endpoint(format!("{other:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let config = Config { bind: vec![address], ..Config::local() };
        let probed = probe(&config.bind).unwrap_err();
        let bound = bind(&config, SecretKey::generate()).await.unwrap_err();
        for error in [probed, bound] {
            assert!(error.to_string().contains(&address.to_string()), "{error}");
            assert!(matches!(error, Error::Bind { address: a, .. } if a == address));
        }
    }

    #[tokio::test]
    async fn the_ports_of_last_time_are_bound_again_if_they_are_free() {
        let config = Config { mdns: false, ..Config::lan() };
        // Another program of this machine may take a port as soon as it is free.
        for attempt in 0.. {
            let first = bind(&config, SecretKey::generate()).await.unwrap();
            let last = first.bound_sockets();
            first.close().await;
            drop(first);
            let again = bind_again(&config, SecretKey::generate(), &last).await.unwrap();
            if again.bound_sockets() != last && attempt < 10 {
                again.close().await;
                continue;
            }
            assert_eq!(again.bound_sockets(), last);
            let other = bind_again(&config, SecretKey::generate(), &last).await.unwrap();
            assert!(!other.bound_sockets().is_empty());
            assert!(other.bound_sockets().iter().all(|address| !last.contains(address)));
            again.close().await;
            other.close().await;
            break;
        }
    }

    #[tokio::test]
    async fn a_local_endpoint_has_its_address_at_once() {
        let endpoint = bind(&Config::local(), SecretKey::generate()).await.unwrap();
        let addresses: Vec<_> = endpoint.addr().ip_addrs().copied().collect();
        assert!(!addresses.is_empty() && addresses.iter().all(|a| a.ip().is_loopback()));
        endpoint.close().await;
    }
}
