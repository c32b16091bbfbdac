//! PromQL over what arrived gives what can be computed from the input: counters with a restart, classic buckets,
//! native histograms.

use std::time::Duration;

use super::server::Prometheus;
use super::{ONE, agent};
use crate::support::otlp::{
    self, attributes, buckets, counter, double, exponential, exponential_point, histogram, resource,
};
use crate::support::prometheus::now;

const STEP: i64 = 5_000;
const STEPS: i64 = 13;
const BOUNDS: [f64; 4] = [0.1, 0.5, 2.0, 10.0];

/// `increase` over `range` milliseconds that end at `at`, as Prometheus documents it: from the first to the last
/// sample, restarts added, extrapolated to the ends of the range if a sample is as near as usual, and never below
/// zero.
fn increase(samples: &[(i64, f64)], at: i64, range: i64) -> f64 {
    let inside: Vec<(i64, f64)> =
        samples.iter().filter(|(time, _)| (at - range..=at).contains(time)).copied().collect();
    let (first, last) = (inside[0], inside[inside.len() - 1]);
    let restarts: f64 = inside.windows(2).filter(|w| w[1].1 < w[0].1).map(|w| w[0].1).sum();
    let grown = last.1 - first.1 + restarts;
    let seconds = |millis: i64| millis as f64 / 1000.0;
    let covered = seconds(last.0 - first.0);
    let between = covered / (inside.len() - 1) as f64;
    let mut before = seconds(first.0 - (at - range));
    if grown > 0.0 && first.1 >= 0.0 {
        before = before.min(covered * (first.1 / grown));
    }
    let after = seconds(at - last.0);
    let reach = |gap: f64| if gap < between * 1.1 { gap } else { between / 2.0 };
    grown * (covered + reach(before) + reach(after)) / covered
}

/// The quantile within buckets given as lower bound, upper bound and count.
fn quantile(q: f64, buckets: &[(f64, f64, f64)], exponential: bool) -> f64 {
    let mut rank = q * buckets.iter().map(|b| b.2).sum::<f64>();
    for (lower, upper, count) in buckets {
        if rank <= *count && *count > 0.0 {
            let part = rank / count;
            return match (exponential, upper.is_finite()) {
                (_, false) => *lower,
                (true, _) => lower * (upper / lower).powf(part),
                (false, _) => lower + (upper - lower) * part,
            };
        }
        rank -= count;
    }
    f64::NAN
}

fn close(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-9 * want.abs().max(1e-9), "{what}: {got} instead of {want}");
}

#[test]
fn promql_agrees_with_the_input() {
    let base = now() - STEPS * STEP;
    let server = Prometheus::start();
    let mut agent = agent(&server, ONE);
    let api = attributes(&[("service.name", &"api"), ("service.instance.id", &"i1")]);
    let mut requests = Vec::new();
    let mut bucket_series = vec![Vec::new(); BOUNDS.len() + 1];
    let (mut native_counts, mut native_total) = (vec![0u64; 6], Vec::new());
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut total, mut start, mut counts) = (0.0, base - 1000, [0u64; BOUNDS.len() + 1]);
    for step in 0..STEPS {
        let time = base + step * STEP;
        if step == 7 {
            (total, start) = (0.0, time - 1000);
        }
        total += 0.25 * f64::from(rng.u32(1..40));
        requests.push((time, total));
        counts.iter_mut().for_each(|count| *count += rng.u64(0..20));
        native_counts.iter_mut().for_each(|count| *count += rng.u64(0..9));
        let mut below = 0;
        for (series, count) in bucket_series.iter_mut().zip(counts) {
            below += count;
            series.push((time, below as f64));
        }
        native_total.push((time, native_counts.iter().sum::<u64>() as f64));
        // Scale 1: four buckets to a factor of four, from 2 to 16.
        let native = exponential_point(1, 0, (2, &native_counts), (0, &[]), total, (base - 1000, time), &[]);
        let metrics = vec![
            counter("requests", "", vec![double(total, (start, time), &[])]),
            histogram("duration", "s", vec![buckets(&BOUNDS, &counts, total, (base - 1000, time), &[])]),
            exponential("latency", "s", vec![native]),
        ];
        otlp::send(agent.http, vec![resource(api.clone(), None, metrics)]).unwrap();
    }
    let status = agent.terminate(Duration::from_secs(30));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());

    let last = base + (STEPS - 1) * STEP;
    for (range, at) in [(42_000, last + 1_500), (21_000, last - 3_200), (33_000, last + 4_000)] {
        let seconds = range / 1000;
        let want = increase(&requests, at, range);
        close("increase", server.value(&format!("increase(requests_total[{seconds}s])"), at), want);
        let rate =
            server.value(&format!("rate(requests_total{{job=\"api\",instance=\"i1\"}}[{seconds}s])"), at);
        close("rate", rate, want / seconds as f64);
        let want = increase(&native_total, at, range) / seconds as f64;
        let got = server.value(&format!("histogram_count(rate(latency_seconds[{seconds}s]))"), at);
        close("histogram_count", got, want);

        let rates: Vec<f64> = bucket_series.iter().map(|s| increase(s, at, range)).collect();
        let mut classic = Vec::new();
        let mut lower = 0.0;
        for (n, upper) in BOUNDS.into_iter().chain([f64::INFINITY]).enumerate() {
            let below = if n == 0 { 0.0 } else { rates[n - 1] };
            classic.push((lower, upper, rates[n] - below));
            lower = upper;
        }
        for q in [0.1, 0.5, 0.9] {
            let promql = format!("histogram_quantile({q}, rate(duration_seconds_bucket[{seconds}s]))");
            close(&promql, server.value(&promql, at), quantile(q, &classic, false));
        }
    }
    // Native histograms are interpolated linearly by 2.x and exponentially since.
    let exponential = server.major() >= 3;
    let edge = |n: i32| 2f64.powf(f64::from(n) / 2.0);
    let native: Vec<(f64, f64, f64)> =
        (0..).zip(&native_counts).map(|(n, count)| (edge(n + 2), edge(n + 3), *count as f64)).collect();
    for q in [0.05, 0.5, 0.75, 0.99] {
        let promql = format!("histogram_quantile({q}, latency_seconds)");
        close(&promql, server.value(&promql, last), quantile(q, &native, exponential));
    }
    close("histogram_sum", server.value("histogram_sum(latency_seconds)", last), total);
    close("_sum", server.value("duration_seconds_sum", last), total);
}
