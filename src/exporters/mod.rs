//! Where telemetry goes. One file or folder an exporter, named like its type in the config; queue, retry and
//! pacing are written once, in `delivery`.

pub mod delivery;
pub mod otlp_grpc;
