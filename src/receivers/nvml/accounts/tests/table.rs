//! How long rows are kept, how many, and when what was prepared for them has to be prepared again.

use super::*;

#[test]
fn what_is_no_longer_held_is_kept_for_a_while() {
    let mut node = Rig::new(None);
    let (a, b) = ([share(0, pod("a"), 1.0, None)], [share(0, pod("b"), 1.0, None)]);
    node.pass(0.0, &a, &[readable(0)]);
    node.pass(10.0, &a, &[readable(0)]);
    for _ in 0..60 {
        node.pass(10.0, &b, &[readable(0)]);
        assert_eq!(node.row("a").allocated(), 10.0, "its last value");
    }
    let old = node.row("a").start();
    node.pass(10.0, &b, &[readable(0)]);
    assert!(node.accounts.rows().all(|row| row.tenant() == "b"));
    assert_eq!(node.evicted(), 1);
    node.pass(10.0, &a, &[readable(0)]);
    assert_eq!(node.row("a").allocated(), 10.0, "it begins anew");
    assert!(node.row("a").start() > old + 600 * SECOND);
    assert_eq!(node.accounts.unaccounted().count(), 1);
    // Of a device that is gone nothing is said any more, but what nobody paid for is not forgotten.
    node.pass(100.0, &a, &[readable(0)]);
    node.pass(601.0, &[], &[]);
    assert_eq!((node.accounts.rows().len(), node.accounts.unaccounted().count()), (0, 0));
    node.pass(10.0, &a, &[readable(0)]);
    assert_eq!(node.unaccounted(), 711.0);
    assert_eq!(node.row("a").allocated(), 0.0);
}

#[test]
fn with_long_intervals_rows_are_kept_for_longer() {
    let mut node = Rig::new(None);
    let hour = Duration::from_secs(3600);
    let shares = [share(0, pod("a"), 1.0, None)];
    for _ in 0..3 {
        node.now += hour;
        node.accounts.advance(node.now, node.wall, hour, &shares, &[readable(0)]);
    }
    assert_eq!(node.row("a").allocated(), 7200.0);
}

#[test]
fn there_are_only_so_many_rows() {
    let mut node = Rig::new(None);
    let reports = [readable(0), readable(1)];
    let keeper = share(1, pod("keeper"), 1.0, None);
    let batch = 1000;
    for from in (0..12_000).step_by(batch) {
        let pods = (from..from + batch).map(|n| share(0, pod(&format!("n/p{n}")), 1.0 / batch as f64, None));
        let shares: Vec<Share> = pods.chain([keeper.clone()]).collect();
        node.pass(10.0, &shares, &reports);
        assert!(node.accounts.rows().len() <= rows::MOST_ROWS);
    }
    let kept = node.accounts.rows().len() as u64;
    assert_eq!(kept + node.evicted(), 12_001);
    assert_eq!(node.row("keeper").allocated(), 110.0, "what is held stays");
    assert_eq!(node.accounts.rows().filter(|row| row.advanced() == node.now).count(), batch + 1);
    assert!(node.accounts.rows().all(|row| row.pod() != Some("p0")), "the oldest go");
    // Each is found again after places have changed.
    let before = node.accounts.rows().len();
    let shares: Vec<Share> =
        (11_000..12_000).map(|n| share(0, pod(&format!("n/p{n}")), 1.0 / 1000.0, None)).collect();
    node.pass(10.0, &shares, &reports[..1]);
    assert_eq!(node.accounts.rows().len(), before);
}

#[test]
fn there_are_only_so_many_devices() {
    let mut node = Rig::new(None);
    for number in 100..100 + 2 * MOST_DEVICES as u32 {
        node.pass(1.0, &[], &[readable(number)]);
    }
    assert_eq!(node.accounts.devices.len(), MOST_DEVICES);
    assert_eq!(&*node.accounts.devices[0].uuid, "GPU-356", "the oldest go");
}

#[test]
fn rows_keep_their_order_and_new_ones_come_last() {
    let mut node = Rig::new(Some(json!({"per_gpu_hour": {"NVIDIA H200": 1.0}})));
    let order = |node: &Rig| node.accounts.rows().map(|row| row.tenant().to_owned()).collect::<Vec<_>>();
    let half = |name, busy| [share(0, pod(name), 0.5, busy)];
    for busy in [None, Some(0.5), None] {
        node.pass(10.0, &half("z", busy), &[with_energy(0, 1)]);
        assert_eq!(order(&node), ["z", "_unallocated"], "only values change");
    }
    for _ in 0..10 {
        node.pass(10.0, &half("b", None), &[readable(0)]);
        assert_eq!(order(&node), ["z", "_unallocated", "b"]);
    }
    for _ in 0..61 {
        node.pass(10.0, &half("b", None), &[readable(0)]);
    }
    assert_eq!(order(&node), ["_unallocated", "b"], "what is gone is forgotten");
}
