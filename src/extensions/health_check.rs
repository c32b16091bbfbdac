//! `health_check`: whether the agent is ready, over HTTP.
//!
//! Ready means that every pipeline takes data and that no task has died; it says nothing about backends, which
//! may come and go while queues hold what they miss. Before that, and from the moment shutdown begins, the answer
//! is 503, so that a load balancer stops sending before the ports close.
//!
//! Besides `path`, `/ready` answers the same and `/live` answers 200 until a task has died, which only a restart
//! cures. With the default path `/` any other path answers as `/` does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::components::{BuildError, ComponentConfig};
use crate::config;
use crate::config::types::{Endpoint, Headers, Optional};
use crate::config::{Cx, Node};
use crate::net::listen::{ListenOptions, Listener, RawStream, Stream, Transport, secure};
use crate::net::tls::{ServerTls, TlsServerConfig};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{BuildContext, Extension, Readiness, RunContext, StartError};

config! {
    /// Bodies that replace the usual JSON.
    pub struct HealthBodyConfig {
        /// The body while the agent is ready; empty for JSON.
        pub healthy: String = String::new(),
        /// The body while it is not; empty for JSON.
        pub unhealthy: String = String::new(),
    }
}

config! {
    /// Has no effect: the check it configured no longer exists.
    pub struct CheckPipelineConfig {
        /// Without effect.
        pub enabled: bool = false,
        /// Without effect.
        pub interval: String = "5m".to_owned(),
        /// Without effect.
        pub exporter_failure_threshold: i64 = 5,
    }
}

config! {
    /// Says over HTTP whether the agent is ready: 200 or 503.
    pub struct HealthCheckConfig {
        /// Where to listen: `host:port` or `unix:///path`. `localhost` is reachable from this machine only, which
        /// in Kubernetes means from the pod only: probes need `0.0.0.0:13133`.
        pub endpoint: Endpoint = Endpoint::of("localhost:13133"),
        /// The network to listen on.
        pub transport: Transport = Transport::Tcp,
        /// Serves HTTPS instead of HTTP.
        pub tls: Optional<TlsServerConfig> = Optional::none(TlsServerConfig::default()),
        /// The path that answers. `/` stands for every path.
        pub path: String = "/".to_owned(),
        /// Bodies that replace the usual JSON.
        pub response_body: Option<HealthBodyConfig> = None,
        /// Headers added to every response.
        pub response_headers: Headers = Headers::default(),
        /// How long a client may take to send a request's headers, and to begin another one.
        pub read_header_timeout: Duration = Duration::from_secs(60),
        /// Whether a connection serves more than one request.
        pub keep_alives_enabled: bool = true,
        /// Deprecated and without effect.
        pub check_collector_pipeline: Option<CheckPipelineConfig> = None,
    }
    validate = HealthCheckConfig::check;
}

/// How many probes are served at once.
const MAX_CONNECTIONS: usize = 256;

struct HealthCheck {
    config: HealthCheckConfig,
    stop: watch::Sender<bool>,
}

/// What answers requests.
struct Health {
    path: String,
    bodies: HealthBodyConfig,
    headers: HeaderMap,
    readiness: Readiness,
    supervisor: Supervisor,
}

impl ComponentConfig for HealthCheckConfig {
    fn listens(&self) -> Vec<(&'static str, String)> {
        self.endpoint.listen_text().map(|text| ("endpoint", text)).into_iter().collect()
    }
}

impl HealthCheckConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.endpoint.is_empty() {
            cx.within("endpoint", |cx| {
                cx.error(node.pos_of("endpoint"), "an endpoint to listen on is needed")
            });
        }
        if (self.transport == Transport::Unix) != self.endpoint.unix_path().is_some()
            && (self.transport != Transport::Tcp)
        {
            let message = "transport and endpoint do not fit: a unix socket is a path, all else host:port";
            cx.within("transport", |cx| cx.error(node.pos_of("transport"), message));
        }
        if !self.path.starts_with('/') {
            cx.within("path", |cx| cx.error(node.pos_of("path"), "path must start with /"));
        }
        if self.check_collector_pipeline.is_some() {
            let (key, message) =
                ("check_collector_pipeline", "check_collector_pipeline is deprecated and has no effect");
            cx.within(key, |cx| cx.warn(node.pos_of(key), message));
        }
    }
}

/// Builds the extension.
///
/// # Errors
/// None: what can be wrong is found when the config is read or when the port is opened.
pub fn build(config: &HealthCheckConfig, _: &BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
    Ok(Arc::new(HealthCheck { config: config.clone(), stop: watch::Sender::new(false) }))
}

#[async_trait]
impl Extension for HealthCheck {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.open(cx).await.map(|_| ())
    }

    async fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl HealthCheck {
    /// Opens the port and serves; returns the address bound.
    async fn open(&self, cx: &RunContext) -> Result<Option<std::net::SocketAddr>, StartError> {
        let config = &self.config;
        let tls = config.tls.get().map(|tls| tls.load(&[b"http/1.1"])).transpose()?;
        let options = ListenOptions { max_connections: MAX_CONNECTIONS, ..ListenOptions::default() };
        let listener = Listener::bind_with(&config.endpoint, config.transport, options).await;
        let listener = listener.map_err(|e| StartError::new(e.to_string()))?;
        let address = listener.local_addr();
        let health = Arc::new(Health {
            path: config.path.clone(),
            bodies: config.response_body.clone().unwrap_or_default(),
            headers: config.response_headers.to_map(),
            readiness: cx.readiness.clone(),
            supervisor: cx.supervisor.clone(),
        });
        let mut http = http1::Builder::new();
        // Zero means no limit, as in Go.
        let patience = Some(config.read_header_timeout).filter(|d| !d.is_zero());
        http.timer(TokioTimer::new()).header_read_timeout(patience).keep_alive(config.keep_alives_enabled);
        let (supervisor, stop) = (cx.supervisor.clone(), self.stop.subscribe());
        cx.supervisor.spawn("health check", accept(listener, tls, http, health, supervisor, stop));
        Ok(address)
    }
}

async fn accept(
    listener: Listener,
    tls: Option<ServerTls>,
    http: http1::Builder,
    health: Arc<Health>,
    supervisor: Supervisor,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let connections = stop.clone();
        let raw = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => match accepted {
                Ok((raw, _)) => raw,
                Err(error) => {
                    tracing::error!(%error, "the health check's socket is gone");
                    return;
                }
            },
        };
        let serve = serve(raw, tls.clone(), http.clone(), health.clone(), connections);
        supervisor.spawn("health check connection", serve);
    }
}

async fn serve(
    raw: RawStream,
    tls: Option<ServerTls>,
    http: http1::Builder,
    health: Arc<Health>,
    mut stop: watch::Receiver<bool>,
) {
    let stream = match &tls {
        None => Ok(Stream::from(raw)),
        Some(tls) => secure(raw, tls).await,
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "TLS handshake failed"),
    };
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let answer = health.answer(request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        // A probe that goes away in the middle is its own affair.
        _ = connection => {}
    }
}

impl Health {
    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let alive = self.supervisor.panicked() == 0;
        let since = self.readiness.ready_since().filter(|_| alive);
        let (status, content_type, body) = match path {
            _ if path == self.path => self.full(since),
            "/live" if alive => (StatusCode::OK, JSON, r#"{"status":"alive"}"#.to_owned()),
            "/live" => (StatusCode::SERVICE_UNAVAILABLE, JSON, r#"{"status":"a task has died"}"#.to_owned()),
            "/ready" => self.full(since),
            _ if self.path == "/" => self.full(since),
            _ => (StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.extend(self.headers.clone());
        response
    }

    fn full(&self, since: Option<(SystemTime, Instant)>) -> (StatusCode, &'static str, String) {
        let (status, own) = match since {
            Some(_) => (StatusCode::OK, &self.bodies.healthy),
            None => (StatusCode::SERVICE_UNAVAILABLE, &self.bodies.unhealthy),
        };
        if !own.is_empty() {
            return (status, TEXT, own.clone());
        }
        let body = match since {
            Some((wall, steady)) => serde_json::json!({
                "status": "Server available",
                "upSince": rfc3339(wall),
                "uptime": go_duration(steady.elapsed()),
            }),
            None => serde_json::json!({
                "status": "Server not available",
                "upSince": "0001-01-01T00:00:00Z",
                "uptime": "",
            }),
        };
        (status, JSON, body.to_string())
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A moment in UTC, as Go writes it: nanoseconds without trailing zeros.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days are counted from 1 March of year 0, so that leap days come last (civil calendar arithmetic).
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = format!(".{:09}", since.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// A duration as Go writes it: `1h2m3.5s`, `3.5s`, `12ms`.
fn go_duration(d: Duration) -> String {
    let decimal = |value: u128, unit: u128| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let nanos = d.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::extensions::testing::{context, decode, text};
    use crate::pipeline::Phase;

    /// A running health check on a port of its own.
    struct Running {
        extension: HealthCheck,
        context: RunContext,
        address: std::net::SocketAddr,
    }

    async fn run(entries: &[(&str, crate::config::Value)]) -> Running {
        let (mut config, messages) = decode::<HealthCheckConfig>(entries);
        assert!(messages.is_empty(), "{messages:?}");
        config.endpoint = Endpoint::of("127.0.0.1:0");
        let (context, _) = context();
        let extension = HealthCheck { config, stop: watch::Sender::new(false) };
        let address = extension.open(&context).await.unwrap().unwrap();
        Running { extension, context, address }
    }

    impl Running {
        /// Status and everything after it.
        async fn get(&self, path: &str) -> (u16, String) {
            let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
        }
    }

    #[tokio::test]
    async fn the_answer_follows_the_life_of_the_agent() {
        let agent = run(&[]).await;
        let (status, body) = agent.get("/").await;
        assert_eq!(status, 503);
        let want = r#"{"status":"Server not available","upSince":"0001-01-01T00:00:00Z","uptime":""}"#;
        assert!(body.ends_with(want) && body.contains("content-type: application/json"), "{body}");
        assert_eq!((agent.get("/live").await.0, agent.get("/ready").await.0), (200, 503));

        agent.context.readiness.advance(Phase::Ready);
        let (status, body) = agent.get("/anything").await;
        assert_eq!(status, 200);
        assert!(body.contains(r#"{"status":"Server available","upSince":"2"#), "{body}");
        assert_eq!((agent.get("/live").await.0, agent.get("/ready").await.0), (200, 200));

        agent.context.readiness.advance(Phase::Stopping);
        assert_eq!((agent.get("/").await.0, agent.get("/ready").await.0), (503, 503));

        let mut idle = tokio::net::TcpStream::connect(agent.address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        idle.read_u8().await.unwrap();
        agent.extension.stop().await;
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(tokio::net::TcpStream::connect(agent.address).await.is_err(), "the port is still open");
    }

    #[tokio::test]
    async fn a_dead_task_is_no_health() {
        let agent = run(&[]).await;
        agent.context.readiness.advance(Phase::Ready);
        assert_eq!(agent.get("/").await.0, 200);
        let task = agent.context.supervisor.spawn("dying", async { panic!("as planned") });
        assert!(task.await.is_err());
        assert_eq!(
            (agent.get("/").await.0, agent.get("/live").await.0, agent.get("/ready").await.0),
            (503, 503, 503)
        );
    }

    #[tokio::test]
    async fn path_and_bodies_are_as_configured() {
        let entries = [
            ("path", text("/health")),
            ("response_body.healthy", text("fine")),
            ("response_body.unhealthy", text("wait")),
            ("response_headers.x-agent", text("tidegate")),
        ];
        let agent = run(&entries).await;
        let (status, answer) = agent.get("/health").await;
        assert!(status == 503 && answer.ends_with("\r\n\r\nwait"), "{answer}");
        agent.context.readiness.advance(Phase::Ready);
        let (status, answer) = agent.get("/health?verbose").await;
        assert!(
            status == 200 && answer.ends_with("\r\n\r\nfine") && answer.contains("x-agent: tidegate"),
            "{answer}"
        );
        assert_eq!((agent.get("/").await.0, agent.get("/ready").await.0), (404, 200));
        // The configured path wins over ours.
        let live = run(&[("path", text("/live"))]).await;
        assert_eq!(live.get("/live").await.0, 503);
    }

    #[test]
    fn validation() {
        let unix = text("unix:///run/health.sock");
        for (entries, want) in [
            (vec![("path", text("health"))], Some("path must start with /")),
            (vec![("endpoint", text(""))], Some("an endpoint to listen on is needed")),
            (vec![("endpoint", unix.clone()), ("transport", text("tcp4"))], Some("do not fit")),
            (vec![("transport", text("unix"))], Some("do not fit")),
            (
                vec![("check_collector_pipeline.enabled", crate::config::Value::Bool(true))],
                Some("deprecated"),
            ),
            (vec![("endpoint", unix.clone()), ("transport", text("unix"))], None),
            (vec![("endpoint", unix)], None),
            (vec![("transport", text("tcp4"))], None),
        ] {
            let (_, messages) = decode::<HealthCheckConfig>(&entries);
            match want {
                Some(want) => assert!(messages.iter().any(|m| m.contains(want)), "{want}: {messages:?}"),
                None => assert!(messages.is_empty(), "{messages:?}"),
            }
        }
        assert_eq!(HealthCheckConfig::default().listens(), [("endpoint", "localhost:13133".to_owned())]);
    }

    #[test]
    fn times_are_written_as_in_go() {
        for (secs, nanos, want) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_735_689_599, 1, "2024-12-31T23:59:59.000000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(secs, nanos)), want);
        }
        for (nanos, want) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (12_000_000, "12ms"),
            (3_050_000_000, "3.05s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), want);
        }
    }
}
