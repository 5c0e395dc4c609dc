//! The intake of records: which of those that peers send are verified and applied to the book.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;
mod updates;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    effect::{Effect, Effects, NewRecord},
    scope::{Scope, log},
};
use crate::{
    book::{Applied, Source},
    budget::{Budgets, Rate},
    drops::DropReason,
    error::Error,
    event::{CloseCode, LostReason, OutEvent, TopicEvent},
    id::EndpointId,
    record::{NodeRecord, Status},
    rule::Rule,
    wire::TopicFrame,
};

/// A share of newcomers that is used up is full again after this time, in seconds.
const INTRODUCTIONS_REFILL: f64 = 600.0;
/// The newcomers that one peer introduces in the place of others, because its share is used up or
/// the book is full, per second and at once. So an honest peer whose share others used up is still
/// heard.
const IN_PLACE: Rate = Rate { messages: (2.0, 64.0), bytes: (1.0, 1.0) };

/// A record that a peer sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) bytes: &'a Bytes,
    /// How old the record was when it arrived.
    pub(super) age: Duration,
    pub(super) way: Way,
    /// The peer that sent it, which need not be its owner.
    pub(super) from: EndpointId,
}

/// How a record arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A peer forwarded it of its own accord. Such a record has no age.
    Forwarded,
    /// A sync brought it, among all others that the books differ in.
    Synced,
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whose record it is.
    pub(super) id: EndpointId,
    pub(super) applied: Applied,
}

/// What limits the records that peers send.
#[derive(Debug)]
pub(super) struct Ingest {
    /// The budgets of updates of members' records.
    updates: updates::Updates,
    /// The budgets of newcomers that each peer introduces.
    introductions: Budgets,
    /// The budgets of newcomers that each peer introduces in the place of others.
    in_place: Budgets,
}

impl Ingest {
    /// Makes the budgets for a book of this capacity.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            updates: updates::Updates::new(capacity),
            introductions: Budgets::default(),
            in_place: Budgets::default(),
        }
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("shares of introducers", self.introductions.len()),
            ("newcomers in the place of others", self.in_place.len()),
            ("budgets of updates", self.updates.len()),
        ]
    }

    /// Applies a record to the book if it is new here, is within the budgets, and verifies. A
    /// record that does not verify is an error, and closes the link: honest peers verify before
    /// they forward.
    pub(super) fn take(
        &mut self,
        incoming: Incoming,
        scope: &mut Scope,
    ) -> Result<(Taken, Effects), Error> {
        let taken = self.judge(incoming, scope);
        if let Err(error) = &taken {
            scope.refuse(error, incoming.from);
        }
        taken
    }

    fn judge(
        &mut self,
        Incoming { bytes, age, way, from }: Incoming,
        scope: &mut Scope,
    ) -> Result<(Taken, Effects), Error> {
        let opened = scope.cx.open_record(&scope.topic, bytes)?;
        let id = opened.claimed();
        let ignored = |applied| Ok((Taken { id, applied }, Effects::none()));
        if scope.book.holds(&id, bytes) {
            return ignored(Applied::Same);
        }
        let of_tombstone = id != from && scope.book.is_tombstone_of(&id, bytes);
        if of_tombstone && scope.cx.is_on(Rule::EqualSequences) {
            return ignored(Applied::Stale);
        }
        let Some(source) = self.source(way, &id, from, scope) else {
            return ignored(Applied::Full);
        };
        let signed = scope.cx.verify_record(&scope.topic, opened)?;
        let record = Arc::clone(signed.record());
        if way == Way::Synced && !self.may_bury(&record, from, scope) {
            return ignored(Applied::Full);
        }
        if id == scope.me() {
            let effects = Effects::one(Effect::Outrun(record));
            return Ok((Taken { id, applied: Applied::Stale }, effects));
        }
        if !self.may_update(&record, from, scope) {
            return ignored(Applied::Stale);
        }
        debug_assert!(id != scope.me(), "only this node changes its own entry");
        let applied = scope.book.apply_from(source, signed, age, scope.cx.now);
        let mut effects = report_displaced(scope);
        report_kept_out(&applied, &record, scope);
        report(&applied, &record, from, &mut effects, scope);
        Ok((Taken { id, applied }, effects))
    }

    /// Returns how a record may enter the book. `None` if it is that of a newcomer, and the peer
    /// that brought it has introduced too many.
    fn source(
        &mut self,
        way: Way,
        id: &EndpointId,
        from: EndpointId,
        scope: &mut Scope,
    ) -> Option<Source> {
        if *id == scope.me() || *id == from || scope.cx.links.current(id).is_some() {
            return Some(Source::Owner);
        }
        if is_uncounted(way, id, from, 0, scope) {
            return Some(Source::Hearsay(from));
        }
        let (full, rate, now) = (scope.book.is_full(), share(scope), scope.now());
        debug_assert!(!scope.book.is_known(id), "known nodes are not counted as newcomers");
        let within = !full && scope.book.share_left(&from) > 0;
        if within && self.introductions.take(from, rate, now) {
            return Some(Source::Hearsay(from));
        }
        if way == Way::Forwarded && self.in_place.take(from, IN_PLACE, now) {
            return Some(if full { Source::Hearsay(from) } else { Source::Beyond(from) });
        }
        scope.dropped(DropReason::NewcomersOverTheShareOfTheirIntroducer, Some(from));
        None
    }

    /// Returns true if a sync may bring the leave of a node that is unknown here. They are as many
    /// as the newcomers that a peer may introduce.
    fn may_bury(&mut self, record: &NodeRecord, from: EndpointId, scope: &mut Scope) -> bool {
        let counted = record.status == Status::Left
            && !scope.book.is_known(&record.id)
            && !scope.peers.is_named(&from);
        let may = !counted || self.introductions.take(from, share(scope), scope.now());
        if !may {
            scope.dropped(DropReason::NewcomersOverTheShareOfTheirIntroducer, Some(from));
        }
        may
    }

    /// Returns true if an update of a live member is within the budgets. A leave is not counted.
    /// Neither is a record of a suspected member, because it may refute.
    fn may_update(&mut self, record: &NodeRecord, from: EndpointId, scope: &mut Scope) -> bool {
        let id = &record.id;
        let known = scope.book.get(id).map(|live| live.signed.record().sequence);
        if known.is_none_or(|known| record.sequence <= known)
            || record.status != Status::Alive
            || scope.book.is_suspected(id)
        {
            return true;
        }
        let within = self.updates.take(*id, from, scope.now());
        if !within {
            scope.dropped(DropReason::UpdatesOverTheBudgetOfAPeer, Some(from));
        }
        within
    }
}

/// Verifies those records of a frame together that will certainly be verified. The record of a
/// newcomer is not one of them, if it counts toward the share of its introducer.
pub(super) fn verify_ahead<'a>(
    way: Way,
    records: impl IntoIterator<Item = &'a Bytes>,
    from: EndpointId,
    scope: &mut Scope,
) {
    let opened = records.into_iter().enumerate().filter_map(|(place, bytes)| {
        let opened = scope.cx.open_record(&scope.topic, bytes).ok()?;
        let id = opened.claimed();
        let is_known = scope.book.holds(&id, bytes) || scope.book.is_tombstone_of(&id, bytes);
        (!is_known && is_uncounted(way, &id, from, place, scope)).then_some(opened)
    });
    let opened = opened.collect();
    scope.cx.verify_ahead(&scope.topic, opened);
}

/// Returns the rate at which one peer introduces newcomers.
fn share(scope: &Scope) -> Rate {
    let most = f64::from(u32::try_from(scope.book.share()).unwrap_or(u32::MAX));
    Rate { messages: (most / INTRODUCTIONS_REFILL, most), bytes: (1.0, 1.0) }
}

/// Returns true if the record at a place in a frame is not counted in the rate at which a peer
/// introduces newcomers. Records of known members are not, and those that a peer brings which the
/// user named. In syncs, and if the peer is established, the share of the book alone limits them: a
/// part of a swarm may come with all of its members.
fn is_uncounted(way: Way, id: &EndpointId, from: EndpointId, place: usize, scope: &Scope) -> bool {
    let free = || way == Way::Synced || scope.is_trusted(&from);
    *id == from
        || scope.book.is_known(id)
        || (!scope.book.is_full()
            && (scope.peers.is_named(&from) || (free() && scope.book.share_left(&from) > place)))
}

/// Reports the members that made room for a newcomer.
fn report_displaced(scope: &mut Scope) -> Effects {
    let mut effects = Effects::none();
    for record in scope.book.take_displaced() {
        log(scope.topic, &record, "peer lost: displaced");
        scope.dropped(DropReason::MembersDisplaced, Some(record.id));
        effects.push(Effect::Gone(record.id));
        scope.emit(TopicEvent::PeerLost(record, LostReason::Displaced));
    }
    effects
}

/// Reports the record of a node that is kept out, or that the application has not admitted yet.
fn report_kept_out(applied: &Applied, record: &Arc<NodeRecord>, scope: &mut Scope) {
    let id = record.id;
    if scope.book.admits(&id) {
        return;
    }
    if scope.cx.links.access().is_undecided(&id) {
        if scope.book.get_with_hidden(&id).is_some() && applied.is_news() {
            let undecided = TopicEvent::Undecided(Arc::clone(record));
            scope.cx.links.out.push_back(OutEvent::Topic(scope.topic, undecided));
        }
    } else if *applied == Applied::Joined {
        scope.dropped(DropReason::RecordsOfPeersThatAreKeptOut, Some(id));
    }
}

/// Reports an applied record to the application, and adds what follows from it.
fn report(
    applied: &Applied,
    record: &Arc<NodeRecord>,
    from: EndpointId,
    effects: &mut Effects,
    scope: &mut Scope,
) {
    let id = record.id;
    if scope.book.admits(&id) {
        log_applied(applied, record, scope);
    }
    // If the member restarted, a link to its old process, which is dead, may still be open.
    let link_boot_id = scope.cx.links.boot_id(&id);
    let earlier_life = link_boot_id.is_some_and(|boot_id| boot_id != record.boot_id);
    match applied {
        Applied::Joined => scope.emit(TopicEvent::PeerJoined(Arc::clone(record))),
        Applied::Updated => scope.emit(TopicEvent::PeerUpdated(Arc::clone(record))),
        Applied::Refreshed => scope.emit(TopicEvent::PeerRefreshed(Arc::clone(record))),
        Applied::Left(was) => {
            effects.push(Effect::Gone(id));
            scope.emit(TopicEvent::PeerLeft(Arc::clone(was)));
        }
        Applied::Full => scope.dropped(DropReason::NewcomersBeyondTheCapacity, Some(id)),
        // The owner lags behind its own earlier records. If it is shown one, it jumps above it.
        Applied::Stale if id == from => show_evidence(&id, scope),
        Applied::LeftUnseen | Applied::Same | Applied::Stale => {}
    }
    if applied.is_news() {
        let record = Arc::clone(record);
        effects.push(Effect::Applied(NewRecord { record, applied: applied.clone(), from }));
        if *applied == Applied::Updated && earlier_life && from != id {
            effects.push(Effect::Close(id, CloseCode::Replaced));
        }
    }
}

fn log_applied(applied: &Applied, record: &NodeRecord, scope: &Scope) {
    match applied {
        Applied::Joined => log(scope.topic, record, "peer joined"),
        Applied::Left(_) => log(scope.topic, record, "peer left"),
        // An application may update often, so this is no line for the info level.
        Applied::Updated => {
            let (topic, peer) = (scope.topic.fmt_short(), record.id.fmt_short());
            tracing::debug!(%topic, %peer, sequence = record.sequence, "peer updated");
        }
        _ => {}
    }
}

/// Sends a node the newest record of it that is held here.
fn show_evidence(id: &EndpointId, scope: &mut Scope) {
    let live = scope.book.evidence(id, scope.now()).map(|(signed, _)| signed);
    if let Some(signed) = live.or_else(|| scope.book.last_record(id)) {
        let frame = TopicFrame::Push(vec![signed.bytes().clone()]);
        scope.send(id, frame);
    }
}
