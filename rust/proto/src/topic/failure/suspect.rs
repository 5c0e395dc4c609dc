//! Suspicion, accusation, refutation and the verdict.
//!
//! No node declares another one dead for everyone. An accusation is signed, and says "it did not
//! answer me". Each node reaches its own verdict when the time in which the accused can refute is
//! over. The more members confirm, the shorter that time is, down to a floor (Lifeguard's dynamic
//! suspicion timeout).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use iroh_base::TransportAddr;
use tokio::time::Instant;

use super::{
    super::{
        effect::{Effect, Effects},
        scope::{Scope, log},
        seen::Seen,
    },
    Detector, Timer,
    probe::{drop_silent_link, is_beyond},
};
use crate::{
    accusation::Accusation,
    budget::{Budget, Rate},
    drops::DropReason,
    error::Error,
    event::{CloseCode, LostReason, TopicEvent},
    id::EndpointId,
    record::{NodeRecord, SignedRecord, Status},
    rule::Rule,
    wire::TopicFrame,
};

/// This many accusers beyond the first shorten the time to refute. No more than [`MAX_ACCUSERS`]
/// are kept and forwarded.
const CONFIRMATIONS: u32 = 2;
const MAX_ACCUSERS: usize = 4;
/// The budget of one accuser: this many accusations, and one more for each member, because a
/// partition makes all of the other side look dead. It refills within [`ACCUSER_REFILL`].
const ACCUSER_BURST: usize = 32;
const ACCUSER_REFILL: Duration = Duration::from_mins(1);
/// The most members that are unconfirmed.
const MAX_UNCONFIRMED: usize = 1024;
/// If there are more budgets of accusers than this, those that are full again are forgotten.
const MAX_BUDGETS: usize = 4096;
/// The most accusations that wait for a record: those that one peer sent, and all of them.
const HELD_OF_PEER: usize = 16;
const MAX_HELD: usize = 256;
/// The accusations of one link whose signatures are checked, per second and at once, whatever keys
/// signed them. The burst is large, because a partition makes all of the other side look dead.
const CHECKS_OF_PEER: Rate =
    Rate { messages: (200.0, 4096.0), bytes: (64.0 * 1024.0, 1024.0 * 1024.0) };

/// A node that is behind gives a suspect at most this much longer to refute.
const WAIT_BEHIND: Duration = Duration::from_secs(6);

#[derive(Debug)]
struct Suspicion {
    /// The highest sequence that an accusation names.
    sequence: u64,
    since: Instant,
    deadline: Instant,
    /// What was added to the time to refute, because this node was paused. Confirmations do not
    /// shorten it.
    granted: Duration,
    /// The part of `granted` that is no missed time but a further wait, which is limited.
    waited: Duration,
    accusers: BTreeSet<EndpointId>,
    /// True if a partner of a sync itself signed the accusation. Such a suspicion counts as
    /// confirmed.
    vouched: bool,
    /// When the application learns of the suspicion. `None` once it did.
    report_at: Option<Instant>,
}

/// A member that a partner of a sync suspects, and that was not in the book.
#[derive(Debug)]
struct Unconfirmed {
    signed: SignedRecord,
    age: Duration,
    received: Instant,
    accusation: Bytes,
    deadline: Instant,
}

/// The drop under which accusations count whose sequence number no record has shown.
const NEVER_SIGNED: DropReason = DropReason::AccusationsOfUnsignedSequences;

/// An accusation that this node can't judge yet, because it lacks a record.
#[derive(Debug)]
struct Held {
    /// The owner of that record: the accuser, or the accused.
    about: EndpointId,
    bytes: Bytes,
    from: EndpointId,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Suspicions {
    open: BTreeMap<EndpointId, Suspicion>,
    unconfirmed: BTreeMap<EndpointId, Unconfirmed>,
    seen: Seen,
    /// The number of this node's record with which a peer last got an answer to an accusation that
    /// was known here.
    answered: BTreeMap<EndpointId, u64>,
    budgets: BTreeMap<EndpointId, (f64, Instant)>,
    /// The budget for checks of signatures, by the peer whose link brought them.
    checks: BTreeMap<EndpointId, Budget>,
    held: Vec<Held>,
}

impl Suspicions {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_suspected(&self, peer: &EndpointId) -> bool {
        self.open.contains_key(peer)
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.unconfirmed.clear();
        self.held.clear();
        self.answered.clear();
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 6] {
        [
            ("suspicions", self.open.len()),
            ("unconfirmed", self.unconfirmed.len()),
            ("accusers' budgets", self.budgets.len()),
            ("accusation checks", self.checks.len()),
            ("accusations held", self.held.len()),
            ("peers with an answer to a known accusation", self.answered.len()),
        ]
    }

    fn next(&self) -> Option<Instant> {
        let suspicions = self.open.values();
        let suspicions =
            suspicions.map(|s| s.report_at.map_or(s.deadline, |at| at.min(s.deadline)));
        suspicions.chain(self.unconfirmed.values().map(|u| u.deadline)).min()
    }

    fn take_budget(&mut self, accuser: EndpointId, members: usize, now: Instant) -> bool {
        let most = f64::from(u32::try_from(ACCUSER_BURST + members).unwrap_or(u32::MAX));
        let (left, filled) = self.budgets.entry(accuser).or_insert((most, now));
        let refill = now.saturating_duration_since(*filled).as_secs_f64();
        *left = (*left + most * refill / ACCUSER_REFILL.as_secs_f64()).min(most);
        *filled = now;
        let enough = *left >= 1.0;
        if enough {
            *left -= 1.0;
        }
        if self.budgets.len() > MAX_BUDGETS {
            // An accuser that was quiet for `ACCUSER_REFILL` has a full budget anyway.
            self.budgets.retain(|_, (_, at)| now.saturating_duration_since(*at) < ACCUSER_REFILL);
        }
        enough
    }
}

impl Suspicions {
    /// Returns true if one more signature of what a link brought may be checked.
    fn may_check(&mut self, from: EndpointId, size: usize, now: Instant) -> bool {
        let budget = self.checks.entry(from).or_insert_with(|| Budget::new(CHECKS_OF_PEER, now));
        budget.take(size, now)
    }

    /// Keeps an accusation until the record arrives that it waits for. Returns false if there is no
    /// room.
    fn hold(&mut self, held: Held, now: Instant) -> bool {
        self.held.retain(|held| held.until > now);
        if self.held.iter().any(|other| other.bytes == held.bytes) {
            return true;
        }
        let of_peer = self.held.iter().filter(|other| other.from == held.from).count();
        let room = of_peer < HELD_OF_PEER && self.held.len() < MAX_HELD;
        if room {
            self.held.push(held);
        }
        room
    }

    /// The link to a peer is gone: its budget is forgotten.
    pub(super) fn forget_link(&mut self, peer: &EndpointId) {
        self.checks.remove(peer);
        self.answered.remove(peer);
    }
}

impl Detector {
    fn schedule_suspicions(&mut self) {
        match self.suspicions.next() {
            Some(next) => self.timers.set(Timer::Suspicion, next),
            None => self.timers.clear(Timer::Suspicion),
        }
    }

    pub(super) fn is_suspected(&self, peer: &EndpointId) -> bool {
        self.suspicions.open.contains_key(peer)
    }

    /// Accuses a member that answered neither this node nor others.
    pub(super) fn accuse(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let Some(live) = scope.book.get(&peer) else { return Effects::none() };
        let known = self.suspicions.open.get(&peer);
        if is_beyond(&peer, scope) {
            return Effects::none();
        }
        let silent = scope.view.leaving || scope.config.observer;
        if silent || known.is_some_and(|s| s.accusers.contains(&scope.me())) {
            return Effects::none();
        }
        let sequence = live.signed.record().sequence;
        let accusation = Accusation::sign(&scope.cx.identity.key, &scope.topic, peer, sequence);
        scope.cx.counts.accusations += 1;
        self.suspicions.seen.insert(&accusation.bytes, scope.now());
        self.suspect(&accusation, Some(scope.now()), scope);
        self.schedule_suspicions();
        Effects::one(Effect::Accuse(accusation))
    }

    /// Returns true if an accusation was verified here recently.
    pub(in super::super) fn has_seen(&mut self, accusation: &Bytes, now: Instant) -> bool {
        self.suspicions.seen.contains(accusation, now)
    }

    /// Takes in an accusation that `from` sent, in a broadcast or directly. Returns true if it is
    /// new here: then the overlay forwards the broadcast. If it does not verify, that is an error,
    /// and the link is closed.
    pub(in super::super) fn judge_accusation(
        &mut self,
        bytes: &Bytes,
        from: EndpointId,
        broadcast: bool,
        scope: &mut Scope,
    ) -> Result<(bool, Effects), Error> {
        if self.suspicions.seen.contains(bytes, scope.now()) {
            return Ok((false, self.answer_known(bytes, from, scope)));
        }
        let accusation = match self.verify_accusation(bytes, from, scope) {
            Ok(None) => return Ok((false, Effects::none())),
            Ok(Some(accusation)) => accusation,
            Err(error) => {
                scope.refuse(&error, from);
                return Err(error);
            }
        };
        let (news, mut effects) = self.hear_accusation(&accusation, from, scope);
        if news && !broadcast {
            effects.push(Effect::Accuse(accusation));
        }
        Ok((news, effects))
    }

    /// A peer brought an accusation that was verified here before. If it accuses this node, that
    /// peer may have missed the refutation, and gets it: once for each record of this node, so that
    /// a peer gains nothing if it brings the accusation again and again.
    fn answer_known(&mut self, bytes: &Bytes, from: EndpointId, scope: &Scope) -> Effects {
        let known = Accusation::open(bytes).and_then(Accusation::decode);
        let Ok(Accusation { accused, sequence, .. }) = known else { return Effects::none() };
        let own = scope.cx.identity.sequence;
        if accused != scope.me() || self.suspicions.answered.insert(from, own) == Some(own) {
            return Effects::none();
        }
        Effects::one(Effect::Refute { sequence, from })
    }

    /// Verifies an accusation by a member. The signature comes first, and only then the budget of
    /// the accuser, so that no other node can use that up.
    fn verify_accusation(
        &mut self,
        bytes: &Bytes,
        from: EndpointId,
        scope: &mut Scope,
    ) -> Result<Option<Accusation>, Error> {
        let envelope = Accusation::open(bytes)?;
        let accuser = envelope.claimed;
        if !may_accuse(&accuser, scope) {
            self.hold_accusation(
                accuser,
                bytes,
                from,
                DropReason::AccusationsByUnknownMembers,
                scope,
            );
            return Ok(None);
        }
        if !self.suspicions.may_check(from, bytes.len(), scope.now()) {
            scope.dropped(DropReason::AccusationsOverTheBudgetOfAPeer, Some(from));
            return Ok(None);
        }
        let accusation = scope.cx.verify_accusation(&scope.topic, envelope)?;
        if !self.suspicions.take_budget(accuser, scope.book.len(), scope.now()) {
            scope.dropped(DropReason::AccusationsOverTheBudgetOfAnAccuser, Some(accuser));
            return Ok(None);
        }
        Ok(Some(accusation))
    }

    /// Holds an accusation that needs the record of `about`. It is judged once that record arrives,
    /// and until then it has no effect.
    fn hold_accusation(
        &mut self,
        about: EndpointId,
        bytes: &Bytes,
        from: EndpointId,
        what: DropReason,
        scope: &mut Scope,
    ) {
        let until = scope.now() + scope.config.suspicion_max;
        let held = Held { about, bytes: bytes.clone(), from, until };
        if !self.suspicions.hold(held, scope.now()) {
            scope.dropped(DropReason::AccusationsHeldOverTheLimit, Some(from));
        }
        scope.dropped(what, Some(from));
    }

    /// A newer record of a member arrived: judges the accusations that waited for it.
    fn judge_held(&mut self, id: EndpointId, scope: &mut Scope) -> Effects {
        let mut effects = Effects::none();
        let due = self.suspicions.held.extract_if(.., |held| held.about == id);
        for held in due.collect::<Vec<_>>() {
            if held.until > scope.now() {
                let judged = self.judge_accusation(&held.bytes, held.from, false, scope);
                effects.append(judged.map(|(_, effects)| effects).unwrap_or_default());
            }
        }
        effects
    }

    /// Applies a verified accusation by a member. Returns true if it is new here.
    ///
    /// It counts only if it names the sequence number of a record that the accused signed and that
    /// is held here. So nobody can push the numbers of another node up, or accuse it for a number
    /// that it never used.
    fn hear_accusation(
        &mut self,
        accusation: &Accusation,
        from: EndpointId,
        scope: &mut Scope,
    ) -> (bool, Effects) {
        let &Accusation { accuser, accused, sequence, .. } = accusation;
        let ignored = (false, Effects::none());
        if accuser == accused {
            return ignored;
        }
        if accused == scope.me() {
            if sequence >= scope.cx.identity.sequence {
                // An earlier life may have used that number. Then others show its record to this
                // node, which jumps above it.
                scope.dropped(NEVER_SIGNED, Some(accuser));
                return ignored;
            }
            self.suspicions.seen.insert(&accusation.bytes, scope.now());
            return (false, Effects::one(Effect::Refute { sequence, from }));
        }
        if scope.book.sequence(&accused).is_none_or(|known| sequence > known) {
            // The record may be on its way.
            self.hold_accusation(accused, &accusation.bytes, from, NEVER_SIGNED, scope);
            return ignored;
        }
        self.suspicions.seen.insert(&accusation.bytes, scope.now());
        // The accused is gone, or it refuted the accusation already.
        let live = scope.book.get_with_hidden(&accused);
        if live.is_none_or(|live| live.signed.record().sequence != sequence) {
            return ignored;
        }
        if !scope.book.admits(&accuser) {
            // Nodes with other lists may count it, so it is forwarded.
            scope.dropped(DropReason::AccusationsByPeersThatAreKeptOut, Some(accuser));
            return (true, Effects::none());
        }
        let known = self.suspicions.open.get(&accused);
        if known.is_some_and(|s| s.accusers.len() >= MAX_ACCUSERS || s.accusers.contains(&accuser))
        {
            return ignored;
        }
        // The application learns of it later: a refutation that is under way spares it two events.
        self.suspect(accusation, Some(scope.now() + scope.config.probe_timeout), scope);
        let agrees = self.second_opinion(accused, scope);
        let effects = if agrees { self.accuse(accused, scope) } else { Effects::none() };
        self.schedule_suspicions();
        (true, effects)
    }

    fn suspect(&mut self, accusation: &Accusation, report_at: Option<Instant>, scope: &mut Scope) {
        let &Accusation { accuser, accused, sequence, .. } = accusation;
        let own = accuser == scope.me();
        let fresh = !self.is_suspected(&accused);
        let suspicion = self.suspicions.open.entry(accused).or_insert_with(|| Suspicion {
            sequence,
            since: scope.now(),
            deadline: scope.now(),
            granted: Duration::ZERO,
            waited: Duration::ZERO,
            accusers: BTreeSet::new(),
            vouched: false,
            report_at,
        });
        suspicion.sequence = suspicion.sequence.max(sequence);
        suspicion.accusers.insert(accuser);
        if own && let Some(at) = &mut suspicion.report_at {
            *at = scope.now().min(*at);
        }
        self.set_deadline(&accused, scope);
        if fresh || own {
            // A node vouches for its own accusation, because the partner of a sync knows this node,
            // but perhaps not the accuser.
            scope.book.accuse(&accused, Some(accusation.bytes.clone()));
        }
        if fresh {
            tracing::debug!(
                topic = %scope.topic.fmt_short(),
                peer = %accused.fmt_short(),
                accuser = %accuser.fmt_short(),
                "suspected"
            );
            // If the accused is alive after all, it learns of the accusation at once.
            let frame = TopicFrame::Accuse(vec![accusation.bytes.clone()]);
            scope.send(&accused, frame);
            self.survey_soon(scope);
        }
    }

    /// Returns true if a suspicion needs no more confirmations, or if there is none.
    pub(super) fn is_confirmed(&self, accused: &EndpointId) -> bool {
        let confirmed = |s: &Suspicion| s.vouched || s.accusers.len() > CONFIRMATIONS as usize;
        self.suspicions.open.get(accused).is_none_or(confirmed)
    }

    fn set_deadline(&mut self, accused: &EndpointId, scope: &Scope) {
        let Some(suspicion) = self.suspicions.open.get(accused) else { return };
        let (accusers, vouched) = (suspicion.accusers.len(), suspicion.vouched);
        let time = time_to_refute(if vouched { MAX_ACCUSERS } else { accusers }, scope);
        if let Some(suspicion) = self.suspicions.open.get_mut(accused) {
            suspicion.deadline = suspicion.since + time + suspicion.granted;
        }
    }

    pub(super) fn on_suspicion(&mut self, scope: &mut Scope) -> Effects {
        let now = scope.now();
        let mut reported = Vec::new();
        let mut due = None;
        for (peer, suspicion) in &mut self.suspicions.open {
            if let Some(at) = suspicion.report_at.filter(|at| *at <= scope.now()) {
                suspicion.report_at = None;
                // A node whose timer is late gives that much more time to refute, so that the
                // verdict never comes together with the suspicion.
                let late = scope.now() - at;
                suspicion.granted += late;
                suspicion.deadline += late;
                reported.push(*peer);
            } else if suspicion.deadline <= scope.cx.now
                && scope.cx.lag() > Duration::ZERO
                && suspicion.waited < WAIT_BEHIND
            {
                // The refutation may wait here.
                let more = scope.cx.lag().min(WAIT_BEHIND.saturating_sub(suspicion.waited));
                suspicion.waited += more;
                suspicion.granted += more;
                suspicion.deadline = scope.cx.now + more;
            } else if suspicion.deadline <= scope.now() && due.is_none() {
                due = Some(*peer);
            }
        }
        for peer in reported {
            if let Some(live) = scope.book.get(&peer) {
                let record = Arc::clone(live.signed.record());
                log(scope.topic, &record, "peer suspected");
                scope.cx.emit(scope.topic, TopicEvent::PeerSuspected(record));
            }
            if scope.book.admits(&peer) {
                self.try_accused(peer, scope);
            }
        }
        if let Some(peer) = due {
            let effects = self.pass_verdict(peer, scope);
            self.schedule_suspicions();
            return effects;
        }
        let late: Vec<_> = self
            .suspicions
            .unconfirmed
            .iter()
            .filter(|(_, unconfirmed)| unconfirmed.deadline <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in late {
            if let Some(gone) = self.suspicions.unconfirmed.remove(&peer) {
                scope.book.mark_unseen_dead(gone.signed, gone.accusation, now);
            }
        }
        self.schedule_suspicions();
        Effects::none()
    }

    /// Decides on a member whose time to refute is over.
    fn pass_verdict(&mut self, peer: EndpointId, scope: &mut Scope) -> Effects {
        let more = scope.config.suspicion_max;
        if let Some(suspicion) = self.suspicions.open.get_mut(&peer)
            && scope.cx.network.went_after(suspicion.since)
        {
            // This node's network is away, so a refutation can't reach it.
            let now = scope.now();
            suspicion.granted += now.saturating_duration_since(suspicion.deadline) + more;
            suspicion.deadline = now + more;
            return Effects::none();
        }
        let Some(suspicion) = self.suspicions.open.remove(&peer) else { return Effects::none() };
        let Some(live) = scope.book.get_with_hidden(&peer) else { return Effects::none() };
        let record = Arc::clone(live.signed.record());
        let accusation = scope.book.accusation(&peer).cloned();
        if scope.cx.links.was_heard(&peer, suspicion.since) {
            // Whatever others say, this node hears the member.
            scope.book.accuse(&peer, None);
            emit_recovery(&suspicion, record, scope);
            return Effects::none();
        }
        // The verdict is this node's own, and so is the signature under it: partners of syncs may
        // not know the accuser. No member would take an observer's word.
        let vouched = suspicion.accusers.contains(&scope.me()) || scope.config.observer;
        let own = vouched.then_some(accusation).flatten();
        let accusation = own.unwrap_or_else(|| {
            Accusation::sign(&scope.cx.identity.key, &scope.topic, peer, suspicion.sequence).bytes
        });
        let lost = scope.book.mark_dead(&peer, accusation, scope.now());
        debug_assert!(lost.is_some(), "it was there a moment ago");
        self.suspicions.unconfirmed.remove(&peer);
        if !scope.book.admits(&peer) {
            return Effects::none();
        }
        log(scope.topic, &record, "peer lost: unreachable");
        scope.emit(TopicEvent::PeerLost(record, LostReason::Unreachable));
        scope.cx.links.close_peer(&peer, CloseCode::Unresponsive);
        self.count_death(scope);
        Effects::one(Effect::Lost(peer))
    }

    /// A newer record of a member was applied. It refutes the accusations that name a lower
    /// sequence number.
    pub(in super::super) fn on_newer_record(
        &mut self,
        record: &Arc<NodeRecord>,
        scope: &mut Scope,
    ) -> Effects {
        let id = record.id;
        self.suspicions.unconfirmed.remove(&id);
        let effects = self.judge_held(id, scope);
        let Some(suspicion) = self.suspicions.open.get(&id) else { return effects };
        let gone = scope.book.get_with_hidden(&id).is_none();
        if !gone && suspicion.sequence >= record.sequence {
            return effects;
        }
        let suspicion = self.suspicions.open.remove(&id).expect("looked at above");
        if !gone {
            emit_recovery(&suspicion, Arc::clone(record), scope);
            if suspicion.accusers.contains(&scope.me()) {
                self.probes.was_wrong();
                // The member is alive, and this node did not hear it. So the link is at fault,
                // unless the member was heard on it since.
                if scope.cx.links.heard(&id).is_some_and(|at| at <= suspicion.since) {
                    drop_silent_link(id, scope);
                }
            }
        }
        self.schedule_suspicions();
        effects
    }

    /// A member is gone: what is known against it is forgotten.
    pub(in super::super) fn on_gone(&mut self, id: &EndpointId) {
        self.suspicions.open.remove(id);
        self.suspicions.unconfirmed.remove(id);
        self.schedule_suspicions();
    }

    pub(super) fn extend_suspicions(&mut self, late: Duration, scope: &Scope) {
        let more = late.min(scope.config.suspicion_max) + 2 * scope.config.probe_timeout;
        // A machine that stays too busy pauses again and again. All pauses together add no more
        // than twice the longest time to refute. Otherwise no member would ever be lost there.
        let most = 2 * scope.config.suspicion_max;
        for suspicion in self.suspicions.open.values_mut() {
            // A refutation that arrived during the pause waits behind this timer.
            let missed = scope.now().saturating_duration_since(suspicion.deadline);
            let waits = more.min(most.saturating_sub(suspicion.waited));
            suspicion.waited += waits;
            suspicion.granted += missed + waits;
            suspicion.deadline += missed + waits;
        }
        for unconfirmed in self.suspicions.unconfirmed.values_mut() {
            unconfirmed.deadline = unconfirmed.deadline.max(scope.now()) + more;
        }
        self.schedule_suspicions();
    }

    /// The partner of a sync showed this accusation. If the partner signed it itself, it has probed
    /// the member or passed its own verdict, so the shortest time to refute is enough here.
    pub(in super::super) fn vouch(
        &mut self,
        id: EndpointId,
        accusation: &Bytes,
        from: EndpointId,
        scope: &mut Scope,
    ) {
        let own = Accusation::open(accusation).is_ok_and(|envelope| envelope.claimed == from);
        let open = self.suspicions.open.get_mut(&id).filter(|suspicion| own && !suspicion.vouched);
        if let Some(suspicion) = open {
            suspicion.vouched = true;
            self.set_deadline(&id, scope);
            self.schedule_suspicions();
        }
    }

    /// A member that was kept out is admitted now. If it is suspected, the application learns it.
    pub(in super::super) fn on_shown(&mut self, record: &Arc<NodeRecord>, scope: &mut Scope) {
        if let Some(suspicion) = self.suspicions.open.get_mut(&record.id) {
            suspicion.report_at = None;
            scope.emit(TopicEvent::PeerSuspected(Arc::clone(record)));
            self.schedule_suspicions();
        }
    }

    /// Returns the number of members that are suspected.
    pub(in super::super) fn suspected(&self) -> usize {
        self.suspicions.len()
    }

    /// Returns the addresses of an unconfirmed member.
    pub(in super::super) fn unconfirmed_addresses(
        &self,
        peer: &EndpointId,
    ) -> Option<Vec<TransportAddr>> {
        let unconfirmed = self.suspicions.unconfirmed.get(peer)?;
        Some(unconfirmed.signed.record().addresses.clone())
    }

    /// A sync brought a record together with an accusation of its owner. If this life of the node
    /// has heard nothing of the owner, it does not enter the book before it answers. Then this
    /// method returns its id, and otherwise `None`. What does not verify is an error, and closes
    /// the link.
    pub(in super::super) fn on_accused_record(
        &mut self,
        record: &Bytes,
        age: Duration,
        accusation: &Bytes,
        from: EndpointId,
        scope: &mut Scope,
    ) -> Result<Option<(EndpointId, Effects)>, Error> {
        let outcome = self.judge_accused_record(record, age, accusation, from, scope);
        if let Err(error) = &outcome {
            scope.refuse(error, from);
        }
        outcome
    }

    fn judge_accused_record(
        &mut self,
        record: &Bytes,
        age: Duration,
        accusation: &Bytes,
        from: EndpointId,
        scope: &mut Scope,
    ) -> Result<Option<(EndpointId, Effects)>, Error> {
        let opened = scope.cx.open_record(&scope.topic, record)?;
        let id = opened.claimed();
        if id == scope.me() || !scope.book.is_unmet(&id) {
            return Ok(None);
        }
        if self.suspicions.unconfirmed.contains_key(&id) {
            return Ok(Some((id, Effects::none())));
        }
        let signed = scope.cx.verify_record(&scope.topic, opened)?;
        let effects = self.keep_unconfirmed(signed, age, accusation, from, scope)?;
        Ok(Some((id, effects)))
    }

    /// Keeps the record of a member that is not in the book.
    pub(super) fn keep_unconfirmed(
        &mut self,
        signed: SignedRecord,
        age: Duration,
        bytes: &Bytes,
        from: EndpointId,
        scope: &mut Scope,
    ) -> Result<Effects, Error> {
        let id = signed.record().id;
        if !self.suspicions.may_check(from, bytes.len(), scope.now()) {
            scope.dropped(DropReason::AccusationsOverTheBudgetOfAPeer, Some(from));
            return Ok(Effects::none());
        }
        let accusation = scope.cx.verify_accusation(&scope.topic, Accusation::open(bytes)?)?;
        if accusation.accused != id || accusation.sequence != signed.record().sequence {
            // The accusation is refuted, is about another node, or names another record. It says
            // nothing about this record.
            let record = signed.bytes().clone();
            return Ok(Effects::one(Effect::Ingest { record, age, from }));
        }
        if self.suspicions.unconfirmed.len() >= MAX_UNCONFIRMED {
            scope.dropped(DropReason::UnconfirmedMembersOverTheLimit, Some(id));
            return Ok(Effects::none());
        }
        let unconfirmed = Unconfirmed {
            signed,
            age,
            received: scope.now(),
            accusation: accusation.bytes,
            deadline: scope.now() + scope.config.suspicion_max,
        };
        self.suspicions.unconfirmed.insert(id, unconfirmed);
        self.schedule_suspicions();
        if scope.book.admits(&id) {
            self.probe(id, false, None, scope);
        }
        Ok(Effects::none())
    }

    /// A peer gave a sign of life. If it is unconfirmed, it becomes a member.
    pub(super) fn confirm(&mut self, peer: EndpointId, scope: &Scope) -> Effects {
        let Some(known) = self.suspicions.unconfirmed.remove(&peer) else {
            return Effects::none();
        };
        self.schedule_suspicions();
        let age = known.age + scope.now().saturating_duration_since(known.received);
        Effects::one(Effect::Ingest { record: known.signed.bytes().clone(), age, from: peer })
    }
}

/// Returns true if a node is a member, or was lost. A node that is held to be dead here may be
/// alive, and hold this node to be dead. A node that left accuses nobody.
fn may_accuse(accuser: &EndpointId, scope: &Scope) -> bool {
    let lost = |signed: &SignedRecord| signed.record().status == Status::Alive;
    scope.book.get_with_hidden(accuser).is_some()
        || scope.book.last_record(accuser).is_some_and(lost)
}

fn emit_recovery(suspicion: &Suspicion, record: Arc<NodeRecord>, scope: &mut Scope) {
    if suspicion.report_at.is_none() && scope.book.admits(&record.id) {
        log(scope.topic, &record, "peer recovered");
        scope.emit(TopicEvent::PeerRecovered(record));
    }
}

/// Returns how long the accused has to refute, from the first accusation on, with this number of
/// accusers.
fn time_to_refute(accusers: usize, scope: &Scope) -> Duration {
    if !scope.cx.is_on(Rule::SuspicionFloor) {
        return Duration::ZERO;
    }
    let (min, max) = (scope.config.suspicion, scope.config.suspicion_max);
    // A small swarm may have no other member that could confirm.
    let able = u32::try_from(scope.book.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let needed = able.min(CONFIRMATIONS);
    if needed == 0 {
        return min;
    }
    let confirmed = u32::try_from(accusers.saturating_sub(1)).unwrap_or(u32::MAX).min(needed);
    let share = f64::from(confirmed + 1).ln() / f64::from(needed + 1).ln();
    max.saturating_sub(max.saturating_sub(min).mul_f64(share.min(1.0)))
}
