//! What becomes label, line and metadata.

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use serde_json::{Value, json};

use super::{JSON, agent, finish, logs, record, send};
use crate::support::loki::{Loki, Options, Row, SINGLE};
use crate::support::otlp::{ToValue, attributes};

/// Everything that one push with these keys stores, in the order of time; nothing is refused or dropped.
async fn stored(lines: &[&str], request: Vec<ResourceLogs>) -> Vec<Row> {
    let count: usize = request.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum();
    let loki = Loki::start(Options::default()).await;
    let mut agent = agent(&loki, lines);
    send(&agent, request);
    let lost = finish(&mut agent, &loki, count as u64).await;
    assert_eq!((lost.len(), loki.rejections()), (0, Vec::new()), "{lost:?} {lines:?}");
    let rows = loki.query(SINGLE, r#"{service_name=~".+"}"#);
    assert_eq!(rows.len(), count, "{lines:?}");
    rows
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn shop() -> Vec<KeyValue> {
    attributes(&[("service.name", &"shop"), ("k8s.pod.name", &"p-1"), ("host.name", &"h")])
}

fn full() -> LogRecord {
    LogRecord {
        observed_time_unix_nano: 5,
        severity_number: 17,
        severity_text: "ERR".into(),
        flags: 1,
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        event_name: "order.failed".into(),
        dropped_attributes_count: 3,
        ..record("it\nfailed: “é”", &[("tenant_id", &"t1"), ("http.status", &500i64)])
    }
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "shop.orders".into(),
        version: "1.2".into(),
        attributes: attributes(&[("scope.attr", &true)]),
        dropped_attributes_count: 0,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_labels_and_all_the_rest_is_metadata() {
    for lines in [&[][..], &[JSON][..], &[JSON, "compression: none"][..]] {
        let rows = stored(lines, vec![logs(shop(), scope(), vec![full()])]).await;
        assert_eq!(rows[0].labels, pairs(&[("service_name", "shop")]), "{lines:?}");
        assert_eq!(rows[0].entry.line, "it\nfailed: “é”");
        let want = [
            ("dropped_attributes_count", "3"),
            ("event_name", "order.failed"),
            ("flags", "1"),
            ("host_name", "h"),
            ("http_status", "500"),
            ("k8s_pod_name", "p-1"),
            ("observed_timestamp", "5"),
            ("scope_attr", "true"),
            ("scope_name", "shop.orders"),
            ("scope_version", "1.2"),
            ("severity_number", "17"),
            ("severity_text", "ERR"),
            ("span_id", &"cd".repeat(8)),
            ("tenant_id", "t1"),
            ("trace_id", &"ab".repeat(16)),
        ];
        assert_eq!(rows[0].entry.metadata, pairs(&want), "{lines:?}");
    }
    let rows = stored(&["structured_metadata: false"], vec![logs(shop(), scope(), vec![full()])]).await;
    assert_eq!(
        (&rows[0].labels, &rows[0].entry.metadata),
        (&pairs(&[("service_name", "shop")]), &Vec::new())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_have_the_headers_of_their_encoding() {
    for (lines, content_type, encoding) in [
        (&[][..], "application/x-protobuf", &["snappy", ""][..]),
        (&[JSON], "application/json", &["gzip"]),
        (&[JSON, "compression: none"], "application/json", &[""]),
    ] {
        let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
        let mut lines = lines.to_vec();
        lines.push("tenant: {value: team-a}");
        let mut agent = agent(&loki, &lines);
        send(&agent, vec![logs(shop(), None, vec![record("x", &[])])]);
        assert!(finish(&mut agent, &loki, 1).await.is_empty());
        let headers = &loki.requests()[0].headers;
        let get = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
        assert_eq!((get("content-type"), get("x-scope-orgid")), (content_type, "team-a"));
        assert!(encoding.contains(&get("content-encoding")), "{lines:?}: {headers:?}");
        assert_eq!(loki.tenants(), ["team-a"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_and_bodies_of_every_kind() {
    let inner: Vec<(&str, &dyn ToValue)> = vec![("b", &1i64), ("a", &"x")];
    let list: Vec<&dyn ToValue> = vec![&1i64, &inner, &f64::NAN];
    let bodies: [(Box<dyn ToValue>, &str); 8] = [
        (Box::new("text \\ \"quoted\"\u{1}\t"), "text \\ \"quoted\"\u{1}\t"),
        (Box::new(""), ""),
        (Box::new(-5i64), "-5"),
        (Box::new(1e-7), "1e-7"),
        (Box::new(true), "true"),
        (Box::new(vec![1u8]), "AQ=="),
        (Box::new(inner.clone()), r#"{"a":"x","b":1}"#),
        (Box::new(list), r#"[1,{"a":"x","b":1},"NaN"]"#),
    ];
    let base = crate::support::loki::now() as u64;
    let make = |(n, (body, _)): (usize, &(Box<dyn ToValue + '_>, &str))| LogRecord {
        body: Some(opentelemetry_proto::tonic::common::v1::AnyValue { value: Some(body.to_value()) }),
        time_unix_nano: base + n as u64,
        ..Default::default()
    };
    let mut records: Vec<LogRecord> = bodies.iter().enumerate().map(make).collect();
    // No body; no time but an observed one; neither.
    records.push(LogRecord { time_unix_nano: base + 8, ..Default::default() });
    records.push(LogRecord { observed_time_unix_nano: base + 9, ..Default::default() });
    records.push(record("now", &[]));
    records[10].time_unix_nano = 0;
    for lines in [&[][..], &[JSON][..]] {
        let rows = stored(lines, vec![logs(shop(), None, records.clone())]).await;
        for (n, (_, want)) in bodies.iter().enumerate() {
            assert_eq!(
                (rows[n].entry.time as u64, &*rows[n].entry.line),
                (base + n as u64, *want),
                "{lines:?}"
            );
        }
        assert_eq!((rows[8].entry.line.as_str(), rows[9].entry.time as u64), ("", base + 9));
        assert_eq!(rows[9].entry.get("observed_timestamp"), None);
        let late = rows[10].entry.time as u64 - base;
        assert!(rows[10].entry.line == "now" && late < 120_000_000_000, "{late}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_chosen_by_rules() {
    let request = || vec![logs(shop(), scope(), vec![full()])];
    for (what, lines, want) in [
        (
            "included",
            "labels: {include: [attribute.http.status, level, resource.host.name, scope.name]}",
            &[
                ("host_name", "h"),
                ("http_status", "500"),
                ("level", "error"),
                ("scope_name", "shop.orders"),
                ("service_name", "shop"),
            ][..],
        ),
        (
            "renamed",
            "labels: {rename: {pod: resource.k8s.pod.name, sev: severity_text}}",
            &[("pod", "p-1"), ("service_name", "shop"), ("sev", "ERR")],
        ),
        (
            "constant",
            "labels: {static: {cluster: eu-1, quote: 'a\"b\\c'}}",
            &[("cluster", "eu-1"), ("quote", "a\"b\\c"), ("service_name", "shop")],
        ),
        (
            "relabelled",
            "labels: {include: [attribute.tenant_id], relabel_configs: [\
             {source_labels: [tenant_id], regex: 't(.*)', target_label: team, replacement: 'team-$1'}, \
             {action: labeldrop, regex: tenant_id}]}",
            &[("service_name", "shop"), ("team", "team-1")],
        ),
        (
            "of old",
            "default_labels_enabled: {exporter: true, job: true, instance: true, level: true}",
            &[("exporter", "OTLP"), ("job", "shop"), ("level", "ERROR"), ("service_name", "shop")],
        ),
    ] {
        let rows = stored(&[lines], request()).await;
        assert_eq!(rows[0].labels, pairs(want), "{what}");
    }
    // Without any, Loki still wants one.
    let rows = stored(&[], vec![logs(Vec::new(), None, vec![record("x", &[])])]).await;
    assert_eq!(rows[0].labels, pairs(&[("service_name", "unknown_service")]));
    let all: Vec<(&str, &dyn ToValue)> = vec![
        ("service.name", &"auth"),
        ("deployment.environment.name", &"dev"),
        ("service.instance.id", &"i"),
        ("a", &"b"),
    ];
    let rows = stored(&[], vec![logs(attributes(&all), None, vec![record("x", &[])])]).await;
    assert_eq!(rows[0].labels, pairs(&[("deployment_environment_name", "dev"), ("service_name", "auth")]));
    assert_eq!(rows[0].entry.metadata, pairs(&[("a", "b"), ("service_instance_id", "i")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_a_label_is_not_metadata_too() {
    let lines = "labels: {include: [attribute.http.status, resource.host.name]}";
    let rows = stored(&[lines], vec![logs(shop(), None, vec![full()])]).await;
    for name in ["http_status", "host_name"] {
        assert!(rows[0].label(name).is_some() && rows[0].entry.get(name).is_none(), "{name}: {rows:?}");
    }
}

/// Names that become one, and names that become nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_normalised_and_unique() {
    let inner: Vec<(&str, &dyn ToValue)> = vec![("k_ey", &"w")];
    let nest: Vec<(&str, &dyn ToValue)> = vec![("fo@o", &"v"), ("m$ore", &inner), ("0", &"n")];
    let list: Vec<&dyn ToValue> = vec![&1i64, &"x"];
    let bytes = vec![1u8, 2, 3];
    let of_record: Vec<(&str, &dyn ToValue)> = vec![
        ("st.r", &"x"),
        ("nest*ed", &nest),
        ("bytes", &bytes),
        ("list", &list),
        ("é", &"lost"),
        ("", &"lost"),
        ("__reserved__x__", &"r"),
        ("0", &"zero"),
        ("same.name", &"record"),
        ("trace_id", &"mine"),
        ("event_name", &"f"),
    ];
    let resource = attributes(&[("service.name", &"shop"), ("same_name", &"resource"), ("x.y", &"resource")]);
    let scope = Some(InstrumentationScope {
        attributes: attributes(&[("x_y", &"scope"), ("same-name", &"scope"), ("z", &"scope")]),
        ..Default::default()
    });
    let mut one = record("x", &of_record);
    one.trace_id = vec![1; 16];
    one.event_name = "e".into();
    let rows = stored(&[], vec![logs(resource, scope, vec![one])]).await;
    let want = [
        ("__reserved_x__", "r"),
        ("bytes", "AQID"),
        ("event_name", "e"),
        ("key_0", "zero"),
        ("list", r#"[1,"x"]"#),
        ("nest_ed_0", "n"),
        ("nest_ed_fo_o", "v"),
        ("nest_ed_m_ore_k_ey", "w"),
        ("same_name", "record"),
        ("st_r", "x"),
        ("trace_id", &"01".repeat(16)),
        ("x_y", "resource"),
        ("z", "scope"),
    ];
    assert_eq!(rows[0].entry.metadata, pairs(&want));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_of_the_old_exporter_are_obeyed() {
    let of_resource = |more: &[(&str, &dyn ToValue)]| {
        let mut all = shop();
        all.extend(attributes(more));
        all
    };
    let hinted: Vec<(&str, &dyn ToValue)> = vec![
        ("loki.resource.labels", &"host.name, k8s.pod.name"),
        ("loki.attribute.labels", &"http.status,absent"),
    ];
    let rows = stored(&[], vec![logs(of_resource(&hinted), None, vec![full()])]).await;
    let want =
        [("host_name", "h"), ("http_status", "500"), ("k8s_pod_name", "p-1"), ("service_name", "shop")];
    assert_eq!(rows[0].labels, pairs(&want));
    assert!(rows[0].entry.metadata.iter().all(|(name, _)| !name.starts_with("loki_")), "{rows:?}");
    // As a list, and on the record.
    let list: Vec<&dyn ToValue> = vec![&"tenant_id", &"http.status"];
    let one = record("x", &[("tenant_id", &"t"), ("http.status", &1i64), ("loki.attribute.labels", &list)]);
    let rows = stored(&[], vec![logs(shop(), None, vec![one])]).await;
    assert_eq!(rows[0].labels, pairs(&[("http_status", "1"), ("service_name", "shop"), ("tenant_id", "t")]));
    assert!(rows[0].entry.metadata.iter().all(|(name, _)| !name.starts_with("loki_")), "{rows:?}");

    let of = |format: &str| logs(of_resource(&[("loki.format", &format)]), scope(), vec![full()]);
    let want = json!({
        "name": "order.failed",
        "body": "it\nfailed: “é”",
        "traceid": "ab".repeat(16),
        "spanid": "cd".repeat(8),
        "severity": "ERR",
        "flags": 1,
        "attributes": {"tenant_id": "t1", "http.status": 500},
        "resources": {"k8s.pod.name": "p-1", "host.name": "h"},
        "instrumentation_scope": {"name": "shop.orders", "version": "1.2"},
    });
    for lines in [&["format: json"][..], &["format: json", JSON][..]] {
        for request in [logs(shop(), scope(), vec![full()]), of("json")] {
            let rows = stored(lines, vec![request]).await;
            let mut got: Value = serde_json::from_str(&rows[0].entry.line).unwrap();
            // Whether a label of the default list stays in the line is not promised.
            got["resources"].as_object_mut().unwrap().remove("service.name");
            assert_eq!(got, want);
        }
        let rows = stored(lines, vec![of("raw")]).await;
        assert_eq!(rows[0].entry.line, "it\nfailed: “é”", "the hint wins");
    }
    let rows = stored(&[], vec![of("logfmt")]).await;
    for part in
        ["msg=\"it\\nfailed: “é”\"", "severity=ERR", "attribute_http.status=500", "resource_host.name=h"]
    {
        assert!(rows[0].entry.line.contains(part), "{part}: {}", rows[0].entry.line);
    }
    let mut one = full();
    one.body = record("a=1 b=\"c d\"", &[]).body;
    let rows = stored(&["format: logfmt"], vec![logs(shop(), None, vec![one])]).await;
    assert!(rows[0].entry.line.starts_with("a=1 b=\"c d\" traceID="), "{}", rows[0].entry.line);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_come_from_attributes() {
    let team = |name: &str| attributes(&[("service.name", &"shop"), ("team", &name)]);
    for (lines, hint) in [(&["tenant: {from_attribute: team, value: rest}"][..], false), (&[][..], true)] {
        let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
        let mut lines = lines.to_vec();
        if hint {
            lines.push("headers: {X-Scope-OrgID: rest}");
        }
        let mut agent = agent(&loki, &lines);
        let with_hint = |mut all: Vec<KeyValue>| {
            if hint {
                all.extend(attributes(&[("loki.tenant", &"team")]));
            }
            all
        };
        let mut of_record = record("of the record", &[("team", &"c")]);
        if hint {
            of_record.attributes.extend(attributes(&[("loki.tenant", &"team")]));
        }
        send(
            &agent,
            vec![
                logs(with_hint(team("a")), None, vec![record("of a", &[])]),
                logs(with_hint(team("b")), None, vec![record("of b", &[("team", &"c")])]),
                logs(shop(), None, vec![of_record, record("of nobody", &[])]),
            ],
        );
        let lost = finish(&mut agent, &loki, 4).await;
        assert_eq!((lost.len(), loki.rejections()), (0, Vec::new()), "{lost:?}");
        for (tenant, line) in [("a", "of a"), ("b", "of b"), ("c", "of the record"), ("rest", "of nobody")] {
            let rows = loki.query(tenant, r#"{service_name="shop"}"#);
            let got: Vec<&str> = rows.iter().map(|row| row.entry.line.as_str()).collect();
            assert_eq!(got, [line], "{tenant}, hint: {hint}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_reach_into_maps() {
    let map: Vec<(&str, &dyn ToValue)> = vec![("method", &"GET"), ("status", &200i64)];
    let mut resource = shop();
    resource.extend(attributes(&[("loki.attribute.labels", &"http.method")]));
    let rows = stored(&[], vec![logs(resource, None, vec![record("x", &[("http", &map)])])]).await;
    assert_eq!((rows[0].label("http_method"), rows[0].entry.get("http_status")), (Some("GET"), Some("200")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_sent_is_dropped_for_a_reason() {
    let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
    let drop = "labels: {include: [attribute.kind], relabel_configs: [{source_labels: [kind], regex: noise, action: drop}]}";
    let mut agent = agent(&loki, &["tenant: {from_attribute: team, value: rest}", drop]);
    let long = "t".repeat(151);
    let of = |team: &str| {
        logs(attributes(&[("service.name", &"shop"), ("team", &team)]), None, vec![record("x", &[])])
    };
    let mut request: Vec<ResourceLogs> = ["a/b", "a|b", ".", "..", &long, "é", "good"].map(of).into();
    request.push(logs(
        shop(),
        None,
        vec![record("x", &[("kind", &"noise")]), record("x", &[("kind", &"k")])],
    ));
    send(&agent, request);
    let lost = finish(&mut agent, &loki, 9).await;
    assert_eq!(lost, [("invalid_tenant".to_owned(), 6), ("relabel".to_owned(), 1)].into());
    assert_eq!((loki.tenants(), loki.rejections()), (vec!["good".to_owned(), "rest".to_owned()], Vec::new()));
}
