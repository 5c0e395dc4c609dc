//! Runs a scenario: starts the nodes, makes the faults, measures, checks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use iroh_gossip_discovery_proto::Rule;

use super::{
    Error, Scenario,
    report::{EventLine, Figure, Report, Totals},
    timeline::Timeline,
};
use crate::network::{Failure, Network, Ran, Told, name_of};

/// Between two looks at whether to go on.
const SLICE_STEPS: u64 = 20_000;
const SLICE: Duration = Duration::from_secs(1);

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Virtual time since the first start.
    pub elapsed: Duration,
    /// Virtual time at the end.
    pub end: Duration,
}

/// How a scenario is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether the report holds what all nodes told their applications.
    pub events: bool,
    /// Whether a run ends with its first failure.
    pub fail_fast: bool,
    /// A rule of the protocol that is off, to see that a check notices.
    pub without: Option<Rule>,
}

/// Something that was done, until all books are right again.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) figure: Figure,
    pub(super) since: Duration,
    pub(super) within: Option<Duration>,
}

/// Runs a scenario. `progress` is called often, with how far it has come; it returns whether to go on.
///
/// # Errors
/// [`Error::Invalid`] for a scenario outside its limits; [`Error::Interrupted`] where `progress` said
/// so. What goes wrong in the scenario is in the report.
pub fn run(
    scenario: &Scenario,
    options: Options,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Report, Error> {
    scenario.validate()?;
    let mut network = Network::new(scenario.seed, scenario.conditions());
    network.keep_events = false;
    network.keep_log = options.events;
    network.without = options.without;
    let mut run = Run { scenario, options, network, watches: Vec::new(), before: (0, 0) };
    // A defect of the state machine is a finding like any other, with its seed.
    let ran = catch_unwind(AssertUnwindSafe(|| run.go(progress)));
    match ran {
        Ok(result) => result?,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("a panic").to_owned();
            run.network.failures.insert(0, run.failure("no panic", text));
        }
    }
    Ok(run.report())
}

struct Run<'a> {
    scenario: &'a Scenario,
    options: Options,
    network: Network,
    watches: Vec<Watch>,
    /// Bytes and the number of nodes when the timeline began.
    before: (u64, usize),
}

impl Run<'_> {
    fn go(&mut self, progress: &mut dyn FnMut(Progress) -> bool) -> Result<(), Error> {
        let mut timeline = Timeline::new(self.scenario, &mut self.network);
        let end = self.scenario.end();
        let warmup = self.scenario.warmup.0;
        let mut warm = warmup.is_zero();
        while let Some(at) = timeline.next() {
            if at > end {
                break;
            }
            if !warm && at >= warmup {
                self.advance(warmup, end, progress)?;
                self.check_warm();
                warm = true;
            }
            self.advance(at, end, progress)?;
            if self.over() {
                return Ok(());
            }
            self.watches.extend(timeline.act(self.scenario, &mut self.network));
        }
        if !warm {
            self.advance(warmup, end, progress)?;
            self.check_warm();
        }
        self.advance(end, end, progress)?;
        if !self.over() {
            self.conclude(timeline.cloned());
        }
        Ok(())
    }

    fn over(&self) -> bool {
        self.options.fail_fast && !self.network.failures.is_empty()
    }

    /// Runs to a time, and sees when books become right.
    fn advance(
        &mut self,
        to: Duration,
        end: Duration,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), Error> {
        loop {
            let elapsed = self.network.elapsed();
            if !progress(Progress { elapsed, end }) {
                return Err(Error::Interrupted);
            }
            if self.over() {
                return Ok(());
            }
            let waits = self.watches.iter().any(|watch| watch.figure.took_s.is_none());
            let slice = to.min(elapsed + SLICE);
            let done = |network: &Network| waits && network.converged();
            let ran = self.network.run_to(slice, SLICE_STEPS, done);
            if ran == Ran::Done {
                self.note_right();
            }
            self.note_late();
            if ran == Ran::Time && self.network.elapsed() >= to {
                return Ok(());
            }
        }
    }

    /// All books are right.
    fn note_right(&mut self) {
        let now = self.network.elapsed();
        for watch in self.watches.iter_mut().filter(|watch| watch.figure.took_s.is_none()) {
            watch.figure.took_s = Some(now.saturating_sub(watch.since).as_secs_f64());
        }
    }

    /// Who waits for longer than was expected has failed, and may still be measured.
    fn note_late(&mut self) {
        let now = self.network.elapsed();
        let mut late = Vec::new();
        for watch in &mut self.watches {
            let Some(within) = watch.within else { continue };
            let took = watch.figure.took_s.map(Duration::from_secs_f64);
            if took.unwrap_or(now.saturating_sub(watch.since)) > within {
                watch.within = None;
                let what = watch.figure.what;
                late.push(match took {
                    Some(took) => format!("{what}: {took:.3?}, expected {within:?}"),
                    None => format!("{what}: not within {within:?}"),
                });
            }
        }
        if !late.is_empty() {
            let first = self.network.up().into_iter().find(|n| !self.network.is_right(*n));
            let wrong = first.map(|n| format!("; node {n}: {}", self.network.what_is_wrong(n)));
            for text in late {
                let text = text + wrong.as_deref().unwrap_or_default();
                self.network.failures.push(self.failure("right in time", text));
            }
        }
    }

    fn check_warm(&mut self) {
        if !self.network.converged() {
            let text = "books are not right at the end of the warm-up".to_owned();
            self.network.failures.push(self.failure("right in time", text));
        }
        self.before = (self.bytes(), self.network.nodes.len());
    }

    fn failure(&self, check: &'static str, text: String) -> Failure {
        let (seed, at) = (self.scenario.seed, self.network.elapsed());
        Failure { seed, at, node: None, check, text }
    }

    /// What is expected of the whole run.
    fn conclude(&mut self, cloned: &[usize]) {
        let expect = &self.scenario.expect;
        if expect.quiet {
            self.network.check_quiet();
        } else {
            self.network.check_books();
        }
        if expect.nobody_lost
            && let Some((at, node, peer)) = self.network.wrongly_lost.first().copied()
        {
            let text = format!("{} was up and within reach", peer.fmt_short());
            let check = "nobody within reach is lost";
            let seed = self.scenario.seed;
            self.network.failures.push(Failure { seed, at, node: Some(node), check, text });
        }
        let bytes = self.bytes_per_second();
        if let Some(most) = expect.bytes_per_second
            && bytes > most
        {
            let text = format!("{bytes:.1} B/s per node, expected {most}");
            self.network.failures.push(self.failure("cheap enough", text));
        }
        if expect.conflict {
            let untold: Vec<_> =
                cloned.iter().filter(|n| !self.network.in_conflict.contains(n)).collect();
            if !untold.is_empty() {
                let text = format!("nodes {untold:?} were not told of another one with their key");
                self.network.failures.push(self.failure("conflicts are told", text));
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.network.nodes.iter().map(|node| node.bytes_sent).sum()
    }

    #[allow(clippy::cast_precision_loss)] // A figure to be read.
    fn bytes_per_second(&self) -> f64 {
        let (before, nodes) = self.before;
        let seconds = self.network.elapsed().saturating_sub(self.scenario.warmup.0).as_secs_f64();
        let bytes = self.bytes().saturating_sub(before) as f64;
        bytes / seconds.max(0.001) / nodes.max(self.network.nodes.len()).max(1) as f64
    }

    fn report(mut self) -> Report {
        let mut totals = Totals {
            bytes: self.bytes(),
            bytes_per_second: self.bytes_per_second(),
            steps: self.network.steps,
            ..Totals::default()
        };
        for node in &self.network.nodes {
            totals.frames += node.frames_sent;
            totals.dials += node.dials;
            for (what, count) in &node.dropped {
                *totals.dropped.entry(what).or_default() += count;
            }
        }
        let failed = std::mem::take(&mut self.network.failures);
        let hash = self.network.trace_hash();
        Report {
            schema: 1,
            name: self.scenario.name.clone(),
            seed: self.scenario.seed,
            nodes: self.scenario.nodes,
            up: self.network.up().len(),
            ok: failed.is_empty(),
            trace: data_encoding::HEXLOWER.encode(&hash),
            virtual_s: self.network.elapsed().as_secs_f64(),
            figures: self.watches.into_iter().map(|watch| watch.figure).collect(),
            failures: failed.iter().map(ToString::to_string).collect(),
            totals,
            told: self.network.told_of.clone(),
            events: self.network.log.iter().map(event_line).collect(),
            failed,
        }
    }
}

fn event_line(told: &Told) -> EventLine {
    use iroh_gossip_discovery_proto::TopicEvent as Event;
    let record = match &told.event {
        Event::Announced(record)
        | Event::PeerJoined(record)
        | Event::PeerUpdated(record)
        | Event::PeerRefreshed(record)
        | Event::PeerSuspected(record)
        | Event::PeerRecovered(record)
        | Event::PeerLeft(record)
        | Event::PeerLost(record, _) => Some(record),
        _ => None,
    };
    EventLine {
        at_s: told.at.as_secs_f64(),
        node: told.node,
        event: name_of(&told.event),
        peer: record.map(|record| record.profile.name.clone()),
        id: record.map(|record| record.id.to_string()),
    }
}
