//! What the topics of an endpoint share: identity, links, time, random numbers and counts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh_base::TransportAddr;
use rand::{SeedableRng, rngs::ChaCha12Rng};
use tokio::time::Instant;

use crate::{
    accusation::Accusation,
    cose,
    counts::Counts,
    error::Error,
    event::{OutEvent, TopicEvent},
    id::{EndpointId, TopicId},
    links::Links,
    network::OwnNetwork,
    record::{Envelope, MAX_SEQUENCE, SignedRecord},
    rule::Rule,
    verified::{Ahead, Opened, Verified},
};

/// Sequence numbers are reserved on disk ahead of their use, in blocks of this size.
const SEQUENCE_BLOCK: u64 = 4096;
/// A timer that is at least this late shows that this node is behind.
const LATE: Duration = Duration::from_millis(10);
/// The number of queues, at both ends, that a request and its answer pass. Each is taken to delay
/// as much as the queue in which the late timer waited.
const HOPS: u32 = 8;
/// The most by which a node takes itself to be behind. A timer that is later shows a pause.
pub(crate) const MAX_LAG: Duration = Duration::from_secs(2);

/// The identity of this endpoint, for one life of the process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The key of the endpoint.
    pub key: SigningKey,
    /// Random for each process.
    pub boot_id: u64,
    /// The first sequence number to use. It is above all numbers that this key is known to have
    /// announced.
    pub sequence: u64,
    /// Sequence numbers below this one are persisted as used.
    pub reserved: u64,
}

/// What the topics of an endpoint share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) me: EndpointId,
    pub(crate) identity: Identity,
    /// Sequence numbers below this one are reserved, or their reservation is under way.
    asked: u64,
    pub(crate) addresses: Vec<TransportAddr>,
    pub(crate) links: Links,
    pub(crate) network: OwnNetwork,
    /// The issuers whose revocations count.
    pub(crate) issuers: BTreeSet<EndpointId>,
    /// The time of day, in seconds since 1970, and when it was that.
    clock: (u64, Instant),
    pub(crate) rng: ChaCha12Rng,
    pub(crate) counts: Counts,
    pub(crate) now: Instant,
    /// Until when this node is behind, judged by its timers; `None` if it never was.
    behind_until: Option<Instant>,
    verified: Option<Arc<Verified>>,
    ahead: Ahead,
    pub(crate) off: Option<Rule>,
}

impl Context {
    pub(crate) fn new(identity: Identity, seed: [u8; 32], now: Instant) -> Self {
        let me = EndpointId::from_bytes(identity.key.verifying_key().to_bytes());
        Self {
            me,
            links: Links::new(me, identity.boot_id),
            asked: identity.reserved,
            identity,
            addresses: Vec::new(),
            network: OwnNetwork::default(),
            issuers: BTreeSet::new(),
            clock: (0, now),
            rng: ChaCha12Rng::from_seed(seed),
            counts: Counts::default(),
            now,
            behind_until: None,
            verified: None,
            ahead: Ahead::new(seed),
            off: None,
        }
    }

    /// Returns true if a rule is on. Outside the simulator, all rules are.
    pub(crate) fn is_on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// Returns how much longer answers take, judged by the lateness of this node's own timers. The
    /// node delays what can wait by that time. If it repeated requests that are under way, a
    /// machine that is too busy would never catch up.
    pub(crate) fn lag(&self) -> Duration {
        let until = self.behind_until.unwrap_or(self.now);
        until.saturating_duration_since(self.now)
    }

    /// Returns true if this node is behind, or was within this time.
    pub(crate) fn was_behind(&self, within: Duration) -> bool {
        self.behind_until.is_some_and(|until| self.now < until + within)
    }

    /// Takes what the driver says of the time of day, in seconds since 1970.
    pub(crate) fn set_clock(&mut self, seconds: u64) {
        self.clock = (seconds, self.now);
    }

    /// Shares verified records with the other states of a simulation.
    pub(crate) fn share(&mut self, verified: Arc<Verified>) {
        self.verified = Some(verified);
    }

    /// Forgets which records were verified together: they are those of one frame.
    pub(crate) fn end_of_event(&mut self) {
        self.ahead.clear();
    }

    /// Returns the time of day, in seconds since 1970, as [`InEvent::Clock`] gave it.
    pub(crate) fn unix_time(&self) -> u64 {
        let (given, at) = self.clock;
        given + self.now.saturating_duration_since(at).as_secs()
    }

    /// Makes this node one whose timers are late.
    #[cfg(test)]
    pub(crate) fn fall_behind(&mut self, lag: Duration) {
        self.behind_until = Some(self.now + lag);
    }

    /// A timer that was due at this time is served now.
    pub(crate) fn served(&mut self, due: Instant) {
        let late = self.now.saturating_duration_since(due);
        // A timer that is later than `MAX_LAG` shows that the node was stopped, not slow.
        if (LATE..MAX_LAG).contains(&late) {
            self.behind_until = self.behind_until.max(Some(self.now + (late * HOPS).min(MAX_LAG)));
        }
    }

    /// Parses a record. Its owner is only claimed, unless the record was verified before.
    pub(crate) fn open_record(&self, topic: &TopicId, bytes: &Bytes) -> Result<Opened, Error> {
        if let Some(verified) = &self.verified {
            return verified.open(topic, bytes);
        }
        match self.ahead.get(topic, bytes) {
            Some(signed) => Ok(Opened::Verified(signed)),
            None => Envelope::open(bytes).map(Opened::Unverified),
        }
    }

    /// Verifies the parsed records of one frame together. [`Self::open_record`] knows the result
    /// until the end of the event.
    pub(crate) fn verify_ahead(&mut self, topic: &TopicId, opened: Vec<Opened>) {
        let unverified: Vec<_> = opened.into_iter().filter_map(Opened::unverified).collect();
        if unverified.len() < 2 {
            return;
        }
        self.ahead.verify(topic, unverified);
        if let Some(verified) = &self.verified {
            self.ahead.records().for_each(|signed| {
                verified.keep(topic, signed);
            });
        }
    }

    /// Verifies a parsed record.
    pub(crate) fn verify_record(
        &mut self,
        topic: &TopicId,
        opened: Opened,
    ) -> Result<SignedRecord, Error> {
        // The simulator verifies a record once for all nodes, and counts what each would verify.
        self.counts.verifications += 1;
        let envelope = match opened {
            Opened::Verified(signed) => return Ok(signed),
            Opened::Unverified(envelope) => envelope,
        };
        let signed = envelope.verify(topic)?;
        Ok(match &self.verified {
            Some(verified) => verified.keep(topic, &signed),
            None => signed,
        })
    }

    /// Verifies a parsed accusation.
    pub(crate) fn verify_accusation(
        &self,
        topic: &TopicId,
        envelope: cose::Envelope,
    ) -> Result<Accusation, Error> {
        let Some(verified) = &self.verified else { return Accusation::verify(envelope, topic) };
        match verified.accusation(topic, &envelope.bytes) {
            Some(accusation) => Ok(accusation),
            None => Accusation::verify(envelope, topic)
                .map(|accusation| verified.keep_accusation(topic, accusation)),
        }
    }

    /// Takes the next sequence number, if it is reserved. Requests another reservation once less
    /// than half a block is left.
    pub(crate) fn next_sequence(&mut self) -> Option<u64> {
        let next = self.identity.sequence;
        let free = next < self.identity.reserved && next < MAX_SEQUENCE;
        if free {
            self.identity.sequence += 1;
        }
        debug_assert!(
            !free || self.identity.sequence <= self.identity.reserved,
            "a number that is used is reserved on disk"
        );
        let used = self.identity.sequence;
        let soon = (used + SEQUENCE_BLOCK / 2).min(MAX_SEQUENCE - 1);
        if soon >= self.identity.reserved && self.asked <= soon {
            self.asked = (used + SEQUENCE_BLOCK).min(MAX_SEQUENCE);
            self.links.out.push_back(OutEvent::ReserveSequences(self.asked));
        }
        free.then_some(next)
    }

    /// Uses only sequence numbers above this one from now on, because a record with our signature
    /// has it.
    pub(crate) fn jump_above(&mut self, sequence: u64) {
        let before = self.identity.sequence;
        self.identity.sequence = self.identity.sequence.max(sequence.saturating_add(1));
        debug_assert!(self.identity.sequence >= before, "own sequence numbers never fall");
    }

    /// Returns true if no sequence number is left for this key, because a record with one of the
    /// last was signed with it.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.identity.sequence >= MAX_SEQUENCE
    }

    /// Emits an event of a topic, unless it is about a peer that is kept out.
    pub(crate) fn emit(&mut self, topic: TopicId, event: TopicEvent) {
        let admits = |peer| self.links.access().admits(peer);
        if event.about_member().is_some_and(|record| !admits(&record.id)) {
            return;
        }
        self.links.out.push_back(OutEvent::Topic(topic, event));
    }
}
