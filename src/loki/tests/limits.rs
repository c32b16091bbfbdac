//! What happens at each limit.

use super::*;

fn limited(limits: Limits) -> LokiOptions {
    LokiOptions { limits, ..LokiOptions::default() }
}

/// Entries and changes of one encoding, and what was dropped.
fn changed(
    options: LokiOptions,
    request: &ExportLogsServiceRequest,
) -> (Vec<Entry>, Vec<(&'static str, u64)>, Vec<(usize, &'static str)>) {
    let mut encoder = LokiEncoder::new(options);
    let (bodies, dropped) = encode(&mut encoder, &request.encode_to_vec());
    let changes = Change::ALL.iter().map(|c| c.word()).zip(encoder.changes()).filter(|(_, n)| *n > 0);
    (bodies.iter().flat_map(entries).collect(), changes.collect(), dropped)
}

#[test]
fn long_lines() {
    let request = request(vec![], None, vec![record("grüße an alle", vec![]), record("kurz", vec![])]);
    let limits = Limits { line: 3, ..Limits::default() };
    let (got, changes, _) = changed(limited(limits.clone()), &request);
    assert_eq!(got[0].line, "gr", "no character is cut in two");
    assert_eq!(changes, [("line_truncated", 2)]);
    let (got, _, dropped) = changed(limited(Limits { cut_lines: false, line: 4, ..limits }), &request);
    assert_eq!(got.len(), 1);
    assert_eq!(dropped, [(1, "line_too_long")]);
}

#[test]
fn many_and_long_labels() {
    let resource = || -> Vec<(&str, AnyValue)> {
        DEFAULT_LABELS.iter().map(|key| (*key, text("v"))).chain([("own", text("o"))]).collect()
    };
    let with = |limits: Limits| {
        let mut options = limited(limits);
        options.labels.push((None, LabelSource::Resource("own".to_owned())));
        changed(options, &request(resource(), None, vec![record("x", vec![])]))
    };
    let (got, changes, _) = with(Limits::default());
    let labels = parse_labels(&got[0].labels).unwrap();
    assert_eq!(labels.len(), 16, "15 and service_name");
    assert_eq!(metadata(&got[0]), "k8s_replicaset_name=v", "the least telling");
    assert_eq!(changes, [("label_demoted", 1)]);
    let (got, changes, _) = with(Limits { labels: 1, many_labels: Unfit::Drop, ..Limits::default() });
    assert_eq!(got[0].labels, r#"{own="o", service_name="v"}"#, "what was asked for stays");
    assert_eq!(changes, [("label_dropped", 15)]);

    let long = |long_label: Unfit| {
        let limits = Limits { label_value: 4, long_label, ..Limits::default() };
        let resource = vec![("service.name", text("grüße")), ("k8s.cluster.name", text("c"))];
        changed(limited(limits), &request(resource, None, vec![record("x", vec![])]))
    };
    let (got, changes, _) = long(Unfit::Demote);
    assert_eq!(
        (got[0].labels.as_str(), metadata(&got[0]).as_str()),
        (r#"{k8s_cluster_name="c"}"#, "service_name=grüße")
    );
    assert_eq!(changes, [("label_demoted", 1)]);
    let (got, changes, _) = long(Unfit::Truncate);
    assert_eq!(got[0].labels, r#"{k8s_cluster_name="c", service_name="grü"}"#);
    assert_eq!(changes, [("label_truncated", 1)]);
    let (got, changes, _) = long(Unfit::Drop);
    assert_eq!((got[0].labels.as_str(), metadata(&got[0]).as_str()), (r#"{k8s_cluster_name="c"}"#, ""));
    assert_eq!(changes, [("label_dropped", 1)]);
}

#[test]
fn much_metadata() {
    let own = || record("x", vec![("a", text("1")), ("b", text("12345678")), ("c", text("3"))]);
    let request = request(vec![("r", text("1")), ("s", text("2"))], None, vec![own()]);
    let (got, changes, _) = changed(limited(Limits { metadata_count: 4, ..Limits::default() }), &request);
    assert_eq!(metadata(&got[0]), "a=1 b=12345678 c=3 r=1");
    assert_eq!(changes, [("metadata_trimmed", 1)]);
    let small = Limits { metadata_bytes: 6, ..Limits::default() };
    let (got, changes, _) = changed(limited(small.clone()), &request);
    assert_eq!(metadata(&got[0]), "a=1 c=3 r=1");
    assert_eq!(changes, [("metadata_trimmed", 2)]);
    let (_, _, dropped) = changed(limited(Limits { trim_metadata: false, ..small }), &request);
    assert_eq!(dropped, [(1, "metadata_too_large")]);
    let off = LokiOptions { structured_metadata: false, ..LokiOptions::default() };
    assert_eq!(metadata(&changed(off, &request).0[0]), "");
}

#[test]
fn old_records() {
    let limits = Limits { max_age: Duration::from_secs(60), ..Limits::default() };
    let (got, _, dropped) = changed(limited(limits), &request(vec![], None, vec![record("x", vec![])]));
    assert!(got.is_empty());
    assert_eq!(dropped, [(1, "too_old")]);
}

#[test]
fn too_many_streams_cost_the_label_with_most_values() {
    let mut options = limited(Limits { streams: 20, ..Limits::default() });
    options.labels.push((None, LabelSource::Record("user".to_owned())));
    options.labels.push((None, LabelSource::Record("kind".to_owned())));
    let mut encoder = LokiEncoder::new(options);
    let records = (0..40)
        .map(|n| {
            let (user, kind) = (text(&format!("u{n}")), text(&format!("k{}", n % 3)));
            record("x", vec![("user", user), ("kind", kind)])
        })
        .collect();
    let bytes = request(vec![("service.name", text("s"))], None, records).encode_to_vec();
    let got: Vec<Entry> = encode(&mut encoder, &bytes).0.iter().flat_map(entries).collect();
    assert_eq!(got.len(), 40);
    let labels: std::collections::BTreeSet<&str> = got.iter().map(|e| e.labels.as_str()).collect();
    assert_eq!(labels.len(), 15 + 3, "three quarters with users, then by kind alone");
    let again: Vec<Entry> = encode(&mut encoder, &bytes).0.iter().flat_map(entries).collect();
    for entry in &again {
        assert!(!entry.labels.contains("user"), "{}", entry.labels);
        assert!(metadata(entry).starts_with("user=u"));
    }
    assert_eq!(encoder.cache.figures().0, 18);
}

#[test]
fn tenants_and_names_are_checked() {
    for good in ["a", "team-1", "A!-_.*'()z", &"x".repeat(150)] {
        assert_eq!(check_tenant(good), Ok(()), "{good}");
    }
    for bad in ["", ".", "..", "a|b", "a b", "é", "a/b", &"x".repeat(151)] {
        assert!(check_tenant(bad).is_err(), "{bad}");
    }
    for bad in ["", "1a", "__a", "a-b", "é", "_"] {
        assert!(check_label_name(bad).is_err(), "{bad}");
    }
    assert_eq!(check_label_name("a_1"), Ok(()));
}
