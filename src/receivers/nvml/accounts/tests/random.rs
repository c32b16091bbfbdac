//! Random nodes: pods come and go, devices are cut anew, get lost and come back, clocks jump, the agent restarts with
//! other prices. What accounts say is what a slow model says that looks at everything that happened so far, each time.
//!
//! The model's parts are 840ths, which the parts of all MIG layouts and of up to eight replicas are, and its sums are
//! integers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const DEVICES: usize = 3;
/// What parts are of.
const ALL: i128 = 840;
/// The model's sums are in this part of a nanosecond.
const FINE: i128 = 1 << 50;
const LONGEST_CHARGED: u64 = 30 * SECOND;
const KEPT: u64 = 600 * SECOND;
const OWNERS: u8 = 9;

/// What is held of a device.
#[derive(Debug, Clone)]
struct Held {
    owner: u8,
    part: i128,
    busy: Option<i128>,
    /// The instance and how many slices it has.
    instance: Option<(usize, i128)>,
}

/// A device, if it is reported.
#[derive(Debug, Clone)]
struct Seen {
    state: Option<State>,
    energy: Option<u64>,
    held: Vec<Held>,
}

#[derive(Debug, Clone)]
struct Step {
    nanos: u64,
    /// Seconds by which the clock on the wall is set.
    set: i64,
    devices: Vec<Seen>,
    /// The agent restarts before, with these prices.
    restart: Option<usize>,
}

/// Cents an hour of each product, and of an instance of one slice.
#[derive(Debug, Clone, Copy)]
struct Tariff {
    gpu: Option<i128>,
    slice: Option<i128>,
}

const TARIFFS: [Tariff; 4] = [
    Tariff { gpu: Some(350), slice: None },
    Tariff { gpu: Some(199), slice: Some(61) },
    Tariff { gpu: None, slice: Some(0) },
    Tariff { gpu: None, slice: None },
];

/// Tenant, namespace, pod, device.
type Key = (String, Option<String>, Option<String>, usize);

/// What was added to a row in a step.
#[derive(Debug, Clone)]
struct Fact {
    step: usize,
    nanos: u64,
    allocated: i128,
    busy: Option<i128>,
    energy: Option<i128>,
    /// Cents times time.
    cost: Option<i128>,
}

/// A row as the model has it.
#[derive(Debug, Default)]
struct Expected {
    start: u64,
    allocated: f64,
    busy: Option<f64>,
    energy: Option<f64>,
    cost: Option<f64>,
}

fn owner(number: u8) -> Owner {
    match number {
        0..=2 => pod(&format!("shop/web-{number}")),
        3 | 4 => pod(&format!("lab/train-{number}")),
        5 => pod("no tenant/x"),
        6 => Owner::Host,
        7 => Owner::Unallocated,
        _ => Owner::Unknown,
    }
}

fn names(number: u8) -> (String, Option<String>, Option<String>) {
    let text = |text: &str| Some(text.to_owned());
    match number {
        0..=2 => ("shop".to_owned(), text("shop"), Some(format!("web-{number}"))),
        3 | 4 => ("lab".to_owned(), text("lab"), Some(format!("train-{number}"))),
        5 => ("_unknown".to_owned(), text("no tenant"), text("x")),
        6 => ("_host".to_owned(), None, None),
        7 => ("_unallocated".to_owned(), None, None),
        _ => ("_unknown".to_owned(), None, None),
    }
}

/// The history since the agent started, and the price list.
struct Model {
    steps: Vec<Step>,
    tariff: Tariff,
    wall: Vec<u64>,
}

impl Model {
    fn seen(&self, step: usize, device: usize) -> &Seen {
        &self.steps[step].devices[device]
    }

    fn charges(&self, step: usize, device: usize) -> bool {
        matches!(self.seen(step, device).state, Some(State::Readable | State::Asleep))
    }

    fn before(&self, step: usize, device: usize) -> Option<usize> {
        (0..step).rev().find(|before| self.seen(*before, device).state.is_some())
    }

    fn elapsed(&self, from: usize, to: usize) -> u64 {
        self.steps[from + 1..=to].iter().map(|step| step.nanos).sum()
    }

    /// How much of the time before a step is charged, and how much is not.
    fn time(&self, step: usize, device: usize) -> (u64, u64) {
        let Some(before) = self.before(step, device) else { return (0, 0) };
        let elapsed = self.elapsed(before, step);
        let both = self.charges(step, device) && self.charges(before, device);
        if both && elapsed <= LONGEST_CHARGED { (elapsed, 0) } else { (0, elapsed) }
    }

    /// Millijoules since the device last told, if all the time since then is charged.
    fn energy(&self, step: usize, device: usize) -> Option<u64> {
        let told = |step: usize| self.seen(step, device).energy.filter(|_| self.charges(step, device));
        let now = told(step)?;
        let mut at = step;
        while self.time(at, device).1 == 0 {
            let Some(before) = self.before(at, device) else { return Some(0) };
            if let Some(then) = told(before) {
                return Some(now.saturating_sub(then));
            }
            at = before;
        }
        Some(0)
    }

    fn facts(&self, step: usize, device: usize) -> Vec<(Key, Fact)> {
        if self.seen(step, device).state.is_none() || !self.charges(step, device) {
            return Vec::new();
        }
        let (nanos, _) = self.time(step, device);
        let energy = self.energy(step, device).map(i128::from);
        let held: Vec<&Held> = self.seen(step, device).held.iter().filter(|held| held.part > 0).collect();
        let total: i128 = held.iter().map(|held| held.part).sum();
        let busy: i128 = held.iter().filter_map(|held| held.busy).sum();
        let time = i128::from(nanos) * FINE;
        let fact = |part: i128, busy: Option<i128>, cost: Option<i128>| Fact {
            step,
            nanos,
            allocated: time * part / total.max(ALL),
            busy,
            energy: energy.map(|energy| energy * FINE * part / total.max(ALL)),
            cost,
        };
        let key = |owner: u8| {
            let (tenant, namespace, pod) = names(owner);
            (tenant, namespace, pod, device)
        };
        let by_gpu = |part: i128| self.tariff.gpu.map(|cents| time * part / total.max(ALL) * cents);
        let mut facts = Vec::new();
        for one in &held {
            let cost = match (one.instance, self.tariff.slice) {
                (Some((instance, 1)), Some(cents)) => {
                    let of = held.iter().filter(|other| other.instance.is_some_and(|(n, _)| n == instance));
                    let whole: i128 = of.map(|other| other.part).sum();
                    Some(time * one.part / whole * cents)
                }
                _ => by_gpu(one.part),
            };
            let busy = one.busy.map(|part| time * part / busy.max(ALL));
            facts.push((key(one.owner), fact(one.part, busy, cost)));
        }
        if held.is_empty() {
            facts.push((key(8), fact(ALL, None, by_gpu(ALL))));
        } else if total < ALL {
            facts.push((key(7), fact(ALL - total, None, by_gpu(ALL - total))));
        }
        facts
    }

    /// All rows there are after the last step.
    fn rows(&self) -> BTreeMap<Key, Expected> {
        let mut all: BTreeMap<Key, Vec<Fact>> = BTreeMap::new();
        for step in 0..self.steps.len() {
            for device in 0..DEVICES {
                for (key, fact) in self.facts(step, device) {
                    all.entry(key).or_default().push(fact);
                }
            }
        }
        let last = self.steps.len() - 1;
        let mut rows = BTreeMap::new();
        for (key, facts) in all {
            let mut kept: Vec<Fact> = Vec::new();
            for at in 0..facts.len() {
                kept.push(facts[at].clone());
                let next = facts.get(at + 1).map_or(last + 1, |next| next.step);
                let gone = (facts[at].step + 1..next).any(|tick| self.elapsed(facts[at].step, tick) > KEPT);
                if gone {
                    kept.clear();
                }
            }
            let Some(first) = kept.first() else { continue };
            let began = self.wall[first.step] - first.nanos;
            let sum = |of: fn(&Fact) -> Option<i128>, unit: f64| {
                let known: Vec<i128> = kept.iter().filter_map(of).collect();
                (!known.is_empty()).then(|| known.iter().sum::<i128>() as f64 / FINE as f64 / unit)
            };
            let row = Expected {
                start: self.wall[first.step + 1..].iter().fold(began, |start, wall| start.min(*wall)),
                allocated: sum(|fact| Some(fact.allocated), 1e9).unwrap(),
                busy: sum(|fact| fact.busy, 1e9),
                energy: sum(|fact| fact.energy, 1e3),
                cost: sum(|fact| fact.cost, 3.6e12 * 100.0),
            };
            rows.insert(key, row);
        }
        rows
    }
}

fn arb_held() -> impl Strategy<Value = Vec<Held>> {
    let busy = || prop::option::of(0..=ALL);
    let whole =
        (0..OWNERS, busy()).prop_map(|(owner, busy)| vec![Held { owner, part: ALL, busy, instance: None }]);
    let replicas = (1i128..=8).prop_flat_map(move |count| {
        let of = prop::option::of((0..OWNERS, busy()));
        prop::collection::vec(of, count as usize).prop_map(move |holders| {
            let held = |(owner, busy)| Held { owner, part: ALL / count, busy, instance: None };
            holders.into_iter().flatten().map(held).collect()
        })
    });
    // Slices of each instance and one or two who hold it.
    let mig =
        prop::collection::vec((1i128..=3, 0..OWNERS, prop::option::of(0..OWNERS)), 1..7).prop_map(|cuts| {
            let mut left = 7;
            let mut held = Vec::new();
            for (number, (slices, owner, other)) in cuts.into_iter().enumerate() {
                if slices > left {
                    break;
                }
                left -= slices;
                let owners: Vec<u8> = [Some(owner), other].into_iter().flatten().collect();
                let part = slices * (ALL / 7) / owners.len() as i128;
                let instance = Some((number, slices));
                held.extend(owners.into_iter().map(|owner| Held { owner, part, busy: None, instance }));
            }
            held
        });
    let any = prop::collection::vec((0..OWNERS, 0..=ALL, busy()), 0..6).prop_map(|all| {
        all.into_iter().map(|(owner, part, busy)| Held { owner, part, busy, instance: None }).collect()
    });
    prop_oneof![whole, replicas, mig, any]
}

fn arb_seen() -> impl Strategy<Value = Seen> {
    let state = prop_oneof![
        12 => Just(Some(State::Readable)),
        1 => Just(Some(State::Asleep)),
        1 => Just(Some(State::Lost)),
        1 => Just(Some(State::Hung)),
        1 => Just(None),
    ];
    let energy = prop_oneof![4 => (0u64..1 << 40).prop_map(Some), 1 => Just(None)];
    (state, energy, arb_held()).prop_map(|(state, energy, held)| Seen { state, energy, held })
}

fn arb_step() -> impl Strategy<Value = Step> {
    let nanos = prop_oneof![
        8 => 0..=LONGEST_CHARGED,
        4 => Just(10 * SECOND),
        1 => Just(LONGEST_CHARGED),
        1 => Just(LONGEST_CHARGED + 1),
        1 => Just(KEPT),
        1 => LONGEST_CHARGED..2 * KEPT,
    ];
    let set = prop_oneof![10 => Just(0), 1 => -100_000i64..100_000];
    let restart = prop_oneof![20 => Just(None), 1 => (0..TARIFFS.len()).prop_map(Some)];
    let devices = prop::collection::vec(arb_seen(), DEVICES);
    (nanos, set, devices, restart).prop_map(|(nanos, set, devices, restart)| Step {
        nanos,
        set,
        devices,
        restart,
    })
}

/// Steps, of which some leave everything as it was and let energy grow.
fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((arb_step(), any::<[bool; 3]>(), 0u64..1 << 20), 1..40).prop_map(|steps| {
        let mut made: Vec<Step> = Vec::new();
        for (mut step, keep, grows) in steps {
            let last: Vec<Seen> = made.last().map_or(Vec::new(), |last| last.devices.clone());
            for ((now, before), keep) in step.devices.iter_mut().zip(last).zip(keep) {
                if keep {
                    *now = Seen { energy: before.energy.map(|energy| energy + grows), ..before };
                }
            }
            made.push(step);
        }
        made
    })
}

fn start(tariff: Tariff) -> Rig {
    let mut cost = json!({});
    if let Some(cents) = tariff.gpu {
        cost["per_gpu_hour"] = json!({"NVIDIA H200": cents as f64 / 100.0});
    }
    if let Some(cents) = tariff.slice {
        cost["per_mig_hour"] = json!({"slices-1": cents as f64 / 100.0});
    }
    Rig::new(Some(cost))
}

/// What receiver and attribution would hand over.
fn handed(step: &Step) -> (Vec<Share>, Vec<Report>) {
    let (mut shares, mut reports) = (Vec::new(), Vec::new());
    for (number, seen) in step.devices.iter().enumerate() {
        let number = number as u32;
        if let Some(state) = seen.state {
            let samples = seen.energy.map_or(Vec::new(), |energy| with_energy(number, energy).samples);
            reports.push(Report { samples, ..report(number, state) });
        }
        for Held { owner: whose, part, busy, instance: of } in &seen.held {
            let part = *part as f64 / ALL as f64;
            let mut made = match of {
                Some((n, slices)) => instance(
                    number,
                    &format!("MIG-{number}-{n}"),
                    &format!("slices-{slices}"),
                    owner(*whose),
                    part,
                ),
                None => share(number, owner(*whose), part, None),
            };
            made.busy = busy.map(|busy| busy as f64 / ALL as f64);
            shares.push(made);
        }
    }
    (shares, reports)
}

fn key(row: &Row) -> Key {
    let device = row.gpu().strip_prefix("GPU-").unwrap().parse().unwrap();
    (row.tenant().to_owned(), row.namespace().map(str::to_owned), row.pod().map(str::to_owned), device)
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => near(a, b),
        (a, b) => a == b,
    }
}

/// The numbers of a row that never go down.
fn sums(row: &Row) -> [f64; 4] {
    [row.allocated(), row.busy().unwrap_or(0.0), row.energy().unwrap_or(0.0), row.cost().unwrap_or(0.0)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn accounts_are_those_of_a_slow_model(steps in arb_steps(), first in 0..TARIFFS.len()) {
        let fresh = |tariff| Model { steps: Vec::new(), tariff, wall: Vec::new() };
        let mut rig = start(TARIFFS[first]);
        let mut model = fresh(TARIFFS[first]);
        let mut before: BTreeMap<Key, ([f64; 4], u128)> = BTreeMap::new();
        // Everything ever added, for each device.
        let mut given = [0u128; DEVICES];
        let mut order: Vec<Key> = Vec::new();
        for step in steps {
            if let Some(tariff) = step.restart {
                rig = Rig { now: rig.now, wall: rig.wall, ..start(TARIFFS[tariff]) };
                model = fresh(TARIFFS[tariff]);
                (before, given, order) = (BTreeMap::new(), [0; DEVICES], Vec::new());
            }
            rig.now += Duration::from_nanos(step.nanos);
            rig.wall = (rig.wall + step.nanos).checked_add_signed(step.set * SECOND as i64).unwrap();
            let (shares, reports) = handed(&step);
            rig.accounts.advance(rig.now, rig.wall, INTERVAL, &shares, &reports);
            model.steps.push(step);
            model.wall.push(rig.wall);

            let expected = model.rows();
            let mut after = BTreeMap::new();
            for row in rig.accounts.rows() {
                let key = key(row);
                let sums = sums(row);
                let want = expected.get(&key);
                prop_assert!(want.is_some(), "{key:?} is not there in the model");
                let want = want.unwrap();
                prop_assert_eq!(row.start(), want.start, "{:?}", &key);
                prop_assert!(row.start() <= rig.wall);
                prop_assert!(near(row.allocated(), want.allocated), "{key:?} {} {want:?}", row.allocated());
                prop_assert!(same(row.busy(), want.busy), "{key:?} {:?} {want:?}", row.busy());
                prop_assert!(same(row.energy(), want.energy), "{key:?} {:?} {want:?}", row.energy());
                prop_assert!(same(row.cost(), want.cost), "{key:?} {:?} {want:?}", row.cost());
                prop_assert!(sums.iter().all(|sum| *sum >= 0.0 && sum.is_finite()));
                let (old, had) = before.get(&key).copied().unwrap_or_default();
                prop_assert!(sums.iter().zip(old).all(|(new, old)| *new >= old), "{key:?}: {old:?} to {sums:?}");
                given[key.3] += row.allocated - had;
                prop_assert!(after.insert(key, (sums, row.allocated)).is_none(), "a row twice");
            }
            prop_assert_eq!(after.len(), expected.len());
            let now: Vec<Key> = rig.accounts.rows().map(key).collect();
            order.retain(|key| now.contains(key));
            prop_assert!(now.starts_with(&order), "{order:?} became {now:?}");
            order = now;
            before = after;

            for (device, given) in given.iter().enumerate() {
                let seen = (0..model.steps.len()).filter(|step| model.seen(*step, device).state.is_some());
                let seen: Vec<usize> = seen.collect();
                let (Some(first), Some(last)) = (seen.first(), seen.last()) else { continue };
                let unpaid: u64 = seen.iter().map(|step| model.time(*step, device).1).sum();
                let uuid = format!("GPU-{device}");
                let found = rig.accounts.devices.iter().find(|d| *d.uuid == *uuid).unwrap();
                prop_assert_eq!(found.unaccounted, u128::from(unpaid));
                let elapsed = u128::from(model.elapsed(*first, *last));
                prop_assert_eq!(given + u128::from(unpaid) * u128::from(WHOLE), elapsed * u128::from(WHOLE));
            }
        }
    }

    #[test]
    fn the_sum_over_tenants_is_wall_time_times_gpus_times_price(
        ticks in prop::collection::vec((1..=LONGEST_CHARGED, prop::collection::vec(arb_held(), DEVICES)), 1..60),
        cents in 1u32..1_000_000,
    ) {
        let price = f64::from(cents) / 100.0;
        let mut rig = Rig::new(Some(json!({"per_gpu_hour": {"default": price}})));
        let began = rig.wall;
        // What somebody who is shown everything has at last, of rows that were forgotten as well.
        let mut last: BTreeMap<(Key, u64), [f64; 4]> = BTreeMap::new();
        for (tick, (nanos, held)) in ticks.iter().enumerate() {
            let device = |held: &Vec<Held>| Seen { state: Some(State::Readable), energy: None, held: held.clone() };
            let devices = held.iter().map(device).collect();
            let (shares, reports) = handed(&Step { nanos: *nanos, set: 0, devices, restart: None });
            if tick > 0 {
                rig.now += Duration::from_nanos(*nanos);
                rig.wall += nanos;
            }
            rig.accounts.advance(rig.now, rig.wall, INTERVAL, &shares, &reports);
            last.extend(rig.accounts.rows().map(|row| ((key(row), row.start()), sums(row))));
            prop_assert!(rig.accounts.rows().all(|row| row.cost().is_some()));
        }
        let seconds = (rig.wall - began) as f64 / 1e9;
        let sum = |of: usize| last.values().map(|sums| sums[of]).sum::<f64>();
        let (allocated, busy, cost) = (sum(0), sum(1), sum(3));
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b;
        prop_assert!(close(allocated, seconds * DEVICES as f64), "{allocated} {seconds}");
        prop_assert!(close(cost, seconds / 3600.0 * DEVICES as f64 * price), "{cost}");
        prop_assert!(busy <= allocated * (1.0 + 1e-12));
        prop_assert_eq!(rig.unaccounted(), 0.0);
    }
}
