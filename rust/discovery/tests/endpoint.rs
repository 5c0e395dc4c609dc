//! Discovery on an application's own endpoint, beside its own protocols.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Nodes, eventually};
use futures_util::StreamExt;
use iroh::{
    Endpoint, NetReportConfig, RelayMode,
    endpoint::{Connection, PortmapperConfig, presets},
    protocol::{AcceptError, ProtocolHandler, Router},
};
use iroh_gossip_discovery::{
    ALPN, Config, Discovery, Error, JoinOptions, Profile, SpawnOptions, Topic,
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
    SpawnOptions { config: Config::local(), ..SpawnOptions::default() }
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
    let profile = Profile { name: "own endpoint".into(), ..Profile::default() };
    let join = JoinOptions { profile, bootstrap: vec![] };
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

    // Discovery can be spawned again on the same endpoint.
    nodes.close().await;
    router.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_endpoint_ends_its_topics() {
    let endpoint = loopback().await;
    let discovery = Discovery::spawn(endpoint.clone(), options()).await.unwrap();
    let profile = Profile { name: "x".into(), ..Profile::default() };
    let join = JoinOptions { profile, bootstrap: vec![] };
    let swarm = discovery.join(Topic::new("test").unwrap(), join).await.unwrap();
    let (_, events) = swarm.subscribe();
    endpoint.close().await;
    eventually("the subscription ends", || events.is_closed()).await;
    swarm.leave().await;
    discovery.shutdown().await;
    assert!(Discovery::spawn(endpoint, options()).await.is_err());
}
