//! This node's own network: what it does when that changes, or is away.
//!
//! A link may outlive a change of address, and may not: an end that did not dial it can't tell the
//! other end where it is now. So all links are asked at once, and to whom does not answer another
//! link is opened beside the one that there is, which it replaces. What was not heard meanwhile
//! says nothing about others.

use std::time::Duration;

use tokio::time::Instant;

/// A link that does not answer for this part of the time of a probe is opened again; then for twice
/// as long, and so on, [`ROUNDS`] times.
const PART: u32 = 4;
const ROUNDS: u32 = 6;
/// What came in before the network went may be handled this much later.
const SETTLE: Duration = Duration::from_millis(500);

/// Which links work is looked at after a change.
#[derive(Debug)]
struct Check {
    /// What was heard after this shows that a link works.
    since: Instant,
    at: Instant,
    wait: Duration,
    rounds: u32,
}

/// What a node knows of its own network.
#[derive(Debug, Default)]
pub(crate) struct OwnNetwork {
    /// Since when no address is left by which other machines reach this one.
    away: Option<Instant>,
    check: Option<Check>,
}

impl OwnNetwork {
    /// Notes a change. If the network is there, links are looked at soon.
    pub(crate) fn changed(&mut self, away: bool, probe_time: Duration, now: Instant) {
        self.away = if away { self.away.or(Some(now)) } else { None };
        let wait = probe_time / PART;
        let check = Check { since: now, at: now + wait, wait, rounds: ROUNDS };
        self.check = (!away && !wait.is_zero()).then_some(check);
    }

    /// If links are to be looked at now, returns since when a sign of life counts.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        let check = self.check.as_mut().filter(|check| check.at <= now)?;
        let since = check.since;
        check.wait *= 2;
        check.at = now + check.wait;
        check.rounds -= 1;
        if check.rounds == 0 {
            self.check = None;
        }
        Some(since)
    }

    /// All links have answered.
    pub(crate) fn settled(&mut self) {
        self.check = None;
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.check.as_ref().map(|check| check.at)
    }

    /// Returns true if the silence of a peer says nothing about it: it is on another machine, to
    /// which no way leads now. One that was heard since the network went is on this machine.
    pub(crate) fn is_beyond(&self, heard: Option<Instant>) -> bool {
        self.away.is_some_and(|since| heard.is_none_or(|at| at <= since + SETTLE))
    }

    /// Returns true if something was so before the network went, and it has not come back.
    pub(crate) fn went_after(&self, at: Instant) -> bool {
        self.away.is_some_and(|since| at <= since + SETTLE)
    }
}
