//! The timeline of a scenario: when each action starts, which nodes it hits, and when it ends.

use std::{collections::BTreeMap, time::Duration};

use iroh_gossip_discovery_proto::{InEvent, Profile};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng, seq::IndexedRandom};

use super::{
    Action, Fault, From, Kind, NodeSelector, Scenario, Way,
    report::Figure,
    watch::{Knowledge, Watch},
};
use crate::{
    hostile::{Mirror, Mute},
    network::{Memory, Network},
};

/// Microseconds in a second: wall clocks are off by whole microseconds.
const MICROS: f64 = 1e6;

#[derive(Debug)]
enum Step {
    Start(usize),
    Fault(usize),
    /// A fault happens again to the same nodes. With how often it happened before.
    Again(usize, Vec<usize>, u32),
    /// The end of a fault, with the nodes that it hit.
    Ends(usize, Vec<usize>),
}

pub(super) struct Timeline {
    steps: BTreeMap<(Duration, usize), Step>,
    count: usize,
    rng: ChaCha12Rng,
    starting: usize,
    cloned: Vec<usize>,
    updates: u64,
}

impl Timeline {
    pub(super) fn new(scenario: &Scenario, network: &mut Network) -> Self {
        let mut timeline = Self::empty(scenario);
        timeline.starting = scenario.nodes;
        for _ in 0..scenario.nodes {
            let number = timeline.add(scenario, network);
            let share = f64::from(u32::try_from(number).unwrap_or(u32::MAX))
                / f64::from(u32::try_from(scenario.nodes).unwrap_or(u32::MAX));
            let mut at = scenario.start.over.0.mul_f64(share);
            if number == 0 {
                at += scenario.start.first_after.0;
            }
            timeline.push(at, Step::Start(number));
        }
        timeline.push_faults(scenario);
        timeline
    }

    /// The timeline of a network in which all nodes were started before.
    pub(super) fn of_faults(scenario: &Scenario) -> Self {
        let mut timeline = Self::empty(scenario);
        timeline.push_faults(scenario);
        timeline
    }

    fn empty(scenario: &Scenario) -> Self {
        // A generator of its own, so that events of the network don't change which nodes a fault
        // hits.
        let rng = ChaCha12Rng::seed_from_u64(!scenario.seed);
        let (cloned, steps) = (Vec::new(), BTreeMap::new());
        Self { steps, count: 0, rng, starting: 0, cloned, updates: 0 }
    }

    fn push_faults(&mut self, scenario: &Scenario) {
        for (number, fault) in scenario.faults.iter().enumerate() {
            self.push(scenario.warmup.0 + fault.at.0, Step::Fault(number));
        }
    }

    fn add(&mut self, scenario: &Scenario, network: &mut Network) -> usize {
        let number = network.add();
        let skew = scenario.clock_skew.0.as_secs_f64();
        if skew > 0.0 {
            #[allow(clippy::cast_possible_truncation)] // A hundred years in microseconds fit.
            let offset = (self.rng.random_range(-skew..skew) * MICROS) as i64;
            network.nodes[number].clock_offset = offset;
        }
        number
    }

    fn push(&mut self, at: Duration, step: Step) {
        self.count += 1;
        self.steps.insert((at, self.count), step);
    }

    /// Returns the time of the next action.
    pub(super) fn next(&self) -> Option<Duration> {
        self.steps.keys().next().map(|(at, _)| *at)
    }

    /// Returns the nodes that share a key.
    pub(super) fn cloned(&self) -> &[usize] {
        &self.cloned
    }

    /// Takes the action that is due, and returns what to measure from now on.
    pub(super) fn act(&mut self, scenario: &Scenario, network: &mut Network) -> Option<Watch> {
        let ((at, _), step) = self.steps.pop_first()?;
        match step {
            Step::Start(number) => {
                let bootstrap = self.first_bootstrap(scenario, number);
                let mut config = scenario.protocol_of(number);
                if scenario.start.known {
                    config.expiration = Some(config.expiration_among(scenario.nodes));
                }
                network.boot(number, config, &bootstrap);
                self.starting -= 1;
                if self.starting == 0 && scenario.start.known {
                    network.preload();
                }
                (self.starting == 0).then(|| {
                    let within = scenario.expect.converged.map(|span| span.0);
                    watch("start", None, Vec::new(), at, within)
                })
            }
            Step::Fault(number) => {
                let action = scenario.faults[number].action()?;
                let nodes = self.nodes_of(scenario, network, &action);
                self.strike(scenario, network, (number, nodes, 0), at)
            }
            Step::Again(number, nodes, before) => {
                self.strike(scenario, network, (number, nodes, before), at)
            }
            Step::Ends(number, nodes) => {
                let fault = &scenario.faults[number];
                let action = fault.action()?;
                match action {
                    Action::Partition(_) | Action::Mute(_) => network.heal(),
                    Action::Lossy(..) => network.end_losses(&nodes),
                    Action::Blackhole(_) => network.close_black_hole(&nodes),
                    _ => self.end(scenario, network, &action, &nodes),
                }
                Some(of_fault(number, fault, &action, nodes, at))
            }
        }
    }

    /// Lets a fault happen to these nodes, after it happened `before` times.
    fn strike(
        &mut self,
        scenario: &Scenario,
        network: &mut Network,
        (number, nodes, before): (usize, Vec<usize>, u32),
        at: Duration,
    ) -> Option<Watch> {
        let fault = &scenario.faults[number];
        let action = fault.action()?;
        self.begin(network, fault, &action, &nodes);
        let over = !ends_later(fault, &action);
        if over {
            self.end(scenario, network, &action, &nodes);
        } else {
            let end = at + fault.lasts.unwrap_or_default().0;
            self.push(end, Step::Ends(number, nodes.clone()));
        }
        if let Some(every) = fault.every.filter(|_| before + 1 < fault.times.unwrap_or(1)) {
            self.push(at + every.0, Step::Again(number, nodes.clone(), before + 1));
        }
        over.then(|| of_fault(number, fault, &action, nodes, at))
    }

    fn first_bootstrap(&mut self, scenario: &Scenario, number: usize) -> Vec<usize> {
        match (number, scenario.start.from) {
            (0, _) | (_, From::Nobody) => Vec::new(),
            (_, From::First) => vec![0],
            (_, From::Previous) => vec![number - 1],
            (_, From::Random) => vec![self.rng.random_range(0..number)],
        }
    }

    /// Returns the bootstrap peers of a node that starts later: the first node, and another one
    /// that is up and within reach.
    fn later_bootstrap(&mut self, network: &Network, number: usize) -> Vec<usize> {
        let cuts = network.transport.cuts();
        let mut up = network.up();
        up.retain(|other| *other != number && cuts.group(*other) == cuts.group(number));
        let mut bootstrap: Vec<usize> = up.choose(&mut self.rng).copied().into_iter().collect();
        if number != 0 && !bootstrap.contains(&0) {
            bootstrap.push(0);
        }
        bootstrap
    }

    /// Chooses the nodes that a fault hits.
    fn choose(&mut self, selector: &NodeSelector, network: &Network) -> Vec<usize> {
        let able = |number: &usize| {
            let node = &network.nodes[*number];
            node.is_honest() && !node.leaving && !network.transport.is_paused(*number)
        };
        let all: Vec<usize> = (0..network.nodes.len()).filter(able).collect();
        let count = match selector {
            NodeSelector::These(numbers) => {
                return numbers.iter().copied().filter(|number| all.contains(number)).collect();
            }
            NodeSelector::Count(count) => *count,
            NodeSelector::Share(share) => {
                let all = f64::from(u32::try_from(all.len()).unwrap_or(u32::MAX));
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // At most all.
                let count = (share * all).round() as usize;
                count.max(1)
            }
        };
        let mut chosen: Vec<usize> = all.sample(&mut self.rng, count).copied().collect();
        chosen.sort_unstable();
        chosen
    }

    /// Returns the nodes that an action hits, which are new ones for some.
    fn nodes_of(
        &mut self,
        scenario: &Scenario,
        network: &mut Network,
        action: &Action,
    ) -> Vec<usize> {
        match action {
            Action::Join(count) => (0..*count).map(|_| self.add(scenario, network)).collect(),
            Action::Hostile(_, count) => (0..*count).map(|_| network.add()).collect(),
            _ => {
                action.selector().map(|selector| self.choose(selector, network)).unwrap_or_default()
            }
        }
    }

    fn begin(&mut self, network: &mut Network, fault: &Fault, action: &Action, nodes: &[usize]) {
        match action {
            Action::Partition(_) => network.partition(&[nodes.to_vec()]),
            Action::Mute(_) => network.mute(nodes),
            Action::Lossy(_, loss, way) => {
                let share = |not: Way| if *way == not { 0.0 } else { *loss };
                network.make_lossy(nodes, share(Way::Out), share(Way::In));
            }
            Action::Blackhole(_) => network.open_black_hole(nodes),
            _ => {}
        }
        for number in nodes.iter().copied() {
            match action {
                Action::Crash(_) => network.crash(number),
                Action::Restart(_) | Action::Wipe(_) | Action::Rekey(_)
                    if fault.lasts.is_some() =>
                {
                    network.crash(number);
                }
                Action::Leave(_) => network.command(number, InEvent::Leave),
                Action::Pause(_) => network.pause(number),
                Action::Update(_) => self.update(network, number),
                _ => {}
            }
        }
    }

    /// Does what follows when a fault is over, or at once if it does not last.
    fn end(
        &mut self,
        scenario: &Scenario,
        network: &mut Network,
        action: &Action,
        nodes: &[usize],
    ) {
        match action {
            Action::Pause(_) => {
                for number in nodes {
                    network.resume(*number);
                }
            }
            Action::Restart(_) | Action::Wipe(_) | Action::Rekey(_) => {
                for number in nodes {
                    let bootstrap = self.later_bootstrap(network, *number);
                    match action {
                        Action::Restart(_) => network.restart(*number, Memory::Kept, &bootstrap),
                        Action::Wipe(_) => network.restart(*number, Memory::Lost, &bootstrap),
                        _ => network.rekey(*number, &bootstrap),
                    }
                }
            }
            Action::Join(_) => {
                for number in nodes {
                    let bootstrap = self.later_bootstrap(network, *number);
                    network.boot(*number, scenario.protocol(), &bootstrap);
                }
            }
            Action::Clone(_) => {
                for number in nodes {
                    let bootstrap = self.later_bootstrap(network, *number);
                    let clone = network.add_clone(*number);
                    self.cloned.extend([*number, clone]);
                    network.boot(clone, scenario.protocol(), &bootstrap);
                }
            }
            Action::Hostile(kind, _) => {
                for number in nodes {
                    match kind {
                        Kind::Mute => network.start_hostile(*number, Box::new(Mute)),
                        Kind::Mirror => {
                            network.start_hostile(*number, Box::new(Mirror::default()));
                        }
                    }
                }
            }
            Action::Network(section) => section.apply(&mut network.conditions),
            Action::Heal => network.heal(),
            _ => {}
        }
    }

    fn update(&mut self, network: &mut Network, number: usize) {
        self.updates += 1;
        let mut profile = Profile::new(format!("node-{number}"));
        profile.metadata.insert("update".to_owned(), self.updates.to_string());
        network.command(number, |topic| InEvent::SetProfile(topic, profile));
    }
}

/// Returns true if a fault needs an action at its end.
fn ends_later(fault: &Fault, action: &Action) -> bool {
    let may = matches!(
        action,
        Action::Pause(_) | Action::Restart(_) | Action::Wipe(_) | Action::Rekey(_)
    );
    fault.lasts.is_some() && (may || action.cuts())
}

fn of_fault(
    number: usize,
    fault: &Fault,
    action: &Action,
    nodes: Vec<usize>,
    at: Duration,
) -> Watch {
    let spread = matches!(
        action,
        Action::Join(_)
            | Action::Leave(_)
            | Action::Restart(_)
            | Action::Wipe(_)
            | Action::Rekey(_)
            | Action::Update(_)
    );
    let mut watch = watch(action.name(), Some(number), nodes, at, fault.within.map(|span| span.0));
    if spread {
        let nodes = watch.figure.nodes.iter();
        watch.unknown =
            nodes.flat_map(|node| [Knowledge::It(*node), Knowledge::All(*node)]).collect();
    }
    watch
}

fn watch(
    what: &'static str,
    fault: Option<usize>,
    nodes: Vec<usize>,
    since: Duration,
    within: Option<Duration>,
) -> Watch {
    let within_s = within.map(|within| within.as_secs_f64());
    let at_s = since.as_secs_f64();
    let figure = Figure { what, fault, nodes, at_s, took_s: None, known_s: None, within_s };
    Watch { figure, since, within, unknown: Vec::new() }
}
