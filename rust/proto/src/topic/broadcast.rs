//! Broadcasts of the application: they are verified before they are forwarded, and delivered at
//! most once.
//!
//! Delivery is best effort. A broadcast goes to the members that are in the overlay. One that is
//! sent before this node is in the overlay itself waits for up to [`KEEP`]. A flood of broadcasts
//! does not harm membership, because broadcasts have a lane and budgets of their own.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    effect::{Effect, Effects},
    scope::Scope,
    seen::Seen,
};
use crate::{
    broadcast::{Broadcast, MAX_BROADCAST, OF_AUTHOR, Window},
    budget::{Budget, Rate},
    channel::Channel,
    cose::Envelope,
    drops::DropReason,
    error::Error,
    event::TopicEvent,
    id::EndpointId,
    wire::{decode_broadcast, encode_broadcast},
};

/// What a node accepts from all authors together: with it, Plumtree holds at most 34 MiB of
/// broadcasts.
const OF_ALL: Rate =
    Rate { messages: (2000.0, 4000.0), bytes: (2.0 * 1024.0 * 1024.0, 4.0 * 1024.0 * 1024.0) };
/// What a node accepts from one neighbor, repetitions included, before it looks at signatures.
pub(super) const OF_PEER: Rate =
    Rate { messages: (2000.0, 8000.0), bytes: (4.0 * 1024.0 * 1024.0, 8.0 * 1024.0 * 1024.0) };
/// The most broadcasts that wait until this node is in the overlay, the most bytes of them, and how
/// long each waits. They hold what an author may send at once and while its node settles. That is
/// less than others accept from it at once.
const MAX_KEPT: usize = 320;
const MAX_KEPT_BYTES: usize = 1280 * 1024;
const KEEP: Duration = Duration::from_secs(10);
/// A node that enters the overlay waits this long, so that others know it before its first
/// broadcast reaches them: they drop broadcasts of unknown members.
const SETTLE: Duration = Duration::from_millis(250);
/// This many authors are remembered beyond the capacity of the book. Then authors are forgotten of
/// whom the book holds neither a record nor a tombstone.
const MORE_AUTHORS: usize = 1024;

#[derive(Debug)]
pub(super) struct Broadcasts {
    /// How many broadcasts this node made, which is the number of the next one.
    count: u64,
    kept: VecDeque<(Instant, Bytes)>,
    /// When this node got its first neighbor, if it has one.
    attached: Option<Instant>,
    /// Contents that passed recently, so that they are judged once.
    seen: Seen,
    authors: BTreeMap<EndpointId, Author>,
    of_all: Budget,
    /// When the next broadcast that waits is sent or given up.
    timer: Option<Instant>,
}

/// What is remembered of a member that broadcasts.
#[derive(Debug)]
struct Author {
    boot_id: u64,
    heard: Window,
    budget: Budget,
}

/// Why a broadcast is not delivered.
#[derive(Debug)]
enum Refusal {
    /// An honest peer may have sent it. It is counted under this name, and not forwarded.
    Dropped(DropReason),
    /// An honest peer does not forward it, so the link is closed.
    Invalid(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Invalid(error)
    }
}

impl Broadcasts {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            count: 0,
            kept: VecDeque::new(),
            attached: None,
            seen: Seen::default(),
            authors: BTreeMap::new(),
            of_all: Budget::new(OF_ALL, now),
            timer: None,
        }
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        [("broadcasts kept", self.kept.len()), ("authors", self.authors.len())]
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// Sends data to all members, now or once this node is in the overlay.
    pub(super) fn send(
        &mut self,
        channel: Option<&Channel>,
        data: &[u8],
        scope: &mut Scope,
    ) -> Result<Effects, Error> {
        if data.len() > MAX_BROADCAST {
            let reason = format!("is {} bytes, the limit is {MAX_BROADCAST}", data.len());
            return Err(Error::Invalid { field: "data", reason });
        }
        if scope.view.leaving {
            return Err(Error::NotJoined(scope.topic));
        }
        if scope.config.observer {
            return Err(Error::Observer("broadcast"));
        }
        let number = self.count;
        self.count += 1;
        scope.cx.counts.broadcasts_sent += 1;
        let identity = &scope.cx.identity;
        let (key, boot_id) = (&identity.key, identity.boot_id);
        let signed = Broadcast::sign_for(channel, key, &scope.topic, boot_id, number, data);
        self.keep(encode_broadcast(&signed), scope);
        Ok(self.send_kept(scope))
    }

    /// Adds a broadcast to those that wait. The oldest ones make room for it.
    fn keep(&mut self, content: Bytes, scope: &mut Scope) {
        let mut bytes = self.kept_bytes() + content.len();
        while self.kept.len() >= MAX_KEPT || bytes > MAX_KEPT_BYTES {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            bytes -= oldest.len();
            scope.dropped(DropReason::BroadcastsWithoutANeighbor, None);
        }
        debug_assert!(
            self.kept.back().is_none_or(|(until, _)| *until <= scope.now() + KEEP),
            "the oldest comes first"
        );
        self.kept.push_back((scope.now() + KEEP, content));
        debug_assert!(
            self.kept.len() <= MAX_KEPT && self.kept_bytes() <= MAX_KEPT_BYTES,
            "a node that never enters the overlay must not collect broadcasts without end"
        );
    }

    fn kept_bytes(&self) -> usize {
        self.kept.iter().map(|(_, content)| content.len()).sum()
    }

    pub(super) fn on_timeout(&mut self, scope: &mut Scope) -> Effects {
        if self.timer.is_none_or(|at| at > scope.now()) {
            return Effects::none();
        }
        self.timer = None;
        self.send_kept(scope)
    }

    /// Sends the broadcasts that wait, if this node is settled in the overlay. Otherwise gives up
    /// those that waited for [`KEEP`].
    fn send_kept(&mut self, scope: &mut Scope) -> Effects {
        let mut effects = Effects::none();
        let now = scope.now();
        let settled = self.attached.map(|at| at + SETTLE);
        if settled.is_some_and(|at| at <= now) {
            for (_, content) in self.kept.drain(..) {
                self.seen.insert(&content, now);
                effects.push(Effect::Broadcast(content));
            }
            return effects;
        }
        while self.kept.front().is_some_and(|(until, _)| *until <= now) {
            self.kept.pop_front();
            scope.dropped(DropReason::BroadcastsWithoutANeighbor, None);
        }
        if let Some((until, _)) = self.kept.front() {
            self.timer = Some(settled.unwrap_or(*until));
        }
        effects
    }

    /// A neighbor came or went, perhaps the first or the last one.
    pub(super) fn on_neighbors(&mut self, scope: &mut Scope) -> Effects {
        debug_assert!(!scope.config.observer || scope.view.neighbors.is_empty(), "it has a source");
        if scope.view.neighbors.is_empty() {
            self.attached = None;
        } else if self.attached.is_none() {
            self.attached = Some(scope.now());
        }
        if self.kept.is_empty() { Effects::none() } else { self.send_kept(scope) }
    }

    /// Returns true if this content passed recently.
    pub(super) fn has_seen(&mut self, content: &[u8], now: Instant) -> bool {
        self.seen.contains(content, now)
    }

    /// Returns the length of a content that passed recently, by its hash.
    pub(super) fn length(&self, hash: &[u8; 32]) -> Option<usize> {
        self.seen.length(hash)
    }

    /// Verifies a broadcast and delivers it. Returns true if the overlay has to forward it. If it
    /// does not verify, the link is closed, because honest peers verify before they forward.
    pub(super) fn judge(&mut self, content: &Bytes, from: EndpointId, scope: &mut Scope) -> bool {
        let verdict = decode_broadcast(content)
            .and_then(|signed| Broadcast::open(&signed))
            .map_err(Refusal::from)
            .and_then(|envelope| self.verify(&envelope, from, scope));
        let broadcast = match verdict {
            Ok(broadcast) => broadcast,
            Err(Refusal::Dropped(what)) => {
                scope.dropped(what, Some(from));
                return false;
            }
            Err(Refusal::Invalid(error)) => {
                scope.refuse(&error, from);
                return false;
            }
        };
        self.seen.insert(content, scope.now());
        scope.cx.counts.broadcasts_received += 1;
        let Broadcast { author, channel, data, .. } = broadcast;
        if scope.book.admits(&author) {
            scope.emit(TopicEvent::Broadcast { author, channel, data });
        } else {
            // It is forwarded, because other members may get it only through this node.
            scope.dropped(DropReason::BroadcastsOfPeersThatAreKeptOut, Some(author));
        }
        true
    }

    /// Returns a broadcast that is new and within the budgets.
    fn verify(
        &mut self,
        envelope: &Envelope,
        from: EndpointId,
        scope: &Scope,
    ) -> Result<Broadcast, Refusal> {
        let author = envelope.claimed;
        if author == scope.me() {
            return Err(Refusal::Dropped(DropReason::OwnBroadcastsThatCameBack));
        }
        let Some(member) = scope.book.get_with_hidden(&author) else {
            return Err(Refusal::Dropped(DropReason::BroadcastsOfUnknownMembers));
        };
        let boot_id = member.signed.record().boot_id;
        let broadcast = Broadcast::verify(envelope, &scope.topic)?;
        if broadcast.boot_id != boot_id {
            tracing::debug!(
                topic = %scope.topic.fmt_short(),
                author = %author.fmt_short(),
                peer = %from.fmt_short(),
                "a broadcast of another life"
            );
            return Err(Refusal::Dropped(DropReason::BroadcastsOfAnotherLifeOfTheirAuthor));
        }
        let now = scope.now();
        self.forget_authors(scope);
        let fresh =
            || Author { boot_id, heard: Window::default(), budget: Budget::new(OF_AUTHOR, now) };
        let known = self.authors.entry(author).or_insert_with(fresh);
        if known.boot_id != boot_id {
            // The budget stays, because a restart must not renew it.
            known.boot_id = boot_id;
            known.heard = Window::default();
        }
        if !known.heard.is_new(broadcast.number) {
            return Err(Refusal::Dropped(DropReason::BroadcastsThatWereHeardBefore));
        }
        let size = broadcast.data.len();
        if !known.budget.take(size, now) {
            return Err(Refusal::Dropped(DropReason::BroadcastsOverTheBudgetOfAnAuthor));
        }
        if !self.of_all.take(size, now) {
            return Err(Refusal::Dropped(DropReason::BroadcastsOverTheBudgetOfAllAuthors));
        }
        debug_assert_eq!(known.boot_id, broadcast.boot_id, "numbers are those of one life");
        known.heard.insert(broadcast.number);
        Ok(broadcast)
    }

    /// Forgets authors that the book has forgotten. Nothing is accepted from them, so their windows
    /// are not needed.
    fn forget_authors(&mut self, scope: &Scope) {
        if self.authors.len() > 2 * scope.config.capacity + MORE_AUTHORS {
            let book = &scope.book;
            self.authors.retain(|id, _| {
                book.get_with_hidden(id).is_some() || book.tombstone_since(id).is_some()
            });
        }
    }
}
