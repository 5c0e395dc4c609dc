//! `Bootstrap`: a peer to dial first, parsed and checked before anything opens.

use std::str::FromStr;

use iroh_gossip_discovery as core;
use pyo3::prelude::*;

use crate::{
    error::{invalid, raise_for},
    extract,
    peer::Peer,
    settings::Settings,
};

/// A bootstrap peer: a ticket, `id@host:port`, a name, an id, or a peer of a book.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Bootstrap(pub(crate) core::Bootstrap);

#[pymethods]
impl Bootstrap {
    #[new]
    fn new(
        py: Python<'_>,
        field: &str,
        source: &Bound<'_, PyAny>,
        settings: Bound<'_, Settings>,
    ) -> PyResult<Self> {
        let topic = settings.get().topic_id();
        if let Ok(peer) = source.cast::<Peer>() {
            let record = peer.get().record();
            let (id, addresses) = (record.id, record.addresses.clone());
            return Ok(Self(core::Bootstrap::Ticket(core::Ticket::new(id, topic, addresses))));
        }
        let text = extract::text(field, source)
            .map_err(|_| extract::wrong_type(field, "str, Peer or an async callable", source))?;
        let parsed =
            core::Bootstrap::from_str(text.trim()).map_err(|error| raise_for(py, field, error))?;
        if let core::Bootstrap::Ticket(ticket) = &parsed
            && ticket.topic != topic
        {
            return Err(invalid(py, field, "is a ticket for another topic"));
        }
        Ok(Self(parsed))
    }
}
