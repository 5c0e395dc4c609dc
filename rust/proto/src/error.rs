//! The errors of the protocol: one enum, and each variant says if state changed.

/// An error of the protocol. None of them leaves the state half-changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value is outside its limit. Nothing changed.
    #[error("{field} {reason}")]
    Invalid {
        /// The field's name, as the caller knows it.
        field: &'static str,
        /// What is wrong, with the limit.
        reason: String,
    },
    /// Bytes from outside do not decode. Nothing changed.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What the bytes should have been.
        what: &'static str,
        /// The first rule that they break.
        reason: String,
    },
    /// The signature of a record does not verify for the key that is its id. Nothing changed.
    #[error("the signature does not verify for the record's id")]
    Forged,
    /// The topic is already joined on this endpoint. Nothing changed.
    #[error("topic {0} is already joined on this endpoint")]
    AlreadyJoined(crate::TopicId),
    /// The topic is not joined on this endpoint, or was left. Nothing changed.
    #[error("topic {0} is not joined on this endpoint")]
    NotJoined(crate::TopicId),
    /// Another holder of this node's key signed one of its last sequence numbers. So nothing more
    /// can be announced with the key. Nothing changed.
    #[error(
        "no sequence number below 2^62 is left: another holder of this node's secret key used one \
         of the last; the key must be replaced"
    )]
    SequencesExhausted,
    /// This node only observes, so it can't do what members do. Nothing changed.
    #[error("an observer can't {0}: it is no member of the topic")]
    Observer(&'static str),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { what, reason: reason.into() }
    }
}
