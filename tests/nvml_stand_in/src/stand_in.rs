//! The safe side, for tests: a copy of the library, and how to drive it.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::files;
use crate::scenario::{Event, Scenario};

/// The shared object as cargo names it, beside the test executable.
const BUILT: &str = "libnvml_stand_in.so";

/// The name a driver gives it.
const NAME: &str = "libnvidia-ml.so.1";

/// A copy of the library with a state of its own, in a directory of its own, gone when dropped.
///
/// Dropping it lets go of every call that hangs.
pub struct StandIn {
    dir: tempfile::TempDir,
    scenario: Mutex<Scenario>,
    control: Option<Control>,
}

/// What a copy counted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Stats {
    /// Calls by symbol, and by `field/<id>` and `gpm/<id>`.
    pub calls: BTreeMap<String, u64>,
    /// What callers did wrong, `<symbol>: <what>`.
    pub misuse: Vec<String>,
    /// Inits that no shutdown has taken back.
    pub up: u32,
    /// How often it went from down to up.
    pub generation: u32,
    /// Successful inits.
    pub inits: u64,
    /// Successful shutdowns.
    pub shutdowns: u64,
    /// Not freed.
    pub event_sets: usize,
    /// Not freed.
    pub gpm_samples: usize,
    /// Events that no set was registered for when they came.
    pub events_missed: u64,
    /// Calls inside a delay or a hang just now.
    pub hanging: u64,
    /// Threads that ever called.
    pub threads: usize,
}

impl Stats {
    /// How often a symbol was called.
    pub fn called(&self, key: &str) -> u64 {
        self.calls.get(key).copied().unwrap_or_default()
    }
}

impl StandIn {
    /// A copy that is open in this process and driven directly.
    pub fn new(scenario: Scenario) -> StandIn {
        let mut made = StandIn::make(scenario);
        made.control = Some(Control::open(&made.path()));
        made.tell();
        made
    }

    /// A copy that nobody has open, driven through a file beside it: for an agent as a process of its own, and for
    /// [`replace`](Self::replace).
    pub fn detached(scenario: Scenario) -> StandIn {
        let made = StandIn::make(scenario);
        made.tell();
        made
    }

    fn make(scenario: Scenario) -> StandIn {
        let dir = tempfile::Builder::new().prefix("nvml").tempdir().expect("a temporary directory");
        copy(&dir.path().join(NAME), &scenario);
        StandIn { dir, scenario: Mutex::new(scenario), control: None }
    }

    /// Where the copy lies; what an agent's `library_path` is to be.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    /// The directory of the copy, empty but for it and its scenario.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What is answered now.
    pub fn scenario(&self) -> Scenario {
        self.scenario.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is answered, all at once, and wakes calls that wait.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Scenario) -> T) {
        change(&mut self.scenario.lock().unwrap_or_else(PoisonError::into_inner));
        self.tell();
    }

    /// One more event.
    pub fn push(&self, event: Event) {
        self.edit(|scenario| scenario.events.push(event));
    }

    /// Puts a new file in the place of the copy, as an upgrade of the driver does: who has the old one open keeps it.
    /// Hidden symbols are those of the scenario as it is now.
    ///
    /// # Panics
    ///
    /// If the copy is open here: the new file would never be loaded.
    pub fn replace(&self) {
        assert!(self.control.is_none(), "a copy that is open here cannot be replaced; use `detached`");
        copy(&self.path(), &self.scenario());
    }

    /// Takes the library away, or puts it back.
    pub fn remove(&self, gone: bool) {
        if gone {
            std::fs::remove_file(self.path()).expect("the copy is there");
        } else {
            copy(&self.path(), &self.scenario());
        }
    }

    /// What was counted. Of a detached copy, at the last shutdown; all zero before.
    pub fn stats(&self) -> Stats {
        let text = match &self.control {
            Some(control) => control.stats(),
            None => std::fs::read_to_string(files::stats_beside(&self.path())).unwrap_or_default(),
        };
        if text.is_empty() { Stats::default() } else { serde_json::from_str(&text).expect("our own JSON") }
    }

    /// How often a symbol was called.
    pub fn calls(&self, key: &str) -> u64 {
        self.stats().called(key)
    }

    /// Waits until a symbol was called so often in all; also `field/<id>`, `gpm/<id>`, `inits`, `shutdowns` and
    /// `hanging`. False if that does not happen in time.
    ///
    /// # Panics
    ///
    /// If the copy is detached.
    pub fn wait_calls(&self, key: &str, count: u64, within: Duration) -> bool {
        let control = self.control.as_ref().expect("a detached copy cannot be waited for");
        control.wait(key, count, within)
    }

    /// Waits until a symbol is called again, so many times.
    ///
    /// # Panics
    ///
    /// If the copy is detached.
    pub fn wait_more_calls(&self, key: &str, more: u64, within: Duration) -> bool {
        self.wait_calls(key, self.calls(key) + more, within)
    }

    fn tell(&self) {
        let text = serde_json::to_string(&self.scenario()).expect("plain data");
        match &self.control {
            Some(control) => control.load(&text),
            None => {
                files::replace(&files::beside(&self.path()), text.as_bytes())
                    .expect("writes to its own directory");
            }
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        match &self.control {
            Some(control) => control.close(),
            // Without faults, what hangs in another process goes on.
            None => self.edit(|scenario| {
                scenario.faults.clear();
                scenario.devices.iter_mut().for_each(|device| device.faults.clear());
            }),
        }
    }
}

/// Writes a copy of the library without the hidden symbols, under a new inode.
fn copy(to: &Path, scenario: &Scenario) {
    let beside = std::env::current_exe().expect("a test has an executable");
    let places =
        beside.ancestors().skip(1).take(2).flat_map(|dir| [dir.join(BUILT), dir.join("deps").join(BUILT)]);
    let built = places.clone().find(|path| path.exists());
    let built = built.unwrap_or_else(|| panic!("{BUILT} is in none of {:?}", places.collect::<Vec<_>>()));
    let mut file = std::fs::read(&built).expect("the library can be read");
    if let Err(e) = crate::elf::hide(&mut file, &scenario.hidden) {
        panic!("{}: {e}", built.display());
    }
    files::replace(to, &file).expect("writes to its own directory");
}

/// The control functions of a copy that is open here.
struct Control {
    library: *mut c_void,
    load: unsafe extern "C" fn(*const c_char) -> i32,
    stats: extern "C" fn() -> *mut c_char,
    free: unsafe extern "C" fn(*mut c_char),
    wait: unsafe extern "C" fn(*const c_char, u64, u64) -> i32,
    close: extern "C" fn(),
}

// SAFETY: the library guards its state with a lock; the pointers are read only.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    fn open(path: &Path) -> Control {
        let name = CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path");
        // SAFETY: the library is ours; its types are those of the functions in `ffi::control`.
        unsafe {
            let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            if library.is_null() {
                panic!("{}", CStr::from_ptr(libc::dlerror()).to_string_lossy());
            }
            let symbol = |name: &CStr| {
                let found = libc::dlsym(library, name.as_ptr());
                assert!(!found.is_null(), "{name:?}");
                found
            };
            Control {
                library,
                load: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> i32>(symbol(
                    c"tidegate_stand_in_load",
                )),
                stats: std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_char>(symbol(
                    c"tidegate_stand_in_stats",
                )),
                free: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_char)>(symbol(
                    c"tidegate_stand_in_free",
                )),
                wait: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char, u64, u64) -> i32>(
                    symbol(c"tidegate_stand_in_wait"),
                ),
                close: std::mem::transmute::<*mut c_void, extern "C" fn()>(symbol(
                    c"tidegate_stand_in_close",
                )),
            }
        }
    }

    fn load(&self, scenario: &str) {
        let text = CString::new(scenario).expect("no NUL in JSON");
        // SAFETY: a text that ends with a NUL.
        assert_eq!(unsafe { (self.load)(text.as_ptr()) }, 0, "the scenario was refused");
    }

    fn stats(&self) -> String {
        let text = (self.stats)();
        // SAFETY: a text that ends with a NUL, ours until it is given back.
        unsafe {
            let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
            (self.free)(text);
            owned
        }
    }

    fn wait(&self, key: &str, count: u64, within: Duration) -> bool {
        let key = CString::new(key).expect("no NUL in a name");
        // SAFETY: a text that ends with a NUL.
        unsafe { (self.wait)(key.as_ptr(), count, within.as_millis() as u64) == 1 }
    }

    fn close(&self) {
        (self.close)();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; who else has it open keeps it loaded.
        unsafe { libc::dlclose(self.library) };
    }
}
