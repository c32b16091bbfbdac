//! `include` and `exclude`: which items a processor acts on.
//!
//! A compiled [`Matcher`] is asked once a resource, once a scope, once a metric and once an item; each level
//! decides what it can, so that a condition on the resource costs nothing per item and a resource that is out
//! leaves its items unread. Strings are compared as bytes and regular expressions match anywhere in the text:
//! a text that is not UTF-8 is no error. Nothing is allocated while matching, except for the text of a
//! number that is compared with a regular expression.

mod config;

use regex::bytes::{Regex, RegexSet};

use config::SPAN_KINDS;
pub use config::{
    AttributeCriterion, LibraryCriterion, MatchConfig, MatchType, RegexpConfig, SeverityCriterion,
    SeverityNumber,
};
pub(crate) use config::{check_attributes, check_texts};

use crate::config::types::Any;
use crate::pdata::Signal;
use crate::pdata::wire::{Cursor, Value, WireError};
use crate::processors::edit::Scalar;

/// A compiled pair of `include` and `exclude`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matcher {
    include: Option<Criteria>,
    exclude: Option<Criteria>,
}

/// What is known so far of the items below a resource, scope or metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    /// Whether any of them may still be acted on.
    pub(crate) run: bool,
    /// Whether `exclude` may still match.
    exclude: bool,
}

/// The fields of an item that criteria look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemFields<'a> {
    name: &'a [u8],
    kind: u64,
    severity_number: i32,
    severity_text: &'a [u8],
    body: Scalar<'a>,
}

#[derive(Debug, Clone)]
struct Criteria {
    services: Option<Words>,
    resources: Vec<HasAttribute>,
    libraries: Vec<Library>,
    metric_names: Option<Words>,
    span_names: Option<Words>,
    span_kinds: Option<Words>,
    log_bodies: Option<Words>,
    log_severity_texts: Option<Words>,
    log_severity_number: Option<SeverityCriterion>,
    attributes: Vec<HasAttribute>,
}

/// The levels at which criteria can be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Resource,
    Scope,
    Metric,
    Item,
}

#[derive(Debug, Clone)]
enum Words {
    Exact(Vec<Box<[u8]>>),
    Pattern(RegexSet),
}

#[derive(Debug, Clone)]
struct Library {
    name: Words,
    version: Option<Words>,
}

#[derive(Debug, Clone)]
struct HasAttribute {
    key: Box<[u8]>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(Any),
    Pattern(Regex),
}

impl Live {
    /// Everything below is acted on.
    pub(crate) const YES: Live = Live { run: true, exclude: false };
    /// Nothing below is acted on.
    pub(crate) const NO: Live = Live { run: false, exclude: false };
}

impl Matcher {
    /// Compiles `include` and `exclude` for a signal; `None` if neither is given.
    ///
    /// # Errors
    /// Criteria that do not fit the signal, an empty block, an invalid pattern.
    pub(crate) fn new(
        include: Option<&MatchConfig>,
        exclude: Option<&MatchConfig>,
        signal: Signal,
    ) -> Result<Option<Self>, String> {
        let include = include.map(|c| Criteria::new(c, "include", signal)).transpose()?;
        let exclude = exclude.map(|c| Criteria::new(c, "exclude", signal)).transpose()?;
        Ok((include.is_some() || exclude.is_some()).then_some(Matcher { include, exclude }))
    }

    /// Whether scopes have to be asked.
    pub(crate) fn asks_scope(&self) -> bool {
        self.any(|c| !c.libraries.is_empty())
    }

    /// Whether metrics have to be asked.
    pub(crate) fn asks_metric(&self) -> bool {
        self.any(|c| c.metric_names.is_some())
    }

    /// Whether any items may have to be asked.
    pub(crate) fn asks_items(&self) -> bool {
        self.any(|c| c.last_level() == Level::Item)
    }

    /// Whether items have to be asked about more than their attributes.
    pub(crate) fn asks_item_fields(&self) -> bool {
        self.any(Criteria::asks_fields)
    }

    /// Whether anything is left to ask items, after what was decided above them.
    #[inline]
    pub(crate) fn asks_item(&self, live: Live) -> bool {
        let item = |c: &Option<Criteria>| c.as_ref().is_some_and(|c| c.last_level() == Level::Item);
        item(&self.include) || (live.exclude && item(&self.exclude))
    }

    /// Decides what a resource's attributes decide; `get` finds an attribute's value by its key.
    pub(crate) fn at_resource<'a>(&self, get: impl Fn(&[u8]) -> Option<&'a [u8]>) -> Result<Live, WireError> {
        let start = Live { run: true, exclude: self.exclude.is_some() };
        self.decide(start, Level::Resource, |c| c.resource_matches(&get))
    }

    /// Decides what a scope's name and version decide.
    pub(crate) fn at_scope(&self, live: Live, name: &[u8], version: &[u8]) -> Live {
        let matches =
            |c: &Criteria| c.libraries.is_empty() || c.libraries.iter().any(|l| l.matches(name, version));
        self.decide(live, Level::Scope, |c| Ok(matches(c))).unwrap_or(live)
    }

    /// Decides what a metric's name decides.
    pub(crate) fn at_metric(&self, live: Live, name: &[u8]) -> Live {
        let matches = |c: &Criteria| c.metric_names.as_ref().is_none_or(|w| w.matches(name));
        self.decide(live, Level::Metric, |c| Ok(matches(c))).unwrap_or(live)
    }

    /// Decides about an item.
    pub(crate) fn at_item<'a>(
        &self,
        live: Live,
        fields: Option<&ItemFields<'a>>,
        get: impl Fn(&[u8]) -> Option<&'a [u8]>,
    ) -> Result<bool, WireError> {
        Ok(self.decide(live, Level::Item, |c| c.item_matches(fields, &get))?.run)
    }

    fn any(&self, test: impl Fn(&Criteria) -> bool) -> bool {
        self.include.iter().chain(&self.exclude).any(test)
    }

    fn decide(
        &self,
        mut live: Live,
        level: Level,
        matches: impl Fn(&Criteria) -> Result<bool, WireError>,
    ) -> Result<Live, WireError> {
        if let Some(include) = self.include.as_ref().filter(|_| live.run) {
            live.run = matches(include)?;
        }
        if let Some(exclude) = self.exclude.as_ref().filter(|_| live.run && live.exclude) {
            live.exclude = matches(exclude)?;
            // With nothing left to ask below, a match is final.
            live.run = !(live.exclude && exclude.last_level() <= level);
        }
        Ok(live)
    }
}

impl Criteria {
    fn new(config: &MatchConfig, section: &str, signal: Signal) -> Result<Criteria, String> {
        let given = config.given();
        if given.is_empty() {
            return Err(format!("{section}: no criteria are given"));
        }
        if let Some((key, _)) = given.iter().find(|(_, signals)| !signals.contains(&signal)) {
            return Err(format!(
                "{section}: \"{key}\" does not apply to {}; a processor with it cannot be in such a pipeline",
                signal.name()
            ));
        }
        let how =
            config.match_type.ok_or_else(|| format!("{section}: missing required field \"match_type\""))?;
        let words = |list: &[String]| -> Result<Option<Words>, String> {
            if list.is_empty() { Ok(None) } else { Words::new(how, list).map(Some) }
        };
        let attributes = |list: &[AttributeCriterion]| {
            list.iter().map(|c| HasAttribute::new(how, c)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Criteria {
            services: words(&config.services)?,
            resources: attributes(&config.resources)?,
            libraries: config
                .libraries
                .iter()
                .map(|l| {
                    let version =
                        l.version.as_ref().map(|v| Words::new(how, std::slice::from_ref(v))).transpose()?;
                    Ok::<_, String>(Library {
                        name: Words::new(how, std::slice::from_ref(&l.name))?,
                        version,
                    })
                })
                .collect::<Result<_, _>>()?,
            metric_names: words(&config.metric_names)?,
            span_names: words(&config.span_names)?,
            span_kinds: words(&config.span_kinds)?,
            log_bodies: words(&config.log_bodies)?,
            log_severity_texts: words(&config.log_severity_texts)?,
            log_severity_number: config.log_severity_number.clone(),
            attributes: attributes(&config.attributes)?,
        })
    }

    /// The last level that is asked about anything.
    fn last_level(&self) -> Level {
        if !self.attributes.is_empty() || self.asks_fields() {
            Level::Item
        } else if self.metric_names.is_some() {
            Level::Metric
        } else if !self.libraries.is_empty() {
            Level::Scope
        } else {
            Level::Resource
        }
    }

    fn asks_fields(&self) -> bool {
        self.span_names.is_some()
            || self.span_kinds.is_some()
            || self.log_bodies.is_some()
            || self.log_severity_texts.is_some()
            || self.log_severity_number.is_some()
    }

    fn resource_matches<'a>(&self, get: &impl Fn(&[u8]) -> Option<&'a [u8]>) -> Result<bool, WireError> {
        if let Some(services) = &self.services {
            let found = match get(b"service.name") {
                Some(value) => Scalar::read(value)?.text().is_some_and(|text| services.matches(&text)),
                None => false,
            };
            if !found {
                return Ok(false);
            }
        }
        all_match(&self.resources, get)
    }

    fn item_matches<'a>(
        &self,
        fields: Option<&ItemFields<'a>>,
        get: &impl Fn(&[u8]) -> Option<&'a [u8]>,
    ) -> Result<bool, WireError> {
        if let Some(fields) = fields {
            let ok = |words: &Option<Words>, text: &[u8]| words.as_ref().is_none_or(|w| w.matches(text));
            let kind = || usize::try_from(fields.kind).ok().and_then(|k| SPAN_KINDS.get(k)).copied();
            let body = |words: &Words| matches!(fields.body, Scalar::Str(text) if words.matches(text));
            let fits = ok(&self.span_names, fields.name)
                && self.span_kinds.as_ref().is_none_or(|w| w.matches(kind().unwrap_or_default().as_bytes()))
                && ok(&self.log_severity_texts, fields.severity_text)
                && self.log_severity_number.as_ref().is_none_or(|s| s.matches(fields.severity_number))
                && self.log_bodies.as_ref().is_none_or(body);
            if !fits {
                return Ok(false);
            }
        }
        all_match(&self.attributes, get)
    }
}

impl SeverityCriterion {
    fn matches(&self, number: i32) -> bool {
        if number == 0 { self.match_undefined } else { number >= self.min.0 }
    }
}

impl Library {
    fn matches(&self, name: &[u8], version: &[u8]) -> bool {
        self.name.matches(name) && self.version.as_ref().is_none_or(|v| v.matches(version))
    }
}

impl Words {
    fn new(how: MatchType, words: &[String]) -> Result<Self, String> {
        Ok(match how {
            MatchType::Strict => Words::Exact(words.iter().map(|w| w.as_bytes().into()).collect()),
            MatchType::Regexp => Words::Pattern(RegexSet::new(words).map_err(|why| why.to_string())?),
        })
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Words::Exact(words) => words.iter().any(|w| **w == *text),
            Words::Pattern(set) => set.is_match(text),
        }
    }
}

impl HasAttribute {
    fn new(how: MatchType, criterion: &AttributeCriterion) -> Result<Self, String> {
        let test = match (&criterion.value, how) {
            (Any::Null, _) => Test::Present,
            (Any::List(_) | Any::Map(_), _) => {
                return Err("only a string, number or boolean can be matched".to_owned());
            }
            (value, MatchType::Strict) => Test::Equal(value.clone()),
            (Any::Str(pattern), MatchType::Regexp) => {
                Test::Pattern(Regex::new(pattern).map_err(|why| why.to_string())?)
            }
            (_, MatchType::Regexp) => {
                return Err("with match_type \"regexp\" a value must be a string".to_owned());
            }
        };
        Ok(HasAttribute { key: criterion.key.as_bytes().into(), test })
    }

    fn matches(&self, value: &[u8]) -> Result<bool, WireError> {
        Ok(match &self.test {
            Test::Present => true,
            Test::Pattern(pattern) => Scalar::read(value)?.text().is_some_and(|text| pattern.is_match(&text)),
            Test::Equal(want) => match (want, Scalar::read(value)?) {
                (Any::Str(want), Scalar::Str(is)) => want.as_bytes() == is,
                (Any::Bool(want), Scalar::Bool(is)) => *want == is,
                (Any::Int(want), Scalar::Int(is)) => *want == is,
                (Any::Float(want), Scalar::Double(is)) => *want == is,
                _ => false,
            },
        })
    }
}

impl<'a> ItemFields<'a> {
    /// Reads the fields of a span or log record. Data points have none that criteria ask about.
    pub(crate) fn read(item: &'a [u8], signal: Signal) -> Result<Self, WireError> {
        let mut out =
            ItemFields { name: &[], kind: 0, severity_number: 0, severity_text: &[], body: Scalar::Empty };
        let mut fields = Cursor::new(item);
        while let Some(field) = fields.next_field()? {
            match (signal, field.number, field.value) {
                (Signal::Traces, 5, value) => out.name = value.bytes()?,
                (Signal::Traces, 6, Value::Varint(kind)) => out.kind = u64::from(kind as u32),
                (Signal::Logs, 2, Value::Varint(number)) => out.severity_number = number as i32,
                (Signal::Logs, 3, value) => out.severity_text = value.bytes()?,
                // A body that stands twice is merged: what is set later counts.
                (Signal::Logs, 5, value) => match Scalar::read(value.bytes()?)? {
                    Scalar::Empty => {}
                    body => out.body = body,
                },
                _ => {}
            }
        }
        Ok(out)
    }

    /// Takes the values that fields have after earlier changes; `get` finds the value of a field by its number.
    pub(crate) fn patch(
        &mut self,
        signal: Signal,
        get: impl Fn(u32) -> Result<Option<Value<'a>>, WireError>,
    ) -> Result<(), WireError> {
        let bytes =
            |number| -> Result<&'a [u8], WireError> { get(number)?.map_or(Ok(&[][..]), Value::bytes) };
        match signal {
            Signal::Traces => {
                self.name = bytes(5)?;
                self.kind = get(6)?.map_or(Ok(0), Value::varint)?;
            }
            Signal::Logs => {
                self.severity_number = get(2)?.map_or(Ok(0), Value::varint)? as i32;
                self.severity_text = bytes(3)?;
                self.body = Scalar::read(bytes(5)?)?;
            }
            Signal::Metrics => {}
        }
        Ok(())
    }
}

fn all_match<'a>(
    criteria: &[HasAttribute],
    get: &impl Fn(&[u8]) -> Option<&'a [u8]>,
) -> Result<bool, WireError> {
    for criterion in criteria {
        match get(&criterion.key) {
            Some(value) if criterion.matches(value)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
