//! Sharded delivery against a sender that follows a rule, on a paused clock: order, cuts, acknowledgements, books.

mod ends;
mod mixed;
mod rig;
mod tenants;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, advance};

use self::rig::{Numbers, Rig, Rule, SHARDS, Step, Toy, config, secs};
use super::{Closed, Report, ShardedConfig};
use crate::exporters::delivery::{Outcome, QueueConfig, RetryConfig};
use crate::pipeline::{Leftover, Verdict};

fn ok() -> Step {
    Step::Now(Outcome::delivered())
}

fn down() -> Step {
    Step::Now(Outcome::retry("down"))
}

fn slow(seconds: u64) -> Step {
    Step::Later(secs(seconds), Outcome::delivered())
}

fn bad() -> Step {
    Step::Now(Outcome::Rejected { bad_data: true, reason: "bad".into() })
}

fn too_large() -> Step {
    Step::Now(Outcome::TooLarge { reason: "too large".into() })
}

fn rule(rule: impl Fn(&[u64], usize) -> Step + Send + Sync + 'static) -> Rule {
    Box::new(rule)
}

fn queue() -> QueueConfig {
    QueueConfig::default()
}

fn waiting() -> QueueConfig {
    QueueConfig { wait_for_result: true, ..queue() }
}

/// Waits of 1, 2, 4, 4, … seconds, not varied.
fn steady() -> RetryConfig {
    RetryConfig {
        initial_interval: secs(1),
        randomization_factor: 0.0,
        multiplier: 2.0,
        max_interval: secs(4),
        max_elapsed_time: secs(30),
        ..RetryConfig::default()
    }
}

/// Numbers of shard 0.
fn zeros(range: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
    range.map(|n| n * SHARDS as u64)
}

fn all(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

fn shard_of(ids: &[u64]) -> u64 {
    ids.first().map_or(0, |id| id % SHARDS as u64)
}

#[tokio::test(start_paused = true)]
async fn a_retry_closes_its_shard_and_no_other() {
    // Shard 1 fails three times: 0, 1, 3, 7.
    let failing = rule(|ids, _| {
        static LEFT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(3);
        let left = &LEFT;
        let take = |n: usize| n.checked_sub(1);
        let (set, get) = (std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst);
        match shard_of(ids) == 1 && left.fetch_update(set, get, take).is_ok() {
            true => down(),
            false => ok(),
        }
    });
    let rig = Rig::start(config(queue(), steady()), Toy::default(), failing).await;
    for second in 0..6 {
        rig.offer(second * 8..second * 8 + 8);
        rig.pause().await;
        advance(secs(1)).await;
    }
    rig.settled().await;
    for shard in [0, 2, 3] {
        assert_eq!(rig.attempt_times(shard), [0, 1, 2, 3, 4, 5], "shard {shard}");
    }
    assert_eq!(rig.attempt_times(1), [0, 1, 3, 7, 7]);
    // The same request each time; what came meanwhile is one request.
    let ids = rig.attempt_ids(1);
    assert_eq!(ids[..4], vec![vec![1, 5]; 4]);
    assert_eq!(ids[4], [9, 13, 17, 21, 25, 29, 33, 37, 41, 45]);
    assert_eq!(rig.arrived(), all(0..48));
    assert_eq!(rig.books(), [48, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_free_shard_sends_at_once_and_a_busy_one_collects() {
    let rig = Rig::start(config(queue(), steady()), Toy::default(), rule(|_, _| slow(10))).await;
    for i in 0..50 {
        rig.offer(zeros(i..i + 1));
        rig.pause().await;
        advance(Duration::from_millis(500)).await;
    }
    rig.settled().await;
    assert_eq!(rig.attempt_times(0), [0, 10, 20, 30]);
    let sizes: Vec<usize> = rig.attempt_ids(0).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 19, 20, 10]);
    assert_eq!(rig.books(), [50, 0, 0]);

    // All shards at the same time, with one task for each.
    let rig = Rig::start(config(queue(), steady()), Toy::default(), rule(|_, _| slow(10))).await;
    rig.offer(0..40);
    rig.pause().await;
    assert_eq!(rig.attempts().len(), SHARDS);
    assert_eq!(rig.gauge("otelcol_exporter_in_flight_requests"), SHARDS as f64);
    rig.settled().await;
    assert_eq!(rig.most_at_once(), SHARDS);
    assert_eq!(rig.arrived(), all(0..40));
}

#[tokio::test(start_paused = true)]
async fn full_requests_wait_in_line_and_go_one_by_one() {
    let toy = Toy { most: 3, ..Toy::default() };
    let rig = Rig::start(config(queue(), steady()), toy, rule(|_, _| slow(1))).await;
    rig.offer(zeros(0..10));
    rig.settled().await;
    assert_eq!(rig.attempt_times(0), [0, 1, 2, 3]);
    let sizes: Vec<usize> = rig.attempt_ids(0).iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 3, 1]);
    assert_eq!(rig.arrived(), zeros(0..10).collect::<Vec<_>>());
    assert_eq!(rig.books(), [10, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_halved_in_order() {
    for (most, books) in [(16, [100, 0, 0]), (1, [100, 0, 0]), (0, [0, 100, 0])] {
        // Cutting for size takes nothing from what may be spent on bad data.
        let config = ShardedConfig { bisect: 0, ..config(queue(), steady()) };
        let rule = rule(move |ids, _| if ids.len() > most { too_large() } else { ok() });
        let rig = Rig::start(config, Toy::default(), rule).await;
        rig.offer(0..100);
        rig.settled().await;
        assert_eq!(rig.books(), books);
        assert_eq!(rig.arrived().len() as u64, books[0]);
        assert_eq!(
            rig.drops().keys().collect::<Vec<_>>(),
            if most == 0 { vec!["too_large"] } else { vec![] }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_bad_items_are_dropped() {
    let sets: [&[u64]; 6] = [&[0], &[31], &[17], &[3, 4], &[0, 31], &[5, 6, 7, 8, 20, 30]];
    for set in sets {
        let unwanted: Vec<u64> = set.iter().map(|n| n * SHARDS as u64).collect();
        let is_bad = unwanted.clone();
        let rule = rule(move |ids, _| if ids.iter().any(|id| is_bad.contains(id)) { bad() } else { ok() });
        let rig = Rig::start(config(waiting(), steady()), Toy::default(), rule).await;
        // Two batches in one request: the first answer is late, so that both wait behind it.
        let verdicts = [rig.ask(zeros(0..10)), rig.ask(zeros(10..32))];
        let guilty = [set.iter().any(|n| *n < 10), set.iter().any(|n| *n >= 10)];
        for (verdict, guilty) in verdicts.into_iter().zip(guilty) {
            let want = match guilty {
                true => Verdict::Rejected { bad_data: true, reason: "bad".into() },
                false => Verdict::Accepted,
            };
            assert_eq!(verdict.await, Ok(want), "{set:?}");
        }
        rig.settled().await;
        let want: Vec<u64> = zeros(0..32).filter(|id| !unwanted.contains(id)).collect();
        assert_eq!(rig.arrived(), want, "{set:?}");
        assert_eq!(rig.books(), [32 - set.len() as u64, set.len() as u64, 0], "{set:?}");
        assert_eq!(rig.drops().into_iter().collect::<Vec<_>>(), [("rejected".into(), set.len() as u64)]);
    }
}

#[tokio::test(start_paused = true)]
async fn cutting_for_bad_data_ends_with_its_attempts() {
    // One bad item among 16, the sixth: 16 → 8+8 → 4+4 → 2+2 → 1+1.
    let cases: [(usize, usize, u64); 7] =
        [(0, 1, 16), (1, 1, 16), (2, 3, 8), (3, 3, 8), (4, 7, 2), (6, 9, 1), (8, 9, 1)];
    for (bisect, attempts, lost) in cases {
        let config = ShardedConfig { bisect, ..config(queue(), steady()) };
        let rule = rule(|ids, _| if ids.contains(&(5 * SHARDS as u64)) { bad() } else { ok() });
        let rig = Rig::start(config, Toy::default(), rule).await;
        rig.offer(zeros(0..16));
        rig.settled().await;
        assert_eq!(rig.attempts().len(), attempts, "with {bisect}");
        assert_eq!(rig.books(), [16 - lost, lost, 0], "with {bisect}");
        assert_eq!(rig.arrived().len() as u64, 16 - lost);
    }
    // What is bad all over gives nothing back.
    let config_of_all = ShardedConfig { bisect: 4, ..config(queue(), steady()) };
    let rig = Rig::start(config_of_all, Toy::default(), rule(|_, _| bad())).await;
    rig.offer(zeros(0..16));
    rig.settled().await;
    assert_eq!((rig.attempts().len(), rig.books()), (5, [0, 16, 0]));
    // Few bad ones among many are all found.
    let config_of_few = ShardedConfig { bisect: 40, ..config(queue(), steady()) };
    let few = |ids: &[u64]| ids.iter().any(|id| id / SHARDS as u64 % 100 == 7);
    let rule_of_few = rule(move |ids, _| if few(ids) { bad() } else { ok() });
    let rig = Rig::start(config_of_few, Toy::default(), rule_of_few).await;
    rig.offer(zeros(0..1000));
    rig.settled().await;
    assert_eq!(rig.books(), [990, 10, 0]);
    // Data that is not at fault is not cut.
    let rig = Rig::start(
        config(queue(), steady()),
        Toy::default(),
        rule(|_, _| Step::Now(Outcome::rejected("no"))),
    )
    .await;
    rig.offer(zeros(0..16));
    rig.settled().await;
    assert_eq!((rig.attempts().len(), rig.books()), (1, [0, 16, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_cut_request_keeps_its_shard_closed_through_retries() {
    // 0 is bad; every second attempt fails first.
    let rule = rule(|ids, before| match before % 2 {
        0 => down(),
        _ if ids.contains(&0) => bad(),
        _ => ok(),
    });
    let rig = Rig::start(config(queue(), steady()), Toy::default(), rule).await;
    rig.offer(zeros(0..4));
    rig.pause().await;
    rig.offer(zeros(4..8));
    rig.settled().await;
    let sent = rig.attempt_ids(0);
    let want: Vec<Vec<u64>> =
        [vec![0, 4, 8, 12], vec![0, 4], vec![0], vec![4], vec![8, 12], vec![16, 20, 24, 28]]
            .into_iter()
            .flat_map(|ids| [ids.clone(), ids])
            .collect();
    assert_eq!(sent, want);
    assert_eq!(rig.books(), [7, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_when_its_last_part_is_booked() {
    // Shard n answers after n + 1 seconds.
    let rule = rule(|ids, _| slow(shard_of(ids) + 1));
    let rig = Rig::start(config(waiting(), steady()), Toy::default(), rule).await;
    assert!(rig.holds_acks());
    let mut answers = [rig.ask(0..8), rig.ask(0..8), rig.ask([0, 4, 8])];
    let reserved = rig.reserved();
    let mut at = [None; 3];
    for quarter in 0..40u64 {
        rig.pause().await;
        for (answer, at) in answers.iter_mut().zip(&mut at) {
            if at.is_none() && answer.try_recv() == Ok(Verdict::Accepted) {
                *at = Some(quarter);
            }
        }
        if at[2].is_some() && at[0].is_none() {
            assert_eq!(rig.reserved(), reserved - 24, "only the third batch is paid");
        }
        advance(Duration::from_millis(250)).await;
    }
    // All three are one request on shard 0; the first two wait for shard 3, in one request as well or in two.
    assert_eq!(at[2], Some(8));
    assert_eq!(at[0], Some(16));
    assert_eq!(at[1], Some(32));
    rig.settled().await;
    assert_eq!(rig.books(), [19, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_worst_part_makes_the_verdict() {
    let no = |reason: &str| Step::Now(Outcome::Rejected { bad_data: false, reason: reason.into() });
    let never = || RetryConfig { enabled: false, ..steady() };
    let rejected = Verdict::Rejected { bad_data: false, reason: "no".into() };
    type Case = (Rule, Verdict, [u64; 3]);
    for queue in [None, Some(waiting())] {
        let cases: Vec<Case> = vec![
            (rule(|_, _| ok()), Verdict::Accepted, [8, 0, 0]),
            (
                rule(move |ids, _| if shard_of(ids) == 2 { no("no") } else { ok() }),
                rejected.clone(),
                [6, 2, 0],
            ),
            (
                rule(move |ids, _| match shard_of(ids) {
                    1 => no("no"),
                    2 => Step::Now(Outcome::Retry { after: Some(secs(9)), reason: "later".into() }),
                    _ => slow(1),
                }),
                Verdict::Retry { after: Some(secs(9)), reason: "later".into() },
                [4, 2, 2],
            ),
        ];
        for (rule, want, books) in cases {
            let mut config = config(waiting(), never());
            config.queue = queue.clone();
            let rig = Rig::start(config, Toy::default(), rule).await;
            assert!(rig.holds_acks());
            assert_eq!(rig.ask(0..8).await, Ok(want));
            rig.settled().await;
            assert_eq!(rig.books(), books);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_expires_goes_back_to_who_waits_and_is_dropped_otherwise() {
    // Both kinds in one request.
    let short = RetryConfig { max_elapsed_time: secs(8), ..steady() };
    let rig = Rig::start(config(waiting(), short), Toy::default(), rule(|_, _| down())).await;
    rig.offer([0]);
    rig.pause().await;
    let answer = rig.ask([4, 8]);
    rig.offer([12]);
    assert_eq!(answer.await, Ok(Verdict::retry("down")));
    rig.settled().await;
    assert_eq!(rig.attempt_ids(0).last(), Some(&vec![4, 8, 12]));
    assert_eq!(rig.attempt_times(0), [0, 1, 3, 7, 7, 8, 10, 14]);
    assert_eq!(rig.books(), [0, 2, 2]);
    assert_eq!(rig.drops().into_iter().collect::<Vec<_>>(), [("expired".into(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_partial_success_is_booked_from_the_back() {
    let partial = |n| Outcome::Delivered { rejected: n, message: "no".into() };
    for (rejected, books) in [(3, [7, 3, 0]), (0, [10, 0, 0]), (99, [0, 10, 0])] {
        let rig = Rig::start(
            config(queue(), steady()),
            Toy::default(),
            rule(move |_, _| Step::Now(partial(rejected))),
        )
        .await;
        rig.offer(zeros(0..10));
        rig.settled().await;
        assert_eq!(rig.books(), books);
        assert_eq!(rig.arrived().len() as u64, books[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_refuses_or_parks() {
    let bounded = QueueConfig { queue_size: 3, ..queue() };
    let rig = Rig::start(config(bounded.clone(), steady()), Toy::default(), rule(|_, _| slow(5))).await;
    let mut answers: Vec<_> = (0..4).map(|i| rig.ask(zeros(i..i + 1))).collect();
    let refused = answers.pop().unwrap().await;
    assert_eq!(refused, Ok(Verdict::retry("sending queue is full")));
    for answer in answers {
        assert_eq!(answer.await, Ok(Verdict::Accepted));
    }
    // What nobody can take back is taken beyond the bound.
    rig.offer(zeros(4..5));
    assert_eq!(rig.queued(), 4);
    assert!(rig.holds_acks());
    rig.settled().await;
    assert!(!rig.holds_acks());
    assert_eq!(rig.books(), [4, 0, 1]);

    let parking = QueueConfig { block_on_overflow: true, ..bounded };
    let rig = Rig::start(config(parking, steady()), Toy::default(), rule(|_, _| slow(5))).await;
    let mut answers: Vec<_> = (0..8).map(|i| rig.ask(zeros(i..i + 1))).collect();
    let mut known =
        || answers.iter_mut().map(|a| a.try_recv()).filter(|v| *v == Ok(Verdict::Accepted)).count();
    rig.pause().await;
    assert_eq!((known(), rig.queued()), (3, 8));
    advance(secs(5)).await;
    rig.pause().await;
    // The first request was the first batch or all three.
    assert!(known() > 0);
    rig.settled().await;
    assert_eq!(rig.arrived(), zeros(0..8).collect::<Vec<_>>());
    assert_eq!(rig.books(), [8, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn encoding_stops_at_the_backlog() {
    // Ten numbers of 8 bytes a batch; the destination hangs for a while.
    let bounded = ShardedConfig { backlog: 200, ..config(queue(), steady()) };
    let rig = Rig::start(bounded, Toy::default(), rule(|_, _| slow(10))).await;
    for i in 0..20 {
        rig.offer(zeros(i * 10..(i + 1) * 10));
    }
    rig.pause().await;
    assert_eq!(rig.encoded(), 3, "the one that reaches the bound is the last");
    advance(secs(9)).await;
    rig.pause().await;
    assert_eq!(rig.encoded(), 3);
    rig.settled().await;
    assert_eq!(rig.encoded(), 20);
    assert_eq!(rig.arrived(), zeros(0..200).collect::<Vec<_>>());
    assert_eq!(rig.books(), [200, 0, 0]);
    // Even with no backlog at all, one batch at a time gets through.
    let none = ShardedConfig { backlog: 0, ..config(queue(), steady()) };
    let rig = Rig::start(none, Toy::default(), rule(|_, _| slow(1))).await;
    (0..5).for_each(|i| rig.offer(i * 8..i * 8 + 8));
    rig.settled().await;
    assert_eq!(rig.books(), [40, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn items_without_a_form_are_counted_under_their_reason() {
    let toy = Toy { formless: vec![1, 2], forgotten: vec![3], ..Toy::default() };
    let rig = Rig::start(config(waiting(), steady()), toy, rule(|_, _| ok())).await;
    assert_eq!(rig.ask(0..8).await, Ok(Verdict::Accepted));
    assert_eq!(rig.ask([1, 2, 3]).await, Ok(Verdict::Accepted));
    assert_eq!(rig.ask([]).await, Ok(Verdict::Accepted));
    rig.settled().await;
    assert_eq!(rig.books(), [5, 6, 0]);
    let drops: Vec<_> = rig.drops().into_iter().collect();
    assert_eq!(drops, [("formless".into(), 4), ("unencodable".into(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn clients_are_not_mixed() {
    let rig = Rig::start(config(queue(), steady()), Toy::default(), rule(|_, _| slow(1))).await;
    // Partitions are by length: the first client stands for those that share its request.
    let tenants = ["a", "a", "bb", "cc", "a", "ccc"];
    for (i, tenant) in (0..).zip(tenants) {
        rig.offer_as(tenant, zeros(i..i + 1));
    }
    rig.settled().await;
    let want: [(&str, &[u64]); 5] =
        [("a", &[0]), ("a", &[4]), ("bb", &[8, 12]), ("a", &[16]), ("ccc", &[20])];
    let want: Vec<_> = want.map(|(tenant, ids)| (tenant.to_owned(), ids.to_vec())).into();
    assert_eq!(rig.tenants(), want);
    assert_eq!(rig.books(), [6, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn extra_requests_go_in_line_and_are_booked_as_nothing() {
    let toy = Toy { chatty: true, ..Toy::default() };
    let answers = rule(|ids, _| if ids.is_empty() { too_large() } else { slow(1) });
    let rig = Rig::start(config(queue(), steady()), toy, answers).await;
    for second in 0..5 {
        rig.offer(zeros(second..second + 1));
        rig.pause().await;
        advance(secs(1)).await;
    }
    rig.settled().await;
    tokio::time::sleep(secs(5)).await;
    rig.pause().await;
    let extras = rig.attempts().iter().filter(|a| a.ids.is_empty()).count();
    assert!((8..=11).contains(&extras), "{extras} in ten seconds");
    assert_eq!(rig.arrived(), zeros(0..5).collect::<Vec<_>>());
    assert_eq!(rig.books(), [5, 0, 0]);
    assert_eq!(rig.panicked(), 0);
    // None after the end has begun, however long it takes.
    let before = rig.attempts().len();
    rig.offer(zeros(5..10));
    rig.pause().await;
    rig.offer(zeros(10..15));
    let start = Instant::now();
    assert_eq!(rig.drain(secs(20)).await, Leftover::default());
    assert_eq!(start.elapsed(), secs(2));
    tokio::time::sleep(secs(5)).await;
    assert_eq!(rig.attempts().len(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_shard_holds_back_all() {
    let throttle = Outcome::Retry { after: Some(secs(10)), reason: "slow down".into() };
    let rule = rule(move |_, before| if before == 0 { Step::Now(throttle.clone()) } else { ok() });
    let rig = Rig::start(config(queue(), steady()), Toy::default(), rule).await;
    rig.offer([0]);
    rig.pause().await;
    rig.offer(1..4);
    rig.settled().await;
    for shard in 1..SHARDS {
        assert_eq!(rig.attempt_times(shard), [10]);
    }
    assert_eq!(rig.attempt_times(0), [0, 10]);
}

#[test]
fn a_report_stands_alone() {
    let mut report = Report::new(2);
    let mut out = report.output();
    out.item(0);
    out.item(1);
    out.item(7);
    let numbers = |ids: &[u64]| Numbers { shard: 0, ids: ids.to_vec(), tenant: None };
    out.full(0, numbers(&[2]));
    out.item(0);
    out.extra(1, numbers(&[]));
    out.dropped(2, "formless");
    assert_eq!(report.open(), [1, 1]);
    assert_eq!(report.dropped(), [(2, "formless")]);
    let want = [
        Closed { shard: 0, body: numbers(&[2]), items: Some(1) },
        Closed { shard: 1, body: numbers(&[]), items: None },
    ];
    assert_eq!(report.closed(), want);
    report.clear();
    assert_eq!((report.open(), report.closed().len(), report.dropped().len()), (&[0, 0][..], 0, 0));
}
