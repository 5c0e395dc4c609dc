//! Links: the hello, two links at once, idle links, and topics that are not served.

use super::*;
use crate::{CloseCode, LinkEnd};

#[test]
fn a_peer_of_a_future_version_only_is_refused() {
    let mut bench = Bench::new();
    bench.open_link(LINK, PEER, false);
    let hello = Hello { min_version: 2, max_version: 5, boot_id: 1, features: 0 };
    bench.bytes(LINK, Frame::Hello(hello).encode());
    assert_eq!(bench.closed(), [(LINK, CloseCode::Refused)]);
    assert!(bench.dropped().contains(&"links without a common version"));
}

#[test]
fn a_link_that_says_nothing_is_closed() {
    let mut bench = Bench::new();
    bench.open_link(LINK, PEER, false);
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.closed(), []);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.closed(), [(LINK, CloseCode::Unresponsive)], "nobody is banned for silence");
}

#[test]
fn garbage_before_or_after_the_hello_closes_the_link() {
    for frame in [&b"\xff"[..], b"GET / HTTP/1.1", &[0x83, 3, 0, 0x41]] {
        let mut bench = Bench::linked();
        bench.bytes(LINK, Bytes::copy_from_slice(frame));
        assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)]);
    }
    let mut bench = Bench::new();
    bench.open_link(LINK, PEER, false);
    bench.frame(LINK, TopicFrame::Open(topic()));
    assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)]);
    assert!(bench.dropped().contains(&"frames before the hello"));
}

#[test]
fn a_frame_of_a_later_version_is_counted_and_harmless() {
    let mut bench = Bench::linked();
    bench.bytes(LINK, Bytes::from_static(&[0x82, 0x18, 77, 0]));
    assert_eq!(bench.closed(), []);
    assert!(bench.dropped().contains(&"frames of unknown type"));
}

#[test]
fn a_topic_that_is_not_served_is_answered() {
    let mut bench = Bench::new();
    bench.open_link(LINK, PEER, false);
    bench.hello(LINK, 9);
    bench.out.clear();
    bench.frame(LINK, TopicFrame::Open(TopicId::from_name("other").unwrap()));
    assert_eq!(bench.sent(), [(LINK, TopicFrame::Closed)]);
}

#[test]
fn of_two_links_at_once_the_dial_of_the_lower_id_stays() {
    let lower_is_me = id(ME) < id(PEER);
    for first_is_mine in [true, false] {
        let mut bench = Bench::new();
        for (link, mine) in [(LinkId(1), first_is_mine), (LinkId(2), !first_is_mine)] {
            bench.open_link(link, PEER, mine);
            bench.hello(link, 9);
        }
        bench.pass(Duration::from_secs(3));
        let mine_stays = lower_is_me;
        let loser = if first_is_mine == mine_stays { LinkId(2) } else { LinkId(1) };
        assert_eq!(
            bench.closed(),
            [(loser, CloseCode::Replaced)],
            "first is mine: {first_is_mine}"
        );
    }
}

#[test]
fn a_new_link_replaces_one_of_another_life_or_an_old_one() {
    for (wait, boot_id) in [(0, 10), (3, 9)] {
        for mine in [true, false] {
            let mut bench = Bench::new();
            bench.open_link(LinkId(1), PEER, !mine);
            bench.hello(LinkId(1), 9);
            bench.pass(Duration::from_secs(wait));
            bench.open_link(LinkId(2), PEER, mine);
            bench.hello(LinkId(2), boot_id);
            bench.pass(Duration::from_secs(3));
            assert_eq!(
                bench.closed(),
                [(LinkId(1), CloseCode::Replaced)],
                "{wait} {boot_id} {mine}"
            );
        }
    }
}

#[test]
fn an_unused_link_is_closed_and_a_used_one_is_not() {
    let mut bench = Bench::linked();
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.closed(), []);
    bench.pass(Duration::from_secs(8));
    assert_eq!(bench.closed(), [(LINK, CloseCode::Idle)]);
}

#[test]
fn strangers_are_dialed_at_a_bounded_rate() {
    // New ids bring one record after another that names a victim's address.
    let mut bench = Bench::linked();
    let neighbor = signed(PEER, 1).bytes().clone();
    let join = TopicFrame::Overlay(crate::wire::OverlayFrame::Join(neighbor));
    bench.frame(LINK, join);
    let mut dials = 0;
    for number in 10..=200 {
        let record = signed(number, 1).bytes().clone();
        let frame = crate::wire::OverlayFrame::ForwardJoin { ttl: 0, record };
        bench.frame(LINK, TopicFrame::Overlay(frame));
        bench.pass(Duration::from_millis(10));
        dials += bench.out.drain(..).filter(|out| matches!(out, OutEvent::Dial(..))).count();
    }
    assert!(dials > 0 && dials <= 20, "{dials} dials within 2 s");
}

#[test]
fn the_loss_of_the_last_link_is_reported_and_so_is_its_return() {
    let mut bench = Bench::linked();
    bench.frame(LINK, TopicFrame::Push(vec![signed(PEER, 1).bytes().clone()]));
    bench.out.clear();
    bench.feed(InEvent::LinkClosed(LINK, LinkEnd::TimedOut));
    bench.pass(Duration::from_secs(2));
    let reported = |bench: &Bench, wanted: &crate::TopicEvent| {
        bench.out.iter().any(|out| matches!(out, OutEvent::Topic(_, event) if event == wanted))
    };
    assert!(reported(&bench, &crate::TopicEvent::Isolated));
    assert!(
        bench.out.iter().any(|out| matches!(out, OutEvent::Dial(peer, _) if *peer == id(PEER)))
    );
    bench.open_link(LinkId(2), PEER, true);
    bench.hello(LinkId(2), 9);
    bench.frame(LinkId(2), TopicFrame::Open(topic()));
    assert!(reported(&bench, &crate::TopicEvent::Reconnected));
}

#[test]
fn a_leave_goes_to_members_whose_links_are_too_young_to_have_spoken() {
    const OTHER: u8 = 4;
    let is_leave = |sent: Vec<(LinkId, TopicFrame)>, on: LinkId| {
        sent.iter().any(|(link, frame)| *link == on && matches!(frame, TopicFrame::Leave(_)))
    };
    // The link of a member opens before this node leaves, or while it leaves.
    for before in [true, false] {
        let mut bench = Bench::linked();
        let records = [PEER, OTHER].map(|number| signed(number, 1).bytes().clone());
        bench.frame(LINK, TopicFrame::Push(records.into()));
        bench.feed(InEvent::LinkClosed(LINK, LinkEnd::Remote(CloseCode::Leave)));
        if !before {
            bench.open_link(LinkId(3), PEER, false);
            bench.hello(LinkId(3), 1);
            bench.feed(InEvent::Leave(topic()));
        }
        bench.open_link(LinkId(2), OTHER, false);
        bench.hello(LinkId(2), 1);
        if before {
            bench.feed(InEvent::Leave(topic()));
        }
        assert!(is_leave(bench.sent(), LinkId(2)), "up before: {before}");
    }
}
