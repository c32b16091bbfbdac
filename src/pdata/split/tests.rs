//! Parts, put together again, must say what the request said: to prost, and field by field.

use proptest::prelude::*;

use super::*;
use crate::pdata::count;
use crate::pdata::oracle::rows;
use crate::pdata::testgen::{arb_request, arb_signal, assert_linear, mutate, oracle_count, scramble};
use crate::pdata::wire::{Cursor, Value, put_bytes};

/// The items as they stand on the wire, each with the raw fields around it, level by level: what prost does
/// not know is in here too.
fn raw_rows(signal: Signal, request: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut rows = Vec::new();
    let path: &[u32] = if signal == Signal::Metrics { &[1, 2, 2, 0, 1] } else { &[1, 2, 2] };
    // Fields beside the groups are not part of any group and are compared by the caller.
    let (_, groups) = parted(&[request], path[0]);
    raw_level(&groups.iter().map(|g| vec![*g]).collect::<Vec<_>>(), &path[1..], &mut Vec::new(), &mut rows);
    rows
}

fn raw_level(messages: &[Vec<&[u8]>], path: &[u32], around: &mut Vec<Vec<u8>>, rows: &mut Vec<Vec<Vec<u8>>>) {
    for message in messages {
        let Some((&child, deeper)) = path.split_first() else {
            rows.push([around.clone(), vec![message.concat()]].concat());
            continue;
        };
        let (header, children) = parted(message, child);
        around.push(header);
        if child == 0 {
            // Metric: all live data merges into one message.
            if !children.is_empty() {
                raw_level(&[children], deeper, around, rows);
            }
        } else {
            raw_level(&children.iter().map(|c| vec![*c]).collect::<Vec<_>>(), deeper, around, rows);
        }
        around.pop();
    }
}

/// The children of a message in several occurrences, and all other fields as they stand. Child 0 means the
/// winning metric data.
fn parted<'a>(occurrences: &[&'a [u8]], child: u32) -> (Vec<u8>, Vec<&'a [u8]>) {
    let (mut header, mut children, mut kind) = (Vec::new(), Vec::new(), 0);
    for message in occurrences {
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field().unwrap() {
            let data = child == 0 && matches!(field.number, 5 | 7 | 9 | 10 | 11);
            match field.value {
                Value::Bytes(body) if field.number == child || data => {
                    if data && field.number != kind {
                        kind = field.number;
                        children.clear();
                    }
                    children.push(body);
                }
                _ => header.extend_from_slice(&message[field.start..field.end]),
            }
        }
    }
    (header, children)
}

/// A rope of the same bytes in pieces that end anywhere.
fn shred(bytes: &[u8], seed: u64) -> Rope {
    let mut rng = fastrand::Rng::with_seed(seed);
    let largest = *rng.choice(&[1, 3, 30, 300, 3000]).unwrap();
    let mut rope = Rope::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rng.usize(1..=largest).min(rest.len()));
        rope.push(Bytes::copy_from_slice(piece));
        rest = after;
    }
    rope
}

fn top_level_extras(request: &[u8]) -> Vec<u8> {
    parted(&[request], 1).0
}

fn joined<'a>(parts: impl IntoIterator<Item = &'a Rope>) -> Vec<u8> {
    let mut all = Rope::new();
    parts.into_iter().for_each(|p| all.append(p.clone()));
    all.to_bytes().to_vec()
}

fn same(signal: Signal, whole: &[u8], parts: &[u8]) -> Result<(), TestCaseError> {
    prop_assert_eq!(rows(signal, whole), rows(signal, parts));
    prop_assert_eq!(raw_rows(signal, whole), raw_rows(signal, parts));
    prop_assert_eq!(top_level_extras(whole), top_level_extras(parts));
    Ok(())
}

fn spans(n: usize, name_len: usize) -> Vec<u8> {
    let mut scope = Vec::new();
    put_bytes(&mut scope, 1, b"\x0a\x05scope");
    for i in 0..n {
        let mut span = Vec::new();
        put_bytes(&mut span, 5, &vec![b'a' + (i % 26) as u8; name_len]);
        put_bytes(&mut scope, 2, &span);
    }
    let mut group = Vec::new();
    put_bytes(&mut group, 1, b"\x0a\x07\x0a\x01k\x12\x02\x0a\x00");
    put_bytes(&mut group, 2, &scope);
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &group);
    request
}

#[test]
fn items_are_referenced_and_only_prefixes_are_fresh() {
    let bytes = Bytes::from(spans(1000, 500));
    let within = bytes.as_ptr_range();
    let parts = split_items(Signal::Traces, Rope::from(bytes.clone()), 1000, 100);
    assert_eq!(parts.iter().map(|p| p.1).collect::<Vec<_>>(), [100; 10]);
    for (rope, _) in &parts {
        let fresh: usize =
            rope.pieces().iter().filter(|p| !within.contains(&p.as_ptr())).map(|p| p.len()).sum();
        assert!(fresh < 60, "{fresh} fresh bytes");
        assert!(rope.pieces().len() <= 2, "{} pieces", rope.pieces().len());
    }
}

#[test]
fn a_group_that_is_not_cut_stays_as_it_was() {
    let one = spans(10, 600);
    let bytes = Bytes::from([one.clone(), one.clone(), one.clone()].concat());
    let parts = split_items(Signal::Traces, Rope::from(bytes.clone()), 30, 20);
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[0].0.to_bytes(), bytes.slice(..2 * one.len()));
    assert_eq!(parts[0].0.to_bytes().as_ptr(), bytes.as_ptr());
    assert_eq!(parts[1].0.to_bytes(), one);
}

#[test]
fn an_item_larger_than_the_limit_is_a_part_that_says_so() {
    let mut bytes = spans(3, 100);
    bytes.extend(spans(1, 5000));
    bytes.extend(spans(3, 100));
    let parts = split_bytes(Signal::Traces, Rope::from(bytes), 7, 1000);
    let shape: Vec<_> = parts.iter().map(|p| (p.items, p.bytes_ok)).collect();
    assert_eq!(shape, [(3, true), (1, false), (3, true)]);
}

#[test]
fn halves_are_about_equal_and_one_item_has_none() {
    let request = spans(7, 50);
    let [a, b] = halve(Signal::Traces, Rope::from(request.clone()), 7).unwrap();
    assert_eq!((a.1, b.1), (4, 3));
    assert_eq!(rows(Signal::Traces, &request), rows(Signal::Traces, &joined([&a.0, &b.0])));
    assert!(halve(Signal::Traces, Rope::from(spans(1, 50)), 1).is_none());
    assert!(halve(Signal::Traces, Rope::new(), 0).is_none());
}

#[test]
fn what_cannot_be_cut_comes_back_whole() {
    let mut bytes = spans(9, 50);
    bytes.push(0x0a);
    let parts = split_items(Signal::Traces, Rope::from(bytes.clone()), 9, 2);
    assert_eq!((parts.len(), parts[0].1), (1, 9));
    assert_eq!(parts[0].0.to_bytes(), bytes);
    let parts = split_bytes(Signal::Traces, Rope::from(bytes), 9, 100);
    assert_eq!((parts.len(), parts[0].bytes_ok), (1, false));
}

#[test]
fn hostile_requests_take_linear_time() {
    // Headers scattered between the items, so that a part must not pay for every place.
    let scattered = |n: usize| {
        let mut scope = Vec::new();
        for _ in 0..n {
            put_bytes(&mut scope, 2, b"");
            put_bytes(&mut scope, 9, b"u");
        }
        let mut group = Vec::new();
        put_bytes(&mut group, 2, &scope);
        let mut request = Vec::new();
        put_bytes(&mut request, 1, &group);
        (Rope::from(request), n)
    };
    let cut = |(rope, n): &(Rope, usize)| split_items(Signal::Traces, rope.clone(), *n, 64);
    assert_linear(scattered, cut, 1 << 12);
    let shredded = |n: usize| (shred(&spans(n, 10), 3), n);
    assert_linear(shredded, cut, 1 << 11);
    let data = |n: usize| {
        let mut scope = Vec::new();
        put_bytes(&mut scope, 2, &[0x2a, 2, 0x0a, 0].repeat(n));
        let mut group = Vec::new();
        put_bytes(&mut group, 2, &scope);
        let mut request = Vec::new();
        put_bytes(&mut request, 1, &group);
        (Rope::from(request), n)
    };
    assert_linear(data, |(rope, n)| split_items(Signal::Metrics, rope.clone(), *n, 64), 1 << 12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn parts_by_items_say_what_the_request_said((signal, bytes) in arb_request(), seed: u64, max in 1usize..9) {
        let bytes = scramble(signal, &bytes, seed);
        let items = count(signal, &bytes).unwrap();
        let parts = split_items(signal, shred(&bytes, seed), items, max);
        same(signal, &bytes, &joined(parts.iter().map(|p| &p.0)))?;
        for (i, (rope, n)) in parts.iter().enumerate() {
            prop_assert_eq!(oracle_count(signal, &rope.to_bytes()), Some(*n));
            prop_assert!(*n == max || (i + 1 == parts.len() && *n <= max), "{} of {}", n, max);
        }
    }

    #[test]
    fn parts_by_bytes_say_what_the_request_said((signal, bytes) in arb_request(), seed: u64, max in 1usize..3000) {
        let bytes = scramble(signal, &bytes, seed);
        let items = count(signal, &bytes).unwrap();
        let parts = split_bytes(signal, shred(&bytes, seed), items, max);
        same(signal, &bytes, &joined(parts.iter().map(|p| &p.rope)))?;
        for part in &parts {
            prop_assert_eq!(oracle_count(signal, &part.rope.to_bytes()), Some(part.items));
            prop_assert_eq!(part.bytes_ok, part.rope.len() <= max);
            prop_assert!(part.bytes_ok || part.items <= 1);
        }
    }

    #[test]
    fn halves_say_what_the_request_said((signal, bytes) in arb_request(), seed: u64) {
        let bytes = scramble(signal, &bytes, seed);
        let items = count(signal, &bytes).unwrap();
        if let Some([a, b]) = halve(signal, shred(&bytes, seed), items) {
            prop_assert_eq!((a.1, b.1), (items.div_ceil(2), items / 2));
            same(signal, &bytes, &joined([&a.0, &b.0]))?;
        } else {
            prop_assert!(items < 2);
        }
    }

    #[test]
    fn damaged_requests_lose_no_item((signal, mut bytes) in arb_request(), seed: u64, max in 1usize..9) {
        mutate(&mut bytes, seed);
        let counted = count(signal, &bytes);
        let parts = split_items(signal, shred(&bytes, seed), counted.unwrap_or(7), max);
        if let Ok(items) = counted {
            prop_assert_eq!(parts.iter().map(|p| p.1).sum::<usize>(), items);
        }
        if oracle_count(signal, &bytes).is_some() {
            same(signal, &bytes, &joined(parts.iter().map(|p| &p.0)))?;
        }
        split_bytes(signal, shred(&bytes, seed), counted.unwrap_or(7), max * 50);
    }

    #[test]
    fn any_bytes_are_survived(signal in arb_signal(), bytes: Vec<u8>, max in 1usize..9) {
        split_items(signal, shred(&bytes, 1), usize::MAX, max);
        split_bytes(signal, Rope::from(bytes), 5, max);
    }
}
