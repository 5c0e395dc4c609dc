//! Syncs of the book: with which peers and when, and the course of a session.
//!
//! Neighbors compare their books at growing intervals (RFC 6206), and at once if their digests
//! differ. Now and then a node syncs with a random member, because a swarm may form in parts.

mod audience;
mod compare;
mod observe;
mod schedule;
mod serving;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    effect::{Effect, Effects, NewRecord, Pushed},
    ingest::Taken,
    scope::Scope,
};
use crate::{
    book::{Applied, Book},
    config::Config,
    drops::DropReason,
    event::{LinkId, TopicEvent},
    id::EndpointId,
    links::LinkRequest,
    sync::Session,
    timers::earlier,
    wire::{Entry, SyncFrame, TopicFrame, Turn},
};

use self::{
    audience::Audience,
    compare::Comparisons,
    observe::Source,
    schedule::Schedule,
    serving::{Customer, Unserved},
};

/// If nothing arrived of a session that is wanted soon for this many round trips, its partner is
/// pinged: it may be late, and a second session would make it later. If no round trip was measured,
/// that is after [`STALLED`]. With each try, that time grows by the factor [`STALLED_GROWTH`].
const STALLED_ROUND_TRIPS: u32 = 3;
const STALLED_GROWTH: f64 = 1.5;
const STALLED: Duration = Duration::from_millis(500);
const STALLED_MIN: Duration = Duration::from_millis(100);
/// Once the ping is answered, the session has as long again as the ping took, and at least this
/// time. Then it is lost, and is started again.
const BEHIND_PING: Duration = Duration::from_millis(25);
/// How often such a session is started in all. A ping that is not answered within [`STALLED`], and
/// longer each time, counts as a start.
const TRIES: i32 = 5;
/// Two full books that differ in at least this many members never get equal. So no further sync
/// follows for this time: gossip brings what is new.
const CROWDED: usize = 64;
const CROWDED_FOR: Duration = Duration::from_secs(30);
/// The name of a limit in counters and logs.
const OVER_BUDGET: DropReason = DropReason::SyncsOverTheBudgetOfAPeer;
/// The number of members that a busy answer names.
const BUSY_MEMBERS: usize = 8;

#[derive(Debug)]
pub(super) struct Syncs {
    /// The peers that are dialed for a sync.
    wanted: BTreeSet<EndpointId>,
    sessions: BTreeMap<SessionKey, Session>,
    session_count: u64,
    schedule: Schedule,
    /// The peers that this node keeps up to date.
    audience: Audience,
    /// Peers that push new records to this node in the same way.
    sponsors: BTreeSet<EndpointId>,
    source: Source,
    /// The budgets of what is sent in syncs, by peer.
    serving: serving::Serving,
    /// Peers whose books hold many members for which there is no room here, and until when this
    /// node starts no sync with each.
    crowded: BTreeMap<EndpointId, Instant>,
    comparisons: Comparisons,
    /// When a session stalls.
    timer: Option<Instant>,
}

/// The key of a session: its partner, and which end began it. Two nodes may sync with each other
/// twice at the same time, each as the initiator of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SessionKey {
    peer: EndpointId,
    role: Role,
}

/// The role of this node in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Responder,
    Initiator,
}

impl SessionKey {
    fn begun_by_us(peer: EndpointId) -> Self {
        Self { peer, role: Role::Initiator }
    }

    fn begun_by(peer: EndpointId) -> Self {
        Self { peer, role: Role::Responder }
    }

    /// Returns the key of the session to which a frame of a peer belongs.
    fn of(peer: EndpointId, frame: &SyncFrame) -> Self {
        if frame.from_initiator { Self::begun_by(peer) } else { Self::begun_by_us(peer) }
    }
}

/// The timers of syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Compare the book with a neighbor's (RFC 6206).
    Trickle,
    /// Send neighbors the digest of the book.
    Digest,
    /// Sync with a member that is no neighbor.
    RandomSync,
    /// Give up on syncs that are stalled.
    Sessions,
    /// An observer compares its book with its source's, or looks for a source.
    Observe,
}

impl Timer {
    const ALL: [Self; 5] =
        [Self::Trickle, Self::Digest, Self::RandomSync, Self::Sessions, Self::Observe];
}

/// What the entries of a frame brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// The number of records and suspicions that were new here.
    pub(super) news: usize,
    /// The nodes that left, and that the partner still has in its book.
    pub(super) outdated: Vec<EndpointId>,
    /// The number of newcomers for which there was no room here.
    pub(super) refused: usize,
}

impl Brought {
    /// Counts an entry, by what became of its record.
    pub(super) fn count(&mut self, taken: &Taken, entry: &Entry, book: &Book) {
        let Taken { id, applied } = taken;
        if applied.is_news() {
            self.news += 1;
        } else if matches!(applied, Applied::Full | Applied::Stale) && !book.is_known(id) {
            // There was no room for it, now or before.
            self.refused += 1;
        } else if *applied == Applied::Stale
            && book.get_with_hidden(id).is_none()
            && entry.accusation.is_none()
        {
            self.outdated.push(*id);
        }
    }
}

impl Syncs {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            wanted: BTreeSet::new(),
            sessions: BTreeMap::new(),
            session_count: 0,
            schedule: Schedule::new(config),
            audience: Audience::default(),
            sponsors: BTreeSet::new(),
            source: Source::default(),
            serving: serving::Serving::default(),
            crowded: BTreeMap::new(),
            comparisons: Comparisons::default(),
            timer: None,
        }
    }

    /// This node joined the topic.
    pub(super) fn on_joined(&mut self, scope: &mut Scope) {
        self.schedule.schedule_random(scope);
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 8] {
        [
            ("syncs wanted", self.wanted.len()),
            ("sessions", self.sessions.len()),
            ("newcomers", self.audience.newcomer_count()),
            ("sponsors", self.sponsors.len()),
            ("observers", self.audience.observer_count()),
            ("budgets of syncs", self.serving.len()),
            ("comparisons", self.comparisons.len()),
            ("crowded peers", self.crowded.len()),
        ]
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        Timer::ALL.into_iter().filter_map(|timer| self.timeout(timer)).min()
    }

    pub(super) fn timeout(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::Trickle => self.schedule.trickle_timeout(),
            Timer::Digest => self.comparisons.timeout(),
            Timer::RandomSync => self.schedule.random_timeout(),
            Timer::Sessions => self.timer,
            Timer::Observe => self.source.timeout(),
        }
    }

    pub(super) fn on_timeout(&mut self, timer: Timer, scope: &mut Scope) -> Effects {
        debug_assert!(
            self.timeout(timer).is_some_and(|at| at <= scope.now()),
            "the router asks for what is due"
        );
        match timer {
            Timer::Trickle => match self.schedule.on_trickle(&self.comparisons, scope) {
                Some(neighbor) => self.start(neighbor, scope),
                None => Effects::none(),
            },
            Timer::Digest => {
                self.send_digest(scope);
                Effects::none()
            }
            Timer::RandomSync => self.schedule.on_random_sync(scope),
            Timer::Sessions => self.on_sessions(scope),
            Timer::Observe => match self.source.on_timeout(scope) {
                Ok(source) => self.start(source, scope),
                Err(members) => members.into_iter().map(Effect::Contact).collect(),
            },
        }
    }

    /// This node leaves the topic. Sessions that others began continue.
    pub(super) fn stop(&mut self) {
        self.wanted.clear();
        self.timer = None;
        self.schedule.stop();
        self.comparisons.stop();
        self.source.stop();
    }

    /// Returns true while a sync, or a newcomer, needs the link to a peer.
    pub(super) fn needs(&self, peer: &EndpointId) -> bool {
        self.audience.is_newcomer(peer)
            || self.audience.is_observer(peer)
            || self.sponsors.contains(peer)
            || self.source.is(peer)
            || self.sessions.keys().any(|key| key.peer == *peer)
    }

    /// Returns true while a sync that this node began with a peer goes on.
    pub(super) fn is_asking(&self, peer: &EndpointId) -> bool {
        self.sessions.contains_key(&SessionKey::begun_by_us(*peer))
    }

    /// Returns true while any sync that this node began goes on.
    pub(super) fn is_syncing(&self) -> bool {
        self.sessions.keys().any(|key| key.role == Role::Initiator)
    }

    /// Returns true if this node never began a sync, as the first node of a swarm.
    pub(super) fn is_untried(&self) -> bool {
        self.session_count == 0
    }

    /// Returns true if this node is the first of its swarm: it has nobody to sync with, and others
    /// enter the overlay through it. What it announces waits for the first of them.
    fn is_root(&self, scope: &Scope) -> bool {
        self.is_untried() && !scope.peers.has_bootstrap()
    }

    /// See [`Audience::push`].
    pub(super) fn push(&mut self, pushes: Vec<Pushed>, scope: &mut Scope) {
        self.audience.push(pushes, scope);
    }

    /// Returns true if peers that are not in the overlay wait for pushes.
    pub(super) fn has_newcomers(&self) -> bool {
        !self.audience.is_empty()
    }

    /// A peer is in the overlay, gone, or has another source: new records are no longer pushed to
    /// it.
    pub(super) fn forget_newcomer(&mut self, peer: &EndpointId) {
        self.audience.forget(peer);
    }

    pub(super) fn observer_count(&self) -> usize {
        self.audience.observer_count()
    }

    /// Returns when the last complete comparison with each neighbor began.
    pub(super) fn compared(&self) -> BTreeMap<EndpointId, Instant> {
        self.comparisons.compared()
    }

    /// See [`Comparisons::on_applied`].
    pub(super) fn on_applied(&mut self, new: &NewRecord, scope: &mut Scope) {
        self.comparisons.on_applied(new, scope);
    }

    /// See [`Schedule::on_synced_news`].
    pub(super) fn on_synced_news(&mut self, applied: &Applied, age: Duration, scope: &mut Scope) {
        self.schedule.on_synced_news(applied, age, scope);
    }

    /// A peer sent the digest of its book: books that differ are synced.
    pub(super) fn on_digest(
        &mut self,
        theirs: [u8; 8],
        peer: EndpointId,
        scope: &mut Scope,
    ) -> Effects {
        let is_source = self.source.is(&peer);
        let differs = self.comparisons.on_digest(theirs, peer, is_source, scope);
        if differs { self.start(peer, scope) } else { Effects::none() }
    }

    fn send_digest(&mut self, scope: &mut Scope) {
        self.comparisons.send_digest(self.audience.observers(), scope);
    }

    /// A peer does not speak of this topic any more, or is busy. If it was the source, another one
    /// is looked for.
    pub(super) fn source_gone(&mut self, peer: &EndpointId, scope: &mut Scope) {
        if self.source.gone(peer, scope) {
            self.comparisons.forget(peer);
        }
    }

    /// A sync stalled too often. An observer whose source does not answer takes another one.
    fn give_up(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let mut effects = Effects::one(Effect::SyncFailed);
        if self.source.is(&peer) {
            self.source_gone(&peer, scope);
            effects.push(Effect::Avoid(peer));
            let others = scope.likely_members(1, &BTreeSet::from([peer]));
            effects.append(others.into_iter().map(Effect::Contact).collect());
        }
        effects
    }

    /// The contacts chose a peer for a sync, and requested a link with this answer.
    pub(super) fn contact(
        &mut self,
        peer: EndpointId,
        request: LinkRequest,
        scope: &mut Scope,
    ) -> Effects {
        match request {
            LinkRequest::Linked => return self.start(peer, scope),
            LinkRequest::Dialing => {
                self.wanted.insert(peer);
            }
            LinkRequest::Refused => {}
        }
        Effects::none()
    }

    /// A peer has a usable link.
    pub(super) fn link_up(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let wanted = self.wanted.remove(&peer);
        if wanted || is_another_life(&peer, scope) {
            return self.start(peer, scope);
        }
        Effects::none()
    }

    pub(super) fn dial_failed(&mut self, peer: &EndpointId) {
        self.wanted.remove(peer);
    }

    /// A link that was no longer in use is gone: the syncs on it end.
    pub(super) fn link_gone(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        scope: &mut Scope,
    ) -> Effects {
        let mut effects = Effects::none();
        for key in [SessionKey::begun_by_us(peer), SessionKey::begun_by(peer)] {
            if self.sessions.get(&key).is_some_and(|session| session.link == link) {
                effects.append(self.end_session(key, false, scope));
                if key.role == Role::Initiator {
                    effects.push(Effect::SyncFailed);
                }
            }
        }
        effects
    }

    /// A peer no longer speaks of this topic. Returns true if this node was syncing with it.
    pub(super) fn unlinked(&mut self, peer: EndpointId) -> bool {
        self.audience.forget(&peer);
        self.sponsors.remove(&peer);
        self.sessions.remove(&SessionKey::begun_by(peer));
        self.sessions.remove(&SessionKey::begun_by_us(peer)).is_some()
    }

    /// A member became a neighbor.
    pub(super) fn neighbor_up(&mut self, scope: &mut Scope) {
        self.schedule.reset_trickle(scope);
    }

    pub(super) fn neighbor_down(&mut self, peer: &EndpointId) {
        self.comparisons.forget(peer);
    }

    /// This node is in the overlay from now on.
    pub(super) fn on_attached(&mut self, scope: &mut Scope) {
        self.schedule.on_attached(scope);
        for sponsor in std::mem::take(&mut self.sponsors) {
            scope.send(&sponsor, TopicFrame::Attached);
        }
    }

    /// Starts a sync with a peer, if there is a link.
    pub(super) fn start(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        self.try_sync(peer, 0, scope)
    }

    /// Starts a sync that was begun `tries` times before, and stalled.
    fn try_sync(&mut self, peer: EndpointId, tries: i32, scope: &mut Scope) -> Effects {
        if self.is_asking(&peer) {
            return Effects::none();
        }
        let Some(link) = scope.cx.links.current(&peer) else { return Effects::none() };
        let crowded = self.crowded.get(&peer).is_some_and(|until| *until > scope.now());
        if crowded && scope.view.attached.is_some() {
            return Effects::none();
        }
        let within = self.serving.may_answer(Customer::of(peer, scope), scope.now());
        if within == Err(Unserved::Peer) || !self.serving.begin(peer, scope.now()) {
            scope.dropped(OVER_BUDGET, Some(peer));
            return Effects::none();
        }
        self.session_count += 1;
        scope.cx.counts.syncs_started += 1;
        let (number, now) = (self.session_count, scope.now());
        let newcomer = scope.view.attached.is_none();
        let introduce = (newcomer && !scope.config.observer).then_some(scope.me());
        let differs = self.probably_differs(&peer, scope);
        let mut session = Session::initiate(link, number, scope.book, introduce, differs, now);
        session.introduced = introduce.and_then(|me| scope.book.sequence(&me));
        session.tries = tries;
        self.timer = earlier(self.timer, Some(self.stalls_at(peer, &session, scope)));
        let key = SessionKey::begun_by_us(peer);
        self.sessions.insert(key, session);
        self.take_turn(key, Turn::Yours, scope)
    }

    fn take_turn(&mut self, key: SessionKey, theirs: Turn, scope: &mut Scope) -> Effects {
        let attached = scope.view.attached.is_some() || self.is_root(scope);
        if !attached && !scope.config.observer {
            self.sponsors.insert(key.peer);
        }
        let now = scope.now();
        let Some(session) = self.sessions.get_mut(&key) else { return Effects::none() };
        let mut frames = session.take_turn(scope.book, attached, theirs, now);
        for frame in &mut frames {
            frame.observer = scope.config.observer;
        }
        let done = frames.last().is_some_and(|frame| frame.turn == Turn::Done);
        let (link, topic) = (session.link, scope.topic);
        let bytes = frames.iter().map(SyncFrame::weight).sum();
        self.serving.sent(Customer::of(key.peer, scope), bytes, now);
        let sent = frames
            .into_iter()
            .all(|frame| scope.cx.links.send_on(link, topic, TopicFrame::Sync(frame), now));
        if done || !sent {
            return self.end_session(key, done, scope);
        }
        Effects::none()
    }

    /// Checks the head of a frame before its entries are applied. `None` if it belongs to no
    /// session: then its entries are not applied.
    pub(super) fn admit(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        frame: &SyncFrame,
        scope: &mut Scope,
    ) -> Option<Effects> {
        let now = scope.now();
        let records = frame.entries.iter().map(|entry| entry.record.len()).sum();
        self.serving.received(Customer::of(peer, scope), records, now);
        let key = SessionKey::of(peer, frame);
        let known = self.sessions.get(&key).filter(|_| key.role == Role::Initiator);
        if key.role == Role::Initiator && known.is_none_or(|known| known.number != frame.session) {
            // The session was given up, or its link was replaced.
            return None;
        }
        if let Some(session) = known.filter(|session| session.is_unanswered()) {
            scope.cx.links.answered(link, now.saturating_duration_since(session.began));
        }
        let mut effects = Effects::none();
        let introduced =
            known.is_some_and(|session| session.introduced == scope.book.sequence(&scope.me()));
        if frame.observer {
            self.audience.register(peer, scope);
        } else if !frame.attached {
            self.audience.welcome(peer, now);
        } else if introduced {
            effects.push(Effect::Introduced);
        }
        Some(effects)
    }

    /// Handles the rest of a frame whose entries were applied.
    pub(super) fn on_frame(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        frame: &SyncFrame,
        brought: Brought,
        scope: &mut Scope,
    ) -> Effects {
        let key = SessionKey::of(peer, frame);
        if key.role == Role::Responder && !self.accept_session(peer, link, frame, scope) {
            return Effects::none();
        }
        let Some(session) = self.sessions.get_mut(&key) else { return Effects::none() };
        session.news += brought.news;
        session.refused += brought.refused;
        for id in brought.outdated {
            session.offer(id);
        }
        if !session.receive(frame, scope.book, scope.cx.now) {
            scope.dropped(DropReason::SyncsOverTheLimit, Some(peer));
            return self.end_session(key, false, scope);
        }
        match frame.turn {
            Turn::More => Effects::none(),
            Turn::Paused | Turn::Yours => {
                match self.serving.may_answer(Customer::of(peer, scope), scope.now()) {
                    Ok(()) => self.take_turn(key, frame.turn, scope),
                    Err(unserved) => {
                        self.pass_on(peer, link, unserved, scope);
                        self.end_session(key, false, scope)
                    }
                }
            }
            Turn::Done => self.end_session(key, true, scope),
        }
    }

    /// Makes room for a session that a peer began. Returns false if this node is busy and names
    /// other members to the peer. It still pushes new records to such a peer.
    fn accept_session(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        frame: &SyncFrame,
        scope: &mut Scope,
    ) -> bool {
        let key = SessionKey::begun_by(peer);
        let known = self.sessions.get(&key);
        if known.is_some_and(|session| session.number == frame.session && session.link == link) {
            return true;
        }
        let of_newcomer =
            |key: &&SessionKey| key.role == Role::Responder && self.audience.is_newcomer(&key.peer);
        let busy = self.sessions.keys().filter(of_newcomer).count();
        let newcomer = !frame.attached && !frame.observer;
        let busy = newcomer && known.is_none() && busy >= scope.config.concurrent_syncs;
        let unserved = match self.serving.may_answer(Customer::of(peer, scope), scope.now()) {
            _ if scope.config.observer => Some(Unserved::ByObserver),
            _ if frame.observer && !self.audience.is_observer(&peer) => Some(Unserved::Observer),
            Ok(()) if !self.serving.begin(peer, scope.now()) => Some(Unserved::Peer),
            Ok(()) => busy.then_some(Unserved::Strangers),
            Err(unserved) => Some(unserved),
        };
        if let Some(unserved) = unserved {
            self.pass_on(peer, link, unserved, scope);
            return false;
        }
        scope.cx.counts.syncs_served += 1;
        self.sessions.insert(key, Session::respond(link, frame.session, scope.now()));
        self.timer = earlier(self.timer, Some(scope.now() + Session::TIMEOUT));
        true
    }

    /// Tells a peer that this node is busy. It names other members that may serve the peer, unless
    /// the peer itself requests too much.
    fn pass_on(&mut self, peer: EndpointId, link: LinkId, unserved: Unserved, scope: &mut Scope) {
        let mut records = Vec::new();
        match unserved {
            Unserved::Peer => scope.dropped(OVER_BUDGET, Some(peer)),
            Unserved::Strangers | Unserved::Observer | Unserved::ByObserver => {
                scope.dropped(
                    match unserved {
                        Unserved::Observer => DropReason::ObserversOverTheLimit,
                        Unserved::ByObserver => DropReason::SyncsPassedOnByAnObserver,
                        _ => DropReason::SyncsPassedOnToOtherMembers,
                    },
                    Some(peer),
                );
                let members = scope.likely_members(BUSY_MEMBERS, &BTreeSet::from([peer]));
                let members = members.iter().filter_map(|id| scope.book.get(id));
                records.extend(members.map(|live| live.signed.bytes().clone()));
            }
        }
        let (topic, now) = (scope.topic, scope.now());
        let bytes = records.iter().map(Bytes::len).sum();
        self.serving.sent(Customer::of(peer, scope), bytes, now);
        scope.cx.links.send_on(link, topic, TopicFrame::Busy(records), now);
    }

    fn end_session(&mut self, key: SessionKey, complete: bool, scope: &mut Scope) -> Effects {
        let Some(session) = self.sessions.remove(&key) else { return Effects::none() };
        let mut effects = Effects::none();
        if session.introduced.is_some() {
            effects.push(Effect::IntroductionOver);
        }
        if session.news > 0 {
            self.schedule.reset_trickle(scope);
        }
        if session.refused >= CROWDED {
            self.crowded.retain(|_, until| *until > scope.cx.now);
            self.crowded.insert(key.peer, scope.now() + CROWDED_FOR);
        }
        if !complete {
            return effects;
        }
        if scope.config.observer
            && key.role == Role::Initiator
            && let Some(before) = self.source.take(key.peer, session.news, scope)
        {
            self.comparisons.forget(&before);
        }
        scope.cx.counts.syncs_completed += 1;
        self.comparisons.completed(key.peer, &session, self.source.is(&key.peer), scope);
        scope.emit(TopicEvent::Synced(key.peer));
        if key.role == Role::Responder {
            return effects;
        }
        self.schedule.completed(key.peer, scope);
        let differed = session.news.max(session.given);
        effects.push(Effect::Synced { peer: key.peer, differed });
        effects
    }

    /// A peer is busy with other syncs. Returns false if this node did not ask it.
    pub(super) fn on_busy(&mut self, peer: EndpointId) -> bool {
        self.sessions.remove(&SessionKey::begun_by_us(peer)).is_some()
    }

    /// Ends one session that stalled. Only one, because that may start a new session.
    fn on_sessions(&mut self, scope: &mut Scope) -> Effects {
        self.timer = None;
        let now = scope.now();
        let mut ends = self
            .sessions
            .iter()
            .map(|(key, session)| (self.stalls_at(key.peer, session, scope), *key));
        let late = ends.find(|(at, _)| *at <= now);
        let mut effects = Effects::none();
        if let Some((_, key)) = late
            && !self.pings_first(key, scope)
        {
            let tries = self.sessions.get(&key).map_or(TRIES, |session| session.tries);
            scope.dropped(DropReason::SyncsThatStalled, Some(key.peer));
            effects.append(self.end_session(key, false, scope));
            if key.role == Role::Initiator {
                let again = tries + 1 < TRIES && self.is_wanted_soon(&key.peer, scope);
                effects.append(if again {
                    self.try_sync(key.peer, tries + 1, scope)
                } else {
                    self.give_up(key.peer, scope)
                });
            }
        }
        let ends = self.sessions.iter();
        let ends = ends.map(|(key, session)| self.stalls_at(key.peer, session, scope));
        if let Some(next) = ends.min() {
            self.timer = Some(next);
        }
        effects
    }

    /// A session is late. If it would be started again, its partner is pinged first. Returns false
    /// if the partner answered the ping, or if this session has no try left.
    fn pings_first(&mut self, key: SessionKey, scope: &mut Scope) -> bool {
        let wanted = key.role == Role::Initiator && self.is_wanted_soon(&key.peer, scope);
        let Some(session) = self.sessions.get_mut(&key).filter(|_| wanted) else { return false };
        let on_link = scope.cx.links.current(&key.peer) == Some(session.link);
        if !on_link || answered(&key.peer, session, scope).is_some() {
            return false;
        }
        session.tries += i32::from(session.pinged.is_some());
        session.pinged = Some(scope.cx.now);
        session.tries + 1 < TRIES && scope.cx.links.ping(&key.peer, scope.cx.now)
    }

    /// A peer gave a sign of life, perhaps an answer to the ping of a session that is late.
    pub(super) fn heard(&mut self, peer: EndpointId, scope: &mut Scope) {
        let session = self.sessions.get(&SessionKey::begun_by_us(peer));
        if let Some(session) = session.filter(|session| session.pinged.is_some()) {
            self.timer = earlier(self.timer, Some(self.stalls_at(peer, session, scope)));
        }
    }

    /// Returns the sequence number of the own record that a sync is bringing to a partner.
    pub(super) fn introducing(&self) -> Option<u64> {
        self.sessions.values().filter_map(|session| session.introduced).max()
    }

    /// Returns true if a session with a peer is started again if it is lost.
    fn is_wanted_soon(&self, peer: &EndpointId, scope: &Scope) -> bool {
        !scope.view.synced || self.source.is(peer) || self.comparisons.was_found_to_differ(peer)
    }

    /// Returns true if a session begins with the parts of the book, as the whole would differ.
    fn probably_differs(&self, peer: &EndpointId, scope: &Scope) -> bool {
        if self.source.is(peer) {
            return self.comparisons.was_found_to_differ(peer);
        }
        scope.view.attached.is_none() || self.is_wanted_soon(peer, scope)
    }

    /// Returns when a session is looked at if nothing arrives before.
    fn stalls_at(&self, peer: EndpointId, session: &Session, scope: &Scope) -> Instant {
        let mut patience = Session::TIMEOUT;
        if session.initiator && self.is_wanted_soon(&peer, scope) {
            let round_trip = scope.cx.links.round_trip(&peer);
            let first = round_trip.map_or(STALLED, |time| time * STALLED_ROUND_TRIPS);
            let first = (first + scope.cx.lag()).max(STALLED_MIN);
            let first = if session.pinged.is_some() { first.max(STALLED) } else { first };
            patience = patience.min(first.mul_f64(STALLED_GROWTH.powi(session.tries)));
        }
        match session.pinged {
            Some(pinged) => match answered(&peer, session, scope) {
                Some(at) => at + at.saturating_duration_since(pinged).max(BEHIND_PING),
                None => pinged + patience,
            },
            None => session.last_heard + patience,
        }
    }
}

/// Returns when a peer answered the ping of a session that is late.
fn answered(peer: &EndpointId, session: &Session, scope: &Scope) -> Option<Instant> {
    let answered = scope.cx.links.answered_ping(peer);
    answered.filter(|at| session.pinged.is_some_and(|pinged| *at >= pinged))
}

/// Returns true if the process behind the link is not the one that announced the record in the
/// book.
fn is_another_life(peer: &EndpointId, scope: &Scope) -> bool {
    let known = scope.book.get(peer).map(|live| live.signed.record().boot_id);
    !scope.view.leaving && known.is_some() && known != scope.cx.links.boot_id(peer)
}
