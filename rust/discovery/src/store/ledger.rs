//! The kept book of one topic: a snapshot, and a log of what came after it.
//!
//! Generation `g` is the snapshot `book-<topic>.<g>` and the log `book-<topic>.<g>.log` of the
//! changes since. Once the log outgrows the snapshot, a snapshot of the next generation is written.
//! The generation before it stays until the next one, because the newest may turn out damaged.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::files::Files;
use super::frames::{MAGIC, append_frame, read_frames};
use crate::proto::{EndpointId, Entry, TopicId};

/// A log may always have this many bytes, even if the snapshot is smaller.
const MIN_LOG: u64 = 64 * 1024;
/// A member that was not heard for 30 days, in seconds, is dropped at the next start.
const MAX_AGE: u64 = 30 * 86_400;
/// A member that left 7 days ago, in seconds, is dropped at the next start.
const MAX_AGE_LEFT: u64 = 7 * 86_400;
/// A member that was in the book for this long, in seconds, is established.
const ESTABLISHED: u64 = 600;

/// The highest number of a generation. No node lives long enough to reach it.
const MAX_GENERATION: u64 = 1 << 62;

/// A change of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The member announced this record.
    Alive(Bytes),
    /// The member was lost. It is kept, because in a power cut all members are lost.
    Lost,
    /// The member left, with this sequence number. It is kept, because all members leave if all are
    /// restarted.
    Left(u64),
}

/// The kept book of one topic.
#[derive(Debug)]
pub(crate) struct Ledger {
    files: Files,
    /// The beginning of the files' names.
    name: String,
    capacity: usize,
    entries: BTreeMap<EndpointId, Entry>,
    /// The members that this life of the node knows to be alive.
    alive: BTreeSet<EndpointId>,
    generation: u64,
    snapshot_bytes: u64,
    /// The length of the whole frames in the log. What is behind them is torn.
    log_bytes: u64,
    /// True if the next write must be a snapshot, because the files are damaged or incomplete.
    needs_snapshot: bool,
}

impl Ledger {
    /// Reads the kept book of a topic. Damaged files are set aside.
    pub(crate) fn load(files: Files, topic: &TopicId, capacity: usize) -> Self {
        let name = format!("book-{}", &topic.to_string()[..16]);
        let mut ledger = Self {
            files,
            name,
            capacity,
            entries: BTreeMap::new(),
            alive: BTreeSet::new(),
            generation: 0,
            snapshot_bytes: 0,
            log_bytes: 0,
            needs_snapshot: true,
        };
        let generations = ledger.generations();
        ledger.generation = generations.last().copied().unwrap_or(0);
        let from = ledger.read_snapshots(&generations);
        for generation in generations.into_iter().filter(|generation| *generation >= from) {
            ledger.read_log(generation);
        }
        let now = unix_seconds();
        let most = |entry: &Entry| if entry.left > 0 { MAX_AGE_LEFT } else { MAX_AGE };
        ledger.entries.retain(|_, entry| now.saturating_sub(entry.heard) < most(entry));
        ledger
    }

    /// Returns all entries, and for each whether its member is established. Members that did not
    /// leave come first, then established ones, then those that were heard last.
    pub(crate) fn entries(&self) -> Vec<(Entry, bool)> {
        let established = |entry: &Entry| entry.heard.saturating_sub(entry.since) >= ESTABLISHED;
        let entries = self.entries.values().map(|entry| (entry.clone(), established(entry)));
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|(entry, established)| {
            std::cmp::Reverse((entry.left == 0, *established, entry.heard))
        });
        entries
    }

    /// Removes an entry that turned out to be no record of this topic.
    pub(crate) fn forget(&mut self, id: &EndpointId) {
        self.entries.remove(id);
        self.needs_snapshot = true;
    }

    /// Returns true if there is something to write although no member changed, because of damage or
    /// a write that failed.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.needs_snapshot && !(self.entries.is_empty() && self.generation == 0)
    }

    /// Applies changes and writes them. If that fails, the next write includes them.
    pub(crate) fn write(&mut self, changes: BTreeMap<EndpointId, Change>) -> io::Result<()> {
        let mut log = Vec::new();
        for (id, change) in changes {
            if let Some(entry) = self.apply(id, change) {
                append_frame(&mut log, &entry.encode());
            }
        }
        self.bound();
        let most = self.snapshot_bytes.max(MIN_LOG);
        if log.is_empty() && !self.is_unwritten() {
            return Ok(());
        }
        if self.needs_snapshot || self.log_bytes + log.len() as u64 > most {
            // The snapshot includes the changes. If it can't be written now, the next one does.
            self.needs_snapshot = true;
            return self.write_snapshot();
        }
        let appended = self.append(&log);
        self.needs_snapshot = appended.is_err();
        appended
    }

    /// Applies a change, and returns the entry to write, if there is one.
    fn apply(&mut self, id: EndpointId, change: Change) -> Option<Entry> {
        let now = unix_seconds();
        match change {
            Change::Alive(record) => {
                let since = self.entries.get(&id).map_or(now, |entry| entry.since);
                let entry = Entry { id, record, since, heard: now, left: 0 };
                self.entries.insert(id, entry.clone());
                self.alive.insert(id);
                Some(entry)
            }
            Change::Lost => {
                self.alive.remove(&id);
                None
            }
            Change::Left(sequence) => {
                self.alive.remove(&id);
                let entry = self.entries.get_mut(&id)?;
                (entry.left, entry.heard) = (sequence, now);
                Some(entry.clone())
            }
        }
    }

    /// Removes entries beyond the capacity: first members that left, then those that were lost, and
    /// of each kind first those that were not heard for the longest time.
    fn bound(&mut self) {
        let over = self.entries.len().saturating_sub(self.capacity);
        if over == 0 {
            return;
        }
        let lost = self.entries.values().filter(|entry| !self.alive.contains(&entry.id));
        let mut lost: Vec<_> = lost.map(|entry| (entry.left == 0, entry.heard, entry.id)).collect();
        lost.sort_unstable();
        for (.., id) in lost.into_iter().take(over) {
            self.entries.remove(&id);
        }
    }

    fn append(&mut self, log: &[u8]) -> io::Result<()> {
        let path = self.files.path(&self.log_name(self.generation));
        let mut file = self.files.disk().append(&path)?;
        if file.metadata()?.len() != self.log_bytes {
            // A torn frame with whole ones behind it would pass for damage, so it is cut off.
            file.set_len(self.log_bytes)?;
        }
        let mut content = if self.log_bytes == 0 { MAGIC.to_vec() } else { Vec::new() };
        content.extend_from_slice(log);
        self.files.disk().write(&mut file, &content)?;
        self.files.sync(&file)?;
        if self.log_bytes == 0 {
            self.files.sync_dir()?;
        }
        self.log_bytes += content.len() as u64;
        Ok(())
    }

    fn write_snapshot(&mut self) -> io::Result<()> {
        let now = unix_seconds();
        let mut content = MAGIC.to_vec();
        for entry in self.entries.values_mut() {
            if self.alive.contains(&entry.id) {
                entry.heard = now;
            }
            append_frame(&mut content, &entry.encode());
        }
        append_frame(&mut content, &end_of_snapshot(self.entries.len()));
        let generation = self.generation + 1;
        self.files.replace(&self.snapshot_name(generation), &content)?;
        // A generation that stays does no harm: it is read only if those after it are damaged.
        for old in self.generations().into_iter().filter(|old| *old + 1 < generation) {
            for name in [self.snapshot_name(old), self.log_name(old)] {
                let _ = self.files.remove(&self.files.path(&name));
            }
        }
        self.generation = generation;
        self.snapshot_bytes = content.len() as u64;
        self.log_bytes = 0;
        self.needs_snapshot = false;
        Ok(())
    }

    /// Reads snapshots from the newest to the first that is whole, and what is whole of the others.
    /// Returns the generation of the whole one, or 0.
    fn read_snapshots(&mut self, generations: &BTreeSet<u64>) -> u64 {
        for generation in generations.iter().rev().copied() {
            let name = self.snapshot_name(generation);
            let content = match self.files.read(&name) {
                Ok(None) => continue,
                Ok(Some(content)) => content,
                Err(error) => {
                    self.set_aside(&name, &error.to_string());
                    continue;
                }
            };
            let frames = read_frames(&content);
            let count = frames.contents.len().saturating_sub(1);
            let is_whole = !frames.is_damaged
                && frames.contents.last().is_some_and(|last| **last == end_of_snapshot(count));
            for entry in frames.contents.iter().filter_map(|content| Entry::decode(content).ok()) {
                // An older snapshot does not replace entries of a newer one.
                self.entries.entry(entry.id).or_insert(entry);
            }
            if is_whole {
                self.snapshot_bytes = content.len() as u64;
                self.needs_snapshot = generation != self.generation;
                return generation;
            }
            self.set_aside(&name, "its checksums are wrong");
        }
        0
    }

    fn read_log(&mut self, generation: u64) {
        let name = self.log_name(generation);
        let content = match self.files.read(&name) {
            Ok(None) => return,
            Ok(Some(content)) => content,
            Err(error) => return self.set_aside(&name, &error.to_string()),
        };
        let frames = read_frames(&content);
        for entry in frames.contents.iter().filter_map(|content| Entry::decode(content).ok()) {
            // An entry of a damaged snapshot may be newer than the log.
            let known = self.entries.get(&entry.id);
            if known.is_some_and(|known| known.heard > entry.heard) {
                continue;
            }
            self.entries.insert(entry.id, entry);
        }
        if frames.is_damaged {
            self.set_aside(&name, "its checksums are wrong");
        } else if generation == self.generation {
            self.log_bytes = frames.whole as u64;
        }
    }

    fn set_aside(&mut self, name: &str, reason: &str) {
        let aside = format!("{}.damaged", self.name);
        self.files.set_aside(name, &aside, reason, "what could be read of it is used");
        self.needs_snapshot = true;
    }

    /// Returns the generations that have files, in order.
    fn generations(&self) -> BTreeSet<u64> {
        let Ok(names) = std::fs::read_dir(&self.files.dir) else { return BTreeSet::new() };
        let names = names.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let number = |name: String| {
            let rest = name.strip_prefix(&self.name)?.strip_prefix('.')?;
            rest.strip_suffix(".log").unwrap_or(rest).parse::<u64>().ok()
        };
        names.filter_map(number).filter(|number| *number <= MAX_GENERATION).collect()
    }

    fn snapshot_name(&self, generation: u64) -> String {
        format!("{}.{generation}", self.name)
    }

    fn log_name(&self, generation: u64) -> String {
        format!("{}.{generation}.log", self.name)
    }
}

/// Returns the last frame of a snapshot: the number of entries before it, in CBOR.
fn end_of_snapshot(entries: usize) -> [u8; 9] {
    let mut end = [0x1b; 9];
    end[1..].copy_from_slice(&(entries as u64).to_be_bytes());
    end
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
