//! The limits of frames: each list and each payload is bounded before anything else looks at it.

/// Longest frame, in bytes without its length prefix. Links close with
/// [`CloseCode::Protocol`](crate::CloseCode::Protocol) on a longer one.
pub const MAX_FRAME: usize = 64 * 1024;
/// The protocol versions that this build speaks, lowest and highest.
pub const VERSIONS: std::ops::RangeInclusive<u64> = 1..=1;

/// Longest accusation, in bytes. Ours are 167.
pub(crate) const MAX_ACCUSATION: usize = 512;
/// Largest content of one broadcast, in bytes.
pub(crate) const MAX_CONTENT: usize = 16 * 1024;
/// What one frame of a sync carries at most, in bytes, so that a frame is handled in milliseconds.
pub(crate) const MAX_SYNC_BYTES: usize = 16 * 1024;
/// Most announcements (`IHave`) in one frame.
pub(crate) const MAX_IHAVE: usize = 256;
/// Most records in a push, in a busy answer or in one broadcast.
pub(crate) const MAX_RECORDS: usize = 256;
/// Most ranges, and most ids listed in all ranges, in one frame of a sync.
pub(crate) const MAX_RANGES: usize = 256;
pub(crate) const MAX_LISTED: usize = 2048;
/// Most hops of a random walk (`HyParView`'s ARWL) and most hops of a broadcast.
pub(crate) const MAX_TTL: u16 = 6;
pub(crate) const MAX_ROUND: u16 = 64;
/// Most topics that are numbered on one lane of a link.
pub(crate) const MAX_TOPICS: u64 = 64;
/// The age of a record that another node reports is clamped to this, because no record lives longer
/// without a newer one.
pub(crate) const MAX_AGE_MS: u64 = 30 * 86_400 * 1000;
