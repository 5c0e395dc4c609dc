//! What the tests share: nodes that are closed at the end, and how to wait for a condition.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use iroh::{
    Endpoint, NetReportConfig, RelayMode, SecretKey,
    endpoint::{PortmapperConfig, presets},
};
use iroh_gossip_discovery::{ALPN, Bootstrap, Config, NodeBuilder, RunningNode};

/// A condition must hold within this time. A healthy run takes a small part of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition; panics with its name when [`PATIENCE`] is over.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

pub fn metadata(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Prints the log if `RUST_LOG` is set.
pub fn log() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}

/// Binds an endpoint on loopback that is no node: a test speaks by it as it likes.
pub async fn stranger() -> Endpoint {
    stranger_of(SecretKey::generate()).await
}

/// As [`stranger`], with this key.
pub async fn stranger_of(key: SecretKey) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

/// How often a node dropped something by this limit.
pub fn dropped(node: &RunningNode, what: &str) -> u64 {
    node.swarm.metrics().dropped.get(what).copied().unwrap_or(0)
}

/// What a node says of its first problem of this source; empty if it has none.
pub fn problem(node: &RunningNode, source: &str) -> String {
    let problems = node.discovery.problems();
    let of = problems.into_iter().find(|problem| problem.source.starts_with(source));
    of.map(|problem| problem.what).unwrap_or_default()
}

/// The nodes of a test, in the topic "test".
#[derive(Default)]
pub struct Nodes(Vec<Arc<RunningNode>>);

impl Nodes {
    pub async fn start(&mut self, name: &str, bootstrap: &[Bootstrap]) -> Arc<RunningNode> {
        self.build(node(name).bootstrap(bootstrap.to_vec())).await
    }

    pub async fn build(&mut self, builder: NodeBuilder) -> Arc<RunningNode> {
        log();
        // Boxed: what a start keeps is large, and each test would hold it for each of its nodes.
        let node = Arc::new(Box::pin(builder.build()).await.unwrap());
        self.0.push(node.clone());
        node
    }

    pub async fn close(self) {
        let closing: Vec<_> = self
            .0
            .into_iter()
            .map(|node| tokio::spawn(async move { node.close().await }))
            .collect();
        for node in closing {
            node.await.unwrap();
        }
    }
}

/// Prepares a node of the topic "test" on loopback.
pub fn node(name: &str) -> NodeBuilder {
    NodeBuilder::new(name, "test").config(Config::local())
}

/// Returns true if each node's book holds exactly all the others.
pub fn full(nodes: &[Arc<RunningNode>]) -> bool {
    nodes.iter().all(|node| {
        let book = node.swarm.book();
        book.len() == nodes.len() - 1
            && nodes.iter().all(|other| {
                other.swarm.id() == node.swarm.id() || book.contains(&other.swarm.id())
            })
    })
}
