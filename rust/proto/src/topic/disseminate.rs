//! Dissemination: what this node forwards. Records and accusations go to all members in batches
//! through the overlay, and records go directly to newcomers that are not in the overlay yet.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    effect::{Effect, Effects, NewRecord, Pushed},
    ingest::Taken,
    scope::Scope,
    seen::Seen,
};
use crate::{
    accusation::Accusation,
    book::Applied,
    context::MAX_LAG,
    drops::DropReason,
    id::EndpointId,
    rule::Rule,
    timers::{Timers, jitter},
    wire::{Item, MAX_CONTENT, MAX_RECORDS, encode_content},
};

/// Records that arrive within this time are forwarded together. In a burst, that time is 0.5 ms for
/// each member, at most [`BATCH_MAX`].
const BATCH: Duration = Duration::from_millis(5);
const BATCH_MAX: Duration = Duration::from_millis(250);
/// Two batches within this time make a burst.
const BURST: Duration = Duration::from_millis(100);
/// The least time that gossip has to bring what a sync brought, before this node forwards it.
const DEFER: Duration = Duration::from_millis(50);
/// If a member has known a newcomer for less than this time, gossip is still bringing it to all,
/// however busy they are.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// The own record waits this long at most for the end of a sync that brings it to a partner.
const HOLD: Duration = Duration::from_secs(2);
/// If more records than this are deferred, many nodes would forward all of them. Instead, this node
/// compares books with the neighbors that may lack them, for [`ASK_FOR`]. It looks for such
/// neighbors every [`ASK_AGAIN`].
const FEW: usize = 8;
const ASK_FOR: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Room in a broadcast for the array and the heads of its items.
const CONTENT_ROOM: usize = MAX_CONTENT - 16;
const ITEM_OVERHEAD: usize = 5;
/// The most accusations that wait to be forwarded.
const MAX_ACCUSATIONS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Dissemination {
    /// Owners of the records that go to all members with the next batch.
    records: VecDeque<EndpointId>,
    /// Accusations that go to all members with the next batch.
    accusations: VecDeque<Accusation>,
    /// What goes to newcomers with the next batch.
    pushes: Vec<Pushed>,
    last_batch: Option<Instant>,
    /// Since when the own record waits because a sync is bringing it to a partner.
    held: Option<Instant>,
    /// New records of a sync that the overlay may bring as well. They are forwarded if it does not.
    deferred: BTreeMap<EndpointId, Deferred>,
    /// Contents that passed recently.
    seen: Seen,
    timers: Timers<Timer>,
}

/// A record that a sync brought, and that the overlay may bring as well.
#[derive(Debug)]
struct Deferred {
    /// When it is checked next, and forwarded if that is needed.
    at: Instant,
    /// Set once books are compared with neighbors instead: when that ends.
    ask_until: Option<Instant>,
}

/// The timers of dissemination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Send a batch to members and newcomers.
    Batch,
    /// Forward what a sync brought and the overlay did not.
    Deferred,
}

impl Dissemination {
    pub(super) fn sizes(&self) -> [(&'static str, usize); 5] {
        [
            ("records to disseminate", self.records.len()),
            ("accusations", self.accusations.len()),
            ("pushes", self.pushes.len()),
            ("deferred", self.deferred.len()),
            ("contents seen", self.seen.len()),
        ]
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn timeout(&self, timer: Timer) -> Option<Instant> {
        self.timers.at(timer)
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.accusations.clear();
        self.timers.clear_all();
    }

    /// Forgets what waits, because all members know all records.
    pub(super) fn preload(&mut self) {
        self.records.clear();
        self.timers.clear(Timer::Batch);
    }

    /// Sends a record to all members with the batch after this delay.
    pub(super) fn send_after(&mut self, delay: Duration, id: EndpointId, scope: &mut Scope) {
        self.push(id, scope.me(), scope);
        if !self.records.contains(&id) {
            self.records.push_back(id);
        }
        self.timers.set_by(Timer::Batch, scope.now() + delay);
    }

    /// Sends a record to all members with the next batch.
    pub(super) fn send_soon(&mut self, id: EndpointId, scope: &mut Scope) {
        self.send_after(self.batch_delay(scope), id, scope);
    }

    /// A record that was new here is in the book.
    pub(super) fn on_applied(&mut self, new: &NewRecord, scope: &mut Scope) {
        self.push(new.record.id, new.from, scope);
    }

    /// Sends a record to newcomers with the next batch. Pushes go along the links of first syncs,
    /// in both directions if neither end is in the overlay: while a swarm forms, they connect nodes
    /// that the overlay does not connect yet.
    fn push(&mut self, id: EndpointId, from: EndpointId, scope: &mut Scope) {
        if scope.view.has_newcomers && !self.pushes.iter().any(|pushed| pushed.id == id) {
            self.pushes.push(Pushed { id, from });
            debug_assert!(
                self.pushes.len() <= scope.book.len_with_hidden() + scope.book.tombstones() + 1,
                "each record is pushed once in a batch"
            );
            self.batch_soon(scope);
        }
    }

    /// Sends an accusation to all members, because no broadcast brought it.
    pub(super) fn accuse(&mut self, accusation: Accusation, scope: &mut Scope) {
        if self.accusations.len() < MAX_ACCUSATIONS {
            self.accusations.push_back(accusation);
            self.batch_soon(scope);
            debug_assert!(self.accusations.len() <= MAX_ACCUSATIONS, "a flood costs no more");
        } else {
            let accused = Some(accusation.accused);
            scope.dropped(DropReason::AccusationsThatCouldNotBeDisseminated, accused);
        }
    }

    fn batch_soon(&mut self, scope: &Scope) {
        self.timers.set_by(Timer::Batch, scope.now() + self.batch_delay(scope));
    }

    fn batch_delay(&self, scope: &Scope) -> Duration {
        let burst =
            self.last_batch.is_some_and(|at| scope.now().saturating_duration_since(at) < BURST);
        let delay = if burst { (scope.spread() / 10).clamp(BATCH, BATCH_MAX) } else { BATCH };
        delay.max(scope.cx.lag() / 8)
    }

    /// A member became a neighbor: what waited for one goes out now.
    pub(super) fn neighbor_up(&mut self, scope: &mut Scope) {
        if !self.records.is_empty() || !self.accusations.is_empty() {
            self.timers.set_by(Timer::Batch, scope.now());
        }
    }

    /// A sync that brought the own record to a partner is over. If the partner does not forward the
    /// record, this node does.
    pub(super) fn introduction_over(&mut self, scope: &mut Scope) {
        let again = scope.view.introducing.is_some();
        if !again && self.held.take().is_some() && self.records.contains(&scope.me()) {
            self.timers.set_by(Timer::Batch, scope.now());
        }
    }

    /// Keeps the own record out of the next batch while a sync is bringing it to a partner that may
    /// forward it. On a busy machine each newcomer would otherwise make a broadcast of its own.
    /// Returns true if the record waits.
    fn hold(&mut self, scope: &Scope) -> bool {
        let (me, now) = (scope.me(), scope.now());
        let introducing = scope.view.introducing;
        if introducing.is_none() || introducing != scope.book.sequence(&me) {
            return false;
        }
        let until = *self.held.get_or_insert(now) + HOLD;
        if until <= now || !self.records.contains(&me) {
            return false;
        }
        self.timers.set_by(Timer::Batch, until);
        self.records.retain(|id| *id != me);
        true
    }

    /// A partner has this record, and disseminates it with those of others.
    pub(super) fn spared(&mut self, id: &EndpointId) {
        self.records.retain(|other| other != id);
    }

    /// The overlay brought a record. Unless this node knows a newer one, it need not forward it,
    /// because the overlay brings it to all members.
    pub(super) fn overheard(&mut self, id: &EndpointId, stale: bool) {
        self.deferred.remove(id);
        if !stale {
            self.spared(id);
        }
    }

    /// Returns the length of a content that passed recently, by its hash.
    pub(super) fn length(&self, hash: &[u8; 32]) -> Option<usize> {
        self.seen.length(hash)
    }

    /// Returns true if this content passed recently.
    pub(super) fn has_seen(&mut self, content: &[u8], now: Instant) -> bool {
        self.seen.contains(content, now)
    }

    /// Notes a content that the overlay is bringing to all members.
    pub(super) fn saw(&mut self, content: &[u8], now: Instant) {
        self.seen.insert(content, now);
    }

    /// A sync with this peer brought a new record of this age. `attached` is false if the peer is
    /// not in the overlay.
    pub(super) fn on_synced(
        &mut self,
        taken: &Taken,
        age: Duration,
        from: EndpointId,
        attached: bool,
        scope: &mut Scope,
    ) {
        let id = taken.id;
        if id == from && !attached {
            self.send_soon(id, scope);
        } else if !scope.view.neighbors.is_empty() && is_young(&id, age, scope) {
            // Newcomers come in bursts, and gossip is bringing them already. All other news is rare
            // and urgent.
            let young = if taken.applied == Applied::Joined { age } else { Duration::MAX };
            self.defer(id, young, scope);
        }
    }

    /// A sync brought a new record that others may lack. Gossip may be bringing it, and others may
    /// have got it by a sync too. So forwarding waits for a random time: the first node that
    /// forwards it spares the rest.
    fn defer(&mut self, id: EndpointId, age: Duration, scope: &mut Scope) {
        let under_way = UNDER_WAY.saturating_sub(age).max(DEFER + scope.cx.lag());
        let spread = scope.spread();
        let at = scope.now() + under_way + jitter(&mut scope.cx.rng, spread, 0.0..1.0);
        debug_assert!(id != scope.me(), "a node does not wait to hear of itself");
        self.deferred.entry(id).or_insert(Deferred { at, ask_until: None });
        self.timers.set_by(Timer::Deferred, at);
    }

    /// Forwards what was deferred and is due. `compared` says when the last complete comparison
    /// with a neighbor began.
    pub(super) fn on_deferred(
        &mut self,
        compared: &BTreeMap<EndpointId, Instant>,
        scope: &mut Scope,
    ) -> Effects {
        self.timers.clear(Timer::Deferred);
        let (now, lag) = (scope.now(), scope.cx.lag());
        let mut effects = Effects::none();
        // If this node is behind, other nodes and gossip probably are too. But none waits forever.
        let put_off = if lag > DEFER { MAX_LAG } else { Duration::ZERO };
        let many = self.deferred.len() > FEW;
        let due = self.deferred.iter().filter(|(_, deferred)| deferred.at + put_off <= now);
        let due: Vec<_> = due.map(|(id, deferred)| (*id, deferred.ask_until)).collect();
        for (id, ask_until) in due {
            let may_lack = neighbors_that_may_lack(&id, compared, scope);
            let alone = scope.view.neighbors.is_empty();
            let ask_until = ask_until.or_else(|| many.then(|| now + ASK_FOR));
            self.deferred.remove(&id);
            if may_lack.is_empty() && !alone {
                continue;
            }
            if ask_until.is_some_and(|until| now < until) {
                self.deferred.insert(id, Deferred { at: now + ASK_AGAIN, ask_until });
                effects.append(may_lack.into_iter().map(Effect::Sync).collect());
            } else {
                self.send_soon(id, scope);
            }
        }
        if let Some(next) = self.deferred.values().map(|deferred| deferred.at).min() {
            self.timers.set(Timer::Deferred, (now + lag).clamp(next, next + MAX_LAG));
        }
        effects
    }

    /// Sends a batch: to newcomers, and to all members if this node has a neighbor.
    pub(super) fn on_batch(&mut self, scope: &mut Scope) -> Effects {
        self.timers.clear(Timer::Batch);
        let now = scope.now();
        self.last_batch = Some(now);
        let mut effects = Effects::one(Effect::Push(std::mem::take(&mut self.pushes)));
        if scope.config.observer {
            // It will never have a neighbor.
            self.records.clear();
            self.accusations.clear();
        }
        if scope.view.neighbors.is_empty() {
            // The records wait for a neighbor. They are no more than the book has, because each id
            // is in it once.
            return effects;
        }
        let held = self.hold(scope);
        loop {
            let batch = self.next_batch(scope);
            if batch.is_empty() {
                self.records.extend(held.then(|| scope.me()));
                return effects;
            }
            let content = encode_content(&batch);
            debug_assert!(content.len() <= MAX_CONTENT, "others refuse a longer content");
            self.seen.insert(&content, now);
            if scope.cx.is_on(Rule::Dissemination) {
                effects.push(Effect::Broadcast(content));
            }
        }
    }

    /// Takes as many records and accusations as fit one broadcast.
    fn next_batch(&mut self, scope: &Scope) -> Vec<Item> {
        let mut batch = self.next_accusations(scope);
        let mut size: usize = batch.iter().map(|item| item.bytes().len() + ITEM_OVERHEAD).sum();
        while let Some(id) = self.records.front() {
            if let Some((signed, _)) = scope.book.evidence(id, scope.now()) {
                let bytes = signed.bytes().clone();
                let length = bytes.len() + ITEM_OVERHEAD;
                if size + length > CONTENT_ROOM || batch.len() == MAX_RECORDS {
                    break;
                }
                size += length;
                batch.push(Item::Record(bytes));
            }
            self.records.pop_front();
        }
        batch
    }

    /// Takes the accusations that are still worth forwarding, as many as fit one broadcast.
    fn next_accusations(&mut self, scope: &Scope) -> Vec<Item> {
        let mut items = Vec::new();
        let mut size = 0;
        while let Some(accusation) = self.accusations.front() {
            let known = scope.book.sequence(&accusation.accused);
            if known.is_some_and(|known| known <= accusation.sequence) {
                let length = accusation.bytes.len() + ITEM_OVERHEAD;
                if size + length > CONTENT_ROOM {
                    break;
                }
                size += length;
                items.push(Item::Accusation(accusation.bytes.clone()));
            }
            self.accusations.pop_front();
        }
        items
    }
}

/// Returns true if a record is young enough to be forwarded. Forwarded records carry no age, so a
/// record near its expiration would begin another life.
fn is_young(id: &EndpointId, age: Duration, scope: &Scope) -> bool {
    let live = scope.book.get_with_hidden(id);
    live.is_none_or(|live| age < live.signed.record().expiration / 2)
}

/// Returns the neighbors with which books were not compared since the record of a member arrived
/// here. The other neighbors have the record, and forward it themselves if that is needed.
fn neighbors_that_may_lack(
    id: &EndpointId,
    compared: &BTreeMap<EndpointId, Instant>,
    scope: &Scope,
) -> Vec<EndpointId> {
    let received = scope.book.received(id);
    let has = |peer: &EndpointId| {
        received.is_some_and(|at| compared.get(peer).is_some_and(|began| *began > at))
    };
    scope.view.neighbors.iter().filter(|peer| !has(peer)).copied().collect()
}
