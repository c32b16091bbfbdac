//! Random programs on random requests do what a slow and obvious evaluator does on the decoded request.

use std::fmt::Write as _;

use proptest::prelude::{
    BoxedStrategy, Just, ProptestConfig, Strategy, prop_assert_eq, prop_oneof, proptest,
};
use proptest::sample::select;
use regex::Regex;

use super::*;
use crate::ottl::{Condition, ParseError, Statement};
use crate::pdata::testgen::{arb_logs, arb_traces, mutate, scramble};
use crate::processors::edit::value_text;

type V = Option<Value>;
type Res = Result<V, ()>;

#[derive(Debug, Clone)]
enum E {
    Lit(AnyValue),
    /// An attribute, and a key in it.
    Attr(Context, &'static str, Option<&'static str>),
    Field(Context, &'static str),
    Concat(Vec<E>, &'static str),
    Coalesce(Vec<E>),
    Len(Box<E>),
    Lower(Box<E>),
    Int(Box<E>),
    Split(Box<E>, &'static str),
    Add(Box<E>, Box<E>),
    List(Vec<E>),
}

#[derive(Debug, Clone)]
enum T {
    Const(bool),
    Compare(&'static str, E, E),
    IsMatch(E, &'static str),
    IsString(E),
    HasPrefix(E, &'static str),
    Contains(E, E),
    Not(Box<T>),
    And(Vec<T>),
    Or(Vec<T>),
}

#[derive(Debug, Clone)]
enum S {
    Set(E, E),
    DeleteKey(Option<&'static str>, &'static str),
    KeepKeys(Vec<&'static str>),
    DeleteMatching(&'static str),
    Limit(usize, Vec<&'static str>),
    Truncate(usize),
    Replace(E, &'static str, &'static str),
    ReplaceAll(&'static str, &'static str),
    Merge(E, &'static str),
}

#[derive(Debug, Clone)]
struct Group {
    context: Context,
    gates: Vec<T>,
    statements: Vec<(S, Option<T>)>,
}

// ---- as text

fn literal(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(s)) => format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\"")),
        Some(Value::ArrayValue(l)) => {
            format!("[{}]", l.values.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        Some(Value::KvlistValue(m)) => {
            let entry = |kv: &KeyValue| {
                format!("{}: {}", literal(&text(&kv.key)), literal(kv.value.as_ref().unwrap()))
            };
            format!("{{{}}}", m.values.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        _ => show(Some(value)),
    }
}

impl E {
    fn text(&self) -> String {
        let all = |parts: &[E]| parts.iter().map(E::text).collect::<Vec<_>>().join(", ");
        match self {
            E::Lit(value) => literal(value),
            E::Attr(context, key, None) => format!("{}.attributes[\"{key}\"]", context.name()),
            E::Attr(context, key, Some(inner)) => {
                format!("{}.attributes[\"{key}\"][\"{inner}\"]", context.name())
            }
            E::Field(context, name) => format!("{}.{name}", context.name()),
            E::Concat(parts, delimiter) => format!("Concat([{}], \"{delimiter}\")", all(parts)),
            E::Coalesce(parts) => format!("Coalesce([{}])", all(parts)),
            E::Len(inner) => format!("Len({})", inner.text()),
            E::Lower(inner) => format!("ToLowerCase({})", inner.text()),
            E::Int(inner) => format!("Int({})", inner.text()),
            E::Split(inner, delimiter) => format!("Split({}, \"{delimiter}\")", inner.text()),
            E::Add(a, b) => format!("({} + {})", a.text(), b.text()),
            E::List(parts) => format!("[{}]", all(parts)),
        }
    }
}

impl T {
    fn text(&self) -> String {
        let all = |parts: &[T], word: &str| {
            let parts: Vec<_> = parts.iter().map(T::text).collect();
            format!("({})", parts.join(word))
        };
        match self {
            T::Const(b) => b.to_string(),
            T::Compare(op, a, b) => format!("{} {op} {}", a.text(), b.text()),
            T::IsMatch(a, pattern) => format!("IsMatch({}, \"{pattern}\")", a.text()),
            T::IsString(a) => format!("IsString({})", a.text()),
            T::HasPrefix(a, prefix) => format!("HasPrefix({}, \"{prefix}\")", a.text()),
            T::Contains(a, b) => format!("ContainsValue({}, {})", a.text(), b.text()),
            T::Not(inner) => format!("not ({})", inner.text()),
            T::And(parts) => all(parts, " and "),
            T::Or(parts) => all(parts, " or "),
        }
    }
}

impl S {
    fn text(&self, context: Context, filter: Option<&T>) -> String {
        let own = context.name();
        let keys = |keys: &[&str]| format!("{keys:?}");
        let mut out = match self {
            S::Set(target, value) => format!("set({}, {})", target.text(), value.text()),
            S::DeleteKey(None, key) => format!("delete_key({own}.attributes, \"{key}\")"),
            S::DeleteKey(Some(outer), key) => format!("delete_key({own}.attributes[\"{outer}\"], \"{key}\")"),
            S::KeepKeys(list) => format!("keep_keys({own}.attributes, {})", keys(list)),
            S::DeleteMatching(regex) => format!("delete_matching_keys({own}.attributes, \"{regex}\")"),
            S::Limit(n, first) => format!("limit({own}.attributes, {n}, {})", keys(first)),
            S::Truncate(n) => format!("truncate_all({own}.attributes, {n})"),
            S::Replace(target, regex, with) => {
                format!("replace_pattern({}, \"{regex}\", \"{with}\")", target.text())
            }
            S::ReplaceAll(regex, with) => {
                format!("replace_all_patterns({own}.attributes, \"value\", \"{regex}\", \"{with}\")")
            }
            S::Merge(source, how) => format!("merge_maps({own}.attributes, {}, \"{how}\")", source.text()),
        };
        if let Some(filter) = filter {
            let _ = write!(out, " where {}", filter.text());
        }
        out
    }
}

// ---- the obvious way

/// A decoded message.
trait Decoded {
    fn attributes(&mut self) -> &mut Vec<KeyValue>;
    fn field(&self, name: &str) -> V;
    fn set(&mut self, name: &str, value: Value) -> Result<(), ()>;
}

fn string(s: &str) -> V {
    Some(Value::StringValue(s.to_owned()))
}

fn put(to: &mut String, value: Value) -> Result<(), ()> {
    let Value::StringValue(s) = value else { return Err(()) };
    *to = s;
    Ok(())
}

fn put_int(to: &mut i32, value: Value) -> Result<(), ()> {
    let Value::IntValue(i) = value else { return Err(()) };
    *to = i as i32;
    Ok(())
}

impl Decoded for Resource {
    fn attributes(&mut self) -> &mut Vec<KeyValue> {
        &mut self.attributes
    }
    fn field(&self, _: &str) -> V {
        unreachable!()
    }
    fn set(&mut self, _: &str, _: Value) -> Result<(), ()> {
        unreachable!()
    }
}

impl Decoded for InstrumentationScope {
    fn attributes(&mut self) -> &mut Vec<KeyValue> {
        &mut self.attributes
    }
    fn field(&self, name: &str) -> V {
        string(if name == "name" { &self.name } else { &self.version })
    }
    fn set(&mut self, name: &str, value: Value) -> Result<(), ()> {
        put(if name == "name" { &mut self.name } else { &mut self.version }, value)
    }
}

impl Decoded for LogRecord {
    fn attributes(&mut self) -> &mut Vec<KeyValue> {
        &mut self.attributes
    }
    fn field(&self, name: &str) -> V {
        match name {
            "body" => self.body.clone().and_then(|v| v.value),
            "severity_text" => string(&self.severity_text),
            _ => Some(Value::IntValue(self.severity_number.into())),
        }
    }
    fn set(&mut self, name: &str, value: Value) -> Result<(), ()> {
        match name {
            "body" => self.body = Some(any(value)),
            "severity_text" => put(&mut self.severity_text, value)?,
            _ => put_int(&mut self.severity_number, value)?,
        }
        Ok(())
    }
}

impl Decoded for Span {
    fn attributes(&mut self) -> &mut Vec<KeyValue> {
        &mut self.attributes
    }
    fn field(&self, name: &str) -> V {
        match name {
            "name" => string(&self.name),
            "kind" => Some(Value::IntValue(self.kind.into())),
            "status.code" => Some(Value::IntValue(self.status.as_ref().map_or(0, |s| s.code).into())),
            _ => string(self.status.as_ref().map_or("", |s| &s.message)),
        }
    }
    fn set(&mut self, name: &str, value: Value) -> Result<(), ()> {
        match (name, &value) {
            ("name", _) => put(&mut self.name, value),
            ("kind", _) => put_int(&mut self.kind, value),
            ("status.code", Value::IntValue(_)) => {
                put_int(&mut self.status.get_or_insert_default().code, value)
            }
            ("status.message", Value::StringValue(_)) => {
                put(&mut self.status.get_or_insert_default().message, value)
            }
            _ => Err(()),
        }
    }
}

impl Decoded for span::Event {
    fn attributes(&mut self) -> &mut Vec<KeyValue> {
        &mut self.attributes
    }
    fn field(&self, _: &str) -> V {
        string(&self.name)
    }
    fn set(&mut self, _: &str, value: Value) -> Result<(), ()> {
        put(&mut self.name, value)
    }
}

/// The message at hand, last, and those around it.
type Stack<'a> = Vec<(Context, &'a mut dyn Decoded)>;

fn of<'s>(stack: &'s mut Stack<'_>, context: Context) -> &'s mut dyn Decoded {
    &mut *stack.iter_mut().find(|(c, _)| *c == context).unwrap().1
}

fn value_of(kv: &KeyValue) -> V {
    kv.value.clone().and_then(|v| v.value)
}

fn first<'k>(entries: &'k [KeyValue], key: &str) -> Option<&'k KeyValue> {
    entries.iter().find(|kv| kv.key == key)
}

fn as_text(value: &V) -> Option<String> {
    Some(match value.as_ref()? {
        Value::StringValue(s) => s.clone(),
        Value::BytesValue(b) => b.iter().map(|b| format!("{b:02x}")).collect(),
        other => value_text(&any(other.clone()).encode_to_vec()).unwrap(),
    })
}

fn same(a: &V, b: &V) -> bool {
    match (a, b) {
        (Some(Value::ArrayValue(a)), Some(Value::ArrayValue(b))) => {
            a.values.len() == b.values.len()
                && a.values.iter().zip(&b.values).all(|(a, b)| same(&a.value, &b.value))
        }
        (Some(Value::KvlistValue(a)), Some(Value::KvlistValue(b))) => {
            a.values.len() == b.values.len()
                && a.values.iter().all(|kv| {
                    first(&b.values, &kv.key).is_some_and(|other| same(&value_of(kv), &value_of(other)))
                })
        }
        _ => a == b,
    }
}

fn compared(op: &str, a: &V, b: &V) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let number = |v: &V| match v {
        Some(Value::IntValue(i)) => Some(*i as f64),
        Some(Value::DoubleValue(d)) => Some(*d),
        _ => None,
    };
    let order = match (a, b) {
        (Some(Value::StringValue(a)), Some(Value::StringValue(b))) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Some(Value::BytesValue(a)), Some(Value::BytesValue(b))) => Some(a.cmp(b)),
        (Some(Value::BoolValue(a)), Some(Value::BoolValue(b))) => Some(a.cmp(b)),
        (Some(Value::IntValue(a)), Some(Value::IntValue(b))) => Some(a.cmp(b)),
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => same(a, b).then_some(Equal).filter(|_| matches!(op, "==" | "!=")),
        },
    };
    match op {
        "==" => order == Some(Equal),
        "!=" => order != Some(Equal),
        "<" => order == Some(Less),
        "<=" => matches!(order, Some(Less | Equal)),
        ">" => order == Some(Greater),
        _ => matches!(order, Some(Greater | Equal)),
    }
}

impl E {
    fn eval(&self, stack: &mut Stack<'_>) -> Res {
        let own_text = |value: V| match value {
            Some(Value::StringValue(s)) => Ok(s),
            _ => Err(()),
        };
        Ok(match self {
            E::Lit(value) => value.value.clone(),
            E::Attr(context, key, inner) => {
                let own = stack.last().unwrap().0 == *context;
                let attributes = of(stack, *context).attributes();
                let value = match first(attributes, key) {
                    Some(kv) => value_of(kv),
                    None => return Ok(None),
                };
                match (inner, value) {
                    (None, value) => value,
                    (Some(inner), Some(Value::KvlistValue(map))) => {
                        first(&map.values, inner).and_then(value_of)
                    }
                    // Above, it counts as missing.
                    _ if own => return Err(()),
                    _ => None,
                }
            }
            E::Field(context, name) => of(stack, *context).field(name),
            E::Concat(parts, delimiter) => {
                let mut texts = Vec::new();
                for part in parts {
                    texts.push(as_text(&part.eval(stack)?).unwrap_or_else(|| "<nil>".to_owned()));
                }
                string(&texts.join(delimiter))
            }
            E::Coalesce(parts) => {
                for part in parts {
                    let value = part.eval(stack)?;
                    if value.is_some() {
                        return Ok(value);
                    }
                }
                None
            }
            E::Len(inner) => Some(Value::IntValue(match inner.eval(stack)? {
                Some(Value::StringValue(s)) => s.len(),
                Some(Value::ArrayValue(l)) => l.values.len(),
                Some(Value::KvlistValue(m)) => m.values.len(),
                _ => return Err(()),
            } as i64)),
            E::Lower(inner) => string(&own_text(inner.eval(stack)?)?.to_lowercase()),
            E::Int(inner) => match inner.eval(stack)? {
                Some(Value::StringValue(s)) => s.parse().ok().map(Value::IntValue),
                Some(Value::BoolValue(b)) => Some(Value::IntValue(b.into())),
                Some(Value::DoubleValue(d)) => Some(Value::IntValue(d as i64)),
                value @ (None | Some(Value::IntValue(_))) => value,
                _ => return Err(()),
            },
            E::Split(inner, delimiter) => {
                let whole = own_text(inner.eval(stack)?)?;
                list(whole.split(delimiter).map(text).collect()).value
            }
            E::Add(a, b) => match (a.eval(stack)?, b.eval(stack)?) {
                (Some(Value::IntValue(a)), Some(Value::IntValue(b))) => {
                    Some(Value::IntValue(a.wrapping_add(b)))
                }
                (Some(Value::DoubleValue(a)), Some(Value::DoubleValue(b))) => Some(Value::DoubleValue(a + b)),
                _ => return Err(()),
            },
            E::List(parts) => {
                let mut values = Vec::new();
                for part in parts {
                    values.push(AnyValue { value: part.eval(stack)? });
                }
                list(values).value
            }
        })
    }
}

impl T {
    fn eval(&self, stack: &mut Stack<'_>) -> Result<bool, ()> {
        Ok(match self {
            T::Const(b) => *b,
            T::Compare(op, a, b) => compared(op, &a.eval(stack)?, &b.eval(stack)?),
            T::IsMatch(a, pattern) => {
                as_text(&a.eval(stack)?).is_some_and(|text| Regex::new(pattern).unwrap().is_match(&text))
            }
            T::IsString(a) => matches!(a.eval(stack)?, Some(Value::StringValue(_))),
            T::HasPrefix(a, prefix) => match a.eval(stack)? {
                Some(Value::StringValue(s)) => s.starts_with(prefix),
                _ => return Err(()),
            },
            T::Contains(a, b) => match (a.eval(stack)?, b.eval(stack)?) {
                (Some(Value::ArrayValue(l)), wanted) => {
                    l.values.iter().any(|v| compared("==", &v.value, &wanted))
                }
                _ => return Err(()),
            },
            T::Not(inner) => !inner.eval(stack)?,
            T::And(parts) => {
                for part in parts {
                    if !part.eval(stack)? {
                        return Ok(false);
                    }
                }
                true
            }
            T::Or(parts) => {
                for part in parts {
                    if part.eval(stack)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }
}

fn set_in(attributes: &mut Vec<KeyValue>, key: &str, value: Value) {
    match attributes.iter_mut().find(|kv| kv.key == key) {
        Some(kv) => kv.value = Some(any(value)),
        None => attributes.push(pair(key, any(value))),
    }
}

fn write(stack: &mut Stack<'_>, target: &E, value: V) -> Result<(), ()> {
    let Some(value) = value else { return Ok(()) };
    let own = &mut *stack.last_mut().unwrap().1;
    match target {
        E::Field(_, name) => own.set(name, value),
        E::Attr(_, key, None) => {
            set_in(own.attributes(), key, value);
            Ok(())
        }
        E::Attr(_, key, Some(inner)) => {
            let mut map = match first(own.attributes(), key).and_then(value_of) {
                Some(Value::KvlistValue(map)) => map,
                None => KeyValueList::default(),
                _ => return Err(()),
            };
            set_in(&mut map.values, inner, value);
            set_in(own.attributes(), key, Value::KvlistValue(map));
            Ok(())
        }
        _ => unreachable!(),
    }
}

impl S {
    fn run(&self, stack: &mut Stack<'_>) -> Result<(), ()> {
        match self {
            S::Set(target, value) => {
                let value = value.eval(stack)?;
                return write(stack, target, value);
            }
            S::Replace(target, regex, with) => {
                if let Some(Value::StringValue(s)) = target.eval(stack)? {
                    let regex = Regex::new(regex).unwrap();
                    if regex.is_match(&s) {
                        return write(stack, target, string(&regex.replace_all(&s, *with)));
                    }
                }
                return Ok(());
            }
            S::Merge(source, how) => {
                let Some(Value::KvlistValue(map)) = source.eval(stack)? else { return Err(()) };
                let attributes = stack.last_mut().unwrap().1.attributes();
                for kv in map.values {
                    let there = attributes.iter_mut().find(|own| own.key == kv.key);
                    let value = AnyValue { value: value_of(&kv) };
                    match there {
                        Some(own) if *how != "insert" => own.value = Some(value),
                        None if *how != "update" => attributes.push(pair(&kv.key, value)),
                        _ => {}
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        let attributes = stack.last_mut().unwrap().1.attributes();
        match self {
            S::DeleteKey(None, key) => attributes.retain(|kv| kv.key != *key),
            S::DeleteKey(Some(outer), key) => match attributes.iter_mut().find(|kv| kv.key == *outer) {
                Some(KeyValue { value: Some(AnyValue { value: Some(Value::KvlistValue(map)) }), .. }) => {
                    map.values.retain(|kv| kv.key != *key);
                }
                _ => return Err(()),
            },
            S::KeepKeys(keys) => attributes.retain(|kv| keys.contains(&kv.key.as_str())),
            S::DeleteMatching(regex) => attributes.retain(|kv| !Regex::new(regex).unwrap().is_match(&kv.key)),
            S::Limit(n, keys) => {
                if attributes.len() > *n {
                    let preferred = attributes.iter().filter(|kv| keys.contains(&kv.key.as_str())).count();
                    let mut room = n.saturating_sub(preferred);
                    attributes.retain(|kv| {
                        if keys.contains(&kv.key.as_str()) {
                            return true;
                        }
                        let stays = room > 0;
                        room = room.saturating_sub(1);
                        stays
                    });
                }
            }
            S::Truncate(n) => {
                for kv in attributes {
                    if let Some(AnyValue { value: Some(Value::StringValue(s)) }) = &mut kv.value
                        && s.len() > *n
                    {
                        let end = (0..=*n).rev().find(|at| s.is_char_boundary(*at)).unwrap();
                        s.truncate(end);
                    }
                }
            }
            S::ReplaceAll(regex, with) => {
                let regex = Regex::new(regex).unwrap();
                for kv in attributes {
                    if let Some(AnyValue { value: Some(Value::StringValue(s)) }) = &mut kv.value {
                        *s = regex.replace_all(s, *with).into_owned();
                    }
                }
            }
            _ => unreachable!(),
        }
        Ok(())
    }
}

impl Group {
    fn run(&self, mut stack: Stack<'_>) {
        if stack.last().unwrap().0 != self.context {
            return;
        }
        if !self.gates.is_empty() && !self.gates.iter().any(|gate| gate.eval(&mut stack) == Ok(true)) {
            return;
        }
        for (statement, filter) in &self.statements {
            if filter.as_ref().is_none_or(|filter| filter.eval(&mut stack) == Ok(true)) {
                let _ = statement.run(&mut stack);
            }
        }
    }

    /// Leaves out what types forbid, which is refused when it is read.
    fn compile(mut self, signal: Signal) -> (Self, StatementGroup) {
        let context = self.context;
        let fits = |result: Result<(), ParseError>, text: &str| match result {
            Ok(()) => true,
            Err(why) => {
                let known = ["must be", "arithmetic", "changes a text"];
                assert!(known.iter().any(|k| why.message.contains(k)), "{text}: {why}");
                false
            }
        };
        self.gates.retain(|gate| {
            let text = gate.text();
            fits(Condition::parse(&text, Some(context), signal).map(drop), &text)
        });
        self.statements.retain(|(statement, filter)| {
            let text = statement.text(context, filter.as_ref());
            fits(Statement::parse(&text, Some(context), signal).map(drop), &text)
        });
        let gates: Vec<String> = self.gates.iter().map(T::text).collect();
        let statements: Vec<String> =
            self.statements.iter().map(|(s, filter)| s.text(context, filter.as_ref())).collect();
        let group = StatementGroup::parse(Some(context), &gates, &statements, signal, ErrorMode::Silent);
        (self, group.unwrap())
    }
}

/// A message that may be absent: it is there if anything was changed.
fn with<M: Default + PartialEq + Clone>(message: &mut Option<M>, f: impl FnOnce(&mut M)) {
    let mut own = message.clone().unwrap_or_default();
    f(&mut own);
    if message.is_some() || own != M::default() {
        *message = Some(own);
    }
}

/// An empty message is as good as none.
fn normalize<M: Default + PartialEq>(message: &mut Option<M>) {
    message.take_if(|own| *own == M::default());
}

fn run_logs(groups: &[Group], request: &mut ExportLogsServiceRequest) {
    for group in groups {
        for of_resource in &mut request.resource_logs {
            with(&mut of_resource.resource, |resource| {
                group.run(vec![(Context::Resource, resource)]);
                for of_scope in &mut of_resource.scope_logs {
                    with(&mut of_scope.scope, |scope| {
                        group.run(vec![(Context::Resource, resource), (Context::Scope, scope)]);
                        for log in &mut of_scope.log_records {
                            group.run(vec![
                                (Context::Resource, resource),
                                (Context::Scope, scope),
                                (Context::Log, log),
                            ]);
                        }
                    });
                }
            });
        }
    }
}

fn run_traces(groups: &[Group], request: &mut ExportTraceServiceRequest) {
    for group in groups {
        for of_resource in &mut request.resource_spans {
            with(&mut of_resource.resource, |resource| {
                group.run(vec![(Context::Resource, resource)]);
                for of_scope in &mut of_resource.scope_spans {
                    with(&mut of_scope.scope, |scope| {
                        group.run(vec![(Context::Resource, resource), (Context::Scope, scope)]);
                        for span in &mut of_scope.spans {
                            group.run(vec![
                                (Context::Resource, resource),
                                (Context::Scope, scope),
                                (Context::Span, span),
                            ]);
                            let mut events = std::mem::take(&mut span.events);
                            for event in &mut events {
                                group.run(vec![
                                    (Context::Resource, resource),
                                    (Context::Scope, scope),
                                    (Context::Span, span),
                                    (Context::SpanEvent, event),
                                ]);
                            }
                            span.events = events;
                        }
                    });
                }
            });
        }
    }
}

// ---- random programs

const KEYS: [&str; 5] = ["a", "b", "c", "d", "x.y"];

fn contexts(signal: Signal) -> &'static [Context] {
    match signal {
        Signal::Logs => &[Context::Resource, Context::Scope, Context::Log],
        _ => &[Context::Resource, Context::Scope, Context::Span, Context::SpanEvent],
    }
}

fn fields(context: Context) -> &'static [&'static str] {
    match context {
        Context::Scope => &["name", "version"],
        Context::Log => &["body", "severity_text", "severity_number"],
        Context::Span => &["name", "kind", "status.code", "status.message"],
        Context::SpanEvent => &["name"],
        _ => &[],
    }
}

fn key() -> impl Strategy<Value = &'static str> {
    select(&KEYS[..])
}

/// Contexts from the highest to this one.
fn above(signal: Signal, context: Context) -> &'static [Context] {
    let all = contexts(signal);
    &all[..=all.iter().position(|c| *c == context).unwrap()]
}

fn path(contexts: &'static [Context]) -> BoxedStrategy<E> {
    let attr = (select(contexts), key(), proptest::option::weighted(0.2, key()));
    let mut choices = vec![attr.prop_map(|(c, key, inner)| E::Attr(c, key, inner)).boxed()];
    let fields: Vec<E> = contexts.iter().flat_map(|c| fields(*c).iter().map(|f| E::Field(*c, f))).collect();
    if !fields.is_empty() {
        choices.push(select(fields).boxed());
    }
    proptest::strategy::Union::new(choices).boxed()
}

fn leaf() -> impl Strategy<Value = E> {
    let literal = prop_oneof![
        3 => select(&["", "a", "abc", "a.b", "ÄB", "12", "one two"][..]).prop_map(text),
        2 => (-3..4i64).prop_map(int),
        1 => select(&[0.0, 1.5, -2.0][..]).prop_map(|d| any(Value::DoubleValue(d))),
        1 => proptest::bool::ANY.prop_map(|b| any(Value::BoolValue(b))),
        1 => Just(AnyValue { value: None }),
        1 => Just(any(Value::BytesValue(vec![1, 2]))),
        1 => (key(), key()).prop_map(|(a, b)| {
            let mut entries = vec![pair(a, text("new"))];
            if a != b {
                entries.push(pair(b, list(vec![int(1), text("z")])));
            }
            map(entries)
        }),
    ];
    literal.prop_map(E::Lit)
}

fn expr(contexts: &'static [Context]) -> impl Strategy<Value = E> {
    prop_oneof![2 => leaf(), 5 => path(contexts)].prop_recursive(3, 12, 3, |inner| {
        let some = proptest::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            (some.clone(), select(&["", ", "][..])).prop_map(|(e, d)| E::Concat(e, d)),
            some.clone().prop_map(E::Coalesce),
            some.prop_map(E::List),
            inner.clone().prop_map(|e| E::Len(Box::new(e))),
            inner.clone().prop_map(|e| E::Lower(Box::new(e))),
            inner.clone().prop_map(|e| E::Int(Box::new(e))),
            (inner.clone(), select(&[".", "/"][..])).prop_map(|(e, d)| E::Split(Box::new(e), d)),
            (inner.clone(), inner).prop_map(|(a, b)| E::Add(Box::new(a), Box::new(b))),
        ]
    })
}

const REGEXES: [&str; 6] = ["a", "^[a-m]+", "(.)(.)", "e$", "[ .]", "x"];

fn test(contexts: &'static [Context]) -> impl Strategy<Value = T> {
    let op = select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let leaf = prop_oneof![
        1 => proptest::bool::ANY.prop_map(T::Const),
        4 => (op, expr(contexts), expr(contexts)).prop_map(|(op, a, b)| T::Compare(op, a, b)),
        2 => (expr(contexts), select(&REGEXES[..])).prop_map(|(e, r)| T::IsMatch(e, r)),
        1 => expr(contexts).prop_map(T::IsString),
        1 => (expr(contexts), select(&["a", ""][..])).prop_map(|(e, p)| T::HasPrefix(e, p)),
        1 => (expr(contexts), expr(contexts)).prop_map(|(a, b)| T::Contains(a, b)),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let some = proptest::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            inner.prop_map(|t| T::Not(Box::new(t))),
            some.clone().prop_map(T::And),
            some.prop_map(T::Or),
        ]
    })
}

fn editor(own: &'static [Context], contexts: &'static [Context]) -> impl Strategy<Value = S> {
    let keys = || proptest::collection::vec(key(), 0..3);
    let regex = || (select(&REGEXES[..]), select(&["", "<$1>", "${2}$$"][..]));
    prop_oneof![
        6 => (path(own), expr(contexts)).prop_map(|(t, v)| S::Set(t, v)),
        1 => (proptest::option::of(key()), key()).prop_map(|(o, k)| S::DeleteKey(o, k)),
        1 => keys().prop_map(S::KeepKeys),
        1 => select(&REGEXES[..]).prop_map(S::DeleteMatching),
        1 => (2..4usize, keys()).prop_map(|(n, keys)| S::Limit(n, keys)),
        1 => (0..5usize).prop_map(S::Truncate),
        2 => (path(own), regex()).prop_map(|(t, (r, w))| S::Replace(t, r, w)),
        1 => regex().prop_map(|(r, w)| S::ReplaceAll(r, w)),
        2 => (expr(contexts), select(&["insert", "update", "upsert"][..])).prop_map(|(e, h)| S::Merge(e, h)),
    ]
}

fn group(signal: Signal) -> impl Strategy<Value = Group> {
    select(contexts(signal)).prop_flat_map(move |context| {
        let all = above(signal, context);
        let own = &all[all.len() - 1..];
        let statement = (editor(own, all), proptest::option::weighted(0.3, test(all)));
        let gates = proptest::collection::vec(test(all), 0..2);
        (gates, proptest::collection::vec(statement, 1..4)).prop_map(move |(gates, statements)| Group {
            context,
            gates,
            statements,
        })
    })
}

fn compiled(groups: Vec<Group>, signal: Signal) -> (Vec<Group>, Rules) {
    let both = groups.into_iter().map(|group| group.compile(signal));
    let (groups, compiled): (Vec<_>, Vec<_>) = both.unzip();
    (groups, Rules::transform("naive", signal, compiled))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_on_logs(
        request in arb_logs(),
        groups in proptest::collection::vec(group(Signal::Logs), 1..5),
        seed in proptest::num::u64::ANY,
    ) {
        let (groups, rules) = compiled(groups, Signal::Logs);
        let bytes = scramble(Signal::Logs, &request.encode_to_vec(), seed);
        let mut want = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        run_logs(&groups, &mut want);
        let (out, applied) = apply(Signal::Logs, vec![rules], &bytes);
        prop_assert_eq!(applied.malformed, 0);
        let mut got = ExportLogsServiceRequest::decode(&out[..]).unwrap();
        for group in got.resource_logs.iter_mut().chain(&mut want.resource_logs) {
            normalize(&mut group.resource);
            group.scope_logs.iter_mut().for_each(|group| normalize(&mut group.scope));
        }
        prop_assert_eq!(got, want);
    }

    #[test]
    fn programs_on_traces(
        request in arb_traces(),
        groups in proptest::collection::vec(group(Signal::Traces), 1..5),
        seed in proptest::num::u64::ANY,
    ) {
        let (groups, rules) = compiled(groups, Signal::Traces);
        let bytes = scramble(Signal::Traces, &request.encode_to_vec(), seed);
        let mut want = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
        run_traces(&groups, &mut want);
        let (out, applied) = apply(Signal::Traces, vec![rules], &bytes);
        prop_assert_eq!(applied.malformed, 0);
        let mut got = ExportTraceServiceRequest::decode(&out[..]).unwrap();
        for group in got.resource_spans.iter_mut().chain(&mut want.resource_spans) {
            normalize(&mut group.resource);
            group.scope_spans.iter_mut().for_each(|group| normalize(&mut group.scope));
        }
        prop_assert_eq!(got, want);
    }

    #[test]
    fn conditions_drop_what_they_drop_in_decoded_logs(
        request in arb_logs(),
        condition in test(contexts(Signal::Logs)),
        keep in proptest::bool::ANY,
    ) {
        let parsed = ConditionGroup::parse(Some(Context::Log), &[condition.text()], Signal::Logs, ErrorMode::Silent);
        let Ok(parsed) = parsed else { return Ok(()) };
        let rules = Rules::filter("naive", Signal::Logs, vec![parsed], keep, None);
        let (out, _) = apply(Signal::Logs, vec![rules], &request.encode_to_vec());
        let got = ExportLogsServiceRequest::decode(&out[..]).unwrap();
        let records = |request: &ExportLogsServiceRequest| -> Vec<LogRecord> {
            let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
            scopes.flat_map(|s| s.log_records.clone()).collect()
        };
        let mut want = request;
        for of_resource in &mut want.resource_logs {
            with(&mut of_resource.resource, |resource| {
                for of_scope in &mut of_resource.scope_logs {
                    with(&mut of_scope.scope, |scope| {
                        of_scope.log_records.retain_mut(|log| {
                            let mut stack: Stack<'_> =
                                vec![(Context::Resource, resource), (Context::Scope, scope), (Context::Log, log)];
                            (condition.eval(&mut stack) == Ok(true)) == keep
                        });
                    });
                }
            });
        }
        prop_assert_eq!(records(&got), records(&want));
    }

    #[test]
    fn any_bytes_are_safe(
        request in arb_traces(),
        groups in proptest::collection::vec(group(Signal::Traces), 1..4),
        seed in proptest::num::u64::ANY,
    ) {
        let (_, rules) = compiled(groups, Signal::Traces);
        let mut bytes = request.encode_to_vec();
        mutate(&mut bytes, seed);
        let (out, applied) = apply(Signal::Traces, vec![rules], &bytes);
        // What was readable still is, and nothing is lost.
        if let Ok(items) = crate::pdata::count(Signal::Traces, &bytes) {
            prop_assert_eq!(crate::pdata::count(Signal::Traces, &out), Ok(items));
        }
        prop_assert_eq!(applied.dropped, 0);
    }
}
