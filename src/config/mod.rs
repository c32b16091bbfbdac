//! What the user wrote: where it stands, what it means, what is wrong with it.
//!
//! A file becomes a tree of [`Node`]s that know their positions. Config types decode themselves from nodes
//! through [`Config`], usually written by [`config!`](crate::config), collecting every mistake in a [`Cx`]
//! instead of stopping at the first. The same types describe themselves for the schema and the reference.

mod check;
mod cx;
mod decode;
mod expand;
mod hide;
mod inside;
mod node;
mod primitive;
mod print;
mod reference;
mod render;
mod root;
mod scalar;
mod schema;
mod sources;
mod telemetry;
pub mod types;
pub(crate) mod yaml;

pub use cx::{Cx, Diag, Severity};
pub use decode::{
    Config, ConfigStruct, decode_and_validate, decode_struct, decode_word, key_name, nearest, unknown_key,
};
pub use node::{Key, Node, Pos, Value};
pub use primitive::text_of;
pub use print::Printing;
pub use reference::{json_schema, pages as reference_pages};
pub use render::{render, summary, to_json};
pub use root::{ComponentPlan, LoadOptions, Loaded, PipelinePlan, Plan, load, parse_bytes};
pub use schema::{Schema, SchemaField, SchemaKind};
pub use sources::{Source, SourceText, merge};
pub use telemetry::{
    LogEncoding, LogLevel, LogSampling, LogsConfig, MetricsConfig, MetricsLevel, PrometheusReader,
    ResourceConfig, TelemetryConfig,
};
