//! The rules of the protocol that a test may switch off.

/// One rule of the protocol. Only the simulator switches rules off, one at a time, to prove that
/// its checks can fail.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The highest sequence number of a node that is gone is remembered.
    Tombstones,
    /// An accused node answers with a higher sequence number.
    Refutation,
    /// A suspected peer has time to refute.
    SuspicionFloor,
    /// An equal sequence number changes nothing.
    EqualSequences,
    /// New records go through the overlay.
    Dissemination,
    /// Books are compared with neighbors'.
    Reconciliation,
    /// Lost peers are dialed.
    Healing,
    /// Bootstrap peers that are not in the book are dialed.
    BootstrapMemory,
    /// A node that a newcomer learns of as accused does not enter its book before it answers.
    Unconfirmed,
    /// If both ends dialed a link, both keep the same one.
    LinkTieBreak,
    /// A node that was paused probes again before it accuses, and gives suspects more time.
    ReprobeAfterPause,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 11] = [
        Self::Tombstones,
        Self::Refutation,
        Self::SuspicionFloor,
        Self::EqualSequences,
        Self::Dissemination,
        Self::Reconciliation,
        Self::Healing,
        Self::BootstrapMemory,
        Self::Unconfirmed,
        Self::LinkTieBreak,
        Self::ReprobeAfterPause,
    ];
}
