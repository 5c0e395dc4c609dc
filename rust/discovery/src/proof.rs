//! What two ends of a connection prove to each other: that they hold a key of the swarm.
//!
//! A proof is a keyed BLAKE3 hash over what belongs to this connection and this end alone. So it
//! can't be used again on another connection, by the other end, or under another id.

use iroh::endpoint::Connection;

use crate::{
    proto::EndpointId,
    swarm_key::{Keyring, SwarmKey},
};

const LABEL: &[u8] = b"iroh-gossip-discovery/admission/1";
/// The label of the exporter of the TLS session (RFC 8446 §7.5).
const EXPORTER: &[u8] = b"EXPORTER-iroh-gossip-discovery/admission/1";
/// Bytes of a proof.
pub(crate) const PROOF: usize = 32;

/// The end of a connection that proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Dialer = 1,
    Acceptor = 2,
}

/// What all proofs on one connection cover.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    exported: [u8; 32],
    dialer: EndpointId,
    acceptor: EndpointId,
}

impl Session {
    /// Returns the session of a connection that `me` dialed or accepted. `None` if it is no longer
    /// connected.
    pub(crate) fn of(connection: &Connection, me: EndpointId, role: Role) -> Option<Self> {
        let mut exported = [0; 32];
        connection.export_keying_material(&mut exported, EXPORTER, b"").ok()?;
        let peer = connection.remote_id().into();
        let (dialer, acceptor) = match role {
            Role::Dialer => (me, peer),
            Role::Acceptor => (peer, me),
        };
        Some(Self { exported, dialer, acceptor })
    }

    /// Returns the proof that the end in a role holds a key. It is compared in constant time.
    pub(crate) fn proof(&self, key: &SwarmKey, role: Role) -> blake3::Hash {
        key.hasher()
            .update(LABEL)
            .update(&[role as u8])
            .update(&self.exported)
            .update(self.dialer.as_bytes())
            .update(self.acceptor.as_bytes())
            .finalize()
    }

    /// Returns the first of the own keys that one of the proofs shows to be held.
    pub(crate) fn verify<'a>(
        &self,
        keys: &'a Keyring,
        role: Role,
        proofs: &[[u8; PROOF]],
    ) -> Option<&'a SwarmKey> {
        let mut first = None;
        for key in keys.iter() {
            let expected = self.proof(key, role);
            // All are compared, so that the time does not show which one it was.
            let held = proofs.iter().filter(|proof| expected == **proof).count();
            if held > 0 && first.is_none() {
                first = Some(key);
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Keyring {
        Keyring::new((0..count).map(|_| SwarmKey::generate().unwrap()).collect()).unwrap()
    }

    fn session(number: u8) -> Session {
        let id = |byte| EndpointId::from_bytes([byte; 32]);
        Session { exported: [number; 32], dialer: id(1), acceptor: id(2) }
    }

    #[test]
    fn a_proof_holds_for_its_connection_its_role_its_ids_and_its_key_alone() {
        let (ring, others) = (keys(1), keys(4));
        let here = session(1);
        let proof = *here.proof(ring.iter().next().unwrap(), Role::Dialer).as_bytes();
        assert!(here.verify(&ring, Role::Dialer, &[proof]).is_some());
        assert!(here.verify(&ring, Role::Acceptor, &[proof]).is_none());
        assert!(here.verify(&others, Role::Dialer, &[proof]).is_none());
        assert!(session(2).verify(&ring, Role::Dialer, &[proof]).is_none());
        let swapped = Session { dialer: here.acceptor, acceptor: here.dialer, ..here };
        assert!(swapped.verify(&ring, Role::Dialer, &[proof]).is_none());
        let other = Session { acceptor: EndpointId::from_bytes([9; 32]), ..here };
        assert!(other.verify(&ring, Role::Dialer, &[proof]).is_none());
        for bit in 0..8 * PROOF {
            let mut altered = proof;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(here.verify(&ring, Role::Dialer, &[altered]).is_none());
        }
        assert!(here.verify(&ring, Role::Dialer, &[]).is_none());
    }

    #[test]
    fn any_key_that_both_hold_is_enough() {
        let (ring, here) = (keys(4), session(1));
        for key in ring.iter() {
            let proofs = [[0; PROOF], *here.proof(key, Role::Dialer).as_bytes()];
            let found = here.verify(&ring, Role::Dialer, &proofs).unwrap();
            assert!(std::ptr::eq(found, key));
        }
    }
}
