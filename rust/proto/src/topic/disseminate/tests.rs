//! Dissemination without a network: what is sent, to which peers, and what is spared.

use super::{super::world::World, *};
use crate::{
    tests::{ME, id, key, topic},
    wire::decode_content,
};

const NEIGHBOR: u8 = 2;
const MS: Duration = Duration::from_millis(1);

/// A node with one neighbor that knows these members.
fn among(members: impl IntoIterator<Item = u8>) -> (World, Dissemination) {
    let mut world = World::new();
    world.neighbors.insert(id(NEIGHBOR));
    members.into_iter().for_each(|member| world.knows(member));
    (world, Dissemination::default())
}

/// Moves the time to the next batch. Returns what is sent to newcomers, and the size of each
/// broadcast in items.
fn batch(dissemination: &mut Dissemination, world: &mut World) -> (Vec<Pushed>, Vec<usize>) {
    let at = dissemination.timeout(Timer::Batch).expect("a batch is due");
    world.cx.now = at.max(world.cx.now);
    let (mut pushes, mut sizes) = (Vec::new(), Vec::new());
    for effect in dissemination.on_batch(&mut world.scope()).into_inner() {
        match effect {
            Effect::Push(more) => pushes.extend(more),
            Effect::Broadcast(content) => sizes.push(decode_content(&content).unwrap().len()),
            other => panic!("{other:?}"),
        }
    }
    (pushes, sizes)
}

fn deferred(
    dissemination: &mut Dissemination,
    compared: &BTreeMap<EndpointId, Instant>,
    world: &mut World,
) -> Vec<Effect> {
    let at = dissemination.timeout(Timer::Deferred).expect("something is deferred");
    world.cx.now = at.max(world.cx.now);
    dissemination.on_deferred(compared, &mut world.scope()).into_inner()
}

#[test]
fn records_that_come_together_go_out_in_one_broadcast() {
    let (mut world, mut dissemination) = among(10..13);
    for member in [10, 11, 12, 10] {
        dissemination.send_soon(id(member), &mut world.scope());
        world.pass(MS);
    }
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![3]));
    assert_eq!(dissemination.next_timeout(), None);
}

#[test]
fn more_records_than_fit_are_split_and_none_is_lost() {
    let (mut world, mut dissemination) = among(10..210);
    for member in 10..210 {
        dissemination.send_soon(id(member), &mut world.scope());
    }
    let (_, sizes) = batch(&mut dissemination, &mut world);
    assert!(sizes.len() > 1, "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 200);
}

#[test]
fn records_wait_for_a_neighbor_and_then_go_out_at_once() {
    let (mut world, mut dissemination) = among([10]);
    world.neighbors.clear();
    dissemination.send_soon(id(10), &mut world.scope());
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![]));
    world.neighbors.insert(id(NEIGHBOR));
    dissemination.neighbor_up(&mut world.scope());
    assert_eq!(dissemination.timeout(Timer::Batch), Some(world.cx.now));
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]));
}

/// The own record waits for a batch, and a sync is bringing it to a partner.
fn introducing() -> (World, Dissemination) {
    let (mut world, mut dissemination) = among([ME, 10]);
    world.introducing = world.book.sequence(&id(ME));
    for member in [ME, 10] {
        dissemination.send_soon(id(member), &mut world.scope());
    }
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]), "one waits");
    (world, dissemination)
}

#[test]
fn the_own_record_waits_while_a_sync_brings_it_to_a_partner() {
    let (mut world, mut dissemination) = introducing();
    dissemination.introduction_over(&mut world.scope());
    assert!(dissemination.timeout(Timer::Batch) > Some(world.cx.now), "the sync was begun again");
    world.introducing = None;
    dissemination.introduction_over(&mut world.scope());
    assert_eq!(dissemination.timeout(Timer::Batch), Some(world.cx.now));
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]));

    let (mut world, mut dissemination) = introducing();
    dissemination.spared(&id(ME));
    world.introducing = None;
    dissemination.introduction_over(&mut world.scope());
    assert!(dissemination.timeout(Timer::Batch) > Some(world.cx.now), "the partner forwards it");
}

#[test]
fn the_own_record_waits_two_seconds_at_most_and_a_newer_one_does_not_wait() {
    let (mut world, mut dissemination) = introducing();
    let held = world.cx.now;
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]));
    assert_eq!(world.cx.now, held + HOLD);

    let (mut world, mut dissemination) = introducing();
    world.introducing = Some(0);
    dissemination.send_soon(id(ME), &mut world.scope());
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]));
}

#[test]
fn what_the_overlay_brings_is_not_sent_again_unless_it_was_older() {
    let (mut world, mut dissemination) = among([10, 11]);
    for member in [10, 11] {
        dissemination.send_soon(id(member), &mut world.scope());
        dissemination.defer(id(member), Duration::MAX, &mut world.scope());
    }
    dissemination.overheard(&id(10), false);
    dissemination.overheard(&id(11), true);
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]));
    assert_eq!(dissemination.sizes()[3], ("deferred", 0));
}

#[test]
fn only_while_there_are_newcomers_records_are_pushed_to_them() {
    let (mut world, mut dissemination) = among([10, 11]);
    dissemination.push(id(10), id(NEIGHBOR), &mut world.scope());
    assert_eq!(dissemination.next_timeout(), None);
    world.has_newcomers = true;
    for _ in 0..2 {
        dissemination.push(id(11), id(NEIGHBOR), &mut world.scope());
    }
    let pushed = Pushed { id: id(11), from: id(NEIGHBOR) };
    assert_eq!(batch(&mut dissemination, &mut world), (vec![pushed], vec![]));
}

#[test]
fn news_of_a_sync_is_forwarded_unless_the_neighbors_have_it() {
    let (mut world, mut dissemination) = among([10, 11]);
    world.pass(MS);
    let compared = BTreeMap::from([(id(NEIGHBOR), world.cx.now)]);
    dissemination.defer(id(10), Duration::MAX, &mut world.scope());
    assert_eq!(deferred(&mut dissemination, &compared, &mut world), []);
    assert_eq!(dissemination.next_timeout(), None, "the neighbor has it");
    dissemination.defer(id(11), Duration::MAX, &mut world.scope());
    assert_eq!(deferred(&mut dissemination, &BTreeMap::new(), &mut world), []);
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]));
}

#[test]
fn a_newcomer_on_its_way_to_all_is_deferred_longer_than_an_update() {
    let (mut world, mut dissemination) = among([10, 11]);
    dissemination.defer(id(10), Duration::ZERO, &mut world.scope());
    assert!(dissemination.next_timeout().unwrap() >= world.cx.now + UNDER_WAY);
    dissemination.defer(id(11), Duration::MAX, &mut world.scope());
    assert!(dissemination.next_timeout().unwrap() < world.cx.now + UNDER_WAY);
}

#[test]
fn if_much_is_deferred_neighbors_are_synced_first_and_it_is_forwarded_in_the_end() {
    let members: Vec<u8> = (10..11 + u8::try_from(FEW).unwrap()).collect();
    let (mut world, mut dissemination) = among(members.clone());
    for member in &members {
        dissemination.defer(id(*member), Duration::MAX, &mut world.scope());
    }
    world.pass(Duration::from_secs(1));
    let began = world.cx.now;
    let asks = deferred(&mut dissemination, &BTreeMap::new(), &mut world);
    assert_eq!(asks.len(), members.len());
    assert!(asks.iter().all(|effect| *effect == Effect::Sync(id(NEIGHBOR))), "{asks:?}");
    while dissemination.timeout(Timer::Batch).is_none() {
        let _ = deferred(&mut dissemination, &BTreeMap::new(), &mut world);
    }
    assert!(world.cx.now - began >= ASK_FOR);
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![members.len()]));
}

#[test]
fn accusations_are_limited_and_forgotten_once_they_are_refuted() {
    let (mut world, mut dissemination) = among([10, 11]);
    let accuse = |of: u8, sequence| Accusation::sign(&key(1), &topic(), id(of), sequence);
    dissemination.accuse(accuse(10, 1), &mut world.scope());
    dissemination.accuse(accuse(11, 0), &mut world.scope());
    assert_eq!(batch(&mut dissemination, &mut world), (vec![], vec![1]), "one is outdated");
    let again = accuse(10, 1);
    for _ in 0..MAX_ACCUSATIONS {
        dissemination.accuse(again.clone(), &mut world.scope());
    }
    assert_eq!(world.dropped(), [] as [&str; 0]);
    dissemination.accuse(again, &mut world.scope());
    assert_eq!(world.dropped(), ["accusations that could not be disseminated"]);
    dissemination.stop();
    assert_eq!(dissemination.sizes()[1], ("accusations", 0));
    assert_eq!(dissemination.next_timeout(), None);
}

#[test]
fn a_content_is_seen_for_as_long_as_it_may_be_on_its_way() {
    let (world, mut dissemination) = among([]);
    let now = world.cx.now;
    dissemination.saw(b"content", now);
    assert!(dissemination.has_seen(b"content", now + MS));
    assert!(!dissemination.has_seen(b"other", now + MS));
    assert!(!dissemination.has_seen(b"content", now + super::super::seen::IN_FLIGHT));
}
