//! Scenarios as data: nodes, a network, a timeline of faults, and expectations (docs/simulator.md).

mod definition;
mod error;
mod fault;
#[cfg(test)]
mod fuzz;
mod human_duration;
mod node_selector;
mod overrides;
mod random;
mod report;
mod run;
mod shrink;
mod soak;
mod timeline;
mod watch;

pub use definition::{Expect, From, Preset, Scenario, Start};
pub use error::Error;
pub use fault::{Action, Fault, Kind, MAX_NODES, Way};
pub use human_duration::HumanDuration;
pub use node_selector::NodeSelector;
pub use overrides::{CpuSection, NetworkSection, Overrides};
pub use report::{EventLine, Figure, Rates, Report, StartWork};
pub use run::{Options, Progress, Warm, run};
pub use shrink::{Shrunk, shrink};
pub use soak::{FailedScenario, SoakReport, commands, soak};
