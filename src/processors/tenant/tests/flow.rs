//! What becomes of requests: passed on, split, refused as a whole, dropped; and that all of it is counted.

use super::*;
use crate::pdata::wire::put_bytes;
use crate::processors::edit::Program;

#[test]
fn a_request_of_one_tenant_is_not_touched() {
    for config in [
        json!({"from": [{"metadata": "x-scope-orgid"}], "unresolved": "refuse"}),
        by_resource(json!({})),
        json!({"from": [{"attribute": "tenant_id"}], "unresolved": "refuse"}),
    ] {
        let rig = Rig::new(config);
        let request = logs(&[("tenant.id", "a")], &[], &[&[("tenant_id", "a")][..]; 20]).repeat(3);
        let bytes = bytes::Bytes::from(request.clone());
        let got = rig.send(request, with_header(&["a"]));
        assert_eq!(got.tenants(), BTreeMap::from([("a".to_owned(), 60)]));
        assert_eq!(got.out[0].rope.pieces(), [bytes]);
        assert_eq!(got.verdict, Some(Verdict::Accepted));
    }
}

#[test]
fn what_has_no_tenant_is_used_dropped_or_refused() {
    let both = || [logs_of("a", 2), logs(&[], &[], &[&[][..]; 3])].concat();
    let rig = Rig::new(by_resource(json!({"unresolved": {"use": "shared"}})));
    let got = rig.send(both(), nobody());
    assert_eq!(got.tenants(), BTreeMap::from([("a".to_owned(), 2), ("shared".to_owned(), 3)]));

    let rig = Rig::new(by_resource(json!({"unresolved": "drop"})));
    let got = rig.send(both(), nobody());
    assert_eq!((got.tenant(), got.gone), ("a".to_owned(), Gone { refused: 0, dropped: 3 }));
    assert_eq!(got.verdict, Some(Verdict::Accepted));
    assert_eq!((rig.items("", "dropped", "unresolved"), rig.dropped("unresolved")), (3, 3));

    let rig = Rig::new(by_resource(json!({"unresolved": "refuse"})));
    let got = rig.send(both(), nobody());
    assert_eq!((got.out.len(), got.gone), (0, Gone { refused: 5, dropped: 0 }));
    assert!(matches!(got.verdict, Some(Verdict::Rejected { bad_data: true, .. })), "{:?}", got.verdict);
    assert_eq!((rig.items("", "refused", "unresolved"), rig.items("a", "refused", "shared_request")), (3, 2));
    // Nobody waits for it: refusing would lose what has a tenant.
    let got = rig.send_with(both(), nobody(), true);
    assert_eq!((got.tenant(), got.gone), ("a".to_owned(), Gone { refused: 0, dropped: 3 }));
    assert_eq!((rig.items("", "dropped", "unresolved"), rig.dropped("unresolved")), (3, 3));
}

#[test]
fn past_the_most_tenants_there_is_overflow() {
    let names =
        |from: usize, to: usize| (from..to).flat_map(|i| logs_of(&format!("t{i}"), 1)).collect::<Vec<u8>>();
    let limits = json!({"overrides": {"overflow": {"items_per_second": 7}, "big": {}}});
    let rig = Rig::new(by_resource(json!({"max_tenants": 3, "limits": limits})));
    let got = rig.send(names(0, 5), nobody());
    let want = [("overflow", 2), ("t0", 1), ("t1", 1), ("t2", 1)];
    assert_eq!(got.tenants(), want.map(|(name, n)| (name.to_owned(), n)).into());
    // Those that are known stay, and those with limits of their own have a place.
    let got = rig.send([names(2, 4), logs_of("big", 1)].concat(), nobody());
    let want = [("big", 1), ("overflow", 1), ("t2", 1)];
    assert_eq!(got.tenants(), want.map(|(name, n)| (name.to_owned(), n)).into());
    // It has limits of its own.
    rig.send(names(10, 20), nobody());
    let got = rig.send(names(30, 31), nobody());
    assert!(matches!(got.verdict, Some(Verdict::Retry { after: Some(_), .. })));

    let rig = Rig::new(by_resource(json!({"max_tenants": 1, "overflow": "drop"})));
    let got = rig.send(names(0, 3), nobody());
    assert_eq!((got.tenant(), got.gone.dropped, rig.dropped("overflow")), ("t0".to_owned(), 2, 2));

    let rig = Rig::new(by_resource(json!({"max_tenants": 1, "overflow": "refuse"})));
    let got = rig.send(names(0, 3), nobody());
    assert_eq!((got.gone.refused, rig.items("", "refused", "overflow")), (3, 2));
    assert!(matches!(got.verdict, Some(Verdict::Retry { .. })), "there may be room later");
}

#[test]
fn any_number_of_different_values_is_told_apart() {
    let rig = Rig::new(json!({"from": [{"attribute": "t"}], "unresolved": "refuse", "max_tenants": 10}));
    let names: Vec<String> = (0..6000).map(|i| format!("t{i}")).collect();
    let records: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("t", name.as_str())]).collect();
    // Each comes twice, far apart.
    let records: Vec<Attributes<'_>> = records.iter().chain(&records).map(|r| &r[..]).collect();
    let got = rig.send(logs(&[], &[], &records), nobody()).tenants();
    assert_eq!((got.len(), got["t0"], got["t9"], got["overflow"]), (11, 2, 2, 2 * 5990));
}

#[test]
fn a_refused_request_is_refused_whole_and_charges_nobody() {
    let limits = json!({"default": {"items_per_second": 10}});
    let mut rig = Rig::new(by_resource(json!({"limits": limits})));
    assert_eq!(rig.send(logs_of("noisy", 30), nobody()).tenant(), "noisy");
    let both = || [logs_of("quiet", 9), logs_of("noisy", 1)].concat();
    for _ in 0..50 {
        let got = rig.send(both(), nobody());
        assert_eq!((got.out.len(), got.gone.refused), (0, 10));
        let Some(Verdict::Retry { after: Some(after), reason }) = got.verdict else {
            panic!("{:?}", got.verdict)
        };
        // Twenty are owed.
        assert_eq!(after, Duration::from_secs(2) + Duration::from_micros(1));
        assert!(reason.contains("\"noisy\""), "{reason}");
    }
    assert_eq!(rig.items("noisy", "refused", "rate_limit"), 50);
    assert_eq!(rig.items("quiet", "refused", "shared_request"), 450);
    // The other has not been charged.
    assert_eq!(rig.send(logs_of("quiet", 9), nobody()).tenant(), "quiet");
    rig.pass(Duration::from_micros(2_000_001));
    assert_eq!(rig.send(both(), nobody()).out.len(), 2);
}

#[test]
fn the_longest_wait_is_told_and_what_is_hopeless_is_not_retried() {
    let limits = json!({"default": {"items_per_second": 10}});
    let rig = Rig::new(by_resource(json!({"limits": limits})));
    rig.send(logs_of("a", 20), nobody());
    rig.send(logs_of("b", 50), nobody());
    let got = rig.send([logs_of("a", 1), logs_of("b", 1)].concat(), nobody());
    let Some(Verdict::Retry { after: Some(after), .. }) = got.verdict else { panic!("{:?}", got.verdict) };
    assert_eq!(after.as_millis(), 4000);
    for order in [[logs_of("a", 1), logs(&[], &[], &[&[]])], [logs(&[], &[], &[&[]]), logs_of("a", 1)]] {
        let got = rig.send(order.concat(), nobody());
        assert!(matches!(got.verdict, Some(Verdict::Rejected { bad_data: true, .. })), "{:?}", got.verdict);
    }
}

#[test]
fn acknowledged_data_over_a_rate_is_dropped_and_the_rest_passes() {
    let limits = json!({"default": {"items_per_second": 10}});
    let rig = Rig::new(by_resource(json!({"limits": limits})));
    rig.send(logs_of("noisy", 30), nobody());
    let got = rig.send_with([logs_of("quiet", 9), logs_of("noisy", 1)].concat(), nobody(), true);
    assert_eq!((got.tenant(), got.gone), ("quiet".to_owned(), Gone { refused: 0, dropped: 1 }));
    assert_eq!((rig.items("noisy", "dropped", "rate_limit"), rig.dropped("rate_limit")), (1, 1));
}

#[test]
fn what_cannot_be_cut_is_bad_data() {
    let rig = Rig::new(by_resource(json!({})));
    for settled in [false, true] {
        let mut request = logs_of("a", 1);
        put_bytes(&mut request, 1, b"\xff");
        let got = rig.send_with(request, nobody(), settled);
        assert!(matches!(got.verdict, Some(Verdict::Rejected { bad_data: true, .. })), "{:?}", got.verdict);
    }
    assert_eq!((rig.items("", "refused", "bad_data"), rig.dropped("bad_data")), (1, 1));

    let rig = Rig::new(json!({"from": [{"attribute": "t"}], "unresolved": "refuse", "max_tenants": 1000}));
    let (large, names): (String, Vec<String>) =
        ("x".repeat(1 << 20), (0..100).map(|i| format!("t{i}")).collect());
    let records: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("t", name.as_str())]).collect();
    let records: Vec<Attributes<'_>> = records.iter().map(|r| &r[..]).collect();
    let got = rig.send(logs(&[("large", &large)], &[], &records), nobody());
    let Some(Verdict::Rejected { bad_data: true, reason }) = got.verdict else { panic!("{:?}", got.verdict) };
    assert!(reason.contains("too many different owners"), "{reason}");
}

#[test]
fn the_name_is_written_to_the_resource() {
    let config = decode(by_resource(json!({"attribute": "owner"}))).unwrap();
    let cx = BuildContext { id: "tenant".into(), metrics: Metrics::new(), ledger: Ledger::new(1 << 30) };
    let Stage::Split(split, Some(edit)) = build(&config, Signal::Logs, &cx).unwrap() else {
        panic!("a split")
    };
    let rig = Rig::new(by_resource(json!({})));
    let program = Program::new(Signal::Logs, vec![edit]);
    for mut batch in rig.send([logs_of("a", 1), logs_of("b", 1)].concat(), nobody()).out {
        let _ = program.apply(&mut batch);
        let request = ExportLogsServiceRequest::decode(&*batch.rope.to_bytes()).unwrap();
        let resource = request.resource_logs[0].resource.clone().unwrap();
        let owner = batch.tenant.as_ref().unwrap().name();
        assert_eq!(resource.attributes, attributes(&[("tenant.id", owner), ("owner", owner)]));
    }
    drop(split);
    let Stage::Split(_, None) = build(&decode(by_resource(json!({}))).unwrap(), Signal::Logs, &cx).unwrap()
    else {
        panic!("nothing to write")
    };
}

#[test]
fn queue_shares_travel_with_tenants() {
    let limits = json!({"default": {"queue_share": 0.5}, "overrides": {"b": {"queue_share": 0.25}}});
    let rig = Rig::new(by_resource(json!({"limits": limits})));
    let got = rig.send([logs_of("a", 1), logs_of("b", 1)].concat(), nobody());
    let shares: Vec<f64> = got.out.iter().map(|b| b.tenant.as_ref().unwrap().queue_share()).collect();
    assert_eq!(shares, [0.5, 0.25]);
}

#[test]
fn memory_of_copies_is_reserved() {
    let ledger = Ledger::new(1 << 20);
    let rig = Rig::new(json!({"from": [{"attribute": "t"}], "unresolved": "refuse"}));
    let request = logs(&[("k", "v")], &[], &[&[("t", "a")], &[("t", "b")], &[("t", "a")]]);
    let (len, lease) = (request.len(), ledger.reserve(request.len()).unwrap());
    let batch = Batch {
        signal: Signal::Logs,
        rope: Rope::from(request),
        items: 3,
        client: Arc::default(),
        tenant: None,
        demoted: false,
        received: rig.now,
        leases: SmallVec::from_iter([Arc::new(lease)]),
        acks: Acks::none(),
    };
    let mut out = Vec::new();
    rig.split.split(rig.now, batch, &mut out);
    let parts: usize = out.iter().map(|b| b.rope.len()).sum();
    assert!(ledger.used() >= len + parts, "{} for {len} and {parts}", ledger.used());
    out.pop();
    assert!(ledger.used() >= len, "as long as one part lives");
    out.clear();
    assert_eq!(ledger.used(), 0);
}
