//! The door of a private swarm: a connection passes it before anything else of it is read.
//!
//! The dialer opens one bidirectional stream and proves each of its keys on it. The acceptor
//! answers with a proof of a key that it holds too. With invitations, each shows its own instead.
//! Only the door makes an [`Admitted`] connection, and only such a connection becomes a link. So
//! nothing that an outsider sends reaches the protocol, a book or an application. In a public swarm
//! the door is open.

pub(crate) mod admitted;
mod invitation;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::endpoint::{
    Connection, ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, VarInt,
};
use tokio::time::Instant;
use tracing::debug;

use self::admitted::Admitted;
use crate::{
    access::Lists,
    admission::{self, Admission, Candidate, Use},
    bans::{Bans, Origin},
    barred::Barred,
    dial::patiently,
    ending,
    invited::{Invited, Wrong},
    lookup::Lookup,
    metrics::Counters,
    newcomer::Newcomer,
    problems::Problems,
    proof::{PROOF, Role, Session},
    proto::{CloseCode, DropReason, EndpointId, LinkEnd, LinkId},
    questions::{Asked, LINK_TIMEOUT, Questions},
    subnet::{self, Subnet},
    swarm_key::{Keyring, MAX_KEYS, SwarmKey},
};

/// The version of the exchange: the first byte of either end.
const VERSION: u8 = 1;
/// A dialer waits this long for the answer, which takes one round trip. It is less than a public
/// node waits for a hello: that node must not take a private one for a peer that breaks a rule.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// An acceptor waits this long for the proofs.
const PROOFS_TIMEOUT: Duration = Duration::from_secs(5);
/// The most peers whose refusal is listed among the problems.
const MAX_REFUSED: usize = 32;
/// The source of the problem if a peer shares no secret with this node.
const SOURCE: &str = "secret";
/// The source of the problem if a peer's invitation does not hold, or the peer refuses this node's.
const INVITATIONS: &str = "invitations";
/// The source of the problem if the lists keep every known peer out.
pub(crate) const ACCESS: &str = "access";

/// Why a connection did not pass the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The connection ended.
    Gone,
    /// The peer began with something else, as a node without a secret does.
    NoSecret,
    /// The peer proved none of the keys.
    OtherSecret,
    /// The peer was too slow.
    TooLate,
    /// What the peer sent is no exchange of proofs.
    Malformed,
    /// The peer's invitation does not let it in.
    Invitation(Wrong),
}

/// The door of an endpoint. Clones are handles of the same door.
#[derive(Debug, Clone)]
pub(crate) struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: EndpointId,
    keys: Keyring,
    invited: Option<Invited>,
    lookup: Lookup,
    lists: Lists,
    questions: Questions,
    barred: Barred,
    counters: Arc<Counters>,
    problems: Problems,
    waiting: Mutex<Waiting>,
    /// The peers that were dialed, and why they and this node don't let each other in.
    refused: Mutex<BTreeMap<EndpointId, String>>,
}

/// The connections that peers opened and that have not passed yet.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    connections: BTreeMap<LinkId, (Candidate, Connection)>,
}

impl Door {
    pub(crate) fn new(
        me: EndpointId,
        (keys, invited): (Keyring, Option<Invited>),
        questions: Questions,
        (lookup, lists, barred, counters, problems): (
            Lookup,
            Lists,
            Barred,
            Arc<Counters>,
            Problems,
        ),
    ) -> Self {
        let (waiting, refused) = Default::default();
        Self(Arc::new(Inner {
            me,
            keys,
            invited,
            lookup,
            lists,
            questions,
            barred,
            counters,
            problems,
            waiting,
            refused,
        }))
    }

    /// Returns what the door shares with the actor.
    pub(crate) fn shared(&self) -> (Lists, Barred, Arc<Counters>, Problems) {
        let Inner { lists, barred, counters, problems, .. } = &*self.0;
        (lists.clone(), barred.clone(), counters.clone(), problems.clone())
    }

    /// What guards the endpoint in a swarm that is private by invitations.
    pub(crate) fn invited(&self) -> Option<&Invited> {
        self.0.invited.as_ref()
    }

    /// A peer that the lists keep out tried to open a link.
    pub(crate) fn keeps_out(&self, peer: EndpointId) {
        self.0.counters.dropped(DropReason::LinksOfPeersThatAreKeptOut, Some(peer));
        self.explain_kept_out(peer);
    }

    /// Reports why a peer is kept out, if this node knows no other peer.
    pub(crate) fn explain_kept_out(&self, peer: EndpointId) {
        if let Some(reason) = self.0.lists.reason(&peer)
            && !self.0.lookup.knows_anybody()
        {
            self.0
                .problems
                .raise(ACCESS, format!("no link to peer {}: {reason}", peer.fmt_short()));
        }
    }

    /// Lets a connection in that a peer opened, or closes it.
    pub(crate) async fn accept(&self, connection: Connection) -> Option<Admitted> {
        let peer = EndpointId::from(connection.remote_id());
        let is_undecided = self.0.lists.is_undecided(&peer);
        if !is_undecided && !self.0.lists.admits(&peer) {
            if self.0.lists.is_revoked(&peer) {
                self.0.refuse(&connection, peer, Refusal::Invitation(Wrong::Revoked));
                return None;
            }
            self.keeps_out(peer);
            connection.close(VarInt::from_u32(CloseCode::Denied.into()), b"");
            return None;
        }
        if self.0.is_open() && !is_undecided {
            return Some(Admitted::new(connection, None));
        }
        let begun = Instant::now();
        let _slot = self.0.wait(&connection, peer)?;
        let checked = patiently(PROOFS_TIMEOUT, self.0.check(&connection)).await;
        let until = match checked.unwrap_or(Err(Refusal::TooLate)) {
            Ok(until) => until,
            Err(refusal) => {
                self.0.refuse(&connection, peer, refusal);
                return None;
            }
        };
        // Only of those that passed the application hears. It may have answered meanwhile.
        if self.0.lists.is_undecided(&peer) && !self.is_admitted(&connection, peer).await {
            return None;
        }
        debug!(peer = %peer.fmt_short(), took = ?begun.elapsed(), "admitted");
        Some(Admitted::new(connection, until))
    }

    /// Asks the application about a peer that opened a connection, and closes that if the answer is
    /// no, or takes too long. The question goes on: the peer is admitted when it comes again.
    async fn is_admitted(&self, connection: &Connection, peer: EndpointId) -> bool {
        let addresses = subnet::remote(connection).into_iter().collect();
        let network = Origin::of(connection).network;
        let asked = self.0.questions.ask_for_link(Newcomer::new(peer, addresses), network);
        let answer = match asked {
            Ok(answer) => tokio::select! {
                answer = patiently(LINK_TIMEOUT, answer) => answer.and_then(Result::ok),
                _ = connection.closed() => return false,
            },
            Err(Asked::Refused) => Some(false),
            Err(_) => None,
        };
        match answer {
            Some(true) => return true,
            // Another question about it was answered just now.
            _ if self.0.lists.admits(&peer) => return true,
            Some(false) => {
                self.keeps_out(peer);
                connection.close(VarInt::from_u32(CloseCode::Denied.into()), b"");
            }
            None => {
                self.0.turn_away(connection, peer, DropReason::ConnectionsWithoutAnAnswerInTime);
            }
        }
        false
    }

    /// Proves to a peer that was dialed that this node belongs to the swarm, and checks that the
    /// peer does. The error says why it does not.
    pub(crate) async fn enter(&self, connection: Connection) -> Result<Admitted, String> {
        if self.0.is_open() {
            return Ok(Admitted::new(connection, None));
        }
        let peer = EndpointId::from(connection.remote_id());
        let proved = patiently(ANSWER_TIMEOUT, self.0.prove(&connection)).await;
        let refusal = match proved.unwrap_or(Err(Refusal::TooLate)) {
            Ok(until) => {
                self.0.agreed(&peer);
                return Ok(Admitted::new(connection, until));
            }
            Err(refusal) => refusal,
        };
        let (what, why) = if refusal == Refusal::Gone {
            self.0.why_refused(&connection)?
        } else {
            self.0.why_wrong(refusal)
        };
        let reason = match refusal {
            Refusal::Invitation(wrong) => wrong.text(),
            _ => "",
        };
        connection.close(not_admitted(), reason.as_bytes());
        self.0.counters.dropped(what, Some(peer));
        self.0.disagreed(peer, &why);
        Err(why)
    }

    /// A peer closed a link of this node, because this node proved no secret, or showed no
    /// invitation that holds.
    pub(crate) fn was_refused(&self, peer: EndpointId, dialed: bool) {
        let (what, why) = if self.0.invited.is_some() {
            (DropReason::LinksToPeersThatRefuseTheInvitation, "it refuses this node's invitation")
        } else {
            let why = "it asks for a secret or an invitation, and this node has none";
            (DropReason::LinksToPeersThatAskForASecret, why)
        };
        self.0.counters.dropped(what, Some(peer));
        // Strangers that dial this node could fill the list.
        if dialed {
            self.0.disagreed(peer, why);
        }
    }
}

impl Inner {
    /// Returns true if every peer may come in that the lists admit.
    fn is_open(&self) -> bool {
        self.keys.is_empty() && self.invited.is_none()
    }

    /// A peer ended the connection in place of an answer: the counter, and why. The error is
    /// another reason than that it did not let this node in.
    fn why_refused(&self, connection: &Connection) -> Result<(DropReason, String), String> {
        let reason = connection.close_reason();
        let Some(ConnectionError::ApplicationClosed(close)) = &reason else {
            let reason = reason.as_ref().map(ending::text_of);
            return Err(reason.unwrap_or_else(|| "the connection ended".into()));
        };
        if close.error_code != not_admitted() {
            return Err(ending::text(LinkEnd::Remote(ending::code_of(close))));
        }
        Ok(match (Wrong::of_reason(&close.reason), &self.invited) {
            (Some(wrong), Some(_)) => (
                DropReason::DialsToPeersThatRefuseTheInvitation,
                format!("it refuses this node, which showed {}", wrong.text()),
            ),
            (Some(_), None) => {
                (DropReason::DialsToPeersWithAnotherSecret, "it asks for an invitation".to_owned())
            }
            (None, Some(_)) => (
                DropReason::DialsToPeersThatRefuseTheInvitation,
                "it asks for a secret, and this node has an invitation".to_owned(),
            ),
            (None, None) => {
                (DropReason::DialsToPeersWithAnotherSecret, "it has another secret".to_owned())
            }
        })
    }

    /// A peer that was dialed does not belong to the swarm: the counter, and why.
    fn why_wrong(&self, refusal: Refusal) -> (DropReason, String) {
        let what = DropReason::DialsToPeersWithoutAnInvitationThatHolds;
        match (refusal, &self.invited) {
            (Refusal::Invitation(wrong), _) => (what, format!("it showed {}", wrong.text())),
            (_, Some(_)) => (what, format!("it showed {}", Wrong::Missing.text())),
            (Refusal::OtherSecret, None) => {
                (DropReason::DialsToPeersWithAnotherSecret, "it has another secret".to_owned())
            }
            (_, None) => (
                DropReason::DialsToPeersWithoutASecret,
                "it proved no secret: it has none".to_owned(),
            ),
        }
    }

    /// Takes a slot among the connections that wait, as a stranger's. `None` if it is refused.
    fn wait(&self, connection: &Connection, peer: EndpointId) -> Option<WaitingSlot<'_>> {
        let (now, network) = (Instant::now(), Origin::of(connection).network);
        let is_member = self.lookup.is_member(&peer);
        if let Some(what) = self.banned(&peer, is_member, network, now) {
            return self.turn_away(connection, peer, what);
        }
        let limits = self.barred.limits();
        let mut waiting = self.waiting();
        if !limits.have_room(waiting.connections.len()) {
            let candidates: Vec<_> =
                waiting.connections.values().map(|(candidate, _)| *candidate).collect();
            match admission::admit(&limits, &candidates, is_member, network) {
                Admission::Admit => {}
                Admission::Refuse => {
                    drop(waiting);
                    return self.turn_away(connection, peer, DropReason::ConnectionsOverTheLimit);
                }
                Admission::Replace(id) => {
                    if let Some((_, oldest)) = waiting.connections.remove(&id) {
                        let peer = oldest.remote_id().into();
                        self.turn_away(&oldest, peer, DropReason::ConnectionsThatMadeRoomForOthers);
                    }
                }
            }
        }
        let id = LinkId(waiting.next);
        waiting.next += 1;
        let usefulness = if is_member { Use::Member } else { Use::Stranger };
        let candidate = Candidate { id, usefulness, network, opened: now };
        waiting.connections.insert(id, (candidate, connection.clone()));
        Some(WaitingSlot { door: self, id })
    }

    fn banned(
        &self,
        peer: &EndpointId,
        is_member: bool,
        network: Option<Subnet>,
        now: Instant,
    ) -> Option<DropReason> {
        let bans = &self.counters.bans;
        if bans.is_banned(peer, now) {
            Some(DropReason::ConnectionsOfBannedPeers)
        } else if !is_member && network.is_some_and(|network| bans.is_network_banned(network, now))
        {
            Some(DropReason::ConnectionsFromBannedNetworks)
        } else {
            None
        }
    }

    fn turn_away(
        &self,
        connection: &Connection,
        peer: EndpointId,
        what: DropReason,
    ) -> Option<WaitingSlot<'_>> {
        self.counters.dropped(what, Some(peer));
        connection.close(VarInt::from_u32(CloseCode::Refused.into()), b"");
        None
    }

    /// Checks that a dialer belongs to the swarm, and answers if it does. Returns when its
    /// invitation ends, if the swarm is private by invitations.
    async fn check(&self, connection: &Connection) -> Result<Option<u64>, Refusal> {
        if let Some(invited) = &self.invited {
            return self.check_invitation(connection, invited).await.map(Some);
        }
        if !self.keys.is_empty() {
            self.check_proofs(connection).await?;
        }
        Ok(None)
    }

    /// Reads a dialer's proofs, and answers if one of them holds.
    async fn check_proofs(&self, connection: &Connection) -> Result<(), Refusal> {
        let (mut send, mut recv) = first_stream(connection).await?;
        let proofs = read_proofs(&mut recv).await?;
        let session = Session::of(connection, self.me, Role::Acceptor).ok_or(Refusal::Gone)?;
        let key = session.verify(&self.keys, Role::Dialer, &proofs).ok_or(Refusal::OtherSecret)?;
        write_proofs(&mut send, &session, Role::Acceptor, &[key]).await
    }

    /// Proves to an acceptor that this node belongs to the swarm, and checks its answer. Returns as
    /// [`Self::check`].
    async fn prove(&self, connection: &Connection) -> Result<Option<u64>, Refusal> {
        if let Some(invited) = &self.invited {
            return self.show_invitation(connection, invited).await.map(Some);
        }
        let session = Session::of(connection, self.me, Role::Dialer).ok_or(Refusal::Gone)?;
        let (mut send, mut recv) = connection.open_bi().await.map_err(|_| Refusal::Gone)?;
        let keys: Vec<_> = self.keys.iter().collect();
        write_proofs(&mut send, &session, Role::Dialer, &keys).await?;
        let proofs = read_proofs(&mut recv).await?;
        let held =
            proofs.len() == 1 && session.verify(&self.keys, Role::Acceptor, &proofs).is_some();
        if held { Ok(None) } else { Err(Refusal::OtherSecret) }
    }

    fn refuse(&self, connection: &Connection, peer: EndpointId, refusal: Refusal) {
        let invited = self.invited.is_some();
        let what = match refusal {
            Refusal::Invitation(wrong) => wrong.counter(),
            Refusal::NoSecret if invited => Wrong::Missing.counter(),
            Refusal::TooLate if invited => DropReason::ConnectionsThatShowedNoInvitationInTime,
            Refusal::Gone => DropReason::ConnectionsThatEndedBeforeTheyWereAdmitted,
            Refusal::NoSecret => DropReason::ConnectionsWithoutTheSwarmSecret,
            Refusal::OtherSecret => DropReason::ConnectionsWithAnotherSecret,
            Refusal::TooLate => DropReason::ConnectionsThatProvedNoSecretInTime,
            Refusal::Malformed => DropReason::ConnectionsWithABrokenProof,
        };
        self.counters.dropped(what, Some(peer));
        if !matches!(refusal, Refusal::Gone | Refusal::TooLate) {
            let length = self.bans().failed_admission(peer, Origin::of(connection), Instant::now());
            self.counters.banned(what.label(), peer, length);
        }
        let reason = match refusal {
            Refusal::Invitation(wrong) => wrong.text(),
            Refusal::NoSecret if invited => Wrong::Missing.text(),
            _ => "",
        };
        connection.close(not_admitted(), reason.as_bytes());
    }

    fn bans(&self) -> &Bans {
        &self.counters.bans
    }

    /// A peer and this node share a secret.
    fn agreed(&self, peer: &EndpointId) {
        let mut refused = self.refused();
        if refused.remove(peer).is_some() && refused.is_empty() {
            self.problems.clear(self.source());
        }
    }

    /// A peer that was dialed and this node don't let each other in. This is reported once for each
    /// peer.
    fn disagreed(&self, peer: EndpointId, why: &str) {
        let mut refused = self.refused();
        let is_news = refused.get(&peer).is_none_or(|before| before != why);
        if is_news && (refused.contains_key(&peer) || refused.len() < MAX_REFUSED) {
            refused.insert(peer, why.to_owned());
            let what = format!("no link to peer {}: {why}", peer.fmt_short());
            self.problems.raise(self.source(), what);
        }
    }

    fn source(&self) -> &'static str {
        if self.invited.is_some() { INVITATIONS } else { SOURCE }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A map is sound after any panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<EndpointId, String>> {
        // A map is sound after any panic.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot among the connections that wait. Dropping it frees the slot.
struct WaitingSlot<'a> {
    door: &'a Inner,
    id: LinkId,
}

impl Drop for WaitingSlot<'_> {
    fn drop(&mut self) {
        self.door.waiting().connections.remove(&self.id);
    }
}

fn not_admitted() -> VarInt {
    VarInt::from_u32(CloseCode::NotAdmitted.into())
}

/// Sends the proofs of keys, and ends the stream.
async fn write_proofs(
    send: &mut SendStream,
    session: &Session,
    role: Role,
    keys: &[&SwarmKey],
) -> Result<(), Refusal> {
    let mut bytes = vec![VERSION, u8::try_from(keys.len()).expect("a keyring is short")];
    for key in keys {
        bytes.extend_from_slice(session.proof(key, role).as_bytes());
    }
    send.write_all(&bytes).await.map_err(|_| Refusal::Gone)?;
    send.finish().map_err(|_| Refusal::Gone)
}

/// Waits for the stream of an admission: a node of a private swarm opens no other one before it is
/// let in.
async fn first_stream(connection: &Connection) -> Result<(SendStream, RecvStream), Refusal> {
    tokio::select! {
        stream = connection.accept_bi() => stream.map_err(|_| Refusal::Gone),
        stream = connection.accept_uni() => {
            Err(if stream.is_ok() { Refusal::NoSecret } else { Refusal::Gone })
        }
    }
}

fn ended(error: ReadExactError) -> Refusal {
    match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(_)) => Refusal::Gone,
        ReadExactError::ReadError(_) | ReadExactError::FinishedEarly(_) => Refusal::Malformed,
    }
}

/// Reads the end of the stream of an admission.
async fn end_of(recv: &mut RecvStream) -> Result<(), Refusal> {
    match recv.read(&mut [0]).await {
        Ok(None) => Ok(()),
        Err(ReadError::ConnectionLost(_)) => Err(Refusal::Gone),
        _ => Err(Refusal::Malformed),
    }
}

/// Reads proofs, and the end of the stream after them.
async fn read_proofs(recv: &mut RecvStream) -> Result<Vec<[u8; PROOF]>, Refusal> {
    let mut head = [0; 2];
    recv.read_exact(&mut head).await.map_err(ended)?;
    let [version, count] = head;
    if version == 0 || version == invitation::VERSION {
        // A request of a public node begins with its length, of which the first byte is 0.
        return Err(Refusal::NoSecret);
    }
    if version != VERSION || !(1..=MAX_KEYS).contains(&usize::from(count)) {
        return Err(Refusal::Malformed);
    }
    let mut proofs = vec![[0; PROOF]; usize::from(count)];
    recv.read_exact(proofs.as_flattened_mut()).await.map_err(ended)?;
    end_of(recv).await?;
    Ok(proofs)
}

#[cfg(test)]
mod tests {
    use iroh::{Endpoint, SecretKey};

    use super::*;
    use crate::{ALPN, config::Config, endpoint};

    fn door(endpoint: &Endpoint, keys: &[&SwarmKey]) -> Door {
        let keys = Keyring::new(keys.iter().map(|key| (*key).clone()).collect()).unwrap();
        Door::new(endpoint.id().into(), (keys, None), Questions::default(), Default::default())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_ends_that_share_any_key_let_each_other_in() {
        let config = Config::local();
        let bind = || endpoint::bind(&config, SecretKey::generate());
        let (a, b) = (bind().await.unwrap(), bind().await.unwrap());
        b.set_alpns(vec![ALPN.to_vec()]);
        let [one, two, three] = [0; 3].map(|_| SwarmKey::generate().unwrap());
        let mut costs = Vec::new();
        for (of_dialer, of_acceptor, is_let_in) in [
            (vec![&one], vec![&one], true),
            (vec![&one, &two], vec![&two, &three], true),
            (vec![&one, &two], vec![&three], false),
            (vec![], vec![], true),
        ] {
            for _ in 0..10 {
                let (dialed, accepted) = tokio::join!(a.connect(b.addr(), ALPN), async {
                    b.accept().await.unwrap().await
                });
                let doors = [door(&a, &of_dialer), door(&b, &of_acceptor)];
                let begun = Instant::now();
                let (entered, let_in) = tokio::join!(
                    doors[0].enter(dialed.unwrap()),
                    doors[1].accept(accepted.unwrap())
                );
                if is_let_in && !of_dialer.is_empty() {
                    costs.push(begun.elapsed());
                }
                assert_eq!((entered.is_ok(), let_in.is_some()), (is_let_in, is_let_in));
            }
        }
        costs.sort();
        println!("an admission takes {:?}, {:?} at most", costs[costs.len() / 2], costs.last());
        for endpoint in [a, b] {
            endpoint.close().await;
        }
    }
}
