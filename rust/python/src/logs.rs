//! Logs: gives Rust's `tracing` events to Python's `logging`.
//!
//! A thread that logs only puts a line into a bounded queue. A thread of the logs takes the lines
//! through the gate. The bridge's thread would not do: a log handler that waits for something of
//! this package would wait for itself. The thread also checks, every [`LOOK`], which levels
//! Python's loggers want, so that unwanted lines are never made.

mod layer;
mod line;
mod repeats;

use std::{
    sync::{
        Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use pyo3::{prelude::*, sync::PyOnceLock};
use tracing::dispatcher;
use tracing_subscriber::{Registry, layer::SubscriberExt};

use self::{layer::PythonLayer, line::Line};
use crate::gate;

/// Most lines that wait for Python. Further ones are dropped and counted.
const LINES: usize = 4096;
/// Most lines that are handed over in one entry into Python.
const BURST: usize = 64;
/// How often Python's levels are checked.
const LOOK: Duration = Duration::from_millis(250);
/// How long the exit waits for Python to take the lines that were logged before.
const FLUSH: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<SyncSender<Line>> = OnceLock::new();
static PYTHON: PyOnceLock<Loggers> = PyOnceLock::new();
static QUEUED: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static HANDED: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

/// The functions of `iroh_gossip_discovery._logs` that are called from here.
struct Loggers {
    thresholds: Py<PyAny>,
    deliver: Py<PyAny>,
    report_dropped: Py<PyAny>,
}

/// Begins to log to Python, unless another subscriber receives Rust's logs already. Returns true if
/// it logs to Python now.
#[pyfunction]
pub(crate) fn start_logs(py: Python<'_>) -> PyResult<bool> {
    if QUEUE.get().is_some() {
        return Ok(false);
    }
    let loggers = PYTHON.get_or_try_init(py, || {
        let module = py.import("iroh_gossip_discovery._logs")?;
        let get = |name| module.getattr(name).map(Bound::unbind);
        PyResult::Ok(Loggers {
            thresholds: get("thresholds")?,
            deliver: get("deliver")?,
            report_dropped: get("report_dropped")?,
        })
    })?;
    layer::set_thresholds(loggers.thresholds(py)?);
    let subscriber = Registry::default().with(PythonLayer { put });
    if dispatcher::set_global_default(subscriber.into()).is_err() {
        // This library is built into another program, which handles its logs itself.
        return Ok(false);
    }
    let (queue, lines) = sync_channel(LINES);
    thread::Builder::new()
        .name("iroh-gossip-discovery-logs".into())
        .spawn(move || serve(lines, loggers))?;
    Ok(QUEUE.set(queue).is_ok())
}

/// Checks again which levels are wanted. Called at the start of a node, so that its first line is
/// not missed.
pub(crate) fn look(py: Python<'_>) {
    if let Some(loggers) = PYTHON.get(py) {
        loggers.look(py);
    }
}

/// Waits until Python has the lines that were logged so far, for a bounded time. Called with Python
/// released.
pub(crate) fn flush() {
    let (handed, more) = &HANDED;
    let queued = QUEUED.load(Ordering::Acquire);
    let handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
    // The exit continues, in time or not.
    let _ = more.wait_timeout_while(handed, FLUSH, |handed| *handed < queued);
}

/// Returns how many lines this process dropped because the queue was full.
#[pyfunction]
pub(crate) fn logs_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Queues a line. Never waits.
fn put(line: Line) {
    let Some(queue) = QUEUE.get() else { return };
    if queue.try_send(line).is_ok() {
        QUEUED.fetch_add(1, Ordering::Release);
    } else {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

fn serve(lines: Receiver<Line>, loggers: &Loggers) {
    let mut burst = Vec::with_capacity(BURST);
    let mut reported = 0;
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => burst.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        burst.extend(lines.try_iter().take(BURST - burst.len()));
        let count = burst.len() as u64;
        let dropped = logs_dropped();
        let entered = gate::enter(|py| {
            loggers.look(py);
            for line in burst.drain(..) {
                loggers.deliver(py, line);
            }
            if dropped > reported {
                let result = loggers.report_dropped.call1(py, (dropped - reported,));
                loggers.complain(py, result);
                reported = dropped;
            }
        });
        if entered.is_none() {
            layer::set_thresholds(line::NOTHING);
            return;
        }
        let (handed, more) = &HANDED;
        *handed.lock().unwrap_or_else(PoisonError::into_inner) += count;
        more.notify_all();
    }
}

impl Loggers {
    fn thresholds(&self, py: Python<'_>) -> PyResult<[u8; line::SOURCES]> {
        self.thresholds.call0(py)?.extract(py)
    }

    fn look(&self, py: Python<'_>) {
        match self.thresholds(py) {
            Ok(thresholds) => layer::set_thresholds(thresholds),
            Err(error) => self.complain::<()>(py, Err(error)),
        }
    }

    fn deliver(&self, py: Python<'_>, line: Line) {
        let result = line.into_arguments(py).and_then(|line| self.deliver.call1(py, line));
        self.complain(py, result);
    }

    /// Reports an exception of the application's filter or handler as unraisable, because there is
    /// no caller.
    fn complain<T>(&self, py: Python<'_>, result: PyResult<T>) {
        if let Err(error) = result {
            error.write_unraisable(py, Some(self.deliver.bind(py)));
        }
    }
}
