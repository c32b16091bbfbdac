//! The agent's life: start in order, run, stop in order, say what became of everything.
//!
//! Start: metrics endpoint, extensions, exporters, timers, receivers; ready when every port is open. Stop, on
//! SIGTERM or SIGINT: not ready, no new requests, what was read is answered, what is collected is sent, and the
//! last line of the log says how many items were sent, refused and lost. A second signal ends at once.

mod accounting;
mod graph;
mod settings;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};

pub use graph::{Graph, GraphError, build};

use crate::config::Plan;
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{Ledger, Limits, Phase, Readiness, RunContext, StartError, memory};
use crate::telemetry::{self, Metrics};

/// Attributes that describe this agent: `service.name`, `service.version`, `service.instance.id`, …
pub type About = BTreeMap<String, String>;

/// What the command line says about running.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How long stopping may take.
    pub shutdown_timeout: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { shutdown_timeout: crate::pipeline::DRAIN_BUDGET }
    }
}

/// A component that did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the {kind} \"{id}\": {source}")]
struct Failed {
    kind: &'static str,
    id: String,
    source: StartError,
}

/// Builds and runs `plan` until a signal ends it. The exit code is 0 after an orderly stop and 1 when something
/// did not start.
pub fn run(plan: &Plan, options: &RunOptions) -> ExitCode {
    let about = settings::about(&plan.telemetry.resource);
    if let Err(why) = telemetry::logs::init(settings::logs(&plan.telemetry.logs, &about)) {
        // There is no log to say it in.
        let _ = writeln!(std::io::stderr(), "cannot open the log: {why}");
        return ExitCode::FAILURE;
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => {
            tracing::error!("cannot start the runtime: {why}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(supervise(plan, &about, options));
    // Tasks that outlived the stop (idle connections of clients that never hang up) end with the process.
    runtime.shutdown_background();
    code
}

/// One current-thread runtime at one CPU or less, otherwise as many workers as the CPU quota allows.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // Counts the affinity mask and the cgroup's quota.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = if cpus <= 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.enable_all().worker_threads(cpus).thread_name("tidegate").build()
}

async fn supervise(plan: &Plan, about: &About, options: &RunOptions) -> ExitCode {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "Starting tidegate...");
    let signals = Signals::new();
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(why) => {
            tracing::error!("cannot listen for signals: {why}");
            return ExitCode::FAILURE;
        }
    };
    let agent = match Agent::start(plan, about).await {
        Ok(agent) => agent,
        Err(why) => {
            tracing::error!("{why}");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!("Everything is ready. Begin running and processing data.");
    signals.stop().await;
    tracing::info!("Starting shutdown...");
    tokio::select! {
        () = agent.stop(options.shutdown_timeout) => ExitCode::SUCCESS,
        () = signals.stop() => {
            tracing::error!("A second signal: ending without waiting for what is still queued");
            ExitCode::FAILURE
        }
    }
}

/// SIGTERM and SIGINT stop the agent; SIGHUP must not.
struct Signals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
    hangup: UnixSignal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: this version does not reload its config; restart it to apply changes");
                }
            }
        }
    }
}

/// A running agent. For tests and for [`run`].
pub struct Agent {
    graph: Graph,
    context: RunContext,
    started: Instant,
}

impl Agent {
    /// Builds `plan` and starts it in order. When this returns, every port is open.
    ///
    /// # Errors
    /// One sentence that names what did not build or start; whatever had started is stopped again.
    pub async fn start(
        plan: &Plan,
        about: &About,
    ) -> Result<Agent, Box<dyn std::error::Error + Send + Sync>> {
        let metrics = Metrics::new();
        let ledger = Ledger::new(Limits::without_limiter().soft);
        let graph = build(plan, &metrics, &ledger).map_err(|errors| {
            errors.iter().map(|e| format!("{}: {}", e.path, e.message)).collect::<Vec<_>>().join("; ")
        })?;
        let context = RunContext {
            supervisor: Supervisor::default(),
            ledger,
            metrics,
            extensions: Arc::new(graph.extensions.iter().cloned().collect::<HashMap<_, _>>()),
            readiness: Readiness::default(),
        };
        let mut agent = Agent { graph, context, started: Instant::now() };
        match agent.open(plan, about).await {
            Ok(()) => Ok(agent),
            Err(why) => {
                agent.stop(Duration::from_secs(1)).await;
                Err(why)
            }
        }
    }

    async fn open(
        &mut self,
        plan: &Plan,
        about: &About,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let cx = &self.context;
        telemetry::process::register(&cx.metrics, &cx.ledger);
        accounting::watch_exporters(&cx.metrics);
        telemetry::process::describe(&cx.metrics, about);
        crate::net::tls::register_metrics(&cx.metrics);
        cx.metrics.hide(settings::hidden(plan.telemetry.metrics.level));
        if let Some(reader) = plan.telemetry.metrics.prometheus() {
            let address = reader.socket_text();
            let bound = telemetry::server::serve(&address, cx.metrics.clone(), &cx.supervisor).await;
            bound.map_err(|why| format!("cannot serve metrics at {address}: {why}"))?;
        }
        let limits = cx.ledger.limits().unwrap_or_else(Limits::without_limiter);
        cx.supervisor.spawn("memory watch", memory::watch(cx.ledger.clone(), limits));
        let failed = |kind, id: &str| {
            let id = id.to_owned();
            move |source| Failed { kind, id, source }
        };
        for (id, extension) in &self.graph.extensions {
            extension.start(cx).await.map_err(failed("extension", id))?;
        }
        for (id, prepare) in &self.graph.prepares {
            prepare.start(cx).await.map_err(failed("processor", id))?;
        }
        for (id, _, exporter) in &self.graph.exporters {
            exporter.start(cx).await.map_err(failed("exporter", id))?;
        }
        for stage in &self.graph.regroups {
            stage.start(&cx.supervisor);
        }
        for (id, receiver, outputs) in &mut self.graph.receivers {
            receiver.start(outputs.clone(), cx).await.map_err(failed("receiver", id))?;
        }
        cx.readiness.advance(Phase::Ready);
        Ok(())
    }

    /// Stops in order within `budget` and logs what became of everything.
    pub async fn stop(mut self, budget: Duration) {
        let deadline = Instant::now() + budget;
        self.context.readiness.advance(Phase::Stopping);
        // Half of the budget at most goes to clients that are slow to finish; the rest is for the backends.
        let intake = Instant::now() + budget / 2;
        for (_, receiver, _) in &mut self.graph.receivers {
            receiver.stop(intake).await;
        }
        // Stages were built from the exporters backwards, over all pipelines; data moves the other way.
        for stage in self.graph.regroups.iter().rev() {
            stage.flush(true);
        }
        let supervisor = &self.context.supervisor;
        let draining: Vec<_> = self
            .graph
            .exporters
            .iter()
            .map(|(id, signal, exporter)| {
                let (id, signal, exporter) = (id.clone(), *signal, exporter.clone());
                let (tx, rx) = tokio::sync::oneshot::channel();
                supervisor.spawn("drain", async move {
                    let _ = tx.send(exporter.drain(deadline).await);
                });
                (id, signal, rx)
            })
            .collect();
        let (mut lost, mut kept) = (0, 0);
        for (id, signal, rx) in draining {
            let left = rx.await.unwrap_or_default();
            if left.lost > 0 {
                let data_type = signal.name();
                tracing::error!(
                    exporter = id,
                    data_type,
                    items = left.lost,
                    "Not delivered before the deadline: lost"
                );
            }
            (lost, kept) = (lost + left.lost, kept + left.kept);
        }
        for (_, extension) in self.graph.extensions.iter().rev() {
            extension.stop().await;
        }
        let [sent, dropped, refused] = self.context.metrics.totals();
        let ran = self.started.elapsed().as_secs();
        tracing::info!(sent, refused, dropped, kept, lost, ran_seconds = ran, "Shutdown complete.");
    }

    /// The agent's own metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.context.metrics
    }
}
