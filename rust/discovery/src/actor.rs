//! The actor: one task per endpoint that owns the protocol's state and carries out its effects.
//!
//! It never waits for a peer, a disk or a subscriber, because one slow peer would then delay all
//! others. Sends are queued or refused. Dials and writes to disk run in tasks of their own, which
//! report through one bounded channel.

mod admit;
mod ask;
mod connect;
mod invitations;
mod keep;
mod perform;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use iroh::{Endpoint, EndpointAddr, TransportAddr, Watcher, endpoint::QuicTransportConfig};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    access::Lists,
    barred::Barred,
    bootstrap::Bootstrap,
    claim::Claim,
    commands::{Command, JoinReply, LinkReply, Reply},
    config::Config,
    dial,
    door::Door,
    error::Error,
    inputs::Input,
    inquiry::Inquiry,
    joined::JoinedTopic,
    link::{Link, accept::Services},
    lookup::Lookup,
    metrics::Counters,
    names::search::{self, Search},
    network::{Network, Routes},
    proto::{
        CloseCode, DropReason, EndpointId, InEvent, LinkId, Profile, State, TopicId, TopicOptions,
    },
    published::Published,
    questions::Group,
    store::Store,
    topic::{JoinOptions, Topic},
};

/// Most inputs that wait for the actor. If the channel is full, the readers of links wait, so that
/// QUIC slows the peers down.
const INPUTS: usize = 256;
/// After this many inputs, or after `TURN`, the actor yields, so that other tasks run too.
const BATCH: usize = 64;
const TURN: Duration = Duration::from_millis(5);
/// Most links of one peer.
const MAX_LINKS_PER_PEER: usize = 4;
/// Most dials at a time.
const MAX_DIALS: usize = 128;
/// In a shutdown, links may drain for this long after the topics' leave timeout. Then they are cut.
const DRAIN: Duration = Duration::from_millis(400);
/// A shutdown waits this long for tasks that were told to end.
const CUT: Duration = Duration::from_millis(200);
/// After a failed write of the reserved sequence numbers, the next attempt comes this much later.
const RETRY: Duration = Duration::from_secs(1);

/// The requests that wait for a link to one peer.
#[derive(Debug)]
struct Connecting {
    topic: TopicId,
    replies: Vec<LinkReply>,
    /// Why the last dial failed; `None` if none has failed yet.
    reason: Option<String>,
}

pub(crate) struct Actor {
    endpoint: Endpoint,
    state: State,
    config: Config,
    transport: QuicTransportConfig,
    lookup: Lookup,
    lists: Lists,
    barred: Barred,
    door: Door,
    /// Held until the actor has ended: until then no second discovery may use the endpoint.
    pub(crate) claim: Option<Claim>,
    /// The questions to the application which peers may be members, if it is asked.
    pub(crate) inquiry: Option<Inquiry>,
    store: Option<Arc<Store>>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    dialing: BTreeMap<EndpointId, watch::Sender<BTreeSet<TransportAddr>>>,
    /// The requests that wait for a link, by peer.
    connecting: BTreeMap<EndpointId, Connecting>,
    services: Services,
    services_changed: Arc<Notify>,
    /// Makes the dials that are under way begin again.
    redial: Arc<Notify>,
    network: Network,
    topics: BTreeMap<TopicId, JoinedTopic>,
    /// Events that the state gets back for its own effects, without a task in between.
    echo: VecDeque<InEvent>,
    /// What was refused last, and from which peer: the reason if a link is closed right after it.
    refused: Option<(DropReason, Option<EndpointId>)>,
    /// When the ends of invitations are looked at; `None` if the swarm has none.
    look_at_invitations: Option<Instant>,
    inputs: mpsc::Sender<Input>,
    inputs_rx: Option<mpsc::Receiver<Input>>,
    tasks: TaskTracker,
    /// Cancels all dials, once no topic needs a link.
    stop_dials: CancellationToken,
    /// Cuts the links that still drain.
    cut_links: CancellationToken,
    counters: Arc<Counters>,
    /// When the shutdown must be over; `None` until one was requested.
    deadline: Option<Instant>,
    shutdown_replies: Vec<oneshot::Sender<()>>,
}

impl Actor {
    pub(crate) fn new(
        endpoint: Endpoint,
        state: State,
        config: Config,
        transport: QuicTransportConfig,
        lookup: Lookup,
        store: Option<Store>,
        door: Door,
    ) -> Self {
        let (inputs, inputs_rx) = mpsc::channel(INPUTS);
        let (lists, barred, counters, problems) = door.shared();
        let network = Network::new(endpoint.clone(), &config, problems);
        Self {
            services: Services::new(lookup.clone(), counters.clone()),
            services_changed: Arc::default(),
            redial: Arc::default(),
            connecting: BTreeMap::new(),
            endpoint,
            state,
            config,
            transport,
            lookup,
            lists,
            barred,
            door,
            claim: None,
            inquiry: None,
            store: store.map(Arc::new),
            links: BTreeMap::new(),
            next_link: 0,
            dialing: BTreeMap::new(),
            network,
            topics: BTreeMap::new(),
            echo: VecDeque::new(),
            refused: None,
            look_at_invitations: None,
            inputs,
            inputs_rx: Some(inputs_rx),
            tasks: TaskTracker::new(),
            stop_dials: CancellationToken::new(),
            cut_links: CancellationToken::new(),
            counters,
            deadline: None,
            shutdown_replies: Vec::new(),
        }
    }

    /// Runs until a shutdown, until the endpoint closes, or until the last handle is dropped.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut inputs = self.inputs_rx.take().expect("an actor runs once");
        let mut addresses = self.endpoint.watch_addr();
        let mut relays = self.endpoint.home_relay_status();
        let mut network_changes = self.network.start().await;
        let mut endpoint_closed = pin!(self.endpoint.closed());
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut commands_open = true;
        let services_changed = self.services_changed.clone();
        let questions = self.inquiry.as_ref().map(Inquiry::questions);
        self.keep_writing();
        self.begin_looking();
        self.set_addresses(&addresses.get());
        while !self.is_done() {
            let due = self.due();
            if let Some(due) = due
                && due != timer.deadline()
            {
                timer.as_mut().reset(due);
            }
            // The runtime's timers round up to the next millisecond. What is due now must not wait
            // for that.
            let is_due = due.is_some_and(|due| due <= Instant::now());
            let waiting = async {
                if !is_due {
                    timer.as_mut().await;
                }
            };
            tokio::select! {
                command = commands.recv(), if commands_open => {
                    if let Some(command) = command {
                        self.command(command);
                    } else {
                        commands_open = false;
                        self.shutdown();
                    }
                }
                Some(input) = inputs.recv() => {
                    self.input(input);
                    self.more_inputs(&mut inputs);
                    self.apply_answers();
                    tokio::task::yield_now().await;
                }
                () = services_changed.notified() => self.announce_services(),
                () = async { questions.as_ref().expect("it is there").changed().await },
                    if questions.is_some() => self.ask_more(),
                () = waiting, if due.is_some() => self.timer(),
                Ok(address) = addresses.updated() => self.set_addresses(&address),
                Ok(status) = relays.updated() => {
                    if self.network.has_relay_back(&status) {
                        self.network_changed(false);
                    }
                }
                Some(change) = network_changes.recv() => {
                    let changed = self.network.take(change);
                    self.set_addresses(&addresses.get());
                    if let Some(routes) = changed {
                        self.network_changed(routes == Routes::Away);
                    }
                }
                () = endpoint_closed.as_mut() => break,
            }
        }
        drop(inputs);
        self.finish().await;
    }

    /// Handles the other inputs that have arrived, up to the limits of one turn.
    fn more_inputs(&mut self, inputs: &mut mpsc::Receiver<Input>) {
        let end = Instant::now() + TURN;
        for _ in 1..BATCH {
            let Ok(input) = inputs.try_recv() else { return };
            self.input(input);
            if Instant::now() >= end {
                break;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.deadline.is_some_and(|deadline| {
            (self.topics.is_empty() && self.links.is_empty()) || Instant::now() >= deadline
        })
    }

    fn due(&self) -> Option<Instant> {
        let retry = self.inquiry.as_ref().and_then(Inquiry::due);
        let due = self.state.next_timer().into_iter().chain(self.deadline).chain(retry);
        due.chain(self.look_at_invitations).min()
    }

    fn timer(&mut self) {
        if self.state.next_timer().is_some_and(|due| due <= Instant::now()) {
            self.handle_own(InEvent::Timer);
        }
        self.ask_again();
        self.end_invitations();
    }

    /// Ends what is left: topics that did not close, links that did not drain, and writes to disk.
    async fn finish(mut self) {
        for topic in std::mem::take(&mut self.topics).into_values() {
            self.lookup.remove(&topic.published.topic.id());
            topic.close();
        }
        self.stop_dials.cancel();
        self.cut_links.cancel();
        self.links.clear();
        self.tasks.close();
        if timeout(CUT, self.tasks.wait()).await.is_err() {
            warn!(tasks = self.tasks.len(), "tasks still run after the shutdown");
        }
        // They are released before the replies, because a caller that gets one may open the state
        // directory again at once.
        drop((self.store.take(), self.claim.take()));
        for reply in std::mem::take(&mut self.shutdown_replies) {
            let _ = reply.send(());
        }
    }

    fn set_addresses(&mut self, address: &EndpointAddr) {
        let announced = self.network.announce(address);
        self.handle_own(InEvent::SetAddresses(announced));
    }

    /// This machine's network changed. Links may have broken, and what dials sent is lost, so those
    /// that are under way begin again.
    fn network_changed(&mut self, away: bool) {
        self.handle_own(InEvent::NetworkChanged { away });
        if !away {
            self.redial.notify_waiters();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join { topic, options, reply } => self.join(topic, *options, reply),
            Command::Profile { topic, reply } => {
                let base = self.topics.get(&topic).map(|joined| joined.base.clone());
                let _ = reply.send(base);
            }
            Command::SetProfile { topic, profile, reply } => {
                self.set_profile(topic, profile, reply);
            }
            Command::AddBootstrap { topic, peers, reply } => {
                let _ = reply.send(self.add_bootstrap(topic, &peers));
            }
            Command::Broadcast { topic, channel, data, reply } => {
                let sent = self.handle(InEvent::Broadcast(topic, channel, data));
                let _ = reply.send(sent.map_err(Error::from));
            }
            Command::Link { topic, peer, reply } => self.connect(topic, peer, reply),
            Command::Leave { topic, reply } => self.leave(topic, reply),
            Command::ChangeAccess { change, peer, reply } => {
                self.change_access(change, peer, reply);
            }
            Command::Revoke { revocation, reply } => self.revoke(*revocation, reply),
            Command::Renew { invitation, reply } => {
                let _ = reply.send(self.renew(*invitation));
            }
            Command::Accepted(connection) => self.open_link(connection, false),
            Command::Sever { reply } => {
                self.sever();
                let _ = reply.send(());
            }
            Command::Shutdown { reply } => {
                self.shutdown_replies.push(reply);
                self.shutdown();
            }
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Frame(link, lane, frame) => {
                self.counters.frame_received();
                self.handle_own(InEvent::Received(link, lane, frame));
            }
            Input::Acknowledged(link) => self.handle_own(InEvent::Acknowledged(link)),
            Input::Closed(link, end) => self.link_closed(link, end),
            Input::Dialed(peer, connection) => {
                self.dialing.remove(&peer);
                self.lookup.end_dial(&peer);
                self.counters.dial_ended(connection.is_ok());
                match connection {
                    Ok(connection) => self.open_link(connection, true),
                    Err(reason) => {
                        self.explain(&peer, &reason);
                        if let Some(connecting) = self.connecting.get_mut(&peer) {
                            connecting.reason = Some(reason.clone());
                        }
                        self.unanswered(&peer, &reason);
                        self.handle_own(InEvent::DialFailed(peer));
                    }
                }
            }
            Input::Used(link, reply) => self.hold(link, reply),
            Input::Unused(link) => self.release(link),
            Input::Found(topic, peer, addresses) if !self.lists.admits(&peer) => {
                self.found_outside(topic, peer, addresses, Group::Hearsay);
            }
            Input::Found(topic, peer, addresses) => {
                if let Some(joined) = self.topics.get(&topic) {
                    joined.published.contact.asks([peer]);
                }
                self.handle_own(InEvent::Found(topic, peer, addresses));
            }
            Input::Remembered(topic, kept) => self.remember(topic, kept),
            Input::Learned(topic, peer, at) => {
                if let Some(joined) = self.topics.get_mut(&topic) {
                    joined.learned(at);
                }
                let address = TransportAddr::Ip(at);
                if self.lists.admits(&peer) {
                    self.handle_own(InEvent::Learned(topic, peer, address));
                } else {
                    self.found_outside(topic, peer, vec![address], Group::Named);
                }
            }
            Input::Answered(id, answer) => self.answered(id, answer),
            Input::Reserved(end) => self.handle_own(InEvent::SequencesReserved(end)),
        }
    }

    /// Warns that a peer's endpoint serves no discovery: its owner forgot to add it to the router.
    fn explain(&self, peer: &EndpointId, reason: &str) {
        if dial::is_not_served(reason) {
            let source = format!("peer {}", peer.fmt_short());
            let what = "does not serve discovery: its router needs `.accept(ALPN, discovery)`";
            self.network.problems().raise(source, what);
            self.counters.dropped(DropReason::DialsToPeersThatDoNotServeDiscovery, Some(*peer));
        }
    }

    fn join(&mut self, topic: Topic, options: JoinOptions, reply: JoinReply) {
        if self.deadline.is_some() {
            let _ = reply.send(Err(Error::Closed));
            return;
        }
        let id = topic.id();
        if self.topics.contains_key(&id) {
            let _ = reply.send(Err(Error::AlreadyJoined(id)));
            return;
        }
        if self.door.invited().is_some_and(|invited| invited.topic() != id) {
            let reason = "is not the one that this endpoint is invited to";
            let _ = reply.send(Err(Error::invalid("topic", reason)));
            return;
        }
        if let Err(error) = Bootstrap::check_all(&options.bootstrap, &id) {
            let _ = reply.send(Err(error));
            return;
        }
        let own = self.endpoint.id().into();
        let published = Arc::new(Published::new(
            topic,
            own,
            &self.config,
            self.counters.clone(),
            self.services_changed.clone(),
        ));
        let others = options.bootstrap.iter().filter_map(Bootstrap::id).filter(|peer| *peer != own);
        published.contact.asks(others);
        if self.config.mdns {
            published.contact.listens();
        }
        for reason in self.store.iter().flat_map(|store| store.damages()) {
            published.damaged(reason);
        }
        self.topics.insert(id, JoinedTopic::new(published.clone(), options.profile.clone(), reply));
        let topic_options =
            TopicOptions { profile: options.profile, config: self.config.protocol.clone() };
        if let Err(error) = self.handle(InEvent::Join(id, Box::new(topic_options))) {
            if let Some(topic) = self.topics.remove(&id) {
                topic.refuse(error.into());
            }
            return;
        }
        let announces = !self.config.protocol.observer;
        let find = || self.network.find_members(id, self.inputs.clone(), announces);
        let mdns = self.config.mdns.then(find);
        self.lookup.add(published, mdns.as_ref().map(|mdns| mdns.sight.clone()));
        if let Some(topic) = self.topics.get_mut(&id) {
            topic.mdns = mdns;
        }
        self.load_revocations(id);
        self.load_book(id);
        if let Err(error) = self.add_bootstrap(id, &options.bootstrap) {
            warn!(topic = %id.fmt_short(), reason = %error, "bootstrap peers not added");
        }
    }

    fn set_profile(&mut self, topic: TopicId, profile: Profile, reply: Reply) {
        let Some(joined) = self.topics.get_mut(&topic) else {
            let _ = reply.send(Err(Error::Closed));
            return;
        };
        // The reply is queued before the state handles the profile, which may announce it at once.
        let base = std::mem::replace(&mut joined.base, profile);
        let profile = joined.with_services();
        joined.announcing.push_back((profile.clone(), reply));
        let result = self.handle(InEvent::SetProfile(topic, profile));
        let Some(joined) = self.topics.get_mut(&topic) else { return };
        if result.is_err() {
            joined.base = base;
        }
        match result {
            Err(error) => {
                // Nothing was announced, so the reply is still the last one in the queue.
                if let Some((_, reply)) = joined.announcing.pop_back() {
                    let _ = reply.send(Err(error.into()));
                }
            }
            Ok(()) => joined.settle_unchanged(),
        }
    }

    fn add_bootstrap(&mut self, topic: TopicId, peers: &[Bootstrap]) -> Result<(), Error> {
        let own = EndpointId::from(self.endpoint.id());
        let joined = self.topics.get_mut(&topic).ok_or(Error::Closed)?;
        let new = joined.add_bootstrap(peers, &own)?;
        joined.published.contact.asks(new.known.iter().map(|(peer, _)| *peer));
        for _ in 0..new.refused {
            self.counters.dropped(DropReason::BootstrapPeersOverTheLimit, None);
        }
        if !new.aged_out.is_empty() {
            for peer in &new.aged_out {
                self.counters.dropped(DropReason::BootstrapPeersAgedOut, Some(*peer));
            }
            self.handle(InEvent::RemoveBootstrap(topic, new.aged_out))?;
        }
        if !new.known.is_empty() {
            self.handle(InEvent::AddBootstrap(topic, new.known))?;
        }
        self.explain_bootstrap_kept_out();
        self.look_for_undecided();
        self.look_for_names(topic, peers);
        Ok(())
    }

    /// Begins to look for members behind names.
    fn look_for_names(&mut self, topic: TopicId, peers: &[Bootstrap]) {
        let Some(joined) = self.topics.get_mut(&topic) else { return };
        let (names, refused) = joined.new_names(peers);
        for _ in 0..refused {
            self.counters.dropped(DropReason::BootstrapNamesOverTheLimit, None);
        }
        for name in names {
            let config = &self.config.protocol;
            let search = search::start(Search {
                name: name.clone(),
                topic,
                own: self.endpoint.id().into(),
                published: joined.published.clone(),
                place: self.network.place(),
                problems: self.network.problems().clone(),
                inputs: self.inputs.clone(),
                retry: (config.redial_min, config.redial_max),
            });
            joined.names.insert(name, search);
        }
    }

    /// Tells all topics that a peer can't be reached, or that it refused this node.
    fn unanswered(&self, peer: &EndpointId, reason: &str) {
        // If the lists keep the peer out, that is the reason, whatever else happened to its link.
        let reason = self.lists.reason(peer).unwrap_or(reason);
        for joined in self.topics.values() {
            joined.published.contact.unanswered(peer, reason);
            // Once other members are met, a bootstrap peer that does not answer is no problem.
            if joined.is_bootstrap(peer) && joined.published.book().is_empty() {
                let source = format!("bootstrap {}", peer.fmt_short());
                self.network.problems().raise(source, format!("does not answer: {reason}"));
            }
        }
    }

    /// A member was met, so bootstrap peers that did not answer are no longer a problem.
    fn forget_silent(&self, topic: TopicId) {
        let problems = self.network.problems();
        let Some(joined) = self.topics.get(&topic) else { return };
        for problem in problems.list() {
            if joined
                .bootstrap_ids()
                .any(|id| problem.source == format!("bootstrap {}", id.fmt_short()))
            {
                problems.clear(&problem.source);
            }
        }
    }

    fn leave(&mut self, topic: TopicId, reply: oneshot::Sender<()>) {
        let Some(joined) = self.topics.get_mut(&topic) else {
            let _ = reply.send(());
            return;
        };
        joined.leaving.push(reply);
        if joined.leaving.len() == 1 {
            self.handle_own(InEvent::Leave(topic));
        }
    }

    fn shutdown(&mut self) {
        if self.deadline.is_some() {
            return;
        }
        self.deadline = Some(Instant::now() + self.config.protocol.leave_timeout + DRAIN);
        for topic in self.topics.keys().copied().collect::<Vec<_>>() {
            if self.topics.get(&topic).is_some_and(|joined| joined.leaving.is_empty()) {
                self.handle_own(InEvent::Leave(topic));
            }
        }
        self.end_links();
    }

    /// Returns true if a shutdown has closed all topics. Until then even a dial may be needed: a
    /// node without any link dials members to tell them that it leaves.
    fn is_ending(&self) -> bool {
        self.deadline.is_some() && self.topics.is_empty()
    }

    fn end_links(&mut self) {
        if self.is_ending() {
            self.stop_dials.cancel();
            for link in self.links.values_mut() {
                link.close(CloseCode::Shutdown);
            }
        }
    }
}

/// However the actor ends, even by a panic, its topics close, so that no subscriber waits forever.
impl Drop for Actor {
    fn drop(&mut self) {
        for (id, topic) in &self.topics {
            self.lookup.remove(id);
            topic.published.close();
        }
    }
}
