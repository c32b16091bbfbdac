//! The `probabilistic_sampler` processor: keeps a part of all traces, or of all log records.
//!
//! What it promises
//!
//! * The same trace has the same outcome in every batch, in every agent with the same settings, and in the Collector.
//! * What is kept says how much it stands for: `ot=th:…` in a span's tracestate, `sampling.threshold` at a log record,
//!   so that counts can be scaled up. What says so untruly is corrected, never made worse.
//! * Every item that goes is counted, with the source of the randomness that decided.
//!
//! What it costs: a hash or a subtraction an item; what is kept and told so is copied, as by every edit. Nothing is
//! allocated for an item.

mod threshold;
mod tracestate;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use threshold::{DIGITS, NEVER, hashed, of_buckets, of_probability, of_trace, probability};
use tracestate::{Known, Malformed};

use crate::components::{BuildError, ComponentConfig};
use crate::config::{Cx, Node};
use crate::pdata::Signal;
use crate::pdata::wire::{Value, WireError};
use crate::pipeline::{BuildContext, Stage};
use crate::processors::edit::{Edit, Facts, Fate, Level, Levels, Message, Rewrite, Scalar, StepCx};
use crate::telemetry::{Counter, Metrics, dropped};
use crate::{config, config_enum};

config_enum! {
    /// How the decision is made.
    pub enum SamplerMode {
        /// By a hash of the trace id and a seed, in 16384 steps.
        HashSeed = "hash_seed",
        /// By OpenTelemetry's threshold sampling: the percentage is of what arrives, whatever was sampled before.
        Proportional = "proportional",
        /// By OpenTelemetry's threshold sampling: the percentage is of what there was before any sampling.
        Equalizing = "equalizing",
        /// As `hash_seed`.
        Unset = "",
    }
}

config_enum! {
    /// What a log record's randomness is taken from.
    pub enum AttributeSource {
        /// The trace id, or `from_attribute` where there is none.
        TraceId = "traceID",
        /// `from_attribute` only.
        Record = "record",
    }
}

config! {
    /// Keeps a part of all traces or log records, chosen by the trace id: whole traces are kept or dropped.
    pub struct ProbabilisticSamplerConfig {
        /// How many percent are kept. 0 drops everything, 100 and more keep everything.
        pub sampling_percentage: f64 = 0.0,
        /// For the hash of `hash_seed` and of `from_attribute`. The same in all agents that see parts of the same
        /// traces; another one in a second tier, whose decisions shall not depend on the first's.
        pub hash_seed: u32 = 0,
        /// `hash_seed`, `proportional` or `equalizing`.
        pub mode: SamplerMode = SamplerMode::Unset,
        /// Whether items are dropped for which nothing can decide: no trace id, or a tracestate that makes no sense.
        pub fail_closed: bool = true,
        /// How many hex digits thresholds have, 1 to 14.
        pub sampling_precision: u32 = 4,
        /// For logs: what decides. `traceID`, or `from_attribute` where there is none; `record`: `from_attribute` only.
        pub attribute_source: AttributeSource = AttributeSource::TraceId,
        /// For logs: the attribute whose hash decides: text, bytes, a number or a boolean.
        pub from_attribute: String = String::new(),
        /// For logs: the attribute that says of a record with how many percent it is kept, instead of
        /// `sampling_percentage`.
        pub sampling_priority: String = String::new(),
    }
    validate = ProbabilisticSamplerConfig::check;
}

/// The attribute by which a span asks to be kept (above 0) or dropped (0).
const PRIORITY: &[u8] = b"sampling.priority";
const THRESHOLD: &[u8] = b"sampling.threshold";
const RANDOMNESS: &[u8] = b"sampling.randomness";

/// The fields of a span that are looked at.
const SPAN_TRACE_ID: u32 = 1;
const SPAN_TRACE_STATE: u32 = 3;
/// That of a log record.
const LOG_TRACE_ID: u32 = 9;

/// The processor's rules.
struct Sampler {
    signal: Signal,
    mode: Mode,
    seed: u32,
    fail_closed: bool,
    precision: u32,
    by_trace: bool,
    from_attribute: Vec<u8>,
    priority: Vec<u8>,
    counters: Arc<Counters>,
    metrics: Arc<Metrics>,
    id: String,
}

/// How the threshold is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Hash {
        threshold: u64,
    },
    Equalizing {
        threshold: u64,
    },
    /// `alone`: the threshold of what was not sampled before.
    Proportional {
        ratio: f64,
        alone: u64,
    },
}

/// Where the randomness, and so the decision, came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    TraceIdHash,
    TraceIdW3c,
    SamplingRandomness,
    SamplingPriority,
    MissingRandomness,
    Attribute,
}

const POLICIES: usize = 6;

/// Items by policy, dropped and kept.
struct Counters([[Counter; 2]; POLICIES]);

/// What is counted of one batch, told when the batch is done with.
struct Scratch {
    counters: Arc<Counters>,
    items: [[u64; 2]; POLICIES],
    text: Vec<u8>,
}

/// What an item asks for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Priority {
    Drop,
    Keep,
    Threshold(u64),
}

/// All that decides over an item.
#[derive(Debug, Clone, Copy)]
struct Item {
    known: Result<Known, Malformed>,
    trace: Option<u64>,
    /// The hash of the trace id or attribute, by policy.
    hash: Option<(Policy, u64)>,
    priority: Option<Priority>,
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    policy: Policy,
    /// `None`: dropped. What it is to say, else.
    kept: Option<Known>,
}

impl ComponentConfig for ProbabilisticSamplerConfig {}

impl ProbabilisticSamplerConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: String, hint: &str| {
            cx.within(key, |cx| match hint {
                "" => cx.error(node.pos_of(key), why),
                hint => cx.error_hint(node.pos_of(key), why, hint),
            });
        };
        let percentage = self.sampling_percentage;
        let hashing = matches!(self.mode, SamplerMode::HashSeed | SamplerMode::Unset);
        if !(percentage as f32).is_finite() {
            fail("sampling_percentage", format!("sampling rate is invalid: {percentage}%"), "");
        } else if percentage < 0.0 {
            fail("sampling_percentage", format!("sampling rate is negative: {percentage}%"), "");
        } else if percentage > 0.0 && hashing && of_buckets(percentage as f32).is_none() {
            let hint = "the mode hash_seed keeps at least one in 16384, 0.0062%; other modes keep less";
            fail("sampling_percentage", format!("sampling rate is too small: {percentage}%"), hint);
        } else if percentage > 0.0 && of_probability(self.ratio(), DIGITS).is_none() {
            fail("sampling_percentage", format!("sampling rate is too small: {percentage}%"), "");
        }
        match self.sampling_precision {
            0 => fail("sampling_precision", "invalid sampling precision: 0".to_owned(), "1 to 14 digits"),
            n if n > DIGITS => {
                let why = format!("sampling precision is too great, should be <= 14: {n}");
                fail("sampling_precision", why, "");
            }
            _ => {}
        }
        if self.attribute_source == AttributeSource::Record && self.from_attribute.is_empty() {
            let why = "attribute_source \"record\" needs from_attribute".to_owned();
            fail("attribute_source", why, "name the attribute that decides, such as log.record.uid");
        }
    }

    /// The percentage as a part of 1, in the precision that the Collector has.
    fn ratio(&self) -> f64 {
        (f64::from(self.sampling_percentage as f32) / 100.0).min(1.0)
    }

    fn compile(&self) -> Mode {
        let ratio = self.ratio();
        let threshold = || of_probability(ratio, self.sampling_precision).unwrap_or(NEVER);
        match self.mode {
            SamplerMode::HashSeed | SamplerMode::Unset => {
                Mode::Hash { threshold: of_buckets(self.sampling_percentage as f32).unwrap_or(NEVER) }
            }
            SamplerMode::Equalizing => Mode::Equalizing { threshold: threshold() },
            SamplerMode::Proportional => Mode::Proportional { ratio, alone: threshold() },
        }
    }
}

/// Compiles the processor.
///
/// # Errors
/// None: the config has been checked.
pub fn build(
    config: &ProbabilisticSamplerConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Stage, BuildError> {
    Ok(Stage::Edit(Edit::rules(Arc::new(Sampler::new(config, signal, cx)))))
}

impl Sampler {
    fn new(config: &ProbabilisticSamplerConfig, signal: Signal, cx: &BuildContext) -> Self {
        Sampler {
            signal,
            mode: config.compile(),
            seed: config.hash_seed,
            fail_closed: config.fail_closed,
            precision: config.sampling_precision,
            by_trace: signal != Signal::Logs || config.attribute_source == AttributeSource::TraceId,
            from_attribute: config.from_attribute.clone().into_bytes(),
            priority: config.sampling_priority.clone().into_bytes(),
            counters: Arc::new(Counters::new(&cx.metrics, signal, &config.from_attribute)),
            metrics: cx.metrics.clone(),
            id: cx.id.clone(),
        }
    }

    /// Reads what decides over a span or log record.
    fn look(&self, message: &Message<'_>, text: &mut Vec<u8>) -> Result<Item, WireError> {
        let bytes = |number| message.field(number)?.map_or(Ok(&[][..]), Value::bytes);
        let (id, known, priority) = match self.signal {
            Signal::Logs => (bytes(LOG_TRACE_ID)?, log_known(message)?, self.log_priority(message)?),
            _ => (bytes(SPAN_TRACE_ID)?, tracestate::read(bytes(SPAN_TRACE_STATE)?), span_priority(message)?),
        };
        let trace = if self.by_trace { of_trace(id) } else { None };
        let hash = match (trace, self.mode) {
            (Some(_), Mode::Hash { .. }) => Some((Policy::TraceIdHash, hashed(self.seed, id))),
            (None, _) if self.signal == Signal::Logs && !self.from_attribute.is_empty() => {
                self.attribute_hash(message, text)?.map(|hash| (Policy::Attribute, hash))
            }
            _ => None,
        };
        Ok(Item { known, trace, hash, priority })
    }

    /// The hash of the attribute that decides; `None` where it is absent, empty, a list or a map.
    fn attribute_hash(&self, message: &Message<'_>, text: &mut Vec<u8>) -> Result<Option<u64>, WireError> {
        use std::io::Write as _;
        let Some(any) = message.attribute(&self.from_attribute) else { return Ok(None) };
        let scalar = Scalar::read(any)?;
        text.clear();
        let data = match scalar {
            Scalar::Str(text) | Scalar::Bytes(text) => text,
            Scalar::Bool(true) => b"true",
            Scalar::Bool(false) => b"false",
            Scalar::Int(number) => {
                // Writing to memory does not fail.
                let _ = write!(text, "{number}");
                text.as_slice()
            }
            Scalar::Double(_) => {
                text.extend_from_slice(&scalar.text().unwrap_or_default());
                text.as_slice()
            }
            Scalar::Empty | Scalar::List | Scalar::Map => return Ok(None),
        };
        Ok((!data.is_empty()).then(|| hashed(self.seed, data)))
    }

    /// With how many percent a log record asks to be kept.
    fn log_priority(&self, message: &Message<'_>) -> Result<Option<Priority>, WireError> {
        if self.priority.is_empty() {
            return Ok(None);
        }
        let Some(any) = message.attribute(&self.priority) else { return Ok(None) };
        let percentage = match Scalar::read(any)? {
            Scalar::Int(number) => number as f64,
            Scalar::Double(number) => number,
            _ => return Ok(None),
        };
        Ok(match percentage {
            0.0 => Some(Priority::Drop),
            p if p >= 100.0 => Some(Priority::Keep),
            // Negative, too, and what is no number.
            p => of_probability(p / 100.0, self.precision).map(Priority::Threshold),
        })
    }

    fn decide(&self, item: &Item) -> Decision {
        let known = item.known.unwrap_or_default();
        let (source, randomness) = self.randomness(item);
        // Whether what the item says is about the randomness that decides here. A hash is one of its own.
        let hashed = matches!(source, Policy::TraceIdHash | Policy::Attribute);
        let same = !hashed || known == Known::default() || known.randomness == randomness;
        // An item below its own threshold should not have come: the threshold is a lie.
        let lie = same && known.threshold.zip(randomness).is_some_and(|(threshold, r)| threshold > r);
        let threshold = match item.priority {
            Some(Priority::Drop) => NEVER,
            Some(Priority::Keep) => 0,
            Some(Priority::Threshold(threshold)) => threshold,
            None => self.threshold(known.threshold.filter(|_| same && !lie)),
        };
        let policy = if item.priority.is_some() { Policy::SamplingPriority } else { source };
        let kept = match randomness.filter(|_| !lie || self.is_hashing()) {
            Some(randomness) => randomness >= threshold,
            None => threshold == 0 || threshold < NEVER && !self.fail_closed,
        };
        let told = match randomness {
            _ if lie => Known { threshold: None, ..known },
            None => known,
            Some(randomness) if same => Known {
                // What was sampled before cannot be taken back.
                threshold: Some(known.threshold.unwrap_or(0).max(threshold)),
                randomness: known.randomness.or(hashed.then_some(randomness)),
            },
            // Sampled by two kinds of randomness: there is no threshold for both, unless this one keeps everything.
            Some(_) => Known { threshold: known.threshold.filter(|_| threshold == 0), ..known },
        };
        Decision { policy, kept: kept.then_some(told) }
    }

    /// What decides, and where it comes from.
    fn randomness(&self, item: &Item) -> (Policy, Option<u64>) {
        let explicit = match item.known {
            _ if self.is_hashing() => None,
            // It would say what decides, if it made sense.
            Err(Malformed) => return (Policy::MissingRandomness, None),
            Ok(known) => known.randomness.map(|r| (Policy::SamplingRandomness, r)),
        };
        let trace = || item.trace.filter(|_| !self.is_hashing()).map(|r| (Policy::TraceIdW3c, r));
        match explicit.or_else(trace).or(item.hash) {
            Some((policy, randomness)) => (policy, Some(randomness)),
            None => (Policy::MissingRandomness, None),
        }
    }

    /// The threshold for an item that has been sampled by one before, or not.
    fn threshold(&self, before: Option<u64>) -> u64 {
        match (self.mode, before) {
            (Mode::Hash { threshold } | Mode::Equalizing { threshold }, _) => {
                threshold.max(before.unwrap_or(0))
            }
            (Mode::Proportional { alone, .. }, None | Some(0)) => alone,
            (Mode::Proportional { ratio, .. }, Some(before)) => {
                let product = of_probability(ratio * probability(before), self.precision);
                // Rounding must not take back what was sampled before.
                product.map_or(NEVER, |threshold| threshold.max(before))
            }
        }
    }

    fn is_hashing(&self) -> bool {
        matches!(self.mode, Mode::Hash { .. })
    }

    /// Writes what a span or log record is to say, if that is new.
    fn tell(&self, message: &mut Message<'_>, known: Known, text: &mut Vec<u8>) -> Result<(), WireError> {
        text.clear();
        if self.signal == Signal::Logs {
            set_text(message, THRESHOLD, text, known.threshold, threshold::put_threshold)?;
            return set_text(message, RANDOMNESS, text, known.randomness, threshold::put_randomness);
        }
        let state = message.field(SPAN_TRACE_STATE)?.map_or(Ok(&[][..]), Value::bytes)?;
        tracestate::write(state, known, text);
        if text.is_empty() {
            return message.clear_field(SPAN_TRACE_STATE);
        }
        message.set_field(SPAN_TRACE_STATE, Value::Bytes(text))
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").field("id", &self.id).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Rewrite for Sampler {
    fn levels(&self, _signal: Signal) -> Levels {
        Levels::ITEM
    }

    fn drops(&self) -> bool {
        true
    }

    fn scratch(&self, _facts: &Facts<'_>) -> Box<dyn Any> {
        Box::new(Scratch { counters: self.counters.clone(), items: Default::default(), text: Vec::new() })
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let Some(Scratch { items, text, .. }) = cx.scratch.downcast_mut::<Scratch>() else {
            return Ok(Fate::Keep);
        };
        let item = self.look(message, text)?;
        let Decision { policy, kept } = self.decide(&item);
        if let Some(known) = kept
            && item.known.is_ok_and(|before| before != known)
        {
            self.tell(message, known, text)?;
        }
        let of_policy = items.get_mut(policy as usize);
        if let Some(count) = of_policy.and_then(|counts| counts.get_mut(usize::from(kept.is_some()))) {
            *count += 1;
        }
        Ok(if kept.is_some() { Fate::Keep } else { Fate::Drop })
    }

    fn dropped(&self, items: usize) {
        dropped(&self.metrics, &self.id, self.signal, items, "sampled");
    }

    fn growth(&self, level: Level) -> usize {
        match (level, self.signal) {
            (Level::Item, Signal::Logs) => 72,
            (Level::Item, _) => 32,
            _ => 0,
        }
    }
}

impl Counters {
    fn new(metrics: &Metrics, signal: Signal, attribute: &str) -> Self {
        let what = if signal == Signal::Logs { "logs" } else { "traces" };
        let name = format!("otelcol_processor_probabilistic_sampler_count_{what}_sampled");
        let help = "Items by the source of the randomness that decided, and whether they were kept.";
        let policies = [
            "trace_id_hash",
            "trace_id_w3c",
            "sampling_randomness",
            "sampling_priority",
            "missing_randomness",
            attribute,
        ];
        Counters(policies.map(|policy| {
            ["false", "true"]
                .map(|sampled| metrics.series(&name, help, &[("policy", policy), ("sampled", sampled)]))
        }))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for (counters, items) in self.counters.0.iter().zip(self.items) {
            for (counter, items) in counters.iter().zip(items) {
                counter.add(items);
            }
        }
    }
}

/// Whether a span asks to be kept or dropped.
fn span_priority(message: &Message<'_>) -> Result<Option<Priority>, WireError> {
    let Some(any) = message.attribute(PRIORITY) else { return Ok(None) };
    let number = match Scalar::read(any)? {
        Scalar::Int(number) => number as f64,
        Scalar::Double(number) => number,
        Scalar::Str(text) => std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(f64::NAN),
        _ => return Ok(None),
    };
    Ok(match number {
        0.0 => Some(Priority::Drop),
        n if n > 0.0 => Some(Priority::Keep),
        _ => None,
    })
}

/// What a log record says about sampling.
fn log_known(message: &Message<'_>) -> Result<Result<Known, Malformed>, WireError> {
    let read =
        |key, parse: fn(&[u8]) -> Option<u64>| match message.attribute(key).map(Scalar::read).transpose()? {
            Some(Scalar::Str(text)) if !text.is_empty() => Ok(parse(text).map(Some).ok_or(Malformed)),
            _ => Ok(Ok(None)),
        };
    let threshold = read(THRESHOLD, threshold::parse_threshold)?;
    let randomness = read(RANDOMNESS, threshold::parse_randomness)?;
    Ok(threshold.and_then(|threshold| Ok(Known { threshold, randomness: randomness? })))
}

/// Sets an attribute to a number of at most 14 hex digits, or takes it out.
fn set_text(
    message: &mut Message<'_>,
    key: &[u8],
    text: &mut Vec<u8>,
    number: Option<u64>,
    put: fn(&mut Vec<u8>, u64),
) -> Result<(), WireError> {
    let Some(number) = number else {
        message.delete_attribute(key);
        return Ok(());
    };
    text.clear();
    // The head of a string, whose length follows from what is written.
    text.extend_from_slice(&[0x0a, 0]);
    put(text, number);
    let len = text.len().saturating_sub(2) as u8;
    if let Some(at) = text.get_mut(1) {
        *at = len;
    }
    message.set_attribute(key, text)
}
