//! A leave without a network: which peers get it, and when it is done.

use super::{super::world::World, *};
use crate::{
    OutEvent, Status,
    tests::{ME, id, node, sign},
};

const PEER: u8 = 2;
const MEMBER: u8 = 5;

fn record() -> SignedRecord {
    sign(crate::NodeRecord { status: Status::Left, ..node(ME, 7) })
}

fn quits(effects: Effects) -> bool {
    effects.into_inner().contains(&Effect::QuitOverlay)
}

#[test]
fn a_leave_is_done_once_all_linked_peers_acknowledged_it() {
    let mut world = World::new();
    world.links(PEER);
    world.links(MEMBER);
    world.knows(MEMBER);
    let mut leave = Leave::default();
    let effects = leave.begin(Some(record()), &mut world.scope()).into_inner();
    assert!(matches!(effects[..], [Effect::Broadcast(_)]), "{effects:?}");
    let frame = TopicFrame::Leave(record().bytes().clone());
    let notified: BTreeSet<_> = world
        .sent()
        .into_iter()
        .map(|(peer, sent)| {
            assert_eq!(sent, frame);
            peer
        })
        .collect();
    assert_eq!(notified, BTreeSet::from([PEER, MEMBER].map(id)));
    assert!(!quits(leave.acknowledged(id(PEER), 6)), "of an earlier record");
    assert!(!quits(leave.acknowledged(id(PEER), 7)));
    assert!(!leave.is_done());
    assert!(quits(leave.gone(id(MEMBER))));
    assert!(leave.is_done());
    assert!(!quits(leave.on_timeout()), "once");
    assert_eq!(leave.into_notified().len(), 2);
}

#[test]
fn a_leave_that_nobody_acknowledges_ends_with_its_time() {
    let mut world = World::new();
    world.links(PEER);
    let mut leave = Leave::default();
    let _ = leave.begin(Some(record()), &mut world.scope());
    assert_eq!(leave.next_timeout(), Some(world.cx.now + world.config.leave_timeout));
    assert!(quits(leave.on_timeout()));
}

#[test]
fn a_node_without_a_linked_member_dials_some_to_notify_them() {
    let mut world = World::new();
    world.knows(MEMBER);
    let mut leave = Leave::default();
    assert!(!quits(leave.begin(Some(record()), &mut world.scope())));
    let is_dial = |out: &OutEvent| matches!(out, OutEvent::Dial(peer, _) if *peer == id(MEMBER));
    assert!(world.out().iter().any(is_dial));
    world.links(MEMBER);
    leave.link_up(id(MEMBER), &mut world.scope());
    assert_eq!(world.sent().len(), 1);
    assert!(quits(leave.acknowledged(id(MEMBER), 7)));
}

#[test]
fn a_node_that_nobody_knows_or_that_can_sign_nothing_leaves_at_once() {
    let mut world = World::new();
    assert!(quits(Leave::default().begin(Some(record()), &mut world.scope())));
    world.links(PEER);
    assert!(quits(Leave::default().begin(None, &mut world.scope())));
    assert_eq!(world.sent(), []);
}
