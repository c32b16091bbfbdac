//! The rules one by one, with numbers that can be followed by hand.

use super::*;

fn rows(expected: &[(&str, f64)]) -> Vec<(String, f64)> {
    expected.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds)).collect()
}

#[test]
fn who_holds_a_gpu_pays_for_it() {
    let cost = json!({"per_gpu_hour": {"NVIDIA H200": 3.5, "default": 2.0}});
    let mut node = Rig::new(Some(cost));
    let shares = [
        share(0, pod("shop/web"), 1.0, Some(0.5)),
        share(1, pod("shop/batch"), 0.25, Some(0.1)),
        share(1, pod("lab/train"), 0.5, Some(0.9)),
        share(9, Owner::Host, 1.0, None),
    ];
    let reports = [readable(0), readable(1), readable(9)];
    node.pass(0.0, &shares, &reports);
    assert_eq!(
        node.allocated(),
        rows(&[
            ("_host", 0.0),
            ("_unallocated", 0.0),
            ("lab/lab/train", 0.0),
            ("shop/shop/batch", 0.0),
            ("shop/shop/web", 0.0)
        ])
    );
    for _ in 0..360 {
        node.pass(10.0, &shares, &reports);
    }
    let expected = [
        ("_host", 3600.0),
        ("_unallocated", 900.0),
        ("lab/lab/train", 1800.0),
        ("shop/shop/batch", 900.0),
        ("shop/shop/web", 3600.0),
    ];
    assert_eq!(node.allocated(), rows(&expected));
    assert!(near(node.row("lab").cost().unwrap(), 1.75));
    assert!(near(node.row("lab").busy().unwrap(), 3240.0), "more than its part");
    assert!(near(node.row("_unallocated").cost().unwrap(), 0.875));
    assert_eq!(node.row("_unallocated").busy(), None);
    assert!(near(node.row("_host").cost().unwrap(), 2.0), "the price of all others");
    assert_eq!(node.row("_host").model(), "NVIDIA L4");
    assert_eq!(node.unaccounted(), 0.0);
    let prices: Vec<_> = node.accounts.prices().collect();
    assert_eq!(prices, [("NVIDIA H200", 3.5), ("NVIDIA L4", 2.0)]);
    assert_eq!(node.accounts.currency(), "USD");
    assert!(node.accounts.rows().all(|row| row.start() == WALL && row.energy().is_none()));
}

#[test]
fn who_holds_it_at_the_end_pays_for_the_interval() {
    let mut node = Rig::new(None);
    node.pass(0.0, &[share(0, pod("a"), 1.0, None)], &[readable(0)]);
    node.pass(10.0, &[share(0, pod("a"), 1.0, None)], &[readable(0)]);
    node.pass(10.0, &[share(0, pod("b"), 1.0, None)], &[readable(0)]);
    assert_eq!(node.allocated(), rows(&[("a/a/pod", 10.0), ("b/b/pod", 10.0)]));
    assert_eq!(node.row("b").start(), WALL + 10 * SECOND, "it began with the interval");
    assert_eq!(node.row("a").cost(), None);
    assert_eq!(node.accounts.prices().count(), 0);
    assert_eq!(node.accounts.currency(), "");
}

#[test]
fn a_gap_is_nobodys() {
    let mut node = Rig::new(None);
    let shares = [share(0, pod("a"), 1.0, Some(1.0))];
    node.pass(0.0, &shares, &[with_energy(0, 0)]);
    node.pass(30.0, &shares, &[with_energy(0, 3000)]);
    assert_eq!((node.row("a").allocated(), node.unaccounted()), (30.0, 0.0), "three intervals are no gap");
    node.pass(30.001, &shares, &[with_energy(0, 9000)]);
    assert_eq!((node.row("a").allocated(), node.unaccounted()), (30.0, 30.001));
    assert_eq!((node.row("a").busy(), node.row("a").energy()), (Some(30.0), Some(3.0)));
    node.pass(10.0, &shares, &[with_energy(0, 10_000)]);
    assert_eq!((node.row("a").allocated(), node.row("a").energy()), (40.0, Some(4.0)));
    // A device that is not reported has a gap when it comes back, or none if that is soon.
    node.pass(10.0, &shares, &[]);
    node.pass(10.0, &shares, &[readable(0)]);
    assert_eq!((node.row("a").allocated(), node.unaccounted()), (60.0, 30.001));
}

#[test]
fn a_lost_device_is_not_charged() {
    for gone in [State::Lost, State::Hung] {
        let mut node = Rig::new(None);
        let shares = [share(0, pod("a"), 1.0, Some(1.0)), share(1, pod("b"), 1.0, Some(1.0))];
        node.pass(0.0, &shares, &[readable(0), readable(1)]);
        node.pass(10.0, &shares, &[readable(0), readable(1)]);
        node.pass(10.0, &shares, &[report(0, gone), readable(1)]);
        node.pass(10.0, &shares, &[report(0, gone), readable(1)]);
        assert_eq!((node.row("a").allocated(), node.row("b").allocated()), (10.0, 30.0));
        assert_eq!(node.unaccounted(), 20.0);
        // Since when it can be read again nobody knows.
        node.pass(10.0, &shares, &[readable(0), readable(1)]);
        assert_eq!((node.row("a").allocated(), node.unaccounted()), (10.0, 30.0));
        node.pass(10.0, &shares, &[readable(0), readable(1)]);
        assert_eq!((node.row("a").allocated(), node.unaccounted()), (20.0, 30.0));
        assert!(
            node.accounts.unaccounted().any(|u| &**u.gpu == "GPU-0" && u.seconds == 30.0 && u.start == WALL)
        );
    }
}

#[test]
fn a_sleeping_device_is_held_all_the_same() {
    let mut node = Rig::new(None);
    let shares = [share(0, pod("a"), 1.0, None)];
    node.pass(0.0, &shares, &[with_energy(0, 500)]);
    node.pass(10.0, &shares, &[report(0, State::Asleep)]);
    node.pass(10.0, &shares, &[with_energy(0, 800)]);
    assert_eq!((node.row("a").allocated(), node.row("a").energy()), (20.0, Some(0.3)));
}

#[test]
fn an_energy_counter_that_begins_anew_adds_nothing() {
    let mut node = Rig::new(None);
    let shares = [share(0, pod("a"), 0.5, None)];
    for energy in [1_000_000, 1_004_000, 100, 2_100] {
        node.pass(10.0, &shares, &[with_energy(0, energy)]);
    }
    assert_eq!(node.row("a").energy(), Some(3.0));
    assert_eq!(node.row("_unallocated").energy(), Some(3.0));
}

#[test]
fn mig_instances_have_prices_of_their_own() {
    let cost = json!({"currency": "EUR", "per_gpu_hour": {"default": 7.0}, "per_mig_hour": {"1g.18gb": 0.7}});
    let mut node = Rig::new(Some(cost));
    let shares = [
        instance(0, "MIG-1", "1g.18gb", pod("a"), 1.0 / 7.0),
        instance(0, "MIG-2", "1g.18gb", pod("b"), 0.5 / 7.0),
        instance(0, "MIG-2", "1g.18gb", pod("c"), 0.5 / 7.0),
        instance(0, "MIG-3", "3g.71gb", pod("d"), 0.5),
    ];
    node.pass(0.0, &shares, &[readable(0)]);
    for _ in 0..360 {
        node.pass(10.0, &shares, &[readable(0)]);
    }
    let cost = |tenant| node.row(tenant).cost().unwrap();
    assert!(near(cost("a"), 0.7));
    assert!(near(cost("b"), 0.35) && near(cost("c"), 0.35), "an instance that two share");
    assert!(near(cost("d"), 3.5), "its part of the GPU's price");
    assert!(near(cost("_unallocated"), 7.0 * (0.5 - 2.0 / 7.0)));
    assert_eq!(node.accounts.currency(), "EUR");
}

#[test]
fn what_has_no_price_has_no_cost() {
    let mut node = Rig::new(Some(json!({"per_gpu_hour": {"NVIDIA L4": 0.0}})));
    let shares = [share(0, pod("a"), 1.0, None), share(9, pod("b"), 1.0, None)];
    for _ in 0..2 {
        node.pass(10.0, &shares, &[readable(0), readable(9)]);
    }
    assert_eq!((node.row("a").cost(), node.row("b").cost()), (None, Some(0.0)));
    assert_eq!(node.accounts.prices().collect::<Vec<_>>(), [("NVIDIA L4", 0.0)]);
}

#[test]
fn parts_that_do_not_add_up_are_made_to() {
    let cases: [(&[f64], &[(&str, f64)]); 7] = [
        (&[], &[("_unknown", 10.0)]),
        (&[0.25], &[("_unallocated", 7.5), ("p0/p0/pod", 2.5)]),
        (&[1.0, 1.0], &[("p0/p0/pod", 5.0), ("p1/p1/pod", 5.0)]),
        (&[f64::NAN, -1.0, 0.0], &[("_unknown", 10.0)]),
        (&[f64::INFINITY], &[("p0/p0/pod", 10.0)]),
        (&[0.5, f64::NAN], &[("_unallocated", 5.0), ("p0/p0/pod", 5.0)]),
        // A rest that is rounding is nobody's row.
        (&[0.7, 0.2, 0.1 - 1e-9], &[("p0/p0/pod", 7.0), ("p1/p1/pod", 2.0), ("p2/p2/pod", 1.0)]),
    ];
    for (parts, expected) in cases {
        let mut node = Rig::new(None);
        let shares: Vec<Share> = parts
            .iter()
            .enumerate()
            .map(|(n, part)| share(0, pod(&format!("p{n}")), *part, Some(f64::NAN)))
            .collect();
        node.pass(0.0, &shares, &[readable(0)]);
        node.pass(10.0, &shares, &[readable(0)]);
        assert_eq!(node.allocated(), rows(expected), "{parts:?}");
        let sum: u128 = node.accounts.rows().map(|row| row.allocated).sum();
        assert_eq!(sum, u128::from(10 * SECOND) * u128::from(WHOLE), "{parts:?}: exactly");
    }
}

#[test]
fn nobody_is_busier_than_time_passes() {
    let mut node = Rig::new(None);
    let shares = [
        share(0, pod("a"), 0.5, Some(0.9)),
        share(0, pod("b"), 0.5, Some(7.0)),
        share(1, pod("c"), 1.0, Some(-1.0)),
    ];
    for _ in 0..2 {
        node.pass(10.0, &shares, &[readable(0), readable(1)]);
    }
    let busy = |tenant| node.row(tenant).busy().unwrap();
    assert!(near(busy("a"), 9.0 / 1.9) && near(busy("b"), 10.0 / 1.9) && busy("c") == 0.0);
}

#[test]
fn a_restart_begins_at_0_with_a_new_start_time() {
    let shares = [share(0, pod("a"), 1.0, None)];
    let mut node = Rig::new(None);
    node.pass(0.0, &shares, &[readable(0)]);
    node.pass(10.0, &shares, &[readable(0)]);
    let (wall, now) = (node.wall, node.now);
    let mut node = Rig { wall, now, ..Rig::new(None) };
    node.pass(5.0, &shares, &[readable(0)]);
    assert_eq!((node.row("a").allocated(), node.row("a").start()), (0.0, WALL + 15 * SECOND));
    node.pass(10.0, &shares, &[readable(0)]);
    assert_eq!((node.row("a").allocated(), node.row("a").start()), (10.0, WALL + 15 * SECOND));
}

#[test]
fn a_clock_that_is_set_changes_no_sum() {
    let shares = [share(0, pod("a"), 1.0, None)];
    let mut node = Rig::new(None);
    node.pass(0.0, &shares, &[readable(0)]);
    for step in [3600 * SECOND as i64, -7200 * SECOND as i64] {
        node.wall = node.wall.checked_add_signed(step).unwrap();
        node.pass(10.0, &shares, &[readable(0)]);
        assert!(node.row("a").start() <= node.wall, "it does not start in the future");
    }
    assert_eq!((node.row("a").allocated(), node.unaccounted()), (20.0, 0.0));
    let start = node.row("a").start();
    node.pass(10.0, &shares, &[readable(0)]);
    assert_eq!(node.row("a").start(), start);
}

#[test]
fn sums_do_not_drift_over_ten_years() {
    let mut node = Rig::new(Some(json!({"per_gpu_hour": {"default": 0.1}})));
    let shares: Vec<Share> = (0..3).map(|n| share(0, pod(&format!("p{n}")), 1.0 / 3.0, Some(0.1))).collect();
    node.pass(0.0, &shares, &[readable(0)]);
    let years = 10.0 * 365.0 * 86_400.0;
    let interval = Duration::from_secs_f64(years / 1000.0);
    for _ in 0..1000 {
        node.now += interval;
        node.accounts.advance(node.now, node.wall, interval, &shares, &[readable(0)]);
    }
    // And small steps on top of what is large.
    for _ in 0..1000 {
        node.pass(1e-6, &shares, &[readable(0)]);
    }
    let sum: u128 = node.accounts.rows().map(|row| row.allocated).sum();
    let elapsed = interval.as_nanos() * 1000 + 1_000_000;
    assert_eq!(sum, elapsed * u128::from(WHOLE));
    let cost: f64 = node.accounts.rows().map(|row| row.cost().unwrap()).sum();
    assert!((cost / (elapsed as f64 / 3.6e12 * 0.1) - 1.0).abs() < 1e-14);
}
