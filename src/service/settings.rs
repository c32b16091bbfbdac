//! From what the user wrote under `service.telemetry` to what the telemetry modules take.

use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use super::About;
use crate::config::{LogEncoding, LogLevel, LogsConfig, MetricsLevel, ResourceConfig};
use crate::telemetry::logs::{LogSettings, Sampling};

/// The attributes that describe this agent: the defaults, changed as the user wrote.
pub fn about(config: &ResourceConfig) -> About {
    let mut about = About::from([
        ("service.name".to_owned(), "tidegate".to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), random_uuid()),
    ]);
    for (name, value) in &config.attributes {
        match value {
            Some(value) => about.insert(name.clone(), value.clone()),
            None => about.remove(name),
        };
    }
    about
}

/// How to log.
pub fn logs(config: &LogsConfig, about: &About) -> LogSettings {
    LogSettings {
        level: match config.level {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
        },
        json: config.encoding == LogEncoding::Json,
        sampling: config.sampling.get().map(|s| Sampling {
            // A tick of no length would never end a count.
            tick: s.tick.max(Duration::from_millis(1)),
            initial: s.initial.into(),
            thereafter: s.thereafter.into(),
        }),
        output_paths: config.output_paths.clone(),
        initial_fields: config.initial_fields.clone(),
        resource: about.clone(),
    }
}

/// Which metric families a level leaves out, by the start of their names.
pub fn hidden(level: MetricsLevel) -> &'static [&'static str] {
    match level {
        MetricsLevel::None => &[""],
        MetricsLevel::Basic => &["otelcol_processor_batch_"],
        MetricsLevel::Normal => &["otelcol_exporter_queue_batch_send_size", "otelcol_exporter_enqueue_size"],
        MetricsLevel::Detailed => &[],
    }
}

/// A random (version 4) UUID.
fn random_uuid() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let parts =
        [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default().to_owned());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_describe_the_agent_and_can_be_changed() {
        let mut config = ResourceConfig::default();
        config.attributes.insert("service.version".to_owned(), None);
        config.attributes.insert("deployment".to_owned(), Some("blue".to_owned()));
        let about = about(&config);
        assert_eq!(about.keys().collect::<Vec<_>>(), ["deployment", "service.instance.id", "service.name"]);
        let id = about["service.instance.id"].as_bytes();
        assert_eq!((id.len(), id[14], id[8]), (36, b'4', b'-'));
    }
}
