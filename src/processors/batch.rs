//! `batch`: collects small requests into larger ones, by item count and time.
//!
//! Merging appends ropes and splitting references them, so a span passes through without being copied. Unlike
//! the Collector's, this processor never turns an acknowledged request into a loss: while a destination has no
//! room, or promises more than memory, acknowledgements travel on with the data and the sender hears the
//! destination's own verdict (see [`crate::pipeline::Consumer::holds_acks`]).
//!
//! Cost: per request one hash look-up when `metadata_keys` is set, one append, nothing per item.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Histogram;
use smallvec::SmallVec;

use crate::components::{BuildError, ClientFact, ComponentConfig};
use crate::config::{Cx, Node};
use crate::pdata::{Batch, ClientInfo, Signal, Tenant, split_items};
use crate::pipeline::{Acks, BuildContext, Processor, Stage, Verdict};
use crate::telemetry::{Counter, Metrics, dropped};

crate::config! {
    /// Collects requests into larger ones. Smaller counts of larger requests compress better and cost every hop
    /// behind this one less.
    pub struct BatchConfig {
        /// Send what has been collected after this time, however little it is. 0 sends at once.
        pub timeout: Duration = Duration::from_millis(200),
        /// Send as soon as this many spans, data points or log records are collected. 0 sends at once.
        pub send_batch_size: usize = 8192,
        /// Never send more than this many items in one request; larger requests are split. 0 means no limit.
        pub send_batch_max_size: usize = 0,
        /// Collect separately for each combination of values of these client metadata keys; only these keys are
        /// known behind this processor. The receiver needs `include_metadata: true`.
        pub metadata_keys: Vec<String> = Vec::new(),
        /// How many combinations of `metadata_keys` values may exist at once; requests beyond are refused.
        pub metadata_cardinality_limit: usize = 1000,
    }
    validate = BatchConfig::check;
}

impl ComponentConfig for BatchConfig {
    fn keeps_of_clients(&self, fact: &ClientFact) -> bool {
        match fact {
            ClientFact::Metadata(key) => self.metadata_keys.iter().any(|kept| kept.eq_ignore_ascii_case(key)),
            _ => false,
        }
    }
}

impl BatchConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.send_batch_max_size > 0 && self.send_batch_max_size < self.send_batch_size {
            let pos = node.pos_of("send_batch_max_size");
            cx.error(pos, "send_batch_max_size must be greater or equal to send_batch_size");
        }
        for (i, key) in self.metadata_keys.iter().enumerate() {
            if self.metadata_keys.iter().take(i).any(|k| k.eq_ignore_ascii_case(key)) {
                cx.error(
                    node.pos_of("metadata_keys"),
                    format!("duplicate entry in metadata_keys: \"{key}\""),
                );
            }
        }
    }
}

/// Builds the processor for one pipeline.
///
/// # Errors
/// None beyond what the config's own validation reports.
pub fn build(config: &BatchConfig, signal: Signal, cx: &BuildContext) -> Result<Stage, BuildError> {
    Ok(Stage::Regroup(Box::new(BatchProcessor::new(config.clone(), signal, &cx.id, &cx.metrics))))
}

/// The values of `metadata_keys` for one request, in the order of the keys; absent keys are empty lists.
type Values = SmallVec<[SmallVec<[String; 1]>; 1]>;

/// What requests that may be merged have in common.
#[derive(PartialEq, Eq, Hash)]
struct GroupKey {
    tenant: Option<Tenant>,
    demoted: bool,
    values: Values,
}

/// See the module's documentation.
pub struct BatchProcessor {
    config: BatchConfig,
    signal: Signal,
    groups: HashMap<GroupKey, Group>,
    stats: Stats,
}

/// What is collected for one combination of metadata values.
struct Group {
    client: Arc<ClientInfo>,
    pending: Option<Batch>,
    /// When `pending` must go; set with the first request collected.
    deadline: Instant,
}

struct Stats {
    id: String,
    metrics: Arc<Metrics>,
    size: Option<Histogram>,
    by_size: Counter,
    by_timeout: Counter,
}

impl BatchProcessor {
    fn new(config: BatchConfig, signal: Signal, id: &str, metrics: &Arc<Metrics>) -> Self {
        const BOUNDS: &[f64] = &[
            10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2e3, 3e3, 4e3, 5e3, 6e3, 7e3, 8e3, 9e3,
            1e4, 2e4, 3e4, 5e4, 1e5,
        ];
        let name = "otelcol_processor_batch_batch_send_size";
        let labels = &[("processor", id)];
        let stats = Stats {
            id: id.to_owned(),
            size: metrics
                .histogram(name, "Items in the requests sent.", &["processor"], BOUNDS)
                .map(|family| family.with_label_values(&[id])),
            by_size: metrics.series(
                "otelcol_processor_batch_batch_size_trigger_send",
                "Requests sent because enough was collected.",
                labels,
            ),
            by_timeout: metrics.series(
                "otelcol_processor_batch_timeout_trigger_send",
                "Requests sent because the timeout passed.",
                labels,
            ),
            metrics: metrics.clone(),
        };
        BatchProcessor { config, signal, groups: HashMap::new(), stats }
    }

    fn key(&self, batch: &Batch) -> GroupKey {
        let values = |key: &String| batch.client.metadata(key).map(SmallVec::from).unwrap_or_default();
        GroupKey {
            tenant: batch.tenant.clone(),
            demoted: batch.demoted,
            values: self.config.metadata_keys.iter().map(values).collect(),
        }
    }

    /// Nothing waits for a size or a time: every request goes on at once, split if need be.
    fn immediate(&self) -> bool {
        self.config.timeout.is_zero() || self.config.send_batch_size == 0
    }
}

impl Processor for BatchProcessor {
    fn process(&mut self, now: Instant, mut batch: Batch, hold: bool, out: &mut Vec<Batch>) -> usize {
        let key = self.key(&batch);
        // Tenants are bounded where they are told apart.
        if !self.config.metadata_keys.is_empty()
            && !self.groups.contains_key(&key)
            && self.groups.len() >= self.config.metadata_cardinality_limit.max(1)
        {
            if batch.acks.settled() {
                dropped(
                    &self.stats.metrics,
                    &self.stats.id,
                    self.signal,
                    batch.items,
                    "metadata_cardinality",
                );
            }
            let reason = "too many batcher metadata-value combinations".to_owned();
            batch.acks.resolve(Verdict::Rejected { bad_data: false, reason });
            return batch.items;
        }
        if !hold {
            std::mem::take(&mut batch.acks).resolve(Verdict::Accepted);
        }
        let immediate = self.immediate();
        let config = &self.config;
        let group = self.groups.entry(key).or_insert_with_key(|key| Group {
            client: Arc::new(known_metadata(&config.metadata_keys, &key.values)),
            pending: None,
            deadline: now,
        });
        batch.client = group.client.clone();
        match &mut group.pending {
            Some(pending) => merge(pending, batch),
            None => {
                group.deadline = now + config.timeout;
                group.pending = Some(batch);
            }
        }
        let full = |items: usize| immediate || items >= config.send_batch_size;
        if !group.pending.as_ref().is_some_and(|p| full(p.items)) {
            return 0;
        }
        let Some(pending) = group.pending.take() else { return 0 };
        let mut parts = parts(pending, config.send_batch_max_size);
        // What is left of a split waits for more, and its time starts anew.
        if parts.len() > 1 && parts.last().is_some_and(|last| !full(last.items)) {
            group.pending = parts.pop();
            group.deadline = now + config.timeout;
        }
        self.stats.by_size.add(parts.len() as u64);
        self.stats.emit(parts, out);
        0
    }

    fn flush(&mut self, now: Instant, all: bool, out: &mut Vec<Batch>) {
        let max = self.config.send_batch_max_size;
        for group in self.groups.values_mut() {
            if !all && group.deadline > now {
                continue;
            }
            if let Some(pending) = group.pending.take() {
                let parts = parts(pending, max);
                self.stats.by_timeout.add(parts.len() as u64);
                self.stats.emit(parts, out);
            }
        }
        // Tenants come and go.
        self.groups.retain(|key, group| key.tenant.is_none() || group.pending.is_some());
    }

    fn deadline(&self) -> Option<Instant> {
        self.groups.values().filter(|g| g.pending.is_some()).map(|g| g.deadline).min()
    }

    fn held(&self) -> usize {
        self.groups.values().filter_map(|g| g.pending.as_ref()).map(|p| p.items).sum()
    }
}

impl Stats {
    fn emit(&self, parts: Vec<Batch>, out: &mut Vec<Batch>) {
        if let Some(size) = &self.size {
            parts.iter().for_each(|part| size.observe(part.items as f64));
        }
        out.extend(parts);
    }
}

/// Puts `batch` behind `pending`: ropes appended, everything owed for either is owed for both.
fn merge(pending: &mut Batch, batch: Batch) {
    pending.rope.append(batch.rope);
    pending.items += batch.items;
    pending.leases.extend(batch.leases);
    pending.acks.append(batch.acks);
}

/// The batch in parts of at most `max` items; whole when `max` is 0.
fn parts(batch: Batch, max: usize) -> Vec<Batch> {
    if max == 0 || batch.items <= max {
        return vec![batch];
    }
    let Batch { signal, rope, items, client, tenant, demoted, received, leases, acks } = batch;
    let ropes = split_items(signal, rope, items, max);
    let part = |rope, items, acks: Acks| Batch {
        signal,
        rope,
        items,
        client: client.clone(),
        tenant: tenant.clone(),
        demoted,
        received,
        leases: leases.clone(),
        acks,
    };
    let mut out: Vec<Batch> =
        ropes.into_iter().map(|(rope, items)| part(rope, items, acks.clone())).collect();
    // The original shares end with the last part rather than being dropped, which would count as a retry.
    if let Some(last) = out.last_mut() {
        std::mem::replace(&mut last.acks, acks).resolve(Verdict::Accepted);
    }
    out
}

/// What is known of the client behind this processor: the chosen keys and nothing else.
fn known_metadata(keys: &[String], values: &Values) -> ClientInfo {
    let pairs = keys.iter().zip(values).filter(|(_, v)| !v.is_empty());
    ClientInfo {
        metadata: pairs.map(|(k, v)| (k.to_ascii_lowercase(), v.clone())).collect(),
        ..ClientInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pdata::Rope;
    use crate::pipeline::ack;

    /// A logs request of `n` empty records.
    fn logs(n: usize) -> Rope {
        let mut scope = Vec::new();
        for _ in 0..n {
            scope.extend_from_slice(&[0x12, 0x02, 0x10, 0x09]);
        }
        let mut resource = Vec::new();
        crate::pdata::wire::put_bytes(&mut resource, 2, &scope);
        let mut request = Vec::new();
        crate::pdata::wire::put_bytes(&mut request, 1, &resource);
        Rope::from(Bytes::from(request))
    }

    fn batch(n: usize, tenant: Option<&str>) -> Batch {
        let metadata = tenant.map(|t| ("x-tenant".to_owned(), SmallVec::from_elem(t.to_owned(), 1)));
        Batch {
            signal: Signal::Logs,
            rope: logs(n),
            items: n,
            client: Arc::new(ClientInfo {
                metadata: metadata.into_iter().collect(),
                ..ClientInfo::default()
            }),
            tenant: None,
            demoted: false,
            received: Instant::now(),
            leases: SmallVec::new(),
            acks: Acks::none(),
        }
    }

    fn processor(config: BatchConfig) -> BatchProcessor {
        BatchProcessor::new(config, Signal::Logs, "batch", &Metrics::new())
    }

    fn sizes(out: &[Batch]) -> Vec<usize> {
        out.iter().map(|b| b.items).collect()
    }

    #[test]
    fn sends_by_size_and_keeps_the_rest_for_the_timeout() {
        // (size, max, requests in, sent at once, sent at the timeout)
        let cases: &[(usize, usize, &[usize], &[usize], &[usize])] = &[
            (10, 0, &[4, 4], &[], &[8]),
            (10, 0, &[4, 4, 4], &[12], &[]),
            (10, 10, &[4, 4, 4], &[10], &[2]),
            (10, 12, &[40], &[12, 12, 12], &[4]),
            (10, 20, &[45], &[20, 20], &[5]),
            (0, 0, &[3, 2], &[3, 2], &[]),
            (0, 2, &[5], &[2, 2, 1], &[]),
        ];
        for &(size, max, requests, at_once, at_timeout) in cases {
            let config =
                BatchConfig { send_batch_size: size, send_batch_max_size: max, ..BatchConfig::default() };
            let mut p = processor(config);
            let now = Instant::now();
            let mut out = Vec::new();
            for &n in requests {
                p.process(now, batch(n, None), false, &mut out);
            }
            assert_eq!(sizes(&out), at_once, "size {size} max {max} {requests:?}");
            out.clear();
            p.flush(now + Duration::from_millis(199), false, &mut out);
            assert!(out.is_empty(), "flushed before the timeout");
            assert_eq!(p.deadline(), (!at_timeout.is_empty()).then(|| now + Duration::from_millis(200)));
            p.flush(now + Duration::from_millis(200), false, &mut out);
            assert_eq!(sizes(&out), at_timeout, "size {size} max {max} {requests:?}");
            assert_eq!(p.deadline(), None);
        }
    }

    #[test]
    fn acknowledges_at_once_unless_told_to_hold() {
        for hold in [false, true] {
            let mut p = processor(BatchConfig {
                send_batch_size: 4,
                send_batch_max_size: 4,
                ..BatchConfig::default()
            });
            let mut out = Vec::new();
            let mut waiting = Vec::new();
            for _ in 0..3 {
                let (share, verdict) = ack();
                waiting.push(verdict);
                p.process(Instant::now(), Batch { acks: share.into(), ..batch(2, None) }, hold, &mut out);
            }
            p.flush(Instant::now(), true, &mut out);
            assert_eq!(sizes(&out), [4, 2]);
            for verdict in &mut waiting {
                assert_eq!(verdict.try_recv().is_ok(), !hold);
            }
            // A share that travels with a part hears that part's verdict.
            for part in out {
                assert_eq!(part.acks.settled(), !hold);
                part.acks.resolve(Verdict::retry("full"));
            }
            for mut verdict in waiting.into_iter().filter(|_| hold) {
                assert_eq!(verdict.try_recv(), Ok(Verdict::retry("full")));
            }
        }
    }

    #[test]
    fn a_request_in_two_parts_waits_for_both() {
        let config = BatchConfig { send_batch_size: 0, send_batch_max_size: 3, ..BatchConfig::default() };
        let mut p = processor(config);
        let mut out = Vec::new();
        let (share, mut verdict) = ack();
        p.process(Instant::now(), Batch { acks: share.into(), ..batch(5, None) }, true, &mut out);
        assert_eq!(sizes(&out), [3, 2]);
        let second = out.pop().unwrap();
        out.pop().unwrap().acks.resolve(Verdict::Accepted);
        assert!(verdict.try_recv().is_err(), "answered before the second part");
        second.acks.resolve(Verdict::Accepted);
        assert_eq!(verdict.try_recv(), Ok(Verdict::Accepted));
    }

    #[test]
    fn tenants_never_mix_nor_do_ranks() {
        let mut p = processor(BatchConfig::default());
        let mut out = Vec::new();
        let tenant = |name: &str| Some(Tenant::new(name));
        for (tenant, demoted) in [
            (tenant("a"), false),
            (tenant("b"), false),
            (tenant("a"), true),
            (None, false),
            (tenant("a"), false),
        ] {
            p.process(Instant::now(), Batch { tenant, demoted, ..batch(1, None) }, false, &mut out);
        }
        p.flush(Instant::now(), true, &mut out);
        let mut seen: Vec<_> = out
            .iter()
            .map(|b| (b.tenant.as_ref().map(|t| t.name().to_owned()), b.demoted, b.items))
            .collect();
        seen.sort();
        let a = || Some("a".to_owned());
        assert_eq!(
            seen,
            [(None, false, 1), (a(), false, 2), (a(), true, 1), (Some("b".to_owned()), false, 1)]
        );
        assert!(p.groups.keys().all(|key| key.tenant.is_none()), "what is sent is forgotten");
    }

    #[test]
    fn metadata_values_never_mix_and_are_bounded() {
        let config = BatchConfig {
            metadata_keys: vec!["X-Tenant".into()],
            metadata_cardinality_limit: 2,
            ..BatchConfig::default()
        };
        let mut p = processor(config);
        let mut out = Vec::new();
        for tenant in [Some("a"), Some("b"), Some("a")] {
            p.process(Instant::now(), batch(1, tenant), false, &mut out);
        }
        let (share, mut verdict) = ack();
        p.process(Instant::now(), Batch { acks: share.into(), ..batch(1, None) }, false, &mut out);
        assert!(matches!(verdict.try_recv(), Ok(Verdict::Rejected { bad_data: false, .. })));
        p.flush(Instant::now(), true, &mut out);
        let mut seen: Vec<(String, usize)> =
            out.iter().map(|b| (b.client.metadata("x-tenant").unwrap().concat(), b.items)).collect();
        seen.sort();
        assert_eq!(seen, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    }
}
