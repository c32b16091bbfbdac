//! OTLP/JSON text to a protobuf request.
//!
//! One pass. A nested message is written behind a length prefix of guessed width; when it closes, a wrong
//! guess moves its bytes, so each byte is copied at most once a level of nesting and usually once in all.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::lex::{Fault, Lexer, Str, number_len};
use super::schema::{Field, Kind, Label, Message, Size, request};
use super::{JsonError, Limit, Limits};
use crate::pdata::Signal;
use crate::pdata::wire::{put_tag, put_varint, varint_len};

const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
static STANDARD_BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, BASE64);
static URL_BASE64: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, BASE64);

/// Turns one OTLP/JSON document into the protobuf request it stands for.
///
/// # Errors
/// Where the document is not JSON, not UTF-8, not an OTLP request of this signal, or beyond a limit.
pub fn decode(signal: Signal, json: &[u8], limits: Limits) -> Result<Vec<u8>, JsonError> {
    if let Err(fault) = std::str::from_utf8(json) {
        let at = fault.valid_up_to();
        return Err(Fault::new(at, "the document is not valid UTF-8").into_error(json));
    }
    let mut decoder = Decoder {
        lex: Lexer::new(json),
        out: Vec::with_capacity(json.len() / 2),
        scratch: Vec::new(),
        limits,
        depth: 0,
    };
    decoder.document(request(signal)).map_err(|fault| fault.into_error(json))?;
    Ok(decoder.out)
}

struct Decoder<'a> {
    lex: Lexer<'a>,
    out: Vec<u8>,
    /// Resolved text of the string at hand, when it has escapes.
    scratch: Vec<u8>,
    limits: Limits,
    /// AnyValues open now.
    depth: u32,
}

/// A length prefix that is not known yet.
struct Open {
    /// Where the tag starts.
    tag: usize,
    /// Where the prefix starts.
    prefix: usize,
    /// Bytes set aside for it.
    width: usize,
}

/// A number or a string that holds one.
struct Number<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    fn document(&mut self, table: &'static Message) -> Result<(), Fault> {
        self.message(table)?;
        match self.lex.peek() {
            None => Ok(()),
            Some(_) => Err(self.lex.unexpected("the end of the document")),
        }
    }

    /// An object, as the fields of `table`.
    fn message(&mut self, table: &'static Message) -> Result<(), Fault> {
        if !table.recursive {
            return self.members(table);
        }
        if self.depth >= self.limits.depth {
            let message = format!("values are nested more than {} levels deep", self.limits.depth);
            return Err(Fault::limit(self.lex.pos(), Limit::Depth, message));
        }
        self.depth += 1;
        let done = self.members(table);
        self.depth -= 1;
        done
    }

    fn members(&mut self, table: &'static Message) -> Result<(), Fault> {
        if self.lex.peek() != Some(b'{') {
            return Err(self.lex.unexpected(&format!("an object ({})", table.name)));
        }
        self.lex.bump();
        if self.lex.peek() == Some(b'}') {
            self.lex.bump();
            return Ok(());
        }
        let mut seen = 0u32;
        let mut next = 0usize;
        loop {
            let name = self.lex.string("a member name")?;
            self.lex.expect(b':', "':'")?;
            match self.find(table, name, next) {
                Some((_, Field { kind: Kind::Absent, .. })) | None => self.lex.skip(self.limits.depth)?,
                Some((index, field)) => {
                    let again = seen & (1 << index) != 0;
                    seen |= 1 << index;
                    next = index + 1;
                    self.member(field, again)?;
                }
            }
            match self.lex.peek() {
                Some(b',') => self.lex.bump(),
                Some(b'}') => {
                    self.lex.bump();
                    return Ok(());
                }
                _ => return Err(self.lex.unexpected("',' or '}'")),
            }
        }
    }

    /// The field a member name stands for, tried first at `next`, where documents in order have it.
    fn find(
        &mut self,
        table: &'static Message,
        name: Str<'a>,
        next: usize,
    ) -> Option<(usize, &'static Field)> {
        let mut key = name.raw;
        if name.escaped || key.contains(&b'_') {
            self.scratch.clear();
            name.append_to(&mut self.scratch);
            camel_case(&mut self.scratch);
            key = &self.scratch;
        }
        let hit = |(_, field): &(usize, &'static Field)| field.json.as_bytes() == key;
        let mut fields = table.fields.iter().enumerate();
        match table.fields.get(next).map(|field| (next, field)).filter(hit) {
            Some(found) => Some(found),
            None => fields.find(hit),
        }
    }

    fn member(&mut self, field: &'static Field, again: bool) -> Result<(), Fault> {
        // The path is built only when there is a fault to report.
        if self.lex.null().map_err(|fault| fault.within(field.json))? {
            return Ok(());
        }
        if field.label == Label::Repeated {
            return self.list(field);
        }
        // A default that follows another value must be written to win over it.
        let keep_default = again || field.label != Label::Plain;
        self.value(field, keep_default).map_err(|fault| fault.within(field.json))
    }

    fn list(&mut self, field: &'static Field) -> Result<(), Fault> {
        self.lex.expect(b'[', "an array").map_err(|fault| fault.within(field.json))?;
        if self.lex.peek() == Some(b']') {
            self.lex.bump();
            return Ok(());
        }
        let packed = field.kind.wire_type() != 2;
        let open = packed.then(|| self.open(field.number, Size::Small));
        let mut index = 0usize;
        loop {
            let element = match field.kind {
                Kind::Message(table) => self.element(field, table),
                _ if packed => self.scalar(field, None),
                _ => self.value(field, true),
            };
            element.map_err(|fault| fault.within(format!("[{index}]")).within(field.json))?;
            index += 1;
            match self.lex.peek() {
                Some(b',') => self.lex.bump(),
                Some(b']') => {
                    self.lex.bump();
                    break;
                }
                _ => return Err(self.lex.unexpected("',' or ']'").within(field.json)),
            }
        }
        match open {
            Some(open) => self.close(open),
            None => Ok(()),
        }
    }

    /// One message of a list. `null` is no element, but in a list of values it keeps its place, empty.
    fn element(&mut self, field: &'static Field, table: &'static Message) -> Result<(), Fault> {
        if !self.lex.null()? {
            return self.value(field, true);
        }
        if table.recursive {
            put_tag(&mut self.out, field.number, 2);
            put_varint(&mut self.out, 0);
        }
        Ok(())
    }

    /// One value with its tag; nothing for a default that need not be kept.
    fn value(&mut self, field: &'static Field, keep_default: bool) -> Result<(), Fault> {
        match field.kind {
            Kind::Message(table) => {
                let open = self.open(field.number, table.size);
                self.message(table)?;
                self.close(open)
            }
            Kind::String => {
                let text = self.lex.string("a string")?;
                if text.raw.is_empty() && !keep_default {
                    return Ok(());
                }
                if !text.escaped {
                    put_tag(&mut self.out, field.number, 2);
                    put_varint(&mut self.out, text.raw.len() as u64);
                    self.out.extend_from_slice(text.raw);
                    return Ok(());
                }
                let open = self.open_for(field.number, text.raw.len());
                text.append_to(&mut self.out);
                self.close(open)
            }
            Kind::Id(len) => self.id(field, len, keep_default),
            Kind::Bytes => self.base64(field, keep_default),
            _ => self.scalar(field, Some(keep_default)),
        }
    }

    /// A number or boolean; `keep_default` is `None` inside a packed list, which has no tags.
    fn scalar(&mut self, field: &'static Field, keep_default: Option<bool>) -> Result<(), Fault> {
        let bits = match field.kind {
            Kind::Bool => u64::from(self.lex.boolean()?),
            Kind::Double => self.double()?.to_bits(),
            Kind::Enum(names) => i64::from(self.enumeration(names)?) as u64,
            Kind::Int64 | Kind::Sfixed64 => self.integer::<i64>("a 64-bit integer")? as u64,
            Kind::Uint64 | Kind::Fixed64 => self.integer::<u64>("an unsigned 64-bit integer")?,
            Kind::Uint32 | Kind::Fixed32 => u64::from(self.integer::<u32>("an unsigned 32-bit integer")?),
            Kind::Sint32 => {
                let value = self.integer::<i32>("a 32-bit integer")?;
                u64::from(((value << 1) ^ (value >> 31)) as u32)
            }
            Kind::String | Kind::Bytes | Kind::Id(_) | Kind::Message(_) | Kind::Absent => 0,
        };
        if let Some(keep) = keep_default {
            if bits == 0 && !keep {
                return Ok(());
            }
            put_tag(&mut self.out, field.number, field.kind.wire_type());
        }
        match field.kind.wire_type() {
            1 => self.out.extend_from_slice(&bits.to_le_bytes()),
            5 => self.out.extend_from_slice(&(bits as u32).to_le_bytes()),
            _ => put_varint(&mut self.out, bits),
        }
        Ok(())
    }

    fn id(&mut self, field: &'static Field, len: usize, keep_default: bool) -> Result<(), Fault> {
        let text = self.lex.string("a string of hexadecimal digits")?;
        let digits = resolve(text, &mut self.scratch);
        if digits.is_empty() && !keep_default {
            return Ok(());
        }
        if !digits.is_empty() && digits.len() != 2 * len {
            let message = format!("expected {} hexadecimal digits, got {}", 2 * len, digits.len());
            return Err(Fault::new(text.at, message));
        }
        put_tag(&mut self.out, field.number, 2);
        put_varint(&mut self.out, digits.len() as u64 / 2);
        for pair in digits.chunks_exact(2) {
            let digit = |b: Option<&u8>| b.and_then(|&b| char::from(b).to_digit(16));
            let (Some(high), Some(low)) = (digit(pair.first()), digit(pair.get(1))) else {
                return Err(Fault::new(text.at, "expected hexadecimal digits only"));
            };
            self.out.push((high << 4 | low) as u8);
        }
        Ok(())
    }

    fn base64(&mut self, field: &'static Field, keep_default: bool) -> Result<(), Fault> {
        let text = self.lex.string("a base64 string")?;
        let open = self.open_for(field.number, text.raw.len() / 4 * 3);
        let digits = resolve(text, &mut self.scratch);
        if digits.is_empty() && !keep_default {
            self.out.truncate(open.tag);
            return Ok(());
        }
        let url = digits.iter().any(|b| matches!(b, b'-' | b'_'));
        let engine = if url { &URL_BASE64 } else { &STANDARD_BASE64 };
        if let Err(why) = engine.decode_vec(digits, &mut self.out) {
            return Err(Fault::new(text.at, format!("expected base64: {why}")));
        }
        self.close(open)
    }

    /// A number, or a string that holds one.
    fn digits(&mut self, what: &str) -> Result<Number<'a>, Fault> {
        if self.lex.peek() != Some(b'"') {
            let text = self.lex.number(what)?;
            return Ok(Number { text, at: self.lex.pos() - text.len() });
        }
        let text = self.lex.string(what)?;
        if text.escaped {
            return Err(Fault::new(text.at, format!("expected {what}")));
        }
        Ok(Number { text: text.raw, at: text.at })
    }

    fn integer<T: Integer>(&mut self, what: &str) -> Result<T, Fault> {
        let number = self.digits(what)?;
        let text = std::str::from_utf8(number.text).unwrap_or_default();
        if number_len(number.text) != Some(number.text.len()) {
            return Err(Fault::new(number.at, format!("expected {what}")));
        }
        if let Ok(value) = text.parse::<T>() {
            return Ok(value);
        }
        // `1.0` and `1e3` are integers too in the JSON form of protobuf.
        let float = text.contains(['.', 'e', 'E']).then(|| text.parse::<f64>().ok()).flatten();
        float
            .and_then(T::from_float)
            .ok_or_else(|| Fault::new(number.at, format!("expected {what}, got {}", shorten(text))))
    }

    fn double(&mut self) -> Result<f64, Fault> {
        let number = self.digits("a number")?;
        match number.text {
            b"NaN" => return Ok(f64::NAN),
            b"Infinity" => return Ok(f64::INFINITY),
            b"-Infinity" => return Ok(f64::NEG_INFINITY),
            _ => {}
        }
        let text = std::str::from_utf8(number.text).unwrap_or_default();
        let value = match number_len(number.text) {
            Some(len) if len == text.len() => text.parse::<f64>().ok(),
            _ => None,
        };
        match value {
            Some(value) if value.is_finite() => Ok(value),
            Some(_) => {
                let message = format!("{} is out of the range of a double", shorten(text));
                Err(Fault::new(number.at, message))
            }
            None => Err(Fault::new(number.at, "expected a number, \"NaN\", \"Infinity\" or \"-Infinity\"")),
        }
    }

    fn enumeration(&mut self, names: &'static [(&'static str, i32)]) -> Result<i32, Fault> {
        if self.lex.peek() != Some(b'"') {
            return self.integer("an integer or the name of a value");
        }
        let text = self.lex.string("the name of a value")?;
        let name = resolve(text, &mut self.scratch);
        let known = names.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, value)| *value);
        let number = || std::str::from_utf8(name).ok().and_then(|digits| digits.parse().ok());
        known.or_else(number).ok_or_else(|| {
            let shown = shorten(std::str::from_utf8(name).unwrap_or_default());
            let example = names.get(1).map_or("", |(name, _)| name);
            Fault::new(
                text.at,
                format!("unknown value \"{shown}\"; expected an integer or a name such as {example}"),
            )
        })
    }

    /// Starts a length-delimited field of a guessed size.
    fn open(&mut self, number: u32, size: Size) -> Open {
        let guess = match size {
            Size::Small => 0,
            Size::Medium => 0x80,
            // Protobuf takes about half the room of the JSON it came from.
            Size::Large => self.lex.remaining() / 2,
        };
        self.open_for(number, guess)
    }

    /// Starts a length-delimited field of about `len` bytes.
    fn open_for(&mut self, number: u32, len: usize) -> Open {
        let tag = self.out.len();
        put_tag(&mut self.out, number, 2);
        let prefix = self.out.len();
        let width = varint_len(len as u64);
        self.out.resize(prefix + width, 0);
        Open { tag, prefix, width }
    }

    /// Ends a length-delimited field: writes its length, moving its bytes if the guess was wrong.
    fn close(&mut self, open: Open) -> Result<(), Fault> {
        let body = open.prefix + open.width;
        let end = self.out.len();
        let len = end - body;
        let width = varint_len(len as u64);
        if width > open.width {
            self.out.resize(end + width - open.width, 0);
        }
        if width != open.width {
            self.out.copy_within(body..end, open.prefix + width);
            self.out.truncate(open.prefix + width + len);
        }
        let mut rest = len as u64;
        for (i, slot) in self.out.iter_mut().skip(open.prefix).take(width).enumerate() {
            *slot = (rest as u8 & 0x7f) | if i + 1 < width { 0x80 } else { 0 };
            rest >>= 7;
        }
        if self.out.len() > self.limits.output {
            let message = format!("the request is larger than {} bytes", self.limits.output);
            return Err(Fault::limit(self.lex.pos(), Limit::Output, message));
        }
        Ok(())
    }
}

/// The integer types of the wire.
trait Integer: std::str::FromStr {
    /// The value of a float that is a whole number within range.
    fn from_float(value: f64) -> Option<Self>;
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl Integer for $ty {
            fn from_float(value: f64) -> Option<Self> {
                // Both bounds are exact: the upper one is a power of two, beyond the range by one.
                let above = (<$ty>::MAX / 2 + 1) as f64 * 2.0;
                let fits = value.fract() == 0.0 && value >= <$ty>::MIN as f64 && value < above;
                fits.then_some(value as $ty)
            }
        }
    )* };
}
integers!(i32, i64, u32, u64);

/// The text of a string: itself, or `scratch` when it has escapes.
fn resolve<'s>(text: Str<'s>, scratch: &'s mut Vec<u8>) -> &'s [u8] {
    if !text.escaped {
        return text.raw;
    }
    scratch.clear();
    text.append_to(scratch);
    scratch
}

/// Turns snake_case into lowerCamelCase in place, as protobuf derives its JSON names.
fn camel_case(name: &mut Vec<u8>) {
    let mut upper = false;
    name.retain_mut(|b| {
        if *b == b'_' {
            upper = true;
            return false;
        }
        if std::mem::take(&mut upper) {
            b.make_ascii_uppercase();
        }
        true
    });
}

/// Text for an error message, cut after a few characters.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(32) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
