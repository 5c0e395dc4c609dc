//! Which ids wait for the application's answer, which it is asked about next, and what it refused.
//!
//! Anybody can make up ids, so everything is bounded: the questions at a time, the ids that wait,
//! and the refusals that are remembered. Ids wait in groups by the way they came, and the groups
//! take turns. If there is no room, the largest group gives way. So a flood of one kind keeps no
//! newcomer of another kind waiting.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    newcomer::Newcomer,
    proto::{EndpointId, TopicId},
    subnet::Subnet,
};

/// Most questions at a time.
pub(crate) const CONCURRENT: usize = 16;
/// Most ids that wait for their question.
const MAX_WAITING: usize = 1024;
/// An answer that takes longer counts as an error.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A link waits this long for the answer. It is less than a peer waits for a hello.
pub(crate) const LINK_TIMEOUT: Duration = Duration::from_secs(3);
/// Most ids that are remembered as refused.
const MAX_REMEMBERED: usize = 16_384;
/// How long a refusal holds, at first and at most: it doubles each time.
const REFUSED: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// As above, after a question without an answer. Then it is asked again without a further cause.
const FAILED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Retries are at least this far apart.
const RETRIES_APART: Duration = Duration::from_secs(1);

/// How an id came to be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// The user named it as a bootstrap peer.
    Named,
    /// It is known by hearsay: from gossip, mDNS or an earlier life of this node.
    Hearsay,
    /// It opened a link, from this network.
    Linked(Option<Subnet>),
}

/// What the application said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    /// It said nothing that counts, and why.
    Failed(String),
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The question waits, or is under way.
    Waits,
    /// An earlier refusal still holds.
    Refused,
    /// There is no room.
    Full,
}

/// An id that was answered with yes.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) id: EndpointId,
    /// Where mDNS or a name found it, if that is why it was asked about.
    pub(crate) found: Option<(TopicId, Newcomer)>,
    links: Vec<oneshot::Sender<bool>>,
}

impl Admitted {
    /// Lets the links that wait go on.
    pub(crate) fn release_links(self) {
        for link in self.links {
            // A link that is gone needs no answer.
            let _ = link.send(true);
        }
    }
}

#[derive(Debug)]
struct Waiting {
    group: Group,
    newcomer: Newcomer,
    found: Option<TopicId>,
}

#[derive(Debug)]
struct Asking {
    newcomer: Newcomer,
    found: Option<TopicId>,
    /// The lists changed meanwhile: the answer counts no more.
    is_void: bool,
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    until: Instant,
    times: u32,
    failed: bool,
    had_record: bool,
}

/// The questions of an endpoint. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Questions {
    table: Arc<Mutex<Table>>,
    wake: Arc<Notify>,
}

impl Questions {
    /// Asks about a newcomer, unless an answer is known or on its way.
    pub(crate) fn ask(&self, newcomer: Newcomer, group: Group, found: Option<TopicId>) -> Asked {
        let asked = self.lock().ask(newcomer, group, found, Instant::now());
        self.wake.notify_one();
        asked
    }

    /// As [`Self::ask`], for a peer that opened a link. The receiver resolves with the answer.
    pub(crate) fn ask_for_link(
        &self,
        newcomer: Newcomer,
        network: Option<Subnet>,
    ) -> Result<oneshot::Receiver<bool>, Asked> {
        let mut table = self.lock();
        let id = newcomer.id;
        match table.ask(newcomer, Group::Linked(network), None, Instant::now()) {
            Asked::Waits => {
                let (sender, receiver) = oneshot::channel();
                let links = table.links.entry(id).or_default();
                links.retain(|link| !link.is_closed());
                links.push(sender);
                self.wake.notify_one();
                Ok(receiver)
            }
            other => Err(other),
        }
    }

    /// There may be ids to ask about that nobody asked for: bootstrap peers, records in a book.
    pub(crate) fn look(&self) {
        self.lock().look = true;
        self.wake.notify_one();
    }

    /// Waits until there may be something to ask.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        // No panic can leave the maps half-changed in a way that matters, so a poisoned lock does
        // no harm.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    waiting: BTreeMap<EndpointId, Waiting>,
    /// The ids that wait, of each group, the next one first. No group is empty.
    groups: BTreeMap<Group, VecDeque<EndpointId>>,
    /// The group that had the last turn.
    last: Option<Group>,
    asking: BTreeMap<EndpointId, Asking>,
    refused: BTreeMap<EndpointId, Refusal>,
    /// The same, the one that ends first first.
    by_end: BTreeSet<(Instant, EndpointId)>,
    links: BTreeMap<EndpointId, Vec<oneshot::Sender<bool>>>,
    /// There may be ids to ask about that wait in no group.
    look: bool,
    retry: Option<Instant>,
}

impl Table {
    fn ask(
        &mut self,
        newcomer: Newcomer,
        group: Group,
        found: Option<TopicId>,
        now: Instant,
    ) -> Asked {
        let id = newcomer.id;
        if self.asking.contains_key(&id) {
            return Asked::Waits;
        }
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.newcomer.merge(newcomer);
            waiting.found = waiting.found.or(found);
            return Asked::Waits;
        }
        if self.is_refused(&id, newcomer.record.is_some(), now) {
            return Asked::Refused;
        }
        if self.waiting.len() >= MAX_WAITING && !self.make_room(group) {
            self.look = true;
            return Asked::Full;
        }
        self.groups.entry(group).or_default().push_back(id);
        self.waiting.insert(id, Waiting { group, newcomer, found });
        Asked::Waits
    }

    /// The newest of the largest group gives way to a smaller group. It is found again if a book
    /// holds it, or when it comes again.
    fn make_room(&mut self, group: Group) -> bool {
        let own = self.groups.get(&group).map_or(0, VecDeque::len);
        let largest = self.groups.iter().max_by_key(|(_, ids)| ids.len());
        let Some((&largest, _)) = largest.filter(|(_, ids)| ids.len() > own + 1) else {
            return false;
        };
        let Some(id) = self.groups.get_mut(&largest).and_then(VecDeque::pop_back) else {
            return false;
        };
        self.waiting.remove(&id);
        self.links.remove(&id);
        self.look = true;
        true
    }

    /// Returns true if an earlier refusal of an id holds. A refusal of a node of which nothing was
    /// known does not hold once its record is.
    fn is_refused(&self, id: &EndpointId, has_record: bool, now: Instant) -> bool {
        self.refused.get(id).is_some_and(|refusal| {
            let knew_enough = refusal.failed || refusal.had_record || !has_record;
            now < refusal.until && knew_enough
        })
    }

    /// Returns true if a node whose record is known is neither asked about nor refused.
    pub(crate) fn wants(&self, id: &EndpointId, now: Instant) -> bool {
        let is_known = self.asking.contains_key(id) || self.waiting.contains_key(id);
        !is_known && !self.is_refused(id, true, now)
    }

    /// The next newcomer to ask about, if another question may be asked now.
    pub(crate) fn next(&mut self) -> Option<Newcomer> {
        if self.asking.len() >= CONCURRENT {
            return None;
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut groups = self.groups.range((after, Bound::Unbounded)).chain(&self.groups);
        let group = *groups.next()?.0;
        self.last = Some(group);
        let ids = self.groups.get_mut(&group)?;
        let id = ids.pop_front();
        if ids.is_empty() {
            self.groups.remove(&group);
        }
        let Waiting { newcomer, found, .. } = self.waiting.remove(&id?)?;
        let asking = Asking { newcomer: newcomer.clone(), found, is_void: false };
        self.asking.insert(newcomer.id, asking);
        debug_assert!(self.asking.len() <= CONCURRENT && self.waiting.len() <= MAX_WAITING);
        Some(newcomer)
    }

    /// Adds what this node knows of a newcomer that is asked about now.
    pub(crate) fn knows(&mut self, newcomer: &Newcomer) {
        if let Some(asking) = self.asking.get_mut(&newcomer.id) {
            asking.newcomer = newcomer.clone();
        }
    }

    /// Returns true if it is time to look for ids that wait in no group.
    pub(crate) fn is_looking(&mut self) -> bool {
        let has_room = self.asking.len() < CONCURRENT && !self.groups.contains_key(&Group::Hearsay);
        has_room && std::mem::take(&mut self.look)
    }

    pub(crate) fn look_again(&mut self) {
        self.look = true;
    }

    /// Takes in an answer. Returns true if it is a yes that counts. Until [`Self::settle`], the id
    /// is one that is asked about: the lists do not admit it yet, and it must not be asked again.
    pub(crate) fn answered(&mut self, id: EndpointId, answer: &Answer, now: Instant) -> bool {
        let Some(asking) = self.asking.get(&id) else { return false };
        if *answer == Answer::Yes && !asking.is_void {
            self.forget(&id);
            return true;
        }
        let Some(asking) = self.asking.remove(&id) else { return false };
        let links = self.links.remove(&id).unwrap_or_default();
        if asking.is_void {
            self.look = true;
            return false;
        }
        self.refuse(id, *answer != Answer::No, asking.newcomer.record.is_some(), now);
        for link in links {
            // A link that is gone needs no answer.
            let _ = link.send(false);
        }
        false
    }

    /// The lists admit an id that was answered with yes, or do so no more.
    pub(crate) fn settle(&mut self, id: EndpointId) -> Option<Admitted> {
        let Asking { newcomer, found, .. } = self.asking.remove(&id)?;
        let links = self.links.remove(&id).unwrap_or_default();
        Some(Admitted { id, found: found.map(|topic| (topic, newcomer)), links })
    }

    /// Remembers a refusal. One that ends soonest makes room for it.
    fn refuse(&mut self, id: EndpointId, failed: bool, had_record: bool, now: Instant) {
        let before = self.forget(&id).filter(|before| before.failed == failed);
        let times = before.map_or(0, |before| before.times.saturating_add(1));
        let (first, most) = if failed { FAILED } else { REFUSED };
        let until = now + first.saturating_mul(2_u32.saturating_pow(times.min(16))).min(most);
        self.refused.insert(id, Refusal { until, times, failed, had_record });
        self.by_end.insert((until, id));
        if failed {
            let retry = until.max(now + RETRIES_APART);
            self.retry = Some(self.retry.map_or(retry, |other| other.min(retry)));
        }
        while self.refused.len() > MAX_REMEMBERED {
            let Some((_, first)) = self.by_end.pop_first() else { break };
            self.refused.remove(&first);
        }
    }

    /// Forgets a refusal.
    fn forget(&mut self, id: &EndpointId) -> Option<Refusal> {
        let refusal = self.refused.remove(id)?;
        self.by_end.remove(&(refusal.until, *id));
        Some(refusal)
    }

    /// The lists changed for an id. What was said of it, or is being said, counts no more.
    pub(crate) fn reconsider(&mut self, id: &EndpointId) {
        self.forget(id);
        self.links.remove(id);
        if let Some(asking) = self.asking.get_mut(id) {
            asking.is_void = true;
        }
        if let Some(Waiting { group, .. }) = self.waiting.remove(id)
            && let Some(ids) = self.groups.get_mut(&group)
        {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.groups.remove(&group);
            }
        }
        self.look = true;
    }

    /// When questions without an answer are asked again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.retry
    }

    /// Has questions without an answer asked again if that is due.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.retry.is_some_and(|retry| retry <= now) {
            let failed = self.refused.values().filter(|refusal| refusal.failed);
            let later = failed.map(|refusal| refusal.until).filter(|until| *until > now).min();
            self.retry = later.map(|until| until.max(now + RETRIES_APART));
            self.look = true;
        }
    }

    /// How many are asked about, wait and are remembered, for tests.
    #[cfg(test)]
    fn sizes(&self) -> (usize, usize, usize) {
        assert_eq!(self.by_end.len(), self.refused.len());
        let queued: usize = self.groups.values().map(VecDeque::len).sum();
        assert_eq!(queued, self.waiting.len());
        (self.asking.len(), queued, self.refused.len())
    }
}

#[cfg(test)]
mod tests;
