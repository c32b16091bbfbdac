//! Random requests, and what a plain implementation makes of them: the tests' own OTLP endpoint.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};

use super::{JSON, agent, finish, logs, send};
use crate::support::from_env;
use crate::support::loki::{Entry, Labels, Loki, Options, SINGLE, now, otlp};

const KEYS: [&str; 16] = [
    "a",
    "a.b",
    "a_b",
    "a-b",
    "b",
    "http.method",
    "0",
    "__x__y__",
    "trace_id",
    "flags",
    "scope.name",
    "event_name",
    "x..y",
    "tenant_id",
    "nested",
    "severity_text",
];
const INDEXED: [&str; 5] =
    ["service.name", "service.namespace", "k8s.namespace.name", "k8s.container.name", "cloud.region"];
const TEXTS: [&str; 8] =
    ["x", "v 2", "é\u{2028}", "\"q\\uoted\"", "a\nb\t", "0", "\u{1}\u{7f}", "long long long long"];

fn value(rng: &mut fastrand::Rng, depth: u32) -> Value {
    let any = |value| AnyValue { value: Some(value) };
    match rng.u32(0..if depth < 3 { 12 } else { 8 }) {
        0..=3 => Value::StringValue((*rng.choice(TEXTS.iter()).unwrap()).to_owned()),
        4 => Value::IntValue(rng.i64(-5..1_000_000)),
        5 => Value::DoubleValue(*rng.choice([0.5, -1e-9, 1e300, f64::INFINITY, 3.0].iter()).unwrap()),
        6 => Value::BoolValue(rng.bool()),
        7 => Value::BytesValue((0..rng.u8(1..9)).collect()),
        8 | 9 => {
            let values = (0..rng.usize(0..4)).map(|_| any(value(rng, depth + 1))).collect();
            Value::ArrayValue(ArrayValue { values })
        }
        _ => Value::KvlistValue(KeyValueList { values: pairs(rng, 4, depth + 1) }),
    }
}

/// Attributes with keys of their own.
fn pairs(rng: &mut fastrand::Rng, most: usize, depth: u32) -> Vec<KeyValue> {
    let count = rng.usize(0..=most);
    let keys = rng.choose_multiple(KEYS.iter(), count);
    let mut pair = |key: &&str| {
        let mut value = value(rng, depth);
        // Beside an event of the record's own, Loki leaves out all of such a map, the agent only what is there twice.
        if *key == "event_name" && matches!(value, Value::KvlistValue(_)) {
            value = Value::BoolValue(true);
        }
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: (*key).to_owned(), value, ..Default::default() }
    };
    keys.into_iter().map(&mut pair).collect()
}

/// A few resources, scopes and records; each record has a time of its own.
fn request(rng: &mut fastrand::Rng, time: &mut u64) -> Vec<ResourceLogs> {
    let mut all = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let mut resource = pairs(rng, 5, 0);
        for key in INDEXED {
            if rng.bool() {
                let text =
                    Value::StringValue(format!("{}{}", rng.choice(TEXTS.iter()).unwrap(), rng.u8(0..3)));
                let value = Some(AnyValue { value: Some(text) });
                resource.push(KeyValue { key: key.into(), value, ..Default::default() });
            }
        }
        let scope = rng.bool().then(|| InstrumentationScope {
            name: rng.choice(TEXTS.iter()).unwrap().to_string(),
            version: if rng.bool() { "1".into() } else { String::new() },
            attributes: pairs(rng, 3, 0),
            dropped_attributes_count: rng.u32(0..2),
        });
        let records = (0..rng.usize(1..20)).map(|_| {
            *time += 1;
            LogRecord {
                time_unix_nano: *time,
                observed_time_unix_nano: if rng.bool() { 7 } else { 0 },
                severity_number: rng.i32(0..25),
                severity_text: if rng.bool() { "WARN".into() } else { String::new() },
                body: rng.bool().then(|| AnyValue { value: Some(value(rng, 1)) }),
                attributes: pairs(rng, 8, 0),
                dropped_attributes_count: rng.u32(0..2),
                flags: rng.u32(0..3),
                trace_id: if rng.bool() { vec![rng.u8(..); 16] } else { Vec::new() },
                span_id: if rng.bool() { vec![rng.u8(..); 8] } else { Vec::new() },
                event_name: if rng.u8(..) < 50 { "event".into() } else { String::new() },
            }
        });
        let records = records.collect();
        all.push(logs(resource, scope, records));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_stores_what_lokis_own_endpoint_would() {
    for (encoding, seed) in [("encoding: protobuf", 0), (JSON, 1)] {
        let loki = Loki::start(Options::default()).await;
        let mut agent = agent(&loki, &[encoding]);
        let mut rng = fastrand::Rng::with_seed(from_env("TIDEGATE_SEED", 1) + seed);
        let (mut time, mut count) = (now() as u64, 0);
        let mut want: BTreeMap<Labels, Vec<Entry>> = BTreeMap::new();
        for _ in 0..from_env("TIDEGATE_REQUESTS", 60) {
            let resource_logs = request(&mut rng, &mut time);
            let request = ExportLogsServiceRequest { resource_logs };
            for stream in otlp::streams(&request, &INDEXED).unwrap() {
                count += stream.entries.len();
                want.entry(stream.labels).or_default().extend(stream.entries);
            }
            send(&agent, request.resource_logs);
        }
        let lost = finish(&mut agent, &loki, count as u64).await;
        assert_eq!((lost.len(), loki.rejections()), (0, Vec::new()), "{lost:?}");
        let got: BTreeMap<i64, (Labels, Entry)> = loki
            .streams(SINGLE)
            .into_iter()
            .flat_map(|(labels, entries)| entries.into_iter().map(move |e| (e.time, (labels.clone(), e))))
            .collect();
        assert_eq!(got.len(), count);
        for (mut labels, entries) in want {
            otlp::discover_service(&mut labels);
            for entry in entries {
                let mut entry = entry.normalised().unwrap();
                // To a query, an empty value is none.
                entry.metadata.retain(|(_, value)| !value.is_empty());
                assert_eq!(got[&entry.time], (labels.clone(), entry), "{encoding}");
            }
        }
    }
}
