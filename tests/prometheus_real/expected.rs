//! Everything that OTLP metrics can say, over four points in time, and what it must become.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics};

use super::server::Labels;
use crate::support::otlp::{
    self, DELTA, ToValue, UNSPECIFIED, attributes, buckets, counter, double, exponential, exponential_point,
    gauge, histogram, int, quantiles, resource, scope, stale, sum, summary,
};
use crate::support::prometheus::{ORDINARY_NAN, STALE};

/// Between two points in time, in milliseconds.
pub const STEP: i64 = 15_000;
/// How many points in time.
pub const STEPS: i64 = 4;

/// Labels of the resource and scope of the first group, as they must arrive.
const API: &str = r#"instance="i1",job="shop/api",otel_scope_name="lib",otel_scope_schema_url="https://example.org/s",otel_scope_team="x",otel_scope_version="1.2""#;

const ENDED: f64 = f64::from_bits(STALE);
const NAN: f64 = f64::from_bits(ORDINARY_NAN);

/// A native histogram: step, count, sum, schema, zero threshold, zero count, and index and count of the buckets of
/// either side.
pub type Native = (i64, f64, f64, i32, f64, f64, Vec<(i64, f64)>, Vec<(i64, f64)>);

/// What is stored in the end.
#[derive(Default)]
pub struct Expected {
    /// Step and value.
    pub floats: BTreeMap<Labels, Vec<(i64, f64)>>,
    pub natives: BTreeMap<Labels, Vec<Native>>,
    /// Series, labels, value, milliseconds before the first step.
    pub exemplars: Vec<(Labels, Labels, f64, i64)>,
}

impl Expected {
    fn series(&mut self, notation: &str, values: &[(i64, f64)]) {
        assert!(self.floats.insert(parse(notation), values.to_vec()).is_none(), "{notation} twice");
    }

    fn exemplar(&mut self, series: &str, labels: &str, value: f64, before: i64) {
        self.exemplars.push((parse(series), parse(labels), value, before));
    }
}

/// `name{a="b",c="d"}` as labels; `API` stands for the labels of the first group.
pub fn parse(notation: &str) -> Labels {
    let (name, rest) = notation.split_once('{').unwrap();
    let rest = rest.strip_suffix('}').unwrap().replace("API", API);
    let mut all = Labels::new();
    if !name.is_empty() {
        all.insert("__name__".into(), name.into());
    }
    // A value ends at a quote before a comma or the end; none of those here holds that.
    for pair in rest.split_inclusive("\",").filter(|p| !p.is_empty()) {
        let (name, value) = pair.trim_end_matches(',').split_once("=\"").unwrap();
        let value = value.strip_suffix('"').unwrap();
        assert!(all.insert(name.into(), value.into()).is_none(), "{notation}");
    }
    all
}

/// What is sent.
pub struct Input {
    base: i64,
    /// A request for each step: metrics of each of the four groups.
    groups: Vec<[Vec<Metric>; 4]>,
}

impl Input {
    fn times(&self, step: i64) -> (i64, i64) {
        (self.base - 60_000, self.base + step * STEP)
    }

    fn add(&mut self, group: usize, step: i64, metric: Metric) {
        self.groups[step as usize][group].push(metric);
    }

    pub fn requests(self) -> Vec<Vec<ResourceMetrics>> {
        let map: Vec<(&str, &dyn ToValue)> = vec![("b", &1i64), ("a", &true)];
        let resources: [Vec<KeyValue>; 4] = [
            attributes(&[
                ("service.namespace", &"shop"),
                ("service.name", &"api"),
                ("service.instance.id", &"i1"),
                ("cloud.region", &"eu"),
                ("host.cpu.count", &8i64),
                ("container.labels", &map),
            ]),
            attributes(&[("service.name", &"worker")]),
            attributes(&[("cloud.region", &"eu")]),
            attributes(&[
                ("service.namespace", &""),
                ("service.name", &"api"),
                ("service.instance.id", &"i2"),
                ("deployment.environment.name", &"prod"),
            ]),
        ];
        let lib = || {
            let attributes = attributes(&[("team", &"x"), ("name", &"not the scope's name")]);
            scope("lib", "1.2", "https://example.org/s", attributes)
        };
        let pushes = self.groups.into_iter().map(|groups| {
            let all = groups.into_iter().zip(&resources).enumerate();
            all.filter(|(_, (metrics, _))| !metrics.is_empty())
                .map(|(n, (metrics, attributes))| {
                    resource(attributes.clone(), if n == 0 { lib() } else { None }, metrics)
                })
                .collect()
        });
        pushes.collect()
    }
}

/// What is sent, and what must arrive.
pub fn everything(base: i64) -> (Input, Expected) {
    let groups = (0..STEPS).map(|_| Default::default()).collect();
    let (mut input, mut want) = (Input { base, groups }, Expected::default());
    numbers(&mut input, &mut want);
    histograms(&mut input, &mut want);
    natives(&mut input, &mut want);
    summaries(&mut input, &mut want);
    names(&mut input, &mut want);
    label_names(&mut input, &mut want);
    others(&mut input, &mut want);
    (input, want)
}

fn numbers(input: &mut Input, want: &mut Expected) {
    let rooms = [attributes(&[("room", &"a")]), attributes(&[("room", &"b")])];
    let values = [
        [21.5, f64::INFINITY],
        [f64::from_bits(0xfff8_0000_dead_beef), f64::NEG_INFINITY],
        [-0.0, f64::MAX],
        [ENDED, 5e-324],
    ];
    for (step, [a, b]) in (0..).zip(values) {
        let times = input.times(step);
        let first = if step == 3 { stale(times, &rooms[0]) } else { double(a, times, &rooms[0]) };
        input.add(0, step, gauge("room.temperature", "Cel", vec![first, double(b, times, &rooms[1])]));
    }
    want.series(r#"room_temperature_celsius{room="a",API}"#, &[(0, 21.5), (1, NAN), (2, -0.0), (3, ENDED)]);
    want.series(
        r#"room_temperature_celsius{room="b",API}"#,
        &[(0, f64::INFINITY), (1, f64::NEG_INFINITY), (2, f64::MAX), (3, 5e-324)],
    );

    for (step, value) in (0..).zip([(1 << 53) + 1, i64::MIN, i64::MAX, -1]) {
        let times = input.times(step);
        input.add(0, step, gauge("numbers.big", "", vec![int(value, times, &[])]));
    }
    want.series(
        "numbers_big{API}",
        &[(0, 9_007_199_254_740_992.0), (1, -(2f64.powi(63))), (2, 2f64.powi(63)), (3, -1.0)],
    );

    // A restart between the second step and the third.
    let get = attributes(&[("http.method", &"GET"), ("http.status_code", &200i64)]);
    for (step, value) in (0..).zip([10, 20, 5, 30]) {
        let (start, time) = input.times(step);
        let start = if step > 1 { time - 1000 } else { start };
        let mut point = int(value, (start, time), &get);
        if step == 0 {
            let user = attributes(&[("user", &"u1")]);
            let long = attributes(&[("user", &"é".repeat(77))]);
            point.exemplars = vec![
                otlp::exemplar(1.0, input.base - 30, 1, 0x0a, user),
                otlp::exemplar(2.5, input.base - 20, 2, 0x0b, long),
            ];
        }
        input.add(0, step, counter("http.requests", "1", vec![point]));
    }
    let requests = r#"http_requests_total{http_method="GET",http_status_code="200",API}"#;
    want.series(requests, &[(0, 10.0), (1, 20.0), (2, 5.0), (3, 30.0)]);
    let ids =
        |trace: &str, span: &str| format!(r#"trace_id="{}",span_id="{}""#, trace.repeat(16), span.repeat(8));
    want.exemplar(requests, &format!(r#"{{user="u1",{}}}"#, ids("01", "0a")), 1.0, 30);
    // 128 runes are all there is room for.
    want.exemplar(requests, &format!("{{{}}}", ids("02", "0b")), 2.5, 20);

    for (step, value) in (0..).zip([3, -4, 0, 7]) {
        let point = int(value, input.times(step), &[]);
        input.add(0, step, sum("queue.length", "{item}", false, otlp::CUMULATIVE, vec![point]));
    }
    want.series("queue_length{API}", &[(0, 3.0), (1, -4.0), (2, 0.0), (3, 7.0)]);

    let user = attributes(&[("cpu.mode", &"user")]);
    for (step, value) in (0..).zip([0.1, 0.30000000000000004, 1e15 + 0.3, 1e300]) {
        let point = double(value, input.times(step), &user);
        input.add(0, step, counter("process.cpu.time", "s", vec![point]));
    }
    want.series(
        r#"process_cpu_time_seconds_total{cpu_mode="user",API}"#,
        &[(0, 0.1), (1, 0.30000000000000004), (2, 1e15 + 0.3), (3, 1e300)],
    );
}

fn histograms(input: &mut Input, want: &mut Expected) {
    let route = attributes(&[("route", &"/a")]);
    let bounds = [0.5, 1.0, 100.0];
    let steps: [Option<([u64; 4], f64)>; 4] =
        [Some(([1, 2, 3, 4], 42.5)), Some(([2, 2, 3, 4], 42.75)), None, Some(([3, 3, 3, 4], 44.0))];
    for (step, content) in (0..).zip(steps) {
        let times = input.times(step);
        let mut point = match content {
            Some((counts, sum)) => buckets(&bounds, &counts, sum, times, &route),
            None => {
                let mut ended = buckets(&bounds, &[0; 4], 0.0, times, &route);
                (ended.flags, ended.sum) = (1, None);
                ended
            }
        };
        if step == 0 {
            // Not in the order of their values.
            let values = [(2.0, 40), (0.7, 39), (0.5, 38), (1.0, 37)];
            let exemplar =
                |(value, before)| otlp::exemplar(value, input.base - before, before as u8, 0x0c, Vec::new());
            point.exemplars = values.into_iter().map(exemplar).collect();
        }
        input.add(0, step, histogram("http.server.request.duration", "s", vec![point]));
    }
    let name = "http_server_request_duration_seconds";
    want.series(&format!(r#"{name}_sum{{route="/a",API}}"#), &[(0, 42.5), (1, 42.75), (3, 44.0)]);
    want.series(
        &format!(r#"{name}_count{{route="/a",API}}"#),
        &[(0, 10.0), (1, 11.0), (2, ENDED), (3, 13.0)],
    );
    for (le, values) in [
        ("0.5", [1.0, 2.0, ENDED, 3.0]),
        ("1", [3.0, 4.0, ENDED, 6.0]),
        ("100", [6.0, 7.0, ENDED, 9.0]),
        ("+Inf", [10.0, 11.0, ENDED, 13.0]),
    ] {
        let values: Vec<(i64, f64)> = (0..).zip(values).collect();
        want.series(&format!(r#"{name}_bucket{{le="{le}",route="/a",API}}"#), &values);
    }
    for (le, value, before) in [("100", 2.0, 40), ("1", 0.7, 39), ("0.5", 0.5, 38), ("1", 1.0, 37)] {
        let trace = format!("{before:02x}").repeat(16);
        let labels = format!(r#"{{trace_id="{trace}",span_id="{}"}}"#, "0c".repeat(8));
        want.exemplar(&format!(r#"{name}_bucket{{le="{le}",route="/a",API}}"#), &labels, value, before);
    }

    // Bounds whose text has a long and a short form, and buckets that do not add up to the count.
    let times = input.times(1);
    let mut point = buckets(&[-0.5, 1e-7, 1e6, 1e21], &[1, 1, 1, 1, 1], -2.25, times, &[]);
    point.count = 9;
    input.add(1, 1, histogram("bounds", "", vec![point]));
    for (le, value) in
        [("-0.5", 1.0), ("0.0000001", 2.0), ("1000000", 3.0), ("1000000000000000000000", 4.0), ("+Inf", 9.0)]
    {
        want.series(&format!(r#"bounds_bucket{{le="{le}",job="worker"}}"#), &[(1, value)]);
    }
    want.series(r#"bounds_count{job="worker"}"#, &[(1, 9.0)]);
    want.series(r#"bounds_sum{job="worker"}"#, &[(1, -2.25)]);

    // Neither bounds nor a sum.
    let mut point = buckets(&[], &[], 0.0, times, &[]);
    (point.count, point.sum) = (10, None);
    input.add(1, 1, histogram("no.sum", "", vec![point]));
    want.series(r#"no_sum_count{job="worker"}"#, &[(1, 10.0)]);
    want.series(r#"no_sum_bucket{le="+Inf",job="worker"}"#, &[(1, 10.0)]);
}

fn natives(input: &mut Input, want: &mut Expected) {
    let points = [
        exponential_point(0, 1, (3, &[10, 0, 0, 20, 5, 2]), (-2, &[1, 0, 2]), 99.5, input.times(0), &[]),
        // One step finer than can be stored: neighbours fall together.
        exponential_point(
            9,
            0,
            (4, &[4, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (0, &[]),
            9.25,
            input.times(1),
            &[],
        ),
        exponential_point(2, 0, (0, &[]), (0, &[]), 0.0, input.times(2), &[]),
        exponential_point(-4, 2, (-2, &[3, 1, 0, 0, 0, 1]), (0, &[]), 1e9, input.times(3), &[]),
    ];
    for (step, mut point) in (0..).zip(points) {
        if step == 2 {
            (point.flags, point.sum) = (1, None);
        }
        if step == 3 {
            point.zero_threshold = 1e-12;
        }
        input.add(0, step, exponential("latency", "ms", vec![point]));
    }
    let tiny = 1e-128;
    let all = vec![
        (
            0,
            41.0,
            99.5,
            0,
            tiny,
            1.0,
            vec![(4, 10.0), (7, 20.0), (8, 5.0), (9, 2.0)],
            vec![(-1, 1.0), (1, 2.0)],
        ),
        (1, 9.0, 9.25, 8, tiny, 0.0, vec![(3, 6.0), (4, 2.0), (9, 1.0)], vec![]),
        (2, 0.0, ENDED, 0, 0.0, 0.0, vec![], vec![]),
        (3, 7.0, 1e9, -4, 1e-12, 2.0, vec![(-1, 3.0), (0, 1.0), (4, 1.0)], vec![]),
    ];
    want.natives.insert(parse("latency_milliseconds{API}"), all);

    // Wider buckets than can be stored: this point is dropped, and its neighbour is not.
    let (wide, other) = (attributes(&[("scale", &-5i64)]), attributes(&[("scale", &1i64)]));
    let points = vec![
        exponential_point(-5, 0, (0, &[1]), (0, &[]), 1.0, input.times(0), &wide),
        exponential_point(1, 0, (-1, &[7]), (0, &[]), 3.5, input.times(0), &other),
    ];
    input.add(1, 0, exponential("sizes", "", points));
    want.natives.insert(
        parse(r#"sizes{scale="1",job="worker"}"#),
        vec![(0, 7.0, 3.5, 1, tiny, 0.0, vec![(0, 7.0)], vec![])],
    );
}

fn summaries(input: &mut Input, want: &mut Expected) {
    let steps = [
        (4, 20.0, [1.5, 2.0, 9.0, 10.0]),
        (5, 22.0, [1.5, 2.5, 9.5, 10.0]),
        (0, 0.0, [0.0; 4]),
        (6, f64::NAN, [f64::NAN; 4]),
    ];
    for (step, (count, sum, values)) in (0..).zip(steps) {
        let pairs: Vec<(f64, f64)> = [0.0, 0.5, 0.99, 1.0].into_iter().zip(values).collect();
        let mut point = quantiles(count, sum, &pairs, input.times(step), &[]);
        point.flags = u32::from(step == 2);
        input.add(3, step, summary("rpc.latency", "s", vec![point]));
    }
    let d = r#"instance="i2",job="api""#;
    let name = "rpc_latency_seconds";
    want.series(&format!("{name}_count{{{d}}}"), &[(0, 4.0), (1, 5.0), (2, ENDED), (3, 6.0)]);
    want.series(&format!("{name}_sum{{{d}}}"), &[(0, 20.0), (1, 22.0), (2, ENDED), (3, NAN)]);
    for (quantile, first, second) in
        [("0", 1.5, 1.5), ("0.5", 2.0, 2.5), ("0.99", 9.0, 9.5), ("1", 10.0, 10.0)]
    {
        want.series(
            &format!(r#"{name}{{quantile="{quantile}",{d}}}"#),
            &[(0, first), (1, second), (2, ENDED), (3, NAN)],
        );
    }
}

fn names(input: &mut Input, want: &mut Expected) {
    enum Kind {
        Counter,
        UpDown,
        Gauge,
    }
    use Kind::{Counter, Gauge, UpDown};
    let table = [
        ("5xx.errors", "", Counter, "_5xx_errors_total"),
        ("total", "", Counter, "total"),
        ("network.transmitted.bytes.total", "By", Counter, "network_transmitted_bytes_total"),
        ("system.io", "By/s", Counter, "system_io_bytes_per_second_total"),
        ("foo.total.bar", "", Counter, "foo_bar_total"),
        ("system.cpu.utilization", "1", Gauge, "system_cpu_utilization_ratio"),
        ("system.cpu.share", "1", UpDown, "system_cpu_share"),
        ("rate", "1/s", Gauge, "rate_per_second"),
        ("speed", "km/h", Gauge, "speed_km_per_hour"),
        ("queue.rate", "{messages}/s", Gauge, "queue_rate_per_second"),
        ("memory", "TiBy", Gauge, "memory_tibibytes"),
        ("m%", "%", Gauge, "m_percent"),
        ("metric@with#special$chars", "", Gauge, "metric_with_special_chars"),
        ("ns:rule.metric", "", Gauge, "ns:rule_metric"),
        ("a..b__c", "", Gauge, "a_b_c"),
        ("MixedCase", "ms", UpDown, "MixedCase_milliseconds"),
        // Nothing of it may stay: dropped, and only it.
        ("ようこそ", "", Gauge, ""),
    ];
    for (n, (name, unit, kind, series)) in table.into_iter().enumerate() {
        let points = vec![double(n as f64, input.times(1), &[])];
        let metric = match kind {
            Counter => counter(name, unit, points),
            UpDown => sum(name, unit, false, otlp::CUMULATIVE, points),
            Gauge => gauge(name, unit, points),
        };
        input.add(1, 1, metric);
        if !series.is_empty() {
            want.series(&format!(r#"{series}{{job="worker"}}"#), &[(1, n as f64)]);
        }
    }
}

fn label_names(input: &mut Input, want: &mut Expected) {
    let list: Vec<&dyn ToValue> = vec![&"strVal", &7i64, &18.6, &false];
    let map: Vec<(&str, &dyn ToValue)> = vec![("k2", &"<&>"), ("k1", &list)];
    let table: [(&str, &dyn ToValue, &str); 26] = [
        ("label!with&special$chars)", &"a", r#"label_with_special_chars_="a""#),
        (".foo", &"b", r#"key_foo="b""#),
        ("123label", &"c", r#"key_123label="c""#),
        ("_x", &"d", r#"key_x="d""#),
        ("double__under", &"e", r#"double__under="e""#),
        ("Upper", &"f", r#"Upper="f""#),
        ("ends_", &"g", r#"ends_="g""#),
        // In the order of the keys, whatever the order they come in.
        ("a_b", &"3", r#"a_b="1;2;3""#),
        ("a.b", &"2", ""),
        ("a-b", &"1", ""),
        ("empty", &"", ""),
        ("ようこそ", &"nothing is left of the name", ""),
        ("__name__", &"ignored", ""),
        ("job", &"overwritten", ""),
        ("bool", &true, r#"bool="true""#),
        ("int", &-7i64, r#"int="-7""#),
        ("small", &1e-7, r#"small="1e-7""#),
        ("large", &1e21, r#"large="1e+21""#),
        ("round", &100.0, r#"round="100""#),
        ("nan", &f64::NAN, r#"nan="NaN""#),
        ("inf", &f64::NEG_INFINITY, r#"inf="-Infinity""#),
        ("bytes", &vec![1u8, 2, 3], r#"bytes="AQID""#),
        ("list", &list, r#"list="["strVal",7,18.6,false]""#),
        ("map", &map, r#"map="{"k1":["strVal",7,18.6,false],"k2":"<&>"}""#),
        ("text", &"grüße ☃\\ \n end", "text=\"grüße ☃\\ \n end\""),
        ("le", &"no bucket", r#"le="no bucket""#),
    ];
    let pairs: Vec<(&str, &dyn ToValue)> = table.iter().map(|(key, value, _)| (*key, *value)).collect();
    input.add(1, 2, gauge("labels", "", vec![int(1, input.times(2), &attributes(&pairs))]));
    let mut labels = Labels::from([("__name__".into(), "labels".into()), ("job".into(), "worker".into())]);
    for (_, _, label) in table.iter().filter(|(_, _, label)| !label.is_empty()) {
        let (name, value) = label.split_once('=').unwrap();
        labels.insert(name.into(), value[1..value.len() - 1].into());
    }
    want.floats.insert(labels, vec![(2, 1.0)]);
}

fn others(input: &mut Input, want: &mut Expected) {
    // One series of each group under one name.
    for (group, labels) in
        ["API", r#"job="worker""#, "", r#"instance="i2",job="api""#].into_iter().enumerate()
    {
        for step in 0..STEPS {
            let value = (group as i64 + 1) * 100 + step;
            input.add(group, step, counter("shared", "", vec![int(value, input.times(step), &[])]));
        }
        let values: Vec<(i64, f64)> =
            (0..STEPS).map(|step| (step, ((group as i64 + 1) * 100 + step) as f64)).collect();
        want.series(&format!("shared_total{{{labels}}}"), &values);
    }
    // What has no form in Prometheus, between things that have.
    let times = input.times(0);
    input.add(0, 0, sum("delta", "", true, DELTA, vec![int(1, times, &[])]));
    input.add(0, 0, sum("unspecified", "", true, UNSPECIFIED, vec![int(1, times, &[])]));
    input.add(0, 0, gauge("no.points", "", Vec::new()));
    input.add(0, 0, Metric { name: "no.data".into(), ..Default::default() });
    // Twice the same point in one request, and a late one.
    input.add(2, 3, gauge("again", "", vec![int(1, input.times(3), &[]), int(1, input.times(3), &[])]));
    input.add(2, 3, gauge("again", "", vec![int(1, input.times(2), &[])]));
    want.series("again{}", &[(3, 1.0)]);
}

/// `target_info` of the resources that have one.
pub const INFOS: [&str; 2] = [
    r#"target_info{cloud_region="eu",container_labels="{"a":true,"b":1}",host_cpu_count="8",instance="i1",job="shop/api"}"#,
    r#"target_info{deployment_environment_name="prod",instance="i2",job="api"}"#,
];
