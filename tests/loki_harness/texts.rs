//! Label sets, names, queries, and how log records become entries.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::support::loki::query::Query;
use crate::support::loki::{Entry, Labels, labels, otlp};
use crate::support::otlp::{ToValue, attributes};

type Map<'a> = Vec<(&'a str, &'a dyn ToValue)>;

fn pairs(list: &[(&str, &str)]) -> Labels {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn label_sets_are_read() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        (r#"{a="b"}"#, &[("a", "b")]),
        (r#"{path="C:\\dir \"x\""}"#, &[("path", r#"C:\dir "x""#)]),
        (r#"{b="2", a="1", c=""}"#, &[("b", "2"), ("a", "1"), ("c", "")]),
        (r#" { a = "b" , _c9 = "" , } "#, &[("a", "b"), ("_c9", "")]),
        ("{}", &[]),
        (r#"{a="\n\t\x41\u00e9\U0001F600\101é"}"#, &[("a", "\n\tAé😀Aé")]),
    ];
    for (text, want) in cases {
        assert_eq!(labels::parse(text.as_bytes()), Ok(pairs(want)), "{text}");
    }
    let all = pairs(&[("a", "\"\\\n\r\t\u{1}é"), ("b", "")]);
    assert_eq!(labels::write(&all), "{a=\"\\\"\\\\\\n\\r\\t\\x01é\", b=\"\"}");
    assert_eq!(labels::parse(labels::write(&all).as_bytes()), Ok(all));
}

#[test]
fn other_label_sets_are_refused() {
    for text in [
        "",
        "a",
        r#"a="b""#,
        r#"{a="b""#,
        r#"{a="b"}}"#,
        r#"{a="b"} x"#,
        r#"{a="b" c="d"}"#,
        r#"{a="b",,}"#,
        r#"{,}"#,
        r#"{a='b'}"#,
        r#"{a=b}"#,
        r#"{a!="b"}"#,
        r#"{a=~"b"}"#,
        r#"{a.b="c"}"#,
        r#"{1a="c"}"#,
        r#"{é="c"}"#,
        r#"{="c"}"#,
        r#"{"a"="c"}"#,
        r#"up{a="c"}"#,
        "{a=\"b\nc\"}",
        r#"{a="\q"}"#,
        r#"{a="\x4"}"#,
        r#"{a="\x+4"}"#,
        r#"{a="\ud800"}"#,
        r#"{a="\777"}"#,
        r#"{a="\"}"#,
        r#"{a="\'"}"#,
    ] {
        assert!(labels::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn names_are_normalised() {
    for (name, want) in [
        ("label:with:colons", "label_with_colons"),
        ("LabelWithCapitalLetters", "LabelWithCapitalLetters"),
        ("label!with&special$chars)", "label_with_special_chars_"),
        ("label_with_foreign_characters_字符", "label_with_foreign_characters_"),
        ("label.with.dots", "label_with_dots"),
        (".foo", "_foo"),
        ("123label", "key_123label"),
        ("_label_starting_with_underscore", "_label_starting_with_underscore"),
        ("__label_starting_with_2underscores", "_label_starting_with_2underscores"),
        ("label__with__double__underscores", "label_with_double_underscores"),
        ("label.name__with&&special##chars", "label_name_with_special_chars"),
        ("__reserved__label__name__", "__reserved_label_name__"),
        ("trailing_underscores___", "trailing_underscores_"),
        ("__x", "_x"),
        ("..x", "_x"),
        ("__a..b__", "__a_b__"),
        ("0", "key_0"),
        ("http.method", "http_method"),
    ] {
        assert_eq!(labels::normalise(name).as_deref(), Some(want), "{name}");
        assert_eq!(labels::normalise(want).as_deref(), Some(want), "{name} again");
    }
    for name in ["", "_", "__", "____", "é", "_é", "ようこそ", "..."] {
        assert_eq!(labels::normalise(name), None, "{name}");
    }
}

struct Told {
    resource: Vec<KeyValue>,
    scope: Option<InstrumentationScope>,
    record: LogRecord,
}

/// Label text and entry of one record.
fn entry(told: Told) -> Result<(String, Entry), String> {
    let scope_logs =
        vec![ScopeLogs { scope: told.scope, log_records: vec![told.record], ..Default::default() }];
    let resource = Some(Resource { attributes: told.resource, ..Default::default() });
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource, scope_logs, ..Default::default() }],
    };
    let mut streams = otlp::streams(&request, &otlp::INDEX).map_err(|refusal| refusal.message)?;
    let mut stream = streams.remove(0);
    Ok((stream.text, stream.entries.remove(0)))
}

fn record(edit: impl FnOnce(&mut LogRecord)) -> Told {
    let mut record = LogRecord { time_unix_nano: 3, ..Default::default() };
    edit(&mut record);
    Told { resource: Vec::new(), scope: None, record }
}

fn any(value: impl ToValue) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value.to_value()) })
}

#[test]
fn records_become_entries() {
    let of = |edit: &dyn Fn(&mut LogRecord)| entry(record(edit)).unwrap().1;
    let resource =
        attributes(&[("service.name", &"auth"), ("deployment.environment.name", &"dev"), ("a", &"b")]);
    let (text, got) = entry(Told { resource, ..record(|_| ()) }).unwrap();
    assert_eq!(text, r#"{deployment_environment_name="dev", service_name="auth"}"#);
    assert_eq!(got.metadata, pairs(&[("a", "b")]));
    assert_eq!(entry(record(|_| ())).unwrap().0, r#"{service_name="unknown_service"}"#);

    let inner: Map = vec![("k_ey", &"w")];
    let nest: Map = vec![("fo@o", &"v"), ("m$ore", &inner)];
    let list: Vec<&dyn ToValue> = vec![&"foo"];
    let (fizz, empty): (Map, Map) = (vec![("fizz", &"buzz")], Vec::new());
    let list: Vec<&dyn ToValue> = vec![&1i64, &list, &fizz];
    let bytes = vec![1u8, 2, 3];
    let got = of(&|r| {
        r.attributes = attributes(&[
            ("st.r", &"x"),
            ("nest*ed", &nest),
            ("bytes", &bytes),
            ("list", &list),
            ("empty", &empty),
        ])
    });
    let want = [
        ("st_r", "x"),
        ("nest_ed_fo_o", "v"),
        ("nest_ed_m_ore_k_ey", "w"),
        ("bytes", "AQID"),
        ("list", r#"[1,["foo"],{"fizz":"buzz"}]"#),
    ];
    assert_eq!(got.metadata, pairs(&want));
    let bad = record(|r| r.attributes = attributes(&[("é", &"x")]));
    assert!(entry(bad).unwrap_err().contains('é'));

    let got = of(&|r| (r.time_unix_nano, r.observed_time_unix_nano) = (0, 5));
    assert_eq!((got.time, got.metadata), (5, pairs(&[])));
    let got = of(&|r| r.observed_time_unix_nano = 5);
    assert_eq!((got.time, got.metadata), (3, pairs(&[("observed_timestamp", "5")])));
    let got = of(&|r| (r.severity_number, r.severity_text) = (9, "Information".into()));
    assert_eq!(got.metadata, pairs(&[("severity_number", "9"), ("severity_text", "Information")]));
    let got = of(&|r| (r.flags, r.trace_id) = (1, vec![0xab; 16]));
    assert_eq!(got.metadata, pairs(&[("flags", "1"), ("trace_id", &"ab".repeat(16))]));
    let got = of(&|r| {
        r.event_name = "e".into();
        r.attributes = attributes(&[("event_name", &"f")]);
        r.dropped_attributes_count = 2;
    });
    assert_eq!(got.metadata, pairs(&[("dropped_attributes_count", "2"), ("event_name", "e")]));
    let scope = InstrumentationScope {
        name: "s".into(),
        version: "1".into(),
        attributes: attributes(&[("x", &"y")]),
        dropped_attributes_count: 0,
    };
    let (_, got) = entry(Told { scope: Some(scope), ..record(|_| ()) }).unwrap();
    assert_eq!(got.metadata, pairs(&[("x", "y"), ("scope_name", "s"), ("scope_version", "1")]));

    let body = |value: Option<AnyValue>| of(&|r| r.body = value.clone()).line;
    let unsorted: Map = vec![("b", &1i64), ("a", &"x")];
    assert_eq!(body(any(unsorted)), r#"{"a":"x","b":1}"#);
    assert_eq!((body(any(5i64)), body(any(vec![1u8])), body(None)), ("5".into(), "AQ==".into(), "".into()));
    for (value, want) in [
        (0.0, "0"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-2.5, "-2.5"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(body(any(value)), want);
    }
    let with_nan: Vec<&dyn ToValue> = vec![&f64::NAN, &true];
    assert_eq!(body(any(with_nan)), r#"["NaN",true]"#);
    assert_eq!(body(Some(AnyValue { value: None::<Value> })), "");
}

#[test]
fn queries_find_what_they_ask_for() {
    let entry = |time, line: &str, metadata: &[(&str, &str)]| Entry {
        time,
        line: line.to_owned(),
        metadata: pairs(metadata),
    };
    let shop = vec![
        entry(3, "late", &[("tenant_id", "a"), ("severity_number", "17")]),
        entry(1, "first\nsecond", &[("tenant_id", "b"), ("severity_text", "Information")]),
    ];
    let streams = [
        (pairs(&[("pod", "p1"), ("service_name", "shop")]), shop),
        (pairs(&[("level", "WARN"), ("service_name", "cart")]), vec![entry(2, "x", &[("tenant_id", "a")])]),
    ]
    .into();
    for (query, want) in [
        (r#"{service_name="shop"}"#, vec![1, 3]),
        (r#"{service_name=~"shop|cart"}"#, vec![1, 2, 3]),
        (r#"{service_name=~"sho"}"#, vec![]),
        (r#"{service_name!="",pod=""}"#, vec![2]),
        (r#"{service_name!~"s.*", level="WARN"}"#, vec![2]),
        // Metadata is not for selectors, and labels are for both.
        (r#"{tenant_id="a"}"#, vec![]),
        (r#"{service_name=~".+"} | tenant_id="a""#, vec![2, 3]),
        (r#"{service_name=~".+"} | tenant_id!="a""#, vec![1]),
        (r#"{service_name=~".+"} | service_name="cart" | tenant_id="a""#, vec![2]),
        (r#"{service_name=~".+"} |= "second""#, vec![1]),
        (r#"{service_name=~".+"} != "second" !~ "^l" |~ "x""#, vec![2]),
        (r#"{service_name=~".+"} | detected_level="info""#, vec![1]),
        (r#"{service_name=~".+"} | detected_level="error""#, vec![3]),
        (r#"{service_name=~".+"} | detected_level="warn""#, vec![2]),
    ] {
        let got: Vec<i64> = Query::parse(query).unwrap().run(&streams).iter().map(|r| r.entry.time).collect();
        assert_eq!(got, want, "{query}");
    }
    for query in ["", "{}", r#"{a=""}"#, r#"{a="b"} x"#, r#"{a="b"} | c"#, r#"{a=~"("}"#, r#"{a="b"} | json"#]
    {
        assert!(Query::parse(query).is_err(), "{query}");
    }
}
