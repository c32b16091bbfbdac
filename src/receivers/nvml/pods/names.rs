//! The names of containers, from the names of their log files.
//!
//! The kubelet does not tell which pod a container id or a pod's uid belongs to, except to those who may read the whole
//! API. But it puts every container's log where agents look for it, and names it:
//!
//! * `containers/<pod>_<namespace>_<container>-<64 hex>.log`
//! * `pods/<namespace>_<pod>_<uid>/`
//!
//! Neither namespaces nor pods nor containers can have an underscore in their names, so these can be taken apart again. Only
//! the names in the directories are read, only when somebody is looked for who is not known yet, and at most so often.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The least time between two looks into the directories.
const REST: Duration = Duration::from_secs(10);
/// Entries of a directory that are looked at: a node has hundreds.
const MOST_ENTRIES: usize = 100_000;

/// Where the logs are.
#[derive(Debug)]
pub(super) struct Names {
    root: PathBuf,
    looked: Option<Instant>,
}

/// Somebody to look for, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The pod's uid.
    pub uid: Option<String>,
    /// The container's id.
    pub id: Option<String>,
    /// Namespace, pod and container; the container is empty where only the pod was found.
    pub found: Option<[String; 3]>,
}

impl Names {
    /// Logs below this directory; empty: nowhere.
    pub fn new(root: &str) -> Self {
        Names { root: root.into(), looked: None }
    }

    /// Looks for all of them, unless that was done a moment ago: then it is `false`, and to be tried again.
    pub fn look(&mut self, now: Instant, wanted: &mut [Wanted]) -> bool {
        if self.looked.is_some_and(|at| now.saturating_duration_since(at) < REST) {
            return false;
        }
        self.looked = Some(now);
        if self.root.as_os_str().is_empty() {
            return true;
        }
        each(&self.root.join("containers"), |name| {
            let Some((id, names)) = container(name) else { return };
            if let Some(one) = wanted.iter_mut().find(|w| w.id.as_deref() == Some(id)) {
                one.found = Some(names.map(str::to_owned));
            }
        });
        if wanted.iter().all(|w| w.found.is_some()) {
            return true;
        }
        each(&self.root.join("pods"), |name| {
            let Some((uid, [namespace, pod])) = self::pod(name) else { return };
            for one in wanted.iter_mut().filter(|w| w.found.is_none() && w.uid.as_deref() == Some(uid)) {
                one.found = Some([namespace.to_owned(), pod.to_owned(), String::new()]);
            }
        });
        true
    }
}

fn each(directory: &Path, mut f: impl FnMut(&str)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.take(MOST_ENTRIES).flatten() {
        if let Some(name) = entry.file_name().to_str() {
            f(name);
        }
    }
}

/// The container's id, and namespace, pod and container, of the name of a log.
fn container(name: &str) -> Option<(&str, [&str; 3])> {
    let (rest, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = rest.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some((id, [namespace, pod, container]))
}

/// The uid, and namespace and pod, of the name of a pod's directory.
fn pod(name: &str) -> Option<(&str, [&str; 2])> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some((uid, [namespace, pod]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(container("train-0_ml_main-c0ffee.log"), Some(("c0ffee", ["ml", "train-0", "main"])));
        assert_eq!(container("a.b-c_ns-1_side-car-01ab.log"), Some(("01ab", ["ns-1", "a.b-c", "side-car"])));
        for strange in ["", "x.log", "a_b.log", "a_b_c.log", "a_b_c_d-1.log", "a_b_c-1.txt"] {
            assert_eq!(container(strange), None, "{strange}");
        }
        assert_eq!(pod("ml_train-0_a1b2"), Some(("a1b2", ["ml", "train-0"])));
        for strange in ["", "ml", "ml_train", "a_b_c_d"] {
            assert_eq!(pod(strange), None, "{strange}");
        }
    }

    #[test]
    fn who_is_looked_for_is_found_once_in_a_while() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["containers", "pods"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("containers/train_ml_main-11.log"), "").unwrap();
        fs::create_dir(root.path().join("pods/ml_infer_u2")).unwrap();
        let want = |uid: &str, id: &str| Wanted { uid: Some(uid.into()), id: Some(id.into()), found: None };
        let mut names = Names::new(root.path().to_str().unwrap());
        let mut wanted = [want("u1", "11"), want("u2", "22"), want("u3", "33")];
        let start = Instant::now();
        assert!(names.look(start, &mut wanted));
        let found = wanted.clone().map(|w| w.found.map(|names| names.join("/")));
        assert_eq!(found, [Some("ml/train/main".into()), Some("ml/infer/".into()), None]);

        fs::create_dir(root.path().join("pods/ml_late_u3")).unwrap();
        assert!(!names.look(start + REST / 2, &mut wanted[2..]));
        assert!(names.look(start + REST, &mut wanted[2..]));
        assert_eq!(wanted[2].found, Some(["ml".into(), "late".into(), String::new()]));
    }

    #[test]
    fn nowhere_to_look_finds_nobody() {
        for root in ["", "/nonexistent/logs"] {
            let mut wanted = [Wanted { uid: Some("u".into()), ..Wanted::default() }];
            assert!(Names::new(root).look(Instant::now(), &mut wanted));
            assert_eq!(wanted[0].found, None);
        }
    }
}
