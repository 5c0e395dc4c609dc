//! What the protocol counts, for whoever operates it; nothing here decides anything.

/// Counts of an endpoint, in all of its topics, since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Records of this node that were signed and announced, heartbeats included.
    pub announcements: u64,
    /// Records of others whose signature was checked: the dear part of receiving one.
    pub verifications: u64,
    /// Reconciliations of the book that this node began.
    pub syncs_started: u64,
    /// Reconciliations of the book that others began with this node.
    pub syncs_served: u64,
    /// Reconciliations, begun here or by others, that came to their end.
    pub syncs_completed: u64,
    /// Probes of peers that were not heard for a while, or that others asked this node to probe.
    pub probes: u64,
    /// Of these, for this node itself, probes that neither the peer nor those who were asked to try
    /// it answered.
    pub probes_failed: u64,
    /// Accusations that this node signed.
    pub accusations: u64,
    /// Accusations of this node that it refuted by a higher sequence number.
    pub refutations: u64,
    /// Broadcasts of this node's application.
    pub broadcasts_sent: u64,
    /// Broadcasts of others, each once: delivered, whether somebody listens or not.
    pub broadcasts_received: u64,
    /// Times that this node was paused: its timers came late.
    pub pauses: u64,
    /// Now: nodes that left or were lost, whose highest sequence number is kept.
    pub tombstones: usize,
    /// Now: neighbors in the overlay.
    pub neighbors: usize,
}
