//! The handle of discovery on one endpoint: it joins topics, serves links and answers lookups.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use futures_util::stream::BoxStream;
use iroh::{
    Endpoint,
    address_lookup::{self, AddressLookup},
    endpoint::{Connection, IncomingAddr, VarInt},
    protocol::{AcceptError, IncomingFilter, IncomingFilterOutcome, ProtocolHandler},
};
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use crate::{
    access::{Change, Lists, Marks},
    actor::Actor,
    bans::Bans,
    barred::Barred,
    blocking::blocking,
    claim::{self, Claim},
    commands::{Command, Commands},
    config::Config,
    door::Door,
    endpoint,
    error::Error,
    inquiry::Inquiry,
    invited::Invited,
    lookup::Lookup,
    metrics::Counters,
    newcomer::Admit,
    problems::{Problem, Problems},
    proto::{
        CloseCode, EndpointId, Identity, InEvent, Invitation, MAX_SEQUENCE, Revocation, State,
    },
    questions::Questions,
    store::{Store, unix_micros},
    swarm::Swarm,
    swarm_key::{Keyring, SwarmKey},
    topic::{JoinOptions, Topic},
};

/// The options of [`Discovery::spawn`].
///
/// ```
/// use iroh_gossip_discovery::{Config, SpawnOptions};
///
/// let options = SpawnOptions::new(Config::local()).state_dir("/var/lib/alice");
/// assert!(options.secrets.is_empty());
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SpawnOptions {
    /// The settings. `bind`, `relay`, `relay_urls` and `dns` are not used, because the endpoint is
    /// bound already.
    pub config: Config,
    /// The directory that keeps the sequence numbers, so that they never go back after a restart
    /// with the same key. One directory serves one endpoint at a time.
    pub state_dir: Option<PathBuf>,
    /// The secrets of a private swarm, at most 4, the preferred one first; none for a public one.
    /// They hold for all topics of the endpoint.
    pub secrets: Vec<SwarmKey>,
    /// The only peers that this node deals with, at most 10,000, besides those that
    /// [`Discovery::allow`] added in this life or an earlier one; `None` for all that are not
    /// denied.
    pub allow: Option<Vec<EndpointId>>,
    /// Peers that this node keeps out, at most 10,000, besides those that [`Discovery::deny`] added
    /// in this life or an earlier one.
    pub deny: Vec<EndpointId>,
    /// Asked about each peer that the lists let in, which is kept out until it is admitted. `None`
    /// admits all of them.
    pub admit: Option<Admit>,
    /// The issuers whose invitations let nodes into the swarm, at most 8; none for a swarm that is
    /// not private by invitations. They exclude `secrets`.
    pub issuers: Vec<EndpointId>,
    /// The invitation of this node, which it needs if there are issuers. It is for one topic, so
    /// the endpoint joins no other one.
    pub invitation: Option<Invitation>,
}

impl SpawnOptions {
    /// Makes options with these settings, and nothing else.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Names the state directory.
    #[must_use]
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(directory.into());
        self
    }

    /// Makes the swarm private with these secrets.
    #[must_use]
    pub fn secrets(mut self, secrets: Vec<SwarmKey>) -> Self {
        self.secrets = secrets;
        self
    }
}

/// What keeps peers out of an endpoint.
#[derive(Debug)]
pub(crate) struct Guards {
    pub(crate) keys: Keyring,
    pub(crate) invited: Option<Invited>,
    pub(crate) lists: Lists,
    pub(crate) admit: Option<Admit>,
}

/// Discovery on one endpoint. Clones are handles of the same discovery.
///
/// Give it to a router under [`crate::ALPN`]: without that, no peer can reach this node. It answers
/// the endpoint's address lookups from its books, so a peer in a book can be dialed by its id on
/// any ALPN.
///
/// ```no_run
/// # use iroh::{Endpoint, protocol::Router};
/// # use iroh_gossip_discovery::{ALPN, Discovery, JoinOptions, SpawnOptions, Topic};
/// # async fn example(endpoint: Endpoint) -> Result<(), Box<dyn std::error::Error>> {
/// let discovery = Discovery::spawn(endpoint.clone(), SpawnOptions::default()).await?;
/// let router = Router::builder(endpoint.clone()).accept(ALPN, discovery.clone()).spawn();
/// let swarm = discovery.join(Topic::new("fleet")?, JoinOptions::new("alice")).await?;
/// for peer in &swarm.wait_for_peers(1).await? {
///     println!("{} {:?}", peer.profile.name, peer.addresses);
/// }
/// router.shutdown().await?; // says goodbye, then closes the endpoint
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Discovery {
    pub(crate) commands: Commands,
    lookup: Lookup,
    pub(crate) barred: Barred,
    lists: Lists,
    door: Door,
    problems: Problems,
    bans: Bans,
    /// The endpoint that it was spawned on.
    on: claim::Key,
}

impl Discovery {
    /// Starts discovery on an endpoint, and adds its lookup to those of the endpoint.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the settings, or for an endpoint that has a discovery already;
    /// [`Error::StateDir`], [`Error::StateDirInUse`]; [`Error::Closed`] for a closed endpoint.
    /// After an error nothing is left running.
    pub async fn spawn(endpoint: Endpoint, options: SpawnOptions) -> Result<Self, Error> {
        options.config.validate()?;
        let store = match options.state_dir {
            Some(dir) => blocking(move || Store::open(&dir)).await?,
            None => None,
        };
        let me = endpoint.id().into();
        let has_secret = !options.secrets.is_empty();
        let keys = Keyring::new(options.secrets)?;
        let invited = Invited::new(options.issuers, options.invitation, has_secret, &me)?;
        let marks = store.as_ref().map_or_else(Marks::default, Store::marks);
        let lists = Lists::new(options.allow, options.deny, &me, marks)?;
        let guards = Guards { keys, invited, lists, admit: options.admit };
        Self::spawn_with(endpoint, options.config, store, guards).await
    }

    pub(crate) async fn spawn_with(
        endpoint: Endpoint,
        config: Config,
        store: Option<Store>,
        guards: Guards,
    ) -> Result<Self, Error> {
        let Guards { keys, invited, lists, admit } = guards;
        let claim = Claim::new(&endpoint)?;
        let key = endpoint.secret_key().clone();
        let mut sequence = unix_micros();
        // Without a store nothing is written, so all sequence numbers may be used at once.
        let mut reserved = MAX_SEQUENCE;
        let mut kept = None;
        if let Some(store) = store {
            let check = key.clone();
            (kept, sequence, reserved) = blocking(move || {
                store.check_key(&check)?;
                let (sequence, reserved) = store.begin();
                Ok((Some(store), sequence, reserved))
            })
            .await?;
        }
        let identity = Identity {
            key: key.as_signing_key().clone(),
            boot_id: random_u64()?,
            sequence,
            reserved,
        };
        let now = Instant::now();
        let mut state = State::new(identity, random_seed()?, now);
        if admit.is_some() {
            lists.ask();
        }
        let me = EndpointId::from(endpoint.id());
        if let Some(invited) = &invited {
            let held = lists.revocations().into_iter();
            let held = held.filter(|(_, revocation)| invited.trusts(revocation)).collect();
            lists.set_revoked(held, &me);
        }
        state.handle(InEvent::SetAccess(lists.access()), now)?;
        let lookup = Lookup::default();
        endpoint.address_lookup().map_err(|_| Error::Closed)?.add(lookup.clone());
        let (commands, commands_rx) = Commands::new();
        let span = info_span!("discovery", me = %me.fmt_short());
        let transport = endpoint::transport(&config)?;
        let problems = kept.as_ref().map_or_else(Problems::default, Store::problems);
        let barred = Barred::default();
        let counters = Arc::<Counters>::default();
        let bans = counters.bans.clone();
        let of_door = (lookup.clone(), lists.clone(), barred.clone(), counters, problems.clone());
        let questions = Questions::default();
        let door = Door::new(me, (keys, invited), questions.clone(), of_door);
        claim.open(&commands, door.clone());
        let on = claim.key().clone();
        let mut actor =
            Actor::new(endpoint, state, config, transport, lookup.clone(), kept, door.clone());
        actor.claim = Some(claim);
        actor.inquiry = admit.map(|admit| Inquiry::new(admit, questions));
        tokio::spawn(actor.run(commands_rx).instrument(span));
        Ok(Self { commands, lookup, barred, lists, door, problems, bans, on })
    }

    /// Returns a filter for the router of an endpoint. It refuses the sockets of banned peers
    /// before a handshake costs anything. Without it they are refused after the handshake.
    ///
    /// ```no_run
    /// # fn example(endpoint: iroh::Endpoint, discovery: iroh_gossip_discovery::Discovery) {
    /// let router = iroh::protocol::Router::builder(endpoint)
    ///     .incoming_filter(discovery.incoming_filter())
    ///     .accept(iroh_gossip_discovery::ALPN, discovery)
    ///     .spawn();
    /// # }
    /// ```
    #[must_use]
    pub fn incoming_filter(&self) -> IncomingFilter {
        let bans = self.bans.clone();
        Arc::new(move |incoming| match incoming.remote_addr() {
            IncomingAddr::Ip(socket) if bans.is_socket_banned(socket, Instant::now()) => {
                IncomingFilterOutcome::Reject
            }
            _ => IncomingFilterOutcome::Accept,
        })
    }

    /// Joins a topic. Returns once this node's record is announced, and never waits for a peer.
    ///
    /// # Errors
    /// [`Error::Invalid`], which names the field and its limit; [`Error::AlreadyJoined`];
    /// [`Error::Closed`] after a shutdown.
    pub async fn join(&self, topic: Topic, options: JoinOptions) -> Result<Swarm, Error> {
        let options = Box::new(options);
        let join = |reply| Command::Join { topic, options, reply };
        let published = self.commands.request(join).await??;
        Ok(Swarm::new(published, self.commands.clone()))
    }

    /// Keeps a peer out, in all topics of the endpoint. Returns once that holds: its links are
    /// closed, and it is in no book. If there is a state directory, it holds for later lives too,
    /// until [`Self::undeny`].
    ///
    /// The peer may be unknown. It is denied also if it is on the allow list. Others that do not
    /// deny it still deal with it, and this node passes its record on to them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for this node itself, or beyond 10,000 denied ids; [`Error::Closed`].
    pub async fn deny(&self, peer: EndpointId) -> Result<(), Error> {
        self.change_access(Change::Deny, peer).await
    }

    /// Takes a peer off the deny list. If its record is known, it is in the book at once; if there
    /// is a [`SpawnOptions::admit`], that is asked first, again. One that [`SpawnOptions::deny`]
    /// names is denied again in the next life.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn undeny(&self, peer: EndpointId) -> Result<(), Error> {
        self.change_access(Change::Undeny, peer).await
    }

    /// Adds a peer to the allow list. If there is a state directory, it is on it in later lives
    /// too, until [`Self::disallow`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if this node has no allow list, or beyond 10,000 ids on it;
    /// [`Error::Closed`].
    pub async fn allow(&self, peer: EndpointId) -> Result<(), Error> {
        self.change_access(Change::Allow, peer).await
    }

    /// Takes a peer off the allow list. Returns once that holds, as [`Self::deny`]. One that
    /// [`SpawnOptions::allow`] names is on it again in the next life.
    ///
    /// # Errors
    /// [`Error::Invalid`] if this node has no allow list; [`Error::Closed`].
    pub async fn disallow(&self, peer: EndpointId) -> Result<(), Error> {
        self.change_access(Change::Disallow, peer).await
    }

    /// Returns the deny list.
    #[must_use]
    pub fn denied(&self) -> BTreeSet<EndpointId> {
        self.lists.access().deny.clone()
    }

    /// Returns the allow list; `None` if there is none.
    #[must_use]
    pub fn allowed(&self) -> Option<BTreeSet<EndpointId>> {
        self.lists.access().allow.clone()
    }

    /// Keeps an id out of the swarm, by the word of an issuer. Returns once that holds here: its
    /// links are closed, and it is in no book. The other members learn it by gossip, and those that
    /// are away when they come back. With a state directory, it is kept over a restart, up to the
    /// end of the revocation.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field `revocation` if this node does not trust its issuer, or if
    /// it is for another topic, or has ended; [`Error::Closed`].
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), Error> {
        let revocation = Box::new(revocation);
        self.commands.request(|reply| Command::Revoke { revocation, reply }).await?
    }

    /// Returns the ids that issuers keep out, as far as this node knows.
    #[must_use]
    pub fn revoked(&self) -> BTreeSet<EndpointId> {
        let revocations = self.lists.revocations();
        revocations.into_keys().collect()
    }

    /// Replaces the invitation of this node, before the present one ends. Members that have a link
    /// with it see the new one when the old one has ended: they close the link, and open another.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field `invitation`, as of the start; [`Error::Closed`].
    pub async fn renew(&self, invitation: Invitation) -> Result<(), Error> {
        let invitation = Box::new(invitation);
        self.commands.request(|reply| Command::Renew { invitation, reply }).await?
    }

    async fn change_access(&self, change: Change, peer: EndpointId) -> Result<(), Error> {
        self.commands.request(|reply| Command::ChangeAccess { change, peer, reply }).await?
    }

    /// Returns what keeps this node from others, the oldest problem first, at most 64. Examples: no
    /// usable address, a name that does not resolve, a ticket that nobody answers. Empty while all
    /// is well. Never waits.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.list()
    }

    /// Notes that a part of the application that finds peers fails, and why, or with `None` that it
    /// works. It is one of the [`problems`](Self::problems) until then, and is logged as they are.
    /// A `source` of more than 512 bytes is cut, and so is a reason.
    pub fn report(&self, source: &str, what: Option<&str>) {
        match what {
            Some(what) => self.problems.raise(source, what),
            None => self.problems.clear(source),
        }
    }

    /// The way to the discovery that runs on the endpoint now: this one, or a later one.
    fn running(&self) -> (Commands, Door) {
        let own = || (self.commands.clone(), self.door.clone());
        claim::current(&self.on).unwrap_or_else(own)
    }

    /// Leaves every topic and closes every link. The endpoint stays open, and another discovery may
    /// be spawned on it, which the router's handler then serves. May be called again.
    ///
    /// Takes at most [`crate::proto::Config::leave_timeout`] and 0.6 s. Dials are abandoned, and
    /// after that time no peer's acknowledgement is waited for.
    pub async fn shutdown(&self) {
        // An error means that the actor has ended already.
        let _ = self.commands.request(|reply| Command::Shutdown { reply }).await;
    }
}

/// As a handler of a router, it serves its endpoint: after a shutdown, it hands connections to the
/// discovery that is spawned on the endpoint next.
impl ProtocolHandler for Discovery {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let (commands, door) = self.running();
        let Some(admitted) = door.accept(connection.clone()).await else { return Ok(()) };
        let _ = commands.send(Command::Accepted(admitted)).await;
        if commands.is_closed() {
            connection.close(VarInt::from_u32(CloseCode::Shutdown.into()), b"");
        }
        Ok(())
    }

    async fn shutdown(&self) {
        let (commands, _) = self.running();
        // An error means that the actor has ended already.
        let _ = commands.request(|reply| Command::Shutdown { reply }).await;
    }
}

/// Answers from the books of all topics and, if it runs, from mDNS. [`Discovery::spawn`] has added
/// the lookup to its endpoint. It may answer for another endpoint too, but it does not publish the
/// addresses of that one.
impl AddressLookup for Discovery {
    fn resolve(
        &self,
        id: iroh::EndpointId,
    ) -> Option<BoxStream<'static, Result<address_lookup::Item, address_lookup::Error>>> {
        self.lookup.resolve(id)
    }
}

fn random_u64() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::Endpoint(error.to_string()))
}

fn random_seed() -> Result<[u8; 32], Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Error::Endpoint(error.to_string()))?;
    Ok(seed)
}
