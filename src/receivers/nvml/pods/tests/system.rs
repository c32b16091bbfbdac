//! Whose a part is by the processes of a system, which is a directory here.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

const UID: &str = "a1b2c3d4-0123-4567-89ab-cdef01234567";
const OTHER: &str = "b1b2c3d4-0123-4567-89ab-cdef01234567";

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn process(root: &Path, pid: u32, name: &str, start: u64, cgroup: &str) {
    let directory = root.join(pid.to_string());
    fs::create_dir_all(&directory).unwrap();
    let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 1 0";
    fs::write(directory.join("stat"), format!("{pid} ({name}) {fields} {start} 1000 10 184467\n")).unwrap();
    fs::write(directory.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
}

fn in_pod(uid: &str, container: char) -> String {
    format!("/kubepods/burstable/pod{uid}/{}", id(container))
}

struct System {
    directory: tempfile::TempDir,
    pods: Pods,
    now: Instant,
}

impl System {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for below in ["proc", "log/containers", "log/pods"] {
            fs::create_dir_all(directory.path().join(below)).unwrap();
        }
        let path = |below: &str| directory.path().join(below).to_str().unwrap().to_owned();
        let pods = by_processes(&path("proc"), &path("log"));
        System { directory, pods, now: Instant::now() }
    }

    fn process(&self, pid: u32, name: &str, start: u64, cgroup: &str) {
        process(&self.directory.path().join("proc"), pid, name, start, cgroup);
    }

    fn log(&self, name: &str) {
        fs::write(self.directory.path().join("log/containers").join(name), "").unwrap();
    }

    fn shares(&mut self, reports: &[Report]) -> Vec<String> {
        // Long enough for another look at names.
        self.now += Duration::from_secs(20);
        shown(&self.pods.attribute(self.now, reports))
    }
}

#[test]
fn processes_lead_to_pods() {
    let mut system = System::new();
    system.process(100, "python3", 7, &in_pod(UID, 'a'));
    system.process(101, "a) S 1 (b", 8, &in_pod(OTHER, 'b'));
    system.process(102, "Xorg", 9, "/system.slice/display-manager.service");
    system.log(&format!("train-0_ml_main-{}.log", id('a')));
    let gpu = || device("GPU-0", 0);
    let cases = [
        (runs(gpu(), 100, None, None), vec![format!("GPU-0 ml/train-0/main#{UID} 1.000 - Process")]),
        (runs(gpu(), 101, None, None), vec![format!("GPU-0 //#{OTHER} 1.000 - Process")]),
        (runs(gpu(), 102, None, None), vec!["GPU-0 Host 1.000 - Process".to_owned()]),
        (
            runs(runs(runs(gpu(), 102, None, None), 100, Some(10.0), None), 101, Some(30.0), None),
            vec![
                format!("GPU-0 ml/train-0/main#{UID} 0.250 - Process"),
                format!("GPU-0 //#{OTHER} 0.750 - Process"),
            ],
        ),
        // Gone, or of a system that is not ours.
        (runs(gpu(), 999, None, None), vec!["GPU-0 Unknown 1.000 - None".to_owned()]),
        (runs(runs(gpu(), 999, None, None), 102, None, None), vec!["GPU-0 Host 1.000 - Process".to_owned()]),
        (gpu(), vec!["GPU-0 Unallocated 1.000 - None".to_owned()]),
    ];
    for (report, want) in cases {
        assert_eq!(system.shares(&[report]), want);
    }
}

#[test]
fn a_number_given_anew_is_another_process() {
    let mut system = System::new();
    let report = [runs(device("GPU-0", 0), 100, None, None)];
    system.process(100, "python3", 7, &in_pod(UID, 'a'));
    assert_eq!(system.shares(&report), [format!("GPU-0 //#{UID} 1.000 - Process")]);
    // The same process is not looked at again: its groups do not change.
    system.process(100, "python3", 7, &in_pod(OTHER, 'b'));
    assert_eq!(system.shares(&report), [format!("GPU-0 //#{UID} 1.000 - Process")]);
    system.process(100, "python3", 8, &in_pod(OTHER, 'b'));
    assert_eq!(system.shares(&report), [format!("GPU-0 //#{OTHER} 1.000 - Process")]);
    fs::remove_dir_all(system.directory.path().join("proc/100")).unwrap();
    assert_eq!(system.shares(&report), ["GPU-0 Unknown 1.000 - None"]);
}

#[test]
fn names_come_late_and_from_either_directory() {
    let mut system = System::new();
    let report = [runs(device("GPU-0", 0), 100, None, None)];
    system.process(100, "python3", 7, &in_pod(UID, 'a'));
    assert_eq!(system.shares(&report), [format!("GPU-0 //#{UID} 1.000 - Process")]);
    fs::create_dir(system.directory.path().join(format!("log/pods/ml_train-0_{UID}"))).unwrap();
    assert_eq!(system.shares(&report), [format!("GPU-0 ml/train-0/#{UID} 1.000 - Process")]);
}

#[test]
fn the_server_of_a_shared_gpu_is_nobodys_process() {
    let mut system = System::new();
    system.process(100, "nvidia-cuda-mps", 7, "/system.slice/mps.service");
    system.process(101, "python3", 7, &in_pod(UID, 'a'));
    let gpu = runs(device("GPU-0", 0), 100, Some(90.0), None);
    assert_eq!(system.shares(std::slice::from_ref(&gpu)), ["GPU-0 Unallocated 1.000 - None"]);
    let used = runs(gpu, 101, Some(1.0), None);
    assert_eq!(system.shares(&[used]), [format!("GPU-0 //#{UID} 1.000 - Process")]);
}

#[test]
fn more_processes_than_are_looked_at_leave_the_rest_unknown() {
    let mut system = System::new();
    let mut report = device("GPU-0", 0);
    for pid in 0..1500 {
        system.process(pid, "p", 1, "/user.slice");
        report = runs(report, pid, None, None);
    }
    let mut last = device("GPU-1", 1);
    last = runs(last, 1499, None, None);
    assert_eq!(system.shares(&[report, last]), ["GPU-0 Host 1.000 - Process", "GPU-1 Unknown 1.000 - None"]);
}

#[test]
fn strange_files_are_no_process() {
    let mut system = System::new();
    let directory = system.directory.path().join("proc/100");
    fs::create_dir_all(&directory).unwrap();
    let report = [runs(device("GPU-0", 0), 100, None, None)];
    for stat in [&b""[..], b"100", b"100 (a", b"100 (a) S", b"\xff\xfe", b"100 (a) S 1 2 3 4 5 6 7 8 9 10 x"]
    {
        fs::write(directory.join("stat"), stat).unwrap();
        assert_eq!(system.shares(&report), ["GPU-0 Unknown 1.000 - None"]);
    }
}
