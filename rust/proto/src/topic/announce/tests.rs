//! The announcer without a network: heartbeats, jumps above others, refutations.

use super::{super::world::World, *};
use crate::tests::{ME, id, node};

const PEER: u8 = 2;

fn announced() -> (World, Announcer) {
    let mut world = World::new();
    let mut announcer = Announcer::new(Profile::new("me"));
    let effects = announcer.announce(&mut world.scope()).into_inner();
    let record = announcer.own().unwrap().bytes().clone();
    assert_eq!(effects, [Effect::SetRecord(record), Effect::Disseminate(id(ME))]);
    (world, announcer)
}

/// Makes a record that another process signed with this node's key.
fn rival(sequence: u64) -> NodeRecord {
    NodeRecord { boot_id: 9, ..node(ME, sequence) }
}

#[test]
fn heartbeats_come_within_a_third_of_the_expiration() {
    let (mut world, mut announcer) = announced();
    for _ in 0..5 {
        let (before, expiration) = (announcer.sequence(), world.config.expiration_among(1));
        let wait = announcer.next_timeout().unwrap() - world.cx.now;
        assert!(wait <= expiration / 3, "{wait:?} of {expiration:?}");
        world.pass(wait);
        assert_eq!(announcer.on_timeout(&mut world.scope()).into_inner().len(), 2);
        assert_eq!(announcer.sequence(), before + 1);
    }
}

#[test]
fn an_announcement_waits_until_a_sequence_number_is_persisted() {
    let (mut world, mut announcer) = announced();
    world.cx.identity.reserved = 0;
    assert_eq!(announcer.announce(&mut world.scope()), Effects::none());
    assert_eq!(announcer.next_timeout(), None);
    world.cx.identity.reserved = 1 << 40;
    assert_ne!(announcer.announce_if_pending(&mut world.scope()), Effects::none());
    assert_eq!(announcer.announce_if_pending(&mut world.scope()), Effects::none(), "only once");
}

#[test]
fn a_process_that_outruns_this_node_again_and_again_is_a_conflict() {
    let (mut world, mut announcer) = announced();
    let mut conflicts = Vec::new();
    for _ in 0..4 {
        announcer.outrun(&rival(world.cx.identity.sequence + 1), &mut world.scope());
        conflicts.push(world.events().contains(&TopicEvent::IdentityConflict { boot_id: 9 }));
        world.cx.now = announcer.next_timeout().unwrap().max(world.cx.now);
        assert_ne!(announcer.on_timeout(&mut world.scope()), Effects::none());
        assert!(announcer.sequence() > rival(0).sequence);
    }
    assert_eq!(conflicts, [false, false, true, true], "an earlier life outruns it once or twice");
    let profile = Profile::new("new");
    let effects = announcer.set_profile(profile, &mut world.scope()).unwrap();
    assert_eq!(effects, Effects::none(), "no war of announcements");
}

#[test]
fn an_accusation_is_refuted_once_for_a_sequence_number() {
    let (mut world, mut announcer) = announced();
    world.links(PEER);
    let accused = announcer.sequence();
    assert_ne!(announcer.refute(accused, id(PEER), &mut world.scope()), Effects::none());
    assert!(announcer.sequence() > accused);
    let shown = vec![(id(PEER), TopicFrame::Push(vec![announcer.own().unwrap().bytes().clone()]))];
    assert_eq!(world.sent(), shown);
    assert_eq!(announcer.refute(accused, id(PEER), &mut world.scope()), Effects::none());
    assert_eq!(world.sent(), shown, "whoever accuses late is shown the refutation");
    let again = announcer.sequence();
    assert_eq!(announcer.refute(again, id(PEER), &mut world.scope()), Effects::none());
    let next = world.cx.now + world.config.refute_interval();
    assert_eq!(announcer.next_timeout(), Some(next), "refutations have a rate");
}

#[test]
fn a_node_that_leaves_announces_and_refutes_nothing() {
    let (mut world, mut announcer) = announced();
    let leave = announcer.stop(&mut world.scope()).unwrap();
    assert_eq!(leave.record().status, Status::Left);
    assert_eq!(announcer.next_timeout(), None);
    world.leaving = true;
    assert_eq!(announcer.announce(&mut world.scope()), Effects::none());
    assert_eq!(announcer.refute(1 << 30, id(PEER), &mut world.scope()), Effects::none());
}
