//! `prometheus_remote_write` (alias `prometheusremotewrite`): sends metrics to Prometheus, Mimir, Thanos and whatever
//! speaks remote write 1.0 or 2.0.
//!
//! Requests are made by [`crate::prometheus::remote`] and sent by sharded delivery: one request at a time for each
//! series. Answers are read as the specifications say (`answer`); beyond the Collector, 429 is always retried, and a
//! request that is refused for bad data is cut until the bad series stands alone.

mod answer;
mod config;
mod sender;

use std::sync::Arc;

pub use self::config::RemoteWriteConfig;
use self::config::{DeltaConfig, ExponentialConfig, Message, OutOfOrderConfig};
use self::sender::WriteSender;
use super::delivery::QueueConfig;
use super::delivery::sharded::{ShardedConfig, ShardedDelivery};
use crate::components::BuildError;
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Exporter};
use crate::prometheus::config::{constant_labels, resource_labels};
use crate::prometheus::map::MapOptions;
use crate::prometheus::remote::{
    Exponential, Negotiation, OutOfOrder, RemoteEncoder, RemoteOptions, Version,
};

/// Attempts that may be spent on cutting one refused request: enough to find some hundred bad series among thousands,
/// and few enough not to ask about each of thousands that are all bad.
const BISECT: usize = 256;

/// What a request may have of bytes when nothing is configured.
const MAX_BYTES: usize = 3_000_000;

/// Builds the exporter.
///
/// # Errors
/// The endpoint is no URL.
pub fn build(
    config: &RemoteWriteConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Arc<dyn Exporter>, BuildError> {
    let options = options(config);
    let sender = WriteSender::new(config, &options.negotiation, cx)?;
    let (shards, max_bytes) = (options.shards, options.max_bytes);
    let queue = config.remote_write_queue.enabled.then(|| QueueConfig {
        queue_size: config.remote_write_queue.queue_size,
        num_consumers: shards as i64,
        ..QueueConfig::default()
    });
    let delivery = ShardedConfig {
        queue,
        retry: config.retry_on_failure.clone(),
        timeout: config.http().timeout,
        // What is encoded is compressed, usually to a tenth: several requests for each shard, or one if the
        // data is random.
        backlog: shards * max_bytes,
        bisect: BISECT,
    };
    let encoder = RemoteEncoder::new(options).with_metrics(&cx.metrics, &cx.id);
    Ok(Arc::new(ShardedDelivery::new(cx, signal, delivery, encoder, sender)))
}

/// What the encoder is told.
pub fn options(config: &RemoteWriteConfig) -> RemoteOptions {
    let namer = config.namer();
    let wanted = match config.protobuf_message {
        Message::V1 => Version::V1,
        Message::V2 => Version::V2,
    };
    RemoteOptions {
        map: MapOptions {
            external_labels: constant_labels(&config.external_labels, &namer),
            namer,
            resource_labels: resource_labels(
                &config.resource_to_telemetry_conversion,
                &config.resource_constant_labels,
            ),
            target_info: config.target_info.enabled,
            scope_labels: !config.disable_scope_info,
        },
        negotiation: Arc::new(Negotiation::new(wanted)),
        shards: config.shards(),
        max_bytes: match usize::try_from(config.max_batch_size_bytes) {
            Ok(bytes) if bytes > 0 => bytes,
            _ => MAX_BYTES,
        },
        cache_bytes: config.series_cache_size.get(),
        out_of_order: match config.out_of_order {
            OutOfOrderConfig::Drop => OutOfOrder::Drop,
            OutOfOrderConfig::Keep => OutOfOrder::Keep,
        },
        sample_age_limit: config.sample_age_limit,
        exponential: match config.exponential_histograms {
            ExponentialConfig::Native => Exponential::Native,
            ExponentialConfig::Classic => Exponential::Classic,
        },
        custom_buckets: config.convert_explicit_histograms_to_nhcb,
        keep_classic: config.keep_classic_histograms,
        metadata: config.send_metadata,
        senders_wait: !config.remote_write_queue.enabled,
        partition_keys: config.include_metadata_keys.clone(),
        delta: (config.delta == DeltaConfig::Accumulate).then(|| crate::prometheus::delta::Limits {
            max_streams: usize::try_from(config.delta_limits.max_streams).unwrap_or(1),
            max_stale: config.delta_limits.max_stale,
        }),
    }
}
