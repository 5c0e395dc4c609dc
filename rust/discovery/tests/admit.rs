//! The application admits newcomers, between real nodes: a node is no member and has no link before
//! the answer, and no flood of made-up nodes keeps an honest one out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    Nodes, PATIENCE, dropped, eventually, full, metadata, node, problem, stranger, stranger_of,
};
use iroh::{SecretKey, endpoint::ConnectionError};
use iroh_gossip_discovery::{
    ALPN, Admit, Config, EndpointId, Newcomer, NodeRecord, Profile, RunningNode, SwarmKey,
    proto::{SignedRecord, TopicId, forge},
};
use tokio::{sync::watch, time::timeout};

/// The code of a connection that got no answer in time (`CloseCode::Refused`).
const REFUSED: u64 = 4;

/// What a node was asked, in order.
type Asked = Arc<Mutex<Vec<Newcomer>>>;

/// Notes each question, and answers by a function.
fn by(
    answer: impl Fn(&Newcomer, usize) -> Result<bool, String> + Send + Sync + 'static,
) -> (Admit, Asked) {
    let (asked, answer) = (Asked::default(), Arc::new(answer));
    let noted = asked.clone();
    let admit = Admit::new(move |newcomer: Newcomer| {
        let (noted, answer) = (noted.clone(), answer.clone());
        async move {
            let before = times(&noted, &newcomer.id);
            noted.lock().unwrap().push(newcomer.clone());
            answer(&newcomer, before)
        }
    });
    (admit, asked)
}

/// How often a node was asked about.
fn times(asked: &Asked, id: &EndpointId) -> usize {
    asked.lock().unwrap().iter().filter(|newcomer| newcomer.id == *id).count()
}

fn knows(node: &RunningNode, other: &RunningNode) -> bool {
    node.swarm.book().contains(&other.swarm.id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_is_a_member_once_it_is_admitted_and_a_refused_one_is_told() {
    let mut nodes = Nodes::default();
    let welcome = Arc::new(Mutex::new(BTreeSet::new()));
    let guests = welcome.clone();
    let (admit, asked) = by(move |newcomer, _| Ok(guests.lock().unwrap().contains(&newcomer.id)));
    let alice = nodes.build(node("alice").admit(admit)).await;
    let key = SecretKey::generate();
    let bob_id = EndpointId::from(key.public());
    welcome.lock().unwrap().insert(bob_id);
    let seed = vec![alice.swarm.ticket().into()];
    let bob = nodes.build(node("bob").secret_key(key).bootstrap(seed.clone())).await;
    let carol = nodes.build(node("carol").bootstrap(seed)).await;
    eventually("the admitted one is a member", || full(&[alice.clone(), bob.clone()])).await;
    eventually("the refused one is told", || {
        problem(&carol, "bootstrap").contains("it keeps this node out")
    })
    .await;
    assert!(dropped(&alice, "peers that were not admitted") > 0);
    assert!(!knows(&alice, &carol) && !knows(&carol, &alice) && !knows(&carol, &bob));
    let question = asked.lock().unwrap().iter().find(|one| one.id == bob_id).cloned().unwrap();
    assert!(!question.addresses.is_empty(), "the question says where it is");

    // One that is admitted is not asked about again, whatever it changes.
    bob.swarm.set_profile(Profile::new("bob 2")).await.unwrap();
    eventually("the change is known", || {
        alice.swarm.book().get(&bob_id).is_some_and(|seen| seen.profile.name == "bob 2")
    })
    .await;
    assert_eq!(times(&asked, &bob_id), 1);
    // What was admitted can be taken back, and is asked about again after that.
    alice.discovery.deny(bob_id).await.unwrap();
    assert!(!knows(&alice, &bob));
    welcome.lock().unwrap().clear();
    alice.discovery.undeny(bob_id).await.unwrap();
    eventually("it is asked about again", || times(&asked, &bob_id) >= 2).await;
    assert!(!knows(&alice, &bob));
    welcome.lock().unwrap().insert(bob_id);
    alice.discovery.undeny(bob_id).await.unwrap();
    eventually("it is a member again", || full(&[alice.clone(), bob.clone()])).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_may_depend_on_what_a_node_says_of_itself_and_books_agree() {
    let mut nodes = Nodes::default();
    let carol = nodes.start("carol", &[]).await;
    let (carol_id, seed) = (carol.swarm.id(), vec![carol.swarm.ticket().into()]);
    let of = |name: &str, role: &str| {
        node(name).metadata(metadata(&[("role", role)])).bootstrap(seed.clone())
    };
    let worker = nodes.build(of("worker", "worker")).await;
    let guest = nodes.build(of("guest", "guest")).await;
    eventually("they know each other", || full(&[carol.clone(), worker.clone(), guest.clone()]))
        .await;
    let (admit, asked) = by(move |newcomer, _| {
        let role = newcomer.record.as_ref().and_then(|one| one.profile.metadata.get("role"));
        Ok(newcomer.id == carol_id || role.is_some_and(|role| role == "worker"))
    });
    let alice = nodes.build(of("alice", "worker").admit(admit)).await;
    eventually("those that it admits are members", || {
        knows(&alice, &carol) && knows(&alice, &worker)
    })
    .await;
    eventually("it was asked about the other", || {
        asked.lock().unwrap().iter().any(|one| one.id == guest.swarm.id() && one.record.is_some())
    })
    .await;
    assert!(!knows(&alice, &guest));
    // Others deal with both, and the books are equal for the protocol.
    eventually("the others know it", || knows(&carol, &alice) && knows(&guest, &alice)).await;
    let settled = alice.swarm.settled(Duration::from_millis(300));
    assert_eq!(timeout(PATIENCE, settled).await.unwrap().unwrap().len(), 2);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_without_an_answer_admits_nobody_and_is_asked_again() {
    let mut nodes = Nodes::default();
    let (admit, asked) = by(|_, before| match before {
        0 => Err("the database is away".to_owned()),
        1 => panic!("as a callback may"),
        _ => Ok(true),
    });
    let alice = nodes.build(node("alice").admit(admit)).await;
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    eventually("it says so", || problem(&alice, "admit").contains("the database is away")).await;
    assert!(!knows(&alice, &bob));
    eventually("the third answer admits it", || full(&[alice.clone(), bob.clone()])).await;
    assert_eq!(times(&asked, &bob.swarm.id()), 3);
    assert_eq!(dropped(&alice, "questions without an answer"), 2);
    eventually("the problem is over", || problem(&alice, "admit").is_empty()).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_wait_for_a_slow_answer_within_limits_and_what_it_says_holds_later() {
    const STRANGERS: usize = 40;
    let mut nodes = Nodes::default();
    let (open, opened) = watch::channel(false);
    let admit = Admit::new(move |_| {
        let mut opened = opened.clone();
        async move { opened.wait_for(|open| *open).await.map(|_| true).map_err(|e| e.to_string()) }
    });
    let alice = nodes.build(node("alice").admit(admit)).await;
    alice.discovery.limit_links(32);
    let bob = nodes.start("bob", &[alice.swarm.ticket().into()]).await;
    let mut closing = Vec::new();
    for _ in 0..STRANGERS {
        let (endpoint, to) = (stranger().await, alice.endpoint.addr());
        closing.push(tokio::spawn(async move {
            let connection = endpoint.connect(to, ALPN).await.unwrap();
            let end = timeout(PATIENCE, connection.closed()).await.unwrap();
            endpoint.close().await;
            end
        }));
    }
    for closed in closing {
        match closed.await.unwrap() {
            ConnectionError::ApplicationClosed(end)
                if end.error_code == REFUSED.try_into().unwrap() => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(alice.swarm.metrics().links_opened, 0, "none of them became a link");
    assert!(dropped(&alice, "connections that made room for others") > 0, "they have a share");
    assert!(dropped(&alice, "connections without an answer in time") > 0);
    assert!(alice.swarm.book().is_empty());
    open.send_replace(true);
    eventually("the answer holds when it comes again", || full(&[alice.clone(), bob.clone()]))
        .await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_private_swarm_only_those_that_hold_the_secret_are_asked_about() {
    let mut nodes = Nodes::default();
    let key = SwarmKey::generate().unwrap();
    let [(alices, asked_by_alice), (bobs, asked_by_bob)] = [(); 2].map(|()| by(|_, _| Ok(true)));
    let private = |name: &str, admit| node(name).secrets(vec![key.clone()]).admit(admit);
    let alice = nodes.build(private("alice", alices)).await;
    let seed = vec![alice.swarm.ticket().into()];
    let bob = nodes.build(private("bob", bobs).bootstrap(seed.clone())).await;
    eventually("both admit each other", || full(&[alice.clone(), bob.clone()])).await;
    assert_eq!(times(&asked_by_alice, &bob.swarm.id()), 1);
    assert_eq!(times(&asked_by_bob, &alice.swarm.id()), 1);
    let outsider = nodes.start("outsider", &seed).await;
    eventually("the outsider tried", || {
        dropped(&alice, "connections without the swarm's secret") > 0
    })
    .await;
    assert_eq!(times(&asked_by_alice, &outsider.swarm.id()), 0);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_an_earlier_life_are_asked_about_again_and_then_dialed() {
    let mut nodes = Nodes::default();
    let dir = tempfile::tempdir().unwrap();
    let bob = nodes.start("bob", &[]).await;
    let alice = |admit| node("alice").state_dir(dir.path()).admit(admit);
    let (admit, _) = by(|_, _| Ok(true));
    let first = alice(admit).bootstrap(vec![bob.swarm.ticket().into()]).build().await.unwrap();
    eventually("they know each other", || knows(&first, &bob) && knows(&bob, &first)).await;
    first.close().await;
    let (admit, asked) = by(|newcomer, _| Ok(newcomer.record.is_some()));
    // Nobody names the other node now.
    let second = nodes.build(alice(admit)).await;
    eventually("they know each other again", || full(&[second.clone(), bob.clone()])).await;
    assert_eq!(times(&asked, &bob.swarm.id()), 1, "what its record says was kept");
    nodes.close().await;
}

/// Records of made-up nodes, each with a key of its own.
fn made_up(count: usize, topic: &TopicId) -> Vec<bytes::Bytes> {
    let record = |_| {
        let key = SecretKey::generate();
        let mut record = NodeRecord::new(key.public().into(), Profile::new("made up"));
        (record.sequence, record.boot_id) = (1, 1);
        record.expiration = Duration::from_mins(10);
        SignedRecord::sign(key.as_signing_key(), topic, record).unwrap().bytes().clone()
    };
    (0..count).map(record).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_made_up_nodes_cause_few_questions_at_a_time_and_keep_no_newcomer_out() {
    const MADE_UP: usize = 10_000;
    let mut nodes = Nodes::default();
    let (hostile_key, bob_key) = (SecretKey::generate(), SecretKey::generate());
    let welcome = [&hostile_key, &bob_key].map(|key| EndpointId::from(key.public()));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let asked = Arc::new(Mutex::new(BTreeMap::<EndpointId, usize>::new()));
    let (counted, peak, seen) = (now.clone(), most.clone(), asked.clone());
    let admit = Admit::new(move |newcomer: Newcomer| {
        let (now, most, asked) = (counted.clone(), peak.clone(), seen.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            *asked.lock().unwrap().entry(newcomer.id).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(welcome.contains(&newcomer.id))
        }
    });
    let mut config = Config::local();
    // One member may introduce a tenth of that: all of the made-up nodes.
    config.protocol.capacity = 10 * MADE_UP;
    let alice = nodes.build(node("alice").config(config).admit(admit)).await;
    let topic = alice.swarm.topic().id();
    let records = made_up(MADE_UP, &topic);
    let hostile = stranger_of(hostile_key).await;
    let connection = hostile.connect(alice.endpoint.addr(), ALPN).await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    let frame = |content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length, content].concat()
    };
    let start = [frame(&forge::hello(1)), frame(&forge::open(topic))].concat();
    control.write_all(&[&[0], start.as_slice()].concat()).await.unwrap();
    for some in records.chunks(100) {
        control.write_all(&frame(&forge::push(some))).await.unwrap();
    }
    let count = || asked.lock().unwrap().len();
    eventually("the flood is under way", || count() > 100).await;
    let bob = nodes
        .build(node("bob").secret_key(bob_key).bootstrap(vec![alice.swarm.ticket().into()]))
        .await;
    let took =
        eventually("an honest newcomer is admitted", || knows(&alice, &bob) && knows(&bob, &alice))
            .await;
    println!("a newcomer after {took:?}, {} were asked about until then", count());
    // In steps, as a busy machine takes a while for all of them.
    for some in (1..=10).map(|step| step * MADE_UP / 10) {
        eventually("each is asked about in the end", || count() >= some).await;
    }
    let most = most.load(Ordering::SeqCst);
    println!("at most {most} at a time; drops: {:?}", alice.swarm.metrics().dropped);
    assert!(most <= 16, "{most} questions at a time");
    assert!(asked.lock().unwrap().values().all(|times| *times <= 1), "each once");
    assert!(!alice.swarm.book().iter().any(|peer| peer.profile.name == "made up"));
    hostile.close().await;
    nodes.close().await;
}
