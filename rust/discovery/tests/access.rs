//! Allow and deny lists between real nodes: a peer that is kept out has no link with this node, is
//! in none of its books, and is heard by none of its handlers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Nodes, PATIENCE, dropped, eventually, full, node, problem};
use futures_util::{FutureExt, StreamExt};
use iroh::{
    Endpoint, NetReportConfig, RelayMode,
    endpoint::{ConnectionError, PortmapperConfig, QuicTransportConfig, VarInt, presets},
};
use iroh_gossip_discovery::{
    ALPN, Error, Event, LostReason, RunningNode,
    proto::{Request, forge},
};
use tokio::time::timeout;

async fn three(nodes: &mut Nodes) -> [Arc<RunningNode>; 3] {
    let alice = nodes.start("alice", &[]).await;
    let seed = [alice.swarm.ticket().into()];
    let all = [alice, nodes.start("bob", &seed).await, nodes.start("carol", &seed).await];
    eventually("all know each other", || full(&all)).await;
    all
}

fn knows(node: &RunningNode, other: &RunningNode) -> bool {
    node.swarm.book().contains(&other.swarm.id())
}

fn reason(result: Result<impl Sized, Error>) -> String {
    match result.map(|_| ()).unwrap_err() {
        Error::PeerUnreachable { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_member_is_gone_at_once_and_its_broadcasts_are_not_heard() {
    let mut nodes = Nodes::default();
    let [alice, bob, carol] = three(&mut nodes).await;
    let (_, mut events) = alice.swarm.subscribe();
    let [mut heard_by_alice, mut heard_by_carol] = [&alice, &carol].map(|n| n.swarm.messages());

    alice.discovery.deny(bob.swarm.id()).await.unwrap();
    assert!(!knows(&alice, &bob) && knows(&alice, &carol), "it holds when the call returns");
    assert!(!alice.swarm.neighbors().contains(&bob.swarm.id()));
    assert_eq!(alice.discovery.denied(), [bob.swarm.id()].into());
    // On a busy machine, a node may be suspected before that.
    while !matches!(
        timeout(PATIENCE, events.next()).await.unwrap().unwrap(),
        Event::PeerLost(peer, LostReason::Denied) if peer.id == bob.swarm.id()
    ) {}
    let sent = reason(alice.swarm.send(bob.swarm.id(), "hello").await);
    assert!(sent.contains("deny list"), "{sent}");
    let sent = timeout(PATIENCE, bob.swarm.send(alice.swarm.id(), "hello")).await.unwrap();
    assert!(!reason(sent).is_empty());

    // It is a member for the others, and the overlay brings what it says to this node, too.
    bob.swarm.broadcast("from bob").await.unwrap();
    let message = timeout(PATIENCE, heard_by_carol.next()).await.unwrap();
    assert!(format!("{message:?}").contains("from bob"), "{message:?}");
    eventually("the broadcast reaches the node that denies its author", || {
        dropped(&alice, "broadcasts of peers that are kept out") > 0
    })
    .await;
    assert!(heard_by_alice.next().now_or_never().is_none());
    // Records of denied peers are compared like all others, so books come to agree.
    let settled = alice.swarm.settled(Duration::from_millis(300));
    assert_eq!(timeout(PATIENCE, settled).await.unwrap().unwrap().len(), 1);
    assert!(knows(&carol, &bob) && knows(&carol, &alice));

    alice.discovery.undeny(bob.swarm.id()).await.unwrap();
    assert!(knows(&alice, &bob), "its record was held");
    eventually("all know each other again", || full(&[alice.clone(), bob.clone(), carol.clone()]))
        .await;
    let mut heard_by_bob = bob.swarm.messages();
    timeout(PATIENCE, alice.swarm.send(bob.swarm.id(), "welcome")).await.unwrap().unwrap();
    assert!(heard_by_bob.next().now_or_never().is_some());
    nodes.close().await;
}

fn framed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length, content].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_was_saying_when_it_was_denied_is_not_heard_though_it_never_reads() {
    let mut nodes = Nodes::default();
    let alice = nodes.start("alice", &[]).await;
    let mut heard = alice.swarm.messages();
    // It takes 8 bytes of a stream, so that what it is sent never arrives whole. A link that is
    // closed in good standing would wait for that, and hear the peer meanwhile.
    let window = QuicTransportConfig::builder().stream_receive_window(VarInt::from_u32(8)).build();
    let denied = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .transport_config(window)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap();
    let connection = denied.connect(alice.endpoint.addr(), ALPN).await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[&[0], framed(&forge::hello(1)).as_slice()].concat()).await.unwrap();
    let request = framed(&Request::Message(alice.swarm.topic().id(), None).encode());
    let (mut whole, _answer) = connection.open_bi().await.unwrap();
    whole.write_all(&[&request, b"before".as_slice()].concat()).await.unwrap();
    whole.finish().unwrap();
    let first = timeout(PATIENCE, heard.next()).await.unwrap();
    assert!(format!("{first:?}").contains("before"), "a stranger is heard: {first:?}");
    let (mut half, _answer) = connection.open_bi().await.unwrap();
    half.write_all(&[&request, b"half of ".as_slice()].concat()).await.unwrap();

    alice.discovery.deny(denied.id().into()).await.unwrap();
    let _ = half.write_all(b"a message").await;
    let _ = half.finish();
    match timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(end) => assert_eq!(end.error_code, 9_u32.into()),
        other => panic!("{other}"),
    }
    let after = heard.next().now_or_never();
    assert!(after.is_none(), "{after:?}");
    denied.close().await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_on_the_allow_list_stays_out_and_both_ends_say_why() {
    let mut nodes = Nodes::default();
    let alice = nodes.build(node("alice").allow(vec![])).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("the newcomer is told", || {
        problem(&bob, "bootstrap").contains("it keeps this node out")
    })
    .await;
    assert!(problem(&alice, "access").contains("not on the allow list"));
    assert!(dropped(&alice, "links of peers that are kept out") > 0);
    assert_eq!(alice.swarm.metrics().links_opened, 0);
    alice.swarm.add_bootstrap(vec![bob.swarm.ticket().into()]).await.unwrap();
    assert!(problem(&alice, "bootstrap").contains("not on the allow list"));
    assert!(alice.swarm.book().is_empty() && bob.swarm.book().is_empty());

    alice.discovery.allow(bob.swarm.id()).await.unwrap();
    let both = [alice.clone(), bob.clone()];
    eventually("they know each other", || full(&both)).await;
    eventually("the problem is over", || problem(&alice, "access").is_empty()).await;
    alice.discovery.disallow(bob.swarm.id()).await.unwrap();
    assert!(alice.swarm.book().is_empty());
    assert_eq!(alice.discovery.allowed(), Some([].into()));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_hold_in_the_next_life_and_damaged_ones_stop_the_start() {
    let mut nodes = Nodes::default();
    let dir = tempfile::tempdir().unwrap();
    let [alice, bob, carol] = three(&mut nodes).await;
    let dave = || node("dave").state_dir(dir.path()).bootstrap(vec![carol.swarm.ticket().into()]);
    let first = dave().deny(vec![alice.swarm.id()]).build().await.unwrap();
    eventually("it knows those that are not denied", || first.swarm.book().len() == 2).await;
    first.discovery.deny(bob.swarm.id()).await.unwrap();
    first.close().await;

    let second = dave().build().await.unwrap();
    assert_eq!(second.discovery.denied(), [bob.swarm.id()].into(), "what was denied by a call");
    eventually("it knows the others", || knows(&second, &carol) && knows(&second, &alice)).await;
    let settled = second.swarm.settled(Duration::from_millis(300));
    assert_eq!(timeout(PATIENCE, settled).await.unwrap().unwrap().len(), 2);
    second.discovery.undeny(bob.swarm.id()).await.unwrap();
    second.discovery.deny(carol.swarm.id()).await.unwrap();
    second.close().await;

    let file = dir.path().join("access");
    let whole = std::fs::read_to_string(&file).unwrap();
    for damaged in [whole.replace("deny", "dony"), String::new(), "deny 7\n".to_owned()] {
        std::fs::write(&file, damaged).unwrap();
        let error = dave().build().await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("access") && error.contains("is damaged"), "{error}");
    }
    std::fs::write(&file, whole).unwrap();
    let third = nodes.build(dave()).await;
    assert_eq!(third.discovery.denied(), [carol.swarm.id()].into());
    nodes.close().await;
}
