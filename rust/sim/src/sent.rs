//! What a node sent: its frames as they are, and an estimate of what QUIC makes of them on the wire.
//!
//! The estimate knows of packets and their heads, of acknowledgements (with what goes back within
//! the time that a peer may wait, else in a packet of their own), of repeated packets, of
//! keep-alives and of handshakes. It knows nothing of congestion control, path validation, MTU
//! discovery or relays.

use std::ops::{AddAssign, Sub};

use iroh_gossip_discovery_proto::Lane;
use serde::Serialize;

use crate::clock::Nanos;

/// Bytes of a frame that one packet carries.
pub(crate) const PACKET: usize = 1200;
/// How long a peer may wait before it acknowledges a packet (RFC 9000 §18.2).
pub(crate) const ACK_DELAY: Nanos = 25_000_000;
/// The length before each frame.
const PREFIX: usize = 4;
/// IPv4 and UDP, 28 bytes; a short head with a connection id of 8 bytes and a packet number of 2,
/// 11 bytes; the tag of the AEAD, 16 bytes.
const EMPTY_PACKET: u64 = 55;
/// The head of a STREAM frame: type, stream, offset, length.
const STREAM_HEAD: u64 = 6;
/// An ACK frame of one range.
const ACK: u64 = 8;
/// A PING frame.
const PING: u64 = 1;
/// What each end sends to open a link without MTU discovery: two full datagrams of the dialler, the
/// certificate, and the first packets after that; half of the 12 kB that a real one was measured at.
const HANDSHAKE: u64 = 6_000;

/// Frames, and their bytes with the length before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Frames {
    /// How many.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a node sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sent {
    /// On the lane for all that must be quick.
    pub control: Frames,
    /// On the lane for syncs.
    pub sync: Frames,
    /// On the lane for broadcasts of applications.
    pub broadcast: Frames,
    /// Bytes on the wire, IP and UDP heads included: an estimate.
    pub wire_bytes: u64,
    /// Dials begun.
    pub dials: u64,
}

impl Sent {
    /// Bytes of all frames.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.control.bytes + self.sync.bytes + self.broadcast.bytes
    }

    /// How many frames there were.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.control.frames + self.sync.frames + self.broadcast.frames
    }

    pub(crate) fn frame(&mut self, lane: Lane, bytes: usize) {
        let bytes = (bytes + PREFIX) as u64;
        let sent = match lane {
            Lane::Control => &mut self.control,
            Lane::Sync => &mut self.sync,
            Lane::Broadcast => &mut self.broadcast,
        };
        sent.frames += 1;
        sent.bytes += bytes;
        self.wire_bytes += bytes;
    }

    pub(crate) fn packets(&mut self, packets: u64) {
        self.wire_bytes += packets * (EMPTY_PACKET + STREAM_HEAD);
    }

    pub(crate) fn repeated(&mut self, packets: u64, bytes: usize) {
        let each = (bytes as u64).min(PACKET as u64);
        self.wire_bytes += packets * (EMPTY_PACKET + STREAM_HEAD + each);
    }

    pub(crate) fn acks(&mut self, packets: u64) {
        self.wire_bytes += packets * (EMPTY_PACKET + ACK);
    }

    pub(crate) fn keep_alives(&mut self, packets: u64) {
        self.wire_bytes += packets * (EMPTY_PACKET + PING);
    }

    pub(crate) fn handshake(&mut self) {
        self.wire_bytes += HANDSHAKE;
    }
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        for (frames, more) in [
            (&mut self.control, other.control),
            (&mut self.sync, other.sync),
            (&mut self.broadcast, other.broadcast),
        ] {
            frames.frames += more.frames;
            frames.bytes += more.bytes;
        }
        self.wire_bytes += other.wire_bytes;
        self.dials += other.dials;
    }
}

impl Sub for Sent {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let less = |now: Frames, before: Frames| Frames {
            frames: now.frames - before.frames,
            bytes: now.bytes - before.bytes,
        };
        Self {
            control: less(self.control, before.control),
            sync: less(self.sync, before.sync),
            broadcast: less(self.broadcast, before.broadcast),
            wire_bytes: self.wire_bytes - before.wire_bytes,
            dials: self.dials - before.dials,
        }
    }
}

/// Packets for a frame of so many bytes.
pub(crate) fn packets(bytes: usize) -> u64 {
    (bytes + PREFIX).div_ceil(PACKET) as u64
}

/// What one end of a link has to acknowledge.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    packets: u64,
    due: Nanos,
}

impl Unacknowledged {
    /// Packets came: how many acknowledgements go out alone, one for every second packet.
    pub(crate) fn received(&mut self, packets: u64, now: Nanos) -> u64 {
        let overdue = self.overdue(now);
        if self.packets == 0 {
            self.due = now + ACK_DELAY;
        }
        self.packets += packets;
        let alone = self.packets / 2;
        self.packets %= 2;
        overdue + alone
    }

    /// Something is sent: how many acknowledgements had gone out alone; what is left goes with it.
    pub(crate) fn sent(&mut self, now: Nanos) -> u64 {
        let overdue = self.overdue(now);
        self.packets = 0;
        overdue
    }

    fn overdue(&mut self, now: Nanos) -> u64 {
        let overdue = self.packets > 0 && now > self.due;
        if overdue {
            self.packets = 0;
        }
        u64::from(overdue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_the_acknowledgement_and_silence_does_not() {
        let mut end = Unacknowledged::default();
        assert_eq!(end.received(1, 0), 0);
        assert_eq!(end.sent(ACK_DELAY), 0, "with the answer");
        assert_eq!(end.received(1, 0), 0);
        assert_eq!(end.sent(ACK_DELAY + 1), 1, "before the answer");
        assert_eq!(end.sent(ACK_DELAY + 1), 0, "once");
        assert_eq!(end.received(5, 0), 2, "one for every second packet");
        assert_eq!(end.received(1, ACK_DELAY * 2), 1, "the fifth was late");
    }

    #[test]
    fn a_frame_of_one_byte_more_than_a_packet_takes_two() {
        assert_eq!(packets(PACKET - PREFIX), 1);
        assert_eq!(packets(PACKET - PREFIX + 1), 2);
        let mut sent = Sent::default();
        sent.frame(Lane::Sync, 96);
        sent.packets(1);
        assert_eq!((sent.bytes(), sent.wire_bytes), (100, 100 + 61));
    }
}
