//! Writes to disk while the node runs, in a task of its own, so that a slow disk delays nothing
//! else.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tracing::{Instrument, error};

use super::Actor;
use crate::{
    blocking::blocking,
    inputs::Input,
    proto::{InEvent, Kept, TopicEvent, TopicId},
    store::Change,
};

/// This many members of an earlier life are verified first, so that one is dialed at once. The
/// others follow in groups of [`BATCH`].
const FIRST: usize = 32;
const BATCH: usize = 512;
/// Changes within this time are written together. A crash loses at most the records of this time.
const GATHER: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to write to a disk that can't be written.
const RETRY_MAX: Duration = Duration::from_secs(8);

impl Actor {
    /// Writes what has to be kept, until the actor ends, and retries what could not be written.
    pub(super) fn keep_writing(&self) {
        let Some(store) = self.store.clone() else { return };
        let inputs = self.inputs.clone();
        let writing = async move {
            let mut pause = GATHER;
            loop {
                let ends = tokio::select! {
                    () = store.changed() => timeout(pause, inputs.closed()).await.is_ok(),
                    () = inputs.closed() => true,
                };
                let written = store.clone();
                pause = match blocking(move || Ok(written.write_again())).await {
                    Ok(true) => GATHER,
                    Ok(false) => (pause * 2).min(RETRY_MAX),
                    Err(reason) => {
                        error!(%reason, "a write to the state directory failed");
                        GATHER
                    }
                };
                if ends {
                    return;
                }
            }
        };
        self.tasks.spawn(writing.in_current_span());
    }

    /// Reads the kept book of a topic, and gives it to the state, the first few members at once.
    pub(super) fn load_book(&mut self, topic: TopicId) {
        let Some((store, joined)) = self.store.clone().zip(self.topics.get(&topic)) else { return };
        joined.published.contact.remembers(true);
        let (inputs, capacity) = (self.inputs.clone(), self.config.protocol.capacity);
        let loading = async move {
            let from = store.clone();
            let load = move || Ok(from.books.load(&topic, capacity));
            let mut entries = blocking(load).await.unwrap_or_default();
            let mut size = FIRST;
            loop {
                let rest = entries.split_off(size.min(entries.len()));
                let batch = std::mem::replace(&mut entries, rest);
                let from = store.clone();
                let verify = move || Ok(from.books.verify(&topic, &batch));
                let kept = blocking(verify).await.unwrap_or_default();
                let last = entries.is_empty();
                if inputs.send(Input::Remembered(topic, kept)).await.is_err() || last {
                    break;
                }
                size = BATCH;
            }
            store.wake();
        };
        self.tasks.spawn(loading.in_current_span());
    }

    /// Takes in records of an earlier life.
    pub(super) fn remember(&mut self, topic: TopicId, kept: Vec<Kept>) {
        for reason in self.store.iter().flat_map(|store| store.damages()) {
            for joined in self.topics.values() {
                joined.published.damaged(reason.clone());
            }
        }
        let Some(joined) = self.topics.get(&topic) else { return };
        joined.published.contact.remembers(!kept.is_empty());
        self.handle_own(InEvent::Remember(topic, kept));
        self.look_for_undecided();
    }

    /// Notes the changes of an event that have to be written.
    pub(super) fn keep(&self, topic: TopicId, event: &TopicEvent) {
        let Some(store) = &self.store else { return };
        match event {
            TopicEvent::PeerJoined(peer)
            | TopicEvent::PeerUpdated(peer)
            | TopicEvent::PeerRefreshed(peer) => {
                if let Some(signed) = self.state.record(&topic, &peer.id) {
                    // The bytes are a slice of a whole frame, which must not stay in memory.
                    let record = Bytes::copy_from_slice(signed.bytes());
                    store.note(topic, peer.id, Change::Alive(record));
                }
            }
            TopicEvent::PeerLeft(peer) => {
                let sequence = self.state.sequence(&topic, &peer.id).unwrap_or(peer.sequence);
                store.note(topic, peer.id, Change::Left(sequence));
            }
            TopicEvent::PeerLost(peer, _) => store.note(topic, peer.id, Change::Lost),
            _ => {}
        }
    }
}
