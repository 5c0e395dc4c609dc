//! The virtual network: links between nodes, a queue of what happens when, and the clock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{
    CloseCode, Config, EndpointId, InEvent, Lane, LinkEnd, LinkId, OutEvent, Profile, TopicId,
    TopicOptions,
};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::node::Node;

/// How long a frame takes one way, drawn anew for each frame; lanes stay in order.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// How long a dial to a node that does not answer takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Happening {
    Wake(usize),
    Dialled { from: usize, to: EndpointId },
    Opened { link: u64 },
    DialFailed { from: usize, to: EndpointId },
    Frame { link: u64, to_dialler: bool, lane: Lane, bytes: Bytes },
    Closed { link: u64, to_dialler: bool, end: LinkEnd },
}

/// One connection; both ends call it by the same number.
#[derive(Debug)]
struct Wire {
    dialler: usize,
    acceptor: usize,
    lives: (u64, u64),
    /// When the last frame of each direction and lane arrives: order is kept.
    last: BTreeMap<(bool, Lane), Instant>,
    /// When the first frame of each direction arrives.
    first: BTreeMap<bool, Instant>,
    /// Ends that still know the link: dialler, acceptor.
    open: (bool, bool),
}

/// Many nodes and the network between them.
#[derive(Debug)]
pub struct Network {
    /// All nodes, by number.
    pub nodes: Vec<Node>,
    topic: TopicId,
    seed: u64,
    latency: Latency,
    now: Instant,
    start: Instant,
    rng: ChaCha12Rng,
    queue: BTreeMap<(Instant, u64), Happening>,
    count: u64,
    wires: BTreeMap<u64, Wire>,
    by_id: BTreeMap<EndpointId, usize>,
    cut: BTreeSet<(usize, usize)>,
    trace: Sha256,
    /// Whether a node told its application something since it was last looked at.
    told: bool,
}

impl Network {
    /// A network without nodes. Everything random follows from `seed`.
    ///
    /// # Panics
    /// Never: the topic's name is a good one.
    #[must_use]
    pub fn new(seed: u64, latency: Latency) -> Self {
        let now = Instant::now();
        Self {
            nodes: Vec::new(),
            topic: TopicId::from_name("simulated").expect("a good name"),
            seed,
            latency,
            now,
            start: now,
            rng: ChaCha12Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            count: 0,
            wires: BTreeMap::new(),
            by_id: BTreeMap::new(),
            cut: BTreeSet::new(),
            trace: Sha256::new(),
            told: false,
        }
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The virtual clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A hash over all frames and their times: the same seed gives the same.
    #[must_use]
    pub fn trace_hash(&self) -> [u8; 32] {
        self.trace.clone().finalize().into()
    }

    /// Adds a node that is down.
    pub fn add(&mut self) -> usize {
        let number = self.nodes.len();
        let node = Node::new(number as u64, self.seed);
        self.by_id.insert(node.id, number);
        self.nodes.push(node);
        number
    }

    /// Starts a node, or starts it again: with the same key, and `sequence` as its first.
    ///
    /// # Panics
    /// Where the state refuses the topic: a defect.
    pub fn start(&mut self, number: usize, sequence: u64, config: Config, bootstrap: &[usize]) {
        let seed: [u8; 32] = self.rng.random();
        let now = self.now;
        self.nodes[number].boot(sequence, seed, now);
        let profile = Profile { name: format!("node-{number}"), ..Profile::default() };
        let peers: Vec<_> =
            bootstrap.iter().map(|b| (self.nodes[*b].id, vec![address(*b)])).collect();
        let options = Box::new(TopicOptions { profile, config });
        self.feed(number, InEvent::SetAddresses(vec![address(number)]));
        self.feed(number, InEvent::Join(self.topic, options));
        self.feed(number, InEvent::AddBootstrap(self.topic, peers));
    }

    /// Hands an event of the application to a node.
    pub fn command(&mut self, number: usize, event: impl FnOnce(TopicId) -> InEvent) {
        let event = event(self.topic);
        self.feed(number, event);
    }

    /// Stops a node as a crash does: the others hear nothing, their links time out after `idle`.
    pub fn crash(&mut self, number: usize, idle: Duration) {
        self.nodes[number].state = None;
        self.nodes[number].wake = None;
        let links: Vec<_> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.dialler == number || wire.acceptor == number)
            .map(|(link, wire)| (*link, wire.dialler == number))
            .collect();
        for (link, was_dialler) in links {
            let at = self.now + idle;
            let end = LinkEnd::TimedOut;
            self.push(at, Happening::Closed { link, to_dialler: !was_dialler, end });
        }
    }

    /// Cuts, or restores, all dials and frames between two nodes.
    pub fn set_cut(&mut self, a: usize, b: usize, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut {
            self.cut.insert(pair);
        } else {
            self.cut.remove(&pair);
        }
    }

    /// Cuts all nodes off from each other, or restores all: links time out 9 s after a cut.
    pub fn set_all_cut(&mut self, cut: bool) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                self.set_cut(a, b, cut);
            }
        }
        if cut {
            let at = self.now + Duration::from_secs(9);
            let links: Vec<_> = self.wires.keys().copied().collect();
            for link in links {
                for to_dialler in [true, false] {
                    let end = LinkEnd::TimedOut;
                    self.push(at, Happening::Closed { link, to_dialler, end });
                }
            }
        }
    }

    /// Runs until `done` says so, or `limit` of virtual time has passed: whether it was done. It is
    /// asked whenever an application would have seen something.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.told = true;
        loop {
            if std::mem::take(&mut self.told) && done(self) {
                return true;
            }
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= end => self.step(),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Whether all nodes that are up have the same book: each other's current records, no more.
    #[must_use]
    pub fn converged(&self) -> bool {
        let up: BTreeMap<_, _> = self
            .nodes
            .iter()
            .filter(|node| node.state.is_some())
            .map(|node| (node.id, node.own.as_ref()))
            .collect();
        self.nodes.iter().filter(|node| node.state.is_some()).all(|node| {
            node.book.len() + 1 == up.len()
                && node.book.iter().all(|(id, record)| up.get(id) == Some(&Some(record)))
        })
    }

    /// Open connections between two nodes.
    #[must_use]
    pub fn connections(&self, a: usize, b: usize) -> usize {
        let joins = |wire: &&Wire| {
            (wire.dialler, wire.acceptor) == (a, b) || (wire.dialler, wire.acceptor) == (b, a)
        };
        self.wires.values().filter(joins).filter(|wire| wire.open == (true, true)).count()
    }

    /// Breaks one of the open connections, chosen by the seed: both ends hear that it was lost.
    pub fn break_a_connection(&mut self) {
        let open: Vec<_> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.open == (true, true))
            .map(|(id, _)| *id)
            .collect();
        if !open.is_empty() {
            let link = open[self.rng.random_range(0..open.len())];
            for to_dialler in [true, false] {
                self.push(self.now, Happening::Closed { link, to_dialler, end: LinkEnd::Lost });
            }
        }
    }

    fn push(&mut self, at: Instant, happening: Happening) {
        self.count += 1;
        self.queue.insert((at, self.count), happening);
    }

    fn delay(&mut self) -> Duration {
        let (min, max) = (self.latency.min, self.latency.max);
        min + max.saturating_sub(min).mul_f64(self.rng.random_range(0.0..1.0))
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn step(&mut self) {
        let Some(((at, _), happening)) = self.queue.pop_first() else { return };
        self.now = at.max(self.now);
        match happening {
            Happening::Wake(number) => {
                if self.nodes[number].wake == Some(at) {
                    self.nodes[number].wake = None;
                    self.feed(number, InEvent::Timer);
                }
            }
            Happening::Dialled { from, to } => self.on_dialled(from, to),
            Happening::Opened { link } => self.on_opened(link),
            Happening::DialFailed { from, to } => {
                self.feed(from, InEvent::DialFailed(to));
            }
            Happening::Frame { link, to_dialler, lane, bytes } => {
                self.trace.update(self.elapsed().as_nanos().to_le_bytes());
                self.trace.update(&bytes);
                if let Some(number) = self.end_of(link, to_dialler) {
                    self.feed(number, InEvent::Received(LinkId(link), lane, bytes));
                }
            }
            Happening::Closed { link, to_dialler, end } => {
                if let Some(number) = self.end_of(link, to_dialler) {
                    self.close_end(link, to_dialler);
                    self.feed(number, InEvent::LinkClosed(LinkId(link), end));
                }
            }
        }
    }

    /// The node at an end of a link, if it still knows the link.
    fn end_of(&self, link: u64, dialler: bool) -> Option<usize> {
        let wire = self.wires.get(&link)?;
        let (number, life, open) = if dialler {
            (wire.dialler, wire.lives.0, wire.open.0)
        } else {
            (wire.acceptor, wire.lives.1, wire.open.1)
        };
        let node = &self.nodes[number];
        (open && node.state.is_some() && node.boots == life).then_some(number)
    }

    fn close_end(&mut self, link: u64, dialler: bool) {
        if let Some(wire) = self.wires.get_mut(&link) {
            if dialler {
                wire.open.0 = false;
            } else {
                wire.open.1 = false;
            }
            if wire.open == (false, false) {
                self.wires.remove(&link);
            }
        }
    }

    fn on_dialled(&mut self, from: usize, to: EndpointId) {
        let target = self.by_id.get(&to).copied();
        let target = target.filter(|to| self.nodes[*to].state.is_some() && !self.is_cut(from, *to));
        let Some(acceptor) = target else {
            let at = self.now + DIAL_TIMEOUT;
            return self.push(at, Happening::DialFailed { from, to });
        };
        self.count += 1;
        let link = self.count;
        let lives = (self.nodes[from].boots, self.nodes[acceptor].boots);
        let wire = Wire {
            dialler: from,
            acceptor,
            lives,
            last: BTreeMap::new(),
            first: BTreeMap::new(),
            open: (true, true),
        };
        self.wires.insert(link, wire);
        // The handshake's other half.
        let at = self.now + self.delay();
        self.push(at, Happening::Opened { link });
    }

    fn on_opened(&mut self, link: u64) {
        let Some(wire) = self.wires.get(&link) else { return };
        let (dialler, acceptor) = (wire.dialler, wire.acceptor);
        let (a, b) = (self.nodes[dialler].id, self.nodes[acceptor].id);
        match (self.end_of(link, true), self.end_of(link, false)) {
            (Some(_), Some(_)) => {
                let id = LinkId(link);
                self.feed(dialler, InEvent::LinkOpened { link: id, peer: b, dialled: true });
                self.feed(acceptor, InEvent::LinkOpened { link: id, peer: a, dialled: false });
            }
            (Some(_), None) => {
                self.wires.remove(&link);
                self.feed(dialler, InEvent::DialFailed(b));
            }
            _ => {
                self.wires.remove(&link);
            }
        }
    }

    fn feed(&mut self, number: usize, event: InEvent) {
        let now = self.now;
        let Some(state) = &mut self.nodes[number].state else { return };
        state.handle(event, now).expect("the simulator asks for nothing wrong");
        let mut outputs = VecDeque::new();
        while let Some(output) = state.poll() {
            outputs.push_back(output);
        }
        let next = state.next_timer();
        for output in outputs {
            self.on_output(number, output);
        }
        let node = &mut self.nodes[number];
        if let Some(next) = next {
            let next = next.max(now);
            if node.wake.is_none_or(|wake| next < wake) {
                node.wake = Some(next);
                self.push(next, Happening::Wake(number));
            }
        }
    }

    fn on_output(&mut self, number: usize, output: OutEvent) {
        match output {
            OutEvent::Dial(to, _) => {
                self.nodes[number].dials += 1;
                let at = self.now + self.delay();
                self.push(at, Happening::Dialled { from: number, to });
            }
            OutEvent::Send(link, lane, bytes) => self.on_send(number, link.0, lane, bytes),
            OutEvent::Close(link, code) => self.on_close(number, link.0, code),
            OutEvent::ReserveSequences(below) => {
                self.feed(number, InEvent::SequencesReserved(below));
            }
            OutEvent::Topic(_, event) => {
                self.told = true;
                self.nodes[number].on_event(event, self.now);
            }
            OutEvent::Dropped { what, .. } => {
                *self.nodes[number].dropped.entry(what).or_default() += 1;
            }
        }
    }

    fn on_send(&mut self, number: usize, link: u64, lane: Lane, bytes: Bytes) {
        let delay = self.delay();
        let Some(wire) = self.wires.get_mut(&link) else { return };
        let from_dialler = wire.dialler == number;
        let other = if from_dialler { wire.acceptor } else { wire.dialler };
        self.nodes[number].bytes_sent += bytes.len() as u64 + 4;
        // The control stream's first frame, the hello, comes before anything of another stream.
        let first = wire.first.get(&from_dialler).copied().unwrap_or(self.now);
        let last = wire.last.entry((from_dialler, lane)).or_insert(self.now);
        let at = (self.now + delay).max(*last + Duration::from_nanos(1)).max(first);
        *last = at;
        wire.first.entry(from_dialler).or_insert(at);
        if !self.is_cut(number, other) {
            self.push(at, Happening::Frame { link, to_dialler: !from_dialler, lane, bytes });
        }
    }

    fn on_close(&mut self, number: usize, link: u64, code: CloseCode) {
        let Some(wire) = self.wires.get(&link) else { return };
        let is_dialler = wire.dialler == number;
        // What was sent before arrives before the end does.
        let last = wire.last.iter().filter(|((from_dialler, _), _)| *from_dialler == is_dialler);
        let last = last.map(|(_, at)| *at).max().unwrap_or(self.now);
        let at = last.max(self.now + self.delay()) + Duration::from_nanos(1);
        self.push(
            at,
            Happening::Closed { link, to_dialler: !is_dialler, end: LinkEnd::Remote(code) },
        );
        let at = self.now;
        self.push(
            at,
            Happening::Closed { link, to_dialler: is_dialler, end: LinkEnd::Local(code) },
        );
    }
}

/// Every node has an address of its own; only the number counts.
fn address(number: usize) -> TransportAddr {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    TransportAddr::Ip(SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + number), 7000)))
}
