//! Contacts: which peers this node dials to get into contact, and to stay in contact.
//!
//! A node without a link dials bootstrap peers, finds and members, a few at a time, with growing
//! delays. A node in contact still looks for bootstrap peers that the book lacks. A find is a peer
//! that a lookup on the local network found.

pub(super) mod peers;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{collections::BTreeSet, time::Duration};

use iroh_base::TransportAddr;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::{
    effect::{Effect, Effects, NewRecord},
    scope::Scope,
};
use crate::{
    book::Applied,
    config::Config,
    drops::DropReason,
    event::{LinkEnd, TopicEvent},
    id::EndpointId,
    links::LinkRequest,
    rule::Rule,
    timers::{Timers, jitter},
};

use self::peers::Bootstrap;

/// Peers of each kind, such as bootstrap peers and finds, dialed at a time while no peer is linked.
const DIALS: usize = 3;
/// Bootstrap peers dialed at a time, once the delay between two rounds has grown to its largest.
const DIALS_AT_LAST: usize = 24;
/// If more than [`DIALS_AT_LAST`] are due, they are dialed in batches this time apart.
const DIALS_APART: Duration = Duration::from_secs(1);
/// The most finds outside the book that are remembered.
const MAX_FOUND: usize = 64;
/// How often a node in contact dials one find. Gossip brings the records of most finds before.
const FOUND_INTERVAL: Duration = Duration::from_secs(2);
/// The most dials to finds that are under way at a time. On a slow machine, a dial that takes long
/// is only late, and more dials would delay all of them.
const FOUND_UNDER_WAY: usize = 2;
/// A node without a link dials a find within this time. Until then it hears of most nodes that
/// start together with it, and all of these dial the same one.
const FOUND_SPREAD: Duration = Duration::from_millis(100);
/// A peer that could not be dialed, or does not serve this topic, is not chosen for this time.
const AVOID: Duration = Duration::from_secs(30);
/// A node whose last link has been gone for this time is isolated.
const ISOLATED_AFTER: Duration = Duration::from_secs(1);
/// A bootstrap peer whose link broke is dialed after this.
const LOST_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Contacts {
    redial_delay: Duration,
    /// True if a sync that this node began was completed since it was last without links.
    synced: bool,
    /// When bootstrap peers or finds were last dialed because no peer was linked, or a find because
    /// the book lacks it.
    dialed: Option<Instant>,
    reach: Reach,
    timers: Timers<Timer>,
}

/// What the application knows of this node's reach: whether any peer is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// No peer was ever linked.
    Never,
    Linked,
    Isolated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Look for a peer to sync with.
    Redial,
    /// Tell the application that no link is left.
    Isolation,
}

#[allow(
    clippy::unused_self,
    reason = "who has the contacts, and nobody else, may change the peers"
)]
impl Contacts {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            redial_delay: config.redial_min,
            synced: false,
            dialed: None,
            reach: Reach::Never,
            timers: Timers::default(),
        }
    }

    /// Returns true if a sync that this node began was completed since it was last without links.
    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn on_timeout(&mut self, scope: &mut Scope) -> Effects {
        match self.timers.take_due(scope.now()) {
            Some(Timer::Redial)
                if scope.view.syncing && !scope.peers.is_alone() && !self.synced =>
            {
                // The answers may be late. If the sync fails, that asks for the next redial.
                self.redial_later(scope);
                Effects::none()
            }
            Some(Timer::Redial) if scope.peers.is_alone() || !self.synced => {
                self.redial_anyone(scope)
            }
            Some(Timer::Redial) => self.redial_missing(scope),
            Some(Timer::Isolation) => {
                self.on_isolation(scope);
                Effects::none()
            }
            None => Effects::none(),
        }
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.timers.clear_all();
    }

    pub(super) fn add_bootstrap(
        &mut self,
        peers: Vec<(EndpointId, Vec<TransportAddr>)>,
        scope: &mut Scope,
    ) {
        let now = scope.now();
        for (peer, addresses) in peers {
            if peer == scope.me() {
                continue;
            }
            let known = scope.peers.bootstrap.contains_key(&peer);
            let fresh = Bootstrap {
                addresses: Vec::new(),
                attempts: 0,
                next: now,
                tried: None,
                lost: false,
            };
            let entry = scope.peers.bootstrap.entry(peer).or_insert(fresh);
            // A bare id, or a name that the driver has yet to resolve, removes no address.
            let moved = !addresses.is_empty() && entry.addresses != addresses;
            if moved {
                entry.addresses = addresses;
                entry.tried = None;
            }
            // A peer that is named again may be back, so it is dialed without its growing delay.
            let again = entry.next > now && scope.book.get(&peer).is_none();
            if moved || again {
                entry.next = now;
            }
            if moved || again || !known {
                self.timers.set_by(Timer::Redial, now);
            }
        }
        if !scope.peers.bootstrap.is_empty() && !self.synced {
            self.timers.set_by(Timer::Redial, now);
        }
    }

    pub(super) fn remove_bootstrap(&mut self, peers: &[EndpointId], scope: &mut Scope) {
        for peer in peers {
            scope.peers.bootstrap.remove(peer);
        }
    }

    /// A lookup on the local network found a peer.
    pub(super) fn found(
        &mut self,
        peer: EndpointId,
        addresses: Vec<TransportAddr>,
        scope: &mut Scope,
    ) {
        if peer == scope.me() || !scope.book.admits(&peer) {
            return;
        }
        if scope.book.get(&peer).is_some() {
            Self::found_member(peer, addresses, scope);
            return;
        }
        if !self.keep_find(peer, addresses, scope) {
            return;
        }
        let is_alone = scope.peers.is_alone();
        let spread = if is_alone { FOUND_SPREAD } else { FOUND_INTERVAL };
        let mut at = scope.now() + jitter(&mut scope.cx.rng, spread, 0.5..1.0);
        if is_alone && scope.peers.found.keys().all(|peer| scope.me() < *peer) {
            // The others dial this node: it is the first one of its swarm.
            at += scope.config.redial_min;
        }
        // A burst of finds must not cause a burst of dials, and a peer that was dialed a moment ago
        // may be about to answer.
        let apart = if is_alone { scope.config.redial_min } else { FOUND_INTERVAL };
        let soonest = self.dialed.map(|dialed| dialed + apart);
        self.timers.set_by(Timer::Redial, soonest.map_or(at, |soonest| soonest.max(at)));
    }

    /// A lookup on the local network found a member. At addresses that its record lacks, it may
    /// have moved together with this node, so that no link was left to tell.
    fn found_member(peer: EndpointId, mut addresses: Vec<TransportAddr>, scope: &mut Scope) {
        let Some(member) = scope.book.get(&peer) else { return };
        let known = &member.signed.record().addresses;
        addresses.retain(|address| !known.contains(address));
        let (moved, book) = (&mut scope.peers.moved, &scope.book);
        let before = moved.remove(&peer);
        if addresses.is_empty() {
            return;
        }
        moved.retain(|id, _| book.get(id).is_some());
        if moved.len() >= MAX_FOUND {
            scope.dropped(DropReason::PeersFoundByALookupOverTheLimit, Some(peer));
            return;
        }
        moved.insert(peer, addresses.clone());
        debug_assert!(moved.len() <= MAX_FOUND, "a network full of strangers costs no more");
        if before.as_ref() == Some(&addresses) {
            return;
        }
        let trust = scope.peers.trust(&peer, scope.book, scope.cx.now);
        scope.cx.links.dial_also(peer, &addresses, trust, scope.cx.now);
    }

    /// A handshake at an address behind a bootstrap name proved a peer's id. It is dialed at once:
    /// names are asked at intervals, and a few addresses at a time.
    pub(super) fn learned(
        &mut self,
        peer: EndpointId,
        address: TransportAddr,
        scope: &mut Scope,
    ) -> Effects {
        let is_needless = scope.book.get(&peer).is_some() && !scope.peers.is_alone();
        if peer == scope.me() || is_needless || !scope.book.admits(&peer) {
            return Effects::none();
        }
        scope.cx.links.prove(peer, address.clone());
        // A container that starts in the place of another one has its address, with another key.
        scope.peers.found.retain(|id, at| *id == peer || at[..] != [address.clone()]);
        if !self.keep_find(peer, vec![address], scope) {
            return Effects::none();
        }
        self.timers.set_by(Timer::Redial, scope.now() + scope.config.redial_min);
        Effects::one(Effect::Contact(peer))
    }

    /// Remembers a peer that is not in the book. If there is no room, one that recently could not
    /// be dialed makes room. Returns false if there is none.
    fn keep_find(
        &mut self,
        peer: EndpointId,
        addresses: Vec<TransportAddr>,
        scope: &mut Scope,
    ) -> bool {
        let now = scope.now();
        let found = &scope.peers.found;
        if found.len() >= MAX_FOUND && !found.contains_key(&peer) {
            let silent = found.keys().find(|id| scope.peers.is_avoided(id, now)).copied();
            let Some(silent) = silent else {
                scope.dropped(DropReason::PeersFoundByALookupOverTheLimit, Some(peer));
                return false;
            };
            scope.peers.found.remove(&silent);
        }
        scope.peers.found.insert(peer, addresses);
        debug_assert!(
            scope.peers.found.len() <= MAX_FOUND,
            "a network full of strangers costs no more than that"
        );
        true
    }

    /// The book got members that an earlier life of this node knew: they are dialed now.
    pub(super) fn on_kept(&mut self, scope: &mut Scope) {
        self.timers.set_by(Timer::Redial, scope.now());
    }

    /// This node's network changed: dials that failed before may succeed now.
    pub(super) fn on_network_change(&mut self, scope: &mut Scope) {
        scope.peers.avoided.clear();
        for bootstrap in scope.peers.bootstrap.values_mut() {
            bootstrap.attempts = 0;
            bootstrap.next = scope.cx.now;
        }
        self.redial_delay = scope.config.redial_min;
        if scope.peers.is_alone() || self.timers.is_set(Timer::Redial) {
            self.redial_soon(scope);
        }
        debug_assert!(
            self.redial_delay <= scope.config.redial_max,
            "a node that is alone dials at least this often"
        );
    }

    /// The access lists of this endpoint changed: a peer that was kept out may be dialed now.
    pub(super) fn on_access(&mut self, scope: &mut Scope) {
        let book = &scope.book;
        scope.peers.found.retain(|id, _| book.admits(id));
        if scope.peers.is_alone() {
            self.redial_soon(scope);
        }
    }

    fn redial_later(&mut self, scope: &mut Scope) {
        let at = scope.now() + jitter(&mut scope.cx.rng, scope.config.redial_max, 0.8..1.2);
        self.timers.set_by(Timer::Redial, at);
    }

    fn redial_soon(&mut self, scope: &mut Scope) {
        let at = scope.now() + jitter(&mut scope.cx.rng, self.redial_delay, 0.1..0.5);
        self.timers.set_by(Timer::Redial, at);
    }

    /// Dials peers of every kind, because no peer is linked or no sync was completed yet.
    fn redial_anyone(&mut self, scope: &mut Scope) -> Effects {
        let now = scope.now();
        let mut bootstrap: Vec<_> = scope.peers.bootstrap.keys().copied().collect();
        bootstrap.shuffle(&mut scope.cx.rng);
        // The least recently dialed come first: a peer that is alive need not wait for a thousand
        // that are not.
        bootstrap.sort_by_key(|peer| scope.peers.bootstrap[peer].tried);
        bootstrap.truncate(self.bootstrap_dials(scope));
        // One answer is enough, so the first round is for the peers that the user named.
        let may_answer = !bootstrap.is_empty() && self.redial_delay <= scope.config.redial_min;
        let find = if may_answer { None } else { Self::find_to_dial(scope) };
        let lost = scope.book.lost().map(|(id, ..)| id);
        let mut lost: Vec<_> = lost.filter(|id| scope.book.kept(id).is_none()).collect();
        if !scope.cx.is_on(Rule::Healing) {
            lost.clear();
        }
        lost.shuffle(&mut scope.cx.rng);
        lost.truncate(DIALS);
        let mut anyone = bootstrap;
        anyone.extend(find);
        if scope.peers.is_alone() {
            anyone.extend(scope.likely_members(DIALS, &BTreeSet::new()));
            anyone.extend(lost);
            anyone.extend(self.kept_to_dial(scope));
        }
        let is_first =
            anyone.is_empty() && scope.book.len() == 0 && scope.book.lost().next().is_none();
        let mut effects = Effects::none();
        if is_first {
            // No peer is known: one has to be named or found, or has to dial this node.
            return effects;
        }
        self.dialed = Some(now);
        for peer in anyone {
            if let Some(bootstrap) = scope.peers.bootstrap.get_mut(&peer) {
                bootstrap.tried = Some(now);
            }
            effects.push(Effect::Contact(peer));
        }
        let at = now + jitter(&mut scope.cx.rng, self.redial_delay, 0.8..1.2);
        self.redial_delay = (self.redial_delay * 2).min(scope.config.redial_max);
        debug_assert!(!self.redial_delay.is_zero(), "redials are apart");
        self.timers.set(Timer::Redial, at);
        effects
    }

    /// Chooses the find to dial now. Those that recently could not be dialed come last.
    fn find_to_dial(scope: &mut Scope) -> Option<EndpointId> {
        let now = scope.now();
        let all = scope.peers.found.keys().copied();
        let (under_way, mut others): (Vec<_>, Vec<_>) =
            all.partition(|peer| scope.cx.links.is_connecting(peer));
        let mut named = scope.peers.bootstrap.keys();
        let any = !under_way.is_empty() || named.any(|peer| scope.cx.links.is_connecting(peer));
        // On a machine that is behind, a dial is late rather than lost, and gossip is late as well.
        let is_late = any && scope.cx.lag() > Duration::ZERO;
        if is_late || scope.is_late_in_burst() || under_way.len() >= FOUND_UNDER_WAY {
            return None;
        }
        // Nodes that start together dial the lowest id of all, as if it were their bootstrap peer.
        // So they meet there, and not in many parts of a swarm that have yet to find each other.
        if !scope.peers.is_alone() {
            others.shuffle(&mut scope.cx.rng);
        }
        others.sort_by_key(|peer| scope.peers.is_avoided(peer, now));
        others.first().copied()
    }

    /// Returns how many bootstrap peers are dialed at a time while no peer is linked. They are few
    /// at first, because one answer is enough, and more once the delay has grown to its largest.
    fn bootstrap_dials(&self, scope: &Scope) -> usize {
        if self.redial_delay < scope.config.redial_max { DIALS } else { DIALS_AT_LAST }
    }

    /// Chooses the members of an earlier life to dial while no peer is linked. Those that were
    /// dialed least often come first.
    fn kept_to_dial(&self, scope: &mut Scope) -> Vec<EndpointId> {
        let mut kept: Vec<_> = scope.book.all_kept().collect();
        kept.shuffle(&mut scope.cx.rng);
        kept.sort_by_key(|(_, dials)| *dials);
        kept.truncate(self.bootstrap_dials(scope));
        kept.into_iter().map(|(peer, _)| peer).collect()
    }

    /// Dials bootstrap peers and finds that are not in the book, while this node is in contact.
    fn redial_missing(&mut self, scope: &mut Scope) -> Effects {
        let now = scope.now();
        let (mut due, mut next) = self.due_bootstrap(scope);
        let gone =
            |id: &EndpointId| scope.book.get(id).is_some() || scope.peers.is_avoided(id, now);
        let gone: Vec<_> = scope.peers.found.keys().copied().filter(gone).collect();
        scope.peers.found.retain(|id, _| !gone.contains(id));
        if self.dialed.is_none_or(|dialed| now >= dialed + FOUND_INTERVAL) {
            due.extend(Self::find_to_dial(scope));
            if !scope.peers.found.is_empty() {
                self.dialed = Some(now);
            }
        }
        if !scope.peers.found.is_empty() {
            let again = self.dialed.map_or(now, |dialed| dialed) + FOUND_INTERVAL;
            next = next.into_iter().chain([again]).min();
        }
        if let Some(at) = next {
            self.timers.set(Timer::Redial, at);
        }
        due.into_iter().map(Effect::Contact).collect()
    }

    /// Returns the bootstrap peers to dial now, those that were dialed least often first, and when
    /// to check again.
    fn due_bootstrap(&self, scope: &mut Scope) -> (Vec<EndpointId>, Option<Instant>) {
        if !scope.cx.is_on(Rule::BootstrapMemory) {
            return (Vec::new(), None);
        }
        let (now, config) = (scope.now(), scope.config);
        let is_missing = |peer: &EndpointId, bootstrap: &Bootstrap| {
            scope.book.get(peer).is_none() || bootstrap.lost
        };
        let all = scope.peers.bootstrap.iter();
        let missing = all.filter(|(peer, bootstrap)| is_missing(peer, bootstrap));
        let due = missing.clone().filter(|(_, bootstrap)| bootstrap.next <= now);
        let mut due: Vec<_> = due.map(|(peer, bootstrap)| (bootstrap.attempts, *peer)).collect();
        let later = missing.filter(|(_, bootstrap)| bootstrap.next > now);
        let mut next = later.map(|(_, bootstrap)| bootstrap.next).min();
        if due.len() > DIALS_AT_LAST {
            due.sort_unstable();
            // Each later batch gets its own time, so that a timer that fires earlier for one peer
            // does not dial them all.
            for (batch, peers) in (1..).zip(due.split_off(DIALS_AT_LAST).chunks(DIALS_AT_LAST)) {
                let at = now + DIALS_APART * batch;
                for (_, peer) in peers {
                    if let Some(bootstrap) = scope.peers.bootstrap.get_mut(peer) {
                        bootstrap.next = at;
                    }
                }
                next = next.into_iter().chain([at]).min();
            }
        }
        for (_, peer) in &due {
            let Some(bootstrap) = scope.peers.bootstrap.get_mut(peer) else { continue };
            let doubled = 2_u32.saturating_pow(bootstrap.attempts.min(16));
            let delay = config.redial_max.saturating_mul(doubled).min(config.heal_interval_max);
            bootstrap.attempts = bootstrap.attempts.saturating_add(1);
            bootstrap.next = now + jitter(&mut scope.cx.rng, delay, 0.8..1.2);
            next = next.into_iter().chain([bootstrap.next]).min();
        }
        (due.into_iter().map(|(_, peer)| peer).collect(), next)
    }

    /// Dials a peer whose addresses are known, unless it is linked already.
    pub(super) fn dial(&mut self, peer: EndpointId, scope: &mut Scope) -> LinkRequest {
        if scope.addresses(&peer).is_none() {
            return LinkRequest::Refused;
        }
        let asked = scope.dial(peer);
        if asked == LinkRequest::Dialing {
            if scope.peers.may_dial_kept(&peer, scope.book) {
                scope.peers.kept_dials += 1;
            }
            scope.book.tried_kept(&peer);
        }
        asked
    }

    /// A peer could not be dialed, or does not serve this topic.
    pub(super) fn avoid(&mut self, peer: EndpointId, scope: &mut Scope) {
        let now = scope.now();
        scope.peers.avoided.retain(|_, until| *until > now);
        scope.peers.avoided.insert(peer, now + AVOID);
    }

    /// A peer has a usable link.
    pub(super) fn link_up(&mut self, peer: &EndpointId, scope: &mut Scope) {
        scope.peers.avoided.remove(peer);
    }

    /// The link in use with a peer is gone.
    pub(super) fn link_down(&mut self, peer: &EndpointId, end: LinkEnd, scope: &mut Scope) {
        if let Some(bootstrap) = scope.peers.bootstrap.get_mut(peer)
            && matches!(end, LinkEnd::TimedOut | LinkEnd::Lost)
        {
            bootstrap.lost = true;
            bootstrap.attempts = 0;
            bootstrap.next = scope.cx.now + LOST_AFTER;
            self.timers.set_by(Timer::Redial, bootstrap.next);
        }
    }

    /// A peer opened this topic on a link.
    pub(super) fn opened(&mut self, peer: EndpointId, scope: &mut Scope) {
        if !scope.peers.linked.insert(peer) {
            return;
        }
        debug_assert!(peer != scope.me(), "a node has no link to itself");
        scope.emit(TopicEvent::Opened(peer));
        if let Some(bootstrap) = scope.peers.bootstrap.get_mut(&peer) {
            bootstrap.lost = false;
        }
        scope.cx.links.touch(&peer, scope.config.link_idle, scope.cx.now);
        self.timers.clear(Timer::Isolation);
        self.redial_delay = scope.config.redial_min;
        if self.reach == Reach::Isolated {
            let (topic, peer) = (scope.topic.fmt_short(), peer.fmt_short());
            tracing::info!(%topic, %peer, "reconnected");
            scope.emit(TopicEvent::Reconnected);
        }
        self.reach = Reach::Linked;
    }

    /// A peer no longer speaks of this topic.
    pub(super) fn unlinked(&mut self, peer: &EndpointId, was_syncing: bool, scope: &mut Scope) {
        if !scope.peers.linked.remove(peer) || !scope.peers.is_alone() {
            if was_syncing {
                self.sync_failed(scope);
            }
        } else if !scope.view.leaving {
            self.timers.set(Timer::Isolation, scope.now() + ISOLATED_AFTER);
            self.synced = false;
            self.redial_delay = scope.config.redial_min;
            self.redial_soon(scope);
        }
    }

    fn on_isolation(&mut self, scope: &mut Scope) {
        debug_assert!(scope.peers.is_alone(), "the first link clears the timer");
        let anyone = scope.book.len() > 0
            || scope.book.lost().next().is_some()
            || !scope.peers.bootstrap.is_empty();
        if self.reach == Reach::Linked && anyone {
            self.reach = Reach::Isolated;
            tracing::info!(topic = %scope.topic.fmt_short(), "isolated: no member is linked");
            scope.emit(TopicEvent::Isolated);
        }
    }

    /// A sync that this node began is complete.
    pub(super) fn synced(&mut self, scope: &mut Scope) {
        self.synced = true;
        self.redial_delay = scope.config.redial_min;
    }

    /// A sync that this node began failed. If none was completed yet, another one is tried.
    pub(super) fn sync_failed(&mut self, scope: &mut Scope) {
        if !self.synced {
            self.redial_soon(scope);
        }
    }

    /// The partner of a sync was busy, and named other members.
    pub(super) fn partner_busy(&mut self, scope: &mut Scope) {
        let at = scope.now() + jitter(&mut scope.cx.rng, Duration::from_secs(1), 0.5..1.5);
        self.timers.set(Timer::Redial, at);
    }

    /// A record that was new here is in the book.
    pub(super) fn on_applied(&mut self, new: &NewRecord, scope: &mut Scope) {
        let id = &new.record.id;
        if new.applied == Applied::Joined {
            scope.peers.found.remove(id);
        }
        if let Some(bootstrap) = scope.peers.bootstrap.get_mut(id) {
            bootstrap.lost = false;
        }
    }

    /// A member left or was lost. If it is a bootstrap peer, it is dialed again later.
    pub(super) fn on_gone(&mut self, id: &EndpointId, scope: &mut Scope) {
        if let Some(bootstrap) = scope.peers.bootstrap.get_mut(id) {
            bootstrap.attempts = 0;
            bootstrap.next = scope.cx.now + scope.config.heal_interval;
            self.timers.set_by(Timer::Redial, bootstrap.next);
        }
    }
}
