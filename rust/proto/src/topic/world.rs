//! The world around one component, for its unit tests: no network, no other component.

use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::{
    scope::{Avoided, Scope, View},
    suspect::Suspicions,
};
use crate::{
    Config, EndpointId, Identity, OutEvent, TopicEvent,
    book::Book,
    state::Context,
    tests::{ME, id, key, signed, topic},
};

/// All that a [`Scope`] borrows. A test sets what the component is to see.
pub(super) struct World {
    pub(super) config: Config,
    pub(super) book: Book,
    pub(super) neighbors: BTreeSet<EndpointId>,
    pub(super) attached: Option<Instant>,
    pub(super) suspicions: Suspicions,
    pub(super) avoided: Avoided,
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
            suspicions: Suspicions::default(),
            avoided: Avoided::new(),
            leaving: false,
            cx: Context::new(identity, [7; 32], now),
        }
    }

    pub(super) fn scope(&mut self) -> Scope<'_> {
        Scope {
            topic: topic(),
            config: &self.config,
            book: &mut self.book,
            view: View {
                neighbors: &self.neighbors,
                attached: self.attached,
                suspicions: &self.suspicions,
                avoided: &self.avoided,
                leaving: self.leaving,
            },
            cx: &mut self.cx,
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.cx.now += time;
    }

    /// A member is in the book from now on.
    pub(super) fn knows(&mut self, number: u8) {
        self.book.apply(signed(number, 1), Duration::ZERO, self.cx.now);
    }

    /// A member is held to be dead from now on.
    pub(super) fn loses(&mut self, number: u8) {
        self.book.kill(&id(number), Bytes::new(), self.cx.now);
    }

    /// What came out since the last look.
    pub(super) fn out(&mut self) -> Vec<OutEvent> {
        self.cx.links.out.drain(..).collect()
    }

    pub(super) fn events(&mut self) -> Vec<TopicEvent> {
        let event = |out| if let OutEvent::Topic(_, event) = out { Some(event) } else { None };
        self.out().into_iter().filter_map(event).collect()
    }

    pub(super) fn dropped(&mut self) -> Vec<&'static str> {
        let what = |out| if let OutEvent::Dropped { what, .. } = out { Some(what) } else { None };
        self.out().into_iter().filter_map(what).collect()
    }
}
