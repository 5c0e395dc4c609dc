//! Getting and staying in contact: redials, busy bootstrap peers, how often books are compared,
//! leaves.

use super::*;
use crate::{
    TopicEvent,
    wire::{Entry, Item, OverlayFrame, SyncFrame, Turn, encode_content},
};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

pub(super) fn sync(
    session: u64,
    from_initiator: bool,
    turn: Turn,
    entries: Vec<Entry>,
) -> TopicFrame {
    TopicFrame::Sync(SyncFrame {
        session,
        from_initiator,
        attached: !from_initiator,
        turn,
        ranges: Vec::new(),
        entries,
        wants: Vec::new(),
        observer: false,
    })
}

fn dials(bench: &mut Bench) -> Vec<EndpointId> {
    let dialed = |event| match event {
        OutEvent::Dial(peer, _) => Some(peer),
        _ => None,
    };
    std::mem::take(&mut bench.out).into_iter().filter_map(dialed).collect()
}

#[test]
fn a_bootstrap_peer_is_dialed_again_and_again_with_a_growing_delay() {
    let mut bench = Bench::new();
    bench.feed(InEvent::AddBootstrap(topic(), vec![(id(PEER), node(PEER, 1).addresses)]));
    let start = bench.now;
    let mut at = Vec::new();
    while bench.now < start + S * 300 {
        if !dials(&mut bench).is_empty() {
            at.push(bench.now);
            bench.feed(InEvent::DialFailed(id(PEER)));
        }
        bench.pass(MS * 10);
    }
    let delays: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(at[0] - start < MS * 500);
    for (delay, expected) in
        delays.iter().zip([500, 1000, 2000, 4000].into_iter().chain([5000; 90]))
    {
        let expected = MS * expected;
        assert!((expected * 7 / 10..expected * 13 / 10).contains(delay), "{delays:?}");
    }
    assert!(delays.len() > 50, "it does not give up: {delays:?}");
    let last = &delays[delays.len() - 10..];
    assert!(
        *last.iter().max().unwrap() > *last.iter().min().unwrap() + MS * 300,
        "jitter: {last:?}"
    );
}

fn strangers(count: u32) -> Vec<(EndpointId, Vec<TransportAddr>)> {
    let id = |number: u32| {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        EndpointId::from_bytes(bytes)
    };
    (0..count).map(|number| (id(number), node(PEER, 1).addresses)).collect()
}

/// Lets every dial fail after two seconds, and says when a peer is dialed.
fn time_until_dialed(bench: &mut Bench, wanted: EndpointId, limit: Duration) -> Duration {
    let start = bench.now;
    let mut dialing = Vec::new();
    while bench.now < start + limit {
        for peer in dials(bench) {
            if peer == wanted {
                return bench.now - start;
            }
            dialing.push((bench.now + S * 2, peer));
        }
        let over: Vec<_> = dialing.extract_if(.., |(at, _)| *at <= bench.now).collect();
        for (_, peer) in over {
            bench.feed(InEvent::DialFailed(peer));
        }
        bench.pass(MS * 100);
    }
    panic!("not dialed within {limit:?}");
}

#[test]
fn a_living_bootstrap_peer_is_dialed_soon_among_a_thousand_dead_ones() {
    let mut bench = Bench::new();
    bench.feed(InEvent::AddBootstrap(topic(), strangers(1000)));
    let delay = time_until_dialed(&mut bench, strangers(1000)[990].0, S * 300);
    // A peer that is named after all others were dialed without an answer is dialed at once.
    bench.pass(S * 300);
    bench.feed(InEvent::AddBootstrap(topic(), vec![(id(PEER), node(PEER, 1).addresses)]));
    let late = time_until_dialed(&mut bench, id(PEER), S * 30);
    assert!(late <= S * 7, "{late:?}, the first after {delay:?}");
}

#[test]
fn bootstrap_peers_that_are_due_at_once_are_dialed_a_few_at_a_time_and_each_in_turn() {
    let mut bench = Bench::bootstrapped();
    complete_first_sync(&mut bench);
    dials(&mut bench);
    bench.feed(InEvent::AddBootstrap(topic(), strangers(200)));
    let mut dialed = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let now = dials(&mut bench);
        // A second may have two batches in it, and second dials to the first ones.
        assert!(now.len() <= 3 * 24, "{} at a time", now.len());
        for peer in &now {
            bench.feed(InEvent::DialFailed(*peer));
        }
        dialed.extend(now);
        bench.pass(S);
    }
    assert!(strangers(200).iter().all(|(peer, _)| dialed.contains(peer)), "{}", dialed.len());
}

#[test]
fn a_bootstrap_peer_that_was_removed_is_dialed_no_longer() {
    let mut bench = Bench::new();
    bench.feed(InEvent::AddBootstrap(topic(), vec![(id(PEER), node(PEER, 1).addresses)]));
    bench.pass(S);
    assert_eq!(dials(&mut bench), [id(PEER)]);
    bench.feed(InEvent::RemoveBootstrap(topic(), vec![id(PEER)]));
    bench.feed(InEvent::DialFailed(id(PEER)));
    bench.pass(S * 60);
    assert!(dials(&mut bench).is_empty());
}

#[test]
fn a_missing_bootstrap_peer_that_is_named_again_is_dialed_at_once() {
    let mut bench = Bench::bootstrapped();
    complete_first_sync(&mut bench);
    let peer = strangers(1);
    bench.feed(InEvent::AddBootstrap(topic(), peer.clone()));
    for _ in 0..600 {
        bench.pass(S);
        for peer in dials(&mut bench) {
            bench.feed(InEvent::DialFailed(peer));
        }
    }
    bench.feed(InEvent::AddBootstrap(topic(), peer.clone()));
    bench.pass(MS);
    assert_eq!(dials(&mut bench), [peer[0].0]);
}

#[test]
fn a_newcomer_over_the_limit_is_given_members_to_try() {
    let mut bench = Bench::with(Config { concurrent_syncs: 1, ..Config::default() });
    bench.open_link(LINK, PEER, false);
    bench.hello(LINK, 9);
    bench.frame(LINK, TopicFrame::Open(topic()));
    let members = (20..40).map(|number| signed(number, 1).bytes().clone());
    bench.frame(LINK, TopicFrame::Push(members.collect()));
    for (link, peer) in [(LinkId(2), 3), (LinkId(3), 4)] {
        bench.open_link(link, peer, false);
        bench.hello(link, 9);
        bench.frame(link, TopicFrame::Open(topic()));
        bench.sent();
        bench.frame(link, sync(1, true, Turn::More, Vec::new()));
    }
    let busy: Vec<_> = bench
        .sent()
        .into_iter()
        .filter_map(|(link, frame)| match frame {
            TopicFrame::Busy(records) => Some((link, records)),
            _ => None,
        })
        .collect();
    let [(LinkId(3), records)] = busy.as_slice() else { panic!("{busy:?}") };
    assert_eq!(records.len(), 8);
    let known: Vec<_> = (20..40).map(id).collect();
    for record in records {
        let member = SignedRecord::verify(&topic(), record).unwrap().record().id;
        assert!(known.contains(&member));
    }
}

#[test]
fn a_node_whose_partner_is_busy_goes_to_a_member_that_was_named() {
    let mut bench = Bench::bootstrapped();
    assert!(bench.sent().iter().any(|(_, frame)| matches!(frame, TopicFrame::Sync(_))));
    bench.frame(LINK, TopicFrame::Busy(vec![signed(5, 1).bytes().clone()]));
    assert_eq!(dials(&mut bench), [id(5)]);
}

/// Ends the first sync of a node with its bootstrap peer.
fn complete_first_sync(bench: &mut Bench) {
    let number = |(_, frame): (LinkId, TopicFrame)| match frame {
        TopicFrame::Sync(sync) => Some(sync.session),
        _ => None,
    };
    let session = bench.sent().into_iter().find_map(number).unwrap();
    bench.frame(LINK, sync(session, false, Turn::Done, vec![entry(PEER)]));
}

fn entry(number: u8) -> Entry {
    Entry { record: signed(number, 1).bytes().clone(), age_ms: 60_000, accusation: None }
}

/// Returns true if a newcomer that synced with its bootstrap peer, and got that number of other
/// members from it, joins the overlay through that peer.
fn joins_through_its_bootstrap_peer(members: u8) -> bool {
    let mut bench = Bench::bootstrapped();
    let number = |(_, frame): (LinkId, TopicFrame)| match frame {
        TopicFrame::Sync(sync) => Some(sync.session),
        _ => None,
    };
    let session = bench.sent().into_iter().find_map(number).unwrap();
    let entries = [PEER].into_iter().chain(20..20 + members).map(entry).collect();
    bench.frame(LINK, sync(session, false, Turn::Done, entries));
    joins_through(&mut bench) == Some(LINK)
}

/// Returns the link on which this node first asks to enter the overlay. `None` if it dials first.
fn joins_through(bench: &mut Bench) -> Option<LinkId> {
    for _ in 0..200 {
        bench.pass(MS * 5);
        if bench.out.iter().any(|out| matches!(out, OutEvent::Dial(..))) {
            return None;
        }
        let join = |(link, frame): (LinkId, TopicFrame)| {
            matches!(frame, TopicFrame::Overlay(OverlayFrame::Join(_))).then_some(link)
        };
        if let Some(link) = bench.sent().into_iter().find_map(join) {
            return Some(link);
        }
    }
    panic!("it asked nobody in a second");
}

#[test]
fn a_newcomer_enters_through_a_linked_member_if_nobody_reaches_the_one_that_it_chose() {
    let mut dialed = 0;
    for members in 10..40 {
        let mut bench = Bench::bootstrapped();
        let session = bench.sent().into_iter().find_map(|(_, frame)| match frame {
            TopicFrame::Sync(sync) => Some(sync.session),
            _ => None,
        });
        let entries = [PEER].into_iter().chain(20..20 + members).map(entry).collect();
        bench.frame(LINK, sync(session.unwrap(), false, Turn::Done, entries));
        let began = bench.now;
        if joins_through(&mut bench).is_none() {
            dialed += 1;
            bench.out.clear();
            // The dial gets no answer, and does not fail either.
            assert_eq!(joins_through(&mut bench), Some(LINK));
        }
        assert!(bench.now - began <= MS * 710, "{members}: {:?}", bench.now - began);
    }
    assert!(dialed > 20, "{dialed} of 30");
}

#[test]
fn newcomers_join_through_members_and_not_all_through_the_bootstrap_peer() {
    let through = (10..40).filter(|members| joins_through_its_bootstrap_peer(*members)).count();
    assert!(through < 10, "{through} of 30, where one or two of them were to be expected");
}

/// Lets time pass, and returns when each sync began. The partner ends each at once. In the first
/// one, it sends the record of the member `news`, if that is given.
fn syncs(bench: &mut Bench, time: Duration, news: Option<u8>) -> Vec<Instant> {
    let end = bench.now + time;
    let mut news = news;
    let mut began = Vec::new();
    while bench.now < end {
        for (link, frame) in bench.sent() {
            if let TopicFrame::Sync(SyncFrame { session, from_initiator: true, turn, .. }) = frame
                && turn != Turn::Done
            {
                began.push(bench.now);
                let entries = news.take().map(entry).into_iter().collect();
                bench.frame(link, sync(session, false, Turn::Done, entries));
            }
        }
        bench.pass(MS * 10);
    }
    began
}

#[test]
fn books_are_compared_less_and_less_often_until_one_brings_news() {
    let mut bench = super::guard::with_neighbor();
    let began = syncs(&mut bench, S * 300, None);
    assert!(began[2] - began[0] < S, "often at first");
    assert!((10..20).contains(&began.len()), "then rarely: {}", began.len());
    let [.., before, last] = began.as_slice() else { unreachable!() };
    assert!(*last - *before >= S * 25, "{:?}", *last - *before);
    let began = syncs(&mut bench, S * 70, Some(7));
    assert!(began[1] - began[0] <= MS * 150, "news: {:?}", began[1] - began[0]);
}

#[test]
fn a_leave_is_acknowledged_also_where_it_was_known() {
    let mut bench = super::guard::with_two();
    let left = sign(NodeRecord { status: Status::Left, ..node(3, 2) });
    for _ in 0..2 {
        bench.frame(LinkId(2), TopicFrame::Leave(left.bytes().clone()));
        assert!(bench.sent().contains(&(LinkId(2), TopicFrame::LeaveAck(2))));
    }
}

#[test]
fn a_leave_is_forwarded_by_the_peer_that_got_it() {
    let mut bench = super::guard::with_two();
    let left = sign(NodeRecord { status: Status::Left, ..node(3, 2) });
    bench.frame(LinkId(2), TopicFrame::Leave(left.bytes().clone()));
    bench.pass(S);
    let content = encode_content(&[Item::Record(left.bytes().clone())]);
    let forwards = |(link, frame): &(LinkId, TopicFrame)| {
        let TopicFrame::Overlay(OverlayFrame::Gossip { content: forwarded, .. }) = frame else {
            return false;
        };
        *link == LINK && *forwarded == content
    };
    assert!(bench.sent().iter().any(forwards));
}

#[test]
fn a_node_that_leaves_waits_until_all_linked_peers_know_and_no_longer() {
    let mut bench = super::guard::with_two();
    let closed = |bench: &Bench| {
        let closed = |out: &OutEvent| matches!(out, OutEvent::Topic(_, TopicEvent::Closed));
        bench.out.iter().any(closed)
    };
    bench.feed(InEvent::Leave(topic()));
    let leave = |(_, frame): (LinkId, TopicFrame)| match frame {
        TopicFrame::Leave(record) => Some(record),
        _ => None,
    };
    let leaves: Vec<_> = bench.sent().into_iter().filter_map(leave).collect();
    assert_eq!(leaves.len(), 2);
    let sequence = SignedRecord::verify(&topic(), &leaves[0]).unwrap().record().sequence;
    bench.frame(LINK, TopicFrame::LeaveAck(sequence));
    assert!(!closed(&bench));
    bench.frame(LinkId(2), TopicFrame::LeaveAck(sequence - 1));
    assert!(!closed(&bench), "of an earlier record");
    bench.frame(LinkId(2), TopicFrame::LeaveAck(sequence));
    assert!(closed(&bench));
}

#[test]
fn a_node_with_few_neighbors_in_a_burst_searches_for_others_soon() {
    let mut bench = Bench::linked();
    // With 200 members, what all of them may do at once is spread over a second.
    let burst: Vec<_> = (20..220).map(|number| signed(number, 1).bytes().clone()).collect();
    for part in burst.chunks(50) {
        bench.frame(LINK, TopicFrame::Push(part.to_vec()));
    }
    let join = OverlayFrame::Join(signed(PEER, 1).bytes().clone());
    bench.frame(LINK, TopicFrame::Overlay(join));
    dials(&mut bench);
    bench.pass(MS * 300);
    assert!(!dials(&mut bench).is_empty());
}
