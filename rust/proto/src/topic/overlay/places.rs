//! What is known of the neighbors: which of them forward, and which gives way if room is needed.

use std::collections::BTreeMap;

use rand::{rngs::ChaCha12Rng, seq::IteratorRandom};
use tokio::time::{Duration, Instant};

use crate::{
    budget::{Budget, Rate},
    id::EndpointId,
};

/// The neighbors that no request of a peer pushes out: first those that this node requested, then
/// those that have been neighbors for the longest time. They are at most half of the view.
const ANCHORS: usize = 2;
/// If all neighbors are younger than this, a node that was in the overlay before may be surrounded.
const REPLACED: Duration = Duration::from_mins(1);
/// A neighbor that brought this many broadcasts in a row after others did is asked to announce them
/// only. Plumtree asks that at the first one. But if many members broadcast at once, each of two
/// neighbors is the first one for some of them.
const REPEATS: u32 = 16;
/// A neighbor that was the first one for a broadcast within this time also brings records.
const FIRST_FOR: Duration = Duration::from_secs(1);
/// The broadcasts that neighbors bring again, per second and at once. Beyond that, each such
/// neighbor is asked to announce them only.
const REPEATED: Rate =
    Rate { messages: (4000.0, 8000.0), bytes: (2.0 * 1024.0 * 1024.0, 4.0 * 1024.0 * 1024.0) };

/// What is known of a neighbor, to choose one that gives way.
#[derive(Debug)]
struct Place {
    since: Instant,
    /// True if this node requested the neighbor, false if the neighbor requested this node.
    requested: bool,
    /// True once the neighbor forwarded something, or compared books.
    vocal: bool,
    /// When the neighbor was last the first one that brought a broadcast of an application, and how
    /// many it brought since that others had brought before.
    first: Option<Instant>,
    repeats: u32,
}

/// The neighbors, and what decides who becomes one.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_peer: BTreeMap<EndpointId, Place>,
    /// The peer whose answer to our request is being handled.
    answers: Option<EndpointId>,
    /// The budget of broadcasts that neighbors bring again.
    repeated: Option<Budget>,
    /// When the last warning said that all neighbors were replaced.
    warned: Option<Instant>,
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// A neighbor forwarded something, or compared books.
    pub(super) fn heard(&mut self, peer: &EndpointId) {
        if let Some(place) = self.by_peer.get_mut(peer) {
            place.vocal = true;
        }
    }

    pub(super) fn up(&mut self, peer: EndpointId, now: Instant) {
        let requested = self.answers == Some(peer);
        self.by_peer
            .insert(peer, Place { since: now, requested, vocal: false, first: None, repeats: 0 });
    }

    pub(super) fn down(&mut self, peer: &EndpointId) {
        self.by_peer.remove(peer);
    }

    /// A neighbor is the first one that brought a broadcast.
    pub(super) fn brought(&mut self, peer: &EndpointId, now: Instant) {
        if let Some(place) = self.by_peer.get_mut(peer) {
            place.first = Some(now);
            place.repeats = 0;
        }
    }

    /// A neighbor brought a broadcast of this size that others had brought before. Returns true if
    /// it should only announce broadcasts from now on.
    pub(super) fn repeats(&mut self, peer: &EndpointId, size: usize, now: Instant) -> bool {
        let Some(place) = self.by_peer.get_mut(peer) else { return true };
        place.repeats += 1;
        let budget = self.repeated.get_or_insert_with(|| Budget::new(REPEATED, now));
        let too_many = place.repeats >= REPEATS || !budget.take(size, now);
        if too_many {
            place.repeats = 0;
        }
        too_many
    }

    pub(super) fn is_first_for_some(&self, peer: &EndpointId, now: Instant) -> bool {
        let first = self.by_peer.get(peer).and_then(|place| place.first);
        first.is_some_and(|at| now.saturating_duration_since(at) < FIRST_FOR)
    }

    /// Returns the neighbors that may be pushed out, the youngest last.
    fn replaceable(&self, neighbors: usize) -> Vec<(&EndpointId, &Place)> {
        let mut places: Vec<_> = self.by_peer.iter().collect();
        places.sort_by_key(|(_, place)| (!place.requested, place.since));
        let mut rest = places.split_off(ANCHORS.min(neighbors / 2).min(places.len()));
        rest.sort_by_key(|(_, place)| place.since);
        rest
    }

    /// Returns the youngest neighbor that may be pushed out and has forwarded nothing, if it has
    /// been a neighbor for at least `time`.
    pub(super) fn silent(
        &self,
        neighbors: usize,
        time: Duration,
        now: Instant,
    ) -> Option<EndpointId> {
        let silent = |(_, place): &(&EndpointId, &Place)| {
            !place.vocal && now.saturating_duration_since(place.since) >= time
        };
        self.replaceable(neighbors).into_iter().rfind(silent).map(|(peer, _)| *peer)
    }

    /// Chooses a neighbor that is no anchor: the youngest of those that have forwarded nothing, or
    /// else a random one.
    pub(super) fn victim(
        &self,
        neighbors: usize,
        rng: &mut ChaCha12Rng,
        now: Instant,
    ) -> Option<EndpointId> {
        let silent = self.silent(neighbors, Duration::ZERO, now);
        silent.or_else(|| {
            let replaceable = self.replaceable(neighbors);
            replaceable.into_iter().map(|(peer, _)| *peer).choose(rng)
        })
    }

    /// Returns true if all neighbors are new, as if hostile ones surrounded a node that was in the
    /// overlay before. It does so once within [`REPLACED`].
    pub(super) fn were_replaced(&mut self, now: Instant) -> bool {
        let young = |at: Instant| is_young(at, now);
        let all =
            self.by_peer.len() > ANCHORS && self.by_peer.values().all(|place| young(place.since));
        let warns = all && !self.warned.is_some_and(young);
        if warns {
            self.warned = Some(now);
        }
        warns
    }

    /// The answer of a peer to a request of this node is handled now.
    pub(super) fn answering(&mut self, peer: EndpointId) {
        self.answers = Some(peer);
    }

    /// The frame of a peer was handled, with all that follows from it.
    pub(super) fn handled(&mut self) {
        self.answers = None;
    }
}

/// Returns true if something happened within [`REPLACED`].
pub(super) fn is_young(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < REPLACED
}
