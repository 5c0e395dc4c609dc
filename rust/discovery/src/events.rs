//! What an application hears of a topic.

use std::sync::Arc;

use crate::proto::{LostReason, NodeRecord};

/// Something happened in a topic. Replayed in order over the snapshot that came with the
/// subscription, events give the address book.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer entered the book: once per life.
    PeerJoined(Arc<NodeRecord>),
    /// A peer in the book changed its name, addresses, metadata or protocols, or started anew.
    PeerUpdated(Arc<NodeRecord>),
    /// A peer left; the record is its last with content.
    PeerLeft(Arc<NodeRecord>),
    /// A peer is gone without a leave.
    PeerLost(Arc<NodeRecord>, LostReason),
    /// No link to any member is left.
    Isolated,
    /// A member is linked again after [`Event::Isolated`].
    Reconnected,
    /// This many events were dropped here, because the subscriber lagged behind by more than
    /// [`crate::Config::event_buffer`]. The book is the recovery.
    EventsLost(u64),
}
