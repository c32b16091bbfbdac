//! What the agent does with each kind of answer, and with none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::everything::{dropped, send, sent};
use super::{TWO, agent};
use crate::support::agent::Agent;
use crate::support::eventually;
use crate::support::otlp::{attributes, counter, int, resource};
use crate::support::prometheus::{Labels, Logged, Options, Receiver, Speaks, Then, Version, now};

const SERIES: i64 = 40;

/// One push: a point of each of the series, the value being the step.
fn push(to: SocketAddr, base: i64, step: i64) {
    let point = |n: i64| int(step, (base - 1, base + step * 1000), &attributes(&[("n", &n)]));
    let metrics = vec![counter("requests", "", (0..SERIES).map(point).collect())];
    send(to, &[resource(Vec::new(), None, metrics)]);
}

fn series(n: i64) -> Labels {
    vec![("__name__".to_owned(), "requests_total".to_owned()), ("n".to_owned(), n.to_string())]
}

/// What is stored after `steps` pushes of which nothing is lost.
fn all(base: i64, steps: i64) -> BTreeMap<Labels, Vec<(i64, u64)>> {
    let points: Vec<(i64, u64)> =
        (0..steps).map(|step| (base + step * 1000, (step as f64).to_bits())).collect();
    (0..SERIES).map(|n| (series(n), points.clone())).collect()
}

fn stored(receiver: &Receiver) -> BTreeMap<Labels, Vec<(i64, u64)>> {
    receiver.all().into_iter().map(|(labels, series)| (labels, series.floats())).collect()
}

fn options(speaks: Speaks) -> Options {
    Options { speaks, ..Default::default() }
}

/// Sends `steps` pushes, lets the agent end, and returns what it counted as dropped.
async fn run(receiver: &Receiver, agent: &mut Agent, base: i64, steps: i64) -> BTreeMap<String, u64> {
    let to = agent.http;
    tokio::task::block_in_place(|| (0..steps).for_each(|step| push(to, base, step)));
    eventually(Duration::from_secs(30), "nothing is waiting", || {
        let told = agent.scrape().unwrap_or_default();
        let ended = sent(agent) + dropped(&told).values().sum::<u64>();
        ended >= (steps * SERIES) as u64 && receiver.in_flight() == 0
    })
    .await;
    let dropped = dropped(&agent.scrape().unwrap());
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
    assert!(status.success(), "{status}");
    assert_eq!(receiver.violations(), Vec::<String>::new());
    dropped
}

fn versions(log: &[Logged], version: Version) -> usize {
    log.iter().filter(|r| r.version == Some(version)).count()
}

const SHARDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_knows_only_1_0_gets_1_0() {
    for speaks in [Speaks::Only1(415), Speaks::Only1(400), Speaks::Only1Unaware] {
        let receiver = Receiver::start(options(speaks)).await;
        let mut agent = agent(&receiver, &[TWO]);
        let base = now() - 60_000;
        let lost = run(&receiver, &mut agent, base, 4).await;
        assert_eq!((stored(&receiver), lost), (all(base, 4), BTreeMap::new()), "{speaks:?}");
        let log = receiver.requests();
        let (tried, taken) = (versions(&log, Version::V2), versions(&log, Version::V1));
        assert!((1..=SHARDS).contains(&tried), "{speaks:?}: {tried} requests in 2.0, {taken} in 1.0");
        // What was refused is sent again once, no more.
        assert!(log.iter().filter(|r| r.version == Some(Version::V1)).all(|r| r.answer == Some(204)));
        assert!(agent.log().contains("1.0"), "{}", agent.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_of_2_0_gets_2_0() {
    let receiver = Receiver::start(options(Speaks::Only2)).await;
    let mut agent = agent(&receiver, &[TWO]);
    let base = now() - 60_000;
    let lost = run(&receiver, &mut agent, base, 3).await;
    assert_eq!((stored(&receiver), lost), (all(base, 3), BTreeMap::new()));
    let point = &receiver.all()[&series(7)].points[2];
    assert_eq!((point.start, versions(&receiver.requests(), Version::V1)), (base - 1, 0));
}

/// A rollback of the receiver while it is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_forgets_2_0_gets_1_0() {
    for speaks in [Speaks::Only1(415), Speaks::Only1Unaware] {
        let receiver = Receiver::start(options(Speaks::Both)).await;
        let mut agent = agent(&receiver, &[TWO]);
        let (base, to) = (now() - 60_000, agent.http);
        tokio::task::block_in_place(|| push(to, base, 0));
        eventually(Duration::from_secs(10), "the first push is stored", || {
            receiver.stored() == SERIES as usize
        })
        .await;
        receiver.set_speaks(speaks);
        tokio::task::block_in_place(|| (1..3).for_each(|step| push(to, base, step)));
        eventually(Duration::from_secs(10), "everything is stored", || {
            receiver.stored() == 3 * SERIES as usize
        })
        .await;
        let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
        assert!(status.success());
        assert_eq!((stored(&receiver), receiver.violations()), (all(base, 3), Vec::new()), "{speaks:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_series_are_dropped_alone() {
    for more in [&[][..], &[TWO][..]] {
        let bad = [series(3), series(4), series(31)];
        let refused = bad.clone();
        let receiver = Receiver::start(Options {
            refuses: Some(Arc::new(move |labels, _| refused.contains(labels))),
            ..Default::default()
        })
        .await;
        let mut agent = agent(&receiver, more);
        let base = now() - 60_000;
        let lost = run(&receiver, &mut agent, base, 3).await;
        let mut want = all(base, 3);
        want.retain(|labels, _| !bad.contains(labels));
        assert_eq!(stored(&receiver), want, "{more:?}");
        assert_eq!(lost.values().sum::<u64>(), 9, "{lost:?} {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_sent_in_parts() {
    let receiver = Receiver::start(Options::default()).await;
    receiver.script([Then::Refuse(413, None), Then::Refuse(413, None), Then::Refuse(413, None)]);
    // One line, so that no request has a single series.
    let mut agent = agent(&receiver, &["remote_write_queue: {num_consumers: 1}"]);
    let base = now() - 60_000;
    let lost = run(&receiver, &mut agent, base, 2).await;
    assert_eq!((stored(&receiver), lost), (all(base, 2), BTreeMap::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_elected_is_not_asked_again() {
    for more in [&[][..], &[TWO][..]] {
        let receiver = Receiver::start(Options::default()).await;
        receiver.script([Then::Ignore; 100]);
        let mut agent = agent(&receiver, more);
        let lost = run(&receiver, &mut agent, now() - 60_000, 2).await;
        assert_eq!(receiver.stored(), 0);
        assert_eq!(lost.values().sum::<u64>(), 2 * SERIES as u64, "{more:?}: {lost:?}");
        let sent: usize = receiver.requests().iter().map(|r| r.samples).sum();
        assert_eq!(sent, 2 * SERIES as usize, "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_refusals_drop_what_was_refused() {
    for status in [401, 403, 404] {
        let receiver = Receiver::start(Options::default()).await;
        receiver.script([Then::Refuse(status, None); 100]);
        let mut agent = agent(&receiver, &[]);
        let lost = run(&receiver, &mut agent, now() - 60_000, 1).await;
        assert_eq!((receiver.stored(), lost.values().sum::<u64>()), (0, SERIES as u64), "{status}: {lost:?}");
        assert!(agent.log().contains("refused by the test"), "{status}: {}", agent.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_a_reason_to_send_again() {
    for more in [&[][..], &[TWO][..]] {
        let receiver = Receiver::start(Options::default()).await;
        receiver.script([
            Then::Hang,
            Then::StoreAndHang,
            Then::Cut,
            Then::LoseAnswer,
            Then::StoreButFail(500),
        ]);
        let mut lines = vec!["http: {endpoint: '@TO@', timeout: 300ms}"];
        lines.extend(more);
        let yaml = super::AGENT.replace("    endpoint: '@TO@'\n    timeout: 10s\n", "");
        let lines: Vec<String> = lines.iter().map(|line| format!("    {line}")).collect();
        let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &yaml)
            .mark("MORE", lines.join("\n"))
            .mark("TO", receiver.url())
            .start();
        let base = now() - 60_000;
        let lost = run(&receiver, &mut agent, base, 3).await;
        assert_eq!((stored(&receiver), lost), (all(base, 3), BTreeMap::new()), "{more:?}");
        assert!(receiver.resent() > 0 && receiver.script_left() == 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_says_when_to_come_again() {
    for status in [429, 503] {
        let receiver = Receiver::start(Options::default()).await;
        receiver.script([Then::Refuse(status, Some(1))]);
        let mut agent = agent(&receiver, &["max_batch_request_parallelism: 1"]);
        let base = now() - 60_000;
        let lost = run(&receiver, &mut agent, base, 1).await;
        assert_eq!((stored(&receiver), lost), (all(base, 1), BTreeMap::new()));
        let log = receiver.requests();
        let waited = log[1].at - log[0].at;
        assert!(waited >= Duration::from_secs(1), "{status}: after {waited:?}");
    }
}

/// Without a queue, whoever sends hears of it when it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_queue_taken_means_stored() {
    let receiver = Receiver::start(Options::default()).await;
    let mut agent = agent(&receiver, &["remote_write_queue: {enabled: false}"]);
    let (base, to) = (now() - 60_000, agent.http);
    for step in 0..5 {
        if step % 2 == 1 {
            receiver.script([Then::Refuse(503, None), Then::LoseAnswer]);
        }
        tokio::task::block_in_place(|| push(to, base, step));
        assert_eq!(receiver.stored(), (step + 1) as usize * SERIES as usize);
    }
    agent.kill();
    assert_eq!((stored(&receiver), receiver.violations()), (all(base, 5), Vec::new()));
}
