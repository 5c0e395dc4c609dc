//! An iroh relay for tests: relaying, and QUIC address discovery if it has a certificate.
//!
//! `iroh-gossip-discovery-relay 198.51.100.1` serves plain HTTP on port 3340 of an address. With a
//! directory as second argument it serves HTTPS on port 443 and address discovery on UDP port 7842,
//! by a certificate for that address that it signs itself. Key and certificate stay in the
//! directory, so that a relay that is started again has the same. It says its URL in a line once it
//! serves.

use std::{env, error::Error, fs, net::IpAddr, path::Path};

use iroh_relay::server::{CertConfig, QuicConfig, RelayConfig, Server, ServerConfig, TlsConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

const HTTP_PORT: u16 = 3340;
const HTTPS_PORT: u16 = 443;
const DISCOVERY_PORT: u16 = 7842;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (ip, directory) = match arguments.as_slice() {
        [ip] => (ip.parse::<IpAddr>()?, None),
        [ip, directory] => (ip.parse::<IpAddr>()?, Some(Path::new(directory))),
        _ => return Err("give an IP address, and a directory for HTTPS".into()),
    };
    let mut relay = RelayConfig::new((ip, HTTP_PORT));
    let mut config = ServerConfig::default();
    let url = if let Some(directory) = directory {
        let cert = CertConfig::Manual { server_config: tls(ip, directory)? };
        relay.tls = Some(TlsConfig::new((ip, HTTPS_PORT), cert));
        config.quic = Some(QuicConfig::new((ip, DISCOVERY_PORT)));
        format!("https://{ip}/")
    } else {
        format!("http://{ip}:{HTTP_PORT}/")
    };
    config.relay = Some(relay);
    let mut server = Server::spawn(config).await?;
    println!("{url}");
    server.join().await??;
    Ok(())
}

/// Reads key and certificate, or makes them.
fn tls(ip: IpAddr, directory: &Path) -> Result<rustls::ServerConfig, Box<dyn Error>> {
    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    if !certificate.exists() {
        let made = rcgen::generate_simple_self_signed([ip.to_string()])?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        fs::write(&certificate, made.cert.pem())?;
    }
    let provider = rustls::crypto::ring::default_provider();
    Ok(rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&certificate)?],
            PrivateKeyDer::from_pem_file(&key)?,
        )?)
}
