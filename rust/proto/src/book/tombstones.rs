//! Tombstones: what a book remembers of the nodes that are gone, so that no old record brings one
//! back, and so that lost ones are dialed.
//!
//! There are as many as the capacity of the book. Beyond that, those of nodes that were members for
//! a short time give way first, because a peer can make up such nodes. Of those that give way, the
//! sequence numbers alone are kept.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    id::EndpointId,
    record::{SignedRecord, Status},
};

/// The highest sequence number of a departed or expired node is remembered for this long, as far as
/// there is room.
pub(crate) const TOMBSTONE_AGE: Duration = Duration::from_hours(24);

/// Tombstones beyond the capacity of the book lose all but their sequence numbers. This many times
/// the capacity of such numbers are kept.
const FADED: usize = 4;

/// How long a node was in the book. In this order, tombstones give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Young,
    /// It was there for [`ESTABLISHED`](super::ESTABLISHED), by hearsay. A peer can make up such
    /// nodes.
    Established,
    /// As that, and this node reached it.
    Reached,
}

impl Standing {
    const ALL: [Self; 3] = [Self::Young, Self::Established, Self::Reached];
}

/// What a tombstone keeps of a node's time in the book.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    pub(super) standing: Standing,
    /// True if this node had reached it.
    pub(super) reached: bool,
}

impl Past {
    /// Of a node that never was in the book.
    pub(super) const UNSEEN: Self = Self { standing: Standing::Young, reached: false };
}

/// A tombstone: what is remembered of a node that is gone.
#[derive(Debug)]
struct Tombstone {
    sequence: u64,
    since: Instant,
    /// The signed leave, or the last record of a node that was lost, which is still worth a dial.
    signed: SignedRecord,
    /// The accusation by which the node is held to be dead, if it is.
    accusation: Option<Bytes>,
    past: Past,
    /// How often the node was dialed since, and when the next dial may follow.
    dials: (u32, Instant),
    /// How often the node was dialed, if only an earlier life of this node knew it.
    kept: Option<u32>,
}

impl Tombstone {
    /// Returns true if the node was lost, and did not leave. Nodes that left before this life of
    /// ours count as such: they are dialed only while no member is linked.
    fn is_of_lost(&self) -> bool {
        let record = self.signed.record();
        let had_left = self.kept.is_some() && self.sequence >= record.sequence;
        record.status == Status::Alive && !had_left
    }
}

/// The tombstones of a book, and what is left of those that gave way.
#[derive(Debug)]
pub(super) struct Tombstones {
    capacity: usize,
    opened: Instant,
    all: BTreeMap<EndpointId, Tombstone>,
    /// The order in which they give way: by standing, and among equals the oldest first.
    by_age: BTreeSet<(Standing, Instant, EndpointId)>,
    /// The sequence numbers alone of tombstones that gave way, and their order.
    faded: BTreeMap<EndpointId, (u64, Instant)>,
    faded_by_age: VecDeque<(Instant, EndpointId)>,
    /// Nothing is remembered. Only a control of the simulator switches this on.
    pub(super) forgetful: bool,
}

impl Tombstones {
    /// Makes room for `capacity` tombstones, in a book that is opened now.
    pub(super) fn new(capacity: usize, now: Instant) -> Self {
        Self {
            capacity,
            opened: now,
            all: BTreeMap::new(),
            by_age: BTreeSet::new(),
            faded: BTreeMap::new(),
            faded_by_age: VecDeque::new(),
            forgetful: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns true if another tombstone takes the place of one that is there.
    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= self.capacity
    }

    pub(super) fn contains(&self, id: &EndpointId) -> bool {
        self.all.contains_key(id)
    }

    /// Adds a tombstone, which replaces an older one of the same node.
    pub(super) fn add(
        &mut self,
        signed: SignedRecord,
        accusation: Option<Bytes>,
        past: Past,
        now: Instant,
    ) {
        if self.forgetful {
            return;
        }
        let (id, sequence) = (signed.record().id, signed.record().sequence);
        self.forget(&id);
        let dials = (0, now);
        let tombstone =
            Tombstone { sequence, since: now, signed, accusation, past, dials, kept: None };
        self.all.insert(id, tombstone);
        self.by_age.insert((past.standing, now, id));
        self.make_room(now);
        self.forget_faded(now);
    }

    /// Removes the tombstones that are too old, and those for which there is no room.
    fn make_room(&mut self, now: Instant) {
        for kind in Standing::ALL {
            let of_kind = (kind, self.opened, EndpointId::from_bytes([0; 32]))..;
            while let Some((standing, since, id)) =
                self.by_age.range(of_kind.clone()).next().copied()
                && standing == kind
                && (self.all.len() > self.capacity || is_past(since, now))
            {
                self.by_age.remove(&(standing, since, id));
                if let Some(tombstone) = self.all.remove(&id)
                    && !is_past(since, now)
                {
                    self.faded.insert(id, (tombstone.sequence, since));
                    self.faded_by_age.push_back((since, id));
                }
            }
        }
        debug_assert_eq!(self.all.len(), self.by_age.len(), "each has one place in the order");
        debug_assert!(self.all.len() <= self.capacity, "a flood of leaves is bounded");
    }

    /// Forgets all of a node, which is a member now.
    pub(super) fn forget(&mut self, id: &EndpointId) {
        if let Some(tombstone) = self.all.remove(id) {
            self.by_age.remove(&(tombstone.past.standing, tombstone.since, *id));
        }
        self.faded.remove(id);
    }

    /// Remembers the sequence number of a node, and nothing else.
    pub(super) fn fade(&mut self, id: EndpointId, sequence: u64, now: Instant) {
        if !self.forgetful {
            self.faded.insert(id, (sequence, now));
            self.faded_by_age.push_back((now, id));
            self.forget_faded(now);
        }
    }

    fn forget_faded(&mut self, now: Instant) {
        while let Some((since, id)) = self.faded_by_age.front().copied()
            && (self.faded_by_age.len() > FADED * self.capacity || is_past(since, now))
        {
            self.faded_by_age.pop_front();
            if self.faded.get(&id).is_some_and(|faded| faded.1 == since) {
                self.faded.remove(&id);
            }
        }
        debug_assert!(self.faded.len() <= self.faded_by_age.len(), "each faded number has an age");
    }

    /// Returns the highest sequence number that is known of a node that is gone.
    pub(super) fn sequence(&self, id: &EndpointId) -> Option<u64> {
        let tombstone = self.all.get(id).map(|tombstone| tombstone.sequence);
        tombstone.or_else(|| self.faded.get(id).map(|faded| faded.0))
    }

    /// Returns the last record of a node that is gone.
    pub(super) fn signed(&self, id: &EndpointId) -> Option<&SignedRecord> {
        self.all.get(id).map(|tombstone| &tombstone.signed)
    }

    /// Returns the signed leave of a node that left.
    pub(super) fn leave(&self, id: &EndpointId) -> Option<&SignedRecord> {
        self.signed(id).filter(|signed| signed.record().status == Status::Left)
    }

    /// Returns the accusation by which a node is held to be dead.
    pub(super) fn accusation(&self, id: &EndpointId) -> Option<&Bytes> {
        self.all.get(id)?.accusation.as_ref()
    }

    /// Returns when a tombstone was made.
    pub(super) fn since(&self, id: &EndpointId) -> Option<Instant> {
        self.all.get(id).map(|tombstone| tombstone.since)
    }

    /// Returns what is remembered of a node's time in the book.
    pub(super) fn past(&self, id: &EndpointId) -> Past {
        self.all.get(id).map_or(Past::UNSEEN, |tombstone| tombstone.past)
    }

    /// Returns the nodes that were lost without a leave: when each was lost, and when it may be
    /// dialed next.
    pub(super) fn lost(&self) -> impl Iterator<Item = (EndpointId, Instant, Instant)> + '_ {
        let lost = self.all.iter().filter(|(_, tombstone)| tombstone.is_of_lost());
        lost.map(|(id, tombstone)| (*id, tombstone.since, tombstone.dials.1))
    }

    /// Counts a dial to a lost node. The next may follow after `interval`, the one after it after
    /// twice that, and so on up to `max`.
    pub(super) fn dialed(
        &mut self,
        id: &EndpointId,
        interval: Duration,
        max: Duration,
        now: Instant,
    ) {
        if let Some(tombstone) = self.all.get_mut(id) {
            let doubled = 2_u32.saturating_pow(tombstone.dials.0.min(16));
            let delay = interval.saturating_mul(doubled).min(max);
            tombstone.dials = (tombstone.dials.0 + 1, now + delay);
        }
    }

    /// Makes a tombstone one of a node that only an earlier life of this node knew. The very record
    /// of it brings the node back, unless it had left with this sequence number or a higher one.
    pub(super) fn keep(&mut self, id: &EndpointId, left: u64) {
        if let Some(tombstone) = self.all.get_mut(id) {
            tombstone.kept = Some(0);
            tombstone.sequence = tombstone.sequence.saturating_sub(1).max(left);
        }
    }

    /// Returns the record of a node that only an earlier life of this node knew.
    pub(super) fn kept(&self, id: &EndpointId) -> Option<&SignedRecord> {
        let kept = self.all.get(id).filter(|tombstone| tombstone.kept.is_some());
        kept.map(|tombstone| &tombstone.signed)
    }

    /// Returns these records with ids in a range, in order.
    pub(super) fn kept_in(
        &self,
        range: (Bound<EndpointId>, Bound<EndpointId>),
    ) -> impl Iterator<Item = &SignedRecord> {
        let kept = self.all.range(range).filter(|(_, tombstone)| tombstone.kept.is_some());
        kept.map(|(_, tombstone)| &tombstone.signed)
    }

    /// Returns the owners of these records, and how often each was dialed.
    pub(super) fn all_kept(&self) -> impl Iterator<Item = (EndpointId, u32)> + '_ {
        self.all.iter().filter_map(|(id, tombstone)| Some((*id, tombstone.kept?)))
    }

    /// Counts a dial to the owner of such a record.
    pub(super) fn tried_kept(&mut self, id: &EndpointId) {
        if let Some(dials) = self.all.get_mut(id).and_then(|tombstone| tombstone.kept.as_mut()) {
            *dials = dials.saturating_add(1);
        }
    }
}

/// Returns true if a tombstone is older than [`TOMBSTONE_AGE`].
fn is_past(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) > TOMBSTONE_AGE
}
