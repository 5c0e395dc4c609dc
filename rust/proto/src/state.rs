//! The endpoint's state: identity, links and topics.

use std::collections::VecDeque;

use ed25519_dalek::SigningKey;
use tokio::time::Instant;

use crate::{error::Error, event::{InEvent, OutEvent}};

/// Who this endpoint is, for one life of the process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The key of the endpoint.
    pub key: SigningKey,
    /// Random for each process.
    pub boot_id: u64,
    /// The first sequence number to use: above all that this key ever announced, as far as known.
    pub sequence: u64,
    /// Sequence numbers below this one are persisted as used.
    pub reserved: u64,
}

/// The protocol of one endpoint in all of its topics.
#[derive(Debug)]
pub struct State {
    out: VecDeque<OutEvent>,
}

impl State {
    /// The state of an endpoint without links and topics. Everything random follows from `seed`.
    #[must_use]
    pub fn new(_identity: Identity, _seed: [u8; 32]) -> Self {
        Self { out: VecDeque::new() }
    }

    /// Handles one event. Time never goes back from call to call.
    ///
    /// # Errors
    /// Only for what the application asks for (join, profile, topics); nothing changed then.
    pub fn handle(&mut self, _event: InEvent, _now: Instant) -> Result<(), Error> {
        Ok(())
    }

    /// The next thing to be done, in order.
    pub fn poll(&mut self) -> Option<OutEvent> {
        self.out.pop_front()
    }

    /// When [`InEvent::Timer`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Instant> {
        None
    }
}
