//! What a component of a topic sees and may use, besides its own state.

use std::{collections::BTreeSet, time::Duration};

use iroh_base::TransportAddr;
use rand::seq::IteratorRandom;
use tokio::time::Instant;

use super::contacts::peers::Peers;
use crate::{
    book::Book,
    config::Config,
    error::Error,
    event::{CloseCode, TopicEvent},
    id::{EndpointId, TopicId},
    links::Asked,
    record::NodeRecord,
    state::Context,
    wire::TopicFrame,
};

/// A book that did not change for this long is settled: gossip has passed.
pub(super) const SETTLED: Duration = Duration::from_millis(250);
/// A book that never settles is compared as well, this often.
pub(super) const RESTLESS: Duration = Duration::from_secs(5);

/// The world of a component for the time of one call: the book, the links, time and chance.
///
/// A component changes nothing of another one. What it wants others to do, it returns as
/// [`Effects`](super::effect::Effects).
#[derive(Debug)]
pub(super) struct Scope<'a, V = View<'a>> {
    pub(super) topic: TopicId,
    pub(super) config: &'a Config,
    pub(super) book: &'a mut Book,
    /// Peers that could be reached. Only the contacts can change it.
    pub(super) peers: &'a mut Peers,
    pub(super) view: V,
    /// The links, time, chance and counts, which all topics of an endpoint share.
    pub(super) cx: &'a mut Context,
}

/// What other components know, to be read only.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// The active view of the overlay.
    pub(super) neighbors: &'a BTreeSet<EndpointId>,
    /// Since when this node is in the overlay.
    pub(super) attached: Option<Instant>,
    /// A sync that this node began was completed since it last was without links.
    pub(super) synced: bool,
    /// Peers that are not in the overlay yet wait for pushes.
    pub(super) has_newcomers: bool,
    /// This node leaves the topic.
    pub(super) leaving: bool,
}

/// The scope of the component that owns the neighbors: it can't be lent them.
pub(super) type NarrowScope<'a> = Scope<'a, NarrowView>;

#[derive(Debug, Clone, Copy)]
pub(super) struct NarrowView {
    /// This node leaves the topic.
    pub(super) leaving: bool,
}

impl<V> Scope<'_, V> {
    pub(super) fn now(&self) -> Instant {
        self.cx.now
    }

    pub(super) fn me(&self) -> EndpointId {
        self.cx.me
    }

    pub(super) fn emit(&mut self, event: TopicEvent) {
        self.cx.emit(self.topic, event);
    }

    /// Sends a frame to a peer, if there is a link. Returns true if there is.
    pub(super) fn send(&mut self, peer: &EndpointId, frame: TopicFrame) -> bool {
        self.cx.links.send(peer, self.topic, frame, self.cx.now)
    }

    /// Opens a link to a peer, if there is none.
    pub(super) fn dial(&mut self, peer: EndpointId) -> Asked {
        let addresses = self.addresses(&peer).unwrap_or_default();
        self.dial_at(peer, &addresses)
    }

    /// As [`Scope::dial`], at these addresses.
    pub(super) fn dial_at(&mut self, peer: EndpointId, addresses: &[TransportAddr]) -> Asked {
        let trust = self.peers.trust(&peer, self.book, self.cx.now);
        let named = self.peers.named(&peer);
        self.cx.links.ask(peer, addresses, named, trust, self.cx.now)
    }

    /// Where a peer can be dialed, by what is known of it.
    pub(super) fn addresses(&self, peer: &EndpointId) -> Option<Vec<TransportAddr>> {
        self.peers.addresses(peer, self.book)
    }

    /// Returns true if dials to a peer are not counted as dials to strangers.
    pub(super) fn is_trusted(&self, peer: &EndpointId) -> bool {
        self.peers.is_trusted(peer, self.book, self.cx.now)
    }

    /// See [`spread`].
    pub(super) fn spread(&self) -> Duration {
        spread(self.book)
    }

    /// The digest of the book, if the book is settled, or never settles.
    pub(super) fn settled_digest(&self) -> Option<[u8; 8]> {
        self.book.comparable(SETTLED, RESTLESS, self.cx.now)
    }

    pub(super) fn dropped(&mut self, what: &'static str, peer: Option<EndpointId>) {
        self.cx.links.dropped(what, peer);
    }

    /// Closes the link on which something came that does not verify: honest peers verify what they
    /// forward.
    pub(super) fn refuse(&mut self, error: &Error, from: EndpointId) {
        tracing::info!(
            topic = %self.topic.fmt_short(),
            peer = %from.fmt_short(),
            reason = %error,
            "a record or an accusation was refused"
        );
        self.cx.links.dropped("records forged or malformed", Some(from));
        self.cx.links.close_peer(&from, CloseCode::Protocol);
    }

    /// Up to `count` random members. None of them is this node, suspected, or to be avoided.
    pub(super) fn random_members(
        &mut self,
        count: usize,
        without: &BTreeSet<EndpointId>,
    ) -> Vec<EndpointId> {
        let (now, peers, book) = (self.cx.now, &self.peers, &self.book);
        self.book
            .others()
            .filter(|id| {
                !without.contains(id) && !peers.is_avoided(id, now) && !book.is_suspected(id)
            })
            .sample(&mut self.cx.rng, count)
    }
}

/// The time over which nodes spread what all of them may do at once: 5 ms for each member.
pub(super) fn spread(book: &Book) -> Duration {
    let members = u32::try_from(book.len()).unwrap_or(u32::MAX);
    Duration::from_millis(5).saturating_mul(members).min(Duration::from_secs(3))
}

/// Tells the log what became of a member.
pub(super) fn log(topic: TopicId, record: &NodeRecord, what: &str) {
    tracing::info!(
        topic = %topic.fmt_short(),
        peer = %record.id.fmt_short(),
        name = record.profile.name,
        sequence = record.sequence,
        "{what}"
    );
}
