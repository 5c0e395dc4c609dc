//! What peers may send to the overlay: a budget for each kind of frame, of each peer and of all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::{Duration, Instant};

use crate::{
    budget::{Budget, Rate},
    drops::DropReason,
    id::EndpointId,
    topic::{broadcast, scope::NarrowScope},
    wire::{OverlayFrame, is_broadcast},
};

/// The requests that push a neighbor out of a full view: those of one peer, and those of all peers.
const PUSHES_OF_PEER: Rate = Rate { messages: (0.2, 4.0), bytes: (1.0, 1.0) };
const PUSHES: Rate = Rate { messages: (16.0, 64.0), bytes: (1.0, 1.0) };
/// The newcomers that walk through the overlay: those that one peer sends, and those of all peers.
/// A walk causes up to six frames of other nodes. A newcomer that is refused here is in the book
/// all the same.
const WALKS_OF_PEER: Rate = Rate { messages: (4.0, 64.0), bytes: (1.0, 1.0) };
const WALKS: Rate = Rate { messages: (8.0, 128.0), bytes: (1.0, 1.0) };
/// The requests of one peer to be a neighbor, even if there is room. Each makes this node compare
/// books with the peer, and look for another neighbor once the peer goes.
const REQUESTS_OF_PEER: Rate = Rate { messages: (1.0, 16.0), bytes: (1.0, 1.0) };
/// What one peer may send to repair broadcasts. It has a budget of its own, so that lost broadcasts
/// are announced and requested however much else the peer sends.
const REPAIR_OF_PEER: Rate =
    Rate { messages: (2000.0, 8000.0), bytes: (4.0 * 1024.0 * 1024.0, 16.0 * 1024.0 * 1024.0) };
/// What else one peer may send to the overlay, without broadcasts of applications.
const OF_PEER: Rate =
    Rate { messages: (500.0, 4000.0), bytes: (512.0 * 1024.0, 4.0 * 1024.0 * 1024.0) };
/// A stranger that takes this node for a neighbor is notified no more often than this.
const NOTIFY_STRANGERS: Duration = Duration::from_secs(1);

/// What one peer may still send.
#[derive(Debug)]
struct Budgets {
    frames: Budget,
    repair: Budget,
    broadcasts: Budget,
    /// Requests to be a neighbor that push another one out.
    pushes: Budget,
    requests: Budget,
    walks: Budget,
    strangers_rejected: Option<Instant>,
    asked_for: AskedFor,
}

/// The latest broadcasts that a peer requested.
#[derive(Debug, Default)]
struct AskedFor {
    ids: BTreeSet<[u8; 32]>,
    by_age: VecDeque<[u8; 32]>,
}

impl AskedFor {
    const MOST: usize = 4096;

    /// Returns true if the peer did not request this broadcast before.
    fn insert(&mut self, id: [u8; 32]) -> bool {
        let fresh = self.ids.insert(id);
        if fresh {
            self.by_age.push_back(id);
        }
        if self.by_age.len() > Self::MOST
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.ids.remove(&oldest);
        }
        fresh
    }
}

impl Budgets {
    fn new(now: Instant) -> Self {
        Self {
            frames: Budget::new(OF_PEER, now),
            repair: Budget::new(REPAIR_OF_PEER, now),
            pushes: Budget::new(PUSHES_OF_PEER, now),
            requests: Budget::new(REQUESTS_OF_PEER, now),
            walks: Budget::new(WALKS_OF_PEER, now),
            broadcasts: Budget::new(broadcast::OF_PEER, now),
            strangers_rejected: None,
            asked_for: AskedFor::default(),
        }
    }

    /// Returns true if it is time to notify a stranger that it is no neighbor of this node.
    fn may_reject_stranger(&mut self, now: Instant) -> bool {
        let due = self
            .strangers_rejected
            .is_none_or(|at| now.saturating_duration_since(at) >= NOTIFY_STRANGERS);
        if due {
            self.strangers_rejected = Some(now);
        }
        due
    }
}

/// What peers may send to the overlay.
#[derive(Debug, Default)]
pub(super) struct Admission {
    peers: BTreeMap<EndpointId, Budgets>,
    /// The budget of all peers for requests that push a neighbor out.
    pushes: Option<Budget>,
    /// The budget of all peers for newcomers that walk through the overlay.
    walks: Option<Budget>,
}

impl Admission {
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    fn of(&mut self, peer: EndpointId, now: Instant) -> &mut Budgets {
        self.peers.entry(peer).or_insert_with(|| Budgets::new(now))
    }

    /// A peer no longer speaks of this topic.
    pub(super) fn unlinked(&mut self, peer: &EndpointId) {
        self.peers.remove(peer);
    }

    /// Returns true if a frame is within the budget of its sender. `asked_for` is the length of the
    /// broadcast that it requests, in bytes.
    pub(super) fn admit(
        &mut self,
        peer: EndpointId,
        frame: &OverlayFrame,
        asked_for: usize,
        scope: &mut NarrowScope,
    ) -> bool {
        // What a frame costs this node and others, in bytes. Joins walk through the overlay and
        // cause dials. A graft requests a whole broadcast. An announced id is kept and requested.
        let size = match frame {
            OverlayFrame::Gossip { content, .. } => content.len(),
            OverlayFrame::IHave(list) => list.len() * 256,
            OverlayFrame::Join(_) | OverlayFrame::Neighbor { .. } => 64 * 1024,
            OverlayFrame::ForwardJoin { .. } => 4 * 1024,
            OverlayFrame::Graft { id: Some(_), .. } => asked_for,
            OverlayFrame::Graft { .. } | OverlayFrame::Prune | OverlayFrame::Disconnect { .. } => 0,
        };
        let now = scope.now();
        let budgets = self.of(peer, now);
        let (budget, what) = match frame {
            OverlayFrame::Gossip { content, .. } if is_broadcast(content) => {
                (&mut budgets.broadcasts, DropReason::BroadcastsOverTheBudgetOfAPeer)
            }
            OverlayFrame::IHave(_) | OverlayFrame::Graft { .. } | OverlayFrame::Prune => {
                (&mut budgets.repair, DropReason::RepairOfBroadcastsOverTheBudgetOfAPeer)
            }
            _ => (&mut budgets.frames, DropReason::OverlayFramesOverTheBudgetOfAPeer),
        };
        let within = budget.take(size, now);
        if !within {
            scope.dropped(what, Some(peer));
        }
        within
    }

    /// Returns true if a peer did not request this broadcast before.
    pub(super) fn asks_first(&mut self, peer: EndpointId, id: [u8; 32], now: Instant) -> bool {
        self.of(peer, now).asked_for.insert(id)
    }

    /// Returns true if a newcomer that a peer sends on its walk is within the budgets.
    pub(super) fn may_walk(&mut self, peer: EndpointId, now: Instant) -> bool {
        self.of(peer, now).walks.take(0, now)
            && self.walks.get_or_insert_with(|| Budget::new(WALKS, now)).take(0, now)
    }

    /// Returns true if one more request of a peer to be a neighbor is within its budget.
    pub(super) fn may_request(&mut self, peer: EndpointId, now: Instant) -> bool {
        self.of(peer, now).requests.take(0, now)
    }

    /// Returns true if the request of a peer may push a neighbor out.
    pub(super) fn may_push(&mut self, peer: EndpointId, now: Instant) -> bool {
        self.of(peer, now).pushes.take(0, now)
            && self.pushes.get_or_insert_with(|| Budget::new(PUSHES, now)).take(0, now)
    }

    /// Returns true if it is time to notify a stranger that it is no neighbor of this node.
    pub(super) fn may_reject_stranger(&mut self, peer: EndpointId, now: Instant) -> bool {
        self.of(peer, now).may_reject_stranger(now)
    }
}
