//! Broadcasts in whole networks: each reaches every node, and at most once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use iroh_gossip_discovery_proto::{Config, InEvent};
use iroh_gossip_discovery_sim::{Conditions, Memory, Network};

const S: Duration = Duration::from_secs(1);

fn converged(seed: u64, nodes: usize, conditions: Conditions) -> Network {
    let mut network = Network::new(seed, conditions);
    for number in 0..nodes {
        network.add();
        let bootstrap: &[usize] = if number == 0 { &[] } else { &[0] };
        network.boot(number, Config::default(), bootstrap);
    }
    assert!(network.run_until(S * 60, Network::converged), "seed {seed} does not converge");
    network.run_for(S * 10);
    network
}

fn say(network: &mut Network, number: usize, size: usize, count: &mut u64) {
    let mut data = count.to_be_bytes().to_vec();
    data.resize(size, 0);
    *count += 1;
    network.command(number, |topic| InEvent::Broadcast(topic, None, data.into()));
}

/// Returns the share of the broadcasts that arrived, of all that should have.
fn heard(network: &Network, nodes: usize, said: u64) -> f64 {
    let heard: usize = network.nodes.iter().map(|node| node.heard.len()).sum();
    f64::from(u32::try_from(heard).unwrap())
        / f64::from(u32::try_from(said * (nodes as u64 - 1)).unwrap())
}

fn assert_sound(network: &Network) {
    assert_eq!(network.failures, [], "{:?}", network.failures.first().map(ToString::to_string));
    assert_eq!(network.observed.wrongly_lost, []);
}

#[test]
fn everyone_hears_each_broadcast_once() {
    for (nodes, seeds) in [(2, 3), (7, 3), (40, 2)] {
        for seed in 0..seeds {
            let mut network = converged(seed, nodes, Conditions::lan());
            let mut said = 0;
            for _ in 0..10 {
                for number in 0..nodes {
                    say(&mut network, number, 300, &mut said);
                }
                network.run_for(S / 5);
            }
            network.run_for(S * 5);
            assert_sound(&network);
            let share = heard(&network, nodes, said);
            assert!(share >= 1.0, "{nodes} nodes, seed {seed}: {share}");
        }
    }
}

#[test]
fn a_paused_node_costs_the_others_no_broadcast_and_no_event() {
    for seed in 0..2 {
        let nodes = 6;
        let mut network = converged(seed, nodes, Conditions::lan());
        network.pause(5);
        let mut said = 0;
        // 3 kB at 100 a second for 40 s.
        for round in 0..4000 {
            say(&mut network, 0, 3000, &mut said);
            network.run_for(S / 100);
            if round == 2000 {
                network.crash(4);
            }
        }
        network.run_for(S * 5);
        assert_eq!(network.failures, []);
        for number in 1..4 {
            assert_eq!(network.nodes[number].heard.len(), 4000, "node {number}, seed {seed}");
            assert!(!network.knows(number, 4) && !network.knows(number, 5), "node {number}");
        }
    }
}

/// A stream loses no frame: QUIC sends again what is lost, and a full queue drops only broadcasts.
/// If one in five of these is dropped, 99.5 % still arrive. In this test, all four frames of a
/// repair may be dropped: the broadcast, the announcement of another neighbor, the graft and its
/// answer. So half of the repairs fail. With five neighbors 3 to 5 % are lost, with two or three up
/// to 25 %. Neither the guard nor the window of numbers refuses any of them.
#[test]
fn a_repeated_broadcast_is_heard_at_most_once_despite_loss_crashes_and_restarts() {
    for seed in 0..3 {
        let nodes = 20;
        let mut network = converged(seed, nodes, Conditions { drop: 0.2, ..Conditions::lan() });
        let mut said = 0;
        // What each node could hear in its present life. A node that is down sends and hears
        // nothing.
        let mut could_hear = vec![0_u32; nodes];
        for round in 0..100 {
            let up = network.up();
            for number in (round % 4..nodes).step_by(4).filter(|number| up.contains(number)) {
                say(&mut network, number, 100, &mut said);
                up.iter().filter(|other| **other != number).for_each(|up| could_hear[*up] += 1);
            }
            network.run_for(S / 10);
            match round {
                30 => network.crash(7),
                50 => {
                    network.restart(7, Memory::Kept, &[0]);
                    could_hear[7] = 0;
                }
                60 => network.pause(9),
                75 => network.resume(9),
                _ => {}
            }
        }
        network.run_for(S * 10);
        assert_eq!(network.failures, []);
        let heard = network.nodes.iter().map(|node| u32::try_from(node.heard.len()).unwrap());
        let share = f64::from(heard.sum::<u32>()) / f64::from(could_hear.iter().sum::<u32>());
        println!("seed {seed}: {share:.4} of all, {:?}", network.nodes[3].dropped);
        assert!(share > 0.9, "seed {seed}: {share}");
        let refused = network.nodes.iter().flat_map(|node| node.dropped.keys());
        let refused: Vec<_> = refused.filter(|what| what.starts_with("broadcasts over")).collect();
        assert_eq!(refused, Vec::<&&str>::new());
    }
}

/// Without the repair by announcements and grafts, every hop would lose one in twenty.
#[test]
fn a_broadcast_that_was_lost_on_its_way_is_requested_again() {
    for seed in 0..3 {
        let nodes = 20;
        let mut network = converged(seed, nodes, Conditions { drop: 0.05, ..Conditions::lan() });
        let mut said = 0;
        for round in 0..100 {
            for number in (round % 4..nodes).step_by(4) {
                say(&mut network, number, 100, &mut said);
            }
            network.run_for(S / 10);
        }
        network.run_for(S * 10);
        let share = heard(&network, nodes, said);
        assert!(share > 0.995, "seed {seed}: {share}");
    }
}
