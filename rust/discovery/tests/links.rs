//! One link for each pair of nodes, however they came to dial each other.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{Nodes, eventually, full, node};
use iroh::SecretKey;
use iroh_gossip_discovery::{Bootstrap, Config, EndpointId, Metrics};

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_dials_end_in_one_link_on_both_sides() {
    const PAIRS: usize = 8;
    common::log();
    let pairs: Vec<_> = (0..PAIRS).map(|_| tokio::spawn(dial_each_other())).collect();
    let mut opened = Vec::new();
    for pair in pairs {
        opened.push(pair.await.unwrap());
    }
    println!("links that each pair opened: {opened:?}");
    // If the ends did not choose the same link, each would close the one that the other keeps, and
    // dial again. On a busy machine a few pairs may dial again because a dial took too long.
    let double = opened.iter().filter(|opened| **opened > 1).count();
    let settled = opened.iter().filter(|opened| **opened == 2).count();
    assert!(double > 0, "the test must meet the case");
    assert!(2 * settled > double, "of two links one stays, and none is dialed again");
}

/// A probe, its answer and the comparisons of books would be more than two frames for each
/// interval.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbor_that_is_there_says_so_by_the_acknowledgement_of_a_keepalive() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let ticket = Bootstrap::Ticket(alice.swarm.ticket());
    let bob = nodes.start("bob", &[ticket]).await;
    let pair = [alice, bob];
    eventually("they know each other", || full(&pair)).await;
    let count = || {
        let metrics = pair.each_ref().map(|node| node.swarm.metrics());
        let probes: u64 = metrics.iter().map(|metrics| metrics.protocol.probes).sum();
        (probes, metrics.iter().map(|metrics| metrics.frames_sent).sum::<u64>())
    };
    // Waits until the first comparisons of the books are over, which come close together.
    eventually("it is quiet", || count().0 >= 10).await;
    let (probes, frames) = count();
    eventually("thirty probes", || count().0 >= probes + 30).await;
    let (more, sent) = (count().0 - probes, count().1 - frames);
    assert!(sent < 2 * more, "{sent} frames for {more} probes");
    nodes.close().await;
}

/// Starts a pair that dial each other, and returns how many links they opened.
async fn dial_each_other() -> u64 {
    let keys = [SecretKey::generate(), SecretKey::generate()];
    let ports = [free_port(), free_port()];
    let seed = |n: usize| Bootstrap::Host {
        id: EndpointId::from(keys[n].public()),
        host: "127.0.0.1".into(),
        port: ports[n],
    };
    let start = |n: usize| {
        let mut config = Config::local();
        config.bind = vec![([127, 0, 0, 1], ports[n]).into()];
        node("x").secret_key(keys[n].clone()).config(config).bootstrap(vec![seed(1 - n)]).build()
    };
    let (a, b) = tokio::join!(tokio::spawn(start(0)), tokio::spawn(start(1)));
    let pair = [Arc::new(a.unwrap().unwrap()), Arc::new(b.unwrap().unwrap())];
    eventually("both know each other", || full(&pair)).await;
    // Changes arrive in both directions, whichever link carries them.
    for (n, node) in pair.iter().enumerate() {
        let mut profile = node.swarm.me().profile.clone();
        profile.name = format!("node {n}");
        node.swarm.set_profile(profile.clone()).await.unwrap();
        eventually("the change arrives", || {
            let book = pair[1 - n].swarm.book();
            book.get(&node.swarm.id()).is_some_and(|seen| seen.profile == profile)
        })
        .await;
    }
    // On a busy machine the second dial may end only now, so none may be under way. Each dial that
    // succeeded is a link at both ends.
    let settled = || {
        let metrics = pair.each_ref().map(|node| node.swarm.metrics());
        let sum = |of: fn(&Metrics) -> u64| metrics.iter().map(of).sum::<u64>();
        sum(|metrics| metrics.links_opened)
            == 2 * sum(|metrics| metrics.dials - metrics.dials_failed)
            && metrics.iter().all(|metrics| metrics.links == 1)
    };
    eventually("one link is left on both sides", settled).await;
    let opened = pair[0].swarm.metrics().links_opened;
    for node in pair {
        node.close().await;
    }
    opened
}
