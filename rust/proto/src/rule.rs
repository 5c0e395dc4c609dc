/// One rule of the protocol. The simulator switches rules off, one at a time, to prove that its checks
/// can fail; nothing else does.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The highest sequence number of who is gone is remembered.
    Tombstones,
    /// The accused answers by a higher sequence number.
    Refutation,
    /// A suspected peer has time to refute.
    SuspicionFloor,
    /// An equal sequence number changes nothing.
    EqualSequences,
    /// What is new goes through the overlay.
    Dissemination,
    /// Books are compared with neighbors'.
    Reconciliation,
    /// Lost peers are dialed.
    Healing,
    /// Bootstrap peers that are not in the book are dialed.
    BootstrapMemory,
    /// Who is accused where a newcomer learns of it does not join its book.
    Unconfirmed,
    /// Both ends of two links keep the same one.
    LinkTieBreak,
    /// Who was paused itself probes again before it accuses, and gives the suspected more time.
    ReprobeAfterPause,
}

impl Rule {
    /// All of them.
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
