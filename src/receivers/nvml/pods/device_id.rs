//! The names that device plugins give to GPUs.
//!
//! | form | what it is |
//! |---|---|
//! | `GPU-<uuid>` | a GPU |
//! | `MIG-<uuid>` | a MIG instance |
//! | `MIG-GPU-<uuid>/<gi>/<ci>` | a MIG instance, as drivers before 470 named it |
//! | `nvidia<N>`, `nvidia<N>/gi<M>` | GPU or GPU instance by minor number, as Google's plugin names them |
//! | `<index>` | a GPU by number, where the plugin is told to do so |
//! | any of these and `::<n>`, or `/vgpu<n>` | one of several that share it |

/// Longer than any id.
const LONGEST: usize = 128;

/// Which device an id is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Base {
    /// A GPU's UUID, or a MIG instance's: they begin with different words.
    Uuid(Box<str>),
    /// GPU, GPU instance, compute instance.
    OldMig(Box<str>, u32, u32),
    /// N of `/dev/nvidiaN`, and the GPU instance under MIG.
    Minor(u32, Option<u32>),
    /// NVML's number.
    Index(u32),
}

/// A device id, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// The device.
    pub base: Base,
    /// Which of those that share it.
    pub replica: Option<u32>,
}

impl DeviceId {
    /// Takes an id apart; `None` if it is of no form that is known. A bare number is a GPU only where `resource`
    /// [speaks of GPUs](speaks_of_gpus): other plugins number their devices too.
    pub fn parse(resource: &str, id: &str) -> Option<DeviceId> {
        if id.len() > LONGEST {
            return None;
        }
        let (base, replica) = match id.split_once("::") {
            Some((base, replica)) => (base, Some(number(replica)?)),
            None => match id.split_once("/vgpu") {
                Some((base, replica)) if base.starts_with("nvidia") => (base, Some(number(replica)?)),
                _ => (id, None),
            },
        };
        let base = if let Some(old) = base.strip_prefix("MIG-GPU-") {
            let mut parts = old.split('/');
            let (uuid, gi, ci) = (parts.next()?, number(parts.next()?)?, number(parts.next()?)?);
            if parts.next().is_some() || !is_uuid(uuid) {
                return None;
            }
            Base::OldMig(format!("GPU-{uuid}").into(), gi, ci)
        } else if let Some(uuid) = base.strip_prefix("GPU-").or_else(|| base.strip_prefix("MIG-")) {
            is_uuid(uuid).then(|| Base::Uuid(base.into()))?
        } else if let Some(minor) = base.strip_prefix("nvidia") {
            match minor.split_once("/gi") {
                Some((minor, gi)) => Base::Minor(number(minor)?, Some(number(gi)?)),
                None => Base::Minor(number(minor)?, None),
            }
        } else if speaks_of_gpus(resource) {
            Base::Index(number(base)?)
        } else {
            return None;
        };
        Some(DeviceId { base, replica })
    }
}

/// Whether a resource's name is about GPUs of ours, as far as a name can tell: `nvidia.com/gpu`, `nvidia.com/mig-1g.5gb`,
/// `example.com/gpu-small`. The vendor's name alone says nothing: network cards have it too, and GPUs that are passed
/// through to virtual machines.
pub fn speaks_of_gpus(resource: &str) -> bool {
    let holds = |word: &str| {
        resource.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    (holds("gpu") || holds("/mig-")) && !holds("amd.com") && !holds("intel.com")
}

/// A UUID, or as much of one as tells it apart. What is longer is something else: some schedulers append a number, and
/// then give out another device than the id says.
fn is_uuid(text: &str) -> bool {
    (1..=36).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Digits alone: no sign, no space.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_and_nothing_else() {
        let uuid = |text: &str| Base::Uuid(text.into());
        let old = |text: &str, gi, ci| Base::OldMig(text.into(), gi, ci);
        const U: &str = "4404041a-04cf-1ccf-9e70-f139a9b1e23c";
        let gpu = format!("GPU-{U}");
        let mig = format!("MIG-{U}");
        let ids = [
            (gpu.clone(), Some((uuid(&gpu), None))),
            (mig.clone(), Some((uuid(&mig), None))),
            (format!("{gpu}::0"), Some((uuid(&gpu), Some(0)))),
            (format!("{mig}::12"), Some((uuid(&mig), Some(12)))),
            (format!("MIG-GPU-{U}/7/0"), Some((old(&gpu, 7, 0), None))),
            (format!("MIG-GPU-{U}/7/0::3"), Some((old(&gpu, 7, 0), Some(3)))),
            ("nvidia0".into(), Some((Base::Minor(0, None), None))),
            ("nvidia3/gi5".into(), Some((Base::Minor(3, Some(5)), None))),
            ("nvidia3/vgpu2".into(), Some((Base::Minor(3, None), Some(2)))),
            ("nvidia3/gi5/vgpu1".into(), Some((Base::Minor(3, Some(5)), Some(1)))),
            ("0".into(), Some((Base::Index(0), None))),
            ("7::1".into(), Some((Base::Index(7), Some(1)))),
            (String::new(), None),
            ("GPU-".into(), None),
            ("MIG-".into(), None),
            ("GPU-ghi".into(), None),
            (format!("{gpu}-3"), None),
            (format!("GPU-{}", "a".repeat(200)), None),
            (format!("{gpu}::"), None),
            (format!("{gpu}::x"), None),
            (format!("{gpu}::-1"), None),
            (format!("{gpu}::1::2"), None),
            (format!("{gpu}::4294967296"), None),
            (format!("MIG-GPU-{U}"), None),
            (format!("MIG-GPU-{U}/7"), None),
            (format!("MIG-GPU-{U}/7/0/1"), None),
            ("nvidia".into(), None),
            ("nvidiactl".into(), None),
            ("nvidia0/gi".into(), None),
            ("nvidia0/vgpu".into(), None),
            ("nvidia+1".into(), None),
            ("0000:19:00.0".into(), None),
            ("1 ".into(), None),
        ];
        for (id, want) in ids {
            let got = DeviceId::parse("nvidia.com/gpu", &id).map(|d| (d.base, d.replica));
            assert_eq!(got, want, "{id}");
        }
    }

    #[test]
    fn a_bare_number_is_a_gpu_only_among_gpus() {
        let names = [
            ("nvidia.com/gpu", true),
            ("nvidia.com/gpu.shared", true),
            ("nvidia.com/mig-1g.5gb", true),
            ("acme.com/GPU-small", true),
            ("nvidia.com/hostdev", false),
            ("nvidia.com/GA102GL_A10", false),
            ("amd.com/gpu", false),
            ("gpu.intel.com/i915", false),
            ("rdma/hca", false),
            ("", false),
        ];
        for (resource, is) in names {
            assert_eq!(DeviceId::parse(resource, "1").is_some(), is, "{resource}");
            assert!(DeviceId::parse(resource, "GPU-1f").is_some());
        }
    }
}
