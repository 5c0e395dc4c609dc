//! One topic of this endpoint: a router of frames and timers to the components that own the state.
//!
//! A newcomer first syncs with a bootstrap peer, then enters the overlay through one random member
//! of the book that it got. What it announces goes to all members through the overlay. Syncs bring
//! what the overlay missed.

/// Makes what a component of a topic sees while it is called. The macro borrows only what is
/// shared, so that the component itself can be changed meanwhile.
macro_rules! scope {
    ($topic:ident, $cx:ident) => {
        &mut $crate::topic::scope::Scope {
            topic: $topic.id,
            config: &$topic.config,
            book: &mut $topic.book,
            peers: &mut $topic.peers,
            view: $crate::topic::scope::View {
                neighbors: $topic.neighborhood.neighbors(),
                attached: $topic.neighborhood.attached(),
                synced: $topic.contacts.is_synced(),
                syncing: $topic.syncs.is_syncing(),
                has_newcomers: $topic.syncs.has_newcomers(),
                leaving: $topic.leave.is_begun(),
            },
            cx: $cx,
        }
    };
}

/// As `scope!`, for the component that owns the neighbors.
macro_rules! narrow_scope {
    ($topic:ident, $cx:ident) => {
        &mut $crate::topic::scope::Scope {
            topic: $topic.id,
            config: &$topic.config,
            book: &mut $topic.book,
            peers: &mut $topic.peers,
            view: $crate::topic::scope::NarrowView { leaving: $topic.leave.is_begun() },
            cx: $cx,
        }
    };
}

mod announce;
mod broadcast;
mod contacts;
mod disseminate;
mod effect;
mod failure;
mod guard;
mod heal;
mod ingest;
mod inspect;
mod leave;
mod overlay;
mod records;
mod revocations;
mod scope;
mod seen;
mod sync;
#[cfg(test)]
mod world;

pub use inspect::Inspect;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh_base::TransportAddr;
use rand::RngExt;
use tokio::time::Instant;

use crate::{
    book::{Applied, Book},
    channel::Channel,
    config::Config,
    dials::Trust,
    error::Error,
    event::{CloseCode, LinkEnd, LinkId, LostReason, OutEvent, TopicEvent, TopicOptions},
    id::{EndpointId, TopicId},
    kept::Kept,
    links::Need,
    overlay::Overlay,
    record::Profile,
    state::Context,
    wire::{OverlayFrame, SyncFrame, TopicFrame},
};

use self::{
    contacts::peers::Peers,
    effect::{Effect, Effects, NewRecord},
    scope::{Scope, log},
};

#[derive(Debug)]
pub(crate) struct Topic {
    id: TopicId,
    config: Config,
    announcer: announce::Announcer,
    leave: leave::Leave,
    book: Book,
    neighborhood: overlay::Neighborhood,
    ingest: ingest::Ingest,
    broadcasts: broadcast::Broadcasts,
    contacts: contacts::Contacts,
    peers: Peers,
    syncs: sync::Syncs,
    dissemination: disseminate::Dissemination,
    detector: failure::Detector,
    healing: heal::Healing,
    revocations: revocations::Revocations,
}

/// A timer of a component that may be due.
#[derive(Debug, Clone, Copy)]
enum Timeout {
    Dissemination(disseminate::Timer),
    Announcer,
    Contacts,
    Neighborhood,
    Syncs(sync::Timer),
    Detector,
    Healing,
    Broadcasts,
    Leave,
}

/// If several timers are due at once, as after a pause, they run in this order: what other nodes
/// wait for precedes what this node does for itself.
const TIMEOUTS: [Timeout; 14] = [
    Timeout::Dissemination(disseminate::Timer::Batch),
    Timeout::Dissemination(disseminate::Timer::Deferred),
    Timeout::Syncs(sync::Timer::Trickle),
    Timeout::Syncs(sync::Timer::Digest),
    Timeout::Announcer,
    Timeout::Contacts,
    Timeout::Neighborhood,
    Timeout::Syncs(sync::Timer::RandomSync),
    Timeout::Syncs(sync::Timer::Sessions),
    Timeout::Syncs(sync::Timer::Observe),
    Timeout::Detector,
    Timeout::Healing,
    Timeout::Broadcasts,
    Timeout::Leave,
];

impl Topic {
    pub(crate) fn join(
        id: TopicId,
        options: TopicOptions,
        cx: &mut Context,
    ) -> Result<Self, Error> {
        options.profile.validate()?;
        options.config.validate()?;
        let TopicOptions { profile, config } = options;
        let book = Book::new(cx.me, config.capacity, cx.now).without(cx.off);
        let overlay = Overlay::new(cx.me, config.neighbors, cx.rng.random());
        let mut topic = Self {
            id,
            announcer: announce::Announcer::new(profile),
            leave: leave::Leave::default(),
            book,
            neighborhood: overlay::Neighborhood::new(overlay),
            ingest: ingest::Ingest::new(config.capacity),
            broadcasts: broadcast::Broadcasts::new(cx.now),
            contacts: contacts::Contacts::new(&config),
            peers: Peers::default(),
            syncs: sync::Syncs::new(&config),
            dissemination: disseminate::Dissemination::default(),
            detector: failure::Detector::default(),
            healing: heal::Healing::default(),
            revocations: revocations::Revocations::default(),
            config,
        };
        topic.book.set_access(cx.links.access());
        topic.announce(cx);
        topic.syncs.on_joined(scope!(topic, cx));
        Ok(topic)
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let of_components = [
            self.neighborhood.next_timeout(),
            self.dissemination.next_timeout(),
            self.announcer.next_timeout(),
            self.contacts.next_timeout(),
            self.syncs.next_timeout(),
            self.detector.next_timeout(),
            self.healing.next_timeout(),
            self.broadcasts.next_timeout(),
            self.leave.next_timeout(),
            self.neighborhood.machine_timeout(),
            self.book.next_expiry(),
        ];
        of_components.into_iter().flatten().min()
    }

    pub(crate) fn link_idle(&self) -> Duration {
        self.config.link_idle
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context) {
        while let Some(due) = TIMEOUTS.iter().find(|due| self.is_due(**due, cx.now)) {
            self.on_timeout(*due, cx);
        }
        self.expire(cx);
        self.in_overlay(cx, Overlay::on_timer);
    }

    fn is_due(&self, due: Timeout, now: Instant) -> bool {
        let at = match due {
            Timeout::Dissemination(timer) => self.dissemination.timeout(timer),
            Timeout::Announcer => self.announcer.next_timeout(),
            Timeout::Contacts => self.contacts.next_timeout(),
            Timeout::Neighborhood => self.neighborhood.next_timeout(),
            Timeout::Syncs(timer) => self.syncs.timeout(timer),
            Timeout::Detector => self.detector.next_timeout(),
            Timeout::Healing => self.healing.next_timeout(),
            Timeout::Broadcasts => self.broadcasts.next_timeout(),
            Timeout::Leave => self.leave.next_timeout(),
        };
        at.is_some_and(|at| at <= now)
    }

    fn on_timeout(&mut self, due: Timeout, cx: &mut Context) {
        let effects = match due {
            Timeout::Dissemination(disseminate::Timer::Batch) => {
                self.dissemination.on_batch(scope!(self, cx))
            }
            Timeout::Dissemination(disseminate::Timer::Deferred) => {
                let compared = self.syncs.compared();
                self.dissemination.on_deferred(&compared, scope!(self, cx))
            }
            Timeout::Announcer => self.announcer.on_timeout(scope!(self, cx)),
            Timeout::Contacts => self.contacts.on_timeout(scope!(self, cx)),
            Timeout::Neighborhood => {
                let effects = self.neighborhood.on_timeout(narrow_scope!(self, cx));
                self.carry_out(effects, cx);
                return self.drive_overlay(cx);
            }
            Timeout::Syncs(timer) => self.syncs.on_timeout(timer, scope!(self, cx)),
            Timeout::Detector => self.detector.on_timeout(scope!(self, cx)),
            Timeout::Healing => self.healing.on_timeout(scope!(self, cx)),
            Timeout::Broadcasts => self.broadcasts.on_timeout(scope!(self, cx)),
            Timeout::Leave => self.leave.on_timeout(),
        };
        self.carry_out(effects, cx);
    }

    /// Carries out what a component requested of others. Each effect is carried out, with all that
    /// follows from it, before the next one.
    fn carry_out(&mut self, effects: Effects, cx: &mut Context) {
        for effect in effects.into_inner() {
            match effect {
                Effect::Accuse(accusation) => {
                    self.dissemination.accuse(accusation, scope!(self, cx));
                }
                Effect::Applied(new) => self.on_applied(&new, cx),
                Effect::Attached => self.on_attached(cx),
                Effect::Avoid(peer) => self.contacts.avoid(peer, scope!(self, cx)),
                Effect::Broadcast(content) => {
                    self.in_overlay(cx, |overlay, now| overlay.broadcast(content, now));
                }
                Effect::Close(peer, code) => cx.links.close_peer(&peer, code),
                Effect::Contact(peer) => self.contact(peer, cx),
                Effect::Disseminate(id) => self.disseminate(id, cx),
                Effect::DropNeighbor(peer) => {
                    self.in_overlay(cx, |overlay, now| overlay.link_lost(peer, now));
                }
                Effect::Gone(peer) => self.on_gone(peer, cx),
                Effect::Ingest { record, age, from } => {
                    self.on_aged_record(&record, age, from, cx);
                }
                Effect::Introduced => self.dissemination.spared(&cx.me),
                Effect::JoinOverlay(peer) => {
                    self.in_overlay(cx, |overlay, now| overlay.join(peer, now));
                }
                Effect::Lost(peer) => {
                    self.on_gone(peer, cx);
                    self.on_loss(cx);
                }
                Effect::Outrun(record) => self.announcer.outrun(&record, scope!(self, cx)),
                Effect::Push(pushes) => self.syncs.push(pushes, scope!(self, cx)),
                Effect::QuitOverlay => {
                    self.in_overlay(cx, Overlay::quit);
                }
                Effect::Refute { sequence, from } => {
                    let effects = self.announcer.refute(sequence, from, scope!(self, cx));
                    self.carry_out(effects, cx);
                }
                Effect::SetRecord(record) => {
                    self.in_overlay(cx, |overlay, now| overlay.set_record(&record, now));
                }
                Effect::Sync(peer) => {
                    let effects = self.syncs.start(peer, scope!(self, cx));
                    self.carry_out(effects, cx);
                }
                Effect::Synced { peer, differed } => {
                    self.healing.on_synced(peer, differed, scope!(self, cx));
                    self.contacts.synced(scope!(self, cx));
                    self.neighborhood.enter_after_sync(narrow_scope!(self, cx));
                }
                Effect::SyncFailed => self.contacts.sync_failed(scope!(self, cx)),
            }
        }
    }

    /// A record that was new here is in the book: what each component does then.
    fn on_applied(&mut self, new: &NewRecord, cx: &mut Context) {
        self.contacts.on_applied(new, scope!(self, cx));
        if new.applied == Applied::Joined {
            self.neighborhood.view_grows(narrow_scope!(self, cx));
        }
        let effects = self.detector.on_newer_record(&new.record, scope!(self, cx));
        self.carry_out(effects, cx);
        self.dissemination.on_applied(new, scope!(self, cx));
        self.syncs.on_applied(new, scope!(self, cx));
        self.neighborhood.enter_soon(narrow_scope!(self, cx));
    }

    /// A node left, was lost, or made room for another one.
    fn on_gone(&mut self, id: EndpointId, cx: &mut Context) {
        self.syncs.forget_newcomer(&id);
        self.detector.on_gone(&id);
        self.contacts.on_gone(&id, scope!(self, cx));
    }

    /// Sends the best record of a node to all members, at once.
    fn disseminate(&mut self, id: EndpointId, cx: &mut Context) {
        self.dissemination.send_after(Duration::ZERO, id, scope!(self, cx));
    }

    /// Makes the overlay do something, and carries out what it requests then.
    fn in_overlay(&mut self, cx: &mut Context, act: impl FnOnce(&mut Overlay, Instant)) {
        act(self.neighborhood.machine(), cx.now);
        self.drive_overlay(cx);
    }

    /// Announces this node's record as it should be now.
    pub(crate) fn announce(&mut self, cx: &mut Context) {
        let effects = self.announcer.announce(scope!(self, cx));
        self.carry_out(effects, cx);
    }

    pub(crate) fn announce_if_pending(&mut self, cx: &mut Context) {
        let effects = self.announcer.announce_if_pending(scope!(self, cx));
        self.carry_out(effects, cx);
    }

    pub(crate) fn set_profile(&mut self, profile: Profile, cx: &mut Context) -> Result<(), Error> {
        let effects = self.announcer.set_profile(profile, scope!(self, cx))?;
        self.carry_out(effects, cx);
        Ok(())
    }

    /// Starts to leave. [`Topic::is_done`] returns true once nothing is left to do.
    pub(crate) fn leave(&mut self, cx: &mut Context) {
        if self.leave.is_begun() {
            return;
        }
        let record = self.announcer.stop(scope!(self, cx));
        self.neighborhood.stop();
        self.syncs.stop();
        self.dissemination.stop();
        self.detector.stop(scope!(self, cx));
        self.healing.stop();
        self.contacts.stop();
        let effects = self.leave.begin(record, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    fn leave_acknowledged(&mut self, peer: EndpointId, sequence: u64, cx: &mut Context) {
        let effects = self.leave.acknowledged(peer, sequence);
        self.carry_out(effects, cx);
    }

    /// A peer is gone, or can't be reached: the leave of this node does not wait for it.
    fn leave_without(&mut self, peer: EndpointId, cx: &mut Context) {
        let effects = self.leave.gone(peer);
        self.carry_out(effects, cx);
    }

    /// A peer leaves. Its leave is forwarded, and is acknowledged even if it is not new here.
    fn on_leave(&mut self, record: &Bytes, peer: EndpointId, cx: &mut Context) {
        let Ok(taken) = self.on_record(record, peer, cx) else { return };
        if taken.id == peer {
            if taken.applied.is_news() {
                self.disseminate(peer, cx);
            }
            if let Some(sequence) = self.book.sequence(&peer) {
                cx.links.send(&peer, self.id, TopicFrame::LeaveAck(sequence), cx.now);
            }
        }
    }

    pub(crate) fn add_bootstrap(
        &mut self,
        peers: Vec<(EndpointId, Vec<TransportAddr>)>,
        cx: &mut Context,
    ) {
        self.contacts.add_bootstrap(peers, scope!(self, cx));
    }

    pub(crate) fn remove_bootstrap(&mut self, peers: &[EndpointId], cx: &mut Context) {
        self.contacts.remove_bootstrap(peers, scope!(self, cx));
    }

    /// A lookup on the local network found a peer.
    pub(crate) fn found(
        &mut self,
        peer: EndpointId,
        addresses: Vec<TransportAddr>,
        cx: &mut Context,
    ) {
        self.contacts.found(peer, addresses, scope!(self, cx));
    }

    /// A handshake at an address behind a bootstrap name proved a peer's id.
    pub(crate) fn learned(&mut self, peer: EndpointId, address: TransportAddr, cx: &mut Context) {
        let effects = self.contacts.learned(peer, address, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// Takes in records that an earlier life had in its book. Their owners are dialed at those
    /// addresses until they confirm that they are alive, or until the records age out.
    pub(crate) fn remember(&mut self, records: Vec<Kept>, cx: &mut Context) {
        let mut news = false;
        for Kept { signed, left, established } in records {
            news |= self.book.remember(signed, left, established, cx.now);
        }
        if !news || self.leave.is_begun() {
            return;
        }
        if self.peers.is_alone() {
            self.contacts.on_kept(scope!(self, cx));
        } else {
            self.on_loss(cx);
        }
    }

    fn expire(&mut self, cx: &mut Context) {
        for record in self.book.expire(cx.now) {
            if self.book.admits(&record.id) {
                log(self.id, &record, "peer lost: expired");
            }
            self.on_gone(record.id, cx);
            cx.emit(self.id, TopicEvent::PeerLost(record, LostReason::Expired));
            self.on_loss(cx);
        }
    }

    /// A member was lost: it is dialed now and then.
    fn on_loss(&mut self, cx: &mut Context) {
        self.healing.on_loss(scope!(self, cx));
    }

    /// Syncs with a peer, over a link that may have to be dialed first.
    fn contact(&mut self, peer: EndpointId, cx: &mut Context) {
        if self.syncs.is_asking(&peer) {
            return;
        }
        let asked = self.contacts.dial(peer, scope!(self, cx));
        let effects = self.syncs.contact(peer, asked, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    fn on_sync(&mut self, peer: EndpointId, link: LinkId, frame: &SyncFrame, cx: &mut Context) {
        let Some(effects) = self.syncs.admit(peer, link, frame, scope!(self, cx)) else { return };
        self.carry_out(effects, cx);
        let Some(brought) = self.on_entries(frame, peer, cx) else { return };
        let effects = self.syncs.on_frame(peer, link, frame, brought, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// The partner of a sync is busy, and names other members: one of them is asked.
    fn on_busy(&mut self, records: &[Bytes], peer: EndpointId, cx: &mut Context) {
        if !self.syncs.on_busy(peer) {
            return;
        }
        if self.config.observer {
            self.syncs.source_gone(&peer, scope!(self, cx));
        }
        self.on_records(records, peer, cx);
        let scope: &mut Scope = scope!(self, cx);
        let other = scope.random_members(1, &BTreeSet::from([peer])).first().copied();
        if scope.config.observer {
            scope.emit(TopicEvent::Busy { peer, next: other });
        }
        if let Some(other) = other {
            self.contact(other, cx);
        }
        self.contacts.partner_busy(scope!(self, cx));
    }

    /// A link that was no longer in use is gone: the syncs on it end.
    pub(crate) fn link_gone(&mut self, peer: EndpointId, link: LinkId, cx: &mut Context) {
        let effects = self.syncs.link_gone(peer, link, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// Sends data of the application to all members.
    pub(crate) fn broadcast(
        &mut self,
        channel: Option<&Channel>,
        data: &[u8],
        cx: &mut Context,
    ) -> Result<(), Error> {
        let effects = self.broadcasts.send(channel, data, scope!(self, cx))?;
        self.carry_out(effects, cx);
        Ok(())
    }

    /// See [`Scope::refuse`].
    fn refuse(&mut self, error: &Error, from: EndpointId, cx: &mut Context) {
        let scope: &mut Scope = scope!(self, cx);
        scope.refuse(error, from);
    }

    /// Delivers a broadcast of another member. Returns true if the overlay has to forward it.
    fn judge_broadcast(&mut self, content: &Bytes, from: EndpointId, cx: &mut Context) -> bool {
        self.broadcasts.judge(content, from, scope!(self, cx))
    }

    /// A neighbor came or went.
    fn on_neighbors(&mut self, cx: &mut Context) {
        let effects = self.broadcasts.on_neighbors(scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// Returns how much this topic needs the link to a peer.
    pub(crate) fn needs(&self, peer: &EndpointId) -> Need {
        if self.neighborhood.is_neighbor(peer) {
            return Need::UntilTouched;
        }
        let for_now = self.neighborhood.needs(peer)
            || self.syncs.needs(peer)
            || self.detector.needs(peer)
            || self.leave.is_begun();
        if for_now { Need::ForNow } else { Need::Nothing }
    }

    pub(crate) fn speaks_with(&self, peer: &EndpointId) -> bool {
        self.peers.is_linked(peer) || self.needs(peer) != Need::Nothing
    }

    pub(crate) fn into_peers(self) -> BTreeSet<EndpointId> {
        self.peers.linked().iter().copied().chain(self.leave.into_notified()).collect()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.leave.is_done()
    }

    /// A peer gave a sign of life.
    pub(crate) fn heard(&mut self, peer: EndpointId, cx: &mut Context) {
        let effects = self.detector.heard(peer, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// Returns how long a probe waits for an answer, by the setting.
    pub(crate) fn probe_time(&self) -> Duration {
        self.config.probe_timeout
    }

    /// This node's network changed, or is away.
    pub(crate) fn on_network_change(&mut self, away: bool, cx: &mut Context) {
        self.detector.on_network_change(scope!(self, cx));
        if !away && !self.leave.is_begun() {
            self.contacts.on_network_change(scope!(self, cx));
            self.on_loss(cx);
        }
    }

    /// This node was paused.
    pub(crate) fn on_pause(&mut self, late: Duration, cx: &mut Context) {
        self.detector.on_pause(late, scope!(self, cx));
    }

    /// A peer has a usable link.
    pub(crate) fn link_up(&mut self, peer: EndpointId, cx: &mut Context) {
        self.book.reach(&peer);
        self.contacts.link_up(&peer, scope!(self, cx));
        self.heard(peer, cx);
        self.leave.link_up(peer, scope!(self, cx));
        let effects = self.syncs.link_up(peer, scope!(self, cx));
        self.carry_out(effects, cx);
        self.neighborhood.link_up(&peer, narrow_scope!(self, cx));
        if self.needs(&peer) != Need::Nothing {
            cx.links.touch(&peer, self.config.link_idle, cx.now);
        }
    }

    /// The link in use with a peer is gone.
    pub(crate) fn link_down(&mut self, peer: EndpointId, end: LinkEnd, cx: &mut Context) {
        if self.peers.is_linked(&peer) {
            let (topic, peer) = (self.id.fmt_short(), peer.fmt_short());
            tracing::debug!(%topic, %peer, ?end, "link down");
        }
        self.forget_partner(peer, cx);
        // A link that ended by a leave, a refusal or a better link says nothing against the peer.
        let broken =
            matches!(end, LinkEnd::TimedOut | LinkEnd::Lost | LinkEnd::Remote(CloseCode::Shutdown));
        if broken {
            self.detector.link_broken(peer, scope!(self, cx));
        }
        self.contacts.link_down(&peer, end, scope!(self, cx));
    }

    /// A peer no longer speaks of this topic.
    fn forget_partner(&mut self, peer: EndpointId, cx: &mut Context) {
        let was_syncing = self.syncs.unlinked(peer);
        self.syncs.source_gone(&peer, scope!(self, cx));
        self.detector.forget_link(&peer);
        self.neighborhood.unlinked(peer, narrow_scope!(self, cx));
        self.drive_overlay(cx);
        self.contacts.unlinked(&peer, was_syncing, scope!(self, cx));
        self.forget_answered(&peer);
        self.leave_without(peer, cx);
    }

    /// A dial failed.
    pub(crate) fn dial_failed(&mut self, peer: EndpointId, cx: &mut Context) {
        self.syncs.dial_failed(&peer);
        self.neighborhood.dial_failed(&peer);
        self.contacts.avoid(peer, scope!(self, cx));
        self.healing.dial_failed(&peer);
        self.detector.dial_failed(peer, scope!(self, cx));
        self.leave_without(peer, cx);
    }

    /// A frame about this topic.
    pub(crate) fn receive(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        frame: TopicFrame,
        cx: &mut Context,
    ) {
        if !matches!(frame, TopicFrame::Closed | TopicFrame::Leave(_) | TopicFrame::LeaveAck(_)) {
            // The peer may have opened the topic before this node joined it.
            self.opened(peer, cx);
        }
        if matches!(
            frame,
            TopicFrame::Sync(_)
                | TopicFrame::Digest(_)
                | TopicFrame::Overlay(OverlayFrame::Gossip { .. } | OverlayFrame::IHave(_))
        ) {
            self.neighborhood.heard(&peer);
        }
        match frame {
            TopicFrame::Open(_) => {}
            TopicFrame::Closed => {
                let (topic, peer_id) = (self.id.fmt_short(), peer.fmt_short());
                tracing::debug!(%topic, peer = %peer_id, "topic is not served there");
                cx.emit(self.id, TopicEvent::NotServed(peer));
                self.contacts.avoid(peer, scope!(self, cx));
                self.forget_partner(peer, cx);
            }
            TopicFrame::LeaveAck(sequence) => self.leave_acknowledged(peer, sequence, cx),
            TopicFrame::Leave(record) => {
                self.on_leave(&record, peer, cx);
                // A peer that leaves at the same time need not acknowledge this node's leave.
                self.leave_without(peer, cx);
            }
            _ if self.leave.is_begun() => {}
            TopicFrame::Overlay(frame) => self.on_overlay(peer, frame, cx),
            TopicFrame::Push(records) => self.on_records(&records, peer, cx),
            TopicFrame::Attached => {
                self.syncs.forget_newcomer(&peer);
            }
            TopicFrame::Sync(frame) => self.on_sync(peer, link, &frame, cx),
            TopicFrame::Busy(records) => self.on_busy(&records, peer, cx),
            TopicFrame::ProbeRequest(about) => {
                self.detector.on_probe_request(about, peer, scope!(self, cx));
            }
            TopicFrame::ProbeAck(about) => {
                self.detector.on_probe_ack(about, peer, scope!(self, cx));
            }
            TopicFrame::Digest(digest) => {
                let effects = self.syncs.on_digest(digest, peer, scope!(self, cx));
                self.carry_out(effects, cx);
            }
            TopicFrame::Revoked { all, revocations } => {
                self.on_revoked(peer, all, &revocations, cx);
            }
            TopicFrame::Accuse(accusations) => {
                for accusation in &accusations {
                    if self.on_accusation(accusation, peer, false, cx).is_err() {
                        break;
                    }
                }
            }
        }
    }

    /// Dials another link to a member whose link is silent.
    pub(crate) fn open_another(&mut self, peer: EndpointId, cx: &mut Context) {
        let scope: &mut Scope = scope!(self, cx);
        if let Some(addresses) = scope.addresses(&peer) {
            let named = scope.peers.named(&peer);
            scope.cx.links.open_another(peer, &addresses, named, scope.cx.now);
        }
    }

    /// The access lists of this endpoint changed.
    pub(crate) fn on_access(&mut self, cx: &mut Context) {
        let (hidden, shown) = self.book.set_access(cx.links.access());
        for record in hidden {
            log(self.id, &record, "peer lost: kept out");
            let lost = TopicEvent::PeerLost(record, LostReason::Denied);
            cx.links.out.push_back(OutEvent::Topic(self.id, lost));
        }
        let any_shown = !shown.is_empty();
        for record in shown {
            log(self.id, &record, "peer joined: admitted");
            cx.emit(self.id, TopicEvent::PeerJoined(Arc::clone(&record)));
            self.detector.on_shown(&record, scope!(self, cx));
        }
        if self.leave.is_begun() {
            return;
        }
        if any_shown {
            self.neighborhood.view_grows(narrow_scope!(self, cx));
            self.neighborhood.enter_soon(narrow_scope!(self, cx));
        }
        self.contacts.on_access(scope!(self, cx));
    }

    /// The application wants a link to a peer, which may be any.
    pub(crate) fn connect(&mut self, peer: EndpointId, cx: &mut Context) {
        let scope: &mut Scope = scope!(self, cx);
        let known = scope.addresses(&peer);
        let addresses = known.or_else(|| self.detector.unconfirmed_addresses(&peer));
        let addresses = addresses.unwrap_or_default();
        cx.links.ask(peer, &addresses, &[], Trust::Asked, cx.now);
    }
}
