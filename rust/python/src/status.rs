//! The state of a peer and of the first contact, as plain values that Python puts into its classes.

use std::time::Instant;

use iroh_gossip_discovery::{Joined, LinkStatus, PeerStatus};
use pyo3::{prelude::*, types::PyDict};

use crate::peer::format_address;

/// The member that the book was compared with, or the peers that did not answer, with the reasons.
pub(crate) type Contact = (Option<String>, Vec<(String, String)>);

pub(crate) fn contact(joined: Joined) -> Contact {
    match joined {
        Joined::Synced(peer) => (Some(peer.to_string()), Vec::new()),
        Joined::Alone(asked) => (None, asked),
        _ => (None, Vec::new()),
    }
}

/// Returns the fields of Python's `PeerStatus`.
pub(crate) fn fields<'py>(py: Python<'py>, status: &PeerStatus) -> PyResult<Bound<'py, PyDict>> {
    let PeerStatus { suspected, last_heard, link, .. } = status;
    let fields = PyDict::new(py);
    fields.set_item("state", if *suspected { "suspected" } else { "alive" })?;
    let ago = Instant::now().saturating_duration_since(last_heard.into_std());
    fields.set_item("heard_ago", ago.as_secs_f64())?;
    fields.set_item("path", link.as_ref().map(path))?;
    fields.set_item("round_trip", link.as_ref().map(|link| link.round_trip.as_secs_f64()))?;
    fields.set_item("address", link.as_ref().map(|link| format_address(&link.address)))?;
    Ok(fields)
}

fn path(link: &LinkStatus) -> &'static str {
    if link.relayed { "relayed" } else { "direct" }
}
