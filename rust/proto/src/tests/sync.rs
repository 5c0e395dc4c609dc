//! Two books reconcile over a dialogue that the test carries by hand, without links.

use std::ops::Bound;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

use super::*;
use crate::{
    book::{Applied, Book},
    sync::Session,
    wire::{Entry, MAX_SYNC_BYTES, SyncFrame, Turn},
};

const ALL: (Bound<EndpointId>, Bound<EndpointId>) = (Bound::Unbounded, Bound::Unbounded);

/// Signs records of many keys, each once, because that is costly.
fn pool(count: usize) -> Vec<SignedRecord> {
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    (0..count)
        .map(|_| {
            let key = SigningKey::from_bytes(&rng.random());
            let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
            SignedRecord::sign(&key, &topic(), NodeRecord { id, ..node(1, 5) }).unwrap()
        })
        .collect()
}

fn book_of<'a>(records: impl IntoIterator<Item = &'a SignedRecord>) -> Book {
    let mut book = Book::new(id(ME), 100_000, Instant::now());
    for record in records {
        book.apply(record.clone(), Duration::ZERO, Instant::now());
    }
    book
}

#[derive(Debug, Default)]
struct Cost {
    turns: usize,
    bytes: usize,
    records: usize,
    largest: usize,
}

fn reconcile(a: &mut Book, b: &mut Book) -> Cost {
    reconcile_without(a, b, |_| false)
}

/// Reconciles two books, and loses some frames.
fn reconcile_without(a: &mut Book, b: &mut Book, mut lost: impl FnMut(&SyncFrame) -> bool) -> Cost {
    let now = Instant::now();
    let mut sessions =
        [Session::initiate(LINK, 1, a, None, false, now), Session::respond(LINK, 1, now)];
    let mut cost = Cost::default();
    let mut side = 0;
    let mut theirs = Turn::Yours;
    let mut over = false;
    while !over {
        cost.turns += 1;
        assert!(cost.turns < 1000, "it never ends: {cost:?}");
        let books = [&mut *a, &mut *b];
        let frames: Vec<SyncFrame> = sessions[side].take_turn(books[side], true, theirs, now);
        let other = 1 - side;
        for frame in frames {
            let bytes = Frame::Topic(0, TopicFrame::Sync(frame.clone())).encode().len();
            cost.bytes += bytes;
            cost.largest = cost.largest.max(bytes);
            cost.records += frame.entries.len();
            if lost(&frame) {
                continue;
            }
            let book = if other == 0 { &mut *a } else { &mut *b };
            for entry in &frame.entries {
                let signed = SignedRecord::verify(&topic(), &entry.record).unwrap();
                let id = signed.record().id;
                let applied = book.apply(signed, Duration::from_millis(entry.age_ms), now);
                if applied == Applied::Stale && book.get(&id).is_none() {
                    sessions[other].offer(id);
                }
            }
            assert!(sessions[other].receive(&frame, book, now));
            theirs = frame.turn;
            over = frame.turn == Turn::Done;
        }
        side = other;
    }
    cost
}

fn assert_equal(a: &Book, b: &Book) {
    assert_eq!(a.fingerprint(ALL), b.fingerprint(ALL));
    assert_eq!(a.range(ALL).collect::<Vec<_>>(), b.range(ALL).collect::<Vec<_>>());
}

#[test]
fn equal_books_agree_in_two_small_frames() {
    let records = pool(500);
    let (mut a, mut b) = (book_of(&records), book_of(&records));
    let cost = reconcile(&mut a, &mut b);
    assert_eq!((cost.turns, cost.records), (2, 0));
    assert!(cost.bytes < 100, "{cost:?}");
}

#[test]
fn the_cost_follows_the_difference() {
    let records = pool(3000);
    let (mut a, mut b) = (book_of(&records), book_of(&records[1..]));
    let one = reconcile(&mut a, &mut b);
    assert_equal(&a, &b);
    assert_eq!(one.records, 1);
    assert!(one.bytes < 6_000, "{one:?}");
    let (mut a, mut b) = (book_of(&records), book_of(&records[300..]));
    let many = reconcile(&mut a, &mut b);
    assert_equal(&a, &b);
    assert_eq!(many.records, 300);
    assert!(many.bytes > 20 * one.bytes, "{one:?} {many:?}");
}

#[test]
fn a_frame_is_never_larger_than_a_link_takes() {
    let records = pool(2000);
    let (mut a, mut b) = (book_of(&records), book_of(&[]));
    let cost = reconcile(&mut b, &mut a);
    assert_equal(&a, &b);
    assert!(cost.largest <= MAX_SYNC_BYTES + crate::MAX_RECORD + 100, "{cost:?}");
    assert!(cost.turns > 4, "a long turn pauses for the other end: {cost:?}");
}

#[test]
fn what_is_missing_after_a_long_turn_is_asked_for() {
    let records = pool(1000);
    let (mut a, mut b) = (book_of(&[]), book_of(&records));
    let mut of_many = 0;
    let cost = reconcile_without(&mut a, &mut b, |frame| {
        of_many += usize::from(frame.turn == Turn::More && frame.entries.len() > 20);
        (2..6).contains(&of_many)
    });
    assert_equal(&a, &b);
    assert!(cost.records > records.len(), "frames were lost: {cost:?}");
}

/// One end holds all that the other end has to be expired: it takes nothing, and can prove nothing.
#[test]
fn two_ends_that_never_agree_show_each_other_the_same_four_times_and_no_more() {
    let records = pool(300);
    let (mut a, mut b) = (book_of(&records), book_of(&records));
    b.expire(Instant::now() + records[0].record().expiration);
    assert_eq!((a.len(), b.len()), (300, 0));
    let cost = reconcile(&mut a, &mut b);
    assert_eq!((a.len(), b.len()), (300, 0));
    assert_eq!(cost.records, 4 * 300, "once, and three times in vain: {cost:?}");
}

#[test]
fn a_leave_is_shown_to_who_missed_it_and_a_silent_end_is_not_undone() {
    let now = Instant::now();
    let (mut a, mut b) =
        (book_of(&[signed(2, 5), signed(3, 5)]), book_of(&[signed(2, 5), signed(3, 5)]));
    b.apply(sign(NodeRecord { status: Status::Left, ..node(2, 6) }), Duration::ZERO, now);
    reconcile(&mut a, &mut b);
    assert_equal(&a, &b);
    assert!(a.get(&id(2)).is_none() && a.get(&id(3)).is_some());
    // The result is the same if the other side begins.
    a.apply(sign(NodeRecord { status: Status::Left, ..node(3, 6) }), Duration::ZERO, now);
    reconcile(&mut a, &mut b);
    assert_equal(&a, &b);
    assert!(b.get(&id(3)).is_none());
    // If one end expired a node some seconds before the other, the node does not come back.
    let mut soon = node(4, 5);
    soon.expiration = Duration::from_secs(1);
    a.apply(sign(soon), Duration::ZERO, now);
    reconcile(&mut a, &mut b);
    a.expire(now + Duration::from_secs(1));
    reconcile(&mut a, &mut b);
    assert!(a.get(&id(4)).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_two_books_become_equal(
        count in 0_usize..200,
        only in prop::collection::vec(0_u8..4, 200),
    ) {
        let records = pool(count);
        let part = |side| {
            records.iter().zip(&only).filter(move |(_, one)| **one != side).map(|(r, _)| r)
        };
        let (mut a, mut b) = (book_of(part(0)), book_of(part(1)));
        reconcile(&mut a, &mut b);
        assert_equal(&a, &b);
    }
}

#[test]
fn a_peer_that_shows_a_node_that_left_is_shown_its_leave_on_the_link() {
    let mut bench = Bench::linked();
    let left = sign(NodeRecord { status: Status::Left, ..node(5, 6) });
    bench.frame(LINK, TopicFrame::Push(vec![left.bytes().clone()]));
    bench.out.clear();
    let frame = SyncFrame {
        session: 1,
        from_initiator: true,
        attached: true,
        turn: Turn::Yours,
        ranges: vec![],
        entries: vec![Entry { record: signed(5, 5).bytes().clone(), age_ms: 0, accusation: None }],
        wants: vec![],
        observer: false,
    };
    bench.frame(LINK, TopicFrame::Sync(frame));
    let shown = bench.sent().into_iter().any(|(_, frame)| match frame {
        TopicFrame::Sync(frame) => frame.entries.iter().any(|e| e.record == *left.bytes()),
        _ => false,
    });
    assert!(shown);
}
