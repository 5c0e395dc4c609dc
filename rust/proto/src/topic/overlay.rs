//! The place of this node in the overlay: how it enters, which neighbors it has, and what peers may
//! send to the overlay's state machines.
//!
//! No other component sees the state machines. Other components do see the neighbors, through
//! their scope. The scope of this component has no such view of itself: it is a
//! [`NarrowScope`](super::scope::NarrowScope).

mod admission;
mod choice;
mod entry;
mod places;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    effect::{Effect, Effects},
    scope::NarrowScope,
};
use crate::{
    drops::DropReason,
    event::TopicEvent,
    id::EndpointId,
    links::LinkRequest,
    overlay::{Output, Overlay},
    timers::{earlier, jitter},
    wire::{OverlayFrame, TopicFrame, is_broadcast},
};

use self::{
    admission::Admission,
    choice::{SUGGESTED, suggestions},
    entry::Entry,
    places::{Places, is_young},
};

/// First and largest delay between two checks whether the active view is full.
const VIEW_MIN: Duration = Duration::from_millis(100);
const VIEW_MAX: Duration = Duration::from_mins(5);
/// With this many neighbors the overlay is sound, and finding more is not urgent.
const VIEW_SOUND: usize = 3;
/// The most frames that wait for a link to one peer.
const MAX_WAITING: usize = 4;
/// A neighbor that has forwarded nothing for this long gives way first if room is needed. After
/// [`SILENT_FOR`] it is replaced even if there is room.
const SILENT_AFTER: Duration = Duration::from_secs(5);
const SILENT_FOR: Duration = Duration::from_secs(30);
/// How often silent neighbors are looked for, while there are any.
const SILENT_LOOK: Duration = Duration::from_secs(10);

/// The walks that begin for each newcomer while this node is behind in a burst.
const WALKS_IN_BURST: usize = 1;

/// A node's place in the overlay.
#[derive(Debug)]
pub(super) struct Neighborhood {
    overlay: Overlay,
    entry: Entry,
    /// Frames that wait for a link to be dialed.
    waiting: BTreeMap<EndpointId, Vec<OverlayFrame>>,
    admission: Admission,
    places: Places,
    view_delay: Duration,
    /// When to check whether the active view is full.
    view_timer: Option<Instant>,
}

impl Neighborhood {
    pub(super) fn new(overlay: Overlay) -> Self {
        Self {
            overlay,
            entry: Entry::default(),
            waiting: BTreeMap::new(),
            admission: Admission::default(),
            places: Places::default(),
            view_delay: VIEW_MIN,
            view_timer: None,
        }
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("neighbors", self.overlay.neighbors().len()),
            ("places in the view", self.places.len()),
            ("frames waiting for a dial", self.waiting.values().map(Vec::len).sum()),
            ("overlay budgets", self.admission.len()),
        ]
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        earlier(self.entry.next_timeout(), self.view_timer)
    }

    /// Handles one thing that is due. The router drives the overlay after it.
    pub(super) fn on_timeout(&mut self, scope: &mut NarrowScope) -> Effects {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= scope.now());
        if is_due(self.entry.next_timeout()) {
            self.entry.on_timeout(&mut self.overlay, scope)
        } else if is_due(self.view_timer) {
            self.on_view(scope)
        } else {
            Effects::none()
        }
    }

    /// This node leaves the topic.
    pub(super) fn stop(&mut self) {
        self.entry.stop();
        self.view_timer = None;
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
        self.entry.attached()
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
        self.admission.unlinked(&peer);
        self.overlay.link_lost(peer, scope.now());
    }

    /// See [`Admission::admit`].
    pub(super) fn admit(
        &mut self,
        peer: EndpointId,
        frame: &OverlayFrame,
        asked_for: usize,
        scope: &mut NarrowScope,
    ) -> bool {
        self.admission.admit(peer, frame, asked_for, scope)
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
        match frame {
            OverlayFrame::Graft { id: Some(id), round }
                if !self.admission.asks_first(peer, id, now) =>
            {
                scope.dropped(DropReason::BroadcastsAskedForAgain, Some(peer));
                OverlayFrame::Graft { id: None, round }
            }
            frame => frame,
        }
    }

    /// Returns true if a newcomer that a peer sends on its walk is within the budgets.
    pub(super) fn may_walk(&mut self, peer: EndpointId, scope: &mut NarrowScope) -> bool {
        let within = self.admission.may_walk(peer, scope.now());
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
        self.places.handled();
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
        let asked = self.overlay.is_asked(&peer) || self.entry.is_entrance(peer);
        if asked {
            self.places.answering(peer);
        }
        if !asked && !self.admission.may_request(peer, now) {
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
        let within = asked || self.admission.may_push(peer, now);
        let victim = match silent {
            _ if !within => None,
            Some(silent) => Some(silent),
            None => self.places.victim(most, &mut scope.cx.rng, now),
        };
        let Some(victim) = victim else {
            refuse_neighbor(peer, scope);
            return false;
        };
        self.overlay.evict(victim, now);
        true
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
            self.view_timer = earlier(self.view_timer, Some(now + SILENT_LOOK));
        }
        Effects::none()
    }

    /// If all neighbors are new, hostile ones may surround this node. It then warns, and asks
    /// established members to be neighbors too.
    fn look_for_replacement(&mut self, scope: &mut NarrowScope) {
        let now = scope.now();
        let old = self.entry.attached().is_some_and(|at| !is_young(at, now));
        if old && self.places.were_replaced(now) {
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
        if self.admission.may_reject_stranger(peer, now) {
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
        self.places.down(&peer);
    }

    /// After a neighbor went: looks for others. A node without neighbors enters the overlay again.
    pub(super) fn look_for_neighbors(&mut self, scope: &mut NarrowScope) {
        self.view_delay = VIEW_MIN;
        if self.overlay.neighbors().is_empty() {
            self.entry.lost_neighbors(&mut self.overlay, scope);
        }
        self.look_at_view(scope);
    }

    /// Returns true if this node has asked to enter the overlay: its next neighbor means that it is
    /// in it.
    pub(super) fn is_entering(&self) -> bool {
        self.entry.is_entering()
    }

    /// This node has a neighbor that it requested. Returns true if it was not in the overlay.
    pub(super) fn attach(&mut self, now: Instant) -> bool {
        self.entry.attach(now)
    }

    /// A sync that this node began is complete: a newcomer enters the overlay.
    pub(super) fn enter_after_sync(&mut self, scope: &mut NarrowScope) {
        self.entry.after_sync(scope);
    }

    /// See [`Entry::soon`].
    pub(super) fn enter_soon(&mut self, scope: &mut NarrowScope) {
        self.entry.soon(scope);
    }

    /// Returns true if many nodes join now, and this node has a neighbor, which is enough until
    /// they have. Its view fills by their requests, or else afterwards.
    fn is_sound_in_burst(&self, scope: &NarrowScope) -> bool {
        !self.overlay.neighbors().is_empty() && scope.is_late_in_burst()
    }

    /// Schedules the next check whether the active view is full, with growing delays.
    pub(super) fn look_at_view(&mut self, scope: &mut NarrowScope) {
        if !scope.view.leaving {
            // In a burst of joins, requests of other nodes may fill the view meanwhile.
            let few = self.overlay.neighbors().len() < VIEW_SOUND;
            let spread = if few { scope.spread() / 5 } else { scope.spread() };
            let delay = self.view_delay.max(spread) + scope.cx.lag();
            let at = scope.now() + jitter(&mut scope.cx.rng, delay, 0.8..1.2);
            self.view_timer = Some(at);
        }
    }

    /// A member joined: there may be room for it in the active view.
    pub(super) fn view_grows(&mut self, scope: &mut NarrowScope) {
        let neighbors = self.overlay.neighbors().len();
        if (1..scope.config.neighbors).contains(&neighbors) && self.view_timer.is_none() {
            self.view_delay = VIEW_MIN;
            self.look_at_view(scope);
        }
    }

    fn on_view(&mut self, scope: &mut NarrowScope) -> Effects {
        self.view_timer = None;
        let neighbors = self.overlay.neighbors().clone();
        if neighbors.is_empty() || neighbors.len() >= scope.config.neighbors.min(scope.book.len()) {
            return self.replace_silent(scope);
        }
        if self.is_sound_in_burst(scope) {
            self.look_at_view(scope);
            return Effects::none();
        }
        let members = suggestions(&neighbors, scope);
        self.overlay.suggest(members, scope.now());
        let floor = if neighbors.len() >= VIEW_SOUND { VIEW_MAX / 5 } else { VIEW_MIN };
        self.view_delay = (self.view_delay * 2).clamp(floor, VIEW_MAX);
        self.look_at_view(scope);
        Effects::none()
    }
}

fn refuse_neighbor(peer: EndpointId, scope: &mut NarrowScope) {
    scope.dropped(DropReason::RequestsToBeNeighborsOverTheBudget, Some(peer));
    scope.send(&peer, TopicFrame::Overlay(OverlayFrame::Disconnect { alive: true }));
}
