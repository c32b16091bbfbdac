//! Views of spans: the scalars in one pass, the lists when asked for.
//!
//! A span is reached by [`groups`](super::common::groups), [`scopes`](super::common::ResourceGroup::scopes)
//! and [`items`](super::common::ScopeGroup::items).

use super::common::{Attributes, Messages};
use super::fields::{event, link, span, status};
use super::wire::{Cursor, WireError};

/// One span.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// 16 bytes, or none.
    pub trace_id: &'a [u8],
    /// 8 bytes, or none.
    pub span_id: &'a [u8],
    /// 8 bytes, or none for a root.
    pub parent_span_id: &'a [u8],
    /// W3C trace state.
    pub trace_state: &'a [u8],
    /// What the span is called.
    pub name: &'a [u8],
    /// SpanKind.
    pub kind: i32,
    /// Begin, nanoseconds since 1970.
    pub start_time_unix_nano: u64,
    /// End, nanoseconds since 1970.
    pub end_time_unix_nano: u64,
    /// Attributes the producer left out.
    pub dropped_attributes_count: u32,
    /// Events the producer left out.
    pub dropped_events_count: u32,
    /// Links the producer left out.
    pub dropped_links_count: u32,
    /// StatusCode, and whether there is a status at all.
    pub status_code: Option<i32>,
    /// The message of the status.
    pub status_message: &'a [u8],
    /// W3C trace flags and the remote bits.
    pub flags: u32,
}

/// Something that happened during a span.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// When, nanoseconds since 1970.
    pub time_unix_nano: u64,
    /// What the event is called.
    pub name: &'a [u8],
    /// Attributes the producer left out.
    pub dropped_attributes_count: u32,
}

/// A reference to another span.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// 16 bytes, or none.
    pub trace_id: &'a [u8],
    /// 8 bytes, or none.
    pub span_id: &'a [u8],
    /// W3C trace state.
    pub trace_state: &'a [u8],
    /// Attributes the producer left out.
    pub dropped_attributes_count: u32,
    /// W3C trace flags and the remote bits.
    pub flags: u32,
}

impl<'a> Span<'a> {
    /// Reads an encoded span.
    ///
    /// # Errors
    /// What is wrong with it; attributes, events and links are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut span = Span { message, ..Span::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            let value = field.value;
            match field.number {
                span::TRACE_ID => span.trace_id = value.bytes()?,
                span::SPAN_ID => span.span_id = value.bytes()?,
                span::TRACE_STATE => span.trace_state = value.bytes()?,
                span::PARENT_SPAN_ID => span.parent_span_id = value.bytes()?,
                span::NAME => span.name = value.bytes()?,
                span::KIND => span.kind = value.varint()? as i32,
                span::START_TIME_UNIX_NANO => span.start_time_unix_nano = value.fixed64()?,
                span::END_TIME_UNIX_NANO => span.end_time_unix_nano = value.fixed64()?,
                span::DROPPED_ATTRIBUTES_COUNT => span.dropped_attributes_count = value.varint()? as u32,
                span::DROPPED_EVENTS_COUNT => span.dropped_events_count = value.varint()? as u32,
                span::DROPPED_LINKS_COUNT => span.dropped_links_count = value.varint()? as u32,
                span::STATUS => span.status(value.bytes()?)?,
                span::FLAGS => span.flags = value.fixed32()?,
                _ => {}
            }
        }
        Ok(span)
    }

    /// The span's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, span::ATTRIBUTES)
    }

    /// The span's events.
    pub fn events(&self) -> impl Iterator<Item = Result<Event<'a>, WireError>> + Clone {
        Messages::of(self.message, span::EVENTS).map(|m| m.and_then(Event::parse))
    }

    /// The span's links.
    pub fn links(&self) -> impl Iterator<Item = Result<Link<'a>, WireError>> + Clone {
        Messages::of(self.message, span::LINKS).map(|m| m.and_then(Link::parse))
    }

    fn status(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let code = self.status_code.get_or_insert(0);
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            match field.number {
                status::MESSAGE => self.status_message = field.value.bytes()?,
                status::CODE => *code = field.value.varint()? as i32,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Event<'a> {
    /// Reads an encoded event.
    ///
    /// # Errors
    /// What is wrong with it; attributes are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut event = Event { message, ..Event::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            match field.number {
                event::TIME_UNIX_NANO => event.time_unix_nano = field.value.fixed64()?,
                event::NAME => event.name = field.value.bytes()?,
                event::DROPPED_ATTRIBUTES_COUNT => {
                    event.dropped_attributes_count = field.value.varint()? as u32;
                }
                _ => {}
            }
        }
        Ok(event)
    }

    /// The event's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, event::ATTRIBUTES)
    }
}

impl<'a> Link<'a> {
    /// Reads an encoded link.
    ///
    /// # Errors
    /// What is wrong with it; attributes are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut link = Link { message, ..Link::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            match field.number {
                link::TRACE_ID => link.trace_id = field.value.bytes()?,
                link::SPAN_ID => link.span_id = field.value.bytes()?,
                link::TRACE_STATE => link.trace_state = field.value.bytes()?,
                link::DROPPED_ATTRIBUTES_COUNT => {
                    link.dropped_attributes_count = field.value.varint()? as u32;
                }
                link::FLAGS => link.flags = field.value.fixed32()?,
                _ => {}
            }
        }
        Ok(link)
    }

    /// The link's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, link::ATTRIBUTES)
    }
}
