//! What this node says of itself: announcing, heartbeats, and leaving.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Leaving, Timer, Topic};
use crate::{
    book::{Applied, TOMBSTONE_AGE},
    error::Error,
    event::{LostReason, TopicEvent},
    id::EndpointId,
    record::{NodeRecord, Profile, SignedRecord, Status},
    rule::Rule,
    state::Context,
    timers::jitter,
    wire::{Item, TopicFrame, encode_content},
};

/// Shortest and longest delay before jumping above somebody else who announces with our key.
pub(super) const JUMP_MIN: Duration = Duration::from_millis(10);
const JUMP_MAX: Duration = Duration::from_mins(1);
/// Members that are dialed to be told of a leave while nobody is linked.
const LEAVE_DIALS: usize = 3;

/// Other processes that announce with our key.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// By boot id: when the last time of such trouble began, and how often it outran us since.
    rises: BTreeMap<u64, (Instant, u32)>,
}

impl Rivals {
    /// Most that are told apart.
    const MOST: usize = 16;
    const WINDOW: Duration = Duration::from_mins(1);

    /// A process with this boot id outran us: whether it did so again, twice in short order after
    /// we had jumped above it. An earlier life of ours does so once.
    fn rose(&mut self, boot_id: u64, now: Instant) -> bool {
        self.rises.retain(|_, rise| Self::lasts(*rise, now));
        if self.rises.len() >= Self::MOST && !self.rises.contains_key(&boot_id) {
            return false;
        }
        let (began, count) = self.rises.entry(boot_id).or_insert((now, 0));
        *count += 1;
        let conflict = *count > 2;
        if conflict {
            (*began, *count) = (now, 3);
        }
        conflict
    }

    /// Whether a conflict goes on.
    fn is_conflict(&self, now: Instant) -> bool {
        self.rises.values().any(|rise| rise.1 > 2 && Self::lasts(*rise, now))
    }

    /// One of two that outrun each other backs off first; the other one hears of it a minute later.
    fn lasts((began, _): (Instant, u32), now: Instant) -> bool {
        now.saturating_duration_since(began) <= 2 * Self::WINDOW
    }
}

impl Topic {
    fn expiration(&self) -> Duration {
        let expiration = self.config.expiration_among(self.book.len() + 1);
        // Records say it in whole seconds; others must not expire us early.
        Duration::from_secs(expiration.as_secs() + u64::from(expiration.subsec_nanos() > 0))
    }

    /// Signs a record with the next sequence number; `None` while none is persisted.
    fn sign(
        &self,
        profile: Profile,
        status: Status,
        cx: &mut Context,
    ) -> Option<Result<SignedRecord, Error>> {
        let mut record = NodeRecord {
            id: self.me,
            sequence: cx.next_sequence()?,
            boot_id: cx.identity.boot_id,
            profile,
            addresses: cx.addresses.clone(),
            status,
            expiration: self.expiration(),
        };
        loop {
            let signed = SignedRecord::sign(&cx.identity.key, &self.id, record.clone());
            // All fields at their limits do not fit together: addresses are hints, and sorted.
            if signed.is_err() && record.addresses.pop().is_some() {
                cx.links.dropped("addresses that do not fit the record", None);
                continue;
            }
            return Some(signed);
        }
    }

    /// Announces what this node has to say now.
    pub(crate) fn announce(&mut self, cx: &mut Context) {
        if self.leaving.is_some() {
            return;
        }
        match self.sign(self.profile.clone(), Status::Alive, cx) {
            Some(Ok(signed)) => self.publish(signed, cx),
            Some(Err(error)) => unreachable!("a validated profile fits a record: {error}"),
            // The timer stays unset: the reservation will call again.
            None => self.timers.clear(Timer::Announce),
        }
    }

    pub(crate) fn announce_if_pending(&mut self, cx: &mut Context) {
        if !self.timers.is_set(Timer::Announce) {
            self.announce(cx);
        }
    }

    fn publish(&mut self, signed: SignedRecord, cx: &mut Context) {
        let record = Arc::clone(signed.record());
        let applied = self.book.apply(signed.clone(), Duration::ZERO, cx.now);
        cx.counts.announcements += 1;
        debug_assert!(applied.is_news(), "own sequence numbers rise: {applied:?}");
        self.overlay.set_record(signed.bytes(), cx.now);
        self.own = Some(signed);
        // Others keep no record for longer than that.
        let third = record.expiration.min(TOMBSTONE_AGE) / 3;
        self.timers.set(Timer::Announce, cx.now + jitter(&mut cx.rng, third, 0.7..1.0));
        let (topic, sequence) = (self.id.fmt_short(), record.sequence);
        if applied == Applied::Refreshed {
            tracing::trace!(%topic, sequence, "heartbeat");
        } else {
            tracing::debug!(%topic, sequence, "announced");
        }
        cx.emit(self.id, TopicEvent::Announced(record));
        self.tell(self.me, Duration::ZERO, true, cx);
        self.drive_overlay(cx);
    }

    pub(crate) fn set_profile(&mut self, profile: Profile, cx: &mut Context) -> Result<(), Error> {
        profile.validate()?;
        if cx.is_exhausted() {
            return Err(Error::SequencesExhausted);
        }
        self.profile = profile;
        if self.rivals.is_conflict(cx.now) {
            // With the next announcement, within a minute.
            return Ok(());
        }
        self.announce(cx);
        Ok(())
    }

    /// Somebody holds a record of ours that is not older than our own: of an earlier life, or of
    /// another process with our key.
    pub(super) fn outrun(&mut self, record: &NodeRecord, cx: &mut Context) {
        if record.sequence < cx.identity.sequence {
            // Jumped above it already: another copy of the same.
            return;
        }
        let calm = self.jumped.is_none_or(|at| cx.now.saturating_duration_since(at) > 2 * JUMP_MAX);
        if calm {
            self.jump_delay = JUMP_MIN;
        }
        self.jumped = Some(cx.now);
        cx.jump_above(record.sequence);
        let (topic, sequence) = (self.id.fmt_short(), record.sequence);
        let foreign = record.boot_id != cx.identity.boot_id;
        if cx.is_exhausted() {
            tracing::error!(%topic, sequence, boot_id = record.boot_id, "{}", Error::SequencesExhausted);
            cx.emit(self.id, TopicEvent::IdentityConflict { boot_id: record.boot_id });
            self.timers.clear(Timer::Announce);
            return;
        }
        if foreign && self.rivals.rose(record.boot_id, cx.now) {
            self.jump_delay = JUMP_MAX;
            tracing::warn!(%topic, boot_id = record.boot_id, "another process announces with this node's key");
            cx.emit(self.id, TopicEvent::IdentityConflict { boot_id: record.boot_id });
        } else {
            tracing::info!(%topic, sequence, "a higher sequence of our own is known: jumping above it");
        }
        let at = cx.now + self.jump_delay;
        self.jump_delay = (self.jump_delay * 4).min(JUMP_MAX);
        if self.jump_delay == JUMP_MAX {
            self.timers.set(Timer::Announce, at);
        } else {
            self.timers.set_by(Timer::Announce, at);
        }
    }

    /// Starts to leave: the signed leave goes to every linked peer and through the overlay. Who is
    /// linked to nobody dials a few members to tell them.
    pub(crate) fn leave(&mut self, cx: &mut Context) {
        if self.leaving.is_some() {
            return;
        }
        let record = self.sign(self.profile.clone(), Status::Left, cx).and_then(Result::ok);
        self.timers.clear_all();
        self.sync_wanted.clear();
        self.probes.clear();
        self.suspicions.clear();
        self.healing.stop();
        // Also who has our record and did not answer yet, and members whose link is so young that
        // neither end has spoken of the topic.
        let known = self.linked.iter().copied().chain(self.book.others());
        let linked = known.filter(|peer| cx.links.current(peer).is_some());
        let mut told: BTreeSet<EndpointId> = linked.chain(cx.links.told_of(self.id)).collect();
        if let Some(signed) = &record {
            for peer in &told {
                cx.links.send(peer, self.id, TopicFrame::Leave(signed.bytes().clone()), cx.now);
            }
            let item = Item::Record(signed.bytes().clone());
            if cx.is_on(Rule::Dissemination) {
                self.overlay.broadcast(encode_content(&[item]), cx.now);
            }
            self.drive_overlay(cx);
            // Who left itself tells nobody.
            if !told.iter().any(|peer| self.book.get(peer).is_some()) {
                told.extend(self.dial_members(LEAVE_DIALS, cx));
            }
        } else {
            told.clear();
        }
        let nobody = told.is_empty();
        self.leaving = Some(Leaving { record, waiting: told.clone(), told });
        if nobody {
            self.finish_leave(cx);
        } else {
            self.timers.set(Timer::Leave, cx.now + self.config.leave_timeout);
        }
    }

    /// A link is up while this node leaves: dialed to tell of it, or by a member that does not know.
    pub(super) fn tell_leave(&mut self, peer: EndpointId, cx: &mut Context) {
        let member = self.book.get(&peer).is_some();
        if let Some(Leaving { record: Some(signed), waiting, told }) = &mut self.leaving
            && (member || waiting.contains(&peer))
        {
            let frame = TopicFrame::Leave(signed.bytes().clone());
            waiting.insert(peer);
            told.insert(peer);
            cx.links.send(&peer, self.id, frame, cx.now);
        }
    }

    /// A peer acknowledged the leave (`None`: it is gone).
    pub(super) fn leave_acknowledged(
        &mut self,
        peer: EndpointId,
        sequence: Option<u64>,
        cx: &mut Context,
    ) {
        let Some(leaving) = &mut self.leaving else { return };
        let ours = leaving.record.as_ref().map(|signed| signed.record().sequence);
        if sequence.is_none() || sequence == ours {
            leaving.waiting.remove(&peer);
            if leaving.waiting.is_empty() {
                self.finish_leave(cx);
            }
        }
    }

    pub(super) fn finish_leave(&mut self, cx: &mut Context) {
        if !self.done {
            self.done = true;
            self.overlay.quit(cx.now);
            self.drive_overlay(cx);
        }
    }

    /// A peer leaves: told on, and acknowledged whatever we knew.
    pub(super) fn on_leave(&mut self, record: &Bytes, peer: EndpointId, cx: &mut Context) {
        let Ok((id, applied)) = self.learn(record, Duration::ZERO, peer, cx) else { return };
        if id == peer {
            if applied.is_news() {
                self.tell(id, Duration::ZERO, true, cx);
            }
            if let Some(sequence) = self.book.sequence(&id) {
                cx.links.send(&peer, self.id, TopicFrame::LeaveAck(sequence), cx.now);
            }
        }
    }

    pub(super) fn expire(&mut self, cx: &mut Context) {
        for record in self.book.expire(cx.now) {
            self.log(&record, "peer lost: expired");
            self.on_gone(record.id, cx);
            cx.emit(self.id, TopicEvent::PeerLost(record, LostReason::Expired));
            self.on_loss(cx);
        }
    }

    pub(super) fn is_own(&self, bytes: &Bytes) -> bool {
        self.own.as_ref().is_some_and(|own| own.bytes() == bytes)
    }

    pub(super) fn log_applied(&self, applied: &Applied, record: &NodeRecord) {
        let what = match applied {
            Applied::Joined => "peer joined",
            Applied::Left(_) => "peer left",
            // An application may update as often as it likes.
            Applied::Updated => {
                let (topic, peer) = (self.id.fmt_short(), record.id.fmt_short());
                tracing::debug!(%topic, %peer, sequence = record.sequence, "peer updated");
                return;
            }
            _ => return,
        };
        self.log(record, what);
    }

    pub(super) fn log(&self, record: &NodeRecord, what: &str) {
        tracing::info!(
            topic = %self.id.fmt_short(),
            peer = %record.id.fmt_short(),
            name = record.profile.name,
            sequence = record.sequence,
            "{what}"
        );
    }
}
