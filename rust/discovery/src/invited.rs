//! A swarm that is private by invitations: the issuers that a node trusts, its own invitation, and
//! what may be wrong with that of a peer.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    error::Error,
    proto::{DropReason, EndpointId, Invitation, Revocation, TopicId},
    store::unix_micros,
};

/// Most issuers that a node trusts: the one in use, and those that a change brings or takes away.
const MAX_ISSUERS: usize = 8;
const FIELD: &str = "invitation";

/// What guards an endpoint in a swarm that is private by invitations. Clones share the invitation.
#[derive(Debug, Clone)]
pub(crate) struct Invited(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topic: TopicId,
    issuers: BTreeSet<EndpointId>,
    own: Mutex<Invitation>,
}

/// Why an invitation does not let its holder in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Missing,
    Unreadable,
    OtherIssuer,
    OtherTopic,
    OtherId,
    Early,
    Over,
    Revoked,
}

impl Wrong {
    const ALL: [Self; 8] = [
        Self::Missing,
        Self::Unreadable,
        Self::OtherIssuer,
        Self::OtherTopic,
        Self::OtherId,
        Self::Early,
        Self::Over,
        Self::Revoked,
    ];

    /// What was shown. It is the reason with which a connection is closed.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Missing => "no invitation",
            Self::Unreadable => "an invitation whose signature does not hold",
            Self::OtherIssuer => "an invitation of another issuer",
            Self::OtherTopic => "an invitation to another topic",
            Self::OtherId => "the invitation of another id",
            Self::Early => "an invitation that has not begun by the other clock",
            Self::Over => "an invitation that has ended",
            Self::Revoked => "an invitation that was revoked",
        }
    }

    /// The counter of connections that were refused for it.
    pub(crate) fn counter(self) -> DropReason {
        match self {
            Self::Missing => DropReason::ConnectionsWithoutAnInvitation,
            Self::Unreadable => DropReason::ConnectionsWithAForgedInvitation,
            Self::OtherIssuer => DropReason::ConnectionsWithAnInvitationOfAnotherIssuer,
            Self::OtherTopic => DropReason::ConnectionsWithAnInvitationToAnotherTopic,
            Self::OtherId => DropReason::ConnectionsWithTheInvitationOfAnotherId,
            Self::Early => DropReason::ConnectionsWithAnInvitationBeforeItsTime,
            Self::Over => DropReason::ConnectionsWithAnInvitationThatHasEnded,
            Self::Revoked => DropReason::ConnectionsWithAnInvitationThatWasRevoked,
        }
    }

    /// Reads the reason with which a peer closed a connection. Other words of a peer are not shown.
    pub(crate) fn of_reason(reason: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|wrong| wrong.text().as_bytes() == reason)
    }
}

impl Invited {
    /// Checks what a node is started with. `None` if its swarm is not private by invitations.
    pub(crate) fn new(
        issuers: Vec<EndpointId>,
        invitation: Option<Invitation>,
        has_secret: bool,
        me: &EndpointId,
    ) -> Result<Option<Self>, Error> {
        check_invited(&issuers, invitation.as_ref(), has_secret)?;
        let Some(own) = invitation else { return Ok(None) };
        let (topic, issuers) = (own.topic, issuers.into_iter().collect());
        let invited = Self(Arc::new(Inner { topic, issuers, own: Mutex::new(own.clone()) }));
        invited.check_own(&own, me)?;
        Ok(Some(invited))
    }

    /// The only topic that the invitations are for.
    pub(crate) fn topic(&self) -> TopicId {
        self.0.topic
    }

    pub(crate) fn issuers(&self) -> &BTreeSet<EndpointId> {
        &self.0.issuers
    }

    /// Returns true if a revocation that was kept counts for this node now.
    pub(crate) fn trusts(&self, revocation: &Revocation) -> bool {
        self.0.issuers.contains(&revocation.issuer)
            && revocation.topic == self.0.topic
            && !revocation.is_over(unix_seconds())
    }

    /// Returns the invitation of this node.
    pub(crate) fn own(&self) -> Invitation {
        self.lock().clone()
    }

    /// Replaces the invitation of this node, which it shows on new connections.
    pub(crate) fn renew(&self, invitation: Invitation, me: &EndpointId) -> Result<(), Error> {
        if invitation.topic != self.0.topic {
            return Err(Error::invalid(FIELD, "is for another topic"));
        }
        self.check_own(&invitation, me)?;
        *self.lock() = invitation;
        Ok(())
    }

    /// Checks an invitation of this node. One that has not begun is taken: this clock may be wrong,
    /// as that of a machine that was just switched on.
    fn check_own(&self, own: &Invitation, me: &EndpointId) -> Result<(), Error> {
        if !self.0.issuers.contains(&own.issuer) {
            let reason = format!("is signed by {}, which is none of the issuers", own.issuer);
            return Err(Error::invalid(FIELD, reason));
        }
        if own.member != *me {
            let reason = format!("is for the id {}, and this node is {me}", own.member);
            return Err(Error::invalid(FIELD, reason));
        }
        if own.is_over(unix_seconds()) {
            return Err(Error::invalid(FIELD, format!("has ended {}", ago(own.ends))));
        }
        Ok(())
    }

    /// Checks what a peer showed, whose id the handshake proved. Returns when its invitation ends.
    pub(crate) fn check(&self, shown: &Bytes, peer: &EndpointId) -> Result<u64, Wrong> {
        let invitation = Invitation::verify(shown).map_err(|_| Wrong::Unreadable)?;
        let now = unix_seconds();
        if !self.0.issuers.contains(&invitation.issuer) {
            Err(Wrong::OtherIssuer)
        } else if invitation.topic != self.0.topic {
            Err(Wrong::OtherTopic)
        } else if invitation.member != *peer {
            Err(Wrong::OtherId)
        } else if invitation.is_early(now) {
            Err(Wrong::Early)
        } else if invitation.is_over(now) {
            Err(Wrong::Over)
        } else {
            Ok(invitation.ends)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Invitation> {
        // The invitation is replaced as a whole, so a poisoned lock does no harm.
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks what of the arguments of a node needs no id of its own: 1 to 8 issuers and an invitation,
/// or neither; and not together with a secret.
///
/// # Errors
/// [`Error::Invalid`] for `issuer`, `invitation` or `secret`.
pub fn check_invited(
    issuers: &[EndpointId],
    invitation: Option<&Invitation>,
    has_secret: bool,
) -> Result<(), Error> {
    if issuers.len() > MAX_ISSUERS {
        let reason = format!("has {} ids, the limit is {MAX_ISSUERS}", issuers.len());
        return Err(Error::invalid("issuer", reason));
    }
    if let Some(issuer) = issuers.iter().find(|id| iroh::EndpointId::try_from(**id).is_err()) {
        return Err(Error::invalid("issuer", format!("{issuer} is no Ed25519 public key")));
    }
    match invitation {
        None if issuers.is_empty() => Ok(()),
        None => Err(Error::invalid(FIELD, "is missing: with an issuer, each node needs one")),
        Some(_) if issuers.is_empty() => {
            Err(Error::invalid("issuer", "is missing: whose invitations are trusted?"))
        }
        Some(_) if has_secret => {
            let reason = "excludes an issuer: a swarm is private by a secret or by invitations";
            Err(Error::invalid("secret", reason))
        }
        Some(own) if !issuers.contains(&own.issuer) => {
            let reason = format!("is signed by {}, which is none of the issuers", own.issuer);
            Err(Error::invalid(FIELD, reason))
        }
        Some(_) => Ok(()),
    }
}

/// Returns the time of this machine's clock, in seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    unix_micros() / 1_000_000
}

fn ago(then: u64) -> String {
    let seconds = unix_seconds().saturating_sub(then);
    match seconds {
        0..=7_199 => format!("{} min ago", seconds / 60),
        7_200..=172_799 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{issuer::IssuerKey, topic::Topic};

    fn id() -> EndpointId {
        iroh::SecretKey::generate().public().into()
    }

    fn text<T>(result: Result<T, Error>) -> String {
        result.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_a_node_is_started_with_is_checked_and_the_error_names_the_field() {
        let (issuer, other, me) = (IssuerKey::generate(), IssuerKey::generate(), id());
        let topic = Topic::new("fleet").unwrap();
        let now = unix_seconds();
        let invite = |key: &IssuerKey, member, times| {
            Some(key.invite_at(topic.id(), member, times).unwrap())
        };
        let valid = invite(&issuer, me, (now, now + 60));
        let of = |issuers: Vec<EndpointId>, invitation, has_secret| {
            text(Invited::new(issuers, invitation, has_secret, &me))
        };
        let one = || vec![issuer.id()];
        assert!(Invited::new(vec![], None, true, &me).unwrap().is_none());
        assert!(Invited::new(one(), valid.clone(), false, &me).unwrap().is_some());
        assert!(of(one(), None, false).starts_with("invitation is missing"));
        assert!(of(vec![], valid.clone(), false).starts_with("issuer is missing"));
        assert!(of(one(), valid.clone(), true).starts_with("secret excludes an issuer"));
        assert_eq!(of(vec![me; 9], valid.clone(), false), "issuer has 9 ids, the limit is 8");
        let others = of(vec![other.id()], valid, false);
        assert!(others.contains("none of the issuers"), "{others}");
        let wrong = of(one(), invite(&issuer, other.id(), (now, now + 60)), false);
        assert!(wrong.starts_with(&format!("invitation is for the id {}", other.id())), "{wrong}");
        let over = invite(&issuer, me, (now - 9000, now - 7200));
        assert_eq!(of(one(), over, false), "invitation has ended 2 h ago");
        let early = invite(&issuer, me, (now + 9000, now + 9060));
        assert!(Invited::new(one(), early, false, &me).is_ok(), "this clock may be wrong");
    }

    #[test]
    fn an_invitation_lets_in_its_id_alone_in_its_topic_and_its_time() {
        let (issuer, other, [me, peer]) =
            (IssuerKey::generate(), IssuerKey::generate(), [id(), id()]);
        let (here, there) = (Topic::new("here").unwrap().id(), Topic::new("there").unwrap().id());
        let now = unix_seconds();
        let times = (now, now + 60);
        let own = Some(issuer.invite_at(here, me, times).unwrap());
        let invited = Invited::new(vec![issuer.id()], own, false, &me).unwrap().unwrap();
        let show = |key: &IssuerKey, topic, member, times| {
            invited.check(key.invite_at(topic, member, times).unwrap().bytes(), &peer)
        };
        assert_eq!(show(&issuer, here, peer, times), Ok(now + 60));
        assert_eq!(show(&other, here, peer, times), Err(Wrong::OtherIssuer));
        assert_eq!(show(&issuer, there, peer, times), Err(Wrong::OtherTopic));
        assert_eq!(show(&issuer, here, me, times), Err(Wrong::OtherId), "a stolen one");
        assert_eq!(show(&issuer, here, peer, (now + 900, now + 960)), Err(Wrong::Early));
        assert_eq!(show(&issuer, here, peer, (now - 960, now - 900)), Err(Wrong::Over));
        assert_eq!(show(&issuer, here, peer, (now - 60, now - 9)), Ok(now - 9), "clocks differ");
        let revocation = issuer.revoke_at(here, peer, times).unwrap();
        assert_eq!(invited.check(revocation.bytes(), &peer), Err(Wrong::Unreadable));
        assert_eq!(invited.check(&Bytes::new(), &peer), Err(Wrong::Unreadable));
        for wrong in Wrong::ALL {
            assert_eq!(Wrong::of_reason(wrong.text().as_bytes()), Some(wrong));
        }
        assert_eq!(Wrong::of_reason(b"\x1b[2J"), None);
    }
}
