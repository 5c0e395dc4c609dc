//! Streams between real nodes: all bytes in order, an end or a reason, and no other stream waits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::join_all};
use iroh_gossip_discovery::{
    Bootstrap, Config, EndpointId, Error, Event, IncomingStream, RunningNode, Serving, StreamError,
    StreamReader, StreamWriter,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{Instant, timeout},
};

use common::{Nodes, PATIENCE, eventually, full, node};

const CHAT: &str = "chat/1";

async fn pair(nodes: &mut Nodes) -> [Arc<RunningNode>; 2] {
    let alice = nodes.start("alice", &[]).await;
    let bob = nodes.start("bob", &[Bootstrap::Ticket(alice.swarm.ticket())]).await;
    let pair = [alice, bob];
    eventually("they know each other", || full(&pair)).await;
    pair
}

async fn next(serving: &mut Serving) -> IncomingStream {
    timeout(PATIENCE, serving.next()).await.unwrap().unwrap()
}

/// Opens a stream, and returns both of its ends.
async fn stream(
    from: &RunningNode,
    to: &RunningNode,
    serving: &mut Serving,
) -> ((StreamReader, StreamWriter), IncomingStream) {
    let opening = from.swarm.open_stream(to.swarm.id(), CHAT);
    let (opened, incoming) = tokio::join!(timeout(PATIENCE, opening), next(serving));
    (opened.unwrap().unwrap(), incoming)
}

/// Sends back all that arrives on each stream, until the service ends.
fn echo(mut serving: Serving) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(mut stream) = serving.next().await {
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut stream.reader, &mut stream.writer).await;
            });
        }
    })
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + n / 251 + seed) % 256).unwrap()).collect()
}

async fn write_all(writer: &mut StreamWriter, data: &[u8]) -> Result<(), StreamError> {
    let mut data = Bytes::copy_from_slice(data);
    while !data.is_empty() {
        writer.write_chunk(&mut data).await?;
    }
    Ok(())
}

/// Writes until no more bytes are taken for a while, and returns how many were.
async fn fill(writer: &mut StreamWriter) -> usize {
    let mut written = 0;
    loop {
        let mut chunk = Bytes::from(vec![7; 64 * 1024]);
        let writing = writer.write_chunk(&mut chunk);
        match timeout(Duration::from_millis(500), writing).await {
            Ok(n) => written += n.unwrap(),
            Err(_) => return written,
        }
        assert!(written < 64 * 1024 * 1024, "nothing holds the writer back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_read_in_order_and_each_direction_ends_by_itself() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    assert_eq!(serving.protocol(), CHAT.as_bytes());
    let ((mut reader, mut writer), mut far) = stream(&alice, &bob, &mut serving).await;
    assert_eq!((far.peer(), &far.protocol[..]), (alice.swarm.id(), CHAT.as_bytes()));
    assert_eq!((reader.peer(), writer.peer()), (bob.swarm.id(), bob.swarm.id()));

    let there = pattern(5_000_000, 1);
    let sent = there.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.finish();
        writer.finished().await.unwrap();
        let error = writer.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
    });
    let mut got = Vec::new();
    far.reader.read_to_end(&mut got).await.unwrap();
    assert!(got == there, "{} bytes of {}", got.len(), there.len());
    writing.await.unwrap();

    // The other direction is still open.
    let back = pattern(300_000, 2);
    far.writer.write_all(&back).await.unwrap();
    drop(far.writer);
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == back);
    assert_eq!(reader.read(&mut [0; 8]).await, Ok(0), "the end stays the end");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_or_served_is_an_error_that_says_why() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let peer = bob.swarm.id();
    let error = alice.swarm.open_stream(peer, CHAT).await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::ProtocolNotServed { peer: p, protocol } if *p == peer && protocol == CHAT
        ),
        "{error}"
    );
    let nobody = EndpointId::from(iroh::SecretKey::generate().public());
    let error = alice.swarm.open_stream(nobody, CHAT).await.unwrap_err();
    assert!(matches!(&error, Error::PeerUnreachable { peer, .. } if *peer == nobody), "{error}");
    let error = alice.swarm.open_stream(alice.swarm.id(), CHAT).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "peer", .. }), "{error}");
    for wrong in [String::new(), "x".repeat(33)] {
        for error in [
            alice.swarm.open_stream(peer, &wrong).await.unwrap_err(),
            alice.swarm.serve(&wrong).unwrap_err(),
        ] {
            assert!(
                matches!(
                    &error,
                    Error::Invalid { field: "protocol", reason } if reason.contains("1 to 32")
                ),
                "{error}"
            );
        }
    }
    let serving: Vec<_> =
        (0..8).map(|n| alice.swarm.serve(format!("protocol/{n}")).unwrap()).collect();
    let error = alice.swarm.serve("one/too/many").unwrap_err();
    assert!(error.to_string().contains("the limit is 8"), "{error}");
    let error = alice.swarm.serve("protocol/3").unwrap_err();
    assert!(error.to_string().contains("served already"), "{error}");
    drop(serving);
    let _again = alice.swarm.serve("protocol/3").unwrap();
    alice.close().await;
    assert!(matches!(alice.swarm.serve("late/1").unwrap_err(), Error::Closed));
    assert!(matches!(alice.swarm.open_stream(peer, CHAT).await.unwrap_err(), Error::Closed));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_protocols_are_announced_for_as_long_as_they_are_served() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut profile = bob.swarm.me().profile.clone();
    profile.protocols = vec![b"own/1".to_vec()];
    bob.swarm.set_profile(profile).await.unwrap();
    let seen = |expected: &[&str]| {
        let book = alice.swarm.book();
        let protocols = &book.get(&bob.swarm.id()).unwrap().profile.protocols;
        protocols.iter().map(Vec::as_slice).eq(expected.iter().map(|p| p.as_bytes()))
    };
    let chat = bob.swarm.serve(CHAT).unwrap();
    let files = bob.swarm.serve("files/1").unwrap();
    eventually("both are announced", || seen(&["own/1", CHAT, "files/1"])).await;
    drop(chat);
    eventually("one is announced", || seen(&["own/1", "files/1"])).await;
    // A new profile of the application still names the served protocols.
    let mut profile = bob.swarm.me().profile.clone();
    profile.protocols = vec![b"own/2".to_vec()];
    bob.swarm.set_profile(profile).await.unwrap();
    eventually("its own is new", || seen(&["own/2", "files/1"])).await;
    drop(files);
    eventually("only its own is announced", || seen(&["own/2"])).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_brings_its_code_and_reason_to_the_other_end() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    for (code, reason) in [(7, "the disk is full"), (u32::MAX, ""), (1, &*"ü".repeat(128))] {
        let ((mut reader, mut writer), mut far) = stream(&alice, &bob, &mut serving).await;
        let told = StreamError::Reset { code, reason: reason.to_owned() };
        writer.reset(code, reason).unwrap();
        let error = timeout(PATIENCE, far.reader.read(&mut [0; 8])).await.unwrap().unwrap_err();
        assert_eq!(error, told);
        assert!(error.to_string().contains(&code.to_string()), "{error}");
        // Only this direction was reset. The other one still works.
        far.writer.write_all(b"still there").await.unwrap();
        let mut got = [0; 11];
        reader.read_exact(&mut got).await.unwrap();
        assert_eq!(
            writer.write_chunk(&mut Bytes::from_static(b"x")).await,
            Err(StreamError::Closed)
        );

        reader.stop(code, reason).unwrap();
        let error = loop {
            let writing = write_all(&mut far.writer, &[1; 1000]);
            if let Err(error) = timeout(PATIENCE, writing).await.unwrap() {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(error, told);
        assert_eq!(reader.read(&mut [0; 8]).await, Err(StreamError::Closed));
    }
    let ((mut reader, mut writer), _far) = stream(&alice, &bob, &mut serving).await;
    for error in [writer.reset(0, "").unwrap_err(), reader.stop(0, "").unwrap_err()] {
        assert!(matches!(error, Error::Invalid { field: "code", .. }), "{error}");
    }
    let long = "x".repeat(257);
    for error in [writer.reset(1, &long).unwrap_err(), reader.stop(1, &long).unwrap_err()] {
        assert!(error.to_string().contains("257 bytes, the limit is 256"), "{error}");
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_dropped_stops_the_writer_and_a_lost_link_both() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    let ((_reader, mut writer), far) = stream(&alice, &bob, &mut serving).await;
    drop(far);
    let gone = StreamError::Reset { code: 0, reason: String::new() };
    let error = timeout(PATIENCE, async {
        loop {
            if let Err(error) = write_all(&mut writer, &[1; 1000]).await {
                return error;
            }
        }
    });
    assert_eq!(error.await.unwrap(), gone);
    writer.finish();
    writer.finished().await.unwrap();

    let ((mut reader, mut writer), mut far) = stream(&alice, &bob, &mut serving).await;
    let reading = tokio::spawn(async move { far.reader.read(&mut [0; 8]).await });
    alice.close().await;
    let error = timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, StreamError::Link(_)), "{error}");
    assert!(matches!(reader.read(&mut [0; 8]).await, Err(StreamError::Link(_))));
    assert!(matches!(write_all(&mut writer, b"x").await, Err(StreamError::Link(_))));
    nodes.close().await;
    assert!(serving.next().await.is_none(), "it ends with its topic");
    assert!(serving.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_stalls_only_its_own_stream() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let ((reader, mut writer), far) = stream(&alice, &bob, &mut serving).await;
        let written = fill(&mut writer).await;
        assert!((64 * 1024..4 * 1024 * 1024).contains(&written), "{written} bytes are held");
        stalled.push((reader, writer, far, written));
    }
    // Other streams, messages and discovery's own frames still pass.
    let ((_reader, mut writer), mut far) = stream(&alice, &bob, &mut serving).await;
    let data = pattern(8_000_000, 3);
    let sent = data.clone();
    let writing = tokio::spawn(async move { write_all(&mut writer, &sent).await.unwrap() });
    let mut got = vec![0; data.len()];
    timeout(PATIENCE, far.reader.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got == data);
    writing.await.unwrap();
    let _inbox = bob.swarm.messages();
    alice.swarm.send(bob.swarm.id(), vec![1; 64 * 1024]).await.unwrap();
    let mut profile = alice.swarm.me().profile.clone();
    profile.name = "alice again".into();
    alice.swarm.set_profile(profile).await.unwrap();
    eventually("the change is known", || {
        bob.swarm.book().get(&alice.swarm.id()).unwrap().profile.name == "alice again"
    })
    .await;
    // A reader that begins now gets all that was held.
    let (_reader, writer, mut far, written) = stalled.pop().unwrap();
    drop(writer);
    let mut got = Vec::new();
    timeout(PATIENCE, far.reader.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got.len(), written);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_sends_and_nobody_reads_is_bounded_over_all_its_streams() {
    const STREAMS: usize = 80;
    const EACH: usize = 1_000_000;
    /// 768 KiB of each link, and the windows of 23 streams, an eighth of what then is left.
    const BOUND: u64 = 768 * 1024 + 23 * 1_250_000;
    /// The time limit for all of it on a busy machine.
    const PATIENCE: Duration = Duration::from_mins(2);
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    let (mut near, mut unread) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        let (opened, far) = stream(&alice, &bob, &mut serving).await;
        near.push(opened);
        unread.push(far);
    }
    let writing = near.into_iter().map(|(reader, mut writer)| {
        tokio::spawn(async move {
            write_all(&mut writer, &vec![7; EACH]).await.unwrap();
            drop(reader);
        })
    });
    let mut all = join_all(writing);
    // Each stream alone has room in the window.
    let sent = || alice.swarm.metrics().streams.bytes_sent;
    let filling = async {
        while sent() < BOUND * 15 / 16 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, filling).await.unwrap();
    assert!(timeout(Duration::from_millis(300), &mut all).await.is_err(), "all of it is there");
    assert!(sent() <= BOUND, "{} bytes", sent());
    let reading = unread.iter_mut().map(|far| async {
        let mut got = Vec::new();
        far.reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), EACH);
    });
    timeout(PATIENCE, join_all(reading)).await.unwrap();
    for written in timeout(PATIENCE, all).await.unwrap() {
        written.unwrap();
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_streams_do_is_counted_at_both_ends() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    alice.swarm.open_stream(bob.swarm.id(), CHAT).await.unwrap_err();
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    let ((mut reader, mut writer), mut far) = stream(&alice, &bob, &mut serving).await;
    writer.write_all(b"hello").await.unwrap();
    far.reader.read_exact(&mut [0; 5]).await.unwrap();
    write_all(&mut far.writer, b"you").await.unwrap();
    reader.read_exact(&mut [0; 3]).await.unwrap();
    let of = |node: &RunningNode| {
        let counts = node.swarm.metrics().streams;
        let moved = (counts.bytes_sent, counts.bytes_received);
        ((counts.open, counts.opened, counts.accepted), (counts.refused, counts.reset), moved)
    };
    assert_eq!(of(&alice), ((1, 1, 0), (0, 0), (5, 3)));
    assert_eq!(of(&bob), ((1, 0, 1), (1, 0), (3, 5)));
    // A stream that is reset in both directions counts once.
    writer.reset(7, "").unwrap();
    reader.stop(7, "").unwrap();
    timeout(PATIENCE, far.reader.read(&mut [0; 8])).await.unwrap().unwrap_err();
    timeout(PATIENCE, far.writer.stopped()).await.unwrap();
    assert_eq!((of(&alice).1, of(&bob).1), ((0, 1), (1, 1)));
    drop((reader, writer, far));
    eventually("none is open", || of(&alice).0.0 + of(&bob).0.0 == 0).await;
    // A stream that ends in order does not count as reset.
    let (near, far) = stream(&alice, &bob, &mut serving).await;
    drop((near, far));
    eventually("none is open", || of(&alice).0 == (0, 2, 0) && of(&bob).0 == (0, 0, 2)).await;
    assert_eq!((of(&alice).1, of(&bob).1), ((0, 1), (1, 1)));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_read_or_write_loses_no_byte() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    let ((_reader, mut writer), mut far) = stream(&alice, &bob, &mut serving).await;
    let data = pattern(3_000_000, 4);
    let mut rest = Bytes::from(data.clone());
    let mut buffer = vec![0; 10_000];
    // Each future is polled once and dropped if it would wait, as the first ones certainly do.
    for _ in 0..10 {
        assert!(far.reader.read(&mut buffer).now_or_never().is_none());
    }
    let writing = tokio::spawn(async move {
        let mut cancelled = 0_u32;
        while !rest.is_empty() {
            match writer.write_chunk(&mut rest).now_or_never() {
                Some(written) => drop(written.unwrap()),
                None => cancelled += 1,
            }
            tokio::task::yield_now().await;
        }
        cancelled
    });
    let mut got = Vec::new();
    let mut cancelled = 0_u32;
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE);
        match far.reader.read(&mut buffer).now_or_never().map(Result::unwrap) {
            Some(0) => break,
            Some(n) => got.extend_from_slice(&buffer[..n]),
            None => cancelled += 1,
        }
        tokio::task::yield_now().await;
    }
    println!("{cancelled} reads and {} writes cancelled", writing.await.unwrap());
    assert!(got == data, "{} bytes of {}", got.len(), data.len());
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_holds_its_link_and_a_closed_one_lets_it_go() {
    let mut nodes = Nodes::default();
    let mut config = Config::local();
    config.protocol.neighbors = 1;
    config.protocol.link_idle = Duration::from_millis(100);
    // No probes here, so that links close only because they are idle.
    config.protocol.probe_interval = Duration::from_mins(10);
    let mut all: Vec<Arc<RunningNode>> = Vec::new();
    for n in 0..6 {
        let first = all.first().map(|node| Bootstrap::Ticket(node.swarm.ticket()));
        let builder = node(&format!("node {n}")).config(config.clone());
        all.push(nodes.build(builder.bootstrap(first.into_iter().collect())).await);
    }
    eventually("all know all", || full(&all)).await;
    for node in &all {
        echo(node.swarm.serve(CHAT).unwrap());
    }
    let mut open = Vec::new();
    for from in &all {
        for to in all.iter().filter(|to| to.swarm.id() != from.swarm.id()) {
            open.push(from.swarm.open_stream(to.swarm.id(), CHAT).await.unwrap());
        }
    }
    let links = |all: &[Arc<RunningNode>]| -> usize {
        all.iter().map(|node| node.swarm.metrics().links).sum()
    };
    // Many times as long as an idle link lasts, with a few bytes now and then.
    for round in 0..4_u8 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        for (reader, writer) in &mut open {
            writer.write_all(&[round; 100]).await.unwrap();
            let mut got = [0; 100];
            timeout(PATIENCE, reader.read_exact(&mut got)).await.unwrap().unwrap();
            assert_eq!(got, [round; 100]);
        }
    }
    assert!(links(&all) >= 30, "each pair has a link");
    drop(open);
    eventually("links close again", || links(&all) < 24).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_are_open_at_a_time_and_the_rest_is_refused_and_counted() {
    let mut nodes = Nodes::default();
    let [alice, bob] = pair(&mut nodes).await;
    echo(bob.swarm.serve(CHAT).unwrap());
    let opening = (0..1024).map(|_| alice.swarm.open_stream(bob.swarm.id(), CHAT));
    let opened = timeout(PATIENCE, join_all(opening)).await.unwrap();
    let mut open: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let error = alice.swarm.open_stream(bob.swarm.id(), CHAT).await.unwrap_err();
    assert!(matches!(error, Error::TooManyStreams { .. }), "{error}");
    // Messages do not count among the streams.
    let _inbox = bob.swarm.messages();
    alice.swarm.send(bob.swarm.id(), "hello").await.unwrap();
    let echoes = open.iter_mut().enumerate().map(|(n, (reader, writer))| async move {
        let data = pattern(2000, n);
        writer.write_all(&data).await.unwrap();
        let mut got = vec![0; data.len()];
        reader.read_exact(&mut got).await.unwrap();
        assert_eq!(got, data);
    });
    timeout(PATIENCE, join_all(echoes)).await.unwrap();
    open.truncate(1000);
    eventually("there is room again", || {
        alice.swarm.open_stream(bob.swarm.id(), CHAT).now_or_never().is_none()
    })
    .await;
    let again = async {
        while alice.swarm.open_stream(bob.swarm.id(), CHAT).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
    nodes.close().await;
}

// long: one history, whose steps share the nodes and their counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_streams_and_messages_cause_no_suspicion_and_cost_no_event() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let ticket = Bootstrap::Ticket(alice.swarm.ticket());
    let mut all = vec![alice.clone()];
    for name in ["bob", "carol", "dave"] {
        all.push(nodes.start(name, std::slice::from_ref(&ticket)).await);
    }
    eventually("all know all", || full(&all)).await;
    let mut events: Vec<_> = all.iter().map(|node| node.swarm.subscribe().1).collect();
    let bob = all[1].clone();
    let mut serving = bob.swarm.serve(CHAT).unwrap();
    let ((_reader, mut writer), mut far) = stream(&alice, &bob, &mut serving).await;
    let end = Instant::now() + Duration::from_secs(8);
    let writing = tokio::spawn(async move {
        let mut written = 0_u64;
        while Instant::now() < end {
            let mut chunk = Bytes::from(vec![7; 256 * 1024]);
            written += writer.write_chunk(&mut chunk).await.unwrap() as u64;
        }
        writer.finish();
        written
    });
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 256 * 1024];
        let mut got = 0_u64;
        loop {
            match far.reader.read(&mut buffer).await.unwrap() {
                0 => return got,
                n => got += n as u64,
            }
        }
    });
    let mut inbox = bob.swarm.messages();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut updates = 0_u32;
    let mut sending = Vec::new();
    while Instant::now() < end {
        ticks.tick().await;
        let (swarm, to) = (alice.swarm.clone(), bob.swarm.id());
        sending.push(tokio::spawn(async move { swarm.send(to, vec![1; 64 * 1024]).await }));
        inbox.drain(usize::MAX);
        if sending.len() % 50 == 0 {
            updates += 1;
            let mut profile = alice.swarm.me().profile.clone();
            profile.metadata.insert("n".into(), updates.to_string());
            alice.swarm.set_profile(profile).await.unwrap();
        }
    }
    let sent = sending.len();
    for receipt in sending {
        receipt.await.unwrap().unwrap();
    }
    let (written, got) = (writing.await.unwrap(), reading.await.unwrap());
    println!("{sent} messages, {} MB, {updates} updates", written / 1_000_000);
    assert_eq!(written, got);
    assert!(sent > 100 && updates > 2, "the load was no load");
    let last = updates.to_string();
    for (node, events) in all.iter().zip(&mut events).skip(1) {
        eventually("the last update is known", || {
            let book = node.swarm.book();
            book.get(&alice.swarm.id()).unwrap().profile.metadata.get("n") == Some(&last)
        })
        .await;
        for event in events.drain(usize::MAX) {
            assert!(matches!(event, Event::PeerUpdated(_)), "{event:?}");
        }
    }
    assert_eq!(all.iter().map(|node| node.swarm.metrics().events.peer_suspected).sum::<u64>(), 0);
    nodes.close().await;
}
