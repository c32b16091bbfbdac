//! What environment variables say: OpenTelemetry's own, and those that Kubernetes' Downward API fills.

use super::config::{EnvConfig, KubernetesConfig};
use super::{Findings, Found, Place};

/// The variable that OpenTelemetry names, and its name of old.
const VARIABLES: [&str; 2] = ["OTEL_RESOURCE_ATTRIBUTES", "OTEL_RESOURCE"];

/// The attributes of the agent's own pod and the variables they are taken from.
const POD: [(&str, &str); 3] = [
    ("k8s.pod.name", "K8S_POD_NAME"),
    ("k8s.pod.uid", "K8S_POD_UID"),
    ("k8s.namespace.name", "K8S_NAMESPACE_NAME"),
];

/// The detector `env`. Without the variable there is nothing to find, and nothing missing.
pub(super) fn detect(config: &EnvConfig, place: &Place) -> Findings {
    let Some((name, text)) = VARIABLES.iter().find_map(|name| Some((*name, place.variable(name)?))) else {
        return Findings::default();
    };
    match parse(&text) {
        Ok(mut found) => {
            if let Some(allowed) = &config.allow_list {
                found.retain(|f| allowed.contains(&f.key));
            }
            Findings { found, missing: Vec::new() }
        }
        Err(why) => {
            Findings { found: Vec::new(), missing: vec![format!("{name}: invalid resource format: {why}")] }
        }
    }
}

/// The detectors `k8s_api` and `k8snode`.
pub(super) fn kubernetes(config: &KubernetesConfig, place: &Place) -> Findings {
    let mut findings = Findings::default();
    let node = ("k8s.node.name", config.node_from_env_var.as_str());
    for (key, variable) in [node].into_iter().chain(POD) {
        if !config.resource_attributes.on(key) {
            continue;
        }
        match place.variable(variable) {
            Some(value) => findings.found.push(Found::text(key, value)),
            None => findings.missing.push(format!("{key}: the environment variable {variable} is not set")),
        }
    }
    findings
}

/// Reads `key=value,key=value`; values are percent-encoded. Of a key that stands twice the last value counts.
fn parse(text: &str) -> Result<Vec<Found>, String> {
    let mut out: Vec<Found> = Vec::new();
    let text = text.trim().trim_end_matches(',');
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("\"{}\" has no value", pair.trim()))?;
        let key = decode(key.trim())?;
        if key.is_empty() {
            return Err(format!("\"{}\" has no key", pair.trim()));
        }
        let found = Found::text(&key, decode(value.trim())?);
        match out.iter_mut().find(|known| known.key == key) {
            Some(known) => *known = found,
            None => out.push(found),
        }
    }
    Ok(out)
}

/// Replaces `%41` by `A`.
fn decode(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" is not percent-encoded text");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
        out.push((high << 4 | low) as u8);
    }
    String::from_utf8(out).map_err(|_| wrong())
}
