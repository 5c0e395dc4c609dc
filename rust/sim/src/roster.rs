//! The truth about all identities: the records of their owners, and whether they are in the
//! network.

use std::{collections::HashMap, sync::Arc};

use iroh_gossip_discovery_proto::{Digest, EndpointId, NodeRecord};

/// One identity: a key, and what its owner did.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: EndpointId,
    /// The nodes that hold its key.
    pub(crate) nodes: Vec<usize>,
    /// Whether it runs hostile code instead of the protocol. Then the checks don't judge what it
    /// sends.
    pub(crate) hostile: bool,
    /// All records that its owner announced, in order, each with its part of a book's digest. The
    /// part is kept because every node needs it.
    made: Vec<(Arc<NodeRecord>, Digest)>,
    /// Whether its owner has ever left.
    pub(crate) left: bool,
    /// The sequence number that others should hold; `None` while it is not in the network.
    pub(crate) current: Option<u64>,
    /// The group that it is in: a part of the network.
    pub(crate) group: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) peers: Vec<Peer>,
    numbers: HashMap<EndpointId, usize>,
    /// The number of identities in the network, by group.
    there: HashMap<u32, usize>,
}

impl Roster {
    /// Returns the number of an identity, and adds it if it is new.
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

    /// Notes that the owner announced a record.
    pub(crate) fn make(&mut self, number: usize, record: &Arc<NodeRecord>) {
        let digest = Digest::of(&record.id, record.sequence);
        self.peers[number].made.push((Arc::clone(record), digest));
    }

    /// Returns a record's part of a book's digest.
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

    /// Returns how many identities a group has.
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

    /// Returns true if an entry is right for a book in `group`.
    pub(crate) fn is_right(&self, number: usize, sequence: u64, group: u32) -> bool {
        let peer = &self.peers[number];
        peer.group == group && peer.current == Some(sequence)
    }
}
