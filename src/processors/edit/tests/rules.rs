//! Steps with rules of their own: what one walk makes of a chain is what a walk for each step would make of it, and each
//! change and drop does to the request what it says.

use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};

use prost::Message as _;

use super::naive::arb_processors;
use super::*;
use crate::pdata::count;
use crate::pdata::wire::{Value, put_bytes};
use crate::processors::edit::Message;

/// Does at each level something that depends on all it may see there.
#[derive(Debug)]
struct Toy {
    seed: u64,
    levels: Levels,
    drops: bool,
    dropped: AtomicUsize,
}

/// What it saw above, by level.
#[derive(Default)]
struct Above([u64; 5]);

impl Toy {
    fn new(seed: u64, drops: bool) -> Arc<Self> {
        let all = [Levels::RESOURCE, Levels::SCOPE, Levels::METRIC, Levels::ITEM, Levels::EVENT];
        let chosen = all.into_iter().enumerate().filter(|(i, _)| seed >> i & 1 != 0);
        let levels = chosen.fold(Levels::NONE, |set, (_, level)| set.and(level));
        Arc::new(Toy { seed, levels, drops, dropped: AtomicUsize::new(0) })
    }

    fn look(&self, message: &Message<'_>, above: &Above) -> Result<u64, WireError> {
        let mut hasher = DefaultHasher::new();
        let level = message.level() as usize;
        (self.seed, level, &above.0[..level]).hash(&mut hasher);
        for (_, key, value) in message.attributes() {
            (key, value).hash(&mut hasher);
        }
        format!("{:?}", message.field(name_field(message.kind()))?).hash(&mut hasher);
        Ok(hasher.finish())
    }
}

/// A field of text, or one that nobody knows.
fn name_field(kind: Kind) -> u32 {
    match kind {
        Kind::Scope | Kind::Metric => 1,
        Kind::Event => 2,
        Kind::Span => 5,
        Kind::Log => 3,
        _ => 1000,
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut value = Vec::new();
    put_bytes(&mut value, 1, text.as_bytes());
    value
}

impl Rewrite for Toy {
    fn levels(&self, _signal: Signal) -> Levels {
        self.levels
    }

    fn drops(&self) -> bool {
        self.drops
    }

    fn scratch(&self, _facts: &Facts<'_>) -> Box<dyn Any> {
        Box::new(Above::default())
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let above = cx.scratch.downcast_mut::<Above>().unwrap();
        let h = self.look(message, above)?;
        above.0[message.level() as usize] = h;
        let name = name_field(message.kind());
        let first = message.attributes().next().map(|(place, key, _)| (place, key.to_vec()));
        match (h % 11, first) {
            (0, _) if self.drops => return Ok(Fate::Drop),
            (1 | 2, _) => message.set_attribute(format!("k{}", h % 5).as_bytes(), &text(&h.to_string()))?,
            (3, Some((_, key))) => assert!(message.delete_attribute(&key)),
            (4 | 5, _) => message.set_field(name, Value::Bytes(format!("n{}", h % 100).as_bytes()))?,
            (6, _) => message.clear_field(name)?,
            (7, Some((place, _))) => message.set_attribute_at(place, &text("there"))?,
            (8, Some((place, _))) => message.delete_attribute_at(place),
            (9, _) => return Ok(Fate::Skip),
            _ => {}
        }
        Ok(Fate::Keep)
    }

    fn dropped(&self, items: usize) {
        self.dropped.fetch_add(items, Ordering::Relaxed);
    }
}

/// A chain of steps: toys, and processors with conditions between them.
fn chain(signal: Signal, toys: &[(u64, bool)], processors: &[Processor]) -> (Vec<Edit>, Vec<Arc<Toy>>) {
    let toys: Vec<Arc<Toy>> = toys.iter().map(|(seed, drops)| Toy::new(*seed, *drops)).collect();
    let mut edits: Vec<Edit> = toys.iter().map(|toy| Edit::rules(toy.clone())).collect();
    for (i, processor) in processors.iter().enumerate() {
        edits.insert((i * 2 + 1).min(edits.len()), processor.edit(signal));
    }
    (edits, toys)
}

fn counted(signal: Signal, bytes: &[u8]) -> Batch {
    let mut batch = batch(signal, &[bytes]);
    batch.items = count(signal, bytes).unwrap();
    batch
}

fn one_walk_is_many<R: prost::Message + Default + Naive + Scopes + std::fmt::Debug>(
    signal: Signal,
    bytes: &[u8],
    toys: &[(u64, bool)],
    processors: &[Processor],
) -> Result<(), TestCaseError> {
    let mut fused = counted(signal, bytes);
    let before = fused.items;
    let (edits, fused_toys) = chain(signal, toys, processors);
    let applied = Program::new(signal, edits).apply(&mut fused);
    prop_assert_eq!(applied.malformed, 0);
    prop_assert_eq!(&applied.refused, &None);

    let mut stepwise = counted(signal, bytes);
    let (edits, toys) = chain(signal, toys, processors);
    let mut dropped = 0;
    for edit in edits {
        let applied = Program::new(signal, vec![edit]).apply(&mut stepwise);
        prop_assert_eq!(applied.malformed, 0);
        dropped += applied.dropped;
    }
    let decode = |batch: &Batch| R::decode(batch.rope.to_bytes()).unwrap();
    let (mut got, mut want) = (decode(&fused), decode(&stepwise));
    // A resource or scope that is there and empty is one that is absent.
    for request in [&mut got, &mut want] {
        request.normalize();
        request.fill_scopes();
    }
    let (a, b) = (format!("{got:#?}"), format!("{want:#?}"));
    let differs: Vec<_> = a.lines().zip(b.lines()).filter(|(a, b)| a != b).take(12).collect();
    prop_assert!(got.encode_to_vec() == want.encode_to_vec(), "got and want: {differs:#?}");
    prop_assert_eq!(applied.dropped, dropped);
    prop_assert_eq!(fused.items, before - dropped);
    prop_assert_eq!(fused.items, count(signal, &fused.rope.to_bytes()).unwrap());
    // What several steps would drop is counted by one of them: in one walk by the one that drops it higher up.
    let sum = |toys: &[Arc<Toy>]| toys.iter().map(|t| t.dropped.load(Ordering::Relaxed)).sum::<usize>();
    prop_assert_eq!((sum(&fused_toys), sum(&toys)), (dropped, dropped));
    Ok(())
}

trait Scopes {
    fn fill_scopes(&mut self);
}

macro_rules! scopes {
    ($request:ty, $groups:ident, $scopes:ident) => {
        impl Scopes for $request {
            fn fill_scopes(&mut self) {
                for scope in self.$groups.iter_mut().flat_map(|group| &mut group.$scopes) {
                    scope.scope.get_or_insert_default();
                }
            }
        }
    };
}

scopes!(ExportTraceServiceRequest, resource_spans, scope_spans);
scopes!(ExportMetricsServiceRequest, resource_metrics, scope_metrics);
scopes!(ExportLogsServiceRequest, resource_logs, scope_logs);

fn arb_toys() -> impl Strategy<Value = Vec<(u64, bool)>> {
    proptest::collection::vec(any::<(u64, bool)>(), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn traces(
        bytes in arb_wire(Signal::Traces, arb_traces()),
        toys in arb_toys(),
        processors in arb_processors(Signal::Traces),
    ) {
        one_walk_is_many::<ExportTraceServiceRequest>(Signal::Traces, &bytes, &toys, &processors)?;
    }

    #[test]
    fn metrics(
        bytes in arb_wire(Signal::Metrics, arb_metrics()),
        toys in arb_toys(),
        processors in arb_processors(Signal::Metrics),
    ) {
        one_walk_is_many::<ExportMetricsServiceRequest>(Signal::Metrics, &bytes, &toys, &processors)?;
    }

    #[test]
    fn logs(
        bytes in arb_wire(Signal::Logs, arb_logs()),
        toys in arb_toys(),
        processors in arb_processors(Signal::Logs),
    ) {
        one_walk_is_many::<ExportLogsServiceRequest>(Signal::Logs, &bytes, &toys, &processors)?;
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in arb_wire(Signal::Traces, arb_traces()),
        seed in any::<u64>(),
        toys in arb_toys(),
    ) {
        let mut bytes = bytes;
        mutate(&mut bytes, seed);
        for signal in Signal::ALL {
            let mut batch = batch(signal, &[&bytes]);
            batch.items = count(signal, &bytes).unwrap_or(7);
            let (edits, _) = chain(signal, &toys, &[]);
            let applied = Program::new(signal, edits).apply(&mut batch);
            prop_assert!(applied.changed || batch.rope.to_bytes() == bytes);
        }
    }
}

type Act = fn(&mut Message<'_>, &mut StepCx<'_>) -> Result<Fate, WireError>;

/// One rule, given as a function.
struct Rule(Levels, Act);

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rule")
    }
}

impl Rewrite for Rule {
    fn levels(&self, _signal: Signal) -> Levels {
        self.0
    }

    fn drops(&self) -> bool {
        true
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        self.1(message, cx)
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Two resources; in the first, two scopes of two spans with two events each, in the second one.
fn spans() -> ExportTraceServiceRequest {
    use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
    let event =
        |name: String| span::Event { name, attributes: vec![attribute("e", "x")], ..Default::default() };
    let span = |name: &str| Span {
        name: name.to_owned(),
        attributes: vec![attribute("a", name)],
        events: (0..2).map(|i| event(format!("{name}.{i}"))).collect(),
        ..Span::default()
    };
    let scope = |name: &str, spans| ScopeSpans {
        scope: Some(InstrumentationScope { name: name.to_owned(), ..Default::default() }),
        spans,
        ..ScopeSpans::default()
    };
    let resource = |name: &str, scope_spans| ResourceSpans {
        resource: Some(Resource { attributes: vec![attribute("r", name)], ..Resource::default() }),
        scope_spans,
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![
            resource(
                "one",
                vec![scope("s1", vec![span("a"), span("b")]), scope("s2", vec![span("c"), span("d")])],
            ),
            resource("two", vec![scope("s3", vec![span("e")])]),
        ],
    }
}

/// `resource[scope(span event event) …] …` with attributes that were set in braces.
fn outline(request: &ExportTraceServiceRequest) -> String {
    let set = |attributes: &[KeyValue]| match attributes.iter().any(|a| a.key == "set") {
        true => "{set}",
        false => "",
    };
    let mut out = String::new();
    for group in &request.resource_spans {
        let resource = group.resource.as_ref().unwrap();
        out += &format!("{}[", set(&resource.attributes));
        for scope in &group.scope_spans {
            let identity = scope.scope.clone().unwrap_or_default();
            out += &format!("{}{}(", identity.name, set(&identity.attributes));
            for span in &scope.spans {
                let events: Vec<String> =
                    span.events.iter().map(|e| format!("{}{}", e.name, set(&e.attributes))).collect();
                out += &format!("{}{}:{} ", span.name, set(&span.attributes), events.join(","));
            }
            out += ")";
        }
        out += "] ";
    }
    out
}

#[test]
fn each_level_is_changed_and_dropped_where_it_stands() {
    fn name<'m>(message: &'m Message<'_>) -> &'m [u8] {
        let name = match message.kind() {
            Kind::Scope => 1,
            Kind::Event => 2,
            _ => 5,
        };
        message.field(name).unwrap().map(|v| v.bytes().unwrap()).unwrap_or_default()
    }
    fn set(message: &mut Message<'_>) -> Result<Fate, WireError> {
        message.set_attribute(b"set", &text("x"))?;
        Ok(Fate::Keep)
    }
    let cases: &[(&str, Levels, Act, &str, usize)] = &[
        (
            "resources are dropped",
            Levels::RESOURCE,
            |m, _| Ok(if m.attribute(b"r") == Some(&text("one")) { Fate::Drop } else { Fate::Keep }),
            "[s3(e:e.0,e.1 )] ",
            4,
        ),
        (
            "scopes are dropped, and resources that have none left",
            Levels::SCOPE,
            |m, _| Ok(if matches!(name(m), b"s1" | b"s3") { Fate::Drop } else { Fate::Keep }),
            "[s2(c:c.0,c.1 d:d.0,d.1 )] ",
            3,
        ),
        (
            "spans are dropped, and scopes that have none left",
            Levels::ITEM,
            |m, _| Ok(if matches!(name(m), b"a" | b"b" | b"d") { Fate::Drop } else { Fate::Keep }),
            "[s2(c:c.0,c.1 )] [s3(e:e.0,e.1 )] ",
            3,
        ),
        (
            "spans stay without their events",
            Levels::EVENT,
            |m, _| {
                Ok(if name(m).ends_with(b".0") || name(m).starts_with(b"e") {
                    Fate::Drop
                } else {
                    Fate::Keep
                })
            },
            "[s1(a:a.1 b:b.1 )s2(c:c.1 d:d.1 )] [s3(e: )] ",
            0,
        ),
        (
            "resources are changed",
            Levels::RESOURCE,
            |m, _| set(m),
            "{set}[s1(a:a.0,a.1 b:b.0,b.1 )s2(c:c.0,c.1 d:d.0,d.1 )] {set}[s3(e:e.0,e.1 )] ",
            0,
        ),
        (
            "scopes are changed",
            Levels::SCOPE,
            |m, _| set(m),
            "[s1{set}(a:a.0,a.1 b:b.0,b.1 )s2{set}(c:c.0,c.1 d:d.0,d.1 )] [s3{set}(e:e.0,e.1 )] ",
            0,
        ),
        (
            "spans are changed where the scope is kept",
            Levels::SCOPE.and(Levels::ITEM),
            |m, _| match m.kind() {
                Kind::Scope if name(m) == b"s2" => Ok(Fate::Keep),
                Kind::Scope => Ok(Fate::Skip),
                _ => set(m),
            },
            "[s1(a:a.0,a.1 b:b.0,b.1 )s2(c{set}:c.0,c.1 d{set}:d.0,d.1 )] [s3(e:e.0,e.1 )] ",
            0,
        ),
        (
            "events are changed with their span",
            Levels::ITEM.and(Levels::EVENT),
            |m, _| match m.kind() {
                Kind::Span if name(m) != b"d" => Ok(Fate::Skip),
                Kind::Span => {
                    m.set_field(5, Value::Bytes(b"renamed"))?;
                    Ok(Fate::Keep)
                }
                _ => set(m),
            },
            "[s1(a:a.0,a.1 b:b.0,b.1 )s2(c:c.0,c.1 renamed:d.0{set},d.1{set} )] [s3(e:e.0,e.1 )] ",
            0,
        ),
        ("everything goes", Levels::ITEM, |_, _| Ok(Fate::Drop), "", 5),
    ];
    for (name, levels, act, want, gone) in cases {
        let mut batch = counted(Signal::Traces, &spans().encode_to_vec());
        let applied =
            Program::new(Signal::Traces, vec![Edit::rules(Arc::new(Rule(*levels, *act)))]).apply(&mut batch);
        let got = ExportTraceServiceRequest::decode(batch.rope.to_bytes()).unwrap();
        assert_eq!(outline(&got), *want, "{name}");
        assert_eq!((applied.dropped, batch.items), (*gone, 5 - gone), "{name}");
    }
}

#[test]
fn a_refused_batch_stays_as_it_was() {
    let act: Act = |m, cx| {
        m.set_attribute(b"set", &text("x"))?;
        if m.attribute(b"a") == Some(&text("d")) {
            *cx.refuse = Some("no".to_owned());
        }
        Ok(Fate::Keep)
    };
    let bytes = spans().encode_to_vec();
    let mut batch = counted(Signal::Traces, &bytes);
    let applied =
        Program::new(Signal::Traces, vec![Edit::rules(Arc::new(Rule(Levels::ITEM, act)))]).apply(&mut batch);
    assert_eq!(applied, Applied { refused: Some("no".to_owned()), ..Applied::default() });
    assert_eq!((batch.rope.to_bytes(), batch.items), (Bytes::from(bytes), 5));
}

#[test]
fn a_metric_that_loses_its_points_goes_and_its_fields_change_around_them() {
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
    };
    let metric = |name: &str, points: &[&str]| {
        let point = |p: &&str| NumberDataPoint { attributes: vec![attribute("p", p)], ..Default::default() };
        let data_points = points.iter().map(point).collect();
        Metric {
            name: name.to_owned(),
            unit: "s".to_owned(),
            data: Some(metric::Data::Gauge(Gauge { data_points })),
            ..Metric::default()
        }
    };
    let metrics = vec![metric("m1", &["x", "y"]), metric("m2", &["x"]), metric("m3", &["y", "z"])];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }],
    };
    let act: Act = |m, _| {
        if m.kind() == Kind::Metric {
            m.set_field(1, Value::Bytes(b"a much longer name than before, so that lengths grow"))?;
            m.set_field(2, Value::Bytes(b"described"))?;
            m.clear_field(3)?;
            return Ok(Fate::Keep);
        }
        Ok(if m.attribute(b"p") == Some(&text("x")) { Fate::Drop } else { Fate::Keep })
    };
    let mut batch = counted(Signal::Metrics, &request.encode_to_vec());
    let levels = Levels::METRIC.and(Levels::ITEM);
    let applied =
        Program::new(Signal::Metrics, vec![Edit::rules(Arc::new(Rule(levels, act)))]).apply(&mut batch);
    let mut want = request;
    let metrics = &mut want.resource_metrics[0].scope_metrics[0].metrics;
    metrics.remove(1);
    for metric in metrics {
        metric.name = "a much longer name than before, so that lengths grow".to_owned();
        metric.description = "described".to_owned();
        metric.unit.clear();
        let Some(metric::Data::Gauge(gauge)) = &mut metric.data else { panic!("a gauge") };
        gauge.data_points.retain(|p| p.attributes[0] != attribute("p", "x"));
    }
    assert_eq!(ExportMetricsServiceRequest::decode(batch.rope.to_bytes()).unwrap(), want);
    assert_eq!((applied.dropped, batch.items), (2, 3));
}
