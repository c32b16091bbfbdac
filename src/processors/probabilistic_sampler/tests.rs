//! Decisions as tables, against a slow version, in bulk, in a row, and in the books.

mod slow;

use std::collections::HashMap;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message as _;
use smallvec::SmallVec;

use super::*;
use crate::config::{Config, Key, Pos, Value as Yaml};
use crate::pdata::testgen::{arb_logs, arb_traces};
use crate::pdata::{Batch, ClientInfo, Rope};
use crate::pipeline::{Acks, Ledger};
use crate::processors::edit::Program;

fn context() -> BuildContext {
    BuildContext {
        id: "probabilistic_sampler".to_owned(),
        metrics: Metrics::new(),
        ledger: Ledger::new(1 << 20),
    }
}

fn config(mode: SamplerMode, percentage: f64) -> ProbabilisticSamplerConfig {
    ProbabilisticSamplerConfig { mode, sampling_percentage: percentage, ..Default::default() }
}

fn program(signal: Signal, configs: &[&ProbabilisticSamplerConfig], cx: &BuildContext) -> Program {
    let edit = |config: &&ProbabilisticSamplerConfig| match build(config, signal, cx).unwrap() {
        Stage::Edit(edit) => edit,
        _ => panic!("an edit"),
    };
    Program::new(signal, configs.iter().map(edit).collect())
}

fn batch(signal: Signal, bytes: Vec<u8>, items: usize) -> Batch {
    Batch {
        signal,
        rope: Rope::from(bytes),
        items,
        client: std::sync::Arc::<ClientInfo>::default(),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    }
}

fn spans_of(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans)
}

fn records_of(request: &ExportLogsServiceRequest) -> impl Iterator<Item = &LogRecord> {
    request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records)
}

fn sample_spans(program: &Program, spans: &[Span]) -> Vec<Span> {
    let scope = ScopeSpans { spans: spans.to_vec(), ..Default::default() };
    let resource_spans = vec![ResourceSpans { scope_spans: vec![scope], ..Default::default() }];
    let mut batch =
        batch(Signal::Traces, ExportTraceServiceRequest { resource_spans }.encode_to_vec(), spans.len());
    let applied = program.apply(&mut batch);
    assert_eq!((applied.malformed, applied.dropped), (0, spans.len() - batch.items));
    let out = ExportTraceServiceRequest::decode(batch.rope.to_bytes()).unwrap();
    let kept: Vec<Span> = spans_of(&out).cloned().collect();
    assert_eq!(kept.len(), batch.items);
    kept
}

fn sample_logs(program: &Program, records: &[LogRecord]) -> Vec<LogRecord> {
    let scope = ScopeLogs { log_records: records.to_vec(), ..Default::default() };
    let resource_logs = vec![ResourceLogs { scope_logs: vec![scope], ..Default::default() }];
    let mut batch =
        batch(Signal::Logs, ExportLogsServiceRequest { resource_logs }.encode_to_vec(), records.len());
    let applied = program.apply(&mut batch);
    assert_eq!((applied.malformed, applied.dropped), (0, records.len() - batch.items));
    let out = ExportLogsServiceRequest::decode(batch.rope.to_bytes()).unwrap();
    records_of(&out).cloned().collect()
}

/// A trace id with this randomness.
fn trace(randomness: u64) -> Vec<u8> {
    (0xabcd_u128 << 112 | u128::from(randomness)).to_be_bytes().to_vec()
}

fn span(randomness: u64, state: &str) -> Span {
    Span { trace_id: trace(randomness), trace_state: state.to_owned(), ..Default::default() }
}

fn value(value: any_value::Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(text: &str) -> any_value::Value {
    any_value::Value::StringValue(text.to_owned())
}

fn attribute(key: &str, v: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value(v), ..Default::default() }
}

fn with(mut span: Span, attributes: Vec<KeyValue>) -> Span {
    span.attributes = attributes;
    span
}

fn record(trace_id: Vec<u8>, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord { trace_id, attributes, ..Default::default() }
}

/// The text of a record's attribute.
fn said<'r>(record: &'r LogRecord, key: &str) -> Option<&'r str> {
    match record.attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[test]
fn thresholds_of_spans_that_were_sampled_before() {
    use SamplerMode::{Equalizing, Proportional};
    let low = 0x10_0000_0000_0000;
    let middle = 0x90_0000_0000_0000;
    let high = 0xf0_0000_0000_0000;
    // mode, percentage, randomness of the trace id, tracestate before, after
    let cases: [(SamplerMode, f64, u64, &str, Option<&str>); 27] = [
        (Equalizing, 50.0, middle, "", Some("ot=th:8")),
        (Equalizing, 50.0, low, "", None),
        (Equalizing, 50.0, middle, "a=1", Some("ot=th:8,a=1")),
        // Less strict before: raised. Stricter before: kept as it is. Equal: untouched.
        (Equalizing, 25.0, high, "ot=th:8", Some("ot=th:c")),
        (Equalizing, 25.0, middle, "ot=th:8", None),
        (Equalizing, 50.0, high, "ot=th:c", Some("ot=th:c")),
        (Equalizing, 50.0, high, "b=2, ot=th:80;x:1", Some("b=2, ot=th:80;x:1")),
        // The percentage is of what comes.
        (Proportional, 50.0, high, "ot=th:8", Some("ot=th:c")),
        (Proportional, 50.0, middle, "ot=th:8", None),
        (Proportional, 50.0, middle, "ot=th:0", Some("ot=th:8")),
        (Proportional, 100.0, middle, "ot=th:8", Some("ot=th:8")),
        (Proportional, 100.0, middle, "", Some("ot=th:0")),
        (Proportional, 1000.0, low, "", Some("ot=th:0")),
        // So rarely that no threshold can say it.
        (Proportional, 50.0, NEVER - 1, "ot=th:ffffffffffffff", None),
        // Randomness of its own goes before the trace id, and stays.
        (Equalizing, 50.0, low, "ot=rv:9b8233f7e3a151", Some("ot=th:8;rv:9b8233f7e3a151")),
        (Equalizing, 50.0, high, "ot=rv:1b8233f7e3a151", None),
        (Proportional, 50.0, low, "ot=rv:9b8233f7e3a151;th:0", Some("ot=th:8;rv:9b8233f7e3a151")),
        // Nothing is kept of what has a threshold it should not have passed, or none that can be read.
        (Equalizing, 50.0, middle, "ot=th:c", None),
        (Proportional, 50.0, high, "ot=th:8;rv:1b8233f7e3a151", None),
        (Equalizing, 50.0, high, "ot=th:", None),
        (Equalizing, 50.0, high, "ot=rv:9", None),
        // But with 100 percent, where nothing has to be known.
        (Equalizing, 100.0, middle, "ot=th:c;x:1", Some("ot=x:1")),
        (Equalizing, 100.0, middle, "ot=th:c", Some("")),
        (Equalizing, 100.0, middle, "ot=th:", Some("ot=th:")),
        (Equalizing, 0.0, high, "", None),
        (Proportional, 0.0, NEVER - 1, "ot=th:0", None),
        // The threshold itself is kept.
        (Equalizing, 50.0, 1 << 55, "", Some("ot=th:8")),
    ];
    for (mode, percentage, randomness, before, want) in cases {
        let cx = context();
        let got = sample_spans(
            &program(Signal::Traces, &[&config(mode, percentage)], &cx),
            &[span(randomness, before)],
        );
        let got = got.first().map(|s| s.trace_state.as_str());
        assert_eq!(got, want, "{mode:?} {percentage} of {randomness:x} with {before:?}");
    }
}

#[test]
fn what_cannot_be_decided_passes_an_open_sampler() {
    let open = |mode| ProbabilisticSamplerConfig { fail_closed: false, ..config(mode, 0.1) };
    let nobody = Span { trace_id: Vec::new(), trace_state: "a=1".to_owned(), ..Default::default() };
    let zeros = Span { trace_id: vec![0; 16], ..Default::default() };
    for mode in [SamplerMode::HashSeed, SamplerMode::Proportional, SamplerMode::Equalizing] {
        let cx = context();
        let spans = [nobody.clone(), zeros.clone()];
        assert_eq!(sample_spans(&program(Signal::Traces, &[&open(mode)], &cx), &spans), spans);
        assert!(sample_spans(&program(Signal::Traces, &[&config(mode, 99.0)], &cx), &spans).is_empty());
        let never = ProbabilisticSamplerConfig { fail_closed: false, ..config(mode, 0.0) };
        assert!(sample_spans(&program(Signal::Traces, &[&never], &cx), &spans).is_empty());
    }
    let cx = context();
    let open = program(Signal::Traces, &[&open(SamplerMode::Equalizing)], &cx);
    for (before, after) in [("ot=th:fff;x:1", "ot=x:1"), ("ot=th:fff", ""), ("ot=th:?,a=1", "ot=th:?,a=1")] {
        let got = sample_spans(&open, &[span(1, before)]);
        assert_eq!(got.first().map(|s| s.trace_state.as_str()), Some(after), "{before}");
    }
}

#[test]
fn spans_may_ask_to_be_kept_or_dropped() {
    use any_value::Value::{BoolValue, DoubleValue, IntValue};
    // the attribute, whether a sampler of 0 and one of 100 percent keep it
    for (asked, by_none, by_all) in [
        (IntValue(0), false, false),
        (IntValue(1), true, true),
        (IntValue(-1), false, true),
        (DoubleValue(0.0), false, false),
        (DoubleValue(0.1), true, true),
        (DoubleValue(f64::NAN), false, true),
        (text("0"), false, false),
        (text("2.5"), true, true),
        (text("high"), false, true),
        (BoolValue(true), false, true),
    ] {
        for mode in [SamplerMode::HashSeed, SamplerMode::Proportional, SamplerMode::Equalizing] {
            let cx = context();
            let spans = [with(span(7, ""), vec![attribute("sampling.priority", asked.clone())])];
            let kept = |percentage| {
                !sample_spans(&program(Signal::Traces, &[&config(mode, percentage)], &cx), &spans).is_empty()
            };
            assert_eq!((kept(0.0), kept(100.0)), (by_none, by_all), "{asked:?} {mode:?}");
        }
    }
    // What is kept so stands for itself alone, unless it was sampled before; and passes closed samplers.
    for (before, after) in [
        ("", "ot=th:0"),
        ("ot=th:0;rv:9b8233f7e3a151", "ot=th:0;rv:9b8233f7e3a151"),
        ("ot=th:8;rv:9b8233f7e3a151", "ot=th:8;rv:9b8233f7e3a151"),
        ("ot=th:c;rv:9b8233f7e3a151", "ot=rv:9b8233f7e3a151"),
        ("ot=th", "ot=th"),
    ] {
        let cx = context();
        let keep = vec![attribute("sampling.priority", IntValue(1))];
        let program = program(Signal::Traces, &[&config(SamplerMode::Equalizing, 1.0)], &cx);
        let got = sample_spans(&program, &[with(span(7, before), keep)]);
        assert_eq!(got.first().map(|s| s.trace_state.as_str()), Some(after), "{before}");
    }
}

#[test]
fn hashed_spans_say_their_randomness() {
    let (mut rng, cx) = (fastrand::Rng::with_seed(1), context());
    let half = config(SamplerMode::Unset, 50.0);
    let once = program(Signal::Traces, &[&half], &cx);
    let mut seen = 0;
    for _ in 0..200 {
        let spans = [span(rng.u64(..NEVER), "a=1")];
        let randomness = hashed(0, &spans[0].trace_id);
        let got = sample_spans(&once, &spans);
        if randomness < 1 << 55 {
            assert!(got.is_empty());
            continue;
        }
        seen += 1;
        assert_eq!(got[0].trace_state, format!("ot=th:8;rv:{randomness:014x},a=1"));
        // Others decide by it: a second sampler of any mode makes a consistent decision.
        let third = |mode| {
            let next = ProbabilisticSamplerConfig { sampling_percentage: 25.0, ..config(mode, 0.0) };
            sample_spans(&program(Signal::Traces, &[&next], &cx), &got)
        };
        let kept = randomness >= 3 << 54;
        for mode in [SamplerMode::HashSeed, SamplerMode::Equalizing] {
            let out = third(mode);
            assert_eq!(!out.is_empty(), kept, "{mode:?}");
            if kept {
                assert_eq!(out[0].trace_state, format!("ot=th:c;rv:{randomness:014x},a=1"));
            }
        }
        assert_eq!(!third(SamplerMode::Proportional).is_empty(), randomness >= 7 << 53);
        // Another seed is another randomness: no one threshold says both.
        let other = ProbabilisticSamplerConfig { hash_seed: 1, ..config(SamplerMode::HashSeed, 50.0) };
        let out = sample_spans(&program(Signal::Traces, &[&other], &cx), &got);
        assert_eq!(!out.is_empty(), hashed(1, &spans[0].trace_id) >= 1 << 55);
        if let Some(span) = out.first() {
            assert_eq!(span.trace_state, format!("ot=rv:{randomness:014x},a=1"));
        }
    }
    assert!((60..140).contains(&seen), "{seen}");
}

#[test]
fn log_records_carry_attributes() {
    let cx = context();
    let quarter = config(SamplerMode::Equalizing, 25.0);
    let sampler = program(Signal::Logs, &[&quarter], &cx);
    let threshold = |t: &str| attribute("sampling.threshold", text(t));
    let randomness = |t: &str| attribute("sampling.randomness", text(t));
    // trace, attributes; threshold and randomness afterwards
    type Want = Option<(Option<&'static str>, Option<&'static str>)>;
    let cases: [(u64, Vec<KeyValue>, Want); 9] = [
        (0xf << 52, vec![], Some((Some("c"), None))),
        (0x1 << 52, vec![], None),
        (0xf << 52, vec![threshold("8")], Some((Some("c"), None))),
        (0xf << 52, vec![threshold("e")], Some((Some("e"), None))),
        (0x1 << 52, vec![randomness("f0000000000000")], Some((Some("c"), Some("f0000000000000")))),
        (0xf << 52, vec![randomness("10000000000000")], None),
        (0xe << 52, vec![threshold("f")], None),
        (0xf << 52, vec![threshold("x")], None),
        (0xf << 52, vec![randomness("f")], None),
    ];
    for (id, attributes, want) in cases {
        let got = sample_logs(&sampler, &[record(trace(id), attributes.clone())]);
        let got = got.first().map(|r| (said(r, "sampling.threshold"), said(r, "sampling.randomness")));
        assert_eq!(got, want, "{id:x} {attributes:?}");
    }
    // What is no text says nothing.
    let odd = record(trace(0xf << 52), vec![attribute("sampling.threshold", any_value::Value::IntValue(8))]);
    assert_eq!(said(&sample_logs(&sampler, &[odd])[0], "sampling.threshold"), Some("c"));
}

#[test]
fn log_records_are_told_apart_by_attribute() {
    use any_value::Value::{ArrayValue, BoolValue, BytesValue, DoubleValue, IntValue};
    let by = |source, mode| ProbabilisticSamplerConfig {
        attribute_source: source,
        from_attribute: "id".to_owned(),
        hash_seed: 5,
        ..config(mode, 50.0)
    };
    let cx = context();
    let values: [(any_value::Value, Option<&[u8]>); 9] = [
        (text("abc"), Some(b"abc")),
        (BytesValue(vec![0, 255]), Some(&[0, 255])),
        (IntValue(-42), Some(b"-42")),
        (BoolValue(true), Some(b"true")),
        (BoolValue(false), Some(b"false")),
        (DoubleValue(1.5), Some(b"1.5")),
        (text(""), None),
        (BytesValue(vec![]), None),
        (ArrayValue(Default::default()), None),
    ];
    for mode in [SamplerMode::HashSeed, SamplerMode::Proportional, SamplerMode::Equalizing] {
        for (value, data) in &values {
            let attributes = vec![attribute("id", value.clone())];
            let decided = data.map(|data| hashed(5, data));
            let kept = decided.is_some_and(|r| r >= 1 << 55);
            let record_only = program(Signal::Logs, &[&by(AttributeSource::Record, mode)], &cx);
            let otherwise = program(Signal::Logs, &[&by(AttributeSource::TraceId, mode)], &cx);
            for (sampler, id) in [(&record_only, trace(0)), (&record_only, vec![]), (&otherwise, vec![])] {
                let got = sample_logs(sampler, &[record(id, attributes.clone())]);
                assert_eq!(!got.is_empty(), kept, "{mode:?} {value:?}");
                if let (Some(got), Some(randomness)) = (got.first(), decided) {
                    assert_eq!(said(got, "sampling.threshold"), Some("8"));
                    assert_eq!(said(got, "sampling.randomness"), Some(&*format!("{randomness:014x}")));
                }
            }
            // With a trace id the attribute does not matter.
            let got = sample_logs(&otherwise, &[record(trace(NEVER - 1), attributes.clone())]);
            let want = mode != SamplerMode::HashSeed || hashed(5, &trace(NEVER - 1)) >= 1 << 55;
            assert_eq!(!got.is_empty(), want);
        }
    }
}

#[test]
fn log_records_may_say_how_often() {
    use any_value::Value::{DoubleValue, IntValue};
    let cx = context();
    let config = ProbabilisticSamplerConfig {
        sampling_priority: "priority".to_owned(),
        ..config(SamplerMode::Proportional, 50.0)
    };
    let sampler = program(Signal::Logs, &[&config], &cx);
    // the attribute, and from which randomness on records are kept
    for (asked, threshold) in [
        (IntValue(0), None),
        (IntValue(25), Some("c")),
        (DoubleValue(12.5), Some("e")),
        (IntValue(100), Some("0")),
        (IntValue(1000), Some("0")),
        (IntValue(75), Some("4")),
        (IntValue(-1), Some("8")),
        (DoubleValue(f64::NAN), Some("8")),
        (text("25"), Some("8")),
    ] {
        let attributes = || vec![attribute("priority", asked.clone())];
        let at = threshold.and_then(|t| threshold::parse_threshold(t.as_bytes())).unwrap_or(NEVER);
        for randomness in [at.saturating_sub(1), at.min(NEVER - 1), NEVER - 1] {
            let got = sample_logs(&sampler, &[record(trace(randomness), attributes())]);
            assert_eq!(!got.is_empty(), randomness >= at, "{asked:?} {randomness:x}");
            assert!(got.iter().all(|r| said(r, "sampling.threshold") == threshold));
        }
    }
    let nobody = |asked| record(vec![], vec![attribute("priority", IntValue(asked))]);
    assert_eq!(sample_logs(&sampler, &[nobody(99), nobody(100)]), [nobody(100)]);
}

/// How many of `n` are kept lies within five standard deviations of what is to be expected.
fn about(kept: usize, n: usize, p: f64) -> bool {
    let (mean, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
    (kept as f64 - mean).abs() <= 5.0 * deviation + 1.0
}

fn random_spans(n: usize, seed: u64) -> Vec<Span> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let id = |rng: &mut fastrand::Rng| rng.u128(..).to_be_bytes().to_vec();
    (0..n).map(|_| Span { trace_id: id(&mut rng), ..Default::default() }).collect()
}

#[test]
fn the_percentage_is_kept() {
    let n = 3_000;
    let spans = random_spans(n, 42);
    for mode in [SamplerMode::HashSeed, SamplerMode::Proportional, SamplerMode::Equalizing] {
        for percentage in [0.1, 1.0, 10.0, 33.3, 50.0, 90.0, 99.9] {
            let cx = context();
            let kept = sample_spans(&program(Signal::Traces, &[&config(mode, percentage)], &cx), &spans);
            assert!(about(kept.len(), n, percentage / 100.0), "{mode:?} {percentage}: {}", kept.len());
            // What is kept stands for what there was.
            let count = |span: &Span| {
                1.0 / probability(tracestate::read(span.trace_state.as_bytes()).unwrap().threshold.unwrap())
            };
            let estimate: f64 = kept.iter().map(count).sum();
            let tolerance = 5.0 * (n as f64 * (100.0 / percentage - 1.0)).sqrt() + 1.0;
            assert!((estimate - n as f64).abs() <= tolerance * 1.1, "{mode:?} {percentage}: {estimate}");
        }
    }
}

#[test]
fn two_in_a_row_multiply_or_equalize() {
    let n = 3_000;
    let spans = random_spans(n, 7);
    let cx = context();
    let chance = |first: &ProbabilisticSamplerConfig, second: &ProbabilisticSamplerConfig| {
        let fused = sample_spans(&program(Signal::Traces, &[first, second], &cx), &spans);
        let alone = sample_spans(&program(Signal::Traces, &[first], &cx), &spans);
        assert_eq!(fused, sample_spans(&program(Signal::Traces, &[second], &cx), &alone));
        fused
    };
    for (a, b) in [(50.0, 20.0), (20.0, 50.0), (30.0, 30.0)] {
        let kept = chance(&config(SamplerMode::Proportional, a), &config(SamplerMode::Proportional, b));
        assert!(about(kept.len(), n, a * b / 1e4), "{a} {b}: {}", kept.len());
        let one = sample_spans(
            &program(Signal::Traces, &[&config(SamplerMode::Proportional, a * b / 100.0)], &cx),
            &spans,
        );
        // The same traces, but for what thresholds of four digits leave between.
        assert!(one.len().abs_diff(kept.len()) <= 8, "{a} {b}");

        for mode in [SamplerMode::Equalizing, SamplerMode::HashSeed] {
            let least = a.min(b);
            let kept = chance(&config(mode, a), &config(mode, b));
            assert_eq!(
                kept,
                sample_spans(&program(Signal::Traces, &[&config(mode, least)], &cx), &spans),
                "{mode:?}"
            );
        }
        let seeded = |percentage, hash_seed| ProbabilisticSamplerConfig {
            hash_seed,
            ..config(SamplerMode::HashSeed, percentage)
        };
        let kept = chance(&seeded(a, 1), &seeded(b, 2));
        assert!(about(kept.len(), n, a * b / 1e4), "{a} {b}: {}", kept.len());
    }
}

#[test]
fn a_trace_is_kept_whole_or_not_at_all() {
    let mut rng = fastrand::Rng::with_seed(3);
    let traces: Vec<Vec<u8>> = (0..500).map(|_| rng.u128(1..).to_be_bytes().to_vec()).collect();
    let mut spans: Vec<Span> = (0..5000)
        .map(|n| Span {
            trace_id: traces[n % traces.len()].clone(),
            span_id: rng.u64(..).to_be_bytes().to_vec(),
            name: "x".repeat(rng.usize(..9)),
            attributes: vec![attribute("n", any_value::Value::IntValue(rng.i64(..)))],
            ..Default::default()
        })
        .collect();
    rng.shuffle(&mut spans);
    for mode in [SamplerMode::HashSeed, SamplerMode::Proportional, SamplerMode::Equalizing] {
        let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
        for part in spans.chunks(17) {
            // Each batch goes to another agent.
            let cx = context();
            for span in sample_spans(&program(Signal::Traces, &[&config(mode, 40.0)], &cx), part) {
                *counts.entry(span.trace_id).or_default() += 1;
            }
        }
        assert!(counts.values().all(|n| *n == 10), "{mode:?}: a trace in parts");
        assert!(about(counts.len(), 500, 0.4), "{mode:?}: {}", counts.len());
    }
}

#[test]
fn the_books_say_who_decided() {
    let cx = context();
    let sampler = program(Signal::Traces, &[&config(SamplerMode::Equalizing, 50.0)], &cx);
    let keep = vec![attribute("sampling.priority", any_value::Value::IntValue(1))];
    let spans = [
        span(1, ""),
        span(NEVER - 1, ""),
        span(NEVER - 2, ""),
        span(1, "ot=rv:ffffffffffffff"),
        with(span(1, ""), keep),
        Span::default(),
        span(5, "ot=rv:?"),
    ];
    sample_spans(&sampler, &spans);
    sample_spans(&sampler, &spans[..1]);
    let logs = ProbabilisticSamplerConfig {
        from_attribute: "id".to_owned(),
        ..config(SamplerMode::HashSeed, 100.0)
    };
    let logs = program(Signal::Logs, &[&logs], &cx);
    sample_logs(&logs, &[record(vec![], vec![attribute("id", text("x"))]), record(trace(1), vec![])]);
    let count = |what: &str, policy: &str, sampled: &str| {
        let name = format!("otelcol_processor_probabilistic_sampler_count_{what}_sampled");
        cx.metrics
            .counter(&name, "", &["policy", "sampled"])
            .unwrap()
            .with_label_values(&[policy, sampled])
            .get()
    };
    assert_eq!((count("traces", "trace_id_w3c", "true"), count("traces", "trace_id_w3c", "false")), (2, 2));
    assert_eq!(count("traces", "sampling_randomness", "true"), 1);
    assert_eq!(count("traces", "sampling_priority", "true"), 1);
    assert_eq!(count("traces", "missing_randomness", "false"), 2);
    assert_eq!((count("logs", "id", "true"), count("logs", "trace_id_hash", "true")), (1, 1));
    let dropped =
        cx.metrics.counter("tidegate_dropped_items", "", &["component", "data_type", "reason"]).unwrap();
    assert_eq!(dropped.with_label_values(&["probabilistic_sampler", "traces", "sampled"]).get(), 4);
    assert_eq!(cx.metrics.totals()[1], 4);
}

fn arb_config() -> impl Strategy<Value = ProbabilisticSamplerConfig> {
    let mode = prop_oneof![
        Just(SamplerMode::HashSeed),
        Just(SamplerMode::Proportional),
        Just(SamplerMode::Equalizing)
    ];
    let percentage = prop_oneof![Just(0.0), Just(100.0), 0.01..100.0f64];
    let names = prop_oneof![Just(String::new()), Just("id".to_owned())];
    (mode, percentage, 0..3u32, any::<bool>(), 1..=14u32, names.clone(), names, any::<bool>()).prop_map(
        |(
            mode,
            sampling_percentage,
            hash_seed,
            fail_closed,
            sampling_precision,
            from_attribute,
            sampling_priority,
            r,
        )| {
            let record = r && !from_attribute.is_empty();
            ProbabilisticSamplerConfig {
                sampling_percentage,
                hash_seed,
                mode,
                fail_closed,
                sampling_precision,
                attribute_source: if record { AttributeSource::Record } else { AttributeSource::TraceId },
                from_attribute,
                sampling_priority,
            }
        },
    )
}

/// Tracestates and numbers as they come, and as they should not.
fn arb_state() -> impl Strategy<Value = String> {
    let hex = prop_oneof!["[0-9a-f]{14}", "[0-9a-fA-F]{1,14}", "[0-9a-g]{0,15}", Just("0".to_owned())];
    let part = prop_oneof![
        hex.clone().prop_map(|h| format!("th:{h}")),
        hex.prop_map(|h| format!("rv:{h}")),
        "[a-z]{1,2}:[a-z0-9]{0,3}",
        Just("th".to_owned()),
    ];
    let ot = prop::collection::vec(part, 0..4).prop_map(|parts| format!("ot={}", parts.join(";")));
    let member = prop_oneof![4 => ot, 2 => "[a-z]{1,3}=[a-z0-9:;]{0,4}", 1 => Just(" ".to_owned())];
    prop::collection::vec(member, 0..3).prop_map(|members| members.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spans_are_decided_as_slowly(
        mut request in arb_traces(),
        states in prop::collection::vec(arb_state(), 8),
        priorities in prop::collection::vec(prop::option::weighted(0.2, -1..3i64), 8),
        config in arb_config(),
    ) {
        let spans = request.resource_spans.iter_mut().flat_map(|r| &mut r.scope_spans).flat_map(|s| &mut s.spans);
        for (i, span) in spans.enumerate() {
            span.trace_state = states[i % 8].clone();
            if let Some(n) = priorities[i % 8] {
                span.attributes.insert(0, attribute("sampling.priority", any_value::Value::IntValue(n)));
            }
        }
        let want: Vec<Span> = spans_of(&request).filter_map(|s| slow::span(&config, s)).collect();
        let items = spans_of(&request).count();
        let mut batch = batch(Signal::Traces, request.encode_to_vec(), items);
        let cx = context();
        let applied = program(Signal::Traces, &[&config], &cx).apply(&mut batch);
        prop_assert_eq!(applied.malformed, 0);
        prop_assert_eq!(batch.items, want.len());
        prop_assert_eq!(applied.dropped, items - want.len());
        let out = ExportTraceServiceRequest::decode(batch.rope.to_bytes()).unwrap();
        prop_assert!(spans_of(&out).eq(want.iter()), "{config:?}\n{:#?}\n{want:#?}", spans_of(&out).collect::<Vec<_>>());
    }

    #[test]
    fn log_records_are_decided_as_slowly(
        mut request in arb_logs(),
        numbers in prop::collection::vec(("|[0-9a-f]{14}|[0-9a-f]{3}|x", "|[0-9a-f]{14}|8"), 8),
        ids in prop::collection::vec(prop::option::weighted(0.5, -20..120i64), 8),
        config in arb_config(),
    ) {
        let records = request.resource_logs.iter_mut().flat_map(|r| &mut r.scope_logs).flat_map(|s| &mut s.log_records);
        for (i, record) in records.enumerate() {
            record.attributes.retain(|a| !a.key.starts_with("sampling.") && a.key != "id");
            let (threshold, randomness) = &numbers[i % 8];
            record.attributes.push(attribute("sampling.threshold", text(threshold)));
            if i % 2 == 0 {
                record.attributes.push(attribute("sampling.randomness", text(randomness)));
            }
            if let Some(id) = ids[i % 8] {
                record.attributes.push(attribute("id", any_value::Value::IntValue(id)));
            }
        }
        let want: Vec<LogRecord> = records_of(&request).filter_map(|r| slow::record(&config, r)).collect();
        let items = records_of(&request).count();
        let mut batch = batch(Signal::Logs, request.encode_to_vec(), items);
        let cx = context();
        let applied = program(Signal::Logs, &[&config], &cx).apply(&mut batch);
        prop_assert_eq!(applied.malformed, 0);
        prop_assert_eq!(batch.items, want.len());
        let out = ExportLogsServiceRequest::decode(batch.rope.to_bytes()).unwrap();
        prop_assert!(records_of(&out).eq(want.iter()), "{config:?}\n{:#?}\n{want:#?}", records_of(&out).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), config in arb_config()) {
        let cx = context();
        for signal in [Signal::Traces, Signal::Logs] {
            let mut batch = batch(signal, bytes.clone(), 0);
            let applied = program(signal, &[&config], &cx).apply(&mut batch);
            prop_assert!(applied.changed || batch.rope.to_bytes() == bytes);
        }
    }
}

#[test]
fn mistakes_in_the_config() {
    let text = |t: &str| Yaml::Str(t.to_owned());
    for (entries, want) in [
        (vec![("sampling_percentage", Yaml::Float(-0.5))], "sampling rate is negative: -0.5%"),
        (vec![("sampling_percentage", Yaml::Float(f64::INFINITY))], "sampling rate is invalid: inf%"),
        (vec![("sampling_percentage", Yaml::Float(f64::NAN))], "sampling rate is invalid: NaN%"),
        (vec![("sampling_percentage", Yaml::Float(0.001))], "sampling rate is too small: 0.001%"),
        (vec![("sampling_percentage", Yaml::Float(0.001)), ("mode", text("proportional"))], ""),
        (
            vec![("sampling_percentage", Yaml::Float(1e-16)), ("mode", text("equalizing"))],
            "sampling rate is too small: 0.0000000000000001%",
        ),
        (vec![("sampling_percentage", Yaml::Int(500))], ""),
        (vec![("sampling_precision", Yaml::Int(0))], "invalid sampling precision: 0"),
        (vec![("sampling_precision", Yaml::Int(15))], "sampling precision is too great, should be <= 14: 15"),
        (vec![("sampling_precision", Yaml::Int(14))], ""),
        (vec![("mode", text("random"))], "unsupported value \"random\""),
        (vec![("attribute_source", text("traceid"))], "unsupported value \"traceid\""),
        (vec![("attribute_source", text("record"))], "attribute_source \"record\" needs from_attribute"),
        (vec![("attribute_source", text("record")), ("from_attribute", text("id"))], ""),
        (vec![("hash_seed", Yaml::Int(-1))], "-1 is out of range: 0 to 4294967295"),
        (vec![], ""),
    ] {
        let entry = |(k, v): &(&str, Yaml)| {
            (Key { pos: Pos::default(), text: (*k).to_owned() }, Node::new(Pos::default(), v.clone()))
        };
        let node = Node::new(Pos::default(), Yaml::Map(entries.iter().map(entry).collect()));
        let (mut config, mut cx) = (ProbabilisticSamplerConfig::default(), Cx::default());
        config.decode_into(&node, &mut cx);
        let messages: Vec<String> = cx.diags.into_iter().map(|d| d.message).collect();
        let want: Vec<&str> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
        assert_eq!(messages, want, "{entries:?}");
    }
}
