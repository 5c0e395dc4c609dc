//! The announcer of this node's own record: announcements, heartbeats and refutations.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    effect::{Effect, Effects},
    scope::Scope,
};
use crate::{
    book::{Applied, TOMBSTONE_AGE},
    drops::DropReason,
    error::Error,
    event::TopicEvent,
    id::EndpointId,
    record::{NodeRecord, Profile, SignedRecord, Status},
    rule::Rule,
    timers::{earlier, jitter},
    wire::TopicFrame,
};

/// The shortest and the longest delay before this node jumps above the sequence number of another
/// process that announces with its key.
const JUMP_MIN: Duration = Duration::from_millis(10);
const JUMP_MAX: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Announcer {
    profile: Profile,
    /// The own record, once announced.
    own: Option<SignedRecord>,
    /// The delay before the next jump above another process that uses this node's key.
    jump_delay: Duration,
    jumped: Option<Instant>,
    rivals: Rivals,
    /// When an accusation was last refuted.
    refuted: Option<Instant>,
    /// When the own record is announced again. Not set while no sequence number is reserved.
    timer: Option<Instant>,
}

/// The other processes that announce with this node's key.
#[derive(Debug, Default)]
struct Rivals {
    /// For each boot id, when its last conflict began, and how often it outran this node since.
    rises: BTreeMap<u64, (Instant, u32)>,
}

impl Rivals {
    /// The most processes that are distinguished.
    const MOST: usize = 16;
    const WINDOW: Duration = Duration::from_mins(1);

    /// A process with this boot id outran this node. Returns true if it did so twice again after
    /// this node had jumped above it. An earlier life of this node does so only once.
    fn rose(&mut self, boot_id: u64, now: Instant) -> bool {
        self.rises.retain(|_, rise| Self::lasts(*rise, now));
        if self.rises.len() >= Self::MOST && !self.rises.contains_key(&boot_id) {
            return false;
        }
        let (began, count) = self.rises.entry(boot_id).or_insert((now, 0));
        debug_assert!(*count <= 3, "a conflict that goes on counts as three");
        *count += 1;
        let conflict = *count > 2;
        if conflict {
            (*began, *count) = (now, 3);
        }
        conflict
    }

    /// Returns true while there is a conflict.
    fn is_conflict(&self, now: Instant) -> bool {
        self.rises.values().any(|rise| rise.1 > 2 && Self::lasts(*rise, now))
    }

    /// Returns true while a conflict that began at this time lasts. If two processes outrun each
    /// other, one backs off first, and the other one learns that only a minute later.
    fn lasts((began, _): (Instant, u32), now: Instant) -> bool {
        now.saturating_duration_since(began) <= 2 * Self::WINDOW
    }
}

impl Announcer {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            profile,
            own: None,
            jump_delay: JUMP_MIN,
            jumped: None,
            rivals: Rivals::default(),
            refuted: None,
            timer: None,
        }
    }

    /// Returns the own record, as last announced.
    pub(super) fn own(&self) -> Option<&SignedRecord> {
        self.own.as_ref()
    }

    /// Returns the sequence number of the own record, or 0 before the first announcement.
    pub(super) fn sequence(&self) -> u64 {
        self.own.as_ref().map_or(0, |own| own.record().sequence)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timer
    }

    pub(super) fn on_timeout(&mut self, scope: &mut Scope) -> Effects {
        self.timer = None;
        self.announce(scope)
    }

    /// Announces this node's record as it should be now. An observer reports it only to its own
    /// application.
    pub(super) fn announce(&mut self, scope: &mut Scope) -> Effects {
        if scope.view.leaving {
            return Effects::none();
        }
        if scope.config.observer {
            let record = self.record(0, Status::Alive, scope);
            scope.emit(TopicEvent::Announced(Arc::new(record)));
            return Effects::none();
        }
        match self.sign(Status::Alive, scope) {
            Some(Ok(signed)) => self.publish(signed, scope),
            Some(Err(error)) => unreachable!("a validated profile fits a record: {error}"),
            None => {
                // The timer stays unset, because `announce_if_pending` follows the reservation.
                self.timer = None;
                Effects::none()
            }
        }
    }

    /// Sequence numbers were reserved: announces, if an announcement waits for that.
    pub(super) fn announce_if_pending(&mut self, scope: &mut Scope) -> Effects {
        let waits = self.timer.is_none() && !scope.config.observer;
        if waits { self.announce(scope) } else { Effects::none() }
    }

    /// Signs a record with the next sequence number. `None` while none is reserved.
    fn sign(&self, status: Status, scope: &mut Scope) -> Option<Result<SignedRecord, Error>> {
        let sequence = scope.cx.next_sequence()?;
        let mut record = self.record(sequence, status, scope);
        loop {
            let signed = SignedRecord::sign(&scope.cx.identity.key, &scope.topic, record.clone());
            // A record has no room for all fields at their limits. Addresses give way, because they
            // are hints, and the last one is the least useful.
            if signed.is_err() && record.addresses.pop().is_some() {
                scope.dropped(DropReason::AddressesThatDoNotFitTheRecord, None);
                continue;
            }
            return Some(signed);
        }
    }

    fn record(&self, sequence: u64, status: Status, scope: &Scope) -> NodeRecord {
        NodeRecord {
            id: scope.me(),
            sequence,
            boot_id: scope.cx.identity.boot_id,
            profile: self.profile.clone(),
            addresses: scope.cx.addresses.clone(),
            status,
            expiration: expiration(scope),
        }
    }

    fn publish(&mut self, signed: SignedRecord, scope: &mut Scope) -> Effects {
        let now = scope.now();
        let record = Arc::clone(signed.record());
        debug_assert_eq!(record.id, scope.me(), "a node announces itself");
        debug_assert!(record.sequence > self.sequence() || self.own.is_none(), "numbers rise");
        let applied = scope.book.apply(signed.clone(), Duration::ZERO, now);
        scope.cx.counts.announcements += 1;
        debug_assert!(applied.is_news(), "own sequence numbers rise: {applied:?}");
        let bytes = signed.bytes().clone();
        self.own = Some(signed);
        // Other nodes keep no record for longer than `TOMBSTONE_AGE`.
        let third = record.expiration.min(TOMBSTONE_AGE) / 3;
        self.timer = Some(now + jitter(&mut scope.cx.rng, third, 0.7..1.0));
        let (topic, sequence) = (scope.topic.fmt_short(), record.sequence);
        if applied == Applied::Refreshed {
            tracing::trace!(%topic, sequence, "heartbeat");
        } else {
            tracing::debug!(%topic, sequence, "announced");
        }
        scope.emit(TopicEvent::Announced(record));
        let mut effects = Effects::one(Effect::SetRecord(bytes));
        effects.push(Effect::Disseminate(scope.me()));
        effects
    }

    pub(super) fn set_profile(
        &mut self,
        profile: Profile,
        scope: &mut Scope,
    ) -> Result<Effects, Error> {
        profile.validate()?;
        if scope.config.observer {
            return Err(Error::Observer("announce a profile"));
        }
        if scope.cx.is_exhausted() {
            return Err(Error::SequencesExhausted);
        }
        self.profile = profile;
        if self.rivals.is_conflict(scope.now()) {
            // The next announcement, within a minute, carries the change.
            return Ok(Effects::none());
        }
        Ok(self.announce(scope))
    }

    /// A peer holds a record with this node's signature that is not the own one. It is from an
    /// earlier life, or from another process with this node's key.
    pub(super) fn outrun(&mut self, record: &NodeRecord, scope: &mut Scope) {
        if scope.view.leaving || scope.config.observer {
            // It announces nothing more.
            return;
        }
        if record.sequence < scope.cx.identity.sequence {
            // The own record is newer, or this node has jumped above this one already.
            return;
        }
        let now = scope.now();
        let calm = self.jumped.is_none_or(|at| now.saturating_duration_since(at) > 2 * JUMP_MAX);
        if calm {
            self.jump_delay = JUMP_MIN;
        }
        self.jumped = Some(now);
        scope.cx.jump_above(record.sequence);
        let (topic, sequence, boot_id) = (scope.topic.fmt_short(), record.sequence, record.boot_id);
        let foreign = boot_id != scope.cx.identity.boot_id;
        if scope.cx.is_exhausted() {
            tracing::error!(%topic, sequence, boot_id, "{}", Error::SequencesExhausted);
            scope.emit(TopicEvent::IdentityConflict { boot_id });
            self.timer = None;
            return;
        }
        if foreign && self.rivals.rose(boot_id, now) {
            self.jump_delay = JUMP_MAX;
            tracing::warn!(%topic, boot_id, "another process announces with this node's key");
            scope.emit(TopicEvent::IdentityConflict { boot_id });
        } else {
            tracing::info!(
                %topic,
                sequence,
                "a higher sequence of our own is known: jumping above it"
            );
        }
        let at = now + self.jump_delay;
        debug_assert!(self.jump_delay <= JUMP_MAX, "a node is silent for a minute at most");
        self.jump_delay = (self.jump_delay * 4).min(JUMP_MAX);
        let backs_off = self.jump_delay == JUMP_MAX;
        self.timer = if backs_off { Some(at) } else { earlier(self.timer, Some(at)) };
    }

    /// This node is accused. One announcement with a higher sequence number refutes all accusations
    /// that name a lower one.
    pub(super) fn refute(&mut self, sequence: u64, from: EndpointId, scope: &mut Scope) -> Effects {
        if scope.view.leaving || scope.config.observer || !scope.cx.is_on(Rule::Refutation) {
            return Effects::none();
        }
        let mut effects = Effects::none();
        if sequence >= self.sequence() {
            // The accused number was used already, so the next one is above it.
            let (now, interval) = (scope.now(), scope.config.refute_interval());
            let next = self.refuted.map_or(now, |at| at + interval);
            if next > now {
                self.timer = earlier(self.timer, Some(next));
                return Effects::none();
            }
            self.refuted = Some(now);
            scope.cx.counts.refutations += 1;
            let (topic, by) = (scope.topic.fmt_short(), from.fmt_short());
            tracing::info!(%topic, %by, "accused: refuting");
            effects = self.announce(scope);
        }
        if let Some(own) = &self.own {
            scope.send(&from, TopicFrame::Push(vec![own.bytes().clone()]));
        }
        effects
    }

    /// This node leaves the topic: it announces nothing more, and signs a leave. `None` if no
    /// sequence number is reserved for it, and for an observer, which nobody misses.
    pub(super) fn stop(&mut self, scope: &mut Scope) -> Option<SignedRecord> {
        self.timer = None;
        if scope.config.observer {
            return None;
        }
        self.sign(Status::Left, scope).and_then(Result::ok)
    }

    /// Makes this node one that has announced for a while: its next heartbeat is at a random point
    /// of the interval.
    pub(super) fn preload(&mut self, scope: &mut Scope) {
        if let Some(own) = &self.own {
            let third = own.record().expiration / 3;
            self.timer = Some(scope.now() + jitter(&mut scope.cx.rng, third, 0.0..1.0));
        }
    }
}

fn expiration(scope: &Scope) -> Duration {
    let expiration = scope.config.expiration_among(scope.book.len() + 1);
    // Records say it in whole seconds. It is rounded up, so that no node expires this one early.
    Duration::from_secs(expiration.as_secs() + u64::from(expiration.subsec_nanos() > 0))
}
