//! The first contact of a node with its topic: what [`crate::Swarm::joined`] waits for.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{error::Error, proto::EndpointId};

/// How long a node without an answer listens for members on the local network before it takes
/// itself to be alone. They announce themselves to a newcomer within half a second.
pub(crate) const LISTEN: Duration = Duration::from_secs(2);
/// Most peers that are remembered as asked: bootstrap peers, and some that a lookup found.
const MAX_ASKED: usize = 1_024 + 64;

/// How the first contact of a node with its topic ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Joined {
    /// A comparison of books with this member is complete: what it knew is in the book.
    Synced(EndpointId),
    /// Nobody answered. Each peer that was asked stands here with the reason; none, if there was
    /// nobody to ask. The node goes on asking.
    Alone(Vec<(EndpointId, String)>),
}

#[derive(Debug, Default)]
struct State {
    synced: Option<EndpointId>,
    /// The peers that were asked, each with what went wrong, once it did.
    asked: BTreeMap<EndpointId, Option<String>>,
    /// Until when members on the local network may still answer.
    listens_until: Option<Instant>,
    closed: bool,
}

/// What is known of the first contact, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Contact(watch::Sender<State>);

impl Contact {
    /// Peers will be asked; each counts until it answers or fails.
    pub(crate) fn asks(&self, peers: impl IntoIterator<Item = EndpointId>) {
        self.0.send_modify(|state| {
            for peer in peers {
                if state.synced.is_none() && state.asked.len() < MAX_ASKED {
                    state.asked.entry(peer).or_default();
                }
            }
        });
    }

    /// Members on the local network may answer from now on.
    pub(crate) fn listens(&self) {
        self.0.send_modify(|state| state.listens_until = Some(Instant::now() + LISTEN));
    }

    /// A peer did not answer, or sent this node away. Peers that were not asked don't count.
    pub(crate) fn unanswered(&self, peer: &EndpointId, reason: &str) {
        self.0.send_if_modified(|state| {
            let asked = state.asked.get_mut(peer);
            asked.map(|why| *why = Some(reason.to_owned())).is_some()
        });
    }

    /// A comparison of books with a member is complete.
    pub(crate) fn synced(&self, peer: EndpointId) {
        self.0.send_if_modified(|state| {
            let first = state.synced.is_none();
            state.synced.get_or_insert(peer);
            state.asked.clear();
            first
        });
    }

    /// The topic was left: nobody waits any longer.
    pub(crate) fn close(&self) {
        self.0.send_modify(|state| state.closed = true);
    }

    /// Waits until the first contact has ended, in whichever way.
    ///
    /// # Errors
    /// [`Error::Closed`] if the topic is left before that.
    pub(crate) async fn joined(&self) -> Result<Joined, Error> {
        let mut news = self.0.subscribe();
        loop {
            let until = {
                let state = news.borrow_and_update();
                if let Some(peer) = state.synced {
                    return Ok(Joined::Synced(peer));
                }
                if state.closed {
                    return Err(Error::Closed);
                }
                match state.verdict(Instant::now()) {
                    Ok(joined) => return Ok(joined),
                    Err(until) => until,
                }
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
    /// That nobody answered; or until when to wait, if no news comes before.
    fn verdict(&self, now: Instant) -> Result<Joined, Option<Instant>> {
        let unanswered: Option<Vec<_>> =
            self.asked.iter().map(|(peer, why)| Some((*peer, why.clone()?))).collect();
        let unanswered = unanswered.ok_or(None)?;
        match self.listens_until.filter(|until| now < *until) {
            Some(until) => Err(Some(until)),
            None => Ok(Joined::Alone(unanswered)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 32])
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_with_nobody_to_ask_is_alone_at_once() {
        let contact = Contact::default();
        assert_eq!(contact.joined().await.unwrap(), Joined::Alone(Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_alone_only_after_the_last_peer_has_failed() {
        let contact = Contact::default();
        contact.asks([peer(1), peer(2)]);
        contact.unanswered(&peer(1), "timed out");
        let early = tokio::time::timeout(LISTEN * 10, contact.joined()).await;
        assert!(early.is_err(), "peer 2 may still answer");
        contact.unanswered(&peer(2), "refused");
        let reasons = vec![(peer(1), "timed out".to_owned()), (peer(2), "refused".to_owned())];
        assert_eq!(contact.joined().await.unwrap(), Joined::Alone(reasons));
    }

    #[tokio::test(start_paused = true)]
    async fn it_listens_for_a_while_before_it_is_alone() {
        let contact = Contact::default();
        contact.listens();
        let began = Instant::now();
        assert_eq!(contact.joined().await.unwrap(), Joined::Alone(Vec::new()));
        assert!(began.elapsed() >= LISTEN);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_comparison_ends_the_wait_whatever_failed_before_and_after() {
        let contact = Contact::default();
        contact.asks([peer(1), peer(2)]);
        contact.unanswered(&peer(1), "timed out");
        let (joined, ()) = tokio::join!(contact.joined(), async { contact.synced(peer(2)) });
        assert_eq!(joined.unwrap(), Joined::Synced(peer(2)));
        contact.unanswered(&peer(2), "gone");
        contact.synced(peer(3));
        assert_eq!(contact.joined().await.unwrap(), Joined::Synced(peer(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leave_ends_the_wait() {
        let contact = Contact::default();
        contact.asks([peer(1)]);
        let (joined, ()) = tokio::join!(contact.joined(), async { contact.close() });
        assert!(matches!(joined, Err(Error::Closed)));
    }
}
