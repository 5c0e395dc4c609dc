//! The queue of future events: a heap in which events of equal times keep their order.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;
use iroh_gossip_discovery_proto::{EndpointId, Lane, LinkEnd};

use crate::{
    clock::Nanos,
    link::{LinkNumber, Side},
};

#[derive(Debug)]
pub(crate) enum SimEvent {
    /// A timer of a node's state may be due now.
    Wake(usize),
    /// The first packet of a dial reaches its target.
    Dialed(Box<Dial>),
    /// A node announces itself by multicast.
    Announces(usize),
    /// A node hears an announcement of another one by multicast.
    Heard {
        by: usize,
        of: usize,
    },
    DialFailed {
        from: usize,
        life: u64,
        to: EndpointId,
    },
    /// The handshake is done for one side.
    Opened(LinkNumber, Side),
    /// A frame arrives at a side.
    Frame(LinkNumber, Side, Lane, Bytes),
    /// A core of a machine may be free for an event that waits.
    Core(usize),
    /// The keepalive of one side was acknowledged.
    Acknowledged(LinkNumber, Side),
    /// A side hears of the link's end.
    Closed(LinkNumber, Side, LinkEnd),
    /// A side has heard nothing for the idle timeout, unless that changed since.
    TimedOut(LinkNumber, Side, u32),
    /// As [`SimEvent::TimedOut`], if the other side's node is paused since then.
    Silent(LinkNumber, Side, u32),
}

/// A dial that is under way.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) from: usize,
    pub(crate) life: u64,
    pub(crate) to: EndpointId,
    /// The node at the address, if there is one.
    pub(crate) target: usize,
    pub(crate) gives_up: Nanos,
    /// The time until the next packet, if this one is not answered.
    pub(crate) retry: Nanos,
}

#[derive(Debug)]
struct Entry {
    at: Nanos,
    count: u64,
    event: SimEvent,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.count).cmp(&(other.at, other.count))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    count: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Nanos, event: SimEvent) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at, count: self.count, event }));
    }

    /// Returns the time of the next event.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Nanos, SimEvent)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}
