//! The links between the nodes, what is on its way, and what nodes want done.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{
    CloseCode, Config, EndpointId, Identity, InEvent, Lane, LinkEnd, LinkId, NodeRecord, OutEvent,
    Profile, State, TopicEvent, TopicOptions,
};
use tokio::time::Instant;

use super::{
    super::properties::{Told, announcements_rise, no_false_verdict},
    BLOCK, CONNECT, Channel, Content, Due, IDLE, Link, Message, NODES, REDIAL, World, hash,
};

impl World<'_> {
    /// A frame comes again, on whatever link there is by now between its sender and that node.
    pub(super) fn again(
        &mut self,
        from: usize,
        to: usize,
        lane: Lane,
        bytes: Bytes,
    ) -> Result<(), String> {
        let is_open = |link: &Link| link.ends.contains(&from) && link.open[link.side(to)];
        let mut links = self.links.iter().filter(|(_, link)| link.ends.contains(&to));
        let link = links.find(|(_, link)| is_open(link)).map(|(id, _)| *id);
        link.map_or(Ok(()), |link| self.feed(to, InEvent::Received(link, lane, bytes)))
    }

    pub(super) fn start(&mut self, number: usize, sequence: u64) -> Result<(), String> {
        let node = &mut self.nodes[number];
        node.lives += 1;
        node.reserved = sequence + BLOCK;
        (node.leaving, node.told) = (false, Told::default());
        let boot_id = (number as u64 + 1) << 32 | node.lives;
        let identity = Identity { key: key(number), boot_id, sequence, reserved: node.reserved };
        node.history = hash(&(node.history, sequence, boot_id, self.now - self.begin));
        let seed = [u8::try_from(boot_id % 251).expect("below 251"); 32];
        let mut state = State::new(identity, seed, self.now).sharing(Arc::clone(&self.verified));
        if let Some(rule) = self.bounds.without {
            state = state.without(rule);
        }
        node.state = Some(state);
        self.note_reach(number);
        let options = TopicOptions {
            profile: Profile::new(format!("node-{number}")),
            config: Config::default(),
        };
        let others = (0..NODES).filter(|other| *other != number);
        let others = others.map(|other| (id(other), vec![address(other)])).collect();
        self.feed(number, InEvent::SetAddresses(vec![address(number)]))?;
        self.feed(number, InEvent::Join(self.topic, Box::new(options)))?;
        self.feed(number, InEvent::AddBootstrap(self.topic, others))
    }

    /// The node stops. Others hear nothing, until their links time out.
    pub(super) fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.state.take().is_none() {
            return;
        }
        node.paused = false;
        self.note_reach(number);
        self.due.retain(|(_, due)| *due != Due::Resume(number));
        self.time_out(number, false);
        self.channels
            .retain(|channel, _| !matches!(channel, Channel::Dial(from, _) if *from == number));
        self.due.retain(|(_, due)| !matches!(due, Due::Redial(from, ..) if *from == number));
    }

    /// The links of a node time out at the other ends, or at both.
    pub(super) fn time_out(&mut self, number: usize, both: bool) {
        let links = self.links.iter_mut().filter(|(_, link)| link.ends.contains(&number));
        let mut ends = Vec::new();
        for (id, link) in links {
            let side = link.side(number);
            ends.push((*id, link.ends[1 - side]));
            if both {
                ends.push((*id, number));
            } else {
                link.open[side] = false;
            }
        }
        for (link, end) in ends {
            self.later(IDLE, Due::TimedOut(link, end));
        }
        if !both {
            let to =
                |channel: &Channel| matches!(channel, Channel::Link(_, to, _) if *to == number);
            self.channels.retain(|channel, _| !to(channel));
        }
    }

    pub(super) fn pop(&mut self, channel: Channel) -> Option<Message> {
        let frames = self.channels.get_mut(&channel)?;
        let message = frames.pop_front();
        if frames.is_empty() {
            self.channels.remove(&channel);
        }
        message
    }

    pub(super) fn push(&mut self, channel: Channel, content: Content) {
        let message = Message { sent: self.now - self.begin, depth: self.depth + 1, content };
        self.channels.entry(channel).or_default().push_back(message);
    }

    pub(super) fn deliver(&mut self, channel: Channel) -> Result<(), String> {
        let Some(message) = self.pop(channel) else { return Ok(()) };
        self.depth = message.depth;
        let (link, to) = match channel {
            Channel::Dial(from, to) => return self.dial(from, to, self.now + CONNECT),
            Channel::Link(link, to, _) => (link, to),
        };
        let inner = self.links.get_mut(&link).expect("a channel of a link");
        let side = inner.side(to);
        match message.content {
            Content::Dial => unreachable!("on its own channel"),
            Content::Opened => {
                inner.open[side] = true;
                let peer = inner.ends[1 - side];
                self.opened(to, link, peer, false)
            }
            Content::Frame { lane, bytes, is_keepalive } => {
                if is_keepalive {
                    self.push(
                        Channel::Link(link, self.links[&link].ends[1 - side], 3),
                        Content::Acknowledged,
                    );
                }
                self.feed(to, InEvent::Received(link, lane, bytes))
            }
            Content::Acknowledged => self.feed(to, InEvent::Acknowledged(link)),
            Content::Closed(code) => {
                self.end_side(link, side, LinkEnd::Remote(CloseCode::from(code)))
            }
        }
    }

    pub(super) fn dial(&mut self, from: usize, to: usize, until: Instant) -> Result<(), String> {
        if self.nodes[from].state.is_none() {
            return Ok(());
        }
        let answers = self.nodes[to].state.is_some()
            && !self.nodes[to].paused
            && !self.nodes[from].paused
            && !self.nodes[to].cut_off
            && !self.nodes[from].cut_off;
        if !answers && self.now + REDIAL < until {
            self.due.insert((self.now + REDIAL, Due::Redial(from, to, until)));
            return Ok(());
        }
        if !answers {
            return self.feed(from, InEvent::DialFailed(id(to)));
        }
        let node = &mut self.nodes[from];
        node.dials += 1;
        // The number says which nodes it links, whatever other nodes did before.
        let link = LinkId((to as u64) << 40 | (from as u64) << 32 | node.dials);
        self.links.insert(link, Link { ends: [from, to], open: [true, false] });
        self.push(Channel::Link(link, to, 0), Content::Opened);
        self.opened(from, link, to, true)
    }

    pub(super) fn opened(
        &mut self,
        node: usize,
        link: LinkId,
        peer: usize,
        dialed: bool,
    ) -> Result<(), String> {
        let (peer, address) = (id(peer), Some(address(peer)));
        self.feed(node, InEvent::LinkOpened { link, peer, address, dialed })
    }

    /// A link breaks at both ends.
    pub(super) fn end(&mut self, link: LinkId, end: LinkEnd) -> Result<(), String> {
        self.end_side(link, 0, end)?;
        self.end_side(link, 1, end)
    }

    pub(super) fn end_side(
        &mut self,
        link: LinkId,
        side: usize,
        end: LinkEnd,
    ) -> Result<(), String> {
        let Some(inner) = self.links.get_mut(&link) else { return Ok(()) };
        let (to, was_open) = (inner.ends[side], std::mem::take(&mut inner.open[side]));
        let is_over = !inner.open[1 - side] && !self.opens(link, 1 - side);
        self.channels.retain(|channel, _| !channel.is_of(link, Some(to)));
        if is_over {
            self.links.remove(&link);
            self.channels
                .retain(|channel, _| !matches!(channel, Channel::Link(of, ..) if *of == link));
        }
        if was_open { self.feed(to, InEvent::LinkClosed(link, end)) } else { Ok(()) }
    }

    /// Returns true if an end of a link will learn that it is open.
    pub(super) fn opens(&self, link: LinkId, side: usize) -> bool {
        let to = self.links[&link].ends[side];
        let first = self.channels.get(&Channel::Link(link, to, 0)).and_then(VecDeque::front);
        first.is_some_and(|message| matches!(message.content, Content::Opened))
    }

    /// Hands an event to a node, and does what it wants done.
    pub(super) fn feed(&mut self, number: usize, event: InEvent) -> Result<(), String> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let node = &mut self.nodes[number];
            let Some(state) = node.state.as_mut() else { return Ok(()) };
            self.events += 1;
            let what = match &event {
                InEvent::Received(link, lane, bytes) => hash(&(link, lane, bytes)),
                event => hash(&format!("{event:?}")),
            };
            node.history = hash(&(node.history, self.now - self.begin, what));
            if self.bounds.verbose {
                let at = (self.now - self.begin).as_secs_f64();
                println!("{at:.6} s, node {number}: {event:?}");
            }
            // An application may ask for what is no longer possible.
            let _ = state.handle(event, self.now);
            let outputs: Vec<_> = std::iter::from_fn(|| state.poll()).collect();
            for output in outputs {
                self.perform(number, output, &mut events)?;
            }
        }
        Ok(())
    }

    pub(super) fn perform(
        &mut self,
        number: usize,
        output: OutEvent,
        events: &mut VecDeque<InEvent>,
    ) -> Result<(), String> {
        if self.bounds.verbose {
            println!("  node {number} wants {output:?}");
        }
        match output {
            OutEvent::Dial(peer, _) => {
                self.push(Channel::Dial(number, number_of(&peer)), Content::Dial);
            }
            OutEvent::Send(link, lane, bytes) => self.send(number, link, lane, bytes, false),
            OutEvent::Keepalive(link, bytes) => self.send(number, link, Lane::Control, bytes, true),
            OutEvent::Close(link, code) => {
                let Some(inner) = self.links.get_mut(&link) else { return Ok(()) };
                let side = inner.side(number);
                let other = inner.ends[1 - side];
                if std::mem::take(&mut inner.open[side]) {
                    events.push_back(InEvent::LinkClosed(link, LinkEnd::Local(code)));
                    self.push(Channel::Link(link, other, 0), Content::Closed(code.into()));
                }
            }
            OutEvent::ReserveSequences(below) => {
                self.nodes[number].reserved = below;
                events.push_back(InEvent::SequencesReserved(below));
            }
            OutEvent::Topic(_, event) => self.on_event(number, &event)?,
            OutEvent::Dropped { .. } => {}
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        from: usize,
        link: LinkId,
        lane: Lane,
        bytes: Bytes,
        is_keepalive: bool,
    ) {
        let Some(inner) = self.links.get(&link) else { return };
        let side = inner.side(from);
        if inner.open[side] && (inner.open[1 - side] || self.opens(link, 1 - side)) {
            let channel = Channel::Link(link, inner.ends[1 - side], lane as u8);
            self.push(channel, Content::Frame { lane, bytes, is_keepalive });
        }
    }

    pub(super) fn on_event(&mut self, number: usize, event: &TopicEvent) -> Result<(), String> {
        let about = |record: &NodeRecord| number_of(&record.id);
        match event {
            TopicEvent::Announced(record) => {
                let node = &mut self.nodes[number];
                announcements_rise(node.announced, record.sequence)
                    .map_err(|error| format!("node {number}: {error}"))?;
                node.announced = Some(record.sequence);
            }
            // The node has left, and its process ends.
            TopicEvent::Closed => self.crash(number),
            TopicEvent::PeerJoined(record)
            | TopicEvent::PeerUpdated(record)
            | TopicEvent::PeerRefreshed(record)
            | TopicEvent::PeerSuspected(record)
            | TopicEvent::PeerRecovered(record)
            | TopicEvent::PeerLeft(record)
            | TopicEvent::PeerLost(record, _) => {
                let who = about(record);
                let lost = self.nodes[number].told.take(who, event);
                let judged = lost.and_then(|lost| {
                    if !lost {
                        return Ok(());
                    }
                    let peer = &self.nodes[who];
                    let runs = peer.state.is_some() && !peer.leaving;
                    let reach = [&self.nodes[number].reach, &peer.reach];
                    no_false_verdict(reach, runs, self.now)
                });
                judged.map_err(|error| format!("node {number} of {who}: {error} ({event:?})"))?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn key(number: usize) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(number).expect("a small number") + 1; 32])
}

fn id(number: usize) -> EndpointId {
    IDS[number]
}

fn number_of(id: &EndpointId) -> usize {
    IDS.iter().position(|other| other == id).expect("one of the nodes")
}

static IDS: LazyLock<[EndpointId; NODES]> = LazyLock::new(|| {
    std::array::from_fn(|number| EndpointId::from_bytes(key(number).verifying_key().to_bytes()))
});

fn address(number: usize) -> TransportAddr {
    let number = u8::try_from(number).expect("a small number");
    TransportAddr::Ip(([192, 0, 2, number + 1], 4433).into())
}
