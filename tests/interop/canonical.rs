//! Telemetry in one comparable form, built from both ends: from `telemetry.json` with the ids an SDK reports, and
//! from the requests a backend received. Attribute order, grouping into requests and SDK clocks are left out;
//! everything an application decides is in.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, NumberDataPoint, exemplar, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Map, Value, json};

use super::support::Signal;
use super::support::sink::Captured;

/// The items of each signal in comparable form, with how many there are on the wire.
#[derive(Default)]
pub struct Telemetry {
    items: [Vec<Value>; 3],
    counts: [u64; 3],
}

impl Telemetry {
    pub fn items(&self, signal: Signal) -> u64 {
        self.counts[signal.index()]
    }

    /// One text a signal; items in an order of their own.
    pub fn text(&self, signal: Signal) -> String {
        let mut texts: Vec<String> = self.items[signal.index()]
            .iter()
            .map(|v| serde_json::to_string_pretty(&sorted(v)).unwrap())
            .collect();
        texts.sort();
        texts.join("\n")
    }

    fn push(&mut self, signal: Signal, count: usize, item: Value) {
        self.items[signal.index()].push(item);
        self.counts[signal.index()] += count as u64;
    }
}

/// The first lines that differ, with what is around them.
pub fn difference(want: &str, got: &str) -> String {
    let (want, got): (Vec<&str>, Vec<&str>) = (want.lines().collect(), got.lines().collect());
    let at = want.iter().zip(&got).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str]| {
        lines.iter().skip(at.saturating_sub(12)).take(32).map(|l| format!("    {l}\n")).collect::<String>()
    };
    format!("told to send, around line {at}:\n{}arrived:\n{}", part(&want), part(&got))
}

/// What has to arrive.
pub fn expected(told: &Value, said: &Value) -> Telemetry {
    let mut all = Telemetry::default();
    let ids = &said["spans"];
    let around = |signal: Signal| {
        let with_attributes =
            said["supports"]["scope_attributes"].as_array().unwrap().iter().any(|s| s == signal.name());
        let scope = &told["scope"];
        json!({
            "resource": told["resource"],
            "scope": {
                "name": scope["name"],
                "version": scope["version"],
                "schema_url": scope["schema_url"],
                "attributes": if with_attributes { scope["attributes"].clone() } else { json!({}) },
            },
        })
    };
    for span in told["spans"].as_array().unwrap() {
        let id = &ids[span["name"].as_str().unwrap()];
        let (parent, state) = match &span["parent"] {
            Value::String(name) => (ids[name]["span_id"].clone(), json!("")),
            Value::Null => (json!(""), json!("")),
            remote => (remote["span_id"].clone(), remote["trace_state"].clone()),
        };
        let trace_id = match &span["parent"] {
            Value::Object(remote) => remote["trace_id"].clone(),
            Value::String(name) => ids[name]["trace_id"].clone(),
            _ => id["trace_id"].clone(),
        };
        let links: Vec<Value> = span["links"]
            .as_array()
            .unwrap()
            .iter()
            .map(|link| {
                let to = &ids[link["to"].as_str().unwrap()];
                json!({"trace_id": to["trace_id"], "span_id": to["span_id"], "attributes": link["attributes"]})
            })
            .collect();
        let mut item = around(Signal::Traces);
        item["span"] = json!({
            "name": span["name"], "kind": span["kind"], "trace_id": trace_id, "span_id": id["span_id"],
            "parent_span_id": parent, "trace_state": state, "start": span["start"], "end": span["end"],
            "attributes": span["attributes"], "events": span["events"], "links": links, "status": span["status"],
            "sampled": said["supports"]["sampled_flag"], "remote_parent": span["parent"].is_object(),
        });
        all.push(Signal::Traces, 1, item);
    }
    for log in told["logs"].as_array().unwrap() {
        let id = log["span"].as_str().map(|name| &ids[name]);
        let mut item = around(Signal::Logs);
        let mut record = log.clone();
        record.as_object_mut().unwrap().remove("span");
        record["trace_id"] = id.map_or(json!(""), |id| id["trace_id"].clone());
        record["span_id"] = id.map_or(json!(""), |id| id["span_id"].clone());
        record["sampled"] = json!(id.is_some());
        item["log"] = record;
        all.push(Signal::Logs, 1, item);
    }
    expected_metrics(told, said, &around(Signal::Metrics), &mut all);
    all
}

fn expected_metrics(told: &Value, said: &Value, around: &Value, all: &mut Telemetry) {
    let in_span = &said["spans"]["GET /orders/{id}"];
    let exemplars = said["supports"]["exemplars"] == true;
    let exemplar = |value: &Value| json!({"value": value.as_f64(), "trace_id": in_span["trace_id"], "span_id": in_span["span_id"]});
    for (kind, metric) in told["metrics"].as_object().unwrap() {
        let data = match kind.as_str() {
            "counter" | "up_down_counter" | "gauge" => {
                let points: Vec<Value> = metric["points"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|p| {
                        let with = exemplars && kind != "gauge";
                        json!({
                            "value": p["value"].as_f64(), "attributes": p["attributes"],
                            "exemplars": if with { vec![exemplar(&p["value"])] } else { vec![] },
                        })
                    })
                    .collect();
                match kind.as_str() {
                    "gauge" => json!({"gauge": points}),
                    _ => json!({"sum": points, "monotonic": kind == "counter", "temporality": 2}),
                }
            }
            _ => {
                let values: Vec<f64> =
                    metric["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
                let mut point = json!({
                    "attributes": metric["attributes"], "count": values.len(),
                    "sum": round(values.iter().sum()),
                    "min": values.iter().copied().fold(f64::INFINITY, f64::min),
                    "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                });
                if kind == "histogram" {
                    let bounds: Vec<f64> =
                        metric["bounds"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
                    let mut counts = vec![0; bounds.len() + 1];
                    for value in &values {
                        counts[bounds.iter().take_while(|bound| value > bound).count()] += 1;
                    }
                    // The reservoir keeps the last measurement of each bucket.
                    let mut last: BTreeMap<usize, f64> = BTreeMap::new();
                    for value in &values {
                        last.insert(bounds.iter().take_while(|bound| value > bound).count(), *value);
                    }
                    point["bounds"] = json!(bounds);
                    point["counts"] = json!(counts);
                    point["exemplars"] = match exemplars {
                        true => last.values().map(|v| exemplar(&json!(v))).collect(),
                        false => json!([]),
                    };
                    json!({"histogram": [point], "temporality": 2})
                } else {
                    point["zero_count"] = json!(0);
                    point["buckets"] = json!("as the values say");
                    json!({"exponential_histogram": [point], "temporality": 2})
                }
            }
        };
        let points = metric["points"].as_array().map_or(1, Vec::len);
        let mut item = around.clone();
        item["metric"] = json!({
            "name": metric["name"], "unit": metric["unit"], "description": metric["description"], "data": data,
        });
        all.push(Signal::Metrics, points, item);
    }
}

/// What did arrive. `told` is needed to check buckets whose bounds the SDK chooses.
pub fn arrived(requests: &[Captured], told: &Value) -> Telemetry {
    let mut all = Telemetry::default();
    for request in requests {
        match request.signal {
            Signal::Traces => spans(request, &mut all),
            Signal::Logs => logs(request, &mut all),
            Signal::Metrics => metrics(request, told, &mut all),
        }
    }
    all
}

fn around(
    resource: Option<&Resource>,
    resource_url: &str,
    scope: Option<&InstrumentationScope>,
    scope_url: &str,
) -> Value {
    let (resource, scope) = (resource.cloned().unwrap_or_default(), scope.cloned().unwrap_or_default());
    assert_eq!((resource.dropped_attributes_count, scope.dropped_attributes_count), (0, 0));
    json!({
        "resource": {"schema_url": resource_url, "attributes": attributes(&resource.attributes)},
        "scope": {
            "name": scope.name, "version": scope.version, "schema_url": scope_url,
            "attributes": attributes(&scope.attributes),
        },
    })
}

fn spans(request: &Captured, all: &mut Telemetry) {
    for r in request.traces().resource_spans {
        for s in &r.scope_spans {
            for span in &s.spans {
                assert_eq!(
                    (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
                    (0, 0, 0)
                );
                let events: Vec<Value> = span
                    .events
                    .iter()
                    .map(|e| {
                        json!({
                            "name": e.name, "time": e.time_unix_nano.to_string(),
                            "attributes": attributes(&e.attributes),
                        })
                    })
                    .collect();
                let links: Vec<Value> = span
                    .links
                    .iter()
                    .map(|l| {
                        json!({
                            "trace_id": hex(&l.trace_id), "span_id": hex(&l.span_id),
                            "attributes": attributes(&l.attributes),
                        })
                    })
                    .collect();
                let status = span.status.clone().unwrap_or_default();
                let kinds = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
                let mut item = around(r.resource.as_ref(), &r.schema_url, s.scope.as_ref(), &s.schema_url);
                item["span"] = json!({
                    "name": span.name, "kind": kinds[span.kind as usize], "trace_id": hex(&span.trace_id),
                    "span_id": hex(&span.span_id), "parent_span_id": hex(&span.parent_span_id),
                    "trace_state": span.trace_state, "start": span.start_time_unix_nano.to_string(),
                    "end": span.end_time_unix_nano.to_string(), "attributes": attributes(&span.attributes),
                    "events": events, "links": links,
                    "status": {
                        "code": (["UNSET", "OK", "ERROR"][status.code as usize]), "message": status.message,
                    },
                    "sampled": span.flags & 1 == 1, "remote_parent": span.flags & 0x200 != 0,
                });
                all.push(Signal::Traces, 1, item);
            }
        }
    }
}

fn logs(request: &Captured, all: &mut Telemetry) {
    for r in request.logs().resource_logs {
        for s in &r.scope_logs {
            for log in &s.log_records {
                assert_eq!(log.dropped_attributes_count, 0);
                let mut item = around(r.resource.as_ref(), &r.schema_url, s.scope.as_ref(), &s.schema_url);
                item["log"] = json!({
                    "time": log.time_unix_nano.to_string(), "observed": log.observed_time_unix_nano.to_string(),
                    "severity_number": log.severity_number, "severity_text": log.severity_text,
                    "event_name": log.event_name, "body": log.body.as_ref().map(any),
                    "attributes": attributes(&log.attributes), "trace_id": hex(&log.trace_id),
                    "span_id": hex(&log.span_id), "sampled": log.flags & 1 == 1,
                });
                all.push(Signal::Logs, 1, item);
            }
        }
    }
}

fn metrics(request: &Captured, told: &Value, all: &mut Telemetry) {
    for r in request.metrics().resource_metrics {
        for s in &r.scope_metrics {
            for metric in &s.metrics {
                let (data, points) = match metric.data.as_ref().expect("a metric has data") {
                    Data::Gauge(gauge) => {
                        (json!({"gauge": numbers(&gauge.data_points, false)}), gauge.data_points.len())
                    }
                    Data::Sum(sum) => (
                        json!({
                            "sum": numbers(&sum.data_points, true), "monotonic": sum.is_monotonic,
                            "temporality": sum.aggregation_temporality,
                        }),
                        sum.data_points.len(),
                    ),
                    Data::Histogram(histogram) => {
                        let points: Vec<Value> = histogram
                            .data_points
                            .iter()
                            .map(|p| {
                                check_times(p.start_time_unix_nano, p.time_unix_nano);
                                json!({
                                    "attributes": attributes(&p.attributes), "count": p.count,
                                    "sum": p.sum.map(round), "min": p.min, "max": p.max,
                                    "bounds": p.explicit_bounds, "counts": p.bucket_counts,
                                    "exemplars": exemplars(&p.exemplars),
                                })
                            })
                            .collect();
                        (
                            json!({"histogram": points, "temporality": histogram.aggregation_temporality}),
                            points.len(),
                        )
                    }
                    Data::ExponentialHistogram(histogram) => {
                        let points: Vec<Value> = histogram
                            .data_points
                            .iter()
                            .map(|p| {
                                check_times(p.start_time_unix_nano, p.time_unix_nano);
                                json!({
                                    "attributes": attributes(&p.attributes), "count": p.count,
                                    "sum": p.sum.map(round), "min": p.min, "max": p.max,
                                    "zero_count": p.zero_count, "buckets": check_buckets(p, told),
                                })
                            })
                            .collect();
                        let temporality = histogram.aggregation_temporality;
                        (json!({"exponential_histogram": points, "temporality": temporality}), points.len())
                    }
                    Data::Summary(_) => panic!("nobody was told to send a summary"),
                };
                let mut item = around(r.resource.as_ref(), &r.schema_url, s.scope.as_ref(), &s.schema_url);
                item["metric"] = json!({
                    "name": metric.name, "unit": metric.unit, "description": metric.description, "data": data,
                });
                all.push(Signal::Metrics, points, item);
            }
        }
    }
}

fn numbers(points: &[NumberDataPoint], has_start: bool) -> Vec<Value> {
    let mut points: Vec<Value> = points
        .iter()
        .map(|p| {
            if has_start {
                check_times(p.start_time_unix_nano, p.time_unix_nano);
            }
            let value = match p.value.expect("a point has a value") {
                number_data_point::Value::AsDouble(v) => v,
                number_data_point::Value::AsInt(v) => v as f64,
            };
            json!({
                "value": value, "attributes": attributes(&p.attributes), "exemplars": exemplars(&p.exemplars),
            })
        })
        .collect();
    // In the order of telemetry.json: larger counters first, cooler devices first.
    points.sort_by_key(|p| p["attributes"].to_string());
    points
}

fn exemplars(exemplars: &[Exemplar]) -> Vec<Value> {
    let mut all: Vec<Value> = exemplars
        .iter()
        .map(|e| {
            assert!(e.time_unix_nano > 0);
            let value = match e.value.expect("an exemplar has a value") {
                exemplar::Value::AsDouble(v) => v,
                exemplar::Value::AsInt(v) => v as f64,
            };
            json!({"value": value, "trace_id": hex(&e.trace_id), "span_id": hex(&e.span_id)})
        })
        .collect();
    all.sort_by(|a, b| a["value"].as_f64().unwrap().total_cmp(&b["value"].as_f64().unwrap()));
    all
}

/// An SDK's clock cannot be told; that it is one can.
fn check_times(start: u64, time: u64) {
    assert!(1_700_000_000_000_000_000 < start && start <= time, "start {start}, time {time}");
}

/// The SDK picks the scale; at that scale each value belongs to one bucket.
fn check_buckets(point: &ExponentialHistogramDataPoint, told: &Value) -> Value {
    let mut want: BTreeMap<i32, u64> = BTreeMap::new();
    for value in told["metrics"]["exponential_histogram"]["values"].as_array().unwrap() {
        let exact = value.as_f64().unwrap().log2() * 2f64.powi(point.scale);
        *want.entry(exact.ceil() as i32 - 1).or_default() += 1;
    }
    let buckets = point.positive.clone().unwrap_or_default();
    let got: BTreeMap<i32, u64> = buckets
        .bucket_counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(n, count)| (buckets.offset + n as i32, *count))
        .collect();
    let negative = point.negative.as_ref().map_or(0, |b| b.bucket_counts.iter().sum());
    if want == got && negative == 0 {
        json!("as the values say")
    } else {
        json!({"scale": point.scale, "want": format!("{want:?}"), "got": format!("{got:?}")})
    }
}

fn attributes(attributes: &[KeyValue]) -> Value {
    let mut map = Map::new();
    for attribute in attributes {
        let value = attribute.value.as_ref().map_or(Value::Null, any);
        assert!(map.insert(attribute.key.clone(), value).is_none(), "{} occurs twice", attribute.key);
    }
    Value::Object(map)
}

fn any(value: &AnyValue) -> Value {
    match &value.value {
        Some(Any::StringValue(v)) => json!({"string": v}),
        Some(Any::BoolValue(v)) => json!({"bool": v}),
        Some(Any::IntValue(v)) => json!({"int": v}),
        Some(Any::DoubleValue(v)) => json!({"double": v}),
        Some(Any::BytesValue(v)) => json!({"bytes": STANDARD.encode(v)}),
        Some(Any::ArrayValue(v)) => json!({"list": v.values.iter().map(any).collect::<Vec<_>>()}),
        Some(Any::KvlistValue(v)) => json!({"map": attributes(&v.values)}),
        other => panic!("a value of a kind no SDK was told to send: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Sums in another order differ in the last bits.
fn round(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// With keys in order, at every depth.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
