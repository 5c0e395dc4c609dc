//! The frames of a link: our own types with integer tags, described in `docs/wire.cddl`.
//!
//! A frame is a CBOR array `[type, topic index, …]`; the hello is `[0, {…}]`. Items after the known
//! ones belong to a later version and are ignored, as are keys of the hello. Every list is bounded
//! here, before anything else looks at it. Tag, encoding and decoding of a payload stand together
//! in its file; the tags are unique over all of them.

mod content;
mod fields;
mod hello;
mod overlay;
mod sync;
mod topic;

use bytes::Bytes;

pub(crate) use self::{
    content::{
        Item, decode_broadcast, decode_content, encode_broadcast, encode_content, is_broadcast,
    },
    fields::sequence,
    hello::Hello,
    overlay::OverlayFrame,
    sync::{Entry, Range, RangeContent, SyncFrame, Turn},
    topic::TopicFrame,
};
use crate::{cbor::Value, error::Error};

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
/// The age of a record that another node tells is clamped to this: no record lives longer without
/// being heard of.
pub(crate) const MAX_AGE_MS: u64 = 30 * 86_400 * 1000;

const PING: u64 = 17;
const ACK: u64 = 18;

/// A frame, decoded: the hello, a sign of life, or something about a topic, which the sender
/// numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Hello(Hello),
    /// Are you there? Answered at once by an [`Frame::Ack`]; any other frame says as much.
    Ping,
    Ack,
    Topic(u64, TopicFrame),
}

impl Frame {
    pub(crate) fn encode(&self) -> Bytes {
        let value = match self {
            Self::Hello(hello) => Value::array([Value::uint(hello::TAG), hello.encode()]),
            Self::Ping => Value::array([Value::uint(PING)]),
            Self::Ack => Value::array([Value::uint(ACK)]),
            Self::Topic(index, frame) => {
                let (tag, fields) = frame.encode();
                let head = [Value::uint(tag), Value::uint(*index)];
                Value::array(head.into_iter().chain(fields))
            }
        };
        value.encode().into()
    }

    /// Decodes a frame; `Ok(None)` for a type of a later version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, Error> {
        const WHAT: &str = "frame";
        if bytes.len() > MAX_FRAME {
            let reason = format!("{} bytes, the limit is {MAX_FRAME}", bytes.len());
            return Err(Error::malformed(WHAT, reason));
        }
        let mut fields = Value::decode(WHAT, bytes)?.into_array(WHAT)?;
        match fields.take()?.into_uint("frame type")? {
            hello::TAG => Hello::decode(fields.take()?).map(|hello| Some(Self::Hello(hello))),
            PING => Ok(Some(Self::Ping)),
            ACK => Ok(Some(Self::Ack)),
            tag => {
                let index = fields.take()?.into_uint("topic index")?;
                if index >= MAX_TOPICS {
                    let reason = format!("the limit is {MAX_TOPICS}");
                    return Err(Error::malformed("topic index", reason));
                }
                let frame = TopicFrame::decode(tag, &mut fields)?;
                Ok(frame.map(|frame| Self::Topic(index, frame)))
            }
        }
    }
}
