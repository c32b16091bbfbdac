//! Realistic telemetry: about 500 bytes a span or log record with ten attributes, 230 a data point, a resource of
//! eight attributes. A request is encoded once; sending another one copies it and patches the item numbers in.
//!
//! The number of an item sits where the wire has eight bytes of fixed width: the span id (big endian) of spans and
//! log records, `as_int` (little endian) of data points.

use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::Signal;

const NOW: u64 = 1_760_000_000_000_000_000;

/// A pre-encoded request and where its item numbers are.
#[derive(Debug, Clone)]
pub struct Template {
    pub signal: Signal,
    body: Vec<u8>,
    slots: Vec<usize>,
}

impl Template {
    /// A request of `items` items; `variant` changes what differs between requests of a fleet (service, pod).
    pub fn new(signal: Signal, items: usize, variant: usize) -> Self {
        // Random marks that occur nowhere else in the request, replaced on every use.
        let mut rng = fastrand::Rng::with_seed(7 + variant as u64);
        let marks: Vec<u64> = (0..items).map(|_| rng.u64(1 << 62..1 << 63)).collect();
        assert_eq!(marks.iter().collect::<HashSet<_>>().len(), items);
        let body = encode(signal, variant, &marks);
        let mut slots = Vec::with_capacity(items);
        let mut from = 0;
        for mark in &marks {
            let bytes = number_bytes(signal, *mark);
            let at = memchr::memmem::find(&body[from..], &bytes).expect("the mark is in the request");
            slots.push(from + at);
            from += at + 8;
        }
        Template { signal, body, slots }
    }

    pub fn items(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the request.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Appends the request with items numbered `first`, `first + 1`, … to `out`.
    pub fn write(&self, first: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.body);
        for (n, slot) in self.slots.iter().enumerate() {
            out[start + slot..start + slot + 8].copy_from_slice(&number_bytes(self.signal, first + n as u64));
        }
    }
}

fn number_bytes(signal: Signal, number: u64) -> [u8; 8] {
    match signal {
        Signal::Metrics => number.to_le_bytes(),
        Signal::Traces | Signal::Logs => number.to_be_bytes(),
    }
}

/// The numbers of the items of a request, by the oracle's decoder.
///
/// # Errors
/// What prost says about bytes that are no such request.
pub fn numbers(signal: Signal, body: &[u8]) -> Result<Vec<u64>, prost::DecodeError> {
    let from_id = |id: &[u8]| id.try_into().map(u64::from_be_bytes).unwrap_or(0);
    Ok(match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(body)?
            .resource_spans
            .iter()
            .flat_map(|r| &r.scope_spans)
            .flat_map(|s| &s.spans)
            .map(|span| from_id(&span.span_id))
            .collect(),
        Signal::Logs => ExportLogsServiceRequest::decode(body)?
            .resource_logs
            .iter()
            .flat_map(|r| &r.scope_logs)
            .flat_map(|s| &s.log_records)
            .map(|record| from_id(&record.span_id))
            .collect(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(body)?
            .resource_metrics
            .iter()
            .flat_map(|r| &r.scope_metrics)
            .flat_map(|s| &s.metrics)
            .flat_map(points)
            .map(|point| match point.value {
                Some(number_data_point::Value::AsInt(n)) => n as u64,
                _ => 0,
            })
            .collect(),
    })
}

fn points(metric: &Metric) -> &[NumberDataPoint] {
    match &metric.data {
        Some(Data::Sum(sum)) => &sum.data_points,
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        _ => &[],
    }
}

fn encode(signal: Signal, variant: usize, marks: &[u64]) -> Vec<u8> {
    let resource = Some(resource(variant));
    let scope = Some(InstrumentationScope {
        name: "io.opentelemetry.http-server".into(),
        version: "2.11.0".into(),
        ..Default::default()
    });
    match signal {
        Signal::Traces => {
            let spans = marks.iter().enumerate().map(|(n, mark)| span(n, *mark)).collect();
            let scope_spans = vec![ScopeSpans { scope, spans, ..Default::default() }];
            ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
            }
            .encode_to_vec()
        }
        Signal::Logs => {
            let log_records = marks.iter().enumerate().map(|(n, mark)| log(n, *mark)).collect();
            let scope_logs = vec![ScopeLogs { scope, log_records, ..Default::default() }];
            ExportLogsServiceRequest {
                resource_logs: vec![ResourceLogs { resource, scope_logs, ..Default::default() }],
            }
            .encode_to_vec()
        }
        Signal::Metrics => {
            let metrics = marks.chunks(POINTS_PER_METRIC).enumerate().map(|(n, m)| metric(n, m)).collect();
            let scope_metrics = vec![ScopeMetrics { scope, metrics, ..Default::default() }];
            ExportMetricsServiceRequest {
                resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
            }
            .encode_to_vec()
        }
    }
}

const POINTS_PER_METRIC: usize = 16;

fn text(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

fn int(value: i64) -> AnyValue {
    AnyValue { value: Some(Value::IntValue(value)) }
}

fn kv(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

fn resource(variant: usize) -> Resource {
    Resource {
        attributes: vec![
            kv("service.name", text(format!("checkout-{}", variant % 8))),
            kv("service.namespace", text("shop")),
            kv("service.version", text("1.42.7")),
            kv("service.instance.id", text(format!("6f1e2d3c-0000-4000-8000-{variant:012}"))),
            kv("k8s.namespace.name", text("production")),
            kv("k8s.pod.name", text(format!("checkout-7d4b9c6f5-{variant:05}"))),
            kv("k8s.node.name", text(format!("gpu-node-{:03}", variant % 64))),
            kv("telemetry.sdk.language", text("python")),
        ],
        ..Default::default()
    }
}

fn span(n: usize, mark: u64) -> Span {
    let start = NOW + n as u64 * 1_000_003;
    Span {
        trace_id: trace_id(n),
        span_id: mark.to_be_bytes().to_vec(),
        parent_span_id: (n as u64 + 1).to_be_bytes().to_vec(),
        name: "POST /api/v1/orders/{order_id}/items".into(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 4_200_000 + n as u64,
        attributes: vec![
            kv("http.request.method", text("POST")),
            kv("url.path", text(format!("/api/v1/orders/{}/items", 480_000 + n))),
            kv("url.scheme", text("https")),
            kv("http.route", text("/api/v1/orders/{order_id}/items")),
            kv("http.response.status_code", int(if n.is_multiple_of(50) { 503 } else { 201 })),
            kv("server.address", text("orders.shop.svc.cluster.local")),
            kv("client.address", text(format!("10.42.{}.{}", n % 256, (n * 7) % 256))),
            kv("network.protocol.version", text("1.1")),
            kv("user_agent.original", text("okhttp/4.12.0 (Android 15; shop-app 9.3.1)")),
            kv("enduser.id", text(format!("customer-{:08}", n * 31 % 1_000_000))),
        ],
        status: Some(Status { code: i32::from(n.is_multiple_of(50)) * 2, ..Default::default() }),
        ..Default::default()
    }
}

fn log(n: usize, mark: u64) -> LogRecord {
    let time = NOW + n as u64 * 1_000_003;
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time + 150_000,
        severity_number: if n.is_multiple_of(20) { 17 } else { 9 },
        severity_text: if n.is_multiple_of(20) { "ERROR" } else { "INFO" }.into(),
        body: Some(text(format!(
            "order {} accepted: 3 items, total 129.90 EUR, payment authorised in {} ms by provider stripe",
            480_000 + n,
            12 + n % 70
        ))),
        attributes: vec![
            kv("code.function.name", text("shop.orders.service.OrderService.accept")),
            kv("code.line.number", int(217)),
            kv("thread.name", text("worker-12")),
            kv("http.route", text("/api/v1/orders/{order_id}/items")),
            kv("order.id", int(480_000 + n as i64)),
            kv("enduser.id", text(format!("customer-{:08}", n * 31 % 1_000_000))),
            kv("payment.provider", text("stripe")),
            kv("log.iostream", text("stdout")),
            kv("log.file.name", text("orders.log")),
            kv("k8s.container.name", text("orders")),
        ],
        trace_id: trace_id(n),
        span_id: mark.to_be_bytes().to_vec(),
        flags: 1,
        ..Default::default()
    }
}

fn metric(n: usize, marks: &[u64]) -> Metric {
    let data_points = marks
        .iter()
        .enumerate()
        .map(|(p, mark)| NumberDataPoint {
            attributes: vec![
                kv("http.request.method", text(["GET", "POST", "PUT"][p % 3])),
                kv("http.route", text("/api/v1/orders/{order_id}")),
                kv("http.response.status_code", int(200 + p as i64 % 5)),
                kv("server.address", text("orders.shop.svc.cluster.local")),
                kv("network.protocol.name", text("http")),
            ],
            start_time_unix_nano: NOW - 60_000_000_000,
            time_unix_nano: NOW + n as u64,
            value: Some(number_data_point::Value::AsInt(*mark as i64)),
            ..Default::default()
        })
        .collect();
    Metric {
        name: format!("http.server.request.count.{n}"),
        description: "Requests served".into(),
        unit: "{request}".into(),
        data: Some(Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative as i32,
            is_monotonic: true,
        })),
        ..Default::default()
    }
}

fn trace_id(n: usize) -> Vec<u8> {
    let mut id = 0x5af7_183f_b1d4_cf5f_u64.to_be_bytes().to_vec();
    id.extend_from_slice(&(n as u64 / 10 + 1).to_be_bytes());
    id
}
