//! What a sample costs on its way to remote write, next to the plain way: decode with prost, build labels, sort,
//! encode with prost, compress.
//!
//! `cargo bench --bench remote_write`; arguments: `--series 100000,1000000`, `--labels 10,30`, `--rounds 5`,
//! `--versions 1,2`, `--no-send`, `--no-plain`. CPU nanoseconds a sample of the thread that does the work, the best
//! of the rounds; resident memory is what knowing the series added.
//!
//! A series has the labels that are asked for: `__name__`, `job`, `instance`, and the rest from its attributes.
//! Requests hold 1,000 points, 50 of each of 20 metrics, of one of 50 resources.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measurement")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tidegate::exporters::delivery::sharded::{Report, ShardEncoder};
use tidegate::pdata::wire::Cursor;
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal};
use tidegate::pipeline::Acks;
use tidegate::prometheus::map::{MapOptions, ResourceLabels};
use tidegate::prometheus::names::{Namer, Shape, TranslationStrategy};
use tidegate::prometheus::remote::{
    Exponential, Negotiation, OutOfOrder, RemoteEncoder, RemoteOptions, Version, WriteBody,
};

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../src/prometheus/remote/tests/plain.rs"]
mod plain;

const POINTS: usize = 1000;
const METRICS: usize = 20;
const RESOURCES: usize = 50;
const NOW: u64 = 1_700_000_000_000_000_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == "--memory") {
        let number = |n: usize| args[at + n].parse::<usize>().unwrap();
        return memory(number(1), number(2), if number(3) == 1 { Version::V1 } else { Version::V2 });
    }
    let list = |name: &str, default: &str| -> Vec<usize> {
        let given = args.iter().position(|a| a == name).and_then(|at| args.get(at + 1));
        given.map_or(default, String::as_str).split(',').map(|n| n.parse().unwrap()).collect()
    };
    let has = |name: &str| args.iter().any(|a| a == name);
    let rounds = list("--rounds", "5")[0];
    println!(
        "CPU nanoseconds a sample                      hit    miss  =scan+hash  +encode  +snappy   +send   bytes  on wire   MiB/M series"
    );
    for &series in &list("--series", "100000,1000000") {
        for &labels in &list("--labels", "10,30") {
            let mut load = Load::new(series, labels);
            for &version in &list("--versions", "1,2") {
                let version = if version == 1 { Version::V1 } else { Version::V2 };
                measure(&mut load, version, series, labels, rounds, !has("--no-send"));
            }
            if !has("--no-plain") {
                plain_way(&mut load, series, labels, rounds.min(3));
            }
        }
    }
}

fn measure(load: &mut Load, version: Version, series: usize, labels: usize, rounds: usize, send: bool) {
    let held = memory_of_a_process(series, labels, version);
    let mut encoder = RemoteEncoder::new(options(version));
    let mut report = Report::new(encoder.shards());
    // Requests are dropped as they are closed, as in the agent. With `keep` one round's are kept.
    let mut run = |load: &mut Load, encoder: &mut RemoteEncoder, keep: &mut Option<Vec<WriteBody>>| {
        load.step += 1;
        let mut encoding = Duration::ZERO;
        let mut samples = 0;
        for at in 0..=load.encoded.len() {
            // As if it had just been received.
            let batch = load.batch(at);
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
            encoding += cpu() - start;
            for closed in report.take_closed() {
                samples += closed.body.counts().samples;
                if let Some(keep) = keep {
                    keep.push(closed.body);
                }
            }
            report.clear();
        }
        assert_eq!(samples, series);
        per(encoding, series)
    };
    let miss = run(load, &mut encoder, &mut None);
    let hit = (0..rounds).map(|_| run(load, &mut encoder, &mut None)).fold(f64::MAX, f64::min);
    let mut kept = Some(Vec::new());
    run(load, &mut encoder, &mut kept);
    let last = kept.unwrap_or_default();
    let cache = encoder.cache();
    assert_eq!(cache.misses, series as u64, "after the first round every series is known");
    let messages: Vec<bytes::Bytes> = last.iter().map(|b| b.message().unwrap()).collect();
    let plain_bytes: usize = messages.iter().map(bytes::Bytes::len).sum();
    let wire: usize = last.iter().map(|b| b.wire().len()).sum();
    let snappy = (0..rounds).map(|_| per(compress(&messages), series)).fold(f64::MAX, f64::min);
    let hash = (0..rounds).map(|_| per(load.hash(), series)).fold(f64::MAX, f64::min);
    let sent = if send {
        (0..rounds.min(3)).map(|_| per(post(&last), series)).fold(f64::MAX, f64::min)
    } else {
        0.0
    };
    println!(
        "{version:?} {series:>8} series {labels:>2} labels    {:>8.0} {miss:>7.0} {hash:>11.0} {:>8.0} {snappy:>8.0} {sent:>7.0} {:>7.0} {:>8.1} {:>14.0}",
        hit,
        hit - hash - snappy,
        plain_bytes as f64 / series as f64,
        wire as f64 / series as f64,
        held / f64::from(1 << 20) / series as f64 * 1e6,
    );
}

/// Prints how many bytes knowing so many series takes, as the system counts them. In a process of its own, which
/// makes one request at a time.
fn memory(series: usize, labels: usize, version: Version) {
    let mut encoder = RemoteEncoder::new(options(version));
    let mut report = Report::new(encoder.shards());
    let mut before = 0;
    for at in 0..series / POINTS {
        let batch = batch(request(at, labels).encode_to_vec());
        encoder.encode(&batch, &mut report.output());
        report.clear();
        if at == 0 {
            before = resident();
        }
    }
    println!("{}", resident() - before);
}

fn memory_of_a_process(series: usize, labels: usize, version: Version) -> f64 {
    let version = if version == Version::V1 { "1" } else { "2" };
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--memory", &series.to_string(), &labels.to_string(), version])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

/// Compresses messages piece by piece, as the encoder does while they grow.
fn compress(messages: &[bytes::Bytes]) -> Duration {
    let mut encoder = snap::raw::Encoder::new();
    let mut buffer = vec![0; snap::raw::max_compress_len(1 << 16)];
    let mut piece_in_cache = Vec::with_capacity(1 << 16);
    let mut spent = Duration::ZERO;
    for message in messages {
        for piece in message.chunks(1 << 16) {
            piece_in_cache.clear();
            piece_in_cache.extend_from_slice(piece);
            let start = cpu();
            black_box(encoder.compress(&piece_in_cache, &mut buffer).unwrap());
            spent += cpu() - start;
        }
    }
    spent
}

/// The plain way: with the names cached by nobody.
fn plain_way(load: &mut Load, series: usize, labels: usize, rounds: usize) {
    let namer = Namer::new(TranslationStrategy::UnderscoreEscapingWithSuffixes, "");
    let metric = |name: &str, unit: &str, _| {
        let mut out = String::new();
        namer.metric(name, unit, Shape::Counter, &mut out).ok().map(|()| out)
    };
    let label = |key: &str| {
        let mut out = String::new();
        namer.label(key, &mut out).ok().map(|()| out)
    };
    let names = plain::Names { metric: &metric, label: &label };
    let mut best = f64::MAX;
    for _ in 0..rounds {
        load.step += 1;
        // A tenth of a million series is enough to know.
        let some = load.encoded.len().min(100);
        let mut spent = Duration::ZERO;
        for at in 0..some {
            let batch = load.batch(at).unwrap();
            let start = cpu();
            let request = ExportMetricsServiceRequest::decode(&*batch.rope.to_bytes()).unwrap();
            let timeseries = plain::series(&request, &names, false);
            let body = plain::WriteRequest { timeseries }.encode_to_vec();
            black_box(snap::raw::Encoder::new().compress_vec(&body).unwrap());
            spent += cpu() - start;
        }
        best = best.min(per(spent, some * POINTS));
    }
    println!("plain {series:>5} series {labels:>2} labels    {best:>8.0}");
}

/// Requests for all series, at a later time whenever they are asked for.
struct Load {
    encoded: Vec<Vec<u8>>,
    /// Where the times of points stand.
    times: Vec<Vec<usize>>,
    step: u64,
}

impl Load {
    fn new(series: usize, labels: usize) -> Self {
        let requests: Vec<_> = (0..series / POINTS).map(|at| request(at, labels)).collect();
        let encoded: Vec<Vec<u8>> = requests.iter().map(Message::encode_to_vec).collect();
        let marker = NOW.to_le_bytes();
        let times = encoded
            .iter()
            .map(|bytes| {
                let found: Vec<usize> = memchr::memmem::find_iter(bytes, &marker).collect();
                assert_eq!(found.len(), POINTS);
                found
            })
            .collect();
        Load { encoded, times, step: 0 }
    }

    /// One request, at the time of the present step.
    fn batch(&mut self, at: usize) -> Option<Batch> {
        let time = (NOW + self.step * 10_000_000_000).to_le_bytes();
        let (bytes, times) = (self.encoded.get_mut(at)?, &self.times[at]);
        for at in times {
            bytes[*at..at + 8].copy_from_slice(&time);
        }
        Some(batch(bytes.clone()))
    }

    /// Reads every field of every point and hashes its attributes: the least that finding a series can cost.
    fn hash(&self) -> Duration {
        fn inside<'a>(message: &'a [u8], number: u32, each: &mut dyn FnMut(&'a [u8])) {
            let mut cursor = Cursor::new(message);
            while let Some(field) = cursor.next_field().unwrap() {
                if field.number == number {
                    each(field.value.bytes().unwrap());
                }
            }
        }
        let mut spent = Duration::ZERO;
        let mut all = 0;
        for request in &self.encoded {
            let request = request.clone();
            let start = cpu();
            inside(&request, 1, &mut |group| {
                inside(group, 2, &mut |scope| {
                    inside(scope, 2, &mut |metric| {
                        inside(metric, 7, &mut |sum| {
                            inside(sum, 1, &mut |point| {
                                let mut cursor = Cursor::new(point);
                                let (mut from, mut to) = (usize::MAX, 0);
                                while let Some(field) = cursor.next_field().unwrap() {
                                    if field.number == 7 {
                                        from = from.min(field.start);
                                        to = field.end;
                                    }
                                }
                                all ^= xxhash_rust::xxh3::xxh3_128(&point[from..to]);
                            });
                        });
                    });
                });
            });
            spent += cpu() - start;
        }
        black_box(all);
        spent
    }
}

fn request(at: usize, labels: usize) -> ExportMetricsServiceRequest {
    let pod = at % RESOURCES;
    let resource = vec![
        text("service.namespace", "shop"),
        text("service.name", "checkout"),
        text("service.instance.id", &format!("checkout-7f9c6d5b8-{pod:05x}")),
        text("k8s.node.name", &format!("ip-10-0-0-{pod}.ec2.internal")),
    ];
    let metrics = (0..METRICS).map(|m| {
        let data_points = (0..POINTS / METRICS).map(|p| {
            let number = at / RESOURCES * POINTS + m * POINTS / METRICS + p;
            let mut attributes = vec![
                text("http.request.method", ["GET", "POST", "PUT"][p % 3]),
                text("http.response.status_code", ["200", "404", "500"][p / 3 % 3]),
                text("http.route", &format!("/api/v1/resource/{number}")),
                text("server.address", "checkout.shop.svc.cluster.local"),
                text("network.protocol.version", "1.1"),
                text("url.scheme", "https"),
                text("tenant.id", &format!("team-{}", number % 17)),
            ];
            for extra in 10..labels {
                attributes.push(text(
                    &format!("label.number.{extra}"),
                    &format!("value-{}-{}", extra, number / extra % 7),
                ));
            }
            NumberDataPoint {
                attributes,
                start_time_unix_nano: NOW - 3_600_000_000_000,
                time_unix_nano: NOW,
                value: Some(number_data_point::Value::AsDouble(number as f64 * 1.37)),
                ..Default::default()
            }
        });
        let data = metric::Data::Sum(Sum {
            data_points: data_points.collect(),
            aggregation_temporality: 2,
            is_monotonic: true,
        });
        Metric {
            name: format!("http.server.requests.kind_{m}"),
            description: "Requests served.".to_owned(),
            unit: "{request}".to_owned(),
            data: Some(data),
            ..Default::default()
        }
    });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Default::default() }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope { name: "http".to_owned(), ..Default::default() }),
                metrics: metrics.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn options(version: Version) -> RemoteOptions {
    RemoteOptions {
        map: MapOptions {
            namer: Namer::new(TranslationStrategy::UnderscoreEscapingWithSuffixes, ""),
            external_labels: Vec::new(),
            resource_labels: ResourceLabels::None,
            target_info: false,
            scope_labels: false,
        },
        negotiation: Arc::new(Negotiation::new(version)),
        shards: 5,
        max_bytes: 3_000_000,
        cache_bytes: 8 << 30,
        out_of_order: OutOfOrder::Drop,
        sample_age_limit: Duration::ZERO,
        exponential: Exponential::Native,
        custom_buckets: false,
        keep_classic: false,
        metadata: false,
        senders_wait: false,
        partition_keys: Vec::new(),
        delta: None,
    }
}

fn batch(bytes: Vec<u8>) -> Batch {
    Batch {
        signal: Signal::Metrics,
        rope: Rope::from(bytes),
        items: POINTS,
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: std::time::Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    }
}

/// Posts compressed bodies to a sink on another thread that reads and says 204; CPU of the posting thread.
fn post(bodies: &[WriteBody]) -> Duration {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/v1/write", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut have = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = memchr::memmem::find(&have, b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(n) => have.extend_from_slice(&buffer[..n]),
                }
            };
            let text = String::from_utf8_lossy(&have[..head]).to_ascii_lowercase();
            let length: usize =
                text.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
            let mut missing = (head + length).saturating_sub(have.len());
            while missing > 0 {
                let n = stream.read(&mut buffer).unwrap();
                missing = missing.saturating_sub(n);
            }
            have.clear();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let blocks: Vec<bytes::Bytes> = bodies.iter().map(|b| b.wire().clone()).collect();
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let start = cpu();
        for block in blocks {
            let answer =
                client.post(&url).header("content-encoding", "snappy").body(block).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 204);
        }
        cpu() - start
    })
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

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn per(time: Duration, samples: usize) -> f64 {
    time.as_nanos() as f64 / samples as f64
}
