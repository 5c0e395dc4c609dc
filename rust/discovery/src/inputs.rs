//! The actor's mailbox for its own tasks: what links, dials, mDNS and disk writes report.

use bytes::Bytes;
use iroh::{TransportAddr, endpoint::Connection};
use tokio::sync::oneshot;

use crate::proto::{EndpointId, Lane, LinkEnd, LinkId, TopicId};

/// What the actor's own tasks tell it.
#[derive(Debug)]
pub(crate) enum Input {
    /// A frame arrived on a link.
    Frame(LinkId, Lane, Bytes),
    /// The peer's QUIC acknowledged what came after a keepalive.
    Acknowledged(LinkId),
    /// A link is gone. The last input of each link.
    Closed(LinkId, LinkEnd),
    /// A dial ended; with a connection, or without.
    Dialed(EndpointId, Result<Connection, String>),
    /// An application begins to use a link. The answer says whether the link stays open for that.
    Used(LinkId, oneshot::Sender<bool>),
    /// No application uses a link any more.
    Unused(LinkId),
    /// mDNS saw a member of a topic.
    Found(TopicId, EndpointId, Vec<TransportAddr>),
    /// Sequence numbers below this one are on disk as used.
    Reserved(u64),
}
