//! Every mistake in a config is found where it stands, and nothing else is.

use super::*;

#[test]
fn mistakes_are_found_where_they_stand() {
    let source = |source: serde_json::Value| json!({"from": [source], "unresolved": "drop"});
    let limits = |limits: serde_json::Value| by_resource(json!({"limits": limits}));
    let cases = [
        (json!({"unresolved": "drop"}), "", "missing required field \"from\""),
        (json!({"from": [], "unresolved": "drop"}), "", "missing required field \"from\""),
        (json!({"from": [{"metadata": "a"}]}), "", "missing required field \"unresolved\""),
        (json!({"from": [{"metadata": "a"}], "default": "x"}), "default", "write unresolved: {use: NAME}"),
        (source(json!({})), "from::0", "needs to say where the name comes from"),
        (source(json!({"map": {"a": "b"}})), "from::0", "needs to say where the name comes from"),
        (source(json!({"metadata": "a", "auth": "b"})), "from::0", "one of metadata, auth"),
        (source(json!({"metadata": ""})), "from::0::metadata", "has no name"),
        (source(json!({"attribute": "resource."})), "from::0::attribute", "has no name"),
        (source(json!({"certificate": "cn"})), "from::0::certificate", "common_name"),
        (source(json!({"value": "a b"})), "from::0::value", "no tenant can be called \"a b\""),
        (source(json!({"value": "a", "pattern": "x"})), "from::0::pattern", "takes no 'pattern'"),
        (source(json!({"metadata": "a", "map": {"x": ".."}})), "from::0::map::x", "no tenant can be called"),
        (source(json!({"metadata": "a", "replacement": "x"})), "from::0::replacement", "needs a 'pattern'"),
        (source(json!({"metadata": "a", "pattern": "("})), "from::0::pattern", "not a regular expression"),
        (
            source(json!({"relabel": [{"regex": "(", "action": "labeldrop"}]})),
            "from::0::relabel::0::regex",
            "not a regular expression",
        ),
        (by_resource(json!({"unresolved": "dorp"})), "unresolved", "did you mean \"drop\"?"),
        (by_resource(json!({"unresolved": {"use": "a|b"}})), "unresolved::use", "no tenant can be called"),
        (by_resource(json!({"unresolved": {"to": "a"}})), "unresolved", "expected {use: NAME}"),
        (by_resource(json!({"unresolved": 3})), "unresolved", "expected {use: NAME}"),
        (by_resource(json!({"overflow": {"use": ""}})), "overflow::use", "must not be empty"),
        (by_resource(json!({"max_tenants": 0})), "max_tenants", "at least 1"),
        (by_resource(json!({"attribute": ""})), "attribute", "has no name"),
        (limits(json!({"default": {"queue_share": 0}})), "limits::default::queue_share", "above 0"),
        (
            limits(json!({"overrides": {"a": {"queue_share": 1.5}}})),
            "limits::overrides::a::queue_share",
            "at most 1",
        ),
        (limits(json!({"overrides": {"a/b": {}}})), "limits::overrides::a/b", "no tenant can be called"),
        (limits(json!({"default": {"on_limit": "block"}})), "limits::default::on_limit", "unsupported value"),
        (
            limits(json!({"default": {"bytes_per_sec": 1}})),
            "limits::default::bytes_per_sec",
            "bytes_per_second",
        ),
    ];
    for (config, path, message) in cases {
        let errors = decode(config.clone()).map(|_| ()).unwrap_err();
        let [(at, said)] = errors.as_slice() else { panic!("{config}: {errors:?}") };
        assert_eq!(at, path, "{config}: {said}");
        assert!(said.contains(message), "{config}: {said}");
    }
}

#[test]
fn what_is_not_overridden_is_as_for_all() {
    let limits = json!({
        "default": {"bytes_per_second": "20MiB", "items_per_second": 200_000, "on_limit": "demote", "active_series": 5,
                    "active_streams": 6, "queue_share": 0.5},
        "overrides": {"team-a": {"bytes_per_second": "100MiB"}, "team-b": {"on_limit": "drop", "active_series": 0}},
    });
    let config = decode(by_resource(json!({"limits": limits}))).unwrap();
    let a = config.limits.overrides["team-a"].over(&config.limits.default);
    assert_eq!((a.bytes_per_second.0, a.items_per_second, a.on_limit), (100 << 20, 200_000, OnLimit::Demote));
    assert_eq!((a.active_series, a.active_streams, a.queue_share), (5, 6, 0.5));
    let b = config.limits.overrides["team-b"].over(&config.limits.default);
    assert_eq!((b.bytes_per_second.0, b.on_limit, b.active_series), (20 << 20, OnLimit::Drop, 0));
}

#[test]
fn a_source_that_is_never_asked_is_a_warning() {
    let config = json!({"from": [{"value": "a"}, {"metadata": "b"}], "unresolved": "drop"});
    let (mut decoded, mut cx) = (TenantConfig::default(), Cx::default());
    decoded.decode_into(&Node::from_json(&config), &mut cx);
    let found: Vec<_> = cx.diags.iter().map(|d| (d.severity, d.path.as_str())).collect();
    assert_eq!(found, [(Severity::Warning, "from::1")]);
}
