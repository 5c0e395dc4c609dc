//! For tests: bars an endpoint from others, as a failed network between them would.

use std::collections::BTreeSet;

use crate::{admission::Limits, commands::Command, discovery::Discovery, proto::EndpointId};

/// Not part of the public interface. `iroh_gossip_discovery.testing` makes faults with it.
#[doc(hidden)]
impl Discovery {
    /// Bars this endpoint from these peers, in place of those given before. No link is opened with
    /// them any more. A link that ends counts as timed out, as if the network between the nodes had
    /// failed. Open links stay until [`Self::sever`], so that a test can bar both ends first.
    pub fn bar(&self, peers: BTreeSet<EndpointId>) {
        self.barred.lock().peers = peers;
    }

    /// Sets the limit of links of this endpoint, so that a test reaches it with few keys.
    pub fn limit_links(&self, links: usize) {
        self.barred.lock().limits = Limits::of(links);
    }

    /// Cuts the links to the peers that this endpoint is barred from, without a goodbye.
    pub async fn sever(&self) {
        // An error means that the actor has ended, and its links with it.
        let _ = self.commands.request(|reply| Command::Sever { reply }).await;
    }
}
