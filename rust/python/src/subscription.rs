//! Subscriptions: taking items never waits, and waiting takes no item.
//!
//! An item inside a future is lost when the future is cancelled. So no item is ever inside one:
//! `arm` only promises a call once there is something to drain.

use std::sync::{Mutex, MutexGuard, PoisonError};

use iroh_gossip_discovery as core;
use pyo3::{prelude::*, types::PyList};

use crate::{
    bridge::{Bridge, Waiter},
    event,
    fork::AtHome,
    message, stream,
};

macro_rules! subscription {
    ($(#[$doc:meta])* $name:ident, $source:ty, $convert:path) => {
        $(#[$doc])*
        #[pyclass(frozen, module = "iroh_gossip_discovery._core")]
        pub(crate) struct $name(AtHome<Inner<$source>>);

        impl $name {
            pub(crate) fn new(items: $source) -> Self {
                Self(AtHome::new(Inner { items: Mutex::new(items), waiter: Waiter::default() }))
            }
        }

        #[pymethods]
        impl $name {
            /// Takes up to `limit` items, oldest first. Never waits.
            fn drain<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
                let items = self.0.get()?.items().drain(limit);
                let mut converted = Vec::with_capacity(items.len());
                for item in items {
                    converted.extend($convert(py, item)?);
                }
                PyList::new(py, converted)
            }

            /// Returns true if the subscription has ended and all items were taken.
            #[getter]
            fn ended(&self) -> PyResult<bool> {
                Ok(self.0.get()?.items().is_closed())
            }

            /// Calls `callback()` once, on the loop, as soon as there is an item or the
            /// subscription has ended.
            fn arm(
                &self,
                py: Python<'_>,
                event_loop: Py<PyAny>,
                callback: Py<PyAny>,
            ) -> PyResult<()> {
                let inner = self.0.get()?;
                let ready = inner.items().ready();
                inner.waiter.arm(Bridge::get(py)?, ready, event_loop, callback);
                Ok(())
            }
        }
    };
}

struct Inner<T> {
    items: Mutex<T>,
    waiter: Waiter,
}

impl<T> Inner<T> {
    fn items(&self) -> MutexGuard<'_, T> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

subscription! {
    /// The events of one subscriber, from the moment it subscribed.
    Subscription, core::Subscription, event::convert
}
subscription! {
    /// The messages of one subscriber, from the moment it subscribed.
    MessageSubscription, core::Messages, message::convert
}
subscription! {
    /// The streams of one protocol that peers open. Dropping it ends the service.
    Serving, core::Serving, stream::convert
}
