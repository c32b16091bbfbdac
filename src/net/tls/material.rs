//! Certificates, keys and authorities: from files and text to rustls, and the watch over the files.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::config::TlsSettings;
use crate::pipeline::StartError;
use crate::telemetry::Metrics;

/// No certificate bundle in use is larger; a path that leads to something else must not fill the memory.
const MAX_FILE: u64 = 16 << 20;

static RELOADS: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    IntCounter::new("tidegate_tls_reloads", "Changed certificate, key and CA files that were taken over.")
        .ok()
});

static RELOAD_FAILURES: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    let help = "Changed certificate, key and CA files that could not be used; the old ones stay in use.";
    IntCounter::new("tidegate_tls_reload_failures", help).ok()
});

/// Puts the counters of reloads into the agent's metrics. Called once at the start; again does nothing.
pub fn register_metrics(metrics: &Metrics) {
    for counter in [&*RELOADS, &*RELOAD_FAILURES].into_iter().flatten() {
        // Registered already is fine.
        let _ = metrics.add(Box::new(counter.clone()));
    }
}

/// Watches the content of files, lazily: whoever uses what they hold asks whether it is time to look.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<(&'static str, String)>,
    every: Option<Duration>,
    start: Instant,
    /// Nanoseconds after `start` at which the next look is due.
    due: AtomicU64,
    /// What was in the files when they were last looked at, whether or not it was any good.
    seen: Mutex<[u8; 32]>,
}

impl Watch {
    /// A watch over the files (by config key) that are not empty paths.
    pub(super) fn new(files: &[(&'static str, &str)], every: Option<Duration>) -> Self {
        let files: Vec<_> = files
            .iter()
            .filter(|(_, p)| !p.is_empty())
            .map(|(key, path)| (*key, (*path).to_owned()))
            .collect();
        let every = every.filter(|_| !files.is_empty());
        let watch =
            Watch { files, every, start: Instant::now(), due: AtomicU64::new(0), seen: Mutex::new([0; 32]) };
        if let Some(every) = every {
            watch.due.store(nanos(every), Ordering::Relaxed);
            *watch.seen.lock().unwrap_or_else(PoisonError::into_inner) = watch.digest();
        }
        watch
    }

    /// If a look is due and the files have changed since the last one, takes them over by `load`.
    pub(super) fn poll<T>(&self, load: impl FnOnce() -> Result<T, StartError>, install: impl FnOnce(T)) {
        let Some(every) = self.every else { return };
        let now = nanos(self.start.elapsed());
        let due = self.due.load(Ordering::Relaxed);
        let next = now.saturating_add(nanos(every));
        // One of several concurrent handshakes looks.
        if now < due || self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before loading: a change in between is found by the next look.
        let digest = self.digest();
        if *seen == digest {
            return;
        }
        *seen = digest;
        let files = || self.files.iter().map(|(_, path)| path.as_str()).collect::<Vec<_>>().join(", ");
        match load() {
            Ok(new) => {
                install(new);
                RELOADS.iter().for_each(IntCounter::inc);
                tracing::info!(files = files(), "TLS files have changed and are in use now");
            }
            Err(error) => {
                RELOAD_FAILURES.iter().for_each(IntCounter::inc);
                tracing::error!(files = files(), %error, "TLS files have changed but cannot be used; the old ones stay");
            }
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (key, path) in &self.files {
            let content = read(key, path).map_err(|e| e.to_string());
            // The length keeps two files from being mistaken for each other's continuation.
            let (tag, bytes) = match &content {
                Ok(bytes) => (b'+', bytes.as_slice()),
                Err(why) => (b'-', why.as_bytes()),
            };
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }
}

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

fn read(key: &str, path: &str) -> Result<Vec<u8>, StartError> {
    let fail = |e: std::io::Error| StartError::new(format!("cannot read {key} \"{path}\": {e}"));
    let file = std::fs::File::open(Path::new(path)).map_err(fail)?;
    let mut content = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut content).map_err(fail)?;
    Ok(content)
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
