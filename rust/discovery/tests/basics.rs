//! The main job, with real endpoints on loopback: nodes find each other, leave and return.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Nodes, eventually, full, metadata, node};
use futures_util::StreamExt;
use iroh::SecretKey;
use iroh_gossip_discovery::{
    Bootstrap, Config, Error, Event, JoinOptions, Profile, Status, Ticket, Topic, TopicId,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_find_each_other() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let (book, mut events) = alice.swarm.subscribe();
    assert!(book.is_empty());
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;

    eventually("both books are full", || full(&[alice.clone(), bob.clone()])).await;
    let seen = alice.swarm.book().get(&bob.swarm.id()).unwrap().clone();
    assert_eq!(seen.profile.name, "bob");
    assert_eq!(seen.addresses, bob.swarm.me().addresses);
    assert_eq!(seen.status, Status::Alive);
    assert!(!alice.swarm.book().contains(&alice.swarm.id()));
    events.ready().await;
    let first = events.drain(1).pop().unwrap();
    assert!(matches!(&first, Event::PeerJoined(peer) if peer.id == bob.swarm.id()), "{first:?}");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_know_each_other_whichever_they_started_from() {
    for star in [true, false] {
        let mut nodes = Nodes::default();
        let mut all = vec![nodes.start("node 0", &[]).await];
        for n in 1..10 {
            let from = if star { &all[0] } else { &all[n - 1] };
            let bootstrap = [Bootstrap::Ticket(from.swarm.ticket())];
            all.push(nodes.start(&format!("node {n}"), &bootstrap).await);
        }
        let took = eventually("all ten books are full", || full(&all)).await;
        println!("star {star}: full {took:?} after the last start");
        nodes.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_is_known_at_once_and_ends_the_stream() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    let carol = nodes.start("carol", &[alice.swarm.ticket().into()]).await;
    let all = [alice.clone(), bob.clone(), carol.clone()];
    eventually("books are full", || full(&all)).await;

    let (_, mut of_bob) = bob.swarm.subscribe();
    let (_, of_alice) = alice.swarm.subscribe();
    bob.swarm.leave().await;
    bob.swarm.leave().await;
    assert!(bob.swarm.is_closed());
    while of_bob.next().await.is_some() {}
    assert!(of_bob.is_closed() && bob.swarm.subscribe().1.is_closed());
    assert!(matches!(bob.swarm.set_profile(Profile::default()).await, Err(Error::Closed)));
    assert!(matches!(bob.swarm.add_bootstrap(vec![]).await, Err(Error::Closed)));

    let took = eventually("both know that bob left", || {
        [&alice, &carol].iter().all(|node| !node.swarm.book().contains(&bob.swarm.id()))
    })
    .await;
    println!("leave known after {took:?}");
    let left = of_alice.filter_map(|event| async move {
        match event {
            Event::PeerLeft(peer) => Some(peer),
            _ => None,
        }
    });
    let left = std::pin::pin!(left).next().await.unwrap();
    assert_eq!((left.id, left.profile.name.as_str()), (bob.swarm.id(), "bob"));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_identity_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let mut last = None;
    for life in 0..3 {
        let start =
            || node("bob").state_dir(dir.path()).bootstrap(vec![alice.swarm.ticket().into()]);
        let bob = start().build().await.unwrap();
        let second = start().build().await.unwrap_err();
        assert!(matches!(second, Error::StateDirInUse { holder: Some(_), .. }), "{second}");
        eventually("alice knows this life of bob", || {
            let me = bob.swarm.me();
            alice.swarm.book().get(&me.id).is_some_and(|seen| seen.boot_id == me.boot_id)
        })
        .await;
        for n in 0..5 {
            let mut profile = bob.swarm.me().profile.clone();
            profile.metadata = metadata(&[("n", &n.to_string())]);
            bob.swarm.set_profile(profile).await.unwrap();
        }
        let me = bob.swarm.me();
        if let Some((id, boot_id, sequence)) = last {
            assert_eq!(me.id, id);
            assert_ne!(me.boot_id, boot_id);
            assert!(me.sequence > sequence, "life {life}");
        }
        // A clock that went back must do no harm.
        let ahead = me.sequence + 1_000_000_000_000;
        bob.close().await;
        drop(bob);
        let kept: u64 = std::fs::read_to_string(dir.path().join("sequence"))
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(kept > me.sequence);
        std::fs::write(dir.path().join("sequence"), format!("{ahead}\n")).unwrap();
        last = Some((me.id, me.boot_id, ahead - 1));
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_peer_that_starts_late_is_found() {
    let mut nodes = Nodes::default();
    let key = SecretKey::generate();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let seed: Bootstrap =
        format!("{}@localhost:{port}", iroh_gossip_discovery::EndpointId::from(key.public()))
            .parse()
            .unwrap();
    let alice = nodes.start("alice", &[seed]).await;
    // Enough time for several dials to fail.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(alice.swarm.book().is_empty());
    let mut config = Config::local();
    config.bind = vec![([127, 0, 0, 1], port).into()];
    let late = nodes.build(node("late").secret_key(key).config(config)).await;
    let took = eventually("both are found", || full(&[alice.clone(), late.clone()])).await;
    println!("found {took:?} after it started");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_peer_may_be_added_at_any_time() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[]).await;
    let mut foreign = alice.swarm.ticket();
    foreign.topic = TopicId::from_name("other").unwrap();
    let error = bob.swarm.add_bootstrap(vec![foreign.into()]).await.unwrap_err();
    assert!(error.to_string().contains("bootstrap has a ticket for another topic"), "{error}");
    // A node's own ticket does no harm, so that all nodes may have the same list.
    let all = vec![alice.swarm.ticket().into(), bob.swarm.ticket().into()];
    bob.swarm.add_bootstrap(all).await.unwrap();
    eventually("both are found", || full(&[alice.clone(), bob.clone()])).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_profile_reaches_every_book() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("books are full", || full(&[alice.clone(), bob.clone()])).await;
    let mut profile = Profile::new("bob the second");
    profile.metadata = metadata(&[("role", "cache")]);
    profile.protocols = vec![b"echo/1".to_vec()];
    bob.swarm.set_profile(profile.clone()).await.unwrap();
    assert_eq!(bob.swarm.me().profile, profile);
    // The same profile again: nothing is announced, and the call still returns.
    bob.swarm.set_profile(profile.clone()).await.unwrap();
    eventually("alice knows the new profile", || {
        alice.swarm.book().get(&bob.swarm.id()).is_some_and(|seen| seen.profile == profile)
    })
    .await;
    let mut long = profile.clone();
    long.metadata = metadata(&[("k", &"v".repeat(1100))]);
    let error = bob.swarm.set_profile(long).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "metadata", .. }), "{error}");
    assert_eq!(bob.swarm.me().profile, profile);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_topics_share_an_endpoint_and_its_links() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("books are full", || full(&[alice.clone(), bob.clone()])).await;

    let options = |name: &str, peers: Vec<Bootstrap>| JoinOptions::new(name).bootstrap(peers);
    let second = Topic::new("second").unwrap();
    let a = alice.discovery.join(second.clone(), options("a", vec![])).await.unwrap();
    let again = alice.discovery.join(second.clone(), options("a", vec![])).await.unwrap_err();
    assert!(matches!(again, Error::AlreadyJoined(topic) if topic == second.id()));
    let b = bob.discovery.join(second, options("b", vec![a.ticket().into()])).await.unwrap();
    eventually("the second topic's books are full", || {
        a.book().get(&b.id()).is_some_and(|peer| peer.profile.name == "b")
            && b.book().get(&a.id()).is_some_and(|peer| peer.profile.name == "a")
    })
    .await;
    b.leave().await;
    eventually("b left the second topic", || a.book().is_empty()).await;
    assert!(full(&[alice.clone(), bob.clone()]), "the first topic is not concerned");
    nodes.close().await;
}

#[tokio::test]
async fn bad_input_is_named_before_anything_opens() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let untouched = dir.path().join("state");
    let config = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::local();
        change(&mut config);
        node("x").config(config)
    };
    let id = iroh_gossip_discovery::EndpointId::from_bytes([1; 32]);
    let foreign = Ticket::new(id, TopicId::from_name("other").unwrap(), []);
    let cases = [
        (node(""), "name must not be empty"),
        (node(&"x".repeat(65)), "name is 65 bytes, the limit is 64"),
        (node("a\nb"), "name has a control"),
        (node("x").metadata(metadata(&[("k", &"v".repeat(2000))])), "metadata is 2006 bytes"),
        (node("x").bootstrap(vec![foreign.into()]), "bootstrap has a ticket for another topic"),
        (config(&|c| c.bind = vec![address]), &format!("bind address {address}")),
        (config(&|c| c.event_buffer = 0), "event_buffer must be"),
        (config(&|c| c.protocol.capacity = 0), "capacity must be"),
    ];
    for (builder, message) in cases {
        let error = builder.state_dir(&untouched).build().await.unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
        assert!(!untouched.exists(), "{error}");
    }
}
