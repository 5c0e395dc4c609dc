//! The guard: what a stranger or a hostile neighbor sends does not reach the overlay.

use super::*;
use crate::{
    CloseCode, TopicEvent,
    accusation::Accusation,
    wire::{Item, OverlayFrame, decode_content, encode_content},
};

fn overlay(frame: OverlayFrame) -> TopicFrame {
    TopicFrame::Overlay(frame)
}

/// Makes a node with the neighbor [`PEER`].
pub(super) fn with_neighbor() -> Bench {
    with_neighbor_as(Config::default())
}

fn with_neighbor_as(config: Config) -> Bench {
    let mut bench = Bench::linked_as(config);
    bench.frame(LINK, overlay(OverlayFrame::Join(signed(PEER, 1).bytes().clone())));
    let answered = bench
        .sent()
        .into_iter()
        .any(|(_, frame)| matches!(frame, TopicFrame::Overlay(OverlayFrame::Neighbor { .. })));
    assert!(answered, "a join is answered");
    bench
}

/// Makes a node with two neighbors, to see what is forwarded.
pub(super) fn with_two() -> Bench {
    with_two_as(Config::default())
}

pub(super) fn with_two_as(config: Config) -> Bench {
    let mut bench = with_neighbor_as(config);
    bench.open_link(LinkId(2), 3, false);
    bench.hello(LinkId(2), 9);
    bench.frame(LinkId(2), TopicFrame::Open(topic()));
    bench.frame(LinkId(2), overlay(OverlayFrame::Join(signed(3, 1).bytes().clone())));
    bench.pass(Duration::from_secs(1));
    bench.out.clear();
    bench
}

fn gossip(records: &[SignedRecord]) -> TopicFrame {
    let content = encode_content(
        &records.iter().map(|r| Item::Record(r.bytes().clone())).collect::<Vec<_>>(),
    );
    overlay(OverlayFrame::Gossip { round: Some(0), content })
}

fn forwards(bench: &mut Bench) -> usize {
    let sent = bench.sent();
    sent.iter()
        .filter(|(link, frame)| {
            *link == LinkId(2) && matches!(frame, TopicFrame::Overlay(OverlayFrame::Gossip { .. }))
        })
        .count()
}

#[test]
fn news_is_forwarded_and_a_replay_is_not() {
    let mut bench = with_two();
    bench.frame(LINK, gossip(&[signed(5, 1)]));
    assert_eq!(forwards(&mut bench), 1);
    // The same record arrives in a broadcast of another shape, long after.
    bench.pass(Duration::from_mins(2));
    bench.out.clear();
    bench.frame(LINK, gossip(&[signed(5, 1), signed(5, 1)]));
    assert!(bench.dropped().contains(&"broadcasts without anything new"));
    assert_eq!(forwards(&mut bench), 0);
}

#[test]
fn a_forged_record_is_not_forwarded_and_its_sender_is_cut_off() {
    let mut bench = with_two();
    let mut bytes = signed(5, 1).bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let content = encode_content(&[Item::Record(bytes.into())]);
    bench.frame(LINK, overlay(OverlayFrame::Gossip { round: Some(0), content }));
    assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)]);
    assert_eq!(forwards(&mut bench), 0);
}

#[test]
fn of_records_that_come_together_those_before_a_forged_one_are_taken_in() {
    // A bootstrap peer may bring any number of newcomers, which are verified together.
    let mut bench = Bench::bootstrapped();
    let mut records = [5, 6, 7].map(|number| signed(number, 1).bytes().clone());
    let mut forged = records[1].to_vec();
    *forged.last_mut().unwrap() ^= 1;
    records[1] = forged.into();
    bench.frame(LINK, TopicFrame::Push(records.to_vec()));
    let taken_in = [5, 6, 7].map(|number| bench.state.record(&topic(), &id(number)).is_some());
    assert_eq!(taken_in, [true, false, false]);
    assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)]);
}

#[test]
fn unknown_keys_survive_a_relay_byte_for_byte() {
    let mut bench = with_two();
    let record = super::record::of_a_later_version(5, 1);
    let content = encode_content(&[Item::Record(record.clone())]);
    bench.frame(LINK, overlay(OverlayFrame::Gossip { round: Some(0), content }));
    let relayed = bench.sent().into_iter().find_map(|(link, frame)| match frame {
        TopicFrame::Overlay(OverlayFrame::Gossip { content, .. }) if link == LinkId(2) => {
            Some(content)
        }
        _ => None,
    });
    assert_eq!(crate::wire::decode_content(&relayed.unwrap()).unwrap(), [Item::Record(record)]);
}

#[test]
fn plumtree_frames_of_strangers_are_answered_with_a_disconnect() {
    for frame in [
        OverlayFrame::Prune,
        OverlayFrame::Graft { id: None, round: 0 },
        OverlayFrame::IHave(vec![([1; 32], 0)]),
        OverlayFrame::Gossip {
            round: Some(0),
            content: encode_content(&[Item::Record(signed(5, 1).bytes().clone())]),
        },
        OverlayFrame::ForwardJoin { ttl: 6, record: signed(5, 1).bytes().clone() },
    ] {
        let mut bench = Bench::linked();
        bench.out.clear();
        for _ in 0..10 {
            bench.frame(LINK, overlay(frame.clone()));
        }
        let alive = overlay(OverlayFrame::Disconnect { alive: true });
        let opened = TopicFrame::Open(topic());
        assert_eq!(bench.sent(), [(LINK, opened), (LINK, alive)], "{frame:?}");
    }
}

#[test]
fn nobody_is_introduced_with_another_ones_record() {
    let mut bench = Bench::linked();
    bench.frame(
        LINK,
        overlay(OverlayFrame::Neighbor { high: true, record: signed(5, 1).bytes().clone() }),
    );
    assert!(bench.dropped().contains(&"introductions with another's record"));
    let up = bench
        .sent()
        .iter()
        .any(|(_, frame)| matches!(frame, TopicFrame::Overlay(OverlayFrame::Neighbor { .. })));
    assert!(!up);
}

#[test]
fn a_flood_of_frames_runs_into_the_budget() {
    let mut bench = with_neighbor();
    for round in 0..9000_u16 {
        bench.frame(LINK, overlay(OverlayFrame::IHave(vec![([1; 32], round)])));
    }
    let over = bench.dropped().into_iter().filter(|what| what.contains("over the budget")).count();
    assert!((900..=1100).contains(&over), "{over} of 9000, in no time");
}

#[test]
fn what_is_remembered_of_contents_has_a_bound() {
    let mut bench = with_two();
    let seen = |bench: &Bench| {
        let sizes = bench.state.inspect(&topic()).unwrap().sizes;
        sizes.into_iter().find(|(what, _)| *what == "contents seen").unwrap().1
    };
    for sequence in 2..4300 {
        // Both neighbors bring as many updates as they may.
        bench.frame(LinkId(1 + sequence % 2), gossip(&[signed(3, sequence)]));
        if sequence % 200 == 0 {
            bench.pass(Duration::from_secs(1));
        }
    }
    assert_eq!(seen(&bench), 4096);
    bench.pass(Duration::from_secs(30));
    bench.frame(LINK, gossip(&[signed(3, 4300)]));
    assert_eq!(seen(&bench), 1, "and they are forgotten");
}

/// Makes a node whose neighbors are the peers 2 to 6, which have forwarded something. Their links
/// have their numbers.
fn with_full_view() -> Bench {
    let mut bench = Bench::new();
    for number in 2..7 {
        ask(&mut bench, number, OverlayFrame::Join(signed(number, 1).bytes().clone()));
        speak(&mut bench, number);
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!(neighbors(&bench), [2, 3, 4, 5, 6]);
    bench
}

fn link_of(number: u8) -> LinkId {
    LinkId(u64::from(number))
}

fn ask(bench: &mut Bench, number: u8, frame: OverlayFrame) {
    if bench.state.link(&id(number)).is_none() {
        bench.open_link(link_of(number), number, false);
        bench.hello(link_of(number), 9);
        bench.frame(link_of(number), TopicFrame::Open(topic()));
    }
    bench.frame(link_of(number), overlay(frame));
}

fn speak(bench: &mut Bench, number: u8) {
    bench.frame(link_of(number), overlay(OverlayFrame::IHave(vec![([number; 32], 0)])));
}

/// Returns the neighbors by the events.
fn neighbors(bench: &Bench) -> Vec<u8> {
    let mut neighbors = BTreeSet::new();
    for out in &bench.out {
        match out {
            OutEvent::Topic(_, TopicEvent::NeighborUp(peer)) => neighbors.insert(*peer),
            OutEvent::Topic(_, TopicEvent::NeighborDown(peer)) => neighbors.remove(peer),
            _ => false,
        };
    }
    (0..=u8::MAX).filter(|number| neighbors.contains(&id(*number))).collect()
}

fn high(number: u8) -> OverlayFrame {
    OverlayFrame::Neighbor { high: true, record: signed(number, 1).bytes().clone() }
}

#[test]
fn requests_of_strangers_evict_each_other_and_one_neighbor_at_the_most() {
    for keys in [1, 5, 20] {
        for frames in [1, 6, 50] {
            let mut bench = with_full_view();
            for _ in 0..frames {
                for number in 20..20 + keys {
                    ask(&mut bench, number, high(number));
                    assert_eq!(neighbors(&bench).len(), 5);
                }
            }
            let honest = neighbors(&bench).into_iter().filter(|number| *number < 20).count();
            assert_eq!(honest, 4, "{keys} keys, {frames} frames");
            bench.pass(Duration::from_millis(4500));
            assert!(neighbors(&bench).iter().filter(|number| **number < 20).count() >= 4);
        }
    }
}

#[test]
fn strangers_that_speak_push_out_no_anchor_and_not_all_at_once() {
    let mut bench = with_full_view();
    for round in 0..100 {
        for number in 20..25 {
            ask(&mut bench, number, high(number));
            speak(&mut bench, number);
        }
        let now = neighbors(&bench);
        assert!(now.contains(&2) && now.contains(&3), "round {round}: {now:?}");
        for number in 2..7 {
            bench.frame(link_of(number), TopicFrame::Attached);
        }
        bench.pass(Duration::from_millis(100));
    }
    assert!(bench.dropped().contains(&"requests to be neighbors over the budget"));
}

#[test]
fn a_neighbor_that_forwards_nothing_is_replaced() {
    let mut bench = with_full_view();
    bench.frame(LINK_3, TopicFrame::Push((40..60).map(|n| signed(n, 1).bytes().clone()).collect()));
    ask(&mut bench, 20, high(20));
    assert!(neighbors(&bench).contains(&20));
    for _ in 0..60 {
        bench.pass(Duration::from_secs(1));
        // These peers answer, and send nothing else.
        for number in (2..7).chain([20]) {
            bench.frame(link_of(number), TopicFrame::Attached);
        }
    }
    assert!(!neighbors(&bench).contains(&20));
    assert!(bench.dropped().contains(&"neighbors that forwarded nothing"));
    let honest = neighbors(&bench).iter().filter(|number| **number < 20).count();
    assert_eq!(honest, 4);
}

const LINK_3: LinkId = LinkId(3);

#[test]
fn a_peer_that_introduces_newcomers_has_a_share_of_the_book() {
    let mut bench = with_neighbor_as(Config { capacity: 400, ..Config::default() });
    let made_up = |from: usize, count: usize| {
        (from..from + count)
            .map(|number| {
                let mut secret = [9; 32];
                secret[..8].copy_from_slice(&number.to_be_bytes());
                let key = SigningKey::from_bytes(&secret);
                let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
                let record = NodeRecord { id, ..node(9, 1) };
                SignedRecord::sign(&key, &topic(), record).unwrap().bytes().clone()
            })
            .collect::<Vec<_>>()
    };
    let held = |bench: &Bench| bench.state.inspect(&topic()).unwrap().live.len();
    for round in 0..10 {
        bench.frame(LINK, TopicFrame::Push(made_up(round * 50, 50)));
    }
    assert_eq!(held(&bench), 1 + 256);
    let dropped = |name| bench.dropped().iter().filter(|what| **what == name).count();
    assert_eq!(dropped("members displaced by newcomers"), 64, "others of the same peer");
    assert_eq!(dropped("newcomers over the share of their introducer"), 500 - 256 - 64);
    // Other newcomers still get in if they come themselves.
    for number in 20..40 {
        ask(&mut bench, number, OverlayFrame::Join(signed(number, 1).bytes().clone()));
    }
    assert_eq!(held(&bench), 1 + 256 + 20);
}

#[test]
fn a_thousand_replays_of_old_records_change_nothing() {
    let mut bench = with_neighbor();
    bench.frame(LINK, TopicFrame::Push(vec![signed(5, 10).bytes().clone()]));
    bench.out.clear();
    for sequence in (1..10).cycle().take(1000) {
        bench.frame(LINK, TopicFrame::Push(vec![signed(5, sequence).bytes().clone()]));
    }
    let events = bench.out.iter().filter(|out| match out {
        OutEvent::Topic(_, event) => !matches!(event, TopicEvent::Announced(_)),
        _ => false,
    });
    assert_eq!(events.count(), 0);
}

#[test]
fn a_higher_record_of_our_own_key_is_outrun() {
    let mut bench = with_neighbor();
    bench.frame(LINK, TopicFrame::Push(vec![signed(ME, 5_000).bytes().clone()]));
    bench.out.clear();
    bench.pass(Duration::from_secs(1));
    let announced = bench.out.iter().find_map(|out| match out {
        OutEvent::Topic(_, TopicEvent::Announced(record)) => Some(record.sequence),
        _ => None,
    });
    assert_eq!(announced, Some(5_001));
}

#[test]
fn a_clone_of_our_key_causes_no_flood_war() {
    let mut bench = with_neighbor();
    bench.out.clear();
    let mut announcements = 0;
    let mut sequence = 5_000;
    for _ in 0..600 {
        sequence += 10;
        bench.frame(LINK, TopicFrame::Push(vec![signed(ME, sequence).bytes().clone()]));
        bench.pass(Duration::from_millis(100));
        announcements += bench
            .out
            .drain(..)
            .filter(|out| matches!(out, OutEvent::Topic(_, TopicEvent::Announced(_))))
            .count();
    }
    assert!(announcements <= 10, "{announcements} in a minute");
}

#[test]
fn a_peer_behind_its_own_past_is_shown_it() {
    let mut bench = with_neighbor();
    bench.frame(LINK, TopicFrame::Push(vec![signed(PEER, 50).bytes().clone()]));
    bench.out.clear();
    bench.frame(LINK, TopicFrame::Push(vec![signed(PEER, 7).bytes().clone()]));
    let shown = TopicFrame::Push(vec![signed(PEER, 50).bytes().clone()]);
    assert!(bench.sent().contains(&(LINK, shown)));
}

#[test]
fn sequence_numbers_wait_until_they_are_persisted() {
    let identity = Identity { key: key(ME), boot_id: 1, sequence: 100, reserved: 100 };
    let now = Instant::now();
    let mut bench = Bench {
        state: State::new(identity, [7; 32], now),
        now,
        out: vec![],
        silent: BTreeSet::new(),
        hung: BTreeSet::new(),
    };
    let profile = Profile::new("me");
    let options = TopicOptions { profile, config: Config::default() };
    bench.feed(InEvent::Join(topic(), Box::new(options)));
    let announced = |bench: &Bench| {
        bench.out.iter().any(|out| matches!(out, OutEvent::Topic(_, TopicEvent::Announced(_))))
    };
    assert!(!announced(&bench), "nothing is announced that is not on disk");
    let below = bench.out.iter().find_map(|out| match out {
        OutEvent::ReserveSequences(below) => Some(*below),
        _ => None,
    });
    bench.feed(InEvent::SequencesReserved(below.unwrap()));
    assert!(announced(&bench));
}

#[test]
fn what_this_node_did_not_verify_goes_no_further_and_the_rest_of_it_does() {
    let mut bench = with_two();
    // Node 9 is unknown, so its accusation waits for its record.
    let accusation = Accusation::sign(&key(9), &topic(), id(3), 1).bytes;
    let items = [Item::Record(signed(5, 1).bytes().clone()), Item::Accusation(accusation)];
    let content = encode_content(&items);
    bench.frame(LINK, overlay(OverlayFrame::Gossip { round: Some(0), content: content.clone() }));
    bench.pass(Duration::from_secs(1));
    let sent = bench.sent();
    let contents = sent.iter().filter_map(|(link, frame)| match frame {
        TopicFrame::Overlay(OverlayFrame::Gossip { content, .. }) if *link == LinkId(2) => {
            Some(decode_content(content).unwrap())
        }
        _ => None,
    });
    assert_eq!(contents.collect::<Vec<_>>(), [&items[..1]]);
}
