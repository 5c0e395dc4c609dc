//! What the checks demand, and what they do not.

use iroh_gossip_discovery_proto::Config;
use iroh_gossip_discovery_sim::{Conditions, Network};

/// Nodes 0 and 1 know each other; node 2 starts from one of them that is gone by then, or is not.
fn with_a_latecomer(from: usize) -> Network {
    let mut network = Network::new(1, Conditions::lan());
    let nodes = [0, 1, 2].map(|_| network.add());
    network.boot(nodes[0], Config::default(), &[]);
    network.boot(nodes[1], Config::default(), &[0]);
    network.run_for(std::time::Duration::from_secs(30));
    network.crash(1);
    network.run_for(std::time::Duration::from_secs(30));
    network.boot(nodes[2], Config::default(), &[from]);
    network
}

#[test]
fn who_starts_from_a_node_that_is_gone_has_nobody_to_find() {
    let mut network = with_a_latecomer(1);
    network.run_for(std::time::Duration::from_secs(30));
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
    network.run_for(std::time::Duration::from_secs(1));
    network.check_quiet();
    assert_eq!(network.failures, []);
}
