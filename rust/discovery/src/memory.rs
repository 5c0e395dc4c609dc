//! The memory that peers may fill: one sum for incomplete data, as half frames and half messages,
//! and one for what they sent and nobody has read.
//!
//! A sum counts all kinds of streams, for each link, for each peer and for the whole endpoint.
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

/// The most bytes that a sum admits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For all peers together. Half of it is for the peers that are in no book.
    all: usize,
    /// For one member, for one stranger, and for one link.
    member: usize,
    stranger: usize,
    link: usize,
}

const MIB: usize = 1024 * 1024;
/// Incomplete data. An honest node has at most 1 MiB of messages on their way to a peer, and 1,024
/// streams.
pub(crate) const INCOMPLETE: Limits =
    Limits { all: 64 * MIB, member: 6 * MIB, stranger: 3 * MIB, link: 4 * MIB };
/// What was sent and not read, beyond what every link may hold. A peer that is alone gets 28 MiB.
pub(crate) const UNREAD: Limits =
    Limits { all: 256 * MIB, member: 64 * MIB, stranger: 64 * MIB, link: 64 * MIB };
/// A peer may fill this part of the bytes that nobody fills then.
const PART_OF_REST: usize = 8;

type IsMember = dyn Fn(&EndpointId) -> bool + Send + Sync;

/// The sums of an endpoint. Clones share them.
#[derive(Clone)]
pub(crate) struct Memory {
    limits: Limits,
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
    pub(crate) fn new(
        limits: Limits,
        is_member: impl Fn(&EndpointId) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { limits, sums: Arc::default(), is_member: Arc::new(is_member) }
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
    /// Returns the bytes that are counted now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

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
        let limits = self.link.memory.limits;
        let of_peer = if self.as_stranger { limits.stranger } else { limits.member };
        let mut sums = self.link.memory.lock();
        let filled = sums.peers.get(&self.link.peer).copied().unwrap_or(0);
        let mut rest = limits.all.saturating_sub(sums.all + more);
        if self.as_stranger {
            rest = rest.min((limits.all / 2).saturating_sub(sums.strangers + more));
        }
        if filled + more > of_peer.min(rest / PART_OF_REST)
            || self.link.bytes.load(Ordering::Relaxed) + more > limits.link
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
        Memory::new(INCOMPLETE, |peer| *peer == id(0))
    }

    #[test]
    fn a_link_and_a_peer_have_their_limits_and_give_back_all() {
        let memory = memory();
        let links = [memory.link(id(0)), memory.link(id(0))];
        let mut first = links[0].stream();
        first.set(INCOMPLETE.link).unwrap();
        assert_eq!(links[0].stream().set(1), Err(OverLimit));
        let mut second = links[1].stream();
        second.set(INCOMPLETE.member - INCOMPLETE.link).unwrap();
        assert_eq!(second.set(INCOMPLETE.member - INCOMPLETE.link + 1), Err(OverLimit));
        first.set(7).unwrap();
        assert_eq!(memory.filled(), 7 + INCOMPLETE.member - INCOMPLETE.link);
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
        assert!(memory.filled() <= INCOMPLETE.all / 2);
        assert!(memory.filled() > INCOMPLETE.all * 3 / 8);
        assert_eq!(memory.link(id(250)).stream().set(INCOMPLETE.stranger), Err(OverLimit));
        let mut member = memory.link(id(0)).stream();
        member.set(INCOMPLETE.link / 2).unwrap();
        drop((filled, member));
        assert_eq!(memory.lock().strangers, 0);
    }

    #[test]
    fn members_that_fill_all_they_can_leave_room_for_the_messages_of_another_one() {
        let memory = Memory::new(INCOMPLETE, |_| true);
        let filled = fill(&memory, 0..30);
        assert!(memory.filled() > INCOMPLETE.all * 3 / 4);
        let mut others = fill(&memory, 30..31);
        assert!(!others.is_empty(), "30 peers fill all");
        drop(filled);
        others.extend(fill(&memory, 31..250));
        assert!(memory.filled() <= INCOMPLETE.all);
    }

    /// An honest node may have 1 MiB of messages on their way to each other one.
    #[test]
    fn fifty_members_fill_what_honest_nodes_may() {
        let memory = Memory::new(INCOMPLETE, |_| true);
        let all = (0..50).map(|number| {
            let mut messages = memory.link(id(number)).stream();
            messages.set(1024 * 1024).map(|()| messages)
        });
        all.collect::<Result<Vec<_>, _>>().unwrap();
    }

    /// What 51 links held was 3.2 GB, when each had a limit of its own and there was no sum.
    #[test]
    fn many_links_hold_no_more_unread_bytes_than_the_sum() {
        const STREAM: usize = 1_250_000;
        let memory = Memory::new(UNREAD, |peer| peer.as_bytes()[0] < 40);
        let fill = |number| {
            let mut window = memory.link(id(number)).stream();
            let steps = (1..60).take_while(|streams| window.set(streams * STREAM).is_ok()).count();
            (window, steps)
        };
        let strangers: Vec<_> = (40..140).map(fill).collect();
        assert!(memory.filled() <= UNREAD.all / 2, "{}", memory.filled());
        let members: Vec<_> = (0..20).map(fill).collect();
        assert!(members.iter().all(|(_, streams)| *streams > 0), "each has room for a stream");
        assert!(memory.filled() <= UNREAD.all, "{}", memory.filled());
        drop((strangers, members));
        assert_eq!(memory.filled(), 0);
        assert_eq!(fill(0).1, 23, "a peer that is alone");
    }
}
