//! `Settings`: the arguments of a node, checked before anything opens.

use std::{collections::BTreeMap, path::PathBuf};

use iroh::SecretKey;
use iroh_gossip_discovery::{Config, EndpointId, GossipDiscoveryBuilder, Profile, Topic, TopicId};
use pyo3::{prelude::*, types::PyBytes};

use crate::{
    config, error::raise, extract, issuer::Invited, message, profile::profile, secret::Secrets,
};

/// The arguments of a node.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Settings {
    topic: Topic,
    profile: Profile,
    secret_key: Option<SecretKey>,
    secrets: Secrets,
    invited: Invited,
    allow: Option<Vec<EndpointId>>,
    deny: Vec<EndpointId>,
    state_dir: Option<PathBuf>,
    config: Config,
}

impl Settings {
    pub(crate) fn topic_id(&self) -> TopicId {
        self.topic.id()
    }

    pub(crate) fn topic_and_profile(&self) -> (Topic, Profile) {
        (self.topic.clone(), self.profile.clone())
    }

    /// Returns the secrets of a private swarm, and the topic that passphrases need.
    pub(crate) fn secrets(&self) -> (Secrets, Topic) {
        (self.secrets.clone(), self.topic.clone())
    }

    /// Returns a builder of a node with these settings, without bootstrap peers
    /// and secrets.
    pub(crate) fn builder(&self) -> GossipDiscoveryBuilder {
        let mut builder = GossipDiscoveryBuilder::new(&self.profile.name, self.topic.name())
            .config(self.config.clone())
            .metadata(self.profile.metadata.clone())
            .protocols(self.profile.protocols.clone())
            .deny(self.deny.clone())
            .issuers(self.invited.issuers.clone());
        if let Some(invitation) = &self.invited.invitation {
            builder = builder.invitation(invitation.clone());
        }
        if let Some(peers) = &self.allow {
            builder = builder.allow(peers.clone());
        }
        if let Some(key) = &self.secret_key {
            builder = builder.secret_key(key.clone());
        }
        if let Some(path) = &self.state_dir {
            builder = builder.state_dir(path);
        }
        builder
    }
}

#[pymethods]
impl Settings {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python class")]
    fn new(
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        topic: &Bound<'_, PyAny>,
        metadata: &Bound<'_, PyAny>,
        protocols: &Bound<'_, PyAny>,
        secret_key: &Bound<'_, PyAny>,
        secret: &Bound<'_, PyAny>,
        issuer: &Bound<'_, PyAny>,
        invitation: &Bound<'_, PyAny>,
        allow: &Bound<'_, PyAny>,
        deny: &Bound<'_, PyAny>,
        state_dir: Option<PathBuf>,
        config: &Bound<'_, PyAny>,
        observer: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let profile = profile(name, metadata, protocols)?;
        let topic = Topic::new(&extract::text("topic", topic)?).map_err(|e| raise(py, e))?;
        let secret_key = if secret_key.is_none() {
            None
        } else {
            Some(SecretKey::from_bytes(&extract::secret_key(secret_key)?))
        };
        let secrets = Secrets::extract(secret)?;
        let invited = Invited::extract(issuer, invitation, &topic, !secret.is_none())?;
        let peers =
            |field, value| extract::list(field, "Peer or str", value, message::named_peer_id);
        let allow = if allow.is_none() { None } else { Some(peers("allow", allow)?) };
        let deny = peers("deny", deny)?;
        let mut config = config::extract(config)?;
        config.protocol.observer = extract::boolean("observer", observer)?;
        Ok(Self { topic, profile, secret_key, secrets, invited, allow, deny, state_dir, config })
    }

    /// Returns a copy of the metadata.
    #[getter]
    fn metadata(&self) -> BTreeMap<String, String> {
        self.profile.metadata.clone()
    }

    /// Returns a copy of the protocols.
    #[getter]
    fn protocols<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.profile.protocols.iter().map(|alpn| PyBytes::new(py, alpn)).collect()
    }
}
