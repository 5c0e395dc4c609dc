//! Members of an earlier life: where they were, they are dialed, until they confirm that they are
//! there, or age out.

use rand::seq::SliceRandom;

use super::{Timer, Topic, scope::TRUSTED_DIALS};
use crate::{id::EndpointId, kept::Kept, record::SignedRecord, state::Context};

impl Topic {
    /// Takes in records that an earlier life had in its book.
    pub(crate) fn remember(&mut self, records: Vec<Kept>, cx: &mut Context) {
        let mut news = false;
        for Kept { signed, left, established } in records {
            news |= self.book.remember(signed, left, established, cx.now);
        }
        if !news || self.leave.is_begun() {
            return;
        }
        if self.linked.is_empty() {
            self.timers.set_by(Timer::Redial, cx.now);
        } else {
            self.on_loss(cx);
        }
    }

    /// The record of a member.
    pub(crate) fn record(&self, member: &EndpointId) -> Option<&SignedRecord> {
        self.book.get(member).map(|live| &live.signed)
    }

    /// The highest sequence number that is known of a node.
    pub(crate) fn sequence(&self, node: &EndpointId) -> Option<u64> {
        self.book.sequence(node)
    }

    /// Members of an earlier life to dial while nobody is linked: those first that were dialed
    /// least often.
    pub(super) fn kept_to_dial(&mut self, cx: &mut Context) -> Vec<EndpointId> {
        let mut kept: Vec<_> = self.book.all_kept().collect();
        kept.shuffle(&mut cx.rng);
        kept.sort_by_key(|(_, dials)| *dials);
        kept.truncate(self.bootstrap_dials());
        kept.into_iter().map(|(peer, _)| peer).collect()
    }

    pub(super) fn may_try_kept(&self, peer: &EndpointId) -> bool {
        self.kept_dials < TRUSTED_DIALS && self.book.kept(peer).is_some()
    }

    pub(super) fn note_dial_of_kept(&mut self, peer: &EndpointId) {
        if self.may_try_kept(peer) {
            self.kept_dials += 1;
        }
        self.book.tried_kept(peer);
    }
}
