//! The first contact of a node with its topic: what [`crate::Swarm::joined`] waits for.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{error::Error, proto::EndpointId};

/// How long a node without an answer listens for members on the local network before it counts as
/// alone. Members announce themselves to a newcomer within half a second.
pub(crate) const LISTEN: Duration = Duration::from_secs(2);
/// How long to wait for a peer that is linked and says nothing about the topic.
const SILENT: Duration = Duration::from_secs(10);
/// How long to wait for a peer until a comparison with it is complete, beyond the time that a dial
/// may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Most peers that are remembered as asked: bootstrap peers, and some that a lookup found.
const MAX_ASKED: usize = 1_024 + 64;

/// How the first contact of a node with its topic ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Joined {
    /// A comparison of books with this member is complete: what it knew is in the book.
    Synced(EndpointId),
    /// No peer answered. The list has the id of each peer, and each name, that was asked, with the
    /// reason. It is empty if there was no peer to ask. The node keeps asking.
    Alone(Vec<(String, String)>),
}

/// A peer, or a name, that was asked.
#[derive(Debug)]
enum Asked {
    /// It may answer until this time. If it does not, the text is the reason.
    Until(Instant, &'static str),
    /// It failed for this reason.
    Failed(String),
}

#[derive(Debug, Default)]
struct State {
    synced: Option<EndpointId>,
    asked: BTreeMap<EndpointId, Asked>,
    /// The names that were asked.
    names: BTreeMap<String, Asked>,
    /// Members on the local network may still answer until this time.
    listens_until: Option<Instant>,
    /// Members of an earlier life may still answer until this time.
    remembers_until: Option<Instant>,
    closed: bool,
}

/// The state of the first contact, and the callers that wait for it.
#[derive(Debug)]
pub(crate) struct Contact {
    state: watch::Sender<State>,
    /// How long a peer may take from the first dial to the end of a comparison.
    patience: Duration,
}

impl Contact {
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        Self { state: watch::Sender::default(), patience: connect_timeout + PATIENCE }
    }

    /// Adds peers that will be asked. Each is waited for until it answers or fails.
    pub(crate) fn asks(&self, peers: impl IntoIterator<Item = EndpointId>) {
        let until = Instant::now() + self.patience;
        self.state.send_modify(|state| {
            for peer in peers {
                if state.synced.is_none() && state.asked.len() < MAX_ASKED {
                    let asked = Asked::Until(until, "it was not reached in time");
                    state.asked.entry(peer).or_insert(asked);
                }
            }
        });
    }

    /// Notes that a name is asked. It is waited for until a peer behind it is known, or it failed.
    pub(crate) fn asks_name(&self, name: &str) {
        let asked = Asked::Until(Instant::now() + self.patience, "it was not asked in time");
        self.state.send_modify(|state| {
            if state.synced.is_none() {
                state.names.entry(name.to_owned()).or_insert(asked);
            }
        });
    }

    /// Notes that peers behind a name were found, which are waited for in its place.
    pub(crate) fn name_answered(&self, name: &str) {
        self.state.send_if_modified(|state| state.names.remove(name).is_some());
    }

    /// Notes that no peer was found behind a name.
    pub(crate) fn name_unanswered(&self, name: &str, reason: &str) {
        self.state.send_if_modified(|state| {
            let asked = state.names.get_mut(name);
            asked.map(|asked| *asked = Asked::Failed(reason.to_owned())).is_some()
        });
    }

    /// Notes that a link to a peer is open. The peer still has to say something about the topic.
    pub(crate) fn linked(&self, peer: &EndpointId) {
        self.expect(peer, SILENT, "it is linked, and says nothing of the topic");
    }

    /// Notes that a peer has said something about the topic.
    pub(crate) fn opened(&self, peer: &EndpointId) {
        self.expect(peer, self.patience, "no comparison of books with it was complete in time");
    }

    /// A peer that was asked may answer within `time` from now.
    fn expect(&self, peer: &EndpointId, time: Duration, otherwise: &'static str) {
        self.state.send_if_modified(|state| match state.asked.get_mut(peer) {
            Some(asked @ Asked::Until(..)) => {
                *asked = Asked::Until(Instant::now() + time, otherwise);
                true
            }
            _ => false,
        });
    }

    /// Notes that members on the local network may answer from now on.
    pub(crate) fn listens(&self) {
        self.state.send_modify(|state| state.listens_until = Some(Instant::now() + LISTEN));
    }

    /// Members of an earlier life, if there are `any`, may answer from now on.
    pub(crate) fn remembers(&self, any: bool) {
        let until = any.then(|| Instant::now() + LISTEN);
        self.state.send_modify(|state| state.remembers_until = until);
    }

    /// Notes that a peer did not answer, or refused this node. Peers that were not asked don't
    /// count.
    pub(crate) fn unanswered(&self, peer: &EndpointId, reason: &str) {
        self.state.send_if_modified(|state| {
            let asked = state.asked.get_mut(peer);
            asked.map(|asked| *asked = Asked::Failed(reason.to_owned())).is_some()
        });
    }

    /// Notes that a comparison of books with a member is complete.
    pub(crate) fn synced(&self, peer: EndpointId) {
        self.state.send_if_modified(|state| {
            let first = state.synced.is_none();
            state.synced.get_or_insert(peer);
            state.asked.clear();
            state.names.clear();
            first
        });
    }

    /// Ends all waits, because the topic was left.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// Waits until the first contact has ended, in one way or the other.
    ///
    /// # Errors
    /// [`Error::Closed`] if the topic is left before that.
    pub(crate) async fn joined(&self) -> Result<Joined, Error> {
        let mut news = self.state.subscribe();
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
            tokio::select! {
                result = news.changed() => result.map_err(|_| Error::Closed)?,
                () = sleep_until(until) => {}
            }
        }
    }
}

impl State {
    /// Returns that no peer answered, or the time until which to wait if nothing happens before.
    fn verdict(&self, now: Instant) -> Result<Joined, Instant> {
        let until = self.listens_until.max(self.remembers_until);
        let mut until = until.filter(|until| now < *until);
        let mut unanswered = Vec::new();
        let peers = self.asked.iter().map(|(peer, asked)| (peer.to_string(), asked));
        let names = self.names.iter().map(|(name, asked)| (name.clone(), asked));
        for (who, asked) in peers.chain(names) {
            match asked {
                Asked::Failed(why) => unanswered.push((who, why.clone())),
                Asked::Until(end, why) if *end <= now => unanswered.push((who, (*why).into())),
                Asked::Until(end, _) => {
                    until = Some(until.map_or(*end, |until| until.max(*end)));
                }
            }
        }
        until.map_or(Ok(Joined::Alone(unanswered)), Err)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn peer(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 32])
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_with_nobody_to_ask_is_alone_at_once() {
        let contact = Contact::new(Duration::from_secs(5));
        assert_eq!(contact.joined().await.unwrap(), Joined::Alone(Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_alone_only_after_the_last_peer_has_failed() {
        let contact = Contact::new(Duration::from_secs(5));
        contact.asks([peer(1), peer(2)]);
        contact.unanswered(&peer(1), "timed out");
        let early = tokio::time::timeout(LISTEN * 10, contact.joined()).await;
        assert!(early.is_err(), "peer 2 may still answer");
        contact.unanswered(&peer(2), "refused");
        let reasons = [(peer(1), "timed out"), (peer(2), "refused")];
        let reasons = reasons.map(|(peer, why)| (peer.to_string(), why.to_owned())).to_vec();
        assert_eq!(contact.joined().await.unwrap(), Joined::Alone(reasons));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_linked_and_silent_is_given_up_with_the_reason() {
        let contact = Contact::new(Duration::from_secs(5));
        let began = Instant::now();
        contact.asks([peer(1), peer(2)]);
        contact.linked(&peer(1));
        contact.unanswered(&peer(2), "timed out");
        let Joined::Alone(reasons) = contact.joined().await.unwrap() else { panic!() };
        assert!((SILENT..SILENT * 2).contains(&began.elapsed()));
        assert!(reasons[0].1.contains("says nothing of the topic"), "{reasons:?}");
        // A peer that has failed once is not waited for again, even if it is linked later.
        contact.unanswered(&peer(1), "gone");
        contact.linked(&peer(1));
        contact.opened(&peer(1));
        assert!(contact.joined().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_peer_is_waited_for_without_an_end() {
        let contact = Contact::new(Duration::from_secs(5));
        contact.asks([peer(1), peer(2)]);
        contact.linked(&peer(2));
        contact.opened(&peer(2));
        let joined = tokio::time::timeout(PATIENCE * 2, contact.joined()).await;
        let Ok(Ok(Joined::Alone(reasons))) = joined else { panic!("{joined:?}") };
        assert!(reasons[0].1.contains("not reached"), "{reasons:?}");
        assert!(reasons[1].1.contains("no comparison"), "{reasons:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_counts_until_it_failed_or_a_peer_behind_it_did() {
        let contact = Contact::new(Duration::from_secs(5));
        contact.asks_name("a.example:1");
        contact.asks_name("b.example:1");
        contact.name_unanswered("a.example:1", "does not resolve");
        contact.asks([peer(1)]);
        contact.name_answered("b.example:1");
        let early = tokio::time::timeout(LISTEN * 10, contact.joined()).await;
        assert!(early.is_err(), "the peer may still answer");
        contact.unanswered(&peer(1), "refused");
        let Joined::Alone(reasons) = contact.joined().await.unwrap() else { panic!() };
        let asked: Vec<_> = reasons.into_iter().map(|(asked, _)| asked).collect();
        assert_eq!(asked, [peer(1).to_string(), "a.example:1".to_owned()]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_listens_for_a_while_before_it_is_alone() {
        let contact = Contact::new(Duration::from_secs(5));
        contact.listens();
        let began = Instant::now();
        assert_eq!(contact.joined().await.unwrap(), Joined::Alone(Vec::new()));
        assert!(began.elapsed() >= LISTEN);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_comparison_ends_the_wait_whatever_failed_before_and_after() {
        let contact = Contact::new(Duration::from_secs(5));
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
        let contact = Contact::new(Duration::from_secs(5));
        contact.asks([peer(1)]);
        let (joined, ()) = tokio::join!(contact.joined(), async { contact.close() });
        assert!(matches!(joined, Err(Error::Closed)));
    }
}
