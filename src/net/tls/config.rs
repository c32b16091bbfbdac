//! The keys of a `tls:` block and what can be said of them before any file is opened.

use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::crypto::ring::{ALL_CIPHER_SUITES, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

use crate::config;
use crate::config::types::{Secret, Unsupported};
use crate::config::{Cx, Node};

config! {
    /// What the TLS blocks of servers and clients have in common.
    pub struct TlsSettings {
        /// File with the certificates of the authorities to trust, PEM. Clients without one trust the system's.
        pub ca_file: String = String::new(),
        /// The same as text. Either the file or the text, not both.
        pub ca_pem: Secret = Secret::default(),
        /// File with the certificate to present and its intermediates, PEM. Needs a key.
        pub cert_file: String = String::new(),
        /// The same as text. Either the file or the text, not both.
        pub cert_pem: Secret = Secret::default(),
        /// File with the certificate's private key, PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
        pub key_file: String = String::new(),
        /// The same as text. Either the file or the text, not both.
        pub key_pem: Secret = Secret::default(),
        /// Trusts the system's authorities besides those of `ca_file` or `ca_pem`.
        pub include_system_ca_certs_pool: bool = false,
        /// Least TLS version: `1.2` or `1.3`. Older versions are not supported.
        pub min_version: String = "1.2".to_owned(),
        /// Greatest TLS version: `1.2` or `1.3`; empty for the highest there is.
        pub max_version: String = String::new(),
        /// Cipher suites to allow, by their IANA names; empty for all that are supported. A list without TLS 1.3
        /// suites leaves those of TLS 1.3 as they are.
        pub cipher_suites: Vec<String> = Vec::new(),
        /// Must be `false`: there are no insecure cipher suites to include.
        pub include_insecure_cipher_suites: bool = false,
        /// Key exchange groups in order of preference: `X25519`, `P256`, `P384`; empty for all of them.
        pub curve_preferences: Vec<String> = Vec::new(),
        /// How often certificate and key files are looked at for a change, at handshakes; 0 means never. Left
        /// out, they are looked at every 10s at most.
        pub reload_interval: Option<Duration> = None,
        /// Not supported: keys are read from files or text, not from a trusted platform module.
        pub tpm: Unsupported = Unsupported,
    }
}

config! {
    /// TLS of a server. Certificate and key are required.
    pub struct TlsServerConfig {
        /// File with the authorities of client certificates, PEM. When set, clients must present a certificate
        /// signed by one of them.
        pub client_ca_file: String = String::new(),
        /// Follows changes of `client_ca_file`.
        pub client_ca_file_reload: bool = false,
    }
    flatten { settings: TlsSettings = TlsSettings::default() }
    validate = TlsServerConfig::check;
}

config! {
    /// TLS of a client. Without any key: TLS with the system's authorities.
    pub struct TlsClientConfig {
        /// Speaks plaintext (gRPC only; for HTTP the URL's scheme decides). Ignored when `ca_file` or `ca_pem` is
        /// set or the endpoint starts with `https://`.
        pub insecure: bool = false,
        /// Accepts any server certificate. The connection is encrypted, and open to whoever sits in between.
        pub insecure_skip_verify: bool = false,
        /// The name asked for in the handshake and expected in the certificate, instead of the endpoint's host.
        pub server_name_override: String = String::new(),
    }
    flatten { settings: TlsSettings = TlsSettings::default() }
    validate = TlsClientConfig::check;
}

/// How often files are looked at when the user says nothing.
const DEFAULT_RELOAD: Duration = Duration::from_secs(10);

impl TlsServerConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        self.settings.check(node, cx);
        if !self.settings.has_cert() && !self.settings.has_key() {
            cx.error_hint(
                node.pos,
                "TLS configuration must include both certificate and key for server connections",
                "set cert_file and key_file, or cert_pem and key_pem",
            );
        }
        if self.settings.has_ca() || self.settings.include_system_ca_certs_pool {
            let key = ["ca_file", "ca_pem", "include_system_ca_certs_pool"]
                .into_iter()
                .find(|k| node.get(k).is_some());
            let key = key.unwrap_or("ca_file");
            let message = format!(
                "{key} does nothing for a server: client certificates are verified by client_ca_file"
            );
            cx.within(key, |cx| cx.warn(node.pos_of(key), message));
        }
    }
}

impl TlsClientConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        self.settings.check(node, cx);
        let name = &self.server_name_override;
        if !name.is_empty() && rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
            error_at(
                "server_name_override",
                node,
                cx,
                format!("\"{name}\" is neither a host name nor an IP address"),
            );
        }
    }

    /// Whether a gRPC client speaks plaintext to `endpoint`, as written in the file: `https://` and a configured
    /// authority force TLS; `http://` alone does not switch it off.
    pub fn grpc_plaintext(&self, endpoint: &str) -> bool {
        self.insecure && !self.settings.has_ca() && !endpoint.starts_with("https://")
    }
}

impl TlsSettings {
    pub(super) fn has_ca(&self) -> bool {
        !self.ca_file.is_empty() || !self.ca_pem.expose().is_empty()
    }

    pub(super) fn has_cert(&self) -> bool {
        !self.cert_file.is_empty() || !self.cert_pem.expose().is_empty()
    }

    pub(super) fn has_key(&self) -> bool {
        !self.key_file.is_empty() || !self.key_pem.expose().is_empty()
    }

    /// How often files are looked at; `None` for never.
    pub(super) fn reload_every(&self) -> Option<Duration> {
        Some(self.reload_interval.unwrap_or(DEFAULT_RELOAD)).filter(|d| !d.is_zero())
    }

    /// The versions allowed, newest first.
    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let min = version(&self.min_version).ok().flatten().unwrap_or(2);
        let max = version(&self.max_version).ok().flatten().unwrap_or(3);
        let all = [(3, &rustls::version::TLS13), (2, &rustls::version::TLS12)];
        all.into_iter().filter(|(v, _)| (min..=max).contains(v)).map(|(_, v)| v).collect()
    }

    /// ring's algorithms, restricted and ordered as configured.
    ///
    /// # Errors
    /// A name that is unknown or not supported.
    pub(super) fn provider(&self) -> Result<CryptoProvider, String> {
        let mut provider = rustls::crypto::ring::default_provider();
        if !self.cipher_suites.is_empty() {
            let wanted = self.cipher_suites.iter().map(|n| suite(n)).collect::<Result<Vec<_>, _>>()?;
            let names_tls13 = wanted.iter().any(|s| s.tls13().is_some());
            provider.cipher_suites.retain(|s| wanted.contains(s) || (s.tls13().is_some() && !names_tls13));
        }
        if !self.curve_preferences.is_empty() {
            provider.kx_groups = self.curve_preferences.iter().map(|n| group(n)).collect::<Result<_, _>>()?;
        }
        Ok(provider)
    }

    fn check(&self, node: &Node, cx: &mut Cx) {
        let both = [
            ("ca_pem", "a CA file", !self.ca_file.is_empty() && !self.ca_pem.expose().is_empty()),
            ("cert_pem", "a certificate", !self.cert_file.is_empty() && !self.cert_pem.expose().is_empty()),
            ("key_pem", "a key", !self.key_file.is_empty() && !self.key_pem.expose().is_empty()),
        ];
        for (key, what, _) in both.iter().filter(|(_, _, both)| *both) {
            error_at(key, node, cx, format!("provide either {what} or the PEM-encoded string, but not both"));
        }
        if self.has_cert() != self.has_key() {
            let missing = if self.has_cert() { "key_file or key_pem" } else { "cert_file or cert_pem" };
            let message = "TLS configuration must include both certificate and key (CertFile/CertPem and KeyFile/KeyPem)";
            cx.error_hint(node.pos, message, format!("add {missing}"));
        }
        let min = version(&self.min_version);
        let max = version(&self.max_version);
        for (key, parsed) in [("min_version", &min), ("max_version", &max)] {
            if let Err(why) = parsed {
                error_at(key, node, cx, format!("invalid TLS {key}: {why}"));
            }
        }
        if let (Ok(Some(min)), Ok(Some(max))) = (min, max)
            && min > max
        {
            let message = "min_version cannot be greater than max_version".to_owned();
            error_at("min_version", node, cx, message);
        }
        for name in &self.cipher_suites {
            if let Err(why) = suite(name) {
                error_at("cipher_suites", node, cx, why);
            }
        }
        if self.include_insecure_cipher_suites {
            let message = "insecure cipher suites are not supported".to_owned();
            error_at("include_insecure_cipher_suites", node, cx, message);
        }
        for name in &self.curve_preferences {
            if let Err(why) = group(name) {
                error_at("curve_preferences", node, cx, why);
            }
        }
    }
}

fn error_at(key: &str, node: &Node, cx: &mut Cx, message: String) {
    cx.within(key, |cx| cx.error(node.pos_of(key), message));
}

/// The minor version, or `None` for "whatever there is".
fn version(text: &str) -> Result<Option<u8>, String> {
    match text {
        "" => Ok(None),
        "1.2" => Ok(Some(2)),
        "1.3" => Ok(Some(3)),
        "1.0" | "1.1" => Err(format!("TLS {text} is not supported: it is broken; use 1.2 or 1.3")),
        _ => Err(format!("unsupported TLS version: \"{text}\"")),
    }
}

fn suite(name: &str) -> Result<rustls::SupportedCipherSuite, String> {
    // The IANA names of TLS 1.3 suites do not carry the version that rustls puts into them.
    let iana = |s: &rustls::SupportedCipherSuite| {
        s.suite().as_str().map(|n| n.replacen("TLS13_", "TLS_", 1)).unwrap_or_default()
    };
    if let Some(found) = ALL_CIPHER_SUITES.iter().find(|s| iana(s) == name) {
        return Ok(*found);
    }
    let known =
        name.starts_with("TLS_RSA_WITH_") || (name.starts_with("TLS_ECDHE_") && name.contains("_WITH_"));
    if known && ["_CBC_", "_RC4_", "TLS_RSA_WITH_"].iter().any(|weak| name.contains(weak)) {
        let valid: Vec<String> = ALL_CIPHER_SUITES.iter().map(iana).collect();
        let valid = valid.join(", ");
        return Err(format!("the TLS cipher suite \"{name}\" is not supported; supported are {valid}"));
    }
    Err(format!("invalid TLS cipher suite: \"{name}\""))
}

fn group(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    match name {
        "X25519" => Ok(kx_group::X25519),
        "P256" => Ok(kx_group::SECP256R1),
        "P384" => Ok(kx_group::SECP384R1),
        "P521" | "X25519MLKEM768" => {
            Err(format!("the curve type {name} is not supported; supported are X25519, P256, P384"))
        }
        _ => Err(format!("invalid curve type in curve_preferences: {name}; expected X25519, P256 or P384")),
    }
}
