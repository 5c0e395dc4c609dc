//! What a component requests of others: it returns effects, and the router carries them out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    accusation::Accusation, book::Applied, event::CloseCode, id::EndpointId, record::NodeRecord,
};

/// Something that follows from what one component did, and that another one does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send this accusation to all members.
    Accuse(Accusation),
    /// A record that was new here is in the book.
    Applied(NewRecord),
    /// This node is in the overlay.
    Attached,
    /// Don't choose this peer for a while.
    Avoid(EndpointId),
    /// Send this content to all members through the overlay.
    Broadcast(Bytes),
    /// Close the links to this peer.
    Close(EndpointId, CloseCode),
    /// Compare books with this peer. It is dialed, if it is not linked.
    Contact(EndpointId),
    /// Send the best record of this node to all members, at once.
    Disseminate(EndpointId),
    /// Another member takes the place of this neighbor, which does not answer.
    DropNeighbor(EndpointId),
    /// A member left, or made room for another one.
    Gone(EndpointId),
    /// Take in this record of this age, as if this peer had forwarded it.
    Ingest { record: Bytes, age: Duration, from: EndpointId },
    /// A peer has the best record of this node, and disseminates it.
    Introduced,
    /// A sync that brought the own record to a peer is over.
    IntroductionOver,
    /// Ask this member to let this node into the overlay.
    JoinOverlay(EndpointId),
    /// A member is held to be dead.
    Lost(EndpointId),
    /// A peer holds this record with this node's own signature, which is not the current one.
    Outrun(Arc<NodeRecord>),
    /// Send these records to newcomers.
    Push(Vec<Pushed>),
    /// Tell the neighbors in the overlay that this node is gone.
    QuitOverlay,
    /// Answer an accusation of this sequence number, which this peer sent.
    Refute { sequence: u64, from: EndpointId },
    /// Introduce this node to the overlay with this record from now on.
    SetRecord(Bytes),
    /// Compare books with this peer, if it is linked.
    Sync(EndpointId),
    /// A sync that this node began is complete. This many records were new to one of the two ends.
    Synced { peer: EndpointId, differed: usize },
    /// A sync that this node began failed, and is not started again.
    SyncFailed,
}

/// A record that was new here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewRecord {
    pub(super) record: Arc<NodeRecord>,
    /// What it changed in the book.
    pub(super) applied: Applied,
    /// The peer that it came from.
    pub(super) from: EndpointId,
}

/// A record to be pushed to newcomers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Whose record it is.
    pub(super) id: EndpointId,
    /// The peer that it came from.
    pub(super) from: EndpointId,
}

/// Effects in the order in which they are carried out. Nothing else may be done with them, and they
/// can't be dropped unseen.
#[must_use = "the router carries effects out, at once"]
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects(Vec<Effect>);

impl Effects {
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn one(effect: Effect) -> Self {
        Self(vec![effect])
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Adds other effects after these.
    pub(super) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Takes the effects out, to carry out each of them.
    pub(super) fn into_inner(self) -> Vec<Effect> {
        self.0
    }
}

impl FromIterator<Effect> for Effects {
    fn from_iter<I: IntoIterator<Item = Effect>>(effects: I) -> Self {
        Self(effects.into_iter().collect())
    }
}
