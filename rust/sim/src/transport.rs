//! Dials, frames and the ends of links, as with QUIC.

use bytes::Bytes;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{
    CloseCode, DropReason, EndpointId, InEvent, Lane, LinkEnd, LinkId,
};
use rand::RngExt;

use crate::{
    clock::{Nanos, nanos},
    conditions::Conditions,
    link::{Link, LinkNumber, Side},
    network::{Network, address, node_at},
    node::Behavior,
    queue::{Dial, SimEvent},
    sent::packets,
};

/// The first packet of a dial is sent again after this, then after twice as long, and so on.
const DIAL_RETRY: Nanos = 1_000_000_000;
/// A lone packet is acknowledged after this time (RFC 9000, `max_ack_delay`), and the application
/// learns of it a moment later.
const ACK_DELAY: Nanos = 30_000_000;
/// The tags of a hello and of the frame that opens a topic. They are never dropped, because no
/// stream could go on without them.
const NEVER_DROPPED: [u8; 2] = [0, 1];

impl Network {
    /// Returns true if what one node sends does not reach another.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        let lost = self.nodes[from].loss.of_sent >= 1.0 || self.nodes[to].loss.of_arriving >= 1.0;
        let hole = !self.holes.is_empty() && self.holes.contains(&(from.min(to), from.max(to)));
        let (from, to) = (self.nodes[from].group, self.nodes[to].group);
        let parted = from != to && (self.one_way.contains(&from) || !self.one_way.contains(&to));
        lost || hole || parted
    }

    /// Returns the conditions of what one node sends to another.
    fn conditions_between(&self, from: usize, to: usize) -> Conditions {
        let more = [self.nodes[from].loss.of_sent, self.nodes[to].loss.of_arriving];
        self.conditions.with_losses(more)
    }

    fn pair_latency(&self, a: usize, b: usize) -> Nanos {
        self.conditions.latency.of_pair(self.seed, a, b)
    }

    fn delay(&mut self, pair: Nanos) -> Nanos {
        self.conditions.latency.of_frame(pair, &mut self.rng)
    }

    /// Returns the node that answers for an id at these addresses. Without an address, a lookup
    /// finds it.
    fn target(&self, to: EndpointId, addresses: &[TransportAddr]) -> Option<usize> {
        let peer = self.roster.number(&to)?;
        let holders = &self.roster.peers[peer].nodes;
        let has_key = |number: &usize| self.nodes[*number].peer == peer;
        if addresses.is_empty() {
            return holders.iter().copied().find(has_key);
        }
        let there = addresses.iter().filter_map(node_at);
        let there = there.filter(|number| *number < self.nodes.len() && has_key(number));
        there.max_by_key(|number| self.nodes[*number].is_up())
    }

    pub(crate) fn on_dial(&mut self, from: usize, to: EndpointId, addresses: &[TransportAddr]) {
        self.nodes[from].sent.dials += 1;
        let life = self.nodes[from].lives;
        let now = self.clock.now;
        let gives_up = now + nanos(self.conditions.connect_timeout);
        let refused = self.conditions.dial_failure > 0.0
            && self.rng.random_bool(self.conditions.dial_failure.min(1.0));
        match self.target(to, addresses) {
            Some(target) if !refused => {
                let pair = self.pair_latency(from, target);
                let at = now + self.delay(pair);
                let dial = Dial { from, life, to, target, gives_up, retry: DIAL_RETRY };
                self.queue.push(at, SimEvent::Dialed(Box::new(dial)));
            }
            _ => self.queue.push(gives_up, SimEvent::DialFailed { from, life, to }),
        }
    }

    pub(crate) fn on_dialed(&mut self, mut dial: Dial) {
        let (from, target) = (dial.from, dial.target);
        if self.nodes[from].lives != dial.life || !self.nodes[from].is_up() {
            return;
        }
        let answers = self.nodes[target].is_up()
            && self.nodes[target].id == dial.to
            && self.nodes[target].paused.is_none()
            && !self.is_cut(from, target)
            && !self.is_cut(target, from);
        let now = self.clock.now;
        if !answers {
            let again = now + dial.retry;
            if again < dial.gives_up {
                dial.retry *= 2;
                self.queue.push(again, SimEvent::Dialed(Box::new(dial)));
            } else {
                let (life, to) = (dial.life, dial.to);
                self.queue.push(dial.gives_up.max(now), SimEvent::DialFailed { from, life, to });
            }
            return;
        }
        let latency = self.pair_latency(from, target);
        let ways = [(from, target), (target, from)];
        let late =
            ways.map(|(from, to)| self.conditions_between(from, to).first_flight(&mut self.rng));
        let opens = now + self.delay(latency) + late.iter().sum::<Nanos>();
        if opens > dial.gives_up {
            let (life, to) = (dial.life, dial.to);
            return self.queue.push(dial.gives_up, SimEvent::DialFailed { from, life, to });
        }
        self.nodes[from].sent.handshake();
        self.nodes[target].sent.handshake();
        let accepts = opens + self.delay(latency);
        let ends = [(from, dial.life, opens), (target, self.nodes[target].lives, accepts)];
        let number = LinkNumber(u32::try_from(self.links.len()).unwrap_or(u32::MAX));
        self.links.push(Some(Box::new(Link::new(ends, latency))));
        self.nodes[from].links.insert(number);
        self.nodes[target].links.insert(number);
        self.queue.push(opens, SimEvent::Opened(number, 0));
        self.queue.push(accepts, SimEvent::Opened(number, 1));
    }

    fn link(&mut self, number: LinkNumber) -> Option<&mut Link> {
        self.links.get_mut(number.0 as usize)?.as_deref_mut()
    }

    /// Returns the node at a side of a link, if it is still in the life in which the link was
    /// opened.
    fn node_of(&mut self, number: LinkNumber, side: Side) -> Option<usize> {
        let end = &self.link(number)?.ends[side];
        let (node, life) = (end.node, end.life);
        (self.nodes[node].is_up() && self.nodes[node].lives == life).then_some(node)
    }

    /// Puts off an event at a paused node. Returns true if it was put off.
    fn put_off(&mut self, node: usize, event: impl FnOnce() -> SimEvent) -> bool {
        let paused = self.nodes[node].paused.is_some();
        if paused {
            self.nodes[node].inbox.push_back(event());
        }
        paused
    }

    pub(crate) fn on_opened(&mut self, number: LinkNumber, side: Side) {
        let node = self.node_of(number, side);
        let other = self.node_of(number, 1 - side);
        let now = self.clock.now;
        let idle = nanos(self.conditions.idle);
        let Some(link) = self.link(number) else { return };
        let epoch = link.epoch;
        let Some(node) = node else {
            // The node went down meanwhile, and the other side will notice.
            link.ends[side].notified = true;
            if side == 0 {
                self.forget(number);
            } else {
                self.queue.push(now + idle, SimEvent::TimedOut(number, 0, epoch));
            }
            return;
        };
        if side == 1 && link.cut.is_some() {
            link.ends[side].notified = true;
            return;
        }
        let peer = link.ends[1 - side].node;
        if side == 1 && !link.ends[0].open && other.is_none() {
            return self.forget(number);
        }
        if self.put_off(node, || SimEvent::Opened(number, side)) {
            return;
        }
        let (peer, address) = (self.nodes[peer].id, Some(address(peer)));
        if let Some(link) = self.link(number) {
            (link.ends[side].open, link.ends[side].notified) = (true, true);
        }
        let event = InEvent::LinkOpened { link: number.id(side), peer, address, dialed: side == 0 };
        self.feed(node, event);
    }

    pub(crate) fn on_send(&mut self, node: usize, id: LinkId, lane: Lane, bytes: Bytes) {
        let (number, side) = LinkNumber::of(id);
        let now = self.clock.now;
        let Some(link) = self.link(number) else { return };
        let end = &mut link.ends[side];
        if end.node != node || !end.open {
            return;
        }
        if end.flights[lane as usize].send(bytes.len(), lane, now).is_err() {
            if lane == Lane::Broadcast {
                *self.nodes[node]
                    .dropped
                    .entry(DropReason::BroadcastsToSlowPeers.label())
                    .or_default() += 1;
                return;
            }
            *self.nodes[node].dropped.entry("queues overflowed").or_default() += 1;
            return self.on_close(node, id, CloseCode::Overflow);
        }
        self.count_sent(number, side, lane, bytes.len());
        let tag = bytes.get(1).copied().unwrap_or_default();
        if self.conditions.drop > 0.0
            && !NEVER_DROPPED.contains(&tag)
            && self.rng.random_bool(self.conditions.drop.min(1.0))
        {
            if let Some(link) = self.link(number) {
                link.ends[side].flights[lane as usize].taken(bytes.len());
            }
            return;
        }
        self.transmit(number, side, lane, bytes, 0);
    }

    pub(crate) fn on_keepalive(&mut self, node: usize, id: LinkId, bytes: Bytes) {
        let (number, side) = LinkNumber::of(id);
        if let Some(link) = self.link(number) {
            link.ends[side].keepalive_pending = true;
        }
        self.on_send(node, id, Lane::Control, bytes);
    }

    /// QUIC acknowledges what came to a side, if the other one waits for that.
    fn acknowledge(&mut self, number: LinkNumber, side: Side) {
        let Some(link) = self.link(number) else { return };
        let (from, to, pair) = (link.ends[side].node, link.ends[1 - side].node, link.latency);
        if !std::mem::take(&mut link.ends[1 - side].keepalive_pending) || self.is_cut(from, to) {
            return;
        }
        let conditions = self.conditions_between(from, to);
        let (late, _) = conditions.retransmission(1, pair, &mut self.rng);
        let at = self.clock.now + ACK_DELAY + self.delay(pair) + late;
        self.queue.push(at, SimEvent::Acknowledged(number, 1 - side));
    }

    pub(crate) fn on_acknowledged(&mut self, number: LinkNumber, side: Side) {
        let Some(node) = self.node_of(number, side) else { return };
        if self.put_off(node, || SimEvent::Acknowledged(number, side)) {
            return;
        }
        if self.link(number).is_some_and(|link| link.ends[side].open) {
            self.feed(node, InEvent::Acknowledged(number.id(side)));
        }
    }

    /// Counts the bytes of a frame on the wire, with the acknowledgements before it.
    fn count_sent(&mut self, number: LinkNumber, side: Side, lane: Lane, bytes: usize) {
        let now = self.clock.now;
        self.count_keep_alives(number);
        let Some(link) = self.link(number) else { return };
        let acks = link.ends[side].unacknowledged.sent(now);
        let node = link.ends[side].node;
        let sent = &mut self.nodes[node].sent;
        sent.acks(acks);
        sent.frame(lane, bytes);
        sent.packets(packets(bytes));
    }

    /// Counts keep-alives: the end that dialed sends them, and the other end acknowledges them.
    pub(crate) fn count_keep_alives(&mut self, number: LinkNumber) {
        let (now, interval) = (self.clock.now, nanos(self.conditions.keep_alive));
        let Some(link) = self.link(number).filter(|link| link.cut.is_none()) else { return };
        let count = link.keep_alives(interval, now);
        if count > 0 {
            let [dialler, accepter] = [0, 1].map(|side: Side| link.ends[side].node);
            self.nodes[dialler].sent.keep_alives(count);
            self.nodes[accepter].sent.acks(count);
        }
    }

    /// Sends a frame, which arrives after all earlier frames of its lane.
    fn transmit(&mut self, number: LinkNumber, side: Side, lane: Lane, bytes: Bytes, extra: Nanos) {
        let Some(link) = self.link(number) else { return };
        let (from, to, pair) = (link.ends[side].node, link.ends[1 - side].node, link.latency);
        if self.is_cut(from, to) {
            if let Some(link) = self.link(number) {
                link.ends[side].held.push_back((lane, bytes));
            }
            return;
        }
        let departs = self.departs(from, lane, bytes.len());
        let conditions = self.conditions_between(from, to);
        let (delayed, again) = conditions.retransmission(bytes.len(), pair, &mut self.rng);
        self.nodes[from].sent.repeated(again, bytes.len());
        let at = departs + self.delay(pair) + extra + delayed;
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
        self.queue.push(at, SimEvent::Frame(number, 1 - side, lane, bytes));
    }

    /// Returns when a frame leaves its node. Control goes before queued sync frames, and those
    /// before broadcasts.
    fn departs(&mut self, node: usize, lane: Lane, bytes: usize) -> Nanos {
        let now = self.clock.now;
        let Some(rate) = self.conditions.bandwidth else { return now };
        let takes = (bytes as u64 * 1_000_000_000) / rate.max(1);
        let uplink = &mut self.nodes[node].uplink;
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

    pub(crate) fn on_frame(&mut self, number: LinkNumber, side: Side, lane: Lane, bytes: Bytes) {
        let Some(node) = self.node_of(number, side) else { return };
        if self.nodes[node].paused.is_some() {
            self.nodes[node].inbox.push_back(SimEvent::Frame(number, side, lane, bytes));
            return;
        }
        let now = self.clock.now;
        let Some(link) = self.link(number) else { return };
        link.ends[1 - side].flights[lane as usize].taken(bytes.len());
        let acks = link.ends[side].unacknowledged.received(packets(bytes.len()), now);
        self.nodes[node].sent.acks(acks);
        self.acknowledge(number, side);
        if !self.link(number).is_some_and(|link| link.ends[side].open) {
            return;
        }
        let id = number.id(side);
        self.trace.frame(now, id.0, &bytes);
        self.feed(node, InEvent::Received(id, lane, bytes));
    }

    pub(crate) fn on_close(&mut self, node: usize, id: LinkId, code: CloseCode) {
        let (number, side) = LinkNumber::of(id);
        let now = self.clock.now;
        let Some(link) = self.link(number) else { return };
        if link.ends[side].node != node || !link.ends[side].open {
            return;
        }
        let (to, pair) = (link.ends[1 - side].node, link.latency);
        // If the peer is in good standing, what was sent before arrives before the end does.
        let drained = !matches!(code, CloseCode::Overflow | CloseCode::Protocol);
        let flights = &link.ends[side].flights;
        let last = if drained { flights[0].last.max(flights[1].last) } else { 0 };
        let opens = link.ends[1 - side].opens;
        if !self.is_cut(node, to) {
            let at = (now + self.delay(pair)).max(last + 1).max(opens + 2);
            self.queue.push(at, SimEvent::Closed(number, 1 - side, LinkEnd::Remote(code)));
        } else if let Some(link) = self.link(number) {
            let epoch = link.epoch;
            let at = now + nanos(self.conditions.idle);
            self.queue.push(at, SimEvent::TimedOut(number, 1 - side, epoch));
        }
        self.queue.push(now, SimEvent::Closed(number, side, LinkEnd::Local(code)));
    }

    /// Tells a side that its link has ended.
    pub(crate) fn on_closed(&mut self, number: LinkNumber, side: Side, end: LinkEnd) {
        let Some(node) = self.node_of(number, side) else {
            return self.shut(number, side);
        };
        if self.put_off(node, || SimEvent::Closed(number, side, end)) {
            return;
        }
        let open = self.link(number).is_some_and(|link| link.ends[side].open);
        self.shut(number, side);
        if open {
            self.feed(node, InEvent::LinkClosed(number.id(side), end));
        }
    }

    /// Removes a link from a side. A link that neither side knows is forgotten.
    pub(crate) fn shut(&mut self, number: LinkNumber, side: Side) {
        self.count_keep_alives(number);
        let Some(link) = self.link(number) else { return };
        (link.ends[side].open, link.ends[side].notified) = (false, true);
        link.ends[side].held.clear();
        let node = link.ends[side].node;
        // A paused node learns later that the link was opened, and then that it ended.
        let over = !link.ends[1 - side].open && link.ends[1 - side].notified;
        self.nodes[node].links.remove(&number);
        if over {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: LinkNumber) {
        if let Some(link) = self.links.get_mut(number.0 as usize).and_then(Option::take) {
            for end in &link.ends {
                self.nodes[end.node].links.remove(&number);
            }
        }
    }

    pub(crate) fn on_timed_out(&mut self, number: LinkNumber, side: Side, epoch: u32) {
        if self.link(number).is_some_and(|link| link.epoch == epoch) {
            self.on_closed(number, side, LinkEnd::TimedOut);
        }
    }

    pub(crate) fn on_silent(&mut self, number: LinkNumber, side: Side, epoch: u32) {
        let Some(other) = self.node_of(number, 1 - side) else { return };
        let silent_since = self.nodes[other].paused;
        let idle = nanos(self.conditions.idle);
        let link = self.link(number).map(|link| link.epoch);
        if link == Some(epoch) && silent_since.is_some_and(|at| at + idle <= self.clock.now) {
            self.on_closed(number, side, LinkEnd::TimedOut);
        }
    }

    /// Sends the frames again that a cut held back, some time after it is healed.
    pub(crate) fn release(&mut self, number: LinkNumber) {
        let now = self.clock.now;
        let keep_alive = nanos(self.conditions.keep_alive);
        let Some(link) = self.link(number) else { return };
        let since = link.cut.take().unwrap_or(now);
        link.epoch += 1;
        let epoch = link.epoch;
        let held = [0, 1].map(|side| std::mem::take(&mut link.ends[side].held));
        let open = [0, 1].map(|side| link.ends[side].open);
        let most = (now - since).min(keep_alive).max(1);
        for (side, frames) in held.into_iter().enumerate() {
            let late = self.rng.random_range(0..most);
            for (lane, bytes) in frames {
                self.transmit(number, side, lane, bytes, late);
            }
        }
        // One side is gone, and the other will notice.
        for side in [0, 1] {
            if open[side] && !open[1 - side] {
                let at = now + nanos(self.conditions.idle);
                self.queue.push(at, SimEvent::TimedOut(number, side, epoch));
            }
        }
    }

    /// Returns the number of open connections between two nodes.
    #[must_use]
    pub fn connections(&self, a: usize, b: usize) -> usize {
        let both = self.nodes[a].links.intersection(&self.nodes[b].links);
        both.filter_map(|number| self.links[number.0 as usize].as_ref())
            .filter(|link| link.ends[0].open && link.ends[1].open)
            .count()
    }

    /// Breaks one of the open connections, chosen by the seed. Both ends are told that it was lost.
    pub fn break_a_connection(&mut self) {
        let links = self.links.iter().enumerate();
        let open = links.filter(|(_, link)| {
            link.as_ref().is_some_and(|link| link.ends[0].open && link.ends[1].open)
        });
        let open: Vec<_> = open.map(|(number, _)| number).collect();
        if !open.is_empty() {
            let number = open[self.rng.random_range(0..open.len())];
            let number = LinkNumber(u32::try_from(number).unwrap_or(u32::MAX));
            for side in [0, 1] {
                self.queue.push(self.clock.now, SimEvent::Closed(number, side, LinkEnd::Lost));
            }
        }
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
}
