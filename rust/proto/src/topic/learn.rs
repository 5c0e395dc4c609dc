//! Records that come in, and telling them on: in a batch through the overlay to all members, and
//! directly to newcomers who are not in the overlay yet.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Timer, Topic,
    scope::{Scope, log, spread},
    sync::Learned,
};
use crate::{
    accusation::Accusation,
    book::Applied,
    budget::Rate,
    error::Error,
    event::{CloseCode, TopicEvent},
    id::{EndpointId, TopicId},
    record::NodeRecord,
    rule::Rule,
    state::{Context, MAX_LAG},
    timers::jitter,
    wire::{Item, MAX_CONTENT, MAX_RECORDS, SyncFrame, TopicFrame, encode_content},
};

/// Records that come within this are told on together; in a storm, within 0.5 ms for each member.
const BATCH: Duration = Duration::from_millis(5);
const BATCH_MAX: Duration = Duration::from_millis(250);
/// Two batches within this make a storm.
const STORM: Duration = Duration::from_millis(100);
/// How long gossip has, at the least, to bring what a sync brought before it is told on.
const RELAY: Duration = Duration::from_millis(50);
/// A newcomer that a member has known for less than this is on its way to all, however busy they are.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// Where more than so many wait to be told on, all would tell all: instead, books are compared with the
/// neighbors that may lack them, for so long; who else may is looked for this often.
const FEW: usize = 8;
const ASK_FOR: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Room in a broadcast for the array and the heads of its items.
const CONTENT_ROOM: usize = MAX_CONTENT - 16;
const ITEM_OVERHEAD: usize = 5;

/// Most accusations that wait to be forwarded.
const MAX_ACCUSATIONS: usize = 4096;

/// Newcomers that one peer may introduce: a tenth of the book's capacity, but at least this many, in
/// this many seconds.
const MIN_INTRODUCTIONS: usize = 256;
const INTRODUCTIONS_REFILL: f64 = 600.0;
/// What a sync brought, and the overlay may be bringing as well.
#[derive(Debug)]
pub(super) struct Relay {
    /// When it is looked at next, and told on if it has to be.
    at: Instant,
    /// Until when neighbors are asked instead, once they are.
    ask_until: Option<Instant>,
}

fn log_applied(topic: TopicId, applied: &Applied, record: &NodeRecord) {
    match applied {
        Applied::Joined => log(topic, record, "peer joined"),
        Applied::Left(_) => log(topic, record, "peer left"),
        // An application may update as often as it likes.
        Applied::Updated => {
            let (topic, peer) = (topic.fmt_short(), record.id.fmt_short());
            tracing::debug!(%topic, %peer, sequence = record.sequence, "peer updated");
        }
        _ => {}
    }
}

impl Topic {
    /// Takes in a record that `from` sent. A record that does not verify closes the link: honest
    /// peers verify before they relay.
    pub(super) fn learn(
        &mut self,
        bytes: &Bytes,
        age: Duration,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<(EndpointId, Applied), Error> {
        let outcome = self.take_in(bytes, age, from, cx);
        if let Err(error) = &outcome {
            self.refuse(error, from, cx);
        }
        outcome
    }

    fn take_in(
        &mut self,
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
        if id != from && self.book.is_buried(&id, bytes) && cx.is_on(Rule::EqualSequences) {
            return Ok((id, Applied::Stale));
        }
        if id != self.me && !self.may_learn(&id, from, cx) {
            return Ok((id, Applied::Stale));
        }
        let signed = cx.verify_record(&self.id, opened)?;
        let record = Arc::clone(signed.record());
        if id == self.me {
            if record.sequence >= self.announcer.sequence() && !self.leave.is_begun() {
                self.announcer.outrun(&record, scope!(self, cx));
            }
            return Ok((id, Applied::Stale));
        }
        let applied = self.book.apply(signed, age, cx.now);
        log_applied(self.id, &applied, &record);
        let link_boot_id = cx.links.boot_id(&id);
        match &applied {
            Applied::Joined => cx.emit(self.id, TopicEvent::PeerJoined(Arc::clone(&record))),
            Applied::Updated => cx.emit(self.id, TopicEvent::PeerUpdated(Arc::clone(&record))),
            Applied::Refreshed => cx.emit(self.id, TopicEvent::PeerRefreshed(Arc::clone(&record))),
            Applied::Left(was) => {
                self.on_gone(id, cx);
                cx.emit(self.id, TopicEvent::PeerLeft(Arc::clone(was)));
            }
            Applied::Full => cx.links.dropped("newcomers beyond the capacity", Some(id)),
            // The owner is behind its own past: show it, and it jumps above.
            Applied::Stale if id == from => self.show_evidence(id, from, cx),
            Applied::Buried | Applied::Same | Applied::Stale => {}
        }
        if applied.is_news() {
            self.contacts.on_news(&id, &applied, scope!(self, cx));
        }
        if matches!(applied, Applied::Joined) {
            self.view_grows(cx);
        }
        if applied.is_news() {
            let effects = self.detector.on_newer_record(&record, scope!(self, cx));
            self.carry_out(effects, cx);
            self.push_on(id, from, cx);
            if applied != Applied::Refreshed {
                self.syncs.tell_digest_soon(scope!(self, cx));
            }
            // A member started anew, and its old process still has a link, as far as we know: it has none.
            let earlier_life = link_boot_id.is_some_and(|boot_id| boot_id != record.boot_id);
            if applied == Applied::Updated && earlier_life && from != id {
                cx.links.close_peer(&id, CloseCode::Replaced);
            }
            self.enter_overlay_soon(cx);
        }
        Ok((id, applied))
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
        let learned = self.learn(record, age, from, cx)?;
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
        self.verify_ahead(frame.entries.iter().map(|entry| &entry.record), from, cx);
        for entry in &frame.entries {
            let age = Duration::from_millis(entry.age_ms);
            let outcome = match &entry.accusation {
                None => self.learn(&entry.record, age, from, cx),
                Some(accusation) => self.learn_accused(&entry.record, age, accusation, from, cx),
            };
            let (id, applied) = outcome.ok()?;
            if applied.is_news() {
                learned.news += 1;
                self.on_synced_news(id, &applied, age, from, cx);
            } else if applied == Applied::Stale
                && self.book.get(&id).is_none()
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
        id: EndpointId,
        applied: &Applied,
        age: Duration,
        from: EndpointId,
        cx: &mut Context,
    ) {
        if id == from {
            self.tell_soon(id, cx);
        } else if !self.overlay.neighbors().is_empty() && self.is_young(&id, age) {
            // Newcomers come in bursts, and are on their way to all. The rest is rare, and urgent.
            let young = if *applied == Applied::Joined { age } else { Duration::MAX };
            self.relay_later(id, young, cx);
        }
        self.syncs.on_news(applied, age, scope!(self, cx));
    }

    /// Returns true if a record is young enough to be forwarded. What is forwarded carries no age:
    /// a record near its end would live on.
    fn is_young(&self, id: &EndpointId, age: Duration) -> bool {
        self.book.get(id).is_none_or(|live| age < live.signed.record().expiration / 2)
    }

    /// Returns true if a newcomer's record is within the share of the peer that brought it.
    fn may_learn(&mut self, id: &EndpointId, from: EndpointId, cx: &mut Context) -> bool {
        if self.is_uncounted(id, from, cx) {
            return true;
        }
        let most = (self.config.capacity / 10).max(MIN_INTRODUCTIONS);
        let most = f64::from(u32::try_from(most).unwrap_or(u32::MAX));
        let rate = Rate { messages: (most / INTRODUCTIONS_REFILL, most), bytes: (1.0, 1.0) };
        let within = self.introductions.take(from, rate, cx.now);
        if !within {
            cx.links.dropped("newcomers over the share of their introducer", Some(from));
        }
        within
    }

    /// Returns true if a record is in no share. What this node asks for itself, to know the swarm,
    /// is not counted. Nor are members of long standing: a part of a swarm may come back with all
    /// of its members.
    fn is_uncounted(&self, id: &EndpointId, from: EndpointId, cx: &Context) -> bool {
        let own = self.syncs.is_asking(&from) || *id == from;
        own || self.book.sequence(id).is_some() || self.peers.is_trusted(&from, &self.book, cx.now)
    }

    /// Verifies the records of a frame together, if they will be verified for sure. A newcomer's
    /// record is not, if its introducer has a share.
    pub(super) fn verify_ahead<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Bytes>,
        from: EndpointId,
        cx: &mut Context,
    ) {
        let opened = records.into_iter().filter_map(|bytes| {
            let opened = cx.open_record(&self.id, bytes).ok()?;
            let id = opened.claimed();
            let is_known = self.announcer.is_own(bytes)
                || self.book.holds(&id, bytes)
                || self.book.is_buried(&id, bytes);
            (!is_known && self.is_uncounted(&id, from, cx)).then_some(opened)
        });
        let opened = opened.collect();
        cx.verify_ahead(&self.id, opened);
    }

    fn show_evidence(&self, id: EndpointId, to: EndpointId, cx: &mut Context) {
        let live = self.book.evidence(&id, cx.now).map(|(signed, _)| signed);
        if let Some(signed) = live.or_else(|| self.book.last_record(&id)) {
            let frame = TopicFrame::Push(vec![signed.bytes().clone()]);
            cx.links.send(&to, self.id, frame, cx.now);
        }
    }

    /// Takes in records of no known age; how many were news.
    pub(super) fn learn_all(
        &mut self,
        records: &[Bytes],
        from: EndpointId,
        cx: &mut Context,
    ) -> usize {
        self.verify_ahead(records, from, cx);
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

    /// Tells newcomers of a record, and all members if `flood`: at once, or with the next batch.
    pub(super) fn tell(&mut self, id: EndpointId, delay: Duration, flood: bool, cx: &mut Context) {
        self.push_on(id, self.me, cx);
        if flood {
            if !self.flood.contains(&id) {
                self.flood.push_back(id);
            }
            self.timers.set_by(Timer::Flood, cx.now + delay);
        }
    }

    fn batch_delay(&self, cx: &Context) -> Duration {
        let storm = self.flooded.is_some_and(|at| cx.now.saturating_duration_since(at) < STORM);
        let delay = if storm { (spread(&self.book) / 10).clamp(BATCH, BATCH_MAX) } else { BATCH };
        delay.max(cx.lag() / 8)
    }

    /// There is something to tell on with the next batch.
    pub(super) fn flood_soon(&mut self, cx: &Context) {
        let delay = self.batch_delay(cx);
        self.timers.set_by(Timer::Flood, cx.now + delay);
    }

    /// As [`Topic::tell`], with the next batch.
    pub(super) fn tell_soon(&mut self, id: EndpointId, cx: &mut Context) {
        self.tell(id, self.batch_delay(cx), true, cx);
    }

    /// Tells all members of an accusation that no broadcast brought.
    pub(super) fn tell_accusation(&mut self, accusation: Accusation, cx: &mut Context) {
        if self.accusations.len() < MAX_ACCUSATIONS {
            self.accusations.push_back(accusation);
            self.flood_soon(cx);
        } else {
            let accused = Some(accusation.accused);
            cx.links.dropped("accusations that could not be disseminated", accused);
        }
    }

    /// Accusations that are still worth forwarding, as many as there is room for.
    fn accusations_to_tell(&mut self, room: usize) -> Vec<Item> {
        let mut items = Vec::new();
        let mut size = 0;
        while let Some(accusation) = self.accusations.front() {
            let known = self.book.sequence(&accusation.accused);
            if known.is_some_and(|known| known <= accusation.sequence) {
                let length = accusation.bytes.len() + ITEM_OVERHEAD;
                if size + length > room {
                    break;
                }
                size += length;
                items.push(Item::Accusation(accusation.bytes.clone()));
            }
            self.accusations.pop_front();
        }
        items
    }

    /// Pushes go along the links of first syncs, in both directions where neither end is in the
    /// overlay: while a swarm forms, they connect who the overlay does not connect yet.
    fn push_on(&mut self, id: EndpointId, from: EndpointId, cx: &mut Context) {
        if self.syncs.has_newcomers() && !self.push.iter().any(|(pushed, _)| *pushed == id) {
            self.push.push((id, from));
            let delay = self.batch_delay(cx);
            self.timers.set_by(Timer::Flood, cx.now + delay);
        }
    }

    /// A sync brought news that others may lack; gossip may be under way with it, and others may
    /// have learned it in the same way: the first who tells it spares the rest.
    pub(super) fn relay_later(&mut self, id: EndpointId, age: Duration, cx: &mut Context) {
        let under_way = UNDER_WAY.saturating_sub(age).max(RELAY + cx.lag());
        let at = cx.now + under_way + jitter(&mut cx.rng, spread(&self.book), 0.0..1.0);
        self.relay.entry(id).or_insert(Relay { at, ask_until: None });
        self.timers.set_by(Timer::Relay, at);
    }

    pub(super) fn on_relay(&mut self, cx: &mut Context) {
        // Who is behind is so with others, and gossip too; but not for ever.
        let put_off = if cx.lag() > RELAY { MAX_LAG } else { Duration::ZERO };
        let crowd = self.relay.len() > FEW;
        let due = self.relay.iter().filter(|(_, relay)| relay.at + put_off <= cx.now);
        let due: Vec<_> = due.map(|(id, relay)| (*id, relay.ask_until)).collect();
        for (id, ask_until) in due {
            let may_lack = self.neighbors_that_may_lack(&id);
            let alone = self.overlay.neighbors().is_empty();
            let ask_until = ask_until.or_else(|| crowd.then(|| cx.now + ASK_FOR));
            self.relay.remove(&id);
            if may_lack.is_empty() && !alone {
                continue;
            }
            if ask_until.is_some_and(|until| cx.now < until) {
                let at = cx.now + ASK_AGAIN;
                self.relay.insert(id, Relay { at, ask_until });
                for peer in may_lack {
                    let effects = self.syncs.start(peer, scope!(self, cx));
                    self.carry_out(effects, cx);
                }
            } else {
                self.tell_soon(id, cx);
            }
        }
        if let Some(next) = self.relay.values().map(|relay| relay.at).min() {
            self.timers.set(Timer::Relay, (cx.now + cx.lag()).clamp(next, next + MAX_LAG));
        }
    }

    /// Neighbors with whom books were not compared since something came here of a member. All others
    /// have it, and see to it that it goes on: a swarm that forms at once would tell itself all that it
    /// knows.
    fn neighbors_that_may_lack(&self, id: &EndpointId) -> Vec<EndpointId> {
        let received = self.book.received(id);
        let has = |peer: &EndpointId| {
            received.is_some_and(|at| self.syncs.compared(peer).is_some_and(|began| began > at))
        };
        self.overlay.neighbors().iter().filter(|peer| !has(peer)).copied().collect()
    }

    pub(super) fn on_flood(&mut self, cx: &mut Context) {
        self.flooded = Some(cx.now);
        self.push_to_newcomers(cx);
        if self.overlay.neighbors().is_empty() {
            // Kept until there is a neighbor. Bounded by the book, as ids are unique in it.
            return;
        }
        loop {
            let mut batch = self.accusations_to_tell(CONTENT_ROOM);
            let mut size: usize = batch.iter().map(|item| item.bytes().len() + ITEM_OVERHEAD).sum();
            while let Some(id) = self.flood.front() {
                if let Some((signed, _)) = self.book.evidence(id, cx.now) {
                    let bytes = signed.bytes().clone();
                    if size + bytes.len() + ITEM_OVERHEAD > CONTENT_ROOM
                        || batch.len() == MAX_RECORDS
                    {
                        break;
                    }
                    size += bytes.len() + ITEM_OVERHEAD;
                    batch.push(Item::Record(bytes));
                }
                self.flood.pop_front();
            }
            if batch.is_empty() {
                break;
            }
            let content = encode_content(&batch);
            self.seen.insert(&content, cx.now);
            if cx.is_on(Rule::Dissemination) {
                self.overlay.broadcast(content, cx.now);
            }
        }
        self.drive_overlay(cx);
    }

    fn push_to_newcomers(&mut self, cx: &mut Context) {
        let news: Vec<_> = std::mem::take(&mut self.push)
            .into_iter()
            .filter_map(|(id, from)| {
                let bytes = self.book.evidence(&id, cx.now)?.0.bytes().clone();
                Some((id, from, bytes))
            })
            .collect();
        for peer in self.syncs.helped_newcomers(cx.now) {
            let for_peer = news.iter().filter(|(id, from, _)| *id != peer && *from != peer);
            let for_peer = for_peer.map(|(_, _, bytes)| bytes);
            let mut batch: Vec<Bytes> = Vec::new();
            let mut size = 0;
            for bytes in for_peer {
                if size + bytes.len() > CONTENT_ROOM || batch.len() == MAX_RECORDS {
                    let frame = TopicFrame::Push(std::mem::take(&mut batch));
                    cx.links.send(&peer, self.id, frame, cx.now);
                    size = 0;
                }
                size += bytes.len();
                batch.push(bytes.clone());
            }
            if !batch.is_empty() {
                cx.links.send(&peer, self.id, TopicFrame::Push(batch), cx.now);
            }
        }
    }
}
