//! Names: what OTLP metrics, units and attributes are called in Prometheus and Loki.
//!
//! The rules are those of Prometheus' own OTLP endpoint, so that the same metric has the same name whichever
//! way it went. Names that differ only in separators, or in words that are taken for units or types, become
//! one name; that is in the rules. Nothing here fails but a name of which nothing would be left.
//!
//! Callers append to a string of theirs. A name costs one walk over it; only a unit with characters that
//! Prometheus does not know allocates.

mod labels;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
mod units;

use self::labels::LabelRules;

crate::config_enum! {
    /// How metric and label names of OTLP become names of Prometheus.
    pub enum TranslationStrategy {
        /// Characters that Prometheus did not know before version 3 become `_`; metric names end with their unit
        /// and type: `http.server.duration` in `s` is `http_server_duration_seconds`.
        UnderscoreEscapingWithSuffixes = "UnderscoreEscapingWithSuffixes",
        /// Characters that Prometheus did not know before version 3 become `_`; nothing is appended.
        UnderscoreEscapingWithoutSuffixes = "UnderscoreEscapingWithoutSuffixes",
        /// Every character is kept; metric names end with their unit and type. The destination must take
        /// UTF-8 names.
        NoUtf8EscapingWithSuffixes = "NoUTF8EscapingWithSuffixes",
        /// Names stay as they are. The destination must take UTF-8 names.
        NoTranslation = "NoTranslation",
    }
}

/// What of a metric's type shows in its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shape {
    /// A monotonic sum.
    Counter,
    /// A sum that may go down.
    UpDown,
    /// A gauge.
    Gauge,
    /// A histogram, classic or exponential.
    Histogram,
    /// A summary.
    Summary,
}

/// Why something has no name in Prometheus. What would carry it is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of the name.
    #[error("the name is empty, or without a character that Prometheus knows")]
    Empty,
    /// Only underscores are left of the name.
    #[error("nothing but underscores is left of the name")]
    OnlyUnderscores,
}

/// Names metrics and labels by one strategy and namespace.
#[derive(Clone, Debug)]
pub struct Namer {
    strategy: TranslationStrategy,
    /// As it stands in names.
    namespace: String,
}

#[allow(clippy::derivable_impls, reason = "the macro that declares the enum takes no attributes")]
impl Default for TranslationStrategy {
    fn default() -> Self {
        TranslationStrategy::UnderscoreEscapingWithSuffixes
    }
}

impl TranslationStrategy {
    /// Whether characters outside the old character set become underscores.
    pub fn escapes(self) -> bool {
        use TranslationStrategy::{UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes};
        matches!(self, UnderscoreEscapingWithSuffixes | UnderscoreEscapingWithoutSuffixes)
    }

    /// Whether units and types are appended to metric names.
    pub fn suffixes(self) -> bool {
        use TranslationStrategy::{NoUtf8EscapingWithSuffixes, UnderscoreEscapingWithSuffixes};
        matches!(self, UnderscoreEscapingWithSuffixes | NoUtf8EscapingWithSuffixes)
    }
}

impl Shape {
    /// The word that a metric name ends with.
    fn suffix(self, unit: &str) -> &'static str {
        match self {
            Shape::Counter => "total",
            // Sums with the unit 1 are counts more often than ratios.
            Shape::Gauge if unit == "1" => "ratio",
            _ => "",
        }
    }
}

impl Namer {
    /// A namer that prefixes `namespace` and `_` unless it is empty; see [`check_namespace`].
    pub fn new(strategy: TranslationStrategy, namespace: &str) -> Self {
        let mut prefix = String::new();
        if strategy == TranslationStrategy::UnderscoreEscapingWithoutSuffixes {
            put_joined(namespace.split(|c| !is_name_char(c)), &mut prefix);
        } else {
            prefix.push_str(namespace);
        }
        Namer { strategy, namespace: prefix }
    }

    /// How names are made.
    pub fn strategy(&self) -> TranslationStrategy {
        self.strategy
    }

    /// Appends the name of a metric: for histograms and summaries the one that `_count`, `_sum` and `_bucket`
    /// follow.
    ///
    /// # Errors
    /// No name is left, and nothing was appended: the metric must be dropped.
    pub fn metric(&self, name: &str, unit: &str, shape: Shape, out: &mut String) -> Result<(), NameError> {
        let start = out.len();
        match (self.strategy.escapes(), self.strategy.suffixes()) {
            (true, true) => self.escaped_with_suffixes(name, unit, shape, out),
            (true, false) => self.escaped(name, out),
            (false, suffixes) => {
                self.put_namespace(out);
                out.push_str(name);
                if suffixes {
                    append_suffixes(start, unit, shape, out);
                }
            }
        }
        let made = out.get(start..).unwrap_or_default();
        let fault = if made.is_empty() {
            Some(NameError::Empty)
        } else if self.strategy.escapes() && made != name && only_underscores(made) {
            Some(NameError::OnlyUnderscores)
        } else {
            None
        };
        match fault {
            None => Ok(()),
            Some(fault) => {
                out.truncate(start);
                Err(fault)
            }
        }
    }

    /// The name of the metric that carries the attributes of resources: `target_info`.
    pub fn target_info(&self) -> String {
        let mut out = String::new();
        self.put_namespace(&mut out);
        out.push_str("target_info");
        out
    }

    /// The unit as metadata gives it: `bytes_per_second` for `By/s`. Empty for `1` and for `{packet}`.
    pub fn unit(&self, unit: &str) -> String {
        if self.strategy.escapes() { units::metadata(unit) } else { units::metadata_utf8(unit) }
    }

    /// Appends the label name of an attribute.
    ///
    /// # Errors
    /// No name is left, and nothing was appended: the label must be dropped.
    pub fn label(&self, key: &str, out: &mut String) -> Result<(), NameError> {
        let rules = if self.strategy.escapes() { LabelRules::PROMETHEUS } else { LabelRules::UTF8 };
        rules.put(key, out)
    }

    fn put_namespace(&self, out: &mut String) {
        if !self.namespace.is_empty() {
            out.push_str(&self.namespace);
            out.push('_');
        }
    }

    /// The words of name and unit, each unit word once, `total` or `ratio` last.
    fn escaped_with_suffixes(&self, name: &str, unit: &str, shape: Shape, out: &mut String) {
        let suffix = shape.suffix(unit);
        let (main, per) = units::escaped(unit);
        let words = || name.split(|c| !is_word_char(c));
        let mut main = main.as_ref();
        if words().any(|word| word == main) {
            main = "";
        }
        if !per.is_empty() {
            main = main.strip_suffix('_').unwrap_or(main);
        }
        let start = out.len();
        let words = words().chain([main]).filter(|word| *word != suffix);
        put_joined([self.namespace.as_str()].into_iter().chain(words), out);
        let mut put_last = |kind: &str, word: &str| {
            if !word.is_empty() {
                if out.len() > start {
                    out.push('_');
                }
                out.push_str(kind);
                out.push_str(word);
            }
        };
        put_last("per_", &per);
        put_last("", suffix);
        guard_digit(start, out);
    }

    /// The name with its own underscores, those in a row too.
    fn escaped(&self, name: &str, out: &mut String) {
        self.put_namespace(out);
        let start = out.len();
        put_joined(name.split(|c| !is_name_char(c)), out);
        if self.namespace.is_empty() {
            guard_digit(start, out);
        }
    }
}

/// Whether a namespace can stand before names; the empty one can.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn check_namespace(namespace: &str) -> Result<(), String> {
    let mut chars = namespace.chars();
    let starts = chars.next().is_none_or(|c| is_name_char(c) && !c.is_ascii_digit());
    if starts && chars.all(is_name_char) {
        return Ok(());
    }
    Err(format!(
        "a namespace consists of letters of ASCII, digits, `_` and `:`, and does not start with a digit: \
         {namespace:?} cannot stand before a metric name"
    ))
}

/// Appends the label name that Loki gives an attribute: runs of underscores become one, none is added.
///
/// # Errors
/// No name is left, and nothing was appended: the label must be dropped.
pub fn loki_label(key: &str, out: &mut String) -> Result<(), NameError> {
    LabelRules::LOKI.put(key, out)
}

/// Moves unit and type to the end of a name that starts at `start` and keeps all its characters.
fn append_suffixes(start: usize, unit: &str, shape: Shape, out: &mut String) {
    let suffix = shape.suffix(unit);
    let (main, per) = units::words(unit);
    cut_end(start, "", suffix, out);
    cut_end(start, "per_", per, out);
    if !out.get(start..).unwrap_or_default().ends_with(main) {
        out.push('_');
        out.push_str(main);
    }
    for (kind, word) in [("per_", per), ("", suffix)] {
        if !word.is_empty() {
            out.push('_');
            out.push_str(kind);
            out.push_str(word);
        }
    }
}

/// Cuts a word, and the character before it, off the end of a name unless nothing would be left.
fn cut_end(start: usize, kind: &str, word: &str, out: &mut String) {
    let name = out.get(start..).unwrap_or_default();
    if word.is_empty() {
        return;
    }
    let Some(mut rest) = name.strip_suffix(word).and_then(|rest| rest.strip_suffix(kind)).map(str::chars)
    else {
        return;
    };
    rest.next_back();
    let kept = rest.as_str().len();
    if kept > 0 {
        out.truncate(start + kept);
    }
}

/// Appends what is not empty, with `_` between.
fn put_joined<'a>(words: impl Iterator<Item = &'a str>, out: &mut String) {
    let start = out.len();
    for word in words.filter(|word| !word.is_empty()) {
        if out.len() > start {
            out.push('_');
        }
        out.push_str(word);
    }
}

/// Puts `_` before a name that starts with a digit.
fn guard_digit(start: usize, out: &mut String) {
    if out.get(start..).is_some_and(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
        out.insert(start, '_');
    }
}

fn only_underscores(name: &str) -> bool {
    name.bytes().all(|b| b == b'_')
}

/// A character that stays in names and does not part words.
fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn is_name_char(c: char) -> bool {
    is_word_char(c) || c == '_'
}
