//! One interpreter of a process: the threads of the runtime enter Python through it alone.

use std::sync::OnceLock;

use pyo3::{exceptions::PyImportError, prelude::*};

/// Checks that this is the interpreter that imported the package first.
#[pyfunction]
pub(crate) fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<usize> = OnceLock::new();
    // Each interpreter has a module `sys` of its own, for as long as it lives.
    let here = py.import("sys")?.as_ptr().addr();
    if *FIRST.get_or_init(|| here) == here {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "iroh_gossip_discovery serves one interpreter of a process, and another one has imported \
         it: import it in the main interpreter alone, or use a process for each",
    ))
}
