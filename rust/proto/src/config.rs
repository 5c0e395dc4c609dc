//! The protocol's settings: every timer and limit, with its default and its reason.

use std::{ops::RangeInclusive, time::Duration};

use crate::{book::TOMBSTONE_AGE, error::Error};

/// The longest interval between two refutations, however long the time to refute.
const REFUTE_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Settings of one topic's protocol. All durations are real time on the local monotonic clock.
///
/// ```
/// use std::time::Duration;
///
/// use iroh_gossip_discovery_proto::Config;
///
/// let mut config = Config::default();
/// assert!(config.validate().is_ok());
/// config.suspicion = Duration::from_millis(1);
/// let error = config.validate().unwrap_err();
/// assert!(error.to_string().starts_with("suspicion "), "{error}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Most peers that the address book holds. 1 to 100,000; default 10,000. A newcomer beyond it
    /// displaces a member that this node never reached, or else is refused and counted.
    pub capacity: usize,
    /// How long others keep this node without hearing of it. 1 s to 30 days; `None` derives it from
    /// the size of the book: three heartbeats, at least 15 min. The node sends a heartbeat within a
    /// third of it.
    pub expiration: Option<Duration>,
    /// Neighbors in the overlay (`HyParView`'s active view). Default 5, as in the paper.
    pub neighbors: usize,
    /// Trickle's smallest interval between two reconciliations (RFC 6206, Imin). Default 100 ms.
    pub sync_interval_min: Duration,
    /// Trickle's largest interval (RFC 6206, Imax). Default 60 s.
    pub sync_interval_max: Duration,
    /// The interval between reconciliations with a peer that is no neighbor. Default 15 min.
    pub random_sync_interval: Duration,
    /// A link that serves only a sync closes once idle for this long. Default 5 s.
    pub link_idle: Duration,
    /// First delay of a redial while isolated. Default 0.5 s, jittered by a fifth.
    pub redial_min: Duration,
    /// Largest delay of a redial while isolated, and the first to bootstrap peers that are not in
    /// the book, twice as long each time, up to `heal_interval_max`. Default 5 s.
    pub redial_max: Duration,
    /// A neighbor that was not heard for this long is probed. Default 2 s.
    pub probe_interval: Duration,
    /// How long a probe waits for an answer, and then again for an answer through other members.
    /// Default 0.5 s.
    pub probe_timeout: Duration,
    /// The shortest time that a suspected peer has to refute, however many members accuse it.
    /// Default 3 s.
    pub suspicion: Duration,
    /// The time that a suspected peer has to refute if no member confirms the accusation. Default
    /// 6 s.
    pub suspicion_max: Duration,
    /// The first interval between dials of lost peers. It doubles each time, up to
    /// `heal_interval_max`. Default 30 s, jittered by a fifth.
    pub heal_interval: Duration,
    /// The longest interval between dials of lost peers. Default 1 h.
    pub heal_interval_max: Duration,
    /// How long a leave waits for the acknowledgement of every linked peer. Default 500 ms.
    pub leave_timeout: Duration,
    /// Newcomers that are synced at a time. Others are passed on to other members. Default 32.
    pub concurrent_syncs: usize,
    /// Observers that this node keeps up to date, 0 to 1,024; others are passed on to other
    /// members. Default 32.
    pub observers: usize,
    /// This node only observes: it sees the book and is in nobody's. Default false.
    pub observer: bool,
}

/// Returns the interval of heartbeats. It grows with the swarm, so that the sum of all heartbeats
/// does not. It has a maximum, because no record may outlive the tombstone of its owner.
fn heartbeat_interval(members: usize) -> Duration {
    let seconds = u64::try_from(members).unwrap_or(u64::MAX).saturating_mul(10);
    Duration::from_secs(seconds.clamp(300, TOMBSTONE_AGE.as_secs() / 3))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            expiration: None,
            neighbors: 5,
            sync_interval_min: Duration::from_millis(100),
            sync_interval_max: Duration::from_mins(1),
            random_sync_interval: Duration::from_mins(15),
            link_idle: Duration::from_secs(5),
            redial_min: Duration::from_millis(500),
            redial_max: Duration::from_secs(5),
            probe_interval: Duration::from_secs(2),
            probe_timeout: Duration::from_millis(500),
            suspicion: Duration::from_secs(3),
            suspicion_max: Duration::from_secs(6),
            heal_interval: Duration::from_secs(30),
            heal_interval_max: Duration::from_hours(1),
            leave_timeout: Duration::from_millis(500),
            concurrent_syncs: 256,
            observers: 32,
            observer: false,
        }
    }
}

impl Config {
    /// Returns how long others keep a node of a swarm of `members` without hearing of it: three
    /// heartbeats, at least 15 min, unless [`Config::expiration`] sets it.
    #[doc(hidden)]
    #[must_use]
    pub fn expiration_among(&self, members: usize) -> Duration {
        let derived = (heartbeat_interval(members) * 3).max(Duration::from_mins(15));
        self.expiration.unwrap_or(derived)
    }

    /// Returns the time between two refutations. It is a third of the shortest time to refute. So
    /// an accusation that follows a refutation at once is still refuted before any verdict.
    pub(crate) fn refute_interval(&self) -> Duration {
        (self.suspicion / 3).min(REFUTE_INTERVAL_MAX)
    }

    /// Returns settings for nodes on one machine, for tests and demos. A crash is known within
    /// 1.5 s.
    #[must_use]
    pub fn local() -> Self {
        Self {
            redial_min: Duration::from_millis(100),
            redial_max: Duration::from_secs(1),
            probe_interval: Duration::from_millis(400),
            probe_timeout: Duration::from_millis(200),
            suspicion: Duration::from_millis(500),
            suspicion_max: Duration::from_secs(1),
            heal_interval: Duration::from_secs(5),
            ..Self::default()
        }
    }

    /// Returns settings for nodes that are far apart, whose answers take longer.
    #[must_use]
    pub fn internet() -> Self {
        Self {
            probe_timeout: Duration::from_secs(1),
            suspicion: Duration::from_secs(4),
            suspicion_max: Duration::from_secs(8),
            ..Self::default()
        }
    }

    /// Checks every field against its limits.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the first field outside its limits.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |field, ok: bool, reason: &str| {
            if ok { Ok(()) } else { Err(Error::Invalid { field, reason: reason.to_owned() }) }
        };
        let counts = [
            ("capacity", self.capacity, 1..=100_000, "must be 1 to 100,000 peers"),
            ("neighbors", self.neighbors, 1..=32, "must be 1 to 32"),
            ("concurrent_syncs", self.concurrent_syncs, 1..=1024, "must be 1 to 1,024"),
            ("observers", self.observers, 0..=1024, "must be 0 to 1,024"),
        ];
        for (field, value, limits, reason) in counts {
            check(field, limits.contains(&value), reason)?;
        }
        for (field, value, limits, reason) in self.durations() {
            check(field, limits.contains(&value), reason)?;
        }
        Ok(())
    }

    /// Returns every duration with its name, its limits, and how an error describes them.
    fn durations(&self) -> [(&'static str, Duration, RangeInclusive<Duration>, &'static str); 14] {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let (hour, day) = (s(3600), s(86_400));
        // An earlier verdict would precede the refutation, which waits for its turn and is
        // forwarded from member to member.
        let floor = ms(150).max(self.probe_timeout.saturating_mul(2));
        let derived = self.expiration.unwrap_or(hour);
        let (sync_min, suspicion) = (self.sync_interval_min, self.suspicion);
        [
            ("expiration", derived, s(1)..=30 * day, "must be 1 s to 30 days"),
            ("sync_interval_min", sync_min, ms(10)..=hour, "must be 10 ms to 1 h"),
            (
                "sync_interval_max",
                self.sync_interval_max,
                sync_min..=hour,
                "must be sync_interval_min to 1 h",
            ),
            ("random_sync_interval", self.random_sync_interval, s(1)..=day, "must be 1 s to 1 day"),
            ("link_idle", self.link_idle, ms(100)..=hour, "must be 100 ms to 1 h"),
            ("redial_min", self.redial_min, ms(10)..=hour, "must be 10 ms to 1 h"),
            ("redial_max", self.redial_max, self.redial_min..=hour, "must be redial_min to 1 h"),
            ("probe_interval", self.probe_interval, ms(50)..=hour, "must be 50 ms to 1 h"),
            (
                "probe_timeout",
                self.probe_timeout,
                ms(10)..=self.probe_interval,
                "must be 10 ms to probe_interval",
            ),
            (
                "suspicion",
                suspicion,
                floor..=hour,
                "must be 150 ms to 1 h, and at least twice probe_timeout",
            ),
            ("suspicion_max", self.suspicion_max, suspicion..=hour, "must be suspicion to 1 h"),
            ("heal_interval", self.heal_interval, ms(100)..=hour, "must be 100 ms to 1 h"),
            (
                "heal_interval_max",
                self.heal_interval_max,
                self.heal_interval..=day,
                "must be heal_interval to 1 day",
            ),
            ("leave_timeout", self.leave_timeout, ms(0)..=s(60), "must be 0 to 60 s"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verdict_comes_before_the_answer_can() {
        let ms = Duration::from_millis;
        for config in [Config::default(), Config::local(), Config::internet()] {
            config.validate().expect("a preset is valid");
            for (suspicion, probe_timeout) in [(50, 10), (149, 10), (500, 251), (1000, 501)] {
                let config = Config {
                    suspicion: ms(suspicion),
                    suspicion_max: ms(10_000),
                    probe_timeout: ms(probe_timeout),
                    probe_interval: ms(2000),
                    ..config.clone()
                };
                let error = config.validate().expect_err("it contradicts itself").to_string();
                assert!(error.contains("suspicion") && error.contains("probe_timeout"), "{error}");
            }
            for suspicion in [150, 500, 3000, 3_600_000] {
                let config = Config { suspicion: ms(suspicion), ..config.clone() };
                assert!(config.refute_interval() * 3 <= ms(suspicion));
            }
        }
    }

    #[test]
    fn the_longest_time_is_refused_by_the_name_of_its_field() {
        let refused = |config: Config| config.validate().expect_err("too long").to_string();
        let longest = Duration::MAX;
        let config = Config { probe_timeout: longest, ..Config::default() };
        assert!(refused(config).starts_with("probe_timeout must be"));
        let config = Config { suspicion: longest, ..Config::default() };
        assert!(refused(config).starts_with("suspicion must be"));
        let config = Config { expiration: Some(longest), ..Config::default() };
        assert!(refused(config).starts_with("expiration must be"));
    }
}
