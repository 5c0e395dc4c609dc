//! Runs a scenario: starts the nodes, makes the faults, measures, checks.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use iroh_gossip_discovery_proto::Rule;

use super::{
    Error, Scenario,
    report::{EventLine, Figure, Rates, Report},
    timeline::Timeline,
};
use crate::{
    network::{Failure, Network, Ran, Told, name_of},
    sent::Sent,
};

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

impl Watch {
    /// When it has waited for too long.
    fn late(&self) -> Option<Duration> {
        Some(self.since + self.within? + Duration::from_nanos(1))
    }
}

/// Runs a scenario. `progress` is called often, with how far it has come; it returns whether to go
/// on. Where it says no, the report is of what was seen until then.
///
/// # Errors
/// [`Error::Invalid`] for a scenario outside its limits. What goes wrong in it is in the report.
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
    let watches = Vec::new();
    let before = Sent::default();
    let mut run = Run { scenario, options, network, watches, before, complete: false };
    // A defect of the state machine is a finding like any other, with its seed.
    let ran = catch_unwind(AssertUnwindSafe(|| run.go(progress)));
    match ran {
        Ok(ended) => run.complete = ended.is_ok(),
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
    /// What was sent when the timeline began.
    before: Sent,
    complete: bool,
}

/// It ended before its time.
struct Ended;

impl Run<'_> {
    fn go(&mut self, progress: &mut dyn FnMut(Progress) -> bool) -> Result<(), Ended> {
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
            self.watches.extend(timeline.act(self.scenario, &mut self.network));
        }
        if !warm {
            self.advance(warmup, end, progress)?;
            self.check_warm();
        }
        self.advance(end, end, progress)?;
        self.conclude(timeline.cloned());
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
    ) -> Result<(), Ended> {
        loop {
            let elapsed = self.network.elapsed();
            if self.over() || !progress(Progress { elapsed, end }) {
                return Err(Ended);
            }
            let waits = self.watches.iter().any(|watch| watch.figure.took_s.is_none());
            // Not beyond the moment in which a watch is late.
            let late = self.watches.iter().filter_map(Watch::late).filter(|at| *at > elapsed).min();
            let slice = to.min(elapsed + SLICE).min(late.unwrap_or(to));
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
        self.before = self.network.sent();
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
        let rates = self.rates();
        let bytes = [
            (expect.bytes_per_second, rates.bytes(), "of frames"),
            (expect.wire_bytes_per_second, rates.wire_bytes, "on the wire"),
        ];
        for (most, bytes, what) in bytes {
            if let Some(most) = most.filter(|most| bytes > *most) {
                let text = format!("{bytes:.1} B/s per node {what}, expected {most}");
                self.network.failures.push(self.failure("cheap enough", text));
            }
        }
        let dials = (self.network.sent() - self.before).dials;
        if let Some(most) = expect.dials.filter(|most| dials > *most) {
            let text = format!("{dials} dials, expected {most}");
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

    fn rates(&mut self) -> Rates {
        let seconds = self.network.elapsed().saturating_sub(self.scenario.warmup.0).as_secs_f64();
        let sent = self.network.sent();
        // Before the end of the warm-up there is no timeline.
        let sent = if seconds > 0.0 { sent - self.before } else { Sent::default() };
        Rates::of(sent, self.network.nodes.len(), seconds)
    }

    fn report(mut self) -> Report {
        let rates = self.rates();
        let mut dropped = BTreeMap::new();
        for (what, count) in self.network.nodes.iter().flat_map(|node| &node.dropped) {
            *dropped.entry(*what).or_default() += count;
        }
        let failed = std::mem::take(&mut self.network.failures);
        let hash = self.network.trace_hash();
        Report {
            schema: 1,
            name: self.scenario.name.clone(),
            seed: self.scenario.seed,
            nodes: self.scenario.nodes,
            up: self.network.up().len(),
            ok: self.complete && failed.is_empty(),
            complete: self.complete,
            trace: data_encoding::HEXLOWER.encode(&hash),
            virtual_s: self.network.elapsed().as_secs_f64(),
            figures: self.watches.into_iter().map(|watch| watch.figure).collect(),
            failures: failed.iter().map(ToString::to_string).collect(),
            sent: self.network.sent(),
            rates,
            dropped,
            steps: self.network.steps,
            told: self.network.told_of.clone(),
            events: self.network.log.iter().map(event_line).collect(),
            events_left_out: self.network.log_left_out,
            wrongly_lost: self.network.wrongly_lost.len(),
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
