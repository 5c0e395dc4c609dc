//! What the actor keeps for each joined topic: who waits for what, and the bootstrap names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use iroh::TransportAddr;
use tokio::sync::oneshot;

use crate::{
    bootstrap::Bootstrap,
    commands::{JoinReply, Reply},
    dial::Host,
    error::Error,
    mdns::Mdns,
    proto::{EndpointId, NodeRecord, Profile},
    published::Published,
};

/// Most bootstrap peers of a topic.
const MAX_BOOTSTRAP: usize = 1024;

/// A joined topic. (Replies to callers that are gone are dropped: nobody waits.)
pub(crate) struct JoinedTopic {
    pub(crate) published: Arc<Published>,
    /// Answered at the first announcement.
    joining: Option<JoinReply>,
    /// Answered, in order, once their profile is announced.
    pub(crate) announcing: VecDeque<(Profile, Reply)>,
    /// Answered when the topic has closed.
    pub(crate) leaving: Vec<oneshot::Sender<()>>,
    announced: Option<Profile>,
    /// What the application says of itself.
    pub(crate) base: Profile,
    bootstrap: BTreeSet<EndpointId>,
    /// Names to resolve at each dial.
    pub(crate) hosts: BTreeMap<EndpointId, BTreeSet<Host>>,
    pub(crate) mdns: Option<Mdns>,
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
            bootstrap: BTreeSet::new(),
            hosts: BTreeMap::new(),
            mdns: None,
        }
    }

    /// Answers a join that failed.
    pub(crate) fn refuse(self, error: Error) {
        if let Some(reply) = self.joining {
            let _ = reply.send(Err(error));
        }
    }

    /// Keeps bootstrap peers; returns them with the addresses that are known without a lookup.
    pub(crate) fn add_bootstrap(
        &mut self,
        peers: &[Bootstrap],
        own: &EndpointId,
    ) -> Result<Vec<(EndpointId, Vec<TransportAddr>)>, Error> {
        Bootstrap::check_all(peers, &self.published.topic.id())?;
        let new: BTreeSet<_> = peers.iter().map(Bootstrap::id).filter(|id| id != own).collect();
        let total = self.bootstrap.union(&new).count();
        if total > MAX_BOOTSTRAP {
            let reason = format!("has {total} peers in all, the limit is {MAX_BOOTSTRAP}");
            return Err(Error::invalid("bootstrap", reason));
        }
        self.bootstrap.extend(&new);
        let mut known = Vec::new();
        for peer in peers.iter().filter(|peer| new.contains(&peer.id())) {
            let addresses = match peer {
                Bootstrap::Ticket(ticket) => ticket.addresses.clone(),
                Bootstrap::Host { id, host, port } => {
                    self.hosts.entry(*id).or_default().insert((host.clone(), *port));
                    Vec::new()
                }
                Bootstrap::Id(_) => Vec::new(),
            };
            known.push((peer.id(), addresses));
        }
        Ok(known)
    }

    /// What is announced: what the application says of itself, and the protocols that it serves.
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
        self.bootstrap.contains(peer)
    }

    /// Answers those who waited for this announcement, and those who asked before them.
    pub(crate) fn announced(&mut self, record: &NodeRecord) {
        self.announced = Some(record.profile.clone());
        if let Some(reply) = self.joining.take() {
            let _ = reply.send(Ok(self.published.clone()));
        }
        self.settle_unchanged();
    }

    /// Answers everyone up to the last one whose profile is the announced one.
    pub(crate) fn settle_unchanged(&mut self) {
        let current = self.announced.as_ref();
        let done = self.announcing.iter().rposition(|(profile, _)| Some(profile) == current);
        for (_, reply) in self.announcing.drain(..done.map_or(0, |last| last + 1)) {
            let _ = reply.send(Ok(()));
        }
    }

    /// Answers everyone who waits for an announcement that can't come.
    pub(crate) fn refuse_announcements(&mut self, error: impl Fn() -> Error) {
        for (_, reply) in self.announcing.drain(..) {
            let _ = reply.send(Err(error()));
        }
        if let Some(reply) = self.joining.take() {
            let _ = reply.send(Err(error()));
        }
    }

    /// Ends the topic for everyone who holds or waits for it.
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
