//! The conditions of a network and the faults of nodes: each has the effect that its name says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh_gossip_discovery_proto::{Config, InEvent, OutEvent, Profile, TopicEvent};
use iroh_gossip_discovery_sim::{Conditions, Hostile, Memory, Mirror, Mute, Network};
use tokio::time::Instant;

const S: Duration = Duration::from_secs(1);
const TEN_YEARS: i64 = 10 * 365 * 86_400 * 1_000_000;

/// Starts nodes from the first one, with these errors of their wall clocks in microseconds.
fn booted(seed: u64, conditions: Conditions, clocks: &[i64]) -> Network {
    let mut network = Network::new(seed, conditions);
    for offset in clocks {
        let number = network.add();
        network.nodes[number].clock_offset = *offset;
    }
    for number in 0..clocks.len() {
        let bootstrap: &[usize] = if number == 0 { &[] } else { &[0] };
        network.boot(number, Config::default(), bootstrap);
    }
    network
}

fn converged(seed: u64, nodes: usize) -> Network {
    let mut network = booted(seed, Conditions::lan(), &vec![0; nodes]);
    assert!(network.run_until(S * 20, Network::converged));
    network.run_for(S * 5);
    network
}

fn update(network: &mut Network, number: usize) {
    let profile = Profile::new("changed");
    network.command(number, |topic| InEvent::SetProfile(topic, profile));
}

#[test]
fn a_mute_node_hears_others_and_is_not_heard() {
    for muted in [0, 1] {
        let mut network = converged(1, 2);
        network.mute(&[muted]);
        let before: Vec<_> = [0, 1].map(|n| network.nodes[n].events.len()).into();
        update(&mut network, 0);
        update(&mut network, 1);
        network.run_for(S / 2);
        let heard = [0, 1].map(|n: usize| {
            let since = &network.nodes[n].events[before[n]..];
            since.iter().any(|(_, event)| matches!(event, TopicEvent::PeerUpdated(_)))
        });
        assert_eq!(heard, [muted == 0, muted == 1]);
        network.run_for(S * 30);
        assert!(!network.knows(1 - muted, muted), "it is lost to who does not hear it");
        network.heal();
        assert!(network.run_until(S * 30, Network::converged));
        assert_eq!(network.failures, []);
    }
}

#[test]
fn what_does_not_arrive_at_a_deaf_node_arrives_elsewhere_and_what_it_sends_too() {
    let mut network = converged(1, 3);
    network.make_lossy(&[0], 1.0, 0.0);
    for number in 0..3 {
        update(&mut network, number);
    }
    network.run_for(S);
    let known = [0, 1, 2].map(|number| network.is_known(number));
    assert_eq!(known, [true, false, false], "the deaf node alone does not know the others' news");
    network.run_for(S * 20);
    assert!(!network.knows(0, 1) && !network.knows(0, 2), "it hears nobody");
    assert_eq!(network.observed.wrongly_lost, [], "its network is bad, and theirs is not");
    assert!(network.observed.lost_by_lossy >= 2);
    network.end_losses(&[0]);
    assert!(network.run_until(S * 30, Network::converged));
    assert_eq!(network.failures, []);
    // From then on, a wrong verdict counts as any other.
    network.run_for(S * 15);
    network.pause(1);
    network.run_for(S * 20);
    assert!(!network.observed.wrongly_lost.is_empty());
}

#[test]
fn a_lossy_node_hears_everything_later() {
    let late = |of_arriving| {
        let mut network = converged(1, 2);
        network.make_lossy(&[0], of_arriving, 0.0);
        let mut heard = Vec::new();
        for _ in 0..20 {
            update(&mut network, 1);
            let begin = network.elapsed();
            assert!(network.run_until(S * 20, Network::converged));
            heard.push(network.elapsed().checked_sub(begin).unwrap());
            network.run_for(S);
        }
        heard.iter().sum::<Duration>()
    };
    assert!(late(0.8) > late(0.3) * 2 && late(0.3) > late(0.0) * 2);
}

#[test]
fn nothing_passes_a_black_hole_and_others_carry_the_news_around_it() {
    let mut alone = converged(1, 2);
    alone.open_black_hole(&[0, 1]);
    alone.run_for(S * 20);
    assert!(!alone.knows(0, 1) && !alone.knows(1, 0) && alone.connections(0, 1) == 0);
    alone.close_black_hole(&[0, 1]);
    assert!(alone.run_until(S * 60, Network::converged));

    let mut network = converged(1, 3);
    network.open_black_hole(&[0, 1]);
    for number in [0, 1] {
        update(&mut network, number);
        assert!(network.run_until(S * 2, Network::converged));
    }
    network.run_for(S * 30);
    assert_eq!((network.connections(0, 1), &network.observed.wrongly_lost[..]), (0, &[][..]));
    assert_eq!(network.observed.emitted_counts.get("PeerSuspected"), None);
    network.heal();
    network.run_for(S * 30);
    assert!(network.converged() && network.failures.is_empty());
}

#[test]
fn no_decision_follows_from_a_wall_clock() {
    for seed in 0..10 {
        let hashes = |clocks: [i64; 12]| {
            let mut network = booted(seed, Conditions { loss: 0.05, ..Conditions::lan() }, &clocks);
            network.run_for(S * 10);
            network.restart(3, Memory::Kept, &[0]);
            network.restart(4, Memory::Lost, &[0]);
            network.partition(&[vec![5, 6, 7]]);
            network.pause(8);
            network.run_for(S * 3);
            network.resume(8);
            network.crash(9);
            network.command(10, InEvent::Leave);
            update(&mut network, 11);
            network.run_for(S * 20);
            network.heal();
            network.run_for(S * 30);
            assert_eq!(network.failures, []);
            (network.shape_hash(), network.trace_hash())
        };
        let right = hashes([0; 12]);
        let ahead_and_behind: [i64; 12] =
            std::array::from_fn(|n| if n % 2 == 0 { TEN_YEARS } else { -TEN_YEARS });
        let wrong = hashes(ahead_and_behind);
        assert_eq!(right.0, wrong.0, "seed {seed}: the same frames at the same times");
        assert_ne!(right.1, wrong.1, "their clocks did differ: it is in the records");
    }
}

#[test]
fn dials_fail_and_are_tried_again() {
    let conditions = Conditions { dial_failure: 1.0, ..Conditions::lan() };
    let mut network = booted(1, conditions, &[0, 0]);
    network.run_for(S * 60);
    assert_eq!(network.connections(0, 1), 0);
    assert!(network.sent().dials > 3, "{} dials", network.sent().dials);
    network.conditions.dial_failure = 0.0;
    assert!(network.run_until(S * 15, Network::converged));
    assert_eq!(network.failures, []);
}

/// Records the events that it gets, and asks for one timer, a second after its first link.
#[derive(Debug, Default)]
struct Watcher {
    seen: Arc<Mutex<Vec<&'static str>>>,
    timer: Option<Instant>,
}

impl Hostile for Watcher {
    fn handle(&mut self, event: InEvent, now: Instant) -> Vec<OutEvent> {
        self.seen.lock().unwrap().push(match event {
            InEvent::LinkOpened { .. } => "opened",
            InEvent::Received(..) => "received",
            InEvent::LinkClosed(..) => "closed",
            InEvent::Timer => "timer",
            _ => "other",
        });
        let wanted = self.timer.is_some_and(|at| at <= now);
        self.timer = if wanted { None } else { self.timer.or(Some(now + S)) };
        Vec::new()
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timer
    }
}

#[test]
fn a_hostile_node_gets_what_a_driver_would_hand_it() {
    let mut network = Network::new(1, Conditions::lan());
    let (hostile, honest) = (network.add(), network.add());
    let seen = Arc::default();
    network.start_hostile(hostile, Box::new(Watcher { seen: Arc::clone(&seen), timer: None }));
    network.boot(honest, Config::default(), &[hostile]);
    network.run_for(S * 10);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[..2], ["opened", "received"], "the link, and the hello on it");
    for what in ["timer", "closed"] {
        assert!(seen.contains(&what), "{what}: {seen:?}");
    }
    assert!(network.nodes[honest].dropped.contains_key("links without a hello"));
}

#[test]
fn honest_nodes_find_each_other_beside_hostile_ones() {
    for seed in 0..10 {
        let mut network = Network::new(seed, Conditions::lan());
        let nodes: Vec<_> = (0..12).map(|_| network.add()).collect();
        network.start_hostile(1, Box::new(Mute));
        network.start_hostile(2, Box::new(Mirror::default()));
        for number in nodes.into_iter().filter(|number| ![1, 2].contains(number)) {
            let bootstrap: &[usize] = if number == 0 { &[] } else { &[0, 1, 2] };
            network.boot(number, Config::default(), bootstrap);
        }
        assert!(network.run_until(S * 20, Network::converged), "seed {seed}");
        network.run_for(S * 60);
        network.check_quiet();
        assert_eq!(network.failures, []);
        let refused = |name: &str| network.nodes.iter().any(|node| node.dropped.contains_key(name));
        assert!(refused("links without a hello"), "who is mute was met, seed {seed}");
    }
}

#[test]
fn what_is_kept_over_a_restart_is_enough_to_come_back() {
    // Its bootstrap peer is gone. Other nodes also dial members that they lost, but rarely.
    let back = |memory| {
        let comes_back = |seed| {
            let mut network = converged(seed, 4);
            network.crash(3);
            network.crash(0);
            network.run_for(S * 60);
            network.restart(3, memory, &[0]);
            let back = network.run_until(S / 10, |network| network.knows(3, 1));
            assert_eq!(network.failures, []);
            back
        };
        (0..20).filter(|seed| comes_back(*seed)).count()
    };
    assert_eq!(back(Memory::Kept), 20);
    assert!(back(Memory::Lost) < 5, "{}", back(Memory::Lost));
}
