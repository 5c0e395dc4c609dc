//! The bridge: the runtime of the network, and the one thread that enters Python for it.
//!
//! A worker of the runtime never attaches to the interpreter. It would wait as long as Python holds
//! the interpreter, and the protocol with it. Instead, workers hand jobs to the bridge through a
//! bounded channel.

use std::sync::{Mutex, OnceLock, PoisonError};

use iroh_gossip_discovery::Error;
use pyo3::{IntoPyObjectExt, call::PyCallArgs, prelude::*, sync::PyOnceLock, types::PyCFunction};
use tokio::{
    runtime::{Builder, EnterGuard, Handle, Runtime},
    sync::mpsc,
    task::AbortHandle,
};

use crate::{error::Raise, fork, gate, logs};

type Job = Box<dyn FnOnce(Python<'_>) + Send>;

const JOBS: usize = 1024;
const BURST: usize = 64;
const WORKERS: usize = 4;

static BRIDGE: PyOnceLock<Bridge> = PyOnceLock::new();
/// The runtime's handle, for threads that are not attached to the interpreter.
static HANDLE: OnceLock<Handle> = OnceLock::new();

/// The runtime and the way back into Python. There is one for the process, started at first use.
pub(crate) struct Bridge {
    runtime: Runtime,
    jobs: mpsc::Sender<Job>,
}

impl Bridge {
    /// Returns the bridge of this process.
    ///
    /// # Errors
    /// `RuntimeError` in a forked child; `OSError` if no thread could be started.
    pub(crate) fn get(py: Python<'_>) -> PyResult<&'static Self> {
        fork::check()?;
        BRIDGE.get_or_try_init(py, || Self::start(py))
    }

    fn start(py: Python<'_>) -> PyResult<Self> {
        logs::start_logs(py)?;
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS));
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("iroh-gossip-discovery")
            .enable_all()
            .build()?;
        let (jobs, receiver) = mpsc::channel(JOBS);
        std::thread::Builder::new()
            .name("iroh-gossip-discovery-bridge".into())
            .spawn(move || cross(receiver))?;
        let shut = PyCFunction::new_closure(py, None, None, |args, _| {
            // In a forked child, a thread that no longer exists may hold the lock.
            if !fork::is_child() {
                args.py().detach(logs::flush);
                gate::shut(args.py());
            }
        })?;
        py.import("atexit")?.call_method1("register", (shut,))?;
        fork::settle();
        HANDLE.get_or_init(|| runtime.handle().clone());
        Ok(Self { runtime, jobs })
    }

    /// Runs a task that never enters Python.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.runtime.spawn(task).abort_handle()
    }

    /// Enters the runtime, for calls that spawn tasks themselves.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Returns a handle by which tasks run jobs in Python.
    pub(crate) fn jobs(&self) -> Jobs {
        Jobs(self.jobs.clone())
    }

    /// As [`Self::future`], but the work ends if the future is cancelled.
    pub(crate) fn abortable<'py, T>(
        &self,
        py: Python<'py>,
        work: impl Future<Output = Result<T, impl Raise>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        let (future, task) = self.start_work(py, work)?;
        let abort = PyCFunction::new_closure(py, None, None, move |args, _| {
            if args.get_item(0)?.call_method0("cancelled")?.is_truthy()? {
                task.abort();
            }
            PyResult::Ok(())
        })?;
        future.call_method1("add_done_callback", (abort,))?;
        Ok(future)
    }

    /// Runs `work` and resolves an asyncio future of the running loop with its result. If the
    /// future is cancelled, the work continues.
    pub(crate) fn future<'py, T>(
        &self,
        py: Python<'py>,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        Ok(self.start_work(py, work)?.0)
    }

    fn start_work<'py, T>(
        &self,
        py: Python<'py>,
        work: impl Future<Output = Result<T, impl Raise>> + Send + 'static,
    ) -> PyResult<(Bound<'py, PyAny>, AbortHandle)>
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static RESOLVE: PyOnceLock<Py<PyCFunction>> = PyOnceLock::new();
        let resolve = RESOLVE
            .get_or_try_init(py, || wrap_pyfunction!(resolve, py).map(Bound::unbind))?
            .clone_ref(py);
        let event_loop = GET_RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()?;
        let future = event_loop.call_method0("create_future")?;
        let (target, event_loop) = (future.clone().unbind(), event_loop.unbind());
        let jobs = self.jobs();
        let task = self.spawn(async move {
            let result = work.await;
            jobs.run(move |py| {
                let result = match result {
                    Ok(value) => value.into_py_any(py),
                    Err(error) => Err(error.raise(py)),
                };
                let (value, raised) = match result {
                    Ok(value) => (value, py.None()),
                    Err(error) => (py.None(), error.into_value(py).into_any()),
                };
                soon(event_loop.bind(py), (resolve, target, value, raised));
            })
            .await;
        });
        Ok((future, task))
    }
}

/// Resolves a future on its loop, unless it was cancelled meanwhile.
#[pyfunction]
fn resolve(
    future: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    raised: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if future.call_method0("done")?.is_truthy()? {
        return Ok(());
    }
    if raised.is_none() {
        future.call_method1("set_result", (value,))?;
    } else {
        future.call_method1("set_exception", (raised,))?;
    }
    Ok(())
}

/// Runs a task, if the runtime was ever started. It is for drops, which may happen on any thread.
pub(crate) fn spawn_detached(task: impl Future<Output = ()> + Send + 'static) {
    if let Some(handle) = HANDLE.get() {
        handle.spawn(task);
    }
}

/// Calls Python once as soon as something is ready. Python then takes it itself.
#[derive(Default)]
pub(crate) struct Waiter(Mutex<Option<AbortHandle>>);

impl Waiter {
    /// Calls `callback()` once, on the loop, when `ready` resolves. It replaces what was armed
    /// before.
    pub(crate) fn arm(
        &self,
        bridge: &Bridge,
        ready: impl Future<Output = ()> + Send + 'static,
        event_loop: Py<PyAny>,
        callback: Py<PyAny>,
    ) {
        let jobs = bridge.jobs();
        self.replace(Some(bridge.spawn(async move {
            ready.await;
            jobs.run(move |py| soon(event_loop.bind(py), (callback,))).await;
        })));
    }

    fn replace(&self, waiter: Option<AbortHandle>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *slot, waiter) {
            old.abort();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// Hands jobs to the bridge's thread.
#[derive(Clone)]
pub(crate) struct Jobs(mpsc::Sender<Job>);

impl Jobs {
    /// Runs a job in Python; never, if the interpreter goes away first.
    pub(crate) async fn run(&self, job: impl FnOnce(Python<'_>) + Send + 'static) {
        // The thread ends only with the interpreter, and then nothing waits for the job either.
        let _ = self.0.send(Box::new(job)).await;
    }
}

/// The bridge's thread. It runs a burst of jobs at each entry into Python.
fn cross(mut receiver: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(BURST);
    while receiver.blocking_recv_many(&mut jobs, BURST) > 0 {
        let done = gate::enter(|py| {
            for job in jobs.drain(..) {
                job(py);
            }
        });
        if done.is_none() {
            return;
        }
    }
}

/// Calls `loop.call_soon_threadsafe(callback, *args)`. A closed loop is no error, because then
/// nothing waits for the call.
pub(crate) fn soon<'py>(event_loop: &Bound<'py, PyAny>, call: impl PyCallArgs<'py>) {
    if let Err(error) = event_loop.call_method1("call_soon_threadsafe", call) {
        let closed = event_loop.call_method0("is_closed").and_then(|closed| closed.is_truthy());
        if !matches!(closed, Ok(true)) {
            error.write_unraisable(event_loop.py(), Some(event_loop));
        }
    }
}
