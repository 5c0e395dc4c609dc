//! Healing without a network: when lost members are dialed, and when the overlay is joined.

use super::{super::world::World, *};
use crate::tests::{id, signed};

const S: Duration = Duration::from_secs(1);
const LOST: u8 = 5;
const OTHER: u8 = 6;

/// A node in the overlay whose only other member was lost just now.
fn torn() -> (World, Healing) {
    let mut world = World::new();
    world.attached = Some(world.cx.now);
    world.neighbors.insert(id(OTHER));
    world.knows(LOST);
    world.loses(LOST);
    let mut healing = Healing::default();
    healing.on_loss(&mut world.scope());
    (world, healing)
}

fn serve(healing: &mut Healing, world: &mut World) -> Vec<Effect> {
    world.cx.now = healing.next_timeout().expect("something is due").max(world.cx.now);
    healing.on_timeout(&mut world.scope()).into_inner()
}

#[test]
fn a_lost_member_is_dialed_again_and_again_with_growing_delays() {
    let (mut world, mut healing) = torn();
    assert_eq!(serve(&mut healing, &mut world), [Effect::Contact(id(LOST))]);
    let first = healing.next_timeout().unwrap() - world.cx.now;
    for _ in 0..20 {
        assert_eq!(serve(&mut healing, &mut world), [Effect::Contact(id(LOST))]);
    }
    let last = healing.next_timeout().unwrap() - world.cx.now;
    assert!(last > first, "{last:?} after {first:?}");
    assert!(last <= world.config.redial_max.mul_f64(1.2));
    healing.dial_failed(&id(LOST));
    assert_eq!(healing.sizes()[0].1, 0);
}

#[test]
fn nothing_is_dialed_while_nobody_is_lost_or_this_node_leaves() {
    let mut world = World::new();
    let mut healing = Healing::default();
    assert_eq!(healing.on_timeout(&mut world.scope()), Effects::none());
    world.knows(LOST);
    world.loses(LOST);
    world.leaving = true;
    healing.on_loss(&mut world.scope());
    assert_eq!(healing.next_timeout(), None);
    world.leaving = false;
    healing.on_loss(&mut world.scope());
    assert!(healing.next_timeout().is_some());
    healing.stop();
    assert_eq!(healing.next_timeout(), None);
}

#[test]
fn a_partner_behind_a_gap_is_joined_once_it_has_refuted() {
    let (mut world, mut healing) = torn();
    assert_eq!(serve(&mut healing, &mut world), [Effect::Contact(id(LOST))]);
    healing.on_synced(id(LOST), 0, &mut world.scope());
    let is_join = |effect: &Effect| *effect == Effect::JoinOverlay(id(LOST));
    for _ in 0..3 {
        assert!(!serve(&mut healing, &mut world).iter().any(is_join), "it is held to be dead");
    }
    world.book.apply(signed(LOST, 2), Duration::ZERO, world.cx.now);
    let mut joins = 0;
    while healing.next_timeout().is_some() {
        joins += serve(&mut healing, &mut world).iter().filter(|effect| is_join(effect)).count();
    }
    assert_eq!(joins, 1);
}

#[test]
fn a_partner_that_does_not_refute_is_given_up() {
    let mut world = World::new();
    world.attached = Some(world.cx.now);
    let mut healing = Healing::default();
    healing.on_synced(id(OTHER), 2, &mut world.scope());
    for _ in 0..=JOIN_ATTEMPTS {
        assert_eq!(serve(&mut healing, &mut world), []);
    }
    assert_eq!(healing.next_timeout(), None);
}

#[test]
fn a_sync_that_shows_no_gap_joins_nothing() {
    let mut world = World::new();
    let mut healing = Healing::default();
    healing.on_synced(id(OTHER), 9, &mut world.scope());
    assert_eq!(healing.next_timeout(), None, "a newcomer enters the overlay another way");
    world.attached = Some(world.cx.now);
    healing.on_synced(id(OTHER), 1, &mut world.scope());
    assert_eq!(healing.next_timeout(), None, "one record may be on its way by gossip");
    world.neighbors.insert(id(OTHER));
    healing.on_synced(id(OTHER), 9, &mut world.scope());
    assert_eq!(healing.next_timeout(), None, "a neighbor is joined already");
}

#[test]
fn made_up_members_that_are_lost_take_half_of_the_dials_at_most() {
    let (mut world, mut healing) = torn();
    for number in 10..100 {
        world.hears_of(number);
        world.loses(number);
    }
    let dials: Vec<_> = (0..60).flat_map(|_| serve(&mut healing, &mut world)).collect();
    let reached = dials.iter().filter(|dial| **dial == Effect::Contact(id(LOST))).count();
    assert!((15..55).contains(&reached), "{reached} of {}", dials.len());
}

#[test]
fn made_up_members_that_live_do_not_hide_that_reached_ones_were_lost() {
    let mut world = World::new();
    for number in 10..100 {
        world.hears_of(number);
    }
    let mut healing = Healing::default();
    let mut lose = |number, world: &mut World| {
        world.loses(number);
        healing.on_loss(&mut world.scope());
        healing.next_timeout().unwrap() - world.cx.now
    };
    for number in 10..13 {
        assert!(lose(number, &mut world) > S * 2, "nobody had reached {number}");
    }
    for number in [LOST, OTHER, 7] {
        world.knows(number);
    }
    assert!(lose(LOST, &mut world) > S * 2, "one may have crashed");
    assert!(lose(OTHER, &mut world) > S * 2, "two may have crashed");
    assert!(lose(7, &mut world) < S, "all that were reached are lost");
}
