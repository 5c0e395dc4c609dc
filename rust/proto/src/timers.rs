//! Named timers: each is set or not, and setting it again moves it.

use std::time::Duration;

use rand::{RngExt, rngs::ChaCha12Rng};
use tokio::time::Instant;

/// What a topic waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Send the batch of records that are due to members and newcomers.
    Flood,
    /// Tell on what a sync brought and the overlay did not.
    Relay,
    /// Compare the book with a neighbor's (RFC 6206).
    Trickle,
    /// Send neighbors the digest of the book.
    Digest,
    /// Announce the own record again, or for the first time.
    Announce,
    /// Look for someone to sync with.
    Redial,
    /// Enter the overlay through a random member.
    OverlayJoin,
    /// Look whether the active view is full.
    View,
    /// Sync with someone who is not a neighbor.
    RandomSync,
    /// Give up stalled syncs.
    Sessions,
    /// Tell the application that no link is left.
    Isolation,
    /// Look after neighbors, and take the next step of probes.
    Probe,
    /// Tell of suspicions, and pass verdicts.
    Suspicion,
    /// Probe anybody, as many died.
    Survey,
    /// Dial who was lost.
    Heal,
    /// Join the overlay behind a gap.
    HealJoin,
    /// Send broadcasts that wait for a neighbor, or give them up.
    Broadcast,
    /// Stop waiting for acknowledgements of the leave.
    Leave,
}

/// In the order of [`Timer`].
const TIMERS: [Timer; 18] = [
    Timer::Flood,
    Timer::Relay,
    Timer::Trickle,
    Timer::Digest,
    Timer::Announce,
    Timer::Redial,
    Timer::OverlayJoin,
    Timer::View,
    Timer::RandomSync,
    Timer::Sessions,
    Timer::Isolation,
    Timer::Probe,
    Timer::Suspicion,
    Timer::Survey,
    Timer::Heal,
    Timer::HealJoin,
    Timer::Broadcast,
    Timer::Leave,
];

/// When each is due, where it is set.
#[derive(Debug, Default)]
pub(crate) struct Timers([Option<Instant>; TIMERS.len()]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets it, unless it is set for earlier.
    pub(crate) fn set_by(&mut self, timer: Timer, at: Instant) {
        let set = &mut self.0[timer as usize];
        *set = Some(set.map_or(at, |set| set.min(at)));
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn clear_all(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes out one timer that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Timer> {
        let (set, timer) =
            self.0.iter_mut().zip(TIMERS).find(|(at, _)| at.is_some_and(|at| at <= now))?;
        *set = None;
        Some(timer)
    }
}

/// The earlier one of two, where there are two.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A duration times a random factor.
pub(crate) fn jitter(
    rng: &mut ChaCha12Rng,
    duration: Duration,
    factor: std::ops::Range<f64>,
) -> Duration {
    duration.mul_f64(rng.random_range(factor))
}
