//! A network of honest nodes, and hostile ones that say what a test wants.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{
    Config, EndpointId, InEvent, Lane, NodeRecord, Profile, SignedRecord,
};
use iroh_gossip_discovery_sim::{Conditions, Network, Node, Order, Orders, Puppet, Sent};

pub(crate) const S: Duration = Duration::from_secs(1);

/// The honest nodes are the first ones of the network.
pub(crate) struct Siege {
    pub(crate) network: Network,
    pub(crate) honest: usize,
    orders: BTreeMap<usize, Orders>,
}

impl Siege {
    /// Starts honest nodes, and waits until they know each other and are quiet.
    pub(crate) fn new(seed: u64, honest: usize, config: &Config) -> Self {
        let mut network = Network::new(seed, Conditions::lan());
        for number in 0..honest {
            network.add();
            let bootstrap: &[usize] = if number == 0 { &[] } else { &[0] };
            network.boot(number, config.clone(), bootstrap);
        }
        assert!(network.run_until(S * 60, Network::converged), "seed {seed} does not converge");
        network.run_for(S * 10);
        Self { network, honest, orders: BTreeMap::new() }
    }

    /// Starts a hostile node.
    pub(crate) fn enemy(&mut self) -> usize {
        let number = self.network.add();
        let orders = Orders::default();
        let puppet = Puppet::new(self.network.topic(), orders.clone());
        self.network.start_hostile(number, Box::new(puppet));
        self.orders.insert(number, orders);
        number
    }

    fn order(&mut self, enemy: usize, order: Order) {
        self.orders[&enemy].lock().unwrap().push_back(order);
        self.network.command(enemy, |_| InEvent::Timer);
    }

    /// Links an enemy to an honest node.
    pub(crate) fn link(&mut self, enemy: usize, target: usize) {
        let node = &self.network.nodes[target];
        let addresses = node.own.as_ref().unwrap().addresses.clone();
        let order = Order::Dial(node.id, addresses);
        self.order(enemy, order);
        self.network.run_for(S / 20);
    }

    /// Lets an enemy send a frame on the control lane.
    pub(crate) fn say(&mut self, enemy: usize, target: usize, frame: Bytes) {
        self.say_on(enemy, target, Lane::Control, frame);
    }

    pub(crate) fn say_on(&mut self, enemy: usize, target: usize, lane: Lane, frame: Bytes) {
        let id = self.network.nodes[target].id;
        self.order(enemy, Order::Say(id, lane, frame));
    }

    /// Lets an enemy answer syncs with these records too.
    pub(crate) fn hold(&mut self, enemy: usize, records: Vec<Bytes>) {
        self.order(enemy, Order::Hold(records));
    }

    /// Ends the link of an enemy to an honest node.
    pub(crate) fn close(&mut self, enemy: usize, target: usize) {
        let id = self.network.nodes[target].id;
        self.order(enemy, Order::Close(id));
    }

    /// A record of a key, at an address.
    pub(crate) fn record(&self, key: &SigningKey, sequence: u64, address: &str) -> Bytes {
        let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
        let mut record = NodeRecord::new(id, Profile::new("made up"));
        record.sequence = sequence;
        record.boot_id = 9;
        record.addresses = vec![TransportAddr::Ip(address.parse().unwrap())];
        record.expiration = S * 3600;
        SignedRecord::sign(key, &self.network.topic(), record).unwrap().bytes().clone()
    }

    pub(crate) fn own_record(&self, enemy: usize, sequence: u64) -> Bytes {
        let address = format!("10.0.{}.{}:7000", (enemy + 1) / 256, (enemy + 1) % 256);
        self.record(&self.network.nodes[enemy].key, sequence, &address)
    }

    pub(crate) fn honest(&self) -> &[Node] {
        &self.network.nodes[..self.honest]
    }

    /// What limits of honest nodes refused, in all.
    pub(crate) fn all_dropped(&self) -> BTreeMap<&'static str, u64> {
        let mut sum = BTreeMap::new();
        for (what, count) in self.honest().iter().flat_map(|node| &node.dropped) {
            *sum.entry(*what).or_default() += count;
        }
        sum
    }

    /// How often a limit of honest nodes refused something.
    pub(crate) fn dropped(&self, what: &str) -> u64 {
        self.honest().iter().filter_map(|node| node.dropped.get(what)).sum()
    }

    /// Events of a kind that honest nodes emitted so far.
    pub(crate) fn events(&self, kind: &str) -> u64 {
        self.network.observed.emitted_counts.get(kind).copied().unwrap_or(0)
    }

    /// Returns what each honest node sent so far.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        (0..self.honest).map(|number| self.network.sent_by(number)).collect()
    }

    /// Returns how many bytes honest nodes send during `attack`, and how many enemies send.
    pub(crate) fn cost(&mut self, attack: impl FnOnce(&mut Self)) -> (u64, u64) {
        let bytes = |siege: &Self| {
            let enemies = siege.honest..siege.network.nodes.len();
            let bytes = |number: usize| siege.network.sent_by(number).bytes();
            ((0..siege.honest).map(bytes).sum::<u64>(), enemies.map(bytes).sum::<u64>())
        };
        let (before, began) = (bytes(self), self.network.elapsed());
        attack(self);
        let after = bytes(self);
        let (out, into) = (after.0 - before.0, after.1 - before.1);
        let took = self.network.elapsed().saturating_sub(began);
        println!("{out} bytes of honest nodes, {into} of enemies, {took:?}");
        assert!(into > 10_000, "the enemies' links are gone, or nothing was said");
        (out, into)
    }
}

/// Returns the key of a node that does not exist.
pub(crate) fn made_up(number: usize) -> SigningKey {
    let mut secret = [0x77; 32];
    secret[..8].copy_from_slice(&number.to_le_bytes());
    SigningKey::from_bytes(&secret)
}
