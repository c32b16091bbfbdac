//! Whose a batch is: what is known of one tenant has no say in another's data.

use super::*;
use crate::pdata::Tenant;

fn encode_as(
    encoder: &mut LokiEncoder,
    tenant: Option<&str>,
    bytes: &[u8],
) -> (Vec<LokiBody>, Vec<(usize, &'static str)>) {
    let batch = Batch { tenant: tenant.map(Tenant::new), ..batch(bytes) };
    let mut report = Report::new(encoder.shards());
    encoder.encode(&batch, &mut report.output());
    let mut bodies: Vec<LokiBody> = report.take_closed().into_iter().map(|closed| closed.body).collect();
    for shard in 0..encoder.shards() {
        let whose = encoder.open_tenant(shard).cloned();
        let body = encoder.close(shard);
        assert!(body.as_ref().is_none_or(|body| ShardBody::tenant(body) == whose.as_ref()));
        bodies.extend(body);
    }
    (bodies, report.dropped().to_vec())
}

/// Tenant and line of each entry.
fn sent(encoder: &mut LokiEncoder, tenant: Option<&str>, bytes: &[u8]) -> Vec<(Option<String>, String)> {
    let (bodies, dropped) = encode_as(encoder, tenant, bytes);
    assert_eq!(dropped, []);
    bodies.iter().flat_map(entries).map(|entry| (entry.tenant, entry.line)).collect()
}

#[test]
fn a_batch_goes_to_its_tenant_unless_something_closer_names_another() {
    let own = |pairs: Vec<(&str, AnyValue)>| request(vec![], None, vec![record("x", pairs)]).encode_to_vec();
    let (plain, attribute) = (own(vec![]), own(vec![("team", text("t"))]));
    let hint = own(vec![("loki.tenant", text("squad")), ("squad", text("s"))]);
    // What is configured, and whom each request goes to: of a tenant's batch, and of nobody's.
    type Case<'a> = (Option<&'a str>, &'a str, [[Option<&'a str>; 2]; 3]);
    let cases: [Case<'_>; 4] = [
        (None, "", [[Some("b"), None], [Some("b"), None], [Some("s"), Some("s")]]),
        (Some("v"), "", [[Some("v"), Some("v")], [Some("v"), Some("v")], [Some("s"), Some("s")]]),
        (None, "team", [[Some("b"), None], [Some("t"), Some("t")], [Some("s"), Some("s")]]),
        (Some("v"), "team", [[Some("v"), Some("v")], [Some("t"), Some("t")], [Some("s"), Some("s")]]),
    ];
    for (value, from, want) in cases {
        let mut encoder = LokiEncoder::new(LokiOptions {
            tenant: value.map(Into::into),
            tenant_attribute: from.to_owned(),
            ..LokiOptions::default()
        });
        // Twice, so that what is known is used, and used for whom it is.
        for _ in 0..2 {
            for (bytes, want) in [&plain, &attribute, &hint].into_iter().zip(want) {
                for (tenant, want) in [Some("b"), None].into_iter().zip(want) {
                    let got = sent(&mut encoder, tenant, bytes);
                    assert_eq!(got, [(want.map(str::to_owned), "x".to_owned())], "{value:?} {from:?}");
                }
            }
        }
    }
}

#[test]
fn streams_of_the_same_labels_are_each_tenants_own() {
    let mut encoder = LokiEncoder::new(LokiOptions::default());
    let line = |time: u64, line: &str| {
        let record = LogRecord { time_unix_nano: time, ..record(line, vec![]) };
        request(vec![("service.name", text("api"))], None, vec![record]).encode_to_vec()
    };
    // The same stream at any times: nothing is late, nothing is a repetition.
    for (tenant, time) in [("a", 50), ("b", 10), ("a", 60), ("b", 60), ("b", 60), ("a", 5)] {
        let name = format!("{tenant}{time}");
        assert_eq!(
            sent(&mut encoder, Some(tenant), &line(time, &name)),
            [(Some(tenant.to_owned()), name.clone())]
        );
    }
    assert_eq!(encoder.cache(), (4, 2), "each tenant's stream is known to it alone");
}

#[test]
fn one_tenants_streams_are_not_counted_against_another() {
    let mut encoder = LokiEncoder::new(LokiOptions {
        limits: Limits { streams: 20, ..Limits::default() },
        ..LokiOptions::default()
    });
    let of = |namespace: &str| {
        let resource = vec![("service.name", text("api")), ("k8s.namespace.name", text(namespace))];
        request(resource, None, vec![record("x", vec![])]).encode_to_vec()
    };
    let mut labels = |tenant: &str, namespace: &str| -> Vec<String> {
        let (bodies, dropped) = encode_as(&mut encoder, Some(tenant), &of(namespace));
        assert_eq!(dropped, []);
        bodies.iter().flat_map(entries).map(|entry| entry.labels).collect()
    };
    for n in 0..100 {
        labels("noisy", &format!("n{n}"));
    }
    assert_eq!(labels("noisy", "n100"), [r#"{service_name="api"}"#]);
    for n in 0..10 {
        let want = format!(r#"{{k8s_namespace_name="n{n}", service_name="api"}}"#);
        assert_eq!(labels("calm", &format!("n{n}")), [want]);
    }
}

#[test]
fn a_tenant_that_loki_would_refuse_is_dropped() {
    let bytes = request(vec![], None, vec![record("x", vec![]), record("y", vec![])]).encode_to_vec();
    for name in ["a|b", "", "..", "ä"] {
        let (bodies, dropped) = encode_as(&mut LokiEncoder::new(LokiOptions::default()), Some(name), &bytes);
        assert_eq!((bodies.len(), dropped), (0, vec![(2, "invalid_tenant")]), "{name:?}");
    }
}
