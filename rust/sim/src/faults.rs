//! Faults: crashes, restarts, pauses and partitions, and how they end.

use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{Config, EndpointId, InEvent, LinkEnd};

use crate::{
    clock::nanos,
    cuts::Cuts,
    network::{Memory, Network, env},
    node::Behavior,
};

/// Most remembered addresses that a restarted node starts from.
const REMEMBERED: usize = 64;

impl Network {
    /// Stops a node as a crash does. The others hear nothing until their links time out.
    pub fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.behavior = Behavior::Down;
        node.wake = None;
        let peer = node.peer;
        self.transport.down(number, env!(self));
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
        self.transport.rekey(number, node.id);
        let group = self.transport.cuts().group(number);
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
            from.into_iter().map(|b| (self.nodes[b].id, vec![self.address(b)])).collect();
        self.start_from(number, sequence, config, peers);
    }

    /// Pauses a node: its timers and frames wait.
    pub fn pause(&mut self, number: usize) {
        if self.nodes[number].is_up() && !self.transport.is_paused(number) {
            self.transport.pause(number, env!(self));
        }
    }

    /// Ends a pause. Due timers fire first, then what waited is handled in order.
    pub fn resume(&mut self, number: usize) {
        let Some(since) = self.transport.resume(number) else { return };
        let long = self.engine.clock.now - since >= nanos(self.conditions.idle);
        self.nodes[number].wake = None;
        self.feed(number, InEvent::Timer);
        if long {
            for link in self.transport.links_of(number) {
                if let Some(side) = self.transport.left_alone(link, number) {
                    self.on_closed(link, side, LinkEnd::TimedOut);
                }
            }
        }
        for event in self.transport.take_inbox(number) {
            self.dispatch(event);
        }
    }

    /// Parts the network: nodes hear only those of their own part. Nodes that no part names stay
    /// together.
    pub fn partition(&mut self, parts: &[Vec<usize>]) {
        self.cut_off(|cuts| parts.iter().for_each(|part| cuts.part(part)));
    }

    /// Cuts all nodes off from each other.
    pub fn shatter(&mut self) {
        let parts: Vec<_> = (0..self.nodes.len()).map(|number| vec![number]).collect();
        self.partition(&parts);
    }

    /// Loses all that the nodes of one part send to the others. What the others send still arrives.
    pub fn mute(&mut self, part: &[usize]) {
        self.cut_off(|cuts| cuts.mute(part));
    }

    /// Lets nodes lose these shares of the packets that would arrive, and of those that they send,
    /// beside what all lose. At 1, nothing passes.
    pub fn make_lossy(&mut self, nodes: &[usize], of_arriving: f64, of_sent: f64) {
        self.cut_off(|cuts| cuts.make_lossy(nodes, of_arriving, of_sent));
    }

    /// Ends what [`Network::make_lossy`] began. What is held of these nodes, and what they hold of
    /// others, counts as its consequence for twice the longest time to refute.
    pub fn end_losses(&mut self, nodes: &[usize]) {
        let now = self.engine.clock.now;
        let after = |number: usize| 2 * nanos(self.nodes[number].config.suspicion_max);
        let ends: Vec<_> = nodes.iter().map(|number| (*number, now + after(*number))).collect();
        self.reconnect(|cuts| ends.iter().for_each(|(node, until)| cuts.end_losses(*node, *until)));
    }

    /// Loses all that any two of these nodes send each other.
    pub fn open_black_hole(&mut self, nodes: &[usize]) {
        self.cut_off(|cuts| cuts.open_hole(nodes));
    }

    /// Ends what [`Network::open_black_hole`] began.
    pub fn close_black_hole(&mut self, nodes: &[usize]) {
        self.reconnect(|cuts| cuts.close_hole(nodes));
    }

    /// Ends every partition and every black hole.
    pub fn heal(&mut self) {
        self.reconnect(Cuts::heal);
    }

    fn cut_off(&mut self, change: impl FnOnce(&mut Cuts)) {
        self.transport.cut_off(change, env!(self));
        self.regroup();
    }

    fn reconnect(&mut self, change: impl FnOnce(&mut Cuts)) {
        self.transport.reconnect(change, env!(self));
        self.regroup();
    }

    /// Nodes may be in other parts of the network now.
    fn regroup(&mut self) {
        for peer in 0..self.roster.peers.len() {
            self.update_truth(peer);
        }
    }
}
