//! A batch: one request's bytes, what is known about it, and what is owed for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::{Rope, Tenant};
use crate::pipeline::{Acks, Lease};

/// The kind of telemetry in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All signals, in the order in which they are listed everywhere.
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    /// The name used in pipeline ids and as `data_type`: `traces`, `metrics` or `logs`.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }

    /// What one item is called in the Collector's metric names: `spans`, `metric_points`, `log_records`.
    pub const fn items(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Metrics => "metric_points",
            Signal::Logs => "log_records",
        }
    }

    /// An index for tables of one entry a signal: 0, 1 or 2.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Who sent a batch and what came with it. Shared by all batches of one request; never edited in place.
#[derive(Debug, Clone, Default)]
pub struct ClientInfo {
    /// Request metadata, keys in lower case, in the order received. Empty unless `include_metadata` is on.
    pub metadata: Vec<(String, SmallVec<[String; 1]>)>,
    /// What the authenticator said of the client: `username`, `subject`, `raw`, …
    pub auth: Vec<(String, String)>,
    /// What the client's certificate calls it, where TLS has verified one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The peer's address; `None` for unix sockets and for telemetry of our own making.
    pub address: Option<SocketAddr>,
}

/// The names in a client certificate that TLS has verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// The organization of its subject.
    pub organization: Option<String>,
    /// The organizational unit of its subject, the first if there are several.
    pub organizational_unit: Option<String>,
    /// The DNS names among its alternative names.
    pub dns_names: Vec<String>,
    /// The URIs among its alternative names.
    pub uris: Vec<String>,
}

impl ClientInfo {
    /// The values of a metadata key, matched without regard to case.
    pub fn metadata(&self, key: &str) -> Option<&[String]> {
        self.metadata.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.as_slice())
    }
}

/// One request's telemetry on its way through a pipeline.
///
/// A batch dropped without a verdict on its [`Acks`] counts as "retry": a forgotten branch may duplicate,
/// never lose. Cloning a batch adds a share to each acknowledgement and copies no telemetry.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What kind of telemetry this is.
    pub signal: Signal,
    /// One valid Export*ServiceRequest.
    pub rope: Rope,
    /// How many spans, data points or log records the rope holds; kept exact by every edit and split.
    pub items: usize,
    /// Who sent it.
    pub client: Arc<ClientInfo>,
    /// Whose it is, once a `tenant` processor has said so. Batches of different tenants never merge.
    pub tenant: Option<Tenant>,
    /// Whether it waits behind everything else its destinations have to send.
    pub demoted: bool,
    /// When the receiver had read it.
    pub received: Instant,
    /// The memory reserved for it, returned when the last clone is gone.
    pub leases: SmallVec<[Arc<Lease>; 1]>,
    /// Who waits for the outcome.
    pub acks: Acks,
}
