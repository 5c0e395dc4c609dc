//! Scenarios as data: nodes, a network, a timeline of faults, and what is expected (docs/simulator.md).

mod fault;
mod human_duration;
mod node_selector;
mod overrides;
mod random;
mod report;
mod run;
mod shrink;
mod soak;
mod timeline;

use std::time::Duration;

use iroh_gossip_discovery_proto::Config;
use serde::{Deserialize, Serialize};

pub use fault::{Action, Fault, Kind};
pub use human_duration::HumanDuration;
pub use node_selector::NodeSelector;
pub use overrides::{CpuSection, NetworkSection, Overrides};
pub use report::{EventLine, Figure, Rates, Report, StartWork};
pub use run::{Options, Progress, Warm, run};
pub use shrink::{Shrunk, shrink};
pub use soak::{FailedScenario, SoakReport, commands, soak};

use crate::conditions::Conditions;

/// Most nodes that a scenario may have.
pub const MAX_NODES: usize = 20_000;
/// What follows the last fault if no duration is given.
const AFTER: Duration = Duration::from_mins(1);

/// Why a scenario cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not TOML, or a key is unknown or has a value of the wrong kind.
    #[error("{0}")]
    Parse(String),
    /// A value is outside its limits.
    #[error("{key}: {reason}")]
    Invalid {
        /// The key, as in `fault[2].crash`.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What timers the protocol and the links have.
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
    /// From the first node.
    #[default]
    First,
    /// Each from the one before it.
    Previous,
    /// Each from a random earlier one.
    Random,
}

/// How the nodes start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Start {
    /// They start one after another within this time; at once by default.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub over: HumanDuration,
    /// The bootstrap peer of each.
    pub from: From,
    /// They know each other from the beginning, as a swarm does that has been there for long: all start at
    /// once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
    /// The first node starts this much later than the others.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub first_after: HumanDuration,
}

/// What is expected of the whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// All books are right this long after the last start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub converged: Option<HumanDuration>,
    /// No node is held to be lost that is up and in the same part of the network.
    pub nobody_lost: bool,
    /// At the end all books of one part of the network are right.
    pub quiet: bool,
    /// At most this many bytes of frames per second and node, over the whole timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<f64>,
    /// At most this many bytes on the wire, an estimate, per second and node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire_bytes_per_second: Option<f64>,
    /// At most this many dials by all nodes, over the whole timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dials: Option<u64>,
    /// At most this many dials per node, the mean, from the first start until all books are right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dials_to_converge: Option<f64>,
    /// At most this many syncs begun per node, the mean, until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs_to_converge: Option<f64>,
    /// Each of two nodes with one key reports the other.
    pub conflict: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            converged: None,
            nobody_lost: false,
            quiet: true,
            bytes_per_second: None,
            wire_bytes_per_second: None,
            dials: None,
            dials_to_converge: None,
            syncs_to_converge: None,
            conflict: false,
        }
    }
}

/// A scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How many nodes start. 1 to 20,000.
    pub nodes: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Timers of the protocol and of the links, and the latency.
    pub preset: Preset,
    /// The timeline begins this long after the first start; the books must be right by then.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub warmup: HumanDuration,
    /// How long the timeline is; by default until 60 s after its last fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// By how much wall clocks are off at most, either way.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub clock_skew: HumanDuration,
    /// How the nodes start.
    pub start: Start,
    /// Settings of the protocol that differ from the preset.
    #[serde(skip_serializing_if = "Overrides::is_empty")]
    pub config: Overrides,
    /// What the network is like if it differs from the preset.
    #[serde(skip_serializing_if = "NetworkSection::is_empty")]
    pub network: NetworkSection,
    /// What work costs; nothing by default.
    #[serde(skip_serializing_if = "CpuSection::is_empty")]
    pub cpu: CpuSection,
    /// What is expected.
    pub expect: Expect,
    /// The timeline.
    #[serde(rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            nodes: 10,
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

    /// The scenario as TOML.
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
    /// [`Error::Invalid`] that names the first key outside its limits.
    pub fn validate(&self) -> Result<(), Error> {
        check("nodes", (1..=MAX_NODES).contains(&self.nodes), "must be 1 to 20,000")?;
        // TOML's integers.
        check("seed", i64::try_from(self.seed).is_ok(), "must be below 2^63")?;
        self.protocol().validate().map_err(|error| Error::Invalid {
            key: "config".to_owned(),
            reason: error.to_string(),
        })?;
        self.network.validate("network")?;
        self.cpu.validate()?;
        let at_once = self.start.over.is_zero() && self.start.first_after.is_zero();
        check("start.known", !self.start.known || at_once, "needs all to start at once")?;
        let most = [
            ("expect.bytes_per_second", self.expect.bytes_per_second),
            ("expect.wire_bytes_per_second", self.expect.wire_bytes_per_second),
            ("expect.dials_to_converge", self.expect.dials_to_converge),
            ("expect.syncs_to_converge", self.expect.syncs_to_converge),
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

    /// What would come after the end would never be looked at.
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

    /// A node that is named is there by then. It may be one that joined.
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

    /// When the last node has started.
    fn starts(&self) -> Duration {
        self.start.over.0.max(self.start.first_after.0)
    }

    /// Settings of the protocol.
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

    /// What the network is like at first.
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

    /// When the timeline ends, from the first start.
    #[must_use]
    pub fn end(&self) -> Duration {
        if let Some(duration) = self.duration {
            return self.warmup.0 + duration.0;
        }
        // What is expected by a time is waited for.
        let judged = |within: Option<HumanDuration>| AFTER.max(within.unwrap_or_default().0);
        let faults = self.faults.iter().map(|fault| fault.ends() + judged(fault.within)).max();
        let after = faults.unwrap_or_else(|| self.starts() + AFTER);
        let converged = self.starts() + self.expect.converged.unwrap_or_default().0;
        (self.warmup.0 + after).max(converged)
    }
}

pub(crate) fn check(key: &str, ok: bool, reason: &str) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::Invalid { key: key.to_owned(), reason: reason.to_owned() }) }
}
