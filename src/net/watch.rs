//! Files that are followed while the agent runs: certificates, keys, credentials.
//!
//! Promises: content is compared, not dates, so a Kubernetes symlink swap, an editor's rename and a rewrite within
//! one second are all seen; a new content that cannot be used leaves the old one in use, is logged and counted
//! once, and is tried again at every look.
//!
//! Costs: one look at the clock a use; a read of the files when a look is due. No thread, no file descriptor.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounterVec, Opts};
use sha2::{Digest, Sha256};

use crate::pipeline::StartError;
use crate::telemetry::Metrics;

/// Watches the content of files, lazily: whoever uses what they hold asks whether it is time to look.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What the files are for, in logs and metrics.
    what: &'static str,
    files: Vec<(&'static str, String)>,
    every: Option<Duration>,
    start: Instant,
    /// Nanoseconds after `start` at which the next look is due.
    due: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The content in use.
    used: [u8; 32],
    /// The content that was last found to be unusable.
    refused: Option<[u8; 32]>,
}

/// No certificate bundle or password file in use is larger; a path that leads to something else must not fill
/// the memory.
const MAX_FILE: u64 = 16 << 20;

static RELOADS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Changed certificate, key and credential files that were taken over.";
    IntCounterVec::new(Opts::new("tidegate_file_reloads", help), &["what"]).ok()
});

static FAILURES: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help =
        "Changed certificate, key and credential files that could not be used; the old ones stay in use.";
    IntCounterVec::new(Opts::new("tidegate_file_reload_failures", help), &["what"]).ok()
});

/// Puts the counters of reloads into the agent's metrics. Called once at the start; again does nothing.
pub fn register_metrics(metrics: &Metrics) {
    for counter in [&*RELOADS, &*FAILURES].into_iter().flatten() {
        // Registered already is fine.
        let _ = metrics.add(Box::new(counter.clone()));
    }
}

impl Watch {
    /// A watch over the files (config key and path) that are not empty paths.
    pub(crate) fn new(what: &'static str, files: &[(&'static str, &str)], every: Option<Duration>) -> Self {
        let named = files.iter().filter(|(_, path)| !path.is_empty());
        let files: Vec<_> = named.map(|(key, path)| (*key, (*path).to_owned())).collect();
        let every = every.filter(|_| !files.is_empty());
        let due = AtomicU64::new(every.map_or(u64::MAX, nanos));
        let watch = Watch { what, files, every, start: Instant::now(), due, seen: Mutex::default() };
        if every.is_some() {
            watch.seen.lock().unwrap_or_else(PoisonError::into_inner).used = watch.digest();
        }
        watch
    }

    /// If a look is due and the files have changed, takes them over by `load` and `install`.
    pub(crate) fn poll<T>(&self, load: impl FnOnce() -> Result<T, StartError>, install: impl FnOnce(T)) {
        let Some(every) = self.every else { return };
        let now = nanos(self.start.elapsed());
        let due = self.due.load(Ordering::Relaxed);
        let next = now.saturating_add(nanos(every));
        // One of several concurrent users looks.
        if now < due || self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before loading: a change in between is found by the next look.
        let digest = self.digest();
        if seen.used == digest {
            return;
        }
        let files = || self.files.iter().map(|(_, path)| path.as_str()).collect::<Vec<_>>().join(", ");
        match load() {
            Ok(new) => {
                install(new);
                *seen = Seen { used: digest, refused: None };
                RELOADS.iter().for_each(|c| c.with_label_values(&[self.what]).inc());
                tracing::info!(what = self.what, files = files(), "files have changed and are in use now");
            }
            Err(error) if seen.refused != Some(digest) => {
                seen.refused = Some(digest);
                FAILURES.iter().for_each(|c| c.with_label_values(&[self.what]).inc());
                let (what, files) = (self.what, files());
                tracing::error!(what, files, %error, "files have changed but cannot be used; the old ones stay");
            }
            Err(_) => {}
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (key, path) in &self.files {
            let content = read(key, path).map_err(|e| e.to_string());
            // The length keeps two files from being mistaken for each other's continuation.
            let (tag, bytes) = match &content {
                Ok(bytes) => (b'+', bytes.as_slice()),
                Err(why) => (b'-', why.as_bytes()),
            };
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }
}

/// Reads the file that the config names under `key`.
///
/// # Errors
/// Key, path and what the system says.
pub(crate) fn read(key: &str, path: &str) -> Result<Vec<u8>, StartError> {
    let fail = |e: std::io::Error| StartError::new(format!("cannot read {key} \"{path}\": {e}"));
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut content = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut content).map_err(fail)?;
    Ok(content)
}

/// Reads a file of text; see [`read`].
///
/// # Errors
/// As [`read`]; also when it is not UTF-8.
pub(crate) fn read_text(key: &str, path: &str) -> Result<String, StartError> {
    String::from_utf8(read(key, path)?).map_err(|_| StartError::new(format!("{key} \"{path}\" is not UTF-8")))
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_followed_and_unusable_ones_are_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f").to_str().unwrap().to_owned();
        std::fs::write(&path, "one").unwrap();
        let watch = Watch::new("followed", &[("file", &path), ("other", "")], Some(Duration::from_nanos(1)));
        let mut value = "one".to_owned();
        let mut loads = 0;
        let mut poll = |value: &mut String| {
            let load = || {
                loads += 1;
                let text = read_text("file", &path)?;
                if text == "bad" { Err(StartError::new("bad")) } else { Ok(text) }
            };
            watch.poll(load, |new| *value = new);
            loads
        };
        assert_eq!(poll(&mut value), 0, "loads without a change");
        std::fs::write(&path, "two").unwrap();
        assert_eq!((poll(&mut value), value.as_str()), (1, "two"));
        let failures = || FAILURES.as_ref().unwrap().with_label_values(&["followed"]).get();
        std::fs::write(&path, "bad").unwrap();
        assert_eq!((poll(&mut value), value.as_str(), failures()), (2, "two", 1));
        assert_eq!((poll(&mut value), failures()), (3, 1), "tried again, counted once");
        std::fs::remove_file(&path).unwrap();
        assert_eq!((poll(&mut value), value.as_str(), failures()), (4, "two", 2));
        std::fs::write(&path, "three").unwrap();
        assert_eq!((poll(&mut value), value.as_str()), (5, "three"));
        assert_eq!(RELOADS.as_ref().unwrap().with_label_values(&["followed"]).get(), 2);
    }

    #[test]
    fn without_an_interval_nothing_is_read() {
        let watch = Watch::new("never", &[("file", "/nonexistent")], None);
        watch.poll(|| -> Result<(), _> { panic!("loaded") }, |()| ());
    }
}
