//! Each source, each action, what is missing, what is wrong in the config.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::*;
use crate::config::{Key, Pos, Value};
use crate::extensions::testing::{context, decode, text};
use crate::extensions::{basicauth, bearertokenauth};

fn node(entries: &[(&str, &str)]) -> Node {
    let entry = |(k, v): &(&str, &str)| {
        (Key { pos: Pos::default(), text: (*k).to_owned() }, Node::new(Pos::default(), text(v)))
    };
    Node::new(Pos::default(), Value::Map(entries.iter().map(entry).collect()))
}

fn decoded(headers: &[&[(&str, &str)]]) -> (HeadersSetterConfig, Vec<String>) {
    let list = Value::Seq(headers.iter().map(|header| node(header)).collect());
    decode::<HeadersSetterConfig>(&[("headers", list)])
}

async fn started(config: &HeadersSetterConfig, run: &RunContext, cx: &BuildContext) -> Arc<dyn ClientAuth> {
    let extension = build(config, cx).unwrap();
    assert!(extension.client_auth().is_none(), "before it is started");
    extension.start(run).await.unwrap();
    assert!(extension.server_auth().is_none());
    extension.client_auth().unwrap()
}

async fn setter(headers: &[&[(&str, &str)]]) -> (Arc<dyn ClientAuth>, BuildContext) {
    let (config, messages) = decoded(headers);
    assert_eq!(messages, Vec::<String>::new());
    let (run, cx) = context();
    (started(&config, &run, &cx).await, cx)
}

fn client(metadata: &[(&str, &[&str])], auth: &[(&str, &str)]) -> ClientInfo {
    let values = |v: &[&str]| v.iter().map(|v| (*v).to_owned()).collect::<SmallVec<[String; 1]>>();
    ClientInfo {
        metadata: metadata.iter().map(|(k, v)| ((*k).to_owned(), values(v))).collect(),
        auth: auth.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        address: None,
        certificate: None,
    }
}

/// The headers that a request with `before` has afterwards.
fn after(
    setter: &Arc<dyn ClientAuth>,
    client: &ClientInfo,
    before: &[(&str, &str)],
) -> Result<Vec<(String, String)>, Unauthorized> {
    let mut headers = HeaderMap::new();
    for (name, value) in before {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    setter.authorize(client, &mut headers)?;
    let pair = |(k, v): (&HeaderName, &HeaderValue)| (k.to_string(), v.to_str().unwrap().to_owned());
    let mut all: Vec<_> = headers.iter().map(pair).collect();
    all.sort();
    Ok(all)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[tokio::test]
async fn actions_do_what_they_say() {
    // action, what the request had, what it has then
    type Case =
        (&'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);
    let cases: [Case; 10] = [
        ("insert", &[], &[("x", "new")]),
        ("insert", &[("x", "old")], &[("x", "old")]),
        ("insert", &[("x", "")], &[("x", "new")]),
        ("update", &[], &[]),
        ("update", &[("x", "old")], &[("x", "new")]),
        ("update", &[("x", "a"), ("x", "b")], &[("x", "new")]),
        ("upsert", &[], &[("x", "new")]),
        ("upsert", &[("x", "old"), ("y", "1")], &[("x", "new"), ("y", "1")]),
        ("delete", &[("x", "old"), ("x", "older"), ("y", "1")], &[("y", "1")]),
        ("delete", &[], &[]),
    ];
    for (action, before, want) in cases {
        let value: &[(&str, &str)] = if action == "delete" { &[] } else { &[("value", "new")] };
        let header: Vec<_> = [("key", "X"), ("action", action)].iter().chain(value).copied().collect();
        let (setter, _) = setter(&[&header]).await;
        assert_eq!(after(&setter, &ClientInfo::default(), before), Ok(pairs(want)), "{action} on {before:?}");
    }
}

#[tokio::test]
async fn headers_are_set_in_order() {
    let (setter, _) = setter(&[
        &[("key", "a"), ("action", "insert"), ("value", "1")],
        &[("key", "A"), ("action", "update"), ("value", "2")],
        &[("key", "b"), ("action", "delete")],
        &[("key", "b"), ("action", "insert"), ("value", "3")],
    ])
    .await;
    assert_eq!(after(&setter, &ClientInfo::default(), &[("b", "0")]), Ok(pairs(&[("a", "2"), ("b", "3")])));
}

#[tokio::test]
async fn values_come_from_clients() {
    let (setter, cx) = setter(&[
        &[("key", "X-Scope-OrgID"), ("action", "upsert"), ("from_context", "X-Tenant")],
        &[
            ("key", "X-User"),
            ("action", "upsert"),
            ("from_attribute", "subject"),
            ("default_value", "nobody"),
        ],
    ])
    .await;
    let keys = [ClientKey::Metadata("X-Tenant".into()), ClientKey::Auth("subject".into())];
    assert_eq!(setter.reads(), keys);

    let known = client(&[("other", &["x"]), ("x-tenant", &["team-a"])], &[("raw", "?"), ("subject", "me")]);
    assert_eq!(after(&setter, &known, &[]), Ok(pairs(&[("x-scope-orgid", "team-a"), ("x-user", "me")])));

    // Nobody's data is never made somebody's, and an empty value is none.
    let missing = || {
        let family =
            cx.metrics.counter("tidegate_headers_setter_missing_values", "", &["extension", "header"]);
        family.unwrap().with_label_values(&["test", "x-scope-orgid"]).get()
    };
    for (i, nobody) in [
        client(&[], &[]),
        client(&[("x-tenant", &[])], &[]),
        client(&[("x-tenant", &[""])], &[("subject", "")]),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(after(&setter, nobody, &[]), Ok(pairs(&[("x-user", "nobody")])));
        assert_eq!(missing(), i as u64 + 1);
    }
    // What the exporter was given for everybody stays.
    let kept = after(&setter, &client(&[], &[]), &[("x-scope-orgid", "shared")]);
    assert_eq!(kept, Ok(pairs(&[("x-scope-orgid", "shared"), ("x-user", "nobody")])));
}

#[tokio::test]
async fn what_cannot_be_told_fails_the_request_for_good() {
    let (setter, _) =
        setter(&[&[("key", "t"), ("action", "upsert"), ("from_context", "t"), ("default_value", "d")]]).await;
    let why = |client| match after(&setter, &client, &[]) {
        Err(Unauthorized::Never(why)) => why,
        other => panic!("{other:?}"),
    };
    let several = "failed to determine the source: 3 source keys found in the context, can't determine which one to use";
    assert_eq!(why(client(&[("t", &["a", "b", "a"])], &[])), several);
    assert!(why(client(&[("t", &["a\nb"])], &[])).contains("cannot be sent in a header"));
}

#[tokio::test]
async fn another_authenticator_comes_first() {
    let (mut run, cx) = context();
    let bearer = bearertokenauth::BearerTokenAuthConfig { token: Secret::from("t"), ..Default::default() };
    let bearer = bearertokenauth::build(&bearer, &cx).unwrap();
    bearer.start(&run).await.unwrap();
    let server = basicauth::BasicAuthConfig {
        htpasswd: Some(basicauth::HtpasswdConfig { inline: Secret::from("u:p"), ..Default::default() }),
        ..Default::default()
    };
    let server = basicauth::build(&server, &cx).unwrap();
    server.start(&run).await.unwrap();
    run.extensions =
        Arc::new(HashMap::from([("bearertokenauth".to_owned(), bearer), ("basicauth".to_owned(), server)]));

    let (mut config, _) = decoded(&[&[("key", "Authorization"), ("action", "insert"), ("value", "mine")]]);
    let mut other = crate::config::types::ExtensionId::default();
    crate::config::Config::decode_into(
        &mut other,
        &Node::new(Pos::default(), text("bearertokenauth")),
        &mut Cx::default(),
    );
    config.additional_auth = other.clone();
    assert_eq!(config.extension_refs(), [("additional_auth", "bearertokenauth".to_owned())]);
    let setter = started(&config, &run, &cx).await;
    assert_eq!(after(&setter, &client(&[], &[]), &[]), Ok(pairs(&[("authorization", "Bearer t")])));
    config.headers[0].action = Some(HeaderAction::Upsert);
    let setter = started(&config, &run, &cx).await;
    assert_eq!(after(&setter, &client(&[], &[]), &[]), Ok(pairs(&[("authorization", "mine")])));

    crate::config::Config::decode_into(
        &mut other,
        &Node::new(Pos::default(), text("basicauth")),
        &mut Cx::default(),
    );
    config.additional_auth = other;
    let refused = build(&config, &cx).unwrap().start(&run).await.unwrap_err();
    assert_eq!(refused.to_string(), "the extension \"basicauth\" is not a client authenticator");
}

#[tokio::test]
async fn files_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    let (config, messages) =
        decoded(&[&[("key", "k"), ("action", "upsert"), ("value_file", path.to_str().unwrap())]]);
    assert_eq!(messages, Vec::<String>::new());
    let (run, cx) = context();
    let start = async || build(&config, &cx).unwrap().start(&run).await.unwrap_err().to_string();
    assert!(start().await.contains("cannot read value_file"));
    std::fs::write(&path, " \n").unwrap();
    assert!(start().await.ends_with("is empty"));
    std::fs::write(&path, " one\n").unwrap();

    // As `start` does, with a watch that is always due.
    let watch = Watch::new("test", &[("value_file", path.to_str().unwrap())], Some(Duration::from_nanos(1)));
    let value = Mutex::new(read_value(path.to_str().unwrap()).unwrap());
    let source = Source::File { path: path.to_str().unwrap().to_owned(), watch, value };
    let header = Header {
        name: HeaderName::from_static("k"),
        action: HeaderAction::Upsert,
        source,
        missing: cx.metrics.series("missing", "", &[]),
        said: AtomicBool::new(false),
    };
    let setter: Arc<dyn ClientAuth> = Arc::new(Client { before: None, headers: vec![header] });
    let sent = || after(&setter, &ClientInfo::default(), &[]).unwrap();
    assert_eq!(sent(), pairs(&[("k", "one")]));
    for (content, want) in [("two\n", "two"), ("", "two"), ("a\u{1}b", "two"), ("three", "three")] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(sent(), pairs(&[("k", want)]), "{content:?}");
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(sent(), pairs(&[("k", "three")]));
}

#[tokio::test]
async fn values_do_not_show() {
    let (config, _) = decoded(&[&[("key", "k"), ("action", "upsert"), ("value", "sesame")]]);
    assert!(!format!("{config:?} {}", crate::config::Config::to_json(&config)).contains("sesame"));
    let (run, cx) = context();
    let setter = started(&config, &run, &cx).await;
    let mut headers = HeaderMap::new();
    setter.authorize(&ClientInfo::default(), &mut headers).unwrap();
    assert!(headers.values().all(HeaderValue::is_sensitive));
}

#[test]
fn mistakes_in_the_config() {
    let sources = "'from_context', 'from_attribute', 'value' or 'value_file'";
    let missing = format!("missing header source, must be {sources}");
    let invalid = format!("invalid header source, must be only one of {sources}");
    let cases: [(&[(&str, &str)], &str); 17] = [
        (&[("action", "upsert"), ("value", "v")], "missing header name"),
        (&[("key", "a b"), ("action", "upsert"), ("value", "v")], "\"a b\" is not a header name"),
        (
            &[("key", "Content-Length"), ("action", "upsert"), ("value", "v")],
            "\"Content-Length\" belongs to the protocol and cannot be set",
        ),
        (
            &[("key", "grpc-timeout"), ("action", "delete")],
            "\"grpc-timeout\" belongs to the protocol and cannot be set",
        ),
        (&[("key", "k"), ("action", "upsert")], &missing),
        (&[("key", "k"), ("action", "upsert"), ("default_value", "d")], &missing),
        (&[("key", "k"), ("action", "insert"), ("value", "v"), ("from_context", "c")], &invalid),
        (&[("key", "k"), ("action", "update"), ("value_file", "f"), ("from_attribute", "c")], &invalid),
        (&[("key", "k"), ("action", "delete"), ("value", "v")], "the action \"delete\" takes no value"),
        (
            &[("key", "k"), ("action", "delete"), ("default_value", "v")],
            "the action \"delete\" takes no default_value",
        ),
        (&[("key", "k"), ("action", "upsert"), ("from_context", "")], "'from_context' must not be empty"),
        (
            &[("key", "k"), ("action", "upsert"), ("value", "v"), ("default_value", "d")],
            "default_value has no effect next to value",
        ),
        (
            &[("key", "k"), ("action", "upsert"), ("value", "a\nb")],
            "the value cannot be sent in a header: it has control characters",
        ),
        (&[("key", "k"), ("action", "replace"), ("value", "v")], "unsupported value \"replace\""),
        (&[("key", "k"), ("value", "v")], "the header has no action: \"upsert\" is taken; write it out"),
        (&[("key", "k"), ("action", "upsert"), ("value", "")], ""),
        (&[("key", "k"), ("action", "delete")], ""),
    ];
    for (header, want) in cases {
        let (_, messages) = decoded(&[header]);
        let want: Vec<&str> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
        assert_eq!(messages, want, "{header:?}");
    }
    let (_, messages) = decode::<HeadersSetterConfig>(&[]);
    assert_eq!(messages, ["missing header configuration"]);
}
