//! Running compiled rules on a message.

use md5::{Digest as _, Md5};

use super::label;
use super::pattern::{Buffers, Template};
use super::rules::{self, Act, Make, Op, Read, Rules, Step, Target};
use super::trace::{Effect, Trace, shown};
use crate::pdata::Tenant;
use crate::pdata::common::AnyValue;
use crate::pdata::fields::{log_record, metric, span};
use crate::pdata::wire::{Cursor, Value, WireError, put_varint};
use crate::processors::edit::{Fate, Kind, Level, Message};
use crate::prometheus::text::value_text;
use crate::relabel::{lower, upper};

/// What is kept while a batch is walked, and buffers that are used again for each message.
#[derive(Debug)]
pub(super) struct Scratch {
    slots: Vec<Slot>,
    buffers: Buffers,
    work: Work,
    map: Mapped,
}

/// The value of a label of a level above, or of a scratch label.
#[derive(Debug, Clone, Default)]
struct Slot {
    present: bool,
    text: Vec<u8>,
}

#[derive(Debug, Default)]
struct Work {
    /// The sources, joined.
    joined: Vec<u8>,
    /// A value that is no string, as text.
    text: String,
    /// What is set.
    value: Vec<u8>,
    /// The name of what is set, if it is computed; the name of an attribute with its prefix.
    name: Vec<u8>,
    /// What is set, encoded.
    encoded: Vec<u8>,
}

/// The attributes that `labelmap` copies.
#[derive(Debug, Default)]
struct Mapped {
    bytes: Vec<u8>,
    copies: Vec<Copy>,
}

/// An attribute, in the bytes of [`Mapped`]: its key, the new key and its value end to end.
#[derive(Debug, Clone, Copy)]
struct Copy {
    start: usize,
    key: usize,
    to: usize,
    end: usize,
    place: usize,
}

/// What a message is seen with.
struct Sight<'a, 'm> {
    message: &'a Message<'m>,
    slots: &'a [Slot],
    tenant: Option<&'a Tenant>,
}

impl Scratch {
    /// Room for some rules.
    pub(super) fn new(rules: &Rules) -> Self {
        Scratch {
            slots: vec![Slot::default(); rules.slots],
            buffers: Buffers::new(rules.patterns().into_iter()),
            work: Work::default(),
            map: Mapped::default(),
        }
    }
}

impl Rules {
    /// Does what is to be done when this message is shown.
    ///
    /// # Errors
    /// An attribute that a rule looks at cannot be read.
    pub(super) fn run<T: Trace>(
        &self,
        message: &mut Message<'_>,
        tenant: Option<&Tenant>,
        scratch: &mut Scratch,
        trace: &mut T,
    ) -> Result<Fate, WireError> {
        for op in self.at(message.level()) {
            match op {
                Op::Keep { read, slot } => {
                    let Some(slot) = scratch.slots.get_mut(*slot) else { continue };
                    let sight = Sight { message, slots: &[], tenant };
                    let value = sight.read(read, &mut scratch.work.text)?;
                    slot.set(value);
                }
                Op::Rule(step) => {
                    if !step.run(message, tenant, scratch, trace)? {
                        return Ok(Fate::Drop);
                    }
                }
            }
        }
        Ok(Fate::Keep)
    }
}

impl Slot {
    fn set(&mut self, value: Option<&[u8]>) {
        self.present = value.is_some();
        self.text.clear();
        self.text.extend_from_slice(value.unwrap_or_default());
    }

    fn get(&self) -> Option<&[u8]> {
        self.present.then_some(&self.text)
    }
}

impl Step {
    /// Runs the rule; `false` if it drops the message.
    fn run<T: Trace>(
        &self,
        message: &mut Message<'_>,
        tenant: Option<&Tenant>,
        scratch: &mut Scratch,
        trace: &mut T,
    ) -> Result<bool, WireError> {
        let Scratch { slots, buffers, work, map } = scratch;
        let Work { joined, text, value, name, encoded } = work;
        match &self.act {
            Act::Map { prefix, to } => {
                map.read(self, prefix, to, message, buffers, text, name)?;
                return self.map(map, message, text, encoded, trace).map(|()| true);
            }
            Act::Names { prefix, keep } => {
                self.names(prefix, *keep, message, buffers, name, trace);
                return Ok(true);
            }
            _ => {}
        }
        let sight = Sight { message, slots, tenant };
        let source = sight.source(self, joined, text)?;
        let (target, make) = match &self.act {
            Act::Match { keep } => {
                let matched = self.pattern.is_match(source, buffers);
                if T::ON {
                    let source = shown(source);
                    trace.note(
                        self.index,
                        if matched == *keep {
                            Effect::Kept { source, matched }
                        } else {
                            Effect::Dropped { what: rules::name_of(message.level()), source, matched }
                        },
                    );
                }
                return Ok(matched == *keep);
            }
            Act::Equal { keep, to } => {
                let mut other = String::new();
                let to = sight.read(to, &mut other)?.unwrap_or_default();
                let equal = source == to;
                if T::ON {
                    let (source, to) = (shown(source), shown(to));
                    trace.note(
                        self.index,
                        if equal == *keep {
                            Effect::KeptBeside { source, to }
                        } else {
                            Effect::DroppedBeside { what: rules::name_of(message.level()), source, to }
                        },
                    );
                }
                return Ok(equal == *keep);
            }
            Act::Set { target, make } => (target, make),
            Act::Map { .. } | Act::Names { .. } => return Ok(true),
        };
        value.clear();
        name.clear();
        match make {
            Make::Template(template) => {
                let Some(groups) = self.pattern.groups(source, buffers) else {
                    if T::ON {
                        trace.note(self.index, Effect::NoMatch { source: shown(source) });
                    }
                    if let Target::Scratch { from, to, .. } = target {
                        carry(slots, *from, *to);
                    }
                    return Ok(true);
                };
                if let Target::Computed(_, name_template) = target {
                    name_template.expand(&groups, name);
                }
                template.expand(&groups, value);
            }
            Make::Hash(modulus) => {
                let digest: [u8; 16] = Md5::digest(source).into();
                put_number(u128::from_be_bytes(digest) as u64 % modulus, value);
            }
            Make::Lower => change_case(source, value, u8::to_ascii_lowercase, lower),
            Make::Upper => change_case(source, value, u8::to_ascii_uppercase, upper),
        }
        let key: &[u8] = match target {
            Target::Key(key) => key,
            Target::Computed(level, _) => match label::computed_key(*level, name) {
                Some(key) => key,
                None => {
                    if T::ON {
                        trace.note(self.index, Effect::NoName { name: shown(name) });
                    }
                    return Ok(true);
                }
            },
            Target::Name => {
                set_name(self.index, message, value, trace)?;
                return Ok(true);
            }
            Target::Scratch { name, from, to } => {
                if T::ON {
                    let before = from.and_then(|from| slots.get(from)?.get()).unwrap_or_default();
                    trace.note(self.index, Effect::of(name.clone(), before, value));
                }
                if let Some(slot) = slots.get_mut(*to) {
                    slot.set((!value.is_empty()).then_some(value.as_slice()));
                }
                return Ok(true);
            }
        };
        set(self.index, message, key, value, text, encoded, trace)?;
        Ok(true)
    }

    /// Sets what `labelmap` copies.
    fn map<T: Trace>(
        &self,
        map: &Mapped,
        message: &mut Message<'_>,
        text: &mut String,
        encoded: &mut Vec<u8>,
        trace: &mut T,
    ) -> Result<(), WireError> {
        for copy in &map.copies {
            let name = map.bytes.get(copy.key..copy.to).unwrap_or_default();
            let value = map.bytes.get(copy.to..copy.end).unwrap_or_default();
            match label::computed_key(message.level(), name) {
                Some(key) => set(self.index, message, key, value, text, encoded, trace)?,
                None if T::ON => trace.note(self.index, Effect::NoName { name: shown(name) }),
                None => {}
            }
        }
        if T::ON && map.copies.is_empty() {
            trace.note(self.index, Effect::NoNames);
        }
        Ok(())
    }

    fn names<T: Trace>(
        &self,
        prefix: &str,
        keep: bool,
        message: &mut Message<'_>,
        buffers: &mut Buffers,
        name: &mut Vec<u8>,
        trace: &mut T,
    ) {
        let mut any = false;
        for place in 0..message.places() {
            let Some((key, value)) = message.attribute_at(place) else { continue };
            if self.pattern.is_match(with_prefix(prefix, key, name), buffers) == keep {
                continue;
            }
            any = true;
            if T::ON {
                let mut was = String::new();
                let was = text_of(value, &mut was).map(shown).unwrap_or_default();
                trace.note(self.index, Effect::Deleted { label: labelled(message.level(), key), was });
            }
            message.delete_attribute_at(place);
        }
        if T::ON && !any {
            trace.note(self.index, Effect::NoNames);
        }
    }
}

impl Mapped {
    /// Reads the attributes whose names match, as they are before any of them is copied.
    #[allow(clippy::too_many_arguments, reason = "buffers that must not be one borrow")]
    fn read(
        &mut self,
        step: &Step,
        prefix: &str,
        to: &Template,
        message: &Message<'_>,
        buffers: &mut Buffers,
        text: &mut String,
        name: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        self.bytes.clear();
        self.copies.clear();
        for (place, key, value) in message.attributes() {
            let name = with_prefix(prefix, key, name);
            let Some(groups) = step.pattern.groups(name, buffers) else { continue };
            let start = self.bytes.len();
            self.bytes.extend_from_slice(key);
            let key = self.bytes.len();
            to.expand(&groups, &mut self.bytes);
            let to = self.bytes.len();
            self.bytes.extend_from_slice(text_of(value, text)?);
            self.copies.push(Copy { start, key, to, end: self.bytes.len(), place });
        }
        // In the order of names, of which the last one wins; of a name that stands twice the first one counts.
        let bytes = &self.bytes;
        let key = |copy: &Copy| bytes.get(copy.start..copy.key).unwrap_or_default();
        self.copies.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.place.cmp(&b.place)));
        self.copies.dedup_by(|later, first| key(later) == key(first));
        self.copies.retain(|copy| copy.to < copy.end);
        Ok(())
    }
}

impl<'a> Sight<'a, '_> {
    /// The sources of a rule, joined.
    #[inline]
    fn source(
        &self,
        step: &Step,
        joined: &'a mut Vec<u8>,
        text: &'a mut String,
    ) -> Result<&'a [u8], WireError> {
        if let [only] = step.sources.as_slice() {
            return Ok(self.read(only, text)?.unwrap_or_default());
        }
        joined.clear();
        for (i, read) in step.sources.iter().enumerate() {
            if i > 0 {
                joined.extend_from_slice(&step.separator);
            }
            self.append(read, text, joined)?;
        }
        Ok(joined)
    }

    fn append(&self, read: &Read, text: &mut String, out: &mut Vec<u8>) -> Result<(), WireError> {
        let sight = Sight { message: self.message, slots: self.slots, tenant: self.tenant };
        out.extend_from_slice(sight.read(read, text)?.unwrap_or_default());
        Ok(())
    }

    /// The value of a label; `None` if it is not there.
    #[inline]
    fn read<'t>(&self, read: &Read, text: &'t mut String) -> Result<Option<&'t [u8]>, WireError>
    where
        'a: 't,
    {
        let slot = |slot: &usize| self.slots.get(*slot).and_then(Slot::get);
        Ok(match read {
            Read::Own(key) => match self.message.attribute(key) {
                Some(any) => Some(text_of(any, text)?),
                None => None,
            },
            Read::Nearest { key, scope, resource } => match self.message.attribute(key) {
                Some(any) => Some(text_of(any, text)?),
                None => slot(scope).or_else(|| slot(resource)),
            },
            Read::Slot(at) => slot(at),
            Read::Name => name_of(self.message)?,
            Read::Kind => kind_of(self.message)?,
            Read::Severity => severity_of(self.message)?,
            Read::Tenant => self.tenant.map(|tenant| tenant.name().as_bytes()),
            Read::Missing => None,
        })
    }
}

/// Sets an attribute of the message, or deletes it. What is there already as text stays as it is.
fn set<T: Trace>(
    rule: usize,
    message: &mut Message<'_>,
    key: &[u8],
    value: &[u8],
    text: &mut String,
    encoded: &mut Vec<u8>,
    trace: &mut T,
) -> Result<(), WireError> {
    let before = match message.attribute(key) {
        Some(any) => text_of(any, text)?,
        None => &[],
    };
    if T::ON {
        trace.note(rule, Effect::of(labelled(message.level(), key), before, value));
    }
    if value.is_empty() {
        message.delete_attribute(key);
    } else if before != value {
        encoded.clear();
        encoded.push(0x0a);
        put_varint(encoded, value.len() as u64);
        encoded.extend_from_slice(value);
        message.set_attribute(key, encoded)?;
    }
    Ok(())
}

fn set_name<T: Trace>(
    rule: usize,
    message: &mut Message<'_>,
    value: &[u8],
    trace: &mut T,
) -> Result<(), WireError> {
    let Some(field) = name_field(message.kind()) else { return Ok(()) };
    if T::ON {
        let before = name_of(message)?.unwrap_or_default();
        trace.note(rule, Effect::of("__name__".to_owned(), before, value));
    }
    if value.is_empty() { message.clear_field(field) } else { message.set_field(field, Value::Bytes(value)) }
}

/// Keeps a scratch label as it was.
fn carry(slots: &mut [Slot], from: Option<usize>, to: usize) {
    let kept = from.and_then(|from| slots.get_mut(from)).map(std::mem::take);
    if let Some(slot) = slots.get_mut(to) {
        slot.set(kept.as_ref().and_then(Slot::get));
    }
    if let (Some(from), Some(kept)) = (from, kept)
        && let Some(slot) = slots.get_mut(from)
    {
        *slot = kept;
    }
}

/// The name of an attribute as rules about names see it.
fn with_prefix<'a>(prefix: &str, key: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if prefix.is_empty() {
        return key;
    }
    buffer.clear();
    buffer.extend_from_slice(prefix.as_bytes());
    buffer.extend_from_slice(key);
    buffer
}

/// The name of an attribute of a level as a label.
pub(super) fn labelled(level: Level, key: &[u8]) -> String {
    format!("{}{}", label::prefix(level), shown(key))
}

/// An attribute's value as text: a string's own bytes, or what `text` is filled with.
#[inline]
pub(super) fn text_of<'a>(any: &'a [u8], text: &'a mut String) -> Result<&'a [u8], WireError> {
    // Nearly every value there is.
    if let [0x0a, len @ ..=0x7f, string @ ..] = any
        && string.len() == usize::from(*len)
    {
        return Ok(string);
    }
    match AnyValue::parse(any)? {
        AnyValue::Str(string) => Ok(string),
        other => {
            text.clear();
            value_text(&other, text);
            Ok(text.as_bytes())
        }
    }
}

/// The field in which a message's name stands.
fn name_field(kind: Kind) -> Option<u32> {
    match kind {
        Kind::Metric => Some(metric::NAME),
        Kind::Span => Some(span::NAME),
        Kind::Log => Some(log_record::EVENT_NAME),
        _ => None,
    }
}

/// The name of a metric or span, the event name of a log record.
pub(super) fn name_of<'a>(message: &'a Message<'_>) -> Result<Option<&'a [u8]>, WireError> {
    let Some(field) = name_field(message.kind()) else { return Ok(None) };
    message.field(field)?.map(Value::bytes).transpose()
}

/// The kind of a span, the type of a metric.
pub(super) fn kind_of(message: &Message<'_>) -> Result<Option<&'static [u8]>, WireError> {
    let kind: &str = match message.kind() {
        Kind::Span => match message.field(span::KIND)?.map(Value::varint).transpose()? {
            Some(1) => "internal",
            Some(2) => "server",
            Some(3) => "client",
            Some(4) => "producer",
            Some(5) => "consumer",
            _ => return Ok(None),
        },
        Kind::Metric => {
            // No step changes what kind of data it has. The last one counts.
            let mut found = None;
            let mut fields = Cursor::new(message.original());
            while let Some(field) = fields.next_field()? {
                found = match field.number {
                    metric::GAUGE => Some("gauge"),
                    metric::SUM => Some("sum"),
                    metric::HISTOGRAM => Some("histogram"),
                    metric::EXPONENTIAL_HISTOGRAM => Some("exponential_histogram"),
                    metric::SUMMARY => Some("summary"),
                    _ => found,
                };
            }
            match found {
                Some(found) => found,
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(kind.as_bytes()))
}

/// The severity of a log record: its text, else the short name of its number.
pub(super) fn severity_of<'a>(message: &'a Message<'_>) -> Result<Option<&'a [u8]>, WireError> {
    if message.kind() != Kind::Log {
        return Ok(None);
    }
    if let Some(text) = message.field(log_record::SEVERITY_TEXT)? {
        let text = text.bytes()?;
        if !text.is_empty() {
            return Ok(Some(text));
        }
    }
    let number = message.field(log_record::SEVERITY_NUMBER)?.map(Value::varint).transpose()?;
    Ok(number.and_then(severity_name).map(str::as_bytes))
}

/// The short name of a severity's number.
fn severity_name(number: u64) -> Option<&'static str> {
    const NAMES: [&str; 24] = [
        "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4", "INFO", "INFO2",
        "INFO3", "INFO4", "WARN", "WARN2", "WARN3", "WARN4", "ERROR", "ERROR2", "ERROR3", "ERROR4", "FATAL",
        "FATAL2", "FATAL3", "FATAL4",
    ];
    // An enum is 32 bits wide.
    NAMES.get(usize::try_from((number as u32).checked_sub(1)?).ok()?).copied()
}

fn put_number(number: u64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to memory cannot fail.
    let _ = write!(out, "{number}");
}

/// Appends text with each character mapped; wrong bytes stay.
fn change_case(text: &[u8], out: &mut Vec<u8>, ascii: fn(&u8) -> u8, map: fn(char) -> char) {
    if text.is_ascii() {
        out.extend(text.iter().map(ascii));
        return;
    }
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            out.extend_from_slice(map(c).encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.extend_from_slice(chunk.invalid());
    }
}
