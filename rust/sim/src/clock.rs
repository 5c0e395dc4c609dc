//! Virtual time: nanoseconds since the start.

use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds since the start: 584 years fit.
pub(crate) type Nanos = u64;

/// Converts a duration into nanoseconds, up to the largest number.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// The virtual clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Any real instant would do, because only differences count.
    base: Instant,
    pub(crate) now: Nanos,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), now: 0 }
    }

    /// Returns the time that the state machines see.
    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    pub(crate) fn nanos_of(&self, instant: Instant) -> Nanos {
        nanos(instant.saturating_duration_since(self.base))
    }
}
