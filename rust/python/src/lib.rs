//! The extension module `iroh_gossip_discovery._core`: extract, call, convert; no policy.
//!
//! All that a Python user sees is in the package around it. Two rules hold here. Rust enters Python
//! only through [`gate`]. And it does so only from the thread of [`bridge`], or with log lines from
//! the thread of [`logs`].

mod admit;
mod bootstrap;
mod bridge;
mod conditions;
mod config;
mod error;
mod event;
mod extract;
mod fork;
mod gate;
mod interpreter;
mod issuer;
mod logs;
mod message;
mod metrics;
mod node;
mod peer;
mod profile;
mod record_handle;
mod records;
mod secret;
mod selection;
mod settings;
mod simulate;
mod start;
mod status;
mod stream;
mod subscription;
mod test_runtime;
mod ticket;

use pyo3::prelude::*;

/// The core of iroh-gossip-discovery, in Rust. Import `iroh_gossip_discovery` instead.
#[pymodule(gil_used = false)]
mod _core {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};
    #[pymodule_export]
    use super::{
        admit::{Question, Questions},
        bootstrap::Bootstrap,
        config::{check_config, preset},
        error::DiscoveryError,
        event::{
            EventsLost, IdentityConflict, Isolated, PeerJoined, PeerLeft, PeerLost, PeerRecovered,
            PeerSuspected, PeerUpdated, Reconnected, StateDamaged,
        },
        interpreter::check_interpreter,
        issuer::Issuer,
        logs::{logs_dropped, start_logs},
        message::{Message, MessagesLost, Receipt, check_channel},
        node::Node,
        peer::Peer,
        profile::check_profile,
        records::Records,
        secret::generate_swarm_key,
        selection::Selection,
        settings::Settings,
        simulate::{random_scenario, run_scenario, shrink_scenario},
        start::start,
        stream::{Reader, Writer},
        subscription::{MessageSubscription, Serving, Subscription},
        test_runtime::{TestRuntime, bar, sever},
        ticket::{endpoint_id, make_ticket, read_ticket, topic_id},
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
