//! Frames about one topic.

use bytes::Bytes;

use super::{
    fields::{accusation, bytes_list, endpoint_id, list, record, revocation, sequence},
    limits::MAX_RECORDS,
    overlay::OverlayFrame,
    sync::{self, SyncFrame},
};
use crate::{
    cbor::{Fields, Value},
    error::Error,
    id::{EndpointId, TopicId},
};

mod tag {
    pub(super) const OPEN: u64 = 1;
    pub(super) const CLOSED: u64 = 2;
    pub(super) const PUSH: u64 = 11;
    pub(super) const ATTACHED: u64 = 12;
    pub(super) const LEAVE: u64 = 13;
    pub(super) const LEAVE_ACK: u64 = 14;
    pub(super) const BUSY: u64 = 16;
    pub(super) const PROBE_REQUEST: u64 = 19;
    pub(super) const PROBE_ACK: u64 = 20;
    pub(super) const ACCUSE: u64 = 21;
    pub(super) const DIGEST: u64 = 22;
    pub(super) const REVOKED: u64 = 23;
}

/// A frame about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicFrame {
    /// From now on, this lane's index means this topic.
    Open(TopicId),
    /// The topic to which *the receiver* gave this index is not served here.
    Closed,
    Overlay(OverlayFrame),
    /// Records that the receiver, which is not in the overlay yet, would miss.
    Push(Vec<Bytes>),
    /// The sender is in the overlay: no more pushes.
    Attached,
    /// The sender leaves. This is its signed leave.
    Leave(Bytes),
    /// The leave with this sequence number arrived.
    LeaveAck(u64),
    Sync(SyncFrame),
    /// The sender is busy with syncs. The receiver may ask these members instead.
    Busy(Vec<Bytes>),
    /// The receiver is asked to probe this member for the sender.
    ProbeRequest(EndpointId),
    /// The member that the receiver asked to probe was heard.
    ProbeAck(EndpointId),
    /// Accusations that concern the receiver.
    Accuse(Vec<Bytes>),
    /// A keepalive with the digest of the sender's book, which did not change recently.
    Digest([u8; 8]),
    /// The fingerprint of all revocations that the sender holds, and some of them. Without any, the
    /// sender is sent all that the receiver holds, if those are others.
    Revoked {
        all: [u8; 16],
        revocations: Vec<Bytes>,
    },
}

impl TopicFrame {
    pub(super) fn encode(&self) -> (u64, Vec<Value>) {
        match self {
            Self::Open(topic) => (tag::OPEN, vec![Value::bytes(topic.as_bytes())]),
            Self::Closed => (tag::CLOSED, vec![]),
            Self::Overlay(frame) => frame.encode(),
            Self::Push(records) => (tag::PUSH, vec![bytes_list(records)]),
            Self::Attached => (tag::ATTACHED, vec![]),
            Self::Leave(record) => (tag::LEAVE, vec![Value::bytes(record)]),
            Self::LeaveAck(sequence) => (tag::LEAVE_ACK, vec![Value::uint(*sequence)]),
            Self::Sync(frame) => (sync::TAG, frame.encode()),
            Self::Busy(records) => (tag::BUSY, vec![bytes_list(records)]),
            Self::ProbeRequest(id) => (tag::PROBE_REQUEST, vec![Value::bytes(id.as_bytes())]),
            Self::ProbeAck(id) => (tag::PROBE_ACK, vec![Value::bytes(id.as_bytes())]),
            Self::Accuse(list) => (tag::ACCUSE, vec![bytes_list(list)]),
            Self::Digest(digest) => (tag::DIGEST, vec![Value::bytes(digest)]),
            Self::Revoked { all, revocations } => {
                (tag::REVOKED, vec![Value::bytes(all), bytes_list(revocations)])
            }
        }
    }

    /// Decodes the fields after a tag. `None` if the tag belongs to a later version.
    pub(super) fn decode(tag: u64, fields: &mut Fields) -> Result<Option<Self>, Error> {
        let frame = match tag {
            tag::OPEN => Self::Open(TopicId::from_bytes(fields.take()?.into_fixed("topic id")?)),
            tag::CLOSED => Self::Closed,
            tag::PUSH => Self::Push(list("push", fields.take()?, MAX_RECORDS, record)?),
            tag::ATTACHED => Self::Attached,
            tag::LEAVE => Self::Leave(record(fields.take()?)?),
            tag::LEAVE_ACK => Self::LeaveAck(sequence(fields.take()?)?),
            sync::TAG => Self::Sync(SyncFrame::decode(fields)?),
            tag::BUSY => Self::Busy(list("busy", fields.take()?, MAX_RECORDS, record)?),
            tag::PROBE_REQUEST => Self::ProbeRequest(endpoint_id(fields.take()?)?),
            tag::PROBE_ACK => Self::ProbeAck(endpoint_id(fields.take()?)?),
            tag::ACCUSE => Self::Accuse(list("accuse", fields.take()?, MAX_RECORDS, accusation)?),
            tag::DIGEST => Self::Digest(fields.take()?.into_fixed("digest")?),
            tag::REVOKED => Self::Revoked {
                all: fields.take()?.into_fixed("revoked")?,
                revocations: list("revoked", fields.take()?, MAX_RECORDS, revocation)?,
            },
            tag => return Ok(OverlayFrame::decode(tag, fields)?.map(Self::Overlay)),
        };
        Ok(Some(frame))
    }
}
