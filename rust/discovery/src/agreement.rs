//! Whether this node's book and those of its neighbors agree, and since when its own has not
//! changed: what [`crate::Swarm::settled`] waits for.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{error::Error, proto::EndpointId};

#[derive(Debug)]
struct State {
    /// When the book or this node's own record last changed in a way that an application sees.
    changed: Instant,
    /// The peers whose books were found equal since then.
    agreed: BTreeSet<EndpointId>,
    neighbors: BTreeSet<EndpointId>,
    /// True if the book has no other node.
    alone: bool,
    closed: bool,
}

/// What is known of the neighbors' books, and the callers that wait until they agree.
#[derive(Debug)]
pub(crate) struct Agreement(watch::Sender<State>);

impl Default for Agreement {
    fn default() -> Self {
        Self(watch::Sender::new(State {
            changed: Instant::now(),
            agreed: BTreeSet::new(),
            neighbors: BTreeSet::new(),
            alone: true,
            closed: false,
        }))
    }
}

impl Agreement {
    /// Notes a change of the book or of this node's own record. It voids earlier agreement.
    pub(crate) fn changed(&self, alone: bool) {
        self.0.send_modify(|state| {
            state.changed = Instant::now();
            state.agreed.clear();
            state.alone = alone;
        });
    }

    /// Notes that a neighbor's book is equal.
    pub(crate) fn agreed(&self, peer: EndpointId) {
        self.0.send_if_modified(|state| state.agreed.insert(peer));
    }

    pub(crate) fn neighbor_up(&self, peer: EndpointId) {
        self.0.send_if_modified(|state| state.neighbors.insert(peer));
    }

    pub(crate) fn neighbor_down(&self, peer: &EndpointId) {
        self.0.send_if_modified(|state| {
            state.agreed.remove(peer);
            state.neighbors.remove(peer)
        });
    }

    pub(crate) fn neighbors(&self) -> BTreeSet<EndpointId> {
        self.0.borrow().neighbors.clone()
    }

    /// Ends all waits, because the topic was left.
    pub(crate) fn close(&self) {
        self.0.send_modify(|state| state.closed = true);
    }

    /// Waits until the books agree and the own one has not changed for `quiet`.
    ///
    /// # Errors
    /// [`Error::Closed`] if the topic is left before that.
    pub(crate) async fn settled(&self, quiet: Duration) -> Result<(), Error> {
        let mut news = self.0.subscribe();
        loop {
            let until = {
                let state = news.borrow_and_update();
                if state.closed {
                    return Err(Error::Closed);
                }
                let until = state.changed.checked_add(quiet).filter(|_| state.is_agreed());
                if until.is_some_and(|until| until <= Instant::now()) {
                    return Ok(());
                }
                until
            };
            let wait = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = news.changed() => result.map_err(|_| Error::Closed)?,
                () = wait => {}
            }
        }
    }
}

impl State {
    /// Returns true if all neighbors agree. A node that knows others and has no neighbor can't know
    /// whether any agrees.
    fn is_agreed(&self) -> bool {
        if self.neighbors.is_empty() { self.alone } else { self.neighbors.is_subset(&self.agreed) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const QUIET: Duration = Duration::from_secs(1);

    fn peer(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 32])
    }

    async fn is_settled(agreement: &Agreement) -> bool {
        timeout(QUIET * 60, agreement.settled(QUIET)).await.is_ok_and(|result| result.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_knows_nobody_settles_when_its_book_does_not_change() {
        let agreement = Agreement::default();
        let began = Instant::now();
        assert!(is_settled(&agreement).await);
        assert!(began.elapsed() >= QUIET);
        agreement.changed(false);
        assert!(!is_settled(&agreement).await, "it knows somebody, and has no neighbor");
    }

    #[tokio::test(start_paused = true)]
    async fn every_neighbor_has_to_agree_since_the_last_change() {
        let agreement = Agreement::default();
        agreement.changed(false);
        agreement.neighbor_up(peer(1));
        agreement.neighbor_up(peer(2));
        agreement.agreed(peer(1));
        assert!(!is_settled(&agreement).await);
        agreement.agreed(peer(2));
        assert!(is_settled(&agreement).await);
        agreement.changed(false);
        assert!(!is_settled(&agreement).await, "the book changed");
        agreement.agreed(peer(1));
        agreement.neighbor_down(&peer(2));
        assert!(is_settled(&agreement).await, "the other one is a neighbor no longer");
        agreement.neighbor_up(peer(2));
        assert!(!is_settled(&agreement).await, "it is back, and may know something else");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_restarts_the_quiet_time_and_a_leave_ends_the_wait() {
        let agreement = Agreement::default();
        let began = Instant::now();
        let disturb = async {
            tokio::time::sleep(QUIET / 2).await;
            agreement.changed(true);
        };
        let (settled, ()) = tokio::join!(agreement.settled(QUIET), disturb);
        settled.unwrap();
        assert!(began.elapsed() >= QUIET * 3 / 2);
        agreement.changed(false);
        let (settled, ()) = tokio::join!(agreement.settled(QUIET), async { agreement.close() });
        assert!(matches!(settled, Err(Error::Closed)));
    }
}
