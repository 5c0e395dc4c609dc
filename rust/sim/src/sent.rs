//! What a node sent: its frames, and an estimate of the bytes that QUIC makes of them on the wire.
//!
//! The estimate counts packets with their heads, acknowledgements, repeated packets, keep-alives
//! and handshakes. An acknowledgement goes with what is sent within the time that a peer may wait,
//! or else in a packet of its own. Not counted are congestion control, path validation, MTU
//! discovery and relays.

use std::ops::{AddAssign, Sub};

use iroh_gossip_discovery_proto::Lane;
use serde::Serialize;

use crate::clock::Nanos;

/// Most bytes of frames in one packet.
pub(crate) const PACKET: usize = 1200;
/// How long a peer may wait before it acknowledges a packet (RFC 9000 §18.2).
pub(crate) const ACK_DELAY: Nanos = 25_000_000;
/// The bytes of the length before each frame.
const PREFIX: usize = 4;
/// The bytes of a packet without frames. IPv4 and UDP take 28 bytes. The short head takes 11, with
/// a connection id of 8 bytes and a packet number of 2. The tag of the AEAD takes 16.
const EMPTY_PACKET: u64 = 55;
/// The head of a STREAM frame: type, stream, offset, length.
const STREAM_HEAD: u64 = 6;
/// An ACK frame of one range.
const ACK: u64 = 8;
/// A PING frame.
const PING: u64 = 1;
/// What each end sends to open a link without MTU discovery: half of the 12 kB that were measured
/// for a real link. They are two full datagrams of the dialing end, the certificate, and the first
/// packets after that.
const HANDSHAKE: u64 = 6_000;

/// A number of frames, and their bytes with the length before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Frames {
    /// The number of frames.
    pub frames: u64,
    /// The bytes of the frames, with the length before each.
    pub bytes: u64,
}

/// What a node sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sent {
    /// Frames on the control lane.
    pub control: Frames,
    /// Frames on the sync lane.
    pub sync: Frames,
    /// Frames on the broadcast lane.
    pub broadcast: Frames,
    /// An estimate of the bytes on the wire, with IP and UDP heads.
    pub wire_bytes: u64,
    /// Dials that were begun.
    pub dials: u64,
}

impl Sent {
    /// Returns the bytes of all frames.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.control.bytes + self.sync.bytes + self.broadcast.bytes
    }

    /// Returns the number of all frames.
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

/// Returns how many packets a frame of this size takes.
pub(crate) fn packets(bytes: usize) -> u64 {
    (bytes + PREFIX).div_ceil(PACKET) as u64
}

/// The packets that one end of a link has to acknowledge.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    packets: u64,
    due: Nanos,
}

impl Unacknowledged {
    /// Notes that packets came. Returns how many acknowledgements go out alone: one for every
    /// second packet.
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

    /// Notes that something is sent, which takes an open acknowledgement along. Returns how many
    /// acknowledgements had gone out alone before.
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
