//! What a stand-in answers: a value for each symbol and its arguments, faults laid over them, events to come.
//!
//! A **key** names a call with its arguments: `nvmlDeviceGetPowerUsage`, `nvmlDeviceGetClockInfo/2` (memory clock),
//! `nvmlDeviceGetMemoryErrorCounter/0/1/2` (arguments in the order of the C signature, without the out-parameters).
//! Field values are `field/<id>` or `field/<id>/<scope>`, GPM metrics `gpm/<id>`, samples `nvmlDeviceGetSamples/<type>`.
//! The more exact key wins. A call whose key has no value answers "not supported" (3), as real hardware does.
//!
//! Faults have keys of the same form, and `*` for every call on a device (or, in [`Scenario::faults`], on all). Values
//! stay what they are under a fault, so that clearing the fault brings the device back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything one copy of the library answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// `nvmlSystemGetDriverVersion`, e.g. `575.57.08`.
    pub driver_version: String,
    /// Values of calls without a device: `nvmlSystemGetCudaDriverVersion`, …
    pub values: BTreeMap<String, Value>,
    /// Faults of calls without a device, of `nvmlInit_v2`/`nvmlInitWithFlags`, and `*` for all but init and shutdown.
    pub faults: BTreeMap<String, Fault>,
    /// The physical GPUs, by index.
    pub devices: Vec<Device>,
    /// What happens, oldest first; append only. Each is delivered once, to the event sets that wait at that time.
    pub events: Vec<Event>,
    /// Symbols that this copy does not have, as with an older driver. Takes effect where a copy is made.
    pub hidden: Vec<String>,
    /// What a field without a value answers: 3 not supported, or 2 as some old drivers do. 0 stands for 3.
    pub unknown_field_code: u32,
}

/// A GPU, or a MIG instance of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// `GPU-…` or `MIG-…`; what makes a device the same device.
    pub uuid: String,
    /// What calls answer, by key: a number, a text, or a list of numbers in the order of the struct or out-parameters.
    pub values: BTreeMap<String, Value>,
    /// What goes wrong, by key.
    pub faults: BTreeMap<String, Fault>,
    /// MIG instances by slot; `None` is an empty slot.
    pub mig: Vec<Option<Device>>,
    /// Of a MIG instance.
    pub gpu_instance: Option<u32>,
    /// Of a MIG instance.
    pub compute_instance: Option<u32>,
    /// Processes with a CUDA context.
    pub compute: Vec<Process>,
    /// Processes with a graphics context.
    pub graphics: Vec<Process>,
    /// Clients of an MPS server.
    pub mps: Vec<Process>,
    /// The driver's buffer of per-process load.
    pub process_samples: Vec<ProcessSample>,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The return code; 0 lets the call answer as if nothing were wrong, after the delay.
    pub code: u32,
    /// The call takes this long.
    pub delay_ms: u64,
    /// The call does not return before the fault is taken away or the stand-in is dropped.
    pub hang: bool,
    /// The first so many calls are not affected.
    pub after: u32,
    /// Only so many calls are affected; without it, all.
    pub times: Option<u32>,
}

impl Fault {
    /// Every call answers `code`.
    pub fn code(code: u32) -> Fault {
        Fault { code, ..Fault::default() }
    }

    /// Every call takes `delay`.
    pub fn delay(delay: Duration) -> Fault {
        Fault { delay_ms: delay.as_millis() as u64, ..Fault::default() }
    }

    /// A call stays inside.
    pub fn hang() -> Fault {
        Fault { hang: true, ..Fault::default() }
    }

    /// Only the next `times` calls.
    pub fn times(self, times: u32) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// Not the next `calls` calls.
    pub fn after(self, calls: u32) -> Fault {
        Fault { after: calls, ..self }
    }
}

/// A row of a process list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// As the driver sees it.
    pub pid: u32,
    /// Bytes; `None` is the "not available" of all ones.
    pub memory: Option<u64>,
    /// `None` is the "none" of all ones.
    pub gpu_instance: Option<u32>,
    /// `None` is the "none" of all ones.
    pub compute_instance: Option<u32>,
}

/// A row of the per-process load buffer; per cent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSample {
    /// As the driver sees it.
    pub pid: u32,
    /// Microseconds of Unix time.
    pub timestamp: u64,
    /// Streaming multiprocessors.
    pub sm: u32,
    /// Memory controller.
    pub memory: u32,
    /// Video encoder.
    pub encoder: u32,
    /// Video decoder.
    pub decoder: u32,
    /// JPEG engine; only in the newer call.
    pub jpeg: u32,
    /// Optical flow; only in the newer call.
    pub ofa: u32,
}

/// Something that a waiting event set hears of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// Index of the GPU.
    pub device: usize,
    /// One bit: 0x8 XID, 0x2 double-bit ECC, 0x100 MIG change, …
    pub kind: u64,
    /// The XID.
    pub data: u64,
    /// `None` is the "none" of all ones.
    pub gpu_instance: Option<u32>,
    /// `None` is the "none" of all ones.
    pub compute_instance: Option<u32>,
    /// Delivered to every set that watches the device, also one that did not ask for this kind.
    pub unasked: bool,
}

impl Event {
    /// An XID on a whole GPU.
    pub fn xid(device: usize, xid: u64) -> Event {
        Event { device, kind: 8, data: xid, ..Event::default() }
    }

    /// An event of one kind.
    pub fn of(device: usize, kind: u64) -> Event {
        Event { device, kind, ..Event::default() }
    }
}

/// A field value as the driver writes it. `Value::from(n)` in its place means the type that the field has by the
/// header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The tag: 0 double, 1 u32, 2 unsigned long, 3 u64, 4 i64, 5 i32, 6 u16.
    #[serde(rename = "type")]
    pub kind: u32,
    /// The eight bytes as they lie in memory.
    pub bits: u64,
}

impl Scenario {
    /// The value of a call without a device.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Scenario {
        self.values.insert(key.to_owned(), value.into());
        self
    }

    /// Lays a fault over a call without a device, or over all calls with `*`.
    pub fn fault(&mut self, key: &str, fault: Fault) -> &mut Scenario {
        self.faults.insert(key.to_owned(), fault);
        self
    }

    /// Takes a fault away.
    pub fn clear(&mut self, key: &str) -> &mut Scenario {
        self.faults.remove(key);
        self
    }

    /// What both forms of init answer; 0 lets them succeed.
    pub fn init(&mut self, code: u32) -> &mut Scenario {
        for symbol in ["nvmlInit_v2", "nvmlInitWithFlags"] {
            match code {
                0 => self.faults.remove(symbol),
                code => self.faults.insert(symbol.to_owned(), Fault::code(code)),
            };
        }
        self
    }

    /// Every call but init and shutdown answers `code`; 0 ends that.
    pub fn all(&mut self, code: u32) -> &mut Scenario {
        match code {
            0 => self.clear("*"),
            code => self.fault("*", Fault::code(code)),
        }
    }

    /// Leaves symbols out of copies made from now on.
    pub fn hide(&mut self, symbols: &[&str]) -> &mut Scenario {
        self.hidden.extend(symbols.iter().map(|&s| s.to_owned()));
        self
    }

    /// A GPU by index. Panics if there is none.
    pub fn gpu(&mut self, index: usize) -> &mut Device {
        &mut self.devices[index]
    }
}

impl Device {
    /// What a call answers.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Device {
        self.values.insert(key.to_owned(), value.into());
        self
    }

    /// Makes calls answer "not supported".
    pub fn unset(&mut self, keys: &[&str]) -> &mut Device {
        for key in keys {
            self.values.remove(*key);
        }
        self
    }

    /// Lays a fault over a call, or over all calls on this device with `*`.
    pub fn fault(&mut self, key: &str, fault: Fault) -> &mut Device {
        self.faults.insert(key.to_owned(), fault);
        self
    }

    /// A call answers `code`; 0 ends that.
    pub fn fail(&mut self, key: &str, code: u32) -> &mut Device {
        match code {
            0 => self.clear(key),
            code => self.fault(key, Fault::code(code)),
        }
    }

    /// Takes a fault away.
    pub fn clear(&mut self, key: &str) -> &mut Device {
        self.faults.remove(key);
        self
    }

    /// A field with the type tag that it has by the header.
    pub fn field(&mut self, id: u32, value: impl Into<Value>) -> &mut Device {
        self.set(&format!("field/{id}"), value)
    }

    /// A field with a tag and bits of the test's choice.
    pub fn raw_field(&mut self, id: u32, kind: u32, bits: u64) -> &mut Device {
        let value = serde_json::to_value(Field { kind, bits }).expect("plain data");
        self.set(&format!("field/{id}"), value)
    }

    /// Bytes of memory as `nvmlDeviceGetMemoryInfo_v2` gives them; the older call then gives the same, with the
    /// reserve counted as used.
    pub fn memory(&mut self, total: u64, reserved: u64, used: u64) -> &mut Device {
        let free = total.saturating_sub(reserved).saturating_sub(used);
        self.set("nvmlDeviceGetMemoryInfo_v2", vec![total, reserved, free, used]);
        self.set("nvmlDeviceGetMemoryInfo", vec![total, free, used + reserved])
    }

    /// Busy per cent of the GPU and of its memory controller.
    pub fn utilization(&mut self, gpu: u32, memory: u32) -> &mut Device {
        self.set("nvmlDeviceGetUtilizationRates", vec![gpu, memory])
    }
}
