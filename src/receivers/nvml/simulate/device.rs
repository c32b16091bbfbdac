//! One simulated device.

use std::sync::Arc;
use std::time::Duration;

use super::super::config::SimulateConfig;
use super::super::model::{
    Group, Groups, Identity, MigIdentity, MigReport, Process, ProcessKind, Reading as R, Report, Sample,
    State, Value,
};
use super::schedule::{Fault, INSTANCES, Schedule, Work};

/// What models differ in.
struct Model {
    word: &'static str,
    memory: u64,
    reserved: u64,
    /// Watts: idle and at most.
    power: (f64, f64),
    /// Degrees Celsius: slowdown, shutdown, highest for the GPU, highest for memory.
    limits: [u32; 4],
    /// MHz: graphics, SM, memory, video.
    clocks: [u32; 4],
    links: u16,
    fans: u16,
    profiling: bool,
    architecture: &'static str,
    capability: &'static str,
}

/// The last one is for every other name.
const MODELS: [Model; 4] = [
    Model {
        word: "H200",
        memory: 150_754_820_096,
        reserved: 643_825_664,
        power: (78.0, 700.0),
        limits: [87, 92, 85, 95],
        clocks: [1980, 1980, 3201, 1545],
        links: 18,
        fans: 0,
        profiling: true,
        architecture: "Hopper",
        capability: "9.0",
    },
    Model {
        word: "A100",
        memory: 85_899_345_920,
        reserved: 671_088_640,
        power: (55.0, 400.0),
        limits: [89, 92, 85, 95],
        clocks: [1410, 1410, 1593, 1290],
        links: 12,
        fans: 0,
        profiling: false,
        architecture: "Ampere",
        capability: "8.0",
    },
    Model {
        word: "L40S",
        memory: 48_305_799_168,
        reserved: 534_773_760,
        power: (35.0, 350.0),
        limits: [88, 92, 85, 95],
        clocks: [2520, 2520, 9001, 1965],
        links: 0,
        fans: 1,
        profiling: false,
        architecture: "Ada",
        capability: "8.9",
    },
    Model {
        word: "",
        memory: 85_520_809_984,
        reserved: 536_870_912,
        power: (70.0, 700.0),
        limits: [85, 92, 83, 95],
        clocks: [1980, 1980, 2619, 1545],
        links: 18,
        fans: 0,
        profiling: true,
        architecture: "Hopper",
        capability: "9.0",
    },
];

/// How a MIG device is cut: compute slices and eighths of the memory.
const CUT: [(u32, u64); INSTANCES as usize] = [(3, 4), (2, 2), (1, 1)];
const SLICES: u32 = 7;
/// Degrees Celsius of the air, and how much a fully loaded device is above it.
const HEAT: (f64, f64) = (31.0, 38.0);
/// Where cooling has failed.
const OVERHEATED: f64 = 90.0;
/// In how many seconds most of the way to another temperature is gone.
const INERTIA: f64 = 20.0;
const SW_THERMAL: u16 = 5;
const IDLE: u16 = 0;

/// A simulated device and what it has counted.
pub struct Device {
    /// What it is.
    pub identity: Arc<Identity>,
    model: &'static Model,
    mig: Vec<Instance>,
    /// Time of the last step.
    at: Duration,
    stepped: bool,
    lost: bool,
    held: bool,
    load: f64,
    temperature: f64,
    power: f64,
    /// Millijoules.
    energy: f64,
    /// Bytes: PCIe sent and received, NVLink sent and received.
    moved: [f64; 4],
    corrected: u64,
    /// Nanoseconds held back by heat.
    throttled: f64,
    /// The fault that was told about last.
    told: Option<Fault>,
}

struct Instance {
    identity: Arc<MigIdentity>,
    load: f64,
    held: bool,
}

impl Device {
    /// A device that has been idle.
    pub fn new(config: &SimulateConfig, index: u32, schedule: &Schedule) -> Device {
        let [.., other] = &MODELS;
        let model = MODELS.iter().find(|model| config.model.contains(model.word)).unwrap_or(other);
        let number = |part: u64| schedule.number(&[4, index.into(), part]);
        let identity = Identity {
            uuid: schedule.device(index),
            index,
            name: config.model.as_str().into(),
            pci_bus_id: Some(format!("00000000:{:02X}:00.0", 0x18 + index)),
            minor: Some(index),
            serial: Some(format!("165{:010}", number(1) % 10_000_000_000)),
            vbios: Some("96.00.A5.00.01".to_owned()),
            architecture: Some(model.architecture.to_owned()),
            compute_capability: Some(model.capability.to_owned()),
            part_number: None,
            virtualization: None,
            nvlink_version: (model.links > 0).then_some(4),
            compute_slices: SLICES,
        };
        let instance = |(at, (slices, eighths)): (usize, (u32, u64))| {
            let memory = model.memory / 8 * eighths;
            let identity = MigIdentity {
                uuid: schedule.instance(index, at as u32),
                profile: Some(format!("{slices}g.{}gb", memory / 1_000_000_000)),
                gpu_instance: at as u32 + 1,
                compute_instance: 0,
                gpu_instance_slices: slices,
                compute_instance_slices: slices,
                memory,
            };
            Instance { identity: Arc::new(identity), load: 0.0, held: false }
        };
        Device {
            identity: Arc::new(identity),
            model,
            mig: if schedule.is_cut(index) {
                CUT.into_iter().enumerate().map(instance).collect()
            } else {
                Vec::new()
            },
            at: Duration::ZERO,
            stepped: false,
            lost: false,
            held: false,
            load: 0.0,
            temperature: HEAT.0,
            power: model.power.0,
            // As if it had been idle for some hours.
            energy: model.power.0 * 1e3 * (number(2) % 100_000) as f64,
            moved: [0.0; 4],
            corrected: 0,
            throttled: 0.0,
            told: None,
        }
    }

    /// Lets time pass until `at`.
    pub fn advance(&mut self, at: Duration, schedule: &Schedule) {
        let elapsed = at.saturating_sub(self.at).as_secs_f64();
        self.at = at;
        let fault = schedule.fault(self.identity.index, at);
        self.lost = fault == Some(Fault::Lost);
        let index = self.identity.index;
        if self.mig.is_empty() {
            let holder = schedule.holder(index, 0, at);
            self.held = holder.is_some();
            self.load = holder.map_or(0.0, |(_, work)| load(work, at, schedule.number(&[5, index.into()])));
        } else {
            let mut sum = 0.0;
            for (part, instance) in (1..).zip(&mut self.mig) {
                let holder = schedule.holder(index, part, at);
                instance.held = holder.is_some();
                let number = schedule.number(&[5, index.into(), part.into()]);
                instance.load = holder.map_or(0.0, |(_, work)| load(work, at, number));
                sum += instance.load * f64::from(instance.identity.gpu_instance_slices);
            }
            self.load = sum / f64::from(SLICES);
            self.held = self.mig.iter().any(|instance| instance.held);
        }
        let (idle, most) = self.model.power;
        self.power = idle + (most - idle) * 0.97 * self.load;
        let target = match fault {
            Some(Fault::Heat) => OVERHEATED,
            _ => HEAT.0 + HEAT.1 * self.load,
        };
        // The first step finds it as it would be by now.
        let way = if self.stepped { 1.0 - (-elapsed / INERTIA).exp() } else { 1.0 };
        self.stepped = true;
        self.temperature += (target - self.temperature) * way;
        self.energy += self.power * 1e3 * elapsed;
        let rates = [2e9, 3e9, 60e9, 60e9];
        for (moved, rate) in self.moved.iter_mut().zip(rates) {
            *moved += rate * self.load * elapsed;
        }
        if self.is_hot() {
            self.throttled += elapsed * 1e9;
        }
    }

    /// Lets break what breaks at this time; the XID that came of it since the last call.
    pub fn new_xid(&mut self, at: Duration, schedule: &Schedule) -> Option<u64> {
        let fault = schedule.fault(self.identity.index, at);
        let news = fault != self.told;
        self.told = fault;
        match fault.filter(|_| news)? {
            Fault::Application(code) => Some(code),
            Fault::Lost => Some(79),
            Fault::Corrected => {
                self.corrected += 1 + schedule.number(&[6, at.as_secs()]) % 20;
                None
            }
            Fault::Heat => None,
        }
    }

    /// What the driver would say now.
    pub fn report(&self, groups: Groups) -> Report {
        if self.lost {
            return Report::bare(self.identity.clone(), State::Lost);
        }
        let mut report = Report::bare(self.identity.clone(), State::Readable);
        let mut out = Samples { samples: Vec::with_capacity(128), groups };
        self.utilization(&mut out);
        self.memory(&mut out);
        self.heat_and_power(&mut out);
        self.links(&mut out);
        self.health(&mut out);
        report.samples = out.samples;
        if groups.has(Group::Mig) {
            report.mig = self.mig.iter().map(|instance| instance.report(groups, self.model)).collect();
        }
        report.processes = self.processes();
        report
    }

    fn is_hot(&self) -> bool {
        self.temperature + 0.5 >= f64::from(self.model.limits[0])
    }

    fn utilization(&self, out: &mut Samples) {
        // Under MIG there is none for the whole device.
        if self.mig.is_empty() {
            let percent = percent(self.load);
            out.put(Group::Utilization, R::Busy, 0, percent);
            out.put(Group::Utilization, R::MemoryControllerBusy, 0, percent * 6 / 10);
            for engine in 0..2 {
                out.put(Group::Utilization, R::Engine, engine, 0u32);
            }
            if self.model.profiling {
                profiling(self.load, out);
            }
        }
    }

    fn memory(&self, out: &mut Samples) {
        let Model { memory, reserved, .. } = *self.model;
        let used = if self.mig.is_empty() {
            used(memory - reserved, self.held, self.load)
        } else {
            self.mig.iter().map(|i| used(i.identity.memory, i.held, i.load)).sum()
        };
        let group = Group::Memory;
        out.put(group, R::MemoryTotal, 0, memory);
        out.put(group, R::MemoryUsed, 0, used);
        out.put(group, R::MemoryFree, 0, memory - reserved - used);
        out.put(group, R::MemoryReserved, 0, reserved);
        out.put(group, R::Bar1Total, 0, memory.next_power_of_two());
        out.put(group, R::Bar1Used, 0, 1u64 << 24);
    }

    fn heat_and_power(&self, out: &mut Samples) {
        let temperature = self.temperature.round() as u32;
        out.put(Group::Temperature, R::Temperature, 0, temperature);
        out.put(Group::Temperature, R::Temperature, 1, temperature + 4);
        for (index, limit) in (0..).zip(self.model.limits) {
            out.put(Group::Temperature, R::TemperatureLimit, index, limit);
        }
        let margin = i64::from(self.model.limits[0]) - i64::from(temperature);
        out.put(Group::Temperature, R::TemperatureMargin, 0, margin);
        let milliwatts = |watts: f64| (watts * 1e3) as u32;
        let most = milliwatts(self.model.power.1);
        out.put(Group::Power, R::Power, 0, milliwatts(self.power));
        out.put(Group::Power, R::Energy, 0, self.energy as u64);
        for (index, limit) in (0..).zip([most, most, most, most / 7 * 2, most]) {
            out.put(Group::Power, R::PowerLimit, index, limit);
        }
        let scale = if self.load < 0.01 {
            0.17
        } else if self.is_hot() {
            0.6
        } else {
            1.0
        };
        for (index, clock) in (0..).zip(self.model.clocks) {
            let now = if index == 2 { clock } else { (f64::from(clock) * scale) as u32 };
            out.put(Group::Clocks, R::Clock, index, now);
            out.put(Group::Clocks, R::ClockMax, index, clock);
        }
        out.put(Group::Clocks, R::PerformanceState, 0, 0u32);
        for bit in 0..8 {
            let active = (bit == IDLE && self.load < 0.01) || (bit == SW_THERMAL && self.is_hot());
            out.put(Group::Throttling, R::ThrottleActive, bit, active);
        }
        out.put(Group::Throttling, R::ThrottleTime, 0, 0u64);
        out.put(Group::Throttling, R::ThrottleTime, 1, self.throttled as u64);
        for fan in 0..self.model.fans {
            out.put(Group::Fans, R::FanDuty, fan, (30.0 + (self.temperature - HEAT.0) * 1.2) as u32);
        }
    }

    fn links(&self, out: &mut Samples) {
        let [sent, received, link_sent, link_received] = self.moved;
        out.put(Group::Pcie, R::PcieBytes, 0, sent as u64);
        out.put(Group::Pcie, R::PcieBytes, 1, received as u64);
        out.put(Group::PcieThroughput, R::PcieThroughput, 0, (2e9 * self.load / 1024.0) as u32);
        out.put(Group::PcieThroughput, R::PcieThroughput, 1, (3e9 * self.load / 1024.0) as u32);
        for (reading, value) in [
            (R::PcieGeneration, 5u32),
            (R::PcieWidth, 16),
            (R::PcieGenerationMax, 5),
            (R::PcieWidthMax, 16),
            (R::PcieReplays, 0),
        ] {
            out.put(Group::Pcie, reading, 0, value);
        }
        for link in 0..self.model.links {
            out.put(Group::Nvlink, R::NvlinkActive, link, true);
        }
        if self.model.links > 0 {
            out.put(Group::Nvlink, R::NvlinkBytes, 0, link_sent as u64);
            out.put(Group::Nvlink, R::NvlinkBytes, 1, link_received as u64);
            for error in 0..4 {
                out.put(Group::Nvlink, R::NvlinkErrors, error, 0u64);
            }
        }
    }

    fn health(&self, out: &mut Samples) {
        let group = Group::Ecc;
        for (reading, index, value) in [
            (R::EccErrors, 0, self.corrected),
            (R::EccErrors, 1, 0),
            (R::EccLifetime, 0, self.corrected),
            (R::EccLifetime, 1, 0),
            (R::EccEnabled, 0, 1),
            (R::EccEnabled, 1, 1),
            (R::RemappedRows, 0, 0),
            (R::RemappedRows, 1, 0),
            (R::RemapPending, 0, 0),
            (R::RemapFailed, 0, 0),
            (R::RemapBanks, 0, 640),
            (R::RemapBanks, 1, 0),
            (R::RemapBanks, 2, 0),
            (R::RemapBanks, 3, 0),
            (R::RemapBanks, 4, 0),
            (R::RecoveryAction, 0, 0),
        ] {
            out.put(group, reading, index, value);
        }
        let mig = u32::from(!self.mig.is_empty());
        out.put(Group::Mig, R::MigEnabled, 0, mig);
        out.put(Group::Mig, R::MigEnabled, 1, mig);
        out.put(Group::Modes, R::Persistence, 0, true);
        for mode in 0..4 {
            out.put(Group::Modes, R::ComputeMode, mode, mode == 0);
        }
        let processes = u32::from(self.mig.is_empty() && self.held)
            + self.mig.iter().map(|instance| u32::from(instance.held)).sum::<u32>();
        out.put(Group::Utilization, R::ProcessCount, 0, processes);
        out.put(Group::Utilization, R::ProcessCount, 1, 0u32);
    }

    fn processes(&self) -> Vec<Process> {
        let process = |pid, memory, load: f64, instance: Option<u32>| Process {
            pid,
            kind: ProcessKind::Compute,
            memory: Some(memory),
            gpu_instance: instance,
            compute_instance: instance.map(|_| 0),
            load: if instance.is_some() {
                [None; 4]
            } else {
                [Some(load * 100.0), Some(load * 60.0), Some(0.0), Some(0.0)]
            },
        };
        // Numbers that no process of this machine has.
        let pid = 1 << 30 | self.identity.index << 8;
        if self.mig.is_empty() {
            let memory = used(self.model.memory - self.model.reserved, self.held, self.load);
            return if self.held { vec![process(pid, memory, self.load, None)] } else { Vec::new() };
        }
        let held = self.mig.iter().filter(|instance| instance.held);
        held.map(|instance| {
            let number = instance.identity.gpu_instance;
            let memory = used(instance.identity.memory, true, instance.load);
            process(pid | number, memory, instance.load, Some(number))
        })
        .collect()
    }
}

impl Instance {
    fn report(&self, groups: Groups, model: &Model) -> MigReport {
        let mut out = Samples { samples: Vec::new(), groups };
        let used = used(self.identity.memory, self.held, self.load);
        out.put(Group::Memory, R::MemoryTotal, 0, self.identity.memory);
        out.put(Group::Memory, R::MemoryUsed, 0, used);
        out.put(Group::Memory, R::MemoryFree, 0, self.identity.memory - used);
        if model.profiling {
            profiling(self.load, &mut out);
        }
        MigReport { identity: self.identity.clone(), samples: out.samples }
    }
}

/// Samples of the groups that are on.
struct Samples {
    samples: Vec<Sample>,
    groups: Groups,
}

impl Samples {
    fn put(&mut self, group: Group, reading: R, index: u16, value: impl Into<Value>) {
        if self.groups.has(group) {
            self.samples.push(Sample { reading, index, value: value.into() });
        }
    }
}

fn profiling(load: f64, out: &mut Samples) {
    for (reading, index, value) in [
        (R::GraphicsActivity, 0, load * 99.0),
        (R::SmActivity, 0, load * 92.0),
        (R::SmOccupancy, 0, load * 45.0),
        (R::TensorActivity, 0, load * 38.0),
        (R::MemoryBandwidth, 0, load * 61.0),
        (R::ProfiledPcie, 0, load * 1907.0),
        (R::ProfiledPcie, 1, load * 2861.0),
        (R::ProfiledNvlink, 0, load * 57_220.0),
        (R::ProfiledNvlink, 1, load * 57_220.0),
    ] {
        out.put(Group::Profiling, reading, index, value);
    }
}

fn percent(load: f64) -> u32 {
    (load * 100.0).round() as u32
}

/// Servers of models take their memory up front and keep it.
fn used(usable: u64, held: bool, load: f64) -> u64 {
    if held { (usable as f64 * (0.78 + 0.1 * load)) as u64 } else { 0 }
}

/// How busy a device is, 0 to 1. `number` is what devices differ in.
fn load(work: Work, at: Duration, number: u64) -> f64 {
    let seconds = at.as_secs_f64() + (number % 1000) as f64;
    let wave = |period: f64| (seconds * std::f64::consts::TAU / period).sin();
    let load = match work {
        Work::Idle => 0.0,
        Work::Training if seconds % 90.0 < 6.0 => 0.08,
        Work::Training => 0.96 + 0.02 * wave(7.0),
        Work::Inference => 0.62 + 0.22 * wave(240.0) + 0.08 * wave(31.0) + 0.05 * wave(5.3),
    };
    load.clamp(0.0, 1.0)
}
