//! The frames of peers: which component each of them is for.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    Topic,
    effect::{Effect, Effects},
    ingest::Taken,
    scope::Scope,
};
use crate::{
    context::Context,
    event::{LinkId, TopicEvent},
    id::EndpointId,
    wire::{OverlayFrame, SyncFrame, TopicFrame},
};

impl Topic {
    /// A frame about this topic.
    pub(crate) fn receive(
        &mut self,
        peer: EndpointId,
        link: LinkId,
        frame: TopicFrame,
        cx: &mut Context,
    ) {
        if !matches!(frame, TopicFrame::Closed | TopicFrame::Leave(_) | TopicFrame::LeaveAck(_)) {
            // The peer may have opened the topic before this node joined it.
            self.opened(peer, cx);
        }
        if matches!(
            frame,
            TopicFrame::Sync(_)
                | TopicFrame::Digest(_)
                | TopicFrame::Overlay(OverlayFrame::Gossip { .. } | OverlayFrame::IHave(_))
        ) {
            self.neighborhood.heard(&peer);
        }
        match frame {
            TopicFrame::Open(_) => {}
            TopicFrame::Closed => {
                let (topic, peer_id) = (self.id.fmt_short(), peer.fmt_short());
                tracing::debug!(%topic, peer = %peer_id, "topic is not served there");
                cx.emit(self.id, TopicEvent::NotServed(peer));
                self.contacts.avoid(peer, scope!(self, cx));
                self.forget_partner(peer, cx);
            }
            TopicFrame::LeaveAck(sequence) => {
                let effects = self.leave.acknowledged(peer, sequence);
                self.carry_out(effects, cx);
            }
            TopicFrame::Leave(record) => {
                self.on_leave(&record, peer, cx);
                // A peer that leaves at the same time need not acknowledge this node's leave.
                self.leave_without(peer, cx);
            }
            _ if self.leave.is_begun() => {}
            TopicFrame::Overlay(frame) => self.on_overlay(peer, frame, cx),
            TopicFrame::Push(records) => self.on_records(&records, peer, cx),
            TopicFrame::Attached => {
                self.syncs.forget_newcomer(&peer);
            }
            TopicFrame::Sync(frame) => self.on_sync(peer, link, &frame, cx),
            TopicFrame::Busy(records) => self.on_busy(&records, peer, cx),
            TopicFrame::ProbeRequest(about) => {
                self.detector.on_probe_request(about, peer, scope!(self, cx));
            }
            TopicFrame::ProbeAck(about) => {
                self.detector.on_probe_ack(about, peer, scope!(self, cx));
            }
            TopicFrame::Digest(digest) => {
                let effects = self.syncs.on_digest(digest, peer, scope!(self, cx));
                self.carry_out(effects, cx);
            }
            TopicFrame::Revoked { all, revocations } => {
                self.revocations.on_revoked(peer, all, &revocations, scope!(self, cx));
            }
            TopicFrame::Accuse(accusations) => {
                for accusation in &accusations {
                    if self.on_accusation(accusation, peer, false, cx).is_err() {
                        break;
                    }
                }
            }
        }
    }

    fn on_sync(&mut self, peer: EndpointId, link: LinkId, frame: &SyncFrame, cx: &mut Context) {
        let Some(effects) = self.syncs.admit(peer, link, frame, scope!(self, cx)) else { return };
        self.carry_out(effects, cx);
        let Some(brought) = self.on_entries(frame, peer, cx) else { return };
        let effects = self.syncs.on_frame(peer, link, frame, brought, scope!(self, cx));
        self.carry_out(effects, cx);
    }

    /// The partner of a sync is busy, and names other members: one of them is asked.
    fn on_busy(&mut self, records: &[Bytes], peer: EndpointId, cx: &mut Context) {
        if !self.syncs.on_busy(peer) {
            return;
        }
        self.dissemination.introduction_over(scope!(self, cx));
        if self.config.observer {
            self.syncs.source_gone(&peer, scope!(self, cx));
        }
        self.on_records(records, peer, cx);
        let scope: &mut Scope = scope!(self, cx);
        let other = scope.random_members(1, &BTreeSet::from([peer])).first().copied();
        if scope.config.observer {
            scope.emit(TopicEvent::Busy { peer, next: other });
        }
        if let Some(other) = other {
            self.contact(other, cx);
        }
        self.contacts.partner_busy(scope!(self, cx));
    }

    /// A peer leaves. Its leave is forwarded, and is acknowledged even if it is not new here.
    fn on_leave(&mut self, record: &Bytes, peer: EndpointId, cx: &mut Context) {
        let Ok(Taken { id, applied }) = self.on_record(record, peer, cx) else { return };
        if id == peer {
            if applied.is_news() {
                self.carry_out(Effects::one(Effect::Disseminate(id)), cx);
            }
            if let Some(sequence) = self.book.sequence(&id) {
                cx.links.send(&peer, self.id, TopicFrame::LeaveAck(sequence), cx.now);
            }
        }
    }
}
