//! The actor's mailbox for its own tasks: the reports of links, dials, mDNS and writes to disk.

use std::net::SocketAddr;

use bytes::Bytes;
use iroh::TransportAddr;
use tokio::sync::oneshot;

use crate::{
    door::admitted::Admitted,
    proto::{EndpointId, Kept, Lane, LinkEnd, LinkId, TopicId},
    questions::Answer,
};

/// A report of one of the actor's tasks.
#[derive(Debug)]
pub(crate) enum Input {
    /// A frame arrived on a link.
    Frame(LinkId, Lane, Bytes),
    /// The peer's QUIC acknowledged a packet that was sent after a keepalive.
    Acknowledged(LinkId),
    /// A link has ended. This is the last input of each link.
    Closed(LinkId, LinkEnd),
    /// A dial ended, with an admitted connection or with the reason of its failure.
    Dialed(EndpointId, Result<Admitted, String>),
    /// An application begins to use a link. The answer says if the link stays open for that.
    Used(LinkId, oneshot::Sender<bool>),
    /// No application uses a link now.
    Unused(LinkId),
    /// mDNS saw a member of a topic.
    Found(TopicId, EndpointId, Vec<TransportAddr>),
    /// Records that an earlier life of this node had in its book of a topic.
    /// The first batch is empty if there are none.
    Remembered(TopicId, Vec<Kept>),
    /// This peer is at an address behind a bootstrap name.
    Learned(TopicId, EndpointId, SocketAddr),
    /// The application answered whether this id may be a member.
    Answered(EndpointId, Answer),
    /// All sequence numbers below this one are recorded on disk as used.
    Reserved(u64),
}
