//! Swarms that are private by invitations: a node without one for its own id stays outside.

use std::time::{Duration, SystemTime};

use iroh_gossip_discovery::{
    EndpointId, Event, Invitation, IssuerKey, JoinOptions, LostReason, Revocation, Topic,
    proto::{CLOCK_TOLERANCE, forge},
};

use super::*;
use crate::common::{dropped, problem, stranger_of};

const PROTOCOL: u64 = 6;

fn test_topic() -> Topic {
    Topic::new("test").unwrap()
}

/// A time around now, in seconds from now.
fn time(begins: i64, ends: i64) -> std::ops::Range<SystemTime> {
    let at = |seconds: i64| {
        let shift = Duration::from_secs(seconds.unsigned_abs());
        let now = SystemTime::now();
        if seconds < 0 { now - shift } else { now + shift }
    };
    at(begins)..at(ends)
}

/// The time of an invitation that still holds for some seconds, by the tolerance alone.
fn for_seconds(seconds: i64) -> std::ops::Range<SystemTime> {
    let ends = seconds - i64::try_from(CLOCK_TOLERANCE).unwrap();
    time(ends - 60, ends)
}

fn invite(issuer: &IssuerKey, member: EndpointId) -> Invitation {
    issuer.invite(&test_topic(), member, time(0, 3600)).unwrap()
}

fn revoke(issuer: &IssuerKey, member: EndpointId) -> Revocation {
    issuer.revoke(&test_topic(), member, time(0, 3600)).unwrap()
}

/// A node with an invitation of this issuer, which it trusts alone.
fn invited(name: &str, issuer: &IssuerKey, key: &SecretKey) -> NodeBuilder {
    let invitation = invite(issuer, key.public().into());
    let builder = node(name).secret_key(key.clone());
    builder.issuers(vec![issuer.id()]).invitation(invitation)
}

/// Members of one swarm that know each other.
async fn swarm(nodes: &mut Nodes, issuer: &IssuerKey, names: &[&str]) -> Vec<Arc<RunningNode>> {
    let mut all: Vec<Arc<RunningNode>> = Vec::new();
    for name in names {
        let seeds = all.iter().map(|node| node.swarm.ticket().into()).collect();
        let builder = invited(name, issuer, &SecretKey::generate()).bootstrap(seeds);
        all.push(nodes.build(builder).await);
    }
    eventually("the members find each other", || full(&all)).await;
    all
}

fn is_lost(event: &Event, id: EndpointId, why: LostReason) -> bool {
    matches!(event, Event::PeerLost(peer, reason) if peer.id == id && *reason == why)
}

/// What one end of a connection shows as an invitation.
fn shown(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[2], length.as_slice(), bytes].concat()
}

async fn reason(connection: &Connection) -> (u64, String) {
    match timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_without_an_invitation_stay_outside_and_are_told_why() {
    let (mut nodes, issuer, other) =
        (Nodes::default(), IssuerKey::generate(), IssuerKey::generate());
    let both = swarm(&mut nodes, &issuer, &["alice", "bob"]).await;
    let opened = both.iter().map(|node| node.swarm.metrics().links_opened).collect::<Vec<_>>();
    let seed: Bootstrap = both[0].swarm.ticket().into();
    let stranger = invited("stranger", &other, &SecretKey::generate());
    let outside = [
        (node("public"), "secret", "and this node has none"),
        (private("secret", &[&key()]), "secret", "it asks for an invitation"),
        (stranger, "invitations", "which showed an invitation of another issuer"),
    ];
    let mut outsiders = Vec::new();
    for (builder, source, why) in outside {
        let builder = builder.bootstrap(vec![seed.clone()]);
        outsiders.push((nodes.build(builder).await, source, why));
    }
    for (node, source, why) in &outsiders {
        eventually(why, || problem(node, source).contains(why)).await;
        assert!(node.swarm.book().is_empty());
    }
    assert!(dropped(&both[0], "connections without an invitation") >= 2);
    assert!(dropped(&both[0], "connections with an invitation of another issuer") > 0);

    // Also if a member dials them.
    let tickets = outsiders.iter().map(|(node, ..)| node.swarm.ticket().into()).collect();
    both[1].swarm.add_bootstrap(tickets).await.unwrap();
    let what = "dials to peers without an invitation that holds";
    eventually("a member counts what it dialed", || dropped(&both[1], what) > 0).await;
    eventually("a member is told of it", || !problem(&both[1], "invitations").is_empty()).await;
    assert!(full(&both), "nobody else is in");
    let now = both.iter().map(|node| node.swarm.metrics().links_opened).collect::<Vec<_>>();
    assert_eq!(now, opened, "no connection of an outsider became a link");
    nodes.close().await;
}

type Attack = (&'static str, Box<dyn Fn(EndpointId) -> Vec<u8>>);

/// What an outsider may show of its own id, and the reason with which it is refused.
fn attacks(issuer: &IssuerKey, recorded: Vec<u8>, request: Vec<u8>) -> Vec<Attack> {
    let signed = |issuer: &IssuerKey, topic: &str, time: std::ops::Range<SystemTime>| {
        let (issuer, topic) = (issuer.clone(), Topic::new(topic).unwrap());
        move |id| shown(issuer.invite(&topic, id, time.clone()).unwrap().bytes())
    };
    let valid = signed(issuer, "test", time(0, 60));
    let [longer, half, altered] = [valid.clone(), valid.clone(), valid];
    let revocation = issuer.clone();
    let none = "no invitation";
    let forged = "an invitation whose signature does not hold";
    vec![
        ("the invitation of another id", Box::new(move |_| recorded.clone())),
        (
            "an invitation of another issuer",
            Box::new(signed(&IssuerKey::generate(), "test", time(0, 60))),
        ),
        ("an invitation to another topic", Box::new(signed(issuer, "elsewhere", time(0, 60)))),
        ("an invitation that has ended", Box::new(signed(issuer, "test", for_seconds(-9)))),
        (
            "an invitation that has not begun by the other clock",
            Box::new(signed(issuer, "test", time(400, 500))),
        ),
        (
            forged,
            Box::new(move |id| {
                let mut bytes = altered(id);
                *bytes.last_mut().unwrap() ^= 1;
                bytes
            }),
        ),
        (forged, Box::new(move |id| shown(revoke(&revocation, id).bytes()))),
        (forged, Box::new(|_| shown(b""))),
        ("", Box::new(move |id| [longer(id).as_slice(), b"x"].concat())),
        ("", Box::new(move |id| half(id)[..90].to_vec())),
        ("", Box::new(|_| shown(&[0; 600]))),
        ("", Box::new(|_| Vec::new())),
        (none, Box::new(|_| [&[1, 1], [0x5a; 32].as_slice()].concat())),
        (none, Box::new(move |_| request.clone())),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_invitation_that_is_stolen_forged_or_out_of_its_time_gets_a_frame_in() {
    let (mut nodes, issuer) = (Nodes::default(), IssuerKey::generate());
    let both = swarm(&mut nodes, &issuer, &["alice", "bob"]).await;
    let [alice, bob] = [&both[0], &both[1]];
    let opened = |node: &RunningNode| node.swarm.metrics().links_opened;
    let before = (opened(alice), opened(bob));
    let mut messages = bob.swarm.messages();

    // What a member shows to an endpoint that it dials is of no use to that one.
    let listener = stranger().await;
    let (_dialed, recorded) = recorded(&listener, alice).await;
    assert_eq!(recorded, shown(&recorded[3..]), "it is an invitation, and nothing else");
    for (why, bytes) in attacks(&issuer, recorded, request(bob)) {
        // Each from a key of its own: one whose admission failed is banned for a second.
        let endpoint = stranger().await;
        let connection = dial(&endpoint, bob).await;
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes(endpoint.id().into())).await.unwrap();
        let _ = send.finish();
        let refused = timeout(PATIENCE, recv.read_to_end(1024)).await.unwrap();
        assert!(is_no_answer(&refused), "{why} was answered with {refused:?}");
        assert_eq!(reason(&connection).await, (NOT_ADMITTED, why.to_owned()));
        endpoint.close().await;
    }
    // No invitation at all, but a hello at once.
    let endpoint = stranger().await;
    let connection = dial(&endpoint, bob).await;
    let hello = [&[0, 0, 0, 0, 5][..], b"\x82\x00\xa0\x00\x00"].concat();
    connection.open_uni().await.unwrap().write_all(&hello).await.unwrap();
    assert_eq!(reason(&connection).await, (NOT_ADMITTED, "no invitation".to_owned()));
    // A member that dials checks the answer: here it gets its own invitation.
    let mirror = stranger().await;
    let connection = be_dialed(&mirror, alice).await;
    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
    let own = recv.read_to_end(1024).await.unwrap();
    send.write_all(&own).await.unwrap();
    let _ = send.finish();
    let why = "the invitation of another id".to_owned();
    assert_eq!(reason(&connection).await, (NOT_ADMITTED, why));

    assert_eq!((opened(alice), opened(bob)), before, "nothing of it became a link");
    assert!(full(&both), "nobody else is in");
    assert_eq!(messages.drain(9).len(), 0, "no message of an outsider's was delivered");
    assert_eq!(dropped(bob, "connections with the invitation of another id"), 1);
    assert_eq!(dropped(bob, "connections with an invitation that has ended"), 1);
    assert_eq!(dropped(bob, "connections with a forged invitation"), 3);
    alice.swarm.send(bob.swarm.id(), "members go on").await.unwrap();
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_an_invitation_ends_its_node_is_lost_and_a_new_one_lets_it_in_again() {
    let (mut nodes, issuer, key) = (Nodes::default(), IssuerKey::generate(), SecretKey::generate());
    let mut all = swarm(&mut nodes, &issuer, &["alice", "bob"]).await;
    let me = key.public().into();
    let invite = |time| issuer.invite(&test_topic(), me, time).unwrap();
    let carol = nodes.build(invited("carol", &issuer, &key)).await;
    all.push(carol.clone());
    let (_, mut events) = all[0].swarm.subscribe();
    let counter = "links whose invitations ended";
    let has_ended = || all[..2].iter().all(|node| dropped(node, counter) > 0);
    // A busy machine may need more than the first time to let it in.
    for seconds in [2_u32, 4, 8, 16] {
        let time = for_seconds(seconds.into());
        // It has ended already if this machine is that busy.
        let _ = carol.discovery.renew(invite(time)).await;
        let begun = SystemTime::now();
        let over = || begun.elapsed().unwrap() > Duration::from_secs(u64::from(seconds) + 2);
        carol.swarm.add_bootstrap(vec![all[0].swarm.ticket().into()]).await.unwrap();
        eventually("the invitation ends", || has_ended() || over()).await;
        if has_ended() {
            break;
        }
    }
    assert!(has_ended());
    eventually("its record goes", || all[..2].iter().all(|node| !node.swarm.book().contains(&me)))
        .await;
    let lost = |event: &Event| is_lost(event, me, LostReason::Unreachable);
    let mut heard = Vec::new();
    eventually("it is told", || {
        heard.extend(events.drain(100));
        heard.iter().any(lost)
    })
    .await;
    eventually("the node knows why", || problem(&carol, "invitation").contains("has ended")).await;
    carol.discovery.renew(invite(time(0, 3600))).await.unwrap();
    carol.swarm.add_bootstrap(vec![all[1].swarm.ticket().into()]).await.unwrap();
    eventually("a new invitation lets it in again", || full(&all)).await;
    let others = issuer.invite(&test_topic(), all[0].swarm.id(), time(0, 60)).unwrap();
    let error = carol.discovery.renew(others).await.unwrap_err().to_string();
    assert!(error.starts_with("invitation is for the id"), "{error}");
    let elsewhere =
        carol.discovery.join(Topic::new("other").unwrap(), JoinOptions::default()).await;
    let error = elsewhere.unwrap_err().to_string();
    assert_eq!(error, "topic is not the one that this endpoint is invited to");
    nodes.close().await;
}

/// What a hostile member says on a link of its own, after it was let in. Returns the close code.
async fn say(key: SecretKey, issuer: &IssuerKey, to: &RunningNode, frame: &[u8]) -> u64 {
    let endpoint = stranger_of(key).await;
    let connection = dial(&endpoint, to).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&shown(invite(issuer, endpoint.id().into()).bytes())).await.unwrap();
    send.finish().unwrap();
    timeout(PATIENCE, recv.read_to_end(1024)).await.unwrap().unwrap();
    let mut control = connection.open_uni().await.unwrap();
    let mut bytes = vec![0];
    for frame in [&forge::hello(9), &forge::open(to.swarm.topic().id()), frame] {
        bytes.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(frame);
    }
    control.write_all(&bytes).await.unwrap();
    let code = code(&connection).await;
    endpoint.close().await;
    code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_id_is_out_everywhere_and_a_member_that_was_away_learns_it() {
    let (mut nodes, issuer) = (Nodes::default(), IssuerKey::generate());
    let dir = tempfile::tempdir().unwrap();
    let mut all = swarm(&mut nodes, &issuer, &["alice", "bob", "carol"]).await;
    let (carol, away) = (all.pop().unwrap(), SecretKey::generate());
    let [alice, bob] = [&all[0], &all[1]];
    let revoked = carol.swarm.id();
    let (_, mut events) = bob.swarm.subscribe();

    // Only a trusted issuer's word counts, whoever brings it.
    let mallory = IssuerKey::generate();
    let error = alice.discovery.revoke(revoke(&mallory, revoked)).await.unwrap_err().to_string();
    assert_eq!(error, "revocation is signed by an issuer that this node does not trust");
    let mut forged = revoke(&issuer, revoked).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let frame = forge::revoked(&[forged.into()]);
    assert_eq!(say(SecretKey::generate(), &issuer, bob, &frame).await, PROTOCOL);
    assert!(bob.discovery.revoked().is_empty() && bob.swarm.book().contains(&revoked));

    alice.discovery.revoke(revoke(&issuer, revoked)).await.unwrap();
    assert!(!alice.swarm.book().contains(&revoked), "it is out once that returns");
    assert!(alice.discovery.revoked().contains(&revoked));
    eventually("the others learn it", || !bob.swarm.book().contains(&revoked)).await;
    let denied = |event: &Event| is_lost(event, revoked, LostReason::Denied);
    assert_eq!(events.drain(100).iter().filter(|event| denied(event)).count(), 1);
    let closed = || [alice, bob].iter().all(|node| !node.swarm.neighbors().contains(&revoked));
    assert!(closed());
    carol.swarm.add_bootstrap(vec![alice.swarm.ticket().into()]).await.unwrap();
    eventually("it is told", || problem(&carol, "invitation").contains("revoked")).await;
    eventually("it stays outside", || {
        dropped(alice, "connections with an invitation that was revoked") > 0
    })
    .await;

    let seed = || vec![bob.swarm.ticket().into()];
    let dave = || invited("dave", &issuer, &away).state_dir(dir.path());
    let running = dave().bootstrap(seed()).build().await.unwrap();
    eventually("one that was away learns it", || running.discovery.revoked().contains(&revoked))
        .await;
    eventually("it is kept", || {
        let kept = std::fs::read_to_string(dir.path().join("access")).unwrap_or_default();
        kept.contains("revoked igdr1")
    })
    .await;
    running.close().await;
    let alone = dave().build().await.unwrap();
    assert!(alone.discovery.revoked().contains(&revoked), "after a restart, from the disk");
    alone.close().await;
    let other_issuer = IssuerKey::generate();
    let invitation = invite(&other_issuer, away.public().into());
    let builder = dave().issuers(vec![other_issuer.id()]).invitation(invitation);
    let elsewhere = builder.build().await.unwrap();
    assert!(elsewhere.discovery.revoked().is_empty(), "its issuer is trusted no longer");
    elsewhere.close().await;
    assert!(full(&all));
    nodes.close().await;
}
