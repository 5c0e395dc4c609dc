//! The streams of a link: the byte that names each lane, and which of them QUIC sends first.

use crate::proto::Lane;

/// The priority of an application's messages.
pub(crate) const MESSAGE_PRIORITY: i32 = 0;
/// The priority of an application's streams.
pub(crate) const STREAM_PRIORITY: i32 = -1;

/// The first byte of a lane's stream.
pub(crate) const fn byte(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Sync => 1,
        Lane::Broadcast => 2,
    }
}

/// The priority of a lane's stream: QUIC sends the bytes of the highest one first.
pub(crate) const fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 3,
        Lane::Sync => 2,
        Lane::Broadcast => 1,
    }
}
