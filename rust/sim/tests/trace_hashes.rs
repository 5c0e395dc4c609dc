//! A refactoring changes nothing: the traces of a list of seeds stay the same, byte for byte.
//!
//! A trace hash covers every frame of a simulated network: its time, its link and its content. A
//! change that moves or renames code must keep all hashes. A change of behavior alters them: then
//! `UPDATE_TRACE_HASHES=1 cargo test --test trace_hashes` records the new ones.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use iroh_gossip_discovery_sim::scenario::{Options, Scenario, run};

/// Pairs of a number of nodes, and how many random histories of that size are recorded, from seed
/// 0.
const RUNS: [(usize, u64); 2] = [(30, 16), (300, 2)];

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trace_hashes.txt")
}

/// One line per history: number of nodes, seed, trace hash in hex.
fn line(nodes: usize, seed: u64) -> String {
    let scenario = Scenario::random(seed, nodes);
    let report = run(&scenario, Options::default(), &mut |_| true).expect("a valid scenario");
    assert_eq!(report.failures, Vec::<String>::new(), "{nodes} nodes, seed {seed}");
    format!("{nodes} {seed} {}\n", report.trace)
}

#[test]
fn recorded_seeds_give_the_recorded_traces() {
    let measured: String = thread::scope(|scope| {
        let runs = RUNS.map(|(nodes, seeds)| {
            scope.spawn(move || (0..seeds).map(|seed| line(nodes, seed)).collect::<String>())
        });
        runs.map(|run| run.join().expect("no run panics")).concat()
    });
    if std::env::var_os("UPDATE_TRACE_HASHES").is_some() {
        fs::write(recorded(), &measured).expect("the recorded hashes can be written");
    }
    let expected = fs::read_to_string(recorded()).expect("hashes were recorded");
    assert_eq!(measured, expected, "a refactoring must not change what nodes send");
}
