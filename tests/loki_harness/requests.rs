//! Broken requests one by one, and what no careful client sends.

use std::io::Write;

use prost::Message;
use serde_json::json;

use super::{JSON, PROTOBUF, compress, one, post, push};
use crate::support::loki::wire::{self, PushRequest};
use crate::support::loki::{Limits, Loki, Options, SINGLE, labels, now};

const SECOND: i64 = 1_000_000_000;

/// Two streams of two entries each, with nothing wrong.
fn good() -> PushRequest {
    let now = now();
    let a: &[(i64, &str, &[(&str, &str)])] = &[(now, "one", &[("k", "v")]), (now + 1, "two", &[])];
    let b: &[(i64, &str, &[(&str, &str)])] = &[(now, "three", &[]), (now + 1, "four", &[])];
    wire::push(&[(r#"{app="x", service_name="a"}"#, a), (r#"{service_name="b"}"#, b)])
}

fn set_labels(request: &mut PushRequest, text: &str) {
    request.streams[0].labels = text.into();
}

fn many_labels(count: usize) -> String {
    let pairs: Vec<String> = (0..count).map(|n| format!("l{n:02}=\"v\"")).collect();
    format!("{{{}, service_name=\"a\"}}", pairs.join(", "))
}

fn metadata(request: &mut PushRequest, pairs: impl IntoIterator<Item = (String, String)>) {
    let pair = |(name, value): (String, String)| wire::Pair { name: name.into(), value: value.into() };
    request.streams[0].entries[0].metadata = pairs.into_iter().map(pair).collect();
}

fn numbered(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|n| (format!("k{n}"), String::from("v")))
}

fn set_time(request: &mut PushRequest, nanos: i64) {
    request.streams[0].entries[0].timestamp = Some(wire::Timestamp::from_nanos(nanos));
}

type Edit = fn(&mut PushRequest);

/// What is done to the good request; the answer, what its text contains, and how many entries are stored.
const CASES: &[(&str, Edit, u16, &str, usize)] = &[
    ("nothing", |_| (), 204, "", 4),
    ("15 labels and a service", |r| set_labels(r, &many_labels(15)), 204, "", 4),
    ("16 labels", |r| set_labels(r, &many_labels(16)), 400, "has 16 label names; limit 15", 2),
    ("no labels", |r| set_labels(r, "{}"), 400, "at least one label pair is required", 2),
    ("only an empty label", |r| set_labels(r, r#"{a=""}"#), 400, "at least one label pair", 2),
    ("no text of labels", |r| set_labels(r, ""), 400, "couldn't parse labels", 0),
    ("bad labels", |r| set_labels(r, r#"{a.b="c"}"#), 400, "couldn't parse labels", 0),
    ("a label twice", |r| set_labels(r, r#"{a="b", a="c"}"#), 400, "has duplicate label name: 'a'", 2),
    ("a long name", |r| set_labels(r, &format!("{{{}=\"b\"}}", "n".repeat(1024))), 204, "", 4),
    (
        "a name too long",
        |r| set_labels(r, &format!("{{{}=\"b\"}}", "n".repeat(1025))),
        400,
        "has label name too long",
        2,
    ),
    ("a long value", |r| set_labels(r, &format!("{{a=\"{}\"}}", "é".repeat(1024))), 204, "", 4),
    (
        "a value too long",
        |r| set_labels(r, &format!("{{a=\"{}\"}}", "é".repeat(1024) + "e")),
        400,
        "has label value too long",
        2,
    ),
    ("a long line", |r| r.streams[0].entries[0].line = vec![b'x'; 262_144], 204, "", 4),
    (
        "a line too long",
        |r| r.streams[0].entries[0].line = vec![b'x'; 262_145],
        400,
        "Max entry size '262144' bytes exceeded for stream",
        3,
    ),
    ("128 pairs", |r| metadata(r, numbered(128)), 204, "", 4),
    (
        "129 pairs",
        |r| metadata(r, numbered(129)),
        400,
        "too many structured metadata labels: '129', limit",
        3,
    ),
    ("64 KiB of metadata", |r| metadata(r, [("k".into(), "v".repeat(65_535))]), 204, "", 4),
    (
        "a byte more",
        |r| metadata(r, [("k".into(), "v".repeat(65_536))]),
        400,
        "structured metadata too large: '65537' bytes, limit: '65536'",
        3,
    ),
    (
        "a name of metadata that is nothing",
        |r| metadata(r, [("é".into(), "v".into())]),
        500,
        "normalization",
        0,
    ),
    ("an empty name of metadata", |r| metadata(r, [(String::new(), "v".into())]), 500, "normalization", 0),
    ("nearly seven days old", |r| set_time(r, now() - 7 * 86_400 * SECOND + 5 * SECOND), 204, "", 4),
    (
        "seven days old",
        |r| set_time(r, now() - 7 * 86_400 * SECOND - SECOND),
        400,
        "has timestamp too old",
        3,
    ),
    ("without a time", |r| r.streams[0].entries[0].timestamp = None, 400, "has timestamp too old", 3),
    (
        "nearly ten minutes ahead",
        |r| {
            r.streams[0].entries.truncate(1);
            set_time(r, now() + 595 * SECOND);
        },
        204,
        "",
        3,
    ),
    ("ten minutes ahead", |r| set_time(r, now() + 610 * SECOND), 400, "has timestamp too new", 3),
    (
        "an hour behind",
        |r| r.streams[0].entries[1].timestamp = Some(wire::Timestamp::from_nanos(now() - 3601 * SECOND)),
        400,
        "entry too far behind",
        3,
    ),
    (
        "not quite an hour behind",
        |r| r.streams[0].entries[1].timestamp = Some(wire::Timestamp::from_nanos(now() - 3590 * SECOND)),
        204,
        "",
        4,
    ),
    (
        "nanoseconds out of range",
        |r| {
            r.streams[0].entries[0].timestamp =
                Some(wire::Timestamp { seconds: now() / SECOND, nanos: 1_000_000_000 });
        },
        400,
        "nanos not in range",
        0,
    ),
    ("no streams", |r| r.streams.clear(), 422, "at least one valid stream is required", 0),
    ("a stream without entries", |r| r.streams[0].entries.clear(), 204, "", 2),
    (
        "nothing but streams without entries",
        |r| r.streams.iter_mut().for_each(|s| s.entries.clear()),
        204,
        "",
        0,
    ),
    (
        "everything bad",
        |r| r.streams.iter_mut().for_each(|s| s.labels = "{}".into()),
        400,
        "2 errors like: error at least one label pair",
        0,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rule_has_its_answer() {
    for (what, edit, status, text, stored) in CASES {
        let mut request = good();
        edit(&mut request);
        let loki = Loki::start(Options::default()).await;
        let (got, message) = push(&loki, &request);
        assert_eq!((got, loki.stored()), (*status, *stored), "{what}: {message}");
        assert!(message.contains(text), "{what}: {message}");
        assert_eq!(message.is_empty(), *status == 204, "{what}: {message}");
        let rejections = loki.rejections();
        assert_eq!(rejections.len(), usize::from(*status != 204), "{what}: {rejections:?}");
        assert!(rejections.iter().all(|r| r.starts_with(&status.to_string())), "{what}: {rejections:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_cannot_be_read_are_refused() {
    let request = good();
    let body = compress(&request);
    let gzip = |data: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(data).unwrap();
        out.finish().unwrap()
    };
    let plain = request.encode_to_vec();
    let mut broken = plain.clone();
    broken.pop();
    let snappy = |data: &[u8]| snap::raw::Encoder::new().compress_vec(data).unwrap();
    let path = "/loki/api/v1/push";
    let cases: Vec<(&str, &str, Vec<(&str, &str)>, Vec<u8>, u16, &str)> = vec![
        ("as it should be", path, vec![PROTOBUF], body.clone(), 204, ""),
        ("the other path", "/api/prom/push", vec![PROTOBUF], body.clone(), 204, ""),
        ("with its encoding", path, vec![PROTOBUF, ("content-encoding", "snappy")], body.clone(), 204, ""),
        ("no content type", path, vec![], body.clone(), 400, "no media type"),
        ("not compressed", path, vec![PROTOBUF], plain.clone(), 400, "snappy"),
        ("not complete", path, vec![PROTOBUF], snappy(&broken), 400, "proto"),
        ("nothing", path, vec![PROTOBUF], Vec::new(), 400, ""),
        ("no message", path, vec![PROTOBUF], snappy(b""), 422, "at least one valid stream"),
        ("zstd", path, vec![PROTOBUF, ("content-encoding", "zstd")], body.clone(), 400, "not supported"),
        ("not gzip", path, vec![JSON, ("content-encoding", "gzip")], body.clone(), 400, ""),
        ("gzip around snappy", path, vec![PROTOBUF, ("content-encoding", "gzip")], gzip(&body), 204, ""),
        ("another path", "/push", vec![PROTOBUF], body.clone(), 404, ""),
    ];
    for (what, path, headers, body, status, text) in cases {
        let loki = Loki::start(Options::default()).await;
        let (got, message) = post(&loki, path, &headers, &body);
        assert_eq!((got, loki.stored()), (status, if status == 204 { 4 } else { 0 }), "{what}: {message}");
        assert!(message.contains(text), "{what}: {message}");
    }
    for limits in [
        Limits { body: body.len() - 1, ..Default::default() },
        Limits { decompressed: plain.len() - 1, ..Default::default() },
    ] {
        let loki = Loki::start(Options { limits, ..Default::default() }).await;
        let (status, message) = push(&loki, &request);
        assert_eq!((status, loki.stored()), (413, 0), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_read_by_its_rules() {
    let time = now().to_string();
    let entries = |values: serde_json::Value| json!({"streams": [{"stream": {"a": "b"}, "values": values}]});
    let cases = [
        (entries(json!([[time, "hi", {"k": "v"}], [time, "ho"]])), 204),
        (entries(json!([])), 204),
        (json!({"streams": [{"stream": {"a": "\"\\\n"}, "values": [[time, "hi"]]}]}), 204),
        (entries(json!([[now(), "hi"]])), 400),
        (entries(json!([["now", "hi"]])), 400),
        (entries(json!([["1.5", "hi"]])), 400),
        (entries(json!([[time, 5]])), 400),
        (entries(json!([[time]])), 400),
        (entries(json!([[time, "hi", {"k": 5}]])), 400),
        (entries(json!([[time, "hi", {"k": {"l": "v"}}]])), 400),
        (entries(json!([[time, "hi", "k"]])), 400),
        (entries(json!([[time, "hi", {}, 1]])), 400),
        (entries(json!({"time": time, "line": "hi"})), 400),
        (json!({"streams": [{"stream": {"a.b": "c"}, "values": [[time, "hi"]]}]}), 400),
        (json!({"streams": [{"stream": {"a": 1}, "values": [[time, "hi"]]}]}), 400),
        (json!({"streams": [{"stream": "{a=\"b\"}", "values": [[time, "hi"]]}]}), 400),
        (json!({"streams": [{"values": [[time, "hi"]]}]}), 400),
        (json!({"streams": [{"stream": {}, "values": [[time, "hi"]]}]}), 400),
        (json!({"streams": []}), 422),
        (json!({}), 422),
        (json!([]), 400),
    ];
    for (body, status) in cases {
        let loki = Loki::start(Options::default()).await;
        let (got, message) = post(&loki, "/loki/api/v1/push", &[JSON], body.to_string().as_bytes());
        assert_eq!(got, status, "{body}: {message}");
    }

    let loki = Loki::start(Options::default()).await;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(entries(json!([[time, "hi", {"k.x": "v"}]])).to_string().as_bytes()).unwrap();
    let headers = [("content-type", "application/json; charset=utf-8"), ("content-encoding", "gzip")];
    let (status, message) = post(&loki, "/loki/api/v1/push", &headers, &out.finish().unwrap());
    assert_eq!(status, 204, "{message}");
    let rows = loki.query(SINGLE, r#"{a="b"} | k_x="v""#);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].entry.time.to_string(), rows[0].entry.line.as_str()), (time, "hi"));
    assert!(loki.violations()[0].starts_with("metadata-name"), "{:?}", loki.violations());
    assert_eq!(post(&loki, "/loki/api/v1/push", &[JSON], b"{").0, 400);
}

/// What a real one takes and we do not like.
const ODD: &[(&str, Edit)] = &[
    ("wire-unknown-field", |r| r.streams[0].hash = 1),
    ("wire-unknown-field", |r| {
        r.streams[0].entries[0].parsed = vec![wire::Pair { name: "a".into(), value: "b".into() }];
    }),
    ("labels-unsorted", |r| set_labels(r, r#"{b="2", a="1"}"#)),
    ("label-empty", |r| set_labels(r, r#"{a="1", b=""}"#)),
    ("label-name", |r| set_labels(r, r#"{a__b="1"}"#)),
    ("stream-repeated", |r| set_labels(r, r#"{service_name="b"}"#)),
    ("stream-empty", |r| r.streams[0].entries.clear()),
    ("entries-unsorted", |r| r.streams[0].entries.reverse()),
    ("metadata-repeated", |r| {
        metadata(r, [("k".into(), "1".into()), ("k".into(), "2".into())]);
    }),
    ("metadata-name", |r| metadata(r, [("k.x".into(), "1".into())])),
    ("wire-utf8", |r| r.streams[0].entries[0].line = vec![0xff]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_careful_client_sends_is_found() {
    for (rule, edit) in ODD {
        let mut request = good();
        edit(&mut request);
        let loki = Loki::start(Options::default()).await;
        let (status, message) = push(&loki, &request);
        assert_eq!(status, 204, "{rule}: {message}");
        let violations = loki.violations();
        assert_eq!(violations.len(), 1, "{rule}: {violations:?}");
        assert!(violations[0].starts_with(&format!("{rule}:")), "{rule}: {violations:?}");
    }
    let loki = Loki::start(Options::default()).await;
    let text = labels::write(&vec![("a".into(), "é\"\\\n".into()), ("b".into(), "2".into())]);
    assert_eq!(push(&loki, &one(&text, now(), "é\n")).0, 204);
    assert_eq!(loki.violations(), Vec::<String>::new());
    let body = compress(&good());
    assert_eq!(post(&loki, "/loki/api/v1/push", &[("content-type", "text/plain")], &body).0, 204);
    assert!(loki.violations()[0].starts_with("content-type"));
}
