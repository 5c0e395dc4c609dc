//! The world around one component, for its unit tests: no network, no other component.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::{
    contacts::{Contacts, peers::Peers},
    effect::NewRecord,
    scope::{NarrowScope, NarrowView, Scope, View},
};
use crate::{
    Config, EndpointId, Identity, Lane, LinkId, OutEvent, TopicEvent,
    book::{Applied, Book, Source},
    context::Context,
    tests::{ME, id, key, signed, topic},
    wire::{Frame, Hello, TopicFrame},
};

/// All that a [`Scope`] borrows. A test sets what the component sees.
// Each of its bools is a fact of another component.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct World {
    pub(super) config: Config,
    pub(super) book: Book,
    pub(super) neighbors: BTreeSet<EndpointId>,
    pub(super) attached: Option<Instant>,
    pub(super) peers: Peers,
    pub(super) synced: bool,
    pub(super) syncing: bool,
    pub(super) introducing: Option<u64>,
    pub(super) has_newcomers: bool,
    pub(super) leaving: bool,
    pub(super) cx: Context,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let identity = Identity { key: key(ME), boot_id: 1, sequence: 100, reserved: 1 << 40 };
        let config = Config::default();
        Self {
            book: Book::new(id(ME), config.capacity, now),
            config,
            neighbors: BTreeSet::new(),
            attached: None,
            peers: Peers::default(),
            synced: false,
            syncing: false,
            introducing: None,
            has_newcomers: false,
            leaving: false,
            cx: Context::new(identity, [7; 32], now),
        }
    }

    pub(super) fn scope(&mut self) -> Scope<'_> {
        Scope {
            topic: topic(),
            config: &self.config,
            book: &mut self.book,
            peers: &mut self.peers,
            view: View {
                neighbors: &self.neighbors,
                attached: self.attached,
                synced: self.synced,
                syncing: self.syncing,
                introducing: self.introducing,
                has_newcomers: self.has_newcomers,
                leaving: self.leaving,
            },
            cx: &mut self.cx,
        }
    }

    pub(super) fn narrow_scope(&mut self) -> NarrowScope<'_> {
        Scope {
            topic: topic(),
            config: &self.config,
            book: &mut self.book,
            peers: &mut self.peers,
            view: NarrowView { syncing: self.syncing, leaving: self.leaving },
            cx: &mut self.cx,
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.cx.now += time;
    }

    /// The user named a peer.
    pub(super) fn names(&mut self, number: u8) {
        let peers = vec![(id(number), Vec::new())];
        Contacts::new(&self.config.clone()).add_bootstrap(peers, &mut self.scope());
        self.out();
    }

    /// Gives a peer a usable link.
    pub(super) fn links(&mut self, number: u8) {
        let (link, now) = (LinkId(number.into()), self.cx.now);
        self.cx.links.opened(link, (id(number), None), true, now);
        let hello = Hello { min_version: 1, max_version: 1, boot_id: 1, features: 0 };
        self.cx.links.received(link, Lane::Control, &Frame::Hello(hello).encode(), now);
        Contacts::new(&self.config.clone()).opened(id(number), &mut self.scope());
        self.out();
    }

    /// Returns the frames of the topic that were sent since the last call, and to which peer.
    pub(super) fn sent(&mut self) -> Vec<(EndpointId, TopicFrame)> {
        let peers = self.peers.linked().clone();
        let links: BTreeMap<_, _> =
            peers.iter().filter_map(|peer| Some((self.cx.links.current(peer)?, *peer))).collect();
        let frame = |out| match out {
            OutEvent::Send(link, _, bytes) => match Frame::decode(&bytes) {
                Ok(Some(Frame::Topic(_, TopicFrame::Open(_)))) => None,
                Ok(Some(Frame::Topic(_, frame))) => Some((*links.get(&link)?, frame)),
                _ => None,
            },
            _ => None,
        };
        self.out().into_iter().filter_map(frame).collect()
    }

    /// Puts a member into the book.
    pub(super) fn knows(&mut self, number: u8) {
        self.book.apply(signed(number, 1), Duration::ZERO, self.cx.now);
    }

    /// Puts a member into the book that another peer told of.
    pub(super) fn hears_of(&mut self, number: u8) {
        let hearsay = Source::Hearsay(id(ME - 1));
        self.book.apply_from(hearsay, signed(number, 1), Duration::ZERO, self.cx.now);
    }

    /// Makes a member count as dead.
    pub(super) fn loses(&mut self, number: u8) {
        self.book.mark_dead(&id(number), Bytes::new(), self.cx.now);
    }

    /// Returns the effects since the last call.
    pub(super) fn out(&mut self) -> Vec<OutEvent> {
        self.cx.links.out.drain(..).collect()
    }

    pub(super) fn events(&mut self) -> Vec<TopicEvent> {
        let event = |out| if let OutEvent::Topic(_, event) = out { Some(event) } else { None };
        self.out().into_iter().filter_map(event).collect()
    }

    pub(super) fn dropped(&mut self) -> Vec<&'static str> {
        let what =
            |out| if let OutEvent::Dropped { what, .. } = out { Some(what.label()) } else { None };
        self.out().into_iter().filter_map(what).collect()
    }
}

/// Makes what follows the record of a node that it sent itself.
pub(super) fn new_record(number: u8, applied: Applied) -> NewRecord {
    NewRecord { record: Arc::clone(signed(number, 1).record()), applied, from: id(number) }
}
