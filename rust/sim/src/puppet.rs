//! A hostile node that says what a test wants it to say.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use iroh_base::TransportAddr;
use iroh_gossip_discovery_proto::{
    CloseCode, EndpointId, InEvent, Lane, LinkId, OutEvent, TopicId, forge,
};
use tokio::time::Instant;

use crate::hostile::Hostile;

/// What a [`Puppet`] is to do, when it is given [`InEvent::Timer`].
#[derive(Debug)]
pub enum Order {
    /// Open a link to a peer at these addresses.
    Dial(EndpointId, Vec<TransportAddr>),
    /// Send a frame on the link to a peer.
    Say(EndpointId, Lane, Bytes),
    /// Close the link to a peer.
    Close(EndpointId),
    /// Answer each sync that a peer begins with these records too.
    Hold(Vec<Bytes>),
}

/// The orders of a [`Puppet`], which a test fills.
pub type Orders = Arc<Mutex<VecDeque<Order>>>;

/// A node that greets each peer, opens one topic, answers pings and syncs, and carries out orders.
/// It says nothing else.
#[derive(Debug)]
pub struct Puppet {
    topic: TopicId,
    orders: Orders,
    links: BTreeMap<EndpointId, LinkId>,
    /// What it answers to each sync.
    book: Vec<Bytes>,
}

impl Puppet {
    /// Returns a puppet without links, which takes its orders from `orders`.
    #[must_use]
    pub fn new(topic: TopicId, orders: Orders) -> Self {
        Self { topic, orders, links: BTreeMap::new(), book: Vec::new() }
    }

    fn carry_out(&mut self, order: Order) -> Option<OutEvent> {
        Some(match order {
            Order::Dial(peer, addresses) => OutEvent::Dial(peer, addresses),
            Order::Say(peer, lane, frame) => OutEvent::Send(*self.links.get(&peer)?, lane, frame),
            Order::Close(peer) => OutEvent::Close(*self.links.get(&peer)?, CloseCode::Leave),
            Order::Hold(records) => {
                self.book.extend(records);
                return None;
            }
        })
    }
}

impl Hostile for Puppet {
    fn handle(&mut self, event: InEvent, _: Instant) -> Vec<OutEvent> {
        match event {
            InEvent::LinkOpened { link, peer, .. } => {
                self.links.insert(peer, link);
                let open = forge::open(self.topic);
                vec![
                    OutEvent::Send(link, Lane::Control, forge::hello(9)),
                    OutEvent::Send(link, Lane::Control, open.clone()),
                    OutEvent::Send(link, Lane::Sync, open.clone()),
                    OutEvent::Send(link, Lane::Broadcast, open),
                ]
            }
            InEvent::LinkClosed(link, _) => {
                self.links.retain(|_, open| *open != link);
                Vec::new()
            }
            InEvent::Received(link, lane, frame) => {
                let answer = forge::answer(&frame).into_iter();
                let answers = answer.chain(forge::sync_answers(&frame, &self.book));
                answers.map(|answer| OutEvent::Send(link, lane, answer)).collect()
            }
            InEvent::Timer => {
                let orders =
                    self.orders.lock().unwrap_or_else(PoisonError::into_inner).split_off(0);
                orders.into_iter().filter_map(|order| self.carry_out(order)).collect()
            }
            _ => Vec::new(),
        }
    }
}
