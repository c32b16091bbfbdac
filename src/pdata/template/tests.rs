//! Requests of random points, one after the other, against what a plain model says.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use proptest::prelude::*;
use prost::Message;

use super::*;

/// Keys are a metric's number and a member of it.
struct Names;

const HEADS: [(&str, &str, Kind); 3] =
    [("a.gauge", "By", Kind::Gauge), ("b.size", "1", Kind::UpDown), ("c.count", "s", Kind::Counter)];

impl Describe for Names {
    fn head(&self, key: Key) -> Head<'_> {
        let number = (key >> 32) as usize % HEADS.len();
        let (name, unit, kind) = HEADS[number];
        Head { number: number as u32, name, unit, description: "", kind }
    }

    fn attributes(&self, key: Key, out: &mut Vec<u8>) {
        put_point_attribute(out, "member", Attribute::Int((key & 0xffff_ffff) as i64));
        put_point_attribute(out, "text", Attribute::Str("é".repeat((key % 90) as usize).as_str()));
    }
}

fn key(metric: u64, member: u64) -> Key {
    (metric << 32) | member
}

fn point(metric: u64, member: u64, value: Number) -> Point {
    Point { key: key(metric, member), value, start: 0 }
}

/// What a request says: by metric and member, start, time, value and flags.
type Said = BTreeMap<(String, i64), Vec<(u64, u64, Option<Number>, u32)>>;

fn said(rendered: &Rendered) -> Said {
    let request = ExportMetricsServiceRequest::decode(rendered.request.clone()).unwrap();
    assert_eq!(crate::pdata::check(crate::pdata::Signal::Metrics, &rendered.request), Ok(rendered.points));
    let mut out = Said::new();
    for group in &request.resource_metrics {
        assert_eq!(group.resource.as_ref().unwrap().attributes.len(), 1);
        for scope in &group.scope_metrics {
            assert_eq!(scope.scope.as_ref().unwrap().name, "s");
            let mut names: Vec<&str> = scope.metrics.iter().map(|m| m.name.as_str()).collect();
            assert!(names.is_sorted(), "metrics stand in order");
            names.dedup();
            assert_eq!(names.len(), scope.metrics.len(), "each metric once");
            for metric in &scope.metrics {
                let (_, unit, kind) = HEADS.iter().find(|(name, ..)| *name == metric.name).unwrap();
                assert_eq!(&metric.unit, unit);
                let points: &[NumberDataPoint] = match metric.data.as_ref().unwrap() {
                    Data::Gauge(gauge) => {
                        assert_eq!(*kind, Kind::Gauge);
                        &gauge.data_points
                    }
                    Data::Sum(sum) => {
                        assert_eq!(sum.is_monotonic, *kind == Kind::Counter);
                        assert_ne!(*kind, Kind::Gauge);
                        assert_eq!(sum.aggregation_temporality, 2);
                        &sum.data_points
                    }
                    other => panic!("{other:?}"),
                };
                for point in points {
                    let Some(Any::IntValue(member)) =
                        point.attributes[0].value.as_ref().unwrap().value.clone()
                    else {
                        panic!("no member");
                    };
                    assert_eq!(point.attributes.len(), 2);
                    let value = point.value.map(|value| match value {
                        Value::AsInt(n) => Number::Int(n),
                        Value::AsDouble(n) => Number::Double(n),
                    });
                    let entry = (point.start_time_unix_nano, point.time_unix_nano, value, point.flags);
                    out.entry((metric.name.clone(), member)).or_default().push(entry);
                }
            }
        }
    }
    out
}

fn render(template: &mut Template, points: &[Point], time: u64) -> Rendered {
    let resource = attributes_message(1, &[("host.name", Attribute::Str("n"))]);
    let mut scope = Vec::new();
    put_bytes(&mut scope, 1, b"s");
    template.render(points, time, &resource, &scope, &Names)
}

#[test]
fn counters_begin_at_their_first_point_and_anew_when_they_fall() {
    let mut template = Template::default();
    let mut starts = Vec::new();
    let other = point(0, 1, Number::Int(1));
    for (time, value, more) in [(10, 5, false), (20, 7, false), (30, 7, true), (40, 3, true), (50, 4, false)]
    {
        let mut points = vec![point(2, 1, Number::Int(value))];
        points.extend(more.then_some(other));
        let said = said(&render(&mut template, &points, time));
        starts.push(said[&("c.count".to_owned(), 1)][0].0);
    }
    assert_eq!(starts, [10, 10, 10, 40, 40]);
    let given = Point { start: 7, ..point(2, 1, Number::Int(9)) };
    assert_eq!(said(&render(&mut template, &[given], 60))[&("c.count".to_owned(), 1)][0].0, 7);
}

#[test]
fn what_is_gone_is_said_once() {
    let mut template = Template::default();
    let both = [point(0, 1, Number::Int(1)), point(2, 2, Number::Double(0.5))];
    render(&mut template, &both, 10);
    let left = said(&render(&mut template, &both[..1], 20));
    assert_eq!(left[&("c.count".to_owned(), 2)], [(10, 20, None, 1)]);
    assert_eq!(left[&("a.gauge".to_owned(), 1)], [(0, 20, Some(Number::Int(1)), 0)]);
    assert_eq!(said(&render(&mut template, &both[..1], 30)).len(), 1);
    let none = said(&render(&mut template, &[], 40));
    assert_eq!(none[&("a.gauge".to_owned(), 1)], [(0, 40, None, 1)]);
    assert_eq!(render(&mut template, &[], 50).points, 0);
}

/// The same metric and attributes as of `point`, under another key.
fn again(metric: u64, member: u64, value: Number) -> Point {
    point(metric + 45, member, value)
}

#[test]
fn what_comes_back_under_another_key_is_not_gone() {
    let mut template = Template::default();
    let (one, two) = (Number::Int(1), Number::Int(2));
    render(&mut template, &[point(0, 1, one), point(2, 1, one), point(2, 2, one)], 10);
    let said = said(&render(&mut template, &[again(0, 1, two), again(2, 1, two)], 20));
    assert_eq!(said[&("a.gauge".to_owned(), 1)], [(0, 20, Some(two), 0)]);
    assert_eq!(said[&("c.count".to_owned(), 1)], [(10, 20, Some(two), 0)], "it goes on counting");
    assert_eq!(said[&("c.count".to_owned(), 2)], [(10, 20, None, 1)]);
}

#[test]
fn nothing_begins_after_its_time() {
    let mut template = Template::default();
    let given = Point { start: 90, ..point(2, 2, Number::Int(1)) };
    let points = [point(2, 1, Number::Int(1)), given];
    render(&mut template, &points, 100);
    let starts = |said: Said| [1, 2].map(|member| said[&("c.count".to_owned(), member)][0].0);
    assert_eq!(starts(said(&render(&mut template, &points, 50))), [50, 50], "the clock was set back");
    assert_eq!(starts(said(&render(&mut template, &points, 120))), [50, 90]);
    assert_eq!(starts(said(&render(&mut template, &[], 40))), [40, 40]);
}

#[test]
fn nothing_is_a_request_of_no_points() {
    assert_eq!(render(&mut Template::default(), &[], 1).points, 0);
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![any::<i64>().prop_map(Number::Int), any::<f64>().prop_map(Number::Double)]
}

proptest! {
    /// Whatever comes after whatever, each request says what a plain model says.
    #[test]
    fn every_request_says_the_points_and_nothing_else(
        rounds in prop::collection::vec(prop::collection::btree_map((0..3u64, 0..6u64), number(), 0..12), 1..8),
        shuffle in any::<u64>(),
    ) {
        let mut template = Template::default();
        let mut before: BTreeMap<(u64, u64), (u64, f64)> = BTreeMap::new();
        for (round, members) in rounds.iter().enumerate() {
            let time = 100 + round as u64;
            let mut points: Vec<Point> = members.iter().map(|(&(m, n), &v)| point(m, n, v)).collect();
            if shuffle & (1 << (round % 64)) != 0 {
                points.reverse();
            }
            let mut want = Said::new();
            let mut now = BTreeMap::new();
            for (&(metric, member), &value) in members {
                let as_double = match value { Number::Int(n) => n as f64, Number::Double(n) => n };
                let start = match before.get(&(metric, member)) {
                    _ if metric != 2 => 0,
                    Some(&(_, last)) if as_double < last => time,
                    Some(&(start, _)) => start,
                    None => time,
                };
                now.insert((metric, member), (start, as_double));
                let name = HEADS[metric as usize].0.to_owned();
                want.entry((name, member as i64)).or_default().push((start, time, Some(value), 0));
            }
            for (&(metric, member), &(start, _)) in &before {
                if !members.contains_key(&(metric, member)) {
                    let name = HEADS[metric as usize].0.to_owned();
                    want.entry((name, member as i64)).or_default().push((start, time, None, 1));
                }
            }
            let got = said(&render(&mut template, &points, time));
            // NaN is not equal to itself: compared as text.
            prop_assert_eq!(format!("{got:?}"), format!("{want:?}"));
            before = now;
        }
    }
}
