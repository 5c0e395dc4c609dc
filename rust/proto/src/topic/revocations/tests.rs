//! How revocations spread, which count, and how they end.

use std::time::Duration;

use super::*;
use crate::{
    CLOCK_TOLERANCE, CloseCode, Config, InEvent, LinkId, OutEvent,
    id::TopicId,
    tests::{Bench, LINK, ME, PEER, id, key, topic},
};

const ISSUER: u8 = 9;
const BAD: u8 = 7;
const OTHER: u8 = 3;
const OTHERS_LINK: LinkId = LinkId(2);
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
/// The fingerprint of a peer that holds others.
const THEIRS: [u8; 16] = [1; 16];

fn revoke(issuer: u8, member: u8, ends: u64) -> Revocation {
    Revocation::sign(&key(issuer), topic(), id(member), (NOW, ends)).unwrap()
}

/// A member that trusts an issuer and has links with two others.
fn bench() -> Bench {
    let mut bench = Bench::with(Config::default());
    bench.feed(InEvent::SetIssuers(BTreeSet::from([id(ISSUER)])));
    bench.feed(InEvent::Clock(NOW));
    open(&mut bench, LINK, PEER);
    open(&mut bench, OTHERS_LINK, OTHER);
    bench
}

fn open(bench: &mut Bench, link: LinkId, peer: u8) {
    bench.open_link(link, peer, false);
    bench.hello(link, 9);
    bench.frame(link, TopicFrame::Open(topic()));
}

fn receive(bench: &mut Bench, revocations: &[&Revocation]) {
    let revocations = revocations.iter().map(|one| one.bytes().clone()).collect();
    bench.frame(LINK, TopicFrame::Revoked { all: THEIRS, revocations });
}

/// The revocations that were sent since the last call, by link.
fn sent(bench: &mut Bench) -> Vec<(LinkId, Vec<Bytes>)> {
    let revoked = |(link, frame)| match frame {
        TopicFrame::Revoked { revocations, .. } => Some((link, revocations)),
        _ => None,
    };
    bench.sent().into_iter().filter_map(revoked).collect()
}

fn held(bench: &Bench) -> Vec<Revocation> {
    bench.state.revocations(&topic()).cloned().collect()
}

fn reports(bench: &Bench) -> usize {
    let is_report = |out: &&OutEvent| matches!(out, OutEvent::Topic(_, TopicEvent::Revoked));
    bench.out.iter().filter(is_report).count()
}

#[test]
fn what_is_new_goes_on_to_all_linked_members_but_the_sender_and_a_replay_to_none() {
    let mut bench = bench();
    let revocation = revoke(ISSUER, BAD, NOW + DAY);
    sent(&mut bench);
    receive(&mut bench, &[&revocation]);
    assert_eq!((reports(&bench), held(&bench)), (1, vec![revocation.clone()]));
    assert_eq!(sent(&mut bench), [(OTHERS_LINK, vec![revocation.bytes().clone()])]);
    receive(&mut bench, &[&revocation, &revoke(ISSUER, BAD, NOW + DAY / 2)]);
    assert_eq!((reports(&bench), sent(&mut bench)), (0, vec![]), "neither is news");
    let longer = revoke(ISSUER, BAD, NOW + 2 * DAY);
    receive(&mut bench, &[&longer]);
    assert_eq!(held(&bench), [longer], "one for each id");
}

#[test]
fn a_member_that_was_away_gets_all_of_them_once_for_each_link() {
    let mut bench = bench();
    assert_eq!(sent(&mut bench), [(LINK, vec![]), (OTHERS_LINK, vec![])], "each is greeted");
    let all: Vec<_> = (100..200).map(|member| revoke(ISSUER, member, NOW + DAY)).collect();
    bench.feed(InEvent::Revoke(topic(), all.clone()));
    let to = |bench: &mut Bench, link| {
        let frames = sent(bench).into_iter().filter(|(to, _)| *to == link);
        frames.map(|(_, revocations)| revocations).collect::<Vec<_>>()
    };
    assert_eq!(to(&mut bench, LINK).concat().len(), 100, "they are news to linked members");
    let late = LinkId(3);
    open(&mut bench, late, 4);
    let ask = TopicFrame::Revoked { all: THEIRS, revocations: Vec::new() };
    bench.frame(late, ask.clone());
    let frames = to(&mut bench, late);
    assert!(frames.iter().all(|frame| frame.iter().map(Bytes::len).sum::<usize>() <= 16_384));
    assert_eq!(frames.concat().len(), 100);
    bench.frame(late, ask.clone());
    assert_eq!(to(&mut bench, late).len(), 0, "a request that is repeated brings nothing");
    bench.feed(InEvent::LinkClosed(late, crate::LinkEnd::TimedOut));
    open(&mut bench, late, 4);
    bench.frame(late, ask);
    assert_eq!(to(&mut bench, late).concat().len(), 100, "the next link is another one");
}

#[test]
fn members_that_hold_the_same_send_each_other_nothing() {
    let [mut one, mut other] = [bench(), bench()];
    let revocations = [BAD, 8].map(|member| revoke(ISSUER, member, NOW + DAY));
    one.feed(InEvent::Revoke(topic(), revocations.to_vec()));
    let [first, second] = revocations;
    other.feed(InEvent::Revoke(topic(), vec![second]));
    other.feed(InEvent::Revoke(topic(), vec![first]));
    let late = LinkId(3);
    open(&mut one, late, 4);
    let is_greeting = |(link, frame): &(LinkId, TopicFrame)| {
        *link == late && matches!(frame, TopicFrame::Revoked { .. })
    };
    let (_, frame) = one.sent().into_iter().find(is_greeting).unwrap();
    sent(&mut other);
    other.frame(LINK, frame);
    assert_eq!(sent(&mut other), []);
}

#[test]
fn only_a_trusted_issuers_word_for_this_topic_counts() {
    let mut bench = bench();
    sent(&mut bench);
    receive(&mut bench, &[&revoke(PEER, BAD, NOW + DAY)]);
    assert_eq!(bench.dropped(), ["revocations of other issuers"]);
    bench.feed(InEvent::Clock(NOW + DAY / 2 + CLOCK_TOLERANCE));
    receive(&mut bench, &[&revoke(ISSUER, BAD, NOW + DAY / 2)]);
    assert_eq!((held(&bench), bench.closed(), sent(&mut bench)), (vec![], vec![], vec![]));
    let other = TopicId::from_name("another").unwrap();
    let elsewhere = Revocation::sign(&key(ISSUER), other, id(BAD), (NOW, NOW + DAY)).unwrap();
    receive(&mut bench, &[&elsewhere, &revoke(ISSUER, BAD, NOW + DAY)]);
    assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)], "honest members verify");
    assert_eq!(held(&bench), [], "the rest of the frame is not looked at");
    let mut forged = revoke(ISSUER, BAD, NOW + DAY).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let revocations = vec![forged.into()];
    bench.frame(OTHERS_LINK, TopicFrame::Revoked { all: THEIRS, revocations });
    assert!(bench.closed().contains(&(OTHERS_LINK, CloseCode::Protocol)));
    assert_eq!(held(&bench), []);
}

#[test]
fn what_the_application_gives_is_checked_and_the_error_names_the_field() {
    let mut bench = bench();
    let mut give = |revocation| {
        let event = InEvent::Revoke(topic(), vec![revocation]);
        bench.state.handle(event, bench.now).unwrap_err().to_string()
    };
    let untrusted = "revocation is signed by an issuer that this node does not trust";
    assert_eq!(give(revoke(ME, BAD, NOW + DAY)), untrusted);
    let old = (NOW - 2 * DAY, NOW - DAY);
    let old = Revocation::sign(&key(ISSUER), topic(), id(BAD), old).unwrap();
    assert_eq!(give(old), "revocation has ended");
    let other = TopicId::from_name("another").unwrap();
    let other = Revocation::sign(&key(ISSUER), other, id(BAD), (NOW, NOW + DAY)).unwrap();
    assert_eq!(give(other), "revocation is for another topic");
}

#[test]
fn those_whose_invitations_have_ended_are_forgotten() {
    let mut bench = bench();
    let revocations = vec![revoke(ISSUER, BAD, NOW + DAY), revoke(ISSUER, 8, NOW + 2 * DAY)];
    bench.feed(InEvent::Revoke(topic(), revocations));
    bench.out.clear();
    bench.feed(InEvent::Clock(NOW + DAY + CLOCK_TOLERANCE - 1));
    assert_eq!((reports(&bench), held(&bench).len()), (0, 2));
    bench.feed(InEvent::Clock(NOW + DAY + CLOCK_TOLERANCE));
    assert_eq!((reports(&bench), held(&bench).len()), (1, 1));
    // The clock goes on between two events.
    bench.now += Duration::from_secs(DAY);
    receive(&mut bench, &[&revoke(ISSUER, BAD, NOW + DAY + 60)]);
    assert_eq!(held(&bench).len(), 1);
}

#[test]
fn beyond_the_limit_the_one_that_ends_first_is_forgotten() {
    let mut bench = bench();
    let issuer = key(ISSUER);
    let mut all: Vec<_> = (0..=u32::try_from(MAX_REVOCATIONS).unwrap())
        .map(|number| {
            let mut member = [0; 32];
            member[..4].copy_from_slice(&number.to_be_bytes());
            let times = (NOW, NOW + DAY + u64::from(number));
            Revocation::sign(&issuer, topic(), EndpointId::from_bytes(member), times).unwrap()
        })
        .collect();
    let soonest = all[0].clone();
    all.reverse();
    bench.feed(InEvent::Revoke(topic(), all));
    assert_eq!(held(&bench).len(), MAX_REVOCATIONS);
    assert!(!held(&bench).contains(&soonest));
    assert_eq!(bench.dropped().last(), Some(&"revocations over the limit"));
}

#[test]
fn a_member_without_issuers_neither_greets_nor_forwards() {
    let mut bench = Bench::linked();
    receive(&mut bench, &[&revoke(ISSUER, BAD, NOW + DAY)]);
    assert_eq!(bench.dropped(), ["revocations of other issuers"]);
    assert_eq!((held(&bench), sent(&mut bench)), (vec![], vec![]));
}
