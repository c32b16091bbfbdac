//! Requests go in with a clock that the tests move; what comes out is decoded.

mod config;
mod flow;
mod namer;
mod random;
mod rates;
mod sources;

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::json;

use super::*;
use crate::config::{Config, Cx, Node, Severity};
use crate::pdata::{ClientCertificate, ClientInfo};
use crate::pipeline::{Acks, Ledger, ack};
use crate::telemetry::Metrics;

type Attributes<'a> = &'a [(&'a str, &'a str)];

/// One processor and a clock.
struct Rig {
    split: TenantSplit,
    metrics: Arc<Metrics>,
    now: Instant,
}

/// What came of a request.
#[derive(Debug)]
struct Answer {
    out: Vec<Batch>,
    gone: Gone,
    verdict: Option<Verdict>,
}

impl Rig {
    fn new(config: serde_json::Value) -> Self {
        Rig::with_signal(config, Signal::Logs)
    }

    fn with_signal(config: serde_json::Value, signal: Signal) -> Self {
        let metrics = Metrics::new();
        let cx = BuildContext { id: "tenant".into(), metrics: metrics.clone(), ledger: Ledger::new(1 << 30) };
        let config = decode(config).unwrap_or_else(|errors| panic!("{errors:?}"));
        Rig { split: TenantSplit::new(&config, signal, &cx).unwrap(), metrics, now: Instant::now() }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn send(&self, request: Vec<u8>, client: ClientInfo) -> Answer {
        self.send_with(request, client, false)
    }

    /// Sends what may have been acknowledged already.
    fn send_with(&self, request: Vec<u8>, client: ClientInfo, settled: bool) -> Answer {
        let (share, mut verdict) = ack();
        let mut acks = Acks::from(share);
        if settled {
            acks.append(Acks::none());
        }
        let items = crate::pdata::count(self.split.signal, &request).unwrap_or(1);
        let batch = Batch {
            signal: self.split.signal,
            rope: Rope::from(request),
            items,
            client: Arc::new(client),
            tenant: None,
            demoted: false,
            received: self.now,
            leases: SmallVec::new(),
            acks,
        };
        let mut out = Vec::new();
        let gone = self.split.split(self.now, batch, &mut out);
        assert_eq!(out.iter().map(|b| b.items).sum::<usize>() + gone.refused + gone.dropped, items);
        if !out.is_empty() {
            assert!(verdict.try_recv().is_err(), "the parts still owe their answers");
        }
        for batch in &mut out {
            std::mem::take(&mut batch.acks).resolve(Verdict::Accepted);
        }
        Answer { out, gone, verdict: verdict.try_recv().ok() }
    }

    /// A series of `tidegate_tenant_items`.
    fn items(&self, tenant: &str, outcome: &str, reason: &str) -> u64 {
        let labels = ["processor", "data_type", "tenant", "outcome", "reason"];
        let family = self.metrics.counter("tidegate_tenant_items", "-", &labels).unwrap();
        family.with_label_values(&["tenant", self.split.signal.name(), tenant, outcome, reason]).get()
    }

    fn dropped(&self, reason: &str) -> u64 {
        let family = self
            .metrics
            .counter("tidegate_dropped_items", "-", &["component", "data_type", "reason"])
            .unwrap();
        family.with_label_values(&["tenant", self.split.signal.name(), reason]).get()
    }

    fn invalid(&self) -> u64 {
        let [invalid] = self.metrics.sums(["tidegate_tenant_invalid"]);
        invalid
    }
}

impl Answer {
    /// Items by tenant.
    fn tenants(&self) -> BTreeMap<String, usize> {
        self.out.iter().map(|b| (b.tenant.as_ref().unwrap().name().to_owned(), b.items)).collect()
    }

    /// The one tenant of everything, or what became of it.
    fn tenant(&self) -> String {
        match self.out.as_slice() {
            [one] => one.tenant.as_ref().unwrap().name().to_owned(),
            [] if self.gone.dropped > 0 => "dropped".to_owned(),
            [] => "refused".to_owned(),
            _ => format!("{:?}", self.tenants()),
        }
    }
}

fn decode(config: serde_json::Value) -> Result<TenantConfig, Vec<(String, String)>> {
    let (mut decoded, mut cx) = (TenantConfig::default(), Cx::default());
    decoded.decode_into(&Node::from_json(&config), &mut cx);
    let errors: Vec<_> = cx
        .diags
        .into_iter()
        .filter(|d| d.severity == Severity::Error)
        .map(|d| (d.path, format!("{} ({})", d.message, d.hint.unwrap_or_default())))
        .collect();
    if errors.is_empty() { Ok(decoded) } else { Err(errors) }
}

fn attributes(pairs: Attributes<'_>) -> Vec<KeyValue> {
    let value = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) };
    pairs
        .iter()
        .map(|(k, v)| KeyValue { key: (*k).to_owned(), value: Some(value(v)), ..Default::default() })
        .collect()
}

/// A request of one resource and scope, one record for each list of attributes.
fn logs(resource: Attributes<'_>, scope: Attributes<'_>, records: &[Attributes<'_>]) -> Vec<u8> {
    let log_records =
        records.iter().map(|a| LogRecord { attributes: attributes(a), ..Default::default() }).collect();
    let scope = InstrumentationScope { attributes: attributes(scope), ..Default::default() };
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..Default::default() }];
    let resource = Some(Resource { attributes: attributes(resource), ..Default::default() });
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

/// So many records of a resource with this attribute.
fn logs_of(tenant: &str, records: usize) -> Vec<u8> {
    logs(&[("tenant.id", tenant)], &[], &vec![&[][..]; records])
}

/// A request of one metric, a point for each value of the attribute `host`.
fn points(resource: Attributes<'_>, hosts: &[&str]) -> Vec<u8> {
    let data_points = hosts
        .iter()
        .map(|host| NumberDataPoint { attributes: attributes(&[("host", host)]), ..Default::default() })
        .collect();
    let data = Some(metric::Data::Gauge(Gauge { data_points }));
    let metrics = vec![Metric { name: "m".to_owned(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource = Some(Resource { attributes: attributes(resource), ..Default::default() });
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

fn nobody() -> ClientInfo {
    ClientInfo::default()
}

fn with_header(values: &[&str]) -> ClientInfo {
    let values = values.iter().map(|v| (*v).to_owned()).collect();
    ClientInfo { metadata: vec![("x-scope-orgid".to_owned(), values)], ..ClientInfo::default() }
}

/// By the attribute `tenant.id` of the resource, with these other settings.
fn by_resource(other: serde_json::Value) -> serde_json::Value {
    let mut config = json!({"from": [{"attribute": "resource.tenant.id"}], "unresolved": "refuse"});
    for (key, value) in other.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}
