//! What converters are called, and with what.

use super::digest::Digest;
use crate::ottl::value::Ty;

/// What a converter is called, and how.
#[derive(Debug)]
pub(in crate::ottl) struct Sig {
    pub(in crate::ottl) name: &'static str,
    pub(in crate::ottl) func: Func,
    pub(in crate::ottl) params: &'static [Param],
    pub(in crate::ottl) ty: Ty,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::ottl) struct Param {
    pub(in crate::ottl) name: &'static str,
    pub(in crate::ottl) takes: Takes,
    pub(in crate::ottl) optional: bool,
}

/// What an argument may be.
#[derive(Debug, Clone, Copy)]
pub(in crate::ottl) enum Takes {
    /// A value, of one of these types as far as is known.
    Value(&'static [Ty]),
    /// A regular expression, written out.
    Regex,
    /// The same, with named groups.
    Groups,
    /// One of these words, written out.
    Word(&'static [&'static str]),
    /// A format, written out.
    Format,
    /// A duration, written out.
    Duration,
    /// An id of so many bytes, written out.
    Id(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ottl) enum Func {
    IsMatch,
    Is(Ty),
    IsRootSpan,
    HasPrefix,
    HasSuffix,
    Concat,
    Split,
    Substring,
    Len,
    Int,
    Double,
    Text,
    Bool,
    Lower,
    Upper,
    ConvertCase,
    Trim,
    TrimPrefix,
    TrimSuffix,
    Format,
    Digest(Digest),
    Hex,
    ParseJson,
    ParseKeyValue,
    ExtractPatterns,
    Coalesce,
    ContainsValue,
    Keys,
    Values,
    Index,
    /// An id or a duration, known when it is compiled.
    Literal,
    /// A time as a number of so many nanoseconds.
    Unix(i64),
    HasAttrKey,
    HasAttr,
}

const ANY: Takes = Takes::Value(&[Ty::Any]);
const STR: Takes = Takes::Value(&[Ty::Str]);
const INT: Takes = Takes::Value(&[Ty::Int]);
const LIST: Takes = Takes::Value(&[Ty::List]);
const MAP: Takes = Takes::Value(&[Ty::Map]);
const TIME: Takes = Takes::Value(&[Ty::Time]);

const fn p(name: &'static str, takes: Takes) -> Param {
    Param { name, takes, optional: false }
}

const fn opt(name: &'static str, takes: Takes) -> Param {
    Param { name, takes, optional: true }
}

const fn sig(name: &'static str, func: Func, params: &'static [Param], ty: Ty) -> Sig {
    Sig { name, func, params, ty }
}

const ONE: &[Param] = &[p("target", ANY)];
const ONE_VALUE: &[Param] = &[p("value", ANY)];
const ONE_STR: &[Param] = &[p("target", STR)];
const CASES: &[&str] = &["lower", "upper"];

/// All converters there are.
pub(in crate::ottl) static CONVERTERS: &[Sig] = &[
    sig("IsMatch", Func::IsMatch, &[p("target", ANY), p("pattern", Takes::Regex)], Ty::Bool),
    sig("IsString", Func::Is(Ty::Str), ONE, Ty::Bool),
    sig("IsInt", Func::Is(Ty::Int), ONE, Ty::Bool),
    sig("IsDouble", Func::Is(Ty::Double), ONE, Ty::Bool),
    sig("IsBool", Func::Is(Ty::Bool), ONE, Ty::Bool),
    sig("IsMap", Func::Is(Ty::Map), ONE, Ty::Bool),
    sig("IsList", Func::Is(Ty::List), ONE, Ty::Bool),
    sig("IsRootSpan", Func::IsRootSpan, &[], Ty::Bool),
    sig("HasPrefix", Func::HasPrefix, &[p("value", STR), p("prefix", STR)], Ty::Bool),
    sig("HasSuffix", Func::HasSuffix, &[p("value", STR), p("suffix", STR)], Ty::Bool),
    sig("Concat", Func::Concat, &[p("values", LIST), p("delimiter", STR)], Ty::Str),
    sig("Split", Func::Split, &[p("target", STR), p("delimiter", STR)], Ty::List),
    sig("Substring", Func::Substring, &[p("target", STR), p("start", INT), p("length", INT)], Ty::Str),
    sig("Len", Func::Len, &[p("target", Takes::Value(&[Ty::Str, Ty::List, Ty::Map]))], Ty::Int),
    sig("Int", Func::Int, ONE, Ty::Any),
    sig("Double", Func::Double, ONE, Ty::Any),
    sig("String", Func::Text, ONE, Ty::Any),
    sig("Bool", Func::Bool, ONE, Ty::Any),
    sig("ToLowerCase", Func::Lower, ONE_STR, Ty::Str),
    sig("ToUpperCase", Func::Upper, ONE_STR, Ty::Str),
    sig("ConvertCase", Func::ConvertCase, &[p("target", STR), p("toCase", Takes::Word(CASES))], Ty::Str),
    sig("Trim", Func::Trim, &[p("target", STR), opt("replacement", STR)], Ty::Str),
    sig("TrimPrefix", Func::TrimPrefix, &[p("target", STR), p("prefix", STR)], Ty::Str),
    sig("TrimSuffix", Func::TrimSuffix, &[p("target", STR), p("suffix", STR)], Ty::Str),
    sig("Format", Func::Format, &[p("format", Takes::Format), opt("args", LIST)], Ty::Str),
    sig("MD5", Func::Digest(Digest::Md5), ONE_STR, Ty::Str),
    sig("SHA1", Func::Digest(Digest::Sha1), ONE_STR, Ty::Str),
    sig("SHA256", Func::Digest(Digest::Sha256), ONE_STR, Ty::Str),
    sig("SHA512", Func::Digest(Digest::Sha512), ONE_STR, Ty::Str),
    sig("FNV", Func::Digest(Digest::Fnv), ONE_STR, Ty::Int),
    sig("Hex", Func::Hex, ONE_VALUE, Ty::Str),
    sig("ParseJSON", Func::ParseJson, ONE_STR, Ty::Any),
    sig(
        "ParseKeyValue",
        Func::ParseKeyValue,
        &[p("target", STR), opt("delimiter", STR), opt("pair_delimiter", STR)],
        Ty::Map,
    ),
    sig("ExtractPatterns", Func::ExtractPatterns, &[p("target", STR), p("pattern", Takes::Groups)], Ty::Map),
    sig("Coalesce", Func::Coalesce, &[p("values", LIST)], Ty::Any),
    sig("ContainsValue", Func::ContainsValue, &[p("target", LIST), p("item", ANY)], Ty::Bool),
    sig("Keys", Func::Keys, &[p("target", MAP)], Ty::List),
    sig("Values", Func::Values, &[p("target", MAP)], Ty::List),
    sig("Index", Func::Index, &[p("target", Takes::Value(&[Ty::Str, Ty::List])), p("value", ANY)], Ty::Int),
    sig("TraceID", Func::Literal, &[p("bytes", Takes::Id(16))], Ty::Bytes),
    sig("SpanID", Func::Literal, &[p("bytes", Takes::Id(8))], Ty::Bytes),
    sig("Duration", Func::Literal, &[p("duration", Takes::Duration)], Ty::Duration),
    sig("UnixNano", Func::Unix(1), &[p("time", TIME)], Ty::Int),
    sig("UnixMicro", Func::Unix(1_000), &[p("time", TIME)], Ty::Int),
    sig("UnixMilli", Func::Unix(1_000_000), &[p("time", TIME)], Ty::Int),
    sig("UnixSeconds", Func::Unix(1_000_000_000), &[p("time", TIME)], Ty::Int),
    sig("HasAttrKeyOnDatapoint", Func::HasAttrKey, &[p("key", STR)], Ty::Bool),
    sig("HasAttrOnDatapoint", Func::HasAttr, &[p("key", STR), p("expectedVal", STR)], Ty::Bool),
];

/// The signature of a converter.
pub(in crate::ottl) fn converter(name: &str) -> Option<&'static Sig> {
    CONVERTERS.iter().find(|sig| sig.name == name)
}
