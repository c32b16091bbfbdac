//! Each key of the exporter has its effect on what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::agent;
use super::everything::send;
use crate::support::agent::Agent;
use crate::support::eventually;
use crate::support::otlp::{
    self, DELTA, attributes, buckets, counter, double, exponential, exponential_point, gauge, histogram, int,
    resource, scope, sum,
};
use crate::support::prometheus::{Also, Labels, Options, Receiver, Rules, Series, histogram as native, now};

/// What one push stores: `name{a="b"}` and the values, for each series.
async fn stored(lines: &[&str], rules: Rules, steps: i64) -> (BTreeMap<String, Series>, Receiver) {
    let window = Duration::from_secs(if lines.contains(&"out_of_order: keep") { 60 } else { 0 });
    let receiver = Receiver::start(Options { rules, out_of_order: window, ..Default::default() }).await;
    let mut agent = agent(&receiver, lines);
    let (base, to) = (now() - 60_000, agent.http);
    let labels = attributes(&[("n", &1i64), ("http.method", &"GET")]);
    for step in 0..steps {
        // Deltas follow on each other; the second push is late for a gauge.
        let since = (base + step * 1000, base + step * 1000 + 1000);
        let late = (base, base + [5000, 4000, 6000][step as usize]);
        let metrics = vec![
            gauge("room.temperature", "Cel", vec![double(step as f64 + 0.5, late, &labels)]),
            counter("http.requests", "1", vec![int(step + 7, (base, since.1), &labels)]),
            sum("deltas", "", true, DELTA, vec![int(10, since, &labels)]),
            histogram("took", "s", vec![buckets(&[0.5, 2.0], &[1, 0, 3], 9.5, (base, since.1), &[])]),
            exponential(
                "size",
                "By",
                vec![exponential_point(0, 1, (0, &[2, 0, 3]), (0, &[]), 21.0, (base, since.1), &[])],
            ),
        ];
        let of_resource = attributes(&[
            ("service.name", &"api"),
            ("service.instance.id", &"i1"),
            ("host.name", &"h1"),
            ("host.arch", &"amd64"),
        ]);
        let lib = scope("lib", "1.0", "", Vec::new());
        tokio::task::block_in_place(|| send(to, &[resource(of_resource, lib, metrics)]));
    }
    if lines.contains(&"send_metadata: true") {
        // Told once a minute, for the first time soon after there is something to tell.
        eventually(Duration::from_secs(10), "metadata", || !receiver.metadata().is_empty()).await;
    }
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
    assert!(status.success(), "{status}: {}", agent.log());
    assert_eq!(receiver.violations(), Vec::<String>::new(), "{lines:?}");
    let text = |labels: &[(String, String)]| {
        let name = &labels.iter().find(|(name, _)| name == "__name__").unwrap().1;
        let others = labels.iter().filter(|(name, _)| name != "__name__");
        let others: Vec<String> = others.map(|(name, value)| format!("{name}={value}")).collect();
        format!("{name}{{{}}}", others.join(","))
    };
    let all = receiver.all().iter().map(|(labels, series)| (text(labels), series.clone())).collect();
    (all, receiver)
}

const SCOPE: &str = "otel_scope_name=lib,otel_scope_version=1.0";
const INFO: &str = "target_info{host_arch=amd64,host_name=h1,instance=i1,job=api}";

/// The series that there are.
async fn names(lines: &[&str], rules: Rules) -> Vec<String> {
    stored(lines, rules, 1).await.0.into_keys().collect()
}

/// The series as they are without any key, after a change of each.
fn usual(change: impl Fn(String) -> String) -> Vec<String> {
    let by = |le: &str| format!("took_seconds_bucket{{instance=i1,job=api,le={le},{SCOPE}}}");
    let mut all = vec![
        format!("http_requests_total{{http_method=GET,instance=i1,job=api,n=1,{SCOPE}}}"),
        format!("room_temperature_celsius{{http_method=GET,instance=i1,job=api,n=1,{SCOPE}}}"),
        format!("size_bytes{{instance=i1,job=api,{SCOPE}}}"),
        by("+Inf"),
        by("0.5"),
        by("2"),
        format!("took_seconds_count{{instance=i1,job=api,{SCOPE}}}"),
        format!("took_seconds_sum{{instance=i1,job=api,{SCOPE}}}"),
        INFO.to_owned(),
    ];
    all.iter_mut().for_each(|series| *series = change(std::mem::take(series)));
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_names_are_as_configured() {
    let rules = Rules::default;
    assert_eq!(names(&[], rules()).await, usual(|s| s));
    assert_eq!(names(&["namespace: shop"], rules()).await, usual(|s| format!("shop_{s}")));
    assert_eq!(
        names(&["external_labels: {cluster: eu, instance: other}"], rules()).await,
        usual(|s| s.replacen('{', "{cluster=eu,", 1)),
    );
    assert_eq!(
        names(&["target_info: {enabled: false}"], rules()).await,
        usual(|s| s).into_iter().filter(|s| s != INFO).collect::<Vec<_>>(),
    );
    let scope = format!(",{SCOPE}");
    assert_eq!(names(&["disable_scope_info: true"], rules()).await, usual(|s| s.replace(&scope, "")));
    let without = usual(|s| {
        s.replace("_total", "").replace("_celsius", "").replace("_bytes", "").replace("_seconds", "")
    });
    assert_eq!(names(&["add_metric_suffixes: false"], rules()).await, without);
    assert_eq!(names(&["translation_strategy: UnderscoreEscapingWithoutSuffixes"], rules()).await, without);
    assert_eq!(
        names(&["resource_constant_labels: {included: [host.name]}"], rules()).await,
        usual(|s| if s == INFO { s } else { s.replacen('{', "{host_name=h1,", 1) }),
    );
    assert_eq!(
        names(
            &["resource_to_telemetry_conversion: {enabled: true, exclude_service_attributes: true}"],
            rules()
        )
        .await,
        usual(|s| if s == INFO { s } else { s.replacen('{', "{host_arch=amd64,host_name=h1,", 1) }),
    );
    let service = format!("{SCOPE},service_instance_id=i1,service_name=api");
    let all = usual(|s| match s {
        s if s == INFO => s,
        s => s.replacen('{', "{host_arch=amd64,host_name=h1,", 1).replace(SCOPE, &service),
    });
    assert_eq!(names(&["resource_to_telemetry_conversion: {enabled: true}"], rules()).await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_utf_8_are_sent_in_2_0() {
    let any = || Rules { any_names: true, ..Default::default() };
    let kept = |s: String| {
        s.replace("http_requests", "http.requests")
            .replace("room_temperature", "room.temperature")
            .replace("http_method", "http.method")
            .replace("host_arch", "host.arch")
            .replace("host_name", "host.name")
    };
    let strategy = "translation_strategy: NoUTF8EscapingWithSuffixes";
    assert_eq!(names(&[super::TWO, strategy], any()).await, usual(kept));
    let plain = |s: String| {
        kept(s)
            .replace("requests_total", "requests")
            .replace("_celsius", "")
            .replace("_bytes", "")
            .replace("_seconds", "")
    };
    assert_eq!(names(&[super::TWO, "translation_strategy: NoTranslation"], any()).await, usual(plain));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_as_configured() {
    let rules = Rules {
        headers: vec![("x-scope-orgid", "team-a".into()), ("authorization", "Bearer x".into())],
        ..Default::default()
    };
    let lines = ["headers: {X-Scope-OrgID: team-a, Authorization: Bearer x}"];
    assert_eq!(names(&lines, rules).await, usual(|s| s));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_are_added_up_where_wanted() {
    let name = format!("deltas_total{{http_method=GET,instance=i1,job=api,n=1,{SCOPE}}}");
    let (all, _) = stored(&[], Rules::default(), 3).await;
    assert!(!all.contains_key(&name));
    let (all, _) = stored(&["delta: accumulate", super::TWO], Rules::default(), 3).await;
    let series = &all[&name];
    let values: Vec<f64> = series.floats().iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
    assert_eq!(values, [10.0, 20.0, 30.0]);
    let first = series.points[0].timestamp;
    let times: Vec<(i64, i64)> =
        series.points.iter().map(|p| (p.start - first, p.timestamp - first)).collect();
    assert_eq!(times, [(-1000, 0), (-1000, 1000), (-1000, 2000)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_samples_are_kept_where_wanted() {
    let name = format!("room_temperature_celsius{{http_method=GET,instance=i1,job=api,n=1,{SCOPE}}}");
    for (lines, want) in [(&[][..], &[0.5, 2.5][..]), (&["out_of_order: keep"], &[1.5, 0.5, 2.5])] {
        let (all, _) = stored(lines, Rules::default(), 3).await;
        let values: Vec<f64> = all[&name].floats().iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
        assert_eq!(values, want, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_sent_where_wanted() {
    let (_, receiver) = stored(&[], Rules::default(), 1).await;
    assert!(receiver.metadata().is_empty());
    let (_, receiver) = stored(&["send_metadata: true"], Rules::default(), 1).await;
    let all = receiver.metadata();
    for (family, kind, help, unit) in [
        ("http_requests_total", 1, "What http.requests is", ""),
        ("room_temperature_celsius", 2, "What room.temperature is", "celsius"),
        ("took_seconds", 3, "What took is", "seconds"),
        ("size_bytes", 3, "What size is", "bytes"),
    ] {
        let told = all.get(family).unwrap_or_else(|| panic!("nothing of {family}: {all:?}"));
        assert_eq!((told.kind, &*told.help, &*told.unit), (kind, help, unit), "{family}");
    }
    let (all, _) = stored(&[super::TWO], Rules::default(), 1).await;
    for (name, series) in &all {
        let told = series.metadata.as_ref().unwrap();
        let (kind, help, unit) = match name.split('{').next().unwrap() {
            "http_requests_total" => (1, "What http.requests is", ""),
            "room_temperature_celsius" => (2, "What room.temperature is", "celsius"),
            "size_bytes" => (3, "What size is", "bytes"),
            "target_info" => (told.kind, "Target metadata", ""),
            _ => (3, "What took is", "seconds"),
        };
        assert_eq!((told.kind, &*told.help, &*told.unit), (kind, help, unit), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histograms_take_the_form_that_is_wanted() {
    let nhcb = "convert_explicit_histograms_to_nhcb: true";
    let took = format!("took_seconds{{instance=i1,job=api,{SCOPE}}}");
    let classic = format!("took_seconds_count{{instance=i1,job=api,{SCOPE}}}");
    let (all, _) = stored(&[super::TWO, nhcb], Rules::default(), 1).await;
    assert!(!all.contains_key(&classic));
    let series = &all[&took];
    let h = series.histograms()[0];
    assert_eq!((h.schema, &h.custom_values[..], h.sum), (native::CUSTOM, &[0.5, 2.0][..], 9.5));
    assert_eq!(native::positive(h), [(0, 1.0), (2, 3.0)]);
    let (all, _) = stored(&[super::TWO, nhcb, "keep_classic_histograms: true"], Rules::default(), 1).await;
    assert!(all.contains_key(&classic) && all.contains_key(&took));

    let (all, _) = stored(&["exponential_histograms: classic"], Rules::default(), 1).await;
    let value = |name: &str| f64::from_bits(all[&format!("{name},{SCOPE}}}")].floats()[0].1);
    let (count, sum) = ("size_bytes_count{instance=i1,job=api", "size_bytes_sum{instance=i1,job=api");
    assert_eq!((value(count), value(sum)), (6.0, 21.0));
    for (le, below) in [("2", 3.0), ("4", 3.0), ("8", 6.0), ("+Inf", 6.0)] {
        assert_eq!(value(&format!("size_bytes_bucket{{instance=i1,job=api,le={le}")), below, "{le}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_stay_below_the_size_that_is_wanted() {
    for more in [&[][..], &[super::TWO][..]] {
        let receiver = Receiver::start(Options::default()).await;
        let mut lines = vec!["max_batch_size_bytes: 20000"];
        lines.extend(more);
        let mut agent = agent(&receiver, &lines);
        let (base, to) = (now() - 10_000, agent.http);
        let point = |n: i64| {
            let labels = attributes(&[("n", &n), ("route", &"/api/v1/orders/{order_id}/items")]);
            otlp::int(n, (base - 1, base), &labels)
        };
        let metrics = vec![counter("requests", "", (0..5000).map(point).collect())];
        tokio::task::block_in_place(|| send(to, &[resource(Vec::new(), None, metrics)]));
        let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
        assert!(status.success());
        assert_eq!((receiver.stored(), receiver.violations()), (5000, Vec::new()));
        let sizes: Vec<usize> = receiver.requests().iter().map(|r| r.bytes.1).collect();
        assert!(sizes.iter().all(|size| *size <= 20_000), "{sizes:?}");
        // And not far below.
        let total: usize = sizes.iter().sum();
        assert!(sizes.len() <= total / 10_000 + 5, "{sizes:?}");
    }
}

/// Requests that carry metadata of the sender as headers, or a tenant, hold nothing of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_do_not_mix() {
    let found = super::AGENT
        .replace(
            "\nexporters:",
            "\nprocessors: {tenant: {from: [{metadata: x-scope-orgid}], unresolved: refuse}}\nexporters:",
        )
        .replace("{receivers: [otlp], exp", "{receivers: [otlp], processors: [tenant], exp");
    assert!(found.contains("processors: [tenant]") && found.contains("{metadata: x-scope-orgid}"));
    let by_key = "    include_metadata_keys: [X-Scope-OrgID]\n".to_owned();
    let two = format!("    {}\n", super::TWO);
    for (yaml, more) in [
        (super::AGENT, by_key.clone()),
        (super::AGENT, by_key.clone() + &two),
        (&found, String::new()),
        (&found, two.clone()),
        (&found, two + &by_key),
    ] {
        let also: Also = Arc::new(|headers, request| {
            let tenant = headers.get("x-scope-orgid").and_then(|v| v.to_str().ok()).unwrap_or("nobody");
            let of = |labels: &Labels| labels.iter().any(|(name, value)| name == "tenant" && value == tenant);
            let wrong = request.series.iter().find(|part| !of(&part.labels))?;
            Some(format!("{:?} in a request of {tenant}", wrong.labels))
        });
        let receiver = Receiver::start(Options { also: Some(also), ..Default::default() }).await;
        let program = env!("CARGO_BIN_EXE_tidegate");
        let mut agent = Agent::builder(program, yaml).mark("TO", receiver.url()).mark("MORE", &more).start();
        let (base, to) = (now() - 60_000, agent.http);
        let push = |step: i64, tenant: String| {
            let labels = attributes(&[("tenant", &tenant), ("path", &"/a")]);
            let times = (base - 1, base + step * 1000);
            // One point: most shards have nothing but, perhaps, the description of the resource.
            let metrics = vec![counter("requests", "", vec![int(step, times, &labels)])];
            let of_resource = attributes(&[("service.name", &"api"), ("tenant", &tenant)]);
            let headers = [("X-Scope-OrgID", &*tenant)];
            otlp::send_with(to, &headers, vec![resource(of_resource, None, metrics)]).unwrap();
        };
        tokio::task::block_in_place(|| {
            for step in 0..5 {
                (0..20).for_each(|tenant| push(step, format!("t{tenant}")));
            }
        });
        let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
        assert!(status.success());
        assert_eq!(receiver.violations(), Vec::<String>::new(), "{more:?}");
        // Five points and one description each.
        assert_eq!((receiver.all().len(), receiver.stored()), (40, 120), "{more:?}");
    }
}
