//! Ids and tickets that need no running node.

use iroh_gossip_discovery::{EndpointId, Ticket, Topic};
use pyo3::prelude::*;

use crate::{
    error::{raise, raise_for},
    extract, peer,
};

/// Returns the endpoint id of a secret key.
#[pyfunction]
pub(crate) fn endpoint_id(secret_key: &Bound<'_, PyAny>) -> PyResult<String> {
    let key = iroh::SecretKey::from_bytes(&extract::secret_key(secret_key)?);
    Ok(EndpointId::from(key.public()).to_string())
}

/// Makes a ticket for a node that need not run: its id, its topic and its addresses.
#[pyfunction]
pub(crate) fn make_ticket(
    id: &Bound<'_, PyAny>,
    topic: &Bound<'_, PyAny>,
    addresses: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let py = id.py();
    let id = extract::endpoint_id("id", id)?;
    let topic = Topic::new(&extract::text("topic", topic)?).map_err(|error| raise(py, error))?;
    let addresses = peer::dialable(addresses)?;
    Ok(Ticket::new(id, topic.id(), addresses).to_string())
}

/// What a ticket says: the id, the id of the topic, and where the node can be dialed.
#[pyfunction]
pub(crate) fn read_ticket(ticket: &Bound<'_, PyAny>) -> PyResult<(String, String, Vec<String>)> {
    let text = extract::text("ticket", ticket)?;
    let Ticket { id, topic, addresses, .. } =
        text.parse().map_err(|error| raise_for(ticket.py(), "ticket", error))?;
    let addresses = addresses.iter().map(peer::format_address).collect();
    Ok((id.to_string(), topic.to_string(), addresses))
}

/// The id of a topic: 64 lower-case hex digits.
#[pyfunction]
pub(crate) fn topic_id(topic: &Bound<'_, PyAny>) -> PyResult<String> {
    let name = extract::text("topic", topic)?;
    Ok(Topic::new(&name).map_err(|error| raise(topic.py(), error))?.id().to_string())
}
