//! The secrets of a private swarm: taken from Python, checked, and wiped where Rust holds them.

use std::sync::Arc;

use iroh_gossip_discovery::{Error, SwarmKey, Topic};
use pyo3::{prelude::*, types::PyString};
use zeroize::Zeroizing;

use crate::{
    error::{invalid, raise, raise_for},
    extract,
};

/// What a node was given as its secrets, in their order; none for a public swarm.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[Zeroizing<String>]>);

impl Secrets {
    /// Checks `None`, one secret, or a sequence of some.
    pub(crate) fn extract(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Ok(Self::default());
        }
        if value.is_instance_of::<PyString>() {
            return Ok(Self(Arc::new([checked("secret", value)?])));
        }
        let secrets = extract::list("secret", "str", value, checked)?;
        let count = secrets.len();
        if !(1..=SwarmKey::MAX).contains(&count) {
            let reason = format!("must hold 1 to {} secrets, holds {count}", SwarmKey::MAX);
            return Err(invalid(value.py(), "secret", &reason));
        }
        Ok(Self(secrets.into()))
    }

    /// The keys, off the runtime's workers: a passphrase takes a while.
    pub(crate) async fn keys(self, topic: Topic) -> Result<Vec<SwarmKey>, Error> {
        let derive = move || self.0.iter().map(|one| SwarmKey::from_secret(one, &topic)).collect();
        let derived = tokio::task::spawn_blocking(derive).await;
        derived.map_err(|error| Error::Endpoint(error.to_string()))?
    }
}

fn checked(field: &str, value: &Bound<'_, PyAny>) -> PyResult<Zeroizing<String>> {
    let secret = Zeroizing::new(extract::text(field, value)?);
    SwarmKey::check(&secret).map_err(|error| raise_for(value.py(), field, error))?;
    Ok(secret)
}

/// A new key of a private swarm, as text.
#[pyfunction]
pub(crate) fn generate_swarm_key(py: Python<'_>) -> PyResult<Bound<'_, PyString>> {
    let key = SwarmKey::generate().map_err(|error| raise(py, error))?;
    Ok(PyString::new(py, &key.to_text()))
}
