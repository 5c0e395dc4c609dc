//! Syncs of the book: with which peers and when, and the course of a session.
//!
//! Neighbors compare their books at growing intervals (RFC 6206), and at once if their digests
//! differ. Now and then a node syncs with a random member, because a swarm may form in parts.

mod compare;
mod observe;
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
    effect::{Effect, Effects, Pushed},
    ingest::Taken,
    scope::{RESTLESS, SETTLED, Scope},
};
use crate::{
    book::{Applied, Book},
    config::Config,
    drops::DropReason,
    event::{LinkId, TopicEvent},
    id::EndpointId,
    links::LinkRequest,
    rule::Rule,
    sync::Session,
    timers::{Timers, jitter},
    wire::{Entry, MAX_CONTENT, MAX_RECORDS, SyncFrame, TopicFrame, Turn},
};

use self::serving::{Customer, Unserved};

/// A newcomer gets pushes for this time, or until it reports that it is in the overlay.
const NEWCOMER_HELP: Duration = Duration::from_secs(10);
/// A record that its holder had for longer than this should have come by gossip.
const GAP_AGE: Duration = Duration::from_secs(5);
/// A node that entered the overlay syncs with a member that is no neighbor after this time. It does
/// so again after delays that grow by [`RANDOM_SYNC_GROWTH`], up to [`RANDOM_SYNC_SOON`]. Whatever
/// kept a part of the swarm away from it is over by then.
const RANDOM_SYNC_FIRST: Duration = Duration::from_secs(1);
const RANDOM_SYNC_GROWTH: u32 = 5;
const RANDOM_SYNC_SOON: Duration = Duration::from_mins(3);
/// The room for the records of one push, in bytes.
const PUSH_ROOM: usize = MAX_CONTENT - 16;
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
    trickle: Duration,
    trickle_last: Option<EndpointId>,
    /// When books were last compared although this one kept changing.
    compared_restless: Option<Instant>,
    /// Before this time, no further gap of gossip leads to a random sync.
    gap_sync_after: Option<Instant>,
    random_sync_delay: Duration,
    /// The partner of the first sync before this node entered the overlay.
    came_from: Option<EndpointId>,
    /// Peers that synced with this node and are not in the overlay yet. New records are pushed to
    /// each until its time.
    newcomers: BTreeMap<EndpointId, Instant>,
    /// Peers that push new records to this node in the same way.
    sponsors: BTreeSet<EndpointId>,
    /// Observers that this node keeps up to date. Each is forgotten at its time.
    observers: BTreeMap<EndpointId, Instant>,
    /// The member that keeps this node up to date, if it only observes.
    source: Option<EndpointId>,
    /// The budgets of what is sent in syncs, by peer.
    serving: serving::Serving,
    /// Peers whose books hold many members for which there is no room here, and until when this
    /// node starts no sync with each.
    crowded: BTreeMap<EndpointId, Instant>,
    /// The comparisons with neighbors.
    comparisons: BTreeMap<EndpointId, compare::Comparison>,
    timers: Timers<Timer>,
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
            trickle: config.sync_interval_min,
            trickle_last: None,
            compared_restless: None,
            gap_sync_after: None,
            random_sync_delay: config.random_sync_interval,
            came_from: None,
            newcomers: BTreeMap::new(),
            sponsors: BTreeSet::new(),
            observers: BTreeMap::new(),
            source: None,
            serving: serving::Serving::default(),
            crowded: BTreeMap::new(),
            comparisons: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    /// This node joined the topic.
    pub(super) fn on_joined(&mut self, scope: &mut Scope) {
        self.schedule_random_sync(scope);
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 8] {
        [
            ("syncs wanted", self.wanted.len()),
            ("sessions", self.sessions.len()),
            ("newcomers", self.newcomers.len()),
            ("sponsors", self.sponsors.len()),
            ("observers", self.observers.len()),
            ("budgets of syncs", self.serving.len()),
            ("comparisons", self.comparisons.len()),
            ("crowded peers", self.crowded.len()),
        ]
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn timeout(&self, timer: Timer) -> Option<Instant> {
        self.timers.at(timer)
    }

    pub(super) fn on_timeout(&mut self, timer: Timer, scope: &mut Scope) -> Effects {
        debug_assert!(
            self.timers.at(timer).is_some_and(|at| at <= scope.now()),
            "the router asks for what is due"
        );
        self.timers.clear(timer);
        match timer {
            Timer::Trickle => self.on_trickle(scope),
            Timer::Digest => {
                self.send_digest(scope);
                Effects::none()
            }
            Timer::RandomSync => self.on_random_sync(scope),
            Timer::Sessions => self.on_sessions(scope),
            Timer::Observe => self.on_observe(scope),
        }
    }

    /// This node leaves the topic. Sessions that others began continue.
    pub(super) fn stop(&mut self) {
        self.wanted.clear();
        self.timers.clear_all();
    }

    /// Returns true while a sync, or a newcomer, needs the link to a peer.
    pub(super) fn needs(&self, peer: &EndpointId) -> bool {
        self.newcomers.contains_key(peer)
            || self.sponsors.contains(peer)
            || self.observers.contains_key(peer)
            || self.source == Some(*peer)
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

    /// Sends records to newcomers and observers. Those that were not heard for [`NEWCOMER_HELP`]
    /// are forgotten.
    pub(super) fn push(&mut self, pushes: Vec<Pushed>, scope: &mut Scope) {
        let now = scope.now();
        self.newcomers.retain(|_, until| *until > now);
        self.observers.retain(|_, until| *until > now);
        let with_bytes = |pushed: Pushed| {
            let (signed, _) = scope.book.evidence(&pushed.id, now)?;
            Some((pushed, signed.bytes().clone()))
        };
        let news: Vec<_> = pushes.into_iter().filter_map(with_bytes).collect();
        for peer in self.newcomers.keys().chain(self.observers.keys()) {
            let for_peer =
                news.iter().filter(|(Pushed { id, from }, _)| id != peer && from != peer);
            let mut batch: Vec<Bytes> = Vec::new();
            let mut size = 0;
            for (_, bytes) in for_peer {
                if size + bytes.len() > PUSH_ROOM || batch.len() == MAX_RECORDS {
                    scope.send(peer, TopicFrame::Push(std::mem::take(&mut batch)));
                    size = 0;
                }
                size += bytes.len();
                batch.push(bytes.clone());
            }
            if !batch.is_empty() {
                scope.send(peer, TopicFrame::Push(batch));
            }
        }
    }

    /// Returns true if peers that are not in the overlay wait for pushes.
    pub(super) fn has_newcomers(&self) -> bool {
        !(self.newcomers.is_empty() && self.observers.is_empty())
    }

    /// A peer is in the overlay, gone, or has another source: new records are no longer pushed to
    /// it.
    pub(super) fn forget_newcomer(&mut self, peer: &EndpointId) {
        self.newcomers.remove(peer);
        self.observers.remove(peer);
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
        self.forget_newcomer(&peer);
        self.sponsors.remove(&peer);
        self.sessions.remove(&SessionKey::begun_by(peer));
        self.sessions.remove(&SessionKey::begun_by_us(peer)).is_some()
    }

    /// A member became a neighbor.
    pub(super) fn neighbor_up(&mut self, scope: &mut Scope) {
        self.reset_trickle(scope);
    }

    pub(super) fn neighbor_down(&mut self, peer: &EndpointId) {
        self.comparisons.remove(peer);
    }

    /// This node is in the overlay from now on.
    pub(super) fn on_attached(&mut self, scope: &mut Scope) {
        self.random_sync_delay = RANDOM_SYNC_FIRST;
        self.schedule_random_sync(scope);
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
        self.timers.set_by(Timer::Sessions, self.stalls_at(peer, &session, scope));
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
            self.register(peer, scope);
        } else if !frame.attached {
            self.newcomers.insert(peer, now + NEWCOMER_HELP);
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
        let of_newcomer = |key: &&SessionKey| {
            key.role == Role::Responder && self.newcomers.contains_key(&key.peer)
        };
        let busy = self.sessions.keys().filter(of_newcomer).count();
        let newcomer = !frame.attached && !frame.observer;
        let busy = newcomer && known.is_none() && busy >= scope.config.concurrent_syncs;
        let unserved = match self.serving.may_answer(Customer::of(peer, scope), scope.now()) {
            _ if scope.config.observer => Some(Unserved::ByObserver),
            _ if frame.observer && !self.observers.contains_key(&peer) => Some(Unserved::Observer),
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
        self.timers.set_by(Timer::Sessions, scope.now() + Session::TIMEOUT);
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
                let members = scope.random_members(BUSY_MEMBERS, &BTreeSet::from([peer]));
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
        if session.news > 0 {
            self.reset_trickle(scope);
        }
        if session.refused >= CROWDED {
            self.crowded.retain(|_, until| *until > scope.cx.now);
            self.crowded.insert(key.peer, scope.now() + CROWDED_FOR);
        }
        if !complete {
            return Effects::none();
        }
        if scope.config.observer && key.role == Role::Initiator {
            self.take_source(key.peer, session.news, scope);
        }
        scope.cx.counts.syncs_completed += 1;
        self.compared_with(key.peer, &session, scope);
        scope.emit(TopicEvent::Synced(key.peer));
        if key.role == Role::Responder {
            return Effects::none();
        }
        if scope.view.attached.is_none() {
            self.came_from.get_or_insert(key.peer);
        }
        let differed = session.news.max(session.given);
        Effects::one(Effect::Synced { peer: key.peer, differed })
    }

    /// A peer is busy with other syncs. Returns false if this node did not ask it.
    pub(super) fn on_busy(&mut self, peer: EndpointId) -> bool {
        self.sessions.remove(&SessionKey::begun_by_us(peer)).is_some()
    }

    /// Ends one session that stalled. Only one, because that may start a new session.
    fn on_sessions(&mut self, scope: &mut Scope) -> Effects {
        let now = scope.now();
        let mut ends = self
            .sessions
            .iter()
            .map(|(key, session)| (self.stalls_at(key.peer, session, scope), *key, session.tries));
        let late = ends.find(|(at, ..)| *at <= now);
        let mut effects = Effects::none();
        if let Some((_, key, tries)) = late {
            scope.dropped(DropReason::SyncsThatStalled, Some(key.peer));
            effects.append(self.end_session(key, false, scope));
            if key.role == Role::Initiator {
                let again = tries + 1 < compare::TRIES && self.is_wanted_soon(&key.peer, scope);
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
            self.timers.set(Timer::Sessions, next);
        }
        effects
    }

    /// Makes syncs soon and frequent, because books were found to differ, or the neighbors changed.
    fn reset_trickle(&mut self, scope: &mut Scope) {
        if self.trickle > scope.config.sync_interval_min || !self.timers.is_set(Timer::Trickle) {
            self.trickle = scope.config.sync_interval_min;
            self.schedule_trickle(scope);
        }
    }

    fn schedule_trickle(&mut self, scope: &mut Scope) {
        let interval = self.trickle.max(scope.cx.lag());
        let at = scope.now() + jitter(&mut scope.cx.rng, interval, 0.5..1.0);
        self.timers.set(Timer::Trickle, at);
    }

    fn on_trickle(&mut self, scope: &mut Scope) -> Effects {
        use std::ops::Bound;
        if !scope.cx.is_on(Rule::Reconciliation) {
            return Effects::none();
        }
        let recently = |at: Instant| scope.now().saturating_duration_since(at) < RESTLESS;
        let restless =
            scope.cx.lag() > Duration::ZERO && scope.book.is_restless(RESTLESS, scope.now());
        if waits_until_settled(scope) || (restless && self.compared_restless.is_some_and(recently))
        {
            self.timers.set(Timer::Trickle, once_settled(scope));
            return Effects::none();
        }
        let neighbors = scope.view.neighbors;
        let after = self.trickle_last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = neighbors.range((after, Bound::Unbounded)).next().or(neighbors.first()).copied();
        let Some(next) = next else { return Effects::none() };
        self.trickle_last = Some(next);
        self.compared_restless = Some(scope.now()).filter(|_| restless);
        let mut effects = Effects::none();
        if !self.agreed(&next, self.trickle, scope.now()) {
            effects.append(self.start(next, scope));
        }
        self.trickle = (self.trickle * 2).min(scope.config.sync_interval_max);
        self.schedule_trickle(scope);
        effects
    }

    /// Schedules the next random sync: soon after this node entered the overlay, then after growing
    /// delays.
    fn schedule_random_sync(&mut self, scope: &mut Scope) {
        let most = scope.config.random_sync_interval;
        let delay = self.random_sync_delay.min(most);
        let grown = self.random_sync_delay.saturating_mul(RANDOM_SYNC_GROWTH);
        self.random_sync_delay = if grown > RANDOM_SYNC_SOON { most } else { grown };
        let at = scope.now() + jitter(&mut scope.cx.rng, delay, 0.8..1.2) + scope.spread();
        self.timers.set(Timer::RandomSync, at);
    }

    /// Syncs with a member that is no neighbor. A swarm that forms at once may form in parts, each
    /// of which looks complete from inside. The first partner is the peer of this node's first
    /// sync, if it is still linked, so that the two never stay in different parts.
    fn on_random_sync(&mut self, scope: &mut Scope) -> Effects {
        if waits_until_settled(scope) {
            self.timers.set(Timer::RandomSync, once_settled(scope));
            return Effects::none();
        }
        let neighbors = scope.view.neighbors;
        let origin = self.came_from.take();
        let origin = origin.filter(|peer| !neighbors.contains(peer) && scope.peers.is_linked(peer));
        let partner = origin.or_else(|| scope.random_members(1, neighbors).first().copied());
        self.schedule_random_sync(scope);
        match partner {
            Some(peer) if scope.cx.is_on(Rule::Reconciliation) => {
                Effects::one(Effect::Contact(peer))
            }
            _ => Effects::none(),
        }
    }

    /// A sync brought a record of this age that was new here.
    pub(super) fn on_synced_news(&mut self, applied: &Applied, age: Duration, scope: &mut Scope) {
        let now = scope.now();
        let settled = scope
            .view
            .attached
            .is_some_and(|since| now.saturating_duration_since(since) > 2 * GAP_AGE);
        let missed = settled && age > GAP_AGE && !matches!(applied, Applied::Refreshed);
        if missed && self.gap_sync_after.is_none_or(|after| after <= now) {
            // Gossip missed the record: syncs with a member that is no neighbor, at once.
            self.gap_sync_after = Some(now + 2 * GAP_AGE);
            self.timers.set_by(Timer::RandomSync, now);
        }
    }
}

/// Returns true if this node is behind, and gossip and syncs still bring records. A comparison
/// would find what is under way.
fn waits_until_settled(scope: &Scope) -> bool {
    scope.cx.lag() > Duration::ZERO && scope.settled_digest().is_none()
}

/// Returns when to look again whether the book is settled.
fn once_settled(scope: &mut Scope) -> Instant {
    scope.now() + jitter(&mut scope.cx.rng, SETTLED, 1.0..2.0) + scope.cx.lag()
}

/// Returns true if the process behind the link is not the one that announced the record in the
/// book.
fn is_another_life(peer: &EndpointId, scope: &Scope) -> bool {
    let known = scope.book.get(peer).map(|live| live.signed.record().boot_id);
    !scope.view.leaving && known.is_some() && known != scope.cx.links.boot_id(peer)
}
