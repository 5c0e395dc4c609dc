//! Probes: is this member there? Asked of a neighbor that was not heard for a while, of it by way
//! of others where it does not answer, and of anybody where many died at once.
//!
//! SWIM (Das et al., DSN 2002) with the local health of Lifeguard (Dadgar et al., DSN-W 2018), over
//! the links that exist: any authenticated frame from a neighbor spares its probe, which itself begins
//! with a keepalive.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand::{RngExt, seq::IteratorRandom};
use tokio::time::Instant;

use super::{Timer, Topic};
use crate::{
    event::CloseCode, id::EndpointId, links::Asked, state::Context, timers::jitter,
    wire::TopicFrame,
};

/// A neighbor that itself said something within so many intervals is only sent a keepalive: its QUIC
/// acknowledges that, which takes half the packets of a question and its answer, as QUIC acknowledges
/// either one in a packet of its own. So a neighbor of whom only QUIC is left is found too.
const SILENT_INTERVALS: u32 = 4;
/// Neighbors that are asked to try what did not answer us (SWIM's k).
const HELPERS: usize = 3;
/// Probes at a time, and of them on behalf of others.
const MAX_PROBES: usize = 256;
const MAX_HELPING: usize = 32;
/// Each accusation of ours that was refuted makes our probes wait longer, up to this factor less one
/// (Lifeguard's local health multiplier, S = 8 there).
const MAX_PATIENCE: u32 = 3;
/// A probe on behalf of others that failed counts as a confirmation for so long.
const DOUBT: Duration = Duration::from_secs(5);
/// A probe begins anew after a pause of this node, at most so many times.
const MAX_RESTARTS: u32 = 3;
/// A neighbor that only others reach, so many times in a row, has a broken link with us.
const SILENT: u32 = 2;
/// While a twentieth of the book died within a minute, or is suspected, anybody is probed: one in so
/// many intervals of probes. The more died of late, the more of them died with all who looked after
/// them: one is probed in a time that is as many times shorter, down to a part of it.
const SURVEY_INTERVALS: u32 = 2;
const SURVEY_FASTER: f64 = 4.0;
const MASS_WINDOW: Duration = Duration::from_mins(1);
const MASS_SHARE: usize = 20;
/// Deaths are of late for so long.
const WAVE: Duration = Duration::from_secs(10);
/// Of all who hear of a suspicion that neighbors do not confirm, so many try the accused.
const CONFIRMERS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Asked once, or dialed; is asked again in the middle of its time, should a packet be lost.
    Asked,
    Repeated,
    /// Others were asked to try.
    Indirect,
}

#[derive(Debug)]
struct Probe {
    phase: Phase,
    /// What is heard after this is a sign of life.
    since: Instant,
    deadline: Instant,
    /// For ourselves: a failure leads to an accusation.
    own: bool,
    /// Probed a second time, as many failed together.
    second: bool,
    /// How often it began anew, as this node was paused.
    restarts: u32,
    asked_by: BTreeSet<EndpointId>,
    helpers: BTreeSet<EndpointId>,
}

/// When a neighbor is looked at next.
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
    /// Neighbors that did not answer, of late.
    missed: VecDeque<(Instant, EndpointId)>,
    doubts: BTreeMap<EndpointId, Instant>,
    /// When members were held to be dead, of late.
    deaths: VecDeque<Instant>,
    /// When the book was last compared with that of somebody who was probed because many died.
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

    /// An accusation of ours was refuted.
    pub(super) fn was_wrong(&mut self) {
        self.patience = (self.patience + 1).min(MAX_PATIENCE);
    }
}

impl Topic {
    /// How long a probe waits for an answer, as it is set.
    pub(crate) fn probe_time(&self) -> Duration {
        self.config.probe_timeout
    }

    fn probe_timeout(&self) -> Duration {
        self.config.probe_timeout * (self.probes.patience + 1)
    }

    fn schedule_probes(&mut self) {
        match self.probes.next() {
            Some(next) => self.timers.set(Timer::Probe, next),
            None => self.timers.clear(Timer::Probe),
        }
    }

    pub(super) fn watch(&mut self, peer: EndpointId, cx: &mut Context) {
        let next = cx.now + jitter(&mut cx.rng, self.config.probe_interval, 0.5..1.0);
        self.probes.watches.insert(peer, Watch { next, silent: 0 });
        self.schedule_probes();
    }

    pub(super) fn unwatch(&mut self, peer: &EndpointId) {
        self.probes.watches.remove(peer);
        self.schedule_probes();
    }

    pub(super) fn on_probe(&mut self, cx: &mut Context) {
        self.look_at_neighbors(cx);
        let due: Vec<_> = self
            .probes
            .open
            .iter()
            .filter(|(_, probe)| probe.deadline <= cx.now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            self.advance(peer, cx);
        }
        self.schedule_probes();
    }

    fn look_at_neighbors(&mut self, cx: &mut Context) {
        let interval = self.config.probe_interval;
        let mut silent = Vec::new();
        for (peer, watch) in &mut self.probes.watches {
            if watch.next > cx.now {
                continue;
            }
            let heard = cx.links.heard(peer).unwrap_or(cx.now);
            let quiet = cx.now.saturating_duration_since(heard);
            // Both ends look; who comes first spares the other its probe.
            if quiet < interval.mul_f64(0.9) {
                watch.next = heard + jitter(&mut cx.rng, interval, 0.9..1.1);
            } else {
                watch.next = cx.now + jitter(&mut cx.rng, interval, 0.9..1.1);
                silent.push(*peer);
            }
        }
        for peer in silent {
            self.probe(peer, true, None, cx);
        }
    }

    /// Starts a probe, or joins the one that is under way.
    pub(super) fn probe(
        &mut self,
        peer: EndpointId,
        own: bool,
        asked_by: Option<EndpointId>,
        cx: &mut Context,
    ) {
        if let Some(probe) = self.probes.open.get_mut(&peer) {
            probe.own |= own;
            probe.asked_by.extend(asked_by);
            return;
        }
        if self.leave.is_begun() {
            return;
        }
        if self.probes.open.len() >= MAX_PROBES {
            cx.links.dropped("probes over the limit", Some(peer));
            return;
        }
        cx.counts.probes += 1;
        let half = (self.probe_timeout() + cx.lag()) / 2;
        let probe = Probe {
            phase: Phase::Asked,
            since: cx.now,
            deadline: cx.now + half,
            own,
            second: false,
            restarts: 0,
            asked_by: asked_by.into_iter().collect(),
            helpers: BTreeSet::new(),
        };
        self.probes.open.insert(peer, probe);
        let sent_keepalive = self.probes.watches.contains_key(&peer)
            && cx.links.keepalive(
                &peer,
                (self.id, self.digest_to_tell(cx)),
                self.config.probe_interval * SILENT_INTERVALS,
                cx.now,
            );
        if !sent_keepalive && !cx.links.ping(&peer) && self.dial(peer, cx) == Asked::Refused {
            // Over our own budget of dials: nothing was tried, so nothing is known, to confirm or to
            // accuse. Surveys that took it for silence would accuse the living, and feed themselves.
            self.probes.open.remove(&peer);
        }
        self.schedule_probes();
    }

    fn set_phase(&mut self, peer: EndpointId, phase: Phase, time: Duration, cx: &Context) {
        if let Some(probe) = self.probes.open.get_mut(&peer) {
            probe.phase = phase;
            probe.deadline = cx.now + time;
        }
    }

    /// The next step of a probe whose time is up.
    fn advance(&mut self, peer: EndpointId, cx: &mut Context) {
        let Some(probe) = self.probes.open.get(&peer) else { return };
        if cx.links.was_heard(&peer, probe.since) {
            return self.answered(peer, cx);
        }
        // Lifeguard's local health, at once: who is behind itself gives others more time.
        let timeout = self.probe_timeout() + cx.lag();
        match (probe.phase, probe.own) {
            (Phase::Asked, _) => {
                cx.links.ping(&peer);
                self.set_phase(peer, Phase::Repeated, timeout / 2, cx);
            }
            // Others say so too: no need to ask them.
            (Phase::Repeated, true) if self.is_suspected(&peer) => self.failed(peer, cx),
            (Phase::Repeated, true) => {
                let since = probe.since;
                if self.probes.watches.contains_key(&peer) {
                    self.probes.missed.push_back((since, peer));
                }
                self.ask_helpers(peer, cx);
                self.set_phase(peer, Phase::Indirect, timeout, cx);
            }
            (Phase::Repeated, false) => {
                self.probes.open.remove(&peer);
                self.doubt(peer, cx);
            }
            (Phase::Indirect, _) => self.failed(peer, cx),
        }
    }

    fn ask_helpers(&mut self, peer: EndpointId, cx: &mut Context) {
        let others = self.overlay.neighbors().iter().copied();
        let able = others.filter(|id| *id != peer && !self.probes.is_probing(id));
        let helpers = able.sample(&mut cx.rng, HELPERS);
        for helper in &helpers {
            cx.links.send(helper, self.id, TopicFrame::ProbeRequest(peer), cx.now);
        }
        if let Some(probe) = self.probes.open.get_mut(&peer) {
            probe.helpers.extend(helpers);
        }
    }

    /// On behalf of another it failed: a confirmation, should somebody accuse.
    fn doubt(&mut self, peer: EndpointId, cx: &mut Context) {
        if Self::is_beyond(&peer, cx) {
            return;
        }
        if self.is_suspected(&peer) {
            self.accuse(peer, cx);
        } else {
            self.probes.doubts.retain(|_, until| *until > cx.now);
            self.probes.doubts.insert(peer, cx.now + DOUBT);
        }
    }

    /// Somebody is accused: whether our own probe of it failed of late. If not, and it is a
    /// neighbor, it is probed at once.
    pub(super) fn second_opinion(&mut self, peer: EndpointId, cx: &mut Context) -> bool {
        if self.probes.doubts.remove(&peer).is_some_and(|until| until > cx.now) {
            return true;
        }
        if self.probes.watches.contains_key(&peer) {
            self.probe(peer, true, None, cx);
        }
        false
    }

    /// Neither it nor anybody who was asked to try it answered.
    fn failed(&mut self, peer: EndpointId, cx: &mut Context) {
        let Some(probe) = self.probes.open.remove(&peer) else { return };
        if Self::is_beyond(&peer, cx) {
            return;
        }
        if !probe.second && self.half_is_missing(cx) {
            // More likely it is we who are cut off or overloaded: look again before accusing.
            self.probe(peer, true, None, cx);
            if let Some(probe) = self.probes.open.get_mut(&peer) {
                probe.second = true;
            }
            // Members beyond the neighbors may tell which it is.
            let neighbors = self.overlay.neighbors().clone();
            for peer in self.random_members(1, &neighbors, cx) {
                self.contact(peer, cx);
            }
            return;
        }
        cx.counts.probes_failed += 1;
        self.accuse(peer, cx);
        // Another one takes its place in the active view while it has time to refute.
        self.overlay.link_lost(peer, cx.now);
        self.drive_overlay(cx);
    }

    /// Whether half of the neighbors, and more than one, did not answer within one round.
    fn half_is_missing(&mut self, cx: &Context) -> bool {
        let round = self.config.probe_interval + 3 * self.probe_timeout();
        let missed = &mut self.probes.missed;
        while missed.front().is_some_and(|(at, _)| cx.now.saturating_duration_since(*at) > round) {
            missed.pop_front();
        }
        let peers: BTreeSet<_> = missed.iter().map(|(_, peer)| *peer).collect();
        peers.len() >= 2 && peers.len() * 2 >= self.probes.watches.len()
    }

    /// A sign of life of whoever is being probed.
    pub(crate) fn heard(&mut self, peer: EndpointId, cx: &mut Context) {
        if self.probes.is_probing(&peer) {
            self.answered(peer, cx);
            self.schedule_probes();
        }
    }

    fn answered(&mut self, peer: EndpointId, cx: &mut Context) {
        let Some(probe) = self.probes.open.remove(&peer) else { return };
        for asker in probe.asked_by {
            cx.links.send(&asker, self.id, TopicFrame::ProbeAck(peer), cx.now);
        }
        if probe.own && probe.phase == Phase::Asked {
            self.probes.patience = self.probes.patience.saturating_sub(1);
        }
        if let Some(watch) = self.probes.watches.get_mut(&peer) {
            watch.silent = 0;
        }
        self.probes.missed.retain(|(_, missed)| *missed != peer);
        self.probes.doubts.remove(&peer);
        self.confirm(peer, cx);
    }

    /// A dial did not lead to a link.
    pub(super) fn probe_unreached(&mut self, peer: EndpointId, cx: &mut Context) {
        if self.probes.is_probing(&peer) {
            self.set_phase(peer, Phase::Repeated, Duration::ZERO, cx);
            self.schedule_probes();
        } else if self.book.get(&peer).is_some() && !self.is_suspected(&peer) {
            self.probe_by_others(peer, cx);
        }
    }

    /// We do not reach it: do others?
    fn probe_by_others(&mut self, peer: EndpointId, cx: &mut Context) {
        if self.probes.open.len() < MAX_PROBES && !self.leave.is_begun() {
            let probe = Probe {
                phase: Phase::Repeated,
                since: cx.now,
                deadline: cx.now,
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

    pub(super) fn on_probe_request(
        &mut self,
        peer: EndpointId,
        from: EndpointId,
        cx: &mut Context,
    ) {
        let helping = self.probes.open.values().filter(|probe| !probe.own).count();
        if peer == self.me {
            cx.links.send(&from, self.id, TopicFrame::ProbeAck(peer), cx.now);
        } else if self.book.get(&peer).is_none() || peer == from {
            // Unknown, or gone here: it is not for us to say.
        } else if helping >= MAX_HELPING {
            cx.links.dropped("probes for others over the limit", Some(from));
        } else {
            self.probe(peer, false, Some(from), cx);
        }
    }

    pub(super) fn on_probe_ack(&mut self, peer: EndpointId, from: EndpointId, cx: &mut Context) {
        let Some(probe) = self.probes.open.get(&peer) else { return };
        if !probe.helpers.contains(&from) {
            return;
        }
        let asked_by = probe.asked_by.clone();
        self.probes.open.remove(&peer);
        for asker in asked_by {
            cx.links.send(&asker, self.id, TopicFrame::ProbeAck(peer), cx.now);
        }
        if let Some(watch) = self.probes.watches.get_mut(&peer) {
            watch.silent += 1;
            if watch.silent >= SILENT {
                self.drop_silent_link(peer, cx);
            }
        }
        self.schedule_probes();
    }

    /// It lives, and answers nothing on our link: another link may do better.
    pub(super) fn drop_silent_link(&mut self, peer: EndpointId, cx: &mut Context) {
        tracing::debug!(topic = %self.id.fmt_short(), peer = %peer.fmt_short(), "closing a silent link");
        cx.links.dropped("links to peers that only others reach", Some(peer));
        cx.links.close_peer(&peer, CloseCode::Unresponsive);
    }

    /// This node was paused: what it did not hear in that time says nothing about others.
    pub(crate) fn on_pause(&mut self, late: Duration, cx: &mut Context) {
        tracing::debug!(topic = %self.id.fmt_short(), ?late, "this node was paused");
        cx.counts.pauses += 1;
        self.begin_anew(late, cx);
    }

    /// This node's network changed, or is away: the same holds for what it did not hear meanwhile.
    pub(crate) fn on_network_change(&mut self, away: bool, cx: &mut Context) {
        self.begin_anew(Duration::ZERO, cx);
        if !away && !self.leave.is_begun() {
            self.redial_all(cx);
        }
    }

    /// Begins all probes again, and gives the suspected more time.
    fn begin_anew(&mut self, late: Duration, cx: &mut Context) {
        self.probes.missed.clear();
        let half = self.probe_timeout() / 2;
        for (peer, probe) in &mut self.probes.open {
            // On a machine that is too busy for long it comes to an end all the same.
            if probe.restarts >= MAX_RESTARTS {
                continue;
            }
            probe.restarts += 1;
            probe.phase = Phase::Asked;
            probe.since = cx.now;
            probe.deadline = cx.now + half;
            cx.links.ping(peer);
        }
        for watch in self.probes.watches.values_mut().filter(|watch| watch.next <= cx.now) {
            watch.next = cx.now + jitter(&mut cx.rng, self.config.probe_interval, 0.1..1.0);
        }
        self.schedule_probes();
        self.extend_suspicions(late, cx);
    }

    /// Somebody is suspected for a while, and its neighbors have not confirmed: of all others a few
    /// try it. Where they died too, there is nobody else to confirm, or to hear that it answers.
    pub(super) fn try_accused(&mut self, peer: EndpointId, cx: &mut Context) {
        if self.is_confirmed(&peer) {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a probability")]
        let share = (CONFIRMERS as f64 / self.book.len().max(1) as f64).min(1.0);
        if !self.probes.watches.contains_key(&peer) && cx.rng.random_bool(share) {
            self.probe(peer, true, None, cx);
        }
    }

    /// A member is held to be dead.
    pub(super) fn count_death(&mut self, cx: &mut Context) {
        self.probes.deaths.push_back(cx.now);
        self.survey_soon(cx);
    }

    /// A member is suspected, or held to be dead: with many of them, more may have died than
    /// neighbors tell of.
    pub(super) fn survey_soon(&mut self, cx: &mut Context) {
        if let Some(interval) = self.survey_interval(cx) {
            let at = cx.now + jitter(&mut cx.rng, interval, 0.0..1.0);
            self.timers.set_by(Timer::Survey, at);
        }
    }

    /// How often anybody is probed; `None` where few died.
    fn survey_interval(&mut self, cx: &Context) -> Option<Duration> {
        let deaths = &mut self.probes.deaths;
        let most = self.config.capacity / MASS_SHARE + 2;
        let ago = |at: &Instant| cx.now.saturating_duration_since(*at);
        while deaths.front().is_some_and(|at| ago(at) > MASS_WINDOW) || deaths.len() > most {
            deaths.pop_front();
        }
        let suspected = self.suspicions.len();
        let known = self.book.len() + deaths.len();
        let many = deaths.len() + suspected;
        if many < 2 || many * MASS_SHARE < known {
            return None;
        }
        let fresh = deaths.iter().rev().take_while(|at| ago(at) < WAVE).count() + suspected;
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let faster = ((fresh * MASS_SHARE) as f64 / known as f64).clamp(1.0, SURVEY_FASTER);
        Some((self.config.probe_interval * SURVEY_INTERVALS).div_f64(faster))
    }

    pub(super) fn on_survey(&mut self, cx: &mut Context) {
        let Some(interval) = self.survey_interval(cx) else { return };
        let neighbors = self.overlay.neighbors().clone();
        if let Some(peer) = self.random_members(1, &neighbors, cx).first().copied() {
            self.probe(peer, true, None, cx);
            // The overlay may have fallen apart, too: books tell.
            let rare = self.config.probe_interval * SURVEY_INTERVALS;
            if self.probes.compared.is_none_or(|at| cx.now.saturating_duration_since(at) >= rare) {
                self.probes.compared = Some(cx.now);
                self.contact(peer, cx);
            }
        }
        let at = cx.now + jitter(&mut cx.rng, interval, 0.8..1.2);
        self.timers.set(Timer::Survey, at);
    }
}
