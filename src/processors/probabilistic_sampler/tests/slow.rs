//! The sampler once more, with decoded items, strings and no thought of time.

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::super::{AttributeSource, ProbabilisticSamplerConfig, SamplerMode};
use super::{attribute, text};

const ALL: u128 = 1 << 56;

/// What an item says: hex digits, `None` where it says nothing; or that it makes no sense.
type Says = Option<(Option<String>, Option<String>)>;

/// The span as it is kept, if it is.
pub(super) fn span(config: &ProbabilisticSamplerConfig, span: &Span) -> Option<Span> {
    let priority = match value(&span.attributes, "sampling.priority") {
        Some(Any::IntValue(0)) => Some(0.0),
        Some(Any::IntValue(n)) if *n > 0 => Some(100.0),
        Some(Any::DoubleValue(0.0)) => Some(0.0),
        Some(Any::DoubleValue(n)) if *n > 0.0 => Some(100.0),
        Some(Any::StringValue(s)) => match s.parse::<f64>() {
            Ok(0.0) => Some(0.0),
            Ok(n) if n > 0.0 => Some(100.0),
            _ => None,
        },
        _ => None,
    };
    let says = read_state(&span.trace_state);
    let told = decide(config, usable(&span.trace_id), None, &says, priority)?;
    let mut out = span.clone();
    if says.is_some() && Some(&told) != says.as_ref() {
        out.trace_state = write_state(&span.trace_state, &told);
    }
    Some(out)
}

/// The log record as it is kept, if it is.
pub(super) fn record(config: &ProbabilisticSamplerConfig, record: &LogRecord) -> Option<LogRecord> {
    let string = |key: &str| match value(&record.attributes, key) {
        Some(Any::StringValue(s)) if !s.is_empty() => Some(s.clone()),
        _ => None,
    };
    let (threshold, randomness) = (string("sampling.threshold"), string("sampling.randomness"));
    let good = threshold.as_ref().is_none_or(|t| is_hex(t, 1..=14))
        && randomness.as_ref().is_none_or(|r| is_hex(r, 14..=14));
    let says = good.then_some((threshold, randomness));
    let priority = match value(&record.attributes, &config.sampling_priority) {
        _ if config.sampling_priority.is_empty() => None,
        Some(Any::IntValue(n)) if *n >= 0 => Some(*n as f64),
        _ => None,
    };
    let by_trace = config.attribute_source == AttributeSource::TraceId;
    let trace = usable(&record.trace_id).filter(|_| by_trace);
    let other = match value(&record.attributes, &config.from_attribute) {
        _ if config.from_attribute.is_empty() || trace.is_some() => None,
        Some(Any::IntValue(n)) => Some(n.to_string().into_bytes()),
        _ => None,
    };
    let told = decide(config, trace, other, &says, priority)?;
    let mut out = record.clone();
    if says.is_some() && Some(&told) != says.as_ref() {
        for (key, told) in [("sampling.threshold", told.0), ("sampling.randomness", told.1)] {
            match (told, out.attributes.iter().position(|a| a.key == key)) {
                (None, _) => out.attributes.retain(|a| a.key != key),
                (Some(told), Some(at)) => out.attributes[at] = attribute(key, text(&told)),
                (Some(told), None) => out.attributes.push(attribute(key, text(&told))),
            }
        }
    }
    Some(out)
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()
}

fn usable(id: &[u8]) -> Option<Vec<u8>> {
    (id.len() == 16 && id.iter().any(|b| *b != 0)).then(|| id.to_vec())
}

fn decide(
    config: &ProbabilisticSamplerConfig,
    trace: Option<Vec<u8>>,
    other: Option<Vec<u8>>,
    says: &Says,
    priority: Option<f64>,
) -> Option<(Option<String>, Option<String>)> {
    let nothing = (None, None);
    let (said_threshold, said_randomness) = says.as_ref().unwrap_or(&nothing);
    let before = said_threshold.as_ref().map(|t| u128::from_str_radix(&format!("{t:0<14}"), 16).unwrap());
    let explicit = said_randomness.as_ref().map(|r| u128::from_str_radix(r, 16).unwrap());
    let hashing = matches!(config.mode, SamplerMode::HashSeed | SamplerMode::Unset);
    let hash = |data: &Vec<u8>| hash(config.hash_seed, data);
    let (randomness, hashed) = if hashing {
        (trace.as_ref().or(other.as_ref()).map(hash), true)
    } else if says.is_none() {
        (None, false)
    } else if explicit.is_some() {
        (explicit, false)
    } else if let Some(id) = &trace {
        (Some(id[9..].iter().fold(0, |n, b| n << 8 | u128::from(*b))), false)
    } else {
        (other.as_ref().map(hash), true)
    };
    // About which randomness the threshold that came speaks.
    let related = match randomness {
        Some(r) if hashed => explicit == Some(r) || (explicit.is_none() && before.is_none()),
        _ => true,
    };
    let impossible = related && before.is_some() && randomness.is_some() && before > randomness;
    let usable_before = before.filter(|_| related && !impossible);
    let f32_ratio = (f64::from(config.sampling_percentage as f32) / 100.0).min(1.0);
    let own = match priority {
        Some(0.0) => ALL,
        Some(p) => threshold((p / 100.0).min(1.0), config.sampling_precision),
        None if hashing => {
            let kept = ((config.sampling_percentage as f32).min(100.0) * 163.84f32) as u128;
            ((16384 - kept) << 42).max(usable_before.unwrap_or(0))
        }
        None if config.mode == SamplerMode::Equalizing => {
            threshold(f32_ratio, config.sampling_precision).max(usable_before.unwrap_or(0))
        }
        None => {
            let before = usable_before.unwrap_or(0);
            let part = (ALL - before) as f64 / ALL as f64;
            threshold(f32_ratio * part, config.sampling_precision).max(before)
        }
    };
    if own >= ALL {
        return None;
    }
    let undecided = randomness.is_none() || impossible && !hashing;
    let kept = if undecided { own == 0 || !config.fail_closed } else { randomness.unwrap() >= own };
    if !kept {
        return None;
    }
    Some(if impossible {
        (None, said_randomness.clone())
    } else if randomness.is_none() {
        (said_threshold.clone(), said_randomness.clone())
    } else if !related {
        (said_threshold.clone().filter(|_| own == 0), said_randomness.clone())
    } else if before.is_some_and(|b| b >= own) {
        // Untouched, as it was written, unless its randomness is new.
        let new = hashed.then(|| format!("{:014x}", randomness.unwrap()));
        (said_threshold.clone(), said_randomness.clone().or(new))
    } else {
        let digits = format!("{own:014x}");
        let digits = digits.trim_end_matches('0');
        let new = hashed.then(|| format!("{:014x}", randomness.unwrap()));
        (Some(if digits.is_empty() { "0" } else { digits }.to_owned()), said_randomness.clone().or(new))
    })
}

/// The threshold for a part of 1: `precision` digits behind those that are all `f` or all `0`.
fn threshold(part: f64, precision: u32) -> u128 {
    if part < 1.0 / ALL as f64 {
        return ALL;
    }
    let exact = ALL - (part * ALL as f64).round() as u128;
    let text = format!("{exact:014x}");
    let leading = |digit: char| text.chars().take_while(|c| *c == digit).count();
    let digits = (precision as usize + leading('f').max(leading('0'))).min(14);
    let unit = 16u128.pow(14 - digits as u32);
    (exact + unit / 2) / unit * unit
}

fn hash(seed: u32, data: &Vec<u8>) -> u128 {
    let mut hash: u64 = 2_166_136_261;
    for byte in seed.to_le_bytes().iter().chain(data) {
        hash = ((hash ^ u64::from(*byte)) * 16_777_619) % (1 << 32);
    }
    let (high, bucket) = (u128::from(hash / (1 << 18)), u128::from(hash % (1 << 14)));
    (16383 - bucket) * (1 << 42) + (high ^ (high * 1024)) * (1 << 14) + bucket
}

fn is_hex(text: &str, len: std::ops::RangeInclusive<usize>) -> bool {
    len.contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn entries(state: &str) -> Vec<&str> {
    state.split(',').map(str::trim).filter(|m| !m.is_empty()).collect()
}

fn read_state(state: &str) -> Says {
    let own: Vec<&str> = entries(state).iter().filter_map(|m| m.strip_prefix("ot=")).collect();
    if own.len() > 1 || own.iter().any(|v| v.len() > 256) {
        return None;
    }
    let (mut threshold, mut randomness) = (None, None);
    for part in own.iter().flat_map(|v| v.split(';')).filter(|p| !p.is_empty()) {
        let (key, value) = part.split_once(':')?;
        let known = match key {
            "th" if is_hex(value, 1..=14) => threshold.replace(value.to_owned()),
            "rv" if is_hex(value, 14..=14) => randomness.replace(value.to_owned()),
            "th" | "rv" => return None,
            _ => None,
        };
        if known.is_some() {
            return None;
        }
    }
    Some((threshold, randomness))
}

fn write_state(state: &str, (threshold, randomness): &(Option<String>, Option<String>)) -> String {
    let mut own: Vec<String> = Vec::new();
    own.extend(threshold.as_ref().map(|t| {
        let t = t.to_ascii_lowercase();
        let t = t.trim_end_matches('0');
        format!("th:{}", if t.is_empty() { "0" } else { t })
    }));
    own.extend(randomness.as_ref().map(|r| format!("rv:{}", r.to_ascii_lowercase())));
    let mut others = Vec::new();
    for entry in entries(state) {
        match entry.strip_prefix("ot=") {
            Some(value) => {
                let kept = |p: &&str| !p.is_empty() && !p.starts_with("th:") && !p.starts_with("rv:");
                own.extend(value.split(';').filter(kept).map(str::to_owned));
            }
            None => others.push(entry.to_owned()),
        }
    }
    if !own.is_empty() {
        others.insert(0, format!("ot={}", own.join(";")));
    }
    others.join(",")
}
