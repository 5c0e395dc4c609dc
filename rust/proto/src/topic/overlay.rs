//! The guard between the network and the overlay, and the overlay's place in a topic.
//!
//! Nothing from the network reaches the overlay's state machines but through here: decoded into our
//! own frames, its lists and hops clamped by `wire`, its records verified, within a budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Timer, Topic, broadcast,
    scope::{Scope, spread},
    seen::IN_FLIGHT,
};
use crate::{
    book::Applied,
    budget::{Budget, Rate},
    event::TopicEvent,
    id::EndpointId,
    links::Asked,
    overlay::Output,
    state::Context,
    timers::jitter,
    wire::{Item, MAX_CONTENT, OverlayFrame, TopicFrame, decode_content, is_broadcast},
};

/// First and largest delay between two looks whether the active view is full.
pub(super) const VIEW_MIN: Duration = Duration::from_millis(100);
const VIEW_MAX: Duration = Duration::from_mins(5);
/// With this many neighbors the overlay is sound: no hurry to find more.
const VIEW_SOUND: usize = 3;
/// Members suggested to the passive view at a time, as in a shuffle (`HyParView`: 3 + 4).
const SUGGESTED: usize = 7;
/// First and largest delay between two attempts to enter the overlay.
const JOIN_WAIT: Duration = Duration::from_millis(300);
const JOIN_MIN: Duration = Duration::from_secs(1);
const JOIN_MAX: Duration = Duration::from_secs(10);
/// Frames that wait for a link to one peer.
const MAX_WAITING: usize = 4;
/// Neighbors that no request of others pushes out: first those that this node asked itself, then
/// those of the longest standing. At most half of the view.
const ANCHORS: usize = 2;
/// Requests that push a neighbor out of a full view: of one peer, and of all.
const PUSHES_OF_PEER: Rate = Rate { messages: (0.2, 4.0), bytes: (1.0, 1.0) };
const PUSHES: Rate = Rate { messages: (16.0, 64.0), bytes: (1.0, 1.0) };
/// A neighbor that asked to be one and said nothing for this long goes before all others when room
/// is needed; after [`SILENT_FOR`] it goes anyhow.
const SILENT_AFTER: Duration = Duration::from_secs(5);
const SILENT_FOR: Duration = Duration::from_secs(30);
/// How often silent neighbors are looked for, while there are any.
const SILENT_LOOK: Duration = Duration::from_secs(10);
/// With all neighbors younger than this, a node that was in the overlay before may be surrounded.
const REPLACED: Duration = Duration::from_mins(1);
/// A newcomer whose first request finds no link in this time asks a member that it is linked with.
const JOIN_FALLBACK: Duration = Duration::from_millis(250);
/// Of members suggested, this many are linked already, if there are so many.
const SUGGESTED_LINKED: usize = 3;

/// What one peer may send to repair broadcasts: whatever floods the overlay, what was lost is
/// still announced and asked for.
const REPAIR_OF_PEER: Rate =
    Rate { messages: (2000.0, 8000.0), bytes: (4.0 * 1024.0 * 1024.0, 16.0 * 1024.0 * 1024.0) };

/// What one peer may send to the overlay, but for broadcasts of applications.
const OF_PEER: Rate =
    Rate { messages: (500.0, 4000.0), bytes: (512.0 * 1024.0, 4.0 * 1024.0 * 1024.0) };

/// What one peer may send to the overlay.
#[derive(Debug)]
pub(super) struct Budgets {
    frames: Budget,
    repair: Budget,
    broadcasts: Budget,
    /// Requests to be a neighbor that push another one out.
    pushes: Budget,
    strangers_told: Option<Instant>,
}

impl Budgets {
    fn new(now: Instant) -> Self {
        Self {
            frames: Budget::new(OF_PEER, now),
            repair: Budget::new(REPAIR_OF_PEER, now),
            pushes: Budget::new(PUSHES_OF_PEER, now),
            broadcasts: Budget::new(broadcast::OF_PEER, now),
            strangers_told: None,
        }
    }

    /// Whether to tell a stranger now that it is none of our neighbors.
    fn tell_stranger(&mut self, now: Instant) -> bool {
        let due = self
            .strangers_told
            .is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1));
        if due {
            self.strangers_told = Some(now);
        }
        due
    }
}

/// What is known of a neighbor, to choose one that gives way.
#[derive(Debug)]
struct Place {
    since: Instant,
    /// This node asked it, not the other way round.
    requested: bool,
    /// It passed something on, or compared books.
    vocal: bool,
}

/// A peer that is a neighbor, and why.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_peer: BTreeMap<EndpointId, Place>,
    /// A peer that answers a request of ours, while its answer is handled.
    answers: Option<EndpointId>,
    /// Requests of all that push a neighbor out.
    pushes: Option<Budget>,
    /// The member that a newcomer asked to let it in, and that was not linked.
    entrance: Option<EndpointId>,
    /// When it was last said that all neighbors were replaced.
    warned: Option<Instant>,
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// A neighbor passed something on.
    pub(super) fn heard(&mut self, peer: &EndpointId) {
        if let Some(place) = self.by_peer.get_mut(peer) {
            place.vocal = true;
        }
    }

    fn up(&mut self, peer: EndpointId, now: Instant) {
        let requested = self.answers == Some(peer);
        self.by_peer.insert(peer, Place { since: now, requested, vocal: false });
    }

    /// Those that may be pushed out, the youngest last.
    fn replaceable(&self, neighbors: usize) -> Vec<(&EndpointId, &Place)> {
        let mut places: Vec<_> = self.by_peer.iter().collect();
        places.sort_by_key(|(_, place)| (!place.requested, place.since));
        let mut rest = places.split_off(ANCHORS.min(neighbors / 2).min(places.len()));
        rest.sort_by_key(|(_, place)| place.since);
        rest
    }

    /// The youngest that said nothing for this long, and may be pushed out.
    fn silent(&self, neighbors: usize, time: Duration, now: Instant) -> Option<EndpointId> {
        let silent = |(_, place): &(&EndpointId, &Place)| {
            !place.vocal && now.saturating_duration_since(place.since) >= time
        };
        self.replaceable(neighbors).into_iter().rfind(silent).map(|(peer, _)| *peer)
    }

    fn may_push(&mut self, now: Instant) -> bool {
        self.pushes.get_or_insert_with(|| Budget::new(PUSHES, now)).take(0, now)
    }
}

impl Topic {
    pub(super) fn on_overlay(&mut self, peer: EndpointId, frame: OverlayFrame, cx: &mut Context) {
        // What a frame costs us and others, in bytes: joins walk through the overlay and cause
        // dials, a graft asks for a whole broadcast, an announced id is kept and asked for.
        let size = match &frame {
            OverlayFrame::Gossip { content, .. } => content.len(),
            OverlayFrame::IHave(list) => list.len() * 256,
            OverlayFrame::Join(_) | OverlayFrame::Neighbor { .. } => 64 * 1024,
            OverlayFrame::ForwardJoin { .. } => 4 * 1024,
            OverlayFrame::Graft { id: Some(_), .. } => MAX_CONTENT,
            OverlayFrame::Graft { .. } | OverlayFrame::Prune | OverlayFrame::Disconnect { .. } => 0,
        };
        let budgets = self.overlay_budgets.entry(peer).or_insert_with(|| Budgets::new(cx.now));
        let (budget, what) = match &frame {
            OverlayFrame::Gossip { content, .. } if is_broadcast(content) => {
                (&mut budgets.broadcasts, "broadcasts over the budget of a peer")
            }
            OverlayFrame::IHave(_) | OverlayFrame::Graft { .. } | OverlayFrame::Prune => {
                (&mut budgets.repair, "repair of broadcasts over the budget of a peer")
            }
            _ => (&mut budgets.frames, "overlay frames over the budget of a peer"),
        };
        if !budget.take(size, cx.now) {
            cx.links.dropped(what, Some(peer));
            return;
        }
        if let Some((about, frame)) = self.judge(peer, frame, cx) {
            self.overlay.receive(peer, about, frame, cx.now);
            self.drive_overlay(cx);
        }
        self.places.answers = None;
    }

    /// Returns true if the request of a peer to be our neighbor may reach the overlay, which would
    /// push out anybody: room for it is made here, so that it never does.
    fn may_become_neighbor(&mut self, peer: EndpointId, urgent: bool, cx: &mut Context) -> bool {
        let asked = self.overlay.is_asked(&peer) || self.places.entrance == Some(peer);
        if asked {
            self.places.answers = Some(peer);
        }
        let most = self.config.neighbors;
        let neighbors = self.overlay.neighbors();
        if neighbors.contains(&peer) || neighbors.len() < most {
            return true;
        }
        let silent = self.places.silent(most, SILENT_AFTER, cx.now);
        if !urgent && (asked || silent.is_none()) {
            // The overlay says that it is full.
            return true;
        }
        let budgets = self.overlay_budgets.entry(peer).or_insert_with(|| Budgets::new(cx.now));
        let within = asked || (budgets.pushes.take(0, cx.now) && self.places.may_push(cx.now));
        let victim = if within { silent.or_else(|| self.choose_victim(cx)) } else { None };
        let Some(victim) = victim else {
            cx.links.dropped("requests to be neighbors over the budget", Some(peer));
            let frame = TopicFrame::Overlay(OverlayFrame::Disconnect { alive: true });
            cx.links.send(&peer, self.id, frame, cx.now);
            return false;
        };
        self.overlay.evict(victim, cx.now);
        self.drive_overlay(cx);
        true
    }

    /// Of the neighbors that are no anchors, the youngest that said nothing yet, or else anyone.
    fn choose_victim(&self, cx: &mut Context) -> Option<EndpointId> {
        let silent = self.places.silent(self.config.neighbors, Duration::ZERO, cx.now);
        silent.or_else(|| {
            use rand::seq::IteratorRandom;
            let replaceable = self.places.replaceable(self.config.neighbors);
            replaceable.into_iter().map(|(peer, _)| *peer).choose(&mut cx.rng)
        })
    }

    /// A neighbor that forwards nothing is replaced, if there is somebody else.
    fn replace_silent(&mut self, cx: &mut Context) {
        let most = self.config.neighbors;
        if self.book.len() > self.overlay.neighbors().len()
            && let Some(peer) = self.places.silent(most, SILENT_FOR, cx.now)
        {
            cx.links.dropped("neighbors that forwarded nothing", Some(peer));
            self.contacts.avoid(peer, scope!(self, cx));
            self.overlay.evict(peer, cx.now);
            self.drive_overlay(cx);
        } else if self.places.silent(most, Duration::ZERO, cx.now).is_some() {
            self.timers.set_by(Timer::View, cx.now + SILENT_LOOK);
        }
    }

    /// All neighbors are new: what they deliver is not to be trusted alone, so members of long
    /// standing are asked as well.
    fn look_for_replacement(&mut self, cx: &mut Context) {
        let young = |at: Instant| cx.now.saturating_duration_since(at) < REPLACED;
        let old = self.attached_since.is_some_and(|at| !young(at));
        let all = self.places.len() > ANCHORS
            && self.places.by_peer.values().all(|place| young(place.since));
        if old && all && !self.places.warned.is_some_and(young) {
            self.places.warned = Some(cx.now);
            tracing::warn!(topic = %self.id.fmt_short(), "all neighbors were replaced within a minute: asking members of long standing");
            cx.links.dropped("views that were replaced within a minute", None);
            let neighbors = self.overlay.neighbors().clone();
            let mut members = scope!(self, cx).random_members(10 * SUGGESTED, &neighbors);
            members.sort_by_key(|id| !self.book.is_established(id, cx.now));
            members.truncate(SUGGESTED);
            self.overlay.suggest(members, cx.now);
        }
    }

    /// Members that are linked and could let this node into the overlay, or be its neighbors.
    fn linked_members(
        &self,
        count: usize,
        without: &BTreeSet<EndpointId>,
        cx: &mut Context,
    ) -> Vec<EndpointId> {
        use rand::seq::IteratorRandom;
        let fits = |id: &&EndpointId| {
            !without.contains(id)
                && self.book.get(id).is_some()
                && cx.links.current(id).is_some()
                && !self.peers.is_avoided(id, cx.now)
                && !self.book.is_suspected(id)
        };
        let linked: Vec<_> = self.peers.linked().iter().filter(fits).copied().collect();
        linked.into_iter().sample(&mut cx.rng, count)
    }

    /// Members to be suggested as neighbors: a book may be full of some that nobody ever reached,
    /// so that linked ones come first.
    fn suggestions(&self, without: &BTreeSet<EndpointId>, cx: &mut Context) -> Vec<EndpointId> {
        let mut members = self.linked_members(SUGGESTED_LINKED, without, cx);
        let mut without = without.clone();
        without.extend(&members);
        let others = self.book.others().filter(|id| {
            !without.contains(id)
                && !self.peers.is_avoided(id, cx.now)
                && !self.book.is_suspected(id)
        });
        {
            use rand::seq::IteratorRandom;
            members.extend(others.sample(&mut cx.rng, SUGGESTED - members.len()));
        }
        members
    }

    /// What of a frame may reach the overlay, and whom its record is about.
    fn judge(
        &mut self,
        peer: EndpointId,
        frame: OverlayFrame,
        cx: &mut Context,
    ) -> Option<(EndpointId, OverlayFrame)> {
        let is_neighbor = self.overlay.neighbors().contains(&peer);
        match frame {
            OverlayFrame::Join(record) => {
                let record = self.introduced(peer, &record, peer, cx)?;
                let may = self.may_become_neighbor(peer, true, cx);
                may.then_some((peer, OverlayFrame::Join(record)))
            }
            OverlayFrame::Neighbor { high, record } => {
                let record = self.introduced(peer, &record, peer, cx)?;
                let may = self.may_become_neighbor(peer, high, cx);
                may.then_some((peer, OverlayFrame::Neighbor { high, record }))
            }
            OverlayFrame::Disconnect { .. } => Some((peer, frame)),
            _ if !is_neighbor => {
                self.reject_stranger(peer, cx);
                None
            }
            OverlayFrame::ForwardJoin { ttl, record } => {
                let about = cx.open_record(&self.id, &record).ok()?.claimed();
                let record = self.introduced(about, &record, peer, cx)?;
                (about != self.me).then_some((about, OverlayFrame::ForwardJoin { ttl, record }))
            }
            OverlayFrame::Gossip { round: None, .. } => {
                // Nobody says it in version 1, and the overlay would not pass it on.
                cx.links.dropped("broadcasts to neighbors only", Some(peer));
                None
            }
            OverlayFrame::Gossip { content, .. } if self.has_seen(&content, cx.now) => {
                // What Plumtree does with a duplicate, without a look at its content.
                let prune = TopicFrame::Overlay(OverlayFrame::Prune);
                cx.links.send(&peer, self.id, prune, cx.now);
                Some((peer, OverlayFrame::Prune))
            }
            OverlayFrame::Gossip { round, content } => {
                let fresh = if is_broadcast(&content) {
                    self.judge_broadcast(&content, peer, cx)
                } else {
                    self.judge_content(&content, peer, cx)?
                };
                fresh.then_some((peer, OverlayFrame::Gossip { round, content }))
            }
            OverlayFrame::Prune | OverlayFrame::Graft { .. } | OverlayFrame::IHave(_) => {
                Some((peer, frame))
            }
        }
    }

    /// A peer that thinks it is our neighbor, and is not, is told so, but not for each frame.
    fn reject_stranger(&mut self, peer: EndpointId, cx: &mut Context) {
        let budget = self.overlay_budgets.entry(peer).or_insert_with(|| Budgets::new(cx.now));
        if budget.tell_stranger(cx.now) {
            let frame = TopicFrame::Overlay(OverlayFrame::Disconnect { alive: true });
            cx.links.send(&peer, self.id, frame, cx.now);
        }
    }

    /// Whether this very content passed of late.
    fn has_seen(&mut self, content: &[u8], now: Instant) -> bool {
        if is_broadcast(content) {
            self.broadcasts.has_seen(content, now)
        } else {
            self.dissemination.has_seen(content, now)
        }
    }

    /// The record that introduces a node to the overlay: the best one held of it, once it is in the
    /// book. `None` where it is refused, or gone.
    fn introduced(
        &mut self,
        about: EndpointId,
        record: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> Option<Bytes> {
        let (id, _) = self.learn(record, Duration::ZERO, from, cx).ok()?;
        if id != about {
            cx.links.dropped("introductions with another's record", Some(from));
            return None;
        }
        self.book.get(&about).map(|live| live.signed.bytes().clone())
    }

    /// Verifies and applies the content of a broadcast. `Some(false)`: nothing in it is new, or of
    /// late, so it is a replay and goes no further.
    fn judge_content(
        &mut self,
        content: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> Option<bool> {
        let items = match decode_content(content) {
            Ok(items) => items,
            Err(error) => {
                tracing::debug!(topic = %self.id.fmt_short(), peer = %from.fmt_short(), %error, "unjudgeable broadcast");
                cx.links.dropped("broadcasts that cannot be judged", Some(from));
                return None;
            }
        };
        let records = items.iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            Item::Accusation(_) => None,
        });
        self.verify_ahead(records, from, cx);
        let mut fresh = false;
        for item in &items {
            let record = match item {
                Item::Record(record) => record,
                Item::Accusation(bytes) => {
                    fresh |= self.judge_accusation(bytes, from, true, cx).ok()?;
                    continue;
                }
            };
            let (id, applied) = self.learn(record, Duration::ZERO, from, cx).ok()?;
            self.dissemination.overheard(&id, matches!(applied, Applied::Stale));
            fresh |= match applied {
                Applied::Same => id == self.me || self.is_recent(&id, cx.now),
                other => other.is_news(),
            };
        }
        if fresh {
            self.dissemination.saw(content, cx.now);
        } else {
            cx.links.dropped("broadcasts without anything new", Some(from));
        }
        Some(fresh)
    }

    fn is_recent(&self, id: &EndpointId, now: Instant) -> bool {
        let received = self.book.received(id).or(self.book.buried(id));
        received.is_some_and(|at| now.saturating_duration_since(at) < IN_FLIGHT)
    }

    /// Carries out what the overlay wants.
    pub(super) fn drive_overlay(&mut self, cx: &mut Context) {
        self.overlay.lag = cx.lag();
        loop {
            let outputs = self.overlay.poll();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Send(peer, frame) => self.send_overlay(peer, frame, cx),
                    Output::Up(peer) => self.on_neighbor_up(peer, cx),
                    Output::Down(peer) => self.on_neighbor_down(peer, cx),
                }
            }
        }
    }

    /// Only a request to become neighbors may cause a dial, and only to who is in the book.
    fn send_overlay(&mut self, peer: EndpointId, frame: OverlayFrame, cx: &mut Context) {
        if cx.links.current(&peer).is_some() {
            cx.links.send(&peer, self.id, TopicFrame::Overlay(frame), cx.now);
            return;
        }
        let asks = matches!(frame, OverlayFrame::Join(_) | OverlayFrame::Neighbor { .. });
        if !asks || self.leave.is_begun() || self.peers.is_avoided(&peer, cx.now) {
            return;
        }
        let Some(live) = self.book.get(&peer) else { return };
        let addresses = live.signed.record().addresses.clone();
        let trusted = self.peers.is_trusted(&peer, &self.book, cx.now);
        if cx.links.ask(peer, &addresses, trusted, cx.now) == Asked::Dialing {
            let waiting = self.overlay_waiting.entry(peer).or_default();
            if waiting.len() < MAX_WAITING {
                waiting.push(frame);
            }
        }
    }

    fn on_neighbor_up(&mut self, peer: EndpointId, cx: &mut Context) {
        tracing::debug!(topic = %self.id.fmt_short(), peer = %peer.fmt_short(), "neighbor up");
        cx.emit(self.id, TopicEvent::NeighborUp(peer));
        cx.links.touch(&peer, self.config.link_idle, cx.now);
        self.syncs.forget_newcomer(&peer);
        self.places.up(peer, cx.now);
        self.look_for_replacement(cx);
        self.detector.neighbor_up(peer, scope!(self, cx));
        self.on_neighbors(cx);
        // A first node has nobody to join.
        if self.join_attempts > 0 || self.syncs.is_untried() {
            self.on_attached(cx);
        }
        self.dissemination.neighbor_up(scope!(self, cx));
        self.syncs.neighbor_up(scope!(self, cx));
        self.look_at_view(cx);
    }

    fn on_attached(&mut self, cx: &mut Context) {
        if self.attached_since.is_none() {
            self.attached_since = Some(cx.now);
            self.timers.clear(Timer::OverlayJoin);
            self.syncs.on_attached(scope!(self, cx));
        }
    }

    fn on_neighbor_down(&mut self, peer: EndpointId, cx: &mut Context) {
        tracing::debug!(topic = %self.id.fmt_short(), peer = %peer.fmt_short(), "neighbor down");
        cx.emit(self.id, TopicEvent::NeighborDown(peer));
        cx.links.touch(&peer, self.config.link_idle, cx.now);
        self.places.by_peer.remove(&peer);
        self.detector.neighbor_down(&peer);
        self.syncs.neighbor_down(&peer);
        self.on_neighbors(cx);
        self.view_delay = VIEW_MIN;
        if self.overlay.neighbors().is_empty() {
            self.attached_since = None;
            self.join_attempts = 0;
            if !self.leave.is_begun() {
                // A request to be neighbors pushes out one, at the most; a join several.
                let members = self.suggestions(&BTreeSet::new(), cx);
                self.overlay.suggest(members, cx.now);
                let delay = JOIN_MIN + spread(&self.book) + cx.lag();
                let at = cx.now + jitter(&mut cx.rng, delay, 0.1..0.5);
                self.timers.set_by(Timer::OverlayJoin, at);
            }
        }
        self.look_at_view(cx);
    }

    /// Looks again whether the active view is full, later and later while it is not.
    fn look_at_view(&mut self, cx: &mut Context) {
        if !self.leave.is_begun() {
            // In a storm, requests of others come meanwhile.
            let few = self.overlay.neighbors().len() < VIEW_SOUND;
            let spread = if few { spread(&self.book) / 5 } else { spread(&self.book) };
            let delay = self.view_delay.max(spread) + cx.lag();
            let at = cx.now + jitter(&mut cx.rng, delay, 0.8..1.2);
            self.timers.set(Timer::View, at);
        }
    }

    /// A member joined: there may be room for it in the active view.
    pub(super) fn view_grows(&mut self, cx: &mut Context) {
        let neighbors = self.overlay.neighbors().len();
        if (1..self.config.neighbors).contains(&neighbors) && !self.timers.is_set(Timer::View) {
            self.view_delay = VIEW_MIN;
            self.look_at_view(cx);
        }
    }

    pub(super) fn on_view(&mut self, cx: &mut Context) {
        let neighbors = self.overlay.neighbors().clone();
        if neighbors.is_empty() || neighbors.len() >= self.config.neighbors.min(self.book.len()) {
            self.replace_silent(cx);
            return;
        }
        let members = self.suggestions(&neighbors, cx);
        self.overlay.suggest(members, cx.now);
        self.drive_overlay(cx);
        let floor = if neighbors.len() >= VIEW_SOUND { VIEW_MAX / 5 } else { VIEW_MIN };
        self.view_delay = (self.view_delay * 2).clamp(floor, VIEW_MAX);
        self.look_at_view(cx);
    }

    /// A sync that this node began is complete: a newcomer enters the overlay.
    pub(super) fn enter_overlay_after_sync(&mut self, cx: &mut Context) {
        if self.attached_since.is_some() {
            return;
        }
        if !self.timers.is_set(Timer::OverlayJoin) {
            self.join_attempts = 0;
        }
        if self.join_attempts == 0 {
            let scope: &mut Scope = scope!(self, cx);
            self.join_through = scope.random_members(1, &BTreeSet::new()).first().copied();
            let at = cx.now + jitter(&mut cx.rng, spread(&self.book), 0.0..1.0);
            self.timers.set_by(Timer::OverlayJoin, at);
        }
    }

    /// There are members, and nobody has made us a neighbor yet: a first node waits to be joined,
    /// but not for ever.
    pub(super) fn enter_overlay_soon(&mut self, cx: &mut Context) {
        if self.attached_since.is_none()
            && !self.timers.is_set(Timer::OverlayJoin)
            && !self.leave.is_begun()
        {
            let at = cx.now + jitter(&mut cx.rng, JOIN_WAIT, 0.5..1.5);
            self.timers.set(Timer::OverlayJoin, at);
        }
    }

    /// Not in the overlay: enter it through one random member.
    pub(super) fn on_overlay_join(&mut self, cx: &mut Context) {
        if self.attached_since.is_some() {
            return;
        }
        let earlier = self.join_through.take().filter(|id| self.book.get(id).is_some());
        let waits = self.places.entrance.take();
        let delay = JOIN_MIN * 2_u32.saturating_pow(self.join_attempts.min(8));
        // A second request would push others out of full views while the first is under way.
        let delay = delay.min(JOIN_MAX) + spread(&self.book) + cx.lag();
        if waits.is_some_and(|member| cx.links.current(&member).is_some()) {
            let at = cx.now + jitter(&mut cx.rng, delay, 0.8..1.2);
            self.timers.set(Timer::OverlayJoin, at);
            return;
        }
        // The member that was asked is not there, or nobody ever reached it.
        let unreached = waits.is_some() || self.join_attempts > 0;
        let linked =
            if unreached { self.linked_members(1, &BTreeSet::new(), cx).pop() } else { None };
        let earlier = linked.or(earlier);
        let anyone = scope!(self, cx).random_members(1, &BTreeSet::new()).first().copied();
        let Some(member) = earlier.or(anyone) else {
            // Nobody yet: whoever comes first will sync with us, and be our member. Where all are
            // to be avoided for a while, again after it.
            if self.book.len() > 0 {
                let at = cx.now + jitter(&mut cx.rng, JOIN_MAX, 0.8..1.2);
                self.timers.set(Timer::OverlayJoin, at);
            }
            return;
        };
        if self.overlay.neighbors().contains(&member) {
            return self.on_attached(cx);
        }
        self.overlay.join(member, cx.now);
        self.drive_overlay(cx);
        self.join_attempts += 1;
        if cx.links.current(&member).is_none()
            && !self.linked_members(1, &BTreeSet::new(), cx).is_empty()
        {
            self.places.entrance = Some(member);
            self.timers.set(Timer::OverlayJoin, cx.now + JOIN_FALLBACK + cx.lag());
            return;
        }
        let at = cx.now + jitter(&mut cx.rng, delay, 0.8..1.2);
        self.timers.set(Timer::OverlayJoin, at);
    }
}
