//! A part must hold what prost finds for its bucket in the whole, in order, and nothing else.

use std::collections::BTreeMap;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::pdata::common::{Messages, groups};
use crate::pdata::count;
use crate::pdata::oracle::{Row, rows};
use crate::pdata::testgen::{arb_request, arb_signal, assert_linear, mutate, oracle_count, scramble};
use crate::pdata::wire::put_bytes;

/// Decides by a hash of the bytes, at a level that is itself chosen so.
#[derive(Clone, Copy)]
struct Hashed {
    seed: u64,
    buckets: usize,
    /// The level at which to decide: 0 resource, 1 scope, 2 metric, 3 item, 4 any.
    level: u64,
}

impl Hashed {
    fn bucket(self, bytes: &[u8]) -> usize {
        (xxh3_64(bytes) ^ self.seed) as usize % self.buckets
    }

    fn decides(self, level: u64, bytes: &[u8]) -> Option<usize> {
        let here = match self.level {
            4 => (xxh3_64(bytes) ^ self.seed) >> 32 & 1 == 0,
            at => at == level,
        };
        here.then(|| self.bucket(bytes))
    }
}

impl<'a> Assign<'a> for Hashed {
    fn resource(&mut self, group: ResourceGroup<'a>) -> Result<Option<usize>, WireError> {
        Ok(self.decides(0, group.message()))
    }
    fn scope(&mut self, group: ScopeGroup<'a>) -> Result<Option<usize>, WireError> {
        Ok(self.decides(1, group.message()))
    }
    fn metric(&mut self, metric: &'a [u8]) -> Result<Option<usize>, WireError> {
        Ok(self.decides(2, metric))
    }
    fn item(&mut self, _: Kind, item: &'a [u8]) -> Result<usize, WireError> {
        Ok(self.bucket(item))
    }
}

/// An item as prost sees it, and as it stands on the wire with all that encloses it.
type Found = (Row, Vec<u8>);

/// The rows of each bucket, by asking the same questions of the decoded request: every item is made a request of its
/// own that holds what encloses it.
fn naive(signal: Signal, request: &[u8], assign: Hashed) -> BTreeMap<usize, Vec<Found>> {
    let mut out: BTreeMap<usize, Vec<Found>> = BTreeMap::new();
    let without = |message: &[u8], child: &dyn Fn(u32) -> bool| {
        let (mut left, mut cursor) = (Vec::new(), Cursor::new(message));
        while let Some(field) = cursor.next_field().unwrap() {
            if !child(field.number) {
                left.extend_from_slice(&message[field.start..field.end]);
            }
        }
        left
    };
    let mut give = |bucket: usize, group: &[u8], scope: &[u8], item: &[u8]| {
        let (mut with_item, mut with_scope, mut request) = (scope.to_vec(), group.to_vec(), Vec::new());
        put_bytes(&mut with_item, 2, item);
        put_bytes(&mut with_scope, 2, &with_item);
        put_bytes(&mut request, 1, &with_scope);
        let [row] = rows(signal, &request).try_into().unwrap();
        out.entry(bucket).or_default().push((row, request));
    };
    for group in groups(request) {
        let group = group.unwrap();
        let of_resource = assign.decides(0, group.message());
        let bare_group = without(group.message(), &|n| n == 2);
        for scope in group.scopes() {
            let scope = scope.unwrap();
            let of_scope = of_resource.or_else(|| assign.decides(1, scope.message()));
            let bare_scope = without(scope.message(), &|n| n == 2);
            for item in scope.items() {
                let item = item.unwrap();
                if signal != Signal::Metrics {
                    give(of_scope.unwrap_or_else(|| assign.bucket(item)), &bare_group, &bare_scope, item);
                    continue;
                }
                let of_metric = of_scope.or_else(|| assign.decides(2, item));
                let metric = crate::pdata::metrics::Metric::parse(item).unwrap();
                let bare_metric = without(item, &is_metric_data);
                let live: Vec<&[u8]> = live_data(item, metric.kind.field());
                let bare_data: Vec<u8> = live.iter().flat_map(|data| without(data, &|n| n == 1)).collect();
                for point in metric.points() {
                    let point = point.unwrap();
                    let (mut data, mut one) = (bare_data.clone(), bare_metric.clone());
                    put_bytes(&mut data, 1, point);
                    put_bytes(&mut one, metric.kind.field(), &data);
                    give(of_metric.unwrap_or_else(|| assign.bucket(point)), &bare_group, &bare_scope, &one);
                }
            }
        }
    }
    out
}

/// The occurrences of the kind of data that wins: those behind the last of another kind.
fn live_data(metric: &[u8], kind: u32) -> Vec<&[u8]> {
    let (mut live, mut cursor) = (Vec::new(), Cursor::new(metric));
    while let Some(field) = cursor.next_field().unwrap() {
        if field.number == kind {
            live.push(field.value.bytes().unwrap());
        } else if is_metric_data(field.number) {
            live.clear();
        }
    }
    live
}

/// A rope of the same bytes in pieces that end anywhere.
fn shred(bytes: &[u8], seed: u64) -> Rope {
    let mut rng = fastrand::Rng::with_seed(seed);
    let largest = *rng.choice(&[3, 300, 30_000]).unwrap();
    let mut rope = Rope::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rng.usize(1..=largest).min(rest.len()));
        rope.push(Bytes::copy_from_slice(piece));
        rest = after;
    }
    rope
}

fn request(header: &[u8], items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let (mut scope, mut group, mut request) = (Vec::new(), Vec::new(), Vec::new());
    items.for_each(|item| put_bytes(&mut scope, 2, &item));
    put_bytes(&mut group, 1, header);
    put_bytes(&mut group, 2, &scope);
    put_bytes(&mut request, 1, &group);
    request
}

/// Spans with a name that begins with a letter, so many of each.
fn spans(header: usize, letters: &[(u8, usize)], name: usize) -> Vec<u8> {
    let item = |letter: u8| {
        let mut span = Vec::new();
        put_bytes(&mut span, 5, &vec![letter; name]);
        span
    };
    let items = letters.iter().flat_map(|(letter, n)| std::iter::repeat_n(*letter, *n)).map(item);
    let mut attribute = Vec::new();
    put_bytes(&mut attribute, 1, &[b"\x0a\x01k".to_vec(), vec![]].concat());
    put_bytes(&mut attribute, 9, &vec![b'u'; header]);
    request(&attribute, items)
}

/// The bucket of a span is the first letter of its name.
struct ByName;

impl<'a> Assign<'a> for ByName {
    fn resource(&mut self, _: ResourceGroup<'a>) -> Result<Option<usize>, WireError> {
        Ok(None)
    }
    fn scope(&mut self, _: ScopeGroup<'a>) -> Result<Option<usize>, WireError> {
        Ok(None)
    }
    fn item(&mut self, _: Kind, item: &'a [u8]) -> Result<usize, WireError> {
        let name = Messages::of(item, 5).last_or_empty()?;
        let number =
            name.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + usize::from(b - b'0'));
        Ok(if number > 0 { number } else { usize::from(name.first().copied().unwrap_or(b'a') - b'a') })
    }
}

/// Everything of a resource belongs to the bucket that comes next.
struct InTurn(Vec<usize>);

impl<'a> Assign<'a> for InTurn {
    fn resource(&mut self, _: ResourceGroup<'a>) -> Result<Option<usize>, WireError> {
        Ok(Some(self.0.remove(0)))
    }
    fn scope(&mut self, _: ScopeGroup<'a>) -> Result<Option<usize>, WireError> {
        panic!("decided above")
    }
    fn item(&mut self, _: Kind, _: &'a [u8]) -> Result<usize, WireError> {
        panic!("decided above")
    }
}

fn fresh(rope: &Rope, original: &Bytes) -> usize {
    let within = original.as_ptr_range();
    rope.pieces().iter().filter(|p| !within.contains(&p.as_ptr())).map(|p| p.len()).sum()
}

#[test]
fn one_bucket_is_the_request_itself() {
    let bytes = Bytes::from(spans(100, &[(b'a', 9)], 50).repeat(3));
    let pieces = Pieces::of(&Rope::from(bytes.clone()));
    let cut = partition(Signal::Traces, &pieces, 27, &mut InTurn(vec![5, 5, 5])).unwrap();
    let [share] = cut.shares.as_slice() else { panic!("{cut:?}") };
    assert_eq!((share.bucket, share.items, cut.copied), (5, 27, 0));
    assert_eq!(share.rope.pieces(), std::slice::from_ref(&bytes));
    assert_eq!(share.rope.pieces()[0].as_ptr(), bytes.as_ptr());
}

#[test]
fn whole_resources_are_referenced() {
    let one = spans(600, &[(b'a', 9)], 50);
    let bytes = Bytes::from(one.repeat(4));
    let pieces = Pieces::of(&Rope::from(bytes.clone()));
    let cut = partition(Signal::Traces, &pieces, 36, &mut InTurn(vec![1, 1, 0, 1])).unwrap();
    let shape: Vec<_> = cut.shares.iter().map(|s| (s.bucket, s.items, s.rope.len())).collect();
    assert_eq!(shape, [(0, 9, one.len()), (1, 27, 3 * one.len())]);
    assert_eq!(cut.shares[1].rope.pieces().len(), 2, "neighbours stay together");
    assert!(cut.shares.iter().all(|s| fresh(&s.rope, &bytes) == 0));
}

#[test]
fn items_decided_alike_leave_the_resource_as_it_is() {
    let bytes = Bytes::from(spans(10, &[(b'b', 99)], 20));
    let pieces = Pieces::of(&Rope::from(bytes.clone()));
    let cut = partition(Signal::Traces, &pieces, 99, &mut ByName).unwrap();
    assert_eq!((cut.shares.len(), cut.shares[0].items), (1, 99));
    assert_eq!(cut.shares[0].rope.pieces(), [bytes]);
}

#[test]
fn runs_of_items_and_large_headers_are_referenced() {
    let bytes = Bytes::from(spans(5000, &[(b'a', 30), (b'b', 30)], 100));
    let pieces = Pieces::of(&Rope::from(bytes.clone()));
    let cut = partition(Signal::Traces, &pieces, 60, &mut ByName).unwrap();
    assert_eq!(cut.shares.iter().map(|s| s.items).collect::<Vec<_>>(), [30, 30]);
    for share in &cut.shares {
        assert!(fresh(&share.rope, &bytes) < 40, "{}", fresh(&share.rope, &bytes));
        assert!(share.rope.len() > 5000 + 30 * 100);
    }
    let held: usize = cut.shares.iter().map(|s| fresh(&s.rope, &bytes)).sum();
    assert!(cut.copied >= held && cut.copied < 100, "{} of {held}", cut.copied);
}

#[test]
fn what_would_be_repeated_too_often_is_refused() {
    let item = |i: usize| {
        let mut span = Vec::new();
        put_bytes(&mut span, 5, (i + 1).to_string().as_bytes());
        span
    };
    let cut = |header: usize, tenants: usize| {
        let header = spans(header, &[], 0)[..].to_vec();
        let bytes = request(&header, (0..tenants).map(item));
        let pieces = Pieces::of(&Rope::from(bytes));
        partition(Signal::Traces, &pieces, tenants, &mut ByName).map(|cut| cut.shares.len())
    };
    assert_eq!(cut(1000, 1000), Ok(1000), "a MiB is always allowed");
    assert_eq!(cut(1 << 20, 5), Ok(5), "and four times the request");
    assert_eq!(cut(1 << 20, 7), Err(PartitionError::TooMuchRepeated));
    assert_eq!(cut(100_000, 1000), Err(PartitionError::TooMuchRepeated));
}

#[test]
fn the_hostile_take_linear_time() {
    let scattered = |n: usize| {
        let mut scope = Vec::new();
        for i in 0..n {
            put_bytes(&mut scope, 2, if i % 2 == 0 { b"\x2a\x01a" } else { b"\x2a\x01b" });
            put_bytes(&mut scope, 9, b"u");
        }
        let (mut group, mut request) = (Vec::new(), Vec::new());
        put_bytes(&mut group, 2, &scope);
        put_bytes(&mut request, 1, &group);
        (Pieces::of(&Rope::from(request)), n)
    };
    let cut = |(pieces, n): &(Pieces, usize)| partition(Signal::Traces, pieces, *n, &mut ByName).unwrap();
    assert_linear(scattered, cut, 1 << 12);
    let data = |n: usize| {
        let mut scope = Vec::new();
        put_bytes(&mut scope, 2, &[0x2a, 2, 0x0a, 0].repeat(n));
        let (mut group, mut request) = (Vec::new(), Vec::new());
        put_bytes(&mut group, 2, &scope);
        put_bytes(&mut request, 1, &group);
        (Pieces::of(&Rope::from(request)), n)
    };
    assert_linear(data, |(p, n)| partition(Signal::Metrics, p, *n, &mut ByName).unwrap(), 1 << 12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn parts_hold_what_is_theirs(
        (signal, bytes) in arb_request(),
        seed: u64,
        buckets in 1usize..5,
        level in 0u64..5,
        scrambled: bool,
    ) {
        let bytes = if scrambled { scramble(signal, &bytes, seed) } else { bytes };
        let items = count(signal, &bytes).unwrap();
        let assign = Hashed { seed, buckets, level };
        let pieces = Pieces::of(&shred(&bytes, seed));
        let cut = partition(signal, &pieces, items, &mut assign.clone()).unwrap();
        let want = naive(signal, &bytes, assign);
        prop_assert_eq!(cut.shares.iter().map(|s| s.items).sum::<usize>(), items);
        prop_assert!(cut.shares.windows(2).all(|w| w[0].bucket < w[1].bucket));
        prop_assert_eq!(cut.shares.len(), want.len());
        for share in &cut.shares {
            let rope = share.rope.to_bytes();
            prop_assert_eq!(oracle_count(signal, &rope), Some(share.items));
            let got = naive(signal, &rope, Hashed { buckets: 1, ..assign }).remove(&0).unwrap();
            prop_assert_eq!(&got, &want[&share.bucket]);
        }
    }

    #[test]
    fn damaged_requests_lose_no_item((signal, mut bytes) in arb_request(), seed: u64, level in 0u64..5) {
        mutate(&mut bytes, seed);
        let assign = Hashed { seed, buckets: 3, level };
        let pieces = Pieces::of(&Rope::from(bytes.clone()));
        let counted = count(signal, &bytes);
        let cut = partition(signal, &pieces, counted.unwrap_or(7), &mut assign.clone());
        if let (Ok(items), Ok(cut)) = (counted, &cut) {
            prop_assert_eq!(cut.shares.iter().map(|s| s.items).sum::<usize>(), items);
            for share in &cut.shares {
                prop_assert_eq!(count(signal, &share.rope.to_bytes()), Ok(share.items));
            }
        }
        if counted.is_ok() {
            prop_assert!(cut.is_ok());
        }
    }

    #[test]
    fn any_bytes_are_survived(signal in arb_signal(), bytes: Vec<u8>, level in 0u64..5) {
        let pieces = Pieces::of(&Rope::from(bytes));
        let _ = partition(signal, &pieces, 5, &mut Hashed { seed: 1, buckets: 3, level });
    }
}
