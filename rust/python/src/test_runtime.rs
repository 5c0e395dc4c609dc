//! `TestRuntime`: a runtime and a thread for one node alone, which a test can pause or kill.
//!
//! A killed node ends like a process that the kernel kills: nothing of it runs after that, and no
//! peer gets a goodbye.

use std::sync::{
    Arc,
    mpsc::{Receiver, Sender, TryRecvError, channel},
};

use iroh_gossip_discovery::Error;
use pyo3::{prelude::*, types::PyString};
use tokio::{
    runtime::{Builder, Handle},
    sync::Notify,
    task::JoinHandle,
};

use crate::{bridge::Bridge, extract, fork::AtHome, node::Node};

/// An order to the thread, with a sender that is dropped once the order is carried out.
type Order = (What, Sender<()>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Pause,
    Resume,
    Kill,
}

struct Inner {
    runtime: Handle,
    orders: Sender<Order>,
    wake: Arc<Notify>,
}

impl Inner {
    fn tell(&self, order: Order) {
        // An error means that the thread has ended.
        let _ = self.orders.send(order);
        self.wake.notify_one();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tell((What::Kill, channel().0));
    }
}

/// A runtime and a thread for one node alone, for tests, which can pause and kill them.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct TestRuntime(AtHome<Inner>);

#[pymethods]
impl TestRuntime {
    #[new]
    fn new() -> PyResult<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (orders, receiver) = channel();
        let wake = Arc::new(Notify::new());
        let inner = Inner { runtime: runtime.handle().clone(), orders, wake: wake.clone() };
        let live = move || {
            let answer = runtime.block_on(obey(&receiver, &wake));
            // This drops every task where it is, and the sockets with them.
            runtime.shutdown_background();
            drop(answer);
        };
        std::thread::Builder::new().name("igd-test".into()).spawn(live)?;
        Ok(Self(AtHome::new(inner)))
    }

    /// Stops all that runs in the runtime, until `resume`.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.order(py, What::Pause)
    }

    /// Continues after a pause.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.order(py, What::Resume)
    }

    /// Ends all that runs in the runtime at once, without a goodbye.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        self.order(py, What::Kill)
    }
}

impl TestRuntime {
    /// Runs a task in the runtime, and returns its result.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> PyResult<JoinHandle<Result<T, Error>>> {
        Ok(self.0.get()?.runtime.spawn(work))
    }

    fn order(&self, py: Python<'_>, what: What) -> PyResult<()> {
        let (answer, done) = channel();
        self.0.get()?.tell((what, answer));
        py.detach(move || done.recv().ok());
        Ok(())
    }
}

/// Carries out orders until the one that ends the runtime, and returns the sender of that one.
async fn obey(orders: &Receiver<Order>, wake: &Notify) -> Option<Sender<()>> {
    loop {
        let order = match orders.try_recv() {
            Ok((What::Pause, answer)) => {
                drop(answer);
                stand_still(orders)?
            }
            Ok(order) => order,
            Err(TryRecvError::Empty) => {
                wake.notified().await;
                continue;
            }
            Err(TryRecvError::Disconnected) => return None,
        };
        if order.0 == What::Kill {
            return Some(order.1);
        }
    }
}

/// Blocks the one thread of the runtime, so that nothing else runs on it, until an order other than
/// a pause comes. Returns that order.
fn stand_still(orders: &Receiver<Order>) -> Option<Order> {
    orders.iter().find(|(what, _)| *what != What::Pause)
}

/// Bars a node from these peers, in place of those given before. Open links stay until `sever`.
#[pyfunction]
pub(crate) fn bar(node: &Node, peers: Vec<Bound<'_, PyString>>) -> PyResult<()> {
    let peers =
        peers.iter().map(|peer| extract::endpoint_id("peer", peer)).collect::<PyResult<_>>();
    node.discovery()?.bar(peers?);
    Ok(())
}

/// Cuts the links of a node to those that it is barred from.
#[pyfunction]
pub(crate) fn sever<'py>(py: Python<'py>, node: &Node) -> PyResult<Bound<'py, PyAny>> {
    let discovery = node.discovery()?.clone();
    Bridge::get(py)?.future(py, async move {
        discovery.sever().await;
        Ok::<_, Error>(())
    })
}
