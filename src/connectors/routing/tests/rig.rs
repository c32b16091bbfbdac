//! A connector with pipelines that keep what they get, and requests of every signal to send through it.

use super::*;

/// The pipelines of every signal that the connector may send to.
pub(super) const PIPELINES: [&str; 4] = ["a", "b", "c", "rest"];

/// A pipeline that keeps what it gets.
#[derive(Default)]
pub(super) struct Pipeline {
    pub(super) taken: Mutex<Vec<Batch>>,
    pub(super) full: AtomicBool,
}

impl Consumer for Pipeline {
    fn consume(&self, mut batch: Batch) {
        let acks = std::mem::take(&mut batch.acks);
        if self.full.load(Ordering::Relaxed) {
            return acks.resolve(Verdict::retry("full"));
        }
        acks.resolve(Verdict::Accepted);
        self.taken.lock().unwrap().push(batch);
    }

    fn holds_acks(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

/// A connector with its pipelines.
pub(super) struct Rig {
    pub(super) signal: Signal,
    pub(super) connector: Connector,
    pub(super) pipelines: BTreeMap<&'static str, Arc<Pipeline>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Rig {
    /// The connector that these keys describe; `@` in them is the signal, `%` what its items
    /// are called in conditions.
    pub(super) fn new(signal: Signal, keys: &str) -> Rig {
        Rig::try_new(signal, keys).unwrap()
    }

    pub(super) fn try_new(signal: Signal, keys: &str) -> Result<Rig, String> {
        let item = match signal {
            Signal::Traces => "span",
            Signal::Metrics => "datapoint",
            Signal::Logs => "log",
        };
        let text = format!(
            "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{nop: }}\nconnectors: {{routing: {{{}}}}}\nservice:\n  \
             pipelines:\n    @: {{receivers: [otlp], exporters: [routing]}}\n{}",
            keys,
            PIPELINES.map(|p| format!("    @/{p}: {{receivers: [routing], exporters: [nop]}}\n")).concat()
        )
        .replace('@', signal.name())
        .replace('%', item);
        let loaded = load(&[Source::Bytes("c.yaml".to_owned(), text.into_bytes())], LoadOptions::default());
        let Some(plan) = loaded.plan else { panic!("{:#?}", loaded.diags) };
        let config = &plan.component(Kind::Connector, "routing").unwrap().config;
        let pipelines = BTreeMap::from(PIPELINES.map(|p| (p, Arc::<Pipeline>::default())));
        let targets = pipelines
            .iter()
            .map(|(id, entry)| Target { pipeline: format!("{}/{id}", signal.name()), entry: entry.clone() })
            .collect();
        let metrics = Metrics::new();
        let cx =
            BuildContext { id: "routing".into(), metrics: metrics.clone(), ledger: Ledger::new(1 << 30) };
        let connector = build(config.as_any().downcast_ref().unwrap(), signal, targets, &cx)?;
        Ok(Rig { signal, connector, pipelines, metrics })
    }

    /// The numbers that each pipeline got, in order; those that got nothing are left out.
    pub(super) fn got(&self) -> BTreeMap<&'static str, Vec<u64>> {
        let mut out = BTreeMap::new();
        for (id, pipeline) in &self.pipelines {
            let mut all = Vec::new();
            for batch in pipeline.taken.lock().unwrap().iter() {
                let numbers = numbers(self.signal, &batch.rope.to_bytes());
                assert_eq!(numbers.len(), batch.items, "the count of items is exact");
                assert!(batch.items > 0, "nothing is sent without items");
                all.extend(numbers);
            }
            if !all.is_empty() {
                all.sort_unstable();
                out.insert(*id, all);
            }
        }
        out
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        let [sum] = self.metrics.sums([name]);
        sum
    }

    pub(super) fn gap(&self) -> i64 {
        (self.connector.gap.as_ref().unwrap())()
    }
}

/// An item: what stands at its resource, its scope and itself, and its number.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) env: Option<&'static str>,
    pub(super) level: Option<i64>,
    pub(super) kind: Option<&'static str>,
    pub(super) number: u64,
}

/// Items by resource and scope.
pub(super) type Tree = Vec<(Option<&'static str>, Vec<(Option<i64>, Vec<Option<&'static str>>)>)>;

pub(super) fn items(tree: &Tree) -> Vec<Item> {
    let mut out = Vec::new();
    for (env, scopes) in tree {
        for (level, kinds) in scopes {
            for kind in kinds {
                let number = out.len() as u64 + 1;
                out.push(Item { env: *env, level: *level, kind: *kind, number });
            }
        }
    }
    out
}

pub(super) fn attribute(key: &str, value: Option<Value>) -> Vec<KeyValue> {
    let one = |value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    };
    value.map(one).into_iter().collect()
}

pub(super) fn text(value: Option<&str>) -> Option<Value> {
    value.map(|v| Value::StringValue(v.to_owned()))
}

pub(super) fn encode(signal: Signal, tree: &Tree) -> Vec<u8> {
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    let resource = |env| Some(Resource { attributes: attribute("env", text(env)), ..Default::default() });
    let scope = |level: Option<i64>| {
        let attributes = attribute("level", level.map(Value::IntValue));
        Some(InstrumentationScope { attributes, ..Default::default() })
    };
    match signal {
        Signal::Logs => {
            let mut resource_logs = Vec::new();
            for (env, scopes) in tree {
                let mut scope_logs = Vec::new();
                for (level, kinds) in scopes {
                    let record = |kind: &Option<&str>| LogRecord {
                        time_unix_nano: next(),
                        attributes: attribute("kind", text(*kind)),
                        ..Default::default()
                    };
                    let log_records = kinds.iter().map(record).collect();
                    scope_logs.push(ScopeLogs { scope: scope(*level), log_records, ..Default::default() });
                }
                resource_logs.push(ResourceLogs {
                    resource: resource(*env),
                    scope_logs,
                    ..Default::default()
                });
            }
            ExportLogsServiceRequest { resource_logs }.encode_to_vec()
        }
        Signal::Traces => {
            let mut resource_spans = Vec::new();
            for (env, scopes) in tree {
                let mut scope_spans = Vec::new();
                for (level, kinds) in scopes {
                    let span = |kind: &Option<&str>| Span {
                        start_time_unix_nano: next(),
                        attributes: attribute("kind", text(*kind)),
                        ..Default::default()
                    };
                    let spans = kinds.iter().map(span).collect();
                    scope_spans.push(ScopeSpans { scope: scope(*level), spans, ..Default::default() });
                }
                resource_spans.push(ResourceSpans {
                    resource: resource(*env),
                    scope_spans,
                    ..Default::default()
                });
            }
            ExportTraceServiceRequest { resource_spans }.encode_to_vec()
        }
        Signal::Metrics => {
            let mut resource_metrics = Vec::new();
            for (env, scopes) in tree {
                let mut scope_metrics = Vec::new();
                for (level, kinds) in scopes {
                    let mut metrics = Vec::new();
                    for kinds in kinds.chunks(2) {
                        let point = |kind: &Option<&str>| NumberDataPoint {
                            time_unix_nano: next(),
                            attributes: attribute("kind", text(*kind)),
                            ..Default::default()
                        };
                        let data_points = kinds.iter().map(point).collect();
                        let data = Some(Data::Gauge(Gauge { data_points }));
                        metrics.push(Metric { name: "m".to_owned(), data, ..Default::default() });
                    }
                    scope_metrics.push(ScopeMetrics { scope: scope(*level), metrics, ..Default::default() });
                }
                resource_metrics.push(ResourceMetrics {
                    resource: resource(*env),
                    scope_metrics,
                    ..Default::default()
                });
            }
            ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
        }
    }
}

pub(super) fn numbers(signal: Signal, bytes: &[u8]) -> Vec<u64> {
    match signal {
        Signal::Logs => ExportLogsServiceRequest::decode(bytes)
            .unwrap()
            .resource_logs
            .iter()
            .flat_map(|r| &r.scope_logs)
            .flat_map(|s| &s.log_records)
            .map(|record| record.time_unix_nano)
            .collect(),
        Signal::Traces => ExportTraceServiceRequest::decode(bytes)
            .unwrap()
            .resource_spans
            .iter()
            .flat_map(|r| &r.scope_spans)
            .flat_map(|s| &s.spans)
            .map(|span| span.start_time_unix_nano)
            .collect(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes)
            .unwrap()
            .resource_metrics
            .iter()
            .flat_map(|r| &r.scope_metrics)
            .flat_map(|s| &s.metrics)
            .flat_map(|m| match &m.data {
                Some(Data::Gauge(gauge)) => &gauge.data_points[..],
                _ => &[],
            })
            .map(|point| point.time_unix_nano)
            .collect(),
    }
}

pub(super) fn batch(signal: Signal, bytes: Vec<u8>, items: usize) -> Batch {
    Batch {
        signal,
        rope: Rope::from(Bytes::from(bytes)),
        items,
        client: Arc::default(),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    }
}

/// Three resources with all there is.
pub(super) fn tree() -> Tree {
    vec![
        (Some("prod"), vec![(Some(1), vec![Some("x"), Some("y")]), (None, vec![None])]),
        (Some("test"), vec![(Some(2), vec![Some("x"), Some("xy"), None])]),
        (None, vec![(Some(1), vec![Some("y")]), (Some(7), vec![Some("x")])]),
    ]
}

pub(super) fn sent(signal: Signal, keys: &str) -> Rig {
    let rig = Rig::new(signal, keys);
    let all = items(&tree()).len();
    let (share, mut verdict) = ack();
    rig.connector
        .consumer
        .consume(Batch { acks: share.into(), ..batch(signal, encode(signal, &tree()), all) });
    assert_eq!(verdict.try_recv(), Ok(Verdict::Accepted), "{keys}");
    assert_eq!(rig.gap(), 0);
    rig
}
