//! The place of this node in the overlay: how it enters, which neighbors it has, and what peers may
//! send to the overlay's state machines.
//!
//! No other component sees the state machines. Other components do see the neighbors, through
//! their scope. The scope of this component has no such view of itself: it is a
//! [`NarrowScope`](super::scope::NarrowScope).

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand::seq::IteratorRandom;
use tokio::time::Instant;

use super::{
    broadcast,
    effect::{Effect, Effects},
    scope::NarrowScope,
};
use crate::{
    budget::{Budget, Rate},
    drops::DropReason,
    event::TopicEvent,
    id::EndpointId,
    links::LinkRequest,
    overlay::{Output, Overlay},
    timers::{Timers, jitter},
    wire::{OverlayFrame, TopicFrame, is_broadcast},
};

/// First and largest delay between two checks whether the active view is full.
const VIEW_MIN: Duration = Duration::from_millis(100);
const VIEW_MAX: Duration = Duration::from_mins(5);
/// With this many neighbors the overlay is sound, and finding more is not urgent.
const VIEW_SOUND: usize = 3;
/// Members suggested to the passive view at a time, as in a shuffle (`HyParView`: 3 + 4).
const SUGGESTED: usize = 7;
/// A node with members waits this long for one of them to ask it, before it asks one.
const JOIN_WAIT: Duration = Duration::from_millis(300);
/// First and largest delay between two attempts to enter the overlay.
const JOIN_MIN: Duration = Duration::from_secs(1);
const JOIN_MAX: Duration = Duration::from_secs(10);
/// The most frames that wait for a link to one peer.
const MAX_WAITING: usize = 4;
/// The neighbors that no request of a peer pushes out: first those that this node requested, then
/// those that have been neighbors for the longest time. They are at most half of the view.
const ANCHORS: usize = 2;
/// The requests that push a neighbor out of a full view: those of one peer, and those of all peers.
const PUSHES_OF_PEER: Rate = Rate { messages: (0.2, 4.0), bytes: (1.0, 1.0) };
const PUSHES: Rate = Rate { messages: (16.0, 64.0), bytes: (1.0, 1.0) };
/// A neighbor that has forwarded nothing for this long gives way first if room is needed. After
/// [`SILENT_FOR`] it is replaced even if there is room.
const SILENT_AFTER: Duration = Duration::from_secs(5);
const SILENT_FOR: Duration = Duration::from_secs(30);
/// How often silent neighbors are looked for, while there are any.
const SILENT_LOOK: Duration = Duration::from_secs(10);
/// If all neighbors are younger than this, a node that was in the overlay before may be surrounded.
const REPLACED: Duration = Duration::from_mins(1);
/// A neighbor that brought this many broadcasts in a row after others did is asked to announce them
/// only. Plumtree asks that at the first one. But if many members broadcast at once, each of two
/// neighbors is the first one for some of them.
const REPEATS: u32 = 16;
/// A neighbor that was the first one for a broadcast within this time also brings records.
const FIRST_FOR: Duration = Duration::from_secs(1);
/// The broadcasts that neighbors bring again, per second and at once. Beyond that, each such
/// neighbor is asked to announce them only.
const REPEATED: Rate =
    Rate { messages: (4000.0, 8000.0), bytes: (2.0 * 1024.0 * 1024.0, 4.0 * 1024.0 * 1024.0) };
/// A newcomer whose first request has no link after this time asks a member that it is linked with.
const JOIN_FALLBACK: Duration = Duration::from_millis(250);
/// At most this many of the suggested members are linked already.
const SUGGESTED_LINKED: usize = 3;

/// The walks that begin for each newcomer while this node is behind in a burst.
const WALKS_IN_BURST: usize = 1;
/// The newcomers that walk through the overlay: those that one peer sends, and those of all peers.
/// A walk causes up to six frames of other nodes. A newcomer that is refused here is in the book
/// all the same.
const WALKS_OF_PEER: Rate = Rate { messages: (4.0, 64.0), bytes: (1.0, 1.0) };
const WALKS: Rate = Rate { messages: (8.0, 128.0), bytes: (1.0, 1.0) };
/// The requests of one peer to be a neighbor, even if there is room. Each makes this node compare
/// books with the peer, and look for another neighbor once the peer goes.
const REQUESTS_OF_PEER: Rate = Rate { messages: (1.0, 16.0), bytes: (1.0, 1.0) };

/// What one peer may send to repair broadcasts. It has a budget of its own, so that lost broadcasts
/// are announced and requested however much else the peer sends.
const REPAIR_OF_PEER: Rate =
    Rate { messages: (2000.0, 8000.0), bytes: (4.0 * 1024.0 * 1024.0, 16.0 * 1024.0 * 1024.0) };

/// What else one peer may send to the overlay, without broadcasts of applications.
const OF_PEER: Rate =
    Rate { messages: (500.0, 4000.0), bytes: (512.0 * 1024.0, 4.0 * 1024.0 * 1024.0) };

/// What one peer may send to the overlay.
#[derive(Debug)]
struct Budgets {
    frames: Budget,
    repair: Budget,
    broadcasts: Budget,
    /// Requests to be a neighbor that push another one out.
    pushes: Budget,
    requests: Budget,
    walks: Budget,
    strangers_told: Option<Instant>,
    asked_for: AskedFor,
}

/// The latest broadcasts that a peer requested.
#[derive(Debug, Default)]
struct AskedFor {
    ids: BTreeSet<[u8; 32]>,
    by_age: VecDeque<[u8; 32]>,
}

impl AskedFor {
    const MOST: usize = 4096;

    /// Returns true if the peer did not request this broadcast before.
    fn insert(&mut self, id: [u8; 32]) -> bool {
        let fresh = self.ids.insert(id);
        if fresh {
            self.by_age.push_back(id);
        }
        if self.by_age.len() > Self::MOST
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.ids.remove(&oldest);
        }
        fresh
    }
}

impl Budgets {
    fn new(now: Instant) -> Self {
        Self {
            frames: Budget::new(OF_PEER, now),
            repair: Budget::new(REPAIR_OF_PEER, now),
            pushes: Budget::new(PUSHES_OF_PEER, now),
            requests: Budget::new(REQUESTS_OF_PEER, now),
            walks: Budget::new(WALKS_OF_PEER, now),
            broadcasts: Budget::new(broadcast::OF_PEER, now),
            strangers_told: None,
            asked_for: AskedFor::default(),
        }
    }

    /// Returns true if it is time to tell a stranger that it is no neighbor of this node.
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
    /// True if this node requested the neighbor, false if the neighbor requested this node.
    requested: bool,
    /// True once the neighbor forwarded something, or compared books.
    vocal: bool,
    /// When the neighbor was last the first one that brought a broadcast of an application, and how
    /// many it brought since that others had brought before.
    first: Option<Instant>,
    repeats: u32,
}

/// The neighbors, and what decides who becomes one.
#[derive(Debug, Default)]
struct Places {
    by_peer: BTreeMap<EndpointId, Place>,
    /// The peer whose answer to our request is being handled.
    answers: Option<EndpointId>,
    /// The budget of all peers for requests that push a neighbor out.
    pushes: Option<Budget>,
    /// The budget of all peers for newcomers that walk through the overlay.
    walks: Option<Budget>,
    /// The budget of broadcasts that neighbors bring again.
    repeated: Option<Budget>,
    /// The member without a link that this node, as a newcomer, asked to let it in.
    entrance: Option<EndpointId>,
    /// When the last warning said that all neighbors were replaced.
    warned: Option<Instant>,
}

impl Places {
    fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// A neighbor forwarded something, or compared books.
    fn heard(&mut self, peer: &EndpointId) {
        if let Some(place) = self.by_peer.get_mut(peer) {
            place.vocal = true;
        }
    }

    fn up(&mut self, peer: EndpointId, now: Instant) {
        let requested = self.answers == Some(peer);
        self.by_peer
            .insert(peer, Place { since: now, requested, vocal: false, first: None, repeats: 0 });
    }

    /// A neighbor is the first one that brought a broadcast.
    fn brought(&mut self, peer: &EndpointId, now: Instant) {
        if let Some(place) = self.by_peer.get_mut(peer) {
            place.first = Some(now);
            place.repeats = 0;
        }
    }

    /// A neighbor brought a broadcast of this size that others had brought before. Returns true if
    /// it should only announce broadcasts from now on.
    fn repeats(&mut self, peer: &EndpointId, size: usize, now: Instant) -> bool {
        let Some(place) = self.by_peer.get_mut(peer) else { return true };
        place.repeats += 1;
        let budget = self.repeated.get_or_insert_with(|| Budget::new(REPEATED, now));
        let too_many = place.repeats >= REPEATS || !budget.take(size, now);
        if too_many {
            place.repeats = 0;
        }
        too_many
    }

    fn is_first_for_some(&self, peer: &EndpointId, now: Instant) -> bool {
        let first = self.by_peer.get(peer).and_then(|place| place.first);
        first.is_some_and(|at| now.saturating_duration_since(at) < FIRST_FOR)
    }

    /// Returns the neighbors that may be pushed out, the youngest last.
    fn replaceable(&self, neighbors: usize) -> Vec<(&EndpointId, &Place)> {
        let mut places: Vec<_> = self.by_peer.iter().collect();
        places.sort_by_key(|(_, place)| (!place.requested, place.since));
        let mut rest = places.split_off(ANCHORS.min(neighbors / 2).min(places.len()));
        rest.sort_by_key(|(_, place)| place.since);
        rest
    }

    /// Returns the youngest neighbor that may be pushed out and has forwarded nothing, if it has
    /// been a neighbor for at least `time`.
    fn silent(&self, neighbors: usize, time: Duration, now: Instant) -> Option<EndpointId> {
        let silent = |(_, place): &(&EndpointId, &Place)| {
            !place.vocal && now.saturating_duration_since(place.since) >= time
        };
        self.replaceable(neighbors).into_iter().rfind(silent).map(|(peer, _)| *peer)
    }

    fn may_walk(&mut self, now: Instant) -> bool {
        self.walks.get_or_insert_with(|| Budget::new(WALKS, now)).take(0, now)
    }

    fn may_push(&mut self, now: Instant) -> bool {
        self.pushes.get_or_insert_with(|| Budget::new(PUSHES, now)).take(0, now)
    }
}

/// A node's place in the overlay.
#[derive(Debug)]
pub(super) struct Neighborhood {
    overlay: Overlay,
    /// When this node entered the overlay. A newcomer is in it once a request of its own made it a
    /// neighbor. A node that only other newcomers requested may be cut off together with them.
    attached: Option<Instant>,
    /// A member that was in the overlay before this node. If each join leads to an earlier member,
    /// all joins together form one tree.
    join_through: Option<EndpointId>,
    join_attempts: u32,
    /// Frames that wait for a link to be dialed.
    waiting: BTreeMap<EndpointId, Vec<OverlayFrame>>,
    budgets: BTreeMap<EndpointId, Budgets>,
    places: Places,
    view_delay: Duration,
    timers: Timers<Timer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Enter the overlay through a random member.
    Join,
    /// Check whether the active view is full.
    View,
}

impl Neighborhood {
    pub(super) fn new(overlay: Overlay) -> Self {
        Self {
            overlay,
            attached: None,
            join_through: None,
            join_attempts: 0,
            waiting: BTreeMap::new(),
            budgets: BTreeMap::new(),
            places: Places::default(),
            view_delay: VIEW_MIN,
            timers: Timers::default(),
        }
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("neighbors", self.overlay.neighbors().len()),
            ("places in the view", self.places.len()),
            ("frames waiting for a dial", self.waiting.values().map(Vec::len).sum()),
            ("overlay budgets", self.budgets.len()),
        ]
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Handles one thing that is due. The router drives the overlay after it.
    pub(super) fn on_timeout(&mut self, scope: &mut NarrowScope) -> Effects {
        match self.timers.take_due(scope.now()) {
            Some(Timer::Join) => self.on_join(scope),
            Some(Timer::View) => self.on_view(scope),
            None => Effects::none(),
        }
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.timers.clear_all();
    }

    /// Returns the active view.
    pub(super) fn neighbors(&self) -> &BTreeSet<EndpointId> {
        self.overlay.neighbors()
    }

    pub(super) fn is_neighbor(&self, peer: &EndpointId) -> bool {
        self.overlay.neighbors().contains(peer)
    }

    /// Returns when this node entered the overlay, if it is in it.
    pub(super) fn attached(&self) -> Option<Instant> {
        self.attached
    }

    /// Returns true while the overlay needs the link to a peer for a request.
    pub(super) fn needs(&self, peer: &EndpointId) -> bool {
        self.overlay.is_requested(peer) || self.waiting.contains_key(peer)
    }

    /// Returns the state machines. The router drives the overlay after each use.
    pub(super) fn machine(&mut self) -> &mut Overlay {
        &mut self.overlay
    }

    pub(super) fn machine_timeout(&self) -> Option<Instant> {
        self.overlay.next_timer()
    }

    /// Returns what the overlay requests of the topic, or reports to it.
    pub(super) fn poll(&mut self, lag: Duration) -> Vec<Output> {
        self.overlay.lag = lag;
        self.overlay.poll()
    }

    /// A neighbor forwarded something, or compared books.
    pub(super) fn heard(&mut self, peer: &EndpointId) {
        self.places.heard(peer);
    }

    /// A neighbor is the first one that brought a broadcast of an application.
    pub(super) fn brought(&mut self, peer: &EndpointId, now: Instant) {
        self.places.brought(peer, now);
    }

    /// A neighbor brought a content that is here already. Returns true if the neighbor should only
    /// announce such contents from now on.
    pub(super) fn repeats(&mut self, peer: &EndpointId, content: &[u8], now: Instant) -> bool {
        if is_broadcast(content) {
            self.places.repeats(peer, content.len(), now)
        } else {
            !self.places.is_first_for_some(peer, now)
        }
    }

    /// A peer has a usable link: sends the frames that waited for it.
    pub(super) fn link_up(&mut self, peer: &EndpointId, scope: &mut NarrowScope) {
        for frame in self.waiting.remove(peer).unwrap_or_default() {
            scope.send(peer, TopicFrame::Overlay(frame));
        }
    }

    /// A dial failed. The state machines do not learn it: a timer of `HyParView` tries the next
    /// member.
    pub(super) fn dial_failed(&mut self, peer: &EndpointId) {
        self.waiting.remove(peer);
    }

    /// A peer no longer speaks of this topic.
    pub(super) fn unlinked(&mut self, peer: EndpointId, scope: &mut NarrowScope) {
        self.waiting.remove(&peer);
        self.budgets.remove(&peer);
        self.overlay.link_lost(peer, scope.now());
    }

    /// Returns true if a frame is within the budget of its sender. `asked_for` is the length of the
    /// broadcast that it requests, in bytes.
    pub(super) fn admit(
        &mut self,
        peer: EndpointId,
        frame: &OverlayFrame,
        asked_for: usize,
        scope: &mut NarrowScope,
    ) -> bool {
        // What a frame costs this node and others, in bytes. Joins walk through the overlay and
        // cause dials. A graft requests a whole broadcast. An announced id is kept and requested.
        let size = match frame {
            OverlayFrame::Gossip { content, .. } => content.len(),
            OverlayFrame::IHave(list) => list.len() * 256,
            OverlayFrame::Join(_) | OverlayFrame::Neighbor { .. } => 64 * 1024,
            OverlayFrame::ForwardJoin { .. } => 4 * 1024,
            OverlayFrame::Graft { id: Some(_), .. } => asked_for,
            OverlayFrame::Graft { .. } | OverlayFrame::Prune | OverlayFrame::Disconnect { .. } => 0,
        };
        let now = scope.now();
        let budgets = self.budgets.entry(peer).or_insert_with(|| Budgets::new(now));
        let (budget, what) = match frame {
            OverlayFrame::Gossip { content, .. } if is_broadcast(content) => {
                (&mut budgets.broadcasts, DropReason::BroadcastsOverTheBudgetOfAPeer)
            }
            OverlayFrame::IHave(_) | OverlayFrame::Graft { .. } | OverlayFrame::Prune => {
                (&mut budgets.repair, DropReason::RepairOfBroadcastsOverTheBudgetOfAPeer)
            }
            _ => (&mut budgets.frames, DropReason::OverlayFramesOverTheBudgetOfAPeer),
        };
        let within = budget.take(size, now);
        if !within {
            scope.dropped(what, Some(peer));
        }
        within
    }

    /// Takes the id out of a graft if the peer requested that broadcast before. It is not sent
    /// again, because a QUIC stream loses nothing.
    pub(super) fn without_repeats(
        &mut self,
        peer: EndpointId,
        frame: OverlayFrame,
        scope: &mut NarrowScope,
    ) -> OverlayFrame {
        let now = scope.now();
        let budgets = self.budgets.entry(peer).or_insert_with(|| Budgets::new(now));
        match frame {
            OverlayFrame::Graft { id: Some(id), round } if !budgets.asked_for.insert(id) => {
                scope.dropped(DropReason::BroadcastsAskedForAgain, Some(peer));
                OverlayFrame::Graft { id: None, round }
            }
            frame => frame,
        }
    }

    /// Returns true if a newcomer that a peer sends on its walk is within the budgets.
    pub(super) fn may_walk(&mut self, peer: EndpointId, scope: &mut NarrowScope) -> bool {
        let now = scope.now();
        let budgets = self.budgets.entry(peer).or_insert_with(|| Budgets::new(now));
        let within = budgets.walks.take(0, now) && self.places.may_walk(now);
        if !within {
            scope.dropped(DropReason::WalksOfNewcomersOverTheBudget, Some(peer));
        }
        within
    }

    /// Hands a frame that the guard let pass to the overlay. `about` is the node whose record it
    /// carries.
    pub(super) fn receive(
        &mut self,
        peer: EndpointId,
        about: EndpointId,
        frame: OverlayFrame,
        scope: &mut NarrowScope,
    ) {
        let now = scope.now();
        match frame {
            // In a burst, most newcomers meet each other in walks, and have room themselves.
            OverlayFrame::Join(record) if scope.is_late_in_burst() => {
                self.overlay.receive_join(peer, record, WALKS_IN_BURST, now);
            }
            frame => self.overlay.receive(peer, about, frame, now),
        }
    }

    /// The frame of a peer was handled, with all that follows from it.
    pub(super) fn handled(&mut self) {
        self.places.answers = None;
    }

    /// Returns true if a newcomer whose walk ends here is asked to be a neighbor. While many join,
    /// it has its entrance, and there is room at other newcomers: no neighbor gives way for it.
    pub(super) fn may_adopt(&mut self, scope: &mut NarrowScope) -> bool {
        let full = self.overlay.neighbors().len() >= scope.config.neighbors;
        let may = !full || !scope.is_late_in_burst();
        if !may {
            scope.dropped(DropReason::WalksOfNewcomersThatFoundNoRoom, None);
        }
        may
    }

    /// Returns true if the request of a peer to be our neighbor may reach the overlay. In a full
    /// view, the overlay would push out a random neighbor, so this method makes room before that.
    /// The router drives the overlay after it.
    pub(super) fn make_room(
        &mut self,
        peer: EndpointId,
        urgent: bool,
        scope: &mut NarrowScope,
    ) -> bool {
        let now = scope.now();
        let asked = self.overlay.is_asked(&peer) || self.places.entrance == Some(peer);
        if asked {
            self.places.answers = Some(peer);
        }
        let budgets = self.budgets.entry(peer).or_insert_with(|| Budgets::new(now));
        if !asked && !budgets.requests.take(0, now) {
            refuse_neighbor(peer, scope);
            return false;
        }
        let most = scope.config.neighbors;
        let neighbors = self.overlay.neighbors();
        debug_assert!(neighbors.len() <= most, "the overlay keeps to its active view");
        if neighbors.contains(&peer) || neighbors.len() < most {
            return true;
        }
        let silent = self.places.silent(most, SILENT_AFTER, now);
        if !urgent && (asked || silent.is_none()) {
            // The overlay answers that its view is full.
            return true;
        }
        let budgets = self.budgets.entry(peer).or_insert_with(|| Budgets::new(now));
        let within = asked || (budgets.pushes.take(0, now) && self.places.may_push(now));
        let victim = if within { silent.or_else(|| self.choose_victim(scope)) } else { None };
        let Some(victim) = victim else {
            refuse_neighbor(peer, scope);
            return false;
        };
        self.overlay.evict(victim, now);
        true
    }

    /// Chooses a neighbor that is no anchor: the youngest of those that have forwarded nothing, or
    /// else a random one.
    fn choose_victim(&self, scope: &mut NarrowScope) -> Option<EndpointId> {
        let most = scope.config.neighbors;
        let silent = self.places.silent(most, Duration::ZERO, scope.now());
        silent.or_else(|| {
            let replaceable = self.places.replaceable(most);
            replaceable.into_iter().map(|(peer, _)| *peer).choose(&mut scope.cx.rng)
        })
    }

    /// Replaces a neighbor that forwards nothing, if the book has a member that is no neighbor.
    fn replace_silent(&mut self, scope: &mut NarrowScope) -> Effects {
        let (most, now) = (scope.config.neighbors, scope.now());
        if scope.book.len() > self.overlay.neighbors().len()
            && let Some(peer) = self.places.silent(most, SILENT_FOR, now)
        {
            scope.dropped(DropReason::NeighborsThatForwardedNothing, Some(peer));
            self.overlay.evict(peer, now);
            return Effects::one(Effect::Avoid(peer));
        }
        if self.places.silent(most, Duration::ZERO, now).is_some() {
            self.timers.set_by(Timer::View, now + SILENT_LOOK);
        }
        Effects::none()
    }

    /// If all neighbors are new, hostile ones may surround this node. It then warns, and asks
    /// established members to be neighbors too.
    fn look_for_replacement(&mut self, scope: &mut NarrowScope) {
        let now = scope.now();
        let young = |at: Instant| now.saturating_duration_since(at) < REPLACED;
        let old = self.attached.is_some_and(|at| !young(at));
        let all = self.places.len() > ANCHORS
            && self.places.by_peer.values().all(|place| young(place.since));
        if old && all && !self.places.warned.is_some_and(young) {
            self.places.warned = Some(now);
            let topic = scope.topic.fmt_short();
            tracing::warn!(
                %topic,
                "all neighbors were replaced within a minute: asking established members"
            );
            scope.dropped(DropReason::ViewsThatWereReplacedWithinAMinute, None);
            let mut members = scope.random_members(10 * SUGGESTED, self.overlay.neighbors());
            members.sort_by_key(|id| !scope.book.is_established(id, now));
            members.truncate(SUGGESTED);
            self.overlay.suggest(members, now);
        }
    }

    /// Tells a peer that takes itself for a neighbor that it is none, at most once a second.
    pub(super) fn reject_stranger(&mut self, peer: EndpointId, scope: &mut NarrowScope) {
        let now = scope.now();
        let budget = self.budgets.entry(peer).or_insert_with(|| Budgets::new(now));
        if budget.tell_stranger(now) {
            let frame = OverlayFrame::Disconnect { alive: true };
            scope.send(&peer, TopicFrame::Overlay(frame));
        }
    }

    /// Sends a frame of the overlay. Only a request to become neighbors may cause a dial, and only
    /// to a member of the book.
    pub(super) fn send(&mut self, peer: EndpointId, frame: OverlayFrame, scope: &mut NarrowScope) {
        if scope.cx.links.current(&peer).is_some() {
            scope.send(&peer, TopicFrame::Overlay(frame));
            return;
        }
        let asks = match frame {
            OverlayFrame::Join(_) | OverlayFrame::Neighbor { high: true, .. } => true,
            OverlayFrame::Neighbor { .. } => !self.is_sound_in_burst(scope),
            _ => false,
        };
        if !asks || scope.view.leaving || scope.peers.is_avoided(&peer, scope.now()) {
            return;
        }
        let Some(live) = scope.book.get(&peer) else { return };
        let addresses = live.signed.record().addresses.clone();
        if scope.dial_at(peer, &addresses) == LinkRequest::Dialing {
            let waiting = self.waiting.entry(peer).or_default();
            if waiting.len() < MAX_WAITING {
                waiting.push(frame);
            }
        }
    }

    /// A peer became a neighbor.
    pub(super) fn neighbor_up(&mut self, peer: EndpointId, scope: &mut NarrowScope) {
        let (topic, peer_id) = (scope.topic.fmt_short(), peer.fmt_short());
        tracing::debug!(%topic, peer = %peer_id, "neighbor up");
        scope.emit(TopicEvent::NeighborUp(peer));
        scope.cx.links.touch(&peer, scope.config.link_idle, scope.cx.now);
        self.places.up(peer, scope.now());
        self.look_for_replacement(scope);
    }

    /// A peer is no longer a neighbor.
    pub(super) fn neighbor_down(&mut self, peer: EndpointId, scope: &mut NarrowScope) {
        let (topic, peer_id) = (scope.topic.fmt_short(), peer.fmt_short());
        tracing::debug!(%topic, peer = %peer_id, "neighbor down");
        scope.emit(TopicEvent::NeighborDown(peer));
        scope.cx.links.touch(&peer, scope.config.link_idle, scope.cx.now);
        self.places.by_peer.remove(&peer);
    }

    /// After a neighbor went: looks for others. A node without neighbors enters the overlay again.
    pub(super) fn look_for_neighbors(&mut self, scope: &mut NarrowScope) {
        self.view_delay = VIEW_MIN;
        if self.overlay.neighbors().is_empty() {
            self.attached = None;
            self.join_attempts = 0;
            if !scope.view.leaving {
                // A request to be neighbors pushes out one node at most, and a join several. So
                // requests come first.
                let members = Self::suggestions(&BTreeSet::new(), scope);
                self.overlay.suggest(members, scope.now());
                let delay = JOIN_MIN + scope.spread() + scope.cx.lag();
                let at = scope.now() + jitter(&mut scope.cx.rng, delay, 0.1..0.5);
                self.timers.set_by(Timer::Join, at);
            }
        }
        self.look_at_view(scope);
    }

    /// Returns true if this node has asked to enter the overlay: its next neighbor means that it is
    /// in it.
    pub(super) fn is_entering(&self) -> bool {
        self.join_attempts > 0
    }

    /// This node has a neighbor that it requested. Returns true if it was not in the overlay.
    pub(super) fn attach(&mut self, now: Instant) -> bool {
        let enters = self.attached.is_none();
        if enters {
            self.attached = Some(now);
            self.timers.clear(Timer::Join);
        }
        enters
    }

    /// Chooses at most `count` linked members that could let this node into the overlay, or be its
    /// neighbors.
    fn linked_members(
        count: usize,
        without: &BTreeSet<EndpointId>,
        scope: &mut NarrowScope,
    ) -> Vec<EndpointId> {
        let now = scope.now();
        let fits = |id: &&EndpointId| {
            !without.contains(id)
                && scope.book.get(id).is_some()
                && scope.cx.links.current(id).is_some()
                && !scope.peers.is_avoided(id, now)
                && !scope.book.is_suspected(id)
        };
        let linked: Vec<_> = scope.peers.linked().iter().filter(fits).copied().collect();
        linked.into_iter().sample(&mut scope.cx.rng, count)
    }

    /// Chooses members to suggest as neighbors. Linked ones come first, because a book may be full
    /// of members that nobody ever reached.
    fn suggestions(without: &BTreeSet<EndpointId>, scope: &mut NarrowScope) -> Vec<EndpointId> {
        let mut members = Self::linked_members(SUGGESTED_LINKED, without, scope);
        let mut without = without.clone();
        without.extend(&members);
        members.extend(scope.random_members(SUGGESTED - members.len(), &without));
        members
    }

    /// Returns true if many nodes join now, and this node has enough neighbors until they have. Its
    /// view fills by their requests, or else afterwards.
    fn is_sound_in_burst(&self, scope: &NarrowScope) -> bool {
        self.overlay.neighbors().len() >= VIEW_SOUND && scope.is_late_in_burst()
    }

    /// Schedules the next check whether the active view is full, with growing delays.
    pub(super) fn look_at_view(&mut self, scope: &mut NarrowScope) {
        if !scope.view.leaving {
            // In a burst of joins, requests of other nodes may fill the view meanwhile.
            let few = self.overlay.neighbors().len() < VIEW_SOUND;
            let spread = if few { scope.spread() / 5 } else { scope.spread() };
            let delay = self.view_delay.max(spread) + scope.cx.lag();
            let at = scope.now() + jitter(&mut scope.cx.rng, delay, 0.8..1.2);
            self.timers.set(Timer::View, at);
        }
    }

    /// A member joined: there may be room for it in the active view.
    pub(super) fn view_grows(&mut self, scope: &mut NarrowScope) {
        let neighbors = self.overlay.neighbors().len();
        if (1..scope.config.neighbors).contains(&neighbors) && !self.timers.is_set(Timer::View) {
            self.view_delay = VIEW_MIN;
            self.look_at_view(scope);
        }
    }

    fn on_view(&mut self, scope: &mut NarrowScope) -> Effects {
        let neighbors = self.overlay.neighbors().clone();
        if neighbors.is_empty() || neighbors.len() >= scope.config.neighbors.min(scope.book.len()) {
            return self.replace_silent(scope);
        }
        if self.is_sound_in_burst(scope) {
            self.look_at_view(scope);
            return Effects::none();
        }
        let members = Self::suggestions(&neighbors, scope);
        self.overlay.suggest(members, scope.now());
        let floor = if neighbors.len() >= VIEW_SOUND { VIEW_MAX / 5 } else { VIEW_MIN };
        self.view_delay = (self.view_delay * 2).clamp(floor, VIEW_MAX);
        self.look_at_view(scope);
        Effects::none()
    }

    /// A sync that this node began is complete: a newcomer enters the overlay.
    pub(super) fn enter_after_sync(&mut self, scope: &mut NarrowScope) {
        if self.attached.is_some() || scope.config.observer {
            return;
        }
        if !self.timers.is_set(Timer::Join) {
            self.join_attempts = 0;
        }
        if self.join_attempts == 0 {
            self.join_through = scope.random_members(1, &BTreeSet::new()).first().copied();
            let spread = scope.spread();
            let at = scope.now() + jitter(&mut scope.cx.rng, spread, 0.0..1.0);
            self.timers.set_by(Timer::Join, at);
        }
    }

    /// The book has members, and none made this node a neighbor yet. The first node of a swarm
    /// waits to be asked, but not forever.
    pub(super) fn enter_soon(&mut self, scope: &mut NarrowScope) {
        let may = !scope.view.leaving && !scope.config.observer;
        if self.attached.is_none() && !self.timers.is_set(Timer::Join) && may {
            let at = scope.now() + jitter(&mut scope.cx.rng, JOIN_WAIT, 0.5..1.5);
            self.timers.set(Timer::Join, at);
        }
    }

    /// Enters the overlay through one member, if this node is not in it.
    fn on_join(&mut self, scope: &mut NarrowScope) -> Effects {
        if self.attached.is_some() {
            return Effects::none();
        }
        let (now, lag, anybody) = (scope.now(), scope.cx.lag(), BTreeSet::new());
        let earlier = self.join_through.take().filter(|id| scope.book.get(id).is_some());
        let waits = self.places.entrance.take();
        let delay = JOIN_MIN * 2_u32.saturating_pow(self.join_attempts.min(8));
        // A second request would push others out of full views while the first is under way.
        let delay = delay.min(JOIN_MAX) + scope.spread() + lag;
        if waits.is_some_and(|member| scope.cx.links.current(&member).is_some()) {
            let at = now + jitter(&mut scope.cx.rng, delay, 0.8..1.2);
            self.timers.set(Timer::Join, at);
            return Effects::none();
        }
        // The member that was asked may be gone, or it was never reachable.
        let unreached = waits.is_some() || self.join_attempts > 0;
        let linked = if unreached { Self::linked_members(1, &anybody, scope).pop() } else { None };
        let earlier = linked.or(earlier);
        let anyone = scope.random_members(1, &anybody).first().copied();
        let Some(member) = earlier.or(anyone) else {
            // With an empty book, the first node that comes will sync with this one, and be a
            // member. If all members are avoided now, this node tries again later.
            if scope.book.len() > 0 {
                let at = now + jitter(&mut scope.cx.rng, JOIN_MAX, 0.8..1.2);
                self.timers.set(Timer::Join, at);
            }
            return Effects::none();
        };
        if self.is_neighbor(&member) {
            return Effects::one(Effect::Attached);
        }
        self.overlay.join(member, now);
        self.join_attempts += 1;
        if scope.cx.links.current(&member).is_none()
            && !Self::linked_members(1, &anybody, scope).is_empty()
        {
            self.places.entrance = Some(member);
            self.timers.set(Timer::Join, now + JOIN_FALLBACK + lag);
            return Effects::none();
        }
        let at = now + jitter(&mut scope.cx.rng, delay, 0.8..1.2);
        self.timers.set(Timer::Join, at);
        Effects::none()
    }
}

fn refuse_neighbor(peer: EndpointId, scope: &mut NarrowScope) {
    scope.dropped(DropReason::RequestsToBeNeighborsOverTheBudget, Some(peer));
    scope.send(&peer, TopicFrame::Overlay(OverlayFrame::Disconnect { alive: true }));
}
