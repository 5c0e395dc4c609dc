//! Multicast DNS: the members of a topic find each other in the local network without a ticket.
//!
//! Each topic is a DNS-SD service of its own. A node asks for it and announces it on every
//! interface that can multicast, including interfaces that appear later. No route is needed for
//! that. On each interface, it announces that interface's own addresses first.
//!
//! A node hears its own questions too, so an interface on which it hears nothing is one where
//! something drops them, as a firewall does.

mod packet;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use data_encoding::BASE32_NOPAD;
use iroh::TransportAddr;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use self::{packet::Packet, socket::Port};
use crate::{
    inputs::Input,
    interfaces::{Interface, Kind},
    place::Place,
    problems::Problems,
    proto::{EndpointId, TopicId},
};

/// Members in sight are reported again this often, because a limit may have dropped the first
/// report.
const REPEAT: Duration = Duration::from_secs(10);
/// Most members in sight that are remembered.
const MAX_SEEN: usize = 1024;
/// A member is out of sight if it was not heard for this time, which announcements carry as their
/// TTL.
const EXPIRY: Duration = Duration::from_mins(2);
const EXPIRY_SECONDS: u32 = 120;
/// The first and the longest interval between two questions. Each is twice as long as the one
/// before.
const ASK_FIRST: Duration = Duration::from_millis(400);
const ASK_LAST: Duration = Duration::from_secs(20);
/// A question is answered after a random time up to this, once for all nodes that asked until then.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// Two answers of a node are at least this time apart (RFC 6762 §6). Otherwise, many nodes that
/// start together would be busy with reading each other's answers.
const ANSWERS_APART: Duration = Duration::from_secs(1);
/// If there are many members, about this many answer a question. The newcomer learns of the others
/// by gossip.
const ANSWERS: usize = 16;
/// Most interfaces that are used.
const MAX_INTERFACES: usize = 32;
/// If nothing was heard on an interface after this many questions in a row, that is a problem.
const UNHEARD: u32 = 3;
/// Most packets that wait to be read.
const PACKETS: usize = 256;

/// The members in sight, each with its addresses and when it was last heard.
#[derive(Debug, Default)]
struct Seen {
    members: Mutex<BTreeMap<EndpointId, (Vec<TransportAddr>, Instant)>>,
    changed: Notify,
}

/// What a topic's service has seen. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sight(Arc<Seen>);

impl Sight {
    /// Waits until a member is in sight, and returns its addresses.
    pub(crate) async fn find(self, id: EndpointId) -> Vec<TransportAddr> {
        loop {
            let changed = self.0.changed.notified();
            if let Some((addresses, _)) = self.lock().get(&id) {
                return addresses.clone();
            }
            changed.await;
        }
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<EndpointId, (Vec<TransportAddr>, Instant)>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a member at these addresses. Returns true if that is new.
    fn note(&self, id: EndpointId, addresses: &[TransportAddr]) -> bool {
        let mut members = self.lock();
        if addresses.is_empty() {
            members.remove(&id);
            return false;
        }
        if members.len() >= MAX_SEEN && !members.contains_key(&id) {
            return true;
        }
        let before = members.insert(id, (addresses.to_vec(), Instant::now()));
        drop(members);
        self.0.changed.notify_waiters();
        before.is_none_or(|(known, _)| known != addresses)
    }

    /// Returns the members in sight, and forgets those that were not heard for `EXPIRY`.
    fn all(&self) -> Vec<(EndpointId, Vec<TransportAddr>)> {
        let mut members = self.lock();
        members.retain(|_, (_, heard)| heard.elapsed() < EXPIRY);
        members.iter().map(|(id, (addresses, _))| (*id, addresses.clone())).collect()
    }
}

/// The mDNS service of one topic. Dropping it ends the service.
#[derive(Debug)]
pub(crate) struct Mdns {
    pub(crate) sight: Sight,
    _task: AbortOnDropHandle<()>,
}

/// Returns the name of a topic's DNS-SD service: `igd-` and 11 characters of base 32 of the topic
/// id's SHA-256. RFC 6335 §5.1 allows 15 characters.
pub(crate) fn service_name(topic: &TopicId) -> String {
    let digest = BASE32_NOPAD.encode(&Sha256::digest(topic.as_bytes())).to_ascii_lowercase();
    format!("igd-{}", &digest[..11])
}

/// Starts the service of a topic.
pub(crate) fn start(
    id: iroh::EndpointId,
    topic: TopicId,
    inputs: mpsc::Sender<Input>,
    place: watch::Receiver<Place>,
    problems: Problems,
    announces: bool,
) -> Mdns {
    let sight = Sight::default();
    let service = Service {
        name: format!("_{}", service_name(&topic)),
        id,
        topic,
        sight: sight.clone(),
        place,
        problems,
        inputs,
        announces,
        ports: Vec::new(),
        unheard: BTreeMap::new(),
        deaf: BTreeSet::new(),
    };
    Mdns { sight, _task: AbortOnDropHandle::new(tokio::spawn(service.run())) }
}

/// When this node announces itself next, because others asked or its network changed.
#[derive(Debug)]
struct Answer {
    due: Option<Instant>,
    /// No question is answered sooner.
    soonest: Instant,
}

impl Answer {
    /// A question came. One answer after `wait` is for all that come until then.
    fn asked(&mut self, now: Instant, wait: Duration) {
        if self.due.is_none() {
            let at = self.soonest.max(now) + wait;
            self.due = Some(at);
            self.soonest = at + ANSWERS_APART;
        }
    }
}

struct Service {
    name: String,
    id: iroh::EndpointId,
    topic: TopicId,
    sight: Sight,
    place: watch::Receiver<Place>,
    problems: Problems,
    inputs: mpsc::Sender<Input>,
    /// False for an observer: it looks for members and is found by nobody.
    announces: bool,
    /// The sockets, each with its interface and the addresses that it announces.
    ports: Vec<(Port, String, Vec<TransportAddr>)>,
    /// The questions since anything was heard on each interface.
    unheard: BTreeMap<String, u32>,
    /// The interfaces that are among the problems.
    deaf: BTreeSet<String>,
}

impl Service {
    async fn run(mut self) {
        let (sender, mut packets) = mpsc::channel(PACKETS);
        self.open(&sender);
        let mut wait = ASK_FIRST;
        let mut ask = Instant::now();
        let mut answer = Answer { due: Some(ask), soonest: ask };
        let mut repeat = tokio::time::interval(REPEAT);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let answer_at = answer.due.unwrap_or(ask);
            let found = tokio::select! {
                Some(packet) = packets.recv() => {
                    let found = self.hear(&packet, &mut answer);
                    found.into_iter().collect()
                }
                () = sleep_until(answer_at), if answer.due.is_some() => {
                    answer.due = None;
                    self.announce();
                    continue;
                }
                () = sleep_until(ask) => {
                    self.ask();
                    ask = Instant::now() + wait + jitter(wait / 4);
                    wait = (wait * 2).min(ASK_LAST);
                    continue;
                }
                Ok(()) = self.place.changed() => {
                    self.open(&sender);
                    (wait, ask) = (ASK_FIRST, Instant::now());
                    answer.due = Some(ask);
                    continue;
                }
                _ = repeat.tick() => self.sight.all(),
            };
            for (peer, addresses) in found {
                let found = Input::Found(self.topic, peer, addresses);
                if self.inputs.send(found).await.is_err() {
                    return;
                }
            }
        }
    }

    fn hear(&self, packet: &[u8], answer: &mut Answer) -> Option<(EndpointId, Vec<TransportAddr>)> {
        match packet::read(packet, &self.name)? {
            Packet::Query => {
                let others = self.sight.lock().len();
                let many = u64::try_from(others / ANSWERS).unwrap_or(0);
                if random(many + 1) == 0 {
                    answer.asked(Instant::now(), jitter(ANSWER_WITHIN));
                }
                None
            }
            Packet::Member(id, _) if id == self.id => None,
            Packet::Member(id, addresses) => {
                let peer = EndpointId::from(id);
                let new = self.sight.note(peer, &addresses);
                new.then(|| {
                    let topic = self.topic.fmt_short();
                    debug!(%topic, peer = %peer.fmt_short(), "seen by mDNS");
                    (peer, addresses)
                })
            }
        }
    }

    fn announce(&self) {
        for (port, _, at) in &self.ports {
            if at.is_empty() || !self.announces {
                continue;
            }
            let packet = packet::member(&self.name, self.id, at, EXPIRY_SECONDS);
            if let Err(error) = port.send(&packet) {
                debug!(reason = %error, "mDNS: an announcement was not sent");
            }
        }
    }

    fn leave(&self) {
        let packet = packet::member(&self.name, self.id, &[], 0);
        for (port, ..) in &self.ports {
            if let Err(error) = port.send(&packet) {
                debug!(reason = %error, "mDNS: a leave was not sent");
            }
        }
    }

    /// Asks on each interface, and notes those on which nothing was heard since the last questions.
    fn ask(&mut self) {
        let heard: BTreeSet<_> =
            self.ports.iter().filter(|(port, ..)| port.has_heard()).map(|(_, on, _)| on).collect();
        for (interface, unheard) in &mut self.unheard {
            *unheard = if heard.contains(interface) { 0 } else { *unheard + 1 };
        }
        let packet = packet::query(&self.name);
        let mut failed = BTreeMap::new();
        for (port, interface, _) in &self.ports {
            if let Err(error) = port.send(&packet) {
                debug!(reason = %error, interface, "mDNS: a question was not sent");
                failed.insert(interface, error.to_string());
            }
        }
        for (interface, unheard) in &self.unheard {
            let source = format!("mdns {interface}");
            if *unheard > UNHEARD {
                let reason = failed.remove(interface).unwrap_or_else(|| {
                    "not even this node's own questions are heard, a firewall may drop UDP port \
                     5353"
                        .into()
                });
                self.problems.raise(source, format!("nobody is found on {interface}: {reason}"));
                self.deaf.insert(interface.clone());
            } else if *unheard == 0 && self.deaf.remove(interface) {
                self.problems.clear(&source);
            }
        }
    }

    /// Ends the problems of interfaces that this service no longer uses.
    fn forget_deaf(&mut self) {
        let used = &self.unheard;
        for interface in self.deaf.extract_if(.., |interface| !used.contains_key(interface)) {
            self.problems.clear(&format!("mdns {interface}"));
        }
    }

    /// Opens a socket for each interface and family, in place of those that were open.
    fn open(&mut self, packets: &mpsc::Sender<Vec<u8>>) {
        self.ports.clear();
        let place = self.place.borrow_and_update().clone();
        let mut reason = "no network interface can multicast".to_owned();
        let all: Vec<_> = place.interfaces.iter().flat_map(|all| all.iter()).collect();
        let outward = |one: &&&Interface| one.multicast && one.kind != Kind::Loopback;
        let announces = |one: &&&Interface| !place.announced_on(one).is_empty();
        let mut used: Vec<_> = all.iter().filter(outward).filter(announces).collect();
        if used.is_empty() {
            used = all.iter().filter(|one| one.kind == Kind::Loopback).collect();
        }
        for interface in used.into_iter().take(MAX_INTERFACES) {
            let at = place.announced_on(interface);
            let v4 = interface.addresses.iter().find(|address| address.ip.is_ipv4());
            let v6 = interface.addresses.iter().find(|address| address.ip.is_ipv6());
            for address in v4.into_iter().chain(v6) {
                match Port::open(interface.index, address.ip, packets.clone()) {
                    Ok(port) => self.ports.push((port, interface.name.clone(), at.clone())),
                    Err(error) => reason = format!("{}: {error}", interface.name),
                }
            }
        }
        let used: BTreeSet<_> = self.ports.iter().map(|(_, on, _)| on.clone()).collect();
        self.unheard = used.into_iter().map(|interface| (interface, 0)).collect();
        self.forget_deaf();
        if self.ports.is_empty() {
            let what = format!("nobody is found in the local network: {reason}");
            self.problems.raise("mdns", what);
        } else {
            self.problems.clear("mdns");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.announces {
            self.leave();
        }
        self.unheard.clear();
        self.forget_deaf();
    }
}

impl Place {
    /// Returns what to announce on an interface: its own addresses first, then those for all
    /// interfaces.
    fn announced_on(&self, interface: &Interface) -> Vec<TransportAddr> {
        let is_local = |ip: IpAddr| ip.is_loopback() && interface.kind != Kind::Loopback;
        let usable = |at: &TransportAddr| match at {
            TransportAddr::Ip(SocketAddr::V6(v6)) if v6.ip().is_unicast_link_local() => false,
            TransportAddr::Ip(socket) => !is_local(socket.ip()),
            _ => true,
        };
        let own = interface.addresses.iter().filter_map(|address| self.reached_at(address.ip));
        let mut all: Vec<TransportAddr> = Vec::new();
        for address in own.map(TransportAddr::Ip).chain(self.announced.iter().cloned()) {
            if usable(&address) && !all.contains(&address) && all.len() < packet::MAX_ADDRESSES {
                all.push(address);
            }
        }
        all
    }
}

/// Returns a random number below `end`; 0 if the system has no randomness, which is no secret to
/// lose here.
fn random(end: u64) -> u64 {
    getrandom::u64().map_or(0, |number| number % end.max(1))
}

fn jitter(most: Duration) -> Duration {
    Duration::from_micros(random(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_a_second_is_for_all_questions() {
        let start = Instant::now();
        let mut answer = Answer { due: None, soonest: start };
        let mut answered = Vec::new();
        for millis in 0..3000 {
            let now = start + Duration::from_millis(millis);
            if answer.due.take_if(|due| *due <= now).is_some() {
                answered.push(millis);
            }
            answer.asked(now, Duration::from_millis(50));
        }
        assert_eq!(answered, [50, 1100, 2150]);
    }

    #[test]
    fn a_service_name_is_within_dns_sd_limits() {
        for name in ["fleet", "x", "ein Thema", "一"] {
            let service = service_name(&TopicId::from_name(name).unwrap());
            assert_eq!(service.len(), 15);
            assert!(service.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{service}");
        }
        assert_ne!(
            service_name(&TopicId::from_name("a").unwrap()),
            service_name(&TopicId::from_name("b").unwrap())
        );
    }
}
