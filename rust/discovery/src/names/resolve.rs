//! The addresses behind a name, which are resolved again each time.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use n0_dns_resolver::DnsResolver;
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};

use super::{Kind, Name};

/// A name that is not resolved within this time is tried again later.
const LIMIT: Duration = Duration::from_secs(10);
/// A name server that was down is back sooner than a resolver asks it again: without an answer for
/// this time the question is asked again beside the one that waits, [`QUESTIONS`] times in all.
const ASK_AGAIN: Duration = Duration::from_millis(2500);
const QUESTIONS: usize = 3;
/// Most targets of a service that are resolved.
const MAX_TARGETS: usize = 64;

/// Resolves a name. The error says why there is no address.
pub(crate) async fn resolve(name: &Name) -> Result<BTreeSet<SocketAddr>, String> {
    let found = timeout(LIMIT, first_answer(|| ask(name))).await;
    let found = found.map_err(|_| "no answer from the name server".to_owned()).flatten();
    match found {
        Ok(found) if found.is_empty() => Err("does not resolve: it has no address".into()),
        Ok(found) => Ok(found),
        Err(reason) => Err(format!("does not resolve: {reason}")),
    }
}

async fn ask(name: &Name) -> Result<BTreeSet<SocketAddr>, String> {
    match &name.0 {
        Kind::Host(host, port) => addresses(host, *port).await,
        Kind::Service(service) => service_addresses(service).await,
    }
}

/// Asks, and asks again beside that if no answer comes. Returns the first answer.
async fn first_answer<T, A: Future<Output = T>>(ask: impl Fn() -> A) -> T {
    let mut asked: FuturesUnordered<_> = std::iter::once(ask()).collect();
    loop {
        tokio::select! {
            Some(answer) = asked.next() => return answer,
            () = sleep(ASK_AGAIN), if asked.len() < QUESTIONS => asked.push(ask()),
        }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_lost_is_asked_again_before_the_resolver_gives_up() {
        let begin = tokio::time::Instant::now();
        let asked = Cell::new(0);
        let answer = first_answer(async || {
            asked.set(asked.get() + 1);
            let takes = if asked.get() == 1 { LIMIT } else { Duration::ZERO };
            sleep(takes).await;
            asked.get()
        });
        assert_eq!(answer.await, 2);
        assert_eq!(begin.elapsed(), ASK_AGAIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_is_down_has_a_few_questions_at_a_time() {
        let asked = Cell::new(0);
        let answer = first_answer(|| {
            asked.set(asked.get() + 1);
            std::future::pending::<()>()
        });
        assert!(timeout(LIMIT, answer).await.is_err());
        assert_eq!(asked.get(), QUESTIONS);
    }
}
