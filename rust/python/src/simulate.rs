//! Simulations: takes a scenario as text, and returns the report as values of Python's own classes.

use std::time::{Duration, Instant};

use iroh_gossip_discovery_sim::{
    Failure,
    scenario::{
        Error, EventLine, Figure, MAX_NODES, Options, Progress, Report, Scenario, run, shrink,
    },
};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{IntoPyDict, PyDict, PyTuple},
};

use crate::{error::invalid, extract};

/// The time between two checks for signals, and between two calls of `progress`.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a scenario, detached from the interpreter, and returns its report.
#[pyfunction]
#[pyo3(signature = (scenario, *, seed, nodes, events, fail_fast, progress))]
pub(crate) fn run_scenario<'py>(
    py: Python<'py>,
    scenario: &Bound<'py, PyAny>,
    seed: Option<&Bound<'py, PyAny>>,
    nodes: Option<&Bound<'py, PyAny>>,
    events: &Bound<'py, PyAny>,
    fail_fast: &Bound<'py, PyAny>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let scenario = read(py, scenario, seed, nodes)?;
    let options = Options {
        events: extract::boolean("events", events)?,
        fail_fast: extract::boolean("fail_fast", fail_fast)?,
        ..Options::default()
    };
    let mut look = Look::new(progress);
    let report = py.detach(|| {
        run(&scenario, options, &mut |at| look.on(|py, progress| progress.call1(py, share(at))))
    });
    look.error.map_or(Ok(()), Err)?;
    simulation(py, &report.map_err(|error| raise(py, error))?)
}

/// Returns the scenario of random faults that belongs to a seed, as TOML.
#[pyfunction]
pub(crate) fn random_scenario(
    py: Python<'_>,
    seed: &Bound<'_, PyAny>,
    nodes: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let (seed, nodes) = (extract::bounded("seed", seed)?, extract::count("nodes", nodes)?);
    if !(1..=MAX_NODES).contains(&nodes) {
        return Err(invalid(py, "nodes", "must be 1 to 20,000"));
    }
    let scenario = Scenario::random(seed, nodes);
    scenario.validate().map_err(|error| raise(py, error))?;
    Ok(scenario.to_toml())
}

/// Returns a smaller scenario that fails in the same way, the check, and how many scenarios were
/// run; `None` if the scenario does not fail.
#[pyfunction]
#[pyo3(signature = (scenario, *, seed, nodes, most, progress))]
pub(crate) fn shrink_scenario(
    py: Python<'_>,
    scenario: &Bound<'_, PyAny>,
    seed: Option<&Bound<'_, PyAny>>,
    nodes: Option<&Bound<'_, PyAny>>,
    most: &Bound<'_, PyAny>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Option<(String, &'static str, usize)>> {
    let scenario = read(py, scenario, seed, nodes)?;
    let most = extract::count("most", most)?;
    let mut look = Look::new(progress);
    let shrunk = py.detach(|| {
        shrink(&scenario, most, &mut |tried| look.on(|py, progress| progress.call1(py, (tried,))))
    });
    look.error.map_or(Ok(()), Err)?;
    Ok(shrunk.map(|shrunk| (shrunk.scenario.to_toml(), shrunk.check, shrunk.tried)))
}

fn read(
    py: Python<'_>,
    scenario: &Bound<'_, PyAny>,
    seed: Option<&Bound<'_, PyAny>>,
    nodes: Option<&Bound<'_, PyAny>>,
) -> PyResult<Scenario> {
    let text = extract::text("scenario", scenario)?;
    let mut scenario = Scenario::parse(&text).map_err(|error| raise(py, error))?;
    if let Some(seed) = seed {
        scenario.seed = extract::bounded("seed", seed)?;
    }
    if let Some(nodes) = nodes {
        scenario.nodes = extract::count("nodes", nodes)?;
    }
    scenario.validate().map_err(|error| raise(py, error))?;
    Ok(scenario)
}

fn raise(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Invalid { key, reason } => invalid(py, &key, &reason),
        other => invalid(py, "scenario", &format!("is not one: {}", other.to_string().trim_end())),
    }
}

fn share(at: Progress) -> (f64,) {
    (at.elapsed.div_duration_f64(at.end.max(Duration::from_nanos(1))).min(1.0),)
}

/// Enters Python now and then, to check for signals and to ask whether the run continues.
struct Look {
    progress: Option<Py<PyAny>>,
    next: Instant,
    error: Option<PyErr>,
    ended: bool,
}

impl Look {
    fn new(progress: Option<Py<PyAny>>) -> Self {
        Self { progress, next: Instant::now(), error: None, ended: false }
    }

    /// Returns true if the run continues.
    fn on(&mut self, call: impl FnOnce(Python<'_>, &Py<PyAny>) -> PyResult<Py<PyAny>>) -> bool {
        let now = Instant::now();
        if self.ended || now < self.next {
            return !self.ended;
        }
        self.next = now + LOOK;
        // The caller waits for this function, so the interpreter is alive.
        let looked = Python::attach(|py| {
            py.check_signals()?;
            let Some(progress) = &self.progress else { return Ok(true) };
            extract::boolean("what progress returns", call(py, progress)?.bind(py))
        });
        match looked {
            Ok(go_on) => self.ended = !go_on,
            Err(error) => (self.error, self.ended) = (Some(error), true),
        }
        !self.ended
    }
}

/// Makes a value of a class in `iroh_gossip_discovery._simulate`.
fn make<'py>(
    py: Python<'py>,
    class: &str,
    fields: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE
        .get_or_try_init(py, || py.import("iroh_gossip_discovery._simulate").map(Bound::unbind))?;
    module.bind(py).getattr(class)?.call((), Some(fields))
}

fn simulation<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("name", &report.name)?;
    fields.set_item("seed", report.seed)?;
    fields.set_item("nodes", report.nodes)?;
    fields.set_item("up", report.up)?;
    fields.set_item("ok", report.ok)?;
    fields.set_item("complete", report.complete)?;
    fields.set_item("trace", &report.trace)?;
    fields.set_item("virtual_s", report.virtual_s)?;
    fields.set_item("figures", tuple(py, &report.figures, recovery)?)?;
    fields.set_item("failures", tuple(py, &report.failed, failure)?)?;
    let sent = [
        ("control_frames", report.sent.control.frames),
        ("control_bytes", report.sent.control.bytes),
        ("sync_frames", report.sent.sync.frames),
        ("sync_bytes", report.sent.sync.bytes),
        ("wire_bytes", report.sent.wire_bytes),
        ("dials", report.sent.dials),
    ];
    fields.set_item("sent", make(py, "SimulatedTraffic", &sent.into_py_dict(py)?)?)?;
    let rates = [
        ("control_frames", report.rates.control_frames),
        ("control_bytes", report.rates.control_bytes),
        ("sync_frames", report.rates.sync_frames),
        ("sync_bytes", report.rates.sync_bytes),
        ("wire_bytes", report.rates.wire_bytes),
        ("dials", report.rates.dials),
    ];
    fields.set_item("rates", make(py, "SimulatedRates", &rates.into_py_dict(py)?)?)?;
    fields.set_item("dropped", (&report.dropped).into_py_dict(py)?)?;
    fields.set_item("steps", report.steps)?;
    fields.set_item("emitted", (&report.emitted).into_py_dict(py)?)?;
    fields.set_item("events", tuple(py, &report.events, event)?)?;
    fields.set_item("events_left_out", report.events_left_out)?;
    make(py, "Simulation", &fields)
}

fn tuple<'py, T>(
    py: Python<'py>,
    items: &[T],
    of: fn(Python<'py>, &T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, items.iter().map(|item| of(py, item)).collect::<PyResult<Vec<_>>>()?)
}

fn recovery<'py>(py: Python<'py>, figure: &Figure) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("what", figure.what)?;
    fields.set_item("fault", figure.fault)?;
    fields.set_item("nodes", PyTuple::new(py, &figure.nodes)?)?;
    fields.set_item("at_s", figure.at_s)?;
    fields.set_item("took_s", figure.took_s)?;
    fields.set_item("within_s", figure.within_s)?;
    make(py, "SimulatedRecovery", &fields)
}

fn failure<'py>(py: Python<'py>, failure: &Failure) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("check", failure.check)?;
    fields.set_item("at_s", failure.at.as_secs_f64())?;
    fields.set_item("node", failure.node)?;
    fields.set_item("text", &failure.text)?;
    make(py, "SimulatedFailure", &fields)
}

fn event<'py>(py: Python<'py>, event: &EventLine) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("at_s", event.at_s)?;
    fields.set_item("node", event.node)?;
    fields.set_item("event", event.event)?;
    fields.set_item("peer", event.peer.as_deref())?;
    fields.set_item("id", event.id.as_deref())?;
    make(py, "SimulatedEvent", &fields)
}
