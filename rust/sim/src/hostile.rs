//! Nodes that do not keep to the protocol.

use std::fmt::Debug;

use iroh_gossip_discovery_proto::{InEvent, LinkId, OutEvent};
use tokio::time::Instant;

/// A node that gets the same events as a [`State`](iroh_gossip_discovery_proto::State), and answers
/// as it likes. It has keys of its own, and none of other nodes.
pub trait Hostile: Debug + Send {
    /// Handles an event, which may be a timer that it asked for, and returns its effects.
    fn handle(&mut self, event: InEvent, now: Instant) -> Vec<OutEvent>;

    /// Returns when it wants [`InEvent::Timer`].
    fn next_timer(&self) -> Option<Instant> {
        None
    }
}

/// Accepts every link and never sends a frame: no hello, and no answer to a probe.
#[derive(Debug, Default)]
pub struct Mute;

impl Hostile for Mute {
    fn handle(&mut self, _: InEvent, _: Instant) -> Vec<OutEvent> {
        Vec::new()
    }
}

/// Sends every frame back to its sender.
#[derive(Debug, Default)]
pub struct Mirror {
    open: Vec<LinkId>,
}

impl Hostile for Mirror {
    fn handle(&mut self, event: InEvent, _: Instant) -> Vec<OutEvent> {
        match event {
            InEvent::LinkOpened { link, .. } => self.open.push(link),
            InEvent::LinkClosed(link, _) => self.open.retain(|open| *open != link),
            InEvent::Received(link, lane, frame) if self.open.contains(&link) => {
                return vec![OutEvent::Send(link, lane, frame)];
            }
            _ => {}
        }
        Vec::new()
    }
}
