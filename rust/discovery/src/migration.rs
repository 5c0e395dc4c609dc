//! The names of release 0.6.0, for code that is ported from it.
//!
//! New code needs none of them: [`NodeBuilder`] builds a node, [`Swarm`] is its topic, and
//! [`Swarm::subscribe`] gives the events. `docs/migration.md` lists every name of 0.6.0.
//!
//! ```no_run
//! # async fn example(ticket: &str, other_ticket: &str) -> Result<(), iroh_gossip_discovery::Error> {
//! use std::time::Duration;
//!
//! use futures_util::StreamExt;
//! use iroh_gossip_discovery::{Bootstrap, Event, migration::GossipDiscoveryBuilder};
//!
//! let node = GossipDiscoveryBuilder::new("alice", "fleet")
//!     .with_expiration_timeout(Duration::from_secs(60))
//!     .bootstrap(vec![ticket.parse::<Bootstrap>()?])
//!     .build()
//!     .await?;
//! let (sender, mut receiver) = node.swarm.clone().split();
//! sender.add_peer(other_ticket.parse::<Bootstrap>()?).await?;
//! while let Some(event) = receiver.next().await {
//!     if let Event::PeerJoined(peer) = event {
//!         println!("{} at {:?}", peer.profile.name, peer.addresses);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::{
    collections::{BTreeSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::time::Instant;

use crate::{
    book::Book,
    bootstrap::Bootstrap,
    builder::NodeBuilder,
    error::Error,
    events::Event,
    proto::{EndpointId, NodeRecord, Profile},
    subscription::Subscription,
    swarm::Swarm,
};

/// The builder of a node; [`NodeBuilder`] is its name now.
pub type GossipDiscoveryBuilder = NodeBuilder;

impl NodeBuilder {
    /// The name in 0.6.0 of [`Self::expiration`].
    pub fn with_expiration_timeout(self, expiration: Duration) -> Self {
        self.expiration(expiration)
    }
}

/// Who a node is, in short; [`NodeRecord`] is the whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its label. Several nodes may share one.
    pub name: String,
    /// Its id: the public key of its endpoint.
    pub node_id: EndpointId,
    /// Counts up with each of its announcements: the sequence number of its record.
    pub count: u64,
}

impl From<&NodeRecord> for Node {
    fn from(record: &NodeRecord) -> Self {
        Self { name: record.profile.name.clone(), node_id: record.id, count: record.sequence }
    }
}

/// Since when a node is in the book as it stands, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub node_id: EndpointId,
    /// When its latest record arrived here.
    pub last_seen: Instant,
    /// Without a newer record it is given up at this time, or earlier where the latest one was told
    /// by a third node that had held it for a while.
    pub expires: Instant,
}

/// The half of a topic that says something: it announces this node and adds peers. Clones are handles
/// of the same topic.
#[derive(Debug, Clone)]
pub struct GossipDiscoverySender(Swarm);

impl GossipDiscoverySender {
    /// Adds a bootstrap peer: as [`Self::add_peers`].
    ///
    /// # Errors
    /// As [`Swarm::add_bootstrap`].
    pub async fn add_peer(&self, peer: impl Into<Bootstrap>) -> Result<(), Error> {
        self.0.add_bootstrap(vec![peer.into()]).await
    }

    /// Adds bootstrap peers. They are dialed whenever they are not in the book.
    ///
    /// # Errors
    /// As [`Swarm::add_bootstrap`].
    pub async fn add_peers(&self, peers: Vec<Bootstrap>) -> Result<(), Error> {
        self.0.add_bootstrap(peers).await
    }

    /// Announces what this node says of itself, in place of what it said before. It is repeated by
    /// itself, as often as the expiration needs it.
    ///
    /// # Errors
    /// As [`Swarm::set_profile`].
    pub async fn announce(&self, profile: Profile) -> Result<(), Error> {
        self.0.set_profile(profile).await
    }

    /// This node as it last announced itself.
    #[must_use]
    pub fn node(&self) -> Node {
        Node::from(&*self.0.me())
    }
}

/// The half of a topic that hears: a stream of changes, the peers that were known at the split first.
/// Replayed over an empty book, its events give the address book. It ends when the topic is left.
#[derive(Debug)]
pub struct GossipDiscoveryReceiver {
    swarm: Swarm,
    known: VecDeque<Arc<NodeRecord>>,
    events: Subscription,
}

impl GossipDiscoveryReceiver {
    /// A snapshot of the address book.
    #[must_use]
    pub fn book(&self) -> Book {
        self.swarm.book()
    }

    /// The members that this node is linked to in the overlay now.
    #[must_use]
    pub fn neighbors(&self) -> BTreeSet<EndpointId> {
        self.swarm.neighbors()
    }

    /// Everyone in the address book now, ordered by id.
    #[must_use]
    pub fn nodes(&self) -> Vec<(Node, NodeInfo)> {
        let book = self.swarm.book();
        let info = |record: &Arc<NodeRecord>| {
            let last_seen = book.last_seen(&record.id)?;
            let expires = last_seen.checked_add(record.expiration)?;
            let info = NodeInfo { node_id: record.id, last_seen, expires };
            Some((Node::from(&**record), info))
        };
        book.iter().filter_map(info).collect()
    }
}

impl Stream for GossipDiscoveryReceiver {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self.known.pop_front() {
            Some(record) => Poll::Ready(Some(Event::PeerJoined(record))),
            None => Pin::new(&mut self.events).poll_next(cx),
        }
    }
}

impl Swarm {
    /// This topic in two halves: one to say, one to hear.
    #[must_use]
    pub fn split(self) -> (GossipDiscoverySender, GossipDiscoveryReceiver) {
        let (book, events) = self.subscribe();
        let known = book.iter().cloned().collect();
        let receiver = GossipDiscoveryReceiver { swarm: self.clone(), known, events };
        (GossipDiscoverySender(self), receiver)
    }
}
