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
                introducing: $topic.syncs.introducing(),
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
            view: $crate::topic::scope::NarrowView {
                syncing: $topic.syncs.is_syncing(),
                leaving: $topic.leave.is_begun(),
            },
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
mod frames;
mod guard;
mod heal;
mod ingest;
mod inspect;
mod leave;
mod links;
mod overlay;
mod records;
mod requests;
mod revocations;
mod scope;
mod seen;
mod sync;
#[cfg(test)]
mod world;

pub use inspect::Inspect;

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use crate::{
    book::{Applied, Book},
    config::Config,
    context::Context,
    error::Error,
    event::{LostReason, TopicEvent, TopicOptions},
    id::{EndpointId, TopicId},
    overlay::Overlay,
};

use self::{
    contacts::peers::Peers,
    effect::{Effect, Effects, NewRecord},
    ingest::{Incoming, Way},
    scope::log,
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

    pub(crate) fn on_timer(&mut self, cx: &mut Context) {
        while let Some(due) = TIMEOUTS.iter().find(|due| self.is_due(**due, cx.now)) {
            self.on_timeout(*due, cx);
        }
        self.expire(cx);
        self.in_overlay(cx, Overlay::on_timer);
        debug_assert!(
            self.book.next_expiry().is_none_or(|at| at > cx.now),
            "a timer that was served is not due again at once"
        );
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
                Effect::Disseminate(id) => {
                    self.dissemination.send_after(Duration::ZERO, id, scope!(self, cx));
                }
                Effect::DropNeighbor(peer) => {
                    self.in_overlay(cx, |overlay, now| overlay.link_lost(peer, now));
                }
                Effect::Gone(peer) => self.on_gone(peer, cx),
                Effect::Ingest { record, age, from } => {
                    let incoming = Incoming { bytes: &record, age, way: Way::Forwarded, from };
                    // A record that does not verify closes the link. Nothing else depends on it.
                    let _ = self.take_in(incoming, cx);
                }
                Effect::Introduced => self.dissemination.spared(&cx.me),
                Effect::IntroductionOver => {
                    self.dissemination.introduction_over(scope!(self, cx));
                }
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
        debug_assert!(new.applied.is_news(), "nothing follows from a record that is held already");
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
        debug_assert!(self.book.get(&id).is_none(), "a node that is gone is no member");
        self.syncs.forget_newcomer(&id);
        self.detector.on_gone(&id);
        self.contacts.on_gone(&id, scope!(self, cx));
    }

    /// Makes the overlay do something, and carries out what it requests then.
    fn in_overlay(&mut self, cx: &mut Context, act: impl FnOnce(&mut Overlay, Instant)) {
        act(self.neighborhood.machine(), cx.now);
        self.drive_overlay(cx);
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
}
