//! Rates over simulated time, and numbers of series and streams.

use super::*;

/// Two tenants send for a minute as fast as they can, each request again until it is taken where it is refused. Items
/// that went on, by tenant, in front and behind.
fn run(on_limit: &str) -> (Rig, BTreeMap<(String, bool), usize>) {
    let limits = json!({
        "default": {"items_per_second": 1000, "on_limit": on_limit},
        "overrides": {"big": {"bytes_per_second": "128KiB", "items_per_second": 0}},
    });
    let mut rig = Rig::new(by_resource(json!({"limits": limits})));
    let start = rig.now;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut got: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let mut next = [("small", start), ("big", start)];
    while next.iter().any(|(_, at)| *at < start + Duration::from_secs(60)) {
        let Some((name, at)) = next.iter_mut().min_by_key(|(_, at)| *at) else { unreachable!() };
        rig.now = *at;
        let answer = rig.send(
            logs(&[("tenant.id", name)], &[], &vec![&[("k", "some value")][..]; rng.usize(1..100)]),
            nobody(),
        );
        *at += match answer.verdict {
            Some(Verdict::Retry { after: Some(after), .. }) => after,
            Some(Verdict::Accepted) => Duration::from_millis(5),
            other => panic!("{other:?}"),
        };
        for batch in &answer.out {
            *got.entry(((*name).to_owned(), batch.demoted)).or_default() +=
                if *name == "big" { batch.rope.len() } else { batch.items };
        }
    }
    (rig, got)
}

#[test]
fn rates_are_held_in_each_way() {
    for on_limit in ["refuse", "drop", "demote"] {
        let (rig, got) = run(on_limit);
        for (name, rate) in [("small", 1000.0), ("big", 131_072.0)] {
            // One second's worth beside the rate, for the start; and what the last request took too much.
            let passed = got[&(name.to_owned(), false)] as f64 / 61.0;
            let off = passed / rate - 1.0;
            assert!(off.abs() < 0.02, "{on_limit} {name}: {passed} instead of {rate} a second");
            assert_eq!(got.contains_key(&(name.to_owned(), true)), on_limit == "demote");
            let over = rig.items(
                name,
                match on_limit {
                    "refuse" => "refused",
                    "drop" => "dropped",
                    _ => "demoted",
                },
                "rate_limit",
            );
            assert!(over > 0, "{on_limit} {name}");
        }
        assert_eq!(
            rig.dropped("rate_limit"),
            rig.items("small", "dropped", "rate_limit") + rig.items("big", "dropped", "rate_limit")
        );
    }
}

fn hosts(from: usize, to: usize) -> Vec<u8> {
    let names: Vec<String> = (from..to).map(|i| format!("h{i}")).collect();
    points(&[("tenant.id", "a")], &names.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn new_series_over_the_limit_are_dropped_and_known_ones_pass() {
    let limits = json!({"default": {"active_series": 10}, "overrides": {"free": {"active_series": 0}}});
    let mut rig = Rig::with_signal(by_resource(json!({"limits": limits})), Signal::Metrics);
    assert_eq!(rig.send(hosts(0, 8), nobody()).gone.dropped, 0);
    let got = rig.send(hosts(5, 15), nobody());
    assert_eq!(got.gone, Gone { refused: 0, dropped: 5 });
    let kept = ExportMetricsServiceRequest::decode(&*got.out[0].rope.to_bytes()).unwrap();
    assert_eq!(kept.encode_to_vec(), hosts(5, 10), "the known, and as many new ones as there is room for");
    assert_eq!((rig.items("a", "dropped", "active_series"), rig.dropped("active_series")), (5, 5));
    assert_eq!(rig.items("a", "accepted", ""), 13);
    // Nothing is left of this one.
    let got = rig.send(hosts(20, 25), nobody());
    assert_eq!((got.out.len(), got.verdict), (0, Some(Verdict::Accepted)));
    // Other resources make other series; other tenants have their own.
    let other = points(&[("tenant.id", "a"), ("pod", "1")], &["h0"]);
    assert_eq!(rig.send(other, nobody()).gone.dropped, 1);
    assert_eq!(rig.send(points(&[("tenant.id", "b")], &["h0"]), nobody()).gone.dropped, 0);
    let many: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(rig.send(points(&[("tenant.id", "free")], &many), nobody()).gone.dropped, 0);
    // Half of them go on, the others make room after five minutes.
    for _ in 0..5 {
        rig.pass(Duration::from_secs(59));
        assert_eq!(rig.send(hosts(0, 5), nobody()).gone.dropped, 0);
        assert_eq!(rig.send(hosts(10, 11), nobody()).gone.dropped, 1);
    }
    rig.pass(Duration::from_secs(16));
    assert_eq!(rig.send(hosts(10, 20), nobody()).gone.dropped, 5);
    assert_eq!(rig.send(hosts(0, 5), nobody()).gone.dropped, 0);
}

#[test]
fn new_streams_over_the_limit_are_dropped() {
    let limits = json!({"default": {"active_streams": 2}});
    let rig = Rig::new(by_resource(json!({"limits": limits})));
    let stream = |pod: &str, scope: &str, n: usize| {
        logs(&[("tenant.id", "a"), ("pod", pod)], &[("s", scope)], &vec![&[][..]; n])
    };
    let send = |request: Vec<u8>| rig.send(request, nobody()).gone.dropped;
    assert_eq!(send([stream("1", "x", 3), stream("1", "y", 3)].concat()), 0);
    assert_eq!(send([stream("2", "x", 4), stream("1", "y", 3)].concat()), 4);
    assert_eq!(rig.dropped("active_streams"), 4);
}

#[test]
fn active_series_are_a_gauge() {
    let limits = json!({"default": {"active_series": 10}});
    let mut rig = Rig::with_signal(by_resource(json!({"limits": limits})), Signal::Metrics);
    let gauge = |rig: &Rig| {
        rig.split.with.table.look_after(rig.now);
        rig.metrics
            .gauge("tidegate_tenant_active_series", "", &["processor", "data_type", "tenant"])
            .unwrap()
            .with_label_values(&["tenant", "metrics", "a"])
            .get()
    };
    rig.send(hosts(0, 7), nobody());
    assert_eq!(gauge(&rig), 7);
    rig.pass(Duration::from_secs(200));
    rig.send(hosts(0, 4), nobody());
    assert_eq!(gauge(&rig), 7);
    rig.pass(Duration::from_secs(200));
    assert_eq!(gauge(&rig), 4);
}

#[test]
fn what_is_cut_off_is_not_charged() {
    let limits = json!({"default": {"active_series": 5, "items_per_second": 10}});
    let rig = Rig::with_signal(by_resource(json!({"limits": limits})), Signal::Metrics);
    for _ in 0..2 {
        assert_eq!(rig.send(hosts(0, 100), nobody()).gone.dropped, 95);
    }
    assert_eq!(rig.send(hosts(0, 1), nobody()).gone.refused, 1);
}
