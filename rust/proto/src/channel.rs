//! The channel of a message: which part of an application it is for.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{cbor::Value, error::Error};

/// Longest name of a channel, in bytes of UTF-8.
pub const MAX_CHANNEL: usize = 64;

/// The name of a channel of messages: 1 to 64 bytes of UTF-8, without control characters. Messages
/// in a channel reach only subscribers to that channel.
///
/// ```
/// use iroh_gossip_discovery_proto::Channel;
///
/// assert_eq!(Channel::new("jobs")?.as_str(), "jobs");
/// let error = "".parse::<Channel>().unwrap_err();
/// assert_eq!(error.to_string(), "channel must not be empty");
/// # Ok::<(), iroh_gossip_discovery_proto::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `channel`, with the limit.
    pub fn new(name: &str) -> Result<Self, Error> {
        let reason = if name.is_empty() {
            "must not be empty".to_owned()
        } else if name.len() > MAX_CHANNEL {
            format!("is {} bytes, the limit is {MAX_CHANNEL}", name.len())
        } else if name.chars().any(char::is_control) {
            "has a control character".to_owned()
        } else {
            return Ok(Self(name.into()));
        };
        Err(Error::Invalid { field: "channel", reason })
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn encode(&self) -> Value {
        Value::text(&self.0)
    }

    pub(crate) fn decode(value: Value) -> Result<Self, Error> {
        let name = value.into_text("channel")?;
        Self::new(&name).map_err(|error| Error::malformed("channel", error.to_string()))
    }
}

impl FromStr for Channel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
