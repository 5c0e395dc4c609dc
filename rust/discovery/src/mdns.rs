//! Multicast DNS: members of one topic find each other in the local network without a ticket.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::BASE32_NOPAD;
use futures_util::StreamExt;
use iroh::{TransportAddr, endpoint_info::EndpointInfo};
use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::{
    inputs::Input,
    proto::{EndpointId, TopicId},
};

/// Members in sight are reported again this often: the first report may have been lost to a limit.
const REPEAT: Duration = Duration::from_secs(10);
/// Most members in sight that are remembered.
const MAX_SEEN: usize = 1024;

/// The service of one topic. Dropping it ends both the service and the reports.
#[derive(Debug)]
pub(crate) struct Mdns {
    pub(crate) lookup: MdnsAddressLookup,
    _reports: AbortOnDropHandle<()>,
}

/// The DNS-SD service of a topic: `igd-` and 11 characters of base 32 of the topic id's SHA-256,
/// together the 15 characters that RFC 6335 §5.1 allows.
pub(crate) fn service_name(topic: &TopicId) -> String {
    let digest = BASE32_NOPAD.encode(&Sha256::digest(topic.as_bytes())).to_ascii_lowercase();
    format!("igd-{}", &digest[..11])
}

/// Starts the service of a topic. `None`, with a warning, where the network has no multicast: the
/// topic works without.
pub(crate) fn start(
    id: iroh::EndpointId,
    topic: TopicId,
    inputs: mpsc::Sender<Input>,
) -> Option<Mdns> {
    let service = service_name(&topic);
    match MdnsAddressLookup::builder().service_name(&service).build(id) {
        Ok(lookup) => {
            debug!(topic = %topic.fmt_short(), service, "mDNS service started");
            let reports = tokio::spawn(report(lookup.clone(), topic, inputs));
            Some(Mdns { lookup, _reports: AbortOnDropHandle::new(reports) })
        }
        Err(error) => {
            warn!(topic = %topic.fmt_short(), service, reason = %error, "mDNS is not available");
            None
        }
    }
}

async fn report(lookup: MdnsAddressLookup, topic: TopicId, inputs: mpsc::Sender<Input>) {
    let mut events = lookup.subscribe().await;
    // The service ends with its last handle: that is not this one.
    drop(lookup);
    let mut seen: BTreeMap<EndpointId, Vec<TransportAddr>> = BTreeMap::new();
    let mut repeat = tokio::time::interval(REPEAT);
    repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let found = tokio::select! {
            event = events.next() => match event {
                Some(DiscoveryEvent::Discovered { endpoint_info, .. }) => {
                    let (peer, addresses) = parts(endpoint_info);
                    debug!(topic = %topic.fmt_short(), peer = %peer.fmt_short(), "seen by mDNS");
                    if seen.len() < MAX_SEEN || seen.contains_key(&peer) {
                        seen.insert(peer, addresses.clone());
                    }
                    vec![(peer, addresses)]
                }
                Some(DiscoveryEvent::Expired { endpoint_id }) => {
                    seen.remove(&endpoint_id.into());
                    continue;
                }
                Some(_) => continue,
                None => return,
            },
            _ = repeat.tick() => seen.iter().map(|(id, at)| (*id, at.clone())).collect(),
        };
        for (peer, addresses) in found {
            if inputs.send(Input::Found(topic, peer, addresses)).await.is_err() {
                return;
            }
        }
    }
}

fn parts(info: EndpointInfo) -> (EndpointId, Vec<TransportAddr>) {
    (info.endpoint_id.into(), info.data.addrs().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_within_dns_sd_limits() {
        for name in ["fleet", "x", "ein Thema", "一"] {
            let service = service_name(&TopicId::from_name(name).unwrap());
            assert_eq!(service.len(), 15);
            assert!(service.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{service}");
        }
        assert_ne!(
            service_name(&TopicId::from_name("a").unwrap()),
            service_name(&TopicId::from_name("b").unwrap())
        );
    }
}
