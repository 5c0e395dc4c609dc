//! What the applications of all nodes saw, and what of it was wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use iroh_gossip_discovery_proto::{EndpointId, TopicEvent};

use crate::{clock::Nanos, cuts::Cuts};

/// Most failures that are kept, and most wrong verdicts. The first one usually shows the defect.
pub(crate) const MAX_FAILURES: usize = 100;
/// Most events that are kept: when 1,000 nodes join, each emits one for every other.
const MAX_LOG: usize = 2_000_000;

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed of the network.
    pub seed: u64,
    /// Virtual time since the start.
    pub at: Duration,
    /// The node at which it was seen, if it was at one.
    pub node: Option<usize>,
    /// The check.
    pub check: &'static str,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, at {:.6} s, ", self.seed, self.at.as_secs_f64())?;
        if let Some(node) = self.node {
            write!(f, "node {node}, ")?;
        }
        write!(f, "{}: {}", self.check, self.text)
    }
}

impl std::error::Error for Failure {}

/// An event that a node emitted to its application.
#[derive(Debug, Clone)]
pub struct Emitted {
    /// Virtual time since the start.
    pub at: Duration,
    /// The node.
    pub node: usize,
    /// The event.
    pub event: TopicEvent,
}

/// What the applications of all nodes saw, over all of their lives.
#[derive(Debug)]
pub struct Observed {
    /// Whether each node keeps all its events, which costs memory.
    pub keep_events: bool,
    /// Whether [`Observed::log`] is kept.
    pub keep_log: bool,
    /// The events of all nodes, over all of their lives: the first two million.
    pub log: Vec<Emitted>,
    /// The number of events that came after these.
    pub log_left_out: u64,
    /// The number of events, by name.
    pub emitted_counts: BTreeMap<&'static str, u64>,
    /// Peers that were held to be lost although they were up and within reach: when, the node that
    /// held them to be, the peer.
    pub wrongly_lost: Vec<(Duration, usize, EndpointId)>,
    /// The same, at nodes that lose packets beyond what all lose: only their own network is bad.
    pub lost_by_lossy: u64,
    /// How often a node held such a node to be lost: by the node, the lossy node, and the number of
    /// the fault.
    pub lossy_lost: BTreeMap<(usize, usize, u32), u32>,
    /// Nodes that reported another process with their key.
    pub in_conflict: BTreeSet<usize>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            keep_events: true,
            keep_log: false,
            log: Vec::new(),
            log_left_out: 0,
            emitted_counts: BTreeMap::new(),
            wrongly_lost: Vec::new(),
            lost_by_lossy: 0,
            lossy_lost: BTreeMap::new(),
            in_conflict: BTreeSet::new(),
        }
    }
}

impl Observed {
    /// Notes an event of a node.
    pub(crate) fn event(&mut self, at: Duration, node: usize, event: &TopicEvent) {
        *self.emitted_counts.entry(name_of(event)).or_default() += 1;
        if matches!(event, TopicEvent::IdentityConflict { .. }) {
            self.in_conflict.insert(node);
        }
        if self.keep_log && self.log.len() == MAX_LOG {
            self.log_left_out += 1;
        } else if self.keep_log {
            self.log.push(Emitted { at, node, event: event.clone() });
        }
    }

    /// Notes that a node held another one to be lost that is up and within reach. If either of the
    /// two loses packets beyond what all lose, that is counted apart.
    pub(crate) fn wrong_verdict(
        &mut self,
        now: Nanos,
        (by, lost): (usize, usize),
        id: EndpointId,
        cuts: &Cuts,
    ) {
        if cuts.is_lossy(by, now) {
            self.lost_by_lossy += 1;
        } else if cuts.is_lossy(lost, now) {
            let fault = cuts.losses_begun(lost);
            *self.lossy_lost.entry((by, lost, fault)).or_default() += 1;
        } else if self.wrongly_lost.len() < MAX_FAILURES {
            self.wrongly_lost.push((Duration::from_nanos(now), by, id));
        }
    }
}

/// Returns the name of an event.
#[must_use]
pub fn name_of(event: &TopicEvent) -> &'static str {
    match event {
        TopicEvent::Announced(_) => "Announced",
        TopicEvent::PeerJoined(_) => "PeerJoined",
        TopicEvent::PeerUpdated(_) => "PeerUpdated",
        TopicEvent::PeerRefreshed(_) => "PeerRefreshed",
        TopicEvent::PeerSuspected(_) => "PeerSuspected",
        TopicEvent::PeerRecovered(_) => "PeerRecovered",
        TopicEvent::IdentityConflict { .. } => "IdentityConflict",
        TopicEvent::PeerLeft(_) => "PeerLeft",
        TopicEvent::PeerLost(..) => "PeerLost",
        TopicEvent::Undecided(_) => "Undecided",
        TopicEvent::Isolated => "Isolated",
        TopicEvent::Reconnected => "Reconnected",
        TopicEvent::Opened(_) => "Opened",
        TopicEvent::NotServed(_) => "NotServed",
        TopicEvent::Busy { .. } => "Busy",
        TopicEvent::Synced(_) => "Synced",
        TopicEvent::Agreed(_) => "Agreed",
        TopicEvent::NeighborUp(_) => "NeighborUp",
        TopicEvent::NeighborDown(_) => "NeighborDown",
        TopicEvent::Broadcast { .. } => "Broadcast",
        TopicEvent::Closed => "Closed",
        _ => "Other",
    }
}
