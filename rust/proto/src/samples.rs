//! One message of each kind from the real encoders, for the tests that validate them against
//! `docs/wire.cddl` and with an independent implementation.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use iroh_base::TransportAddr;
use rand::{SeedableRng, rngs::ChaCha12Rng};
use tokio::time::Instant;

use crate::{
    accusation::Accusation,
    book::{Applied, Book},
    broadcast::Broadcast,
    channel::Channel,
    error::Error,
    event::LinkId,
    id::{EndpointId, TopicId},
    invitation::{Invitation, Revocation},
    record::{
        Envelope, KIND_NODE, NodeRecord, Profile, Readiness, SignedRecord, Status, decode_payload,
    },
    request::{Answer, Request},
    sync::Session,
    verified::verify_all,
    wire::{
        Entry, Frame, Hello, Item, OverlayFrame, Range, RangeContent, SyncFrame, TopicFrame, Turn,
        encode_broadcast, encode_content,
    },
};

/// The topic of all samples.
///
/// # Panics
/// Never: the name is a good one.
#[must_use]
pub fn topic() -> TopicId {
    TopicId::from_name("samples").expect("a good name")
}

/// Returns a record with every field, signed by a key that follows from `number`.
///
/// # Panics
/// Never: the fields are within their limits.
#[must_use]
pub fn record(number: u8, status: Status) -> SignedRecord {
    let key = SigningKey::from_bytes(&[number; 32]);
    let addresses: [TransportAddr; 3] = [
        TransportAddr::Relay("https://relay.example/".parse().expect("a URL")),
        TransportAddr::Ip("192.0.2.7:4433".parse().expect("an address")),
        TransportAddr::Ip("[2001:db8::7]:4433".parse().expect("an address")),
    ];
    let record = NodeRecord {
        id: EndpointId::from_bytes(key.verifying_key().to_bytes()),
        sequence: 1_800_000_000_000_000 + u64::from(number),
        boot_id: u64::MAX - u64::from(number),
        profile: Profile {
            name: format!("räuber-{number}"),
            metadata: BTreeMap::from([
                ("role".into(), "cache".into()),
                ("z".into(), String::new()),
                ("zone".into(), "eu".into()),
            ]),
            protocols: vec![b"chat/1".to_vec()],
            readiness: if number == 2 { Readiness::Draining } else { Readiness::Ready },
        },
        addresses: addresses.to_vec(),
        status,
        expiration: Duration::from_mins(15),
    };
    SignedRecord::sign(&key, &topic(), record).expect("a good record")
}

/// Returns the name and the bytes of one frame of each type, of records and of a broadcast's
/// content.
// long: a list with an entry for each type of frame.
#[must_use]
pub fn all() -> Vec<(&'static str, Bytes)> {
    let alive = record(1, Status::Alive).bytes().clone();
    let left = record(2, Status::Left).bytes().clone();
    let accused = record(1, Status::Alive).record().id;
    let accusation =
        Accusation::sign(&SigningKey::from_bytes(&[3; 32]), &topic(), accused, 5).bytes;
    let content = encode_content(&[
        Item::Record(alive.clone()),
        Item::Record(left.clone()),
        Item::Accusation(accusation.clone()),
    ]);
    let author = SigningKey::from_bytes(&[4; 32]);
    let broadcast = Broadcast::sign(&author, &topic(), 7, 12, b"hello, all");
    let broadcast_content = encode_broadcast(&broadcast);
    let channel = Channel::new("cache").ok();
    let on_channel = Broadcast::sign_for(channel.as_ref(), &author, &topic(), 7, 13, b"stale");
    let hello = Hello { min_version: 1, max_version: 1, boot_id: 7, features: 0 };
    let [invitation, revocation] = of_an_issuer();
    let overlay = TopicFrame::Overlay;
    let id = |byte| EndpointId::from_bytes([byte; 32]);
    let sync = SyncFrame {
        session: 3,
        from_initiator: true,
        attached: false,
        turn: Turn::Yours,
        ranges: vec![
            Range { end: Some(id(1)), what: RangeContent::Skip },
            Range {
                end: Some(id(2)),
                what: RangeContent::Fingerprint { hash: [9; 16], count: 40 },
            },
            Range { end: None, what: RangeContent::List(vec![(id(3), 5), (id(4), 6)]) },
        ],
        entries: vec![
            Entry { record: alive.clone(), age_ms: 1500, accusation: None },
            Entry { record: alive.clone(), age_ms: 0, accusation: Some(accusation.clone()) },
        ],
        wants: vec![id(5)],
        observer: false,
    };
    let frames = [
        ("open", TopicFrame::Open(topic())),
        ("closed", TopicFrame::Closed),
        ("join", overlay(OverlayFrame::Join(alive.clone()))),
        ("forward-join", overlay(OverlayFrame::ForwardJoin { ttl: 6, record: alive.clone() })),
        ("neighbor", overlay(OverlayFrame::Neighbor { high: true, record: alive.clone() })),
        ("disconnect", overlay(OverlayFrame::Disconnect { alive: true })),
        ("gossip", overlay(OverlayFrame::Gossip { round: Some(2), content: content.clone() })),
        (
            "gossip-neighbors",
            overlay(OverlayFrame::Gossip { round: None, content: content.clone() }),
        ),
        (
            "gossip-broadcast",
            overlay(OverlayFrame::Gossip { round: Some(0), content: broadcast_content.clone() }),
        ),
        ("prune", overlay(OverlayFrame::Prune)),
        ("graft", overlay(OverlayFrame::Graft { id: Some([8; 32]), round: 1 })),
        ("graft-link", overlay(OverlayFrame::Graft { id: None, round: 1 })),
        ("ihave", overlay(OverlayFrame::IHave(vec![([8; 32], 1), ([9; 32], 2)]))),
        ("push", TopicFrame::Push(vec![alive.clone(), left.clone()])),
        ("attached", TopicFrame::Attached),
        ("leave", TopicFrame::Leave(left.clone())),
        ("leave-ack", TopicFrame::LeaveAck(1_800_000_000_000_002)),
        ("sync", TopicFrame::Sync(sync)),
        ("busy", TopicFrame::Busy(vec![alive.clone()])),
        ("probe-request", TopicFrame::ProbeRequest(id(6))),
        ("probe-ack", TopicFrame::ProbeAck(id(6))),
        ("digest", TopicFrame::Digest([7; 8])),
        ("accuse", TopicFrame::Accuse(vec![accusation.clone()])),
        ("revoked", TopicFrame::Revoked { all: [7; 16], revocations: vec![revocation.clone()] }),
        ("revoked-none", TopicFrame::Revoked { all: [0; 16], revocations: Vec::new() }),
    ];
    let frames = frames.into_iter().map(|(name, frame)| (name, Frame::Topic(0, frame).encode()));
    [
        ("record-alive", alive),
        ("record-left", left),
        ("content", content),
        ("broadcast", broadcast),
        ("broadcast-channel", on_channel),
        ("broadcast-content", broadcast_content.clone()),
        ("accusation", accusation),
        ("invitation", invitation),
        ("revocation", revocation),
        ("hello", Frame::Hello(hello).encode()),
        ("ping", Frame::Ping.encode()),
        ("ack", Frame::Ack.encode()),
        ("request-message", Request::Message(topic(), None).encode()),
        ("request-message-channel", Request::Message(topic(), channel).encode()),
        ("request-stream", Request::Stream(topic(), b"chat/1".to_vec()).encode()),
        ("request-reason", Request::Reason(4, "no room".into()).encode()),
        ("answer", Answer::Closing.encode()),
    ]
    .into_iter()
    .chain(frames)
    .collect()
}

/// Returns an invitation and its revocation.
fn of_an_issuer() -> [Bytes; 2] {
    let (issuer, member) = (SigningKey::from_bytes(&[5; 32]), EndpointId::from_bytes([6; 32]));
    let times = (1_800_000_000, 1_802_592_000);
    let invitation = Invitation::sign(&issuer, topic(), member, times).expect("a good time");
    let revocation = Revocation::sign(&issuer, topic(), member, times).expect("a good time");
    [invitation.bytes().clone(), revocation.bytes().clone()]
}

/// Returns true if the bytes are a frame of this version.
///
/// # Errors
/// The error for which a link would close.
pub fn decode(bytes: &[u8]) -> Result<bool, Error> {
    Frame::decode(bytes).map(|frame| frame.is_some())
}

/// Returns a record for each number, with a key of its own.
///
/// # Panics
/// Never: the fields are within their limits.
#[must_use]
pub fn numbered(number: u32) -> SignedRecord {
    let mut secret = [1; 32];
    secret[..4].copy_from_slice(&number.to_le_bytes());
    let key = SigningKey::from_bytes(&secret);
    let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
    let record = NodeRecord { id, ..NodeRecord::clone(record(1, Status::Alive).record()) };
    SignedRecord::sign(&key, &topic(), record).expect("a good record")
}

/// Returns the frame that spreads records through the overlay.
#[must_use]
pub fn gossip(records: &[&SignedRecord]) -> Bytes {
    let content =
        records.iter().map(|record| Item::Record(record.bytes().clone())).collect::<Vec<_>>();
    let content = encode_content(&content);
    Frame::Topic(0, TopicFrame::Overlay(OverlayFrame::Gossip { round: Some(1), content })).encode()
}

/// Returns the frame that sends records directly. At most 200 fit.
#[must_use]
pub fn push(records: &[SignedRecord]) -> Bytes {
    let records = records.iter().map(|record| record.bytes().clone()).collect();
    Frame::Topic(0, TopicFrame::Push(records)).encode()
}

/// The steps of signing and verifying a record, to measure what each costs.
#[derive(Debug)]
pub struct Steps {
    key: SigningKey,
    record: NodeRecord,
    signed: SignedRecord,
    /// The bytes that the key signs.
    message: Vec<u8>,
    signature: [u8; 64],
    envelope: Envelope,
    payload: Vec<u8>,
}

impl Steps {
    /// Makes the steps of the first sample.
    ///
    /// # Panics
    /// Never: the record is a good one.
    #[must_use]
    pub fn new() -> Self {
        let key = SigningKey::from_bytes(&[1; 32]);
        let record = NodeRecord::clone(record(1, Status::Alive).record());
        let (mut message, mut signature) = (Vec::new(), [0; 64]);
        let sign = |bytes: &[u8]| {
            message = bytes.to_vec();
            signature = key.sign(bytes).to_bytes();
            signature
        };
        let signed =
            SignedRecord::sign_with(sign, &topic(), record.clone()).expect("a good record");
        let envelope = Envelope::open(signed.bytes()).expect("an envelope of ours");
        let payload = envelope.signed.verify(KIND_NODE, &topic()).expect("signed by us").to_vec();
        Self { key, record, signed, message, signature, envelope, payload }
    }

    /// Returns the whole record, signed.
    #[must_use]
    pub fn signed(&self) -> &SignedRecord {
        &self.signed
    }

    /// Runs all of [`SignedRecord::sign`] except the signature itself.
    ///
    /// # Errors
    /// As [`SignedRecord::sign`].
    pub fn encode(&self) -> Result<SignedRecord, Error> {
        SignedRecord::sign_with(|_| self.signature, &topic(), self.record.clone())
    }

    /// Makes the signature alone.
    #[must_use]
    pub fn sign(&self) -> [u8; 64] {
        self.key.sign(&self.message).to_bytes()
    }

    /// Runs all of [`SignedRecord::verify`] except the verification of the signature.
    ///
    /// # Errors
    /// As [`SignedRecord::verify`].
    pub fn decode(&self) -> Result<NodeRecord, Error> {
        let envelope = Envelope::open(self.signed.bytes())?;
        decode_payload(envelope.claimed, &self.payload)
    }

    /// Verifies the signature alone.
    ///
    /// # Errors
    /// As [`SignedRecord::verify`].
    pub fn verify(&self) -> Result<&[u8], Error> {
        self.envelope.signed.verify(KIND_NODE, &topic())
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

/// Verifies records together, as a node does with those of one frame.
///
/// # Panics
/// If a record isn't one of the samples' topic.
#[must_use]
pub fn verify<'a>(records: impl IntoIterator<Item = &'a Bytes>) -> Vec<SignedRecord> {
    let opened = records.into_iter().map(Envelope::open).collect::<Result<_, _>>();
    let opened = opened.expect("records of ours");
    let mut weights = ChaCha12Rng::from_seed([1; 32]);
    verify_all(&topic(), opened, &mut weights).expect("records of ours")
}

/// A book, to measure what it costs.
#[derive(Debug)]
pub struct SampleBook(Book);

impl SampleBook {
    /// Makes a book of these records.
    #[must_use]
    pub fn new<'a>(records: impl IntoIterator<Item = &'a SignedRecord>, now: Instant) -> Self {
        let mut book = Self(Book::new(EndpointId::from_bytes([0; 32]), 100_000, now));
        for record in records {
            book.apply(record.clone(), now);
        }
        book
    }

    /// Applies a record that was verified.
    pub fn apply(&mut self, record: SignedRecord, now: Instant) {
        self.0.apply(record, Duration::ZERO, now);
    }

    /// Makes two books equal, as the two ends of a link do. Each end verifies the records that it
    /// receives. Returns how many records were sent, and how many bytes in all.
    ///
    /// # Panics
    /// If an end breaks the protocol.
    pub fn reconcile(&mut self, other: &mut Self, now: Instant) -> (usize, usize) {
        let link = LinkId(1);
        let books = [&mut self.0, &mut other.0];
        let mut sessions = [
            Session::initiate(link, 1, books[0], None, false, now),
            Session::respond(link, 1, now),
        ];
        let (mut side, mut theirs) = (0, Turn::Yours);
        let (mut records, mut bytes) = (0, 0);
        while theirs != Turn::Done {
            let frames = sessions[side].take_turn(books[side], true, theirs, now);
            side = 1 - side;
            for frame in frames {
                records += frame.entries.len();
                theirs = frame.turn;
                let encoded = Frame::Topic(0, TopicFrame::Sync(frame)).encode();
                bytes += encoded.len();
                let decoded = Frame::decode(&encoded).expect("a frame of ours").expect("known");
                let Frame::Topic(_, TopicFrame::Sync(frame)) = decoded else {
                    unreachable!("what was encoded is a sync frame")
                };
                let signed = verify(frame.entries.iter().map(|entry| &entry.record));
                for (entry, signed) in frame.entries.iter().zip(signed) {
                    let id = signed.record().id;
                    let age = Duration::from_millis(entry.age_ms);
                    let applied = books[side].apply(signed, age, now);
                    if applied == Applied::Stale && books[side].get(&id).is_none() {
                        sessions[side].offer(id);
                    }
                }
                assert!(sessions[side].receive(&frame, books[side], now), "a frame out of turn");
            }
        }
        (records, bytes)
    }
}
