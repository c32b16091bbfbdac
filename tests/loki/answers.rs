//! What the agent does with each kind of answer, and with none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{AGENT, JSON, agent, finish, logs, record, send, sent};
use crate::support::agent::Agent;
use crate::support::loki::{Faults, Limits, Loki, Options, SINGLE, Then};
use crate::support::otlp::attributes;
use crate::support::{eventually, from_env};

const RECORDS: i64 = 60;

/// One push: records of three services.
fn push(agent: &Agent, step: i64) {
    let one = |service: i64| {
        let records = (0..RECORDS / 3).map(|n| {
            let id = step * RECORDS + service * RECORDS / 3 + n;
            record(format!("line {id}"), &[("id", &id)])
        });
        logs(attributes(&[("service.name", &format!("s{service}"))]), None, records.collect())
    };
    send(agent, (0..3).map(one).collect());
}

/// The ids that are stored, each checked to be there once.
fn ids(loki: &Loki, tenant: &str) -> Vec<i64> {
    let rows = loki.query(tenant, r#"{service_name=~".+"}"#);
    let mut ids: Vec<i64> = rows.iter().map(|row| row.entry.get("id").unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "stored twice");
    ids
}

/// Sends `steps` pushes and lets the agent end; what it counted as dropped.
async fn run(loki: &Loki, agent: &mut Agent, steps: i64) -> BTreeMap<String, u64> {
    (0..steps).for_each(|step| push(agent, step));
    finish(agent, loki, (steps * RECORDS) as u64).await
}

fn all(steps: i64) -> Vec<i64> {
    (0..steps * RECORDS).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_cannot_do_now_is_tried_again() {
    for encoding in ["encoding: protobuf", JSON] {
        let loki = Loki::start(Options::default()).await;
        loki.script([
            Then::Refuse(429, None),
            Then::Refuse(500, None),
            Then::Refuse(502, None),
            Then::Refuse(503, None),
            Then::Refuse(504, None),
            Then::StoreButFail(503),
            Then::Cut,
            Then::LoseAnswer,
        ]);
        let mut agent = agent(&loki, &[encoding]);
        let lost = run(&loki, &mut agent, 3).await;
        assert_eq!((ids(&loki, SINGLE), lost.len(), loki.script_left()), (all(3), 0, 0), "{lost:?}");
        assert!(loki.resent() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_a_reason_to_send_again() {
    let loki = Loki::start(Options::default()).await;
    loki.script([Then::Hang, Then::StoreAndHang]);
    let yaml = AGENT.replace("    endpoint: '@TO@'\n", "    endpoint: '@TO@'\n    timeout: 300ms\n");
    let mut agent =
        Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &yaml).mark("MORE", "").mark("TO", loki.url()).start();
    let lost = run(&loki, &mut agent, 2).await;
    assert_eq!((ids(&loki, SINGLE), lost.len()), (all(2), 0), "{lost:?}");
    assert!(loki.resent() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_says_when_to_come_again() {
    let loki = Loki::start(Options::default()).await;
    loki.script([Then::Refuse(429, Some(1))]);
    let mut agent = agent(&loki, &["sending_queue: {num_consumers: 1}"]);
    let lost = run(&loki, &mut agent, 1).await;
    assert_eq!((ids(&loki, SINGLE), lost.len()), (all(1), 0));
    let log = loki.requests();
    assert!(log[1].at - log[0].at >= Duration::from_secs(1), "{:?}", log[1].at - log[0].at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_refusals_drop_what_was_refused() {
    for status in [401, 403, 404] {
        let loki = Loki::start(Options::default()).await;
        loki.script([Then::Refuse(status, None); 100]);
        let mut agent = agent(&loki, &[]);
        let lost = run(&loki, &mut agent, 1).await;
        assert_eq!((loki.stored(), lost.values().sum::<u64>()), (0, RECORDS as u64), "{status}: {lost:?}");
        let entries: usize = loki.requests().iter().map(|r| r.entries()).sum();
        assert_eq!(entries as i64, RECORDS, "{status}: sent once");
        assert!(agent.log().contains("refused by the test"), "{status}: {}", agent.log());
    }
    let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
    let mut agent = agent(&loki, &[]);
    let lost = run(&loki, &mut agent, 1).await;
    assert_eq!(lost.values().sum::<u64>(), RECORDS as u64, "{lost:?}");
    assert!(agent.log().contains("no org id"), "{}", agent.log());
}

/// Loki stores the rest of a request of which it refuses some; what is bad is found out and counted, and that has an
/// end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_in_part_is_counted() {
    // Stricter than the agent knows: two-digit ids are too long.
    let limits = Limits { line: "line 9".len(), ..Default::default() };
    let loki = Loki::start(Options { limits, ..Default::default() }).await;
    let mut agent = agent(&loki, &[]);
    let lost = run(&loki, &mut agent, 1).await;
    assert_eq!(ids(&loki, SINGLE), (0..10).collect::<Vec<_>>());
    assert_eq!(lost.values().sum::<u64>(), RECORDS as u64 - 10, "{lost:?}");
    let entries: usize = loki.requests().iter().map(|r| r.entries()).sum();
    assert!(entries as i64 <= RECORDS * 7, "each at most once for each halving: {entries}");
    assert!(agent.log().contains("Max entry size '6' bytes exceeded"), "{}", agent.log());
}

/// Nothing is stored although the answer is a 2xx.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_tenant_is_no_success() {
    let loki = Loki::start(Options::default()).await;
    loki.limit_tenant(SINGLE, Limits { blocked: Some(260), ..Default::default() });
    let mut agent = agent(&loki, &[]);
    let lost = run(&loki, &mut agent, 2).await;
    assert_eq!((loki.stored(), lost.values().sum::<u64>()), (0, 2 * RECORDS as u64), "{lost:?}");
    let entries: usize = loki.requests().iter().map(|r| r.entries()).sum();
    assert_eq!(entries as i64, 2 * RECORDS, "sent once");
    assert!(agent.log().contains("ingestion blocked"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_sent_in_parts() {
    for encoding in ["encoding: protobuf", JSON] {
        let loki = Loki::start(Options::default()).await;
        loki.script([Then::Refuse(413, None), Then::Refuse(413, None), Then::Refuse(413, None)]);
        let mut agent = agent(&loki, &["sending_queue: {num_consumers: 1}", encoding]);
        let lost = run(&loki, &mut agent, 2).await;
        assert_eq!((ids(&loki, SINGLE), lost.len()), (all(2), 0), "{lost:?}");
    }
    // A gateway that never takes more than this, and one entry that never fits.
    let limits = Limits { body: 1000, ..Default::default() };
    let loki = Loki::start(Options { limits, ..Default::default() }).await;
    let mut agent = agent(&loki, &[]);
    let noise: String = (0..4000).map(|_| fastrand::alphanumeric()).collect();
    send(
        &agent,
        vec![logs(attributes(&[("service.name", &"s")]), None, vec![record(noise, &[("id", &-1i64)])])],
    );
    push(&agent, 0);
    let lost = finish(&mut agent, &loki, 1 + RECORDS as u64).await;
    assert_eq!((ids(&loki, SINGLE), lost.values().sum::<u64>()), (all(1), 1), "{lost:?}");
}

/// One entry that makes Loki fail must neither stop the others nor be sent for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_entry_is_dropped_alone() {
    for encoding in ["encoding: protobuf", JSON] {
        let bad =
            |entry: &crate::support::loki::Entry| ["7", "25", "26"].contains(&entry.get("id").unwrap_or(""));
        let options = Options { poison: Some(Arc::new(move |_, _, entry| bad(entry))), ..Default::default() };
        let loki = Loki::start(options).await;
        let mut agent = agent(&loki, &[encoding]);
        let lost = run(&loki, &mut agent, 2).await;
        let mut want = all(2);
        want.retain(|id| ![7, 25, 26].contains(id));
        assert_eq!((ids(&loki, SINGLE), lost.values().sum::<u64>()), (want, 3), "{lost:?}");
        assert!(agent.log().contains("poisoned by the test"), "{}", agent.log());
    }
}

/// A server that fails for everyone for a while is not taken for one that fails because of an entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_drops_nothing() {
    let loki = Loki::start(Options::default()).await;
    loki.set_faults(Faults { fail: (100, 500), ..Default::default() });
    let mut agent = agent(&loki, &[]);
    (0..3).for_each(|step| push(&agent, step));
    let length = Duration::from_secs(from_env("TIDEGATE_OUTAGE_SECONDS", 3));
    tokio::time::sleep(length).await;
    assert_eq!((sent(&agent), loki.stored()), (0, 0));
    loki.set_faults(Faults::default());
    let lost = finish(&mut agent, &loki, 3 * RECORDS as u64).await;
    assert_eq!((ids(&loki, SINGLE), lost.len()), (all(3), 0), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limits_only_delay() {
    // The number of streams, until someone raises it.
    let limits = Limits { streams: 1, ..Default::default() };
    let loki = Loki::start(Options { limits, ..Default::default() }).await;
    let mut agent1 = agent(&loki, &[]);
    push(&agent1, 0);
    eventually(Duration::from_secs(10), "it is told several times", || loki.rejections().len() > 3).await;
    loki.set_limits(Limits::default());
    let lost = finish(&mut agent1, &loki, RECORDS as u64).await;
    assert_eq!((ids(&loki, SINGLE), lost.len()), (all(1), 0), "{lost:?}");

    // A tenant's and a stream's rate: about twice a second's worth.
    for limits in [
        Limits { rate: (1500, 1500), ..Default::default() },
        Limits { stream_rate: (500, 400), ..Default::default() },
        Limits { stream_rate: (500, 400), whole_stream: false, ..Default::default() },
    ] {
        let loki = Loki::start(Options { limits: limits.clone(), ..Default::default() }).await;
        let mut agent = agent(&loki, &["max_batch_size_bytes: 1024"]);
        let lost = run(&loki, &mut agent, 4).await;
        assert_eq!((ids(&loki, SINGLE), lost.len()), (all(4), 0), "{lost:?} {limits:?}");
        assert!(loki.rejections().iter().all(|r| r.starts_with("429")) && !loki.rejections().is_empty());
    }
}

/// Without a queue, whoever sends hears of it when it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_queue_taken_means_stored() {
    let loki = Loki::start(Options::default()).await;
    let mut agent = agent(&loki, &["sending_queue: {enabled: false}"]);
    for step in 0..4 {
        if step % 2 == 1 {
            loki.script([Then::Refuse(503, None), Then::LoseAnswer]);
        }
        push(&agent, step);
        assert_eq!(ids(&loki, SINGLE), all(step + 1));
    }
    agent.kill();
    assert_eq!(loki.violations(), Vec::<String>::new());
}

/// A tenant who may send nothing for now does not keep the others from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_tenant_does_not_hold_up_others() {
    // Found by the exporter itself, and before it.
    let found = AGENT
        .replace(
            "exporters:\n  loki",
            "processors:\n  tenant:\n    from: [{attribute: resource.team}]\n    unresolved: refuse\nexporters:\n  loki",
        )
        .replace("{receivers: [otlp], exp", "{receivers: [otlp], processors: [tenant], exp");
    assert!(found.contains("processors: [tenant]") && found.contains("resource.team"));
    for (yaml, more) in [(AGENT, "    tenant: {from_attribute: team}"), (&found, "")] {
        let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
        loki.limit_tenant("a", Limits { rate: (0, 0), ..Default::default() });
        let program = env!("CARGO_BIN_EXE_tidegate");
        let mut agent = Agent::builder(program, yaml).mark("MORE", more).mark("TO", loki.url()).start();
        let push = |team: &str, from: i64| {
            let one = |service: i64| {
                let resource = attributes(&[("service.name", &format!("s{service}")), ("team", &team)]);
                logs(resource, None, vec![record("x", &[("id", &(from + service))])])
            };
            send(&agent, (0..30).map(one).collect());
        };
        push("a", 0);
        eventually(Duration::from_secs(10), "all are held up", || loki.rejections().len() > 10).await;
        push("b", 0);
        eventually(Duration::from_secs(10), "the others are stored", || ids(&loki, "b").len() == 30).await;
        loki.limit_tenant("a", Limits::default());
        let lost = finish(&mut agent, &loki, 60).await;
        assert_eq!((ids(&loki, "a").len(), lost.len()), (30, 0), "{lost:?}");
    }
}
