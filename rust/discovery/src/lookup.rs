//! An address lookup for the endpoint, which answers from the address books and from mDNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::{StreamExt, stream, stream::BoxStream};
use iroh::{
    EndpointAddr,
    address_lookup::{AddressLookup, EndpointInfo, Error, Item},
};

use crate::{
    mdns::Sight,
    proto::{EndpointId, TopicId},
    published::Published,
};

const PROVENANCE: &str = "iroh-gossip-discovery";

/// Answers from the books of all joined topics and from their mDNS services.
///
/// It does not hold the endpoint, because the endpoint holds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lookup(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    topics: BTreeMap<TopicId, Source>,
    /// Peers that this node dials now, at addresses that the protocol chose.
    dialing: BTreeSet<EndpointId>,
}

#[derive(Debug)]
struct Source {
    published: Arc<Published>,
    sight: Option<Sight>,
}

impl Lookup {
    pub(crate) fn add(&self, published: Arc<Published>, sight: Option<Sight>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.topics.insert(published.topic.id(), Source { published, sight });
    }

    /// Returns a joined topic.
    pub(crate) fn topic(&self, topic: &TopicId) -> Option<Arc<Published>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.get(topic).map(|source| source.published.clone())
    }

    /// Returns true if a peer is in the book of a joined topic.
    pub(crate) fn is_member(&self, peer: &EndpointId) -> bool {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.values().any(|source| source.published.is_member(peer))
    }

    /// Returns true if the book of a joined topic has a peer.
    pub(crate) fn knows_anybody(&self) -> bool {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.values().any(|source| !source.published.book().is_empty())
    }

    /// Begins a dial of a peer at certain addresses. Meanwhile the books add no others, because a
    /// record may name those of a victim, which the protocol has left out.
    pub(crate) fn begin_dial(&self, peer: EndpointId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).dialing.insert(peer);
    }

    /// Ends such a dial: the books answer again.
    pub(crate) fn end_dial(&self, peer: &EndpointId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).dialing.remove(peer);
    }

    pub(crate) fn remove(&self, topic: &TopicId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).topics.remove(topic);
    }
}

impl AddressLookup for Lookup {
    fn resolve(&self, id: iroh::EndpointId) -> Option<BoxStream<'static, Result<Item, Error>>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let peer = EndpointId::from(id);
        let known: Vec<_> = table
            .topics
            .values()
            .filter(|_| !table.dialing.contains(&peer))
            .filter_map(|source| source.published.addresses_of(&peer))
            .map(|addresses| {
                let info = EndpointInfo::from(EndpointAddr::from_parts(id, addresses));
                Ok(Item::new(info, PROVENANCE, None))
            })
            .collect();
        let services: Vec<_> = table
            .topics
            .values()
            .filter_map(|source| source.sight.clone())
            .map(|sight| stream::once(seen(sight, id)).boxed())
            .collect();
        if known.is_empty() && services.is_empty() {
            return None;
        }
        Some(stream::iter(known).chain(stream::select_all(services)).boxed())
    }
}

/// Waits until mDNS sees a member, and returns its addresses.
async fn seen(sight: Sight, id: iroh::EndpointId) -> Result<Item, Error> {
    let addresses = sight.find(id.into()).await;
    let info = EndpointInfo::from(EndpointAddr::from_parts(id, addresses));
    Ok(Item::new(info, PROVENANCE, None))
}
