//! Messages as frozen Python values, and the subscription that gives them.

use bytes::Bytes;
use iroh_gossip_discovery::{self as core, EndpointId, MessageEvent, MessageKind, proto::Channel};
use pyo3::{
    IntoPyObjectExt,
    prelude::*,
    types::{PyBytes, PyString},
};

use crate::{
    error::{invalid, raise},
    extract,
    peer::id_text,
};

/// A message from another node.
#[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Message {
    sender: EndpointId,
    data: Bytes,
    kind: Kind,
    channel: Option<Channel>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Direct,
    Broadcast,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Broadcast => "broadcast",
        }
    }
}

#[pymethods]
impl Message {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("sender", "data", "kind", "channel")
    }

    #[new]
    #[pyo3(signature = (sender, data, kind, channel=None))]
    fn new(
        py: Python<'_>,
        sender: &Bound<'_, PyAny>,
        data: &[u8],
        kind: &str,
        channel: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let sender = extract::endpoint_id("sender", sender)?;
        let kinds = [Kind::Direct, Kind::Broadcast];
        let kind = kinds
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or_else(|| invalid(py, "kind", &format!("{kind:?} is not direct or broadcast")))?;
        let channel = channel_of(channel)?;
        Ok(Self { sender, data: Bytes::copy_from_slice(data), kind, channel })
    }

    /// The endpoint id of the sender, authenticated, as 64 hex digits.
    #[getter]
    fn sender<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        id_text(py, &self.sender)
    }

    /// The bytes that were sent.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.data)
    }

    /// How it was sent: `"direct"`, to this node alone, or `"broadcast"`, to all members.
    #[getter]
    fn kind(&self) -> &'static str {
        self.kind.name()
    }

    /// The channel that it is for; `None` if it is for none.
    #[getter]
    fn channel(&self) -> Option<&str> {
        self.channel.as_ref().map(Channel::as_str)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let short = self.data.get(..32).unwrap_or(&self.data);
        let data = PyBytes::new(py, short).repr()?;
        let more = if self.data.len() > short.len() {
            format!("…, {} bytes", self.data.len())
        } else {
            String::new()
        };
        let (sender, kind) = (self.sender.fmt_short(), self.kind.name());
        let channel = match &self.channel {
            Some(channel) => format!(", channel={}", PyString::new(py, channel.as_str()).repr()?),
            None => String::new(),
        };
        Ok(format!("Message(sender='{sender}…', data={data}{more}, kind='{kind}'{channel})"))
    }

    fn __getnewargs__<'py>(
        &self,
        py: Python<'py>,
    ) -> (Bound<'py, PyString>, Bound<'py, PyBytes>, &'static str, Option<&str>) {
        (self.sender(py), self.data(py), self.kind.name(), self.channel())
    }
}

/// This subscriber was too slow, so messages were dropped here.
#[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct MessagesLost {
    count: u64,
}

#[pymethods]
impl MessagesLost {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("count",)
    }

    #[new]
    fn new(count: u64) -> Self {
        Self { count }
    }

    /// How many messages were dropped here.
    #[getter]
    fn count(&self) -> u64 {
        self.count
    }

    fn __repr__(&self) -> String {
        format!("MessagesLost({})", self.count)
    }

    fn __getnewargs__(&self) -> (u64,) {
        (self.count,)
    }
}

/// The confirmation that a subscriber of the receiver has a message in its queue.
#[pyclass(frozen, eq, module = "iroh_gossip_discovery")]
#[derive(PartialEq)]
pub(crate) struct Receipt {
    peer: String,
    elapsed: f64,
}

#[pymethods]
impl Receipt {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("peer", "elapsed")
    }

    #[new]
    fn new(peer: &Bound<'_, PyAny>, elapsed: f64) -> PyResult<Self> {
        Ok(Self { peer: extract::endpoint_id("peer", peer)?.to_string(), elapsed })
    }

    /// The endpoint id of the receiver, as 64 hex digits.
    #[getter]
    fn peer(&self) -> &str {
        &self.peer
    }

    /// Seconds from the call to the peer's answer, dialing included.
    #[getter]
    fn elapsed(&self) -> f64 {
        self.elapsed
    }

    fn __repr__(&self) -> String {
        let peer = self.peer.get(..10).unwrap_or_default();
        format!("Receipt(peer='{peer}…', elapsed={:.6})", self.elapsed)
    }

    fn __getnewargs__(&self) -> (&str, f64) {
        (&self.peer, self.elapsed)
    }
}

/// Converts a receipt of the core, to be the result of a future.
pub(crate) fn receipt(receipt: core::Receipt) -> Receipt {
    Receipt { peer: receipt.peer.to_string(), elapsed: receipt.elapsed.as_secs_f64() }
}

/// Converts what a subscriber reads; `None` for a kind that has no Python class.
pub(crate) fn convert(py: Python<'_>, event: MessageEvent) -> PyResult<Option<Py<PyAny>>> {
    Some(match event {
        MessageEvent::Message(message) => {
            let kind = match message.kind {
                MessageKind::Direct => Kind::Direct,
                MessageKind::Broadcast => Kind::Broadcast,
                _ => return Ok(None),
            };
            let core::Message { sender, channel, data, .. } = message;
            Message { sender, data, kind, channel }.into_py_any(py)
        }
        MessageEvent::Lost(count) => MessagesLost { count }.into_py_any(py),
        _ => return Ok(None),
    })
    .transpose()
}

/// The channel of a name, if one is given.
pub(crate) fn channel_of(name: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Channel>> {
    let Some(name) = name else { return Ok(None) };
    let text = extract::text("channel", name)?;
    let channel = Channel::new(&text).map_err(|error| raise(name.py(), error.into()))?;
    Ok(Some(channel))
}

/// Refuses a channel that is outside its limits.
#[pyfunction]
pub(crate) fn check_channel(channel: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    channel_of(channel).map(drop)
}

/// Takes the id of a peer, from a `Peer` or from text.
pub(crate) fn peer_id(peer: &Bound<'_, PyAny>) -> PyResult<EndpointId> {
    named_peer_id("peer", peer)
}

/// As [`peer_id`], for an argument of this name.
pub(crate) fn named_peer_id(field: &str, peer: &Bound<'_, PyAny>) -> PyResult<EndpointId> {
    if let Ok(peer) = peer.cast::<crate::peer::Peer>() {
        return Ok(peer.get().record().id);
    }
    if peer.is_instance_of::<PyString>() {
        return extract::endpoint_id(field, peer);
    }
    Err(extract::wrong_type(field, "Peer or str", peer))
}
