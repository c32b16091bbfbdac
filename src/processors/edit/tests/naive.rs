//! The slow, obvious version: processors one after another over typed requests.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use regex::Regex;
use sha2::{Digest as _, Sha256};

use crate::config::types::Any;
use crate::pdata::{ClientInfo, Signal};
use crate::processors::edit::{Action, ActionKind, ConvertedType, Edit};
use crate::processors::matching::*;

/// A processor as configured.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a handful of them in a test")]
pub(super) enum Processor {
    Resource(Vec<Action>),
    Attributes { actions: Vec<Action>, include: Option<MatchConfig>, exclude: Option<MatchConfig> },
}

/// What an item is, as far as criteria ask.
#[derive(Default)]
pub(super) struct Item<'a> {
    resource: &'a [KeyValue],
    scope: Option<&'a InstrumentationScope>,
    span: Option<(&'a str, i32)>,
    metric: Option<&'a str>,
    log: Option<(&'a str, i32, Option<&'a AnyValue>)>,
}

/// Calls a function with every item and its attributes.
pub(super) type Visit<'f> = &'f mut dyn FnMut(&Item<'_>, &mut Vec<KeyValue>);

/// A typed request of one signal.
pub(super) trait Naive: Sized {
    fn clone_of(&self) -> Self;
    fn resources(&mut self) -> Vec<&mut Option<Resource>>;
    fn items(&mut self, visit: Visit<'_>);
    /// Attributes without a value and with an empty value are the same, and so are no resource and an empty one.
    fn normalize(&mut self) {
        let fill = |attrs: &mut Vec<KeyValue>| {
            for kv in attrs {
                kv.value.get_or_insert_default();
            }
        };
        for resource in self.resources() {
            fill(&mut resource.get_or_insert_default().attributes);
        }
        self.items(&mut |_, attrs| fill(attrs));
    }
}

pub(super) struct Request;

impl Request {
    pub(super) fn decodes(signal: Signal, bytes: &[u8]) -> bool {
        match signal {
            Signal::Traces => ExportTraceServiceRequest::decode(bytes).is_ok(),
            Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).is_ok(),
            Signal::Logs => ExportLogsServiceRequest::decode(bytes).is_ok(),
        }
    }
}

fn attributes_of(resource: &Option<Resource>) -> Vec<KeyValue> {
    resource.as_ref().map(|r| r.attributes.clone()).unwrap_or_default()
}

impl Naive for ExportTraceServiceRequest {
    fn clone_of(&self) -> Self {
        self.clone()
    }
    fn resources(&mut self) -> Vec<&mut Option<Resource>> {
        self.resource_spans.iter_mut().map(|g| &mut g.resource).collect()
    }
    fn items(&mut self, visit: Visit<'_>) {
        for group in &mut self.resource_spans {
            let resource = attributes_of(&group.resource);
            for scope in &mut group.scope_spans {
                for span in &mut scope.spans {
                    let item = Item {
                        resource: &resource,
                        scope: scope.scope.as_ref(),
                        span: Some((&span.name, span.kind)),
                        ..Default::default()
                    };
                    visit(&item, &mut span.attributes);
                }
            }
        }
    }
}

impl Naive for ExportLogsServiceRequest {
    fn clone_of(&self) -> Self {
        self.clone()
    }
    fn resources(&mut self) -> Vec<&mut Option<Resource>> {
        self.resource_logs.iter_mut().map(|g| &mut g.resource).collect()
    }
    fn items(&mut self, visit: Visit<'_>) {
        for group in &mut self.resource_logs {
            let resource = attributes_of(&group.resource);
            for scope in &mut group.scope_logs {
                for log in &mut scope.log_records {
                    let item = Item {
                        resource: &resource,
                        scope: scope.scope.as_ref(),
                        log: Some((&log.severity_text, log.severity_number, log.body.as_ref())),
                        ..Default::default()
                    };
                    visit(&item, &mut log.attributes);
                }
            }
        }
    }
}

impl Naive for ExportMetricsServiceRequest {
    fn clone_of(&self) -> Self {
        self.clone()
    }
    fn resources(&mut self) -> Vec<&mut Option<Resource>> {
        self.resource_metrics.iter_mut().map(|g| &mut g.resource).collect()
    }
    fn items(&mut self, visit: Visit<'_>) {
        for group in &mut self.resource_metrics {
            let resource = attributes_of(&group.resource);
            for scope in &mut group.scope_metrics {
                for metric in &mut scope.metrics {
                    let item = Item {
                        resource: &resource,
                        scope: scope.scope.as_ref(),
                        metric: Some(&metric.name),
                        ..Default::default()
                    };
                    match &mut metric.data {
                        Some(Data::Gauge(d)) => each(&mut d.data_points, |p| visit(&item, &mut p.attributes)),
                        Some(Data::Sum(d)) => each(&mut d.data_points, |p| visit(&item, &mut p.attributes)),
                        Some(Data::Histogram(d)) => {
                            each(&mut d.data_points, |p| visit(&item, &mut p.attributes))
                        }
                        Some(Data::ExponentialHistogram(d)) => {
                            each(&mut d.data_points, |p| visit(&item, &mut p.attributes));
                        }
                        Some(Data::Summary(d)) => {
                            each(&mut d.data_points, |p| visit(&item, &mut p.attributes))
                        }
                        None => {}
                    }
                }
            }
        }
    }
}

fn each<T>(points: &mut [T], mut visit: impl FnMut(&mut T)) {
    for point in points {
        visit(point);
    }
}

impl Processor {
    pub(super) fn edit(&self, signal: Signal) -> Edit {
        self.try_edit(signal).unwrap()
    }

    /// `None` if the criteria do not fit the signal.
    pub(super) fn try_edit(&self, signal: Signal) -> Option<Edit> {
        let ops = |actions: &[Action]| actions.iter().map(|a| a.compile().unwrap()).collect();
        Some(match self {
            Processor::Resource(actions) => Edit::resource(ops(actions)),
            Processor::Attributes { actions, include, exclude } => {
                Edit::items(Matcher::new(include.as_ref(), exclude.as_ref(), signal).ok()?, ops(actions))
            }
        })
    }

    pub(super) fn run(&self, _signal: Signal, request: &mut impl Naive, client: &ClientInfo) {
        match self {
            Processor::Resource(actions) => {
                for resource in request.resources() {
                    let mut attrs = resource.as_ref().map(|r| r.attributes.clone()).unwrap_or_default();
                    for action in actions {
                        act(action, &mut attrs, client);
                    }
                    if resource.is_some() || !attrs.is_empty() {
                        resource.get_or_insert_default().attributes = attrs;
                    }
                }
            }
            Processor::Attributes { actions, include, exclude } => request.items(&mut |item, attrs| {
                let include = include.as_ref().is_none_or(|m| matches_item(m, item, attrs));
                let exclude = exclude.as_ref().is_some_and(|m| matches_item(m, item, attrs));
                if include && !exclude {
                    for action in actions {
                        act(action, attrs, client);
                    }
                }
            }),
        }
    }
}

fn find<'a>(attrs: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
    static EMPTY: AnyValue = AnyValue { value: None };
    attrs.iter().find(|kv| kv.key == key).map(|kv| kv.value.as_ref().unwrap_or(&EMPTY))
}

fn put(attrs: &mut Vec<KeyValue>, key: &str, value: AnyValue) {
    match attrs.iter_mut().find(|kv| kv.key == key) {
        Some(kv) => kv.value = Some(value),
        None => attrs.push(KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }),
    }
}

fn string(text: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.into())) }
}

fn act(action: &Action, attrs: &mut Vec<KeyValue>, client: &ClientInfo) {
    let key = action.key.as_str();
    let selected = |k: &str| {
        (!key.is_empty() && k == key)
            || (!action.pattern.is_empty() && Regex::new(&action.pattern).unwrap().is_match(k))
    };
    match action.action.unwrap() {
        kind @ (ActionKind::Insert | ActionKind::Update | ActionKind::Upsert) => {
            let value = if !action.from_attribute.is_empty() {
                find(attrs, &action.from_attribute).cloned()
            } else if !action.from_context.is_empty() {
                match action.from_context.as_str() {
                    "metadata.Tenant" | "tenant" => Some(string("one;two")),
                    "auth.subject" => Some(string("me")),
                    "client.address" => {
                        assert!(client.address.is_some());
                        Some(string("::1"))
                    }
                    _ => None,
                }
            } else {
                Some(typed(&action.value))
            };
            let present = find(attrs, key).is_some();
            let Some(value) = value else { return };
            match kind {
                ActionKind::Insert if present => {}
                ActionKind::Update if !present => {}
                _ => put(attrs, key, value),
            }
        }
        ActionKind::Delete => attrs.retain(|kv| !selected(&kv.key)),
        ActionKind::Hash => {
            for kv in attrs.iter_mut().filter(|kv| selected(&kv.key)) {
                let bytes = match kv.value.as_ref().and_then(|v| v.value.clone()) {
                    Some(Value::StringValue(s)) => s.into_bytes(),
                    Some(Value::BytesValue(b)) => b,
                    Some(Value::BoolValue(b)) => vec![u8::from(b)],
                    Some(Value::IntValue(i)) => i.to_le_bytes().to_vec(),
                    Some(Value::DoubleValue(d)) => d.to_le_bytes().to_vec(),
                    _ => Vec::new(),
                };
                let hex: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                kv.value = Some(string(if bytes.is_empty() { String::new() } else { hex }));
            }
        }
        ActionKind::Extract => {
            let Some(AnyValue { value: Some(Value::StringValue(text)) }) = find(attrs, key).cloned() else {
                return;
            };
            let regex = Regex::new(&action.pattern).unwrap();
            let Some(found) = regex.captures(&text) else { return };
            for name in regex.capture_names().flatten() {
                put(attrs, name, string(found.name(name).map_or("", |m| m.as_str())));
            }
        }
        ActionKind::Convert => {
            let Some(value) = find(attrs, key).cloned() else { return };
            if let Some(converted) = convert(&value, action.converted_type.unwrap()) {
                put(attrs, key, converted);
            }
        }
    }
}

fn typed(value: &Any) -> AnyValue {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    AnyValue {
        value: match value {
            Any::Null => None,
            Any::Bool(b) => Some(Value::BoolValue(*b)),
            Any::Int(i) => Some(Value::IntValue(*i)),
            Any::Float(f) => Some(Value::DoubleValue(*f)),
            Any::Str(s) => Some(Value::StringValue(s.clone())),
            Any::List(items) => {
                Some(Value::ArrayValue(ArrayValue { values: items.iter().map(typed).collect() }))
            }
            Any::Map(entries) => Some(Value::KvlistValue(KeyValueList {
                values: entries
                    .iter()
                    .map(|(k, v)| KeyValue { key: k.clone(), value: Some(typed(v)), ..Default::default() })
                    .collect(),
            })),
        },
    }
}

fn convert(value: &AnyValue, to: ConvertedType) -> Option<AnyValue> {
    let value = value.value.as_ref();
    let out = match (to, value) {
        (ConvertedType::Int, Some(Value::StringValue(s))) => Value::IntValue(s.parse().ok()?),
        (ConvertedType::Int, Some(Value::DoubleValue(d))) => Value::IntValue(*d as i64),
        (ConvertedType::Int, Some(Value::BoolValue(b))) => Value::IntValue(i64::from(*b)),
        (ConvertedType::Double, Some(Value::StringValue(s))) => Value::DoubleValue(s.parse().ok()?),
        (ConvertedType::Double, Some(Value::IntValue(i))) => Value::DoubleValue(*i as f64),
        (ConvertedType::Double, Some(Value::BoolValue(b))) => Value::DoubleValue(if *b { 1.0 } else { 0.0 }),
        (ConvertedType::Str, Some(Value::StringValue(_))) => return None,
        (ConvertedType::Str, None) => Value::StringValue(String::new()),
        (ConvertedType::Str, Some(Value::BytesValue(b))) => Value::StringValue(base64(b)),
        (ConvertedType::Str, Some(v)) => Value::StringValue(match v {
            Value::ArrayValue(_) | Value::KvlistValue(_) => json(v),
            v => scalar_text(v)?,
        }),
        _ => return None,
    };
    Some(AnyValue { value: Some(out) })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Generated doubles lie between 1e-6 and 1e21 or are zero, or nearly so: plain notation will do.
fn scalar_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::StringValue(s) => s.clone(),
        Value::BoolValue(b) => b.to_string(),
        Value::IntValue(i) => i.to_string(),
        Value::DoubleValue(d) => d.to_string(),
        _ => return None,
    })
}

fn json(value: &Value) -> String {
    let quote = |s: &str| serde_json::to_string(s).unwrap();
    let inner = |v: &AnyValue| v.value.as_ref().map_or("null".to_owned(), json);
    match value {
        Value::StringValue(s) => quote(s),
        Value::BytesValue(b) => quote(&base64(b)),
        Value::ArrayValue(list) => {
            format!("[{}]", list.values.iter().map(inner).collect::<Vec<_>>().join(","))
        }
        Value::KvlistValue(map) => {
            let mut entries = std::collections::BTreeMap::new();
            for kv in &map.values {
                entries.insert(kv.key.clone(), kv.value.as_ref().map_or("null".to_owned(), inner));
            }
            let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{}:{v}", quote(k))).collect();
            format!("{{{}}}", entries.join(","))
        }
        other => scalar_text(other).unwrap_or_else(|| "null".to_owned()),
    }
}

fn matches_item(config: &MatchConfig, item: &Item<'_>, attrs: &[KeyValue]) -> bool {
    let strict = config.match_type == Some(MatchType::Strict);
    let one = |want: &str, is: &str| if strict { want == is } else { Regex::new(want).unwrap().is_match(is) };
    let any = |list: &[String], is: Option<&str>| {
        list.is_empty() || is.is_some_and(|is| list.iter().any(|want| one(want, is)))
    };
    let all = |list: &[AttributeCriterion], attrs: &[KeyValue]| {
        list.iter().all(|c| {
            find(attrs, &c.key).is_some_and(|is| match &c.value {
                Any::Null => true,
                want if strict => *is == typed(want),
                Any::Str(want) => {
                    is.value.as_ref().and_then(scalar_text).is_some_and(|text| one(want, &text))
                }
                _ => unreachable!(),
            })
        })
    };
    let kinds = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
    let kind = item.span.map(|(_, k)| format!("SPAN_KIND_{}", kinds[k as usize]));
    let service = find(item.resource, "service.name").and_then(|v| v.value.as_ref()).and_then(scalar_text);
    let body = item.log.and_then(|(_, _, body)| match body.and_then(|b| b.value.as_ref()) {
        Some(Value::StringValue(s)) => Some(s.as_str()),
        _ => None,
    });
    let scope = item.scope.cloned().unwrap_or_default();
    any(&config.services, service.as_deref())
        && any(&config.span_names, item.span.map(|(n, _)| n))
        && any(&config.span_kinds, kind.as_deref())
        && any(&config.log_bodies, body)
        && any(&config.log_severity_texts, item.log.map(|(t, _, _)| t))
        && config.log_severity_number.as_ref().is_none_or(|s| match item.log.unwrap().1 {
            0 => s.match_undefined,
            n => n >= s.min.0,
        })
        && any(&config.metric_names, item.metric)
        && all(&config.attributes, attrs)
        && all(&config.resources, item.resource)
        && (config.libraries.is_empty()
            || config.libraries.iter().any(|l| {
                one(&l.name, &scope.name) && l.version.as_ref().is_none_or(|v| one(v, &scope.version))
            }))
}

fn arb_key() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("d"), Just("service.name")].prop_map(str::to_owned)
}

fn arb_any() -> impl Strategy<Value = Any> {
    let leaf = prop_oneof![
        3 => "[a-z0-9]{0,6}".prop_map(Any::Str),
        1 => any::<bool>().prop_map(Any::Bool),
        1 => any::<i64>().prop_map(Any::Int),
        1 => (-1e9..1e9f64).prop_map(Any::Float),
        1 => Just(Any::Str("x".repeat(200))),
    ];
    leaf.prop_recursive(2, 4, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Any::List),
            vec(("[a-c]", inner), 0..3).prop_map(Any::Map)
        ]
    })
}

fn arb_action() -> impl Strategy<Value = Action> {
    let sets = prop_oneof![Just(ActionKind::Insert), Just(ActionKind::Update), Just(ActionKind::Upsert)];
    let source = prop_oneof![
        4 => arb_any().prop_map(|value| Action { value, ..Default::default() }),
        2 => arb_key().prop_map(|from_attribute| Action { from_attribute, ..Default::default() }),
        1 => prop_oneof![
            Just("metadata.Tenant"), Just("tenant"), Just("metadata.none"), Just("auth.subject"),
            Just("auth.nothing"), Just("client.address"),
        ].prop_map(|c| Action { from_context: c.to_owned(), ..Default::default() }),
    ];
    let put = (sets, arb_key(), source).prop_map(|(kind, key, source)| Action {
        action: Some(kind),
        key,
        ..source
    });
    let select = (
        any::<bool>(),
        option::of(arb_key()),
        option::of(prop_oneof![Just("^[a-b]$"), Just("\\."), Just("^$")]),
    )
        .prop_filter("one of both", |(_, key, pattern)| key.is_some() || pattern.is_some())
        .prop_map(|(delete, key, pattern)| Action {
            action: Some(if delete { ActionKind::Delete } else { ActionKind::Hash }),
            key: key.unwrap_or_default(),
            pattern: pattern.unwrap_or_default().to_owned(),
            ..Default::default()
        });
    let extract = (
        arb_key(),
        prop_oneof![
            Just("^(?P<a>.)(?P<d>.*)$"),
            Just("(?P<first>[a-m]+)|(?P<second>[0-9]+)"),
            Just("(?P<b>..)(?P<c>.)?"),
        ],
    )
        .prop_map(|(key, pattern)| Action {
            action: Some(ActionKind::Extract),
            key,
            pattern: pattern.to_owned(),
            ..Default::default()
        });
    let convert = (
        arb_key(),
        prop_oneof![Just(ConvertedType::Int), Just(ConvertedType::Double), Just(ConvertedType::Str)],
    )
        .prop_map(|(key, to)| Action {
            action: Some(ActionKind::Convert),
            key,
            converted_type: Some(to),
            ..Default::default()
        });
    prop_oneof![4 => put, 2 => select, 1 => extract, 1 => convert]
}

fn arb_criterion(strict: bool) -> impl Strategy<Value = AttributeCriterion> {
    let value = if strict {
        option::of(arb_any().prop_filter("scalar", |v| !matches!(v, Any::List(_) | Any::Map(_))))
            .prop_map(Option::unwrap_or_default)
            .boxed()
    } else {
        option::of(Just(Any::Str("[a-f0-5]".to_owned()))).prop_map(Option::unwrap_or_default).boxed()
    };
    (arb_key(), value).prop_map(|(key, value)| AttributeCriterion { key, value })
}

fn arb_match(signal: Signal) -> impl Strategy<Value = MatchConfig> {
    any::<bool>().prop_flat_map(move |strict| {
        let word = move || {
            let word = if strict {
                prop_oneof![Just(""), Just("a")].boxed()
            } else {
                prop_oneof![Just("[a-f]"), Just("^$"), Just("z")].boxed()
            };
            vec(word.prop_map(str::to_owned), 1..3)
        };
        let kind =
            prop_oneof![Just("SPAN_KIND_SERVER"), Just("SPAN_KIND_UNSPECIFIED"), Just("SPAN_KIND_CLIENT")];
        let base = MatchConfig {
            match_type: Some(if strict { MatchType::Strict } else { MatchType::Regexp }),
            ..Default::default()
        };
        let library = (word(), option::of(word())).prop_map(|(name, version)| LibraryCriterion {
            name: name[0].clone(),
            version: version.map(|v| v[0].clone()),
        });
        let shared = (
            option::weighted(0.2, word()),
            option::weighted(0.4, vec(arb_criterion(strict), 1..3)),
            option::weighted(0.4, vec(library, 1..3)),
        );
        let own = match signal {
            Signal::Traces => (
                option::weighted(0.3, word()),
                option::weighted(0.3, vec(kind.prop_map(str::to_owned), 1..3)),
                option::weighted(0.4, vec(arb_criterion(strict), 1..3)),
            )
                .prop_map(|(names, kinds, attributes)| MatchConfig {
                    span_names: names.unwrap_or_default(),
                    span_kinds: kinds.unwrap_or_default(),
                    attributes: attributes.unwrap_or_default(),
                    ..Default::default()
                })
                .boxed(),
            Signal::Logs => (
                option::weighted(0.3, word()),
                option::weighted(0.3, word()),
                option::weighted(0.3, (0..25i32, any::<bool>())),
                option::weighted(0.3, vec(arb_criterion(strict), 1..3)),
            )
                .prop_map(|(bodies, texts, severity, attributes)| MatchConfig {
                    log_bodies: bodies.unwrap_or_default(),
                    log_severity_texts: texts.unwrap_or_default(),
                    log_severity_number: severity.map(|(min, match_undefined)| SeverityCriterion {
                        min: SeverityNumber(min),
                        match_undefined,
                    }),
                    attributes: attributes.unwrap_or_default(),
                    ..Default::default()
                })
                .boxed(),
            Signal::Metrics => option::weighted(0.6, word())
                .prop_map(|names| MatchConfig {
                    metric_names: names.unwrap_or_default(),
                    ..Default::default()
                })
                .boxed(),
        };
        (own, shared)
            .prop_map(move |(own, (services, resources, libraries))| MatchConfig {
                match_type: base.match_type,
                services: services.unwrap_or_default(),
                resources: resources.unwrap_or_default(),
                libraries: libraries.unwrap_or_default(),
                ..own
            })
            .prop_filter("criteria", move |m| Matcher::new(Some(m), None, signal).is_ok())
    })
}

/// One to three processors.
pub(super) fn arb_processors(signal: Signal) -> impl Strategy<Value = Vec<Processor>> {
    let actions = || vec(arb_action(), 1..4);
    let attributes =
        (actions(), option::weighted(0.4, arb_match(signal)), option::weighted(0.3, arb_match(signal)))
            .prop_map(|(actions, include, exclude)| Processor::Attributes { actions, include, exclude });
    vec(prop_oneof![2 => actions().prop_map(Processor::Resource), 3 => attributes], 1..4)
}
