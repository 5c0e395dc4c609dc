//! Suspicion, accusation, refutation and the verdict (design D7).
//!
//! Nobody declares another dead for everyone: an accusation says "it did not answer me", signed, and
//! each node comes to its own verdict when the time that the accused has to refute is over. The more
//! members confirm, the shorter that time, down to a floor (Lifeguard's dynamic suspicion timeout).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use iroh_base::TransportAddr;
use tokio::time::Instant;

use super::{Timer, Topic, overlay::Seen, scope::log};
use crate::{
    accusation::Accusation,
    book::Applied,
    budget::{Budget, Rate},
    error::Error,
    event::{CloseCode, LostReason, TopicEvent},
    id::EndpointId,
    record::{NodeRecord, SignedRecord, Status},
    rule::Rule,
    state::Context,
    wire::{Item, TopicFrame},
};

/// Accusers beyond the first that shorten the time to refute, and most that are kept and told on.
const CONFIRMATIONS: u32 = 2;
const MAX_ACCUSERS: usize = 4;
/// Accusations of one accuser: a bucket of so many and one for each member (a partition makes all of
/// the other side look dead), filled within a minute.
const ACCUSER_BURST: usize = 32;
const ACCUSER_REFILL: Duration = Duration::from_mins(1);
/// Most members that are unconfirmed, and accusations that wait to be told on.
const MAX_UNCONFIRMED: usize = 1024;
const MAX_WAITING: usize = 4096;
/// Most accusations that wait for the record that they speak of: of one peer, and in all.
const HELD_OF_PEER: usize = 16;
const MAX_HELD: usize = 256;
/// Accusations of one link whose signature is checked: a second, and at once. Whatever key signed them,
/// that is what a link may cost; a partition makes all of the other side look dead.
const CHECKS_OF_PEER: Rate =
    Rate { messages: (200.0, 4096.0), bytes: (64.0 * 1024.0, 1024.0 * 1024.0) };

#[derive(Debug)]
struct Suspicion {
    /// The highest sequence that an accusation names.
    sequence: u64,
    since: Instant,
    deadline: Instant,
    /// What was added to the time to refute, as this node was paused: confirmations take none of it.
    granted: Duration,
    /// What of it was time in which this node ran.
    waited: Duration,
    accusers: BTreeSet<EndpointId>,
    /// A partner of a sync holds it dead, or found it silent itself: that is as good as confirmed.
    vouched: bool,
    /// When the application hears of it; `None` once it did.
    tell: Option<Instant>,
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

/// What is dropped because nobody showed a record with the number that it names.
const NEVER_SIGNED: &str = "accusations of a sequence that its owner did not sign";

/// An accusation that nobody can judge yet: a record that it speaks of is not held.
#[derive(Debug)]
struct Held {
    /// Whose record it waits for: the accuser's, or the accused's that it names.
    about: EndpointId,
    bytes: Bytes,
    from: EndpointId,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Suspicions {
    open: BTreeMap<EndpointId, Suspicion>,
    unconfirmed: BTreeMap<EndpointId, Unconfirmed>,
    /// To be told on with the next batch.
    pub(super) flood: VecDeque<Accusation>,
    seen: Seen,
    budgets: BTreeMap<EndpointId, (f64, Instant)>,
    /// By link: how many more signatures are checked.
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
        self.flood.clear();
        self.held.clear();
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 6] {
        [
            ("suspicions", self.open.len()),
            ("unconfirmed", self.unconfirmed.len()),
            ("accusations", self.flood.len()),
            ("accusers' budgets", self.budgets.len()),
            ("accusation checks", self.checks.len()),
            ("accusations held", self.held.len()),
        ]
    }

    fn next(&self) -> Option<Instant> {
        let suspicions = self.open.values();
        let suspicions = suspicions.map(|s| s.tell.map_or(s.deadline, |at| at.min(s.deadline)));
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
        if self.budgets.len() > MAX_WAITING {
            // Who was not heard of for that long has a full bucket anyway.
            self.budgets.retain(|_, (_, at)| now.saturating_duration_since(*at) < ACCUSER_REFILL);
        }
        enough
    }
}

impl Suspicions {
    /// Whether one more signature of what a link brought may be checked.
    fn may_check(&mut self, from: EndpointId, size: usize, now: Instant) -> bool {
        let budget = self.checks.entry(from).or_insert_with(|| Budget::new(CHECKS_OF_PEER, now));
        budget.take(size, now)
    }

    /// Keeps an accusation until a record comes that lets it be judged: whether there was room.
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

    /// Where an unconfirmed member can be dialed.
    pub(super) fn unconfirmed_addresses(&self, peer: &EndpointId) -> Option<Vec<TransportAddr>> {
        let unconfirmed = self.unconfirmed.get(peer)?;
        Some(unconfirmed.signed.record().addresses.clone())
    }

    /// The link to a peer is gone, and what it may cost.
    pub(super) fn forget_link(&mut self, peer: &EndpointId) {
        self.checks.remove(peer);
    }
}

impl Topic {
    fn schedule_suspicions(&mut self) {
        match self.suspicions.next() {
            Some(next) => self.timers.set(Timer::Suspicion, next),
            None => self.timers.clear(Timer::Suspicion),
        }
    }

    pub(super) fn is_suspected(&self, peer: &EndpointId) -> bool {
        self.suspicions.open.contains_key(peer)
    }

    /// Returns true if the silence of a member says nothing, as this node's own network is away.
    pub(super) fn is_beyond(peer: &EndpointId, cx: &Context) -> bool {
        cx.network.is_beyond(cx.links.heard(peer))
    }

    /// How long the accused has from the first accusation on, with so many accusers.
    fn time_to_refute(&self, accusers: usize, cx: &Context) -> Duration {
        if !cx.is_on(Rule::SuspicionFloor) {
            return Duration::ZERO;
        }
        let (min, max) = (self.config.suspicion, self.config.suspicion_max);
        // In a small swarm there may be nobody else who could confirm.
        let able = u32::try_from(self.book.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let needed = able.min(CONFIRMATIONS);
        if needed == 0 {
            return min;
        }
        let confirmed = u32::try_from(accusers.saturating_sub(1)).unwrap_or(u32::MAX).min(needed);
        let share = f64::from(confirmed + 1).ln() / f64::from(needed + 1).ln();
        max.saturating_sub(max.saturating_sub(min).mul_f64(share.min(1.0)))
    }

    /// Accuses a member that answered neither us nor others.
    pub(super) fn accuse(&mut self, peer: EndpointId, cx: &mut Context) {
        let Some(live) = self.book.get(&peer) else { return };
        let known = self.suspicions.open.get(&peer);
        if Self::is_beyond(&peer, cx) {
            return;
        }
        if self.leave.is_begun() || known.is_some_and(|s| s.accusers.contains(&self.me)) {
            return;
        }
        let sequence = live.signed.record().sequence;
        let accusation = Accusation::sign(&cx.identity.key, &self.id, peer, sequence);
        cx.counts.accusations += 1;
        self.suspicions.seen.insert(&accusation.bytes, cx.now);
        self.suspect(&accusation, Some(cx.now), cx);
        self.tell_accusation(accusation, cx);
        self.schedule_suspicions();
    }

    /// Takes in an accusation that `from` sent, in a broadcast or directly: whether it is news, which
    /// the overlay passes on with the broadcast. One that does not verify is an error, and closes the
    /// link.
    pub(super) fn judge_accusation(
        &mut self,
        bytes: &Bytes,
        from: EndpointId,
        broadcast: bool,
        cx: &mut Context,
    ) -> Result<bool, Error> {
        let accusation = match self.verify_accusation(bytes, from, cx) {
            Ok(None) => return Ok(false),
            Ok(Some(accusation)) => accusation,
            Err(error) => {
                self.refuse(&error, from, cx);
                return Err(error);
            }
        };
        let news = self.hear_accusation(&accusation, from, cx);
        if news && !broadcast {
            self.tell_accusation(accusation, cx);
        }
        Ok(news)
    }

    /// Verifies an accusation by a member: its signature first, and only then takes from the
    /// accuser's budget, which nobody else can use up.
    fn verify_accusation(
        &mut self,
        bytes: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<Option<Accusation>, Error> {
        if self.suspicions.seen.contains(bytes, cx.now) {
            return Ok(None);
        }
        let envelope = Accusation::open(bytes)?;
        let accuser = envelope.claimed;
        if !self.may_accuse(&accuser) {
            self.hold_accusation(accuser, bytes, from, "accusations by unknown members", cx);
            return Ok(None);
        }
        if !self.suspicions.may_check(from, bytes.len(), cx.now) {
            cx.links.dropped("accusations over the budget of a peer", Some(from));
            return Ok(None);
        }
        let accusation = cx.verify_accusation(&self.id, envelope)?;
        if !self.suspicions.take_budget(accuser, self.book.len(), cx.now) {
            cx.links.dropped("accusations over the budget of an accuser", Some(accuser));
            return Ok(None);
        }
        Ok(Some(accusation))
    }

    /// Returns true if a node is a member, or was lost: one that is held to be dead may be alive, and
    /// hold us to be dead. One that left accuses nobody.
    fn may_accuse(&self, accuser: &EndpointId) -> bool {
        let lost = |signed: &SignedRecord| signed.record().status == Status::Alive;
        self.book.get(accuser).is_some() || self.book.last_record(accuser).is_some_and(lost)
    }

    /// What a record may still show to be true is looked at again once the record is there; until
    /// then it says nothing, and if none comes it never does.
    fn hold_accusation(
        &mut self,
        about: EndpointId,
        bytes: &Bytes,
        from: EndpointId,
        what: &'static str,
        cx: &mut Context,
    ) {
        let until = cx.now + self.config.suspicion_max;
        let held = Held { about, bytes: bytes.clone(), from, until };
        if !self.suspicions.hold(held, cx.now) {
            cx.links.dropped("accusations held over the limit", Some(from));
        }
        cx.links.dropped(what, Some(from));
    }

    /// A newer record of a member came: what waited for it is judged.
    fn judge_held(&mut self, id: EndpointId, cx: &mut Context) {
        let due = self.suspicions.held.extract_if(.., |held| held.about == id);
        for held in due.collect::<Vec<_>>() {
            if held.until > cx.now {
                let _ = self.judge_accusation(&held.bytes, held.from, false, cx);
            }
        }
    }

    /// A verified accusation by a member: whether it is news.
    ///
    /// It counts only for the sequence number of a record that its owner signed and that is held here:
    /// nobody moves another's number, and nobody answers for a number that was never used.
    fn hear_accusation(
        &mut self,
        accusation: &Accusation,
        from: EndpointId,
        cx: &mut Context,
    ) -> bool {
        let &Accusation { accuser, accused, sequence, .. } = accusation;
        if accuser == accused {
            return false;
        }
        if accused == self.me {
            if sequence >= cx.identity.sequence {
                // If an earlier life did, its record is shown to us, and we jump above that.
                cx.links.dropped(NEVER_SIGNED, Some(accuser));
                return false;
            }
            self.suspicions.seen.insert(&accusation.bytes, cx.now);
            self.refute(sequence, from, cx);
            return false;
        }
        if self.book.sequence(&accused).is_none_or(|known| sequence > known) {
            // The record may be on its way.
            self.hold_accusation(accused, &accusation.bytes, from, NEVER_SIGNED, cx);
            return false;
        }
        self.suspicions.seen.insert(&accusation.bytes, cx.now);
        // Not there any more, or refuted already.
        if self.book.get(&accused).is_none_or(|live| live.signed.record().sequence != sequence) {
            return false;
        }
        let known = self.suspicions.open.get(&accused);
        if known.is_some_and(|s| s.accusers.len() >= MAX_ACCUSERS || s.accusers.contains(&accuser))
        {
            return false;
        }
        // A refutation that is under way spares the application two events.
        self.suspect(accusation, Some(cx.now + self.config.probe_timeout), cx);
        if self.second_opinion(accused, cx) {
            self.accuse(accused, cx);
        }
        self.schedule_suspicions();
        true
    }

    fn suspect(&mut self, accusation: &Accusation, tell: Option<Instant>, cx: &mut Context) {
        let &Accusation { accuser, accused, sequence, .. } = accusation;
        let own = accuser == self.me;
        let fresh = !self.is_suspected(&accused);
        let suspicion = self.suspicions.open.entry(accused).or_insert_with(|| Suspicion {
            sequence,
            since: cx.now,
            deadline: cx.now,
            granted: Duration::ZERO,
            waited: Duration::ZERO,
            accusers: BTreeSet::new(),
            vouched: false,
            tell,
        });
        suspicion.sequence = suspicion.sequence.max(sequence);
        suspicion.accusers.insert(accuser);
        if own && let Some(at) = &mut suspicion.tell {
            *at = cx.now.min(*at);
        }
        self.set_deadline(&accused, cx);
        if fresh || own {
            // Whoever vouches for an opinion is known to the one who asks for it.
            self.book.accuse(&accused, Some(accusation.bytes.clone()));
        }
        if fresh {
            tracing::debug!(
                topic = %self.id.fmt_short(),
                peer = %accused.fmt_short(),
                accuser = %accuser.fmt_short(),
                "suspected"
            );
            // Should it be there after all, it hears of it at once.
            let frame = TopicFrame::Accuse(vec![accusation.bytes.clone()]);
            cx.links.send(&accused, self.id, frame, cx.now);
            self.survey_soon(cx);
        }
    }

    /// Tells all members of an accusation that no broadcast brought.
    fn tell_accusation(&mut self, accusation: Accusation, cx: &mut Context) {
        if self.suspicions.flood.len() < MAX_WAITING {
            self.suspicions.flood.push_back(accusation);
            self.flood_soon(cx);
        } else {
            let accused = Some(accusation.accused);
            cx.links.dropped("accusations that could not be disseminated", accused);
        }
    }

    /// Whether no more confirmations are needed.
    pub(super) fn is_confirmed(&self, accused: &EndpointId) -> bool {
        let confirmed = |s: &Suspicion| s.vouched || s.accusers.len() > CONFIRMATIONS as usize;
        self.suspicions.open.get(accused).is_none_or(confirmed)
    }

    fn set_deadline(&mut self, accused: &EndpointId, cx: &Context) {
        let Some(suspicion) = self.suspicions.open.get(accused) else { return };
        let (accusers, vouched) = (suspicion.accusers.len(), suspicion.vouched);
        let time = self.time_to_refute(if vouched { MAX_ACCUSERS } else { accusers }, cx);
        if let Some(suspicion) = self.suspicions.open.get_mut(accused) {
            suspicion.deadline = suspicion.since + time + suspicion.granted;
        }
    }

    /// Accusations that are still worth telling on, up to `count`.
    pub(super) fn accusations_to_tell(&mut self, room: usize) -> Vec<Item> {
        let mut items = Vec::new();
        let mut size = 0;
        while let Some(accusation) = self.suspicions.flood.front() {
            let known = self.book.sequence(&accusation.accused);
            if known.is_some_and(|known| known <= accusation.sequence) {
                let length = accusation.bytes.len() + super::learn::ITEM_OVERHEAD;
                if size + length > room {
                    break;
                }
                size += length;
                items.push(Item::Accusation(accusation.bytes.clone()));
            }
            self.suspicions.flood.pop_front();
        }
        items
    }

    pub(super) fn on_suspicion(&mut self, cx: &mut Context) {
        let mut told = Vec::new();
        let mut due = Vec::new();
        for (peer, suspicion) in &mut self.suspicions.open {
            if let Some(at) = suspicion.tell.filter(|at| *at <= cx.now) {
                suspicion.tell = None;
                // A node that is late gives as much more time: no verdict comes with the news.
                let late = cx.now - at;
                suspicion.granted += late;
                suspicion.deadline += late;
                told.push(*peer);
            } else if suspicion.deadline <= cx.now {
                due.push(*peer);
            }
        }
        for peer in told {
            if let Some(live) = self.book.get(&peer) {
                let record = Arc::clone(live.signed.record());
                log(self.id, &record, "peer suspected");
                cx.emit(self.id, TopicEvent::PeerSuspected(record));
            }
            self.try_accused(peer, cx);
        }
        for peer in due {
            self.pass_verdict(peer, cx);
        }
        let late: Vec<_> = self
            .suspicions
            .unconfirmed
            .iter()
            .filter(|(_, unconfirmed)| unconfirmed.deadline <= cx.now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in late {
            if let Some(gone) = self.suspicions.unconfirmed.remove(&peer) {
                self.book.bury_unseen(gone.signed, gone.accusation, cx.now);
            }
        }
        self.schedule_suspicions();
    }

    /// The time to refute is over.
    fn pass_verdict(&mut self, peer: EndpointId, cx: &mut Context) {
        let more = self.config.suspicion_max;
        if let Some(suspicion) = self.suspicions.open.get_mut(&peer)
            && cx.network.went_after(suspicion.since)
        {
            // Its refutation can't reach this node.
            suspicion.granted += cx.now.saturating_duration_since(suspicion.deadline) + more;
            suspicion.deadline = cx.now + more;
            return;
        }
        let Some(suspicion) = self.suspicions.open.remove(&peer) else { return };
        let Some(live) = self.book.get(&peer) else { return };
        let record = Arc::clone(live.signed.record());
        let accusation = self.book.accusation(&peer).cloned();
        if cx.links.was_heard(&peer, suspicion.since) {
            // Whatever others say, it speaks with us. It goes on hearing of what they say.
            self.book.accuse(&peer, None);
            self.emit_recovery(&suspicion, record, cx);
            return;
        }
        // The verdict is our own, and vouched for by us: partners may not know the accuser.
        let own = suspicion.accusers.contains(&self.me).then_some(accusation).flatten();
        let accusation = own.unwrap_or_else(|| {
            Accusation::sign(&cx.identity.key, &self.id, peer, suspicion.sequence).bytes
        });
        if self.book.kill(&peer, accusation, cx.now).is_some() {
            log(self.id, &record, "peer lost: unreachable");
            self.on_gone(peer, cx);
            cx.emit(self.id, TopicEvent::PeerLost(record, LostReason::Unreachable));
            cx.links.close_peer(&peer, CloseCode::Unresponsive);
            self.count_death(cx);
            self.on_loss(cx);
        }
    }

    fn emit_recovery(&mut self, suspicion: &Suspicion, record: Arc<NodeRecord>, cx: &mut Context) {
        if suspicion.tell.is_none() {
            log(self.id, &record, "peer recovered");
            cx.emit(self.id, TopicEvent::PeerRecovered(record));
        }
    }

    /// A newer record of a member was applied: it answers what its sequence number is above.
    pub(super) fn on_newer_record(&mut self, record: &Arc<NodeRecord>, cx: &mut Context) {
        let id = record.id;
        self.suspicions.unconfirmed.remove(&id);
        self.judge_held(id, cx);
        let Some(suspicion) = self.suspicions.open.get(&id) else { return };
        let gone = self.book.get(&id).is_none();
        if !gone && suspicion.sequence >= record.sequence {
            return;
        }
        let suspicion = self.suspicions.open.remove(&id).expect("looked at above");
        if !gone {
            self.emit_recovery(&suspicion, Arc::clone(record), cx);
            if suspicion.accusers.contains(&self.me) {
                self.probes.was_wrong();
                // It lives, and we did not hear it: the link is at fault, unless it speaks now.
                if cx.links.heard(&id).is_some_and(|at| at <= suspicion.since) {
                    self.drop_silent_link(id, cx);
                }
            }
        }
        self.schedule_suspicions();
    }

    /// A member is gone: nothing is to be said of it any more.
    pub(super) fn drop_suspicion(&mut self, id: &EndpointId) {
        self.suspicions.open.remove(id);
        self.suspicions.unconfirmed.remove(id);
        self.schedule_suspicions();
    }

    pub(super) fn extend_suspicions(&mut self, late: Duration, cx: &Context) {
        let more = late.min(self.config.suspicion_max) + 2 * self.config.probe_timeout;
        // A machine that is too busy for long pauses again and again: in all that adds no more than two
        // longest times to refute, or nobody would ever be lost there.
        let most = 2 * self.config.suspicion_max;
        for suspicion in self.suspicions.open.values_mut() {
            // The answer of whoever refuted during the pause waits behind this timer.
            let missed = cx.now.saturating_duration_since(suspicion.deadline);
            let waits = more.min(most.saturating_sub(suspicion.waited));
            suspicion.waited += waits;
            suspicion.granted += missed + waits;
            suspicion.deadline += missed + waits;
        }
        for unconfirmed in self.suspicions.unconfirmed.values_mut() {
            unconfirmed.deadline = unconfirmed.deadline.max(cx.now) + more;
        }
        self.schedule_suspicions();
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
            if !self.suspicions.unconfirmed.contains_key(&id) {
                let signed = cx.verify_record(&self.id, opened)?;
                self.keep_unconfirmed(signed, age, accusation, from, cx)?;
            }
            return Ok((id, Applied::Stale));
        }
        let learned = self.learn(record, age, from, cx)?;
        if cx.is_on(Rule::Unconfirmed) {
            self.judge_accusation(accusation, from, false, cx)?;
            self.vouch(id, accusation, from, cx);
        }
        Ok(learned)
    }

    /// The partner of a sync holds this opinion. Where it vouches for it itself, it has waited, or
    /// looked: the floor is enough here.
    fn vouch(&mut self, id: EndpointId, accusation: &Bytes, from: EndpointId, cx: &mut Context) {
        let own = Accusation::open(accusation).is_ok_and(|envelope| envelope.claimed == from);
        let open = self.suspicions.open.get_mut(&id).filter(|suspicion| own && !suspicion.vouched);
        if let Some(suspicion) = open {
            suspicion.vouched = true;
            self.set_deadline(&id, cx);
            self.schedule_suspicions();
        }
    }

    fn keep_unconfirmed(
        &mut self,
        signed: SignedRecord,
        age: Duration,
        bytes: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<(), Error> {
        let id = signed.record().id;
        if !self.suspicions.may_check(from, bytes.len(), cx.now) {
            cx.links.dropped("accusations over the budget of a peer", Some(from));
            return Ok(());
        }
        let accusation = cx.verify_accusation(&self.id, Accusation::open(bytes)?)?;
        if accusation.accused != id || accusation.sequence != signed.record().sequence {
            // Refuted, about somebody else, or of a record that nobody shows: it says nothing.
            return self.learn(signed.bytes(), age, from, cx).map(drop);
        }
        if self.suspicions.unconfirmed.len() >= MAX_UNCONFIRMED {
            cx.links.dropped("unconfirmed members over the limit", Some(id));
            return Ok(());
        }
        let unconfirmed = Unconfirmed {
            signed,
            age,
            received: cx.now,
            accusation: accusation.bytes,
            deadline: cx.now + self.config.suspicion_max,
        };
        self.suspicions.unconfirmed.insert(id, unconfirmed);
        self.schedule_suspicions();
        self.probe(id, false, None, cx);
        Ok(())
    }

    /// A sign of life: who was unconfirmed joins.
    pub(super) fn confirm(&mut self, peer: EndpointId, cx: &mut Context) {
        if let Some(known) = self.suspicions.unconfirmed.remove(&peer) {
            let age = known.age + cx.now.saturating_duration_since(known.received);
            let _ = self.learn(known.signed.bytes(), age, peer, cx);
            self.schedule_suspicions();
        }
    }
}
