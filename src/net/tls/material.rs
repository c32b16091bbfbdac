//! Certificates, keys and authorities: from files and text to rustls.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::config::TlsSettings;
use crate::net::watch::read;
use crate::pipeline::StartError;

/// Certificate and key, checked to belong together.
pub(super) fn certified_key(
    settings: &TlsSettings,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, StartError> {
    let (cert_source, cert_pem) =
        pem("cert_file", &settings.cert_file, "cert_pem", settings.cert_pem.expose())?;
    let (key_source, key_pem) = pem("key_file", &settings.key_file, "key_pem", settings.key_pem.expose())?;
    let chain = certificates(&cert_source, &cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => StartError::new(format!(
            "no private key in {key_source}: a PEM block without encryption is needed"
        )),
        e => StartError::new(format!("{key_source} is not valid PEM: {e}")),
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|e| {
        StartError::new(format!("failed to load TLS cert and key: {cert_source} and {key_source}: {e}"))
    })
}

/// The authorities of a client: those configured, the system's, or both.
pub(super) fn roots(settings: &TlsSettings) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    if settings.has_ca() {
        let (source, text) = pem("ca_file", &settings.ca_file, "ca_pem", settings.ca_pem.expose())?;
        add_authorities(&mut roots, &source, &text)?;
    }
    if !settings.has_ca() || settings.include_system_ca_certs_pool {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "cannot read some of the system's certificate authorities");
        }
        // Old roots with odd encodings are part of many systems; the others still count.
        roots.add_parsable_certificates(system.certs);
    }
    Ok(roots)
}

/// The authorities of client certificates.
pub(super) fn client_roots(path: &str) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    let text = read("client_ca_file", path)?;
    add_authorities(&mut roots, &format!("client_ca_file \"{path}\""), &text)?;
    Ok(roots)
}

/// Settings that rustls refuses only in combination: suites without a version, versions without a suite.
pub(super) fn refused(error: &rustls::Error) -> StartError {
    StartError::new(format!("the TLS settings exclude every connection: {error}"))
}

/// The algorithms of a block that may not have been validated.
pub(super) fn provider(settings: &TlsSettings) -> Result<Arc<CryptoProvider>, StartError> {
    settings.provider().map(Arc::new).map_err(StartError::new)
}

fn add_authorities(roots: &mut RootCertStore, source: &str, text: &[u8]) -> Result<(), StartError> {
    for certificate in certificates(source, text)? {
        roots.add(certificate).map_err(|e| StartError::new(format!("failed to parse {source}: {e}")))?;
    }
    Ok(())
}

fn certificates(source: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|e| StartError::new(format!("{source} is not valid PEM: {e}")))?;
    if found.is_empty() {
        return Err(StartError::new(format!("no certificate in {source}")));
    }
    Ok(found)
}

/// The PEM text of a pair of keys and where it came from, for messages.
fn pem(
    file_key: &'static str,
    path: &str,
    text_key: &str,
    text: &str,
) -> Result<(String, Vec<u8>), StartError> {
    if path.is_empty() {
        return Ok((text_key.to_owned(), text.as_bytes().to_vec()));
    }
    Ok((format!("{file_key} \"{path}\""), read(file_key, path)?))
}
