//! The addresses behind a name, which are resolved again each time.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use n0_dns_resolver::DnsResolver;
use tokio::{net::lookup_host, time::timeout};

use super::{Kind, Name};

/// A name that is not resolved within this time is tried again later.
const LIMIT: Duration = Duration::from_secs(10);
/// Most targets of a service that are resolved.
const MAX_TARGETS: usize = 64;

/// Resolves a name. The error says why there is no address.
pub(crate) async fn resolve(name: &Name) -> Result<BTreeSet<SocketAddr>, String> {
    let found = match &name.0 {
        Kind::Host(host, port) => timeout(LIMIT, addresses(host, *port)).await,
        Kind::Service(service) => timeout(LIMIT, service_addresses(service)).await,
    };
    let found = found.map_err(|_| "no answer from the name server".to_owned()).flatten();
    match found {
        Ok(found) if found.is_empty() => Err("does not resolve: it has no address".into()),
        Ok(found) => Ok(found),
        Err(reason) => Err(format!("does not resolve: {reason}")),
    }
}

/// Resolves a host by the system's resolver, which also reads its files, and notices changes in
/// them.
async fn addresses(host: &str, port: u16) -> Result<BTreeSet<SocketAddr>, String> {
    let found = lookup_host((host, port)).await.map_err(|error| error.to_string())?;
    Ok(found
        .map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()))
        .filter(is_useful)
        .collect())
}

async fn service_addresses(service: &str) -> Result<BTreeSet<SocketAddr>, String> {
    // Only the system's name servers are asked, no third party's. They are read each time.
    let resolver = DnsResolver::builder().use_system_config().build();
    let mut records = resolver.lookup_srv(service).await.map_err(|error| format!("{error:#}"))?;
    records.sort_by_key(|record| record.priority);
    records.truncate(MAX_TARGETS);
    // A target of "." says that there is no such service.
    let targets = records.iter().filter(|record| record.port != 0 && record.target != ".");
    let found = join_all(targets.map(async |record| {
        let host = record.target.trim_end_matches('.').to_owned();
        addresses(&host, record.port).await.map_err(|reason| format!("{host}: {reason}"))
    }))
    .await;
    let mut all = BTreeSet::new();
    let mut why = None;
    for found in found {
        match found {
            Ok(found) => all.extend(found),
            Err(reason) => why = Some(reason),
        }
    }
    match why {
        Some(reason) if all.is_empty() => Err(reason),
        _ => Ok(all),
    }
}

fn is_useful(address: &SocketAddr) -> bool {
    !matches!(address.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local())
}
