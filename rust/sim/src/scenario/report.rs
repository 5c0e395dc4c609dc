//! What a run of a scenario found.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{network::Failure, sent::Sent};

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
    /// If nodes joined, left, started again or announced something: seconds until all were right about
    /// each of [`Figure::nodes`], and each of these had all in its book, at one moment or another, whatever
    /// else went on. Not in the report as JSON.
    #[serde(skip)]
    pub known_s: Option<f64>,
    /// What was expected, in seconds.
    pub within_s: Option<f64>,
}

/// What it took each node, the mean, from the first start until all books were right.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StartWork {
    /// Dials begun.
    pub dials: f64,
    /// Syncs begun.
    pub syncs: f64,
    /// Frames sent.
    pub frames: f64,
    /// Seconds that cores worked, of all machines and for all nodes together. 0 if work costs nothing.
    pub cpu_s: f64,
}

/// What one node sent in one second, over all nodes and the whole timeline, without the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rates {
    /// Frames on the lane for all that must be quick.
    pub control_frames: f64,
    /// Their bytes, with the length before each.
    pub control_bytes: f64,
    /// Frames on the lane for syncs.
    pub sync_frames: f64,
    /// Their bytes.
    pub sync_bytes: f64,
    /// Bytes on the wire, an estimate.
    pub wire_bytes: f64,
    /// Dials begun.
    pub dials: f64,
}

impl Rates {
    /// What was sent, by so many nodes in so many seconds.
    #[allow(clippy::cast_precision_loss)] // Figures to be read.
    pub(super) fn of(sent: Sent, nodes: usize, seconds: f64) -> Self {
        let per = seconds.max(0.001) * nodes.max(1) as f64;
        let rate = |count: u64| count as f64 / per;
        Self {
            control_frames: rate(sent.control.frames),
            control_bytes: rate(sent.control.bytes),
            sync_frames: rate(sent.sync.frames),
            sync_bytes: rate(sent.sync.bytes),
            wire_bytes: rate(sent.wire_bytes),
            dials: rate(sent.dials),
        }
    }

    /// Bytes of all frames.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        self.control_bytes + self.sync_bytes
    }
}

/// An event that a node emitted to its application.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventLine {
    /// Seconds since the first start.
    pub at_s: f64,
    /// The node.
    pub node: usize,
    /// The event's name.
    pub event: &'static str,
    /// The name of the peer that it is about.
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
    /// Whether it came to its end, and every check and expectation held.
    pub ok: bool,
    /// Whether it came to its end: neither the caller nor a failure that was to end it did.
    pub complete: bool,
    /// The hash over all frames and their times, 64 hex digits.
    pub trace: String,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// How long it took until all books were right, for each fault.
    pub figures: Vec<Figure>,
    /// Checks and expectations that did not hold, as text.
    pub failures: Vec<String>,
    /// What all nodes sent, with the warm-up.
    pub sent: Sent,
    /// What a node sent in a second.
    pub rates: Rates,
    /// What limits refused or dropped at all nodes, by name.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Events that the simulator handled.
    pub steps: u64,
    /// How many events nodes emitted, by name.
    pub emitted: BTreeMap<&'static str, u64>,
    /// The events, if they were asked for: the first two million.
    pub events: Vec<EventLine>,
    /// How many events are not there.
    pub events_left_out: u64,
    /// How many were called lost that were up and in the same part of the network: the first hundred.
    #[serde(skip)]
    pub wrongly_lost: usize,
    /// What the start took; `None` if the books did not become right. Not in the report as JSON.
    #[serde(skip)]
    pub start_work: Option<StartWork>,
    /// The failures, with their parts.
    #[serde(skip)]
    pub failed: Vec<Failure>,
}

impl Report {
    /// The first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Failure> {
        self.failed.first()
    }
}
