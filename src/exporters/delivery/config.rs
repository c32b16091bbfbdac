//! The keys of `sending_queue`, `retry_on_failure` and `timeout`, as every exporter has them.

use std::time::Duration;

use crate::config::types::{Optional, Unsupported};
use crate::config::{Cx, Node};
use crate::{config, config_enum};

config_enum! {
    /// What a queue is measured in.
    pub enum Sizer {
        /// Batches, whatever their size.
        Requests = "requests",
        /// Spans, data points or log records.
        Items = "items",
        /// Bytes of OTLP protobuf.
        Bytes = "bytes",
    }
}

config_enum! {
    /// What the batches of a queue are measured in.
    pub enum BatchSizer {
        /// Spans, data points or log records.
        Items = "items",
        /// Bytes of OTLP protobuf.
        Bytes = "bytes",
    }
}

config! {
    /// Keeps the data of clients apart while batching.
    pub struct PartitionConfig {
        /// Request metadata keys: data is merged only when the client sent the same values for all of them. Needs
        /// `include_metadata` at the receiver.
        pub metadata_keys: Vec<String> = Vec::new(),
    }
    validate = PartitionConfig::check;
}

impl PartitionConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        for (i, key) in self.metadata_keys.iter().enumerate() {
            if self.metadata_keys.iter().take(i).any(|k| k.eq_ignore_ascii_case(key)) {
                let pos = node.pos_of("metadata_keys");
                cx.within("metadata_keys", |cx| cx.error(pos, format!("duplicate entry \"{key}\"")));
            }
        }
    }
}

config! {
    /// Merges and splits queued data into requests of a wanted size before they are sent.
    pub struct BatchConfig {
        /// How long data may wait for more.
        pub flush_timeout: Duration = Duration::from_millis(200),
        /// The size at which a batch is sent without waiting longer.
        pub min_size: i64 = 8192,
        /// The size above which a batch is split. 0 is no limit.
        pub max_size: i64 = 0,
        /// What `min_size` and `max_size` are measured in. Taken from the queue's `sizer` if that is written.
        pub sizer: BatchSizer = BatchSizer::Items,
        /// Keeps the data of clients apart.
        pub partition: PartitionConfig = PartitionConfig::default(),
    }
    validate = BatchConfig::check;
}

impl BatchConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: &str| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if self.flush_timeout.is_zero() {
            fail("flush_timeout", "'flush_timeout' must be positive");
        }
        if self.min_size < 0 {
            fail("min_size", "'min_size' must be non-negative");
        }
        if self.max_size < 0 {
            fail("max_size", "'max_size' must be non-negative");
        } else if self.max_size > 0 && self.max_size < self.min_size {
            fail("max_size", "'max_size' must be greater than or equal to 'min_size'");
        }
    }
}

config! {
    /// Holds requests in memory until the destination has taken them.
    pub struct QueueConfig {
        /// How many requests are sent at the same time.
        pub num_consumers: i64 = 10,
        /// How much the queue holds, what is being sent included, in units of `sizer`.
        pub queue_size: i64 = 1000,
        /// What `queue_size` is measured in.
        pub sizer: Sizer = Sizer::Requests,
        /// Whether the sender of the data waits until the destination has answered, and gets its error.
        pub wait_for_result: bool = false,
        /// Whether the sender of the data waits for room when the queue is full, instead of being refused.
        pub block_on_overflow: bool = false,
        /// Not supported: queues are kept in memory.
        pub storage: Unsupported = Unsupported,
        /// Merges and splits queued data before it is sent. Off unless written.
        pub batch: Optional<BatchConfig> = Optional::off(BatchConfig::default()),
    }
    validate = QueueConfig::check;
}

impl QueueConfig {
    fn check(&mut self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: &str| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if self.num_consumers <= 0 {
            fail("num_consumers", "'num_consumers' must be positive");
        }
        if self.queue_size <= 0 {
            fail("queue_size", "'queue_size' must be positive");
        }
        self.settle_batch_sizer(node, cx);
        let same_unit = |b: &BatchConfig| {
            matches!(
                (self.sizer, b.sizer),
                (Sizer::Items, BatchSizer::Items) | (Sizer::Bytes, BatchSizer::Bytes)
            )
        };
        if let Some(batch) = self.batch.get()
            && same_unit(batch)
            && batch.min_size > self.queue_size
        {
            let pos = node.get("batch").map_or(node.pos, |b| b.pos_of("min_size"));
            cx.within("batch", |cx| {
                cx.within("min_size", |cx| {
                    cx.error(pos, "'min_size' must be less than or equal to 'queue_size'")
                })
            });
        }
    }

    /// A queue sizer that is written holds for a non-empty batch block that names none.
    fn settle_batch_sizer(&mut self, node: &Node, cx: &mut Cx) {
        let (Some(_), Some(block)) = (node.get("sizer"), node.get("batch")) else { return };
        let named = block.get("sizer").is_some();
        let empty = !matches!(&block.value, crate::config::Value::Map(entries) if !entries.is_empty());
        let Some(batch) = self.batch.get_mut() else { return };
        if named || empty {
            return;
        }
        match self.sizer {
            Sizer::Items => batch.sizer = BatchSizer::Items,
            Sizer::Bytes => batch.sizer = BatchSizer::Bytes,
            Sizer::Requests => {
                let hint = "write 'sizer: items' or 'sizer: bytes' in the batch block";
                let why = "'batch' cannot be measured in requests, which is the queue's 'sizer'";
                cx.within("batch", |cx| cx.error_hint(block.pos, why, hint));
            }
        }
    }
}

config! {
    /// Sends failed requests again, waiting longer each time.
    pub struct RetryConfig {
        /// Whether failed requests are sent again.
        pub enabled: bool = true,
        /// The first wait.
        pub initial_interval: Duration = Duration::from_secs(5),
        /// How much waits vary: 0.5 is between half and one and a half times.
        pub randomization_factor: f64 = 0.5,
        /// How much longer each wait is than the one before.
        pub multiplier: f64 = 1.5,
        /// The longest wait, before it varies.
        pub max_interval: Duration = Duration::from_secs(30),
        /// How long a request is tried before its data is dropped. 0 is forever.
        pub max_elapsed_time: Duration = Duration::from_secs(300),
    }
    validate = RetryConfig::check;
}

impl RetryConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: &str| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if !(0.0..=1.0).contains(&self.randomization_factor) {
            fail("randomization_factor", "'randomization_factor' must be within [0, 1]");
        }
        if self.multiplier.is_nan() || self.multiplier < 0.0 {
            fail("multiplier", "'multiplier' must be non-negative");
        }
        if !self.max_elapsed_time.is_zero() {
            if self.max_elapsed_time < self.initial_interval {
                let why = "'max_elapsed_time' must not be less than 'initial_interval'";
                fail("max_elapsed_time", why);
            } else if self.max_elapsed_time < self.max_interval {
                fail("max_elapsed_time", "'max_elapsed_time' must not be less than 'max_interval'");
            }
        }
    }
}

/// What an exporter hands to its delivery.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// The queue; `None` sends each batch at once and tells its sender the outcome.
    pub queue: Option<QueueConfig>,
    /// Whether and how failed requests are sent again.
    pub retry: RetryConfig,
    /// The longest one attempt may take; zero is no limit.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests;
