//! The law of the edit program: decoding what it wrote is editing what was decoded.

mod actions;
mod config;
mod naive;
mod rules;
mod wild;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pdata::ClientInfo;
use crate::pdata::testgen::{arb_logs, arb_metrics, arb_traces, mutate, scramble};
use crate::pipeline::Acks;
use naive::{Naive, Processor, Request};

/// A batch of these pieces from a client with metadata.
fn batch(signal: Signal, pieces: &[&[u8]]) -> Batch {
    let mut rope = Rope::new();
    for piece in pieces {
        rope.push(Bytes::copy_from_slice(piece));
    }
    Batch {
        signal,
        rope,
        items: 0,
        client: Arc::new(client()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    }
}

fn client() -> ClientInfo {
    let metadata = |k: &str, v: &[&str]| (k.to_owned(), v.iter().map(|v| (*v).to_owned()).collect());
    ClientInfo {
        metadata: vec![metadata("tenant", &["one", "two"]), metadata("none", &[])],
        auth: vec![("subject".to_owned(), "me".to_owned())],
        certificate: None,
        address: Some("[::1]:4317".parse().unwrap()),
        certificate: None,
    }
}

fn program(signal: Signal, processors: &[Processor]) -> Program {
    Program::new(signal, processors.iter().map(|p| p.edit(signal)).collect())
}

fn edited(program: &Program, signal: Signal, bytes: &[u8]) -> (Bytes, Applied) {
    let mut batch = batch(signal, &[bytes]);
    let applied = program.apply(&mut batch);
    (batch.rope.to_bytes(), applied)
}

fn arb_wire<R: Message + Default + Naive>(
    signal: Signal,
    typed: impl Strategy<Value = R>,
) -> impl Strategy<Value = Vec<u8>> {
    (typed, any::<u64>(), 0..4u8).prop_map(move |(request, seed, how)| {
        let bytes = request.encode_to_vec();
        match how {
            0 => bytes,
            1 => scramble(signal, &bytes, seed),
            2 => wild::rewrite(signal, &bytes, seed),
            _ => wild::rewrite(signal, &scramble(signal, &bytes, seed), seed),
        }
    })
}

fn law<R: Message + Default + PartialEq + Naive + std::fmt::Debug>(
    signal: Signal,
    bytes: &[u8],
    processors: &[Processor],
) -> Result<(), TestCaseError> {
    let before = R::decode(bytes).unwrap();
    let mut want = before.clone_of();
    for processor in processors {
        processor.run(signal, &mut want, &client());
    }
    let program = program(signal, processors);
    let (out, applied) = edited(&program, signal, bytes);
    prop_assert_eq!(applied.malformed, 0);
    let mut got = R::decode(out.clone()).unwrap();
    let same = got.encode_to_vec() == before.encode_to_vec();
    prop_assert!(applied.changed || out == bytes);
    got.normalize();
    want.normalize();
    prop_assert!(got.encode_to_vec() == want.encode_to_vec(), "got {got:#?}\nwant {want:#?}\nsame {same}");

    // The same bytes in pieces of any size give the same result.
    let mut rng = fastrand::Rng::with_seed(bytes.len() as u64);
    let cuts: Vec<usize> = (0..3).map(|_| rng.usize(..=bytes.len())).collect();
    let mut pieces = Vec::new();
    let mut from = 0;
    let mut sorted = cuts;
    sorted.sort_unstable();
    for cut in sorted {
        pieces.push(&bytes[from..cut]);
        from = cut;
    }
    pieces.push(&bytes[from..]);
    let mut batch = batch(signal, &pieces);
    let again = program.apply(&mut batch);
    prop_assert_eq!(again, applied);
    prop_assert_eq!(batch.rope.to_bytes(), out);
    prop_assert_eq!(batch.rope.len(), batch.rope.pieces().iter().map(Bytes::len).sum::<usize>());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn traces_are_edited_as_typed_spans_would_be(
        bytes in arb_wire(Signal::Traces, arb_traces()),
        processors in naive::arb_processors(Signal::Traces),
    ) {
        law::<ExportTraceServiceRequest>(Signal::Traces, &bytes, &processors)?;
    }

    #[test]
    fn metrics_are_edited_as_typed_points_would_be(
        bytes in arb_wire(Signal::Metrics, arb_metrics()),
        processors in naive::arb_processors(Signal::Metrics),
    ) {
        law::<ExportMetricsServiceRequest>(Signal::Metrics, &bytes, &processors)?;
    }

    #[test]
    fn logs_are_edited_as_typed_records_would_be(
        bytes in arb_wire(Signal::Logs, arb_logs()),
        processors in naive::arb_processors(Signal::Logs),
    ) {
        law::<ExportLogsServiceRequest>(Signal::Logs, &bytes, &processors)?;
    }

    #[test]
    fn damaged_bytes_are_survived_and_lengths_stay_sound(
        bytes in arb_wire(Signal::Traces, arb_traces()),
        seed in any::<u64>(),
        processors in naive::arb_processors(Signal::Traces),
    ) {
        let mut bytes = bytes;
        mutate(&mut bytes, seed);
        for signal in Signal::ALL {
            let Some(edits) = processors.iter().map(|p| p.try_edit(signal)).collect::<Option<Vec<_>>>() else {
                continue;
            };
            let (out, applied) = edited(&Program::new(signal, edits), signal, &bytes);
            prop_assert!(applied.changed || out == bytes);
            // What decodes still decodes. (The reverse may differ: a broken attribute may be deleted.)
            if Request::decodes(signal, &bytes) && applied.malformed == 0 {
                prop_assert!(Request::decodes(signal, &out));
            }
        }
    }
}
