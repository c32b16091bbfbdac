//! Collections and what is told between them, at the pipelines' end.

use std::collections::HashMap;
use std::sync::Mutex;

use super::super::model::{Closed, EventSink, Glance, Identity, Reason, Source};
use super::*;
use crate::pdata::{Batch, Signal};
use crate::pipeline::{Consumer, Ledger, Outputs, Readiness, RunContext, Verdict};

/// What a fake device does when it is read.
#[derive(Clone, Copy)]
enum Does {
    /// Tells of so many XIDs 31.
    Tells(u32),
    /// Falls off the bus, and takes the driver with it.
    Falls,
    /// Does not come back within a minute.
    Hangs,
}

struct Fake(EventSink, Arc<Mutex<Does>>);

fn device() -> Arc<Identity> {
    Arc::new(Identity { uuid: "GPU-0".into(), name: "NVIDIA H200".into(), ..Identity::default() })
}

impl Fake {
    fn tell(&self, code: u64) {
        let kind = EventKind::Xid(code);
        let event = Event { uuid: "GPU-0".into(), kind, time: 1, gpu_instance: None, compute_instance: None };
        self.0.send(event).unwrap();
    }
}

impl Source for Fake {
    fn open(&mut self, _skip: &[u32], _entering: &mut dyn FnMut(u32)) -> Result<Inventory, Closed> {
        Ok(Inventory { devices: vec![device()], ..Inventory::default() })
    }

    fn read(&mut self, _index: u32, _now: Instant) -> Result<Report, Closed> {
        let does = *self.1.lock().unwrap();
        match does {
            Does::Tells(times) => (0..times).for_each(|_| self.tell(31)),
            Does::Falls => {
                self.tell(79);
                return Err(Closed { reason: Reason::Changed, message: "gone".into() });
            }
            Does::Hangs => std::thread::sleep(Duration::from_secs(60)),
        }
        Ok(Report::bare(device(), State::Readable))
    }

    fn glance(&mut self, _index: u32) -> Result<Glance, Closed> {
        Ok(Glance::default())
    }

    fn close(&mut self) {}
}

/// Takes everything, and remembers it.
#[derive(Default)]
struct Taken(Mutex<Vec<(usize, Vec<u8>)>>);

impl Consumer for Taken {
    fn consume(&self, batch: Batch) {
        self.0.lock().unwrap().push((batch.items, batch.rope.to_bytes().to_vec()));
        batch.acks.resolve(Verdict::Accepted);
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

fn rig(does: Does) -> (Collector, Arc<Mutex<Does>>, Arc<Taken>) {
    let taken = Arc::new(Taken::default());
    let cx = RunContext {
        supervisor: Supervisor::default(),
        ledger: Ledger::new(1 << 24),
        metrics: Metrics::new(),
        extensions: Arc::new(HashMap::new()),
        readiness: Readiness::default(),
    };
    let outputs: Outputs = [Some(taken.clone()), Some(taken.clone()), Some(taken.clone())];
    let does = Arc::new(Mutex::new(does));
    let of_source = does.clone();
    let setup = Setup {
        id: "nvml".into(),
        node: "n".into(),
        factory: Arc::new(move |sink| Box::new(Fake(sink, of_source.clone()))),
        schedule: None,
        ways: Ways { metrics: None, logs: Outbox::open("nvml", Signal::Logs, &outputs, &cx) },
        supervisor: cx.supervisor.clone(),
        metrics: cx.metrics.clone(),
    };
    let config = NvmlConfig {
        device_timeout: Duration::from_secs(100),
        initial_delay: Duration::ZERO,
        ..NvmlConfig::default()
    };
    (Collector::new(&config, setup).unwrap(), does, taken)
}

/// The records that were taken, and all of them as bytes.
async fn logged(collector: &Collector, taken: &Taken) -> (usize, String) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    collector.ways.logs.as_ref().unwrap().close(deadline).await;
    let taken = taken.0.lock().unwrap();
    let bytes: Vec<u8> = taken.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    (taken.iter().map(|(items, _)| items).sum(), String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_storm_of_events_finds_room() {
    let (mut collector, _, taken) = rig(Does::Tells(1000));
    collector.collect().await;
    assert_eq!(logged(&collector, &taken).await.0, 1000);
}

#[tokio::test]
async fn what_is_told_of_a_device_that_is_gone_is_of_those_who_had_it() {
    let (mut collector, does, taken) = rig(Does::Tells(0));
    let holder =
        Holder { namespace: "research".into(), pod: "trainer-0".into(), container: "main".into(), uid: None };
    let claims = vec![Claim { device_id: "GPU-0".into(), holder: Arc::new(holder) }];
    collector.pods.tell(Told { claims, ..Told::default() });
    collector.collect().await;
    *does.lock().unwrap() = Does::Falls;
    collector.collect().await;
    let (records, text) = logged(&collector, &taken).await;
    assert_eq!(records, 1);
    assert!(text.contains("XID 79") && text.contains("trainer-0"), "{text}");
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_device_that_hangs() {
    let (collector, ..) = rig(Does::Hangs);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let run = collector.run(stopped);
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(tokio::time::Instant::now() + Duration::from_millis(100)).unwrap();
    };
    let both = async { tokio::join!(run, stopping) };
    assert!(tokio::time::timeout(Duration::from_secs(20), both).await.is_ok());
}
