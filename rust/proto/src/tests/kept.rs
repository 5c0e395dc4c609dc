//! Records that an earlier life knew: their owners are dialed, and are members only once a record
//! confirms them.

use super::*;
use crate::{Entry, Kept, TopicEvent};

const S: Duration = Duration::from_secs(1);

fn kept(number: u8, sequence: u64) -> Kept {
    Kept { signed: signed(number, sequence), left: 0, established: false }
}

fn remembering(records: impl IntoIterator<Item = Kept>) -> Bench {
    let mut bench = Bench::new();
    bench.feed(InEvent::Remember(topic(), records.into_iter().collect()));
    bench
}

fn dials(bench: &mut Bench) -> Vec<EndpointId> {
    let dialed = |event| if let OutEvent::Dial(peer, _) = event { Some(peer) } else { None };
    std::mem::take(&mut bench.out).into_iter().filter_map(dialed).collect()
}

fn events(bench: &Bench) -> Vec<TopicEvent> {
    let event = |out: &OutEvent| match out {
        OutEvent::Topic(_, event) => Some(event.clone()),
        _ => None,
    };
    bench.out.iter().filter_map(event).collect()
}

#[test]
fn a_kept_record_is_no_member_but_its_owner_is_dialed_where_it_was() {
    let mut bench = remembering([kept(PEER, 50)]);
    assert!(bench.state.record(&topic(), &id(PEER)).is_none());
    bench.pass(S);
    let joined = |event: &TopicEvent| matches!(event, TopicEvent::PeerJoined(_));
    assert!(!events(&bench).iter().any(joined));
    let dial = bench.out.iter().find_map(|out| match out {
        OutEvent::Dial(peer, addresses) => Some((*peer, addresses.clone())),
        _ => None,
    });
    assert_eq!(dial, Some((id(PEER), node(PEER, 50).addresses)));
}

#[test]
fn the_kept_record_itself_confirms_its_owner_and_an_older_one_does_not() {
    for (sequence, joins) in [(49, false), (50, true), (51, true)] {
        let mut bench = remembering([kept(3, 50)]);
        bench.open_link(LINK, PEER, false);
        bench.hello(LINK, 9);
        bench.frame(LINK, TopicFrame::Open(topic()));
        bench.frame(LINK, TopicFrame::Push(vec![signed(3, sequence).bytes().clone()]));
        let is_it = |record: &NodeRecord| record.id == id(3);
        let joined =
            |event: &TopicEvent| matches!(event, TopicEvent::PeerJoined(record) if is_it(record));
        assert_eq!(events(&bench).iter().any(joined), joins, "{sequence}");
        assert_eq!(bench.state.record(&topic(), &id(3)).is_some(), joins, "{sequence}");
    }
}

#[test]
fn one_that_left_is_dialed_while_alone_and_comes_back_with_a_newer_record_only() {
    let left = || Kept { left: 51, ..kept(3, 50) };
    let mut bench = remembering([left()]);
    bench.pass(S);
    assert!(dials(&mut bench).contains(&id(3)));
    for (sequence, joins) in [(50, false), (51, false), (52, true)] {
        let mut bench = Bench::linked();
        bench.feed(InEvent::Remember(topic(), vec![left(), kept(4, 50)]));
        bench.pass(S * 3);
        assert_eq!(dials(&mut bench), [id(4)], "others are there");
        bench.frame(LINK, TopicFrame::Push(vec![signed(3, sequence).bytes().clone()]));
        assert_eq!(bench.state.record(&topic(), &id(3)).is_some(), joins, "{sequence}");
    }
}

#[test]
fn kept_addresses_add_to_those_of_a_ticket() {
    let mut bench = Bench::new();
    let stale: Vec<TransportAddr> = vec![TransportAddr::Ip("192.0.2.9:9".parse().unwrap())];
    bench.feed(InEvent::AddBootstrap(topic(), vec![(id(PEER), stale.clone())]));
    bench.feed(InEvent::Remember(topic(), vec![kept(PEER, 50)]));
    bench.out.clear();
    bench.feed(InEvent::DialFailed(id(PEER)));
    bench.pass(S * 3);
    let both = [stale, node(PEER, 50).addresses].concat();
    let dialed = |out: &OutEvent| matches!(out, OutEvent::Dial(_, at) if *at == both);
    assert!(bench.out.iter().any(dialed), "{:?}", bench.out);
}

#[test]
fn kept_members_are_all_tried_and_cost_no_more_dials_than_their_budget() {
    let kept = |number| {
        let address = TransportAddr::Ip(([192, 0, 2, number], 7).into());
        let signed = sign(NodeRecord { addresses: vec![address], ..node(number, 50) });
        Kept { signed, left: 0, established: false }
    };
    let mut bench = remembering((2..=201).map(kept));
    let end = bench.now + S * 3600;
    let (mut tried, mut first_minute, mut most) = (BTreeSet::new(), 0, 0);
    let begin = bench.now;
    while bench.now < end {
        bench.pass(S);
        let dialed = dials(&mut bench);
        most = most.max(dialed.len());
        if bench.now < begin + S * 60 {
            first_minute += dialed.len();
        }
        for peer in dialed {
            tried.insert(peer);
            bench.feed(InEvent::DialFailed(peer));
        }
    }
    assert_eq!(tried.len(), 200);
    // At most 64 of them are dialed at once, and 20 a minute as strangers.
    assert!((64..=64 + 20).contains(&first_minute), "{first_minute}");
    assert!(most <= 24, "{most}");
}

#[test]
fn what_is_known_already_is_not_remembered() {
    let mut bench = Bench::linked();
    bench.frame(LINK, TopicFrame::Push(vec![signed(3, 60).bytes().clone()]));
    bench.feed(InEvent::Remember(topic(), vec![kept(3, 50), kept(ME, 50)]));
    let known = bench.state.record(&topic(), &id(3)).unwrap();
    assert_eq!(known.record().sequence, 60);
    bench.out.clear();
    bench.pass(S * 60);
    assert!(!dials(&mut bench).contains(&id(ME)));
}

#[test]
fn an_entry_survives_the_disk_and_damage_is_an_error() {
    let record = signed(3, 60);
    let entry =
        Entry { id: id(3), record: record.bytes().clone(), since: 1, heard: u64::MAX, left: 7 };
    let bytes = entry.encode();
    assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    assert_eq!(entry.verify(&topic(), true).unwrap().signed, record);
    Entry { id: id(4), ..entry.clone() }.verify(&topic(), true).unwrap_err();
    entry.verify(&TopicId::from_name("other").unwrap(), true).unwrap_err();
    for end in 0..bytes.len() {
        Entry::decode(&bytes[..end]).unwrap_err();
    }
}
