//! Where a tenant's name comes from, and who that is for each part of a request.
//!
//! Sources are asked in the order written. Those of the request are asked once, those of a resource once for each, and
//! items are read only where a source of theirs comes before the first that has a name. Of an item the keys of its
//! attributes are read, once, whatever the number of sources. A value that comes again is recognised by its bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use regex::Regex;
use smallvec::SmallVec;

use super::config::{CertificateName, Otherwise, SourceConfig, level_of};
use super::find::{Found, certificate, label_resource, labels, last, scan};
use super::names;
use super::table::{Owner, Table};
use crate::pdata::common::{AnyValue, ResourceGroup, ScopeGroup};
use crate::pdata::fields::{log_record, resource, scope, span};
use crate::pdata::metrics::Kind;
use crate::pdata::partition::Assign;
use crate::pdata::wire::WireError;
use crate::pdata::{ClientInfo, Signal};
use crate::prometheus::identity::attributes_field;
use crate::relabel::{self, Labels, Names, Rule};

/// How many values are remembered while a request is looked at. More different ones are told apart one by one, so that
/// a request of nothing but different values takes time and not memory.
const REMEMBERED: usize = 4096;

/// What one source looks at.
#[derive(Debug)]
enum From {
    Metadata(String),
    Certificate(CertificateName),
    Auth(String),
    Value(String),
    Resource(Box<[u8]>),
    Relabel(Vec<Rule>),
    Scope(Box<[u8]>),
    Item(Box<[u8]>),
}

/// What a source has to be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Request,
    Resource,
    Scope,
    Item,
}

/// A source that is ready to be asked.
#[derive(Debug)]
pub(super) struct Source {
    from: From,
    map: HashMap<String, String>,
    pattern: Option<(Regex, Option<String>)>,
}

/// Who a part of a request belongs to.
#[derive(Debug)]
pub(super) enum Bucket {
    Owner(Arc<Owner>),
    /// Nobody, and there is nobody to use.
    Unresolved,
    /// A tenant there is no room for, and nobody to use.
    Overflow,
}

/// What all requests are asked with.
pub(super) struct Resolving {
    pub(super) sources: Vec<Source>,
    pub(super) unresolved: Otherwise,
    pub(super) overflow: Otherwise,
    pub(super) table: Arc<Table>,
}

/// The answers for one request.
pub(super) struct Resolver<'s, 'a> {
    with: &'s Resolving,
    client: &'s ClientInfo,
    signal: Signal,
    now: Instant,
    /// Who there is; numbers are indices here.
    pub(super) buckets: Vec<Bucket>,
    by_name: HashMap<String, usize>,
    nobody: Option<usize>,
    no_room: Option<usize>,
    /// What each source has said of the request, of the resource or of the scope at hand.
    said: SmallVec<[Said; 8]>,
    known: SmallVec<[Known<'a>; 4]>,
    group: Option<ResourceGroup<'a>>,
    scope: Option<ScopeGroup<'a>>,
    /// Which source is asked next below the resource, and below the scope.
    below_resource: usize,
    below_scope: usize,
    /// Values that are no names.
    pub(super) invalid: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    NotAsked,
    Nothing,
    Bucket(usize),
}

/// The values that one source has met, as they stand in the request.
#[derive(Default)]
struct Known<'a> {
    last: Option<(&'a [u8], Option<usize>)>,
    all: HashMap<&'a [u8], Option<usize>>,
}

impl Source {
    /// Compiles a source.
    ///
    /// # Errors
    /// Rules that are none, or nothing to look at, in a config that was not decoded from a file.
    pub(super) fn new(config: &SourceConfig) -> Result<Self, String> {
        let from = if let Some(key) = &config.metadata {
            From::Metadata(key.clone())
        } else if let Some(name) = config.certificate {
            From::Certificate(name)
        } else if let Some(key) = &config.auth {
            From::Auth(key.clone())
        } else if let Some(attribute) = &config.attribute {
            match level_of(attribute) {
                (Some('r'), name) => From::Resource(name.as_bytes().into()),
                (Some(_), name) => From::Scope(name.as_bytes().into()),
                (None, name) => From::Item(name.as_bytes().into()),
            }
        } else if let Some(value) = &config.value {
            names::check(value)?;
            From::Value(value.clone())
        } else if !config.relabel.is_empty() {
            let rules = config.relabel.iter().map(|rule| Rule::new(rule, Names::Utf8));
            From::Relabel(rules.collect::<Result<_, _>>()?)
        } else {
            return Err("a source does not say where the name comes from".to_owned());
        };
        let pattern = config.pattern.as_ref().map(|pattern| {
            let groups = pattern.captures_len() > 1;
            let default = groups.then(|| "$1".to_owned());
            ((**pattern).clone(), config.replacement.clone().or(default))
        });
        let map = config.map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(Source { from, map, pattern })
    }

    /// Names that may come of this source and are written in the configuration.
    pub(super) fn named(&self) -> impl Iterator<Item = String> + '_ {
        let value = match &self.from {
            From::Value(name) => Some(name.clone()),
            _ => None,
        };
        value.into_iter().chain(self.map.values().cloned())
    }

    fn level(&self) -> Level {
        match self.from {
            From::Metadata(_) | From::Certificate(_) | From::Auth(_) | From::Value(_) => Level::Request,
            From::Resource(_) | From::Relabel(_) => Level::Resource,
            From::Scope(_) => Level::Scope,
            From::Item(_) => Level::Item,
        }
    }

    /// Whose a resource with these attributes is, where that is all there is to know; `None` for nobody.
    pub(super) fn of_resource(&self, attributes: &[(&str, &str)]) -> Option<String> {
        match &self.from {
            From::Value(name) => Some(name.clone()),
            From::Resource(key) => {
                let (_, text) = attributes.iter().find(|(k, _)| k.as_bytes() == &**key)?;
                self.tenant(text).ok()?.map(Cow::into_owned)
            }
            From::Relabel(rules) => {
                let mut labels = Labels::default();
                for (key, text) in attributes {
                    label_resource(&mut labels, key, (*text).to_owned());
                }
                self.tenant(left_by(rules, &mut labels)?).ok()?.map(Cow::into_owned)
            }
            _ => None,
        }
    }

    /// The tenant that a value names; `None` for nobody.
    ///
    /// # Errors
    /// What it would be called is no tenant's name.
    fn tenant<'t>(&'t self, text: &'t str) -> Result<Option<Cow<'t, str>>, &'static str> {
        let Some(name) = self.rename(text) else { return Ok(None) };
        names::check(&name)?;
        Ok(Some(name))
    }

    /// The name that a value stands for; `None` for nobody.
    fn rename<'t>(&'t self, text: &'t str) -> Option<Cow<'t, str>> {
        if text.is_empty() {
            return None;
        }
        if let Some(name) = self.map.get(text) {
            return Some(Cow::Borrowed(name));
        }
        let Some((pattern, replacement)) = &self.pattern else { return Some(Cow::Borrowed(text)) };
        let groups = pattern.captures(text)?;
        let Some(replacement) = replacement else { return Some(Cow::Borrowed(text)) };
        let mut name = String::new();
        groups.expand(replacement, &mut name);
        (!name.is_empty()).then_some(Cow::Owned(name))
    }
}

impl<'s, 'a> Resolver<'s, 'a> {
    pub(super) fn new(with: &'s Resolving, client: &'s ClientInfo, signal: Signal, now: Instant) -> Self {
        Resolver {
            with,
            client,
            signal,
            now,
            buckets: Vec::new(),
            by_name: HashMap::new(),
            nobody: None,
            no_room: None,
            said: with.sources.iter().map(|_| Said::NotAsked).collect(),
            known: SmallVec::new(),
            group: None,
            scope: None,
            below_resource: 0,
            below_scope: 0,
            invalid: 0,
        }
    }

    /// Whose the request is, where that does not depend on what is in it.
    pub(super) fn request(&mut self) -> Result<Option<usize>, WireError> {
        Ok(self.ask(0, Level::Request, None)?.ok())
    }

    /// Asks the sources from one on, as far down as a level. `Err` is the first that is further down.
    fn ask(
        &mut self,
        from: usize,
        level: Level,
        item: Option<(&'a [u8], u32)>,
    ) -> Result<Result<usize, usize>, WireError> {
        let with = self.with;
        let mut found: Option<Found<'a>> = None;
        for (index, source) in with.sources.iter().enumerate().skip(from) {
            let of = source.level();
            if of > level {
                return Ok(Err(index));
            }
            if let (From::Item(_), Some((item, number))) = (&source.from, item) {
                if found.is_none() {
                    let mut values: Found<'a> = SmallVec::from_elem(None, with.sources.len());
                    scan(
                        item,
                        number,
                        &mut values,
                        with.sources.iter().map(|s| match &s.from {
                            From::Item(key) => Some(&**key),
                            _ => None,
                        }),
                    )?;
                    found = Some(values);
                }
                let value = found.as_ref().and_then(|values| values.get(index).copied().flatten());
                if let Some(bucket) = self.value(index, source, value)? {
                    return Ok(Ok(bucket));
                }
                continue;
            }
            let said = match self.said.get(index) {
                Some(Said::NotAsked) | None => match self.say(index, source)? {
                    Some(bucket) => Said::Bucket(bucket),
                    None => Said::Nothing,
                },
                Some(said) => *said,
            };
            if let Some(place) = self.said.get_mut(index) {
                *place = said;
            }
            if let Said::Bucket(bucket) = said {
                return Ok(Ok(bucket));
            }
        }
        Ok(Ok(self.unresolved()))
    }

    /// What a source has to say of the request, the resource or the scope.
    fn say(&mut self, index: usize, source: &'s Source) -> Result<Option<usize>, WireError> {
        let client = self.client;
        Ok(match &source.from {
            From::Metadata(key) => match client.metadata(key).unwrap_or_default() {
                [first, others @ ..] if others.iter().all(|other| other == first) => self.text(source, first),
                [] => None,
                _ => {
                    self.invalid += 1;
                    None
                }
            },
            From::Certificate(name) => certificate(client, *name).and_then(|text| self.text(source, text)),
            From::Auth(key) => {
                let value = client.auth.iter().find(|(k, _)| k == key);
                value.and_then(|(_, text)| self.text(source, text))
            }
            From::Value(name) => Some(self.bucket(name)),
            From::Resource(key) => {
                let value = match self.group {
                    Some(group) => last(group.resources(), resource::ATTRIBUTES, key)?,
                    None => None,
                };
                self.value(index, source, value)?
            }
            From::Scope(key) => {
                let value = match self.scope {
                    Some(group) => last(group.scopes(), scope::ATTRIBUTES, key)?,
                    None => None,
                };
                self.value(index, source, value)?
            }
            From::Relabel(rules) => self.relabelled(index, source, rules)?,
            From::Item(_) => None,
        })
    }

    /// What rules make of the resource.
    fn relabelled(
        &mut self,
        index: usize,
        source: &'s Source,
        rules: &[Rule],
    ) -> Result<Option<usize>, WireError> {
        let mut messages = self.group.iter().flat_map(|group| group.resources());
        // All else that the rules look at is the same for the whole request.
        let message = match (messages.next(), messages.next()) {
            (Some(message), None) => Some(message?),
            _ => None,
        };
        self.know(index);
        let known = message.and_then(|message| self.known.get(index)?.all.get(message).copied());
        if let Some(bucket) = known {
            return Ok(bucket);
        }
        let mut labels = labels(self.client, self.group)?;
        let bucket = left_by(rules, &mut labels).and_then(|text| self.text(source, text));
        if let (Some(known), Some(message)) = (self.known.get_mut(index), message)
            && known.all.len() < REMEMBERED
        {
            known.all.insert(message, bucket);
        }
        Ok(bucket)
    }

    fn know(&mut self, index: usize) {
        if self.known.len() <= index {
            self.known.resize_with(index + 1, Known::default);
        }
    }

    /// Who an attribute's value stands for.
    #[inline]
    fn value(
        &mut self,
        index: usize,
        source: &'s Source,
        value: Option<&'a [u8]>,
    ) -> Result<Option<usize>, WireError> {
        let Some(value) = value else { return Ok(None) };
        if let Some(Known { last: Some((last, bucket)), .. }) = self.known.get(index)
            && *last == value
        {
            return Ok(*bucket);
        }
        self.other_value(index, source, value)
    }

    fn other_value(
        &mut self,
        index: usize,
        source: &'s Source,
        value: &'a [u8],
    ) -> Result<Option<usize>, WireError> {
        self.know(index);
        let known = self.known.get(index).and_then(|known| known.all.get(value).copied());
        let bucket = match known {
            Some(bucket) => bucket,
            None => match AnyValue::parse(value)? {
                AnyValue::Empty => None,
                AnyValue::Str(text) => match std::str::from_utf8(text) {
                    Ok(text) => self.text(source, text),
                    Err(_) => {
                        self.invalid += 1;
                        None
                    }
                },
                AnyValue::Int(number) => self.text(source, &number.to_string()),
                AnyValue::Bool(yes) => self.text(source, if yes { "true" } else { "false" }),
                _ => {
                    self.invalid += 1;
                    None
                }
            },
        };
        if let Some(place) = self.known.get_mut(index) {
            place.last = Some((value, bucket));
            if known.is_none() && place.all.len() < REMEMBERED {
                place.all.insert(value, bucket);
            }
        }
        Ok(bucket)
    }

    fn text(&mut self, source: &Source, text: &str) -> Option<usize> {
        match source.tenant(text) {
            Ok(name) => name.map(|name| self.bucket(&name)),
            Err(_) => {
                self.invalid += 1;
                None
            }
        }
    }

    /// The bucket of a valid name.
    fn bucket(&mut self, name: &str) -> usize {
        if let Some(&bucket) = self.by_name.get(name) {
            return bucket;
        }
        let with = self.with;
        let bucket = match with.table.get(name, self.now) {
            Some(owner) => self.push(Bucket::Owner(owner)),
            None => match &with.overflow {
                // The configuration names it, so that there is room for it.
                Otherwise::Use(other) if other != name => self.bucket(other),
                _ => {
                    let place = self.no_room.unwrap_or_else(|| self.push(Bucket::Overflow));
                    self.no_room = Some(place);
                    place
                }
            },
        };
        // There are no more owners than the table has room for.
        if self.by_name.len() < REMEMBERED
            || matches!(self.buckets.get(bucket), Some(Bucket::Owner(o)) if o.name() == name)
        {
            self.by_name.insert(name.to_owned(), bucket);
        }
        bucket
    }

    fn unresolved(&mut self) -> usize {
        if let Some(bucket) = self.nobody {
            return bucket;
        }
        let with = self.with;
        let bucket = match &with.unresolved {
            Otherwise::Use(name) => self.bucket(name),
            _ => self.push(Bucket::Unresolved),
        };
        self.nobody = Some(bucket);
        bucket
    }

    fn push(&mut self, bucket: Bucket) -> usize {
        self.buckets.push(bucket);
        self.buckets.len() - 1
    }

    /// Sources of these levels have to be asked again.
    fn forget(&mut self, levels: impl Fn(Level) -> bool) {
        for (said, source) in self.said.iter_mut().zip(&self.with.sources) {
            if levels(source.level()) {
                *said = Said::NotAsked;
            }
        }
    }
}

impl<'a> Assign<'a> for Resolver<'_, 'a> {
    fn resource(&mut self, group: ResourceGroup<'a>) -> Result<Option<usize>, WireError> {
        self.group = Some(group);
        self.forget(|level| level > Level::Request);
        Ok(self.ask(0, Level::Resource, None)?.map_err(|next| self.below_resource = next).ok())
    }

    fn scope(&mut self, group: ScopeGroup<'a>) -> Result<Option<usize>, WireError> {
        self.scope = Some(group);
        self.forget(|level| level == Level::Scope);
        Ok(self.ask(self.below_resource, Level::Scope, None)?.map_err(|next| self.below_scope = next).ok())
    }

    #[inline]
    fn item(&mut self, kind: Kind, item: &'a [u8]) -> Result<usize, WireError> {
        let number = match self.signal {
            Signal::Traces => span::ATTRIBUTES,
            Signal::Logs => log_record::ATTRIBUTES,
            Signal::Metrics => attributes_field(kind),
        };
        // Nothing is further down than an item.
        Ok(self.ask(self.below_scope, Level::Item, Some((item, number)))?.unwrap_or_default())
    }
}

/// What rules leave as the name; `None` where they drop the labels.
fn left_by<'l>(rules: &[Rule], labels: &'l mut Labels) -> Option<&'l str> {
    relabel::apply(rules, labels).then(|| labels.get("__tenant__"))
}
