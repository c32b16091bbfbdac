//! For tests of processors: the `processors:` section of a file in, what became of a request out.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use prost::Message;
use smallvec::SmallVec;

use crate::components::{Build, Kind};
use crate::config::{Loaded, Severity, parse_bytes};
use crate::pdata::{Batch, Rope, Signal, count};
use crate::pipeline::{Acks, BuildContext, Ledger, Stage};
use crate::processors::edit::{Applied, Program};
use crate::telemetry::Metrics;

/// A request of one signal.
pub(crate) trait Request: Message + Default + Clone + PartialEq {
    const SIGNAL: Signal;
}

impl Request for ExportTraceServiceRequest {
    const SIGNAL: Signal = Signal::Traces;
}

impl Request for ExportMetricsServiceRequest {
    const SIGNAL: Signal = Signal::Metrics;
}

impl Request for ExportLogsServiceRequest {
    const SIGNAL: Signal = Signal::Logs;
}

/// What became of a request.
pub(crate) struct Outcome<R> {
    pub(crate) request: R,
    /// Items that are left, as the batch says.
    pub(crate) items: usize,
    pub(crate) dropped: usize,
    pub(crate) malformed: usize,
    pub(crate) changed: bool,
    pub(crate) refused: Option<String>,
    /// How many walks it took.
    pub(crate) walks: usize,
    pub(crate) metrics: Arc<Metrics>,
}

/// A whole file with these processors; they start on its second line, two columns in.
fn load(processors: &str) -> Loaded {
    let mut text = "processors:\n".to_owned();
    for line in processors.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(
        "receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:4317'}}}}\nexporters: {nop: }\n\
         service: {pipelines: {logs: {receivers: [otlp], exporters: [nop]}}}\n",
    );
    parse_bytes(text.as_bytes())
}

/// What is wrong with a processor: `line:column message`, the line counted from 1 in the text given, and the hint.
pub(crate) fn mistakes(processors: &str) -> Vec<(String, Option<String>)> {
    let found = load(processors).diags;
    found
        .into_iter()
        .filter(|d| d.severity >= Severity::Warning)
        .map(|d| (format!("{}:{} {}", d.pos.line - 1, d.pos.col - 2, d.message), d.hint))
        .collect()
}

/// Runs processors on a request, first to last, as a pipeline runs them.
pub(crate) fn run<R: Request>(processors: &str, request: &R) -> Outcome<R> {
    let metrics = Metrics::new();
    let (bytes, outcome) = run_bytes(processors, R::SIGNAL, &request.encode_to_vec(), &metrics);
    Outcome {
        request: R::decode(bytes).unwrap(),
        items: outcome.items,
        dropped: outcome.dropped,
        malformed: outcome.malformed,
        changed: outcome.changed,
        refused: outcome.refused,
        walks: outcome.walks,
        metrics,
    }
}

/// The same with bytes that may be anything.
pub(crate) fn run_bytes(
    processors: &str,
    signal: Signal,
    bytes: &[u8],
    metrics: &Arc<Metrics>,
) -> (Bytes, Outcome<()>) {
    apply(&programs(processors, signal, metrics), signal, bytes, metrics)
}

/// The walks that processors come to, for running them more than once.
pub(crate) fn programs(processors: &str, signal: Signal, metrics: &Arc<Metrics>) -> Vec<Program> {
    let loaded = load(processors);
    let diags = crate::config::render(&loaded.diags, &loaded.sources);
    let plan = loaded.plan.unwrap_or_else(|| panic!("{diags}"));
    let mut edits = Vec::new();
    for component in plan.components.iter().filter(|c| c.kind == Kind::Processor) {
        let cx =
            BuildContext { id: component.id.clone(), metrics: metrics.clone(), ledger: Ledger::new(1 << 30) };
        let Build::Processor(make) = component.component.build else { panic!("no processor") };
        let Ok(Stage::Edit(edit)) = make(component.config.as_ref(), signal, &cx) else { panic!("no edit") };
        edits.push(edit);
    }
    Program::chain(signal, edits)
}

/// Runs them on a request.
pub(crate) fn apply(
    programs: &[Program],
    signal: Signal,
    bytes: &[u8],
    metrics: &Arc<Metrics>,
) -> (Bytes, Outcome<()>) {
    let mut batch = Batch {
        signal,
        rope: Rope::from(bytes.to_vec()),
        items: count(signal, bytes).unwrap_or_default(),
        client: Arc::default(),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    };
    let mut out = Outcome {
        request: (),
        items: 0,
        dropped: 0,
        malformed: 0,
        changed: false,
        refused: None,
        walks: programs.len(),
        metrics: metrics.clone(),
    };
    for program in programs {
        let Applied { changed, malformed, dropped, refused } = program.apply(&mut batch);
        out.dropped += dropped;
        out.malformed += malformed;
        out.changed |= changed;
        out.refused = refused;
        if out.refused.is_some() {
            break;
        }
    }
    out.items = batch.items;
    (batch.rope.to_bytes(), out)
}

impl<R> Outcome<R> {
    /// The value of a counter with one label or several, 0 if it has not appeared.
    pub(crate) fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        let fits = |metric: &&prometheus::proto::Metric| {
            let has = |(key, value): &(&str, &str)| {
                metric.get_label().iter().any(|pair| pair.name() == *key && pair.value() == *value)
            };
            metric.get_label().len() == labels.len() && labels.iter().all(has)
        };
        let metric = family.and_then(|family| family.get_metric().iter().find(fits));
        metric.map_or(0, |metric| metric.get_counter().get_value() as u64)
    }
}

/// A text attribute.
pub(crate) fn attr(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(text(value)), ..KeyValue::default() }
}

/// A text value.
pub(crate) fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(value.into())) }
}
