//! Records and accusations that arrive: how they are verified and applied, and what follows.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Topic,
    scope::{Scope, log},
    sync::Learned,
};
use crate::{
    book::{Applied, Source},
    budget::Rate,
    drops::DropReason,
    error::Error,
    event::{CloseCode, LostReason, OutEvent, TopicEvent},
    id::{EndpointId, TopicId},
    record::{NodeRecord, Status},
    rule::Rule,
    state::Context,
    wire::{SyncFrame, TopicFrame},
};

/// A share of newcomers that is used up is full again after this time, in seconds.
const INTRODUCTIONS_REFILL: f64 = 600.0;
/// The newcomers that one peer introduces in the place of others, because its share is used up or
/// the book is full, per second and at once. So an honest peer whose share others used up is still
/// heard.
const IN_PLACE: Rate = Rate { messages: (2.0, 64.0), bytes: (1.0, 1.0) };

/// How a record arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A peer told it of its own accord.
    Told,
    /// A sync brought it, among all others that the books differ in.
    Synced,
}

fn log_applied(topic: TopicId, applied: &Applied, record: &NodeRecord) {
    match applied {
        Applied::Joined => log(topic, record, "peer joined"),
        Applied::Left(_) => log(topic, record, "peer left"),
        // An application may update often, so this is no line for the info level.
        Applied::Updated => {
            let (topic, peer) = (topic.fmt_short(), record.id.fmt_short());
            tracing::debug!(%topic, %peer, sequence = record.sequence, "peer updated");
        }
        _ => {}
    }
}

impl Topic {
    /// Takes in a record that `from` sent. A record that does not verify closes the link: honest
    /// peers verify before they forward.
    pub(super) fn learn(
        &mut self,
        bytes: &Bytes,
        age: Duration,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<(EndpointId, Applied), Error> {
        self.learn_by(Way::Told, bytes, age, from, cx)
    }

    fn learn_by(
        &mut self,
        way: Way,
        bytes: &Bytes,
        age: Duration,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<(EndpointId, Applied), Error> {
        let outcome = self.take_in(way, bytes, age, from, cx);
        if let Err(error) = &outcome {
            self.refuse(error, from, cx);
        }
        outcome
    }

    fn take_in(
        &mut self,
        way: Way,
        bytes: &Bytes,
        age: Duration,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<(EndpointId, Applied), Error> {
        let opened = cx.open_record(&self.id, bytes)?;
        let id = opened.claimed();
        if self.announcer.is_own(bytes) || self.book.holds(&id, bytes) {
            return Ok((id, Applied::Same));
        }
        if id != from && self.book.is_tombstone_of(&id, bytes) && cx.is_on(Rule::EqualSequences) {
            return Ok((id, Applied::Stale));
        }
        let Some(source) = self.source(way, &id, from, cx) else {
            return Ok((id, Applied::Full));
        };
        let signed = cx.verify_record(&self.id, opened)?;
        let record = Arc::clone(signed.record());
        if way == Way::Synced && !self.may_bury(&record, from, cx) {
            return Ok((id, Applied::Full));
        }
        if id == self.me {
            if record.sequence >= self.announcer.sequence() && !self.leave.is_begun() {
                self.announcer.outrun(&record, scope!(self, cx));
            }
            return Ok((id, Applied::Stale));
        }
        if !self.may_update(&record, from, cx) {
            return Ok((id, Applied::Stale));
        }
        let applied = self.book.apply_from(source, signed, age, cx.now);
        self.announce_displaced(cx);
        if self.book.admits(&id) {
            log_applied(self.id, &applied, &record);
        } else if cx.links.access().is_undecided(&id) {
            if self.book.get_with_hidden(&id).is_some() && applied.is_news() {
                let undecided = TopicEvent::Undecided(Arc::clone(&record));
                cx.links.out.push_back(OutEvent::Topic(self.id, undecided));
            }
        } else if applied == Applied::Joined {
            cx.links.dropped(DropReason::RecordsOfPeersThatAreKeptOut, Some(id));
        }
        let link_boot_id = cx.links.boot_id(&id);
        self.announce_applied(&applied, &record, from, cx);
        if applied.is_news() {
            self.contacts.on_news(&id, &applied, scope!(self, cx));
        }
        if matches!(applied, Applied::Joined) {
            self.neighborhood.view_grows(narrow_scope!(self, cx));
        }
        if applied.is_news() {
            let effects = self.detector.on_newer_record(&record, scope!(self, cx));
            self.carry_out(effects, cx);
            self.dissemination.push(id, from, scope!(self, cx));
            if applied != Applied::Refreshed {
                self.syncs.tell_digest_soon(scope!(self, cx));
            }
            // The member restarted, and the link to its old process, which is dead, is still open.
            let earlier_life = link_boot_id.is_some_and(|boot_id| boot_id != record.boot_id);
            if applied == Applied::Updated && earlier_life && from != id {
                cx.links.close_peer(&id, CloseCode::Replaced);
            }
            self.neighborhood.enter_soon(narrow_scope!(self, cx));
        }
        Ok((id, applied))
    }

    /// Reports an applied record to the application. If it is stale, shows its owner a newer one.
    fn announce_applied(
        &mut self,
        applied: &Applied,
        record: &Arc<NodeRecord>,
        from: EndpointId,
        cx: &mut Context,
    ) {
        let id = record.id;
        match applied {
            Applied::Joined => cx.emit(self.id, TopicEvent::PeerJoined(Arc::clone(record))),
            Applied::Updated => cx.emit(self.id, TopicEvent::PeerUpdated(Arc::clone(record))),
            Applied::Refreshed => cx.emit(self.id, TopicEvent::PeerRefreshed(Arc::clone(record))),
            Applied::Left(was) => {
                self.on_gone(id, cx);
                cx.emit(self.id, TopicEvent::PeerLeft(Arc::clone(was)));
            }
            Applied::Full => cx.links.dropped(DropReason::NewcomersBeyondTheCapacity, Some(id)),
            // The owner lags behind its own earlier records. If it is shown one, it jumps above it.
            Applied::Stale if id == from => self.show_evidence(id, from, cx),
            Applied::LeftUnseen | Applied::Same | Applied::Stale => {}
        }
    }

    /// Reports the members that made room for a newcomer.
    fn announce_displaced(&mut self, cx: &mut Context) {
        for record in self.book.take_displaced() {
            log(self.id, &record, "peer lost: displaced");
            cx.links.dropped(DropReason::MembersDisplaced, Some(record.id));
            self.on_gone(record.id, cx);
            cx.emit(self.id, TopicEvent::PeerLost(record, LostReason::Displaced));
        }
    }

    /// Takes in an accusation. See [`Detector::judge_accusation`](super::failure::Detector).
    pub(super) fn judge_accusation(
        &mut self,
        bytes: &Bytes,
        from: EndpointId,
        broadcast: bool,
        cx: &mut Context,
    ) -> Result<bool, Error> {
        let judged = self.detector.judge_accusation(bytes, from, broadcast, scope!(self, cx));
        let (news, effects) = judged?;
        self.carry_out(effects, cx);
        Ok(news)
    }

    /// A sync brought a record together with an accusation of its owner.
    pub(super) fn learn_accused(
        &mut self,
        record: &Bytes,
        age: Duration,
        accusation: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<(EndpointId, Applied), Error> {
        let opened = cx.open_record(&self.id, record)?;
        let id = opened.claimed();
        if id != self.me && self.book.is_unmet(&id) && cx.is_on(Rule::Unconfirmed) {
            if !self.detector.is_unconfirmed(&id) {
                let signed = cx.verify_record(&self.id, opened)?;
                let scope: &mut Scope = scope!(self, cx);
                let effects =
                    self.detector.keep_unconfirmed(signed, age, accusation, from, scope)?;
                self.carry_out(effects, cx);
            }
            return Ok((id, Applied::Stale));
        }
        let learned = self.learn_by(Way::Synced, record, age, from, cx)?;
        if cx.is_on(Rule::Unconfirmed) {
            self.judge_accusation(accusation, from, false, cx)?;
            self.detector.vouch(id, accusation, from, scope!(self, cx));
        }
        Ok(learned)
    }

    /// Takes in the entries of a sync's frame. `None` if one of them does not verify: then the
    /// link is closed.
    pub(super) fn learn_entries(
        &mut self,
        frame: &SyncFrame,
        from: EndpointId,
        cx: &mut Context,
    ) -> Option<Learned> {
        let suspected = self.detector.suspected();
        let mut learned = Learned::default();
        let records = frame.entries.iter().map(|entry| &entry.record);
        self.verify_ahead(Way::Synced, records, from, cx);
        for entry in &frame.entries {
            let age = Duration::from_millis(entry.age_ms);
            let outcome = match &entry.accusation {
                None => self.learn_by(Way::Synced, &entry.record, age, from, cx),
                Some(accusation) => self.learn_accused(&entry.record, age, accusation, from, cx),
            };
            let (id, applied) = outcome.ok()?;
            if applied.is_news() {
                learned.news += 1;
                self.on_synced_news((id, &applied, age), (from, frame.attached), cx);
            } else if matches!(applied, Applied::Full | Applied::Stale) && !self.book.is_known(&id)
            {
                // There was no room for it, now or before.
                learned.refused += 1;
            } else if applied == Applied::Stale
                && self.book.get_with_hidden(&id).is_none()
                && entry.accusation.is_none()
            {
                learned.outdated.push(id);
            }
        }
        learned.news += self.detector.suspected().saturating_sub(suspected);
        Some(learned)
    }

    /// A sync brought a record. Others may lack it too.
    fn on_synced_news(
        &mut self,
        (id, applied, age): (EndpointId, &Applied, Duration),
        (from, attached): (EndpointId, bool),
        cx: &mut Context,
    ) {
        if id == from && !attached {
            self.dissemination.send_soon(id, scope!(self, cx));
        } else if !self.neighborhood.neighbors().is_empty() && self.is_young(&id, age) {
            // Newcomers come in bursts, and gossip is bringing them already. All other news is rare
            // and urgent.
            let young = if *applied == Applied::Joined { age } else { Duration::MAX };
            self.dissemination.defer(id, young, scope!(self, cx));
        }
        self.syncs.on_news(applied, age, scope!(self, cx));
    }

    /// Returns true if a record is young enough to be forwarded. Forwarded records carry no age, so
    /// a record near its expiration would begin another life.
    fn is_young(&self, id: &EndpointId, age: Duration) -> bool {
        self.book.get_with_hidden(id).is_none_or(|live| age < live.signed.record().expiration / 2)
    }

    /// Returns how a record may enter the book. `None` if it is that of a newcomer, and the peer
    /// that brought it has introduced too many.
    fn source(
        &mut self,
        way: Way,
        id: &EndpointId,
        from: EndpointId,
        cx: &mut Context,
    ) -> Option<Source> {
        if *id == self.me || *id == from || cx.links.current(id).is_some() {
            return Some(Source::Owner);
        }
        if self.is_uncounted(way, id, from, 0, cx) {
            return Some(Source::Hearsay(from));
        }
        let (full, rate) = (self.book.is_full(), self.share());
        let within = !full && self.book.share_left(&from) > 0;
        if within && self.introductions.take(from, rate, cx.now) {
            return Some(Source::Hearsay(from));
        }
        if way == Way::Told && self.in_place.take(from, IN_PLACE, cx.now) {
            return Some(if full { Source::Hearsay(from) } else { Source::Beyond(from) });
        }
        cx.links.dropped(DropReason::NewcomersOverTheShareOfTheirIntroducer, Some(from));
        None
    }

    /// Returns true if a sync may bring the leave of a node that is unknown here. They are as many
    /// as the newcomers that a peer may introduce.
    fn may_bury(&mut self, record: &NodeRecord, from: EndpointId, cx: &mut Context) -> bool {
        let counted = record.status == Status::Left
            && !self.book.is_known(&record.id)
            && !self.peers.is_named(&from);
        let may = !counted || self.introductions.take(from, self.share(), cx.now);
        if !may {
            cx.links.dropped(DropReason::NewcomersOverTheShareOfTheirIntroducer, Some(from));
        }
        may
    }

    /// Returns the rate at which one peer introduces newcomers.
    fn share(&self) -> Rate {
        let most = f64::from(u32::try_from(self.book.share()).unwrap_or(u32::MAX));
        Rate { messages: (most / INTRODUCTIONS_REFILL, most), bytes: (1.0, 1.0) }
    }

    /// Returns true if the record at a place in a frame is not counted in the rate at which a peer
    /// introduces newcomers. Records of known members are not, and those that a peer brings which
    /// the user named. In syncs, and if the peer is established, the share of the book alone limits
    /// them: a part of a swarm may come with all of its members.
    fn is_uncounted(
        &self,
        way: Way,
        id: &EndpointId,
        from: EndpointId,
        place: usize,
        cx: &Context,
    ) -> bool {
        let free = || way == Way::Synced || self.peers.is_trusted(&from, &self.book, cx.now);
        *id == from
            || self.book.is_known(id)
            || (!self.book.is_full()
                && (self.peers.is_named(&from) || (free() && self.book.share_left(&from) > place)))
    }

    /// Verifies those records of a frame together that will certainly be verified. The record of a
    /// newcomer is not one of them, if it counts toward the share of its introducer.
    pub(super) fn verify_ahead<'a>(
        &self,
        way: Way,
        records: impl IntoIterator<Item = &'a Bytes>,
        from: EndpointId,
        cx: &mut Context,
    ) {
        let opened = records.into_iter().enumerate().filter_map(|(place, bytes)| {
            let opened = cx.open_record(&self.id, bytes).ok()?;
            let id = opened.claimed();
            let is_known = self.announcer.is_own(bytes)
                || self.book.holds(&id, bytes)
                || self.book.is_tombstone_of(&id, bytes);
            (!is_known && self.is_uncounted(way, &id, from, place, cx)).then_some(opened)
        });
        let opened = opened.collect();
        cx.verify_ahead(&self.id, opened);
    }

    /// Returns true if an update of a live member is within the budgets. A leave is not counted.
    /// Neither is a record of a suspected member, because it may refute.
    fn may_update(&mut self, record: &NodeRecord, from: EndpointId, cx: &mut Context) -> bool {
        let id = &record.id;
        let known = self.book.get(id).map(|live| live.signed.record().sequence);
        if known.is_none_or(|known| record.sequence <= known)
            || record.status != Status::Alive
            || self.book.is_suspected(id)
        {
            return true;
        }
        let within = self.updates.take(*id, from, cx.now);
        if !within {
            cx.links.dropped(DropReason::UpdatesOverTheBudgetOfAPeer, Some(from));
        }
        within
    }

    fn show_evidence(&self, id: EndpointId, to: EndpointId, cx: &mut Context) {
        let live = self.book.evidence(&id, cx.now).map(|(signed, _)| signed);
        if let Some(signed) = live.or_else(|| self.book.last_record(&id)) {
            let frame = TopicFrame::Push(vec![signed.bytes().clone()]);
            cx.links.send(&to, self.id, frame, cx.now);
        }
    }

    /// Takes in records of no known age. Returns how many were new here.
    pub(super) fn learn_all(
        &mut self,
        records: &[Bytes],
        from: EndpointId,
        cx: &mut Context,
    ) -> usize {
        self.verify_ahead(Way::Told, records, from, cx);
        let mut news = 0;
        for record in records {
            match self.learn(record, Duration::ZERO, from, cx) {
                Ok((_, applied)) => news += usize::from(applied.is_news()),
                Err(_) => break,
            }
        }
        news
    }

    /// A node left or was lost.
    pub(super) fn on_gone(&mut self, id: EndpointId, cx: &mut Context) {
        self.syncs.forget_newcomer(&id);
        self.detector.on_gone(&id);
        self.contacts.on_gone(&id, scope!(self, cx));
    }
}
