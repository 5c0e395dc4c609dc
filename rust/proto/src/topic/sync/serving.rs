//! How much each peer, and all strangers together, may make this node send in syncs.
//!
//! A budget is a number of books. So it grows with the swarm, and a newcomer always has room for
//! the whole book. The records that a peer sends add to its budget, because two halves of a swarm
//! that meet again have much to exchange.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::super::scope::Scope;
use crate::{
    budget::{Budgets, Rate},
    id::EndpointId,
};

/// What a peer may make this node send at once: this many books, and [`LEAST`] bytes more. The
/// budget is full again after [`REFILL`].
const BOOKS: f64 = 4.0;
const LEAST: f64 = 64.0 * 1024.0;
const REFILL: Duration = Duration::from_mins(1);
/// The bytes that a peer gets on top for each byte of records that it sends in a sync.
const FOR_EACH: f64 = 3.0;
/// The syncs with one peer, per second and at once.
const SYNCS: Rate = Rate { messages: (32.0, 256.0), bytes: (1.0, 1.0) };
/// What all strangers together may make this node send: this many times the budget of one peer,
/// within the bounds below. The budget is full again after [`STRANGERS_REFILL`].
const STRANGERS: f64 = 64.0;
const STRANGERS_LEAST: f64 = 16.0 * 1024.0 * 1024.0;
const STRANGERS_MOST: f64 = 64.0 * 1024.0 * 1024.0;
const STRANGERS_REFILL: Duration = Duration::from_secs(16);
/// Strangers that already got one book share this part of it. The rest is kept for other strangers.
const AGAIN: f64 = 0.5;
/// The most peers that are remembered.
const MOST: usize = 4096;

/// The bytes that were spent. A limit's worth of them is forgiven within its refill time.
#[derive(Debug, Clone, Copy)]
struct Spent {
    bytes: f64,
    at: Instant,
}

impl Spent {
    fn new(now: Instant) -> Self {
        Self { bytes: 0.0, at: now }
    }

    fn settle(&mut self, limit: f64, refill: Duration, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at);
        self.at = now.max(self.at);
        let forgiven = limit * passed.div_duration_f64(refill);
        self.bytes = (self.bytes - forgiven).max(0.0);
        debug_assert!(self.bytes.is_finite(), "a broken sum would refuse or serve everything");
        self.bytes
    }
}

/// Why a sync is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unserved {
    /// The peer requests too much.
    Peer,
    /// All strangers together request too much. Other members may still serve this one.
    Strangers,
    /// This node keeps as many observers up to date as it may. Other members may have room.
    Observer,
    /// This node only observes, so it serves nobody.
    ByObserver,
}

/// A peer that requests a book, and the size of that book.
#[derive(Debug, Clone, Copy)]
pub(super) struct Customer {
    pub(super) peer: EndpointId,
    /// True if the peer is neither a neighbor, nor established, nor named by the user.
    pub(super) stranger: bool,
    /// The size of all records of the book, in bytes.
    pub(super) book: usize,
}

impl Customer {
    pub(super) fn of(peer: EndpointId, scope: &Scope) -> Self {
        let stranger = !scope.view.neighbors.contains(&peer) && !scope.is_trusted(&peer);
        Self { peer, stranger, book: scope.book.bytes() }
    }
}

/// The budgets of what is sent in syncs.
#[derive(Debug, Default)]
pub(super) struct Serving {
    syncs: Budgets,
    peers: BTreeMap<EndpointId, Spent>,
    strangers: Option<Spent>,
}

impl Serving {
    pub(super) fn len(&self) -> usize {
        self.peers.len() + self.syncs.len()
    }

    /// Returns true if one more sync with a peer is within its rate of syncs.
    pub(super) fn begin(&mut self, peer: EndpointId, now: Instant) -> bool {
        self.syncs.take(peer, SYNCS, now)
    }

    /// Decides whether this node may send more to a peer.
    pub(super) fn may_answer(&mut self, to: Customer, now: Instant) -> Result<(), Unserved> {
        let limit = of_peer(to.book);
        let spent =
            self.peers.get_mut(&to.peer).map_or(0.0, |spent| spent.settle(limit, REFILL, now));
        if spent >= limit {
            return Err(Unserved::Peer);
        }
        let Some(strangers) = self.strangers.as_mut().filter(|_| to.stranger) else {
            return Ok(());
        };
        let limit = of_strangers(to.book);
        let share = if spent > 0.0 { limit * AGAIN } else { limit };
        let spent = strangers.settle(limit, STRANGERS_REFILL, now);
        if spent < share { Ok(()) } else { Err(Unserved::Strangers) }
    }

    /// Counts bytes that were sent to a peer.
    pub(super) fn sent(&mut self, to: Customer, bytes: usize, now: Instant) {
        let bytes = as_float(bytes);
        let spent = self.of(to, now);
        spent.bytes += bytes;
        if to.stranger {
            let strangers = self.strangers.get_or_insert_with(|| Spent::new(now));
            strangers.settle(of_strangers(to.book), STRANGERS_REFILL, now);
            strangers.bytes += bytes;
        }
    }

    /// Counts bytes of records that a peer sent, which add to its budget.
    pub(super) fn received(&mut self, from: Customer, bytes: usize, now: Instant) {
        if self.peers.contains_key(&from.peer) {
            let spent = self.of(from, now);
            spent.bytes = (spent.bytes - FOR_EACH * as_float(bytes)).max(0.0);
        }
    }

    fn of(&mut self, to: Customer, now: Instant) -> &mut Spent {
        let limit = of_peer(to.book);
        if self.peers.len() >= MOST && !self.peers.contains_key(&to.peer) {
            self.peers.retain(|_, spent| spent.settle(limit, REFILL, now) > 0.0);
            if self.peers.len() >= MOST {
                self.peers.pop_first();
            }
        }
        debug_assert!(self.peers.len() <= MOST, "ids without end cost no more");
        let spent = self.peers.entry(to.peer).or_insert_with(|| Spent::new(now));
        spent.settle(limit, REFILL, now);
        spent
    }
}

fn of_peer(book: usize) -> f64 {
    BOOKS.mul_add(as_float(book), LEAST)
}

fn of_strangers(book: usize) -> f64 {
    (STRANGERS * of_peer(book)).clamp(STRANGERS_LEAST, STRANGERS_MOST)
}

/// Converts a number of bytes. Those of a book are fewer than 4 GiB: 100,000 records of 1.4 kB are
/// 140 MB.
fn as_float(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::id;

    const BOOK: usize = 100_000;

    fn customer(number: u8, stranger: bool) -> Customer {
        Customer { peer: id(number), stranger, book: BOOK }
    }

    #[test]
    fn a_peer_gets_four_books_and_then_one_in_a_quarter_of_a_minute() {
        let mut now = Instant::now();
        let mut serving = Serving::default();
        let peer = customer(1, false);
        let mut books = |now: Instant| {
            let mut count = 0;
            while serving.may_answer(peer, now).is_ok() {
                serving.sent(peer, BOOK, now);
                count += 1;
            }
            count
        };
        assert_eq!(books(now), 5);
        assert_eq!(books(now), 0);
        now += REFILL / 2;
        assert!((2..=3).contains(&books(now)));
        assert_eq!(books(now + REFILL * 100), 5, "silence saves up no more");
    }

    #[test]
    fn what_a_peer_sends_pays_for_three_times_as_much() {
        let now = Instant::now();
        let mut serving = Serving::default();
        let peer = customer(1, false);
        serving.sent(peer, 10 * BOOK, now);
        serving.received(peer, BOOK, now);
        assert_eq!(serving.may_answer(peer, now), Err(Unserved::Peer));
        serving.received(peer, BOOK, now);
        assert_eq!(serving.may_answer(peer, now), Ok(()));
    }

    #[test]
    fn strangers_that_ask_again_leave_room_for_newcomers() {
        let now = Instant::now();
        let mut serving = Serving::default();
        let mut served = 0;
        for number in 0..60 {
            let peer = customer(number, true);
            while serving.may_answer(peer, now).is_ok() {
                serving.sent(peer, BOOK, now);
                served += 1;
            }
        }
        // Half of the room for all, five books for each, and one for each of the others.
        assert!((170..=190).contains(&served), "{served} books");
        let newcomer = customer(250, true);
        assert_eq!(serving.may_answer(newcomer, now), Ok(()));
        assert_eq!(serving.may_answer(customer(59, true), now), Err(Unserved::Strangers));
        assert_eq!(serving.may_answer(customer(0, true), now), Err(Unserved::Peer));
        let member = customer(251, false);
        serving.strangers = Some(Spent { bytes: STRANGERS_MOST, at: now });
        assert_eq!(serving.may_answer(newcomer, now), Err(Unserved::Strangers));
        assert_eq!(serving.may_answer(member, now), Ok(()), "members are no strangers");
    }
}
