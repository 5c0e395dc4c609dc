//! What the network is like: latency, loss, bandwidth, and the timers of QUIC.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

use crate::{
    clock::{Nanos, nanos},
    sent::{ACK_DELAY, packets},
};

/// Most times that one packet is lost.
const MOST_LOSSES: u32 = 7;
/// The longest probe timeout, if links are idle for less than 25 s (noq's `MAX_PTO_FAST_INTERVAL`).
const MOST_TIMEOUT: Nanos = 1_000_000_000;
/// The first one of a link, whose round trip nobody knows yet: three times what the driver assumes.
const FIRST_TIMEOUT: Nanos = 300_000_000;
/// Acknowledgements of this many packets behind it show that one is lost (RFC 9002 §6.1.1).
const THRESHOLD: u64 = 3;
/// Packets that are sent when a probe timeout is over (RFC 9002 §6.2.4). Of a lone packet both carry what was in
/// it, of several each another one.
const PROBES: u32 = 2;

/// How long a frame takes one way. Frames of one lane arrive in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Drawn again for each frame, with equal chances.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Drawn once for each pair of nodes, log-normal; each frame takes up to a fifth longer.
    LogNormal {
        /// Half of the pairs are nearer than this.
        median: Duration,
        /// One pair in a hundred is farther than this.
        p99: Duration,
    },
}

impl Latency {
    /// Log-normal, one pair in a hundred five times as far as the median.
    #[must_use]
    pub fn around(median: Duration) -> Self {
        Self::LogNormal { median, p99: median * 5 }
    }

    /// The latency between two nodes, before what is drawn for each frame.
    pub(crate) fn of_pair(&self, seed: u64, a: usize, b: usize) -> Nanos {
        match *self {
            Self::Uniform { min, .. } => nanos(min),
            Self::LogNormal { median, p99 } => {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&seed.to_le_bytes());
                key[8..16].copy_from_slice(&(a.min(b) as u64).to_le_bytes());
                key[16..24].copy_from_slice(&(a.max(b) as u64).to_le_bytes());
                let mut rng = ChaCha12Rng::from_seed(key);
                // Box and Muller's way to a normal variate.
                let (u, v): (f64, f64) = (rng.random_range(f64::EPSILON..1.0), rng.random());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                // 2.326 is the 99th percentile of the normal distribution.
                let sigma = (p99.as_secs_f64() / median.as_secs_f64()).ln() / 2.326;
                let factor = (sigma * normal).exp().clamp(0.02, 50.0);
                nanos(median.mul_f64(factor))
            }
        }
    }

    /// What one frame takes between two nodes of this latency.
    pub(crate) fn of_frame(&self, pair: Nanos, rng: &mut ChaCha12Rng) -> Nanos {
        let most = match *self {
            Self::Uniform { max, .. } => nanos(max).saturating_sub(pair),
            Self::LogNormal { .. } => pair / 5,
        };
        pair + if most == 0 { 0 } else { rng.random_range(0..most) }
    }
}

/// What the network is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// One way.
    pub latency: Latency,
    /// The share of packets that are lost, 0 to 1. QUIC sends them again: what is behind them on
    /// their lane is late, later with each further loss.
    pub loss: f64,
    /// The share of frames that are lost for good, 0 to 1: a stress model that QUIC streams do not
    /// have. Never a hello, nor the frame that opens a topic.
    pub drop: f64,
    /// What each node can send, in bytes per second; unlimited if it is `None`.
    pub bandwidth: Option<u64>,
    /// The share of dials that fail, 0 to 1.
    pub dial_failure: f64,
    /// A link is lost after this long without a packet.
    pub idle: Duration,
    /// Packets keep an idle link alive this often.
    pub keep_alive: Duration,
    /// A dial gives up after this long.
    pub connect_timeout: Duration,
}

impl Default for Conditions {
    /// [`Conditions::lan`].
    fn default() -> Self {
        Self::lan()
    }
}

impl Conditions {
    /// A local network: 1 ms.
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
        }
    }

    /// One machine: 0.1 ms, and the timers of the preset.
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

    /// The internet: 10 ms.
    #[must_use]
    pub fn internet() -> Self {
        Self {
            latency: Latency::around(Duration::from_millis(10)),
            connect_timeout: Duration::from_secs(10),
            ..Self::lan()
        }
    }

    /// How much later a frame arrives because packets of it were lost, again and again; and how many
    /// packets were sent again. As QUIC recovers (RFC 9002), but for packets of other frames, which show
    /// that one is lost as well: all timeouts are as on a link with nothing else to say.
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

    /// How much later the first packet of a link arrives, or the answer to it.
    pub(crate) fn first_flight(&self, rng: &mut ChaCha12Rng) -> Nanos {
        self.losses(None, FIRST_TIMEOUT, PROBES, rng).0
    }

    /// How much later one packet arrives, and how many were sent again: after `shown`, if other packets
    /// show the first loss; then after `timeout`, twice as long each time, in `copies` copies.
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

    /// Of so many draws: the shares that are late at all and later than this, and the latest.
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
    fn loss_is_made_good_after_a_timeout_twice_or_within_a_round_trip_where_others_show_it() {
        let lossy = |loss| Conditions { loss, ..Conditions::lan() };
        let frame = |loss, bytes| {
            move |rng: &mut ChaCha12Rng| lossy(loss).retransmission(bytes, PAIR, rng).0
        };
        // Three latencies and 25 ms; both probes are lost once in 25 times.
        let (once, twice, _) = late(100_000, 55 * MS, frame(0.2, 1));
        assert!((0.19..0.21).contains(&once) && (0.007..0.009).contains(&twice), "{twice}");
        let (_, sooner, _) = late(100_000, 55 * MS - 1, frame(0.2, 1));
        assert!((once - sooner).abs() < f64::EPSILON, "not before the timeout");
        // The first of four packets by a round trip, the others by a timeout.
        let (_, timeouts, _) = late(100_000, 20 * MS, frame(0.2, 4 * 1190));
        let (any, ..) = late(100_000, 0, frame(0.2, 4 * 1190));
        assert!((0.57..0.61).contains(&any) && (0.48..0.54).contains(&timeouts), "{timeouts}");
        // Timeouts grow to a second.
        let (.., latest) = late(100, 0, frame(0.999, 1));
        assert_eq!(latest, (55 + 110 + 220 + 440 + 880 + 1000 + 1000) * MS);
    }

    #[test]
    fn the_first_packet_of_a_link_is_sent_again_after_three_times_what_a_driver_assumes() {
        let first =
            |rng: &mut ChaCha12Rng| Conditions { loss: 0.2, ..Conditions::lan() }.first_flight(rng);
        let (lost, sooner, _) = late(100_000, 300 * MS - 1, first);
        assert!((0.19..0.21).contains(&lost) && (lost - sooner).abs() < f64::EPSILON, "{lost}");
    }
}
