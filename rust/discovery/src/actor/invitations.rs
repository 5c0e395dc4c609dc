//! The ends of invitations, and their revocations.

use std::time::Duration;

use iroh::endpoint::VarInt;
use tokio::time::Instant;
use tracing::{Instrument, info, warn};

use super::Actor;
use crate::{
    blocking::blocking,
    commands::Reply,
    error::Error,
    invited::{Invited, Wrong, unix_seconds},
    proto::{
        CLOCK_TOLERANCE, CloseCode, DropReason, EndpointId, InEvent, Invitation, Revocation,
        TopicId,
    },
};

/// The clock is read this often, because it may be set.
const LOOK: Duration = Duration::from_mins(1);
/// The source of the problem if this node's own invitation does not hold.
const SOURCE: &str = "invitation";

impl Actor {
    /// A link was opened whose peer's invitation ends at this time.
    pub(super) fn invited_until(&mut self, ends: u64) {
        let due = Instant::now() + until(ends);
        self.look_at_invitations = self.look_at_invitations.map(|at| at.min(due));
    }

    /// Closes links whose invitations have ended, if it is time to look. The overlay takes such a
    /// peer for one that does not answer: it is lost everywhere, since no member lets it in.
    pub(super) fn end_invitations(&mut self) {
        let now = Instant::now();
        if self.look_at_invitations.is_none_or(|at| at > now) {
            return;
        }
        let seconds = unix_seconds();
        for link in self.links.values_mut().filter(|link| !link.is_closing()) {
            if link.until.is_some_and(|ends| has_ended(ends, seconds)) {
                info!(peer = %link.peer.fmt_short(), "its invitation has ended");
                self.counters.dropped(DropReason::LinksWhoseInvitationsEnded, Some(link.peer));
                let code = VarInt::from_u32(CloseCode::NotAdmitted.into());
                link.handle.connection.close(code, Wrong::Over.text().as_bytes());
                link.close(CloseCode::NotAdmitted);
            }
        }
        let open = self.links.values().filter(|link| !link.is_closing());
        let own = self.door.invited().map(|invited| invited.own().ends);
        let own = own.filter(|ends| !has_ended(*ends, seconds));
        let next = open.filter_map(|link| link.until).chain(own).map(until).min();
        self.look_at_invitations = Some(now + next.unwrap_or(LOOK).min(LOOK));
        self.look_at_own_invitation(seconds);
        self.handle_own(InEvent::Clock(seconds));
    }

    /// Begins to look at the ends of invitations, if the swarm has some.
    pub(super) fn begin_looking(&mut self) {
        if let Some(invited) = self.door.invited() {
            let issuers = invited.issuers().clone();
            self.look_at_invitations = Some(Instant::now());
            self.handle_own(InEvent::SetIssuers(issuers));
            self.end_invitations();
        }
    }

    fn look_at_own_invitation(&self, seconds: u64) {
        let Some(own) = self.door.invited().map(Invited::own) else { return };
        let problems = self.network.problems();
        if self.lists.revocations().contains_key(&own.member) {
            problems.raise(SOURCE, "that of this node was revoked");
        } else if own.is_over(seconds) {
            problems.raise(SOURCE, "that of this node has ended: give it another one");
        } else if own.is_early(seconds) {
            problems.raise(SOURCE, "that of this node has not begun: is its clock right?");
        } else {
            problems.clear(SOURCE);
        }
    }

    /// Replaces the invitation of this node.
    pub(super) fn renew(&mut self, invitation: Invitation) -> Result<(), Error> {
        let me = EndpointId::from(self.endpoint.id());
        let Some(invited) = self.door.invited() else {
            let reason = "is of no use: this node was started without an issuer";
            return Err(Error::invalid(SOURCE, reason));
        };
        invited.renew(invitation, &me)?;
        self.look_at_invitations = Some(Instant::now());
        self.end_invitations();
        Ok(())
    }

    /// Gives the revocations of an earlier life to a topic that is joined.
    pub(super) fn load_revocations(&mut self, topic: TopicId) {
        let held: Vec<_> = self.lists.revocations().into_values().collect();
        if !held.is_empty() && self.door.invited().is_some() {
            self.handle_own(InEvent::Revoke(topic, held));
        }
    }

    /// Keeps an id out everywhere. The reply follows once that holds here and is on disk.
    pub(super) fn revoke(&mut self, revocation: Revocation, reply: Reply) {
        let topic = revocation.topic;
        let taken = if self.door.invited().is_none() {
            let reason = "is of no use: this node was started without an issuer";
            Err(Error::invalid("revocation", reason))
        } else if self.topics.contains_key(&topic) {
            self.handle(InEvent::Revoke(topic, vec![revocation])).map_err(Error::from)
        } else {
            Err(Error::invalid("revocation", "is for another topic"))
        };
        match taken {
            Ok(()) => self.keep_marks(Some(reply)),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Issuers keep other ids out than before.
    pub(super) fn on_revoked(&mut self, topic: TopicId) {
        let held = self.state.revocations(&topic);
        let held = held.map(|revocation| (revocation.member, revocation.clone())).collect();
        let me = self.endpoint.id().into();
        let changed = self.lists.set_revoked(held, &me);
        if changed[0].contains(&me) {
            warn!("the invitation of this node was revoked");
        }
        for id in changed.iter().flatten() {
            self.reconsider(id);
        }
        self.echo.push_back(InEvent::SetAccess(self.lists.access()));
        self.look_at_own_invitation(unix_seconds());
        self.keep_marks(None);
    }

    /// Writes the lists to disk, and replies then.
    pub(super) fn keep_marks(&self, reply: Option<Reply>) {
        let marks = self.lists.marks();
        let store = self.store.clone();
        let keeping = async move {
            let kept = match store {
                None => Ok(()),
                Some(store) => {
                    blocking(move || {
                        store.keep_marks(marks);
                        Ok(())
                    })
                    .await
                }
            };
            if let Some(reply) = reply {
                let _ = reply.send(kept);
            }
        };
        self.tasks.spawn(keeping.in_current_span());
    }
}

/// Returns true if an invitation with this end holds no longer.
pub(super) fn has_ended(ends: u64, seconds: u64) -> bool {
    seconds >= ends.saturating_add(CLOCK_TOLERANCE)
}

/// How long an invitation with this end still holds.
fn until(ends: u64) -> Duration {
    Duration::from_secs(ends.saturating_add(CLOCK_TOLERANCE).saturating_sub(unix_seconds()))
}
