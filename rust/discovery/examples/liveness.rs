//! Measures how long it takes until every node notices that one crashed, left or came back. These
//! are real nodes with real QUIC on loopback. The one node is a process of its own, which is
//! killed; all others live in this process.
//!
//! ```text
//! cargo run --release -p iroh-gossip-discovery --example liveness              # the table
//! cargo run --release -p iroh-gossip-discovery --example liveness -- --runs 5 --nodes 10 \
//!     --preset local
//! cargo run --release -p iroh-gossip-discovery --example liveness -- --what crash,leave
//! ```
//!
//! A crash is a `SIGKILL`. A leave is measured from the call of the node's `close`. A restart is
//! measured from the start of the new process until it is in all books.

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use iroh::SecretKey;
use iroh_gossip_discovery::{Book, Config, EndpointId, NodeBuilder, RunningNode, Ticket};
use support::{Result, TOPIC, close, numbers, row, run, start_nodes, when};

/// What may happen to the one node.
const ALL: [&str; 5] = ["crash", "leave", "restart", "restart-without-state", "rekey"];
/// The time for the overlay to take the node in before something happens to it.
const SETTLE: Duration = Duration::from_secs(2);

struct Options {
    runs: usize,
    nodes: Vec<usize>,
    what: Vec<String>,
    preset: String,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--child") {
        return run(child(&arguments[1..]));
    }
    let options = parse(&arguments)?;
    println!(
        "| what, timers of `{}` | median s | worst s | complete |\n|---|---|---|---|",
        options.preset
    );
    for &nodes in &options.nodes {
        run(rows(nodes, &options))?;
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        runs: 20,
        nodes: vec![10, 50, 100],
        what: ALL.map(String::from).into(),
        preset: "lan".into(),
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--runs" => options.runs = value.parse::<usize>()?.max(1),
            "--nodes" => options.nodes = numbers(value)?,
            "--preset" => options.preset.clone_from(value),
            "--what" => options.what = value.split(',').map(String::from).collect(),
            _ => return Err(format!("{name} is not known; see the head of this file").into()),
        }
    }
    if let Some(what) = options.what.iter().find(|what| !ALL.contains(&what.as_str())) {
        return Err(format!("--what {what}: one of {}", ALL.join(", ")).into());
    }
    config(&options.preset)?;
    Ok(options)
}

/// The timers of a preset, on loopback.
fn config(preset: &str) -> Result<Config> {
    let local = Config::local();
    match preset {
        "local" => Ok(local),
        "lan" => {
            let mut config = Config::lan();
            (config.mdns, config.bind) = (false, local.bind);
            Ok(config)
        }
        _ => Err(format!("--preset {preset}: local or lan").into()),
    }
}

/// Prints the rows of swarms of `count` nodes.
async fn rows(count: usize, options: &Options) -> Result<()> {
    let (others, full) = Box::pin(start_nodes(count - 1, config(&options.preset)?)).await?;
    if full.is_none() {
        return Err(format!("{} nodes did not find each other", count - 1).into());
    }
    for what in &options.what {
        let mut times = Vec::new();
        for number in 1..=options.runs {
            // Each run begins at another moment of the probes' rounds.
            let phase = Duration::from_millis(137 * u64::try_from(number)? % 2000);
            let time = one(&others, what, &options.preset, SETTLE + phase).await?;
            let shown = time.map_or("never".into(), |time| format!("{:.3} s", time.as_secs_f64()));
            eprintln!("{what} among {count}, run {number} of {}: {shown}", options.runs);
            times.extend(time);
        }
        row(&format!("{what} known to all, N = {count}"), options.runs, times)?;
    }
    close(&others).await;
    Ok(())
}

/// Makes one run. Returns the time from what happens until all nodes know it; `None` if some never
/// did.
async fn one(
    others: &[RunningNode],
    what: &str,
    preset: &str,
    settle: Duration,
) -> Result<Option<Duration>> {
    let seed = others[0].swarm.ticket().to_string();
    let key = secret();
    let dir = std::env::temp_dir().join(format!("igd-liveness-{}", std::process::id()));
    let identity = if what == "restart" { Identity::Dir(&dir) } else { Identity::Key(&key) };
    let mut node = Victim::spawn(preset, identity, &seed)?;
    let id = node.id;
    if all(others, |book| book.contains(&id)).await.is_none() {
        return Err("the node that was started is not found".into());
    }
    tokio::time::sleep(settle).await;
    let first_life = boot_id(&others[0], id);
    let begin = Instant::now();
    if what == "leave" {
        node.leave();
    } else {
        node.kill()?;
    }
    let mut next = match what {
        "crash" | "leave" => None,
        "rekey" => Some(Victim::spawn(preset, Identity::Key(&secret()), &seed)?),
        _ => Some(Victim::spawn(preset, identity, &seed)?),
    };
    let known = match &next {
        None => all(others, |book| !book.contains(&id)).await,
        Some(next) => {
            all(others, |book| {
                book.get(&next.id)
                    .is_some_and(|peer| next.id != id || Some(peer.boot_id) != first_life)
            })
            .await
        }
    };
    let took = known.map(|known| known - begin);
    // The node leaves, so that the next run begins with the others alone.
    let last = next.as_mut().unwrap_or(&mut node);
    last.leave();
    last.child.wait()?;
    let alone = others.len() - 1;
    if all(others, |book| book.len() == alone).await.is_none() {
        return Err("books keep a node that is gone".into());
    }
    let _ = std::fs::remove_dir_all(&dir);
    Ok(took)
}

fn boot_id(node: &RunningNode, id: EndpointId) -> Option<u64> {
    node.swarm.book().get(&id).map(|peer| peer.boot_id)
}

fn secret() -> String {
    data_encoding::HEXLOWER.encode(&SecretKey::generate().to_bytes())
}

/// Waits until all nodes have a right book, and returns when the last one had it.
async fn all(nodes: &[RunningNode], is_right: impl Fn(&Book) -> bool) -> Option<Instant> {
    let times = join_all(nodes.iter().map(|node| when(node, &is_right))).await;
    times.into_iter().collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The identity of a process.
#[derive(Clone, Copy)]
enum Identity<'a> {
    /// A key alone, so that the sequence numbers are lost in a restart.
    Key(&'a str),
    /// A state directory, which keeps the key and the sequence numbers.
    Dir(&'a Path),
}

/// The node that runs in a process of its own.
struct Victim {
    child: Child,
    id: EndpointId,
}

impl Victim {
    fn spawn(preset: &str, identity: Identity<'_>, bootstrap: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--child", preset, bootstrap]);
        match identity {
            Identity::Key(key) => command.arg("key").arg(key),
            Identity::Dir(dir) => command.arg("dir").arg(dir),
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let ticket = BufReader::new(output).lines().next().ok_or("it gave no ticket")??;
        Ok(Self { child, id: ticket.parse::<Ticket>()?.id })
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Tells the node to leave. The process then ends by itself.
    fn leave(&mut self) {
        drop(self.child.stdin.take());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It has ended already, unless the run was given up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the one node: it prints its ticket, and leaves when its standard input ends.
async fn child(arguments: &[String]) -> Result<()> {
    let [preset, bootstrap, kind, identity] = arguments else {
        return Err("--child needs a preset, a ticket and an identity".into());
    };
    let builder = NodeBuilder::new("the-one", TOPIC)
        .config(config(preset)?)
        .bootstrap(vec![bootstrap.parse()?]);
    let builder = if kind == "dir" {
        builder.state_dir(identity)
    } else {
        let key = data_encoding::HEXLOWER.decode(identity.as_bytes())?;
        let key: [u8; 32] = key.try_into().map_err(|_| "a key has 32 bytes")?;
        builder.secret_key(SecretKey::from_bytes(&key))
    };
    let node = builder.build().await?;
    println!("{}", node.swarm.ticket());
    tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count()).await?;
    node.close().await;
    Ok(())
}
