//! Tests of what the crate keeps to itself. Whole networks are in `rust/sim`.

mod access;
mod book;
mod broadcast;
mod cbor;
mod compare;
mod contact;
mod dissemination;
mod fuzz;
mod guard;
mod invitation;
mod kept;
mod link;
mod liveness;
mod network;
mod record;
mod shapes;
mod sync;
mod wire;

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh_base::TransportAddr;
use tokio::time::Instant;

use crate::{
    Config, EndpointId, Identity, InEvent, Lane, LinkId, NodeRecord, OutEvent, Profile,
    SignedRecord, State, Status, TopicId, TopicOptions,
    wire::{Frame, Hello, TopicFrame},
};

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn id(number: u8) -> EndpointId {
    EndpointId::from_bytes(key(number).verifying_key().to_bytes())
}

pub(crate) fn topic() -> TopicId {
    TopicId::from_name("tests").unwrap()
}

pub(crate) fn node(number: u8, sequence: u64) -> NodeRecord {
    NodeRecord {
        id: id(number),
        sequence,
        boot_id: 1,
        profile: Profile::new(format!("node-{number}")),
        addresses: vec![TransportAddr::Ip("192.0.2.1:7".parse().unwrap())],
        status: Status::Alive,
        expiration: Duration::from_mins(15),
    }
}

pub(crate) fn sign(record: NodeRecord) -> SignedRecord {
    let number = (0..=u8::MAX).find(|number| id(*number) == record.id).unwrap();
    SignedRecord::sign(&key(number), &topic(), record).unwrap()
}

pub(crate) fn signed(number: u8, sequence: u64) -> SignedRecord {
    sign(node(number, sequence))
}

/// A state in a topic with one link to a stranger whose frames the test writes by hand.
pub(crate) struct Bench {
    pub(crate) state: State,
    pub(crate) now: Instant,
    pub(crate) out: Vec<OutEvent>,
    /// Links on which nothing is answered or acknowledged.
    pub(crate) silent: BTreeSet<LinkId>,
    /// Links to peers whose process hangs, while their QUIC still acknowledges.
    pub(crate) hung: BTreeSet<LinkId>,
}

pub(crate) const LINK: LinkId = LinkId(1);
pub(crate) const ME: u8 = 1;
pub(crate) const PEER: u8 = 2;

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let identity = Identity { key: key(ME), boot_id: 1, sequence: 100, reserved: 1 << 40 };
        let now = Instant::now();
        let mut bench = Self {
            state: State::new(identity, [7; 32], now),
            now,
            out: Vec::new(),
            silent: BTreeSet::new(),
            hung: BTreeSet::new(),
        };
        let profile = Profile::new("me");
        let options = TopicOptions { profile, config };
        bench.feed(InEvent::Join(topic(), Box::new(options)));
        bench
    }

    /// Makes a state that has dialed its bootstrap peer [`PEER`], and wants its book.
    pub(crate) fn bootstrapped() -> Self {
        let mut bench = Self::new();
        bench.feed(InEvent::AddBootstrap(topic(), vec![(id(PEER), node(PEER, 1).addresses)]));
        bench.pass(Duration::from_secs(1));
        bench.open_link(LINK, PEER, true);
        bench.hello(LINK, 9);
        bench.frame(LINK, TopicFrame::Open(topic()));
        bench
    }

    /// Makes a state with a link to [`PEER`], which sent a hello and opened the topic as number 0.
    pub(crate) fn linked() -> Self {
        Self::linked_as(Config::default())
    }

    pub(crate) fn linked_as(config: Config) -> Self {
        let mut bench = Self::with(config);
        bench.open_link(LINK, PEER, false);
        bench.hello(LINK, 9);
        bench.frame(LINK, TopicFrame::Open(topic()));
        bench
    }

    pub(crate) fn feed(&mut self, event: InEvent) {
        self.state.handle(event, self.now).unwrap();
        let begin = self.out.len();
        self.out.extend(std::iter::from_fn(|| self.state.poll()));
        let answer = |out: &OutEvent| match out {
            OutEvent::Send(link, lane, bytes) if *bytes == Frame::Ping.encode() => {
                Some((*link, InEvent::Received(*link, *lane, Frame::Ack.encode())))
            }
            OutEvent::Keepalive(link, _) => Some((*link, InEvent::Acknowledged(*link))),
            _ => None,
        };
        let answers: Vec<_> = self.out[begin..].iter().filter_map(answer).collect();
        for (link, answer) in answers {
            let hung = self.hung.contains(&link) && !matches!(answer, InEvent::Acknowledged(_));
            if !self.silent.contains(&link) && !hung {
                self.feed(answer);
            }
        }
    }

    pub(crate) fn open_link(&mut self, link: LinkId, peer: u8, dialed: bool) {
        self.feed(InEvent::LinkOpened {
            link,
            peer: id(peer),
            address: node(peer, 1).addresses.pop(),
            dialed,
        });
    }

    pub(crate) fn hello(&mut self, link: LinkId, boot_id: u64) {
        let hello = Hello { min_version: 1, max_version: 1, boot_id, features: 0 };
        self.bytes(link, Frame::Hello(hello).encode());
    }

    pub(crate) fn frame(&mut self, link: LinkId, frame: TopicFrame) {
        self.bytes(link, Frame::Topic(0, frame).encode());
    }

    pub(crate) fn bytes(&mut self, link: LinkId, bytes: Bytes) {
        self.feed(InEvent::Received(link, Lane::Control, bytes));
    }

    /// Moves the time, and serves every timer on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.state.next_timer().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.feed(InEvent::Timer);
        }
        self.now = end;
    }

    /// Returns the frames of the topic that were sent since the last call.
    pub(crate) fn sent(&mut self) -> Vec<(LinkId, TopicFrame)> {
        let out = std::mem::take(&mut self.out);
        out.into_iter()
            .filter_map(|event| match event {
                OutEvent::Send(link, _, bytes) => match Frame::decode(&bytes).unwrap().unwrap() {
                    Frame::Topic(_, frame) => Some((link, frame)),
                    Frame::Hello(_) | Frame::Ping | Frame::Ack => None,
                },
                _ => None,
            })
            .collect()
    }

    pub(crate) fn dropped(&self) -> Vec<&'static str> {
        let what = |event: &OutEvent| match event {
            OutEvent::Dropped { what, .. } => Some(what.label()),
            _ => None,
        };
        self.out.iter().filter_map(what).collect()
    }

    pub(crate) fn closed(&self) -> Vec<(LinkId, crate::CloseCode)> {
        let closed = |event: &OutEvent| match event {
            OutEvent::Close(link, code) => Some((*link, *code)),
            _ => None,
        };
        self.out.iter().filter_map(closed).collect()
    }
}
