//! Peers that broke the protocol are refused for a time that doubles with each further offense.
//!
//! Only what came over an authenticated link counts, so no attacker can have another node banned.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{TransportAddr, endpoint::Connection};
use tokio::time::Instant;

use crate::{
    proto::EndpointId,
    subnet::{self, Subnet},
};

/// The length of the first ban. Each further one is twice as long.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(10);
/// The longest ban for a failed admission: an honest node with a wrong secret gets in soon after it
/// is corrected. A guesser gains little by that, as each try costs it a handshake.
const LONGEST_UNADMITTED: Duration = Duration::from_secs(30);
/// One offense is forgotten for each such interval without a new one after a ban.
const DECAY: Duration = Duration::from_mins(10);
/// A network is banned as a whole while this many of its keys are banned.
const KEYS_OF_NETWORK: usize = 8;
/// Most keys, networks and sockets that are remembered. Those whose bans end first make room.
const MAX_REMEMBERED: usize = 4096;

/// The bans of an endpoint. Clones share one state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bans(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    keys: BTreeMap<EndpointId, Ban>,
    networks: BTreeMap<Subnet, Ban>,
    /// The sockets of banned keys. Their packets are refused before a handshake costs anything.
    sockets: BTreeMap<SocketAddr, Ban>,
}

#[derive(Debug, Clone, Copy)]
struct Ban {
    offenses: u32,
    until: Instant,
    network: Option<Subnet>,
}

/// The origin of a peer's packets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin {
    pub(crate) network: Option<Subnet>,
    pub(crate) socket: Option<SocketAddr>,
}

impl Origin {
    /// The origin by the path that a connection uses now. It is unknown behind a relay.
    pub(crate) fn of(connection: &Connection) -> Self {
        match subnet::remote(connection) {
            Some(TransportAddr::Ip(socket)) => {
                Self { network: Subnet::of(socket.ip()), socket: Some(socket) }
            }
            _ => Self::default(),
        }
    }
}

impl Bans {
    /// Records that a peer broke the protocol, and returns how long it is refused.
    pub(crate) fn offense(&self, peer: EndpointId, origin: Origin, now: Instant) -> Duration {
        let mut table = self.lock();
        let ban = raise(&mut table.keys, peer, origin.network, LONGEST, now);
        table.ban_socket(origin, ban);
        if let Some(network) = origin.network {
            let banned = |ban: &&Ban| ban.network == Some(network) && ban.until > now;
            if table.keys.values().filter(banned).count() >= KEYS_OF_NETWORK {
                raise(&mut table.networks, network, None, LONGEST, now);
            }
        }
        ban.until - now
    }

    /// Records that a peer did not prove the secret of a private swarm. Its network is not banned:
    /// a whole fleet may have an old secret, and newcomers with the right one come from there too.
    pub(crate) fn failed_admission(
        &self,
        peer: EndpointId,
        origin: Origin,
        now: Instant,
    ) -> Duration {
        let mut table = self.lock();
        let ban = raise(&mut table.keys, peer, None, LONGEST_UNADMITTED, now);
        table.ban_socket(origin, ban);
        ban.until - now
    }

    pub(crate) fn is_banned(&self, peer: &EndpointId, now: Instant) -> bool {
        self.lock().keys.get(peer).is_some_and(|ban| ban.until > now)
    }

    pub(crate) fn is_network_banned(&self, network: Subnet, now: Instant) -> bool {
        self.lock().networks.get(&network).is_some_and(|ban| ban.until > now)
    }

    /// Returns true if a banned key came from this socket.
    pub(crate) fn is_socket_banned(&self, socket: SocketAddr, now: Instant) -> bool {
        self.lock().sockets.get(&socket).is_some_and(|ban| ban.until > now)
    }

    /// Returns the number of keys that are banned now.
    pub(crate) fn banned(&self, now: Instant) -> usize {
        self.lock().keys.values().filter(|ban| ban.until > now).count()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No panic can leave these maps half-changed, so a poisoned lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn ban_socket(&mut self, origin: Origin, ban: Ban) {
        if let Some(socket) = origin.socket {
            make_room(&mut self.sockets);
            self.sockets.insert(socket, ban);
        }
    }
}

/// Counts an offense and bans for it.
fn raise<K: Ord + Copy>(
    bans: &mut BTreeMap<K, Ban>,
    key: K,
    network: Option<Subnet>,
    longest: Duration,
    now: Instant,
) -> Ban {
    let before = bans.get(&key).map_or(0, |ban| {
        let quiet = now.saturating_duration_since(ban.until).as_secs() / DECAY.as_secs();
        ban.offenses.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX))
    });
    let length = SHORTEST.saturating_mul(2_u32.saturating_pow(before)).min(longest);
    let ban = Ban { offenses: before + 1, until: now + length, network };
    if !bans.contains_key(&key) {
        make_room(bans);
    }
    bans.insert(key, ban);
    ban
}

fn make_room<K: Ord + Copy>(bans: &mut BTreeMap<K, Ban>) {
    if bans.len() >= MAX_REMEMBERED {
        let first = bans.iter().min_by_key(|(_, ban)| ban.until).map(|(key, _)| *key);
        first.and_then(|key| bans.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> EndpointId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EndpointId::from_bytes(bytes)
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_ban_doubles_with_each_offense_up_to_a_limit_and_is_forgotten_in_time() {
        let (bans, mut now) = (Bans::default(), Instant::now());
        let mut lengths = Vec::new();
        for _ in 0..12 {
            let length = bans.offense(id(1), Origin::default(), now);
            assert!(bans.is_banned(&id(1), now + length - S / 2));
            now += length;
            assert!(!bans.is_banned(&id(1), now));
            lengths.push(length.as_secs());
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert!(!bans.is_banned(&id(2), now));
        // After five quiet intervals, five offenses are forgotten.
        assert_eq!(bans.offense(id(1), Origin::default(), now + DECAY * 5).as_secs(), 128);
        assert_eq!(bans.offense(id(1), Origin::default(), now + DECAY * 99), S);
    }

    #[test]
    fn a_network_is_banned_by_several_keys_and_no_other_network_is() {
        let (bans, now) = (Bans::default(), Instant::now());
        let network = |text: &str| Subnet::of(text.parse().unwrap());
        let origin = Origin { network: network("10.0.0.1"), socket: None };
        for number in 0..KEYS_OF_NETWORK {
            assert!(!bans.is_network_banned(origin.network.unwrap(), now), "{number}");
            // One key that offends repeatedly bans only itself.
            for _ in 0..3 {
                bans.offense(id(number), origin, now);
            }
        }
        assert!(bans.is_network_banned(origin.network.unwrap(), now));
        assert!(!bans.is_network_banned(network("10.0.0.2").unwrap(), now));
        assert_eq!(bans.banned(now), KEYS_OF_NETWORK);
    }

    #[test]
    fn a_failed_admission_bans_for_half_a_minute_at_most_and_never_a_network() {
        let (bans, mut now) = (Bans::default(), Instant::now());
        let origin = Origin { network: Subnet::of("10.0.0.1".parse().unwrap()), socket: None };
        for length in [1, 2, 4, 8, 16, 30, 30] {
            for number in 0..KEYS_OF_NETWORK {
                bans.failed_admission(id(number), origin, now);
            }
            let end = now + S * length;
            assert!(bans.is_banned(&id(1), end - S / 2) && !bans.is_banned(&id(1), end));
            assert!(!bans.is_network_banned(origin.network.unwrap(), now));
            now = end;
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (bans, now) = (Bans::default(), Instant::now());
        for number in 0..MAX_REMEMBERED + 9 {
            let port = u16::try_from(number).unwrap();
            let origin = Origin { network: None, socket: Some(([10, 0, 0, 1], port).into()) };
            bans.offense(id(number), origin, now);
        }
        assert_eq!(bans.lock().keys.len(), MAX_REMEMBERED);
        assert_eq!(bans.lock().sockets.len(), MAX_REMEMBERED);
    }
}
