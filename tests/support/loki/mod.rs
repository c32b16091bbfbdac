//! A Loki on loopback, as far as pushing goes: it takes and refuses what the real one does, with its status codes and
//! the beginnings of its messages, keeps what it took per tenant, answers queries, and misbehaves on command.
//!
//! Two things are told apart. A *rejection* is what a real Loki would refuse, at its default limits or those of
//! [`Limits`]. A *violation* is what a real one would take but no careful client sends: fields that are not for
//! clients, labels out of order, a stream twice in one request, entries out of order, text that is not UTF-8, the
//! same stream in two requests at once.

mod check;
mod decode;
pub mod labels;
pub mod otlp;
pub mod query;
mod server;
pub mod store;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use tokio::net::TcpListener;

pub use check::Limits;
pub use decode::Entry;
pub use query::Row;

use super::loopback;
use server::Shared;

pub use super::prometheus::{Findings, Labels};

/// What a tenant is called where nobody asks.
pub const SINGLE: &str = "fake";

/// What becomes of one well-formed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Store,
    /// Nothing is stored; this status, and how many seconds to wait.
    Refuse(u16, Option<u64>),
    /// Everything good is stored, and the answer says otherwise.
    StoreButFail(u16),
    /// The connection is closed before anything is stored.
    Cut,
    /// Everything good is stored, and the connection is closed instead of an answer.
    LoseAnswer,
    /// Never an answer; nothing is stored.
    Hang,
    /// Never an answer; everything good is stored.
    StoreAndHang,
}

/// What goes wrong, in percent of requests; rolled in this order, the first hit decides.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub cut: u32,
    /// And with which status.
    pub fail: (u32, u16),
    /// 429, and how many seconds to wait.
    pub throttle: (u32, Option<u64>),
    pub store_but_fail: u32,
    pub lose_answer: u32,
    /// Answered late, and by how much; on top of whatever else happens.
    pub delay: (u32, Duration),
}

/// Whether an entry of a tenant's stream makes the whole request fail with 500.
pub type Poison = Arc<dyn Fn(&str, &Labels, &Entry) -> bool + Send + Sync>;

/// How a Loki is set up.
#[derive(Clone, Default)]
pub struct Options {
    /// Whether a tenant must be named.
    pub auth: bool,
    pub limits: Limits,
    pub poison: Option<Poison>,
    pub seed: u64,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Logged {
    /// From 1, in order of arrival.
    pub number: u64,
    /// When all of it had arrived.
    pub at: Instant,
    pub path: String,
    pub headers: HeaderMap,
    pub tenant: Option<String>,
    /// Bytes on the wire, and before compression.
    pub bytes: (usize, usize),
    /// The text of each stream's labels as it was sent, and how many entries it had.
    pub streams: Vec<(String, usize)>,
    /// The status sent; `None` while there is none, or when the connection went away first.
    pub answer: Option<u16>,
}

impl Logged {
    pub fn entries(&self) -> usize {
        self.streams.iter().map(|(_, entries)| entries).sum()
    }
}

/// The server. Ends with the runtime it was started on.
pub struct Loki {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Loki {
    pub async fn start(options: Options) -> Loki {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new(options));
        tokio::spawn(server::listen(shared.clone(), listener));
        Loki { address, shared }
    }

    /// Where to push.
    pub fn url(&self) -> String {
        format!("http://{}/loki/api/v1/push", self.address)
    }

    /// What an OTLP exporter needs.
    pub fn otlp(&self) -> String {
        format!("http://{}/otlp", self.address)
    }

    /// What becomes of the next requests, in order; those after them are subject to the faults.
    pub fn script(&self, steps: impl IntoIterator<Item = Then>) {
        self.shared.state().script.extend(steps);
    }

    /// Steps of the script that no request has taken yet.
    pub fn script_left(&self) -> usize {
        self.shared.state().script.len()
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.state().faults = faults;
    }

    /// Other limits for everyone from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.state().limits = limits;
    }

    /// Other limits for one tenant from now on.
    pub fn limit_tenant(&self, tenant: &str, limits: Limits) {
        self.shared.state().limits_of.insert(tenant.to_owned(), limits);
    }

    /// What no careful client sends, the first hundred cases.
    pub fn violations(&self) -> Vec<String> {
        self.shared.state().violations.clone()
    }

    /// What was refused by the rules rather than by a test, as `status message`, the first thousand.
    pub fn rejections(&self) -> Vec<String> {
        self.shared.state().rejections.clone()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Logged> {
        self.shared.state().log.clone()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.shared.state().in_flight.len()
    }

    /// Entries stored, of all tenants, each once.
    pub fn stored(&self) -> usize {
        self.shared.state().tenants.values().map(|tenant| tenant.stored).sum()
    }

    /// How often an entry that was stored came once more.
    pub fn resent(&self) -> usize {
        self.shared.state().tenants.values().map(|tenant| tenant.repeats).sum()
    }

    /// Who has stored anything.
    pub fn tenants(&self) -> Vec<String> {
        let state = self.shared.state();
        state.tenants.iter().filter(|(_, t)| t.stored > 0).map(|(name, _)| name.clone()).collect()
    }

    /// The streams of a tenant, entries in the order of their arrival.
    pub fn streams(&self, tenant: &str) -> BTreeMap<Labels, Vec<Entry>> {
        let state = self.shared.state();
        let streams = state.tenants.get(tenant).map(|t| &t.streams);
        streams.into_iter().flatten().map(|(labels, kept)| (labels.clone(), kept.entries.clone())).collect()
    }

    /// What `query`, in the part of LogQL that [`query`] knows, finds for a tenant, oldest first.
    ///
    /// # Panics
    /// When the query cannot be read.
    pub fn query(&self, tenant: &str, query: &str) -> Vec<Row> {
        let query = query::Query::parse(query).unwrap_or_else(|why| panic!("{query}: {why}"));
        query.run(&self.streams(tenant))
    }
}

/// Nanoseconds since the epoch.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}
