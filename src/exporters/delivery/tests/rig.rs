//! A delivery around a scripted sender, with everything observed.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus::proto::Metric;
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::exporters::delivery::otlp::OtlpEncoder;
use crate::exporters::delivery::{
    Attempt, Delivery, DeliveryConfig, Outcome, QueueConfig, RetryConfig, Sender,
};
use crate::pdata::{Batch, ClientInfo, Rope, Signal, Tenant};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{
    Acks, BuildContext, Consumer, Exporter, Ledger, Leftover, RunContext, StartError, Verdict, ack,
};
use crate::telemetry::Metrics;

/// What the sender does with one attempt. After the script everything is delivered at once.
#[derive(Debug, Clone)]
pub enum Step {
    Now(Outcome),
    /// This outcome, from now on always.
    Repeat(Outcome),
    /// Delivered after a while.
    Later(Duration),
    Hang,
    Panic,
    /// From now on, too large when there are more items than this.
    AtMost(usize),
    /// The same for one attempt.
    AtMostOnce(usize),
}

#[derive(Debug, Default)]
struct Log {
    attempts: Vec<Instant>,
    delivered: Vec<u64>,
    sizes: Vec<usize>,
    tenants: Vec<String>,
    /// Whose, which and when, of each delivery.
    deliveries: Vec<(Option<Tenant>, Vec<u64>, Instant)>,
    /// Whose and when, of each attempt.
    attempts_of: Vec<(Option<Tenant>, Instant)>,
    at_once: usize,
    most_at_once: usize,
}

struct Scripted {
    script: Mutex<VecDeque<Step>>,
    /// For tenants with a script of their own.
    scripts: Mutex<HashMap<String, VecDeque<Step>>>,
    log: Arc<Mutex<Log>>,
}

struct Sending(Arc<Mutex<Log>>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.lock().unwrap().at_once -= 1;
    }
}

impl Sender<Rope> for Scripted {
    fn start(&self, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }

    async fn send(&self, attempt: Attempt<'_, Rope>) -> Outcome {
        let step = {
            let mut scripts = self.scripts.lock().unwrap();
            let own = attempt.tenant.and_then(|tenant| scripts.get_mut(tenant.name()));
            let mut common = self.script.lock().unwrap();
            let script = own.unwrap_or(&mut common);
            match script.front() {
                Some(Step::Repeat(_) | Step::AtMost(_)) => script.front().cloned(),
                _ => script.pop_front(),
            }
        };
        let ids = ids(attempt.body);
        let _sending = {
            let mut log = self.log.lock().unwrap();
            log.attempts.push(Instant::now());
            log.attempts_of.push((attempt.tenant.cloned(), Instant::now()));
            log.at_once += 1;
            log.most_at_once = log.most_at_once.max(log.at_once);
            Sending(self.log.clone())
        };
        let outcome = match step {
            None => Outcome::delivered(),
            Some(Step::Now(outcome) | Step::Repeat(outcome)) => outcome,
            Some(Step::Later(wait)) => {
                tokio::time::sleep(wait).await;
                Outcome::delivered()
            }
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Panic) => panic!("as told"),
            Some(Step::AtMost(n) | Step::AtMostOnce(n)) if ids.len() > n => {
                Outcome::TooLarge { reason: "too large".into() }
            }
            Some(Step::AtMost(_) | Step::AtMostOnce(_)) => Outcome::delivered(),
        };
        if let Outcome::Delivered { .. } = outcome {
            let mut log = self.log.lock().unwrap();
            log.sizes.push(ids.len());
            log.deliveries.push((attempt.tenant.cloned(), ids.clone(), Instant::now()));
            log.delivered.extend(ids);
            log.tenants.extend(attempt.client.metadata("x-tenant").iter().flat_map(|v| v.iter().cloned()));
        }
        outcome
    }
}

pub struct Rig {
    delivery: Delivery<OtlpEncoder, Scripted>,
    log: Arc<Mutex<Log>>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    supervisor: Supervisor,
    started: Instant,
    next: Mutex<u64>,
}

impl Rig {
    pub async fn start(config: DeliveryConfig, script: Vec<Step>) -> Rig {
        Rig::start_with(config, 1 << 30, script, []).await
    }

    /// With a budget of memory, and scripts for some tenants.
    pub async fn start_with(
        config: DeliveryConfig,
        budget: usize,
        script: Vec<Step>,
        scripts: impl IntoIterator<Item = (&str, Vec<Step>)>,
    ) -> Rig {
        let (metrics, ledger) = (Metrics::new(), Ledger::new(budget));
        let log = Arc::new(Mutex::new(Log::default()));
        let scripts = scripts.into_iter().map(|(name, script)| (name.to_owned(), script.into())).collect();
        let (script, scripts) = (Mutex::new(script.into()), Mutex::new(scripts));
        let sender = Scripted { script, scripts, log: log.clone() };
        let cx = BuildContext { id: "test".into(), metrics: metrics.clone(), ledger: ledger.clone() };
        let delivery = Delivery::new(&cx, Signal::Traces, config, OtlpEncoder, sender);
        let supervisor = Supervisor::default();
        let run = RunContext {
            supervisor: supervisor.clone(),
            ledger: ledger.clone(),
            metrics: metrics.clone(),
            extensions: Arc::new(HashMap::new()),
            readiness: Default::default(),
        };
        delivery.start(&run).await.unwrap();
        let next = Mutex::new(1 << 32);
        Rig { delivery, log, metrics, ledger, supervisor, started: Instant::now(), next }
    }

    fn batch(&self, ids: Range<u64>, tenant: Option<&str>, acks: Acks) -> Batch {
        let items = (ids.end - ids.start) as usize;
        let rope = request(ids);
        let lease = Arc::new(self.ledger.reserve(rope.len()).unwrap());
        let mut client = ClientInfo::default();
        if let Some(tenant) = tenant {
            client.metadata.push(("x-tenant".into(), [tenant.to_owned()].into_iter().collect()));
        }
        let received = std::time::Instant::now();
        let leases = [lease].into_iter().collect();
        Batch {
            signal: Signal::Traces,
            rope,
            items,
            client: Arc::new(client),
            tenant: None,
            demoted: false,
            received,
            leases,
            acks,
        }
    }

    /// Offers spans with these ids; nobody waits for them.
    pub fn offer(&self, ids: Range<u64>) {
        self.delivery.consume(self.batch(ids, None, Acks::none()));
    }

    pub fn offer_as(&self, tenant: Option<&str>, ids: Range<u64>) {
        self.delivery.consume(self.batch(ids, tenant, Acks::none()));
    }

    /// Offers spans of a tenant; nobody waits for them.
    pub fn offer_of(&self, tenant: &Tenant, ids: Range<u64>) {
        let batch = self.batch(ids, None, Acks::none());
        self.delivery.consume(Batch { tenant: Some(tenant.clone()), ..batch });
    }

    /// The same, behind all others.
    pub fn offer_demoted(&self, tenant: &Tenant, ids: Range<u64>) {
        let batch = self.batch(ids, None, Acks::none());
        self.delivery.consume(Batch { tenant: Some(tenant.clone()), demoted: true, ..batch });
    }

    /// Offers spans of a tenant; the verdict arrives on the returned channel.
    pub fn ask_of(&self, tenant: &Tenant, ids: Range<u64>) -> oneshot::Receiver<Verdict> {
        let (ack, verdict) = ack();
        let batch = self.batch(ids, None, ack.into());
        self.delivery.consume(Batch { tenant: Some(tenant.clone()), ..batch });
        verdict
    }

    /// Offers spans; the verdict arrives on the returned channel.
    pub fn ask(&self, ids: Range<u64>) -> oneshot::Receiver<Verdict> {
        let (ack, verdict) = ack();
        self.delivery.consume(self.batch(ids, None, ack.into()));
        verdict
    }

    /// Offers batches of these sizes at once; their verdicts.
    pub async fn ask_all(&self, sizes: &[u64]) -> Vec<Verdict> {
        let ask = |n: &u64| {
            let mut next = self.next.lock().unwrap();
            *next += n;
            self.ask(*next - n..*next)
        };
        let answers: Vec<_> = sizes.iter().map(ask).collect();
        let mut verdicts = Vec::new();
        for answer in answers {
            verdicts.push(answer.await.unwrap());
        }
        verdicts
    }

    /// Lets every task that can run do so, without the clock moving.
    pub async fn pause(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until nothing is held any more.
    pub async fn settled(&self) {
        while self.delivery.queued_items() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.pause().await;
    }

    pub async fn drain(&self, budget: Duration) -> Leftover {
        self.delivery.drain((Instant::now() + budget).into_std()).await
    }

    pub fn holds_acks(&self) -> bool {
        self.delivery.holds_acks()
    }

    pub fn queued(&self) -> usize {
        self.balance();
        self.delivery.queued_items()
    }

    /// Sent, failed and refused. Checks that they are everything and that nothing is held.
    pub fn books(&self) -> [u64; 3] {
        assert_eq!(self.delivery.queued_items(), 0);
        assert_eq!(self.ledger.used(), 0, "memory is still held");
        assert_eq!(self.gauge("otelcol_exporter_in_flight_requests"), 0.0);
        assert_eq!(self.gauge("otelcol_exporter_queue_size"), 0.0);
        self.balance()
    }

    fn balance(&self) -> [u64; 3] {
        let [offered, sent, failed, refused] = self.delivery.items().totals();
        let queued = self.delivery.queued_items() as u64;
        assert_eq!(offered, sent + failed + refused + queued, "the books do not balance");
        assert_eq!(self.gauge("tidegate_exporter_queued_items"), queued as f64);
        [sent, failed, refused]
    }

    fn gauge(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == name);
        family.map_or(0.0, |f| f.get_metric().iter().map(|m| m.get_gauge().get_value()).sum())
    }

    /// The reasons under which items were dropped, sorted.
    pub fn drop_reasons(&self) -> Vec<String> {
        self.reasons("tidegate_dropped_items")
    }

    /// The reasons under which items were refused, sorted.
    pub fn refusal_reasons(&self) -> Vec<String> {
        self.reasons("tidegate_exporter_refused_items")
    }

    fn reasons(&self, name: &str) -> Vec<String> {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == name);
        let reason = |m| label(m, "reason").to_owned();
        let mut reasons: Vec<String> = family.iter().flat_map(|f| f.get_metric()).map(reason).collect();
        reasons.sort();
        reasons
    }

    /// Sent, failed, refused and queued of one tenant.
    pub fn books_of(&self, tenant: &Tenant) -> [u64; 4] {
        let families = self.metrics.gather();
        let read = |name: &str, outcome: &str| {
            let family = families.iter().find(|f| f.name() == name);
            let ours = |m: &&Metric| label(m, "tenant") == tenant.name() && label(m, "outcome") == outcome;
            let values = family.iter().flat_map(|f| f.get_metric()).filter(ours);
            values.map(|m| (m.get_counter().get_value() + m.get_gauge().get_value()) as u64).sum()
        };
        let items = |outcome| read("tidegate_exporter_tenant_items", outcome);
        let queued = read("tidegate_exporter_tenant_queued_items", "");
        [items("sent"), items("failed"), items("refused"), queued]
    }

    /// Every delivery: whose, which, and how long after the start.
    pub fn deliveries(&self) -> Vec<(Option<Tenant>, Vec<u64>, Duration)> {
        let log = self.log.lock().unwrap();
        log.deliveries.iter().map(|(t, ids, at)| (t.clone(), ids.clone(), *at - self.started)).collect()
    }

    /// How long after the start attempts were made for a tenant.
    pub fn attempts_of(&self, tenant: &Tenant) -> Vec<Duration> {
        let log = self.log.lock().unwrap();
        let ours = log.attempts_of.iter().filter(|(t, _)| t.as_ref() == Some(tenant));
        ours.map(|(_, at)| *at - self.started).collect()
    }

    pub fn memory_used(&self) -> usize {
        self.ledger.used()
    }

    /// Seconds since the start, of each attempt.
    pub fn attempt_times(&self) -> Vec<u64> {
        self.log.lock().unwrap().attempts.iter().map(|t| (*t - self.started).as_secs()).collect()
    }

    pub fn attempts(&self) -> usize {
        self.log.lock().unwrap().attempts.len()
    }

    /// When the last attempt was made.
    pub fn elapsed(&self) -> Duration {
        self.log.lock().unwrap().attempts.last().map_or(Duration::ZERO, |t| *t - self.started)
    }

    pub fn delivered(&self) -> Vec<u64> {
        self.log.lock().unwrap().delivered.clone()
    }

    pub fn sizes(&self) -> Vec<usize> {
        self.log.lock().unwrap().sizes.clone()
    }

    pub fn tenants(&self) -> Vec<String> {
        self.log.lock().unwrap().tenants.clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.log.lock().unwrap().most_at_once
    }

    pub fn panicked(&self) -> usize {
        self.supervisor.panicked()
    }
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.get_label().iter().find(|l| l.name() == name).map_or("", |l| l.value())
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn queue() -> QueueConfig {
    QueueConfig::default()
}

pub fn config(queue: QueueConfig, retry: RetryConfig) -> DeliveryConfig {
    DeliveryConfig { queue: Some(queue), retry, timeout: Duration::ZERO }
}

/// A request with a span for each id.
pub fn request(ids: Range<u64>) -> Rope {
    let span = |id: u64| Span { span_id: id.to_be_bytes().to_vec(), name: "x".repeat(20), ..Span::default() };
    let scope = ScopeSpans { spans: ids.map(span).collect(), ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    Rope::from(ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec())
}

fn ids(rope: &Rope) -> Vec<u64> {
    let request = ExportTraceServiceRequest::decode(rope.to_bytes()).unwrap();
    let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
    spans.map(|s| u64::from_be_bytes(s.span_id.try_into().unwrap())).collect()
}
