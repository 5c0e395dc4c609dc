//! This node's own network: what a node does when its network changes, or is away.
//!
//! A link may or may not survive a change of address, because an end that did not dial it can't
//! tell the other end its new address. So all linked peers are pinged at once. If a peer does not
//! answer, another link is dialed, which replaces the present one. If that does not help, the
//! silent link is closed, because iroh sends to a peer by the path of a link that is open, and a
//! dial can't try other addresses until then. What was not heard meanwhile says nothing about other
//! nodes.

use std::time::Duration;

use tokio::time::Instant;

/// If a peer does not answer within the probe timeout divided by this, another link is dialed. The
/// next check follows after twice that time, and so on, [`ROUNDS`] times in all.
const PART: u32 = 4;
const ROUNDS: u32 = 6;
/// At this check a link that is still silent is closed, and later one that an application uses.
const GIVE_UP: u32 = 3;
const GIVE_UP_HELD: u32 = 4;
/// What arrived before the network went away may be handled up to this much later.
const SETTLE: Duration = Duration::from_millis(500);

/// The check after a change: which links still work.
#[derive(Debug)]
struct Check {
    /// Anything that was heard after this shows that a link works.
    since: Instant,
    at: Instant,
    wait: Duration,
    rounds: u32,
}

/// A check that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// A sign of life counts from this time on.
    pub(crate) since: Instant,
    /// True if silent links are closed now, and true if that includes links which an application
    /// uses.
    pub(crate) gives_up: bool,
    pub(crate) gives_up_held: bool,
}

/// What a node knows of its own network.
#[derive(Debug, Default)]
pub(crate) struct OwnNetwork {
    /// When the last address went by which other machines reach this one, if none is back.
    away: Option<Instant>,
    check: Option<Check>,
}

impl OwnNetwork {
    /// Notes a change. Unless the network is away, links are checked soon.
    pub(crate) fn changed(&mut self, away: bool, probe_time: Duration, now: Instant) {
        self.away = if away { self.away.or(Some(now)) } else { None };
        let wait = probe_time / PART;
        let check = Check { since: now, at: now + wait, wait, rounds: ROUNDS };
        self.check = (!away && !wait.is_zero()).then_some(check);
    }

    /// Returns the check of links that is due, if there is one.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        let check = self.check.as_mut().filter(|check| check.at <= now)?;
        let number = ROUNDS - check.rounds + 1;
        let (gives_up, gives_up_held) = (number >= GIVE_UP, number >= GIVE_UP_HELD);
        let due = Due { since: check.since, gives_up, gives_up_held };
        check.wait *= 2;
        check.at = now + check.wait;
        check.rounds -= 1;
        if check.rounds == 0 {
            self.check = None;
        }
        Some(due)
    }

    /// Ends the check, because all peers have answered.
    pub(crate) fn settled(&mut self) {
        self.check = None;
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.check.as_ref().map(|check| check.at)
    }

    /// Returns true if the silence of a peer says nothing about it, because it is on another
    /// machine, which can't be reached now. A peer that was heard since the network went away is on
    /// this machine.
    pub(crate) fn is_beyond(&self, heard: Option<Instant>) -> bool {
        self.away.is_some_and(|since| heard.is_none_or(|at| at <= since + SETTLE))
    }

    /// Returns true if the network went away after a time, and is not back.
    pub(crate) fn went_after(&self, at: Instant) -> bool {
        self.away.is_some_and(|since| at <= since + SETTLE)
    }
}
