//! The allow list and the deny list of an endpoint, and what of them outlives a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::Error,
    proto::{Access, EndpointId, Revocation},
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
    /// The revocations of invitations, by the id that they keep out.
    pub(crate) revoked: BTreeMap<EndpointId, Revocation>,
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
            admitted: None,
            revoked: BTreeSet::new(),
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

    /// Returns true if an issuer keeps a peer out.
    pub(crate) fn is_revoked(&self, peer: &EndpointId) -> bool {
        self.lock().access.revoked.contains(peer)
    }

    /// The revocations that hold here, by the id that they keep out.
    pub(crate) fn revocations(&self) -> BTreeMap<EndpointId, Revocation> {
        self.lock().marks.revoked.clone()
    }

    /// Replaces the revocations that hold. Returns the ids that were not revoked before, and those
    /// that are no longer.
    pub(crate) fn set_revoked(
        &self,
        revoked: BTreeMap<EndpointId, Revocation>,
        me: &EndpointId,
    ) -> [BTreeSet<EndpointId>; 2] {
        let mut inner = self.lock();
        let mut access = (*inner.access).clone();
        let ids: BTreeSet<_> = revoked.keys().copied().collect();
        let before: BTreeSet<_> = inner.marks.revoked.keys().copied().collect();
        // A node does not keep itself out. The others do.
        access.revoked = ids.iter().copied().filter(|id| id != me).collect();
        inner.access = Arc::new(access);
        inner.marks.revoked = revoked;
        [ids.difference(&before).copied().collect(), before.difference(&ids).copied().collect()]
    }

    /// From now on, the application is asked about each peer that the lists let in.
    pub(crate) fn ask(&self) {
        let mut inner = self.lock();
        let access = Access { admitted: Some(BTreeSet::new()), ..(*inner.access).clone() };
        inner.access = Arc::new(access);
    }

    /// Returns true if the application may still admit a peer, which is kept out until then.
    pub(crate) fn is_undecided(&self, peer: &EndpointId) -> bool {
        self.lock().access.is_undecided(peer)
    }

    /// The application admits these peers.
    pub(crate) fn admit(&self, peers: impl IntoIterator<Item = EndpointId>) {
        self.change_admitted(|ids| ids.extend(peers));
    }

    /// Forgets the admitted peers for which this is not true.
    pub(crate) fn keep_admitted(&self, is_kept: impl Fn(&EndpointId) -> bool) {
        self.change_admitted(|ids| ids.retain(is_kept));
    }

    /// The number of admitted peers.
    pub(crate) fn admitted(&self) -> usize {
        self.lock().access.admitted.as_ref().map_or(0, BTreeSet::len)
    }

    fn change_admitted(&self, change: impl FnOnce(&mut BTreeSet<EndpointId>)) {
        let mut inner = self.lock();
        let mut access = (*inner.access).clone();
        access.admitted.as_mut().map(change);
        inner.access = Arc::new(access);
    }

    pub(crate) fn access(&self) -> Arc<Access> {
        self.lock().access.clone()
    }

    pub(crate) fn marks(&self) -> Marks {
        self.lock().marks.clone()
    }

    /// Why the lists keep a peer out; `None` if they do not.
    pub(crate) fn reason(&self, peer: &EndpointId) -> Option<&'static str> {
        let inner = self.lock();
        if inner.access.admits(peer) || inner.access.is_undecided(peer) {
            None
        } else if inner.access.deny.contains(peer) {
            Some("this node keeps it out: it is on the deny list")
        } else if inner.access.revoked.contains(peer) {
            Some("this node keeps it out: its invitation was revoked")
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
                // The application is asked again after an undeny.
                access.admitted.as_mut().map(|ids| ids.remove(&peer));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> EndpointId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        EndpointId::from_bytes(bytes)
    }

    const ME: u32 = 1;

    fn lists(allow: Option<Vec<EndpointId>>, deny: Vec<EndpointId>) -> Result<Lists, Error> {
        Lists::new(allow, deny, &id(ME), Marks::default())
    }

    fn text<T>(result: Result<T, Error>) -> String {
        result.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_deny_list_goes_before_the_allow_list() {
        let lists = lists(Some(vec![id(2), id(3)]), vec![id(3)]).unwrap();
        assert_eq!([2, 3, 4].map(|number| lists.admits(&id(number))), [true, false, false]);
        assert!(lists.reason(&id(3)).is_some_and(|reason| reason.contains("deny list")));
        assert!(lists.reason(&id(4)).is_some_and(|reason| reason.contains("allow list")));
        lists.change(Change::Allow, id(4), &id(ME)).unwrap();
        lists.change(Change::Undeny, id(3), &id(ME)).unwrap();
        lists.change(Change::Disallow, id(2), &id(ME)).unwrap();
        assert_eq!([2, 3, 4].map(|number| lists.admits(&id(number))), [false, true, true]);
    }

    #[test]
    fn what_a_node_was_started_with_is_no_mark_and_holds_again_after_a_restart() {
        let first = lists(Some(vec![id(2)]), vec![id(3)]).unwrap();
        assert_eq!(first.marks(), Marks::default());
        for (change, number) in
            [(Change::Allow, 4), (Change::Deny, 5), (Change::Undeny, 3), (Change::Disallow, 2)]
        {
            first.change(change, id(number), &id(ME)).unwrap();
        }
        let marks = first.marks();
        assert_eq!((marks.allow.len(), marks.deny.len()), (1, 1));
        let second = Lists::new(Some(vec![id(2)]), vec![id(3)], &id(ME), marks.clone()).unwrap();
        assert_eq!([2, 3, 4, 5].map(|n| second.admits(&id(n))), [true, false, true, false]);
        let open = Lists::new(None, Vec::new(), &id(ME), marks).unwrap();
        assert!(open.admits(&id(9)), "marks of an allow list make no allow list");
        assert!(!open.admits(&id(5)));
    }

    #[test]
    fn a_node_cannot_deny_itself_and_lists_have_a_limit() {
        assert_eq!(text(lists(None, vec![id(ME)])), "deny names this node itself");
        let many =
            |count: usize| (10..10 + u32::try_from(count).unwrap()).map(id).collect::<Vec<_>>();
        let limit = text(lists(None, many(MAX_LISTED + 1)));
        assert_eq!(limit, "deny holds 10001 ids, the limit is 10000");
        let full = lists(Some(many(MAX_LISTED)), many(MAX_LISTED)).unwrap();
        let deny = |number| full.change(Change::Deny, id(number), &id(ME));
        assert!(deny(9).is_err() && deny(ME).is_err());
        assert!(!full.marks().deny.contains(&id(9)), "an error changes nothing");
        assert!(deny(10).is_ok(), "it is listed already");
        let without = lists(None, Vec::new()).unwrap();
        let error = text(without.change(Change::Allow, id(2), &id(ME)));
        assert!(error.contains("without an allow list"), "{error}");
    }
}
