//! How fast the simulator is: runs of 30 nodes × 60 s each second, and a join storm.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures")]

use std::time::{Duration, Instant};

use iroh_gossip_discovery_proto::Config;
use iroh_gossip_discovery_sim::{Conditions, Network};

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let (runs, storm) = (numbers.first().copied(), numbers.get(1).copied());
    let begin = Instant::now();
    let mut steps = 0;
    for seed in 0..runs.unwrap_or(40) as u64 {
        let mut network = Network::new(seed, Conditions::lan());
        for number in 0..30 {
            network.add();
            network.boot(number, Config::default(), if number == 0 { &[] } else { &[0] });
        }
        network.run_for(Duration::from_mins(1));
        assert!(network.converged());
        steps += network.steps;
    }
    let took = begin.elapsed();
    let runs = runs.unwrap_or(40);
    println!(
        "{runs} runs of 30 nodes x 60 s in {took:.2?}: {:.1} runs/s, {:.0} steps/run, {:.2} us/step",
        runs as f64 / took.as_secs_f64(),
        steps as f64 / runs as f64,
        took.as_micros() as f64 / steps as f64
    );
    let nodes = storm.unwrap_or(300);
    let begin = Instant::now();
    let mut network = Network::new(1, Conditions::internet());
    network.keep_events = false;
    for number in 0..nodes {
        network.add();
        network.boot(number, Config::default(), if number == 0 { &[] } else { &[0] });
        network.run_for(Duration::from_secs(5) / nodes as u32);
    }
    let done = network.run_until(Duration::from_secs(30), Network::converged);
    println!(
        "storm of {nodes}: converged {done} after {:?} in {:.2?}, {} steps",
        network.elapsed().saturating_sub(Duration::from_secs(5)),
        begin.elapsed(),
        network.steps
    );
}
