//! The frames of a link: our own types with integer tags, described in `docs/wire.cddl`.
//!
//! A frame is a CBOR array `[type, topic index, …]`; the hello is `[0, {…}]`. Items after the known
//! ones belong to a later version and are ignored, as are keys of the hello. Every list is bounded
//! here, before anything else looks at it. Tag, encoding and decoding of a payload stand together
//! in its file; the tags are unique over all of them.

mod content;
mod fields;
mod hello;
pub(crate) mod limits;
mod overlay;
mod sync;
mod topic;

use bytes::Bytes;

pub use self::limits::{MAX_FRAME, VERSIONS};
pub(crate) use self::{
    content::{
        Item, decode_broadcast, decode_content, encode_broadcast, encode_content, is_broadcast,
    },
    fields::sequence,
    hello::Hello,
    limits::{
        MAX_ACCUSATION, MAX_AGE_MS, MAX_CONTENT, MAX_IHAVE, MAX_LISTED, MAX_RANGES, MAX_RECORDS,
        MAX_SYNC_BYTES, MAX_TOPICS, MAX_TTL,
    },
    overlay::OverlayFrame,
    sync::{Entry, Range, RangeContent, SyncFrame, Turn},
    topic::TopicFrame,
};
use crate::{cbor::Value, error::Error};

const PING: u64 = 17;
const ACK: u64 = 18;

/// A decoded frame: the hello, a sign of life, or a frame about a topic, which the sender numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Hello(Hello),
    /// A probe: the receiver answers at once with [`Frame::Ack`]. Any other frame proves the same.
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
