//! Tests of the checks: an event that no correct state emits fails its own check and no other.

use std::{sync::Arc, time::Duration};

use iroh_gossip_discovery_proto::{
    Config, EndpointId, InEvent, LostReason, NodeRecord, Profile, TopicEvent as Event, TopicOptions,
};

use crate::{conditions::Conditions, network::Network, queue::SimEvent};

/// Starts two nodes that know each other. Returns the first record of the second node, and the one
/// that the first node has.
fn pair() -> (Network, Arc<NodeRecord>, Arc<NodeRecord>) {
    let mut network = Network::new(1, Conditions::lan());
    for number in 0..2 {
        network.add();
        network.boot(number, Config::default(), &[0][..number]);
    }
    assert!(network.run_until(Duration::from_secs(5), Network::converged));
    let held = |network: &Network| Arc::clone(&network.nodes[0].book[&network.nodes[1].id]);
    let older = held(&network);
    let profile = Profile::new("newer");
    network.command(1, |topic| InEvent::SetProfile(topic, profile));
    assert!(network.run_until(Duration::from_secs(1), |network| held(network) != older));
    assert!(network.run_until(Duration::from_secs(1), Network::converged));
    assert_eq!(network.failures, []);
    let newer = held(&network);
    (network, older, newer)
}

/// A record that differs from another.
fn but(record: &NodeRecord, change: impl FnOnce(&mut NodeRecord)) -> Arc<NodeRecord> {
    let mut record = record.clone();
    change(&mut record);
    Arc::new(record)
}

/// Lets the first node emit these events, and expects the check to catch the last one, which is
/// false.
fn caught(network: &mut Network, events: &[Event], check: &str, says: &str) {
    let (lie, truths) = events.split_last().expect("at least the lie");
    for event in truths {
        network.on_event(0, event.clone());
    }
    assert_eq!(network.failures, [], "before {lie:?}");
    network.on_event(0, lie.clone());
    let [failure] = network.failures.as_slice() else { panic!("{lie:?}: {:?}", network.failures) };
    assert_eq!((failure.check, failure.node), (check, Some(0)), "{failure}");
    assert!(failure.text.contains(says), "{failure}");
}

#[test]
fn a_false_event_about_a_peer_is_caught() {
    const REPLAY: &str = "events replay";
    const OWNERS: &str = "records are their owners'";
    const FALL: &str = "sequences never fall";
    const FLOOR: &str = "no verdict before the floor";
    let (_, older, newer) = pair();
    let stranger = {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let id = EndpointId::from_bytes(key.verifying_key().to_bytes());
        but(&newer, |record| record.id = id)
    };
    let made_up = but(&newer, |record| record.boot_id = 7);
    let above = but(&newer, |record| record.sequence += 1);
    let expired = Event::PeerLost(Arc::clone(&newer), LostReason::Expired);
    let unreachable = Event::PeerLost(Arc::clone(&newer), LostReason::Unreachable);
    let suspected = Event::PeerSuspected(Arc::clone(&newer));
    let joined = Event::PeerJoined(Arc::clone(&newer));
    let cases = [
        (vec![Event::PeerJoined(stranger)], OWNERS, "nobody has this key"),
        (vec![Event::PeerSuspected(made_up)], OWNERS, "its owner never said this"),
        (vec![Event::PeerUpdated(above)], OWNERS, "its owner never said this"),
        (vec![Event::PeerLeft(Arc::clone(&newer))], OWNERS, "never said goodbye"),
        (vec![joined.clone()], REPLAY, "joined twice"),
        (vec![expired.clone(), suspected.clone()], REPLAY, "a peer that is not in the book"),
        (vec![suspected.clone(), suspected.clone()], REPLAY, "suspected twice"),
        (vec![Event::PeerRecovered(Arc::clone(&newer))], REPLAY, "recovered from no suspicion"),
        (vec![expired, joined], "no resurrection", "without a higher sequence"),
        (vec![Event::PeerUpdated(Arc::clone(&newer))], FALL, "an update without a higher"),
        (vec![Event::PeerRefreshed(Arc::clone(&newer))], FALL, "an update without a higher"),
        (vec![Event::PeerSuspected(older)], FALL, "an event with an older record"),
        (vec![unreachable.clone()], FLOOR, "lost without a suspicion"),
        (vec![suspected, unreachable], FLOOR, "lost 0ns after it"),
    ];
    for (events, check, says) in cases {
        // The same seed gives the same keys and sequence numbers.
        caught(&mut pair().0, &events, check, says);
    }
}

#[test]
fn a_verdict_at_the_floor_is_none_too_early() {
    let (mut network, _, newer) = pair();
    let config = Config::default();
    network.on_event(0, Event::PeerSuspected(Arc::clone(&newer)));
    let early = config.suspicion.saturating_sub(config.probe_timeout);
    network.engine.clock.now += crate::clock::nanos(early);
    network.on_event(0, Event::PeerLost(newer, LostReason::Unreachable));
    assert_eq!(network.failures, []);
}

#[test]
fn a_book_beyond_its_capacity_is_caught() {
    let (mut network, _, newer) = pair();
    network.nodes[0].config.capacity = 0;
    caught(&mut network, &[Event::PeerSuspected(newer)], "caps hold", "1 peers in the book");
}

#[test]
fn a_false_event_about_the_node_itself_is_caught() {
    let own = |network: &Network| {
        Arc::clone(network.nodes[0].own.as_ref().expect("it has announced itself"))
    };
    let (network, _, other) = pair();
    let author = network.nodes[0].id;
    let again = Event::Announced(own(&network));
    caught(&mut pair().0, &[again], "sequences never fall", "announced");
    let sequence = own(&network).sequence + 1;
    let others = Event::Announced(but(&other, |record| record.sequence = sequence));
    caught(&mut pair().0, &[others], "records are their owners'", "announced");
    for event in [Event::Reconnected, Event::Isolated] {
        let twice = [Event::Isolated, event.clone(), event.clone()];
        let events = if event == Event::Isolated { &twice[1..] } else { &twice };
        caught(&mut pair().0, events, "events replay", "twice");
    }
    let said = |author| Event::Broadcast { author, channel: None, data: b"a".as_slice().into() };
    caught(&mut pair().0, &[said(author)], "broadcasts are for others", "it heard itself");
    let twice = [said(other.id), said(other.id)];
    caught(&mut pair().0, &twice, "broadcasts come at most once", "came twice");
}

#[test]
fn growth_beyond_the_bounds_is_caught() {
    let bounds = [
        ("tombstones", 10_000),
        ("broadcasts kept", 320),
        ("contents seen", 4096),
        ("sessions", 68),
    ];
    for (what, most) in bounds {
        let (mut network, ..) = pair();
        let inspect = network.nodes[0].state().and_then(|state| state.inspect(&network.topic));
        let mut inspect = inspect.expect("it is up");
        inspect.sizes.push((what, most));
        network.check_sizes(0, &inspect);
        assert_eq!(network.failures, []);
        inspect.sizes.push((what, most + 1));
        network.check_sizes(0, &inspect);
        assert_eq!(network.failures.len(), 1, "{:?}", network.failures);
        assert_eq!(network.failures[0].check, "caps hold");
    }
}

#[test]
fn an_impossible_effect_is_caught() {
    let (mut network, ..) = pair();
    let options = TopicOptions { profile: Profile::default(), config: Config::default() };
    network.command(0, |topic| InEvent::Join(topic, Box::new(options)));
    assert_eq!(network.failures.len(), 1);
    assert_eq!(network.failures[0].check, "the state takes what a driver says");
}

#[test]
fn a_queue_of_events_that_grows_is_caught() {
    let (mut network, ..) = pair();
    network.check_quiet();
    assert_eq!(network.failures, []);
    (0..2000).for_each(|_| network.engine.queue.push(u64::MAX, SimEvent::Wake(0)));
    network.check_quiet();
    assert_eq!(network.failures.len(), 1, "{:?}", network.failures);
    assert_eq!(network.failures[0].check, "caps hold");
}

#[test]
fn an_entry_that_differs_is_caught_though_the_digest_is_right() {
    let (mut network, ..) = pair();
    let digest = network.nodes[0].book.digest;
    network.nodes[0].book.clear();
    network.nodes[0].book.digest = digest;
    network.check_digest(0);
    assert_eq!(network.failures, [], "that is what the look at each entry is for");
    network.check_books();
    assert_eq!(network.failures.len(), 1, "{:?}", network.failures);
    assert_eq!(network.failures[0].check, "events replay");
}
