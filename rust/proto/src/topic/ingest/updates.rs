//! How many updates of members' records this node takes in.
//!
//! The updates of a member that updates now and then are always taken in. Members that update all
//! the time share a budget of the link that brings their updates. A sync brings the last update of
//! each, once there is room.

use tokio::time::Instant;

use crate::{
    budget::{Budgets, Rate},
    id::EndpointId,
};

/// The updates of one member, per second and at once, that no flood of others keeps out.
const OF_AUTHOR: Rate = Rate { messages: (0.5, 4.0), bytes: (1.0, 1.0) };
/// Updates beyond these that one peer brings. One member may well update 100 times a second.
const OF_LINK: Rate = Rate { messages: (128.0, 512.0), bytes: (1.0, 1.0) };

/// The budgets of updates.
#[derive(Debug)]
pub(super) struct Updates {
    authors: Budgets,
    links: Budgets,
}

impl Updates {
    /// Makes budgets for a book of this capacity.
    pub(super) fn new(capacity: usize) -> Self {
        Self { authors: Budgets::up_to(capacity + 1024), links: Budgets::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.authors.len() + self.links.len()
    }

    /// Returns true if one more update of a member, which this peer brings, is within the budgets.
    pub(super) fn take(&mut self, author: EndpointId, from: EndpointId, now: Instant) -> bool {
        self.authors.take(author, OF_AUTHOR, now) || self.links.take(from, OF_LINK, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::id;

    #[test]
    fn a_member_that_updates_now_and_then_is_heard_during_a_flood() {
        let start = Instant::now();
        let mut updates = Updates::new(10_000);
        let mut heard = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let flood = (0..1000).filter(|_| updates.take(id(1), id(9), now)).count();
            assert!(second < 5 || flood <= 129, "{flood} updates in second {second}");
            if second % 2 == 0 {
                heard += usize::from(updates.take(id(2), id(9), now));
            }
        }
        assert_eq!(heard, 30, "each update of the quiet member");
    }
}
