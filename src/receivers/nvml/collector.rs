//! What happens at each collection, and in between.
//!
//! One task: it asks the [worker](super::worker) for readings and the kubelet for pods at the same time, lets accounts
//! advance, and hands one request on. Events are taken as they come. Nothing here blocks: the driver is called on the
//! worker's thread, and what it must not take is a deadline of the worker's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::accounts::{Accounts, Payers};
use super::catalogue::{Made, Table};
use super::config::NvmlConfig;
use super::emit::{Common, Emit, Thing};
use super::events::{Events, Log, Scene};
use super::health::Health;
use super::holders::{Evidence, Holder, Owner, Share};
use super::model::{Event, EventKind, Factory, Inventory, Report, State, unix_nanos};
use super::outbox::Outbox;
use super::pods::{Claim, Pods, Told};
use super::simulate::Schedule;
use super::worker::Worker;
use crate::components::BuildError;
use crate::pdata::template::{Attribute, attributes_message};
use crate::pdata::wire::put_bytes;
use crate::pipeline::runtime::Supervisor;
use crate::telemetry::Metrics;

/// The name of the scope of everything made here.
const SCOPE: &str = "tidegate.receiver.nvml";

/// How long stopping waits for the driver: requests that wait want some of the time as well.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Where requests go.
#[derive(Default, Clone)]
pub struct Ways {
    /// Metrics, if a pipeline takes them.
    pub metrics: Option<Outbox>,
    /// Log records, if a pipeline takes them.
    pub logs: Option<Outbox>,
}

/// Everything the task has.
pub struct Collector {
    config: NvmlConfig,
    node: String,
    ways: Ways,
    worker: Worker,
    pods: Pods,
    accounts: Option<Accounts>,
    schedule: Option<Arc<Schedule>>,
    emit: Emit,
    events: Events,
    health: Health,
    inventory: Option<Inventory>,
    /// Of this receiver's counters, in nanoseconds since 1970.
    start: u64,
    read_errors: std::collections::BTreeMap<&'static str, u64>,
    resource: Vec<u8>,
    scope: Vec<u8>,
}

/// What the receiver is made with.
pub struct Setup {
    /// The receiver's id.
    pub id: String,
    /// The node's name.
    pub node: String,
    /// Makes what reads GPUs.
    pub factory: Factory,
    /// Of simulated devices.
    pub schedule: Option<Arc<Schedule>>,
    /// Where requests go.
    pub ways: Ways,
    /// Starts the thread.
    pub supervisor: Supervisor,
    /// The agent's own metrics.
    pub metrics: Arc<Metrics>,
}

impl Collector {
    /// A collector that has not read anything yet.
    ///
    /// # Errors
    /// Sources of tenants that are none, in a config that was not decoded from a file.
    pub fn new(config: &NvmlConfig, setup: Setup) -> Result<Self, BuildError> {
        let Setup { id, node, factory, schedule, ways, supervisor, metrics } = setup;
        let cost = config.cost.get();
        let accounts = if config.accounts() {
            let payers = Payers::new(&config.tenant, &node, cost.is_none_or(|cost| cost.per_pod))?;
            Some(Accounts::new(cost, payers, &metrics, &id))
        } else {
            None
        };
        let common = Common {
            node: node.clone(),
            gpu_id: config.legacy_gpu_id,
            currency: cost.map(|cost| cost.currency.clone()).unwrap_or_default(),
        };
        let mut scope = Vec::new();
        put_bytes(&mut scope, 1, SCOPE.as_bytes());
        put_bytes(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
        let mut collector = Collector {
            worker: Worker::new(factory, supervisor, config.device_timeout),
            pods: Pods::new(
                config.pod_resources.get().filter(|_| schedule.is_none()),
                &config.processes,
                &id,
                &metrics,
            ),
            accounts,
            schedule,
            emit: Emit::new(Table::new(config.legacy_names, config.dcgm_names), common),
            events: Events::default(),
            health: Health::new(&id, config.required, &metrics),
            inventory: None,
            start: unix_nanos(),
            read_errors: Default::default(),
            resource: Vec::new(),
            scope,
            config: config.clone(),
            node,
            ways,
        };
        collector.resource = collector.resource();
        Ok(collector)
    }

    /// Runs until `stop`, then lets go of the driver by the deadline that comes through it.
    pub async fn run(mut self, stop: tokio::sync::oneshot::Receiver<tokio::time::Instant>) {
        let first = tokio::time::Instant::now() + self.config.initial_delay;
        let mut ticks = tokio::time::interval_at(first, self.config.collection_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let glances = !self.config.sample_interval.is_zero();
        let between = if glances { self.config.sample_interval } else { Duration::from_secs(3600) };
        let mut samples = tokio::time::interval_at(first + between, between);
        samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let wake = self.worker.event_wake();
        let mut stop = stop;
        let deadline = loop {
            tokio::select! {
                deadline = &mut stop => break deadline.unwrap_or_else(|_| tokio::time::Instant::now()),
                _ = ticks.tick() => tokio::select! {
                    // The driver may be slow, or not come back.
                    deadline = &mut stop => break deadline.unwrap_or_else(|_| tokio::time::Instant::now()),
                    () = self.collect() => {}
                },
                _ = samples.tick(), if glances => self.worker.glance(),
                // With the way blocked they wait for the next collection, which shows their count anyway.
                () = wake.notified(), if self.ways.logs.as_ref().is_none_or(Outbox::has_room) => {
                    self.take_events();
                    // What was handed on goes its way before more of it comes.
                    tokio::task::yield_now().await;
                }
            }
        };
        self.worker.stop(deadline.min(tokio::time::Instant::now() + LETTING_GO)).await;
        // What the driver told until then is not lost.
        self.take_events();
    }

    /// One collection.
    pub async fn collect(&mut self) {
        let began = Instant::now();
        let open = self.health.may_open(began);
        let (collected, ()) = tokio::join!(self.worker.collect(open), self.pods.refresh(began));
        if let Some(inventory) = collected.opened {
            self.health.opened(&inventory);
            self.inventory = Some(inventory);
            self.resource = self.resource();
        }
        if let Some(closed) = collected.closed {
            self.health.closed(&closed, Instant::now());
        }
        self.tell_simulated_pods(began);
        let now = Instant::now();
        let shares = self.pods.attribute(now, &collected.reports);
        // Events are of devices that were just read: their holders are those of now.
        self.take_events();
        let wall = unix_nanos();
        if let Some(accounts) = &mut self.accounts {
            accounts.advance(now, wall, self.config.collection_interval, &shares, &collected.reports);
        }
        for (word, count) in collected.reports.iter().flat_map(|report| &report.errors) {
            *self.read_errors.entry(word).or_default() += u64::from(*count);
        }
        self.health.collected(&collected.reports, began.elapsed(), wall);
        if self.ways.metrics.is_some() && self.health.shows() {
            self.emit_devices(&collected.reports);
            self.emit_holders(&shares);
            self.emit_node(&collected.reports);
            let request = self.emit.finish(wall, &self.resource, &self.scope);
            if let Some(metrics) = &self.ways.metrics {
                metrics.put(request);
            }
        }
    }

    fn emit_devices(&mut self, reports: &[Report]) {
        let driver = self.inventory.as_ref().map(|inventory| inventory.driver.clone()).unwrap_or_default();
        for report in reports {
            self.emit.report(report);
            let device = Thing::Device(report.identity.clone());
            if report.state != State::Asleep {
                self.emit.made(Made::Up, &device, report.state == State::Readable);
            }
            let info = Thing::Info(report.identity.clone(), driver.clone());
            self.emit.made(Made::Info, &info, true);
            for mig in &report.mig {
                let thing = Thing::MigInfo(report.identity.clone(), mig.identity.clone());
                self.emit.made(Made::MigInfo, &thing, true);
            }
            if self.config.groups.process.enabled {
                for process in &report.processes {
                    let on = (process.gpu_instance, process.compute_instance);
                    let known = self.pods.holder_of_process(process.pid);
                    let holder =
                        known.or_else(|| only(self.pods.holders_of(&report.identity.uuid, on.0, on.1)));
                    self.emit.process(&report.identity, process, holder);
                }
            }
            if let Some(&code) = self.events.last.get(&report.identity.uuid) {
                self.emit.made(Made::XidLast, &device, code);
            }
        }
    }

    fn emit_holders(&mut self, shares: &[Share]) {
        let Some(accounts) = &mut self.accounts else { return };
        for share in shares {
            let holder = match &share.owner {
                Owner::Pod(holder) => Some(holder.clone()),
                Owner::Host => None,
                Owner::Unallocated | Owner::Unknown => continue,
            };
            let payer = accounts.payers().of(&share.owner);
            let evidence = match share.evidence {
                Evidence::Kubelet => "kubelet",
                Evidence::Process => "process",
                Evidence::None => "none",
            };
            let mig = share.mig.as_ref().map(|mig| mig.uuid.clone());
            let thing = Thing::Allocation(share.device.uuid.clone(), mig, holder, payer, evidence);
            self.emit.made(Made::AllocationShare, &thing, share.part);
            if let Some(busy) = share.busy {
                self.emit.made(Made::AllocationBusy, &thing, busy);
            }
        }
        for row in accounts.rows() {
            self.emit.account(row);
        }
        for time in accounts.unaccounted() {
            let thing = Thing::Gpu(time.gpu.clone(), time.model.clone());
            self.emit.count(Made::Unaccounted, &thing, time.seconds, time.start);
        }
        for (model, price) in accounts.prices() {
            self.emit.made(Made::Price, &Thing::Model(model.into()), price);
        }
    }

    fn emit_node(&mut self, reports: &[Report]) {
        let node = Thing::Node("");
        self.emit.made(Made::CollectionSuccess, &node, self.health.is_open());
        self.emit.made(Made::CollectionDuration, &node, self.health.duration());
        if let Some(last) = self.health.last_success() {
            self.emit.made(Made::CollectionLastSuccess, &node, last);
        }
        self.emit.count(Made::Generation, &node, self.health.generation(), self.start);
        // Devices that are known and were not read are lost, whatever the reason.
        let (known, denied) =
            self.inventory.as_ref().map_or((0, 0), |inventory| (inventory.devices.len(), inventory.denied));
        let count = |state| reports.iter().filter(|report| report.state == state).count();
        let readable = count(State::Readable);
        let asleep = count(State::Asleep);
        let lost = known.saturating_sub(readable + asleep);
        for (state, count) in [("readable", readable), ("denied", denied as usize), ("lost", lost)] {
            self.emit.made(Made::DeviceCount, &Thing::Node(state), count as u64);
        }
        if self.config.skip_sleeping {
            self.emit.made(Made::DeviceCount, &Thing::Node("asleep"), asleep as u64);
        }
        for (word, count) in &self.read_errors {
            self.emit.count(Made::ReadErrors, &Thing::Node(word), *count, self.start);
        }
        for ((uuid, code, holder), count) in &self.events.xids {
            let thing = Thing::Xid(uuid.clone(), self.events.name(uuid), *code, holder.clone());
            self.emit.count(Made::XidEvents, &thing, *count, self.start);
        }
        for ((uuid, code), last) in &self.events.last_seen {
            let thing = Thing::Xid(uuid.clone(), self.events.name(uuid), *code, None);
            self.emit.made(Made::XidLastSeen, &thing, *last);
        }
        for ((uuid, word), count) in &self.events.others {
            let thing = Thing::Event(uuid.clone(), self.events.name(uuid), word);
            self.emit.count(Made::Events, &thing, *count, self.start);
        }
    }

    /// Counts what the driver told and writes log records of it.
    fn take_events(&mut self) {
        let events: Vec<Event> = self.worker.events().collect();
        if events.is_empty() {
            return;
        }
        // One request for all: as many requests as there can be events would find no room.
        let mut log = Log::default();
        for event in events {
            let holders = self.pods.holders_of(&event.uuid, event.gpu_instance, event.compute_instance);
            let devices = self.inventory.iter().flat_map(|inventory| &inventory.devices);
            let device = devices.map(|device| &**device).find(|device| device.uuid == event.uuid);
            self.events.count(&event, device.map(|device| &device.name), only(holders.clone()));
            if self.ways.logs.is_none() {
                continue;
            }
            let tenant = |holder: Arc<Holder>| {
                let owner = Owner::Pod(holder.clone());
                let tenant =
                    self.accounts.as_mut().map(|accounts| accounts.payers().of(&owner).tenant.clone());
                (holder, tenant.unwrap_or_else(|| super::accounts::UNKNOWN.into()))
            };
            let holders: Vec<_> = holders.into_iter().map(tenant).collect();
            let scene = Scene { device, node: &self.node, holders: &holders };
            if !matches!(event.kind, EventKind::MigChange) || scene.device.is_some() {
                log.add(&event, &scene, unix_nanos());
            }
            if log.is_full() {
                self.put_log(&mut log);
            }
        }
        self.put_log(&mut log);
    }

    fn put_log(&self, log: &mut Log) {
        if let Some(logs) = &self.ways.logs {
            logs.put(log.finish(&self.resource, &self.scope));
        }
    }

    /// What the kubelet would say of simulated devices.
    fn tell_simulated_pods(&mut self, now: Instant) {
        let (Some(schedule), Some(inventory)) = (&self.schedule, &self.inventory) else { return };
        let at = schedule.since_start(now);
        let mut claims = Vec::new();
        for device in &inventory.devices {
            for (device_id, holder) in schedule.claims(device, at) {
                claims.push(Claim { device_id, holder });
            }
        }
        self.pods.tell(Told { claims, ..Told::default() });
    }

    /// Where telemetry comes from: this node, its driver, its devices.
    fn resource(&self) -> Vec<u8> {
        let mut models: Vec<&str> = Vec::new();
        let devices = self.inventory.iter().flat_map(|inventory| &inventory.devices);
        let mut count = 0;
        for device in devices {
            count += 1;
            if !device.name.is_empty() && !models.contains(&&*device.name) {
                models.push(&device.name);
            }
        }
        let models = models.join(",");
        let mut attributes = vec![
            ("service.name", Attribute::Str("tidegate")),
            ("service.instance.id", Attribute::Str(&self.node)),
            ("host.name", Attribute::Str(&self.node)),
        ];
        if let Some(Inventory { driver, .. }) = &self.inventory {
            if !driver.version.is_empty() {
                attributes.push(("nvidia.driver.version", Attribute::Str(&driver.version)));
            }
            for (key, version) in
                [("nvidia.cuda.version", &driver.cuda), ("nvidia.nvml.version", &driver.nvml)]
            {
                if let Some(version) = version {
                    attributes.push((key, Attribute::Str(version)));
                }
            }
            attributes.push(("nvidia.gpu.count", Attribute::Int(count)));
            attributes.push(("nvidia.gpu.models", Attribute::Str(&models)));
        }
        attributes_message(1, &attributes)
    }
}

/// The one that there is, if it is one.
fn only(holders: Vec<Arc<Holder>>) -> Option<Arc<Holder>> {
    <[Arc<Holder>; 1]>::try_from(holders).ok().map(|[holder]| holder)
}

#[cfg(test)]
mod tests;
