//! The address book of a topic: the present members by endpoint id, and tombstones of those that
//! are gone.
//!
//! Order comes from the sequence number alone: a higher one wins, an equal or lower one changes
//! nothing. Freshness comes from the local clock.
//!
//! A member is either reached, because it completed a handshake with this node, or known by
//! hearsay. A full book makes room for a newcomer by displacing hearsay: see [`shares`].
//!
//! Nodes that this endpoint's access lists keep out stay in the book as hidden entries. Syncs and
//! gossip include them, and everything else skips them.

mod shares;
mod tombstones;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    access::Access,
    digest::Digest,
    id::EndpointId,
    record::{NodeRecord, SignedRecord, Status},
    rule::Rule,
};

pub(crate) use self::{shares::Source, tombstones::TOMBSTONE_AGE};
use self::{
    shares::{REACHED, Shares, Slot, share_a_network},
    tombstones::{Past, Standing, Tombstones},
};

/// A node that has been in the book for this long is established.
const ESTABLISHED: Nanos = 600_000_000_000;

/// A peer may introduce a tenth of the capacity, but at least this many, and as many as there is
/// room for others.
const SHARE_OF: usize = 10;
const SHARE_MIN: usize = 256;

/// A book that does not change for this long is calm.
const CALM: Nanos = 250_000_000;
/// The book grows fast if more than an eighth of its members, and more than [`FEW_NEWCOMERS`], are
/// newcomers of this time and the same time before. A newcomer is a node that the whole swarm has
/// known for less than that.
const GROWTH: Nanos = 5_000_000_000;
const FEW_NEWCOMERS: usize = 8;

/// The least time between two scans for expired records. Without it, a large book would be scanned
/// once for each of many records that expire shortly one after another.
const LOOKS_APART: Nanos = 100_000_000;

/// Nanoseconds since the book was opened, negative before that: half as large as an instant. 292
/// years fit.
type Nanos = i64;

const SECOND: Nanos = 1_000_000_000;

/// Returns the first full second that is not before a time.
fn seconds(at: Nanos) -> i32 {
    i32::try_from(-(-at).div_euclid(SECOND)).unwrap_or(i32::MAX)
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// What applying a record did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The node entered the book.
    Joined,
    /// Something that an application sees changed.
    Updated,
    /// The sequence number rose, and nothing else changed.
    Refreshed,
    /// The node left. This is its last record with content.
    Left(Arc<NodeRecord>),
    /// A node that is not in the book left. Its leave is remembered, so that an older record can't
    /// bring it into the book.
    LeftUnseen,
    /// The book holds these very bytes already.
    Same,
    /// The sequence number is not higher than the known one, or the record is past its expiration.
    Stale,
    /// The book is at its capacity.
    Full,
}

impl Applied {
    /// Returns true if the record was new here, so that others have to get it too.
    pub(crate) fn is_news(&self) -> bool {
        !matches!(self, Self::Same | Self::Stale | Self::Full)
    }
}

/// The entry of a present node. Books are full of these, and the simulator holds a book for each of
/// its nodes. So an entry holds only what no other place holds.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) signed: SignedRecord,
    /// When these bytes arrived here.
    received: Nanos,
    /// When the owner was last heard by any node, as far as this one knows.
    heard: Nanos,
    /// When the node entered the book, in seconds since the book was opened.
    since: i32,
    /// The peer that introduced the node, unless this node reached it.
    introducer: Slot,
}

const _: () = assert!(size_of::<(EndpointId, Member)>() == 64, "what an entry of a book takes");

impl Member {
    fn is_established(&self, now: Nanos) -> bool {
        now - Nanos::from(self.since) * SECOND >= ESTABLISHED
    }

    fn standing(&self, now: Nanos) -> Standing {
        match (self.is_established(now), self.introducer) {
            (false, _) => Standing::Young,
            (true, REACHED) => Standing::Reached,
            (true, _) => Standing::Established,
        }
    }

    fn past(&self, now: Nanos) -> Past {
        Past { standing: self.standing(now), reached: self.introducer == REACHED }
    }

    fn expires(&self) -> Nanos {
        // A record may claim more. It must not outlive the tombstone that its owner's end leaves.
        let expiration = self.signed.record().expiration.min(TOMBSTONE_AGE);
        self.heard.saturating_add(nanos(expiration))
    }
}

#[derive(Debug)]
pub(crate) struct Book {
    me: EndpointId,
    capacity: usize,
    opened: Instant,
    /// The own record is among them, because a sync compares it too.
    members: BTreeMap<EndpointId, Member>,
    /// The accusations of the live nodes that are suspected.
    accusations: BTreeMap<EndpointId, Bytes>,
    /// What is remembered of nodes that are gone.
    tombstones: Tombstones,
    /// When the next scan for expired records is due, and when the last one was. A node that
    /// announces again does not move it: a scan now and then is cheaper than an index by expiry.
    next_look: Option<Nanos>,
    looked: Nanos,
    /// Which nodes are kept out, and those of them that are live.
    access: Arc<Access>,
    hidden: BTreeSet<EndpointId>,
    /// The digest of the other nodes that are live and not hidden, and that of the hidden ones.
    /// They are kept up to date, because a simulation reads the first at every step.
    digest: Digest,
    hidden_digest: Digest,
    /// The members that are known by hearsay.
    shares: Shares,
    /// Members that made room, whose loss is not announced yet.
    displaced: Vec<Arc<NodeRecord>>,
    /// The size of all live records, the own one included.
    bytes: usize,
    /// When a live entry or its sequence number last changed.
    changed: Option<Nanos>,
    /// How many changes applications saw: a newer sequence number alone is none.
    visible_changes: u64,
    /// The number of the last period of [`GROWTH`] with a newcomer, and how many came in it and in
    /// the period before.
    newcomers: (Nanos, usize, usize),
    /// When the present series of changes without a pause of [`CALM`] began.
    stirred: Nanos,
    /// A change of the rules that only a control of the simulator switches on.
    equal_wins: bool,
}

impl Book {
    /// Makes a book without entries, opened at `now`.
    pub(crate) fn new(me: EndpointId, capacity: usize, now: Instant) -> Self {
        Self {
            me,
            capacity,
            opened: now,
            members: BTreeMap::new(),
            accusations: BTreeMap::new(),
            tombstones: Tombstones::new(capacity, now),
            next_look: None,
            looked: -LOOKS_APART,
            access: Arc::default(),
            hidden: BTreeSet::new(),
            digest: Digest::default(),
            hidden_digest: Digest::default(),
            shares: Shares::default(),
            displaced: Vec::new(),
            bytes: 0,
            changed: None,
            visible_changes: 0,
            newcomers: (0, 0, 0),
            stirred: 0,
            equal_wins: false,
        }
    }

    /// Switches one rule off, if one is given.
    pub(crate) fn without(mut self, off: Option<Rule>) -> Self {
        self.tombstones.forgetful = off == Some(Rule::Tombstones);
        self.equal_wins = off == Some(Rule::EqualSequences);
        self
    }

    fn nanos_at(&self, instant: Instant) -> Nanos {
        match instant.checked_duration_since(self.opened) {
            Some(after) => nanos(after),
            None => -nanos(self.opened.saturating_duration_since(instant)),
        }
    }

    fn instant(&self, at: Nanos) -> Instant {
        self.opened + Duration::from_nanos(u64::try_from(at).unwrap_or(0))
    }

    /// Returns the number of other nodes that are live and not kept out.
    pub(crate) fn len(&self) -> usize {
        self.len_with_hidden() - self.hidden.len()
    }

    /// As [`Book::len`], with the nodes that are kept out.
    pub(crate) fn len_with_hidden(&self) -> usize {
        self.members.len() - usize::from(self.members.contains_key(&self.me))
    }

    /// Returns true if a node is not kept out.
    pub(crate) fn admits(&self, id: &EndpointId) -> bool {
        *id == self.me || self.access.admits(id)
    }

    /// Applies this endpoint's access lists. Returns the records that are hidden from now on, and
    /// those that no longer are.
    pub(crate) fn set_access(
        &mut self,
        access: &Arc<Access>,
    ) -> (Vec<Arc<NodeRecord>>, Vec<Arc<NodeRecord>>) {
        self.access = Arc::clone(access);
        let (mut hidden, mut shown) = (Vec::new(), Vec::new());
        for (id, member) in self.members.iter().filter(|(id, _)| **id != self.me) {
            let (record, digest) = (Arc::clone(member.signed.record()), member.signed.digest());
            if self.access.admits(id) {
                if self.hidden.remove(id) {
                    self.hidden_digest.subtract(digest);
                    self.digest.add(digest);
                    shown.push(record);
                }
            } else if self.hidden.insert(*id) {
                self.digest.subtract(digest);
                self.hidden_digest.add(digest);
                hidden.push(record);
            }
        }
        debug_assert!(!self.hidden.contains(&self.me), "a node does not keep itself out");
        if !hidden.is_empty() || !shown.is_empty() {
            self.visible_changes += 1;
        }
        (hidden, shown)
    }

    /// The records of up to `limit` peers that the application may admit, and for which `wanted` is
    /// true: those that are there, and those of an earlier life. In the order of their ids, from
    /// the one after `after` on.
    pub(crate) fn undecided(
        &self,
        after: Option<EndpointId>,
        limit: usize,
        wanted: &dyn Fn(&EndpointId) -> bool,
    ) -> Vec<Arc<NodeRecord>> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let is_wanted = |id: &EndpointId| self.access.is_undecided(id) && wanted(id);
        let hidden = self.hidden.range(range).filter(|id| is_wanted(id)).take(limit);
        let hidden = hidden.filter_map(|id| Some(&self.members.get(id)?.signed));
        let kept = self.tombstones.kept_in(range).filter(|signed| is_wanted(&signed.record().id));
        let kept = kept.take(limit);
        let mut found: Vec<_> = hidden.chain(kept).map(|one| Arc::clone(one.record())).collect();
        found.sort_by_key(|record| record.id);
        found.truncate(limit);
        found
    }

    /// What a peer that is not admitted says of itself, or said in an earlier life of this node.
    pub(crate) fn claimed(&self, id: &EndpointId) -> Option<&Arc<NodeRecord>> {
        let member = self.members.get(id).map(|member| &member.signed);
        member.or_else(|| self.kept(id)).map(SignedRecord::record)
    }

    /// Returns the number of tombstones.
    pub(crate) fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Returns the entry of a node that is live and not kept out.
    pub(crate) fn get(&self, id: &EndpointId) -> Option<&Member> {
        self.members.get(id).filter(|_| self.admits(id))
    }

    /// As [`Book::get`], also if the node is kept out.
    pub(crate) fn get_with_hidden(&self, id: &EndpointId) -> Option<&Member> {
        self.members.get(id)
    }

    /// Returns the digest of the other nodes that are live and not kept out.
    pub(crate) fn others_digest(&self) -> Digest {
        self.digest
    }

    /// Returns the digest of all live nodes, this one and hidden ones included.
    fn whole_digest(&self) -> Digest {
        let mut digest = self.digest;
        digest.add(&self.hidden_digest);
        if let Some(own) = self.members.get(&self.me) {
            digest.add(own.signed.digest());
        }
        digest
    }

    /// Returns the digest of the whole book, if the book did not change for `time`.
    pub(crate) fn settled(&self, time: Duration, now: Instant) -> Option<[u8; 8]> {
        let stands_still = |at: &Nanos| self.nanos_at(now) - at >= nanos(time);
        let changed = self.changed.filter(stands_still);
        let (hash, _) = changed.map(|_| self.fingerprint((Bound::Unbounded, Bound::Unbounded)))?;
        hash.first_chunk().copied()
    }

    /// As [`Book::settled`]. A book that has kept changing for `restless` is taken as it is.
    pub(crate) fn comparable(
        &self,
        time: Duration,
        restless: Duration,
        now: Instant,
    ) -> Option<[u8; 8]> {
        let time = if self.is_restless(restless, now) { Duration::ZERO } else { time };
        self.settled(time, now)
    }

    /// Returns true if the book has kept changing for `time`, and was not calm once.
    pub(crate) fn is_restless(&self, time: Duration, now: Instant) -> bool {
        let now = self.nanos_at(now);
        self.changed.is_some_and(|at| now - at < CALM) && now - self.stirred >= nanos(time)
    }

    /// Returns true if many nodes join the swarm now: their requests and records fill views and
    /// books soon, without anything that this node begins.
    pub(crate) fn is_growing(&self, now: Instant) -> bool {
        let (last, came, before) = self.newcomers;
        let recent = match (self.nanos_at(now) / GROWTH).saturating_sub(last) {
            0 => came + before,
            1 => came,
            _ => 0,
        };
        recent > FEW_NEWCOMERS.max(self.members.len() / 8)
    }

    fn count_newcomer(&mut self, at: Nanos) {
        let (last, came, before) = self.newcomers;
        let period = at / GROWTH;
        self.newcomers = match period.saturating_sub(last) {
            0 => (last, came + 1, before),
            1 => (period, 1, came),
            _ => (period, 1, 0),
        };
    }

    fn change(&mut self, at: Nanos) {
        if self.changed.is_none_or(|before| at - before >= CALM) {
            self.stirred = at;
        }
        self.changed = Some(at);
    }

    /// How often the book changed in a way that applications see.
    pub(crate) fn visible_changes(&self) -> u64 {
        self.visible_changes
    }

    /// Returns the size of all live records in bytes, the own one included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the ids of the other nodes that are live and not kept out, in order.
    pub(crate) fn others(&self) -> impl Iterator<Item = EndpointId> + '_ {
        self.members.keys().copied().filter(|id| *id != self.me && !self.hidden.contains(id))
    }

    /// Returns the nodes that were lost without a leave: when each was lost, and when it may be
    /// dialed next.
    pub(crate) fn lost(&self) -> impl Iterator<Item = (EndpointId, Instant, Instant)> + '_ {
        self.tombstones.lost().filter(|(id, ..)| self.access.admits(id))
    }

    /// Counts a dial to a lost node. The next may follow after `interval`, the one after it after
    /// twice that, and so on up to `max`.
    pub(crate) fn dialed(
        &mut self,
        id: &EndpointId,
        interval: Duration,
        max: Duration,
        now: Instant,
    ) {
        self.tombstones.dialed(id, interval, max, now);
    }

    /// Returns true if a node has been in the book for [`ESTABLISHED`], or had been when it was
    /// lost. Dials to such a node are not limited as dials to strangers are.
    pub(crate) fn is_established(&self, id: &EndpointId, now: Instant) -> bool {
        match self.members.get(id) {
            Some(member) => member.is_established(self.nanos_at(now)),
            None => self.tombstones.past(id).standing != Standing::Young,
        }
    }

    /// Records the accusation by which a live node is suspected. `None` clears it.
    pub(crate) fn accuse(&mut self, id: &EndpointId, accusation: Option<Bytes>) {
        match accusation {
            Some(accusation) if self.members.contains_key(id) => {
                self.accusations.insert(*id, accusation);
            }
            _ => {
                self.accusations.remove(id);
            }
        }
    }

    /// Returns the accusation by which a live node is suspected, if it is.
    pub(crate) fn accusation(&self, id: &EndpointId) -> Option<&Bytes> {
        self.accusations.get(id)
    }

    pub(crate) fn is_suspected(&self, id: &EndpointId) -> bool {
        self.accusations.contains_key(id)
    }

    /// Clears all accusations.
    pub(crate) fn clear_accusations(&mut self) {
        self.accusations.clear();
    }

    /// Returns when the record of a live node arrived here.
    pub(crate) fn received(&self, id: &EndpointId) -> Option<Instant> {
        self.members.get(id).map(|member| self.instant(member.received))
    }

    /// Removes a live node that is held to be dead, and returns its record. A tombstone keeps the
    /// accusation.
    pub(crate) fn mark_dead(
        &mut self,
        id: &EndpointId,
        accusation: Bytes,
        now: Instant,
    ) -> Option<Arc<NodeRecord>> {
        let member = self.remove_member(id, now)?;
        let record = Arc::clone(member.signed.record());
        let past = member.past(self.nanos_at(now));
        self.end(member.signed, Some(accusation), past, now);
        Some(record)
    }

    /// Makes a tombstone of a dead node that was never in the book, if there is room.
    pub(crate) fn mark_unseen_dead(
        &mut self,
        signed: SignedRecord,
        accusation: Bytes,
        now: Instant,
    ) {
        let id = signed.record().id;
        if self.sequence(&id).is_none() && !self.tombstones.is_full() {
            self.end(signed, Some(accusation), Past::UNSEEN, now);
        }
    }

    /// Returns the last record of a node that is gone.
    pub(crate) fn last_record(&self, id: &EndpointId) -> Option<&SignedRecord> {
        self.tombstones.signed(id)
    }

    /// Returns when a node left or was lost, if this life of the node saw that.
    pub(crate) fn tombstone_since(&self, id: &EndpointId) -> Option<Instant> {
        if self.kept(id).is_none() { self.tombstones.since(id) } else { None }
    }

    /// Keeps a record that an earlier life of this node had in its book. Its owner becomes a member
    /// only once a record confirms it, for which this very record is enough. Returns false if
    /// anything is known of the owner, if the record is a leave, or if there is no room.
    pub(crate) fn remember(
        &mut self,
        signed: SignedRecord,
        left: u64,
        established: bool,
        now: Instant,
    ) -> bool {
        let id = signed.record().id;
        let known = id == self.me || self.sequence(&id).is_some();
        if known || self.tombstones.is_full() || signed.record().status == Status::Left {
            return false;
        }
        let standing = if established { Standing::Established } else { Standing::Young };
        self.end(signed, None, Past { standing, reached: false }, now);
        self.tombstones.keep(&id, left);
        true
    }

    /// Returns the record that an earlier life kept, if nothing has confirmed it yet.
    pub(crate) fn kept(&self, id: &EndpointId) -> Option<&SignedRecord> {
        self.tombstones.kept(id)
    }

    /// Returns the owners of all records for [`Book::kept`], and how often each was dialed.
    pub(crate) fn all_kept(&self) -> impl Iterator<Item = (EndpointId, u32)> + '_ {
        self.tombstones.all_kept().filter(|(id, _)| self.access.admits(id))
    }

    /// Counts a dial to the owner of such a record.
    pub(crate) fn tried_kept(&mut self, id: &EndpointId) {
        self.tombstones.tried_kept(id);
    }

    /// Returns true if this life of the node has heard nothing of a node.
    pub(crate) fn is_unmet(&self, id: &EndpointId) -> bool {
        self.sequence(id).is_none() || self.kept(id).is_some()
    }

    /// Returns the record to show for a node, and its age: the live record, or the signed leave.
    pub(crate) fn evidence(
        &self,
        id: &EndpointId,
        now: Instant,
    ) -> Option<(&SignedRecord, Duration)> {
        if let Some(member) = self.members.get(id) {
            let age = self.nanos_at(now).saturating_sub(member.heard);
            return Some((&member.signed, Duration::from_nanos(u64::try_from(age).unwrap_or(0))));
        }
        let since = self.tombstones.since(id)?;
        Some((self.tombstones.leave(id)?, now.saturating_duration_since(since)))
    }

    /// Returns what to show of a node to a peer of another opinion: a record, its age, and the
    /// accusation if the node is suspected or held to be dead.
    pub(crate) fn testimony(
        &self,
        id: &EndpointId,
        now: Instant,
    ) -> Option<(&SignedRecord, Duration, Option<&Bytes>)> {
        if let Some((signed, age)) = self.evidence(id, now) {
            return Some((signed, age, self.accusations.get(id)));
        }
        let (accusation, since) = (self.tombstones.accusation(id)?, self.tombstones.since(id)?);
        let signed = self.tombstones.signed(id)?;
        Some((signed, now.saturating_duration_since(since), Some(accusation)))
    }

    /// Returns true if these very bytes are the last record of a node that is gone.
    pub(crate) fn is_tombstone_of(&self, id: &EndpointId, bytes: &[u8]) -> bool {
        self.kept(id).is_none()
            && self.tombstones.signed(id).is_some_and(|signed| signed.bytes() == bytes)
    }

    /// Returns true if the book holds these very bytes for a node, as a live record or as a leave.
    pub(crate) fn holds(&self, id: &EndpointId, bytes: &[u8]) -> bool {
        let member = self.members.get(id).map(|member| &member.signed);
        member.or_else(|| self.tombstones.leave(id)).is_some_and(|signed| signed.bytes() == bytes)
    }

    /// Returns the highest sequence number that is known of a node, whether it is live or gone.
    pub(crate) fn sequence(&self, id: &EndpointId) -> Option<u64> {
        let member = self.members.get(id).map(|member| member.signed.record().sequence);
        member.or_else(|| self.tombstones.sequence(id))
    }

    /// Applies a verified record that its owner sent, and that was `age` old when it arrived.
    pub(crate) fn apply(&mut self, signed: SignedRecord, age: Duration, now: Instant) -> Applied {
        self.apply_from(Source::Owner, signed, age, now)
    }

    /// As [`Book::apply`], for a record of any source.
    pub(crate) fn apply_from(
        &mut self,
        source: Source,
        signed: SignedRecord,
        age: Duration,
        now: Instant,
    ) -> Applied {
        let record = Arc::clone(signed.record());
        let id = record.id;
        let old = |known| record.sequence < known || (record.sequence == known && !self.equal_wins);
        if self.sequence(&id).is_some_and(old) {
            return if self.holds(&id, signed.bytes()) { Applied::Same } else { Applied::Stale };
        }
        if record.status == Status::Left {
            let stranger = self.sequence(&id).is_none();
            if stranger && self.tombstones.is_full() {
                // Invented leaves must not push out the tombstones that keep old records of
                // departed nodes from coming back.
                return Applied::Full;
            }
            let at = self.nanos_at(now);
            let was = self.remove_member(&id, now);
            let past = was.as_ref().map_or(Past::UNSEEN, |member| member.past(at));
            let was = was.map(|member| Arc::clone(member.signed.record()));
            self.end(signed, None, past, now);
            return was.map_or(Applied::LeftUnseen, Applied::Left);
        }
        if age >= record.expiration.min(TOMBSTONE_AGE) {
            return Applied::Stale;
        }
        let was = self.remove_member(&id, now);
        if was.is_none() && id != self.me && !self.make_room(&record, source, now) {
            return Applied::Full;
        }
        self.tombstones.forget(&id);
        let now = self.nanos_at(now);
        let since = was.as_ref().map_or_else(|| seconds(now), |was| was.since);
        let heard = now.saturating_sub(nanos(age));
        let known = was.as_ref().map(|was| was.introducer);
        let introducer = match known.map(|slot| self.shares.introducer(slot)) {
            Some(known) => known.filter(|_| source != Source::Owner),
            None => source.introducer(),
        };
        let introducer = introducer.map_or(REACHED, |peer| self.shares.add(peer, &record));
        self.insert_member(id, Member { signed, received: now, heard, since, introducer });
        let applied = match was {
            None => {
                if nanos(age) < GROWTH {
                    self.count_newcomer(now);
                }
                Applied::Joined
            }
            Some(was) if was.signed.record().same_content(&record) => return Applied::Refreshed,
            Some(_) => Applied::Updated,
        };
        self.visible_changes += 1;
        applied
    }

    /// Returns true if there is room for a newcomer. In a full book, a hidden node gives way to a
    /// newcomer that is not kept out, or else a member that is known by hearsay.
    fn make_room(&mut self, newcomer: &NodeRecord, source: Source, now: Instant) -> bool {
        let full = self.is_full();
        if !full && !matches!(source, Source::Beyond(_)) {
            return true;
        }
        if !self.admits(&newcomer.id) {
            return false;
        }
        if let Some(hidden) = self.hidden.last().copied().filter(|_| full) {
            return self.remove_member(&hidden, now).is_some();
        }
        let Some(victim) = self.victim(newcomer, source, now) else { return false };
        let member = self.remove_member(&victim, now).expect("it was found a moment ago");
        debug_assert_ne!(member.introducer, REACHED, "a reached member is never displaced");
        // Partners of syncs may still hold this record, so it must not come again.
        self.tombstones.fade(victim, member.signed.record().sequence, now);
        self.displaced.push(Arc::clone(member.signed.record()));
        true
    }

    /// Chooses a member that gives way to a newcomer.
    fn victim(&self, newcomer: &NodeRecord, source: Source, now: Instant) -> Option<EndpointId> {
        let at = self.nanos_at(now);
        let young = |member: &Member| !member.is_established(at);
        match source {
            Source::Beyond(introducer) => {
                let slot = self.shares.slot(&introducer)?;
                let of_slot = |member: &Member| young(member) && member.introducer == slot;
                self.first_to_go(of_slot).map(|(_, victim)| victim)
            }
            Source::Hearsay(introducer) => {
                let own = self.shares.weight(self.shares.slot(&introducer), newcomer);
                let (weight, victim) = self.first_to_go(young)?;
                (weight >= own).then_some(victim)
            }
            Source::Owner => {
                let victim = self.first_to_go(young);
                let victim = victim.or_else(|| {
                    let few = self.neighbors_of(newcomer, at) <= self.capacity / SHARE_OF;
                    if few { self.first_to_go(|_| true) } else { None }
                });
                victim.map(|(_, victim)| victim)
            }
        }
    }

    /// Returns the hearsay member that goes first among those for which `may_go` is true, and the
    /// size of its share: of the largest share, the middle one in the order in which they came. A
    /// flood takes the places of its own members. Those that were there before it keep theirs, and
    /// those that come meanwhile have time to be reached.
    fn first_to_go(&self, may_go: impl Fn(&Member) -> bool) -> Option<(usize, EndpointId)> {
        let hearsay = self.members.iter().filter(|(id, member)| {
            member.introducer != REACHED && **id != self.me && may_go(member)
        });
        let (mut largest, mut of_it) = (0, Vec::new());
        for (id, member) in hearsay {
            let weight = self.shares.weight(Some(member.introducer), member.signed.record());
            if weight > largest {
                largest = weight;
                of_it.clear();
            }
            if weight == largest {
                of_it.push((member.since, member.received, *id));
            }
        }
        let middle = of_it.len().checked_sub(1)? / 2;
        let (_, (.., id), _) = of_it.select_nth_unstable(middle);
        Some((largest, *id))
    }

    /// Returns how many young members that this node reached claim to be in a network of another
    /// one. A host can run as many nodes as it wants.
    fn neighbors_of(&self, newcomer: &NodeRecord, at: Nanos) -> usize {
        let others = self.members.iter().filter(|(id, member)| {
            **id != self.me && member.introducer == REACHED && !member.is_established(at)
        });
        others.filter(|(_, member)| share_a_network(member.signed.record(), newcomer)).count()
    }

    /// Returns true if a member completed a handshake with this node. Of a node that is gone: if it
    /// had.
    pub(crate) fn is_reached(&self, id: &EndpointId) -> bool {
        match self.members.get(id) {
            Some(member) => member.introducer == REACHED,
            None => self.tombstones.past(id).reached,
        }
    }

    /// Returns how many members completed a handshake with this node.
    pub(crate) fn reached(&self) -> usize {
        let reached = |(id, member): &(&EndpointId, &Member)| {
            **id != self.me && member.introducer == REACHED && self.admits(id)
        };
        self.members.iter().filter(reached).count()
    }

    /// A member completed a handshake with this node.
    pub(crate) fn reach(&mut self, id: &EndpointId) {
        if let Some(member) = self.members.get_mut(id) {
            self.shares.remove(member.introducer, member.signed.record());
            member.introducer = REACHED;
        }
    }

    /// Returns true if a newcomer would take the place of another node.
    pub(crate) fn is_full(&self) -> bool {
        self.len_with_hidden() >= self.capacity
    }

    /// Returns how many members one peer may introduce, however full the book is.
    pub(crate) fn share(&self) -> usize {
        (self.capacity / SHARE_OF).max(SHARE_MIN)
    }

    /// Returns how many more members a peer may introduce that this node has not reached: its share
    /// in all, or as many as there is room for others.
    pub(crate) fn share_left(&self, introducer: &EndpointId) -> usize {
        let room = self.capacity.saturating_sub(self.len_with_hidden());
        self.share().max(room).saturating_sub(self.shares.of(introducer))
    }

    /// Returns true if a record is not that of a newcomer: its owner is a member, or was one.
    pub(crate) fn is_known(&self, id: &EndpointId) -> bool {
        self.members.contains_key(id) || self.tombstones.contains(id)
    }

    /// Returns the last records of the members that made room for others since the last call.
    pub(crate) fn take_displaced(&mut self) -> Vec<Arc<NodeRecord>> {
        std::mem::take(&mut self.displaced)
    }

    /// Replaces the live entries by these records, the own one included. Their owners count as
    /// established.
    pub(crate) fn preload(&mut self, records: &[SignedRecord], now: Instant) {
        let at = self.nanos_at(now);
        let member = |signed: &SignedRecord| {
            let member = Member {
                signed: signed.clone(),
                received: at,
                heard: at,
                since: seconds(at - ESTABLISHED - SECOND),
                introducer: REACHED,
            };
            (signed.record().id, member)
        };
        // A map that is collected at once has full nodes, and takes less memory.
        self.members = records.iter().map(member).collect();
        self.change(at);
        self.visible_changes += 1;
        self.bytes = records.iter().map(|signed| signed.bytes().len()).sum();
        self.digest = Digest::default();
        for signed in records.iter().filter(|signed| signed.record().id != self.me) {
            self.digest.add(signed.digest());
        }
        let others = self.members.iter().filter(|(id, _)| **id != self.me);
        self.next_look = others.map(|(_, member)| member.expires()).min();
    }

    /// Returns when [`Book::expire`] is due.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.next_look.map(|at| self.instant(at))
    }

    /// Removes the nodes that were not heard for the expiration that they announced, and returns
    /// their last records.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Arc<NodeRecord>> {
        let at = self.nanos_at(now);
        if self.next_look.is_none_or(|look| look > at) {
            return Vec::new();
        }
        (self.looked, self.next_look) = (at, None);
        let mut due = Vec::new();
        let mut next: Option<Nanos> = None;
        for (id, member) in self.members.iter().filter(|(id, _)| **id != self.me) {
            let expires = member.expires();
            if expires <= at {
                due.push((expires, *id));
            } else {
                next = Some(next.map_or(expires, |next| next.min(expires)));
            }
        }
        if let Some(next) = next {
            self.look_by(next);
        }
        due.sort_unstable();
        debug_assert!(
            self.next_look.is_none_or(|look| look > at),
            "each scan is later than the last"
        );
        let mut expired = Vec::new();
        for (_, id) in due {
            let member = self.remove_member(&id, now).expect("what expires is there");
            expired.push(Arc::clone(member.signed.record()));
            let past = member.past(at);
            self.end(member.signed, None, past, now);
        }
        expired
    }

    fn look_by(&mut self, at: Nanos) {
        let at = at.max(self.looked + LOOKS_APART);
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }

    fn insert_member(&mut self, id: EndpointId, member: Member) {
        debug_assert_eq!(id, member.signed.record().id, "an entry is under its owner's id");
        self.change(member.received);
        self.bytes += member.signed.bytes().len();
        if id != self.me {
            if self.access.admits(&id) {
                self.digest.add(member.signed.digest());
            } else {
                self.hidden.insert(id);
                self.hidden_digest.add(member.signed.digest());
            }
            self.look_by(member.expires());
        }
        let old = self.members.insert(id, member);
        debug_assert!(old.is_none(), "an old entry is removed before a new one");
    }

    fn remove_member(&mut self, id: &EndpointId, now: Instant) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.change(self.nanos_at(now));
        self.bytes -= member.signed.bytes().len();
        self.shares.remove(member.introducer, member.signed.record());
        if self.hidden.remove(id) {
            self.hidden_digest.subtract(member.signed.digest());
        } else if *id != self.me {
            self.digest.subtract(member.signed.digest());
        }
        debug_assert!(self.hidden.len() <= self.members.len(), "only members are hidden");
        debug_assert!(
            !self.members.is_empty() || self.bytes == 0,
            "the size is that of the entries"
        );
        self.accusations.remove(id);
        Some(member)
    }

    /// Makes a tombstone of a node that is no member, or is none any more.
    fn end(&mut self, signed: SignedRecord, accusation: Option<Bytes>, past: Past, now: Instant) {
        debug_assert!(
            !self.members.contains_key(&signed.record().id),
            "a node is a member, or gone"
        );
        self.visible_changes += 1;
        self.tombstones.add(signed, accusation, past, now);
    }

    /// Returns the fingerprint of the live records with ids in a range, and their number.
    pub(crate) fn fingerprint(
        &self,
        range: (Bound<EndpointId>, Bound<EndpointId>),
    ) -> ([u8; 16], u64) {
        if range == (Bound::Unbounded, Bound::Unbounded) {
            let count = self.members.len() as u64;
            return (self.whole_digest().fingerprint(count), count);
        }
        let mut sum = Digest::default();
        let mut count = 0;
        for member in self.members.range(range).map(|(_, member)| member) {
            sum.add(member.signed.digest());
            count += 1;
        }
        (sum.fingerprint(count), count)
    }

    /// Returns the ids and sequence numbers of the live records with ids in a range.
    pub(crate) fn range(
        &self,
        range: (Bound<EndpointId>, Bound<EndpointId>),
    ) -> impl Iterator<Item = (EndpointId, u64)> + '_ {
        self.members.range(range).map(|(id, member)| (*id, member.signed.record().sequence))
    }
}
