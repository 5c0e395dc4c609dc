//! A connection that passed the door.

use iroh::endpoint::Connection;

/// A connection whose peer belongs to the swarm. Only the door makes one.
#[derive(Debug)]
pub(crate) struct Admitted {
    connection: Connection,
    until: Option<u64>,
}

impl Admitted {
    pub(super) fn new(connection: Connection, until: Option<u64>) -> Self {
        Self { connection, until }
    }

    /// When the invitation of the peer ends, in seconds since 1970, if it has one.
    pub(crate) fn until(&self) -> Option<u64> {
        self.until
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }
}
