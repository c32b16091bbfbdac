//! A part of the language as data, and as text.

use std::fmt::Write as _;

use super::*;

#[derive(Debug, Clone)]
pub(super) enum E {
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
pub(super) enum T {
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
pub(super) enum S {
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
pub(super) struct Group {
    pub(super) context: Context,
    pub(super) gates: Vec<T>,
    pub(super) statements: Vec<(S, Option<T>)>,
}

pub(super) fn literal(value: &AnyValue) -> String {
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
    pub(super) fn text(&self) -> String {
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
    pub(super) fn text(&self) -> String {
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
    pub(super) fn text(&self, context: Context, filter: Option<&T>) -> String {
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

impl Group {
    /// Leaves out what types forbid, which is refused when it is read.
    pub(super) fn compile(mut self, signal: Signal) -> (Self, StatementGroup) {
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
