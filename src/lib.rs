//! Tidegate: a telemetry agent that keeps telemetry as bytes.
//!
//! ```text
//!  receivers ──► processors ──► exporters            (a Collector's YAML wires them)
//!      │  admit by bytes   one pass over bytes   queue, retry, send
//!      └──────────────── the verdict travels back ────────┘
//! ```
//!
//! # Layout
//!
//! * [`pdata`]: telemetry in flight, as bytes; the only place that knows protobuf.
//! * [`config`]: what the user wrote, where it stands, and what is wrong with it.
//! * [`pipeline`]: how components are wired, acknowledged, bounded and kept alive.
//! * [`receivers`], [`processors`], [`exporters`], [`connectors`], [`extensions`]: the components.
//! * [`prometheus`]: what OTLP metrics become in Prometheus.
//! * [`loki`]: what OTLP logs become in Loki; [`relabel`]: Prometheus' relabelling rules.
//! * [`components`]: the one table that lists them.
//! * [`ottl`]: the transformation language of the Collector's `filter` and `transform`.
//! * [`cli`]: the command line.
//! * [`net`]: what servers and clients share: TLS, compression, authentication, metadata.
//! * [`telemetry`]: what the agent says about itself.

pub mod cli;
pub mod components;
pub mod config;
pub mod connectors;
pub mod exporters;
pub mod extensions;
pub mod loki;
pub mod net;
pub mod ottl;
pub mod pdata;
pub mod pipeline;
pub mod processors;
pub mod prometheus;
pub mod receivers;
pub mod relabel;
pub mod service;
pub mod telemetry;
