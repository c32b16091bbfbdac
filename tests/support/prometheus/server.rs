//! The receiver as a server: takes a request, has it checked, decides what becomes of it, answers or does not.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::store::{InFlight, Store, Written};
use super::{Decoded, Faults, Findings, Logged, Options, Speaks, Then, Version, check};

/// What Mimir says to a replica that is not the elected one.
const REPLICA: &str = "replicas did not match, rejecting sample: replica=b, elected=a";

pub struct Shared {
    pub options: Options,
    pub state: Mutex<State>,
}

pub struct State {
    pub script: VecDeque<Then>,
    pub faults: Faults,
    pub speaks: Speaks,
    pub store: Store,
    pub in_flight: InFlight,
    pub log: Vec<Logged>,
    pub violations: Vec<String>,
    rng: fastrand::Rng,
}

impl Shared {
    pub fn new(options: Options) -> Self {
        let state = State {
            script: VecDeque::new(),
            faults: Faults::default(),
            speaks: options.speaks,
            store: Store::default(),
            in_flight: InFlight::default(),
            log: Vec::new(),
            violations: Vec::new(),
            rng: fastrand::Rng::with_seed(options.seed),
        };
        Shared { options, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
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
            Then::Refuse(429, Some(faults.throttle.1))
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

    fn blame(&mut self, findings: Vec<String>) {
        let room = 100usize.saturating_sub(self.violations.len());
        self.violations.extend(findings.into_iter().take(room));
    }
}

/// A request under way. Dropped without [`Underway::answer`], its sender never heard of it.
struct Underway {
    shared: Arc<Shared>,
    number: u64,
    answered: bool,
}

impl Underway {
    fn end(&self, answer: Option<u16>) {
        let mut state = self.shared.state();
        let mut findings = Findings::default();
        state.in_flight.end(self.number, answer.is_some(), &mut findings);
        state.blame(findings.into_vec());
        state.log[self.number as usize - 1].answer = answer;
        if answer.is_none() {
            state.store.lose_answer(self.number);
        }
    }

    fn answer(mut self, status: u16, written: Option<&Written>, text: &str) -> Response<Full<Bytes>> {
        self.end(Some(status));
        self.answered = true;
        let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(written) = written {
            let headers = response.headers_mut();
            for (kind, count) in [
                ("samples", written.samples),
                ("histograms", written.histograms),
                ("exemplars", written.exemplars),
            ] {
                let name = format!("x-prometheus-remote-write-{kind}-written");
                headers.insert(http::HeaderName::try_from(name).unwrap(), count.into());
            }
        }
        response
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.answered {
            self.end(None);
        }
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

async fn answer(shared: Arc<Shared>, cut: &Notify, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        // The sender closed the connection in the middle of its request; nobody is there to answer.
        return pending().await;
    };
    let body = body.to_bytes();
    let mut findings = Findings::default();
    let decoded =
        check::request(&shared.options.rules, &head.method, &head.uri, &head.headers, &body, &mut findings);
    if let (Some(also), Some(decoded)) = (&shared.options.also, &decoded)
        && let Some(wrong) = also(&head.headers, decoded)
    {
        findings.add("test", wrong);
    }
    let (underway, then, delay, speaks) = {
        let mut state = shared.state();
        let number = state.log.len() as u64 + 1;
        state.log.push(Logged {
            number,
            at: Instant::now(),
            version: decoded.as_ref().map(|d| d.version),
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            bytes: (body.len(), decoded.as_ref().map_or(0, |d| d.bytes)),
            series: decoded.as_ref().map_or(0, |d| d.series.len()),
            samples: decoded
                .as_ref()
                .map_or(0, |d| d.series.iter().map(|part| part.samples.len() + part.histograms.len()).sum()),
            answer: None,
        });
        if let Some(decoded) = &decoded {
            state.in_flight.begin(number, decoded);
        }
        let (then, delay) = state.fate();
        (Underway { shared: shared.clone(), number, answered: false }, then, delay, state.speaks)
    };
    let Some(decoded) = decoded.filter(|_| findings.count() == 0) else {
        let findings = findings.into_vec();
        shared.state().blame(findings.clone());
        return underway.answer(400, None, &findings.join("\n"));
    };
    tokio::time::sleep(delay).await;
    match (speaks, decoded.version) {
        (Speaks::Only1Unaware, Version::V2) => return underway.answer(204, None, ""),
        (Speaks::Only1(status), Version::V2) => return underway.answer(status, None, "unsupported"),
        (Speaks::Only2, Version::V1) => return underway.answer(415, None, "unsupported"),
        _ => {}
    }
    match then {
        Then::Store => store(&shared, underway, &decoded),
        Then::Refuse(status, after) => {
            let mut response = underway.answer(status, None, "refused by the test");
            if let Some(after) = after {
                response.headers_mut().insert("retry-after", after.into());
            }
            response
        }
        Then::StoreButFail(status) => {
            let number = underway.number;
            let mut response = store(&shared, underway, &decoded);
            if !response.status().is_success() {
                return response;
            }
            let mut state = shared.state();
            state.store.lose_answer(number);
            state.log[number as usize - 1].answer = Some(status);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
        Then::Ignore => {
            let nothing = Written::default();
            underway.answer(202, (decoded.version == Version::V2).then_some(&nothing), REPLICA)
        }
        Then::Cut => {
            // Noted first: the sender may be back before this connection is quite gone.
            drop(underway);
            cut.notify_one();
            pending().await
        }
        Then::LoseAnswer => {
            apply(&shared, underway.number, &decoded);
            drop(underway);
            cut.notify_one();
            pending().await
        }
        Then::Hang => pending().await,
        Then::StoreAndHang => {
            apply(&shared, underway.number, &decoded);
            shared.state().store.lose_answer(underway.number);
            pending().await
        }
    }
}

/// Stores a request; the broken rules, if any, were noted.
fn apply(shared: &Shared, number: u64, decoded: &Decoded) -> (Written, Vec<String>) {
    let Options { refuses, out_of_order, .. } = &shared.options;
    let mut findings = Findings::default();
    let mut state = shared.state();
    let written = state.store.apply(number, decoded, refuses.as_ref(), *out_of_order, &mut findings);
    let findings = findings.into_vec();
    state.blame(findings.clone());
    (written, findings)
}

fn store(shared: &Shared, underway: Underway, decoded: &Decoded) -> Response<Full<Bytes>> {
    let (written, findings) = apply(shared, underway.number, decoded);
    let headers = (decoded.version == Version::V2).then_some(&written);
    if !findings.is_empty() {
        return underway.answer(400, headers, &findings.join("\n"));
    }
    if written.refused > 0 {
        return underway.answer(400, headers, &format!("{} samples are bad", written.refused));
    }
    underway.answer(204, headers, "")
}
