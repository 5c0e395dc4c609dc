//! The kept books of all topics: the changes that wait for the disk, and what is on disk.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::files::Files;
use super::ledger::{Change, Ledger};
use crate::proto::{EndpointId, Entry, Kept, TopicId};

type Changes = BTreeMap<EndpointId, Change>;

/// The kept books of all topics.
#[derive(Debug)]
pub(crate) struct Books {
    files: Files,
    /// Locked during writes to the disk, unlike `waiting`.
    ledgers: Mutex<BTreeMap<TopicId, Ledger>>,
    /// The last change of each member that is not on disk.
    waiting: Mutex<BTreeMap<TopicId, Changes>>,
    failed: AtomicBool,
}

impl Books {
    pub(crate) fn new(files: Files) -> Self {
        Self {
            files,
            ledgers: Mutex::default(),
            waiting: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// Reads the kept book of a topic. The members that are most likely to be alive come first.
    /// Only checksums are verified.
    pub(crate) fn load(&self, topic: &TopicId, capacity: usize) -> Vec<(Entry, bool)> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || Ledger::load(self.files.clone(), topic, capacity);
        ledgers.entry(*topic).or_insert_with(load).entries()
    }

    /// Verifies the records that were read. Those that are no records of the topic are forgotten,
    /// and that is reported.
    pub(crate) fn verify(&self, topic: &TopicId, entries: &[(Entry, bool)]) -> Vec<Kept> {
        let mut seed = [0; 32];
        if getrandom::fill(&mut seed).is_ok()
            && let Ok(kept) = Entry::verify_all(entries, topic, seed)
        {
            return kept;
        }
        // At least one record is forged, so each is verified alone.
        let mut kept = Vec::with_capacity(entries.len());
        let mut forged = Vec::new();
        for (entry, established) in entries {
            match entry.verify(topic, *established) {
                Ok(verified) => kept.push(verified),
                Err(_) => forged.push(entry.id),
            }
        }
        if !forged.is_empty() {
            let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ledger) = ledgers.get_mut(topic) {
                for id in &forged {
                    ledger.forget(id);
                }
            }
            let (count, topic) = (forged.len(), topic.fmt_short());
            self.files.damaged(format!("{count} records in the kept book of {topic} were forged"));
        }
        kept
    }

    /// Notes a change of a member.
    pub(crate) fn note(&self, topic: TopicId, member: EndpointId, change: Change) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(topic).or_default().insert(member, change);
    }

    /// Writes what changed in the topics that were loaded.
    pub(crate) fn write(&self) -> io::Result<()> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        for (topic, ledger) in ledgers.iter_mut() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let changes = waiting.remove(topic).unwrap_or_default();
            drop(waiting);
            if !changes.is_empty() || ledger.is_unwritten() {
                let written = ledger.write(changes);
                result = result.and(written);
            }
        }
        self.failed.store(result.is_err(), Ordering::Relaxed);
        result
    }

    /// Returns true if the last write succeeded.
    pub(crate) fn is_written(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }
}
