//! The guard between the network and the overlay. All that reaches the overlay's state machines
//! from the network passes here. It is decoded into our own frames, `wire` bounds its lists and
//! hops, its records are verified, and it is within a budget.
//!
//! The requests of the overlay go the other way, and all components learn of each new neighbor.

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Topic,
    effect::{Effect, Effects},
    ingest::{self, Taken, Way},
    scope::Scope,
    seen::IN_FLIGHT,
};
use crate::{
    accusation::Accusation,
    book::Applied,
    context::Context,
    drops::DropReason,
    id::EndpointId,
    overlay::Output,
    wire::{Item, OverlayFrame, TopicFrame, decode_content, is_broadcast},
};

/// What is new here of a broadcast: records, by their owners, and accusations.
#[derive(Debug, Default)]
struct News {
    records: Vec<EndpointId>,
    accusations: Vec<Bytes>,
}

impl Topic {
    pub(super) fn on_overlay(&mut self, peer: EndpointId, frame: OverlayFrame, cx: &mut Context) {
        if self.config.observer {
            cx.links.dropped(DropReason::OverlayFramesToAnObserver, Some(peer));
            return self.neighborhood.reject_stranger(peer, narrow_scope!(self, cx));
        }
        let asked_for = self.length_of_asked(&frame);
        if !self.neighborhood.admit(peer, &frame, asked_for, narrow_scope!(self, cx)) {
            return;
        }
        let frame = self.neighborhood.without_repeats(peer, frame, narrow_scope!(self, cx));
        if let Some((about, frame)) = self.judge(peer, frame, cx) {
            self.neighborhood.receive(peer, about, frame, narrow_scope!(self, cx));
            self.drive_overlay(cx);
        }
        self.neighborhood.handled();
    }

    /// Returns true if the request of a peer to be our neighbor may reach the overlay.
    fn may_become_neighbor(&mut self, peer: EndpointId, urgent: bool, cx: &mut Context) -> bool {
        let may = self.neighborhood.make_room(peer, urgent, narrow_scope!(self, cx));
        self.drive_overlay(cx);
        may
    }

    fn is_late_in_burst(&mut self, cx: &mut Context) -> bool {
        let scope: &mut Scope = scope!(self, cx);
        scope.is_late_in_burst()
    }

    /// Returns what of a frame may reach the overlay, and the node whose record it carries.
    fn judge(
        &mut self,
        peer: EndpointId,
        frame: OverlayFrame,
        cx: &mut Context,
    ) -> Option<(EndpointId, OverlayFrame)> {
        let is_neighbor = self.neighborhood.is_neighbor(&peer);
        match frame {
            OverlayFrame::Join(record) => {
                let record = self.introduced(peer, &record, peer, cx)?;
                let may = self.may_become_neighbor(peer, true, cx);
                may.then_some((peer, OverlayFrame::Join(record)))
            }
            OverlayFrame::Neighbor { high, record } => {
                let record = self.introduced(peer, &record, peer, cx)?;
                let urgent = high && !self.is_late_in_burst(cx); // other newcomers have room
                let may = self.may_become_neighbor(peer, urgent, cx);
                may.then_some((peer, OverlayFrame::Neighbor { high, record }))
            }
            OverlayFrame::Disconnect { .. } => Some((peer, frame)),
            _ if !is_neighbor => {
                self.neighborhood.reject_stranger(peer, narrow_scope!(self, cx));
                None
            }
            OverlayFrame::ForwardJoin { .. }
                if !self.neighborhood.may_walk(peer, narrow_scope!(self, cx)) =>
            {
                None
            }
            OverlayFrame::ForwardJoin { ttl, record } => {
                let about = cx.open_record(&self.id, &record).ok()?.claimed();
                let record = self.introduced(about, &record, peer, cx)?;
                let may = ttl > 0 || self.neighborhood.may_adopt(narrow_scope!(self, cx));
                (may && about != cx.me)
                    .then_some((about, OverlayFrame::ForwardJoin { ttl, record }))
            }
            OverlayFrame::Gossip { round: None, .. } => {
                // No node of version 1 sends this, and the overlay would not forward it.
                cx.links.dropped(DropReason::BroadcastsToNeighborsOnly, Some(peer));
                None
            }
            OverlayFrame::Gossip { content, .. } if self.has_seen(&content, cx.now) => {
                self.neighborhood.machine().came_twice(blake3::hash(&content).as_bytes());
                // A duplicate is not verified again. It gets the answer of Plumtree, if it was not
                // the first one of a broadcast that came from elsewhere.
                if !self.neighborhood.repeats(&peer, &content, cx.now) {
                    return None;
                }
                let prune = TopicFrame::Overlay(OverlayFrame::Prune);
                cx.links.send(&peer, self.id, prune, cx.now);
                // The other direction may be of use to the neighbor, which judges it by itself.
                (!is_broadcast(&content)).then_some((peer, OverlayFrame::Prune))
            }
            OverlayFrame::Gossip { round, content } => {
                let fresh = if is_broadcast(&content) {
                    let fresh = self.broadcasts.judge(&content, peer, scope!(self, cx));
                    if fresh {
                        self.neighborhood.brought(&peer, cx.now);
                    }
                    fresh
                } else {
                    self.judge_content(&content, peer, cx)
                };
                fresh.then_some((peer, OverlayFrame::Gossip { round, content }))
            }
            OverlayFrame::Prune | OverlayFrame::Graft { .. } | OverlayFrame::IHave(_) => {
                Some((peer, frame))
            }
        }
    }

    /// Returns the length of the broadcast that a frame requests, or 0 if it is not held here: then
    /// it is not sent.
    fn length_of_asked(&self, frame: &OverlayFrame) -> usize {
        let OverlayFrame::Graft { id: Some(id), .. } = frame else { return 0 };
        self.dissemination.length(id).or_else(|| self.broadcasts.length(id)).unwrap_or_default()
    }

    /// Returns true if this content passed recently.
    fn has_seen(&mut self, content: &[u8], now: Instant) -> bool {
        if is_broadcast(content) {
            self.broadcasts.has_seen(content, now)
        } else {
            self.dissemination.has_seen(content, now)
        }
    }

    /// Takes in the record of a node that a frame introduces, and returns the best record of it in
    /// the book. `None` if the record is refused, or the node is gone.
    fn introduced(
        &mut self,
        about: EndpointId,
        record: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> Option<Bytes> {
        if self.on_record(record, from, cx).ok()?.id != about {
            cx.links.dropped(DropReason::IntroductionsWithAnotherRecord, Some(from));
            return None;
        }
        self.book.get(&about).map(|live| live.signed.bytes().clone())
    }

    /// Verifies and applies the content of a broadcast. Returns true if the overlay has to forward
    /// it. A replay, with nothing that is new or recent, goes no further. Neither does a broadcast
    /// with a part that this node did not verify.
    fn judge_content(&mut self, content: &Bytes, from: EndpointId, cx: &mut Context) -> bool {
        let items = match decode_content(content) {
            Ok(items) => items,
            Err(error) => {
                let (topic, peer) = (self.id.fmt_short(), from.fmt_short());
                tracing::debug!(%topic, %peer, %error, "a broadcast can't be judged");
                cx.links.dropped(DropReason::BroadcastsThatCannotBeJudged, Some(from));
                return false;
            }
        };
        let records = items.iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            Item::Accusation(_) => None,
        });
        ingest::verify_ahead(Way::Forwarded, records, from, scope!(self, cx));
        let (mut fresh, mut whole) = (false, true);
        let mut news = News::default();
        for item in &items {
            let record = match item {
                Item::Record(record) => record,
                Item::Accusation(bytes) => {
                    match self.on_accusation(bytes, from, true, cx) {
                        Ok(true) => {
                            fresh = true;
                            news.accusations.push(bytes.clone());
                        }
                        Ok(false) => whole &= self.detector.has_seen(bytes, cx.now),
                        Err(_) => return false,
                    }
                    continue;
                }
            };
            let Ok(Taken { id, applied }) = self.on_record(record, from, cx) else { return false };
            self.dissemination.overheard(&id, matches!(applied, Applied::Stale));
            whole &= applied != Applied::Full;
            if applied.is_news() {
                news.records.push(id);
            }
            fresh |= match applied {
                Applied::Same => id == cx.me || self.is_recent(&id, cx.now),
                other => other.is_news(),
            };
        }
        if !fresh {
            cx.links.dropped(DropReason::BroadcastsWithoutAnythingNew, Some(from));
        } else if whole {
            self.dissemination.saw(content, cx.now);
        } else {
            cx.links.dropped(DropReason::BroadcastsThatCannotBeJudged, Some(from));
            self.forward_parts(news, cx);
        }
        fresh && whole
    }

    /// Broadcasts what is new of a broadcast that has parts which this node did not verify. If it
    /// forwarded those, nodes that do verify them would take it for a forger.
    fn forward_parts(&mut self, news: News, cx: &mut Context) {
        for id in news.records {
            self.dissemination.send_soon(id, scope!(self, cx));
        }
        for bytes in news.accusations {
            let verified = Accusation::open(&bytes)
                .and_then(|envelope| cx.verify_accusation(&self.id, envelope));
            if let Ok(accusation) = verified {
                self.carry_out(Effects::one(Effect::Accuse(accusation)), cx);
            }
        }
    }

    fn is_recent(&self, id: &EndpointId, now: Instant) -> bool {
        let received = self.book.received(id).or(self.book.tombstone_since(id));
        received.is_some_and(|at| now.saturating_duration_since(at) < IN_FLIGHT)
    }

    /// Carries out what the overlay requests, until it requests nothing more.
    pub(super) fn drive_overlay(&mut self, cx: &mut Context) {
        loop {
            let outputs = self.neighborhood.poll(cx.lag());
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Send(peer, frame) => {
                        self.neighborhood.send(peer, frame, narrow_scope!(self, cx));
                    }
                    Output::Up(peer) => self.on_neighbor_up(peer, cx),
                    Output::Down(peer) => self.on_neighbor_down(peer, cx),
                }
            }
        }
    }

    fn on_neighbor_up(&mut self, peer: EndpointId, cx: &mut Context) {
        self.syncs.forget_newcomer(&peer);
        self.neighborhood.neighbor_up(peer, narrow_scope!(self, cx));
        self.detector.neighbor_up(peer, scope!(self, cx));
        let effects = self.broadcasts.on_neighbors(scope!(self, cx));
        self.carry_out(effects, cx);
        // The first node of a swarm has no member to join.
        if self.neighborhood.is_entering() || self.syncs.is_untried() {
            self.on_attached(cx);
        }
        self.dissemination.neighbor_up(scope!(self, cx));
        self.syncs.neighbor_up(scope!(self, cx));
        self.neighborhood.look_at_view(narrow_scope!(self, cx));
    }

    fn on_neighbor_down(&mut self, peer: EndpointId, cx: &mut Context) {
        self.neighborhood.neighbor_down(peer, narrow_scope!(self, cx));
        self.detector.neighbor_down(&peer);
        self.syncs.neighbor_down(&peer);
        let effects = self.broadcasts.on_neighbors(scope!(self, cx));
        self.carry_out(effects, cx);
        self.neighborhood.look_for_neighbors(narrow_scope!(self, cx));
    }

    /// This node has a neighbor that it requested.
    pub(super) fn on_attached(&mut self, cx: &mut Context) {
        if self.neighborhood.attach(cx.now) {
            self.syncs.on_attached(scope!(self, cx));
        }
    }
}
