//! The thread that reads GPUs, and the deadline it cannot keep by itself.
//!
//! Calls into the driver have no time limit: one into a sick device may never come back. They are made on a thread that
//! says before each device which one it enters. Whoever waits for it gives it so long for each; when it does not come
//! out in time the thread is given up, its device is left alone, and another thread goes on with the others. A thread
//! that was given up touches nothing more when its call comes back; then its device is tried again. Only so many
//! threads may be stuck, and none other beside one that is stuck with the library itself; until one comes back nothing
//! is read.
//!
//! Commands and messages go through bounded channels. One command is answered by one [`Message::Done`], or by the
//! channel's end when the thread has died.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use tokio::sync::Notify;

use super::derive::{Window, derive};
use super::model::{Closed, Event, EventSink, Factory, Identity, Inventory, Reason, Report, Source, State};
use crate::pipeline::runtime::Supervisor;

/// How many threads may be stuck in the driver at a time.
const MOST_STUCK: usize = 8;
/// How many messages wait for their reader; a thread that is ahead of it by more waits.
const MESSAGES: usize = 64;
/// How many events wait.
const EVENTS: usize = 1024;
/// How long opening the library may take for each device, where nothing holds it open: without the persistence daemon
/// it initialises them. Closing it may take as long.
const OPENING: Duration = Duration::from_secs(60);

/// What came of one collection.
#[derive(Debug, Default)]
pub struct Collected {
    /// The devices that were read, or are known to be lost or hung, by number.
    pub reports: Vec<Report>,
    /// What there is, if the library was opened in this collection.
    pub opened: Option<Inventory>,
    /// Why nothing can be read, if that is so.
    pub closed: Option<Closed>,
}

/// Reads GPUs on threads of its own.
pub struct Worker {
    factory: Factory,
    supervisor: Supervisor,
    timeout: Duration,
    opening: Duration,
    thread: Option<Thread>,
    stuck: Vec<Stuck>,
    inventory: Option<Inventory>,
    /// Who the devices are, by number, as far as that was ever found out.
    known: HashMap<u32, Arc<Identity>>,
    events: (Sender<Event>, Receiver<Event>),
    wake_events: Arc<Notify>,
}

/// A thread that answers. Ends when all clones are gone.
#[derive(Clone)]
struct Thread {
    commands: Sender<Command>,
    messages: Receiver<Message>,
    wake: Arc<Notify>,
    given_up: Arc<AtomicBool>,
    sink: EventSink,
    /// The device it has entered.
    inside: Arc<Inside>,
}

/// The device that a thread is in, and how many it has entered so far.
struct Inside {
    device: AtomicU32,
    entered: AtomicU64,
}

impl Inside {
    const NOWHERE: u32 = u32::MAX;

    fn new() -> Self {
        Inside { device: AtomicU32::new(Self::NOWHERE), entered: AtomicU64::new(0) }
    }

    fn enter(&self, device: u32) {
        self.entered.fetch_add(1, Ordering::AcqRel);
        self.device.store(device, Ordering::Release);
    }

    fn leave(&self) {
        self.device.store(Self::NOWHERE, Ordering::Release);
    }

    fn get(&self) -> Option<u32> {
        Some(self.device.load(Ordering::Acquire)).filter(|&device| device != Self::NOWHERE)
    }

    fn entered(&self) -> u64 {
        self.entered.load(Ordering::Acquire)
    }
}

/// A thread that does not.
struct Stuck {
    /// The device that it is in, and what is known of that: whoever leaves it alone does not find it. Without one it is
    /// the library that does not open or close.
    device: Option<Arc<Identity>>,
    messages: Receiver<Message>,
}

enum Command {
    /// Reads all devices; opens the library first if it is not and that is wanted.
    Collect { open: bool },
    /// Reads what changes fastest.
    Glance,
}

enum Message {
    /// Another device: time begins anew.
    Entering,
    Opened(Inventory),
    Closed(Closed),
    Device(Box<Report>),
    Done,
}

impl Worker {
    /// A worker that has no thread yet. `timeout` is what one device may take.
    pub fn new(factory: Factory, supervisor: Supervisor, timeout: Duration) -> Self {
        Worker {
            factory,
            supervisor,
            timeout,
            opening: timeout.max(OPENING),
            thread: None,
            stuck: Vec::new(),
            inventory: None,
            known: HashMap::new(),
            events: bounded(EVENTS),
            wake_events: Arc::default(),
        }
    }

    /// The events that came since.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        self.events.1.try_iter()
    }

    /// Notified when events come.
    pub fn event_wake(&self) -> Arc<Notify> {
        self.wake_events.clone()
    }

    /// Has power and utilisation read, if the thread is idle.
    pub fn glance(&self) {
        // A thread that is busy has something better to do; and the place of a collection is kept free.
        if let Some(thread) = self.thread.as_ref().filter(|thread| thread.commands.is_empty()) {
            let _ = thread.commands.try_send(Command::Glance);
        }
    }

    /// Reads all devices. `open` allows to open the library if it is not open. Who does not wait for the end of this
    /// must not begin anew, but may [stop](Worker::stop).
    pub async fn collect(&mut self, open: bool) -> Collected {
        let mut collected = Collected::default();
        self.forget_those_that_came_back();
        loop {
            if let Some(message) = self.cannot_go_on() {
                collected.closed = Some(Closed { reason: Reason::Hung, message });
                break;
            }
            // It stays where it is, to be found by whoever does not wait for the end of this.
            let thread = match self.thread.clone().map_or_else(|| self.start(), Ok) {
                Ok(thread) => thread,
                Err(error) => {
                    let message = format!("no thread for reading GPUs: {error}");
                    collected.closed = Some(Closed { reason: Reason::Other, message });
                    break;
                }
            };
            self.thread = Some(thread.clone());
            // A thread that was given up had devices open that the next one must open again.
            let again = self.inventory.is_some();
            let outcome = self.run(&thread, open || again, &mut collected).await;
            if outcome == Outcome::Done {
                break;
            }
            thread.give_up();
            self.thread = None;
            if outcome == Outcome::Died {
                self.inventory = None;
                let message = "the thread that reads GPUs has ended".to_owned();
                collected.closed = Some(Closed { reason: Reason::Other, message });
                break;
            }
            let device = thread.inside.get();
            let identity = device.map(|device| {
                let known = self.known.get(&device).cloned();
                known.unwrap_or_else(|| Arc::new(Identity::unknown(device)))
            });
            self.stuck.push(Stuck { device: identity, messages: thread.messages.clone() });
            // Those before it were read already; the next thread reads them again, which is harmless.
            collected.reports.clear();
            if device.is_none() {
                // What says why nothing can be read is said at the beginning of the next round.
                self.inventory = None;
                continue;
            }
            tracing::warn!(
                device,
                "a call into the GPU driver does not come back; the device is left alone until it does"
            );
        }
        self.add_the_hung(&mut collected);
        collected.reports.sort_by_key(|report| report.identity.index);
        for report in &mut collected.reports {
            derive(report);
        }
        collected
    }

    /// Ends the thread; returns when it has let go of the driver, at the latest at the deadline.
    pub async fn stop(&mut self, deadline: tokio::time::Instant) {
        let Some(thread) = self.thread.take() else { return };
        // What the driver tells while it is let go of is still taken.
        thread.given_up.store(true, Ordering::Release);
        let Thread { commands, messages, wake, sink, .. } = thread;
        drop(commands);
        let gone = async {
            loop {
                match messages.try_recv() {
                    Ok(_) => {}
                    Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) => wake.notified().await,
                }
            }
        };
        if tokio::time::timeout_at(deadline, gone).await.is_err() {
            tracing::warn!("the GPU driver was not let go of in time");
        }
        sink.close();
    }

    /// Why another call into the driver would be one too many.
    fn cannot_go_on(&self) -> Option<String> {
        if self.stuck.iter().any(|stuck| stuck.device.is_none()) {
            // Another thread would wait for the same.
            return Some("opening or closing the GPU driver's library does not come back".to_owned());
        }
        (self.stuck.len() >= MOST_STUCK)
            .then(|| format!("{MOST_STUCK} calls into the driver have not come back"))
    }

    async fn run(&mut self, thread: &Thread, open: bool, collected: &mut Collected) -> Outcome {
        if thread.commands.send(Command::Collect { open }).is_err() {
            return Outcome::Died;
        }
        // Only the first time are devices initialised.
        let mut limit = if self.inventory.is_none() { self.opening } else { self.timeout };
        let mut deadline = tokio::time::Instant::now() + limit;
        let mut entered = thread.inside.entered();
        loop {
            match thread.messages.try_recv() {
                Ok(message) => {
                    match message {
                        Message::Entering => {}
                        Message::Opened(mut inventory) => {
                            let found = inventory.devices.iter();
                            self.known.extend(found.map(|device| (device.index, device.clone())));
                            self.keep_the_hung(&mut inventory);
                            self.inventory = Some(inventory.clone());
                            collected.opened = Some(inventory);
                            // What had ended between two collections has begun anew.
                            collected.closed = None;
                            limit = self.timeout;
                        }
                        Message::Closed(closed) => {
                            self.inventory = None;
                            collected.reports.clear();
                            collected.closed = Some(closed);
                            // Now it closes the library, and may open it anew.
                            limit = self.opening;
                        }
                        Message::Device(report) => {
                            collected.reports.push(*report);
                        }
                        Message::Done => return Outcome::Done,
                    }
                    deadline = tokio::time::Instant::now() + limit;
                    entered = thread.inside.entered();
                }
                Err(TryRecvError::Disconnected) => return Outcome::Died,
                Err(TryRecvError::Empty) => {
                    if tokio::time::timeout_at(deadline, thread.wake.notified()).await.is_err() {
                        // One that has gone on to another device since only had nothing to say.
                        let before = std::mem::replace(&mut entered, thread.inside.entered());
                        if before == entered {
                            return Outcome::Hung;
                        }
                        deadline = tokio::time::Instant::now() + limit;
                    }
                }
            }
        }
    }

    fn start(&self) -> std::io::Result<Thread> {
        let (commands, commanded) = bounded(2);
        let (tell, messages) = bounded(MESSAGES);
        let wake = Arc::new(Notify::new());
        let given_up = Arc::new(AtomicBool::new(false));
        let inside = Arc::new(Inside::new());
        let sink = EventSink::new(self.events.0.clone(), self.wake_events.clone());
        let reader = Reader {
            source: (self.factory)(sink.clone()),
            skip: self.hung().map(|identity| identity.index).collect(),
            open: None,
            windows: HashMap::new(),
            tell: Tell { to: Some(tell), wake: wake.clone() },
            given_up: given_up.clone(),
            inside: inside.clone(),
        };
        self.supervisor.thread("nvml", move || reader.run(&commanded))?;
        Ok(Thread { commands, messages, wake, given_up, sink, inside })
    }

    fn forget_those_that_came_back(&mut self) {
        let before = self.stuck.len();
        self.stuck.retain(|stuck| {
            loop {
                match stuck.messages.try_recv() {
                    Ok(_) => {}
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
        });
        if self.stuck.len() < before {
            tracing::info!("a call into the GPU driver has come back; its device is read again");
            // The thread has been told to skip it.
            if let Some(thread) = self.thread.take() {
                thread.give_up();
            }
        }
    }

    /// The devices that calls do not come back from.
    fn hung(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.stuck.iter().filter_map(|stuck| stuck.device.as_ref())
    }

    /// A device that does not answer is still there.
    fn keep_the_hung(&mut self, inventory: &mut Inventory) {
        for identity in self.stuck.iter_mut().filter_map(|stuck| stuck.device.as_mut()) {
            // Numbers may have changed since it was met.
            if inventory.devices.iter().any(|d| d.uuid == identity.uuid && d.index != identity.index) {
                *identity = Arc::new(Identity::unknown(identity.index));
            }
            if !inventory.devices.iter().any(|device| device.index == identity.index) {
                inventory.devices.push(identity.clone());
            }
        }
        inventory.devices.sort_by_key(|device| device.index);
    }

    fn add_the_hung(&self, collected: &mut Collected) {
        if self.inventory.is_none() {
            return;
        }
        for identity in self.hung() {
            if !collected.reports.iter().any(|report| report.identity.index == identity.index) {
                collected.reports.push(Report::bare(identity.clone(), State::Hung));
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    Hung,
    Died,
}

impl Thread {
    /// Tells the thread to touch nothing any more.
    fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.sink.close();
    }
}

/// What the thread has.
struct Reader {
    source: Box<dyn Source>,
    skip: Vec<u32>,
    open: Option<Inventory>,
    windows: HashMap<u32, Window>,
    tell: Tell,
    given_up: Arc<AtomicBool>,
    inside: Arc<Inside>,
}

/// Messages out of the thread; whoever waits wakes up, also when the thread ends.
struct Tell {
    to: Option<Sender<Message>>,
    wake: Arc<Notify>,
}

impl Tell {
    /// `false` when nobody listens.
    fn say(&self, message: Message) -> bool {
        let heard = self.to.as_ref().is_some_and(|to| to.send(message).is_ok());
        self.wake.notify_one();
        heard
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        // The channel ends before the waiter looks.
        self.to = None;
        self.wake.notify_one();
    }
}

impl Reader {
    fn run(mut self, commands: &Receiver<Command>) {
        for command in commands {
            if self.is_given_up() {
                break;
            }
            match command {
                Command::Collect { open } => {
                    self.collect(open);
                    self.tell.say(Message::Done);
                }
                Command::Glance => self.glance(),
            }
        }
        if self.open.is_some() {
            self.source.close();
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    fn collect(&mut self, open: bool) {
        if self.open.is_none() {
            if !open {
                return;
            }
            let (tell, inside) = (&self.tell, &self.inside);
            let opened = self.source.open(&self.skip, &mut |device| {
                inside.enter(device);
                tell.say(Message::Entering);
            });
            self.inside.leave();
            match opened {
                Ok(inventory) => {
                    self.tell.say(Message::Opened(inventory.clone()));
                    self.open = Some(inventory);
                }
                Err(closed) => {
                    self.tell.say(Message::Closed(closed));
                    return;
                }
            }
        }
        for device in self.devices() {
            if self.is_given_up() {
                return;
            }
            self.inside.enter(device);
            self.tell.say(Message::Entering);
            let read = self.source.read(device, Instant::now());
            self.inside.leave();
            match read {
                Ok(mut report) => {
                    let window = self.windows.remove(&device);
                    if let Some(window) = window.filter(|_| report.state == State::Readable) {
                        window.put(&mut report.samples);
                    }
                    self.tell.say(Message::Device(Box::new(report)));
                }
                Err(closed) => return self.close(closed),
            }
        }
    }

    fn glance(&mut self) {
        for device in self.devices() {
            if self.is_given_up() {
                return;
            }
            self.inside.enter(device);
            let glance = self.source.glance(device);
            self.inside.leave();
            match glance {
                Ok(glance) => self.windows.entry(device).or_default().add(glance),
                Err(closed) => return self.close(closed),
            }
        }
    }

    fn close(&mut self, closed: Closed) {
        // First: giving things back may take its time, or not come back either.
        self.tell.say(Message::Closed(closed));
        self.source.close();
        self.open = None;
        self.windows.clear();
    }

    fn devices(&self) -> Vec<u32> {
        let devices = self.open.iter().flat_map(|inventory| &inventory.devices);
        devices.map(|identity| identity.index).filter(|index| !self.skip.contains(index)).collect()
    }
}

#[cfg(test)]
mod tests;
