//! Order, sizes, shards, tenants and cuts.

use super::*;

fn at(time: u64, line: &str) -> LogRecord {
    LogRecord { time_unix_nano: time, ..record(line, vec![]) }
}

#[test]
fn entries_are_ordered_by_time_within_a_stream() {
    let records = vec![at(5, "a"), at(3, "b"), at(5, "c"), at(4, "d"), at(3, "e")];
    let bytes = request(vec![], None, records).encode_to_vec();
    let body = encode(&mut LokiEncoder::new(LokiOptions::default()), &bytes).0.remove(0);
    let lines: String = entries(&body).iter().map(|e| e.line.as_str()).collect();
    assert_eq!(lines, "bedac");
    // Halves are by arrival, which is how shares of batches are counted.
    let [first, second] = body.halve().unwrap();
    let lines = |body: &LokiBody| entries(body).iter().map(|e| e.line.as_str()).collect::<String>();
    assert_eq!((lines(&first), lines(&second)), ("ba".to_owned(), "edc".to_owned()));
    let [a, b] = second.halve().unwrap();
    assert_eq!((lines(&a), lines(&b)), ("c".to_owned(), "ed".to_owned()));
    assert!(a.halve().is_err());
}

#[test]
fn requests_are_closed_by_size() {
    let line = "x".repeat(300);
    let records = (0..100).map(|n| at(n + 1, &line)).collect();
    let mut large = request(vec![("service.name", text("a"))], None, records);
    large.resource_logs[0].scope_logs[0].log_records[50].body = Some(text(&"y".repeat(5000)));
    let options = LokiOptions { max_bytes: 2048, ..LokiOptions::default() };
    let bodies = encode(&mut LokiEncoder::new(options), &large.encode_to_vec()).0;
    assert!(bodies.len() > 15);
    let mut times = Vec::new();
    for body in &bodies {
        let len = body.message().unwrap().len();
        assert!(len <= 2048 || body.items() == 1, "{len}");
        times.extend(entries(body).iter().map(|e| e.time));
    }
    assert_eq!(times, (1..=100).collect::<Vec<i64>>(), "nothing is lost or turned round");
}

#[test]
fn a_stream_is_always_on_one_shard() {
    let mut encoder = LokiEncoder::new(LokiOptions::default());
    let mut home = std::collections::HashMap::new();
    for round in 0..3 {
        let mut all = request(vec![], None, vec![]);
        for n in 0..100 {
            let name = format!("s{n}");
            let extra = text(&format!("{round}"));
            let one = request(vec![("service.name", text(&name)), ("x", extra)], None, vec![at(1, "l")]);
            all.resource_logs.extend(one.resource_logs);
        }
        let batch = batch(&all.encode_to_vec());
        let mut report = Report::new(encoder.shards());
        encoder.encode(&batch, &mut report.output());
        assert!(report.open().iter().all(|n| *n > 5), "all shards are used");
        for shard in 0..encoder.shards() {
            for entry in entries(&encoder.close(shard).unwrap()) {
                assert_eq!(*home.entry(entry.labels.clone()).or_insert(shard), shard);
            }
        }
    }
    assert_eq!(home.len(), 100);
}

#[test]
fn tenants_are_never_mixed_and_keep_their_order() {
    let options = || LokiOptions {
        tenant: Some("rest".into()),
        tenant_attribute: "tenant".to_owned(),
        shards: 1,
        ..LokiOptions::default()
    };
    let mut encoder = LokiEncoder::new(options());
    let mut seen: std::collections::BTreeMap<String, Vec<i64>> = Default::default();
    let mut time = 0;
    for _ in 0..5 {
        let mut records = Vec::new();
        for n in 0..30 {
            time += 1;
            let own = match n % 4 {
                0 => vec![("tenant", text("a"))],
                1 => vec![("tenant", text("b"))],
                2 => vec![("tenant", text("rest"))],
                _ => vec![],
            };
            records.push(LogRecord { time_unix_nano: time, ..record("x", own) });
        }
        let (bodies, dropped) = encode(&mut encoder, &request(vec![], None, records).encode_to_vec());
        assert_eq!(bodies.len(), 3, "one request a tenant");
        assert!(dropped.is_empty());
        for body in &bodies {
            let tenant = body.tenant().unwrap().to_owned();
            for entry in entries(body) {
                let said = entry.metadata.first().map(|(_, v)| v.as_str()).unwrap_or("rest");
                assert_eq!(said, tenant);
                seen.entry(tenant.clone()).or_default().push(entry.time);
            }
        }
    }
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 150);
    assert!(seen.values().all(|times| times.is_sorted()));
    // The resource's attribute wins.
    let entry = one(options(), vec![("tenant", text("r"))], None, record("x", vec![("tenant", text("a"))]));
    assert_eq!(entry.tenant.as_deref(), Some("r"));
    let bytes = request(vec![], None, vec![record("x", vec![("tenant", text("a|b"))])]).encode_to_vec();
    assert_eq!(encode(&mut encoder, &bytes).1, [(1, "invalid_tenant")]);
}

#[test]
fn caches_stay_within_their_cap() {
    let mut encoder = LokiEncoder::new(LokiOptions {
        cache_bytes: 200_000,
        limits: Limits { streams: 0, ..Limits::default() },
        ..LokiOptions::default()
    });
    for round in 0..200 {
        let mut all = request(vec![], None, vec![]);
        for n in 0..20 {
            let name = format!("s{}", round * 20 + n);
            let one = request(vec![("service.name", text(&name))], None, vec![at(1, "l")]);
            all.resource_logs.extend(one.resource_logs);
        }
        let bytes = all.encode_to_vec();
        let got: Vec<Entry> = encode(&mut encoder, &bytes).0.iter().flat_map(entries).collect();
        assert_eq!(got.len(), 20);
        assert!(encoder.cache.figures().1 < 300_000, "{:?}", encoder.cache.figures());
    }
}
