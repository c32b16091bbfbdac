//! TLS by real handshakes: trust, names, versions, client certificates, reloads.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::config::types::Secret;
use crate::config::{Config, Cx, Key, Node, Pos, Value};

/// An authority that signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for a name, as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn server(&self, name: &str) -> TlsServerConfig {
        let (cert, key) = self.issue(name);
        let settings = TlsSettings {
            cert_pem: Secret::from(&*cert),
            key_pem: Secret::from(&*key),
            ..Default::default()
        };
        TlsServerConfig { settings, ..Default::default() }
    }

    fn client(&self) -> TlsClientConfig {
        let settings = TlsSettings { ca_pem: Secret::from(&*self.pem), ..Default::default() };
        TlsClientConfig { settings, ..Default::default() }
    }
}

/// What a handshake and one byte each way agreed on.
#[derive(Debug)]
struct Agreed {
    alpn: Option<Vec<u8>>,
    version: rustls::ProtocolVersion,
    suite: rustls::CipherSuite,
}

async fn handshake(server: &ServerTls, client: &ClientTls, host: &str) -> Result<Agreed, String> {
    let (ours, theirs) = duplex(64 << 10);
    let accept = async {
        let mut stream = server.acceptor().accept(theirs).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    };
    let connect = async {
        let mut stream = client.connector().connect(client.server_name(host)?, ours).await?;
        stream.write_u8(7).await?;
        // A client certificate that is refused shows with the first byte read.
        stream.read_u8().await?;
        let (_, session) = stream.get_ref();
        Ok::<_, std::io::Error>(Agreed {
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            version: session.protocol_version().unwrap(),
            suite: session.negotiated_cipher_suite().unwrap().suite(),
        })
    };
    let (accepted, connected) = tokio::join!(accept, connect);
    let agreed = connected.map_err(|e| e.to_string())?;
    accepted.map_err(|e| e.to_string())?;
    Ok(agreed)
}

async fn between(server: &TlsServerConfig, client: &TlsClientConfig) -> Result<Agreed, String> {
    let (server, client) = (server.load(&[b"h2"]).unwrap(), client.load(&[b"h2"]).unwrap());
    handshake(&server, &client, "localhost").await
}

#[tokio::test]
async fn a_trusted_server_is_spoken_to_and_no_other() {
    let authority = Authority::new();
    let agreed = between(&authority.server("localhost"), &authority.client()).await.unwrap();
    assert_eq!(agreed.alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(agreed.version, rustls::ProtocolVersion::TLSv1_3);

    let error = between(&Authority::new().server("localhost"), &authority.client()).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    let error = between(&authority.server("elsewhere"), &authority.client()).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn the_name_can_be_overridden_and_verification_skipped() {
    let authority = Authority::new();
    let server = authority.server("backend.internal");
    let named = TlsClientConfig { server_name_override: "backend.internal".to_owned(), ..authority.client() };
    between(&server, &named).await.unwrap();
    // Also for a client that dials by the endpoint's host and only takes the config.
    let (ours, theirs) = duplex(64 << 10);
    let (tls, loaded) = (server.load(&[]).unwrap(), named.load(&[]).unwrap());
    let connector = tokio_rustls::TlsConnector::from(loaded.config());
    let dialled = rustls::pki_types::ServerName::try_from("10.0.0.1").unwrap();
    let (accepted, connected) = tokio::join!(tls.acceptor().accept(theirs), connector.connect(dialled, ours));
    assert!(accepted.is_ok() && connected.is_ok());

    let other = TlsClientConfig { server_name_override: "other.internal".to_owned(), ..authority.client() };
    assert!(between(&server, &other).await.is_err());
    let blind = TlsClientConfig { insecure_skip_verify: true, ..Default::default() };
    between(&server, &blind).await.unwrap();
}

#[tokio::test]
async fn client_certificates_are_required_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, strangers) = (Authority::new(), Authority::new());
    let mut server = authority.server("localhost");
    server.client_ca_file = write(dir.path(), "ca.pem", &authority.pem);

    let with_cert = |from: &Authority| {
        let (cert, key) = from.issue("client");
        let mut client = authority.client();
        client.settings.cert_pem = Secret::from(&*cert);
        client.settings.key_pem = Secret::from(&*key);
        client
    };
    between(&server, &with_cert(&authority)).await.unwrap();
    assert!(between(&server, &authority.client()).await.is_err(), "no certificate");
    assert!(between(&server, &with_cert(&strangers)).await.is_err(), "another authority's certificate");
}

#[tokio::test]
async fn versions_suites_and_groups_are_what_was_asked_for() {
    use rustls::{CipherSuite, ProtocolVersion};
    let authority = Authority::new();
    let mut server = authority.server("localhost");
    let with = |set: &dyn Fn(&mut TlsSettings)| {
        let mut client = authority.client();
        set(&mut client.settings);
        client
    };
    let old = with(&|s| s.max_version = "1.2".to_owned());
    assert_eq!(between(&server, &old).await.unwrap().version, ProtocolVersion::TLSv1_2);
    let chacha = with(&|s| {
        s.cipher_suites = vec!["TLS_CHACHA20_POLY1305_SHA256".to_owned()];
    });
    assert_eq!(between(&server, &chacha).await.unwrap().suite, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    let twelve = with(&|s| {
        s.max_version = "1.2".to_owned();
        s.cipher_suites = vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned()];
    });
    let suite = between(&server, &twelve).await.unwrap().suite;
    assert_eq!(suite, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    // A list of suites for 1.2 leaves 1.3 alone.
    let both = with(&|s| s.cipher_suites = vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned()]);
    assert_eq!(between(&server, &both).await.unwrap().version, ProtocolVersion::TLSv1_3);

    server.settings.min_version = "1.3".to_owned();
    assert!(between(&server, &old).await.is_err());
    server.settings.curve_preferences = vec!["P384".to_owned()];
    assert!(between(&server, &with(&|s| s.curve_preferences = vec!["X25519".to_owned()])).await.is_err());
    let curves = with(&|s| s.curve_preferences = vec!["P384".to_owned(), "P256".to_owned()]);
    between(&server, &curves).await.unwrap();
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn files_are_followed_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    let put = |(cert, key): &(String, String)| {
        (write(dir.path(), "tls.crt", cert), write(dir.path(), "tls.key", key))
    };
    let pair = first.issue("localhost");
    let (cert_file, key_file) = put(&pair);
    let settings = |interval| TlsSettings {
        cert_file: cert_file.clone(),
        key_file: key_file.clone(),
        reload_interval: Some(interval),
        ..Default::default()
    };
    let eager = TlsServerConfig { settings: settings(Duration::from_nanos(1)), ..Default::default() };
    let never = TlsServerConfig { settings: settings(Duration::ZERO), ..Default::default() };
    let (eager, never) = (eager.load(&[]).unwrap(), never.load(&[]).unwrap());
    let client_of = |authority: &Authority| authority.client().load(&[]).unwrap();
    handshake(&eager, &client_of(&first), "localhost").await.unwrap();

    put(&second.issue("localhost"));
    handshake(&eager, &client_of(&second), "localhost").await.unwrap();
    handshake(&never, &client_of(&first), "localhost").await.unwrap();

    // A certificate without its key, nonsense, nothing: what worked goes on working.
    for broken in [pair.0.as_str(), "nonsense", ""] {
        fs::write(&cert_file, broken).unwrap();
        handshake(&eager, &client_of(&second), "localhost").await.unwrap();
    }
    fs::remove_file(&cert_file).unwrap();
    handshake(&eager, &client_of(&second), "localhost").await.unwrap();
    put(&pair);
    handshake(&eager, &client_of(&first), "localhost").await.unwrap();
}

#[tokio::test]
async fn kubernetes_symlink_swaps_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    let version = |name: &str, authority: &Authority| {
        let at = dir.path().join(name);
        fs::create_dir(&at).unwrap();
        let (cert, key) = authority.issue("localhost");
        write(&at, "tls.crt", &cert);
        write(&at, "tls.key", &key);
        at
    };
    let swap = |to: &Path| {
        let fresh = dir.path().join("..data_tmp");
        std::os::unix::fs::symlink(to, &fresh).unwrap();
        fs::rename(&fresh, dir.path().join("..data")).unwrap();
    };
    swap(&version("1", &first));
    let file = |name: &str| {
        std::os::unix::fs::symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let settings = TlsSettings {
        cert_file: file("tls.crt"),
        key_file: file("tls.key"),
        reload_interval: Some(Duration::from_nanos(1)),
        ..Default::default()
    };
    let server = TlsServerConfig { settings, ..Default::default() }.load(&[]).unwrap();
    handshake(&server, &first.client().load(&[]).unwrap(), "localhost").await.unwrap();
    swap(&version("2", &second));
    handshake(&server, &second.client().load(&[]).unwrap(), "localhost").await.unwrap();
}

#[tokio::test]
async fn client_authorities_and_client_certificates_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, second) = (Authority::new(), Authority::new());
    let mut server = authority.server("localhost");
    server.client_ca_file = write(dir.path(), "ca.pem", &authority.pem);
    server.client_ca_file_reload = true;
    server.settings.reload_interval = Some(Duration::from_nanos(1));
    let server = server.load(&[]).unwrap();

    let mut client = authority.client();
    let (cert, key) = authority.issue("client");
    client.settings.cert_file = write(dir.path(), "client.crt", &cert);
    client.settings.key_file = write(dir.path(), "client.key", &key);
    client.settings.reload_interval = Some(Duration::from_nanos(1));
    let client = client.load(&[]).unwrap();
    let config = client.config();
    handshake(&server, &client, "localhost").await.unwrap();

    write(dir.path(), "ca.pem", &second.pem);
    assert!(handshake(&server, &client, "localhost").await.is_err(), "the old authority is trusted on");
    let (cert, key) = second.issue("client");
    write(dir.path(), "client.crt", &cert);
    write(dir.path(), "client.key", &key);
    handshake(&server, &client, "localhost").await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&config, &client.config()), "the config lives as long as the client");
}

#[test]
fn bad_files_are_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.issue("localhost");
    let (other, _) = authority.issue("localhost");
    let file = |name: &str, text: &str| write(dir.path(), name, text);
    let (cert, key) = (file("cert", &cert), file("key", &key));
    let missing = dir.path().join("missing").to_str().unwrap().to_owned();
    let empty = file("empty", "");
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let cases = [
        (&missing, &key, "", "cannot read cert_file"),
        (&cert, &missing, "", "cannot read key_file"),
        (&empty, &key, "", "no certificate in cert_file"),
        (&cert, &cert, "", "no private key in key_file"),
        (&broken, &key, "", "not valid PEM"),
        (&file("other", &other), &key, "", "failed to load TLS cert and key"),
        (&cert, &key, missing.as_str(), "cannot read client_ca_file"),
        (&cert, &key, empty.as_str(), "no certificate in client_ca_file"),
    ];
    for (cert_file, key_file, client_ca_file, want) in cases {
        let settings =
            TlsSettings { cert_file: cert_file.clone(), key_file: key_file.clone(), ..Default::default() };
        let config = TlsServerConfig {
            settings,
            client_ca_file: client_ca_file.to_owned(),
            client_ca_file_reload: false,
        };
        let error = config.load(&[]).unwrap_err().to_string();
        assert!(error.contains(want), "{error}, expected {want}");
    }
    let settings = TlsSettings { ca_file: missing, ..Default::default() };
    for insecure_skip_verify in [false, true] {
        let client =
            TlsClientConfig { settings: settings.clone(), insecure_skip_verify, ..Default::default() };
        assert!(client.load(&[]).unwrap_err().to_string().contains("cannot read ca_file"));
    }
}

fn map(entries: &[(&str, Value)]) -> Node {
    let entries = entries.iter().map(|(key, value)| {
        (Key { pos: Pos::default(), text: (*key).to_owned() }, Node::new(Pos::default(), value.clone()))
    });
    Node::new(Pos::default(), Value::Map(entries.collect()))
}

#[test]
fn what_cannot_be_done_is_refused_when_the_file_is_read() {
    let text = |s: &str| Value::Str(s.to_owned());
    let list = |s: &str| Value::Seq(vec![Node::new(Pos::default(), text(s))]);
    let yes = Value::Bool(true);
    let cases: Vec<(Vec<(&str, Value)>, &str)> = vec![
        (
            vec![("ca_file", text("a")), ("ca_pem", text("b"))],
            "provide either a CA file or the PEM-encoded string",
        ),
        (
            vec![("cert_file", text("a")), ("cert_pem", text("b")), ("key_pem", text("k"))],
            "provide either a certif",
        ),
        (vec![("cert_file", text("a"))], "TLS configuration must include both certificate and key"),
        (vec![("key_pem", text("a"))], "TLS configuration must include both certificate and key"),
        (vec![("min_version", text("1.1"))], "invalid TLS min_version: TLS 1.1 is not supported"),
        (vec![("min_version", text("2"))], "invalid TLS min_version: unsupported TLS version: \"2\""),
        (vec![("max_version", text("x"))], "invalid TLS max_version: unsupported TLS version: \"x\""),
        (
            vec![("min_version", text("1.3")), ("max_version", text("1.2"))],
            "min_version cannot be greater than max_version",
        ),
        (vec![("cipher_suites", list("TLS_X"))], "invalid TLS cipher suite: \"TLS_X\""),
        (
            vec![("cipher_suites", list("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"))],
            "is not supported; supported are",
        ),
        (vec![("include_insecure_cipher_suites", yes.clone())], "insecure cipher suites are not supported"),
        (vec![("curve_preferences", list("P521"))], "the curve type P521 is not supported"),
        (vec![("curve_preferences", list("X25519MLKEM768"))], "is not supported"),
        (vec![("curve_preferences", list("P-1"))], "invalid curve type"),
        (vec![("tpm", map(&[("enabled", yes)]).value)], "\"tpm\" is not supported"),
        (vec![("server_name_override", text("a b"))], "neither a host name nor an IP address"),
        (vec![("unheard_of", text("x"))], "unknown key"),
    ];
    for (entries, want) in cases {
        let mut cx = Cx::default();
        TlsClientConfig::default().decode_into(&map(&entries), &mut cx);
        let messages: Vec<_> = cx.diags.iter().map(|d| d.message.as_str()).collect();
        assert!(messages.iter().any(|m| m.contains(want)), "{entries:?}: {messages:?}");
    }
    let mut cx = Cx::default();
    TlsServerConfig::default().decode_into(&map(&[]), &mut cx);
    assert_eq!(cx.diags.len(), 1, "a server needs a certificate: {:?}", cx.diags);
    let mut cx = Cx::default();
    TlsClientConfig::default().decode_into(&map(&[("reload_interval", text("5m"))]), &mut cx);
    assert!(cx.diags.is_empty(), "{:?}", cx.diags);
}

#[test]
fn plaintext_follows_the_truth_table() {
    let with = |insecure, ca: &str| TlsClientConfig {
        insecure,
        settings: TlsSettings { ca_pem: Secret::from(ca), ..Default::default() },
        ..Default::default()
    };
    for (insecure, ca, endpoint, plaintext) in [
        (false, "", "backend:4317", false),
        (false, "", "http://backend:4317", false),
        (true, "", "backend:4317", true),
        (true, "", "http://backend:4317", true),
        (true, "", "https://backend:4317", false),
        (true, "pem", "backend:4317", false),
    ] {
        assert_eq!(with(insecure, ca).grpc_plaintext(endpoint), plaintext, "{insecure} {ca} {endpoint}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let config = Authority::new().server("localhost");
    assert!(!format!("{config:?} {}", config.to_json()).contains("PRIVATE KEY"));
}
