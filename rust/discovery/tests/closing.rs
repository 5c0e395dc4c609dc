//! A close takes a bounded time, whatever the peers do.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use common::{Nodes, eventually, full, node};
use futures_util::StreamExt;
use iroh_gossip_discovery::{Bootstrap, Config, EndpointId, Event};

/// The time that `RunningNode::close` promises, and one second more for a busy machine. Without the
/// bounds it takes 3.1 s for a peer that does not answer, and 5 s for one that is being dialed.
fn promised() -> Duration {
    Config::local().protocol.leave_timeout + Duration::from_secs(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_abandons_dials() {
    // A socket that is bound and never answers.
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    mute.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let nobody = Bootstrap::Host {
        id: EndpointId::from(iroh::SecretKey::generate().public()),
        host: "127.0.0.1".into(),
        port: mute.local_addr().unwrap().port(),
    };
    let node = node("alone").bootstrap(vec![nobody]).build().await.unwrap();
    let dialed = tokio::task::spawn_blocking(move || {
        mute.recv(&mut [0; 2000]).unwrap();
        mute
    });
    let _mute = dialed.await.unwrap();
    let start = Instant::now();
    node.close().await;
    assert!(start.elapsed() < promised(), "{:?}", start.elapsed());
    node.close().await;
    assert!(start.elapsed() < 2 * promised(), "{:?}", start.elapsed());
}

/// Each close comes amid dials between the nodes that are left, and dials to those that just
/// closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_close_one_after_another_take_no_longer() {
    for _ in 0..8 {
        let mut nodes = Nodes::default();
        let seed = nodes.start("0", &[]).await;
        let mut all = vec![seed.clone()];
        for n in 1..10 {
            all.push(nodes.start(&n.to_string(), &[seed.swarm.ticket().into()]).await);
        }
        eventually("all know each other", || full(&all)).await;
        for node in all.iter().rev() {
            let close = tokio::time::timeout(promised(), node.close());
            assert!(close.await.is_ok(), "{} does not close", node.swarm.me().profile.name);
        }
    }
}

/// A node that closes may have lost its only link a moment ago, or may be about to be dialed. Its
/// goodbye must arrive all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_needs_no_link_that_is_already_there() {
    for round in 0..20 {
        let mut nodes = Nodes::default();
        let alice = nodes.start("alice", &[]).await;
        let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
        eventually("alice knows bob", || alice.swarm.book().contains(&bob.swarm.id())).await;
        let charlie = nodes.start("charlie", &[bob.swarm.ticket().into()]).await;
        let (_, mut seen) = alice.swarm.subscribe();
        let ids = [&bob, &charlie].map(|node| node.swarm.id());
        eventually("alice knows charlie, and he her", || {
            alice.swarm.book().contains(&ids[1]) && charlie.swarm.book().contains(&alice.swarm.id())
        })
        .await;
        bob.close().await;
        charlie.close().await;
        let mut left = Vec::new();
        while left.len() < 2 {
            let event = tokio::time::timeout(common::PATIENCE, seen.next()).await;
            match event.expect("both are gone").expect("alice is there") {
                Event::PeerLeft(peer) => left.push(peer.id),
                Event::PeerLost(peer, reason) => {
                    panic!("round {round}: {} is lost, {reason:?}", peer.profile.name)
                }
                _ => {}
            }
        }
        assert!(ids.iter().all(|id| left.contains(id)));
        nodes.close().await;
    }
}
