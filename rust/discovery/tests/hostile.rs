//! Peers that break the rules, on raw iroh connections. Only their own link suffers.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Nodes, PATIENCE, eventually, full, metadata, node, stranger, stranger_of};
use futures_util::StreamExt;
use iroh::{
    Endpoint, SecretKey,
    endpoint::{Connection, ConnectionError, RecvStream, SendStream},
};
use iroh_gossip_discovery::{
    ALPN, Config, Discovery, EndpointId, Error, Event, NodeBuilder, NodeRecord, Profile,
    RunningNode, SpawnOptions, Subscription, Ticket,
    proto::{Answer, Request, SignedRecord, forge},
};

/// The code of a broken rule (`CloseCode::Protocol`).
const PROTOCOL: u64 = 6;
/// The code of a peer that says nothing (`CloseCode::Unresponsive`).
const UNRESPONSIVE: u64 = 7;

async fn dial(endpoint: &Endpoint, node: &RunningNode) -> (Connection, SendStream) {
    let connection = endpoint.connect(node.endpoint.addr(), ALPN).await.unwrap();
    let stream = connection.open_uni().await.unwrap();
    (connection, stream)
}

async fn code(connection: &Connection) -> u64 {
    match tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

/// Returns the hello that a node sends first, byte for byte.
async fn hello_of(endpoint: &Endpoint, node: &RunningNode) -> Vec<u8> {
    let (connection, _stream) = dial(endpoint, node).await;
    let mut control = connection.accept_uni().await.unwrap();
    let mut head = [0; 5];
    control.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 0, "the first stream is the control lane");
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let mut hello = vec![0; usize::try_from(length).unwrap()];
    control.read_exact(&mut hello).await.unwrap();
    connection.close(0_u32.into(), b"");
    hello
}

fn frame(content: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(content);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_rule_closes_only_the_link_of_who_broke_it() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    let both = [alice.clone(), bob.clone()];
    eventually("books are full", || full(&both)).await;
    let (_, mut events) = alice.swarm.subscribe();

    let endpoint = stranger().await;
    let hello = hello_of(&endpoint, &alice).await;
    let lane = |lane: u8, rest: &[u8]| [&[lane], rest].concat();
    let after_hello = |rest: &[u8]| [&[0], frame(&hello).as_slice(), rest].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown first lane", lane(9, &frame(&hello))),
        ("a sync stream first", lane(1, &frame(&hello))),
        ("an empty frame", lane(0, &[0, 0, 0, 0])),
        ("an oversized first frame", lane(0, &[0xff; 4])),
        ("garbage for a hello", lane(0, &frame(&[0x5a; 300]))),
        ("garbage after the hello", after_hello(&frame(&[0xff; 300]))),
        ("an oversized frame after the hello", after_hello(&65_537_u32.to_be_bytes())),
        ("a second hello", after_hello(&frame(&hello))),
    ];
    for (what, bytes) in cases {
        // Each case has a key of its own, because a key that broke a rule is banned for a second.
        let endpoint = stranger().await;
        let (connection, mut stream) = dial(&endpoint, &alice).await;
        let start = Instant::now();
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(code(&connection).await, PROTOCOL, "{what}");
        println!("{what}: closed after {:?}", start.elapsed());
        endpoint.close().await;
    }

    // Two more cases: a stream that ends in the middle of a frame, and a stream that is reset.
    let (connection, mut stream) = dial(&endpoint, &alice).await;
    stream.write_all(&[0, 0, 0, 0, 9, 1, 2]).await.unwrap();
    stream.finish().unwrap();
    assert_eq!(code(&connection).await, PROTOCOL);
    endpoint.close().await;
    let endpoint = stranger().await;
    let (connection, mut stream) = dial(&endpoint, &alice).await;
    stream.write_all(&after_hello(&[])).await.unwrap();
    let _ = connection.accept_uni().await.unwrap();
    stream.reset(0_u32.into()).unwrap();
    assert_eq!(code(&connection).await, PROTOCOL);

    // None of this affected the members.
    assert!(full(&both));
    let heard = events.drain(100);
    assert!(heard.is_empty(), "{heard:?}");
    let profile = Profile::new("bob 2");
    bob.swarm.set_profile(profile).await.unwrap();
    eventually("alice still hears bob", || {
        alice.swarm.book().get(&bob.swarm.id()).is_some_and(|seen| seen.profile.name == "bob 2")
    })
    .await;
    endpoint.close().await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_and_silence_close_the_link_in_time() {
    let mut nodes = Nodes::default();
    let mut config = Config::local();
    // Longer than the limit of the framing, which this test is about.
    config.protocol.link_idle = Duration::from_mins(1);
    let alice = nodes.build(node("alice").config(config)).await;
    let endpoint = stranger().await;
    let hello = hello_of(&endpoint, &alice).await;
    let (half, mut half_stream) = dial(&endpoint, &alice).await;
    half_stream
        .write_all(&[&[0], frame(&hello).as_slice(), &[0, 0, 1, 0, 7]].concat())
        .await
        .unwrap();
    let (silent, _unused) = dial(&endpoint, &alice).await;
    let start = Instant::now();
    assert_eq!(code(&half).await, UNRESPONSIVE);
    assert_eq!(code(&silent).await, UNRESPONSIVE);
    println!("closed after {:?}", start.elapsed());
    assert!(start.elapsed() > Duration::from_secs(8));
    // What did not come may be the network's fault.
    let metrics = alice.swarm.metrics();
    assert_eq!((metrics.banned, metrics.bans.len()), (0, 0), "{:?}", metrics.bans);
    endpoint.close().await;
    nodes.close().await;
}

/// Returns how often a limit dropped something at a node.
fn dropped(node: &RunningNode, what: &str) -> u64 {
    node.swarm.metrics().dropped.get(what).copied().unwrap_or(0)
}

/// Opens a link and says hello. The control stream is open as long as the returned value lives.
async fn greet(endpoint: &Endpoint, node: &RunningNode, hello: &[u8]) -> (Connection, SendStream) {
    let (connection, mut stream) = dial(endpoint, node).await;
    stream.write_all(&[&[0], frame(hello).as_slice()].concat()).await.unwrap();
    (connection, stream)
}

/// Reads all streams that a node opens on a link, and counts their bytes.
async fn count_received(connection: Connection, bytes: Arc<AtomicUsize>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(Some(count)) = stream.read(&mut buffer).await {
                bytes.fetch_add(count, Ordering::Relaxed);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_that_differ_in_everything_are_answered_within_a_budget_and_newcomers_are_served() {
    const SYNCS: u64 = 3000;
    /// What a peer may have at once: 64 KiB and four books, and one more that was begun.
    const BUDGET: usize = 64 * 1024 + 5 * 2048;
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("books are full", || full(&[alice.clone(), bob.clone()])).await;
    let endpoint = stranger().await;
    let hello = hello_of(&endpoint, &alice).await;
    let (connection, mut control) = greet(&endpoint, &alice, &hello).await;
    let received = Arc::new(AtomicUsize::new(0));
    let counting = tokio::spawn(count_received(connection.clone(), received.clone()));
    let open = frame(&forge::open(alice.swarm.topic().id()));
    control.write_all(&open).await.unwrap();
    let mut lane = connection.open_uni().await.unwrap();
    lane.write_all(&[&[1], open.as_slice()].concat()).await.unwrap();
    let mut sent = 0;
    for session in 0..SYNCS {
        let sync = frame(&forge::sync(session, 0, &[]));
        sent += sync.len();
        lane.write_all(&sync).await.unwrap();
    }
    let over = "syncs over the budget of a peer";
    eventually("what is over the budget is refused", || dropped(&alice, over) > SYNCS / 2).await;
    let carol = nodes.start("carol", &[alice.swarm.ticket().into()]).await;
    let all = [alice.clone(), bob.clone(), carol];
    let took = eventually("a newcomer gets in", || full(&all)).await;
    let received = received.load(Ordering::Relaxed);
    println!("{sent} bytes in, {received} out, a newcomer after {took:?}");
    assert!(received <= BUDGET + sent, "{sent} bytes in, {received} out");
    endpoint.close().await;
    counting.await.unwrap();
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_never_end_fill_no_more_than_their_share_and_are_given_up() {
    const KEYS: usize = 4;
    const MESSAGES: usize = 150;
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("books are full", || full(&[alice.clone(), bob.clone()])).await;
    let _messages = alice.swarm.messages();
    let hello = hello_of(&stranger().await, &alice).await;
    let request = frame(&Request::Message(alice.swarm.topic().id(), None).encode());
    let half = [request, vec![7; 60 * 1024]].concat();
    let mut attackers = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..KEYS {
        let endpoint = stranger().await;
        let link = greet(&endpoint, &alice, &hello).await;
        for _ in 0..MESSAGES {
            let (connection, half) = (link.0.clone(), half.clone());
            streams.push(tokio::spawn(async move {
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                // The node may refuse the message, and stop the stream, before all is written.
                let _ = send.write_all(&half).await;
                let answer = recv.read_to_end(64).await;
                drop(send);
                answer.is_ok()
            }));
        }
        attackers.push((endpoint, link));
    }
    eventually("messages over the limit are refused", || {
        dropped(&alice, "half messages over the limit") > 0
    })
    .await;
    // Members are served during all of this.
    bob.swarm.send(alice.swarm.id(), "still here").await.unwrap();
    // Every stream ends, though the attackers end none of them.
    let mut refused = 0;
    for stream in streams {
        refused += usize::from(tokio::time::timeout(PATIENCE * 2, stream).await.unwrap().unwrap());
    }
    let given_up = dropped(&alice, "messages that did not come whole");
    println!("{refused} refused, {given_up} given up");
    // A stranger's 3 MiB hold 24 messages, because each has room for 128 KiB.
    assert!(refused >= KEYS * (MESSAGES - 60), "{refused} were refused");
    assert!(given_up > 0);
    // The links of the attackers may have been closed meanwhile, because they are idle.
    let again = greet(&attackers[0].0, &alice, &hello).await;
    let mut whole = again.0.open_bi().await.unwrap();
    whole.0.write_all(&half).await.unwrap();
    whole.0.finish().unwrap();
    let answer = whole.1.read_to_end(64).await.unwrap();
    assert_eq!(answer, frame(&Answer::Accepted.encode()), "the memory is there again");
    for (endpoint, _) in attackers {
        endpoint.close().await;
    }
    nodes.close().await;
}

/// One stream of a lane is read at a time, so the others stay unread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stranger_sends_on_streams_that_wait_fills_a_small_window() {
    const WINDOW: usize = 768 * 1024;
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let endpoint = stranger().await;
    let hello = hello_of(&endpoint, &alice).await;
    let (connection, _control) = greet(&endpoint, &alice, &hello).await;
    let mut first = connection.open_uni().await.unwrap();
    first.write_all(&[1]).await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let writing = (0..8).map(|_| {
        let (connection, sent) = (connection.clone(), sent.clone());
        async move {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&[1]).await.unwrap();
            while let Ok(written) = stream.write(&[0; 8 * 1024]).await {
                sent.fetch_add(written, Ordering::Relaxed);
            }
        }
    });
    let mut writing = tokio::spawn(futures_util::future::join_all(writing));
    let sent = || sent.load(Ordering::Relaxed);
    eventually("the window is full", || sent() > WINDOW * 7 / 8).await;
    let more = tokio::time::timeout(Duration::from_millis(300), &mut writing).await;
    assert!(more.is_err(), "the link was closed");
    assert!(sent() <= WINDOW, "{} bytes", sent());
    endpoint.close().await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_broke_a_rule_is_refused_for_a_growing_time_and_others_are_not() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let endpoint = stranger().await;
    let (mut tried, mut offenses, start) = (0, 0, Instant::now());
    while start.elapsed() < Duration::from_secs(5) {
        tried += 1;
        let Ok(connection) = endpoint.connect(alice.endpoint.addr(), ALPN).await else { continue };
        let Ok(mut stream) = connection.open_uni().await else { continue };
        let _ = stream.write_all(&[9]).await;
        offenses += usize::from(code(&connection).await == PROTOCOL);
    }
    println!("{offenses} offenses in {tried} connections");
    // The offenses come at 0, 1 and 3 s.
    assert!((1..=3).contains(&offenses), "{offenses} offenses in {tried} connections");
    assert!(tried > 10 && alice.swarm.metrics().banned == 1, "{tried}");
    assert_eq!(dropped(&alice, "links of peers that broke the protocol"), offenses as u64);
    let rule = "the first stream is not the control stream";
    let bans = alice.swarm.metrics().bans;
    assert_eq!(bans, [(rule, offenses as u64)].into(), "each ban is counted with its reason");
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("a newcomer gets in", || full(&[alice.clone(), bob.clone()])).await;
    endpoint.close().await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_hold_no_more_than_their_share_of_the_links_and_newcomers_get_in() {
    const LINKS: usize = 64;
    const SHARE: usize = LINKS / 2;
    const OVER: u64 = 20;
    let mut nodes = Nodes::default();
    let mut config = Config::local();
    config.idle_timeout = Duration::from_mins(5);
    // Long enough that no stranger's link ends by itself.
    config.protocol.link_idle = Duration::from_mins(5);
    let alice = nodes.build(node("alice").config(config)).await;
    alice.discovery.limit_links(LINKS);
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("books are full", || full(&[alice.clone(), bob.clone()])).await;
    let hello = hello_of(&stranger().await, &alice).await;
    let mut held = Vec::new();
    for _ in 0..SHARE as u64 + OVER {
        let endpoint = stranger().await;
        let link = greet(&endpoint, &alice, &hello).await;
        held.push((endpoint, link));
    }
    eventually("the oldest made room", || {
        dropped(&alice, "links that made room for others") >= OVER
    })
    .await;
    // The share of strangers, and the link to bob.
    assert!(alice.swarm.metrics().links <= SHARE + 1, "{}", alice.swarm.metrics().links);
    let closed = |link: &(Endpoint, (Connection, SendStream))| link.1.0.close_reason().is_some();
    eventually("it was the oldest", || held.iter().take(10).all(closed)).await;
    assert!(!held.iter().rev().take(10).any(closed), "the newest stay");
    let carol = nodes.start("carol", &[alice.swarm.ticket().into()]).await;
    let all = [alice.clone(), bob.clone(), carol];
    let took = eventually("a newcomer gets in", || full(&all)).await;
    println!("{} links, a newcomer after {took:?}", alice.swarm.metrics().links);
    for (endpoint, _) in held {
        endpoint.close().await;
    }
    nodes.close().await;
}

/// Opens a link with a new key, announces it as a member, and holds the link by half a request.
async fn announce_and_hold(
    node: &RunningNode,
    hello: &[u8],
) -> (Endpoint, SendStream, SendStream, RecvStream) {
    let key = SecretKey::generate();
    let endpoint = stranger_of(key.clone()).await;
    let (connection, mut control) = greet(&endpoint, node, hello).await;
    let topic = node.swarm.topic().id();
    let mut record = NodeRecord::new(key.public().into(), Profile::new("a key of many"));
    record.expiration = Duration::from_mins(15);
    record.sequence = 1;
    let signed = SignedRecord::sign(key.as_signing_key(), &topic, record).unwrap();
    let frames = [forge::open(topic), forge::push(&[signed.bytes().clone()])];
    control.write_all(&frames.map(|content| frame(&content)).concat()).await.unwrap();
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(&[0, 0]).await.unwrap();
    (endpoint, control, send, recv)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_hold_all_links_keep_no_newcomer_out() {
    const LINKS: usize = 16;
    let mut nodes = Nodes::default();
    let mut config = Config::local();
    config.protocol.link_idle = Duration::from_mins(5);
    // Nobody is asked to probe these members, which answer nothing.
    config.protocol.probe_interval = Duration::from_mins(1);
    let alice = nodes.build(node("alice").config(config)).await;
    alice.discovery.limit_links(LINKS);
    let hello = hello_of(&stranger().await, &alice).await;
    let mut held = Vec::new();
    for number in 1..=LINKS {
        held.push(announce_and_hold(&alice, &hello).await);
        eventually("it is a member", || alice.swarm.book().len() >= number).await;
    }
    assert_eq!(alice.swarm.metrics().links, LINKS);
    let carol = nodes.start("carol", &[alice.swarm.ticket().into()]).await;
    let took = eventually("a newcomer gets in", || {
        [(&alice, &carol), (&carol, &alice)]
            .iter()
            .all(|(one, other)| one.swarm.book().get(&other.swarm.id()).is_some())
    })
    .await;
    println!("a newcomer after {took:?}, {:?}", alice.swarm.metrics().dropped);
    assert_eq!(dropped(&alice, "links over the limit"), 0);
    for (endpoint, ..) in held {
        endpoint.close().await;
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_serves_no_discovery_is_named_and_counted() {
    let mut nodes = Nodes::default();
    let silent = stranger().await;
    silent.set_alpns(vec![b"another/1".to_vec()]);
    let accepting = silent.clone();
    let serving = tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let _ = incoming.await;
        }
    });
    let alice = nodes.start("alice", &[]).await;
    let ticket = Ticket::new(silent.id().into(), alice.swarm.topic().id(), silent.addr().addrs);
    alice.swarm.add_bootstrap(vec![ticket.into()]).await.unwrap();
    eventually("what is missing is counted", || {
        dropped(&alice, "dials to peers that do not serve discovery") > 0
    })
    .await;
    // A problem is also logged as a warning.
    let problems = alice.discovery.problems();
    let says = "its router needs `.accept(ALPN, discovery)`";
    assert!(problems.iter().any(|problem| problem.what.contains(says)), "{problems:?}");
    silent.close().await;
    serving.await.unwrap();
    nodes.close().await;
}

#[tokio::test]
async fn an_endpoint_has_one_discovery_at_a_time() {
    let endpoint = stranger().await;
    let options = || SpawnOptions::new(Config::local());
    let first = Discovery::spawn(endpoint.clone(), options()).await.unwrap();
    let error = Discovery::spawn(endpoint.clone(), options()).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "endpoint", .. }), "{error}");
    let other = stranger().await;
    let second = Discovery::spawn(other.clone(), options()).await.unwrap();
    first.shutdown().await;
    let again = Discovery::spawn(endpoint.clone(), options()).await.unwrap();
    again.shutdown().await;
    second.shutdown().await;
    endpoint.close().await;
    other.close().await;
}

/// A node in a runtime of its own that freezes: it reads no frame and acknowledges no packet.
struct Frozen {
    id: EndpointId,
    thaw: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// Starts a node; it freezes once it knows all of `peers`, and two of them have it as a neighbor.
/// If it froze as soon as it has neighbors itself, its request to be theirs might be unsent.
async fn frozen(builder: NodeBuilder, peers: Vec<Arc<RunningNode>>) -> Frozen {
    let (ready, frozen) = tokio::sync::oneshot::channel();
    let (thaw, thawed) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let node = builder.build().await.unwrap();
            eventually("the node has its neighbors", || {
                let has_it =
                    |peer: &&Arc<RunningNode>| peer.swarm.neighbors().contains(&node.swarm.id());
                node.swarm.book().len() == peers.len() && peers.iter().filter(has_it).count() >= 2
            })
            .await;
            // A neighbor that never sent anything is replaced.
            node.swarm.broadcast("here").await.unwrap();
            eventually("its neighbors heard it", || {
                let heard = |peer: &&Arc<RunningNode>| {
                    peer.swarm.metrics().protocol.broadcasts_received > 0
                };
                peers.iter().filter(heard).count() >= 2
            })
            .await;
            ready.send(node.swarm.id()).unwrap();
            // This blocks the only thread of the runtime, which freezes the node.
            thawed.recv().unwrap();
            node.close().await;
        });
    });
    Frozen { id: frozen.await.unwrap(), thaw, thread }
}

/// One of five neighbors freezes. The other four must not notice.
// long: one history, whose steps share the nodes and their counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_peer_delays_nobody() {
    const HEALTHY: usize = 4;
    const RATE: u32 = 100;
    /// The least number of updates. More follow until the frozen peer's window and queue are full
    /// (1.6 MB), because on a busy machine several updates travel as one.
    const UPDATES: u32 = 16 * RATE;
    /// Long enough that the frozen peer stays a neighbor all the time.
    const IDLE: Duration = Duration::from_mins(5);
    /// Long enough that no dial to the frozen peer fails. A member that is not its neighbor may
    /// dial it, and would accuse it.
    const DIAL: Duration = Duration::from_mins(1);
    let mut config = Config::local();
    (config.idle_timeout, config.connect_timeout) = (IDLE, DIAL);
    // It is not probed either, so that it is not held to be dead.
    config.protocol.probe_interval = Duration::from_mins(10);
    let mut nodes = Nodes::default();
    let source = nodes.build(node("source").config(config.clone())).await;
    let seed = || vec![source.swarm.ticket().into()];
    let mut all = vec![source.clone()];
    for n in 0..HEALTHY {
        let builder = node(&format!("healthy {n}")).config(config.clone());
        all.push(nodes.build(builder.bootstrap(seed())).await);
    }
    eventually("books are full", || full(&all)).await;
    let frozen = frozen(node("frozen").config(config).bootstrap(seed()), all.clone()).await;
    eventually("all know the frozen one", || {
        all.iter().all(|node| node.swarm.book().contains(&frozen.id))
    })
    .await;
    let linked = source.swarm.metrics().links;

    let watchers: Vec<_> = all[1..]
        .iter()
        .map(|node| {
            let (_, events) = node.swarm.subscribe();
            tokio::spawn(watch(events, source.swarm.id()))
        })
        .collect();
    let overflows = || -> u64 {
        let dropped = all.iter().map(|node| node.swarm.metrics().dropped);
        dropped.filter_map(|dropped| dropped.get("links with a full queue").copied()).sum()
    };
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let filler = "x".repeat(1000);
    let mut slowest = Duration::ZERO;
    let mut sent = 0;
    let mut last = false;
    while !last {
        tick.tick().await;
        sent += 1;
        last = sent >= UPDATES && overflows() > 0;
        let neighbors = || {
            let those = |node: &&Arc<RunningNode>| node.swarm.neighbors().contains(&frozen.id);
            all.iter().filter(those).count()
        };
        assert!(
            sent < 8 * UPDATES,
            "the frozen peer, neighbor of {}, was sent no more than is held for it",
            neighbors()
        );
        let mut metadata = metadata(&[("n", &sent.to_string()), ("x", &filler)]);
        if last {
            metadata.insert("last".into(), String::new());
        }
        let mut profile = Profile::new("source");
        profile.metadata = metadata;
        let start = Instant::now();
        source.swarm.set_profile(profile).await.unwrap();
        slowest = slowest.max(start.elapsed());
    }
    for watcher in watchers {
        let (updates, gap) = watcher.await.unwrap();
        println!("{updates} of {sent} updates seen, largest gap {gap:?}");
        // A node that waits for the frozen peer would wait until its link times out. How fast the
        // others are depends on the machine.
        assert!(gap < PATIENCE / 2, "{gap:?}");
    }
    println!("slowest announcement {slowest:?}; dropped: {:?}", source.swarm.metrics().dropped);
    println!("links of the source: {linked} before, {} after", source.swarm.metrics().links);
    println!("{} links closed with a full queue", overflows());
    frozen.thaw.send(()).unwrap();
    tokio::task::spawn_blocking(|| frozen.thread.join().unwrap()).await.unwrap();
    nodes.close().await;
}

/// Follows the updates of `source` up to the last one. Returns how many came, and the largest gap.
async fn watch(mut events: Subscription, source: EndpointId) -> (u32, Duration) {
    let (mut seen, mut gap, mut before) = (0, Duration::ZERO, None);
    loop {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        let Event::PeerUpdated(record) = event else { continue };
        if record.id != source {
            continue;
        }
        let now = Instant::now();
        gap = gap.max(before.map_or(Duration::ZERO, |before| now - before));
        before = Some(now);
        seen += 1;
        if record.profile.metadata.contains_key("last") {
            return (seen, gap);
        }
    }
}
