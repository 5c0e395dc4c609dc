//! Observers: they see what members see, no member sees them, and many of them harm nobody.

#![allow(missing_docs, reason = "a test's name says what it is about")]

use std::time::Duration;

use iroh_gossip_discovery_proto::{Config, InEvent};
use iroh_gossip_discovery_sim::{Conditions, Network};

/// What a node takes to converge, at the most.
const PATIENCE: Duration = Duration::from_mins(1);

struct Swarm {
    network: Network,
    members: Vec<usize>,
    observers: Vec<usize>,
    config: Config,
}

impl Swarm {
    /// Members that know each other, each with room for `room` observers.
    fn new(seed: u64, members: usize, room: usize) -> Self {
        let mut config = Config::default();
        config.observers = room;
        let mut network = Network::new(seed, Conditions::lan());
        let members: Vec<_> = (0..members).map(|_| network.add()).collect();
        for number in &members {
            network.boot(*number, config.clone(), &members[..usize::from(*number > 0)]);
        }
        assert!(network.run_until(PATIENCE, Network::converged), "seed {seed}");
        network.run_for(Duration::from_secs(5));
        Self { network, members, observers: Vec::new(), config }
    }

    fn observe(&mut self, count: usize) {
        let mut config = self.config.clone();
        config.observer = true;
        for _ in 0..count {
            let number = self.network.add();
            self.network.boot(number, config.clone(), &self.members[..1]);
            self.observers.push(number);
        }
    }

    fn up_to_date(&self) -> usize {
        self.observers.iter().filter(|number| self.network.is_right(**number)).count()
    }

    /// Nothing that a member keeps about nodes names an observer.
    fn assert_unseen(&self) {
        let topic = self.network.topic();
        for member in &self.members {
            let node = &self.network.nodes[*member];
            for observer in &self.observers {
                let observer = &self.network.nodes[*observer];
                let known = node.sequence_of(&topic, &observer.id);
                assert_eq!(known, None, "member {member} has heard of {}", observer.id);
            }
        }
        assert_eq!(self.network.failures, [], "no check failed");
    }

    fn dropped(&self, what: &str) -> u64 {
        self.members.iter().filter_map(|n| self.network.nodes[*n].dropped.get(what)).sum()
    }

    /// How many observers each member keeps up to date.
    fn served(&self) -> Vec<usize> {
        let topic = self.network.topic();
        let sizes = |number: &usize| self.network.nodes[*number].sizes(&topic);
        let observers = |sizes: Vec<(&str, usize)>| {
            sizes.into_iter().find(|(what, _)| *what == "observers").map_or(0, |(_, size)| size)
        };
        self.members.iter().map(sizes).map(observers).collect()
    }
}

#[test]
fn observers_beyond_the_room_of_a_member_find_another_one() {
    for seed in 0..5 {
        let mut swarm = Swarm::new(seed, 12, 1);
        swarm.observe(6);
        let all = swarm.network.run_until(PATIENCE, Network::converged);
        assert!(all, "seed {seed}: {} of 6 observers are up to date", swarm.up_to_date());
        assert!(swarm.dropped("observers over the limit") > 0);
        assert!(swarm.served().iter().all(|served| *served <= 1), "{:?}", swarm.served());
        swarm.assert_unseen();
    }
}

#[test]
fn an_observer_takes_another_member_if_its_own_crashes_or_freezes() {
    for seed in 0..5 {
        for freezes in [false, true] {
            let mut swarm = Swarm::new(seed, 8, 32);
            swarm.observe(1);
            assert!(swarm.network.run_until(PATIENCE, Network::converged));
            // All but one go, so the observer's source is among them, or is the one that stays.
            let (stays, go) = (swarm.members[5], [0, 1, 2, 3, 4, 6, 7]);
            for number in go {
                if freezes {
                    swarm.network.pause(number);
                } else {
                    swarm.network.crash(number);
                }
            }
            let newcomer = swarm.network.add();
            swarm.network.boot(newcomer, swarm.config.clone(), &[stays]);
            swarm.members.push(newcomer);
            let observer = swarm.observers[0];
            let seen = swarm.network.run_until(PATIENCE, |net| net.knows(observer, newcomer));
            assert!(seen, "seed {seed}, freezes: {freezes}");
        }
    }
}

#[test]
fn many_observers_get_no_more_than_the_room_and_members_do_not_notice() {
    let mut swarm = Swarm::new(3, 5, 4);
    swarm.observe(200);
    swarm.network.run_for(Duration::from_mins(1));
    let served = swarm.served();
    assert!(served.iter().all(|served| *served <= 4), "{served:?}");
    assert!(swarm.dropped("observers over the limit") > 100);
    assert!(swarm.up_to_date() >= 20, "{} are up to date", swarm.up_to_date());
    let newcomer = swarm.network.add();
    swarm.network.boot(newcomer, swarm.config.clone(), &[0]);
    swarm.members.push(newcomer);
    let members = swarm.members.clone();
    let right = |net: &Network| members.iter().all(|member| net.is_right(*member));
    assert!(swarm.network.run_until(Duration::from_secs(5), right), "a newcomer joins as ever");
    assert_eq!(swarm.network.observed.wrongly_lost, []);
    swarm.assert_unseen();
}

#[test]
fn an_observer_says_nothing_when_it_leaves() {
    let mut swarm = Swarm::new(4, 4, 32);
    swarm.observe(2);
    assert!(swarm.network.run_until(PATIENCE, Network::converged));
    let observer = swarm.observers[0];
    swarm.network.command(observer, InEvent::Leave);
    swarm.network.run_for(Duration::from_secs(20));
    assert_eq!(swarm.served().iter().sum::<usize>(), 1, "{:?}", swarm.served());
    swarm.assert_unseen();
}
