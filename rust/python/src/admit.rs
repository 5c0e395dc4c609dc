//! The questions to an `admit` callback: Python takes them one by one, and answers each.

use std::sync::{Arc, Mutex, PoisonError};

use iroh_gossip_discovery::{Admit, Error, Newcomer};
use pyo3::{prelude::*, types::PyTuple};
use tokio::sync::{mpsc, oneshot};

use crate::{
    bridge::Bridge,
    fork::AtHome,
    peer::{Peer, format_address},
};

/// Most questions that wait for Python: as many as the core asks at a time.
const WAITING: usize = 16;

type Answer = Result<bool, String>;
type Asked = (Newcomer, oneshot::Sender<Answer>);

/// The questions of one node.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Questions(AtHome<Inner>);

struct Inner {
    sender: mpsc::Sender<Asked>,
    receiver: Arc<tokio::sync::Mutex<mpsc::Receiver<Asked>>>,
}

impl Questions {
    /// Has the core ask here.
    pub(crate) fn admit(&self) -> PyResult<Admit> {
        let sender = self.0.get()?.sender.clone();
        Ok(Admit::new(move |newcomer| {
            let sender = sender.clone();
            async move {
                let (reply, answer) = oneshot::channel();
                let given_up = || "the callback was given up".to_owned();
                sender.send((newcomer, reply)).await.map_err(|_| given_up())?;
                answer.await.unwrap_or_else(|_| Err(given_up()))
            }
        }))
    }
}

#[pymethods]
impl Questions {
    #[new]
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self(AtHome::new(Inner { sender, receiver: Arc::new(receiver.into()) }))
    }

    /// Waits for the next question. One that a cancelled wait took counts as not answered.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let receiver = self.0.get()?.receiver.clone();
        Bridge::get(py)?.abortable(py, async move {
            let (newcomer, reply) = receiver.lock().await.recv().await.ok_or(Error::Closed)?;
            Ok::<_, Error>(Question { newcomer, reply: AtHome::new(Mutex::new(Some(reply))) })
        })
    }
}

/// A question: may this node be a member? Dropped without an answer, it counts as failed.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Question {
    newcomer: Newcomer,
    reply: AtHome<Mutex<Option<oneshot::Sender<Answer>>>>,
}

impl Question {
    fn reply(&self, answer: Answer) -> PyResult<()> {
        let mut reply = self.reply.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = reply.take() {
            // The core may have given up waiting.
            let _ = reply.send(answer);
        }
        Ok(())
    }
}

#[pymethods]
impl Question {
    /// The endpoint id: 64 lower-case hex digits.
    #[getter]
    fn id(&self) -> String {
        self.newcomer.id.to_string()
    }

    /// Where the node is, as far as known.
    #[getter]
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.newcomer.addresses.iter().map(format_address))
    }

    /// What the node says of itself; `None` if that is not known.
    #[getter]
    fn peer(&self) -> Option<Peer> {
        self.newcomer.record.clone().map(Peer::from)
    }

    /// Admits the node, or refuses it.
    fn answer(&self, admitted: bool) -> PyResult<()> {
        self.reply(Ok(admitted))
    }

    /// Says that there is no answer, and why.
    fn fail(&self, reason: String) -> PyResult<()> {
        self.reply(Err(reason))
    }
}
