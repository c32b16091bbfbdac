//! Tenants that must not hurt each other: throttled, rejected, noisy, demoted, slow, named by requests.

use super::rig::{DEMOTED, EACH};
use super::*;
use proptest::prelude::*;

/// Numbers of a tenant, all on shard 0.
fn of(tenant: u64, range: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
    zeros(range).map(move |id| tenant * EACH + id)
}

fn tenant(ids: &[u64]) -> u64 {
    ids.first().map_or(0, |id| id / EACH)
}

fn wait(seconds: u64) -> Step {
    Step::Now(Outcome::Retry { after: Some(secs(seconds)), reason: "slow down".into() })
}

/// Never gives up.
fn patient() -> RetryConfig {
    RetryConfig { max_elapsed_time: Duration::ZERO, ..steady() }
}

/// Attempts at requests of a tenant: when, and how many numbers.
fn attempts(rig: &Rig, of: u64) -> Vec<(u64, usize)> {
    let own = rig.attempts().into_iter().filter(|a| tenant(&a.ids) == of);
    own.map(|a| (a.at, a.ids.len())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_throttled_tenant_waits_alone() {
    let rule = rule(|ids, before| if tenant(ids) == 1 && before < 20 { wait(60) } else { ok() });
    let rig = Rig::start(config(queue(), patient()), Toy::default(), rule).await;
    for second in 0..20 {
        for tenant in 0..4 {
            // Each sends on all shards.
            let from = tenant * EACH + second * 8;
            rig.offer(from..from + 8);
        }
        rig.pause().await;
        for tenant in [0, 2, 3] {
            let [last, before] = [second * 4 + 4, second * 4].map(|n| n as usize);
            let sent = attempts(&rig, tenant);
            assert_eq!((sent.len(), &sent[before..last]), (last, &[(second, 2); 4][..]), "{tenant}");
        }
        advance(secs(1)).await;
    }
    // It was told once; what else there is of it waited for that.
    assert_eq!(attempts(&rig, 1)[..], [(0, 2)]);
    rig.settled().await;
    let late = attempts(&rig, 1);
    assert!(late[1..].iter().all(|(at, _)| *at == 60), "{late:?}");
    assert_eq!(rig.arrived().len(), 4 * 160);
    assert_eq!(rig.books(), [640, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn bad_data_is_looked_for_in_its_own_line() {
    // A second for each attempt of tenant 1, of whose numbers one is bad.
    let rule = rule(|ids, _| match tenant(ids) {
        1 if ids.contains(&(EACH + 20)) => {
            Step::Later(secs(1), Outcome::Rejected { bad_data: true, reason: "bad".into() })
        }
        1 => slow(1),
        _ => ok(),
    });
    let rig = Rig::start(config(waiting(), patient()), Toy::default(), rule).await;
    let bad = rig.ask(of(1, 0..16));
    for second in 0..8 {
        rig.offer(of(2, second..second + 1));
        rig.pause().await;
        assert_eq!(attempts(&rig, 2).last(), Some(&(second, 1)));
        advance(secs(1)).await;
    }
    assert!(matches!(bad.await, Ok(Verdict::Rejected { bad_data: true, .. })));
    rig.settled().await;
    assert!(attempts(&rig, 1).len() > 5 && attempts(&rig, 2).len() == 8);
    let want: Vec<u64> = of(1, 0..16).filter(|id| *id != EACH + 20).chain(of(2, 0..8)).collect();
    assert_eq!(rig.arrived(), want);
    assert_eq!((rig.counted(1, "sent"), rig.counted(1, "failed"), rig.counted(2, "sent")), (15, 1, 8));
    assert_eq!(rig.books(), [23, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn nobody_fills_what_is_encoded() {
    // Ten numbers of 8 bytes a batch, of which the throttled tenant has far too many.
    let rule = rule(|ids, _| if tenant(ids) == 1 { wait(60) } else { slow(1) });
    let narrow = ShardedConfig { backlog: 4000, ..config(queue(), patient()) };
    let rig = Rig::start(narrow, Toy::default(), rule).await;
    for n in 0..100 {
        rig.offer(of(1, n * 10..n * 10 + 10));
    }
    for second in 0..5 {
        for other in 2..5 {
            rig.offer(of(other, second * 10..second * 10 + 10));
        }
        rig.pause().await;
        advance(secs(1)).await;
    }
    rig.pause().await;
    let encoded = |tenant: u64| rig.encoded_for().iter().filter(|t| **t == tenant).count();
    // Four fifths of the bound, less what the others have, and the batch that reaches it.
    assert!((30..=41).contains(&encoded(1)), "{}", encoded(1));
    assert_eq!([encoded(2), encoded(3), encoded(4)], [5; 3]);
    assert_eq!(rig.arrived().len(), 150);
    assert_eq!(rig.drain(secs(1)).await, Leftover { lost: 1000, kept: 0 });
    assert_eq!((rig.books(), rig.counted(1, "failed")), ([150, 1000, 0], 1000));
}

#[tokio::test(start_paused = true)]
async fn nobody_fills_the_queue() {
    let small = QueueConfig { queue_size: 50, ..queue() };
    let rule = rule(|ids, _| if tenant(ids) == 1 { wait(60) } else { ok() });
    let rig = Rig::start(config(small, patient()), Toy::default(), rule).await;
    let mut refused = 0;
    for n in 0..100 {
        refused += usize::from(rig.ask(of(1, n..n + 1)).await != Ok(Verdict::Accepted));
    }
    assert_eq!(refused, 60, "it has four fifths");
    for n in 0..20 {
        assert_eq!(rig.ask(of(2, n..n + 1)).await, Ok(Verdict::Accepted));
        rig.pause().await;
    }
    assert_eq!(rig.arrived().len(), 20);
    rig.drain(secs(1)).await;
    assert_eq!(rig.books(), [20, 40, 60]);
}

#[tokio::test(start_paused = true)]
async fn who_has_much_waiting_takes_turns() {
    // 128 KiB a batch; a turn is eight of them.
    let config = ShardedConfig { backlog: 1 << 30, ..config(queue(), patient()) };
    let rig = Rig::build(config, Toy::default(), rule(|_, _| ok()));
    let batch = |tenant, n: u64| of(tenant, n * 16384..(n + 1) * 16384);
    for n in 0..12 {
        rig.offer(batch(1, n));
    }
    for tenant in [0, 2, 3] {
        rig.offer(of(tenant, 0..1));
    }
    rig.run().await;
    rig.settled().await;
    let mut turns = rig.encoded_for();
    turns.dedup();
    assert_eq!(turns, [1, 0, 2, 3, 1]);
    assert_eq!(rig.books(), [12 * 16384 + 3, 0, 0]);
    rig.arrived();
}

#[tokio::test(start_paused = true)]
async fn demoted_batches_wait_behind_all_others() {
    let demoted = |tenant: u64, n: u64| of(tenant, 0..1).map(move |id| id + DEMOTED + n * SHARDS as u64);
    let rig = Rig::build(config(queue(), patient()), Toy::default(), rule(|_, _| slow(1)));
    rig.offer(demoted(1, 0));
    rig.offer(demoted(2, 0));
    rig.offer(demoted(2, 1));
    for tenant in [1, 2, 0] {
        rig.offer(of(tenant, 0..1));
    }
    rig.run().await;
    rig.settled().await;
    let order: Vec<u64> = rig.attempts().iter().map(|a| a.ids[0]).collect();
    // Also behind its own tenant's, in one line: the order of series does not end with the limit.
    assert_eq!(order, [EACH, 2 * EACH, 0, EACH + DEMOTED, 2 * EACH + DEMOTED]);
    let sizes: Vec<usize> = rig.attempts().iter().map(|a| a.ids.len()).collect();
    assert_eq!(sizes, [1, 1, 1, 1, 2], "what is demoted shares no request with what is not");
    rig.arrived();
}

#[tokio::test(start_paused = true)]
async fn requests_stay_large_where_tenants_alternate() {
    // Four tenants with a batch of one number each 10 ms, to a destination that takes its time.
    for (millis, most) in [(20, 510), (200, 65), (1000, 20)] {
        let rule = rule(move |_, _| Step::Later(Duration::from_millis(millis), Outcome::delivered()));
        let rig = Rig::start(config(queue(), patient()), Toy::default(), rule).await;
        let began = Instant::now();
        for n in 0..1000 {
            for tenant in 1..=4 {
                rig.offer(of(tenant, n..n + 1));
            }
            rig.pause().await;
            advance(Duration::from_millis(10)).await;
        }
        rig.settled().await;
        // A request for each answer, or a few more; nothing is left behind.
        for tenant in 1..=4 {
            let requests = attempts(&rig, tenant).len();
            assert!(requests <= most, "{requests} requests of a tenant, {millis} ms each");
        }
        let late = began.elapsed() - secs(10);
        assert!(late <= Duration::from_millis(3 * millis), "{late:?} late, {millis} ms each");
        assert_eq!(rig.arrived().len(), 4000);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_over_all_tenants_and_shared_out() {
    let rig = Rig::start(config(queue(), patient()), Toy::default(), rule(|_, _| slow(1))).await;
    for tenant in 1..=40 {
        rig.offer(tenant * EACH..tenant * EACH + 4);
    }
    rig.settled().await;
    assert_eq!(rig.most_at_once(), 4 * SHARDS);
    let last = rig.attempts().iter().map(|a| a.at).max();
    assert_eq!(last, Some(9), "160 requests, 16 at a time");
    // Those that rest have no place: the others go on at their pace.
    let failing = rule(|ids, _| if tenant(ids) <= 40 { down() } else { ok() });
    let rig = Rig::start(config(queue(), patient()), Toy::default(), failing).await;
    for tenant in 1..=40 {
        rig.offer(tenant * EACH..tenant * EACH + 4);
    }
    rig.pause().await;
    for second in 0..10 {
        rig.offer(of(41, second..second + 1));
        rig.pause().await;
        assert_eq!(attempts(&rig, 41).last(), Some(&(second, 1)));
        advance(secs(1)).await;
    }
    // A tenant that hangs has no more of the places than leaves some to others.
    let hanging = rule(|ids, _| if tenant(ids) < 3 { Step::Hang } else { ok() });
    let rig = Rig::start(config(queue(), patient()), Toy::default(), hanging).await;
    for tenant in 1..=3 {
        rig.offer(tenant * EACH..tenant * EACH + 4);
        rig.pause().await;
    }
    assert_eq!(attempts(&rig, 3).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn draining_sends_what_others_have_while_one_rests() {
    let rule = rule(|ids, _| if tenant(ids) == 1 { wait(300) } else { slow(1) });
    let narrow = ShardedConfig { backlog: 400, ..config(queue(), patient()) };
    let rig = Rig::start(narrow, Toy { most: 3, ..Toy::default() }, rule).await;
    for n in 0..10 {
        for tenant in 0..3 {
            rig.offer(of(tenant, n * 4..n * 4 + 4));
        }
    }
    rig.pause().await;
    let began = Instant::now();
    assert_eq!(rig.drain(secs(60)).await, Leftover { lost: 40, kept: 0 });
    assert_eq!(began.elapsed(), secs(60));
    assert_eq!(rig.arrived(), of(0, 0..40).chain(of(2, 0..40)).collect::<Vec<_>>());
    assert_eq!((rig.books(), rig.counted(2, "sent"), rig.counted(1, "failed")), ([80, 40, 0], 40, 40));
}

#[tokio::test(start_paused = true)]
async fn requests_that_name_their_tenant_have_its_line() {
    let rule = rule(|ids, before| if tenant(ids) == 1 && before < 20 { wait(30) } else { ok() });
    let rig = Rig::start(config(queue(), patient()), Toy { naming: true, ..Toy::default() }, rule).await;
    for second in 0..5 {
        // Three tenants in one batch.
        let ids = (0..3).flat_map(|tenant| of(tenant, second..second + 1));
        rig.offer(ids);
        rig.pause().await;
        for tenant in [0, 2] {
            assert_eq!(attempts(&rig, tenant).last(), Some(&(second, 1)), "{tenant}");
        }
        advance(secs(1)).await;
    }
    assert_eq!(attempts(&rig, 1), [(0, 1)]);
    rig.settled().await;
    assert_eq!(rig.arrived().len(), 15);
    assert_eq!(rig.books(), [15, 0, 0]);
}

/// What happens to an attempt: by tenant, and at random.
fn fortune(seed: u64, ids: &[u64], before: usize) -> Step {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(before as u64 * 7919));
    let bad_data = |is: bool| Outcome::Rejected { bad_data: is, reason: "no".into() };
    match (tenant(ids), random.u32(0..20)) {
        (1, 0..12) => wait(random.u64(1..40)),
        (2, _) if ids.iter().any(|id| id % 7 == 0) => Step::Now(bad_data(true)),
        (3, 0..10) => down(),
        (_, 0) => Step::Hang,
        (_, 1) => Step::Panic,
        (_, 2) => Step::Now(bad_data(false)),
        (_, 3) if ids.len() > 3 => too_large(),
        (_, 4) => Step::Now(Outcome::Delivered { rejected: random.usize(0..3), message: String::new() }),
        (_, 5..12) => Step::Later(Duration::from_millis(random.u64(0..3000)), Outcome::delivered()),
        _ => ok(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the destination does to whom: each number arrives once at most, under its own tenant, in the order
    /// of its line, and the books of each tenant say how many did.
    #[test]
    fn each_tenants_books_agree_with_the_destination(
        seed in any::<u64>(),
        offers in proptest::collection::vec((0..6u64, 0..12u64, any::<bool>(), 0..5u32), 1..60),
        (size, block, wait, queued) in (2..20i64, any::<bool>(), any::<bool>(), any::<bool>()),
        (backlog, most, naming) in (0..600usize, 1..20usize, prop_oneof![3 => Just(false), 1 => Just(true)]),
        drain in 0..90u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let queue = QueueConfig { queue_size: size, block_on_overflow: block, wait_for_result: wait, ..queue() };
            let config = ShardedConfig {
                queue: queued.then_some(queue), retry: steady(), timeout: secs(5), backlog, bisect: 20,
            };
            let toy = Toy { most, naming, ..Toy::default() };
            let rig = Rig::start(config, toy, rule(move |ids, before| fortune(seed, ids, before))).await;
            let mut next = [0u64; 6];
            let mut offered = [0u64; 6];
            for (tenant, n, waited_for, class) in offers {
                let at = &mut next[tenant as usize];
                let demoted = if class == 0 && tenant > 0 { DEMOTED } else { 0 };
                let from = tenant * EACH + demoted + *at;
                *at += n;
                offered[tenant as usize] += n;
                if waited_for {
                    drop(rig.ask(from..from + n));
                } else {
                    rig.offer(from..from + n);
                }
                rig.balance();
                advance(Duration::from_millis(100)).await;
            }
            rig.drain(secs(drain)).await;
            let [sent, failed, refused] = rig.books();
            let arrived = rig.arrived();
            prop_assert!(arrived.is_sorted_by(|a, b| a < b), "a number arrived twice");
            prop_assert_eq!(arrived.len() as u64, sent);
            prop_assert_eq!(sent + failed + refused, offered.iter().sum::<u64>());
            prop_assert!(!arrived.iter().any(|id| id / EACH == 2 && id % 7 == 0));
            if !naming {
                for (tenant, offered) in (1..).zip(&offered[1..]) {
                    let there = arrived.iter().filter(|id| **id / EACH == tenant).count() as u64;
                    prop_assert_eq!(rig.counted(tenant, "sent"), there);
                    let gone = rig.counted(tenant, "failed") + rig.counted(tenant, "refused");
                    prop_assert_eq!(there + gone, *offered);
                }
            }
            Ok(())
        })?;
    }
}
