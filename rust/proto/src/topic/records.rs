//! Records and accusations of frames go one by one to the components that judge them. All that
//! follows from one is done before the next.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Topic,
    ingest::{self, Incoming, Taken, Way},
    scope::Scope,
    sync::Brought,
};
use crate::{
    book::Applied,
    context::Context,
    error::Error,
    id::EndpointId,
    rule::Rule,
    wire::{Entry, SyncFrame},
};

impl Topic {
    /// Takes in a record. See [`Ingest::take`](super::ingest::Ingest::take).
    pub(super) fn take_in(&mut self, incoming: Incoming, cx: &mut Context) -> Result<Taken, Error> {
        let (taken, effects) = self.ingest.take(incoming, scope!(self, cx))?;
        self.carry_out(effects, cx);
        Ok(taken)
    }

    /// Takes in a record that a peer forwarded of its own accord.
    pub(super) fn on_record(
        &mut self,
        bytes: &Bytes,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<Taken, Error> {
        let (age, way) = (Duration::ZERO, Way::Forwarded);
        self.take_in(Incoming { bytes, age, way, from }, cx)
    }

    /// Takes in the records of one frame, up to the first one that does not verify.
    pub(super) fn on_records(&mut self, records: &[Bytes], from: EndpointId, cx: &mut Context) {
        ingest::verify_ahead(Way::Forwarded, records, from, scope!(self, cx));
        for record in records {
            if self.on_record(record, from, cx).is_err() {
                break;
            }
        }
    }

    /// Takes in an accusation. See [`Detector::judge_accusation`](super::failure::Detector).
    pub(super) fn on_accusation(
        &mut self,
        bytes: &Bytes,
        from: EndpointId,
        broadcast: bool,
        cx: &mut Context,
    ) -> Result<bool, Error> {
        let judged = self.detector.judge_accusation(bytes, from, broadcast, scope!(self, cx));
        let (news, effects) = judged?;
        self.carry_out(effects, cx);
        Ok(news)
    }

    /// Takes in the entries of a sync's frame. `None` if one of them does not verify.
    pub(super) fn on_entries(
        &mut self,
        frame: &SyncFrame,
        from: EndpointId,
        cx: &mut Context,
    ) -> Option<Brought> {
        let suspected = self.detector.suspected();
        let mut brought = Brought::default();
        let records = frame.entries.iter().map(|entry| &entry.record);
        ingest::verify_ahead(Way::Synced, records, from, scope!(self, cx));
        for entry in &frame.entries {
            let taken = self.on_entry(entry, from, cx).ok()?;
            brought.count(&taken, entry, &self.book);
            if taken.applied.is_news() {
                let scope: &mut Scope = scope!(self, cx);
                self.dissemination.on_synced(&taken, entry.age(), from, frame.attached, scope);
                self.syncs.on_synced_news(&taken.applied, entry.age(), scope!(self, cx));
            }
        }
        brought.news += self.detector.suspected().saturating_sub(suspected);
        Some(brought)
    }

    /// Takes in a record that a sync brought, and the accusation of its owner, if it has one.
    fn on_entry(
        &mut self,
        entry: &Entry,
        from: EndpointId,
        cx: &mut Context,
    ) -> Result<Taken, Error> {
        let (bytes, age, way) = (&entry.record, entry.age(), Way::Synced);
        let Some(accusation) = &entry.accusation else {
            return self.take_in(Incoming { bytes, age, way, from }, cx);
        };
        if !cx.is_on(Rule::Unconfirmed) {
            return self.take_in(Incoming { bytes, age, way, from }, cx);
        }
        let unconfirmed =
            self.detector.on_accused_record(bytes, age, accusation, from, scope!(self, cx))?;
        if let Some((id, effects)) = unconfirmed {
            self.carry_out(effects, cx);
            return Ok(Taken { id, applied: Applied::Stale });
        }
        let taken = self.take_in(Incoming { bytes, age, way, from }, cx)?;
        self.on_accusation(accusation, from, false, cx)?;
        self.detector.vouch(taken.id, accusation, from, scope!(self, cx));
        Ok(taken)
    }
}
