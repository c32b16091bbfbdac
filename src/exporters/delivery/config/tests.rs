//! The keys as a user writes them, through the loader.

use std::time::Duration;

use crate::components::Kind;
use crate::config::{Severity, parse_bytes};
use crate::exporters::delivery::{BatchSizer, Sizer};
use crate::exporters::otlp_grpc::OtlpGrpcConfig;
use crate::exporters::otlp_http::OtlpHttpConfig;

fn load<T: Clone + 'static>(kind: &str, body: &str) -> Result<T, Vec<String>> {
    let file = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{}}}}}}}}\nexporters:\n  {kind}: {{{body}}}\n\
         service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [{kind}]}}}}}}\n"
    );
    let loaded = parse_bytes(file.as_bytes());
    let errors = loaded.diags.iter().filter(|d| d.severity == Severity::Error);
    match &loaded.plan {
        None => Err(errors.map(|d| format!("{}: {}", d.path, d.message)).collect()),
        Some(plan) => {
            let config = &plan.component(Kind::Exporter, kind).unwrap().config;
            Ok(config.as_any().downcast_ref::<T>().unwrap().clone())
        }
    }
}

fn grpc(body: &str) -> Result<OtlpGrpcConfig, Vec<String>> {
    load("otlp_grpc", body)
}

#[test]
fn mistakes_are_named_where_they_are() {
    let cases = [
        ("", "requires a non-empty \"endpoint\""),
        ("endpoint: 'host:http'", "invalid port"),
        ("endpoint: 'h:1', timeout: -1s", "negative"),
        ("endpoint: 'h:1', compression: lz4", "unsupported value \"lz4\""),
        ("endpoint: 'h:1', balancer_name: random", "unsupported value \"random\""),
        ("endpoint: 'h:1', middlewares: [{id: x}]", "\"middlewares\" is not supported"),
        ("endpoint: 'h:1', write_buffer_size: -1", "out of range"),
        ("endpoint: 'h:1', sending_queue: {num_consumers: 0}", "'num_consumers' must be positive"),
        ("endpoint: 'h:1', sending_queue: {queue_size: 0}", "'queue_size' must be positive"),
        ("endpoint: 'h:1', sending_queue: {storage: file_storage}", "\"storage\" is not supported"),
        ("endpoint: 'h:1', sending_queue: {batch: {flush_timeout: 0}}", "'flush_timeout' must be positive"),
        ("endpoint: 'h:1', sending_queue: {batch: {min_size: -1}}", "'min_size' must be non-negative"),
        ("endpoint: 'h:1', sending_queue: {batch: {max_size: 10}}", "'max_size' must be greater"),
        (
            "endpoint: 'h:1', sending_queue: {sizer: requests, batch: {min_size: 1}}",
            "cannot be measured in requests",
        ),
        (
            "endpoint: 'h:1', sending_queue: {sizer: items, batch: {min_size: 2000}}",
            "less than or equal to 'queue_size'",
        ),
        (
            "endpoint: 'h:1', sending_queue: {batch: {partition: {metadata_keys: [a, A]}}}",
            "duplicate entry \"A\"",
        ),
        ("endpoint: 'h:1', retry_on_failure: {randomization_factor: 2}", "within [0, 1]"),
        ("endpoint: 'h:1', retry_on_failure: {multiplier: -1}", "'multiplier' must be non-negative"),
        (
            "endpoint: 'h:1', retry_on_failure: {enabled: false, max_elapsed_time: 1s}",
            "'max_elapsed_time' must not be less than 'initial_interval'",
        ),
        (
            "endpoint: 'h:1', retry_on_failure: {max_elapsed_time: 10s}",
            "must not be less than 'max_interval'",
        ),
        ("endpoint: 'h:1', headers: {Connection: close}", "belongs to the protocol"),
        ("endpoint: 'h:1', headers: {grpc-timeout: 1S}", "belongs to the protocol"),
        ("endpoint: 'h:1', auth: {}", "'authenticator' must name an extension"),
    ];
    for (body, want) in cases {
        let errors = grpc(body).err().unwrap_or_default();
        assert!(errors.iter().any(|e| e.contains(want)), "{body}: {errors:?}");
        assert_eq!(errors.len(), 1, "{body}: {errors:?}");
    }
    let cases = [
        ("", "at least one endpoint must be specified"),
        ("endpoint: 'http://h', encoding: xml", "unsupported value \"xml\""),
        ("endpoint: 'http://h', compression: brotli", "unsupported value \"brotli\""),
        (
            "endpoint: 'http://h', compression: gzip, compression_params: {level: 12}",
            "unsupported parameters",
        ),
        ("endpoint: 'http://h', read_buffer_size: 10", "'read_buffer_size' is not supported"),
        ("endpoint: 'http://h', max_conns_per_host: -1", "'max_conns_per_host' must be non-negative"),
    ];
    for (body, want) in cases {
        let errors = load::<OtlpHttpConfig>("otlp_http", body).err().unwrap_or_default();
        assert!(errors.iter().any(|e| e.contains(want)), "{body}: {errors:?}");
        assert_eq!(errors.len(), 1, "{body}: {errors:?}");
    }
}

#[test]
fn optional_blocks_have_the_collectors_flavours() {
    let on = |body: &str| grpc(&format!("endpoint: 'h:1', {body}")).unwrap();
    let queue = |c: &OtlpGrpcConfig| c.sending_queue.get().cloned();
    assert_eq!(queue(&on("timeout: 0")).unwrap().num_consumers, 10);
    assert!(queue(&on("sending_queue: {enabled: false}")).is_none());
    assert!(queue(&on("sending_queue: ")).unwrap().batch.get().is_none());
    for written in ["batch: ", "batch: {}", "batch: {enabled: true}"] {
        let config = queue(&on(&format!("sending_queue: {{{written}}}"))).unwrap();
        let batch = config.batch.get().unwrap();
        assert_eq!((batch.min_size, batch.flush_timeout), (8192, Duration::from_millis(200)));
    }
    assert!(on("keepalive: ").client.keepalive.get().is_none());
    assert!(on("keepalive: {}").client.keepalive.get().is_some());
}

#[test]
fn a_batch_is_measured_like_its_queue_unless_it_says_otherwise() {
    let cases = [
        ("{batch: {min_size: 1}}", Sizer::Requests, BatchSizer::Items),
        ("{sizer: bytes, queue_size: 1000000, batch: {min_size: 1}}", Sizer::Bytes, BatchSizer::Bytes),
        ("{sizer: bytes, batch: {min_size: 1, sizer: items}}", Sizer::Bytes, BatchSizer::Items),
        ("{sizer: bytes, batch: {}}", Sizer::Bytes, BatchSizer::Items),
        ("{sizer: requests, batch: {}}", Sizer::Requests, BatchSizer::Items),
        ("{sizer: requests, batch: {min_size: 1, sizer: bytes}}", Sizer::Requests, BatchSizer::Bytes),
    ];
    for (body, sizer, batch_sizer) in cases {
        let config = grpc(&format!("endpoint: 'h:1', sending_queue: {body}")).unwrap();
        let queue = config.sending_queue.get().unwrap();
        assert_eq!((queue.sizer, queue.batch.get().unwrap().sizer), (sizer, batch_sizer), "{body}");
    }
}

#[test]
fn the_collectors_example_is_taken() {
    let config = load::<OtlpHttpConfig>(
        "otlp_http",
        "endpoint: 'https://example.com:4318/', compression: zstd, compression_params: {level: 3}, \
         tls: {insecure_skip_verify: true}, headers: {Authorization: 'Basic x'}, proxy_url: 'http://proxy:3128', \
         write_buffer_size: 524288, cookies: {}, max_conns_per_host: 4, disable_keep_alives: true, \
         http2_read_idle_timeout: 10s, sending_queue: {num_consumers: 2}, retry_on_failure: {enabled: false}",
    )
    .unwrap();
    assert_eq!(config.client.timeout, Duration::from_secs(30));
    assert_eq!(config.client.level(), Some(3));
    assert!(config.client.cookies.get().is_some());
}
