//! The parts of a scenario, the limits of its values, and its form as TOML.

use std::time::Duration;

use iroh_gossip_discovery_proto::Config;
use serde::{Deserialize, Serialize};

use super::{
    error::{Error, check},
    fault::{Fault, MAX_NODES},
    human_duration::HumanDuration,
    overrides::{CpuSection, NetworkSection, Overrides},
};
use crate::conditions::Conditions;

/// The time after the last fault, if no duration is given.
const AFTER: Duration = Duration::from_mins(1);

/// The timers of the protocol and of the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// A local network.
    #[default]
    Lan,
    /// One machine.
    Local,
    /// The internet.
    Internet,
}

/// The bootstrap peer of each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// All start from the first node.
    #[default]
    First,
    /// Each starts from the node before it.
    Previous,
    /// Each starts from a random earlier node.
    Random,
    /// None has one: they find each other by multicast.
    Nobody,
}

/// How the nodes start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Start {
    /// The nodes start one after another within this time; at once by default.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub over: HumanDuration,
    /// The bootstrap peer of each node.
    pub from: From,
    /// Whether all nodes know each other from the beginning, like a swarm that has run for long.
    /// Then all start at once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
    /// How much later than the others the first node starts.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub first_after: HumanDuration,
}

/// The expectations for the whole run.
// Each of its bools is a key of the scenario language.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// All books are right within this time after the last start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub converged: Option<HumanDuration>,
    /// No node is reported lost while it is up and in the same part of the network. A `lossy` node
    /// may be, and what it reports does not count.
    pub nobody_lost: bool,
    /// No node is suspected.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nobody_suspected: bool,
    /// Most times that one node reports a `lossy` one lost, each time that this fault begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lossy_lost: Option<u32>,
    /// At the end, all books of one part of the network are right.
    pub quiet: bool,
    /// Most bytes of frames per second and node, over the whole timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<f64>,
    /// Most bytes on the wire per second and node, by an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire_bytes_per_second: Option<f64>,
    /// Most dials by all nodes, over the whole timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dials: Option<u64>,
    /// Most dials per node on average, from the first start until all books are right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dials_to_converge: Option<f64>,
    /// Most syncs begun per node on average, in the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs_to_converge: Option<f64>,
    /// Most dials per node on average, from then until the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dials_once_converged: Option<f64>,
    /// Each of two nodes with one key reports a conflict.
    pub conflict: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            converged: None,
            nobody_lost: false,
            nobody_suspected: false,
            lossy_lost: None,
            quiet: true,
            bytes_per_second: None,
            wire_bytes_per_second: None,
            dials: None,
            dials_to_converge: None,
            syncs_to_converge: None,
            dials_once_converged: None,
            conflict: false,
        }
    }
}

/// A scenario: nodes, a network, a timeline of faults, and expectations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What the scenario shows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The number of nodes that start. 1 to 20,000.
    pub nodes: usize,
    /// How many of these nodes, the last ones, only observe. Fewer than all.
    #[serde(skip_serializing_if = "is_zero")]
    pub observers: usize,
    /// The seed from which all random choices follow.
    pub seed: u64,
    /// The timers of the protocol and of the links, and the latency.
    pub preset: Preset,
    /// The time from the first start to the timeline. The books must be right by then.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub warmup: HumanDuration,
    /// The length of the timeline; by default until 60 s after its last fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// The largest error of wall clocks, in either direction.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub clock_skew: HumanDuration,
    /// How the nodes start.
    pub start: Start,
    /// Settings of the protocol that differ from the preset.
    #[serde(skip_serializing_if = "Overrides::is_empty")]
    pub config: Overrides,
    /// Conditions of the network that differ from the preset.
    #[serde(skip_serializing_if = "NetworkSection::is_empty")]
    pub network: NetworkSection,
    /// The costs of work; nothing by default.
    #[serde(skip_serializing_if = "CpuSection::is_empty")]
    pub cpu: CpuSection,
    /// The expectations.
    pub expect: Expect,
    /// The timeline of faults.
    #[serde(rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            nodes: 10,
            observers: 0,
            seed: 0,
            preset: Preset::Lan,
            warmup: HumanDuration::default(),
            duration: None,
            clock_skew: HumanDuration::default(),
            start: Start::default(),
            config: Overrides::default(),
            network: NetworkSection::default(),
            cpu: CpuSection::default(),
            expect: Expect::default(),
            faults: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads a scenario and checks it.
    ///
    /// # Errors
    /// [`Error::Parse`] or [`Error::Invalid`], which name the key.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| Error::Parse(error.to_string()))?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// Writes the scenario as TOML.
    ///
    /// # Panics
    /// Never: every value of it has a form in TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario has a form in TOML")
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`Error::Invalid`], which names the first key outside its limits.
    pub fn validate(&self) -> Result<(), Error> {
        check("nodes", (1..=MAX_NODES).contains(&self.nodes), "must be 1 to 20,000")?;
        check("observers", self.observers < self.nodes, "must be fewer than the nodes")?;
        // TOML's integers are signed.
        check("seed", i64::try_from(self.seed).is_ok(), "must be below 2^63")?;
        self.protocol().validate().map_err(|error| Error::Invalid {
            key: "config".to_owned(),
            reason: error.to_string(),
        })?;
        self.network.validate("network")?;
        self.cpu.validate()?;
        let at_once = self.start.over.is_zero() && self.start.first_after.is_zero();
        check("start.known", !self.start.known || at_once, "needs all to start at once")?;
        check("start.known", !self.start.known || self.observers == 0, "has no observers")?;
        let finds = self.start.from != From::Nobody || self.network.multicast == Some(true);
        check("start.from", finds, "must name peers, or network.multicast be true")?;
        let most = [
            ("expect.bytes_per_second", self.expect.bytes_per_second),
            ("expect.wire_bytes_per_second", self.expect.wire_bytes_per_second),
            ("expect.dials_to_converge", self.expect.dials_to_converge),
            ("expect.syncs_to_converge", self.expect.syncs_to_converge),
            ("expect.dials_once_converged", self.expect.dials_once_converged),
        ];
        for (key, most) in most {
            check(key, most.is_none_or(|bytes| bytes >= 0.0), "must not be below 0")?;
        }
        for (number, fault) in self.faults.iter().enumerate() {
            fault.validate(&format!("fault[{number}]"))?;
        }
        self.validate_times()?;
        self.validate_numbers()
    }

    /// Refuses what would come after the end, because it would never be checked.
    fn validate_times(&self) -> Result<(), Error> {
        const LATE: &str = "is over after the end of the run: a longer duration is needed";
        let end = self.end();
        let judged = self.expect.converged.unwrap_or_default().0;
        check("expect.converged", self.starts() + judged <= end, LATE)?;
        for (number, fault) in self.faults.iter().enumerate() {
            let (begins, ends) = (self.warmup.0 + fault.at.0, self.warmup.0 + fault.ends());
            check(&format!("fault[{number}].at"), begins <= end, "is after the end of the run")?;
            check(&format!("fault[{number}].for"), ends <= end, LATE)?;
            let judged = ends + fault.within.unwrap_or_default().0;
            check(&format!("fault[{number}].within"), judged <= end, LATE)?;
        }
        Ok(())
    }

    /// Checks that each named node exists by then. It may be one that joined.
    fn validate_numbers(&self) -> Result<(), Error> {
        for (number, fault) in self.faults.iter().enumerate() {
            let Some((action, named)) = fault.action().and_then(|action| {
                let named = action.selector()?.greatest()?;
                Some((action, named))
            }) else {
                continue;
            };
            let before = self.faults.iter().filter(|other| other.at <= fault.at);
            let bring = before.filter_map(Fault::action).map(|action| action.brings(MAX_NODES));
            let new = bring.fold(0_usize, usize::saturating_add);
            let reason = format!("there is no node {named} by then, counted from 0");
            let key = format!("fault[{number}].{}", action.name());
            check(&key, named < self.nodes.saturating_add(new), &reason)?;
        }
        Ok(())
    }

    /// Returns the time when the last node has started.
    fn starts(&self) -> Duration {
        self.start.over.0.max(self.start.first_after.0)
    }

    /// Returns the settings of the protocol.
    #[must_use]
    pub fn protocol(&self) -> Config {
        let mut config = match self.preset {
            Preset::Lan => Config::default(),
            Preset::Local => Config::local(),
            Preset::Internet => Config::internet(),
        };
        self.config.apply(&mut config);
        config
    }

    /// Returns the settings of a node.
    #[must_use]
    pub(crate) fn protocol_of(&self, number: usize) -> Config {
        let members = self.nodes - self.observers;
        let mut config = self.protocol();
        config.observer = (members..self.nodes).contains(&number);
        config
    }

    /// Returns the conditions of the network at the start.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        let mut conditions = match self.preset {
            Preset::Lan => Conditions::lan(),
            Preset::Local => Conditions::local(),
            Preset::Internet => Conditions::internet(),
        };
        self.network.apply(&mut conditions);
        conditions
    }

    /// Returns the end of the timeline, counted from the first start.
    #[must_use]
    pub fn end(&self) -> Duration {
        if let Some(duration) = self.duration {
            return self.warmup.0 + duration.0;
        }
        // The run lasts at least until each expectation's time is over.
        let judged = |within: Option<HumanDuration>| AFTER.max(within.unwrap_or_default().0);
        let faults = self.faults.iter().map(|fault| fault.ends() + judged(fault.within)).max();
        let after = faults.unwrap_or_else(|| self.starts() + AFTER);
        let converged = self.starts() + self.expect.converged.unwrap_or_default().0;
        (self.warmup.0 + after).max(converged)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
