//! What differs from the preset: settings of the protocol, costs of work and conditions of the
//! network.

use std::time::Duration;

use iroh_gossip_discovery_proto::Config;
use serde::{Deserialize, Serialize};

use super::{
    error::{Error, check},
    human_duration::HumanDuration,
};
use crate::{
    conditions::{Conditions, Latency},
    cpu::Costs,
};

/// The longest that one piece of work may take.
const MAX_COST: Duration = Duration::from_secs(10);

macro_rules! overrides {
    ($($field:ident: $type:ty,)*) => {
        /// Settings of the protocol, named as in its configuration. A setting that is not given is
        /// that of the preset.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Overrides {
            $(
                #[doc = concat!("`", stringify!($field), "` of the protocol's configuration.")]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl Overrides {
            pub(crate) fn apply(&self, config: &mut Config) {
                $(if let Some(value) = self.$field { config.$field = value.into(); })*
            }
        }
    };
}

overrides! {
    capacity: usize,
    expiration: HumanDuration,
    neighbors: usize,
    sync_interval_min: HumanDuration,
    sync_interval_max: HumanDuration,
    random_sync_interval: HumanDuration,
    link_idle: HumanDuration,
    redial_min: HumanDuration,
    redial_max: HumanDuration,
    probe_interval: HumanDuration,
    probe_timeout: HumanDuration,
    suspicion: HumanDuration,
    suspicion_max: HumanDuration,
    heal_interval: HumanDuration,
    heal_interval_max: HumanDuration,
    leave_timeout: HumanDuration,
    concurrent_syncs: usize,
    observers: usize,
}

impl Overrides {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What work costs, and which nodes share the cores that do it. Without cores, work costs nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpuSection {
    /// Cores of each machine, 1 to 1,024.
    pub cores: usize,
    /// Nodes on each machine; 0: all nodes are on one.
    pub nodes: usize,
    /// What a handshake costs, at either end.
    pub handshake: HumanDuration,
    /// What the verification of one signature costs.
    pub verify: HumanDuration,
    /// What each frame and each timer costs beside that.
    pub frame: HumanDuration,
    /// The number of tasks that an arriving event passes, one after another. 0 counts as 1.
    pub tasks: usize,
    /// How long a core serves a task while others wait. By default it serves one event.
    pub turn: HumanDuration,
}

impl CpuSection {
    /// Most cores of a machine.
    const MAX_CORES: usize = 1024;
    /// Most tasks of a node.
    const MAX_TASKS: usize = 64;

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn costs(&self) -> Costs {
        let Self { cores, nodes, handshake, verify, frame, tasks, turn } = self;
        Costs {
            cores: *cores,
            nodes: *nodes,
            handshake: handshake.0,
            verify: verify.0,
            frame: frame.0,
            tasks: *tasks,
            turn: turn.0,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let cores = self.is_empty() || (1..=Self::MAX_CORES).contains(&self.cores);
        check("cpu.cores", cores, "must be 1 to 1,024")?;
        check("cpu.tasks", self.tasks <= Self::MAX_TASKS, "must be at most 64")?;
        let costs = [
            ("cpu.handshake", self.handshake),
            ("cpu.verify", self.verify),
            ("cpu.frame", self.frame),
            ("cpu.turn", self.turn),
        ];
        for (key, cost) in costs {
            check(key, cost.0 <= MAX_COST, "must be at most 10 s")?;
        }
        Ok(())
    }
}

/// The conditions of the network. What is not given stays as before, or is that of the preset.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSection {
    /// The median of the latency in one direction. It is log-normal, and one pair in a hundred has
    /// `latency_p99`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<HumanDuration>,
    /// Five times the median by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<HumanDuration>,
    /// The share of packets that are lost and sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The share of frames that are lost for good, as a stress model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<f64>,
    /// What each node can send, in bytes per second; 0 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// The share of dials that fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial_failure: Option<f64>,
    /// A link counts as lost after this time without a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<HumanDuration>,
    /// A dial fails after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<HumanDuration>,
    /// Whether nodes hear by multicast of those that start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast: Option<bool>,
}

impl NetworkSection {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn apply(&self, conditions: &mut Conditions) {
        if let Some(median) = self.latency {
            conditions.latency = Latency::around(median.0);
        }
        if let (Some(p99), Latency::LogNormal { median, .. }) =
            (self.latency_p99, conditions.latency)
        {
            conditions.latency = Latency::LogNormal { median, p99: p99.0.max(median) };
        }
        conditions.loss = self.loss.unwrap_or(conditions.loss);
        conditions.drop = self.drop.unwrap_or(conditions.drop);
        if let Some(bandwidth) = self.bandwidth {
            conditions.bandwidth = (bandwidth > 0).then_some(bandwidth);
        }
        conditions.dial_failure = self.dial_failure.unwrap_or(conditions.dial_failure);
        conditions.idle = self.idle.map_or(conditions.idle, |span| span.0);
        conditions.connect_timeout =
            self.connect_timeout.map_or(conditions.connect_timeout, |span| span.0);
        conditions.multicast = self.multicast.unwrap_or(conditions.multicast);
    }

    pub(crate) fn validate(&self, key: &str) -> Result<(), Error> {
        let share = |name: &str, value: Option<f64>| {
            let ok = value.is_none_or(|value| (0.0..1.0).contains(&value));
            check(&format!("{key}.{name}"), ok, "must be 0 to below 1")
        };
        share("loss", self.loss)?;
        share("drop", self.drop)?;
        share("dial_failure", self.dial_failure)?;
        let longer = |name: &str, value: Option<HumanDuration>| {
            let ok = value.is_none_or(|value| !value.is_zero());
            check(&format!("{key}.{name}"), ok, "must be longer than 0")
        };
        longer("latency", self.latency)?;
        longer("latency_p99", self.latency_p99)?;
        let nearer = self.latency_p99.zip(self.latency).is_some_and(|(p99, median)| p99 < median);
        check(&format!("{key}.latency_p99"), !nearer, "must be at least latency")?;
        longer("idle", self.idle)?;
        longer("connect_timeout", self.connect_timeout)
    }
}
