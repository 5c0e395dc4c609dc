//! Many nodes and the network between them: the queue of future events, and the clock.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{
    Config, DropReason, EndpointId, Identity, InEvent, Lane, LinkEnd, LinkId, NodeRecord, OutEvent,
    Profile, Rule, SignedRecord, State, TopicEvent, TopicId, TopicOptions, Verified,
};
use rand::RngExt;

/// Makes what the transport uses of the network during one call.
macro_rules! env {
    ($network:ident) => {
        &mut $crate::transport::Env {
            engine: &mut $network.engine,
            conditions: &$network.conditions,
        }
    };
}
pub(crate) use env;

use crate::{
    address::{address, node_at},
    clock::{Nanos, nanos},
    conditions::Conditions,
    cpu::{Costs, Job, Processors},
    engine::Engine,
    hostile::Hostile,
    link::{LinkNumber, Side},
    multicast::Multicast,
    node::{Behavior, Node},
    observed::{Failure, MAX_FAILURES, Observed},
    queue::SimEvent,
    roster::Roster,
    sent::Sent,
    trace::Trace,
    transport::{Arrival, Transport},
    truth::{self, Truth},
    turncoat::{Malice, Turncoat},
};

/// How many sequence numbers are reserved on disk ahead of their use.
const RESERVED: u64 = 4096;
/// The time of the wall clocks at the start, in microseconds since 1970.
const EPOCH_MICROS: u64 = 1_767_225_600_000_000;

/// What a node still has after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Memory {
    /// Its sequence numbers, and the addresses that it knew before.
    Kept,
    /// Only its key: the sequence numbers start at the wall clock.
    Lost,
}

/// Why [`Network::run_to`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// The condition holds.
    Done,
    /// The time limit is reached.
    Time,
    /// The limit of steps is reached.
    Steps,
}

/// Many nodes and the network between them.
#[derive(Debug)]
pub struct Network {
    /// All nodes, by number.
    pub nodes: Vec<Node>,
    /// The conditions of the network, which may be changed at any time.
    pub conditions: Conditions,
    /// The failures of the checks at every step, and of those that a caller requested.
    pub failures: Vec<Failure>,
    /// What applications saw, and what of it was wrong.
    pub observed: Observed,
    /// A rule of the protocol that is switched off at all nodes that start from now on.
    pub disabled_rule: Option<Rule>,
    /// The number of events that were handled.
    pub steps: u64,
    pub(crate) topic: TopicId,
    /// The first node on the host of each node.
    hosts: Vec<usize>,
    pub(crate) engine: Engine,
    pub(crate) transport: Transport,
    pub(crate) roster: Roster,
    trace: Trace,
    processors: Processors,
    multicast: Multicast,
    /// Events that nodes handled, of any kind.
    fed: u64,
    verified: Arc<Verified>,
    /// Empty, and kept for its memory: what a node wants done.
    outputs: Vec<OutEvent>,
    /// True if something happened since `done` of [`Network::run_to`] was last asked.
    noteworthy: bool,
    /// A node whose book was not right at the last check.
    doubtful: std::cell::Cell<usize>,
}

impl Network {
    /// Makes a network without nodes. All random choices follow from `seed`.
    ///
    /// # Panics
    /// Never: the topic's name is valid.
    #[must_use]
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            nodes: Vec::new(),
            conditions,
            failures: Vec::new(),
            observed: Observed::default(),
            disabled_rule: None,
            steps: 0,
            topic: TopicId::from_name("simulated").expect("a good name"),
            hosts: Vec::new(),
            engine: Engine::new(seed),
            transport: Transport::default(),
            roster: Roster::default(),
            trace: Trace::default(),
            processors: Processors::default(),
            multicast: Multicast::default(),
            fed: 0,
            verified: Arc::default(),
            outputs: Vec::new(),
            noteworthy: false,
            doubtful: std::cell::Cell::new(0),
        }
    }

    /// Lets all random choices from now on follow from this seed: those of the network, and those
    /// of the nodes' protocol except the overlay's own. That includes the keys of new nodes and the
    /// latencies of new links.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.engine.reseed(seed);
        for node in &mut self.nodes {
            if let Behavior::Honest(state) = &mut node.behavior {
                state.reseed(self.engine.rng.random());
            }
        }
    }

    /// Lets all nodes, which have just started, know each other by the records that they announced.
    pub fn preload(&mut self) {
        let now = self.engine.clock.instant();
        let own = |node: &Node| Some(node.state()?.own_record(&self.topic)?.clone());
        let mut records: Vec<_> = self.nodes.iter().filter_map(own).collect();
        let number = |signed: &SignedRecord| self.roster.number(&signed.record().id);
        let held: Vec<_> = records
            .iter()
            .filter_map(|signed| Some((number(signed)?, Arc::clone(signed.record()))))
            .collect();
        // In order once, and not for each node's book.
        records.sort_unstable_by_key(|signed| signed.record().id);
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            let Behavior::Honest(state) = &mut node.behavior else { continue };
            state.preload(&self.topic, &records, now);
            let next = state.next_timer().map(|at| self.engine.clock.nanos_of(at));
            node.book.preload(&held, node.peer, &self.roster);
            self.check_digest(number);
            if let Some(at) = next {
                self.wake_at(number, at);
            }
        }
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.engine.clock.now)
    }

    /// Returns the topic that all nodes join.
    #[must_use]
    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// Returns a hash over all frames and their times. The same seed gives the same hash.
    #[must_use]
    pub fn trace_hash(&self) -> [u8; 32] {
        self.trace.whole()
    }

    /// Returns a hash as [`Network::trace_hash`] does, but without the content of frames: over
    /// their times, links and lengths.
    #[must_use]
    pub fn shape_hash(&self) -> [u8; 32] {
        self.trace.shape()
    }

    /// Adds a node that is down.
    pub fn add(&mut self) -> usize {
        let number = self.nodes.len();
        let key = self.key(number as u64, 0);
        self.add_with_key(key)
    }

    /// Adds a node that is down and has the same key as another.
    pub fn add_clone(&mut self, of: usize) -> usize {
        let key = self.nodes[of].key.clone();
        self.add_with_key(key)
    }

    /// Adds a node that is down, on the host of another one.
    pub fn add_at_host(&mut self, of: usize) -> usize {
        let number = self.add();
        self.hosts[number] = self.hosts[of];
        number
    }

    fn add_with_key(&mut self, key: SigningKey) -> usize {
        let number = self.nodes.len();
        let peer = self.enlist(&key, number);
        let node = Node::new(key, peer);
        self.transport.add(node.id);
        self.nodes.push(node);
        self.hosts.push(number);
        number
    }

    /// Returns the address of a node.
    pub(crate) fn address(&self, number: usize) -> TransportAddr {
        address(self.hosts[number], number)
    }

    /// Returns a key that follows from the seed.
    pub(crate) fn key(&self, number: u64, generation: u64) -> SigningKey {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        secret[8..16].copy_from_slice(&self.engine.seed.to_le_bytes());
        secret[16..24].copy_from_slice(&generation.to_le_bytes());
        SigningKey::from_bytes(&secret)
    }

    pub(crate) fn enlist(&mut self, key: &SigningKey, number: usize) -> usize {
        let peer = self.roster.enlist(EndpointId::from_bytes(key.verifying_key().to_bytes()));
        self.roster.peers[peer].nodes.push(number);
        peer
    }

    /// Returns the wall clock of a node, in microseconds since 1970.
    #[must_use]
    pub fn wall_clock(&self, number: usize) -> u64 {
        let now = EPOCH_MICROS + self.engine.clock.now / 1000;
        now.saturating_add_signed(self.nodes[number].clock_offset)
    }

    /// Starts a node for the first time, from these bootstrap peers.
    pub fn boot(&mut self, number: usize, config: Config, bootstrap: &[usize]) {
        let sequence = self.wall_clock(number);
        self.start(number, sequence, config, bootstrap);
    }

    /// Starts a node, for the first time or again, with the same key and `sequence` as its first
    /// number.
    pub fn start(&mut self, number: usize, sequence: u64, config: Config, bootstrap: &[usize]) {
        let peers = bootstrap.iter().map(|b| (self.nodes[*b].id, vec![self.address(*b)])).collect();
        self.start_from(number, sequence, config, peers);
    }

    pub(crate) fn start_from(
        &mut self,
        number: usize,
        sequence: u64,
        config: Config,
        peers: Vec<(EndpointId, Vec<TransportAddr>)>,
    ) {
        if self.nodes[number].is_up() {
            self.crash(number);
        }
        let seed: [u8; 32] = self.engine.rng.random();
        let now = self.engine.clock.instant();
        let origins = peers.iter().filter_map(|(id, _)| self.roster.number(id)).collect();
        let node = &mut self.nodes[number];
        node.lives += 1;
        let identity = Identity {
            key: node.key.clone(),
            boot_id: (number as u64 + 1) << 32 | node.lives,
            sequence,
            reserved: sequence + RESERVED,
        };
        node.reserved = identity.reserved;
        node.config = config.clone();
        node.book.clear();
        node.events.clear();
        node.heard.clear();
        node.own = None;
        node.leaving = false;
        node.strayed = false;
        node.isolated = false;
        node.origins = origins;
        let state = State::new(identity, seed, now).sharing(Arc::clone(&self.verified));
        let state = match self.disabled_rule {
            Some(rule) => state.without(rule),
            None => state,
        };
        node.behavior = Behavior::Honest(Box::new(state));
        self.transport.up(number, node.lives);
        let profile = Profile::new(format!("node-{number}"));
        let options = Box::new(TopicOptions { profile, config });
        self.feed(number, InEvent::SetAddresses(vec![self.address(number)]));
        self.feed(number, InEvent::Join(self.topic, options));
        if !peers.is_empty() {
            self.feed(number, InEvent::AddBootstrap(self.topic, peers));
        }
        if self.conditions.multicast {
            self.announce_by_multicast(number);
            let mut others = self.up();
            others.retain(|other| *other != number);
            self.multicast.ask(number, &others, env!(self));
        }
    }

    /// Starts hostile code at a node that is down.
    pub fn start_hostile(&mut self, number: usize, hostile: Box<dyn Hostile>) {
        if self.nodes[number].is_up() {
            self.crash(number);
        }
        let node = &mut self.nodes[number];
        node.lives += 1;
        node.behavior = Behavior::Hostile(hostile);
        self.transport.up(number, node.lives);
        let peer = node.peer;
        self.roster.peers[peer].hostile = true;
    }

    /// Lets a member that runs the protocol turn hostile.
    ///
    /// # Panics
    /// If the node does not run the protocol.
    pub fn turn(&mut self, number: usize, malice: Malice) {
        let now = self.engine.clock.instant();
        let behavior = std::mem::replace(&mut self.nodes[number].behavior, Behavior::Down);
        let Behavior::Honest(state) = behavior else { panic!("node {number} is not honest") };
        let ids = self.nodes.iter().map(|node| node.id);
        let links = ids.filter_map(|id| Some((id, state.link(&id)?))).collect();
        let turncoat = Turncoat::new(state, self.topic, malice, links, now);
        self.nodes[number].behavior = Behavior::Hostile(Box::new(turncoat));
        let peer = self.nodes[number].peer;
        self.update_truth(peer);
        self.roster.peers[peer].hostile = true;
        for node in self.nodes.iter_mut().filter(|node| node.is_honest()) {
            node.book.honest -= usize::from(node.book.has(peer));
        }
        self.wake_at(number, self.engine.clock.now);
    }

    /// Returns the neighbors of a node, by number. A hostile node has none.
    #[must_use]
    pub fn neighbors(&self, number: usize) -> Vec<usize> {
        let inspect = self.nodes[number].state().and_then(|state| state.inspect(&self.topic));
        let neighbors = inspect.map(|inspect| inspect.neighbors).unwrap_or_default();
        let peers = neighbors.iter().filter_map(|id| self.roster.number(id));
        peers.filter_map(|peer| self.roster.peers[peer].nodes.first().copied()).collect()
    }

    /// Gives an event of the application to a node.
    pub fn command(&mut self, number: usize, event: impl FnOnce(TopicId) -> InEvent) {
        let event = event(self.topic);
        if matches!(event, InEvent::Leave(_)) {
            self.says_goodbye(number);
        }
        self.feed(number, event);
    }

    fn says_goodbye(&mut self, number: usize) {
        self.nodes[number].leaving = true;
        let peer = self.nodes[number].peer;
        self.roster.peers[peer].left = true;
        self.update_truth(peer);
    }

    /// Runs until `done` returns true, or `limit` of virtual time has passed. Returns true if it
    /// was done. `done` is asked whenever an application would have seen something.
    pub fn run_until(&mut self, limit: Duration, done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.elapsed().saturating_add(limit);
        self.run_to(end, u64::MAX, done) == RunEnd::Done
    }

    /// As [`Network::run_until`], to a time since the start, for at most `steps` steps.
    pub fn run_to(
        &mut self,
        end: Duration,
        steps: u64,
        mut done: impl FnMut(&Self) -> bool,
    ) -> RunEnd {
        let end = nanos(end);
        let most = self.steps.saturating_add(steps);
        self.noteworthy = true;
        loop {
            if std::mem::take(&mut self.noteworthy) && done(self) {
                return RunEnd::Done;
            }
            match self.engine.queue.next() {
                Some(at) if at <= end && self.steps < most => self.step(),
                Some(at) if at <= end => return RunEnd::Steps,
                _ => {
                    self.engine.clock.now = end.max(self.engine.clock.now);
                    return if done(self) { RunEnd::Done } else { RunEnd::Time };
                }
            }
        }
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Returns true if all nodes that are up have the same book as all others in their part of the
    /// network: each other's current records, no more.
    #[must_use]
    pub fn converged(&self) -> bool {
        let from = self.doubtful.get().min(self.nodes.len());
        let wrong = (from..self.nodes.len()).chain(0..from).find(|number| !self.is_right(*number));
        self.doubtful.set(wrong.unwrap_or(0));
        wrong.is_none()
    }

    /// Returns true if the book of a node is right, or the node is down or leaving.
    #[must_use]
    pub fn is_right(&self, number: usize) -> bool {
        self.truth().is_right(number)
    }

    /// Returns true if the book of a node has every node that is up within reach, or if that node
    /// is itself down or leaving.
    #[must_use]
    pub fn knows_all(&self, number: usize) -> bool {
        self.truth().knows_all(number)
    }

    /// Returns true if all others within reach hold a node's current record, or, if it isn't there,
    /// none.
    #[must_use]
    pub fn is_known(&self, number: usize) -> bool {
        self.truth().is_known(number)
    }

    fn truth(&self) -> Truth<'_> {
        Truth { nodes: &self.nodes, roster: &self.roster, cuts: self.transport.cuts() }
    }

    /// Updates the truth about an identity, and by it, which entries of books are right.
    pub(crate) fn update_truth(&mut self, peer: usize) {
        let cuts = self.transport.cuts();
        self.noteworthy |= truth::update(peer, &mut self.nodes, &mut self.roster, cuts);
    }

    /// Returns what all nodes sent so far.
    pub fn sent(&mut self) -> Sent {
        self.transport.sent(env!(self))
    }

    /// Returns what one node sent so far, over all of its lives.
    #[must_use]
    pub fn sent_by(&self, number: usize) -> Sent {
        self.transport.sent_by(number)
    }

    /// Returns true if a node has another one in its book.
    #[must_use]
    pub fn knows(&self, number: usize, other: usize) -> bool {
        self.nodes[number].book.has(self.nodes[other].peer)
    }

    pub(crate) fn fail(&mut self, node: Option<usize>, check: &'static str, text: String) {
        if self.failures.len() < MAX_FAILURES {
            let at = self.elapsed();
            self.failures.push(Failure { seed: self.engine.seed, at, node, check, text });
        }
    }

    fn step(&mut self) {
        let Some((at, event)) = self.engine.queue.pop() else { return };
        self.engine.clock.now = at.max(self.engine.clock.now);
        self.steps += 1;
        self.dispatch(event);
    }

    /// Hands an event to its node, at once or as soon as a core is free for it.
    pub(crate) fn dispatch(&mut self, event: SimEvent) {
        let worker = if self.processors.are_limited() { self.worker_of(&event) } else { None };
        match (event, worker) {
            (SimEvent::Core(machine), _) => self.work(machine),
            (event, Some(node)) => {
                let left = self.processors.tasks_before(&event);
                let machine = self.processors.enqueue(node, left, event);
                self.work(machine);
            }
            (event, None) => self.handle(event),
        }
    }

    /// The node that has to work on an event.
    fn worker_of(&self, event: &SimEvent) -> Option<usize> {
        match event {
            SimEvent::Wake(node)
            | SimEvent::DialFailed { from: node, .. }
            | SimEvent::Heard { by: node, .. } => Some(*node),
            SimEvent::Dialed(dial) => Some(dial.target),
            SimEvent::Opened(link, side)
            | SimEvent::Frame(link, side, ..)
            | SimEvent::Acknowledged(link, side)
            | SimEvent::Closed(link, side, _) => self.transport.node_at_end(*link, *side),
            SimEvent::Core(_)
            | SimEvent::Announces(_)
            | SimEvent::TimedOut(..)
            | SimEvent::Silent(..) => None,
        }
    }

    /// Lets the free cores of a machine work on what waits.
    fn work(&mut self, machine: usize) {
        let now = self.engine.clock.now;
        while let Some(job) = self.processors.next(machine, now) {
            let (place, left) = (job.place(), job.tasks_left);
            let cost = if left > 0 {
                self.processors.enqueue(job.node, left - 1, job.event);
                self.processors.cost_of_passing()
            } else {
                self.work_on(job)
            };
            self.processors.charge(place, cost, now);
        }
        if let Some(at) = self.processors.look_again(machine, now) {
            self.engine.queue.push(at, SimEvent::Core(machine));
        }
    }

    /// Hands an event to its node's protocol. Returns what that costs.
    fn work_on(&mut self, Job { node, event, .. }: Job) -> Nanos {
        // Both ends of a new link work on its handshake.
        let is_handshake = match &event {
            SimEvent::Dialed(dial) => self.nodes[dial.target].is_up(),
            SimEvent::Opened(_, side) => *side == 0,
            _ => false,
        };
        let passed = self.processors.tasks_before(&event);
        let (fed, verified) = (self.fed, self.verified_by(node));
        self.handle(event);
        if !is_handshake && self.fed == fed {
            return 0;
        }
        let verified = self.verified_by(node).saturating_sub(verified);
        self.processors.cost_of(is_handshake, passed, verified)
    }

    fn verified_by(&self, node: usize) -> u64 {
        self.nodes[node].state().map_or(0, |state| state.counts().verifications)
    }

    /// All others within reach hear of a node, unless they heard of it before.
    fn announce_by_multicast(&mut self, of: usize) {
        let cuts = self.transport.cuts();
        let reached = |by: &usize| *by != of && !cuts.is_cut(of, *by);
        let others = self.up().into_iter().filter(reached).collect();
        self.multicast.announce((of, self.nodes[of].lives), others, env!(self));
    }

    fn on_heard(&mut self, by: usize, of: usize) {
        let found = InEvent::Found(self.topic, self.nodes[of].id, vec![self.address(of)]);
        self.feed(by, found);
    }

    /// From now on, work costs time.
    pub fn set_costs(&mut self, costs: Costs) {
        self.processors = Processors::new(costs);
    }

    /// The time for which cores worked, of all machines together.
    #[must_use]
    pub fn worked(&self) -> Duration {
        Duration::from_nanos(self.processors.worked)
    }

    /// Syncs that all nodes began, in their present lives.
    #[must_use]
    pub fn syncs_begun(&self) -> u64 {
        let states = self.nodes.iter().filter_map(Node::state);
        states.map(|state| state.counts().syncs_started).sum()
    }

    /// Returns the number of open connections between two nodes.
    #[must_use]
    pub fn connections(&self, a: usize, b: usize) -> usize {
        self.transport.connections(a, b)
    }

    /// Breaks one of the open connections, chosen by the seed. Both ends are told that it was lost.
    pub fn break_a_connection(&mut self) {
        self.transport.break_a_connection(env!(self));
    }

    /// Iterates over the nodes that are up and run the protocol.
    #[must_use]
    pub fn up(&self) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| matches!(node.behavior, Behavior::Honest(_)))
            .map(|(n, _)| n)
            .collect()
    }

    pub(crate) fn handle(&mut self, event: SimEvent) {
        match event {
            SimEvent::Core(machine) => self.work(machine),
            SimEvent::Wake(number) => self.on_wake(number),
            SimEvent::Dialed(dial) => self.transport.on_dialed(*dial, env!(self)),
            SimEvent::DialFailed { from, life, to } => {
                if self.nodes[from].lives == life {
                    self.feed(from, InEvent::DialFailed(to));
                }
            }
            SimEvent::Announces(number) => self.announce_by_multicast(number),
            SimEvent::Heard { by, of } => self.on_heard(by, of),
            SimEvent::Opened(link, side) => {
                let address = |node: usize| address(self.hosts[node], node);
                let arrival = self.transport.on_opened(link, side, address, env!(self));
                self.deliver(arrival);
            }
            SimEvent::Frame(link, side, lane, bytes) => {
                let arrival = self.transport.on_frame(link, side, (lane, bytes), env!(self));
                self.deliver(arrival);
            }
            SimEvent::Acknowledged(link, side) => {
                let arrival = self.transport.on_acknowledged(link, side);
                self.deliver(arrival);
            }
            SimEvent::Closed(link, side, end) => self.on_closed(link, side, end),
            SimEvent::TimedOut(link, side, epoch) => {
                let arrival = self.transport.on_timed_out(link, side, epoch, env!(self));
                self.deliver(arrival);
            }
            SimEvent::Silent(link, side, epoch) => {
                let arrival = self.transport.on_silent(link, side, epoch, env!(self));
                self.deliver(arrival);
            }
        }
    }

    pub(crate) fn on_closed(&mut self, link: LinkNumber, side: Side, end: LinkEnd) {
        let arrival = self.transport.on_closed(link, side, end, env!(self));
        self.deliver(arrival);
    }

    /// Hands what arrived at a node to what runs there.
    fn deliver(&mut self, arrival: Option<Arrival>) {
        let Some((node, event)) = arrival else { return };
        if let InEvent::Received(link, _, bytes) = &event {
            self.trace.frame(self.engine.clock.now, link.0, bytes);
        }
        self.feed(node, event);
    }

    fn on_wake(&mut self, number: usize) {
        let now = self.engine.clock.now;
        let node = &mut self.nodes[number];
        if node.wake.is_none_or(|wake| wake > now) || self.transport.is_paused(number) {
            return;
        }
        node.wake = None;
        let next = match &node.behavior {
            Behavior::Down => return,
            Behavior::Honest(state) => state.next_timer(),
            Behavior::Hostile(hostile) => hostile.next_timer(),
        };
        match next.map(|at| self.engine.clock.nanos_of(at)) {
            Some(at) if at <= now => self.feed(number, InEvent::Timer),
            Some(at) => self.wake_at(number, at),
            None => {}
        }
    }

    fn wake_at(&mut self, number: usize, at: Nanos) {
        let node = &mut self.nodes[number];
        let at = at.max(self.engine.clock.now);
        if node.wake.is_none_or(|wake| at < wake) {
            node.wake = Some(at);
            self.engine.queue.push(at, SimEvent::Wake(number));
        }
    }

    /// Hands an event to whatever runs at a node, and does what it wants done.
    pub(crate) fn feed(&mut self, number: usize, event: InEvent) {
        let now = self.engine.clock.instant();
        self.fed += 1;
        match std::mem::replace(&mut self.nodes[number].behavior, Behavior::Down) {
            Behavior::Down => {}
            Behavior::Honest(mut state) => {
                if let Err(error) = state.handle(event, now) {
                    let text = error.to_string();
                    self.fail(Some(number), "the state takes what a driver says", text);
                }
                let mut outputs = std::mem::take(&mut self.outputs);
                outputs.extend(std::iter::from_fn(|| state.poll()));
                let next = state.next_timer();
                self.nodes[number].behavior = Behavior::Honest(state);
                self.perform(number, outputs, next);
            }
            Behavior::Hostile(mut hostile) => {
                let outputs = hostile.handle(event, now);
                let next = hostile.next_timer();
                self.nodes[number].behavior = Behavior::Hostile(hostile);
                self.perform(number, outputs, next);
            }
        }
    }

    fn perform(
        &mut self,
        number: usize,
        mut outputs: Vec<OutEvent>,
        next: Option<tokio::time::Instant>,
    ) {
        let mut reserved = None;
        for output in outputs.drain(..) {
            match output {
                OutEvent::ReserveSequences(below) => reserved = Some(below),
                output => self.on_output(number, output),
            }
        }
        self.outputs = outputs;
        self.check_digest(number);
        if let Some(next) = next {
            let at = self.engine.clock.nanos_of(next);
            self.wake_at(number, at);
        }
        // A disk answers once the state is through with what it was handed.
        if let Some(below) = reserved {
            self.nodes[number].reserved = below;
            self.feed(number, InEvent::SequencesReserved(below));
        }
    }

    fn on_output(&mut self, number: usize, output: OutEvent) {
        match output {
            OutEvent::Dial(to, addresses) => {
                self.transport.on_dial(number, to, &addresses, node_at, env!(self));
            }
            OutEvent::Send(link, lane, bytes) => self.on_send(number, link, lane, bytes),
            OutEvent::Keepalive(link, bytes) => {
                self.transport.on_keepalive(link);
                self.on_send(number, link, Lane::Control, bytes);
            }
            OutEvent::Close(link, code) => {
                self.transport.on_close(number, link, code, env!(self));
            }
            OutEvent::ReserveSequences(_) => unreachable!("performed after all others"),
            OutEvent::Topic(_, event) => self.on_event(number, event),
            OutEvent::Dropped { what, .. } => {
                *self.nodes[number].dropped.entry(what.label()).or_default() += 1;
            }
        }
    }

    pub(crate) fn on_send(&mut self, number: usize, link: LinkId, lane: Lane, bytes: Bytes) {
        if self.transport.on_send(number, link, (lane, bytes), env!(self)).is_err() {
            let what = match lane {
                Lane::Broadcast => DropReason::BroadcastsToSlowPeers.label(),
                Lane::Control | Lane::Sync => "queues overflowed",
            };
            *self.nodes[number].dropped.entry(what).or_default() += 1;
        }
    }

    pub(crate) fn on_event(&mut self, number: usize, event: TopicEvent) {
        self.noteworthy = true;
        match &event {
            TopicEvent::Announced(record) => self.on_announced(number, record),
            TopicEvent::Isolated | TopicEvent::Reconnected => {
                let isolated = matches!(event, TopicEvent::Isolated);
                if std::mem::replace(&mut self.nodes[number].isolated, isolated) == isolated {
                    self.fail(Some(number), "events replay", format!("{event:?} twice"));
                }
            }
            TopicEvent::Broadcast { author, data, .. } => self.on_broadcast(number, *author, data),
            _ => {
                let node = &mut self.nodes[number];
                let group = self.roster.peers[node.peer].group;
                let now = self.engine.clock.now;
                let applied = node.book.apply(&event, &node.config, &self.roster, group, now);
                if let Err((check, text)) = applied {
                    self.fail(Some(number), check, text);
                }
            }
        }
        if let TopicEvent::PeerLost(record, _) = &event
            && let Some(lost) = self.reached(number, &record.id)
        {
            let (cuts, now) = (self.transport.cuts(), self.engine.clock.now);
            self.observed.wrong_verdict(now, (number, lost), record.id, cuts);
        }
        let at = self.elapsed();
        self.observed.event(at, number, &event);
        if self.observed.keep_events {
            self.nodes[number].events.push((at, event));
        }
    }

    /// Returns the node of an identity if it is up and within reach of another one.
    fn reached(&self, by: usize, id: &EndpointId) -> Option<usize> {
        let peer = &self.roster.peers[self.roster.number(id)?];
        let within_reach = peer.current.is_some() && peer.group == self.transport.cuts().group(by);
        if within_reach { peer.nodes.first().copied() } else { None }
    }

    fn on_broadcast(&mut self, number: usize, author: EndpointId, data: &Bytes) {
        let node = &mut self.nodes[number];
        if author == node.id {
            let text = "it heard itself".to_owned();
            self.fail(Some(number), "broadcasts are for others", text);
        } else if !node.heard.insert((author, data.clone())) {
            let text = format!("{data:?} of {} came twice", author.fmt_short());
            self.fail(Some(number), "broadcasts come at most once", text);
        }
    }

    fn on_announced(&mut self, number: usize, record: &Arc<NodeRecord>) {
        let peer = self.nodes[number].peer;
        let was = self.nodes[number].own.as_ref().map(|own| own.sequence);
        if record.id != self.nodes[number].id {
            let text = format!("announced {}", record.id);
            self.fail(Some(number), "records are their owners'", text);
        }
        if was.is_some_and(|was| was >= record.sequence) {
            let text = format!("announced {} after {was:?}", record.sequence);
            self.fail(Some(number), "sequences never fall", text);
        }
        self.nodes[number].own = Some(Arc::clone(record));
        self.roster.make(peer, record);
        self.update_truth(peer);
    }
}
