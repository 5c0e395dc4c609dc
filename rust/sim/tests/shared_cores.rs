//! Nodes that share cores: work takes time, waits for a free core, and is counted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use iroh_gossip_discovery_sim::scenario::{Error, Options, Report, Scenario, run};

fn report(cpu: &str, expect: &str) -> Report {
    let text = format!("nodes = 30\npreset = \"local\"\nduration = \"5s\"\n{cpu}\n{expect}");
    run(&Scenario::parse(&text).unwrap(), Options::default(), &mut |_| true).unwrap()
}

const COSTS: &str = "handshake = \"800us\"\nverify = \"35us\"\nframe = \"55us\"";

#[test]
fn work_that_costs_nothing_changes_nothing() {
    let free = report("[cpu]\ncores = 1", "");
    assert_eq!(free.trace, report("", "").trace);
    assert!(free.start_work.unwrap().cpu_s.abs() < f64::EPSILON);
}

#[test]
fn nodes_that_share_one_core_wait_for_each_other() {
    let alone = report(&format!("[cpu]\ncores = 1\nnodes = 1\n{COSTS}"), "");
    let shared = report(&format!("[cpu]\ncores = 1\n{COSTS}"), "");
    let took = |report: &Report| report.figures[0].took_s.unwrap();
    assert!(took(&shared) > 2.0 * took(&alone), "{} and {}", took(&shared), took(&alone));
    let work = shared.start_work.unwrap();
    assert!(work.cpu_s <= took(&shared) + 0.01, "one core worked for {} s", work.cpu_s);
    // The least work: the handshakes at both ends of each link, and every record at every other
    // node.
    let least = 30.0 * 29.0 * 35e-6 + 29.0 * 2.0 * 800e-6;
    assert!(work.cpu_s > least, "{} s of {least}", work.cpu_s);
}

#[test]
fn an_expectation_of_the_work_to_converge_can_fail() {
    let most = |most: &str| {
        let keys = ["dials_to_converge", "syncs_to_converge", "dials_once_converged"];
        report("", &keys.map(|key| format!("expect.{key} = {most}\n")).concat())
    };
    assert_eq!(most("29").failures, [""; 0]);
    let checks: Vec<_> = most("0").failed.iter().map(|failure| failure.check).collect();
    assert_eq!(checks, ["cheap enough"; 3]);
}

#[test]
fn costs_without_cores_are_an_error_that_names_the_key() {
    let parsed = Scenario::parse("[cpu]\nverify = \"35us\"");
    assert!(matches!(parsed, Err(Error::Invalid { key, .. }) if key == "cpu.cores"));
}

#[test]
fn a_frame_waits_at_each_task_of_its_node_and_a_timer_at_one() {
    let of_tasks = |tasks: usize, turn: &str| {
        report(&format!("[cpu]\ncores = 1\n{COSTS}\ntasks = {tasks}\n{turn}"), "")
    };
    let (one, three) = (of_tasks(1, ""), of_tasks(3, ""));
    let more = three.steps.saturating_sub(one.steps);
    assert!(more > one.steps / 4, "{} steps with three tasks, {} with one", three.steps, one.steps);
    assert_eq!(of_tasks(0, "").trace, one.trace, "without tasks there is one");
    let turns = of_tasks(3, "turn = \"5ms\"");
    assert_ne!(turns.trace, three.trace, "a turn of more than one event");
}

#[test]
fn tasks_over_the_limit_are_an_error_that_names_the_key() {
    let parsed = Scenario::parse("[cpu]\ncores = 1\ntasks = 65");
    assert!(matches!(parsed, Err(Error::Invalid { key, .. }) if key == "cpu.tasks"));
}
