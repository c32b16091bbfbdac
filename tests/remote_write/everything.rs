//! The random load, with faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::model::{Load, Model, Want, infos, metric_type};
use super::{TWO, agent};
use crate::support::agent::Agent;
use crate::support::prometheus::{Faults, Labels, Options, Receiver, Then, Version, now};
use crate::support::{from_env, otlp};

const ROUNDS: i64 = 5;
const SENDERS: usize = 4;

/// Sends until it is taken; a refusal that is not "later" is a failure.
pub fn send(
    agent: std::net::SocketAddr,
    request: &[opentelemetry_proto::tonic::metrics::v1::ResourceMetrics],
) {
    let start = Instant::now();
    while let Err(why) = otlp::send(agent, request.to_vec()) {
        assert!(why.starts_with("503") || why.starts_with("429"), "{why}");
        assert!(start.elapsed() < Duration::from_secs(60), "not taken for a minute: {why}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends the load from several clients, each with resources of its own; what must be stored.
fn send_all(to: std::net::SocketAddr, streams: usize, size: usize, seed: u64) -> Model {
    let base = now() - (ROUNDS + 1) * 10_000;
    let sender = move |part| {
        let mut load = Load::new(streams, base, seed, part, SENDERS);
        for round in 0..ROUNDS {
            for request in load.round(round, size) {
                send(to, &request);
            }
        }
        load.model
    };
    let senders: Vec<_> = (0..SENDERS).map(|part| std::thread::spawn(move || sender(part))).collect();
    let mut all = Model::default();
    for sender in senders {
        let model = sender.join().unwrap();
        all.series.extend(model.series);
        all.late += model.late;
        all.again += model.again;
        all.bad += model.bad;
        all.points += model.points;
    }
    all
}

fn first<T>(mut all: Vec<T>) -> (usize, Vec<T>) {
    let count = all.len();
    all.truncate(5);
    (count, all)
}

async fn run(version: Version) {
    let streams = from_env("TIDEGATE_SERIES", 2_000) as usize;
    assert!(streams >= 600, "every resource has a stream");
    let seed = from_env("TIDEGATE_SEED", 1);
    let receiver = Receiver::start(Options {
        refuses: Some(Arc::new(|labels: &Labels, _| labels.iter().any(|(name, _)| name == "bad"))),
        seed,
        ..Default::default()
    })
    .await;
    receiver.set_faults(Faults {
        cut: 3,
        fail: (5, 503),
        throttle: (1, 1),
        store_but_fail: 2,
        lose_answer: 3,
        delay: (10, Duration::from_millis(30)),
    });
    // However few requests there are, these happen.
    receiver.script([Then::LoseAnswer, Then::Cut, Then::Refuse(503, None), Then::StoreButFail(500)]);
    // Small requests, so that there are many.
    let mut lines = vec!["max_batch_size_bytes: 50000"];
    lines.extend((version == Version::V2).then_some(TWO));
    let mut agent = agent(&receiver, &lines);
    let (to, size) = (agent.http, (streams / 80).clamp(10, 500));
    let start = Instant::now();
    let want = tokio::task::spawn_blocking(move || send_all(to, streams, size, seed)).await.unwrap();
    let infos = infos();
    let samples = want.samples();
    // If it does not come to this, the comparison below says what is missing.
    let done = || {
        let text = agent.scrape().unwrap_or_default();
        let ended = sent(&agent) + dropped(&text).values().sum::<u64>();
        ended >= want.points && receiver.stored() >= samples + infos.len()
            || !receiver.violations().is_empty()
    };
    let (mut moved, mut stored) = (Instant::now(), 0);
    while !done() && moved.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if receiver.stored() > stored {
            (moved, stored) = (Instant::now(), receiver.stored());
        }
    }
    let text = agent.scrape().unwrap();
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(60)));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());
    assert_eq!(receiver.violations(), Vec::<String>::new());

    let mut got = receiver.all();
    for info in infos {
        let series = got.remove(&info).unwrap_or_else(|| panic!("no {info:?}"));
        assert!(series.floats().iter().all(|(_, bits)| *bits == 1f64.to_bits()));
        metadata(&info, version, series.metadata.as_ref().map(|m| m.kind));
    }
    let (mut missing, mut different, mut strange) = (Vec::new(), Vec::new(), Vec::new());
    for (labels, points) in &want.series {
        let Some(series) = got.remove(labels) else {
            missing.push((labels, points.clone()));
            continue;
        };
        let stored: Vec<(i64, i64, Want)> =
            series.points.iter().map(|p| (p.timestamp, p.start, Want::from(&p.value))).collect();
        let since = |start: i64| if version == Version::V2 { start } else { 0 };
        let gauge = labels.iter().any(|(n, v)| n == "__name__" && v.ends_with("_bytes"));
        let points: Vec<(i64, i64, Want)> = points
            .iter()
            .map(|(time, start, want)| (*time, if gauge { 0 } else { since(*start) }, want.clone()))
            .collect();
        if stored != points {
            different.push((labels, points, stored));
        }
        metadata(labels, version, series.metadata.as_ref().map(|m| m.kind));
    }
    strange.extend(got.into_iter().map(|(labels, series)| (labels, series.floats())));
    assert!(missing.is_empty(), "missing: {:#?}", first(missing));
    assert!(different.is_empty(), "different (labels, want, got): {:#?}", first(different));
    assert!(strange.is_empty(), "nobody sent: {:#?}", first(strange));

    let dropped = dropped(&text);
    let refused = if version == Version::V1 { "rejected" } else { "partial_success" };
    let expected = [("out_of_order", want.late), ("duplicate", want.again), (refused, want.bad)];
    let expected: BTreeMap<String, u64> = expected.map(|(reason, n)| (reason.to_owned(), n)).into();
    assert_eq!(dropped, expected, "dropped data points by reason");
    let requests = receiver.requests();
    let failed = requests.iter().filter(|r| r.answer != Some(204)).count();
    assert!(failed > 3 && receiver.resent() > 0, "the receiver hardly misbehaved");
    assert!(requests.iter().all(|r| r.version == Some(version)));
    println!(
        "{} points of {streams} streams in {:.1?}: {samples} samples of {} series stored; {} late, {} repeated and \
         {} bad points dropped; {} samples sent again after a lost answer; {failed} of {} requests failed",
        want.points,
        start.elapsed(),
        want.series.len(),
        want.late,
        want.again,
        want.bad,
        receiver.resent(),
        requests.len(),
    );
}

/// Data points delivered.
pub fn sent(agent: &Agent) -> u64 {
    agent.metric("otelcol_exporter_sent_metric_points", "") as u64
}

/// Data points given up on, by reason.
pub fn dropped(metrics: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for line in metrics.lines().filter(|l| l.starts_with("tidegate_dropped_items{")) {
        let reason = line.split("reason=\"").nth(1).unwrap().split('"').next().unwrap();
        let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        if count > 0.0 {
            *all.entry(reason.to_owned()).or_default() += count as u64;
        }
    }
    all
}

fn metadata(labels: &Labels, version: Version, kind: Option<i32>) {
    let name = &labels.iter().find(|(name, _)| name == "__name__").unwrap().1;
    match version {
        Version::V1 => assert_eq!(kind, None),
        Version::V2 => assert!(metric_type(name).contains(&kind.unwrap()), "{name} is of type {kind:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_sample_is_stored_once_and_in_order_1_0() {
    run(Version::V1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_sample_is_stored_once_and_in_order_2_0() {
    run(Version::V2).await;
}
