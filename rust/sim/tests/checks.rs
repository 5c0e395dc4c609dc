//! What the checks demand, and what they do not.

use std::time::Duration;

use iroh_gossip_discovery_proto::Config;
use iroh_gossip_discovery_sim::{Book, Conditions, Network};

/// Nodes 0 and 1 know each other; node 2 starts from one of them that is gone by then, or is not.
fn with_a_latecomer(from: usize) -> Network {
    let mut network = Network::new(1, Conditions::lan());
    let nodes = [0, 1, 2].map(|_| network.add());
    network.boot(nodes[0], Config::default(), &[]);
    network.boot(nodes[1], Config::default(), &[0]);
    network.run_for(Duration::from_secs(30));
    network.crash(1);
    network.run_for(Duration::from_secs(30));
    network.boot(nodes[2], Config::default(), &[from]);
    network
}

#[test]
fn who_starts_from_a_node_that_is_gone_has_nobody_to_find() {
    let mut network = with_a_latecomer(1);
    network.run_for(Duration::from_secs(30));
    network.check_quiet();
    assert_eq!(network.failures, []);
    assert!(!network.knows(2, 0));
}

#[test]
fn who_starts_from_a_node_that_is_there_has_to_find_it() {
    let mut network = with_a_latecomer(0);
    network.check_quiet();
    assert_eq!(network.failures.len(), 2, "each lacks the other: {:?}", network.failures);
    network.failures.clear();
    network.run_for(Duration::from_secs(1));
    network.check_quiet();
    assert_eq!(network.failures, []);
}

#[test]
fn a_book_that_changes_without_an_event_is_seen_at_the_next_step() {
    let mut network = with_a_latecomer(0);
    network.run_for(Duration::from_secs(5));
    assert_eq!(network.failures, []);
    network.nodes[2].book = Book::default();
    // Its next probe, or the answer to one.
    let steps = network.steps;
    network.run_until(Duration::from_secs(5), |network| !network.failures.is_empty());
    let [failure] = network.failures.as_slice() else { panic!("{:?}", network.failures) };
    assert_eq!((failure.check, failure.node), ("events replay", Some(2)));
    assert!(failure.text.starts_with("0 by the events, 1 in the book"), "{failure}");
    assert!(network.steps > steps);
}
