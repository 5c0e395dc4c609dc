//! A node's address book by replaying its events, and the rules that every event must keep.

use std::{collections::BTreeMap, ops::Index, sync::Arc, time::Duration};

use iroh_gossip_discovery_proto::{Config, Digest, EndpointId, LostReason, NodeRecord, TopicEvent};

use crate::{
    clock::{Nanos, nanos},
    roster::Roster,
};

/// The address book by replaying events.
#[derive(Debug, Default)]
pub struct Book {
    /// The records, by number in the roster. Each is only a pointer, because N nodes have N²
    /// entries.
    entries: Vec<Option<Arc<NodeRecord>>>,
    /// The highest sequence number of each peer that is no longer in the book.
    gone: BTreeMap<usize, u64>,
    /// When the suspicion of each suspected peer began.
    suspected: BTreeMap<usize, Nanos>,
    present: usize,
    /// The digest of the ids and sequence numbers in the book.
    pub(crate) digest: Digest,
    /// The number of entries that belong to honest identities; the next field counts the right
    /// ones.
    pub(crate) honest: usize,
    pub(crate) right: usize,
}

/// A broken rule: the name of the check, and what was seen.
pub(crate) type Broken = (&'static str, String);

impl Book {
    /// Returns the number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present
    }

    /// Returns true if the book has no peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// Iterates over the records, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.entries.iter().flatten()
    }

    /// Iterates over the peers, by number in the roster, with their sequence numbers.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = (usize, u64)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(number, record)| Some((number, record.as_ref()?.sequence)))
    }

    /// Returns the record of a peer. O(n).
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<NodeRecord>> {
        self.values().find(|record| record.id == *id)
    }

    /// Returns true if a peer is in the book. O(n).
    #[must_use]
    pub fn contains_key(&self, id: &EndpointId) -> bool {
        self.get(id).is_some()
    }

    /// Returns true if a peer, by its number in the roster, is in the book.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.entries.get(number).is_some_and(Option::is_some)
    }

    /// Returns true if a peer ever was in the book.
    pub(crate) fn ever_had(&self, number: usize) -> bool {
        self.has(number) || self.gone.contains_key(&number)
    }

    pub(crate) fn sequence(&self, number: usize) -> Option<u64> {
        Some(self.entries.get(number)?.as_ref()?.sequence)
    }

    /// Returns the sequence numbers by id.
    pub(crate) fn by_id(&self) -> BTreeMap<EndpointId, u64> {
        self.values().map(|record| (record.id, record.sequence)).collect()
    }

    /// Fills the book with the records of all nodes but `me`.
    pub(crate) fn preload(
        &mut self,
        records: &[(usize, Arc<NodeRecord>)],
        me: usize,
        roster: &Roster,
    ) {
        self.entries = vec![None; roster.peers.len()];
        self.digest = Digest::default();
        for (number, record) in records.iter().filter(|(number, _)| *number != me) {
            self.digest.add(&roster.digest(*number, record.sequence));
            self.entries[*number] = Some(Arc::clone(record));
        }
        self.present = records.len() - 1;
        (self.honest, self.right) = (self.present, self.present);
    }

    /// Empties the book, for another life of the node.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Applies an event about a peer, and returns the rule that it breaks, if any.
    // long: one arm for each kind of event, with all rules for it.
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
            let more = roster.peers.len() - self.entries.len();
            self.entries.reserve_exact(more);
            self.entries.resize(number + 1, None);
        }
        let was = self.sequence(number);
        let highest = was.or(self.gone.get(&number).copied()).unwrap_or(0);
        let suspected = self.suspected.get(&number).copied();
        let mut result = match (event, was) {
            (TopicEvent::PeerJoined(_), Some(_)) => broken("events replay", "joined twice"),
            (TopicEvent::PeerJoined(_), None) if record.sequence <= highest => {
                broken("no resurrection", "it came back without a higher sequence")
            }
            (TopicEvent::PeerJoined(_), None) => Ok(()),
            (_, None) => broken("events replay", "an event about a peer that is not in the book"),
            (TopicEvent::PeerUpdated(_) | TopicEvent::PeerRefreshed(_), Some(was))
                if record.sequence <= was =>
            {
                broken("sequences never fall", "an update without a higher sequence")
            }
            (_, Some(was)) if record.sequence < was => {
                broken("sequences never fall", "an event with an older record")
            }
            (TopicEvent::PeerSuspected(_), _) if suspected.is_some() => {
                broken("events replay", "suspected twice")
            }
            (TopicEvent::PeerRecovered(_), _) if suspected.is_none() => {
                broken("events replay", "recovered from no suspicion")
            }
            (TopicEvent::PeerLeft(_), _)
                if !roster.peers[number].left && !roster.peers[number].hostile =>
            {
                broken("records are their owners'", "its owner never said goodbye")
            }
            (TopicEvent::PeerLost(_, LostReason::Unreachable), _) => match suspected {
                None => broken("no verdict before the floor", "lost without a suspicion"),
                // The application learns of others' suspicion only after the time of a probe.
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
        match event {
            TopicEvent::PeerSuspected(_) => {
                self.suspected.insert(number, now);
            }
            // If a new sequence number refutes a suspicion, the protocol emits `PeerRecovered` for
            // that.
            TopicEvent::PeerUpdated(_) | TopicEvent::PeerRefreshed(_) => {}
            _ => {
                self.suspected.remove(&number);
            }
        }
        let gone = matches!(event, TopicEvent::PeerLeft(_) | TopicEvent::PeerLost(..));
        let honest = !roster.peers[number].hostile;
        if let Some(was) = self.entries[number].take() {
            self.present -= 1;
            self.digest.subtract(&roster.digest(number, was.sequence));
            self.honest -= usize::from(honest);
            self.right -= usize::from(honest && roster.is_right(number, was.sequence, group));
        }
        if gone {
            self.gone.insert(number, highest.max(record.sequence));
        } else {
            self.gone.remove(&number);
            self.entries[number] = Some(Arc::clone(record));
            self.present += 1;
            self.digest.add(&roster.digest(number, record.sequence));
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
    /// Panics if the peer is not in the book.
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
