//! Cutting a request by whose its items are.
//!
//! [`partition`] asks an [`Assign`] for the bucket of each resource; where that depends on what is below, of each
//! scope, metric and item. Everything goes to one bucket and one only, in the order it had, with all that enclosed it
//! there: resource, scope, schema urls, metric name, unit and metadata, temporality, unknown fields. What belongs to
//! one bucket as a whole stays as it was, byte for byte; a metric whose points go to several buckets is repeated, in
//! each with its own points. Envelopes without items appear nowhere, unless inside something that stays as it was, and
//! data of a metric that a later kind overrides is left out of what is rebuilt.
//!
//! Bytes are referenced as far as they are long enough for it (see [`RopeBuilder`]), so nothing is decoded. What
//! encloses items is repeated for every bucket; lest a large resource above many small items of many buckets fill the
//! memory of everybody behind, repetitions come to [`REPEATED_FACTOR`] times the request and [`REPEATED_FLOOR`] bytes
//! at most, beyond which the request is refused.
//!
//! Cost: resources that belong whole to one bucket are not read, only their items are counted once there are two
//! buckets; in others every field above the insides of items is visited twice. Memory for each run of items and for
//! each message a bucket has a part of, none for each item.

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

use super::common::{ResourceGroup, ScopeGroup};
use super::count::is_metric_data;
use super::fields::{metric_data, request, resource_group, scope_group};
use super::metrics::Kind;
use super::rope::SLIVER;
use super::wire::{Cursor, Field, WireError, put_tag, put_varint, varint_len};
use super::{Rope, RopeBuilder, Signal, count_metric, count_resource, count_scope};
use crate::processors::edit::whole_messages;

/// How many times as long as the request all repetitions may be, beside [`REPEATED_FLOOR`].
pub const REPEATED_FACTOR: usize = 4;

/// How many bytes of repetitions are allowed whatever the request.
pub const REPEATED_FLOOR: usize = 1 << 20;

/// Says which bucket things belong to: small numbers, counted from 0 as they come up. Called top down and in order;
/// what is decided above is not asked below.
pub trait Assign<'a> {
    /// The bucket of all below a resource, or `None` if that depends on what is below.
    ///
    /// # Errors
    /// It cannot be read.
    fn resource(&mut self, group: ResourceGroup<'a>) -> Result<Option<usize>, WireError>;

    /// The bucket of all below a scope of the resource asked about last.
    ///
    /// # Errors
    /// It cannot be read.
    fn scope(&mut self, group: ScopeGroup<'a>) -> Result<Option<usize>, WireError>;

    /// The bucket of all points of an encoded metric.
    ///
    /// # Errors
    /// It cannot be read.
    fn metric(&mut self, _metric: &'a [u8]) -> Result<Option<usize>, WireError> {
        Ok(None)
    }

    /// The bucket of an encoded span or log record, or of a data point of a metric of this kind.
    ///
    /// # Errors
    /// It cannot be read.
    fn item(&mut self, kind: Kind, item: &'a [u8]) -> Result<usize, WireError>;
}

/// A rope as it is walked: pieces of whole messages of the top level.
#[derive(Debug)]
pub struct Pieces(SmallVec<[Bytes; 2]>);

/// What one bucket got.
#[derive(Debug, Clone)]
pub struct Share {
    /// Which bucket.
    pub bucket: usize,
    /// A request of its own.
    pub rope: Rope,
    /// How many items it holds; not 0.
    pub items: usize,
}

/// A request in parts.
#[derive(Debug, Clone, Default)]
pub struct Partition {
    /// The parts, by bucket.
    pub shares: Vec<Share>,
    /// Bytes of memory that the parts hold beyond the request's.
    pub copied: usize,
}

/// Why a request cannot be cut. The data is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionError {
    /// It cannot be read.
    Malformed(WireError),
    /// Cutting it would repeat too much.
    TooMuchRepeated,
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartitionError::Malformed(why) => write!(f, "the request cannot be read: {why}"),
            PartitionError::TooMuchRepeated => write!(
                f,
                "telemetry of too many different owners under one resource: telling it apart would repeat resource \
                 and scope attributes more than {REPEATED_FACTOR} times the size of the request"
            ),
        }
    }
}

impl std::error::Error for PartitionError {}

impl From<WireError> for PartitionError {
    fn from(why: WireError) -> Self {
        PartitionError::Malformed(why)
    }
}

/// The fields of a message that are not on the way to the items.
#[derive(Default)]
struct Header {
    ranges: SmallVec<[(usize, usize); 4]>,
    /// All of it, once it is scattered over more places than [`Header::MAX_RANGES`].
    copied: Option<Vec<u8>>,
    /// The same, shared between the parts.
    shared: Bytes,
    len: usize,
}

/// A message the walk is in.
struct Frame {
    number: u32,
    /// The whole field, when it is one field.
    whole: Option<(usize, usize)>,
    header: Header,
    /// The buckets that have begun it.
    openers: SmallVec<[usize; 4]>,
}

#[derive(Default)]
struct Bucket {
    segments: Vec<Segment>,
    /// The frames it has begun, outermost first: with where the message stands in its segments and how long it is.
    open: SmallVec<[(usize, usize); 4]>,
    items: usize,
}

/// What a part is made of, in order.
enum Segment {
    /// A range of a piece.
    Range { piece: usize, from: usize, to: usize },
    /// A header that was copied together.
    Header(Bytes),
    /// Tag and length of a message; the length is known when the message is closed.
    Prefix { number: u32, body: usize },
}

struct Cutter {
    signal: Signal,
    piece: usize,
    bytes: Bytes,
    frames: SmallVec<[Frame; 4]>,
    buckets: Vec<Bucket>,
    /// Bytes that stand in more than one part.
    repeated: usize,
    may_repeat: usize,
    /// Fields beside the resources.
    extras: Vec<u8>,
}

impl Pieces {
    /// The pieces of a rope; joined, which copies them, where a message lies across a boundary.
    pub fn of(rope: &Rope) -> Self {
        Pieces(whole_messages(rope))
    }

    fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

/// Cuts a request of so many items into one part for each bucket that gets any.
///
/// # Errors
/// It cannot be read, or cutting it would repeat too much.
pub fn partition<'a>(
    signal: Signal,
    pieces: &'a Pieces,
    items: usize,
    assign: &mut impl Assign<'a>,
) -> Result<Partition, PartitionError> {
    let may_repeat = REPEATED_FLOOR.saturating_add(pieces.len().saturating_mul(REPEATED_FACTOR));
    let mut cutter = Cutter {
        signal,
        piece: 0,
        bytes: Bytes::new(),
        frames: SmallVec::new(),
        buckets: Vec::new(),
        repeated: 0,
        may_repeat,
        extras: Vec::new(),
    };
    // As long as everything belongs to one bucket there is nothing to do.
    let mut only: Option<usize> = None;
    let mut several = false;
    for (index, piece) in pieces.0.iter().enumerate() {
        cutter.turn_to(index, piece);
        let mut fields = Cursor::new(piece);
        while let Some(field) = fields.next_field()? {
            if field.number != request::GROUPS {
                if several {
                    cutter.extra(field);
                }
                continue;
            }
            let message = field.value.bytes()?;
            let decided = assign.resource(ResourceGroup::of(message))?;
            if !several {
                if let Some(bucket) = decided.filter(|b| only.is_none_or(|only| only == *b)) {
                    only = Some(bucket);
                    continue;
                }
                several = true;
                cutter.catch_up(pieces, (index, field.start), only.unwrap_or_default())?;
            }
            match decided {
                Some(bucket) => cutter.whole(bucket, field, message)?,
                None => cutter.group(field, message, assign)?,
            }
        }
    }
    match only {
        Some(bucket) if !several => {
            let mut rope = Rope::new();
            pieces.0.iter().for_each(|piece| rope.push(piece.clone()));
            let shares = if items > 0 { vec![Share { bucket, rope, items }] } else { Vec::new() };
            Ok(Partition { shares, copied: 0 })
        }
        _ => cutter.finish(pieces),
    }
}

impl Header {
    /// A header in more places than this is copied together, lest every part pay for every place.
    const MAX_RANGES: usize = 8;

    fn push(&mut self, message: &[u8], field: Field<'_>) {
        self.len += field.end - field.start;
        if let Some(copied) = &mut self.copied {
            copied.extend_from_slice(message.get(field.start..field.end).unwrap_or_default());
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if last.1 == field.start => last.1 = field.end,
            _ => self.ranges.push((field.start, field.end)),
        }
        if self.ranges.len() > Self::MAX_RANGES {
            let mut copied = Vec::with_capacity(self.len);
            for (from, to) in self.ranges.drain(..) {
                copied.extend_from_slice(message.get(from..to).unwrap_or_default());
            }
            self.copied = Some(copied);
        }
    }

    /// Makes offsets into the message at `base` offsets into the piece.
    fn seal(mut self, base: usize) -> Self {
        for (from, to) in &mut self.ranges {
            (*from, *to) = (*from + base, *to + base);
        }
        self.shared = self.copied.take().map(Bytes::from).unwrap_or_default();
        self
    }
}

impl Cutter {
    fn turn_to(&mut self, index: usize, piece: &Bytes) {
        self.piece = index;
        self.bytes = piece.clone();
    }

    /// Gives what was passed over, all of one bucket, to that bucket.
    fn catch_up(
        &mut self,
        pieces: &Pieces,
        end: (usize, usize),
        bucket: usize,
    ) -> Result<(), PartitionError> {
        let here = (self.piece, self.bytes.clone());
        for (index, piece) in pieces.0.iter().enumerate().take(end.0 + 1) {
            self.turn_to(index, piece);
            let upto = if index == end.0 { end.1 } else { piece.len() };
            let mut fields = Cursor::new(piece.get(..upto).unwrap_or_default());
            while let Some(field) = fields.next_field()? {
                match field.number {
                    request::GROUPS => self.whole(bucket, field, field.value.bytes()?)?,
                    _ => self.extra(field),
                }
            }
        }
        (self.piece, self.bytes) = here;
        Ok(())
    }

    fn extra(&mut self, field: Field<'_>) {
        self.extras.extend_from_slice(self.bytes.get(field.start..field.end).unwrap_or_default());
    }

    /// A resource that belongs to one bucket.
    fn whole(&mut self, bucket: usize, field: Field<'_>, message: &[u8]) -> Result<(), PartitionError> {
        let items = count_resource(self.signal, message)?;
        self.add(bucket, field.start, field.end, items)
    }

    fn group<'a>(
        &mut self,
        field: Field<'_>,
        message: &'a [u8],
        assign: &mut impl Assign<'a>,
    ) -> Result<(), PartitionError> {
        let base = field.end - message.len();
        let header = header(message, base, resource_group::SCOPES)?;
        self.enter(field.number, Some((field.start, field.end)), header);
        let mut fields = Cursor::new(message);
        while let Some(inner) = fields.next_field()? {
            if inner.number != resource_group::SCOPES {
                continue;
            }
            let scope = inner.value.bytes()?;
            let (from, to) = (base + inner.start, base + inner.end);
            match assign.scope(ScopeGroup::of(scope))? {
                Some(bucket) => {
                    let items = count_scope(self.signal, scope)?;
                    self.add(bucket, from, to, items)?;
                }
                None => self.scope((inner.number, from, to), scope, assign)?,
            }
        }
        self.leave();
        Ok(())
    }

    fn scope<'a>(
        &mut self,
        (number, from, to): (u32, usize, usize),
        message: &'a [u8],
        assign: &mut impl Assign<'a>,
    ) -> Result<(), PartitionError> {
        let base = to - message.len();
        let header = header(message, base, scope_group::ITEMS)?;
        self.enter(number, Some((from, to)), header);
        let mut fields = Cursor::new(message);
        while let Some(inner) = fields.next_field()? {
            if inner.number != scope_group::ITEMS {
                continue;
            }
            let item = inner.value.bytes()?;
            let (from, to) = (base + inner.start, base + inner.end);
            if self.signal != Signal::Metrics {
                let bucket = assign.item(Kind::Empty, item)?;
                self.add(bucket, from, to, 1)?;
                continue;
            }
            match assign.metric(item)? {
                Some(bucket) => self.add(bucket, from, to, count_metric(item)?)?,
                None => self.metric((inner.number, from, to), item, assign)?,
            }
        }
        self.leave();
        Ok(())
    }

    fn metric<'a>(
        &mut self,
        (number, from, to): (u32, usize, usize),
        message: &'a [u8],
        assign: &mut impl Assign<'a>,
    ) -> Result<(), PartitionError> {
        let base = to - message.len();
        let mut header = Header::default();
        // The occurrences of the kind of data that wins; they merge into one.
        let mut live: SmallVec<[Field<'a>; 1]> = SmallVec::new();
        let mut fields = Cursor::new(message);
        while let Some(field) = fields.next_field()? {
            if is_metric_data(field.number) {
                if live.last().is_some_and(|last| last.number != field.number) {
                    live.clear();
                }
                field.value.bytes()?;
                live.push(field);
            } else {
                header.push(message, field);
            }
        }
        let Some(number_of_data) = live.first().map(|f| f.number) else { return Ok(()) };
        let kind = Kind::of(number_of_data);
        self.enter(number, Some((from, to)), header.seal(base));
        let mut data_header = Header::default();
        for data in &live {
            let content = data.value.bytes()?;
            let offset = data.end - content.len();
            let mut fields = Cursor::new(content);
            while let Some(field) = fields.next_field()? {
                if field.number != metric_data::DATA_POINTS {
                    let (start, end) = (offset + field.start, offset + field.end);
                    data_header.push(message, Field { start, end, ..field });
                }
            }
        }
        let whole = match live.as_slice() {
            [one] => Some((base + one.start, base + one.end)),
            _ => None,
        };
        self.enter(number_of_data, whole, data_header.seal(base));
        for data in &live {
            let content = data.value.bytes()?;
            let offset = base + data.end - content.len();
            let mut fields = Cursor::new(content);
            while let Some(field) = fields.next_field()? {
                if field.number == metric_data::DATA_POINTS {
                    let bucket = assign.item(kind, field.value.bytes()?)?;
                    self.add(bucket, offset + field.start, offset + field.end, 1)?;
                }
            }
        }
        self.leave();
        self.leave();
        Ok(())
    }

    fn enter(&mut self, number: u32, whole: Option<(usize, usize)>, header: Header) {
        self.frames.push(Frame { number, whole, header, openers: SmallVec::new() });
    }

    /// Adds one whole field, below all frames, to a bucket.
    #[inline]
    fn add(&mut self, bucket: usize, from: usize, to: usize, items: usize) -> Result<(), PartitionError> {
        if items == 0 {
            return Ok(());
        }
        if bucket >= self.buckets.len() {
            self.buckets.resize_with(bucket + 1, Bucket::default);
        }
        let Some(own) = self.buckets.get_mut(bucket) else { return Ok(()) };
        own.items += items;
        if own.open.len() < self.frames.len() {
            let begun = own.open.len();
            for frame in self.frames.iter_mut().skip(begun) {
                if !frame.openers.is_empty() {
                    self.repeated += frame.header.len + 1 + varint_len(frame.header.len as u64);
                    if self.repeated > self.may_repeat {
                        return Err(PartitionError::TooMuchRepeated);
                    }
                }
                frame.openers.push(bucket);
                own.open.push((own.segments.len(), frame.header.len));
                own.segments.push(Segment::Prefix { number: frame.number, body: 0 });
                let piece = self.piece;
                let ranges = frame.header.ranges.iter();
                own.segments.extend(ranges.map(|&(from, to)| Segment::Range { piece, from, to }));
                if !frame.header.shared.is_empty() {
                    own.segments.push(Segment::Header(frame.header.shared.clone()));
                }
            }
        }
        own.range(self.piece, from, to);
        own.grow(to - from);
        Ok(())
    }

    /// Closes the innermost message.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        let alone = frame.openers.len() == 1;
        for bucket in frame.openers {
            let Some(own) = self.buckets.get_mut(bucket) else { continue };
            let Some((segment, body)) = own.open.pop() else { continue };
            let len = field_len(body);
            match frame.whole {
                // All of it is in this part and was encoded as we would: the original says the same.
                Some((from, to)) if alone && to - from == len => {
                    own.segments.truncate(segment);
                    own.range(self.piece, from, to);
                }
                _ => {
                    if let Some(Segment::Prefix { body: place, .. }) = own.segments.get_mut(segment) {
                        *place = body;
                    }
                }
            }
            own.grow(len);
        }
    }

    fn finish(self, pieces: &Pieces) -> Result<Partition, PartitionError> {
        let parts = self.buckets.iter().filter(|b| b.items > 0).count();
        let extra = self.extras.len().saturating_mul(parts.saturating_sub(1));
        if self.repeated.saturating_add(extra) > self.may_repeat {
            return Err(PartitionError::TooMuchRepeated);
        }
        let extras = Bytes::from(self.extras);
        let mut builder = RopeBuilder::new();
        let mut out = Partition { shares: Vec::with_capacity(parts), copied: extras.len() };
        let mut prefix = Vec::with_capacity(16);
        for (index, bucket) in self.buckets.into_iter().enumerate().filter(|(_, b)| b.items > 0) {
            for segment in bucket.segments {
                match segment {
                    Segment::Range { piece, from, to } => {
                        let Some(piece) = pieces.0.get(piece) else { continue };
                        if to - from < SLIVER {
                            out.copied += to - from;
                        }
                        builder.put_range(piece, from, to);
                    }
                    Segment::Header(bytes) => {
                        out.copied += bytes.len();
                        builder.put(bytes);
                    }
                    Segment::Prefix { number, body } => {
                        prefix.clear();
                        put_tag(&mut prefix, number, 2);
                        put_varint(&mut prefix, body as u64);
                        out.copied += prefix.len();
                        builder.copy(&prefix);
                    }
                }
            }
            builder.put(extras.clone());
            out.shares.push(Share { bucket: index, rope: builder.finish(), items: bucket.items });
        }
        Ok(out)
    }
}

impl Bucket {
    fn range(&mut self, piece: usize, from: usize, to: usize) {
        match self.segments.last_mut() {
            Some(Segment::Range { piece: same, to: end, .. }) if *same == piece && *end == from => *end = to,
            _ => self.segments.push(Segment::Range { piece, from, to }),
        }
    }

    /// Counts bytes towards the innermost message it has begun.
    fn grow(&mut self, len: usize) {
        if let Some((_, body)) = self.open.last_mut() {
            *body += len;
        }
    }
}

/// What all parts of a message repeat: its fields other than `child`.
fn header(message: &[u8], base: usize, child: u32) -> Result<Header, WireError> {
    let mut header = Header::default();
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number != child {
            header.push(message, field);
        }
    }
    Ok(header.seal(base))
}

/// Length of a field with a tag of one byte, which all messages on the way to the items have.
fn field_len(body: usize) -> usize {
    1 + varint_len(body as u64) + body
}
