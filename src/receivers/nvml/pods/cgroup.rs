//! From the control groups of a process to the pod and container it runs in.
//!
//! | who makes the groups | path |
//! |---|---|
//! | systemd | `…/kubepods-<qos>-pod<uid with _>.slice/<runtime>-<64 hex>.scope` |
//! | cgroupfs | `…/kubepods/<qos>/pod<uid>/<64 hex>` |
//! | a runtime told otherwise than its kubelet | `…/kubepods-<qos>-pod<uid with _>.slice:cri-containerd:<64 hex>` |
//!
//! Guaranteed pods have no level of their quality of service. Seen from a container the beginning may be missing and
//! `/../` stand in its place, so only the end of a path counts. What comes below a container (another container engine,
//! an init system) is that container.

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a pod.
    Pod {
        /// The pod's uid, with dashes; of a static pod the hash of its file. `None` for a neighbour in our own pod, of
        /// which one sees only the container.
        uid: Option<String>,
        /// The id of the container.
        container: Option<String>,
    },
    /// Not in any pod.
    Outside,
}

/// Reads the text of `/proc/<pid>/cgroup`.
pub fn place(text: &str) -> Place {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.map(of_path).find(|place| *place != Place::Outside).unwrap_or(Place::Outside)
}

fn of_path(path: &str) -> Place {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    while let Some(part) = parts.next() {
        if let Some((uid, rest)) = pod(part) {
            let container = match rest {
                Some(id) => Some(id),
                None => parts.find(|part| !is_monitor(part)).and_then(container),
            };
            return Place::Pod { uid: Some(uid), container: container.map(str::to_owned) };
        }
    }
    // A sibling in our own pod.
    match path.strip_prefix("/../").and_then(|rest| rest.split('/').next()).and_then(container) {
        Some(id) => Place::Pod { uid: None, container: Some(id.to_owned()) },
        None => Place::Outside,
    }
}

/// The uid in one part of a path, and the container's id where it stands in the same part.
fn pod(part: &str) -> Option<(String, Option<&str>)> {
    if let Some(uid) = part.strip_prefix("pod").filter(|uid| is_uid(uid, '-')) {
        return Some((uid.to_owned(), None));
    }
    let (slice, rest) = part.split_once(".slice")?;
    let (above, uid) = slice.rsplit_once("-pod")?;
    if !above.contains("kubepods") || !is_uid(uid, '_') {
        return None;
    }
    let container = match rest {
        "" => None,
        rest => Some(rest.rsplit_once(':').map(|(_, id)| id).filter(|id| is_container(id))?),
    };
    Some((uid.replace('_', "-"), container))
}

/// A uid is a UUID with `dash` between its parts, or 32 hex digits.
fn is_uid(text: &str, dash: char) -> bool {
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
    match text.len() {
        32 => hex(text),
        36 => {
            let mut lengths = [8, 4, 4, 4, 12].into_iter();
            text.split(dash).all(|part| lengths.next() == Some(part.len()) && hex(part))
                && lengths.next().is_none()
        }
        _ => false,
    }
}

/// The id in the name of a container's group: alone, or between the runtime's name and `.scope`.
fn container(part: &str) -> Option<&str> {
    let id = match part.strip_suffix(".scope") {
        Some(scope) => scope.rsplit_once('-').map_or(scope, |(_, id)| id),
        None => part,
    };
    (is_container(id) && !is_monitor(part)).then_some(id)
}

fn is_container(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// CRI-O's monitor of a container stands beside it under the container's own id.
fn is_monitor(part: &str) -> bool {
    part.starts_with("crio-conmon-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "a1b2c3d4-0123-4567-89ab-cdef01234567";
    const SLICE: &str = "a1b2c3d4_0123_4567_89ab_cdef01234567";
    const STATIC: &str = "0123456789abcdef0123456789abcdef";
    const ID: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

    #[test]
    fn every_layout_is_understood() {
        let in_pod = Some((Some(UID), Some(ID)));
        let static_pod = Some((Some(STATIC), Some(ID)));
        let cases = [
            // systemd, cgroup v2, each runtime and quality of service.
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope\n"
                ),
                in_pod,
            ),
            (
                format!(
                    "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/crio-{ID}.scope"
                ),
                in_pod,
            ),
            (format!("0::/kubepods.slice/kubepods-pod{SLICE}.slice/docker-{ID}.scope\n"), in_pod),
            (
                format!("0::/kubepods.slice/kubepods-pod{STATIC}.slice/cri-containerd-{ID}.scope\n"),
                static_pod,
            ),
            // The kubelet's groups below others.
            (
                format!(
                    "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope\n"
                ),
                in_pod,
            ),
            // cgroupfs, v2.
            (format!("0::/kubepods/burstable/pod{UID}/{ID}\n"), in_pod),
            (format!("0::/kubepods/pod{UID}/{ID}\n"), in_pod),
            (format!("0::/kubepods/besteffort/pod{STATIC}/{ID}\n"), static_pod),
            // v1: a line a hierarchy, of which some are not the pod's.
            (
                format!(
                    "13:name=systemd:/\n12:pids:/kubepods/burstable/pod{UID}/{ID}\n11:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n"
                ),
                in_pod,
            ),
            (
                format!(
                    "5:memory:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/docker-{ID}.scope\n0::/system.slice\n"
                ),
                in_pod,
            ),
            // Seen from another container.
            (format!("0::/../../kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope\n"), in_pod),
            (format!("0::/../../../besteffort/pod{UID}/{ID}\n"), in_pod),
            (format!("0::/../../pod{UID}/{ID}\n"), in_pod),
            (format!("0::/../cri-containerd-{ID}.scope\n"), Some((None, Some(ID)))),
            (format!("0::/../{ID}/init.scope\n"), Some((None, Some(ID)))),
            // Runtime and kubelet of two minds.
            (
                format!(
                    "0::/system.slice/containerd.service/kubepods-burstable-pod{SLICE}.slice:cri-containerd:{ID}\n"
                ),
                in_pod,
            ),
            // Below a container.
            (format!("0::/kubepods/pod{UID}/{ID}/docker/{}\n", "d".repeat(64)), in_pod),
            (
                format!(
                    "0::/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{ID}.scope/container/system.slice/a.service\n"
                ),
                in_pod,
            ),
            // A pod without a container, or with its monitor.
            (format!("0::/kubepods.slice/kubepods-pod{SLICE}.slice\n"), Some((Some(UID), None))),
            (
                format!("0::/kubepods.slice/kubepods-pod{SLICE}.slice/crio-conmon-{ID}.scope\n"),
                Some((Some(UID), None)),
            ),
            // No pod.
            ("0::/\n".into(), None),
            ("0::/user.slice/user-1000.slice/session-2.scope\n".into(), None),
            (format!("0::/system.slice/docker-{ID}.scope\n"), None),
            (format!("0::/docker/{ID}\n"), None),
            ("0::/system.slice/kubelet.service\n".into(), None),
            ("0::/system.slice/podman.service\n".into(), None),
            (format!("0::/kubepods.slice/kubepods-pod{}.slice/x\n", &SLICE[1..]), None),
            (format!("0::/kubepods.slice/kubepods-pod{SLICE}.slice.d/x\n"), None),
            (format!("0::/other-pod{SLICE}.slice/crio-{ID}.scope\n"), None),
            (String::new(), None),
            ("nonsense".into(), None),
            ("1:2".into(), None),
        ];
        for (text, want) in cases {
            let want = want.map_or(Place::Outside, |(uid, id): (Option<&str>, Option<&str>)| Place::Pod {
                uid: uid.map(str::to_owned),
                container: id.map(str::to_owned),
            });
            assert_eq!(place(&text), want, "{text}");
        }
    }
}
