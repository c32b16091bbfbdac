//! `otlp_grpc` and `otlp_http` against a strict backend over real sockets that fails in every way it can.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise must fail loudly, and the backend's tasks need no supervisor"
)]

#[path = "exporter_otlp/backend.rs"]
mod backend;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::{Backend, Reply};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tidegate::components::{Build, Kind, find};
use tidegate::config::types::{GrpcEndpoint, Headers, HttpUrl, Optional};
use tidegate::exporters::otlp_grpc::OtlpGrpcConfig;
use tidegate::exporters::otlp_http::{Encoding, OtlpHttpConfig};
use tidegate::net::client::{GrpcCompression, HttpCompression};
use tidegate::pdata::{Batch, Rope, Signal, Tenant};
use tidegate::pipeline::runtime::Supervisor;
use tidegate::pipeline::{Acks, BuildContext, Exporter, Ledger, Leftover, RunContext, Verdict, ack};
use tidegate::telemetry::Metrics;

/// A running exporter with the books it must keep.
struct Rig {
    exporter: Arc<dyn Exporter>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    supervisor: Supervisor,
}

impl Rig {
    async fn start(type_name: &str, config: &dyn tidegate::components::AnyConfig) -> Rig {
        let metrics = Metrics::new();
        let ledger = Ledger::new(64 << 20);
        let cx = BuildContext { id: "otlp/test".into(), metrics: metrics.clone(), ledger: ledger.clone() };
        let Some(Build::Exporter(build)) = find(Kind::Exporter, type_name).map(|c| c.build) else {
            panic!("no exporter {type_name}")
        };
        let exporter = build(config, Signal::Traces, &cx).unwrap();
        let supervisor = Supervisor::default();
        let run = RunContext {
            supervisor: supervisor.clone(),
            ledger: ledger.clone(),
            metrics: metrics.clone(),
            extensions: Arc::new(HashMap::new()),
            readiness: Default::default(),
        };
        exporter.start(&run).await.unwrap();
        Rig { exporter, metrics, ledger, supervisor }
    }

    /// Offers a batch of spans with these ids that nobody waits for.
    fn offer(&self, ids: std::ops::Range<u64>) {
        self.exporter.consume(self.batch(ids, Acks::none()));
    }

    /// Offers a batch and returns its verdict.
    async fn ask(&self, ids: std::ops::Range<u64>) -> Verdict {
        let (ack, verdict) = ack();
        self.exporter.consume(self.batch(ids, ack.into()));
        verdict.await.unwrap()
    }

    fn batch(&self, ids: std::ops::Range<u64>, acks: Acks) -> Batch {
        let rope = request(ids.clone());
        let lease = Arc::new(self.ledger.reserve(rope.len()).unwrap());
        Batch {
            signal: Signal::Traces,
            items: (ids.end - ids.start) as usize,
            rope,
            client: Arc::default(),
            tenant: None,
            demoted: false,
            received: Instant::now(),
            leases: [lease].into_iter().collect(),
            acks,
        }
    }

    async fn drain(&self, secs: f64) -> Leftover {
        self.exporter.drain(Instant::now() + Duration::from_secs_f64(secs)).await
    }

    /// Sent, failed and refused; checks that nothing is unaccounted for and no memory is held.
    fn books(&self) -> [u64; 3] {
        let total = |name: &str| {
            let families = self.metrics.gather();
            let of = |f: &prometheus::proto::MetricFamily| {
                f.get_metric()
                    .iter()
                    .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
                    .sum::<f64>()
            };
            families.iter().filter(|f| f.name() == name).map(of).sum::<f64>() as u64
        };
        let offered = total("tidegate_exporter_offered_items");
        let books = ["sent", "send_failed", "enqueue_failed"]
            .map(|what| total(&format!("otelcol_exporter_{what}_spans")));
        let queued = total("tidegate_exporter_queued_items");
        assert_eq!(offered, books.iter().sum::<u64>() + queued, "{books:?} and {queued} queued");
        assert_eq!(queued, 0);
        assert_eq!(self.ledger.used(), 0, "memory is still held");
        assert_eq!(total("otelcol_exporter_in_flight_requests"), 0);
        assert_eq!(total("tidegate_dropped_items"), books[1]);
        assert_eq!(self.supervisor.panicked(), 0);
        books
    }
}

/// A request in two pieces, one resource each.
fn request(ids: std::ops::Range<u64>) -> Rope {
    let middle = (ids.start + ids.end) / 2;
    let mut rope = Rope::new();
    for ids in [ids.start..middle, middle..ids.end] {
        if ids.is_empty() {
            continue;
        }
        let span = |id: u64| Span {
            trace_id: vec![7; 16],
            span_id: id.to_be_bytes().to_vec(),
            name: format!("GET /api/v1/things/{id}"),
            ..Span::default()
        };
        let scope = ScopeSpans { spans: ids.map(span).collect(), ..ScopeSpans::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        let message = ExportTraceServiceRequest { resource_spans: vec![resource] };
        rope.push(message.encode_to_vec().into());
    }
    rope
}

/// Every id arrived; once, unless repetition is allowed.
fn assert_all(backend: &Backend, ids: std::ops::Range<u64>, repeated: bool) {
    let mut taken = backend.taken();
    taken.sort_unstable();
    if repeated {
        taken.dedup();
    }
    let want: Vec<u64> = ids.collect();
    assert!(taken == want, "{} arrived, {} wanted", taken.len(), want.len());
}

fn grpc(backend: &Backend) -> OtlpGrpcConfig {
    let mut config = OtlpGrpcConfig::default();
    config.client.endpoint = GrpcEndpoint::parse(&backend.address.to_string()).unwrap();
    config.client.compression = GrpcCompression::None;
    config.client.tls.insecure = true;
    config.timeout = Duration::from_secs(2);
    config.retry_on_failure.initial_interval = Duration::from_millis(5);
    config.retry_on_failure.max_interval = Duration::from_millis(20);
    config
}

#[tokio::test]
async fn grpc_delivers_through_failures_exactly_what_was_offered() {
    let script = vec![
        Reply::Ok,
        Reply::Grpc(14, "later", None),
        Reply::Close,
        Reply::Grpc(8, "slow down", Some(Duration::from_millis(30))),
        Reply::Http(503, vec![], b"proxy".to_vec()),
    ];
    let backend = Backend::start(script, Reply::Ok).await;
    let rig = Rig::start("otlp", &grpc(&backend)).await;
    for i in 0..20u64 {
        assert_eq!(rig.ask(i * 100..(i + 1) * 100).await, Verdict::Accepted);
    }
    assert_eq!(rig.drain(10.0).await, Leftover::default());
    // What crossed a cut connection may arrive twice, never not at all.
    assert_all(&backend, 0..2000, true);
    assert_eq!(rig.books(), [2000, 0, 0]);
}

#[tokio::test]
async fn grpc_large_requests_cross_in_every_write_mode() {
    let backend = Backend::start(vec![], Reply::Ok).await;
    for (write, read) in [(0, 0), (1000, 10), (64 << 10, 32 << 10), (512 << 10, 0)] {
        for compression in
            [GrpcCompression::None, GrpcCompression::Gzip, GrpcCompression::Zstd, GrpcCompression::Snappy]
        {
            let mut config = grpc(&backend);
            config.client.write_buffer_size = write;
            config.client.read_buffer_size = read;
            config.client.compression = compression;
            let mut headers = Headers::default();
            assert!(headers.insert("X-Scope-OrgID", "team"));
            config.client.headers = headers;
            let rig = Rig::start("otlp_grpc", &config).await;
            for i in 0..8u64 {
                rig.offer(i * 4000..(i + 1) * 4000);
            }
            assert_eq!(rig.drain(20.0).await, Leftover::default());
            assert_eq!(rig.books(), [32_000, 0, 0]);
        }
    }
    let seen = backend.seen();
    assert_eq!(seen.len(), 16 * 8);
    // Compression is on where it was asked for.
    assert!(seen.iter().any(|s| s.wire_bytes * 4 < seen[0].wire_bytes));
    for request in seen {
        assert_eq!(request.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        assert_eq!(request.headers["x-scope-orgid"], "team");
        assert_eq!(request.headers["grpc-timeout"], "2000m");
    }
}

fn http(backend: &Backend) -> OtlpHttpConfig {
    let mut config = OtlpHttpConfig::default();
    config.client.endpoint = HttpUrl::parse(&format!("http://{}/", backend.address)).unwrap();
    config.client.timeout = Duration::from_secs(2);
    config.client.compression = HttpCompression::None;
    config.retry_on_failure.initial_interval = Duration::from_millis(5);
    config.retry_on_failure.max_interval = Duration::from_millis(20);
    config
}

#[tokio::test]
async fn http_delivers_through_failures_exactly_what_was_offered() {
    let script = vec![
        Reply::Ok,
        Reply::Http(503, vec![], b"later".to_vec()),
        Reply::Close,
        Reply::Http(429, vec![("retry-after", "1".into())], vec![]),
        Reply::Http(502, vec![], b"proxy".to_vec()),
        Reply::Http(504, vec![], b"proxy".to_vec()),
    ];
    let backend = Backend::start(script, Reply::Ok).await;
    let rig = Rig::start("otlphttp", &http(&backend)).await;
    for i in 0..20u64 {
        assert_eq!(rig.ask(i * 100..(i + 1) * 100).await, Verdict::Accepted);
    }
    assert_eq!(rig.drain(10.0).await, Leftover::default());
    assert_all(&backend, 0..2000, true);
    assert_eq!(rig.books(), [2000, 0, 0]);
    assert!(backend.seen().iter().all(|s| s.path == "/v1/traces"));
}

#[tokio::test]
async fn http_bodies_in_every_form() {
    let backend = Backend::start(vec![], Reply::Ok).await;
    let codecs = [
        HttpCompression::None,
        HttpCompression::Gzip,
        HttpCompression::Zlib,
        HttpCompression::Deflate,
        HttpCompression::Zstd,
        HttpCompression::Snappy,
        HttpCompression::SnappyFramed,
        HttpCompression::Lz4,
    ];
    let mut sent = 0;
    for codec in codecs {
        for encoding in [Encoding::Proto, Encoding::Json] {
            let mut config = http(&backend);
            config.client.compression = codec;
            config.encoding = encoding;
            config.client.endpoint = HttpUrl::default();
            config.traces_endpoint = HttpUrl::parse(&format!("http://{}/own?x=1", backend.address)).unwrap();
            assert!(config.client.headers.insert("x-scope-orgid", "team"));
            let rig = Rig::start("otlp_http", &config).await;
            for i in 0..4u64 {
                rig.offer(sent + i * 1000..sent + (i + 1) * 1000);
            }
            sent += 4000;
            assert_eq!(rig.drain(20.0).await, Leftover::default());
            assert_eq!(rig.books(), [4000, 0, 0]);
        }
    }
    assert_all(&backend, 0..sent, false);
    for request in backend.seen() {
        assert_eq!(request.path, "/own");
        assert_eq!(request.headers["x-scope-orgid"], "team");
        assert!(request.headers["user-agent"].to_str().unwrap().starts_with("tidegate/"));
    }
}

#[tokio::test]
async fn each_request_names_its_tenant() {
    for (header, type_name) in
        [("X-Scope-OrgID", "otlp_grpc"), ("THANOS-TENANT", "otlp_http"), ("", "otlp_http")]
    {
        let backend = Backend::start(vec![], Reply::Ok).await;
        let (mut over_grpc, mut over_http) = (grpc(&backend), http(&backend));
        over_grpc.tenant.header = header.to_owned();
        over_http.tenant.header = header.to_owned();
        let grpc = type_name == "otlp_grpc";
        let rig = Rig::start(type_name, if grpc { &over_grpc } else { &over_http }).await;
        let tenants = [None, Some(Tenant::new("team-a")), Some(Tenant::new("team-b"))];
        let owner = |id: u64| &tenants[id as usize / 10 % tenants.len()];
        for start in (0..600).step_by(10) {
            let batch = rig.batch(start..start + 10, Acks::none());
            rig.exporter.consume(Batch { tenant: owner(start).clone(), ..batch });
        }
        assert_eq!(rig.drain(20.0).await, Leftover::default());
        assert_eq!(rig.books(), [600, 0, 0]);
        assert_all(&backend, 0..600, false);
        for request in backend.seen() {
            let named = request.headers.get(if header.is_empty() { "x-scope-orgid" } else { header });
            for id in request.spans {
                let want = owner(id).as_ref().map(Tenant::name).filter(|_| !header.is_empty());
                assert_eq!(named.map(|v| v.to_str().unwrap()), want, "{header} {id}");
            }
        }
    }
}

/// What one answer means: sent, failed and refused of ten spans, and how many requests were made.
#[tokio::test]
async fn answers_mean_what_the_tables_say() {
    use Reply::{Grpc, Http, Ok, Partial};
    let again = Some(Duration::from_millis(50));
    let grpc_cases = vec![
        (Grpc(14, "unavailable", None), [10, 0, 0], 2),
        (Grpc(1, "cancelled", None), [10, 0, 0], 2),
        (Grpc(4, "deadline", None), [10, 0, 0], 2),
        (Grpc(10, "aborted", None), [10, 0, 0], 2),
        (Grpc(11, "out of range", None), [10, 0, 0], 2),
        (Grpc(15, "data loss", None), [10, 0, 0], 2),
        (Grpc(2, "unknown", None), [0, 10, 0], 1),
        (Grpc(3, "bad", None), [0, 10, 0], 1),
        (Grpc(7, "denied", None), [0, 10, 0], 1),
        (Grpc(8, "exhausted", None), [0, 10, 0], 1),
        (Grpc(8, "exhausted", again), [10, 0, 0], 2),
        (Grpc(9, "precondition", None), [0, 10, 0], 1),
        (Grpc(12, "unimplemented", None), [0, 10, 0], 1),
        (Grpc(13, "internal", None), [0, 10, 0], 1),
        (Grpc(16, "unauthenticated", None), [0, 10, 0], 1),
        (Partial(3, "no"), [7, 3, 0], 1),
        (Partial(0, "mind the gap"), [10, 0, 0], 1),
        (Partial(-5, "liar"), [10, 0, 0], 1),
        (Partial(1_000_000, "liar"), [0, 10, 0], 1),
        (Http(502, vec![], vec![]), [10, 0, 0], 2),
        (Http(404, vec![], vec![]), [0, 10, 0], 1),
        (Ok, [10, 0, 0], 1),
    ];
    for (reply, books, requests) in grpc_cases {
        let backend = Backend::start(vec![reply.clone()], Reply::Ok).await;
        let rig = Rig::start("otlp", &grpc(&backend)).await;
        rig.offer(0..10);
        assert_eq!(rig.drain(10.0).await, Leftover::default());
        assert_eq!((rig.books(), backend.seen().len()), (books, requests), "{reply:?}");
        if let Reply::Grpc(8, _, Some(delay)) = reply {
            let seen = backend.seen();
            assert!(seen[1].at - seen[0].at >= delay, "T12");
        }
    }
    let json = |body: &str| (vec![("content-type", "application/json".to_owned())], body.as_bytes().to_vec());
    let (kind, partial) = json(r#"{"partialSuccess":{"rejectedSpans":"3"}}"#);
    let mut http_cases = vec![
        (Http(429, vec![], vec![]), [10, 0, 0], 2),
        (Http(429, vec![("retry-after", "1".into())], vec![]), [10, 0, 0], 2),
        (Http(503, vec![("retry-after", "junk".into())], vec![]), [10, 0, 0], 2),
        (Http(200, kind, partial), [7, 3, 0], 1),
        (Http(204, vec![], vec![]), [10, 0, 0], 1),
        (Http(200, vec![], vec![b'x'; 1 << 20]), [10, 0, 0], 1),
        (Http(200, vec![("content-type", "application/x-protobuf".into())], b"\x0a".to_vec()), [0, 10, 0], 1),
        (Partial(3, "no"), [7, 3, 0], 1),
        (Reply::TakeAndClose, [10, 0, 0], 2),
    ];
    http_cases.extend([301, 307, 400, 401, 403, 404, 408, 500, 501, 505].map(|s| {
        (Http(s, vec![("location", "/elsewhere".into()), ("retry-after", "1".into())], vec![]), [0, 10, 0], 1)
    }));
    for (reply, books, requests) in http_cases {
        let backend = Backend::start(vec![reply.clone()], Reply::Ok).await;
        let rig = Rig::start("otlp_http", &http(&backend)).await;
        rig.offer(0..10);
        assert_eq!(rig.drain(10.0).await, Leftover::default());
        assert_eq!((rig.books(), backend.seen().len()), (books, requests), "{reply:?}");
        if let Reply::Http(429, headers, _) = reply
            && !headers.is_empty()
        {
            let seen = backend.seen();
            assert!(seen[1].at - seen[0].at >= Duration::from_secs(1), "T11");
        }
    }
}

#[tokio::test]
async fn what_a_backend_finds_too_large_is_halved() {
    let backend = Backend::start(vec![], Reply::AtMost(30)).await;
    let rigs = [Rig::start("otlp", &grpc(&backend)).await, Rig::start("otlp_http", &http(&backend)).await];
    for (rig, ids) in rigs.iter().zip([0..1000, 1000..2000]) {
        rig.offer(ids);
        assert_eq!(rig.drain(10.0).await, Leftover::default());
        assert_eq!(rig.books(), [1000, 0, 0]);
    }
    assert_all(&backend, 0..2000, false);
    backend.otherwise(Reply::AtMost(0));
    let rig = Rig::start("otlp", &grpc(&backend)).await;
    rig.offer(0..7);
    assert_eq!(rig.drain(10.0).await, Leftover::default());
    assert_eq!(rig.books(), [0, 7, 0]);
}

#[tokio::test]
async fn a_hanging_backend_costs_one_timeout_and_the_deadline_holds() {
    let backend = Backend::start(vec![Reply::Hang], Reply::Ok).await;
    let mut config = grpc(&backend);
    config.timeout = Duration::from_millis(200);
    let rig = Rig::start("otlp", &config).await;
    rig.offer(0..10);
    assert_eq!(rig.drain(10.0).await, Leftover::default());
    assert_eq!(rig.books(), [10, 0, 0]);
    assert_eq!(backend.seen().len(), 2);
    assert_eq!(backend.connections(), 1, "a timeout resets the stream, not the connection");

    backend.otherwise(Reply::Hang);
    let rig = Rig::start("otlp_http", &http(&backend)).await;
    rig.offer(0..10);
    let start = Instant::now();
    assert_eq!(rig.drain(0.5).await, Leftover { lost: 10, kept: 0 });
    assert!(start.elapsed() < Duration::from_millis(1500));
    assert_eq!(rig.books(), [0, 10, 0]);
}

#[tokio::test]
async fn a_backend_that_is_not_there_yet_is_waited_for() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = OtlpGrpcConfig::default();
    config.client.endpoint = GrpcEndpoint::parse(&gone.to_string()).unwrap();
    config.client.tls.insecure = true;
    config.retry_on_failure.initial_interval = Duration::from_millis(20);
    // Without a queue the sender hears of it, and may try again.
    config.sending_queue = Optional::none(Default::default());
    config.retry_on_failure.enabled = false;
    let rig = Rig::start("otlp", &config).await;
    let verdict = rig.ask(0..10).await;
    assert!(
        matches!(&verdict, Verdict::Retry { reason, .. } if reason.contains("connection error")),
        "{verdict:?}"
    );
    assert_eq!(rig.books(), [0, 0, 10]);
    let verdict = rig.ask(0..10).await;
    assert!(matches!(verdict, Verdict::Retry { .. }));
}

#[tokio::test]
async fn grpc_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("otlp.sock");
    let backend = Backend::start_unix(&path).await;
    let mut config = grpc(&backend);
    config.client.endpoint = GrpcEndpoint::parse(&format!("unix://{}", path.display())).unwrap();
    let rig = Rig::start("otlp", &config).await;
    rig.offer(0..1000);
    assert_eq!(rig.drain(10.0).await, Leftover::default());
    assert_all(&backend, 0..1000, false);
    assert_eq!(rig.books(), [1000, 0, 0]);
}

/// Certificates for `localhost`, and what each side needs of them.
struct Pki {
    server: Arc<rustls::ServerConfig>,
    ca: String,
    client: (String, String),
}

fn pki() -> Pki {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let signed = || {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let ((server_cert, server_key), (client_cert, client_key)) = (signed(), signed());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server_cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Pki {
        server: Arc::new(server),
        ca: ca_cert.pem(),
        client: (client_cert.pem(), client_key.serialize_pem()),
    }
}

#[tokio::test]
async fn both_speak_mutual_tls() {
    let pki = pki();
    let backend = Backend::start_with(vec![], Reply::Ok, Some(pki.server.clone())).await;
    let tls = |with_key: bool, name: &str| {
        let mut tls = tidegate::net::tls::TlsClientConfig::default();
        tls.settings.ca_pem = pki.ca.as_str().into();
        tls.server_name_override = name.to_owned();
        // The authority wins over this.
        tls.insecure = true;
        if with_key {
            tls.settings.cert_pem = pki.client.0.as_str().into();
            tls.settings.key_pem = pki.client.1.as_str().into();
        }
        tls
    };
    for (with_key, name, works) in
        [(true, "localhost", true), (false, "localhost", false), (true, "elsewhere", false)]
    {
        let books = if works { [1000, 0, 0] } else { [0, 1000, 0] };
        let mut config = grpc(&backend);
        config.client.tls = tls(with_key, name);
        config.retry_on_failure.enabled = false;
        let rig = Rig::start("otlp", &config).await;
        rig.offer(0..1000);
        rig.drain(10.0).await;
        assert_eq!(rig.books(), books, "grpc {with_key} {name}");

        let mut config = http(&backend);
        config.client.endpoint = HttpUrl::parse(&format!("https://{}", backend.address)).unwrap();
        config.client.tls = tls(with_key, name);
        config.retry_on_failure.enabled = false;
        let rig = Rig::start("otlp_http", &config).await;
        rig.offer(1000..2000);
        rig.drain(10.0).await;
        assert_eq!(rig.books(), books, "http {with_key} {name}");
    }
    assert_all(&backend, 0..2000, false);
}
