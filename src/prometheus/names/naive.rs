//! The rules of names once more, slowly and in another way, for tests and fuzz targets to compare with.
//!
//! The fuzz crate includes this file by its path, so it needs nothing of the crate but `super::Shape` and
//! `super::TranslationStrategy`.

use super::{Shape, TranslationStrategy};

const MAIN: &str = "d days h hours min minutes s seconds ms milliseconds us microseconds ns nanoseconds \
    By bytes KiBy kibibytes MiBy mebibytes GiBy gibibytes TiBy tibibytes \
    KBy kilobytes MBy megabytes GBy gigabytes TBy terabytes \
    m meters V volts A amperes J joules W watts g grams Cel celsius Hz hertz % percent";

const PER: &str = "s second m minute h hour d day w week mo month y year";

/// The name of a metric, if it has one.
pub fn metric(
    strategy: TranslationStrategy,
    namespace: &str,
    name: &str,
    unit: &str,
    shape: Shape,
) -> Option<String> {
    let made = match strategy {
        TranslationStrategy::NoTranslation if namespace.is_empty() => name.to_owned(),
        TranslationStrategy::NoTranslation => format!("{namespace}_{name}"),
        TranslationStrategy::NoUtf8EscapingWithSuffixes => utf8(namespace, name, unit, shape),
        TranslationStrategy::UnderscoreEscapingWithoutSuffixes => {
            let made = pieces(name, "_:").join("_");
            if !namespace.is_empty() {
                pieces(namespace, "_:").join("_") + "_" + &made
            } else {
                no_digit(made)
            }
        }
        TranslationStrategy::UnderscoreEscapingWithSuffixes => with_suffixes(namespace, name, unit, shape),
    };
    let escaped = matches!(
        strategy,
        TranslationStrategy::UnderscoreEscapingWithSuffixes
            | TranslationStrategy::UnderscoreEscapingWithoutSuffixes
    );
    if made.is_empty() || escaped && made != name && made.replace('_', "").is_empty() {
        return None;
    }
    Some(made)
}

/// The unit of metadata.
pub fn unit(escapes: bool, unit: &str) -> String {
    let (main, per) = unit_words(unit);
    if escapes {
        let part = |word: String| Some(cleaned(word).trim_matches('_').to_owned()).filter(|w| !w.is_empty());
        let words = [main.and_then(part), per.and_then(part).map(|per| format!("per_{per}"))];
        return words.into_iter().flatten().collect::<Vec<_>>().join("_");
    }
    let words = [main, per.map(|per| format!("per_{per}"))];
    let mut text: Vec<char> = words.into_iter().flatten().collect::<Vec<_>>().join("_").chars().collect();
    if text.first() == Some(&'_') {
        text.remove(0);
    }
    if text.last() == Some(&'_') {
        text.pop();
    }
    text.into_iter().collect()
}

/// The name of a label, if it has one.
pub fn label(preserve_runs: bool, underscore_prefix: bool, utf8: bool, key: &str) -> Option<String> {
    if utf8 {
        return (!key.replace('_', "").is_empty()).then(|| key.to_owned());
    }
    let known = |c: char| "0123456789".contains(c) || c.is_ascii_lowercase() || c.is_ascii_uppercase();
    let mut made: String = key.chars().map(|c| if known(c) { c } else { '_' }).collect();
    if !preserve_runs {
        let reserved = key.len() > 3 && key.starts_with("__") && key.ends_with("__");
        let inside = if reserved { made[2..made.len() - 2].to_owned() } else { made };
        let inside = collapsed(inside);
        made = if reserved { format!("__{inside}__") } else { inside };
    }
    let first = made.chars().next()?;
    if "0123456789".contains(first) {
        made = format!("key_{made}");
    } else if underscore_prefix && first == '_' && made.chars().nth(1) != Some('_') {
        made = format!("key{made}");
    }
    (!made.replace('_', "").is_empty()).then_some(made)
}

fn with_suffixes(namespace: &str, name: &str, unit: &str, shape: Shape) -> String {
    let mut tokens = pieces(name, ":");
    let (main, per) = unit_words(unit);
    let per = per.map(cleaned).map(|per| per.trim_end_matches('_').to_owned()).filter(|per| !per.is_empty());
    let mut main = main.map(cleaned);
    if main.as_ref().is_some_and(|main| tokens.contains(main)) {
        main = None;
    }
    if per.is_some() {
        main = main.map(|main| main.trim_end_matches('_').to_owned());
    }
    tokens.extend(main);
    tokens.extend(per.map(|per| format!("per_{per}")));
    let last = match shape {
        Shape::Counter => Some("total"),
        Shape::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(last) = last {
        tokens.retain(|token| token != last);
        tokens.push(last.to_owned());
    }
    tokens.insert(0, namespace.to_owned());
    tokens.retain(|token| !token.is_empty());
    no_digit(tokens.join("_"))
}

fn utf8(namespace: &str, name: &str, unit: &str, shape: Shape) -> String {
    let mut made = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}_{name}") };
    let (main, per) = unit_words(unit);
    let per = per.map(|per| format!("per_{per}"));
    let last = match shape {
        Shape::Counter => Some("total".to_owned()),
        Shape::Gauge if unit == "1" => Some("ratio".to_owned()),
        _ => None,
    };
    for word in [&last, &per].into_iter().flatten() {
        let (chars, len) = (made.chars().collect::<Vec<_>>(), word.chars().count());
        if made.ends_with(word.as_str()) && chars.len() > len + 1 {
            made = chars[..chars.len() - len - 1].iter().collect();
        }
    }
    if let Some(main) = main.filter(|main| !made.ends_with(main)) {
        made = format!("{made}_{main}");
    }
    for word in [per, last].into_iter().flatten() {
        made = format!("{made}_{word}");
    }
    made
}

/// The words of a unit, if it has them, in any characters.
fn unit_words(unit: &str) -> (Option<String>, Option<String>) {
    let mut parts = unit.splitn(2, '/');
    let part = |text: &str| Some(text.trim().to_owned()).filter(|t| !t.is_empty() && !t.contains(['{', '}']));
    let word = |table: &str, code: String| {
        let mut pairs = table.split_whitespace();
        while let (Some(known), Some(word)) = (pairs.next(), pairs.next()) {
            if known == code {
                return word.to_owned();
            }
        }
        code
    };
    let main = parts.next().and_then(part).filter(|main| main != "1").map(|main| word(MAIN, main));
    (main, parts.next().and_then(part).map(|per| word(PER, per)))
}

/// The runs of letters, digits and the characters given.
fn pieces(text: &str, and: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || and.contains(c) {
            pieces.last_mut().unwrap().push(c);
        } else {
            pieces.push(String::new());
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn cleaned(word: String) -> String {
    let made = word.chars().map(|c| if c == ':' || c.is_ascii_alphanumeric() { c } else { '_' });
    let made = collapsed(made.collect());
    made.strip_prefix('_').unwrap_or(&made).to_owned()
}

fn collapsed(mut text: String) -> String {
    while text.contains("__") {
        text = text.replace("__", "_");
    }
    text
}

fn no_digit(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}
