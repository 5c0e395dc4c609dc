//! `Conditions`: what a record must fulfill to be in a selection.

use iroh_gossip_discovery::NodeRecord;

/// Conditions that must all hold.
#[derive(Clone, Default)]
pub(crate) struct Conditions {
    pub(crate) names: Vec<String>,
    pub(crate) metadata: Vec<(String, Option<String>)>,
    pub(crate) protocols: Vec<Vec<u8>>,
    /// Whether the node takes work, or does not; `None` for any.
    pub(crate) ready: Option<bool>,
}

impl Conditions {
    pub(crate) fn are_none(&self) -> bool {
        self.names.is_empty()
            && self.metadata.is_empty()
            && self.protocols.is_empty()
            && self.ready.is_none()
    }

    pub(crate) fn admit(&self, record: &NodeRecord) -> bool {
        let profile = &record.profile;
        self.names.iter().all(|name| *name == profile.name)
            && self.metadata.iter().all(|(key, value)| profile.metadata.get(key) == value.as_ref())
            && self.protocols.iter().all(|protocol| profile.protocols.contains(protocol))
            && self.ready.is_none_or(|ready| record.is_ready() == ready)
    }
}
