//! Loki's push messages, written down twice: as structs that prost encodes and decodes, and as tables of what a
//! client may put on the wire. Text is bytes here, because Loki's own decoder does not look at it.

use prost::Message;

use crate::support::prometheus::wire::{Kind, MANY, ONE, Table};

#[derive(Clone, PartialEq, Message)]
pub struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Stream {
    #[prost(bytes = "vec", tag = "1")]
    pub labels: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
    #[prost(uint64, tag = "3")]
    pub hash: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(bytes = "vec", tag = "2")]
    pub line: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Pair>,
    #[prost(message, repeated, tag = "4")]
    pub parsed: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pair {
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// From nanoseconds since the epoch.
    pub fn from_nanos(nanos: i64) -> Self {
        Timestamp { seconds: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) as i32 }
    }
}

/// What a client may send: no format, no hash, nothing parsed.
pub static PUSH: Table =
    Table { name: "PushRequest", fields: &[(1, "streams", Kind::Message(&STREAM), MANY)] };

static STREAM: Table = Table {
    name: "StreamAdapter",
    fields: &[(1, "labels", Kind::Text, ONE), (2, "entries", Kind::Message(&ENTRY), MANY)],
};

static ENTRY: Table = Table {
    name: "EntryAdapter",
    fields: &[
        (1, "timestamp", Kind::Message(&TIMESTAMP), ONE),
        (2, "line", Kind::Text, ONE),
        (3, "structuredMetadata", Kind::Message(&PAIR), MANY),
    ],
};

static PAIR: Table = Table {
    name: "LabelPairAdapter",
    fields: &[(1, "name", Kind::Text, ONE), (2, "value", Kind::Text, ONE)],
};

static TIMESTAMP: Table = Table {
    name: "Timestamp",
    fields: &[(1, "seconds", Kind::Int64, ONE), (2, "nanos", Kind::UpTo(999_999_999), ONE)],
};

/// A request made by hand: label text, and time, line and metadata of the entries.
pub fn push(streams: &[(&str, &[(i64, &str, &[(&str, &str)])])]) -> PushRequest {
    let pair = |(name, value): &(&str, &str)| Pair { name: (*name).into(), value: (*value).into() };
    let entry = |(time, line, metadata): &(i64, &str, &[(&str, &str)])| Entry {
        timestamp: Some(Timestamp::from_nanos(*time)),
        line: (*line).into(),
        metadata: metadata.iter().map(pair).collect(),
        parsed: Vec::new(),
    };
    let stream = |(labels, entries): &(&str, &[(i64, &str, &[(&str, &str)])])| Stream {
        labels: (*labels).into(),
        entries: entries.iter().map(entry).collect(),
        hash: 0,
    };
    PushRequest { streams: streams.iter().map(stream).collect() }
}
