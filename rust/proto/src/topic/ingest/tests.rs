//! The intake of records without a network: what is applied, what is limited, and what follows.

use ed25519_dalek::SigningKey;

use super::{super::world::World, *};
use crate::{
    Access, SignedRecord,
    book::Book,
    tests::{ME, id, node, sign, signed, topic},
};

/// A peer that sends records of others.
const PEER: u8 = 2;
const MEMBER: u8 = 5;

fn intake() -> (World, Ingest) {
    let world = World::new();
    let ingest = Ingest::new(world.config.capacity);
    (world, ingest)
}

/// Takes in a record that a peer forwarded.
fn forward(
    (world, ingest): &mut (World, Ingest),
    signed: &SignedRecord,
    from: u8,
) -> (Applied, Vec<Effect>) {
    let incoming = Incoming {
        bytes: signed.bytes(),
        age: Duration::ZERO,
        way: Way::Forwarded,
        from: id(from),
    };
    let (taken, effects) = ingest.take(incoming, &mut world.scope()).unwrap();
    assert_eq!(taken.id, signed.record().id);
    (taken.applied, effects.into_inner())
}

fn applied(signed: &SignedRecord, applied: Applied, from: u8) -> Effect {
    let record = Arc::clone(signed.record());
    Effect::Applied(NewRecord { record, applied, from: id(from) })
}

/// Makes the record of a node that no number names.
fn stranger(number: u32) -> SignedRecord {
    let mut secret = [9; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let key = SigningKey::from_bytes(&secret);
    let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
    SignedRecord::sign(&key, &topic(), NodeRecord { id, ..node(9, 1) }).unwrap()
}

#[test]
fn a_record_is_applied_and_reported_once() {
    let mut intake = intake();
    let (first, second) = (signed(MEMBER, 1), signed(MEMBER, 2));
    let joined = applied(&first, Applied::Joined, PEER);
    assert_eq!(forward(&mut intake, &first, PEER), (Applied::Joined, vec![joined]));
    assert_eq!(intake.0.events(), [TopicEvent::PeerJoined(Arc::clone(first.record()))]);
    assert_eq!(forward(&mut intake, &first, PEER), (Applied::Same, vec![]));
    let refreshed = applied(&second, Applied::Refreshed, MEMBER);
    assert_eq!(forward(&mut intake, &second, MEMBER), (Applied::Refreshed, vec![refreshed]));
    assert_eq!(intake.0.events(), [TopicEvent::PeerRefreshed(Arc::clone(second.record()))]);
    assert_eq!(forward(&mut intake, &first, PEER), (Applied::Stale, vec![]));
    assert!(intake.0.out().is_empty(), "the peer is not the owner");
}

#[test]
fn a_leave_and_a_displaced_member_are_gone_before_others_hear_of_the_record() {
    let mut intake = intake();
    let left = sign(NodeRecord { status: Status::Left, ..node(MEMBER, 2) });
    forward(&mut intake, &signed(MEMBER, 1), PEER);
    let (was, effects) = forward(&mut intake, &left, PEER);
    assert_eq!(was, Applied::Left(Arc::clone(signed(MEMBER, 1).record())));
    assert_eq!(effects, [Effect::Gone(id(MEMBER)), applied(&left, was, PEER)]);
    // A book with room for one: the newcomer itself is reached, the member is known by hearsay.
    intake.0.book = Book::new(id(ME), 1, intake.0.cx.now);
    forward(&mut intake, &signed(MEMBER, 1), PEER);
    intake.0.out();
    let newcomer = signed(6, 1);
    let joined = applied(&newcomer, Applied::Joined, 6);
    let (_, effects) = forward(&mut intake, &newcomer, 6);
    assert_eq!(effects, [Effect::Gone(id(MEMBER)), joined]);
    let lost = TopicEvent::PeerLost(Arc::clone(signed(MEMBER, 1).record()), LostReason::Displaced);
    let joined = TopicEvent::PeerJoined(Arc::clone(newcomer.record()));
    assert_eq!(intake.0.events(), [lost, joined]);
}

#[test]
fn a_record_that_does_not_verify_closes_the_link_that_brought_it() {
    let (mut world, mut ingest) = intake();
    world.links(PEER);
    let mut forged = signed(MEMBER, 1).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let bytes = &Bytes::from(forged);
    let incoming = Incoming { bytes, age: Duration::ZERO, way: Way::Forwarded, from: id(PEER) };
    assert!(ingest.take(incoming, &mut world.scope()).is_err());
    let out = world.out();
    assert!(
        out.iter().any(|out| matches!(out, OutEvent::Close(_, CloseCode::Protocol))),
        "{out:?}"
    );
    assert_eq!(world.book.len(), 0);
}

#[test]
fn a_record_of_this_nodes_own_key_is_for_the_announcer() {
    let mut intake = intake();
    let own = signed(ME, 7);
    let outrun = Effect::Outrun(Arc::clone(own.record()));
    assert_eq!(forward(&mut intake, &own, PEER), (Applied::Stale, vec![outrun]));
    assert!(intake.0.out().is_empty());
}

#[test]
fn an_owner_that_lags_behind_is_shown_its_newer_record() {
    let mut intake = intake();
    intake.0.links(MEMBER);
    let newer = signed(MEMBER, 9);
    forward(&mut intake, &newer, PEER);
    assert_eq!(forward(&mut intake, &signed(MEMBER, 3), MEMBER), (Applied::Stale, vec![]));
    let shown = TopicFrame::Push(vec![newer.bytes().clone()]);
    assert_eq!(intake.0.sent(), [(id(MEMBER), shown)]);
}

#[test]
fn the_link_to_the_old_process_of_a_member_that_restarted_is_closed() {
    let restarted = |intake: &mut (World, Ingest), from| {
        intake.0.links(MEMBER);
        forward(intake, &signed(MEMBER, 1), MEMBER);
        let new = sign(NodeRecord { boot_id: 2, ..node(MEMBER, 2) });
        forward(intake, &new, from).1.pop()
    };
    let close = || Some(Effect::Close(id(MEMBER), CloseCode::Replaced));
    assert_eq!(restarted(&mut intake(), PEER), close());
    // If the record came on that very link, the link is that of the new process.
    assert_ne!(restarted(&mut intake(), MEMBER), close());
}

/// Returns how many of these strangers a peer brings into the book.
fn strangers_taken(
    (world, ingest): &mut (World, Ingest),
    numbers: std::ops::Range<u32>,
    way: Way,
) -> usize {
    let is_taken = |number: &u32| {
        let (record, from) = (stranger(*number), id(PEER));
        let incoming = Incoming { bytes: record.bytes(), age: Duration::ZERO, way, from };
        let (taken, _) = ingest.take(incoming, &mut world.scope()).unwrap();
        taken.applied == Applied::Joined
    };
    numbers.filter(is_taken).count()
}

#[test]
fn the_newcomers_that_one_peer_forwards_are_limited_and_in_a_sync_only_by_its_share() {
    let mut intake = intake();
    let fresh_book = |world: &World| Book::new(id(ME), 400, world.cx.now);
    intake.0.book = fresh_book(&intake.0);
    // Its share, and the newcomers that come in the place of others that it brought.
    assert_eq!(strangers_taken(&mut intake, 0..400, Way::Forwarded), 256 + 64);
    assert_eq!(strangers_taken(&mut intake, 400..500, Way::Synced), 0, "its share is used up");
    let over = DropReason::NewcomersOverTheShareOfTheirIntroducer.label();
    let dropped = intake.0.dropped();
    assert_eq!(dropped.iter().filter(|label| **label == over).count(), 80 + 100);
    intake.0.book = fresh_book(&intake.0);
    assert_eq!(strangers_taken(&mut intake, 0..100, Way::Forwarded), 0, "the rate is used up");
    assert_eq!(strangers_taken(&mut intake, 0..400, Way::Synced), 256, "no rate limits a sync");
}

#[test]
fn updates_are_limited_and_a_suspected_member_may_always_refute() {
    let mut intake = intake();
    let update = |intake: &mut _, sequence| forward(intake, &signed(MEMBER, sequence), PEER).0;
    let updates = |intake: &mut _, from| {
        (from..from + 600).filter(|sequence| update(intake, *sequence).is_news()).count()
    };
    update(&mut intake, 1);
    assert_eq!(updates(&mut intake, 2), 4 + 512, "those of one member, and those of one link");
    let over = DropReason::UpdatesOverTheBudgetOfAPeer.label();
    assert_eq!(intake.0.dropped().iter().filter(|label| **label == over).count(), 600 - 516);
    let accusation = Some(Bytes::from_static(b"an accusation"));
    intake.0.book.accuse(&id(MEMBER), accusation);
    assert_eq!(update(&mut intake, 1000), Applied::Refreshed);
}

#[test]
fn a_node_that_is_kept_out_is_in_the_book_and_not_reported() {
    let mut intake = intake();
    let access = Access { deny: [id(MEMBER)].into(), ..Access::default() };
    intake.0.book.set_access(&Arc::new(access.clone()));
    intake.0.cx.links.set_access(Arc::new(access));
    intake.0.out();
    let record = signed(MEMBER, 1);
    let joined = applied(&record, Applied::Joined, PEER);
    assert_eq!(forward(&mut intake, &record, PEER), (Applied::Joined, vec![joined]));
    let kept_out = DropReason::RecordsOfPeersThatAreKeptOut.label();
    let out = intake.0.out();
    assert!(matches!(&out[..], [OutEvent::Dropped { what, .. }] if what.label() == kept_out));
}
