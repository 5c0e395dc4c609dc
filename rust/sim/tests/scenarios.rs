//! Scenarios as data: the shipped ones pass, an error names its key, and the same seed gives the
//! same trace in another process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use iroh_gossip_discovery_sim::scenario::{EventLine, Options, Report, Scenario, Warm, run};

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
        ("[[fault]]\nlossy = 1", "fault[0].loss"),
        ("[[fault]]\nlossy = 1\nloss = 1.5", "fault[0].loss"),
        ("[[fault]]\ncrash = 1\nloss = 0.5", "fault[0].loss"),
        ("[[fault]]\nmute = 1\nway = 'in'", "fault[0].way"),
        ("[[fault]]\nlossy = 1\nloss = 0.5\nway = 'up'", "way"),
        ("[[fault]]\nblackhole = 1", "fault[0].blackhole"),
        ("[[fault]]\ncrash = 1\ntimes = 2\nevery = '1s'", "fault[0].times"),
        ("[[fault]]\nmute = 1\ntimes = 2\nevery = '1s'", "fault[0].times"),
        ("[[fault]]\nmute = 1\nfor = '1s'\ntimes = 2", "fault[0].times"),
        ("[[fault]]\nmute = 1\nfor = '1s'\nevery = '2s'", "fault[0].times"),
        ("[[fault]]\nmute = 1\nfor = '1s'\ntimes = 1\nevery = '2s'", "fault[0].times"),
        ("[[fault]]\nmute = 1\nfor = '1s'\ntimes = 2\nevery = '1s'", "fault[0].every"),
        ("[network]\nloss = 1.5", "network.loss"),
        ("[network]\nlatency = '2ms'\nlatency_p99 = '1ms'", "network.latency_p99"),
        ("[config]\nsuspicion = \"0s\"", "suspicion"),
        ("[start]\nknown = true\nover = \"1s\"", "start.known"),
    ];
    for (text, key) in cases {
        let error = Scenario::parse(text).unwrap_err().to_string();
        assert!(error.contains(key), "{text:?}: {error}");
    }
}

#[test]
fn an_expectation_that_is_not_met_fails_by_its_name_and_alone() {
    const FOUR: &str = "nodes = 4\nduration = '40s'\n";
    let cases = [
        ("expect = { converged = '40s' }", "expect = { converged = '1ms' }", "right in time"),
        ("warmup = '5s'", "warmup = '1ms'", "right in time"),
        (
            "fault = [{ at = '5s', update = 1, within = '2s' }]",
            "fault = [{ at = '5s', update = 1, within = '1us' }]",
            "right in time",
        ),
        (
            "expect = { nobody_lost = true }\nfault = [{ at = '5s', pause = 1, for = '2s' }]",
            "expect = { nobody_lost = true }\nfault = [{ at = '5s', pause = 1, for = '20s' }]",
            "nobody within reach is lost",
        ),
        (
            "expect = { quiet = false }\nfault = [{ at = '39s', crash = 1 }]",
            "expect = { quiet = true }\nfault = [{ at = '39s', crash = 1 }]",
            "books are equal",
        ),
        (
            "expect = { bytes_per_second = 10_000.0 }",
            "expect = { bytes_per_second = 1.0 }",
            "cheap enough",
        ),
        (
            "expect = { wire_bytes_per_second = 10_000.0 }",
            "expect = { wire_bytes_per_second = 1.0 }",
            "cheap enough",
        ),
        (
            "expect = { lossy_lost = 1 }\n\
             fault = [{ at = '5s', lossy = 1, loss = 1.0, for = '20s' }]",
            "expect = { lossy_lost = 0 }\n\
             fault = [{ at = '5s', lossy = 1, loss = 1.0, for = '20s' }]",
            "a lossy node is lost seldom",
        ),
        (
            "expect = { nobody_suspected = true }\nfault = [{ at = '5s', pause = 1, for = '2s' }]",
            "expect = { nobody_suspected = true }\nfault = [{ at = '5s', pause = 1, for = '9s' }]",
            "nobody is suspected",
        ),
        // The dials of the warm-up do not count.
        ("warmup = '10s'\nexpect = { dials = 0 }", "expect = { dials = 1 }", "cheap enough"),
        (
            "duration = '200s'\nexpect = { conflict = true }\nfault = [{ at = '5s', clone = 1 }]",
            "duration = '5s'\nexpect = { conflict = true, quiet = false }\n\
             fault = [{ at = '5s', clone = 1 }]",
            "conflicts are reported",
        ),
    ];
    for (met, missed, check) in cases {
        let run = |text: &str| {
            let base = if text.contains("duration") { "nodes = 4\n" } else { FOUR };
            report(&Scenario::parse(&format!("{base}{text}")).unwrap())
        };
        let met_report = run(met);
        assert!(met_report.ok, "{met}: {:?}", met_report.failures);
        let missed_report = run(missed);
        let checks: BTreeSet<_> =
            missed_report.failed.iter().map(|failure| failure.check).collect();
        assert!(!missed_report.ok && missed_report.complete);
        assert_eq!(checks, BTreeSet::from([check]), "{missed}: {:?}", missed_report.failures);
    }
}

#[test]
fn fail_fast_ends_a_run_with_its_first_failure() {
    let text = "nodes = 3\nwarmup = '1us'\nfault = [{ at = '5s', update = 1, within = '1us' }]";
    let scenario = Scenario::parse(text).unwrap();
    let with = |fail_fast| {
        let options = Options { fail_fast, ..Options::default() };
        run(&scenario, options, &mut |_| true).unwrap()
    };
    let (first, all) = (with(true), with(false));
    assert_eq!((first.complete, all.complete), (false, true));
    assert!(first.virtual_s < 1.0, "{}", first.virtual_s);
    assert_eq!((first.failures.as_slice(), all.failures.len()), (&all.failures[..1], 2));
}

#[test]
fn a_scenario_whose_end_comes_before_its_expectations_is_refused() {
    let cases = [
        ("duration = '5s'\nfault = [{ at = '6s', crash = 1 }]", "fault[0].at"),
        ("duration = '5s'\nfault = [{ at = '1s', pause = 1, for = '5s' }]", "fault[0].for"),
        (
            "duration = '5s'\nfault = [{}, { at = '1s', restart = 1, for = '1s', within = '4s' }]",
            "fault[1].within",
        ),
        (
            "duration = '50s'\n\
             fault = [{ at = '1s', mute = 1, for = '10s', times = 3, every = '20s' }]",
            "fault[0].for",
        ),
        ("duration = '5s'\nexpect = { converged = '6s' }", "expect.converged"),
        ("nodes = 3\nfault = [{ crash = [1, 3] }]", "fault[0].crash"),
        ("nodes = 3\nfault = [{ mute = [3] }, { at = '1s', join = 1 }]", "fault[0].mute"),
    ];
    for (text, key) in cases {
        let text = text.replace("{}", "{ crash = 1 }");
        let error = Scenario::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key}: ")), "{text:?}: {error}");
    }
    for text in [
        "duration = '5s'\nfault = [{ at = '1s', restart = 1, for = '1s', within = '3s' }]",
        "fault = [{ at = '1s', crash = 1, within = '10m' }]",
        "expect = { converged = '10m' }",
        "nodes = 3\nfault = [{ join = 1 }, { at = '1s', crash = [3] }]",
    ] {
        let scenario = Scenario::parse(text).unwrap();
        let fault = scenario.faults.first().map_or(0.0, |fault| fault.at.0.as_secs_f64());
        let judged = scenario.end().as_secs_f64() - fault;
        assert!(judged >= if text.contains("10m") { 600.0 } else { 4.0 }, "{text:?}");
    }
    let twice = Scenario::parse("fault = [{ leave = [3, 3] }]").unwrap_err().to_string();
    assert!(twice.contains("node 3 stands there twice"), "{twice}");
}

/// Compares `known_s` with the events that the nodes emitted.
#[test]
fn a_change_is_known_once_the_last_node_has_it() {
    let mut heard_last = BTreeSet::new();
    // A book of twelve takes longer to reach a newcomer than the newcomer's record takes to reach
    // all.
    for (nodes, bandwidth) in [(2, 0), (12, 0), (12, 2000)] {
        for seed in 0..5 {
            let text = format!(
                "warmup = '30s'\nfault = [{{ network = {{ bandwidth = {bandwidth} }} }},
                {{ at = '1s', join = 2 }}, {{ at = '20s', leave = 1 }},
                {{ at = '25s', update = 1 }}, {{ at = '30s', crash = 1 }}]"
            );
            let scenario = Scenario { nodes, seed, ..Scenario::parse(&text).unwrap() };
            let options = Options { events: true, ..Options::default() };
            let report = run(&scenario, options, &mut |_| true).unwrap();
            assert!(report.ok, "{:?}", report.failures);
            let [start, calm, join, leave, update, crash] = report.figures.as_slice() else {
                panic!("{:?}", report.figures)
            };
            let is_new = |name: &str| join.nodes.iter().any(|n| name == format!("node-{n}"));
            for (figure, event) in
                [(join, "PeerJoined"), (leave, "PeerLeft"), (update, "PeerUpdated")]
            {
                let since = |line: &&EventLine| line.event == event && line.at_s >= figure.at_s;
                let last = report.events.iter().rfind(since).unwrap();
                let off = (last.at_s - figure.at_s - figure.known_s.unwrap()).abs();
                assert!(off < 1e-9, "{nodes} nodes, seed {seed}: {figure:?}, {last:?}");
                if event == "PeerJoined" {
                    heard_last.insert(is_new(last.peer.as_deref().unwrap()));
                }
            }
            assert_eq!([start, calm, crash].map(|figure| figure.known_s), [None; 3]);
        }
    }
    assert_eq!(heard_last.len(), 2, "either the newcomers or their books were known last");
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
    assert!(stopped.sent.frames() > 0, "the report holds what was sent until then");
}

#[test]
fn a_swarm_that_knows_itself_from_the_start_behaves_as_any_other() {
    let known = "nodes = 60\nseed = 3\nwarmup = '30s'\nstart = { known = true, from = 'random' }
        expect = { nobody_lost = true }
        fault = [{ at = '1s', update = 3, within = '2s' }, { at = '5s', crash = 2, within = '9s' },
        { at = '20s', join = 2, within = '2s' }, { at = '25s', restart = 2, within = '2s' },
        { at = '30s', leave = 2, within = '2s' }]";
    let report = report(&Scenario::parse(known).unwrap());
    assert!(report.ok, "{:?}", report.failures);
    // Only the two nodes that joined were new to the others, and the others new to them.
    assert!(report.emitted["PeerJoined"] < 60 * 59, "{:?}", report.emitted);
    // All nodes are in one overlay.
    assert!(report.emitted["NeighborUp"] > 60 * 3, "{:?}", report.emitted);
}

#[test]
fn heartbeats_of_a_large_swarm_are_rare_and_evenly_spread() {
    // With 60 members each node announces every 10 minutes, so about half of them do in five.
    let known = "nodes = 60\nduration = '5m'\nstart = { known = true }";
    let report = report(&Scenario::parse(known).unwrap());
    assert!(report.ok, "{:?}", report.failures);
    let heartbeats = report.emitted["Announced"] - 60;
    assert!((15..45).contains(&heartbeats), "{heartbeats}");
}

#[test]
fn nodes_that_a_fault_cannot_hit_are_left_out() {
    let text = "nodes = 5\nexpect = { quiet = false }
        fault = [{ at = '5s', leave = [0] }, { at = '6s', crash = [1] },
        { at = '7s', pause = [2], for = '20s' }, { at = '7s', hostile = 'mute' },
        { at = '8s', update = '100%' }, { at = '9s', crash = [2, 3] },
        { at = '10s', update = '1%' }]";
    let report = report(&Scenario::parse(text).unwrap());
    let befell = |what: &str| {
        let figures = report.figures.iter().filter(|figure| figure.what == what);
        figures.map(|figure| figure.nodes.clone()).collect::<Vec<_>>()
    };
    assert_eq!(befell("update"), [vec![3, 4], vec![4]], "and of a share it is one at least");
    assert_eq!(befell("crash"), [[1], [3]]);
}

#[test]
fn a_fault_happens_again_to_the_same_nodes() {
    let text = "nodes = 9\nseed = 1\nfault = [
        { at = '5s', pause = 2, for = '1s', times = 3, every = '10s' }]";
    let report = report(&Scenario::parse(text).unwrap());
    let pauses: Vec<_> = report.figures.iter().filter(|figure| figure.what == "pause").collect();
    // A figure counts from the end of its fault.
    let ends: Vec<_> = pauses.iter().map(|figure| figure.at_s.round()).collect();
    assert_eq!(ends, [6.0, 16.0, 26.0]);
    assert!(pauses.iter().all(|pause| pause.nodes.len() == 2 && pause.nodes == pauses[0].nodes));
}

#[test]
fn a_burst_of_newcomers_under_loss_does_not_broadcast_what_all_know() {
    // It takes 21 kB/s, and 34 kB/s if nodes broadcast what syncs brought without asking first.
    let newcomers = "nodes = 400\nseed = 1\npreset = 'internet'\nduration = '12s'
        start = { over = '5s' }\nnetwork = { loss = 0.2 }
        expect = { converged = '6s', bytes_per_second = 28_000 }";
    let report = report(&Scenario::parse(newcomers).unwrap());
    assert!(report.ok, "{:?}", report.failures);
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
    // Only the timeline is counted, which sends less than the start did.
    let idle = on(&base).unwrap();
    let whole = run(
        &Scenario { warmup: "0s".parse().unwrap(), ..base.clone() },
        Options::default(),
        &mut |_| true,
    );
    assert!(idle.ok && idle.rates.wire_bytes * 2.0 < whole.unwrap().rates.wire_bytes);
    // The random choices and the network are those of the timeline.
    let far = Scenario::parse(&format!("{BASE}network = {{ latency = '30ms' }}")).unwrap();
    for other in [Scenario { seed: 7, ..base.clone() }, far] {
        assert_ne!(on(&other).unwrap().trace, idle.trace);
    }
    for (other, key) in [
        ("nodes = 21\nwarmup = '20s'", "nodes"),
        ("nodes = 20\nwarmup = '21s'", "warmup"),
        ("nodes = 20\nwarmup = '20s'\nconfig = { neighbors = 4 }", "config"),
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
