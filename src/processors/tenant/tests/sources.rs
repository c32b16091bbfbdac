//! Each source, in what order they are asked, and what makes a name of what they find.

use super::*;

fn resolve(
    from: serde_json::Value,
    client: &ClientInfo,
    resource: Attributes<'_>,
    item: Attributes<'_>,
) -> String {
    let rig = Rig::new(json!({"from": from, "unresolved": "drop"}));
    rig.send(logs(resource, &[("team", "of-scope")], &[item]), client.clone()).tenant()
}

#[test]
fn every_source_names_a_tenant() {
    let certificate = ClientCertificate {
        common_name: Some("cn".to_owned()),
        organization: Some("org".to_owned()),
        organizational_unit: Some("unit".to_owned()),
        dns_names: vec!["a.example".to_owned(), "b.example".to_owned()],
        uris: vec!["spiffe://x/ns/uri".to_owned()],
    };
    let client = ClientInfo {
        auth: vec![("username".to_owned(), "user".to_owned())],
        certificate: Some(Arc::new(certificate)),
        ..with_header(&["header"])
    };
    let resource: Attributes<'_> =
        &[("a", "1st"), ("tenant.id", "of-resource"), ("tenant.id", "second"), ("n", "")];
    let item: Attributes<'_> = &[("b", "x"), ("tenant_id", "of-item"), ("tenant_id", "second")];
    let cases = [
        (json!([{"metadata": "X-Scope-OrgID"}]), "header"),
        (json!([{"metadata": "x-other"}]), "dropped"),
        (json!([{"auth": "username"}]), "user"),
        (json!([{"auth": "subject"}]), "dropped"),
        (json!([{"certificate": "common_name"}]), "cn"),
        (json!([{"certificate": "organization"}]), "org"),
        (json!([{"certificate": "organizational_unit"}]), "unit"),
        (json!([{"certificate": "dns_name"}]), "a.example"),
        (json!([{"certificate": "uri"}]), "dropped"),
        (json!([{"certificate": "uri", "pattern": "^spiffe://[^/]+/ns/([^/]+)$"}]), "uri"),
        (json!([{"attribute": "resource.tenant.id"}]), "of-resource"),
        (json!([{"attribute": "scope.team"}]), "of-scope"),
        (json!([{"attribute": "tenant_id"}]), "of-item"),
        (json!([{"attribute": "tenant.id"}]), "dropped"),
        (json!([{"attribute": "resource.tenant_id"}]), "dropped"),
        (json!([{"value": "fixed"}]), "fixed"),
        // The first that has one, wherever it stands.
        (
            json!([{"attribute": "none"}, {"attribute": "resource.tenant.id"}, {"value": "fixed"}]),
            "of-resource",
        ),
        (json!([{"attribute": "tenant_id"}, {"attribute": "resource.tenant.id"}]), "of-item"),
        (json!([{"attribute": "none"}, {"attribute": "scope.team"}, {"attribute": "tenant_id"}]), "of-scope"),
        (json!([{"attribute": "none"}, {"metadata": "x-scope-orgid"}]), "header"),
        (json!([{"attribute": "resource.n"}, {"attribute": "none"}, {"value": "fixed"}]), "fixed"),
    ];
    for (from, want) in cases {
        assert_eq!(resolve(from.clone(), &client, resource, item), want, "{from}");
    }
}

#[test]
fn values_are_renamed_by_map_and_pattern() {
    let cases = [
        (json!({"map": {"kube-system": "platform"}}), "kube-system", "platform"),
        (json!({"map": {"kube-system": "platform"}}), "shop", "shop"),
        (json!({"pattern": "^team-(.*)$"}), "team-a", "a"),
        (json!({"pattern": "^team-(.*)$"}), "shop", "dropped"),
        (json!({"pattern": "^team-(.*)$"}), "team-", "dropped"),
        (json!({"pattern": "^team-"}), "team-a", "team-a"),
        (
            json!({"pattern": "(?P<who>[a-z]+)-(prod|test)", "replacement": "${who}.$2"}),
            "shop-prod",
            "shop.prod",
        ),
        (json!({"pattern": "^team-(.*)$", "replacement": "all"}), "team-a", "all"),
        // The map comes first.
        (json!({"map": {"legacy": "old"}, "pattern": "^team-(.*)$"}), "legacy", "old"),
        (json!({"map": {"legacy": "old"}, "pattern": "^team-(.*)$"}), "team-x", "x"),
    ];
    for (more, value, want) in cases {
        let mut source = more.clone();
        source["attribute"] = json!("resource.ns");
        assert_eq!(resolve(json!([source]), &nobody(), &[("ns", value)], &[]), want, "{more} {value}");
    }
}

#[test]
fn what_is_no_name_is_counted_and_the_next_source_is_asked() {
    let long = "x".repeat(151);
    for bad in ["a b", "..", ".", "a|b", "é", &long] {
        let rig = Rig::new(json!({
            "from": [{"metadata": "x-scope-orgid"}, {"attribute": "resource.a"}, {"attribute": "i"}, {"value": "last"}],
            "unresolved": "drop",
        }));
        let request = logs(&[("a", bad)], &[], &[&[("i", bad)][..]; 3]);
        assert_eq!(rig.send(request, with_header(&[bad])).tenant(), "last");
        assert_eq!(rig.invalid(), 3, "once for each value and source: {bad}");
    }
}

#[test]
fn a_header_with_several_values_names_nobody() {
    let rig = Rig::new(json!({"from": [{"metadata": "x-scope-orgid"}], "unresolved": "drop"}));
    let send = |values: &[&str]| rig.send(logs_of("x", 1), with_header(values)).tenant();
    assert_eq!(send(&["a", "b"]), "dropped");
    assert_eq!(rig.invalid(), 1);
    assert_eq!(send(&["a", "a"]), "a");
    assert_eq!(send(&[""]), "dropped");
    assert_eq!(send(&[]), "dropped");
    assert_eq!(rig.invalid(), 1);
}

#[test]
fn numbers_and_truth_values_are_text() {
    use any_value::Value;
    let cases = [
        (Some(Value::IntValue(42)), "42", 0),
        (Some(Value::IntValue(-7)), "-7", 0),
        (Some(Value::BoolValue(true)), "true", 0),
        (Some(Value::StringValue(String::new())), "dropped", 0),
        (None, "dropped", 0),
        (Some(Value::DoubleValue(1.5)), "dropped", 1),
        (Some(Value::BytesValue(b"a".to_vec())), "dropped", 1),
    ];
    for (value, want, invalid) in cases {
        let mut request = ExportLogsServiceRequest::decode(&*logs(&[("t", "")], &[], &[&[]])).unwrap();
        request.resource_logs[0].resource.as_mut().unwrap().attributes[0].value = Some(AnyValue { value });
        let rig = Rig::new(json!({"from": [{"attribute": "resource.t"}], "unresolved": "drop"}));
        assert_eq!(
            (rig.send(request.encode_to_vec(), nobody()).tenant(), rig.invalid()),
            (want.to_owned(), invalid)
        );
    }
}

#[test]
fn relabelling_names_a_tenant() {
    let client = ClientInfo {
        auth: vec![("username".to_owned(), "u".to_owned())],
        certificate: Some(Arc::new(ClientCertificate {
            common_name: Some("c".to_owned()),
            ..Default::default()
        })),
        ..with_header(&["h"])
    };
    let resource: Attributes<'_> = &[("k8s.namespace.name", "shop"), ("env", "prod")];
    let rule = |sources: serde_json::Value| json!({"source_labels": sources, "separator": ".", "target_label": "__tenant__"});
    let cases = [
        (json!([rule(json!(["resource.env", "resource.k8s.namespace.name"]))]), "prod.shop"),
        (
            json!([rule(json!([
                "__metadata_x_scope_orgid",
                "__auth_username",
                "__certificate_common_name"
            ]))]),
            "h.u.c",
        ),
        (json!([rule(json!(["env"]))]), "dropped"),
        (
            json!([rule(json!(["resource.env"])), {"source_labels": ["resource.env"], "regex": "prod", "action": "drop"}]),
            "dropped",
        ),
    ];
    for (rules, want) in cases {
        assert_eq!(resolve(json!([{"relabel": rules}]), &client, resource, &[]), want, "{rules}");
    }
    // And each resource for itself.
    let rig = Rig::new(json!({"from": [{"relabel": [rule(json!(["resource.env"]))]}], "unresolved": "drop"}));
    let request = [
        logs(&[("env", "a")], &[], &[&[]]),
        logs(&[("env", "b")], &[], &[&[]]),
        logs(&[("env", "a")], &[], &[&[]]),
    ];
    assert_eq!(
        rig.send(request.concat(), nobody()).tenants(),
        BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)])
    );
}

#[test]
fn answers_of_one_scope_are_not_those_of_the_next() {
    let config = json!({
        "from": [{"attribute": "i"}, {"attribute": "scope.s"}, {"attribute": "resource.r"}],
        "unresolved": {"use": "shared"},
    });
    let rig = Rig::new(config);
    let request = [
        logs(&[("r", "r1")], &[("s", "s1")], &[&[], &[("i", "i1")]]),
        logs(&[("r", "r1")], &[], &[&[], &[("i", "s1")]]),
        logs(&[], &[("s", "s2")], &[&[]]),
        logs(&[], &[], &[&[], &[("i", "i1")]]),
    ];
    let want = [("i1", 2), ("r1", 1), ("s1", 2), ("s2", 1), ("shared", 1)];
    let got = rig.send(request.concat(), nobody());
    assert_eq!(got.tenants(), want.map(|(name, n)| (name.to_owned(), n)).into());
    assert_eq!(got.verdict, Some(Verdict::Accepted));
}
