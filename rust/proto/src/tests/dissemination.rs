//! Which records a node forwards, and when: each once if that is enough, and nothing that can wait
//! while this node is behind.

use super::{
    compare::keepalives,
    guard::{with_two, with_two_as},
    *,
};
use crate::{
    accusation::Accusation,
    wire::{Entry, Item, OverlayFrame, SyncFrame, Turn, encode_content},
};

const S: Duration = Duration::from_secs(1);
const OTHER: LinkId = LinkId(2);
const NEWCOMER: u8 = 7;

fn broadcast(items: &[Item]) -> TopicFrame {
    let content = encode_content(items);
    TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(0), content })
}

fn record(number: u8, sequence: u64) -> Item {
    Item::Record(signed(number, sequence).bytes().clone())
}

/// Returns how many broadcasts went to [`OTHER`] since the last call.
fn broadcasts(bench: &mut Bench) -> usize {
    let is_broadcast =
        |frame: &TopicFrame| matches!(frame, TopicFrame::Overlay(OverlayFrame::Gossip { .. }));
    let sent = bench.sent();
    sent.iter().filter(|(link, frame)| *link == OTHER && is_broadcast(frame)).count()
}

fn sync(entries: &[(&SignedRecord, Duration)], attached: bool) -> TopicFrame {
    let entry = |(signed, age): &(&SignedRecord, Duration)| Entry {
        record: signed.bytes().clone(),
        age_ms: u64::try_from(age.as_millis()).unwrap(),
        accusation: None,
    };
    TopicFrame::Sync(SyncFrame {
        session: 1,
        from_initiator: true,
        attached,
        turn: Turn::Done,
        ranges: Vec::new(),
        entries: entries.iter().map(entry).collect(),
        wants: Vec::new(),
        observer: false,
    })
}

#[test]
fn an_accusation_goes_on_with_the_broadcast_that_brought_it_and_in_no_other() {
    let mut bench = with_two();
    let known = [4, 5].map(|number| signed(number, 10).bytes().clone());
    bench.frame(LINK, TopicFrame::Push(known.into()));
    let accusation = |by| Accusation::sign(&key(by), &topic(), id(5), 10).bytes;
    bench.out.clear();
    bench.frame(LINK, broadcast(&[Item::Accusation(accusation(4))]));
    bench.pass(S / 10);
    assert_eq!(broadcasts(&mut bench), 1);
    // A node that gets it directly forwards it to all members.
    bench.frame(LINK, TopicFrame::Accuse(vec![accusation(PEER)]));
    bench.pass(S / 10);
    assert_eq!(broadcasts(&mut bench), 1);
}

#[test]
fn a_newcomer_that_others_forward_already_is_not_forwarded_again() {
    for forwarded in [false, true] {
        let mut bench = with_two();
        bench.open_link(LinkId(3), NEWCOMER, false);
        bench.hello(LinkId(3), 9);
        bench.frame(LinkId(3), TopicFrame::Open(topic()));
        bench.out.clear();
        bench.frame(LinkId(3), sync(&[(&signed(NEWCOMER, 1), Duration::ZERO)], false));
        if forwarded {
            bench.frame(LINK, broadcast(&[record(NEWCOMER, 1)]));
            assert_eq!(broadcasts(&mut bench), 1, "it is forwarded");
        }
        bench.pass(S / 2);
        assert_eq!(broadcasts(&mut bench), usize::from(!forwarded));
    }
}

/// Makes a node that is not in the overlay sync with [`PEER`]. Returns how many broadcasts it sends
/// once it has a neighbor.
fn newcomer_attaches(answers: bool, attached: bool, within: Duration) -> usize {
    let mut bench = Bench::bootstrapped();
    let began = bench.sent().into_iter().find_map(|(_, frame)| match frame {
        TopicFrame::Sync(frame) => Some(frame),
        _ => None,
    });
    if answers {
        let answer = SyncFrame {
            from_initiator: false,
            attached,
            turn: Turn::Done,
            ranges: Vec::new(),
            entries: Vec::new(),
            wants: Vec::new(),
            observer: false,
            ..began.expect("it syncs with its bootstrap peer")
        };
        bench.frame(LINK, TopicFrame::Sync(answer));
    }
    bench.open_link(OTHER, 3, false);
    bench.hello(OTHER, 9);
    bench.frame(OTHER, TopicFrame::Open(topic()));
    let join = OverlayFrame::Join(signed(3, 1).bytes().clone());
    bench.frame(OTHER, TopicFrame::Overlay(join));
    bench.pass(within);
    broadcasts(&mut bench)
}

#[test]
fn a_newcomer_leaves_it_to_the_member_that_has_its_record_to_forward_it() {
    assert_eq!(newcomer_attaches(true, true, S / 2), 0);
    let unattached = newcomer_attaches(true, false, S / 2);
    assert_eq!(unattached, 1, "a member in no overlay may forward it late");
    assert_eq!(newcomer_attaches(false, false, S / 2), 0, "the sync is under way");
    assert_eq!(newcomer_attaches(false, false, S * 6), 1, "nobody has it, as far as known");
}

#[test]
fn what_a_sync_brings_is_forwarded_unless_it_is_on_its_way() {
    for (age, forwarded) in [(Duration::ZERO, 0), (S * 10, 1)] {
        let mut bench = with_two();
        bench.frame(LINK, sync(&[(&signed(NEWCOMER, 1), age)], true));
        bench.out.clear();
        bench.pass(S * 4);
        assert_eq!(broadcasts(&mut bench), forwarded, "{age:?}");
        bench.pass(S * 2);
        assert_eq!(broadcasts(&mut bench), 1 - forwarded, "gossip had its time: {age:?}");
    }
}

/// Returns the links on which a comparison of books was begun since the last call, with its number.
fn begun(bench: &mut Bench) -> Vec<(LinkId, u64)> {
    let begun = |(link, frame): (LinkId, TopicFrame)| match frame {
        TopicFrame::Sync(frame) if frame.from_initiator => Some((link, frame.session)),
        _ => None,
    };
    bench.sent().into_iter().filter_map(begun).collect()
}

/// Makes a sync with [`PEER`] bring `members` records, while Trickle compares nothing. Only the
/// neighbors on the links `answering` answer. Returns the links on which this node synced first,
/// and the number of its broadcasts.
fn brought(members: u8, answering: &[LinkId]) -> (Vec<LinkId>, usize) {
    let rarely = S * 3600;
    let config =
        Config { sync_interval_min: rarely, sync_interval_max: rarely, ..Config::default() };
    let mut bench = with_two_as(config);
    let members: Vec<_> = (0..members).map(|number| signed(NEWCOMER + number, 1)).collect();
    let entries: Vec<_> = members.iter().map(|signed| (signed, S * 10)).collect();
    bench.frame(LINK, sync(&entries, true));
    bench.out.clear();
    bench.pass(S / 2);
    let out = bench.out.clone();
    let asked = begun(&mut bench);
    for (link, session) in asked.iter().filter(|(link, _)| answering.contains(link)) {
        let TopicFrame::Sync(answer) = sync(&[], true) else { unreachable!() };
        let answer = SyncFrame { session: *session, from_initiator: false, ..answer };
        bench.frame(*link, TopicFrame::Sync(answer));
    }
    bench.out = out;
    bench.pass(S * 2);
    let soon = broadcasts(&mut bench);
    assert!(asked.is_empty() || soon == 0, "they have their time");
    bench.pass(S * 4);
    (asked.into_iter().map(|(link, _)| link).collect(), soon + broadcasts(&mut bench))
}

#[test]
fn after_a_sync_of_a_burst_neighbors_are_synced_before_records_are_broadcast() {
    let (asked, forwarded) = brought(8, &[]);
    assert!(asked.is_empty() && forwarded > 0, "few are forwarded: {asked:?}");
    for (answering, some) in [(vec![], true), (vec![LINK], true), (vec![LINK, OTHER], false)] {
        let (asked, forwarded) = brought(9, &answering);
        assert_eq!(asked, [LINK, OTHER]);
        assert_eq!(forwarded > 0, some, "{answering:?}");
    }
}

#[test]
fn what_all_neighbors_have_by_a_comparison_is_not_forwarded() {
    for (compared, forwarded) in [(vec![], 1), (vec![LINK], 1), (vec![LINK, OTHER], 0)] {
        let mut bench = with_two();
        bench.frame(LINK, sync(&[(&signed(NEWCOMER, 1), Duration::ZERO)], true));
        bench.pass(S);
        for link in &compared {
            bench.frame(*link, sync(&[], true));
        }
        bench.out.clear();
        bench.pass(S * 6);
        assert_eq!(broadcasts(&mut bench), forwarded, "{compared:?}");
    }
}

#[test]
fn a_preloaded_book_is_not_forwarded() {
    for filled in [false, true] {
        let mut bench = Bench::new();
        if filled {
            let own = bench.state.own_record(&topic()).unwrap().clone();
            let due = bench.state.next_timer();
            bench.state.preload(&topic(), &[own, signed(PEER, 1), signed(3, 1)], bench.now);
            assert_ne!(bench.state.next_timer(), due, "it was that for the next batch");
        }
        bench.open_link(OTHER, 3, false);
        bench.hello(OTHER, 9);
        bench.frame(OTHER, TopicFrame::Open(topic()));
        let join = OverlayFrame::Join(signed(3, 1).bytes().clone());
        bench.frame(OTHER, TopicFrame::Overlay(join));
        bench.pass(S * 5);
        assert_eq!(broadcasts(&mut bench), usize::from(!filled));
    }
}

#[test]
fn what_neighbors_with_an_equal_book_have_is_not_forwarded() {
    for (equal, forwarded) in [(vec![LINK], 1), (vec![LINK, OTHER], 0)] {
        let mut bench = with_two();
        bench.frame(LINK, sync(&[(&signed(NEWCOMER, 1), Duration::ZERO)], true));
        bench.out.clear();
        bench.pass(S * 4);
        let digest = keepalives(&bench).into_iter().flatten().next_back().unwrap();
        for link in &equal {
            bench.frame(*link, TopicFrame::Digest(digest));
        }
        bench.out.clear();
        bench.pass(S * 3);
        assert_eq!(broadcasts(&mut bench), forwarded, "{equal:?}");
    }
}

#[test]
fn a_node_that_is_behind_puts_off_what_can_wait() {
    for late in [Duration::ZERO, S / 10] {
        let mut bench = with_two();
        let old = (&signed(NEWCOMER, 1), S * 10);
        bench.frame(LINK, sync(&[old], true));
        bench.now = bench.state.next_timer().unwrap() + late;
        bench.feed(InEvent::Timer);
        bench.out.clear();
        bench.pass(S / 2);
        assert_eq!(broadcasts(&mut bench) > 0, late.is_zero(), "{late:?}");
        bench.pass(S);
        assert_eq!(broadcasts(&mut bench) > 0, !late.is_zero(), "{late:?}");
    }
}

#[test]
fn a_node_that_is_behind_for_long_forwards_it_all_the_same() {
    let mut bench = with_two();
    bench.frame(LINK, sync(&[(&signed(NEWCOMER, 1), S * 10)], true));
    bench.out.clear();
    let begin = bench.now;
    while broadcasts(&mut bench) == 0 {
        let waited = bench.now.saturating_duration_since(begin);
        assert!(waited < S * 4, "it is put off without end");
        bench.now = bench.state.next_timer().unwrap().max(bench.now) + S / 20;
        bench.feed(InEvent::Timer);
    }
}
