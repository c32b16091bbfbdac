//! Arguments of functions: which is which, and those that have to be written out.

use regex::bytes::{Regex, RegexBuilder};

use crate::ottl::ParseError;
use crate::ottl::ast::{Argument, Node, NodeKind};
use crate::ottl::eval::Expr;
use crate::ottl::functions::Param;
use crate::ottl::value::Ty;
use crate::relabel::pattern::translate;

/// The most memory a compiled expression may take.
const SIZE_LIMIT: usize = 8 << 20;

/// The argument of each parameter: first those without names, then those with.
pub(in crate::ottl) fn bind<'n>(
    function: &str,
    params: &[Param],
    args: &'n [Argument],
    at: usize,
) -> Result<Vec<Option<&'n Node>>, ParseError> {
    let mut bound: Vec<Option<&Node>> = vec![None; params.len()];
    for (i, arg) in args.iter().enumerate() {
        let place = match &arg.name {
            None => i,
            Some(name) => match params.iter().position(|param| same_name(param.name, name)) {
                Some(place) => place,
                None => {
                    let error =
                        ParseError::new(arg.value.at, format!("{function} has no argument \"{name}\""));
                    return Err(error.hint(usage(function, params)));
                }
            },
        };
        match bound.get_mut(place) {
            None => {
                let error =
                    ParseError::new(arg.value.at, format!("{function} takes {}", count(params.len())));
                return Err(error.hint(usage(function, params)));
            }
            Some(Some(_)) => {
                let name = params.get(place).map_or("", |param| param.name);
                return Err(ParseError::new(arg.value.at, format!("the argument \"{name}\" is given twice")));
            }
            Some(slot) => *slot = Some(&arg.value),
        }
    }
    if let Some((missing, _)) = params.iter().zip(&bound).find(|(p, arg)| !p.optional && arg.is_none()) {
        let error = ParseError::new(at, format!("{function} needs the argument \"{}\"", missing.name));
        return Err(error.hint(usage(function, params)));
    }
    Ok(bound)
}

fn count(n: usize) -> String {
    match n {
        0 => "no arguments".to_owned(),
        1 => "one argument".to_owned(),
        n => format!("at most {n} arguments"),
    }
}

/// Names are the same in any case, with and without underscores.
fn same_name(a: &str, b: &str) -> bool {
    let plain = |s: &str| s.replace('_', "").to_ascii_lowercase();
    plain(a) == plain(b)
}

pub(in crate::ottl) fn usage(function: &str, params: &[Param]) -> String {
    let names: Vec<String> = params
        .iter()
        .map(|param| if param.optional { format!("[{}]", param.name) } else { param.name.to_owned() })
        .collect();
    format!("it is called as {function}({})", names.join(", "))
}

pub(in crate::ottl) fn check_type(
    expr: &Expr,
    types: &[Ty],
    function: &str,
    param: &Param,
    at: usize,
) -> Result<(), ParseError> {
    // Time and duration are nothing that can be stored or shown.
    let ty = expr.ty();
    if ty.may_be(types) {
        return Ok(());
    }
    let wanted: Vec<&str> = types.iter().map(|ty| ty.name()).collect();
    let message =
        format!("\"{}\" of {function} must be {}, not {}", param.name, wanted.join(" or "), ty.name());
    Err(ParseError::new(at, message))
}

pub(super) fn number(expr: &Expr, at: usize) -> Result<(), ParseError> {
    if expr.ty().may_be(&[Ty::Int, Ty::Double, Ty::Time, Ty::Duration]) && expr.ty() != Ty::Nil {
        return Ok(());
    }
    Err(ParseError::new(at, format!("{} cannot be used in arithmetic", expr.ty().name())))
}

/// A string that is written out.
pub(in crate::ottl) fn text(node: &Node) -> Result<&str, ParseError> {
    match &node.kind {
        NodeKind::Str(text) => Ok(text),
        _ => Err(ParseError::new(
            node.at,
            "a string is needed here, written out; a computed one is not supported",
        )),
    }
}

/// One of these words, written out.
pub(in crate::ottl) fn word<'n>(node: &'n Node, words: &[&str]) -> Result<&'n str, ParseError> {
    let text = text(node)?;
    if words.contains(&text) {
        return Ok(text);
    }
    let error = ParseError::new(node.at, format!("\"{text}\" is not supported here"));
    Err(error.hint(format!("write one of: {}", words.join(", "))))
}

/// A regular expression that is written out.
pub(in crate::ottl) fn regex(node: &Node) -> Result<Regex, ParseError> {
    compile_regex(&translate(text(node)?)).map_err(|why| ParseError::new(node.at, why))
}

pub(in crate::ottl) fn compile_regex(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(SIZE_LIMIT).build().map_err(|why| {
        let text = why.to_string();
        let last = text.lines().last().unwrap_or_default();
        format!("not a regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
    })
}
