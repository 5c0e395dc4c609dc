//! Scenarios as data: the shipped ones hold, what is wrong in one is named, and the same seed gives the
//! same trace in another process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

use iroh_gossip_discovery_sim::scenario::{Options, Report, Scenario, Warm, run};

fn folder(name: &str) -> Vec<(String, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let (name, text) = (path.display().to_string(), fs::read_to_string(path).unwrap());
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, scenario)
    };
    paths.iter().map(read).collect()
}

fn report(scenario: &Scenario) -> Report {
    run(scenario, Options::default(), &mut |_| true).unwrap()
}

#[test]
fn shipped_scenarios_hold() {
    let all = folder("scenarios");
    assert!(all.len() >= 8);
    let mut failures = Vec::new();
    for (path, scenario) in all {
        for seed in 0..3 {
            let report = report(&Scenario { seed, ..scenario.clone() });
            failures.extend(report.failures.iter().map(|text| format!("{path}: {text}")));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn regressions_hold() {
    let all = folder("regressions");
    assert!(all.len() >= 3);
    for (path, scenario) in all {
        let report = report(&scenario);
        assert!(report.ok, "{path}: {:?}", report.failures);
    }
}

#[test]
fn an_error_names_the_key() {
    let cases = [
        ("nodes = 0", "nodes"),
        ("nodse = 3", "nodse"),
        ("[[fault]]\nat = \"1s\"", "fault[0]"),
        ("[[fault]]\ncrash = 1\nleave = 1", "fault[0]"),
        ("[[fault]]\ncrash = 0", "crash"),
        ("[[fault]]\npause = 1", "fault[0].for"),
        ("[[fault]]\ncrash = 1\nfor = \"1s\"", "fault[0].for"),
        ("[[fault]]\nat = \"soon\"\ncrash = 1", "at"),
        ("[network]\nloss = 1.5", "network.loss"),
        ("[config]\nsuspicion = \"0s\"", "suspicion"),
        ("[start]\nknown = true\nover = \"1s\"", "start.known"),
    ];
    for (text, key) in cases {
        let error = Scenario::parse(text).unwrap_err().to_string();
        assert!(error.contains(key), "{text:?}: {error}");
    }
}

#[test]
fn a_scenario_survives_being_written_and_read() {
    for seed in 0..200 {
        let scenario = Scenario::random(seed, 30);
        assert_eq!(Scenario::parse(&scenario.to_toml()).unwrap(), scenario);
    }
}

#[test]
fn a_run_ends_when_it_is_asked_to() {
    let mut asked = 0;
    let stopped = run(&Scenario::random(1, 30), Options::default(), &mut |_| {
        asked += 1;
        asked < 50
    });
    let stopped = stopped.unwrap();
    assert_eq!((asked, stopped.complete, stopped.ok), (50, false, false));
    assert!(stopped.sent.frames() > 0, "what was seen is told");
}

#[test]
fn a_swarm_that_is_known_from_the_beginning_lives_on_as_any_other() {
    let known = "nodes = 60\nseed = 3\nwarmup = '30s'\nstart = { known = true, from = 'random' }
        expect = { nobody_lost = true }
        fault = [{ at = '1s', update = 3, within = '2s' }, { at = '5s', crash = 2, within = '9s' },
        { at = '20s', join = 2, within = '2s' }, { at = '25s', restart = 2, within = '2s' },
        { at = '30s', leave = 2, within = '2s' }]";
    let report = report(&Scenario::parse(known).unwrap());
    assert!(report.ok, "{:?}", report.failures);
    // Nobody had to be told of the others, but for the two who joined and were told of, to all.
    assert!(report.told["PeerJoined"] < 60 * 59, "{:?}", report.told);
    // And they are one overlay.
    assert!(report.told["NeighbourUp"] > 60 * 3, "{:?}", report.told);
}

#[test]
fn timelines_go_on_from_one_warm_network_each_with_its_own_chance() {
    const BASE: &str = "nodes = 20\nwarmup = '20s'\nduration = '20s'\n";
    let base = Scenario::parse(BASE).unwrap();
    let crash = "[expect]\nnobody_lost = true\n[[fault]]\nat = '1s'\ncrash = 1\nwithin = '8s'";
    let crash = Scenario::parse(&format!("{BASE}{crash}")).unwrap();
    let on = |scenario: &Scenario| {
        let warm = Warm::up(&base, Options::default(), &mut |_| true).unwrap();
        warm.unwrap().run(scenario, &mut |_| true)
    };
    let [first, again, other] =
        [1, 1, 2].map(|seed| on(&Scenario { seed, ..crash.clone() }).unwrap());
    for report in [&first, &other] {
        assert!(report.ok, "{:?}", report.failures);
        assert_eq!((report.figures.len(), report.figures[0].what), (1, "crash"));
        assert!(
            (report.figures[0].at_s - 21.0).abs() < 1e-9 && report.figures[0].took_s > Some(3.0)
        );
        assert!((report.virtual_s - 40.0).abs() < 1e-9 && report.up == 19);
    }
    assert_eq!(first.trace, again.trace);
    assert_ne!(first.figures[0].took_s, other.figures[0].took_s);
    // What is counted is the timeline's alone: less than the start took.
    let idle = on(&base).unwrap();
    let whole = run(
        &Scenario { warmup: "0s".parse().unwrap(), ..base.clone() },
        Options::default(),
        &mut |_| true,
    );
    assert!(idle.ok && idle.rates.wire_bytes * 2.0 < whole.unwrap().rates.wire_bytes);
    for (other, key) in [
        ("nodes = 21\nwarmup = '20s'", "nodes"),
        ("nodes = 20\nwarmup = '21s'", "warmup"),
        ("nodes = 20\nwarmup = '20s'\nconfig = { neighbours = 4 }", "config"),
    ] {
        let error = on(&Scenario::parse(other).unwrap()).unwrap_err().to_string();
        assert!(error.contains(key), "{other:?}: {error}");
    }
    assert!(Warm::up(&base, Options::default(), &mut |_| false).unwrap().is_none());
}

/// This test's own binary is the second process: it runs the test that prints the hash.
#[test]
fn the_same_seed_gives_the_same_trace_in_another_process() {
    let trace = report(&Scenario::random(5, 20)).trace;
    if std::env::var_os("SIM_TRACE_CHILD").is_some() {
        println!("trace={trace}");
        return;
    }
    let name = "the_same_seed_gives_the_same_trace_in_another_process";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("SIM_TRACE_CHILD", "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(output.contains(&format!("trace={trace}")), "{output}");
    assert_ne!(trace, report(&Scenario { seed: 6, ..Scenario::random(5, 20) }).trace);
}
