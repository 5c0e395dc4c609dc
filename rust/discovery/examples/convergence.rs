//! Measures how long it takes until every node knows every other, and what an idle swarm sends.
//! These are real nodes with real QUIC on loopback, each with its own endpoint, links and address
//! book. Every node verifies every signature itself. The nodes of one process share only the
//! runtime's threads.
//!
//! ```text
//! cargo run --release -p iroh-gossip-discovery --example convergence             # the tables
//! cargo run --release -p iroh-gossip-discovery --example convergence -- --runs 5 --nodes 10,50
//! cargo run --release -p iroh-gossip-discovery --example convergence -- --idle 100   # root: netns
//! cargo run --release -p iroh-gossip-discovery --example convergence -- --idle 100 \
//!     --probe-interval 3600
//! ```
//!
//! All nodes start at once, with node 0 as the bootstrap peer of the others. The time includes
//! binding their endpoints.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use iroh_gossip_discovery::{Config, NodeBuilder, RunningNode};
use support::{PATIENCE, Result, TOPIC, close, numbers, row, run, start_nodes, when};

/// The options of the command line.
struct Options {
    runs: usize,
    nodes: Vec<usize>,
    processes: usize,
    idle: Option<usize>,
    settle: Duration,
    window: Duration,
    probe_interval: Duration,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--child") {
        return run(child(&arguments[1..]));
    }
    let options = parse(&arguments)?;
    match options.idle {
        Some(nodes) if std::env::var_os("IN_NETNS").is_some() => run(idle(nodes, &options)),
        Some(_) => in_network_namespace(&arguments),
        None => {
            println!("| nodes | median s | worst s | complete |\n|---|---|---|---|");
            for &nodes in &options.nodes {
                report(&format!("{nodes} in one process"), options.runs, || {
                    run(one_process(nodes))
                })?;
            }
            if options.processes > 1 {
                report(&format!("{} processes", options.processes), options.runs, || {
                    processes(options.processes)
                })?;
            }
            Ok(())
        }
    }
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        runs: 20,
        nodes: vec![10, 50, 100, 200],
        processes: 10,
        idle: None,
        settle: Duration::from_mins(5),
        window: Duration::from_mins(1),
        probe_interval: Config::lan().protocol.probe_interval,
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--runs" => options.runs = value.parse::<usize>()?.max(1),
            "--nodes" => options.nodes = numbers(value)?,
            "--processes" => options.processes = value.parse()?,
            "--idle" => options.idle = Some(value.parse()?),
            "--settle" => options.settle = Duration::from_secs(value.parse()?),
            "--window" => options.window = Duration::from_secs(value.parse()?),
            "--probe-interval" => options.probe_interval = Duration::from_secs(value.parse()?),
            _ => return Err(format!("{name} is not known; see the head of this file").into()),
        }
    }
    Ok(options)
}

/// Prints one row of the table.
fn report(
    what: &str,
    runs: usize,
    mut one: impl FnMut() -> Result<Option<Duration>>,
) -> Result<()> {
    let mut times = Vec::new();
    for number in 1..=runs {
        let time = one()?;
        let shown = time.map_or("incomplete".into(), |time| format!("{:.3} s", time.as_secs_f64()));
        eprintln!("{what}, run {number} of {runs}: {shown}");
        times.extend(time);
    }
    row(what, runs, times)
}

/// Returns the time from before the first bind until the last book is full; `None` if it never was.
async fn one_process(nodes: usize) -> Result<Option<Duration>> {
    let start = Instant::now();
    let before = cpu_time();
    let (nodes, full) = Box::pin(start_nodes(nodes, Config::local())).await?;
    eprintln!("{:.2} s of CPU; {}", cpu_time() - before, Spent::of(&nodes));
    if full.is_none() {
        let books: Vec<_> = nodes.iter().map(|node| node.swarm.book().len()).collect();
        eprintln!("books after {} s: {books:?}", PATIENCE.as_secs());
    }
    close(&nodes).await;
    Ok(full.map(|full| full - start))
}

/// What the start took, summed up over all nodes.
#[derive(Default)]
struct Spent {
    nodes: u64,
    links: u64,
    dials: u64,
    verifications: u64,
    syncs: u64,
    frames: u64,
    bytes: u64,
}

impl Spent {
    fn of(nodes: &[RunningNode]) -> Self {
        nodes.iter().map(|node| node.swarm.metrics()).fold(Self::default(), |sum, metrics| Self {
            nodes: sum.nodes + 1,
            links: sum.links + metrics.links as u64,
            dials: sum.dials + metrics.dials,
            verifications: sum.verifications + metrics.protocol.verifications,
            syncs: sum.syncs + metrics.protocol.syncs_started,
            frames: sum.frames + metrics.frames_sent,
            bytes: sum.bytes + metrics.bytes_sent,
        })
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per = |count: u64| per(count, per(self.nodes, 1.0));
        write!(
            f,
            "per node {:.1} dials, {:.0} verifications, {:.1} syncs, {:.0} frames, {:.0} kB sent",
            per(self.dials),
            per(self.verifications),
            per(self.syncs),
            per(self.frames),
            per(self.bytes) / 1000.0
        )
    }
}

/// Returns the user and system time of this process so far, in seconds; 0 if the system has no
/// `/proc`.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, in ticks of 10 ms. They are counted after the name, which may contain
    // spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    per(ticks, 100.0)
}

/// Runs one node in a process of its own. It prints its ticket, then a line once its book is full,
/// and ends when its standard input does.
async fn child(arguments: &[String]) -> Result<()> {
    let [name, others, bootstrap @ ..] = arguments else {
        return Err("--child needs a name and a number".into());
    };
    let peers = bootstrap.iter().map(|text| text.parse()).collect::<std::result::Result<_, _>>()?;
    let node = NodeBuilder::new(name.as_str(), TOPIC)
        .config(Config::local())
        .bootstrap(peers)
        .build()
        .await?;
    println!("{}", node.swarm.ticket());
    let others: usize = others.parse()?;
    if when(&node, |book| book.len() >= others).await.is_some() {
        println!("full");
    }
    tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count()).await?;
    node.close().await;
    Ok(())
}

/// Returns the time from the last spawn until the last process reports a full book.
fn processes(count: usize) -> Result<Option<Duration>> {
    let spawn = |number: usize, ticket: Option<&str>| -> Result<_> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child", &format!("node-{number}"), &(count - 1).to_string()])
            .args(ticket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        Ok((child, lines))
    };
    let mut seed = spawn(0, None)?;
    let ticket = seed.1.next().ok_or("the first process gave no ticket")??;
    let mut children = Vec::from([seed]);
    for number in 1..count {
        children.push(spawn(number, Some(&ticket))?);
    }
    let spawned = Instant::now();
    // One thread for each process, so that each line is read when it comes. The last one counts.
    let waiting: Vec<_> = children
        .into_iter()
        .map(|(child, mut lines)| {
            std::thread::spawn(move || -> (Child, Option<Instant>) {
                let full = lines.any(|line| line.is_ok_and(|line| line == "full"));
                (child, full.then(Instant::now))
            })
        })
        .collect();
    let mut last = Some(spawned);
    let mut children = Vec::new();
    for waiter in waiting {
        let (child, full) = waiter.join().map_err(|_| "a reader panicked")?;
        last = last.zip(full).map(|(a, b)| a.max(b));
        children.push(child);
    }
    // A process may leave only now, when all books are full.
    for child in &mut children {
        drop(child.stdin.take());
    }
    for mut child in children {
        child.wait()?;
    }
    Ok(last.map(|last| last - spawned))
}

/// Measures what an idle swarm sends: all bytes of loopback, in a network namespace without other
/// traffic.
async fn idle(nodes: usize, options: &Options) -> Result<()> {
    let mut config = Config::lan();
    (config.mdns, config.bind) = (false, Config::local().bind);
    config.protocol.probe_interval = options.probe_interval;
    let (running, full) = Box::pin(start_nodes(nodes, config)).await?;
    println!("{nodes} nodes, lan timers, books full: {}", full.is_some());
    tokio::time::sleep(options.settle).await;
    let (before, began) = (sent_bytes()?, Spent::of(&running));
    tokio::time::sleep(options.window).await;
    let (after, spent) = (sent_bytes()?, Spent::of(&running));
    let divisor = options.window.as_secs_f64() * f64::from(u32::try_from(nodes)?);
    println!(
        "| idle after s | window s | sent B/s per node | packets/s per node | frames/s per node \
         | dials/min per node | syncs/min per node | links per node |\n\
         |---|---|---|---|---|---|---|---|"
    );
    println!(
        "| {} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
        options.settle.as_secs(),
        options.window.as_secs(),
        per(after.bytes - before.bytes, divisor),
        per(after.packets - before.packets, divisor),
        per(spent.frames - began.frames, divisor),
        60.0 * per(spent.dials - began.dials, divisor),
        60.0 * per(spent.syncs - began.syncs, divisor),
        per(spent.links, per(spent.nodes, 1.0)),
    );
    let full = running.iter().filter(|node| node.swarm.book().len() + 1 == nodes).count();
    println!("books full at the end: {full} of {nodes}");
    close(&running).await;
    Ok(())
}

struct Sent {
    bytes: u64,
    packets: u64,
}

/// Reads the transmit counters of the loopback interface.
fn sent_bytes() -> Result<Sent> {
    let text = std::fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let fields: Vec<u64> = line
        .ok_or("no loopback interface")?
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    Ok(Sent { bytes: fields[8], packets: fields[9] })
}

#[allow(clippy::cast_precision_loss, reason = "counters of minutes are far below 2^52")]
fn per(count: u64, divisor: f64) -> f64 {
    count as f64 / divisor
}

/// Runs this program again in a network namespace of its own, where loopback has no other traffic.
fn in_network_namespace(arguments: &[String]) -> Result<()> {
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .env("IN_NETNS", "1")
        .status()?;
    if status.success() { Ok(()) } else { Err("the run in a network namespace failed".into()) }
}
