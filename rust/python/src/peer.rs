//! `Peer`: a node record as a frozen Python value.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use data_encoding::HEXLOWER;
use iroh::{EndpointAddr, RelayUrl, TransportAddr};
use iroh_gossip_discovery::{EndpointId, NodeRecord, Profile, Readiness};
use iroh_tickets::endpoint::EndpointTicket;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyMappingProxy, PyString, PyTuple},
};

use crate::{error::invalid, extract, record_handle::RecordHandle};

/// Another node of the topic, by the newest record that it signed.
#[pyclass(frozen, eq, hash, module = "iroh_gossip_discovery")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Peer(RecordHandle);

impl Peer {
    pub(crate) fn record(&self) -> &Arc<NodeRecord> {
        self.0.record()
    }
}

impl From<Arc<NodeRecord>> for Peer {
    fn from(record: Arc<NodeRecord>) -> Self {
        Self(RecordHandle::new(record))
    }
}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.id, self.0.sequence, self.0.boot_id).hash(state);
    }
}

#[pymethods]
impl Peer {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("id", "name")
    }

    #[new]
    #[pyo3(signature = (
        id, name, *, addresses = None, metadata = None, protocols = None, sequence = None,
        boot_id = None, expiration = None, readiness = None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "one per field of the record")]
    fn new(
        id: &Bound<'_, PyAny>,
        name: &Bound<'_, PyAny>,
        addresses: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        protocols: Option<&Bound<'_, PyAny>>,
        sequence: Option<&Bound<'_, PyAny>>,
        boot_id: Option<&Bound<'_, PyAny>>,
        expiration: Option<&Bound<'_, PyAny>>,
        readiness: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let or_zero = |field, value: Option<_>| value.map_or(Ok(0), |v| extract::number(field, v));
        let id = extract::endpoint_id("id", id)?;
        let mut profile = Profile::new(extract::text("name", name)?);
        profile.metadata = metadata.map_or(Ok(BTreeMap::new()), extract::metadata)?;
        profile.protocols = protocols.map_or(Ok(Vec::new()), extract::protocols)?;
        if let Some(readiness) = readiness {
            let name = extract::text("readiness", readiness)?;
            // What a later release may say can be copied as well.
            profile.readiness = if name == Readiness::Unknown.as_str() {
                Readiness::Unknown
            } else {
                extract::readiness(readiness)?
            };
        }
        let mut record = NodeRecord::new(id, profile);
        record.sequence = or_zero("sequence", sequence)?;
        record.boot_id = or_zero("boot_id", boot_id)?;
        record.addresses = addresses.map_or(Ok(Vec::new()), self::addresses)?;
        if let Some(expiration) = expiration {
            record.expiration = extract::seconds("expiration", expiration)?;
        }
        Ok(Self::from(Arc::new(record)))
    }

    /// The endpoint id: the peer's public key, proven by its signature, as 64 hex digits.
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        id_text(py, &self.0.id)
    }

    /// The first ten digits of the id, to show beside a name.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.id.fmt_short()
    }

    /// A label that the peer chose. Several peers may share one.
    #[getter]
    fn name(&self) -> &str {
        &self.0.profile.name
    }

    /// The addresses that the peer announces, best first: `ip:port`, or a relay's URL.
    #[getter]
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.addresses.iter().map(format_address))
    }

    /// How to dial the peer's endpoint, as a ticket of iroh's own: `iroh.EndpointTicket` parses it.
    #[getter]
    fn endpoint_ticket(&self, py: Python<'_>) -> PyResult<String> {
        let id = iroh::EndpointId::from_bytes(self.0.id.as_bytes())
            .map_err(|_| invalid(py, "id", "is no public key"))?;
        let address = EndpointAddr::from_parts(id, self.0.addresses.iter().cloned());
        Ok(EndpointTicket::new(address).to_string())
    }

    /// The text that the peer announces, by key. It is read-only.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        Ok(PyMappingProxy::new(py, self.metadata_dict(py)?.as_mapping()))
    }

    /// The protocols (ALPNs) that the peer serves. Bytes that are not UTF-8 are shown as `\xff`.
    #[getter]
    fn protocols<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(
            py,
            self.0.profile.protocols.iter().map(|alpn| match std::str::from_utf8(alpn) {
                Ok(text) => text.to_owned(),
                Err(_) => alpn.escape_ascii().to_string(),
            }),
        )
    }

    /// Whether the peer takes work, by its own account: `ready`, `draining`, `critical`. `unknown`
    /// stands for what this release does not know.
    #[getter]
    fn readiness(&self) -> &'static str {
        self.0.profile.readiness.as_str()
    }

    /// The record's sequence number. Of two records of one peer, the one with the higher number
    /// holds.
    #[getter]
    fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// A number that is random for each process of the peer, so that it changes with a restart.
    #[getter]
    fn boot_id(&self) -> u64 {
        self.0.boot_id
    }

    /// How long the record is kept without a newer one, in seconds.
    #[getter]
    fn expiration(&self) -> f64 {
        self.0.expiration.as_secs_f64()
    }

    /// The peer as a dict of plain values, as docs/peer.schema.json describes it; for JSON.
    pub(crate) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        fields.set_item("id", self.id(py))?;
        fields.set_item("name", self.name())?;
        fields.set_item("addresses", self.addresses(py)?.to_list())?;
        fields.set_item("metadata", self.metadata_dict(py)?)?;
        fields.set_item("protocols", self.protocols(py)?.to_list())?;
        fields.set_item("readiness", self.readiness())?;
        fields.set_item("sequence", self.sequence())?;
        // As text, because many languages read JSON's numbers exactly only below 2⁵³.
        fields.set_item("boot_id", format!("{:016x}", self.boot_id()))?;
        fields.set_item("expiration", self.expiration())?;
        Ok(fields)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = self.name().into_pyobject(py)?.repr()?;
        Ok(format!("<Peer {name} {}>", self.fingerprint()))
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<((String, &str), Bound<'py, PyDict>)> {
        let fields = PyDict::new(py);
        fields.set_item("addresses", self.addresses(py)?)?;
        fields.set_item("metadata", self.metadata_dict(py)?)?;
        let protocols = self.0.profile.protocols.iter().map(|alpn| PyBytes::new(py, alpn));
        fields.set_item("protocols", PyTuple::new(py, protocols)?)?;
        fields.set_item("sequence", self.sequence())?;
        fields.set_item("boot_id", self.boot_id())?;
        fields.set_item("expiration", self.expiration())?;
        fields.set_item("readiness", self.readiness())?;
        Ok(((self.0.id.to_string(), self.name()), fields))
    }
}

impl Peer {
    fn metadata_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        (&self.0.profile.metadata).into_pyobject(py)
    }
}

/// Makes the Python text of an id, without a copy on the way.
pub(crate) fn id_text<'py>(py: Python<'py>, id: &EndpointId) -> Bound<'py, PyString> {
    let mut text = [0; 64];
    HEXLOWER.encode_mut(id.as_bytes(), &mut text);
    PyString::new(py, std::str::from_utf8(&text).expect("hex digits are ASCII"))
}

pub(crate) fn format_address(address: &TransportAddr) -> String {
    match address {
        TransportAddr::Ip(address) => address.to_string(),
        TransportAddr::Relay(url) => url.to_string(),
        other => other.to_string(),
    }
}

/// Takes a list of addresses as users write them.
pub(crate) fn addresses(addresses: &Bound<'_, PyAny>) -> PyResult<Vec<TransportAddr>> {
    extract::list("addresses", "str", addresses, |field, value| {
        let text = extract::text(field, value)?;
        parse_address(&text).ok_or_else(|| {
            let reason = format!("{text:?} is neither ip:port nor a relay's URL");
            invalid(value.py(), field, &reason)
        })
    })
}

/// Takes addresses as [`addresses`] does, but refuses those that a ticket would silently leave out.
pub(crate) fn dialable(addresses: &Bound<'_, PyAny>) -> PyResult<Vec<TransportAddr>> {
    extract::list("addresses", "str", addresses, |field, value| {
        let text = extract::text(field, value)?;
        let refuse = |reason: &str| invalid(value.py(), field, &format!("{text:?} {reason}"));
        let address =
            parse_address(&text).ok_or_else(|| refuse("is neither ip:port nor a relay's URL"))?;
        if let TransportAddr::Ip(socket) = &address {
            let ip = socket.ip();
            if ip.is_unspecified() {
                return Err(refuse("is every address of a machine: name the one to dial"));
            }
            if ip.is_multicast() || ip == Ipv4Addr::BROADCAST {
                return Err(refuse("is no address of one machine"));
            }
            if matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 0) {
                return Err(refuse("is no address that can be dialed"));
            }
            if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
                return Err(refuse(
                    "is an IPv6 link-local address: it means nothing on another host",
                ));
            }
            if socket.port() == 0 {
                return Err(refuse("has port 0, which can't be dialed"));
            }
        }
        Ok(address)
    })
}

fn parse_address(text: &str) -> Option<TransportAddr> {
    if let Ok(address) = SocketAddr::from_str(text) {
        return Some(TransportAddr::Ip(address));
    }
    // `seed:4433` is a URL too, with the scheme `seed`. A relay's URL must be HTTP.
    let url = RelayUrl::from_str(text).ok()?;
    let is_relay = matches!(url.scheme(), "https" | "http") && url.host().is_some();
    is_relay.then_some(TransportAddr::Relay(url))
}
