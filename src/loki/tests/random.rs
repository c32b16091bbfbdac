//! Random requests, in any encoding that producers may send, against the slow and obvious mapping; and damaged ones.

use super::plain::{PlainEntry, Rules, entries as plain_entries};
use super::*;
use crate::pdata::testgen::{mutate, scramble};

const KEYS: [&str; 20] = [
    "service.name",
    "k8s.namespace.name",
    "cloud.region",
    "tenant_id",
    "tenant.id",
    "a",
    "a.b",
    "a_b",
    "0",
    "é",
    "",
    "__x__y__",
    "trace_id",
    "severity_text",
    "scope.name",
    "event_name",
    "x..y",
    "b",
    "flags",
    "host.name",
];
const TEXTS: [&str; 8] =
    ["", "x", "v 2", "é\u{2028}", "\"q\\uoted\"", "a\nb\t", "\u{1}\u{7f}", "a long value, a long value"];

fn pick(rng: &mut fastrand::Rng, from: &[&str]) -> String {
    from[rng.usize(..from.len())].to_owned()
}

fn any(rng: &mut fastrand::Rng, depth: u32) -> AnyValue {
    match rng.u32(0..if depth < 3 { 14 } else { 9 }) {
        0..=3 => text(&pick(rng, &TEXTS)),
        4 => int(rng.i64(..)),
        5 => value(any_value::Value::DoubleValue(f64::from_bits(rng.u64(..)))),
        6 => value(any_value::Value::BoolValue(rng.bool())),
        7 => bytes(&[rng.u8(..), 2]),
        8 => AnyValue { value: None },
        9 | 10 => list((0..rng.usize(0..3)).map(|_| any(rng, depth + 1)).collect()),
        _ => value(any_value::Value::KvlistValue(KeyValueList { values: pairs(rng, 3, depth + 1) })),
    }
}

fn pairs(rng: &mut fastrand::Rng, most: usize, depth: u32) -> Vec<KeyValue> {
    let mut out: Vec<KeyValue> = Vec::new();
    for _ in 0..rng.usize(0..=most) {
        let pair = KeyValue {
            key: pick(rng, &KEYS),
            value: rng.bool().then(|| any(rng, depth)),
            ..KeyValue::default()
        };
        // A map that has a key twice shows the last; keys that come twice elsewhere show the first.
        if depth == 0 || out.iter().all(|known| known.key != pair.key) {
            out.push(pair);
        }
    }
    out
}

fn random(rng: &mut fastrand::Rng) -> ExportLogsServiceRequest {
    let record = |rng: &mut fastrand::Rng| LogRecord {
        time_unix_nano: if rng.bool() { rng.u64(1..4) * 1_000_000_000 } else { 0 },
        observed_time_unix_nano: rng.u64(1..5),
        severity_number: rng.i32(0..25),
        severity_text: pick(rng, &TEXTS),
        body: rng.bool().then(|| any(rng, 0)),
        attributes: pairs(rng, 6, 0),
        dropped_attributes_count: rng.u32(0..2),
        flags: rng.u32(0..2),
        trace_id: if rng.bool() { vec![rng.u8(..); 16] } else { Vec::new() },
        span_id: if rng.bool() { vec![rng.u8(..); 8] } else { Vec::new() },
        event_name: if rng.bool() { "e".to_owned() } else { String::new() },
    };
    let resource_logs = (0..rng.usize(0..3)).map(|_| ResourceLogs {
        resource: rng.bool().then(|| Resource { attributes: pairs(rng, 6, 0), ..Resource::default() }),
        scope_logs: (0..rng.usize(0..3))
            .map(|_| ScopeLogs {
                scope: rng.bool().then(|| InstrumentationScope {
                    name: pick(rng, &TEXTS),
                    version: pick(rng, &TEXTS),
                    attributes: pairs(rng, 3, 0),
                    dropped_attributes_count: rng.u32(0..2),
                }),
                log_records: (0..rng.usize(0..5)).map(|_| record(rng)).collect(),
                ..ScopeLogs::default()
            })
            .collect(),
        ..ResourceLogs::default()
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

/// What comes out, as the plain mapping has it.
fn got(bodies: &[LokiBody]) -> Vec<PlainEntry> {
    let mut out: Vec<PlainEntry> = bodies
        .iter()
        .flat_map(entries)
        .map(|entry| PlainEntry {
            labels: parse_labels(&entry.labels).unwrap().into_iter().collect(),
            time: entry.time as u64,
            line: entry.line,
            metadata: entry.metadata.into_iter().collect(),
        })
        .collect();
    out.sort();
    out
}

#[test]
fn any_request_is_mapped_as_the_plain_way_does() {
    let name = |key: &str| {
        let mut out = String::new();
        crate::prometheus::names::loki_label(key, &mut out).ok().map(|()| out)
    };
    let as_text = |value: &AnyValue| {
        let (bytes, mut out) = (value.encode_to_vec(), String::new());
        crate::prometheus::text::value_text(
            &crate::pdata::common::AnyValue::parse(&bytes).unwrap(),
            &mut out,
        );
        out
    };
    let own = ["tenant_id", "b"];
    let rules = Rules { index: &DEFAULT_LABELS, own: &own, name: &name, text: &as_text };
    let mut options = LokiOptions::default();
    options.labels.extend(own.map(|key| (None, LabelSource::Record(key.to_owned()))));
    options.max_bytes = 4096;
    let mut encoder = LokiEncoder::new(options);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut count = 0;
    for round in 0..3000 {
        let bytes = random(&mut rng).encode_to_vec();
        let bytes = if rng.bool() { scramble(Signal::Logs, &bytes, round) } else { bytes };
        let request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        let mut want = plain_entries(&request, &rules);
        want.sort();
        count += want.len();
        let (bodies, dropped) = encode(&mut encoder, &bytes);
        assert!(dropped.is_empty(), "{dropped:?}");
        assert_eq!(got(&bodies), want, "round {round}");
        // Cut to single entries, nothing is lost.
        let mut pieces: Vec<LokiBody> = bodies;
        let mut single = Vec::new();
        while let Some(body) = pieces.pop() {
            match body.halve() {
                Ok(halves) => pieces.extend(halves),
                Err(one) => single.push(one),
            }
        }
        assert_eq!((single.len(), got(&single)), (want.len(), want), "round {round}, cut");
    }
    assert!(count > 5000);
}

#[test]
fn damaged_requests_harm_nobody() {
    let mut encoder = LokiEncoder::new(LokiOptions { max_bytes: 4096, ..LokiOptions::default() });
    let mut rng = fastrand::Rng::with_seed(8);
    for round in 0..3000 {
        let mut bytes = random(&mut rng).encode_to_vec();
        mutate(&mut bytes, round);
        let batch = Batch { items: 1000, ..batch(&[]) };
        let batch = Batch { rope: Rope::from(bytes), ..batch };
        let mut report = Report::new(encoder.shards());
        encoder.encode(&batch, &mut report.output());
        let closed: usize = report.take_closed().iter().map(|c| c.items.unwrap_or_default()).sum();
        let open: usize = report.open().iter().sum();
        let bodies: usize = (0..encoder.shards()).filter_map(|s| encoder.close(s)).map(|b| b.items()).sum();
        assert!(bodies <= closed + open, "no more than was reported");
    }
}
