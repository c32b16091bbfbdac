//! Readings that come as field values: all that are due, of one device, in one call.
//!
//! Answers are matched by position, because newer drivers number some fields anew. A field that a device does not have
//! is not asked for again; of two that tell the same, the first that answers stays.

use std::time::Instant;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{FieldIdScheme, Nvml};

use super::errors::{self, Class};
use super::raw::{self, ALL_LINKS, FieldKey, Handle, Number};
use super::tally::{Cadence, Tally, Tier};
use crate::receivers::nvml::model::{Group, Groups, Reading, Sample, Value, get};

/// How many links there are.
pub(super) const LINK_COUNT: u32 = 91;
/// The first driver whose fields for event reasons are those that we know.
const EVENT_REASONS_SINCE: u32 = 575;
/// What newer drivers add to the numbers of the event reasons.
const RENUMBERED_BY: u32 = 18;
/// Degrees Celsius of memory outside of these are a mislabelled value.
const MEMORY_DEGREES: std::ops::RangeInclusive<i64> = 1..=200;

/// What becomes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decode {
    /// It is the value.
    Same,
    /// It counts KiB, and the value bytes.
    Kib,
    /// Anything but 0 is 1.
    Flag,
    /// Degrees, checked.
    Degrees,
}

/// One field and what it tells.
struct Field {
    id: u32,
    scope: u32,
    group: Group,
    tier: Tier,
    reading: Reading,
    index: u16,
    decode: Decode,
}

const fn field(id: u32, group: Group, tier: Tier, reading: Reading, index: u16) -> Field {
    Field { id, scope: 0, group, tier, reading, index, decode: Decode::Same }
}

const fn links(id: u32, tier: Tier, reading: Reading, index: u16) -> Field {
    Field { scope: ALL_LINKS, ..field(id, Group::Nvlink, tier, reading, index) }
}

impl Field {
    const fn decoded(self, decode: Decode) -> Self {
        Field { decode, ..self }
    }

    /// Its number in this driver, if it is one that means this there.
    fn id(&self, driver: u32, scheme: FieldIdScheme) -> Option<u32> {
        match self.id {
            251..=253 if driver < EVENT_REASONS_SINCE => None,
            251..=253 if scheme == FieldIdScheme::V13Update1 => Some(self.id + RENUMBERED_BY),
            id => Some(id),
        }
    }
}

/// All of them, in the order of the report.
static FIELDS: &[Field] = &{
    use Group::{Ecc, Nvlink, Pcie, Power, Temperature, Throttling};
    use Tier::{Fast, Slow};
    [
        field(82, Temperature, Fast, Reading::Temperature, 1).decoded(Decode::Degrees),
        field(186, Power, Slow, Reading::PowerInstant, 0),
        field(74, Throttling, Fast, Reading::ThrottleTime, 0),
        field(75, Throttling, Fast, Reading::ThrottleTime, 1),
        field(76, Throttling, Fast, Reading::ThrottleTime, 2),
        field(77, Throttling, Fast, Reading::ThrottleTime, 3),
        field(78, Throttling, Fast, Reading::ThrottleTime, 4),
        field(79, Throttling, Fast, Reading::ThrottleTime, 5),
        field(80, Throttling, Fast, Reading::ThrottleTime, 6),
        field(81, Throttling, Fast, Reading::ThrottleTime, 7),
        field(251, Throttling, Slow, Reading::ThrottleTime, 8),
        field(252, Throttling, Slow, Reading::ThrottleTime, 9),
        field(253, Throttling, Slow, Reading::ThrottleTime, 10),
        field(197, Pcie, Fast, Reading::PcieBytes, 0),
        field(198, Pcie, Fast, Reading::PcieBytes, 1),
        field(173, Pcie, Slow, Reading::PcieErrors, 0),
        field(174, Pcie, Slow, Reading::PcieErrors, 1),
        field(175, Pcie, Slow, Reading::PcieErrors, 2),
        field(176, Pcie, Slow, Reading::PcieErrors, 3),
        field(177, Pcie, Slow, Reading::PcieErrors, 4),
        field(178, Pcie, Slow, Reading::PcieErrors, 5),
        field(179, Pcie, Slow, Reading::PcieErrors, 6),
        field(180, Pcie, Slow, Reading::PcieErrors, 7),
        field(181, Pcie, Slow, Reading::PcieErrors, 8),
        field(182, Pcie, Slow, Reading::PcieErrors, 9),
        field(183, Pcie, Slow, Reading::PcieErrors, 10),
        // Up to Hopper; then what takes their place.
        links(138, Fast, Reading::NvlinkBytes, 0).decoded(Decode::Kib),
        links(139, Fast, Reading::NvlinkBytes, 1).decoded(Decode::Kib),
        links(202, Fast, Reading::NvlinkBytes, 0),
        links(204, Fast, Reading::NvlinkBytes, 1),
        field(38, Nvlink, Fast, Reading::NvlinkErrors, 0),
        field(45, Nvlink, Fast, Reading::NvlinkErrors, 1),
        field(52, Nvlink, Fast, Reading::NvlinkErrors, 2),
        field(59, Nvlink, Fast, Reading::NvlinkErrors, 3),
        field(160, Nvlink, Fast, Reading::NvlinkErrors, 4),
        links(208, Slow, Reading::NvlinkErrors, 5),
        links(213, Slow, Reading::NvlinkErrors, 6),
        links(214, Slow, Reading::NvlinkErrors, 7),
        field(29, Ecc, Slow, Reading::RetiredPages, 0),
        field(30, Ecc, Slow, Reading::RetiredPages, 1),
        field(31, Ecc, Slow, Reading::RetiredPending, 0).decoded(Decode::Flag),
        field(142, Ecc, Slow, Reading::RemappedRows, 0),
        field(143, Ecc, Slow, Reading::RemappedRows, 1),
        field(144, Ecc, Slow, Reading::RemapPending, 0).decoded(Decode::Flag),
        field(145, Ecc, Slow, Reading::RemapFailed, 0).decoded(Decode::Flag),
        field(230, Ecc, Fast, Reading::RecoveryAction, 0),
    ]
};

/// A field of one device, in one generation.
#[derive(Debug)]
struct Asked {
    field: &'static Field,
    key: FieldKey,
    due: Option<Instant>,
    last: Option<Value>,
    over: bool,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "field {}", self.id)
    }
}

/// The fields that are asked of one device.
#[derive(Debug)]
pub(super) struct Batch {
    asked: Vec<Asked>,
    over: bool,
}

/// What one field answered, for those who want to know what works.
pub(super) struct Answer {
    /// Its number, as we count.
    pub(super) id: u32,
    /// What it tells.
    pub(super) reading: (Reading, u16),
    /// The value, none, or the error.
    pub(super) outcome: Result<Option<Value>, NvmlError>,
}

impl Batch {
    /// Those of the groups that are on, for a driver of this branch.
    pub(super) fn new(groups: Groups, driver: u32, scheme: FieldIdScheme) -> Self {
        let asked = FIELDS
            .iter()
            .filter(|field| groups.has(field.group))
            .filter_map(|field| {
                let key = FieldKey { id: field.id(driver, scheme)?, scope: field.scope };
                Some(Asked { field, key, due: None, last: None, over: false })
            })
            .collect();
        Batch { asked, over: false }
    }

    /// Reads what is due and puts everything there is into `out`.
    ///
    /// # Errors
    /// When the call failed in a way that concerns more than these readings.
    pub(super) fn read(
        &mut self,
        nvml: &Nvml,
        handle: Handle,
        now: Instant,
        cadence: &Cadence,
        tally: &mut Tally,
        out: &mut Vec<Sample>,
    ) -> Result<(), NvmlError> {
        let due: Vec<usize> = self
            .asked
            .iter()
            .enumerate()
            .filter(|(_, asked)| !self.over && !asked.over && asked.due.is_none_or(|due| due <= now))
            .map(|(at, _)| at)
            .collect();
        let keys: Vec<FieldKey> = due.iter().filter_map(|&at| Some(self.asked.get(at)?.key)).collect();
        match if keys.is_empty() { Ok(Vec::new()) } else { raw::field_values(nvml, handle, &keys) } {
            Ok(answers) => {
                for (at, answer) in due.into_iter().zip(answers) {
                    if let Some(asked) = self.asked.get_mut(at) {
                        asked.take(answer, now, cadence, tally);
                    }
                }
            }
            Err(error) => {
                tally.note(Some(&error));
                for at in due {
                    if let Some(asked) = self.asked.get_mut(at) {
                        asked.last = None;
                    }
                }
                match errors::class(&error) {
                    Class::Unsupported | Class::Denied => {
                        tracing::debug!(%error, "field values are not there");
                        self.over = true;
                    }
                    Class::Invalid => {
                        // Either the handle is dead, which ends the generation, or it never works.
                        self.over = true;
                        return Err(error);
                    }
                    Class::Lost | Class::Closed(_) => return Err(error),
                    Class::Empty | Class::Grew | Class::Unknown | Class::Skip => {}
                }
            }
        }
        for asked in &mut self.asked {
            let Some(value) = asked.last else { continue };
            let Field { reading, index, .. } = *asked.field;
            if get(out, reading, index).is_some() {
                // Another field tells it already.
                asked.over = true;
                asked.last = None;
            } else {
                out.push(Sample { reading, index, value });
            }
        }
        Ok(())
    }

    /// Finds out anew what the device has.
    pub(super) fn forget(&mut self) {
        self.over = false;
        for asked in &mut self.asked {
            (asked.due, asked.last, asked.over) = (None, None, false);
        }
    }

    /// Asks for everything, and tells what came of each.
    pub(super) fn probe(&self, nvml: &Nvml, handle: Handle) -> Result<Vec<Answer>, NvmlError> {
        let keys: Vec<FieldKey> = self.asked.iter().map(|asked| asked.key).collect();
        let answers = raw::field_values(nvml, handle, &keys)?;
        Ok(self
            .asked
            .iter()
            .zip(answers)
            .map(|(asked, answer)| Answer {
                id: asked.field.id,
                reading: (asked.field.reading, asked.field.index),
                outcome: answer.map(|number| number.and_then(|number| decode(asked.field.decode, number))),
            })
            .collect())
    }
}

impl Asked {
    fn take(
        &mut self,
        answer: Result<Option<Number>, NvmlError>,
        now: Instant,
        cadence: &Cadence,
        tally: &mut Tally,
    ) {
        tally.note(answer.as_ref().err());
        match answer {
            Ok(number) => {
                self.last = number.and_then(|number| decode(self.field.decode, number));
                self.due = cadence.next(self.field.tier, now);
            }
            Err(error) => {
                self.last = None;
                // An old driver says that the argument is wrong where it means that it knows no such field.
                if matches!(errors::class(&error), Class::Unsupported | Class::Invalid | Class::Denied) {
                    tracing::debug!(field = self.field.id, %error, "a field is not there");
                    self.over = true;
                }
            }
        }
    }
}

/// How many links a device has; 0 where it cannot tell.
///
/// # Errors
/// When the call as a whole failed.
pub(super) fn link_count(nvml: &Nvml, handle: Handle) -> Result<u16, NvmlError> {
    let answers = raw::field_values(nvml, handle, &[FieldKey { id: LINK_COUNT, scope: 0 }])?;
    Ok(match answers.into_iter().next() {
        // More than any device has is no count.
        Some(Ok(Some(Number::Unsigned(count @ 0..=64)))) => u16::try_from(count).unwrap_or(0),
        _ => 0,
    })
}

fn decode(how: Decode, number: Number) -> Option<Value> {
    let integer = match number {
        Number::Unsigned(n) => n,
        Number::Signed(n) => u64::try_from(n).ok()?,
        // What stands in a double although it is a count is a mislabelled integer: too small to be anything.
        Number::Double(n) if n == 0.0 || (n.is_finite() && n >= 1.0) => n as u64,
        Number::Double(_) => return None,
    };
    match how {
        Decode::Same => Some(integer.into()),
        Decode::Kib => Some(integer.saturating_mul(1024).into()),
        Decode::Flag => Some((integer != 0).into()),
        Decode::Degrees => {
            let degrees = i64::try_from(integer).ok()?;
            MEMORY_DEGREES.contains(&degrees).then_some(degrees.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_values() {
        let unsigned = Number::Unsigned;
        let table = [
            (Decode::Same, unsigned(7), Some(Value::Int(7))),
            (Decode::Same, Number::Signed(-1), None),
            (Decode::Kib, unsigned(3), Some(Value::Int(3072))),
            (Decode::Flag, unsigned(9), Some(Value::Int(1))),
            (Decode::Flag, unsigned(0), Some(Value::Int(0))),
            (Decode::Degrees, unsigned(64), Some(Value::Int(64))),
            (Decode::Degrees, unsigned(0), None),
            (Decode::Degrees, unsigned(201), None),
            // An integer that the driver labels as a double.
            (Decode::Degrees, Number::Double(f64::from_bits(64)), None),
            (Decode::Degrees, Number::Double(64.0), Some(Value::Int(64))),
        ];
        for (how, number, expected) in table {
            assert_eq!(decode(how, number), expected, "{how:?} of {number:?}");
        }
    }

    #[test]
    fn event_reasons_have_three_numberings() {
        let ids = |driver, scheme| {
            let batch = Batch::new(Groups(1 << Group::Throttling as u32), driver, scheme);
            batch.asked.iter().map(|asked| asked.key.id).filter(|id| *id > 100).collect::<Vec<_>>()
        };
        assert_eq!(ids(570, FieldIdScheme::V12), [0; 0], "another meaning there");
        assert_eq!(ids(575, FieldIdScheme::V12), [251, 252, 253]);
        assert_eq!(ids(580, FieldIdScheme::V13Update1), [269, 270, 271]);
    }

    #[test]
    fn only_groups_that_are_on_are_asked_for() {
        assert!(Batch::new(Groups(0), 580, FieldIdScheme::V12).asked.is_empty());
        let all = Batch::new(Groups(u32::MAX), 580, FieldIdScheme::V12);
        assert_eq!(all.asked.len(), FIELDS.len());
    }
}
