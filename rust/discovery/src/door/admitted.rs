//! A connection that passed the door.

use iroh::endpoint::Connection;

/// A connection whose peer belongs to the swarm. Only the door makes one.
#[derive(Debug)]
pub(crate) struct Admitted(Connection);

impl Admitted {
    pub(super) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.0
    }
}
