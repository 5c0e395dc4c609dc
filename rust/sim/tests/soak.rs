//! Thousands of random histories: every check holds in each of them, whatever happens to the nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use iroh_gossip_discovery_proto::Rule;
use iroh_gossip_discovery_sim::scenario::{Options, Scenario, commands, soak};

/// Pairs of a number of nodes, and how many seeds from 0. The longest come first, so that no core
/// is left alone with one.
const RUNS: [(usize, u64); 2] = [(300, 5), (30, 1000)];

/// Histories that are known to fail: nodes, seed, and the defect of the protocol. An entry that
/// passes fails the test too, so that none stays here for long.
const KNOWN: &[(usize, u64, &str)] = &[];

#[test]
fn every_check_holds_in_random_histories() {
    let histories =
        || RUNS.iter().flat_map(|(nodes, seeds)| (0..*seeds).map(|seed| (*nodes, seed)));
    let scenarios = histories().map(|(nodes, seed)| Scenario::random(seed, nodes));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let soaked = soak(scenarios, threads, Options::default(), &|found| {
        println!("{}\n{}", found.failure, commands(&found.scenario));
    });
    let found: BTreeSet<_> =
        soaked.found.iter().map(|found| (found.scenario.nodes, found.scenario.seed)).collect();
    let known: BTreeMap<_, _> =
        KNOWN.iter().map(|(nodes, seed, why)| ((*nodes, *seed), *why)).collect();
    let new: Vec<_> = found.iter().filter(|run| !known.contains_key(run)).collect();
    let passed: Vec<_> = known.iter().filter(|(run, _)| !found.contains(run)).collect();
    assert_eq!(soaked.ran, histories().count() as u64, "each history ran");
    assert!(new.is_empty(), "(nodes, seed) {new:?}: how to see them again stands above");
    assert!(passed.is_empty(), "take what passes out of KNOWN: {passed:?}");
}

#[test]
fn a_history_that_fails_is_found_with_its_commands() {
    let soaked = |rule, threads| {
        let options = Options { disabled_rule: rule, ..Options::default() };
        soak((0..20).map(|seed| Scenario::random(seed, 12)), threads, options, &|_| ())
    };
    assert_eq!(soaked(None, 1).found, []);
    let broken = soaked(Some(Rule::Refutation), 1);
    assert_eq!(broken.ran, 20);
    let first = broken.found.first().expect("nobody refutes");
    let seed = first.scenario.seed;
    assert!(first.failure.starts_with(&format!("seed {seed}, at ")), "{}", first.failure);
    let commands = commands(&first.scenario);
    for verb in ["run", "shrink"] {
        let command = format!("simulate -- {verb} --seed {seed} --nodes 12");
        assert!(commands.contains(&command), "{commands}");
    }
    assert_eq!(soaked(Some(Rule::Refutation), 4).found, broken.found, "in whatever order they end");
}
