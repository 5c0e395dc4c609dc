//! One connection between two nodes, as QUIC shows it: lanes in order, queues with bounds.

use std::collections::VecDeque;

use bytes::Bytes;
use iroh_gossip_discovery_proto::{Lane, LinkId};

use crate::{clock::Nanos, queue::Side, sent::Unacknowledged};

/// Links are numbered; each side calls its end by [`LinkNumber::id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkNumber(pub(crate) u32);

impl LinkNumber {
    pub(crate) fn id(self, side: Side) -> LinkId {
        LinkId(u64::from(self.0) * 2 + side as u64)
    }

    pub(crate) fn of(id: LinkId) -> (Self, Side) {
        (Self(u32::try_from(id.0 / 2).unwrap_or(u32::MAX)), usize::from(id.0 % 2 == 1))
    }
}

/// What QUIC takes before its reader does: the receive window of a stream.
const WINDOW: usize = 1_250_000;
/// Most frames and bytes in the queues of the lanes, as the driver has it.
const QUEUE_FRAMES: [usize; 3] = [256, 256, 1024];
const QUEUE_BYTES: [usize; 3] = [1024 * 1024, 8 * 1024 * 1024, 2 * 1024 * 1024];

/// What is on its way from one side on one lane.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// When the last frame arrives: order is kept.
    pub(crate) last: Nanos,
    /// Frames that were sent and that the other end has not taken.
    bytes: usize,
    /// Frames beyond the window, or sent within one instant: they stand in the queue.
    queued: usize,
    sent: Nanos,
}

/// The queue was full.
#[derive(Debug)]
pub(crate) struct Overflow;

impl Flight {
    pub(crate) fn send(&mut self, bytes: usize, lane: Lane, now: Nanos) -> Result<(), Overflow> {
        if self.bytes <= WINDOW && self.sent != now {
            self.queued = 0;
        }
        self.sent = now;
        let most = WINDOW + QUEUE_BYTES[lane as usize];
        if self.queued >= QUEUE_FRAMES[lane as usize] || self.bytes + bytes > most {
            return Err(Overflow);
        }
        self.bytes += bytes;
        self.queued += 1;
        Ok(())
    }

    pub(crate) fn taken(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// One side of a link.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) life: u64,
    /// True if the node knows the link.
    pub(crate) open: bool,
    /// True if it was notified of the link, or never will be.
    pub(crate) notified: bool,
    /// When the handshake is done here.
    pub(crate) opens: Nanos,
    /// What this side sends.
    pub(crate) flights: [Flight; 3],
    /// When the first control frame from here arrives: nothing of another lane comes before it.
    pub(crate) hello: Option<Nanos>,
    /// Frames from here that a cut holds back.
    pub(crate) held: VecDeque<(Lane, Bytes)>,
    /// It waits for QUIC to acknowledge what it sent.
    pub(crate) keepalive_pending: bool,
    /// What came here and is not acknowledged.
    pub(crate) unacknowledged: Unacknowledged,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// One way, before what is drawn for each frame.
    pub(crate) latency: Nanos,
    /// Counts cuts: a timeout that was scheduled before is void.
    pub(crate) epoch: u32,
    /// Since when it is cut.
    pub(crate) cut: Option<Nanos>,
    /// When the last packet was sent on it: what keeps it alive is counted from there.
    pub(crate) last_packet: Nanos,
}

impl Link {
    pub(crate) fn new(ends: [(usize, u64, Nanos); 2], latency: Nanos) -> Self {
        let ends = ends.map(|(node, life, opens)| End {
            node,
            life,
            open: false,
            notified: false,
            opens,
            flights: Default::default(),
            hello: None,
            keepalive_pending: false,
            held: VecDeque::new(),
            unacknowledged: Unacknowledged::default(),
        });
        let last_packet = ends[0].opens;
        Self { ends, latency, epoch: 0, cut: None, last_packet }
    }

    /// Keep-alives since the last packet, of which there is one now.
    pub(crate) fn keep_alives(&mut self, interval: Nanos, now: Nanos) -> u64 {
        let quiet = now.saturating_sub(self.last_packet);
        self.last_packet = self.last_packet.max(now);
        quiet / interval.max(1)
    }
}
