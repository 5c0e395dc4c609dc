//! Runs many scenarios on all cores, and names the commands that replay a failed one.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{Options, Scenario, run};

/// A scenario that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedScenario {
    /// The scenario.
    pub scenario: Scenario,
    /// The first check that failed, and what was seen.
    pub failure: String,
}

/// The result of many scenarios.
#[derive(Debug, Default)]
pub struct SoakReport {
    /// The number of scenarios that ran.
    pub ran: u64,
    /// The scenarios that failed, ordered by nodes and seed.
    pub found: Vec<FailedScenario>,
}

/// Runs all scenarios, `at_once` at a time, each up to its first failure. `failed` is called at
/// once for each failure.
pub fn soak(
    scenarios: impl Iterator<Item = Scenario> + Send,
    threads: usize,
    options: Options,
    failed: &(dyn Fn(&FailedScenario) + Sync),
) -> SoakReport {
    let options = Options { fail_fast: true, ..options };
    let (scenarios, soaked) = (Mutex::new(scenarios), Mutex::new(SoakReport::default()));
    let work = || {
        loop {
            // The lock is released at the end of this line.
            let Some(scenario) = lock(&scenarios).next() else { return };
            let failure = match run(&scenario, options, &mut |_| true) {
                Ok(report) => report.failures.into_iter().next(),
                Err(error) => Some(error.to_string()),
            };
            let found = failure.map(|failure| FailedScenario { scenario, failure });
            found.iter().for_each(failed);
            let mut soaked = lock(&soaked);
            soaked.ran += 1;
            soaked.found.extend(found);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut soaked = soaked.into_inner().unwrap_or_else(PoisonError::into_inner);
    soaked.found.sort_by_key(|found| (found.scenario.nodes, found.scenario.seed));
    soaked
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the commands that replay and shrink the random scenario of a seed, in this repository.
#[must_use]
pub fn commands(scenario: &Scenario) -> String {
    let Scenario { seed, nodes, .. } = scenario;
    let example = "cargo run -p iroh-gossip-discovery-sim --example simulate --";
    let options = format!("--seed {seed} --nodes {nodes}");
    format!("  replay: {example} run {options}\n  shrink: {example} shrink {options}")
}
