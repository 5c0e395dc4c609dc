//! Random networks of complete states: they come to know each other, whatever the seed.

use std::time::Duration;

use iroh_gossip_discovery_proto::{Config, InEvent, Profile, TopicEvent};
use iroh_gossip_discovery_sim::{Latency, Network};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn lan(seed: u64) -> Network {
    Network::new(seed, Latency { min: MS / 2, max: MS * 5 })
}

fn started(seed: u64, nodes: usize) -> Network {
    let mut network = lan(seed);
    for _ in 0..nodes {
        network.add();
    }
    for number in 0..nodes {
        let bootstrap: &[usize] = if number == 0 { &[] } else { &[0] };
        network.start(number, 1_000_000, Config::default(), bootstrap);
    }
    network
}

fn report(network: &Network) -> String {
    let books: Vec<_> = network.nodes.iter().map(|node| node.book.len()).collect();
    let dropped: Vec<_> = network.nodes.iter().map(|node| &node.dropped).collect();
    format!("after {:?}: books {books:?}, dropped {dropped:?}", network.elapsed())
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

#[test]
fn nodes_started_at_once_know_each_other() {
    log();
    for (nodes, seeds) in [(2, 20), (3, 20), (10, 20), (50, 5), (100, 3)] {
        for seed in 0..seeds {
            let mut network = started(seed, nodes);
            let done = network.run_until(S * 10, Network::converged);
            assert!(done, "{nodes} nodes, seed {seed}: {}", report(&network));
            println!("{nodes} nodes, seed {seed}: {:?}", network.elapsed());
        }
    }
}
