//! What stands in the files, and who is told what when it does not.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::config::types::Optional;
use crate::config::{Config, Cx, Key, Node, Pos, Value};
use crate::exporters::testing::{batch, build_context, run_context};
use crate::pdata::wire::put_bytes;
use crate::pipeline::Verdict;

const LINE: &str = concat!(
    r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"b"}}]},"#,
    r#""scopeLogs":[{"logRecords":[{"timeUnixNano":"1","severityNumber":9,"body":{"stringValue":"x"}}]}]}]}"#
);

/// The golden logs request of the mapping.
const REQUEST: &[u8] =
    b"\n \n\n\n\x08\n\x01a\x12\x03\n\x01b\x12\x12\x12\x10\t\x01\0\0\0\0\0\0\0\x10\t*\x03\n\x01x";

fn config(path: &Path) -> FileConfig {
    FileConfig { path: path.to_str().unwrap().to_owned(), ..FileConfig::default() }
}

/// Writes the requests one after the other and returns the verdicts.
async fn run(config: &FileConfig, requests: &[Vec<u8>]) -> Vec<Verdict> {
    let (cx, metrics) = build_context("file");
    let exporter = build(config, Signal::Logs, &cx).unwrap();
    exporter.start(&run_context(&metrics)).await.unwrap();
    let mut verdicts = Vec::new();
    for request in requests {
        let (batch, verdict) = batch(Signal::Logs, request, 1);
        exporter.consume(batch);
        verdicts.push(verdict.await.unwrap());
    }
    let left = exporter.drain(Instant::now() + Duration::from_secs(30)).await;
    assert_eq!(left, Leftover::default());
    verdicts
}

fn grouped(value: &str) -> Vec<u8> {
    let mut request = Vec::new();
    let nest = |number: u32, body: &[u8]| {
        let mut out = Vec::new();
        put_bytes(&mut out, number, body);
        out
    };
    let key = nest(1, b"tenant");
    let text = nest(2, &nest(1, value.as_bytes()));
    request.extend(nest(1, &nest(1, &nest(1, &[key, text].concat()))));
    request
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn json_is_one_document_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    std::fs::write(&path, "old\n").unwrap();
    let verdicts = run(&config(&path), &[REQUEST.to_vec(), REQUEST.to_vec()]).await;
    assert_eq!(verdicts, [Verdict::Accepted, Verdict::Accepted]);
    assert_eq!(lines(&path), [LINE, LINE]);

    let again = FileConfig { append: true, ..config(&path) };
    run(&again, &[REQUEST.to_vec()]).await;
    assert_eq!(lines(&path), [LINE, LINE, LINE]);
}

#[tokio::test]
async fn proto_and_zstd_stand_behind_their_length() {
    let dir = tempfile::tempdir().unwrap();
    let record = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), 4 + len, "one record");
        bytes[4..].to_vec()
    };
    let path = dir.path().join("plain");
    run(&FileConfig { format: Format::Proto, ..config(&path) }, &[REQUEST.to_vec()]).await;
    assert_eq!(record(&path), REQUEST);

    for (format, want) in [(Format::Proto, REQUEST), (Format::Json, LINE.as_bytes())] {
        let path = dir.path().join(format.word());
        let params = CompressionParams { level: 19 };
        let config = FileConfig {
            format,
            compression: Compression::Zstd,
            compression_params: params,
            ..config(&path)
        };
        run(&config, &[REQUEST.to_vec()]).await;
        assert_eq!(zstd::bulk::decompress(&record(&path), 1 << 16).unwrap(), want);
    }
}

#[tokio::test]
async fn signals_share_one_file_and_others_may_not_disturb_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    let (cx, metrics) = build_context("file");
    let logs = build(&config(&path), Signal::Logs, &cx).unwrap();
    let traces = build(&config(&path), Signal::Traces, &cx).unwrap();
    let run = run_context(&metrics);
    logs.start(&run).await.unwrap();
    traces.start(&run).await.unwrap();
    for (exporter, signal) in [(&logs, Signal::Logs), (&traces, Signal::Traces), (&logs, Signal::Logs)] {
        let (batch, verdict) = batch(signal, b"\n\0", 1);
        exporter.consume(batch);
        assert_eq!(verdict.await, Ok(Verdict::Accepted));
    }
    let empty = [r#"{"resourceLogs":[{}]}"#, r#"{"resourceSpans":[{}]}"#, r#"{"resourceLogs":[{}]}"#];
    assert_eq!(lines(&path), empty);

    let (other, _) = build_context("file/other");
    let config = FileConfig { format: Format::Proto, ..config(&path) };
    let refused = build(&config, Signal::Logs, &other).unwrap().start(&run).await.unwrap_err();
    assert!(refused.to_string().contains("written by the exporter file"), "{refused}");
    // The same exporter with other settings, as after a reload, goes on in the same file.
    let reloaded = build(&config, Signal::Logs, &cx).unwrap();
    reloaded.start(&run).await.unwrap();
    assert_eq!(lines(&path), empty);
}

#[tokio::test]
async fn full_files_are_renamed_and_old_ones_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    std::fs::write(dir.path().join("out-2001-01-01T00-00-00.000.json"), "ancient").unwrap();
    std::fs::write(dir.path().join("out-notes.json"), "not ours").unwrap();
    let mut big = Vec::new();
    let mut group = Vec::new();
    put_bytes(&mut group, 3, &vec![b'u'; 700_000]);
    put_bytes(&mut big, 1, &group);
    let rotation = RotationConfig { max_megabytes: 1, max_backups: 2, ..RotationConfig::default() };
    let config = FileConfig { rotation: Optional::on(rotation), ..config(&path) };
    run(&config, &vec![big; 5]).await;
    let names = names(dir.path());
    assert_eq!(names.len(), 4, "two old, one current, one of another kind: {names:?}");
    assert!(names.contains(&"out.json".to_owned()) && names.contains(&"out-notes.json".to_owned()));
    let year = chrono::Utc::now().format("out-%Y-").to_string();
    assert_eq!(names.iter().filter(|name| name.starts_with(&year)).count(), 2, "{names:?}");
    for name in names.iter().filter(|name| name.starts_with(&year)) {
        assert_eq!(lines(&dir.path().join(name)).len(), 1, "whole records");
    }
}

#[test]
fn old_files_go_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let stamp = |days: u64| {
        let time = chrono::Utc::now().checked_sub_days(chrono::Days::new(days)).unwrap();
        format!("out-{}", time.format("%Y-%m-%dT%H-%M-%S%.3f"))
    };
    for days in [1, 3, 5] {
        std::fs::write(dir.path().join(stamp(days)), "").unwrap();
    }
    let rotation = RotationConfig { max_days: 4, ..RotationConfig::default() };
    drop(Output::open(&path, true, Some(rotation)).unwrap());
    assert_eq!(names(dir.path()).len(), 3, "two young ones and the file itself");
}

#[tokio::test]
async fn groups_go_to_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tenants/*/logs.json");
    let group_by =
        GroupByConfig { enabled: true, resource_attribute: "tenant".to_owned(), max_open_files: 2 };
    let config = FileConfig { group_by, create_directory: true, ..config(&path) };
    let both = [grouped("a"), grouped("b"), grouped("a"), b"\n\0".to_vec()].concat();
    let verdicts = run(&config, &[both, grouped("../../../c"), grouped("a"), grouped("d/e")]).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Accepted), "{verdicts:?}");
    let count = |name: &str| {
        let path = dir.path().join("tenants").join(name).join("logs.json");
        lines(&path).iter().map(|line| line.matches("\"resource\"").count()).collect::<Vec<_>>()
    };
    assert_eq!(count("a"), [2, 1]);
    assert_eq!(count("b"), [1]);
    assert_eq!(count("c"), [1]);
    assert_eq!(count("d/e"), [1]);
    assert_eq!(count("MISSING"), [0]);
    assert_eq!(names(dir.path()), ["tenants"]);
    assert_eq!(names(&dir.path().join("tenants")), ["MISSING", "a", "b", "c", "d"]);
}

#[tokio::test]
async fn what_cannot_be_written_goes_back_to_its_sender() {
    let (cx, metrics) = build_context("file");
    let dir = tempfile::tempdir().unwrap();
    let missing = config(&dir.path().join("no/such/folder/out"));
    let error = build(&missing, Signal::Logs, &cx).unwrap().start(&run_context(&metrics)).await.unwrap_err();
    assert!(error.to_string().contains("create_directory"), "{error}");

    let exporter = build(&missing, Signal::Logs, &cx).unwrap();
    let (early, verdict) = batch(Signal::Logs, REQUEST, 1);
    exporter.consume(early);
    assert!(matches!(verdict.await, Ok(Verdict::Retry { .. })), "before the start");

    if Path::new("/dev/full").exists() {
        let full = FileConfig { append: true, ..config(Path::new("/dev/full")) };
        let verdicts = run(&full, &[REQUEST.to_vec()]).await;
        assert!(matches!(&verdicts[..], [Verdict::Retry { reason, .. }] if reason.contains("cannot write")));
    }

    let path = dir.path().join("out.json");
    let verdicts = run(&config(&path), &[b"\n\x05".to_vec(), REQUEST.to_vec()]).await;
    assert!(matches!(&verdicts[0], Verdict::Rejected { bad_data: true, .. }), "{verdicts:?}");
    assert_eq!(lines(&path), [LINE], "nothing of the malformed request");
}

#[tokio::test]
async fn every_item_is_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let (_, metrics) = build_context("file");
    let items = ExporterItems::new(&metrics, "file", Signal::Logs);
    let thread = Thread::start(
        "test",
        FileWriter::open(&config(&dir.path().join("out")), true).unwrap(),
        &Supervisor::default(),
    )
    .unwrap();
    let entrance = Entrance::new(items.clone());
    for (request, count) in [(REQUEST, 3), (b"\n\x05", 4), (REQUEST, 5)] {
        entrance.offer(Some(&thread), batch(Signal::Logs, request, count).0);
    }
    entrance.offer(None, batch(Signal::Logs, REQUEST, 2).0);
    let mut unwanted = batch(Signal::Logs, REQUEST, 1).0;
    unwanted.acks = crate::pipeline::Acks::none();
    entrance.offer(None, unwanted);
    let left = entrance.drain(Some(&thread), Instant::now() + Duration::from_secs(30)).await;
    assert_eq!(left, Leftover::default());
    assert_eq!(items.totals(), [15, 8, 5, 2], "offered, sent, dropped, refused");
}

#[test]
fn keys_are_checked() {
    let text = |s: &str| Value::Str(s.to_owned());
    let flag = |b: bool| Value::Bool(b);
    let map = |entries: Vec<(&str, Value)>| {
        let entry = |(key, value): (&str, Value)| {
            let pos = Pos { source: 0, line: 1, col: 1 };
            (Key { pos, text: key.to_owned() }, Node::new(pos, value))
        };
        Value::Map(entries.into_iter().map(entry).collect())
    };
    let groups = |path: &str| vec![("path", text(path)), ("group_by", map(vec![("enabled", flag(true))]))];
    let cases: Vec<(Vec<(&str, Value)>, Option<&str>)> = vec![
        (vec![("path", text("x"))], None),
        (vec![], Some("path must be non-empty")),
        (vec![("path", text("x")), ("format", text("xml"))], Some("unsupported value \"xml\"")),
        (vec![("path", text("x")), ("compression", text("gzip"))], Some("unsupported value \"gzip\"")),
        (vec![("path", text("x")), ("flush_interval", Value::Int(0))], Some("larger than zero")),
        (vec![("path", text("x")), ("encoding", text("otlp"))], Some("\"encoding\" is not supported")),
        (
            vec![("path", text("x")), ("append", flag(true)), ("compression", text("zstd"))],
            Some("append cannot be used with compression"),
        ),
        (
            vec![("path", text("x")), ("append", flag(true)), ("rotation", map(vec![]))],
            Some("append cannot be used with rotation"),
        ),
        (vec![("path", text("x")), ("append", flag(true)), ("rotation", Value::Null)], None),
        (
            vec![("path", text("x")), ("rotation", map(vec![("max_megabytes", Value::Int(0))]))],
            Some("max_megabytes must be larger than zero"),
        ),
        (
            vec![("path", text("x")), ("compression_params", map(vec![("level", Value::Int(3))]))],
            Some("no effect without compression"),
        ),
        (groups("/data/*.json"), None),
        (groups("data/*/x.json"), None),
        (groups("/data/x.json"), Some("exactly one *")),
        (groups("/data/*/*.json"), Some("exactly one *")),
        (groups("/*/x.json"), Some("first segment")),
        (groups("*.json"), Some("first segment")),
    ];
    for (entries, want) in cases {
        let mut cx = Cx::default();
        let node = Node::new(Pos::default(), map(entries));
        FileConfig::default().decode_into(&node, &mut cx);
        let got: Vec<&str> = cx.diags.iter().map(|diag| diag.message.as_str()).collect();
        match want {
            None => assert!(got.is_empty(), "{got:?}"),
            Some(want) => assert!(got.len() == 1 && got[0].contains(want), "{want}: {got:?}"),
        }
    }
}
