//! `Issuer` signs invitations and revocations. The arguments of a node about them are taken here.

use std::{
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use iroh_gossip_discovery::{
    EndpointId, Invitation, IssuerKey, Revocation, Topic, check_invited, proto::MAX_INVITED,
};
use pyo3::{prelude::*, types::PyString};

use crate::{
    error::{raise, raise_for},
    extract, message,
};

/// The key of an issuer.
#[pyclass(frozen, module = "iroh_gossip_discovery")]
pub(crate) struct Issuer(IssuerKey);

#[pymethods]
impl Issuer {
    #[new]
    fn new(key: &Bound<'_, PyAny>) -> PyResult<Self> {
        let text = zeroize::Zeroizing::new(extract::text("key", key)?);
        let read = IssuerKey::from_text(&text);
        read.map(Self).map_err(|error| raise_for(key.py(), "key", error))
    }

    /// Makes a new random key.
    #[staticmethod]
    fn generate() -> Self {
        Self(IssuerKey::generate())
    }

    /// The public half, which members trust: 64 hex digits.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Returns the key as text, which is as secret as the key.
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &self.0.to_text())
    }

    /// Invites the node of an id to a topic.
    #[pyo3(signature = (topic, member, *, duration, begins=None))]
    fn invite(
        &self,
        topic: &Bound<'_, PyAny>,
        member: &Bound<'_, PyAny>,
        duration: &Bound<'_, PyAny>,
        begins: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let (topic, member) = named(topic, member)?;
        let time = time(Some(duration), begins)?;
        let invitation = self.0.invite(&topic, member, time);
        Ok(invitation.map_err(|error| raise_for(duration.py(), "duration", error))?.to_string())
    }

    /// Keeps an id out of a topic.
    #[pyo3(signature = (topic, member, *, duration=None))]
    fn revoke(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        member: &Bound<'_, PyAny>,
        duration: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let (topic, member) = named(topic, member)?;
        let revocation = self.0.revoke(&topic, member, time(duration, None)?);
        Ok(revocation.map_err(|error| raise_for(py, "duration", error))?.to_string())
    }

    fn __repr__(&self) -> String {
        format!("Issuer(id='{}')", self.0.id())
    }
}

fn named(topic: &Bound<'_, PyAny>, member: &Bound<'_, PyAny>) -> PyResult<(Topic, EndpointId)> {
    let name = extract::text("topic", topic)?;
    let topic = Topic::new(&name).map_err(|error| raise(topic.py(), error))?;
    Ok((topic, message::named_peer_id("member", member)?))
}

/// The time from `begins`, or from now, for `duration` seconds, or for the longest time.
fn time(
    duration: Option<&Bound<'_, PyAny>>,
    begins: Option<&Bound<'_, PyAny>>,
) -> PyResult<Range<SystemTime>> {
    let begins = begins.map(|begins| extract::seconds("begins", begins)).transpose()?;
    let begins = begins.map_or_else(SystemTime::now, |since| UNIX_EPOCH + since);
    let duration = duration.map(|duration| extract::seconds("duration", duration)).transpose()?;
    let most = Duration::from_secs(MAX_INVITED);
    // A longer one is refused where it is signed. Here it only must not overflow.
    let duration = duration.unwrap_or(most).min(2 * most);
    Ok(begins..begins + duration)
}

/// What a node was given as `issuer` and `invitation`.
#[derive(Clone, Default)]
pub(crate) struct Invited {
    pub(crate) issuers: Vec<EndpointId>,
    pub(crate) invitation: Option<Invitation>,
}

impl Invited {
    /// Checks `None`, one issuer or a sequence of some, and `None` or an invitation to this topic.
    pub(crate) fn extract(
        issuer: &Bound<'_, PyAny>,
        invitation: &Bound<'_, PyAny>,
        topic: &Topic,
        has_secret: bool,
    ) -> PyResult<Self> {
        let py = issuer.py();
        let issuers = if issuer.is_none() {
            Vec::new()
        } else if issuer.is_instance_of::<PyString>() {
            vec![extract::endpoint_id("issuer", issuer)?]
        } else {
            extract::list("issuer", "str", issuer, extract::endpoint_id)?
        };
        let invitation =
            if invitation.is_none() { None } else { Some(self::invitation(invitation)?) };
        check_invited(&issuers, invitation.as_ref(), has_secret)
            .map_err(|error| raise(py, error))?;
        if invitation.as_ref().is_some_and(|invitation| invitation.topic != topic.id()) {
            return Err(crate::error::invalid(py, "invitation", "is for another topic"));
        }
        Ok(Self { issuers, invitation })
    }
}

/// Takes the text of an invitation.
pub(crate) fn invitation(value: &Bound<'_, PyAny>) -> PyResult<Invitation> {
    let text = extract::text("invitation", value)?;
    text.parse::<Invitation>().map_err(|error| raise(value.py(), error.into()))
}

/// Takes the text of a revocation.
pub(crate) fn revocation(value: &Bound<'_, PyAny>) -> PyResult<Revocation> {
    let text = extract::text("revocation", value)?;
    text.parse::<Revocation>().map_err(|error| raise(value.py(), error.into()))
}
