//! Parts of GPUs, and whose they are: the rules.
//!
//! A device is one unit, or under MIG one for each instance. A unit has a size, and is held
//!
//! * by one container alone, where the kubelet gave it to one. Where it names several (it goes on naming pods that have
//!   ended), the one that has a process there has it, else the one that came last: never both;
//! * by containers with replicas, each with its number of replicas out of all; the rest is nobody's;
//! * by the pods whose processes run there, where the kubelet names none: as much as each loads it, else alike;
//! * by the host, where a process runs there, and in no pod;
//! * by nobody, or nobody can tell.
//!
//! The parts of a device add up to 1. What was busy goes to whoever has the unit alone; where several share it each has
//! as much as its processes loaded it, and where that is not known as much as its part.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claims::Held;
use super::processes::Who;
use crate::receivers::nvml::holders::{Evidence, Holder, Owner, Share};
use crate::receivers::nvml::model::{Identity, MigIdentity, Process};

/// Parts below this are rounding.
pub(super) const NOTHING: f64 = 1e-10;
/// Compute slices of a device that does not say.
const SLICES: u32 = 7;

/// What is held as one thing, or shared as one.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    /// The GPU.
    pub device: Arc<Identity>,
    /// The MIG instance, where it is one.
    pub mig: Option<Arc<MigIdentity>>,
    /// Its size, as a part of the GPU.
    pub part: f64,
    /// Which part of the GPU was busy in it.
    pub busy: Option<f64>,
    /// Who was given it.
    pub claims: Vec<&'a Held>,
    /// Who runs there.
    pub processes: Vec<&'a Process>,
}

/// What is known beside the units.
pub(super) struct Facts<'a> {
    /// Whose processes are.
    pub who: &'a dyn Fn(u32) -> Who,
    /// How many share the device of this claim, if that is known.
    pub replicas: &'a dyn Fn(&Held) -> Option<u32>,
    /// Who has what nobody claims and nobody uses: nobody, or nobody knows.
    pub nobody: Owner,
}

/// The sizes of MIG instances as parts of their GPU, in the order given; they add up to 1 at most. An instance is as
/// large as what it has most of, compute slices or memory; those that share a GPU instance share its size by slices.
pub(super) fn mig_parts(device: &Identity, memory: Option<f64>, instances: &[Arc<MigIdentity>]) -> Vec<f64> {
    let total = f64::from(if device.compute_slices == 0 { SLICES } else { device.compute_slices });
    let memory = memory.filter(|bytes| *bytes > 0.0);
    // By GPU instance: its size, and the slices of its compute instances.
    let mut sizes: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    let slices = |mig: &MigIdentity| f64::from(mig.compute_instance_slices.max(1));
    for mig in instances {
        let of_compute = f64::from(mig.gpu_instance_slices.max(1)) / total;
        let of_memory = memory.map_or(0.0, |bytes| mig.memory as f64 / bytes);
        let size = sizes.entry(mig.gpu_instance).or_default();
        size.0 = of_compute.max(of_memory).min(1.0);
        size.1 += slices(mig);
    }
    let sum: f64 = sizes.values().map(|(size, _)| size).sum();
    let scale = sum.max(1.0);
    let part = |mig: &Arc<MigIdentity>| {
        let (size, within) = sizes.get(&mig.gpu_instance).copied().unwrap_or((0.0, 1.0));
        let within = within.max(f64::from(mig.gpu_instance_slices));
        size / scale * slices(mig) / within
    };
    instances.iter().map(part).collect()
}

impl Unit<'_> {
    /// Whether it matters who its processes are.
    pub fn asks_for_processes(&self) -> bool {
        self.claims.len() != 1 || self.claims.iter().any(|held| held.id.replica.is_some())
    }

    /// Appends the shares of this unit. `before` are those of the last time, for a device that cannot be read now.
    pub fn share(&self, facts: &Facts<'_>, readable: bool, before: &[Share], out: &mut Vec<Share>) {
        if self.claims.is_empty() {
            self.share_by_processes(facts, readable, before, out);
        } else {
            self.share_by_claims(facts, out);
        }
    }

    fn put(&self, owner: Owner, evidence: Evidence, part: f64, busy: Option<f64>, out: &mut Vec<Share>) {
        if part > 0.0 {
            let (device, mig) = (self.device.clone(), self.mig.clone());
            out.push(Share { device, mig, owner, evidence, part: part.min(1.0), busy });
        }
    }

    fn share_by_claims(&self, facts: &Facts<'_>, out: &mut Vec<Share>) {
        let users = self.users(facts);
        // Each replica, and the whole, is somebody's alone.
        let mut slots: BTreeMap<Option<u32>, (Rank, &Held)> = BTreeMap::new();
        for (place, held) in self.claims.iter().enumerate() {
            let alive = users.iter().map(|(user, _)| likeness(user, &held.holder)).max().unwrap_or(0);
            let rank = (alive, held.since, place);
            let slot = slots.entry(held.id.replica).or_insert((rank, held));
            if rank > slot.0 {
                *slot = (rank, held);
            }
        }
        let replicas = slots.iter().filter(|(replica, _)| replica.is_some());
        let best = replicas.clone().map(|(_, (rank, _))| *rank).max();
        if let Some((rank, held)) = slots.get(&None)
            && best.is_none_or(|best| *rank > best)
        {
            let owner = Owner::Pod(held.holder.clone());
            return self.put(owner, Evidence::Kubelet, self.part, self.busy, out);
        }
        let mut holders: Vec<(&Arc<Holder>, u32)> = Vec::new();
        let (mut taken, mut all) = (0u32, 0u32);
        for (replica, (_, held)) in replicas {
            taken += 1;
            let known = (facts.replicas)(held).unwrap_or_else(|| replica.unwrap_or(0).saturating_add(1));
            all = all.max(known);
            match holders.iter_mut().find(|(holder, _)| **holder == held.holder) {
                Some((_, count)) => *count += 1,
                None => holders.push((&held.holder, 1)),
            }
        }
        let all = all.max(taken);
        let part = |count: u32| self.part * f64::from(count) / f64::from(all);
        let (busy, rest_busy) = self.split(&users, &holders, taken < all);
        for ((holder, count), busy) in holders.into_iter().zip(busy) {
            self.put(Owner::Pod(holder.clone()), Evidence::Kubelet, part(count), busy, out);
        }
        self.put(Owner::Unallocated, Evidence::None, part(all - taken), rest_busy, out);
    }

    /// What was busy for each holder, and for nobody where some replicas are nobody's.
    fn split(
        &self,
        users: &[(Arc<Holder>, f64)],
        holders: &[(&Arc<Holder>, u32)],
        rest: bool,
    ) -> (Vec<Option<f64>>, Option<f64>) {
        let Some(busy) = self.busy else { return (vec![None; holders.len()], None) };
        let mut loads = vec![0.0; holders.len()];
        let mut known = 0.0;
        for (user, load) in users {
            let likest =
                (0..holders.len()).max_by_key(|i| holders.get(*i).map_or(0, |h| likeness(user, h.0)));
            if let Some((holder, own)) = likest.and_then(|i| holders.get(i).zip(loads.get_mut(i)))
                && likeness(user, holder.0) > 0
            {
                *own += load;
                known += load;
            }
        }
        if known <= 0.0 {
            // A replica that nobody has runs nothing: what ran is of those who have one.
            let held: u32 = holders.iter().map(|(_, count)| count).sum();
            let of = |(_, count): &(_, u32)| Some(busy * f64::from(*count) / f64::from(held.max(1)));
            return (holders.iter().map(of).collect(), Some(0.0));
        }
        let all: f64 = self.processes.iter().filter_map(|process| load(process)).sum();
        let all = if rest { all.max(known) } else { known };
        let of = |load: f64| busy * (load / all).clamp(0.0, 1.0);
        (loads.iter().map(|load| Some(of(*load))).collect(), Some(of(all - known)))
    }

    fn share_by_processes(&self, facts: &Facts<'_>, readable: bool, before: &[Share], out: &mut Vec<Share>) {
        if !readable && self.repeat(before, out) {
            return;
        }
        let users = self.users(facts);
        if !users.is_empty() {
            let all: f64 = users.iter().map(|(_, load)| load).sum();
            let alike = 1.0 / users.len() as f64;
            for (user, load) in users {
                let weight = if all > 0.0 { load / all } else { alike };
                let busy = self.busy.map(|busy| busy * weight);
                self.put(Owner::Pod(user), Evidence::Process, self.part * weight, busy, out);
            }
            return;
        }
        let whose: Vec<Who> = self.processes.iter().map(|process| (facts.who)(process.pid)).collect();
        let (owner, evidence) = if facts.nobody == Owner::Unknown {
            (Owner::Unknown, Evidence::None)
        } else if whose.contains(&Who::Host) {
            (Owner::Host, Evidence::Process)
        } else if whose.contains(&Who::Unknown) {
            (Owner::Unknown, Evidence::None)
        } else {
            (facts.nobody.clone(), Evidence::None)
        };
        self.put(owner, evidence, self.part, self.busy, out);
    }

    /// A device that cannot be read tells nothing of its processes: it stays with those it had.
    fn repeat(&self, before: &[Share], out: &mut Vec<Share>) -> bool {
        let same = |share: &&Share| {
            share.device.uuid == self.device.uuid
                && share.mig.as_ref().map(|mig| &mig.uuid) == self.mig.as_ref().map(|mig| &mig.uuid)
                && share.evidence == Evidence::Process
        };
        let parts: f64 = before.iter().filter(same).map(|share| share.part).sum();
        if (parts - self.part).abs() > NOTHING {
            return false;
        }
        for share in before.iter().filter(same) {
            self.put(share.owner.clone(), share.evidence, share.part, None, out);
        }
        true
    }

    /// The pods whose processes run here, with the load of each. Empty where none was found.
    fn users(&self, facts: &Facts<'_>) -> Vec<(Arc<Holder>, f64)> {
        let mut users: Vec<(Arc<Holder>, f64)> = Vec::new();
        if !self.asks_for_processes() {
            return users;
        }
        for process in &self.processes {
            let Who::Pod(holder) = (facts.who)(process.pid) else { continue };
            let load = load(process).unwrap_or(0.0);
            match users.iter_mut().find(|(user, _)| *user == holder) {
                Some((_, sum)) => *sum += load,
                None => users.push((holder, load)),
            }
        }
        users
    }
}

/// How well a claim is founded: by a process there, by when it was told first, by its place in the list.
type Rank = (u8, u64, usize);

/// How surely a process of `user` is one of `holder`: 2 of the same container, 1 of the same pod, 0 not at all. Of one
/// of the two the uid or the container may not be known.
pub(super) fn likeness(user: &Holder, holder: &Holder) -> u8 {
    let same_name = !holder.pod.is_empty() && user.pod == holder.pod && user.namespace == holder.namespace;
    let same_uid = matches!((&user.uid, &holder.uid), (Some(a), Some(b)) if a == b);
    let other_uid = matches!((&user.uid, &holder.uid), (Some(a), Some(b)) if a != b);
    if other_uid || !(same_name || same_uid) {
        0
    } else if user.container == holder.container {
        2
    } else {
        1
    }
}

/// What a process loads the device with, in percent.
fn load(process: &Process) -> Option<f64> {
    let [sm, ..] = process.load;
    sm.filter(|load| load.is_finite() && *load > 0.0)
}
