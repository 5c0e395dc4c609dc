//! Contacts without a network: which peers a node dials, when, and how it reports its reach.

use super::{
    super::world::{World, new_record},
    *,
};
use crate::tests::{ME, id, node};

const PEER: u8 = 2;
const OTHER: u8 = 3;
const NOBODY: [EndpointId; 0] = [];

fn contacts(world: &World) -> Contacts {
    Contacts::new(&world.config)
}

/// Names bootstrap peers with these numbers.
fn add(contacts: &mut Contacts, world: &mut World, numbers: impl IntoIterator<Item = u8>) {
    let peers = numbers.into_iter().map(|number| (id(number), node(number, 1).addresses));
    contacts.add_bootstrap(peers.collect(), &mut world.scope());
}

/// Moves the time to the next timeout, and handles it. Returns the peers to contact.
fn serve(contacts: &mut Contacts, world: &mut World) -> Vec<EndpointId> {
    world.cx.now = contacts.next_timeout().expect("something is due").max(world.cx.now);
    let contact = |effect| match effect {
        Effect::Contact(peer) => peer,
        other => panic!("contacts ask for contacts only: {other:?}"),
    };
    contacts.on_timeout(&mut world.scope()).into_inner().into_iter().map(contact).collect()
}

#[test]
fn a_node_that_knows_nobody_waits_to_be_found() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    add(&mut contacts, &mut world, [ME]);
    assert_eq!(contacts.next_timeout(), None, "a node is no bootstrap peer of itself");
    let lowest = finds_by_id(&world).remove(0);
    contacts.found(lowest, Vec::new(), &mut world.scope());
    assert!(contacts.next_timeout().unwrap() <= world.cx.now + FOUND_SPREAD);
    assert_eq!(serve(&mut contacts, &mut world), [lowest]);
}

/// Returns peers by their ids: some of them are lower than that of this node.
fn finds_by_id(world: &World) -> Vec<EndpointId> {
    let mut ids: Vec<_> = (10..60).map(id).collect();
    ids.sort_unstable();
    assert!(ids[0] < id(ME) && id(ME) < ids[49], "{:?}", world.cx.now);
    ids
}

#[test]
fn nodes_that_start_together_dial_the_lowest_id_which_waits_for_them() {
    let mut world = World::new();
    let mut higher = finds_by_id(&world);
    let lower = higher.iter().filter(|peer| **peer < id(ME)).count();
    let lowest = higher.remove(0);
    higher.drain(..lower - 1);
    let mut contacts = contacts(&world);
    for peer in &higher {
        contacts.found(*peer, Vec::new(), &mut world.scope());
    }
    let waits = contacts.next_timeout().unwrap();
    assert!(waits >= world.cx.now + world.config.redial_min, "all others are higher");
    contacts.found(lowest, Vec::new(), &mut world.scope());
    assert!(contacts.next_timeout().unwrap() <= world.cx.now + FOUND_SPREAD);
    assert_eq!(serve_and_dial(&mut contacts, &mut world), [lowest]);
    assert_eq!(serve_and_dial(&mut contacts, &mut world), [higher[0]], "if that is late");
}

#[test]
fn finds_wait_for_a_bootstrap_peer_to_answer() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    add(&mut contacts, &mut world, [PEER]);
    contacts.found(id(OTHER), Vec::new(), &mut world.scope());
    assert_eq!(serve_and_dial(&mut contacts, &mut world), [id(PEER)]);
    let soonest = world.cx.now + world.config.redial_min;
    contacts.found(id(10), Vec::new(), &mut world.scope());
    assert!(
        contacts.next_timeout().unwrap() >= soonest.min(world.cx.now + world.config.redial_min)
    );
    assert_eq!(serve_and_dial(&mut contacts, &mut world).len(), 2, "the peer again, and one find");
}

#[test]
fn many_bootstrap_peers_are_dialed_a_few_at_a_time_and_each_has_its_turn() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    add(&mut contacts, &mut world, 10..22);
    let mut dialed = BTreeSet::new();
    for _ in 0..4 {
        let peers = serve(&mut contacts, &mut world);
        assert_eq!(peers.len(), DIALS);
        dialed.extend(peers);
    }
    assert_eq!(dialed.len(), 12, "the least recently tried go first");
    while contacts.redial_delay < world.config.redial_max {
        serve(&mut contacts, &mut world);
    }
    assert_eq!(serve(&mut contacts, &mut world).len(), 12, "in the end all that there are");
}

#[test]
fn a_completed_sync_and_a_link_leave_only_missing_bootstrap_peers_to_dial() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    add(&mut contacts, &mut world, [PEER, OTHER]);
    world.knows(PEER);
    contacts.opened(id(PEER), &mut world.scope());
    assert_eq!(serve(&mut contacts, &mut world).len(), 2, "no sync was completed yet");
    contacts.synced(&mut world.scope());
    let mut delays = Vec::new();
    for _ in 0..4 {
        let before = world.cx.now;
        assert_eq!(serve(&mut contacts, &mut world), [id(OTHER)], "the other one is in the book");
        delays.push(world.cx.now - before);
    }
    assert!(delays[3] > delays[1], "it is dialed more and more rarely: {delays:?}");
}

#[test]
fn a_bootstrap_peer_whose_link_broke_is_dialed_although_it_is_in_the_book() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    add(&mut contacts, &mut world, [PEER]);
    world.knows(PEER);
    contacts.opened(id(OTHER), &mut world.scope());
    contacts.synced(&mut world.scope());
    assert_eq!(serve(&mut contacts, &mut world), NOBODY);
    contacts.link_down(&id(PEER), LinkEnd::Lost, &mut world.scope());
    assert_eq!(contacts.next_timeout(), Some(world.cx.now + LOST_AFTER));
    assert_eq!(serve(&mut contacts, &mut world), [id(PEER)]);
    contacts.on_applied(&new_record(PEER, Applied::Updated), &mut world.scope());
    assert_eq!(serve(&mut contacts, &mut world), NOBODY, "it was heard of again");
}

#[test]
fn isolation_is_reported_a_second_after_the_last_link_and_taken_back_by_the_next() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    world.knows(PEER);
    contacts.opened(id(PEER), &mut world.scope());
    assert_eq!(world.events(), [TopicEvent::Opened(id(PEER))]);
    contacts.unlinked(&id(PEER), false, &mut world.scope());
    world.pass(ISOLATED_AFTER);
    while contacts.next_timeout().unwrap() <= world.cx.now {
        let _ = contacts.on_timeout(&mut world.scope());
    }
    assert_eq!(world.events(), [TopicEvent::Isolated]);
    contacts.opened(id(PEER), &mut world.scope());
    assert_eq!(world.events(), [TopicEvent::Opened(id(PEER)), TopicEvent::Reconnected]);
}

#[test]
fn a_node_that_leaves_looks_for_nobody() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    contacts.opened(id(PEER), &mut world.scope());
    world.leaving = true;
    contacts.unlinked(&id(PEER), true, &mut world.scope());
    assert!(!contacts.is_synced());
    contacts.stop();
    assert_eq!(contacts.next_timeout(), None);
}

#[test]
fn an_avoided_peer_is_chosen_again_after_a_while_or_once_it_is_linked() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    for peer in [PEER, OTHER] {
        world.knows(peer);
        contacts.avoid(id(peer), &mut world.scope());
    }
    assert_eq!(world.scope().random_members(2, &BTreeSet::new()), NOBODY);
    contacts.link_up(&id(OTHER), &mut world.scope());
    assert_eq!(world.scope().random_members(2, &BTreeSet::new()), [id(OTHER)]);
    world.pass(AVOID);
    assert_eq!(world.scope().random_members(2, &BTreeSet::new()).len(), 2);
}

#[test]
fn half_of_the_likely_members_are_such_that_this_node_reached() {
    let mut world = World::new();
    for member in [PEER, OTHER] {
        world.knows(member);
    }
    for number in 10..100 {
        world.hears_of(number);
    }
    let mut chosen = |count| world.scope().likely_members(count, &BTreeSet::new());
    let is_reached = |peer: &EndpointId| [id(PEER), id(OTHER)].contains(peer);
    let (mut once, mut others) = (0, 0);
    for _ in 0..60 {
        once += chosen(1).into_iter().filter(is_reached).count();
        let eight = chosen(8);
        assert_eq!(eight.iter().collect::<BTreeSet<_>>().len(), 8);
        assert_eq!(eight.iter().filter(|peer| is_reached(peer)).count(), 2);
        others += chosen(3).into_iter().filter(|peer| !is_reached(peer)).count();
    }
    assert!((15..50).contains(&once), "{once} of 60");
    assert!((60..=120).contains(&others), "{others} of 180");
    assert_eq!(chosen(200).len(), 92);
}

#[test]
fn finds_are_limited_and_counted_and_forgotten_once_they_are_members() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    for number in 0..MAX_FOUND {
        contacts.found(id(u8::try_from(number).unwrap() + 10), Vec::new(), &mut world.scope());
    }
    assert_eq!(world.dropped(), [] as [&str; 0]);
    contacts.found(id(PEER), Vec::new(), &mut world.scope());
    assert_eq!(world.dropped(), ["peers found by a lookup over the limit"]);
    contacts.on_applied(&new_record(10, Applied::Joined), &mut world.scope());
    contacts.found(id(PEER), Vec::new(), &mut world.scope());
    assert_eq!(world.dropped(), [] as [&str; 0]);
    assert_eq!(world.peers.sizes()[2], ("found", MAX_FOUND));
}

#[test]
fn kept_members_are_dialed_least_often_dialed_first_and_trusted_a_limited_number_of_times() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    let now = world.cx.now;
    for number in 10..14 {
        assert!(world.book.remember(crate::tests::signed(number, 1), 0, false, now));
    }
    contacts.on_kept(&mut world.scope());
    let mut dialed = serve(&mut contacts, &mut world);
    assert_eq!(dialed.len(), DIALS);
    for peer in &dialed {
        assert_eq!(contacts.dial(*peer, &mut world.scope()), LinkRequest::Dialing);
    }
    let next = serve(&mut contacts, &mut world);
    dialed.extend(next.first());
    assert_eq!(BTreeSet::from_iter(dialed).len(), 4, "the one that was not dialed comes first");
    assert_eq!(world.peers.kept_dials, 3);
    assert!(world.scope().is_trusted(&id(10)));
    world.peers.kept_dials = 64;
    assert!(!world.scope().is_trusted(&id(10)), "made-up members are limited as strangers are");
}

/// Finds many peers, as nodes of a local network do that start together, and dials for a time. No
/// dial ends. Returns the peers that were dialed.
fn dial_finds(contacts: &mut Contacts, world: &mut World, time: Duration) -> Vec<EndpointId> {
    let start = world.cx.now;
    let mut dialed = Vec::new();
    for number in 10..60 {
        world.cx.now = start + Duration::from_millis(20) * u32::from(number - 10);
        contacts.found(id(number), node(number, 1).addresses, &mut world.scope());
        while contacts.next_timeout().is_some_and(|at| at <= world.cx.now) {
            dialed.extend(serve_and_dial(contacts, world));
        }
    }
    while contacts.next_timeout().is_some_and(|at| at <= start + time) {
        dialed.extend(serve_and_dial(contacts, world));
    }
    dialed
}

fn serve_and_dial(contacts: &mut Contacts, world: &mut World) -> Vec<EndpointId> {
    let peers = serve(contacts, world);
    for peer in &peers {
        contacts.dial(*peer, &mut world.scope());
    }
    peers
}

#[test]
fn a_burst_of_finds_makes_no_burst_of_dials() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    let dialed = dial_finds(&mut contacts, &mut world, Duration::from_secs(10));
    assert_eq!(dialed.len(), FOUND_UNDER_WAY, "nobody else is dialed while these are under way");
    assert_eq!(BTreeSet::from_iter(&dialed).len(), dialed.len());
}

#[test]
fn a_node_that_is_behind_dials_no_find_while_it_waits_for_another_peer() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    add(&mut contacts, &mut world, [PEER]);
    contacts.found(id(OTHER), Vec::new(), &mut world.scope());
    assert_eq!(serve_and_dial(&mut contacts, &mut world), [id(PEER)]);
    world.cx.now = contacts.next_timeout().unwrap();
    world.cx.fall_behind(Duration::from_secs(1));
    assert_eq!(serve(&mut contacts, &mut world), [id(PEER)]);
    world.pass(Duration::from_secs(2));
    assert_eq!(serve(&mut contacts, &mut world).len(), 2, "it has caught up");
}

#[test]
fn a_linked_node_dials_one_find_every_two_seconds() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    contacts.opened(id(PEER), &mut world.scope());
    contacts.synced(&mut world.scope());
    let dialed = dial_finds(&mut contacts, &mut world, Duration::from_secs(6));
    assert!((2..=3).contains(&dialed.len()), "{dialed:?}");
}

fn learn(contacts: &mut Contacts, world: &mut World, number: u8, address: u8) -> Vec<EndpointId> {
    let address = node(address, 1).addresses.remove(0);
    let effects = contacts.learned(id(number), address, &mut world.scope());
    let contact = |effect| match effect {
        Effect::Contact(peer) => peer,
        other => panic!("only a contact follows: {other:?}"),
    };
    effects.into_inner().into_iter().map(contact).collect()
}

#[test]
fn a_peer_behind_a_name_is_dialed_at_once_beyond_the_budget_of_strangers() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    for number in 10..60 {
        assert_eq!(learn(&mut contacts, &mut world, number, number), [id(number)]);
        assert_eq!(contacts.dial(id(number), &mut world.scope()), LinkRequest::Dialing);
    }
    assert_eq!(world.dropped(), [] as [&str; 0]);
    assert!(contacts.next_timeout().unwrap() <= world.cx.now + world.config.redial_min);
}

#[test]
fn a_node_in_contact_asks_a_peer_behind_a_name_only_if_the_book_lacks_it() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    world.knows(PEER);
    assert_eq!(learn(&mut contacts, &mut world, ME, PEER), NOBODY);
    assert_eq!(learn(&mut contacts, &mut world, PEER, PEER), [id(PEER)], "nobody is linked");
    contacts.opened(id(OTHER), &mut world.scope());
    assert_eq!(learn(&mut contacts, &mut world, PEER, PEER), NOBODY);
    assert_eq!(learn(&mut contacts, &mut world, OTHER, OTHER), [id(OTHER)]);
}

#[test]
fn a_peer_at_the_address_of_another_takes_its_place_among_the_finds() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    learn(&mut contacts, &mut world, PEER, 9);
    learn(&mut contacts, &mut world, OTHER, 9);
    assert_eq!(world.peers.found.keys().copied().collect::<Vec<_>>(), [id(OTHER)]);
}

#[test]
fn a_find_that_does_not_answer_makes_room_for_another() {
    let mut world = World::new();
    let mut contacts = contacts(&world);
    for number in 0..MAX_FOUND {
        contacts.found(id(u8::try_from(number).unwrap() + 10), Vec::new(), &mut world.scope());
    }
    contacts.avoid(id(20), &mut world.scope());
    contacts.found(id(PEER), Vec::new(), &mut world.scope());
    assert_eq!(world.dropped(), [] as [&str; 0]);
    let found = &world.peers.found;
    assert!(found.contains_key(&id(PEER)) && !found.contains_key(&id(20)));
    assert_eq!(found.len(), MAX_FOUND);
}
