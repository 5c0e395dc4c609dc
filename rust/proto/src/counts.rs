//! The counters of the protocol, for operators. No decision follows from them.

/// The counters of an endpoint, over all of its topics, since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Records of this node that were signed and announced, heartbeats included.
    pub announcements: u64,
    /// Records of others whose signature was checked, which is the costly part of receiving one.
    pub verifications: u64,
    /// Syncs of the book that this node began.
    pub syncs_started: u64,
    /// Syncs of the book that others began with this node.
    pub syncs_served: u64,
    /// Syncs, begun here or by others, that were completed.
    pub syncs_completed: u64,
    /// Probes of peers that were not heard for a while, or that others asked this node to probe.
    pub probes: u64,
    /// Probes for this node itself that neither the peer nor an indirect prober answered.
    pub probes_failed: u64,
    /// Accusations that this node signed.
    pub accusations: u64,
    /// Accusations of this node that it refuted by a higher sequence number.
    pub refutations: u64,
    /// Broadcasts of this node's application.
    pub broadcasts_sent: u64,
    /// Broadcasts of others, each counted once, with or without a subscriber.
    pub broadcasts_received: u64,
    /// Times that this node was paused, so that its timers were late.
    pub pauses: u64,
    /// Now: nodes that left or were lost, whose highest sequence number is kept.
    pub tombstones: usize,
    /// Now: neighbors in the overlay.
    pub neighbors: usize,
    /// Now: [observers](crate::Config::observer) that this node keeps up to date.
    pub observers: usize,
}
