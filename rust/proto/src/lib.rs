//! The protocol of iroh-gossip-discovery, as one sans-IO state machine.
//!
//! [`State::handle`] takes an [`InEvent`] and the time. [`State::poll`] gives the [`OutEvent`]s
//! that follow, and [`State::next_timer`] says when to call again. The state has no IO, clock,
//! runtime or randomness of its own. So the same code runs behind real QUIC links and in a
//! simulated network.

mod access;
mod accusation;
mod book;
mod broadcast;
mod budget;
mod cbor;
mod channel;
mod config;
mod context;
mod cose;
mod counts;
mod dials;
mod digest;
mod drops;
mod error;
mod event;
#[doc(hidden)]
pub mod forge;
mod id;
mod invitation;
mod kept;
mod links;
mod network;
mod overlay;
mod record;
mod request;
mod rule;
#[doc(hidden)]
pub mod samples;
mod signature;
mod state;
mod sync;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod tests;
mod timers;
mod topic;
mod verified;
mod wire;

pub use access::Access;
pub use broadcast::{MAX_BROADCAST, Pace};
pub use channel::{Channel, MAX_CHANNEL};
pub use config::Config;
pub use context::Identity;
pub use counts::Counts;
#[doc(hidden)]
pub use digest::Digest;
pub use drops::DropReason;
pub use error::Error;
pub use event::{
    CloseCode, InEvent, KEEPALIVE_TIMEOUT, Lane, LinkEnd, LinkId, LostReason, OutEvent, TopicEvent,
    TopicOptions,
};
pub use id::{EndpointId, MAX_TOPIC_NAME, TopicId};
pub use invitation::{CLOCK_TOLERANCE, Invitation, MAX_INVITATION, MAX_INVITED, Revocation};
pub use kept::{Entry, Kept};
pub use links::MAX_LINKS;
pub use record::{
    EXPIRATION_SECONDS, MAX_ADDRESSES, MAX_METADATA, MAX_NAME, MAX_PROTOCOL, MAX_PROTOCOLS,
    MAX_RECORD, MAX_RELAY_URL, MAX_SEQUENCE, NodeRecord, Profile, Readiness, SignedRecord, Status,
    choose_addresses,
};
pub use request::{Answer, MAX_MESSAGE, MAX_REASON, MAX_REQUEST, Request};
#[doc(hidden)]
pub use rule::Rule;
pub use state::State;
#[doc(hidden)]
pub use topic::Inspect;
#[doc(hidden)]
pub use verified::Verified;
pub use wire::{MAX_FRAME, VERSIONS};
