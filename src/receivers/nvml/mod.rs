//! The `nvml` receiver: the node's NVIDIA GPUs, and who pays for them.
//!
//! ```text
//!  driver ◄─ thread ─► worker ─┐                         ┌─► metrics
//!                    kubelet ──┼─► collector ─► template ─┤
//!  driver ─► events ───────────┘   accounts              └─► log records
//! ```
//!
//! # What it promises
//!
//! * Nothing of the driver's can stall the agent: it is called on a thread of its own, and what does not come back is left
//!   alone and said.
//! * A value that the device does not have is absent: never 0, never a sentinel. What is gone is said to be gone once.
//! * One failing reading does not end a device, one failing device does not end the others, and a driver that goes away
//!   is waited for.
//! * Of each GPU's time all is accounted for: to a tenant, to nobody, or as unaccounted.
//!
//! # What it costs
//!
//! The driver's calls, and some microseconds a device and collection: see [`emit`](self::emit).

pub mod accounts;
pub mod catalogue;
mod collector;
pub mod config;
mod derive;
pub mod emit;
mod events;
mod health;
pub mod holders;
pub mod library;
pub mod model;
mod outbox;
pub mod pods;
mod reading;
pub mod simulate;
mod worker;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use config::NvmlConfig;

use self::collector::{Collector, Setup, Ways};
use self::model::Factory;
use self::outbox::Outbox;
use self::simulate::{Schedule, Simulated};
use crate::components::BuildError;
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Outputs, Receiver, RunContext, StartError};

/// Variables that say which node this is, in the order in which they are asked.
const NODE_VARIABLES: [&str; 2] = ["K8S_NODE_NAME", "NODE_NAME"];

/// The receiver.
pub struct Nvml {
    id: String,
    config: NvmlConfig,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<tokio::time::Instant>,
    task: JoinHandle<()>,
    ways: Ways,
}

/// Builds the receiver.
///
/// # Errors
/// Sources of tenants that are none, in a config that was not decoded from a file.
pub fn build(config: &NvmlConfig, cx: &BuildContext) -> Result<Box<dyn Receiver>, BuildError> {
    accounts::Payers::new(&config.tenant, "", true)?;
    Ok(Box::new(Nvml { id: cx.id.clone(), config: config.clone(), running: None }))
}

#[async_trait]
impl Receiver for Nvml {
    async fn start(&mut self, outputs: Outputs, cx: &RunContext) -> Result<(), StartError> {
        let ways = Ways {
            metrics: Outbox::open(&self.id, Signal::Metrics, &outputs, cx),
            logs: Outbox::open(&self.id, Signal::Logs, &outputs, cx),
        };
        let groups = self.config.groups.on();
        let schedule =
            self.config.simulate.get().map(|simulate| Arc::new(Schedule::new(simulate, Instant::now())));
        let factory: Factory = match (self.config.simulate.get().cloned(), schedule.clone()) {
            (Some(simulate), Some(schedule)) => {
                Arc::new(move |sink| Box::new(Simulated::new(&simulate, groups, schedule.clone(), sink)))
            }
            _ => {
                let settings = self.library(cx);
                Arc::new(move |sink| library::source(settings.clone(), sink))
            }
        };
        let setup = Setup {
            id: self.id.clone(),
            node: node_name(&self.config.node),
            factory,
            schedule,
            ways: ways.clone(),
            supervisor: cx.supervisor.clone(),
            metrics: cx.metrics.clone(),
        };
        let collector = Collector::new(&self.config, setup).map_err(StartError::new)?;
        let (stop, stopped) = oneshot::channel();
        let task = cx.supervisor.spawn("nvml", collector.run(stopped));
        self.running = Some(Running { stop, task, ways });
        Ok(())
    }

    async fn stop(&mut self, deadline: Instant) {
        let Some(mut running) = self.running.take() else { return };
        let deadline = tokio::time::Instant::from_std(deadline);
        // A task that has died already has nothing to let go of.
        let _ = running.stop.send(deadline);
        if tokio::time::timeout_at(deadline, &mut running.task).await.is_err() {
            running.task.abort();
        }
        for way in [running.ways.metrics, running.ways.logs].into_iter().flatten() {
            way.close(deadline).await;
        }
    }
}

impl Nvml {
    /// What the driver's library is read with.
    fn library(&self, cx: &RunContext) -> library::Settings {
        let config = &self.config;
        library::Settings {
            library: (!config.library_path.is_empty()).then(|| config.library_path.clone().into()),
            groups: config.groups.on(),
            devices: config.devices.clone(),
            slow_interval: config.slow_interval,
            skip_sleeping: config.skip_sleeping,
            // Who holds a GPU, and which part of it, is also known by its processes.
            processes: config.accounts(),
            sysfs: "/sys".into(),
            proc: config.processes.root.clone().into(),
            supervisor: cx.supervisor.clone(),
            memory: library::Memory::default(),
        }
    }
}

/// This node's name: as configured, as the environment says, or the host's.
fn node_name(configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let variables = NODE_VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    variables
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .or_else(|| host().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "localhost".to_owned())
}
