//! One simulated endpoint: its state, and what an application would know of it.

use std::{collections::BTreeMap, sync::Arc};

use ed25519_dalek::SigningKey;
use iroh_gossip_discovery_proto::{EndpointId, Identity, NodeRecord, State, TopicEvent};
use tokio::time::Instant;

/// One endpoint with one topic.
#[derive(Debug)]
pub struct Node {
    /// The endpoint's key, kept over restarts.
    pub key: SigningKey,
    /// The endpoint's id.
    pub id: EndpointId,
    /// The protocol, unless the node is down.
    pub state: Option<State>,
    /// The address book as the events tell it: replaying them gives the book.
    pub book: BTreeMap<EndpointId, Arc<NodeRecord>>,
    /// Own record, as last announced.
    pub own: Option<Arc<NodeRecord>>,
    /// All events of this life, with their time.
    pub events: Vec<(Instant, TopicEvent)>,
    /// What limits refused or dropped, by name.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Bytes of frames sent.
    pub bytes_sent: u64,
    /// Dials begun.
    pub dials: u64,
    pub(crate) boots: u64,
    pub(crate) wake: Option<Instant>,
}

impl Node {
    pub(crate) fn new(number: u64, seed: u64) -> Self {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        secret[8..16].copy_from_slice(&seed.to_le_bytes());
        let key = SigningKey::from_bytes(&secret);
        Self {
            id: EndpointId::from_bytes(key.verifying_key().to_bytes()),
            key,
            state: None,
            book: BTreeMap::new(),
            own: None,
            events: Vec::new(),
            dropped: BTreeMap::new(),
            bytes_sent: 0,
            dials: 0,
            boots: 0,
            wake: None,
        }
    }

    pub(crate) fn boot(&mut self, sequence: u64, seed: [u8; 32], now: Instant) {
        self.boots += 1;
        let identity = Identity {
            key: self.key.clone(),
            boot_id: self.boots,
            sequence,
            reserved: sequence + (1 << 20),
        };
        self.state = Some(State::new(identity, seed, now));
        self.book.clear();
        self.events.clear();
        self.own = None;
        self.wake = None;
    }

    pub(crate) fn on_event(&mut self, event: TopicEvent, now: Instant) {
        match &event {
            TopicEvent::Announced(record) => self.own = Some(Arc::clone(record)),
            TopicEvent::PeerJoined(record) => {
                let was = self.book.insert(record.id, Arc::clone(record));
                assert!(was.is_none(), "joined twice: {record:?}");
            }
            TopicEvent::PeerUpdated(record) | TopicEvent::PeerRefreshed(record) => {
                let was = self.book.insert(record.id, Arc::clone(record));
                let was = was.expect("only who joined is updated");
                assert!(was.sequence < record.sequence, "sequences rise");
            }
            TopicEvent::PeerLeft(record) | TopicEvent::PeerLost(record, _) => {
                self.book.remove(&record.id).expect("only who joined leaves or is lost");
            }
            _ => {}
        }
        self.events.push((now, event));
    }
}
