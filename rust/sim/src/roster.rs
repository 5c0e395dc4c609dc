//! The truth: every identity that ever was, the records of its owner, and whether it is there.

use std::{collections::HashMap, sync::Arc};

use iroh_gossip_discovery_proto::{Digest, EndpointId, NodeRecord};

/// One identity.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: EndpointId,
    /// The nodes that hold its key.
    pub(crate) nodes: Vec<usize>,
    /// It runs something else than the protocol: what it sends isn't judged.
    pub(crate) hostile: bool,
    /// All records that its owner announced, in order, with what they add to a book's digest: every
    /// node asks for it.
    made: Vec<(Arc<NodeRecord>, Digest)>,
    /// True if its owner ever left.
    pub(crate) left: bool,
    /// The sequence that others should hold; `None` while it is not there.
    pub(crate) current: Option<u64>,
    /// The part of the network that it is in.
    pub(crate) group: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) peers: Vec<Peer>,
    numbers: HashMap<EndpointId, usize>,
    /// How many are there, by group.
    there: HashMap<u32, usize>,
}

impl Roster {
    /// The number of an identity, new or known.
    pub(crate) fn enlist(&mut self, id: EndpointId) -> usize {
        *self.numbers.entry(id).or_insert_with(|| {
            self.peers.push(Peer {
                id,
                nodes: Vec::new(),
                hostile: false,
                made: Vec::new(),
                left: false,
                current: None,
                group: 0,
            });
            self.peers.len() - 1
        })
    }

    pub(crate) fn number(&self, id: &EndpointId) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    /// The owner announced a record.
    pub(crate) fn make(&mut self, number: usize, record: &Arc<NodeRecord>) {
        let digest = Digest::of(&record.id, record.sequence);
        self.peers[number].made.push((Arc::clone(record), digest));
    }

    /// What a record adds to a book's digest.
    pub(crate) fn digest(&self, number: usize, sequence: u64) -> Digest {
        let peer = &self.peers[number];
        let made = peer.made.iter().rev().find(|(made, _)| made.sequence == sequence);
        made.map_or_else(|| Digest::of(&peer.id, sequence), |(_, digest)| *digest)
    }

    /// Returns true if the owner announced this very record.
    pub(crate) fn made(&self, number: usize, record: &Arc<NodeRecord>) -> bool {
        let peer = &self.peers[number];
        peer.hostile
            || peer.made.iter().rev().any(|(made, _)| {
                made.sequence == record.sequence && (Arc::ptr_eq(made, record) || made == record)
            })
    }

    /// How many are there in a group.
    pub(crate) fn there(&self, group: u32) -> usize {
        self.there.get(&group).copied().unwrap_or(0)
    }

    pub(crate) fn set(&mut self, number: usize, current: Option<u64>, group: u32) {
        let peer = &mut self.peers[number];
        if !peer.hostile {
            if peer.current.is_some() {
                *self.there.entry(peer.group).or_default() -= 1;
            }
            if current.is_some() {
                *self.there.entry(group).or_default() += 1;
            }
        }
        (peer.current, peer.group) = (current, group);
    }

    /// Returns true if an entry of a book in `group` is as it should be.
    pub(crate) fn is_right(&self, number: usize, sequence: u64, group: u32) -> bool {
        let peer = &self.peers[number];
        peer.group == group && peer.current == Some(sequence)
    }
}
