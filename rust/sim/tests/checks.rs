//! What the checks of whole books demand, and what they do not.

use std::time::Duration;

use iroh_gossip_discovery_proto::Config;
use iroh_gossip_discovery_sim::{Book, Conditions, Network};

/// Starts nodes 0 and 1, which know each other. Node 1 then crashes, and node 2 starts from node
/// `from`.
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
fn a_newcomer_whose_bootstrap_peer_is_gone_need_not_find_the_others() {
    let mut network = with_a_latecomer(1);
    network.run_for(Duration::from_secs(30));
    network.check_quiet();
    assert_eq!(network.failures, []);
    assert!(!network.knows(2, 0));
}

#[test]
fn a_newcomer_whose_bootstrap_peer_is_up_has_to_find_it() {
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
    // One step is the node's next probe, or the answer to one.
    let steps = network.steps;
    network.run_until(Duration::from_secs(5), |network| !network.failures.is_empty());
    let [failure] = network.failures.as_slice() else { panic!("{:?}", network.failures) };
    assert_eq!((failure.check, failure.node), ("events replay", Some(2)));
    assert!(failure.text.starts_with("0 by the events, 1 in the book"), "{failure}");
    assert!(network.steps > steps);
}
