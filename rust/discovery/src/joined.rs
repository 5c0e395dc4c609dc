//! What the actor keeps for each joined topic: the waiting callers and the bootstrap peers.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use iroh::TransportAddr;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    bootstrap::Bootstrap,
    commands::{JoinReply, Reply},
    dial::Host,
    error::Error,
    mdns::Mdns,
    names::Name,
    proto::{EndpointId, NodeRecord, Profile},
    published::Published,
};

/// Most bootstrap peers of a topic. A new one takes the place of the one that was least recently
/// linked.
const MAX_BOOTSTRAP: usize = 1024;
/// Most names behind which members are looked for.
const MAX_BOOTSTRAP_NAMES: usize = 64;

/// When a bootstrap peer was last linked, and when it was first named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    linked: Option<Instant>,
    /// The order in which the peers were named.
    number: u64,
}

/// What [`JoinedTopic::add_bootstrap`] did with the peers that were named.
#[derive(Debug, Default)]
pub(crate) struct NewBootstrap {
    /// The peers that were added, with the addresses that are known without a lookup.
    pub(crate) known: Vec<(EndpointId, Vec<TransportAddr>)>,
    /// The peers that made room for new ones.
    pub(crate) aged_out: Vec<EndpointId>,
    /// The number of peers without room: all others are in the book, or were named in the same
    /// call.
    pub(crate) refused: usize,
}

/// A joined topic. Replies to callers that are gone are dropped, because nobody waits for them.
pub(crate) struct JoinedTopic {
    pub(crate) published: Arc<Published>,
    /// The reply of the join, sent at the first announcement.
    joining: Option<JoinReply>,
    /// The replies of the profile changes, sent in order, each once its profile is announced.
    pub(crate) announcing: VecDeque<(Profile, Reply)>,
    /// The replies of the leaves, sent when the topic has closed.
    pub(crate) leaving: Vec<oneshot::Sender<()>>,
    announced: Option<Profile>,
    /// What the application says of itself.
    pub(crate) base: Profile,
    bootstrap: BTreeMap<EndpointId, Candidate>,
    named: u64,
    /// The host names of bootstrap peers, which are resolved again at each dial.
    pub(crate) hosts: BTreeMap<EndpointId, BTreeSet<Host>>,
    pub(crate) mdns: Option<Mdns>,
    /// Names behind which members are looked for.
    pub(crate) names: BTreeMap<Name, AbortOnDropHandle<()>>,
    /// Addresses behind names, at which an endpoint answered. They count as named by the user.
    learned: BTreeSet<SocketAddr>,
}

impl JoinedTopic {
    pub(crate) fn new(published: Arc<Published>, base: Profile, joining: JoinReply) -> Self {
        Self {
            published,
            joining: Some(joining),
            announcing: VecDeque::new(),
            leaving: Vec::new(),
            announced: None,
            base,
            bootstrap: BTreeMap::new(),
            named: 0,
            hosts: BTreeMap::new(),
            mdns: None,
            names: BTreeMap::new(),
            learned: BTreeSet::new(),
        }
    }

    /// Answers a join that failed.
    pub(crate) fn refuse(self, error: Error) {
        if let Some(reply) = self.joining {
            let _ = reply.send(Err(error));
        }
    }

    /// Keeps bootstrap peers. If there is no room, new ones replace the least recently linked ones
    /// that are not in the book.
    pub(crate) fn add_bootstrap(
        &mut self,
        peers: &[Bootstrap],
        own: &EndpointId,
    ) -> Result<NewBootstrap, Error> {
        Bootstrap::check_all(peers, &self.published.topic.id())?;
        let mut new = NewBootstrap::default();
        let mut evictable = self.evictable(peers);
        for peer in peers {
            let Some(id) = peer.id().filter(|id| id != own) else { continue };
            if !self.bootstrap.contains_key(&id) {
                if self.bootstrap.len() >= MAX_BOOTSTRAP {
                    let Some(aged) = evictable.next() else {
                        new.refused += 1;
                        continue;
                    };
                    self.bootstrap.remove(&aged);
                    self.hosts.remove(&aged);
                    new.aged_out.push(aged);
                }
                self.bootstrap.insert(id, Candidate { linked: None, number: self.named });
                self.named += 1;
            }
            let addresses = match peer {
                Bootstrap::Ticket(ticket) => ticket.addresses.clone(),
                Bootstrap::Address { addresses, .. } => addresses.clone(),
                Bootstrap::Host { id, host, port } => {
                    self.hosts.entry(*id).or_default().insert((host.clone(), *port));
                    Vec::new()
                }
                Bootstrap::Id(_) | Bootstrap::Name(_) => Vec::new(),
            };
            new.known.push((id, addresses));
        }
        Ok(new)
    }

    /// Returns the names among bootstrap peers that are not looked for yet, and how many have no
    /// room.
    pub(crate) fn new_names(&self, peers: &[Bootstrap]) -> (BTreeSet<Name>, usize) {
        let name = |peer: &Bootstrap| match peer {
            Bootstrap::Name(name) if !self.names.contains_key(name) => Some(name.clone()),
            _ => None,
        };
        let mut new: BTreeSet<_> = peers.iter().filter_map(name).collect();
        let room = MAX_BOOTSTRAP_NAMES.saturating_sub(self.names.len());
        let refused = new.len().saturating_sub(room);
        if let Some(first) = new.iter().nth(room).cloned() {
            new.split_off(&first);
        }
        (new, refused)
    }

    /// Returns the bootstrap peers.
    pub(crate) fn bootstrap_ids(&self) -> impl Iterator<Item = &EndpointId> {
        self.bootstrap.keys()
    }

    /// Notes an address behind a name. If there are too many, all are forgotten, because a name may
    /// have other addresses each time.
    pub(crate) fn learned(&mut self, at: SocketAddr) {
        if self.learned.len() >= MAX_BOOTSTRAP {
            self.learned.clear();
        }
        self.learned.insert(at);
    }

    /// Returns true if the user named an address, by its name.
    pub(crate) fn is_learned(&self, at: &TransportAddr) -> bool {
        matches!(at, TransportAddr::Ip(at) if self.learned.contains(at))
    }

    /// Returns the bootstrap peers that may be replaced, the least recently linked first. Those
    /// that are named again are not among them.
    fn evictable(&self, named: &[Bootstrap]) -> impl Iterator<Item = EndpointId> + use<> {
        let room = MAX_BOOTSTRAP.saturating_sub(self.bootstrap.len());
        let mut able = Vec::new();
        if named.len() > room {
            let named: BTreeSet<_> = named.iter().filter_map(Bootstrap::id).collect();
            let book = self.published.book();
            let mut candidates: Vec<_> = self
                .bootstrap
                .iter()
                .filter(|(id, _)| !named.contains(*id) && book.get(id).is_none())
                .map(|(id, candidate)| (*candidate, *id))
                .collect();
            candidates.sort_unstable();
            able = candidates.into_iter().map(|(_, id)| id).collect();
        }
        able.into_iter()
    }

    /// Notes that a link to a peer is open.
    pub(crate) fn bootstrap_linked(&mut self, peer: &EndpointId, now: Instant) {
        if let Some(candidate) = self.bootstrap.get_mut(peer) {
            candidate.linked = Some(now);
        }
    }

    /// Returns the profile to announce: that of the application, with the protocols that it serves.
    pub(crate) fn with_services(&self) -> Profile {
        let mut profile = self.base.clone();
        for protocol in self.published.services.protocols() {
            if !profile.protocols.contains(&protocol) {
                profile.protocols.push(protocol);
            }
        }
        profile
    }

    pub(crate) fn is_bootstrap(&self, peer: &EndpointId) -> bool {
        self.bootstrap.contains_key(peer)
    }

    /// Answers the callers that waited for this announcement, and those that asked before them.
    pub(crate) fn announced(&mut self, record: &NodeRecord) {
        self.announced = Some(record.profile.clone());
        if let Some(reply) = self.joining.take() {
            let _ = reply.send(Ok(self.published.clone()));
        }
        self.settle_unchanged();
    }

    /// Answers all callers up to the last one whose profile is the announced one.
    pub(crate) fn settle_unchanged(&mut self) {
        let current = self.announced.as_ref();
        let done = self.announcing.iter().rposition(|(profile, _)| Some(profile) == current);
        for (_, reply) in self.announcing.drain(..done.map_or(0, |last| last + 1)) {
            let _ = reply.send(Ok(()));
        }
    }

    /// Answers all callers that wait for an announcement that can't come.
    pub(crate) fn refuse_announcements(&mut self, error: impl Fn() -> Error) {
        for (_, reply) in self.announcing.drain(..) {
            let _ = reply.send(Err(error()));
        }
        if let Some(reply) = self.joining.take() {
            let _ = reply.send(Err(error()));
        }
    }

    /// Ends the topic for all callers that hold it or wait for it.
    pub(crate) fn close(self) {
        self.published.close();
        for reply in self.leaving {
            let _ = reply.send(());
        }
        for (_, reply) in self.announcing {
            let _ = reply.send(Err(Error::Closed));
        }
        if let Some(reply) = self.joining {
            let _ = reply.send(Err(Error::Closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, metrics::Counters, topic::Topic};

    fn joined() -> JoinedTopic {
        let (own, config) = (id(u32::MAX), Config::local());
        let topic = Topic::new("fleet").unwrap();
        let counters = Arc::<Counters>::default();
        let published = Arc::new(Published::new(topic, own, &config, counters, Arc::default()));
        JoinedTopic::new(published, Profile::default(), oneshot::channel().0)
    }

    fn id(number: u32) -> EndpointId {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        EndpointId::from_bytes(bytes)
    }

    fn peers(numbers: std::ops::Range<u32>) -> Vec<Bootstrap> {
        numbers.map(|number| Bootstrap::Id(id(number))).collect()
    }

    #[test]
    fn a_new_bootstrap_peer_takes_the_place_of_the_least_recently_linked() {
        let mut joined = joined();
        let own = id(u32::MAX);
        assert_eq!(joined.add_bootstrap(&peers(0..1024), &own).unwrap().known.len(), 1024);
        joined.bootstrap_linked(&id(0), Instant::now());
        joined.bootstrap_linked(&id(1), Instant::now());
        let new = joined.add_bootstrap(&peers(2000..2002), &own).unwrap();
        assert_eq!((new.aged_out, new.refused), (vec![id(2), id(3)], 0));
        assert!(joined.is_bootstrap(&id(2000)) && !joined.is_bootstrap(&id(2)));
        // Even after many more ids than fit, the linked ones stay.
        for start in (3000..30_000).step_by(1000) {
            let new = joined.add_bootstrap(&peers(start..start + 1000), &own).unwrap();
            assert_eq!((new.known.len(), new.refused), (1000, 0));
        }
        assert!(joined.is_bootstrap(&id(0)) && joined.is_bootstrap(&id(1)));
        assert_eq!(joined.bootstrap.len(), 1024);
    }

    #[test]
    fn of_more_than_fit_at_once_what_fits_is_taken_and_the_rest_is_counted() {
        let mut joined = joined();
        let own = id(5);
        let new = joined.add_bootstrap(&peers(0..1030), &own).unwrap();
        assert_eq!((new.known.len(), new.aged_out.len(), new.refused), (1024, 0, 5));
        assert!(!joined.is_bootstrap(&own));
        // Peers that are named again keep their place.
        let new = joined.add_bootstrap(&peers(0..1030), &own).unwrap();
        assert_eq!((new.known.len(), new.aged_out.len(), new.refused), (1024, 0, 5));
    }

    #[test]
    fn the_names_of_a_peer_that_aged_out_are_forgotten() {
        let mut joined = joined();
        let own = id(u32::MAX);
        let host = Bootstrap::Host { id: id(9999), host: "a.example".into(), port: 1 };
        joined.add_bootstrap(&[host], &own).unwrap();
        assert_eq!(joined.hosts.len(), 1);
        joined.add_bootstrap(&peers(0..1024), &own).unwrap();
        assert_eq!(joined.hosts.len(), 0);
    }
}
