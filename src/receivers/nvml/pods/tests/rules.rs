//! Whose a part is, case by case.

use super::*;

struct Case {
    name: &'static str,
    reports: Vec<Report>,
    told: Told,
    want: &'static [&'static str],
}

fn gpu() -> Report {
    busy(device("GPU-0", 0), 60.0)
}

fn two_on_one() -> Report {
    // 2 of 7 slices and 20 of 80; 3 of 7 and 40 of 80, cut again.
    let gpu = cut_off(device("GPU-0", 0), (1, 2), (0, 2), 20, Some(50.0));
    let gpu = cut_off(gpu, (2, 3), (0, 1), 40, None);
    cut_off(gpu, (2, 3), (1, 2), 40, Some(10.0))
}

#[test]
fn every_way_to_hold_a_device() {
    let cases = [
        Case {
            name: "one container, all of it",
            reports: vec![gpu()],
            told: told(&[("GPU-0", "ml/train/main")], &["GPU-0"], &[]),
            want: &["GPU-0 ml/train/main 1.000 0.600 Kubelet"],
        },
        Case {
            name: "nobody",
            reports: vec![gpu(), device("GPU-1", 1)],
            told: told(&[("GPU-1", "a/b/c")], &[], &[]),
            want: &["GPU-0 Unallocated 1.000 0.600 None", "GPU-1 a/b/c 1.000 - Kubelet"],
        },
        Case {
            name: "by number, by minor number; what is not here is nobody's",
            reports: vec![device("GPU-0", 0), device("GPU-1", 1)],
            told: told(
                &[("1", "a/b/c"), ("nvidia10", "d/e/f"), ("7", "x/y/z"), ("GPU-7", "x/y/z")],
                &[],
                &[],
            ),
            want: &["GPU-0 d/e/f 1.000 - Kubelet", "GPU-1 a/b/c 1.000 - Kubelet"],
        },
        Case {
            name: "listed twice by one container, counted once",
            reports: vec![gpu()],
            told: told(&[("GPU-0", "a/b/c"), ("GPU-0", "a/b/c"), ("0", "a/b/c")], &[], &[]),
            want: &["GPU-0 a/b/c 1.000 0.600 Kubelet"],
        },
        Case {
            name: "two claim it at once and none runs: the later in the list",
            reports: vec![gpu()],
            told: told(&[("GPU-0", "a/old/c"), ("GPU-0", "a/new/c")], &[], &[]),
            want: &["GPU-0 a/new/c 1.000 0.600 Kubelet"],
        },
        Case {
            name: "two claim it: the one that runs",
            reports: vec![runs(gpu(), 5, None, None)],
            told: told(&[("GPU-0", "a/old/c"), ("GPU-0", "a/new/c")], &[], &[(5, "a/old/c")]),
            want: &["GPU-0 a/old/c 1.000 0.600 Kubelet"],
        },
        Case {
            name: "two claim it: the one of which another container runs",
            reports: vec![runs(gpu(), 5, None, None)],
            told: told(&[("GPU-0", "a/old/c"), ("GPU-0", "a/new/c")], &[], &[(5, "a/old/side#u")]),
            want: &["GPU-0 a/old/c 1.000 0.600 Kubelet"],
        },
        Case {
            name: "one of four replicas; what ran was its",
            reports: vec![gpu()],
            told: told(&[("GPU-0::2", "a/b/c")], &["GPU-0::0", "GPU-0::1", "GPU-0::2", "GPU-0::3"], &[]),
            want: &["GPU-0 a/b/c 0.250 0.600 Kubelet", "GPU-0 Unallocated 0.750 0.000 None"],
        },
        Case {
            name: "replicas, nobody says how many: as many as are seen",
            reports: vec![device("GPU-0", 0)],
            told: told(&[("GPU-0::3", "a/b/c"), ("GPU-0::0", "d/e/f"), ("GPU-0::1", "d/e/f")], &[], &[]),
            want: &[
                "GPU-0 d/e/f 0.500 - Kubelet",
                "GPU-0 a/b/c 0.250 - Kubelet",
                "GPU-0 Unallocated 0.250 - None",
            ],
        },
        Case {
            name: "more replicas held than there are",
            reports: vec![device("GPU-0", 0)],
            told: told(&[("GPU-0::0", "a/b/c"), ("GPU-0::1", "d/e/f")], &["GPU-0::0"], &[]),
            want: &["GPU-0 a/b/c 0.500 - Kubelet", "GPU-0 d/e/f 0.500 - Kubelet"],
        },
        Case {
            name: "one replica in two pods, of which one has ended",
            reports: vec![runs(device("GPU-0", 0), 8, None, None)],
            told: told(
                &[("GPU-0::0", "a/new/c"), ("GPU-0::0", "a/old/c"), ("GPU-0::1", "a/x/c")],
                &[],
                &[(8, "a/new/c")],
            ),
            want: &["GPU-0 a/new/c 0.500 - Kubelet", "GPU-0 a/x/c 0.500 - Kubelet"],
        },
        Case {
            name: "replicas split what was busy by load; strangers' load is nobody's",
            reports: vec![runs(
                runs(runs(gpu(), 1, Some(30.0), None), 2, Some(10.0), None),
                3,
                Some(20.0),
                None,
            )],
            told: told(
                &[("GPU-0::0", "a/one/c"), ("GPU-0::1", "a/two/c")],
                &["GPU-0::0", "GPU-0::1", "GPU-0::2"],
                &[(1, "a/one/c"), (2, "a/two/c")],
            ),
            want: &[
                "GPU-0 a/one/c 0.333 0.300 Kubelet",
                "GPU-0 a/two/c 0.333 0.100 Kubelet",
                "GPU-0 Unallocated 0.333 0.200 None",
            ],
        },
        Case {
            name: "replicas all held: what was busy is of those whose load is known",
            reports: vec![runs(runs(gpu(), 1, Some(50.0), None), 3, Some(20.0), None)],
            told: told(&[("GPU-0::0", "a/one/c"), ("GPU-0::1", "a/two/c")], &[], &[(1, "a/one/c")]),
            want: &["GPU-0 a/one/c 0.500 0.600 Kubelet", "GPU-0 a/two/c 0.500 0.000 Kubelet"],
        },
        Case {
            name: "replicas without loads split by part",
            reports: vec![gpu()],
            told: told(
                &[("GPU-0::0", "a/one/c"), ("GPU-0::1", "a/one/c"), ("GPU-0::2", "a/two/c")],
                &[],
                &[],
            ),
            want: &["GPU-0 a/one/c 0.667 0.400 Kubelet", "GPU-0 a/two/c 0.333 0.200 Kubelet"],
        },
        Case {
            name: "given to nobody, used by one: it is theirs",
            reports: vec![runs(gpu(), 1, None, None)],
            told: told(&[], &[], &[(1, "a/b/c#u")]),
            want: &["GPU-0 a/b/c#u 1.000 0.600 Process"],
        },
        Case {
            name: "given to nobody, used by two: as they load it",
            reports: vec![runs(runs(gpu(), 1, Some(30.0), None), 2, Some(10.0), None)],
            told: told(&[], &[], &[(1, "a/b/c#u"), (2, "a/d/c#v")]),
            want: &["GPU-0 a/b/c#u 0.750 0.450 Process", "GPU-0 a/d/c#v 0.250 0.150 Process"],
        },
        Case {
            name: "given to nobody, used by two that are idle, and by the host: theirs alike",
            reports: vec![runs(runs(runs(gpu(), 1, Some(0.0), None), 2, None, None), 3, Some(50.0), None)],
            told: told(&[], &[], &[(1, "a/b/c"), (2, "a/d/c")]),
            want: &["GPU-0 a/b/c 0.500 0.300 Process", "GPU-0 a/d/c 0.500 0.300 Process"],
        },
        Case {
            name: "the host's, where no pod has it",
            reports: vec![runs(gpu(), 1, None, None), runs(device("GPU-1", 1), 1, None, None)],
            told: told(&[("GPU-1", "a/b/c")], &[], &[]),
            want: &["GPU-0 Host 1.000 0.600 Process", "GPU-1 a/b/c 1.000 - Kubelet"],
        },
        Case {
            name: "MIG: the larger of slices and memory, split by slices, the rest nobody's",
            reports: vec![two_on_one()],
            told: told(&[("MIG-010", "a/b/c"), ("MIG-GPU-0/2/1", "d/e/f")], &[], &[]),
            want: &[
                "GPU-0[MIG-010] a/b/c 0.286 0.143 Kubelet",
                "GPU-0[MIG-020] Unallocated 0.167 - None",
                "GPU-0[MIG-021] d/e/f 0.333 0.033 Kubelet",
                "GPU-0 Unallocated 0.214 0.000 None",
            ],
        },
        Case {
            name: "MIG: a GPU instance by minor number, with all its compute instances",
            reports: vec![two_on_one()],
            told: told(&[("nvidia10/gi2", "a/b/c")], &[], &[]),
            want: &[
                "GPU-0[MIG-010] Unallocated 0.286 0.143 None",
                "GPU-0[MIG-020] a/b/c 0.167 - Kubelet",
                "GPU-0[MIG-021] a/b/c 0.333 0.033 Kubelet",
                "GPU-0 Unallocated 0.214 0.000 None",
            ],
        },
        Case {
            name: "MIG: replicas of an instance, and an instance used without being given",
            reports: vec![runs(two_on_one(), 4, None, Some((2, 0)))],
            told: told(&[("MIG-010::1", "a/b/c")], &["MIG-010::0", "MIG-010::1"], &[(4, "d/e/f#u")]),
            want: &[
                "GPU-0[MIG-010] a/b/c 0.143 0.143 Kubelet",
                "GPU-0[MIG-010] Unallocated 0.143 0.000 None",
                "GPU-0[MIG-020] d/e/f#u 0.167 - Process",
                "GPU-0[MIG-021] Unallocated 0.333 0.033 None",
                "GPU-0 Unallocated 0.214 0.000 None",
            ],
        },
        Case {
            name: "MIG: larger than the GPU together, scaled down",
            reports: vec![cut_off(
                cut_off(device("GPU-0", 0), (1, 4), (0, 4), 60, None),
                (2, 3),
                (0, 3),
                40,
                None,
            )],
            told: told(&[("MIG-010", "a/b/c")], &[], &[]),
            want: &["GPU-0[MIG-010] a/b/c 0.600 - Kubelet", "GPU-0[MIG-020] Unallocated 0.400 - None"],
        },
        Case {
            name: "MIG: slices of a GPU instance that no compute instance has",
            reports: vec![cut_off(device("GPU-0", 0), (1, 4), (0, 1), 40, None)],
            told: told(&[("MIG-010", "a/b/c")], &[], &[]),
            want: &["GPU-0[MIG-010] a/b/c 0.143 - Kubelet", "GPU-0 Unallocated 0.857 0.000 None"],
        },
        Case {
            name: "MIG: a container that was given the whole GPU has all of it",
            reports: vec![cut_off(device("GPU-0", 0), (1, 3), (0, 3), 40, Some(50.0))],
            told: told(&[("GPU-0", "a/b/c")], &[], &[]),
            want: &["GPU-0 a/b/c 1.000 0.250 Kubelet"],
        },
        Case {
            name: "MIG: who was given an instance comes before who was given the GPU",
            reports: vec![cut_off(device("GPU-0", 0), (1, 7), (0, 7), 80, None)],
            told: told(&[("GPU-0", "a/old/c"), ("MIG-010", "a/b/c")], &[], &[]),
            want: &["GPU-0[MIG-010] a/b/c 1.000 - Kubelet"],
        },
        Case {
            name: "an exclusive claim that came with replicas of another pod: one of the two",
            reports: vec![runs(gpu(), 1, None, None)],
            told: told(
                &[("GPU-0", "a/b/c"), ("GPU-0::0", "d/e/f")],
                &["GPU-0::0", "GPU-0::1"],
                &[(1, "a/b/c")],
            ),
            want: &["GPU-0 a/b/c 1.000 0.600 Kubelet"],
        },
    ];
    for Case { name, reports, told, want } in cases {
        let mut pods = by_processes("/nonexistent", "");
        pods.tell(told);
        assert_eq!(shown(&pods.attribute(Instant::now(), &reports)), want, "{name}");
    }
}

#[test]
fn a_later_claim_wins_whatever_its_place() {
    let mut pods = by_processes("/nonexistent", "");
    pods.tell(told(&[("GPU-0", "a/old/c")], &[], &[]));
    pods.tell(told(&[("GPU-0", "a/new/c"), ("GPU-0", "a/old/c")], &[], &[]));
    assert_eq!(shown(&pods.attribute(Instant::now(), &[gpu()])), ["GPU-0 a/new/c 1.000 0.600 Kubelet"]);
    pods.tell(told(&[("GPU-0", "a/old/c")], &[], &[]));
    assert_eq!(shown(&pods.attribute(Instant::now(), &[gpu()])), ["GPU-0 a/old/c 1.000 0.600 Kubelet"]);
}

#[test]
fn a_device_that_cannot_be_read_stays_with_its_holders() {
    let mut pods = by_processes("/nonexistent", "");
    let used = runs(busy(device("GPU-1", 1), 30.0), 1, None, None);
    pods.tell(told(&[("MIG-010", "a/b/c")], &[], &[(1, "d/e/f")]));
    let before = pods.attribute(Instant::now(), &[two_on_one(), used.clone()]);
    let without_busy = |shares: &[Share]| {
        let gone = shares.iter().map(|share| Share { busy: None, ..share.clone() });
        shown(&gone.collect::<Vec<_>>())
    };
    assert_eq!(before.last().map(line), Some("GPU-1 d/e/f 1.000 0.300 Process".to_owned()));
    for state in [State::Lost, State::Hung, State::Lost] {
        let reports = [two_on_one(), used.clone()].map(|report| Report::bare(report.identity, state));
        pods.tell(told(&[("MIG-010", "a/b/c")], &[], &[]));
        assert_eq!(shown(&pods.attribute(Instant::now(), &reports)), without_busy(&before), "{state:?}");
    }
    // Given to another meanwhile.
    let reports = [Report::bare(used.identity.clone(), State::Lost)];
    pods.tell(told(&[("GPU-1", "x/y/z")], &[], &[]));
    assert_eq!(shown(&pods.attribute(Instant::now(), &reports)), ["GPU-1 x/y/z 1.000 - Kubelet"]);
    assert_eq!(pods.layouts.len(), 1);
}

#[test]
fn an_instance_that_is_gone_is_nobodys() {
    let mut pods = by_processes("/nonexistent", "");
    pods.tell(told(&[("MIG-010", "a/b/c")], &[], &[]));
    pods.attribute(Instant::now(), &[two_on_one()]);
    assert_eq!(shown(&pods.attribute(Instant::now(), &[gpu()])), ["GPU-0 Unallocated 1.000 0.600 None"]);
}

#[test]
fn without_anybody_to_ask_nobody_knows() {
    let off = ProcessesConfig { enabled: false, ..ProcessesConfig::default() };
    let mut pods = Pods::new(None, &off, "nvml", &Metrics::new());
    let reports = [runs(gpu(), 1, None, None), cut_off(device("GPU-1", 1), (1, 3), (0, 3), 40, None)];
    let want = [
        "GPU-0 Unknown 1.000 0.600 None",
        "GPU-1[MIG-110] Unknown 0.500 - None",
        "GPU-1 Unknown 0.500 0.000 None",
    ];
    assert_eq!(shown(&pods.attribute(Instant::now(), &reports)), want);
    assert!(pods.attribute(Instant::now(), &[]).is_empty());
}

#[test]
fn events_find_the_pods_of_their_device() {
    let mut pods = by_processes("/nonexistent", "");
    let reports = [two_on_one(), device("GPU-1", 1)];
    pods.tell(told(
        &[("MIG-010", "a/b/c"), ("MIG-021", "d/e/f"), ("GPU-1::0", "x/one/c"), ("GPU-1::1", "x/two/c")],
        &[],
        &[],
    ));
    assert!(pods.holders_of("GPU-0", None, None).is_empty());
    pods.attribute(Instant::now(), &reports);
    let cases = [
        ("GPU-0", None, None, "b e"),
        ("GPU-0", Some(1), Some(0), "b"),
        ("GPU-0", Some(2), None, "e"),
        ("GPU-0", Some(2), Some(0), ""),
        ("GPU-0", Some(9), None, ""),
        ("MIG-021", None, None, "e"),
        ("GPU-1", None, None, "one two"),
        ("GPU-2", None, None, ""),
    ];
    for (uuid, gi, ci, want) in cases {
        let found = pods.holders_of(uuid, gi, ci);
        let names: Vec<&str> = found.iter().map(|holder| holder.pod.as_str()).collect();
        assert_eq!(names.join(" "), want, "{uuid} {gi:?} {ci:?}");
    }
}
