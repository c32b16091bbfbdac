//! The receiver over simulated GPUs, with everything on: what its requests hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric;
use prost::Message;
use tidegate::components::{Build, Kind};
use tidegate::config::parse_bytes;
use tidegate::pdata::{Batch, Signal};
use tidegate::pipeline::runtime::Supervisor;
use tidegate::pipeline::{BuildContext, Consumer, Ledger, Outputs, RunContext, Verdict};
use tidegate::telemetry::Metrics;
use tokio::sync::mpsc;

const CONFIG: &str = "
receivers:
  nvml:
    collection_interval: 1s
    slow_interval: 1s
    sample_interval: 100ms
    initial_delay: 0s
    node: node-1
    legacy_names: true
    dcgm_names: true
    simulate: {devices: 3, mig_devices: 1, faults: false}
    groups:
      process: {enabled: true}
      pcie_throughput: {enabled: true}
      nvlink_links: {enabled: true}
      ecc_locations: {enabled: true}
    cost: {per_gpu_hour: {default: 2.0}}
exporters: {debug: {}}
service: {pipelines: {metrics: {receivers: [nvml], exporters: [debug]}}}
";

/// What was sent under one name.
#[derive(Debug, Default)]
pub struct Sent {
    pub unit: String,
    /// The keys of all its points.
    pub attributes: BTreeSet<String>,
}

struct Keeper(mpsc::Sender<Batch>);

impl Consumer for Keeper {
    fn consume(&self, mut batch: Batch) {
        std::mem::take(&mut batch.acks).resolve(Verdict::Accepted);
        self.0.try_send(batch).expect("somebody takes them");
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

/// The metrics of the first collections, by name.
pub fn run() -> BTreeMap<String, Sent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let plan = parse_bytes(CONFIG.as_bytes());
        let plan = plan.plan.unwrap_or_else(|| panic!("{:?}", plan.diags));
        let component = plan.component(Kind::Receiver, "nvml").unwrap();
        let Build::Receiver(build) = component.component.build else { panic!("not a receiver") };
        let (metrics, ledger) = (Metrics::new(), Ledger::new(64 << 20));
        let cx = BuildContext { id: "nvml".to_owned(), metrics: metrics.clone(), ledger: ledger.clone() };
        let mut receiver = build(&*component.config, &cx).unwrap();
        let supervisor = Supervisor::default();
        let run = RunContext {
            supervisor: supervisor.clone(),
            ledger,
            metrics,
            extensions: Arc::new(HashMap::new()),
            readiness: Default::default(),
        };
        let (sender, mut batches) = mpsc::channel(100);
        let keeper: Arc<dyn Consumer> = Arc::new(Keeper(sender));
        let outputs: Outputs = Signal::ALL.map(|signal| (signal == Signal::Metrics).then(|| keeper.clone()));
        receiver.start(outputs, &run).await.unwrap();
        let mut sent = BTreeMap::new();
        // Windows of samples are there from the second on.
        for _ in 0..3 {
            let batch = tokio::time::timeout(Duration::from_secs(30), batches.recv());
            let batch = batch.await.expect("metrics in time").expect("the receiver runs");
            take(&batch.rope.to_bytes(), &mut sent);
        }
        receiver.stop(Instant::now() + Duration::from_secs(30)).await;
        assert_eq!(supervisor.panicked(), 0);
        sent
    })
}

fn take(request: &[u8], sent: &mut BTreeMap<String, Sent>) {
    let request = ExportMetricsServiceRequest::decode(request).unwrap();
    let scopes = request.resource_metrics.into_iter().flat_map(|group| group.scope_metrics);
    for metric in scopes.flat_map(|scope| scope.metrics) {
        let points = match metric.data.unwrap() {
            metric::Data::Gauge(gauge) => gauge.data_points,
            metric::Data::Sum(sum) => sum.data_points,
            other => panic!("{other:?}"),
        };
        let of = sent.entry(metric.name).or_default();
        of.unit = metric.unit;
        of.attributes.extend(points.into_iter().flat_map(|point| point.attributes).map(|pair| pair.key));
    }
}
