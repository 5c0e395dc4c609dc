//! The report of a scenario's run.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{observed::Failure, sent::Sent};

/// How long it took until all books were right after a fault or after the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The action of a fault, or `start`.
    pub what: &'static str,
    /// The fault's number in the timeline, from 0; `None` for the start.
    pub fault: Option<usize>,
    /// The nodes that it hit.
    pub nodes: Vec<usize>,
    /// When it happened, in seconds since the first start.
    pub at_s: f64,
    /// Seconds until all books were right; `None` if they never were.
    pub took_s: Option<f64>,
    /// For nodes that joined, left, started again or announced something: seconds until all nodes
    /// were right about each of [`Figure::nodes`], and each of these had all nodes in its book.
    /// Each of that need hold only at one moment, whatever else happens. Not in the report as JSON.
    #[serde(skip)]
    pub known_s: Option<f64>,
    /// The expected time, in seconds.
    pub within_s: Option<f64>,
}

/// What each node did on average since the first start, or what the start cost it: until all books
/// were right.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StartWork {
    /// Dials begun.
    pub dials: f64,
    /// Syncs that were begun.
    pub syncs: f64,
    /// Syncs that were completed, each counted at both ends.
    pub syncs_completed: f64,
    /// Syncs that were given up or begun again, because nothing arrived.
    pub syncs_stalled: f64,
    /// Frames that were sent.
    pub frames: f64,
    /// Those of them on the sync lane.
    pub sync_frames: f64,
    /// Neighbors that went, whichever end wanted it.
    pub neighbors_gone: f64,
    /// Members that were suspected.
    pub suspected: f64,
    /// Seconds that the cores of all machines worked, for all nodes together. 0 if work costs
    /// nothing.
    pub cpu_s: f64,
}

/// What one node sent in one second: the mean over all nodes and the timeline, without the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rates {
    /// Frames on the control lane.
    pub control_frames: f64,
    /// Their bytes, with the length before each.
    pub control_bytes: f64,
    /// Frames on the sync lane.
    pub sync_frames: f64,
    /// Their bytes.
    pub sync_bytes: f64,
    /// Bytes on the wire, by an estimate.
    pub wire_bytes: f64,
    /// Dials begun.
    pub dials: f64,
}

impl Rates {
    /// Computes the rates of `nodes` nodes in `seconds`.
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

    /// Returns the bytes of all frames.
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
    /// The name of the peer that the event is about.
    pub peer: Option<String>,
    /// The peer's id.
    pub id: Option<String>,
}

/// The whole report. `docs/simulator.md` describes the fields.
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
    /// Whether the run was complete, and every check and expectation held.
    pub ok: bool,
    /// Whether the run was complete: neither the caller nor a failure ended it early.
    pub complete: bool,
    /// The hash over all frames and their times, 64 hex digits.
    pub trace: String,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// The times until all books were right, for each fault.
    pub figures: Vec<Figure>,
    /// Checks and expectations that failed, as text.
    pub failures: Vec<String>,
    /// What all nodes sent, including the warm-up.
    pub sent: Sent,
    /// What a node sent in a second.
    pub rates: Rates,
    /// How often each limit refused or dropped something at all nodes, by name.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Events that the simulator handled.
    pub steps: u64,
    /// The number of events that nodes emitted, by name.
    pub emitted: BTreeMap<&'static str, u64>,
    /// The events, if they were requested: the first two million.
    pub events: Vec<EventLine>,
    /// The number of events that are left out.
    pub events_left_out: u64,
    /// The number of nodes that were reported lost while they were up and in the same part of the
    /// network. Counted up to one hundred.
    #[serde(skip)]
    pub wrongly_lost: usize,
    /// The most times that one node reported a `lossy` one lost within one time of that fault.
    #[serde(skip)]
    pub lossy_lost: u32,
    /// How often `lossy` nodes reported a node lost that was up.
    #[serde(skip)]
    pub lost_by_lossy: u64,
    /// The number of different sizes of books, with the node itself, that all nodes had at full
    /// seconds from the first start until all books were right, and at that moment.
    #[serde(skip)]
    pub sizes_at_start: usize,
    /// What the start cost; `None` if the books never became right. Not in the report as JSON.
    #[serde(skip)]
    pub start_work: Option<StartWork>,
    /// What the whole run cost. Not in the report as JSON.
    #[serde(skip)]
    pub whole_work: StartWork,
    /// The failures as values.
    #[serde(skip)]
    pub failed: Vec<Failure>,
}

impl Report {
    /// Returns the first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Failure> {
        self.failed.first()
    }
}
