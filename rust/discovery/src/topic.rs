//! A topic: its name, the id that follows from it, and how it is joined.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    bootstrap::Bootstrap,
    error::Error,
    proto::{Profile, TopicId},
};

/// A topic. Nodes find each other within one topic.
///
/// Its id is the SHA-256 of a label and the name, so an outsider can't read the name from the id.
///
/// ```
/// use iroh_gossip_discovery::Topic;
///
/// let topic: Topic = "fleet".parse()?;
/// assert_eq!(topic.id(), Topic::new("fleet")?.id());
/// assert!(Topic::new("").is_err());
/// # Ok::<(), iroh_gossip_discovery::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    name: Arc<str>,
    id: TopicId,
}

impl Topic {
    /// Makes the topic called `name`: 1 to 256 bytes of UTF-8 without control characters.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field `topic`.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
        let name = name.as_ref();
        Ok(Self { id: TopicId::from_name(name)?, name: name.into() })
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?}, {})", self.name, self.id.fmt_short())
    }
}

impl FromStr for Topic {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

/// The options of [`crate::Discovery::join`].
///
/// ```
/// use iroh_gossip_discovery::{Bootstrap, EndpointId, JoinOptions};
///
/// let seed = EndpointId::from_bytes([7; 32]);
/// let options = JoinOptions::new("alice").bootstrap([seed]);
/// assert_eq!(options.bootstrap, [Bootstrap::Id(seed)]);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JoinOptions {
    /// What this node says of itself.
    pub profile: Profile,
    /// The peers to dial first. Without any, the node waits until others find it.
    pub bootstrap: Vec<Bootstrap>,
}

impl JoinOptions {
    /// Makes options with the name of this node, or with its profile.
    pub fn new(profile: impl Into<Profile>) -> Self {
        Self { profile: profile.into(), ..Self::default() }
    }

    /// Replaces the peers to dial first.
    #[must_use]
    pub fn bootstrap(mut self, peers: impl IntoIterator<Item = impl Into<Bootstrap>>) -> Self {
        self.bootstrap = peers.into_iter().map(Into::into).collect();
        self
    }
}
