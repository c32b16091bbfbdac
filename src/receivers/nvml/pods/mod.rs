//! Who holds which GPU.
//!
//! The kubelet knows what it gave to whom ([`answer`], asked over its socket each collection); the system knows whose
//! the processes on a device are ([`cgroup`]). From both come the parts of each device and their owners.
//!
//! Promises: for each device the parts add up to 1, whatever anybody says. Nothing here fails: who cannot be asked, or
//! answers nonsense, is remembered for a while and then not believed any more, and devices go on without owners. Memory is
//! bounded by what a node can have.
//!
//! # What is not known
//!
//! * Only version `v1` of the kubelet's API is spoken, which is there from Kubernetes 1.20.
//! * GPUs that are allocated dynamically (`gpu.nvidia.com`), and ids that no known plugin gives, do not tell the GPU. While
//!   a container holds one of these, a GPU that nobody is known to hold is not nobody's: it is unknown whose it is, unless
//!   a process gives it away.
//!
//! # Names of pods
//!
//! The kubelet names namespace, pod and container, and no uid. Processes lead to a uid and a container id; their names come
//! from the names of log files, where these can be seen. Without them a pod that uses a GPU it was not given has its uid
//! alone, and namespace, pod and container are empty.
//!
//! # Costs
//!
//! One request a collection, and a second one once a minute. Processes are looked at only on devices that nobody was
//! given, that several share, or that several claim: some ten microseconds for each process.

pub mod answer;
mod call;
pub mod cgroup;
mod claims;
pub mod device_id;
mod kubelet;
mod names;
mod processes;
mod shares;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use self::claims::{Claims, Held};
use self::device_id::{Base, DeviceId};
use self::kubelet::Kubelet;
use self::processes::{Processes, Who};
use self::shares::{Facts, NOTHING, Unit, mig_parts};
use super::config::{PodResourcesConfig, ProcessesConfig};
use super::holders::{Evidence, Holder, Owner, Share};
use super::model::{Identity, MigIdentity, Process, Reading, Report, State, get};
use crate::telemetry::Metrics;

/// The kubelet's view and the processes' view, and what was made of them last.
pub struct Pods {
    claims: Source,
    processes: Option<Processes>,
    /// What is remembered of devices that may not be readable next time.
    layouts: HashMap<Arc<str>, Layout>,
    last: Vec<Share>,
}

/// A device in a container, as somebody who knows tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// As a device plugin would name it, see [`device_id`].
    pub device_id: String,
    /// The container.
    pub holder: Arc<Holder>,
}

/// Everything that somebody knows who needs not ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Who holds what.
    pub claims: Vec<Claim>,
    /// The ids of all devices, with all replicas; may be left out where none is shared.
    pub allocatable: Vec<String>,
    /// Whose processes are.
    pub processes: Vec<(u32, Arc<Holder>)>,
}

/// Who says what was given to whom.
enum Source {
    /// Nobody.
    Nobody,
    Kubelet(Box<Kubelet>),
    Told {
        claims: Claims,
        round: u64,
        processes: HashMap<u32, Arc<Holder>>,
    },
}

/// What a device was cut into when it could be read.
#[derive(Debug, Default)]
struct Layout {
    memory: Option<f64>,
    mig: Vec<Arc<MigIdentity>>,
}

/// A device with all its units.
struct Device<'a> {
    report: &'a Report,
    units: Vec<Unit<'a>>,
    /// Who was given the device as a whole although it is cut.
    whole: Vec<&'a Held>,
    /// What no instance has.
    rest: f64,
}

impl Pods {
    /// Asks nothing yet. `id` is the receiver's, for logs and metrics.
    pub fn new(
        pod_resources: Option<&PodResourcesConfig>,
        processes: &ProcessesConfig,
        id: &str,
        metrics: &Metrics,
    ) -> Self {
        Pods {
            claims: match pod_resources {
                Some(config) => Source::Kubelet(Box::new(Kubelet::new(config, id, metrics))),
                None => Source::Nobody,
            },
            processes: processes.enabled.then(|| Processes::new(processes)),
            layouts: HashMap::new(),
            last: Vec::new(),
        }
    }

    /// Asks the kubelet, for at most the configured timeout. Never fails: what it said last is remembered.
    pub async fn refresh(&mut self, now: Instant) {
        if let Source::Kubelet(kubelet) = &mut self.claims {
            kubelet.refresh(now).await;
        }
    }

    /// Takes what somebody knows, in place of the kubelet's word and of the system's processes, from now on. Ids that
    /// are of no known form are left out.
    pub fn tell(&mut self, told: Told) {
        const RESOURCE: &str = "nvidia.com/gpu";
        let (mut claims, mut round) = match std::mem::replace(&mut self.claims, Source::Nobody) {
            Source::Told { claims, round, .. } => (claims, round),
            Source::Nobody | Source::Kubelet(_) => (Claims::default(), 0),
        };
        round += 1;
        let held = told.claims.into_iter().filter_map(|claim| {
            let id = DeviceId::parse(RESOURCE, &claim.device_id)?;
            Some(Held { id, holder: claim.holder, since: round })
        });
        claims.replace(held.collect(), round);
        claims.count_replicas(told.allocatable.iter().filter_map(|id| DeviceId::parse(RESOURCE, id)));
        self.claims = Source::Told { claims, round, processes: told.processes.into_iter().collect() };
    }

    /// The parts of every GPU in `reports` and whose they are. For each device they add up to 1.
    pub fn attribute(&mut self, now: Instant, reports: &[Report]) -> Vec<Share> {
        if reports.is_empty() {
            // What the driver still tells of devices is of those who had them.
            return Vec::new();
        }
        self.remember(reports);
        let (claims, nobody) = match &self.claims {
            Source::Nobody if self.processes.is_some() => (None, Owner::Unallocated),
            Source::Nobody => (None, Owner::Unknown),
            Source::Kubelet(kubelet) => match kubelet.claims(now) {
                Some(claims) if !claims.unmapped => (Some(claims), Owner::Unallocated),
                claims => (claims, Owner::Unknown),
            },
            Source::Told { claims, .. } => (Some(claims), Owner::Unallocated),
        };
        let held = claims.map(|claims| claims.held.as_slice()).unwrap_or_default();
        let devices = cut(reports, &self.layouts, held);

        let told = match &self.claims {
            Source::Told { processes, .. } => Some(processes),
            _ => None,
        };
        if let (None, Some(processes)) = (told, &mut self.processes) {
            let asking = devices.iter().flat_map(|d| &d.units).filter(|unit| unit.asks_for_processes());
            processes.round(now, asking.flat_map(|unit| &unit.processes).map(|process| process.pid));
        }
        let processes = &self.processes;
        let who = |pid: u32| match (told, processes) {
            (Some(told), _) => told.get(&pid).map_or(Who::Host, |holder| Who::Pod(holder.clone())),
            (None, Some(processes)) => as_claimed(processes.who(pid), held),
            (None, None) => Who::Service,
        };
        let replicas = |held: &Held| claims.and_then(|claims| claims.replicas.get(&held.id.base).copied());
        let facts = Facts { who: &who, replicas: &replicas, nobody };

        let mut out = Vec::with_capacity(self.last.len());
        for device in &devices {
            device.share(&facts, &self.last, &mut out);
        }
        self.last.clone_from(&out);
        out
    }

    /// The containers that had a part of a device when it was last attributed: all of a GPU, or those of one of its MIG
    /// instances. `uuid` is the GPU's, or a MIG instance's.
    pub fn holders_of(&self, uuid: &str, gi: Option<u32>, ci: Option<u32>) -> Vec<Arc<Holder>> {
        let mut holders: Vec<Arc<Holder>> = Vec::new();
        for share in &self.last {
            let is_this = match &share.mig {
                Some(mig) if *mig.uuid == *uuid => true,
                Some(mig) => {
                    let is_gi = gi.is_none_or(|gi| gi == mig.gpu_instance);
                    let is_ci = ci.is_none_or(|ci| ci == mig.compute_instance);
                    *share.device.uuid == *uuid && is_gi && is_ci
                }
                None => *share.device.uuid == *uuid,
            };
            if let Owner::Pod(holder) = &share.owner
                && is_this
                && !holders.contains(holder)
            {
                holders.push(holder.clone());
            }
        }
        holders
    }

    /// The container that a process is of, if it was looked at when devices were attributed last: that is where a device
    /// has not one holder alone.
    pub fn holder_of_process(&self, pid: u32) -> Option<Arc<Holder>> {
        let (who, held) = match (&self.claims, &self.processes) {
            (Source::Told { processes, .. }, _) => return processes.get(&pid).cloned(),
            (Source::Kubelet(kubelet), Some(processes)) => (processes.who(pid), kubelet.last()),
            (Source::Nobody, Some(processes)) => (processes.who(pid), &[][..]),
            (_, None) => return None,
        };
        match as_claimed(who, held) {
            Who::Pod(holder) => Some(holder),
            Who::Host | Who::Service | Who::Unknown => None,
        }
    }

    fn remember(&mut self, reports: &[Report]) {
        for report in reports {
            let layout = self.layouts.entry(report.identity.uuid.clone()).or_default();
            if report.state == State::Readable {
                let memory = report.get(Reading::MemoryTotal, 0).map(|value| value.as_f64());
                layout.memory = memory.or(layout.memory);
                layout.mig = report.mig.iter().map(|mig| mig.identity.clone()).collect();
            }
        }
        if self.layouts.len() > reports.len() {
            self.layouts.retain(|uuid, _| reports.iter().any(|report| report.identity.uuid == *uuid));
        }
    }
}

impl Device<'_> {
    fn share(&self, facts: &Facts<'_>, before: &[Share], out: &mut Vec<Share>) {
        let readable = self.report.state == State::Readable;
        let one = |owner: Owner, evidence, part, busy| {
            let device = self.report.identity.clone();
            Share { device, mig: None, owner, evidence, part, busy }
        };
        let claimed = self.units.iter().any(|unit| !unit.claims.is_empty());
        // A container that was given all of a GPU has all its instances.
        if let (Some(last), false) = (self.whole.iter().max_by_key(|held| held.since), claimed) {
            let busy = self.units.iter().map(|unit| unit.busy).sum();
            out.push(one(Owner::Pod(last.holder.clone()), Evidence::Kubelet, 1.0, busy));
            return;
        }
        for unit in &self.units {
            unit.share(facts, readable, before, out);
        }
        if self.rest > NOTHING {
            let busy = readable.then_some(0.0);
            out.push(one(facts.nobody.clone(), Evidence::None, self.rest, busy));
        }
    }
}

/// Devices with their units, and who was given these.
fn cut<'a>(reports: &'a [Report], layouts: &HashMap<Arc<str>, Layout>, held: &'a [Held]) -> Vec<Device<'a>> {
    let none = Layout::default();
    let mut devices: Vec<Device<'a>> = reports
        .iter()
        .map(|report| {
            let layout = layouts.get(&report.identity.uuid).unwrap_or(&none);
            let units = if layout.mig.is_empty() { vec![uncut(report)] } else { instances(report, layout) };
            let rest = 1.0 - units.iter().map(|unit| unit.part).sum::<f64>();
            Device { report, units, whole: Vec::new(), rest }
        })
        .collect();
    let by_uuid: HashMap<&str, usize> =
        reports.iter().enumerate().map(|(i, report)| (&*report.identity.uuid, i)).collect();
    let position = |is: &dyn Fn(&Identity) -> bool| reports.iter().position(|report| is(&report.identity));
    for held in held {
        match &held.id.base {
            Base::Uuid(uuid) => match by_uuid.get(&**uuid) {
                Some(&i) => give(devices.get_mut(i), held, None),
                None => devices.iter_mut().for_each(|device| {
                    give(Some(device), held, Some(&|mig| *mig.uuid == **uuid));
                }),
            },
            Base::OldMig(uuid, gi, ci) => {
                let device = by_uuid.get(&**uuid).and_then(|&i| devices.get_mut(i));
                give(device, held, Some(&|mig| (mig.gpu_instance, mig.compute_instance) == (*gi, *ci)));
            }
            Base::Minor(minor, gi) => {
                let device =
                    position(&|device| device.minor == Some(*minor)).and_then(|i| devices.get_mut(i));
                match gi {
                    Some(gi) => give(device, held, Some(&|mig| mig.gpu_instance == *gi)),
                    None => give(device, held, None),
                }
            }
            Base::Index(index) => {
                let device = position(&|device| device.index == *index).and_then(|i| devices.get_mut(i));
                give(device, held, None);
            }
        }
    }
    devices
}

/// Notes a claim on the instances that `which` chooses, or on the whole device.
fn give<'a>(device: Option<&mut Device<'a>>, held: &'a Held, which: Option<&dyn Fn(&MigIdentity) -> bool>) {
    let Some(device) = device else { return };
    let is_cut = device.units.iter().any(|unit| unit.mig.is_some());
    if which.is_none() && is_cut {
        device.whole.push(held);
        return;
    }
    for unit in &mut device.units {
        let chosen = match (which, &unit.mig) {
            (Some(which), Some(mig)) => which(mig),
            (None, None) => true,
            _ => false,
        };
        if chosen {
            unit.claims.push(held);
        }
    }
}

/// A device that is not cut: one unit.
fn uncut(report: &Report) -> Unit<'_> {
    let readable = report.state == State::Readable;
    let busy = report.get(Reading::Busy, 0).filter(|_| readable).and_then(|value| ratio(value.as_f64()));
    Unit {
        device: report.identity.clone(),
        mig: None,
        part: 1.0,
        busy,
        claims: Vec::new(),
        processes: report.processes.iter().collect(),
    }
}

/// A device that is cut: a unit for each instance.
fn instances<'a>(report: &'a Report, layout: &Layout) -> Vec<Unit<'a>> {
    let readable = report.state == State::Readable;
    let parts = mig_parts(&report.identity, layout.memory, &layout.mig);
    let unit = |(mig, part): (&Arc<MigIdentity>, f64)| {
        let samples = report.mig.iter().find(|report| report.identity.uuid == mig.uuid).map(|r| &r.samples);
        let active = samples.and_then(|samples| get(samples, Reading::SmActivity, 0));
        let busy = active.filter(|_| readable).and_then(|value| ratio(value.as_f64()));
        let runs_here = |process: &&Process| {
            process.gpu_instance == Some(mig.gpu_instance)
                && process.compute_instance.is_none_or(|ci| ci == mig.compute_instance)
        };
        Unit {
            device: report.identity.clone(),
            mig: Some(mig.clone()),
            part,
            busy: busy.map(|busy| busy * part),
            claims: Vec::new(),
            processes: report.processes.iter().filter(runs_here).collect(),
        }
    };
    layout.mig.iter().zip(parts).map(unit).collect()
}

/// Percent as a part of 1.
fn ratio(percent: f64) -> Option<f64> {
    percent.is_finite().then(|| (percent / 100.0).clamp(0.0, 1.0))
}

/// A pod found by its process is the kubelet's, where that knows the container: the same, with the same name.
fn as_claimed(who: Who, held: &[Held]) -> Who {
    let Who::Pod(user) = &who else { return who };
    let same = held.iter().map(|held| &held.holder).find(|holder| shares::likeness(user, holder) == 2);
    same.map_or_else(|| who.clone(), |holder| Who::Pod(holder.clone()))
}
