//! `loki`: sends logs to Loki by its push protocol.
//!
//! Requests come from [`LokiEncoder`], which decides labels, metadata and shards from the bytes; delivery keeps each
//! shard's order. What Loki's answers mean is in `answer`: a request that is refused for its data is cut until the
//! bad entry stands alone, and so is one on which Loki fails again and again while it takes others.

mod answer;
mod config;
mod sender;

use std::sync::Arc;

pub use self::config::LokiConfig;
use self::config::{
    EncodingConfig, FormatConfig, LargeMetadataConfig, LongLabelConfig, LongLineConfig, ManyLabelsConfig,
};
use self::sender::PushSender;
use super::delivery::sharded::{ShardedConfig, ShardedDelivery};
use crate::components::BuildError;
use crate::loki::{Encoding, Format, LabelSource, Limits, LokiEncoder, LokiOptions, OldLabels, Unfit};
use crate::net::client::HttpCompression;
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Exporter};
use crate::relabel::{Names, Rule};

/// Attempts that may be spent on cutting one refused request: enough to find some forty bad entries among thousands.
const BISECT: usize = 1024;

/// Builds the exporter.
///
/// # Errors
/// The endpoint is no URL, or a rule cannot be compiled.
pub fn build(
    config: &LokiConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Arc<dyn Exporter>, BuildError> {
    let options = options(config)?;
    let sender = PushSender::new(config, options.encoding, cx)?;
    let (shards, max_bytes) = (options.shards, options.max_bytes);
    let delivery = ShardedConfig {
        queue: config.sending_queue.get().cloned(),
        retry: config.retry_on_failure.clone(),
        timeout: config.client.timeout,
        backlog: shards * max_bytes,
        bisect: BISECT,
    };
    let encoder = LokiEncoder::new(options).with_metrics(&cx.metrics, &cx.id);
    Ok(Arc::new(ShardedDelivery::new(cx, signal, delivery, encoder, sender)))
}

/// What the encoder is told.
///
/// # Errors
/// A rule cannot be compiled, or a source is none; both are found when the file is read.
pub fn options(config: &LokiConfig) -> Result<LokiOptions, BuildError> {
    let mut labels: Vec<(Option<String>, LabelSource)> = Vec::new();
    if config.labels.defaults {
        labels.extend(config::default_sources().map(|source| (None, source)));
    }
    for text in &config.labels.include {
        labels.push((None, LabelSource::parse(text)?));
    }
    for (name, text) in &config.labels.rename {
        let source = LabelSource::parse(text)?;
        // Under its own name it is no label besides.
        labels.retain(|(own, known)| own.is_some() || *known != source);
        labels.push((Some(name.clone()), source));
    }
    let limits = &config.limits;
    let old = &config.default_labels_enabled;
    let rules = config.labels.relabel_configs.iter().map(|rule| Rule::new(rule, Names::Legacy));
    Ok(LokiOptions {
        labels,
        old_labels: OldLabels {
            exporter: old.exporter,
            job: old.job,
            instance: old.instance,
            level: old.level,
        },
        static_labels: config.labels.r#static.clone().into_iter().collect(),
        relabel: rules.collect::<Result<_, _>>()?,
        format: match config.format {
            FormatConfig::Raw => Format::Raw,
            FormatConfig::Json => Format::Json,
            FormatConfig::Logfmt => Format::Logfmt,
        },
        structured_metadata: config.structured_metadata,
        tenant: (!config.tenant.value.is_empty()).then(|| config.tenant.value.as_str().into()),
        tenant_attribute: config.tenant.from_attribute.clone(),
        batch_tenant: !config.tenant.header.is_empty()
            && config.client.headers.iter().all(|(name, _)| !config.tenant.is_header(name)),
        limits: Limits {
            line: limits.max_line_size.get(),
            cut_lines: limits.long_line == LongLineConfig::Truncate,
            labels: limits.max_label_names,
            many_labels: match limits.many_labels {
                ManyLabelsConfig::Demote => Unfit::Demote,
                ManyLabelsConfig::Drop => Unfit::Drop,
            },
            label_name: limits.max_label_name_length,
            label_value: limits.max_label_value_length,
            long_label: match limits.long_label {
                LongLabelConfig::Demote => Unfit::Demote,
                LongLabelConfig::Truncate => Unfit::Truncate,
                LongLabelConfig::Drop => Unfit::Drop,
            },
            metadata_bytes: limits.max_metadata_size.get(),
            metadata_count: limits.max_metadata_count,
            trim_metadata: limits.large_metadata == LargeMetadataConfig::Trim,
            max_age: limits.max_age,
            streams: limits.max_streams,
        },
        shards: config.shards(),
        max_bytes: config.max_batch_size_bytes.get(),
        cache_bytes: config.stream_cache_size.get(),
        encoding: match config.encoding {
            EncodingConfig::Protobuf => Encoding::Protobuf,
            EncodingConfig::Json => {
                Encoding::Json { gzip: config.client.compression == HttpCompression::Gzip }
            }
        },
    })
}
