//! Digests of books, which each keepalive carries, and what follows if they differ.

use std::collections::VecDeque;

use super::{
    contact::sync,
    guard::{with_neighbor, with_two},
    *,
};
use crate::{
    drops::DropReason,
    wire::{Entry, RangeContent, SyncFrame, Turn},
};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const THEIRS: [u8; 8] = [7; 8];

/// Returns the digests that keepalives to [`PEER`] carried. `None` is a keepalive without one.
pub(super) fn keepalives(bench: &Bench) -> Vec<Option<[u8; 8]>> {
    let keepalive = |out: &OutEvent| match out {
        OutEvent::Keepalive(LINK, bytes) => match Frame::decode(bytes).unwrap().unwrap() {
            Frame::Topic(_, TopicFrame::Digest(digest)) => Some(Some(digest)),
            Frame::Ack => Some(None),
            other => panic!("{other:?}"),
        },
        _ => None,
    };
    bench.out.iter().filter_map(keepalive).collect()
}

/// Returns the sessions that were begun with [`PEER`] since the last call.
fn begun(bench: &mut Bench) -> Vec<u64> {
    let begun = |(link, frame): (LinkId, TopicFrame)| match frame {
        TopicFrame::Sync(SyncFrame { session, from_initiator: true, turn, .. })
            if link == LINK && turn != Turn::Done =>
        {
            Some(session)
        }
        _ => None,
    };
    bench.sent().into_iter().filter_map(begun).collect()
}

fn agree(bench: &mut Bench, session: u64) {
    bench.frame(LINK, sync(session, false, Turn::Done, vec![]));
}

/// Makes a node with two neighbors whose first comparisons are over, and whose book has settled.
/// Returns its digest too.
fn settled() -> (Bench, [u8; 8]) {
    let mut bench = with_two();
    for _ in 0..600 {
        bench.pass(MS * 100);
        for session in begun(&mut bench) {
            agree(&mut bench, session);
        }
    }
    bench.pass(S * 3);
    let digest = keepalives(&bench).into_iter().flatten().next_back().unwrap();
    bench.out.clear();
    (bench, digest)
}

#[test]
fn a_keepalive_carries_the_digest_of_a_book_that_is_settled_or_never_settles() {
    let (mut bench, digest) = settled();
    bench.pass(S * 20);
    assert!(
        keepalives(&bench).iter().all(|said| *said == Some(digest)),
        "{:?}",
        keepalives(&bench)
    );
    bench.out.clear();
    // The other neighbor brings a new record every 200 ms.
    for sequence in 2..102 {
        bench.frame(LinkId(2), TopicFrame::Push(vec![signed(3, sequence).bytes().clone()]));
        bench.pass(MS * 200);
    }
    let said = keepalives(&bench);
    let first = said.iter().position(Option::is_some).unwrap();
    assert!((1..4).contains(&first) && said[first..].iter().all(Option::is_some), "{said:?}");
    bench.out.clear();
    bench.pass(S * 8);
    let now = keepalives(&bench).into_iter().flatten().next().unwrap();
    assert_ne!(now, digest);
}

#[test]
fn books_that_differ_and_stand_still_are_compared_at_once() {
    let (mut bench, digest) = settled();
    bench.frame(LINK, TopicFrame::Digest(digest));
    assert!(begun(&mut bench).is_empty(), "they are equal");
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    assert_eq!(begun(&mut bench).len(), 1);
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    assert!(begun(&mut bench).is_empty(), "it is under way");
}

#[test]
fn a_book_that_has_just_changed_is_about_to_be_equal() {
    let (mut bench, _) = settled();
    bench.frame(LinkId(2), TopicFrame::Push(vec![signed(3, 9).bytes().clone()]));
    bench.out.clear();
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    assert!(begun(&mut bench).is_empty());
    bench.pass(S);
    begun(&mut bench);
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    assert_eq!(begun(&mut bench).len(), 1);
}

#[test]
fn books_that_must_differ_are_compared_once() {
    let (mut bench, _) = settled();
    for round in 0..10 {
        bench.frame(LINK, TopicFrame::Digest(THEIRS));
        let sessions = begun(&mut bench);
        assert_eq!(sessions.len(), usize::from(round == 0), "round {round}");
        for session in sessions {
            agree(&mut bench, session);
        }
    }
    bench.frame(LINK, TopicFrame::Digest([8; 8]));
    assert_eq!(begun(&mut bench).len(), 1, "theirs has changed");
}

/// Returns when sessions with [`PEER`] were begun within this time, and when it was pinged. It
/// answers pings after `round_trip`, and nothing else.
fn begun_within(
    bench: &mut Bench,
    time: Duration,
    round_trip: Duration,
) -> (Vec<Duration>, Vec<Duration>) {
    let (start, mut at, mut pinged) = (bench.now, Vec::new(), Vec::new());
    let mut answers = VecDeque::new();
    bench.silent.insert(LINK);
    while bench.now < start + time {
        let is_ping = |out: &&OutEvent| match out {
            OutEvent::Send(LINK, _, bytes) => *bytes == Frame::Ping.encode(),
            _ => false,
        };
        let pings = bench.out.iter().filter(is_ping).count();
        pinged.extend((0..pings).map(|_| bench.now - start));
        answers.extend((0..pings).map(|_| bench.now + round_trip));
        at.extend(begun(bench).iter().map(|_| bench.now - start));
        while answers.pop_front_if(|answer| *answer <= bench.now).is_some() {
            bench.bytes(LINK, Frame::Ack.encode());
        }
        bench.pass(MS * 5);
    }
    (at, pinged)
}

/// Asserts that sessions were begun again: first after `first`, and after half as long again each
/// time, and always after two round trips more.
fn assert_grown(at: &[Duration], first: Duration, round_trip: Duration) {
    for (count, pair) in at.windows(2).enumerate() {
        let gap = pair[1].saturating_sub(pair[0]);
        let patience = first.mul_f64(1.5_f64.powi(i32::try_from(count).unwrap()));
        let least = patience + round_trip * 2;
        assert!((least..=least + MS * 40).contains(&gap), "{count}: {gap:?} of {at:?}");
    }
}

#[test]
fn a_sync_that_is_lost_is_begun_again_five_times_in_all() {
    let (mut bench, _) = settled();
    let round_trip = MS * 50;
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    let (at, _) = begun_within(&mut bench, MS * 2200, round_trip);
    assert_eq!(at.len(), 5, "{at:?}");
    assert_grown(&at[1..], round_trip * 3 * 3 / 2, round_trip);
}

#[test]
fn a_sync_is_late_and_not_lost_while_its_partner_answers_no_ping() {
    let mut bench = dialed(MS);
    let (at, pinged) = begun_within(&mut bench, S * 4, S * 60);
    assert_eq!(at.len(), 1, "{at:?}");
    assert_eq!(pinged.len(), 4, "{pinged:?}");
    // Then it is given up, and one is begun as if there had been none.
    let (at, _) = begun_within(&mut bench, S * 3, S * 60);
    assert_eq!(at.len(), 1, "{at:?}");
}

#[test]
fn a_sync_that_is_answered_soon_after_a_late_ping_is_not_begun_again() {
    let mut bench = dialed(MS);
    let session = begun(&mut bench)[0];
    bench.silent.insert(LINK);
    bench.pass(S);
    bench.bytes(LINK, Frame::Ack.encode());
    bench.pass(MS * 350);
    agree(&mut bench, session);
    bench.pass(S);
    assert_eq!(begun(&mut bench), Vec::<u64>::new());
}

/// Makes a node with a link to a bootstrap peer whose hello took `round_trip`, and that sends
/// nothing more.
fn dialed(round_trip: Duration) -> Bench {
    let mut bench = Bench::new();
    bench.feed(InEvent::AddBootstrap(topic(), vec![(id(PEER), node(PEER, 1).addresses)]));
    bench.pass(S);
    bench.open_link(LINK, PEER, true);
    bench.pass(round_trip);
    bench.hello(LINK, 9);
    bench.frame(LINK, TopicFrame::Open(topic()));
    bench
}

#[test]
fn no_comparison_is_waited_for_longer_than_ten_seconds() {
    let (_, pinged) = begun_within(&mut dialed(S * 4), S * 11, S * 4);
    assert!((S * 10..=MS * 10_010).contains(&pinged[0]), "{pinged:?}");
}

#[test]
fn a_first_comparison_that_stands_still_is_begun_again_by_the_measure_of_its_link() {
    for (round_trip, first) in [(MS * 30, MS * 100), (S, S * 3)] {
        let mut bench = dialed(round_trip);
        let (at, _) = begun_within(&mut bench, first * 3 + round_trip * 5, round_trip);
        assert!(at.len() > 2, "{at:?}");
        assert_grown(&at, first, round_trip);
    }
}

#[test]
fn where_no_round_trip_was_measured_a_comparison_stands_still_after_half_a_second() {
    let mut bench = with_neighbor();
    let (at, pinged) = begun_within(&mut bench, S, MS);
    assert!((MS * 500..=MS * 510).contains(&pinged[0].saturating_sub(at[0])), "{at:?}, {pinged:?}");
}

/// Fires a timer of this node 0.1 s too late, so that it is behind by 0.8 s.
fn be_late(bench: &mut Bench) {
    bench.now = bench.state.next_timer().unwrap() + MS * 99;
    bench.feed(InEvent::Timer);
    bench.out.clear();
}

#[test]
fn a_node_that_is_behind_sends_its_digest_and_begins_a_sync_later() {
    let (mut bench, _) = settled();
    be_late(&mut bench);
    bench.frame(LinkId(2), TopicFrame::Push(vec![renamed(2)]));
    bench.pass(MS * 900);
    assert!(digests(&bench).is_empty());
    bench.pass(MS * 400);
    assert_eq!(digests(&bench).len(), 1);

    let (mut bench, _) = settled();
    be_late(&mut bench);
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    let (at, pinged) = begun_within(&mut bench, S * 2, MS);
    assert!(pinged[0] > at[0] + MS * 790, "{at:?}, {pinged:?}");
}

#[test]
fn equal_books_need_no_comparison() {
    let (mut bench, digest) = settled();
    let mut compared = 0;
    // This lasts until the node's own heartbeat.
    for _ in 0..40 {
        bench.frame(LINK, TopicFrame::Digest(digest));
        bench.pass(S * 3);
        compared += begun(&mut bench).len();
    }
    assert_eq!(compared, 0);
    // A neighbor that is no longer heard may have changed. The two neighbors are asked in turn.
    bench.pass(S * 150);
    assert!(!begun(&mut bench).is_empty());
}

#[test]
fn a_session_that_the_other_one_began_has_its_time() {
    let (mut bench, _) = settled();
    let theirs = SyncFrame {
        session: 99,
        from_initiator: true,
        attached: true,
        turn: Turn::More,
        ranges: vec![],
        entries: vec![],
        wants: vec![],
        observer: false,
    };
    bench.frame(LINK, TopicFrame::Sync(theirs));
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    let stalled = |bench: &Bench| {
        let stalled = |out: &&OutEvent| {
            matches!(out, OutEvent::Dropped { what: DropReason::SyncsThatStalled, peer, .. }
                if *peer == Some(id(PEER)))
        };
        bench.out.iter().filter(stalled).count()
    };
    // This node's session is begun five times. The fifth has not ended yet.
    let (mut ended, mut begun_again) = (0, begun(&mut bench).len() - 1);
    for _ in 0..200 {
        bench.pass(MS * 5);
        ended += stalled(&bench);
        begun_again += begun(&mut bench).len();
    }
    assert!(ended >= 2 && ended == begun_again, "{ended} ended, {begun_again} were begun again");
}

#[test]
fn only_a_neighbor_is_compared_with() {
    let mut bench = Bench::linked();
    bench.pass(S);
    bench.out.clear();
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    assert!(begun(&mut bench).is_empty());
}

/// Returns the digests that were sent to [`PEER`] outside of keepalives.
fn digests(bench: &Bench) -> Vec<[u8; 8]> {
    digests_on(bench, LINK)
}

fn digests_on(bench: &Bench, on: LinkId) -> Vec<[u8; 8]> {
    let digest = |out: &OutEvent| match out {
        OutEvent::Send(link, _, bytes) if *link == on => {
            match Frame::decode(bytes).unwrap().unwrap() {
                Frame::Topic(_, TopicFrame::Digest(digest)) => Some(digest),
                _ => None,
            }
        }
        _ => None,
    };
    bench.out.iter().filter_map(digest).collect()
}

/// Makes a record of the other neighbor, with another name each time.
fn renamed(sequence: u64) -> Bytes {
    let mut record = node(3, sequence);
    record.profile.name = format!("name {sequence}");
    sign(record).bytes().clone()
}

#[test]
fn neighbors_get_the_digest_of_a_book_that_changed_once_it_is_settled() {
    let (mut bench, digest) = settled();
    // An earlier agreement says nothing about later digests.
    bench.frame(LINK, TopicFrame::Digest(digest));
    bench.pass(S);
    bench.out.clear();
    for sequence in 2..7 {
        bench.frame(LinkId(2), TopicFrame::Push(vec![renamed(sequence)]));
        bench.pass(MS * 200);
        assert!(digests(&bench).is_empty(), "it still changes");
    }
    bench.pass(MS * 300);
    assert_eq!(digests(&bench).len(), 1);
    let heartbeat = SignedRecord::verify(&topic(), &renamed(6)).unwrap();
    let heartbeat = NodeRecord { sequence: 7, ..(**heartbeat.record()).clone() };
    bench.frame(LinkId(2), TopicFrame::Push(vec![sign(heartbeat).bytes().clone()]));
    bench.pass(S * 20);
    assert_eq!(digests(&bench).len(), 1, "a heartbeat is no change");
}

/// The digest of the book once the other neighbor has another name.
fn digest_once_renamed() -> [u8; 8] {
    let (mut bench, _) = settled();
    bench.frame(LinkId(2), TopicFrame::Push(vec![renamed(2)]));
    bench.pass(MS * 500);
    digests(&bench)[0]
}

#[test]
fn a_neighbor_that_is_known_to_agree_gets_no_digest() {
    let digest = digest_once_renamed();
    let (mut bench, _) = settled();
    bench.frame(LinkId(2), TopicFrame::Push(vec![renamed(2)]));
    bench.pass(MS * 250);
    bench.frame(LINK, TopicFrame::Digest(digest));
    bench.out.clear();
    bench.pass(MS * 250);
    assert!(digests(&bench).is_empty());
}

/// The end that speaks first would never learn that the other one agrees.
#[test]
fn an_equal_digest_is_answered_once_after_each_visible_change() {
    let (mut bench, digest) = settled();
    bench.out.clear();
    for _ in 0..3 {
        bench.frame(LINK, TopicFrame::Digest(digest));
        assert_eq!(digests(&bench), [digest]);
    }
    bench.frame(LinkId(2), TopicFrame::Push(vec![renamed(2)]));
    bench.pass(MS * 500);
    let changed = *digests(&bench).last().unwrap();
    assert_ne!(changed, digest);
    bench.out.clear();
    for _ in 0..3 {
        bench.frame(LINK, TopicFrame::Digest(changed));
        assert_eq!(digests(&bench), [changed]);
    }
}

#[test]
fn equal_books_agree_even_before_they_are_settled() {
    let changed = digest_once_renamed();
    let (mut bench, _) = settled();
    bench.frame(LinkId(2), TopicFrame::Push(vec![renamed(2)]));
    bench.out.clear();
    bench.frame(LINK, TopicFrame::Digest(changed));
    assert_eq!(digests(&bench), [changed]);
}

#[test]
fn an_agreement_on_an_older_book_spares_nobody() {
    let (mut bench, digest) = settled();
    bench.frame(LINK, TopicFrame::Digest(digest));
    bench.out.clear();
    bench.frame(LinkId(2), TopicFrame::Push(vec![renamed(2)]));
    bench.pass(MS * 500);
    assert_eq!(digests(&bench).len(), 1);
}

#[test]
fn what_a_comparison_by_digests_brought_neighbors_may_have_missed_as_well() {
    let (mut bench, _) = settled();
    bench.frame(LINK, TopicFrame::Digest(THEIRS));
    let begun = bench.sent().into_iter().find_map(|(link, frame)| match frame {
        TopicFrame::Sync(frame) if link == LINK => Some(frame),
        _ => None,
    });
    let begun = begun.unwrap();
    // The whole is known to differ, so the sync begins with its parts.
    assert!(matches!(begun.ranges[0].what, RangeContent::List(_)), "{:?}", begun.ranges);
    let news = Entry { record: signed(7, 1).bytes().clone(), age_ms: 0, accusation: None };
    bench.frame(LINK, sync(begun.session, false, Turn::Done, vec![news]));
    bench.pass(MS);
    assert_eq!(digests_on(&bench, LinkId(2)).len(), 1);
}
