//! What is no request is named as a request with the same resource is.

use proptest::prelude::*;

use super::*;

const KEYS: [&str; 3] = ["k8s.namespace.name", "k8s.pod.name", "team"];

fn namer(from: serde_json::Value) -> Namer {
    let config = decode(json!({"from": from, "unresolved": "drop"})).unwrap();
    Namer::new(&config.from).unwrap()
}

/// What can be asked of a resource, and some of what cannot.
fn arb_source() -> impl Strategy<Value = serde_json::Value> {
    let key = prop::sample::select(KEYS.to_vec());
    let more = prop_oneof![
        Just(json!({})),
        Just(json!({"map": {"a": "mapped"}})),
        Just(json!({"pattern": "^(.*)-"})),
        Just(json!({"pattern": "^([a-z]+)(-.*)?$", "replacement": "t-$1"})),
    ];
    let of = prop_oneof![
        key.clone().prop_map(|key| json!({"attribute": format!("resource.{key}")})),
        Just(json!({"attribute": "team"})),
        Just(json!({"attribute": "scope.team"})),
        Just(json!({"metadata": "x-scope-orgid"})),
        Just(json!({"certificate": "common_name"})),
        (key.clone(), key).prop_map(|(a, b)| json!({"relabel": [{
            "source_labels": [format!("resource.{a}"), format!("resource.{b}")], "separator": "-",
            "target_label": "__tenant__",
        }]})),
        Just(json!({"relabel": [
            {"source_labels": ["resource.team"], "regex": "a.*", "action": "drop"},
            {"source_labels": ["resource.k8s.pod.name"], "regex": "(.*)-[^-]*", "target_label": "__tenant__"},
        ]})),
    ];
    let named = (of, more).prop_map(|(mut source, more)| {
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        source
    });
    prop_oneof![8 => named, 1 => Just(json!({"value": "fixed"}))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn names_are_those_of_a_request(
        from in prop::collection::vec(arb_source(), 1..4),
        resource in prop::collection::vec((prop::sample::select(KEYS.to_vec()), "[ab]{0,2}(-[ab /]{0,2}){0,2}"), 0..5),
    ) {
        let resource: Vec<(&str, &str)> = resource.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let from = json!(from);
        let rig = Rig::new(json!({"from": from.clone(), "unresolved": "drop"}));
        let want = rig.send(logs(&resource, &[], &[&[]]), nobody()).tenant();
        let got = namer(from).name(&resource).unwrap_or("dropped".to_owned());
        prop_assert_eq!(got, want);
    }
}

#[test]
fn sources_of_requests_name_nobody() {
    for from in [
        json!([{"metadata": "team"}]),
        json!([{"auth": "team"}]),
        json!([{"certificate": "uri", "pattern": "."}]),
        json!([{"attribute": "team"}]),
        json!([{"attribute": "scope.team"}]),
    ] {
        assert_eq!(namer(from).name(&[("team", "a")]), None);
    }
    assert_eq!(namer(json!([{"attribute": "resource.team"}])).name(&[("team", "a")]).as_deref(), Some("a"));
}

#[test]
fn a_source_that_is_none_is_refused() {
    assert!(Namer::new(&[SourceConfig::default()]).is_err());
}
