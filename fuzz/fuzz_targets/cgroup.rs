//! The control groups of a process, of any bytes: what comes out stands in them, and is a uid and a container's id.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::receivers::nvml::pods::cgroup::{Place, place};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Place::Pod { uid, container } = place(&text) else { return };
    assert!(uid.is_some() || container.is_some());
    if let Some(uid) = uid {
        assert!(uid.len() == 32 || uid.len() == 36);
        assert!(uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'));
        assert!(text.contains(&format!("pod{uid}")) || text.contains(&format!("pod{}", uid.replace('-', "_"))));
    }
    if let Some(id) = container {
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(text.contains(&id));
    }
});
