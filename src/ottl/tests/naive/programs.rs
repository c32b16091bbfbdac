//! Random conditions and statements.

use proptest::prelude::{BoxedStrategy, Just, Strategy, prop_oneof};
use proptest::sample::select;

use super::language::{E, Group, S, T};
use super::*;

pub(super) const KEYS: [&str; 5] = ["a", "b", "c", "d", "x.y"];

pub(super) fn contexts(signal: Signal) -> &'static [Context] {
    match signal {
        Signal::Logs => &[Context::Resource, Context::Scope, Context::Log],
        _ => &[Context::Resource, Context::Scope, Context::Span, Context::SpanEvent],
    }
}

pub(super) fn fields(context: Context) -> &'static [&'static str] {
    match context {
        Context::Scope => &["name", "version"],
        Context::Log => &["body", "severity_text", "severity_number"],
        Context::Span => &["name", "kind", "status.code", "status.message"],
        Context::SpanEvent => &["name"],
        _ => &[],
    }
}

pub(super) fn key() -> impl Strategy<Value = &'static str> {
    select(&KEYS[..])
}

/// Contexts from the highest to this one.
pub(super) fn above(signal: Signal, context: Context) -> &'static [Context] {
    let all = contexts(signal);
    &all[..=all.iter().position(|c| *c == context).unwrap()]
}

pub(super) fn path(contexts: &'static [Context]) -> BoxedStrategy<E> {
    let attr = (select(contexts), key(), proptest::option::weighted(0.2, key()));
    let mut choices = vec![attr.prop_map(|(c, key, inner)| E::Attr(c, key, inner)).boxed()];
    let fields: Vec<E> = contexts.iter().flat_map(|c| fields(*c).iter().map(|f| E::Field(*c, f))).collect();
    if !fields.is_empty() {
        choices.push(select(fields).boxed());
    }
    proptest::strategy::Union::new(choices).boxed()
}

pub(super) fn leaf() -> impl Strategy<Value = E> {
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

pub(super) fn expr(contexts: &'static [Context]) -> impl Strategy<Value = E> {
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

pub(super) const REGEXES: [&str; 6] = ["a", "^[a-m]+", "(.)(.)", "e$", "[ .]", "x"];

pub(super) fn test(contexts: &'static [Context]) -> impl Strategy<Value = T> {
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

pub(super) fn editor(own: &'static [Context], contexts: &'static [Context]) -> impl Strategy<Value = S> {
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

pub(super) fn group(signal: Signal) -> impl Strategy<Value = Group> {
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
