//! Measures the promises that the simulator can check, and prints them as a table.
//!
//! ```text
//! promises                        all: 10 seeds of more than 300 nodes, 100 of fewer
//! promises --nodes 300 --seeds 3  networks of at most 300 nodes, 3 seeds each
//! promises --only 4 --only 5      these rows alone
//! promises --at-once 1            runs at a time, of which each takes a core; 2 by default
//! ```
//!
//! A share of the nodes stays the same share with fewer nodes. A time lasts until all books are
//! right. If nodes join, leave or start again, it lasts until all nodes know them and they know all
//! nodes. The rows of a group go on from one network. Each seed gets a copy of it, with its own
//! random choices and faults up to 2 s later. If all nodes start at once, each seed has a network
//! of its own.

mod forks;
mod rows;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use iroh_gossip_discovery_sim::scenario::{Options, Report, Scenario, Warm, run};
use rows::{GROUPS, Group, Measure, Row};

/// The longest delay of a fault, so that it meets the timers of the shared network at different
/// times.
const PUT_OFF: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Arguments {
    nodes: Option<u64>,
    seeds: Option<u64>,
    only: Vec<u64>,
    at_once: Option<u64>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next() {
            let number = arguments.next().and_then(|number| number.parse().ok());
            let number = number
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{argument} needs a number above 0"));
            match argument.as_str() {
                "--nodes" => parsed.nodes = Some(number?),
                "--seeds" => parsed.seeds = Some(number?),
                "--only" => parsed.only.push(number?),
                "--at-once" => parsed.at_once = Some(number?),
                _ => {
                    let known = "--nodes, --seeds, --only, --at-once";
                    return Err(format!("{argument:?} is none of {known}"));
                }
            }
        }
        Ok(parsed)
    }

    fn nodes(&self, most: usize) -> usize {
        most.min(self.nodes.and_then(|nodes| usize::try_from(nodes).ok()).unwrap_or(usize::MAX))
    }

    fn seeds(&self, nodes: usize) -> u64 {
        self.seeds.unwrap_or(if nodes > 300 { 10 } else { 100 })
    }

    fn at_once(&self) -> usize {
        self.at_once.and_then(|at_once| usize::try_from(at_once).ok()).unwrap_or(2)
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
    match measure_all(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(arguments: &Arguments) -> io::Result<bool> {
    println!("| # | what | N | seeds | p50 | p99, or worst of fewer than 100 | goal | |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut failures = Vec::new();
    let mut number = 0;
    for group in &GROUPS {
        let rows = group.rows.iter().map(|row| {
            number += 1;
            (number, row)
        });
        let rows: Vec<_> = rows
            .filter(|(number, _)| arguments.only.is_empty() || arguments.only.contains(number))
            .collect();
        if !rows.is_empty() {
            measure(group, &rows, arguments, &mut failures)?;
        }
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    Ok(failures.is_empty())
}

fn scenario(group: &Group, nodes: usize, timeline: &str) -> Scenario {
    let scenario = Scenario::parse(&format!("nodes = {nodes}\n{}\n{timeline}", group.base));
    scenario.expect("the scenarios of the rows are good ones")
}

fn measure(
    group: &Group,
    rows: &[(u64, &Row)],
    arguments: &Arguments,
    failures: &mut Vec<String>,
) -> io::Result<()> {
    let nodes = arguments.nodes(group.nodes);
    let seeds = arguments.seeds(nodes);
    let base = scenario(group, nodes, "");
    let mut warm = if base.warmup.is_zero() {
        None
    } else {
        Warm::up(&base, Options::default(), &mut |_| true).map_err(io::Error::other)?
    };
    for (number, row) in rows {
        let timeline = scenario(group, nodes, row.timeline);
        let wrote = forks::each(0..seeds, arguments.at_once(), |seed, writer| {
            // Takes the network of this copy. The next copy still has its own.
            let report = one(warm.take(), put_off(&timeline, seed))?;
            writeln!(writer, "{}", value(row.measure, &report))?;
            report.failures.iter().try_for_each(|failure| writeln!(writer, "{failure}"))
        })?;
        let mut values = Vec::new();
        for wrote in &wrote {
            let mut lines = wrote.lines();
            let value = lines.next().and_then(|value| value.parse().ok());
            values.push(value.ok_or_else(|| io::Error::other("a run without a value"))?);
            failures.extend(lines.map(|text| format!("row {number}: {text}")));
        }
        show(*number, row, nodes, &mut values);
    }
    Ok(())
}

/// Returns the scenario with this seed, and with its faults a little later.
fn put_off(scenario: &Scenario, seed: u64) -> Scenario {
    let mut scenario = Scenario { seed, ..scenario.clone() };
    // The multiples of the golden ratio are spread evenly over the interval.
    let share = (f64::from(u32::try_from(seed).unwrap_or(u32::MAX)) * 0.618_033_988_75).fract();
    let later = PUT_OFF.mul_f64(share);
    scenario.faults.iter_mut().for_each(|fault| fault.at.0 += later);
    scenario
}

fn one(warm: Option<Warm>, scenario: Scenario) -> io::Result<Report> {
    let report = match warm {
        Some(warm) => warm.run(&scenario, &mut |_| true),
        None => run(&scenario, Options::default(), &mut |_| true),
    };
    report.map_err(io::Error::other)
}

fn show(number: u64, row: &Row, nodes: usize, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(values, 0.5), percentile(values, 0.99));
    let (median, most) = row.goal;
    let goal =
        median.map_or(String::new(), |median| format!("p50 ≤ {}, ", shown(row.measure, median)));
    let goal = if most.is_finite() {
        format!("{goal}≤ {}", shown(row.measure, most))
    } else {
        "none".to_owned()
    };
    let held = p99 <= most && median.is_none_or(|median| p50 <= median);
    println!(
        "| {number} | {} | {nodes} | {} | {} | {} | {goal} | {} |",
        row.what,
        values.len(),
        shown(row.measure, p50),
        shown(row.measure, p99),
        if held { "" } else { "missed" }
    );
}

/// Returns the measured value; infinity for what did not happen.
fn value(measure: Measure, report: &Report) -> f64 {
    match measure {
        Measure::Took(what) | Measure::Known(what) => {
            let figure = report.figures.iter().rev().find(|figure| figure.what == what);
            let seconds = figure.and_then(|figure| match measure {
                Measure::Known(_) => figure.known_s,
                _ => figure.took_s,
            });
            seconds.unwrap_or(f64::INFINITY)
        }
        Measure::Lost => f64::from(u32::try_from(report.wrongly_lost).unwrap_or(u32::MAX)),
        Measure::Wire => report.rates.wire_bytes,
        Measure::Sizes => f64::from(u32::try_from(report.sizes_at_start).unwrap_or(u32::MAX)),
    }
}

fn shown(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Took(_) | Measure::Known(_) if value.is_infinite() => "never".to_owned(),
        Measure::Took(_) | Measure::Known(_) => format!("{value:.2} s"),
        Measure::Lost | Measure::Sizes => format!("{value:.0}"),
        Measure::Wire => format!("{value:.0} B/s"),
    }
}

/// Returns the value that this share of the values does not exceed.
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
