//! What a run of a scenario found.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::network::Failure;

/// How long it took until all books were right after something.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The action of a fault, or `start`.
    pub what: &'static str,
    /// The fault's number in the timeline, from 0; `None` for the start.
    pub fault: Option<usize>,
    /// The nodes that it befell.
    pub nodes: Vec<usize>,
    /// When it came about, in seconds since the first start.
    pub at_s: f64,
    /// Seconds until all books were right; `None` if that did not come about.
    pub took_s: Option<f64>,
    /// What was expected, in seconds.
    pub within_s: Option<f64>,
}

/// What the run cost.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Totals {
    /// Frames sent.
    pub frames: u64,
    /// Bytes of frames sent.
    pub bytes: u64,
    /// Bytes of frames sent, per second of the timeline and node.
    pub bytes_per_second: f64,
    /// Dials begun.
    pub dials: u64,
    /// Happenings that the simulator handled.
    pub steps: u64,
    /// What limits refused or dropped, by name.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// Something that a node told its application.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventLine {
    /// Seconds since the first start.
    pub at_s: f64,
    /// The node.
    pub node: usize,
    /// The event's name.
    pub event: &'static str,
    /// Whom it is about: the peer's name.
    pub peer: Option<String>,
    /// The peer's id.
    pub id: Option<String>,
}

/// All of it. `docs/simulator.md` describes the fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The version of this structure.
    pub schema: u32,
    /// The scenario's name.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// Nodes that started at the beginning.
    pub nodes: usize,
    /// Nodes that run the protocol at the end.
    pub up: usize,
    /// Whether every check and expectation held.
    pub ok: bool,
    /// The hash over all frames and their times, 64 hex digits.
    pub trace: String,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// How long it took until all books were right, for each fault.
    pub figures: Vec<Figure>,
    /// Checks and expectations that did not hold, as text.
    pub failures: Vec<String>,
    /// What it cost.
    pub totals: Totals,
    /// How often nodes told what.
    pub told: BTreeMap<&'static str, u64>,
    /// What they told, where that was asked for.
    pub events: Vec<EventLine>,
    /// The failures, with their parts.
    #[serde(skip)]
    pub failed: Vec<Failure>,
}

impl Report {
    /// The name of the first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Failure> {
        self.failed.first()
    }
}
