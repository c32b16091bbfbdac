//! From a process on a GPU to the container it runs in, by what the system says of the process.
//!
//! What was found is kept for as long as the process lives: its number and the time it started are looked at each time,
//! so a number that was given anew is a process not seen before. What no report speaks of any more is forgotten. In each
//! round at most [`MOST_LOOKS`] processes are looked at; what is beyond is not known in this round.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::cgroup::{self, Place};
use super::names::{Names, Wanted};
use crate::receivers::nvml::config::ProcessesConfig;
use crate::receivers::nvml::holders::Holder;

/// Processes looked at in one round: each costs some ten microseconds.
const MOST_LOOKS: usize = 1024;
/// What is read of a file: groups have a line a hierarchy.
const MOST_BYTES: u64 = 16 << 10;
/// Rounds without any process found after which that is no accident.
const STRANGE_ROUNDS: u32 = 3;
/// What the server of the multi-process service is called; it works for its clients, which are listed themselves.
const MPS: &str = "nvidia-cuda-mps";

/// Whose a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// A container's.
    Pod(Arc<Holder>),
    /// Nobody's in a pod.
    Host,
    /// It works for others, who are listed too.
    Service,
    /// There is no such process here, or not any more, or it may not be read.
    Unknown,
}

/// Processes seen.
#[derive(Debug)]
pub(super) struct Processes {
    root: PathBuf,
    names: Names,
    known: HashMap<u32, Known>,
    /// Counts rounds.
    round: u64,
    looks: usize,
    full: bool,
    /// Rounds in a row in which none of the processes was there; none after that was said.
    strange: Option<u32>,
}

#[derive(Debug)]
struct Known {
    /// When it started, in ticks since the system did.
    start: u64,
    place: Place,
    who: Who,
    /// Whether its names are still to be found.
    nameless: bool,
    round: u64,
}

impl Processes {
    /// Processes below the configured root.
    pub fn new(config: &ProcessesConfig) -> Self {
        Processes {
            root: config.root.clone().into(),
            names: Names::new(&config.logs),
            known: HashMap::new(),
            round: 0,
            looks: 0,
            full: false,
            strange: Some(0),
        }
    }

    /// Looks at these processes: what [`Processes::who`] says until the next round.
    pub fn round(&mut self, now: Instant, pids: impl Iterator<Item = u32>) {
        self.round += 1;
        self.looks = 0;
        for pid in pids {
            self.look(pid);
        }
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        let full = self.looks > MOST_LOOKS;
        if full && !std::mem::replace(&mut self.full, full) {
            tracing::warn!(
                most = MOST_LOOKS,
                "more processes on the GPUs than are looked at in one collection"
            );
        }
        self.full = full;
        self.notice_strangers();
        self.find_names(now);
    }

    /// Says once that these are not the processes of the host.
    fn notice_strangers(&mut self) {
        if self.looks == 0 {
            return;
        }
        let Some(rounds) = &mut self.strange else { return };
        *rounds = if self.known.is_empty() { *rounds + 1 } else { 0 };
        if *rounds >= STRANGE_ROUNDS {
            self.strange = None;
            tracing::warn!(
                root = %self.root.display(),
                hint = "set hostPID: true, or mount the host's /proc and name it in processes: {root: …}",
                "none of the processes on the GPUs is there: their pods cannot be found"
            );
        }
    }

    /// Whose it is, if it was looked at in this round.
    pub fn who(&self, pid: u32) -> Who {
        self.known.get(&pid).map_or(Who::Unknown, |known| known.who.clone())
    }

    fn look(&mut self, pid: u32) {
        let round = self.round;
        if self.known.get(&pid).is_some_and(|known| known.round == round) {
            return;
        }
        self.looks += 1;
        if self.looks > MOST_LOOKS {
            return;
        }
        let Some((start, service)) = self.stat(pid) else { return };
        if let Some(known) = self.known.get_mut(&pid).filter(|known| known.start == start) {
            known.round = round;
            return;
        }
        let Some(text) = self.read(pid, "cgroup") else { return };
        // The number may have been given anew in between.
        if self.stat(pid).is_none_or(|(now, _)| now != start) {
            return;
        }
        let place = cgroup::place(&text);
        let (who, nameless) = match &place {
            _ if service => (Who::Service, false),
            Place::Outside => (Who::Host, false),
            Place::Pod { uid, .. } => (nameless(uid.as_deref()), true),
        };
        self.known.insert(pid, Known { start, place, who, nameless, round });
    }

    /// Gives names to those that have none yet.
    fn find_names(&mut self, now: Instant) {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut whose: Vec<Vec<u32>> = Vec::new();
        for (&pid, known) in self.known.iter().filter(|(_, known)| known.nameless) {
            let Place::Pod { uid, container } = &known.place else { continue };
            match wanted.iter().zip(&mut whose).find(|(w, _)| w.uid == *uid && w.id == *container) {
                Some((_, pids)) => pids.push(pid),
                None => {
                    wanted.push(Wanted { uid: uid.clone(), id: container.clone(), found: None });
                    whose.push(vec![pid]);
                }
            }
        }
        if wanted.is_empty() || !self.names.look(now, &mut wanted) {
            return;
        }
        for (one, pids) in wanted.into_iter().zip(whose) {
            let Some([namespace, pod, container]) = one.found else { continue };
            let holder = Arc::new(Holder { namespace, pod, container, uid: one.uid });
            for pid in pids {
                if let Some(known) = self.known.get_mut(&pid) {
                    known.who = Who::Pod(holder.clone());
                    known.nameless = false;
                }
            }
        }
    }

    /// When a process started, and whether it is a service to others.
    fn stat(&self, pid: u32) -> Option<(u64, bool)> {
        stat(&self.read(pid, "stat")?)
    }

    fn read(&self, pid: u32, file: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.root.join(pid.to_string()).join(file)).ok()?;
        file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        // A name may be any bytes.
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A pod of which only the uid is known; without even that it cannot be told from others.
fn nameless(uid: Option<&str>) -> Who {
    let holder = |uid: &str| Holder {
        namespace: String::new(),
        pod: String::new(),
        container: String::new(),
        uid: Some(uid.to_owned()),
    };
    uid.map_or(Who::Unknown, |uid| Who::Pod(Arc::new(holder(uid))))
}

/// The time of start, field 22, and what the name says. The name is the second field, in parentheses, and may hold
/// parentheses and spaces itself.
fn stat(text: &str) -> Option<(u64, bool)> {
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let start = after.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some((start, name.starts_with(MPS)))
}
