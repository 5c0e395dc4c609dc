//! Errors: the root class is made here. Classes with a second base are made in Python, as Rust
//! can't.

use iroh_gossip_discovery::{EndpointId, Error, StreamError};
use pyo3::{
    call::PyCallArgs,
    create_exception,
    exceptions::{PyBrokenPipeError, PyException},
    prelude::*,
    sync::PyOnceLock,
};

create_exception!(
    iroh_gossip_discovery,
    DiscoveryError,
    PyException,
    "The root of every error that this package raises of its own."
);

/// Makes an error of a class in `iroh_gossip_discovery._errors`.
fn make<'py>(py: Python<'py>, class: &str, args: impl PyCallArgs<'py>) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let made = MODULE
        .get_or_try_init(py, || py.import("iroh_gossip_discovery._errors").map(Bound::unbind))
        .and_then(|module| module.bind(py).getattr(class)?.call1(args));
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Makes the error for a value outside its limits, with the field and what is wrong.
pub(crate) fn invalid(py: Python<'_>, field: &str, reason: &str) -> PyErr {
    make(py, "ConfigurationError", (field, reason))
}

/// Makes the Python error for an error of the core.
pub(crate) fn raise(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Invalid { field, reason } => invalid(py, field, &reason),
        Error::Bind { source, .. } => make(py, "BindError", (source.raw_os_error(), message)),
        Error::StateDirInUse { .. } | Error::StateDir { .. } => {
            make(py, "StateDirError", (message,))
        }
        Error::MessageTooLarge { size, limit } => make(py, "MessageTooLargeError", (size, limit)),
        Error::PeerUnreachable { peer, reason } => {
            make(py, "PeerUnreachableError", (peer.to_string(), reason))
        }
        Error::NoSubscriber { peer } => make(py, "NoSubscriberError", (peer.to_string(),)),
        Error::ProtocolNotServed { peer, protocol } => {
            make(py, "ProtocolNotServedError", (peer.to_string(), protocol))
        }
        Error::TooManyStreams { peer } => make(py, "TooManyStreamsError", (peer.to_string(),)),
        Error::Closed => make(py, "NotRunningError", (message,)),
        _ => DiscoveryError::new_err(message),
    }
}

/// The same, for a field that the user knows by another name.
pub(crate) fn raise_for(py: Python<'_>, field: &str, error: Error) -> PyErr {
    match error {
        Error::Invalid { reason, .. } => invalid(py, field, &reason),
        other => raise(py, other),
    }
}

/// An error that becomes a Python exception.
pub(crate) trait Raise: Send + 'static {
    fn raise(self, py: Python<'_>) -> PyErr;
}

impl Raise for Error {
    fn raise(self, py: Python<'_>) -> PyErr {
        raise(py, self)
    }
}

/// The error that ended a stream, with the peer.
pub(crate) struct OfStream(pub(crate) EndpointId, pub(crate) StreamError);

impl Raise for OfStream {
    fn raise(self, py: Python<'_>) -> PyErr {
        let Self(peer, error) = self;
        match error {
            StreamError::Reset { code, reason } => {
                make(py, "StreamResetError", (peer.to_string(), code, reason))
            }
            StreamError::Link(reason) => {
                make(py, "PeerUnreachableError", (peer.to_string(), reason))
            }
            other => PyBrokenPipeError::new_err(other.to_string()),
        }
    }
}
