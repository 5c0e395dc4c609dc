//! The members that this node knows by hearsay: who introduced them, and in which networks they
//! claim to be.
//!
//! A member is reached once it completed a handshake with this node. All others are known by
//! hearsay. A peer can make up as many of them as it wants. So if a book has no room, hearsay gives
//! way, that of the largest introducer or network first.

use std::collections::BTreeMap;

use crate::{dials::Target, id::EndpointId, record::NodeRecord};

/// Where the record of a newcomer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Its owner sent it, or completed a handshake with this node.
    Owner,
    /// This peer introduced it, within its share.
    Hearsay(EndpointId),
    /// This peer introduced it beyond its share: it takes the place of another newcomer that this
    /// peer introduced.
    Beyond(EndpointId),
}

impl Source {
    pub(super) fn introducer(self) -> Option<EndpointId> {
        match self {
            Self::Owner => None,
            Self::Hearsay(peer) | Self::Beyond(peer) => Some(peer),
        }
    }
}

/// The number of an introducer, which takes less room in an entry than its id. A reached member has
/// [`REACHED`].
pub(super) type Slot = u32;
pub(super) const REACHED: Slot = 0;

/// How many members are known by hearsay, by introducer and by network.
#[derive(Debug, Default)]
pub(super) struct Shares {
    slots: BTreeMap<EndpointId, Slot>,
    /// The introducer with each number from 1 on, and how many members it introduced.
    introducers: Vec<(EndpointId, usize)>,
    /// The numbers that are not in use.
    free: Vec<Slot>,
    /// Only IP networks and relays that are not on this machine count.
    networks: BTreeMap<Target, usize>,
}

impl Shares {
    /// Counts a member, and returns the number of its introducer.
    pub(super) fn add(&mut self, introducer: EndpointId, record: &NodeRecord) -> Slot {
        for network in networks(record) {
            *self.networks.entry(network).or_default() += 1;
        }
        let slot = self.slots.get(&introducer).copied().unwrap_or_else(|| {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.introducers.push((introducer, 0));
                Slot::try_from(self.introducers.len()).unwrap_or(Slot::MAX)
            });
            self.slots.insert(introducer, slot);
            slot
        });
        debug_assert_ne!(slot, REACHED, "that number stands for no introducer");
        let entry = &mut self.introducers[slot as usize - 1];
        *entry = (introducer, entry.1 + 1);
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot, record: &NodeRecord) {
        if slot == REACHED {
            return;
        }
        for network in networks(record) {
            if let Some(count) = self.networks.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    self.networks.remove(&network);
                }
            }
        }
        let (introducer, count) = &mut self.introducers[slot as usize - 1];
        debug_assert!(*count > 0, "only a member that was counted is removed");
        *count -= 1;
        if *count == 0 {
            self.slots.remove(introducer);
            self.free.push(slot);
            debug_assert!(
                self.slots.len() + self.free.len() == self.introducers.len(),
                "a number is in use, or free"
            );
        }
    }

    /// Returns the introducer with a number.
    pub(super) fn introducer(&self, slot: Slot) -> Option<EndpointId> {
        let index = (slot as usize).checked_sub(1)?;
        self.introducers.get(index).map(|(introducer, _)| *introducer)
    }

    pub(super) fn slot(&self, introducer: &EndpointId) -> Option<Slot> {
        self.slots.get(introducer).copied()
    }

    /// Returns how many members a peer introduced.
    pub(super) fn of(&self, introducer: &EndpointId) -> usize {
        self.slot(introducer).map_or(0, |slot| self.introducers[slot as usize - 1].1)
    }

    /// Returns the size of the largest share that a member belongs to: that of its introducer, or
    /// of one of its networks.
    pub(super) fn weight(&self, slot: Option<Slot>, record: &NodeRecord) -> usize {
        let of_introducer = slot.filter(|slot| *slot != REACHED);
        let of_introducer = of_introducer.map_or(0, |slot| self.introducers[slot as usize - 1].1);
        let of_networks = networks(record).filter_map(|network| self.networks.get(&network));
        of_networks.copied().fold(of_introducer, usize::max)
    }
}

/// Returns the networks in which a member claims to be, each once.
fn networks(record: &NodeRecord) -> impl Iterator<Item = Target> {
    let mut found: Vec<_> = record.addresses.iter().filter_map(Target::network).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter()
}

/// Returns true if two members claim to be in the same network.
pub(super) fn share_a_network(one: &NodeRecord, other: &NodeRecord) -> bool {
    networks(one).any(|network| networks(other).any(|other| other == network))
}
