//! Relabelling as a real Prometheus server does it: the same rules on the same labels store what our processor makes.
//!
//! The server scrapes one page many times, each job with rules of its own as `metric_relabel_configs`. The labels of
//! the page are attributes of data points for the processor. The server is the one in `PATH`, or what
//! `prometheus/install` fetches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code"
)]
#![allow(dead_code, reason = "what is shared with another test is not all used here")]

mod support;

#[path = "prometheus_real/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;
use serde_json::{Value as Json, json};
use tidegate::config::{Config as _, Cx, Node};
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal};
use tidegate::pipeline::{Acks, BuildContext, Ledger, Stage};
use tidegate::processors::edit::Program;
use tidegate::processors::relabel::{RelabelProcessorConfig, build};
use tidegate::telemetry::Metrics;

use server::{Labels, Prometheus};
use support::otlp::{ToValue, attributes, double, gauge, resource};
use support::prometheus::now;

type Pairs = &'static [(&'static str, &'static str)];

/// The series on the page, without `job` and `instance`.
const SERIES: &[(&str, Pairs)] = &[
    ("m", &[]),
    ("m", &[("a", "foo")]),
    ("m", &[("a", "foo"), ("b", "bar"), ("c", "baz")]),
    ("m", &[("a", "foo"), ("b1", "bar"), ("b2", "baz")]),
    ("m", &[("a", "boo"), ("f", "baz")]),
    ("m", &[("a", "some-name-value")]),
    ("m", &[("a", "some-name-0"), ("name", "x")]),
    ("m", &[("a", "line1\nline2"), ("b", "\"\\")]),
    ("m", &[("a", "10.0.0.1:9100"), ("b", "host-a")]),
    ("m", &[("a", "bAr123Foo"), ("b", "Straße"), ("c", "ÉCOLE ﬁ ıİ ǅ ᾀᾗᾳῃῼ ẞ")]),
    ("m", &[("a", "foo;bar"), ("b", ";"), ("c", "é")]),
    ("n_total", &[("a", "bar"), ("b", "bar"), ("c", "٣")]),
    ("n_total", &[("__port1", "1234"), ("__port2", "5678"), ("a", "1234"), ("l_x", "y")]),
    ("other", &[("tags", "path:/secret,job:some-job,label:foo=bar"), ("a", "foobar")]),
];

/// The series of a page: servers before 3.0 have a dot that matches no line break.
fn series(old: bool) -> impl Iterator<Item = &'static (&'static str, Pairs)> {
    SERIES.iter().filter(move |(_, labels)| !old || labels.iter().all(|(_, value)| !value.contains('\n')))
}

/// Rules with what each is meant to show; more are made at random.
fn written() -> Vec<Json> {
    let replace = |sources: &[&str], regex: &str, target: &str, replacement: &str| json!({"source_labels": sources, "regex": regex, "target_label": target, "replacement": replacement});
    vec![
        json!([replace(&["a"], "f(.*)", "d", "ch${1}-ch${1}")]),
        json!([
            replace(&["a", "b"], "f(.*);(.*)r", "a", "b${1}${2}m"),
            replace(&["c", "a"], "(b).*b(.*)ba(.*)", "d", "$1$2$2$3")
        ]),
        json!([{"source_labels": ["a"], "regex": ".*o.*", "action": "drop"}]),
        json!([{"source_labels": ["a"], "regex": "f|o", "action": "drop"}]),
        json!([{"source_labels": ["a"], "regex": "foo|boo", "action": "keep"}]),
        json!([replace(&["a"], "(f).*", "$1", "$2")]),
        json!([replace(&["a"], "some-([^-]+)-([^,]+)", "${1}", "${2}")]),
        json!([replace(&["a"], "some-([^-]+)-([^,]+)", "${1}", "${3}")]),
        json!([replace(&["a"], "some-([^-]+)-([^,]+)", "${3}", "${1}")]),
        json!([
            replace(&["tags"], "(?:.+,|^)path:(/[^,]+).*", "__metrics_path__", "$1"),
            replace(&["tags"], "(?:.+,|^)job:([^,]+).*", "was", "$1"),
            replace(&["tags"], "(?:.+,|^)label:([^=]+)=([^,]+).*", "${1}", "${2}")
        ]),
        json!([{"source_labels": ["a"], "modulus": 1000, "target_label": "d", "action": "hashmod"}]),
        json!([{"source_labels": ["a", "b"], "modulus": 16, "target_label": "d", "action": "HashMod", "separator": "/"}]),
        json!([{"regex": "(b.*)", "replacement": "bar_${1}", "action": "labelmap"}]),
        json!([{"regex": "l_(.*)", "replacement": "$1", "action": "labelmap"}]),
        json!([{"regex": "a|b", "replacement": "z", "action": "labelmap"}]),
        json!([{"regex": "(b.*)", "action": "labeldrop"}]),
        json!([{"regex": "b.*|__name__|job|instance", "action": "labelkeep"}]),
        json!([{"source_labels": ["a"], "target_label": "up", "action": "uppercase"},
               {"source_labels": ["b"], "target_label": "b", "action": "lowercase"},
               {"source_labels": ["c"], "target_label": "c", "action": "uppercase"},
               {"source_labels": ["c"], "target_label": "d", "action": "lowercase"}]),
        json!([{"source_labels": ["a"], "target_label": "__port1", "action": "keepequal"}]),
        json!([{"source_labels": ["a"], "target_label": "b", "action": "dropequal"}]),
        json!([replace(&["a"], "line1.*line2", "d", "match${1}")]),
        json!([{"source_labels": ["a"], "target_label": "b"}]),
        json!([{"source_labels": ["nope"], "target_label": "b", "replacement": "fixed"}]),
        json!([replace(&["a"], "f(.*)", "d", "$1x")]),
        json!([replace(&["a"], "f(?P<rest>.*)", "d", "<${rest}$$$rest>")]),
        json!([{"source_labels": ["b"], "regex": "", "action": "drop"}]),
        json!([{"source_labels": ["__name__"], "regex": "m|n.*", "action": "drop"}]),
        json!([{"source_labels": ["__name__"], "regex": "(.*)_total", "target_label": "__name__"}]),
        json!([{"source_labels": ["__name__", "a"], "regex": "m;(.*)", "target_label": "d"}]),
        json!([{"source_labels": ["a"], "regex": "(...).*", "target_label": "__tmp_x"},
               {"source_labels": ["__tmp_x", "b"], "separator": "", "target_label": "d"},
               {"source_labels": ["__tmp_x"], "regex": "foo", "action": "drop"}]),
        json!([replace(&["c"], "(\\w*)(\\W*)", "d", "$1,$2"), replace(&["c"], "\\d", "e", "digit")]),
        json!([replace(&["a"], "(?i)FOO|\\Qs\\E.*|[[:upper:]b]+.*", "d", "yes")]),
        json!([replace(&["a"], "(\\d+\\.){3}\\d+:(?:\\d+)|[^\\d]+", "d", "[$1]")]),
        json!([
            replace(&["a"], "(a|foo)(bar)?", "d", "$2"),
            replace(&["a"], "(a|foo)(bar)??.*", "e", "$1$2")
        ]),
        json!([{"target_label": "static", "replacement": "x"}, {"target_label": "a", "replacement": ""}]),
    ]
}

/// Whether a server before 3.0 does otherwise: it deletes no label whose name is computed.
fn deletes_computed(rules: &Json) -> bool {
    rules.as_array().unwrap().iter().any(|rule| {
        let text = |key: &str| rule[key].as_str().unwrap_or("$1").to_owned();
        text("target_label").contains("{1}") && text("replacement") != "fixed"
    })
}

/// Rules at random, that mean the same on the labels of a series as on the attributes of a data point.
fn random(rng: &mut fastrand::Rng) -> Json {
    let labels = ["a", "b", "c", "d", "b1", "__tmp_y", "__port1", "name"];
    let regexes = [
        "(.*)",
        "(.+)",
        "f.o",
        "(f)(.*)",
        "",
        "foo|bar",
        "(.*)-(.*)",
        "[^;]*;(.*)",
        "\\W*(\\w+).*",
        "(.)(.*)",
        ".*",
        "é",
        "(foo|bar).*",
        "(?s:.*)\\b(\\w+)",
    ];
    let mut pick = |all: &[&str]| (*rng.choice(all).unwrap()).to_owned();
    let (one, two, target, regex) = (pick(&labels), pick(&labels), pick(&labels), pick(&regexes));
    let replacement = pick(&["$1", "${1}", "$2$1", "fixed", "", "x$1y", "$1_", "$0"]);
    let sources = if rng.bool() { json!([one]) } else { json!([one, two]) };
    match rng.u8(..12) {
        0 => json!({"source_labels": sources, "regex": regex, "action": "keep"}),
        1 => json!({"source_labels": sources, "regex": regex, "action": "drop"}),
        2 => json!({"source_labels": sources, "target_label": target, "action": "dropequal"}),
        3 => {
            json!({"source_labels": sources, "target_label": target, "modulus": rng.u64(1..9), "action": "hashmod"})
        }
        4 => json!({"regex": "([a-c])1?", "replacement": "m_$1", "action": "labelmap"}),
        5 => json!({"regex": "[bd].?", "action": "labeldrop"}),
        6 => json!({"regex": "[abn].*|__.*|job|instance", "action": "labelkeep"}),
        7 => json!({"source_labels": sources, "target_label": target, "action": "lowercase"}),
        8 => json!({"source_labels": sources, "target_label": target, "action": "uppercase"}),
        // Names that come out are the same to servers that take any and to those that take the old ones.
        9 => {
            json!({"source_labels": sources, "regex": "(foo|bar|b).*", "target_label": "${1}_x", "replacement": replacement})
        }
        _ => {
            json!({"source_labels": sources, "regex": regex, "target_label": target, "replacement": replacement})
        }
    }
}

fn page(old: bool) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let line = |(name, labels): &(&str, Pairs)| {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
        format!("{name}{{{}}} 1\n", labels.join(","))
    };
    series(old).map(line).collect()
}

/// Answers every request with the page, until the test ends.
fn serve(old: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let page = page(old);
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = Vec::new();
            let mut some = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut some) {
                    Ok(read @ 1..) => request.extend_from_slice(&some[..read]),
                    _ => break,
                }
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\nconnection: close";
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        }
    });
    address
}

/// What our processor makes of the page.
fn ours(rules: &Json, old: bool, target: &BTreeMap<&str, String>) -> BTreeSet<Labels> {
    let (mut config, mut cx) = (RelabelProcessorConfig::default(), Cx::default());
    config.decode_into(&Node::from_json(&json!({"rules": rules})), &mut cx);
    assert!(cx.diags.is_empty(), "{rules}: {:?}", cx.diags);
    let context =
        BuildContext { id: "relabel".to_owned(), metrics: Metrics::new(), ledger: Ledger::new(usize::MAX) };
    let Stage::Edit(edit) = build(&config, Signal::Metrics, &context).unwrap() else { panic!("an edit") };
    let metrics = series(old).map(|(name, labels)| {
        let mut pairs: Vec<(&str, &dyn ToValue)> =
            labels.iter().map(|(k, v)| (*k, v as &dyn ToValue)).collect();
        let target: Vec<(&str, &str)> = target.iter().map(|(k, v)| (*k, v.as_str())).collect();
        pairs.extend(target.iter().map(|(k, v)| (*k, v as &dyn ToValue)));
        gauge(name, "", vec![double(1.0, (0, 1), &attributes(&pairs))])
    });
    let request =
        ExportMetricsServiceRequest { resource_metrics: vec![resource(Vec::new(), None, metrics.collect())] };
    let mut batch = Batch {
        signal: Signal::Metrics,
        rope: Rope::from(request.encode_to_vec()),
        items: series(old).count(),
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    };
    let applied = Program::new(Signal::Metrics, vec![edit]).apply(&mut batch);
    assert_eq!(applied.malformed, 0);
    let request = ExportMetricsServiceRequest::decode(batch.rope.to_bytes()).unwrap();
    let metrics = request.resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics);
    let sets = metrics.flat_map(|metric| {
        let Some(Data::Gauge(gauge)) = metric.data else { panic!("a gauge") };
        gauge.data_points.into_iter().map(move |point| {
            let mut labels: Labels = [("__name__".to_owned(), metric.name.clone())].into();
            for pair in point.attributes {
                let Some(Value::StringValue(text)) = pair.value.and_then(|v| v.value) else { panic!("text") };
                labels.insert(pair.key, text);
            }
            labels
        })
    });
    sets.collect()
}

#[test]
fn rules_do_what_they_do_in_prometheus() {
    let old = Prometheus::start().major() < 3;
    let address = serve(old);
    let mut rng = fastrand::Rng::with_seed(8);
    let mut jobs = written();
    for _ in 0..65 {
        jobs.push((0..rng.usize(1..5)).map(|_| random(&mut rng)).collect());
    }
    jobs.retain(|rules| !old || !deletes_computed(rules));
    let mut config = "scrape_configs:\n".to_owned();
    for (number, rules) in jobs.iter().enumerate() {
        let mut rules = rules.as_array().unwrap().clone();
        // Which labels are for later rules only is ours alone to know.
        rules.push(json!({"regex": "__tmp.*", "action": "labeldrop"}));
        config.push_str(&format!(
            "- {{job_name: j{number}, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{{targets: ['{address}']}}], \
             metric_relabel_configs: {}}}\n",
            Json::from(rules)
        ));
    }
    let start = now();
    let server = Prometheus::start_with(&config, "exemplar-storage");
    let waiting = Instant::now();
    loop {
        let up = server.query("up == 1", now());
        if up.len() == jobs.len() {
            break;
        }
        let down = server.api("targets", &[("state", "active")]);
        let why: Vec<_> =
            down["activeTargets"].as_array().unwrap().iter().map(|t| t["lastError"].clone()).collect();
        assert!(
            waiting.elapsed() < Duration::from_secs(60),
            "{} of {} are up: {why:?}",
            up.len(),
            jobs.len()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut stored: BTreeMap<String, BTreeSet<Labels>> = BTreeMap::new();
    for labels in server.series(start - 60_000, now() + 60_000) {
        let name = &labels["__name__"];
        if name != "up" && !name.starts_with("scrape_") {
            stored.entry(labels["job"].clone()).or_default().insert(labels);
        }
    }
    let (mut wrong, mut changed) = (Vec::new(), 0);
    for (number, rules) in jobs.iter().enumerate() {
        let job = format!("j{number}");
        let target = [("job", job.clone()), ("instance", address.to_string())].into();
        let ours = ours(rules, old, &target);
        let theirs = stored.remove(&job).unwrap_or_default();
        changed +=
            usize::from(ours != self::ours(&json!([{"regex": "none", "action": "labeldrop"}]), old, &target));
        if ours != theirs {
            let only_ours: Vec<_> = ours.difference(&theirs).collect();
            let only_theirs: Vec<_> = theirs.difference(&ours).collect();
            wrong.push(format!("{rules}\nours {only_ours:?}\ntheirs {only_theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), jobs.len(), wrong.join("\n\n"));
    assert!(stored.is_empty(), "of no job: {stored:?}");
    assert!(changed > jobs.len() / 2, "only {changed} did anything");
}
