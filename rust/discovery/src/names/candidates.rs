//! Which addresses behind a name are worth a question.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use iroh::TransportAddr;
use tokio::time::Instant;

use crate::{book::Book, proto::EndpointId};

/// An id that was learned is dialed; its address is not asked again before this.
const FRESH: Duration = Duration::from_secs(5);
/// A link to an id that was learned may still be on its way for this time.
const PENDING: Duration = Duration::from_secs(2);
/// An answer is forgotten after this, as an address may have another owner by then.
const FORGET: Duration = Duration::from_mins(5);
/// Most answers that are remembered.
const MAX_ANSWERS: usize = 1024;

/// The addresses that answered, and who was there.
#[derive(Debug, Default)]
pub(crate) struct Candidates(BTreeMap<SocketAddr, (EndpointId, Instant)>);

impl Candidates {
    /// An endpoint with this id answered at an address.
    pub(crate) fn answered(&mut self, at: SocketAddr, id: EndpointId, now: Instant) {
        if self.0.len() >= MAX_ANSWERS {
            self.0.clear();
        }
        self.0.insert(at, (id, now));
    }

    /// How many answers came so recently that the links to them may still be on their way.
    pub(crate) fn pending(&self, book: &Book, now: Instant) -> usize {
        let is_pending = |(id, at): &&(EndpointId, Instant)| {
            now.saturating_duration_since(*at) < PENDING && book.get(id).is_none()
        };
        self.0.values().filter(is_pending).count()
    }

    /// The addresses to ask: neither those that members of the book announce, nor those whose
    /// owner is in the book or was just learned.
    pub(crate) fn choose(
        &mut self,
        all: &BTreeSet<SocketAddr>,
        book: &Book,
        now: Instant,
    ) -> Vec<SocketAddr> {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        self.0.retain(|_, (_, at)| age(at) < FORGET);
        let announced: BTreeSet<_> = book.iter().flat_map(|record| &record.addresses).collect();
        let is_known = |at: &SocketAddr| {
            announced.contains(&TransportAddr::Ip(*at))
                || self.0.get(at).is_some_and(|(id, at)| age(at) < FRESH || book.get(id).is_some())
        };
        all.iter().copied().filter(|at| !is_known(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proto::{NodeRecord, Profile};

    fn record(number: u8) -> NodeRecord {
        NodeRecord::new(EndpointId::from_bytes([number; 32]), Profile::new("a"))
    }

    #[test]
    fn owners_that_are_known_or_were_just_learned_are_not_asked_again() {
        let at = |number: u8| SocketAddr::from(([10, 0, 0, number], 4433));
        let all: BTreeSet<_> = (1..=4).map(at).collect();
        let (mut candidates, mut book) = (Candidates::default(), Book::default());
        let now = Instant::now();
        let mut member = record(1);
        member.addresses = vec![TransportAddr::Ip(at(1))];
        book.insert(Arc::new(member));
        assert_eq!(candidates.choose(&all, &book, now), [at(2), at(3), at(4)]);
        // A member that announces another address, and a stranger.
        candidates.answered(at(2), record(1).id, now);
        candidates.answered(at(3), record(2).id, now);
        assert_eq!(candidates.choose(&all, &book, now), [at(4)]);
        assert_eq!(candidates.pending(&book, now), 1);
        assert_eq!(candidates.pending(&book, now + PENDING), 0);
        assert_eq!(candidates.choose(&all, &book, now + FRESH), [at(3), at(4)]);
        let later = now + FORGET;
        assert_eq!(candidates.choose(&all, &book, later), [at(2), at(3), at(4)]);
    }
}
