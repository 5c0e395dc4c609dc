//! Leaving a topic: the signed leave goes to peers, and this node waits until they acknowledge it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{
    effect::{Effect, Effects},
    scope::Scope,
};
use crate::{
    id::EndpointId,
    links::LinkRequest,
    record::SignedRecord,
    rule::Rule,
    wire::{Item, TopicFrame, encode_content},
};

/// The members that are dialed to learn of a leave if no member is linked.
const LEAVE_DIALS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Leave {
    begun: Option<Begun>,
    done: bool,
    /// When this node stops waiting for acknowledgements.
    timer: Option<Instant>,
}

#[derive(Debug)]
struct Begun {
    /// The signed leave; `None` if no sequence number was free for it.
    record: Option<SignedRecord>,
    /// The peers that the leave was sent to, or that are dialed for it.
    notified: BTreeSet<EndpointId>,
    /// Those of them that have not acknowledged it yet.
    waiting: BTreeSet<EndpointId>,
}

impl Leave {
    pub(super) fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timer
    }

    pub(super) fn on_timeout(&mut self) -> Effects {
        self.timer = None;
        self.finish()
    }

    /// Returns the peers that the leave was sent to, or that were dialed for it.
    pub(super) fn into_notified(self) -> BTreeSet<EndpointId> {
        self.begun.map(|begun| begun.notified).unwrap_or_default()
    }

    /// Sends the leave to every linked peer, and to all members through the overlay. A node without
    /// a linked member dials a few members.
    pub(super) fn begin(&mut self, record: Option<SignedRecord>, scope: &mut Scope) -> Effects {
        debug_assert!(self.begun.is_none(), "a topic is left once");
        let mut effects = Effects::none();
        let mut notified = BTreeSet::new();
        if let Some(signed) = &record {
            notified = peers_to_notify(scope);
            for peer in &notified {
                scope.send(peer, TopicFrame::Leave(signed.bytes().clone()));
            }
            if scope.cx.is_on(Rule::Dissemination) {
                let item = Item::Record(signed.bytes().clone());
                effects.push(Effect::Broadcast(encode_content(&[item])));
            }
            if !notified.iter().any(|peer| scope.book.get(peer).is_some()) {
                let mut members = scope.likely_members(LEAVE_DIALS, &BTreeSet::new());
                members.retain(|peer| scope.dial(*peer) == LinkRequest::Dialing);
                notified.extend(members);
            }
        }
        let nobody = notified.is_empty();
        self.begun = Some(Begun { record, waiting: notified.clone(), notified });
        if nobody {
            effects.append(self.finish());
        } else {
            self.timer = Some(scope.now() + scope.config.leave_timeout);
        }
        effects
    }

    /// A peer has a link: it was dialed for the leave, or it is a member that does not know of it.
    pub(super) fn link_up(&mut self, peer: EndpointId, scope: &mut Scope) {
        let member = scope.book.get(&peer).is_some();
        if let Some(Begun { record: Some(signed), waiting, notified }) = &mut self.begun
            && (member || waiting.contains(&peer))
        {
            waiting.insert(peer);
            notified.insert(peer);
            scope.send(&peer, TopicFrame::Leave(signed.bytes().clone()));
        }
    }

    /// A peer acknowledged the leave with this sequence number.
    pub(super) fn acknowledged(&mut self, peer: EndpointId, sequence: u64) -> Effects {
        let record = self.begun.as_ref().and_then(|begun| begun.record.as_ref());
        if record.is_some_and(|signed| signed.record().sequence == sequence) {
            return self.gone(peer);
        }
        Effects::none()
    }

    /// The leave no longer waits for a peer: it has acknowledged, is gone, or can't be reached.
    pub(super) fn gone(&mut self, peer: EndpointId) -> Effects {
        let Some(begun) = &mut self.begun else { return Effects::none() };
        begun.waiting.remove(&peer);
        debug_assert!(
            begun.waiting.is_subset(&begun.notified),
            "only peers that were notified are awaited"
        );
        if begun.waiting.is_empty() { self.finish() } else { Effects::none() }
    }

    fn finish(&mut self) -> Effects {
        if std::mem::replace(&mut self.done, true) {
            return Effects::none();
        }
        Effects::one(Effect::QuitOverlay)
    }
}

/// Returns all peers with a link that may hold this node's record. Among them are peers that did
/// not answer yet, and members on whose young link neither end has opened the topic.
fn peers_to_notify(scope: &Scope) -> BTreeSet<EndpointId> {
    let known = scope.peers.linked().iter().copied().chain(scope.book.others());
    let linked = known.filter(|peer| scope.cx.links.current(peer).is_some());
    linked.chain(scope.cx.links.opened_to(scope.topic)).collect()
}
