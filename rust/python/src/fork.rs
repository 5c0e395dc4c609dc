//! Guards against use in a forked child: threads and sockets stay with the parent process.

use std::sync::OnceLock;

use pyo3::{exceptions::PyRuntimeError, prelude::*};

/// The process that started the runtime.
static HOME: OnceLock<u32> = OnceLock::new();

/// Remembers this process as the one that the runtime's threads live in.
pub(crate) fn settle() {
    HOME.get_or_init(std::process::id);
}

/// Returns true if this process was forked from the one that the runtime lives in.
pub(crate) fn is_child() -> bool {
    HOME.get().is_some_and(|home| *home != std::process::id())
}

/// Fails with a `RuntimeError` in a forked child.
pub(crate) fn check() -> PyResult<()> {
    if is_child() {
        return Err(PyRuntimeError::new_err(
            "iroh_gossip_discovery was started before this process was forked, and its threads and \
             sockets stayed with the parent: start the process with \
             multiprocessing.get_context(\"spawn\") instead",
        ));
    }
    Ok(())
}

/// A value that a forked child neither uses nor drops, because its locks and its runtime are the
/// parent's.
pub(crate) struct AtHome<T>(Option<T>);

impl<T> AtHome<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Returns the value.
    ///
    /// # Errors
    /// `RuntimeError` in a forked child.
    pub(crate) fn get(&self) -> PyResult<&T> {
        check()?;
        self.0.as_ref().ok_or_else(|| PyRuntimeError::new_err("the value is gone"))
    }

    /// Takes the value out, for a drop that needs it; `None` in a forked child.
    pub(crate) fn take(&mut self) -> Option<T> {
        let value = self.0.take();
        if is_child() {
            std::mem::forget(value);
            return None;
        }
        value
    }
}

impl<T> Drop for AtHome<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
