//! Random networks of complete states: all nodes find each other, whatever the seed.

use std::time::Duration;

use iroh_gossip_discovery_proto::{Config, InEvent, LostReason, Profile, TopicEvent};
use iroh_gossip_discovery_sim::{Conditions, Latency, Network};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const SEQUENCE: u64 = 1_000_000;

fn lan(seed: u64) -> Network {
    // The log is shown with RUST_LOG, and with --nocapture or after a failure.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let latency = Latency::Uniform { min: MS / 2, max: MS * 5 };
    Network::new(seed, Conditions { latency, ..Conditions::lan() })
}

/// Starts all nodes at once, from node 0.
fn star(seed: u64, nodes: usize, config: &Config) -> Network {
    let mut network = lan(seed);
    for _ in 0..nodes {
        network.add();
    }
    for number in 0..nodes {
        let bootstrap: &[usize] = if number == 0 { &[] } else { &[0] };
        network.start(number, SEQUENCE, config.clone(), bootstrap);
    }
    network
}

fn converged(seed: u64, nodes: usize, config: &Config) -> Network {
    let mut network = star(seed, nodes, config);
    expect(&mut network, seed, S * 10, "to converge", Network::converged);
    network
}

fn expect(
    network: &mut Network,
    seed: u64,
    limit: Duration,
    what: &str,
    done: impl FnMut(&Network) -> bool,
) {
    let begin = network.elapsed();
    let done = network.run_until(limit, done);
    let books: Vec<_> = network.nodes.iter().map(|node| node.book.len()).collect();
    let dropped: Vec<_> = network.nodes.iter().map(|node| &node.dropped).collect();
    let took = network.elapsed().saturating_sub(begin);
    println!("seed {seed}: {took:?} {what}");
    assert_eq!(network.failures, [], "{:?}", network.failures.first().map(ToString::to_string));
    assert!(done, "seed {seed}: not {what} after {took:?}: books {books:?}, dropped {dropped:?}");
}

fn set_metadata(network: &mut Network, number: usize, value: &str) {
    let mut profile = Profile::new(format!("node-{number}"));
    profile.metadata.insert("value".to_owned(), value.to_owned());
    network.command(number, |topic| InEvent::SetProfile(topic, profile));
}

#[test]
fn nodes_started_at_once_know_each_other() {
    for (nodes, seeds) in [(2, 50), (3, 50), (10, 50), (50, 5), (100, 3)] {
        for seed in 0..seeds {
            converged(seed, nodes, &Config::default());
        }
    }
}

#[test]
fn nodes_started_one_from_another_know_each_other() {
    for seed in 0..10 {
        let mut network = lan(seed);
        for number in 0..30 {
            network.add();
            let bootstrap = [number.max(1) - 1];
            network.start(number, SEQUENCE, Config::default(), &bootstrap[..number.min(1)]);
            network.run_for(Duration::from_millis(seed * 3));
        }
        expect(&mut network, seed, S * 10, "to converge", Network::converged);
    }
}

#[test]
fn a_bootstrap_peer_that_starts_late_is_found() {
    for seed in 0..20 {
        let mut network = lan(seed);
        for _ in 0..3 {
            network.add();
        }
        network.start(1, SEQUENCE, Config::default(), &[0]);
        network.start(2, SEQUENCE, Config::default(), &[0]);
        network.run_for(S * 45);
        network.start(0, SEQUENCE, Config::default(), &[]);
        expect(&mut network, seed, S * 9, "to converge", Network::converged);
    }
}

#[test]
fn a_leave_is_known_to_all_at_once() {
    for seed in 0..20 {
        let mut network = converged(seed, 30, &Config::default());
        let gone = network.nodes[7].id;
        network.command(7, InEvent::Leave);
        expect(&mut network, seed, MS * 500, "to know the leave", |network| {
            network.nodes.iter().all(|node| !node.book.contains_key(&gone))
        });
        let left =
            |event: &TopicEvent| matches!(event, TopicEvent::PeerLeft(record) if record.id == gone);
        for node in network.nodes.iter().filter(|node| node.id != gone) {
            assert_eq!(node.events.iter().filter(|(_, event)| left(event)).count(), 1);
        }
        expect(&mut network, seed, S, "to be acknowledged", |network| {
            matches!(network.nodes[7].events.last(), Some((_, TopicEvent::Closed)))
        });
        // No node brings it back later.
        network.run_for(S * 120);
        assert!(network.nodes.iter().all(|node| !node.book.contains_key(&gone)));
    }
}

#[test]
fn a_leave_is_known_even_without_a_link() {
    for seed in 0..20 {
        let mut network = converged(seed, 2, &Config::default());
        network.run_for(S);
        network.break_a_connection();
        network.run_for(Duration::ZERO);
        network.command(1, InEvent::Leave);
        expect(&mut network, seed, MS * 500, "to know the leave", |network| {
            network.nodes[0].book.is_empty()
        });
    }
}

#[test]
fn a_leave_is_known_even_if_the_only_link_was_to_a_node_that_left() {
    for seed in 0..100 {
        let mut network = lan(seed);
        for number in 0..3 {
            network.add();
            let bootstrap = [number.max(1) - 1];
            network.start(number, SEQUENCE, Config::default(), &bootstrap[..number.min(1)]);
        }
        expect(&mut network, seed, S * 5, "to converge", Network::converged);
        network.command(1, InEvent::Leave);
        expect(&mut network, seed, S, "to know the first leave", |n| {
            !n.knows(2, 1) && !n.knows(0, 1)
        });
        network.command(2, InEvent::Leave);
        expect(&mut network, seed, MS * 500, "to know the second", |n| !n.knows(0, 2));
    }
}

#[test]
fn all_may_leave_at_the_same_time_without_waiting_for_each_other() {
    for seed in 0..20 {
        let mut network = converged(seed, 8, &Config::default());
        for number in 0..8 {
            network.command(number, InEvent::Leave);
        }
        expect(&mut network, seed, MS * 50, "to have left", |network| {
            let left =
                |event: Option<&(_, TopicEvent)>| matches!(event, Some((_, TopicEvent::Closed)));
            network.nodes.iter().all(|node| left(node.events.last()))
        });
    }
}

#[test]
fn a_restart_is_visible_to_all_whatever_its_clock_says() {
    for seed in 0..20 {
        for first in [SEQUENCE - 900_000, SEQUENCE + 1_000] {
            let mut network = converged(seed, 20, &Config::default());
            network.run_for(S * 20);
            network.crash(5);
            network.run_for(MS * 100);
            network.start(5, first, Config::default(), &[0]);
            expect(&mut network, seed, S * 2, "to know the restarted one", |network| {
                let restarted = &network.nodes[5];
                network.converged()
                    && network.nodes[0].book[&restarted.id].boot_id == restarted.boot_id()
            });
        }
    }
}

#[test]
fn a_restarted_bootstrap_peer_without_state_is_found_again() {
    for seed in 0..20 {
        let mut network = converged(seed, 20, &Config::default());
        network.run_for(S * 20);
        network.crash(0);
        network.start(0, SEQUENCE + 5_000, Config::default(), &[]);
        // It knows no other node. The others notice nothing until their links time out, after 9 s.
        expect(&mut network, seed, S * 14, "to know the restarted one", Network::converged);
    }
}

#[test]
fn the_last_of_many_updates_arrives_everywhere() {
    for seed in 0..5 {
        let mut network = converged(seed, 30, &Config::default());
        for round in 0..200 {
            for number in [3, 11, 19] {
                set_metadata(&mut network, number, &round.to_string());
            }
            network.run_for(MS * 10);
        }
        expect(&mut network, seed, S, "to have the last update", Network::converged);
        let last = &network.nodes[0].book[&network.nodes[11].id];
        assert_eq!(last.profile.metadata["value"], "199");
    }
}

#[test]
fn a_silent_node_is_lost_when_its_expiration_is_over() {
    // With few probes, and links that last, nearly always only the expiration is left.
    let mut config = Config::default();
    config.expiration = Some(S * 10);
    config.probe_interval = S * 3600;
    let mut expired = 0;
    for seed in 0..10 {
        let mut network = converged(seed, 20, &config);
        network.conditions.idle = S * 3600;
        network.run_for(S * 60);
        // A heartbeat may be on its way.
        expect(&mut network, seed, S, "to keep everyone by heartbeats", Network::converged);
        let gone = network.nodes[4].id;
        network.crash(4);
        network.run_for(S * 6);
        assert!(network.nodes[0].book.contains_key(&gone), "not before its time");
        expect(&mut network, seed, S * 5, "to lose the silent one", Network::converged);
        let reason = |event: &TopicEvent| match event {
            TopicEvent::PeerLost(record, reason) if record.id == gone => Some(*reason),
            _ => None,
        };
        let up = network.nodes.iter().filter(|node| node.is_up());
        let reasons = up.map(|node| node.events.iter().filter_map(|(_, event)| reason(event)));
        let reasons: Vec<Vec<_>> = reasons.map(Iterator::collect).collect();
        assert!(reasons.iter().all(|reasons| reasons.len() == 1), "lost once: {reasons:?}");
        // A probe may notice it sooner.
        expired += usize::from(reasons.iter().flatten().all(|at| *at == LostReason::Expired));
        network.run_for(S * 60);
        expect(&mut network, seed, S, "to keep it out", Network::converged);
    }
    assert!(expired >= 8, "by its expiration in {expired} of 10 networks");
}

#[test]
fn books_stay_whole_while_links_break() {
    for seed in 0..10 {
        let mut network = star(seed, 30, &Config::default());
        for round in 0..100 {
            network.break_a_connection();
            set_metadata(&mut network, round % 30, &round.to_string());
            network.run_for(MS * 50);
        }
        expect(&mut network, seed, S * 15, "to converge", Network::converged);
    }
}

#[test]
fn a_busy_bootstrap_peer_passes_newcomers_on() {
    let mut config = Config::default();
    config.concurrent_syncs = 1;
    let mut passed_on = 0;
    for seed in 0..5 {
        let mut network = converged(seed, 150, &config);
        network.run_for(S);
        // A sync of 150 records takes several turns, in which more newcomers arrive.
        for number in 150..180 {
            network.add();
            network.start(number, SEQUENCE, config.clone(), &[0]);
        }
        expect(&mut network, seed, S * 10, "to converge", Network::converged);
        passed_on += network.nodes[0].dropped.get("syncs passed on to other members").unwrap_or(&0);
    }
    assert!(passed_on > 0, "the limit was never reached");
}

#[test]
fn two_nodes_that_dial_each_other_end_with_one_link() {
    for seed in 0..200 {
        let mut network = lan(seed);
        let (a, b) = (network.add(), network.add());
        network.start(a, SEQUENCE, Config::default(), &[b]);
        network.start(b, SEQUENCE, Config::default(), &[a]);
        expect(&mut network, seed, S * 5, "to converge", Network::converged);
        network.run_for(S * 5);
        assert_eq!(network.connections(a, b), 1, "seed {seed}");
        assert!(network.converged());
    }
}

#[test]
fn a_full_book_refuses_newcomers_and_says_so() {
    let mut config = Config::default();
    config.capacity = 5;
    let mut network = star(1, 10, &config);
    network.run_for(S * 30);
    for node in &network.nodes {
        assert_eq!(node.book.len(), 5);
    }
    let refused =
        network.nodes.iter().filter_map(|n| n.dropped.get("newcomers beyond the capacity"));
    assert!(refused.sum::<u64>() > 0);
}

#[test]
fn an_idle_network_is_quiet() {
    let mut network = converged(3, 100, &Config::default());
    network.run_for(S * 300);
    let before = network.sent();
    network.run_for(S * 300);
    let sent = network.sent() - before;
    // The bound is far above the figure in docs/performance.md: it only catches endless traffic.
    let (frames, wire) = (sent.bytes() / 300 / 100, sent.wire_bytes / 300 / 100);
    println!("{frames} B/s of frames, {wire} B/s on the wire per node; {} dials", sent.dials);
    assert!(frames < 200, "{frames} B/s of frames");
    assert!((frames..5 * frames + 400).contains(&wire), "{wire} B/s");
    assert!(sent.dials < 200, "{} dials", sent.dials);
    assert!(network.converged());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let hash = |seed| {
        let mut network = star(seed, 20, &Config::default());
        network.run_for(S * 30);
        network.break_a_connection();
        network.run_for(S * 30);
        network.trace_hash()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}

#[test]
fn an_outage_of_everything_is_survived_without_bootstrap_peers() {
    for seed in 0..10 {
        // The nodes find each other on the local network, as by mDNS.
        let mut network = lan(seed);
        for _ in 0..4 {
            network.add();
        }
        for number in 0..4 {
            network.start(number, SEQUENCE, Config::default(), &[]);
        }
        for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            let found = network.nodes[b].id;
            network.command(a, |topic| InEvent::Found(topic, found, vec![]));
        }
        expect(&mut network, seed, S * 10, "to converge", Network::converged);
        network.shatter();
        network.run_for(S * 120);
        network.heal();
        set_metadata(&mut network, 2, "after the outage");
        expect(&mut network, seed, S * 45, "to know what changed", Network::converged);
        let reconnected = |event: &TopicEvent| matches!(event, TopicEvent::Reconnected);
        for node in &network.nodes {
            assert!(node.events.iter().any(|(_, event)| reconnected(event)), "seed {seed}");
        }
    }
}

#[test]
fn a_node_that_lost_its_sequence_is_seen_again_after_it_expired() {
    let mut config = Config::default();
    config.expiration = Some(S * 10);
    for seed in 0..10 {
        let mut network = converged(seed, 10, &config);
        network.crash(5);
        network.run_for(S * 30);
        network.start(5, SEQUENCE - 900_000, config.clone(), &[0]);
        expect(&mut network, seed, S * 5, "to know the one without state", Network::converged);
    }
}
