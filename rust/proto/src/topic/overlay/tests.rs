//! The place in the overlay without a network: entering it, giving way, and what peers may send.

use super::{super::world::World, entry::JOIN_FALLBACK, *};
use crate::{
    event::OutEvent,
    tests::{ME, id, signed},
};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn neighborhood(world: &World) -> Neighborhood {
    let mut overlay = Overlay::new(id(ME), world.config.neighbors, [1; 32]);
    overlay.set_record(signed(ME, 1).bytes(), world.cx.now);
    Neighborhood::new(overlay)
}

fn request(peer: u8, high: bool) -> OverlayFrame {
    OverlayFrame::Neighbor { high, record: signed(peer, 1).bytes().clone() }
}

/// Carries out what the overlay requests, as the router does. Returns the neighbors that went.
fn drive(neighborhood: &mut Neighborhood, world: &mut World) -> Vec<EndpointId> {
    let mut gone = Vec::new();
    loop {
        let outputs = neighborhood.poll(Duration::ZERO);
        if outputs.is_empty() {
            return gone;
        }
        for output in outputs {
            let scope = &mut world.narrow_scope();
            match output {
                Output::Send(peer, frame) => neighborhood.send(peer, frame, scope),
                Output::Up(peer) => neighborhood.neighbor_up(peer, scope),
                Output::Down(peer) => {
                    neighborhood.neighbor_down(peer, scope);
                    neighborhood.look_for_neighbors(scope);
                    gone.push(peer);
                }
            }
        }
    }
}

/// A peer asks to be a neighbor. Returns whether the request reached the overlay, and the neighbors
/// that went.
fn ask(
    neighborhood: &mut Neighborhood,
    world: &mut World,
    peer: u8,
    high: bool,
) -> (bool, Vec<EndpointId>) {
    let may = neighborhood.make_room(id(peer), high, &mut world.narrow_scope());
    let mut gone = drive(neighborhood, world);
    if may {
        neighborhood.receive(id(peer), id(peer), request(peer, high), &mut world.narrow_scope());
        gone.extend(drive(neighborhood, world));
    }
    neighborhood.handled();
    (may, gone)
}

/// A node whose active view is full.
fn full() -> (World, Neighborhood) {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    let most = u8::try_from(world.config.neighbors).unwrap();
    for peer in 10..10 + most {
        world.knows(peer);
        world.links(peer);
        assert_eq!(ask(&mut neighborhood, &mut world, peer, true), (true, vec![]));
        world.pass(S);
    }
    assert_eq!(neighborhood.neighbors().len(), usize::from(most));
    (world, neighborhood)
}

/// Returns the frames of the overlay that were sent since the last call.
fn sent(world: &mut World) -> Vec<(EndpointId, OverlayFrame)> {
    let overlay = |(peer, frame)| match frame {
        TopicFrame::Overlay(frame) => Some((peer, frame)),
        _ => None,
    };
    world.sent().into_iter().filter_map(overlay).collect()
}

#[test]
fn frames_over_the_budget_of_a_peer_are_dropped_and_counted() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    let join = OverlayFrame::Join(signed(10, 1).bytes().clone());
    let mut admitted = 0;
    while neighborhood.admit(id(10), &join, 0, &mut world.narrow_scope()) {
        admitted += 1;
    }
    assert_eq!(admitted, 64, "4 MiB of joins that cost 64 KiB each");
    assert_eq!(world.dropped(), ["overlay frames over the budget of a peer"]);
    assert!(neighborhood.admit(id(10), &OverlayFrame::Prune, 0, &mut world.narrow_scope()));
    assert!(neighborhood.admit(id(11), &join, 0, &mut world.narrow_scope()), "others have theirs");
}

#[test]
fn a_full_view_makes_room_for_urgent_requests_but_anchors_stay() {
    let (mut world, mut neighborhood) = full();
    let before = neighborhood.neighbors().clone();
    world.links(50);
    let (may, gone) = ask(&mut neighborhood, &mut world, 50, true);
    assert!(may && gone.len() == 1, "{gone:?}");
    assert!(![id(10), id(11)].contains(&gone[0]), "the first two are anchors");
    assert!(neighborhood.is_neighbor(&id(50)));
    assert_eq!(neighborhood.neighbors().len(), before.len());
}

#[test]
fn a_peer_that_pushes_out_neighbors_again_and_again_is_refused_and_notified() {
    let (mut world, mut neighborhood) = full();
    world.links(50);
    // All others have forwarded something, so none gives way because it is silent.
    (10..50).for_each(|peer| neighborhood.heard(&id(peer)));
    let mut pushed = 0;
    while neighborhood.make_room(id(50), true, &mut world.narrow_scope()) {
        pushed += 1;
        drive(&mut neighborhood, &mut world);
        let filler = 60 + pushed;
        world.links(filler);
        neighborhood.receive(
            id(filler),
            id(filler),
            request(filler, true),
            &mut world.narrow_scope(),
        );
        drive(&mut neighborhood, &mut world);
        sent(&mut world);
    }
    assert_eq!(pushed, 4);
    assert_eq!(sent(&mut world), [(id(50), OverlayFrame::Disconnect { alive: true })]);
}

#[test]
fn a_request_waits_for_its_dial_and_other_frames_do_not() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    world.knows(10);
    for _ in 0..2 * MAX_WAITING {
        neighborhood.send(id(10), request(ME, true), &mut world.narrow_scope());
    }
    neighborhood.send(id(10), OverlayFrame::Prune, &mut world.narrow_scope());
    neighborhood.send(id(11), request(ME, true), &mut world.narrow_scope());
    assert!(neighborhood.needs(&id(10)));
    assert!(!neighborhood.needs(&id(11)), "it is no member");
    world.links(10);
    neighborhood.link_up(&id(10), &mut world.narrow_scope());
    let sent = sent(&mut world);
    assert_eq!(sent.len(), MAX_WAITING);
    assert!(sent.iter().all(|(_, frame)| *frame == request(ME, true)), "{sent:?}");
    assert!(!neighborhood.needs(&id(10)));
}

#[test]
fn a_newcomer_enters_through_one_member_and_asks_a_linked_one_if_it_does_not_answer() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    world.knows(10);
    neighborhood.enter_after_sync(&mut world.narrow_scope());
    world.knows(11);
    world.links(11);
    world.cx.now = neighborhood.next_timeout().unwrap();
    assert_eq!(neighborhood.on_timeout(&mut world.narrow_scope()), Effects::none());
    drive(&mut neighborhood, &mut world);
    assert!(neighborhood.is_entering() && neighborhood.needs(&id(10)), "the first one is dialed");
    assert_eq!(neighborhood.next_timeout(), Some(world.cx.now + JOIN_FALLBACK));
    world.pass(JOIN_FALLBACK);
    let _ = neighborhood.on_timeout(&mut world.narrow_scope());
    drive(&mut neighborhood, &mut world);
    let sent = sent(&mut world);
    assert!(matches!(&sent[..], [(to, OverlayFrame::Join(_))] if *to == id(11)), "{sent:?}");
}

/// Members that link and then say nothing may be most of those that a newcomer knows.
#[test]
fn a_newcomer_asks_its_bootstrap_peer_next_and_each_member_once() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    for peer in 10..30 {
        world.knows(peer);
        world.links(peer);
    }
    world.names(29);
    neighborhood.enter_after_sync(&mut world.narrow_scope());
    let (began, mut asked) = (world.cx.now, Vec::new());
    while asked.len() < 6 {
        world.cx.now = neighborhood.next_timeout().unwrap();
        let _ = neighborhood.on_timeout(&mut world.narrow_scope());
        drive(&mut neighborhood, &mut world);
        for (to, frame) in sent(&mut world) {
            assert!(matches!(frame, OverlayFrame::Join(_)), "{frame:?}");
            asked.push((to, world.cx.now - began));
        }
    }
    let place = asked.iter().position(|(to, _)| *to == id(29)).unwrap();
    assert!(place < 2 && asked[place].1 < JOIN_FALLBACK * 2, "{asked:?}");
    let different: BTreeSet<_> = asked.iter().map(|(to, _)| *to).collect();
    assert_eq!(different.len(), asked.len(), "{asked:?}");
    assert!(asked[5].1 < S * 12, "{asked:?}");
}

#[test]
fn a_node_that_has_the_member_as_a_neighbor_already_is_in_the_overlay() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    world.knows(10);
    world.links(10);
    ask(&mut neighborhood, &mut world, 10, true);
    neighborhood.enter_soon(&mut world.narrow_scope());
    world.cx.now = neighborhood.next_timeout().unwrap();
    let effects = neighborhood.on_timeout(&mut world.narrow_scope());
    assert_eq!(effects, Effects::one(Effect::Attached));
    assert!(neighborhood.attach(world.cx.now));
    assert!(!neighborhood.attach(world.cx.now), "once");
    assert_eq!(neighborhood.attached(), Some(world.cx.now));
}

#[test]
fn a_node_without_neighbors_is_not_in_the_overlay_and_enters_it_again() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    world.knows(10);
    world.links(10);
    ask(&mut neighborhood, &mut world, 10, true);
    neighborhood.attach(world.cx.now);
    neighborhood.unlinked(id(10), &mut world.narrow_scope());
    assert_eq!(drive(&mut neighborhood, &mut world), [id(10)]);
    assert_eq!(neighborhood.attached(), None);
    assert!(neighborhood.entry.next_timeout().is_some());
    neighborhood.stop();
    assert_eq!(neighborhood.next_timeout(), None);
}

#[test]
fn a_neighbor_that_forwards_nothing_is_replaced_if_there_is_somebody_else() {
    let (mut world, mut neighborhood) = full();
    neighborhood.stop();
    let silent = id(9 + u8::try_from(world.config.neighbors).unwrap());
    for peer in neighborhood.neighbors().clone() {
        if peer != silent {
            neighborhood.heard(&peer);
        }
    }
    world.pass(SILENT_FOR);
    let look = |neighborhood: &mut Neighborhood, world: &mut World| {
        neighborhood.view_timer = Some(world.cx.now);
        neighborhood.on_timeout(&mut world.narrow_scope())
    };
    assert_eq!(look(&mut neighborhood, &mut world), Effects::none(), "nobody else is known");
    world.knows(60);
    world.pass(SILENT_LOOK);
    assert_eq!(look(&mut neighborhood, &mut world), Effects::one(Effect::Avoid(silent)));
    assert_eq!(drive(&mut neighborhood, &mut world), [silent]);
    assert_eq!(world.dropped(), ["neighbors that forwarded nothing"]);
}

#[test]
fn a_stranger_that_takes_us_for_a_neighbor_is_notified_once_a_second() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    world.links(10);
    for _ in 0..3 {
        neighborhood.reject_stranger(id(10), &mut world.narrow_scope());
    }
    assert_eq!(sent(&mut world).len(), 1);
    world.pass(S);
    neighborhood.reject_stranger(id(10), &mut world.narrow_scope());
    assert_eq!(sent(&mut world).len(), 1);
}

/// The beginning of a broadcast of an application.
const BROADCAST: [u8; 4] = [0x81, 0x82, 0x02, 0x40];
/// That of records.
const RECORDS: [u8; 4] = [0x81, 0x82, 0x00, 0x40];

#[test]
fn a_neighbor_that_is_never_the_first_one_is_asked_to_announce_only() {
    let (world, mut neighborhood) = full();
    let now = world.cx.now;
    let again = |neighborhood: &mut Neighborhood| {
        (1..100).find(|_| neighborhood.repeats(&id(10), &BROADCAST, now))
    };
    assert_eq!(again(&mut neighborhood), Some(16));
    assert_eq!(again(&mut neighborhood), Some(16), "what is on its way is no reason to ask again");
    for _ in 0..20 {
        assert!((0..15).all(|_| !neighborhood.repeats(&id(10), &BROADCAST, now)));
        neighborhood.brought(&id(10), now);
    }
    let soon = now + Duration::from_millis(999);
    assert!(!neighborhood.repeats(&id(10), &RECORDS, soon), "the tree of broadcasts stays");
    assert!(neighborhood.repeats(&id(10), &RECORDS, now + S));
    assert!(neighborhood.repeats(&id(11), &RECORDS, now), "Plumtree asks at once");
    assert!(neighborhood.repeats(&id(99), &BROADCAST, now), "no neighbor");
}

#[test]
fn large_broadcasts_are_repeated_up_to_a_budget() {
    let (world, mut neighborhood) = full();
    let large = [&BROADCAST[..], &[0; 8188]].concat();
    let kept = (10..15).cycle().take(1000).take_while(|peer| {
        let peer = id(*peer);
        neighborhood.brought(&peer, world.cx.now);
        !neighborhood.repeats(&peer, &large, world.cx.now)
    });
    assert_eq!(kept.count(), 512, "4 MiB at once");
}

#[test]
fn an_author_sends_its_broadcasts_to_neighbors_that_asked_for_announcements_only() {
    let (mut world, mut neighborhood) = full();
    for peer in [10, 12, 13] {
        neighborhood.receive(id(peer), id(peer), OverlayFrame::Prune, &mut world.narrow_scope());
    }
    sent(&mut world);
    for (content, receivers) in [(BROADCAST, 5), (RECORDS, 2)] {
        let content = bytes::Bytes::copy_from_slice(&content);
        neighborhood.machine().broadcast(content.clone(), world.cx.now);
        drive(&mut neighborhood, &mut world);
        let frames = sent(&mut world);
        let to: BTreeSet<_> = frames.iter().map(|(peer, _)| *peer).collect();
        assert_eq!((frames.len(), to.len()), (receivers, receivers));
        let expected = OverlayFrame::Gossip { round: Some(0), content };
        assert!(frames.iter().all(|(_, frame)| *frame == expected));
    }
}

/// Many nodes join now, and this node is behind.
fn burst(world: &mut World) {
    (100..140).for_each(|newcomer| world.knows(newcomer));
    world.cx.fall_behind(S / 2);
}

/// A newcomer joins here. Returns how many walks begin for it.
fn walks_of_join(world: &mut World, neighborhood: &mut Neighborhood, newcomer: u8) -> usize {
    world.knows(newcomer);
    world.links(newcomer);
    assert!(neighborhood.make_room(id(newcomer), true, &mut world.narrow_scope()));
    drive(neighborhood, world);
    sent(world);
    let join = OverlayFrame::Join(signed(newcomer, 1).bytes().clone());
    neighborhood.receive(id(newcomer), id(newcomer), join, &mut world.narrow_scope());
    drive(neighborhood, world);
    assert!(neighborhood.is_neighbor(&id(newcomer)), "it has its entrance");
    let is_walk =
        |(_, frame): &(_, OverlayFrame)| matches!(frame, OverlayFrame::ForwardJoin { .. });
    sent(world).iter().filter(|sent| is_walk(sent)).count()
}

#[test]
fn a_node_that_is_behind_in_a_burst_begins_one_walk_for_a_newcomer_and_ends_none_in_a_full_view() {
    let (mut world, mut neighborhood) = full();
    let others = neighborhood.neighbors().len() - 1;
    assert!(neighborhood.may_adopt(&mut world.narrow_scope()));
    (60..90).for_each(|newcomer| world.knows(newcomer));
    assert!(neighborhood.may_adopt(&mut world.narrow_scope()), "as long as it is not behind");
    assert_eq!(walks_of_join(&mut world, &mut neighborhood, 50), others);
    burst(&mut world);
    world.dropped();
    assert!(!neighborhood.may_adopt(&mut world.narrow_scope()));
    assert_eq!(world.dropped(), ["walks of newcomers that found no room"]);
    assert_eq!(walks_of_join(&mut world, &mut neighborhood, 51), 1);
}

#[test]
fn a_node_that_is_behind_in_a_burst_dials_for_no_more_than_one_neighbor() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    world.knows(10);
    world.links(10);
    ask(&mut neighborhood, &mut world, 10, true);
    burst(&mut world);
    let dials = |world: &mut World, neighborhood: &mut Neighborhood| {
        let _ = neighborhood.on_view(&mut world.narrow_scope());
        drive(neighborhood, world);
        neighborhood.send(id(100), request(ME, false), &mut world.narrow_scope());
        world.out().iter().filter(|out| matches!(out, OutEvent::Dial(..))).count()
    };
    world.out();
    assert_eq!(dials(&mut world, &mut neighborhood), 0);
    assert!(neighborhood.view_timer.is_some(), "it looks again");
    world.pass(S / 2 + MS);
    assert!(world.cx.lag().is_zero());
    assert_eq!(dials(&mut world, &mut neighborhood), 0, "it was behind just now");
    world.pass(S / 2);
    assert!(dials(&mut world, &mut neighborhood) > 0);
}

#[test]
fn a_newcomer_that_is_behind_in_a_burst_enters_once_its_sync_is_over() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    burst(&mut world);
    neighborhood.enter_soon(&mut world.narrow_scope());
    let enters = |world: &mut World, neighborhood: &mut Neighborhood| {
        world.cx.now = neighborhood.next_timeout().unwrap().max(world.cx.now);
        world.cx.fall_behind(S / 2);
        let _ = neighborhood.on_timeout(&mut world.narrow_scope());
        drive(neighborhood, world);
        neighborhood.is_entering()
    };
    world.syncing = true;
    assert!(!enters(&mut world, &mut neighborhood));
    world.syncing = false;
    assert!(enters(&mut world, &mut neighborhood));
}

#[test]
fn a_broadcast_that_is_late_makes_this_node_request_later_ones_later() {
    let mut world = World::new();
    let mut neighborhood = neighborhood(&world);
    world.links(10);
    ask(&mut neighborhood, &mut world, 10, true);
    let mut waits = |number: u8, twice: bool| {
        let (announced, id_of) = (world.cx.now, [number; 32]);
        let overlay = neighborhood.machine();
        overlay.lag = MS;
        overlay.receive(id(10), id(10), OverlayFrame::IHave(vec![(id_of, 0)]), announced);
        let asked = |output: &Output| {
            matches!(
                output,
                Output::Send(_, OverlayFrame::Graft { id: Some(id), .. }) if *id == id_of
            )
        };
        while !overlay.poll().iter().any(asked) {
            world.cx.now = overlay.next_timer().unwrap();
            overlay.on_timer(world.cx.now);
        }
        if twice {
            overlay.came_twice(&id_of);
        }
        world.cx.now - announced
    };
    let calm = waits(1, false);
    assert_eq!(waits(2, true), calm, "the first one was asked for in time");
    let (once, twice) = (80 * MS, 160 * MS);
    assert_eq!(waits(3, true), calm + once, "what was asked for came on its own");
    assert_eq!(waits(4, false), calm + twice);
    let longest = (5..20).map(|number| waits(number, true)).max().unwrap();
    assert!(longest <= calm + Duration::from_secs(2), "{longest:?}");
}
