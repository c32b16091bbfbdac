//! The keys of the `file` exporter and what is wrong with them.

use std::time::Duration;

use crate::components::ComponentConfig;
use crate::config::types::{Optional, Unsupported};
use crate::config::{Cx, Node};
use crate::{config, config_enum};

config_enum! {
    /// The form of a record.
    pub enum Format {
        /// One OTLP/JSON document a line.
        Json = "json",
        /// Four bytes of length, big endian, then the protobuf request.
        Proto = "proto",
    }
}

config_enum! {
    /// How records are compressed.
    pub enum Compression {
        /// Not at all.
        None = "",
        /// Each record on its own with zstd, behind four bytes of length, big endian.
        Zstd = "zstd",
    }
}

config! {
    /// Writes telemetry to a file. Exporters of several signals and pipelines share one file. A batch is
    /// acknowledged when it is written; what cannot be written is given back to its sender.
    pub struct FileConfig {
        /// The file. With `group_by`, a `*` stands for the attribute's value.
        pub path: String = String::new(),
        /// Whether to keep what is in the file at the start, rather than empty it. Not with compression or
        /// rotation; files of `group_by` are always appended to.
        pub append: bool = false,
        /// The form of a record: `json` or `proto`.
        pub format: Format = Format::Json,
        /// `zstd` compresses each record on its own; records then stand behind their length in either format.
        pub compression: Compression = Compression::None,
        /// How to compress.
        pub compression_params: CompressionParams = CompressionParams::default(),
        /// Not supported: there are no encoding extensions, use `format`.
        pub encoding: Unsupported = Unsupported,
        /// How often what was written is forced to the disk. Records reach the file at once.
        pub flush_interval: Duration = Duration::from_secs(1),
        /// Starts a new file when the current one is full, and removes old ones.
        pub rotation: Optional<RotationConfig> = Optional::none(RotationConfig::default()),
        /// Writes to one file a value of a resource attribute.
        pub group_by: GroupByConfig = GroupByConfig::default(),
        /// Whether to create the directory of the file if it is missing.
        pub create_directory: bool = false,
    }
    validate = FileConfig::check;
}

config! {
    /// How to compress.
    pub struct CompressionParams {
        /// The zstd level, 1 to 22; 0 is zstd's own default, 3.
        pub level: i32 = 0,
    }
}

config! {
    /// When to start a new file. A full file is renamed to `name-TIME.ext`, with the time of the change.
    pub struct RotationConfig {
        /// The size in MiB beyond which a file does not grow.
        pub max_megabytes: u64 = 100,
        /// The age in days at which old files are removed; 0 keeps them.
        pub max_days: u32 = 0,
        /// How many old files are kept; 0 keeps all.
        pub max_backups: usize = 100,
        /// Whether the time in file names is local time, rather than UTC.
        pub localtime: bool = false,
    }
    validate = RotationConfig::check;
}

config! {
    /// Writes to one file a value of a resource attribute.
    pub struct GroupByConfig {
        /// Whether to do so. `path` must then contain exactly one `*`, not in its first segment, and rotation
        /// has no effect.
        pub enabled: bool = false,
        /// The attribute. Its value may name folders (`a/b`), but nothing outside `path`; where a resource
        /// has no such attribute, `MISSING` stands for it.
        pub resource_attribute: String = "fileexporter.path_segment".to_owned(),
        /// How many files are kept open; the one not used for longest is closed for the next.
        pub max_open_files: usize = 100,
    }
}

impl ComponentConfig for FileConfig {}

impl FileConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut error = |key: &str, message: &str| {
            let pos = node.pos_of(key);
            cx.within(key, |cx| cx.error(pos, message));
        };
        if self.path.is_empty() {
            error("path", "path must be non-empty");
        }
        if self.append && self.compression != Compression::None {
            error("append", "append cannot be used with compression");
        }
        if self.append && self.rotation.get().is_some() {
            error("append", "append cannot be used with rotation");
        }
        if self.flush_interval.is_zero() {
            error("flush_interval", "flush_interval must be larger than zero");
        }
        let level = self.compression_params.level;
        if !(0..=22).contains(&level) {
            error("compression_params", &format!("the zstd level must be between 1 and 22, not {level}"));
        }
        if level != 0 && self.compression == Compression::None {
            error("compression_params", "compression_params has no effect without compression: zstd");
        }
        if self.group_by.enabled {
            self.check_groups(&mut error);
        }
    }

    fn check_groups(&self, error: &mut impl FnMut(&str, &str)) {
        let first = self.path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if self.path.matches('*').count() != 1 {
            error("path", "path must contain exactly one * when group_by is enabled");
        } else if first.contains('*') {
            error("path", "the first segment of path must not contain the * of group_by");
        }
        if self.group_by.resource_attribute.is_empty() {
            error("group_by", "resource_attribute must be non-empty");
        }
        if self.group_by.max_open_files == 0 {
            error("group_by", "max_open_files must be larger than zero");
        }
    }
}

impl RotationConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.max_megabytes == 0 {
            let pos = node.pos_of("max_megabytes");
            cx.within("max_megabytes", |cx| cx.error(pos, "max_megabytes must be larger than zero"));
        }
    }
}
