//! Liveness: crashes, pauses, partitions, restarts, leaves and copied keys, in networks of complete
//! states.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use iroh_gossip_discovery_proto::{Config, InEvent, LostReason, Profile, TopicEvent};
use iroh_gossip_discovery_sim::{Conditions, Memory, Network, Node};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const SEQUENCE: u64 = 1_000_000;

fn converged(seed: u64, nodes: usize, conditions: Conditions) -> Network {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let mut network = Network::new(seed, conditions);
    for _ in 0..nodes {
        network.add();
    }
    for number in 0..nodes {
        let bootstrap: &[usize] = if number == 0 { &[] } else { &[0] };
        network.start(number, SEQUENCE, Config::default(), bootstrap);
    }
    within(&mut network, S * 20, "converge", Network::converged);
    network.run_for(S * 10);
    network
}

/// Runs until a condition holds, and returns how long that took.
fn within(
    network: &mut Network,
    limit: Duration,
    what: &str,
    done: impl FnMut(&Network) -> bool,
) -> Duration {
    let begin = network.elapsed();
    let done = network.run_until(limit, done);
    let took = network.elapsed().saturating_sub(begin);
    println!("{took:?} to {what}");
    assert_eq!(network.failures, [], "{:?}", network.failures.first().map(ToString::to_string));
    let wrong: Vec<_> = (0..network.nodes.len())
        .filter(|n| network.nodes[*n].is_up() && !network.is_right(*n))
        .map(|n| {
            let neighbors =
                network.nodes[n].events.iter().fold(0_i32, |sum, (_, event)| match event {
                    TopicEvent::NeighborUp(_) => sum + 1,
                    TopicEvent::NeighborDown(_) => sum - 1,
                    _ => sum,
                });
            format!(
                "{n}: {neighbors} neighbors, {}, {:?}",
                network.what_is_wrong(n),
                network.nodes[n].dropped
            )
        })
        .collect();
    assert!(done, "did not {what} in {limit:?}: {wrong:#?}");
    took
}

fn lost(network: &Network) -> usize {
    let lost = |(_, event): &&(_, TopicEvent)| matches!(event, TopicEvent::PeerLost(..));
    network.nodes.iter().map(|node| node.events.iter().filter(lost).count()).sum()
}

#[test]
fn a_crash_is_known_to_all() {
    for (nodes, seeds) in [(2, 10), (3, 10), (10, 30), (100, 5)] {
        let mut times = Vec::new();
        for seed in 0..seeds {
            let mut network = converged(seed, nodes, Conditions::lan());
            let gone = nodes - 1;
            network.run_for(MS * 137 * u32::try_from(seed).unwrap());
            network.crash(gone);
            times.push(within(&mut network, S * 8, "know the crash", Network::converged));
            let (id, others) = (network.nodes[gone].id, &network.nodes[..gone]);
            for node in others {
                let mut lost = node.events.iter().filter(|(_, event)| {
                    matches!(
                        event,
                        TopicEvent::PeerLost(record, LostReason::Unreachable) if record.id == id
                    )
                });
                assert!(lost.next().is_some() && lost.next().is_none());
            }
            network.run_for(S * 60);
            assert!(network.converged());
        }
        times.sort();
        println!("N = {nodes}: median {:?}, worst {:?}", times[times.len() / 2], times.last());
        assert!(*times.last().unwrap() <= MS * 6500);
        // With fewer nodes, only one or two probe the crashed one. Then it takes a whole interval
        // on average.
        assert!(nodes < 10 || times[times.len() / 2] <= S * 5);
    }
}

#[test]
fn a_paused_node_is_not_lost() {
    for seed in 0..30 {
        let mut network = converged(seed, 50, Conditions { loss: 0.05, ..Conditions::lan() });
        for round in 0..10 {
            let paused = (round * 7 + 3) % 50;
            network.pause(paused);
            network.run_for(S * 3);
            network.resume(paused);
            network.run_for(S * 2);
        }
        assert_eq!(lost(&network), 0, "seed {seed}");
        assert!(network.converged(), "seed {seed}");
    }
}

#[test]
fn a_partition_heals_without_the_bootstrap_node() {
    for (nodes, seeds) in [(2, 10), (10, 10), (50, 3)] {
        for seed in 0..seeds {
            let mut network = converged(seed, nodes, Conditions::lan());
            if nodes > 2 {
                network.crash(0);
                within(&mut network, S * 8, "know the crash", Network::converged);
            }
            let all: Vec<usize> = (0..nodes).collect();
            let (left, right) = all.split_at(nodes / 2);
            network.partition(&[left.to_vec(), right.to_vec()]);
            network.run_for(S * 120);
            let first = nodes / 2;
            assert!(!network.knows(first, nodes / 2 - 1), "they have lost each other");
            network.heal();
            within(&mut network, S * 10, "heal", Network::converged);
            // Not only the books are one again, but also the overlay: a change reaches all nodes by
            // gossip.
            network.run_for(S * 3);
            let profile = Profile::new("after");
            network.command(first, |topic| InEvent::SetProfile(topic, profile));
            within(&mut network, S / 2, "know a change", Network::converged);
            network.run_for(S * 60);
            assert!(network.converged());
            // The network becomes quiet: no node joins or dials without end.
            let joins = |network: &Network| {
                let joins = |node: &Node| {
                    let up =
                        |(_, event): &&(_, TopicEvent)| matches!(event, TopicEvent::NeighborUp(_));
                    node.events.iter().filter(up).count()
                };
                network.nodes.iter().map(joins).sum::<usize>()
            };
            let before = (joins(&network), network.sent().dials);
            network.run_for(S * 300);
            let (joins, dials) = (joins(&network) - before.0, network.sent().dials - before.1);
            assert!(joins <= nodes && dials <= 3 * nodes as u64, "{joins} joins, {dials} dials");
        }
    }
}

#[test]
fn half_of_all_may_vanish_at_once() {
    for seed in 0..5 {
        let mut network = converged(seed, 60, Conditions::lan());
        // Long enough for all nodes to be established, because dials to strangers are rare.
        network.run_for(S * 660);
        for number in 0..30 {
            network.crash(number);
        }
        within(&mut network, S * 15, "know that half is gone", Network::converged);
    }
}

#[test]
fn a_node_that_dies_with_all_of_its_neighbors_is_noticed() {
    for seed in 0..10 {
        let mut network = converged(seed, 50, Conditions::lan());
        network.run_for(S * 660);
        let mut neighbors = BTreeSet::new();
        for (_, event) in &network.nodes[20].events {
            match event {
                TopicEvent::NeighborUp(peer) => drop(neighbors.insert(*peer)),
                TopicEvent::NeighborDown(peer) => drop(neighbors.remove(peer)),
                _ => {}
            }
        }
        let dying: Vec<_> =
            (0..50).filter(|n| *n == 20 || neighbors.contains(&network.nodes[*n].id)).collect();
        for number in dying {
            network.crash(number);
        }
        within(&mut network, S * 40, "know that a whole corner is gone", Network::converged);
    }
}

#[test]
fn a_leave_is_known_to_all() {
    for seed in 0..10 {
        let mut network = converged(seed, 100, Conditions::internet());
        network.command(7, InEvent::Leave);
        within(&mut network, MS * 500, "know the leave", |network| {
            (0..100).filter(|n| *n != 7).all(|n| !network.knows(n, 7))
        });
        network.run_for(S * 30);
        assert_eq!(lost(&network), 0);
    }
}

/// A QUIC stream loses no frame, but a full queue or a link that ends does.
#[test]
fn a_change_that_gossip_lost_is_noticed_within_seconds() {
    for seed in 0..10 {
        let mut network = converged(seed, 100, Conditions::lan());
        network.conditions.drop = 0.2;
        network.command(50, InEvent::Leave);
        within(&mut network, S * 3, "know the leave", |network| network.is_known(50));
    }
}

#[test]
fn a_newcomer_is_known_and_knows_all_though_frames_vanish() {
    for seed in 0..10 {
        let mut network = converged(seed, 100, Conditions::lan());
        network.conditions.drop = 0.2;
        let newcomer = network.add();
        network.start(newcomer, SEQUENCE, Config::default(), &[0]);
        // A late sync is begun again once its partner answered a ping, and both may vanish.
        within(&mut network, S * 8, "know the newcomer", |network| {
            network.is_known(newcomer) && network.knows_all(newcomer)
        });
    }
}

#[test]
fn copied_keys_are_reported_without_endless_announcements() {
    for seed in 0..10 {
        let mut network = converged(seed, 20, Conditions::lan());
        let clone = network.add_clone(5);
        network.start(clone, SEQUENCE + 7, Config::default(), &[0]);
        let conflict =
            |(_, event): &(_, TopicEvent)| matches!(event, TopicEvent::IdentityConflict { .. });
        within(&mut network, S * 130, "report the conflict", |network| {
            [5, clone].iter().all(|n| network.nodes[*n].events.iter().any(conflict))
        });
        let announced = |network: &Network| -> usize {
            let announced =
                |(_, event): &&(_, TopicEvent)| matches!(event, TopicEvent::Announced(_));
            [5, clone]
                .iter()
                .map(|n| network.nodes[*n].events.iter().filter(announced).count())
                .sum()
        };
        let before = announced(&network);
        network.run_for(S * 600);
        let rate = announced(&network) - before;
        println!("{rate} announcements in 10 min");
        assert!(rate <= 24, "one a minute each, not {rate} in ten minutes");
    }
}

#[test]
fn a_partition_heals_after_every_node_of_one_side_was_restarted() {
    for (memory, seeds) in [(Memory::Kept, 10), (Memory::Lost, 10)] {
        for seed in 0..seeds {
            let mut network = converged(seed, 30, Conditions::lan());
            network.crash(0);
            within(&mut network, S * 8, "know the crash", Network::converged);
            let (left, right): (Vec<_>, Vec<_>) = (1..30).partition(|n| *n < 15);
            network.partition(&[left, right.clone()]);
            network.run_for(S * 60);
            for number in right {
                network.crash(number);
                network.run_for(MS * 50);
                network.restart(number, memory, if number == 15 { &[] } else { &[15] });
                network.run_for(MS * 500);
            }
            network.run_for(S * 20);
            network.heal();
            within(&mut network, S * 15, "heal", Network::converged);
        }
    }
}

#[test]
fn a_node_that_was_cut_off_alone_comes_back() {
    for seed in 0..10 {
        let mut network = converged(seed, 50, Conditions::lan());
        let others: Vec<usize> = (0..50).filter(|n| *n != 9).collect();
        network.partition(&[others, vec![9]]);
        network.run_for(S * 90);
        network.heal();
        within(&mut network, S * 8, "heal", Network::converged);
    }
}

#[test]
fn a_restart_is_visible_within_two_seconds() {
    for seed in 0..20 {
        let mut network = converged(seed, 50, Conditions::lan());
        for memory in [Memory::Kept, Memory::Lost] {
            network.crash(17);
            network.run_for(MS * 200);
            network.restart(17, memory, &[0]);
            within(&mut network, S * 2, "know the restarted one", Network::converged);
        }
        network.run_for(S * 30);
        assert_eq!(lost(&network), 0, "its old links say nothing of its new life");
    }
}
