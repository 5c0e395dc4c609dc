//! Made-up members that no node ever reached keep no newcomer out.

use std::time::Duration;

use bytes::Bytes;
use iroh_gossip_discovery_proto::{Config, InEvent, TopicEvent, forge};

use super::siege::{S, Siege, made_up};

const HONEST: usize = 6;
const NEWCOMERS: usize = 4;
/// The parts in which a flood comes.
const ROUNDS: u32 = 20;

/// How made-up members get into the books.
struct Flood {
    members: usize,
    /// The keys that bring them, each on its own link.
    keys: usize,
    capacity: usize,
    /// True if they come in answers to syncs, false if they are pushed.
    answers: bool,
    addresses: fn(usize) -> String,
    takes: Duration,
}

fn anywhere(number: usize) -> String {
    format!("10.{}.{}.1:7", 50 + number / 250, number % 250)
}

fn one_network(number: usize) -> String {
    format!("10.200.0.{}:{}", number % 250 + 1, 1000 + number % 10_000)
}

const FLOOD: Flood = Flood {
    members: 3000,
    keys: 1,
    capacity: 10_000,
    answers: false,
    addresses: anywhere,
    takes: S,
};

fn pour(siege: &mut Siege, flood: &Flood) {
    let enemies: Vec<_> = (0..flood.keys).map(|_| siege.enemy()).collect();
    let records: Vec<_> = (0..flood.members)
        .map(|number| siege.record(&made_up(number), 1, &(flood.addresses)(number)))
        .collect();
    let parts: Vec<_> = records.chunks(flood.members.div_ceil(flood.keys)).collect();
    for (number, (enemy, part)) in enemies.iter().zip(&parts).enumerate() {
        let target = number % HONEST;
        siege.link(*enemy, target);
        if flood.answers {
            siege.hold(*enemy, part.to_vec());
            let own = siege.own_record(*enemy, 1);
            siege.say(*enemy, target, forge::neighbor(&own, true));
        }
    }
    for round in 0..ROUNDS {
        for (number, (enemy, part)) in enemies.iter().zip(&parts).enumerate() {
            if flood.answers {
                // A neighbor whose book differs is asked for it.
                siege.say(*enemy, number % HONEST, forge::digest(round.into()));
                continue;
            }
            let size = part.len().div_ceil(ROUNDS as usize);
            let records = part.chunks(size).nth(round as usize).unwrap_or_default();
            for records in records.chunks(40) {
                siege.say(*enemy, number % HONEST, forge::push(records));
            }
        }
        siege.network.run_for(flood.takes / ROUNDS);
    }
    siege.network.run_for(S * 2);
}

/// Newcomers start among made-up members. Within seconds each is in all books, has neighbors, and
/// hears and is heard.
fn newcomers_among(name: &str, flood: &Flood) {
    let mut config = Config::default();
    config.capacity = flood.capacity;
    let mut siege = Siege::new(5, HONEST, &config);
    pour(&mut siege, flood);
    newcomers_come(name, &mut siege, &config, S * 3);
}

fn newcomers_come(name: &str, siege: &mut Siege, config: &Config, within: Duration) {
    println!("{name}: books {:?}, {:?}", books(siege), siege.all_dropped());
    let newcomers: Vec<_> = (0..NEWCOMERS).map(|_| siege.network.add()).collect();
    let began = siege.network.elapsed();
    for newcomer in &newcomers {
        siege.network.boot(*newcomer, config.clone(), &[0]);
    }
    let is_up = |event: &TopicEvent| matches!(event, TopicEvent::NeighborUp(_));
    let everybody: Vec<_> = (0..HONEST).chain(newcomers.clone()).collect();
    let all = everybody.clone();
    let done = siege.network.run_until(S * 90, |network| {
        newcomers.iter().all(|newcomer| {
            network.nodes[*newcomer].events.iter().any(|(_, event)| is_up(event))
                && all.iter().all(|other| {
                    other == newcomer
                        || network.knows(*other, *newcomer) && network.knows(*newcomer, *other)
                })
        })
    });
    let took = siege.network.elapsed().saturating_sub(began);
    println!("{name}: {took:?}, books {:?}, {:?}", books(siege), siege.all_dropped());
    assert!(done, "{name}: a newcomer is not in all books, or has no neighbor");
    assert!(took < within, "{name}: {took:?}");
    siege.network.run_for(S * 2);
    for author in [0, newcomers[0]] {
        let data = Bytes::from(format!("of {author}"));
        let said = data.clone();
        siege.network.command(author, |topic| InEvent::Broadcast(topic, None, data));
        let heard = siege.network.run_until(S * 10, |network| {
            everybody.iter().filter(|node| **node != author).all(|node| {
                let mut events = network.nodes[*node].events.iter().rev();
                events.any(|(_, event)| {
                    matches!(event, TopicEvent::Broadcast { data, .. } if *data == said)
                })
            })
        });
        println!("{name}: {:?}", siege.all_dropped());
        assert!(heard, "{name}: a broadcast of node {author} does not reach all");
    }
}

fn books(siege: &Siege) -> Vec<usize> {
    siege.honest().iter().map(|node| node.book.len()).collect()
}

#[test]
fn a_few_made_up_members_keep_no_newcomer_out() {
    newcomers_among("60", &Flood { members: 60, ..FLOOD });
}

#[test]
fn three_thousand_made_up_members_keep_no_newcomer_out() {
    newcomers_among("3,000", &FLOOD);
}

#[test]
fn made_up_members_of_many_keys_in_a_full_book_keep_no_newcomer_out() {
    newcomers_among("20 keys", &Flood { keys: 20, members: 1500, capacity: 600, ..FLOOD });
}

#[test]
fn made_up_members_of_one_network_keep_no_newcomer_out() {
    let flood = Flood { addresses: one_network, keys: 20, members: 1500, capacity: 600, ..FLOOD };
    newcomers_among("one network", &flood);
}

#[test]
fn made_up_members_in_answers_to_syncs_keep_no_newcomer_out() {
    newcomers_among(
        "answers",
        &Flood { answers: true, keys: 3, members: 1500, capacity: 600, ..FLOOD },
    );
}

#[test]
fn made_up_members_that_come_slowly_keep_no_newcomer_out() {
    newcomers_among(
        "slowly",
        &Flood { keys: 20, members: 1500, capacity: 600, takes: S * 120, ..FLOOD },
    );
}

/// Members that greet, and answer probes and syncs, and never let a newcomer into the overlay.
#[test]
fn members_that_say_nothing_keep_no_newcomer_out() {
    let config = Config::default();
    let mut siege = Siege::new(6, HONEST, &config);
    for _ in 0..60 {
        let enemy = siege.enemy();
        siege.link(enemy, 0);
        let own = siege.own_record(enemy, 1);
        siege.say(enemy, 0, forge::push(&[own]));
    }
    siege.network.run_for(S * 2);
    let books = books(&siege);
    assert!(books.iter().all(|book| *book > 50), "{books:?}");
    newcomers_come("silent", &mut siege, &config, S * 3 / 2);
}
