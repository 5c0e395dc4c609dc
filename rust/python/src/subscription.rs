//! `Subscription`: events taken in batches, without waiting; waiting is a wake-up, without taking.
//!
//! An item inside a future is lost when the future is cancelled. So nothing is ever inside one: what
//! `arm` promises is only a call when there is something to drain.

use std::sync::{Mutex, MutexGuard, PoisonError};

use iroh_gossip_discovery as core;
use pyo3::{prelude::*, types::PyList};
use tokio::task::AbortHandle;

use crate::{
    bridge::{self, Bridge},
    event,
    fork::AtHome,
};

/// The events of one subscriber, from the moment it subscribed.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Subscription(AtHome<Inner>);

struct Inner {
    events: Mutex<core::Subscription>,
    waiter: Mutex<Option<AbortHandle>>,
}

impl Inner {
    fn events(&self) -> MutexGuard<'_, core::Subscription> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_waiter(&self, waiter: Option<AbortHandle>) {
        let mut slot = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *slot, waiter) {
            old.abort();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.replace_waiter(None);
    }
}

impl Subscription {
    pub(crate) fn new(events: core::Subscription) -> Self {
        Self(AtHome::new(Inner { events: Mutex::new(events), waiter: Mutex::new(None) }))
    }
}

#[pymethods]
impl Subscription {
    /// Takes up to `limit` events, oldest first; never waits.
    fn drain<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let events = self.0.get()?.events().drain(limit);
        let list = PyList::empty(py);
        for event in events {
            if let Some(event) = event::convert(py, event)? {
                list.append(event)?;
            }
        }
        Ok(list)
    }

    /// Whether the subscription has ended and everything in it was taken.
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        Ok(self.0.get()?.events().is_closed())
    }

    /// Has `callback()` called once, on the loop, when there is an event or the end.
    fn arm(&self, py: Python<'_>, event_loop: Py<PyAny>, callback: Py<PyAny>) -> PyResult<()> {
        let inner = self.0.get()?;
        let bridge = Bridge::get(py)?;
        let ready = inner.events().ready();
        let jobs = bridge.jobs();
        let waiter = bridge.spawn(async move {
            ready.await;
            jobs.run(move |py| bridge::soon(event_loop.bind(py), (callback,))).await;
        });
        inner.replace_waiter(Some(waiter));
        Ok(())
    }
}
