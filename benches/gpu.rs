//! What a collection of GPUs costs beside the driver's calls: naming, accounts, encoding.
//!
//! `cargo bench --bench gpu`, or under `valgrind --tool=callgrind` with a filter as argument and `ROUNDS=1`. Sixteen
//! simulated devices with all groups of readings on, most of them held by a container. Prints microseconds a
//! collection, the best of several rounds, next to what owned structs and prost cost for the same points.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a measurement, not the product")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use tidegate::receivers::nvml::accounts::{Accounts, Payers};
use tidegate::receivers::nvml::catalogue::{Made, Table};
use tidegate::receivers::nvml::config::{CostConfig, GpuId, OwnerConfig, ProcessesConfig, SimulateConfig};
use tidegate::receivers::nvml::emit::{Common, Emit, Thing};
use tidegate::receivers::nvml::model::{EventSink, Groups, Report, Source};
use tidegate::receivers::nvml::pods::{Claim, Pods, Told};
use tidegate::receivers::nvml::simulate::{Schedule, Simulated};
use tidegate::telemetry::Metrics;

const DEVICES: u32 = 16;

/// Everything a collection has, but for the driver.
struct Rig {
    source: Simulated,
    schedule: Arc<Schedule>,
    start: Instant,
    pods: Pods,
    accounts: Accounts,
    emit: Emit,
    time: u64,
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    for (names, legacy, dcgm) in [("own names", false, false), ("all names", true, true)] {
        let mut rig = rig(legacy, dcgm);
        let reports = rig.reports(1);
        let (request, points) = rig.request(&reports);
        println!("{names}: {DEVICES} devices, {points} points, {} bytes", request.len());
        let typed = ExportMetricsServiceRequest::decode(request).unwrap();
        let mut run = |name: &str, work: &mut dyn FnMut(&mut Rig)| {
            if format!("{names}/{name}").contains(&filter) {
                let best = measure(&mut || work(&mut rig)) / 1000.0;
                println!("  {name:<44} {best:>9.2} us {:>9.1} ns/point", best * 1000.0 / points as f64);
            }
        };
        run("name and encode, the same things as before", &mut |rig| {
            black_box(rig.request(&reports));
        });
        run("name and encode, everything new", &mut |rig| {
            rig.emit = emit(legacy, dcgm);
            black_box(rig.request(&reports));
        });
        run("who holds what, accounts", &mut |rig| rig.account(&reports));
        run("the whole collection", &mut |rig| {
            rig.account(&reports);
            for row in rig.accounts.rows() {
                rig.emit.account(row);
            }
            black_box(rig.request(&reports));
        });
        run("owned structs, encoded by prost", &mut |_| {
            // What an SDK does: every name and attribute is a string of its own.
            black_box(typed.clone().encode_to_vec());
        });
        run("encoded by prost, structs kept", &mut |_| {
            black_box(typed.encode_to_vec());
        });
    }
}

fn emit(legacy: bool, dcgm: bool) -> Emit {
    let common = Common { node: "node-1".to_owned(), gpu_id: GpuId::Uuid, currency: "USD".to_owned() };
    Emit::new(Table::new(legacy, dcgm), common)
}

fn rig(legacy: bool, dcgm: bool) -> Rig {
    let config = SimulateConfig { devices: DEVICES, faults: false, ..SimulateConfig::default() };
    let start = Instant::now();
    let schedule = Arc::new(Schedule::new(&config, start));
    let (to, _) = crossbeam_channel::bounded(1);
    let sink = EventSink::new(to, Arc::default());
    let metrics = Metrics::new();
    let cost = CostConfig {
        per_gpu_hour: [("default".to_owned(), 2.0)].into_iter().collect(),
        ..CostConfig::default()
    };
    let payers = Payers::new(&OwnerConfig::default(), "node-1", true).unwrap();
    Rig {
        source: Simulated::new(&config, Groups(u32::MAX), schedule.clone(), sink),
        schedule,
        start,
        pods: Pods::new(None, &ProcessesConfig::default(), "nvml", &metrics),
        accounts: Accounts::new(Some(&cost), payers, &metrics, "nvml"),
        emit: emit(legacy, dcgm),
        time: 1_700_000_000_000_000_000,
    }
}

impl Rig {
    fn reports(&mut self, second: u64) -> Vec<Report> {
        let now = self.start + Duration::from_secs(second);
        (0..DEVICES).map(|index| self.source.read(index, now).unwrap()).collect()
    }

    fn request(&mut self, reports: &[Report]) -> (bytes::Bytes, usize) {
        self.time += 1_000_000_000;
        for report in reports {
            self.emit.report(report);
            self.emit.made(Made::Up, &Thing::Device(report.identity.clone()), true);
        }
        let rendered = self.emit.finish(self.time, b"", b"");
        (rendered.request, rendered.points)
    }

    fn account(&mut self, reports: &[Report]) {
        self.time += 1_000_000_000;
        let now = self.start + Duration::from_nanos(self.time - 1_700_000_000_000_000_000);
        let mut claims = Vec::new();
        for report in reports {
            let held = self.schedule.claims(&report.identity, Duration::from_secs(1));
            claims.extend(held.into_iter().map(|(device_id, holder)| Claim { device_id, holder }));
        }
        self.pods.tell(Told { claims, ..Told::default() });
        let shares = self.pods.attribute(now, reports);
        self.accounts.advance(now, self.time, Duration::from_secs(1), &shares, reports);
    }
}

/// Nanoseconds, the best round.
fn measure(work: &mut dyn FnMut()) -> f64 {
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20u32);
    let once = std::env::var_os("ROUNDS").is_some();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let (start, mut count) = (Instant::now(), 0u32);
        while count == 0 || (!once && start.elapsed() < Duration::from_millis(25)) {
            work();
            count += 1;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(count));
    }
    best
}
