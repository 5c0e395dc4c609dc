//! The gate: the only way from Rust into Python. It is shut before the interpreter goes away.
//!
//! A thread that attaches while the interpreter finalizes hangs or crashes the process. A flag
//! alone leaves a window between the check and the attach. So a thread that enters holds a read
//! lock while it is inside. `atexit` takes the write lock, with the interpreter released, before
//! anything is torn down.

use std::sync::{PoisonError, RwLock, TryLockError};

use pyo3::prelude::*;

static OPEN: RwLock<bool> = RwLock::new(true);

/// Runs `inside` attached to the interpreter; `None` if the gate is shut or the interpreter is
/// ending.
pub(crate) fn enter<R>(inside: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    // `try_read`, because the only writer is the exit: a thread that meets it has come too late.
    let open = match OPEN.try_read() {
        Ok(open) => open,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    if *open { Python::try_attach(inside) } else { None }
}

/// Shuts the gate for good, and waits until no thread is inside.
pub(crate) fn shut(py: Python<'_>) {
    py.detach(|| *OPEN.write().unwrap_or_else(PoisonError::into_inner) = false);
}
