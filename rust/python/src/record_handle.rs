//! `RecordHandle`: keeps a record alive for a Python object, and frees it on another thread.
//!
//! To free a record that a newer one has replaced takes several times as long as to show it. That
//! would delay the thread of an event loop, so workers of the runtime free records in batches.

use std::{
    cell::RefCell,
    mem,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use iroh_gossip_discovery::NodeRecord;

use crate::{bridge, fork};

/// The records that go to a worker at a time. At most this many wait in each thread.
const BATCH: usize = 256;
/// Most batches that wait for a worker. A thread with a further batch frees it itself.
const MOST: usize = 64;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static DONE: RefCell<Vec<Arc<NodeRecord>>> = const { RefCell::new(Vec::new()) };
}

/// A record that lives as long as the Python object that shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RecordHandle(Option<Arc<NodeRecord>>);

impl RecordHandle {
    pub(crate) fn new(record: Arc<NodeRecord>) -> Self {
        Self(Some(record))
    }

    pub(crate) fn record(&self) -> &Arc<NodeRecord> {
        self.0.as_ref().expect("it is held until it is dropped")
    }
}

impl Deref for RecordHandle {
    type Target = NodeRecord;

    fn deref(&self) -> &NodeRecord {
        self.record()
    }
}

impl Drop for RecordHandle {
    fn drop(&mut self) {
        let Some(record) = self.0.take() else { return };
        // In a thread that is ending, its storage is gone already. Then the record is freed here.
        let full = DONE.try_with(|done| {
            let mut done = done.borrow_mut();
            done.push(record);
            let full = done.len() >= BATCH;
            full.then(|| mem::replace(&mut *done, Vec::with_capacity(BATCH)))
        });
        if let Ok(Some(batch)) = full {
            free(batch);
        }
    }
}

fn free(records: Vec<Arc<NodeRecord>>) {
    // The workers of a forked child stayed with the parent.
    if fork::is_child() || UNDER_WAY.load(Ordering::Relaxed) >= MOST {
        return;
    }
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    let batch = Batch(records);
    bridge::spawn_detached(async move { drop(batch) });
}

/// Records on their way to a worker. Dropping the batch frees them.
struct Batch(Vec<Arc<NodeRecord>>);

impl Drop for Batch {
    fn drop(&mut self) {
        self.0.clear();
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}
