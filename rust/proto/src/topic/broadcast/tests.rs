//! Broadcasts without a network: what waits, what is given up, what is forwarded.

use super::{super::world::World, *};
use crate::{
    OutEvent,
    tests::{id, key, topic},
};

const AUTHOR: u8 = 5;
const NEIGHBOR: u8 = 2;

fn contents(effects: Effects) -> Vec<Bytes> {
    let content = |effect| {
        if let Effect::Broadcast(content) = effect { content } else { panic!("{effect:?}") }
    };
    effects.into_inner().into_iter().map(content).collect()
}

fn of_author(number: u64) -> Bytes {
    encode_broadcast(&Broadcast::sign(&key(AUTHOR), &topic(), 1, number, b"data"))
}

#[test]
fn a_broadcast_waits_until_the_node_has_settled_in_the_overlay() {
    let mut world = World::new();
    let mut broadcasts = Broadcasts::new(world.cx.now);
    let sent = broadcasts.send(None, b"early", &mut world.scope()).unwrap();
    assert_eq!(sent, Effects::none());
    world.neighbors.insert(id(NEIGHBOR));
    assert_eq!(broadcasts.on_neighbors(&mut world.scope()), Effects::none(), "not at once");
    assert_eq!(broadcasts.next_timeout(), Some(world.cx.now + SETTLE));
    world.pass(SETTLE);
    assert_eq!(contents(broadcasts.on_timeout(&mut world.scope())).len(), 1);
    assert_eq!(broadcasts.next_timeout(), None);
    let later = broadcasts.send(None, b"later", &mut world.scope()).unwrap();
    assert_eq!(contents(later).len(), 1, "a settled node sends at once");
    assert!(world.dropped().is_empty());
}

#[test]
fn a_broadcast_that_finds_no_neighbor_is_given_up_and_counted() {
    let mut world = World::new();
    let mut broadcasts = Broadcasts::new(world.cx.now);
    let _ = broadcasts.send(None, b"lost", &mut world.scope()).unwrap();
    let moment = Duration::from_millis(1);
    world.pass(KEEP.saturating_sub(moment));
    assert_eq!(broadcasts.on_timeout(&mut world.scope()), Effects::none());
    assert!(world.dropped().is_empty());
    world.pass(moment);
    assert_eq!(broadcasts.on_timeout(&mut world.scope()), Effects::none());
    assert_eq!(world.dropped(), ["broadcasts without a neighbor"]);
    assert_eq!(broadcasts.sizes()[0].1, 0);
}

#[test]
fn the_oldest_of_too_many_waiting_broadcasts_makes_room() {
    let mut world = World::new();
    let mut broadcasts = Broadcasts::new(world.cx.now);
    for _ in 0..MAX_KEPT + 3 {
        let _ = broadcasts.send(None, b"x", &mut world.scope()).unwrap();
    }
    assert_eq!(broadcasts.sizes()[0].1, MAX_KEPT);
    assert_eq!(world.dropped().len(), 3);
    let large = vec![0; MAX_BROADCAST];
    for _ in 0..MAX_KEPT {
        let _ = broadcasts.send(None, &large, &mut world.scope()).unwrap();
    }
    assert!(broadcasts.kept_bytes() <= MAX_KEPT_BYTES);
}

#[test]
fn data_over_the_limit_and_data_of_a_leaving_node_are_refused() {
    let mut world = World::new();
    let mut broadcasts = Broadcasts::new(world.cx.now);
    let large = vec![0; MAX_BROADCAST + 1];
    let error = broadcasts.send(None, &large, &mut world.scope()).unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "data", .. }), "{error}");
    world.leaving = true;
    let error = broadcasts.send(None, b"x", &mut world.scope()).unwrap_err();
    assert_eq!(error, Error::NotJoined(topic()));
    assert_eq!(broadcasts.sizes()[0].1, 0, "nothing waits");
}

#[test]
fn a_broadcast_of_a_member_is_delivered_once() {
    let mut world = World::new();
    let mut broadcasts = Broadcasts::new(world.cx.now);
    let content = of_author(0);
    assert!(!broadcasts.judge(&content, id(NEIGHBOR), &mut world.scope()));
    assert_eq!(world.dropped(), ["broadcasts of unknown members"]);
    world.knows(AUTHOR);
    assert!(broadcasts.judge(&content, id(NEIGHBOR), &mut world.scope()));
    assert!(broadcasts.has_seen(&content, world.cx.now));
    assert_eq!(world.events().len(), 1);
    assert!(!broadcasts.judge(&content, id(NEIGHBOR), &mut world.scope()));
    assert_eq!(world.dropped(), ["broadcasts that were heard before"]);
}

#[test]
fn one_author_has_a_budget_and_its_broadcasts_beyond_it_are_dropped() {
    let mut world = World::new();
    world.knows(AUTHOR);
    let mut broadcasts = Broadcasts::new(world.cx.now);
    let judged = (0..600).map(of_author);
    let passed = judged
        .filter(|content| broadcasts.judge(content, id(NEIGHBOR), &mut world.scope()))
        .count();
    assert_eq!(passed, 512, "what one author may send at once");
    assert!(world.dropped().contains(&"broadcasts over the budget of an author"));
}

#[test]
fn a_forged_broadcast_is_not_forwarded() {
    let mut world = World::new();
    world.knows(AUTHOR);
    let mut broadcasts = Broadcasts::new(world.cx.now);
    let mut forged = of_author(0).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(!broadcasts.judge(&forged.into(), id(NEIGHBOR), &mut world.scope()));
    let out = world.out();
    let forged = |out: &OutEvent| {
        matches!(out, OutEvent::Dropped { what: DropReason::RecordsForgedOrMalformed, .. })
    };
    assert!(out.iter().any(forged), "{out:?}");
}
