//! The events of a topic, as frozen Python values that match, pickle and compare.

use iroh_gossip_discovery::{Event, LostReason};
use pyo3::{
    IntoPyObjectExt,
    prelude::*,
    types::{PyDict, PyTuple},
};

use crate::peer::Peer;

macro_rules! peer_event {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
        #[derive(PartialEq, Eq, Hash)]
        pub(crate) struct $name {
            peer: Peer,
        }

        #[pymethods]
        impl $name {
            #[classattr]
            fn __match_args__() -> (&'static str,) {
                ("peer",)
            }

            #[new]
            fn new(peer: Bound<'_, Peer>) -> Self {
                Self { peer: peer.get().clone() }
            }

            /// The peer, as its newest record describes it.
            #[getter]
            fn peer(&self) -> Peer {
                self.peer.clone()
            }

            /// The event as a dict of plain values, as docs/event.schema.json describes it; for
            /// JSON.
            fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
                let fields = named(py, stringify!($name))?;
                fields.set_item("peer", self.peer.to_dict(py)?)?;
                Ok(fields)
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                Ok(format!(concat!(stringify!($name), "({})"), repr(py, &self.peer)?))
            }

            fn __getnewargs__(&self) -> (Peer,) {
                (self.peer.clone(),)
            }
        }
    };
}

macro_rules! plain_event {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
        #[derive(PartialEq, Eq, Hash)]
        pub(crate) struct $name;

        #[pymethods]
        impl $name {
            #[classattr]
            fn __match_args__(py: Python<'_>) -> Bound<'_, PyTuple> {
                PyTuple::empty(py)
            }

            #[new]
            fn new() -> Self {
                Self
            }

            /// The event as a dict of plain values, as docs/event.schema.json describes it; for
            /// JSON.
            #[allow(clippy::unused_self, reason = "a method in Python")]
            fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
                named(py, stringify!($name))
            }

            #[allow(clippy::unused_self, reason = "a method in Python")]
            fn __repr__(&self) -> &'static str {
                concat!(stringify!($name), "()")
            }

            #[allow(clippy::unused_self, reason = "a method in Python")]
            fn __getnewargs__<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
                PyTuple::empty(py)
            }
        }
    };
}

peer_event! {
    /// A peer entered the address book.
    PeerJoined
}
peer_event! {
    /// A peer in the book changed its name, addresses, metadata or protocols, or was restarted.
    PeerUpdated
}
peer_event! {
    /// A peer did not answer a probe, or a member accuses it. It has a few seconds to refute.
    PeerSuspected
}
peer_event! {
    /// A suspected peer refuted the suspicion, or answered.
    PeerRecovered
}
peer_event! {
    /// A peer left, and is out of the book.
    PeerLeft
}
plain_event! {
    /// No authenticated link to any member of the topic is left.
    Isolated
}
plain_event! {
    /// A member of the topic is linked again after `Isolated`.
    Reconnected
}

/// A peer is out of the book without a goodbye.
#[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct PeerLost {
    peer: Peer,
    reason: String,
}

#[pymethods]
impl PeerLost {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("peer", "reason")
    }

    #[new]
    fn new(peer: Bound<'_, Peer>, reason: String) -> Self {
        Self { peer: peer.get().clone(), reason }
    }

    /// The peer, as its last record described it.
    #[getter]
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// The reason: `"unreachable"`, `"expired"`, `"denied"` or `"displaced"`.
    ///
    /// `"unreachable"` means that it answered neither this node nor others, and did not refute the
    /// suspicion. `"expired"` means that its record was not refreshed for the expiration that it
    /// announced. `"denied"` means that the lists of this node keep it out from now on.
    /// `"displaced"` means that the book was full, and that this node had never reached it.
    #[getter]
    fn reason(&self) -> &str {
        &self.reason
    }

    /// The event as a dict of plain values, as docs/event.schema.json describes it; for JSON.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = named(py, "PeerLost")?;
        fields.set_item("peer", self.peer.to_dict(py)?)?;
        fields.set_item("reason", self.reason())?;
        Ok(fields)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let reason = self.reason().into_pyobject(py)?.repr()?;
        Ok(format!("PeerLost({}, reason={reason})", repr(py, &self.peer)?))
    }

    fn __getnewargs__(&self) -> (Peer, &str) {
        (self.peer.clone(), &self.reason)
    }
}

/// Another process repeatedly announces with this node's key, as after copying a key or a machine
/// image.
#[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct IdentityConflict {
    boot_id: u64,
}

#[pymethods]
impl IdentityConflict {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("boot_id",)
    }

    #[new]
    fn new(boot_id: u64) -> Self {
        Self { boot_id }
    }

    /// The boot id of the other process: random for each process.
    #[getter]
    fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// The event as a dict of plain values, as docs/event.schema.json describes it; for JSON.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = named(py, "IdentityConflict")?;
        fields.set_item("boot_id", format!("{:016x}", self.boot_id))?;
        Ok(fields)
    }

    fn __repr__(&self) -> String {
        format!("IdentityConflict({})", self.boot_id)
    }

    fn __getnewargs__(&self) -> (u64,) {
        (self.boot_id,)
    }
}

/// A file of the state directory was damaged; it was set aside, and the node started all the same.
#[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct StateDamaged {
    reason: String,
}

#[pymethods]
impl StateDamaged {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("reason",)
    }

    #[new]
    fn new(reason: String) -> Self {
        Self { reason }
    }

    /// Which file, why, and what became of it.
    #[getter]
    fn reason(&self) -> &str {
        &self.reason
    }

    /// The event as a dict of plain values, as docs/event.schema.json describes it; for JSON.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = named(py, "StateDamaged")?;
        fields.set_item("reason", self.reason())?;
        Ok(fields)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let reason = self.reason().into_pyobject(py)?.repr()?;
        Ok(format!("StateDamaged({reason})"))
    }

    fn __getnewargs__(&self) -> (&str,) {
        (&self.reason,)
    }
}

/// This subscriber was too slow, so its oldest events were dropped. The book has the current state.
#[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct EventsLost {
    count: u64,
}

#[pymethods]
impl EventsLost {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("count",)
    }

    #[new]
    fn new(count: u64) -> Self {
        Self { count }
    }

    /// How many events were dropped here.
    #[getter]
    fn count(&self) -> u64 {
        self.count
    }

    /// The event as a dict of plain values, as docs/event.schema.json describes it; for JSON.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = named(py, "EventsLost")?;
        fields.set_item("count", self.count)?;
        Ok(fields)
    }

    fn __repr__(&self) -> String {
        format!("EventsLost({})", self.count)
    }

    fn __getnewargs__(&self) -> (u64,) {
        (self.count,)
    }
}

/// Makes a dict that begins with an event's name.
fn named<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("event", name)?;
    Ok(fields)
}

fn repr(py: Python<'_>, peer: &Peer) -> PyResult<String> {
    Ok(peer.clone().into_pyobject(py)?.repr()?.to_string())
}

/// Converts an event; `None` for a kind that has no Python class.
pub(crate) fn convert(py: Python<'_>, event: Event) -> PyResult<Option<Py<PyAny>>> {
    Some(match event {
        Event::PeerJoined(record) => PeerJoined { peer: record.into() }.into_py_any(py),
        Event::PeerUpdated(record) => PeerUpdated { peer: record.into() }.into_py_any(py),
        Event::PeerSuspected(record) => PeerSuspected { peer: record.into() }.into_py_any(py),
        Event::PeerRecovered(record) => PeerRecovered { peer: record.into() }.into_py_any(py),
        Event::IdentityConflict { boot_id } => IdentityConflict { boot_id }.into_py_any(py),
        Event::PeerLeft(record) => PeerLeft { peer: record.into() }.into_py_any(py),
        Event::PeerLost(record, reason) => {
            PeerLost { peer: record.into(), reason: name(reason).to_owned() }.into_py_any(py)
        }
        Event::Isolated => Isolated.into_py_any(py),
        Event::Reconnected => Reconnected.into_py_any(py),
        Event::StateDamaged { reason } => {
            StateDamaged { reason: reason.as_ref().to_owned() }.into_py_any(py)
        }
        Event::EventsLost(count) => EventsLost { count }.into_py_any(py),
        // A kind of event that this version of the package does not know yet.
        _ => return Ok(None),
    })
    .transpose()
}

fn name(reason: LostReason) -> &'static str {
    match reason {
        LostReason::Expired => "expired",
        LostReason::Unreachable => "unreachable",
        LostReason::Denied => "denied",
        LostReason::Displaced => "displaced",
        _ => "unknown",
    }
}
