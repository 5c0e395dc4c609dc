//! The allow list and the deny list of an endpoint, and what of them outlives a restart.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::Error,
    proto::{Access, EndpointId},
};

/// Most ids on each of the lists.
pub(crate) const MAX_LISTED: usize = 10_000;

/// The lists of an endpoint. Clones share them. Only the actor changes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    access: Arc<Access>,
    marks: Marks,
}

/// Ids that were listed while the node ran. They are kept in the state directory, and hold beside
/// the lists that a node is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) allow: BTreeSet<EndpointId>,
    pub(crate) deny: BTreeSet<EndpointId>,
}

/// A change of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Allow,
    Disallow,
    Deny,
    Undeny,
}

impl Lists {
    /// The lists that a node is started with, and the marks of its earlier lives.
    pub(crate) fn new(
        allow: Option<Vec<EndpointId>>,
        deny: Vec<EndpointId>,
        me: &EndpointId,
        marks: Marks,
    ) -> Result<Self, Error> {
        let mut access = Access {
            allow: allow.map(|ids| ids.into_iter().collect()),
            deny: deny.into_iter().collect(),
        };
        if let Some(allow) = &mut access.allow {
            allow.extend(&marks.allow);
        }
        access.deny.extend(&marks.deny);
        check(&access, me)?;
        Ok(Self(Arc::new(Mutex::new(Inner { access: Arc::new(access), marks }))))
    }

    pub(crate) fn admits(&self, peer: &EndpointId) -> bool {
        self.lock().access.admits(peer)
    }

    pub(crate) fn access(&self) -> Arc<Access> {
        self.lock().access.clone()
    }

    pub(crate) fn marks(&self) -> Marks {
        self.lock().marks.clone()
    }

    /// Why a peer is kept out; `None` if it is not.
    pub(crate) fn reason(&self, peer: &EndpointId) -> Option<&'static str> {
        let inner = self.lock();
        if inner.access.admits(peer) {
            None
        } else if inner.access.deny.contains(peer) {
            Some("this node keeps it out: it is on the deny list")
        } else {
            Some("this node keeps it out: it is not on the allow list")
        }
    }

    /// Changes the lists. An error changes nothing.
    pub(crate) fn change(
        &self,
        change: Change,
        peer: EndpointId,
        me: &EndpointId,
    ) -> Result<(), Error> {
        let mut inner = self.lock();
        let (mut access, mut marks) = ((*inner.access).clone(), inner.marks.clone());
        match (change, &mut access.allow) {
            (Change::Deny, _) => {
                access.deny.insert(peer);
                marks.deny.insert(peer);
            }
            (Change::Undeny, _) => {
                access.deny.remove(&peer);
                marks.deny.remove(&peer);
            }
            (Change::Allow, Some(allow)) => {
                allow.insert(peer);
                marks.allow.insert(peer);
            }
            (Change::Disallow, Some(allow)) => {
                allow.remove(&peer);
                marks.allow.remove(&peer);
            }
            (Change::Allow | Change::Disallow, None) => {
                let reason = "is not set: this node was started without an allow list";
                return Err(Error::Invalid { field: "allow", reason: reason.into() });
            }
        }
        check(&access, me)?;
        (inner.access, inner.marks) = (Arc::new(access), marks);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Both fields are replaced as wholes, so a poisoned lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(access: &Access, me: &EndpointId) -> Result<(), Error> {
    let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
    if access.deny.contains(me) {
        return invalid("deny", "names this node itself".into());
    }
    for (field, list) in [("allow", access.allow.as_ref()), ("deny", Some(&access.deny))] {
        if let Some(ids) = list.filter(|ids| ids.len() > MAX_LISTED) {
            return invalid(field, format!("holds {} ids, the limit is {MAX_LISTED}", ids.len()));
        }
    }
    Ok(())
}
