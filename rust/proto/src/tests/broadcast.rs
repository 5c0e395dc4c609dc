//! Broadcasts of applications: those of others are verified and bounded, and this node's own are
//! sent or wait.

use super::{guard::with_two, *};
use crate::{
    CloseCode, Error, LinkEnd, MAX_BROADCAST, TopicEvent,
    broadcast::{Broadcast, MAX_SIGNED},
    cbor::Value,
    cose,
    wire::{Item, OverlayFrame, encode_broadcast, encode_content},
};

const AUTHOR: u8 = 5;
const BOOT_ID: u64 = 1;

/// Makes a node with two neighbors, and with authors in its book that are no neighbors.
fn bench() -> Bench {
    let mut bench = with_two();
    let records = [AUTHOR, 6, 7, 8, 9, 10].map(|number| signed(number, 1).bytes().clone());
    bench.frame(LINK, TopicFrame::Push(records.to_vec()));
    bench.pass(Duration::from_secs(1));
    bench.out.clear();
    bench
}

fn signed_broadcast(author: u8, boot_id: u64, number: u64, data: &[u8]) -> Bytes {
    Broadcast::sign(&key(author), &topic(), boot_id, number, data)
}

fn gossip(signed: &[u8]) -> TopicFrame {
    let content = encode_broadcast(signed);
    TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(0), content })
}

fn said(author: u8, number: u64) -> TopicFrame {
    gossip(&signed_broadcast(author, BOOT_ID, number, &number.to_be_bytes()))
}

/// Returns the broadcasts that the application got, with their authors.
fn heard(bench: &Bench) -> Vec<(EndpointId, Bytes)> {
    let heard = |out: &OutEvent| match out {
        OutEvent::Topic(_, TopicEvent::Broadcast { author, data, .. }) => {
            Some((*author, data.clone()))
        }
        _ => None,
    };
    bench.out.iter().filter_map(heard).collect()
}

/// Returns the broadcasts that were sent, with their links.
fn sent(bench: &Bench) -> Vec<(LinkId, Bytes)> {
    let sent = |out: &OutEvent| match out {
        OutEvent::Send(link, lane, bytes) => match Frame::decode(bytes).unwrap().unwrap() {
            Frame::Topic(_, TopicFrame::Overlay(OverlayFrame::Gossip { content, .. })) => {
                let is_broadcast = crate::wire::is_broadcast(&content);
                assert_eq!(is_broadcast, *lane == Lane::Broadcast, "a lane of their own");
                is_broadcast.then_some((*link, content))
            }
            _ => None,
        },
        _ => None,
    };
    bench.out.iter().filter_map(sent).collect()
}

fn say(bench: &mut Bench, data: &'static [u8]) {
    bench.feed(InEvent::Broadcast(topic(), None, Bytes::from_static(data)));
}

#[test]
fn a_broadcast_is_delivered_once_and_forwarded_once() {
    let mut bench = bench();
    let signed = signed_broadcast(AUTHOR, BOOT_ID, 0, b"hello");
    bench.frame(LINK, gossip(&signed));
    assert_eq!(heard(&bench), [(id(AUTHOR), Bytes::from_static(b"hello"))]);
    assert_eq!(sent(&bench), [(LinkId(2), encode_broadcast(&signed))]);
    bench.out.clear();
    // The other neighbor is never the first one, and is pruned.
    (0..16).for_each(|_| bench.frame(LinkId(2), gossip(&signed)));
    let prune = TopicFrame::Overlay(OverlayFrame::Prune);
    assert!(bench.out.iter().any(|out| matches!(out, OutEvent::Send(LinkId(2), _, bytes)
        if Frame::decode(bytes).unwrap() == Some(Frame::Topic(0, prune.clone())))));
    // A broadcast to neighbors only would not be forwarded: no node sends one.
    let content = encode_broadcast(&signed_broadcast(AUTHOR, BOOT_ID, 1, b"psst"));
    bench.frame(LINK, TopicFrame::Overlay(OverlayFrame::Gossip { round: None, content }));
    assert_eq!(bench.dropped(), ["broadcasts to neighbors only"]);
    // A replay arrives long after the overlay has forgotten the broadcast.
    for _ in 0..3 {
        bench.pass(Duration::from_mins(2));
        bench.frame(LINK, gossip(&signed));
    }
    assert!(bench.dropped().contains(&"broadcasts that were heard before"));
    assert_eq!((heard(&bench), sent(&bench)), (vec![], vec![]));
    assert_eq!(bench.state.counts().broadcasts_received, 1);
}

#[test]
fn numbers_come_in_any_order_and_what_is_too_old_not_at_all() {
    let mut bench = bench();
    for number in [3, 0, 2, 1, 5000, 3000, 4999] {
        bench.frame(LINK, said(AUTHOR, number));
    }
    assert_eq!(heard(&bench).len(), 7);
    bench.out.clear();
    bench.frame(LINK, said(AUTHOR, 2900));
    assert_eq!(bench.dropped(), ["broadcasts that were heard before"]);
}

#[test]
fn what_its_author_did_not_sign_as_a_broadcast_of_this_topic_closes_the_link() {
    let good = signed_broadcast(AUTHOR, BOOT_ID, 0, b"hello");
    let mut forged = good.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let elsewhere = TopicId::from_name("elsewhere").unwrap();
    let other_topic = Broadcast::sign(&key(AUTHOR), &elsewhere, BOOT_ID, 0, b"hello");
    // The same payload is signed as another kind.
    let payload = Value::decode("broadcast", &good).unwrap().into_array("broadcast").unwrap();
    let payload = payload.list(4).unwrap().nth(2).unwrap().into_bytes("payload").unwrap();
    let other_kind = |kind| cose::sign(&key(AUTHOR), kind, &topic(), &payload);
    let lacking = |absent: i64| {
        let (boot_id, number) = (Value::uint(BOOT_ID), Value::uint(0_u64));
        let all = [(0, boot_id), (1, number), (2, Value::bytes(b"hello"))];
        let rest = all.into_iter().filter(|(key, _)| *key != absent);
        let payload = Value::map(rest.map(|(key, value)| (Value::int(key), value))).encode();
        cose::sign(&key(AUTHOR), "iroh-gossip-discovery/broadcast/1", &topic(), &payload)
    };
    let with = |field: i64, value: Value| {
        let (boot_id, number) = (Value::uint(BOOT_ID), Value::uint(1_u64));
        let all = [(0, boot_id), (1, number), (2, Value::bytes(b"")), (field, value)];
        let payload = Value::map(all.map(|(key, value)| (Value::int(key), value))).encode();
        cose::sign(&key(AUTHOR), "iroh-gossip-discovery/broadcast/1", &topic(), &payload)
    };
    // Keys of a later version are ignored, but count toward the length.
    let longer = |more: usize| with(4, Value::bytes(&vec![0; more]));
    let longest = MAX_SIGNED - longer(MAX_BROADCAST).len() + MAX_BROADCAST;
    assert_eq!(longer(longest).len(), MAX_SIGNED);
    let bad = [
        longer(longest + 1),
        lacking(0),
        lacking(1),
        lacking(2),
        with(3, Value::text("")),
        with(3, Value::text("a\nb")),
        with(3, Value::text(&"x".repeat(65))),
        with(3, Value::bytes(b"cache")),
        forged.into(),
        other_topic,
        other_kind("iroh-gossip-discovery/node/1"),
        other_kind("iroh-gossip-discovery/accusation/1"),
        signed(AUTHOR, 2).bytes().clone(),
        signed_broadcast(AUTHOR, BOOT_ID, 0, &[0; MAX_BROADCAST + 1]),
        Bytes::from_static(b"\x80"),
    ];
    for bad in bad {
        let mut bench = bench();
        bench.frame(LINK, gossip(&bad));
        assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)], "{bad:?}");
        assert_eq!((heard(&bench), sent(&bench)), (vec![], vec![]));
    }
    let mut bench = bench();
    bench.frame(LINK, gossip(&other_kind("iroh-gossip-discovery/broadcast/1")));
    assert_eq!((heard(&bench).len(), bench.closed()), (1, vec![]), "the kind makes the difference");
    bench.frame(LinkId(2), gossip(&lacking(7)));
    assert_eq!((heard(&bench).len(), bench.closed()), (1, vec![]), "nothing is lacking");
    bench.frame(LINK, gossip(&longer(longest)));
    assert_eq!((heard(&bench).len(), bench.closed()), (2, vec![]));
}

#[test]
fn a_broadcast_is_no_record_and_does_not_travel_with_one() {
    let mut bench = bench();
    let broadcast = signed_broadcast(AUTHOR, BOOT_ID, 0, b"hello");
    let record = Item::Record(signed(11, 1).bytes().clone());
    let mut both = encode_content(&[record.clone(), record]).to_vec();
    // The second item becomes a broadcast by its kind alone.
    let second = both.windows(2).rposition(|pair| pair == [0x82, 0x00]).unwrap();
    both[second + 1] = 2;
    let content = both.into();
    bench.frame(LINK, TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(0), content }));
    assert!(bench.dropped().contains(&"broadcasts that cannot be judged"));
    let content = encode_content(&[Item::Record(broadcast)]);
    bench.frame(LINK, TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(0), content }));
    assert_eq!(bench.closed(), [(LINK, CloseCode::Protocol)]);
    assert_eq!((heard(&bench), sent(&bench)), (vec![], vec![]));
}

#[test]
fn strangers_in_the_book_or_on_the_link_are_not_heard_and_nor_are_earlier_lives() {
    let mut bench = bench();
    bench.frame(LINK, said(99, 0));
    bench.frame(LINK, gossip(&signed_broadcast(AUTHOR, BOOT_ID + 1, 0, b"")));
    bench.frame(LINK, gossip(&signed_broadcast(ME, BOOT_ID, 7, b"")));
    let what = [
        "broadcasts of unknown members",
        "broadcasts of another life of their author",
        "own broadcasts that came back",
    ];
    assert_eq!(bench.dropped(), what);
    // The author restarts.
    let record = NodeRecord { boot_id: BOOT_ID + 1, ..node(AUTHOR, 2) };
    bench.frame(LINK, said(AUTHOR, 3));
    bench.frame(LINK, TopicFrame::Push(vec![sign(record).bytes().clone()]));
    bench.out.clear();
    bench.frame(LINK, said(AUTHOR, 4));
    assert_eq!(bench.dropped(), what[1..2]);
    bench.frame(LINK, gossip(&signed_broadcast(AUTHOR, BOOT_ID + 1, 3, b"")));
    assert_eq!(heard(&bench).len(), 1, "its numbers begin again");
    bench.pass(Duration::from_mins(2));
    bench.frame(LINK, gossip(&signed_broadcast(AUTHOR, BOOT_ID + 1, 4, b"")));
    bench.frame(LINK, gossip(&signed_broadcast(AUTHOR, BOOT_ID + 1, 3, b"")));
    assert_eq!(heard(&bench).len(), 2, "and count as before");
    assert!(bench.dropped().contains(&"broadcasts that were heard before"));
    assert_eq!(bench.closed(), []);

    let mut bench = Bench::linked();
    bench.frame(LINK, TopicFrame::Push(vec![signed(AUTHOR, 1).bytes().clone()]));
    bench.frame(LINK, said(AUTHOR, 0));
    assert_eq!(heard(&bench), [], "no neighbor");
}

#[test]
fn a_flood_runs_into_the_budget_of_its_author_and_costs_others_nothing() {
    let mut bench = bench();
    for number in 0..1500 {
        bench.frame(LINK, said(AUTHOR, number));
    }
    let over = "broadcasts over the budget of an author";
    assert_eq!(heard(&bench).len(), 512);
    assert_eq!(bench.dropped().iter().filter(|what| **what == over).count(), 1500 - 512);
    bench.out.clear();
    bench.frame(LINK, said(6, 0));
    bench.frame(LINK, TopicFrame::Push(vec![signed(11, 1).bytes().clone()]));
    assert_eq!(heard(&bench).len(), 1);
    assert_eq!(bench.dropped(), Vec::<&str>::new());
    // A broadcast that was dropped for that may arrive again.
    bench.pass(Duration::from_secs(1));
    bench.out.clear();
    bench.frame(LINK, said(AUTHOR, 1499));
    assert_eq!(heard(&bench).len(), 1);
}

#[test]
fn one_author_has_a_limit_in_bytes() {
    let mut bench = bench();
    for number in 0..300 {
        bench.frame(LINK, gossip(&signed_broadcast(AUTHOR, BOOT_ID, number, &[7; MAX_BROADCAST])));
    }
    assert_eq!(heard(&bench).len(), 256, "2 MiB");
    assert_eq!(bench.dropped(), ["broadcasts over the budget of an author"; 300 - 256]);
}

#[test]
fn one_neighbor_has_a_limit_with_what_it_repeats() {
    let dropped = |bench: &Bench| {
        let over = |what: &&&str| **what == "broadcasts over the budget of a peer";
        bench.dropped().iter().filter(over).count()
    };
    let large = encode_broadcast(&signed_broadcast(AUTHOR, BOOT_ID, 0, &[7; MAX_BROADCAST]));
    let (size, at_once, a_second) = (large.len(), 8 * 1024 * 1024, 4 * 1024 * 1024);
    let of_large = (at_once / size, (at_once % size + a_second) / size);
    let small = encode_broadcast(&signed_broadcast(AUTHOR, BOOT_ID, 0, b""));
    for (content, (first, then)) in [(small, (8000, 2000)), (large, of_large)] {
        let mut bench = bench();
        for taken in [first, then] {
            for _ in 0..taken + 10 {
                let (round, content) = (Some(0), content.clone());
                bench.frame(LINK, TopicFrame::Overlay(OverlayFrame::Gossip { round, content }));
            }
            assert_eq!(dropped(&bench), 10);
            bench.pass(Duration::from_secs(1));
            bench.out.clear();
        }
    }
}

#[test]
fn many_authors_of_small_ones_have_a_limit_too() {
    let mut bench = bench();
    let records = [11, 12, 13].map(|number| signed(number, 1).bytes().clone());
    bench.frame(LINK, TopicFrame::Push(records.to_vec()));
    for number in 0..500 {
        for author in AUTHOR..=13 {
            bench.frame(LINK, said(author, number));
        }
    }
    assert_eq!(heard(&bench).len(), 4000);
    assert_eq!(bench.dropped(), ["broadcasts over the budget of all authors"; 500]);
}

#[test]
fn many_authors_and_one_neighbor_have_a_limit_too_and_membership_passes() {
    let mut bench = bench();
    let data = [7; MAX_BROADCAST];
    for number in 0..200 {
        for author in AUTHOR..=10 {
            bench.frame(LINK, gossip(&signed_broadcast(author, BOOT_ID, number, &data)));
        }
    }
    let bytes: usize = heard(&bench).iter().map(|(_, data)| data.len()).sum();
    assert_eq!(bytes, 4 * 1024 * 1024, "of all authors at once");
    assert!(bench.dropped().contains(&"broadcasts over the budget of all authors"));
    assert!(bench.dropped().contains(&"broadcasts over the budget of a peer"));
    // A second later, there is room for 2 MiB.
    bench.pass(Duration::from_secs(1));
    bench.out.clear();
    for number in 200..260 {
        for author in AUTHOR..=10 {
            bench.frame(LINK, gossip(&signed_broadcast(author, BOOT_ID, number, &data)));
        }
    }
    assert_eq!(heard(&bench).len() * MAX_BROADCAST, 2 * 1024 * 1024);
    bench.out.clear();
    let content = encode_content(&[Item::Record(signed(11, 1).bytes().clone())]);
    bench.frame(LINK, TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(0), content }));
    assert!(
        bench.out.iter().any(|out| matches!(out, OutEvent::Topic(_, TopicEvent::PeerJoined(_))))
    );
}

#[test]
fn own_broadcasts_go_to_all_neighbors_at_once_and_not_to_oneself() {
    let mut bench = bench();
    say(&mut bench, b"one");
    say(&mut bench, b"two");
    let links: Vec<_> = sent(&bench).into_iter().map(|(link, _)| link.0).collect();
    assert_eq!(links, [1, 2, 1, 2]);
    assert_eq!(heard(&bench), []);
    let contents = sent(&bench);
    bench.out.clear();
    let content = contents[0].1.clone();
    bench.frame(LINK, TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(1), content }));
    assert_eq!((heard(&bench), sent(&bench)), (vec![], vec![]));
    assert_eq!(bench.dropped(), Vec::<&str>::new(), "a duplicate as any other");
    assert_eq!(bench.state.counts().broadcasts_sent, 2);

    let signed = contents[2].1.clone();
    let envelope = Broadcast::open(&crate::wire::decode_broadcast(&signed).unwrap()).unwrap();
    let broadcast = Broadcast::verify(&envelope, &topic()).unwrap();
    assert_eq!((broadcast.author, broadcast.boot_id, broadcast.number), (id(ME), 1, 1));
}

#[test]
fn what_is_too_large_is_an_error_and_what_is_just_large_enough_is_sent() {
    let mut bench = bench();
    let now = bench.now;
    let mut say = |size| {
        let event = InEvent::Broadcast(topic(), None, vec![7; size].into());
        bench.state.handle(event, now)
    };
    let error = say(MAX_BROADCAST + 1).unwrap_err();
    assert!(matches!(&error, Error::Invalid { field: "data", .. }), "{error}");
    assert!(error.to_string().contains("8192"), "{error}");
    say(MAX_BROADCAST).unwrap();
    bench.out.extend(std::iter::from_fn(|| bench.state.poll()));
    let content = sent(&bench)[0].1.clone();
    assert!(content.len() <= MAX_SIGNED, "{}", content.len());
    bench.feed(InEvent::Leave(topic()));
    let gone = bench.state.handle(InEvent::Broadcast(topic(), None, Bytes::new()), now);
    assert_eq!(gone, Err(Error::NotJoined(topic())));
}

#[test]
fn without_a_neighbor_a_broadcast_waits_for_one_and_not_for_ever() {
    let mut bench = Bench::new();
    for _ in 0..330 {
        say(&mut bench, b"anybody?");
    }
    let given_up = "broadcasts without a neighbor";
    let count = |bench: &Bench| bench.dropped().iter().filter(|what| **what == given_up).count();
    assert_eq!(count(&bench), 10, "320 wait");
    bench.pass(Duration::from_secs(11));
    assert_eq!(count(&bench), 330);
    for _ in 0..200 {
        say(&mut bench, &[7; MAX_BROADCAST]);
    }
    let left = 200 - (count(&bench) - 330);
    assert!((150..160).contains(&left), "{left}: 1.25 MiB wait");
    bench.pass(Duration::from_secs(11));
    assert_eq!(count(&bench), 530);

    say(&mut bench, b"now?");
    bench.pass(Duration::from_secs(5));
    bench.open_link(LINK, PEER, false);
    bench.hello(LINK, 9);
    bench.frame(LINK, TopicFrame::Open(topic()));
    let join = OverlayFrame::Join(signed(PEER, 1).bytes().clone());
    bench.frame(LINK, TopicFrame::Overlay(join));
    assert_eq!(sent(&bench), [], "others know this node by then");
    bench.pass(Duration::from_secs(1));
    assert_eq!(sent(&bench).len(), 1);
    assert_eq!(count(&bench), 530);
}

#[test]
fn a_restart_is_no_way_round_the_budget() {
    let mut bench = bench();
    for number in 0..512 {
        bench.frame(LINK, said(AUTHOR, number));
    }
    let record = NodeRecord { boot_id: BOOT_ID + 1, ..node(AUTHOR, 2) };
    bench.frame(LINK, TopicFrame::Push(vec![sign(record).bytes().clone()]));
    bench.out.clear();
    bench.frame(LINK, gossip(&signed_broadcast(AUTHOR, BOOT_ID + 1, 0, b"")));
    assert_eq!(heard(&bench), []);
    assert_eq!(bench.dropped(), ["broadcasts over the budget of an author"]);
}

#[test]
fn authors_are_forgotten_once_nothing_is_held_of_them_and_not_before() {
    const MOST: usize = 2 * 4 + 1024;
    let mut bench = Bench::with(Config { capacity: 4, ..Config::default() });
    bench.open_link(LINK, PEER, false);
    bench.hello(LINK, 9);
    bench.frame(LINK, TopicFrame::Open(topic()));
    let join = OverlayFrame::Join(signed(PEER, 1).bytes().clone());
    bench.frame(LINK, TopicFrame::Overlay(join));
    let record = |key: &SigningKey, sequence, status| {
        let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
        let record = NodeRecord { id, sequence, status, boot_id: sequence, ..node(9, 1) };
        let signed = SignedRecord::sign(key, &topic(), record).unwrap();
        TopicFrame::Push(vec![signed.bytes().clone()])
    };
    let authors = |bench: &Bench| {
        let sizes = bench.state.inspect(&topic()).unwrap().sizes;
        sizes.into_iter().find(|(what, _)| *what == "authors").unwrap().1
    };
    bench.frame(LINK, TopicFrame::Push(vec![signed(AUTHOR, 1).bytes().clone()]));
    bench.frame(LINK, said(AUTHOR, 0));
    // Authors join, broadcast and leave. The last but one uses up its budget.
    let mut flooder = None;
    while authors(&bench) <= MOST {
        let mut secret = [200; 32];
        secret[..8].copy_from_slice(&authors(&bench).to_be_bytes());
        let author = SigningKey::from_bytes(&secret);
        // Each introduces itself, because other peers have only a share of the book.
        let own = LinkId(1000 + u64::try_from(authors(&bench)).unwrap());
        let peer = EndpointId::from_bytes(author.verifying_key().to_bytes());
        bench.feed(InEvent::LinkOpened { link: own, peer, address: None, dialed: false });
        bench.hello(own, 1);
        bench.frame(own, TopicFrame::Open(topic()));
        bench.frame(own, record(&author, 1, Status::Alive));
        let before = authors(&bench);
        for number in 0..if before == 1031 { 512 } else { 1 } {
            bench.frame(LINK, gossip(&Broadcast::sign(&author, &topic(), 1, number, b"")));
        }
        assert_eq!(authors(&bench), before + 1);
        bench.frame(LINK, record(&author, 2, Status::Left));
        bench.feed(InEvent::LinkClosed(own, crate::LinkEnd::Remote(crate::CloseCode::Leave)));
        match before {
            ..1031 => bench.pass(Duration::from_millis(100)),
            1031 => flooder = Some(author),
            _ => {}
        }
    }
    bench.out.clear();
    // The next author makes room, although it was heard before.
    bench.frame(LINK, said(AUTHOR, 1));
    assert_eq!(heard(&bench).len(), 1);
    assert!(authors(&bench) <= 6, "{} are remembered", authors(&bench));
    bench.frame(LINK, said(AUTHOR, 0));
    assert_eq!(heard(&bench).len(), 1, "a replay");
    assert_eq!(bench.dropped(), ["broadcasts that were heard before"]);
    bench.out.clear();
    // A leave does not renew the budget.
    let flooder = flooder.expect("there were as many");
    bench.frame(LINK, record(&flooder, 3, Status::Alive));
    bench.frame(LINK, gossip(&Broadcast::sign(&flooder, &topic(), 3, 0, b"")));
    assert_eq!(heard(&bench), []);
    assert_eq!(bench.dropped(), ["broadcasts over the budget of an author"]);
}

#[test]
fn a_node_that_lost_its_neighbors_keeps_its_broadcasts_for_the_next_one() {
    let mut bench = bench();
    for link in [LINK, LinkId(2)] {
        bench.feed(InEvent::LinkClosed(link, LinkEnd::Lost));
    }
    bench.out.clear();
    say(&mut bench, b"still there?");
    assert_eq!(sent(&bench), []);
    let link = LinkId(9);
    bench.open_link(link, PEER, false);
    bench.hello(link, 9);
    bench.frame(link, TopicFrame::Open(topic()));
    let join = OverlayFrame::Join(signed(PEER, 1).bytes().clone());
    bench.frame(link, TopicFrame::Overlay(join));
    bench.pass(Duration::from_secs(1));
    assert_eq!(sent(&bench).into_iter().map(|(link, _)| link).collect::<Vec<_>>(), [link]);
}

#[test]
fn each_lost_broadcast_is_sent_once_to_a_neighbor_that_asks_and_none_is_refused() {
    const COUNT: usize = 3000;
    let graft = |id: [u8; 32]| TopicFrame::Overlay(OverlayFrame::Graft { id: Some(id), round: 0 });
    let mut bench = bench();
    let mut ids = BTreeSet::new();
    for _ in 0..COUNT {
        say(&mut bench, b"small");
        bench.now += Duration::from_millis(1);
    }
    ids.extend(sent(&bench).iter().map(|(_, content)| *blake3::hash(content).as_bytes()));
    assert_eq!(ids.len(), COUNT);
    bench.out.clear();
    for id in &ids {
        bench.frame(LINK, graft(*id));
    }
    assert_eq!((sent(&bench).len(), bench.dropped().len()), (COUNT, 0));
    bench.out.clear();
    for id in ids.iter().take(500) {
        bench.frame(LINK, graft(*id));
    }
    assert_eq!(sent(&bench), [], "a stream loses nothing");
    assert_eq!(bench.dropped(), ["broadcasts asked for again"; 500]);
}
