//! The driver's thread over a source that reads, hangs, ends or panics as it is told.

use std::sync::Mutex;

use crossbeam_channel::unbounded;

use super::super::model::{Glance, Reading, Sample, Value};
use super::*;

/// What a fake device does when it is read.
#[derive(Clone)]
enum Does {
    Reads,
    /// Waits until something comes through the channel, or its end.
    Hangs(Receiver<()>),
    /// The same, while the library is opened.
    HangsAtFirst(Receiver<()>),
    /// The same, before the library enters any device.
    HangsInTheLibrary(Receiver<()>),
    /// Takes as long to be glanced at.
    Slow(Duration),
    /// Tells something when the library is closed.
    Tells,
    Closes,
    Panics,
}

struct Fake {
    sink: EventSink,
    plan: Arc<Mutex<Vec<Does>>>,
    log: Arc<Mutex<Vec<String>>>,
}

fn identity(index: u32) -> Arc<Identity> {
    Arc::new(Identity { uuid: format!("GPU-{index}").into(), index, ..Identity::default() })
}

impl Source for Fake {
    fn open(&mut self, skip: &[u32], entering: &mut dyn FnMut(u32)) -> Result<Inventory, Closed> {
        self.log.lock().unwrap().push(format!("open without {skip:?}"));
        let plan = self.plan.lock().unwrap().clone();
        if let Some(Does::HangsInTheLibrary(until)) = plan.first() {
            _ = until.recv();
        }
        let found = (0..).zip(&plan).filter(|(index, _)| !skip.contains(index));
        for (index, does) in found.clone() {
            entering(index);
            if let Does::HangsAtFirst(until) = does {
                _ = until.recv();
            }
        }
        Ok(Inventory { devices: found.map(|(index, _)| identity(index)).collect(), ..Inventory::default() })
    }

    fn read(&mut self, index: u32, _now: Instant) -> Result<Report, Closed> {
        let does = self.plan.lock().unwrap()[index as usize].clone();
        match does {
            Does::Hangs(until) => _ = until.recv(),
            Does::Closes => return Err(gone()),
            Does::Panics => panic!("on purpose"),
            _ => {}
        }
        let mut report = Report::bare(identity(index), State::Readable);
        let sample = |reading, value: u64| Sample { reading, index: 0, value: value.into() };
        report.samples = vec![sample(Reading::MemoryTotal, 100), sample(Reading::MemoryUsed, 45)];
        report.samples.push(sample(Reading::MemoryReserved, 10));
        Ok(report)
    }

    fn glance(&mut self, index: u32) -> Result<Glance, Closed> {
        let does = self.plan.lock().unwrap()[index as usize].clone();
        if let Does::Slow(time) = does {
            std::thread::sleep(time);
        }
        let mut log = self.log.lock().unwrap();
        let nth = log.iter().filter(|line| line.starts_with("glance")).count();
        log.push(format!("glance {index}"));
        if let Does::Closes = does {
            return Err(gone());
        }
        Ok(Glance { busy: Some(10.0 * nth as f64), power: None })
    }

    fn close(&mut self) {
        self.log.lock().unwrap().push("close".into());
        if let Some(Does::Tells) = self.plan.lock().unwrap().first() {
            let (uuid, kind) = ("GPU-0".into(), super::super::model::EventKind::Xid(79));
            let event = Event { uuid, kind, time: 1, gpu_instance: None, compute_instance: None };
            self.sink.send(event).unwrap();
        }
    }
}

fn gone() -> Closed {
    Closed { reason: Reason::DriverNotLoaded, message: "gone".into() }
}

struct Rig {
    plan: Arc<Mutex<Vec<Does>>>,
    log: Arc<Mutex<Vec<String>>>,
    worker: Worker,
}

fn rig(plan: Vec<Does>) -> Rig {
    let plan = Arc::new(Mutex::new(plan));
    let log = Arc::new(Mutex::new(Vec::new()));
    let (source_plan, source_log) = (plan.clone(), log.clone());
    let factory: Factory =
        Arc::new(move |sink| Box::new(Fake { sink, plan: source_plan.clone(), log: source_log.clone() }));
    let mut worker = Worker::new(factory, Supervisor::default(), Duration::from_millis(300));
    worker.opening = worker.timeout;
    Rig { plan, log, worker }
}

fn states(collected: &Collected) -> Vec<(u32, State)> {
    collected.reports.iter().map(|report| (report.identity.index, report.state)).collect()
}

async fn stop(mut rig: Rig) -> Vec<String> {
    rig.worker.stop(tokio::time::Instant::now() + Duration::from_secs(20)).await;
    rig.log.lock().unwrap().clone()
}

#[tokio::test]
async fn devices_are_read_in_order_and_the_library_is_closed() {
    let mut rig = rig(vec![Does::Reads, Does::Reads]);
    assert!(rig.worker.collect(false).await.opened.is_none());
    let first = rig.worker.collect(true).await;
    assert_eq!(first.opened.as_ref().unwrap().devices.len(), 2);
    assert_eq!(states(&first), [(0, State::Readable), (1, State::Readable)]);
    assert_eq!(first.reports[0].get(Reading::MemoryFill, 0), Some(Value::Double(0.5)));
    assert_eq!(first.reports[0].get(Reading::Status, 0), Some(Value::Int(1)));
    let second = rig.worker.collect(true).await;
    assert!(second.opened.is_none() && second.reports.len() == 2);
    assert_eq!(stop(rig).await, ["open without []", "close"]);
}

#[tokio::test]
async fn a_device_that_hangs_is_left_alone_until_it_comes_back() {
    let (release, until) = unbounded();
    let mut rig = rig(vec![Does::Reads, Does::Hangs(until), Does::Reads]);
    for _ in 0..2 {
        let collected = rig.worker.collect(true).await;
        assert_eq!(states(&collected), [(0, State::Readable), (1, State::Hung), (2, State::Readable)]);
        assert_eq!(collected.reports[1].get(Reading::Status, 2), Some(Value::Int(1)));
        assert!(collected.closed.is_none());
    }
    rig.plan.lock().unwrap()[1] = Does::Reads;
    release.send(()).unwrap();
    // Its thread ends by itself, and says so.
    while states(&rig.worker.collect(true).await)[1].1 == State::Hung {
        tokio::task::yield_now().await;
    }
    assert!(rig.worker.stuck.is_empty());
    let shared = rig.log.clone();
    let log = stop(rig).await;
    assert_eq!(log.iter().filter(|line| *line == "open without [1]").count(), 1, "{log:?}");
    let count = |word: &str| shared.lock().unwrap().iter().filter(|line| line.starts_with(word)).count();
    // Threads that were given up close in their own time.
    while count("close") < count("open") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_generation_that_ends_is_said_and_another_begins_when_told() {
    let mut rig = rig(vec![Does::Reads, Does::Closes]);
    let collected = rig.worker.collect(true).await;
    assert_eq!(collected.closed.unwrap().reason, Reason::DriverNotLoaded);
    assert!(collected.reports.is_empty());
    rig.plan.lock().unwrap()[1] = Does::Reads;
    assert!(rig.worker.collect(false).await.reports.is_empty());
    assert_eq!(rig.worker.collect(true).await.reports.len(), 2);
    assert_eq!(stop(rig).await, ["open without []", "close", "open without []", "close"]);
}

#[tokio::test]
async fn a_thread_that_dies_is_replaced() {
    let mut rig = rig(vec![Does::Panics]);
    // Writing down where it panicked takes its time on a busy machine.
    rig.worker.timeout = Duration::from_secs(20);
    rig.worker.opening = rig.worker.timeout;
    let collected = rig.worker.collect(true).await;
    assert_eq!(collected.closed.unwrap().reason, Reason::Other);
    while rig.worker.supervisor.panicked() == 0 {
        tokio::task::yield_now().await;
    }
    rig.plan.lock().unwrap()[0] = Does::Reads;
    assert_eq!(rig.worker.collect(true).await.reports.len(), 1);
}

#[tokio::test]
async fn what_is_seen_between_collections_becomes_minimum_mean_and_maximum() {
    let mut rig = rig(vec![Does::Reads]);
    rig.worker.collect(true).await;
    for seen in 1..=3 {
        rig.worker.glance();
        while rig.log.lock().unwrap().iter().filter(|line| line.starts_with("glance")).count() < seen {
            tokio::task::yield_now().await;
        }
    }
    let collected = rig.worker.collect(true).await;
    let got = |index| collected.reports[0].get(Reading::BusyWindow, index).map(Value::as_f64);
    assert_eq!([got(0), got(1), got(2)], [Some(0.0), Some(10.0), Some(20.0)]);
    assert_eq!(collected.reports[0].get(Reading::PowerWindow, 0), None);
    assert_eq!(rig.worker.collect(true).await.reports[0].get(Reading::BusyWindow, 0), None);
}

#[tokio::test]
async fn what_ended_between_two_collections_has_begun_anew_with_the_second() {
    let mut rig = rig(vec![Does::Reads]);
    rig.worker.collect(true).await;
    rig.plan.lock().unwrap()[0] = Does::Closes;
    rig.worker.glance();
    while !rig.log.lock().unwrap().iter().any(|line| line == "close") {
        tokio::task::yield_now().await;
    }
    rig.plan.lock().unwrap()[0] = Does::Reads;
    let collected = rig.worker.collect(true).await;
    assert!(collected.opened.is_some());
    assert_eq!(collected.closed, None, "nobody would tell that it is open");
    assert_eq!(states(&collected), [(0, State::Readable)]);
}

#[tokio::test]
async fn only_so_many_threads_may_be_stuck() {
    let (_release, until) = unbounded();
    let mut rig = rig(vec![Does::Hangs(until); 12]);
    rig.worker.timeout = Duration::from_millis(20);
    let collected = rig.worker.collect(true).await;
    assert_eq!(collected.closed.unwrap().reason, Reason::Hung);
    assert_eq!(rig.worker.stuck.len(), MOST_STUCK);
}

/// Lines of the log that begin like this.
fn logged(rig: &Rig, word: &str) -> usize {
    rig.log.lock().unwrap().iter().filter(|line| line.starts_with(word)).count()
}

#[tokio::test]
async fn a_generation_that_ends_between_two_collections_is_no_failure_of_the_next() {
    let mut rig = rig(vec![Does::Reads]);
    rig.worker.collect(true).await;
    rig.plan.lock().unwrap()[0] = Does::Closes;
    rig.worker.glance();
    while logged(&rig, "close") == 0 {
        tokio::task::yield_now().await;
    }
    rig.plan.lock().unwrap()[0] = Does::Reads;
    let collected = rig.worker.collect(false).await;
    assert_eq!(states(&collected), [(0, State::Readable)]);
    assert!(collected.opened.is_some() && collected.closed.is_none(), "it is open now: {collected:?}");
}

#[tokio::test]
async fn a_device_that_hangs_when_it_is_first_met_is_shown() {
    let (release, until) = unbounded();
    let mut rig = rig(vec![Does::Reads, Does::HangsAtFirst(until)]);
    for opened in [true, false] {
        let collected = rig.worker.collect(true).await;
        assert_eq!(states(&collected), [(0, State::Readable), (1, State::Hung)]);
        assert_eq!(&*collected.reports[1].identity.uuid, "index-1");
        assert_eq!(collected.opened.map(|inventory| inventory.devices.len()), opened.then_some(2));
    }
    rig.plan.lock().unwrap()[1] = Does::Reads;
    release.send(()).unwrap();
    while states(&rig.worker.collect(true).await)[1].1 == State::Hung {
        tokio::task::yield_now().await;
    }
    // Hung once more while the library is opened, it is known who it is.
    rig.plan.lock().unwrap()[0] = Does::Closes;
    assert!(rig.worker.collect(true).await.closed.is_some());
    let (_release, until) = unbounded();
    *rig.plan.lock().unwrap() = vec![Does::Reads, Does::HangsAtFirst(until)];
    assert_eq!(&*rig.worker.collect(true).await.reports[1].identity.uuid, "GPU-1");
}

#[tokio::test]
async fn nobody_follows_a_thread_that_hangs_in_the_library() {
    let (release, until) = unbounded();
    let mut rig = rig(vec![Does::HangsInTheLibrary(until)]);
    for _ in 0..3 {
        let collected = rig.worker.collect(true).await;
        assert_eq!(collected.closed.unwrap().reason, Reason::Hung);
    }
    assert_eq!(logged(&rig, "open"), 1);
    rig.plan.lock().unwrap()[0] = Does::Reads;
    release.send(()).unwrap();
    while rig.worker.collect(true).await.reports.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(rig.worker.stuck.is_empty());
}

#[tokio::test]
async fn a_thread_that_goes_on_from_device_to_device_does_not_hang() {
    let mut rig = rig(vec![Does::Slow(Duration::from_millis(200)); 4]);
    rig.worker.collect(true).await;
    rig.worker.glance();
    assert_eq!(rig.worker.collect(true).await.reports.len(), 4);
    assert!(rig.worker.stuck.is_empty());
    assert_eq!(logged(&rig, "open"), 1);
}

#[tokio::test]
async fn what_is_told_while_the_library_is_closed_is_taken() {
    let mut rig = rig(vec![Does::Tells]);
    rig.worker.collect(true).await;
    rig.worker.stop(tokio::time::Instant::now() + Duration::from_secs(20)).await;
    assert_eq!(rig.worker.events().count(), 1);
}

#[tokio::test]
async fn a_collection_that_nobody_waits_for_any_more_can_be_stopped() {
    let (release, until) = unbounded();
    let mut rig = rig(vec![Does::Hangs(until)]);
    let impatient = Duration::from_millis(50);
    assert!(tokio::time::timeout(impatient, rig.worker.collect(true)).await.is_err());
    release.send(()).unwrap();
    assert_eq!(stop(rig).await, ["open without []", "close"]);
}
