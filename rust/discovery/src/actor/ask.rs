//! Asks the application which peers may be members, and carries out its answers.

use std::collections::BTreeSet;

use iroh::TransportAddr;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug};

use super::Actor;
use crate::{
    door,
    inputs::Input,
    inquiry::Inquiry,
    newcomer::Newcomer,
    proto::{DropReason, EndpointId, InEvent, TopicId},
    questions::{ANSWER_TIMEOUT, Answer, Asked, Group},
};

/// What the problem is about if questions get no answer.
const SOURCE: &str = "admit";
/// Why there is no link to a bootstrap peer that the application refused.
const NOT_ADMITTED: &str = "this node keeps it out: the application did not admit it";
/// Most records of a book that are looked at in one go for peers to ask about.
const LOOK: usize = 64;

impl Actor {
    /// Asks about a newcomer, unless an answer is known or on its way.
    pub(super) fn ask(&self, newcomer: Newcomer, group: Group) {
        self.ask_and_find(newcomer, group, None);
    }

    fn ask_and_find(&self, newcomer: Newcomer, group: Group, found: Option<TopicId>) {
        let Some(inquiry) = &self.inquiry else { return };
        let id = newcomer.id;
        if !self.lists.is_undecided(&id) {
            return;
        }
        if inquiry.questions.ask(newcomer, group, found) == Asked::Full {
            self.counters.dropped(DropReason::PeersThatWaitToBeAskedAboutOverTheLimit, Some(id));
        }
    }

    /// A peer that is kept out was found by mDNS, or behind a name.
    pub(super) fn found_outside(
        &self,
        topic: TopicId,
        peer: EndpointId,
        addresses: Vec<TransportAddr>,
        group: Group,
    ) {
        if self.lists.is_undecided(&peer) {
            self.ask_and_find(Newcomer::new(peer, addresses), group, Some(topic));
        } else {
            self.door.explain_kept_out(peer);
        }
    }

    /// There may be more peers to ask about: bootstrap peers, or records.
    pub(super) fn look_for_undecided(&self) {
        if let Some(inquiry) = &self.inquiry {
            inquiry.questions.look();
        }
    }

    /// The lists changed for a peer: it is asked about again, if they let it in.
    pub(super) fn reconsider(&mut self, peer: &EndpointId) {
        if let Some(inquiry) = &mut self.inquiry {
            let mut table = inquiry.questions.lock();
            if inquiry.admitted.contains(peer) {
                inquiry.admitted.retain(|admitted| admitted != peer);
                table.settle(*peer);
            }
            table.reconsider(peer);
            drop(table);
            inquiry.questions.look();
        }
    }

    /// Asks as many questions as may be under way.
    pub(super) fn ask_more(&mut self) {
        let Some(questions) = self.inquiry.as_ref().map(Inquiry::questions) else { return };
        // A look that ends at the end of a book goes on at its start.
        for _ in 0..=2 {
            if questions.lock().is_looking() {
                self.look();
            }
            loop {
                let next = questions.lock().next();
                let Some(newcomer) = next else { break };
                self.begin_question(newcomer);
            }
        }
    }

    /// Asks again what got no answer, if that is due.
    pub(super) fn ask_again(&mut self) {
        let Some(inquiry) = &self.inquiry else { return };
        inquiry.questions.lock().on_timeout(Instant::now());
        self.ask_more();
    }

    /// Finds some peers to ask about among the bootstrap peers and in the books.
    fn look(&mut self) {
        let Some(mut inquiry) = self.inquiry.take() else { return };
        let now = Instant::now();
        let wants = |id: &EndpointId| inquiry.questions.lock().wants(id, now);
        let mut found = Vec::new();
        let mut is_complete = true;
        inquiry.cursors.retain(|topic, _| self.topics.contains_key(topic));
        for (topic, joined) in &self.topics {
            for id in joined.bootstrap_ids().filter(|id| self.lists.is_undecided(id) && wants(id)) {
                let addresses = self.state.bootstrap_addresses(topic, id).to_vec();
                found.push((Newcomer::new(*id, addresses), Group::Named));
            }
            let after = inquiry.cursors.get(topic).copied();
            let records = self.state.undecided(topic, after, LOOK, &wants);
            let last = records.last().map(|record| record.id).filter(|_| records.len() == LOOK);
            is_complete &= last.is_none() && after.is_none();
            match last {
                Some(last) => inquiry.cursors.insert(*topic, last),
                None => inquiry.cursors.remove(topic),
            };
            found.extend(records.into_iter().map(|record| (Newcomer::of(record), Group::Hearsay)));
        }
        if !is_complete {
            inquiry.questions.lock().look_again();
        }
        self.inquiry = Some(inquiry);
        for (newcomer, group) in found {
            self.ask(newcomer, group);
        }
    }

    fn begin_question(&self, mut newcomer: Newcomer) {
        let Some(inquiry) = &self.inquiry else { return };
        let id = newcomer.id;
        for topic in self.topics.keys() {
            if let Some(record) = self.state.claimed(topic, &id) {
                newcomer.merge(Newcomer::of(record.clone()));
            }
        }
        inquiry.questions.lock().knows(&newcomer);
        let (admit, inputs) = (inquiry.admit.clone(), self.inputs.clone());
        let (tasks, stop) = (self.tasks.clone(), self.stop_dials.clone());
        debug!(peer = %id.fmt_short(), "the application is asked about a peer");
        let asking = async move {
            // In a task of its own, so that a panic is its own.
            let ask = async move { admit.ask(newcomer).await };
            let answer = AbortOnDropHandle::new(tasks.spawn(ask.in_current_span()));
            let answer = stop.run_until_cancelled(timeout(ANSWER_TIMEOUT, answer)).await;
            let failed = |why: String| Answer::Failed(format!("a question failed: {why}"));
            let answer = match answer {
                None => return,
                Some(Ok(Ok(Ok(true)))) => Answer::Yes,
                Some(Ok(Ok(Ok(false)))) => Answer::No,
                Some(Ok(Ok(Err(why)))) => failed(why),
                Some(Ok(Err(_))) => failed("it panicked".to_owned()),
                Some(Err(_)) => failed(format!("no answer within {ANSWER_TIMEOUT:?}")),
            };
            // The send fails only if the actor has ended.
            let _ = inputs.send(Input::Answered(id, answer)).await;
        };
        self.tasks.spawn(asking.in_current_span());
    }

    /// The application answered.
    pub(super) fn answered(&mut self, id: EndpointId, answer: Answer) {
        self.heed(id, answer);
        self.ask_more();
    }

    fn heed(&mut self, id: EndpointId, mut answer: Answer) {
        if answer == Answer::Yes && !self.has_room_for_admitted() {
            self.counters.dropped(DropReason::PeersOverTheLimitOfAdmittedOnes, Some(id));
            answer = Answer::Failed("more peers are admitted than are remembered".to_owned());
        }
        let Some(inquiry) = &mut self.inquiry else { return };
        if inquiry.questions.lock().answered(id, &answer, Instant::now()) {
            inquiry.admitted.push(id);
        }
        let problems = self.network.problems();
        match &answer {
            Answer::Yes => problems.clear(SOURCE),
            Answer::No => {
                problems.clear(SOURCE);
                debug!(peer = %id.fmt_short(), "the application refused a peer");
                self.counters.dropped(DropReason::PeersThatWereNotAdmitted, Some(id));
                self.unanswered(&id, NOT_ADMITTED);
                if !self.lookup.knows_anybody() {
                    let what = format!("no link to peer {}: {NOT_ADMITTED}", id.fmt_short());
                    problems.raise(door::ACCESS, what);
                }
            }
            Answer::Failed(why) => {
                debug!(peer = %id.fmt_short(), why, "a peer waits: its question got no answer");
                self.counters.dropped(DropReason::QuestionsWithoutAnAnswer, Some(id));
                problems
                    .raise(SOURCE, format!("{why}; such peers stay out until they are admitted"));
            }
        }
    }

    /// Returns true if another peer may be admitted. Forgets those that are nowhere, if need be.
    fn has_room_for_admitted(&self) -> bool {
        let waiting = self.inquiry.as_ref().map_or(0, |inquiry| inquiry.admitted.len());
        let most = 2 * self.config.protocol.capacity;
        let has_room = || self.lists.admitted() + waiting < most;
        if !has_room() {
            let linked: BTreeSet<_> = self.links.values().map(|link| link.peer).collect();
            self.lists.keep_admitted(|id| linked.contains(id) || self.lookup.is_member(id));
        }
        has_room()
    }

    /// Has the answers hold that were yes.
    pub(super) fn apply_answers(&mut self) {
        let Some(inquiry) = &mut self.inquiry else { return };
        let admitted = std::mem::take(&mut inquiry.admitted);
        if admitted.is_empty() {
            return;
        }
        let questions = inquiry.questions.clone();
        self.lists.admit(admitted.iter().copied());
        self.handle_own(InEvent::SetAccess(self.lists.access()));
        for id in admitted {
            let Some(mut one) = questions.lock().settle(id) else { continue };
            debug!(peer = %one.id.fmt_short(), "the application admitted a peer");
            if let Some((topic, newcomer)) = one.found.take() {
                if let Some(joined) = self.topics.get(&topic) {
                    joined.published.contact.asks([one.id]);
                }
                self.handle_own(InEvent::Found(topic, one.id, newcomer.addresses));
            }
            let named = self.topics.iter().filter(|(_, joined)| joined.is_bootstrap(&one.id));
            for topic in named.map(|(topic, _)| *topic).collect::<Vec<_>>() {
                self.handle_own(InEvent::AddBootstrap(topic, vec![(one.id, Vec::new())]));
            }
            one.release_links();
        }
        self.ask_more();
    }
}
