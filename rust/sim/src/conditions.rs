//! The conditions of the network: latency, loss, bandwidth, and the timers of QUIC.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

use crate::{
    clock::{Nanos, nanos},
    sent::{ACK_DELAY, packets},
};

/// Most times that one packet is lost in a row.
const MOST_LOSSES: u32 = 7;
/// The longest probe timeout, if links are idle for less than 25 s (noq's `MAX_PTO_FAST_INTERVAL`).
const MOST_TIMEOUT: Nanos = 1_000_000_000;
/// The first probe timeout of a link, before its round trip is measured: three times the round trip
/// that the driver assumes.
const FIRST_TIMEOUT: Nanos = 300_000_000;
/// A packet counts as lost once this many later packets are acknowledged (RFC 9002 §6.1.1).
const THRESHOLD: u64 = 3;
/// How many packets are sent after a probe timeout (RFC 9002 §6.2.4). After a lone packet both
/// carry its content. After several packets each carries another one.
const PROBES: u32 = 2;

/// How long a frame takes from one node to another. Frames of one lane arrive in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Uniform, drawn again for each frame.
    Uniform {
        /// The shortest latency.
        min: Duration,
        /// The longest latency.
        max: Duration,
    },
    /// Log-normal, drawn once for each pair of nodes. Each frame takes up to a fifth longer than
    /// its pair's latency.
    LogNormal {
        /// Half of the pairs have a smaller latency than this.
        median: Duration,
        /// One pair in a hundred has a larger latency than this.
        p99: Duration,
    },
}

impl Latency {
    /// Log-normal, with a 99th percentile of five times the median.
    #[must_use]
    pub fn around(median: Duration) -> Self {
        Self::LogNormal { median, p99: median * 5 }
    }

    /// Returns the latency between two nodes, without the part that is drawn for each frame.
    pub(crate) fn of_pair(&self, seed: u64, a: usize, b: usize) -> Nanos {
        match *self {
            Self::Uniform { min, .. } => nanos(min),
            Self::LogNormal { median, p99 } => {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&seed.to_le_bytes());
                key[8..16].copy_from_slice(&(a.min(b) as u64).to_le_bytes());
                key[16..24].copy_from_slice(&(a.max(b) as u64).to_le_bytes());
                let mut rng = ChaCha12Rng::from_seed(key);
                // The Box–Muller transform gives a normal variate.
                let (u, v): (f64, f64) = (rng.random_range(f64::EPSILON..1.0), rng.random());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                // 2.326 is the 99th percentile of the normal distribution.
                let sigma = (p99.as_secs_f64() / median.as_secs_f64()).ln() / 2.326;
                let factor = (sigma * normal).exp().clamp(0.02, 50.0);
                nanos(median.mul_f64(factor))
            }
        }
    }

    /// Returns the time that one frame takes between two nodes of this latency.
    pub(crate) fn of_frame(&self, pair: Nanos, rng: &mut ChaCha12Rng) -> Nanos {
        let most = match *self {
            Self::Uniform { max, .. } => nanos(max).saturating_sub(pair),
            Self::LogNormal { .. } => pair / 5,
        };
        pair + if most == 0 { 0 } else { rng.random_range(0..most) }
    }
}

/// The conditions of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// The latency in one direction.
    pub latency: Latency,
    /// The share of packets that are lost, 0 to 1. QUIC sends them again, so what is behind them on
    /// their lane is late, and later with each further loss.
    pub loss: f64,
    /// The share of frames that are lost for good, 0 to 1. QUIC streams never do this: it is a
    /// stress model. A hello and the frame that opens a topic are never lost.
    pub drop: f64,
    /// What each node can send, in bytes per second; `None` is unlimited.
    pub bandwidth: Option<u64>,
    /// The share of dials that fail, 0 to 1.
    pub dial_failure: f64,
    /// A link counts as lost after this time without a packet.
    pub idle: Duration,
    /// The interval of the packets that keep an idle link alive.
    pub keep_alive: Duration,
    /// A dial fails after this time.
    pub connect_timeout: Duration,
    /// True if nodes hear by multicast of those that start, and of some that are up when they
    /// start themselves.
    pub multicast: bool,
}

impl Default for Conditions {
    /// [`Conditions::lan`].
    fn default() -> Self {
        Self::lan()
    }
}

impl Conditions {
    /// Adds losses to those that all packets have: of one kind after the other.
    pub(crate) fn with_losses(mut self, more: [f64; 2]) -> Self {
        for loss in more.into_iter().filter(|loss| *loss > 0.0) {
            self.loss = 1.0 - (1.0 - self.loss) * (1.0 - loss);
        }
        self
    }

    /// The conditions of a local network: a latency of 1 ms.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            latency: Latency::around(Duration::from_millis(1)),
            loss: 0.0,
            drop: 0.0,
            bandwidth: None,
            dial_failure: 0.0,
            idle: Duration::from_secs(9),
            keep_alive: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
            multicast: false,
        }
    }

    /// The conditions of one machine: a latency of 0.1 ms, and the timers of the preset `local`.
    #[must_use]
    pub fn local() -> Self {
        Self {
            latency: Latency::around(Duration::from_micros(100)),
            idle: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            ..Self::lan()
        }
    }

    /// The conditions of the internet: a latency of 10 ms.
    #[must_use]
    pub fn internet() -> Self {
        Self {
            latency: Latency::around(Duration::from_millis(10)),
            connect_timeout: Duration::from_secs(10),
            ..Self::lan()
        }
    }

    /// Draws how much later a frame arrives because its packets were lost, and how many packets
    /// were sent again. It follows QUIC's recovery (RFC 9002), with one difference. Packets of
    /// other frames don't reveal a loss here, so all timeouts are those of a link without other
    /// frames.
    pub(crate) fn retransmission(
        &self,
        bytes: usize,
        pair: Nanos,
        rng: &mut ChaCha12Rng,
    ) -> (Nanos, u64) {
        let packets = packets(bytes);
        let copies = if packets == 1 { PROBES } else { 1 };
        let (mut worst, mut again) = (0, 0);
        for packet in 0..packets {
            let shown = (packet + THRESHOLD < packets).then_some(2 * pair);
            let (late, repeated) = self.losses(shown, 3 * pair + ACK_DELAY, copies, rng);
            worst = worst.max(late);
            again += repeated;
        }
        (worst, again)
    }

    /// Draws how much later the first packet of a link arrives, or the answer to it.
    pub(crate) fn first_flight(&self, rng: &mut ChaCha12Rng) -> Nanos {
        self.losses(None, FIRST_TIMEOUT, PROBES, rng).0
    }

    /// Draws how much later one packet arrives, and how many were sent again. The first time, that
    /// is after `shown` if other packets reveal the loss. After that it is after `timeout`, twice
    /// as long each time, in `copies` copies.
    fn losses(
        &self,
        mut shown: Option<Nanos>,
        mut timeout: Nanos,
        copies: u32,
        rng: &mut ChaCha12Rng,
    ) -> (Nanos, u64) {
        let (mut late, mut again, mut sent) = (0, 0, 1);
        for _ in 0..MOST_LOSSES {
            if self.loss <= 0.0 || !(0..sent).all(|_| rng.random_bool(self.loss.min(1.0))) {
                break;
            }
            if let Some(round_trip) = shown.take() {
                (late, sent) = (late + round_trip, 1);
            } else {
                (late, sent) = (late + timeout.min(MOST_TIMEOUT), copies);
                timeout *= 2;
            }
            again += u64::from(sent);
        }
        (late, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const PAIR: Nanos = 10 * MS;

    /// Returns the shares of `draws` that are late at all and later than a limit, and the latest
    /// one.
    fn late(
        draws: u32,
        than: Nanos,
        mut draw: impl FnMut(&mut ChaCha12Rng) -> Nanos,
    ) -> (f64, f64, Nanos) {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let all: Vec<_> = (0..draws).map(|_| draw(&mut rng)).collect();
        let share = |of: Nanos| {
            let count = all.iter().filter(|late| **late > of).count();
            f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / f64::from(draws)
        };
        (share(0), share(than), all.iter().copied().max().unwrap_or_default())
    }

    #[test]
    fn a_lost_packet_is_repeated_after_timeouts_or_within_a_round_trip_if_later_ones_arrive() {
        let lossy = |loss| Conditions { loss, ..Conditions::lan() };
        let frame = |loss, bytes| {
            move |rng: &mut ChaCha12Rng| lossy(loss).retransmission(bytes, PAIR, rng).0
        };
        // The timeout is three latencies and 25 ms. Both probes are lost once in 25 times.
        let (once, twice, _) = late(100_000, 55 * MS, frame(0.2, 1));
        assert!((0.19..0.21).contains(&once) && (0.007..0.009).contains(&twice), "{twice}");
        let (_, sooner, _) = late(100_000, 55 * MS - 1, frame(0.2, 1));
        assert!((once - sooner).abs() < f64::EPSILON, "not before the timeout");
        // The first of four packets is repeated after a round trip, the others after a timeout.
        let (_, timeouts, _) = late(100_000, 20 * MS, frame(0.2, 4 * 1190));
        let (any, ..) = late(100_000, 0, frame(0.2, 4 * 1190));
        assert!((0.57..0.61).contains(&any) && (0.48..0.54).contains(&timeouts), "{timeouts}");
        // Timeouts grow up to one second.
        let (.., latest) = late(100, 0, frame(0.999, 1));
        assert_eq!(latest, (55 + 110 + 220 + 440 + 880 + 1000 + 1000) * MS);
    }

    #[test]
    fn losses_of_two_kinds_follow_each_other() {
        let loss = |more| Conditions { loss: 0.2, ..Conditions::lan() }.with_losses(more).loss;
        assert!((loss([0.5, 0.0]) - 0.6).abs() < 1e-9 && (loss([0.5, 0.5]) - 0.8).abs() < 1e-9);
        assert_eq!(loss([0.0, 0.0]).to_bits(), 0.2_f64.to_bits());
    }

    #[test]
    fn the_first_packet_of_a_link_is_sent_again_after_three_times_what_a_driver_assumes() {
        let first =
            |rng: &mut ChaCha12Rng| Conditions { loss: 0.2, ..Conditions::lan() }.first_flight(rng);
        let (lost, sooner, _) = late(100_000, 300 * MS - 1, first);
        assert!((0.19..0.21).contains(&lost) && (lost - sooner).abs() < f64::EPSILON, "{lost}");
    }
}
