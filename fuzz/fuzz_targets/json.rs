//! OTLP/JSON both ways. Bytes as a request: the text means what prost understands of the bytes, and is stable
//! over a round trip. Bytes as text: whatever is accepted is JSON and becomes a request that `check` accepts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tidegate::pdata::json::{Limits, decode, encode};
use tidegate::pdata::wire::WireError;
use tidegate::pdata::{Signal, check};
use tidegate_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let Some(Input { signal, request, .. }) = Input::new(data) else { return };
    from_text(signal, request);
    from_bytes(signal, request);
});

fn from_text(signal: Signal, text: &[u8]) {
    let Ok(wire) = decode(signal, text, Limits::default()) else { return };
    assert!(wire.len() <= 5 * text.len(), "{} bytes from {}", wire.len(), text.len());
    serde_json::from_slice::<serde::de::IgnoredAny>(text).unwrap();
    check(signal, &wire).unwrap();
    let written = json(signal, &wire).unwrap();
    assert_eq!(again(signal, &written), written);
}

fn from_bytes(signal: Signal, request: &[u8]) {
    let written = json(signal, request);
    let Ok(canonical) = canonical(signal, request) else { return };
    match written {
        Ok(written) => {
            assert_eq!(written, json(signal, &canonical).unwrap(), "what prost understands");
            // Ids of a wrong length are written and not read.
            if check(signal, request).is_ok() {
                assert_eq!(again(signal, &written), written);
            }
        }
        Err(why) => assert_eq!(why, WireError::TooDeep),
    }
}

fn json(signal: Signal, request: &[u8]) -> Result<String, WireError> {
    let mut out = Vec::new();
    encode(signal, request, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn again(signal: Signal, text: &str) -> String {
    json(signal, &decode(signal, text.as_bytes(), Limits::default()).unwrap()).unwrap()
}

fn canonical(signal: Signal, request: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    Ok(match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(request)?.encode_to_vec(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(request)?.encode_to_vec(),
        Signal::Logs => ExportLogsServiceRequest::decode(request)?.encode_to_vec(),
    })
}
