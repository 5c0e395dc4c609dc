//! Which members this node asks to be its neighbors.

use std::collections::BTreeSet;

use rand::seq::IteratorRandom;

use crate::{id::EndpointId, topic::scope::NarrowScope};

/// Members suggested to the passive view at a time, as in a shuffle (`HyParView`: 3 + 4).
pub(super) const SUGGESTED: usize = 7;
/// At most this many of the suggested members are linked already.
const SUGGESTED_LINKED: usize = 3;

/// Chooses at most `count` linked members that could let this node into the overlay, or be its
/// neighbors.
pub(super) fn linked_members(
    count: usize,
    without: &BTreeSet<EndpointId>,
    scope: &mut NarrowScope,
) -> Vec<EndpointId> {
    let now = scope.now();
    let fits = |id: &&EndpointId| {
        !without.contains(id)
            && scope.book.get(id).is_some()
            && scope.cx.links.current(id).is_some()
            && !scope.peers.is_avoided(id, now)
            && !scope.book.is_suspected(id)
    };
    let linked: Vec<_> = scope.peers.linked().iter().filter(fits).copied().collect();
    linked.into_iter().sample(&mut scope.cx.rng, count)
}

/// Chooses members to suggest as neighbors. Linked ones come first, because a book may be full
/// of members that nobody ever reached.
pub(super) fn suggestions(
    without: &BTreeSet<EndpointId>,
    scope: &mut NarrowScope,
) -> Vec<EndpointId> {
    let mut members = linked_members(SUGGESTED_LINKED, without, scope);
    let mut without = without.clone();
    without.extend(&members);
    members.extend(scope.random_members(SUGGESTED - members.len(), &without));
    members
}
