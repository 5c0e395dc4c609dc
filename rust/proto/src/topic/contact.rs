//! Syncs of the book: with whom and when, and how a session goes.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{Timer, Topic};
use crate::{
    book::Applied,
    event::{LinkId, TopicEvent},
    id::EndpointId,
    links::Asked,
    rule::Rule,
    state::Context,
    sync::Session,
    timers::jitter,
    wire::{SyncFrame, TopicFrame, Turn},
};

/// A newcomer that does not say that it is in the overlay is helped for so long.
const NEWCOMER_HELP: Duration = Duration::from_secs(10);
/// A record that its holder had for longer than this should have come by gossip.
const GAP_AGE: Duration = Duration::from_secs(5);
/// Who entered the overlay looks beyond its neighbors after this, then after five times as long, and
/// so on within three minutes: what may have kept it from it is over by then.
pub(super) const RANDOM_SYNC_FIRST: Duration = Duration::from_secs(1);
const FAR_GROWTH: u32 = 5;
const FAR_SOON: Duration = Duration::from_mins(3);
/// Members named in a busy answer.
const BUSY_MEMBERS: usize = 8;

impl Topic {
    /// Syncs with a peer, over a link that may have to be dialed first.
    pub(super) fn contact(&mut self, peer: EndpointId, cx: &mut Context) {
        if self.sessions.contains_key(&(peer, true)) {
            return;
        }
        match self.contacts.dial(peer, scope!(self, cx)) {
            Asked::Linked => self.start_sync(peer, cx),
            Asked::Dialing => {
                self.sync_wanted.insert(peer);
            }
            Asked::Refused => {}
        }
    }

    pub(super) fn start_sync(&mut self, peer: EndpointId, cx: &mut Context) {
        self.try_sync(peer, 0, cx);
    }

    /// Starts a sync that was begun so many times before, and stood still.
    pub(super) fn try_sync(&mut self, peer: EndpointId, tries: i32, cx: &mut Context) {
        if self.sessions.contains_key(&(peer, true)) {
            return;
        }
        let Some(link) = cx.links.current(&peer) else { return };
        self.session_count += 1;
        cx.counts.syncs_started += 1;
        let newcomer = self.attached_since.is_none();
        let introduce = newcomer.then_some(self.me);
        let differs = newcomer || self.is_wanted_soon(&peer);
        let mut session =
            Session::initiate(link, self.session_count, &self.book, introduce, differs, cx.now);
        session.introduced = introduce.and_then(|me| self.book.sequence(&me));
        session.tries = tries;
        self.timers.set_by(Timer::Sessions, self.stands_still_at(peer, &session, cx));
        self.sessions.insert((peer, true), session);
        self.take_turn(peer, true, Turn::Yours, cx);
    }

    fn take_turn(&mut self, peer: EndpointId, initiator: bool, theirs: Turn, cx: &mut Context) {
        let attached = self.attached_since.is_some();
        if !attached {
            self.helpers.insert(peer);
        }
        let Some(session) = self.sessions.get_mut(&(peer, initiator)) else { return };
        let frames = session.take_turn(&self.book, attached, theirs, cx.now);
        let done = frames.last().is_some_and(|frame| frame.turn == Turn::Done);
        let link = session.link;
        let sent = frames
            .into_iter()
            .all(|frame| cx.links.send_on(link, self.id, TopicFrame::Sync(frame), cx.now));
        if done || !sent {
            self.end_session(peer, initiator, done, cx);
        }
    }

    pub(super) fn on_sync(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        frame: SyncFrame,
        cx: &mut Context,
    ) {
        let initiator = !frame.from_initiator;
        let known = self.sessions.get(&(peer, true)).filter(|_| initiator);
        if initiator && known.is_none_or(|session| session.number != frame.session) {
            // It was given up, or its link was replaced.
            return;
        }
        if let Some(session) = known.filter(|session| session.is_unanswered()) {
            cx.links.answered(link, cx.now.saturating_duration_since(session.began));
        }
        if !frame.attached {
            self.newcomers.insert(peer, cx.now + NEWCOMER_HELP);
        }
        if frame.attached
            && known.is_some_and(|session| session.introduced == self.book.sequence(&self.me))
        {
            // Whoever answers has our record now, and tells it on with those of others.
            self.flood.retain(|id| *id != self.me);
        }
        let suspected = self.detector.suspected();
        let mut news = 0;
        let mut outdated = Vec::new();
        self.verify_ahead(frame.entries.iter().map(|entry| &entry.record), peer, cx);
        for entry in &frame.entries {
            let age = Duration::from_millis(entry.age_ms);
            let learned = match &entry.accusation {
                None => self.learn(&entry.record, age, peer, cx),
                Some(accusation) => self.learn_accused(&entry.record, age, accusation, peer, cx),
            };
            let Ok((id, applied)) = learned else { return };
            if applied.is_news() {
                news += 1;
                self.on_synced_news(id, &applied, age, peer, cx);
            } else if applied == Applied::Stale
                && self.book.get(&id).is_none()
                && entry.accusation.is_none()
            {
                outdated.push(id);
            }
        }
        if !initiator && !self.accept_session(peer, link, &frame, cx) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&(peer, initiator)) else { return };
        session.news += news + self.detector.suspected().saturating_sub(suspected);
        for id in outdated {
            session.offer(id);
        }
        if !session.receive(&frame, &self.book, cx.now) {
            cx.links.dropped("syncs over the limit", Some(peer));
            return self.end_session(peer, initiator, false, cx);
        }
        match frame.turn {
            Turn::More => {}
            Turn::Paused | Turn::Yours => self.take_turn(peer, initiator, frame.turn, cx),
            Turn::Done => self.end_session(peer, initiator, true, cx),
        }
    }

    /// Makes room for a session that a peer began; `false` where it is sent elsewhere for the book.
    /// It is told of newcomers all the same.
    fn accept_session(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        frame: &SyncFrame,
        cx: &mut Context,
    ) -> bool {
        let known = self.sessions.get(&(peer, false));
        if known.is_some_and(|session| session.number == frame.session && session.link == link) {
            return true;
        }
        let of_newcomer = |(peer, initiator): &&(EndpointId, bool)| {
            !initiator && self.newcomers.contains_key(peer)
        };
        let busy = self.sessions.keys().filter(of_newcomer).count();
        if !frame.attached && known.is_none() && busy >= self.config.concurrent_syncs {
            let without = BTreeSet::from([peer]);
            let members = scope!(self, cx).random_members(BUSY_MEMBERS, &without);
            let records = members
                .iter()
                .filter_map(|id| Some(self.book.get(id)?.signed.bytes().clone()))
                .collect();
            cx.links.dropped("syncs passed on to other members", Some(peer));
            cx.links.send_on(link, self.id, TopicFrame::Busy(records), cx.now);
            return false;
        }
        let session = Session::respond(link, frame.session, cx.now);
        cx.counts.syncs_served += 1;
        self.sessions.insert((peer, false), session);
        self.timers.set_by(Timer::Sessions, cx.now + Session::TIMEOUT);
        true
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
            // Newcomers come in crowds, and are on their way to all. The rest is rare, and urgent.
            let young = if *applied == Applied::Joined { age } else { Duration::MAX };
            self.relay_later(id, young, cx);
        }
        let settled = self
            .attached_since
            .is_some_and(|since| cx.now.saturating_duration_since(since) > 2 * GAP_AGE);
        let missed = settled && age > GAP_AGE && !matches!(applied, Applied::Refreshed);
        if missed && self.gap_sync_after.is_none_or(|after| after <= cx.now) {
            // Gossip has a gap: look beyond the neighbors, at once.
            self.gap_sync_after = Some(cx.now + 2 * GAP_AGE);
            self.timers.set_by(Timer::RandomSync, cx.now);
        }
    }

    /// What is told on carries no age: a record near its end would live on.
    fn is_young(&self, id: &EndpointId, age: Duration) -> bool {
        self.book.get(id).is_none_or(|live| age < live.signed.record().expiration / 2)
    }

    fn end_session(&mut self, peer: EndpointId, initiator: bool, complete: bool, cx: &mut Context) {
        let Some(session) = self.sessions.remove(&(peer, initiator)) else { return };
        if session.news > 0 {
            self.reset_trickle(cx);
        }
        cx.counts.syncs_completed += u64::from(complete);
        if complete {
            self.compared_with(peer, &session, cx);
            cx.emit(self.id, TopicEvent::Synced(peer));
        }
        if !initiator || !complete {
            return;
        }
        self.on_synced(peer, session.news.max(session.given), cx);
        self.contacts.synced(scope!(self, cx));
        if self.attached_since.is_none() {
            self.came_from.get_or_insert(peer);
        }
        if self.attached_since.is_none() && !self.timers.is_set(Timer::OverlayJoin) {
            self.join_attempts = 0;
        }
        if self.attached_since.is_none() && self.join_attempts == 0 {
            self.join_through =
                scope!(self, cx).random_members(1, &BTreeSet::new()).first().copied();
            let at = cx.now + jitter(&mut cx.rng, self.spread(), 0.0..1.0);
            self.timers.set_by(Timer::OverlayJoin, at);
        }
    }

    /// How long what all may do should be spread: 5 ms for each member.
    pub(super) fn spread(&self) -> Duration {
        let members = u32::try_from(self.book.len()).unwrap_or(u32::MAX);
        Duration::from_millis(5).saturating_mul(members).min(Duration::from_secs(3))
    }

    pub(super) fn on_busy(&mut self, records: &[Bytes], peer: EndpointId, cx: &mut Context) {
        if self.sessions.remove(&(peer, true)).is_none() {
            return;
        }
        self.learn_all(records, peer, cx);
        let without = BTreeSet::from([peer]);
        if let Some(other) = scope!(self, cx).random_members(1, &without).first() {
            self.contact(*other, cx);
        }
        self.contacts.partner_busy(scope!(self, cx));
    }

    /// A link is gone that another one took the place of: syncs on it end.
    pub(crate) fn link_gone(&mut self, peer: EndpointId, link: LinkId, cx: &mut Context) {
        for initiator in [true, false] {
            let ended = self.sessions.get(&(peer, initiator));
            if ended.is_some_and(|session| session.link == link) {
                self.end_session(peer, initiator, false, cx);
                if initiator {
                    self.contacts.sync_failed(scope!(self, cx));
                }
            }
        }
    }

    pub(super) fn on_sessions(&mut self, cx: &mut Context) {
        let late: Vec<_> = self
            .sessions
            .iter()
            .filter(|((peer, _), session)| self.stands_still_at(*peer, session, cx) <= cx.now)
            .map(|(key, session)| (*key, session.tries))
            .collect();
        for ((peer, initiator), tries) in late {
            cx.links.dropped("syncs that stood still", Some(peer));
            self.end_session(peer, initiator, false, cx);
            if initiator && !self.start_anew(peer, tries + 1, cx) {
                self.contacts.sync_failed(scope!(self, cx));
            }
        }
        let ends = self
            .sessions
            .iter()
            .map(|((peer, _), session)| self.stands_still_at(*peer, session, cx));
        if let Some(next) = ends.min() {
            self.timers.set(Timer::Sessions, next);
        }
    }

    /// Reconcile soon and often: something was found to differ, or the neighbors changed.
    pub(super) fn reset_trickle(&mut self, cx: &mut Context) {
        if self.trickle > self.config.sync_interval_min || !self.timers.is_set(Timer::Trickle) {
            self.trickle = self.config.sync_interval_min;
            self.schedule_trickle(cx);
        }
    }

    fn schedule_trickle(&mut self, cx: &mut Context) {
        let interval = self.trickle.max(cx.lag());
        let at = cx.now + jitter(&mut cx.rng, interval, 0.5..1.0);
        self.timers.set(Timer::Trickle, at);
    }

    pub(super) fn on_trickle(&mut self, cx: &mut Context) {
        use std::ops::Bound;
        if !cx.is_on(Rule::Reconciliation) {
            return;
        }
        let neighbors = self.overlay.neighbors();
        let after = self.trickle_last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = neighbors.range((after, Bound::Unbounded)).next().or(neighbors.first()).copied();
        let Some(next) = next else { return };
        self.trickle_last = Some(next);
        if !self.agreed(&next, self.trickle, cx.now) {
            self.start_sync(next, cx);
        }
        self.trickle = (self.trickle * 2).min(self.config.sync_interval_max);
        self.schedule_trickle(cx);
    }

    /// Soon after this node entered the overlay, then later and later.
    pub(super) fn schedule_random_sync(&mut self, cx: &mut Context) {
        let delay = self.random_sync_delay.min(self.config.random_sync_interval);
        let grown = self.random_sync_delay.saturating_mul(FAR_GROWTH);
        self.random_sync_delay =
            if grown > FAR_SOON { self.config.random_sync_interval } else { grown };
        let at = cx.now + jitter(&mut cx.rng, delay, 0.8..1.2) + self.spread();
        self.timers.set(Timer::RandomSync, at);
    }

    /// Looks beyond the neighbors: a swarm that forms at once may form in parts, and each is whole
    /// by itself. First with the peer that this node came from, while there is still a link: who
    /// does so is never apart from it.
    pub(super) fn on_random_sync(&mut self, cx: &mut Context) {
        let neighbors = self.overlay.neighbors().clone();
        let origin = self.came_from.take();
        let origin = origin.filter(|peer| !neighbors.contains(peer) && self.peers.is_linked(peer));
        let far =
            origin.or_else(|| scope!(self, cx).random_members(1, &neighbors).first().copied());
        if let Some(peer) = far.filter(|_| cx.is_on(Rule::Reconciliation)) {
            self.contact(peer, cx);
        }
        self.schedule_random_sync(cx);
    }
}
