//! The requests that open a bidirectional stream of a link: a message of an application, a stream
//! of an application, or the reason for which such a stream ends.
//!
//! The opener sends one [`Request`], as a frame. The message up to the end of the stream follows,
//! or whatever the application writes. The other end sends one [`Answer`], as a frame, before
//! anything else. `docs/wire.cddl` describes both.

use bytes::Bytes;

use crate::{cbor::Value, channel::Channel, error::Error, id::TopicId, record::MAX_PROTOCOL};

/// Longest direct message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Longest request or answer, in bytes without the length prefix.
pub const MAX_REQUEST: usize = 1024;
/// Longest reason of a reset, in bytes of UTF-8.
pub const MAX_REASON: usize = 256;

mod tag {
    pub(super) const MESSAGE: u64 = 0;
    pub(super) const STREAM: u64 = 1;
    pub(super) const REASON: u64 = 2;
}

/// What the opener of a bidirectional stream wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Deliver the bytes that follow to a subscriber of this topic, and of this channel of it.
    Message(TopicId, Option<Channel>),
    /// Open a stream of this protocol, 1 to 32 bytes, in this topic.
    Stream(TopicId, Vec<u8>),
    /// The reason, 1 to 256 bytes, for which the QUIC stream of this number will be reset, or will
    /// no longer be read. QUIC itself carries only a number.
    Reason(u64, String),
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A subscriber has the message, or the stream is open.
    Accepted,
    /// The topic is not joined there.
    NotJoined,
    /// The application there has no subscription to messages.
    NoSubscriber,
    /// The protocol is not served there.
    NotServed,
    /// The limit of open streams is reached there.
    Busy,
    /// The link is about to close, and nothing was delivered. Ask again on another link.
    Closing,
}

impl Request {
    /// Returns the frame of this request, without its length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let items = match self {
            Self::Message(topic, channel) => {
                let head = [Value::uint(tag::MESSAGE), Value::bytes(topic.as_bytes())];
                head.into_iter().chain(channel.as_ref().map(Channel::encode)).collect()
            }
            Self::Stream(topic, protocol) => vec![
                Value::uint(tag::STREAM),
                Value::bytes(topic.as_bytes()),
                Value::bytes(protocol),
            ],
            Self::Reason(stream, reason) => {
                vec![Value::uint(tag::REASON), Value::uint(*stream), Value::text(reason)]
            }
        };
        Value::array(items).encode().into()
    }

    /// Decodes a request. `None` for a kind of a later version.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Error> {
        const WHAT: &str = "request";
        let mut fields = decode(WHAT, bytes)?;
        let kind = fields.take()?.into_uint::<u64>("request kind")?;
        if !matches!(kind, tag::MESSAGE | tag::STREAM | tag::REASON) {
            return Ok(None);
        }
        if kind == tag::REASON {
            let stream = fields.take()?.into_uint("stream")?;
            let reason = fields.take()?.into_text("reason")?;
            if !(1..=MAX_REASON).contains(&reason.len()) {
                return Err(Error::malformed("reason", format!("{} bytes", reason.len())));
            }
            return Ok(Some(Self::Reason(stream, reason)));
        }
        let topic = TopicId::from_bytes(fields.take()?.into_fixed("topic id")?);
        if kind == tag::MESSAGE {
            let channel = fields.take_optional().map(Channel::decode).transpose()?;
            return Ok(Some(Self::Message(topic, channel)));
        }
        let protocol = fields.take()?.into_bytes("protocol")?;
        if !(1..=MAX_PROTOCOL).contains(&protocol.len()) {
            return Err(Error::malformed("protocol", format!("{} bytes", protocol.len())));
        }
        Ok(Some(Self::Stream(topic, protocol)))
    }
}

impl Answer {
    const ALL: [Self; 6] = [
        Self::Accepted,
        Self::NotJoined,
        Self::NoSubscriber,
        Self::NotServed,
        Self::Busy,
        Self::Closing,
    ];

    /// Returns the frame of this answer, without its length prefix.
    #[must_use]
    pub fn encode(self) -> Bytes {
        Value::array([Value::uint(self as u64)]).encode().into()
    }

    /// Decodes an answer.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for an answer of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let code = decode("answer", bytes)?.take()?.into_uint::<u64>("answer")?;
        let known = usize::try_from(code).ok().and_then(|code| Self::ALL.get(code)).copied();
        known.ok_or_else(|| Error::malformed("answer", format!("{code} is not known")))
    }
}

fn decode(what: &'static str, bytes: &[u8]) -> Result<crate::cbor::Fields, Error> {
    if bytes.len() > MAX_REQUEST {
        let reason = format!("{} bytes, the limit is {MAX_REQUEST}", bytes.len());
        return Err(Error::malformed(what, reason));
    }
    Value::decode(what, bytes)?.into_array(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests {
    use super::*;

    fn requests() -> [Request; 4] {
        let topic = TopicId::from_bytes([7; 32]);
        [
            Request::Message(topic, None),
            Request::Message(topic, Some(Channel::new("cache").unwrap())),
            Request::Stream(topic, b"chat/1".to_vec()),
            Request::Reason(u64::MAX, "no room".into()),
        ]
    }

    #[test]
    fn requests_and_answers_survive_the_wire() {
        for request in requests() {
            assert_eq!(Request::decode(&request.encode()).unwrap(), Some(request));
        }
        for answer in Answer::ALL {
            assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        }
    }

    #[test]
    fn what_is_no_request_is_refused_and_what_is_later_is_told_apart() {
        let later = Value::array([Value::uint(3_u64), Value::text("later")]).encode();
        assert_eq!(Request::decode(&later).unwrap(), None);
        Answer::decode(&Value::array([Value::uint(6_u64)]).encode()).unwrap_err();
        let topic = TopicId::from_bytes([7; 32]);
        for length in [0, MAX_PROTOCOL + 1] {
            Request::decode(&Request::Stream(topic, vec![1; length]).encode()).unwrap_err();
        }
        for name in ["", "a\nb", &"x".repeat(65)] {
            let mut items = vec![Value::uint(tag::MESSAGE), Value::bytes(topic.as_bytes())];
            items.push(Value::text(name));
            Request::decode(&Value::array(items).encode()).unwrap_err();
        }
        for length in [0, MAX_REASON + 1] {
            Request::decode(&Request::Reason(4, "x".repeat(length)).encode()).unwrap_err();
        }
        for request in requests() {
            let bytes = request.encode();
            for end in 0..bytes.len() {
                Request::decode(&bytes[..end]).unwrap_err();
            }
        }
        Request::decode(&vec![0; MAX_REQUEST + 1]).unwrap_err();
    }
}
