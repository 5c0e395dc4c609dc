//! Frames of the overlay's state machines: `HyParView` (membership) and Plumtree (broadcasts).

use bytes::Bytes;

use super::{
    fields::{bounded_bytes, clamp, list, record, round},
    limits::{MAX_CONTENT, MAX_IHAVE, MAX_TTL},
};
use crate::{
    cbor::{Fields, Value},
    error::Error,
};

mod tag {
    pub(super) const JOIN: u64 = 3;
    pub(super) const FORWARD_JOIN: u64 = 4;
    pub(super) const NEIGHBOR: u64 = 5;
    pub(super) const DISCONNECT: u64 = 6;
    pub(super) const GOSSIP: u64 = 7;
    pub(super) const PRUNE: u64 = 8;
    pub(super) const GRAFT: u64 = 9;
    pub(super) const IHAVE: u64 = 10;
}

/// The messages between the overlay's state machines. There are no shuffles, because the passive
/// view is fed from the signed book. Peer data is the signed record.
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

impl OverlayFrame {
    pub(super) fn encode(&self) -> (u64, Vec<Value>) {
        match self {
            Self::Join(record) => (tag::JOIN, vec![Value::bytes(record)]),
            Self::ForwardJoin { ttl, record } => {
                (tag::FORWARD_JOIN, vec![Value::uint(*ttl), Value::bytes(record)])
            }
            Self::Neighbor { high, record } => {
                (tag::NEIGHBOR, vec![Value::bool(*high), Value::bytes(record)])
            }
            Self::Disconnect { alive } => (tag::DISCONNECT, vec![Value::bool(*alive)]),
            Self::Gossip { round, content } => {
                let round = round.map_or_else(Value::null, Value::uint);
                (tag::GOSSIP, vec![round, Value::bytes(content)])
            }
            Self::Prune => (tag::PRUNE, vec![]),
            Self::Graft { id, round } => {
                let id = id.map_or_else(Value::null, |id| Value::bytes(&id));
                (tag::GRAFT, vec![id, Value::uint(*round)])
            }
            Self::IHave(list) => {
                let pair = |(id, round): &([u8; 32], u16)| {
                    Value::array([Value::bytes(id), Value::uint(*round)])
                };
                (tag::IHAVE, vec![Value::array(list.iter().map(pair))])
            }
        }
    }

    /// Decodes the fields after a tag. `None` if the tag is of no overlay frame.
    pub(super) fn decode(tag: u64, fields: &mut Fields) -> Result<Option<Self>, Error> {
        let frame = match tag {
            tag::JOIN => Self::Join(record(fields.take()?)?),
            tag::FORWARD_JOIN => Self::ForwardJoin {
                ttl: fields.take()?.into_uint::<u64>("ttl").map(|ttl| clamp(ttl, MAX_TTL))?,
                record: record(fields.take()?)?,
            },
            tag::NEIGHBOR => Self::Neighbor {
                high: fields.take()?.into_bool("priority")?,
                record: record(fields.take()?)?,
            },
            tag::DISCONNECT => Self::Disconnect { alive: fields.take()?.into_bool("alive")? },
            tag::GOSSIP => Self::Gossip {
                round: fields.take()?.optional().map(round).transpose()?,
                content: bounded_bytes("content", fields.take()?, MAX_CONTENT)?,
            },
            tag::PRUNE => Self::Prune,
            tag::GRAFT => Self::Graft {
                id: fields.take()?.optional().map(|v| v.into_fixed("message id")).transpose()?,
                round: round(fields.take()?)?,
            },
            tag::IHAVE => Self::IHave(list("ihave", fields.take()?, MAX_IHAVE, ihave)?),
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

fn ihave(item: Value) -> Result<([u8; 32], u16), Error> {
    let mut pair = item.into_array("ihave")?;
    Ok((pair.take()?.into_fixed("message id")?, round(pair.take()?)?))
}
