//! Measures the promises that the simulator can show, and prints them as a table.
//!
//! ```text
//! promises                        all, with as many nodes and seeds as each says: hours
//! promises --nodes 300 --seeds 3  no more of either
//! promises --only 4               the fourth row alone
//! ```
//!
//! A share of the nodes stays what it is with fewer of them. A time is one until all books are right.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use iroh_gossip_discovery_sim::scenario::{Options, Report, Scenario, run};

/// What is measured of a run.
#[derive(Clone, Copy)]
enum Measure {
    /// Seconds until all books were right after the last action of this name.
    Took(&'static str),
    /// Verdicts on members within reach.
    Lost,
    /// Bytes on the wire that a node sends in a second.
    Wire,
}

struct Promise {
    what: &'static str,
    nodes: usize,
    seeds: u64,
    /// The median and the 99th percentile, at the most.
    goal: (Option<f64>, f64),
    measure: Measure,
    scenario: &'static str,
}

const PROMISES: [Promise; 12] = [
    Promise {
        what: "a newcomer has the whole book, and all know it",
        nodes: 1000,
        seeds: 10,
        goal: (None, 0.5),
        measure: Measure::Took("join"),
        scenario: "preset = 'internet'\nwarmup = '30s'\nduration = '10s'\nfault = [{ at = '1s', join = 1 }]",
    },
    Promise {
        what: "all start within 5 s: books full after the last start",
        nodes: 1000,
        seeds: 10,
        goal: (None, 1.0),
        measure: Measure::Took("start"),
        scenario: "preset = 'internet'\nduration = '20s'\nstart = { over = '5s' }",
    },
    Promise {
        what: "the same, 5 % loss",
        nodes: 1000,
        seeds: 10,
        goal: (None, 2.0),
        measure: Measure::Took("start"),
        scenario: "preset = 'internet'\nduration = '20s'\nstart = { over = '5s' }\nnetwork = { loss = 0.05 }",
    },
    Promise {
        what: "a leave is known to all",
        nodes: 1000,
        seeds: 10,
        goal: (None, 0.5),
        measure: Measure::Took("leave"),
        scenario: "preset = 'internet'\nwarmup = '30s'\nduration = '10s'\nfault = [{ at = '1s', leave = 1 }]",
    },
    Promise {
        what: "a leave is known to all, 20 % drop",
        nodes: 1000,
        seeds: 10,
        goal: (None, 5.0),
        measure: Measure::Took("leave"),
        scenario: "preset = 'internet'\nwarmup = '30s'\nduration = '30s'\nexpect = { quiet = false }
            fault = [{ network = { drop = 0.2 } }, { at = '1s', leave = 1 }]",
    },
    Promise {
        what: "a crash is known to all",
        nodes: 1000,
        seeds: 10,
        goal: (Some(5.0), 6.5),
        measure: Measure::Took("crash"),
        scenario: "warmup = '30s'\nduration = '20s'\nfault = [{ at = '1s', crash = 1 }]",
    },
    Promise {
        what: "the same, N = 100",
        nodes: 100,
        seeds: 100,
        goal: (Some(5.0), 6.5),
        measure: Measure::Took("crash"),
        scenario: "warmup = '30s'\nduration = '20s'\nfault = [{ at = '1s', crash = 1 }]",
    },
    Promise {
        what: "a tenth of all crash at once, known to all",
        nodes: 1000,
        seeds: 10,
        goal: (None, 12.0),
        measure: Measure::Took("crash"),
        scenario: "warmup = '660s'\nduration = '40s'\nfault = [{ at = '1s', crash = '10%' }]",
    },
    Promise {
        what: "half of all are cut off, known to all",
        nodes: 500,
        seeds: 10,
        // None was promised.
        goal: (None, f64::INFINITY),
        measure: Measure::Took("partition"),
        scenario: "preset = 'internet'\nwarmup = '660s'\nduration = '40s'\nexpect = { quiet = false }
            fault = [{ at = '1s', partition = '50%' }]",
    },
    Promise {
        what: "a partition of 120 s heals, the bootstrap node gone",
        nodes: 500,
        seeds: 10,
        goal: (None, 3.0),
        measure: Measure::Took("heal"),
        scenario: "preset = 'internet'\nwarmup = '660s'\nduration = '170s'
            fault = [{ at = '1s', crash = [0] }, { at = '20s', partition = '50%' }, { at = '140s', heal = true }]",
    },
    Promise {
        what: "5 % loss and pauses of 3 s of 2 % of the nodes: lost within reach",
        nodes: 300,
        seeds: 100,
        goal: (None, 0.0),
        measure: Measure::Lost,
        scenario: "warmup = '30s'\nduration = '60s'\nnetwork = { loss = 0.05 }
            fault = [{ at = '5s', pause = '2%', for = '3s' }, { at = '15s', pause = '2%', for = '3s' },
            { at = '25s', pause = '2%', for = '3s' }, { at = '35s', pause = '2%', for = '3s' }]",
    },
    Promise {
        what: "idle: sent by each node, 5 min after the start",
        nodes: 1000,
        seeds: 10,
        goal: (None, 600.0),
        measure: Measure::Wire,
        scenario: "warmup = '330s'\nduration = '120s'",
    },
];

#[derive(Default)]
struct Arguments {
    nodes: Option<u64>,
    seeds: Option<u64>,
    only: Option<u64>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next() {
            let value = match argument.as_str() {
                "--nodes" => &mut parsed.nodes,
                "--seeds" => &mut parsed.seeds,
                "--only" => &mut parsed.only,
                _ => return Err(format!("{argument:?} is none of --nodes, --seeds, --only")),
            };
            let number = arguments.next().and_then(|number| number.parse().ok());
            *value = Some(
                number
                    .filter(|number| *number > 0)
                    .ok_or(format!("{argument} needs a number above 0"))?,
            );
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    println!("| # | what | N | seeds | p50 | p99, or worst of fewer than 100 | goal | |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut failures = Vec::new();
    for (row, promise) in (1..).zip(&PROMISES) {
        if arguments.only.is_none_or(|only| only == row) {
            measure(row, promise, &arguments, &mut failures);
        }
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(row: u64, promise: &Promise, arguments: &Arguments, failures: &mut Vec<String>) {
    let limit = arguments.nodes.and_then(|nodes| usize::try_from(nodes).ok());
    let nodes = promise.nodes.min(limit.unwrap_or(usize::MAX));
    let seeds = promise.seeds.min(arguments.seeds.unwrap_or(u64::MAX));
    let scenario = Scenario::parse(promise.scenario).expect("the scenarios above are good ones");
    let (next, reports) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let scenario = Scenario { seed, nodes, ..scenario.clone() };
            let report = run(&scenario, Options::default(), &mut |_| true);
            reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut values = Vec::new();
    for report in reports.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match report {
            Ok(report) => {
                values.push(value(promise.measure, &report));
                failures.extend(report.failures.iter().map(|text| format!("row {row}: {text}")));
            }
            Err(error) => failures.push(format!("row {row}: {error}")),
        }
    }
    values.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(&values, 0.5), percentile(&values, 0.99));
    let (median, most) = promise.goal;
    let goal = median
        .map_or(String::new(), |median| format!("p50 ≤ {}, ", shown(promise.measure, median)));
    let goal = if most.is_finite() {
        format!("{goal}≤ {}", shown(promise.measure, most))
    } else {
        "none".to_owned()
    };
    let held = p99 <= most && median.is_none_or(|median| p50 <= median);
    println!(
        "| {row} | {} | {nodes} | {} | {} | {} | {goal} | {} |",
        promise.what,
        values.len(),
        shown(promise.measure, p50),
        shown(promise.measure, p99),
        if held { "" } else { "missed" }
    );
}

/// What did not come about took for ever.
fn value(measure: Measure, report: &Report) -> f64 {
    match measure {
        Measure::Took(what) => {
            let figure = report.figures.iter().rev().find(|figure| figure.what == what);
            figure.and_then(|figure| figure.took_s).unwrap_or(f64::INFINITY)
        }
        Measure::Lost => f64::from(u32::try_from(report.wrongly_lost).unwrap_or(u32::MAX)),
        Measure::Wire => report.rates.wire_bytes,
    }
}

fn shown(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Took(_) if value.is_infinite() => "never".to_owned(),
        Measure::Took(_) => format!("{value:.2} s"),
        Measure::Lost => format!("{value:.0}"),
        Measure::Wire => format!("{value:.0} B/s"),
    }
}

/// The value that so large a share is at or below.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
}
