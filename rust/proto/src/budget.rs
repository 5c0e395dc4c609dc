//! Token buckets: a burst is allowed at once, and a rate over time.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::id::EndpointId;

/// A rate, in messages and in bytes: each has a number per second, and a number at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) messages: (f64, f64),
    pub(crate) bytes: (f64, f64),
}

/// What is left of a [`Rate`].
#[derive(Debug)]
pub(crate) struct Budget {
    rate: Rate,
    messages: f64,
    bytes: f64,
    filled: Instant,
}

impl Budget {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, messages: rate.messages.1, bytes: rate.bytes.1, filled: now }
    }

    /// Takes a message of `bytes` bytes, and returns true if enough was left.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.take_or_wait(bytes, now).is_ok()
    }

    fn is_full(&self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.messages + seconds * self.rate.messages.0 >= self.rate.messages.1
    }

    /// As [`Budget::take`]. The error is the time until enough is left.
    pub(crate) fn take_or_wait(&mut self, bytes: usize, now: Instant) -> Result<(), Duration> {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now.max(self.filled);
        let Rate { messages, bytes: per } = self.rate;
        debug_assert!(messages.0 > 0.0 && per.0 > 0.0, "a budget that never refills is no rate");
        self.messages = (self.messages + seconds * messages.0).min(messages.1);
        self.bytes = (self.bytes + seconds * per.0).min(per.1);
        // A frame is at most 64 KiB.
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        let missing = [(1.0 - self.messages) / messages.0, (bytes - self.bytes) / per.0];
        let wait = missing.into_iter().fold(0.0, f64::max);
        if wait > 0.0 {
            // One nanosecond more, because rounding may have cut one off.
            return Err(Duration::from_secs_f64(wait) + Duration::from_nanos(1));
        }
        self.messages -= 1.0;
        self.bytes -= bytes;
        debug_assert!(self.messages >= 0.0 && self.bytes >= 0.0, "a budget is never overdrawn");
        Ok(())
    }
}

/// Budgets by id. Those that are in use are kept.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// If there are more budgets, those that are full again are dropped, and then the rest.
    most: usize,
    budgets: BTreeMap<EndpointId, Budget>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self::up_to(4096)
    }
}

impl Budgets {
    /// Keeps the budgets of up to `most` ids.
    pub(crate) fn up_to(most: usize) -> Self {
        Self { most, budgets: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.budgets.len()
    }

    /// Takes one message out of the budget of an id, if there is enough.
    pub(crate) fn take(&mut self, id: EndpointId, rate: Rate, now: Instant) -> bool {
        if self.budgets.len() >= self.most && !self.budgets.contains_key(&id) {
            self.budgets.retain(|_, budget| !budget.is_full(now));
            if self.budgets.len() >= self.most {
                self.budgets.pop_first();
            }
        }
        debug_assert!(self.budgets.len() <= self.most, "ids without end cost no more");
        self.budgets.entry(id).or_insert_with(|| Budget::new(rate, now)).take(0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { messages: (10.0, 5.0), bytes: (100.0, 1000.0) };

    #[test]
    fn what_is_at_once_and_then_what_is_a_second() {
        let mut now = Instant::now();
        let mut budget = Budget::new(RATE, now);
        let burst = (0..100).filter(|_| budget.take(1, now)).count();
        assert_eq!(burst, 5);
        let mut passed = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            passed += usize::from(budget.take(1, now));
        }
        assert!((99..=100).contains(&passed), "{passed} in 10 s");
    }

    #[test]
    fn silence_saves_up_no_more_than_what_is_at_once() {
        let start = Instant::now();
        for (bytes, at_once) in [(1, 5), (250, 4)] {
            let mut budget = Budget::new(RATE, start);
            for hour in 0..3 {
                let now = start + Duration::from_hours(hour);
                assert_eq!((0..100).filter(|_| budget.take(bytes, now)).count(), at_once);
            }
        }
    }

    #[test]
    fn the_time_to_wait_is_enough_and_not_more() {
        let now = Instant::now();
        let mut budget = Budget::new(RATE, now);
        assert!(budget.take(1000, now));
        let wait = budget.take_or_wait(50, now).expect_err("it is used up");
        assert!(wait.abs_diff(Duration::from_millis(500)) < Duration::from_micros(1), "{wait:?}");
        assert!(!budget.take(50, now + wait - Duration::from_millis(1)));
        assert!(budget.take(50, now + wait));
    }
}
