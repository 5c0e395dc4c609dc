//! One simulated endpoint: its state, and what an application would see of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh_gossip_discovery_proto::{Config, EndpointId, NodeRecord, State, TopicEvent, TopicId};

use crate::{book::Book, clock::Nanos, hostile::Hostile};

/// The code that runs at a node.
#[derive(Debug)]
pub(crate) enum Behavior {
    /// Nothing: it is down.
    Down,
    /// The protocol.
    Honest(Box<State>),
    /// Code that does not keep to the protocol.
    Hostile(Box<dyn Hostile>),
}

/// One endpoint with one topic.
#[derive(Debug)]
pub struct Node {
    /// The endpoint's key, which is kept over restarts.
    pub key: SigningKey,
    /// The endpoint's id.
    pub id: EndpointId,
    /// The address book by replaying the events.
    pub book: Book,
    /// The node's own record, as last announced.
    pub own: Option<Arc<NodeRecord>>,
    /// All events of this life, with the virtual time since the start.
    pub events: Vec<(Duration, TopicEvent)>,
    /// Broadcasts of others that arrived in this life. Each must differ from all others of its
    /// author.
    pub heard: BTreeSet<(EndpointId, Bytes)>,
    /// How often each limit refused or dropped something, by name.
    pub dropped: BTreeMap<&'static str, u64>,
    /// The error of the node's wall clock, in microseconds.
    pub clock_offset: i64,
    pub(crate) behavior: Behavior,
    /// Its identity's number in the roster.
    pub(crate) peer: usize,
    pub(crate) config: Config,
    pub(crate) lives: u64,
    pub(crate) wake: Option<Nanos>,
    /// The bootstrap peers of this life, by number in the roster.
    pub(crate) origins: Vec<usize>,
    /// Whether the node is leaving or has left.
    pub(crate) leaving: bool,
    /// The reservation on the node's disk: sequence numbers below this one may be used.
    pub(crate) reserved: u64,
    /// Whether a difference between the node's book and its events was reported, which is done once
    /// in a life.
    pub(crate) strayed: bool,
    /// Whether `Isolated` was the last event about the node's isolation.
    pub(crate) isolated: bool,
}

impl Node {
    pub(crate) fn new(key: SigningKey, peer: usize) -> Self {
        Self {
            id: EndpointId::from_bytes(key.verifying_key().to_bytes()),
            key,
            book: Book::default(),
            own: None,
            events: Vec::new(),
            heard: BTreeSet::new(),
            dropped: BTreeMap::new(),
            clock_offset: 0,
            behavior: Behavior::Down,
            peer,
            config: Config::default(),
            lives: 0,
            wake: None,
            origins: Vec::new(),
            leaving: false,
            reserved: 0,
            strayed: false,
            isolated: false,
        }
    }

    /// Returns true if the node runs or is paused.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.behavior, Behavior::Down)
    }

    /// Returns true if the node runs the protocol.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        matches!(self.behavior, Behavior::Honest(_))
    }

    /// Returns the boot id of the node's current life, which real nodes draw at random.
    #[must_use]
    pub fn boot_id(&self) -> u64 {
        self.own.as_ref().map_or(0, |own| own.boot_id)
    }

    /// Returns the highest sequence number that the node knows of another one, by its state.
    #[must_use]
    pub fn sequence_of(&self, topic: &TopicId, other: &EndpointId) -> Option<u64> {
        self.state()?.sequence(topic, other)
    }

    /// Returns the sizes of what its state keeps, by name. Empty for a node that is down.
    #[must_use]
    pub fn sizes(&self, topic: &TopicId) -> Vec<(&'static str, usize)> {
        let inspect = self.state().and_then(|state| state.inspect(topic));
        inspect.map(|inspect| inspect.sizes).unwrap_or_default()
    }

    /// Returns true if the node ever knew an identity in this life.
    pub(crate) fn has_met(&self, peer: usize) -> bool {
        self.origins.contains(&peer) || self.book.ever_had(peer)
    }

    pub(crate) fn state(&self) -> Option<&State> {
        match &self.behavior {
            Behavior::Honest(state) => Some(state),
            _ => None,
        }
    }
}
