//! Which relays an endpoint uses, whose certificates it trusts there, and what it does without any.

use std::{sync::Arc, time::Duration};

use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, Watcher, endpoint::RelayStatus};
use noq::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use tokio::time::{Instant, timeout_at};

use crate::{error::Error, problems::Problems};

/// Most bytes of the setting `relay_ca`.
const MAX_CA: usize = 64 * 1024;
/// While there is no connection to a relay, all are tried again this often. iroh would wait for 20
/// to 26 s, and needs two attempts to change from one relay to another.
const SEEK: Duration = Duration::from_secs(4);

/// The relays that the settings of the same names say.
pub(crate) fn mode(relay: bool, relay_urls: &[RelayUrl]) -> RelayMode {
    match (relay, relay_urls.is_empty()) {
        (false, _) => RelayMode::Disabled,
        (true, true) => RelayMode::Default,
        (true, false) => RelayMode::Custom(relay_urls.iter().map(own).collect::<RelayMap>()),
    }
}

/// A relay of the application's own. Without a certificate (`http`) a relay can't serve QUIC
/// address discovery, and iroh would wait 3 s for it before it connects to any relay.
fn own(url: &RelayUrl) -> RelayConfig {
    let mut relay = RelayConfig::from(url.clone());
    if url.scheme() == "http" {
        relay.quic = None;
    }
    relay
}

/// Reads the certificates that are trusted at relays beside those of the public authorities.
///
/// # Errors
/// [`Error::Invalid`] if there is none, or one that can't be used.
pub(crate) fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let refuse = |reason: String| Error::invalid("relay_ca", reason);
    if pem.len() > MAX_CA {
        return Err(refuse(format!("has {} bytes, the limit is {MAX_CA}", pem.len())));
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = read.map_err(|error| refuse(format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(refuse("has no certificate in PEM".into()));
    }
    // iroh would leave out what it can't use, without a word.
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates.iter().enumerate() {
        let added = roots.add(certificate.clone());
        added.map_err(|error| refuse(format!("certificate {number} can't be used: {error}")))?;
    }
    Ok(certificates)
}

/// Has iroh look for a relay again while none is connected. It goes on until it is dropped.
///
/// A relay that iroh chose is tried again by iroh. So this is for the others: nothing is asked if
/// there is no other.
pub(crate) async fn seek(endpoint: Endpoint, relays: RelayMap, problems: Problems) {
    let all: Vec<Arc<RelayConfig>> = relays.relays();
    let Some(first) = all.first() else { return };
    let urls: Vec<_> = all.iter().map(|relay| relay.url.to_string()).collect();
    let mut status = endpoint.home_relay_status();
    let mut next = Instant::now() + SEEK;
    loop {
        let now = status.get();
        if now.iter().any(RelayStatus::is_connected) {
            if status.updated().await.is_err() {
                return;
            }
            next = Instant::now() + SEEK;
            continue;
        }
        match timeout_at(next, status.updated()).await {
            Ok(Ok(_)) => continue,
            Ok(Err(_)) => return,
            Err(_) => next += SEEK,
        }
        if now.is_empty() {
            problems.raise("relay", format!("no answer from any relay: {}", urls.join(", ")));
        }
        if now.is_empty() || all.len() > 1 {
            // The relay is known already. What this does is that iroh measures all of them.
            endpoint.insert_relay(first.url.clone(), Arc::clone(first)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relays(urls: &[&str]) -> Vec<RelayConfig> {
        let urls: Vec<_> = urls.iter().map(|url| url.parse().unwrap()).collect();
        let RelayMode::Custom(map) = mode(true, &urls) else { panic!("own relays are not used") };
        map.relays::<Vec<_>>().iter().map(|relay| (**relay).clone()).collect()
    }

    #[test]
    fn address_discovery_is_expected_only_of_relays_with_a_certificate() {
        let all = relays(&["https://relay.example", "http://10.0.0.1:3340"]);
        let asked: Vec<_> = all.iter().map(|one| (one.url.scheme(), one.quic.is_some())).collect();
        assert_eq!(asked, [("http", false), ("https", true)]);
    }

    #[test]
    fn relays_are_iroh_s_own_only_if_none_is_named() {
        assert!(matches!(mode(true, &[]), RelayMode::Default));
        assert!(matches!(mode(false, &[]), RelayMode::Disabled));
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_the_reason() {
        let block = |text: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        let cases = [
            (String::new(), "has no certificate"),
            ("nonsense".into(), "has no certificate"),
            (block("!"), "is not PEM"),
            (block("aGVsbG8="), "certificate 0 can't be used"),
            ("-".repeat(MAX_CA + 1), "the limit is 65536"),
        ];
        for (pem, reason) in cases {
            let error = authorities(&pem).unwrap_err().to_string();
            assert!(error.starts_with("relay_ca ") && error.contains(reason), "{error}");
        }
    }
}
