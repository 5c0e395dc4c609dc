//! The book keeps the newest record of each node, tombstones, and fingerprints of both.

use std::ops::Bound;

use proptest::prelude::*;

use super::*;
use crate::book::{Applied, Book, Source, TOMBSTONE_AGE};

const ZERO: Duration = Duration::ZERO;

fn left(number: u8, sequence: u64) -> SignedRecord {
    sign(NodeRecord { status: Status::Left, ..node(number, sequence) })
}

fn expiring(number: u8, sequence: u64, seconds: u64) -> SignedRecord {
    sign(NodeRecord { expiration: Duration::from_secs(seconds), ..node(number, sequence) })
}

#[test]
fn no_record_outlives_the_memory_of_its_owners_end() {
    for members in [1, 30, 1000, 3000, 10_000, 100_000] {
        let expiration = Config::default().expiration_among(members);
        let expected = Duration::from_mins(15)..=TOMBSTONE_AGE;
        assert!(expected.contains(&expiration), "{members} members: {expiration:?}");
    }
}

#[test]
fn only_a_higher_sequence_changes_anything() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 10, now);
    assert_eq!(book.apply(signed(2, 5), ZERO, now), Applied::Joined);
    assert_eq!(book.apply(signed(2, 5), ZERO, now), Applied::Same);
    assert_eq!(book.apply(signed(2, 4), ZERO, now), Applied::Stale);
    let mut other = node(2, 5);
    other.profile.name = "another".into();
    assert_eq!(book.apply(sign(other), ZERO, now), Applied::Stale, "equal is not higher");
    assert_eq!(book.apply(signed(2, 6), ZERO, now), Applied::Refreshed);
    let mut other = node(2, 7);
    other.profile.name = "another".into();
    assert_eq!(book.apply(sign(other), ZERO, now), Applied::Updated);
}

#[test]
fn the_own_record_counts_in_the_fingerprint_and_not_in_the_digest_of_others() {
    let now = Instant::now();
    let [mut book, mut others] = [(), ()].map(|()| Book::new(id(ME), 10, now));
    for record in [signed(2, 5), signed(3, 5), left(3, 6)] {
        others.apply(record.clone(), ZERO, now);
        book.apply(record, ZERO, now);
    }
    for sequence in [5, 6] {
        assert!(book.apply(signed(ME, sequence), ZERO, now).is_news());
        assert_eq!(book.others_digest(), others.others_digest());
        let recomputed = (Bound::Unbounded, Bound::Included(EndpointId::from_bytes([0xff; 32])));
        assert_eq!(
            book.fingerprint((Bound::Unbounded, Bound::Unbounded)),
            book.fingerprint(recomputed)
        );
    }
}

#[test]
fn equal_sequences_bring_no_freshness() {
    let start = Instant::now();
    let mut book = Book::new(id(ME), 10, start);
    book.apply(expiring(2, 5, 60), ZERO, start);
    for second in 1..59 {
        book.apply(expiring(2, 5, 60), ZERO, start + Duration::from_secs(second));
    }
    assert_eq!(book.expire(start + Duration::from_mins(1)).len(), 1);
}

#[test]
fn a_node_that_left_or_expired_comes_back_only_with_a_higher_sequence() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 10, now);
    book.apply(signed(2, 5), ZERO, now);
    assert!(matches!(book.apply(left(2, 6), ZERO, now), Applied::Left(_)));
    assert_eq!(book.apply(signed(2, 6), ZERO, now), Applied::Stale);
    assert_eq!(book.apply(signed(2, 5), ZERO, now), Applied::Stale);
    assert_eq!(book.apply(signed(2, 7), ZERO, now), Applied::Joined);
    // A leave that arrives before any other record counts too.
    assert_eq!(book.apply(left(3, 9), ZERO, now), Applied::LeftUnseen);
    assert_eq!(book.apply(signed(3, 9), ZERO, now), Applied::Stale);
    let later = now + Duration::from_hours(1);
    assert_eq!(book.expire(later).len(), 1);
    assert_eq!(book.apply(signed(2, 7), ZERO, later), Applied::Stale);
    assert_eq!(book.apply(signed(2, 8), ZERO, later), Applied::Joined);
}

#[test]
fn tombstones_last_a_day_and_have_a_budget() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 3, now);
    book.apply(left(2, 5), ZERO, now);
    let almost = now + Duration::from_hours(24);
    book.apply(left(3, 5), ZERO, almost);
    assert_eq!(book.apply(signed(2, 5), ZERO, almost), Applied::Stale, "still remembered");
    book.apply(left(4, 5), ZERO, almost);
    // The leave of a stranger displaces nothing.
    assert_eq!(book.apply(left(7, 5), ZERO, almost), Applied::Full);
    assert_eq!(book.sequence(&id(2)), Some(5));
    for number in 5..7 {
        book.apply(signed(number, 4), ZERO, almost);
        book.apply(left(number, 5), ZERO, almost);
    }
    assert!(book.last_record(&id(2)).is_none(), "the oldest goes when there are too many");
    assert_eq!((3..7).filter(|number| book.last_record(&id(*number)).is_some()).count(), 3);
    assert_eq!(book.sequence(&id(2)), Some(5), "and its number stays");
    assert_eq!(book.apply(signed(2, 5), ZERO, almost), Applied::Stale);
    assert_eq!(book.apply(signed(2, 6), ZERO, almost), Applied::Joined);
}

#[test]
fn made_up_leaves_bring_nobody_of_long_standing_back() {
    let start = Instant::now();
    for (capacity, made_up) in [(3, 16_u8), (10, 60), (100, 230)] {
        let mut book = Book::new(id(ME), capacity, start);
        book.apply(signed(2, 5), ZERO, start);
        let later = start + Duration::from_mins(11);
        book.apply(signed(3, 5), ZERO, later);
        book.apply(left(2, 6), ZERO, later);
        book.apply(left(3, 6), ZERO, later);
        for number in 10..10 + made_up {
            book.apply(signed(number, 5), ZERO, later);
            book.apply(left(number, 6), ZERO, later);
        }
        for number in [2, 3].into_iter().filter(|n| *n == 2 || usize::from(made_up) < capacity * 5)
        {
            let replay = book.apply(signed(number, 5), ZERO, later);
            assert_eq!(replay, Applied::Stale, "{number}, {made_up} on {capacity}");
        }
        assert!(book.last_record(&id(2)).is_some());
        assert_eq!(book.tombstones(), capacity.min(usize::from(made_up) + 2));
    }
}

#[test]
fn made_up_members_of_long_standing_bring_nobody_back_that_was_reached() {
    let start = Instant::now();
    let mut book = Book::new(id(ME), 4, start);
    book.apply(signed(2, 5), ZERO, start);
    for life in 0..8 {
        let joins = start + Duration::from_mins(11 * life);
        let leaves = joins + Duration::from_mins(11);
        for number in (10..13).map(|number| number + 3 * u8::try_from(life).unwrap()) {
            book.apply_from(hearsay(3), signed(number, 5), ZERO, joins);
            if life == 0 {
                book.apply(left(2, 6), ZERO, leaves);
            }
            book.apply(left(number, 6), ZERO, leaves);
        }
        assert_eq!(book.apply(signed(2, 5), ZERO, leaves), Applied::Stale);
        assert!(book.last_record(&id(2)).is_some(), "life {life}");
    }
}

#[test]
fn what_a_record_claims_of_its_expiration_is_clamped() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 10, now);
    book.apply(expiring(2, 5, 30 * 86_400), ZERO, now);
    assert!(book.expire(now + Duration::from_hours(23)).is_empty());
    assert_eq!(book.expire(now + Duration::from_hours(25)).len(), 1);
}

#[test]
fn a_relayed_record_expires_by_the_age_that_it_had() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 10, now);
    book.apply(expiring(2, 5, 60), Duration::from_secs(50), now);
    assert!(book.expire(now + Duration::from_secs(9)).is_empty());
    assert_eq!(book.expire(now + Duration::from_secs(10)).len(), 1);
    // A record that is past its expiration is not applied at all.
    assert_eq!(book.apply(expiring(3, 5, 60), Duration::from_mins(1), now), Applied::Stale);
}

#[test]
fn all_expire_in_time_and_many_of_them_in_few_looks() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 100, now);
    let milliseconds = Duration::from_millis;
    for number in 2..62 {
        // From 10 s on, one record expires every 10 ms. One of the nodes announces again.
        let age = milliseconds(50_000 - u64::from(number) * 10);
        book.apply(expiring(number, 5, 60), age, now);
    }
    book.apply(expiring(2, 6, 60), ZERO, now);
    let (mut looks, mut gone) = (0, 0);
    while let Some(at) = book.next_expiry().filter(|at| *at < now + milliseconds(20_000)) {
        let expired = book.expire(at);
        for record in &expired {
            let number = (2..62).find(|number| id(*number) == record.id).unwrap();
            let due = now + milliseconds(10_000 + u64::from(number) * 10);
            assert!(at >= due && at <= due + milliseconds(100), "{number}");
        }
        (looks, gone) = (looks + 1, gone + expired.len());
    }
    assert_eq!(gone, 59);
    assert!(looks <= 8, "{looks} looks in 600 ms");
    assert_eq!(book.next_expiry(), Some(now + milliseconds(60_000)));
}

/// A record of a node in a network of its own.
fn apart(number: u8) -> SignedRecord {
    let address = TransportAddr::Ip(format!("10.0.{number}.1:7").parse().unwrap());
    sign(NodeRecord { addresses: vec![address], ..node(number, 1) })
}

/// A book of ten whose members 10 to 18 were introduced by node 2, and member 20 by node 3.
fn full_of_hearsay(now: Instant) -> Book {
    let mut book = Book::new(id(ME), 10, now);
    for number in (10..19).chain([20]) {
        let by = if number < 19 { 2 } else { 3 };
        let later = now + Duration::from_secs(u64::from(number));
        assert_eq!(book.apply_from(hearsay(by), apart(number), ZERO, later), Applied::Joined);
    }
    book
}

fn hearsay(by: u8) -> Source {
    Source::Hearsay(id(by))
}

fn displaced(book: &mut Book) -> Vec<EndpointId> {
    book.take_displaced().iter().map(|record| record.id).collect()
}

#[test]
fn a_newcomer_that_is_reached_displaces_hearsay_of_the_largest_share() {
    let start = Instant::now();
    let mut book = full_of_hearsay(start);
    let now = start + Duration::from_secs(30);
    assert_eq!(book.apply(apart(30), ZERO, now), Applied::Joined);
    assert_eq!(displaced(&mut book), [id(14)], "the middle one of the largest share");
    assert_eq!(book.len(), 10);
    assert_eq!(book.apply_from(hearsay(4), apart(14), ZERO, now), Applied::Stale, "not again");
    for (number, gone) in (31..39).zip([13, 15, 12, 16, 11, 17, 10, 18]) {
        assert_eq!(book.apply(apart(number), ZERO, now), Applied::Joined);
        assert_eq!(displaced(&mut book), [id(gone)]);
    }
    assert_eq!(book.apply(apart(40), ZERO, now), Applied::Joined);
    assert_eq!(displaced(&mut book), [id(20)], "the last that was not reached");
    assert_eq!(book.apply(apart(41), ZERO, now), Applied::Full, "reached members stay");
    assert!(displaced(&mut book).is_empty());
}

#[test]
fn hearsay_displaces_young_hearsay_of_a_share_that_is_no_smaller() {
    let start = Instant::now();
    let mut book = full_of_hearsay(start);
    let now = start + Duration::from_secs(30);
    assert_eq!(book.apply_from(hearsay(3), apart(30), ZERO, now), Applied::Joined);
    assert_eq!(displaced(&mut book), [id(14)]);
    assert_eq!(book.apply_from(Source::Beyond(id(3)), apart(31), ZERO, now), Applied::Joined);
    assert_eq!(displaced(&mut book), [id(20)], "its introducer's share is used up");
    let later = start + Duration::from_secs(700);
    for source in [hearsay(3), hearsay(9), Source::Beyond(id(3))] {
        assert_eq!(book.apply_from(source, apart(32), ZERO, later), Applied::Full, "{source:?}");
    }
    book.reach(&id(12));
    assert_eq!(book.apply(apart(32), ZERO, later), Applied::Joined);
    assert_eq!(displaced(&mut book), [id(15)], "this node has reached one before it");
    assert_eq!(book.apply(apart(33), ZERO, later), Applied::Joined);
    assert_eq!(displaced(&mut book), [id(13)]);
}

#[test]
fn a_flood_takes_the_places_of_its_own_members() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 60, now);
    // One peer forwards both what honest peers say and what others made up.
    for number in 0..240 {
        let later = now + Duration::from_millis(u64::from(number));
        let applied = book.apply_from(hearsay(250), apart(number), ZERO, later);
        assert_eq!(applied, Applied::Joined, "{number}");
    }
    let (first, last) = (book.get(&id(0)), book.get(&id(239)));
    assert!(first.is_some() && last.is_some());
    let stayed = (0..30).filter(|number| book.get(&id(*number)).is_some()).count();
    assert!(stayed >= 29, "{stayed} of the first 30");
    let fresh = (215..240).filter(|number| book.get(&id(*number)).is_some()).count();
    assert_eq!(fresh, 25, "newcomers stay until others have come");
}

#[test]
fn a_network_is_a_share_too() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 6, now);
    // Each is introduced by another peer, and all but 20 claim one network.
    for number in (10..15).chain([20]) {
        let record = if number == 20 { apart(20) } else { signed(number, 1) };
        book.apply_from(hearsay(number + 100), record, ZERO, now);
    }
    assert_eq!(book.apply_from(hearsay(9), apart(30), ZERO, now), Applied::Joined);
    let [gone] = displaced(&mut book)[..] else { panic!("one makes room") };
    assert!((10..15).any(|number| id(number) == gone), "one of the large network");
}

#[test]
fn many_nodes_of_one_network_displace_no_established_member() {
    let start = Instant::now();
    let mut book = Book::new(id(ME), 40, start);
    for number in 10..50 {
        book.apply_from(hearsay(2), apart(number), ZERO, start);
    }
    let now = start + Duration::from_secs(700);
    let joined = (60..100).filter(|number| book.apply(signed(*number, 1), ZERO, now).is_news());
    assert_eq!(joined.count(), 5, "a tenth of the capacity, and one");
    assert_eq!(book.apply(apart(101), ZERO, now), Applied::Joined, "of another network");
}

#[test]
fn a_peer_introduces_its_share_or_as_many_as_there_is_room_for_others() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 1000, now);
    assert_eq!(book.share_left(&id(2)), 1000);
    for number in 10..210 {
        book.apply_from(hearsay(2), signed(number, 1), ZERO, now);
    }
    assert_eq!(book.share_left(&id(2)), 600);
    assert_eq!(book.share_left(&id(3)), 800);
    (10..110).for_each(|number| book.reach(&id(number)));
    assert_eq!(book.share_left(&id(2)), 700, "those that were reached count in no share");
    book.apply(left(110, 2), ZERO, now);
    assert_eq!(book.share_left(&id(2)), 702);
    for number in 111..210 {
        book.apply(signed(number, 2), ZERO, now);
    }
    assert_eq!(book.share_left(&id(2)), 801, "their owners sent these records");
}

#[test]
fn a_full_book_displaces_nobody_that_was_reached() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 2, now);
    book.apply(signed(ME, 1), ZERO, now);
    book.apply(signed(2, 1), ZERO, now);
    book.apply(signed(3, 1), ZERO, now);
    assert_eq!(book.apply(signed(4, 1), ZERO, now), Applied::Full);
    assert_eq!(book.apply(signed(2, 2), ZERO, now), Applied::Refreshed);
    assert_eq!(book.len(), 2);
    book.apply(left(3, 2), ZERO, now);
    assert_eq!(book.apply(signed(4, 1), ZERO, now), Applied::Joined);
}

#[test]
fn a_book_stands_still_once_nothing_has_changed_for_so_long() {
    const LONG: Duration = Duration::from_millis(250);
    let start = Instant::now();
    let mut book = Book::new(id(ME), 10, start);
    assert_eq!(book.settled(LONG, start + LONG * 9), None, "nothing was ever in it");
    let mut now = start;
    let mut seen = Vec::new();
    let changes: [fn(&mut Book, Instant); 5] = [
        |book, now| drop(book.apply(signed(2, 5), ZERO, now)),
        |book, now| drop(book.apply(signed(2, 6), ZERO, now)),
        |book, now| drop(book.apply(signed(3, 1), ZERO, now)),
        |book, now| drop(book.mark_dead(&id(2), Bytes::new(), now)),
        |book, now| book.preload(&[signed(2, 7)], now),
    ];
    for change in changes {
        now += LONG * 3;
        change(&mut book, now);
        assert_eq!(book.settled(LONG, now + LONG - Duration::from_nanos(1)), None);
        let came_to = book.settled(LONG, now + LONG).unwrap();
        assert!(!seen.contains(&came_to));
        seen.push(came_to);
        // A record that changes nothing is no change of the book.
        book.apply(signed(2, 4), ZERO, now + LONG);
        assert_eq!(book.settled(LONG, now + LONG), Some(came_to));
    }
}

#[test]
fn a_book_grows_fast_while_more_than_an_eighth_of_it_is_new_to_the_whole_swarm() {
    const S: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let mut book = Book::new(id(ME), 200, start);
    for member in 100..200 {
        book.apply(signed(member, 1), 6 * S, start);
    }
    assert!(!book.is_growing(start), "a newcomer's first sync brings members of long standing");
    for newcomer in 2..14 {
        book.apply(signed(newcomer, 1), ZERO, start);
    }
    assert!(!book.is_growing(start), "12 of 112 are few");
    for newcomer in 14..20 {
        book.apply(signed(newcomer, 1), 4 * S, start + 4 * S);
    }
    assert!(book.is_growing(start + 4 * S));
    assert!(book.is_growing(start + 9 * S));
    assert!(!book.is_growing(start + 10 * S), "the burst is over");
}

#[test]
fn a_member_that_was_there_for_long_is_established_whatever_becomes_of_it() {
    let start = Instant::now();
    let long = start + Duration::from_mins(10);
    let mut book = Book::new(id(ME), 10, start);
    for number in 2..5 {
        book.apply(expiring(number, 5, 900), ZERO, start);
    }
    assert!(!book.is_established(&id(2), long - Duration::from_nanos(1)));
    book.apply(signed(5, 5), ZERO, long);
    book.apply(expiring(2, 6, 900), ZERO, long);
    book.mark_dead(&id(3), Bytes::new(), long);
    book.mark_dead(&id(5), Bytes::new(), long);
    assert_eq!(book.expire(start + Duration::from_mins(15)).len(), 1);
    assert_eq!(
        [2, 3, 4, 5].map(|number| book.is_established(&id(number), long)),
        [true, true, true, false],
        "announced again, killed, expired; and killed when it had just come"
    );
}

#[test]
fn a_book_that_is_filled_holds_members_that_were_there_for_long() {
    let start = Instant::now();
    let records = [signed(ME, 1), expiring(2, 5, 60), expiring(3, 6, 90)];
    let mut one_by_one = Book::new(id(ME), 10, start);
    let mut filled = Book::new(id(ME), 10, start);
    filled.apply(records[0].clone(), ZERO, start);
    filled.apply(signed(4, 1), ZERO, start);
    let now = start + Duration::from_secs(1);
    filled.preload(&records, now);
    for record in records {
        one_by_one.apply(record, ZERO, now);
    }
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    assert_eq!(filled.fingerprint(all), one_by_one.fingerprint(all));
    assert_eq!(filled.range(all).collect::<Vec<_>>(), one_by_one.range(all).collect::<Vec<_>>());
    assert_eq!(filled.next_expiry(), one_by_one.next_expiry());
    assert_eq!(filled.expire(now + Duration::from_mins(1)).len(), 1);
    assert!(filled.is_established(&id(3), now) && !one_by_one.is_established(&id(3), now));
}

#[test]
fn a_node_that_is_gone_and_comes_back_is_not_suspected() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 10, now);
    book.apply(signed(2, 5), ZERO, now);
    book.accuse(&id(2), Some(Bytes::from_static(b"why")));
    assert!(book.accusation(&id(2)).is_some());
    book.mark_dead(&id(2), Bytes::new(), now);
    book.apply(signed(2, 6), ZERO, now);
    assert_eq!(book.accusation(&id(2)), None);
}

#[test]
fn the_own_record_does_not_expire() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 10, now);
    book.apply(expiring(ME, 1, 60), ZERO, now);
    assert_eq!(book.next_expiry(), None);
    book.apply(expiring(2, 1, 60), ZERO, now);
    assert_eq!(book.expire(now + Duration::from_hours(1)).len(), 1);
    assert_eq!(book.sequence(&id(ME)), Some(1));
}

#[test]
fn names_may_repeat() {
    let now = Instant::now();
    let mut book = Book::new(id(ME), 10, now);
    for number in 2..5 {
        let mut record = node(number, 1);
        record.profile.name = "robot".into();
        assert_eq!(book.apply(sign(record), ZERO, now), Applied::Joined);
    }
    assert_eq!(book.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any order of the same records gives the same book, and the same fingerprint.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        records in prop::collection::vec((2_u8..6, 1_u64..6, any::<bool>()), 1..12),
        seed: u64,
    ) {
        use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};
        let now = Instant::now();
        // Each id and sequence has one status, because an honest owner signs each sequence once.
        let signed: Vec<_> = records
            .iter()
            .map(|(number, sequence, _)| {
                let gone = records.iter().find(|r| (r.0, r.1) == (*number, *sequence)).unwrap().2;
                if gone { left(*number, *sequence) } else { super::signed(*number, *sequence) }
            })
            .collect();
        let book_of = |records: &[SignedRecord]| {
            let mut book = Book::new(id(ME), 10, now);
            for record in records {
                book.apply(record.clone(), ZERO, now);
            }
            book
        };
        let mut shuffled = signed.clone();
        shuffled.shuffle(&mut ChaCha12Rng::seed_from_u64(seed));
        let (a, b) = (book_of(&signed), book_of(&shuffled));
        let all = (Bound::Unbounded, Bound::Unbounded);
        prop_assert_eq!(a.range(all).collect::<Vec<_>>(), b.range(all).collect::<Vec<_>>());
        prop_assert_eq!(a.fingerprint(all), b.fingerprint(all));
    }
}
