//! What goes to disk while the node runs: in a task of its own, so that no disk delays anybody.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{Instrument, error};

use super::Actor;
use crate::blocking::blocking;

/// What comes within this is written together. A crash loses no more of others' records than that.
const GATHER: Duration = Duration::from_millis(500);

impl Actor {
    /// Writes what is to be kept, until the actor ends; what could not be written, again and again.
    pub(super) fn keep_writing(&self) {
        let Some(store) = self.store.clone() else { return };
        let inputs = self.inputs.clone();
        let writing = async move {
            loop {
                let ends = tokio::select! {
                    () = store.changed() => timeout(GATHER, inputs.closed()).await.is_ok(),
                    () = inputs.closed() => true,
                };
                let written = store.clone();
                if let Err(reason) = blocking(move || Ok(written.write_again())).await {
                    error!(%reason, "writing to the state directory broke off");
                }
                if ends {
                    return;
                }
            }
        };
        self.tasks.spawn(writing.in_current_span());
    }
}
