//! The kubelet's word on who holds which device, as of its last answer.
//!
//! It is asked each collection. An answer holds until the next, but no longer than `keep`; after that nothing is claimed
//! of anybody. How many replicas a shared device has is asked once a minute, and only a device that is listed as
//! exclusive loses its number: the kubelet leaves out what is unhealthy at the moment.
//!
//! Memory is bounded by the number of devices that containers can hold; what is logged is logged when it changes, and an
//! unknown resource once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{IntCounterVec, IntGauge};

use super::answer::{self, Fault, Given};
use super::call::{self, Failure};
use super::claims::{Claims, Held};
use super::device_id::{DeviceId, speaks_of_gpus};
use crate::receivers::nvml::config::PodResourcesConfig;
use crate::receivers::nvml::holders::Holder;
use crate::telemetry::Metrics;

/// How often the kubelet is asked which devices there are.
const ALLOCATABLE_EVERY: Duration = Duration::from_secs(60);
/// Devices held beyond this are not believed: a node has hundreds, with all replicas.
const MOST_HELD: usize = 65_536;
/// The driver that allocates GPUs dynamically. Others of the vendor allocate other things.
const DYNAMIC: &str = "gpu.nvidia.com";
/// The word for an answer that was read.
const OK: &str = "ok";
/// Names of resources that were logged, beyond which nothing more is.
const MOST_LOGGED: usize = 64;

/// The kubelet of this node.
pub(super) struct Kubelet {
    id: String,
    path: String,
    timeout: Duration,
    keep: Duration,
    /// Counts answers.
    round: u64,
    answered: Option<Instant>,
    allocatable_at: Option<Instant>,
    claims: Claims,
    /// In a word; as logged.
    state: &'static str,
    allocatable_state: &'static str,
    logged: HashSet<String>,
    requests: Option<IntCounterVec>,
    up: Option<IntGauge>,
    unmapped: Option<IntGauge>,
}

impl Kubelet {
    /// Asks nothing yet.
    pub fn new(config: &PodResourcesConfig, id: &str, metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| {
            metrics.gauge(name, help, &["receiver"]).map(|family| family.with_label_values(&[id]))
        };
        Kubelet {
            id: id.to_owned(),
            path: config.path().to_owned(),
            timeout: config.timeout,
            keep: config.keep,
            round: 0,
            answered: None,
            allocatable_at: None,
            claims: Claims::default(),
            state: "",
            allocatable_state: "",
            logged: HashSet::new(),
            requests: metrics.counter(
                "tidegate_nvml_pod_resources_requests",
                "Questions to the kubelet, by method and what became of them.",
                &["receiver", "method", "result"],
            ),
            up: gauge(
                "tidegate_nvml_pod_resources_up",
                "Whether the kubelet answered when it was asked last (1) or not (0).",
            ),
            unmapped: gauge(
                "tidegate_nvml_pod_resources_unmapped_devices",
                "GPUs that containers hold under a name from which the GPU cannot be told.",
            ),
        }
    }

    /// What the kubelet said last, while that holds.
    pub fn claims(&self, now: Instant) -> Option<&Claims> {
        let holds = |at| self.state == OK || now.saturating_duration_since(at) <= self.keep;
        self.answered.is_some_and(holds).then_some(&self.claims)
    }

    /// Everything the kubelet said last, whether or not that holds still.
    pub fn last(&self) -> &[Held] {
        &self.claims.held
    }

    /// Asks, for at most the configured time.
    pub async fn refresh(&mut self, now: Instant) {
        let due = self.allocatable_at.is_none_or(|at| now >= at);
        let round = Box::pin(call::round(&self.path, self.timeout, due)).await;
        let list = round.list.and_then(|message| self.take_list(&message).map_err(Failure::Malformed));
        self.count("List", &list);
        if list.is_ok() {
            self.answered = Some(now);
        }
        if let Some(up) = &self.up {
            up.set(i64::from(list.is_ok()));
        }
        self.tell(&list);
        if let Some(allocatable) = round.allocatable {
            self.allocatable_at = Some(now + ALLOCATABLE_EVERY);
            let taken = allocatable.and_then(|m| self.take_allocatable(&m).map_err(Failure::Malformed));
            self.count("GetAllocatableResources", &taken);
            self.tell_allocatable(&taken);
        }
    }

    /// Replaces the claims by those of an answer, or leaves all as it is.
    fn take_list(&mut self, message: &[u8]) -> Result<(), Fault> {
        let mut held: Vec<Held> = Vec::new();
        let mut unmapped = 0;
        let mut strange: BTreeMap<&str, &str> = BTreeMap::new();
        let mut too_many = false;
        let mut note = |what, id| {
            unmapped += 1;
            if strange.len() < MOST_LOGGED {
                strange.entry(what).or_insert(id);
            }
        };
        answer::list(message, |of, given| match given {
            Given::Device { resource, id } => match DeviceId::parse(resource, id) {
                Some(_) if held.len() >= MOST_HELD => too_many = true,
                Some(id) => {
                    let same = held.last().map(|last| &last.holder).filter(|holder| {
                        (&*holder.namespace, &*holder.pod, &*holder.container)
                            == (of.namespace, of.pod, of.container)
                    });
                    let holder = same.cloned().unwrap_or_else(|| {
                        Arc::new(Holder {
                            namespace: of.namespace.to_owned(),
                            pod: of.pod.to_owned(),
                            container: of.container.to_owned(),
                            uid: None,
                        })
                    });
                    held.push(Held { id, holder, since: 0 });
                }
                None if speaks_of_gpus(resource) => note(resource, id),
                None => {}
            },
            Given::Dynamic { driver } if driver == DYNAMIC => note(driver, ""),
            Given::Dynamic { .. } => {}
        })?;
        if too_many {
            return Err(Fault::TooManyDevices);
        }
        self.round += 1;
        self.claims.replace(held, self.round);
        self.claims.unmapped = unmapped > 0;
        if let Some(gauge) = &self.unmapped {
            gauge.set(unmapped);
        }
        for (what, id) in strange {
            self.log_strange(what, id);
        }
        Ok(())
    }

    /// Counts replicas, or leaves all as it is.
    fn take_allocatable(&mut self, message: &[u8]) -> Result<(), Fault> {
        let mut devices = Vec::new();
        let mut too_many = false;
        answer::allocatable(message, |resource, id| match DeviceId::parse(resource, id) {
            Some(_) if devices.len() >= MOST_HELD => too_many = true,
            Some(id) => devices.push(id),
            None => {}
        })?;
        if too_many {
            return Err(Fault::TooManyDevices);
        }
        self.claims.count_replicas(devices);
        Ok(())
    }

    fn count(&self, method: &str, result: &Result<(), Failure>) {
        if let Some(requests) = &self.requests {
            let word = result.as_ref().map_or_else(Failure::word, |()| OK);
            requests.with_label_values(&[&*self.id, method, word]).inc();
        }
    }

    /// One line when it changes.
    fn tell(&mut self, result: &Result<(), Failure>) {
        let word = result.as_ref().map_or_else(Failure::word, |()| OK);
        if std::mem::replace(&mut self.state, word) == word {
            return;
        }
        match result {
            Ok(()) => tracing::info!(
                component = self.id,
                socket = self.path,
                devices = self.claims.held.len(),
                "the kubelet tells which pod holds which GPU"
            ),
            Err(failure) => tracing::warn!(
                component = self.id,
                socket = self.path,
                reason = word,
                error = %failure,
                hint = failure.hint(),
                "the kubelet does not tell which pod holds which GPU; its last answer holds for a while"
            ),
        }
    }

    fn tell_allocatable(&mut self, result: &Result<(), Failure>) {
        let word = result.as_ref().map_or_else(Failure::word, |()| OK);
        if std::mem::replace(&mut self.allocatable_state, word) == word {
            return;
        }
        if let Err(failure) = result {
            tracing::info!(
                component = self.id,
                reason = word,
                error = %failure,
                "the kubelet does not tell which devices there are; the size of a share of a time-sliced GPU is taken \
                 from the replicas in use"
            );
        }
    }

    fn log_strange(&mut self, what: &str, id: &str) {
        if self.logged.len() >= MOST_LOGGED || self.logged.contains(what) {
            return;
        }
        if id.is_empty() {
            tracing::warn!(
                component = self.id,
                driver = what,
                "GPUs are allocated dynamically; the kubelet does not say which, so their pods are found by their \
                 processes alone"
            );
        } else {
            tracing::warn!(
                component = self.id,
                resource = what,
                device = id,
                "a container holds a device of a name from which the GPU cannot be told"
            );
        }
        self.logged.insert(what.to_owned());
    }
}
