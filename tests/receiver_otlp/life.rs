//! Connections from their first byte to their end: TLS, unix sockets, keepalive, stop.

use std::time::Duration;

use tidegate::config::types::{Endpoint, Optional};
use tidegate::config::{Config, Cx, Node, Value};
use tidegate::net::listen::Transport;
use tidegate::net::tls::TlsServerConfig;
use tidegate::pdata::Signal;
use tidegate::pipeline::Verdict;
use tidegate::receivers::otlp::{
    EnforcementPolicy, GrpcServerConfig, HttpProtocolConfig, KeepaliveConfig, ServerParameters,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::kit::*;

/// What tonic's generated clients come down to.
#[tokio::test]
async fn a_tonic_client() {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use prost::Message;
    let rig = Rig::grpc(grpc()).await;
    let uri = format!("http://{}", rig.otlp.grpc_address().unwrap());
    let channel = tonic::transport::Channel::from_shared(uri).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    let sent = ExportTraceServiceRequest::decode(&request(Signal::Traces, 700)[..]).unwrap();
    let export = async |client: &mut tonic::client::Grpc<_>| {
        client.ready().await.unwrap();
        client
            .unary::<_, ExportTraceServiceResponse, _>(
                tonic::Request::new(sent.clone()),
                TRACES.parse().unwrap(),
                ProstCodec::default(),
            )
            .await
    };
    let reply = export(&mut client).await.unwrap();
    assert_eq!(reply.into_inner(), ExportTraceServiceResponse::default());
    assert_eq!(rig.pipe.bodies(), [sent.encode_to_vec()]);
    rig.answers(retry(Some(3)));
    let status = export(&mut client).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "queue is full"));
    assert!(!status.details().is_empty());
}

/// A codec as tonic wants it, without its generated code.
struct ProstCodec<T, U>(std::marker::PhantomData<(T, U)>);

impl<T, U> Default for ProstCodec<T, U> {
    fn default() -> Self {
        ProstCodec(std::marker::PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for ProstCodec<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<T: prost::Message, U> tonic::codec::Encoder for ProstCodec<T, U> {
    type Item = T;
    type Error = tonic::Status;

    fn encode(&mut self, item: T, out: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        item.encode(out).map_err(|e| tonic::Status::internal(e.to_string()))
    }
}

impl<T, U: prost::Message + Default> tonic::codec::Decoder for ProstCodec<T, U> {
    type Item = U;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<U>, tonic::Status> {
        U::decode(from).map(Some).map_err(|e| tonic::Status::internal(e.to_string()))
    }
}

#[tokio::test]
async fn unix_sockets_serve_both_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("grpc.sock"), dir.path().join("http.sock"));
    let endpoint = |path: &std::path::Path| Endpoint::parse(path.to_str().unwrap()).unwrap();
    let unix = Transport::Unix;
    let grpc = GrpcServerConfig { endpoint: endpoint(&one), transport: unix, ..GrpcServerConfig::default() };
    let http =
        HttpProtocolConfig { endpoint: endpoint(&two), transport: unix, ..HttpProtocolConfig::default() };
    let mut rig = Rig::start(Some(grpc), Some(http), 1 << 20, &Signal::ALL).await;
    for (path, method, content_type, body) in [
        (&one, LOGS, "application/grpc", framed(0, &request(Signal::Logs, 1))),
        (&two, "/v1/logs", "application/x-protobuf", request(Signal::Logs, 1)),
    ] {
        let client = Grpc::over(UnixStream::connect(path).await.unwrap()).await;
        let mut call = client.open(method, &[("content-type", content_type)]).await;
        call.send(body, true).await;
        assert_eq!(call.answer().await.http, 200);
        assert_eq!(rig.pipe.take()[0].client.address, None);
    }
    rig.stop_within(Duration::from_secs(5)).await;
    assert!(!one.exists() && !two.exists());
}

/// A certificate authority with a server and a client certificate, as PEM, and what a client trusts.
struct Pki {
    ca: String,
    server: (String, String),
    client: (rustls::pki_types::CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>),
    roots: rustls::RootCertStore,
}

fn pki() -> Pki {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let ((server, server_key), (client, client_key)) = (issue("server"), issue("team-a"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let client_key = rustls::pki_types::PrivateKeyDer::try_from(client_key.serialize_der()).unwrap();
    Pki {
        ca: ca.pem(),
        server: (server.pem(), server_key.serialize_pem()),
        client: (client.der().clone(), client_key),
        roots,
    }
}

fn text(text: &str) -> Node {
    Node::new(Default::default(), Value::Str(text.to_owned()))
}

#[tokio::test]
async fn tls_and_client_certificates() {
    let pki = pki();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, &pki.ca).unwrap();
    let mut tls = TlsServerConfig::default();
    tls.settings.cert_pem.decode_into(&text(&pki.server.0), &mut Cx::default());
    tls.settings.key_pem.decode_into(&text(&pki.server.1), &mut Cx::default());
    tls.client_ca_file = ca_file.to_str().unwrap().to_owned();
    let rig = Rig::start(
        Some(GrpcServerConfig { tls: Optional::on(tls.clone()), ..grpc() }),
        Some(HttpProtocolConfig { tls: Optional::on(tls), ..http() }),
        1 << 20,
        &Signal::ALL,
    )
    .await;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let connect = async |address: &str, with_cert: bool, alpn: &str| {
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(pki.roots.clone());
        let mut config = if with_cert {
            builder.with_client_auth_cert(vec![pki.client.0.clone()], pki.client.1.clone_key()).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), stream).await
    };
    let grpc_at = rig.otlp.grpc_address().unwrap();
    let http_at = rig.otlp.http_address().unwrap();

    let client = Grpc::over(connect(grpc_at, true, "h2").await.unwrap()).await;
    assert_eq!(client.export(LOGS, &request(Signal::Logs, 50)).await.status, 0);

    let web = Grpc::over(connect(http_at, true, "h2").await.unwrap()).await;
    let mut call = web.open("/v1/logs", &[("content-type", "application/x-protobuf")]).await;
    call.send(request(Signal::Logs, 1), true).await;
    assert_eq!(call.answer().await.http, 200);
    let got = rig.pipe.take();
    assert_eq!(got.len(), 2);
    for batch in got {
        let certificate = batch.client.certificate.as_deref().unwrap();
        assert_eq!(certificate.common_name.as_deref(), Some("team-a"));
        assert_eq!(certificate.dns_names, ["localhost"]);
    }

    let mut stream = connect(http_at, true, "http/1.1").await.unwrap();
    let head =
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buf = [0; 64];
    let n = stream.read(&mut buf).await.unwrap();
    assert!(buf[..n].starts_with(b"HTTP/1.1 200 "));

    for address in [grpc_at, http_at] {
        // Without a certificate the connection is closed, at the latest when it is used.
        let refused = match connect(address, false, "h2").await {
            Err(_) => true,
            Ok(mut stream) => {
                let _ = stream.write_all(b"PRI").await;
                !matches!(stream.read(&mut buf).await, Ok(n) if n > 0)
            }
        };
        assert!(refused, "{address}");
        // Plaintext is no TLS.
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), plain.read_to_end(&mut all)).await.unwrap();
    }
}

/// What a server sends on a connection until it closes it; frames as (type, flags, payload).
async fn frames_until_closed(stream: &mut TcpStream) -> Vec<(u8, u8, Vec<u8>)> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut all)).await.unwrap();
    let (mut frames, mut at) = (Vec::new(), &all[..]);
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = at {
        let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        frames.push((*kind, *flags, rest[..len.min(rest.len())].to_vec()));
        at = &rest[len.min(rest.len())..];
    }
    frames
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const GOAWAY: u8 = 7;

fn keepalive(server: ServerParameters, policy: EnforcementPolicy) -> GrpcServerConfig {
    let keepalive =
        KeepaliveConfig { server_parameters: Optional::on(server), enforcement_policy: Optional::on(policy) };
    GrpcServerConfig { keepalive: Optional::on(keepalive), ..grpc() }
}

#[tokio::test]
async fn connections_end_when_idle_old_or_dead() {
    let short = Duration::from_millis(100);
    let cases = [
        ("idle", ServerParameters { max_connection_idle: short, ..Default::default() }),
        ("old", ServerParameters { max_connection_age: short, ..Default::default() }),
        ("dead", ServerParameters { time: short, timeout: short, ..Default::default() }),
    ];
    for (what, server) in cases {
        let rig = Rig::grpc(keepalive(server, EnforcementPolicy::default())).await;
        let mut stream = TcpStream::connect(rig.otlp.grpc_address().unwrap()).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        if what == "dead" {
            // A client that answers nothing is probed, then dropped without a word.
            let frames = frames_until_closed(&mut stream).await;
            assert!(frames.iter().any(|(kind, flags, _)| (*kind, *flags) == (6, 0)), "no ping: {frames:?}");
            assert!(!frames.iter().any(|(kind, ..)| *kind == GOAWAY));
        } else {
            // The end is announced, and comes when the client has acknowledged it.
            let mut buf = vec![0; 1024];
            let mut seen = Vec::new();
            while !seen.windows(9).any(|w| w[3] == GOAWAY && w[4] == 0 && w[..3] == [0, 0, 8]) {
                let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buf)).await;
                let n = n.unwrap().unwrap();
                assert!(n > 0, "{what}: closed without GOAWAY: {seen:02x?}");
                seen.extend_from_slice(&buf[..n]);
            }
        }
    }
}

#[tokio::test]
async fn a_request_outlives_the_age_of_its_connection() {
    let server = ServerParameters { max_connection_age: Duration::from_millis(50), ..Default::default() };
    let rig = Rig::grpc(keepalive(server, EnforcementPolicy::default())).await;
    rig.does(Does::Holds);
    let client = rig.grpc_client().await;
    let mut call = client.open(TRACES, &[]).await;
    call.send(framed(0, &request(Signal::Traces, 1)), true).await;
    // The client learns of the end: it can open no more.
    let mut sender = client.sender.clone();
    let closed = async {
        loop {
            sender = match sender.ready().await {
                Ok(sender) => sender,
                Err(_) => return,
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
    for mut batch in rig.pipe.take() {
        std::mem::take(&mut batch.acks).resolve(Verdict::Accepted);
    }
    assert_eq!(call.answer().await.status, 0);
}

#[tokio::test]
async fn clients_that_ping_too_often_are_sent_away() {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";
    let lenient = EnforcementPolicy { min_time: Duration::from_nanos(1), permit_without_stream: true };
    for (policy, sent_away) in [(EnforcementPolicy::default(), true), (lenient, false)] {
        let rig = Rig::grpc(keepalive(ServerParameters::default(), policy)).await;
        let mut stream = TcpStream::connect(rig.otlp.grpc_address().unwrap()).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        for _ in 0..5 {
            let _ = stream.write_all(PING).await;
        }
        let _ = stream.shutdown().await;
        let frames = frames_until_closed(&mut stream).await;
        const ENHANCE_YOUR_CALM: u8 = 0xb;
        let goaway = frames.iter().any(|(kind, _, p)| *kind == GOAWAY && p[7] == ENHANCE_YOUR_CALM);
        assert_eq!(goaway, sent_away, "{frames:?}");
    }
}

#[tokio::test]
async fn stopping_answers_what_was_read_and_nothing_else() {
    let mut rig = Rig::start(Some(grpc()), Some(http()), 64 << 20, &Signal::ALL).await;
    rig.does(Does::Holds);
    let (grpc_at, http_at) =
        (rig.otlp.grpc_address().unwrap().to_owned(), rig.otlp.http_address().unwrap().to_owned());
    let client = Grpc::connect(&grpc_at).await;
    let mut read = client.open(TRACES, &[]).await;
    read.send(framed(0, &request(Signal::Traces, 1)), true).await;
    let mut unfinished = client.open(TRACES, &[]).await;
    unfinished.send(vec![0, 0, 0, 1, 0, 1], false).await;
    // HTTP: one request handed over, one whose body never ends, one that stops in its head. A connection to each
    // that says nothing.
    let silent = TcpStream::connect(&grpc_at).await.unwrap();
    let idle = TcpStream::connect(&http_at).await.unwrap();
    let post = |body: &'static str, len: usize| {
        format!(
            "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        )
    };
    let one = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#;
    let mut half = TcpStream::connect(&http_at).await.unwrap();
    half.write_all(b"POST /v1/logs HTTP/1.1\r\nho").await.unwrap();
    let mut partial = TcpStream::connect(&http_at).await.unwrap();
    partial.write_all(post("{", 99).as_bytes()).await.unwrap();
    // Last, so that its batch says that the others were accepted.
    let mut held = TcpStream::connect(&http_at).await.unwrap();
    held.write_all(post(one, one.len()).as_bytes()).await.unwrap();
    crate::support::eventually(Duration::from_secs(10), "batches", || {
        rig.pipe.got.lock().unwrap().len() == 2
    })
    .await;

    let pipe = rig.pipe.clone();
    let resolve = async {
        // What is not complete is given up; what was handed over still waits for its verdict.
        let answer = unfinished.answer().await;
        assert_eq!((answer.status, answer.retry()), (14, Some(1)), "{answer:?}");
        for mut batch in pipe.take() {
            std::mem::take(&mut batch.acks).resolve(Verdict::Accepted);
        }
    };
    let (took, ()) = tokio::join!(rig.stop_within(Duration::from_secs(20)), resolve);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(read.answer().await.status, 0);
    for (stream, want) in [(&mut held, "HTTP/1.1 200 "), (&mut partial, "HTTP/1.1 503 ")] {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        assert!(all.starts_with(want.as_bytes()), "{want}: {}", String::from_utf8_lossy(&all));
    }
    drop((silent, idle, half));
    for address in [grpc_at, http_at] {
        assert!(TcpStream::connect(&address).await.is_err(), "still listening");
    }
    rig.pipe.take();
    assert_eq!(rig.cx.ledger.in_flight(), 0);
}

#[tokio::test]
async fn stopping_ends_at_the_deadline() {
    let mut rig = Rig::grpc(grpc()).await;
    rig.does(Does::Holds);
    let client = rig.grpc_client().await;
    let mut call = client.open(TRACES, &[]).await;
    call.send(framed(0, &request(Signal::Traces, 1)), true).await;
    crate::support::eventually(Duration::from_secs(10), "batch", || rig.pipe.got.lock().unwrap().len() == 1)
        .await;
    let took = rig.stop_within(Duration::from_millis(300)).await;
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_and_leaves_nothing_open() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = crate::support::free_port();
    let grpc =
        GrpcServerConfig { endpoint: Endpoint::parse(&format!("127.0.0.1:{free}")).unwrap(), ..grpc() };
    let http = HttpProtocolConfig {
        endpoint: Endpoint::parse(&taken.local_addr().unwrap().to_string()).unwrap(),
        ..http()
    };
    let error = Rig::try_start(Some(grpc), Some(http), 1 << 20, &Signal::ALL).await.err().unwrap();
    assert!(error.to_string().contains("cannot listen on 127.0.0.1:"), "{error}");
    assert!(TcpStream::connect(("127.0.0.1", free)).await.is_err());
}
