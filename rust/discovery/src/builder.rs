//! A whole node in one call: endpoint, router, discovery and one topic.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use iroh::{
    Endpoint, SecretKey,
    protocol::{DynProtocolHandler, Router},
};
use tokio::time::timeout;

use crate::{
    ALPN,
    access::{Lists, Marks},
    blocking::blocking,
    bootstrap::Bootstrap,
    config::Config,
    discovery::{Discovery, Guards},
    endpoint,
    error::Error,
    invited::{Invited, check_invited},
    newcomer::Admit,
    proto::{EndpointId, Invitation, Profile},
    store::Store,
    swarm::Swarm,
    swarm_key::{Keyring, SwarmKey},
    topic::{JoinOptions, Topic},
};

/// Builds a [`RunningNode`].
///
/// ```no_run
/// # async fn example() -> Result<(), iroh_gossip_discovery::Error> {
/// use iroh_gossip_discovery::{Config, RunningNode};
///
/// let node = RunningNode::builder("alice", "fleet").config(Config::local()).build().await?;
/// println!("{}", node.swarm.ticket());
/// node.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct NodeBuilder {
    topic: String,
    profile: Profile,
    bootstrap: Vec<Bootstrap>,
    config: Config,
    observer: bool,
    secret_key: Option<SecretKey>,
    state_dir: Option<PathBuf>,
    expiration: Option<Duration>,
    secrets: Vec<SwarmKey>,
    allow: Option<Vec<EndpointId>>,
    deny: Vec<EndpointId>,
    admit: Option<Admit>,
    issuers: Vec<EndpointId>,
    invitation: Option<Invitation>,
    handlers: Vec<(Vec<u8>, Box<dyn DynProtocolHandler>)>,
}

impl NodeBuilder {
    /// Prepares a node called `name` in the topic called `topic`, with [`Config::lan`].
    pub fn new(name: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            profile: Profile::new(name),
            bootstrap: Vec::new(),
            config: Config::default(),
            observer: false,
            secret_key: None,
            state_dir: None,
            expiration: None,
            secrets: Vec::new(),
            allow: None,
            deny: Vec::new(),
            admit: None,
            issuers: Vec::new(),
            invitation: None,
            handlers: Vec::new(),
        }
    }

    /// Replaces the settings. The default is [`Config::lan`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Only observes, as a dashboard or a client does: the node sees the book and is in nobody's.
    ///
    /// One member at a time keeps it up to date, and if that member goes, another one. It gets the
    /// events of the book, and can send messages and open streams. It can't broadcast, hears no
    /// broadcasts, serves nothing and owns nothing. A private swarm asks it for the secret too.
    /// A member has [`crate::proto::Config::observers`] at the most, and names others to the rest.
    pub fn observer(mut self) -> Self {
        self.observer = true;
        self
    }

    /// Sets how long others keep this node without a newer record of it. It takes the place of
    /// `expiration` in [`Config::protocol`]. 1 s to 30 days, in whole seconds.
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.expiration = Some(expiration);
        self
    }

    /// Sets the key of the endpoint. Its public half is the node's id. The default is the key in
    /// the state directory, or a new one if there is none.
    pub fn secret_key(mut self, key: SecretKey) -> Self {
        self.secret_key = Some(key);
        self
    }

    /// Keeps the key, the sequence numbers, the ports and the book in this directory, so that the
    /// node is the same one after a restart, and finds the others. The directory is created if it
    /// is missing. While one node uses it, a second one is refused. A full or read-only disk stops
    /// no start.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Makes the swarm private: only nodes that hold one of these keys become members, and this one
    /// joins only such. At most 4, the preferred one first, so that keys can be changed while the
    /// swarm runs. None, as by default, is a public swarm.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), iroh_gossip_discovery::Error> {
    /// use iroh_gossip_discovery::{RunningNode, SwarmKey, Topic};
    ///
    /// let secret = std::env::var("SWARM_KEY").expect("it is set");
    /// let key = SwarmKey::from_secret(&secret, &Topic::new("fleet")?)?;
    /// let node = RunningNode::builder("alice", "fleet").secrets(vec![key]).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn secrets(mut self, keys: Vec<SwarmKey>) -> Self {
        self.secrets = keys;
        self
    }

    /// Makes the swarm private by invitations: only nodes that one of these issuers invited become
    /// members, and this one joins only such. At most 8, so that the issuer can be changed. This
    /// node needs an invitation too. It excludes [`Self::secrets`], and further topics.
    ///
    /// ```no_run
    /// # use iroh_gossip_discovery::{EndpointId, Error, RunningNode};
    /// # async fn example(issuer: EndpointId) -> Result<(), Error> {
    /// let invitation = std::env::var("INVITATION").expect("it is set").parse()?;
    /// let builder = RunningNode::builder("alice", "fleet").state_dir("/var/lib/alice");
    /// let node = builder.issuers(vec![issuer]).invitation(invitation).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn issuers(mut self, issuers: Vec<EndpointId>) -> Self {
        self.issuers = issuers;
        self
    }

    /// Sets the invitation of this node, by which others let it in.
    pub fn invitation(mut self, invitation: Invitation) -> Self {
        self.invitation = Some(invitation);
        self
    }

    /// Deals with these peers only, at most 10,000, and with those that [`Discovery::allow`] added
    /// in this life or an earlier one. The default is all that are not denied.
    pub fn allow(mut self, peers: Vec<EndpointId>) -> Self {
        self.allow = Some(peers);
        self
    }

    /// Keeps these peers out, at most 10,000, and those that [`Discovery::deny`] added in this life
    /// or an earlier one.
    pub fn deny(mut self, peers: Vec<EndpointId>) -> Self {
        self.deny = peers;
        self
    }

    /// Asks about each peer that the lists let in. It is kept out until it is admitted. The default
    /// admits all of them.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), iroh_gossip_discovery::Error> {
    /// use iroh_gossip_discovery::{Admit, RunningNode};
    ///
    /// async fn is_in_the_inventory(id: String) -> Result<bool, String> {
    ///     Ok(id.len() == 64)
    /// }
    ///
    /// let admit = Admit::new(|newcomer| is_in_the_inventory(newcomer.id.to_string()));
    /// let node = RunningNode::builder("alice", "fleet").admit(admit).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn admit(mut self, admit: Admit) -> Self {
        self.admit = Some(admit);
        self
    }

    /// Sets the metadata: free text by key, at most 1 KiB encoded.
    pub fn metadata(mut self, metadata: BTreeMap<String, String>) -> Self {
        self.profile.metadata = metadata;
        self
    }

    /// Sets the ALPNs that the record names: at most 8, each of at most 32 bytes. Those given to
    /// [`Self::accept`] are named anyway.
    pub fn protocols(mut self, protocols: Vec<Vec<u8>>) -> Self {
        self.profile.protocols = protocols;
        self
    }

    /// Adds peers to dial first, to those given before.
    pub fn bootstrap(mut self, peers: Vec<Bootstrap>) -> Self {
        self.bootstrap.extend(peers);
        self
    }

    /// Serves another protocol on the same endpoint, and names it in the record.
    pub fn accept(
        mut self,
        alpn: impl AsRef<[u8]>,
        handler: impl Into<Box<dyn DynProtocolHandler>>,
    ) -> Self {
        self.handlers.push((alpn.as_ref().to_vec(), handler.into()));
        self
    }

    /// Binds the endpoint, serves it, and announces the node. Never waits for a peer.
    ///
    /// # Errors
    /// [`Error::Invalid`], which names the field and its limit, and [`Error::Bind`], both before
    /// anything opens; [`Error::StateDir`], [`Error::StateDirInUse`], [`Error::Endpoint`]. After an
    /// error, all that was opened is closed again.
    pub async fn build(mut self) -> Result<RunningNode, Error> {
        for (alpn, _) in &self.handlers {
            if !self.profile.protocols.contains(alpn) {
                self.profile.protocols.push(alpn.clone());
            }
        }
        if self.expiration.is_some() {
            self.config.protocol.expiration = self.expiration;
        }
        self.config.protocol.observer |= self.observer;
        let topic = Topic::new(&self.topic)?;
        self.profile.validate()?;
        self.config.validate()?;
        Bootstrap::check_all(&self.bootstrap, &topic.id())?;
        let keys = Keyring::new(std::mem::take(&mut self.secrets))?;
        check_invited(&self.issuers, self.invitation.as_ref(), !keys.is_empty())?;
        if self.invitation.as_ref().is_some_and(|invitation| invitation.topic != topic.id()) {
            return Err(Error::invalid("invitation", "is for another topic"));
        }
        endpoint::probe(&self.config.bind)?;

        let store = match self.state_dir.take() {
            Some(dir) => blocking(move || Store::open(&dir)).await?,
            None => None,
        };
        let (store, key) = match (store, self.secret_key.take()) {
            (store, Some(key)) => (store, key),
            (None, None) => (None, SecretKey::generate()),
            (Some(store), None) => {
                blocking(move || store.key().map(|key| (Some(store), key))).await?
            }
        };
        let marks = store.as_ref().map_or_else(Marks::default, Store::marks);
        let me = EndpointId::from(key.public());
        let lists = Lists::new(self.allow.take(), std::mem::take(&mut self.deny), &me, marks)?;
        let issuers = std::mem::take(&mut self.issuers);
        let invited = Invited::new(issuers, self.invitation.take(), !keys.is_empty(), &me)?;
        let last = store.as_ref().map(Store::last_bound).unwrap_or_default();
        let endpoint = endpoint::bind_again(&self.config, key, &last).await?;
        let guards = Guards { keys, invited, lists, admit: self.admit.take() };
        match self.serve(endpoint.clone(), store, guards, topic).await {
            Ok(node) => Ok(node),
            Err(error) => {
                endpoint.close().await;
                Err(error)
            }
        }
    }

    async fn serve(
        self,
        endpoint: Endpoint,
        store: Option<Store>,
        guards: Guards,
        topic: Topic,
    ) -> Result<RunningNode, Error> {
        let store = match store {
            Some(store) => {
                let (id, bound) = (endpoint.id().to_string(), endpoint.bound_sockets());
                let keep = move || {
                    store.keep_bound(id, bound);
                    Ok(Some(store))
                };
                blocking(keep).await?
            }
            None => None,
        };
        let discovery = Discovery::spawn_with(endpoint.clone(), self.config, store, guards).await?;
        let mut router = Router::builder(endpoint.clone())
            .incoming_filter(discovery.incoming_filter())
            .accept(ALPN, discovery.clone());
        for (alpn, handler) in self.handlers {
            router = router.accept(alpn, handler);
        }
        let router = router.spawn();
        let options = JoinOptions { profile: self.profile, bootstrap: self.bootstrap };
        let swarm = match discovery.join(topic, options).await {
            Ok(swarm) => swarm,
            Err(error) => {
                shutdown(&router).await;
                return Err(error);
            }
        };
        Ok(RunningNode { swarm, endpoint, discovery, router })
    }
}

/// How long a close waits for the peers to acknowledge the end of their connections.
const ENDPOINT_CLOSE: Duration = Duration::from_millis(400);

/// A running node. Close it at the end: if it is dropped instead, its peers notice that only when
/// their links time out.
#[derive(Debug)]
pub struct RunningNode {
    /// The joined topic.
    pub swarm: Swarm,
    /// The endpoint, to be used for the application's own connections too.
    pub endpoint: Endpoint,
    /// The discovery of the endpoint, which can join further topics.
    pub discovery: Discovery,
    router: Router,
}

impl RunningNode {
    /// Builds a node called `name` in the topic called `topic`, with [`Config::lan`].
    pub fn builder(name: impl Into<String>, topic: impl Into<String>) -> NodeBuilder {
        NodeBuilder::new(name, topic)
    }

    /// Leaves every topic, then closes the endpoint. May be called again.
    ///
    /// Takes at most [`crate::proto::Config::leave_timeout`] and about 1 s, besides what the
    /// handlers given to [`NodeBuilder::accept`] take for their own shutdown. If a peer does not
    /// answer, such as one that was just being dialed, QUIC repeats its goodbye for 3 s. The rest
    /// of that happens in the background, and the UDP port is free only after it.
    pub async fn close(&self) {
        self.discovery.shutdown().await;
        let router = self.router.clone();
        // The router has a task of its own, so that its shutdown continues if this future is
        // dropped half-way.
        let mut closing = tokio::spawn(async move { shutdown(&router).await });
        tokio::select! {
            _ = &mut closing => return,
            // The handlers have ended. Only the endpoint itself is left.
            () = self.endpoint.closed() => {}
        }
        if timeout(ENDPOINT_CLOSE, closing).await.is_err() {
            tracing::debug!("the endpoint still closes, in the background");
        }
    }
}

async fn shutdown(router: &Router) {
    if let Err(error) = router.shutdown().await {
        tracing::warn!(reason = %error, "the router's shutdown failed");
    }
}
