//! Three nodes, and the choices of the explorer: what happens next.

mod network;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use iroh_gossip_discovery_proto::{
    InEvent, Lane, LinkEnd, LinkId, Profile, State, TopicId, Verified,
};
use tokio::time::Instant;

use super::{
    Bounds,
    explore::Explorer,
    properties::{Reach, Told, convergence},
};

const NODES: usize = 3;
/// The nodes have formed a swarm by then, and are quiet.
const FORMED: Duration = Duration::from_secs(10);
/// Nothing more happens to the nodes for this time before their books have to be right.
const QUIET: Duration = Duration::from_secs(40);
/// A link breaks after this time without a packet, as that of the driver does.
const IDLE: Duration = Duration::from_secs(9);
/// A dial is tried again after this time, and fails after [`CONNECT`].
const REDIAL: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(5);
/// How long a node is paused, and how long a frame is late.
const PAUSED: Duration = Duration::from_secs(3);
const LATE: Duration = Duration::from_secs(1);
/// How long a node is cut off: for less time than a verdict takes, and for more.
const CUT_OFF: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(20)];
/// A frame is repeated this long after it came, when its author may be gone.
const LONG_AFTER: Duration = Duration::from_secs(12);
/// The sequence number of each first life. A node with an empty disk begins at 1.
const FIRST: u64 = 1000;
const BLOCK: u64 = 4096;
/// After the last choice, the situation is compared with those of earlier runs this often.
const MOST_COMPARED: u32 = 10;
/// More events than this are an endless loop.
const MOST_EVENTS: u64 = 20_000;

/// What went wrong, and what had been done before.
pub(crate) type Failure = String;

/// Why a run ends before its time.
enum End {
    Explored,
    Failed(String),
}

impl From<String> for End {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

/// Frames of one channel arrive in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Channel {
    /// The dials of one node to another.
    Dial(usize, usize),
    /// One lane of a link, to one of its ends; the last number is for acknowledgements.
    Link(LinkId, usize, u8),
}

impl Channel {
    /// Returns true for the channels of a link, those to one of its ends or all.
    fn is_of(&self, link: LinkId, to: Option<usize>) -> bool {
        matches!(self, Self::Link(of, end, _) if *of == link && to.is_none_or(|to| to == *end))
    }
}

#[derive(Debug, Clone, Hash)]
enum Content {
    Dial,
    Opened,
    Frame { lane: Lane, bytes: Bytes, is_keepalive: bool },
    Acknowledged,
    Closed(u32),
}

/// What is on its way. The order by `sent` and `depth` is the same in all runs in which the nodes
/// handled the same events.
#[derive(Debug, Clone, Hash)]
struct Message {
    sent: Duration,
    /// The number of events at the same time that led to it.
    depth: u32,
    content: Content,
}

/// What the network does at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Due {
    /// A link breaks, for the end of one node.
    TimedOut(LinkId, usize),
    /// A dial is tried again, until the time.
    Redial(usize, usize, Instant),
    Resume(usize),
    Reconnect(usize),
    /// A frame is no longer late.
    Release(Channel),
    /// A frame of the first node comes again to the second one.
    Again(usize, usize, Lane, Bytes),
}

/// What a node that restarts finds on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Kept,
    /// A copy from before its first life.
    Old,
    Empty,
}

impl Disk {
    const ALL: [Self; 3] = [Self::Kept, Self::Old, Self::Empty];
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Deliver(Channel),
    Timer(usize),
    Due,
}

/// What the explorer may do before what comes next.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// What comes next happens.
    GoOn,
    /// This channel's frame overtakes all others.
    Overtake(Channel),
    Crash(usize),
    /// The node restarts at once.
    Restart(usize, Disk),
    Leave(usize),
    Update(usize),
    Pause(usize),
    CutOff(usize, Duration),
    /// The link breaks.
    Cut(LinkId),
    /// The frame that comes next is lost, comes twice, comes again long after, or is late.
    Lose(Channel),
    Repeat(Channel),
    RepeatLongAfter(Channel),
    Hold(Channel),
}

struct Link {
    /// The node that dialed, and the one that was dialed.
    ends: [usize; 2],
    open: [bool; 2],
}

impl Link {
    fn side(&self, node: usize) -> usize {
        usize::from(self.ends[0] != node)
    }
}

struct Node {
    state: Option<State>,
    lives: u64,
    dials: u64,
    /// The hash of all that the node handled, with the times. It determines its state.
    history: u64,
    reserved: u64,
    announced: Option<u64>,
    told: Told,
    reach: Reach,
    leaving: bool,
    paused: bool,
    cut_off: bool,
}

/// The nodes, the network, and what the explorer may still do.
pub(crate) struct World<'a> {
    bounds: &'a Bounds,
    explorer: &'a mut Explorer,
    verified: Arc<Verified>,
    topic: TopicId,
    begin: Instant,
    now: Instant,
    nodes: Vec<Node>,
    links: BTreeMap<LinkId, Link>,
    channels: BTreeMap<Channel, VecDeque<Message>>,
    held: BTreeSet<Channel>,
    due: BTreeSet<(Instant, Due)>,
    depth: u32,
    events: u64,
    faults: u32,
    overtakes: u32,
    /// How often the situation was compared since the last choice.
    compared: u32,
    /// The explorer may act until then.
    open_until: Instant,
    quiet_from: Instant,
    pub(crate) acts: Vec<String>,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        bounds: &'a Bounds,
        explorer: &'a mut Explorer,
        verified: &Arc<Verified>,
        begin: Instant,
    ) -> Self {
        let node = || Node {
            state: None,
            lives: 0,
            dials: 0,
            history: 0,
            reserved: FIRST,
            announced: None,
            told: Told::default(),
            reach: Reach::default(),
            leaving: false,
            paused: false,
            cut_off: false,
        };
        Self {
            bounds,
            explorer,
            verified: Arc::clone(verified),
            topic: TopicId::from_name("model").expect("a good name"),
            begin,
            now: begin,
            nodes: (0..NODES).map(|_| node()).collect(),
            links: BTreeMap::new(),
            channels: BTreeMap::new(),
            held: BTreeSet::new(),
            due: BTreeSet::new(),
            depth: 0,
            events: 0,
            faults: bounds.faults,
            overtakes: bounds.overtakes,
            compared: 0,
            open_until: begin + FORMED + bounds.first,
            quiet_from: begin + FORMED,
            acts: Vec::new(),
        }
    }

    /// Runs to the end. Returns false if an earlier run went on from the same situation.
    pub(crate) fn run(mut self) -> Result<bool, Failure> {
        let end = self.run_to_end();
        self.explorer.figures.events += self.events;
        match end {
            Ok(()) => Ok(true),
            Err(End::Explored) => Ok(false),
            Err(End::Failed(text)) => {
                let at = (self.now - self.begin).as_secs_f64();
                let (acts, choices) = (self.acts.join("\n  "), self.explorer.choices());
                Err(format!("{text}\n  at {at:.3} s, after:\n  {acts}\n  choices: {choices:?}"))
            }
        }
    }

    fn run_to_end(&mut self) -> Result<(), End> {
        for number in 0..NODES {
            self.start(number, FIRST)?;
        }
        loop {
            let Some(next) = self.next() else {
                self.check_convergence()?;
                return Ok(());
            };
            match self.choose(next)? {
                Act::GoOn => self.go_on(next)?,
                Act::Overtake(channel) => {
                    self.overtakes -= 1;
                    self.note(&format!("overtakes: {}", self.describe(channel)));
                    self.deliver(channel)?;
                }
                act => self.act(act)?,
            }
            if self.events > MOST_EVENTS {
                return Err(End::Failed("an endless loop".to_owned()));
            }
        }
    }

    /// Returns what comes next by itself, and moves the time to it. `None` at the end.
    fn next(&mut self) -> Option<Next> {
        if let Some(channel) = self.deliverable().min_by_key(|channel| self.order(*channel)) {
            return Some(Next::Deliver(channel));
        }
        let timers = self.nodes.iter().enumerate().filter(|(_, node)| !node.paused);
        let timers = timers.filter_map(|(number, node)| {
            Some((node.state.as_ref()?.next_timer()?.max(self.now), number))
        });
        let timer = timers.min();
        let due = self.due.first().map(|(at, _)| *at);
        let (at, next) = match (timer, due) {
            (Some((at, number)), due) if due.is_none_or(|due| at < due) => {
                (at, Next::Timer(number))
            }
            (_, Some(due)) => (due, Next::Due),
            (_, None) => return None,
        };
        if at > self.quiet_from + QUIET {
            return None;
        }
        if at > self.now {
            (self.now, self.depth) = (at, 0);
        }
        Some(next)
    }

    fn order(&self, channel: Channel) -> (Duration, u32, Channel) {
        let first = &self.channels[&channel][0];
        (first.sent, first.depth, channel)
    }

    /// Iterates over the channels whose first frame can arrive now.
    fn deliverable(&self) -> impl Iterator<Item = Channel> {
        self.channels.keys().copied().filter(|channel| {
            if self.held.contains(channel) {
                return false;
            }
            let able = |node: usize| !self.nodes[node].paused && !self.nodes[node].cut_off;
            match channel {
                Channel::Dial(from, _) => !self.nodes[*from].paused,
                Channel::Link(link, to, lane) => {
                    let link = &self.links[link];
                    let side = link.side(*to);
                    // A lane waits until the link is open at that end.
                    let opens = *lane == 0 && !link.open[side];
                    able(*to)
                        && !self.nodes[link.ends[1 - side]].cut_off
                        && (link.open[side] || opens)
                }
            }
        })
    }

    fn choose(&mut self, next: Next) -> Result<Act, End> {
        let formed = self.now >= self.begin + FORMED;
        let acted = self.faults < self.bounds.faults;
        if !formed || self.now > self.open_until || (self.faults == 0 && self.overtakes == 0) {
            if acted && self.compared < MOST_COMPARED {
                // What follows is the same as after an equal situation.
                self.compared += 1;
                self.explorer.choose(1, self.situation()).ok_or(End::Explored)?;
            }
            return Ok(Act::GoOn);
        }
        let mut acts = vec![Act::GoOn];
        if self.faults > 0 {
            self.faults_before(next, &mut acts);
            acts.retain(|act| self.bounds.allow(&format!("{act:?}")));
        }
        if let (Next::Deliver(first), true) = (next, acted && self.overtakes > 0) {
            acts.extend(self.deliverable().filter(|other| *other != first).map(Act::Overtake));
        }
        let situation = self.situation();
        let taken = self.explorer.choose(acts.len(), situation).ok_or(End::Explored)?;
        Ok(acts[taken])
    }

    /// What happens to a node matters only before an event of that node, and what happens to a
    /// frame when it is about to arrive.
    fn faults_before(&self, next: Next, acts: &mut Vec<Act>) {
        let number = match next {
            Next::Due => return,
            Next::Timer(number) => {
                let down = (0..NODES).filter(|number| self.nodes[*number].state.is_none());
                acts.extend(down.flat_map(|down| Disk::ALL.map(|disk| Act::Restart(down, disk))));
                number
            }
            Next::Deliver(channel @ Channel::Dial(from, _)) => {
                acts.push(Act::Hold(channel));
                from
            }
            Next::Deliver(channel @ Channel::Link(link, to, _)) => {
                acts.extend([Act::Hold(channel), Act::Cut(link)]);
                if matches!(self.channels[&channel][0].content, Content::Frame { .. }) {
                    let repeats = [Act::Repeat(channel), Act::RepeatLongAfter(channel)];
                    acts.extend(repeats.into_iter().chain([Act::Lose(channel)]));
                }
                to
            }
        };
        let node = &self.nodes[number];
        if node.state.is_none() {
            return;
        }
        acts.push(Act::Crash(number));
        acts.extend(Disk::ALL.map(|disk| Act::Restart(number, disk)));
        if !node.leaving {
            acts.extend([Act::Leave(number), Act::Update(number)]);
        }
        if !node.cut_off {
            acts.push(Act::Pause(number));
            acts.extend(CUT_OFF.map(|time| Act::CutOff(number, time)));
        }
    }

    /// Two runs are in the same situation if each node handled the same events at the same times,
    /// and the same is on its way. In which order different nodes did so makes no difference.
    fn situation(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.now - self.begin, self.faults, self.overtakes).hash(&mut hasher);
        (self.open_until - self.begin, self.quiet_from - self.begin).hash(&mut hasher);
        for node in &self.nodes {
            let up = (node.state.is_some(), node.paused, node.cut_off);
            (node.history, up, node.lives).hash(&mut hasher);
        }
        (&self.channels, &self.held).hash(&mut hasher);
        for (at, due) in &self.due {
            (*at - self.begin, format!("{due:?}")).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn note(&mut self, act: &str) {
        let at = (self.now - self.begin).as_secs_f64();
        self.acts.push(format!("{at:.3} s: {act}"));
    }

    fn describe(&self, channel: Channel) -> String {
        format!("{channel:?} {:?}", self.channels[&channel][0].content)
    }

    fn go_on(&mut self, next: Next) -> Result<(), String> {
        match next {
            Next::Deliver(channel) => self.deliver(channel),
            Next::Timer(number) => self.feed(number, InEvent::Timer),
            Next::Due => {
                let (_, due) = self.due.pop_first().expect("it comes next");
                self.on_due(due)
            }
        }
    }

    // long: an arm for each kind of act.
    fn act(&mut self, act: Act) -> Result<(), String> {
        self.faults -= 1;
        let what = match act {
            Act::Lose(channel)
            | Act::Repeat(channel)
            | Act::RepeatLongAfter(channel)
            | Act::Hold(channel) => self.describe(channel),
            _ => String::new(),
        };
        self.note(&format!("{act:?} {what}"));
        self.open_until = self.now + self.bounds.then;
        self.quiet_from = self.now;
        match act {
            Act::GoOn | Act::Overtake(_) => unreachable!("no fault"),
            Act::Crash(number) => self.crash(number),
            Act::Restart(number, disk) => {
                self.crash(number);
                let (first, announced) = match disk {
                    Disk::Kept if self.bounds.forgetful => (FIRST, self.nodes[number].announced),
                    Disk::Kept => (self.nodes[number].reserved, self.nodes[number].announced),
                    Disk::Old => (FIRST, None),
                    Disk::Empty => (1, None),
                };
                self.nodes[number].announced = announced;
                self.start(number, first)?;
            }
            Act::Leave(number) => {
                self.nodes[number].leaving = true;
                self.feed(number, InEvent::Leave(self.topic))?;
            }
            Act::Update(number) => {
                let mut profile = Profile::new(format!("node-{number}"));
                profile.metadata.insert("faults".into(), self.faults.to_string());
                self.feed(number, InEvent::SetProfile(self.topic, profile))?;
            }
            Act::Pause(number) => {
                self.nodes[number].paused = true;
                self.note_reach(number);
                self.later(PAUSED, Due::Resume(number));
            }
            Act::CutOff(number, time) => {
                self.nodes[number].cut_off = true;
                self.note_reach(number);
                self.later(time, Due::Reconnect(number));
                if time > IDLE {
                    self.time_out(number, true);
                }
            }
            Act::Cut(link) => self.end(link, LinkEnd::Lost)?,
            Act::Lose(channel) => {
                self.pop(channel);
            }
            Act::Repeat(channel) => {
                let frames = self.channels.get_mut(&channel).expect("it has a frame");
                frames.push_front(frames[0].clone());
            }
            Act::RepeatLongAfter(channel) => {
                let (Channel::Link(link, to, _), Content::Frame { lane, bytes, .. }) =
                    (channel, self.channels[&channel][0].content.clone())
                else {
                    unreachable!("only a frame comes again");
                };
                let link = &self.links[&link];
                let from = link.ends[1 - link.side(to)];
                self.later(LONG_AFTER, Due::Again(from, to, lane, bytes));
            }
            Act::Hold(channel) => {
                self.held.insert(channel);
                self.later(LATE, Due::Release(channel));
            }
        }
        Ok(())
    }

    fn note_reach(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let away = node.state.is_none() || node.paused || node.cut_off;
        node.reach.set(away, self.now);
    }

    fn later(&mut self, time: Duration, due: Due) {
        self.quiet_from = self.quiet_from.max(self.now + time);
        self.due.insert((self.now + time, due));
    }

    fn on_due(&mut self, due: Due) -> Result<(), String> {
        match due {
            Due::TimedOut(link, number) => {
                let side = self.links.get(&link).map(|link| link.side(number));
                match side {
                    Some(side) => self.end_side(link, side, LinkEnd::TimedOut),
                    None => Ok(()),
                }
            }
            Due::Redial(from, to, until) => self.dial(from, to, until),
            Due::Resume(number) => {
                self.nodes[number].paused = false;
                self.note_reach(number);
                // What is due fires before what waits arrives.
                self.feed(number, InEvent::Timer)
            }
            Due::Reconnect(number) => {
                self.nodes[number].cut_off = false;
                self.note_reach(number);
                Ok(())
            }
            Due::Release(channel) => {
                self.held.remove(&channel);
                Ok(())
            }
            Due::Again(from, to, lane, bytes) => self.again(from, to, lane, bytes),
        }
    }

    fn check_convergence(&self) -> Result<(), String> {
        let runs = |node: &&Node| node.state.is_some() && !node.leaving;
        let all = self.nodes.iter().enumerate().filter(|(_, node)| runs(node));
        let all: BTreeMap<_, _> =
            all.filter_map(|(number, node)| Some((number, node.announced?))).collect();
        for number in all.keys() {
            let mut others = all.clone();
            others.remove(number);
            convergence(&self.nodes[*number].told, &others)
                .map_err(|error| format!("node {number}: {error}"))?;
        }
        Ok(())
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
