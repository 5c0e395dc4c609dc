//! For tests: a rule that bars an endpoint from others, as a network that fails between them would.

use std::collections::BTreeSet;

use crate::{admission::Limits, commands::Command, discovery::Discovery, proto::EndpointId};

/// Not part of the interface: what `iroh_gossip_discovery.testing` makes faults with.
#[doc(hidden)]
impl Discovery {
    /// Bars this endpoint from these peers, in place of those before. No link is opened with them any
    /// more, and one that ends counts as timed out: so it looks where the network between two nodes
    /// fails. Links that are open stay until [`Self::sever`], so that both ends can be barred first.
    pub fn bar(&self, peers: BTreeSet<EndpointId>) {
        self.barred.lock().peers = peers;
    }

    /// Sets the most links of this endpoint, so that a test reaches the limits with few keys.
    pub fn limit_links(&self, links: usize) {
        self.barred.lock().limits = Limits::of(links);
    }

    /// Cuts the links to the peers that this endpoint is barred from, without a goodbye.
    pub async fn sever(&self) {
        // An error says that the actor has ended, and its links with it.
        let _ = self.commands.request(|reply| Command::Sever { reply }).await;
    }
}
