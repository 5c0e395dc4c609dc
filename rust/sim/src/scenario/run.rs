//! Runs a scenario: starts the nodes, makes the faults, measures, checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use iroh_gossip_discovery_proto::Rule;

use super::{
    Scenario,
    error::{Error, check},
    report::{EventLine, Rates, Report, StartWork},
    timeline::Timeline,
    watch::Watch,
};
use crate::{
    network::{Network, RunEnd},
    node::Node,
    observed::{Emitted, Failure, name_of},
    sent::Sent,
};

/// Most steps between two calls of `progress`.
const SLICE_STEPS: u64 = 20_000;
const SLICE: Duration = Duration::from_secs(1);

/// The progress of a run.
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
    /// True if the report holds the events of all nodes.
    pub events: bool,
    /// True if a run ends with its first failure.
    pub fail_fast: bool,
    /// A rule of the protocol that is off, to see that a check notices.
    pub disabled_rule: Option<Rule>,
}

/// Runs a scenario. `progress` is called often, with the progress of the run. If it returns false,
/// the run ends, and the report covers what happened until then.
///
/// # Errors
/// [`Error::Invalid`] for a scenario outside its limits. What goes wrong in the run is in the
/// report.
pub fn run(
    scenario: &Scenario,
    options: Options,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Report, Error> {
    scenario.validate()?;
    let mut run = Run::new(scenario, options);
    let mut timeline = Timeline::new(scenario, &mut run.network);
    Ok(run.guarded(|run| {
        run.warm_up(&mut timeline, progress)?;
        run.go(timeline, progress)
    }))
}

/// A network at the end of a scenario's warm-up, from which several timelines can go on. In a large
/// network, the warm-up is most of the work.
#[derive(Debug)]
pub struct Warm {
    scenario: Scenario,
    options: Options,
    network: Network,
}

impl Warm {
    /// Starts the nodes of a scenario and runs to the end of its warm-up. `progress` works as in
    /// [`run`]. Returns `None` if `progress` returned false.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a scenario outside its limits. What goes wrong is in the later
    /// reports.
    ///
    /// # Panics
    /// If the protocol panics.
    pub fn up(
        scenario: &Scenario,
        options: Options,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Option<Self>, Error> {
        scenario.validate()?;
        let mut run = Run::new(scenario, options);
        let mut timeline = Timeline::new(scenario, &mut run.network);
        let ended = run.warm_up(&mut timeline, progress).is_err();
        let Run { network, .. } = run;
        Ok((!ended).then(|| Self { scenario: scenario.clone(), options, network }))
    }

    /// Continues with the timeline, expectations, network and seed of another scenario, which has
    /// the same nodes, settings and warm-up. All random choices from here on follow from that seed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a scenario outside its limits, or with other nodes, settings or
    /// warm-up.
    pub fn run(
        self,
        scenario: &Scenario,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Report, Error> {
        scenario.validate()?;
        check("nodes", scenario.nodes == self.scenario.nodes, "must be those that are there")?;
        check("config", scenario.protocol() == self.scenario.protocol(), "must be what was")?;
        check("warmup", scenario.warmup == self.scenario.warmup, "must be the one that was")?;
        let mut run = Run { network: self.network, ..Run::new(scenario, self.options) };
        run.network.reseed(scenario.seed);
        run.network.conditions = scenario.conditions();
        run.before = run.network.sent();
        let timeline = Timeline::of_faults(scenario);
        Ok(run.guarded(|run| run.go(timeline, progress)))
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    options: Options,
    network: Network,
    watches: Vec<Watch>,
    /// What was sent before the timeline began.
    before: Sent,
    complete: bool,
    start_work: Option<StartWork>,
    sizes_at_start: BTreeSet<usize>,
}

/// The run ended early.
struct Ended;

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, options: Options) -> Self {
        let mut network = Network::new(scenario.seed, scenario.conditions());
        network.observed.keep_events = false;
        network.observed.keep_log = options.events;
        network.disabled_rule = options.disabled_rule;
        network.set_costs(scenario.cpu.costs());
        let (watches, before) = (Vec::new(), Sent::default());
        let (complete, start_work, sizes_at_start) = (false, None, BTreeSet::new());
        Self { scenario, options, network, watches, before, complete, start_work, sizes_at_start }
    }

    fn guarded(mut self, go: impl FnOnce(&mut Self) -> Result<(), Ended>) -> Report {
        // A panic of the state machine is a finding like any other, and is reported with its seed.
        let ran = catch_unwind(AssertUnwindSafe(|| go(&mut self)));
        match ran {
            Ok(ended) => self.complete = ended.is_ok(),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                let text = text.unwrap_or("a panic").to_owned();
                self.network.failures.insert(0, self.failure("no panic", text));
            }
        }
        self.report()
    }

    /// Runs to the end of the warm-up.
    fn warm_up(
        &mut self,
        timeline: &mut Timeline,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), Ended> {
        let (end, warmup) = (self.scenario.end(), self.scenario.warmup.0);
        if warmup.is_zero() {
            return Ok(());
        }
        while let Some(at) = timeline.next().filter(|at| *at < warmup) {
            self.advance(at, end, progress)?;
            self.watches.extend(timeline.act(self.scenario, &mut self.network));
        }
        self.advance(warmup, end, progress)?;
        self.check_warm();
        Ok(())
    }

    /// Runs from the end of the warm-up to the end.
    fn go(
        &mut self,
        mut timeline: Timeline,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), Ended> {
        let end = self.scenario.end();
        while let Some(at) = timeline.next().filter(|at| *at <= end) {
            self.advance(at, end, progress)?;
            self.watches.extend(timeline.act(self.scenario, &mut self.network));
        }
        self.advance(end, end, progress)?;
        self.conclude(timeline.cloned());
        Ok(())
    }

    fn over(&self) -> bool {
        self.options.fail_fast && !self.network.failures.is_empty()
    }

    /// Runs to a time, and notes when books become right.
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
            // Not beyond the next full second, nor the time at which a watch becomes late.
            let late = self.watches.iter().filter_map(Watch::late).filter(|at| *at > elapsed).min();
            let second = Duration::from_secs(elapsed.as_secs()) + SLICE;
            let slice = to.min(second).min(late.unwrap_or(to));
            let watches = &self.watches;
            let comes_to_be_known = |network: &Network| {
                let mut unknown = watches.iter().flat_map(|watch| &watch.unknown);
                unknown.any(|about| about.is_known(network))
            };
            let done =
                |network: &Network| (waits && network.converged()) || comes_to_be_known(network);
            let ran = self.network.run_to(slice, SLICE_STEPS, done);
            if ran == RunEnd::Done {
                self.note_known();
                if self.network.converged() {
                    self.note_right();
                }
            }
            self.note_late();
            if ran == RunEnd::Time && slice == second {
                self.note_sizes();
            }
            if ran == RunEnd::Time && self.network.elapsed() >= to {
                return Ok(());
            }
        }
    }

    fn note_known(&mut self) {
        let (network, now) = (&self.network, self.network.elapsed());
        for watch in self.watches.iter_mut().filter(|watch| !watch.unknown.is_empty()) {
            watch.unknown.retain(|about| !about.is_known(network));
            if watch.unknown.is_empty() {
                watch.figure.known_s = Some(now.saturating_sub(watch.since).as_secs_f64());
            }
        }
    }

    /// Notes that all books are right.
    fn note_right(&mut self) {
        let now = self.network.elapsed();
        let starts = |watch: &Watch| watch.figure.fault.is_none() && watch.figure.took_s.is_none();
        if self.watches.iter().any(starts) {
            self.note_sizes();
            self.start_work = Some(self.work_so_far());
        }
        for watch in self.watches.iter_mut().filter(|watch| watch.figure.took_s.is_none()) {
            watch.figure.took_s = Some(now.saturating_sub(watch.since).as_secs_f64());
        }
    }

    /// Notes the sizes of all books while not all were right yet.
    fn note_sizes(&mut self) {
        if self.start_work.is_none() {
            let up = self.network.nodes.iter().filter(|node| node.is_honest());
            self.sizes_at_start.extend(up.map(|node| node.book.len() + 1));
        }
    }

    #[allow(clippy::cast_precision_loss)] // Figures to be read.
    fn work_so_far(&mut self) -> StartWork {
        let sent = self.network.sent();
        let per = |count: u64| count as f64 / self.network.nodes.len().max(1) as f64;
        let emitted =
            |name| per(self.network.observed.emitted_counts.get(name).copied().unwrap_or(0));
        let dropped = |node: &Node| node.dropped.get("syncs that stalled").copied();
        StartWork {
            dials: per(sent.dials),
            syncs: per(self.network.syncs_begun()),
            syncs_completed: emitted("Synced"),
            syncs_stalled: per(self.network.nodes.iter().filter_map(dropped).sum()),
            frames: per(sent.frames()),
            sync_frames: per(sent.sync.frames),
            neighbors_gone: emitted("NeighborDown"),
            suspected: emitted("PeerSuspected"),
            cpu_s: self.network.worked().as_secs_f64(),
        }
    }

    /// Reports the watches that wait for longer than expected. They have failed, but are still
    /// measured.
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

    /// Checks the expectations for the whole run.
    fn conclude(&mut self, cloned: &[usize]) {
        let expect = &self.scenario.expect;
        if expect.quiet {
            self.network.check_quiet();
        } else {
            self.network.check_books();
        }
        if expect.nobody_lost
            && let Some((at, node, peer)) = self.network.observed.wrongly_lost.first().copied()
        {
            let text = format!("{} was up and within reach", peer.fmt_short());
            let check = "nobody within reach is lost";
            let seed = self.scenario.seed;
            self.network.failures.push(Failure { seed, at, node: Some(node), check, text });
        }
        self.check_suspected();
        self.check_lossy();
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
        let all = self.work_so_far().dials;
        let dials = self.start_work.map(|work| work.dials);
        let work = [
            (expect.dials_to_converge, dials, "dials per node until"),
            (
                expect.syncs_to_converge,
                self.start_work.map(|work| work.syncs),
                "syncs per node until",
            ),
            (expect.dials_once_converged, dials.map(|until| all - until), "dials per node after"),
        ];
        for (most, count, what) in work {
            let Some(most) = most else { continue };
            if count.is_none_or(|count| count > most) {
                let count = count.map_or("never".to_owned(), |count| format!("{count:.2}"));
                let text = format!("{count} {what} all were right, expected {most}");
                self.network.failures.push(self.failure("cheap enough", text));
            }
        }
        if expect.conflict {
            let unaware: Vec<_> =
                cloned.iter().filter(|n| !self.network.observed.in_conflict.contains(n)).collect();
            if !unaware.is_empty() {
                let text = format!("nodes {unaware:?} did not learn of another one with their key");
                self.network.failures.push(self.failure("conflicts are reported", text));
            }
        }
    }

    fn check_suspected(&mut self) {
        let suspected = self.network.observed.emitted_counts.get("PeerSuspected").copied();
        if let Some(count) = suspected.filter(|_| self.scenario.expect.nobody_suspected) {
            let text = format!("nodes were suspected {count} times");
            self.network.failures.push(self.failure("nobody is suspected", text));
        }
    }

    fn check_lossy(&mut self) {
        let Some(most) = self.scenario.expect.lossy_lost else { return };
        let often = self.network.observed.lossy_lost.iter().find(|(_, count)| **count > most);
        if let Some(((node, lossy, fault), count)) = often {
            let text = format!(
                "node {node} lost node {lossy} {count} times in the {fault}. time that it was \
                 lossy, expected {most}"
            );
            self.network.failures.push(self.failure("a lossy node is lost seldom", text));
        }
    }

    fn rates(&mut self) -> Rates {
        let seconds = self.network.elapsed().saturating_sub(self.scenario.warmup.0).as_secs_f64();
        let sent = self.network.sent();
        // A run that ends within the warm-up has no timeline.
        let sent = if seconds > 0.0 { sent - self.before } else { Sent::default() };
        Rates::of(sent, self.network.nodes.len(), seconds)
    }

    fn report(mut self) -> Report {
        let rates = self.rates();
        let whole_work = self.work_so_far();
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
            emitted: self.network.observed.emitted_counts.clone(),
            events: self.network.observed.log.iter().map(event_line).collect(),
            events_left_out: self.network.observed.log_left_out,
            wrongly_lost: self.network.observed.wrongly_lost.len(),
            lossy_lost: self
                .network
                .observed
                .lossy_lost
                .values()
                .copied()
                .max()
                .unwrap_or_default(),
            lost_by_lossy: self.network.observed.lost_by_lossy,
            sizes_at_start: self.sizes_at_start.len(),
            start_work: self.start_work,
            whole_work,
            failed,
        }
    }
}

fn event_line(emitted: &Emitted) -> EventLine {
    use iroh_gossip_discovery_proto::TopicEvent as Event;
    let record = match &emitted.event {
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
        at_s: emitted.at.as_secs_f64(),
        node: emitted.node,
        event: name_of(&emitted.event),
        peer: record.map(|record| record.profile.name.clone()),
        id: record.map(|record| record.id.to_string()),
    }
}
