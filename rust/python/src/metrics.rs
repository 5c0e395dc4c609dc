//! The counters of a node, by the names of the fields of Python's `Metrics`.

use iroh_gossip_discovery::Metrics;
use pyo3::{
    prelude::*,
    types::{IntoPyDict, PyDict},
};

use crate::logs;

pub(crate) fn fields<'py>(py: Python<'py>, metrics: &Metrics) -> PyResult<Bound<'py, PyDict>> {
    let Metrics { protocol, streams, .. } = metrics;
    let fields = [
        ("peers", metrics.peers as u64),
        ("suspects", metrics.suspects as u64),
        ("tombstones", protocol.tombstones as u64),
        ("neighbors", protocol.neighbors as u64),
        ("observers", protocol.observers as u64),
        ("links", metrics.links as u64),
        ("links_relayed", metrics.links_relayed as u64),
        ("banned", metrics.banned as u64),
        ("links_opened", metrics.links_opened),
        ("dials", metrics.dials),
        ("dials_failed", metrics.dials_failed),
        ("frames_sent", metrics.frames_sent),
        ("frames_received", metrics.frames_received),
        ("bytes_sent", metrics.bytes_sent),
        ("bytes_received", metrics.bytes_received),
        ("streams", streams.open),
        ("streams_opened", streams.opened),
        ("streams_accepted", streams.accepted),
        ("streams_refused", streams.refused),
        ("streams_reset", streams.reset),
        ("stream_bytes_sent", streams.bytes_sent),
        ("stream_bytes_received", streams.bytes_received),
        ("announcements", protocol.announcements),
        ("heartbeats", metrics.heartbeats),
        ("verifications", protocol.verifications),
        ("syncs_started", protocol.syncs_started),
        ("syncs_served", protocol.syncs_served),
        ("syncs_completed", protocol.syncs_completed),
        ("probes", protocol.probes),
        ("probes_failed", protocol.probes_failed),
        ("accusations", protocol.accusations),
        ("refutations", protocol.refutations),
        ("broadcasts_sent", protocol.broadcasts_sent),
        ("broadcasts_received", protocol.broadcasts_received),
        ("pauses", protocol.pauses),
        ("log_records_dropped", logs::logs_dropped()),
    ]
    .into_py_dict(py)?;
    fields.set_item("round_trip", metrics.round_trip.map(|time| time.as_secs_f64()))?;
    fields.set_item("bans", (&metrics.bans).into_py_dict(py)?)?;
    fields.set_item("dropped", (&metrics.dropped).into_py_dict(py)?)?;
    let events = &metrics.events;
    let events = [
        ("PeerJoined", events.peer_joined),
        ("PeerUpdated", events.peer_updated),
        ("PeerSuspected", events.peer_suspected),
        ("PeerRecovered", events.peer_recovered),
        ("PeerLost", events.peer_lost),
        ("PeerLeft", events.peer_left),
        ("Isolated", events.isolated),
        ("Reconnected", events.reconnected),
        ("IdentityConflict", events.identity_conflict),
        ("StateDamaged", events.state_damaged),
    ];
    fields.set_item("events", events.into_py_dict(py)?)?;
    Ok(fields)
}
