//! Whatever is claimed and whatever runs, the parts of a device add up to 1.

use proptest::prelude::*;

use super::*;

/// GPU instances as (slices, memory of 80), each with the slices of its compute instances.
fn layouts() -> impl Strategy<Value = Vec<(u32, u64, Vec<u32>)>> {
    let instances = (0u32..8, 0u64..100, prop::collection::vec(0u32..5, 1..3));
    prop_oneof![Just(Vec::new()), prop::collection::vec(instances, 1..8)]
}

fn reports() -> impl Strategy<Value = Vec<Report>> {
    let process = (0u32..12, prop::option::of(-1.0f64..120.0), prop::option::of((0u32..8, 0u32..3)));
    let one = (
        layouts(),
        prop::collection::vec(process, 0..6),
        prop::option::of(-5.0f64..150.0),
        prop::option::of(0.0f64..100.0),
        0u32..9,
        prop::sample::select(vec![State::Readable, State::Readable, State::Lost, State::Asleep]),
    );
    prop::collection::vec(one, 1..4).prop_map(|devices| {
        let made = devices.into_iter().enumerate().map(
            |(i, (layout, processes, utilization, sm, slices, state))| {
                let mut report = device(&format!("GPU-{i}"), i as u32);
                Arc::make_mut(&mut report.identity).compute_slices = slices;
                for (gi, (slices, memory, within)) in layout.into_iter().enumerate() {
                    for (ci, ci_slices) in within.into_iter().enumerate() {
                        report = cut_off(report, (gi as u32, slices), (ci as u32, ci_slices), memory, sm);
                    }
                }
                if let Some(percent) = utilization {
                    report = busy(report, percent);
                }
                for (pid, load, instance) in processes {
                    report = runs(report, pid, load, instance);
                }
                report.state = state;
                report
            },
        );
        made.collect()
    })
}

fn device_ids() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        (0u32..4).prop_map(|i| format!("GPU-{i}")),
        (0u32..4, 0u32..4, 0u32..2).prop_map(|(i, gi, ci)| format!("MIG-{i}{gi}{ci}")),
        (0u32..4, 0u32..4, 0u32..2).prop_map(|(i, gi, ci)| format!("MIG-GPU-{i}/{gi}/{ci}")),
        (10u32..14).prop_map(|minor| format!("nvidia{minor}")),
        (10u32..14, 0u32..4).prop_map(|(minor, gi)| format!("nvidia{minor}/gi{gi}")),
        (0u32..4).prop_map(|i| i.to_string()),
    ];
    let replica = prop_oneof![Just(None), (0u32..6).prop_map(Some), Just(Some(u32::MAX))];
    (base, replica).prop_map(|(base, replica)| match replica {
        Some(replica) if base.starts_with("nvidia") => format!("{base}/vgpu{replica}"),
        Some(replica) => format!("{base}::{replica}"),
        None => base,
    })
}

fn holders() -> impl Strategy<Value = Arc<Holder>> {
    (0u32..4, 0u32..2).prop_map(|(pod, container)| holder(&format!("n/p{pod}/c{container}")))
}

fn knowledge() -> impl Strategy<Value = Told> {
    let claim = (device_ids(), holders()).prop_map(|(device_id, holder)| Claim { device_id, holder });
    (
        prop::collection::vec(claim, 0..10),
        prop::collection::vec(device_ids(), 0..20),
        prop::collection::vec((0u32..12, holders()), 0..6),
    )
        .prop_map(|(claims, allocatable, processes)| Told { claims, allocatable, processes })
}

fn check(reports: &[Report], shares: &[Share]) -> Result<(), TestCaseError> {
    for share in shares {
        prop_assert!(share.part > 0.0 && share.part <= 1.0, "{}", line(share));
        prop_assert!(share.busy.is_none_or(|busy| (0.0..=1.0).contains(&busy)), "{}", line(share));
    }
    for report in reports {
        let of: Vec<&Share> = shares.iter().filter(|s| s.device.uuid == report.identity.uuid).collect();
        let parts: f64 = of.iter().map(|share| share.part).sum();
        prop_assert!((parts - 1.0).abs() < 1e-9, "{parts} of {}", report.identity.uuid);
        let busy: f64 = of.iter().filter_map(|share| share.busy).sum();
        let device = match report.get(Reading::Busy, 0) {
            _ if report.state != State::Readable => 0.0,
            _ if !report.mig.is_empty() => 1.0,
            Some(value) => (value.as_f64() / 100.0).clamp(0.0, 1.0),
            None => 0.0,
        };
        prop_assert!(busy <= device + 1e-9, "{busy} of {device}");
        if report.state != State::Readable {
            prop_assert!(of.iter().all(|share| share.busy.is_none()));
        }
        // Nobody has the same unit twice.
        let mut seen: Vec<_> =
            of.iter().map(|s| (s.mig.as_ref().map(|m| m.uuid.clone()), &s.owner)).collect();
        seen.sort();
        prop_assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", seen);
    }
    Ok(())
}

proptest! {
    #[test]
    fn parts_add_up(rounds in prop::collection::vec((reports(), knowledge()), 1..4)) {
        let mut pods = by_processes("/nonexistent", "");
        for (reports, told) in rounds {
            pods.tell(told);
            let shares = pods.attribute(Instant::now(), &reports);
            check(&reports, &shares)?;
        }
    }

    #[test]
    fn parts_add_up_where_nobody_tells(rounds in prop::collection::vec(reports(), 1..4), enabled: bool) {
        let config = ProcessesConfig { enabled, root: "/nonexistent".into(), logs: String::new() };
        let mut pods = Pods::new(None, &config, "nvml", &Metrics::new());
        for reports in rounds {
            let shares = pods.attribute(Instant::now(), &reports);
            check(&reports, &shares)?;
        }
    }
}
