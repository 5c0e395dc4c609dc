//! The address books, and mDNS, as an address lookup of the endpoint.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::{StreamExt, stream, stream::BoxStream};
use iroh::{
    EndpointAddr,
    address_lookup::{AddressLookup, EndpointData, EndpointInfo, Error, Item},
};
use iroh_mdns_address_lookup::MdnsAddressLookup;

use crate::{
    proto::{EndpointId, TopicId},
    published::Published,
};

const PROVENANCE: &str = "iroh-gossip-discovery";

/// Answers from the books of all joined topics and from their mDNS services.
///
/// It holds no endpoint, so that an endpoint may hold it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lookup(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    topics: BTreeMap<TopicId, Source>,
    /// What the endpoint last published, for services that start later.
    published: Option<EndpointData>,
}

#[derive(Debug)]
struct Source {
    published: Arc<Published>,
    mdns: Option<MdnsAddressLookup>,
}

impl Lookup {
    pub(crate) fn add(&self, published: Arc<Published>, mdns: Option<MdnsAddressLookup>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let (Some(mdns), Some(data)) = (&mdns, &table.published) {
            mdns.publish(data);
        }
        table.topics.insert(published.topic.id(), Source { published, mdns });
    }

    /// A joined topic.
    pub(crate) fn topic(&self, topic: &TopicId) -> Option<Arc<Published>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.get(topic).map(|source| source.published.clone())
    }

    #[cfg(test)]
    pub(crate) fn published(&self) -> Option<EndpointData> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).published.clone()
    }

    pub(crate) fn remove(&self, topic: &TopicId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).topics.remove(topic);
    }
}

impl AddressLookup for Lookup {
    fn publish(&self, data: &EndpointData) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.published = Some(data.clone());
        for mdns in table.topics.values().filter_map(|source| source.mdns.as_ref()) {
            mdns.publish(data);
        }
    }

    fn resolve(&self, id: iroh::EndpointId) -> Option<BoxStream<'static, Result<Item, Error>>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let peer = EndpointId::from(id);
        let known: Vec<_> = table
            .topics
            .values()
            .filter_map(|source| source.published.addresses_of(&peer))
            .map(|addresses| {
                let info = EndpointInfo::from(EndpointAddr::from_parts(id, addresses));
                Ok(Item::new(info, PROVENANCE, None))
            })
            .collect();
        let services: Vec<_> =
            table.topics.values().filter_map(|source| source.mdns.as_ref()?.resolve(id)).collect();
        if known.is_empty() && services.is_empty() {
            return None;
        }
        Some(stream::iter(known).chain(stream::select_all(services)).boxed())
    }
}
