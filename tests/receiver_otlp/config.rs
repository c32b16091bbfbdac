//! What a user may write, and what is said about what one may not.

use tidegate::config::{Severity, parse_bytes};

/// The findings about an otlp receiver with these protocols, as `path: message`.
fn findings(protocols: &str) -> Vec<String> {
    let indented: String = protocols.lines().map(|line| format!("      {line}\n")).collect();
    let file = format!(
        "receivers:\n  otlp:\n    protocols:\n{indented}exporters:\n  nop:\nservice:\n  pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [nop]\n"
    );
    let loaded = parse_bytes(file.as_bytes());
    let bad = loaded.diags.iter().filter(|d| d.severity >= Severity::Warning);
    bad.map(|d| format!("{}: {}", d.path.trim_start_matches("receivers::otlp::"), d.message)).collect()
}

#[test]
fn good_configs() {
    for protocols in [
        "grpc:",
        "http: {}",
        "grpc: {enabled: true}\nhttp: {enabled: false}",
        "grpc: {endpoint: '0.0.0.0:4317', max_recv_msg_size_mib: 16, max_concurrent_streams: 100}",
        "grpc: {endpoint: '/run/otlp.sock', transport: unix}",
        "grpc: {keepalive: {server_parameters: {max_connection_age: 1m}, enforcement_policy: {min_time: 10s}}}",
        "grpc: {read_buffer_size: 0, write_buffer_size: 65536, include_metadata: true}",
        "http: {traces_url_path: in/traces, compression_algorithms: ['', gzip], cors: {allowed_origins: ['*']}}",
        "http: {read_timeout: 10s, keep_alives_enabled: false, response_headers: {x-a: b}, middlewares: []}",
    ] {
        assert_eq!(findings(protocols), [""; 0], "{protocols}");
    }
}

#[test]
fn bad_configs() {
    let cases = [
        ("grpc: {enabled: false}", "must specify at least one protocol when using the OTLP receiver"),
        ("grpc: {max_recv_msg_size_mib: -1}", "must be between 1 and 4095: -1"),
        ("grpc: {read_buffer_size: -1}", "invalid read_buffer_size value: -1"),
        ("grpc: {middlewares: [{id: limiter}]}", "\"middlewares\" is not supported"),
        ("grpc: {endpoint: ''}", "\"endpoint\" is empty"),
        ("grpc: {endpoint: 'localhost:1', transport: unix}", "is not the path of a unix socket"),
        ("grpc: {transport: udp}", "unsupported value \"udp\""),
        ("grpc: {auth: {}}", "\"authenticator\" is missing"),
        ("grpc: {auth: {authenticator: nobody}}", "nobody"),
        ("grpc: {max_recv_msg_size: 4}", "unknown key \"max_recv_msg_size\""),
        ("http: {logs_url_path: 'a b'}", "invalid HTTP URL path set for signal: \"a b\""),
        ("http: {compression_algorithms: [br]}", "unsupported value \"br\""),
        ("http: {cors: {allowed_headers: [x]}}", "CORS is off"),
        ("http: {cors: {allowed_origins: [x], max_age: -1}}", "max_age must not be negative"),
        ("grpc: {endpoint: '127.0.0.1:1'}\nhttp: {endpoint: '127.0.0.1:1'}", "127.0.0.1:1"),
    ];
    for (protocols, want) in cases {
        let found = findings(protocols);
        assert!(found.iter().any(|f| f.contains(want)), "{protocols}: {found:#?}");
    }
}
