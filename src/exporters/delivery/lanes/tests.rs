//! Turns by bytes, order, demotion, and what is left behind.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn key(tenant: usize, demoted: bool) -> LaneKey {
    let tenant = (tenant > 0).then(|| Tenant::new(&format!("t{tenant}")));
    LaneKey { tenant, demoted }
}

fn name(key: &LaneKey) -> usize {
    key.tenant.as_ref().map_or(0, |t| t.name()[1..].parse().unwrap())
}

/// What waits: the lane's number, a running number, and its size.
type Item = (usize, usize, usize);

fn push(lanes: &mut Lanes<Item>, tenant: usize, demoted: bool, n: usize, bytes: usize) {
    lanes.push(key(tenant, demoted), bytes, (tenant, n, bytes));
}

#[test]
fn lanes_get_the_same_bytes_whatever_their_batches() {
    // The batch sizes of each lane, repeated; all lanes always have something.
    let cases: [&[&[usize]]; 6] = [
        &[&[1000], &[1000], &[1000]],
        &[&[500], &[QUANTUM], &[20_000, 3]],
        &[&[1 << 20], &[1000], &[50]],
        &[&[QUANTUM + 1], &[QUANTUM - 1], &[QUANTUM * 3]],
        &[&[5 << 20], &[5 << 20]],
        &[&[0, 700], &[1_000_000, 1]],
    ];
    for sizes in cases {
        let mut lanes = Lanes::default();
        let mut next = vec![0; sizes.len()];
        let mut feed = |lanes: &mut Lanes<Item>, lane: usize| {
            let n = next[lane];
            next[lane] += 1;
            push(lanes, lane, false, n, sizes[lane][n % sizes[lane].len()]);
        };
        for lane in 0..sizes.len() {
            feed(&mut lanes, lane);
            feed(&mut lanes, lane);
        }
        let mut served = vec![0; sizes.len()];
        let largest = *sizes.iter().flat_map(|s| s.iter()).max().unwrap();
        while served.iter().sum::<usize>() < 10 * sizes.len() * largest.max(QUANTUM) {
            let (lane, _, bytes) = lanes.pop(|_, _| true).unwrap();
            served[lane] += bytes;
            feed(&mut lanes, lane);
            let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
            assert!(most - least <= QUANTUM + 2 * largest, "{sizes:?}: {served:?}");
        }
    }
}

#[test]
fn a_quiet_lane_waits_for_a_quantum_of_each_busy_one() {
    let mut lanes = Lanes::default();
    (0..10_000).for_each(|n| push(&mut lanes, 1, false, n, 1000));
    (0..10_000).for_each(|n| push(&mut lanes, 2, false, n, 1000));
    for _ in 0..300 {
        lanes.pop(|_, _| true).unwrap();
    }
    push(&mut lanes, 3, false, 0, 400);
    let waited = std::iter::from_fn(|| lanes.pop(|_, _| true)).position(|(lane, ..)| lane == 3).unwrap();
    assert!(waited <= 2 * QUANTUM / 1000, "{waited}");
}

#[test]
fn demoted_lanes_come_when_no_other_may_start() {
    let mut lanes = Lanes::default();
    push(&mut lanes, 1, true, 0, 10);
    push(&mut lanes, 0, true, 1, 10);
    push(&mut lanes, 1, false, 2, 1 << 20);
    push(&mut lanes, 2, false, 3, 1 << 20);
    assert_eq!(lanes.pop(|_, _| true), Some((1, 2, 1 << 20)));
    // What may not start does not hold back what is demoted.
    assert_eq!(lanes.pop(|key, _| name(key) != 2), Some((1, 0, 10)));
    assert_eq!(lanes.pop(|key, _| name(key) > 2), None);
    assert_eq!(lanes.pop(|_, _| true), Some((2, 3, 1 << 20)));
    assert_eq!(lanes.pop(|_, _| true), Some((0, 1, 10)));
    assert!(lanes.is_empty() && lanes.pop(|_, _| true).is_none());
}

#[test]
fn who_sleeps_is_not_asked_until_woken() {
    let mut lanes = Lanes::default();
    for tenant in 0..1000 {
        push(&mut lanes, tenant, tenant % 2 == 0, tenant, 10);
    }
    let mut asked = 0;
    let mut pop = |lanes: &mut Lanes<Item>, awake: &[usize]| {
        asked = 0;
        let popped = lanes.pop_or_sleep(|key, _| {
            asked += 1;
            if awake.contains(&name(key)) { Chance::Now } else { Chance::Asleep }
        });
        (popped.map(|(lane, ..)| lane), asked)
    };
    assert_eq!(pop(&mut lanes, &[]), (None, 1000));
    assert_eq!(pop(&mut lanes, &[7, 8]), (None, 0));
    // What comes later does not wake its lane.
    push(&mut lanes, 7, false, 0, 10);
    assert_eq!(pop(&mut lanes, &[7]), (None, 0));
    for tenant in [7, 8, 9] {
        lanes.wake(key(tenant, false).tenant.as_ref().unwrap());
        lanes.wake(key(tenant, false).tenant.as_ref().unwrap());
    }
    assert_eq!(pop(&mut lanes, &[7, 8]), (Some(7), 1));
    assert_eq!(pop(&mut lanes, &[7, 8]), (Some(7), 1));
    assert_eq!(pop(&mut lanes, &[7, 8]), (Some(8), 2));
    assert_eq!(pop(&mut lanes, &[7, 8, 9]), (None, 0));
    assert_eq!(lanes.take_all().len(), 998);
}

#[test]
fn nothing_is_left_of_tenants_that_are_gone() {
    let mut lanes = Lanes::default();
    let watched = Tenant::new("watched");
    let weak = key(1, false);
    for round in 0..3 {
        for tenant in 1..=5000 {
            push(&mut lanes, tenant, tenant % 2 == 0, round, 10);
        }
        lanes.push(LaneKey { tenant: Some(watched.clone()), demoted: false }, 1, (0, 0, 1));
        assert!(lanes.holds(&weak));
        while lanes.pop(|_, _| true).is_some() {}
        assert!(lanes.is_empty() && !lanes.holds(&weak));
        assert!(lanes.lanes.len() <= 1 && lanes.free.len() <= 1 && lanes.index.is_empty());
        assert!(lanes.lanes.iter().all(|lane| lane.key == LaneKey::default()));
        assert!(lanes.turns.iter().all(|t| t.is_empty() && t.capacity() <= 2 * SPARE));
    }
    // While one lane lasts, the others keep no memory but a little.
    push(&mut lanes, 0, false, 0, 1);
    for tenant in 1..=5000 {
        push(&mut lanes, tenant, false, 0, 10);
    }
    while lanes.pop(|key, _| key.tenant.is_some()).is_some() {}
    let kept: usize = lanes.lanes.iter().map(|lane| lane.items.capacity()).sum();
    assert!(kept <= 2 * SPARE * SPARE, "{kept}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever may start: each item comes out once, in its lane's order, and nothing is held back that may start.
    #[test]
    fn everything_comes_out_once_and_in_order(
        steps in proptest::collection::vec((0..8usize, any::<bool>(), 0..300_000usize, any::<bool>(), any::<u8>()), 1..300),
    ) {
        let mut lanes = Lanes::default();
        let mut model: HashMap<LaneKey, VecDeque<usize>> = HashMap::new();
        let take = |lanes: &mut Lanes<Item>, model: &mut HashMap<LaneKey, VecDeque<usize>>, blocked: u8| {
            let may = |key: &LaneKey| name(key) == 0 || blocked & (1 << name(key)) == 0;
            let waiting = |demoted: bool| {
                model.iter().any(|(key, items)| key.demoted == demoted && !items.is_empty() && may(key))
            };
            let (first, any) = (waiting(false), waiting(false) || waiting(true));
            let popped = lanes.pop_or_sleep(|key, _| match (may(key), blocked % 2) {
                (true, _) => Chance::Now,
                (false, 0) => Chance::NotNow,
                (false, _) => Chance::Asleep,
            });
            for tenant in 1..8 {
                lanes.wake(key(tenant, false).tenant.as_ref().unwrap());
            }
            assert_eq!(popped.is_some(), any);
            if let Some((lane, n, _)) = popped {
                // Running numbers are even for what is demoted.
                let key = key(lane, n % 2 == 0);
                assert!(may(&key) && key.demoted != first);
                assert_eq!(model.get_mut(&key).and_then(VecDeque::pop_front), Some(n));
            }
            any
        };
        for (i, (tenant, demoted, bytes, pop, blocked)) in steps.into_iter().enumerate() {
            if pop {
                take(&mut lanes, &mut model, blocked);
            } else {
                let n = i * 2 + usize::from(!demoted);
                push(&mut lanes, tenant, demoted, n, bytes);
                model.entry(key(tenant, demoted)).or_default().push_back(n);
            }
        }
        while take(&mut lanes, &mut model, 0) {}
        prop_assert!(lanes.is_empty() && model.values().all(VecDeque::is_empty));
    }
}
