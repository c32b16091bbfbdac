//! The same part of the language, evaluated on decoded messages.

use regex::Regex;

use super::language::{E, Group, S, T};
use super::*;
use crate::processors::edit::value_text;

type V = Option<Value>;
type Res = Result<V, ()>;

/// A decoded message.
pub(super) trait Decoded {
    fn attributes(&mut self) -> &mut Vec<KeyValue>;
    fn field(&self, name: &str) -> V;
    fn set(&mut self, name: &str, value: Value) -> Result<(), ()>;
}

pub(super) fn string(s: &str) -> V {
    Some(Value::StringValue(s.to_owned()))
}

pub(super) fn put(to: &mut String, value: Value) -> Result<(), ()> {
    let Value::StringValue(s) = value else { return Err(()) };
    *to = s;
    Ok(())
}

pub(super) fn put_int(to: &mut i32, value: Value) -> Result<(), ()> {
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
pub(super) type Stack<'a> = Vec<(Context, &'a mut dyn Decoded)>;

pub(super) fn of<'s>(stack: &'s mut Stack<'_>, context: Context) -> &'s mut dyn Decoded {
    &mut *stack.iter_mut().find(|(c, _)| *c == context).unwrap().1
}

pub(super) fn value_of(kv: &KeyValue) -> V {
    kv.value.clone().and_then(|v| v.value)
}

pub(super) fn first<'k>(entries: &'k [KeyValue], key: &str) -> Option<&'k KeyValue> {
    entries.iter().find(|kv| kv.key == key)
}

pub(super) fn as_text(value: &V) -> Option<String> {
    Some(match value.as_ref()? {
        Value::StringValue(s) => s.clone(),
        Value::BytesValue(b) => b.iter().map(|b| format!("{b:02x}")).collect(),
        other => value_text(&any(other.clone()).encode_to_vec()).unwrap(),
    })
}

pub(super) fn same(a: &V, b: &V) -> bool {
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

pub(super) fn compared(op: &str, a: &V, b: &V) -> bool {
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
    pub(super) fn eval(&self, stack: &mut Stack<'_>) -> Res {
        let own_text = |value: V| match value {
            Some(Value::StringValue(s)) => Ok(s),
            _ => Err(()),
        };
        Ok(match self {
            E::Lit(value) => value.value.clone(),
            E::Attr(context, key, inner) => {
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
                    _ => return Err(()),
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
    pub(super) fn eval(&self, stack: &mut Stack<'_>) -> Result<bool, ()> {
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

pub(super) fn set_in(attributes: &mut Vec<KeyValue>, key: &str, value: Value) {
    match attributes.iter_mut().find(|kv| kv.key == key) {
        Some(kv) => kv.value = Some(any(value)),
        None => attributes.push(pair(key, any(value))),
    }
}

pub(super) fn write(stack: &mut Stack<'_>, target: &E, value: V) -> Result<(), ()> {
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
    pub(super) fn run(&self, stack: &mut Stack<'_>) -> Result<(), ()> {
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
    pub(super) fn run(&self, mut stack: Stack<'_>) {
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
}

/// A message that may be absent: it is there if anything was changed.
pub(super) fn with<M: Default + PartialEq + Clone>(message: &mut Option<M>, f: impl FnOnce(&mut M)) {
    let mut own = message.clone().unwrap_or_default();
    f(&mut own);
    if message.is_some() || own != M::default() {
        *message = Some(own);
    }
}

/// An empty message is as good as none, and a value that is absent as good as an empty one.
fn normalize<M: Decoded + Default + PartialEq>(message: &mut Option<M>) {
    message.take_if(|own| *own == M::default());
    if let Some(own) = message {
        fill(own.attributes());
    }
}

fn fill(attributes: &mut [KeyValue]) {
    attributes.iter_mut().for_each(|kv| fill_value(kv.value.get_or_insert_default()));
}

fn fill_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::KvlistValue(map)) => fill(&mut map.values),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(fill_value),
        _ => {}
    }
}

pub(super) fn normalize_logs(request: &mut ExportLogsServiceRequest) {
    for group in &mut request.resource_logs {
        normalize(&mut group.resource);
        for group in &mut group.scope_logs {
            normalize(&mut group.scope);
            for log in &mut group.log_records {
                fill(&mut log.attributes);
                log.body.iter_mut().for_each(fill_value);
            }
        }
    }
}

pub(super) fn normalize_traces(request: &mut ExportTraceServiceRequest) {
    for group in &mut request.resource_spans {
        normalize(&mut group.resource);
        for group in &mut group.scope_spans {
            normalize(&mut group.scope);
            for span in &mut group.spans {
                fill(&mut span.attributes);
                span.events.iter_mut().for_each(|event| fill(&mut event.attributes));
            }
        }
    }
}

pub(super) fn run_logs(groups: &[Group], request: &mut ExportLogsServiceRequest) {
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

pub(super) fn run_traces(groups: &[Group], request: &mut ExportTraceServiceRequest) {
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
