//! Links, probes and verdicts while this node's own network changes, or is away.

use super::{guard::with_two, *};
use crate::{CloseCode, LostReason, TopicEvent, accusation::Accusation};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const ACCUSED: u8 = 5;

/// Makes a node with a link to [`PEER`], a neighbor that is probed.
fn with_neighbor() -> Bench {
    let mut bench = with_two();
    bench.out.clear();
    bench
}

fn dials(bench: &Bench, number: u8) -> usize {
    let to = |out: &&OutEvent| matches!(out, OutEvent::Dial(peer, _) if *peer == id(number));
    bench.out.iter().filter(to).count()
}

fn is_doubted(bench: &Bench) -> bool {
    let doubted = |out: &OutEvent| {
        matches!(out, OutEvent::Topic(_, TopicEvent::PeerSuspected(_) | TopicEvent::PeerLost(..)))
    };
    bench.out.iter().any(doubted)
}

#[test]
fn a_link_that_answers_after_a_change_stays() {
    let mut bench = with_neighbor();
    bench.feed(InEvent::NetworkChanged { away: false });
    bench.pass(S * 5);
    assert_eq!(dials(&bench, PEER), 0);
}

#[test]
fn a_link_that_is_silent_after_a_change_is_opened_again_at_once() {
    let mut bench = with_neighbor();
    bench.silent.insert(LINK);
    bench.feed(InEvent::NetworkChanged { away: false });
    bench.pass(MS * 124);
    assert_eq!(dials(&bench, PEER), 0, "it has time to answer");
    bench.pass(MS);
    assert_eq!(dials(&bench, PEER), 1);
    // Another link is dialed only after the first dial has failed.
    bench.pass(S / 2);
    assert_eq!(dials(&bench, PEER), 1);
    bench.feed(InEvent::DialFailed(id(PEER)));
    bench.pass(S / 2);
    assert_eq!(dials(&bench, PEER), 2);
    bench.open_link(LinkId(7), PEER, true);
    bench.hello(LinkId(7), 9);
    bench.pass(S);
    assert!(!is_doubted(&bench));
    assert_eq!(bench.state.link(&id(PEER)), Some(LinkId(7)));
}

#[test]
fn a_link_that_stays_silent_after_a_change_is_closed_so_that_other_addresses_can_be_tried() {
    for (held, before) in [(false, MS * 874), (true, MS * 1874)] {
        let mut bench = with_neighbor();
        bench.silent.insert(LINK);
        bench.feed(InEvent::Held(LINK, held));
        bench.feed(InEvent::NetworkChanged { away: false });
        bench.pass(before);
        assert_eq!(bench.closed(), [], "it has time to answer, held: {held}");
        bench.pass(MS);
        assert_eq!(bench.closed(), [(LINK, CloseCode::Unresponsive)], "held: {held}");
        assert_eq!(dials(&bench, PEER), 1, "the dial goes on");
        bench.open_link(LinkId(7), PEER, true);
        bench.hello(LinkId(7), 9);
        bench.pass(S * 3);
        assert!(!is_doubted(&bench));
        assert_eq!(bench.state.link(&id(PEER)), Some(LinkId(7)));
        assert_eq!(bench.closed().len(), 1, "a link that answers stays");
    }
}

#[test]
fn a_member_that_is_seen_at_new_addresses_is_dialed_there_too() {
    let mut bench = with_neighbor();
    let elsewhere = TransportAddr::Ip("10.9.9.9:9".parse().unwrap());
    let dialed = |bench: &mut Bench| {
        let at = |out| match out {
            OutEvent::Dial(peer, at) if peer == id(PEER) => Some(at.contains(&elsewhere)),
            _ => None,
        };
        std::mem::take(&mut bench.out).into_iter().filter_map(at).collect::<Vec<_>>()
    };
    let seen = |bench: &mut Bench, at: Vec<TransportAddr>| {
        bench.feed(InEvent::Found(topic(), id(PEER), at));
    };
    let known = node(PEER, 1).addresses;
    let both = [known.clone(), vec![elsewhere.clone()]].concat();
    bench.silent.insert(LINK);
    bench.feed(InEvent::NetworkChanged { away: false });
    bench.pass(MS * 125);
    assert_eq!(dialed(&mut bench), [false], "nobody said that it moved");
    seen(&mut bench, known);
    assert_eq!(dialed(&mut bench), [false; 0], "it did not move");
    seen(&mut bench, both.clone());
    assert_eq!(dialed(&mut bench), [true], "the dial goes on at the new address too");
    seen(&mut bench, both);
    assert_eq!(dialed(&mut bench), [false; 0], "that is known");
    bench.feed(InEvent::DialFailed(id(PEER)));
    bench.pass(MS * 250);
    assert_eq!(dialed(&mut bench), [true], "the next dial tries it at once");
}

#[test]
fn a_young_link_that_is_silent_after_a_change_is_replaced_at_both_ends() {
    for dialed in [true, false] {
        let mut bench = Bench::new();
        bench.open_link(LINK, PEER, !dialed);
        bench.hello(LINK, 9);
        bench.frame(LINK, TopicFrame::Open(topic()));
        bench.frame(LINK, TopicFrame::Push(vec![signed(PEER, 10).bytes().clone()]));
        bench.silent.insert(LINK);
        bench.pass(MS);
        let mut features = 0;
        if dialed {
            bench.feed(InEvent::NetworkChanged { away: false });
            bench.pass(S / 4);
            assert_eq!(dials(&bench, PEER), 1);
        } else {
            features = Hello::REPLACES;
        }
        bench.open_link(LinkId(7), PEER, dialed);
        let hello = Hello { min_version: 1, max_version: 1, boot_id: 9, features };
        bench.bytes(LinkId(7), Frame::Hello(hello).encode());
        assert_eq!(bench.state.link(&id(PEER)), Some(LinkId(7)), "dialed here: {dialed}");
    }
}

#[test]
fn a_link_that_replaced_another_is_replaced_in_turn_and_both_ends_compare_again() {
    for dialed in [true, false] {
        let mut bench = with_neighbor();
        let features = if dialed { 0 } else { Hello::REPLACES };
        let hello = Hello { min_version: 1, max_version: 1, boot_id: 9, features };
        for link in [LinkId(7), LinkId(8)] {
            bench.silent.extend([LINK, LinkId(7)]);
            bench.pass(MS);
            if dialed {
                bench.feed(InEvent::NetworkChanged { away: false });
                bench.pass(S / 4);
            }
            bench.open_link(link, PEER, dialed);
            bench.out.clear();
            bench.bytes(link, Frame::Hello(hello.clone()).encode());
            bench.pass(MS * 100);
            let sync =
                |out: &OutEvent| matches!(out, OutEvent::Send(on, Lane::Sync, _) if *on == link);
            assert!(
                bench.out.iter().any(sync),
                "nothing is compared on {link:?}, dialed here: {dialed}"
            );
            let before = if link == LinkId(7) { LINK } else { LinkId(7) };
            let closed = bench.closed();
            assert_eq!(closed, [(before, CloseCode::Unresponsive)], "it is not waited for");
        }
    }
}

#[test]
fn nobody_is_doubted_while_the_network_is_away() {
    for away in [true, false] {
        let mut bench = with_neighbor();
        let link = bench.state.link(&id(PEER)).unwrap();
        bench.silent.extend([link, LINK]);
        bench.feed(InEvent::NetworkChanged { away });
        bench.pass(S * 60);
        assert_eq!(is_doubted(&bench), !away);
    }
}

#[test]
fn a_peer_that_is_heard_while_the_network_is_away_can_be_lost() {
    let mut bench = with_neighbor();
    bench.feed(InEvent::NetworkChanged { away: true });
    bench.pass(S * 20);
    assert!(!is_doubted(&bench));
    bench.silent.insert(LINK);
    bench.pass(S * 20);
    assert!(is_doubted(&bench), "it is on this machine");
}

#[test]
fn a_verdict_waits_until_the_network_is_back_and_the_accused_had_time() {
    let mut bench = with_neighbor();
    bench.frame(LINK, TopicFrame::Push(vec![signed(ACCUSED, 10).bytes().clone()]));
    let accusation = Accusation::sign(&key(PEER), &topic(), id(ACCUSED), 10).bytes;
    bench.frame(LINK, TopicFrame::Accuse(vec![accusation]));
    bench.pass(S);
    bench.feed(InEvent::NetworkChanged { away: true });
    bench.silent.insert(LINK);
    bench.pass(S * 60);
    let lost = |bench: &Bench| {
        let lost = |out: &OutEvent| {
            let event =
                TopicEvent::PeerLost(signed(ACCUSED, 10).record().clone(), LostReason::Unreachable);
            matches!(out, OutEvent::Topic(_, lost) if *lost == event)
        };
        bench.out.iter().any(lost)
    };
    assert!(!lost(&bench));
    bench.silent.clear();
    bench.feed(InEvent::NetworkChanged { away: false });
    bench.pass(S);
    assert!(!lost(&bench));
    bench.pass(S * 20);
    assert!(lost(&bench));
}
