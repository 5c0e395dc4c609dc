//! `Profile`: what a node says of itself, taken from Python and checked.

use iroh_gossip_discovery::Profile;
use pyo3::prelude::*;

use crate::{error::raise, extract};

/// Checks a name, metadata and protocols against the limits of a record.
#[pyfunction]
pub(crate) fn check_profile(
    name: &Bound<'_, PyAny>,
    metadata: &Bound<'_, PyAny>,
    protocols: &Bound<'_, PyAny>,
) -> PyResult<()> {
    profile(name, metadata, protocols).map(drop)
}

pub(crate) fn profile(
    name: &Bound<'_, PyAny>,
    metadata: &Bound<'_, PyAny>,
    protocols: &Bound<'_, PyAny>,
) -> PyResult<Profile> {
    let mut profile = Profile::new(extract::text("name", name)?);
    profile.metadata = extract::metadata(metadata)?;
    profile.protocols = extract::protocols(protocols)?;
    profile.validate().map_err(|error| raise(name.py(), error.into()))?;
    Ok(profile)
}
