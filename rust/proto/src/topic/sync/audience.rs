//! The peers to which this node pushes new records: newcomers that are not in the overlay yet, and
//! observers.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use crate::{
    id::EndpointId,
    topic::{effect::Pushed, scope::Scope},
    wire::{MAX_CONTENT, MAX_RECORDS, TopicFrame},
};

/// A newcomer gets pushes for this time, or until it reports that it is in the overlay.
pub(super) const NEWCOMER_HELP: Duration = Duration::from_secs(10);
/// The room for the records of one push, in bytes.
const PUSH_ROOM: usize = MAX_CONTENT - 16;

#[derive(Debug, Default)]
pub(super) struct Audience {
    /// Peers that synced with this node and are not in the overlay yet. New records are pushed to
    /// each until its time.
    newcomers: BTreeMap<EndpointId, Instant>,
    /// Observers that this node keeps up to date. Each is forgotten at its time.
    observers: BTreeMap<EndpointId, Instant>,
}

impl Audience {
    pub(super) fn newcomer_count(&self) -> usize {
        self.newcomers.len()
    }

    pub(super) fn observer_count(&self) -> usize {
        self.observers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newcomers.is_empty() && self.observers.is_empty()
    }

    pub(super) fn is_newcomer(&self, peer: &EndpointId) -> bool {
        self.newcomers.contains_key(peer)
    }

    pub(super) fn is_observer(&self, peer: &EndpointId) -> bool {
        self.observers.contains_key(peer)
    }

    pub(super) fn observers(&self) -> impl Iterator<Item = &EndpointId> {
        self.observers.keys()
    }

    /// A peer that is not in the overlay yet syncs with this node.
    pub(super) fn welcome(&mut self, peer: EndpointId, now: Instant) {
        self.newcomers.insert(peer, now + NEWCOMER_HELP);
    }

    /// Keeps an observer up to date from now on, if there is room for it.
    pub(super) fn register(&mut self, peer: EndpointId, scope: &mut Scope) {
        let now = scope.now();
        self.newcomers.remove(&peer);
        self.observers.retain(|_, until| *until > now);
        if self.observers.len() < scope.config.observers || self.observers.contains_key(&peer) {
            self.observers.insert(peer, now + NEWCOMER_HELP);
        }
        debug_assert!(
            self.observers.len() <= scope.config.observers,
            "observers beyond the limit are passed on"
        );
    }

    /// A peer is in the overlay, gone, or has another source.
    pub(super) fn forget(&mut self, peer: &EndpointId) {
        self.newcomers.remove(peer);
        self.observers.remove(peer);
    }

    /// Sends records to newcomers and observers. Those that were not heard for [`NEWCOMER_HELP`]
    /// are forgotten.
    pub(super) fn push(&mut self, pushes: Vec<Pushed>, scope: &mut Scope) {
        let now = scope.now();
        self.newcomers.retain(|_, until| *until > now);
        self.observers.retain(|_, until| *until > now);
        let with_bytes = |pushed: Pushed| {
            let (signed, _) = scope.book.evidence(&pushed.id, now)?;
            Some((pushed, signed.bytes().clone()))
        };
        let news: Vec<_> = pushes.into_iter().filter_map(with_bytes).collect();
        for peer in self.newcomers.keys().chain(self.observers.keys()) {
            let for_peer =
                news.iter().filter(|(Pushed { id, from }, _)| id != peer && from != peer);
            let mut batch: Vec<Bytes> = Vec::new();
            let mut size = 0;
            for (_, bytes) in for_peer {
                if size + bytes.len() > PUSH_ROOM || batch.len() == MAX_RECORDS {
                    scope.send(peer, TopicFrame::Push(std::mem::take(&mut batch)));
                    size = 0;
                }
                size += bytes.len();
                batch.push(bytes.clone());
            }
            if !batch.is_empty() {
                scope.send(peer, TopicFrame::Push(batch));
            }
        }
    }
}
