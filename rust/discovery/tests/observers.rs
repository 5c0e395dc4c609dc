//! Observers on real endpoints: they see the book, and nobody sees them.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{Nodes, eventually, full, metadata, node};
use futures_util::StreamExt;
use iroh_gossip_discovery::{
    Bootstrap, Error, Event, Joined, MessageEvent, Profile, RunningNode, SwarmKey, Topic,
};

/// Starts three members and an observer that was given the first of them.
async fn start(nodes: &mut Nodes) -> ([Arc<RunningNode>; 3], Arc<RunningNode>) {
    let alice = nodes.start("alice", &[]).await;
    let ticket = [Bootstrap::Ticket(alice.swarm.ticket())];
    let bob = nodes.start("bob", &ticket).await;
    let carol = nodes.start("carol", &ticket).await;
    let members = [alice, bob, carol];
    eventually("members know each other", || full(&members)).await;
    let observer = nodes.build(node("dashboard").observer().bootstrap(ticket.to_vec())).await;
    eventually("the observer sees all", || observer.swarm.book().len() == 3).await;
    (members, observer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_sees_who_comes_changes_and_goes_and_nobody_sees_it() {
    let mut nodes = Nodes::default();
    let (members, observer) = start(&mut nodes).await;
    assert!(observer.swarm.is_observer() && !members[0].swarm.is_observer());
    let Joined::Synced(_) = observer.swarm.joined().await.unwrap() else { panic!("it is alone") };
    let (_, mut events) = observer.swarm.subscribe();
    let dave = nodes.start("dave", &[members[1].swarm.ticket().into()]).await;
    let mut next = async || events.next().await.unwrap();
    let joined = next().await;
    assert!(matches!(&joined, Event::PeerJoined(peer) if peer.id == dave.swarm.id()), "{joined:?}");
    let load = || metadata(&[("load", "high")]);
    dave.swarm.update_profile(|profile| profile.metadata = load()).await.unwrap();
    let updated = next().await;
    assert!(
        matches!(&updated, Event::PeerUpdated(peer) if peer.profile.metadata == load()),
        "{updated:?}"
    );
    dave.swarm.leave().await;
    let left = next().await;
    assert!(matches!(&left, Event::PeerLeft(peer) if peer.id == dave.swarm.id()), "{left:?}");
    eventually("members have each other in their books, and nobody else", || full(&members)).await;
    let served = || members.iter().map(|member| member.swarm.metrics().protocol.observers).sum();
    eventually("a member counts the observer", || (1..=3).contains::<usize>(&served())).await;
    observer.swarm.leave().await;
    eventually("no member counts an observer that is gone", || served() == 0_usize).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_talks_to_members_and_is_told_what_it_cannot_do() {
    let mut nodes = Nodes::default();
    let (members, observer) = start(&mut nodes).await;
    let mut messages = members[2].swarm.messages();
    observer.swarm.send(members[2].swarm.id(), "hello").await.unwrap();
    let Some(MessageEvent::Message(message)) = messages.next().await else { panic!("it is lost") };
    assert_eq!((message.sender, &message.data[..]), (observer.swarm.id(), &b"hello"[..]));

    let errors = [
        observer.swarm.broadcast("all").await.unwrap_err(),
        observer.swarm.set_profile(Profile::new("another")).await.unwrap_err(),
        observer.swarm.serve("echo/1").unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Observer { .. }), "{error}");
        assert!(error.to_string().contains("an observer can't"), "{error}");
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_takes_another_member_if_its_own_goes() {
    let mut nodes = Nodes::default();
    let (members, observer) = start(&mut nodes).await;
    let source = || observer.swarm.neighbors().into_iter().next();
    let first = source().expect("the book came from a member");
    let gone = members.iter().find(|member| member.swarm.id() == first).unwrap();
    gone.close().await;
    eventually("another member serves the observer", || source().is_some_and(|id| id != first))
        .await;
    let alive = members.iter().find(|member| member.swarm.id() != first).unwrap();
    let dave = nodes.start("dave", &[alive.swarm.ticket().into()]).await;
    let seen = || {
        let book = observer.swarm.book();
        book.contains(&dave.swarm.id()) && !book.contains(&first)
    };
    eventually("the observer is up to date", seen).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_no_member_has_room_for_is_told_why() {
    let mut nodes = Nodes::default();
    let mut config = iroh_gossip_discovery::Config::local();
    config.protocol.observers = 0;
    let alice = nodes.build(node("alice").config(config)).await;
    let ticket = alice.swarm.ticket();
    let observer = nodes.build(node("dashboard").observer().bootstrap(vec![ticket.into()])).await;
    let Joined::Alone(reasons) = observer.swarm.joined().await.unwrap() else {
        panic!("alice serves no observer")
    };
    let told = |(who, why): &(String, String)| {
        *who == alice.swarm.id().to_string() && why.contains("as many observers as it may")
    };
    assert!(reasons.iter().any(told), "{reasons:?}");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_swarm_shows_itself_only_to_observers_with_its_secret() {
    let mut nodes = Nodes::default();
    let topic = Topic::new("test").unwrap();
    let key = |secret| SwarmKey::from_secret(secret, &topic).unwrap();
    let (right, wrong) = ("correct horse battery staple", "another horse battery staple");
    let alice = nodes.build(node("alice").secrets(vec![key(right)])).await;
    let ticket = || vec![Bootstrap::Ticket(alice.swarm.ticket())];
    let observe = |secret| node("dashboard").observer().secrets(vec![key(secret)]);
    let outsider = nodes.build(observe(wrong).bootstrap(ticket())).await;
    assert!(matches!(outsider.swarm.joined().await.unwrap(), Joined::Alone(_)));
    assert!(outsider.swarm.book().is_empty());
    let insider = nodes.build(observe(right).bootstrap(ticket())).await;
    eventually("the insider sees alice", || insider.swarm.book().len() == 1).await;
    nodes.close().await;
}
