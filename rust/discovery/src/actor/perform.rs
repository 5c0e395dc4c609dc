//! Carries out the effects of the state: links, dials, writes to disk, events.

use std::collections::BTreeSet;

use bytes::Bytes;
use iroh::{TransportAddr, endpoint::VarInt};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{Instrument, debug, error};

use super::{Actor, MAX_DIALS, RETRY, invitations::has_ended};
use crate::{
    blocking::blocking,
    dial,
    door::{self, admitted::Admitted},
    ending,
    inputs::Input,
    invited::{Wrong, unix_seconds},
    link::{Link, queue::NotQueued},
    newcomer::Newcomer,
    proto::{
        CloseCode, DropReason, EndpointId, Error, InEvent, Lane, LinkEnd, LinkId, OutEvent,
        TopicEvent, TopicId,
    },
    questions::Group,
    subnet,
};

/// Most addresses of one dial.
const MAX_DIALED: usize = 32;
const NOT_SERVED: &str = "it has not joined the topic";

impl Actor {
    pub(super) fn open_link(&mut self, admitted: Admitted, dialed: bool) {
        let until = admitted.until();
        let connection = admitted.into_connection();
        let peer = connection.remote_id().into();
        if let Err(refusal) = self.admit(&connection, &peer, dialed) {
            if let Some(what) = refusal.what {
                self.counters.dropped(what, Some(peer));
            }
            connection.close(VarInt::from_u32(refusal.code.into()), b"");
            if dialed {
                self.handle_own(InEvent::DialFailed(peer));
            }
            return;
        }
        let address = subnet::remote(&connection);
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.counters.link_opened(id, connection.clone());
        let (mut link, task) = Link::new(
            id,
            connection,
            dialed,
            self.inputs.clone(),
            self.services.clone(),
            self.cut_links.clone(),
        );
        link.until = until;
        self.links.insert(id, link);
        if let Some(ends) = until {
            self.invited_until(ends);
        }
        self.tasks.spawn(task.in_current_span());
        debug!(link = id.0, peer = %peer.fmt_short(), dialed, "link opened");
        for topic in self.topics.values_mut() {
            topic.bootstrap_linked(&peer, Instant::now());
            topic.published.contact.linked(&peer);
        }
        self.handle_own(InEvent::LinkOpened { link: id, peer, address, dialed });
    }

    pub(super) fn link_closed(&mut self, id: LinkId, end: LinkEnd) {
        if let Some(link) = self.links.remove(&id) {
            self.counters.link_closed(id);
            // As a peer that does not answer, one whose invitation ended is probed, and then lost.
            let ended = link.until.is_some_and(|ends| has_ended(ends, unix_seconds()));
            let is_cut = self.barred.contains(&link.peer) || ended;
            let end = if is_cut { LinkEnd::TimedOut } else { end };
            debug!(link = id.0, peer = %link.peer.fmt_short(), reason = ?end, "link closed");
            let reason =
                if ended { format!("it showed {}", Wrong::Over.text()) } else { ending::text(end) };
            self.unanswered(&link.peer, &reason);
            match end {
                LinkEnd::Local(CloseCode::Protocol) => self.ban(&link),
                LinkEnd::Remote(CloseCode::NotAdmitted) => {
                    self.door.was_refused(link.peer, link.dialed);
                }
                _ => {}
            }
            self.report_closed(id, link.peer, end);
        }
    }

    /// Cuts the links to barred peers.
    pub(super) fn sever(&mut self) {
        for link in self.links.values().filter(|link| self.barred.contains(&link.peer)) {
            link.handle.connection.close(VarInt::from_u32(CloseCode::Shutdown.into()), b"");
        }
    }

    /// Handles an event that no application asked for. The state refuses none of these, so an error
    /// is only logged.
    pub(super) fn handle_own(&mut self, event: InEvent) {
        if let Err(error) = self.handle(event) {
            debug!(reason = %error, "the state refused an event");
        }
    }

    pub(super) fn handle(&mut self, event: InEvent) -> Result<(), Error> {
        let now = Instant::now();
        let result = self.state.handle(event, now);
        loop {
            while let Some(out) = self.state.poll() {
                self.perform(out);
            }
            let Some(event) = self.echo.pop_front() else { break };
            if let Err(error) = self.state.handle(event, now) {
                debug!(reason = %error, "the state refused an answer");
            }
        }
        if self.state.is_exhausted() {
            let error = || Error::SequencesExhausted.into();
            self.topics.values_mut().for_each(|topic| topic.refuse_announcements(error));
        }
        self.settle_connecting(now);
        self.counters.protocol(self.state.counts());
        self.end_links();
        result
    }

    fn perform(&mut self, out: OutEvent) {
        match out {
            OutEvent::Dial(peer, addresses) => self.dial(peer, addresses),
            OutEvent::Send(id, lane, frame) => self.send(id, lane, frame),
            OutEvent::Keepalive(id, frame) => {
                self.send(id, Lane::Control, frame);
                if let Some(link) = self.links.get(&id) {
                    link.keepalive();
                }
            }
            OutEvent::Close(id, code) => {
                let refused = self.refused.take();
                if let Some(link) = self.links.get_mut(&id) {
                    if let Some((what, _)) = refused.filter(|(_, by)| *by == Some(link.peer)) {
                        link.handle.blame(what.label());
                    }
                    if code == CloseCode::Denied {
                        // A denied peer is cut off at once: nothing more is sent to it, or read.
                        link.handle.connection.close(VarInt::from_u32(code.into()), b"");
                    }
                    link.close(code);
                }
            }
            OutEvent::ReserveSequences(end) => self.reserve(end),
            OutEvent::Dropped { what, peer } => {
                self.refused = Some((what, peer));
                self.counters.dropped(what, peer);
                if let Some(peer) = peer.filter(|peer| !self.lists.admits(peer)) {
                    self.door.explain_kept_out(peer);
                }
            }
            OutEvent::Topic(topic, event) => self.topic_event(topic, event),
        }
    }

    fn send(&mut self, id: LinkId, lane: Lane, frame: Bytes) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.send(lane, frame) {
            Ok(()) => self.counters.frame_sent(),
            // The link is closing. Its task will report that, and the peer did nothing wrong.
            Err(NotQueued::Closed) => {}
            Err(NotQueued::Full) if lane == Lane::Broadcast => {
                self.counters.dropped(DropReason::BroadcastsToSlowPeers, Some(link.peer));
            }
            Err(NotQueued::Full) => {
                debug!(link = id.0, peer = %link.peer.fmt_short(), ?lane, "queue full");
                link.close(CloseCode::Overflow);
                self.counters.dropped(DropReason::LinksWithAFullQueue, Some(link.peer));
            }
        }
    }

    fn dial(&mut self, peer: EndpointId, mut addresses: Vec<TransportAddr>) {
        self.leave_implausible(&peer, &mut addresses);
        if let Some(at) = self.dialing.get(&peer) {
            at.send_if_modified(|at| {
                let before = at.len();
                at.extend(addresses.into_iter().take(MAX_DIALED.saturating_sub(before)));
                at.len() > before
            });
            return;
        }
        let Ok(id) = iroh::EndpointId::try_from(peer) else {
            self.unanswered(&peer, "its id is no public key");
            self.echo.push_back(InEvent::DialFailed(peer));
            return;
        };
        let barred = self.barred.contains(&peer);
        if let Some(connecting) = self.connecting.get_mut(&peer).filter(|_| barred) {
            connecting.reason = Some("a test bars the way".to_owned());
        }
        if barred {
            self.unanswered(&peer, "a test bars the way");
        }
        if barred || self.is_ending() || self.dialing.len() >= MAX_DIALS {
            self.echo.push_back(InEvent::DialFailed(peer));
            return;
        }
        self.network.add_relay(&mut addresses);
        if !addresses.is_empty() {
            self.lookup.begin_dial(peer);
        }
        self.counters.dial_begun();
        let hosts: BTreeSet<_> = self
            .topics
            .values()
            .filter_map(|topic| topic.hosts.get(&peer))
            .flatten()
            .cloned()
            .collect();
        let limit = self.config.connect_timeout;
        let (sender, at) = watch::channel(addresses.into_iter().collect());
        self.dialing.insert(peer, sender);
        let dial = dial::dial(
            self.endpoint.clone(),
            (id, at),
            hosts,
            limit / 2,
            self.transport.clone(),
            self.redial.clone(),
            self.network.problems().clone(),
        );
        let inputs = self.inputs.clone();
        let stop = self.stop_dials.clone();
        let door = self.door.clone();
        let dialing = async move {
            let dialed = async {
                let dialed = dial::patiently(limit, dial).await;
                door.enter(dialed.unwrap_or_else(|| Err("timed out".to_owned()))?).await
            };
            let dialed = stop.run_until_cancelled(dialed).await;
            let connection = dialed
                .unwrap_or_else(|| Err("shutting down".to_owned()))
                .inspect_err(|reason| debug!(peer = %peer.fmt_short(), reason, "dial failed"));
            // The send fails only if the actor has ended. Then dropping the connection closes it.
            let _ = inputs.send(Input::Dialed(peer, connection)).await;
        };
        self.tasks.spawn(dialing.in_current_span());
    }

    /// Removes addresses that are not worth a packet. A user may name any address. Those that
    /// others announce must be plausible.
    fn leave_implausible(&self, peer: &EndpointId, addresses: &mut Vec<TransportAddr>) {
        if !self.topics.values().any(|topic| topic.is_bootstrap(peer)) {
            let on_loopback = self.network.is_on_loopback();
            addresses.retain(|address| {
                dial::is_plausible(address, on_loopback)
                    || self.topics.values().any(|topic| topic.is_learned(address))
            });
        }
    }

    fn reserve(&mut self, end: u64) {
        let Some(store) = self.store.clone() else {
            self.echo.push_back(InEvent::SequencesReserved(end));
            return;
        };
        let inputs = self.inputs.clone();
        let reserving = async move {
            loop {
                let store = store.clone();
                match blocking(move || Ok(store.reserve(end))).await {
                    Ok(true) => break,
                    // The store has reported that. Numbers that neither disk nor clock will show to
                    // be used are not used.
                    Ok(false) => {}
                    Err(reason) => error!(%reason, "sequence numbers can't be reserved"),
                }
                if timeout(RETRY, inputs.closed()).await.is_ok() {
                    return;
                }
            }
            let _ = inputs.send(Input::Reserved(end)).await;
        };
        self.tasks.spawn(reserving.in_current_span());
    }

    fn topic_event(&mut self, topic: TopicId, event: TopicEvent) {
        self.keep(topic, &event);
        let Some(joined) = self.topics.get_mut(&topic) else { return };
        joined.published.apply(&event);
        self.counters.event(topic, &event);
        match event {
            TopicEvent::Announced(record) => joined.announced(&record),
            TopicEvent::NotServed(peer) => self.unanswered(&peer, NOT_SERVED),
            TopicEvent::Undecided(record) => self.ask(Newcomer::of(record), Group::Hearsay),
            TopicEvent::Revoked => self.on_revoked(topic),
            TopicEvent::Synced(_) => self.forget_silent(topic),
            TopicEvent::PeerJoined(_) => self.network.problems().clear(door::ACCESS),
            TopicEvent::Closed => {
                self.lookup.remove(&topic);
                if let Some(joined) = self.topics.remove(&topic) {
                    joined.close();
                }
            }
            _ => {}
        }
    }
}
