//! Private swarms: members get in, and outsiders that know all but the secret do not.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod invitations;

use std::sync::Arc;

use common::{Nodes, PATIENCE, eventually, full, node, stranger};
use futures_util::StreamExt;
use iroh::{
    Endpoint, SecretKey,
    endpoint::{Connection, ConnectionError, ReadToEndError},
};
use iroh_gossip_discovery::{
    ALPN, Bootstrap, Config, NodeBuilder, RunningNode, SwarmKey, Ticket, proto::Request,
};
use tokio::time::timeout;

/// The code of a connection that did not prove the secret (`CloseCode::NotAdmitted`).
const NOT_ADMITTED: u64 = 8;

fn key() -> SwarmKey {
    SwarmKey::generate().unwrap()
}

fn private(name: &str, keys: &[&SwarmKey]) -> NodeBuilder {
    node(name).secrets(keys.iter().map(|key| (*key).clone()).collect())
}

/// Two members of one private swarm that know each other.
async fn members(nodes: &mut Nodes, key: &SwarmKey) -> [Arc<RunningNode>; 2] {
    let alice = nodes.build(private("alice", &[key])).await;
    let bob = private("bob", &[key]).bootstrap(vec![alice.swarm.ticket().into()]);
    let both = [alice, nodes.build(bob).await];
    eventually("the members find each other", || full(&both)).await;
    both
}

async fn dial(endpoint: &Endpoint, node: &RunningNode) -> Connection {
    endpoint.connect(node.endpoint.addr(), ALPN).await.unwrap()
}

async fn code(connection: &Connection) -> u64 {
    match timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

fn dropped(node: &RunningNode, what: &str) -> u64 {
    node.swarm.metrics().dropped.get(what).copied().unwrap_or(0)
}

fn problem(node: &RunningNode) -> Option<String> {
    let problems = node.discovery.problems();
    problems.into_iter().find(|problem| problem.source == "secret").map(|problem| problem.what)
}

/// Names an outsider's endpoint to a node, and takes the connection that the node dials.
async fn be_dialed(endpoint: &Endpoint, node: &RunningNode) -> Connection {
    let topic = node.swarm.topic().id();
    let ticket = Ticket::new(endpoint.id().into(), topic, endpoint.addr().addrs);
    node.swarm.add_bootstrap(vec![ticket.into()]).await.unwrap();
    timeout(PATIENCE, endpoint.accept()).await.unwrap().unwrap().await.unwrap()
}

/// What a node sends to prove that it belongs, to an outsider that it dialed.
async fn recorded(endpoint: &Endpoint, node: &RunningNode) -> (Connection, Vec<u8>) {
    let connection = be_dialed(endpoint, node).await;
    let (_, mut recv) = connection.accept_bi().await.unwrap();
    let proofs = timeout(PATIENCE, recv.read_to_end(1024)).await.unwrap().unwrap();
    (connection, proofs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_without_the_secret_stay_outside_and_are_told_why() {
    let (mut nodes, key, other) = (Nodes::default(), key(), key());
    let both = members(&mut nodes, &key).await;
    let opened = both.each_ref().map(|node| node.swarm.metrics().links_opened);
    let seed: Bootstrap = both[0].swarm.ticket().into();

    let public = nodes.start("public", std::slice::from_ref(&seed)).await;
    let stranger = nodes.build(private("stranger", &[&other]).bootstrap(vec![seed])).await;
    eventually("the one without a secret is told", || {
        problem(&public).is_some_and(|what| what.contains("this node has none"))
    })
    .await;
    eventually("the one with another secret is told", || {
        problem(&stranger).is_some_and(|what| what.contains("another secret"))
    })
    .await;
    assert!(dropped(&both[0], "connections without the swarm's secret") > 0);
    assert!(dropped(&both[0], "connections with another secret") > 0);
    assert!(dropped(&public, "links to peers that ask for a secret") > 0);
    assert!(dropped(&stranger, "dials to peers with another secret") > 0);
    assert_eq!(problem(&both[0]), None, "what strangers try is no problem of a member's");

    both[1].swarm.add_bootstrap(vec![public.swarm.ticket().into()]).await.unwrap();
    eventually("a member that dials one without a secret is told", || {
        problem(&both[1]).is_some_and(|what| what.contains("it has none"))
    })
    .await;
    assert!(full(&both), "nobody else is in");
    assert!(public.swarm.book().is_empty() && stranger.swarm.book().is_empty());
    let now = both.each_ref().map(|node| node.swarm.metrics().links_opened);
    assert_eq!(now, opened, "no connection of an outsider became a link");
    nodes.close().await;
}

/// A message for a node, as a link would carry it.
fn request(to: &RunningNode) -> Vec<u8> {
    let request = Request::Message(to.swarm.topic().id(), None).encode();
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    [&length, request.as_ref(), b"not for you"].concat()
}

/// Returns true if a node answered nothing: it closed the connection, or the stream before that.
fn is_no_answer(read: &Result<Vec<u8>, ReadToEndError>) -> bool {
    read.as_ref().map_or(true, Vec::is_empty)
}

/// What an outsider may say in place of a proof, given a recorded one.
fn attacks(proofs: &[u8], request: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let guess = |count: u8| [&[1, count], [0x5a; 32].repeat(count.into()).as_slice()].concat();
    vec![
        ("a recorded proof", proofs.to_vec()),
        ("four guesses", guess(4)),
        ("five guesses", guess(5)),
        ("no guess", guess(0)),
        ("a version that is not known", [&[3, 1], [0; 32].as_slice()].concat()),
        ("bytes after the proof", [proofs, b"x"].concat()),
        ("half a proof", proofs[..20].to_vec()),
        ("a request", request.to_vec()),
        ("nothing", Vec::new()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outsider_that_knows_all_but_the_secret_gets_no_frame_in() {
    let (mut nodes, key) = (Nodes::default(), key());
    let both = members(&mut nodes, &key).await;
    let [alice, bob] = &both;
    let mut messages = bob.swarm.messages();
    let before = both.each_ref().map(|node| node.swarm.metrics().links_opened);

    // What a member says to another endpoint is of no use elsewhere.
    let listener = stranger().await;
    let (dialed, proofs) = recorded(&listener, alice).await;
    assert_eq!(proofs.len(), 2 + 32);
    let request = request(bob);
    for (what, bytes) in attacks(&proofs, &request) {
        // Each from a key of its own: one whose admission failed is banned for a second.
        let endpoint = stranger().await;
        let connection = dial(&endpoint, bob).await;
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let _ = send.finish();
        let refused = timeout(PATIENCE, recv.read_to_end(1024)).await.unwrap();
        assert!(is_no_answer(&refused), "{what} was answered with {refused:?}");
        assert_eq!(code(&connection).await, NOT_ADMITTED, "{what}");
        endpoint.close().await;
    }
    // No proof at all, but a hello at once; also together with a request.
    let hello = [&[0, 0, 0, 0, 5][..], b"\x82\x00\xa0\x00\x00"].concat();
    for with_request in [false, true] {
        let endpoint = stranger().await;
        let connection = dial(&endpoint, bob).await;
        connection.open_uni().await.unwrap().write_all(&hello).await.unwrap();
        if with_request {
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            let _ = send.write_all(&request).await;
        }
        assert_eq!(code(&connection).await, NOT_ADMITTED);
        endpoint.close().await;
    }
    // An outsider in the middle passes on what a member says to it, as it comes.
    let middle = stranger().await;
    let (from_alice, proofs) = recorded(&middle, alice).await;
    let to_bob = dial(&middle, bob).await;
    let (mut send, _recv) = to_bob.open_bi().await.unwrap();
    send.write_all(&proofs).await.unwrap();
    let _ = send.finish();
    assert_eq!(code(&to_bob).await, NOT_ADMITTED, "between two members");
    // The member's own proof is no answer to it, nor is one for another connection.
    assert_eq!(code(&from_alice).await, NOT_ADMITTED, "silence");
    assert_eq!(code(&dialed).await, NOT_ADMITTED, "silence");
    let mirror = stranger().await;
    let connection = be_dialed(&mirror, alice).await;
    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
    let own = recv.read_to_end(1024).await.unwrap();
    send.write_all(&own).await.unwrap();
    let _ = send.finish();
    assert_eq!(code(&connection).await, NOT_ADMITTED, "its own proof");

    let now = both.each_ref().map(|node| node.swarm.metrics().links_opened);
    assert_eq!(now, before, "no connection of an outsider became a link");
    assert!(full(&both), "nobody else is in");
    assert_eq!(messages.drain(9).len(), 0, "no message of an outsider's was delivered");
    assert!(dropped(bob, "connections with another secret") >= 3);
    assert!(dropped(bob, "connections with a broken proof") >= 4);
    assert!(dropped(bob, "connections without the swarm's secret") >= 3);
    assert!(dropped(alice, "dials to peers with another secret") >= 1);
    assert!(dropped(alice, "dials to peers without a secret") >= 2);
    alice.swarm.send(bob.swarm.id(), "members go on").await.unwrap();
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_prove_nothing_do_not_hold_up_members() {
    const LINKS: usize = 16;
    const OVER: usize = 12;
    let (mut nodes, key) = (Nodes::default(), key());
    let both = members(&mut nodes, &key).await;
    both[0].discovery.limit_links(LINKS);
    let mut held = Vec::new();
    for _ in 0..LINKS / 2 + OVER {
        let endpoint = stranger().await;
        let connection = dial(&endpoint, &both[0]).await;
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&[1]).await.unwrap();
        held.push((endpoint, connection, send, recv));
    }
    let newcomer = private("carol", &[&key]).bootstrap(vec![both[0].swarm.ticket().into()]);
    let carol = nodes.build(newcomer).await;
    let [alice, bob] = both;
    let all = [alice, bob, carol];
    let took = eventually("a newcomer gets in", || full(&all)).await;
    println!("a newcomer is in after {took:?}");
    eventually("the oldest strangers made room", || {
        dropped(&all[0], "connections that made room for others") > 0
    })
    .await;
    // None is waited for without end.
    for (_, connection, ..) in &held {
        code(connection).await;
    }
    assert!(dropped(&all[0], "connections that proved no secret in time") > 0);
    for (endpoint, ..) in held {
        endpoint.close().await;
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_guesses_is_banned_and_gets_in_with_the_right_secret_soon_after() {
    let (mut nodes, key, wrong) = (Nodes::default(), key(), key());
    let alice = nodes.build(private("alice", &[&key])).await;
    let identity = SecretKey::generate();
    let seed = || vec![alice.swarm.ticket().into()];
    let guesser = private("bob", &[&wrong]).secret_key(identity.clone()).bootstrap(seed());
    let guesser = guesser.build().await.unwrap();
    eventually("it is banned", || alice.swarm.metrics().banned == 1).await;
    assert!(alice.swarm.book().is_empty());
    guesser.close().await;
    let bob = private("bob", &[&key]).secret_key(identity).bootstrap(seed());
    let bob = nodes.build(bob).await;
    eventually("it gets in", || full(&[alice.clone(), bob.clone()])).await;
    nodes.close().await;
}

/// One node of a swarm whose secret changes.
struct Rotated {
    name: &'static str,
    identity: SecretKey,
    running: Option<RunningNode>,
}

impl Rotated {
    async fn start(&mut self, keys: &[&SwarmKey], seeds: Vec<Bootstrap>) {
        let builder = private(self.name, keys).secret_key(self.identity.clone()).bootstrap(seeds);
        self.running = Some(builder.config(Config::local()).build().await.unwrap());
    }

    fn node(&self) -> &RunningNode {
        self.running.as_ref().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_changed_while_members_talk() {
    let (old, new) = (key(), key());
    let mut swarm = ["alice", "bob", "carol"].map(|name| Rotated {
        name,
        identity: SecretKey::generate(),
        running: None,
    });
    let phases: [&[&SwarmKey]; 4] = [&[&old], &[&old, &new], &[&new, &old], &[&new]];
    let mut sent = 0;
    for (phase, keys) in phases.iter().enumerate() {
        for restarted in 0..swarm.len() {
            let others: Vec<_> = (0..swarm.len()).filter(|other| *other != restarted).collect();
            if let Some(node) = swarm[restarted].running.take() {
                node.close().await;
            }
            let running = others.iter().filter_map(|other| swarm[*other].running.as_ref());
            let seeds = running.map(|node| node.swarm.ticket().into()).collect();
            // The two others talk all the while.
            let (one, other) = (&swarm[others[0]], &swarm[others[1]]);
            if let (Some(one), Some(other)) = (&one.running, &other.running) {
                let mut inbox = other.swarm.messages();
                one.swarm.send(other.swarm.id(), format!("{phase}")).await.unwrap();
                sent += 1;
                timeout(PATIENCE, inbox.next()).await.unwrap().unwrap();
            }
            swarm[restarted].start(keys, seeds).await;
            let all: Vec<_> = swarm.iter().filter_map(|node| node.running.as_ref()).collect();
            eventually("everybody is in every book", || {
                all.iter().all(|node| node.swarm.book().len() == all.len() - 1)
            })
            .await;
            if all.len() < 2 {
                continue;
            }
            let (from, to) = (swarm[restarted].node(), all[usize::from(restarted == 0)]);
            let _inbox = to.swarm.messages();
            from.swarm.send(to.swarm.id(), "with the new ring").await.unwrap();
            sent += 1;
        }
    }
    println!("{sent} messages");
    let late = private("late", &[&old])
        .bootstrap(vec![swarm[0].node().swarm.ticket().into()])
        .build()
        .await
        .unwrap();
    eventually("the old secret is of no use any more", || {
        dropped(swarm[0].node(), "connections with another secret") > 0
    })
    .await;
    assert!(late.swarm.book().is_empty());
    late.close().await;
    for node in &swarm {
        node.node().close().await;
    }
}
