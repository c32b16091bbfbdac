//! Shares: of the queue, of memory, of parking.

use super::*;
use crate::pdata::{Rope, Signal, Tenant};
use crate::pipeline::ack;

const PLENTY: usize = 1 << 40;

fn queue(capacity: usize, sizer: Sizer, block: bool) -> Queue {
    let limits = Limits { capacity, sizer, consumers: 10, wait_for_result: false, block };
    Queue::new(Some(limits))
}

/// A batch that somebody waits for, or not.
fn batch(tenant: Option<&Tenant>, items: usize, bytes: usize, waited_for: bool) -> Batch {
    Batch {
        signal: Signal::Logs,
        rope: Rope::from(vec![0; bytes]),
        items,
        client: Default::default(),
        tenant: tenant.cloned(),
        demoted: false,
        received: std::time::Instant::now(),
        leases: Default::default(),
        acks: if waited_for { ack().0.into() } else { Acks::none() },
    }
}

/// Offers batches of each tenant in turn until none is taken; how many each has in.
fn fill(queue: &mut Queue, tenants: &[Tenant], items: usize, bytes: usize, budget: usize) -> Vec<usize> {
    let mut held = vec![0; tenants.len()];
    loop {
        let mut taken = false;
        for (i, tenant) in tenants.iter().enumerate() {
            let memory = budget.saturating_sub(held.iter().sum::<usize>() * bytes + bytes);
            match queue.offer(batch(Some(tenant), items, bytes, true), memory) {
                Offer::Taken(..) => (held[i] += 1, taken = true).1,
                Offer::OverShare(_) | Offer::Full(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if !taken {
            return held;
        }
    }
}

fn tenants(n: usize) -> Vec<Tenant> {
    (0..n).map(|i| Tenant::new(&format!("t{i}"))).collect()
}

#[test]
fn hogs_share_the_queue_and_leave_room_for_one_more() {
    // (how many fill it, what each gets of a thousand at least and at most)
    for (hogs, least, most) in [(1, 800, 800), (2, 444, 445), (10, 97, 98), (100, 9, 10)] {
        for (sizer, items, bytes, capacity) in
            [(Sizer::Requests, 7, 9, 1000), (Sizer::Items, 50, 9, 50_000), (Sizer::Bytes, 7, 300, 300_000)]
        {
            let mut queue = queue(capacity, sizer, false);
            let held = fill(&mut queue, &tenants(hogs), items, bytes, PLENTY);
            assert!(held.iter().all(|n| (least..=most).contains(n)), "{hogs} {sizer:?}: {held:?}");
            assert!(queue.is_strained(PLENTY));
            let new = Tenant::new("new");
            assert!(!queue.is_full_for(&LaneKey { tenant: Some(new.clone()), demoted: false }, PLENTY));
            let offer = queue.offer(batch(Some(&new), items, bytes, true), PLENTY);
            assert!(matches!(offer, Offer::Taken(..)), "{hogs} {sizer:?}: {offer:?}");
            // What has no tenant is bounded by the whole queue only.
            let offer = queue.offer(batch(None, items, bytes, true), PLENTY);
            assert!(matches!(offer, Offer::Taken(..)), "{hogs} {sizer:?}: {offer:?}");
        }
    }
}

#[test]
fn shares_end_at_the_queue_share_and_grow_with_what_is_free() {
    let small = Tenant::with_queue_share("small", 0.25);
    let least = Tenant::with_queue_share("least", 0.000_1);
    let mut queue = queue(100, Sizer::Items, false);
    assert_eq!(fill(&mut queue, &[small.clone(), least.clone()], 5, 10, PLENTY), [5, 1]);
    // A batch larger than the share is let in where there is nothing else.
    let large = Tenant::with_queue_share("large", 0.1);
    let Offer::Taken(job, _) = queue.offer(batch(Some(&large), 60, 10, true), PLENTY) else { panic!() };
    assert!(matches!(queue.offer(batch(Some(&large), 1, 10, true), PLENTY), Offer::OverShare(_)));
    assert!(matches!(queue.offer(batch(None, 11, 10, true), PLENTY), Offer::Full(_)));
    assert!(matches!(queue.offer(batch(Some(&large), 101, 10, true), PLENTY), Offer::TooLarge(_)));
    queue.release(&job.cost);
    assert!(matches!(queue.offer(batch(Some(&large), 1, 10, true), PLENTY), Offer::Taken(..)));
}

#[test]
fn memory_is_shared_too() {
    // One hog gets half of what is free, two a third each, and so on; a queue that is large does not change that.
    for (hogs, want) in [(1, 50), (2, 33), (9, 10)] {
        let mut queue = queue(1_000_000, Sizer::Items, false);
        let held = fill(&mut queue, &tenants(hogs), 10, 1000, 100_000);
        let near = held.iter().all(|n| (want - 2..=want).contains(n));
        assert!(near, "{hogs}: {held:?}");
        let free = 100_000 - held.iter().sum::<usize>() * 1000;
        assert!(free > 0 && queue.is_strained(free - 2000));
        // Somebody new gets in even when nothing is left.
        let new = Tenant::new("new");
        assert!(matches!(queue.offer(batch(Some(&new), 10, 1000, true), 0), Offer::Taken(..)));
        assert!(matches!(queue.offer(batch(Some(&new), 10, 1000, true), 0), Offer::OverShare(_)));
    }
}

#[test]
fn what_nobody_waits_for_is_taken_and_strains() {
    let hog = Tenant::new("hog");
    let mut queue = queue(100, Sizer::Items, false);
    let mut held = Vec::new();
    for _ in 0..20 {
        assert_eq!(queue.is_strained(PLENTY), queue.used() >= 80, "{}", queue.used());
        let Offer::Taken(job, _) = queue.offer(batch(Some(&hog), 10, 10, false), PLENTY) else { panic!() };
        held.push(job);
    }
    assert_eq!(queue.used(), 200);
    held.iter().for_each(|job| queue.release(&job.cost));
    assert!(queue.used() == 0 && !queue.is_strained(0) && queue.room.shares.is_empty());
}

#[test]
fn pieces_and_merges_give_back_what_they_took() {
    let hog = Tenant::new("hog");
    let mut queue = queue(100, Sizer::Items, false);
    let mut job = || match queue.offer(batch(Some(&hog), 7, 1001, true), PLENTY) {
        Offer::Taken(job, _) => job,
        other => panic!("{other:?}"),
    };
    let (mut first, second) = (job(), job());
    first.cost.add(second.cost);
    let mut left = 14;
    for n in [3, 1, 5] {
        let piece = first.cost.split(n, left);
        left -= n;
        queue.release(&piece);
    }
    assert_eq!(queue.used(), 5);
    assert_eq!(queue.room.shares.values().map(|s| s.bytes).sum::<usize>(), 715);
    queue.release(&first.cost);
    assert!(queue.used() == 0 && queue.room.shares.is_empty());
}

#[test]
fn parked_lanes_do_not_hold_up_each_other() {
    let [hog, quiet] = [Tenant::new("hog"), Tenant::new("quiet")];
    let mut queue = queue(10, Sizer::Requests, true);
    let mut jobs = Vec::new();
    let mut offer = |queue: &mut Queue, tenant: Option<&Tenant>, memory: usize| match queue
        .offer(batch(tenant, 1, 10, true), memory)
    {
        Offer::Taken(job, _) => (jobs.push(job), "taken").1,
        Offer::Parked => "parked",
        Offer::OverShare(_) => "over share",
        other => panic!("{other:?}"),
    };
    for _ in 0..8 {
        assert_eq!(offer(&mut queue, Some(&hog), PLENTY), "taken");
    }
    assert_eq!(offer(&mut queue, Some(&hog), PLENTY), "parked");
    assert_eq!(offer(&mut queue, Some(&hog), PLENTY), "parked");
    // Parking takes memory: no more than the tenant's share of it.
    assert_eq!(offer(&mut queue, Some(&hog), 100), "over share");
    assert_eq!(offer(&mut queue, Some(&quiet), PLENTY), "taken");
    assert_eq!(offer(&mut queue, None, PLENTY), "taken");
    assert_eq!(offer(&mut queue, None, PLENTY), "parked");
    assert!(queue.is_strained(PLENTY));
    assert!(queue.promote(PLENTY).is_none());
    // Room for one: the hog is still at its share.
    queue.release(&jobs[8].cost);
    assert_eq!(queue.promote(PLENTY).map(|(job, _)| job.batch.tenant), Some(None));
    assert!(queue.promote(PLENTY).is_none());
    queue.release(&jobs[0].cost);
    queue.release(&jobs[1].cost);
    assert_eq!(queue.promote(PLENTY).map(|(job, _)| job.batch.tenant), Some(Some(hog.clone())));
    assert_eq!(queue.abandon().len(), 1);
    assert_eq!(
        queue.room.shares.get(&LaneKey { tenant: Some(hog), demoted: false }).map(|s| s.parked),
        Some(0)
    );
}
