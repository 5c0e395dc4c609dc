//! One connection between two nodes that behaves as QUIC's: ordered lanes and bounded queues.

use std::collections::VecDeque;

use bytes::Bytes;
use iroh_gossip_discovery_proto::{Lane, LinkId};

use crate::{clock::Nanos, sent::Unacknowledged};

/// One of the two ends of a link: 0 dialed, 1 accepted.
pub(crate) type Side = usize;

/// The number of a link. Each side names its end by [`LinkNumber::id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkNumber(pub(crate) u32);

impl LinkNumber {
    pub(crate) fn new(number: usize) -> Self {
        Self(u32::try_from(number).unwrap_or(u32::MAX))
    }

    pub(crate) fn id(self, side: Side) -> LinkId {
        LinkId(u64::from(self.0) * 2 + side as u64)
    }

    pub(crate) fn of(id: LinkId) -> (Self, Side) {
        (Self(u32::try_from(id.0 / 2).unwrap_or(u32::MAX)), usize::from(id.0 % 2 == 1))
    }
}

/// The receive window of a stream: what QUIC takes before its reader does.
const WINDOW: usize = 1_250_000;
/// Most frames in the queue of each lane, as in the driver; the next line has the bytes.
const QUEUE_FRAMES: [usize; 3] = [256, 256, 1024];
const QUEUE_BYTES: [usize; 3] = [1024 * 1024, 8 * 1024 * 1024, 2 * 1024 * 1024];

/// The frames on their way from one side on one lane.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// When the last frame arrives. No later frame may arrive before it.
    pub(crate) last: Nanos,
    /// The bytes of frames that were sent and that the other end has not taken.
    bytes: usize,
    /// Frames in the queue: they are beyond the window, or were sent within the same instant.
    queued: usize,
    sent: Nanos,
}

/// The error that the queue is full.
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
    /// Whether the node knows the link.
    pub(crate) open: bool,
    /// Whether the node was notified of the link, or never will be.
    pub(crate) notified: bool,
    /// When the handshake is done at this side.
    pub(crate) opens: Nanos,
    /// What this side sends, by lane.
    pub(crate) flights: [Flight; 3],
    /// When the first control frame of this side arrives. No frame of another lane may arrive
    /// before it.
    pub(crate) hello: Option<Nanos>,
    /// Frames of this side that a cut holds back.
    pub(crate) held: VecDeque<(Lane, Bytes)>,
    /// Whether this side waits for QUIC to acknowledge a keepalive.
    pub(crate) keepalive_pending: bool,
    /// What arrived at this side and is not acknowledged yet.
    pub(crate) unacknowledged: Unacknowledged,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// The latency in one direction, without the part that is drawn for each frame.
    pub(crate) latency: Nanos,
    /// The number of cuts so far. A timeout that was scheduled before the last one is void.
    pub(crate) epoch: u32,
    /// Since when the link is cut; `None` if it is not.
    pub(crate) cut: Option<Nanos>,
    /// When the last packet was sent on the link. Keep-alives are counted from there.
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

    /// Returns the side of a node.
    pub(crate) fn side_of(&self, node: usize) -> Side {
        usize::from(self.ends[0].node != node)
    }

    /// Returns how many keep-alives were sent since the last packet, and notes a packet now.
    pub(crate) fn keep_alives(&mut self, interval: Nanos, now: Nanos) -> u64 {
        let quiet = now.saturating_sub(self.last_packet);
        self.last_packet = self.last_packet.max(now);
        quiet / interval.max(1)
    }
}
