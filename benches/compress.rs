//! What compression costs, per codec, level and direction, on a trace request of 512 spans of about 500 bytes.
//!
//! `cargo bench --bench compress`. MB are 10^6 plain bytes; the best of several rounds is shown, so that a noisy
//! machine matters little. Rows marked `(zlib-rs)` and `(libdeflate)` are the alternatives to what we use.

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tidegate::net::compress::{Codec, deflate, inflate};
use tidegate::pdata::Rope;
use tidegate::pipeline::Ledger;

const SPANS: usize = 512;
const ROUNDS: usize = 7;

#[allow(clippy::print_stdout, reason = "a bench talks to its user")]
fn main() {
    let plain = request(1);
    let rope = Rope::from(plain.clone());
    println!("{SPANS} spans, {} bytes, {} bytes a span", plain.len(), plain.len() / SPANS);
    println!("{:<28} {:>8} {:>10} {:>10} {:>7}", "", "MB/s", "ns/span", "bytes", "ratio");

    let ledger = Ledger::new(64 << 20);
    let codecs = [
        (Codec::Gzip, &[None, Some(2), Some(6)][..]),
        (Codec::Zstd, &[None, Some(-5), Some(-3), Some(-1), Some(3)]),
        (Codec::Snappy, &[None]),
        (Codec::SnappyFramed, &[None]),
        (Codec::Lz4, &[None]),
        (Codec::Zlib, &[None]),
    ];
    for (codec, levels) in codecs {
        for level in levels {
            let packed = deflate(codec, *level, &rope).unwrap_or_default();
            let name = format!("{} {}", codec.name(), level.map_or("default".to_owned(), |l| l.to_string()));
            row(&format!("{name} out"), plain.len(), packed.len(), || {
                black_box(deflate(codec, *level, &rope).is_ok());
            });
            let input = [packed.clone()];
            row(&format!("{name} in"), plain.len(), packed.len(), || {
                let Some(lease) = ledger.reserve(input[0].len()) else { return };
                black_box(inflate(codec, &input, 4 << 20, &lease).is_ok());
            });
        }
    }
    alternatives(&plain);
    nothing_many_times();
}

/// What a client can make us do with a megabyte that holds nothing: time for each megabyte sent.
#[allow(clippy::print_stdout, reason = "a bench talks to its user")]
fn nothing_many_times() {
    let ledger = Ledger::new(64 << 20);
    for codec in [Codec::Gzip, Codec::Zstd, Codec::SnappyFramed] {
        let empty = deflate(codec, None, &Rope::new()).unwrap_or_default();
        let input = [Bytes::from(empty.repeat((1 << 20) / empty.len()))];
        let start = Instant::now();
        let lease = ledger.reserve(input[0].len());
        let ok = lease.is_some_and(|lease| inflate(codec, &input, 4 << 20, &lease).is_ok());
        println!("1 MiB of empty {} streams: {:?}, accepted: {ok}", codec.name(), start.elapsed());
    }
}

/// The libraries that were not chosen, or not for this.
fn alternatives(plain: &Bytes) {
    for level in [1, 2, 4, 6] {
        let pack = || {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default()
        };
        let packed = pack();
        row(&format!("gzip {level} out (zlib-rs)"), plain.len(), packed.len(), || {
            black_box(pack());
        });
        row(&format!("gzip {level} in (zlib-rs)"), plain.len(), packed.len(), || {
            let mut out = Vec::with_capacity(plain.len());
            black_box(flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out).is_ok());
        });
        let input = [Bytes::from(packed.clone())];
        let ledger = Ledger::new(64 << 20);
        row(&format!("gzip {level} in (libdeflate)"), plain.len(), packed.len(), || {
            let Some(lease) = ledger.reserve(input[0].len()) else { return };
            black_box(inflate(Codec::Gzip, &input, 4 << 20, &lease).is_ok());
        });
    }
}

#[allow(clippy::print_stdout, reason = "a bench talks to its user")]
fn row(name: &str, plain: usize, packed: usize, mut work: impl FnMut()) {
    let best = (0..ROUNDS).map(|_| round(&mut work)).min().unwrap_or_default();
    let seconds = best.as_secs_f64();
    println!(
        "{name:<28} {:>8.0} {:>10.0} {packed:>10} {:>7.2}",
        plain as f64 / seconds / 1e6,
        seconds * 1e9 / SPANS as f64,
        plain as f64 / packed as f64
    );
}

/// The mean over a tenth of a second.
fn round(work: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut runs = 0u32;
    while start.elapsed() < Duration::from_millis(100) {
        work();
        runs += 1;
    }
    start.elapsed() / runs.max(1)
}

fn request(seed: u64) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(seed);
    let text = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    };
    let number = |key: &str, value: i64| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::IntValue(value)) }),
        ..KeyValue::default()
    };
    let routes =
        ["/api/v1/orders/{id}", "/api/v1/users/{id}/cart", "/healthz", "/api/v1/search", "/checkout"];
    let mut now = 1_760_000_000_000_000_000u64;
    let mut trace = [0u8; 16];
    let spans = (0..SPANS).map(|i| {
        if i % 8 == 0 {
            rng.fill(&mut trace);
        }
        now += rng.u64(1_000..2_000_000);
        let route = rng.choice(routes).unwrap_or_default();
        Span {
            trace_id: trace.to_vec(),
            span_id: rng.u64(..).to_be_bytes().to_vec(),
            parent_span_id: rng.u64(..).to_be_bytes().to_vec(),
            name: format!("GET {route}"),
            kind: rng.i32(1..=3),
            start_time_unix_nano: now,
            end_time_unix_nano: now + rng.u64(10_000..900_000_000),
            attributes: vec![
                text("http.request.method", "GET".to_owned()),
                text("http.route", route.to_owned()),
                text("url.full", format!("https://shop.example.com{route}?session={:016x}", rng.u64(..))),
                number(
                    "http.response.status_code",
                    rng.choice([200, 200, 200, 404, 500]).unwrap_or_default(),
                ),
                text("network.peer.address", format!("10.{}.{}.{}", rng.u8(..), rng.u8(..), rng.u8(..))),
                number("network.peer.port", rng.i64(1024..65535)),
                text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) shop-frontend/3.2".to_owned()),
                text("enduser.id", format!("user-{:08x}", rng.u32(..))),
                text("thread.name", format!("worker-{}", rng.u8(0..32))),
            ],
            status: Some(Status { message: String::new(), code: 1 }),
            ..Span::default()
        }
    });
    let spans = spans.collect();
    let resource = Resource {
        attributes: vec![
            text("service.name", "frontend".to_owned()),
            text("k8s.pod.name", "frontend-7d9f8b6c5d-x2v9q".to_owned()),
            text("k8s.namespace.name", "shop".to_owned()),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "io.example.http".to_owned(), ..Default::default() };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }],
            ..Default::default()
        }],
    };
    Bytes::from(request.encode_to_vec())
}
