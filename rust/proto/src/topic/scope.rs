//! What a component of a topic sees and may use, besides its own state.

use std::{collections::BTreeSet, time::Duration};

use iroh_base::TransportAddr;
use rand::{RngExt, seq::IteratorRandom};
use tokio::time::Instant;

use super::contacts::peers::Peers;
use crate::{
    book::Book,
    config::Config,
    context::Context,
    drops::DropReason,
    error::Error,
    event::{CloseCode, TopicEvent},
    id::{EndpointId, TopicId},
    links::LinkRequest,
    record::NodeRecord,
    wire::TopicFrame,
};

/// A book that did not change for this long is settled: gossip has passed.
pub(super) const SETTLED: Duration = Duration::from_millis(250);
/// In a burst, a node is behind until none of its timers was late for this long. Few of them are
/// due while others use the machine.
const STILL_LATE: Duration = Duration::from_millis(500);
/// A book that has kept changing for this long is compared without being settled.
pub(super) const RESTLESS: Duration = Duration::from_secs(5);

/// What a component may use during one call: the book, the links, time and random numbers.
///
/// A component changes nothing in another one. It returns what others have to do as
/// [`Effects`](super::effect::Effects).
#[derive(Debug)]
pub(super) struct Scope<'a, V = View<'a>> {
    pub(super) topic: TopicId,
    pub(super) config: &'a Config,
    pub(super) book: &'a mut Book,
    /// Peers that could be reached. Only the contacts can change it.
    pub(super) peers: &'a mut Peers,
    pub(super) view: V,
    /// The links, time, random numbers and counts, which all topics of an endpoint share.
    pub(super) cx: &'a mut Context,
}

/// What other components know, for reading.
#[derive(Debug, Clone, Copy)]
// Each of its bools is a fact of another component.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct View<'a> {
    /// The active view of the overlay.
    pub(super) neighbors: &'a BTreeSet<EndpointId>,
    /// When this node entered the overlay, if it is in it.
    pub(super) attached: Option<Instant>,
    /// True if a sync that this node began was completed since it was last without links.
    pub(super) synced: bool,
    /// True while a sync that this node began goes on.
    pub(super) syncing: bool,
    /// The sequence number of the own record that a sync is bringing to a partner.
    pub(super) introducing: Option<u64>,
    /// True if peers that are not in the overlay yet wait for pushes.
    pub(super) has_newcomers: bool,
    /// True if this node leaves the topic.
    pub(super) leaving: bool,
}

/// The scope of the component that owns the neighbors, which can't be lent to it.
pub(super) type NarrowScope<'a> = Scope<'a, NarrowView>;

#[derive(Debug, Clone, Copy)]
pub(super) struct NarrowView {
    /// True while a sync that this node began goes on.
    pub(super) syncing: bool,
    /// True if this node leaves the topic.
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

    /// Sends a frame to a peer. Returns false if it was not sent, for instance without a link.
    pub(super) fn send(&mut self, peer: &EndpointId, frame: TopicFrame) -> bool {
        self.cx.links.send(peer, self.topic, frame, self.cx.now)
    }

    /// Requests a link to a peer, if it has none.
    pub(super) fn dial(&mut self, peer: EndpointId) -> LinkRequest {
        let addresses = self.addresses(&peer).unwrap_or_default();
        self.dial_at(peer, &addresses)
    }

    /// As [`Scope::dial`], at these addresses.
    pub(super) fn dial_at(&mut self, peer: EndpointId, addresses: &[TransportAddr]) -> LinkRequest {
        let trust = self.peers.trust(&peer, self.book, self.cx.now);
        let named = self.peers.named(&peer);
        self.cx.links.ask(peer, addresses, named, trust, self.cx.now)
    }

    /// Returns the addresses at which a peer can be dialed, as far as this node knows them.
    pub(super) fn addresses(&self, peer: &EndpointId) -> Option<Vec<TransportAddr>> {
        self.peers.addresses(peer, self.book)
    }

    /// Returns true if dials to a peer are not counted as dials to strangers.
    pub(super) fn is_trusted(&self, peer: &EndpointId) -> bool {
        self.peers.is_trusted(peer, self.book, self.cx.now)
    }

    /// Returns true if many nodes join now, and this node is behind, or was just now. Their own
    /// requests and records fill its view and its book soon, and what it does for that too makes
    /// all of them later.
    pub(super) fn is_late_in_burst(&self) -> bool {
        self.cx.was_behind(STILL_LATE) && self.book.is_growing(self.cx.now)
    }

    /// Returns true if a comparison of books would find what is under way to this node in a burst.
    /// That lasts no longer than [`RESTLESS`].
    pub(super) fn is_early_to_compare(&self) -> bool {
        self.is_late_in_burst() && !self.book.is_restless(RESTLESS, self.cx.now)
    }

    /// See [`spread`].
    pub(super) fn spread(&self) -> Duration {
        spread(self.book)
    }

    /// Returns the digest of the book, if the book is settled or has kept changing for
    /// [`RESTLESS`].
    pub(super) fn settled_digest(&self) -> Option<[u8; 8]> {
        self.book.comparable(SETTLED + self.cx.lag(), RESTLESS, self.cx.now)
    }

    pub(super) fn dropped(&mut self, what: DropReason, peer: Option<EndpointId>) {
        self.cx.links.dropped(what, peer);
    }

    /// Closes the link on which something arrived that does not verify, because honest peers verify
    /// what they forward.
    pub(super) fn refuse(&mut self, error: &Error, from: EndpointId) {
        tracing::info!(
            topic = %self.topic.fmt_short(),
            peer = %from.fmt_short(),
            reason = %error,
            "a record or an accusation was refused"
        );
        self.cx.links.dropped(DropReason::RecordsForgedOrMalformed, Some(from));
        self.cx.links.close_peer(&from, CloseCode::Protocol);
    }

    /// Returns up to `count` random members. None of them is this node, suspected, or avoided now.
    pub(super) fn random_members(
        &mut self,
        count: usize,
        without: &BTreeSet<EndpointId>,
    ) -> Vec<EndpointId> {
        candidates(self.book, self.peers, without, self.cx.now).sample(&mut self.cx.rng, count)
    }

    /// As [`Scope::random_members`], but half of them are such that this node reached, as far as
    /// there are any. So they are not all made up, however many a peer made up.
    pub(super) fn likely_members(
        &mut self,
        count: usize,
        without: &BTreeSet<EndpointId>,
    ) -> Vec<EndpointId> {
        let members = candidates(self.book, self.peers, without, self.cx.now);
        let (reached, hearsay): (Vec<_>, Vec<_>) = members.partition(|id| self.book.is_reached(id));
        if reached.is_empty() || hearsay.is_empty() {
            return self.random_members(count, without);
        }
        let coin = usize::from(self.cx.rng.random_bool(0.5));
        let half = usize::midpoint(count, coin);
        let mut chosen = reached.into_iter().sample(&mut self.cx.rng, half);
        let without: BTreeSet<_> = without.iter().chain(&chosen).copied().collect();
        chosen.extend(self.random_members(count - chosen.len(), &without));
        chosen
    }
}

/// Returns the members that may be chosen: none of them is suspected, or avoided now.
fn candidates<'a>(
    book: &'a Book,
    peers: &'a Peers,
    without: &'a BTreeSet<EndpointId>,
    now: Instant,
) -> impl Iterator<Item = EndpointId> + 'a {
    book.others().filter(move |id| {
        !without.contains(id) && !peers.is_avoided(id, now) && !book.is_suspected(id)
    })
}

/// Returns the time over which nodes spread what all of them may do at once: 5 ms for each member,
/// at most 3 s.
pub(super) fn spread(book: &Book) -> Duration {
    let members = u32::try_from(book.len()).unwrap_or(u32::MAX);
    Duration::from_millis(5).saturating_mul(members).min(Duration::from_secs(3))
}

/// Logs what happened to a member.
pub(super) fn log(topic: TopicId, record: &NodeRecord, what: &str) {
    tracing::info!(
        topic = %topic.fmt_short(),
        peer = %record.id.fmt_short(),
        name = record.profile.name,
        sequence = record.sequence,
        "{what}"
    );
}
