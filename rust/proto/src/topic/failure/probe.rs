//! Probes: they ask whether a member is alive. This node probes a neighbor that was not heard for a
//! while. If it does not answer, other neighbors are asked to probe it. If many members died at
//! once, random members are probed.
//!
//! SWIM (Das et al., DSN 2002) with the local health of Lifeguard (Dadgar et al., DSN-W 2018), over
//! the links that exist. Any authenticated frame from a neighbor spares its probe. A probe begins
//! with a keepalive.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand::{RngExt, seq::IteratorRandom};
use tokio::time::Instant;

use super::{
    super::{
        effect::{Effect, Effects},
        scope::Scope,
    },
    Detector, Timer,
};
use crate::{
    drops::DropReason, event::CloseCode, id::EndpointId, links::LinkRequest, timers::jitter,
    wire::TopicFrame,
};

/// A neighbor that sent a frame within this number of intervals is only sent a keepalive. Its QUIC
/// acknowledges that, which takes half the packets of a ping and its answer, because QUIC
/// acknowledges each of those too. A process that stopped while its QUIC runs is found later.
const SILENT_INTERVALS: u32 = 4;
/// The neighbors that are asked to probe a member that did not answer this node (SWIM's k).
const HELPERS: usize = 3;
/// The most probes at a time, and the most of them on behalf of other nodes.
const MAX_PROBES: usize = 256;
const MAX_HELPING: usize = 32;
/// Each accusation of this node that was refuted makes its probes wait one timeout longer, up to
/// this number more (Lifeguard's local health multiplier, S = 8 there).
const MAX_PATIENCE: u32 = 3;
/// A probe on behalf of others that failed counts as a confirmation for this long.
const DOUBT: Duration = Duration::from_secs(5);
/// A probe begins again after a pause of this node, at most this often.
const MAX_RESTARTS: u32 = 3;
/// A neighbor that only others reach, this many times in a row, has a broken link with this node.
const SILENT: u32 = 2;
/// While a twentieth of the book died within a minute, or is suspected, random members are probed:
/// one in [`SURVEY_INTERVALS`] intervals of probes. The more members died recently, the more of
/// them died together with all their neighbors. Then this interval is shorter, by a factor of at
/// most [`SURVEY_FASTER`].
const SURVEY_INTERVALS: u32 = 2;
const SURVEY_FASTER: f64 = 4.0;
const MASS_WINDOW: Duration = Duration::from_mins(1);
const MASS_SHARE: usize = 20;
/// A death within this time is recent.
const WAVE: Duration = Duration::from_secs(10);
/// If no neighbor confirms a suspicion, about this many of all members probe the accused.
const CONFIRMERS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The member was pinged once, or dialed. It is pinged again after half of the timeout, in case
    /// a packet was lost.
    Pinged,
    Repeated,
    /// Other nodes were asked to probe the member.
    Indirect,
}

#[derive(Debug)]
struct Probe {
    phase: Phase,
    /// Anything that is heard after this is a sign of life.
    since: Instant,
    deadline: Instant,
    /// True if the probe is this node's own: if it fails, an accusation follows.
    own: bool,
    /// True if it is the second probe, because many failed together.
    second: bool,
    /// How often the probe began again, because this node was paused or its network changed.
    restarts: u32,
    asked_by: BTreeSet<EndpointId>,
    helpers: BTreeSet<EndpointId>,
}

/// When a neighbor is checked next, and how often in a row only others reached it.
#[derive(Debug)]
struct Watch {
    next: Instant,
    silent: u32,
}

#[derive(Debug, Default)]
pub(super) struct Probes {
    watches: BTreeMap<EndpointId, Watch>,
    open: BTreeMap<EndpointId, Probe>,
    patience: u32,
    /// Neighbors that recently did not answer.
    missed: VecDeque<(Instant, EndpointId)>,
    doubts: BTreeMap<EndpointId, Instant>,
    /// When members were recently held to be dead.
    deaths: VecDeque<Instant>,
    /// When the book was last compared with that of a member that was probed because many died.
    compared: Option<Instant>,
}

impl Probes {
    pub(super) fn is_probing(&self, peer: &EndpointId) -> bool {
        self.open.contains_key(peer)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 5] {
        [
            ("watches", self.watches.len()),
            ("probes", self.open.len()),
            ("missed", self.missed.len()),
            ("doubts", self.doubts.len()),
            ("deaths", self.deaths.len()),
        ]
    }

    fn next(&self) -> Option<Instant> {
        let watches = self.watches.values().map(|watch| watch.next);
        watches.chain(self.open.values().map(|probe| probe.deadline)).min()
    }

    /// An accusation of this node was refuted.
    pub(super) fn was_wrong(&mut self) {
        self.patience = (self.patience + 1).min(MAX_PATIENCE);
    }
}

impl Detector {
    fn probe_timeout(&self, scope: &Scope) -> Duration {
        scope.config.probe_timeout * (self.probes.patience + 1)
    }

    fn schedule_probes(&mut self) {
        match self.probes.next() {
            Some(next) => self.timers.set(Timer::Probe, next),
            None => self.timers.clear(Timer::Probe),
        }
    }

    pub(super) fn watch(&mut self, peer: EndpointId, scope: &mut Scope) {
        let next = scope.now() + jitter(&mut scope.cx.rng, scope.config.probe_interval, 0.5..1.0);
        self.probes.watches.insert(peer, Watch { next, silent: 0 });
        self.schedule_probes();
    }

    pub(super) fn unwatch(&mut self, peer: &EndpointId) {
        self.probes.watches.remove(peer);
        self.schedule_probes();
    }

    pub(super) fn on_probe(&mut self, scope: &mut Scope) -> Effects {
        self.look_at_neighbors(scope);
        let now = scope.now();
        let due = self.probes.open.iter().find(|(_, probe)| probe.deadline <= now);
        let effects = match due.map(|(peer, _)| *peer) {
            Some(peer) => self.advance(peer, scope),
            None => Effects::none(),
        };
        self.schedule_probes();
        effects
    }

    fn look_at_neighbors(&mut self, scope: &mut Scope) {
        let interval = scope.config.probe_interval;
        let mut silent = Vec::new();
        for (peer, watch) in &mut self.probes.watches {
            if watch.next > scope.now() {
                continue;
            }
            let heard = scope.cx.links.heard(peer).unwrap_or(scope.now());
            let quiet = scope.now().saturating_duration_since(heard);
            // Both ends check. A probe of either end is a sign of life for both.
            if quiet < interval.mul_f64(0.9) {
                watch.next = heard + jitter(&mut scope.cx.rng, interval, 0.9..1.1);
            } else {
                watch.next = scope.now() + jitter(&mut scope.cx.rng, interval, 0.9..1.1);
                silent.push(*peer);
            }
        }
        for peer in silent {
            self.probe(peer, true, None, scope);
        }
    }

    /// Starts a probe, or joins the one that is under way.
    pub(super) fn probe(
        &mut self,
        peer: EndpointId,
        own: bool,
        asked_by: Option<EndpointId>,
        scope: &mut Scope,
    ) {
        if let Some(probe) = self.probes.open.get_mut(&peer) {
            probe.own |= own;
            probe.asked_by.extend(asked_by);
            return;
        }
        if scope.view.leaving || scope.config.observer {
            // An observer believes what its source says of others.
            return;
        }
        if self.probes.open.len() >= MAX_PROBES {
            scope.dropped(DropReason::ProbesOverTheLimit, Some(peer));
            return;
        }
        scope.cx.counts.probes += 1;
        let half = (self.probe_timeout(scope) + scope.cx.lag()) / 2;
        let probe = Probe {
            phase: Phase::Pinged,
            since: scope.now(),
            deadline: scope.now() + half,
            own,
            second: false,
            restarts: 0,
            asked_by: asked_by.into_iter().collect(),
            helpers: BTreeSet::new(),
        };
        self.probes.open.insert(peer, probe);
        let digest = scope.settled_digest().map(TopicFrame::Digest);
        let sent_keepalive = self.probes.watches.contains_key(&peer)
            && scope.cx.links.keepalive(
                &peer,
                (scope.topic, digest),
                scope.config.probe_interval * SILENT_INTERVALS,
                scope.now(),
            );
        if !sent_keepalive
            && !scope.cx.links.ping(&peer, scope.cx.now)
            && self.dial(peer, scope) == LinkRequest::Refused
        {
            // This node's own budget of dials is used up. Nothing was tried, so nothing is known of
            // the member. Surveys that took that for silence would keep accusing live members.
            self.probes.open.remove(&peer);
        }
        self.schedule_probes();
    }

    fn dial(&mut self, peer: EndpointId, scope: &mut Scope) -> LinkRequest {
        let known = scope.addresses(&peer);
        let addresses = known.or_else(|| self.unconfirmed_addresses(&peer)).unwrap_or_default();
        scope.dial_at(peer, &addresses)
    }

    fn set_phase(&mut self, peer: EndpointId, phase: Phase, time: Duration, scope: &Scope) {
        if let Some(probe) = self.probes.open.get_mut(&peer) {
            probe.phase = phase;
            probe.deadline = scope.now() + time;
        }
    }

    /// Takes the next step of a probe whose time is up.
    fn advance(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let Some(probe) = self.probes.open.get(&peer) else { return Effects::none() };
        if scope.cx.links.was_heard(&peer, probe.since) {
            return self.answered(peer, scope);
        }
        // As Lifeguard's local health, but at once: a node that is behind gives others more time.
        let timeout = self.probe_timeout(scope) + scope.cx.lag();
        match (probe.phase, probe.own) {
            (Phase::Pinged, _) => {
                scope.cx.links.ping(&peer, scope.cx.now);
                self.set_phase(peer, Phase::Repeated, timeout / 2, scope);
            }
            // Others accuse the member already, so there is no need to ask them.
            (Phase::Repeated, true) if self.is_suspected(&peer) => return self.failed(peer, scope),
            (Phase::Repeated, true) => {
                let since = probe.since;
                if self.probes.watches.contains_key(&peer) {
                    self.probes.missed.push_back((since, peer));
                }
                self.ask_helpers(peer, scope);
                self.set_phase(peer, Phase::Indirect, timeout, scope);
            }
            (Phase::Repeated, false) => {
                self.probes.open.remove(&peer);
                return self.doubt(peer, scope);
            }
            (Phase::Indirect, _)
                if scope.cx.lag() > Duration::ZERO && probe.restarts < MAX_RESTARTS =>
            {
                // The answers may wait here: a node that is behind accuses later.
                let lag = scope.cx.lag();
                if let Some(probe) = self.probes.open.get_mut(&peer) {
                    probe.restarts += 1;
                    probe.deadline = scope.cx.now + lag;
                }
            }
            (Phase::Indirect, _) => return self.failed(peer, scope),
        }
        Effects::none()
    }

    fn ask_helpers(&mut self, peer: EndpointId, scope: &mut Scope) {
        let others = scope.view.neighbors.iter().copied();
        let able = others.filter(|id| *id != peer && !self.probes.is_probing(id));
        let helpers = able.sample(&mut scope.cx.rng, HELPERS);
        for helper in &helpers {
            scope.send(helper, TopicFrame::ProbeRequest(peer));
        }
        if let Some(probe) = self.probes.open.get_mut(&peer) {
            probe.helpers.extend(helpers);
        }
    }

    /// A probe on behalf of another node failed. It confirms an accusation, now or soon.
    fn doubt(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        if is_beyond(&peer, scope) {
            return Effects::none();
        }
        if self.is_suspected(&peer) {
            return self.accuse(peer, scope);
        }
        self.probes.doubts.retain(|_, until| *until > scope.now());
        self.probes.doubts.insert(peer, scope.now() + DOUBT);
        Effects::none()
    }

    /// A member is accused. Returns true if a probe of it failed here recently. If none did, and
    /// the member is a neighbor, it is probed at once.
    pub(super) fn second_opinion(&mut self, peer: EndpointId, scope: &mut Scope) -> bool {
        if self.probes.doubts.remove(&peer).is_some_and(|until| until > scope.now()) {
            return true;
        }
        if self.probes.watches.contains_key(&peer) {
            self.probe(peer, true, None, scope);
        }
        false
    }

    /// A probe failed: neither the member nor any node that was asked to probe it answered.
    fn failed(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let mut effects = Effects::none();
        let Some(probe) = self.probes.open.remove(&peer) else { return effects };
        if is_beyond(&peer, scope) {
            return effects;
        }
        if !probe.second && self.half_is_missing(scope) {
            // Probably this node itself is cut off or overloaded: it probes again before it
            // accuses.
            self.probe(peer, true, None, scope);
            if let Some(probe) = self.probes.open.get_mut(&peer) {
                probe.second = true;
            }
            // A sync with a member that is no neighbor may show which it is.
            for peer in scope.random_members(1, scope.view.neighbors) {
                effects.push(Effect::Contact(peer));
            }
            return effects;
        }
        scope.cx.counts.probes_failed += 1;
        effects.append(self.accuse(peer, scope));
        // Another member takes its place in the active view while it has time to refute.
        effects.push(Effect::DropNeighbor(peer));
        effects
    }

    /// Returns true if half of the neighbors, and more than one, did not answer within one round.
    fn half_is_missing(&mut self, scope: &Scope) -> bool {
        let round = scope.config.probe_interval + 3 * self.probe_timeout(scope);
        let missed = &mut self.probes.missed;
        while missed
            .front()
            .is_some_and(|(at, _)| scope.now().saturating_duration_since(*at) > round)
        {
            missed.pop_front();
        }
        let peers: BTreeSet<_> = missed.iter().map(|(_, peer)| *peer).collect();
        peers.len() >= 2 && peers.len() * 2 >= self.probes.watches.len()
    }

    /// A peer gave a sign of life. If it is being probed, the probe succeeded.
    pub(in super::super) fn heard(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        if !self.probes.is_probing(&peer) {
            return Effects::none();
        }
        let effects = self.answered(peer, scope);
        self.schedule_probes();
        effects
    }

    fn answered(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let Some(probe) = self.probes.open.remove(&peer) else { return Effects::none() };
        for asker in probe.asked_by {
            scope.send(&asker, TopicFrame::ProbeAck(peer));
        }
        if probe.own && probe.phase == Phase::Pinged {
            self.probes.patience = self.probes.patience.saturating_sub(1);
        }
        if let Some(watch) = self.probes.watches.get_mut(&peer) {
            watch.silent = 0;
        }
        self.probes.missed.retain(|(_, missed)| *missed != peer);
        self.probes.doubts.remove(&peer);
        self.confirm(peer, scope)
    }

    /// A dial did not lead to a link.
    pub(in super::super) fn dial_failed(&mut self, peer: EndpointId, scope: &mut Scope) {
        if self.probes.is_probing(&peer) {
            self.set_phase(peer, Phase::Repeated, Duration::ZERO, scope);
            self.schedule_probes();
        } else if scope.book.get(&peer).is_some() && !self.is_suspected(&peer) {
            self.probe_by_others(peer, scope);
        }
    }

    /// This node does not reach a member: others are asked to probe it.
    fn probe_by_others(&mut self, peer: EndpointId, scope: &mut Scope) {
        if self.probes.open.len() < MAX_PROBES && !scope.view.leaving {
            let probe = Probe {
                phase: Phase::Repeated,
                since: scope.now(),
                deadline: scope.now(),
                own: true,
                second: false,
                restarts: 0,
                asked_by: BTreeSet::new(),
                helpers: BTreeSet::new(),
            };
            self.probes.open.insert(peer, probe);
            self.schedule_probes();
        }
    }

    pub(in super::super) fn on_probe_request(
        &mut self,
        peer: EndpointId,
        from: EndpointId,
        scope: &mut Scope,
    ) {
        let helping = self.probes.open.values().filter(|probe| !probe.own).count();
        if peer == scope.me() {
            scope.send(&from, TopicFrame::ProbeAck(peer));
        } else if scope.book.get(&peer).is_none() || peer == from {
            // This node does not know the member, or holds it to be gone, and can't judge.
        } else if helping >= MAX_HELPING {
            scope.dropped(DropReason::ProbesForOthersOverTheLimit, Some(from));
        } else {
            self.probe(peer, false, Some(from), scope);
        }
    }

    pub(in super::super) fn on_probe_ack(
        &mut self,
        peer: EndpointId,
        from: EndpointId,
        scope: &mut Scope,
    ) {
        let Some(probe) = self.probes.open.get(&peer) else { return };
        if !probe.helpers.contains(&from) {
            return;
        }
        let asked_by = probe.asked_by.clone();
        self.probes.open.remove(&peer);
        for asker in asked_by {
            scope.send(&asker, TopicFrame::ProbeAck(peer));
        }
        if let Some(watch) = self.probes.watches.get_mut(&peer) {
            watch.silent += 1;
            if watch.silent >= SILENT {
                drop_silent_link(peer, scope);
            }
        }
        self.schedule_probes();
    }

    /// After a pause of this node, or a change of its network, probes begin again.
    pub(super) fn restart_probes(&mut self, scope: &mut Scope) {
        self.probes.missed.clear();
        let (now, config) = (scope.now(), scope.config);
        let half = self.probe_timeout(scope) / 2;
        for (peer, probe) in &mut self.probes.open {
            // On a machine that stays too busy, a probe has to end all the same.
            if probe.restarts >= MAX_RESTARTS {
                continue;
            }
            probe.restarts += 1;
            probe.phase = Phase::Pinged;
            probe.since = scope.now();
            probe.deadline = scope.now() + half;
            scope.cx.links.ping(peer, now);
        }
        for watch in self.probes.watches.values_mut().filter(|watch| watch.next <= now) {
            watch.next = now + jitter(&mut scope.cx.rng, config.probe_interval, 0.1..1.0);
        }
        self.schedule_probes();
    }

    /// A member has been suspected for a while, and no neighbor confirmed it: a few of all other
    /// members probe the accused. If its neighbors died too, nobody else can confirm the suspicion,
    /// or hear that the accused answers.
    pub(super) fn try_accused(&mut self, peer: EndpointId, scope: &mut Scope) {
        if self.is_confirmed(&peer) {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a probability")]
        let share = (CONFIRMERS as f64 / scope.book.len().max(1) as f64).min(1.0);
        if !self.probes.watches.contains_key(&peer) && scope.cx.rng.random_bool(share) {
            self.probe(peer, true, None, scope);
        }
    }

    /// A member is held to be dead.
    pub(super) fn count_death(&mut self, scope: &mut Scope) {
        self.probes.deaths.push_back(scope.now());
        self.survey_soon(scope);
    }

    /// A member is suspected, or held to be dead. If they are many, more may have died than their
    /// neighbors report.
    pub(super) fn survey_soon(&mut self, scope: &mut Scope) {
        if let Some(interval) = self.survey_interval(scope) {
            let at = scope.now() + jitter(&mut scope.cx.rng, interval, 0.0..1.0);
            self.timers.set_by(Timer::Survey, at);
        }
    }

    /// Returns how often a random member is probed. `None` if few members died.
    fn survey_interval(&mut self, scope: &Scope) -> Option<Duration> {
        let deaths = &mut self.probes.deaths;
        let most = scope.config.capacity / MASS_SHARE + 2;
        let ago = |at: &Instant| scope.now().saturating_duration_since(*at);
        while deaths.front().is_some_and(|at| ago(at) > MASS_WINDOW) || deaths.len() > most {
            deaths.pop_front();
        }
        let suspected = self.suspicions.len();
        let known = scope.book.len() + deaths.len();
        let many = deaths.len() + suspected;
        if many < 2 || many * MASS_SHARE < known {
            return None;
        }
        let fresh = deaths.iter().rev().take_while(|at| ago(at) < WAVE).count() + suspected;
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let faster = ((fresh * MASS_SHARE) as f64 / known as f64).clamp(1.0, SURVEY_FASTER);
        Some((scope.config.probe_interval * SURVEY_INTERVALS).div_f64(faster))
    }

    pub(super) fn on_survey(&mut self, scope: &mut Scope) -> Effects {
        let mut effects = Effects::none();
        let Some(interval) = self.survey_interval(scope) else { return effects };
        let members = scope.random_members(1, scope.view.neighbors);
        if let Some(peer) = members.first().copied() {
            self.probe(peer, true, None, scope);
            // The overlay may have fallen apart too, which a comparison of books shows.
            let rare = scope.config.probe_interval * SURVEY_INTERVALS;
            let rested = |at: Instant| scope.now().saturating_duration_since(at) >= rare;
            if self.probes.compared.is_none_or(rested) {
                self.probes.compared = Some(scope.now());
                effects.push(Effect::Contact(peer));
            }
        }
        let at = scope.now() + jitter(&mut scope.cx.rng, interval, 0.8..1.2);
        self.timers.set(Timer::Survey, at);
        effects
    }
}

/// Returns true if the silence of a member says nothing, because this node's own network is away.
pub(super) fn is_beyond(peer: &EndpointId, scope: &Scope) -> bool {
    scope.cx.network.is_beyond(scope.cx.links.heard(peer))
}

/// Closes the link to a peer that is alive and answers nothing on it: another link may work.
pub(super) fn drop_silent_link(peer: EndpointId, scope: &mut Scope) {
    let (topic, id) = (scope.topic.fmt_short(), peer.fmt_short());
    tracing::debug!(%topic, peer = %id, "closing a silent link");
    scope.dropped(DropReason::LinksToPeersThatOnlyOthersReach, Some(peer));
    scope.cx.links.close_peer(&peer, CloseCode::Unresponsive);
}
