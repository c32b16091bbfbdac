//! At each edge of what Loki takes: what fits is sent as it is, what does not is changed or dropped as configured and
//! counted, and nothing is ever refused.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message;

use super::{JSON, agent, finish, logs, record, send, try_send};
use crate::support::loki::{Limits, Loki, Options, Row, SINGLE, now};
use crate::support::otlp::attributes;

fn shop() -> Vec<KeyValue> {
    attributes(&[("service.name", &"shop")])
}

fn of(key: &str, value: &str) -> Vec<KeyValue> {
    attributes(&[(key, &value)])
}

fn with(attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord { attributes, ..record("x", &[]) }
}

/// What is stored and how many are dropped; nothing is refused.
async fn push(lines: &[&str], request: Vec<ResourceLogs>) -> (Vec<Row>, u64) {
    let count: usize = request.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum();
    let loki = Loki::start(Options::default()).await;
    let mut agent = agent(&loki, lines);
    send(&agent, request);
    let lost: u64 = finish(&mut agent, &loki, count as u64).await.values().sum();
    assert_eq!(loki.rejections(), Vec::<String>::new(), "{lines:?}");
    let rows = loki.query(SINGLE, r#"{service_name=~".+"}"#);
    assert_eq!(rows.len() as u64 + lost, count as u64, "{lines:?}");
    (rows, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines() {
    let body = |text: String| vec![logs(shop(), None, vec![record(text, &[])])];
    for encoding in ["encoding: protobuf", JSON] {
        let (rows, _) = push(&[encoding], body("x".repeat(262_144))).await;
        assert_eq!(rows[0].entry.line.len(), 262_144);
        // Cut between characters, and what is left is the beginning.
        for (text, most) in
            [("x".repeat(262_145), 262_144), ("é".repeat(131_073), 262_144), ("€".repeat(90_000), 262_143)]
        {
            let (rows, _) = push(&[encoding], body(text.clone())).await;
            let line = &rows[0].entry.line;
            assert!(line.len() <= most && line.len() + 64 > most, "{}", line.len());
            let same = line.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
            assert!(same + 64 > most, "{same}");
        }
    }
    let lines = ["limits: {max_line_size: 100, long_line: drop}"];
    let two = vec![record("x".repeat(100), &[]), record("y".repeat(101), &[])];
    let (rows, lost) = push(&lines, vec![logs(shop(), None, two)]).await;
    assert_eq!((rows.len(), lost, rows[0].entry.line.len()), (1, 1, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_values() {
    let include = "labels: {include: [attribute.path]}";
    let send = |text: &str| vec![logs(shop(), None, vec![with(of("path", text))])];
    let (fits, long) = ("é".repeat(1024), "é".repeat(1024) + "e");
    let (rows, _) = push(&[include], send(&fits)).await;
    assert_eq!((rows[0].label("path"), rows[0].entry.get("path")), (Some(&*fits), None));
    let (rows, _) = push(&[include], send(&long)).await;
    assert_eq!((rows[0].label("path"), rows[0].entry.get("path")), (None, Some(&*long)));
    let (rows, _) = push(&[include, "limits: {long_label: truncate}"], send(&long)).await;
    let label = rows[0].label("path").unwrap();
    assert!(label.len() <= 2048 && label.len() > 1980 && long.starts_with(&label[..1900]), "{label}");
    let (rows, _) = push(&[include, "limits: {long_label: drop}"], send(&long)).await;
    assert_eq!((rows[0].label("path"), rows[0].entry.get("path")), (None, None));
    // Also where the label is all there is.
    let only = vec![logs(of("service.name", &long), None, vec![record("x", &[])])];
    let (rows, _) = push(&[], only).await;
    assert_eq!(rows[0].label("service_name"), Some("unknown_service"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_names() {
    let keys: Vec<String> = (0..30).map(|n| format!("attribute.l{n:02}")).collect();
    let all: Vec<KeyValue> = (0..30).flat_map(|n| of(&format!("l{n:02}"), "v")).collect();
    let request = |count: usize| vec![logs(shop(), None, vec![with(all[..count].to_vec())])];
    let include = format!("labels: {{include: [{}]}}", keys.join(", "));
    for (count, labels) in [(15, 16), (16, 16), (30, 16)] {
        let (rows, _) = push(&[&include], request(count)).await;
        let (as_label, as_metadata) = (rows[0].labels.len(), rows[0].entry.metadata.len());
        assert_eq!((as_label, as_label + as_metadata), (labels, count + 1), "{rows:?}");
        assert_eq!(rows[0].label("service_name"), Some("shop"));
        let (rows, _) = push(&[&include, "limits: {many_labels: drop}"], request(count)).await;
        assert_eq!((rows[0].labels.len(), rows[0].entry.metadata.len()), (labels, 0));
    }
    // A label that is named too long is none.
    for (length, is_label) in [(1024, true), (1025, false)] {
        let name = "n".repeat(length);
        let include = format!("labels: {{include: [attribute.{name}]}}");
        let (rows, _) = push(&[&include], vec![logs(shop(), None, vec![with(of(&name, "v"))])]).await;
        assert_eq!(rows[0].label(&name).is_some(), is_label, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata() {
    let many =
        |count: usize| -> Vec<KeyValue> { (0..count).flat_map(|n| of(&format!("k{n}"), "v")).collect() };
    let drop = "limits: {large_metadata: drop}";
    let one = |attributes| vec![logs(shop(), None, vec![with(attributes)])];
    for (what, pairs, fits) in [
        ("128", many(128), true),
        ("129", many(129), false),
        ("64 KiB", of("k", &"v".repeat(65_535)), true),
        ("64 KiB and one", of("k", &"v".repeat(65_536)), false),
    ] {
        let count = pairs.len();
        let (rows, _) = push(&[], one(pairs.clone())).await;
        assert_eq!(rows[0].entry.metadata.len(), if fits { count } else { count - 1 }, "{what}");
        let (rows, lost) = push(&[drop], one(pairs)).await;
        assert_eq!((rows.len(), lost), if fits { (1, 0) } else { (0, 1) }, "{what}");
    }
    // What the record says comes before what the resource and the scope say.
    let mut resource = shop();
    resource.extend((0..100).flat_map(|n| of(&format!("r{n}"), "v")));
    let mut full = with(many(100));
    full.severity_number = 9;
    full.trace_id = vec![1; 16];
    let (rows, _) = push(&[], vec![logs(resource, None, vec![full])]).await;
    let names: Vec<&str> = rows[0].entry.metadata.iter().map(|(name, _)| name.as_str()).collect();
    let count = |first: char| names.iter().filter(|n| n.starts_with(first) && n.len() < 5).count();
    assert_eq!((names.len(), count('k'), count('r')), (128, 100, 26), "{names:?}");
    // Names that nothing is left of take nothing with them.
    let odd = ["é", "", "_", "..", "ok"].iter().flat_map(|name| of(name, "v")).collect();
    let (rows, _) = push(&[], one(odd)).await;
    assert_eq!(rows[0].entry.metadata, [("ok".to_owned(), "v".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages() {
    let day = 86_400_000_000_000u64;
    let aged = |days: u64| LogRecord { time_unix_nano: now() as u64 - days * day, ..record("x", &[]) };
    let (rows, lost) =
        push(&["limits: {max_age: 168h}"], vec![logs(shop(), None, vec![aged(8), aged(0)])]).await;
    assert_eq!((rows.len(), lost), (1, 1));
    // Without that limit Loki refuses it, and what is good is stored.
    let loki = Loki::start(Options::default()).await;
    let mut agent = agent(&loki, &[]);
    send(&agent, vec![logs(shop(), None, vec![aged(8), aged(0)])]);
    let lost = finish(&mut agent, &loki, 2).await;
    assert!(loki.stored() == 1 && loki.requests().len() <= 3, "{lost:?}");
    assert!(loki.rejections()[0].contains("timestamp too old"));
    assert_eq!(lost.values().sum::<u64>(), 1, "{lost:?}");
    assert!(agent.log().contains("timestamp too old"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams() {
    let limits = Limits { streams: 20, ..Default::default() };
    let loki = Loki::start(Options { limits, ..Default::default() }).await;
    let lines = ["labels: {include: [attribute.user, attribute.kind]}", "limits: {max_streams: 20}"];
    let mut agent = agent(&loki, &lines);
    let (pushes, size) = (20, 50);
    for n in 0..pushes {
        let one = |m: i64| {
            let (user, kind) = (format!("u{}", n * size + m), format!("k{}", m % 3));
            record("x", &[("user", &user), ("kind", &kind), ("n", &(n * size + m))])
        };
        send(&agent, vec![logs(shop(), None, (0..size).map(one).collect())]);
    }
    let lost = finish(&mut agent, &loki, (pushes * size) as u64).await;
    assert_eq!((lost.len(), loki.rejections()), (0, Vec::new()), "{lost:?}");
    assert_eq!(loki.stored() as i64, pushes * size);
    // Found all the same, as label or as metadata; the label with few values stays one.
    for user in ["u0", "u777", "u999"] {
        let rows = loki.query(SINGLE, &format!("{{service_name=\"shop\"}} | user=\"{user}\""));
        assert_eq!(rows.len(), 1, "{user}");
    }
    let rows = loki.query(SINGLE, r#"{service_name="shop", kind="k1"} | user="u778""#);
    assert_eq!(rows.len(), 1);
    assert!(agent.log().contains("user"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests() {
    for encoding in ["encoding: protobuf", JSON] {
        let loki = Loki::start(Options::default()).await;
        let mut agent = agent(&loki, &["max_batch_size_bytes: 4096", encoding]);
        let one = |n: i64| record("y".repeat(100), &[("n", &n)]);
        send(&agent, vec![logs(shop(), None, (0..500).map(one).collect())]);
        // A single entry may be larger.
        send(&agent, vec![logs(shop(), None, vec![record("z".repeat(9000), &[])])]);
        let lost = finish(&mut agent, &loki, 501).await;
        assert_eq!((lost.len(), loki.stored()), (0, 501), "{lost:?}");
        let log = loki.requests();
        let large: Vec<usize> =
            log.iter().filter(|r| r.bytes.1 > 4096 && r.entries() > 1).map(|r| r.bytes.1).collect();
        // JSON has more around the same entries.
        assert!(encoding == JSON || large.is_empty(), "{large:?}");
        assert!(log.len() > 15 && log.len() < 100, "{}", log.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_not_utf8() {
    let lines = ["labels: {include: [attribute.label]}"];
    let loki = Loki::start(Options::default()).await;
    let mut agent = agent(&loki, &lines);
    let one = record("body @@", &[("label", &"label @@"), ("meta", &"meta @@"), ("nam@@e", &"v")]);
    let mut body =
        ExportLogsServiceRequest { resource_logs: vec![logs(shop(), None, vec![one])] }.encode_to_vec();
    for at in memchr::memmem::find_iter(&body.clone(), b"@@") {
        body[at..at + 2].copy_from_slice(b"\xff\xfe");
    }
    tokio::task::block_in_place(|| try_send(agent.http, &body)).unwrap();
    let lost = finish(&mut agent, &loki, 1).await;
    assert_eq!((lost.len(), loki.rejections()), (0, Vec::new()));
    let rows = loki.query(SINGLE, r#"{service_name="shop"}"#);
    assert!(rows[0].entry.line.starts_with("body \u{fffd}"), "{rows:?}");
    assert!(rows[0].label("label").unwrap().starts_with("label \u{fffd}"), "{rows:?}");
    // Loki itself puts blanks there.
    assert!(rows[0].entry.get("meta").unwrap().starts_with("meta "), "{rows:?}");
    assert_eq!(rows[0].entry.get("nam_e"), Some("v"));
}
