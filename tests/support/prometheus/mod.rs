//! A remote write receiver on loopback, for 1.0 and 2.0, that is stricter than any real one: every rule that a
//! request breaks lands in [`Receiver::violations`], and such a request is refused as a whole.
//!
//! It stores what it accepts, and it misbehaves on command. What it knows across requests: samples of a series
//! arrive in ascending time order; a sample that was stored comes again only if its answer was lost; two requests
//! with the same series are never under way at once.

mod check;
pub mod histogram;
mod server;
pub mod store;
pub mod wire;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Uri};
use tokio::net::TcpListener;

pub use check::{Decoded, Part, Rules};
pub use store::Series;
pub use wire::MetricMetadata;

use super::loopback;
use server::Shared;

/// The marker that ends a series: a signalling NaN, to be compared by its bits alone.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;
/// The one NaN that stands for all others.
pub const ORDINARY_NAN: u64 = 0x7ff8_0000_0000_0001;

/// Name and value, in the order of the wire.
pub type Labels = Vec<(String, String)>;

/// The version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    /// What `X-Prometheus-Remote-Write-Version` says.
    pub fn header(self) -> &'static str {
        match self {
            Version::V1 => "0.1.0",
            Version::V2 => "2.0.0",
        }
    }
}

/// An exemplar of either version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    pub labels: Labels,
    /// Bits of the value.
    pub value: u64,
    pub timestamp: i64,
}

/// What 2.0 says about a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub kind: i32,
    pub help: String,
    pub unit: String,
}

/// Broken rules, each as `rule: detail`.
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    pub fn add(&mut self, rule: &'static str, detail: impl Display) {
        let mut text = format!("{rule}: {detail}");
        if let Some((at, _)) = text.char_indices().nth(600) {
            text.truncate(at);
        }
        self.0.push(text);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// What the receiver makes of the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speaks {
    #[default]
    Both,
    /// Only 1.0; takes a request in 2.0 for an empty one and says that all is well, as Prometheus before 2.54.
    Only1Unaware,
    /// Only 1.0; refuses 2.0 with this status: 415 by the book, 400 in the field.
    Only1(u16),
    /// Only 2.0; refuses 1.0 with 415.
    Only2,
}

/// What becomes of one well-formed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Store,
    /// Nothing is stored; this status, and how many seconds to wait.
    Refuse(u16, Option<u64>),
    /// Everything is stored, and the answer says otherwise.
    StoreButFail(u16),
    /// 202, and nothing is stored: a replica that is not the elected one.
    Ignore,
    /// The connection is closed before anything is stored.
    Cut,
    /// Everything is stored, and the connection is closed instead of an answer.
    LoseAnswer,
    /// Never an answer; nothing is stored.
    Hang,
    /// Never an answer; everything is stored.
    StoreAndHang,
}

/// What goes wrong, in percent of requests; rolled in this order, the first hit decides.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub cut: u32,
    /// And with which status.
    pub fail: (u32, u16),
    /// 429, and how many seconds to wait.
    pub throttle: (u32, u64),
    pub store_but_fail: u32,
    pub lose_answer: u32,
    /// Answered late, and by how much; on top of whatever else happens.
    pub delay: (u32, Duration),
}

/// Whether a sample or histogram is one that the receiver refuses as bad data.
pub type Refuses = Arc<dyn Fn(&Labels, i64) -> bool + Send + Sync>;

/// A rule of a test's own for a whole request; what is wrong, if anything is.
pub type Also = Arc<dyn Fn(&HeaderMap, &Decoded) -> Option<String> + Send + Sync>;

/// How a receiver is set up.
#[derive(Clone, Default)]
pub struct Options {
    pub rules: Rules,
    pub speaks: Speaks,
    /// Bad data by decree: in 1.0 it voids the whole request, in 2.0 it is left out; 400 either way.
    pub refuses: Option<Refuses>,
    pub also: Option<Also>,
    /// Samples older than the newest of their series by at most this are stored.
    pub out_of_order: Duration,
    pub seed: u64,
}

/// A request as it came, well-formed or not.
#[derive(Debug, Clone)]
pub struct Logged {
    /// From 1, in order of arrival.
    pub number: u64,
    /// When all of it had arrived.
    pub at: Instant,
    pub version: Option<Version>,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// Bytes on the wire, and before compression.
    pub bytes: (usize, usize),
    pub series: usize,
    pub samples: usize,
    /// The status sent; `None` while there is none, or when the connection went away first.
    pub answer: Option<u16>,
}

/// The receiver. Ends with the runtime it was started on.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    pub async fn start(options: Options) -> Receiver {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new(options));
        tokio::spawn(server::listen(shared.clone(), listener));
        Receiver { address, shared }
    }

    /// Where to send.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.shared.options.rules.path)
    }

    /// What becomes of the next requests, in order; those after them are subject to the faults.
    pub fn script(&self, steps: impl IntoIterator<Item = Then>) {
        self.shared.state.lock().unwrap().script.extend(steps);
    }

    /// Steps of the script that no request has taken yet.
    pub fn script_left(&self) -> usize {
        self.shared.state.lock().unwrap().script.len()
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.state.lock().unwrap().faults = faults;
    }

    /// Changes what it understands from now on, as an upgrade would.
    pub fn set_speaks(&self, speaks: Speaks) {
        self.shared.state.lock().unwrap().speaks = speaks;
    }

    /// Whoever sent so far may not remember the answers: what was stored may come once more.
    pub fn excuse(&self) {
        self.shared.state.lock().unwrap().store.excuse();
    }

    /// Broken rules so far, the first hundred of them.
    pub fn violations(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().violations.clone()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Logged> {
        self.shared.state.lock().unwrap().log.clone()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.shared.state.lock().unwrap().in_flight.requests()
    }

    /// Samples and histograms stored, each once.
    pub fn stored(&self) -> usize {
        self.shared.state.lock().unwrap().store.points
    }

    /// How often a stored sample came again after its answer was lost.
    pub fn resent(&self) -> usize {
        self.shared.state.lock().unwrap().store.repeats
    }

    /// One series.
    pub fn series(&self, labels: &[(&str, &str)]) -> Option<Series> {
        let key: Labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.shared.state.lock().unwrap().store.series.get(&key).cloned()
    }

    /// Everything stored, in the order of the labels.
    pub fn all(&self) -> BTreeMap<Labels, Series> {
        let state = self.shared.state.lock().unwrap();
        state.store.series.iter().map(|(labels, series)| (labels.clone(), series.clone())).collect()
    }

    /// The latest 1.0 metadata of each metric family.
    pub fn metadata(&self) -> BTreeMap<String, MetricMetadata> {
        self.shared.state.lock().unwrap().store.metadata.clone()
    }
}

/// Milliseconds since the epoch.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Holds one request against the rules that need no memory of others.
pub fn check(
    rules: &Rules,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> (Option<Decoded>, Vec<String>) {
    let mut findings = Findings::default();
    let decoded = check::request(rules, method, uri, headers, body, &mut findings);
    (decoded, findings.into_vec())
}
