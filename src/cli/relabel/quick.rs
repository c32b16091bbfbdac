//! The quick form of an item: `{"labels": {"resource.a": "b", "c": "d", "__name__": "up"}, "signal": "metrics"}`.

use serde_json::{Map, Value as Json, json};

use crate::pdata::Signal;
use crate::pdata::json::{Limits, decode};

const SPAN_KINDS: [&str; 5] = ["internal", "server", "client", "producer", "consumer"];
const METRIC_TYPES: [(&str, &str); 5] = [
    ("gauge", "gauge"),
    ("sum", "sum"),
    ("histogram", "histogram"),
    ("exponential_histogram", "exponentialHistogram"),
    ("summary", "summary"),
];

/// Labels that stand for something else than an attribute.
#[derive(Default)]
struct Special {
    name: Option<String>,
    kind: Option<String>,
    severity: Option<String>,
    tenant: Option<String>,
}

/// Makes a request of one item: its signal, its tenant, its bytes.
///
/// # Errors
/// What cannot be a label, or has no meaning for the signal.
pub(super) fn read(whole: &Json) -> Result<(Signal, Option<String>, Vec<u8>), String> {
    let labels = whole.get("labels").and_then(Json::as_object).ok_or("labels: expected an object")?;
    let mut special = Special::default();
    let [mut resource, mut scope, mut item] = [const { Vec::new() }; 3];
    for (name, value) in labels {
        let place = match name.as_str() {
            "__name__" => &mut special.name,
            "__kind__" => &mut special.kind,
            "__severity__" => &mut special.severity,
            "__tenant__" => &mut special.tenant,
            _ if name.starts_with("__tmp") => {
                return Err(format!("labels.{name}: only rules set labels that begin with \"__tmp\""));
            }
            _ => {
                let (list, key) = match (name.strip_prefix("resource."), name.strip_prefix("scope.")) {
                    (Some(key), _) => (&mut resource, key),
                    (_, Some(key)) => (&mut scope, key),
                    _ => (&mut item, name.as_str()),
                };
                list.extend(attribute(name, key, value)?);
                continue;
            }
        };
        let text = value.as_str().ok_or_else(|| format!("labels.{name}: expected a string"))?;
        *place = Some(text.to_owned());
    }
    let signal = signal(whole, &special)?;
    let (resource, scope) = (json!({"attributes": resource}), json!({"attributes": scope}));
    let request = match signal {
        Signal::Traces => {
            let kind = special.kind.as_deref().map(|kind| SPAN_KINDS.iter().position(|known| *known == kind));
            let kind = match kind {
                Some(None) => {
                    return Err(format!(
                        "labels.__kind__: a span's kind is one of {}",
                        SPAN_KINDS.join(", ")
                    ));
                }
                kind => kind.flatten().map_or(0, |at| at + 1),
            };
            let span = json!({"name": special.name, "kind": kind, "attributes": item});
            json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [span]}]}]})
        }
        Signal::Metrics => {
            let kind = special.kind.as_deref().unwrap_or("gauge");
            let known: Vec<&str> = METRIC_TYPES.iter().map(|(word, _)| *word).collect();
            let (_, field) = METRIC_TYPES
                .iter()
                .find(|(word, _)| *word == kind)
                .ok_or_else(|| format!("labels.__kind__: a metric's type is one of {}", known.join(", ")))?;
            let mut metric = Map::new();
            metric.insert("name".to_owned(), special.name.into());
            metric.insert((*field).to_owned(), json!({"dataPoints": [{"attributes": item}]}));
            json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": scope, "metrics": [metric]}]}]})
        }
        Signal::Logs => {
            let log =
                json!({"eventName": special.name, "severityText": special.severity, "attributes": item});
            json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": [log]}]}]})
        }
    };
    let request =
        decode(signal, request.to_string().as_bytes(), Limits::default()).map_err(|why| why.to_string())?;
    Ok((signal, special.tenant, request))
}

/// The signal that is written, else the one that has such labels.
fn signal(whole: &Json, special: &Special) -> Result<Signal, String> {
    let signal = match whole.get("signal") {
        Some(word) => {
            let known = Signal::ALL.into_iter().find(|signal| word.as_str() == Some(signal.name()));
            known.ok_or("signal: expected \"traces\", \"metrics\" or \"logs\"")?
        }
        None if special.kind.as_deref().is_some_and(|kind| SPAN_KINDS.contains(&kind)) => Signal::Traces,
        None if special.severity.is_some() => Signal::Logs,
        None if special.kind.is_some() || special.name.is_some() => Signal::Metrics,
        None => Signal::Logs,
    };
    match signal {
        Signal::Logs if special.kind.is_some() => Err("labels.__kind__: a log record has none".to_owned()),
        Signal::Traces | Signal::Metrics if special.severity.is_some() => {
            Err("labels.__severity__: only log records have one".to_owned())
        }
        signal => Ok(signal),
    }
}

/// An attribute in OTLP/JSON; none for null.
fn attribute(name: &str, key: &str, value: &Json) -> Result<Option<Json>, String> {
    let value = match value {
        Json::Null => return Ok(None),
        Json::String(text) => json!({"stringValue": text}),
        Json::Bool(truth) => json!({"boolValue": truth}),
        Json::Number(number) if number.is_i64() => json!({"intValue": number.to_string()}),
        Json::Number(number) => json!({"doubleValue": number}),
        _ => return Err(format!("labels.{name}: expected a string, a number or a boolean")),
    };
    Ok(Some(json!({"key": key, "value": value})))
}
