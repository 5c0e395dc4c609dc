//! The nine attacks of the evaluation of gossipsub 1.1 (Vyzovitis et al., 2020), on this protocol.
//! 30 % of the members run the protocol, and then turn hostile. docs/security.md has the figures.
//!
//! `NODES=1000 cargo test -p iroh-gossip-discovery-sim --test nine_attacks -- --nocapture` takes
//! long. The default is small, so that the tests are quick. `SEED=100` gives another history.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{Config, EndpointId, InEvent, TopicEvent};
use iroh_gossip_discovery_sim::{Conditions, Malice, Network, Sent, Silence};

const S: Duration = Duration::from_secs(1);
/// The time between two broadcasts. The authors take turns.
const APART: Duration = Duration::from_millis(250);
/// The time before an attack, and the time in which the overlay may react.
const CALM: Duration = Duration::from_secs(20);
const REACTION: Duration = Duration::from_secs(30);
/// The time for which an attack is measured after that.
const MEASURED: Duration = Duration::from_mins(1);
/// A node that misses all broadcasts for this time is cut off.
const CUT_OFF: Duration = Duration::from_secs(5);
/// The members that one hostile node besieges at a time.
const BESIEGED: usize = 100;

fn nodes() -> usize {
    setting("NODES").unwrap_or(40)
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// A broadcast of an honest node.
struct Said {
    at: Duration,
    author: usize,
    data: Bytes,
}

/// A swarm, of which some members will turn hostile.
struct Swarm {
    network: Network,
    honest: Vec<usize>,
    hostile: Vec<usize>,
    said: Vec<Said>,
}

/// What was measured in a time.
struct Figures {
    /// The share of broadcasts that arrived, in percent.
    delivered: f64,
    /// The share of the worst author's, and of the worst receiver.
    worst: [f64; 2],
    /// The time in which half of what arrived did, and 99 of 100.
    delays: [Duration; 2],
    /// The honest nodes that were cut off, and for how long at the longest.
    cut_off: (usize, Duration),
    /// The smallest number of honest neighbors, and their mean.
    neighbors: (usize, f64),
    /// Bytes a second and dials a minute of one honest node.
    cost: (f64, f64),
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([half, most], (cut, longest)) = (self.delays, self.cut_off);
        let ((fewest, mean), (bytes, dials)) = (self.neighbors, self.cost);
        let cut = if cut == 0 { "none".to_owned() } else { format!("{cut} for {longest:.0?}") };
        write!(
            f,
            "{:.2} %, {half:.0?} and {most:.0?} | {cut} | {fewest}, {mean:.1} | {bytes:.0}, \
             {dials:.1}",
            self.delivered
        )
    }
}

impl Swarm {
    /// Adds the nodes, none of which runs.
    fn new(seed: u64, one_host: bool) -> Self {
        let seed = seed + setting::<u64>("SEED").unwrap_or_default();
        let mut network = Network::new(seed, Conditions::lan());
        network.observed.keep_events = false;
        network.observed.keep_log = true;
        let count = nodes();
        let honest: Vec<_> = (0..count - count * 3 / 10).map(|_| network.add()).collect();
        let first = network.nodes.len();
        let add = |_| {
            if one_host && network.nodes.len() > first {
                network.add_at_host(first)
            } else {
                network.add()
            }
        };
        let hostile = (first..count).map(add).collect();
        Self { network, honest, hostile, said: Vec::new() }
    }

    /// Starts a node. A hostile one takes as many neighbors as it can.
    fn boot(&mut self, number: usize) {
        let mut config = Config::default();
        config.expiration = Some(config.expiration_among(nodes()));
        if self.hostile.contains(&number) {
            config.neighbors = 32;
        }
        let bootstrap: Vec<_> =
            [0, 1, self.hostile[0]].into_iter().filter(|b| *b != number).collect();
        self.network.boot(number, config, &bootstrap);
    }

    fn everybody(&self) -> Vec<usize> {
        self.honest.iter().chain(&self.hostile).copied().collect()
    }

    /// A swarm whose members know each other.
    fn warm(seed: u64, one_host: bool) -> Self {
        let mut swarm = Self::new(seed, one_host);
        swarm.everybody().into_iter().for_each(|number| swarm.boot(number));
        swarm.network.preload();
        swarm.network.run_for(S * 60);
        swarm
    }

    /// All nodes start within 5 s.
    fn cold(seed: u64) -> Self {
        let mut swarm = Self::new(seed, false);
        let mut everybody = swarm.everybody();
        // Honest and hostile ones in turn.
        everybody.sort_by_key(|number| (number * 7919) % nodes());
        let apart = S * 5 / u32::try_from(nodes()).unwrap();
        for number in everybody {
            swarm.boot(number);
            swarm.network.run_for(apart);
        }
        swarm
    }

    fn turn(&mut self, malice: impl Fn(usize, &Self) -> Malice) {
        for (index, number) in self.hostile.clone().into_iter().enumerate() {
            let malice = malice(index, self);
            self.network.turn(number, malice);
        }
    }

    fn contact(&self, number: usize) -> (EndpointId, Vec<TransportAddr>) {
        let node = &self.network.nodes[number];
        (node.id, node.own.as_ref().unwrap().addresses.clone())
    }

    /// The hostile nodes keep back all broadcasts, and besiege these members.
    fn besiege(&mut self, targets: &[usize], silence: Silence, besieges_only: bool) {
        self.turn(|index, swarm| {
            let all =
                targets.iter().cycle().skip(index * BESIEGED).take(BESIEGED.min(targets.len()));
            Malice {
                silence,
                besieged: all.map(|target| swarm.contact(*target)).collect(),
                every: S * 5,
                besieges_only,
            }
        });
    }

    fn keep_back(&mut self, silence: Silence) {
        self.turn(|_, _| Malice { silence, ..Malice::default() });
    }

    fn sent(&mut self) -> Sent {
        self.network.sent();
        let mut all = Sent::default();
        self.honest.iter().for_each(|number| all += self.network.sent_by(*number));
        all
    }

    /// These authors broadcast in turn for a time.
    fn broadcast(&mut self, authors: &[usize], time: Duration) -> Figures {
        let (before, began) = (self.sent(), self.network.elapsed());
        let first = self.said.len();
        let end = began + time;
        while self.network.elapsed() < end {
            let author = authors[self.said.len() % authors.len()];
            let data = Bytes::from(format!("broadcast {}", self.said.len()));
            self.said.push(Said { at: self.network.elapsed(), author, data: data.clone() });
            self.network.command(author, |topic| InEvent::Broadcast(topic, None, data));
            self.network.run_for(APART);
        }
        let sent = self.sent() - before;
        // What is late is delivered all the same.
        self.network.run_for(S * 5);
        self.figures(first, sent, time)
    }

    #[allow(clippy::cast_precision_loss, reason = "figures to be read")]
    fn figures(&self, first: usize, sent: Sent, time: Duration) -> Figures {
        let said = &self.said[first..];
        let number_of: BTreeMap<_, _> =
            said.iter().enumerate().map(|(number, said)| (&said.data, number)).collect();
        let mut got = vec![BTreeSet::new(); self.network.nodes.len()];
        let mut delays = Vec::new();
        for emitted in &self.network.observed.log {
            let TopicEvent::Broadcast { data, .. } = &emitted.event else { continue };
            let Some(number) = number_of.get(data) else { continue };
            if emitted.node >= self.honest.len() {
                continue;
            }
            got[emitted.node].insert(*number);
            delays.push(emitted.at.saturating_sub(said[*number].at));
        }
        delays.sort_unstable();
        let arrived =
            |number: usize| self.honest.iter().filter(|n| got[**n].contains(&number)).count();
        let others = self.honest.len() - 1;
        let mut by_author: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, said) in said.iter().enumerate() {
            by_author.entry(said.author).or_default().push(arrived(number));
        }
        let share =
            |all: &[usize]| all.iter().sum::<usize>() as f64 * 100.0 / (all.len() * others) as f64;
        let least = |shares: &mut dyn Iterator<Item = f64>| shares.fold(100.0, f64::min);
        let of_others = |node: usize| said.iter().filter(|said| said.author != node).count();
        let received = |node: &usize| got[*node].len() as f64 * 100.0 / of_others(*node) as f64;
        let missed: Vec<_> =
            self.honest.iter().map(|node| longest_gap(said, *node, &got[*node])).collect();
        let cut: Vec<_> = missed.into_iter().filter(|gap| *gap >= CUT_OFF).collect();
        let views: Vec<_> = self.honest.iter().map(|node| self.honest_neighbors(*node)).collect();
        let per = |count: u64| count as f64 / self.honest.len() as f64 / time.as_secs_f64();
        Figures {
            delivered: delays.len() as f64 * 100.0 / (said.len() * others) as f64,
            worst: [
                least(&mut by_author.values().map(|all| share(all))),
                least(&mut self.honest.iter().map(received)),
            ],
            delays: [50, 99]
                .map(|part| delays.get(delays.len() * part / 100).copied().unwrap_or_default()),
            cut_off: (cut.len(), cut.into_iter().max().unwrap_or_default()),
            neighbors: (
                views.iter().copied().min().unwrap(),
                views.iter().sum::<usize>() as f64 / views.len() as f64,
            ),
            cost: (per(sent.wire_bytes), per(sent.dials) * 60.0),
        }
    }

    fn honest_neighbors(&self, node: usize) -> usize {
        self.network.neighbors(node).iter().filter(|other| self.honest.contains(other)).count()
    }

    /// Measures an attack: without it, while the overlay reacts, and after that. Returns the last.
    fn measure(mut self, name: &str, authors: &[usize], attack: impl FnOnce(&mut Self)) -> Figures {
        let calm = self.broadcast(authors, CALM);
        println!("| {name} | before | {calm} |");
        attack(&mut self);
        self.attacked(name, authors)
    }

    fn attacked(mut self, name: &str, authors: &[usize]) -> Figures {
        println!("| {name} | at first | {} |", self.broadcast(authors, REACTION));
        let then = self.broadcast(authors, MEASURED);
        let lost = self.network.observed.wrongly_lost.len();
        println!("| {name} | then | {then} |; living nodes lost: {lost}");
        let mut dropped: BTreeMap<&str, u64> = BTreeMap::new();
        for number in &self.honest {
            for (what, count) in &self.network.nodes[*number].dropped {
                *dropped.entry(what).or_default() += count;
            }
        }
        println!("{name}: worst {:.1?}, dropped {dropped:?}", then.worst);
        assert_eq!(lost, 0, "{name}: {:?}", self.network.observed.wrongly_lost);
        assert!(self.network.failures.is_empty(), "{name}: {}", self.network.failures[0]);
        then
    }
}

/// Returns the longest time in which a node got none of the broadcasts of others.
fn longest_gap(said: &[Said], node: usize, got: &BTreeSet<usize>) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None);
    for (number, said) in said.iter().enumerate().filter(|(_, said)| said.author != node) {
        if got.contains(&number) {
            since = None;
        } else {
            let begun = *since.get_or_insert(said.at);
            longest = longest.max((said.at + APART).saturating_sub(begun));
        }
    }
    longest
}

/// After the overlay had time to react, honest broadcasts arrive and no honest node is cut off.
/// Among 1,000 nodes a few have hostile neighbors alone.
fn holds(figures: &Figures) {
    assert!(figures.delivered >= 96.0, "{figures}");
    assert!(figures.cut_off.0 * 20 <= nodes(), "{figures}");
}

/// The attack harms, as docs/security.md says. At least this share of honest broadcasts arrives.
fn arrives(figures: &Figures, percent: f64) {
    assert!(figures.delivered >= percent, "{figures}");
}

#[test]
fn a_member_that_all_hostile_ones_besiege_hears_and_is_heard() {
    let swarm = Swarm::warm(1, false);
    let target = swarm.honest[5];
    let authors = [target, swarm.honest[9], target, swarm.honest[20]];
    holds(&swarm.measure("eclipse of one", &authors, |swarm| {
        swarm.besiege(&[target], Silence::OfAll, true);
    }));
}

#[test]
fn besieged_members_hear_each_other() {
    let swarm = Swarm::warm(2, false);
    let all = swarm.honest.clone();
    arrives(
        &swarm.measure("eclipse of all", &all, |swarm| {
            swarm.besiege(&all, Silence::OfAll, true);
        }),
        60.0,
    );
}

#[test]
fn besieged_publishers_are_heard() {
    let swarm = Swarm::warm(3, false);
    let authors: Vec<_> = swarm.honest.iter().copied().step_by(10).take(20).collect();
    arrives(
        &swarm.measure("eclipse of publishers", &authors, |swarm| {
            swarm.besiege(&authors, Silence::OfAll, true);
        }),
        80.0,
    );
}

#[test]
fn an_author_whose_broadcasts_hostile_members_keep_back_is_heard() {
    let swarm = Swarm::warm(4, false);
    let target = swarm.honest[5];
    let silence = Silence::Of(swarm.network.nodes[target].id);
    holds(&swarm.measure("censorship", &[target], |swarm| {
        swarm.besiege(&[target], silence, false);
    }));
}

#[test]
fn broadcasts_that_hostile_members_only_announce_arrive() {
    let swarm = Swarm::warm(5, false);
    let all = swarm.honest.clone();
    holds(&swarm.measure("degradation", &all, |swarm| {
        swarm.keep_back(Silence::AnnouncedOnly);
    }));
}

#[test]
fn members_that_start_among_silent_ones_find_each_other() {
    let mut swarm = Swarm::cold(6);
    swarm.keep_back(Silence::OfAll);
    let all = swarm.honest.clone();
    swarm.network.run_for(S * 5);
    arrives(&swarm.attacked("cold boot", &all), 60.0);
}

#[test]
fn members_that_all_fall_silent_at_once_are_replaced() {
    let swarm = Swarm::warm(7, false);
    let all = swarm.honest.clone();
    holds(&swarm.measure("covert flash", &all, |swarm| swarm.keep_back(Silence::OfAll)));
}

#[test]
fn members_that_are_besieged_soon_after_their_start_lose_no_living_member() {
    let swarm = Swarm::cold(8);
    let all = swarm.honest.clone();
    // Too young neighbors give way to all that ask: broadcasts fail, and membership holds.
    swarm.measure("attack at dawn", &all, |swarm| swarm.besiege(&all, Silence::OfAll, true));
}

#[test]
fn members_that_one_host_besieges_hear_each_other() {
    let swarm = Swarm::warm(9, true);
    let all = swarm.honest.clone();
    arrives(
        &swarm.measure("one IP", &all, |swarm| {
            swarm.besiege(&all, Silence::OfAll, true);
        }),
        60.0,
    );
}
