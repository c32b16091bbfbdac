//! What may have to be changed in a record.

/// What is done to a record so that Loki takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The end of its line was cut off.
    LineTruncated,
    /// A label became structured metadata.
    LabelDemoted,
    /// The end of a label's value was cut off.
    LabelTruncated,
    /// A label was left out.
    LabelDropped,
    /// Structured metadata that did not fit was left out.
    MetadataTrimmed,
    /// An attribute was left out of whose key no name is left.
    NameUnusable,
}

impl Change {
    /// All of them.
    pub const ALL: [Change; 6] = [
        Change::LineTruncated,
        Change::LabelDemoted,
        Change::LabelTruncated,
        Change::LabelDropped,
        Change::MetadataTrimmed,
        Change::NameUnusable,
    ];

    /// The word in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Change::LineTruncated => "line_truncated",
            Change::LabelDemoted => "label_demoted",
            Change::LabelTruncated => "label_truncated",
            Change::LabelDropped => "label_dropped",
            Change::MetadataTrimmed => "metadata_trimmed",
            Change::NameUnusable => "name_unusable",
        }
    }
}
