//! The server's side: one acceptor that follows its files.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsAcceptor;

use super::config::TlsServerConfig;
use super::material;
use crate::net::watch::Watch;
use crate::pipeline::StartError;

/// A server's TLS. Cheap to clone; clones share reloads.
#[derive(Debug, Clone)]
pub struct ServerTls(Arc<State>);

#[derive(Debug)]
struct State {
    config: TlsServerConfig,
    alpn: Vec<Vec<u8>>,
    watch: Watch,
    current: Mutex<Arc<ServerConfig>>,
}

impl TlsServerConfig {
    /// Reads the files. `alpn` are the application protocols offered, best first (`h2`, `http/1.1`).
    ///
    /// # Errors
    /// A file that cannot be read or parsed, a key that does not belong to its certificate, settings that leave
    /// nothing to negotiate.
    pub fn load(&self, alpn: &[&[u8]]) -> Result<ServerTls, StartError> {
        let client_ca = if self.client_ca_file_reload { self.client_ca_file.as_str() } else { "" };
        let certs_too = self.settings.reload_every().is_some();
        let (cert, key) =
            if certs_too { (&*self.settings.cert_file, &*self.settings.key_file) } else { ("", "") };
        let files = [("cert_file", cert), ("key_file", key), ("client_ca_file", client_ca)];
        // `client_ca_file_reload` has its effect also when `reload_interval` is 0.
        let every = self.settings.reload_every().or(super::config::TlsSettings::default().reload_every());
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|p| p.to_vec()).collect();
        // The watch reads before we do, so that a change in between is a change.
        let watch = Watch::new("tls", &files, every);
        let current = Mutex::new(build(self, &alpn)?);
        Ok(ServerTls(Arc::new(State { config: self.clone(), alpn, watch, current })))
    }
}

impl ServerTls {
    /// The acceptor for one handshake, with the certificates as they are now.
    pub fn acceptor(&self) -> TlsAcceptor {
        let state = &self.0;
        let current = || state.current.lock().unwrap_or_else(PoisonError::into_inner);
        state.watch.poll(|| build(&state.config, &state.alpn), |new| *current() = new);
        let config = current().clone();
        TlsAcceptor::from(config)
    }
}

fn build(config: &TlsServerConfig, alpn: &[Vec<u8>]) -> Result<Arc<ServerConfig>, StartError> {
    let provider = material::provider(&config.settings)?;
    let certified = material::certified_key(&config.settings, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&config.settings.versions())
        .map_err(|e| material::refused(&e))?;
    let builder = if config.client_ca_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(material::client_roots(&config.client_ca_file)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|e| StartError::new(format!("client_ca_file \"{}\": {e}", config.client_ca_file)))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.alpn_protocols = alpn.to_vec();
    Ok(Arc::new(server))
}
