//! Dials, frames and the ends of links, as with QUIC.
//!
//! Each node has a [`Station`]: its endpoint. The transport knows nothing of what runs behind it,
//! and returns what a node is to be given as an [`Arrival`].

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{CloseCode, EndpointId, InEvent, Lane, LinkEnd, LinkId};
use rand::RngExt;

use crate::{
    clock::{Nanos, nanos},
    conditions::Conditions,
    cuts::Cuts,
    engine::Engine,
    link::{Link, LinkNumber, Side},
    queue::{Dial, SimEvent},
    sent::{Sent, packets},
};

/// The first packet of a dial is sent again after this, then after twice as long, and so on.
const DIAL_RETRY: Nanos = 1_000_000_000;
/// A lone packet is acknowledged after this time (RFC 9000, `max_ack_delay`), and the application
/// learns of it a moment later.
const ACK_DELAY: Nanos = 30_000_000;
/// The tags of a hello and of the frame that opens a topic. They are never dropped, because no
/// stream could go on without them.
const NEVER_DROPPED: [u8; 2] = [0, 1];

/// What the transport uses of the network during one call.
#[derive(Debug)]
pub(crate) struct Env<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) conditions: &'a Conditions,
}

impl Env<'_> {
    pub(crate) fn now(&self) -> Nanos {
        self.engine.clock.now
    }

    pub(crate) fn push(&mut self, at: Nanos, event: SimEvent) {
        self.engine.queue.push(at, event);
    }

    fn idle(&self) -> Nanos {
        nanos(self.conditions.idle)
    }

    pub(crate) fn pair_latency(&self, a: usize, b: usize) -> Nanos {
        self.conditions.latency.of_pair(self.engine.seed, a, b)
    }

    fn delay(&mut self, pair: Nanos) -> Nanos {
        self.conditions.latency.of_frame(pair, &mut self.engine.rng)
    }

    /// Returns true for a share of all cases.
    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.engine.rng.random_bool(share.min(1.0))
    }
}

/// An event for a node.
pub(crate) type Arrival = (usize, InEvent);

/// A frame was not sent, because the queue of its lane is full.
#[derive(Debug)]
pub(crate) struct QueueFull;

/// The endpoint of a node.
#[derive(Debug)]
struct Station {
    id: EndpointId,
    /// The life of the node that runs now; `None` while the node is down.
    life: Option<u64>,
    /// Since when the node is paused; `None` if it is not.
    paused: Option<Nanos>,
    /// What arrived while the node was paused.
    inbox: VecDeque<SimEvent>,
    links: BTreeSet<LinkNumber>,
    /// When a frame that is sent now would leave the node, by lane. This models the bandwidth.
    uplink: [Nanos; 3],
    /// What the node sent, over all of its lives.
    sent: Sent,
}

/// The endpoints of all nodes, the links between them, and which of them hear each other.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    cuts: Cuts,
    stations: Vec<Station>,
    links: Vec<Option<Box<Link>>>,
}

/// Endpoints.
impl Transport {
    /// Adds the endpoint of a node that is down.
    pub(crate) fn add(&mut self, id: EndpointId) {
        self.cuts.add();
        self.stations.push(Station {
            id,
            life: None,
            paused: None,
            inbox: VecDeque::new(),
            links: BTreeSet::new(),
            uplink: [0; 3],
            sent: Sent::default(),
        });
    }

    /// A node that is down has another key from now on.
    pub(crate) fn rekey(&mut self, node: usize, id: EndpointId) {
        self.stations[node].id = id;
    }

    /// A node runs from now on.
    pub(crate) fn up(&mut self, node: usize, life: u64) {
        self.stations[node].life = Some(life);
    }

    /// A node stops as in a crash. The others hear nothing until their links time out.
    pub(crate) fn down(&mut self, node: usize, env: &mut Env) {
        let station = &mut self.stations[node];
        (station.life, station.paused, station.uplink) = (None, None, [0; 3]);
        station.inbox.clear();
        for number in self.links_of(node) {
            let Some(link) = self.link(number) else { continue };
            let side = link.side_of(node);
            // If the link is cut, the timeouts of the cut come before those of the crash.
            if link.cut.is_none() {
                let event = SimEvent::TimedOut(number, 1 - side, link.epoch);
                env.push(env.now() + env.idle(), event);
            }
            self.shut(number, side, env);
        }
    }

    /// Pauses a node that is up and not paused: what arrives for it waits.
    pub(crate) fn pause(&mut self, node: usize, env: &mut Env) {
        self.stations[node].paused = Some(env.now());
        for number in self.links_of(node) {
            let Some(link) = self.link(number) else { continue };
            let event = SimEvent::Silent(number, 1 - link.side_of(node), link.epoch);
            env.push(env.now() + env.idle(), event);
        }
    }

    /// Ends the pause of a node. Returns since when it was paused.
    pub(crate) fn resume(&mut self, node: usize) -> Option<Nanos> {
        self.stations[node].paused.take()
    }

    pub(crate) fn is_paused(&self, node: usize) -> bool {
        self.stations[node].paused.is_some()
    }

    /// Takes what arrived while a node was paused.
    pub(crate) fn take_inbox(&mut self, node: usize) -> VecDeque<SimEvent> {
        std::mem::take(&mut self.stations[node].inbox)
    }

    /// Returns the links of a node.
    pub(crate) fn links_of(&self, node: usize) -> Vec<LinkNumber> {
        self.stations[node].links.iter().copied().collect()
    }

    /// Returns the node at an end of a link.
    pub(crate) fn node_at_end(&self, number: LinkNumber, side: Side) -> Option<usize> {
        let link = self.links.get(number.0 as usize)?.as_ref()?;
        Some(link.ends[side].node)
    }

    /// Returns the side of a node on a link that it has open, although the other side has given the
    /// link up.
    pub(crate) fn left_alone(&self, number: LinkNumber, node: usize) -> Option<Side> {
        let link = self.links[number.0 as usize].as_ref()?;
        let side = link.side_of(node);
        (link.ends[side].open && !link.ends[1 - side].open).then_some(side)
    }

    /// Returns what a node sent so far, over all of its lives.
    pub(crate) fn sent_by(&self, node: usize) -> Sent {
        self.stations[node].sent
    }

    /// Returns what all nodes sent so far.
    pub(crate) fn sent(&mut self, env: &mut Env) -> Sent {
        for number in 0..self.links.len() {
            self.count_keep_alives(LinkNumber::new(number), env);
        }
        let mut all = Sent::default();
        self.stations.iter().for_each(|station| all += station.sent);
        all
    }

    /// Returns the node that answers for an id at the addresses of these nodes. Without an address,
    /// a lookup finds it.
    fn target(&self, to: EndpointId, nodes: Option<Vec<usize>>) -> Option<usize> {
        let has_key = |station: &Station| station.id == to;
        let Some(nodes) = nodes else { return self.stations.iter().position(has_key) };
        let there = nodes.into_iter().filter(|node| self.stations.get(*node).is_some_and(has_key));
        there.max_by_key(|node| self.stations[*node].life.is_some())
    }
}

/// Which nodes hear which others.
impl Transport {
    pub(crate) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Cuts nodes off from others: the links on which something is not heard any more are cut.
    pub(crate) fn cut_off(&mut self, change: impl FnOnce(&mut Cuts), env: &mut Env) {
        change(&mut self.cuts);
        for (number, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link.as_mut().filter(|link| link.cut.is_none()) else { continue };
            let (a, b) = (link.ends[0].node, link.ends[1].node);
            let blocked = [self.cuts.is_cut(b, a), self.cuts.is_cut(a, b)];
            if blocked == [false, false] {
                continue;
            }
            link.cut = Some(env.now());
            link.epoch += 1;
            for (side, deaf) in blocked.into_iter().enumerate() {
                // A side that still hears the other one does so until that one has given up.
                let at = env.now() + if deaf { env.idle() } else { 2 * env.idle() };
                env.push(at, SimEvent::TimedOut(LinkNumber::new(number), side, link.epoch));
            }
        }
    }

    /// Lets nodes hear others again: the links on which all is heard are released.
    pub(crate) fn reconnect(&mut self, change: impl FnOnce(&mut Cuts), env: &mut Env) {
        change(&mut self.cuts);
        for number in 0..self.links.len() {
            let Some(link) = self.links[number].as_ref().filter(|link| link.cut.is_some()) else {
                continue;
            };
            let (a, b) = (link.ends[0].node, link.ends[1].node);
            if !self.cuts.is_cut(a, b) && !self.cuts.is_cut(b, a) {
                self.release(LinkNumber::new(number), env);
            }
        }
    }

    /// Sends the frames again that a cut held back, some time after it is healed.
    fn release(&mut self, number: LinkNumber, env: &mut Env) {
        let now = env.now();
        let Some(link) = self.link(number) else { return };
        let since = link.cut.take().unwrap_or(now);
        link.epoch += 1;
        let epoch = link.epoch;
        let held = [0, 1].map(|side| std::mem::take(&mut link.ends[side].held));
        let open = [0, 1].map(|side| link.ends[side].open);
        let most = (now - since).min(nanos(env.conditions.keep_alive)).max(1);
        for (side, frames) in held.into_iter().enumerate() {
            let late = env.engine.rng.random_range(0..most);
            for frame in frames {
                self.transmit(number, side, frame, late, env);
            }
        }
        // One side is gone, and the other will notice.
        for side in [0, 1] {
            if open[side] && !open[1 - side] {
                env.push(now + env.idle(), SimEvent::TimedOut(number, side, epoch));
            }
        }
    }

    fn conditions_between(&self, from: usize, to: usize, env: &Env) -> Conditions {
        env.conditions.with_losses(self.cuts.losses(from, to))
    }
}

/// Dials and links.
impl Transport {
    pub(crate) fn on_dial(
        &mut self,
        from: usize,
        to: EndpointId,
        addresses: &[TransportAddr],
        node_at: impl Fn(&TransportAddr) -> Option<usize>,
        env: &mut Env,
    ) {
        let station = &mut self.stations[from];
        station.sent.dials += 1;
        let Some(life) = station.life else { return };
        let gives_up = env.now() + nanos(env.conditions.connect_timeout);
        let refused = env.happens(env.conditions.dial_failure);
        let there = || addresses.iter().filter_map(&node_at).collect();
        match self.target(to, (!addresses.is_empty()).then(there)) {
            Some(target) if !refused => {
                let pair = env.pair_latency(from, target);
                let at = env.now() + env.delay(pair);
                let dial = Dial { from, life, to, target, gives_up, retry: DIAL_RETRY };
                env.push(at, SimEvent::Dialed(Box::new(dial)));
            }
            _ => env.push(gives_up, SimEvent::DialFailed { from, life, to }),
        }
    }

    pub(crate) fn on_dialed(&mut self, mut dial: Dial, env: &mut Env) {
        let (from, target) = (dial.from, dial.target);
        if self.stations[from].life != Some(dial.life) {
            return;
        }
        let station = &self.stations[target];
        let answers = station.life.filter(|_| {
            station.id == dial.to
                && station.paused.is_none()
                && !self.cuts.is_cut(from, target)
                && !self.cuts.is_cut(target, from)
        });
        let now = env.now();
        let Some(life) = answers else {
            let again = now + dial.retry;
            if again < dial.gives_up {
                dial.retry *= 2;
                env.push(again, SimEvent::Dialed(Box::new(dial)));
            } else {
                let (life, to) = (dial.life, dial.to);
                env.push(dial.gives_up.max(now), SimEvent::DialFailed { from, life, to });
            }
            return;
        };
        let latency = env.pair_latency(from, target);
        let ways = [(from, target), (target, from)];
        let late = ways.map(|(from, to)| {
            let conditions = self.conditions_between(from, to, env);
            conditions.first_flight(&mut env.engine.rng)
        });
        let opens = now + env.delay(latency) + late.iter().sum::<Nanos>();
        if opens > dial.gives_up {
            let (life, to) = (dial.life, dial.to);
            return env.push(dial.gives_up, SimEvent::DialFailed { from, life, to });
        }
        let accepts = opens + env.delay(latency);
        let ends = [(from, dial.life, opens), (target, life, accepts)];
        let number = LinkNumber::new(self.links.len());
        self.links.push(Some(Box::new(Link::new(ends, latency))));
        for node in [from, target] {
            self.stations[node].sent.handshake();
            self.stations[node].links.insert(number);
        }
        env.push(opens, SimEvent::Opened(number, 0));
        env.push(accepts, SimEvent::Opened(number, 1));
    }

    fn link(&mut self, number: LinkNumber) -> Option<&mut Link> {
        self.links.get_mut(number.0 as usize)?.as_deref_mut()
    }

    /// Returns the node at a side of a link, if it is still in the life in which the link was
    /// opened.
    fn node_of(&mut self, number: LinkNumber, side: Side) -> Option<usize> {
        let end = &self.link(number)?.ends[side];
        let (node, life) = (end.node, end.life);
        (self.stations[node].life == Some(life)).then_some(node)
    }

    /// Puts off an event at a paused node. Returns true if it was put off.
    fn put_off(&mut self, node: usize, event: impl FnOnce() -> SimEvent) -> bool {
        let station = &mut self.stations[node];
        let paused = station.paused.is_some();
        if paused {
            station.inbox.push_back(event());
        }
        paused
    }

    pub(crate) fn on_opened(
        &mut self,
        number: LinkNumber,
        side: Side,
        address: impl Fn(usize) -> TransportAddr,
        env: &mut Env,
    ) -> Option<Arrival> {
        let node = self.node_of(number, side);
        let other = self.node_of(number, 1 - side);
        let link = self.link(number)?;
        let epoch = link.epoch;
        let Some(node) = node else {
            // The node went down meanwhile, and the other side will notice.
            link.ends[side].notified = true;
            if side == 0 {
                self.forget(number);
            } else {
                env.push(env.now() + env.idle(), SimEvent::TimedOut(number, 0, epoch));
            }
            return None;
        };
        if side == 1 && link.cut.is_some() {
            link.ends[side].notified = true;
            return None;
        }
        let peer = link.ends[1 - side].node;
        if side == 1 && !link.ends[0].open && other.is_none() {
            self.forget(number);
            return None;
        }
        if self.put_off(node, || SimEvent::Opened(number, side)) {
            return None;
        }
        let link = self.link(number)?;
        (link.ends[side].open, link.ends[side].notified) = (true, true);
        Some((
            node,
            InEvent::LinkOpened {
                link: number.id(side),
                peer: self.stations[peer].id,
                address: Some(address(peer)),
                dialed: side == 0,
            },
        ))
    }

    pub(crate) fn on_close(&mut self, node: usize, id: LinkId, code: CloseCode, env: &mut Env) {
        let (number, side) = LinkNumber::of(id);
        let now = env.now();
        let Some(link) = self.link(number) else { return };
        if link.ends[side].node != node || !link.ends[side].open {
            return;
        }
        let (to, pair, epoch) = (link.ends[1 - side].node, link.latency, link.epoch);
        // If the peer is in good standing, what was sent before arrives before the end does.
        let drained = !matches!(code, CloseCode::Overflow | CloseCode::Protocol);
        let flights = &link.ends[side].flights;
        let last = if drained { flights[0].last.max(flights[1].last) } else { 0 };
        let opens = link.ends[1 - side].opens;
        if self.cuts.is_cut(node, to) {
            env.push(now + env.idle(), SimEvent::TimedOut(number, 1 - side, epoch));
        } else {
            let at = (now + env.delay(pair)).max(last + 1).max(opens + 2);
            env.push(at, SimEvent::Closed(number, 1 - side, LinkEnd::Remote(code)));
        }
        env.push(now, SimEvent::Closed(number, side, LinkEnd::Local(code)));
    }

    /// A link has ended for a side.
    pub(crate) fn on_closed(
        &mut self,
        number: LinkNumber,
        side: Side,
        end: LinkEnd,
        env: &mut Env,
    ) -> Option<Arrival> {
        let Some(node) = self.node_of(number, side) else {
            self.shut(number, side, env);
            return None;
        };
        if self.put_off(node, || SimEvent::Closed(number, side, end)) {
            return None;
        }
        let open = self.link(number).is_some_and(|link| link.ends[side].open);
        self.shut(number, side, env);
        open.then(|| (node, InEvent::LinkClosed(number.id(side), end)))
    }

    /// Removes a link from a side. A link that neither side knows is forgotten.
    fn shut(&mut self, number: LinkNumber, side: Side, env: &Env) {
        self.count_keep_alives(number, env);
        let Some(link) = self.link(number) else { return };
        (link.ends[side].open, link.ends[side].notified) = (false, true);
        link.ends[side].held.clear();
        let node = link.ends[side].node;
        // A paused node learns later that the link was opened, and then that it ended.
        let over = !link.ends[1 - side].open && link.ends[1 - side].notified;
        self.stations[node].links.remove(&number);
        if over {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: LinkNumber) {
        if let Some(link) = self.links.get_mut(number.0 as usize).and_then(Option::take) {
            for end in &link.ends {
                self.stations[end.node].links.remove(&number);
            }
        }
    }

    /// A side has heard nothing for the idle timeout, unless that changed since `epoch`.
    pub(crate) fn on_timed_out(
        &mut self,
        number: LinkNumber,
        side: Side,
        epoch: u32,
        env: &mut Env,
    ) -> Option<Arrival> {
        let same = self.link(number)?.epoch == epoch;
        if same { self.on_closed(number, side, LinkEnd::TimedOut, env) } else { None }
    }

    /// As [`Transport::on_timed_out`], if the other side's node is paused since then.
    pub(crate) fn on_silent(
        &mut self,
        number: LinkNumber,
        side: Side,
        epoch: u32,
        env: &mut Env,
    ) -> Option<Arrival> {
        let other = self.node_of(number, 1 - side)?;
        let silent = self.stations[other].paused.is_some_and(|at| at + env.idle() <= env.now());
        if silent { self.on_timed_out(number, side, epoch, env) } else { None }
    }

    /// Returns the number of open connections between two nodes.
    pub(crate) fn connections(&self, a: usize, b: usize) -> usize {
        let both = self.stations[a].links.intersection(&self.stations[b].links);
        both.filter_map(|number| self.links[number.0 as usize].as_ref())
            .filter(|link| link.ends[0].open && link.ends[1].open)
            .count()
    }

    /// Breaks one of the open connections, chosen by the seed.
    pub(crate) fn break_a_connection(&mut self, env: &mut Env) {
        let links = self.links.iter().enumerate();
        let open = links.filter(|(_, link)| {
            link.as_ref().is_some_and(|link| link.ends[0].open && link.ends[1].open)
        });
        let open: Vec<_> = open.map(|(number, _)| number).collect();
        if !open.is_empty() {
            let number = LinkNumber::new(open[env.engine.rng.random_range(0..open.len())]);
            for side in [0, 1] {
                env.push(env.now(), SimEvent::Closed(number, side, LinkEnd::Lost));
            }
        }
    }
}

/// Frames.
impl Transport {
    /// Sends a frame. An overflow of any lane but that of broadcasts closes the link.
    pub(crate) fn on_send(
        &mut self,
        node: usize,
        id: LinkId,
        (lane, bytes): (Lane, Bytes),
        env: &mut Env,
    ) -> Result<(), QueueFull> {
        let (number, side) = LinkNumber::of(id);
        let Some(link) = self.link(number) else { return Ok(()) };
        let end = &mut link.ends[side];
        if end.node != node || !end.open {
            return Ok(());
        }
        if end.flights[lane as usize].send(bytes.len(), lane, env.now()).is_err() {
            if lane != Lane::Broadcast {
                self.on_close(node, id, CloseCode::Overflow, env);
            }
            return Err(QueueFull);
        }
        self.count_sent(number, side, lane, bytes.len(), env);
        let tag = bytes.get(1).copied().unwrap_or_default();
        let may_drop = env.conditions.drop > 0.0 && !NEVER_DROPPED.contains(&tag);
        if may_drop && env.happens(env.conditions.drop) {
            if let Some(link) = self.link(number) {
                link.ends[side].flights[lane as usize].taken(bytes.len());
            }
            return Ok(());
        }
        self.transmit(number, side, (lane, bytes), 0, env);
        Ok(())
    }

    /// Notes that an end of a link waits for QUIC to acknowledge what it sends next.
    pub(crate) fn on_keepalive(&mut self, id: LinkId) {
        let (number, side) = LinkNumber::of(id);
        if let Some(link) = self.link(number) {
            link.ends[side].keepalive_pending = true;
        }
    }

    /// QUIC acknowledges what came to a side, if the other one waits for that.
    fn acknowledge(&mut self, number: LinkNumber, side: Side, env: &mut Env) {
        let Some(link) = self.link(number) else { return };
        let (from, to, pair) = (link.ends[side].node, link.ends[1 - side].node, link.latency);
        let waits = std::mem::take(&mut link.ends[1 - side].keepalive_pending);
        if !waits || self.cuts.is_cut(from, to) {
            return;
        }
        let conditions = self.conditions_between(from, to, env);
        let (late, _) = conditions.retransmission(1, pair, &mut env.engine.rng);
        let at = env.now() + ACK_DELAY + env.delay(pair) + late;
        env.push(at, SimEvent::Acknowledged(number, 1 - side));
    }

    pub(crate) fn on_acknowledged(&mut self, number: LinkNumber, side: Side) -> Option<Arrival> {
        let node = self.node_of(number, side)?;
        if self.put_off(node, || SimEvent::Acknowledged(number, side)) {
            return None;
        }
        let open = self.link(number)?.ends[side].open;
        open.then(|| (node, InEvent::Acknowledged(number.id(side))))
    }

    /// Counts the bytes of a frame on the wire, with the acknowledgements before it.
    fn count_sent(&mut self, number: LinkNumber, side: Side, lane: Lane, bytes: usize, env: &Env) {
        self.count_keep_alives(number, env);
        let Some(link) = self.link(number) else { return };
        let acks = link.ends[side].unacknowledged.sent(env.now());
        let node = link.ends[side].node;
        let sent = &mut self.stations[node].sent;
        sent.acks(acks);
        sent.frame(lane, bytes);
        sent.packets(packets(bytes));
    }

    /// Counts keep-alives: the end that dialed sends them, and the other end acknowledges them.
    fn count_keep_alives(&mut self, number: LinkNumber, env: &Env) {
        let interval = nanos(env.conditions.keep_alive);
        let Some(link) = self.link(number).filter(|link| link.cut.is_none()) else { return };
        let count = link.keep_alives(interval, env.now());
        if count > 0 {
            let [dialler, accepter] = [0, 1].map(|side: Side| link.ends[side].node);
            self.stations[dialler].sent.keep_alives(count);
            self.stations[accepter].sent.acks(count);
        }
    }

    /// Sends a frame, which arrives after all earlier frames of its lane.
    fn transmit(
        &mut self,
        number: LinkNumber,
        side: Side,
        (lane, bytes): (Lane, Bytes),
        extra: Nanos,
        env: &mut Env,
    ) {
        let Some(link) = self.link(number) else { return };
        let (from, to, pair) = (link.ends[side].node, link.ends[1 - side].node, link.latency);
        if self.cuts.is_cut(from, to) {
            if let Some(link) = self.link(number) {
                link.ends[side].held.push_back((lane, bytes));
            }
            return;
        }
        let departs = self.departs(from, lane, bytes.len(), env);
        let conditions = self.conditions_between(from, to, env);
        let (delayed, again) = conditions.retransmission(bytes.len(), pair, &mut env.engine.rng);
        self.stations[from].sent.repeated(again, bytes.len());
        let at = departs + env.delay(pair) + extra + delayed;
        let Some(link) = self.link(number) else { return };
        let opens = link.ends[1 - side].opens;
        let end = &mut link.ends[side];
        let flight = &mut end.flights[lane as usize];
        // The control stream's first frame, the hello, comes before anything of another stream.
        let at = at.max(flight.last + 1).max(opens + 1).max(end.hello.map_or(0, |at| at + 1));
        flight.last = at;
        if lane == Lane::Control {
            end.hello.get_or_insert(at);
        }
        env.push(at, SimEvent::Frame(number, 1 - side, lane, bytes));
    }

    /// Returns when a frame leaves its node. Control goes before queued sync frames, and those
    /// before broadcasts.
    fn departs(&mut self, node: usize, lane: Lane, bytes: usize, env: &Env) -> Nanos {
        let now = env.now();
        let Some(rate) = env.conditions.bandwidth else { return now };
        let takes = (bytes as u64 * 1_000_000_000) / rate.max(1);
        let uplink = &mut self.stations[node].uplink;
        let at = match lane {
            Lane::Control => now.max(uplink[0]),
            Lane::Sync => now.max(uplink[0]).max(uplink[1]),
            Lane::Broadcast => uplink.iter().copied().fold(now, Nanos::max),
        } + takes;
        match lane {
            Lane::Control => {
                uplink[0] = at;
                uplink[1] = uplink[1].max(at) + takes;
                uplink[2] = uplink[2].max(at) + takes;
            }
            Lane::Sync => {
                uplink[1] = at;
                uplink[2] = uplink[2].max(at) + takes;
            }
            Lane::Broadcast => uplink[2] = at,
        }
        at
    }

    pub(crate) fn on_frame(
        &mut self,
        number: LinkNumber,
        side: Side,
        (lane, bytes): (Lane, Bytes),
        env: &mut Env,
    ) -> Option<Arrival> {
        let node = self.node_of(number, side)?;
        if self.stations[node].paused.is_some() {
            let event = SimEvent::Frame(number, side, lane, bytes);
            self.stations[node].inbox.push_back(event);
            return None;
        }
        let link = self.link(number)?;
        link.ends[1 - side].flights[lane as usize].taken(bytes.len());
        let acks = link.ends[side].unacknowledged.received(packets(bytes.len()), env.now());
        self.stations[node].sent.acks(acks);
        self.acknowledge(number, side, env);
        let open = self.link(number)?.ends[side].open;
        open.then(|| (node, InEvent::Received(number.id(side), lane, bytes)))
    }
}
