//! `Format`: texts with verbs, the part of Go's that is in use.

use std::io::Write as _;

use bumpalo::Bump;

use crate::ottl::value::{Buf, Fault, Val, cuts_character, hex, items};

/// The widest field.
const MAX_WIDTH: usize = 100;

/// A part of a format.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::ottl) enum Piece {
    Text(Box<[u8]>),
    Verb { verb: char, left: bool, zero: bool, plus: bool, width: usize, precision: Option<usize> },
}

/// Takes a format apart; the offset in it and what is wrong there.
pub(in crate::ottl) fn pieces(format: &str) -> Result<Box<[Piece]>, (usize, String)> {
    let mut out = Vec::new();
    let mut text = String::new();
    let mut chars = format.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let (mut left, mut zero, mut plus) = (false, false, false);
        while let Some((_, flag)) = chars.next_if(|(_, c)| matches!(c, '-' | '0' | '+')) {
            match flag {
                '-' => left = true,
                '0' => zero = true,
                _ => plus = true,
            }
        }
        let number = |chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>| {
            let mut value: Option<usize> = None;
            while let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(10)) {
                chars.next();
                value = Some(value.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
            }
            value
        };
        let width = number(&mut chars).unwrap_or(0);
        let precision = chars.next_if(|(_, c)| *c == '.').map(|_| number(&mut chars).unwrap_or(0));
        if width > MAX_WIDTH || precision.is_some_and(|p| p > MAX_WIDTH) {
            return Err((at, format!("a width above {MAX_WIDTH} is not supported")));
        }
        match chars.next() {
            Some((_, '%')) => text.push('%'),
            Some((_, verb @ ('s' | 'v' | 'd' | 'f' | 'g' | 'e' | 'x' | 'X' | 'q' | 't'))) => {
                if !text.is_empty() {
                    out.push(Piece::Text(std::mem::take(&mut text).into_bytes().into()));
                }
                out.push(Piece::Verb { verb, left, zero, plus, width, precision });
            }
            Some((_, verb)) => return Err((at, format!("the verb %{verb} is not supported"))),
            None => return Err((at, "the format ends inside a verb".to_owned())),
        }
    }
    if !text.is_empty() {
        out.push(Piece::Text(text.into_bytes().into()));
    }
    Ok(out.into())
}

/// How many values a format takes.
pub(in crate::ottl) fn verbs(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| matches!(piece, Piece::Verb { .. })).count()
}

/// The text with the values of a list in the places of the verbs.
pub(super) fn render<'v>(pieces: &[Piece], list: &'v [u8], arena: &'v Bump) -> Result<&'v [u8], Fault> {
    let mut out = Buf::new_in(arena);
    let mut values = items(list);
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice_copy(text),
            Piece::Verb { verb, left, zero, plus, width, precision } => {
                let Some(any) = values.next() else {
                    return Err(Fault::Other("Format: there are fewer values than verbs"));
                };
                let value = Val::read(any?, arena)?;
                let (text, number) = rendered(*verb, *plus, *precision, value, arena)?;
                pad(&mut out, text, *width, *left, *zero && number);
            }
        }
    }
    Ok(out.into_bump_slice())
}

/// One value, and whether it is a number.
fn rendered<'v>(
    verb: char,
    plus: bool,
    precision: Option<usize>,
    value: Val<'v>,
    arena: &'v Bump,
) -> Result<(&'v [u8], bool), Fault> {
    let mut out: std::vec::Vec<u8> = Vec::new();
    let sign = |positive: bool| if plus && positive { "+" } else { "" };
    let number = |value: Val<'_>| match value {
        Val::Int(i) => Ok(i as f64),
        Val::Double(d) => Ok(d),
        other => Err(Fault::wrong("Format: %f", "a number", other)),
    };
    let written = match verb {
        'd' => match value {
            Val::Int(i) => write!(out, "{}{i}", sign(i >= 0)),
            other => return Err(Fault::wrong("Format: %d", "an integer", other)),
        },
        'f' => number(value).map(|d| write!(out, "{}{d:.*}", sign(d >= 0.0), precision.unwrap_or(6)))?,
        'e' => number(value).map(|d| exponent(&mut out, d, precision.unwrap_or(6)))?,
        'g' => return Ok((Val::Double(number(value)?).text(arena)?.unwrap_or_default(), true)),
        'x' | 'X' => {
            let text = match value {
                Val::Int(i) if i < 0 => format!("-{:x}", i.unsigned_abs()).into_bytes(),
                Val::Int(i) => format!("{i:x}").into_bytes(),
                Val::Str(b) | Val::Bytes(b) => hex(b, arena).to_vec(),
                other => return Err(Fault::wrong("Format: %x", "an integer, a string or bytes", other)),
            };
            out.extend(if verb == 'X' { text.to_ascii_uppercase() } else { text });
            Ok(())
        }
        'q' => write!(out, "{:?}", String::from_utf8_lossy(value.text(arena)?.unwrap_or_default())),
        't' => match value {
            Val::Bool(b) => write!(out, "{b}"),
            other => return Err(Fault::wrong("Format: %t", "a boolean", other)),
        },
        _ => {
            let text = value.text(arena)?.unwrap_or(b"<nil>");
            let text = match precision {
                Some(precision) if matches!(value, Val::Str(_)) => first_characters(text, precision),
                _ => text,
            };
            return Ok((text, matches!(value, Val::Int(_) | Val::Double(_))));
        }
    };
    written.map_err(|_| Fault::Other("Format: out of memory"))?;
    Ok((arena.alloc_slice_copy(&out), !matches!(verb, 'q' | 't')))
}

/// So many characters of a text.
fn first_characters(text: &[u8], count: usize) -> &[u8] {
    let end = (0..text.len()).filter(|at| !cuts_character(text, *at)).nth(count);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// With at least two digits in the exponent.
fn exponent(out: &mut Vec<u8>, d: f64, precision: usize) -> std::io::Result<()> {
    let text = format!("{d:.precision$e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return write!(out, "{text}") };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    write!(out, "{mantissa}e{sign}{digits:0>2}")
}

fn pad(out: &mut Buf<'_>, text: &[u8], width: usize, left: bool, zero: bool) {
    let len = String::from_utf8_lossy(text).chars().count();
    let missing = width.saturating_sub(len);
    if left {
        out.extend_from_slice_copy(text);
        out.extend(std::iter::repeat_n(b' ', missing));
    } else if zero {
        // Behind the sign.
        let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
        out.extend_from_slice_copy(text.get(..sign).unwrap_or_default());
        out.extend(std::iter::repeat_n(b'0', missing));
        out.extend_from_slice_copy(text.get(sign..).unwrap_or_default());
    } else {
        out.extend(std::iter::repeat_n(b' ', missing));
        out.extend_from_slice_copy(text);
    }
}
