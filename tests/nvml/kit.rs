//! The receiver in this process, over a stand-in for the driver, into pipelines that keep what they get.
//!
//! Nothing here sleeps: a test waits for the next export or for the stand-in's calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nvml_stand_in::{Scenario, StandIn};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, metric, number_data_point,
};
use prost::Message;
use tidegate::components::{Build, Kind};
use tidegate::config::parse_bytes;
use tidegate::pdata::{Batch, Signal};
use tidegate::pipeline::runtime::Supervisor;
use tidegate::pipeline::{BuildContext, Consumer, Ledger, Outputs, Receiver, RunContext, Verdict};
use tidegate::telemetry::Metrics;
use tokio::sync::mpsc;

/// Longer than anything here takes.
pub const SOON: Duration = Duration::from_secs(30);

/// Bit 0 of a point's flags: there is no value.
const NO_RECORDED_VALUE: u32 = 1;

/// The kinds of metrics that the receiver makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    Gauge,
    UpDown,
    Counter,
}

/// One data point with everything that says what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub name: String,
    pub unit: String,
    pub shape: Shape,
    pub attributes: BTreeMap<String, String>,
    /// `None` where the point says that there is none.
    pub value: Option<f64>,
    /// Unix nanoseconds.
    pub start: u64,
    /// Unix nanoseconds.
    pub time: u64,
}

/// One request.
#[derive(Debug, Clone, Default)]
pub struct Export {
    pub points: Vec<Point>,
    pub resource: BTreeMap<String, String>,
    /// Places of points by name and attributes.
    by_key: HashMap<String, usize>,
}

/// One log record.
#[derive(Debug, Clone)]
pub struct Record {
    pub body: String,
    pub severity: i32,
    pub event: String,
    pub time: u64,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

/// A running receiver.
pub struct Rig {
    pub nvml: Arc<StandIn>,
    pub metrics: Arc<Metrics>,
    pub supervisor: Supervisor,
    receiver: Mutex<Box<dyn Receiver>>,
    batches: tokio::sync::Mutex<mpsc::Receiver<Batch>>,
    logs: Arc<Mutex<Vec<Record>>>,
}

/// A pipeline's entry that accepts everything.
struct Keeper {
    batches: mpsc::Sender<Batch>,
    logs: Arc<Mutex<Vec<Record>>>,
}

impl Consumer for Keeper {
    fn consume(&self, mut batch: Batch) {
        std::mem::take(&mut batch.acks).resolve(Verdict::Accepted);
        match batch.signal {
            Signal::Logs => self.logs.lock().unwrap().extend(records(&batch)),
            Signal::Metrics => drop(self.batches.try_send(batch)),
            Signal::Traces => panic!("no GPU makes traces"),
        }
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

impl Rig {
    /// A receiver over a stand-in with this scenario. `settings` are keys of the receiver, as YAML in braces without
    /// the braces; library, intervals and groups are given.
    pub async fn start(scenario: Scenario, settings: &str) -> Rig {
        Rig::over(Arc::new(StandIn::new(scenario)), settings).await
    }

    /// The same over a stand-in that is there already.
    pub async fn over(nvml: Arc<StandIn>, settings: &str) -> Rig {
        let mut keys = vec![format!("library_path: '{}', initial_delay: 0s", nvml.path().display())];
        for (key, value) in [("collection_interval", "1s"), ("slow_interval", "1s")] {
            if !settings.contains(key) {
                keys.push(format!("{key}: {value}"));
            }
        }
        keys.extend((!settings.is_empty()).then(|| settings.to_owned()));
        let keys = keys.join(", ");
        let yaml = format!(
            "receivers: {{nvml: {{{keys}}}}}\nexporters: {{debug: {{}}}}\nservice: {{pipelines: \
             {{metrics: {{receivers: [nvml], exporters: [debug]}}}}}}\n"
        );
        let loaded = parse_bytes(yaml.as_bytes());
        let plan = loaded.plan.unwrap_or_else(|| panic!("{yaml}\n{:?}", loaded.diags));
        let component = plan.component(Kind::Receiver, "nvml").unwrap();
        let Build::Receiver(build) = component.component.build else { panic!("not a receiver") };
        let metrics = Metrics::new();
        let ledger = Ledger::new(64 << 20);
        let cx = BuildContext { id: "nvml".to_owned(), metrics: metrics.clone(), ledger: ledger.clone() };
        let mut receiver = build(&*component.config, &cx).unwrap();
        let supervisor = Supervisor::default();
        let run = RunContext {
            supervisor: supervisor.clone(),
            ledger,
            metrics: metrics.clone(),
            extensions: Arc::new(HashMap::new()),
            readiness: Default::default(),
        };
        let (sender, batches) = mpsc::channel(1000);
        let logs: Arc<Mutex<Vec<Record>>> = Arc::default();
        let keeper: Arc<dyn Consumer> = Arc::new(Keeper { batches: sender, logs: logs.clone() });
        let outputs: Outputs = Signal::ALL.map(|signal| (signal != Signal::Traces).then(|| keeper.clone()));
        receiver.start(outputs, &run).await.unwrap();
        Rig {
            nvml,
            metrics,
            supervisor,
            receiver: Mutex::new(receiver),
            batches: tokio::sync::Mutex::new(batches),
            logs,
        }
    }

    /// The next request of metrics. Every one is looked at: no series twice, no number that is not one.
    pub async fn next(&self) -> Export {
        let mut batches = self.batches.lock().await;
        let batch = tokio::time::timeout(SOON, batches.recv());
        let batch = batch.await.expect("metrics in time").expect("the receiver runs");
        let export = Export::of(&batch);
        export.check(batch.items);
        export
    }

    /// The first request that `is` it.
    pub async fn until(&self, what: &str, mut is: impl FnMut(&Export) -> bool) -> Export {
        let begin = Instant::now();
        let mut last = Export::default();
        while begin.elapsed() < SOON {
            let export = self.next().await;
            if is(&export) {
                return export;
            }
            last = export;
        }
        panic!("not within {SOON:?}: {what}; the last export was\n{}", last.text());
    }

    /// A request made wholly after this call: one may be under way.
    pub async fn fresh(&self) -> Export {
        let now = unix_nanos();
        let after = |export: &Export| export.points.first().is_some_and(|point| point.time > now);
        self.until("an export after now", after).await;
        self.next().await
    }

    /// The log records so far.
    pub fn logs(&self) -> Vec<Record> {
        self.logs.lock().unwrap().clone()
    }

    /// The sum of the agent's own counters or gauges of a name.
    pub fn own(&self, name: &str, label: &str) -> f64 {
        let families = self.metrics.gather();
        let series = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
        series
            .filter(|m| label.is_empty() || m.get_label().iter().any(|l| l.value() == label))
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum()
    }

    /// Stops the receiver and shows that it was a good guest: nothing misused, nothing left open.
    pub async fn stop(self) {
        self.receiver.into_inner().unwrap().stop(Instant::now() + SOON).await;
        assert_eq!(self.supervisor.panicked(), 0);
        let stats = self.nvml.stats();
        assert_eq!(stats.misuse, Vec::<String>::new());
        assert_eq!((stats.up, stats.inits), (0, stats.shutdowns), "every init is taken back");
    }

    /// Stops the receiver, however the library was treated.
    pub async fn abandon(self, within: Duration) -> Duration {
        let begin = Instant::now();
        self.receiver.into_inner().unwrap().stop(begin + within).await;
        begin.elapsed()
    }
}

impl Export {
    pub fn of(batch: &Batch) -> Export {
        Export::decode(&batch.rope.to_bytes())
    }

    /// A request as its bytes.
    pub fn decode(bytes: &[u8]) -> Export {
        Export::from_request(ExportMetricsServiceRequest::decode(bytes).unwrap())
    }

    pub fn from_request(request: ExportMetricsServiceRequest) -> Export {
        let mut export = Export::default();
        for resource in request.resource_metrics {
            export.resource = attributes(resource.resource.unwrap_or_default().attributes);
            for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                export.points.extend(points(metric));
            }
        }
        for (at, point) in export.points.iter().enumerate() {
            let key = point.key();
            assert!(export.by_key.insert(key.clone(), at).is_none(), "twice: {key}");
        }
        export
    }

    /// The point with this name and exactly these attributes.
    pub fn exactly(&self, name: &str, attributes: &BTreeMap<String, String>) -> Option<&Point> {
        self.by_key.get(&key(name, attributes)).map(|&at| &self.points[at])
    }

    fn check(&self, items: usize) {
        assert_eq!(self.points.len(), items, "the batch knows how many points it has");
        for point in &self.points {
            let key = || point.key();
            if let Some(value) = point.value {
                assert!(value.is_finite(), "{} = {value}", key());
                // What NVML writes for "not available", and what one gets who reads it with a sign.
                let sentinel = value >= u64::MAX as f64 || value == f64::from(u32::MAX) || value == -1.0;
                assert!(!sentinel, "{} = {value}", key());
            }
            if point.shape == Shape::Counter {
                assert!(point.value.unwrap_or_default() >= 0.0, "{}", key());
                let (start, time) = (point.start, point.time);
                assert!(start > 0 && start <= time, "{}: {start} {time}", key());
            }
        }
    }

    /// The points of a metric with at least these attributes, `k=v k=v`.
    pub fn all<'a>(&'a self, name: &str, with: &str) -> Vec<&'a Point> {
        let with: Vec<(&str, &str)> = pairs(with).collect();
        let fits = |point: &&Point| {
            point.name == name
                && with.iter().all(|(key, value)| point.attributes.get(*key).is_some_and(|v| v == value))
        };
        self.points.iter().filter(fits).collect()
    }

    /// The one point of a metric with at least these attributes.
    pub fn one<'a>(&'a self, name: &str, with: &str) -> &'a Point {
        let all = self.all(name, with);
        assert_eq!(all.len(), 1, "{name}{{{with}}}: {all:#?}\namong\n{}", self.text());
        all[0]
    }

    /// The value of the one point.
    pub fn value(&self, name: &str, with: &str) -> f64 {
        self.one(name, with).value.unwrap_or_else(|| panic!("{name}{{{with}}} has no value"))
    }

    /// Whether there is a value.
    pub fn has(&self, name: &str, with: &str) -> bool {
        self.all(name, with).iter().any(|point| point.value.is_some())
    }

    /// Whether there is a point that says that the series has ended.
    pub fn ended(&self, name: &str, with: &str) -> bool {
        self.all(name, with).iter().any(|point| point.value.is_none())
    }

    /// The points that are of one device, by its UUID; fans and the like included.
    pub fn of_device<'a>(&'a self, uuid: &str) -> Vec<&'a Point> {
        let of = |point: &&Point| {
            ["hw.id", "hw.parent", "gpu_id", "UUID"]
                .iter()
                .any(|key| point.attributes.get(*key).is_some_and(|id| id.starts_with(uuid)))
        };
        self.points.iter().filter(of).collect()
    }

    /// For messages.
    pub fn text(&self) -> String {
        let lines =
            self.points.iter().map(|p| format!("  {} {:?} [{}] = {:?}\n", p.key(), p.shape, p.unit, p.value));
        lines.collect()
    }
}

impl Point {
    /// Name and attributes.
    pub fn key(&self) -> String {
        key(&self.name, &self.attributes)
    }
}

fn key(name: &str, attributes: &BTreeMap<String, String>) -> String {
    let mut key = format!("{name}{{");
    for (at, (attribute, value)) in attributes.iter().enumerate() {
        let between = if at == 0 { "" } else { " " };
        key.extend([between, attribute, "=", value]);
    }
    key + "}"
}

/// `k=v k=v` as pairs; a value ends at the next key, so that it may hold spaces.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter(|pair| !pair.trim().is_empty()).map(|pair| pair.trim().split_once('=').unwrap())
}

pub fn unix_nanos() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn points(metric: Metric) -> Vec<Point> {
    let (shape, points) = match metric.data.unwrap() {
        metric::Data::Gauge(gauge) => (Shape::Gauge, gauge.data_points),
        metric::Data::Sum(sum) => {
            assert_eq!(
                sum.aggregation_temporality,
                AggregationTemporality::Cumulative as i32,
                "{}",
                metric.name
            );
            (if sum.is_monotonic { Shape::Counter } else { Shape::UpDown }, sum.data_points)
        }
        other => panic!("{}: {other:?}", metric.name),
    };
    let point = |point: NumberDataPoint| {
        let gone = point.flags & NO_RECORDED_VALUE != 0;
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => Some(value),
            Some(number_data_point::Value::AsInt(value)) => Some(value as f64),
            None => None,
        };
        assert!(gone || value.is_some(), "{} has a point without value or flag", metric.name);
        Point {
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            shape,
            attributes: attributes(point.attributes),
            value: value.filter(|_| !gone),
            start: point.start_time_unix_nano,
            time: point.time_unix_nano,
        }
    };
    points.into_iter().map(point).collect()
}

fn records(batch: &Batch) -> Vec<Record> {
    let request = ExportLogsServiceRequest::decode(batch.rope.to_bytes()).unwrap();
    let mut records = Vec::new();
    for resource in request.resource_logs {
        let of = attributes(resource.resource.unwrap_or_default().attributes);
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            records.push(Record {
                body: record.body.map(text).unwrap_or_default(),
                severity: record.severity_number,
                event: record.event_name,
                time: record.time_unix_nano,
                attributes: attributes(record.attributes),
                resource: of.clone(),
            });
        }
    }
    assert_eq!(records.len(), batch.items);
    records
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    let count = list.len();
    let map: BTreeMap<String, String> =
        list.into_iter().map(|kv| (kv.key, text(kv.value.unwrap_or_default()))).collect();
    assert_eq!(map.len(), count, "an attribute twice: {map:?}");
    map
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(n)) => n.to_string(),
        Some(any_value::Value::DoubleValue(n)) => n.to_string(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    }
}
