//! `filter` and `transform` in the real agent: what conditions hold for never arrives and is counted, what statements
//! change arrives changed, and the sender of a request that is dropped to the last item is told that it is done with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

mod support;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::Value;
use support::agent::Agent;
use support::http;
use support::otlp::attributes;

const AGENT: &str = r#"
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@'}
processors:
  filter:
    trace_conditions:
      - span.attributes["url.path"] == "/healthz"
      - resource.attributes["env"] == "test"
  transform:
    error_mode: propagate
    trace_statements:
      - set(resource.attributes["cluster"], "west")
      - replace_pattern(span.attributes["token"], "secret-\\d+", "***")
      - set(span.name, Concat([span.name, resource.attributes["cluster"]], "@")) where span.kind == SPAN_KIND_SERVER
      - set(span.attributes["n"], ParseJSON(span.attributes["json"])["n"]) where span.attributes["json"] != nil
exporters:
  file: {path: '@DIR@/traces.json'}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [filter, transform], exporters: [file]}
"#;

/// A request with a span for each path, from a resource of this environment.
fn request(env: &str, paths: &[&str], json: Option<&str>) -> Vec<u8> {
    let span = |path: &&str| {
        let mut attributes = attributes(&[("url.path", path), ("token", &"secret-42")]);
        attributes.extend(json.map(|json| support::otlp::attributes(&[("json", &json)])).unwrap_or_default());
        Span { name: "get".into(), kind: 2, attributes, ..Span::default() }
    };
    let resource = Resource { attributes: attributes(&[("env", &env)]), ..Resource::default() };
    let spans = paths.iter().map(span).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

fn send(agent: &Agent, body: &[u8]) -> (u16, String) {
    let headers = [("content-type", "application/x-protobuf")];
    let (status, answer) = http::request(agent.http, "POST", "/v1/traces", &headers, body).unwrap();
    (status, String::from_utf8_lossy(&answer).into_owned())
}

/// The text attribute of a resource or span in OTLP/JSON.
fn attribute<'j>(of: &'j Value, key: &str) -> Option<&'j Value> {
    let found = of["attributes"].as_array()?.iter().find(|pair| pair["key"] == key)?;
    found["value"].as_object()?.values().next()
}

#[test]
fn what_is_dropped_never_arrives_and_what_is_changed_arrives_changed() {
    let agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT).start();
    for (body, status) in [
        (request("prod", &["/cart", "/healthz", "/pay"], None), 200),
        (request("test", &["/cart", "/pay"], None), 200),
        (request("prod", &["/healthz"], None), 200),
        (request("prod", &["/json"], Some("{\"n\": 7}")), 200),
        // `propagate`: what fails is refused, and the sender is told.
        (request("prod", &["/json", "/healthz"], Some("no json")), 400),
    ] {
        let (got, answer) = send(&agent, &body);
        assert_eq!(got, status, "{answer}");
        assert_eq!(status == 400, answer.contains("ParseJSON"), "{answer}");
    }
    let text = std::fs::read_to_string(agent.dir().join("traces.json")).unwrap();
    let mut found = Vec::new();
    for line in text.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        for resource in request["resourceSpans"].as_array().unwrap() {
            assert_eq!(attribute(&resource["resource"], "cluster").unwrap(), "west");
            for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                assert_eq!(span["name"], "get@west");
                assert_eq!(attribute(span, "token").unwrap(), "***");
                let n = attribute(span, "n").map(ToString::to_string);
                found.push((attribute(span, "url.path").unwrap().as_str().unwrap().to_owned(), n));
            }
        }
    }
    found.sort();
    let path = |path: &str| (path.to_owned(), None);
    let with_number = found.iter().find(|(path, _)| path == "/json").cloned().unwrap();
    assert_eq!(found, [path("/cart"), with_number.clone(), path("/pay")]);
    assert!(with_number.1.as_deref().is_some_and(|n| n.contains('7')), "{with_number:?}");

    // The refused request was dropped from before it was refused: that is not counted.
    let filter = "processor=\"filter\"";
    assert_eq!(agent.metric("otelcol_processor_filter_spans_filtered", filter), 4.0);
    assert_eq!(agent.metric("tidegate_dropped_items", "reason=\"filtered\""), 4.0);
    assert_eq!(agent.metric("tidegate_pipeline_received_items", "traces"), 9.0);
    assert_eq!(agent.metric("tidegate_pipeline_dropped_items", "traces"), 4.0);
    assert_eq!(agent.metric("tidegate_pipeline_refused_items", "traces"), 2.0);
    assert_eq!(agent.metric("tidegate_pipeline_forwarded_items", "traces"), 3.0);
    assert_eq!(agent.metric("tidegate_accounting_gap", ""), 0.0);
}
