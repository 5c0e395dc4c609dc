//! Pins our mirror of the overlay's messages to iroh-gossip's own serialization: what its state
//! machine emits, our mirror must decode and encode to the same bytes, for every message it has.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use iroh_gossip::proto::{
    Command, Config, PeerData, Scope,
    topic::{InEvent, Message, OutEvent, State},
};
use rand::{SeedableRng, rngs::ChaCha12Rng};
use tokio::time::Instant;

use super::id;
use crate::{EndpointId, overlay::Shape};

type Peer = State<EndpointId, ChaCha12Rng>;

/// Runs three real states for a while, with every timer, and returns the messages between them.
fn messages() -> Vec<Message<EndpointId>> {
    let mut config = Config::default();
    config.membership.active_view_capacity = 3;
    config.membership.shuffle_interval = Duration::from_secs(1);
    let mut now = Instant::now();
    let mut peers: Vec<Peer> = (0..8)
        .map(|n| {
            let data = Some(PeerData::new(vec![n; 20]));
            State::with_rng(id(n), data, config.clone(), ChaCha12Rng::seed_from_u64(n.into()))
        })
        .collect();
    let number = |who: &EndpointId| (0..8).find(|n| id(*n) == *who).map(usize::from).unwrap();
    let mut seen = Vec::new();
    let mut timers = Vec::new();
    let mut queue: Vec<(usize, InEvent<EndpointId>)> = Vec::new();
    for round in 0..400_u32 {
        if round % 20 == 0 {
            for n in 0..8_u8 {
                let peer = id((n + 1 + u8::try_from(round / 20).unwrap() % 7) % 8);
                queue.push((usize::from(n), InEvent::Command(Command::Join(vec![peer]))));
            }
            for (n, scope) in [(0, Scope::Swarm), (3, Scope::Swarm), (5, Scope::Neighbors)] {
                let content = Bytes::from(format!("{n} in {round}"));
                queue.push((n, InEvent::Command(Command::Broadcast(content, scope))));
            }
        }
        for (n, event) in std::mem::take(&mut queue) {
            for output in peers[n].handle(event, now).collect::<Vec<_>>() {
                match output {
                    OutEvent::SendMessage(to, message) => {
                        seen.push(message.clone());
                        // The network loses messages, so that some are announced and grafted.
                        if seen.len() % 5 > 0 {
                            queue.push((
                                number(&to),
                                InEvent::RecvMessage(id(u8::try_from(n).unwrap()), message),
                            ));
                        }
                    }
                    OutEvent::ScheduleTimer(delay, timer) => timers.push((now + delay, n, timer)),
                    _ => {}
                }
            }
        }
        now += Duration::from_millis(30) * (1 + round % 7);
        let (due, later) = timers.into_iter().partition(|(at, ..)| *at <= now);
        timers = later;
        let due: Vec<(Instant, usize, _)> = due;
        queue.extend(due.into_iter().map(|(_, n, timer)| (n, InEvent::TimerExpired(timer))));
    }
    seen.extend(peers[0].handle(InEvent::Command(Command::Quit), now).filter_map(|output| {
        match output {
            OutEvent::SendMessage(_, message) => Some(message),
            _ => None,
        }
    }));
    seen
}

#[test]
fn our_mirror_has_the_shape_of_every_message() {
    let mut kinds = BTreeSet::new();
    for message in messages() {
        let bytes = postcard::to_stdvec(&message).unwrap();
        let shape: Shape = postcard::from_bytes(&bytes).expect("our mirror decodes the bytes");
        assert_eq!(postcard::to_stdvec(&shape).unwrap(), bytes, "{message:?}");
        assert_eq!(shape.into_message(), message);
        let debug = format!("{message:?}");
        let kind: String =
            debug.split(|c: char| !c.is_alphanumeric()).filter(|s| !s.is_empty()).take(2).collect();
        kinds.insert(kind);
    }
    let all = [
        "GossipGossip",
        "GossipGraft",
        "GossipIHave",
        "GossipPrune",
        "SwarmDisconnect",
        "SwarmForwardJoin",
        "SwarmJoin",
        "SwarmNeighbor",
        "SwarmShuffle",
        "SwarmShuffleReply",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}
