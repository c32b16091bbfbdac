//! Where telemetry goes. One file or folder an exporter, named like its type in the config; queue, retry and
//! pacing are written once, in `delivery`.

pub mod debug;
pub mod delivery;
pub mod file;
mod http;
pub mod loki;
pub mod nop;
pub mod otlp_grpc;
pub mod otlp_http;
mod own_thread;
pub mod prometheus;
pub mod prometheus_remote_write;
pub mod tenant;
#[cfg(test)]
mod testing;
