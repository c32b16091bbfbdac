//! The Loki as a server: takes a request, decides what becomes of it, answers or does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::decode::{self, Decoded, Refusal, Stream};
use super::store::Tenant;
use super::{Faults, Findings, Labels, Limits, Logged, Options, Then, check, otlp};

const PUSH: [&str; 2] = ["/loki/api/v1/push", "/api/prom/push"];
const OTLP: &str = "/otlp/v1/logs";

pub struct Shared {
    options: Options,
    state: Mutex<State>,
}

pub struct State {
    pub limits: Limits,
    pub limits_of: BTreeMap<String, Limits>,
    pub script: VecDeque<Then>,
    pub faults: Faults,
    pub tenants: BTreeMap<String, Tenant>,
    /// By number: the tenant, and its streams in the request.
    pub in_flight: BTreeMap<u64, (String, BTreeSet<Labels>)>,
    pub log: Vec<Logged>,
    pub violations: Vec<String>,
    pub rejections: Vec<String>,
    rng: fastrand::Rng,
}

impl Shared {
    pub fn new(options: Options) -> Self {
        let state = State {
            limits: options.limits.clone(),
            limits_of: BTreeMap::new(),
            script: VecDeque::new(),
            faults: Faults::default(),
            tenants: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            log: Vec::new(),
            violations: Vec::new(),
            rejections: Vec::new(),
            rng: fastrand::Rng::with_seed(options.seed),
        };
        Shared { options, state: Mutex::new(state) }
    }

    /// A test that failed while it looked must not keep others from seeing why.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the good part of a request; the answer.
    fn take(&self, tenant: &str, streams: Vec<Stream>) -> Refusal {
        let mut state = self.state();
        let answer = self.verdict(&mut state, tenant, streams);
        if answer.status != 204 && state.rejections.len() < 1000 {
            let text: String = answer.message.chars().take(600).collect();
            state.rejections.push(format!("{} {text}", answer.status));
        }
        answer
    }

    fn verdict(&self, state: &mut State, tenant: &str, streams: Vec<Stream>) -> Refusal {
        let limits = state.limits_of(tenant);
        let checked = match check::streams(&limits, tenant, streams, self.options.poison.as_ref()) {
            Ok(checked) => checked,
            Err(refusal) => return refusal,
        };
        let wrong = checked.errors.text().map(|text| Refusal::new(400, text));
        if let Some(status) = limits.blocked {
            let text =
                format!("ingestion blocked for user {tenant} until 'later' with status code '{status}'");
            return wrong.unwrap_or_else(|| Refusal::new(status, text));
        }
        if checked.streams.is_empty() {
            return wrong.unwrap_or_else(|| Refusal::new(204, ""));
        }
        let kept = state.tenants.entry(tenant.to_owned()).or_default();
        match kept.store(&limits, tenant, &checked.streams) {
            Err(refusal) => refusal,
            Ok(()) => wrong.unwrap_or_else(|| Refusal::new(204, "")),
        }
    }
}

impl State {
    fn limits_of(&self, tenant: &str) -> Limits {
        self.limits_of.get(tenant).unwrap_or(&self.limits).clone()
    }

    /// What becomes of the next request, and how late.
    fn fate(&mut self) -> (Then, Duration) {
        if let Some(then) = self.script.pop_front() {
            return (then, Duration::ZERO);
        }
        let State { rng, faults, .. } = self;
        let mut hits = |percent: u32| percent > 0 && rng.u32(0..100) < percent;
        let then = if hits(faults.cut) {
            Then::Cut
        } else if hits(faults.fail.0) {
            Then::Refuse(faults.fail.1, None)
        } else if hits(faults.throttle.0) {
            Then::Refuse(429, faults.throttle.1)
        } else if hits(faults.store_but_fail) {
            Then::StoreButFail(503)
        } else if hits(faults.lose_answer) {
            Then::LoseAnswer
        } else {
            Then::Store
        };
        let delay = if hits(faults.delay.0) { faults.delay.1 } else { Duration::ZERO };
        (then, delay)
    }

    fn blame(&mut self, findings: Findings) {
        let room = 100usize.saturating_sub(self.violations.len());
        self.violations.extend(findings.into_vec().into_iter().take(room));
    }

    /// Notes a request; the same stream of a tenant must not be under way twice.
    fn begin(&mut self, number: u64, tenant: &str, streams: &[Stream]) {
        let labels: BTreeSet<Labels> = streams.iter().map(|s| s.labels.clone()).collect();
        let mut findings = Findings::default();
        for (other, (whose, theirs)) in &self.in_flight {
            if whose == tenant
                && let Some(both) = labels.intersection(theirs).next()
            {
                findings.add("order-at-once", format!("requests {other} and {number}: {both:?}"));
            }
        }
        self.blame(findings);
        self.in_flight.insert(number, (tenant.to_owned(), labels));
    }
}

/// A request under way. Dropped without an answer, its sender never heard of it.
struct Underway {
    shared: Arc<Shared>,
    number: u64,
    /// Errors are told in the form of OTLP.
    otlp: bool,
}

impl Underway {
    fn answer(self, refusal: &Refusal) -> Response<Full<Bytes>> {
        // For OTLP, what is the server's fault may be tried again.
        let status = if self.otlp && refusal.status == 500 { 503 } else { refusal.status };
        self.shared.state().log[self.number as usize - 1].answer = Some(status);
        let body = match status {
            204 => Vec::new(),
            _ if self.otlp => otlp::status(&refusal.message),
            _ => format!("{}\n", refusal.message).into_bytes(),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.shared.state().in_flight.remove(&self.number);
    }
}

pub async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(shared.clone(), stream));
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (shared, cut) = (shared.clone(), cut.clone());
        async move { Ok::<_, Infallible>(answer(shared, &cut, request).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = cut.notified() => {}
    }
}

/// Tenant and streams of a request.
fn read(
    shared: &Shared,
    head: &http::request::Parts,
    body: &[u8],
    odd: &mut Findings,
) -> Result<(String, Decoded), Refusal> {
    let path = head.uri.path();
    if !PUSH.contains(&path) && path != OTLP {
        return Err(Refusal::new(404, "404 page not found"));
    }
    if head.method != Method::POST {
        return Err(Refusal::new(405, ""));
    }
    let header = head.headers.get("x-scope-orgid").map(|v| v.to_str().unwrap_or("\u{fffd}"));
    let tenant = check::tenant(shared.options.auth, header)?;
    let limits = shared.state().limits_of(&tenant);
    let decoded = if path == OTLP {
        otlp::request(&limits, &head.headers, body)?
    } else {
        let decoded = decode::request(&limits, &head.headers, body, odd)?;
        decode::find_odd(&decoded.streams, odd);
        decoded
    };
    Ok((tenant, decoded))
}

async fn answer(shared: Arc<Shared>, cut: &Notify, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        // The sender closed the connection in the middle of its request; nobody is there to answer.
        return pending().await;
    };
    let body = body.to_bytes();
    let mut odd = Findings::default();
    let request = read(&shared, &head, &body, &mut odd);
    let path = head.uri.path().to_owned();
    let otlp = path == OTLP;
    let (underway, then, delay) = {
        let mut state = shared.state();
        let number = state.log.len() as u64 + 1;
        let (tenant, decoded) = match &request {
            Ok((tenant, decoded)) => (Some(tenant.clone()), Some(decoded)),
            Err(_) => (None, None),
        };
        let streams = decoded.map_or(&[][..], |d| &d.streams);
        state.log.push(Logged {
            number,
            at: Instant::now(),
            path,
            headers: head.headers,
            tenant: tenant.clone(),
            bytes: (body.len(), decoded.map_or(0, |d| d.bytes)),
            streams: streams.iter().map(|s| (s.text.clone(), s.entries.len())).collect(),
            answer: None,
        });
        state.blame(odd);
        if !otlp {
            state.begin(number, tenant.as_deref().unwrap_or_default(), streams);
        }
        let (then, delay) = state.fate();
        (Underway { shared: shared.clone(), number, otlp }, then, delay)
    };
    let (tenant, decoded) = match request {
        Ok(request) => request,
        Err(refusal) => {
            let text: String = refusal.message.chars().take(600).collect();
            shared.state().rejections.push(format!("{} {text}", refusal.status));
            return underway.answer(&refusal);
        }
    };
    tokio::time::sleep(delay).await;
    match then {
        Then::Store => underway.answer(&shared.take(&tenant, decoded.streams)),
        Then::Refuse(status, after) => {
            let mut response = underway.answer(&Refusal::new(status, "refused by the test"));
            if let Some(after) = after {
                response.headers_mut().insert("retry-after", after.into());
            }
            response
        }
        Then::StoreButFail(status) => {
            shared.take(&tenant, decoded.streams);
            underway.answer(&Refusal::new(status, "refused by the test"))
        }
        Then::Cut | Then::LoseAnswer => {
            if then == Then::LoseAnswer {
                shared.take(&tenant, decoded.streams);
            }
            // Noted first: the sender may be back before this connection is quite gone.
            drop(underway);
            cut.notify_one();
            pending().await
        }
        Then::Hang => pending().await,
        Then::StoreAndHang => {
            shared.take(&tenant, decoded.streams);
            pending().await
        }
    }
}
