//! The configuration: the values of the presets, and the check of every field against its limits.

use std::{net::SocketAddr, str::FromStr};

use iroh::RelayUrl;
use iroh_gossip_discovery::{Advertise, Config};
use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};

use crate::{
    error::{invalid, raise},
    extract,
};

/// Builds a preset: `class(**fields)` with the values of `local`, `lan` or `internet`.
#[pyfunction]
pub(crate) fn preset<'py>(
    py: Python<'py>,
    class: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let config = match name {
        "local" => Config::local(),
        "lan" => Config::lan(),
        "internet" => Config::internet(),
        _ => return Err(invalid(py, "preset", &format!("{name:?} is not local, lan or internet"))),
    };
    let fields = PyDict::new(py);
    let Config { protocol, .. } = &config;
    fields.set_item("bind", PyTuple::new(py, config.bind.iter().map(ToString::to_string))?)?;
    let advertise = config.advertise.iter().map(ToString::to_string);
    fields.set_item("advertise", PyTuple::new(py, advertise)?)?;
    fields.set_item("mdns", config.mdns)?;
    fields.set_item("relay", config.relay)?;
    fields.set_item(
        "relay_urls",
        PyTuple::new(py, config.relay_urls.iter().map(ToString::to_string))?,
    )?;
    fields.set_item("relay_ca", config.relay_ca.as_ref())?;
    fields.set_item("dns", config.dns)?;
    fields.set_item("event_buffer", config.event_buffer)?;
    fields.set_item("message_buffer", config.message_buffer)?;
    fields.set_item("idle_timeout", config.idle_timeout.as_secs_f64())?;
    fields.set_item("keep_alive", config.keep_alive.as_secs_f64())?;
    fields.set_item("connect_timeout", config.connect_timeout.as_secs_f64())?;
    fields.set_item("capacity", protocol.capacity)?;
    fields.set_item("expiration", protocol.expiration.map(|e| e.as_secs_f64()))?;
    fields.set_item("neighbors", protocol.neighbors)?;
    fields.set_item("sync_interval_min", protocol.sync_interval_min.as_secs_f64())?;
    fields.set_item("sync_interval_max", protocol.sync_interval_max.as_secs_f64())?;
    fields.set_item("random_sync_interval", protocol.random_sync_interval.as_secs_f64())?;
    fields.set_item("link_idle", protocol.link_idle.as_secs_f64())?;
    fields.set_item("redial_min", protocol.redial_min.as_secs_f64())?;
    fields.set_item("redial_max", protocol.redial_max.as_secs_f64())?;
    fields.set_item("probe_interval", protocol.probe_interval.as_secs_f64())?;
    fields.set_item("probe_timeout", protocol.probe_timeout.as_secs_f64())?;
    fields.set_item("suspicion", protocol.suspicion.as_secs_f64())?;
    fields.set_item("suspicion_max", protocol.suspicion_max.as_secs_f64())?;
    fields.set_item("heal_interval", protocol.heal_interval.as_secs_f64())?;
    fields.set_item("heal_interval_max", protocol.heal_interval_max.as_secs_f64())?;
    fields.set_item("leave_timeout", protocol.leave_timeout.as_secs_f64())?;
    fields.set_item("concurrent_syncs", protocol.concurrent_syncs)?;
    fields.set_item("observers", protocol.observers)?;
    class.call((), Some(&fields))
}

/// Checks every field of a configuration.
#[pyfunction]
pub(crate) fn check_config(config: &Bound<'_, PyAny>) -> PyResult<()> {
    extract(config).map(drop)
}

/// Takes the fields of a Python `Config`.
pub(crate) fn extract(config: &Bound<'_, PyAny>) -> PyResult<Config> {
    let py = config.py();
    let seconds = |field| extract::seconds_up_to_any(field, &config.getattr(field)?);
    let count = |field| extract::count(field, &config.getattr(field)?);
    let boolean = |field| extract::boolean(field, &config.getattr(field)?);
    let expiration = config.getattr("expiration")?;
    let mut taken = Config::lan();
    let protocol = &mut taken.protocol;
    protocol.capacity = count("capacity")?;
    protocol.expiration = if expiration.is_none() {
        None
    } else {
        Some(extract::seconds_up_to_any("expiration", &expiration)?)
    };
    protocol.neighbors = count("neighbors")?;
    protocol.sync_interval_min = seconds("sync_interval_min")?;
    protocol.sync_interval_max = seconds("sync_interval_max")?;
    protocol.random_sync_interval = seconds("random_sync_interval")?;
    protocol.link_idle = seconds("link_idle")?;
    protocol.redial_min = seconds("redial_min")?;
    protocol.redial_max = seconds("redial_max")?;
    protocol.probe_interval = seconds("probe_interval")?;
    protocol.probe_timeout = seconds("probe_timeout")?;
    protocol.suspicion = seconds("suspicion")?;
    protocol.suspicion_max = seconds("suspicion_max")?;
    protocol.heal_interval = seconds("heal_interval")?;
    protocol.heal_interval_max = seconds("heal_interval_max")?;
    protocol.leave_timeout = seconds("leave_timeout")?;
    protocol.concurrent_syncs = count("concurrent_syncs")?;
    protocol.observers = count("observers")?;

    taken.bind = extract::list("bind", "str", &config.getattr("bind")?, |field, value| {
        let text = extract::text(field, value)?;
        SocketAddr::from_str(&text).map_err(|_| {
            invalid(py, field, &format!("{text:?} is not ip:port, as 127.0.0.1:0 or [::]:4433"))
        })
    })?;
    taken.advertise =
        extract::list("advertise", "str", &config.getattr("advertise")?, |field, value| {
            let text = extract::text(field, value)?;
            Advertise::from_str(&text).map_err(|error| raise(py, error))
        })?;
    taken.mdns = boolean("mdns")?;
    taken.relay = boolean("relay")?;
    taken.relay_urls =
        extract::list("relay_urls", "str", &config.getattr("relay_urls")?, |field, value| {
            let text = extract::text(field, value)?;
            RelayUrl::from_str(&text)
                .map_err(|error| invalid(py, field, &format!("{text:?} is not a URL: {error}")))
        })?;
    let relay_ca = config.getattr("relay_ca")?;
    taken.relay_ca =
        if relay_ca.is_none() { None } else { Some(extract::text("relay_ca", &relay_ca)?) };
    taken.dns = boolean("dns")?;
    taken.event_buffer = count("event_buffer")?;
    taken.message_buffer = count("message_buffer")?;
    taken.idle_timeout = seconds("idle_timeout")?;
    taken.keep_alive = seconds("keep_alive")?;
    taken.connect_timeout = seconds("connect_timeout")?;
    taken.validate().map_err(|error| raise(py, error))?;
    Ok(taken)
}
