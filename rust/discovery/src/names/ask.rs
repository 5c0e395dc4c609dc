//! Asks an address for the id of the endpoint there, which proves it in any handshake.
//!
//! iroh itself dials by id only. So this is another QUIC client. It accepts any id, learns it from
//! the handshake, and closes the connection at once. The result is only a hint about an address:
//! the link that follows is opened to that id.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use noq::{
    ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
    rustls::{
        self, CertificateError, DigitallySignedStruct, SignatureScheme,
        client::{
            AlwaysResolvesClientRawPublicKeys, Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{
            CryptoProvider,
            ring::{default_provider, sign::any_eddsa_type},
            verify_tls13_signature_with_raw_key,
        },
        pki_types::{
            CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
            alg_id,
        },
        sign::{CertifiedKey, public_key_to_spki},
    },
};
use tokio::time::timeout;

use crate::{
    ALPN, dial,
    proto::{CloseCode, EndpointId},
};

/// An endpoint at the address answers within this time, even if packets are lost.
const LIMIT: Duration = Duration::from_secs(3);
/// The values that iroh sets. An endpoint logs a warning about a client with other ones.
const MULTIPATH_PATHS: u32 = 8;
const NAT_TRAVERSAL_ADDRESSES: u8 = 32;
/// The same as for links, so that a first packet that is lost is sent again after 0.3 s.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// PKCS #8 (RFC 5958) of an Ed25519 key, up to the key itself (RFC 8410 §7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Asks addresses for the ids of their endpoints, from a socket and with a key of its own.
#[derive(Debug)]
pub(crate) struct Asker {
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Asker {
    pub(crate) fn new() -> Result<Self, String> {
        let endpoint = Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))
            .map_err(|error| format!("no socket: {error}"))?;
        let config = config().map_err(|error| error.to_string())?;
        Ok(Self { endpoint, config })
    }

    /// Returns the id of the endpoint at an address. The error says why there is none.
    pub(crate) async fn ask(&self, address: SocketAddr) -> Result<EndpointId, String> {
        let connecting = self
            .endpoint
            // (The name is not sent.)
            .connect_with(self.config.clone(), address, "bootstrap.invalid")
            .map_err(|error| error.to_string())?;
        let connection = match timeout(LIMIT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(ConnectionError::TimedOut)) | Err(_) => return Err("no answer".into()),
            Ok(Err(error)) => {
                let reason = error.to_string();
                let elsewhere = dial::is_not_served(&reason);
                return Err(if elsewhere { "it serves no discovery".into() } else { reason });
            }
        };
        let id = id_of(&connection);
        tokio::spawn(go(connection));
        id.ok_or_else(|| "it has no id".into())
    }
}

/// Closes a connection after the other end has confirmed the handshake. Otherwise that end would
/// warn of a lost connection.
async fn go(connection: Connection) {
    let _ = timeout(LIMIT, connection.handshake_confirmed()).await;
    connection.close(VarInt::from_u32(CloseCode::Idle.into()), b"");
}

fn id_of(connection: &Connection) -> Option<EndpointId> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let key = identity.first()?.last_chunk::<32>()?;
    Some(EndpointId::from_bytes(*key))
}

fn config() -> Result<ClientConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(default_provider());
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from([&PKCS8[..], &seed].concat()))?;
    let public = key.public_key().ok_or("a key without its public part")?;
    let own = CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key);
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyId(provider)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(own))));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_sni = false;
    // The handshake of a resumed session proves no key.
    tls.resumption = Resumption::disabled();
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(LIMIT.try_into()?))
        .mtu_discovery_config(None)
        .initial_rtt(INITIAL_ROUND_TRIP)
        .max_concurrent_multipath_paths(MULTIPATH_PATHS)
        .max_remote_nat_traversal_addresses(NAT_TRAVERSAL_ADDRESSES);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Takes any Ed25519 key that the other end proves to hold.
#[derive(Debug)]
struct AnyId(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyId {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_key = key.last_chunk::<32>().is_some_and(|last| {
            public_key_to_spki(&alg_id::ED25519, last).as_ref() == key.as_ref()
        });
        if is_key && others.is_empty() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use iroh::SecretKey;

    use super::*;
    use crate::{config::Config, endpoint::bind};

    #[tokio::test]
    async fn an_endpoint_proves_its_id_to_whoever_asks() {
        let endpoint = bind(&Config::local(), SecretKey::generate()).await.unwrap();
        endpoint.set_alpns(vec![ALPN.to_vec()]);
        let serving = {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                while let Some(incoming) = endpoint.accept().await {
                    tokio::spawn(async move { incoming.await.unwrap().closed().await });
                }
            })
        };
        let at = endpoint.bound_sockets()[0];
        let asker = Asker::new().unwrap();
        for _ in 0..2 {
            assert_eq!(asker.ask(at).await, Ok(endpoint.id().into()));
        }
        endpoint.set_alpns(vec![b"something else".to_vec()]);
        assert_eq!(asker.ask(at).await, Err("it serves no discovery".into()));
        serving.abort();
        endpoint.close().await;
    }

    #[tokio::test]
    async fn where_nobody_answers_it_says_so() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asker = Asker::new().unwrap();
        assert_eq!(asker.ask(silent.local_addr().unwrap()).await, Err("no answer".into()));
    }
}
