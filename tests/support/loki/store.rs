//! What a Loki keeps of one tenant: streams of entries, and how much came lately.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use super::check::name_of;
use super::decode::{Entry, Refusal, Stream};
use super::{Labels, Limits};

/// One tenant.
#[derive(Default)]
pub struct Tenant {
    pub streams: BTreeMap<Labels, Kept>,
    /// Entries, each once.
    pub stored: usize,
    /// Entries that were there already.
    pub repeats: usize,
    bucket: Bucket,
}

/// One stream.
#[derive(Default)]
pub struct Kept {
    /// In the order of their arrival.
    pub entries: Vec<Entry>,
    newest: Option<i64>,
    by_time: HashMap<i64, Vec<usize>>,
    bucket: Bucket,
}

/// Bytes that may still come; filled up as time passes.
#[derive(Default)]
struct Bucket(Option<(f64, Instant)>);

impl Bucket {
    fn allow(&mut self, (rate, burst): (usize, usize), bytes: usize) -> bool {
        let (level, since) = self.0.unwrap_or((burst as f64, Instant::now()));
        let now = Instant::now();
        let level = (level + now.duration_since(since).as_secs_f64() * rate as f64).min(burst as f64);
        let allowed = level >= bytes as f64;
        self.0 = Some((if allowed { level - bytes as f64 } else { level }, now));
        allowed
    }
}

impl Tenant {
    /// Stores what has passed the checks.
    ///
    /// # Errors
    /// The rate of the tenant, for everything; else what the last stream with an error had. The rest is stored.
    pub fn store(&mut self, limits: &Limits, name: &str, streams: &[Stream]) -> Result<(), Refusal> {
        let bytes: usize = streams.iter().flat_map(|s| &s.entries).map(Entry::bytes).sum();
        let lines: usize = streams.iter().map(|s| s.entries.len()).sum();
        if !self.bucket.allow(limits.rate, bytes) {
            let message = format!(
                "Ingestion rate limit exceeded for user {name} (limit: {} bytes/sec) while attempting to ingest \
                 '{lines}' lines totaling '{bytes}' bytes",
                limits.rate.0
            );
            return Err(Refusal::new(429, message));
        }
        let mut last = Ok(());
        for stream in streams {
            let active = self.streams.len();
            if active >= limits.streams && !self.streams.contains_key(&stream.labels) {
                let message = format!(
                    "Maximum active stream limit exceeded when trying to create stream {}, user: '{name}'",
                    name_of(&stream.labels)
                );
                last = Err(Refusal::new(429, message));
                continue;
            }
            let kept = self.streams.entry(stream.labels.clone()).or_default();
            let before = kept.entries.len();
            let (repeats, failed) = kept.push(limits, stream);
            self.stored += kept.entries.len() - before;
            self.repeats += repeats;
            if let Some((status, _)) = failed.last() {
                let reasons: String = failed.iter().map(|(_, why)| format!("{why},\n")).collect();
                let message = format!(
                    "{reasons}user '{name}', total ignored: {} out of {} for stream: {}",
                    failed.len(),
                    stream.entries.len(),
                    name_of(&stream.labels)
                );
                last = Err(Refusal::new(*status, message));
            }
        }
        last
    }
}

impl Kept {
    /// How many were there already, and status and reason of those that were not taken.
    fn push(&mut self, limits: &Limits, stream: &Stream) -> (usize, Vec<(u16, String)>) {
        let (mut repeats, mut failed) = (0, Vec::new());
        let name = name_of(&stream.labels);
        let limited = |entry: &Entry| {
            let why = format!(
                "entry with timestamp {} ignored, reason: 'Per stream rate limit exceeded (limit: {} bytes/sec) \
                 while attempting to ingest for stream '{name}' totaling {} bytes'",
                entry.time,
                limits.stream_rate.0,
                entry.bytes()
            );
            (429, why)
        };
        // Over the rate as a whole, nothing of it counts, and nothing of it is stored.
        let window = limits.window.as_nanos() as i64;
        let mut newest = self.newest;
        let (mut good, mut fresh) = (Vec::new(), HashSet::new());
        for entry in &stream.entries {
            if self.has(entry) || fresh.contains(entry) {
                repeats += 1;
                continue;
            }
            if !limits.whole_stream && !self.bucket.allow(limits.stream_rate, entry.bytes()) {
                failed.push(limited(entry));
                continue;
            }
            if let Some(oldest) = newest.map(|n| n.saturating_sub(window)).filter(|o| entry.time < *o) {
                let why = format!(
                    "entry with timestamp {0} ignored, reason: 'entry too far behind, entry timestamp is: {0}, \
                     oldest acceptable timestamp is: {oldest}'",
                    entry.time
                );
                failed.push((400, why));
                continue;
            }
            newest = newest.max(Some(entry.time));
            good.push(entry);
            fresh.insert(entry);
        }
        let bytes = good.iter().map(|entry: &&Entry| entry.bytes()).sum();
        if limits.whole_stream && !self.bucket.allow(limits.stream_rate, bytes) {
            failed = good.into_iter().map(limited).collect();
            return (repeats, failed);
        }
        self.newest = newest;
        for entry in good {
            self.by_time.entry(entry.time).or_default().push(self.entries.len());
            self.entries.push(entry.clone());
        }
        (repeats, failed)
    }

    fn has(&self, entry: &Entry) -> bool {
        let at = self.by_time.get(&entry.time);
        at.into_iter().flatten().any(|n| self.entries[*n] == *entry)
    }
}
