//! Two states and the little of a driver and of a network that they need.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bolero::TypeGenerator;
use bytes::Bytes;
use iroh_base::TransportAddr;
use tokio::time::Instant;

use super::super::{id, key};
use crate::{
    Config, Identity, InEvent, Lane, LinkEnd, LinkId, OutEvent, Profile, State, TopicEvent,
    TopicId, TopicOptions, samples, verified::Verified,
};

/// More effects of one event are a loop.
const MAX_EFFECTS: usize = 20_000;
/// More timers within one step are a loop.
const MAX_TIMERS: usize = 20_000;
/// The peer that sends what the fuzzer chooses.
const HOSTILE: u8 = 9;

/// What happens next. The numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone, TypeGenerator)]
pub(super) enum Step {
    /// Time passes, in steps of 10 ms.
    Pass(u8),
    /// Much time passes, in seconds.
    PassLong(u8),
    /// A state's timer is late by this many tenths of a second.
    Late(bool, u8),
    /// The next frame between the states arrives.
    Deliver,
    /// All frames between the states arrive, and those that follow from them.
    DeliverAll,
    /// The next frame arrives with one byte changed.
    Damage(u8, u8),
    /// The next frame is lost.
    Lose,
    /// The next frame arrives twice.
    Repeat,
    /// The link between the states breaks.
    Cut,
    /// The hostile peer connects.
    Intrude(bool),
    /// The hostile peer sends a sample, one byte of it changed.
    Sample(bool, u8, u8, u8),
    /// The hostile peer sends any bytes.
    Say(bool, Vec<u8>),
    /// A state's application changes its metadata.
    Update(bool, u8),
    /// A state's application broadcasts.
    Broadcast(bool, u8),
    /// A state's network changes.
    Network(bool, bool),
    /// A state leaves.
    Leave(bool),
}

/// A link: the ends that are states have an index, the hostile peer has none.
#[derive(Debug, Clone, Copy)]
struct Wire {
    ends: [Option<usize>; 2],
}

pub(super) struct Pair {
    topic: TopicId,
    states: [State; 2],
    now: Instant,
    links: BTreeMap<LinkId, Wire>,
    next_link: u64,
    /// Frames on their way: the link, the state that gets it, the lane, the bytes.
    on_the_way: VecDeque<(LinkId, usize, Lane, Bytes)>,
    /// The highest sequence number that each state announced.
    announced: [u64; 2],
}

impl Pair {
    pub(super) fn new(topic: TopicId) -> Self {
        let now = Instant::now();
        // Signatures are verified once for both states: else the fuzzer does little else.
        let verified = Arc::new(Verified::default());
        let state = |number: u8| {
            let identity =
                Identity { key: key(number), boot_id: 1, sequence: 100, reserved: 1 << 40 };
            State::new(identity, [number; 32], now).sharing(verified.clone())
        };
        let mut pair = Self {
            topic,
            states: [state(1), state(2)],
            now,
            links: BTreeMap::new(),
            next_link: 1,
            on_the_way: VecDeque::new(),
            announced: [0; 2],
        };
        for index in 0..2 {
            let options = TopicOptions {
                profile: Profile::new(format!("node-{index}")),
                config: Config::default(),
            };
            pair.feed(index, InEvent::SetAddresses(vec![address(index)]));
            pair.feed(index, InEvent::Join(topic, Box::new(options)));
        }
        pair.feed(0, InEvent::AddBootstrap(topic, vec![(id(2), vec![address(1)])]));
        pair
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Pass(time) => self.pass(Duration::from_millis(10) * u32::from(*time)),
            Step::PassLong(time) => self.pass(Duration::from_secs((*time).into())),
            Step::Late(which, time) => {
                self.now += Duration::from_millis(100) * u32::from(*time);
                self.feed((*which).into(), InEvent::Timer);
            }
            Step::Deliver => self.deliver(|bytes| vec![bytes]),
            Step::DeliverAll => {
                for _ in 0..200 {
                    self.deliver(|bytes| vec![bytes]);
                }
            }
            Step::Damage(at, value) => self.deliver(|bytes| vec![damaged(&bytes, *at, *value)]),
            Step::Lose => self.deliver(|_| Vec::new()),
            Step::Repeat => self.deliver(|bytes| vec![bytes.clone(), bytes]),
            Step::Cut => {
                let between = |(_, wire): &(&LinkId, &Wire)| wire.ends.iter().all(Option::is_some);
                if let Some(link) = self.links.iter().find(between).map(|(link, _)| *link) {
                    self.end(link, None, LinkEnd::TimedOut);
                }
            }
            Step::Intrude(which) => self.open([Some((*which).into()), None]),
            Step::Sample(which, number, at, value) => {
                let all = samples::all();
                let (_, bytes) = &all[usize::from(*number) % all.len()];
                self.say((*which).into(), damaged(bytes, *at, *value));
            }
            Step::Say(which, bytes) => self.say((*which).into(), bytes.clone().into()),
            Step::Update(which, value) => {
                let mut profile = Profile::new("node");
                profile.metadata.insert("value".into(), value.to_string());
                self.feed((*which).into(), InEvent::SetProfile(self.topic, profile));
            }
            Step::Broadcast(which, value) => {
                let data = Bytes::from(vec![*value; usize::from(*value)]);
                self.feed((*which).into(), InEvent::Broadcast(self.topic, None, data));
            }
            Step::Network(which, away) => {
                self.feed((*which).into(), InEvent::NetworkChanged { away: *away });
            }
            Step::Leave(which) => self.feed((*which).into(), InEvent::Leave(self.topic)),
        }
    }

    /// Checks what holds after any steps.
    pub(super) fn check(&self) {
        for state in &self.states {
            assert!(
                state.counts().tombstones <= Config::default().capacity,
                "tombstones have a limit"
            );
            assert!(state.next_timer().is_none_or(|at| at > self.now - Duration::from_mins(10)));
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MAX_TIMERS {
            let due = |index: usize| self.states[index].next_timer().map(|at| (at, index));
            let next = [due(0), due(1)].into_iter().flatten().min();
            let Some((at, index)) = next.filter(|(at, _)| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            self.feed(index, InEvent::Timer);
        }
        panic!("timers come due without end");
    }

    fn deliver(&mut self, change: impl Fn(Bytes) -> Vec<Bytes>) {
        let Some((link, to, lane, bytes)) = self.on_the_way.pop_front() else { return };
        for bytes in change(bytes) {
            if self.links.contains_key(&link) {
                self.feed(to, InEvent::Received(link, lane, bytes));
            }
        }
    }

    fn say(&mut self, to: usize, bytes: Bytes) {
        let hostile = |(_, wire): &(&LinkId, &Wire)| wire.ends == [Some(to), None];
        if let Some(link) = self.links.iter().find(hostile).map(|(link, _)| *link) {
            self.feed(to, InEvent::Received(link, Lane::Control, bytes));
        }
    }

    fn open(&mut self, ends: [Option<usize>; 2]) {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.links.insert(link, Wire { ends });
        for (side, end) in ends.into_iter().enumerate() {
            let (Some(index), other) = (end, ends[1 - side]) else { continue };
            let peer = other.map_or(id(HOSTILE), |other| id(number(other)));
            let address = other.map(address);
            let dialed = side == 0 && other.is_some();
            self.feed(index, InEvent::LinkOpened { link, peer, address, dialed });
        }
    }

    /// Ends a link. `by` is the state that closed it, if one did.
    fn end(&mut self, link: LinkId, by: Option<usize>, end: LinkEnd) {
        let Some(wire) = self.links.remove(&link) else { return };
        for index in wire.ends.into_iter().flatten() {
            let end = match end {
                LinkEnd::Local(code) if by != Some(index) => LinkEnd::Remote(code),
                end => end,
            };
            self.feed(index, InEvent::LinkClosed(link, end));
        }
    }

    fn feed(&mut self, index: usize, event: InEvent) {
        // Only what an application requests can fail, and then nothing has changed.
        let _ = self.states[index].handle(event, self.now);
        for _ in 0..MAX_EFFECTS {
            let Some(effect) = self.states[index].poll() else { return };
            self.perform(index, effect);
        }
        panic!("an event has effects without end");
    }

    fn perform(&mut self, index: usize, effect: OutEvent) {
        match effect {
            OutEvent::Dial(peer, _) if peer == id(number(1 - index)) => {
                self.open([Some(index), Some(1 - index)]);
            }
            OutEvent::Dial(peer, _) => self.feed(index, InEvent::DialFailed(peer)),
            OutEvent::Send(link, lane, bytes) => self.send(index, link, lane, bytes),
            OutEvent::Keepalive(link, bytes) => {
                self.send(index, link, Lane::Control, bytes);
                self.feed(index, InEvent::Acknowledged(link));
            }
            OutEvent::Close(link, code) => self.end(link, Some(index), LinkEnd::Local(code)),
            OutEvent::ReserveSequences(below) => {
                self.feed(index, InEvent::SequencesReserved(below));
            }
            OutEvent::Topic(_, TopicEvent::Announced(record)) => {
                let sequence = record.sequence;
                assert!(sequence > self.announced[index], "sequence numbers rise");
                self.announced[index] = sequence;
            }
            OutEvent::Topic(..) | OutEvent::Dropped { .. } => {}
        }
    }

    fn send(&mut self, from: usize, link: LinkId, lane: Lane, bytes: Bytes) {
        let Some(wire) = self.links.get(&link) else { return };
        if let Some(to) = wire.ends.into_iter().flatten().find(|end| *end != from) {
            self.on_the_way.push_back((link, to, lane, bytes));
        }
    }
}

fn number(index: usize) -> u8 {
    if index == 0 { 1 } else { 2 }
}

fn address(index: usize) -> TransportAddr {
    TransportAddr::Ip(([192, 0, 2, number(index)], 4433).into())
}

fn damaged(bytes: &Bytes, at: u8, value: u8) -> Bytes {
    let mut bytes = bytes.to_vec();
    let length = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(usize::from(at) % length) {
        *byte ^= value;
    }
    bytes.into()
}
