//! The vectors of the mapping, and golden bytes.

use super::*;

fn default() -> LokiOptions {
    LokiOptions::default()
}

fn meta(own: Vec<(&str, AnyValue)>) -> String {
    metadata(&one(default(), vec![], None, record("x", own)))
}

#[test]
fn labels() {
    let resource = || {
        vec![("service.name", text("auth")), ("deployment.environment.name", text("dev")), ("a", text("b"))]
    };
    let entry = one(default(), resource(), None, record("hi", vec![]));
    assert_eq!(entry.labels, r#"{deployment_environment_name="dev", service_name="auth"}"#, "K1");
    assert_eq!(metadata(&entry), "a=b", "K1");
    assert_eq!(
        one(default(), vec![], None, record("x", vec![])).labels,
        r#"{service_name="unknown_service"}"#,
        "K2"
    );
    // With two more attributes that the default list leaves to metadata.
    let pod =
        vec![("service.name", text("a")), ("k8s.pod.name", text("p")), ("service.instance.id", text("i"))];
    let entry = one(default(), pod, None, record("x", vec![]));
    assert_eq!(entry.labels, r#"{service_name="a"}"#);
    assert_eq!(metadata(&entry), "k8s_pod_name=p service_instance_id=i");
}

#[test]
fn attributes_are_flat() {
    assert_eq!(meta(vec![("st.r", text("x"))]), "st_r=x", "K3");
    let nested = map(vec![("fo@o", text("v")), ("m$ore", map(vec![("k_ey", text("w"))]))]);
    assert_eq!(meta(vec![("nest*ed", nested)]), "nest_ed_fo_o=v nest_ed_m_ore_k_ey=w", "K4");
    assert_eq!(meta(vec![("b", bytes(&[1, 2, 3]))]), "b=AQID", "K5");
    let array = list(vec![int(1), list(vec![text("foo")]), map(vec![("fizz", text("buzz"))])]);
    assert_eq!(meta(vec![("a", array)]), r#"a=[1,["foo"],{"fizz":"buzz"}]"#, "K6");
    assert_eq!(meta(vec![("é", text("x")), ("ok", text("y")), ("", text("z"))]), "ok=y", "K7");
    assert_eq!(meta(vec![("empty", map(vec![])), ("none", text(""))]), "");
}

#[test]
fn times() {
    let at = |time: u64, observed: u64| LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: observed,
        ..LogRecord::default()
    };
    let entry = one(default(), vec![], None, at(0, 5));
    assert_eq!((entry.time, metadata(&entry).as_str()), (5, ""), "K8");
    let entry = one(default(), vec![], None, at(3, 5));
    assert_eq!((entry.time, metadata(&entry).as_str()), (3, "observed_timestamp=5"), "K9");
    let mut encoder = LokiEncoder::new(default());
    let bytes = request(vec![], None, vec![at(0, 0)]).encode_to_vec();
    let entry = entries(&encode(&mut encoder, &bytes).0[0]).remove(0);
    assert!(entry.time > 1_700_000_000_000_000_000, "now");
}

#[test]
fn record_fields() {
    let severity = |number: i32, text: &str| LogRecord {
        severity_number: number,
        severity_text: text.to_owned(),
        ..record("x", vec![])
    };
    let meta = |record: LogRecord| metadata(&one(default(), vec![], None, record));
    assert_eq!(meta(severity(9, "Information")), "severity_number=9 severity_text=Information", "K10");
    assert_eq!(meta(severity(17, "")), "severity_number=17", "K11");
    assert_eq!(meta(severity(17, "Custom")), "severity_number=17 severity_text=Custom", "K12");
    let traced = LogRecord {
        flags: 1,
        trace_id: (0..16).collect(),
        dropped_attributes_count: 4_000_000_000,
        ..record("x", vec![])
    };
    let want = "dropped_attributes_count=4000000000 flags=1 trace_id=000102030405060708090a0b0c0d0e0f";
    assert_eq!(meta(traced), want, "K13");
    let event = LogRecord { event_name: "e".to_owned(), ..record("x", vec![("event_name", text("f"))]) };
    assert_eq!(meta(event), "event_name=e", "K16");
    let spanned = LogRecord { span_id: vec![0xff; 8], ..record("x", vec![("span_id", text("own"))]) };
    assert_eq!(meta(spanned), "span_id=ffffffffffffffff");
}

#[test]
fn bodies() {
    let line = |body: Option<AnyValue>| {
        let record = LogRecord { time_unix_nano: 7, body, ..LogRecord::default() };
        one(default(), vec![], None, record).line
    };
    assert_eq!(line(Some(map(vec![("b", int(1)), ("a", text("x"))]))), r#"{"a":"x","b":1}"#, "K14");
    assert_eq!(line(Some(int(5))), "5", "K15");
    assert_eq!(line(Some(bytes(&[1]))), "AQ==", "K15");
    assert_eq!(line(None), "", "K15");
    assert_eq!(line(Some(text("Zeile 1\nZeile 2: größer 😀"))), "Zeile 1\nZeile 2: größer 😀");
}

#[test]
fn escapes() {
    let options = LokiOptions { labels: vec![(None, LabelSource::Resource("path".to_owned()))], ..default() };
    let entry = one(options, vec![("path", text(r#"C:\dir "x""#))], None, record("x", vec![]));
    assert_eq!(entry.labels, r#"{path="C:\\dir \"x\""}"#, "K17");
}

#[test]
fn scopes() {
    let scope = InstrumentationScope {
        name: "s".to_owned(),
        version: "1".to_owned(),
        attributes: attributes(vec![("x", text("y"))]),
        dropped_attributes_count: 2,
    };
    let entry = one(default(), vec![], Some(scope), record("x", vec![]));
    assert_eq!(metadata(&entry), "scope_dropped_attributes_count=2 scope_name=s scope_version=1 x=y", "K21");
}

#[test]
fn names_that_collide_are_sent_once() {
    let scope = InstrumentationScope {
        attributes: attributes(vec![("a.b", text("scope")), ("c", text("scope")), ("d", text("scope"))]),
        ..InstrumentationScope::default()
    };
    let resource = vec![("a_b", text("resource")), ("c", text("resource"))];
    let entry =
        one(default(), resource, Some(scope), record("x", vec![("a/b", text("own")), ("a.b", text("2nd"))]));
    assert_eq!(metadata(&entry), "a_b=own c=resource d=scope");
}

#[test]
fn json_form() {
    let options = LokiOptions { encoding: Encoding::Json { gzip: false }, ..default() };
    let own =
        LogRecord { time_unix_nano: 1_700_000_000_000_000_005, ..record("hi\n", vec![("k", text("v"))]) };
    let bytes = request(vec![("service.name", text("a\"b"))], None, vec![own]).encode_to_vec();
    let mut encoder = LokiEncoder::new(options);
    let body = encode(&mut encoder, &bytes).0.remove(0);
    let json = String::from_utf8(body.json(false).unwrap().to_vec()).unwrap();
    let want = r#"{"streams":[{"stream":{"service_name":"a\"b"},"values":[["1700000000000000005","hi\n",{"k":"v"}]]}]}"#;
    assert_eq!(json, want, "K19 and K20: the time is text");
}

#[test]
fn golden_bytes() {
    let options = LokiOptions {
        labels: vec![(Some("app".to_owned()), LabelSource::Resource("app".to_owned()))],
        ..default()
    };
    let own = LogRecord { time_unix_nano: 1_700_000_000_000_000_005, ..record("hi", vec![("k", text("v"))]) };
    let bytes = request(vec![("app", text("x"))], None, vec![own]).encode_to_vec();
    let body = encode(&mut LokiEncoder::new(options), &bytes).0.remove(0);
    let hex: String = body.message().unwrap().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "0a230a097b6170703d2278227d12160a080880e2cfaa061005120268691a060a016b120176");
}
