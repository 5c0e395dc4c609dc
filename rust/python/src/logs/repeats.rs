//! Log lines that lower layers repeat: each is logged the first time, then more and more rarely.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A line is told again after the first of these, then after ten times as long, up to the second.
/// One that was not said for that long is told at once.
const FIRST: Duration = Duration::from_mins(1);
const LAST: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct Line {
    said: Instant,
    next: Instant,
    wait: Duration,
    left_out: u64,
}

/// Lines by the place that says them; the code has a fixed number of these.
#[derive(Debug)]
pub(super) struct Repeats<K>(Mutex<Option<HashMap<K, Line>>>);

impl<K: Eq + Hash> Repeats<K> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Decides whether to log a line. If so, returns how many of its kind were left out before it.
    pub(super) fn tell(&self, place: K, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines.get_or_insert_default();
        let Some(line) = lines.get_mut(&place) else {
            let line = Line { said: now, next: now + FIRST, wait: FIRST, left_out: 0 };
            lines.insert(place, line);
            return Some(0);
        };
        let quiet = now.saturating_duration_since(line.said);
        line.said = now;
        if now < line.next && quiet < LAST {
            line.left_out += 1;
            return None;
        }
        line.wait = if quiet >= LAST { FIRST } else { (line.wait * 10).min(LAST) };
        line.next = now + line.wait;
        Some(std::mem::take(&mut line.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_said_all_the_time_is_told_ever_more_rarely_with_a_count() {
        let (repeats, begin) = (Repeats::new(), Instant::now());
        let mut told = Vec::new();
        for second in 0..10_000 {
            let now = begin + Duration::from_secs(second);
            told.extend(repeats.tell("here", now).map(|left_out| (second, left_out)));
        }
        assert_eq!(told, [(0, 0), (60, 59), (660, 599), (4260, 3599), (7860, 3599)]);
        assert_eq!(repeats.tell("there", begin), Some(0));
        let later = begin + Duration::from_secs(9_999) + LAST;
        assert_eq!(repeats.tell("here", later), Some(2139));
        assert_eq!(repeats.tell("here", later + FIRST), Some(0), "as in the beginning");
    }
}
