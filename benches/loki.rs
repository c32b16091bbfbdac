//! What a log record costs on its way to Loki, next to the plain way: decode with prost, maps, encode with prost,
//! compress.
//!
//! `cargo bench --bench loki`; arguments: `--streams 10,1000,100000`, `--rounds 5`, `--no-plain`. CPU nanoseconds an
//! entry of the thread that does the work, the best of the rounds. A record has about 500 bytes: a line of 200, ten
//! attributes, severity, trace and span id, six resource attributes. Requests hold 1,000 records of 10 resources, or of
//! as many as there are streams to fill 100 requests.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measurement")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tidegate::exporters::delivery::sharded::{Report, ShardBody, ShardEncoder};
use tidegate::loki::{DEFAULT_LABELS, Limits, LokiEncoder, LokiOptions};
use tidegate::pdata::wire::Cursor;
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal};
use tidegate::pipeline::Acks;
use tidegate::prometheus::names::loki_label;
use tidegate::prometheus::text::value_text;

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../src/loki/tests/plain.rs"]
mod plain;

const RECORDS: usize = 1000;
const REQUESTS: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let list = |name: &str, default: &str| -> Vec<usize> {
        let given = args.iter().position(|a| a == name).and_then(|at| args.get(at + 1));
        given.map_or(default, String::as_str).split(',').map(|n| n.parse().unwrap()).collect()
    };
    let rounds = list("--rounds", "5")[0];
    println!(
        "CPU nanoseconds an entry      hit    miss   =hash  +encode  +snappy   plain  times    bytes  on wire"
    );
    for &streams in &list("--streams", "10,1000,100000") {
        let load: Vec<Vec<u8>> = (0..REQUESTS).map(|at| request(at, streams).encode_to_vec()).collect();
        measure(&load, streams, rounds, !args.iter().any(|a| a == "--no-plain"));
    }
}

fn measure(load: &[Vec<u8>], streams: usize, rounds: usize, plain: bool) {
    let entries = load.len() * RECORDS;
    let mut encoder = LokiEncoder::new(LokiOptions {
        limits: Limits { streams: 0, ..Limits::default() },
        cache_bytes: 1 << 30,
        ..LokiOptions::default()
    });
    let mut report = Report::new(encoder.shards());
    // Requests are dropped as they are closed, as in the agent; one round's are kept at the end.
    let mut run = |keep: &mut Option<Vec<Vec<u8>>>| {
        let mut spent = Duration::ZERO;
        let (mut items, mut wire) = (0, 0);
        for at in 0..=load.len() {
            let batch = load.get(at).map(|bytes| batch(bytes.clone()));
            let start = cpu();
            match &batch {
                Some(batch) => encoder.encode(batch, &mut report.output()),
                None => {
                    for shard in 0..encoder.shards() {
                        if let Some(body) = encoder.close(shard) {
                            report.output().full(shard, body);
                        }
                    }
                }
            }
            spent += cpu() - start;
            for closed in report.take_closed() {
                items += closed.body.items();
                wire += closed.body.wire().len();
                if let Some(keep) = keep {
                    keep.push(closed.body.message().unwrap());
                }
            }
            report.clear();
        }
        assert_eq!(items, entries);
        (per(spent, entries), wire)
    };
    let miss = run(&mut None).0;
    let hit = (0..rounds).map(|_| run(&mut None).0).fold(f64::MAX, f64::min);
    let mut kept = Some(Vec::new());
    let wire = run(&mut kept).1;
    let messages = kept.unwrap_or_default();
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let best = |mut of: Box<dyn FnMut() -> Duration + '_>| {
        (0..rounds).map(|_| per(of(), entries)).fold(f64::MAX, f64::min)
    };
    let snappy = best(Box::new(|| {
        let mut encoder = snap::raw::Encoder::new();
        let start = cpu();
        for message in &messages {
            black_box(encoder.compress_vec(message).unwrap());
        }
        cpu() - start
    }));
    let hash = best(Box::new(|| scan(load)));
    let plain = if plain { plain_way(load, rounds.min(3)) } else { f64::NAN };
    println!(
        "{streams:>8} streams         {hit:>8.0} {miss:>7.0} {hash:>7.0} {:>8.0} {snappy:>8.0} {plain:>7.0} {:>6.1} {:>8.0} {:>8.0}",
        hit - hash - snappy,
        plain / hit,
        bytes as f64 / entries as f64,
        wire as f64 / entries as f64,
    );
}

/// Reads every field of every record and hashes the keys of its attributes and its resource: the least that finding
/// stream and names can cost.
fn scan(load: &[Vec<u8>]) -> Duration {
    fn inside<'a>(message: &'a [u8], number: u32, each: &mut dyn FnMut(&'a [u8])) {
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field().unwrap() {
            if field.number == number {
                each(field.value.bytes().unwrap());
            }
        }
    }
    let start = cpu();
    let mut all = 0u64;
    for request in load {
        inside(request, 1, &mut |group| {
            inside(group, 1, &mut |resource| all ^= xxhash_rust::xxh3::xxh3_64(resource));
            inside(group, 2, &mut |scope| {
                inside(scope, 2, &mut |record| {
                    inside(record, 6, &mut |pair| {
                        inside(pair, 1, &mut |key| all ^= xxhash_rust::xxh3::xxh3_64(key));
                    });
                });
            });
        });
    }
    black_box(all);
    cpu() - start
}

fn plain_way(load: &[Vec<u8>], rounds: usize) -> f64 {
    let name = |key: &str| {
        let mut out = String::new();
        loki_label(key, &mut out).ok().map(|()| out)
    };
    let text = |value: &AnyValue| match &value.value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        _ => {
            let (bytes, mut out) = (value.encode_to_vec(), String::new());
            value_text(&tidegate::pdata::common::AnyValue::parse(&bytes).unwrap(), &mut out);
            out
        }
    };
    let rules = plain::Rules { index: &DEFAULT_LABELS, own: &[], name: &name, text: &text };
    let some = load.len().min(20);
    let round = || {
        let start = cpu();
        for bytes in &load[..some] {
            let request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
            black_box(plain::push(plain::entries(&request, &rules)));
        }
        per(cpu() - start, some * RECORDS)
    };
    (0..rounds).map(|_| round()).fold(f64::MAX, f64::min)
}

fn request(at: usize, streams: usize) -> ExportLogsServiceRequest {
    let resources = (streams / REQUESTS).clamp(streams.min(10), RECORDS);
    let resource_logs = (0..resources).map(|r| {
        let stream = (at * resources + r) % streams;
        let attributes = vec![
            text("service.name", &format!("checkout-{stream}")),
            text("k8s.namespace.name", "shop"),
            text("k8s.cluster.name", "eu-1"),
            text("k8s.pod.name", &format!("checkout-{stream}-7f9c6d5b8-x2x4")),
            text("host.name", "ip-10-0-0-17.ec2.internal"),
            text("process.runtime.name", "cpython"),
        ];
        let records = (0..RECORDS / resources).map(|n| record(at, n));
        ResourceLogs {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope { name: "shop.orders".to_owned(), ..Default::default() }),
                log_records: records.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

fn record(at: usize, n: usize) -> LogRecord {
    let line = format!(
        "GET /api/v1/orders/{n} 200 {}ms: order {at}-{n} was read by its owner, with all of its positions, from the \
         replica in the same zone; the cache held {} of them and the rest came from the database",
        n % 97,
        n % 13
    );
    let mut attributes: Vec<KeyValue> = [
        ("http.request.method", "GET"),
        ("http.route", "/api/v1/orders/{id}"),
        ("http.response.status_code", "200"),
        ("url.scheme", "https"),
        ("server.address", "checkout.shop.svc"),
        ("code.function.name", "read_order"),
        ("thread.name", "worker-3"),
    ]
    .iter()
    .map(|(key, value)| text(key, value))
    .collect();
    attributes.push(text("tenant_id", &format!("t-{}", n % 17)));
    attributes.push(text("user_id", &format!("u-{}", n * 31 % 1009)));
    attributes.push(text("request_id", &format!("{:016x}", n * 7919 + at)));
    LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000 + (at * RECORDS + n) as u64 * 1000,
        observed_time_unix_nano: 1_700_000_000_100_000_000,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(line)) }),
        attributes,
        flags: 1,
        trace_id: (n as u128 * 0x9e37_79b9_7f4a_7c15_f39c).to_be_bytes().to_vec(),
        span_id: (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec(),
        ..Default::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn batch(bytes: Vec<u8>) -> Batch {
    Batch {
        signal: Signal::Logs,
        rope: Rope::from(bytes),
        items: RECORDS,
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: std::time::Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    }
}

fn per(spent: Duration, count: usize) -> f64 {
    spent.as_nanos() as f64 / count as f64
}

/// CPU time of this thread.
#[allow(unsafe_code, reason = "the standard library has no clock for it")]
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time`, which outlives it.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
