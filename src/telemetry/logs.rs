//! The agent's own log: text or JSON lines, a level, and sampling of repeats.
//!
//! Sampling follows the Collector's: within a tick, the first `initial` lines of one message and level are
//! written, then every `thereafter`-th. Nothing is hidden silently: when a tick ends with lines left out, the
//! next line of that message says how many (`dropped_repeats`).
//!
//! Cost: a lock and one formatted line for what is logged; an atomic compare for what the level filters out.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value as Json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// How to log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The least severe level that is written.
    pub level: LevelFilter,
    /// JSON lines instead of text.
    pub json: bool,
    /// Sampling of repeats; `None` writes every line.
    pub sampling: Option<Sampling>,
    /// `stderr`, `stdout` or file paths; each gets every line.
    pub output_paths: Vec<String>,
    /// Fields on every line.
    pub initial_fields: BTreeMap<String, Json>,
    /// What describes this agent: the object `resource` of every JSON line.
    pub resource: BTreeMap<String, String>,
}

/// When repeats are left out.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// How long one count lasts.
    pub tick: Duration,
    /// How many lines of one message a tick starts with.
    pub initial: u64,
    /// After those, every how many-th is written; 0 writes none.
    pub thereafter: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            level: LevelFilter::INFO,
            json: false,
            sampling: Some(Sampling { tick: Duration::from_secs(10), initial: 10, thereafter: 100 }),
            output_paths: vec!["stderr".to_owned()],
            initial_fields: BTreeMap::new(),
            resource: BTreeMap::new(),
        }
    }
}

/// Sends the process's log where `settings` say. A second call changes nothing.
///
/// # Errors
/// When an output file cannot be opened.
pub fn init(settings: LogSettings) -> io::Result<()> {
    let outputs =
        settings.output_paths.iter().map(|path| Output::open(path)).collect::<io::Result<Vec<_>>>()?;
    let level = settings.level;
    let layer = Lines { settings, outputs: Mutex::new(outputs), seen: Mutex::default() };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(level));
    // Only tests start the agent more than once in a process; the first subscriber stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

enum Output {
    Stderr { color: bool },
    Stdout,
    File(File),
}

impl Output {
    fn open(path: &str) -> io::Result<Output> {
        match path {
            "stderr" => Ok(Output::Stderr { color: io::stderr().is_terminal() }),
            "stdout" => Ok(Output::Stdout),
            path => Ok(Output::File(OpenOptions::new().create(true).append(true).open(path)?)),
        }
    }

    /// A line that cannot be written has nowhere else to go.
    fn write(&mut self, line: &str) {
        let _ = match self {
            Output::Stderr { .. } => io::stderr().lock().write_all(line.as_bytes()),
            Output::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Output::File(file) => file.write_all(line.as_bytes()),
        };
    }
}

struct Lines {
    settings: LogSettings,
    outputs: Mutex<Vec<Output>>,
    seen: Mutex<HashMap<(Level, String), Repeats>>,
}

/// How often one message was seen in the current tick.
struct Repeats {
    since: Instant,
    count: u64,
    dropped: u64,
}

/// Whose messages keep their line breaks in text.
const MULTILINE: &str = "tidegate::exporters::debug";

/// How many different messages are counted at once; past that the counts start over.
const MAX_MESSAGES: usize = 1024;

impl Lines {
    /// Whether to write this line, and how many of its kind were left out since the last one written.
    fn sample(&self, level: Level, message: &str, now: Instant) -> Option<u64> {
        let Some(sampling) = self.settings.sampling else { return Some(0) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_MESSAGES {
            seen.clear();
        }
        let repeats =
            seen.entry((level, message.to_owned())).or_insert(Repeats { since: now, count: 0, dropped: 0 });
        if now.duration_since(repeats.since) >= sampling.tick {
            (repeats.since, repeats.count) = (now, 0);
        }
        repeats.count += 1;
        let past = repeats.count.saturating_sub(sampling.initial);
        if past == 0 || (sampling.thereafter > 0 && past.is_multiple_of(sampling.thereafter)) {
            Some(std::mem::take(&mut repeats.dropped))
        } else {
            repeats.dropped += 1;
            None
        }
    }

    fn render(&self, metadata: &Metadata<'_>, fields: &Fields, dropped: u64, color: bool) -> String {
        let mut all: Vec<(&str, Json)> =
            self.settings.initial_fields.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        all.extend(fields.fields.iter().map(|(k, v)| (k.as_str(), v.clone())));
        if dropped > 0 {
            all.push(("dropped_repeats", Json::from(dropped)));
        }
        let time = timestamp(SystemTime::now());
        let level = metadata.level().as_str();
        if self.settings.json {
            let mut line = Map::new();
            line.insert("level".to_owned(), Json::from(level.to_ascii_lowercase()));
            line.insert("ts".to_owned(), Json::from(time));
            line.insert("msg".to_owned(), Json::from(fields.message.as_str()));
            if !self.settings.resource.is_empty() {
                let pairs = self.settings.resource.iter().map(|(k, v)| (k.clone(), Json::from(v.as_str())));
                line.insert("resource".to_owned(), Json::Object(pairs.collect()));
            }
            line.extend(all.into_iter().map(|(k, v)| (k.to_owned(), v)));
            return format!("{}\n", Json::Object(line));
        }
        let mut line = time;
        let paint = match (color, *metadata.level()) {
            (false, _) => ("", ""),
            (_, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
            (_, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
            (_, Level::INFO) => ("\x1b[32m", "\x1b[0m"),
            _ => ("\x1b[2m", "\x1b[0m"),
        };
        let _ = write!(line, "\t{}{}{}", paint.0, level.to_ascii_lowercase(), paint.1);
        // What the debug exporter shows is meant to be read over several lines.
        if metadata.target().starts_with(MULTILINE) {
            let _ = write!(line, "\t{}", fields.message);
        } else {
            let _ = write!(line, "\t{}", one_line(&fields.message));
        }
        if !all.is_empty() {
            let object: Map<String, Json> = all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            let _ = write!(line, "\t{}", Json::Object(object));
        }
        line.push('\n');
        line
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let Some(dropped) = self.sample(*metadata.level(), &fields.message, Instant::now()) else { return };
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        for output in outputs.iter_mut() {
            let color = matches!(output, Output::Stderr { color: true });
            let line = self.render(metadata, &fields, dropped, color);
            output.write(&line);
        }
    }
}

/// An event's message and fields.
#[derive(Default)]
struct Fields {
    message: String,
    fields: Vec<(String, Json)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Json) {
        self.fields.push((field.name().to_owned(), value));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned()
        } else {
            self.put(field, Json::from(value))
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, Json::from(format!("{value:?}")));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Json::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Json::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Json::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Json::from(value));
    }
}

/// Text lines stay lines: what a peer wrote into a message cannot forge another.
fn one_line(text: &str) -> String {
    if text.contains(['\n', '\r', '\x1b']) { text.escape_debug().to_string() } else { text.to_owned() }
}

/// RFC 3339 in UTC with milliseconds.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let days = since.as_secs() / 86_400;
    let (hour, minute, second) =
        (since.as_secs() / 3600 % 24, since.as_secs() / 60 % 60, since.as_secs() % 60);
    // Civil date from days since the epoch, counting years from March so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(settings: LogSettings) -> Lines {
        Lines { settings, outputs: Mutex::default(), seen: Mutex::default() }
    }

    #[test]
    fn timestamps_are_civil_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096, "2024-02-29T12:34:56.000Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000Z"),
        ];
        for (secs, want) in cases {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(secs)), want);
        }
    }

    #[test]
    fn repeats_are_left_out_and_counted() {
        let sampling = Sampling { tick: Duration::from_secs(10), initial: 2, thereafter: 3 };
        let log = lines(LogSettings { sampling: Some(sampling), ..LogSettings::default() });
        let start = Instant::now();
        let seen: Vec<Option<u64>> = (0..9).map(|_| log.sample(Level::INFO, "m", start)).collect();
        assert_eq!(seen, [Some(0), Some(0), None, None, Some(2), None, None, Some(2), None]);
        assert_eq!(log.sample(Level::WARN, "m", start), Some(0), "another level counts apart");
        assert_eq!(log.sample(Level::INFO, "m", start + Duration::from_secs(10)), Some(1));
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        assert_eq!(one_line("a\nb"), "a\\nb");
        assert_eq!(one_line("plain"), "plain");
    }
}
