//! Tenants that cannot hurt each other: throttled, failing, flooding, parked, at the end, and all of it mixed.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::advance;

use super::rig::{Rig, Step, config, queue, request, secs};
use super::{ok, retry, steady, throttle};
use crate::config::types::Optional;
use crate::exporters::delivery::{BatchConfig, Outcome, QueueConfig, RetryConfig, Sizer};
use crate::pdata::Tenant;
use crate::pipeline::{Leftover, Verdict};

fn tenant(name: &str) -> Tenant {
    Tenant::new(name)
}

fn tenants(n: usize) -> Vec<Tenant> {
    (0..n).map(|i| tenant(&format!("t{i}"))).collect()
}

/// Back-offs of half a minute.
fn slow() -> RetryConfig {
    RetryConfig {
        initial_interval: secs(25),
        max_interval: secs(25),
        max_elapsed_time: secs(300),
        ..steady()
    }
}

const STEP: Duration = Duration::from_millis(10);

/// Every 10 ms a batch of each of 49 tenants, for 90 s, each sent in 10 ms; and, before them, `sick` with 200 batches.
/// The longest time from offer to delivery of the 49.
async fn worst_delay(sick: Vec<Step>, retry: RetryConfig) -> Duration {
    let queue = QueueConfig { num_consumers: 10, queue_size: 10_000, ..queue() };
    let rig = Rig::start_with(config(queue, retry), 1 << 30, vec![], [("sick", sick)]).await;
    (0..200).for_each(|i| rig.offer_of(&tenant("sick"), i..i + 1));
    rig.pause().await;
    let well = tenants(49);
    let (mut next, mut offered) = (1000, HashMap::new());
    let start = tokio::time::Instant::now();
    for _ in 0..900 {
        for tenant in &well {
            rig.offer_of(tenant, next..next + 1);
            offered.insert(next, start.elapsed());
            next += 1;
        }
        rig.pause().await;
        advance(STEP * 10).await;
    }
    rig.pause().await;
    let mut worst = Duration::ZERO;
    for (tenant, ids, at) in rig.deliveries() {
        if tenant.is_some_and(|t| t.name() != "sick") {
            worst = worst.max(at - offered.remove(&ids[0]).unwrap());
        }
    }
    assert!(offered.is_empty(), "{} are not delivered", offered.len());
    worst
}

#[tokio::test(start_paused = true)]
async fn a_sick_tenant_does_not_delay_the_others_at_all() {
    let dead = Step::Repeat(Outcome::retry("down"));
    let throttled = Step::Repeat(Outcome::Retry { after: Some(secs(60)), reason: "slow down".into() });
    let bad = Step::Repeat(Outcome::rejected("bad"));
    for (name, sick) in [("dead", dead), ("throttled", throttled), ("bad", bad)] {
        assert_eq!(worst_delay(vec![sick], slow()).await, Duration::ZERO, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_tenant_waits_alone_and_is_sent_afterwards() {
    let queue = QueueConfig { num_consumers: 3, ..queue() };
    let rig = Rig::start_with(config(queue, slow()), 1 << 30, vec![], [("a", vec![throttle(60)])]).await;
    let [a, b] = [tenant("a"), tenant("b")];
    rig.offer_of(&a, 0..10);
    rig.pause().await;
    for i in 1..6 {
        rig.offer_of(&a, i * 10..i * 10 + 10);
        rig.offer_of(&b, 100 * i..100 * i + 10);
    }
    rig.offer(1000..1010);
    rig.settled().await;
    assert_eq!(rig.attempts_of(&a).first(), Some(&Duration::ZERO));
    assert!(rig.attempts_of(&a)[1..].iter().all(|at| *at >= secs(60) && *at < secs(61)));
    assert!(rig.attempts_of(&b).iter().all(|at| at.is_zero()));
    // Nothing new of it was sent before the first one was taken.
    let first = rig.deliveries().into_iter().find(|d| d.0 == Some(a.clone())).unwrap();
    assert_eq!(first.1, (0..10).collect::<Vec<_>>());
    assert_eq!(rig.books(), [120, 0, 0]);
    assert_eq!((rig.books_of(&a), rig.books_of(&b)), ([60, 0, 0, 0], [50, 0, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_failing_tenant_has_one_request_out_at_a_time() {
    // All of its requests hang; the others need places meanwhile.
    let queue = QueueConfig { num_consumers: 5, ..queue() };
    let mut hanging = config(queue, steady());
    hanging.timeout = secs(5);
    let rig = Rig::start_with(hanging, 1 << 30, vec![], [("sick", vec![Step::Hang; 100])]).await;
    let [sick, well] = [tenant("sick"), tenant("well")];
    (0..20).for_each(|i| rig.offer_of(&sick, i..i + 1));
    rig.pause().await;
    // Nothing is known yet: it has all places but those that others must find free.
    assert_eq!(rig.attempts_of(&sick).len(), 4);
    rig.offer_of(&well, 100..101);
    rig.pause().await;
    assert_eq!(rig.attempts_of(&well), [Duration::ZERO]);
    advance(secs(5)).await;
    rig.pause().await;
    let before = rig.attempts_of(&sick).len();
    for second in 0..20 {
        for i in 0..4 {
            rig.offer_of(&well, 200 + second * 10 + i..201 + second * 10 + i);
        }
        rig.pause().await;
        assert_eq!(rig.attempts_of(&well).len(), 1 + 4 * (second as usize + 1), "at once");
        advance(secs(1)).await;
        rig.pause().await;
    }
    // One that hangs for five seconds, then the next.
    let tried = rig.attempts_of(&sick).len() - before;
    assert!((3..=5).contains(&tried), "{tried}");
    assert_eq!(rig.drain(Duration::ZERO).await, Leftover { lost: 20, kept: 0 });
    assert_eq!(rig.books(), [81, 20, 0]);
    assert_eq!(rig.books_of(&sick), [0, 20, 0, 0]);
}

fn seconds(rig: &Rig, tenant: &Tenant) -> Vec<u64> {
    rig.attempts_of(tenant).iter().map(Duration::as_secs).collect()
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_back_is_noticed_by_who_missed_it() {
    let [a, b] = [tenant("a"), tenant("b")];
    // (script of a, attempts for a and b); a is offered at 0 and 20 s, b, which fails once, at 10 s.
    let cases: [(Vec<Step>, [Vec<u64>; 2]); 2] = [
        // Nobody was served: what is delivered for the one ends the other's wait.
        (vec![retry()], [vec![0, 25, 25], vec![10, 25]]),
        // Only b is not served: deliveries for a say nothing about it.
        (vec![], [vec![0, 20], vec![10, 35]]),
    ];
    for (of_a, want) in cases {
        let scripts = [("a", of_a), ("b", vec![retry()])];
        let rig = Rig::start_with(config(queue(), slow()), 1 << 30, vec![], scripts).await;
        rig.offer_of(&a, 0..1);
        rig.pause().await;
        advance(secs(10)).await;
        rig.offer_of(&b, 10..11);
        rig.pause().await;
        advance(secs(10)).await;
        rig.offer_of(&a, 1..2);
        rig.settled().await;
        assert_eq!([seconds(&rig, &a), seconds(&rig, &b)], want);
        assert_eq!(rig.books(), [3, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_want_of_a_share_is_tried_more_often() {
    let scripts = [("hog", vec![retry(); 9]), ("quiet", vec![retry()])];
    let queue = QueueConfig { queue_size: 20, ..queue() };
    let rig = Rig::start_with(config(queue, slow()), 1 << 30, vec![], scripts).await;
    let [hog, quiet, well] = [tenant("hog"), tenant("quiet"), tenant("well")];
    (0..16).for_each(|i| rig.offer_of(&hog, i..i + 1));
    rig.offer_of(&quiet, 100..101);
    rig.offer_of(&well, 200..201);
    rig.pause().await;
    assert_eq!(rig.queued(), 17);
    for _ in 0..19 {
        advance(Duration::from_millis(500)).await;
        rig.pause().await;
    }
    rig.offer_of(&well, 201..202);
    rig.settled().await;
    // While its requests fail, somebody looks every five seconds.
    let of_hog = seconds(&rig, &hog);
    assert_eq!(of_hog[..10], [0, 0, 0, 0, 0, 0, 0, 0, 5, 10]);
    assert!(of_hog[10..].iter().all(|at| *at == 10), "{of_hog:?}");
    assert_eq!(seconds(&rig, &quiet), [0, 25]);
    assert_eq!(rig.books(), [19, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn demoted_data_comes_last() {
    let queue = QueueConfig { num_consumers: 1, ..queue() };
    let rig = Rig::start_with(config(queue, steady()), 1 << 30, vec![Step::Later(secs(1)); 100], []).await;
    let [a, b] = [tenant("a"), tenant("b")];
    rig.offer(0..1);
    rig.offer_demoted(&a, 10..11);
    rig.offer_demoted(&b, 20..21);
    rig.offer_of(&a, 30..31);
    rig.offer_of(&b, 40..41);
    rig.pause().await;
    advance(Duration::from_millis(500)).await;
    rig.offer(1..2);
    rig.settled().await;
    assert_eq!(rig.delivered(), [0, 30, 40, 1, 10, 20]);
    assert_eq!((rig.books_of(&a), rig.books_of(&b)), ([2, 0, 0, 0], [2, 0, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn tenants_are_served_by_bytes() {
    let queue = QueueConfig { num_consumers: 1, ..queue() };
    let rig = Rig::start_with(config(queue, steady()), 1 << 30, vec![Step::Later(STEP); 1000], []).await;
    let [large, small] = [tenant("large"), tenant("small")];
    // 100 batches of 1000 spans, 100 batches of 10; about 32 KiB and 330 bytes.
    (0..100).for_each(|i| rig.offer_of(&large, i * 1000..i * 1000 + 1000));
    (0..100).for_each(|i| rig.offer_of(&small, 1_000_000 + i * 10..1_000_000 + i * 10 + 10));
    rig.settled().await;
    let order: Vec<bool> = rig.deliveries().iter().map(|d| d.0 == Some(large.clone())).collect();
    let before = order.iter().rposition(|is_large| !is_large).unwrap() - 99;
    assert!(before <= 4, "{before} large batches go before 33 KiB of small ones");
}

#[tokio::test(start_paused = true)]
async fn who_has_its_share_is_refused_and_the_others_are_not() {
    let hang = || vec![Step::Hang; 1000];
    let rig = Rig::start_with(config(queue(), steady()), 1 << 30, hang(), []).await;
    let hog = tenant("hog");
    assert!(!rig.holds_acks());
    let answers: Vec<_> = (0..810).map(|i| rig.ask_of(&hog, i..i + 1)).collect();
    let mut accepted = 0;
    for answer in answers {
        match answer.await.unwrap() {
            Verdict::Accepted => accepted += 1,
            verdict => assert_eq!(verdict, Verdict::retry("the tenant's share of the sending queue is full")),
        }
    }
    assert_eq!(accepted, 800);
    assert!(rig.holds_acks(), "what is acknowledged early could not be refused");
    for (i, quiet) in tenants(40).iter().enumerate() {
        let id = 10_000 + i as u64;
        assert_eq!(rig.ask_of(quiet, id..id + 1).await, Ok(Verdict::Accepted));
    }
    // Its share shrinks as others come; what was acknowledged before is taken all the same.
    rig.offer_of(&hog, 20_000..20_001);
    assert_eq!(rig.books_of(&hog), [0, 0, 10, 801]);
    assert_eq!(rig.refusal_reasons(), ["tenant_share"]);
    assert_eq!(rig.drain(Duration::ZERO).await, Leftover { lost: 841, kept: 0 });
    assert_eq!(rig.books_of(&hog), [0, 801, 10, 0]);
    assert_eq!(rig.books(), [0, 841, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_tenant_leaves_others_their_memory() {
    let one = request(0..10).len();
    let queue = QueueConfig { sizer: Sizer::Bytes, queue_size: 1 << 30, ..queue() };
    let scripts = [("hog", vec![throttle(60)])];
    let rig = Rig::start_with(config(queue, slow()), one * 100, vec![], scripts).await;
    let [hog, quiet] = [tenant("hog"), tenant("quiet")];
    let mut accepted = 0;
    for i in 0..80 {
        let answer = rig.ask_of(&hog, i * 10..i * 10 + 10).await;
        accepted += usize::from(answer == Ok(Verdict::Accepted));
    }
    // As much as is free, and no more.
    assert!((48..=50).contains(&accepted), "{accepted}");
    assert_eq!(rig.memory_used(), accepted * one);
    assert!(rig.holds_acks());
    assert_eq!(rig.ask_of(&quiet, 10_000..10_010).await, Ok(Verdict::Accepted));
    rig.settled().await;
    assert_eq!(rig.books_of(&hog), [accepted as u64 * 10, 0, 800 - accepted as u64 * 10, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_parked_tenant_does_not_hold_up_the_others() {
    let queue = QueueConfig { queue_size: 10, block_on_overflow: true, ..queue() };
    let scripts = [("hog", vec![throttle(60)])];
    let rig = Rig::start_with(config(queue, slow()), 1 << 30, vec![], scripts).await;
    let [hog, quiet] = [tenant("hog"), tenant("quiet")];
    rig.offer_of(&hog, 0..1);
    rig.pause().await;
    let mut answers: Vec<_> = (1..12).map(|i| rig.ask_of(&hog, i..i + 1)).collect();
    rig.pause().await;
    let known = |answers: &mut Vec<tokio::sync::oneshot::Receiver<Verdict>>| {
        answers.iter_mut().filter_map(|a| a.try_recv().ok()).count()
    };
    assert_eq!(known(&mut answers), 7);
    for i in 100..110 {
        assert_eq!(rig.ask_of(&quiet, i..i + 1).await, Ok(Verdict::Accepted));
        rig.pause().await;
    }
    assert_eq!(rig.books_of(&quiet), [10, 0, 0, 0]);
    assert_eq!(rig.books_of(&hog), [0, 0, 0, 12]);
    rig.settled().await;
    assert_eq!(known(&mut answers), 4);
    assert_eq!(rig.books_of(&hog), [12, 0, 0, 0]);
    let mut ids = rig.delivered();
    assert_eq!(ids.drain(..11).collect::<Vec<_>>(), (100..110).chain([0]).collect::<Vec<_>>());
    ids.sort_unstable();
    assert_eq!(ids, (1..12).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn draining_keeps_waits_that_were_asked_for_and_cuts_the_others_short() {
    let [throttled, failing, well] = [tenant("throttled"), tenant("failing"), tenant("well")];
    // (throttled for, deadline, lost)
    for (delay, deadline, lost) in [(30, 40, 0), (60, 20, 10)] {
        let scripts = [("throttled", vec![throttle(delay)]), ("failing", vec![retry()])];
        let queue = QueueConfig { num_consumers: 2, ..queue() };
        let rig = Rig::start_with(config(queue, slow()), 1 << 30, vec![], scripts).await;
        for (i, tenant) in [&throttled, &failing, &well].into_iter().enumerate() {
            (0..10).for_each(|n| rig.offer_of(tenant, (i * 10 + n) as u64..(i * 10 + n) as u64 + 1));
        }
        rig.pause().await;
        assert_eq!(rig.drain(secs(deadline)).await, Leftover { lost, kept: 0 });
        assert!(rig.elapsed() <= secs(deadline));
        assert_eq!(rig.books_of(&failing), [10, 0, 0, 0]);
        assert_eq!(rig.books_of(&throttled), [10 - lost, lost, 0, 0]);
        assert_eq!(rig.books(), [30 - lost, lost, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_tenants_are_told_their_own_outcome() {
    let mut unqueued = config(queue(), RetryConfig { enabled: false, ..steady() });
    unqueued.queue = None;
    let scripts = [("a", vec![throttle(60)]), ("b", vec![Step::Panic])];
    let rig = Rig::start_with(unqueued, 1 << 30, vec![], scripts).await;
    let [a, b] = [tenant("a"), tenant("b")];
    let told = Verdict::Retry { after: Some(secs(60)), reason: "slow down".into() };
    assert_eq!(rig.ask_of(&a, 0..1).await, Ok(told));
    assert!(matches!(rig.ask_of(&b, 1..2).await, Ok(Verdict::Retry { .. })));
    assert_eq!(rig.ask_of(&b, 2..3).await, Ok(Verdict::Accepted));
    // The next ones wait for the time that was asked for, as that is not over.
    let later: Vec<_> = (3..6).map(|i| rig.ask_of(&a, i..i + 1)).collect();
    rig.settled().await;
    for answer in later {
        assert_eq!(answer.await, Ok(Verdict::Accepted));
    }
    assert_eq!(seconds(&rig, &a), [0, 60, 60, 60]);
    assert_eq!((rig.books_of(&a), rig.books_of(&b)), ([3, 0, 1, 0], [1, 0, 1, 0]));
}

/// On threads and in real time, with everything that can happen to requests at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_agree_on_places_and_books() {
    let short = Duration::from_millis(2);
    let again = Step::Now(Outcome::Retry { after: Some(short), reason: "slow down".into() });
    let script = |i: usize| {
        let step = |n: usize| match (n * 7 + i * 13) % 6 {
            0 => retry(),
            1 => again.clone(),
            2 | 3 => Step::Later(short / 4),
            4 if i < 4 => Step::Panic,
            _ => ok(),
        };
        (0..150).map(step).collect::<Vec<_>>()
    };
    let known = tenants(12);
    let retry = RetryConfig { initial_interval: short, max_interval: short * 2, ..steady() };
    let queue = QueueConfig { num_consumers: 4, queue_size: 100_000, ..queue() };
    let scripts = known.iter().enumerate().map(|(i, tenant)| (tenant.name(), script(i)));
    let rig = Rig::start_with(config(queue, retry), 1 << 30, vec![], scripts).await;
    for n in 0..100 {
        for (i, tenant) in known.iter().enumerate() {
            let id = (n * 100 + i as u64) * 10;
            rig.offer_of(tenant, id..id + 10);
        }
        rig.offer(1_000_000 + n..1_000_001 + n);
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.drain(secs(60)).await.kept, 0);
    let [sent, failed, refused] = rig.books();
    assert_eq!((sent + failed, refused), (12_100, 0));
    assert_eq!(failed, rig.panicked() as u64 * 10, "only what panicked is lost");
    assert!(rig.most_at_once() <= 4);
    for tenant in &known {
        let [sent, failed, refused, queued] = rig.books_of(tenant);
        assert_eq!((sent + failed, refused, queued), (1000, 0, 0));
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(ok()),
        3 => Just(retry()),
        2 => (0..40u64).prop_map(throttle),
        1 => Just(super::bad()),
        1 => Just(Step::Hang),
        1 => Just(Step::Panic),
        1 => (0..9usize).prop_map(Step::AtMostOnce),
        1 => (0..9usize).prop_map(|rejected| Step::Now(Outcome::Delivered { rejected, message: "x".into() })),
        3 => (0..3u64).prop_map(|s| Step::Later(secs(s))),
    ];
    proptest::collection::vec(step, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the destination does to whom: each item of each tenant ends once, and arrives as its tenant's only.
    #[test]
    fn the_books_of_tenants_balance(
        scripts in proptest::collection::vec(steps(), 4),
        offers in proptest::collection::vec((0..4usize, 0..12u64, any::<bool>(), any::<bool>()), 1..60),
        (size, consumers, share) in (1..60i64, 1..6i64, prop_oneof![Just(1.0), Just(0.3)]),
        (block, wait, batch, queued) in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        (budget, drain) in (prop_oneof![Just(1usize << 30), Just(60_000)], 0..90u64),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut queue = QueueConfig {
                queue_size: size, num_consumers: consumers, sizer: Sizer::Items, block_on_overflow: block,
                wait_for_result: wait, ..queue()
            };
            if batch {
                queue.batch = Optional::on(BatchConfig { min_size: 15, max_size: 20, ..BatchConfig::default() });
            }
            let mut config = config(queue, steady());
            config.timeout = secs(5);
            if !queued {
                config.queue = None;
            }
            let names = ["t0", "t1", "t2"];
            let known: Vec<Tenant> = names.iter().map(|name| Tenant::with_queue_share(name, share)).collect();
            let mut scripts = scripts.into_iter();
            let common = scripts.next().unwrap();
            let rig = Rig::start_with(config, budget, common, names.into_iter().zip(scripts)).await;
            let (mut next, mut answers) = (0, Vec::new());
            let (mut offered, mut owner) = ([0; 4], HashMap::new());
            for (who, n, waited_for, demoted) in offers {
                owner.extend((next..next + n).map(|id| (id, who)));
                match (known.get(who), waited_for) {
                    (Some(tenant), true) => answers.push((n, rig.ask_of(tenant, next..next + n))),
                    (Some(tenant), false) if demoted => rig.offer_demoted(tenant, next..next + n),
                    (Some(tenant), false) => rig.offer_of(tenant, next..next + n),
                    (None, true) => answers.push((n, rig.ask(next..next + n))),
                    (None, false) => rig.offer(next..next + n),
                }
                offered[who] += n;
                next += n;
                for (tenant, offered) in known.iter().zip(offered) {
                    prop_assert_eq!(rig.books_of(tenant).iter().sum::<u64>(), offered, "at all times");
                }
                advance(Duration::from_millis(300)).await;
            }
            let leftover = rig.drain(secs(drain)).await;
            let [sent, failed, refused] = rig.books();
            prop_assert_eq!(sent + failed + refused, next);
            prop_assert!(leftover.lost <= failed);
            for (tenant, offered) in known.iter().zip(offered) {
                let [sent, failed, refused, queued] = rig.books_of(tenant);
                prop_assert_eq!((sent + failed + refused, queued), (offered, 0));
            }
            let mut arrived = 0;
            for (tenant, ids, _) in rig.deliveries() {
                for id in ids {
                    let who = owner.remove(&id).expect("an item arrived twice");
                    prop_assert_eq!(tenant.as_ref(), known.get(who));
                    arrived += 1;
                }
            }
            prop_assert!(arrived >= sent);
            let mut held = 0;
            for (n, answer) in answers {
                if matches!(answer.await, Ok(Verdict::Retry { .. })) {
                    held += n;
                }
            }
            prop_assert!(refused <= held, "{} refused, {} told to retry", refused, held);
            Ok(())
        })?;
    }
}
