//! A network of many complete [`State`]s in one loop, on a virtual clock: the same code that runs in
//! production, without sockets, deterministic by its seed.
//!
//! It models what QUIC gives the protocol: links that open after a handshake, frames that arrive in
//! order within a lane, an end that both sides hear of. Failures are the test's to make.

mod network;
mod node;

pub use network::{Latency, Network};
pub use node::Node;
