//! Starts and ends: drained, let go, never started, torn down by a panic or with the runtime.

use super::*;

#[tokio::test(start_paused = true)]
async fn draining_sends_with_retries_until_the_deadline() {
    let slow_retry = RetryConfig {
        initial_interval: secs(25),
        max_interval: secs(30),
        max_elapsed_time: secs(300),
        ..steady()
    };
    // Alive again within the deadline, everything is sent: being sent, in line, open, not yet encoded, parked.
    let parking = QueueConfig { block_on_overflow: true, queue_size: 10, ..queue() };
    let mut narrow = config(parking, slow_retry);
    narrow.backlog = 100;
    let toy = || Toy { most: 3, ..Toy::default() };
    let rig = Rig::start(narrow, toy(), rule(|_, before| if before < 3 { down() } else { ok() })).await;
    let answers: Vec<_> = (0..20).map(|i| rig.ask(zeros(i * 4..i * 4 + 4))).collect();
    rig.pause().await;
    assert_eq!(rig.drain(secs(20)).await, Leftover::default());
    assert_eq!(rig.books(), [80, 0, 0]);
    assert_eq!(rig.arrived(), zeros(0..80).collect::<Vec<_>>());
    for answer in answers {
        assert_eq!(answer.await, Ok(Verdict::Accepted));
    }
    // Late data is still sent.
    rig.offer(zeros(80..81));
    rig.settled().await;
    assert_eq!(rig.books(), [81, 0, 0]);

    // Dead: everything is lost and said to be, at the deadline.
    let narrow = ShardedConfig { backlog: 100, ..config(queue(), steady()) };
    let rig = Rig::start(narrow.clone(), toy(), rule(|_, _| down())).await;
    (0..20).for_each(|i| rig.offer(i * 8..i * 8 + 8));
    let start = Instant::now();
    assert_eq!(rig.drain(secs(20)).await, Leftover { lost: 160, kept: 0 });
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(rig.books(), [0, 160, 0]);
    assert_eq!(rig.drops().into_iter().collect::<Vec<_>>(), [("shutdown".into(), 160)]);

    // Hanging, with senders that wait: they get it back, nothing is lost.
    let config = ShardedConfig { backlog: 100, ..config(waiting(), steady()) };
    let rig = Rig::start(config, toy(), rule(|_, _| Step::Hang)).await;
    let answers: Vec<_> = (0..9).map(|i| rig.ask(i * 8..i * 8 + 8)).collect();
    assert_eq!(rig.drain(secs(3)).await, Leftover::default());
    for answer in answers {
        assert!(matches!(answer.await, Ok(Verdict::Retry { .. })));
    }
    assert!(matches!(rig.ask(0..1).await, Ok(Verdict::Retry { .. })));
    assert_eq!(rig.books(), [0, 0, 73]);

    // Idle: at once, and nothing of it remains.
    let rig = Rig::start(narrow, toy(), rule(|_, _| ok())).await;
    let start = Instant::now();
    assert_eq!(rig.drain(secs(20)).await, Leftover::default());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_exporter_that_is_let_go_sends_what_it_has_and_is_gone() {
    for drained in [false, true] {
        let rig = Rig::start(config(queue(), steady()), Toy::default(), rule(|_, _| slow(3))).await;
        rig.offer(0..8);
        rig.pause().await;
        rig.offer(8..16);
        if drained {
            rig.drain(secs(10)).await;
        }
        let holders = rig.forget();
        tokio::time::sleep(secs(if drained { 0 } else { 5 })).await;
        assert_eq!(holders() > 0, !drained, "drained: {drained}");
        tokio::time::sleep(secs(5)).await;
        assert_eq!(holders(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_start_waits_for_it() {
    let rig = Rig::build(config(queue(), steady()), Toy::default(), rule(|_, _| ok()));
    assert_eq!(rig.ask(0..8).await, Ok(Verdict::Accepted));
    rig.run().await;
    rig.settled().await;
    assert_eq!(rig.books(), [8, 0, 0]);
    // Never started, it gives up at the deadline.
    let rig = Rig::build(config(queue(), steady()), Toy::default(), rule(|_, _| ok()));
    rig.offer(0..8);
    assert_eq!(rig.drain(secs(1)).await, Leftover { lost: 8, kept: 0 });
    assert_eq!(rig.books(), [0, 8, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_panics_costs_only_its_request() {
    let panics = rule(|ids, _| if ids.contains(&4) { Step::Panic } else { slow(1) });
    let rig = Rig::start(config(waiting(), steady()), Toy { most: 1, ..Toy::default() }, panics).await;
    let answers = [rig.ask(0..4), rig.ask(4..8), rig.ask(8..12)];
    let mut verdicts = Vec::new();
    for answer in answers {
        verdicts.push(matches!(answer.await, Ok(Verdict::Accepted)));
    }
    rig.settled().await;
    assert_eq!(verdicts, [true, false, true]);
    assert_eq!(rig.arrived(), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(rig.books(), [11, 0, 1]);
    assert_eq!(rig.panicked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_encoder_that_panics_costs_what_is_left_of_its_batch() {
    // Poisoned: the items before it are whole. Spoiled: the request of shard 1 holds one item too many, so that it
    // is given up with what an earlier batch had in it.
    let cases = [
        (Toy { poison: vec![13], ..Toy::default() }, vec![13, 14, 15]),
        (Toy { spoil: vec![13], ..Toy::default() }, vec![5, 9, 13, 14, 15]),
    ];
    for (toy, lost) in cases {
        let rig = Rig::start(config(waiting(), steady()), toy, rule(|_, _| slow(1))).await;
        let first = rig.ask(0..4);
        rig.pause().await;
        let answers = [rig.ask(4..8), rig.ask(8..16), rig.ask(16..20)];
        assert_eq!(first.await, Ok(Verdict::Accepted));
        let mut verdicts = Vec::new();
        for answer in answers {
            verdicts.push(matches!(answer.await, Ok(Verdict::Accepted)));
        }
        rig.settled().await;
        assert_eq!(verdicts, [!lost.contains(&5), false, true], "{lost:?}");
        let want: Vec<u64> = (0..20).filter(|id| !lost.contains(id)).collect();
        assert_eq!(rig.arrived(), want);
        assert_eq!(rig.books(), [want.len() as u64, 0, lost.len() as u64]);
        assert_eq!(rig.panicked(), 1);
        assert_eq!(rig.drain(secs(5)).await, Leftover::default());
    }
}

#[tokio::test(start_paused = true)]
async fn an_encoder_that_cannot_go_on_gives_everything_back() {
    let toy = Toy { jammed_from: 0, ..Toy::default() };
    let rig = Rig::start(config(waiting(), steady()), toy, rule(|_, _| ok())).await;
    let answers: Vec<_> = (0..3).map(|i| rig.ask(i * 4..i * 4 + 4)).collect();
    for answer in answers {
        assert!(matches!(answer.await, Ok(Verdict::Retry { .. })));
    }
    assert!(matches!(rig.ask(0..4).await, Ok(Verdict::Retry { .. })));
    assert_eq!(rig.books(), [0, 0, 16]);
    assert_eq!(rig.panicked(), 2);
    assert_eq!(rig.drain(secs(5)).await, Leftover::default());
}

#[test]
fn the_end_of_the_runtime_loses_nothing_unseen() {
    // Tasks end in an order of the runtime's own; each time another one.
    for round in 0..40 {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let (rig, answers) = runtime.block_on(async {
            let toy = Toy { most: 1 + round % 5, ..Toy::default() };
            let config = ShardedConfig { backlog: 40 * round, ..config(waiting(), steady()) };
            let rig = Rig::start(config, toy, rule(|_, _| Step::Hang)).await;
            let answers: Vec<_> = (0..9).map(|i| rig.ask(i * 8..i * 8 + 8)).collect();
            rig.offer([72]);
            // From not begun to all hanging.
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            (rig, answers)
        });
        drop(runtime);
        for mut answer in answers {
            assert!(matches!(answer.try_recv(), Ok(Verdict::Retry { .. })));
        }
        assert_eq!(rig.books(), [0, 1, 72]);
        // Nor does what comes afterwards.
        rig.offer([76]);
        assert_eq!(rig.books(), [0, 2, 72]);
    }
}
