//! The memory that peers may fill with incomplete data: half frames and half messages.
//!
//! One sum counts all kinds of streams, for each link, for each peer and for the whole endpoint.
//! Peers that are in no book share half of the memory. A node that announces itself is a member, so
//! no peer may fill more than an eighth of what then is left. So there is room for one more.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::proto::EndpointId;

/// Most bytes for all peers together.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes for all strangers together: the peers that are in no book.
const MAX_STRANGERS_BYTES: usize = MAX_BYTES / 2;
/// Most bytes for one member, for one stranger, and for one link. An honest node has at most 1 MiB
/// of messages on their way to a peer, and 1,024 streams.
const MAX_MEMBER_BYTES: usize = 6 * 1024 * 1024;
const MAX_STRANGER_BYTES: usize = 3 * 1024 * 1024;
const MAX_LINK_BYTES: usize = 4 * 1024 * 1024;
/// A peer may fill this part of the bytes that nobody fills then.
const PART_OF_REST: usize = 8;

type IsMember = dyn Fn(&EndpointId) -> bool + Send + Sync;

/// The sums of an endpoint. Clones share them.
#[derive(Clone)]
pub(crate) struct Memory {
    sums: Arc<Mutex<Sums>>,
    is_member: Arc<IsMember>,
}

#[derive(Debug, Default)]
struct Sums {
    all: usize,
    strangers: usize,
    peers: BTreeMap<EndpointId, usize>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("sums", &*self.lock()).finish_non_exhaustive()
    }
}

impl Memory {
    pub(crate) fn new(is_member: impl Fn(&EndpointId) -> bool + Send + Sync + 'static) -> Self {
        Self { sums: Arc::default(), is_member: Arc::new(is_member) }
    }

    /// Returns the account of one link.
    pub(crate) fn link(&self, peer: EndpointId) -> LinkMemory {
        LinkMemory { memory: self.clone(), peer, bytes: Arc::default() }
    }

    /// Returns the bytes that are filled now.
    #[cfg(test)]
    fn filled(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        // No panic can leave the sums half-changed, so a poisoned lock does no harm.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account of one link. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LinkMemory {
    memory: Memory,
    peer: EndpointId,
    bytes: Arc<AtomicUsize>,
}

impl LinkMemory {
    /// Returns the account of one stream, which fills nothing yet.
    pub(crate) fn stream(&self) -> Filled {
        Filled { link: self.clone(), bytes: 0, as_stranger: false }
    }
}

/// A limit is reached: that of the link, of the peer, of all strangers or of all peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit;

/// The account of one stream. Dropping it gives its bytes back.
#[derive(Debug)]
pub(crate) struct Filled {
    link: LinkMemory,
    bytes: usize,
    /// True if its bytes are counted among those of strangers.
    as_stranger: bool,
}

impl Filled {
    /// Counts `bytes` in place of the bytes before. After an error nothing has changed.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), OverLimit> {
        if bytes <= self.bytes {
            self.give_back(self.bytes - bytes);
            return Ok(());
        }
        if self.bytes == 0 {
            self.as_stranger = !(self.link.memory.is_member)(&self.link.peer);
        }
        let more = bytes - self.bytes;
        let of_peer = if self.as_stranger { MAX_STRANGER_BYTES } else { MAX_MEMBER_BYTES };
        let mut sums = self.link.memory.lock();
        let filled = sums.peers.get(&self.link.peer).copied().unwrap_or(0);
        let mut rest = MAX_BYTES.saturating_sub(sums.all + more);
        if self.as_stranger {
            rest = rest.min(MAX_STRANGERS_BYTES.saturating_sub(sums.strangers + more));
        }
        if filled + more > of_peer.min(rest / PART_OF_REST)
            || self.link.bytes.load(Ordering::Relaxed) + more > MAX_LINK_BYTES
        {
            return Err(OverLimit);
        }
        sums.all += more;
        if self.as_stranger {
            sums.strangers += more;
        }
        sums.peers.insert(self.link.peer, filled + more);
        self.link.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes = bytes;
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut sums = self.link.memory.lock();
        sums.all -= bytes;
        if self.as_stranger {
            sums.strangers -= bytes;
        }
        if let Some(filled) = sums.peers.get_mut(&self.link.peer) {
            *filled -= bytes;
            if *filled == 0 {
                sums.peers.remove(&self.link.peer);
            }
        }
        self.link.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> EndpointId {
        EndpointId::from_bytes([u8::try_from(number).unwrap(); 32])
    }

    /// A memory in which peer 0 is a member and all others are strangers.
    fn memory() -> Memory {
        Memory::new(|peer| *peer == id(0))
    }

    #[test]
    fn a_link_and_a_peer_have_their_limits_and_give_back_all() {
        let memory = memory();
        let links = [memory.link(id(0)), memory.link(id(0))];
        let mut first = links[0].stream();
        first.set(MAX_LINK_BYTES).unwrap();
        assert_eq!(links[0].stream().set(1), Err(OverLimit));
        let mut second = links[1].stream();
        second.set(MAX_MEMBER_BYTES - MAX_LINK_BYTES).unwrap();
        assert_eq!(second.set(MAX_MEMBER_BYTES - MAX_LINK_BYTES + 1), Err(OverLimit));
        first.set(7).unwrap();
        assert_eq!(memory.filled(), 7 + MAX_MEMBER_BYTES - MAX_LINK_BYTES);
        drop((first, second));
        assert_eq!(memory.filled(), 0);
        assert!(memory.lock().peers.is_empty());
    }

    /// Lets this many peers fill as much as each of them can, 64 KiB at a time.
    fn fill(memory: &Memory, peers: impl Iterator<Item = usize>) -> Vec<Filled> {
        let mut filled = Vec::new();
        for number in peers {
            for _ in 0..2 {
                let link = memory.link(id(number));
                loop {
                    let mut message = link.stream();
                    if message.set(64 * 1024).is_err() {
                        break;
                    }
                    filled.push(message);
                }
            }
        }
        filled
    }

    #[test]
    fn strangers_fill_no_more_than_half_and_members_have_room() {
        let memory = memory();
        let filled = fill(&memory, 1..200);
        assert!(memory.filled() <= MAX_STRANGERS_BYTES);
        assert!(memory.filled() > MAX_STRANGERS_BYTES * 3 / 4);
        assert_eq!(memory.link(id(250)).stream().set(MAX_STRANGER_BYTES), Err(OverLimit));
        let mut member = memory.link(id(0)).stream();
        member.set(MAX_LINK_BYTES / 2).unwrap();
        drop((filled, member));
        assert_eq!(memory.lock().strangers, 0);
    }

    #[test]
    fn members_that_fill_all_they_can_leave_room_for_the_messages_of_another_one() {
        let memory = Memory::new(|_| true);
        let filled = fill(&memory, 0..30);
        assert!(memory.filled() > MAX_BYTES * 3 / 4);
        let mut others = fill(&memory, 30..31);
        assert!(!others.is_empty(), "30 peers fill all");
        drop(filled);
        others.extend(fill(&memory, 31..250));
        assert!(memory.filled() <= MAX_BYTES);
    }

    /// An honest node may have 1 MiB of messages on their way to each other one.
    #[test]
    fn fifty_members_fill_what_honest_nodes_may() {
        let memory = Memory::new(|_| true);
        let all = (0..50).map(|number| {
            let mut messages = memory.link(id(number)).stream();
            messages.set(1024 * 1024).map(|()| messages)
        });
        all.collect::<Result<Vec<_>, _>>().unwrap();
    }
}
