//! Accusations, probes and verdicts, one rule at a time. Whole networks are in `rust/sim`.

use super::{
    contact::sync,
    guard::{with_two, with_two_as},
    *,
};
use crate::{
    CloseCode, LinkEnd, LostReason, TopicEvent,
    accusation::Accusation,
    cose,
    wire::{Entry, SyncFrame, Turn},
};

const S: Duration = Duration::from_secs(1);
const ACCUSED: u8 = 3;
const ACCUSER: u8 = 4;

/// Makes a node with [`ACCUSED`] and [`ACCUSER`] in its book.
fn with_members() -> Bench {
    let mut bench = Bench::linked();
    let records = [PEER, ACCUSED, ACCUSER].map(|number| signed(number, 10).bytes().clone());
    bench.frame(LINK, TopicFrame::Push(records.into()));
    bench.out.clear();
    bench
}

fn accusation(by: u8, accused: u8, sequence: u64) -> Bytes {
    Accusation::sign(&key(by), &topic(), id(accused), sequence).bytes
}

fn accuse(bench: &mut Bench, accusations: Vec<Bytes>) {
    bench.frame(LINK, TopicFrame::Accuse(accusations));
}

fn events(bench: &Bench) -> Vec<&TopicEvent> {
    let mut events = Vec::new();
    for out in &bench.out {
        if let OutEvent::Topic(_, event) = out {
            events.push(event);
        }
    }
    events
}

fn is_suspected(bench: &Bench, number: u8) -> bool {
    let suspected =
        |event: &&TopicEvent| matches!(event, TopicEvent::PeerSuspected(r) if r.id == id(number));
    events(bench).iter().any(suspected)
}

fn is_lost(bench: &Bench, number: u8) -> bool {
    let lost = |event: &&TopicEvent| match event {
        TopicEvent::PeerLost(record, LostReason::Unreachable) => record.id == id(number),
        _ => false,
    };
    events(bench).iter().any(lost)
}

fn announced(bench: &Bench) -> Vec<u64> {
    let sequence = |event: &TopicEvent| match event {
        TopicEvent::Announced(record) => Some(record.sequence),
        _ => None,
    };
    events(bench).into_iter().filter_map(sequence).collect()
}

#[test]
fn an_accusation_suspects_and_then_loses_who_does_not_refute() {
    // Of a hundred nodes that learn of it, three probe the accused. This node is none of them.
    let mut bench = with_members();
    let many = (20..117).map(|number| signed(number, 10).bytes().clone());
    bench.frame(LINK, TopicFrame::Push(many.collect()));
    accuse(&mut bench, vec![accusation(ACCUSER, ACCUSED, 10)]);
    bench.pass(S);
    assert!(is_suspected(&bench, ACCUSED));
    bench.pass(S * 4);
    assert!(!is_lost(&bench, ACCUSED), "nobody confirmed: it has 6 s");
    bench.pass(S);
    assert!(is_lost(&bench, ACCUSED));
}

#[test]
fn a_member_that_nobody_else_accuses_is_probed_by_those_that_get_the_accusation() {
    let mut bench = with_members();
    accuse(&mut bench, vec![accusation(ACCUSER, ACCUSED, 10)]);
    let dialed = |bench: &Bench| {
        bench.out.iter().any(|out| matches!(out, OutEvent::Dial(peer, _) if *peer == id(ACCUSED)))
    };
    assert!(!dialed(&bench), "its neighbors have time to confirm");
    bench.pass(S);
    assert!(dialed(&bench));
    bench.pass(S * 7 / 2);
    assert!(is_lost(&bench, ACCUSED), "two accusers: it has 4.1 s");
    let mut bench = with_members();
    bench.frame(LINK, TopicFrame::Push(vec![signed(5, 10).bytes().clone()]));
    accuse(&mut bench, [PEER, ACCUSER, 5].map(|by| accusation(by, ACCUSED, 10)).into());
    bench.pass(S);
    assert!(is_suspected(&bench, ACCUSED) && !dialed(&bench), "three say so");
}

#[test]
fn what_a_partner_of_a_sync_vouches_for_itself_needs_no_confirmation() {
    for (by, within) in [(PEER, 3), (ACCUSER, 6)] {
        let mut bench = with_members();
        let many = (20..117).map(|number| signed(number, 10).bytes().clone());
        bench.frame(LINK, TopicFrame::Push(many.collect()));
        let entry = Entry {
            record: signed(ACCUSED, 10).bytes().clone(),
            age_ms: 0,
            accusation: Some(accusation(by, ACCUSED, 10)),
        };
        let frame = SyncFrame {
            session: 1,
            from_initiator: true,
            attached: true,
            turn: Turn::Done,
            ranges: Vec::new(),
            entries: vec![entry],
            wants: Vec::new(),
            observer: false,
        };
        bench.frame(LINK, TopicFrame::Sync(frame));
        bench.pass((S * within).saturating_sub(S / 10));
        assert!(!is_lost(&bench, ACCUSED), "by {by}");
        bench.pass(S / 5);
        assert!(is_lost(&bench, ACCUSED), "by {by}");
    }
}

#[test]
fn what_is_not_signed_as_an_accusation_in_this_topic_closes_the_link() {
    let mut altered = accusation(ACCUSER, ACCUSED, 10).to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let elsewhere = TopicId::from_name("elsewhere").unwrap();
    let elsewhere = Accusation::sign(&key(ACCUSER), &elsewhere, id(ACCUSED), 10).bytes;
    let payload = crate::cbor::Value::map([
        (crate::cbor::Value::int(0), crate::cbor::Value::bytes(id(ACCUSED).as_bytes())),
        (crate::cbor::Value::int(1), crate::cbor::Value::uint(10_u64)),
    ])
    .encode();
    let other_kind = cose::sign(&key(ACCUSER), "iroh-gossip-discovery/node/1", &topic(), &payload);
    for forged in [altered.into(), elsewhere, other_kind] {
        let mut bench = with_members();
        accuse(&mut bench, vec![forged]);
        assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)]);
        bench.pass(S * 10);
        assert!(!is_suspected(&bench, ACCUSED));
    }
}

#[test]
fn an_accusation_by_somebody_unknown_or_of_an_older_record_says_nothing() {
    for (accuser, sequence) in [(9, 10), (ACCUSER, 9), (ACCUSED, 10)] {
        let mut bench = with_members();
        accuse(&mut bench, vec![accusation(accuser, ACCUSED, sequence)]);
        bench.pass(S * 10);
        assert!(!is_suspected(&bench, ACCUSED), "by {accuser}, of {sequence}");
        assert_eq!(
            bench.closed().iter().filter(|(_, code)| *code == CloseCode::Protocol).count(),
            0
        );
    }
}

#[test]
fn a_lost_member_may_accuse_and_one_that_left_may_not() {
    for left in [false, true] {
        let mut bench = with_members();
        if left {
            let record = NodeRecord { status: crate::Status::Left, ..node(ACCUSER, 11) };
            bench.frame(LINK, TopicFrame::Push(vec![sign(record).bytes().clone()]));
        } else {
            accuse(&mut bench, [PEER, ACCUSED, 5].map(|by| accusation(by, ACCUSER, 10)).into());
            bench.pass(S * 7);
            assert!(is_lost(&bench, ACCUSER));
        }
        let before = announced(&bench).len();
        let own = bench.state.own_record(&topic()).unwrap().record().sequence;
        accuse(&mut bench, vec![accusation(ACCUSER, ME, own)]);
        assert_eq!(announced(&bench).len() - before, usize::from(!left), "left: {left}");
    }
}

#[test]
fn an_accuser_has_a_budget() {
    let mut bench = with_members();
    // The accusations name old records, so that only the budget stops them. It is 32, and one for
    // each of three members.
    let old = |by, count| (0..count).map(|n| accusation(by, PEER, n % 10)).collect::<Vec<_>>();
    bench.frame(LINK, TopicFrame::Push(vec![signed(PEER, 1000).bytes().clone()]));
    bench.out.clear();
    accuse(&mut bench, (0..49).map(|n| accusation(ACCUSER, PEER, n)).collect());
    let over = "accusations over the budget of an accuser";
    assert_eq!(bench.dropped().iter().filter(|what| **what == over).count(), 49 - 35);
    // The budget of another accuser is untouched.
    bench.out.clear();
    accuse(&mut bench, old(ACCUSED, 10));
    assert_eq!(bench.dropped(), [""; 0]);
}

#[test]
fn nobody_takes_from_an_accuser_s_budget_in_its_name() {
    for round in 0..3 {
        let mut bench = with_members();
        let mut forged = accusation(ACCUSER, ACCUSED, 10).to_vec();
        *forged.last_mut().unwrap() ^= 1;
        for _ in 0..100 * round {
            // The link is closed for that, and opened again.
            accuse(&mut bench, vec![forged.clone().into()]);
            bench.feed(InEvent::LinkClosed(LINK, LinkEnd::Local(CloseCode::Protocol)));
            bench.open_link(LINK, PEER, false);
            bench.hello(LINK, 9);
            bench.frame(LINK, TopicFrame::Open(topic()));
        }
        accuse(&mut bench, vec![accusation(ACCUSER, ACCUSED, 10)]);
        bench.pass(S);
        assert!(is_suspected(&bench, ACCUSED), "round {round}");
    }
}

#[test]
fn what_a_link_may_have_checked_is_bounded() {
    let mut bench = with_members();
    bench.frame(LINK, TopicFrame::Push((20..250).map(|n| signed(n, 10).bytes().clone()).collect()));
    let checked = (0..60_u64).flat_map(|n| (20..250).map(move |by| accusation(by, PEER, n)));
    bench.out.clear();
    checked.for_each(|accusation| accuse(&mut bench, vec![accusation]));
    let over = "accusations over the budget of a peer";
    let over = bench.dropped().iter().filter(|what| **what == over).count();
    assert!(over >= 60 * 230 - 7000, "{over} of {}", 60 * 230);
}

#[test]
fn one_refutation_answers_all_and_another_comes_a_second_later() {
    let mut bench = with_members();
    let own = |bench: &Bench| bench.state.own_record(&topic()).unwrap().record().sequence;
    let before = own(&bench);
    accuse(&mut bench, vec![accusation(PEER, ME, before), accusation(ACCUSER, ME, before)]);
    let first = announced(&bench);
    assert_eq!(first.len(), 1);
    assert!(first[0] > before);
    for by in [ACCUSED, ACCUSER, PEER] {
        accuse(&mut bench, vec![accusation(by, ME, first[0])]);
    }
    assert_eq!(announced(&bench), first, "at once, another one would make a storm");
    bench.pass(S);
    let all = announced(&bench);
    assert_eq!(all.len(), 2);
    assert!(all[1] > first[0], "above all that was accused");
}

#[test]
fn nobody_moves_another_s_sequence_number() {
    let own = |bench: &Bench| bench.state.own_record(&topic()).unwrap().record().sequence;
    let last = crate::MAX_SEQUENCE - 1;
    for by in [PEER, ACCUSER, 9] {
        for above in [1, 2, 1000, 1 << 40, last] {
            let mut bench = with_members();
            let before = own(&bench);
            let named = (before + above).min(last);
            accuse(&mut bench, vec![accusation(by, ME, named)]);
            bench.pass(S * 10);
            assert_eq!(own(&bench), before, "by {by}, of {named}");
            assert!(bench.dropped().iter().any(|what| what.starts_with("accusations")));
            let profile = Profile::new("again");
            bench.feed(InEvent::SetProfile(topic(), profile));
            assert_eq!(own(&bench), before + 1, "by {by}, of {named}");
            // It has no effect at third parties either.
            bench.out.clear();
            accuse(&mut bench, vec![accusation(by, ACCUSED, named)]);
            bench.pass(S * 10);
            assert!(!is_suspected(&bench, ACCUSED), "by {by}, of {named}");
            assert!(bench.state.inspect(&topic()).unwrap().live.contains(&(id(ACCUSED), 10)));
        }
    }
}

#[test]
fn an_accusation_waits_for_the_record_that_it_speaks_of_and_not_for_ever() {
    // The missing record is that of the accused, or that of the accuser.
    let cases = [(ACCUSER, ACCUSED, 11, signed(ACCUSED, 11)), (9, ACCUSED, 10, signed(9, 1))];
    for (by, accused, sequence, record) in cases {
        for (wait, counts) in [(S, true), (S * 7, false)] {
            let mut bench = with_members();
            accuse(&mut bench, vec![accusation(by, accused, sequence)]);
            bench.pass(wait);
            assert!(!is_suspected(&bench, accused));
            bench.frame(LINK, TopicFrame::Push(vec![record.bytes().clone()]));
            bench.pass(S);
            assert_eq!(is_suspected(&bench, accused), counts, "by {by}, after {wait:?}");
        }
    }
}

#[test]
fn a_key_without_numbers_left_is_reported_and_nothing_waits_for_one() {
    let mut bench = with_members();
    let last = NodeRecord { boot_id: 77, ..node(ME, crate::MAX_SEQUENCE - 1) };
    bench.frame(LINK, TopicFrame::Push(vec![sign(last).bytes().clone()]));
    let reported =
        |event: &&TopicEvent| matches!(event, TopicEvent::IdentityConflict { boot_id: 77 });
    assert_eq!(events(&bench).iter().filter(|event| reported(event)).count(), 1);
    assert!(bench.state.is_exhausted());
    let now = bench.now;
    let set = InEvent::SetProfile(topic(), Profile::new("x"));
    assert_eq!(bench.state.handle(set, now), Err(crate::Error::SequencesExhausted));
    // It still serves other nodes.
    bench.out.clear();
    bench.frame(LINK, TopicFrame::ProbeRequest(id(PEER)));
    bench.frame(LINK, TopicFrame::Push(vec![signed(40, 1).bytes().clone()]));
    assert!(bench.state.inspect(&topic()).unwrap().live.contains(&(id(40), 1)));
    bench.feed(InEvent::Leave(topic()));
    bench.pass(S);
    assert!(events(&bench).iter().any(|event| matches!(event, TopicEvent::Closed)));
    for out in &bench.out {
        assert!(!matches!(out, OutEvent::ReserveSequences(end) if *end > crate::MAX_SEQUENCE));
    }
}

#[test]
fn a_member_that_is_heard_meanwhile_is_not_lost_whatever_others_say() {
    for speaks in [true, false] {
        let mut bench = with_members();
        bench.silent.insert(LINK);
        accuse(&mut bench, vec![accusation(ACCUSER, PEER, 10)]);
        bench.pass(S * 2);
        assert!(is_suspected(&bench, PEER));
        if speaks {
            bench.frame(LINK, TopicFrame::Attached);
        }
        bench.pass(S * 5);
        assert_eq!(is_lost(&bench, PEER), !speaks);
        let recovered = |event: &&TopicEvent| matches!(event, TopicEvent::PeerRecovered(_));
        assert_eq!(events(&bench).iter().any(recovered), speaks);
    }
}

/// Found by the model: a member was cut off, and its link broke when it was back.
#[test]
fn a_suspected_member_whose_link_breaks_is_dialed_and_can_be_heard_before_the_verdict() {
    let mut bench = with_members();
    let [first, second] = [2, 3].map(LinkId);
    bench.open_link(first, ACCUSED, false);
    bench.hello(first, 9);
    bench.silent.insert(first);
    accuse(&mut bench, vec![accusation(ACCUSER, ACCUSED, 10)]);
    bench.pass(S * 2);
    assert!(is_suspected(&bench, ACCUSED));
    bench.out.clear();
    bench.feed(InEvent::LinkClosed(first, LinkEnd::Lost));
    let dialed = |out: &OutEvent| matches!(out, OutEvent::Dial(peer, _) if *peer == id(ACCUSED));
    assert!(bench.out.iter().any(dialed));
    bench.open_link(second, ACCUSED, true);
    bench.hello(second, 9);
    bench.pass(S * 10);
    assert!(!is_lost(&bench, ACCUSED));
}

#[test]
fn confirmations_take_nothing_of_the_time_that_a_pause_added() {
    let mut bench = with_members();
    accuse(&mut bench, vec![accusation(ACCUSER, ACCUSED, 10)]);
    // This node is paused, and gets a confirmation of another one when it resumes.
    bench.now += S * 9 / 2;
    bench.feed(InEvent::Timer);
    assert!(is_suspected(&bench, ACCUSED));
    accuse(&mut bench, vec![accusation(PEER, ACCUSED, 10)]);
    bench.pass(S * 3);
    assert!(!is_lost(&bench, ACCUSED), "its refutation may be behind the accusations");
    bench.pass(S * 5);
    assert!(is_lost(&bench, ACCUSED));
}

/// Returns when something was first seen, in steps of 10 ms.
fn first(bench: &mut Bench, limit: Duration, seen: impl Fn(&Bench) -> bool) -> Duration {
    let begin = bench.now;
    while !seen(bench) {
        assert!(bench.now - begin < limit, "not seen in {limit:?}");
        bench.pass(Duration::from_millis(10));
    }
    bench.now - begin
}

fn sent_keepalive(bench: &Bench) -> bool {
    bench.out.iter().any(|out| matches!(out, OutEvent::Keepalive(..)))
}

fn is_ping(out: &OutEvent) -> bool {
    matches!(out, OutEvent::Send(_, _, bytes) if *bytes == Frame::Ping.encode())
}

fn is_pinged(bench: &Bench) -> bool {
    bench.out.iter().any(is_ping)
}

/// As [`with_two`], but books are not compared. The partner of a sync that is late is pinged too.
fn without_syncs() -> Bench {
    let rarely = S * 3600;
    let (sync_interval_min, sync_interval_max) = (rarely, rarely);
    let config = Config { sync_interval_min, sync_interval_max, ..Config::default() };
    let mut bench = with_two_as(config);
    for session in 1..20 {
        for link in [LINK, LinkId(2)] {
            bench.frame(link, sync(session, false, Turn::Done, vec![]));
        }
    }
    bench.out.clear();
    bench
}

#[test]
fn a_quiet_neighbor_is_sent_keepalives_and_sometimes_pinged() {
    let mut bench = without_syncs();
    bench.pass(S * 4);
    bench.out.clear();
    bench.pass(S * 60);
    let count = |is: fn(&OutEvent) -> bool| bench.out.iter().filter(|out| is(out)).count();
    let keepalives = count(|out| matches!(out, OutEvent::Keepalive(..)));
    let pings = count(is_ping);
    // Two neighbors that send nothing by themselves are checked every 2 s.
    assert!((50..=65).contains(&(keepalives + pings)), "{keepalives} keepalives, {pings} pings");
    assert!(
        (pings * 3..=pings * 5).contains(&keepalives),
        "{keepalives} keepalives, {pings} pings"
    );
}

#[test]
fn a_keepalive_that_is_not_acknowledged_is_followed_by_a_ping() {
    let mut bench = without_syncs();
    bench.pass(S * 4);
    bench.silent.insert(LINK);
    bench.out.clear();
    first(&mut bench, S * 4, sent_keepalive);
    let took = first(&mut bench, S, is_pinged);
    assert_eq!(took, Config::default().probe_timeout / 2);
}

#[test]
fn a_neighbor_of_whom_only_quic_is_left_is_found_too() {
    let mut bench = with_two();
    bench.pass(S * 4);
    bench.hung.insert(LINK);
    first(&mut bench, S * 12, |bench| is_suspected(bench, PEER));
}

#[test]
fn a_node_that_misses_all_neighbors_probes_twice_before_it_accuses() {
    for (silent, rounds) in [(vec![LINK, LinkId(2)], 2), (vec![LINK], 1)] {
        let mut bench = without_syncs();
        bench.pass(S * 4);
        // Both are heard at once, and so are checked at about the same time.
        for link in [LINK, LinkId(2)] {
            bench.bytes(link, Frame::Ack.encode());
        }
        bench.silent.extend(silent);
        bench.out.clear();
        first(&mut bench, S * 4, sent_keepalive);
        let took = first(&mut bench, S * 6, |bench| {
            events(bench).iter().any(|event| matches!(event, TopicEvent::PeerSuspected(_)))
        });
        // Each round takes 0.5 s for the probe, and 0.5 s for the indirect probes.
        let expected = S * rounds;
        assert!(took + S / 10 > expected && took < expected + S, "{rounds} rounds: {took:?}");
    }
}

#[test]
fn a_neighbor_that_only_others_reach_loses_its_link_and_not_its_place() {
    let mut bench = with_two();
    bench.pass(S * 4);
    bench.silent.insert(LINK);
    let begin = bench.now;
    while bench.closed().is_empty() {
        assert!(bench.now - begin < S * 15, "the silent link stays");
        bench.pass(Duration::from_millis(10));
        let asked = bench.out.iter().any(|out| match out {
            OutEvent::Send(LinkId(2), _, bytes) => {
                matches!(
                    Frame::decode(bytes),
                    Ok(Some(Frame::Topic(_, TopicFrame::ProbeRequest(_))))
                )
            }
            _ => false,
        });
        if asked {
            bench.out.retain(|out| !matches!(out, OutEvent::Send(..)));
            bench.frame(LinkId(2), TopicFrame::ProbeAck(id(PEER)));
        }
    }
    assert_eq!(bench.closed(), [(LINK, CloseCode::Unresponsive)]);
    assert!(!is_suspected(&bench, PEER));
}

#[test]
fn the_reason_of_a_links_end_decides_whether_its_peer_is_suspected() {
    let says_nothing = [
        LinkEnd::Local(CloseCode::Shutdown),
        LinkEnd::Local(CloseCode::Idle),
        LinkEnd::Remote(CloseCode::Leave),
        LinkEnd::Remote(CloseCode::Replaced),
        LinkEnd::Remote(CloseCode::Idle),
        LinkEnd::Remote(CloseCode::Refused),
        LinkEnd::Remote(CloseCode::Unresponsive),
    ];
    let broken = [LinkEnd::TimedOut, LinkEnd::Lost, LinkEnd::Remote(CloseCode::Shutdown)];
    for (ends, suspected) in [(&says_nothing[..], false), (&broken[..], true)] {
        for end in ends {
            let mut bench = with_two();
            bench.feed(InEvent::LinkClosed(LINK, *end));
            // No indirect prober reports that it answered.
            bench.pass(S * 5);
            assert_eq!(is_suspected(&bench, PEER), suspected, "{end:?}");
        }
    }
}

#[test]
fn the_link_to_an_earlier_life_of_a_member_is_closed() {
    let mut bench = Bench::linked();
    bench.open_link(LinkId(2), ACCUSER, false);
    bench.hello(LinkId(2), 5);
    bench.frame(LinkId(2), TopicFrame::Open(topic()));
    let life =
        |boot_id, sequence| sign(NodeRecord { boot_id, ..node(PEER, sequence) }).bytes().clone();
    // The process behind LINK said in its hello that its boot id is 9.
    bench.frame(LINK, TopicFrame::Push(vec![life(9, 1)]));
    bench.frame(LinkId(2), TopicFrame::Push(vec![life(9, 2)]));
    assert_eq!(bench.closed(), []);
    bench.frame(LinkId(2), TopicFrame::Push(vec![life(10, 3)]));
    assert_eq!(bench.closed(), [(LINK, CloseCode::Replaced)]);
}

#[test]
fn a_pause_is_one_however_much_waited_for_its_end() {
    const FAR: u8 = 5;
    let mut bench = with_two();
    let records = [ACCUSER, FAR].map(|number| signed(number, 10).bytes().clone());
    bench.frame(LINK, TopicFrame::Push(records.into()));
    accuse(&mut bench, vec![accusation(ACCUSER, FAR, 10)]);
    bench.pass(S);
    bench.now += S * 3;
    for _ in 0..10 {
        bench.frame(LINK, TopicFrame::Attached);
    }
    let took = first(&mut bench, S * 20, |bench| is_lost(bench, FAR));
    assert_eq!(bench.state.counts().pauses, 1);
    // This node confirmed, so the suspicion lasts 4.1 s. What the pause took and a second are added
    // once, not once for each frame.
    assert!(took > S * 4 && took < S * 5, "{took:?}");
}

#[test]
fn what_the_budget_of_dials_does_not_allow_says_nothing_of_a_peer() {
    let mut bench = with_two();
    let members: Vec<u8> = (20..45).collect();
    let record = |number: &u8| signed(*number, 10).bytes().clone();
    let known = members.iter().chain([&ACCUSER]).map(record);
    bench.frame(LINK, TopicFrame::Push(known.collect()));
    for member in &members {
        bench.frame(LINK, TopicFrame::ProbeRequest(id(*member)));
    }
    // The members that were dialed do not answer.
    bench.pass(S);
    for (member, confirmed) in [(44, 0), (20, 1)] {
        accuse(&mut bench, vec![accusation(ACCUSER, member, 10)]);
        assert_eq!(bench.state.counts().accusations, confirmed, "of {member}");
    }
}

#[test]
fn a_node_that_was_paused_for_long_first_gets_the_refutations_that_wait() {
    const FAR: u8 = 5;
    for (reported, paused) in [(true, S * 60), (false, S * 60), (true, S * 7)] {
        let mut bench = with_two();
        let records = [ACCUSER, FAR].map(|number| signed(number, 10).bytes().clone());
        bench.frame(LINK, TopicFrame::Push(records.into()));
        accuse(&mut bench, vec![accusation(ACCUSER, FAR, 10)]);
        if reported {
            bench.pass(S);
        }
        bench.now += paused;
        bench.feed(InEvent::Timer);
        bench.pass(S);
        assert!(!is_lost(&bench, FAR), "{reported} {paused:?}");
        bench.frame(LINK, TopicFrame::Push(vec![signed(FAR, 11).bytes().clone()]));
        bench.pass(S * 30);
        assert!(!is_lost(&bench, FAR), "{reported} {paused:?}");
    }
}

#[test]
fn a_machine_that_is_too_busy_for_long_notices_a_crash_all_the_same() {
    let mut bench = with_two();
    bench.frame(LinkId(2), TopicFrame::Push(vec![signed(ACCUSER, 10).bytes().clone()]));
    bench.silent.insert(LINK);
    let begin = bench.now;
    while !is_lost(&bench, PEER) {
        assert!(bench.now - begin < S * 40, "each pause puts the verdict off");
        // Each timer is late enough for a pause.
        bench.now += Duration::from_millis(300);
        bench.frame(LinkId(2), TopicFrame::Attached);
        bench.feed(InEvent::Timer);
    }
    assert!(bench.state.counts().pauses > 10);
    println!("lost after {:?}", bench.now - begin);
}

#[test]
fn the_application_hears_of_a_suspicion_long_enough_before_the_verdict() {
    let mut bench = with_two();
    bench.frame(LinkId(2), TopicFrame::Push(vec![signed(ACCUSER, 10).bytes().clone()]));
    bench.silent.insert(LINK);
    let accused = [accusation(3, PEER, 1), accusation(ACCUSER, PEER, 1)];
    bench.frame(LinkId(2), TopicFrame::Accuse(accused.into()));
    bench.pass(Duration::from_millis(480));
    assert!(!is_suspected(&bench, PEER));
    // The timer is late, but by less than a pause, and the node's own probe has failed by then.
    bench.now += Duration::from_millis(95);
    bench.feed(InEvent::Timer);
    assert!(is_suspected(&bench, PEER));
    let took = first(&mut bench, S * 5, |bench| is_lost(bench, PEER));
    assert!(took >= S * 5 / 2, "the floor less what others' suspicion waits: {took:?}");
    assert!(took < S * 3, "three accusers: {took:?}");
}

#[test]
fn a_neighbor_that_is_accused_here_makes_room_for_another() {
    let mut bench = with_two();
    bench.pass(S * 4);
    bench.silent.insert(LINK);
    first(&mut bench, S * 6, |bench| is_suspected(bench, PEER));
    let down =
        |event: &&TopicEvent| matches!(event, TopicEvent::NeighborDown(peer) if *peer == id(PEER));
    assert!(events(&bench).iter().any(down));
    bench.pass(S * 11 / 2);
    assert_eq!(bench.closed(), [], "its link stays, should it refute");
    bench.pass(S);
    assert!(is_lost(&bench, PEER));
}

#[test]
fn many_suspicions_at_once_are_cause_to_probe_anybody() {
    let dials = [1, 12].map(|accused| {
        // The view is full, so that there is no other reason for a dial.
        let mut bench = with_two_as(Config { neighbors: 2, ..Config::default() });
        let many = (20..70).map(|number| signed(number, 10).bytes().clone());
        bench.frame(LINK, TopicFrame::Push(many.collect()));
        bench.out.clear();
        accuse(&mut bench, (20..20 + accused).map(|n| accusation(3, n, 10)).collect());
        bench.pass(S * 4);
        let others: Vec<_> = (32..70).map(id).collect();
        let dial =
            |out: &&OutEvent| matches!(out, OutEvent::Dial(peer, _) if others.contains(peer));
        bench.out.iter().filter(dial).count()
    });
    assert_eq!(dials[0], 0, "one suspicion is none");
    assert!((3..=5).contains(&dials[1]), "with a fifth, one a second: {dials:?}");
}
