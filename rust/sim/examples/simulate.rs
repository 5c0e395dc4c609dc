//! Runs scenarios from files, or random ones by their seeds on all cores, and shrinks what fails.
//!
//! ```text
//! simulate run FILE…                         each file once; --trace prints the hash alone;
//!                                            --nodes N and --seed S in place of the file's
//! simulate soak --seeds 2000 --nodes 30      random scenarios; --from N, --threads T
//! simulate soak --minutes 10                 as many as there is time for
//! simulate show --seed 7 --nodes 30          the random scenario of a seed, as TOML
//! simulate shrink --seed 7 --nodes 30        the smallest scenario that fails in the same way
//! simulate shrink FILE
//! ```

use std::{
    collections::BTreeMap,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use iroh_gossip_discovery_sim::scenario::{
    Options, Report, Scenario, StartWork, commands, run, shrink, soak,
};

const SHRINKS: usize = 300;

struct Arguments {
    files: Vec<String>,
    numbers: BTreeMap<String, u64>,
    trace: bool,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self { files: Vec::new(), numbers: BTreeMap::new(), trace: false };
        while let Some(argument) = arguments.next() {
            if argument == "--trace" {
                parsed.trace = true;
            } else if let Some(name) = argument.strip_prefix("--") {
                let value = arguments.next().and_then(|value| value.parse().ok());
                let value = value.ok_or_else(|| format!("--{name} needs a whole number"))?;
                parsed.numbers.insert(name.to_owned(), value);
            } else {
                parsed.files.push(argument);
            }
        }
        Ok(parsed)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.numbers.get(name).copied().unwrap_or(default)
    }

    fn nodes(&self) -> usize {
        usize::try_from(self.number("nodes", 30)).unwrap_or(usize::MAX)
    }

    fn scenarios(&self) -> Result<Vec<Scenario>, String> {
        if self.files.is_empty() {
            return Ok(vec![Scenario::random(self.number("seed", 0), self.nodes())]);
        }
        let read = |path: &String| {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            let mut scenario =
                Scenario::parse(&text).map_err(|error| format!("{path}: {error}"))?;
            scenario.seed = self.number("seed", scenario.seed);
            if self.numbers.contains_key("nodes") {
                scenario.nodes = self.nodes();
                scenario.validate().map_err(|error| format!("{path}: {error}"))?;
            }
            Ok(scenario)
        };
        self.files.iter().map(read).collect()
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let outcome = Arguments::parse(arguments).and_then(|arguments| match command.as_str() {
        "run" => run_all(&arguments),
        "soak" => Ok(soak_all(&arguments)),
        "show" => {
            for scenario in arguments.scenarios()? {
                print!("{}", scenario.to_toml());
            }
            Ok(true)
        }
        "shrink" => shrink_all(&arguments),
        other => Err(format!("{other:?} is none of run, soak, show, shrink")),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_all(arguments: &Arguments) -> Result<bool, String> {
    let mut ok = true;
    for scenario in arguments.scenarios()? {
        let begin = Instant::now();
        let report =
            run(&scenario, Options::default(), &mut |_| true).map_err(|error| error.to_string())?;
        if arguments.trace {
            println!("{}", report.trace);
        } else {
            print(&report, begin.elapsed());
        }
        ok &= report.ok;
    }
    Ok(ok)
}

fn print(report: &Report, took: Duration) {
    println!(
        "{} (seed {}, {} nodes): {} after {:.1} virtual s in {took:.2?}",
        report.name,
        report.seed,
        report.nodes,
        if report.ok { "ok" } else { "FAILED" },
        report.virtual_s
    );
    for figure in &report.figures {
        let took = figure.took_s.map_or("never".to_owned(), |took| format!("{took:.3} s"));
        println!("  {:>10.3} s  {:<10} right after {took}", figure.at_s, figure.what);
    }
    if let Some(work) = report.start_work {
        println!("  a node until all were right, and until the end:");
        print_work(&work);
        print_work(&report.whole_work);
    }
    println!(
        "  {} sizes of books at the start; lost though up: {}, a lossy node by one: {}, by lossy \
         nodes: {}",
        report.sizes_at_start, report.wrongly_lost, report.lossy_lost, report.lost_by_lossy
    );
    for (what, count) in report.dropped.iter().chain(&report.emitted) {
        println!("  {count:>10} {what}");
    }
    for failure in &report.failures {
        println!("  {failure}");
    }
    println!(
        "  {:.0} B/s per node, {:.0} B/s on the wire, {} steps, trace {}",
        report.rates.bytes(),
        report.rates.wire_bytes,
        report.steps,
        report.trace
    );
}

fn print_work(work: &StartWork) {
    println!(
        "    {:.1} dials; {:.1} syncs begun, {:.1} completed, {:.1} stalled; {:.0} frames, \
         {:.0} of syncs;\n    {:.1} neighbors gone, {:.1} members suspected; {:.2} s of CPU of all",
        work.dials,
        work.syncs,
        work.syncs_completed,
        work.syncs_stalled,
        work.frames,
        work.sync_frames,
        work.neighbors_gone,
        work.suspected,
        work.cpu_s
    );
}

fn soak_all(arguments: &Arguments) -> bool {
    let (from, nodes) = (arguments.number("from", 0), arguments.nodes());
    let minutes = arguments.numbers.get("minutes").copied();
    // Ends after the given minutes or seeds, whichever comes first.
    let seeds = arguments.number("seeds", if minutes.is_some() { u64::MAX } else { 100 });
    let begin = Instant::now();
    let time = minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let scenarios = (from..from.saturating_add(seeds))
        .take_while(|_| time.is_none_or(|time| begin.elapsed() < time))
        .map(|seed| Scenario::random(seed, nodes));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads =
        arguments.numbers.get("threads").and_then(|n| usize::try_from(*n).ok()).unwrap_or(threads);
    let soaked = soak(scenarios, threads, Options::default(), &|found| {
        println!("{}\n{}", found.failure, commands(&found.scenario));
    });
    let failed: Vec<_> = soaked.found.iter().map(|found| found.scenario.seed).collect();
    println!(
        "{} seeds of {nodes} nodes from {from} in {:.1?}, {} failed: {failed:?}",
        soaked.ran,
        begin.elapsed(),
        failed.len()
    );
    failed.is_empty()
}

fn shrink_all(arguments: &Arguments) -> Result<bool, String> {
    for scenario in arguments.scenarios()? {
        let most = usize::try_from(arguments.number("most", SHRINKS as u64)).unwrap_or(SHRINKS);
        match shrink(&scenario, most, &mut |_| true) {
            None => println!("# it does not fail"),
            Some(shrunk) => {
                println!("# fails by {:?}, {} runs\n", shrunk.check, shrunk.tried);
                print!("{}", shrunk.scenario.to_toml());
            }
        }
    }
    Ok(true)
}
