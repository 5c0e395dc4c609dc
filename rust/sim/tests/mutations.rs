//! The checks can fail: with a rule of the protocol off, one of the seeds fails. With the rule on,
//! the same seed passes.

use iroh_gossip_discovery_proto::Rule;
use iroh_gossip_discovery_sim::scenario::{Options, Scenario, run};

const SEEDS: u64 = 200;

fn failure(scenario: &Scenario, disabled_rule: Option<Rule>) -> Option<String> {
    let options = Options { fail_fast: true, disabled_rule, ..Options::default() };
    let report = run(scenario, options, &mut |_| true).expect("a valid one");
    report.failures.into_iter().next()
}

fn caught(rule: Rule, scenario: impl Fn(u64) -> Scenario) {
    let found = (0..SEEDS).map(scenario).find_map(|scenario| {
        let failure = failure(&scenario, Some(rule))?;
        // A failure that also happens with the rule on says nothing about the rule.
        self::failure(&scenario, None).is_none().then_some(failure)
    });
    println!("{rule:?}: {found:?}");
    assert!(found.is_some(), "nothing noticed that {rule:?} was off in {SEEDS} seeds");
}

fn parsed(seed: u64, text: &str) -> Scenario {
    Scenario { seed, ..Scenario::parse(text).expect("a valid one") }
}

fn random(seed: u64) -> Scenario {
    Scenario::random(seed, 12)
}

/// Nodes that hear nothing accuse all others, and these refute.
fn deaf(seed: u64) -> Scenario {
    let text = r#"
        nodes = 12
        warmup = "30s"
        duration = "60s"
        expect = { nobody_lost = true }
        [[fault]]
        at = "1s"
        lossy = 2
        loss = 1.0
        way = "in"
        for = "20s"
    "#;
    parsed(seed, text)
}

/// Two parts that know each other only from their books.
fn parted(seed: u64) -> Scenario {
    let text = include_str!("../scenarios/partition.toml");
    Scenario { nodes: 12, ..parsed(seed, text) }
}

/// Two nodes that know each other start again, and dial each other at once.
fn face_to_face(seed: u64) -> Scenario {
    let text = r#"
        nodes = 2
        warmup = "10s"
        expect = { dials = 2 }
        [[fault]]
        at = "1s"
        restart = 2
        for = "1s"
    "#;
    parsed(seed, text)
}

/// A change that all nodes have to know sooner than a comparison of books would bring it.
fn updated(seed: u64) -> Scenario {
    let text = r#"
        nodes = 12
        warmup = "30s"
        [[fault]]
        at = "1s"
        update = 1
        within = "80ms"
    "#;
    parsed(seed, text)
}

/// The nodes that suspect a paused node are paused themselves while it refutes.
fn paused(seed: u64) -> Scenario {
    let text = r#"
        nodes = 12
        warmup = "30s"
        expect = { nobody_lost = true }
        [[fault]]
        at = "1s"
        pause = 4
        for = "4500ms"
        [[fault]]
        at = "5s"
        pause = 8
        for = "4s"
    "#;
    parsed(seed, text)
}

macro_rules! controls {
    ($($name:ident: $rule:ident in $scenario:ident,)*) => {
        $(#[test] fn $name() { caught(Rule::$rule, $scenario); })*
    };
}

controls! {
    tombstones: Tombstones in random,
    refutation: Refutation in deaf,
    suspicion_floor: SuspicionFloor in random,
    equal_sequences: EqualSequences in random,
    dissemination: Dissemination in updated,
    reconciliation: Reconciliation in random,
    healing: Healing in parted,
    bootstrap_memory: BootstrapMemory in random,
    unconfirmed: Unconfirmed in random,
    link_tie_break: LinkTieBreak in face_to_face,
    reprobe_after_pause: ReprobeAfterPause in paused,
}
