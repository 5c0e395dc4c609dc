//! The names of release 0.6.0, for code that was written for it.
//!
//! New code needs none of them: [`NodeBuilder`] builds a node, [`Swarm`] is its topic, and
//! [`Swarm::subscribe`] gives the events. `docs/migration.md` lists every name of 0.6.0.
//!
//! ```no_run
//! # use iroh_gossip_discovery::Error;
//! # async fn example(ticket: &str, other_ticket: &str) -> Result<(), Error> {
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

/// The builder of a node. Its name is [`NodeBuilder`] now.
pub type GossipDiscoveryBuilder = NodeBuilder;

impl NodeBuilder {
    /// The name of [`Self::expiration`] in 0.6.0.
    pub fn with_expiration_timeout(self, expiration: Duration) -> Self {
        self.expiration(expiration)
    }
}

/// A short form of a [`NodeRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// The node's name. Several nodes may share one.
    pub name: String,
    /// The node's id: the public key of its endpoint.
    pub node_id: EndpointId,
    /// The sequence number of its record, which grows with each announcement.
    pub count: u64,
}

impl From<&NodeRecord> for Node {
    fn from(record: &NodeRecord) -> Self {
        Self { name: record.profile.name.clone(), node_id: record.id, count: record.sequence }
    }
}

/// A node of the book, with the times of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node's id.
    pub node_id: EndpointId,
    /// When its latest record arrived here.
    pub last_seen: Instant,
    /// When it expires without a newer record. It expires earlier if the latest record came by a
    /// third node that had held it for a while.
    pub expires: Instant,
}

/// The sending half of a topic: it announces this node and adds peers. Clones are handles of the
/// same topic.
#[derive(Debug, Clone)]
pub struct GossipDiscoverySender(Swarm);

impl GossipDiscoverySender {
    /// Adds one bootstrap peer, as [`Self::add_peers`] does.
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

    /// Replaces the profile of this node, and announces it. Heartbeats repeat it as often as the
    /// expiration requires.
    ///
    /// # Errors
    /// As [`Swarm::set_profile`].
    pub async fn announce(&self, profile: Profile) -> Result<(), Error> {
        self.0.set_profile(profile).await
    }

    /// Returns this node as it last announced itself.
    #[must_use]
    pub fn node(&self) -> Node {
        Node::from(&*self.0.me())
    }
}

/// The receiving half of a topic: a stream of changes. It begins with the peers that were known at
/// the split, so its events, replayed over an empty book, give the address book. It ends when the
/// topic is left.
#[derive(Debug)]
pub struct GossipDiscoveryReceiver {
    swarm: Swarm,
    known: VecDeque<Arc<NodeRecord>>,
    events: Subscription,
}

impl GossipDiscoveryReceiver {
    /// Returns a snapshot of the address book.
    #[must_use]
    pub fn book(&self) -> Book {
        self.swarm.book()
    }

    /// Returns the members that this node is linked to in the overlay now.
    #[must_use]
    pub fn neighbors(&self) -> BTreeSet<EndpointId> {
        self.swarm.neighbors()
    }

    /// Returns all peers in the address book now, ordered by id.
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
    /// Splits this topic into a sending half and a receiving half.
    #[must_use]
    pub fn split(self) -> (GossipDiscoverySender, GossipDiscoveryReceiver) {
        let (book, events) = self.subscribe();
        let known = book.iter().cloned().collect();
        let receiver = GossipDiscoveryReceiver { swarm: self.clone(), known, events };
        (GossipDiscoverySender(self), receiver)
    }
}
