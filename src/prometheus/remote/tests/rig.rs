//! An encoder and its requests, decoded.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::plain::{Label, TimeSeries, WriteRequest};
use crate::exporters::delivery::sharded::{Report, ShardEncoder};
use crate::pdata::{Batch, ClientInfo, Rope, Signal};
use crate::pipeline::Acks;
use crate::prometheus::map::{MapOptions, ResourceLabels};
use crate::prometheus::names::{Namer, TranslationStrategy};
use crate::prometheus::remote::{
    Exponential, Negotiation, OutOfOrder, RemoteEncoder, RemoteOptions, Version, WriteBody,
};

/// Milliseconds near which tests take place.
pub const NOW: u64 = 1_700_000_000_000;

pub fn options(version: Version) -> RemoteOptions {
    RemoteOptions {
        map: MapOptions {
            namer: Namer::new(TranslationStrategy::UnderscoreEscapingWithSuffixes, ""),
            external_labels: Vec::new(),
            resource_labels: ResourceLabels::None,
            target_info: false,
            scope_labels: false,
        },
        negotiation: Arc::new(Negotiation::new(version)),
        shards: 1,
        max_bytes: 3_000_000,
        cache_bytes: 64 << 20,
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

pub struct Rig {
    pub encoder: RemoteEncoder,
    pub dropped: Vec<(usize, &'static str)>,
}

impl Rig {
    pub fn new(options: RemoteOptions) -> Self {
        Rig { encoder: RemoteEncoder::new(options), dropped: Vec::new() }
    }

    /// Encodes requests and gives what would be sent, shard by shard.
    pub fn bodies(&mut self, requests: &[ExportMetricsServiceRequest]) -> Vec<(usize, WriteBody)> {
        let shards = self.encoder.shards();
        let mut out = Vec::new();
        let mut items = 0;
        for request in requests {
            let mut report = Report::new(shards);
            let batch = batch(request.encode_to_vec());
            self.encoder.encode(&batch, &mut report.output());
            items += report.open().iter().sum::<usize>();
            self.dropped.extend_from_slice(report.dropped());
            for closed in report.take_closed() {
                items += closed.items.unwrap_or_default();
                out.push((closed.shard, closed.body));
            }
        }
        for shard in 0..shards {
            out.extend(self.encoder.close(shard).map(|body| (shard, body)));
        }
        use crate::exporters::delivery::sharded::ShardBody;
        assert_eq!(
            out.iter().map(|(_, body)| body.items()).sum::<usize>(),
            items,
            "every item is in a request"
        );
        out
    }

    /// The same, as decoded 1.0 series.
    pub fn series(&mut self, requests: &[ExportMetricsServiceRequest]) -> Vec<TimeSeries> {
        self.bodies(requests).iter().flat_map(|(_, body)| decode(body)).collect()
    }

    /// The same, as text.
    pub fn text(&mut self, requests: &[ExportMetricsServiceRequest]) -> Vec<String> {
        self.series(requests).iter().flat_map(lines).collect()
    }
}

pub fn batch(bytes: Vec<u8>) -> Batch {
    let items = crate::pdata::count(Signal::Metrics, &bytes).unwrap_or_default();
    Batch {
        signal: Signal::Metrics,
        rope: Rope::from(bytes),
        items,
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: std::time::Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    }
}

pub fn decode(body: &WriteBody) -> Vec<TimeSeries> {
    let message = match body.version() {
        Version::V1 => body.message().unwrap().to_vec(),
        Version::V2 => {
            snap::raw::Decoder::new().decompress_vec(&body.to_v1(usize::MAX).unwrap().unwrap()).unwrap()
        }
    };
    WriteRequest::decode(message.as_slice()).unwrap().timeseries
}

/// `name{labels} value @milliseconds`, exemplars after `#`.
pub fn lines(series: &TimeSeries) -> Vec<String> {
    let name = series.labels.iter().find(|l| l.name == "__name__").map_or("", |l| &l.value);
    let shown = |labels: &[Label]| {
        let labels = labels.iter().filter(|l| l.name != "__name__");
        labels.map(|l| format!("{}={:?}", l.name, l.value)).collect::<Vec<_>>().join(",")
    };
    let labels = shown(&series.labels);
    let mut out = Vec::new();
    for sample in &series.samples {
        let value = match sample.bits {
            0x7ff0_0000_0000_0002 => "stale".to_owned(),
            bits => f64::from_bits(bits).to_string(),
        };
        let at = sample.timestamp - NOW as i64;
        let mut line = format!("{name}{{{labels}}} {value} @{at}");
        for exemplar in &series.exemplars {
            let value = f64::from_bits(exemplar.bits);
            line +=
                &format!(" # {{{}}} {value} @{}", shown(&exemplar.labels), exemplar.timestamp - NOW as i64);
        }
        out.push(line);
    }
    out.extend(
        series.histograms.iter().map(|h| format!("{name}{{{labels}}} histogram of {} bytes", h.len())),
    );
    out
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

pub fn attributes(list: &[(&str, &str)]) -> Vec<KeyValue> {
    list.iter().map(|(key, value)| attribute(key, value)).collect()
}

pub fn request(resource: &[(&str, &str)], metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: attributes(resource), ..Default::default() }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "s".into(),
                    version: "1".into(),
                    ..Default::default()
                }),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

pub fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric { name: name.into(), unit: unit.into(), data: Some(data), ..Default::default() }
}

pub fn number(list: &[(&str, &str)], value: f64, at: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(list),
        time_unix_nano: (NOW + at) * 1_000_000,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}
