//! `file`: telemetry appended to files, as OTLP/JSON lines or as length-prefixed protobuf.
//!
//! All exporters that name one path share one writer and its thread. The promise to the sender: an accepted
//! batch is in the file (in the system's cache at once, on the disk after `flush_interval`); a batch that could
//! not be written is given back, whole. With `group_by` a batch goes to several files, so one that failed half
//! way is written again to those that had it.

mod config;
mod groups;
mod output;
mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::groups::Groups;
use self::output::Output;
use self::record::Recorder;
use super::own_thread::{Entrance, Thread, WriteError, Writer};
use crate::components::BuildError;
use crate::config::Config;
use crate::pdata::{Batch, Signal};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{BuildContext, Consumer, Exporter, Leftover, RunContext, StartError};
use crate::telemetry::ExporterItems;

pub use self::config::{Compression, CompressionParams, FileConfig, Format, GroupByConfig, RotationConfig};

/// The writers that run now, by path. The keys left by writers that have ended are swept at each start.
static WRITERS: LazyLock<Mutex<HashMap<PathBuf, Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// A running writer, as its exporters hold it.
struct Shared {
    thread: Thread,
    /// The exporter that started it, and with which keys.
    id: String,
    keys: serde_json::Value,
}

/// The exporter of one signal.
struct FileExporter {
    id: String,
    config: FileConfig,
    entrance: Entrance,
    shared: OnceLock<Arc<Shared>>,
}

/// Builds the exporter for one signal.
///
/// # Errors
/// None.
pub fn build(
    config: &FileConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Arc<dyn Exporter>, BuildError> {
    Ok(Arc::new(FileExporter {
        id: cx.id.clone(),
        config: config.clone(),
        entrance: Entrance::new(ExporterItems::new(&cx.metrics, &cx.id, signal)),
        shared: OnceLock::new(),
    }))
}

impl FileExporter {
    fn thread(&self) -> Option<&Thread> {
        self.shared.get().map(|shared| &shared.thread)
    }
}

impl Consumer for FileExporter {
    fn consume(&self, batch: Batch) {
        self.entrance.offer(self.thread(), batch);
    }

    fn holds_acks(&self) -> bool {
        true
    }
}

#[async_trait]
impl Exporter for FileExporter {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        let shared = share(&self.id, &self.config, &cx.supervisor)?;
        let _ = self.shared.set(shared);
        Ok(())
    }

    async fn drain(&self, deadline: Instant) -> Leftover {
        self.entrance.drain(self.thread(), deadline).await
    }
}

/// The writer of a path: the running one, or a new one.
fn share(id: &str, config: &FileConfig, supervisor: &Supervisor) -> Result<Arc<Shared>, StartError> {
    let key = std::path::absolute(&config.path).unwrap_or_else(|_| PathBuf::from(&config.path));
    let keys = config.to_json();
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    writers.retain(|_, shared| shared.strong_count() > 0);
    let running = writers.get(&key).and_then(Weak::upgrade);
    if let Some(running) = &running {
        if running.keys == keys {
            return Ok(running.clone());
        }
        if running.id != id {
            return Err(StartError::new(format!(
                "\"{}\" is written by the exporter {} with other settings; give each its own path",
                config.path, running.id
            )));
        }
    }
    // After a reload the writer with the old keys may still be at work: its records are kept, and both append.
    let truncate = !config.append && running.is_none();
    let writer = FileWriter::open(config, truncate)
        .map_err(|why| StartError::new(format!("cannot write to \"{}\": {why}", config.path)))?;
    let thread = Thread::start("file-exporter", writer, supervisor)?;
    let shared = Arc::new(Shared { thread, id: id.to_owned(), keys });
    writers.insert(key, Arc::downgrade(&shared));
    Ok(shared)
}

/// What runs on the thread.
struct FileWriter {
    path: String,
    target: Target,
    recorder: Recorder,
    flush_interval: Duration,
    /// When the first record since the last flush was written, plus the interval.
    flush_at: Option<Instant>,
    /// Whether the last write failed: failures are logged when they begin and when they end.
    failing: bool,
}

enum Target {
    One(Output),
    Groups(Groups),
}

impl FileWriter {
    fn open(config: &FileConfig, truncate: bool) -> io::Result<Self> {
        let path = Path::new(&config.path);
        let by = &config.group_by;
        let groups = by.enabled.then(|| Groups::new(&config.path, &by.resource_attribute, by.max_open_files));
        let folder = match &groups {
            Some(groups) => groups.folder(),
            None => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        };
        if config.create_directory {
            fs::create_dir_all(folder)?;
        } else {
            fs::metadata(folder).map_err(|why| {
                io::Error::new(why.kind(), format!("{why}; create_directory: true creates folders"))
            })?;
        }
        let target = match groups {
            Some(groups) => Target::Groups(groups),
            None => Target::One(Output::open(path, truncate, config.rotation.get().cloned())?),
        };
        Ok(FileWriter {
            path: config.path.clone(),
            target,
            recorder: Recorder::new(config)?,
            flush_interval: config.flush_interval,
            flush_at: None,
            failing: false,
        })
    }

    fn put(&mut self, batch: &Batch) -> Result<(), WriteError> {
        let request = batch.rope.to_bytes();
        let failed = |why: io::Error| WriteError::Failed(format!("cannot write telemetry to a file: {why}"));
        match &mut self.target {
            Target::One(output) => {
                output.write(self.recorder.record(batch.signal, &request)?).map_err(failed)?;
            }
            Target::Groups(groups) => {
                let parts = groups
                    .split(&request)
                    .map_err(|why| WriteError::Malformed(format!("malformed telemetry: {why}")))?;
                for (name, part) in parts {
                    let record = self.recorder.record(batch.signal, &part)?;
                    groups.file(&name).and_then(|output| output.write(record)).map_err(failed)?;
                }
            }
        }
        Ok(())
    }
}

impl Writer for FileWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), WriteError> {
        let done = self.put(batch);
        match &done {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(path = %self.path, "telemetry can be written again");
                }
                self.flush_at.get_or_insert_with(|| Instant::now() + self.flush_interval);
            }
            Err(WriteError::Failed(why)) if !std::mem::replace(&mut self.failing, true) => {
                tracing::error!(path = %self.path, error = %why, "telemetry cannot be written; senders try again");
            }
            Err(_) => {}
        }
        done
    }

    fn deadline(&self) -> Option<Instant> {
        self.flush_at
    }

    fn flush(&mut self) {
        self.flush_at = None;
        let log =
            |why: io::Error| tracing::error!(path = %self.path, error = %why, "cannot force a file to disk");
        match &mut self.target {
            Target::One(output) => output.sync().unwrap_or_else(log),
            Target::Groups(groups) => groups.all().for_each(|output| output.sync().unwrap_or_else(log)),
        }
    }
}
