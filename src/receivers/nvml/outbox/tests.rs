//! What becomes of requests that are refused, rejected, too many, or late; time is paused.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant as Paused;

use super::*;
use crate::pipeline::{Readiness, runtime::Supervisor};

/// Answers each request as the script says, then accepts; remembers what came when.
#[derive(Default)]
struct Script {
    /// How long an answer takes.
    slow: Duration,
    verdicts: Mutex<VecDeque<Verdict>>,
    seen: Mutex<Vec<(Duration, Bytes)>>,
    start: Mutex<Option<Paused>>,
}

impl Consumer for Script {
    fn consume(&self, batch: Batch) {
        let start = *self.start.lock().unwrap().get_or_insert_with(Paused::now);
        self.seen.lock().unwrap().push((start.elapsed(), batch.rope.to_bytes()));
        let verdict = self.verdicts.lock().unwrap().pop_front();
        let (slow, acks) = (self.slow, batch.acks);
        Supervisor::default().spawn("answer", async move {
            if !slow.is_zero() {
                tokio::time::sleep(slow).await;
            }
            acks.resolve(verdict.unwrap_or(Verdict::Accepted));
        });
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

fn rig(verdicts: Vec<Verdict>, budget: usize) -> (Outbox, Arc<Script>, RunContext) {
    slow_rig(verdicts, budget, Duration::ZERO)
}

fn slow_rig(verdicts: Vec<Verdict>, budget: usize, slow: Duration) -> (Outbox, Arc<Script>, RunContext) {
    let script = Arc::new(Script { slow, verdicts: Mutex::new(verdicts.into()), ..Script::default() });
    let cx = RunContext {
        supervisor: Supervisor::default(),
        ledger: Ledger::new(budget),
        metrics: Metrics::new(),
        extensions: Arc::new(HashMap::new()),
        readiness: Readiness::default(),
    };
    let outputs: Outputs = [None, Some(script.clone()), None];
    assert!(Outbox::open("nvml", Signal::Logs, &outputs, &cx).is_none(), "no pipeline takes logs");
    (Outbox::open("nvml", Signal::Metrics, &outputs, &cx).unwrap(), script, cx)
}

fn request(name: &'static str) -> Rendered {
    Rendered { request: Bytes::from_static(name.as_bytes()), points: 10 }
}

fn seen(script: &Script) -> Vec<(u64, String)> {
    let seen = script.seen.lock().unwrap();
    seen.iter().map(|(at, bytes)| (at.as_secs(), String::from_utf8(bytes.to_vec()).unwrap())).collect()
}

async fn close(outbox: &Outbox, seconds: u64) {
    outbox.close(Paused::now() + Duration::from_secs(seconds)).await;
}

/// Items accepted, refused and dropped.
fn counts(cx: &RunContext) -> [u64; 3] {
    cx.metrics.sums(["otelcol_receiver_accepted_", "otelcol_receiver_refused_", "tidegate_dropped_items"])
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_is_sent_again_in_order() {
    let after = Some(Duration::from_secs(7));
    let busy = Verdict::Retry { after, reason: "busy".to_owned() };
    let (outbox, script, cx) = rig(vec![Verdict::retry("x"), busy, Verdict::retry("y")], 1000);
    outbox.put(request("a"));
    outbox.put(request("b"));
    outbox.put(Rendered { request: Bytes::new(), points: 0 });
    while script.seen.lock().unwrap().len() < 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let want = [(0, "a"), (1, "a"), (8, "a"), (12, "a"), (12, "b")];
    assert_eq!(seen(&script), want.map(|(at, name)| (at, name.to_owned())));
    close(&outbox, 1).await;
    assert_eq!(counts(&cx), [20, 0, 0]);
    assert_eq!(cx.ledger.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_and_what_finds_no_room_is_counted() {
    let rejected = Verdict::Rejected { bad_data: true, reason: "no".to_owned() };
    let (outbox, script, cx) = rig(vec![rejected], 1000);
    outbox.put(request("bad"));
    while script.seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    *script.verdicts.lock().unwrap() = vec![Verdict::retry("down"); 1000].into();
    for _ in 0..WAITING + 3 {
        outbox.put(request("late"));
        // Each is refused at least once before the next comes.
        tokio::time::sleep(Duration::from_secs(40)).await;
    }
    assert_eq!(counts(&cx), [0, 40, 40], "one rejected and three for want of room");
    script.verdicts.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(120)).await;
    close(&outbox, 1).await;
    assert_eq!(counts(&cx), [WAITING as u64 * 10, 40, 40]);
}

#[tokio::test(start_paused = true)]
async fn closing_tries_until_its_deadline_and_counts_the_rest() {
    let (outbox, script, cx) = rig(vec![Verdict::retry("down"); 1000], 1000);
    outbox.put(request("a"));
    outbox.put(request("b"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    close(&outbox, 2).await;
    let tries = script.seen.lock().unwrap().len();
    assert!((10..40).contains(&tries), "{tries}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(&cx), [0, 20, 20]);
    assert!(script.seen.lock().unwrap().len() <= tries + 1, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn without_memory_it_waits() {
    let (outbox, script, cx) = rig(Vec::new(), 1000);
    let all = cx.ledger.reserve(1000).unwrap();
    outbox.put(request("a"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(script.seen.lock().unwrap().is_empty());
    drop(all);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(&cx), [10, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_deadline_is_not_tried_for_ever() {
    let slow = Duration::from_secs(5);
    let (outbox, script, cx) = slow_rig(vec![Verdict::retry("down"); 1000], 1000, slow);
    outbox.put(request("a"));
    outbox.put(request("b"));
    close(&outbox, 2).await;
    assert_eq!(counts(&cx), [0, 10, 10], "one was still waiting");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(&cx), [0, 20, 20]);
    assert_eq!(script.seen.lock().unwrap().len(), 1);
    outbox.put(request("too late"));
    assert_eq!(counts(&cx), [0, 30, 30]);
}
