//! What the application is asked about a node that wants to be a member, and how it is asked.

use std::{fmt, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use iroh::TransportAddr;

use crate::proto::{EndpointId, NodeRecord};

/// A node that wants to be a member here, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Newcomer {
    /// Its id, which is its public key.
    pub id: EndpointId,
    /// Where it is, as far as known: the far end of its connection, what its record claims, or what
    /// the user named. None of that is proven, but for the far end of a connection.
    pub addresses: Vec<TransportAddr>,
    /// What it says of itself, signed by it; `None` if it opened a link before anybody told of it.
    pub record: Option<Arc<NodeRecord>>,
}

impl Newcomer {
    /// A node of which only the id and addresses are known.
    #[must_use]
    pub fn new(id: EndpointId, addresses: Vec<TransportAddr>) -> Self {
        Self { id, addresses, record: None }
    }

    pub(crate) fn of(record: Arc<NodeRecord>) -> Self {
        Self { id: record.id, addresses: record.addresses.clone(), record: Some(record) }
    }

    /// Takes over what another question about the same node knows.
    pub(crate) fn merge(&mut self, other: Self) {
        let is_newer = |old: &Arc<NodeRecord>, new: &Arc<NodeRecord>| new.sequence > old.sequence;
        if let Some(new) = other.record
            && self.record.as_ref().is_none_or(|old| is_newer(old, &new))
        {
            self.record = Some(new);
        }
        for address in other.addresses {
            if self.addresses.len() < MAX_ADDRESSES && !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
    }
}

/// Most addresses of a newcomer that are shown.
const MAX_ADDRESSES: usize = 16;

type Answering = BoxFuture<'static, Result<bool, String>>;

/// Asks the application if a node may be a member. `Ok(true)` admits it, and `Ok(false)` refuses
/// it. An error says what failed, and leaves it out until it is asked about again.
///
/// ```
/// use iroh_gossip_discovery::Admit;
///
/// let admit = Admit::new(|newcomer| async move {
///     Ok(newcomer.record.is_some_and(|record| record.profile.name.starts_with("robot")))
/// });
/// ```
#[derive(Clone)]
pub struct Admit(Arc<dyn Fn(Newcomer) -> Answering + Send + Sync>);

impl Admit {
    /// Asks by this function. At most 16 calls run at a time, and each has 10 s. A call that panics
    /// counts as an error.
    pub fn new<F, A>(ask: F) -> Self
    where
        F: Fn(Newcomer) -> A + Send + Sync + 'static,
        A: Future<Output = Result<bool, String>> + Send + 'static,
    {
        Self(Arc::new(move |newcomer| ask(newcomer).boxed()))
    }

    pub(crate) fn ask(&self, newcomer: Newcomer) -> Answering {
        (self.0)(newcomer)
    }
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admit(..)")
    }
}
