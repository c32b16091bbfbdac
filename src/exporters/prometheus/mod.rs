//! `prometheus`: shows metrics on a page that Prometheus scrapes.
//!
//! The state keeps the last value of every series (`state`); a page is written of it in parts (`page`) in the format
//! that the scraper asks for (`negotiate`, `server`). Series are mapped as by `prometheus_remote_write`. Delta
//! temporality is always added up.
//!
//! Promises: a data point is sent when the state has it, or dropped for a reason; a series goes when nothing came for
//! `metric_expiration`, or at once when its point says that nothing was recorded; memory is bounded by `max_series`;
//! no page holds batches up for longer than one part takes.
//!
//! The text formats have no native histograms: exponential ones are shown as classic buckets there, and as native
//! histograms in protobuf.

mod config;
mod negotiate;
mod page;
mod server;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prometheus::IntGauge;
use tokio::sync::watch;

pub use self::config::PrometheusConfig;
use self::server::Pages;
use self::state::{Options, Outcome, State};
use super::prometheus_remote_write::{self, RemoteWriteConfig};
use crate::components::BuildError;
use crate::pdata::{Batch, Signal};
use crate::pipeline::{BuildContext, Consumer, Exporter, Leftover, RunContext, StartError, Verdict};
use crate::prometheus::delta::Limits;
use crate::prometheus::remote::{Exponential, RemoteOptions};
use crate::receivers::otlp::server::{Counters, Protocol, Server};
use crate::telemetry::ExporterItems;

/// How many slots are looked at for expiry before others have their turn.
const SWEEP: usize = 8192;
/// The least and the greatest time between two looks.
const SWEEP_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How often the log speaks of dropped points.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Milliseconds since the exporter was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock(tokio::time::Instant);

struct Prometheus {
    id: String,
    config: PrometheusConfig,
    items: ExporterItems,
    series: Option<IntGauge>,
    state: Arc<Mutex<State>>,
    clock: Clock,
    logged: Mutex<Option<Instant>>,
    server: tokio::sync::Mutex<Option<Server>>,
    stop: watch::Sender<bool>,
}

/// Builds the exporter.
///
/// # Errors
/// None: what can be wrong is found when the config is read or when the port is opened.
pub fn build(
    config: &PrometheusConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Arc<dyn Exporter>, BuildError> {
    Ok(Arc::new(Prometheus::new(config, signal, cx)))
}

/// What remote write would be told to make the same series: for who asks what they are called.
pub fn remote_options(config: &PrometheusConfig) -> RemoteOptions {
    let limits = Limits {
        max_streams: usize::try_from(config.max_series).unwrap_or(1),
        max_stale: config.metric_expiration,
    };
    let defaults = prometheus_remote_write::options(&RemoteWriteConfig::default());
    RemoteOptions {
        map: config.mapping(),
        delta: Some(limits),
        exponential: Exponential::Classic,
        ..defaults
    }
}

impl Prometheus {
    fn new(config: &PrometheusConfig, signal: Signal, cx: &BuildContext) -> Self {
        let help = "Series that the page of a prometheus exporter has.";
        let gauge = cx.metrics.gauge("tidegate_prometheus_series", help, &["exporter"]);
        Prometheus {
            id: cx.id.clone(),
            config: config.clone(),
            items: ExporterItems::new(&cx.metrics, &cx.id, signal),
            series: gauge.map(|family| family.with_label_values(&[&cx.id])),
            state: Arc::new(Mutex::new(State::new(options_of(config)))),
            clock: Clock::start(),
            logged: Mutex::default(),
            server: tokio::sync::Mutex::default(),
            stop: watch::Sender::new(false),
        }
    }

    fn log(&self, outcome: &Outcome) {
        let full = outcome.dropped.iter().any(|(reason, _)| *reason == "max_series");
        if outcome.conflict.is_none() && !full {
            return;
        }
        let mut last = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            return;
        }
        *last = Some(Instant::now());
        if let Some(metric) = &outcome.conflict {
            tracing::warn!(
                exporter = %self.id,
                metric,
                "points dropped: another metric of this name has a different type"
            );
        }
        if full {
            let limit = self.config.max_series;
            tracing::warn!(exporter = %self.id, limit, "points dropped: there are as many series as may be");
        }
    }
}

impl Consumer for Prometheus {
    fn consume(&self, batch: Batch) {
        self.items.offered(batch.items);
        let request = batch.rope.to_bytes();
        let now = self.clock.millis();
        let (outcome, series) = {
            let mut state = lock(&self.state);
            (state.take(&request, now), state.series.len())
        };
        self.items.sent(outcome.stored);
        for (reason, count) in &outcome.dropped {
            self.items.dropped(*count, reason);
        }
        // A batch that cannot be read to its end.
        if let Some(rest) = batch.items.checked_sub(outcome.items()).filter(|rest| *rest > 0) {
            self.items.dropped(rest, "malformed");
        }
        if let Some(gauge) = &self.series {
            gauge.set(series as i64);
        }
        self.log(&outcome);
        batch.acks.resolve(Verdict::Accepted);
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

#[async_trait]
impl Exporter for Prometheus {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        let config = &self.config;
        let auth = config.auth.get().map(|auth| cx.server_auth(auth.authenticator.as_str())).transpose()?;
        let tls = config.tls.get().map(|tls| tls.load(Pages::ALPN)).transpose()?;
        let pages = Arc::new(Pages::new(config, self.state.clone(), self.clock, auth));
        let counter = |name: &str, help: &str| cx.metrics.series(name, help, &[("exporter", &self.id)]);
        let counters = Counters {
            pauses: counter(
                "tidegate_exporter_accept_pauses",
                "Times the exporter could not accept connections for want of file descriptors or memory.",
            ),
            turned_away: counter(
                "tidegate_exporter_connections_turned_away",
                "Connections closed at once because open ones hold all the memory that is theirs.",
            ),
        };
        let server = Server::start(&config.endpoint, config.transport, tls, pages, cx, counters).await?;
        tracing::info!(component = %self.id, endpoint = %server.address, "metrics are served at /metrics");
        *self.server.lock().await = Some(server);
        let (state, clock, gauge) = (self.state.clone(), self.clock, self.series.clone());
        let pause = (config.metric_expiration / 4).clamp(SWEEP_EVERY.0, SWEEP_EVERY.1);
        let mut stop = self.stop.subscribe();
        cx.supervisor.spawn("prometheus expiry", async move {
            loop {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let mut from = Some(0);
                while let Some(at) = from {
                    from = {
                        let mut state = lock(&state);
                        let next = state.sweep(at, SWEEP, clock.millis());
                        if let Some(gauge) = &gauge {
                            gauge.set(state.series.len() as i64);
                        }
                        next
                    };
                    tokio::task::yield_now().await;
                }
            }
        });
        Ok(())
    }

    async fn drain(&self, deadline: Instant) -> Leftover {
        self.stop.send_replace(true);
        if let Some(mut server) = self.server.lock().await.take() {
            server.stop(tokio::time::Instant::from_std(deadline)).await;
        }
        Leftover::default()
    }
}

impl Clock {
    fn start() -> Self {
        Clock(tokio::time::Instant::now())
    }

    /// Milliseconds since the start.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn options_of(config: &PrometheusConfig) -> Options {
    Options {
        map: config.mapping(),
        expiration: config.metric_expiration,
        max_series: usize::try_from(config.max_series).unwrap_or(1).max(1),
        exemplars: config.enable_open_metrics,
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
