//! Views of log records: the scalars and the body in one pass, attributes when asked for.
//!
//! A record is reached by [`groups`](super::common::groups), [`scopes`](super::common::ResourceGroup::scopes)
//! and [`items`](super::common::ScopeGroup::items).

use super::common::{AnyValue, Attributes};
use super::fields::log_record;
use super::wire::{Cursor, WireError};

/// One log record.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// When it happened, nanoseconds since 1970; 0 when unknown.
    pub time_unix_nano: u64,
    /// When it was seen, nanoseconds since 1970; 0 when unknown.
    pub observed_time_unix_nano: u64,
    /// SeverityNumber; 0 when unset.
    pub severity_number: i32,
    /// The severity as the source calls it.
    pub severity_text: &'a [u8],
    /// What was logged; `None` when there is no body.
    pub body: Option<AnyValue<'a>>,
    /// Attributes the producer left out.
    pub dropped_attributes_count: u32,
    /// W3C trace flags.
    pub flags: u32,
    /// 16 bytes, or none.
    pub trace_id: &'a [u8],
    /// 8 bytes, or none.
    pub span_id: &'a [u8],
    /// The kind of event, if the record is one.
    pub event_name: &'a [u8],
}

impl<'a> LogRecord<'a> {
    /// Reads an encoded log record.
    ///
    /// # Errors
    /// What is wrong with it; attributes and the inside of the body are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut record = LogRecord {
            message,
            time_unix_nano: 0,
            observed_time_unix_nano: 0,
            severity_number: 0,
            severity_text: &[],
            body: None,
            dropped_attributes_count: 0,
            flags: 0,
            trace_id: &[],
            span_id: &[],
            event_name: &[],
        };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            let value = field.value;
            match field.number {
                log_record::TIME_UNIX_NANO => record.time_unix_nano = value.fixed64()?,
                log_record::SEVERITY_NUMBER => record.severity_number = value.varint()? as i32,
                log_record::SEVERITY_TEXT => record.severity_text = value.bytes()?,
                log_record::BODY => {
                    let body = AnyValue::parse(value.bytes()?)?;
                    // A second body that sets nothing leaves the first as it is.
                    if record.body.is_none() || !matches!(body, AnyValue::Empty) {
                        record.body = Some(body);
                    }
                }
                log_record::DROPPED_ATTRIBUTES_COUNT => {
                    record.dropped_attributes_count = value.varint()? as u32;
                }
                log_record::FLAGS => record.flags = value.fixed32()?,
                log_record::TRACE_ID => record.trace_id = value.bytes()?,
                log_record::SPAN_ID => record.span_id = value.bytes()?,
                log_record::OBSERVED_TIME_UNIX_NANO => record.observed_time_unix_nano = value.fixed64()?,
                log_record::EVENT_NAME => record.event_name = value.bytes()?,
                _ => {}
            }
        }
        Ok(record)
    }

    /// The record's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, log_record::ATTRIBUTES)
    }
}
