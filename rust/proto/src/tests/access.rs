//! Allow and deny lists: a peer that is kept out is held for comparisons of books, and is no member
//! in any other way.

use std::sync::Arc;

use super::{compare::keepalives, guard::with_two, *};
use crate::{
    Access, CloseCode, TopicEvent,
    accusation::Accusation,
    broadcast::Broadcast,
    wire::{Item, OverlayFrame, encode_broadcast, encode_content},
};

const OTHER: u8 = 3;
const OTHERS_LINK: LinkId = LinkId(2);
const DENIED: u8 = 5;
const S: Duration = Duration::from_secs(1);

fn deny(numbers: &[u8]) -> InEvent {
    let deny = numbers.iter().map(|number| id(*number)).collect();
    InEvent::SetAccess(Arc::new(Access { deny, ..Access::default() }))
}

fn allow(numbers: &[u8]) -> InEvent {
    let allow = Some(numbers.iter().map(|number| id(*number)).collect());
    InEvent::SetAccess(Arc::new(Access { allow, ..Access::default() }))
}

/// Two neighbors, which are not denied, and [`DENIED`], which is not in the book yet.
fn denying() -> Bench {
    let mut bench = with_two();
    bench.feed(deny(&[DENIED]));
    bench.out.clear();
    bench
}

fn gossip(content: Bytes) -> TopicFrame {
    TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(0), content })
}

fn record_broadcast(number: u8, sequence: u64) -> TopicFrame {
    gossip(encode_content(&[Item::Record(signed(number, sequence).bytes().clone())]))
}

/// Returns how many frames of the overlay were forwarded to the other neighbor.
fn passed_on(bench: &Bench) -> usize {
    let passed_on = |out: &&OutEvent| match out {
        OutEvent::Send(OTHERS_LINK, _, bytes) => matches!(
            Frame::decode(bytes).unwrap(),
            Some(Frame::Topic(_, TopicFrame::Overlay(OverlayFrame::Gossip { .. })))
        ),
        _ => false,
    };
    bench.out.iter().filter(passed_on).count()
}

/// Returns what happened to one member, in short.
fn of_member(bench: &Bench, number: u8) -> Vec<String> {
    let of = |out: &OutEvent| match out {
        OutEvent::Topic(_, event) => {
            let record = event.about_member().filter(|record| record.id == id(number))?;
            Some(match event {
                TopicEvent::PeerLost(_, reason) => format!("lost {reason:?}"),
                TopicEvent::PeerJoined(_) => format!("joined {}", record.sequence),
                _ => "other".to_owned(),
            })
        }
        _ => None,
    };
    bench.out.iter().filter_map(of).collect()
}

fn members(bench: &Bench) -> Vec<EndpointId> {
    let live = bench.state.inspect(&topic()).unwrap().live;
    live.into_iter().map(|(id, _)| id).collect()
}

fn is_dialed(bench: &Bench, number: u8) -> bool {
    bench.out.iter().any(|out| matches!(out, OutEvent::Dial(peer, _) if *peer == id(number)))
}

#[test]
fn a_member_that_is_denied_leaves_the_book_and_its_link_at_once() {
    let mut bench = with_two();
    bench.feed(deny(&[PEER]));
    assert_eq!(of_member(&bench, PEER), ["lost Denied"]);
    assert_eq!(bench.closed(), [(LINK, CloseCode::Denied)]);
    assert!(!members(&bench).contains(&id(PEER)) && members(&bench).contains(&id(OTHER)));
    let down = |out: &OutEvent| match out {
        OutEvent::Topic(_, TopicEvent::NeighborDown(peer)) => *peer == id(PEER),
        _ => false,
    };
    assert!(bench.out.iter().any(down), "it is no neighbor");
    // Frames that still arrive on the link are ignored.
    bench.out.clear();
    bench.frame(LINK, record_broadcast(DENIED, 1));
    assert!(of_member(&bench, DENIED).is_empty());
    // It is not dialed, although its place in the overlay is free, and although it is requested.
    bench.feed(InEvent::LinkClosed(LINK, crate::LinkEnd::Local(CloseCode::Denied)));
    bench.feed(InEvent::Connect(topic(), id(PEER)));
    bench.feed(InEvent::AddBootstrap(topic(), vec![(id(PEER), node(PEER, 1).addresses)]));
    bench.feed(InEvent::Found(topic(), id(PEER), node(PEER, 1).addresses));
    bench.pass(S * 60);
    assert!(!is_dialed(&bench, PEER) && !bench.state.is_connecting(&id(PEER)));
    // A link that it opens is closed before anything else.
    bench.out.clear();
    bench.open_link(LinkId(9), PEER, false);
    assert_eq!(bench.closed(), [(LinkId(9), CloseCode::Denied)]);
    assert!(bench.dropped().contains(&"links of peers that are kept out"));
}

#[test]
fn the_record_of_a_denied_peer_is_passed_on_once_and_is_no_member() {
    let mut bench = denying();
    bench.frame(LINK, record_broadcast(DENIED, 1));
    assert_eq!(passed_on(&bench), 1, "others may admit it");
    assert!(of_member(&bench, DENIED).is_empty() && !members(&bench).contains(&id(DENIED)));
    assert_eq!(bench.dropped(), ["records of peers that are kept out"]);
    assert!(bench.state.record(&topic(), &id(DENIED)).is_none());
    // A heartbeat is forwarded, and not counted again. A replay is not forwarded.
    bench.out.clear();
    bench.frame(LINK, record_broadcast(DENIED, 2));
    assert_eq!((passed_on(&bench), bench.dropped().len()), (1, 0));
    bench.pass(S * 120);
    bench.out.clear();
    bench.frame(LINK, record_broadcast(DENIED, 1));
    assert_eq!(passed_on(&bench), 0);
    assert!(!is_dialed(&bench, DENIED) && of_member(&bench, DENIED).is_empty());
}

#[test]
fn a_peer_that_is_admitted_again_joins_at_once_with_its_newest_record() {
    let mut bench = denying();
    bench.frame(LINK, record_broadcast(DENIED, 1));
    bench.frame(LINK, record_broadcast(DENIED, 2));
    bench.feed(deny(&[]));
    assert_eq!(of_member(&bench, DENIED), ["joined 2"]);
    bench.feed(deny(&[DENIED]));
    bench.feed(deny(&[DENIED]));
    assert_eq!(
        of_member(&bench, DENIED),
        ["joined 2", "lost Denied"],
        "each change is reported once"
    );
}

#[test]
fn only_those_on_an_allow_list_are_members() {
    let mut bench = with_two();
    bench.feed(allow(&[OTHER]));
    assert_eq!(members(&bench), [id(OTHER)]);
    assert_eq!(bench.closed(), [(LINK, CloseCode::Denied)]);
    bench.out.clear();
    for number in [DENIED, 6, 7] {
        bench.frame(OTHERS_LINK, record_broadcast(number, 1));
    }
    assert_eq!(members(&bench), [id(OTHER)]);
    bench.feed(allow(&[OTHER, DENIED]));
    assert_eq!(of_member(&bench, DENIED), ["joined 1"]);
}

/// Returns the digest that a keepalive carries once the book has settled.
fn digest_of(bench: &mut Bench) -> [u8; 8] {
    bench.out.clear();
    bench.pass(S * 20);
    keepalives(bench).into_iter().flatten().next_back().unwrap()
}

#[test]
fn books_are_compared_as_if_nobody_were_denied() {
    let [mut plain, mut bench] = [with_two(), denying()];
    for bench in [&mut plain, &mut bench] {
        bench.frame(LINK, record_broadcast(DENIED, 1));
    }
    let digest = digest_of(&mut plain);
    assert_eq!(digest_of(&mut bench), digest, "a partner that denies nobody finds it equal");
    bench.feed(deny(&[]));
    bench.feed(deny(&[DENIED]));
    assert_eq!(digest_of(&mut bench), digest);
}

#[test]
fn an_accusation_by_a_denied_peer_counts_for_nothing_here_and_is_passed_on() {
    let accused = 6;
    for is_denied in [true, false] {
        let mut bench = with_two();
        if is_denied {
            bench.feed(deny(&[DENIED]));
        }
        bench.frame(LINK, record_broadcast(DENIED, 1));
        bench.frame(LINK, record_broadcast(accused, 1));
        bench.out.clear();
        let accusation = Accusation::sign(&key(DENIED), &topic(), id(accused), 1).bytes;
        bench.frame(LINK, gossip(encode_content(&[Item::Accusation(accusation)])));
        assert_eq!(passed_on(&bench), 1);
        bench.pass(S * 10);
        assert_eq!(of_member(&bench, accused).is_empty(), is_denied);
        // Other nodes would count the accusation, so this node refutes it.
        bench.out.clear();
        let own = bench.state.own_record(&topic()).unwrap().record().sequence;
        let accusation = Accusation::sign(&key(DENIED), &topic(), id(ME), own).bytes;
        bench.frame(LINK, TopicFrame::Accuse(vec![accusation]));
        bench.pass(S);
        assert!(bench.state.own_record(&topic()).unwrap().record().sequence > own);
    }
}

#[test]
fn a_denied_peer_that_died_is_forgotten_without_a_word() {
    let mut bench = denying();
    bench.frame(LINK, record_broadcast(DENIED, 1));
    let before = digest_of(&mut bench);
    bench.out.clear();
    let by = [PEER, OTHER].map(|by| Accusation::sign(&key(by), &topic(), id(DENIED), 1).bytes);
    bench.frame(LINK, TopicFrame::Accuse(by.into()));
    bench.pass(S * 10);
    assert!(of_member(&bench, DENIED).is_empty() && !is_dialed(&bench, DENIED));
    assert_ne!(digest_of(&mut bench), before, "it is gone from what is compared");
    bench.feed(deny(&[]));
    assert!(of_member(&bench, DENIED).is_empty());
}

#[test]
fn a_broadcast_by_a_denied_peer_is_passed_on_and_not_delivered() {
    let mut bench = denying();
    bench.frame(LINK, record_broadcast(DENIED, 1));
    bench.pass(S);
    bench.out.clear();
    let signed = Broadcast::sign(&key(DENIED), &topic(), 1, 0, b"hello");
    bench.frame(LINK, gossip(encode_broadcast(&signed)));
    let delivered =
        |out: &OutEvent| matches!(out, OutEvent::Topic(_, TopicEvent::Broadcast { .. }));
    assert!(!bench.out.iter().any(delivered));
    assert_eq!(passed_on(&bench), 1);
    assert!(bench.dropped().contains(&"broadcasts of peers that are kept out"));
}

#[test]
fn peers_that_are_kept_out_never_take_the_place_of_others_in_a_full_book() {
    let mut bench = Bench::linked_as(Config { capacity: 4, ..Config::default() });
    bench.feed(deny(&[11, 12, 13, 14]));
    let push = |numbers: &[u8]| {
        let records = numbers.iter().map(|number| signed(*number, 1).bytes().clone());
        TopicFrame::Push(records.collect())
    };
    bench.frame(LINK, push(&[11, 12, 13, 14]));
    bench.frame(LINK, push(&[21, 22, 23, 24]));
    assert_eq!(members(&bench).len(), 4, "each of them has taken a place");
    bench.out.clear();
    bench.frame(LINK, push(&[11, 25]));
    let of_others = ["newcomers beyond the capacity", "members displaced by newcomers"];
    assert_eq!(bench.dropped(), of_others, "25 is not kept out");
    bench.feed(deny(&[]));
    assert_eq!(members(&bench).len(), 4);
}

fn admitting(numbers: &[u8]) -> InEvent {
    let admitted = Some(numbers.iter().map(|number| id(*number)).collect());
    InEvent::SetAccess(Arc::new(Access { admitted, ..Access::default() }))
}

/// The records that the application was asked about, in short.
fn undecided(bench: &Bench) -> Vec<u64> {
    let of = |out: &OutEvent| match out {
        OutEvent::Topic(_, TopicEvent::Undecided(record)) => Some(record.sequence),
        _ => None,
    };
    bench.out.iter().filter_map(of).collect()
}

#[test]
fn an_undecided_peer_is_asked_about_and_hidden_until_it_is_admitted() {
    let [mut plain, mut bench] = [with_two(), with_two()];
    bench.feed(admitting(&[PEER, OTHER]));
    bench.out.clear();
    for bench in [&mut plain, &mut bench] {
        bench.frame(LINK, record_broadcast(DENIED, 1));
    }
    assert_eq!((undecided(&bench), bench.dropped().len()), (vec![1], 0));
    assert_eq!(passed_on(&bench), 1, "others may admit it");
    assert!(of_member(&bench, DENIED).is_empty() && !members(&bench).contains(&id(DENIED)));
    let asked = |bench: &Bench| bench.state.undecided(&topic(), None, 10, &|_| true);
    assert_eq!(asked(&bench).iter().map(|record| record.id).collect::<Vec<_>>(), [id(DENIED)]);
    assert!(bench.state.claimed(&topic(), &id(DENIED)).is_some());
    assert!(!is_dialed(&bench, DENIED));
    assert_eq!(digest_of(&mut bench), digest_of(&mut plain), "books are compared as if it were in");
    bench.out.clear();
    bench.frame(LINK, record_broadcast(DENIED, 1));
    assert!(undecided(&bench).is_empty(), "a replay asks nothing");
    bench.open_link(LinkId(9), DENIED, false);
    assert_eq!(bench.closed(), [(LinkId(9), CloseCode::Denied)]);

    bench.out.clear();
    bench.feed(admitting(&[PEER, OTHER, DENIED]));
    assert_eq!(of_member(&bench, DENIED), ["joined 1"]);
    bench.frame(LINK, record_broadcast(DENIED, 2));
    assert!(undecided(&bench).is_empty() && asked(&bench).is_empty());
    // The deny list goes before what the application said, and asks it nothing.
    bench.feed(deny(&[DENIED]));
    bench.out.clear();
    bench.frame(LINK, record_broadcast(DENIED, 3));
    assert!(undecided(&bench).is_empty() && asked(&bench).is_empty());
}

#[test]
fn undecided_peers_are_listed_in_the_order_of_their_ids_a_few_at_a_time() {
    let mut bench = with_two();
    bench.feed(admitting(&[PEER, OTHER]));
    for number in 11..20 {
        bench.frame(LINK, record_broadcast(number, 1));
    }
    let mut expected: Vec<_> = (11..20).map(id).collect();
    expected.sort_unstable();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let some = bench.state.undecided(&topic(), after, 2, &|one| *one != expected[4]);
        let Some(last) = some.last() else { break };
        after = Some(last.id);
        listed.extend(some.iter().map(|record| record.id));
    }
    expected.remove(4);
    assert_eq!(listed, expected);
}
