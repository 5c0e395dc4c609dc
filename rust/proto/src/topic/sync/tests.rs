//! Syncs without a network: when sessions start and end, and which peers are served.

use super::{
    super::world::World,
    audience::NEWCOMER_HELP,
    schedule::{GAP_AGE, RANDOM_SYNC_FIRST},
    *,
};
use crate::{
    event::Lane,
    tests::{ME, id},
    wire::{Frame, Range, RangeContent},
};

const PEER: u8 = 2;
const OTHER: u8 = 3;
const LINK: LinkId = LinkId(PEER as u64);

/// A node in the overlay that is linked to two members.
fn linked() -> (World, Syncs) {
    let mut world = World::new();
    world.attached = Some(world.cx.now);
    world.synced = true;
    world.knows(ME);
    for peer in [PEER, OTHER] {
        world.knows(peer);
        world.links(peer);
    }
    let syncs = Syncs::new(&world.config);
    (world, syncs)
}

fn frame(session: u64, from_initiator: bool, attached: bool, turn: Turn) -> SyncFrame {
    let (ranges, entries, wants) = (Vec::new(), Vec::new(), Vec::new());
    let observer = false;
    SyncFrame { session, from_initiator, attached, turn, ranges, entries, wants, observer }
}

/// Takes in a frame of a peer, whose entries brought `news` new records.
fn receive(
    syncs: &mut Syncs,
    world: &mut World,
    peer: u8,
    frame: &SyncFrame,
    news: usize,
) -> Vec<Effect> {
    let link = LinkId(peer.into());
    let Some(mut effects) = syncs.admit(id(peer), link, frame, &mut world.scope()) else {
        return Vec::new();
    };
    let brought = Brought { news, ..Brought::default() };
    effects.append(syncs.on_frame(id(peer), link, frame, brought, &mut world.scope()));
    effects.into_inner()
}

/// Moves the time to a timeout, and handles it.
fn serve(syncs: &mut Syncs, world: &mut World, timer: Timer) -> Vec<Effect> {
    world.cx.now = syncs.timeout(timer).expect("it is set").max(world.cx.now);
    syncs.on_timeout(timer, &mut world.scope()).into_inner()
}

/// Returns the peers to which a frame of a sync was sent since the last call.
fn asked(world: &mut World) -> Vec<EndpointId> {
    let syncs = world.sent().into_iter().filter(|(_, frame)| matches!(frame, TopicFrame::Sync(_)));
    syncs.map(|(peer, _)| peer).collect()
}

#[test]
fn a_sync_waits_for_its_dial_and_goes_on_once_at_a_time() {
    let mut world = World::new();
    let mut syncs = Syncs::new(&world.config);
    let _ = syncs.contact(id(PEER), LinkRequest::Dialing, &mut world.scope());
    let _ = syncs.contact(id(OTHER), LinkRequest::Dialing, &mut world.scope());
    syncs.dial_failed(&id(OTHER));
    world.links(OTHER);
    let _ = syncs.link_up(id(OTHER), &mut world.scope());
    assert_eq!(asked(&mut world).len(), 0, "it is not wanted any more");
    world.links(PEER);
    let _ = syncs.link_up(id(PEER), &mut world.scope());
    assert_eq!(asked(&mut world), [id(PEER)]);
    assert!(syncs.is_asking(&id(PEER)) && syncs.needs(&id(PEER)));
    let _ = syncs.start(id(PEER), &mut world.scope());
    assert_eq!(asked(&mut world).len(), 0, "it goes on already");
    assert!(syncs.unlinked(id(PEER)));
    assert!(!syncs.needs(&id(PEER)));
}

#[test]
fn a_completed_sync_reports_how_much_differed_and_other_sessions_are_ignored() {
    let (mut world, mut syncs) = linked();
    let _ = syncs.start(id(PEER), &mut world.scope());
    let foreign = frame(99, false, true, Turn::Done);
    assert!(syncs.admit(id(PEER), LINK, &foreign, &mut world.scope()).is_none());
    let last = frame(1, false, true, Turn::Done);
    let effects = receive(&mut syncs, &mut world, PEER, &last, 3);
    assert_eq!(effects, [Effect::Synced { peer: id(PEER), differed: 3 }]);
    assert_eq!(world.events(), [TopicEvent::Synced(id(PEER))]);
    assert!(syncs.timeout(Timer::Trickle).is_some(), "more may differ");
    assert!(!syncs.is_asking(&id(PEER)));
}

#[test]
fn a_stalled_sync_that_is_wanted_soon_is_started_again_and_given_up_in_the_end() {
    for (answers_pings, tries) in [(true, TRIES), (false, 1)] {
        let (mut world, mut syncs) = linked();
        world.synced = false;
        let _ = syncs.start(id(PEER), &mut world.scope());
        let mut effects = Vec::new();
        let began = world.cx.now;
        while effects.is_empty() {
            effects = serve(&mut syncs, &mut world, Timer::Sessions);
            if answers_pings {
                world.cx.links.received(LINK, Lane::Control, &Frame::Ack.encode(), world.cx.now);
            }
        }
        assert_eq!(effects, [Effect::SyncFailed]);
        assert_eq!(asked(&mut world).len(), usize::try_from(tries).unwrap());
        assert!(world.cx.now - began < Session::TIMEOUT);
        assert_eq!(syncs.timeout(Timer::Sessions), None);
    }
}

#[test]
fn a_stalled_sync_that_can_wait_has_the_whole_time_and_is_not_started_again() {
    let (mut world, mut syncs) = linked();
    let _ = syncs.start(id(PEER), &mut world.scope());
    let began = world.cx.now;
    assert_eq!(serve(&mut syncs, &mut world, Timer::Sessions), [Effect::SyncFailed]);
    assert_eq!(world.cx.now - began, Session::TIMEOUT);
    assert_eq!(asked(&mut world).len(), 1);
}

#[test]
fn a_link_that_is_gone_ends_its_syncs_and_no_others() {
    let (mut world, mut syncs) = linked();
    let _ = syncs.start(id(PEER), &mut world.scope());
    assert_eq!(syncs.link_gone(id(PEER), LinkId(77), &mut world.scope()), Effects::none());
    assert!(syncs.is_asking(&id(PEER)));
    let effects = syncs.link_gone(id(PEER), LINK, &mut world.scope());
    assert_eq!(effects, Effects::one(Effect::SyncFailed));
    assert!(!syncs.is_asking(&id(PEER)));
}

#[test]
fn newcomers_beyond_the_limit_are_sent_to_other_members() {
    let (mut world, mut syncs) = linked();
    world.config.concurrent_syncs = 1;
    world.links(10);
    world.links(11);
    let first = frame(1, true, false, Turn::More);
    let _ = receive(&mut syncs, &mut world, 10, &first, 0);
    assert_eq!(world.sent(), []);
    let _ = receive(&mut syncs, &mut world, 11, &first, 0);
    let sent = world.sent();
    let (to, TopicFrame::Busy(records)) = &sent[0] else { panic!("{sent:?}") };
    assert_eq!((*to, records.len()), (id(11), 2));
    let of_member = frame(1, true, true, Turn::More);
    let _ = receive(&mut syncs, &mut world, PEER, &of_member, 0);
    assert_eq!(world.sent(), [], "members are not counted");
    assert_eq!(world.cx.counts.syncs_served, 2);
    let pushed = Pushed { id: id(PEER), from: id(11) };
    syncs.push(vec![pushed], &mut world.scope());
    let sent = world.sent();
    assert!(matches!(&sent[..], [(to, TopicFrame::Push(_))] if *to == id(10)), "{sent:?}");
    world.pass(NEWCOMER_HELP);
    syncs.push(vec![pushed], &mut world.scope());
    assert_eq!(world.sent(), [], "newcomers are not helped forever");
    assert!(!syncs.has_newcomers());
}

#[test]
fn a_node_that_enters_the_overlay_notifies_its_sponsors_and_looks_beyond_its_neighbors() {
    let (mut world, mut syncs) = linked();
    world.attached = None;
    let _ = syncs.start(id(PEER), &mut world.scope());
    let introduced = frame(1, false, true, Turn::More);
    let effects = receive(&mut syncs, &mut world, PEER, &introduced, 0);
    assert_eq!(effects, [Effect::Introduced]);
    world.sent();
    world.attached = Some(world.cx.now);
    syncs.on_attached(&mut world.scope());
    assert_eq!(world.sent(), [(id(PEER), TopicFrame::Attached)]);
    let first = syncs.timeout(Timer::RandomSync).unwrap() - world.cx.now;
    assert!(first <= RANDOM_SYNC_FIRST * 2, "{first:?}");
    world.neighbors.insert(id(PEER));
    for _ in 0..8 {
        let effects = serve(&mut syncs, &mut world, Timer::RandomSync);
        assert_eq!(effects, [Effect::Contact(id(OTHER))], "never a neighbor");
    }
    let last = syncs.timeout(Timer::RandomSync).unwrap() - world.cx.now;
    assert!(last > world.config.random_sync_interval / 2, "it grows: {last:?}");
}

#[test]
fn neighbors_are_synced_with_in_turn_and_more_rarely_unless_their_digests_are_equal() {
    let (mut world, mut syncs) = linked();
    world.neighbors.extend([id(PEER), id(OTHER)]);
    syncs.neighbor_up(&mut world.scope());
    let mut delays = Vec::new();
    for _ in 0..4 {
        let before = world.cx.now;
        assert_eq!(serve(&mut syncs, &mut world, Timer::Trickle), []);
        delays.push(world.cx.now - before);
        for peer in asked(&mut world) {
            syncs.unlinked(peer);
        }
    }
    assert!(delays[3] > delays[0] * 2, "{delays:?}");
    assert_eq!(world.cx.counts.syncs_started, 4);
    world.pass(super::super::scope::SETTLED);
    let digest = world.scope().settled_digest().unwrap();
    for peer in [PEER, OTHER] {
        let _ = syncs.on_digest(digest, id(peer), &mut world.scope());
    }
    assert_eq!(serve(&mut syncs, &mut world, Timer::Trickle), []);
    assert_eq!(world.cx.counts.syncs_started, 4, "an equal book is not compared");
}

#[test]
fn a_node_that_is_behind_compares_no_book_that_still_changes() {
    let (mut world, mut syncs) = linked();
    world.neighbors.extend([id(PEER), id(OTHER)]);
    syncs.neighbor_up(&mut world.scope());
    world.cx.fall_behind(Duration::from_secs(1));
    for timer in [Timer::Trickle, Timer::RandomSync] {
        syncs.schedule.set_timers(world.cx.now);
        assert_eq!(serve(&mut syncs, &mut world, timer), []);
        assert!(syncs.timeout(timer).unwrap() > world.cx.now, "it looks again");
    }
    assert_eq!(world.cx.counts.syncs_started, 0);
    world.cx.fall_behind(Duration::from_secs(1));
    world.pass(Duration::from_millis(900));
    assert!(world.cx.lag() > Duration::ZERO);
    syncs.schedule.set_timers(world.cx.now);
    let _ = serve(&mut syncs, &mut world, Timer::Trickle);
    assert_eq!(world.cx.counts.syncs_started, 1, "it is settled");
}

/// Makes a trickle due, and a neighbor send a digest. Returns how many syncs begin.
fn compares(syncs: &mut Syncs, world: &mut World) -> u64 {
    let before = world.cx.counts.syncs_started;
    syncs.schedule.set_timers(world.cx.now);
    let _ = serve(syncs, world, Timer::Trickle);
    let _ = syncs.on_digest([7; 8], id(PEER), &mut world.scope());
    world.cx.counts.syncs_started - before
}

#[test]
fn a_node_that_was_just_behind_in_a_burst_compares_no_books() {
    let (mut world, mut syncs) = linked();
    world.neighbors.insert(id(PEER));
    (100..140).for_each(|newcomer| world.knows(newcomer));
    let half = Duration::from_millis(500);
    world.cx.fall_behind(half / 5);
    world.pass(half);
    assert!(world.cx.lag().is_zero() && world.scope().settled_digest().is_some());
    assert_eq!(compares(&mut syncs, &mut world), 0);
    world.pass(half);
    assert_eq!(compares(&mut syncs, &mut world), 1);
}

#[test]
fn a_burst_without_end_puts_off_comparisons_for_five_seconds_at_most() {
    let (mut world, mut syncs) = linked();
    world.neighbors.insert(id(PEER));
    world.pass(Duration::from_secs(1));
    let compared: Vec<_> = (0..40)
        .map(|round| {
            world.knows(20 + round);
            world.cx.fall_behind(Duration::from_secs(1));
            world.pass(Duration::from_millis(200));
            compares(&mut syncs, &mut world)
        })
        .collect();
    assert!(compared[..20].iter().all(|count| *count == 0), "{compared:?}");
    assert!(compared[20..30].contains(&1), "{compared:?}");
}

#[test]
fn digests_that_differ_lead_to_one_sync_and_equal_ones_are_said_once() {
    let (mut world, mut syncs) = linked();
    world.neighbors.insert(id(PEER));
    world.pass(super::super::scope::SETTLED);
    let ours = world.scope().settled_digest().unwrap();
    let theirs = ours.map(|byte| !byte);
    let _ = syncs.on_digest(theirs, id(OTHER), &mut world.scope());
    assert!(!syncs.is_asking(&id(OTHER)), "it is no neighbor");
    let _ = syncs.on_digest(theirs, id(PEER), &mut world.scope());
    assert!(syncs.is_asking(&id(PEER)));
    let _ = receive(&mut syncs, &mut world, PEER, &frame(1, false, true, Turn::Done), 0);
    assert_eq!(world.events(), [TopicEvent::Synced(id(PEER))]);
    let _ = syncs.on_digest(theirs, id(PEER), &mut world.scope());
    assert!(!syncs.is_asking(&id(PEER)), "two full books differ forever");
    for _ in 0..2 {
        let _ = syncs.on_digest(ours, id(PEER), &mut world.scope());
    }
    assert_eq!(world.events(), [TopicEvent::Agreed(id(PEER))]);
}

#[test]
fn a_gap_of_gossip_leads_to_one_random_sync() {
    let (mut world, mut syncs) = linked();
    world.pass(3 * GAP_AGE);
    syncs.on_synced_news(&Applied::Joined, GAP_AGE / 2, &mut world.scope());
    assert_eq!(syncs.timeout(Timer::RandomSync), None, "it may be under way");
    for _ in 0..2 {
        syncs.on_synced_news(&Applied::Joined, 2 * GAP_AGE, &mut world.scope());
    }
    assert_eq!(syncs.timeout(Timer::RandomSync), Some(world.cx.now));
    let _ = serve(&mut syncs, &mut world, Timer::RandomSync);
    syncs.on_synced_news(&Applied::Joined, 2 * GAP_AGE, &mut world.scope());
    assert!(syncs.timeout(Timer::RandomSync).unwrap() > world.cx.now, "once in a while");
}

#[test]
fn a_node_that_leaves_begins_no_sync() {
    let (mut world, mut syncs) = linked();
    syncs.on_joined(&mut world.scope());
    syncs.neighbor_up(&mut world.scope());
    let _ = syncs.contact(id(9), LinkRequest::Dialing, &mut world.scope());
    syncs.stop();
    assert_eq!(syncs.next_timeout(), None);
    assert_eq!(syncs.sizes()[0], ("syncs wanted", 0));
}

/// The first frame of an observer's sync.
fn of_observer(session: u64) -> SyncFrame {
    SyncFrame { observer: true, ..frame(session, true, false, Turn::Yours) }
}

#[test]
fn observers_beyond_the_limit_are_sent_to_other_members_until_there_is_room() {
    let (mut world, mut syncs) = linked();
    world.config.observers = 1;
    world.links(4);
    receive(&mut syncs, &mut world, PEER, &of_observer(1), 0);
    assert!(syncs.needs(&id(PEER)) && syncs.has_newcomers());
    assert_eq!(asked(&mut world), [id(PEER)], "it is answered");
    receive(&mut syncs, &mut world, OTHER, &of_observer(1), 0);
    let sent = world.sent();
    let [(peer, TopicFrame::Busy(others))] = &sent[..] else { panic!("{sent:?}") };
    assert!(*peer == id(OTHER) && !others.is_empty());
    assert!(!syncs.needs(&id(OTHER)));
    receive(&mut syncs, &mut world, OTHER, &of_observer(2), 0);
    assert_eq!(world.dropped(), ["observers over the limit"]);
    // Newcomers have room all the same.
    receive(&mut syncs, &mut world, 4, &frame(1, true, false, Turn::Yours), 0);
    assert_eq!(asked(&mut world), [id(4)]);
    // One that was silent for long is gone.
    world.pass(NEWCOMER_HELP);
    receive(&mut syncs, &mut world, OTHER, &of_observer(3), 0);
    assert_eq!(asked(&mut world), [id(OTHER)]);
    assert_eq!(syncs.observer_count(), 1);
}

#[test]
fn news_and_digests_go_to_observers_until_they_have_another_source() {
    let (mut world, mut syncs) = linked();
    receive(&mut syncs, &mut world, PEER, &of_observer(1), 0);
    world.sent();
    world.pass(Duration::from_secs(1));
    syncs.send_digest(&mut world.scope());
    syncs.push(vec![Pushed { id: id(OTHER), from: id(OTHER) }], &mut world.scope());
    let sent = world.sent();
    assert!(
        matches!(&sent[..], [(_, TopicFrame::Digest(_)), (_, TopicFrame::Push(_))]),
        "{sent:?}"
    );
    syncs.forget_newcomer(&id(PEER));
    syncs.send_digest(&mut world.scope());
    assert_eq!(world.sent(), []);
}

/// A node that observes, and whose source is `PEER`.
fn observing() -> (World, Syncs) {
    let (mut world, mut syncs) = linked();
    (world.attached, world.config.observer) = (None, true);
    let _ = syncs.start(id(PEER), &mut world.scope());
    world.out();
    let last = frame(1, false, true, Turn::Done);
    receive(&mut syncs, &mut world, PEER, &last, 1);
    let events = world.events();
    assert_eq!(events, [TopicEvent::NeighborUp(id(PEER)), TopicEvent::Synced(id(PEER))]);
    (world, syncs)
}

#[test]
fn an_observer_compares_again_and_again_and_says_what_it_is() {
    let (mut world, mut syncs) = observing();
    for session in 2..5 {
        assert_eq!(serve(&mut syncs, &mut world, Timer::Observe), []);
        let sent = world.sent();
        let Some((peer, TopicFrame::Sync(sent))) = sent.first() else { panic!("{sent:?}") };
        assert!(*peer == id(PEER) && sent.observer && !sent.attached && sent.entries.is_empty());
        assert!(matches!(sent.ranges[..], [Range { what: RangeContent::Fingerprint { .. }, .. }]));
        receive(&mut syncs, &mut world, PEER, &frame(session, false, true, Turn::Done), 0);
    }
    assert!(syncs.needs(&id(PEER)));
}

#[test]
fn an_observer_notifies_its_source_if_it_takes_another_one() {
    let (mut world, mut syncs) = observing();
    let _ = syncs.start(id(OTHER), &mut world.scope());
    world.out();
    receive(&mut syncs, &mut world, OTHER, &frame(2, false, true, Turn::Done), 0);
    assert_eq!(world.sent(), [(id(PEER), TopicFrame::Attached)]);
    assert!(syncs.source.is(&id(OTHER)) && !syncs.needs(&id(PEER)));
}

#[test]
fn an_observer_takes_another_source_if_its_own_does_not_answer() {
    let (mut world, mut syncs) = observing();
    serve(&mut syncs, &mut world, Timer::Observe);
    let began = world.cx.now;
    let mut effects = Vec::new();
    while effects.is_empty() {
        effects = serve(&mut syncs, &mut world, Timer::Sessions);
    }
    assert!(world.cx.now - began < Duration::from_secs(8), "{:?}", world.cx.now - began);
    let wanted = [Effect::SyncFailed, Effect::Avoid(id(PEER)), Effect::Contact(id(OTHER))];
    assert_eq!(effects, wanted);
    assert_eq!(world.events(), [TopicEvent::NeighborDown(id(PEER))]);
    assert!(!syncs.needs(&id(PEER)));
}

#[test]
fn an_observer_serves_nobody_and_names_members() {
    let (mut world, mut syncs) = observing();
    receive(&mut syncs, &mut world, OTHER, &frame(1, true, false, Turn::Yours), 0);
    let sent = world.sent();
    assert!(
        matches!(&sent[..], [(_, TopicFrame::Busy(members))] if !members.is_empty()),
        "{sent:?}"
    );
}

#[test]
fn a_sync_that_brought_many_without_room_is_not_begun_again_for_half_a_minute() {
    let (mut world, mut syncs) = linked();
    let ask = |syncs: &mut Syncs, world: &mut World, refused| {
        let _ = syncs.start(id(PEER), &mut world.scope());
        let done = frame(syncs.session_count, false, true, Turn::Done);
        let brought = Brought { refused, ..Brought::default() };
        let _ = syncs.on_frame(id(PEER), LINK, &done, brought, &mut world.scope());
        asked(world)
    };
    assert_eq!(ask(&mut syncs, &mut world, CROWDED - 1), [id(PEER)]);
    assert_eq!(ask(&mut syncs, &mut world, CROWDED), [id(PEER)]);
    assert!(ask(&mut syncs, &mut world, 0).is_empty());
    world.pass(CROWDED_FOR / 2);
    assert!(ask(&mut syncs, &mut world, 0).is_empty());
    world.pass(CROWDED_FOR / 2);
    assert_eq!(ask(&mut syncs, &mut world, 0), [id(PEER)]);
}
