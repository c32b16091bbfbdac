//! Whose what is held is.

use super::*;

fn holder(namespace: &str, pod: &str, uid: Option<&str>) -> Owner {
    Owner::Pod(Arc::new(Holder {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: "main".to_owned(),
        uid: uid.map(str::to_owned),
    }))
}

fn payers(owner: serde_json::Value, per_pod: bool) -> Payers {
    Payers::new(&decode(&owner).unwrap(), "node-1", per_pod).unwrap()
}

#[test]
fn the_tenant_comes_from_the_sources() {
    let long = "n".repeat(151);
    let ns = json!({"attribute": "resource.k8s.namespace.name"});
    let cases = [
        (json!([]), holder("shop", "web-0", None), "shop"),
        (json!([]), holder("", "", Some("1-2-3")), "_unknown"),
        (json!([]), holder(&long, "web-0", None), "_unknown"),
        (json!([]), holder("a b", "web-0", None), "_unknown"),
        (json!([]), Owner::Host, "_host"),
        (json!([]), Owner::Unallocated, "_unallocated"),
        (json!([]), Owner::Unknown, "_unknown"),
        (json!([{"value": "all"}]), Owner::Unknown, "_unknown"),
        (json!([{"value": "all"}]), holder("", "", Some("1-2-3")), "all"),
        (
            json!([{"attribute": "resource.k8s.namespace.name", "map": {"shop": "retail"}}]),
            holder("shop", "w", None),
            "retail",
        ),
        (
            json!([{"attribute": "resource.k8s.namespace.name", "pattern": "^team-([a-z]+)"}, ns]),
            holder("team-a-prod", "w", None),
            "a",
        ),
        (
            json!([{"attribute": "resource.k8s.namespace.name", "pattern": "^team-([a-z]+)"}, ns]),
            holder("shop", "w", None),
            "shop",
        ),
        (
            json!([{"attribute": "resource.k8s.namespace.name", "pattern": "^team-"}]),
            holder("shop", "w", None),
            "_unknown",
        ),
        (json!([{"attribute": "resource.k8s.pod.uid"}, ns]), holder("shop", "w", None), "shop"),
        (json!([{"attribute": "resource.k8s.pod.uid"}, ns]), holder("shop", "w", Some("7")), "7"),
        (
            json!([{"relabel": [{
                "source_labels": ["resource.k8s.namespace.name", "resource.k8s.pod.name", "resource.k8s.container.name", "resource.k8s.node.name"],
                "separator": ".", "target_label": "__tenant__",
            }]}]),
            holder("shop", "web-0", None),
            "shop.web-0.main.node-1",
        ),
    ];
    for (from, owner, tenant) in cases {
        let mut payers = payers(json!({"from": from}), true);
        for _ in 0..2 {
            assert_eq!(&*payers.of(&owner).tenant, tenant, "{from} {owner:?}");
        }
    }
}

#[test]
fn pods_are_kept_apart_or_not() {
    let owners = [holder("shop", "web-0", None), holder("shop", "web-1", None), holder("", "", Some("7"))];
    let names = |per_pod| {
        let mut payers = payers(json!({}), per_pod);
        owners.clone().map(|owner| {
            let payer = payers.of(&owner);
            (payer.namespace.as_deref().map(str::to_owned), payer.pod.as_deref().map(str::to_owned))
        })
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(names(true), [(text("shop"), text("web-0")), (text("shop"), text("web-1")), (None, None)]);
    assert_eq!(names(false), [(text("shop"), None), (text("shop"), None), (None, None)]);
    // And share a row.
    let mut node = Rig::new(Some(json!({"per_pod": false})));
    for _ in 0..2 {
        let shares = owners.clone().map(|owner| share(0, owner, 1.0 / 3.0, None));
        node.pass(9.0, &shares, &[readable(0)]);
    }
    assert_eq!(node.allocated(), [("_unknown".to_owned(), 3.0), ("shop/shop".to_owned(), 6.0)]);
}

#[test]
fn containers_of_a_pod_and_pods_of_a_name_share_a_row() {
    let mut node = Rig::new(None);
    let one = |container: &str, uid: &str| {
        let holder = Holder {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            container: container.to_owned(),
            uid: Some(uid.to_owned()),
        };
        share(0, Owner::Pod(Arc::new(holder)), 0.25, Some(0.25))
    };
    for uid in ["1", "2", "3"] {
        node.pass(10.0, &[one("a", uid), one("b", uid)], &[readable(0)]);
    }
    let row = node.row("shop");
    assert_eq!((row.allocated(), row.busy(), row.pod()), (10.0, Some(10.0), Some("web-0")));
}

#[test]
fn a_node_with_ever_new_pods_remembers_only_so_many() {
    let mut payers = payers(json!({}), true);
    let keeper = holder("shop", "keeper", None);
    for number in 0..20_000 {
        assert_eq!(&*payers.of(&holder(&format!("n{number}"), "p", None)).tenant, format!("n{number}"));
        payers.of(&keeper);
        assert!(payers.remembered() <= 4096);
    }
}

#[test]
fn sources_that_cannot_work_are_found_where_they_stand() {
    let cases = [
        (json!([{"value": "a"}, {"metadata": "x"}]), "from::1::metadata", "sends no request"),
        (json!([{"certificate": "common_name"}]), "from::0::certificate", "sends no request"),
        (json!([{"auth": "username"}]), "from::0::auth", "sends no request"),
        (json!([{"attribute": "scope.team"}]), "from::0::attribute", "no attribute of a resource"),
        (json!([{"attribute": "k8s.namespace.name"}]), "from::0::attribute", "resource.k8s.namespace.name"),
        (json!([{"attribute": "resource.team"}]), "from::0::attribute", "nothing is known of \"team\""),
    ];
    for (from, path, message) in cases {
        let errors = decode::<OwnerConfig>(&json!({"from": from})).map(|_| ()).unwrap_err();
        let [(at, said)] = errors.as_slice() else { panic!("{from}: {errors:?}") };
        assert_eq!(at, path, "{from}: {said}");
        assert!(said.contains(message), "{from}: {said}");
    }
    for name in crate::receivers::nvml::config::ATTRIBUTES {
        let from = json!([{"attribute": format!("resource.{name}")}, {"relabel": [{"action": "keep"}]}, {"value": "a"}]);
        assert!(decode::<OwnerConfig>(&json!({"from": from})).is_ok(), "{name}");
    }
}
