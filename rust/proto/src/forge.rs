//! Frames of nodes that do not keep to the protocol, for tests of other crates. A hostile node can
//! write all of them by itself. They are about the first topic of a link.

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use crate::{
    accusation::Accusation,
    broadcast::Broadcast,
    id::{EndpointId, TopicId},
    wire::{
        Entry, Frame, Hello, Item, OverlayFrame, Range, RangeContent, SyncFrame, TopicFrame, Turn,
        decode_broadcast, encode_content, is_broadcast,
    },
};

/// What a frame means to a node that chooses what it forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A broadcast of this author, under this id.
    Broadcast(EndpointId, [u8; 32]),
    /// Records of members.
    Records,
    /// The ids of broadcasts that the sender has.
    Announcement(Vec<[u8; 32]>),
    /// A request to be a neighbor, or the answer to one.
    Neighbor,
    /// The end of being neighbors.
    Disconnect,
    /// Another frame of the overlay.
    Overlay,
    /// A frame that is not of the overlay.
    Other,
}

/// Returns what a frame means. A forged frame may say anything: nothing is verified.
#[must_use]
pub fn meaning(frame: &[u8]) -> Meaning {
    let Ok(Some(Frame::Topic(_, TopicFrame::Overlay(frame)))) = Frame::decode(frame) else {
        return Meaning::Other;
    };
    match frame {
        OverlayFrame::Gossip { content, .. } if is_broadcast(&content) => {
            let signed = decode_broadcast(&content).and_then(|signed| Broadcast::open(&signed));
            let id = *blake3::hash(&content).as_bytes();
            signed.map_or(Meaning::Overlay, |signed| Meaning::Broadcast(signed.claimed, id))
        }
        OverlayFrame::Gossip { .. } => Meaning::Records,
        OverlayFrame::IHave(list) => {
            Meaning::Announcement(list.into_iter().map(|(id, _)| id).collect())
        }
        OverlayFrame::Neighbor { .. } => Meaning::Neighbor,
        OverlayFrame::Disconnect { .. } => Meaning::Disconnect,
        _ => Meaning::Overlay,
    }
}

/// Returns an announcement of broadcasts.
#[must_use]
pub fn announce(ids: &[[u8; 32]]) -> Bytes {
    overlay(OverlayFrame::IHave(ids.iter().map(|id| (*id, 1)).collect()))
}

fn topic_frame(frame: TopicFrame) -> Bytes {
    Frame::Topic(0, frame).encode()
}

fn overlay(frame: OverlayFrame) -> Bytes {
    topic_frame(TopicFrame::Overlay(frame))
}

/// Returns the first frame of a link.
#[must_use]
pub fn hello(boot_id: u64) -> Bytes {
    Frame::Hello(Hello { min_version: 1, max_version: 1, boot_id, features: 0 }).encode()
}

/// Returns the frame that opens a topic on a lane.
#[must_use]
pub fn open(topic: TopicId) -> Bytes {
    topic_frame(TopicFrame::Open(topic))
}

/// Returns the answer to a ping. `None` for any other frame.
#[must_use]
pub fn answer(frame: &[u8]) -> Option<Bytes> {
    (frame == Frame::Ping.encode()).then(|| Frame::Ack.encode())
}

/// Returns a frame with revocations.
#[must_use]
pub fn revoked(revocations: &[Bytes]) -> Bytes {
    topic_frame(TopicFrame::Revoked { all: [0; 16], revocations: revocations.to_vec() })
}

/// Returns a push of records.
#[must_use]
pub fn push(records: &[Bytes]) -> Bytes {
    topic_frame(TopicFrame::Push(records.to_vec()))
}

/// Returns a request to be a neighbor.
#[must_use]
pub fn neighbor(record: &Bytes, high: bool) -> Bytes {
    overlay(OverlayFrame::Neighbor { high, record: record.clone() })
}

/// Returns a request to enter the overlay.
#[must_use]
pub fn join(record: &Bytes) -> Bytes {
    overlay(OverlayFrame::Join(record.clone()))
}

/// Returns the frame of a newcomer that walks through the overlay.
#[must_use]
pub fn forward_join(record: &Bytes, ttl: u16) -> Bytes {
    overlay(OverlayFrame::ForwardJoin { ttl, record: record.clone() })
}

/// Returns the frame by which neighbors part.
#[must_use]
pub fn disconnect() -> Bytes {
    overlay(OverlayFrame::Disconnect { alive: true })
}

/// Returns a broadcast of records.
#[must_use]
pub fn gossip(records: &[Bytes]) -> Bytes {
    let items: Vec<_> = records.iter().cloned().map(Item::Record).collect();
    overlay(OverlayFrame::Gossip { round: Some(0), content: encode_content(&items) })
}

/// Returns a broadcast of a record, and of an accusation by the owner of a key that this owner did
/// not sign.
#[must_use]
pub fn gossip_with_forged(
    record: &Bytes,
    accuser: &SigningKey,
    about: EndpointId,
    topic: &TopicId,
) -> Bytes {
    let signed = Accusation::sign(accuser, topic, about, 1).bytes;
    let (last, rest) = signed.split_last().expect("a signature is at its end");
    let forged = Bytes::from([rest, &[last ^ 1]].concat());
    let items = [Item::Record(record.clone()), Item::Accusation(forged)];
    overlay(OverlayFrame::Gossip { round: Some(0), content: encode_content(&items) })
}

/// Returns a request for a broadcast.
#[must_use]
pub fn graft(id: [u8; 32]) -> Bytes {
    overlay(OverlayFrame::Graft { id: Some(id), round: 0 })
}

/// Returns a request to probe a member.
#[must_use]
pub fn probe_request(about: EndpointId) -> Bytes {
    topic_frame(TopicFrame::ProbeRequest(about))
}

/// Returns the digest of a book that equals no other.
#[must_use]
pub fn digest(of: u64) -> Bytes {
    topic_frame(TopicFrame::Digest(of.to_be_bytes()))
}

/// Returns the frames that answer a frame of a sync which another node began: all of these records,
/// asked for or not. Empty for any other frame.
#[must_use]
pub fn sync_answers(frame: &[u8], records: &[Bytes]) -> Vec<Bytes> {
    let Ok(Some(Frame::Topic(_, TopicFrame::Sync(asked)))) = Frame::decode(frame) else {
        return Vec::new();
    };
    if !asked.from_initiator {
        return Vec::new();
    }
    let entry = |record: &Bytes| Entry { record: record.clone(), age_ms: 0, accusation: None };
    let parts: Vec<_> = records.chunks(40).collect();
    let answer = |(number, records): (usize, &&[Bytes])| {
        topic_frame(TopicFrame::Sync(SyncFrame {
            session: asked.session,
            from_initiator: false,
            attached: true,
            turn: if number + 1 == parts.len() { Turn::Done } else { Turn::More },
            ranges: Vec::new(),
            entries: records.iter().map(entry).collect(),
            wants: Vec::new(),
            observer: false,
        }))
    };
    parts.iter().enumerate().map(answer).collect()
}

/// Returns the frame that begins a sync with a book of `count` records that equals no other.
#[must_use]
pub fn sync(session: u64, count: u64, wants: &[EndpointId]) -> Bytes {
    let what = RangeContent::Fingerprint { hash: [0x5a; 16], count };
    topic_frame(TopicFrame::Sync(SyncFrame {
        session,
        from_initiator: true,
        attached: true,
        turn: Turn::Yours,
        ranges: vec![Range { end: None, what }],
        entries: Vec::new(),
        wants: wants.to_vec(),
        observer: false,
    }))
}
