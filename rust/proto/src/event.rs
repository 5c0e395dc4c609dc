//! The events that go into the state machine, and the effects that come out of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh_base::TransportAddr;

use crate::{
    access::Access,
    channel::Channel,
    config::Config,
    drops::DropReason,
    id::{EndpointId, TopicId},
    invitation::Revocation,
    kept::Kept,
    record::{NodeRecord, Profile},
};

/// A link: one QUIC connection between two endpoints. The driver numbers them and never uses a
/// number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Which of a link's streams a frame travels on. Frames of one lane arrive in order; lanes do not
/// wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Hello, overlay, probes and announcements: small frames with the first priority.
    Control,
    /// Syncs: bulk, with the second priority.
    Sync,
    /// Broadcasts of applications, with the last priority. If the queue is full, a frame is
    /// dropped.
    Broadcast,
}

/// Why a link is closed by one of its ends: the QUIC application error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// The endpoint shuts down.
    Shutdown,
    /// The endpoint left every topic that the link served.
    Leave,
    /// Another link to the same peer took its place: there is one link for each pair of nodes.
    Replaced,
    /// The link was not used for a while.
    Idle,
    /// No protocol version in common, a topic that is not served, a peer that is not welcome.
    Refused,
    /// The control queue was full: the peer reads too slowly; a sync repairs what it missed.
    Overflow,
    /// A frame that does not decode or breaks a limit.
    Protocol,
    /// The peer does not answer on this link, or is held to be dead.
    Unresponsive,
    /// The peer did not prove that it holds the secret of this private swarm, or has no invitation
    /// that holds.
    NotAdmitted,
    /// The lists of the endpoint keep the peer out.
    Denied,
    /// A code that this version does not know.
    Unknown(u32),
}

impl From<CloseCode> for u32 {
    fn from(code: CloseCode) -> Self {
        match code {
            CloseCode::Shutdown => 0,
            CloseCode::Leave => 1,
            CloseCode::Replaced => 2,
            CloseCode::Idle => 3,
            CloseCode::Refused => 4,
            CloseCode::Overflow => 5,
            CloseCode::Protocol => 6,
            CloseCode::Unresponsive => 7,
            CloseCode::NotAdmitted => 8,
            CloseCode::Denied => 9,
            CloseCode::Unknown(code) => code,
        }
    }
}

impl From<u32> for CloseCode {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Shutdown,
            1 => Self::Leave,
            2 => Self::Replaced,
            3 => Self::Idle,
            4 => Self::Refused,
            5 => Self::Overflow,
            6 => Self::Protocol,
            7 => Self::Unresponsive,
            8 => Self::NotAdmitted,
            9 => Self::Denied,
            code => Self::Unknown(code),
        }
    }
}

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEnd {
    /// We closed it.
    Local(CloseCode),
    /// The peer closed it.
    Remote(CloseCode),
    /// Nothing was heard for the idle timeout.
    TimedOut,
    /// The transport failed otherwise (reset, a peer that restarted, no route).
    Lost,
}

/// How a topic is joined.
#[derive(Debug, Clone)]
pub struct TopicOptions {
    /// What this node says of itself.
    pub profile: Profile,
    /// Timers and limits.
    pub config: Config,
}

/// An event for the state machine.
#[derive(Debug, Clone)]
pub enum InEvent {
    /// Join a topic: announce a record in it and gossip with its members. One topic joins once.
    Join(TopicId, Box<TopicOptions>),
    /// Leave a topic: tell its members, then emit [`TopicEvent::Closed`].
    Leave(TopicId),
    /// Replace what this node says of itself in a topic, and announce it.
    SetProfile(TopicId, Profile),
    /// Bootstrap peers of a topic, added to those given before; addresses replace older ones.
    AddBootstrap(TopicId, Vec<(EndpointId, Vec<TransportAddr>)>),
    /// Bootstrap peers of a topic that are dialed no longer.
    RemoveBootstrap(TopicId, Vec<EndpointId>),
    /// A lookup on the local network saw a member of a topic.
    Found(TopicId, EndpointId, Vec<TransportAddr>),
    /// At an address behind a name, which the user gave as a bootstrap peer, a handshake proved
    /// this id.
    Learned(TopicId, EndpointId, TransportAddr),
    /// Records that an earlier life of this node had in its book of a topic. Their owners are
    /// dialed; they are no members until a record confirms them.
    Remember(TopicId, Vec<Kept>),
    /// The peers that this endpoint deals with, in all topics, from now on.
    SetAccess(Arc<Access>),
    /// The issuers whose revocations count in all topics. Without any, all revocations are ignored.
    SetIssuers(BTreeSet<EndpointId>),
    /// The time of day, in seconds since 1970. Revocations that have ended are forgotten.
    Clock(u64),
    /// Issuers keep ids out of a topic: all of its members learn it.
    Revoke(TopicId, Vec<Revocation>),
    /// This endpoint's own addresses, all of them; announced in every topic if they changed.
    SetAddresses(Vec<TransportAddr>),
    /// The addresses of this machine, or its way out, changed: links may have broken, and what was
    /// not heard meanwhile says nothing about others.
    NetworkChanged {
        /// No address is left by which other machines reach this one.
        away: bool,
    },
    /// A link is open: `dialed` by this endpoint, or accepted. The driver announces each link once.
    LinkOpened {
        /// The link.
        link: LinkId,
        /// The authenticated id of the other end.
        peer: EndpointId,
        /// Where the other end was when the handshake ended, if known. Later dials of this id at
        /// this address have no limit.
        address: Option<TransportAddr>,
        /// Whether this endpoint dialed it.
        dialed: bool,
    },
    /// A link is gone. This comes once for each open link, even if the state requested the close.
    LinkClosed(LinkId, LinkEnd),
    /// A dial that [`OutEvent::Dial`] requested failed.
    DialFailed(EndpointId),
    /// The other end's QUIC acknowledged packets since [`OutEvent::Keepalive`].
    Acknowledged(LinkId),
    /// A frame arrived, without its length prefix.
    Received(LinkId, Lane, Bytes),
    /// Sequence numbers below this one are on disk as used: they may be announced.
    SequencesReserved(u64),
    /// The application wants a link to a peer. After this and later events, [`crate::State::link`]
    /// and [`crate::State::is_connecting`] tell what happened.
    Connect(TopicId, EndpointId),
    /// An application's messages or streams use a link, or no longer do. While they do, the link is
    /// not closed for being idle or replaced.
    Held(LinkId, bool),
    /// The application broadcasts at most [`crate::MAX_BROADCAST`] bytes to all members, in a
    /// channel or in none, at the [`crate::Pace`] of a topic. If there is no neighbor yet, the
    /// broadcast waits for one, up to 10 s.
    Broadcast(TopicId, Option<Channel>, Bytes),
    /// A timer is due: `now` is at or past [`crate::State::next_timer`].
    Timer,
}

/// How long a driver waits for the acknowledgement of a keepalive.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// An effect: what the driver has to do.
#[derive(Debug, Clone)]
pub enum OutEvent {
    /// Dial a peer; the answer is [`InEvent::LinkOpened`] or [`InEvent::DialFailed`]. With no
    /// addresses, a lookup has to find them.
    Dial(EndpointId, Vec<TransportAddr>),
    /// Send a frame, to be prefixed with its length. A full queue must never block: it closes the
    /// link with [`CloseCode::Overflow`], but for [`Lane::Broadcast`], where the frame is dropped.
    Send(LinkId, Lane, Bytes),
    /// Send a frame on [`Lane::Control`], which only the other end's QUIC acknowledges. If it does
    /// so within [`KEEPALIVE_TIMEOUT`], the answer is [`InEvent::Acknowledged`].
    Keepalive(LinkId, Bytes),
    /// Close a link, after what was sent on it before is handed to the network.
    Close(LinkId, CloseCode),
    /// Persist that every sequence number below this one may be used, then answer with
    /// [`InEvent::SequencesReserved`].
    ReserveSequences(u64),
    /// Something happened in a topic.
    Topic(TopicId, TopicEvent),
    /// A limit refused or dropped something. The driver counts it under `what` and logs it.
    Dropped {
        /// What it was.
        what: DropReason,
        /// The peer at the other end of the link, if there is one.
        peer: Option<EndpointId>,
    },
}

/// Why a peer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// Its record was not refreshed for the expiration that it announced.
    Expired,
    /// It answered neither this node's probes nor those of others, and did not refute in time.
    Unreachable,
    /// The lists of this endpoint keep it out from now on. See [`Access`].
    Denied,
    /// The book is full, and this node never reached it: it made room for a newcomer.
    Displaced,
}

/// What happened in a topic. Replaying these events, in order, gives the address book.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicEvent {
    /// This node announced a record of itself.
    Announced(Arc<NodeRecord>),
    /// A peer entered the book.
    PeerJoined(Arc<NodeRecord>),
    /// A peer in the book announced a change of its name, addresses, metadata or protocols, or was
    /// restarted (another boot id).
    PeerUpdated(Arc<NodeRecord>),
    /// A heartbeat: a higher sequence number, nothing else changed. Not for applications.
    PeerRefreshed(Arc<NodeRecord>),
    /// A peer left; the record is its last with content.
    PeerLeft(Arc<NodeRecord>),
    /// A peer did not answer a probe, or a member that it did not answer accuses it. It stays in
    /// the book for the time that it has to refute.
    PeerSuspected(Arc<NodeRecord>),
    /// A suspected peer refuted the suspicion, by this record, or was heard.
    PeerRecovered(Arc<NodeRecord>),
    /// A peer is gone without a leave.
    PeerLost(Arc<NodeRecord>, LostReason),
    /// Another process repeatedly announces with this node's key and a higher sequence number, as
    /// after copying a key or a machine image. This node announces once a minute until that ends.
    IdentityConflict {
        /// The boot id of the other process.
        boot_id: u64,
    },
    /// The record of a peer was taken in, hidden, because the application has not admitted the
    /// peer: see [`Access::is_undecided`]. The answer is [`InEvent::SetAccess`]. Not for
    /// applications.
    Undecided(Arc<NodeRecord>),
    /// Issuers keep other ids out than before: see [`crate::State::revocations`]. The answer is
    /// [`InEvent::SetAccess`]. Not for applications.
    Revoked,
    /// No link to any member is left.
    Isolated,
    /// A member is linked again after [`TopicEvent::Isolated`].
    Reconnected,
    /// This peer speaks of the topic on a link that is new to the topic. Not for applications.
    Opened(EndpointId),
    /// This peer says that it has not joined the topic. Not for applications.
    NotServed(EndpointId),
    /// This member keeps as many observers up to date as it may, so this observer asks another one,
    /// if it knows one. Not for applications.
    Busy {
        /// The member.
        peer: EndpointId,
        /// The member that is asked now.
        next: Option<EndpointId>,
    },
    /// A comparison of books with this member is complete: what either had is in both. The first
    /// one ends a newcomer's search. Not for applications.
    Synced(EndpointId),
    /// The book of this neighbor is found to be equal, after one of the two changed. Not for
    /// applications.
    Agreed(EndpointId),
    /// A member became a neighbor in the overlay. Not for applications.
    NeighborUp(EndpointId),
    /// A member is a neighbor no longer. Not for applications.
    NeighborDown(EndpointId),
    /// A broadcast of a member arrived: once for each broadcast, and never for this node's own.
    Broadcast {
        /// The member that signed it.
        author: EndpointId,
        /// The channel of the broadcast, if it has one.
        channel: Option<Channel>,
        /// The content.
        data: Bytes,
    },
    /// The leave is done; the topic is gone from this state.
    Closed,
}

impl TopicEvent {
    /// The record of the member that the event is about, if it changes the address book.
    pub(crate) fn about_member(&self) -> Option<&NodeRecord> {
        match self {
            Self::PeerJoined(record)
            | Self::PeerUpdated(record)
            | Self::PeerRefreshed(record)
            | Self::PeerLeft(record)
            | Self::PeerSuspected(record)
            | Self::PeerRecovered(record)
            | Self::PeerLost(record, _) => Some(record),
            _ => None,
        }
    }
}
