//! Tenants cannot hurt each other: fifty of them, one of which sends twenty times its limit, one is throttled by the
//! destination, one sends what the destination refuses as bad. The others see no refusal and no loss, and no item ever
//! appears under another tenant or without one.
//!
//! First everybody behaves, then the three do not. `TIDEGATE_ISOLATION_SECONDS` says how long each phase takes (60 for
//! the full promise). Latencies of the others in both phases are printed; with `TIDEGATE_ISOLATION_P99` set (130), the second
//! may be at most that many percent of the first: only a quiet machine can promise that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "test code"
)]

#[path = "isolation/sink.rs"]
mod sink;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use sink::{Sink, Treat};
use support::agent::Agent;
use support::load::{Client, Outcome, Target};
use support::otlp::{ToValue, attributes};
use support::{Compression, Signal, from_env};

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@', include_metadata: true}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 256}
  tenant:
    from: [{metadata: x-scope-orgid}]
    unresolved: refuse
    attribute: tenant.id
    limits: {default: {items_per_second: 200, on_limit: refuse}}
  batch: {timeout: 50ms}
exporters:
  otlp_grpc:
    endpoint: '@TO@'
    tls: {insecure: true}
    compression: none
    sending_queue: {queue_size: 5000}
    retry_on_failure: {initial_interval: 1s, max_elapsed_time: 0s}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [memory_limiter, tenant, batch], exporters: [otlp_grpc]}
";

const TENANTS: usize = 50;
const NOISY: usize = 0;
const THROTTLED: usize = 1;
const BAD: usize = 2;
/// Spans a request, and requests a second of a tenant that behaves: half of its limit.
const SPANS: u64 = 25;
const RATE: f64 = 4.0;

/// What one tenant's client was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<u64>,
    refused: BTreeMap<String, u64>,
    refused_items: u64,
    hints: u64,
}

fn name(tenant: usize) -> String {
    format!("team-{tenant:02}")
}

fn request(tenant: &str, first: u64, items: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let span = |number: u64| Span {
        trace_id: [number.to_be_bytes(), number.to_be_bytes()].concat(),
        span_id: number.to_be_bytes().to_vec(),
        name: "GET /items".into(),
        start_time_unix_nano: now,
        end_time_unix_nano: now + 1,
        attributes: attributes(&[("owner", &tenant), ("http.route", &"/items"), ("n", &(number as i64))]),
        ..Span::default()
    };
    let service: &dyn ToValue = &"shop";
    let resource_spans = vec![ResourceSpans {
        resource: Some(Resource {
            attributes: attributes(&[("service.name", service)]),
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: (first..first + items).map(span).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// Sends as one tenant for as long as told, at `rate` requests a second times what `factor` says; no retries.
async fn send(
    tenant: usize,
    client: Arc<Client>,
    numbers: Arc<AtomicU64>,
    factor: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Told {
    let name = name(tenant);
    let headers = vec![("x-scope-orgid", name.clone())];
    let mut told = Told::default();
    // Spread over the period, so that fifty clients are not one burst.
    let mut due = Instant::now() + Duration::from_secs_f64(tenant as f64 / TENANTS as f64 / RATE);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(due.into()).await;
        let factor = if tenant == NOISY { factor.load(Ordering::Relaxed) } else { 1 };
        due += Duration::from_secs_f64(1.0 / RATE / factor as f64);
        let first = numbers.fetch_add(SPANS, Ordering::Relaxed);
        let body = client.encode(Signal::Traces, Compression::None, &request(&name, first, SPANS));
        match client.send(&body, &headers, Duration::from_secs(30)).await {
            Outcome::Accepted { rejected: 0 } => told.acknowledged.extend(first..first + SPANS),
            other => {
                told.hints += u64::from(matches!(&other, Outcome::Retry { after: Some(_), .. }));
                let what = match other {
                    Outcome::Retry { what, .. } => what,
                    other => format!("{other:?}"),
                };
                *told.refused.entry(what).or_default() += 1;
                told.refused_items += SPANS;
            }
        }
    }
    told
}

fn percentile(latencies: &mut [Duration], part: f64) -> Duration {
    latencies.sort_unstable();
    let at = ((latencies.len() as f64 * part) as usize).min(latencies.len().saturating_sub(1));
    latencies.get(at).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_notice_nothing() {
    let seconds = from_env("TIDEGATE_ISOLATION_SECONDS", 5);
    let phase = Duration::from_secs(seconds);
    let sink = Sink::start().await;
    let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT).mark("TO", sink.address).start();
    let numbers = Arc::new(AtomicU64::new(1));
    let (factor, stop) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4).map(|_| Arc::new(Client::new(Target::Grpc(agent.grpc)))).collect();
    let senders: Vec<_> = (0..TENANTS)
        .map(|t| {
            let client = clients[t % clients.len()].clone();
            tokio::spawn(send(t, client, numbers.clone(), factor.clone(), stop.clone()))
        })
        .collect();
    let begun = SystemTime::now();
    tokio::time::sleep(phase).await;
    let disturbed = SystemTime::now();
    sink.treat(&name(THROTTLED), Treat::Throttle(Instant::now() + phase, Duration::from_secs(5)));
    sink.treat(&name(BAD), Treat::Refuse);
    // A tenant that behaves sends half of its limit.
    factor.store(40, Ordering::Relaxed);
    tokio::time::sleep(phase).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for sender in senders {
        told.push(sender.await.unwrap());
    }
    let ended = SystemTime::now();
    // The throttled tenant's data leaves once it may.
    let delivered = |tenant: usize| told[tenant].acknowledged.iter().all(|n| sink.has(&name(tenant), *n));
    support::eventually(Duration::from_secs(60), "everything that was acknowledged arrives", || {
        (0..TENANTS).filter(|t| *t != BAD).all(delivered)
    })
    .await;
    let metric = |name: &str, labels: &str| agent.metric(name, labels);
    let refused_metric = metric("tidegate_tenant_items", &format!("tenant=\"{}\"", name(NOISY)));
    assert!(refused_metric > 0.0, "the agent counts by tenant");
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(30)));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());

    assert_eq!(sink.violations(), Vec::<String>::new());
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for (tenant, told) in told.iter().enumerate() {
        let arrived = sink.arrived(&name(tenant));
        match tenant {
            NOISY => {
                assert!(told.refused_items > 0, "twenty times the limit is refused");
                let of = format!("{:?}", told.refused);
                assert_eq!(
                    told.hints * SPANS,
                    told.refused_items,
                    "each refusal says when to come back: {of}"
                );
                // The limit holds: what was let in is one second's worth at first, and the rate after that. Half of the
                // limit is used in the first phase.
                let let_in = told.acknowledged.len() as f64;
                let allowed = 100.0 * seconds as f64
                    + 200.0 * (ended.duration_since(disturbed).unwrap().as_secs_f64() + 1.0);
                assert!(let_in <= allowed * 1.02 + 2.0 * SPANS as f64, "{let_in} of {allowed} allowed");
            }
            BAD => assert!(arrived.refused > 0 && told.refused.is_empty(), "{:?}", told.refused),
            THROTTLED => assert!(arrived.refused > 0, "it was throttled"),
            _ => {
                assert_eq!(told.refused, BTreeMap::new(), "{} was refused something", name(tenant));
                let twice = arrived.stored.values().filter(|n| **n > 1).count();
                assert_eq!((arrived.stored.len(), twice), (told.acknowledged.len(), 0), "{}", name(tenant));
                for (sent, latency) in arrived.latencies {
                    if sent >= disturbed {
                        during.push(latency);
                    } else if sent >= begun + Duration::from_secs(1) {
                        before.push(latency);
                    }
                }
            }
        }
    }
    let [p50, p99] = [0.5, 0.99].map(|p| (percentile(&mut before, p), percentile(&mut during, p)));
    println!(
        "{} tenants, two phases of {seconds} s; the other {}: p50 {:.1?} then {:.1?}, p99 {:.1?} then {:.1?} ({:.2} times); \
         noisy: {} items in, {} refused; {} items in all",
        TENANTS,
        TENANTS - 3,
        p50.0,
        p50.1,
        p99.0,
        p99.1,
        p99.1.as_secs_f64() / p99.0.as_secs_f64(),
        told[NOISY].acknowledged.len(),
        told[NOISY].refused_items,
        numbers.load(Ordering::Relaxed) - 1,
    );
    let most: f64 = from_env("TIDEGATE_ISOLATION_P99", 0) as f64;
    if most > 0.0 {
        assert!(p99.1.as_secs_f64() <= p99.0.as_secs_f64() * most / 100.0, "in percent: {most}");
    }
}
