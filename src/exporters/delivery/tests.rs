//! Delivery against a scripted sender, on a paused clock: what is sent when, who is told what, and the books.

mod rig;
mod tenants;

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, advance};

use self::rig::{Rig, Step, config, queue, secs};
use super::{BatchConfig, BatchSizer, Outcome, QueueConfig, RetryConfig, Sizer};
use crate::config::types::Optional;
use crate::pipeline::{Leftover, Verdict};

fn retry() -> Step {
    Step::Now(Outcome::retry("down"))
}

fn throttle(delay: u64) -> Step {
    Step::Now(Outcome::Retry { after: Some(secs(delay)), reason: "slow down".into() })
}

fn ok() -> Step {
    Step::Now(Outcome::delivered())
}

fn bad() -> Step {
    Step::Now(Outcome::Rejected { bad_data: true, reason: "bad".into() })
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

#[tokio::test(start_paused = true)]
async fn attempts_follow_the_table() {
    let never = RetryConfig { enabled: false, ..steady() };
    let short = RetryConfig { max_elapsed_time: secs(8), ..steady() };
    let forever = RetryConfig { max_elapsed_time: Duration::ZERO, ..steady() };
    let dead = || Step::Repeat(Outcome::retry("down"));
    type Case = (&'static str, RetryConfig, Vec<Step>, Vec<u64>, [u64; 3], Option<&'static str>);
    let cases: Vec<Case> = vec![
        ("success", steady(), vec![ok()], vec![0], [10, 0, 0], None),
        (
            "back-off",
            steady(),
            vec![retry(), retry(), retry(), retry(), ok()],
            vec![0, 1, 3, 7, 11],
            [10, 0, 0],
            None,
        ),
        ("permanent", steady(), vec![bad()], vec![0], [0, 10, 0], Some("rejected")),
        ("permanent after retry", steady(), vec![retry(), bad()], vec![0, 1], [0, 10, 0], Some("rejected")),
        ("no retry", never.clone(), vec![retry()], vec![0], [0, 10, 0], Some("expired")),
        ("out of time", short, vec![dead()], vec![0, 1, 3, 7], [0, 10, 0], Some("expired")),
        ("longer than back-off", steady(), vec![throttle(9), ok()], vec![0, 9], [10, 0, 0], None),
        (
            "shorter than back-off",
            steady(),
            vec![retry(), throttle(1), ok()],
            vec![0, 1, 3],
            [10, 0, 0],
            None,
        ),
        ("too long a wait", steady(), vec![throttle(31)], vec![0], [0, 10, 0], Some("expired")),
        (
            "longer than the limit of waits",
            forever,
            vec![throttle(100), ok()],
            vec![0, 100],
            [10, 0, 0],
            None,
        ),
        (
            "partial success",
            steady(),
            vec![Step::Now(Outcome::Delivered { rejected: 3, message: "no".into() })],
            vec![0],
            [7, 3, 0],
            Some("partial_success"),
        ),
        (
            "a partial success that lies",
            steady(),
            vec![Step::Now(Outcome::Delivered { rejected: 99, message: String::new() })],
            vec![0],
            [0, 10, 0],
            Some("partial_success"),
        ),
    ];
    for (name, retry, script, times, books, reason) in cases {
        let rig = Rig::start(config(queue(), retry), script).await;
        rig.offer(0..10);
        rig.settled().await;
        assert_eq!(rig.attempt_times(), times, "{name}");
        assert_eq!(rig.books(), books, "{name}");
        assert_eq!(rig.drop_reasons(), reason.into_iter().collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_forever_when_told_so_and_attempts_time_out() {
    let mut config = config(queue(), RetryConfig { max_elapsed_time: Duration::ZERO, ..steady() });
    config.timeout = secs(5);
    let mut script = vec![Step::Hang];
    script.extend((0..500).map(|_| retry()));
    let rig = Rig::start(config, script).await;
    rig.offer(0..10);
    rig.settled().await;
    assert_eq!(rig.attempt_times().get(..3), Some(&[0, 6, 8][..]));
    assert_eq!(rig.attempts(), 502);
    assert_eq!(rig.books(), [10, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn one_throttled_request_holds_back_all() {
    let rig = Rig::start(config(queue(), steady()), vec![ok(), throttle(10)]).await;
    rig.offer(0..1);
    rig.offer(1..2);
    rig.pause().await;
    advance(secs(1)).await;
    (2..6).for_each(|i| rig.offer(i..i + 1));
    rig.settled().await;
    assert_eq!(rig.attempt_times(), [0, 0, 10, 10, 10, 10, 10]);
    assert_eq!(rig.books(), [6, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_back_is_noticed() {
    let slow = RetryConfig {
        initial_interval: secs(25),
        max_interval: secs(25),
        max_elapsed_time: secs(300),
        ..steady()
    };
    // (queue size, seconds before the second batch, script, attempts)
    let cases: Vec<(i64, u64, Vec<Step>, Vec<u64>)> = vec![
        // A delivery ends the back-off from an outage, not that from one refusal among successes.
        (1000, 10, vec![retry()], vec![0, 10, 10]),
        (1000, 0, vec![retry()], vec![0, 0, 25]),
        // A wait that was asked for is kept.
        (1000, 10, vec![throttle(20)], vec![0, 25, 25]),
        // While the queue is full, somebody looks every five seconds; else back-off is kept.
        (2, 0, vec![retry(); 4], vec![0, 0, 5, 10, 15, 15]),
        (1000, 0, vec![retry(); 3], vec![0, 0, 25, 25, 25]),
    ];
    for (queue_size, gap, script, want) in cases {
        let rig = Rig::start(config(QueueConfig { queue_size, ..queue() }, slow.clone()), script).await;
        rig.offer(0..10);
        rig.pause().await;
        advance(secs(gap)).await;
        rig.offer(10..20);
        rig.settled().await;
        assert_eq!(rig.attempt_times(), want, "queue of {queue_size}, {gap} s apart");
        assert_eq!(rig.books(), [20, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_consumers_in_order() {
    let rig = Rig::start(
        config(QueueConfig { num_consumers: 3, ..queue() }, steady()),
        vec![Step::Later(secs(1)); 20],
    )
    .await;
    (0..20).for_each(|i| rig.offer(i..i + 1));
    rig.settled().await;
    assert_eq!(rig.most_at_once(), 3);
    assert!(rig.delivered() == (0..20).collect::<Vec<_>>());
    assert_eq!(rig.attempt_times().last(), Some(&6));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_its_unit_with_what_is_being_sent() {
    // Three batches of 10 items fit; the first is being sent.
    let bytes = rig::request(0..10).len() as i64;
    for (sizer, size) in [(Sizer::Requests, 3), (Sizer::Items, 39), (Sizer::Bytes, bytes * 3 + bytes / 2)] {
        let queue = QueueConfig { sizer, queue_size: size, num_consumers: 1, ..queue() };
        let rig = Rig::start(config(queue, steady()), vec![Step::Later(secs(1)); 9]).await;
        assert!(!rig.holds_acks());
        let answers: Vec<Verdict> = rig.ask_all(&[10, 10, 10, 10]).await;
        assert_eq!(answers.get(..3), Some(&[Verdict::Accepted, Verdict::Accepted, Verdict::Accepted][..]));
        assert_eq!(answers.get(3), Some(&Verdict::retry("sending queue is full")), "{sizer:?}");
        assert_eq!(rig.queued(), 30);
        // Nobody can take back what was acknowledged upstream: it is taken beyond the bound.
        rig.offer(40..50);
        assert_eq!(rig.queued(), 40);
        assert!(rig.holds_acks());
        rig.settled().await;
        assert!(!rig.holds_acks());
        assert_eq!(rig.books(), [40, 0, 10]);
        if sizer != Sizer::Requests {
            let answers = rig.ask_all(&[100]).await;
            assert!(
                matches!(answers.first(), Some(Verdict::Rejected { bad_data: false, .. })),
                "{answers:?}"
            );
            assert_eq!(rig.books(), [40, 100, 10]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn overflow_waits_for_room_when_told_so() {
    let queue = QueueConfig { queue_size: 2, num_consumers: 1, block_on_overflow: true, ..queue() };
    let rig = Rig::start(config(queue, steady()), vec![Step::Later(secs(10)); 5]).await;
    let mut answers: Vec<_> = (0..5).map(|i| rig.ask(i..i + 1)).collect();
    rig.pause().await;
    let known = |answers: &mut Vec<tokio::sync::oneshot::Receiver<Verdict>>| {
        answers.iter_mut().map(|a| a.try_recv()).filter(|v| *v == Ok(Verdict::Accepted)).count()
    };
    assert_eq!(known(&mut answers), 2);
    assert!(rig.holds_acks());
    assert_eq!(rig.queued(), 5);
    for _ in 0..3 {
        advance(secs(10)).await;
        rig.pause().await;
        assert_eq!(known(&mut answers), 1);
    }
    rig.settled().await;
    assert!(rig.delivered() == (0..5).collect::<Vec<_>>());
    assert_eq!(rig.books(), [5, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_result_gets_it() {
    let waiting = Some(QueueConfig { wait_for_result: true, ..queue() });
    for queue in [None, waiting] {
        let cases: Vec<(Vec<Step>, Verdict, [u64; 3])> = vec![
            (vec![ok()], Verdict::Accepted, [10, 0, 0]),
            (vec![retry(), ok()], Verdict::Accepted, [10, 0, 0]),
            (vec![bad()], Verdict::Rejected { bad_data: true, reason: "bad".into() }, [0, 10, 0]),
            (vec![Step::Repeat(Outcome::retry("down"))], Verdict::retry("down"), [0, 0, 10]),
            (
                vec![throttle(60)],
                Verdict::Retry { after: Some(secs(60)), reason: "slow down".into() },
                [0, 0, 10],
            ),
        ];
        for (script, want, books) in cases {
            let mut config = config(QueueConfig::default(), steady());
            config.queue = queue.clone();
            let rig = Rig::start(config, script).await;
            assert!(rig.holds_acks());
            assert_eq!(rig.ask(0..10).await, Ok(want));
            rig.settled().await;
            assert_eq!(rig.books(), books);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_halved_until_it_fits() {
    let queue = QueueConfig { num_consumers: 1, ..queue() };
    for (most, books) in [(16, [100, 0, 0]), (1, [100, 0, 0]), (0, [0, 100, 0])] {
        let rig = Rig::start(config(queue.clone(), steady()), vec![Step::AtMost(most)]).await;
        rig.offer(0..100);
        rig.settled().await;
        assert_eq!(rig.books(), books);
        assert_eq!(rig.drop_reasons(), if most == 0 { vec!["too_large"] } else { vec![] });
        if most > 0 {
            assert!(rig.delivered() == (0..100).collect::<Vec<_>>(), "in order, each once");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_panics_costs_only_its_batch() {
    let queue = QueueConfig { num_consumers: 1, wait_for_result: true, ..queue() };
    let rig = Rig::start(config(queue, steady()), vec![ok(), Step::Panic]).await;
    let answers: Vec<_> = (0..3).map(|i| rig.ask(i * 10..(i + 1) * 10)).collect();
    let mut verdicts = Vec::new();
    for answer in answers {
        verdicts.push(matches!(answer.await, Ok(Verdict::Accepted)));
    }
    rig.settled().await;
    assert_eq!(verdicts, [true, false, true]);
    assert_eq!(rig.books(), [20, 0, 10]);
    assert_eq!(rig.panicked(), 1);
}

#[tokio::test(start_paused = true)]
async fn draining_sends_with_retries_until_the_deadline() {
    // Alive again within the deadline: waits are cut short, nothing is lost.
    let slow = RetryConfig {
        initial_interval: secs(25),
        max_interval: secs(30),
        max_elapsed_time: secs(300),
        ..steady()
    };
    let queue = QueueConfig { num_consumers: 1, ..queue() };
    let rig = Rig::start(config(queue.clone(), slow), vec![retry(), retry(), retry()]).await;
    (0..5).for_each(|i| rig.offer(i * 10..(i + 1) * 10));
    rig.pause().await;
    let start = Instant::now();
    assert_eq!(rig.drain(secs(20)).await, Leftover::default());
    assert!(start.elapsed() < secs(20));
    assert_eq!(rig.books(), [50, 0, 0]);

    // Dead: everything is lost and said to be, at the deadline.
    let rig = Rig::start(config(queue.clone(), steady()), vec![Step::Repeat(Outcome::retry("down"))]).await;
    (0..5).for_each(|i| rig.offer(i * 10..(i + 1) * 10));
    let start = Instant::now();
    assert_eq!(rig.drain(secs(20)).await, Leftover { lost: 50, kept: 0 });
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(rig.books(), [0, 50, 0]);
    assert_eq!(rig.drop_reasons(), ["shutdown"]);

    // Hanging, with senders that wait: they get it back, nothing is lost.
    let queue = QueueConfig { queue_size: 2, block_on_overflow: true, wait_for_result: true, ..queue };
    let rig = Rig::start(config(queue, steady()), vec![Step::Hang]).await;
    let answers: Vec<_> = (0..4).map(|i| rig.ask(i..i + 1)).collect();
    assert_eq!(rig.drain(secs(3)).await, Leftover::default());
    for answer in answers {
        assert!(matches!(answer.await, Ok(Verdict::Retry { .. })));
    }
    let late = rig.ask(0..1).await;
    assert!(matches!(late, Ok(Verdict::Retry { .. })));
    assert_eq!(rig.books(), [0, 0, 5]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_exporter_drains_at_once() {
    let rig = Rig::start(config(queue(), steady()), vec![]).await;
    let start = Instant::now();
    assert_eq!(rig.drain(secs(20)).await, Leftover::default());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

fn batching(batch: BatchConfig) -> QueueConfig {
    QueueConfig { batch: Optional::on(batch), num_consumers: 1, ..queue() }
}

#[tokio::test(start_paused = true)]
async fn batches_are_merged_split_and_flushed_in_time() {
    let cases = [
        // Merged by size, rest by time.
        (BatchConfig { min_size: 25, ..BatchConfig::default() }, vec![10; 7], vec![30, 30, 10]),
        // Split: every request but the last has exactly the limit.
        (BatchConfig { min_size: 25, max_size: 25, ..BatchConfig::default() }, vec![10; 7], vec![25, 25, 20]),
        (
            BatchConfig { min_size: 0, max_size: 40, ..BatchConfig::default() },
            vec![100, 10],
            vec![40, 40, 20, 10],
        ),
        // No minimum: as they come.
        (BatchConfig { min_size: 0, ..BatchConfig::default() }, vec![10, 10], vec![10, 10]),
    ];
    for (batch, offers, want) in cases {
        let rig = Rig::start(config(batching(batch), steady()), vec![]).await;
        let mut next = 0;
        for n in offers {
            rig.offer(next..next + n);
            next += n;
        }
        rig.settled().await;
        assert_eq!(rig.sizes(), want);
        assert!(rig.delivered() == (0..next).collect::<Vec<_>>());
        assert_eq!(rig.books(), [next, 0, 0]);
        let flush = if want.iter().any(|n| *n < 25) { 200 } else { 0 };
        assert!(rig.elapsed() <= Duration::from_millis(flush), "{:?}", rig.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_cut_by_bytes_and_partitioned_by_metadata() {
    let one = rig::request(0..1).len() as i64;
    let by_bytes =
        BatchConfig { sizer: BatchSizer::Bytes, min_size: 0, max_size: one * 4, ..BatchConfig::default() };
    let rig = Rig::start(config(batching(by_bytes.clone()), steady()), vec![]).await;
    rig.offer(0..50);
    rig.settled().await;
    assert!(rig.delivered() == (0..50).collect::<Vec<_>>());
    assert!(rig.sizes().len() > 5);

    // One item above the limit cannot be cut.
    let tiny = BatchConfig { max_size: 10, ..by_bytes };
    let rig = Rig::start(config(batching(tiny), steady()), vec![]).await;
    rig.offer(0..5);
    rig.settled().await;
    assert_eq!(rig.books(), [0, 5, 0]);
    assert_eq!(rig.drop_reasons(), ["too_large"]);

    let mut batch = BatchConfig { min_size: 1000, ..BatchConfig::default() };
    batch.partition.metadata_keys = vec!["X-Tenant".into()];
    let rig = Rig::start(config(batching(batch), steady()), vec![]).await;
    for i in 0..9 {
        rig.offer_as(["a", "b", "c"].get(i as usize % 3).copied(), i..i + 1);
    }
    rig.settled().await;
    assert_eq!(rig.sizes(), [3, 3, 3]);
    let mut tenants = rig.tenants();
    tenants.sort();
    assert_eq!(tenants, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_batcher_holds_is_drained_and_counted_against_the_queue() {
    let batch = BatchConfig { min_size: 1000, flush_timeout: secs(60), ..BatchConfig::default() };
    let queue = QueueConfig { queue_size: 3, ..batching(batch) };
    let rig = Rig::start(config(queue, steady()), vec![]).await;
    let answers = rig.ask_all(&[10, 10, 10, 10]).await;
    assert_eq!(answers.iter().filter(|v| **v == Verdict::Accepted).count(), 3);
    assert_eq!(rig.queued(), 30);
    let start = Instant::now();
    assert_eq!(rig.drain(secs(5)).await, Leftover::default());
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(rig.books(), [30, 0, 10]);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(ok()),
        2 => Just(retry()),
        1 => (0..40u64).prop_map(throttle),
        1 => Just(bad()),
        1 => Just(Step::Hang),
        1 => (0..9usize).prop_map(Step::AtMostOnce),
        1 => (0..9usize).prop_map(|rejected| Step::Now(Outcome::Delivered { rejected, message: "x".into() })),
        2 => (0..3u64).prop_map(|s| Step::Later(secs(s))),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the destination does: the books balance, no id is lost that is not booked, none is doubled.
    #[test]
    fn the_books_balance(
        script in steps(),
        offers in proptest::collection::vec((0..12u64, any::<bool>()), 1..30),
        (size, consumers, sizer) in (1..40i64, 1..4i64, prop_oneof![Just(Sizer::Requests), Just(Sizer::Items)]),
        (block, wait, batch, queued) in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        drain in 0..90u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut queue = QueueConfig {
                queue_size: size, num_consumers: consumers, sizer, block_on_overflow: block, wait_for_result: wait,
                ..QueueConfig::default()
            };
            if batch {
                queue.batch = Optional::on(BatchConfig { min_size: 15, max_size: 20, ..BatchConfig::default() });
            }
            let mut config = config(queue, steady());
            config.timeout = secs(5);
            if !queued {
                config.queue = None;
            }
            let rig = Rig::start(config, script).await;
            let (mut next, mut answers, mut held) = (0, Vec::new(), 0);
            for (n, waited_for) in offers {
                if waited_for {
                    answers.push((n, rig.ask(next..next + n)));
                } else {
                    rig.offer(next..next + n);
                }
                next += n;
                advance(Duration::from_millis(300)).await;
            }
            let leftover = rig.drain(secs(drain)).await;
            let [sent, failed, refused] = rig.books();
            prop_assert_eq!(sent + failed + refused, next);
            prop_assert!(leftover.lost <= failed);
            prop_assert_eq!(leftover.kept, 0);
            // `sent` excludes what a partial success rejected, which arrived all the same.
            let arrived = rig.delivered();
            let mut unique = arrived.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), arrived.len(), "an id arrived twice");
            prop_assert!(arrived.len() as u64 >= sent);
            for (n, answer) in answers {
                // Everybody is told something.
                if matches!(answer.await, Ok(Verdict::Retry { .. })) {
                    held += n;
                }
            }
            prop_assert!(refused <= held, "{} refused, {} told to retry", refused, held);
            Ok(())
        })?;
    }
}
