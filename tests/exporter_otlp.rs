//! `otlp_grpc` and `otlp_http` against a strict backend over real sockets that fails in every way it can.

#![allow(clippy::disallowed_methods, reason = "the backend's tasks need no supervisor")]

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
use tidegate::config::types::{GrpcEndpoint, Headers};
use tidegate::exporters::otlp_grpc::OtlpGrpcConfig;
use tidegate::net::client::GrpcCompression;
use tidegate::pdata::{Batch, Rope, Signal};
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
            let families = self.metrics.registry().gather();
            let of = |f: &prometheus::proto::MetricFamily| {
                f.get_metric()
                    .iter()
                    .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
                    .sum::<f64>()
            };
            families.iter().filter(|f| f.get_name() == name).map(of).sum::<f64>() as u64
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
    for request in seen {
        assert_eq!(request.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        assert_eq!(request.headers["x-scope-orgid"], "team");
        assert_eq!(request.headers["grpc-timeout"], "2000m");
    }
}
