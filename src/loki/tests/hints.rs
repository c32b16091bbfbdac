//! Hint attributes, sources of labels, relabelling and line formats.

use super::*;
use crate::relabel::{Names, RelabelConfig, Rule};

#[test]
fn hints_make_labels_and_leave() {
    let resource = vec![
        ("loki.resource.labels", text("host.name, absent")),
        ("host.name", text("h")),
        ("os", map(vec![("type", text("linux"))])),
    ];
    let own = record(
        "x",
        vec![
            ("loki.attribute.labels", list(vec![text("http.route"), text("a.b")])),
            ("loki.resource.labels", text("os.type")),
            ("http.route", text("/r")),
            ("a", map(vec![("b", text("deep"))])),
            ("rest", text("1")),
        ],
    );
    let entry = one(LokiOptions::default(), resource, None, own);
    assert_eq!(entry.labels, r#"{a_b="deep", host_name="h", http_route="/r", os_type="linux"}"#);
    assert_eq!(metadata(&entry), "a_b=deep os_type=linux rest=1", "of a map only the whole is taken out");
}

#[test]
fn records_with_and_without_hints_are_apart() {
    let hinted = |value: &str| {
        record("x", vec![("loki.attribute.labels", text("user")), ("user", text(value)), ("k", text("v"))])
    };
    let plain = |value: &str| record("x", vec![("user", text(value))]);
    let records = vec![hinted("a"), plain("a"), hinted("b"), plain("b"), hinted("a")];
    let got = run(LokiOptions::default(), &request(vec![("service.name", text("s"))], None, records));
    let labels: Vec<&str> = got.iter().map(|e| e.labels.as_str()).collect();
    assert_eq!(
        labels,
        [
            r#"{service_name="s", user="a"}"#,
            r#"{service_name="s", user="a"}"#,
            r#"{service_name="s", user="b"}"#,
            r#"{service_name="s"}"#,
            r#"{service_name="s"}"#,
        ]
    );
}

#[test]
fn the_tenant_by_hint() {
    let own = record("x", vec![("loki.tenant", text("org")), ("org", text("t1"))]);
    let entry = one(LokiOptions::default(), vec![], None, own);
    assert_eq!(entry.tenant.as_deref(), Some("t1"));
    assert_eq!(metadata(&entry), "org=t1");
}

#[test]
fn labels_by_configuration() {
    use LabelSource::{Level, Record, Resource, Scope, ScopeName, SeverityText};
    let rule = RelabelConfig {
        source_labels: vec!["env".to_owned()],
        target_label: "__tmp".to_owned(),
        ..RelabelConfig::default()
    };
    let upper = RelabelConfig {
        action: crate::relabel::Action::Uppercase,
        source_labels: vec!["__tmp".to_owned()],
        target_label: "env".to_owned(),
        ..RelabelConfig::default()
    };
    let drop = RelabelConfig {
        action: crate::relabel::Action::Drop,
        source_labels: vec!["route".to_owned()],
        regex: "/health.*".to_owned(),
        ..RelabelConfig::default()
    };
    let options = || LokiOptions {
        labels: vec![
            (Some("env".to_owned()), Resource("e".to_owned())),
            (Some("route".to_owned()), Record("http.route".to_owned())),
            (None, Scope("team".to_owned())),
            (None, ScopeName),
            (None, SeverityText),
            (None, Level),
        ],
        static_labels: vec![("cluster".to_owned(), "c1".to_owned())],
        relabel: [&rule, &upper, &drop].map(|r| Rule::new(r, Names::Legacy).unwrap()).to_vec(),
        ..LokiOptions::default()
    };
    let scope = || {
        Some(InstrumentationScope {
            name: "lib".to_owned(),
            attributes: attributes(vec![("team", text("t")), ("other", text("o"))]),
            ..InstrumentationScope::default()
        })
    };
    let own = |route: &str| LogRecord {
        severity_number: 10,
        severity_text: "I".to_owned(),
        ..record("x", vec![("http.route", text(route))])
    };
    let entry = one(options(), vec![("e", text("dev"))], scope(), own("/a"));
    let want = r#"{cluster="c1", env="DEV", level="info", route="/a", scope_name="lib", severity_text="I", team="t"}"#;
    assert_eq!(entry.labels, want);
    assert_eq!(metadata(&entry), "other=o severity_number=10");
    let bytes = request(vec![], scope(), vec![own("/healthz"), own("/b")]).encode_to_vec();
    let (bodies, dropped) = encode(&mut LokiEncoder::new(options()), &bytes);
    assert_eq!(dropped, [(1, "relabel")]);
    assert_eq!(bodies.len(), 1);
}

#[test]
fn labels_of_the_old_exporter() {
    let old = OldLabels { exporter: true, job: true, instance: true, level: true };
    let options = || LokiOptions { old_labels: old, labels: vec![], ..LokiOptions::default() };
    let resource = || {
        vec![
            ("service.namespace", text("ns")),
            ("service.name", text("n")),
            ("service.instance.id", text("i")),
        ]
    };
    let own = LogRecord { severity_number: 8, ..record("x", vec![]) };
    let entry = one(options(), resource(), None, own);
    assert_eq!(entry.labels, r#"{exporter="OTLP", instance="i", job="ns/n", level="DEBUG4"}"#);
    let own = LogRecord { severity_number: 8, ..record("x", vec![("level", text("mine"))]) };
    let entry = one(options(), vec![("service.name", text("n"))], None, own);
    assert_eq!(entry.labels, r#"{exporter="OTLP", job="n"}"#);
}

#[test]
fn lines_in_other_forms() {
    let scope = || {
        Some(InstrumentationScope {
            name: "lib".to_owned(),
            version: "2".to_owned(),
            ..InstrumentationScope::default()
        })
    };
    let resource =
        |format: &str| vec![("service.name", text("s")), ("host", text("h")), ("loki.format", text(format))];
    let own = |body: AnyValue| LogRecord {
        body: Some(body),
        severity_text: "WARN".to_owned(),
        flags: 1,
        trace_id: vec![0xab; 16],
        span_id: vec![1; 8],
        attributes: attributes(vec![("z", int(1)), ("m", map(vec![("k", text("a b"))]))]),
        time_unix_nano: 7,
        ..LogRecord::default()
    };
    let line = |format: &str, body| one(LokiOptions::default(), resource(format), scope(), own(body)).line;
    let json = line("json", text("hi \"you\""));
    let want = r#"{"body":"hi \"you\"","traceid":"abababababababababababababababab","spanid":"0101010101010101","severity":"WARN","flags":1,"attributes":{"m":{"k":"a b"},"z":1},"resources":{"host":"h"},"instrumentation_scope":{"name":"lib","version":"2"}}"#;
    assert_eq!(json, want);
    let rest = "traceID=abababababababababababababababab spanID=0101010101010101 severity=WARN flags=1 \
                attribute_m_k=\"a b\" attribute_z=1 resource_host=h instrumentation_scope_name=lib \
                instrumentation_scope_version=2";
    assert_eq!(line("logfmt", text("hello you")), format!("msg=\"hello you\" {rest}"));
    assert_eq!(line("logfmt", text("a=1 b=2")), format!("a=1 b=2 {rest}"));
    assert_eq!(line("logfmt", map(vec![("q", int(5))])), format!("q=5 {rest}"));
    assert_eq!(line("raw", text("hi")), "hi");
}
