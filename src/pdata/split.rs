//! Cutting a request into smaller ones.
//!
//! Items keep their order, and every part is a request of its own: where a cut falls inside a resource, a
//! scope or a metric, the part repeats what encloses its items (resource, scope, schema urls, metric name,
//! unit and metadata, temporality, unknown fields) in a message of its own. No two Resource* messages are
//! ever joined, so no attribute is ever repeated. What is not cut stays as it was, byte for byte.
//!
//! Bytes are referenced, not copied: runs of neighbouring items are one range of the original, and only
//! tags, lengths and slivers (see [`RopeBuilder`]) are fresh. The rope may have pieces that end anywhere,
//! also inside a message; that costs nothing but a search for the piece.
//!
//! A metric's data is a oneof: data that a later kind overrides is no item (as [`count`](super::count())
//! has it) and is left out when its metric is opened. A request that is not well formed down to its items
//! cannot be cut and comes back whole; whatever passed [`count`](super::count()) can be.
//!
//! Cost: every field above the insides of items is visited at most twice, about 35 ns an item; memory per
//! part and per run of items, not per item. Headers scattered over many places are copied together once, so
//! that no input makes the work more than linear in its size plus the number of parts.

mod source;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use smallvec::SmallVec;

use self::source::{Field, Source};
use super::count::is_metric_data;
use super::fields::{metric_data, request, resource_group, scope_group};
use super::wire::{WireError, put_tag, put_varint, varint_len};
use super::{Rope, RopeBuilder, Signal};

/// One part of a request that was cut by bytes.
#[derive(Debug, Clone)]
pub struct Part {
    /// The part, a request of its own.
    pub rope: Rope,
    /// How many items it holds.
    pub items: usize,
    /// Whether it is as small as was asked. `false` only for a single item (or an empty envelope) that is
    /// larger than that by itself, and for a request that could not be cut because it is malformed.
    pub bytes_ok: bool,
}

/// Cuts a request into parts of exactly `max_items` items, the last of fewer; 0 means no limit.
///
/// `items` is what the request holds. Returns the rope itself when it is small enough.
pub fn split_items(signal: Signal, rope: Rope, items: usize, max_items: usize) -> Vec<(Rope, usize)> {
    if max_items == 0 || items <= max_items {
        return vec![(rope, items)];
    }
    let limit = Limit { items: max_items, bytes: usize::MAX };
    split(signal, rope, items, limit).into_iter().map(|part| (part.rope, part.items)).collect()
}

/// Cuts a request into parts of at most `max_bytes` encoded bytes each; 0 means no limit.
///
/// `items` is what the request holds. Parts are filled as far as they go. An item that is too large alone is
/// a part by itself, marked as not fitting.
pub fn split_bytes(signal: Signal, rope: Rope, items: usize, max_bytes: usize) -> Vec<Part> {
    if max_bytes == 0 || rope.len() <= max_bytes {
        return vec![Part { rope, items, bytes_ok: true }];
    }
    split(signal, rope, items, Limit { items: usize::MAX, bytes: max_bytes })
}

/// Cuts a request in two of about as many items each, or `None` when it holds fewer than two.
pub fn halve(signal: Signal, rope: Rope, items: usize) -> Option<[(Rope, usize); 2]> {
    if items < 2 {
        return None;
    }
    let mut parts = split_items(signal, rope, items, items.div_ceil(2)).into_iter();
    let (first, mut second) = (parts.next()?, parts.next()?);
    for (rope, items) in parts {
        second.0.append(rope);
        second.1 += items;
    }
    Some([first, second])
}

/// How large a part may be.
#[derive(Clone, Copy)]
struct Limit {
    items: usize,
    bytes: usize,
}

/// A message that encloses what is being looked at: Resource*, Scope*, Metric or a metric's data.
struct Frame {
    /// Its field number in the message around it.
    number: u32,
    /// The whole field in the source, when it is one field.
    whole: Option<(usize, usize)>,
    /// What every part with a piece of this message repeats.
    header: Header,
    /// Whether the part being built has begun this message. Done with the first thing in it, not before.
    open: bool,
    /// Whether an earlier part holds a piece of this message.
    cut: bool,
    /// Where in the part's segments the message begins, while open.
    segment: usize,
    /// Length of the message so far, headers included, prefix and open messages inside not.
    body: usize,
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

/// What a part is made of, in order.
enum Segment {
    /// A range of the source.
    Range(usize, usize),
    /// A header that was copied together.
    Header(Bytes),
    /// Tag and length of a message; the length is known when the message is closed.
    Prefix { number: u32, body: usize },
}

struct Splitter<'a> {
    source: Source<'a>,
    signal: Signal,
    limit: Limit,
    frames: SmallVec<[Frame; 4]>,
    segments: Vec<Segment>,
    /// Bytes of what is closed in the part being built.
    bytes: usize,
    items: usize,
    builder: RopeBuilder,
    parts: Vec<Part>,
}

impl Header {
    /// A header in more places than this is copied together, lest every part pay for every place.
    const MAX_RANGES: usize = 8;

    fn push(&mut self, source: &Source<'_>, field: Field) {
        self.len += field.end - field.start;
        if let Some(copied) = &mut self.copied {
            source.copy(field.start, field.end, copied);
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if last.1 == field.start => last.1 = field.end,
            _ => self.ranges.push((field.start, field.end)),
        }
        if self.ranges.len() > Self::MAX_RANGES {
            self.copy_together(source);
        }
    }

    fn seal(mut self, source: &Source<'_>) -> Self {
        let places = |(from, to): &(usize, usize)| source.pieces_in(*from, *to);
        if self.ranges.iter().map(places).sum::<usize>() > Self::MAX_RANGES {
            self.copy_together(source);
        }
        self.shared = self.copied.take().map(Bytes::from).unwrap_or_default();
        self
    }

    fn copy_together(&mut self, source: &Source<'_>) {
        let mut copied = Vec::with_capacity(self.len);
        for (from, to) in self.ranges.drain(..) {
            source.copy(from, to, &mut copied);
        }
        self.copied = Some(copied);
    }
}

impl Splitter<'_> {
    fn request(&mut self) -> Result<(), WireError> {
        let (mut at, end) = (0, self.source.len());
        while at < end {
            let field = self.source.field(at, end)?;
            at = field.end;
            if field.number == request::GROUPS {
                self.group(field.message()?)?;
            } else {
                self.add(field.start, field.end, 0);
            }
        }
        Ok(())
    }

    fn group(&mut self, group: Field) -> Result<(), WireError> {
        let Some(header) = self.header(&[group], resource_group::SCOPES)? else {
            self.add(group.start, group.end, 0);
            return Ok(());
        };
        self.enter(group.number, Some((group.start, group.end)), header);
        let mut at = group.body;
        while at < group.end {
            let field = self.source.field(at, group.end)?;
            at = field.end;
            if field.number == resource_group::SCOPES {
                self.scope(field)?;
            }
        }
        self.leave();
        Ok(())
    }

    fn scope(&mut self, scope: Field) -> Result<(), WireError> {
        let Some(header) = self.header(&[scope], scope_group::ITEMS)? else {
            self.add(scope.start, scope.end, 0);
            return Ok(());
        };
        self.enter(scope.number, Some((scope.start, scope.end)), header);
        let mut at = scope.body;
        while at < scope.end {
            let field = self.source.field(at, scope.end)?;
            at = field.end;
            if field.number != scope_group::ITEMS {
                continue;
            }
            if self.signal == Signal::Metrics {
                self.metric(field)?;
            } else {
                self.add(field.start, field.end, 1);
            }
        }
        self.leave();
        Ok(())
    }

    fn metric(&mut self, metric: Field) -> Result<(), WireError> {
        let mut header = Header::default();
        // The occurrences of the kind of data that wins; they merge into one.
        let mut live: SmallVec<[Field; 1]> = SmallVec::new();
        let mut at = metric.body;
        while at < metric.end {
            let field = self.source.field(at, metric.end)?;
            at = field.end;
            if is_metric_data(field.number) {
                if live.last().is_some_and(|last| last.number != field.number) {
                    live.clear();
                }
                live.push(field.message()?);
            } else {
                header.push(&self.source, field);
            }
        }
        let Some(data_header) = self.header(&live, metric_data::DATA_POINTS)? else {
            self.add(metric.start, metric.end, 0);
            return Ok(());
        };
        let header = header.seal(&self.source);
        self.enter(metric.number, Some((metric.start, metric.end)), header);
        let whole = match live.as_slice() {
            [one] => Some((one.start, one.end)),
            _ => None,
        };
        self.enter(live.first().map_or(0, |f| f.number), whole, data_header);
        for data in live {
            let mut at = data.body;
            while at < data.end {
                let field = self.source.field(at, data.end)?;
                at = field.end;
                if field.number == metric_data::DATA_POINTS {
                    self.add(field.start, field.end, 1);
                }
            }
        }
        self.leave();
        self.leave();
        Ok(())
    }

    /// What all pieces of these messages (occurrences of one) repeat; `None` when they hold no child.
    fn header(&self, messages: &[Field], child: u32) -> Result<Option<Header>, WireError> {
        let mut header = Header::default();
        let mut children = false;
        for message in messages {
            let mut at = message.body;
            while at < message.end {
                let field = self.source.field(at, message.end)?;
                at = field.end;
                if field.number == child {
                    field.message()?;
                    children = true;
                } else {
                    header.push(&self.source, field);
                }
            }
        }
        Ok(children.then(|| header.seal(&self.source)))
    }

    fn enter(&mut self, number: u32, whole: Option<(usize, usize)>, header: Header) {
        let body = header.len;
        self.frames.push(Frame { number, whole, header, open: false, cut: false, segment: 0, body });
    }

    /// Closes the innermost message for good.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if !frame.open {
            return;
        }
        let len = field_len(frame.body);
        match frame.whole {
            // All of it is in this part and was encoded as we would: the original says the same.
            Some((from, to)) if !frame.cut && to - from == len => {
                self.segments.truncate(frame.segment);
                self.range(from, to);
            }
            _ => self.close(&frame),
        }
        self.grow(len);
    }

    /// Adds one whole field to the innermost message: an item, or something that holds none.
    fn add(&mut self, from: usize, to: usize, items: usize) {
        let len = to - from;
        if !self.fits(len, items) && !self.segments.is_empty() {
            self.finish_part(true);
        }
        let fits = self.fits(len, items);
        self.open_frames();
        self.range(from, to);
        self.grow(len);
        self.items += items;
        if !fits {
            self.finish_part(false);
        }
    }

    fn fits(&self, len: usize, items: usize) -> bool {
        if self.items.saturating_add(items) > self.limit.items {
            return false;
        }
        self.limit.bytes == usize::MAX || self.len_with(len) <= self.limit.bytes
    }

    /// Length of the part if `len` bytes were added to the innermost message and everything were closed.
    fn len_with(&self, len: usize) -> usize {
        self.bytes + self.frames.iter().rev().fold(len, |inner, frame| field_len(frame.body + inner))
    }

    fn open_frames(&mut self) {
        for frame in self.frames.iter_mut().filter(|f| !f.open) {
            frame.open = true;
            frame.segment = self.segments.len();
            frame.body = frame.header.len;
            self.segments.push(Segment::Prefix { number: frame.number, body: 0 });
            self.segments.extend(frame.header.ranges.iter().map(|&(from, to)| Segment::Range(from, to)));
            if !frame.header.shared.is_empty() {
                self.segments.push(Segment::Header(frame.header.shared.clone()));
            }
        }
    }

    fn range(&mut self, from: usize, to: usize) {
        match self.segments.last_mut() {
            Some(Segment::Range(_, end)) if *end == from => *end = to,
            _ => self.segments.push(Segment::Range(from, to)),
        }
    }

    /// Counts bytes towards the innermost message, or the part when there is none.
    fn grow(&mut self, len: usize) {
        match self.frames.last_mut() {
            Some(frame) => frame.body += len,
            None => self.bytes += len,
        }
    }

    fn close(&mut self, frame: &Frame) {
        if let Some(Segment::Prefix { body, .. }) = self.segments.get_mut(frame.segment) {
            *body = frame.body;
        }
    }

    fn finish_part(&mut self, bytes_ok: bool) {
        let mut inner = 0;
        for frame in self.frames.iter_mut().rev().filter(|f| f.open) {
            frame.body += inner;
            inner = field_len(frame.body);
            if let Some(Segment::Prefix { body, .. }) = self.segments.get_mut(frame.segment) {
                *body = frame.body;
            }
            frame.open = false;
            frame.cut = true;
            frame.body = frame.header.len;
        }
        let len = self.bytes + inner;
        let mut prefix = Vec::with_capacity(16);
        for segment in self.segments.drain(..) {
            match segment {
                Segment::Range(from, to) => self.source.put(from, to, &mut self.builder),
                Segment::Header(bytes) => self.builder.put(bytes),
                Segment::Prefix { number, body } => {
                    prefix.clear();
                    put_tag(&mut prefix, number, 2);
                    put_varint(&mut prefix, body as u64);
                    self.builder.copy(&prefix);
                }
            }
        }
        let rope = self.builder.finish();
        debug_assert_eq!(rope.len(), len);
        let items = std::mem::take(&mut self.items);
        self.bytes = 0;
        self.parts.push(Part { rope, items, bytes_ok });
    }
}

fn split(signal: Signal, rope: Rope, items: usize, limit: Limit) -> Vec<Part> {
    let mut splitter = Splitter {
        source: Source::new(&rope),
        signal,
        limit,
        frames: SmallVec::new(),
        segments: Vec::new(),
        bytes: 0,
        items: 0,
        builder: RopeBuilder::new(),
        parts: Vec::new(),
    };
    let done = splitter.request();
    if done.is_ok() && !splitter.segments.is_empty() {
        splitter.finish_part(true);
    }
    let parts = splitter.parts;
    if done.is_err() || parts.is_empty() {
        let bytes_ok = rope.len() <= limit.bytes;
        return vec![Part { rope, items, bytes_ok }];
    }
    parts
}

/// Length of a field with a tag of one byte, which all messages on the way to the items have.
fn field_len(body: usize) -> usize {
    1 + varint_len(body as u64) + body
}
