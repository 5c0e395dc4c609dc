//! Frames on a link: their order, loss, bandwidth, and the bounds of queues.

use std::time::Duration;

use bytes::Bytes;
use iroh_gossip_discovery_proto::{Config, Lane, LinkId};

use crate::{
    conditions::{Conditions, Latency},
    network::Network,
    queue::SimEvent,
};

const MS: Duration = Duration::from_millis(1);
/// A tag that belongs to none of the frames that are never dropped.
const ANY: u8 = 7;

/// Starts two nodes that know each other, and returns the link of the first one. No frame is on its
/// way.
fn linked(conditions: Conditions) -> (Network, LinkId) {
    let mut network =
        Network::new(1, Conditions { latency: conditions.latency, ..Conditions::lan() });
    let (a, b) = (network.add(), network.add());
    network.boot(a, Config::default(), &[]);
    network.boot(b, Config::default(), &[a]);
    assert!(network.run_until(Duration::from_secs(5), Network::converged));
    network.run_for(MS * 700);
    network.conditions = conditions;
    let number = *network.transport.links_of(0).first().expect("they are linked");
    while network.engine.queue.pop().is_some() {}
    let accepted = network.transport.node_at_end(number, 1);
    (network, number.id(usize::from(accepted == Some(0))))
}

fn send(network: &mut Network, link: LinkId, lane: Lane, number: u8, length: usize) {
    let mut frame = vec![0; length];
    (frame[0], frame[1]) = (number, ANY);
    network.on_send(0, link, lane, Bytes::from(frame));
}

/// Returns the frames in the order in which they arrive: the number that each begins with, and its
/// time.
fn arriving(network: &mut Network) -> Vec<(u8, Duration)> {
    let begin = network.engine.clock.now;
    let mut frames = Vec::new();
    while let Some((at, event)) = network.engine.queue.pop() {
        if let SimEvent::Frame(_, _, _, bytes) = event {
            frames.push((bytes[0], Duration::from_nanos(at - begin)));
        }
    }
    frames
}

fn numbers(frames: &[(u8, Duration)]) -> Vec<u8> {
    frames.iter().map(|(number, _)| *number).collect()
}

#[test]
fn frames_of_one_lane_stay_in_order_and_lanes_overtake_each_other() {
    let latency = Latency::Uniform { min: MS, max: MS * 50 };
    let (mut network, link) = linked(Conditions { latency, ..Conditions::lan() });
    for number in 0..100 {
        let lane = if number % 2 == 0 { Lane::Control } else { Lane::Sync };
        send(&mut network, link, lane, number, 100);
    }
    let order = numbers(&arriving(&mut network));
    for parity in [0, 1] {
        let lane: Vec<_> = order.iter().copied().filter(|n| n % 2 == parity).collect();
        assert_eq!(lane.len(), 50);
        assert!(lane.is_sorted(), "{lane:?}");
    }
    assert!(!order.is_sorted(), "a frame of one lane was overtaken by a later one of the other");
}

#[test]
fn bandwidth_delays_and_control_goes_first() {
    let latency = Latency::Uniform { min: MS, max: MS };
    let conditions = Conditions { latency, bandwidth: Some(100_000), ..Conditions::lan() };
    let (mut network, link) = linked(conditions);
    for number in 0..10 {
        send(&mut network, link, Lane::Sync, number, 10_000);
    }
    send(&mut network, link, Lane::Control, 10, 1000);
    let frames = arriving(&mut network);
    assert_eq!(frames[0], (10, MS * 11), "1 kB takes 10 ms, and 1 ms on the way");
    let (number, last) = *frames.last().expect("sent above");
    assert_eq!((frames.len(), number), (11, 9));
    assert!((MS * 1000..MS * 1020).contains(&last), "100 kB take a second: {last:?}");
}

#[test]
fn a_dropped_frame_never_arrives_and_a_lost_packet_makes_one_late() {
    let latency = Latency::Uniform { min: MS, max: MS };
    let arrive = |conditions: Conditions| {
        let (mut network, link) = linked(Conditions { latency, ..conditions });
        for number in 0..200 {
            send(&mut network, link, Lane::Sync, number, 100);
        }
        arriving(&mut network)
    };
    let all = arrive(Conditions::lan());
    let dropped = arrive(Conditions { drop: 0.5, ..Conditions::lan() });
    let late = arrive(Conditions { loss: 0.5, ..Conditions::lan() });
    assert_eq!((all.len(), late.len()), (200, 200));
    assert!((60..140).contains(&dropped.len()), "{} of 200", dropped.len());
    let end = |frames: &[(u8, Duration)]| frames.last().map(|(_, at)| *at);
    assert!(end(&all) < Some(MS * 2), "{:?}", end(&all));
    assert!(end(&late) > Some(MS * 50), "the backoff: {:?}", end(&late));
}

#[test]
fn a_queue_that_is_full_closes_its_link() {
    let (mut network, link) = linked(Conditions::lan());
    for number in 0..=255 {
        send(&mut network, link, Lane::Control, number, 10);
    }
    assert!(network.nodes[0].dropped.is_empty(), "256 frames: {:?}", network.nodes[0].dropped);
    send(&mut network, link, Lane::Control, 0, 10);
    assert_eq!(network.nodes[0].dropped.get("queues overflowed"), Some(&1));
    let closed = std::iter::from_fn(|| network.engine.queue.pop())
        .filter(|(_, event)| matches!(event, SimEvent::Closed(..)));
    assert_eq!(closed.count(), 2, "both ends hear of it");
}
