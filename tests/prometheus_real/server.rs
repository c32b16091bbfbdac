//! A Prometheus server as a process of its own, and questions to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::Value;

use crate::support::prometheus::ORDINARY_NAN;
use crate::support::prometheus::wire::TimeSeries;
use crate::support::{free_port, http, loopback};

/// Labels of a series by name.
pub type Labels = BTreeMap<String, String>;

/// Time and bits of the samples of a series.
pub type Floats = Vec<(i64, u64)>;

/// A native histogram as users see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Native {
    pub time: i64,
    pub count: f64,
    pub sum: f64,
    /// Lower bound, upper bound and count of each bucket that is not empty, the zero bucket among them.
    pub buckets: Vec<(f64, f64, f64)>,
}

/// A running server; ended when dropped.
pub struct Prometheus {
    child: Child,
    pub address: SocketAddr,
    dir: tempfile::TempDir,
}

/// `prometheus.ReadRequest` with one query.
#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<Matcher>,
}

#[derive(Clone, PartialEq, Message)]
struct Matcher {
    /// 2 is a regular expression.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

/// The program: what `TIDEGATE_PROMETHEUS` names, such as a newer release, or what is in `PATH`, or fetched once.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TIDEGATE_PROMETHEUS") {
        return named.into();
    }
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let done = Command::new(repository.join("tests/prometheus/install")).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "tests/prometheus/install failed:\n{said}");
        let fetched = repository.join("target/prometheus/prometheus");
        if fetched.exists() { fetched } else { "prometheus".into() }
    };
    PROGRAM.get_or_init(find).clone()
}

impl Prometheus {
    /// Starts one that scrapes nothing and takes remote write, and waits until it is ready.
    pub fn start() -> Prometheus {
        Self::start_with("", "native-histograms,exemplar-storage")
    }

    /// Starts one with more configuration, and these features.
    pub fn start_with(more: &str, features: &str) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("prometheus.yml");
        let exemplars = "{exemplars: {max_exemplars: 10000}}";
        std::fs::write(&config, format!("storage: {exemplars}\n{more}\n")).unwrap();
        let address = loopback(free_port());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-remote-write-receiver", "--log.level=info"])
            .arg(format!("--enable-feature={features}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Prometheus { child, address, dir };
        let start = Instant::now();
        while !matches!(http::request(address, "GET", "/-/ready", &[], b""), Ok((200, _))) {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", server.log());
            assert!(start.elapsed() < Duration::from_secs(30), "not ready after 30 s\n{}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Where to write.
    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// `data` of an answer of its API.
    pub fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let query: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", http::escape(name), http::escape(value)))
            .collect();
        let target = format!("/api/v1/{path}?{}", query.join("&"));
        let (status, body) = http::request(self.address, "GET", &target, &[], b"").unwrap();
        let text = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{target}: {text}");
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        answer["data"].take()
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        let version = self.api("status/buildinfo", &[])["version"].as_str().unwrap().to_owned();
        version.split('.').next().unwrap().parse().unwrap()
    }

    /// The result of a query at a time.
    pub fn query(&self, promql: &str, at: i64) -> Vec<Value> {
        let data = self.api("query", &[("query", promql), ("time", &seconds(at))]);
        data["result"].as_array().unwrap().clone()
    }

    /// The value of a query that has one.
    pub fn value(&self, promql: &str, at: i64) -> f64 {
        let result = self.query(promql, at);
        assert_eq!(result.len(), 1, "{promql}: {result:?}");
        number(&result[0]["value"][1])
    }

    /// Every series between two times, by the API that lists series.
    pub fn series(&self, from: i64, to: i64) -> Vec<Labels> {
        let parameters =
            [("match[]", "{__name__=~\".+\"}"), ("start", &*seconds(from)), ("end", &*seconds(to))];
        let data = self.api("series", &parameters);
        let mut all: Vec<Labels> = data.as_array().unwrap().iter().map(labels).collect();
        all.sort();
        all
    }

    /// Every sample between two times, bit by bit: remote read gives stale markers, too, though no native histograms
    /// before 2.43 and no negative zeroes. Series without samples are left out.
    pub fn read(&self, from: i64, to: i64) -> BTreeMap<Labels, Floats> {
        let matcher = Matcher { kind: 2, name: "__name__".into(), value: ".+".into() };
        let request = ReadRequest { queries: vec![Query { start: from, end: to, matchers: vec![matcher] }] };
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-read-version", "0.1.0"),
        ];
        let (status, answer) = http::request(self.address, "POST", "/api/v1/read", &headers, &body).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let answer = snap::raw::Decoder::new().decompress_vec(&answer).unwrap();
        let answer = ReadResponse::decode(&answer[..]).unwrap();
        let stored = |series: TimeSeries| {
            let labels: Labels = series.labels.into_iter().map(|l| (l.name, l.value)).collect();
            let floats: Floats = series.samples.iter().map(|s| (s.timestamp, s.bits)).collect();
            (labels, floats)
        };
        let all = answer.results.into_iter().flat_map(|r| r.timeseries).map(stored);
        all.filter(|(_, floats)| !floats.is_empty()).collect()
    }

    /// Samples that a selector with a range gives: no stale markers, every NaN the same.
    pub fn floats(&self, selector: &str, at: i64) -> BTreeMap<Labels, Floats> {
        let one = |pair: &Value| (millis(&pair[0]), number(&pair[1]).to_bits());
        let all = self.query(selector, at);
        let floats =
            all.iter().filter_map(|series| Some((labels(&series["metric"]), series["values"].as_array()?)));
        floats.map(|(labels, values)| (labels, values.iter().map(one).collect())).collect()
    }

    /// Native histograms that a selector with a range gives.
    pub fn natives(&self, selector: &str, at: i64) -> BTreeMap<Labels, Vec<Native>> {
        let bucket = |b: &Value| (rounded(number(&b[1])), rounded(number(&b[2])), number(&b[3]));
        let one = |pair: &Value| Native {
            time: millis(&pair[0]),
            count: number(&pair[1]["count"]),
            sum: number(&pair[1]["sum"]),
            buckets: pair[1]["buckets"].as_array().map_or(Vec::new(), |all| all.iter().map(bucket).collect()),
        };
        let all = self.query(selector, at);
        let natives = all
            .iter()
            .filter_map(|series| Some((labels(&series["metric"]), series["histograms"].as_array()?)));
        natives.map(|(labels, values)| (labels, values.iter().map(one).collect())).collect()
    }

    /// Exemplars of a selector between two times: labels of the series, labels, value, time.
    pub fn exemplars(&self, selector: &str, from: i64, to: i64) -> Vec<(Labels, Labels, f64, i64)> {
        let parameters = [("query", selector), ("start", &*seconds(from)), ("end", &*seconds(to))];
        let data = self.api("query_exemplars", &parameters);
        let mut all = Vec::new();
        for series in data.as_array().unwrap() {
            for exemplar in series["exemplars"].as_array().unwrap() {
                let (value, time) = (number(&exemplar["value"]), millis(&exemplar["timestamp"]));
                all.push((labels(&series["seriesLabels"]), labels(&exemplar["labels"]), value, time));
            }
        }
        all
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(4000);
            eprintln!("--- the server's log ---\n{}", log.get(start..).unwrap_or(&log));
        }
    }
}

/// A time as its API takes it.
pub fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// A time as its API writes it.
fn millis(seconds: &Value) -> i64 {
    (seconds.as_f64().unwrap() * 1000.0).round() as i64
}

/// A number as its API writes it.
pub fn number(text: &Value) -> f64 {
    match text.as_str().unwrap() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::from_bits(ORDINARY_NAN),
        plain => plain.parse().unwrap(),
    }
}

/// A bound without its last digits: the server has its bounds from a table, others compute them.
pub fn rounded(bound: f64) -> f64 {
    format!("{bound:.11e}").parse().unwrap()
}

/// Labels of a JSON object.
fn labels(object: &Value) -> Labels {
    let pairs = object.as_object().unwrap().iter();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}
