//! The errors of this crate: one enum, and each variant says if state changed.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::proto::{self, EndpointId, TopicId};

/// An error of this crate. After an error nothing has changed, unless its variant says so.
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
    /// An address of [`crate::Config::bind`] can't be bound: it is taken, or it is not of this
    /// machine.
    #[error("bind address {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The iroh endpoint could not be created, for another reason than its addresses.
    #[error("endpoint: {0}")]
    Endpoint(String),
    /// Another node, in this process or another, holds the state directory.
    #[error("state directory {} is in use by {}", .path.display(), by(*.holder, *.ended))]
    StateDirInUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it could be found.
        holder: Option<u32>,
        /// The process that locked it, if that has ended: a child that it forked holds the lock.
        ended: Option<u32>,
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
    /// A message is larger than its limit. Nothing was sent.
    #[error("the message is {size} bytes, the limit is {limit}")]
    MessageTooLarge {
        /// The size of the message, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// There is no link to a peer and none could be opened, or the link broke during a request. The
    /// peer carried the request out only if the link broke while the answer was on its way.
    #[error("peer {} can't be reached: {reason}", .peer.fmt_short())]
    PeerUnreachable {
        /// The peer.
        peer: EndpointId,
        /// What went wrong.
        reason: String,
    },
    /// No application subscribed to messages at the peer.
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
    /// The limit of open streams is reached, for this peer here or at the peer.
    #[error("too many streams are open with peer {}, or there", .peer.fmt_short())]
    TooManyStreams {
        /// The peer.
        peer: EndpointId,
    },
    /// This node only observes: it is no member, so it can't do what members do.
    #[error("an observer can't {action}: it is no member of the topic")]
    Observer {
        /// What it can't do.
        action: &'static str,
    },
    /// The topic was left, or the discovery is shut down.
    #[error("the topic was left or the discovery is shut down")]
    Closed,
}

/// Names the process that holds a directory.
fn by(holder: Option<u32>, ended: Option<u32>) -> String {
    let holder = holder.map_or_else(
        || "a process that can't be found".to_owned(),
        |process| format!("process {process}"),
    );
    match ended {
        Some(ended) => format!("{holder}, which has the lock from process {ended}, that has ended"),
        None => holder,
    }
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
            proto::Error::Observer(action) => Self::Observer { action },
            exhausted @ proto::Error::SequencesExhausted => {
                Self::Invalid { field: "secret_key", reason: exhausted.to_string() }
            }
            other => Self::Invalid { field: "record", reason: other.to_string() },
        }
    }
}

impl From<iroh::KeyParsingError> for Error {
    fn from(error: iroh::KeyParsingError) -> Self {
        Self::invalid("endpoint id", error.to_string())
    }
}

impl From<iroh::RelayUrlParseError> for Error {
    fn from(error: iroh::RelayUrlParseError) -> Self {
        Self::invalid("relay URL", error.to_string())
    }
}
