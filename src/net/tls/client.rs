//! The client's side: one config for the life of the client; the certificate it presents follows its files.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::config::{TlsClientConfig, TlsSettings};
use super::material;
use crate::net::watch::Watch;
use crate::pipeline::StartError;

/// A client's TLS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

/// Presents a certificate and watches its files.
#[derive(Debug)]
struct Presented {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    watch: Watch,
    current: Mutex<Arc<CertifiedKey>>,
}

/// Expects another name in the certificate than the one that was dialled.
#[derive(Debug)]
struct NamedVerifier {
    name: ServerName<'static>,
    inner: Arc<WebPkiServerVerifier>,
}

/// Accepts any certificate whose key the server holds.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl TlsClientConfig {
    /// Reads the files. `alpn` are the application protocols offered, best first; a client that sets them itself
    /// (reqwest does) takes an empty list. `insecure` is the caller's business.
    ///
    /// # Errors
    /// As [`TlsServerConfig::load`](super::TlsServerConfig::load); also when there is no authority to trust.
    pub fn load(&self, alpn: &[&[u8]]) -> Result<ClientTls, StartError> {
        let provider = material::provider(&self.settings)?;
        let name = match self.server_name_override.as_str() {
            "" => None,
            name => Some(ServerName::try_from(name.to_owned()).map_err(|_| {
                StartError::new(format!(
                    "server_name_override \"{name}\" is neither a host name nor an IP address"
                ))
            })?),
        };
        let verifier: Arc<dyn ServerCertVerifier> = if self.insecure_skip_verify {
            // Files that are named must still be readable: a typo should not wait for the day verification is on.
            if self.settings.has_ca() {
                material::roots(&self.settings)?;
            }
            Arc::new(AnyServer(provider.clone()))
        } else {
            let roots = material::roots(&self.settings)?;
            if roots.is_empty() {
                return Err(StartError::new(
                    "no certificate authority to trust: the system has none; set ca_file, or insecure_skip_verify",
                ));
            }
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| StartError::new(format!("the certificate authorities cannot be used: {e}")))?;
            match name.clone() {
                Some(name) => Arc::new(NamedVerifier { name, inner }),
                None => inner,
            }
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.settings.versions())
            .map_err(|e| material::refused(&e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = if self.settings.has_cert() || self.settings.has_key() {
            let files = [("cert_file", &*self.settings.cert_file), ("key_file", &*self.settings.key_file)];
            let watch = Watch::new("tls", &files, self.settings.reload_every());
            let current = Mutex::new(Arc::new(material::certified_key(&self.settings, &provider)?));
            let settings = self.settings.clone();
            builder.with_client_cert_resolver(Arc::new(Presented { settings, provider, watch, current }))
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(ClientTls { config: Arc::new(config), name })
    }
}

impl ClientTls {
    /// The config, good for the life of the client: reloads happen inside it. It verifies the overriding server
    /// name also for clients that dial by the endpoint's host.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// A connector over [`ClientTls::config`].
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.config())
    }

    /// The name to connect with: the override, or `host` (without a port; IPv6 with or without brackets).
    ///
    /// # Errors
    /// `host` is neither a host name nor an address.
    pub fn server_name(&self, host: &str) -> io::Result<ServerName<'static>> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        ServerName::try_from(bare.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("\"{host}\" is not a host name"))
        })
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = || self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.poll(
            || material::certified_key(&self.settings, &self.provider),
            |new| *current() = Arc::new(new),
        );
        let key = current().clone();
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
