//! `start`: makes a running node from settings and bootstrap peers.

use iroh_gossip_discovery::Error;
use pyo3::prelude::*;

use crate::{
    admit::Questions, bootstrap::Bootstrap, bridge::Bridge, logs, node::Node, settings::Settings,
    test_runtime::TestRuntime,
};

/// Binds an endpoint and joins the topic. It waits for no peer. If a test runtime is given, the
/// node runs in that. If questions are given, the core asks there who may be a member.
#[pyfunction]
#[pyo3(signature = (settings, bootstrap, runtime = None, questions = None))]
pub(crate) fn start<'py>(
    py: Python<'py>,
    settings: &Settings,
    bootstrap: Vec<Bound<'py, Bootstrap>>,
    runtime: Option<&TestRuntime>,
    questions: Option<&Questions>,
) -> PyResult<Bound<'py, PyAny>> {
    let peers = bootstrap.iter().map(|peer| peer.get().0.clone()).collect();
    let mut builder = settings.builder().bootstrap(peers);
    if let Some(questions) = questions {
        builder = builder.admit(questions.admit()?);
    }
    logs::look(py);
    let bridge = Bridge::get(py)?;
    let (secrets, topic) = settings.secrets();
    // Boxed, because what a start keeps is large.
    let build = Box::pin(async move { builder.secrets(secrets.keys(topic).await?).build().await });
    match runtime {
        None => bridge.future(py, async { build.await.map(Node::new) }),
        Some(runtime) => {
            let running = runtime.run(build)?;
            bridge.future(py, async {
                let node = running.await.map_err(|error| Error::Endpoint(error.to_string()))?;
                node.map(Node::new)
            })
        }
    }
}
