//! Broadcasts of the application: sent, judged before they are told on, delivered at most once.
//!
//! Best effort. A broadcast goes to who is in the overlay; one that is sent before this node is in it
//! waits for a while. Membership goes its own way: broadcasts have a lane and budgets of their own.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Topic, overlay::Seen};
use crate::{
    broadcast::{Broadcast, MAX_BROADCAST, OF_AUTHOR, Window},
    budget::{Budget, Rate},
    error::Error,
    event::TopicEvent,
    id::EndpointId,
    state::Context,
    timers::Timer,
    wire::{decode_broadcast, encode_broadcast},
};

/// What a node takes of all authors: with it, Plumtree holds at most 34 MiB of broadcasts.
const OF_ALL: Rate =
    Rate { messages: (2000.0, 4000.0), bytes: (2.0 * 1024.0 * 1024.0, 4.0 * 1024.0 * 1024.0) };
/// What a node takes from one neighbor, repetitions included, before it looks at signatures.
pub(super) const OF_PEER: Rate =
    Rate { messages: (2000.0, 8000.0), bytes: (4.0 * 1024.0 * 1024.0, 8.0 * 1024.0 * 1024.0) };
/// Broadcasts that wait until this node is in the overlay, their bytes, and for how long: what the
/// author may say at once and while it settles, and less than others take of it at once.
const MAX_KEPT: usize = 320;
const MAX_KEPT_BYTES: usize = 1280 * 1024;
const KEEP: Duration = Duration::from_secs(10);
/// Whoever enters the overlay is known to others before its first broadcast reaches them.
const SETTLE: Duration = Duration::from_millis(250);
/// Authors that are remembered beyond the capacity of the book, before those are forgotten of whom
/// nothing is held.
const MORE_AUTHORS: usize = 1024;

#[derive(Debug)]
pub(super) struct Broadcasts {
    /// How many this node made: the next one's number.
    count: u64,
    kept: VecDeque<(Instant, Bytes)>,
    /// Since when this node has neighbors.
    attached: Option<Instant>,
    pub(super) seen: Seen,
    authors: BTreeMap<EndpointId, Author>,
    of_all: Budget,
}

#[derive(Debug)]
struct Author {
    boot_id: u64,
    heard: Window,
    budget: Budget,
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
        }
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        [("broadcasts kept", self.kept.len()), ("authors", self.authors.len())]
    }
}

impl Topic {
    /// Sends data to all members.
    pub(crate) fn broadcast(&mut self, data: &[u8], cx: &mut Context) -> Result<(), Error> {
        if data.len() > MAX_BROADCAST {
            let reason = format!("is {} bytes, the limit is {MAX_BROADCAST}", data.len());
            return Err(Error::Invalid { field: "data", reason });
        }
        if self.leaving.is_some() {
            return Err(Error::NotJoined(self.id));
        }
        let number = self.broadcasts.count;
        self.broadcasts.count += 1;
        cx.counts.broadcasts_sent += 1;
        let signed = Broadcast::sign(&cx.identity.key, &self.id, cx.identity.boot_id, number, data);
        let content = encode_broadcast(&signed);
        let kept = &mut self.broadcasts.kept;
        let mut bytes =
            kept.iter().map(|(_, content)| content.len()).sum::<usize>() + content.len();
        while kept.len() >= MAX_KEPT || bytes > MAX_KEPT_BYTES {
            let Some((_, oldest)) = kept.pop_front() else { break };
            bytes -= oldest.len();
            cx.links.dropped("broadcasts without a neighbor", None);
        }
        kept.push_back((cx.now + KEEP, content));
        self.on_broadcasts(cx);
        Ok(())
    }

    /// Sends what waits for a neighbor, if there is one; forgets what waited for too long.
    pub(super) fn on_broadcasts(&mut self, cx: &mut Context) {
        let settled = self.broadcasts.attached.map(|at| at + SETTLE);
        if settled.is_some_and(|at| at <= cx.now) {
            for (_, content) in std::mem::take(&mut self.broadcasts.kept) {
                self.broadcasts.seen.insert(&content, cx.now);
                self.overlay.broadcast(content, cx.now);
            }
            return self.drive_overlay(cx);
        }
        while self.broadcasts.kept.front().is_some_and(|(until, _)| *until <= cx.now) {
            self.broadcasts.kept.pop_front();
            cx.links.dropped("broadcasts without a neighbor", None);
        }
        if let Some((until, _)) = self.broadcasts.kept.front() {
            self.timers.set(Timer::Broadcast, settled.unwrap_or(*until));
        }
    }

    /// Whether this node has neighbors may have changed.
    pub(super) fn broadcasts_attached(&mut self, cx: &mut Context) {
        if self.overlay.neighbors().is_empty() {
            self.broadcasts.attached = None;
        } else if self.broadcasts.attached.is_none() {
            self.broadcasts.attached = Some(cx.now);
        }
        if !self.broadcasts.kept.is_empty() {
            self.on_broadcasts(cx);
        }
    }

    /// Verifies a broadcast and delivers it: whether it is to be told on. One that does not verify
    /// closes the link: honest peers verify before they tell on.
    pub(super) fn judge_broadcast(
        &mut self,
        content: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> bool {
        let verdict = decode_broadcast(content)
            .and_then(|signed| Broadcast::open(&signed))
            .and_then(|envelope| self.verify_broadcast(&envelope, from, cx));
        let broadcast = match verdict {
            Ok(Ok(broadcast)) => broadcast,
            Ok(Err(what)) => {
                cx.links.dropped(what, Some(from));
                return false;
            }
            Err(error) => {
                self.refuse(&error, from, cx);
                return false;
            }
        };
        self.broadcasts.seen.insert(content, cx.now);
        cx.counts.broadcasts_received += 1;
        let Broadcast { author, data, .. } = broadcast;
        cx.emit(self.id, TopicEvent::Broadcast { author, data });
        true
    }

    /// A broadcast that is new, or why it is dropped.
    fn verify_broadcast(
        &mut self,
        envelope: &crate::cose::Envelope,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<Result<Broadcast, &'static str>, Error> {
        let author = envelope.claimed;
        if author == self.me {
            return Ok(Err("own broadcasts that came back"));
        }
        let Some(boot_id) = self.book.get(&author).map(|live| live.signed.record().boot_id) else {
            return Ok(Err("broadcasts of unknown members"));
        };
        let broadcast = Broadcast::verify(envelope, &self.id)?;
        if broadcast.boot_id != boot_id {
            tracing::debug!(topic = %self.id.fmt_short(), author = %author.fmt_short(), peer = %from.fmt_short(), "a broadcast of another life");
            return Ok(Err("broadcasts of another life of their author"));
        }
        let now = cx.now;
        self.forget_authors();
        let fresh =
            || Author { boot_id, heard: Window::default(), budget: Budget::new(OF_AUTHOR, now) };
        let known = self.broadcasts.authors.entry(author).or_insert_with(fresh);
        if known.boot_id != boot_id {
            // The budget stays: a restart is no way round it.
            known.boot_id = boot_id;
            known.heard = Window::default();
        }
        if !known.heard.is_new(broadcast.number) {
            return Ok(Err("broadcasts that were heard before"));
        }
        let size = broadcast.data.len();
        if !known.budget.take(size, now) {
            return Ok(Err("broadcasts over the budget of an author"));
        }
        if !self.broadcasts.of_all.take(size, now) {
            return Ok(Err("broadcasts over the budget of all authors"));
        }
        known.heard.insert(broadcast.number);
        Ok(Ok(broadcast))
    }

    /// Makes room: of whom nothing is held any more, nothing is accepted either.
    fn forget_authors(&mut self) {
        let authors = &mut self.broadcasts.authors;
        if authors.len() > 2 * self.config.capacity + MORE_AUTHORS {
            let book = &self.book;
            authors.retain(|id, _| book.get(id).is_some() || book.buried(id).is_some());
        }
    }
}
