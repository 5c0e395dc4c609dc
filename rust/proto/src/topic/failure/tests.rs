//! The failure detector without a network: probes, suspicions, verdicts, and what follows.

use bytes::Bytes;

use super::{
    super::{effect::Effect, world::World},
    *,
};
use crate::{
    CloseCode, OutEvent, TopicEvent,
    accusation::Accusation,
    tests::{ME, id, key, signed, topic},
    wire::{Frame, TopicFrame},
};

const MEMBER: u8 = 5;
const OTHER: u8 = 6;

/// A node with one linked neighbor among two members.
fn watching() -> (World, Detector) {
    let mut world = World::new();
    let mut detector = Detector::default();
    for member in [MEMBER, OTHER] {
        world.knows(member);
    }
    world.links(MEMBER);
    world.neighbors.insert(id(MEMBER));
    detector.neighbor_up(id(MEMBER), &mut world.scope());
    (world, detector)
}

/// Serves timers, without an answer of any peer, until there is an effect or no timer is set.
fn until_effects(detector: &mut Detector, world: &mut World) -> Vec<Effect> {
    for _ in 0..100 {
        let Some(at) = detector.next_timeout() else { break };
        world.cx.now = at.max(world.cx.now);
        let effects = detector.on_timeout(&mut world.scope()).into_inner();
        if !effects.is_empty() {
            return effects;
        }
    }
    Vec::new()
}

fn accusation(by: u8, of: u8, sequence: u64) -> Accusation {
    Accusation::sign(&key(by), &topic(), id(of), sequence)
}

#[test]
fn a_neighbor_that_does_not_answer_is_accused_and_then_held_to_be_dead() {
    let (mut world, mut detector) = watching();
    let effects = until_effects(&mut detector, &mut world);
    let [Effect::Accuse(accusation), Effect::DropNeighbor(peer)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((accusation.accuser, accusation.accused), (id(ME), id(MEMBER)));
    assert_eq!(*peer, id(MEMBER));
    assert!(world.book.is_suspected(&id(MEMBER)) && detector.needs(&id(MEMBER)));
    detector.neighbor_down(&id(MEMBER));
    world.out();
    let mut next = until_effects(&mut detector, &mut world);
    while next == [Effect::DropNeighbor(id(MEMBER))] {
        // The node probes once more before the verdict.
        next = until_effects(&mut detector, &mut world);
    }
    assert_eq!(next, [Effect::Lost(id(MEMBER))]);
    let events = world.events();
    assert!(
        matches!(events[..], [TopicEvent::PeerSuspected(_), TopicEvent::PeerLost(..)]),
        "{events:?}"
    );
    assert!(world.book.get(&id(MEMBER)).is_none() && !detector.needs(&id(MEMBER)));
}

#[test]
fn a_neighbor_that_was_heard_is_not_probed() {
    let (mut world, mut detector) = watching();
    for _ in 0..20 {
        world.cx.now = detector.next_timeout().unwrap().max(world.cx.now);
        let ack = Frame::Ack.encode();
        world.cx.links.received(
            crate::LinkId(MEMBER.into()),
            crate::Lane::Control,
            &ack,
            world.cx.now,
        );
        assert_eq!(detector.on_timeout(&mut world.scope()), Effects::none());
    }
    assert_eq!(world.cx.counts.probes, 0);
}

#[test]
fn a_newer_record_ends_a_suspicion() {
    let (mut world, mut detector) = watching();
    let accused = accusation(OTHER, MEMBER, 1);
    let judged = detector.judge_accusation(&accused.bytes, id(OTHER), false, &mut world.scope());
    assert_eq!(judged.unwrap(), (true, Effects::one(Effect::Accuse(accused.clone()))));
    assert_eq!(detector.suspected(), 1);
    let again = detector.judge_accusation(&accused.bytes, id(OTHER), false, &mut world.scope());
    assert_eq!(again.unwrap(), (false, Effects::none()), "known");
    world.book.apply(signed(MEMBER, 2), Duration::ZERO, world.cx.now);
    let record = std::sync::Arc::clone(signed(MEMBER, 2).record());
    let effects = detector.on_newer_record(&record, &mut world.scope());
    assert_eq!((effects, detector.suspected()), (Effects::none(), 0));
}

/// The second peer may have missed the refutation that the first one got.
#[test]
fn each_peer_that_brings_a_known_accusation_of_this_node_gets_one_answer_for_each_record() {
    let (mut world, mut detector) = watching();
    let accused = accusation(OTHER, ME, 99);
    let bring = |from: u8, world: &mut World, detector: &mut Detector| {
        let judged = detector.judge_accusation(&accused.bytes, id(from), false, &mut world.scope());
        let (news, effects) = judged.unwrap();
        assert!(!news);
        let refute = Effect::Refute { sequence: 99, from: id(from) };
        assert!(effects == Effects::none() || effects == Effects::one(refute));
        effects != Effects::none()
    };
    assert!(bring(OTHER, &mut world, &mut detector), "the first one");
    assert!(bring(MEMBER, &mut world, &mut detector), "another one");
    assert!((0..1000).all(|_| !bring(MEMBER, &mut world, &mut detector)), "again and again");
    world.cx.identity.sequence += 1;
    assert!(bring(MEMBER, &mut world, &mut detector), "there is a newer record");
    assert!(!bring(MEMBER, &mut world, &mut detector));
    detector.forget_link(&id(MEMBER));
    assert!(bring(MEMBER, &mut world, &mut detector), "a new link");
}

#[test]
fn an_accusation_of_this_node_is_to_be_refuted() {
    let (mut world, mut detector) = watching();
    let accused = accusation(OTHER, ME, 99);
    let judged = detector.judge_accusation(&accused.bytes, id(OTHER), false, &mut world.scope());
    let refute = Effect::Refute { sequence: 99, from: id(OTHER) };
    assert_eq!(judged.unwrap(), (false, Effects::one(refute)));
    let never = accusation(OTHER, ME, 1 << 40);
    let judged = detector.judge_accusation(&never.bytes, id(OTHER), false, &mut world.scope());
    assert_eq!(judged.unwrap(), (false, Effects::none()), "nobody moves another's numbers");
}

#[test]
fn an_unconfirmed_member_is_taken_in_once_it_is_heard() {
    let (mut world, mut detector) = watching();
    let record = signed(9, 3);
    let accused = accusation(OTHER, 9, 3);
    let kept = detector.keep_unconfirmed(
        record.clone(),
        Duration::from_secs(2),
        &accused.bytes,
        id(OTHER),
        &mut world.scope(),
    );
    assert_eq!(kept.unwrap(), Effects::none());
    assert!(world.out().iter().any(|out| matches!(out, OutEvent::Dial(peer, _) if *peer == id(9))));
    world.pass(Duration::from_millis(10));
    let effects = detector.heard(id(9), &mut world.scope());
    let age = Duration::from_millis(2010);
    let ingest = Effect::Ingest { record: record.bytes().clone(), age, from: id(9) };
    assert_eq!(effects, Effects::one(ingest));
    assert_eq!(detector.heard(id(9), &mut world.scope()), Effects::none(), "once");
}

#[test]
fn an_accused_record_that_does_not_verify_closes_the_link() {
    let forged = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    let (record, accusation) = (signed(9, 3).bytes().clone(), accusation(OTHER, 9, 3).bytes);
    for (record, accusation) in
        [(forged(&record), accusation.clone()), (record.clone(), forged(&accusation))]
    {
        let (mut world, mut detector) = watching();
        world.links(OTHER);
        let age = Duration::ZERO;
        let scope = &mut world.scope();
        let outcome = detector.on_accused_record(&record, age, &accusation, id(OTHER), scope);
        assert!(outcome.is_err(), "{outcome:?}");
        let is_close = |out: &OutEvent| matches!(out, OutEvent::Close(_, CloseCode::Protocol));
        assert!(world.out().iter().any(is_close));
    }
}

#[test]
fn a_probe_on_behalf_of_another_is_answered_when_the_peer_is_heard() {
    let (mut world, mut detector) = watching();
    world.links(OTHER);
    detector.on_probe_request(id(ME), id(OTHER), &mut world.scope());
    assert_eq!(world.sent(), [(id(OTHER), TopicFrame::ProbeAck(id(ME)))]);
    detector.on_probe_request(id(MEMBER), id(OTHER), &mut world.scope());
    assert!(detector.needs(&id(MEMBER)));
    assert_eq!(detector.heard(id(MEMBER), &mut world.scope()), Effects::none());
    let sent = world.sent();
    assert!(sent.contains(&(id(OTHER), TopicFrame::ProbeAck(id(MEMBER)))), "{sent:?}");
}
