//! A model of three nodes: the real states, and everything that a few faults may do to them.
//!
//! The explorer tries every fault before every event, and other orders of what arrives.
//! `cargo test` takes one fault at a time; `make model` takes more.

mod explore;
mod properties;
mod world;

use std::{env, sync::Arc, time::Duration};

use iroh_gossip_discovery_proto::{Rule, Verified};
use tokio::time::Instant;

use self::{
    explore::{Explorer, Figures},
    world::{Failure, World},
};

/// What the explorer may do.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// The most faults of one run.
    faults: u32,
    /// How often a frame overtakes all others, after the first fault.
    overtakes: u32,
    /// The first fault comes within this time from the end of the formation.
    first: Duration,
    /// Each further fault comes within this time after the one before it.
    then: Duration,
    /// The rule of the protocol that is off.
    without: Option<Rule>,
    /// Nodes begin each life with the same sequence number, as if their disk kept nothing.
    forgetful: bool,
    /// The names of the only faults. All, if it is empty.
    only: Vec<String>,
    /// Print each event.
    verbose: bool,
}

impl Bounds {
    /// Returns true if the explorer may do this.
    fn allow(&self, act: &str) -> bool {
        let name = act.split('(').next().unwrap_or(act);
        self.only.is_empty() || name == "GoOn" || self.only.iter().any(|only| only == name)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        let first = Duration::from_secs(2);
        let then = Duration::from_secs(10);
        Self {
            faults: 1,
            overtakes: 0,
            first,
            then,
            without: None,
            forgetful: false,
            only: Vec::new(),
            verbose: false,
        }
    }
}

/// Explores, prints how much it was, and returns the first failure of a property.
fn explore(bounds: &Bounds, property: &str, limit: Duration) -> (Figures, Option<Failure>) {
    let mut explorer = Explorer::default();
    let (verified, began) = (Arc::new(Verified::default()), Instant::now());
    let outcome = explorer.explore(limit, |explorer| {
        match World::new(bounds, explorer, &verified, began).run() {
            Err(failure) if failure.contains(property) => Err(failure),
            Err(_) => Ok(true),
            Ok(whole) => Ok(whole),
        }
    });
    let figures = explorer.figures;
    println!("{bounds:?}: {figures:?} in {:.1} s", began.elapsed().as_secs_f64());
    (figures, outcome.err())
}

/// Returns true if there was time to try everything. Fails if a property does not hold.
fn holds(bounds: &Bounds, limit: Duration) -> bool {
    let (figures, failure) = explore(bounds, "", limit);
    assert_eq!(failure, None);
    figures.complete
}

/// Fails if the explorer finds nothing that breaks a property.
fn breaks(property: &str, bounds: &Bounds) {
    let (_, failure) = explore(bounds, property, Duration::MAX);
    println!("{failure:?}");
    assert!(failure.is_some(), "nothing breaks {property:?}");
}

fn without(rule: Rule) -> Bounds {
    Bounds { without: Some(rule), ..Bounds::default() }
}

#[test]
fn a_verdict_without_time_to_refute_is_false() {
    breaks("no false verdict", &without(Rule::SuspicionFloor));
}

#[test]
fn sequence_numbers_that_no_disk_keeps_do_not_rise() {
    let forgetful = Bounds { forgetful: true, ..Bounds::default() };
    breaks("sequences rise: announced", &forgetful);
}

#[test]
fn records_that_may_be_equal_do_not_rise() {
    breaks("sequences rise: told", &without(Rule::EqualSequences));
}

#[test]
fn a_node_returns_by_an_old_record_without_tombstones() {
    breaks("nobody returns by an old record", &without(Rule::Tombstones));
}

#[test]
fn books_do_not_converge_without_refutations() {
    breaks("convergence after quiet", &without(Rule::Refutation));
}

/// One fault at a time, or what the environment says: see `make model` and docs/simulator.md.
#[test]
fn no_faults_break_a_property() {
    let number = |name: &str, default: u64| {
        env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let list = |name: &str| {
        let value = env::var(name).ok().filter(|value| !value.is_empty())?;
        Some(value.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>())
    };
    let bounds = Bounds {
        faults: u32::try_from(number("FAULTS", 1)).expect("a small number"),
        overtakes: u32::try_from(number("OVERTAKES", 0)).expect("a small number"),
        first: Duration::from_secs(number("FIRST", 2)),
        then: Duration::from_secs(number("THEN", 10)),
        only: list("ONLY").unwrap_or_default(),
        ..Bounds::default()
    };
    if let Some(choices) = list("CHOICES") {
        let choices: Vec<_> =
            choices.iter().map(|choice| choice.parse().expect("a number")).collect();
        let bounds = Bounds { verbose: true, ..bounds };
        let mut explorer = Explorer::repeating(&choices);
        let verified = Arc::new(Verified::default());
        println!("{:?}", World::new(&bounds, &mut explorer, &verified, Instant::now()).run());
        return;
    }
    let limit = Duration::from_secs(60 * number("MINUTES", 60));
    assert!(holds(&bounds, limit), "the time is over before everything is tried");
}
