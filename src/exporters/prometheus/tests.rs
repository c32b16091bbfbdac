//! The exporter as its users see it: configuration, books, pages over HTTP; and what the tests below share.

use std::sync::{Arc, Mutex};

use super::negotiate::{Escaping, Format, Media};
use super::page::Page;
use super::page::strict::{self, Family};
use super::state::{Options, Outcome, State};
use super::*;
use crate::config::{Config, Cx};
use crate::exporters::testing;
use crate::pdata::json::{self, Limits};

pub const TEXT: Format = Format { media: Media::Text, escaping: Escaping::Underscores };
pub const OPEN: Format = Format { media: Media::Open, escaping: Escaping::AllowUtf8 };

/// Options of a configuration.
pub fn options(yaml: &str) -> Options {
    let (config, diags) = config(yaml);
    assert!(diags.is_empty(), "{diags:?}");
    options_of(&config)
}

pub fn config(yaml: &str) -> (PrometheusConfig, Vec<String>) {
    let (mut config, mut cx) = (PrometheusConfig::default(), Cx::default());
    let endpoint = if yaml.contains("endpoint") { "" } else { "endpoint: '127.0.0.1:0'," };
    let text = format!("{{{endpoint} {yaml}}}");
    let node = crate::config::yaml::parse(&text, Default::default(), &mut cx).unwrap();
    config.decode_into(&node, &mut cx);
    (config, cx.diags.into_iter().map(|d| d.message).collect())
}

/// A request with these metrics, as OTLP/JSON, of a resource without attributes.
pub fn request(metrics: &str) -> Vec<u8> {
    from("", metrics)
}

/// The same with a resource of these attributes.
pub fn from(resource: &str, metrics: &str) -> Vec<u8> {
    let json = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{resource}]}},"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#
    );
    json::decode(Signal::Metrics, json.as_bytes(), Limits::default())
        .unwrap_or_else(|e| panic!("{e}: {json}"))
}

/// An attribute.
pub fn attr(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
}

/// A gauge of one point at a second.
pub fn gauge(name: &str, attributes: &str, time: u64, value: f64) -> String {
    let time = time * 1_000_000_000;
    format!(
        r#"{{"name":"{name}","gauge":{{"dataPoints":[{{"attributes":[{attributes}],"timeUnixNano":"{time}","asDouble":{value}}}]}}}}"#
    )
}

/// A monotonic sum of one point between seconds.
pub fn sum(name: &str, temporality: u32, (start, time): (u64, u64), value: i64) -> String {
    let start = start * 1_000_000_000;
    format!(
        r#"{{"name":"{name}","sum":{{"aggregationTemporality":{temporality},"isMonotonic":true,"dataPoints":[{{"startTimeUnixNano":"{start}","timeUnixNano":"{time}000000000","asInt":"{value}"}}]}}}}"#
    )
}

/// The whole page, and that it is one by the rules.
pub fn page(state: &Arc<Mutex<State>>, format: Format, timestamps: bool, now: u64) -> String {
    let out = String::from_utf8(bytes(state, format, timestamps, now)).unwrap();
    strict::parse(&out, format.is_open()).unwrap_or_else(|why| panic!("{why}\n--- in ---\n{out}"));
    out
}

/// The whole page.
pub fn bytes(state: &Arc<Mutex<State>>, format: Format, timestamps: bool, now: u64) -> Vec<u8> {
    let mut page = Page::new(state.clone(), format, timestamps, now);
    let mut out = Vec::new();
    loop {
        let (part, more) = page.part();
        out.extend(part);
        if !more {
            return out;
        }
    }
}

/// A state with its pages.
pub struct Rig(pub Arc<Mutex<State>>);

impl Rig {
    pub fn new(yaml: &str) -> Self {
        Rig(Arc::new(Mutex::new(State::new(options(yaml)))))
    }

    pub fn take(&self, request: &[u8], now: u64) -> Outcome {
        self.0.lock().unwrap().take(request, now)
    }

    /// Takes metrics, all of which must be stored.
    pub fn store(&self, metrics: &str, now: u64) {
        let outcome = self.take(&request(metrics), now);
        assert!(outcome.dropped.is_empty() && outcome.stored > 0, "{outcome:?}");
    }

    /// Takes one point that must be dropped, and says why.
    pub fn refused(&self, metrics: &str, now: u64) -> &'static str {
        let outcome = self.take(&request(metrics), now);
        assert_eq!((outcome.stored, outcome.dropped.len()), (0, 1), "{outcome:?}");
        outcome.dropped[0].0
    }

    pub fn text(&self, now: u64) -> String {
        page(&self.0, TEXT, false, now)
    }

    /// The page without comments.
    pub fn samples(&self, now: u64) -> String {
        let text = self.text(now);
        text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    }

    pub fn families(&self, now: u64) -> Vec<Family> {
        strict::parse(&self.text(now), false).unwrap()
    }
}

#[test]
fn configurations_are_checked() {
    for (yaml, want) in [
        ("metric_expiration: 1m, send_timestamps: true", None),
        ("const_labels: {region: eu}, namespace: shop", None),
        ("translation_strategy: NoTranslation", None),
        ("sending_queue: {enabled: false}, middlewares: []", None),
        ("endpoint: ''", Some("'endpoint' must be specified")),
        ("transport: unix", Some("not the path of a unix socket")),
        ("metric_expiration: 0s", Some("'metric_expiration' must be positive")),
        ("max_series: 0", Some("'max_series' must be positive")),
        ("sending_queue: {enabled: true}", Some("\"sending_queue\" is not supported")),
        ("max_request_body_size: 5", Some("\"max_request_body_size\" is not supported")),
        ("translation_strategy: x", Some("\"x\"")),
        ("namespace: 'a-b'", Some("cannot stand before a metric name")),
        ("const_labels: {a: ''}", Some("contains an empty key or value")),
        (
            "resource_to_telemetry_conversion: {enabled: true}, resource_constant_labels: {included: [a]}",
            Some("cannot be used together"),
        ),
    ] {
        let (_, messages) = config(yaml);
        match want {
            Some(want) => assert!(messages.iter().any(|m| m.contains(want)), "{yaml}: {messages:?}"),
            None => assert!(messages.is_empty(), "{yaml}: {messages:?}"),
        }
    }
    let (config, _) = config("auth: {authenticator: basicauth/scrape}");
    assert_eq!(
        crate::components::ComponentConfig::listens(&config),
        [("endpoint", "127.0.0.1:0".to_owned())]
    );
    let refs = crate::components::ComponentConfig::extension_refs(&config);
    assert_eq!(refs, [("auth::authenticator", "basicauth/scrape".to_owned())]);
}

#[test]
fn suffixes_go_by_both_keys() {
    for (yaml, name) in [
        ("", "a_b_bytes_total"),
        ("add_metric_suffixes: false", "a_b"),
        (
            "add_metric_suffixes: false, translation_strategy: UnderscoreEscapingWithSuffixes",
            "a_b_bytes_total",
        ),
        ("translation_strategy: UnderscoreEscapingWithoutSuffixes", "a_b"),
        ("namespace: n", "n_a_b_bytes_total"),
    ] {
        let rig = Rig::new(yaml);
        rig.store(&sum("a.b", 2, (1, 2), 1).replacen('{', r#"{"unit":"By","#, 1), 0);
        assert_eq!(rig.families(0)[0].name, name, "{yaml}");
    }
}

#[test]
fn every_point_is_in_the_books() {
    let (cx, metrics) = testing::build_context("prometheus");
    let (config, _) = config("max_series: 2");
    let exporter = Prometheus::new(&config, Signal::Metrics, &cx);
    let many =
        [gauge("a", "", 5, 1.0), gauge("a", "", 4, 1.0), gauge("b", "", 1, 1.0), gauge("c", "", 1, 1.0)];
    let request = request(&many.join(","));
    // The last byte is missing, and with it the last point.
    for (bytes, items, want) in
        [(&request[..], 4, [4, 2, 2, 0]), (&request[..request.len() - 1], 4, [8, 2, 6, 0])]
    {
        let (batch, mut verdict) = testing::batch(Signal::Metrics, bytes, items);
        exporter.consume(batch);
        assert_eq!(verdict.try_recv(), Ok(Verdict::Accepted));
        assert_eq!(exporter.items.totals(), want);
    }
    let dropped = |reason: &str| {
        let family = metrics.counter("tidegate_dropped_items", "", &["component", "data_type", "reason"]);
        family.unwrap().with_label_values(&["prometheus", "metrics", reason]).get()
    };
    assert_eq!(["out_of_order", "max_series", "malformed"].map(dropped), [1, 1, 4]);
    assert_eq!(exporter.series.as_ref().unwrap().get(), 2);
}

/// An exporter that serves, and where.
async fn serving(yaml: &str) -> (Prometheus, String) {
    let (cx, metrics) = testing::build_context("prometheus");
    let (config, diags) = config(yaml);
    assert!(diags.is_empty(), "{diags:?}");
    let exporter = Prometheus::new(&config, Signal::Metrics, &cx);
    exporter.start(&testing::run_context(&metrics)).await.unwrap();
    let address = exporter.server.lock().await.as_ref().unwrap().address.clone();
    (exporter, address)
}

/// Head and body of an answer.
async fn ask(address: &str, request: &str) -> (String, Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{request}\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..at].to_vec()).unwrap(), answer[at + 4..].to_vec())
}

fn offer(exporter: &Prometheus, request: &[u8], items: usize) {
    exporter.consume(testing::batch(Signal::Metrics, request, items).0);
}

#[tokio::test]
async fn pages_are_served_over_http() {
    let (exporter, address) = serving(
        "enable_open_metrics: true, response_headers: {x-agent: tidegate}, cors: {allowed_origins: ['*']}",
    )
    .await;
    offer(&exporter, &request(&gauge("a", "", 1, 2.0)), 1);
    let plain = "# TYPE a gauge\na 2\n";
    // HTTP/1.0 has no chunks, so that the body is the page.
    let (head, body) = ask(&address, "GET /metrics?x=1 HTTP/1.0").await;
    assert!(head.starts_with("HTTP/1.0 200") && head.contains("x-agent: tidegate"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert_eq!(String::from_utf8(body).unwrap(), plain);

    let open =
        "GET /metrics HTTP/1.0\r\naccept: application/openmetrics-text; version=1.0.0\r\norigin: http://x";
    let (head, body) = ask(&address, open).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    assert_eq!(String::from_utf8(body).unwrap(), format!("{plain}# EOF\n"));

    let (head, body) = ask(&address, "GET /metrics HTTP/1.0\r\naccept-encoding: gzip").await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text).unwrap();
    assert_eq!(text, plain);

    for (request, status, empty) in [
        ("HEAD /metrics HTTP/1.1", "200", true),
        ("GET / HTTP/1.1", "404", false),
        ("GET /metrics/ HTTP/1.1", "404", false),
        ("POST /metrics HTTP/1.1", "405", false),
        ("OPTIONS /metrics HTTP/1.1\r\norigin: http://x\r\naccess-control-request-method: GET", "204", true),
    ] {
        let (head, body) = ask(&address, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
        assert_eq!(body.is_empty(), empty, "{request}");
    }

    exporter.drain(Instant::now() + Duration::from_secs(5)).await;
    assert!(tokio::net::TcpStream::connect(&address).await.is_err(), "the port is still open");
}

#[tokio::test]
async fn a_page_larger_than_a_part_arrives_whole_in_every_coding() {
    let (exporter, address) = serving("").await;
    let points: Vec<String> = (0..5000).map(|n| gauge("a", &attr("n", &format!("{n:04}")), 1, 0.5)).collect();
    offer(&exporter, &request(&points.join(",")), 5000);
    let want =
        (0..5000).fold("# TYPE a gauge\n".to_owned(), |page, n| format!("{page}a{{n=\"{n:04}\"}} 0.5\n"));
    assert!(want.len() < super::page::PART * 4);
    let (_, body) = ask(&address, "GET /metrics HTTP/1.0").await;
    assert!(body == want.as_bytes(), "{} bytes, {} wanted", body.len(), want.len());
    let (_, body) = ask(&address, "GET /metrics HTTP/1.0\r\naccept-encoding: gzip").await;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text).unwrap();
    assert!(text == want);
}

#[tokio::test(start_paused = true)]
async fn series_expire_by_the_clock() {
    let (exporter, _address) = serving("metric_expiration: 60s").await;
    offer(&exporter, &request(&gauge("a", "", 1, 1.0)), 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    offer(&exporter, &request(&gauge("b", "", 1, 1.0)), 1);
    let names = || {
        let page = page(&exporter.state, TEXT, false, exporter.clock.millis());
        strict::parse(&page, false).unwrap().into_iter().map(|f| f.name).collect::<Vec<_>>()
    };
    let gauge = exporter.series.clone().unwrap();
    assert_eq!(names(), ["a", "b"]);
    tokio::time::sleep(Duration::from_millis(30_100)).await;
    // Not shown from that moment on, gone with the next look.
    assert_eq!(names(), ["b"]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((names(), gauge.get()), (vec!["b".to_owned()], 1));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!((names().len(), gauge.get()), (0, 0));
}

/// Lets in who says `open`, and knows a query parameter.
struct Door;

impl crate::net::auth::ServerAuth for Door {
    fn authenticate(
        &self,
        headers: &http::HeaderMap,
    ) -> Result<Vec<(String, String)>, crate::net::auth::AuthError> {
        match headers.get("sesame").is_some_and(|word| word == "open") {
            true => Ok(Vec::new()),
            false => Err(crate::net::auth::AuthError("no".to_owned())),
        }
    }
}

#[async_trait]
impl crate::pipeline::Extension for Door {
    async fn start(&self, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }

    async fn stop(&self) {}

    fn server_auth(&self) -> Option<Arc<dyn crate::net::auth::ServerAuth>> {
        Some(Arc::new(Door))
    }
}

#[tokio::test]
async fn who_may_scrape_is_asked() {
    let (cx, metrics) = testing::build_context("prometheus");
    let (config, _) = config("auth: {authenticator: door, request_params: [sesame]}");
    let exporter = Prometheus::new(&config, Signal::Metrics, &cx);
    let mut run = testing::run_context(&metrics);
    assert!(exporter.start(&run).await.is_err(), "there is no such extension");
    run.extensions =
        Arc::new([("door".to_owned(), Arc::new(Door) as Arc<dyn crate::pipeline::Extension>)].into());
    exporter.start(&run).await.unwrap();
    let address = exporter.server.lock().await.as_ref().unwrap().address.clone();
    for (request, status) in [
        ("GET /metrics HTTP/1.1", "401"),
        ("GET / HTTP/1.1", "401"),
        ("GET /metrics HTTP/1.1\r\nsesame: open", "200"),
        ("GET /metrics?sesame=open HTTP/1.1", "200"),
    ] {
        let (head, _) = ask(&address, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
}

#[test]
fn pages_are_by_the_rules_while_everything_changes() {
    let rig = Rig::new("metric_expiration: 1s");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..3u64 {
            let (rig, done) = (&rig, &done);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(writer);
                let mut now = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    now += rng.u64(0..300);
                    let name = format!("m{}", rng.u32(0..4));
                    let points: Vec<String> = (0..50)
                        .map(|_| gauge(&name, &attr("n", &rng.u32(0..500).to_string()), now, 1.0))
                        .collect();
                    let counter = sum(&name, 2, (0, now + 1), 1);
                    rig.take(&request(&format!("{},{counter}", points.join(","))), now);
                    rig.0.lock().unwrap().sweep(0, 100, now);
                }
            });
        }
        for round in 0..60 {
            // Parsed, and panics if it is not by the rules.
            page(&rig.0, if round % 2 == 0 { TEXT } else { OPEN }, true, round);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mut state = rig.0.lock().unwrap();
    state.sweep(0, usize::MAX / 2, u64::MAX / 2);
    assert_eq!(state.series.len(), 0);
    assert!(state.series.is_clear());
}

#[test]
fn names_are_told_as_they_are_shown() {
    let (config, _) = config("translation_strategy: NoTranslation, namespace: n");
    let mut teller = crate::prometheus::tell::Teller::new(&remote_options(&config));
    teller.read(&request(&gauge("a.b", &attr("x.y", "1"), 1, 2.0))).unwrap();
    let told = teller.finish().text();
    assert!(told.contains("n_a.b") && told.contains("x.y"), "{told}");
}
