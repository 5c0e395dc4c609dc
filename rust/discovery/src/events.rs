//! The events that an application gets of a topic.

use std::sync::Arc;

use crate::proto::{LostReason, NodeRecord};

/// Something happened in a topic. Replayed in order over the snapshot that came with the
/// subscription, events give the address book.
///
/// ```no_run
/// use iroh_gossip_discovery::Event;
///
/// fn line(event: &Event) -> Option<String> {
///     Some(match event {
///         Event::PeerJoined(peer) => format!("{} joined", peer.profile.name),
///         Event::PeerLeft(peer) => format!("{} left", peer.profile.name),
///         Event::PeerLost(peer, reason) => format!("{} is lost: {reason:?}", peer.profile.name),
///         Event::EventsLost(count) => format!("{count} events were dropped here"),
///         _ => return None,
///     })
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer entered the book: once per life.
    PeerJoined(Arc<NodeRecord>),
    /// A peer in the book changed its name, addresses, metadata or protocols, or was restarted.
    PeerUpdated(Arc<NodeRecord>),
    /// A peer left. The record is its last one with content.
    PeerLeft(Arc<NodeRecord>),
    /// A peer did not answer a probe, or a member that it did not answer accuses it. It stays in
    /// the book for the seconds that it has to refute.
    PeerSuspected(Arc<NodeRecord>),
    /// A suspected peer refuted the suspicion, or answered.
    PeerRecovered(Arc<NodeRecord>),
    /// A peer is gone without a leave.
    PeerLost(Arc<NodeRecord>, LostReason),
    /// No link to any member is left.
    Isolated,
    /// A member is linked again after [`Event::Isolated`].
    Reconnected,
    /// Another process repeatedly announces with this node's key, as after copying a key or a
    /// machine image. This node announces once a minute until that ends.
    IdentityConflict {
        /// The boot id of the other process.
        boot_id: u64,
    },
    /// A file of the state directory was damaged: it was set aside, and this says what that means.
    /// Every subscription begins with those of the start, before which there can be none.
    StateDamaged {
        /// Which file, why, and what became of it.
        reason: Arc<str>,
    },
    /// This many events were dropped here, because the subscriber lagged behind by more than
    /// [`crate::Config::event_buffer`]. The book has the current state.
    EventsLost(u64),
}

impl Event {
    /// Returns true if the event changes the book.
    pub(crate) fn changes_book(&self) -> bool {
        matches!(
            self,
            Self::PeerJoined(_) | Self::PeerUpdated(_) | Self::PeerLeft(_) | Self::PeerLost(..)
        )
    }
}
