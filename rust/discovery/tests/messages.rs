//! Messages between real nodes: a direct one is delivered once to its receiver, or refused with a
//! reason. A broadcast reaches all others once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::join_all};
use iroh_gossip_discovery::{
    Bootstrap, Config, EndpointId, Error, Event, Message, MessageEvent, MessageKind, Messages,
    RunningNode,
};
use tokio::time::timeout;

use common::{Nodes, PATIENCE, eventually, full, metadata, node};

const LIMIT: usize = 64 * 1024;

async fn pair(nodes: &mut Nodes) -> [Arc<RunningNode>; 2] {
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[Bootstrap::Ticket(alice.swarm.ticket())]).await;
    let pair = [alice, bob];
    eventually("they know each other", || full(&pair)).await;
    pair
}

async fn next(messages: &mut Messages) -> Message {
    match timeout(PATIENCE, messages.next()).await.unwrap().unwrap() {
        MessageEvent::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_arrives_with_its_authenticated_sender_and_its_receipt() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut inbox = [bob.swarm.messages(), bob.swarm.messages()];
    for data in [Bytes::new(), Bytes::from_static(b"hello"), Bytes::from(vec![7; LIMIT])] {
        let receipt = alice.swarm.send(bob.swarm.id(), data.clone()).await.unwrap();
        assert_eq!(receipt.peer, bob.swarm.id());
        for inbox in &mut inbox {
            // Once there is a receipt, the message is in the queue already.
            let got = inbox.next().now_or_never().unwrap().unwrap();
            let (sender, kind) = (alice.swarm.id(), MessageKind::Direct);
            let MessageEvent::Message(got) = got else { panic!("{got:?}") };
            assert_eq!((got.sender, got.channel, got.kind), (sender, None, kind));
            assert_eq!(got.data, data);
        }
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_delivered_is_an_error_that_says_why() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let peer = bob.swarm.id();

    let before = alice.swarm.metrics().bytes_sent;
    let error = alice.swarm.send(peer, vec![0; LIMIT + 1]).await.unwrap_err();
    assert!(matches!(error, Error::MessageTooLarge { size: 65_537, limit: LIMIT }), "{error}");
    assert!(alice.swarm.metrics().bytes_sent < before + 60_000, "it was sent all the same");

    let error = alice.swarm.send(peer, "anybody?").await.unwrap_err();
    assert!(matches!(error, Error::NoSubscriber { peer: p } if p == peer), "{error}");
    // A dropped subscription counts no more.
    let inbox = bob.swarm.messages();
    alice.swarm.send(peer, "now").await.unwrap();
    drop(inbox);
    let error = alice.swarm.send(peer, "and now?").await.unwrap_err();
    assert!(matches!(error, Error::NoSubscriber { .. }), "{error}");

    let error = alice.swarm.send(alice.swarm.id(), "me").await.unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "peer", .. }), "{error}");

    let nobody = EndpointId::from(iroh::SecretKey::generate().public());
    let error = alice.swarm.send(nobody, "hello").await.unwrap_err();
    assert!(matches!(&error, Error::PeerUnreachable { peer, .. } if *peer == nobody), "{error}");
    let error = alice.swarm.send(EndpointId::from_bytes([2; 32]), "hello").await.unwrap_err();
    assert!(error.to_string().contains("its id is no public key"), "{error}");

    bob.close().await;
    let error = alice.swarm.send(peer, "too late").await.unwrap_err();
    assert!(matches!(error, Error::PeerUnreachable { .. }), "{error}");
    alice.close().await;
    let error = alice.swarm.send(peer, "myself").await.unwrap_err();
    assert!(matches!(error, Error::Closed), "{error}");
    assert_eq!(alice.swarm.messages().next().await, None);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_delivered_once_and_in_the_order_in_which_it_was_awaited() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let (mut of_bob, mut of_alice) = (bob.swarm.messages(), alice.swarm.messages());
    let (id_of_alice, id_of_bob) = (alice.swarm.id(), bob.swarm.id());
    for n in 0..300_u32 {
        alice.swarm.send(id_of_bob, n.to_be_bytes().to_vec()).await.unwrap();
    }
    for n in 0..300_u32 {
        assert_eq!(next(&mut of_bob).await.data, n.to_be_bytes().to_vec());
    }
    // Far more messages at a time than may wait for an answer, in both directions.
    let both = (0..900_u32).flat_map(|n| {
        let data = n.to_be_bytes().to_vec();
        [alice.swarm.send(id_of_bob, data.clone()), bob.swarm.send(id_of_alice, data)]
    });
    for receipt in join_all(both).await {
        receipt.unwrap();
    }
    for inbox in [&mut of_bob, &mut of_alice] {
        let got: Vec<_> = inbox.drain(2000);
        let distinct: BTreeSet<_> = got
            .iter()
            .map(|message| match message {
                MessageEvent::Message(message) => message.data.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!((got.len(), distinct.len()), (900, 900));
    }
    nodes.close().await;
}

/// Starts nodes that keep few links, and none of them for long.
async fn sparse(nodes: &mut Nodes, count: usize) -> Vec<Arc<RunningNode>> {
    let mut config = Config::local();
    config.protocol.neighbors = 1;
    config.protocol.link_idle = Duration::from_millis(100);
    // No probes here, so that links close only because they are idle.
    config.protocol.probe_interval = Duration::from_mins(10);
    let mut all: Vec<Arc<RunningNode>> = Vec::new();
    for n in 0..count {
        let first = all.first().map(|node| Bootstrap::Ticket(node.swarm.ticket()));
        let builder = node(&format!("node {n}")).config(config.clone());
        all.push(nodes.build(builder.bootstrap(first.into_iter().collect())).await);
    }
    eventually("all know all", || full(&all)).await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_reach_peers_without_a_link_while_links_come_and_go() {
    let mut nodes = Nodes::default();
    let all = sparse(&mut nodes, 6).await;
    let mut inboxes: Vec<_> = all.iter().map(|node| node.swarm.messages()).collect();
    let mut sent = vec![BTreeSet::new(); all.len()];
    let end = Instant::now() + Duration::from_secs(6);
    let mut round = 0_u32;
    while Instant::now() < end {
        round += 1;
        let mut sending = Vec::new();
        for (n, from) in all.iter().enumerate() {
            for (m, to) in all.iter().enumerate().filter(|(m, _)| *m != n) {
                let data = format!("{round} {n} {m}");
                sent[m].insert(data.clone());
                sending.push(from.swarm.send(to.swarm.id(), data));
            }
        }
        for receipt in join_all(sending).await {
            receipt.unwrap();
        }
        // Around the moment at which idle links are closed.
        tokio::time::sleep(Duration::from_millis(u64::from(900 + round * 37 % 400))).await;
    }
    for (inbox, sent) in inboxes.iter_mut().zip(sent) {
        let got: Vec<_> = std::iter::from_fn(|| inbox.next().now_or_never().flatten()).collect();
        let distinct: BTreeSet<_> = got
            .iter()
            .map(|message| match message {
                MessageEvent::Message(message) => String::from_utf8(message.data.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(got.len(), distinct.len(), "one came twice");
        assert_eq!(distinct, sent);
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_is_told_what_it_lost_and_loses_no_event() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let mut config = Config::local();
    (config.message_buffer, config.event_buffer) = (3, 8);
    let ticket = Bootstrap::Ticket(alice.swarm.ticket());
    let bob = nodes.build(node("bob").config(config).bootstrap(vec![ticket])).await;
    let pair = [alice.clone(), bob.clone()];
    eventually("they know each other", || full(&pair)).await;
    let (_, mut events) = bob.swarm.subscribe();
    let mut inbox = bob.swarm.messages();
    for n in 0..500_u32 {
        alice.swarm.send(bob.swarm.id(), n.to_be_bytes().to_vec()).await.unwrap();
    }
    let mut profile = alice.swarm.me().profile.clone();
    profile.metadata = metadata(&[("after", "the burst")]);
    alice.swarm.set_profile(profile.clone()).await.unwrap();
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert!(matches!(event, Event::PeerUpdated(record) if record.profile == profile));

    assert_eq!(inbox.next().await, Some(MessageEvent::Lost(497)));
    for n in 497..500_u32 {
        assert_eq!(next(&mut inbox).await.data, n.to_be_bytes().to_vec());
    }
    assert_eq!(bob.swarm.metrics().dropped["messages to slow subscribers"], 497);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_bound_what_waits_for_a_subscriber() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut inbox = bob.swarm.messages();
    for _ in 0..300 {
        alice.swarm.send(bob.swarm.id(), vec![7; LIMIT]).await.unwrap();
    }
    let kept = 16 * 1024 * 1024 / LIMIT;
    let lost = u64::try_from(300 - kept).unwrap();
    assert_eq!(inbox.next().await, Some(MessageEvent::Lost(lost)));
    assert_eq!(inbox.drain(300).len(), kept);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_given_up_arrives_at_most_once() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut inbox = bob.swarm.messages();
    let mut done = BTreeSet::new();
    for n in 0..400_u32 {
        let sending =
            alice.swarm.send(bob.swarm.id(), vec![u8::try_from(n % 251).unwrap(); 20_000]);
        let patience = Duration::from_micros(u64::from(n) * 10);
        if let Ok(receipt) = timeout(patience, sending).await {
            receipt.unwrap();
            done.insert(n);
        }
    }
    // The link still works.
    alice.swarm.send(bob.swarm.id(), "the last").await.unwrap();
    let mut got = 0;
    loop {
        let message = next(&mut inbox).await;
        if message.data == "the last" {
            break;
        }
        assert_eq!(message.data.len(), 20_000, "half a message");
        got += 1;
    }
    println!("{} receipts, {got} delivered, 400 sent", done.len());
    assert!((done.len()..=400).contains(&got));
    assert!(!done.is_empty());
    nodes.close().await;
}

/// Starts nodes that each have some of the others as neighbors.
async fn swarm(nodes: &mut Nodes, count: usize) -> Vec<Arc<RunningNode>> {
    let mut all: Vec<Arc<RunningNode>> = Vec::new();
    for n in 0..count {
        let first: Vec<_> =
            all.first().map(|node| Bootstrap::Ticket(node.swarm.ticket())).into_iter().collect();
        all.push(nodes.start(&format!("node {n}"), &first).await);
    }
    eventually("all know all", || full(&all)).await;
    eventually("all are in the overlay", || {
        all.iter().all(|node| !node.swarm.neighbors().is_empty())
    })
    .await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_reaches_everyone_else_once_with_its_author() {
    const MOST: usize = 8 * 1024;
    let mut nodes = Nodes::default();
    let all = swarm(&mut nodes, 8).await;
    let mut inboxes: Vec<_> = all.iter().map(|node| node.swarm.messages()).collect();
    let mut expected = BTreeSet::new();
    for round in 0..10 {
        for (n, node) in all.iter().enumerate() {
            let size = if round == 0 { MOST } else { 20 };
            let mut data = format!("{round} {n}").into_bytes();
            data.resize(size, b' ');
            node.swarm.broadcast(data.clone()).await.unwrap();
            expected.insert((node.swarm.id(), Bytes::from(data)));
        }
    }
    for (node, inbox) in all.iter().zip(&mut inboxes) {
        let mut got = BTreeSet::new();
        for _ in 0..expected.len() - 10 {
            let message = next(inbox).await;
            assert_eq!(message.kind, MessageKind::Broadcast);
            assert_ne!(message.sender, node.swarm.id(), "its own");
            assert!(expected.contains(&(message.sender, message.data.clone())));
            assert!(got.insert((message.sender, message.data)), "one came twice");
        }
    }
    let error = all[0].swarm.broadcast(vec![0; MOST + 1]).await.unwrap_err();
    assert!(matches!(error, Error::MessageTooLarge { size: 8193, limit: MOST }), "{error}");
    assert_eq!(all[0].swarm.metrics().protocol.broadcasts_sent, 10);
    // The counters are published after the messages of an event.
    eventually("all are counted", || all[0].swarm.metrics().protocol.broadcasts_received == 70)
        .await;
    // No second copy comes later: what was on its way arrives before the answer to this message.
    all[1].swarm.send(all[0].swarm.id(), "the last").await.unwrap();
    assert_eq!(next(&mut inboxes[0]).await.data, "the last");
    all[0].close().await;
    let error = all[0].swarm.broadcast("late").await.unwrap_err();
    assert!(matches!(error, Error::Closed), "{error}");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_broadcasts_waits_for_its_pace_and_loses_nothing() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    eventually("they are neighbors", || !alice.swarm.neighbors().is_empty()).await;
    let mut inbox = bob.swarm.messages();
    let start = Instant::now();
    let all = (0..500_u32).map(|n| alice.swarm.broadcast(n.to_be_bytes().to_vec()));
    let sending = join_all(all);
    let receiving = async {
        let mut got = BTreeSet::new();
        while got.len() < 500 {
            assert!(got.insert(next(&mut inbox).await.data));
        }
    };
    let (sent, ()) = tokio::join!(sending, receiving);
    sent.into_iter().for_each(Result::unwrap);
    // 256 go at once, then 128 a second.
    assert!(start.elapsed() > Duration::from_millis(1800), "{:?}", start.elapsed());
    assert_eq!(bob.swarm.metrics().dropped, alice.swarm.metrics().dropped, "nothing is dropped");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_before_the_first_neighbor_waits_for_it() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    alice.swarm.broadcast("anybody?").await.unwrap();
    let bob = nodes.start("bob", &[Bootstrap::Ticket(alice.swarm.ticket())]).await;
    let mut inbox = bob.swarm.messages();
    let got = next(&mut inbox).await;
    assert_eq!((got.data, got.sender), ("anybody?".into(), alice.swarm.id()));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_a_channel_reaches_its_subscribers_alone() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let (mut plain, to) = (bob.swarm.messages(), bob.swarm.id());
    let mut cache = bob.swarm.channel("cache").unwrap().messages();
    let channel = alice.swarm.channel("cache").unwrap();
    channel.send(to, "direct").await.unwrap();
    alice.swarm.send(to, "plain").await.unwrap();
    channel.broadcast("to all").await.unwrap();
    let heard = [next(&mut cache).await, next(&mut cache).await];
    assert_eq!(heard.map(|message| message.data), ["direct", "to all"]);
    let message = next(&mut plain).await;
    assert_eq!((message.data.as_ref(), message.channel), (b"plain".as_ref(), None));
    let other = alice.swarm.channel("other").unwrap();
    let error = other.send(to, "").await.unwrap_err();
    assert!(matches!(error, Error::NoSubscriber { .. }), "{error}");
    assert!(alice.swarm.channel("").is_err());
    nodes.close().await;
}
