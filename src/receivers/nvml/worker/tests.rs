use std::sync::Mutex;

use crossbeam_channel::unbounded;

use super::*;

/// What a fake device does when it is read.
#[derive(Clone)]
enum Does {
    Reads,
    /// Waits until something comes through the channel.
    Hangs(Receiver<()>),
    Closes,
    Panics,
}

struct Fake {
    plan: Arc<Mutex<Vec<Does>>>,
    log: Arc<Mutex<Vec<String>>>,
}

fn identity(index: u32) -> Arc<Identity> {
    Arc::new(Identity { uuid: format!("GPU-{index}").into(), index, ..Identity::default() })
}

impl Source for Fake {
    fn open(&mut self, skip: &[u32], entering: &mut dyn FnMut(u32)) -> Result<Inventory, Closed> {
        self.log.lock().unwrap().push(format!("open without {skip:?}"));
        let count = self.plan.lock().unwrap().len() as u32;
        let found = (0..count).filter(|index| !skip.contains(index));
        found.clone().for_each(entering);
        Ok(Inventory { devices: found.map(identity).collect(), ..Inventory::default() })
    }

    fn read(&mut self, index: u32, _now: Instant) -> Result<Report, Closed> {
        let does = self.plan.lock().unwrap()[index as usize].clone();
        match does {
            Does::Reads => {}
            Does::Hangs(until) => drop(until.recv()),
            Does::Closes => return Err(Closed { reason: Reason::DriverNotLoaded, message: "gone".into() }),
            Does::Panics => panic!("on purpose"),
        }
        let mut report = Report::bare(identity(index), State::Readable);
        let sample = |reading, value: u64| Sample { reading, index: 0, value: value.into() };
        report.samples = vec![sample(Reading::MemoryTotal, 100), sample(Reading::MemoryUsed, 45)];
        report.samples.push(sample(Reading::MemoryReserved, 10));
        Ok(report)
    }

    fn glance(&mut self, index: u32) -> Result<Glance, Closed> {
        let mut log = self.log.lock().unwrap();
        let nth = log.iter().filter(|line| line.starts_with("glance")).count();
        log.push(format!("glance {index}"));
        if matches!(self.plan.lock().unwrap()[index as usize], Does::Closes) {
            return Err(Closed { reason: Reason::DriverNotLoaded, message: "gone".into() });
        }
        Ok(Glance { busy: Some(10.0 * nth as f64), power: None })
    }

    fn close(&mut self) {
        self.log.lock().unwrap().push("close".into());
    }
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
        Arc::new(move |_| Box::new(Fake { plan: source_plan.clone(), log: source_log.clone() }));
    let worker = Worker::new(factory, Supervisor::default(), Duration::from_millis(300));
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
