//! The page over HTTP: `GET` and `HEAD` of `/metrics`, written as fast as the scraper reads.
//!
//! A scrape holds one part of the page, at most [`PART`](super::page::PART) bytes and a sample more, and the state of
//! its compression; how many there may be at once is bounded.

use std::convert::Infallible;
use std::io;
use std::io::Write;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::Clock;
use super::config::PrometheusConfig;
use super::negotiate::{Format, takes_gzip};
use super::page::Page;
use super::state::State;
use crate::net::auth::ServerAuth;
use crate::net::listen::Stream;
use crate::receivers::otlp::conn::{Conn, OpenRequest, Watched};
use crate::receivers::otlp::cors::Cors;
use crate::receivers::otlp::server::{Protocol, Stopping};
use crate::receivers::otlp::{Timeouts, with_params};

/// How many scrapes are answered at once.
const SCRAPES: usize = 40;
/// How long answers may go on after the agent was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

type Answer = Response<Either<Full<Bytes>, Scrape>>;

/// The server.
pub struct Pages {
    state: Arc<Mutex<State>>,
    clock: Clock,
    auth: Option<Arc<dyn ServerAuth>>,
    auth_params: Vec<String>,
    cors: Option<Cors>,
    response_headers: HeaderMap,
    timeouts: Timeouts,
    open_metrics: bool,
    timestamps: bool,
    builder: http1::Builder,
    scrapes: Arc<Semaphore>,
}

/// A page on its way.
pub struct Scrape {
    page: Page,
    gzip: Option<GzEncoder<Vec<u8>>>,
    deadline: Option<Instant>,
    done: bool,
    _open: OpenRequest,
    _permit: OwnedSemaphorePermit,
}

impl Pages {
    /// A server of this state's pages.
    pub fn new(
        config: &PrometheusConfig,
        state: Arc<Mutex<State>>,
        clock: Clock,
        auth: Option<Arc<dyn ServerAuth>>,
    ) -> Self {
        let mut builder = http1::Builder::new();
        builder
            .header_read_timeout(None)
            .half_close(true)
            .keep_alive(config.keep_alives_enabled)
            .timer(TokioTimer::new());
        Pages {
            state,
            clock,
            auth,
            auth_params: config.auth.get().map(|auth| auth.request_params.clone()).unwrap_or_default(),
            cors: config.cors.get().and_then(Cors::new),
            response_headers: config.response_headers.to_map(),
            timeouts: Timeouts::new(
                config.read_timeout,
                // There is nothing but the head to read.
                shorter(config.read_timeout, config.read_header_timeout),
                config.write_timeout,
                config.idle_timeout,
            ),
            open_metrics: config.enable_open_metrics,
            timestamps: config.send_timestamps,
            builder,
            scrapes: Arc::new(Semaphore::new(SCRAPES)),
        }
    }

    fn answer<B>(&self, conn: &Arc<Conn>, request: &Request<B>) -> Answer {
        let open = conn.open(false);
        let headers = request.headers();
        let mut response = match &self.cors {
            Some(cors) if Cors::is_preflight(request.method(), headers) => {
                let mut response = plain(StatusCode::NO_CONTENT, "");
                response.headers_mut().remove(header::CONTENT_TYPE);
                cors.preflight(headers, response.headers_mut());
                response
            }
            cors => {
                let mut response = self.serve_path(request, open);
                if let Some(cors) = cors {
                    cors.permit(headers, response.headers_mut());
                }
                response
            }
        };
        for (name, value) in &self.response_headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }

    fn serve_path<B>(&self, request: &Request<B>, open: OpenRequest) -> Answer {
        let headers = request.headers();
        if let Some(auth) = &self.auth {
            let all = with_params(&self.auth_params, headers, request.uri().query());
            if let Err(error) = auth.authenticate(all.as_ref().unwrap_or(headers)) {
                tracing::debug!(%error, "a scrape was refused");
                return plain(StatusCode::UNAUTHORIZED, "401 unauthorized\n");
            }
        }
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "404 page not found: metrics are at /metrics\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed: use GET\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let Ok(permit) = self.scrapes.clone().try_acquire_owned() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "503 too many scrapes at once\n");
        };
        let format = Format::of(headers, self.open_metrics);
        let gzip = takes_gzip(headers);
        let body = match *request.method() {
            Method::HEAD => Either::Left(Full::default()),
            _ => Either::Right(Scrape {
                page: Page::new(self.state.clone(), format, self.timestamps, self.clock.millis()),
                gzip: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
                deadline: self.timeouts.write().map(|limit| Instant::now() + limit),
                done: false,
                _open: open,
                _permit: permit,
            }),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, format.content_type());
        headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

impl Protocol for Pages {
    const ALPN: &'static [&'static [u8]] = &[b"http/1.1"];
    const IDLE_BYTES: usize = 8 << 10;

    async fn serve(self: Arc<Self>, io: Stream, conn: Arc<Conn>, stopping: Stopping) {
        let io = TokioIo::new(Watched::new(io, conn.clone(), None, 0));
        let service = service_fn(|request| {
            let answer = self.answer(&conn, &request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut stop = pin!(stopping.wait());
        let mut cut: Option<Instant> = None;
        let mut timer = pin!(sleep_until(self.timeouts.next(&conn)));
        loop {
            tokio::select! {
                // A scraper that goes away in the middle is its own affair.
                _ = connection.as_mut() => return,
                () = &mut stop, if cut.is_none() => {
                    connection.as_mut().graceful_shutdown();
                    let at = Instant::now() + STOP_GRACE;
                    cut = Some(at);
                    timer.as_mut().reset(at);
                }
                () = &mut timer => {
                    let now = Instant::now();
                    if self.timeouts.over(&conn, now) || cut.is_some_and(|cut| now >= cut) {
                        return;
                    }
                    let next = self.timeouts.next(&conn);
                    timer.as_mut().reset(cut.map_or(next, |cut| next.min(cut)));
                }
            }
        }
    }
}

impl Scrape {
    /// Makes the next part; empty if compression keeps it for the next one.
    fn make(&mut self) -> io::Result<Bytes> {
        let (part, more) = self.page.part();
        self.done = !more;
        let Some(mut gzip) = self.gzip.take() else { return Ok(Bytes::from(part)) };
        gzip.write_all(&part)?;
        if self.done {
            return gzip.finish().map(Bytes::from);
        }
        let made = std::mem::take(gzip.get_mut());
        self.gzip = Some(gzip);
        Ok(Bytes::from(made))
    }
}

impl Body for Scrape {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.done = true;
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        match self.make() {
            Ok(part) if part.is_empty() && self.done => Poll::Ready(None),
            Ok(part) if part.is_empty() => {
                // Others have their turn before the next part.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            part => Poll::Ready(Some(part.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

/// The shorter of two times of which 0 means without limit.
fn shorter(a: Duration, b: Duration) -> Duration {
    if a.is_zero() || b.is_zero() { a.max(b) } else { a.min(b) }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::exporters::prometheus::tests::{Rig, config, gauge};
    use crate::pdata::ClientInfo;

    fn pages(yaml: &str) -> (Pages, Arc<Conn>) {
        let rig = Rig::new(yaml);
        rig.store(&gauge("a", "", 1, 1.0), 0);
        let pages = Pages::new(&config(yaml).0, rig.0, Clock::start(), None);
        (pages, Conn::new(Arc::new(ClientInfo::default()), mpsc::channel(1).0))
    }

    fn get(pages: &Pages, conn: &Arc<Conn>) -> Answer {
        pages.answer(conn, &Request::get("/metrics").body(()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_too_long_is_given_up() {
        let (pages, conn) = pages("write_timeout: 10s");
        for (seconds, fine) in [(9, true), (10, false)] {
            let mut body = get(&pages, &conn).into_body();
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(body.frame().await.unwrap().is_ok(), fine, "{seconds} s");
            assert!(body.frame().await.is_none());
        }
        let (pages, conn) = self::pages("write_timeout: 0s");
        let mut body = get(&pages, &conn).into_body();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(body.frame().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn so_many_scrapes_at_once() {
        let (pages, conn) = pages("");
        let mut open: Vec<Answer> = (0..SCRAPES).map(|_| get(&pages, &conn)).collect();
        assert!(open.iter().all(|answer| answer.status() == StatusCode::OK));
        assert_eq!(get(&pages, &conn).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(conn.quiet_since(), None, "answers are under way");
        open.pop();
        assert_eq!(get(&pages, &conn).status(), StatusCode::OK);
        open.clear();
        assert!(conn.quiet_since().is_some());
    }

    #[test]
    fn the_shorter_time_holds() {
        let seconds = Duration::from_secs;
        for (a, b, want) in [(0, 0, 0), (0, 5, 5), (5, 0, 5), (3, 5, 3), (5, 3, 3)] {
            assert_eq!(shorter(seconds(a), seconds(b)), seconds(want));
        }
    }
}
