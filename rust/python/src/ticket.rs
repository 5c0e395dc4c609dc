//! Ids and tickets without a running node.

use iroh_gossip_discovery::{EndpointId, Ticket, Topic};
use pyo3::prelude::*;

use crate::{error::raise, extract, peer};

/// The endpoint id of a secret key.
#[pyfunction]
pub(crate) fn endpoint_id(secret_key: &Bound<'_, PyAny>) -> PyResult<String> {
    let key = iroh::SecretKey::from_bytes(&extract::secret_key(secret_key)?);
    Ok(EndpointId::from(key.public()).to_string())
}

/// A ticket for a node that need not run: its id, its topic, and where it can be dialed.
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
    Ok(Ticket { id, topic: topic.id(), addresses }.to_string())
}
