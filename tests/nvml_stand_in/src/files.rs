//! The scenario as a file, for agents that are processes of their own.
//!
//! The file is the one that `TIDEGATE_STAND_IN` names, else the one beside the library, `<library>.json`. It is read
//! again whenever it looks different; write it under another name and rename it. At each shutdown the counts go to
//! `<file>.stats`.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::scenario::Scenario;

/// Names the scenario file.
pub const VARIABLE: &str = "TIDEGATE_STAND_IN";

/// The scenario file that belongs to a copy of the library.
pub fn beside(library: &Path) -> PathBuf {
    with_suffix(library, ".json")
}

/// Where a copy writes its counts at shutdown.
pub fn stats_beside(library: &Path) -> PathBuf {
    with_suffix(&beside(library), ".stats")
}

/// The file that drives this copy, if there is one.
pub(crate) fn scenario_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Some(PathBuf::from(path));
    }
    let path = beside(&own_path()?);
    path.exists().then_some(path)
}

/// What tells one version of a file from the next.
pub(crate) fn signature(path: &Path) -> Option<(SystemTime, u64, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

pub(crate) fn read(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

pub(crate) fn write_stats(scenario: &Path, stats: &Value) {
    // Nobody to tell: the test that wants the file finds none.
    let _ = replace(&with_suffix(scenario, ".stats"), stats.to_string().as_bytes());
}

/// Puts a file in place whole, so that a reader sees the old or the new one.
pub fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = with_suffix(path, ".new");
    std::fs::write(&new, content)?;
    std::fs::rename(new, path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Where this library was loaded from.
fn own_path() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked for; the answer is written to `info`, and its name lives as long as the library.
    let name = unsafe {
        let here = own_path as fn() -> Option<PathBuf> as *const libc::c_void;
        if libc::dladdr(here, info.as_mut_ptr()) == 0 {
            return None;
        }
        let name = info.assume_init().dli_fname;
        if name.is_null() {
            return None;
        }
        CStr::from_ptr(name)
    };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}
