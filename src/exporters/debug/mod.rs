//! `debug`: shows telemetry to a person, as counts, one line an item, or every field.
//!
//! Walks the bytes; nothing is decoded into objects. Printing happens on a thread of its own, because a terminal
//! or a pipe can stall: then the exporter refuses, retryably, and never holds a worker up. How many batches are
//! shown is sampled per second; a batch that is not shown counts as sent all the same.

mod detailed;
mod normal;
#[cfg(test)]
mod tests;
mod value;
mod view;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::view::Msg;
use super::own_thread::{Entrance, Thread, WriteError, Writer};
use crate::components::{BuildError, ComponentConfig};
use crate::config::{Config, Cx, Node, Schema, SchemaKind, Value};
use crate::pdata::fields::{request, resource_group, scope_group};
use crate::pdata::wire::WireError;
use crate::pdata::{Batch, Signal};
use crate::pipeline::{BuildContext, Consumer, Exporter, Leftover, RunContext, StartError};
use crate::telemetry::ExporterItems;
use crate::{config, config_enum};

config_enum! {
    /// How much is shown of each batch.
    pub enum Verbosity ignore_case {
        /// One line with counts.
        Basic = "basic",
        /// One line an item.
        Normal = "normal",
        /// Every field.
        Detailed = "detailed",
    }
}

config! {
    /// Shows telemetry in the agent's log, on the terminal or in a file. For trying things out.
    pub struct DebugConfig {
        /// `basic` shows counts, `normal` one line an item, `detailed` every field. Case does not matter.
        pub verbosity: Verbosity = Verbosity::Basic,
        /// How many batches are shown in each second before sampling sets in.
        pub sampling_initial: u64 = 2,
        /// After the first batches of a second, every n-th is shown; 0 shows none of them.
        pub sampling_thereafter: u64 = 1,
        /// Whether the output goes to the agent's own log, rather than to `output_paths`.
        pub use_internal_logger: bool = true,
        /// Where the output goes without the internal logger: `stdout`, `stderr` or files, which are appended to.
        pub output_paths: Vec<String> = vec!["stdout".to_owned()],
        /// Not supported: telemetry is shown as it comes. Only `enabled: false` may be written.
        pub sending_queue: NoQueue = NoQueue,
    }
    validate = DebugConfig::check;
}

/// The `sending_queue` of an exporter that has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoQueue;

impl DebugConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let Some(paths) = node.get("output_paths").filter(|paths| !paths.is_null()) else { return };
        cx.within("output_paths", |cx| {
            if self.use_internal_logger {
                cx.error_hint(
                    paths.pos,
                    "output_paths is not supported when use_internal_logger is true",
                    "write use_internal_logger: false",
                );
            } else if self.output_paths.is_empty() {
                cx.error(paths.pos, "output_paths cannot be empty when use_internal_logger is false");
            } else if self.output_paths.iter().any(String::is_empty) {
                cx.error_hint(
                    paths.pos,
                    "an output path must not be empty",
                    "write stdout, stderr or a file name",
                );
            }
        });
    }
}

impl ComponentConfig for DebugConfig {}

impl Config for NoQueue {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        let off = node.get("enabled").is_some_and(|enabled| enabled.value == Value::Bool(false));
        if !off {
            cx.error_hint(
                node.pos,
                "the debug exporter has no sending queue: it shows telemetry as it comes",
                "remove sending_queue, or write enabled: false in it",
            );
        }
    }

    fn schema() -> Schema {
        Schema { name: "mapping", kind: SchemaKind::Any }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// The exporter of one signal.
struct Debug {
    id: String,
    config: DebugConfig,
    entrance: Entrance,
    thread: OnceLock<Thread>,
}

/// Builds the exporter for one signal.
///
/// # Errors
/// None.
pub fn build(
    config: &DebugConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Arc<dyn Exporter>, BuildError> {
    Ok(Arc::new(Debug {
        id: cx.id.clone(),
        config: config.clone(),
        entrance: Entrance::new(ExporterItems::new(&cx.metrics, &cx.id, signal)),
        thread: OnceLock::new(),
    }))
}

impl Consumer for Debug {
    fn consume(&self, batch: Batch) {
        self.entrance.offer(self.thread.get(), batch);
    }

    fn holds_acks(&self) -> bool {
        self.thread.get().is_none_or(Thread::is_crowded)
    }
}

#[async_trait]
impl Exporter for Debug {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        let outputs = if self.config.use_internal_logger {
            Vec::new()
        } else {
            self.config.output_paths.iter().map(|path| Output::open(path)).collect::<Result<_, _>>()?
        };
        let printer = Printer {
            id: self.id.clone(),
            verbosity: self.config.verbosity,
            sampler: Sampler::new(self.config.sampling_initial, self.config.sampling_thereafter),
            outputs,
            text: Vec::new(),
        };
        let thread = Thread::start("debug-exporter", printer, &cx.supervisor)?;
        let _ = self.thread.set(thread);
        Ok(())
    }

    async fn drain(&self, deadline: Instant) -> Leftover {
        self.entrance.drain(self.thread.get(), deadline).await
    }
}

/// What runs on the thread.
struct Printer {
    id: String,
    verbosity: Verbosity,
    sampler: Sampler,
    /// Empty for the agent's own log.
    outputs: Vec<Output>,
    text: Vec<u8>,
}

impl Writer for Printer {
    fn write(&mut self, batch: &Batch) -> Result<(), WriteError> {
        if !self.sampler.allows(Instant::now()) {
            return Ok(());
        }
        let request = batch.rope.to_bytes();
        self.text.clear();
        let counts = self
            .render(batch, &request)
            .map_err(|why| WriteError::Malformed(format!("malformed telemetry: {why}")))?;
        let done = self.print(batch.signal, counts);
        // One large batch must not keep its memory for good.
        self.text.shrink_to(1 << 20);
        done
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn flush(&mut self) {
        for output in &mut self.outputs {
            if let Err(why) = output.flush() {
                tracing::warn!(exporter = %self.id, error = %why, "cannot write debug output");
            }
        }
    }
}

impl Printer {
    fn render(&mut self, batch: &Batch, request: &[u8]) -> Result<Counts, WireError> {
        let counts = Counts::of(batch, request)?;
        match self.verbosity {
            Verbosity::Basic => {}
            Verbosity::Normal => normal::put(batch.signal, request, &mut self.text)?,
            Verbosity::Detailed => detailed::put(batch.signal, request, &mut self.text)?,
        }
        Ok(counts)
    }

    fn print(&mut self, signal: Signal, counts: Counts) -> Result<(), WriteError> {
        if self.outputs.is_empty() {
            self.log(signal, counts);
            return Ok(());
        }
        let mut lines = counts.line(signal, &self.id).into_bytes();
        lines.extend_from_slice(&self.text);
        for output in &mut self.outputs {
            output.write(&lines).map_err(|why| {
                WriteError::Failed(format!("cannot write debug output to {}: {why}", output.name))
            })?;
        }
        Ok(())
    }

    fn log(&self, signal: Signal, counts: Counts) {
        let exporter = self.id.as_str();
        let Counts { groups, metrics, items } = counts;
        match signal {
            Signal::Traces => {
                tracing::info!(exporter, "resource spans" = groups, spans = items, "Traces");
            }
            Signal::Metrics => {
                tracing::info!(
                    exporter,
                    "resource metrics" = groups,
                    metrics,
                    "data points" = items,
                    "Metrics"
                );
            }
            Signal::Logs => {
                tracing::info!(exporter, "resource logs" = groups, "log records" = items, "Logs");
            }
        }
        if !self.text.is_empty() {
            let text = String::from_utf8_lossy(&self.text);
            tracing::info!(exporter, "{}", text.trim_end_matches('\n'));
        }
    }
}

/// What the basic line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    groups: usize,
    metrics: usize,
    items: usize,
}

impl Counts {
    fn of(batch: &Batch, request: &[u8]) -> Result<Self, WireError> {
        let mut counts = Counts { groups: 0, metrics: 0, items: batch.items };
        for group in Msg::new(request)?.all(request::GROUPS) {
            counts.groups += 1;
            if batch.signal == Signal::Metrics {
                for scope in Msg::new(group)?.all(resource_group::SCOPES) {
                    counts.metrics += Msg::new(scope)?.all(scope_group::ITEMS).count();
                }
            }
        }
        Ok(counts)
    }

    /// The line as it is written without the agent's own log.
    fn line(self, signal: Signal, exporter: &str) -> String {
        let mut time = Vec::new();
        value::put_now(&mut time);
        let time = String::from_utf8(time).unwrap_or_default();
        let Counts { groups, metrics, items } = self;
        let (name, counts) = match signal {
            Signal::Traces => ("Traces", format!("\"resource spans\": {groups}, \"spans\": {items}")),
            Signal::Metrics => {
                let counts = format!(
                    "\"resource metrics\": {groups}, \"metrics\": {metrics}, \"data points\": {items}"
                );
                ("Metrics", counts)
            }
            Signal::Logs => ("Logs", format!("\"resource logs\": {groups}, \"log records\": {items}")),
        };
        format!("{time}\tinfo\t{name}\t{{\"exporter\": \"{exporter}\", {counts}}}\n")
    }
}

/// One of the `output_paths`.
struct Output {
    name: String,
    to: Stream,
}

enum Stream {
    Stdout,
    Stderr,
    File(File),
}

impl Output {
    fn open(path: &str) -> Result<Self, StartError> {
        let to = match path {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            file => {
                Stream::File(OpenOptions::new().append(true).create(true).open(file).map_err(|why| {
                    StartError::new(format!("cannot open the output path \"{file}\": {why}"))
                })?)
            }
        };
        Ok(Output { name: path.to_owned(), to })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match &mut self.to {
            Stream::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text)?;
                out.flush()
            }
            Stream::Stderr => io::stderr().lock().write_all(text),
            Stream::File(file) => file.write_all(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            Stream::Stdout => io::stdout().flush(),
            Stream::Stderr => Ok(()),
            Stream::File(file) => file.sync_data(),
        }
    }
}

/// Shows the first batches of a second, then every n-th.
struct Sampler {
    initial: u64,
    thereafter: u64,
    since: Option<Instant>,
    seen: u64,
}

impl Sampler {
    fn new(initial: u64, thereafter: u64) -> Self {
        Sampler { initial, thereafter, since: None, seen: 0 }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let same_second =
            self.since.is_some_and(|since| now.saturating_duration_since(since) < Duration::from_secs(1));
        if !same_second {
            self.since = Some(now);
            self.seen = 0;
        }
        self.seen += 1;
        match self.seen.checked_sub(self.initial) {
            None | Some(0) => true,
            Some(past) => self.thereafter > 0 && past.is_multiple_of(self.thereafter),
        }
    }
}
