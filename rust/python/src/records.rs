//! `Records`: what a selection showed at one moment. It costs nothing to take and never changes. A
//! record becomes a Python object only when it is read.

use std::{
    str::FromStr,
    sync::{Arc, OnceLock},
};

use data_encoding::HEXLOWER;
use iroh_gossip_discovery::{Book, EndpointId, NodeRecord, ownership};
use pyo3::{
    prelude::*,
    types::{PyList, PyString},
};

use crate::{
    conditions::Conditions,
    extract,
    peer::{Peer, id_text},
};

/// With more nodes than this, a walk through the book releases Python's lock, so that other threads
/// can run.
const LARGE: usize = 1000;

/// The nodes of a selection as they were at one moment, ordered by id.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Records {
    conditions: Arc<Conditions>,
    book: Book,
    /// This node's own record, if the selection has it.
    me: Option<Arc<NodeRecord>>,
    /// The other nodes that fulfill the conditions, if the selection has conditions. Computed at
    /// first use.
    admitted: OnceLock<Vec<Arc<NodeRecord>>>,
}

#[pymethods]
impl Records {
    #[new]
    fn from_peers(peers: &Bound<'_, PyAny>) -> PyResult<Self> {
        let records = extract::list("peers", "Peer", peers, |field, peer| {
            let wrong = |_| extract::wrong_type(field, "Peer", peer);
            Ok(peer.cast::<Peer>().map_err(wrong)?.get().record().clone())
        })?;
        Ok(Self::new(Arc::default(), records.into_iter().collect(), None))
    }

    /// Returns the number of nodes.
    #[pyo3(name = "__len__")]
    pub(crate) fn count(&self, py: Python<'_>) -> usize {
        self.walk(py, Self::len)
    }

    /// Returns the node of this id, if it is among them.
    fn get(&self, id: &Bound<'_, PyString>) -> Option<Peer> {
        // A lone surrogate is in no id.
        self.find(&EndpointId::from_str(&id.to_cow().ok()?).ok()?).map(Peer::from)
    }

    /// Returns a digest of what the nodes say of themselves, in 32 hex digits. Equal nodes have
    /// equal digests.
    fn digest(&self, py: Python<'_>) -> String {
        let book: Book =
            self.walk(py, |records| records.after(None, usize::MAX).into_iter().collect());
        HEXLOWER.encode(&book.digest())
    }

    /// Returns the first `n` owners of a key among the nodes that are ready, or not; `None`: among
    /// all.
    #[pyo3(signature = (key, n, ready = true))]
    fn owners(&self, key: &[u8], n: usize, ready: Option<bool>) -> Vec<Peer> {
        let records = self.candidates(ready);
        ownership::owners(key, records.iter().map(|record| &record.id), n)
            .into_iter()
            .filter_map(|id| owner_in(&records, id))
            .collect()
    }

    /// Returns the owner of each key among the nodes that are ready.
    fn owner_of_each(&self, py: Python<'_>, keys: Vec<Vec<u8>>) -> Vec<Option<Peer>> {
        // Many keys among many nodes take a while, so other threads of Python may run meanwhile.
        py.detach(|| {
            let records = self.candidates(Some(true));
            keys.iter()
                .map(|key| {
                    let owner = ownership::owner(key, records.iter().map(|record| &record.id));
                    owner.and_then(|id| owner_in(&records, id))
                })
                .collect()
        })
    }

    /// Returns up to `limit` nodes, those after an id or the first ones.
    #[pyo3(signature = (after, limit))]
    fn peers<'py>(
        &self,
        py: Python<'py>,
        after: Option<&Bound<'py, PyAny>>,
        limit: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.batch(py, after, limit)?.into_iter().map(Peer::from))
    }

    /// Returns up to `limit` ids of nodes, those after an id or the first ones.
    #[pyo3(signature = (after, limit))]
    fn ids<'py>(
        &self,
        py: Python<'py>,
        after: Option<&Bound<'py, PyAny>>,
        limit: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let batch = self.batch(py, after, limit)?;
        PyList::new(py, batch.iter().map(|record| id_text(py, &record.id)))
    }
}

impl Records {
    /// The nodes that may own something, in the order of their ids.
    fn candidates(&self, ready: Option<bool>) -> Vec<Arc<NodeRecord>> {
        let mut records = self.after(None, usize::MAX);
        records.retain(|record| ready.is_none_or(|ready| record.is_ready() == ready));
        records
    }

    pub(crate) fn new(
        conditions: Arc<Conditions>,
        book: Book,
        me: Option<Arc<NodeRecord>>,
    ) -> Self {
        let me = me.filter(|me| conditions.admit(me));
        Self { conditions, book, me, admitted: OnceLock::new() }
    }

    fn len(&self) -> usize {
        let others =
            if self.conditions.are_none() { self.book.len() } else { self.admitted().len() };
        others + usize::from(self.me.is_some())
    }

    fn admitted(&self) -> &[Arc<NodeRecord>] {
        self.admitted.get_or_init(|| {
            self.book.iter().filter(|record| self.conditions.admit(record)).cloned().collect()
        })
    }

    pub(crate) fn find(&self, id: &EndpointId) -> Option<Arc<NodeRecord>> {
        let me = self.me.as_ref().filter(|me| me.id == *id);
        let other = || self.book.get(id).filter(|record| self.conditions.admit(record));
        me.or_else(other).cloned()
    }

    /// Returns the first `limit` records after an id, or of all.
    pub(crate) fn after(&self, id: Option<&EndpointId>, limit: usize) -> Vec<Arc<NodeRecord>> {
        let mut records: Vec<_> = if self.conditions.are_none() {
            self.book.after(id).take(limit).cloned().collect()
        } else {
            let others = self.admitted();
            let first = others.partition_point(|record| id.is_some_and(|id| record.id <= *id));
            others[first..].iter().take(limit).cloned().collect()
        };
        if let Some(me) = self.me.as_ref().filter(|me| id.is_none_or(|id| *id < me.id)) {
            let at = records.partition_point(|record| record.id < me.id);
            if at < limit {
                records.insert(at, me.clone());
                records.truncate(limit);
            }
        }
        records
    }

    fn batch(
        &self,
        py: Python<'_>,
        after: Option<&Bound<'_, PyAny>>,
        limit: usize,
    ) -> PyResult<Vec<Arc<NodeRecord>>> {
        let after = after.map(|id| extract::endpoint_id("after", id)).transpose()?;
        Ok(self.walk(py, |records| records.after(after.as_ref(), limit)))
    }

    /// Does work that may have to go through the whole book.
    fn walk<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&Self) -> T + Send) -> T {
        let is_long = self.book.len() > LARGE && self.admitted.get().is_none();
        if is_long && !self.conditions.are_none() { py.detach(|| work(self)) } else { work(self) }
    }
}

fn owner_in(records: &[Arc<NodeRecord>], id: &EndpointId) -> Option<Peer> {
    let at = records.binary_search_by_key(id, |record| record.id).ok()?;
    Some(records[at].clone().into())
}
