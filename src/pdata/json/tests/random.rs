//! Random requests against the generated types and their own JSON mapping, and bytes that are no requests.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pdata::Signal;
use crate::pdata::json::{Limits, decode, encode};
use crate::pdata::testgen::{
    arb_logs, arb_metrics, arb_request, arb_signal, arb_traces, assert_linear, mutate, scramble,
};

fn to_json(signal: Signal, request: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(signal, request, &mut out).unwrap();
    out
}

fn to_wire(signal: Signal, json: &[u8]) -> Vec<u8> {
    decode(signal, json, Limits::default()).unwrap()
}

/// Each mapping reads what the other wrote, and ours reads back exactly what it wrote.
fn agree<T: Message + Default + PartialEq + Serialize + DeserializeOwned>(signal: Signal, request: &T) {
    let wire = request.encode_to_vec();
    let json = to_json(signal, &wire);
    let back = to_wire(signal, &json);
    // Not byte for byte: prost writes a oneof where its first member would stand.
    assert_eq!(canonical(signal, &back).as_ref(), Some(&wire), "we read ours");
    assert_eq!(back.len(), wire.len(), "defaults omitted, lengths minimal");
    let mut tree = serde_json::from_slice(&json).unwrap();
    spell_out(&mut tree);
    let theirs: T = serde_json::from_value(tree).unwrap();
    assert_eq!(theirs.encode_to_vec(), wire, "they read ours");
    let ours = to_wire(signal, &serde_json::to_vec(request).unwrap());
    assert_eq!(canonical(signal, &ours), Some(wire), "we read theirs");
}

/// Adds the defaults that the generated types cannot do without, though the mapping lets a writer omit them:
/// `key` of attributes, `values` of lists and all of an entity.
fn spell_out(tree: &mut serde_json::Value) {
    match tree {
        serde_json::Value::Array(items) => items.iter_mut().for_each(spell_out),
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), &mut *member) {
                    ("arrayValue" | "kvlistValue", serde_json::Value::Object(list)) => {
                        let values = list.entry("values").or_insert_with(|| serde_json::json!([]));
                        if name == "kvlistValue" {
                            add_keys(values);
                        }
                    }
                    ("attributes" | "filteredAttributes" | "metadata", list) => add_keys(list),
                    ("entityRefs", list) => {
                        for name in ["schemaUrl", "type"] {
                            add(list, name, "".into());
                        }
                        for name in ["idKeys", "descriptionKeys"] {
                            add(list, name, serde_json::json!([]));
                        }
                    }
                    _ => {}
                }
                spell_out(member);
            }
        }
        _ => {}
    }
}

fn add_keys(list: &mut serde_json::Value) {
    add(list, "key", "".into());
}

fn add(list: &mut serde_json::Value, name: &str, default: serde_json::Value) {
    for entry in list.as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().entry(name).or_insert_with(|| default.clone());
    }
}

fn canonical(signal: Signal, request: &[u8]) -> Option<Vec<u8>> {
    match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(request).ok().map(|r| r.encode_to_vec()),
        Signal::Metrics => ExportMetricsServiceRequest::decode(request).ok().map(|r| r.encode_to_vec()),
        Signal::Logs => ExportLogsServiceRequest::decode(request).ok().map(|r| r.encode_to_vec()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spans_agree_with_the_generated_types(request in arb_traces()) {
        agree(Signal::Traces, &request);
    }

    #[test]
    fn metrics_agree_with_the_generated_types(request in arb_metrics()) {
        agree(Signal::Metrics, &request);
    }

    #[test]
    fn logs_agree_with_the_generated_types(request in arb_logs()) {
        agree(Signal::Logs, &request);
    }

    /// Whatever form the wire takes, the text means what a decoder of objects understands.
    #[test]
    fn any_encoding_gives_the_canonical_request((signal, request) in arb_request(), seed in any::<u64>()) {
        let scrambled = scramble(signal, &request, seed);
        let json = to_json(signal, &scrambled);
        prop_assert_eq!(canonical(signal, &to_wire(signal, &json)), canonical(signal, &scrambled));
    }

    /// Damaged requests give an error or valid text, never a panic. Whatever prost still understands, the
    /// text says too.
    #[test]
    fn damaged_requests_are_survived((signal, mut request) in arb_request(), seed in any::<u64>()) {
        mutate(&mut request, seed);
        let mut json = Vec::new();
        let written = encode(signal, &request, &mut json);
        if written.is_ok() {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok());
        }
        if let Some(canonical) = canonical(signal, &request) {
            prop_assert_eq!(written, Ok(()));
            prop_assert_eq!(to_json(signal, &canonical), json);
        }
    }

    /// Damaged text is refused, or was still text: then it survives the way back.
    #[test]
    fn damaged_text_is_survived((signal, request) in arb_request(), seed in any::<u64>()) {
        let mut json = to_json(signal, &request);
        mutate(&mut json, seed);
        if let Ok(wire) = decode(signal, &json, Limits::default()) {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok());
            let again = to_json(signal, &wire);
            prop_assert_eq!(to_json(signal, &to_wire(signal, &again)), again);
        }
    }

    #[test]
    fn any_bytes_are_survived(signal in arb_signal(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = encode(signal, &bytes, &mut Vec::new());
        let _ = decode(signal, &bytes, Limits::default());
    }
}

#[test]
fn time_is_linear_in_the_input() {
    let flat = |n: usize| format!("{{\"resourceLogs\":[{}{{}}]}}", "{},".repeat(n));
    let escaped = |n: usize| format!("{{\"resourceLogs\":[{{\"schemaUrl\":\"{}\"}}]}}", "\\n".repeat(n));
    let wide = |n: usize| format!("{{{}\"x\":1}}", "\"resourceLogs\":[{}],".repeat(n));
    for make in [&flat as &dyn Fn(usize) -> String, &escaped, &wide] {
        assert_linear(make, |json| drop(decode(Signal::Logs, json.as_bytes(), Limits::default())), 20_000);
    }
    // Interleaved lists and repeated parts, the slow paths of the other direction.
    let interleaved = |n: usize| {
        let span = b"\x5a\x00\x6a\x00".repeat(n);
        let mut out = span;
        for number in [2, 2, 1] {
            let mut outer = Vec::new();
            crate::pdata::wire::put_bytes(&mut outer, number, &out);
            out = outer;
        }
        out
    };
    assert_linear(interleaved, |wire| drop(to_json(Signal::Traces, wire)), 20_000);
    let parts = |n: usize| {
        let mut out = Vec::new();
        crate::pdata::wire::put_bytes(&mut out, 1, &b"\x0a\x02\x10\x01".repeat(n));
        out
    };
    assert_linear(parts, |wire| drop(to_json(Signal::Traces, wire)), 20_000);
}
