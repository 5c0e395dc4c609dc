//! A node's address book as its events tell it, and what no event may do to it.

use std::{collections::BTreeMap, ops::Index, sync::Arc, time::Duration};

use iroh_gossip_discovery_proto::{Config, Digest, EndpointId, LostReason, NodeRecord, TopicEvent};

use crate::{
    clock::{Nanos, nanos},
    roster::Roster,
};

/// What is known of one identity.
#[derive(Debug, Default, Clone)]
pub(crate) struct Entry {
    /// Its record, while it is in the book.
    pub(crate) record: Option<Arc<NodeRecord>>,
    /// The highest sequence that was ever seen of it, in this life of the node.
    highest: u64,
    /// Since when it is suspected.
    suspected: Option<Nanos>,
}

/// The address book, by replaying events.
#[derive(Debug, Default)]
pub struct Book {
    /// By number in the roster.
    pub(crate) entries: Vec<Entry>,
    present: usize,
    /// Of the ids and sequences in it.
    pub(crate) digest: Digest,
    /// Entries in it of identities that are not hostile, and those of them that are as they should.
    pub(crate) honest: usize,
    pub(crate) right: usize,
}

/// What broke: the name of the check, and what was seen.
pub(crate) type Broken = (&'static str, String);

impl Book {
    /// How many peers are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// The records in it, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.entries.iter().filter_map(|entry| entry.record.as_ref())
    }

    /// The record of a peer. Looks through the book.
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<NodeRecord>> {
        self.values().find(|record| record.id == *id)
    }

    /// Whether a peer is in it. Looks through the book.
    #[must_use]
    pub fn contains_key(&self, id: &EndpointId) -> bool {
        self.get(id).is_some()
    }

    /// Whether a peer, by its number in the roster, is in it.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.entries.get(number).is_some_and(|entry| entry.record.is_some())
    }

    /// Whether it ever was.
    pub(crate) fn ever_had(&self, number: usize) -> bool {
        self.entries.get(number).is_some_and(|entry| entry.highest > 0)
    }

    pub(crate) fn sequence(&self, number: usize) -> Option<u64> {
        Some(self.entries.get(number)?.record.as_ref()?.sequence)
    }

    /// The book by id, with sequences.
    pub(crate) fn by_id(&self) -> BTreeMap<EndpointId, u64> {
        self.values().map(|record| (record.id, record.sequence)).collect()
    }

    /// Empties it, for another life of the node.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Applies an event about a peer, and says what is wrong with it.
    pub(crate) fn apply(
        &mut self,
        event: &TopicEvent,
        config: &Config,
        roster: &Roster,
        group: u32,
        now: Nanos,
    ) -> Result<(), Broken> {
        let (TopicEvent::PeerJoined(record)
        | TopicEvent::PeerUpdated(record)
        | TopicEvent::PeerRefreshed(record)
        | TopicEvent::PeerSuspected(record)
        | TopicEvent::PeerRecovered(record)
        | TopicEvent::PeerLeft(record)
        | TopicEvent::PeerLost(record, _)) = event
        else {
            return Ok(());
        };
        let broken = |check, why: &str| Err((check, format!("{why}: {}", of(record))));
        let Some(number) = roster.number(&record.id) else {
            return broken("records are their owners'", "nobody has this key");
        };
        if !roster.made(number, record) {
            return broken("records are their owners'", "its owner never said this");
        }
        if self.entries.len() <= number {
            self.entries.resize(number + 1, Entry::default());
        }
        let entry = &mut self.entries[number];
        let (was, highest) = (entry.record.as_ref().map(|record| record.sequence), entry.highest);
        let mut result = match (event, was) {
            (TopicEvent::PeerJoined(_), Some(_)) => broken("events replay", "joined twice"),
            (TopicEvent::PeerJoined(_), None) if record.sequence <= highest => {
                broken("no resurrection", "it came back without a higher sequence")
            }
            (TopicEvent::PeerJoined(_), None) => Ok(()),
            (_, None) => broken("events replay", "an event about who is not in the book"),
            (TopicEvent::PeerUpdated(_) | TopicEvent::PeerRefreshed(_), Some(was))
                if record.sequence <= was =>
            {
                broken("sequences never fall", "an update without a higher sequence")
            }
            (_, Some(was)) if record.sequence < was => {
                broken("sequences never fall", "an event with an older record")
            }
            (TopicEvent::PeerSuspected(_), _) if entry.suspected.is_some() => {
                broken("events replay", "suspected twice")
            }
            (TopicEvent::PeerRecovered(_), _) if entry.suspected.is_none() => {
                broken("events replay", "recovered from no suspicion")
            }
            (TopicEvent::PeerLeft(_), _)
                if !roster.peers[number].left && !roster.peers[number].hostile =>
            {
                broken("records are their owners'", "its owner never said goodbye")
            }
            (TopicEvent::PeerLost(_, LostReason::Unreachable), _) => match entry.suspected {
                None => broken("no verdict before the floor", "lost without a suspicion"),
                // The application hears of others' suspicion after a probe's time.
                Some(since)
                    if now
                        < since + nanos(config.suspicion.saturating_sub(config.probe_timeout)) =>
                {
                    let after = Duration::from_nanos(now - since);
                    broken("no verdict before the floor", &format!("lost {after:?} after it"))
                }
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        };
        entry.highest = entry.highest.max(record.sequence);
        match event {
            TopicEvent::PeerSuspected(_) => entry.suspected = Some(now),
            // The protocol says it where a new sequence refutes.
            TopicEvent::PeerUpdated(_) | TopicEvent::PeerRefreshed(_) => {}
            _ => entry.suspected = None,
        }
        let gone = matches!(event, TopicEvent::PeerLeft(_) | TopicEvent::PeerLost(..));
        let honest = !roster.peers[number].hostile;
        if let Some(was) = entry.record.take() {
            self.present -= 1;
            self.digest.subtract(&Digest::of(&was.id, was.sequence));
            self.honest -= usize::from(honest);
            self.right -= usize::from(honest && roster.is_right(number, was.sequence, group));
        }
        if !gone {
            entry.record = Some(Arc::clone(record));
            self.present += 1;
            self.digest.add(&Digest::of(&record.id, record.sequence));
            self.honest += usize::from(honest);
            self.right += usize::from(honest && roster.is_right(number, record.sequence, group));
        }
        if result.is_ok() && self.present > config.capacity {
            result = Err(("caps hold", format!("{} peers in the book", self.present)));
        }
        result
    }
}

impl Index<&EndpointId> for Book {
    type Output = Arc<NodeRecord>;

    /// # Panics
    /// Where the peer is not in the book.
    fn index(&self, id: &EndpointId) -> &Arc<NodeRecord> {
        self.get(id).expect("the peer is in the book")
    }
}

fn of(record: &NodeRecord) -> String {
    format!(
        "{} ({}) sequence {} boot {}",
        record.profile.name,
        record.id.fmt_short(),
        record.sequence,
        record.boot_id
    )
}
