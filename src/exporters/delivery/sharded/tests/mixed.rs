//! Everything that can happen to requests, mixed at random: books against what really arrived, number by number.

use super::*;
use proptest::prelude::*;

/// What the sender may do, with weights. Numbers divisible by `bad` are refused as bad data.
#[derive(Debug, Clone)]
struct Weather {
    seed: u64,
    retry: u32,
    throttle: u32,
    late: u32,
    hang: u32,
    refuse: u32,
    partial: u32,
    panic: u32,
    most: usize,
    bad: u64,
}

impl Weather {
    fn step(&self, ids: &[u64], before: usize) -> Step {
        if ids.len() > self.most {
            return too_large();
        }
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_add(before as u64 * 7919));
        let mut pick = random.u32(0..100);
        let mut is = |weight: u32| {
            let hit = pick < weight;
            pick = if hit { u32::MAX } else { pick - weight.min(pick) };
            hit
        };
        if is(self.retry) {
            return down();
        }
        if is(self.throttle) {
            let after = Some(secs(random.u64(0..40)));
            return Step::Now(Outcome::Retry { after, reason: "slow down".into() });
        }
        if is(self.hang) {
            return Step::Hang;
        }
        if is(self.panic) {
            return Step::Panic;
        }
        if is(self.refuse) {
            return Step::Now(Outcome::rejected("no"));
        }
        if self.is_bad(ids) {
            return bad();
        }
        let rejected = if is(self.partial) { random.usize(0..4) } else { 0 };
        let outcome = Outcome::Delivered { rejected, message: String::new() };
        if is(self.late) { Step::Later(secs(random.u64(0..4)), outcome) } else { Step::Now(outcome) }
    }

    fn is_bad(&self, ids: &[u64]) -> bool {
        self.bad > 0 && ids.iter().any(|id| id % self.bad == 0)
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    let weight = |most: u32| prop_oneof![2 => Just(0), 1 => 0..most];
    let sizes = prop_oneof![2 => Just(usize::MAX), 1 => 0..6usize];
    let bad = prop_oneof![1 => Just(0), 2 => 2..30u64];
    (
        any::<u64>(),
        (weight(50), weight(10), weight(60), weight(10)),
        (weight(15), weight(20), weight(10)),
        sizes,
        bad,
    )
        .prop_map(|(seed, (retry, throttle, late, hang), (refuse, partial, panic), most, bad)| Weather {
            seed,
            retry,
            throttle,
            late,
            hang,
            refuse,
            partial,
            panic,
            most,
            bad,
        })
}

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(task)
}

/// Many threads at once: a producer for each shard, every kind of answer, an end in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_agree_on_order_and_books() {
    for round in 0..8u64 {
        let retry = RetryConfig {
            initial_interval: Duration::from_millis(1),
            max_interval: Duration::from_millis(2),
            ..steady()
        };
        let queue = QueueConfig { queue_size: 5, block_on_overflow: round % 2 == 0, ..queue() };
        let config = ShardedConfig { backlog: 300, ..config(queue, retry) };
        let weather = Weather {
            seed: round,
            retry: 10,
            throttle: 0,
            late: 0,
            hang: 0,
            refuse: 5,
            partial: 10,
            panic: 0,
            most: 30,
            bad: 31,
        };
        let toy = Toy { most: 40, ..Toy::default() };
        let rig = Rig::start(config, toy, rule(move |ids, before| weather.step(ids, before))).await;
        let early = round % 4 == 3;
        let offered: u64 = std::thread::scope(|threads| {
            let producer = |shard: u64| {
                let rig = &rig;
                threads.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(round * 100 + shard);
                    let mut next = 0;
                    for _ in 0..200 {
                        let end = next + random.u64(0..20);
                        let ids = (next..end).map(|n| n * SHARDS as u64 + shard);
                        if random.bool() {
                            rig.offer(ids)
                        } else {
                            drop(rig.ask(ids))
                        }
                        next = end;
                    }
                    next
                })
            };
            let producers: Vec<_> = (0..SHARDS as u64).map(producer).collect();
            producers.into_iter().map(|p| p.join().unwrap()).sum()
        });
        let leftover = rig.drain(if early { Duration::ZERO } else { secs(60) }).await;
        let [sent, failed, refused] = rig.books();
        assert_eq!(rig.arrived().len() as u64, sent);
        assert_eq!(sent + failed + refused, offered);
        assert!(early || leftover == Leftover::default());
        assert_eq!(rig.panicked(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the destination does: each number arrives once at most and in the order of its shard, and the books
    /// say how many did.
    #[test]
    fn the_books_agree_with_the_destination(
        weather in weather(),
        offers in proptest::collection::vec((0..24u64, any::<bool>()), 1..30),
        (size, block, wait, queued) in (1..12i64, any::<bool>(), any::<bool>(), any::<bool>()),
        (backlog, bisect, most) in (0..600usize, 0..40usize, 1..20usize),
        (poison, spoil) in (prop_oneof![3 => Just(u64::MAX), 1 => 0..200u64], prop_oneof![3 => Just(u64::MAX), 1 => 0..200u64]),
        drain in 0..90u64,
    ) {
        run(async {
            let queue = QueueConfig { queue_size: size, block_on_overflow: block, wait_for_result: wait, ..queue() };
            let queue = queued.then_some(queue);
            let config = ShardedConfig { queue, retry: steady(), timeout: secs(5), backlog, bisect };
            let toy = Toy { most, poison: vec![poison], spoil: vec![spoil], ..Toy::default() };
            let sender = weather.clone();
            let rig = Rig::start(config, toy, rule(move |ids, before| sender.step(ids, before))).await;
            let (mut next, mut answers) = (0, Vec::new());
            for (n, waited_for) in offers {
                if waited_for {
                    answers.push((next..next + n, rig.ask(next..next + n)));
                } else {
                    rig.offer(next..next + n);
                }
                next += n;
                rig.balance();
                advance(Duration::from_millis(300)).await;
            }
            let leftover = rig.drain(secs(drain)).await;
            let [sent, failed, refused] = rig.books();
            let arrived: BTreeSet<u64> = rig.arrived().into_iter().collect();
            prop_assert_eq!(arrived.len(), rig.arrived().len(), "a number arrived twice");
            prop_assert_eq!(sent as usize, arrived.len());
            prop_assert_eq!(sent + failed + refused, next);
            prop_assert_eq!(failed, rig.drops().values().sum::<u64>());
            prop_assert!(leftover.lost <= failed);
            prop_assert!(weather.bad == 0 || !arrived.iter().any(|id| id % weather.bad == 0));
            let mut told_to_retry = 0;
            for (ids, answer) in answers {
                match answer.await.unwrap() {
                    Verdict::Accepted if !queued || wait => {
                        // Nothing but a partial success is missing, and nothing is missing unseen.
                        let missing = ids.filter(|id| !arrived.contains(id)).count() as u64;
                        prop_assert!(missing <= rig.drops().get("partial_success").copied().unwrap_or(0));
                    }
                    Verdict::Retry { .. } => told_to_retry += ids.end - ids.start,
                    _ => {}
                }
            }
            prop_assert!(refused <= told_to_retry, "{} refused, {} told to retry", refused, told_to_retry);
            Ok(())
        })?;
    }

    /// With attempts enough, only bad items are lost, and no good one.
    #[test]
    fn cutting_finds_all_bad_items_and_no_others(
        unwanted in proptest::collection::btree_set(0..160u64, 0..12),
        cuts in proptest::collection::btree_set(1..160u64, 0..8),
        retry in prop_oneof![Just(0u32), 1..60u32],
        seed in any::<u64>(),
    ) {
        run(async {
            let config = ShardedConfig { bisect: 1000, ..config(queue(), RetryConfig { max_elapsed_time: Duration::ZERO, ..steady() }) };
            let weather = Weather {
                seed, retry, throttle: 0, late: 30, hang: 0, refuse: 0, partial: 0, panic: 0, most: usize::MAX, bad: 0,
            };
            let is_bad = unwanted.clone();
            let rig = Rig::start(config, Toy::default(), rule(move |ids, before| match weather.step(ids, before) {
                Step::Now(Outcome::Delivered { .. }) if ids.iter().any(|id| is_bad.contains(id)) => bad(),
                Step::Later(wait, _) if ids.iter().any(|id| is_bad.contains(id)) => {
                    Step::Later(wait, Outcome::Rejected { bad_data: true, reason: "bad".into() })
                }
                step => step,
            })).await;
            let ends: Vec<u64> = cuts.iter().copied().chain([160]).collect();
            let starts = [0].into_iter().chain(cuts);
            starts.zip(ends).for_each(|(from, to)| rig.offer(from..to));
            rig.settled().await;
            let want: Vec<u64> = (0..160).filter(|id| !unwanted.contains(id)).collect();
            prop_assert_eq!(rig.arrived(), want);
            prop_assert_eq!(rig.books(), [160 - unwanted.len() as u64, unwanted.len() as u64, 0]);
            Ok(())
        })?;
    }
}
