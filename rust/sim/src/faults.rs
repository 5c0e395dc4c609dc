//! Faults: crashes, restarts, pauses and partitions, and how they end.

use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{Config, EndpointId, InEvent, LinkEnd};

use crate::{
    clock::{Nanos, nanos},
    link::LinkNumber,
    network::{Memory, Network, address},
    node::Behavior,
    queue::SimEvent,
};

/// Most remembered addresses that a restarted node starts from.
const REMEMBERED: usize = 64;

impl Network {
    /// Stops a node as a crash does. The others hear nothing until their links time out.
    pub fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.behavior = Behavior::Down;
        node.wake = None;
        node.paused = None;
        node.inbox.clear();
        node.uplink = [0; 3];
        let links: Vec<_> = node.links.iter().copied().collect();
        let peer = node.peer;
        let idle = nanos(self.conditions.idle);
        for link in links {
            let Some(inner) = self.links[link.0 as usize].as_ref() else { continue };
            let side = usize::from(inner.ends[0].node != number);
            // If the link is cut, the timeouts of the cut come before those of the crash.
            let (epoch, was_cut) = (inner.epoch, inner.cut.is_some());
            if !was_cut {
                let at = self.clock.now + idle;
                self.queue.push(at, SimEvent::TimedOut(link, 1 - side, epoch));
            }
            self.shut(link, side);
        }
        self.update_truth(peer);
    }

    /// Starts a node again. If it still runs, it crashes first.
    pub fn restart(&mut self, number: usize, memory: Memory, bootstrap: &[usize]) {
        let known = self.remembered(number, memory);
        self.crash(number);
        let clock = self.wall_clock(number);
        let sequence = match memory {
            Memory::Kept => clock.max(self.nodes[number].reserved),
            Memory::Lost => clock,
        };
        self.begin(number, sequence, bootstrap, known);
    }

    /// Starts a node again with a new key, under the same name.
    pub fn rekey(&mut self, number: usize, bootstrap: &[usize]) {
        self.crash(number);
        let generation = self.nodes[number].lives + 1;
        let key = self.key(number as u64, generation);
        let was = self.nodes[number].peer;
        self.roster.peers[was].nodes.retain(|node| *node != number);
        let peer = self.enlist(&key, number);
        let node = &mut self.nodes[number];
        node.id = EndpointId::from_bytes(key.verifying_key().to_bytes());
        (node.key, node.peer) = (key, peer);
        let group = node.group;
        self.roster.peers[peer].group = group;
        self.update_truth(was);
        let sequence = self.wall_clock(number);
        self.begin(number, sequence, bootstrap, Vec::new());
    }

    fn remembered(&self, number: usize, memory: Memory) -> Vec<usize> {
        if memory == Memory::Lost {
            return Vec::new();
        }
        let known = self.nodes[number].book.values();
        let peers = known.filter_map(|record| self.roster.number(&record.id));
        let nodes = peers.filter_map(|peer| self.roster.peers[peer].nodes.first().copied());
        nodes.take(REMEMBERED).collect()
    }

    fn begin(&mut self, number: usize, sequence: u64, bootstrap: &[usize], known: Vec<usize>) {
        let config: Config = self.nodes[number].config.clone();
        let mut from: Vec<usize> = bootstrap.to_vec();
        from.extend(known);
        from.retain(|other| *other != number);
        from.sort_unstable();
        from.dedup();
        let peers: Vec<(EndpointId, Vec<TransportAddr>)> =
            from.into_iter().map(|b| (self.nodes[b].id, vec![address(b)])).collect();
        self.start_from(number, sequence, config, peers);
    }

    /// Pauses a node: its timers and frames wait.
    pub fn pause(&mut self, number: usize) {
        if !self.nodes[number].is_up() || self.nodes[number].paused.is_some() {
            return;
        }
        self.nodes[number].paused = Some(self.clock.now);
        let at = self.clock.now + nanos(self.conditions.idle);
        for link in self.nodes[number].links.iter().copied().collect::<Vec<_>>() {
            let Some(inner) = self.links[link.0 as usize].as_ref() else { continue };
            let side = usize::from(inner.ends[0].node != number);
            let epoch = inner.epoch;
            self.queue.push(at, SimEvent::Silent(link, 1 - side, epoch));
        }
    }

    /// Ends a pause. Due timers fire first, then what waited is handled in order.
    pub fn resume(&mut self, number: usize) {
        let Some(since) = self.nodes[number].paused.take() else { return };
        let long = self.clock.now - since >= nanos(self.conditions.idle);
        self.nodes[number].wake = None;
        self.feed(number, InEvent::Timer);
        if long {
            let links: Vec<LinkNumber> = self.nodes[number].links.iter().copied().collect();
            for link in links {
                let Some(inner) = self.links[link.0 as usize].as_ref() else { continue };
                let side = usize::from(inner.ends[0].node != number);
                if inner.ends[side].open && !inner.ends[1 - side].open {
                    self.on_closed(link, side, LinkEnd::TimedOut);
                }
            }
        }
        for event in std::mem::take(&mut self.nodes[number].inbox) {
            self.dispatch(event);
        }
    }

    /// Parts the network: nodes hear only those of their own part. Nodes that no part names stay
    /// together.
    pub fn partition(&mut self, parts: &[Vec<usize>]) {
        for part in parts {
            self.groups += 1;
            for number in part {
                self.nodes[*number].group = self.groups;
            }
        }
        self.regroup();
        self.cut();
    }

    /// Cuts all nodes off from each other.
    pub fn shatter(&mut self) {
        let parts: Vec<_> = (0..self.nodes.len()).map(|number| vec![number]).collect();
        self.partition(&parts);
    }

    /// Loses all that the nodes of one part send to the others. What the others send still arrives.
    pub fn mute(&mut self, part: &[usize]) {
        self.groups += 1;
        for number in part {
            self.nodes[*number].group = self.groups;
        }
        self.one_way.insert(self.groups);
        self.regroup();
        self.cut();
    }

    /// Lets nodes lose these shares of the packets that would arrive, and of those that they send,
    /// beside what all lose. At 1, nothing passes.
    pub fn make_lossy(&mut self, nodes: &[usize], of_arriving: f64, of_sent: f64) {
        for number in nodes {
            let loss = &mut self.nodes[*number].loss;
            (loss.of_arriving, loss.of_sent) = (of_arriving, of_sent);
            loss.begun += 1;
            loss.counts_until = Nanos::MAX;
        }
        self.cut();
    }

    /// Ends what [`Network::make_lossy`] began. What is held of these nodes, and what they hold of
    /// others, counts as its consequence for twice the longest time to refute.
    pub fn end_losses(&mut self, nodes: &[usize]) {
        for number in nodes {
            let after = 2 * nanos(self.nodes[*number].config.suspicion_max);
            let loss = &mut self.nodes[*number].loss;
            (loss.of_arriving, loss.of_sent) = (0.0, 0.0);
            loss.counts_until = self.clock.now + after;
        }
        self.reconnect();
    }

    /// Loses all that any two of these nodes send each other.
    pub fn open_black_hole(&mut self, nodes: &[usize]) {
        self.holes.extend(pairs(nodes));
        self.cut();
    }

    /// Ends what [`Network::open_black_hole`] began.
    pub fn close_black_hole(&mut self, nodes: &[usize]) {
        for pair in pairs(nodes) {
            self.holes.remove(&pair);
        }
        self.reconnect();
    }

    /// Ends every partition and every black hole.
    pub fn heal(&mut self) {
        self.one_way.clear();
        self.holes.clear();
        for node in &mut self.nodes {
            node.group = 0;
        }
        self.regroup();
        self.reconnect();
    }

    /// Releases the links that nothing cuts any more.
    fn reconnect(&mut self) {
        for number in 0..self.links.len() {
            let Some(link) = self.links[number].as_ref().filter(|link| link.cut.is_some()) else {
                continue;
            };
            let (a, b) = (link.ends[0].node, link.ends[1].node);
            if !self.is_cut(a, b) && !self.is_cut(b, a) {
                self.release(LinkNumber(u32::try_from(number).unwrap_or(u32::MAX)));
            }
        }
    }

    fn regroup(&mut self) {
        for peer in 0..self.roster.peers.len() {
            self.update_truth(peer);
        }
    }

    /// Cuts the links between parts: from now on, their ends hear nothing.
    fn cut(&mut self) {
        let idle = nanos(self.conditions.idle);
        let now = self.clock.now;
        for number in 0..self.links.len() {
            let Some(link) = self.links[number].as_ref() else { continue };
            let (a, b) = (link.ends[0].node, link.ends[1].node);
            let blocked = [self.is_cut(b, a), self.is_cut(a, b)];
            let Some(link) = self.links[number].as_mut() else { continue };
            if blocked == [false, false] || link.cut.is_some() {
                continue;
            }
            link.cut = Some(now);
            link.epoch += 1;
            let (epoch, number) =
                (link.epoch, LinkNumber(u32::try_from(number).unwrap_or(u32::MAX)));
            for (side, deaf) in blocked.into_iter().enumerate() {
                // A side that still hears the other one does so until that one has given up.
                let at = now + if deaf { idle } else { 2 * idle };
                self.queue.push(at, SimEvent::TimedOut(number, side, epoch));
            }
        }
    }
}

/// Returns all pairs of these nodes, the smaller number first.
fn pairs(nodes: &[usize]) -> Vec<(usize, usize)> {
    let of = |first: usize| nodes.iter().map(move |other| (first, *other));
    nodes.iter().flat_map(|first| of(*first)).filter(|(a, b)| a < b).collect()
}
