//! The names of release 0.6.0: a topic in two halves.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Nodes, eventually, node};
use futures_util::StreamExt;
use iroh_gossip_discovery::{Event, Node, Profile};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_halves_announce_and_hear() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.build(node("bob").with_expiration_timeout(Duration::from_secs(77))).await;
    let (sender, _) = bob.swarm.clone().split();
    sender.add_peer(alice.swarm.ticket()).await.unwrap();
    // As in 0.6.0, which took ids of iroh.
    sender.add_peer(alice.endpoint.id()).await.unwrap();
    sender.add_peers(vec![alice.swarm.id().into()]).await.unwrap();
    eventually("alice knows bob", || !alice.swarm.book().is_empty()).await;
    let (_, mut heard) = alice.swarm.clone().split();

    eventually("they are neighbors", || heard.neighbors().contains(&bob.swarm.id())).await;
    let first = timeout(common::PATIENCE, heard.next()).await.unwrap().unwrap();
    assert!(matches!(first, Event::PeerJoined(peer) if peer.profile.name == "bob"), "who is known");
    let before = sender.node();
    assert_eq!((before.name.as_str(), before.node_id), ("bob", bob.swarm.id()));
    sender.announce(Profile::new("robert")).await.unwrap();
    let changed = timeout(common::PATIENCE, heard.next()).await.unwrap().unwrap();
    let Event::PeerUpdated(record) = changed else { panic!("{changed:?}") };
    let after = Node::from(&*record);
    assert_eq!((after.name.as_str(), after.node_id), ("robert", bob.swarm.id()));
    assert!(after.count > before.count);

    let [(known, info)] = heard.nodes().try_into().unwrap();
    assert_eq!((known, info.node_id), (after, bob.swarm.id()));
    assert!(info.last_seen <= Instant::now());
    assert_eq!(info.expires - info.last_seen, Duration::from_secs(77));

    bob.close().await;
    let mut rest = Vec::new();
    while !matches!(rest.last(), Some(Event::PeerLeft(_))) {
        rest.push(timeout(common::PATIENCE, heard.next()).await.unwrap().unwrap());
    }
    assert!(heard.nodes().is_empty() && heard.book().is_empty());
    eventually("bob is no neighbor any more", || heard.neighbors().is_empty()).await;
    nodes.close().await;
    while timeout(common::PATIENCE, heard.next()).await.unwrap().is_some() {}
}
