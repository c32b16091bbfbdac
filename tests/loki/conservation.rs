//! The random load, with faults: each record is stored once, in order per stream, with the tenant whose it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;

use super::{JSON, agent, finish, logs, record, try_send};
use crate::support::from_env;
use crate::support::loki::{Faults, Limits, Loki, Options, Then};
use crate::support::otlp::attributes;

const TENANTS: [&str; 3] = ["team-a", "team-b", "team-c"];
const SENDERS: usize = 4;
const SERVICES: usize = 12;
/// Records of one request.
const SIZE: usize = 100;

/// Sends a part of the load: every service belongs to one sender, so that its order is known. How many were sent to
/// each tenant and service.
fn send_part(
    to: std::net::SocketAddr,
    part: usize,
    items: usize,
    seed: u64,
) -> BTreeMap<(usize, usize), u64> {
    let mut rng = fastrand::Rng::with_seed(seed * SENDERS as u64 + part as u64);
    let mut count: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let mut left = items;
    while left > 0 {
        let mut request = Vec::new();
        let mut room = SIZE.min(left);
        left -= room;
        while room > 0 {
            let take = rng.usize(1..=room.min(40));
            room -= take;
            let (tenant, service) = (rng.usize(0..TENANTS.len()), part + SENDERS * rng.usize(0..SERVICES));
            let records = (0..take).map(|_| {
                let number = count.entry((tenant, service)).or_default();
                *number += 1;
                let kind = ["a", "b"][rng.usize(0..2)];
                let line = format!("{number} {}", "x".repeat(rng.usize(0..60)));
                record(line, &[("number", &(*number as i64)), ("kind", &kind)])
            });
            let name = format!("s{service}");
            let resource = attributes(&[("service.name", &name), ("tenant", &TENANTS[tenant])]);
            let records = records.collect();
            request.push(logs(resource, None, records));
        }
        let body = ExportLogsServiceRequest { resource_logs: request }.encode_to_vec();
        let start = Instant::now();
        while let Err(why) = try_send(to, &body) {
            assert!(why.starts_with("503") || why.starts_with("429"), "{why}");
            assert!(start.elapsed() < Duration::from_secs(60), "not taken for a minute: {why}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    count
}

async fn run(items: u64, more: &[&str]) {
    let items = items as usize;
    let seed = from_env("TIDEGATE_SEED", 1);
    let many = 1 << 40;
    let limits = Limits { rate: (many, many), stream_rate: (many, many), ..Default::default() };
    let loki = Loki::start(Options { auth: true, limits, seed, ..Default::default() }).await;
    loki.set_faults(Faults {
        cut: 3,
        fail: (5, 503),
        throttle: (2, None),
        store_but_fail: 2,
        lose_answer: 3,
        delay: (10, Duration::from_millis(30)),
    });
    // However few requests there are, these happen.
    loki.script([Then::LoseAnswer, Then::Cut, Then::Refuse(429, None), Then::StoreButFail(500)]);
    let mut lines = vec![
        "tenant: {from_attribute: tenant}",
        "labels: {include: [attribute.kind]}",
        "max_batch_size_bytes: 20000",
    ];
    lines.extend(more);
    let mut agent = agent(&loki, &lines);
    let (to, start) = (agent.http, Instant::now());
    let part = items / SENDERS;
    let senders: Vec<_> =
        (0..SENDERS).map(|n| tokio::task::spawn_blocking(move || send_part(to, n, part, seed))).collect();
    let mut want: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for sender in senders {
        want.extend(sender.await.unwrap());
    }
    let total: u64 = want.values().sum();
    let lost = finish(&mut agent, &loki, total).await;
    assert_eq!((lost.len(), loki.rejections()), (0, Vec::new()), "{lost:?}");

    let mut got: BTreeMap<(usize, usize), Vec<u64>> = BTreeMap::new();
    for (tenant, name) in TENANTS.iter().enumerate() {
        for (labels, entries) in loki.streams(name) {
            let service = labels.iter().find(|(n, _)| n == "service_name").unwrap().1[1..].parse().unwrap();
            let kind = &labels.iter().find(|(n, _)| n == "kind").unwrap().1;
            assert_eq!(labels.len(), 2, "{labels:?}");
            let mut numbers = Vec::new();
            for entry in &entries {
                assert!(entry.get("kind").is_none() && ["a", "b"].contains(&&**kind));
                assert_eq!(entry.get("tenant"), Some(*name), "{labels:?} {entry:?}");
                let number: u64 = entry.get("number").unwrap().parse().unwrap();
                assert_eq!(entry.line.split(' ').next().unwrap(), number.to_string());
                numbers.push(number);
            }
            let late = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
            assert_eq!(late, None, "{name} {labels:?}: out of order");
            got.entry((tenant, service)).or_default().extend(numbers);
        }
    }
    for (of, count) in &want {
        let numbers = got.entry(*of).or_default();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(1..=*count), "{of:?}: {} of {count}", numbers.len());
    }
    assert_eq!(got.len(), want.len());
    let requests = loki.requests();
    let failed = requests.iter().filter(|r| r.answer != Some(204)).count();
    assert!(failed > 3 && loki.resent() > 0, "it hardly misbehaved");
    println!(
        "{total} records in {:.1?}: {} entries stored, {} sent again; {failed} of {} requests failed",
        start.elapsed(),
        loki.stored(),
        loki.resent(),
        requests.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_record_is_stored_once_and_in_order() {
    run(from_env("TIDEGATE_ITEMS", 12_000), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_record_is_stored_once_and_in_order_json() {
    run(from_env("TIDEGATE_ITEMS", 12_000) / 4, &[JSON]).await;
}
