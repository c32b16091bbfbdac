//! Parts put together again say what the request said: every item once, in order, with what encloses it;
//! each part as large as was asked and counted right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::pdata::split::{halve, split_bytes, split_items};
use tidegate::pdata::{Rope, count};
use tidegate_fuzz::Input;
use tidegate_fuzz::oracle::{oracle, rows};

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let (signal, size) = (input.signal, input.size);
    let Ok(items) = count(signal, input.request) else { return };

    let by_items = split_items(signal, input.rope(), items, size);
    let full = by_items.len() - 1;
    assert!(by_items.iter().take(full).all(|(_, n)| *n == size) && by_items[full].1 <= size);
    let by_bytes = split_bytes(signal, input.rope(), items, size);
    for part in &by_bytes {
        assert_eq!(part.bytes_ok, part.rope.len() <= size);
        assert!(part.bytes_ok || part.items <= 1);
    }
    let mut all = vec![by_items, by_bytes.into_iter().map(|p| (p.rope, p.items)).collect()];
    all.extend(halve(signal, input.rope(), items).map(Vec::from));

    let want = oracle(signal, input.request).is_ok().then(|| rows(signal, input.request));
    for parts in all {
        let mut joined = Rope::new();
        for (rope, n) in parts {
            assert_eq!(count(signal, &rope.to_bytes()), Ok(n));
            joined.append(rope);
        }
        if let Some(want) = &want {
            assert_eq!(*want, rows(signal, &joined.to_bytes()));
        }
    }
});
