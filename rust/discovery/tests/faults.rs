//! The faults for tests: endpoints that are barred from each other, and later no longer are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeSet, sync::Arc};

use iroh_gossip_discovery::{Bootstrap, Error, Event, LostReason, RunningNode, Subscription};

use common::{Nodes, eventually, full};

fn bar(nodes: &[&Arc<RunningNode>], from: &[&Arc<RunningNode>]) {
    for node in nodes {
        node.discovery.bar(from.iter().map(|other| other.swarm.id()).collect());
    }
}

/// Waits for an event, among those seen before and those that come.
async fn until(
    (events, seen): (&mut Subscription, &mut Vec<Event>),
    what: &str,
    wanted: impl Fn(&Event) -> bool,
) {
    eventually(what, || {
        seen.extend(events.drain(64));
        seen.iter().any(&wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn barred_endpoints_lose_each_other_and_nobody_else_and_find_each_other_again() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let ticket = Bootstrap::Ticket(alice.swarm.ticket());
    let bob = nodes.start("bob", std::slice::from_ref(&ticket)).await;
    let carol = nodes.start("carol", std::slice::from_ref(&ticket)).await;
    let all = [alice.clone(), bob.clone(), carol.clone()];
    eventually("they know each other", || full(&all)).await;
    let (mut events, mut seen) = (carol.swarm.subscribe().1, Vec::new());

    bar(&[&alice, &bob], &[&carol]);
    bar(&[&carol], &[&alice, &bob]);
    assert!(full(&all), "the rule alone cuts no link");
    for node in &all {
        node.discovery.sever().await;
    }
    for node in [&alice, &bob] {
        let sent = node.swarm.send(carol.swarm.id(), "hello").await;
        assert!(matches!(sent, Err(Error::PeerUnreachable { .. })), "{sent:?}");
        let sent = carol.swarm.send(node.swarm.id(), "hello").await;
        assert!(matches!(sent, Err(Error::PeerUnreachable { .. })), "{sent:?}");
    }
    let pair = [alice.clone(), bob.clone()];
    eventually("the two lose the third", || full(&pair)).await;
    until((&mut events, &mut seen), "the third is isolated", |event| {
        matches!(event, Event::Isolated)
    })
    .await;
    for other in &pair {
        let id = other.swarm.id();
        until((&mut events, &mut seen), "the third loses them", |event| {
            matches!(event, Event::PeerLost(peer, LostReason::Unreachable) if peer.id == id)
        })
        .await;
    }

    for node in &all {
        node.discovery.bar(BTreeSet::new());
    }
    eventually("they know each other again", || full(&all)).await;
    until((&mut events, &mut seen), "the third is linked again", |event| {
        matches!(event, Event::Reconnected)
    })
    .await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_end_that_is_barred_keeps_both_from_a_link() {
    for barred in 0..2 {
        let mut nodes = Nodes::default();
        let alice = nodes.start("alice", &[]).await;
        let bob = nodes.start("bob", &[]).await;
        let pair = [&alice, &bob];
        bar(&[pair[barred]], &[pair[1 - barred]]);
        let ticket = Bootstrap::Ticket(alice.swarm.ticket());
        bob.swarm.add_bootstrap(vec![ticket]).await.unwrap();
        let sent = bob.swarm.send(alice.swarm.id(), "hello").await;
        assert!(matches!(sent, Err(Error::PeerUnreachable { .. })), "{sent:?}");
        assert!(alice.swarm.book().is_empty() && bob.swarm.book().is_empty());
        nodes.close().await;
    }
}
