//! Every node of an application finds, authenticates and reaches every other node, on iroh.
//!
//! A node announces a signed record of itself in a topic, and gossip spreads it. Every node keeps
//! an address book of the others. This crate drives the protocol ([`proto`], which does no IO) over
//! the QUIC links of an iroh endpoint: one link for each pair of nodes, on the ALPN [`ALPN`].
//!
//! An application with an endpoint of its own spawns a [`Discovery`] on it and gives that to its
//! router. Every peer in a book can then be dialed by its id, on any ALPN.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use iroh_gossip_discovery::{
//!     ALPN, Bootstrap, Discovery, JoinOptions, SpawnOptions, Topic,
//!     iroh::{Endpoint, endpoint::presets, protocol::Router},
//! };
//!
//! let endpoint = Endpoint::bind(presets::N0).await?;
//! let discovery = Discovery::spawn(endpoint.clone(), SpawnOptions::default()).await?;
//! let router = Router::builder(endpoint.clone())
//!     .incoming_filter(discovery.incoming_filter())
//!     .accept(ALPN, discovery.clone())
//!     .spawn();
//! let seed: Bootstrap = "igd1…".parse()?;
//! let join = JoinOptions::new("alice").bootstrap([seed]);
//! let swarm = discovery.join(Topic::new("fleet")?, join).await?;
//!
//! for peer in &swarm.wait_for_peers(1).await? {
//!     let connection = endpoint.connect(peer.endpoint_addr()?, b"echo/1").await?;
//!     assert!(connection.remote_id() == peer.id);
//! }
//!
//! router.shutdown().await?; // says goodbye, then closes the endpoint
//! # Ok(())
//! # }
//! ```
//!
//! The order of closing matters: the router, or [`Discovery::shutdown`], comes before the endpoint.
//! Then the others see a leave. A node whose endpoint closes first looks like one that crashed.
//!
//! An application without an endpoint of its own has one made, with a router:
//!
//! ```no_run
//! # async fn example() -> Result<(), iroh_gossip_discovery::Error> {
//! use iroh_gossip_discovery::{Config, RunningNode};
//!
//! let node = RunningNode::builder("alice", "fleet").config(Config::local()).build().await?;
//! println!("{} {}", node.swarm.id(), node.swarm.ticket());
//! node.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Code that was written for release 0.6.0 finds its names in [`migration`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod access;
mod actor;
mod admission;
mod advertise;
mod agreement;
mod bans;
mod barred;
mod blocking;
mod book;
mod bootstrap;
mod builder;
mod claim;
mod commands;
mod config;
mod contact;
mod dial;
mod discovery;
mod door;
mod ending;
mod endpoint;
mod error;
mod events;
mod faults;
mod frame;
#[cfg(test)]
mod fuzz;
mod inputs;
mod inquiry;
mod interfaces;
mod invited;
mod issuer;
mod joined;
mod key_text;
mod link;
mod lookup;
mod mdns;
mod memory;
mod message;
mod metrics;
pub mod migration;
mod names;
mod network;
mod newcomer;
pub mod ownership;
mod place;
mod problems;
mod proof;
mod published;
mod questions;
mod relay;
mod send;
mod serve;
mod services;
mod status;
mod store;
mod stream;
mod subnet;
mod subscription;
mod swarm;
mod swarm_key;
mod ticket;
mod topic;

pub use advertise::Advertise;
pub use book::{Book, DIGEST_LABEL};
pub use bootstrap::Bootstrap;
pub use builder::{NodeBuilder, RunningNode};
pub use config::Config;
pub use contact::Joined;
pub use discovery::{Discovery, SpawnOptions};
pub use error::Error;
pub use events::Event;
#[doc(hidden)]
pub use invited::check_invited;
pub use iroh;
pub use iroh::{RelayUrl, SecretKey};
pub use iroh_gossip_discovery_proto as proto;
pub use issuer::IssuerKey;
pub use message::{Message, MessageEvent, MessageKind, Messages, Receipt};
pub use metrics::{EventCounts, Metrics, StreamCounts};
pub use migration::{
    GossipDiscoveryBuilder, GossipDiscoveryReceiver, GossipDiscoverySender, Node, NodeInfo,
};
pub use names::Name;
pub use newcomer::{Admit, Newcomer};
pub use problems::Problem;
pub use proto::{
    EndpointId, Invitation, LostReason, NodeRecord, Profile, Readiness, Revocation, Status, TopicId,
};
pub use serve::Serving;
pub use services::IncomingStream;
pub use status::{LinkStatus, PeerStatus};
#[doc(hidden)]
pub use stream::check_reset;
pub use stream::{StreamError, StreamReader, StreamWriter};
pub use subscription::Subscription;
pub use swarm::Swarm;
pub use swarm_key::SwarmKey;
pub use ticket::Ticket;
pub use topic::{JoinOptions, Topic};

/// The ALPN of a link.
pub const ALPN: &[u8] = b"iroh-gossip-discovery/1";
