//! `Selection`: which nodes of a topic a view shows. It is judged in Rust, so that records that it
//! leaves out never become Python objects.

use std::sync::Arc;

use iroh_gossip_discovery::Swarm;
use pyo3::{prelude::*, types::PyString};

use crate::{conditions::Conditions, extract, records::Records};

/// Conditions that must all hold. Without any, a selection has every node of the book.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Selection {
    with_self: bool,
    conditions: Arc<Conditions>,
}

#[pymethods]
impl Selection {
    #[new]
    #[pyo3(signature = (*, with_self = false))]
    fn new(with_self: bool) -> Self {
        Self { with_self, conditions: Arc::default() }
    }

    /// Adds a condition: the name.
    fn named(&self, name: &Bound<'_, PyAny>) -> PyResult<Self> {
        let name = extract::text("name", name)?;
        Ok(self.narrowed(|conditions| conditions.names.push(name)))
    }

    /// Adds a condition: the metadata's value under a key; `None` for nodes without that key.
    #[pyo3(name = "where_")]
    fn having(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let key = extract::text("metadata key", key)?;
        let value = if value.is_none() {
            None
        } else if value.is_instance_of::<PyString>() {
            Some(extract::text(&format!("metadata[{key:?}]"), value)?)
        } else {
            let field = format!("metadata[{key:?}]");
            return Err(extract::wrong_type(&field, "str or None", value));
        };
        Ok(self.narrowed(|conditions| conditions.metadata.push((key, value))))
    }

    /// Adds a condition: the node announces this protocol.
    fn serving(&self, protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        let protocol = extract::bytes_or_text("protocol", protocol)?;
        Ok(self.narrowed(|conditions| conditions.protocols.push(protocol)))
    }

    /// Replaces the condition on readiness: the node takes work, or does not; `None` for any.
    fn ready(&self, ready: Option<bool>) -> Self {
        self.narrowed(|conditions| conditions.ready = ready)
    }

    fn __repr__(&self) -> String {
        let Conditions { names, metadata, protocols, ready } = &*self.conditions;
        let names = names.iter().map(|name| format!(".named({name:?})"));
        let metadata = metadata.iter().map(|(key, value)| match value {
            Some(value) => format!(".where({key}={value:?})"),
            None => format!(".where({key}=None)"),
        });
        let protocols =
            protocols.iter().map(|alpn| format!(".serving(\"{}\")", alpn.escape_ascii()));
        let root = String::from(if self.with_self { "members" } else { "book" });
        let ready = ready.map(|ready| {
            let ready = if ready { "" } else { "ready=False" };
            format!(".ready({ready})")
        });
        [root].into_iter().chain(names).chain(metadata).chain(protocols).chain(ready).collect()
    }
}

impl Selection {
    fn narrowed(&self, narrow: impl FnOnce(&mut Conditions)) -> Self {
        let mut conditions = Conditions::clone(&self.conditions);
        narrow(&mut conditions);
        Self { with_self: self.with_self, conditions: Arc::new(conditions) }
    }

    /// Returns the nodes that are in the selection now. This node may be one of them, unless it has
    /// left.
    pub(crate) fn look(&self, swarm: &Swarm) -> Records {
        let me = (self.with_self && !swarm.is_closed() && !swarm.is_observer()).then(|| swarm.me());
        Records::new(self.conditions.clone(), swarm.book(), me)
    }
}
