//! The frames of a link: our own types with integer tags, described in `docs/wire.cddl`.
//!
//! A frame is a CBOR array `[type, topic index, …]`; the hello is `[0, {…}]`. Items after the known
//! ones belong to a later version and are ignored, as are keys of the hello. Every list is bounded
//! here, before anything else looks at it.

use bytes::Bytes;

use crate::{
    accusation::MAX_ACCUSATION,
    broadcast::MAX_SIGNED,
    cbor::Value,
    error::Error,
    id::{EndpointId, TopicId},
    record::{MAX_RECORD, MAX_SEQUENCE},
};

/// Longest frame, in bytes without its length prefix. Links close with
/// [`CloseCode::Protocol`](crate::CloseCode::Protocol) on a longer one.
pub const MAX_FRAME: usize = 64 * 1024;
/// The protocol versions that this build speaks, lowest and highest.
pub const VERSIONS: std::ops::RangeInclusive<u64> = 1..=1;

/// Largest content of one broadcast, in bytes.
pub(crate) const MAX_CONTENT: usize = 16 * 1024;
/// What one frame of a sync carries at most, in bytes, so that a frame is handled in milliseconds.
pub(crate) const MAX_SYNC_BYTES: usize = 16 * 1024;
/// Most announcements (`IHave`) in one frame.
pub(crate) const MAX_IHAVE: usize = 256;
/// Most records in a push, in a busy answer or in one broadcast.
pub(crate) const MAX_RECORDS: usize = 256;
/// Most ranges, and most ids listed in all ranges, in one frame of a sync.
pub(crate) const MAX_RANGES: usize = 256;
pub(crate) const MAX_LISTED: usize = 2048;
/// Most hops of a random walk (`HyParView`'s ARWL) and most hops of a broadcast.
pub(crate) const MAX_TTL: u16 = 6;
pub(crate) const MAX_ROUND: u16 = 64;
/// Most topics that one lane of a link speaks of.
pub(crate) const MAX_TOPICS: u64 = 64;
/// A relayed age is clamped to this: no record lives longer unheard of.
pub(crate) const MAX_AGE_MS: u64 = 30 * 86_400 * 1000;

/// The first frame of a link, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) min_version: u64,
    pub(crate) max_version: u64,
    pub(crate) boot_id: u64,
    /// A set of bits; none is defined in version 1.
    pub(crate) features: u64,
}

impl Hello {
    /// The highest version that both ends speak.
    pub(crate) fn common_version(&self) -> Option<u64> {
        let highest = self.max_version.min(*VERSIONS.end());
        (highest >= self.min_version.max(*VERSIONS.start())).then_some(highest)
    }
}

/// A frame, decoded: the hello, or something about a topic, which the sender numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Hello(Hello),
    /// Are you there? Answered at once by an [`Frame::Ack`]; any other frame says as much.
    Ping,
    Ack,
    Topic(u64, TopicFrame),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicFrame {
    /// From now on this lane's index stands for this topic.
    Open(TopicId),
    /// The topic that *the receiver* calls by this index is not served here.
    Closed,
    Overlay(OverlayFrame),
    /// Records that the receiver, who is not in the overlay yet, would miss.
    Push(Vec<Bytes>),
    /// The sender is in the overlay: no more pushes.
    Attached,
    /// The sender leaves: its last record.
    Leave(Bytes),
    /// The leave with this sequence number arrived.
    LeaveAck(u64),
    Sync(SyncFrame),
    /// Too many newcomers at once: try one of these.
    Busy(Vec<Bytes>),
    /// Probe this member for me.
    ProbeRequest(EndpointId),
    /// It was heard.
    ProbeAck(EndpointId),
    /// Accusations that concern the receiver.
    Accuse(Vec<Bytes>),
    /// A keepalive: what the sender's book comes to, and did for a while.
    Digest([u8; 8]),
}

/// What the overlay's state machines (`HyParView`, Plumtree) say to each other. No shuffles: the
/// passive view is fed from the signed book (design D2). Peer data is the signed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OverlayFrame {
    Join(Bytes),
    ForwardJoin {
        ttl: u16,
        record: Bytes,
    },
    Neighbor {
        high: bool,
        record: Bytes,
    },
    Disconnect {
        alive: bool,
    },
    /// `round` is `None` for a broadcast to neighbors only. The message id is the content's hash.
    Gossip {
        round: Option<u16>,
        content: Bytes,
    },
    Prune,
    Graft {
        id: Option<[u8; 32]>,
        round: u16,
    },
    IHave(Vec<([u8; 32], u16)>),
}

/// One frame of a reconciliation (design D3): what the sender has in some ranges of ids, records
/// that the receiver lacks, and ids whose records the sender wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncFrame {
    /// Chosen by the initiator, rising on each link.
    pub(crate) session: u64,
    pub(crate) from_initiator: bool,
    /// Whether the sender has a neighbor in the overlay. One that has none is a newcomer.
    pub(crate) attached: bool,
    pub(crate) turn: Turn,
    pub(crate) ranges: Vec<Range>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) wants: Vec<EndpointId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// More frames of this turn follow at once.
    More,
    /// The receiver's turn; the sender has more to say after it.
    Paused,
    /// The receiver's turn; the sender has said all it has.
    Yours,
    /// Neither end has anything left to say: the session is over.
    Done,
}

/// A range of ids: from the end of the one before it, exclusive of `end` (`None`: no end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) end: Option<EndpointId>,
    pub(crate) what: RangeContent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RangeContent {
    /// In agreement, or spoken of elsewhere.
    Skip,
    Fingerprint {
        hash: [u8; 16],
        count: u64,
    },
    /// All that the sender has there: id and sequence.
    List(Vec<(EndpointId, u64)>),
}

/// A record and the time since its holder last heard it from its owner; with the accusation, where
/// the holder suspects the owner or holds it to be dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) record: Bytes,
    pub(crate) age_ms: u64,
    pub(crate) accusation: Option<Bytes>,
}

/// One item of a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Record(Bytes),
    Accusation(Bytes),
}

impl Item {
    pub(crate) fn bytes(&self) -> &Bytes {
        let (Self::Record(bytes) | Self::Accusation(bytes)) = self;
        bytes
    }
}

/// Whether the content of a [`OverlayFrame::Gossip`] is a broadcast of an application: one item, of
/// kind 2. Deterministic CBOR has one form for that; the item may grow in later versions.
pub(crate) fn is_broadcast(content: &[u8]) -> bool {
    matches!(content, [0x81, 0x82..=0x97, 0x02, ..])
}

mod tag {
    pub(super) const HELLO: u64 = 0;
    pub(super) const OPEN: u64 = 1;
    pub(super) const CLOSED: u64 = 2;
    pub(super) const JOIN: u64 = 3;
    pub(super) const FORWARD_JOIN: u64 = 4;
    pub(super) const NEIGHBOR: u64 = 5;
    pub(super) const DISCONNECT: u64 = 6;
    pub(super) const GOSSIP: u64 = 7;
    pub(super) const PRUNE: u64 = 8;
    pub(super) const GRAFT: u64 = 9;
    pub(super) const IHAVE: u64 = 10;
    pub(super) const PUSH: u64 = 11;
    pub(super) const ATTACHED: u64 = 12;
    pub(super) const LEAVE: u64 = 13;
    pub(super) const LEAVE_ACK: u64 = 14;
    pub(super) const SYNC: u64 = 15;
    pub(super) const BUSY: u64 = 16;
    pub(super) const PING: u64 = 17;
    pub(super) const ACK: u64 = 18;
    pub(super) const PROBE_REQUEST: u64 = 19;
    pub(super) const PROBE_ACK: u64 = 20;
    pub(super) const ACCUSE: u64 = 21;
    pub(super) const DIGEST: u64 = 22;
}

impl Frame {
    pub(crate) fn encode(&self) -> Bytes {
        let value = match self {
            Self::Hello(hello) => Value::array([Value::uint(tag::HELLO), encode_hello(hello)]),
            Self::Ping => Value::array([Value::uint(tag::PING)]),
            Self::Ack => Value::array([Value::uint(tag::ACK)]),
            Self::Topic(index, frame) => {
                let (tag, fields) = encode_topic_frame(frame);
                let head = [Value::uint(tag), Value::uint(*index)];
                Value::array(head.into_iter().chain(fields))
            }
        };
        value.encode().into()
    }

    /// `Ok(None)` for a type of a later version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, Error> {
        const WHAT: &str = "frame";
        if bytes.len() > MAX_FRAME {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, the limit is {MAX_FRAME}", bytes.len()),
            ));
        }
        let mut fields = Value::decode(WHAT, bytes)?.into_array(WHAT)?;
        let tag = fields.take()?.into_uint("frame type")?;
        if tag == tag::HELLO {
            return decode_hello(fields.take()?).map(|hello| Some(Self::Hello(hello)));
        }
        if let tag::PING | tag::ACK = tag {
            return Ok(Some(if tag == tag::PING { Self::Ping } else { Self::Ack }));
        }
        let index = fields.take()?.into_uint("topic index")?;
        if index >= MAX_TOPICS {
            return Err(Error::malformed("topic index", format!("the limit is {MAX_TOPICS}")));
        }
        let frame = match tag {
            tag::OPEN => {
                TopicFrame::Open(TopicId::from_bytes(fields.take()?.into_fixed("topic id")?))
            }
            tag::CLOSED => TopicFrame::Closed,
            tag::JOIN => TopicFrame::Overlay(OverlayFrame::Join(record(fields.take()?)?)),
            tag::FORWARD_JOIN => TopicFrame::Overlay(OverlayFrame::ForwardJoin {
                ttl: fields.take()?.into_uint::<u64>("ttl").map(|ttl| clamp(ttl, MAX_TTL))?,
                record: record(fields.take()?)?,
            }),
            tag::NEIGHBOR => TopicFrame::Overlay(OverlayFrame::Neighbor {
                high: fields.take()?.into_bool("priority")?,
                record: record(fields.take()?)?,
            }),
            tag::DISCONNECT => TopicFrame::Overlay(OverlayFrame::Disconnect {
                alive: fields.take()?.into_bool("alive")?,
            }),
            tag::GOSSIP => TopicFrame::Overlay(OverlayFrame::Gossip {
                round: fields.take()?.optional().map(round).transpose()?,
                content: bounded_bytes("content", fields.take()?, MAX_CONTENT)?,
            }),
            tag::PRUNE => TopicFrame::Overlay(OverlayFrame::Prune),
            tag::GRAFT => TopicFrame::Overlay(OverlayFrame::Graft {
                id: fields.take()?.optional().map(|v| v.into_fixed("message id")).transpose()?,
                round: round(fields.take()?)?,
            }),
            tag::IHAVE => TopicFrame::Overlay(OverlayFrame::IHave(list(
                "ihave",
                fields.take()?,
                MAX_IHAVE,
                |item| {
                    let mut pair = item.into_array("ihave")?;
                    Ok((pair.take()?.into_fixed("message id")?, round(pair.take()?)?))
                },
            )?)),
            tag::PUSH => TopicFrame::Push(list("push", fields.take()?, MAX_RECORDS, record)?),
            tag::ATTACHED => TopicFrame::Attached,
            tag::LEAVE => TopicFrame::Leave(record(fields.take()?)?),
            tag::LEAVE_ACK => TopicFrame::LeaveAck(sequence(fields.take()?)?),
            tag::SYNC => TopicFrame::Sync(decode_sync(fields)?),
            tag::BUSY => TopicFrame::Busy(list("busy", fields.take()?, MAX_RECORDS, record)?),
            tag::PROBE_REQUEST => TopicFrame::ProbeRequest(endpoint_id(fields.take()?)?),
            tag::PROBE_ACK => TopicFrame::ProbeAck(endpoint_id(fields.take()?)?),
            tag::ACCUSE => {
                TopicFrame::Accuse(list("accuse", fields.take()?, MAX_RECORDS, accusation)?)
            }
            tag::DIGEST => TopicFrame::Digest(fields.take()?.into_fixed("digest")?),
            _ => return Ok(None),
        };
        Ok(Some(Self::Topic(index, frame)))
    }
}

/// The kind of an item that is a broadcast.
const BROADCAST: u64 = 2;

/// Encodes the content of a broadcast: a list of `[kind, bytes]`.
pub(crate) fn encode_content<'a>(items: impl IntoIterator<Item = &'a Item>) -> Bytes {
    let item = |item: &Item| {
        let (kind, bytes) = match item {
            Item::Record(bytes) => (0_u64, bytes),
            Item::Accusation(bytes) => (1, bytes),
        };
        Value::array([Value::uint(kind), Value::bytes(bytes)])
    };
    Value::array(items.into_iter().map(item)).encode().into()
}

/// Decodes the content of a broadcast. A kind that can't be judged can't be forwarded: an error.
pub(crate) fn decode_content(content: &[u8]) -> Result<Vec<Item>, Error> {
    list("content", Value::decode("content", content)?, MAX_RECORDS, |item| {
        let mut pair = item.into_array("content")?;
        match pair.take()?.into_uint::<u64>("content kind")? {
            0 => record(pair.take()?).map(Item::Record),
            1 => accusation(pair.take()?).map(Item::Accusation),
            kind => Err(Error::malformed("content", format!("kind {kind} is not known"))),
        }
    })
}

/// Encodes the content that carries a broadcast: alone, so that it takes a lane of its own.
pub(crate) fn encode_broadcast(signed: &[u8]) -> Bytes {
    let item = Value::array([Value::uint(BROADCAST), Value::bytes(signed)]);
    Value::array([item]).encode().into()
}

/// The signed broadcast in a content that [`is_broadcast`].
pub(crate) fn decode_broadcast(content: &[u8]) -> Result<Bytes, Error> {
    const WHAT: &str = "content";
    let mut items = Value::decode(WHAT, content)?.into_array(WHAT)?;
    let mut item = items.take()?.into_array(WHAT)?;
    item.take()?;
    bounded_bytes("broadcast", item.take()?, MAX_SIGNED)
}

fn encode_hello(hello: &Hello) -> Value {
    Value::map(
        [hello.min_version, hello.max_version, hello.boot_id, hello.features]
            .into_iter()
            .zip(0_u64..)
            .map(|(value, key)| (Value::uint(key), Value::uint(value))),
    )
}

fn decode_hello(value: Value) -> Result<Hello, Error> {
    let mut known = [None; 4];
    for (key, value) in value.into_map("hello")? {
        let slot = key.as_int().and_then(|key| usize::try_from(key).ok());
        if let Some(slot) = slot.and_then(|slot| known.get_mut(slot)) {
            *slot = Some(value.into_uint::<u64>("hello")?);
        }
    }
    let required = |slot: Option<u64>, name| {
        slot.ok_or_else(|| Error::malformed("hello", format!("no {name}")))
    };
    Ok(Hello {
        min_version: required(known[0], "lowest version")?,
        max_version: required(known[1], "highest version")?,
        boot_id: required(known[2], "boot id")?,
        features: known[3].unwrap_or(0),
    })
}

fn encode_topic_frame(frame: &TopicFrame) -> (u64, Vec<Value>) {
    let bytes_list = |list: &[Bytes]| Value::array(list.iter().map(|bytes| Value::bytes(bytes)));
    match frame {
        TopicFrame::Open(topic) => (tag::OPEN, vec![Value::bytes(topic.as_bytes())]),
        TopicFrame::Closed => (tag::CLOSED, vec![]),
        TopicFrame::Overlay(frame) => encode_overlay(frame),
        TopicFrame::Push(records) => (tag::PUSH, vec![bytes_list(records)]),
        TopicFrame::Attached => (tag::ATTACHED, vec![]),
        TopicFrame::Leave(record) => (tag::LEAVE, vec![Value::bytes(record)]),
        TopicFrame::LeaveAck(sequence) => (tag::LEAVE_ACK, vec![Value::uint(*sequence)]),
        TopicFrame::Sync(frame) => (tag::SYNC, encode_sync(frame)),
        TopicFrame::Busy(records) => (tag::BUSY, vec![bytes_list(records)]),
        TopicFrame::ProbeRequest(id) => (tag::PROBE_REQUEST, vec![Value::bytes(id.as_bytes())]),
        TopicFrame::ProbeAck(id) => (tag::PROBE_ACK, vec![Value::bytes(id.as_bytes())]),
        TopicFrame::Accuse(list) => (tag::ACCUSE, vec![bytes_list(list)]),
        TopicFrame::Digest(digest) => (tag::DIGEST, vec![Value::bytes(digest)]),
    }
}

fn encode_overlay(frame: &OverlayFrame) -> (u64, Vec<Value>) {
    match frame {
        OverlayFrame::Join(record) => (tag::JOIN, vec![Value::bytes(record)]),
        OverlayFrame::ForwardJoin { ttl, record } => {
            (tag::FORWARD_JOIN, vec![Value::uint(*ttl), Value::bytes(record)])
        }
        OverlayFrame::Neighbor { high, record } => {
            (tag::NEIGHBOR, vec![Value::bool(*high), Value::bytes(record)])
        }
        OverlayFrame::Disconnect { alive } => (tag::DISCONNECT, vec![Value::bool(*alive)]),
        OverlayFrame::Gossip { round, content } => {
            (tag::GOSSIP, vec![round.map_or_else(Value::null, Value::uint), Value::bytes(content)])
        }
        OverlayFrame::Prune => (tag::PRUNE, vec![]),
        OverlayFrame::Graft { id, round } => {
            let id = id.map_or_else(Value::null, |id| Value::bytes(&id));
            (tag::GRAFT, vec![id, Value::uint(*round)])
        }
        OverlayFrame::IHave(list) => {
            let pair = |(id, round): &([u8; 32], u16)| {
                Value::array([Value::bytes(id), Value::uint(*round)])
            };
            (tag::IHAVE, vec![Value::array(list.iter().map(pair))])
        }
    }
}

fn encode_sync(frame: &SyncFrame) -> Vec<Value> {
    let end =
        |end: Option<EndpointId>| end.map_or_else(Value::null, |id| Value::bytes(id.as_bytes()));
    let range = |range: &Range| match &range.what {
        RangeContent::Skip => Value::array([end(range.end)]),
        RangeContent::Fingerprint { hash, count } => {
            Value::array([end(range.end), Value::bytes(hash), Value::uint(*count)])
        }
        RangeContent::List(list) => {
            let listed = list
                .iter()
                .map(|(id, sequence)| (Value::bytes(id.as_bytes()), Value::uint(*sequence)));
            Value::array([end(range.end), Value::map(listed)])
        }
    };
    let entry = |entry: &Entry| {
        let accusation = entry.accusation.as_ref().map(|bytes| Value::bytes(bytes));
        let known = [Value::bytes(&entry.record), Value::uint(entry.age_ms)];
        Value::array(known.into_iter().chain(accusation))
    };
    vec![
        Value::uint(frame.session),
        Value::bool(frame.from_initiator),
        Value::bool(frame.attached),
        Value::uint(match frame.turn {
            Turn::More => 0_u64,
            Turn::Paused => 1,
            Turn::Yours => 2,
            Turn::Done => 3,
        }),
        Value::array(frame.ranges.iter().map(range)),
        Value::array(frame.entries.iter().map(entry)),
        Value::array(frame.wants.iter().map(|id| Value::bytes(id.as_bytes()))),
    ]
}

fn decode_sync(mut fields: crate::cbor::Fields) -> Result<SyncFrame, Error> {
    const WHAT: &str = "sync";
    let session = fields.take()?.into_uint(WHAT)?;
    let from_initiator = fields.take()?.into_bool(WHAT)?;
    let attached = fields.take()?.into_bool(WHAT)?;
    let turn = match fields.take()?.into_uint::<u64>(WHAT)? {
        0 => Turn::More,
        1 => Turn::Paused,
        2 => Turn::Yours,
        3 => Turn::Done,
        turn => return Err(Error::malformed(WHAT, format!("turn {turn} is not known"))),
    };
    let mut listed = 0;
    let mut last = None;
    let ranges = list("sync ranges", fields.take()?, MAX_RANGES, |item| {
        let range = decode_range(item)?;
        // Ends rise, and only the last range may have none: the ranges cover the ids once.
        if matches!(last, Some(None)) || (range.end.is_some() && last.flatten() >= range.end) {
            return Err(Error::malformed("sync range", "ends do not rise"));
        }
        last = Some(range.end);
        if let RangeContent::List(list) = &range.what {
            listed += list.len();
        }
        if listed > MAX_LISTED {
            return Err(Error::malformed("sync range", format!("over {MAX_LISTED} ids listed")));
        }
        Ok(range)
    })?;
    let entries = list("sync entries", fields.take()?, MAX_RECORDS, |item| {
        let mut pair = item.into_array("sync entry")?;
        let record = record(pair.take()?)?;
        let age_ms = pair.take()?.into_uint::<u64>("age")?.min(MAX_AGE_MS);
        let accusation = pair.take().ok().map(accusation).transpose()?;
        Ok(Entry { record, age_ms, accusation })
    })?;
    let wants = list("sync wants", fields.take()?, MAX_LISTED, endpoint_id)?;
    Ok(SyncFrame { session, from_initiator, attached, turn, ranges, entries, wants })
}

fn decode_range(item: Value) -> Result<Range, Error> {
    const WHAT: &str = "sync range";
    let mut fields = item.into_array(WHAT)?;
    let end = fields.take()?.optional();
    let end = end.map(|id| id.into_fixed(WHAT).map(EndpointId::from_bytes)).transpose()?;
    let Ok(content) = fields.take() else {
        return Ok(Range { end, what: RangeContent::Skip });
    };
    if content.is_bytes() {
        let hash = content.into_fixed(WHAT)?;
        let count = fields.take()?.into_uint(WHAT)?;
        return Ok(Range { end, what: RangeContent::Fingerprint { hash, count } });
    }
    // Canonical form sorts the ids and has each once.
    let listed = content.into_map(WHAT)?.into_iter().map(|(id, listed)| {
        Ok((EndpointId::from_bytes(id.into_fixed("endpoint id")?), sequence(listed)?))
    });
    let listed = listed.collect::<Result<_, Error>>()?;
    Ok(Range { end, what: RangeContent::List(listed) })
}

fn list<T>(
    what: &'static str,
    value: Value,
    limit: usize,
    item: impl FnMut(Value) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    value.into_array(what)?.list(limit)?.map(item).collect()
}

fn endpoint_id(value: Value) -> Result<EndpointId, Error> {
    value.into_fixed("endpoint id").map(EndpointId::from_bytes)
}

fn accusation(value: Value) -> Result<Bytes, Error> {
    bounded_bytes("accusation", value, MAX_ACCUSATION)
}

fn record(value: Value) -> Result<Bytes, Error> {
    bounded_bytes("record", value, MAX_RECORD)
}

fn bounded_bytes(what: &'static str, value: Value, limit: usize) -> Result<Bytes, Error> {
    let bytes = value.into_bytes(what)?;
    if bytes.len() > limit {
        return Err(Error::malformed(what, format!("{} bytes, the limit is {limit}", bytes.len())));
    }
    Ok(bytes.into())
}

pub(crate) fn sequence(value: Value) -> Result<u64, Error> {
    let sequence = value.into_uint("sequence")?;
    if sequence >= MAX_SEQUENCE {
        return Err(Error::malformed("sequence", "not below 2^62"));
    }
    Ok(sequence)
}

fn round(value: Value) -> Result<u16, Error> {
    value.into_uint::<u64>("round").map(|round| clamp(round, MAX_ROUND))
}

fn clamp(n: u64, limit: u16) -> u16 {
    u16::try_from(n).unwrap_or(limit).min(limit)
}
