//! `TestRuntime`: a runtime and a thread for one node alone, which a test can pause or kill.
//!
//! A killed node ends as a process that the kernel kills: nothing of it runs any more, and it says
//! goodbye to nobody.

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

/// What the thread is told, and where the answer goes: the sender is dropped once it is done.
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
        // An error says that it has ended.
        let _ = self.orders.send(order);
        self.wake.notify_one();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tell((What::Kill, channel().0));
    }
}

/// A runtime and a thread for one node alone, for tests: they can be paused and killed.
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
            // Every task is dropped where it stands, and the sockets with them.
            runtime.shutdown_background();
            drop(answer);
        };
        std::thread::Builder::new().name("igd-test".into()).spawn(live)?;
        Ok(Self(AtHome::new(inner)))
    }

    /// Stops everything that runs there, until `resume`.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.order(py, What::Pause)
    }

    /// Lets it go on.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.order(py, What::Resume)
    }

    /// Ends everything that runs there at once, without a goodbye.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        self.order(py, What::Kill)
    }
}

impl TestRuntime {
    /// Runs something there.
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

/// Obeys orders until the last one, whose answer is returned.
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

/// Holds the one thread of the runtime, so that nothing else runs on it, until another order than to
/// pause comes; returns that.
fn stand_still(orders: &Receiver<Order>) -> Option<Order> {
    orders.iter().find(|(what, _)| *what != What::Pause)
}

/// Bars a node from these peers, in place of those before; links that are open stay until `sever`.
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
