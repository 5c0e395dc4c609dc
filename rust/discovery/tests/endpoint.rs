//! Discovery on an application's own endpoint, beside its own protocols.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::str::FromStr;

use common::{Nodes, eventually};
use futures_util::StreamExt;
use iroh::{
    Endpoint, NetReportConfig, RelayMode,
    endpoint::{Connection, PortmapperConfig, presets},
    protocol::{AcceptError, ProtocolHandler, Router},
};
use iroh_gossip_discovery::{
    ALPN, Bootstrap, Config, Discovery, Error, JoinOptions, Profile, SpawnOptions, SwarmKey, Topic,
};

const ECHO: &[u8] = b"test/echo/1";

#[derive(Debug, Clone)]
struct Echo;

impl ProtocolHandler for Echo {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let (mut send, mut recv) = connection.accept_bi().await?;
        tokio::io::copy(&mut recv, &mut send).await?;
        send.finish()?;
        connection.closed().await;
        Ok(())
    }
}

async fn echo(endpoint: &Endpoint, peer: iroh_gossip_discovery::EndpointId) -> Vec<u8> {
    let id = iroh::EndpointId::try_from(peer).unwrap();
    let connection = endpoint.connect(id, ECHO).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"hello").await.unwrap();
    send.finish().unwrap();
    let answer = recv.read_to_end(100).await.unwrap();
    connection.close(0_u32.into(), b"");
    answer
}

async fn loopback() -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

fn options() -> SpawnOptions {
    SpawnOptions::new(Config::local())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discovered_peer_is_dialed_by_id_on_any_protocol() {
    let mut nodes = Nodes::default();
    // Discovery is one handler of a router, next to another protocol.
    let endpoint = loopback().await;
    let discovery = Discovery::spawn(endpoint.clone(), options()).await.unwrap();
    let router = Router::builder(endpoint.clone())
        .accept(ALPN, discovery.clone())
        .accept(ECHO, Echo)
        .spawn();
    let join = JoinOptions::new("own endpoint");
    let own = discovery.join(Topic::new("test").unwrap(), join).await.unwrap();

    let seed = nodes.start("seed", &[own.ticket().into()]).await;
    let other = nodes
        .build(common::node("other").accept(ECHO, Echo).bootstrap(vec![seed.swarm.ticket().into()]))
        .await;
    assert_eq!(other.swarm.me().profile.protocols, [ECHO.to_vec()]);
    eventually("each knows both others", || {
        own.book().len() == 2 && other.swarm.book().len() == 2 && seed.swarm.book().len() == 2
    })
    .await;
    assert_eq!(echo(&other.endpoint, own.id()).await, b"hello");
    assert_eq!(echo(&endpoint, other.swarm.id()).await, b"hello");

    // That dial may have used the addresses of a link. The next one needs the addresses of the
    // book.
    let id = iroh::EndpointId::try_from(other.swarm.id()).unwrap();
    let found = endpoint.address_lookup().unwrap().resolve(id).next().await.unwrap();
    let found = found.unwrap().unwrap();
    assert_eq!(found.provenance(), "iroh-gossip-discovery");
    assert_eq!(found.into_endpoint_addr().addrs, other.endpoint.addr().addrs);
    // An endpoint without any link can dial the members once it asks another endpoint's discovery.
    let asking = loopback().await;
    assert!(asking.connect(id, ECHO).await.is_err(), "nobody has told it an address");
    asking.address_lookup().unwrap().add(discovery.clone());
    assert_eq!(echo(&asking, other.swarm.id()).await, b"hello");
    asking.close().await;

    // A shutdown does not touch the application's endpoint and its other protocols.
    discovery.shutdown().await;
    discovery.shutdown().await;
    eventually("the leave is known", || other.swarm.book().len() == 1).await;
    assert!(!endpoint.is_closed());
    let id = endpoint.addr();
    let connection = other.endpoint.connect(id, ECHO).await.unwrap();
    connection.close(0_u32.into(), b"");
    assert!(own.is_closed());
    let topic = Topic::new("test").unwrap();
    let refused = discovery.join(topic, JoinOptions::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Closed));
    nodes.close().await;
    router.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_serves_the_discovery_that_is_spawned_after_a_shutdown() {
    let mut nodes = Nodes::default();
    let endpoint = loopback().await;
    let first = Discovery::spawn(endpoint.clone(), options()).await.unwrap();
    let router = Router::builder(endpoint.clone()).accept(ALPN, first.clone()).spawn();
    first.shutdown().await;
    // It has a secret that the first one lacks, so the door of the first one would admit no peer.
    let topic = Topic::new("test").unwrap();
    let secrets = vec![SwarmKey::generate().unwrap()];
    let with_secret = options().secrets(secrets.clone());
    let second = Discovery::spawn(endpoint.clone(), with_secret).await.unwrap();
    let join = JoinOptions::new("own endpoint");
    let own = second.join(topic, join).await.unwrap();
    let dialing = common::node("dialing").bootstrap(vec![own.ticket().into()]).secrets(secrets);
    let other = nodes.build(dialing).await;
    let book = tokio::time::timeout(common::PATIENCE, own.wait_for_peers(1)).await;
    assert!(book.expect("a peer reaches it").unwrap().contains(&other.swarm.id()));
    // The router ends the one that runs, which says goodbye.
    router.shutdown().await.unwrap();
    assert!(own.is_closed());
    eventually("the other hears the goodbye", || other.swarm.book().is_empty()).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_a_profile_at_the_same_time_are_all_kept() {
    let mut nodes = Nodes::default();
    let node = nodes.start("node", &[]).await;
    let serving = node.swarm.serve("echo/1").unwrap();
    eventually("the protocol is announced", || {
        node.swarm.me().profile.protocols == [b"echo/1".to_vec()]
    })
    .await;
    // In one task, so that all of them have begun before the first one ends.
    let change = |n| node.swarm.update_metadata([(format!("key {n}"), Some("value"))]);
    for changed in futures_util::future::join_all((0..8).map(change)).await {
        changed.unwrap();
    }
    assert_eq!(node.swarm.me().profile.metadata.len(), 8);
    node.swarm.update_profile(|profile| profile.name = "renamed".into()).await.unwrap();
    node.swarm.update_metadata([("key 1", None::<&str>)]).await.unwrap();
    drop(serving);
    eventually("a protocol that is served no longer is not announced", || {
        let me = node.swarm.me();
        me.profile.protocols.is_empty() && me.profile.metadata.len() == 7
    })
    .await;
    let error = node.swarm.update_profile(|profile| profile.name.clear()).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "name", .. }), "{error}");
    node.swarm.update_metadata([("after", Some("the error"))]).await.unwrap();
    let me = node.swarm.me();
    assert_eq!((me.profile.name.as_str(), me.profile.metadata.len()), ("renamed", 8));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_peers_ends_with_them_or_with_the_topic() {
    let mut nodes = Nodes::default();
    let node = nodes.start("node", &[]).await;
    assert!(node.swarm.wait_for_peers(0).await.unwrap().is_empty());
    let swarm = node.swarm.clone();
    let one = tokio::spawn(async move { swarm.wait_for_peers(1).await });
    let swarm = node.swarm.clone();
    let more = tokio::spawn(async move { swarm.wait_for_peers(2).await });
    let other = nodes.start("other", &[node.swarm.ticket().into()]).await;
    let book = tokio::time::timeout(common::PATIENCE, one).await.unwrap().unwrap().unwrap();
    assert!(book.contains(&other.swarm.id()));
    node.close().await;
    let ended = tokio::time::timeout(common::PATIENCE, more).await.unwrap().unwrap();
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    nodes.close().await;
}

/// A program as a user would type it, with one type of error.
async fn typed(seed: std::sync::Arc<iroh_gossip_discovery::RunningNode>) -> Result<(), Error> {
    let text = seed.swarm.ticket().to_string();
    let _: iroh_gossip_discovery::Ticket = text.parse()?;
    let id: iroh_gossip_discovery::EndpointId = seed.swarm.id().to_string().parse()?;
    let key: iroh_gossip_discovery::iroh::EndpointId = id.to_string().parse()?;
    assert!(key == id && iroh::EndpointId::try_from(id)? == key);
    let address: iroh::EndpointAddr = (&*seed.swarm.me()).try_into()?;
    let _: iroh_gossip_discovery::RelayUrl = "https://relay.example".parse()?;
    let secret_key = iroh_gossip_discovery::SecretKey::generate();
    Profile::new("a name").validate()?;

    let node = common::node("user").secret_key(secret_key).accept(ECHO, Echo).build().await?;
    let by_text: [Bootstrap; 2] = [text.as_str().try_into()?, text.try_into()?];
    node.swarm.add_bootstrap(by_text.to_vec()).await?;
    let by_id: [Bootstrap; 2] = [id.into(), key.into()];
    node.swarm.add_bootstrap(by_id.to_vec()).await?;
    node.swarm.add_bootstrap(vec![address.into(), (&*seed.swarm.me()).into()]).await?;
    let book = node.swarm.wait_for_peers(1).await?;
    let endpoint = node.endpoint.clone();
    // On another task, so that the iteration has to be `Send`.
    let dialing = tokio::spawn(async move {
        for peer in &book {
            let connection = endpoint.connect(peer.endpoint_addr()?, ECHO).await.unwrap();
            assert_eq!(connection.remote_id(), peer.id);
            assert_eq!(peer.id, connection.remote_id());
        }
        Ok::<_, Error>(book.len())
    });
    assert_eq!(dialing.await.unwrap()?, 1);
    node.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_types_compiles_and_has_one_type_of_error() {
    let mut nodes = Nodes::default();
    let seed = nodes.build(common::node("seed").accept(ECHO, Echo)).await;
    typed(seed).await.unwrap();
    let errors: [Error; 3] = [
        Bootstrap::try_from("seed").unwrap_err(),
        iroh_gossip_discovery::EndpointId::from_str("seed").unwrap_err().into(),
        iroh::EndpointId::from_str("seed").unwrap_err().into(),
    ];
    for (error, field) in errors.iter().zip(["bootstrap", "endpoint id", "endpoint id"]) {
        assert!(error.to_string().starts_with(field), "{error}");
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_alone_is_enough_to_bootstrap() {
    let mut nodes = Nodes::default();
    let seed = nodes.start("seed", &[]).await;
    let other = nodes.start("other", &[Bootstrap::from(&*seed.swarm.me())]).await;
    let met = tokio::time::timeout(common::PATIENCE, other.swarm.wait_for_peers(1)).await;
    assert!(met.expect("the seed answers").unwrap().contains(&seed.swarm.id()));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_endpoint_ends_its_topics() {
    let endpoint = loopback().await;
    let discovery = Discovery::spawn(endpoint.clone(), options()).await.unwrap();
    let join = JoinOptions::new("x");
    let swarm = discovery.join(Topic::new("test").unwrap(), join).await.unwrap();
    let (_, events) = swarm.subscribe();
    endpoint.close().await;
    eventually("the subscription ends", || events.is_closed()).await;
    swarm.leave().await;
    discovery.shutdown().await;
    assert!(Discovery::spawn(endpoint, options()).await.is_err());
}
