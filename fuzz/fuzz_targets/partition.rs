//! Parts of a request hold every item once, in order and with what encloses it, each in the part it was given to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::pdata::common::{ResourceGroup, ScopeGroup};
use tidegate::pdata::metrics::Kind;
use tidegate::pdata::partition::{Assign, PartitionError, Pieces, partition};
use tidegate::pdata::wire::WireError;
use tidegate::pdata::count;
use tidegate_fuzz::Input;
use tidegate_fuzz::oracle::{Row, oracle, rows};

/// Decides by the bytes: at the level that they say themselves.
struct ByBytes {
    buckets: usize,
}

impl ByBytes {
    fn sum(bytes: &[u8]) -> usize {
        bytes.iter().fold(7usize, |sum, b| sum.wrapping_mul(31).wrapping_add(usize::from(*b)))
    }

    fn decides(&self, bytes: &[u8]) -> Option<usize> {
        let sum = Self::sum(bytes);
        (sum % 3 == 0).then_some(sum / 3 % self.buckets)
    }
}

impl<'a> Assign<'a> for ByBytes {
    fn resource(&mut self, group: ResourceGroup<'a>) -> Result<Option<usize>, WireError> {
        Ok(self.decides(group.message()))
    }
    fn scope(&mut self, group: ScopeGroup<'a>) -> Result<Option<usize>, WireError> {
        Ok(self.decides(group.message()))
    }
    fn metric(&mut self, metric: &'a [u8]) -> Result<Option<usize>, WireError> {
        Ok(self.decides(metric))
    }
    fn item(&mut self, _: Kind, item: &'a [u8]) -> Result<usize, WireError> {
        Ok(Self::sum(item) % self.buckets)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let (signal, rope) = (input.signal, input.rope());
    let pieces = Pieces::of(&rope);
    let counted = count(signal, input.request);
    let buckets = input.size % 5 + 1;
    let cut = partition(signal, &pieces, counted.unwrap_or(7), &mut ByBytes { buckets });
    let Ok(items) = counted else { return };
    let parts = match cut {
        Ok(cut) => cut.shares,
        Err(PartitionError::TooMuchRepeated) => return,
        Err(PartitionError::Malformed(why)) => panic!("it can be counted, yet {why}"),
    };
    assert_eq!(parts.iter().map(|part| part.items).sum::<usize>(), items);
    for part in &parts {
        assert!(part.bucket < buckets && part.items > 0);
        assert_eq!(count(signal, &part.rope.to_bytes()), Ok(part.items));
    }
    if oracle(signal, input.request).is_err() {
        return;
    }
    // Rows with an item: those without are envelopes, which may be left out.
    let of = |request: &[u8]| -> Vec<Row> {
        let mut found = rows(signal, request);
        found.retain(|row| !row[3].is_empty());
        found
    };
    let mut left = of(input.request);
    for part in &parts {
        let mut at = 0;
        for row in of(&part.rope.to_bytes()) {
            // In order: each is found behind the one before.
            let found = left.iter().skip(at).position(|other| *other == row).expect("an item of the request");
            at += found;
            left.remove(at);
        }
    }
    assert!(left.is_empty(), "nothing is lost");
});
