//! Named timers: each is set or not, and setting it again moves it.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, rngs::ChaCha12Rng};
use tokio::time::Instant;

/// Named timers of one component: each is set or not, and setting it again moves it.
#[derive(Debug)]
pub(crate) struct Timers<K>(BTreeMap<K, Instant>);

impl<K: Copy + Ord> Default for Timers<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Timers<K> {
    pub(crate) fn set(&mut self, timer: K, at: Instant) {
        self.0.insert(timer, at);
    }

    /// Sets a timer, unless it is set to an earlier time.
    pub(crate) fn set_by(&mut self, timer: K, at: Instant) {
        let set = self.0.entry(timer).or_insert(at);
        *set = at.min(*set);
    }

    pub(crate) fn is_set(&self, timer: K) -> bool {
        self.0.contains_key(&timer)
    }

    pub(crate) fn clear(&mut self, timer: K) {
        self.0.remove(&timer);
    }

    pub(crate) fn clear_all(&mut self) {
        self.0.clear();
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Clears a timer that is due and returns its name. If several are due, the order is that of
    /// their names.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<K> {
        let (timer, _) = self.0.iter().find(|(_, at)| **at <= now)?;
        let timer = *timer;
        self.0.remove(&timer);
        Some(timer)
    }

    /// Returns when a timer is due, if it is set.
    pub(crate) fn at(&self, timer: K) -> Option<Instant> {
        self.0.get(&timer).copied()
    }
}

/// Returns the earlier of two times, or the only one.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Multiplies a duration by a random factor from a range.
pub(crate) fn jitter(
    rng: &mut ChaCha12Rng,
    duration: Duration,
    factor: std::ops::Range<f64>,
) -> Duration {
    duration.mul_f64(rng.random_range(factor))
}
