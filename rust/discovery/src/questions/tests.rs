//! Floods, turns, growing delays and bounds of the questions, with made-up time.

use std::net::Ipv4Addr;

use super::*;
use crate::proto::{NodeRecord, Profile};

const S: Duration = Duration::from_secs(1);

fn id(number: u32) -> EndpointId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    EndpointId::from_bytes(bytes)
}

fn network(number: u32) -> Group {
    Group::Linked(Subnet::of(Ipv4Addr::from(0x0a00_0000 + number).into()))
}

fn bare(number: u32) -> Newcomer {
    Newcomer::new(id(number), Vec::new())
}

fn hearsay(number: u32) -> Newcomer {
    Newcomer::of(Arc::new(NodeRecord::new(id(number), Profile::new("a"))))
}

fn ask(table: &mut Table, newcomer: Newcomer, group: Group, now: Instant) -> Asked {
    table.ask(newcomer, group, None, now)
}

/// The next question, and its answer.
fn answer_next(table: &mut Table, answer: &Answer, now: Instant) -> Option<EndpointId> {
    let id = table.next()?.id;
    if table.answered(id, answer, now) {
        table.settle(id);
    }
    Some(id)
}

fn failed() -> Answer {
    Answer::Failed("broken".to_owned())
}

#[test]
fn ten_thousand_made_up_ids_wait_in_bounded_room_and_keep_no_newcomer_waiting() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut full = 0;
    for number in 0..10_000 {
        full += usize::from(ask(&mut table, hearsay(number), Group::Hearsay, now) == Asked::Full);
        while table.next().is_some() {}
    }
    assert_eq!((table.sizes(), full), ((16, 1024, 0), 10_000 - 1024 - 16));
    // One that opens a link, from anywhere, gets the turn after the next.
    let honest = 20_000;
    assert_eq!(ask(&mut table, bare(honest), network(1), now), Asked::Waits);
    assert_eq!(table.sizes(), (16, 1024, 0), "it took the place of one of the many");
    let first = *table.asking.keys().next().unwrap();
    table.answered(first, &Answer::No, now);
    let next = [table.next().unwrap().id, first];
    let second = table.asking.keys().copied().find(|other| !next.contains(other)).unwrap();
    table.answered(second, &Answer::No, now);
    assert!([next[0], table.next().unwrap().id].contains(&id(honest)));
}

#[test]
fn networks_take_turns_and_the_largest_group_gives_way() {
    let (mut table, now) = (Table::default(), Instant::now());
    for number in 0..5000 {
        ask(&mut table, bare(number), network(1), now);
    }
    assert_eq!(table.sizes(), (0, 1024, 0));
    for number in 1..40 {
        assert_eq!(ask(&mut table, bare(10_000 + number), network(1 + number), now), Asked::Waits);
    }
    assert_eq!(table.sizes(), (0, 1024, 0));
    let asked: Vec<_> = (0..40).filter_map(|_| answer_next(&mut table, &Answer::No, now)).collect();
    for number in 1..40 {
        assert!(asked.contains(&id(10_000 + number)), "each network had its turn: {number}");
    }
    // A network that is as large as the largest gets no more room.
    let mut even = Table::default();
    for number in 0..1024 {
        ask(&mut even, bare(number), network(number % 2), now);
    }
    assert_eq!(ask(&mut even, bare(5000), network(0), now), Asked::Full);
    assert!(even.look, "a book is looked through for those that found no room");
}

#[test]
fn a_refusal_holds_for_a_growing_time_and_a_failure_is_asked_about_again_by_itself() {
    let (mut table, start) = (Table::default(), Instant::now());
    let mut now = start;
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(ask(&mut table, hearsay(1), Group::Hearsay, now), Asked::Waits);
        assert_eq!(answer_next(&mut table, &Answer::No, now), Some(id(1)));
        assert_eq!(table.due(), None, "a no is not asked about again without a cause");
        now += S * 60 * minutes;
        assert_eq!(ask(&mut table, hearsay(1), Group::Hearsay, now - S), Asked::Refused);
    }
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert_eq!(ask(&mut table, hearsay(2), Group::Hearsay, now), Asked::Waits);
        assert_eq!(answer_next(&mut table, &failed(), now), Some(id(2)));
        assert!(!table.wants(&id(2), now) && !table.is_looking());
        let due = table.due().unwrap();
        waits.push((due - now).as_secs());
        now = due;
        table.on_timeout(now);
        assert!(table.is_looking() && table.wants(&id(2), now));
        assert_eq!(table.due(), None);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
}

#[test]
fn a_node_of_which_nothing_was_known_is_asked_about_once_more_with_its_record() {
    let (mut table, now) = (Table::default(), Instant::now());
    ask(&mut table, bare(1), network(1), now);
    answer_next(&mut table, &Answer::No, now);
    assert_eq!(ask(&mut table, bare(1), network(1), now), Asked::Refused);
    assert_eq!(ask(&mut table, hearsay(1), Group::Hearsay, now), Asked::Waits);
    answer_next(&mut table, &Answer::No, now);
    assert_eq!(ask(&mut table, hearsay(1), Group::Hearsay, now), Asked::Refused);
    assert_eq!(ask(&mut table, bare(1), network(1), now), Asked::Refused);
}

#[test]
fn one_id_is_asked_about_once_at_a_time_whatever_comes_meanwhile() {
    let (mut table, now) = (Table::default(), Instant::now());
    ask(&mut table, bare(1), network(1), now);
    assert_eq!(ask(&mut table, hearsay(1), Group::Hearsay, now), Asked::Waits);
    assert_eq!(table.sizes(), (0, 1, 0));
    let asked = table.next().unwrap();
    assert!(asked.record.is_some(), "the question says all that is known");
    assert_eq!(ask(&mut table, hearsay(1), Group::Hearsay, now), Asked::Waits);
    assert!(table.next().is_none());
    assert!(table.answered(id(1), &Answer::Yes, now));
    assert_eq!(ask(&mut table, bare(1), network(1), now), Asked::Waits, "it is not admitted yet");
    assert!(table.next().is_none() && !table.wants(&id(1), now));
    assert!(table.settle(id(1)).is_some());
    assert!(!table.answered(id(1), &Answer::Yes, now), "an answer counts once");
}

#[test]
fn refusals_are_remembered_in_bounded_room() {
    let (mut table, now) = (Table::default(), Instant::now());
    for number in 0..40_000 {
        ask(&mut table, hearsay(number), Group::Hearsay, now);
        let answer = if number % 3 == 0 { failed() } else { Answer::No };
        answer_next(&mut table, &answer, now + S * number);
    }
    assert_eq!(table.sizes(), (0, 0, MAX_REMEMBERED));
}

#[test]
fn an_answer_that_comes_after_the_lists_changed_does_not_count() {
    let (mut table, now) = (Table::default(), Instant::now());
    ask(&mut table, hearsay(1), Group::Hearsay, now);
    table.next();
    table.reconsider(&id(1));
    assert!(!table.answered(id(1), &Answer::Yes, now));
    assert!(table.wants(&id(1), now) && table.is_looking(), "it is asked about again");
    ask(&mut table, hearsay(1), Group::Hearsay, now);
    table.reconsider(&id(1));
    assert_eq!(table.sizes(), (0, 0, 0), "one that waited is not asked about");
}

#[tokio::test]
async fn links_that_wait_hear_the_answer() {
    let questions = Questions::default();
    let mut links = Vec::new();
    for number in [1, 1, 2] {
        links.push(questions.ask_for_link(bare(number), None).unwrap());
    }
    let now = Instant::now();
    {
        let mut table = questions.lock();
        while table.next().is_some() {}
        assert!(table.answered(id(1), &Answer::Yes, now));
        table.settle(id(1)).unwrap().release_links();
        assert!(!table.answered(id(2), &failed(), now));
    }
    let mut heard = Vec::new();
    for link in links {
        heard.push(link.await.unwrap());
    }
    assert_eq!(heard, [true, true, false]);
    assert_eq!(questions.ask_for_link(bare(2), None).unwrap_err(), Asked::Refused);
}
