//! What can go wrong: one enum, each variant saying whether state changed.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::proto::{self, EndpointId, TopicId};

/// An error of this crate. After any of them nothing has changed, unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value is outside its limit.
    #[error("{field} {reason}")]
    Invalid {
        /// The field's name, as the caller knows it.
        field: &'static str,
        /// What is wrong, with the limit.
        reason: String,
    },
    /// An address of [`crate::Config::bind`] can't be bound: taken, or not of this machine.
    #[error("bind address {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The iroh endpoint could not be made for another reason than its addresses.
    #[error("endpoint: {0}")]
    Endpoint(String),
    /// Another node, in this process or another, holds the state directory.
    #[error("state directory {} is in use{}", .path.display(), .holder.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    StateDirInUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it could be read.
        holder: Option<u32>,
    },
    /// The state directory, or a file in it, can't be used.
    #[error("state directory: {}: {reason}", .path.display())]
    StateDir {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The topic is already joined on this endpoint.
    #[error("topic {0} is already joined on this endpoint")]
    AlreadyJoined(TopicId),
    /// A message is over its limit. Nothing was sent.
    #[error("the message is {size} bytes, the limit is {limit}")]
    MessageTooLarge {
        /// Its bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// There is no link to a peer and none could be opened, or it broke under a request. What was
    /// asked of the peer was done only if the link broke while the answer was on its way.
    #[error("peer {} can't be reached: {reason}", .peer.fmt_short())]
    PeerUnreachable {
        /// The peer.
        peer: EndpointId,
        /// What went wrong.
        reason: String,
    },
    /// Nobody subscribed to messages at the peer.
    #[error("peer {} has no subscriber to messages", .peer.fmt_short())]
    NoSubscriber {
        /// The peer.
        peer: EndpointId,
    },
    /// The peer does not serve the protocol.
    #[error("peer {} does not serve {protocol}", .peer.fmt_short())]
    ProtocolNotServed {
        /// The peer.
        peer: EndpointId,
        /// The protocol; bytes that are not ASCII are escaped.
        protocol: String,
    },
    /// As many streams as there may be are open with the peer already, or at the peer.
    #[error("too many streams are open with peer {}, or there", .peer.fmt_short())]
    TooManyStreams {
        /// The peer.
        peer: EndpointId,
    },
    /// The topic was left, or the discovery is shut down.
    #[error("the topic was left or the discovery is shut down")]
    Closed,
}

impl Error {
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }
}

impl From<proto::Error> for Error {
    fn from(error: proto::Error) -> Self {
        match error {
            proto::Error::Invalid { field, reason } => Self::Invalid { field, reason },
            proto::Error::AlreadyJoined(topic) => Self::AlreadyJoined(topic),
            proto::Error::NotJoined(_) => Self::Closed,
            exhausted @ proto::Error::SequencesExhausted => {
                Self::Invalid { field: "secret_key", reason: exhausted.to_string() }
            }
            other => Self::Invalid { field: "record", reason: other.to_string() },
        }
    }
}
