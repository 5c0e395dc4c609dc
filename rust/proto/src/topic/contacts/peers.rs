//! The peers that this node could reach: those with a link, bootstrap peers, finds, and peers to
//! avoid. All components read this table. Only [`Contacts`](super::Contacts) can change it.

use std::collections::{BTreeMap, BTreeSet};

use iroh_base::TransportAddr;
use tokio::time::Instant;

use crate::{book::Book, dials::Trust, id::EndpointId};

/// In one life of a node, this many dials to members of an earlier life are not limited as dials to
/// strangers are. Invented members that were kept cost other hosts no more than this.
const TRUSTED_DIALS: u32 = 64;

#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Peers with a link that speak of this topic.
    pub(super) linked: BTreeSet<EndpointId>,
    pub(super) bootstrap: BTreeMap<EndpointId, Bootstrap>,
    /// The peers that a lookup on the local network found, and that are not in the book yet.
    pub(super) found: BTreeMap<EndpointId, Vec<TransportAddr>>,
    /// The members that such a lookup found at addresses which their records lack: they may have
    /// moved. At most [`MAX_FOUND`].
    pub(super) moved: BTreeMap<EndpointId, Vec<TransportAddr>>,
    /// Peers that recently could not be dialed, or do not serve this topic, and until when each of
    /// them is not chosen.
    pub(super) avoided: BTreeMap<EndpointId, Instant>,
    /// Dials to members of an earlier life that did not count as dials to strangers.
    pub(super) kept_dials: u32,
}

/// A bootstrap peer: its addresses, and when it is dialed next.
#[derive(Debug)]
pub(super) struct Bootstrap {
    pub(super) addresses: Vec<TransportAddr>,
    pub(super) attempts: u32,
    pub(super) next: Instant,
    /// When it was last dialed while no peer was linked.
    pub(super) tried: Option<Instant>,
    /// True if its link broke and no new record of it arrived since: it may have restarted.
    pub(super) lost: bool,
}

impl Peers {
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("linked", self.linked.len()),
            ("avoided", self.avoided.len()),
            ("found", self.found.len()),
            ("moved", self.moved.len()),
        ]
    }

    /// Returns the peers with a link that speak of this topic.
    pub(crate) fn linked(&self) -> &BTreeSet<EndpointId> {
        &self.linked
    }

    pub(crate) fn is_linked(&self, peer: &EndpointId) -> bool {
        self.linked.contains(peer)
    }

    /// Returns true if this node was given a peer to begin with.
    pub(crate) fn has_bootstrap(&self) -> bool {
        !self.bootstrap.is_empty()
    }

    /// Returns true if no peer speaks of this topic.
    pub(crate) fn is_alone(&self) -> bool {
        self.linked.is_empty()
    }

    /// Returns true if a peer recently could not be dialed, or does not serve this topic.
    pub(crate) fn is_avoided(&self, peer: &EndpointId, now: Instant) -> bool {
        self.avoided.get(peer).is_some_and(|until| *until > now)
    }

    /// Returns true if the user named a peer.
    pub(crate) fn is_named(&self, peer: &EndpointId) -> bool {
        self.bootstrap.contains_key(peer)
    }

    /// Returns true if dials to a peer are not counted as dials to strangers.
    pub(crate) fn is_trusted(&self, peer: &EndpointId, book: &Book, now: Instant) -> bool {
        self.is_named(peer) || book.is_established(peer, now) || self.may_dial_kept(peer, book)
    }

    /// Returns what speaks for a dial to a peer.
    pub(crate) fn trust(&self, peer: &EndpointId, book: &Book, now: Instant) -> Trust {
        if self.is_trusted(peer, book, now) { Trust::Established } else { Trust::Stranger }
    }

    /// Returns the addresses that the user named for a peer.
    pub(crate) fn named(&self, peer: &EndpointId) -> &[TransportAddr] {
        self.bootstrap.get(peer).map_or(&[], |bootstrap| &bootstrap.addresses)
    }

    /// Returns true for a member of an earlier life, for the first [`TRUSTED_DIALS`] dials.
    pub(super) fn may_dial_kept(&self, peer: &EndpointId, book: &Book) -> bool {
        self.kept_dials < TRUSTED_DIALS && book.kept(peer).is_some()
    }

    /// Returns the addresses at which a peer can be dialed, as far as this node knows them. `None`
    /// for a peer that is kept out.
    pub(crate) fn addresses(&self, peer: &EndpointId, book: &Book) -> Option<Vec<TransportAddr>> {
        if !book.admits(peer) {
            return None;
        }
        let member = book.get(peer).map(|live| live.signed.record().addresses.clone());
        let bootstrap = self.bootstrap.get(peer).map(|peer| peer.addresses.clone());
        let found = self.found.get(peer).cloned();
        let moved = member.is_some().then(|| self.moved.get(peer).cloned()).flatten();
        let kept = book.kept(peer).map(|signed| signed.record().addresses.clone());
        let expired = || book.last_record(peer).map(|signed| signed.record().addresses.clone());
        let known: Vec<_> = [member, moved, bootstrap, found, kept].into_iter().flatten().collect();
        if known.is_empty() {
            return expired();
        }
        let mut all = Vec::new();
        for address in known.into_iter().flatten() {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        Some(all)
    }
}
