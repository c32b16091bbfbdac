//! What each action does, case by case, and what survives it.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::*;
use crate::config::types::Any;
use crate::pdata::testgen::assert_linear;
use crate::pdata::wire::put_bytes;
use crate::pipeline::{Ledger, Verdict, ack};
use crate::processors::matching::{AttributeCriterion, MatchConfig, MatchType};

fn kv(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn s(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn one_log(attributes: Vec<KeyValue>) -> Vec<u8> {
    let log_records = vec![LogRecord { attributes, ..Default::default() }];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] }
        .encode_to_vec()
}

fn attributes_of(bytes: &[u8]) -> Vec<KeyValue> {
    let request = ExportLogsServiceRequest::decode(bytes).unwrap();
    request.resource_logs[0].scope_logs[0].log_records[0].attributes.clone()
}

fn action(kind: ActionKind, key: &str) -> Action {
    Action { action: Some(kind), key: key.to_owned(), ..Default::default() }
}

fn value(kind: ActionKind, key: &str, value: Any) -> Action {
    Action { value, ..action(kind, key) }
}

fn pattern(kind: ActionKind, key: &str, pattern: &str) -> Action {
    Action { pattern: pattern.to_owned(), ..action(kind, key) }
}

fn from(kind: ActionKind, key: &str, from: &str) -> Action {
    Action { from_attribute: from.to_owned(), ..action(kind, key) }
}

fn convert(key: &str, to: ConvertedType) -> Action {
    Action { converted_type: Some(to), ..action(ActionKind::Convert, key) }
}

fn item_program(actions: Vec<Action>) -> Program {
    program(Signal::Logs, &[Processor::Attributes { actions, include: None, exclude: None }])
}

#[test]
fn each_action_does_what_its_name_says() {
    use ActionKind::{Delete, Extract, Hash, Insert, Update, Upsert};
    let x = || Any::Str("x".into());
    let old = |keys: &[&str]| keys.iter().map(|k| kv(k, s("old"))).collect::<Vec<_>>();
    let list = Value::ArrayValue(ArrayValue {
        values: vec![
            AnyValue { value: Some(Value::DoubleValue(1e21)) },
            AnyValue { value: Some(Value::BytesValue(vec![1, 2])) },
            AnyValue { value: Some(Value::DoubleValue(f64::NAN)) },
            AnyValue { value: None },
        ],
    });
    let map = Value::KvlistValue(KeyValueList {
        values: vec![kv("z", s("<\"é\n>")), kv("a", Value::IntValue(-1)), kv("z", Value::BoolValue(true))],
    });
    let cases: Vec<(&str, Vec<KeyValue>, Action, Vec<KeyValue>)> = vec![
        ("insert absent", old(&["a"]), value(Insert, "b", x()), vec![kv("a", s("old")), kv("b", s("x"))]),
        ("insert into nothing", vec![], value(Insert, "b", Any::Int(-1)), vec![kv("b", Value::IntValue(-1))]),
        ("insert present", old(&["a"]), value(Insert, "a", x()), old(&["a"])),
        ("update absent", old(&["a"]), value(Update, "b", x()), old(&["a"])),
        (
            "update present",
            old(&["a", "b"]),
            value(Update, "a", x()),
            vec![kv("a", s("x")), kv("b", s("old"))],
        ),
        ("upsert absent", old(&["a"]), value(Upsert, "b", x()), vec![kv("a", s("old")), kv("b", s("x"))]),
        (
            "upsert first of two",
            old(&["a", "a"]),
            value(Upsert, "a", x()),
            vec![kv("a", s("x")), kv("a", s("old"))],
        ),
        (
            "a false value",
            vec![],
            value(Insert, "a", Any::Bool(false)),
            vec![kv("a", Value::BoolValue(false))],
        ),
        ("a zero", vec![], value(Insert, "a", Any::Float(0.0)), vec![kv("a", Value::DoubleValue(0.0))]),
        ("an empty string", vec![], value(Insert, "a", Any::Str(String::new())), vec![kv("a", s(""))]),
        ("copy", old(&["a"]), from(Insert, "b", "a"), vec![kv("a", s("old")), kv("b", s("old"))]),
        ("copy of nothing", old(&["a"]), from(Upsert, "a", "b"), old(&["a"])),
        ("copy to itself", old(&["a"]), from(Update, "a", "a"), old(&["a"])),
        ("delete all of a key", old(&["a", "b", "a"]), action(Delete, "a"), old(&["b"])),
        (
            "delete by pattern",
            old(&["http.a", "b", "x.http"]),
            pattern(Delete, "", "^http"),
            old(&["b", "x.http"]),
        ),
        ("delete by both", old(&["http.a", "b", "c"]), pattern(Delete, "c", "http"), old(&["b"])),
        ("delete absent", old(&["a"]), action(Delete, "b"), old(&["a"])),
        (
            "hash a string",
            vec![kv("a", s("abc"))],
            action(Hash, "a"),
            vec![kv("a", s("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))],
        ),
        ("hash nothing", vec![kv("a", s(""))], action(Hash, "a"), vec![kv("a", s(""))]),
        (
            "hash a boolean",
            vec![kv("a", Value::BoolValue(true))],
            pattern(Hash, "", "."),
            vec![kv("a", s("4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"))],
        ),
        (
            "hash an integer",
            vec![kv("a", Value::IntValue(1))],
            action(Hash, "a"),
            vec![kv("a", s("7c9fa136d4413fa6173637e883b6998d32e1d675f88cddff9dcbcf331820f4b8"))],
        ),
        (
            "extract",
            vec![kv("a", s("/api/v1/x")), kv("v", Value::IntValue(1))],
            pattern(Extract, "a", "^/(?P<p>[a-z]+)/(?P<v>v\\d)"),
            vec![kv("a", s("/api/v1/x")), kv("v", s("v1")), kv("p", s("api"))],
        ),
        (
            "extract over its own key",
            vec![kv("a", s("left-right"))],
            pattern(Extract, "a", "(?P<a>.*)-(?P<b>.*)"),
            vec![kv("a", s("left")), kv("b", s("right"))],
        ),
        (
            "extract a group that has no part",
            vec![kv("a", s("x"))],
            pattern(Extract, "a", "(?P<b>x)|(?P<c>y)"),
            vec![kv("a", s("x")), kv("b", s("x")), kv("c", s(""))],
        ),
        ("extract without a match", old(&["a"]), pattern(Extract, "a", "(?P<b>\\d)"), old(&["a"])),
        (
            "extract from a number",
            vec![kv("a", Value::IntValue(12))],
            pattern(Extract, "a", "(?P<b>\\d)"),
            vec![kv("a", Value::IntValue(12))],
        ),
        (
            "text to integer",
            vec![kv("a", s("-12"))],
            convert("a", ConvertedType::Int),
            vec![kv("a", Value::IntValue(-12))],
        ),
        (
            "text that is no integer",
            vec![kv("a", s("1.5"))],
            convert("a", ConvertedType::Int),
            vec![kv("a", s("1.5"))],
        ),
        (
            "number to integer",
            vec![kv("a", Value::DoubleValue(-2.9))],
            convert("a", ConvertedType::Int),
            vec![kv("a", Value::IntValue(-2))],
        ),
        (
            "text to number",
            vec![kv("a", s("1.5e3"))],
            convert("a", ConvertedType::Double),
            vec![kv("a", Value::DoubleValue(1500.0))],
        ),
        (
            "text that overflows",
            vec![kv("a", s("1e999"))],
            convert("a", ConvertedType::Double),
            vec![kv("a", s("1e999"))],
        ),
        (
            "number to text",
            vec![kv("a", Value::DoubleValue(1e-7))],
            convert("a", ConvertedType::Str),
            vec![kv("a", s("1e-7"))],
        ),
        (
            "large number to text",
            vec![kv("a", Value::DoubleValue(-1e21))],
            convert("a", ConvertedType::Str),
            vec![kv("a", s("-1e+21"))],
        ),
        (
            "infinity to text",
            vec![kv("a", Value::DoubleValue(f64::NEG_INFINITY))],
            convert("a", ConvertedType::Str),
            vec![kv("a", s("-Infinity"))],
        ),
        (
            "list to text",
            vec![kv("a", list)],
            convert("a", ConvertedType::Str),
            vec![kv("a", s(r#"[1e+21,"AQI=","NaN",null]"#))],
        ),
        (
            "map to text",
            vec![kv("a", map)],
            convert("a", ConvertedType::Str),
            vec![kv("a", s(r#"{"a":-1,"z":true}"#))],
        ),
    ];
    for (name, before, action, want) in cases {
        let bytes = one_log(before.clone());
        let (out, applied) = edited(&item_program(vec![action.clone()]), Signal::Logs, &bytes);
        assert_eq!(attributes_of(&out), want, "{name}");
        assert_eq!(
            applied,
            Applied { changed: before != want, malformed: 0, ..Applied::default() },
            "{name}"
        );

        // The same on a resource.
        let resource = Some(Resource { attributes: before, ..Default::default() });
        let request =
            ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, ..Default::default() }] };
        let program = program(Signal::Logs, &[Processor::Resource(vec![action])]);
        let (out, _) = edited(&program, Signal::Logs, &request.encode_to_vec());
        let request = ExportLogsServiceRequest::decode(out).unwrap();
        assert_eq!(
            request.resource_logs[0].resource.as_ref().unwrap().attributes,
            want,
            "{name} on a resource"
        );
    }
}

#[test]
fn values_come_from_the_client() {
    let context =
        |key: &str, from: &str| Action { from_context: from.into(), ..action(ActionKind::Insert, key) };
    let actions = vec![
        context("joined", "metadata.TENANT"),
        context("bare", "tenant"),
        context("user", "auth.subject"),
        context("peer", "client.address"),
        context("empty", "metadata.none"),
        context("absent", "metadata.absent"),
        context("nobody", "auth.absent"),
    ];
    let (out, _) = edited(&item_program(actions), Signal::Logs, &one_log(vec![]));
    let want = [("joined", "one;two"), ("bare", "one;two"), ("user", "me"), ("peer", "::1")];
    assert_eq!(attributes_of(&out), want.map(|(k, v)| kv(k, s(v))));
}

#[test]
fn later_processors_see_what_earlier_ones_left() {
    let upsert = |key: &str, v: &str| value(ActionKind::Upsert, key, Any::Str(v.into()));
    let when = |key: &str| MatchConfig {
        match_type: Some(MatchType::Strict),
        resources: vec![AttributeCriterion { key: key.into(), ..Default::default() }],
        ..Default::default()
    };
    let on = |key: &str, action: Action| Processor::Attributes {
        actions: vec![action],
        include: Some(when(key)),
        exclude: None,
    };
    // The resource attribute exists only between the second and the fourth processor.
    let processors = [
        on("r", upsert("before", "x")),
        Processor::Resource(vec![upsert("r", "1")]),
        on("r", upsert("between", "x")),
        Processor::Resource(vec![action(ActionKind::Delete, "r")]),
        on("r", upsert("after", "x")),
    ];
    let (out, _) = edited(&program(Signal::Logs, &processors), Signal::Logs, &one_log(vec![]));
    assert_eq!(attributes_of(&out), [kv("between", s("x"))]);
}

#[test]
fn unknown_fields_and_bytes_that_are_not_utf8_survive() {
    // A pair with its value first, a field of our tomorrow and a key that is not UTF-8.
    let mut pair = Vec::new();
    put_bytes(&mut pair, 2, b"\x0a\x02\xff\xfe");
    put_bytes(&mut pair, 9, b"tomorrow");
    put_bytes(&mut pair, 1, b"\xffkey");
    let mut record = vec![0x15, 1, 2, 3, 4];
    put_bytes(&mut record, 6, &pair);
    put_bytes(&mut record, 1000, b"later");
    let wrap = |record: &[u8]| {
        let (mut scope, mut group, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut scope, 2, record);
        put_bytes(&mut group, 2, &scope);
        put_bytes(&mut request, 1, &group);
        request
    };
    let (out, applied) =
        edited(&item_program(vec![pattern(ActionKind::Hash, "", "key")]), Signal::Logs, &wrap(&record));
    assert_eq!(applied, Applied { changed: true, malformed: 0, ..Applied::default() });
    let digest: String = {
        use sha2::Digest as _;
        sha2::Sha256::digest(b"\xff\xfe").iter().map(|b| format!("{b:02x}")).collect()
    };
    let mut hashed = vec![0x0a, 64];
    hashed.extend_from_slice(digest.as_bytes());
    let mut pair = Vec::new();
    put_bytes(&mut pair, 1, b"\xffkey");
    put_bytes(&mut pair, 2, &hashed);
    put_bytes(&mut pair, 9, b"tomorrow");
    let mut record = vec![0x15, 1, 2, 3, 4];
    put_bytes(&mut record, 6, &pair);
    put_bytes(&mut record, 1000, b"later");
    assert_eq!(out, wrap(&record));
}

#[test]
fn a_broken_item_stays_and_is_counted() {
    let good = LogRecord { attributes: vec![kv("a", s("x"))], ..Default::default() }.encode_to_vec();
    let broken: &[&[u8]] = &[b"\x32\x05\x0a\x01", b"\x30\x01", b"\x0b", b"\x32\x03\x0a\x09a"];
    for broken in broken {
        let (mut scope, mut group, mut request) = (Vec::new(), Vec::new(), Vec::new());
        for record in [&good, *broken, &good] {
            put_bytes(&mut scope, 2, record);
        }
        put_bytes(&mut group, 2, &scope);
        put_bytes(&mut request, 1, &group);
        let program = item_program(vec![value(ActionKind::Upsert, "a", Any::Bool(true))]);
        let (out, applied) = edited(&program, Signal::Logs, &request);
        assert_eq!(applied, Applied { changed: true, malformed: 1, ..Applied::default() });
        let mut cursor = Cursor::new(&out);
        let group = cursor.next_field().unwrap().unwrap().value.bytes().unwrap();
        let scope = Cursor::new(group).next_field().unwrap().unwrap().value.bytes().unwrap();
        let mut records = Cursor::new(scope);
        let mut next = || records.next_field().unwrap().unwrap().value.bytes().unwrap();
        let edited = LogRecord { attributes: vec![kv("a", Value::BoolValue(true))], ..Default::default() };
        assert_eq!(next(), edited.encode_to_vec());
        assert_eq!(next(), *broken);
        assert_eq!(next(), edited.encode_to_vec());
    }
}

#[test]
fn what_is_not_edited_is_referenced_not_copied() {
    let records: Vec<LogRecord> = (0..1000)
        .map(|i| LogRecord { attributes: vec![kv("i", Value::IntValue(i))], ..Default::default() })
        .collect();
    let group = ResourceLogs {
        resource: Some(Resource { attributes: vec![kv("a", s("x"))], ..Default::default() }),
        scope_logs: vec![ScopeLogs { log_records: records, ..Default::default() }],
        ..Default::default()
    };
    let bytes = ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec();
    let mut batch = batch(Signal::Logs, &[&bytes]);
    let original = batch.rope.pieces()[0].clone();
    let untouched = batch.rope.clone();
    let within = |piece: &Bytes| original.as_ptr_range().contains(&piece.as_ptr());

    // Nothing to do: the same bytes.
    let same =
        program(Signal::Logs, &[Processor::Resource(vec![value(ActionKind::Update, "b", Any::Int(1))])]);
    assert!(!same.apply(&mut batch).changed);
    assert_eq!(batch.rope.pieces()[0].as_ptr(), original.as_ptr());

    // A resource: one new piece, one reference to the scopes; the memory is accounted for.
    let ledger = Ledger::new(usize::MAX);
    batch.leases.push(Arc::new(ledger.reserve(bytes.len()).unwrap()));
    let resource =
        program(Signal::Logs, &[Processor::Resource(vec![value(ActionKind::Upsert, "a", Any::Int(1))])]);
    assert!(resource.apply(&mut batch).changed);
    assert_eq!(batch.rope.pieces().iter().map(within).collect::<Vec<_>>(), [false, true]);
    assert!(ledger.used() > bytes.len() && ledger.used() < bytes.len() + 2048, "{}", ledger.used());

    // One item in the middle: everything around it is referenced.
    let one = Processor::Attributes {
        actions: vec![value(ActionKind::Upsert, "b", Any::Int(1))],
        include: Some(MatchConfig {
            match_type: Some(MatchType::Strict),
            attributes: vec![AttributeCriterion { key: "i".into(), value: Any::Int(500) }],
            ..Default::default()
        }),
        exclude: None,
    };
    batch.rope = untouched;
    assert!(program(Signal::Logs, &[one]).apply(&mut batch).changed);
    assert!(batch.rope.pieces().len() <= 5, "{}", batch.rope.pieces().len());
    let referenced: usize = batch.rope.pieces().iter().filter(|p| within(p)).map(Bytes::len).sum();
    assert!(referenced > bytes.len() * 9 / 10);

    // Every item: one contiguous buffer, and the original's memory is given back.
    let all = item_program(vec![value(ActionKind::Upsert, "b", Any::Int(2))]);
    assert!(all.apply(&mut batch).changed);
    assert_eq!(batch.rope.pieces().len(), 1);
    assert_eq!(batch.leases.len(), 1);
    drop(batch);
    assert_eq!(ledger.used(), 0);
}

#[test]
fn acknowledgements_and_client_are_kept() {
    let (ack, mut verdict) = ack();
    let mut batch = batch(Signal::Logs, &[&one_log(vec![])]);
    batch.acks = Acks::from(ack);
    assert!(item_program(vec![value(ActionKind::Upsert, "b", Any::Int(2))]).apply(&mut batch).changed);
    batch.acks.resolve(Verdict::Accepted);
    assert_eq!(verdict.try_recv(), Ok(Verdict::Accepted));
}

#[test]
fn hostile_input_costs_linear_time() {
    // A pair whose value stands again and again; a list nested without end; many resources.
    let repeated = |n: usize| {
        let pair = [b"\x0a\x01k".as_slice(), &[0x12, 0x02, 0x18, 0x01].repeat(n)].concat();
        let (mut record, mut scope, mut group, mut request) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut record, 6, &pair);
        put_bytes(&mut scope, 2, &record);
        put_bytes(&mut group, 2, &scope);
        put_bytes(&mut request, 1, &group);
        request
    };
    let program = item_program(vec![
        pattern(ActionKind::Delete, "x", "^y"),
        convert("k", ConvertedType::Str),
        value(ActionKind::Insert, "z", Any::Int(1)),
    ]);
    assert_linear(repeated, |bytes| edited(&program, Signal::Logs, bytes), 20_000);
    let resources = |n: usize| {
        let mut request = Vec::new();
        put_bytes(&mut request, 1, b"\x0a\x00");
        request.extend(b"\x0a\x02\x0a\x00".repeat(n));
        request
    };
    let upsert = program_of_resource();
    assert_linear(resources, |bytes| edited(&upsert, Signal::Logs, bytes), 20_000);
}

#[test]
fn a_value_nested_too_deep_is_left_alone() {
    let mut value = vec![0x18, 1];
    for _ in 0..200 {
        let (mut list, mut outer) = (Vec::new(), Vec::new());
        put_bytes(&mut list, 1, &value);
        put_bytes(&mut outer, 5, &list);
        value = outer;
    }
    let (mut pair, mut record, mut scope, mut group, mut request) = (vec![], vec![], vec![], vec![], vec![]);
    put_bytes(&mut pair, 1, b"k");
    put_bytes(&mut pair, 2, &value);
    put_bytes(&mut record, 6, &pair);
    put_bytes(&mut scope, 2, &record);
    put_bytes(&mut group, 2, &scope);
    put_bytes(&mut request, 1, &group);
    let program = item_program(vec![convert("k", ConvertedType::Str)]);
    let (out, applied) = edited(&program, Signal::Logs, &request);
    assert_eq!(out, request);
    assert_eq!(applied, Applied { changed: false, malformed: 1, ..Applied::default() });
}

fn program_of_resource() -> Program {
    program(Signal::Logs, &[Processor::Resource(vec![value(ActionKind::Upsert, "a", Any::Int(1))])])
}
