//! A network of many complete [`State`](iroh_gossip_discovery_proto::State)s in one loop, on a
//! virtual clock: the same code that runs in production, without sockets, deterministic by its
//! seed.
//!
//! [`Network`] is composed of parts that own their state: the engine (time, future events, chance),
//! the nodes, the transport (links that behave as QUIC's, and which nodes hear each other), the
//! processors, and the roster (what is true of all identities). A check at every step records a
//! [`Failure`] and never panics. [`scenario`] describes a network and its faults as data.

mod address;
mod book;
mod checks;
mod clock;
mod conditions;
mod cpu;
mod cuts;
mod engine;
mod faults;
mod hostile;
#[cfg(test)]
mod invariant_tests;
mod link;
mod multicast;
mod network;
mod node;
mod observed;
mod puppet;
mod queue;
mod roster;
pub mod scenario;
mod sent;
#[cfg(test)]
mod tests;
mod trace;
mod transport;
mod truth;
mod turncoat;

pub use book::Book;
pub use conditions::{Conditions, Latency};
pub use cpu::Costs;
pub use hostile::{Hostile, Mirror, Mute};
pub use network::{Memory, Network, RunEnd};
pub use node::Node;
pub use observed::{Emitted, Failure, Observed, name_of};
pub use puppet::{Order, Orders, Puppet};
pub use sent::{Frames, Sent};
pub use turncoat::{Malice, Silence, Turncoat};
