//! What is measured after a fault or the start: when all books are right again.

use std::time::Duration;

use super::report::Figure;
use crate::network::Network;

/// A fault or the start, watched until all books are right again.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) figure: Figure,
    pub(super) since: Duration,
    pub(super) within: Option<Duration>,
    /// The parts of [`Figure::known_s`] that have not happened yet.
    pub(super) unknown: Vec<Knowledge>,
}

/// What has to be known by the nodes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Knowledge {
    /// All nodes are right about this node.
    It(usize),
    /// This node has all nodes in its book.
    All(usize),
}

impl Knowledge {
    pub(super) fn is_known(self, network: &Network) -> bool {
        match self {
            Self::It(node) => network.is_known(node),
            Self::All(node) => network.knows_all(node),
        }
    }
}

impl Watch {
    /// Returns the time from which it is late.
    pub(super) fn late(&self) -> Option<Duration> {
        Some(self.since + self.within? + Duration::from_nanos(1))
    }
}
