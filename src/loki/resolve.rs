//! The long way: what a resource, a scope and a record say about labels, metadata, tenant and format.
//!
//! This is the specification of the mapping; the encoder asks it once for what it has not seen.

use super::metadata::{Block, Metadata};
use super::names::{Names, SCOPE_DROPPED, SCOPE_NAME, SCOPE_VERSION};
use super::sources::{LabelSource, find, level, old_level};
use super::{DEFAULT_LABELS, Format, LokiOptions, Unfit};
use crate::pdata::MAX_VALUE_DEPTH;
use crate::pdata::common::{AnyValue, Attributes, Fields, ResourceGroup, ScopeGroup};
use crate::pdata::fields::{scope, scope_group};
use crate::pdata::logs::LogRecord;
use crate::pdata::wire::WireError;
use crate::prometheus::names::loki_label;
use crate::prometheus::text::value_text;
use crate::relabel::{self, Labels};

/// The label that Loki gives what has none.
pub(super) const SERVICE_NAME: &str = "service_name";
const UNKNOWN: &str = "unknown_service";

const RESOURCE_LABELS: &[u8] = b"loki.resource.labels";
const ATTRIBUTE_LABELS: &[u8] = b"loki.attribute.labels";
const FORMAT: &[u8] = b"loki.format";
const TENANT: &[u8] = b"loki.tenant";

/// What hint attributes say.
#[derive(Debug, Default)]
pub(super) struct Hints {
    resource_labels: Vec<String>,
    attribute_labels: Vec<String>,
    format: Option<Format>,
    tenant: Option<String>,
}

/// What holds for all records under a resource and a scope, apart from their own attributes.
#[derive(Debug)]
pub(super) struct Above {
    /// The hash of everything that it was made from.
    pub key: u128,
    /// Attributes of records that have a say in the stream.
    pub wanted: Vec<Wanted>,
    /// What resource and scope give every entry.
    pub block: Block,
    /// Keys in it of which no name is left.
    pub nameless: u64,
    /// The line.
    pub format: Format,
    /// The key under which the stream was found, where no attribute has a say.
    pub direct: Option<u32>,
    /// Whether the hints of a record are in it.
    pub hinted: bool,
    hints: Hints,
}

/// An attribute of records that has a say in the stream.
#[derive(Debug)]
pub(super) struct Wanted {
    pub key: Box<[u8]>,
    /// Whether it is metadata all the same.
    pub keep: bool,
}

/// A record's stream.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub labels: Labels,
    /// What is metadata instead of a label.
    pub demoted: Vec<(String, String)>,
    pub tenant: Option<String>,
    pub dropped: u64,
    pub truncated: u64,
}

/// A resource, a scope and a record under them.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub group: ResourceGroup<'a>,
    pub scope: ScopeGroup<'a>,
    pub record: LogRecord<'a>,
}

/// Whether a key is a hint, which is never sent.
#[inline]
pub(super) fn is_hint(key: &[u8]) -> bool {
    key.starts_with(b"loki.") && [RESOURCE_LABELS, ATTRIBUTE_LABELS, FORMAT, TENANT].contains(&key)
}

impl Hints {
    /// Reads hints; those that were read before win where there is but one.
    fn read(&mut self, attributes: Attributes<'_>) -> Result<(), WireError> {
        for pair in attributes {
            let (key, value) = pair?;
            match key {
                RESOURCE_LABELS => put_list(&value, &mut self.resource_labels)?,
                ATTRIBUTE_LABELS => put_list(&value, &mut self.attribute_labels)?,
                FORMAT if self.format.is_none() => {
                    let mut text = String::new();
                    value_text(&value, &mut text);
                    self.format = match text.trim() {
                        "raw" => Some(Format::Raw),
                        "json" => Some(Format::Json),
                        "logfmt" => Some(Format::Logfmt),
                        _ => None,
                    };
                }
                TENANT if self.tenant.is_none() => {
                    let mut text = String::new();
                    value_text(&value, &mut text);
                    self.tenant = Some(text).filter(|text| !text.is_empty());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Above {
    /// Reads what resource and scope say, and the hints of a record if it has any.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn read(
        options: &LokiOptions,
        key: u128,
        place: &Place<'_>,
        hinted: bool,
        names: &mut Names,
        maker: &mut Metadata,
    ) -> Result<Self, WireError> {
        let mut hints = Hints::default();
        hints.read(place.group.attributes())?;
        if hinted {
            hints.read(place.record.attributes())?;
        }
        let sources = || options.labels.iter().map(|(_, source)| source);
        maker.begin(names);
        if options.structured_metadata {
            for pair in place.group.attributes() {
                let (key, value) = pair?;
                let is_key = |text: &str| text.as_bytes() == key;
                let label = sources().any(|s| matches!(s, LabelSource::Resource(k) if is_key(k)))
                    || hints.resource_labels.iter().any(|k| is_key(k));
                if !label && !is_hint(key) {
                    maker.attribute(names, key, &value)?;
                }
            }
            scope_metadata(options, place.scope, names, maker)?;
        }
        let mut wanted: Vec<Wanted> = Vec::new();
        let keys = sources().filter_map(|s| if let LabelSource::Record(key) = s { Some(key) } else { None });
        for key in keys.chain(&hints.attribute_labels) {
            if !wanted.iter().any(|w| *w.key == *key.as_bytes()) {
                wanted.push(Wanted { key: key.as_bytes().into(), keep: false });
            }
        }
        let tenant = hints.tenant.as_deref().unwrap_or(&options.tenant_attribute);
        if !tenant.is_empty() && !wanted.iter().any(|w| *w.key == *tenant.as_bytes()) {
            wanted.push(Wanted { key: tenant.as_bytes().into(), keep: true });
        }
        Ok(Above {
            key,
            wanted,
            block: Block::of(maker, names),
            nameless: maker.nameless,
            format: hints.format.unwrap_or(options.format),
            direct: None,
            hinted,
            hints,
        })
    }

    /// Bytes it takes, about.
    pub fn held(&self) -> usize {
        512 + self.block.held() + self.wanted.iter().map(|w| w.key.len() + 32).sum::<usize>()
    }

    /// The resource attributes that are labels by a hint.
    pub fn hinted_resource_labels(&self) -> &[String] {
        &self.hints.resource_labels
    }

    /// The stream of a record.
    ///
    /// # Errors
    /// Something cannot be read; or, inside, why the record is dropped.
    pub fn resolve(
        &self,
        options: &LokiOptions,
        place: &Place<'_>,
    ) -> Result<Result<Resolved, &'static str>, WireError> {
        let mut resolved = Resolved::default();
        let labels = &mut resolved.labels;
        let resource = place.group.attributes();
        let own = place.record.attributes();
        old_labels(options, place, labels)?;
        for (name, source) in &options.labels {
            let number;
            let value = match source {
                LabelSource::Resource(key) => find(resource, key.as_bytes())?,
                LabelSource::Scope(key) => find(place.scope.attributes(), key.as_bytes())?,
                LabelSource::Record(key) => find(own, key.as_bytes())?,
                LabelSource::ScopeName => Some(AnyValue::Str(place.scope.name()?)),
                LabelSource::ScopeVersion => Some(AnyValue::Str(place.scope.version()?)),
                LabelSource::SeverityText => Some(AnyValue::Str(place.record.severity_text)),
                LabelSource::SeverityNumber => {
                    number = place.record.severity_number;
                    (number != 0).then_some(AnyValue::Int(i64::from(number)))
                }
                LabelSource::Level => Some(AnyValue::Str(level(place.record.severity_number).as_bytes())),
            };
            if let Some(value) = value {
                put_label(labels, name.as_deref().unwrap_or(source.key()), &value, 0)?;
            }
        }
        for (keys, attributes) in
            [(&self.hints.resource_labels, resource), (&self.hints.attribute_labels, own)]
        {
            for key in keys {
                if let Some(value) = find(attributes, key.as_bytes())? {
                    put_label(labels, key, &value, 0)?;
                }
            }
        }
        for (name, value) in &options.static_labels {
            labels.set(name, value.as_str());
        }
        if !relabel::apply(&options.relabel, labels) {
            return Ok(Err("relabel"));
        }
        labels.retain(|name, _| !name.starts_with("__"));
        limit(options, &mut resolved);
        let key = self.hints.tenant.as_deref().unwrap_or(&options.tenant_attribute).as_bytes();
        if !key.is_empty() {
            let found = match find(resource, key)? {
                Some(found) => Some(found),
                None => find(own, key)?,
            };
            let mut text = String::new();
            found.iter().for_each(|value| value_text(value, &mut text));
            resolved.tenant = Some(text).filter(|text| !text.is_empty());
        }
        Ok(Ok(resolved))
    }
}

impl Resolved {
    /// Makes a label metadata.
    pub fn demote(&mut self, name: &str) {
        let value = self.labels.get(name).to_owned();
        self.labels.set(name, "");
        if !value.is_empty() {
            self.demoted.push((name.to_owned(), value));
        }
    }

    /// Gives labels to what has none, which Loki would refuse.
    pub fn complete(&mut self) {
        if self.labels.is_empty() {
            self.labels.set(SERVICE_NAME, UNKNOWN);
        }
    }
}

/// Scope fields and attributes.
fn scope_metadata(
    options: &LokiOptions,
    scope: ScopeGroup<'_>,
    names: &mut Names,
    maker: &mut Metadata,
) -> Result<(), WireError> {
    for pair in scope.attributes() {
        let (key, value) = pair?;
        let is_key = |source: &LabelSource| matches!(source, LabelSource::Scope(k) if k.as_bytes() == key);
        if !options.labels.iter().any(|(_, source)| is_key(source)) {
            maker.attribute(names, key, &value)?;
        }
    }
    let is_label = |wanted: &LabelSource| options.labels.iter().any(|(_, source)| source == wanted);
    for (id, value, source) in [
        (SCOPE_NAME, scope.name()?, LabelSource::ScopeName),
        (SCOPE_VERSION, scope.version()?, LabelSource::ScopeVersion),
    ] {
        if !value.is_empty() && !is_label(&source) && maker.claim(id) {
            maker.put_text(names, id, value);
        }
    }
    let mut dropped = 0;
    for count in Fields::within(scope.message(), scope_group::SCOPE, scope::DROPPED_ATTRIBUTES_COUNT) {
        dropped = count?.varint()? as u32;
    }
    if dropped != 0 && maker.claim(SCOPE_DROPPED) {
        maker.put(names, SCOPE_DROPPED, dropped.to_string().as_bytes());
    }
    Ok(())
}

/// The labels of the Collector's old exporter.
fn old_labels(options: &LokiOptions, place: &Place<'_>, labels: &mut Labels) -> Result<(), WireError> {
    let old = options.old_labels;
    let text = |key: &str| -> Result<String, WireError> {
        let mut out = String::new();
        let value = place.group.attributes().get(key.as_bytes())?;
        value.iter().for_each(|value| value_text(value, &mut out));
        Ok(out)
    };
    if old.exporter {
        labels.set("exporter", "OTLP");
    }
    if old.job {
        let (namespace, name) = (text("service.namespace")?, text("service.name")?);
        let job = if namespace.is_empty() || name.is_empty() { name } else { format!("{namespace}/{name}") };
        labels.set("job", job);
    }
    if old.instance {
        labels.set("instance", text("service.instance.id")?);
    }
    if old.level && place.record.attributes().get(b"level")?.is_none() {
        labels.set("level", old_level(place.record.severity_number));
    }
    Ok(())
}

/// Sets a label, for a map one for each value in it. A name of which nothing is left sets none.
fn put_label(labels: &mut Labels, key: &str, value: &AnyValue<'_>, depth: u32) -> Result<(), WireError> {
    let mut name = String::new();
    if loki_label(key, &mut name).is_err() {
        return Ok(());
    }
    match value {
        AnyValue::KvList(map) => {
            if depth < MAX_VALUE_DEPTH {
                for pair in map.pairs() {
                    let (inner, value) = pair?;
                    let path = format!("{name}_{}", String::from_utf8_lossy(inner));
                    put_label(labels, &path, &value, depth + 1)?;
                }
            }
        }
        value => {
            let mut text = String::new();
            value_text(value, &mut text);
            if !text.is_empty() {
                labels.set(&name, text);
            }
        }
    }
    Ok(())
}

/// Brings labels within the limits.
fn limit(options: &LokiOptions, resolved: &mut Resolved) {
    let limits = &options.limits;
    let names: Vec<(String, usize)> =
        resolved.labels.iter().map(|(name, value)| (name.to_owned(), value.len())).collect();
    for (name, len) in names {
        // Relabelling with UTF-8 names is not done for Loki; what has no name here has none there.
        if name.len() > limits.label_name {
            resolved.labels.set(&name, "");
            resolved.dropped += 1;
        } else if len > limits.label_value {
            match limits.long_label {
                Unfit::Demote => resolved.demote(&name),
                Unfit::Drop => {
                    resolved.labels.set(&name, "");
                    resolved.dropped += 1;
                }
                Unfit::Truncate => {
                    let value = cut(resolved.labels.get(&name), limits.label_value).to_owned();
                    resolved.labels.set(&name, value);
                    resolved.truncated += 1;
                }
            }
        }
    }
    let counted = |resolved: &Resolved| {
        resolved.labels.len() - usize::from(!resolved.labels.get(SERVICE_NAME).is_empty())
    };
    if counted(resolved) <= limits.labels {
        return;
    }
    let weight = |name: &str| {
        let place = DEFAULT_LABELS.iter().position(|key| key.replace('.', "_") == name);
        place.map_or(0, |place| place + 1)
    };
    let mut names: Vec<(usize, String)> =
        resolved.labels.iter().map(|(name, _)| (weight(name), name.to_owned())).collect();
    names.retain(|(_, name)| name != SERVICE_NAME);
    names.sort();
    for (_, name) in names.split_off(limits.labels.min(names.len())) {
        match limits.many_labels {
            Unfit::Drop => {
                resolved.labels.set(&name, "");
                resolved.dropped += 1;
            }
            Unfit::Demote | Unfit::Truncate => resolved.demote(&name),
        }
    }
}

/// As much of the start of a text as fits.
pub(crate) fn cut(text: &str, len: usize) -> &str {
    let mut end = len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// A list of names: text with commas, or a list of texts.
fn put_list(value: &AnyValue<'_>, out: &mut Vec<String>) -> Result<(), WireError> {
    let mut put = |text: &str| {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        out.extend(names.map(str::to_owned));
    };
    if let AnyValue::Array(list) = value {
        for item in list.values() {
            let mut text = String::new();
            value_text(&item?, &mut text);
            put(&text);
        }
        return Ok(());
    }
    let mut text = String::new();
    value_text(value, &mut text);
    put(&text);
    Ok(())
}
