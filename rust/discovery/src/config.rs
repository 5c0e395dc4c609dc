//! Settings of an endpoint and its topics, and the three presets.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use iroh::RelayUrl;

use crate::{
    advertise::{self, Advertise},
    error::Error,
    proto, relay,
};

/// Most relays of the application's own.
const MAX_RELAYS: usize = 8;

/// Settings of an endpoint and its topics. Start from a preset and change what you need.
///
/// ```
/// use std::time::Duration;
///
/// use iroh_gossip_discovery::Config;
///
/// let mut config = Config::lan();
/// config.mdns = false;
/// assert!(config.validate().is_ok());
/// config.connect_timeout = Duration::ZERO;
/// assert_eq!(
///     config.validate().unwrap_err().to_string(),
///     "connect_timeout must be 100 ms to 60 s"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Timers and limits of the protocol, for each topic.
    pub protocol: proto::Config,
    /// Local UDP addresses to bind, at most one for IPv4 and one for IPv6. Port 0 takes a free
    /// port; with a state directory that of last time, if it is free. `[::]` is left out if the
    /// machine has no IPv6.
    pub bind: Vec<SocketAddr>,
    /// Which addresses to announce, to prefer, or to leave out: at most 64 entries that name at
    /// most 8 addresses. If it is empty, the addresses of the default route's interface come first,
    /// then those that others are likely to reach.
    pub advertise: Vec<Advertise>,
    /// Whether to find members in the local network by multicast DNS.
    pub mdns: bool,
    /// Whether to use relays if no direct path is found: iroh's own, unless `relay_urls` names
    /// others.
    pub relay: bool,
    /// Relays of the application's own, at most 8. They need `relay`.
    pub relay_urls: Vec<RelayUrl>,
    /// Certificates in PEM, at most 64 KiB, that relays may show or that have signed theirs, beside
    /// those of the public authorities. Only with `relay`. `None`: the public ones alone.
    pub relay_ca: Option<String>,
    /// Whether to publish and look up addresses in iroh's DNS.
    pub dns: bool,
    /// How many events a slow subscriber may lag behind. 1 to 1,000,000; default 4,096.
    pub event_buffer: usize,
    /// How many messages a slow subscriber may lag behind, and never more than 16 MiB of them. 1 to
    /// 1,000,000; default 1,024.
    pub message_buffer: usize,
    /// A link counts as lost after this time without a packet. 500 ms to 10 min; default 9 s, local
    /// 3 s.
    pub idle_timeout: Duration,
    /// The interval of the packets that keep an idle link alive. 100 ms to half of `idle_timeout`;
    /// default 3 s, local 1 s.
    pub keep_alive: Duration,
    /// A dial fails after this time. 100 ms to 60 s; default 5 s, local 2 s.
    pub connect_timeout: Duration,
}

impl Default for Config {
    /// Returns [`Config::lan`].
    fn default() -> Self {
        Self::lan()
    }
}

impl Config {
    /// Settings for this machine only, for tests and demos: the loopback interface, no mDNS, fast
    /// timers.
    #[must_use]
    pub fn local() -> Self {
        Self {
            protocol: proto::Config::local(),
            bind: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            mdns: false,
            idle_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            ..Self::lan()
        }
    }

    /// Settings for the local network and all that is directly reachable from it: all interfaces
    /// and mDNS, but no server of a third party. This is the default.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            protocol: proto::Config::default(),
            bind: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            advertise: Vec::new(),
            mdns: true,
            relay: false,
            relay_urls: Vec::new(),
            relay_ca: None,
            dns: false,
            event_buffer: 4096,
            message_buffer: 1024,
            idle_timeout: Duration::from_secs(9),
            keep_alive: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// Settings for nodes anywhere: as `lan`, with the relays, the DNS lookup and the hole punching
    /// that iroh offers.
    #[must_use]
    pub fn internet() -> Self {
        let protocol = proto::Config::internet();
        let connect_timeout = Duration::from_secs(10);
        Self { protocol, relay: true, dns: true, connect_timeout, ..Self::lan() }
    }

    /// Checks every field against its limits, those of `protocol` included.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the first field outside its limits.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |field, ok: bool, reason: &str| {
            if ok { Ok(()) } else { Err(Error::invalid(field, reason)) }
        };
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let of_family = |v4| self.bind.iter().filter(|a| a.is_ipv4() == v4).count();
        self.protocol.validate()?;
        check("bind", !self.bind.is_empty(), "must name at least one address")?;
        check(
            "bind",
            of_family(true) <= 1 && of_family(false) <= 1,
            "must name at most one IPv4 and one IPv6 address",
        )?;
        check(
            "bind",
            !self.bind.iter().any(|address| address.ip().is_multicast()),
            "must not name a multicast address",
        )?;
        let link_local =
            |at: &SocketAddr| matches!(at, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
        check(
            "bind",
            !self.bind.iter().any(link_local),
            "must not name an IPv6 link-local address: nobody can dial it without its interface",
        )?;
        advertise::check(&self.advertise, &self.bind)?;
        check("relay_urls", self.relay_urls.len() <= MAX_RELAYS, "has a limit of 8 relays")?;
        check(
            "relay_urls",
            self.relay || self.relay_urls.is_empty(),
            "are given, but relay is off",
        )?;
        check(
            "relay_urls",
            self.relay_urls.iter().all(|url| url.as_str().len() <= proto::MAX_RELAY_URL),
            "has a URL of more than 128 bytes",
        )?;
        if let Some(pem) = &self.relay_ca {
            check("relay_ca", self.relay, "is given, but relay is off")?;
            relay::authorities(pem)?;
        }
        check(
            "event_buffer",
            (1..=1_000_000).contains(&self.event_buffer),
            "must be 1 to 1,000,000 events",
        )?;
        check(
            "message_buffer",
            (1..=1_000_000).contains(&self.message_buffer),
            "must be 1 to 1,000,000 messages",
        )?;
        check(
            "idle_timeout",
            (ms(500)..=s(600)).contains(&self.idle_timeout),
            "must be 500 ms to 10 min",
        )?;
        check(
            "keep_alive",
            (ms(100)..=self.idle_timeout / 2).contains(&self.keep_alive),
            "must be 100 ms to half of idle_timeout",
        )?;
        check(
            "connect_timeout",
            (ms(100)..=s(60)).contains(&self.connect_timeout),
            "must be 100 ms to 60 s",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        for config in [Config::local(), Config::lan(), Config::internet()] {
            config.validate().unwrap();
        }
        assert_eq!(Config::default(), Config::lan());
    }

    #[test]
    fn an_error_names_the_field() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 13] = [
            ("capacity", |c| c.protocol.capacity = 0),
            ("bind", |c| c.bind.clear()),
            ("bind", |c| {
                c.bind = vec!["10.0.0.1:0".parse().unwrap(), "10.0.0.2:0".parse().unwrap()];
            }),
            ("relay_urls", |c| c.relay_urls = vec!["https://relay.example".parse().unwrap()]),
            ("relay_ca", |c| c.relay_ca = Some(String::new())),
            ("relay_ca", |c| (c.relay, c.relay_ca) = (true, Some("no certificate".into()))),
            ("event_buffer", |c| c.event_buffer = 0),
            ("message_buffer", |c| c.message_buffer = 1_000_001),
            ("idle_timeout", |c| c.idle_timeout = Duration::ZERO),
            ("keep_alive", |c| c.keep_alive = c.idle_timeout),
            ("connect_timeout", |c| c.connect_timeout = Duration::from_secs(61)),
            ("bind", |c| c.bind = vec!["224.0.0.1:0".parse().unwrap()]),
            ("bind", |c| c.bind = vec!["[fe80::1%2]:0".parse().unwrap()]),
        ];
        for (field, change) in cases {
            let mut config = Config::lan();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(matches!(&error, Error::Invalid { field: f, .. } if *f == field), "{error}");
        }
    }
}
