//! Makes a failing scenario small: fewer nodes, then fewer faults, then less time.

use std::time::Duration;

use super::{Fault, HumanDuration, NetworkSection, Options, Scenario, Start, run};

/// The time that a network has to settle before its books are compared.
const SETTLE: Duration = Duration::from_secs(90);

/// The result of shrinking: a smaller scenario that still fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// The smallest scenario that was found.
    pub scenario: Scenario,
    /// The check that fails in it, which is the same as in the given scenario.
    pub check: &'static str,
    /// The number of scenarios that were run.
    pub tried: usize,
}

/// Makes a scenario smaller as long as the same check fails in it, with at most `most` runs.
/// Returns `None` if the scenario does not fail. `go_on` is called often, with the number of runs.
/// If it returns false, shrinking ends with the smallest scenario so far.
pub fn shrink(
    scenario: &Scenario,
    most: usize,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Option<Shrunk> {
    let mut tried = 0;
    shrink_by(scenario, most, &mut |scenario| {
        let options = Options { fail_fast: true, ..Options::default() };
        // Once shrinking has to end, no run continues, so none fails.
        let report = run(scenario, options, &mut |_| go_on(tried)).ok()?;
        tried += 1;
        report.first_failure().map(|failure| failure.check)
    })
}

/// As [`shrink`], with a function that finds the failing check of a scenario.
pub(super) fn shrink_by(
    scenario: &Scenario,
    most: usize,
    failing: &mut dyn FnMut(&Scenario) -> Option<&'static str>,
) -> Option<Shrunk> {
    let check = failing(scenario)?;
    let mut shrunk = Shrunk { scenario: scenario.clone(), check, tried: 1 };
    loop {
        let before = shrunk.scenario.clone();
        for smaller in [fewer_nodes, fewer_faults, plainer, less_time] {
            let mut candidates = smaller(&shrunk.scenario);
            while let Some(candidate) = candidates.pop() {
                if shrunk.tried >= most {
                    return Some(shrunk);
                }
                shrunk.tried += 1;
                if failing(&candidate) == Some(check) {
                    candidates = smaller(&candidate);
                    shrunk.scenario = candidate;
                }
            }
        }
        if shrunk.scenario == before {
            return Some(shrunk);
        }
    }
}

/// Returns versions with fewer nodes. The last one is tried first, because it is the greatest step.
fn fewer_nodes(scenario: &Scenario) -> Vec<Scenario> {
    let nodes = scenario.nodes;
    let mut fewer = vec![nodes - 1, nodes * 3 / 4, nodes / 2];
    fewer.retain(|fewer| (1..nodes).contains(fewer));
    fewer.dedup();
    fewer.into_iter().map(|nodes| Scenario { nodes, ..scenario.clone() }).collect()
}

fn fewer_faults(scenario: &Scenario) -> Vec<Scenario> {
    let all = scenario.faults.len();
    let without = |from: usize, to: usize| {
        let mut faults = scenario.faults.clone();
        faults.drain(from..to);
        Scenario { faults, ..scenario.clone() }
    };
    let mut fewer: Vec<_> = (0..all).map(|number| without(number, number + 1)).collect();
    if all > 3 {
        fewer.extend([without(all / 2, all), without(0, all / 2)]);
    }
    fewer
}

/// Returns versions without the settings of the network and of the start.
fn plainer(scenario: &Scenario) -> Vec<Scenario> {
    let plain = [
        Scenario { network: NetworkSection::default(), ..scenario.clone() },
        Scenario { start: Start::default(), ..scenario.clone() },
        Scenario { clock_skew: HumanDuration::default(), ..scenario.clone() },
    ];
    let mut plain = Vec::from(plain);
    plain.retain(|plain| plain != scenario);
    plain
}

fn less_time(scenario: &Scenario) -> Vec<Scenario> {
    let mut less = Vec::new();
    let last = scenario.faults.iter().map(Fault::ends).max().unwrap_or_default();
    let after = scenario.end().saturating_sub(scenario.warmup.0);
    let rest = after.saturating_sub(last);
    for part in [4, 2] {
        let shorter = whole(last + rest.saturating_sub(rest / part));
        if shorter < after && shorter >= last + SETTLE {
            less.push(Scenario { duration: Some(HumanDuration(shorter)), ..scenario.clone() });
        }
    }
    for (number, fault) in scenario.faults.iter().enumerate() {
        if let Some(lasts) = fault.lasts.filter(|lasts| lasts.0 > Duration::from_secs(1)) {
            let mut shorter = scenario.clone();
            shorter.faults[number].lasts = Some(HumanDuration(whole(lasts.0 / 2)));
            less.push(shorter);
        }
    }
    // Moves all faults to earlier times, with the same time between them.
    if let Some(first) = scenario.faults.iter().map(|fault| fault.at).min()
        && !first.is_zero()
    {
        let mut sooner = scenario.clone();
        for fault in &mut sooner.faults {
            fault.at.0 -= first.0;
        }
        sooner.duration = Some(HumanDuration(after.saturating_sub(first.0)));
        less.push(sooner);
    }
    less
}

/// Rounds a duration to whole milliseconds, so that it is easy to read.
fn whole(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::scenario::{Action, NodeSelector};

    /// A scenario of forty nodes, with much that does not matter to a crash at 20 s.
    fn scenario() -> Scenario {
        let mut scenario = Scenario { nodes: 40, ..Scenario::random(3, 40) };
        let crash = Fault::new(HumanDuration::ms(20_000), Action::Crash(NodeSelector::Count(1)));
        scenario.faults.insert(1, crash);
        scenario.network.loss = Some(0.1);
        scenario.start.over = HumanDuration::ms(100);
        scenario.clock_skew = HumanDuration::ms(100);
        scenario
    }

    /// Fails if there are seven nodes and a crash, and in another way if there are fewer.
    fn failing(scenario: &Scenario) -> Option<&'static str> {
        let crashes = scenario.faults.iter().any(|fault| fault.crash.is_some());
        match scenario.nodes {
            7.. => crashes.then_some("made up"),
            _ => Some("something else"),
        }
    }

    #[test]
    fn shrinking_removes_what_does_not_matter() {
        let shrunk = shrink_by(&scenario(), 1000, &mut failing).unwrap();
        assert_eq!(shrunk.check, "made up");
        let small = shrunk.scenario;
        assert_eq!(
            (small.nodes, small.faults.len(), small.faults[0].at),
            (7, 1, HumanDuration::default())
        );
        assert_eq!(
            (small.network.is_empty(), &small.start, small.clock_skew),
            (true, &Start::default(), HumanDuration::default())
        );
        // With less time it would fail too, but perhaps because the books had no time to become
        // right.
        assert!((SETTLE..SETTLE * 4 / 3).contains(&small.end()), "{:?}", small.end());
        assert_eq!(small.validate(), Ok(()));
    }

    #[test]
    fn shrinking_ends_after_the_limit_of_runs_with_the_smallest_so_far() {
        let mut ran = 0;
        let mut counted = |scenario: &Scenario| {
            ran += 1;
            failing(scenario)
        };
        let shrunk = shrink_by(&scenario(), 5, &mut counted).unwrap();
        assert_eq!((shrunk.tried, ran), (5, 5));
        assert!(shrunk.scenario.nodes < 40 && failing(&shrunk.scenario) == Some("made up"));
        assert_eq!(shrink_by(&scenario(), 5, &mut |_| None), None);
    }
}
