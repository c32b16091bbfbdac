//! A sharded delivery around a toy encoder and a sender that follows a rule, with everything observed.
//!
//! Telemetry is numbers: a batch's rope is their bytes, a number's shard is its remainder, its tenant its millions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::exporters::delivery::sharded::{Output, ShardBody, ShardEncoder, ShardedConfig, ShardedDelivery};
use crate::exporters::delivery::{Attempt, Outcome, QueueConfig, RetryConfig, Sender};
use crate::pdata::{Batch, ClientInfo, Rope, Signal, Tenant};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{
    Acks, BuildContext, Consumer, Exporter, Ledger, Leftover, RunContext, StartError, Verdict, ack,
};
use crate::telemetry::Metrics;

pub const SHARDS: usize = 4;
/// Numbers of each tenant; the first are nobody's.
pub const EACH: u64 = 1_000_000;
/// From here on within its tenant's, a number is in a demoted batch.
pub const DEMOTED: u64 = EACH / 2;

/// What the sender does with one attempt.
#[derive(Debug, Clone)]
pub enum Step {
    Now(Outcome),
    Later(Duration, Outcome),
    Hang,
    Panic,
}

/// Decides on an attempt: its numbers, and how many attempts there were before at any request.
pub type Rule = Box<dyn Fn(&[u64], usize) -> Step + Send + Sync>;

/// A request: its shard, its numbers, what it is charged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    pub shard: usize,
    pub ids: Vec<u64>,
    /// Whose it is, if it says so itself.
    pub tenant: Option<Tenant>,
}

/// How the encoder behaves.
#[derive(Debug, Clone)]
pub struct Toy {
    pub shards: usize,
    /// The most numbers in a request.
    pub most: usize,
    /// Numbers that have no form.
    pub formless: Vec<u64>,
    /// Numbers that are forgotten.
    pub forgotten: Vec<u64>,
    /// Numbers on which it panics, having taken all before them.
    pub poison: Vec<u64>,
    /// The same, with the number in the request and not reported.
    pub spoil: Vec<u64>,
    /// Panics in `close` from this number of calls on.
    pub jammed_from: usize,
    /// Sends an empty request on shard 0 at each tick.
    pub chatty: bool,
    /// Whether requests name their tenants, of which one batch may have several.
    pub naming: bool,
}

impl Default for Toy {
    fn default() -> Self {
        Toy {
            shards: SHARDS,
            most: usize::MAX,
            formless: vec![],
            forgotten: vec![],
            poison: vec![],
            spoil: vec![],
            jammed_from: usize::MAX,
            chatty: false,
            naming: false,
        }
    }
}

struct ToyEncoder {
    toy: Toy,
    open: Vec<Vec<u64>>,
    /// Whose each open request is, where requests say so.
    tenants: Vec<Option<Tenant>>,
    encoded: Arc<Mutex<Vec<Option<Tenant>>>>,
    closes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    pub at: u64,
    pub shard: usize,
    pub ids: Vec<u64>,
}

#[derive(Debug, Default)]
struct Log {
    attempts: Vec<Attempted>,
    /// By line, in the order of arrival.
    delivered: BTreeMap<Line, Vec<u64>>,
    tenants: Vec<(String, Vec<u64>)>,
    at_once: BTreeMap<Line, usize>,
    most_at_once: usize,
    /// Attempts made while another one of the same line was.
    overlaps: usize,
    /// Attempts for another tenant than the numbers'.
    mixed: usize,
}

/// The millions of a tenant's numbers, and the shard.
type Line = (u64, usize);

struct Ruled {
    rule: Rule,
    started: Instant,
    log: Arc<Mutex<Log>>,
}

struct Sending(Arc<Mutex<Log>>, Line);

pub struct Rig {
    delivery: ShardedDelivery<ToyEncoder, Ruled>,
    log: Arc<Mutex<Log>>,
    encoded: Arc<Mutex<Vec<Option<Tenant>>>>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    supervisor: Supervisor,
    naming: bool,
}

impl ShardBody for Numbers {
    fn items(&self) -> usize {
        self.ids.len()
    }

    fn halve(mut self) -> Result<[Self; 2], Self> {
        if self.ids.len() < 2 {
            return Err(self);
        }
        let ids = self.ids.split_off(self.ids.len() / 2);
        let second = Numbers { shard: self.shard, ids, tenant: self.tenant.clone() };
        Ok([self, second])
    }

    fn size(&self) -> usize {
        self.ids.len() * 8
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }
}

impl ToyEncoder {
    fn take(&mut self, shard: usize) -> Numbers {
        Numbers { shard, ids: std::mem::take(&mut self.open[shard]), tenant: self.tenants[shard].take() }
    }
}

impl ShardEncoder for ToyEncoder {
    type Body = Numbers;

    fn shards(&self) -> usize {
        self.toy.shards
    }

    fn encode(&mut self, batch: &Batch, out: &mut Output<'_, Numbers>) {
        assert!(batch.acks.settled() && batch.leases.is_empty());
        self.encoded.lock().unwrap().push(batch.tenant.clone());
        for id in numbers(&batch.rope) {
            let shard = id as usize % self.toy.shards;
            if self.toy.formless.contains(&id) {
                out.dropped(1, "formless");
                continue;
            }
            if self.toy.forgotten.contains(&id) {
                continue;
            }
            assert!(!self.toy.poison.contains(&id), "poisoned");
            let whose = tenant_of(&[id]).filter(|_| self.toy.naming);
            if self.tenants[shard] != whose && !self.open[shard].is_empty() {
                let body = self.take(shard);
                out.full(shard, body);
            }
            self.tenants[shard] = whose;
            self.open[shard].push(id);
            assert!(!self.toy.spoil.contains(&id), "spoiled");
            out.item(shard);
            if self.open[shard].len() >= self.toy.most {
                let body = self.take(shard);
                out.full(shard, body);
            }
        }
    }

    fn close(&mut self, shard: usize) -> Option<Numbers> {
        self.closes += 1;
        assert!(self.closes <= self.toy.jammed_from, "jammed");
        (!self.open[shard].is_empty()).then(|| self.take(shard))
    }

    fn open_tenant(&self, shard: usize) -> Option<&Tenant> {
        self.tenants[shard].as_ref()
    }

    fn open_size(&self, shard: usize) -> usize {
        self.open[shard].len() * 8
    }

    fn partition(&self, client: &ClientInfo) -> u64 {
        client.metadata("x-tenant").and_then(|v| v.first()).map_or(0, |v| v.len() as u64)
    }

    fn tick(&mut self, out: &mut Output<'_, Numbers>) {
        if self.toy.chatty {
            out.extra(0, Numbers { shard: 0, ids: vec![], tenant: None });
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        *self.0.lock().unwrap().at_once.get_mut(&self.1).unwrap() -= 1;
    }
}

impl Sender<Numbers> for Ruled {
    fn start(&self, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }

    async fn send(&self, attempt: Attempt<'_, Numbers>) -> Outcome {
        let Numbers { shard, ids, .. } = attempt.body.clone();
        let line = (ids.first().map_or(0, |id| id / EACH), shard);
        let (before, _sending) = {
            let mut log = self.log.lock().unwrap();
            let before = log.attempts.len();
            log.attempts.push(Attempted { at: self.started.elapsed().as_secs(), shard, ids: ids.clone() });
            let right = ids.iter().all(|id| tenant_of(&[*id]).as_ref() == attempt.tenant);
            log.mixed += usize::from(!right);
            let at_once = log.at_once.entry(line).or_default();
            *at_once += 1;
            let overlaps = usize::from(*at_once > 1);
            let total = log.at_once.values().sum();
            log.most_at_once = log.most_at_once.max(total);
            log.overlaps += overlaps;
            (before, Sending(self.log.clone(), line))
        };
        let outcome = match (self.rule)(&ids, before) {
            Step::Now(outcome) => outcome,
            Step::Later(wait, outcome) => {
                tokio::time::sleep(wait).await;
                outcome
            }
            Step::Hang => std::future::pending().await,
            Step::Panic => panic!("as told"),
        };
        if let Outcome::Delivered { rejected, .. } = outcome {
            let mut log = self.log.lock().unwrap();
            let taken = ids.len().saturating_sub(rejected);
            log.delivered.entry(line).or_default().extend(&ids[..taken]);
            let tenant = attempt.client.metadata("x-tenant").and_then(|v| v.first().cloned());
            log.tenants.push((tenant.unwrap_or_default(), ids));
        }
        outcome
    }
}

impl Rig {
    pub async fn start(config: ShardedConfig, toy: Toy, rule: Rule) -> Rig {
        let rig = Rig::build(config, toy, rule);
        rig.run().await;
        rig
    }

    pub fn build(config: ShardedConfig, toy: Toy, rule: Rule) -> Rig {
        let (metrics, ledger) = (Metrics::new(), Ledger::new(1 << 30));
        let (log, encoded): (Arc<Mutex<Log>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let sender = Ruled { rule, started: Instant::now(), log: log.clone() };
        let cx = BuildContext { id: "test".into(), metrics: metrics.clone(), ledger: ledger.clone() };
        let (open, naming) = (vec![Vec::new(); toy.shards], toy.naming);
        let tenants = vec![None; toy.shards];
        let encoder = ToyEncoder { toy, open, tenants, encoded: encoded.clone(), closes: 0 };
        let delivery = ShardedDelivery::new(&cx, Signal::Metrics, config, encoder, sender);
        Rig { delivery, log, encoded, metrics, ledger, supervisor: Supervisor::default(), naming }
    }

    pub async fn run(&self) {
        let run = RunContext {
            supervisor: self.supervisor.clone(),
            ledger: self.ledger.clone(),
            metrics: self.metrics.clone(),
            extensions: Arc::new(HashMap::new()),
            readiness: Default::default(),
        };
        self.delivery.start(&run).await.unwrap();
    }

    fn batch(&self, ids: impl IntoIterator<Item = u64>, tenant: Option<&str>, acks: Acks) -> Batch {
        let ids: Vec<u64> = ids.into_iter().collect();
        let rope = Rope::from(ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
        let lease = Arc::new(self.ledger.reserve(rope.len()).unwrap());
        let mut client = ClientInfo::default();
        if let Some(tenant) = tenant {
            client.metadata.push(("x-tenant".into(), [tenant.to_owned()].into_iter().collect()));
        }
        Batch {
            signal: Signal::Metrics,
            rope,
            items: ids.len(),
            client: Arc::new(client),
            tenant: tenant_of(&ids).filter(|_| !self.naming),
            demoted: ids.first().is_some_and(|id| id % EACH >= DEMOTED),
            received: std::time::Instant::now(),
            leases: [lease].into_iter().collect(),
            acks,
        }
    }

    /// Offers numbers; nobody waits for them.
    pub fn offer(&self, ids: impl IntoIterator<Item = u64>) {
        self.delivery.consume(self.batch(ids, None, Acks::none()));
    }

    pub fn offer_as(&self, tenant: &str, ids: impl IntoIterator<Item = u64>) {
        self.delivery.consume(self.batch(ids, Some(tenant), Acks::none()));
    }

    /// Offers numbers; the verdict arrives on the returned channel.
    pub fn ask(&self, ids: impl IntoIterator<Item = u64>) -> oneshot::Receiver<Verdict> {
        let (ack, verdict) = ack();
        self.delivery.consume(self.batch(ids, None, ack.into()));
        verdict
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

    /// Bytes of reserved memory.
    pub fn reserved(&self) -> usize {
        self.ledger.used()
    }

    /// Sent, failed and refused. Checks that they are everything and that nothing is held.
    pub fn books(&self) -> [u64; 3] {
        assert_eq!(self.delivery.queued_items(), 0);
        assert_eq!(self.ledger.used(), 0, "memory is still held");
        assert_eq!(self.gauge("otelcol_exporter_in_flight_requests"), 0.0);
        assert_eq!(self.gauge("otelcol_exporter_queue_size"), 0.0);
        self.balance()
    }

    pub fn balance(&self) -> [u64; 3] {
        let [offered, sent, failed, refused] = self.delivery.items().totals();
        let queued = self.delivery.queued_items() as u64;
        assert_eq!(offered, sent + failed + refused + queued, "the books do not balance");
        assert_eq!(self.gauge("tidegate_exporter_queued_items"), queued as f64);
        [sent, failed, refused]
    }

    pub fn gauge(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == name);
        family.map_or(0.0, |f| f.get_metric().iter().map(|m| m.get_gauge().get_value()).sum())
    }

    /// How many items were dropped, by reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let families = self.metrics.gather();
        let drop = |m: &prometheus::proto::Metric| {
            let reason = m.get_label().iter().find(|l| l.name() == "reason")?.value().to_owned();
            Some((reason, m.get_counter().get_value() as u64))
        };
        let family = families.iter().find(|f| f.name() == "tidegate_dropped_items");
        family.iter().flat_map(|f| f.get_metric()).filter_map(drop).collect()
    }

    pub fn attempts(&self) -> Vec<Attempted> {
        self.log.lock().unwrap().attempts.clone()
    }

    /// Seconds since the start, of each attempt of a shard.
    pub fn attempt_times(&self, shard: usize) -> Vec<u64> {
        self.attempts().iter().filter(|a| a.shard == shard).map(|a| a.at).collect()
    }

    /// What each attempt of a shard carried.
    pub fn attempt_ids(&self, shard: usize) -> Vec<Vec<u64>> {
        self.attempts().into_iter().filter(|a| a.shard == shard).map(|a| a.ids).collect()
    }

    /// Everything that arrived, sorted. Checks that each line was in order, nothing arrived twice, no line had two
    /// requests at once and all were for their own tenant.
    pub fn arrived(&self) -> Vec<u64> {
        let log = self.log.lock().unwrap();
        assert_eq!(log.overlaps, 0, "two requests of one line at once");
        assert_eq!(log.mixed, 0, "numbers under another tenant");
        for (line, ids) in &log.delivered {
            for demoted in [false, true] {
                let ids: Vec<u64> =
                    ids.iter().copied().filter(|id| (id % EACH >= DEMOTED) == demoted).collect();
                assert!(ids.is_sorted_by(|a, b| a < b), "{line:?} is out of order: {ids:?}");
            }
            assert!(ids.iter().all(|id| (id / EACH, *id as usize % SHARDS) == *line));
        }
        let mut all: Vec<u64> = log.delivered.values().flatten().copied().collect();
        all.sort_unstable();
        all
    }

    pub fn tenants(&self) -> Vec<(String, Vec<u64>)> {
        self.log.lock().unwrap().tenants.clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.log.lock().unwrap().most_at_once
    }

    /// How many batches have been encoded.
    pub fn encoded(&self) -> usize {
        self.encoded.lock().unwrap().len()
    }

    /// Whose batches have been encoded, in order: millions of numbers.
    pub fn encoded_for(&self) -> Vec<u64> {
        let number = |tenant: &Option<Tenant>| tenant.as_ref().map_or(0, |t| t.name().parse().unwrap());
        self.encoded.lock().unwrap().iter().map(number).collect()
    }

    /// Items of a tenant by outcome, as its counters say.
    pub fn counted(&self, tenant: u64, outcome: &str) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == "tidegate_exporter_tenant_items");
        let is = |m: &&prometheus::proto::Metric, name: &str, value: &str| {
            m.get_label().iter().any(|l| l.name() == name && l.value() == value)
        };
        let metrics = family.iter().flat_map(|f| f.get_metric());
        let ours = metrics.filter(|m| is(m, "tenant", &tenant.to_string()) && is(m, "outcome", outcome));
        ours.map(|m| m.get_counter().get_value() as u64).sum()
    }

    pub fn panicked(&self) -> usize {
        self.supervisor.panicked()
    }

    /// Lets go of the exporter. What remains shows whether it is gone: how many hold its log.
    pub fn forget(self) -> impl Fn() -> usize {
        let log = Arc::downgrade(&self.log);
        drop(self);
        move || log.strong_count()
    }
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn config(queue: QueueConfig, retry: RetryConfig) -> ShardedConfig {
    ShardedConfig { queue: Some(queue), retry, timeout: Duration::ZERO, backlog: 1 << 20, bisect: 64 }
}

/// Whose numbers these are.
fn tenant_of(ids: &[u64]) -> Option<Tenant> {
    let millions = ids.first()? / EACH;
    (millions > 0).then(|| Tenant::new(&millions.to_string()))
}

fn numbers(rope: &Rope) -> Vec<u64> {
    rope.to_bytes().as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}
