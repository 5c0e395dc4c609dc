//! What the measuring examples share: a swarm of real nodes in one process, and waiting for books.

use std::{
    error::Error,
    future::Future,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use iroh_gossip_discovery::{Book, Bootstrap, Config, NodeBuilder, RunningNode};
use tokio::time::timeout;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The time limit of a run. One that takes longer is reported as incomplete.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Runs a task in a runtime of its own, so that nothing is left over from the run before.
pub(crate) fn run<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(task);
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

/// Parses numbers that are separated by commas.
pub(crate) fn numbers(list: &str) -> Result<Vec<usize>> {
    let parts = list.split(',').filter(|n| !n.is_empty()).map(str::parse);
    Ok(parts.collect::<std::result::Result<_, _>>()?)
}

/// Prints one row of a table: the median, the worst, and how many runs were complete.
pub(crate) fn row(what: &str, runs: usize, mut times: Vec<Duration>) -> Result<()> {
    times.sort();
    let seconds = |time: Option<&Duration>| {
        time.map_or_else(|| "–".to_owned(), |time| format!("{:.3}", time.as_secs_f64()))
    };
    let (median, worst) = (seconds(times.get(times.len() / 2)), seconds(times.last()));
    println!("| {what} | {median} | {worst} | {} of {runs} |", times.len());
    std::io::stdout().flush()?;
    Ok(())
}

/// Starts nodes at once, with node 0 as the bootstrap peer of the others. Returns them with the
/// moment when the last book was full.
pub(crate) async fn start_nodes(
    count: usize,
    config: Config,
) -> Result<(Vec<RunningNode>, Option<Instant>)> {
    let builder = move |number: usize| {
        NodeBuilder::new(format!("node-{number}"), TOPIC).config(config.clone())
    };
    let seed = builder(0).build().await?;
    let ticket = Bootstrap::from(seed.swarm.ticket());
    let builder = Arc::new(builder);
    let others = (1..count).map(|number| {
        let (builder, ticket) = (builder.clone(), ticket.clone());
        tokio::spawn(async move {
            let building = timeout(PATIENCE, builder(number).bootstrap(vec![ticket]).build());
            let node = building.await.map_err(|_| format!("node {number} does not start"))??;
            let full = when(&node, |book| book.len() + 1 >= count).await;
            Ok::<_, Box<dyn Error + Send + Sync>>((node, full))
        })
    });
    let others: Vec<_> = others.collect();
    let mut last = when(&seed, |book| book.len() + 1 >= count).await;
    let mut nodes = vec![seed];
    for other in others {
        let (node, full) = other.await??;
        last = last.zip(full).map(|(a, b)| a.max(b));
        nodes.push(node);
    }
    Ok((nodes, last))
}

/// The topic that all nodes join.
pub(crate) const TOPIC: &str = "measured";

/// Waits until a node's book is right, and returns when it was.
pub(crate) async fn when(node: &RunningNode, is_right: impl Fn(&Book) -> bool) -> Option<Instant> {
    let (_, mut events) = node.swarm.subscribe();
    let waiting = async {
        loop {
            events.drain(usize::MAX);
            if is_right(&node.swarm.book()) {
                return Instant::now();
            }
            events.ready().await;
        }
    };
    timeout(PATIENCE, waiting).await.ok()
}

/// Closes all nodes at once, and reports those that do not end.
pub(crate) async fn close(nodes: &[RunningNode]) {
    let closed = join_all(nodes.iter().map(|node| timeout(PATIENCE / 4, node.close()))).await;
    let stuck = closed.iter().filter(|closed| closed.is_err()).count();
    if stuck > 0 {
        eprintln!("{stuck} of {} nodes did not close in {} s", nodes.len(), PATIENCE.as_secs() / 4);
    }
}
