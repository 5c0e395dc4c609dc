//! The endpoint's state: identity, links and topics. It hands each event to the part that handles
//! it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use iroh_base::TransportAddr;
use rand::{SeedableRng, rngs::ChaCha12Rng};
use tokio::time::Instant;

use crate::{
    access::Access,
    context::{Context, Identity},
    counts::Counts,
    digest::Digest,
    drops::DropReason,
    error::Error,
    event::{CloseCode, InEvent, LinkId, OutEvent, TopicEvent, TopicOptions},
    id::{EndpointId, TopicId},
    invitation::Revocation,
    links::LinkEvent,
    record::{NodeRecord, SignedRecord, choose_addresses},
    rule::Rule,
    timers::earlier,
    topic::{Inspect, Topic},
    verified::Verified,
    wire::TopicFrame,
};

/// A timer that is at least this late shows that this node was paused: the process was stopped, or
/// the machine is too busy.
const PAUSE: Duration = Duration::from_millis(100);

/// The protocol of one endpoint in all of its topics.
///
/// ```
/// use ed25519_dalek::SigningKey;
/// use iroh_gossip_discovery_proto::{
///     Config, Identity, InEvent, OutEvent, Profile, State, TopicEvent, TopicId, TopicOptions,
/// };
/// use tokio::time::Instant;
///
/// let now = Instant::now();
/// let key = SigningKey::from_bytes(&[7; 32]);
/// let identity = Identity { key, boot_id: 1, sequence: 1, reserved: 1000 };
/// let mut state = State::new(identity, [0; 32], now);
/// let profile = Profile::new("alice");
/// let options = TopicOptions { profile, config: Config::default() };
/// state.handle(InEvent::Join(TopicId::from_name("fleet")?, Box::new(options)), now)?;
/// state.handle(InEvent::SetAddresses(vec![]), now)?;
/// let announced = |effect| matches!(effect, OutEvent::Topic(_, TopicEvent::Announced(_)));
/// assert!(std::iter::from_fn(|| state.poll()).any(announced));
/// # Ok::<(), iroh_gossip_discovery_proto::Error>(())
/// ```
#[derive(Debug)]
pub struct State {
    context: Context,
    /// Boxed, because a `BTreeMap` makes room for eleven entries at once, and most endpoints have
    /// one topic.
    topics: BTreeMap<TopicId, Box<Topic>>,
    /// The end of the last pause that was noticed.
    paused: Option<Instant>,
    /// When the timer is due, as of the last event.
    due: Option<Instant>,
}

impl State {
    /// Makes the state of an endpoint without links and topics, at time `now`. Everything random
    /// follows from `seed`.
    #[must_use]
    pub fn new(identity: Identity, seed: [u8; 32], now: Instant) -> Self {
        let context = Context::new(identity, seed, now);
        Self { context, topics: BTreeMap::new(), due: None, paused: None }
    }

    /// Shares verified records with the other states of a simulation.
    #[doc(hidden)]
    #[must_use]
    pub fn sharing(mut self, verified: Arc<Verified>) -> Self {
        self.context.share(verified);
        self
    }

    /// Replaces the random numbers to come, in a simulation that continues one state several times.
    #[doc(hidden)]
    pub fn reseed(&mut self, seed: [u8; 32]) {
        self.context.rng = ChaCha12Rng::from_seed(seed);
    }

    /// Returns this node's own record in a topic, as last announced.
    #[doc(hidden)]
    #[must_use]
    pub fn own_record(&self, topic: &TopicId) -> Option<&SignedRecord> {
        self.topics.get(topic)?.own()
    }

    /// Returns the record of a member of a topic, as its owner signed it.
    #[must_use]
    pub fn record(&self, topic: &TopicId, member: &EndpointId) -> Option<&SignedRecord> {
        self.topics.get(topic)?.record(member)
    }

    /// The revocations of invitations to a topic that hold: see [`TopicEvent::Revoked`].
    pub fn revocations(&self, topic: &TopicId) -> impl Iterator<Item = &Revocation> {
        self.topics.get(topic).into_iter().flat_map(|topic| topic.revocations())
    }

    /// What a node says of itself in a topic, also if it is kept out.
    #[must_use]
    pub fn claimed(&self, topic: &TopicId, node: &EndpointId) -> Option<&Arc<NodeRecord>> {
        self.topics.get(topic)?.claimed(node)
    }

    /// Where the user said that a bootstrap peer of a topic is.
    #[must_use]
    pub fn bootstrap_addresses(&self, topic: &TopicId, peer: &EndpointId) -> &[TransportAddr] {
        self.topics.get(topic).map_or(&[], |topic| topic.bootstrap_addresses(peer))
    }

    /// Up to `limit` records of a topic whose owners the application may admit
    /// ([`Access::is_undecided`]), and for which `wanted` is true. They are in the order of their
    /// ids, from the one after `after` on.
    #[must_use]
    pub fn undecided(
        &self,
        topic: &TopicId,
        after: Option<EndpointId>,
        limit: usize,
        wanted: &dyn Fn(&EndpointId) -> bool,
    ) -> Vec<Arc<NodeRecord>> {
        let topic = self.topics.get(topic);
        topic.map(|topic| topic.undecided(after, limit, wanted)).unwrap_or_default()
    }

    /// Returns the highest sequence number that is known of a node in a topic, whether the node is
    /// a member or gone.
    #[must_use]
    pub fn sequence(&self, topic: &TopicId, node: &EndpointId) -> Option<u64> {
        self.topics.get(topic)?.sequence(node)
    }

    /// Fills the book of a topic with these records, the own one among them, so that a simulation
    /// of a large swarm need not form it.
    #[doc(hidden)]
    pub fn preload(&mut self, topic: &TopicId, records: &[SignedRecord], now: Instant) {
        self.context.now = now.max(self.context.now);
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.preload(records, &mut self.context);
        }
        self.due = self.next_due();
    }

    /// Returns what a simulation checks in a topic.
    #[doc(hidden)]
    #[must_use]
    pub fn inspect(&self, topic: &TopicId) -> Option<Inspect> {
        Some(self.topics.get(topic)?.inspect(self.context.links.sizes()))
    }

    /// Returns the digest of [`Inspect::live`], which is cheap enough for every step.
    #[doc(hidden)]
    #[must_use]
    pub fn book_digest(&self, topic: &TopicId) -> Option<Digest> {
        self.topics.get(topic).map(|topic| topic.book_digest())
    }

    /// Switches one rule off, in a state without topics.
    #[doc(hidden)]
    #[must_use]
    pub fn without(mut self, rule: Rule) -> Self {
        self.context.off = Some(rule);
        self.context.links.tie_break = rule != Rule::LinkTieBreak;
        self
    }

    /// Returns true if no sequence number is left for this node's key, because a record with one of
    /// the last was signed with it. This node still answers and serves others, but can announce
    /// nothing.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.context.is_exhausted()
    }

    /// Returns this endpoint's id.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.context.me
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let sum = |of: fn(&Topic) -> usize| self.topics.values().map(|topic| of(topic)).sum();
        Counts {
            tombstones: sum(Topic::tombstones),
            neighbors: sum(Topic::neighbor_count),
            observers: sum(Topic::observer_count),
            ..self.context.counts
        }
    }

    /// Handles one event. Time never goes back from call to call.
    ///
    /// # Errors
    /// Only an event by which the application requests something can fail, such as a join or a
    /// broadcast. Then it has changed nothing.
    pub fn handle(&mut self, event: InEvent, now: Instant) -> Result<(), Error> {
        let outcome = self.take_in(event, now);
        self.context.end_of_event();
        self.due = self.next_due();
        outcome
    }

    fn next_due(&self) -> Option<Instant> {
        let topics = self.topics.values().map(|topic| topic.next_timer());
        let network = self.context.network.next_timer();
        topics.fold(earlier(self.context.links.next_timer(), network), earlier)
    }

    // long: an arm for each kind of event.
    fn take_in(&mut self, event: InEvent, now: Instant) -> Result<(), Error> {
        let due = self.due.filter(|due| *due < now);
        self.context.now = now.max(self.context.now);
        let cx = &mut self.context;
        if let Some(due) = due {
            cx.served(due);
        }
        // Events that waited during a pause are handled before the timer. Its lateness counts from
        // the end of the last pause, so that one pause is not noticed once for each of them.
        let due = due.map(|due| self.paused.map_or(due, |end| end.max(due)));
        if let Some(late) = due.map(|due| now.saturating_duration_since(due))
            && late >= PAUSE
            && cx.is_on(Rule::ReprobeAfterPause)
        {
            self.paused = Some(now);
            self.topics.values_mut().for_each(|topic| topic.on_pause(late, cx));
        }
        match event {
            InEvent::Join(topic, options) => self.join(topic, *options)?,
            InEvent::Leave(topic) => topic_mut(&mut self.topics, topic)?.leave(cx),
            InEvent::SetProfile(topic, profile) => {
                topic_mut(&mut self.topics, topic)?.set_profile(profile, cx)?;
            }
            InEvent::AddBootstrap(topic, peers) => {
                topic_mut(&mut self.topics, topic)?.add_bootstrap(peers, cx);
            }
            InEvent::RemoveBootstrap(topic, peers) => {
                topic_mut(&mut self.topics, topic)?.remove_bootstrap(&peers, cx);
            }
            InEvent::Found(topic, peer, addresses) => {
                topic_mut(&mut self.topics, topic)?.found(peer, addresses, cx);
            }
            InEvent::Learned(topic, peer, address) => {
                topic_mut(&mut self.topics, topic)?.learned(peer, address, cx);
            }
            InEvent::Remember(topic, records) => {
                topic_mut(&mut self.topics, topic)?.remember(records, cx);
            }
            InEvent::SetAccess(access) => self.set_access(access),
            InEvent::SetIssuers(issuers) => cx.issuers = issuers,
            InEvent::Clock(seconds) => {
                cx.set_clock(seconds);
                self.topics.values_mut().for_each(|topic| topic.on_clock(cx));
            }
            InEvent::Revoke(topic, revocations) => {
                topic_mut(&mut self.topics, topic)?.revoke(revocations, cx)?;
            }
            InEvent::SetAddresses(addresses) => self.set_addresses(&addresses),
            InEvent::NetworkChanged { away } => self.network_changed(away),
            InEvent::LinkOpened { link, peer, address, dialed } => {
                cx.links.opened(link, (peer, address), dialed, now);
            }
            InEvent::LinkClosed(link, end) => cx.links.closed(link, end),
            InEvent::DialFailed(peer) => cx.links.dial_failed(peer),
            InEvent::Acknowledged(link) => cx.links.acknowledged(link, now),
            InEvent::Received(link, lane, frame) => cx.links.received(link, lane, &frame, now),
            InEvent::Broadcast(topic, channel, data) => {
                topic_mut(&mut self.topics, topic)?.broadcast(channel.as_ref(), &data, cx)?;
            }
            InEvent::Connect(topic, peer) => {
                topic_mut(&mut self.topics, topic)?.connect(peer, cx);
            }
            InEvent::Held(link, held) => {
                let idle =
                    self.topics.values().map(|topic| topic.link_idle()).max().unwrap_or_default();
                cx.links.hold(link, held, idle, now);
            }
            InEvent::SequencesReserved(below) => {
                cx.identity.reserved = cx.identity.reserved.max(below);
                for topic in self.topics.values_mut() {
                    topic.announce_if_pending(cx);
                }
            }
            InEvent::Timer => self.on_timer(),
        }
        self.settle();
        Ok(())
    }

    /// Returns the next effect that the driver has to carry out, in order.
    pub fn poll(&mut self) -> Option<OutEvent> {
        self.context.links.out.pop_front()
    }

    /// Returns when [`InEvent::Timer`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the link in use with a peer.
    #[must_use]
    pub fn link(&self, peer: &EndpointId) -> Option<LinkId> {
        self.context.links.current(peer)
    }

    /// Returns true while a link to a peer is being opened. Either there will be one, or
    /// [`InEvent::DialFailed`] or [`InEvent::LinkClosed`] will say that there is none.
    #[must_use]
    pub fn is_connecting(&self, peer: &EndpointId) -> bool {
        self.context.links.is_connecting(peer)
    }

    fn join(&mut self, id: TopicId, options: TopicOptions) -> Result<(), Error> {
        if self.topics.contains_key(&id) {
            return Err(Error::AlreadyJoined(id));
        }
        if self.context.is_exhausted() {
            return Err(Error::SequencesExhausted);
        }
        debug_assert!(self.context.links.is_quiet(), "each event is settled before the next one");
        let topic = Topic::join(id, options, &mut self.context)?;
        self.topics.insert(id, Box::new(topic));
        Ok(())
    }

    fn set_access(&mut self, access: Arc<Access>) {
        self.context.links.set_access(access);
        // The topics learn of the closed links first, while the peers are still members.
        self.settle();
        self.topics.values_mut().for_each(|topic| topic.on_access(&mut self.context));
    }

    fn set_addresses(&mut self, addresses: &[TransportAddr]) {
        let (chosen, left_out) = choose_addresses(addresses);
        if left_out > 0 {
            self.context.links.dropped(DropReason::AddressesOverTheLimit, None);
        }
        debug_assert!(chosen.len() <= addresses.len(), "addresses are chosen, not made up");
        if chosen != self.context.addresses {
            self.context.addresses = chosen;
            for topic in self.topics.values_mut() {
                topic.announce(&mut self.context);
            }
        }
    }

    /// The addresses of this machine, or its default routes, changed.
    fn network_changed(&mut self, away: bool) {
        let cx = &mut self.context;
        tracing::debug!(away, "this node's network changed");
        let probe_time = self.topics.values().map(|topic| topic.probe_time()).min();
        cx.network.changed(away, probe_time.unwrap_or_default(), cx.now);
        for peer in cx.links.peers() {
            cx.links.ping(&peer, cx.now);
        }
        self.topics.values_mut().for_each(|topic| topic.on_network_change(away, cx));
    }

    /// Dials another link to each peer that did not answer since the network changed, and gives up
    /// the silent one after a while.
    fn check_links(&mut self) {
        let cx = &mut self.context;
        let Some(due) = cx.network.due(cx.now) else { return };
        let is_silent = |peer: &EndpointId| cx.links.heard(peer).is_none_or(|at| at < due.since);
        let silent: Vec<_> = cx.links.peers().into_iter().filter(is_silent).collect();
        if silent.is_empty() {
            cx.network.settled();
        }
        for peer in silent {
            cx.links.ping(&peer, cx.now);
            self.topics.values_mut().for_each(|topic| topic.open_another(peer, cx));
            if due.gives_up && cx.links.give_up(&peer, due.gives_up_held) {
                self.topics.values_mut().for_each(|topic| topic.link_given_up(peer, cx));
            }
        }
    }

    fn on_timer(&mut self) {
        self.check_links();
        for topic in self.topics.values_mut() {
            topic.on_timer(&mut self.context);
        }
        let idle = self.topics.values().map(|topic| topic.link_idle()).max().unwrap_or_default();
        let topics = &self.topics;
        let need = |peer: &EndpointId| {
            topics.values().map(|topic| topic.needs(peer)).max().unwrap_or_default()
        };
        self.context.links.on_timer(self.context.now, idle, need);
    }

    /// Hands the events of links to the topics, until none is left.
    fn settle(&mut self) {
        loop {
            while let Some(event) = self.context.links.next_event() {
                self.on_link_event(event);
            }
            self.finish_leaves();
            if self.context.links.is_quiet() {
                return;
            }
        }
    }

    fn on_link_event(&mut self, event: LinkEvent) {
        let cx = &mut self.context;
        match event {
            LinkEvent::Up(peer) => {
                self.topics.values_mut().for_each(|topic| topic.link_up(peer, cx));
            }
            LinkEvent::Down(peer, end) => {
                self.topics.values_mut().for_each(|topic| topic.link_down(peer, end, cx));
            }
            LinkEvent::Heard(peer) => {
                self.topics.values_mut().for_each(|topic| topic.heard(peer, cx));
            }
            LinkEvent::Gone(peer, link) => {
                self.topics.values_mut().for_each(|topic| topic.link_gone(peer, link, cx));
            }
            LinkEvent::DialFailed(peer) => {
                self.topics.values_mut().for_each(|topic| topic.dial_failed(peer, cx));
            }
            LinkEvent::Opened(peer, link, topic) => match self.topics.get_mut(&topic) {
                Some(topic) => topic.opened(peer, cx),
                None => cx.links.refuse_topic(link, topic),
            },
            LinkEvent::Frame(peer, link, topic, frame) => {
                match (self.topics.get_mut(&topic), &frame) {
                    (Some(topic), _) => topic.receive(peer, link, frame, cx),
                    // A refusal or a leave is not answered by a refusal: two ends would never stop.
                    (_, TopicFrame::Closed | TopicFrame::Leave(_) | TopicFrame::LeaveAck(_)) => {}
                    (None, _) => cx.links.refuse_topic(link, topic),
                }
            }
        }
    }

    /// Removes the topics whose leave is done, and closes the links that nothing needs any more.
    fn finish_leaves(&mut self) {
        while let Some((id, _)) = self.topics.iter().find(|(_, topic)| topic.is_done()) {
            let id = *id;
            let topic = self.topics.remove(&id).expect("found above");
            for peer in topic.into_peers() {
                if !self.topics.values().any(|topic| topic.speaks_with(&peer)) {
                    self.context.links.close_peer(&peer, CloseCode::Leave);
                }
            }
            self.context.emit(id, TopicEvent::Closed);
        }
    }
}

fn topic_mut(topics: &mut BTreeMap<TopicId, Box<Topic>>, id: TopicId) -> Result<&mut Topic, Error> {
    topics.get_mut(&id).map(Box::as_mut).ok_or(Error::NotJoined(id))
}
