//! What must hold, whatever happens. Each property is a function, and judges what one node tells
//! its application about another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use iroh_gossip_discovery_proto::{LostReason, TopicEvent};
use tokio::time::Instant;

/// If two nodes were out of each other's reach for longer than this, within [`WINDOW`], one may
/// hold the other dead.
const GRACE: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(20);

/// What one node knows of the others by its events, in one life.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The sequence number of each member, by its number.
    pub(crate) book: BTreeMap<usize, u64>,
    pub(crate) suspected: BTreeSet<usize>,
    /// The last sequence number of each member that is gone.
    gone: BTreeMap<usize, u64>,
}

/// The times at which a node was out of reach.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    away: Vec<(Instant, Instant)>,
    since: Option<Instant>,
}

impl Reach {
    /// Notes whether the node is out of reach from now on.
    pub(crate) fn set(&mut self, away: bool, now: Instant) {
        if away {
            self.since.get_or_insert(now);
        } else if let Some(since) = self.since.take() {
            self.away.push((since, now));
        }
    }

    fn all(&self, now: Instant) -> impl Iterator<Item = (Instant, Instant)> {
        self.away.iter().copied().chain(self.since.map(|since| (since, now)))
    }
}

/// Returns true if two nodes were out of each other's reach for longer than [`GRACE`].
fn were_apart(reach: [&Reach; 2], now: Instant) -> bool {
    let begin = now.checked_sub(WINDOW).unwrap_or(now);
    let mut away: Vec<_> = reach.iter().flat_map(|reach| reach.all(now)).collect();
    away.sort_unstable();
    let (mut apart, mut until) = (Duration::ZERO, begin);
    for (from, to) in away {
        apart += to.saturating_duration_since(from.max(until));
        until = until.max(to);
    }
    apart > GRACE
}

/// No false verdict: a node that runs is lost only if it and the node that says so were out of each
/// other's reach.
pub(crate) fn no_false_verdict(reach: [&Reach; 2], runs: bool, now: Instant) -> Result<(), String> {
    if runs && !were_apart(reach, now) {
        return Err("no false verdict: it was within reach".to_owned());
    }
    Ok(())
}

/// Sequence numbers rise: those that a node announces, as long as it keeps its state.
pub(crate) fn announcements_rise(last: Option<u64>, sequence: u64) -> Result<(), String> {
    if last.is_some_and(|last| last >= sequence) {
        return Err(format!("sequences rise: announced {sequence} after {last:?}"));
    }
    Ok(())
}

/// Sequence numbers rise: those that a node hears of another one.
fn records_rise(known: Option<u64>, sequence: u64) -> Result<(), String> {
    if known.is_none_or(|known| known >= sequence) {
        return Err(format!("sequences rise: told of {sequence} after {known:?}"));
    }
    Ok(())
}

/// Nobody returns by an old record.
fn nobody_returns_by_an_old_record(gone: Option<u64>, sequence: u64) -> Result<(), String> {
    if gone.is_some_and(|gone| gone >= sequence) {
        return Err(format!("nobody returns by an old record: {sequence}, gone with {gone:?}"));
    }
    Ok(())
}

/// Convergence after quiet: the book has all that run, by their last records, and suspects none.
pub(crate) fn convergence(told: &Told, run: &BTreeMap<usize, u64>) -> Result<(), String> {
    if told.book == *run && told.suspected.is_empty() {
        return Ok(());
    }
    let (book, suspected) = (&told.book, &told.suspected);
    Err(format!("convergence after quiet: the book is {book:?}, not {run:?}; {suspected:?}"))
}

impl Told {
    /// Takes in an event about the member `who`. Returns true if the member is lost.
    pub(crate) fn take(&mut self, who: usize, event: &TopicEvent) -> Result<bool, String> {
        let known = self.book.get(&who).copied();
        match event {
            TopicEvent::PeerJoined(record) => {
                nobody_returns_by_an_old_record(self.gone.get(&who).copied(), record.sequence)?;
                if known.is_some() {
                    return Err("it joined twice".to_owned());
                }
                self.book.insert(who, record.sequence);
            }
            TopicEvent::PeerUpdated(record) | TopicEvent::PeerRefreshed(record) => {
                records_rise(known, record.sequence)?;
                self.book.insert(who, record.sequence);
            }
            TopicEvent::PeerSuspected(_) => {
                self.suspected.insert(who);
            }
            TopicEvent::PeerRecovered(_) => {
                self.suspected.remove(&who);
            }
            TopicEvent::PeerLeft(_) | TopicEvent::PeerLost(..) => {
                let Some(sequence) = self.book.remove(&who) else {
                    return Err("it is gone, and was not there".to_owned());
                };
                self.suspected.remove(&who);
                self.gone.insert(who, sequence);
            }
            _ => {}
        }
        let lost = |reason| matches!(reason, LostReason::Unreachable | LostReason::Expired);
        Ok(matches!(event, TopicEvent::PeerLost(_, reason) if lost(*reason)))
    }
}
